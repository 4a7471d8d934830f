//! What a collector puts around a line: FluentD, fluent-bit, Docker, Kubernetes (CRI), syslog, docker compose.
//! Inside is a record with fields, or a piece of some program's text, told apart from other programs' by a key.

use crate::level::Level;
use crate::record::{self, Fields, Names, Record, WrittenTime};
use regex::Regex;
use std::borrow::Cow;
use std::sync::LazyLock;

/// How deep envelopes may stand in each other: Kubernetes around Docker around a logger's JSON, and one to spare.
const DEPTH: usize = 5;

/// A line without what collectors put around it.
#[derive(Debug, PartialEq)]
pub struct Piece<'a> {
    /// Tells texts apart that are mixed in one file: container, tag, stdout or stderr. Empty for a plain file.
    pub source: Cow<'a, str>,
    /// The collector's time.
    pub collected: WrittenTime<'a>,
    /// The collector's level, for text that names none.
    pub level: Option<Level>,
    /// The text goes on in the next piece of this source, without a line break between them.
    pub is_partial: bool,
    pub body: Body<'a>,
}

#[derive(Debug, PartialEq)]
pub enum Body<'a> {
    Record(Record<'a>),
    Text(Cow<'a, str>),
    /// A known envelope around what cannot be read.
    Broken,
}

impl<'a> Piece<'a> {
    fn text(text: Cow<'a, str>) -> Self {
        Piece {
            source: Cow::Borrowed(""),
            collected: WrittenTime::None,
            level: None,
            is_partial: false,
            body: Body::Text(text),
        }
    }

    fn record(record: Record<'a>) -> Self {
        Piece { body: Body::Record(record), ..Piece::text(Cow::Borrowed("")) }
    }
}

/// Takes a line out of all that stands around it. Whatever is not understood is text. A byte order mark stands in front
/// of each part of a file that was put together from several.
pub fn open(line: &str) -> Piece<'_> {
    open_at(line.trim_start_matches('\u{feff}'), 0)
}

fn open_at(line: &str, depth: usize) -> Piece<'_> {
    let first = line.trim_start().bytes().next();
    let is_indented = line.starts_with([' ', '\t']);
    let found = match first {
        _ if depth >= DEPTH => None,
        // Only a record may stand behind spaces: most lines that begin so are frames.
        Some(byte) if is_indented && byte != b'{' => None,
        Some(b'{') => json(line, depth),
        Some(b'0'..=b'9') => fluentd(line, depth)
            .or_else(|| cri(line, depth))
            .or_else(|| fluentd_stdout(line, depth))
            .or_else(|| syslog(line, depth)),
        Some(b'[') => fluent_bit(line, depth),
        Some(b'<') => syslog(line, depth),
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => {
            let pairs =
                match line.bytes().take(24).find(|byte| !(byte.is_ascii_alphanumeric() || b"_.-@".contains(byte))) {
                    Some(b'=') => record::logfmt(line).map(Piece::record),
                    Some(b':') if line.contains('\t') => record::ltsv(line).map(Piece::record),
                    _ => None,
                };
            pairs.or_else(|| fluent_bit(line, depth)).or_else(|| compose(line, depth)).or_else(|| syslog(line, depth))
        }
        _ => None,
    };
    found.unwrap_or_else(|| Piece::text(Cow::Borrowed(line)))
}

/// The text without terminals' escape sequences.
pub fn without_colours(text: Cow<'_, str>) -> Cow<'_, str> {
    if memchr::memchr(b'\x1b', text.as_bytes()).is_none() {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find('\u{1b}') {
        out.push_str(&rest[..at]);
        let sequence = rest[at + 1..].strip_prefix('[');
        rest = match sequence
            .and_then(|sequence| sequence.find(|c: char| c.is_ascii_alphabetic()).map(|end| &sequence[end + 1..]))
        {
            Some(behind) => behind,
            None => &rest[at + 1..],
        };
    }
    Cow::Owned(out + rest)
}

/// What stands inside of an envelope, with the envelope's own words where the inside has none.
fn inside<'a>(text: Cow<'a, str>, depth: usize, outer: Piece<'a>) -> Piece<'a> {
    // JSON escapes them, so that they are seen here first.
    let inner = match without_colours(text) {
        Cow::Borrowed(text) => open_at(text, depth + 1),
        Cow::Owned(text) => owned(open_at(&text, depth + 1)),
    };
    let source = match (outer.source.is_empty(), inner.source.is_empty()) {
        (true, _) => inner.source,
        (_, true) => outer.source,
        _ => Cow::Owned([&outer.source, "\n", &inner.source].concat()),
    };
    let collected = if inner.collected.is_none() { outer.collected } else { inner.collected };
    Piece {
        source,
        collected,
        level: inner.level.or(outer.level),
        is_partial: outer.is_partial || inner.is_partial,
        body: inner.body,
    }
}

fn owned<'a>(piece: Piece<'_>) -> Piece<'a> {
    fn own<'a>(text: Cow<'_, str>) -> Cow<'a, str> {
        Cow::Owned(text.into_owned())
    }
    fn own_time<'a>(time: WrittenTime<'_>) -> WrittenTime<'a> {
        match time {
            WrittenTime::None => WrittenTime::None,
            WrittenTime::Text(text) => WrittenTime::Text(own(text)),
            WrittenTime::Number(number) => WrittenTime::Number(number),
            WrittenTime::Parts(seconds, nanoseconds) => WrittenTime::Parts(seconds, nanoseconds),
        }
    }
    let body = match piece.body {
        Body::Text(text) => Body::Text(own(text)),
        Body::Broken => Body::Broken,
        Body::Record(record) => Body::Record(Record {
            time: own_time(record.time),
            level: record.level,
            logger: record.logger.map(own),
            thread: record.thread.map(own),
            message: own(record.message),
            exception: record.exception.map(own),
            stack: record.stack.map(own),
        }),
    };
    Piece {
        source: own(piece.source),
        collected: own_time(piece.collected),
        level: piece.level,
        is_partial: piece.is_partial,
        body,
    }
}

/// A JSON object: an entry, or an envelope around a text.
fn json(line: &str, depth: usize) -> Option<Piece<'_>> {
    match json_object(line, depth) {
        Object::Read(piece) => Some(*piece),
        Object::SaysNothing | Object::Broken => None,
    }
}

enum Object<'a> {
    Read(Box<Piece<'a>>),
    /// Valid, but without anything of an entry.
    SaysNothing,
    Broken,
}

fn json_object(line: &str, depth: usize) -> Object<'_> {
    if let Some(fields) = Fields::parse(line) {
        return fields_in(fields, depth).map_or(Object::SaysNothing, |piece| Object::Read(Box::new(piece)));
    }
    // JSON forbids what some writers leave in it; people still want the entry.
    let repaired = record::repaired(line);
    let Some(fields) = Fields::parse(&repaired) else { return Object::Broken };
    fields_in(fields, depth).map_or(Object::SaysNothing, |piece| Object::Read(Box::new(owned(piece))))
}

fn fields_in<'a>(fields: Fields<'a>, depth: usize) -> Option<Piece<'a>> {
    if let Some(log) = fields.text("log")
        && fields.has("time")
        && fields.len() <= 4
        && (fields.has("stream") || fields.has("attrs"))
    {
        // fluent-bit keeps the runtime's own mark, and no line break. Docker's json-file cuts at 16 KB; only the last
        // piece of a line ends with its line break.
        let is_partial = match fields.text("_p").or_else(|| fields.text("logtag")) {
            Some(tag) => tag.split(':').next() == Some("P"),
            None => !log.ends_with('\n'),
        };
        let log = match log {
            Cow::Borrowed(log) => Cow::Borrowed(log.trim_end_matches(['\n', '\r'])),
            Cow::Owned(log) => Cow::Owned(log.trim_end_matches(['\n', '\r']).to_owned()),
        };
        let piece = Piece {
            source: fields.text("stream").unwrap_or_default(),
            collected: fields.time(),
            is_partial,
            ..Piece::text(Cow::Borrowed(""))
        };
        if is_partial {
            return Some(Piece { body: Body::Text(log), ..piece });
        }
        return Some(inside(log, depth, piece));
    }
    if let Some(piece) = journal(&fields, depth) {
        return Some(piece);
    }
    if let Some(record) = fields.record() {
        return Some(Piece { source: source(&fields), collected: collected(&fields), ..Piece::record(record) });
    }
    let Some(message) = fields.message() else {
        // An object that says nothing of an entry may be a part of a text.
        let record = fields.record_of(None, None, None);
        return (!record.time.is_none()).then(|| Piece::record(record));
    };
    let is_partial = fields.text("partial_message").is_some_and(|partial| partial == "true")
        && fields.text("partial_last").is_none_or(|last| last != "true");
    let piece =
        Piece { source: source(&fields), collected: fields.time(), is_partial, ..Piece::text(Cow::Borrowed("")) };
    if is_partial {
        return Some(Piece { body: Body::Text(message), ..piece });
    }
    // A text of several lines is an entry as it is; one line may be part of one.
    Some(inside(message, depth, piece))
}

/// systemd's journal. The priority is that of the program's output, and its text may name another.
fn journal<'a>(fields: &Fields<'a>, depth: usize) -> Option<Piece<'a>> {
    if !fields.has("MESSAGE") || !fields.has("PRIORITY") {
        return None;
    }
    let message = fields.text("MESSAGE").or_else(|| fields.bytes("MESSAGE").map(Cow::Owned))?;
    // A text of several lines is one entry.
    if message.contains('\n') {
        return None;
    }
    static PATHS: Names<4> = Names::new(["_HOSTNAME", "_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER", "_PID"]);
    let source = fields.among(&PATHS).filter_map(|path| fields.text(path)).collect::<Vec<_>>().join("\n");
    let (source, collected, level) = (Cow::Owned(source), fields.time(), fields.level());
    Some(inside(message, depth, Piece { source, collected, level, ..Piece::text(Cow::Borrowed("")) }))
}

/// Where a record has both, the collector's own field beside the entry's.
fn collected<'a>(fields: &Fields<'a>) -> WrittenTime<'a> {
    static PATHS: Names<4> = Names::new(["@timestamp", "date", "fluentd_time", "time"]);
    fields.among(&PATHS).find_map(|path| fields.text(path)).map_or(WrittenTime::None, WrittenTime::Text)
}

fn source<'a>(fields: &Fields<'a>) -> Cow<'a, str> {
    static PATHS: Names<11> = Names::new([
        "container_id",
        "docker.container_id",
        "kubernetes.docker_id",
        "kubernetes.pod_name",
        "kubernetes.container_name",
        "container_name",
        "stream",
        "hostname",
        "host",
        "filename",
        "pid",
    ]);
    let mut parts = fields.among(&PATHS).filter_map(|path| fields.text(path));
    let Some(first) = parts.next() else { return Cow::Borrowed("") };
    parts.fold(first, |all, part| Cow::Owned([&all, "\n", &part].concat()))
}

fn split_at_tab(text: &str) -> Option<(&str, &str)> {
    let at = memchr::memchr(b'\t', text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// FluentD's files: `time<TAB>tag<TAB>json`.
fn fluentd(line: &str, depth: usize) -> Option<Piece<'_>> {
    let (time, rest) = split_at_tab(line)?;
    let (tag, json) = split_at_tab(rest)?;
    if tag.contains(' ') || !json.starts_with('{') {
        return None;
    }
    let broken = || Piece { body: Body::Broken, ..Piece::text(Cow::Borrowed("")) };
    let inner = match json_object(json, depth) {
        Object::Read(piece) => *piece,
        Object::SaysNothing => Piece::record(Record::default()),
        Object::Broken => broken(),
    };
    Some(tagged(time, tag, inner))
}

fn tagged<'a>(time: &'a str, tag: &'a str, inner: Piece<'a>) -> Piece<'a> {
    let source =
        if inner.source.is_empty() { Cow::Borrowed(tag) } else { Cow::Owned([tag, "\n", &inner.source].concat()) };
    let collected = if inner.collected.is_none() { WrittenTime::Text(Cow::Borrowed(time)) } else { inner.collected };
    Piece { source, collected, ..inner }
}

/// FluentD's stdout: `2024-07-01 10:00:00.000000000 +0000 tag: {...}`.
fn fluentd_stdout(line: &str, depth: usize) -> Option<Piece<'_>> {
    let at = line.ends_with('}').then(|| line.find(": {"))??;
    let (time, tag) = line[..at].rsplit_once(' ')?;
    if time.len() > 40 || tag.is_empty() || time.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    Some(tagged(time, tag, fields_in(Fields::parse(&line[at + 2..])?, depth)?))
}

/// fluent-bit's file and stdout: `tag: [1719828000.123, {...}]`, `[0] tag: [[1719828000.123, {}], {"k"=>"v"}]`.
fn fluent_bit(line: &str, depth: usize) -> Option<Piece<'_>> {
    let inner = line.trim_end().strip_suffix("}]")?;
    let at = inner.find(": [")?;
    let tag = inner[..at].rsplit(' ').next()?;
    let rest = inner[at + 3..].trim_start_matches('[');
    let (time, rest) = rest.split_once(',')?;
    if !time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || time.is_empty() {
        return None;
    }
    let json = rest.trim_start().strip_prefix("{}],").unwrap_or(rest).trim_start();
    let json = if json.contains("\"=>") { arrows_to_colons(json) } else { json.to_owned() } + "}";
    let inner = owned(fields_in(Fields::parse(&json)?, depth)?);
    Some(tagged(time, tag, inner))
}

/// Ruby's way to print a map, in JSON's.
fn arrows_to_colons(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if !in_string && c == '=' && rest.peek() == Some(&'>') {
            rest.next();
            out.push(':');
            continue;
        }
        if c == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
    }
    out
}

/// Kubernetes' container runtime interface: `2024-07-01T10:00:00.000000000Z stderr F text`, `P` for a part of a line.
fn cri(line: &str, depth: usize) -> Option<Piece<'_>> {
    let (time, rest) = line.split_once(' ')?;
    let (stream, rest) = rest.split_once(' ')?;
    if !matches!(stream, "stdout" | "stderr") || time.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let (tags, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_partial = match tags.split(':').next()? {
        "P" => true,
        "F" => false,
        _ => return None,
    };
    let piece = Piece {
        source: Cow::Borrowed(stream),
        collected: WrittenTime::Text(Cow::Borrowed(time)),
        is_partial,
        ..Piece::text(Cow::Borrowed(text))
    };
    Some(if is_partial { piece } else { inside(Cow::Borrowed(text), depth, piece) })
}

/// `web-1  | text`.
fn compose(line: &str, depth: usize) -> Option<Piece<'_>> {
    let at = line.find('|').filter(|&at| at < 80)?;
    let name = line[..at].strip_suffix(' ')?.trim_end();
    let (service, number) = name.rsplit_once(['-', '_'])?;
    let is_name = !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && service.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let text = line[at + 1..].strip_prefix(' ').unwrap_or(&line[at + 1..]);
    is_name.then(|| {
        inside(Cow::Borrowed(text), depth, Piece { source: Cow::Borrowed(name), ..Piece::text(Cow::Borrowed("")) })
    })
}

/// RFC 5424, RFC 3164 as it is written to files, and the severity alone, as programs under systemd write it.
fn syslog(line: &str, depth: usize) -> Option<Piece<'_>> {
    static NEW: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r#"^<(?<pri>\d{1,3})>1 (?<time>\S+) (?<host>\S+) (?<app>\S+) (?<pid>\S+) \S+ (?:-|(?:\[(?:[^"\]]|"(?:[^"\\]|\\.)*")*\])+) ?(?:\x{feff})?"#).ok()
    });
    static OLD: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"^(?:<(?<pri>\d{1,3})>)?(?<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)) (?<host>[\w.:-]+) (?<app>[\w./-]+)\[(?<pid>\d+)\]: ?",
        )
        .ok()
    });
    let head = &line[..line.floor_char_boundary(1024)];
    let mut brackets = memchr::memchr_iter(b']', head.as_bytes()).map(|at| &head[at + 1..]);
    if !head.starts_with('<') && !brackets.any(|behind| behind == ":" || behind.starts_with(": ")) {
        return None;
    }
    let Some(found) = NEW.as_ref()?.captures(head).or_else(|| OLD.as_ref()?.captures(head)) else {
        let severity = line.strip_prefix('<')?.split_once('>').filter(|(digit, _)| digit.len() == 1)?;
        let level = Some(Level::from_syslog(severity.0.parse().ok()?)?);
        return Some(inside(Cow::Borrowed(severity.1), depth, Piece { level, ..Piece::text(Cow::Borrowed("")) }));
    };
    let text = &line[found.get(0)?.end()..];
    // rsyslog writes tabs so.
    let text = text.strip_prefix("#011").map_or(Cow::Borrowed(text), |rest| Cow::Owned(format!("\t{rest}")));
    let severity = found.name("pri").and_then(|pri| pri.as_str().parse::<u64>().ok()).map(|pri| pri % 8);
    let piece = Piece {
        source: Cow::Owned(format!("{}\n{}\n{}", &found["host"], &found["app"], &found["pid"])),
        collected: found.name("time").map_or(WrittenTime::None, |time| WrittenTime::Text(Cow::Borrowed(time.as_str()))),
        level: severity.and_then(Level::from_syslog),
        ..Piece::text(Cow::Borrowed(""))
    };
    Some(inside(text, depth, piece))
}
