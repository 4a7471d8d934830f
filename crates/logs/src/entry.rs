use crate::fingerprint::fingerprint;
use crate::level::Level;
use crate::record::{Record, Written, own};
use crate::settings::{Formats, Part, Settings};
use crate::time;
use crate::trace::{self, Start};
use jiff::Timestamp;
use jiff::civil::Date;

/// The most of one line that is read, in bytes. Enough for the 10 MB lines that collectors do write.
pub const LONGEST_LINE: usize = 16 << 20;

/// Where a line stands in the unpacked text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
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
    time: time::Context,
}

impl<'a> Context<'a> {
    /// `key`: `<service>/YYYY/MM/DD/<name>.gz`.
    pub fn new(key: &'a str, settings: &'a Settings) -> Self {
        let time = time::Context { zone: settings.zone(key), date: date_of(key) };
        Context { key, service: service_of(key), settings, time }
    }

    pub fn formats(&self) -> &'a Formats {
        self.settings.formats(self.key)
    }

    pub fn instant(&self, written: &Written, format: Option<&str>) -> Option<Timestamp> {
        match (written, format) {
            (Written::Text(text), Some(format)) => time::parse_as(text, format, &self.time),
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
    pub position: Position,
    time: Written<'static>,
    time_format: Option<String>,
    collected: Written<'static>,
    /// `None`: an error only if a trace follows.
    level: Option<Level>,
    logger: Option<String>,
    pub message: String,
    exception: Option<String>,
    pub stack: String,
    /// Lines of the trace beyond what is kept.
    pub left_out: u64,
    pub awaits_second_line: bool,
    is_bare: bool,
}

impl Raw {
    pub fn new(position: Position, collected: &Written, record: Record, time_format: Option<&str>) -> Self {
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
            is_bare: false,
        };
        let (message, stack) = split(&record.message);
        raw.message = message;
        if raw.stack.is_empty() {
            raw.stack = stack;
        }
        raw
    }

    /// A trace without a header.
    pub fn bare(position: Position, collected: &Written) -> Self {
        Raw { is_bare: true, ..Raw::new(position, collected, Record::default(), None) }
    }

    pub fn second_line(&mut self, record: &Record) {
        self.awaits_second_line = false;
        self.level = record.level;
        let (message, stack) = split(&record.message);
        (self.message, self.stack) = (message, stack);
    }

    /// `None` where it is no error after all.
    pub fn entry(self, context: &Context) -> Option<Entry> {
        let Raw { mut message, mut stack, .. } = self;
        if stack.is_empty() {
            (message, stack) = split_go(message);
        }
        let has_trace =
            stack.lines().any(|line| trace::is_inner(line) || trace::is_traceback(line) || trace::is_crash(line))
                || !trace::analyse("", &stack).place.unwrap_or_default().is_empty();
        if !has_trace && !self.is_bare && self.exception.is_none() && !stack.is_empty() {
            // It only looked like a trace's beginning.
            if !message.is_empty() {
                message.push('\n');
            }
            message.push_str(&stack);
            stack.clear();
        }
        if self.left_out > 0 {
            stack.push_str(&format!("\n... {} lines left out", self.left_out));
        }
        let stack = stack.trim_end().to_owned();
        let analysis = trace::analyse(&message, &stack);
        let named = self
            .exception
            .or_else(|| trace::head(message.lines().next().unwrap_or_default()).map(|head| head.kind.to_owned()));
        let exception = match (&analysis.exception, named) {
            // A trace names the type in full.
            (Some(read), Some(named)) if !read.ends_with(&named) => Some(named),
            (Some(read), _) => Some(read.clone()),
            (None, named) => named,
        };
        let level = match self.level {
            Some(level) => level,
            None if self.is_bare || has_trace => {
                let is_fatal = matches!(exception.as_deref(), Some("panic" | "fatal error"));
                if is_fatal { Level::Fatal } else { Level::Error }
            }
            None => return None,
        };
        if message.trim().is_empty() {
            let text = analysis.text.clone().filter(|text| !text.is_empty());
            message = text
                .or_else(|| exception.clone())
                .or_else(|| stack.lines().next().map(str::to_owned))
                .unwrap_or_default();
        }
        let message = message.trim_end().to_owned();
        let own = context.instant(&self.time, self.time_format.as_deref());
        let stack = (!stack.is_empty()).then_some(stack);
        let logger = self.logger.filter(|logger| !logger.is_empty());
        // A category looks at all types of a chain: the outermost often says the least.
        let chain = exception.iter().chain(&analysis.causes).map(String::as_str).collect::<Vec<_>>().join(" ");
        let part = |part: &Part| match part {
            Part::Exception => Some(chain.as_str()),
            Part::Message => Some(message.as_str()),
            Part::Logger => logger.as_deref(),
            Part::Stack => stack.as_deref(),
        };
        let categories = &context.settings.categories;
        let category = categories
            .iter()
            .find(|category| category.parts.iter().filter_map(part).any(|text| category.pattern.is_match(text)));
        Some(Entry {
            time: own.or_else(|| context.instant(&self.collected, None)),
            level,
            category: category.map_or(OTHER, |category| &category.name).to_owned(),
            fingerprint: fingerprint(context.service, logger.as_deref(), &message, exception.as_deref(), &analysis),
            logger,
            message,
            exception,
            stack,
            line: self.position.line,
            byte: self.position.byte,
        })
    }
}

/// Go's loggers write frames below a message, and nothing that announces them: `main.charge`, `\t/app/pay.go:12`.
fn split_go(message: String) -> (String, String) {
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
