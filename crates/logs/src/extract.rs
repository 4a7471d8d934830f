use crate::assemble::Assembler;
use crate::entry::{Context, Entry, LONGEST_LINE, LinePosition};
use crate::settings::Settings;
use bytes::Bytes;
use lines::{GzipError, Limits, Lines, Step};
use std::borrow::Cow;

/// What a log object may unpack to: 256 GiB, and 400:1. Logs reach 10:1 to 100:1; deflate itself ends at 1032:1.
pub const LIMITS: Limits = Limits { bytes: 256 << 30, ratio: 400 };

/// What was read of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStats {
    /// Lines, the last one also without its line break.
    pub lines: u64,
    /// Unpacked.
    pub bytes: u64,
    pub entries: u64,
    /// Lines that are in no known format and belong to no entry.
    pub unparsed: u64,
    /// Why the object could not be read to its end.
    pub damage: Option<GzipError>,
}

/// Reads a gz object from its first byte to its end or its damage. The object comes in pieces; memory does not grow
/// with it.
pub struct Extraction<'a> {
    lines: Lines,
    assembler: Assembler<'a>,
    entries: u64,
    damage: Option<GzipError>,
    is_over: bool,
    /// The damage begins behind a line break, and so in a line that has no bytes.
    is_cut_between_lines: bool,
}

impl<'a> Extraction<'a> {
    /// `key`: `<service>/YYYY/MM/DD/<name>.gz`.
    pub fn new(key: &'a str, settings: &'a Settings, limits: Limits) -> Self {
        Extraction {
            lines: Lines::gzip(LONGEST_LINE, limits),
            assembler: Assembler::new(Context::new(key, settings)),
            entries: 0,
            damage: None,
            is_over: false,
            is_cut_between_lines: false,
        }
    }

    /// Takes the next piece of the object, when [`next`](Self::next) has no more entries of the one before.
    pub fn feed(&mut self, piece: Bytes) {
        self.lines.feed(piece);
    }

    /// There are no more pieces.
    pub fn end(&mut self) {
        self.lines.end();
    }

    /// Nothing more can be read: the object has ended, or is damaged.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The next error entry that is complete. `None` when another piece of the object is needed, or at the end.
    pub fn next_entry(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.assembler.next_entry() {
                self.entries += 1;
                return Some(entry);
            }
            if self.is_over {
                return None;
            }
            let byte = self.lines.position().offset;
            match self.lines.step() {
                Ok(Step::Line(line)) => {
                    let position = LinePosition { line: line.number, byte };
                    if !self.assembler.is_quiet(position, line.bytes) {
                        self.assembler.line(position, &text(line.bytes));
                    }
                }
                Ok(Step::Starved) => return None,
                Ok(Step::End) => self.finish(),
                // What was unpacked of the line that the damage is in may be all that tells of an error.
                Ok(Step::Damage(damage)) => {
                    self.damage = Some(damage.what);
                    self.is_cut_between_lines = damage.bytes.is_empty();
                    if !damage.bytes.is_empty() {
                        let position = LinePosition { line: damage.number, byte };
                        self.assembler.line(position, &text(damage.bytes));
                    }
                    self.finish();
                }
                // Longer lines are cut.
                Err(error) => unreachable!("{error}"),
            }
        }
    }

    fn finish(&mut self) {
        self.is_over = true;
        self.assembler.finish();
    }

    pub fn summary(&self) -> ObjectStats {
        let position = self.lines.position();
        ObjectStats {
            lines: position.lines - u64::from(self.is_cut_between_lines),
            bytes: position.offset,
            entries: self.entries,
            unparsed: self.assembler.unparsed(),
            damage: self.damage,
        }
    }
}

/// Bytes that are not UTF-8 become U+FFFD. Nearly all lines are, and to look at those as a whole takes a tenth of the
/// time.
fn text(line: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed)
}
