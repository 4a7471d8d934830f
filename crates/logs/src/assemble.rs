//! Puts lines together to entries: an entry's first line, the lines of its message, and its trace, in each of the
//! texts that are mixed in a file and in each thread that its format names.

use crate::entry::{Context, Entry, LONGEST_LINE, LinePosition, Raw};
use crate::envelope::{self, Body};
use crate::level::Level;
use crate::record::{Fields, Record, WrittenTime, logfmt, own};
use crate::settings::{Format, Formats};
use crate::trace::{self, Follow, Next, Start};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

/// Texts mixed in one file, and threads with an open error in one text, that are followed at once. Beyond it the one
/// that was silent for longest is taken for ended.
const SOURCES: usize = 2000;
const THREADS: usize = 500;
/// A header ends within this many bytes.
const HEADER: usize = 1024;
/// The most that is kept of one trace.
const LONGEST_STACK: usize = 2 << 20;
/// The most that is read as one object of several lines.
const LONGEST_OBJECT: usize = 256 << 10;

/// Where lines that begin no entry go.
enum Current {
    /// Nowhere: the entry before was a whole record.
    Nothing,
    /// To an entry that is no error. Only a warning's trace, or a debugger's, is its own.
    Quiet {
        has_own_traces: bool,
    },
    /// To the open entry of this thread.
    Thread(String),
    /// Only frames: the open entry of this thread was a whole record.
    Record(String),
    Bare(Box<Bare>),
}

/// A trace without a header.
struct Bare {
    raw: Raw,
    follow: Follow,
    /// An error also if no frame follows.
    is_sure: bool,
    pending: Vec<(LinePosition, String)>,
    /// What `pending` holds.
    pending_bytes: usize,
    /// Lines that turn out not to belong to it belong to the entry before.
    behind_quiet: Option<bool>,
}

struct Source {
    /// The format that fitted last.
    format: Option<usize>,
    current: Current,
    threads: HashMap<String, Raw>,
    partial: Option<Partial>,
    /// The beginning of an object of several lines.
    object: Option<Object>,
    /// The last line that belongs to nothing: an exception's name that does not look like one, if a frame follows.
    orphan: Option<(LinePosition, String)>,
    last_line: u64,
}

struct Partial {
    position: LinePosition,
    text: String,
    collected: WrittenTime<'static>,
}

/// Lines that may be one record of JSON, from `{` to `}` at the beginning of a line.
struct Object {
    lines: Vec<(LinePosition, String)>,
    bytes: usize,
    collected: WrittenTime<'static>,
    level: Option<Level>,
}

impl Source {
    /// Whether an open error's thread is named in a line that begins so.
    fn may_go_on(&self, head: &[u8]) -> bool {
        self.threads.values().any(|open| open.awaits_second_line || open.thread.find(head).is_some())
    }

    fn new() -> Self {
        Source {
            format: None,
            current: Current::Nothing,
            threads: HashMap::new(),
            partial: None,
            object: None,
            orphan: None,
            last_line: 0,
        }
    }
}

/// Takes an object's lines in order and gives its error entries, each once it is complete.
pub struct Assembler<'a> {
    context: Context<'a>,
    formats: &'a Formats,
    /// The text of lines that name no source, which is all of a plain file.
    plain: Source,
    sources: HashMap<String, Source>,
    unparsed: u64,
    last_unparsed: u64,
    done: VecDeque<Entry>,
}

impl<'a> Assembler<'a> {
    pub fn new(context: Context<'a>) -> Self {
        let formats = context.formats();
        let (plain, sources, done) = (Source::new(), HashMap::new(), VecDeque::new());
        Assembler { context, formats, plain, sources, unparsed: 0, last_unparsed: 0, done }
    }

    /// Lines that are in no known format and belong to no entry.
    pub fn unparsed(&self) -> u64 {
        self.unparsed
    }

    /// An entry that is complete.
    pub fn next_entry(&mut self) -> Option<Entry> {
        self.done.pop_front()
    }

    /// Takes a line that begins an entry without an error, as most lines do, if that can be seen from its first bytes.
    /// Otherwise it is `false`, and the line one for [`Assembler::line`].
    pub fn is_quiet(&mut self, position: LinePosition, line: &[u8]) -> bool {
        let source = &self.plain;
        let known = source.format.and_then(|at| self.formats.list.get(at));
        // What ends so may be a record in a collector's envelope.
        let may_be_record = line.ends_with(b"}") || line.ends_with(b"]");
        let is_open = source.partial.is_some() || source.object.is_some() || matches!(source.current, Current::Bare(_));
        if known.is_none() || is_open || may_be_record {
            return false;
        }
        let head = &line[..line.len().min(HEADER)];
        let Some(level) = known.and_then(|format| format.quiet_level(head)).filter(|_| !source.may_go_on(head)) else {
            return false;
        };
        self.plain.last_line = position.line;
        self.plain.orphan = None;
        self.plain.current = Current::Quiet { has_own_traces: level != Level::Info };
        true
    }

    pub fn line(&mut self, position: LinePosition, line: &str) {
        let line = envelope::without_colours(Cow::Borrowed(line));
        let piece = envelope::open(&line);
        let is_plain = piece.source.is_empty();
        if !is_plain && !self.sources.contains_key(&*piece.source) {
            self.make_room();
            self.sources.insert(piece.source.to_string(), Source::new());
        }
        let named = if is_plain { Some(&mut self.plain) } else { self.sources.get_mut(&*piece.source) };
        let Some(source) = named else { return };
        source.last_line = position.line;
        let mut step = Step {
            context: &mut self.context,
            formats: self.formats,
            done: &mut self.done,
            unparsed: 0,
            taken_back: 0,
            source,
        };
        if piece.is_partial || step.source.partial.is_some() {
            step.partial(position, piece);
        } else {
            step.body(position, &piece.collected, piece.level, piece.body);
        }
        // What was taken back may have been counted in this very step.
        let (unparsed, taken_back) = (step.unparsed, step.taken_back);
        self.unparsed = self.unparsed.saturating_sub(taken_back.saturating_sub(unparsed));
        // One line is unparsed once, however many lines stand in it.
        if unparsed > taken_back && self.last_unparsed != position.line {
            self.unparsed += unparsed - taken_back;
            self.last_unparsed = position.line;
        }
    }

    fn make_room(&mut self) {
        if self.sources.len() < SOURCES {
            return;
        }
        let oldest = self.sources.iter().min_by_key(|(_, source)| source.last_line).map(|(name, _)| name.clone());
        if let Some(mut source) = oldest.and_then(|name| self.sources.remove(&name)) {
            self.end(&mut source);
        }
    }

    fn end(&mut self, source: &mut Source) {
        let mut step = Step {
            context: &mut self.context,
            formats: self.formats,
            done: &mut self.done,
            unparsed: 0,
            taken_back: 0,
            source,
        };
        step.finish();
        self.unparsed += step.unparsed;
    }

    /// The object has ended: what is open is complete.
    pub fn finish(&mut self) {
        let mut sources: Vec<Source> = std::mem::take(&mut self.sources).into_values().collect();
        sources.push(std::mem::replace(&mut self.plain, Source::new()));
        sources.iter_mut().for_each(|source| self.end(source));
        self.done.make_contiguous().sort_by_key(|entry| entry.line);
    }
}

/// One line's way into one source.
struct Step<'s, 'a> {
    context: &'s mut Context<'a>,
    formats: &'a Formats,
    done: &'s mut VecDeque<Entry>,
    unparsed: u64,
    /// Lines that were unparsed and belong to an entry after all.
    taken_back: u64,
    source: &'s mut Source,
}

impl<'a> Step<'_, 'a> {
    fn partial(&mut self, position: LinePosition, piece: envelope::Piece) {
        let mut partial = self.source.partial.take().unwrap_or_else(|| Partial {
            position,
            text: String::new(),
            collected: own(&piece.collected),
        });
        match piece.body {
            Body::Text(text) => {
                // As of a line in one piece, the beginning counts.
                let fits = text.floor_char_boundary(LONGEST_LINE.saturating_sub(partial.text.len()));
                partial.text.push_str(&text[..fits]);
                self.unparsed += u64::from(fits < text.len());
            }
            // The last part may look like a record of its own only when it is one.
            body => {
                // A piece without a text is no line, either.
                if !partial.text.is_empty() {
                    self.whole(partial);
                }
                return self.body(position, &piece.collected, piece.level, body);
            }
        }
        if piece.is_partial {
            self.source.partial = Some(partial);
        } else {
            self.whole(partial);
        }
    }

    fn whole(&mut self, partial: Partial) {
        let Partial { position, text, collected } = partial;
        let text = envelope::without_colours(Cow::Owned(text));
        let inner = envelope::open(&text);
        let collected = if inner.collected.is_none() { collected } else { own(&inner.collected) };
        self.body(position, &collected, inner.level, inner.body);
    }

    fn body(&mut self, position: LinePosition, collected: &WrittenTime, level: Option<Level>, body: Body) {
        match body {
            Body::Record(record) => self.record(position, collected, record, None, true),
            Body::Broken => self.unparsed += 1,
            Body::Text(text) => {
                // Some collectors keep the line break.
                let text = text.trim_end_matches(['\n', '\r']);
                let mut begin = 0;
                for end in memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]) {
                    self.text(position, collected, level, text[begin..end].trim_end_matches('\r'));
                    begin = end + 1;
                }
            }
        }
    }

    /// An entry's first line, or a whole entry.
    fn record(
        &mut self,
        position: LinePosition,
        collected: &WrittenTime,
        record: Record,
        time_format: Option<&str>,
        is_whole: bool,
    ) {
        let thread = record.thread.as_deref().unwrap_or_default();
        // Some loggers write each line of a trace as an entry of its own.
        if let Some(open) = self.source.threads.get_mut(thread)
            && open.continues(&record)
        {
            open.push_message(&record.message);
            self.source.current =
                if is_whole { Current::Record(thread.to_owned()) } else { Current::Thread(thread.to_owned()) };
            return;
        }
        self.close_bare();
        if let Some(open) = self.source.threads.remove(thread) {
            self.close(open);
        }
        let is_quiet = match record.level {
            Some(level) => !level.is_error(),
            // A whole record without a level and without a trace says nothing of an error.
            None => is_whole,
        };
        self.source.orphan = None;
        if is_quiet {
            let has_own_traces = record.level.is_some_and(|level| level != Level::Info);
            self.source.current = if is_whole { Current::Nothing } else { Current::Quiet { has_own_traces } };
            return;
        }
        let thread = thread.to_owned();
        let raw = Raw::new(position, collected, record, time_format);
        if self.source.threads.len() >= THREADS {
            let oldest =
                self.source.threads.iter().min_by_key(|(_, raw)| raw.position.line).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest.and_then(|name| self.source.threads.remove(&name)) {
                self.close(oldest);
            }
        }
        self.source.threads.insert(thread.clone(), raw);
        self.source.current = if is_whole { Current::Record(thread) } else { Current::Thread(thread) };
    }

    fn text(&mut self, position: LinePosition, collected: &WrittenTime, level: Option<Level>, line: &str) {
        if self.source.object.is_none() && line.trim_end() != "{" {
            return self.plain_text(position, collected, level, line);
        }
        let object = self.source.object.get_or_insert_with(|| Object {
            lines: Vec::new(),
            bytes: 0,
            collected: own(collected),
            level,
        });
        let goes_on = object.lines.is_empty() || line.starts_with([' ', '\t']);
        object.bytes += line.len() + size_of::<(LinePosition, String)>();
        object.lines.push((position, line.to_owned()));
        if !goes_on || object.bytes > LONGEST_OBJECT {
            self.end_object();
        }
    }

    /// The lines are an entry of JSON, or else text as any other.
    fn end_object(&mut self) {
        let Some(Object { lines, collected, level, .. }) = self.source.object.take() else { return };
        let text = lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
        let fields = Fields::parse(text.trim_end_matches(','));
        let record = fields.and_then(|fields| fields.record()).filter(|record| {
            // Behind the first line of an error it may be what that error shows.
            !matches!(self.source.current, Current::Thread(_)) || (record.level.is_some() && !record.time.is_none())
        });
        match (record, lines.first()) {
            (Some(record), Some((position, _))) => self.record(*position, &collected, record, None, true),
            _ => lines.iter().for_each(|(position, line)| self.plain_text(*position, &collected, level, line)),
        }
    }

    fn plain_text(&mut self, position: LinePosition, collected: &WrittenTime, level: Option<Level>, line: &str) {
        if let Some(level) = self.quiet_level(line) {
            self.close_bare();
            self.source.orphan = None;
            self.source.current = Current::Quiet { has_own_traces: level != Level::Info };
            return;
        }
        if let Some((mut record, format)) = self.header(line) {
            if let Current::Thread(thread) = &self.source.current
                && let Some(open) = self.source.threads.get_mut(thread)
                && open.awaits_second_line
            {
                // util.logging: time and logger on the first line, level and message on the second.
                open.second_line(&record);
                if record.level.is_some_and(|level| !level.is_error()) {
                    let has_own_traces = record.level != Some(Level::Info);
                    let thread = thread.clone();
                    self.source.threads.remove(&thread);
                    self.source.current = Current::Quiet { has_own_traces };
                }
                return;
            }
            // The level stands among the fields behind the time.
            if record.level.is_none()
                && let Cow::Borrowed(message) = record.message
                && let Some(fields) = logfmt(message)
            {
                let time = if record.time.is_none() { fields.time } else { record.time };
                record = Record { time, ..fields };
            }
            // A word in capitals is a level where nothing says another: `ERROR count: 0`.
            let is_word = format.vague
                && record.time.is_none()
                && line
                    .trim_end()
                    .strip_suffix(&*record.message)
                    .is_some_and(|header| !header.trim_end().ends_with(':'));
            let collectors = level.filter(|level| is_word && !level.is_error());
            record.level = collectors.or(record.level).or(level);
            let (time_format, two_lines) = (format.time_format.as_deref(), format.two_lines);
            self.record(position, collected, record, time_format, false);
            if two_lines
                && let Current::Thread(thread) = &self.source.current
                && let Some(open) = self.source.threads.get_mut(thread)
            {
                open.awaits_second_line = true;
            }
            return;
        }
        // A collector's level is as good as a header.
        if let Some(level) = level
            && !trace::is_inner(line)
            && !matches!(self.source.current, Current::Bare(_))
            && trace::start(line) == Start::No
            && !line.trim().is_empty()
        {
            let record = Record { level: Some(level), message: Cow::Borrowed(line), ..Record::default() };
            return self.record(position, collected, record, None, false);
        }
        self.continuation(position, collected, line);
    }

    /// The level of a line that begins an entry, is no error, and is of no thread whose error may go on.
    fn quiet_level(&self, line: &str) -> Option<Level> {
        let known = self.formats.list.get(self.source.format?)?;
        let head = &line[..line.floor_char_boundary(HEADER)];
        if line.starts_with([' ', '\t']) || self.source.may_go_on(head.as_bytes()) {
            return None;
        }
        known.quiet_level(head.as_bytes())
    }

    fn header<'l>(&mut self, line: &'l str) -> Option<(Record<'l>, &'a Format)> {
        let may_be_built_in = !line.starts_with([' ', '\t']) && !line.is_empty();
        if let Some(known) = self.source.format.and_then(|at| self.formats.list.get(at))
            && (may_be_built_in || known.configured)
            && let Some(record) = read_header(known, line)
        {
            return Some((record, known));
        }
        if !may_be_built_in && !self.formats.has_configured {
            return None;
        }
        for at in self.formats.that_may_fit(&line[..line.floor_char_boundary(HEADER)]) {
            let format = &self.formats.list[at];
            if (may_be_built_in || format.configured)
                && let Some(record) = read_header(format, line)
            {
                // A vague format fits lines of others, too.
                self.source.format = (!format.vague).then_some(at);
                return Some((record, format));
            }
        }
        None
    }

    /// A line that begins no entry.
    fn continuation(&mut self, position: LinePosition, collected: &WrittenTime, line: &str) {
        if let Current::Bare(bare) = &mut self.source.current {
            match bare.follow.next(line) {
                Next::Yes => return bare.accept(line),
                Next::Perhaps if bare.pending_bytes + line.len() <= LONGEST_STACK => return bare.wait(position, line),
                // No trace goes on behind so much that may be none of it.
                Next::Perhaps | Next::No => self.close_bare(),
            }
        }
        if trace::is_crash(line) {
            return self.begin_bare(position, collected, line, true);
        }
        let is_blank = line.trim().is_empty();
        match &mut self.source.current {
            Current::Thread(thread) => {
                if let Some(open) = self.source.threads.get_mut(thread) {
                    open.push_line(line);
                }
            }
            Current::Record(thread) if trace::is_inner(line) => {
                if let Some(open) = self.source.threads.get_mut(thread) {
                    open.push_stack(line);
                }
            }
            Current::Quiet { has_own_traces: false } if trace::start(line) != Start::No => {
                self.begin_bare(position, collected, line, false)
            }
            Current::Quiet { .. } => {}
            _ if is_blank => {}
            _ => match trace::start(line) {
                Start::Sure => self.begin_bare(position, collected, line, true),
                Start::Likely => self.begin_bare(position, collected, line, trace::is_sure(line)),
                Start::No => self.unknown(position, collected, line),
            },
        }
    }

    fn unknown(&mut self, position: LinePosition, collected: &WrittenTime, line: &str) {
        if trace::is_inner(line)
            && let Some((at, name)) = self.source.orphan.take()
            && position.line - at.line <= 1
            && !trace::is_inner(&name)
        {
            self.taken_back += 1;
            self.begin_bare(at, collected, &name, false);
            if let Current::Bare(bare) = &mut self.source.current {
                bare.follow.next(line);
                bare.accept(line);
            }
            return;
        }
        self.unparsed += 1;
        self.source.orphan = Some((position, line.to_owned()));
    }

    fn begin_bare(&mut self, position: LinePosition, collected: &WrittenTime, line: &str, is_sure: bool) {
        if let Current::Thread(thread) | Current::Record(thread) = &self.source.current {
            let thread = thread.clone();
            if let Some(open) = self.source.threads.remove(&thread) {
                self.close(open);
            }
        }
        let behind_quiet = match self.source.current {
            Current::Quiet { has_own_traces } => Some(has_own_traces),
            _ => None,
        };
        let mut raw = Raw::bare(position, collected);
        raw.push_stack(line);
        self.source.current = Current::Bare(Box::new(Bare {
            raw,
            follow: Follow::begin(line),
            is_sure,
            pending: Vec::new(),
            pending_bytes: 0,
            behind_quiet,
        }));
    }

    /// The trace has ended; lines that only perhaps belonged to it did not.
    fn close_bare(&mut self) {
        let Current::Bare(bare) = &self.source.current else { return };
        let after = bare.behind_quiet.map_or(Current::Nothing, |has_own_traces| Current::Quiet { has_own_traces });
        let Current::Bare(bare) = std::mem::replace(&mut self.source.current, after) else { return };
        let is_error = bare.is_sure || bare.follow.has_frames();
        if bare.behind_quiet.is_none() {
            self.unparsed += bare.pending.iter().filter(|(_, line)| !line.trim().is_empty()).count() as u64;
            self.unparsed += u64::from(!is_error);
        }
        if is_error {
            self.close(bare.raw);
        }
    }

    fn close(&mut self, raw: Raw) {
        self.done.extend(raw.entry(self.context));
    }

    fn finish(&mut self) {
        if let Some(partial) = self.source.partial.take() {
            self.whole(partial);
        }
        self.end_object();
        self.close_bare();
        let open: Vec<Raw> = self.source.threads.drain().map(|(_, raw)| raw).collect();
        open.into_iter().for_each(|raw| self.close(raw));
    }
}

impl Bare {
    fn accept(&mut self, line: &str) {
        for (_, pending) in self.pending.drain(..) {
            self.raw.push_stack(&pending);
        }
        self.pending_bytes = 0;
        self.raw.push_stack(line);
    }

    fn wait(&mut self, position: LinePosition, line: &str) {
        self.pending.push((position, line.to_owned()));
        // An empty line takes memory, too.
        self.pending_bytes += line.len() + size_of::<(LinePosition, String)>();
    }
}

impl Raw {
    pub(crate) fn push_stack(&mut self, line: &str) {
        if self.stack.len() + line.len() > LONGEST_STACK {
            self.left_out += 1;
            return;
        }
        if !self.stack.is_empty() {
            self.stack.push('\n');
        }
        self.stack.push_str(line);
    }

    /// A line of the trace that was a message: its header took the space in front of it.
    fn push_message(&mut self, message: &str) {
        if self.is_of_rails {
            self.push_line(message);
        } else if trace::is_inner(message) || trace::head(message).is_some() {
            self.push_stack(message)
        } else {
            self.push_stack(&format!("\t{message}"))
        }
    }

    /// A line behind the header: of the message, until a trace begins.
    fn push_line(&mut self, line: &str) {
        self.has_lines |= !line.is_empty();
        // Each line has the tags of the first.
        let tagged = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).filter(|_| self.is_of_rails);
        let line = tagged.map_or(line, |(_, text)| text);
        let begins = self.stack.is_empty()
            && (trace::is_inner(line)
                || trace::start(line) != Start::No
                || trace::head(line).is_some()
                || trace::is_traceback(line));
        if begins || !self.stack.is_empty() {
            self.push_stack(line);
        } else if self.message.is_empty() {
            self.message.push_str(line.trim());
        } else if self.message.len() + line.len() <= LONGEST_LINE {
            self.message.push('\n');
            self.message.push_str(line);
        }
    }

    /// Whether the message of the thread's next entry goes on with this one's trace.
    fn continues(&mut self, record: &Record) -> bool {
        let message = &*record.message;
        // Rails writes an empty entry in front of an error's text, and others between that, source and trace.
        if self.is_of_rails && record.level == self.level && !record.message.contains('\n') {
            let is_source = message.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
            if self.message.is_empty() || message.is_empty() || is_source || trace::is_inner(message) {
                return true;
            }
        }
        if message.is_empty() || message.contains('\n') || self.has_lines {
            return false;
        }
        if trace::is_inner(message) || trace::is_inner(&format!("\t{message}")) {
            return true;
        }
        if self.stack.is_empty() {
            return trace::is_traceback(message);
        }
        let mut lines = self.stack.lines();
        let Some(first) = lines.next() else { return false };
        if !trace::is_traceback(first) && !trace::is_crash(first) {
            return false;
        }
        let mut follow = Follow::begin(first);
        lines.for_each(|line| {
            follow.next(line);
        });
        follow.next(message) == Next::Yes
    }
}

fn read_header<'l>(format: &Format, line: &'l str) -> Option<Record<'l>> {
    let head = if format.has_message { line } else { &line[..line.floor_char_boundary(HEADER)] };
    let found = format.pattern().captures(head.as_bytes())?;
    let text = |name: &str| {
        let part = std::str::from_utf8(found.name(name)?.as_bytes()).ok()?;
        Some(part.trim()).filter(|text| !text.is_empty())
    };
    let level = match text("level") {
        Some(letter) if format.letters => Level::from_letter(letter),
        Some(word) => Some(
            Level::from_word(word).or_else(|| Level::from_word(word.trim_end_matches(|c: char| c.is_ascii_digit())))?,
        ),
        None => format.level,
    };
    let message = text("message").unwrap_or_else(|| {
        let end = found.get(0).map_or(0, |all| all.end());
        if format.has_message { "" } else { line.get(end..).unwrap_or_default().trim() }
    });
    Some(Record {
        time: text("time").map_or(WrittenTime::None, |time| WrittenTime::Text(Cow::Borrowed(time))),
        level,
        logger: text("logger").map(Cow::Borrowed),
        thread: text("thread").map(Cow::Borrowed),
        message: Cow::Borrowed(message),
        exception: None,
        stack: None,
    })
}

/// The time that a line names, its own or else its collector's.
pub fn time_of_line(line: &str, key: &str, settings: &crate::Settings) -> Option<jiff::Timestamp> {
    let context = Context::new(key, settings);
    let piece = envelope::open(line);
    let own = match &piece.body {
        Body::Record(record) if record.time.is_none() => {
            crate::record::Fields::parse(line).and_then(|fields| context.instant(&fields.time(), None))
        }
        Body::Record(record) => context.instant(&record.time, None),
        Body::Text(text) => {
            context.formats().that_may_fit(&text[..text.floor_char_boundary(HEADER)]).into_iter().find_map(|at| {
                let format = &context.formats().list[at];
                let record = read_header(format, text)?;
                context.instant(&record.time, format.time_format.as_deref())
            })
        }
        Body::Broken => None,
    };
    own.or_else(|| context.instant(&piece.collected, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn read(lines: &[&str], settings: &Settings, glances: bool) -> (Vec<Entry>, u64) {
        let mut assembler = Assembler::new(Context::new("shop/2024/07/01/app.gz", settings));
        for (at, line) in lines.iter().enumerate() {
            let position = LinePosition { line: at as u64 + 1, byte: 0 };
            if !glances || !assembler.is_quiet(position, line.as_bytes()) {
                assembler.line(position, line);
            }
        }
        assembler.finish();
        let entries = std::iter::from_fn(|| assembler.next_entry()).collect();
        (entries, assembler.unparsed())
    }

    #[test]
    fn lines_that_may_go_on_with_a_trace_do_not_wait_without_end() {
        let settings = Settings::built_in();
        for (first, line) in [
            ("java.lang.Error: boom", "    a dump"),
            ("panic: boom", ""),
            ("ValueError: boom", ""),
            ("/app/a.js:1", ""),
        ] {
            let mut assembler = Assembler::new(Context::new("shop/2024/07/01/app.gz", &settings));
            assembler.line(LinePosition { line: 1, byte: 0 }, first);
            let mut most = 0;
            for number in 2..70_000 {
                assembler.line(LinePosition { line: number, byte: 0 }, line);
                if let Current::Bare(bare) = &assembler.plain.current {
                    most = most.max(bare.pending.len());
                }
            }
            assert!(most < 60_000, "{most} lines wait behind {first}");
        }
    }

    #[test]
    fn pieces_that_are_cut_off_are_counted() {
        let piece = |log: &str| format!(r#"{{"log":"{log}","stream":"stdout","time":"2024-07-01T10:00:00Z"}}"#);
        let (header, filler) = (piece("2024-07-01T10:00:00Z INFO a.B - "), piece(&"x".repeat(1 << 20)));
        let most = LONGEST_LINE >> 20;
        for (pieces, cut) in [(most - 1, 0), (most, 1), (most + 2, 3)] {
            let mut lines = vec![header.as_str()];
            lines.extend(std::iter::repeat_n(filler.as_str(), pieces));
            let (last, next) = (piece("\\n"), piece("ERROR: next\\n"));
            lines.extend([last.as_str(), &next]);
            let (entries, unparsed) = read(&lines, &Settings::built_in(), false);
            assert_eq!((entries.len(), unparsed), (1, cut), "{pieces} pieces");
        }
    }

    /// A file's end and a collector's limit cut lines at any place: none of those may end the reading.
    #[test]
    fn lines_that_are_cut_anywhere_are_read() {
        let settings = Settings::built_in();
        let mut found = 0;
        let folder = format!("{}/tests/cases", env!("CARGO_MANIFEST_DIR"));
        for file in std::fs::read_dir(folder).expect("the folder") {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("a text").replace("\\x09", "\t");
            for line in text.lines() {
                let ends = || (0..line.len()).map(|at| line.floor_char_boundary(at));
                let heads: Vec<&str> = ends().map(|end| &line[..end]).collect();
                found += read(&heads, &settings, true).0.len();
                let behind: Vec<&str> = ends().map(|end| &line[end..]).collect();
                found += read(&behind, &settings, true).0.len();
            }
        }
        assert!(found > 1000, "{found}");
    }

    /// Over the logs of all cases, two after each other in every order, with lines of both mixed.
    #[test]
    fn what_is_seen_at_a_glance_is_what_a_full_reading_says() {
        let folder = format!("{}/tests/cases", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file").path());
        let cases: Vec<String> = files.map(|path| std::fs::read_to_string(path).expect("a text")).collect();
        let logs: Vec<Vec<&str>> = cases
            .iter()
            .flat_map(|text| text.split("\n=== "))
            .filter_map(|case| Some(case.split_once('\n')?.1.split_once("--- unparsed")?.0.lines().collect()))
            .collect();
        assert!(logs.len() > 40);
        let settings = Settings::built_in();
        for first in &logs {
            for second in &logs {
                let mixed = first.iter().zip(second).flat_map(|(a, b)| [*a, *b]);
                let lines: Vec<&str> = first.iter().chain(second).copied().chain(mixed).collect();
                assert_eq!(read(&lines, &settings, true), read(&lines, &settings, false), "{lines:#?}");
            }
        }
    }
}
