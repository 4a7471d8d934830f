use crate::fingerprint::{fingerprint, has_code};
use crate::level::Level;
use crate::record::{Record, WrittenTime, own};
use crate::settings::{EntryPart, Formats, Settings};
use crate::time;
use crate::trace::{self, Analysis, Start};
use jiff::Timestamp;
use jiff::civil::Date;
use memchr::memmem::Finder;
use std::collections::HashMap;

/// The most of one line that is read, in bytes. Enough for the 10 MB lines that collectors do write.
pub const LONGEST_LINE: usize = 16 << 20;

/// Where a line stands in the unpacked text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinePosition {
    /// From 1.
    pub line: u64,
    /// From 0.
    pub byte: u64,
}

/// One error.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The entry's own time, else the collector's; `None` where neither names an instant.
    pub time: Option<Timestamp>,
    /// [`Level::Error`] or [`Level::Fatal`].
    pub level: Level,
    pub logger: Option<String>,
    pub message: String,
    /// The type raised last, which is the outermost.
    pub exception: Option<String>,
    pub stack: Option<String>,
    pub category: String,
    /// See [`crate::fingerprint`].
    pub fingerprint: String,
    /// Of its first line, from 1.
    pub line: u64,
    /// Of its first line's first byte, from 0, in the unpacked text.
    pub byte: u64,
}

/// The category of what no pattern fits.
pub const OTHER: &str = "other";

/// What is the same for all entries of an object.
pub struct Context<'a> {
    key: &'a str,
    service: &'a str,
    settings: &'a Settings,
    time: time::TimeContext,
    readings: HashMap<Vec<u8>, Reading>,
}

/// What an entry's texts say, whatever their numbers are.
#[derive(Clone)]
struct Reading {
    has_trace: bool,
    /// What stands behind the message only looked like a trace's beginning.
    is_text: bool,
    exception: Option<String>,
    category: String,
    fingerprint: String,
}

/// Errors come in bursts of the same few: readings of so many are kept, each of texts of so many bytes at most.
const READINGS: usize = 1000;
const READABLE: usize = 8 << 10;

impl<'a> Context<'a> {
    /// `key`: `<service>/YYYY/MM/DD/<name>.gz`.
    pub fn new(key: &'a str, settings: &'a Settings) -> Self {
        let time = time::TimeContext { zone: settings.zone(key), date: date_of(key) };
        Context { key, service: service_of(key), settings, time, readings: HashMap::new() }
    }

    pub fn formats(&self) -> &'a Formats {
        self.settings.formats(self.key)
    }

    pub fn instant(&self, written: &WrittenTime, format: Option<&str>) -> Option<Timestamp> {
        match (written, format) {
            (WrittenTime::Text(text), Some(format)) => time::parse_as(text, format, &self.time),
            _ => written.instant(&self.time),
        }
    }
}

/// The first component of a key.
pub fn service_of(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

/// The first date in a key, `YYYY/MM/DD` or `year=YYYY/month=MM/day=DD`.
pub fn date_of(key: &str) -> Option<Date> {
    fn number<T: std::str::FromStr>(part: &str) -> Option<T> {
        part.rsplit('=').next().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
    }
    let parts: Vec<&str> = key.split('/').collect();
    parts.windows(3).find_map(|window| {
        let [year, month, day] = window else { return None };
        Date::new(number::<i16>(year).filter(|year| *year >= 1970)?, number(month)?, number(day)?).ok()
    })
}

/// An entry while its lines come in.
pub(crate) struct Raw {
    pub position: LinePosition,
    time: WrittenTime<'static>,
    time_format: Option<String>,
    collected: WrittenTime<'static>,
    /// `None`: an error only if a trace follows.
    pub level: Option<Level>,
    logger: Option<String>,
    pub message: String,
    exception: Option<String>,
    pub stack: String,
    /// Lines of the trace beyond what is kept.
    pub left_out: u64,
    pub awaits_second_line: bool,
    /// Its name as it stands in other lines; empty where the format names none.
    pub thread: Finder<'static>,
    /// The stack is a field of the record.
    has_own_stack: bool,
    is_bare: bool,
    /// Lines without a header stand behind it.
    pub has_lines: bool,
    /// It began without a text, as Rails begins the entry of an error.
    pub is_of_rails: bool,
}

impl Raw {
    pub fn new(position: LinePosition, collected: &WrittenTime, record: Record, time_format: Option<&str>) -> Self {
        let has_own_stack = record.stack.is_some();
        let mut raw = Raw {
            position,
            time: own(&record.time),
            time_format: time_format.map(str::to_owned),
            collected: own(collected),
            level: record.level,
            logger: record.logger.map(|logger| logger.into_owned()),
            message: String::new(),
            exception: record.exception.map(|exception| exception.into_owned()),
            stack: record.stack.map(|stack| stack.trim_end().to_owned()).unwrap_or_default(),
            left_out: 0,
            awaits_second_line: false,
            thread: Finder::new(record.thread.as_deref().unwrap_or_default().as_bytes()).into_owned(),
            has_own_stack,
            is_bare: false,
            has_lines: false,
            is_of_rails: record.level == Some(Level::Fatal) && record.message.is_empty() && time_format.is_none(),
        };
        let (message, stack) = split(&record.message);
        raw.message = message;
        if raw.stack.is_empty() {
            raw.stack = stack;
        }
        raw
    }

    /// A trace without a header.
    pub fn bare(position: LinePosition, collected: &WrittenTime) -> Self {
        Raw { is_bare: true, ..Raw::new(position, collected, Record::default(), None) }
    }

    pub fn second_line(&mut self, record: &Record) {
        self.awaits_second_line = false;
        self.level = record.level;
        let (message, stack) = split(&record.message);
        (self.message, self.stack) = (message, stack);
    }

    /// `None` where it is no error after all.
    pub fn entry(mut self, context: &mut Context) -> Option<Entry> {
        if self.stack.is_empty() {
            (self.message, self.stack) = split_go(std::mem::take(&mut self.message));
        }
        let reading = self.reading(context);
        let Raw { mut message, mut stack, .. } = self;
        if reading.is_text {
            if !message.is_empty() {
                message.push('\n');
            }
            message.push_str(&stack);
            stack.clear();
        }
        if self.left_out > 0 {
            stack.push_str(&format!("\n... {} lines left out", self.left_out));
        }
        stack.truncate(stack.trim_end().len());
        let level = match self.level {
            Some(level) => level,
            None if self.is_bare || reading.has_trace || trace::is_sure(&message) => {
                let is_fatal = matches!(reading.exception.as_deref(), Some("panic" | "fatal error"));
                if is_fatal { Level::Fatal } else { Level::Error }
            }
            None => return None,
        };
        if message.trim().is_empty() {
            let text = trace::analyse(&message, &stack).text.filter(|text| !text.is_empty());
            message = text
                .or_else(|| reading.exception.clone())
                .or_else(|| stack.lines().next().map(str::to_owned))
                .unwrap_or_default();
        }
        message.truncate(message.trim_end().len());
        let own = context.instant(&self.time, self.time_format.as_deref());
        Some(Entry {
            time: own.or_else(|| context.instant(&self.collected, None)),
            level,
            category: reading.category,
            fingerprint: reading.fingerprint,
            logger: self.logger.filter(|logger| !logger.is_empty()),
            message,
            exception: reading.exception,
            stack: (!stack.is_empty()).then_some(stack),
            line: self.position.line,
            byte: self.position.byte,
        })
    }

    fn reading(&self, context: &mut Context) -> Reading {
        let is_short = self.message.len() + self.stack.len() <= READABLE;
        let is_kept = context.settings.ignores_numbers && is_short && !self.message.trim().is_empty();
        if !is_kept {
            return self.read(context).0;
        }
        let shape = self.shape();
        if let Some(reading) = context.readings.get(&shape) {
            return reading.clone();
        }
        let (reading, analysis) = self.read(context);
        // Whatever of it could differ with a number must not: then the answer does not depend on what was read before.
        let mut names = reading.exception.iter().chain(&analysis.place).chain(&analysis.causes);
        let has_code = [&self.message, &self.stack].into_iter().any(|text| has_code(text));
        if !has_code && !names.any(|name| has_number(name)) {
            if context.readings.len() >= READINGS {
                context.readings.clear();
            }
            context.readings.insert(shape, reading.clone());
        }
        reading
    }

    /// All that a reading depends on, with zeros for its numbers.
    fn shape(&self) -> Vec<u8> {
        let mut shape = Vec::with_capacity(self.message.len() + self.stack.len() + 100);
        // No byte of UTF-8.
        const END: u8 = 0xff;
        shape.push(u8::from(self.is_bare) | u8::from(self.has_own_stack) << 1);
        for text in [&self.exception, &self.logger] {
            shape.extend(text.as_deref().unwrap_or_default().bytes());
            shape.extend([u8::from(text.is_some()), END]);
        }
        push_shape(&mut shape, &self.message);
        shape.push(END);
        push_shape(&mut shape, &self.stack);
        shape
    }

    fn read(&self, context: &Context) -> (Reading, Analysis) {
        let mut analysis = trace::analyse("", &self.stack);
        let is_traced = |line: &str| trace::is_inner(line) || trace::is_traceback(line) || trace::is_crash(line);
        let has_trace =
            self.stack.lines().any(is_traced) || analysis.place.as_ref().is_some_and(|place| !place.is_empty());
        let is_text =
            !has_trace && !self.is_bare && !self.has_own_stack && self.exception.is_none() && !self.stack.is_empty();
        let joined =
            if self.message.is_empty() { self.stack.clone() } else { format!("{}\n{}", self.message, self.stack) };
        let (message, stack) =
            if is_text { (joined.as_str(), "") } else { (self.message.as_str(), self.stack.as_str()) };
        if is_text || !message.is_empty() {
            analysis = trace::analyse(message, stack);
        }
        let first = || trace::head(message.lines().next().unwrap_or_default()).map(|head| head.kind.to_owned());
        let exception = match (&analysis.exception, self.exception.clone().or_else(first)) {
            // A trace names the type in full.
            (Some(read), Some(named)) if !read.ends_with(&named) => Some(named),
            (Some(read), _) => Some(read.clone()),
            (None, named) => named,
        };
        // A trace without a message says it itself.
        let said = || analysis.text.clone().filter(|text| !text.is_empty()).or_else(|| exception.clone());
        let message = if message.trim().is_empty() {
            said().or_else(|| stack.lines().next().map(str::to_owned)).unwrap_or_default()
        } else {
            message.to_owned()
        };
        let message = message.trim_end();
        let logger = self.logger.as_deref().filter(|logger| !logger.is_empty());
        // A category looks at all types of a chain: the outermost often says the least.
        let chain = exception.iter().chain(&analysis.causes).map(String::as_str).collect::<Vec<_>>().join(" ");
        let part = |part: &EntryPart| match part {
            EntryPart::Exception => Some(chain.as_str()),
            EntryPart::Message => Some(message),
            EntryPart::Logger => logger,
            EntryPart::Stack => Some(stack),
        };
        let categories = &context.settings.categories;
        let category = categories
            .iter()
            .find(|category| category.parts.iter().filter_map(part).any(|text| category.pattern.is_match(text)));
        let fingerprint = fingerprint(context.service, logger, message, exception.as_deref(), &analysis);
        let category = category.map_or(OTHER, |category| &category.name).to_owned();
        (Reading { has_trace, is_text, exception, category, fingerprint }, analysis)
    }
}

/// Whether each byte is a digit of a number. Digits within words are none: a type or a function is another one with
/// another digit.
fn of_numbers(text: &str) -> impl Iterator<Item = bool> {
    let mut is_in_word = false;
    text.bytes().map(move |byte| {
        let is_digit = byte.is_ascii_digit();
        if !is_digit {
            is_in_word = byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$' || !byte.is_ascii();
        }
        is_digit && !is_in_word
    })
}

fn has_number(text: &str) -> bool {
    of_numbers(text).any(|is_number| is_number)
}

/// Appends a text with zeros for its numbers, as many as they have digits.
fn push_shape(shape: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    for (at, is_number) in of_numbers(text).enumerate() {
        // `0x` announces an address, `1x` does not.
        let begins_address = is_number && bytes.get(at + 1) == Some(&b'x');
        shape.push(if is_number && !begins_address { b'0' } else { bytes[at] });
    }
}

/// Go's loggers write frames below a message, and nothing that announces them: `main.charge`, `\t/app/pay.go:12`.
fn split_go(message: String) -> (String, String) {
    if !message.contains(".go:") {
        return (message, String::new());
    }
    let lines: Vec<&str> = message.lines().collect();
    let Some(first) = lines.windows(2).position(|pair| trace::is_go_place(pair[0], pair[1])).filter(|&at| at > 0)
    else {
        return (message, String::new());
    };
    (lines[..first].join("\n"), lines[first..].join("\n"))
}

/// A message that has its trace in itself.
fn split(text: &str) -> (String, String) {
    let text = text.trim_end();
    if !text.contains('\n') {
        let is_trace = trace::is_traceback(text);
        return if is_trace { (String::new(), text.to_owned()) } else { (text.to_owned(), String::new()) };
    }
    let has_frames = text.lines().any(trace::is_inner);
    let mut at = 0;
    for (number, line) in text.split('\n').enumerate() {
        let begins = match trace::start(line) {
            Start::Sure => true,
            // In the first line it is the message itself.
            Start::Likely => number > 0 && has_frames,
            Start::No => trace::is_inner(line),
        };
        if begins {
            return (text[..at].trim_end().to_owned(), text[at..].to_owned());
        }
        at += line.len() + 1;
    }
    (text.to_owned(), String::new())
}
