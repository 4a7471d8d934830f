use crate::gunzip::{Gunzip, GzipError, Limits, MAGIC, Unpacked};
use crate::utf16::Decoder;
use bytes::{Buf, Bytes, BytesMut};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// What a reader keeps for the next long line, in bytes.
const CARRIED: usize = 1 << 20;

/// A line without its end, LF or CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// From 1; blank lines and damaged ones count.
    pub number: u64,
    pub bytes: &'a [u8],
    /// The line goes on behind these bytes, beyond the limit.
    pub is_cut: bool,
}

/// Between two lines of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// In bytes of the unpacked text; of UTF-16, as UTF-8 and without its mark.
    pub offset: u64,
    /// Lines in front of it.
    pub lines: u64,
}

/// The rest of the text cannot be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage<'a> {
    /// The number of the line that the damage is in.
    pub number: u64,
    /// What could be unpacked of that line.
    pub bytes: &'a [u8],
    pub what: GzipError,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    Line(Line<'a>),
    /// The last step of a damaged text.
    Damage(Damage<'a>),
    /// [`Lines::feed`] or [`Lines::end`] is next.
    Starved,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is longer than {limit} bytes")]
pub struct LineTooLong {
    pub number: u64,
    pub limit: usize,
}

/// Lines of a text, one at a time. A line that lies within one piece is not copied; memory is bounded by the longest
/// line.
pub struct Lines {
    source: Source,
    /// Of a line, in bytes.
    limit: usize,
    /// Of a longer line the beginning counts; otherwise it is an error.
    cuts: bool,
    decoder: Decoder,
    window: Bytes,
    /// Bytes of the window that were handed out last. They lie there until the next step.
    handed_out: usize,
    /// The beginning of a line that goes on behind the window.
    carry: Vec<u8>,
    /// Bytes of that line behind `carry`, which are beyond the limit, and the last of them.
    dropped: u64,
    last_dropped: Option<u8>,
    /// `carry` was handed out as a line.
    is_carry_used: bool,
    position: Position,
    /// Unpacked text in front of this offset was read before.
    skip: u64,
    is_over: bool,
}

enum Source {
    /// Fewer than two bytes have come, and whether they are all.
    Unknown {
        head: BytesMut,
        is_whole: bool,
    },
    Plain {
        input: Bytes,
        is_whole: bool,
    },
    Gzip(Box<Gunzip>),
}

impl Lines {
    /// Plain text, or gzip by its first two bytes. A line of more than `limit` bytes is an error.
    pub fn new(limit: usize) -> Self {
        Lines::resume(limit, Position::default())
    }

    /// Nothing but gzip. Of a line of more than `limit` bytes the first `limit` are handed out. Text in UTF-16 with a
    /// byte order mark is handed out as UTF-8.
    pub fn gzip(limit: usize, limits: Limits) -> Self {
        let source = Source::Gzip(Box::new(Gunzip::new(limits)));
        Lines { source, cuts: true, decoder: Decoder::Unknown(None), ..Lines::new(limit) }
    }

    /// Of a line that is longer than the limit the beginning is handed out, as one that is cut.
    pub fn cutting(self) -> Self {
        Lines { cuts: true, ..self }
    }

    /// Goes on at a position that an earlier reader of the same text had reached. It is fed from the text's beginning.
    pub fn resume(limit: usize, position: Position) -> Self {
        Lines {
            source: Source::Unknown { head: BytesMut::new(), is_whole: false },
            limit,
            cuts: false,
            decoder: Decoder::Plain,
            window: Bytes::new(),
            handed_out: 0,
            carry: Vec::new(),
            dropped: 0,
            last_dropped: None,
            is_carry_used: false,
            position,
            skip: position.offset,
            is_over: false,
        }
    }

    /// `None` while fewer than two bytes have come.
    pub fn is_gzip(&self) -> Option<bool> {
        match self.source {
            Source::Unknown { .. } => None,
            Source::Plain { .. } => Some(false),
            Source::Gzip(_) => Some(true),
        }
    }

    /// Behind the last line that was handed out.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Takes the next piece of the file, after [`Step::Starved`].
    pub fn feed(&mut self, piece: Bytes) {
        match &mut self.source {
            Source::Plain { input, .. } => *input = piece,
            Source::Gzip(gunzip) => gunzip.feed(piece),
            Source::Unknown { head, .. } => {
                head.extend_from_slice(&piece);
                if head.len() < MAGIC.len() {
                    return;
                }
                let input = std::mem::take(head).freeze();
                self.source = if input.starts_with(&MAGIC) {
                    let mut gunzip = Gunzip::new(Limits::NONE);
                    gunzip.feed(input);
                    Source::Gzip(Box::new(gunzip))
                } else {
                    Source::Plain { input, is_whole: false }
                };
            }
        }
    }

    /// There are no more pieces.
    pub fn end(&mut self) {
        match &mut self.source {
            Source::Unknown { is_whole, .. } | Source::Plain { is_whole, .. } => *is_whole = true,
            Source::Gzip(gunzip) => gunzip.end(),
        }
    }

    pub fn step(&mut self) -> Result<Step<'_>, LineTooLong> {
        self.window.advance(std::mem::take(&mut self.handed_out));
        if std::mem::take(&mut self.is_carry_used) {
            self.carry.clear();
            self.carry.shrink_to(CARRIED);
            self.dropped = 0;
            self.last_dropped = None;
        }
        loop {
            if let Some(length) = memchr::memchr(b'\n', &self.window) {
                return self.line(length + 1);
            }
            self.carry_window()?;
            match self.unpack() {
                Unpacked::Bytes(bytes) => {
                    let text = self.decoder.decode(bytes);
                    self.window = self.unread(text);
                }
                Unpacked::Starved => return Ok(Step::Starved),
                _ if self.is_over => return Ok(Step::End),
                Unpacked::End => {
                    self.is_over = true;
                    self.carry.extend_from_slice(&self.decoder.end());
                    if self.carry.is_empty() {
                        return Ok(Step::End);
                    }
                    return self.line(0);
                }
                Unpacked::Damaged(what) => {
                    self.is_over = true;
                    self.is_carry_used = true;
                    self.carry.extend_from_slice(&self.decoder.end());
                    let is_first = self.position.lines == 0;
                    self.position.offset += self.carry.len() as u64 + self.dropped;
                    self.position.lines += 1;
                    let bytes = unmarked(&self.carry, is_first);
                    return Ok(Step::Damage(Damage { number: self.position.lines, bytes, what }));
                }
            }
        }
    }

    /// The window holds no end of a line.
    fn carry_window(&mut self) -> Result<(), LineTooLong> {
        let mut piece = std::mem::take(&mut self.window);
        if self.cuts {
            let beyond = piece.split_off(piece.len().min(self.limit - self.carry.len()));
            self.dropped += beyond.len() as u64;
            self.last_dropped = beyond.last().copied().or(self.last_dropped);
        }
        self.carry.extend_from_slice(&piece);
        if self.carry.len() > self.limit {
            return Err(LineTooLong { number: self.position.lines + 1, limit: self.limit });
        }
        Ok(())
    }

    fn unpack(&mut self) -> Unpacked {
        match &mut self.source {
            Source::Gzip(gunzip) => gunzip.unpack(),
            Source::Plain { input, .. } if !input.is_empty() => Unpacked::Bytes(std::mem::take(input)),
            Source::Unknown { head, is_whole: true } if !head.is_empty() => Unpacked::Bytes(head.split().freeze()),
            Source::Plain { is_whole: true, .. } | Source::Unknown { is_whole: true, .. } => Unpacked::End,
            Source::Plain { .. } | Source::Unknown { .. } => Unpacked::Starved,
        }
    }

    /// Without what an earlier reader has read.
    fn unread(&mut self, mut bytes: Bytes) -> Bytes {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        bytes.split_off(skipped as usize)
    }

    /// The line that `carry` begins and that ends with the window's first `end` bytes, its line feed included.
    fn line(&mut self, end: usize) -> Result<Step<'_>, LineTooLong> {
        self.handed_out = end;
        let is_first = self.position.lines == 0;
        let length = (self.carry.len() + end) as u64 + self.dropped;
        let content = length - self.ending(end);
        let is_cut = content > self.limit as u64;
        if is_cut && !self.cuts {
            return Err(LineTooLong { number: self.position.lines + 1, limit: self.limit });
        }
        self.position.offset += length;
        self.position.lines += 1;
        // A line within the window needs no copy.
        let whole = if self.carry.is_empty() {
            &self.window[..end]
        } else {
            self.is_carry_used = true;
            if self.dropped == 0 {
                self.carry.extend_from_slice(&self.window[..end]);
            }
            &self.carry[..]
        };
        let bytes = unmarked(&whole[..content.min(self.limit as u64) as usize], is_first);
        Ok(Step::Line(Line { number: self.position.lines, bytes, is_cut }))
    }

    /// How many bytes LF or CRLF has at the end of the window's first `end` bytes, which end a line.
    fn ending(&self, end: usize) -> u64 {
        let before = match end {
            0 => return 0,
            1 => self.last_dropped.or(self.carry.last().copied()),
            _ => Some(self.window[end - 2]),
        };
        1 + u64::from(before == Some(b'\r'))
    }
}

/// A byte order mark stands in front of a text and is no part of it.
fn unmarked(line: &[u8], is_first: bool) -> &[u8] {
    if is_first { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line }
}
