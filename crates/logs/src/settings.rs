//! The pattern file: formats, zones by prefix, categories and masks. The built-in file has the same form.

use crate::level::Level;
use jiff::tz::TimeZone;
use regex::Regex;
use regex::bytes;
use serde::Deserialize;
use std::collections::HashSet;
use std::sync::{Arc, LazyLock, OnceLock};
use toml::Spanned;

const BUILT_IN: &str = include_str!("patterns.toml");

/// What is wrong with a pattern file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct SettingsError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub what: String,
}

/// How one logger begins an entry.
#[derive(Clone, Debug)]
pub struct Format {
    pub name: String,
    pattern: Pattern,
    /// Fits whatever the pattern fits, and more: any time is as good as another. All formats' together are compiled in
    /// a fourth of the time.
    outline: String,
    /// `strftime`'s conversions; `None`: any known form of time.
    pub time_format: Option<String>,
    /// Of entries that name none.
    pub level: Option<Level>,
    /// Levels are single letters.
    pub letters: bool,
    /// Level and message come on the next line.
    pub two_lines: bool,
    /// It fits lines of more precise formats, too.
    pub vague: bool,
    /// From a configured file: looks at every line, also at those that begin with a space.
    pub configured: bool,
    pub has_message: bool,
    /// The same pattern for levels that are no errors.
    quiet: Option<Quiet>,
}

/// Compiled when it is first used: all of them together take longer than most objects, and a file needs one or two.
#[derive(Clone, Debug)]
struct Pattern {
    source: String,
    compiled: Arc<OnceLock<bytes::Regex>>,
}

impl Pattern {
    fn new(source: String) -> Self {
        Pattern { source, compiled: Arc::default() }
    }

    fn get(&self) -> &bytes::Regex {
        self.compiled.get_or_init(|| build(&self.source).unwrap_or_else(|error| unreachable!("{error}")))
    }
}

fn build(source: &str) -> Result<bytes::Regex, regex::Error> {
    bytes::RegexBuilder::new(source).size_limit(20 << 20).build()
}

/// Most lines of a log begin an entry that is no error, and of those no more need be known than this. A pattern without
/// groups is many times as fast as one with groups.
#[derive(Clone, Debug)]
struct Quiet {
    info: Pattern,
    other: Pattern,
}

impl Format {
    pub fn pattern(&self) -> &bytes::Regex {
        self.pattern.get()
    }

    /// The level of a line that begins an entry of this format and is no error. `None`: ask [`Format::pattern`].
    pub fn quiet_level(&self, head: &[u8]) -> Option<Level> {
        let quiet = self.quiet.as_ref()?;
        if quiet.info.get().is_match(head) {
            Some(Level::Info)
        } else if quiet.other.get().is_match(head) {
            Some(Level::Warn)
        } else {
            None
        }
    }
}

/// What is configured for keys that begin alike.
#[derive(Clone, Debug)]
struct Prefix {
    key: String,
    zone: Option<TimeZone>,
    formats: Option<Formats>,
}

/// Formats to try, in this order, and all of them as one automaton.
#[derive(Clone, Debug)]
pub struct Formats {
    pub list: Vec<Arc<Format>>,
    set: Arc<OnceLock<Option<bytes::RegexSet>>>,
    /// Those that look at lines that begin with a space, too.
    pub has_configured: bool,
}

impl Formats {
    fn new(list: Vec<Arc<Format>>) -> Self {
        let has_configured = list.iter().any(|format| format.configured);
        Formats { list, set: Arc::default(), has_configured }
    }

    /// The formats that may fit the beginning of a line, in order: what each reads says whether it does.
    pub fn that_may_fit(&self, head: &str) -> Vec<usize> {
        let sources = || self.list.iter().map(|format| format.outline.as_str());
        let set = self.set.get_or_init(|| bytes::RegexSetBuilder::new(sources()).size_limit(100 << 20).build().ok());
        match set {
            Some(set) => set.matches(head.as_bytes()).into_iter().collect(),
            // Configured patterns can be too large together.
            None => (0..self.list.len()).collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryPart {
    Exception,
    Message,
    Logger,
    Stack,
}

#[derive(Clone, Debug)]
pub struct Category {
    pub name: String,
    pub pattern: Regex,
    pub parts: Vec<EntryPart>,
}

/// A secret to be hidden.
#[derive(Clone, Debug)]
pub struct Mask {
    pub pattern: Regex,
    /// Only numbers with a valid check digit.
    pub luhn: bool,
}

#[derive(Clone, Debug)]
pub struct Settings {
    formats: Formats,
    prefixes: Vec<Prefix>,
    pub categories: Vec<Category>,
    /// The categories' patterns look at no digit: texts that differ in their numbers only are of one category.
    pub ignores_numbers: bool,
    pub masks: Vec<Mask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    format: Vec<FileFormat>,
    #[serde(default)]
    prefix: Vec<FilePrefix>,
    #[serde(default)]
    category: Vec<FileCategory>,
    #[serde(default)]
    mask: Vec<FileMask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFormat {
    name: Spanned<String>,
    pattern: Spanned<String>,
    time_format: Option<String>,
    level: Option<Spanned<String>>,
    #[serde(default)]
    letters: bool,
    #[serde(default)]
    two_lines: bool,
    #[serde(default)]
    vague: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePrefix {
    key: String,
    zone: Option<Spanned<String>>,
    formats: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCategory {
    name: Spanned<String>,
    pattern: Spanned<String>,
    #[serde(default = "all_parts", rename = "in")]
    parts: Vec<EntryPart>,
}

fn all_parts() -> Vec<EntryPart> {
    vec![EntryPart::Exception, EntryPart::Message, EntryPart::Logger, EntryPart::Stack]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMask {
    #[serde(rename = "name")]
    _name: String,
    pattern: Spanned<String>,
    check: Option<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Check {
    Luhn,
}

impl Settings {
    /// What is known without any configuration.
    pub fn built_in() -> Self {
        // Compiling all patterns takes a tenth of a second.
        static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
            Settings::read(BUILT_IN, false, Settings::empty())
                .unwrap_or_else(|error| unreachable!("the built-in patterns: {error}"))
        });
        SETTINGS.clone()
    }

    /// A configured file, in front of what is built in.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        Settings::read(text, true, Settings::built_in())
    }

    fn empty() -> Self {
        Settings {
            formats: Formats::new(Vec::new()),
            prefixes: Vec::new(),
            categories: Vec::new(),
            ignores_numbers: true,
            masks: Vec::new(),
        }
    }

    fn read(text: &str, configured: bool, behind: Settings) -> Result<Self, SettingsError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            error_at(text, start, error.message().to_owned())
        })?;
        let mut names = HashSet::new();
        let mut formats = Vec::new();
        for format in file.format {
            if !names.insert(format.name.as_ref().clone()) {
                return Err(error_at(
                    text,
                    format.name.span().start,
                    format!("a format `{}` stands above", format.name.as_ref()),
                ));
            }
            let pattern = if configured {
                format_pattern(text, &format.pattern)?
            } else {
                Pattern::new(bytewise(&expand(format.pattern.as_ref(), LEVELS, &any_levels())))
            };
            let level = format.level.map(|word| {
                let unknown = || error_at(text, word.span().start, format!("there is no level `{}`", word.as_ref()));
                Level::from_word(word.as_ref()).ok_or_else(unknown)
            });
            let quiet = (!configured && !format.letters && !format.two_lines && !format.vague)
                .then(|| quiet(format.pattern.as_ref()))
                .flatten();
            let has_message = pattern.source.contains("(?<message>") || pattern.source.contains("(?P<message>");
            let outline = if configured { pattern.source.clone() } else { outline(format.pattern.as_ref()) };
            formats.push(Arc::new(Format {
                name: format.name.into_inner(),
                pattern,
                outline,
                time_format: format.time_format,
                level: level.transpose()?,
                letters: format.letters,
                two_lines: format.two_lines,
                vague: format.vague,
                configured,
                has_message,
                quiet,
            }));
        }
        formats.extend(behind.formats.list.into_iter().filter(|format| !names.contains(&format.name)));
        let mut prefixes = Vec::new();
        for prefix in file.prefix {
            let zone = prefix.zone.map(|zone| {
                TimeZone::get(zone.as_ref()).map_err(|_| {
                    error_at(text, zone.span().start, format!("there is no time zone `{}`", zone.as_ref()))
                })
            });
            let by_name = |name: &Spanned<String>| {
                let found = formats.iter().find(|format| format.name == *name.as_ref()).cloned();
                found
                    .ok_or_else(|| error_at(text, name.span().start, format!("there is no format `{}`", name.as_ref())))
            };
            let formats =
                prefix.formats.map(|names| names.iter().map(by_name).collect::<Result<_, _>>().map(Formats::new));
            prefixes.push(Prefix { key: prefix.key, zone: zone.transpose()?, formats: formats.transpose()? });
        }
        // The longest prefix that fits says it.
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.key.len()));
        let mut categories = Vec::new();
        for category in file.category {
            if category.name.as_ref().is_empty() {
                return Err(error_at(text, category.name.span().start, "a category needs a name".into()));
            }
            let pattern = compile(text, &category.pattern, configured)?;
            categories.push(Category { name: category.name.into_inner(), pattern, parts: category.parts });
        }
        // A class of all digits tells none from another.
        let names_a_digit = |category: &Category| {
            category.pattern.as_str().replace("0-9", "").bytes().any(|byte| byte.is_ascii_digit())
        };
        let ignores_numbers = behind.ignores_numbers && !categories.iter().any(names_a_digit);
        categories.extend(behind.categories);
        let mut masks = Vec::new();
        for mask in file.mask {
            masks.push(Mask {
                pattern: compile(text, &mask.pattern, configured)?,
                luhn: matches!(mask.check, Some(Check::Luhn)),
            });
        }
        masks.extend(behind.masks);
        Ok(Settings { formats: Formats::new(formats), prefixes, categories, ignores_numbers, masks })
    }

    fn prefix(&self, key: &str) -> Option<&Prefix> {
        self.prefixes.iter().find(|prefix| key.starts_with(&prefix.key))
    }

    /// The zone of times without one, in the object `key`.
    pub fn zone(&self, key: &str) -> Option<TimeZone> {
        self.prefix(key)?.zone.clone()
    }

    /// The formats to be tried on lines of the object `key`.
    pub fn formats(&self, key: &str) -> &Formats {
        self.prefix(key).and_then(|prefix| prefix.formats.as_ref()).unwrap_or(&self.formats)
    }
}

/// What every time of [`expand`] is and much else: it begins with a digit, or with a day's or month's short name. In
/// front of AM and PM newer libraries write a narrow space, which is no ASCII.
const ANY_TIME: &str = r"(?:[0-9]|[A-Z][a-z]{2},? )[-0-9A-Za-z.,:/+_\[\] \t\r\n\xe2\x80\xaf]*";

const LEVELS: &str = "TRACE|FINEST|FINER|VERBOSE|DEBUG|FINE|CONFIG|INFORMATION|INFO|NOTICE|WARNING|WARN|ERROR|SEVERE|FATAL|CRITICAL|DPANIC|PANIC|ALERT|EMERGENCY|EMERG|ERR|CRIT|INF|WRN|DBG|FTL|VRB|TRC|LOG|FAIL|EROR";
const LOWER_LEVELS: &str = "trace|debug|dbug|information|info|notice|warning|warn|error|severe|fatal|critical|panic|emerg|err|crit|Trace|Debug|Information|Info|Notice|Warning|Warn|Error|Severe|Fatal|Critical|Panic";
const CLOCK: &str = r"\d\d?:\d\d:\d\d(?:[.,:]\d{1,9})?";
const OFFSET: &str =
    r"(?:\s?(?:Z|UTC|GMT|[+-]\d\d:?\d\d|[+-]\d\d\b)|\s\[?[A-Z][a-z]+/[A-Z][A-Za-z_]+\]?|\s(?:{ZONE})\b)?";
/// Short names of zones. Not any three or four letters: `INFO` and `WARN` stand in the same place.
const ZONE: &str = "[A-Z]{1,2}[DES]T|MSK|HKT|SGT|PKT|WIB|ICT|PHT|BRT|ART|CLT|COT|PET|NPT|UYT|[CEW]AT";

/// What `%{...}` stands for, with these levels.
fn expand(source: &str, levels: &str, any_levels: &str) -> String {
    let months = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec";
    let dated = format!(
        r"\d{{4}}[-/.]\d\d[-/.]\d\d(?:[T ,_]|, ){CLOCK}{OFFSET}|\d\d?[/ -](?:{months})[/ -]\d{{4}}[: ]{CLOCK}{OFFSET}|\d\d?/\d\d?/\d\d(?:\d\d)?,? {CLOCK}(?:(?: |\xe2\x80\xaf)?[AP]M)?{OFFSET}|(?:[A-Z][a-z]{{2}},? )?(?:{months}) {{1,2}}\d\d?,?(?: \d{{4}},?)? {CLOCK}(?: [AP]M)?(?: (?:UTC|GMT|{ZONE})\b)?(?: \d{{4}})?|\d{{8}}[T ]\d\d:?\d\d:?\d\d(?:[.,]\d{{1,9}})?{OFFSET}|\d\d?\.\d\d?\.\d{{4}},? {CLOCK}{OFFSET}"
    );
    let dated = dated.replace("{ZONE}", ZONE);
    source
        .replace("%{TIME}", &format!("(?<time>{dated}|{CLOCK}Z?)"))
        .replace("%{DATED}", &format!("(?<time>{dated})"))
        .replace("%{LEVEL}", &format!(r"(?<level>(?:{levels})\b)"))
        .replace("%{ANYLEVEL}", &format!(r"(?<level>(?:{any_levels})\b)"))
}

/// A built-in pattern with any time for its own.
fn outline(pattern: &str) -> String {
    let timed = pattern.replace("%{TIME}", ANY_TIME).replace("%{DATED}", ANY_TIME);
    bytewise(&expand(&timed, LEVELS, &any_levels()))
}

fn any_levels() -> String {
    format!("{LEVELS}|{LOWER_LEVELS}")
}

/// Of bytes: what surrounds the groups of a built-in pattern is ASCII, so that they end where characters do.
fn bytewise(pattern: &str) -> String {
    format!("(?-u){}", ascii(pattern))
}

/// Digits, letters and spaces of ASCII, as all loggers write their headers: Unicode's make patterns large and slow.
fn ascii(pattern: &str) -> String {
    pattern
        .replace(r"\d", "[0-9]")
        .replace(r"\w", "[0-9A-Za-z_]")
        .replace(r"\S", r"[^\t\n\r ]")
        .replace(r"\s", r"[\t\n\r ]")
        .replace(r"\b", r"(?-u:\b)")
}

/// A built-in pattern for the levels that are no errors, without groups.
fn quiet(pattern: &str) -> Option<Quiet> {
    let levels = |is_wanted: &dyn Fn(Level) -> bool, all: &str| {
        let wanted = all.split('|').filter(|word| Level::from_word(word).is_some_and(is_wanted));
        wanted.collect::<Vec<_>>().join("|")
    };
    if !pattern.contains("%{LEVEL}") {
        return None;
    }
    let build = |is_wanted: &dyn Fn(Level) -> bool| {
        let expanded = ascii(&expand(pattern, &levels(is_wanted, LEVELS), ""));
        let names = ["time", "level", "logger", "thread", "message"];
        let nameless = names.iter().fold(expanded, |text, name| text.replace(&format!("(?<{name}>"), "(?:"));
        Pattern::new(format!("(?-u){nameless}"))
    };
    let other = build(&|level| level < Level::Error && level != Level::Info);
    Some(Quiet { info: build(&|level| level == Level::Info), other })
}

/// A pattern of a category or a mask.
fn compile(text: &str, pattern: &Spanned<String>, configured: bool) -> Result<Regex, SettingsError> {
    let source = if configured { pattern.as_ref().clone() } else { ascii(pattern.as_ref()) };
    let compiled = regex::RegexBuilder::new(&source).size_limit(20 << 20).build();
    compiled.map_err(|error| pattern_error(text, pattern, &error))
}

/// Puts what `%{...}` stands for into a configured format's pattern, and compiles it.
fn format_pattern(text: &str, pattern: &Spanned<String>) -> Result<Pattern, SettingsError> {
    let format = Pattern::new(expand(pattern.as_ref(), LEVELS, &any_levels()));
    let compiled = build(&format.source).map_err(|error| pattern_error(text, pattern, &error))?;
    const GROUPS: [&str; 5] = ["time", "level", "logger", "thread", "message"];
    if let Some(unknown) = compiled.capture_names().flatten().find(|name| !GROUPS.contains(name)) {
        let what = format!("there is no group `{unknown}` in a format, only {}", GROUPS.join(", "));
        return Err(error_at(text, pattern.span().start, what));
    }
    Ok(Pattern { compiled: Arc::new(compiled.into()), ..format })
}

fn pattern_error(text: &str, pattern: &Spanned<String>, error: &regex::Error) -> SettingsError {
    let source = pattern.as_ref();
    // The place within the pattern, where it was not changed by what `%{...}` stands for.
    let within = match regex_syntax::parse(source) {
        Err(regex_syntax::Error::Parse(fault)) => Some((fault.span().start.offset, fault.kind().to_string())),
        Err(regex_syntax::Error::Translate(fault)) => Some((fault.span().start.offset, fault.kind().to_string())),
        _ => None,
    };
    let raw = &text[pattern.span()];
    match within {
        Some((offset, what)) => {
            // Behind the opening quotes; an escape in a basic string moves what follows it by a little.
            let quotes = raw.chars().take_while(|c| matches!(c, '"' | '\'')).count();
            let quotes = if quotes >= 3 { 3 } else { 1 };
            error_at(text, pattern.span().start + quotes + offset, format!("the pattern cannot be read: {what}"))
        }
        None => error_at(
            text,
            pattern.span().start,
            format!("the pattern cannot be used: {}", error.to_string().lines().last().unwrap_or_default()),
        ),
    }
}

fn error_at(text: &str, byte: usize, what: String) -> SettingsError {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    let before = &text[..byte];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    SettingsError { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> SettingsError {
        Settings::parse(text).expect_err("a faulty file")
    }

    #[test]
    fn a_fault_is_named_with_line_and_column() {
        let unclosed = error("# ours\n[[category]]\nname = 'a'\npattern = 'ab(c'\n");
        assert_eq!((unclosed.line, unclosed.column), (4, 14), "{unclosed}");
        let unknown = error("[[format]]\nname = 'a'\npattern = '^(?<tmie>x)'\n");
        assert_eq!((unknown.line, unknown.column), (3, 11), "{unknown}");
        assert!(unknown.what.contains("tmie"), "{unknown}");
        let syntax = error("[[category]]\nname = \n");
        assert_eq!((syntax.line, syntax.column), (2, 8), "{syntax}");
        let zone = error("[[prefix]]\nkey = 'a/'\nzone = 'Mars/Olympus'\n");
        assert_eq!((zone.line, zone.column, zone.what.as_str()), (3, 8, "there is no time zone `Mars/Olympus`"));
        let level = error("[[format]]\nname = 'a'\npattern = 'x'\nlevel = 'loud'\n");
        assert_eq!((level.line, level.column, level.what.as_str()), (4, 9, "there is no level `loud`"));
        let format = error("[[prefix]]\nkey = 'a/'\nformats = ['logback', 'loback']\n");
        assert_eq!((format.line, format.column), (3, 23), "{format}");
        let field = error("[[category]]\nname = 'ä'\npatern = 'x'\npattern = 'y'\n");
        assert_eq!((field.line, field.column), (3, 1), "{field}");
        assert_eq!(error("[[format]]\nname = 'a'\npattern = 'x'\n[[format]]\nname = 'a'\npattern = 'x'\n").line, 5);
    }

    #[test]
    fn every_built_in_pattern_can_be_compiled() {
        for format in &Settings::built_in().formats.list {
            format.pattern();
            assert_eq!(format.quiet_level(b"no entry"), None, "{}", format.name);
        }
        Settings::built_in().formats.that_may_fit("");
        assert!(Settings::built_in().formats.set.get().is_some_and(Option::is_some), "they fit into no set");
    }

    #[test]
    fn what_fits_a_pattern_fits_its_outline() {
        let formats = Settings::built_in().formats;
        let folder = format!("{}/tests/cases", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file").path());
        let cases: Vec<String> = files.map(|path| std::fs::read_to_string(path).expect("a text")).collect();
        let mut fitting = 0;
        for line in cases.iter().flat_map(|text| text.lines()) {
            let may_fit = formats.that_may_fit(line);
            for (at, format) in formats.list.iter().enumerate().filter(|(_, it)| it.pattern().is_match(line.as_bytes()))
            {
                fitting += 1;
                assert!(may_fit.contains(&at), "{}: {line}", format.name);
            }
        }
        assert!(fitting > 400, "{fitting}");
        let whole = |time: &str| build(&format!("^(?:{time})$")).expect("a pattern");
        let (known, any) = (whole(&bytewise(&expand("%{TIME}", "", ""))), whole(&bytewise(ANY_TIME)));
        for time in [
            "2024-07-01T10:00:00.123456789Z",
            "2024/07/01 10:00:00,123 +02:00",
            "2024.07.01, 1:00:00:123\t[Europe/Berlin]",
            "2024-07-01_10:00:00 America/Port_of_Spain",
            "1 Jul 2024 10:00:00 CEST",
            "01/Jul/2024:10:00:00 +0000",
            "01-Jul-2024 10:00:00.123\n-08",
            "07/01/24 10:00:00",
            "07/01/2024 10:00:00 GMT",
            "11/21/2026 03:04:05 PM",
            "11/21/2026, 3:04:05\u{202f}PM",
            "1/2/2026 3:04:05PM +01:00",
            "Mon Jul  1 10:00:00 UTC 2024",
            "Mon, Jul 1, 2024, 1:00:00 PM",
            "Jul 01 10:00:00",
            "20240701T100000.123Z",
            "20240701 10:00:00\r+0200",
            "1.7.2024, 10:00:00",
            "10:00:00.123Z",
        ] {
            assert!(known.is_match(time.as_bytes()) && any.is_match(time.as_bytes()), "{time}");
        }
    }

    #[test]
    fn the_longest_prefix_decides_and_own_formats_come_first() {
        let settings = Settings::parse(
            "[[format]]\nname = 'own'\npattern = '^(?<level>\\w+)~'\n[[prefix]]\nkey = ''\nzone = 'UTC'\n[[prefix]]\nkey = 'shop/'\nzone = 'Europe/Berlin'\nformats = ['own', 'python']\n",
        )
        .expect("a file");
        assert_eq!(
            settings.zone("shop/2024/x.gz").and_then(|zone| zone.iana_name().map(str::to_owned)).as_deref(),
            Some("Europe/Berlin")
        );
        assert_eq!(settings.zone("pay/x.gz").map(|zone| zone == TimeZone::UTC), Some(true));
        assert_eq!(
            settings.formats("shop/x.gz").list.iter().map(|format| format.name.as_str()).collect::<Vec<_>>(),
            ["own", "python"]
        );
        assert_eq!(settings.formats("pay/x.gz").list[0].name, "own");
        assert!(Settings::built_in().zone("pay/x.gz").is_none());
    }
}
