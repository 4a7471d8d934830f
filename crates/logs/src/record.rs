//! Entries that a logger wrote with fields: JSON and logfmt. Only the fields that matter are read.

use crate::level::Level;
use crate::time::{self, TimeContext};
use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A time as it was written. Read only where an entry is an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum WrittenTime<'a> {
    #[default]
    None,
    Text(Cow<'a, str>),
    Number(f64),
    /// Seconds and nanoseconds, as log4j writes `instant`.
    Parts(i64, i64),
}

impl WrittenTime<'_> {
    pub fn instant(&self, context: &TimeContext) -> Option<Timestamp> {
        match self {
            WrittenTime::None => None,
            WrittenTime::Text(text) => time::parse(text, context),
            WrittenTime::Number(number) => time::epoch(*number),
            WrittenTime::Parts(seconds, nanoseconds) => {
                Timestamp::from_millisecond(seconds.checked_mul(1000)? + nanoseconds / 1_000_000).ok()
            }
        }
    }

    pub fn is_none(&self) -> bool {
        *self == WrittenTime::None
    }
}

/// What one record says of an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record<'a> {
    pub time: WrittenTime<'a>,
    pub level: Option<Level>,
    pub logger: Option<Cow<'a, str>>,
    pub thread: Option<Cow<'a, str>>,
    pub message: Cow<'a, str>,
    pub exception: Option<Cow<'a, str>>,
    pub stack: Option<Cow<'a, str>>,
}

/// The members of one JSON object, in order, unread.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    members: Vec<(Cow<'a, str>, &'a str)>,
    /// One bit for each name, of 64: most of the many names that are asked for are seen here not to be there.
    names: u64,
    has_objects: bool,
}

/// Where loggers write what happened.
static MESSAGES: Names<21> = Names::new([
    "message",
    "msg",
    "log",
    "@m",
    "fields.message",
    "MESSAGE",
    "event",
    "short_message",
    "RenderedMessage",
    "Message",
    "body",
    "Body",
    "textPayload",
    "jsonPayload.message",
    "text",
    "@mt",
    "MessageTemplate",
    "full_message",
    "formattedMessage",
    "error_message",
    "@message",
]);

/// Where they write it of an error, when there is no message.
static ERRORS: Names<12> = Names::new([
    "error.message",
    "err.message",
    "exception.message",
    "error",
    "err",
    "exception.exception_message",
    "thrown.message",
    "throwable.message",
    "exception",
    "Exception.Message",
    "errorMessage",
    "message.errorMessage",
]);

/// Names that are asked for one after the other.
pub struct Names<const N: usize> {
    names: [&'static str; N],
    /// Of each name, and of the first part of one that leads into an object.
    bits: [u64; N],
}

impl<const N: usize> Names<N> {
    pub const fn new(names: [&'static str; N]) -> Self {
        let mut bits = [0; N];
        let mut at = 0;
        while at < N {
            let name = names[at].as_bytes();
            bits[at] = bit(name, name.len());
            let mut end = 0;
            while end < name.len() {
                if name[end] == b'.' {
                    bits[at] |= bit(name, end);
                    break;
                }
                end += 1;
            }
            at += 1;
        }
        Names { names, bits }
    }
}

/// Of the name's first `length` bytes.
const fn bit(name: &[u8], length: usize) -> u64 {
    let ends = if length == 0 { 0 } else { name[0] as usize * 5 + name[length - 1] as usize };
    1 << ((length * 11 + ends) % 64)
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;
            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                out.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields { members: Vec::with_capacity(12), ..Fields::default() };
                while let Some(Name(name)) = map.next_key::<Name>()? {
                    let raw = map.next_value::<&RawValue>()?.get();
                    fields.names |= bit(name.as_bytes(), name.len());
                    fields.has_objects |= raw.as_bytes().first() == Some(&b'{');
                    fields.members.push((name, raw));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                out.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'a> Fields<'a> {
    pub fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The raw value of a member; `a.b` is a member of that name, or `b` within `a`. Of two of one name, the later
    /// counts.
    fn raw(&self, path: &str) -> Option<&'a str> {
        if let Some((_, raw)) = self.members.iter().rev().find(|(name, _)| name == path) {
            return (*raw != "null").then_some(*raw);
        }
        // Most records are flat, and no path leads into those.
        if !self.has_objects {
            return None;
        }
        let (first, rest) = path.split_once('.')?;
        Fields::parse(self.raw(first)?.trim_start()).filter(|_| !rest.is_empty())?.raw(rest)
    }

    pub fn text(&self, path: &str) -> Option<Cow<'a, str>> {
        unquoted(self.raw(path)?)
    }

    /// A text that is no UTF-8, or holds escape sequences, as the journal writes it: a list of bytes.
    pub fn bytes(&self, path: &str) -> Option<String> {
        let bytes: Vec<u8> = serde_json::from_str(self.raw(path)?).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Those of the names that may be there.
    pub fn among<const N: usize>(&self, names: &'static Names<N>) -> impl Iterator<Item = &'static str> {
        let known = self.names;
        names.names.iter().zip(&names.bits).filter(move |(_, bits)| known & **bits != 0).map(|(name, _)| *name)
    }

    fn first_text<const N: usize>(&self, names: &'static Names<N>) -> Option<Cow<'a, str>> {
        self.among(names).find_map(|path| self.text(path).filter(|text| !text.is_empty()))
    }

    /// A text, or a number as it is written.
    fn first_name<const N: usize>(&self, names: &'static Names<N>) -> Option<Cow<'a, str>> {
        let name = |raw: &'a str| {
            if raw.starts_with(['"']) {
                unquoted(raw)
            } else {
                (!raw.starts_with(['{', '['])).then_some(Cow::Borrowed(raw))
            }
        };
        self.among(names).find_map(|path| self.raw(path).and_then(name).filter(|text| !text.is_empty()))
    }

    /// Any value but a text, as it is written; none that is empty.
    fn first_value<const N: usize>(&self, names: &'static Names<N>) -> Option<Cow<'a, str>> {
        let is_empty = |raw: &str| raw.bytes().all(|byte| b"{[\"\t\n\r ]}".contains(&byte));
        self.among(names).find_map(|path| self.raw(path).filter(|raw| !is_empty(raw)).map(Cow::Borrowed))
    }

    pub fn has(&self, path: &str) -> bool {
        self.raw(path).is_some()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn level(&self) -> Option<Level> {
        static WORDS: Names<19> = Names::new([
            "level",
            "severity",
            "levelname",
            "log.level",
            "lvl",
            "loglevel",
            "log_level",
            "Level",
            "LogLevel",
            "@l",
            "logLevel",
            "severityText",
            "SeverityText",
            "level_name",
            "LEVEL",
            "Severity",
            "SEVERITY",
            "@fields.level",
            "@level",
        ]);
        // Loggers that write both count in numbers of their own: Monolog's 400 is an error, another's a warning.
        let mut numbered = None;
        for path in self.among(&WORDS) {
            let Some(raw) = self.raw(path) else { continue };
            let level = match raw.as_bytes()[0] {
                b'"' => unquoted(raw).and_then(|word| {
                    let number = word.parse().ok().and_then(Level::from_number);
                    numbered = numbered.or(number);
                    let last_word = || word.rsplit(['.', ':']).next().and_then(Level::from_word);
                    // Other letters are grades and sizes.
                    let letter = || Level::from_letter(&word).filter(|_| "TDIWEF".contains(&*word));
                    Level::from_word(&word).or_else(last_word).or_else(letter)
                }),
                // log4j's and Monolog's nested form.
                b'{' => Fields::parse(raw)
                    .and_then(|inner| inner.text("name").or_else(|| inner.text("level")))
                    .and_then(|word| Level::from_word(&word)),
                // Collectors whose filters know only floats write `50.0`.
                _ => {
                    let whole = raw.split_once('.').filter(|(_, zeros)| zeros.bytes().all(|digit| digit == b'0'));
                    let number = whole.map_or(raw, |(whole, _)| whole).parse().ok();
                    numbered = numbered.or(number.and_then(Level::from_number));
                    None
                }
            };
            if level.is_some() {
                return level;
            }
        }
        if numbered.is_some() {
            return numbered;
        }
        // MongoDB's letters.
        if self.has_objects && self.raw("t.$date").is_some() {
            return self.text("s").and_then(|letter| Level::from_letter(letter.get(..1)?));
        }
        let number = |path: &str| self.raw(path).and_then(|raw| raw.trim_matches('"').parse::<u64>().ok());
        number("levelno")
            .and_then(Level::from_python)
            .or_else(|| number("severityNumber").or_else(|| number("SeverityNumber")).and_then(Level::from_otel))
            .or_else(|| number("PRIORITY").or_else(|| number("syslog.severity.code")).and_then(Level::from_syslog))
    }

    pub fn time(&self) -> WrittenTime<'a> {
        static PATHS: Names<20> = Names::new([
            "@timestamp",
            "timestamp",
            "time",
            "ts",
            "date",
            "@t",
            "datetime",
            "asctime",
            "Timestamp",
            "eventTime",
            "event_time",
            "timeMillis",
            "timestampMillis",
            "logged_at",
            "created",
            "t",
            "Time",
            "timeUnixNano",
            "t.$date",
            "__REALTIME_TIMESTAMP",
        ]);
        for path in self.among(&PATHS) {
            let Some(raw) = self.raw(path) else { continue };
            let written = match raw.as_bytes()[0] {
                b'"' => unquoted(raw).map_or(WrittenTime::None, WrittenTime::Text),
                b'0'..=b'9' if raw.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
                    WrittenTime::Text(Cow::Borrowed(raw))
                }
                b'0'..=b'9' => raw.parse().map_or(WrittenTime::None, WrittenTime::Number),
                _ => WrittenTime::None,
            };
            if !written.is_none() {
                return written;
            }
        }
        let part = |path: &str| self.raw(path).and_then(|raw| raw.parse::<i64>().ok());
        match (
            part("instant.epochSecond").or_else(|| part("timestampSeconds")),
            part("instant.nanoOfSecond").or_else(|| part("timestampNanos")),
        ) {
            (Some(seconds), nanoseconds) => WrittenTime::Parts(seconds, nanoseconds.unwrap_or(0)),
            _ => WrittenTime::None,
        }
    }

    /// What the writer of a text line put around it: `log` of container collectors, `message` of everything else.
    pub fn message(&self) -> Option<Cow<'a, str>> {
        self.first_text(&MESSAGES).or_else(|| self.text("body.stringValue"))
    }

    pub fn logger(&self) -> Option<Cow<'a, str>> {
        static PATHS: Names<15> = Names::new([
            "logger",
            "logger_name",
            "loggerName",
            "log.logger",
            "SourceContext",
            "Properties.SourceContext",
            "target",
            "name",
            "Logger",
            "category",
            "Category",
            "channel",
            "module",
            "component",
            "@module",
        ]);
        self.first_text(&PATHS)
    }

    pub fn thread(&self) -> Option<Cow<'a, str>> {
        static PATHS: Names<9> = Names::new([
            "thread",
            "thread_name",
            "threadName",
            "process.thread.name",
            "thread_id",
            "threadId",
            "process.thread.id",
            "thread.name",
            "tid",
        ]);
        self.first_name(&PATHS)
    }

    fn stack(&self) -> Option<Cow<'a, str>> {
        static PATHS: Names<22> = Names::new([
            "stack_trace",
            "stackTrace",
            "stacktrace",
            "error.stack_trace",
            "exception.stacktrace",
            "err.stack",
            "error.stack",
            "stack",
            "exc_info",
            "exception.stack_trace",
            "exception.stackTrace",
            "error.stackTrace",
            "thrown.extendedStackTrace",
            "exc_text",
            "traceback",
            "@x",
            "exception",
            "Exception",
            "error_stack",
            "errorVerbose",
            "error.traceback",
            "exception.traceback",
        ]);
        let long = |text: &Cow<str>| text.contains('\n') || crate::trace::head(text).is_some();
        if let Some(stack) = self.among(&PATHS).find_map(|path| self.text(path).filter(long)) {
            return Some(stack);
        }
        // A list of lines.
        static LISTS: Names<7> = Names::new([
            "stack_trace",
            "stacktrace",
            "stack",
            "err.stack",
            "error.stack",
            "exception.backtrace",
            "backtrace",
        ]);
        self.among(&LISTS).find_map(|path| {
            let lines: Vec<String> = serde_json::from_str(self.raw(path)?).ok()?;
            (!lines.is_empty()).then(|| Cow::Owned(lines.join("\n")))
        })
    }

    fn exception(&self) -> Option<Cow<'a, str>> {
        static PATHS: Names<19> = Names::new([
            "exception_class",
            "error.type",
            "exception.type",
            "err.type",
            "error_type",
            "errorType",
            "exc_type",
            "exception.class",
            "thrown.name",
            "exception.exception_class",
            "throwable.className",
            "error.kind",
            "error.class",
            "exception.name",
            "error.name",
            "err.name",
            "exception.ClassName",
            "Exception.ClassName",
            "message.errorType",
        ]);
        self.first_text(&PATHS)
    }

    /// The record as an entry, whether it is an error or not. `None` where nothing says which.
    pub fn record(&self) -> Option<Record<'a>> {
        let level = self.level();
        // Most records are read no further than this.
        if level.is_some_and(|level| !level.is_error()) {
            return Some(Record {
                level,
                thread: self.thread(),
                message: self.message().unwrap_or_default(),
                ..Record::default()
            });
        }
        let (exception, stack) = (self.exception(), self.stack());
        let level = level.or_else(|| (exception.is_some() || stack.is_some()).then_some(Level::Error))?;
        Some(self.record_of(Some(level), exception, stack))
    }

    /// The record with these, and what else there is.
    pub fn record_of(
        &self,
        level: Option<Level>,
        exception: Option<Cow<'a, str>>,
        stack: Option<Cow<'a, str>>,
    ) -> Record<'a> {
        let message = self.message().or_else(|| self.first_text(&ERRORS));
        // A trace says more than what is no text.
        let is_bare = message.is_none() && exception.is_none() && stack.is_none();
        let message = if is_bare { self.first_value(&MESSAGES).or_else(|| self.first_value(&ERRORS)) } else { message };
        let message = message.unwrap_or_default();
        Record { time: self.time(), level, logger: self.logger(), thread: self.thread(), message, exception, stack }
    }
}

fn unquoted(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    let text: Option<String> = serde_json::from_str(raw).ok();
    text.or_else(|| serde_json::from_str(&repaired(raw)).ok()).map(Cow::Owned)
}

/// JSON as some writers leave it, mended: control characters in strings are escaped, half of a surrogate pair, which
/// stays where a text was cut in the middle of a character, becomes U+FFFD, and `NaN` and `Infinity` become `null`.
pub(crate) fn repaired(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 64);
    let mut in_string = false;
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '"' => {
                in_string = !in_string;
                out.push(c);
            }
            c if in_string && c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            '\\' if in_string => {
                let escape = escape(rest);
                length = escape.len();
                out.push_str(if is_half(escape) { "\\ufffd" } else { escape });
            }
            _ if in_string => out.push(c),
            _ => match ["NaN", "Infinity", "-Infinity"].iter().find(|word| rest.starts_with(**word)) {
                Some(word) => {
                    length = word.len();
                    out.push_str("null");
                }
                None => out.push(c),
            },
        }
        rest = &rest[length..];
    }
    out
}

/// The escape that a text begins with: `\n`, `\u00fc`, or both halves of a surrogate pair.
fn escape(text: &str) -> &str {
    const UNIT: usize = r"\u0000".len();
    let high = unit(text).is_some_and(|unit| (0xd800..0xdc00).contains(&unit));
    let low = high && text.get(UNIT..).and_then(unit).is_some_and(|unit| (0xdc00..0xe000).contains(&unit));
    let length = match unit(text) {
        Some(_) if low => 2 * UNIT,
        Some(_) => UNIT,
        // Escaped is one character, a control character not.
        None => 1 + text[1..].chars().next().filter(|c| *c >= ' ').map_or(0, char::len_utf8),
    };
    &text[..length]
}

/// The number of `\u00fc`.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

fn is_half(escape: &str) -> bool {
    escape.len() == r"\u0000".len() && unit(escape).is_some_and(|unit| (0xd800..0xe000).contains(&unit))
}

/// `time=... level=error msg="..."`, as logrus and slog write it. `None` when the line is something else.
pub fn logfmt(line: &str) -> Option<Record<'_>> {
    let mut rest = line.trim_end();
    let mut pairs = Pairs::default();
    while !rest.is_empty() {
        let name_end = rest.find(|c| !is_of_name(c)).filter(|&end| end > 0)?;
        let name = &rest[..name_end];
        let Some(value) = rest[name_end..].strip_prefix('=') else {
            // A word that stands alone is a flag; a line that begins with one is prose.
            if pairs.record.level.is_none() || !rest[name_end..].starts_with(' ') {
                return None;
            }
            rest = rest[name_end..].trim_start();
            continue;
        };
        let (value, behind) = logfmt_value(value)?;
        rest = behind.trim_start();
        pairs.take(name, value);
    }
    pairs.record()
}

/// `time:...<TAB>level:error<TAB>message:...`, as FluentD writes it with `format ltsv`.
pub fn ltsv(line: &str) -> Option<Record<'_>> {
    let mut pairs = Pairs::default();
    for field in line.trim_end().split('\t') {
        let (name, value) =
            field.split_once(':').filter(|(name, _)| !name.is_empty() && name.chars().all(is_of_name))?;
        pairs.take(name, Cow::Borrowed(value));
    }
    pairs.record()
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-@/".contains(c)
}

/// Names and values of one line.
#[derive(Default)]
struct Pairs<'a> {
    record: Record<'a>,
    message: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
}

impl<'a> Pairs<'a> {
    fn take(&mut self, name: &str, value: Cow<'a, str>) {
        let record = &mut self.record;
        match name {
            "level" | "lvl" | "severity" => record.level = Level::from_word(&value),
            "time" | "ts" | "timestamp" | "t" => record.time = WrittenTime::Text(value),
            "msg" | "message" => self.message = Some(value),
            "event" => self.message = self.message.take().or(Some(value)),
            "error" | "err" => self.error = Some(value),
            "logger" | "component" | "module" | "subsystem" => record.logger = Some(value),
            "thread" | "goroutine" => record.thread = Some(value),
            "stack" | "stacktrace" | "stack_trace" => record.stack = Some(value),
            _ => {}
        }
    }

    fn record(self) -> Option<Record<'a>> {
        self.record.level?;
        Some(Record { message: self.message.or(self.error)?, ..self.record })
    }
}

fn logfmt_value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    // Python's structlog quotes as Python does.
    let mark = if text.starts_with('\'') { '\'' } else { '"' };
    let Some(quoted) = text.strip_prefix(mark) else {
        let end = text.find(' ').unwrap_or(text.len());
        return Some((Cow::Borrowed(&text[..end]), &text[end..]));
    };
    let mut escaped = false;
    let end = quoted.char_indices().find_map(|(at, c)| {
        let is_end = c == mark && !escaped;
        escaped = c == '\\' && !escaped;
        is_end.then_some(at)
    })?;
    let raw = &text[..end + 2];
    let value = serde_json::from_str::<String>(raw).map_or_else(
        |_| Cow::Borrowed(&quoted[..end]),
        |value| if value == quoted[..end] { Cow::Borrowed(&quoted[..end]) } else { Cow::Owned(value) },
    );
    Some((value, &text[end + 2..]))
}

/// The same, with text of its own.
pub(crate) fn own(written: &WrittenTime) -> WrittenTime<'static> {
    match written {
        WrittenTime::None => WrittenTime::None,
        WrittenTime::Text(text) => WrittenTime::Text(Cow::Owned(text.to_string())),
        WrittenTime::Number(number) => WrittenTime::Number(*number),
        WrittenTime::Parts(seconds, nanoseconds) => WrittenTime::Parts(*seconds, *nanoseconds),
    }
}
