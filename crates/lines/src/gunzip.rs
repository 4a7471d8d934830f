//! Gzip members one after the other. The usual decoders drop what they had unpacked when they meet an error; this one
//! hands out every byte in front of the damage.

use crate::utf16::Decoder;
use bytes::{Buf, Bytes};
use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};
use std::io::{self, BufRead, Read};

pub const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// How much is unpacked at once, in bytes. Allocators ask the system for each piece from 128 KiB on.
const WINDOW: usize = 64 * 1024;
/// A header holds a name, a comment and extra fields; one that goes on for longer is not from a compressor.
const HEADER: usize = 256 * 1024;

const RESERVED: u8 = 0b1110_0000;
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;

/// What a file may unpack to before it is taken for an attack.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Unpacked bytes.
    pub bytes: u64,
    /// Unpacked bytes for each packed one; looked at once [`Limits::RATIO_FROM`] bytes are unpacked.
    pub ratio: u64,
}

impl Limits {
    /// Small files may be as regular as they like.
    pub const RATIO_FROM: u64 = 64 << 20;
    pub const NONE: Limits = Limits { bytes: u64::MAX, ratio: u64::MAX };
}

/// Why a file cannot be unpacked to its end. What was unpacked before is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GzipError {
    NotGzip,
    Truncated,
    Corrupt(&'static str),
    Bomb,
    TooLarge,
}

impl GzipError {
    /// The stable name, as reports print it.
    pub fn name(self) -> &'static str {
        match self {
            GzipError::NotGzip => "NotGzip",
            GzipError::Truncated => "GzipTruncated",
            GzipError::Corrupt(_) => "GzipCorrupt",
            GzipError::Bomb => "GzipBomb",
            GzipError::TooLarge => "GzipTooLarge",
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            GzipError::NotGzip => "the file does not begin as gzip does",
            GzipError::Truncated => "the file ends in the middle of a gzip member",
            GzipError::Corrupt(what) => what,
            GzipError::Bomb => "the file unpacks to more times its size than is allowed",
            GzipError::TooLarge => "the file unpacks to more bytes than are allowed",
        }
    }
}

impl std::fmt::Display for GzipError {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str(self.text())
    }
}

impl std::error::Error for GzipError {}

/// Unpacks pieces of a file as they come.
pub struct Gunzip {
    input: Bytes,
    is_whole: bool,
    state: State,
    limits: Limits,
    packed: u64,
    unpacked: u64,
    members: u64,
}

enum State {
    Header(Vec<u8>),
    Body {
        inflate: Box<Decompress>,
        crc: Hasher,
    },
    Trailer {
        /// What it must be.
        expected: [u8; 8],
        found: Vec<u8>,
    },
    /// Behind a member: another one, zeros up to a block's end, or the end of the file.
    Between,
    Damaged(GzipError),
}

pub enum Unpacked {
    Bytes(Bytes),
    /// More of the file is needed.
    Starved,
    End,
    Damaged(GzipError),
}

impl Gunzip {
    pub fn new(limits: Limits) -> Self {
        let state = State::Header(Vec::new());
        Gunzip { input: Bytes::new(), is_whole: false, state, limits, packed: 0, unpacked: 0, members: 0 }
    }

    /// Takes the next piece of the file; the one before must have been used up.
    pub fn feed(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty(), "a piece was not used up");
        self.packed += input.len() as u64;
        self.input = input;
    }

    /// There are no more pieces.
    pub fn end(&mut self) {
        self.is_whole = true;
    }

    pub fn unpack(&mut self) -> Unpacked {
        loop {
            if self.input.is_empty() && !matches!(self.state, State::Damaged(_)) {
                return match (self.is_whole, &self.state) {
                    (false, _) => Unpacked::Starved,
                    (true, State::Between) => Unpacked::End,
                    (true, _) => self.damaged(GzipError::Truncated),
                };
            }
            match &mut self.state {
                State::Header(found) => {
                    let before = found.len();
                    found.extend_from_slice(&self.input);
                    match header_length(found) {
                        Ok(Some(length)) => {
                            self.input.advance(length - before);
                            let inflate = Box::new(Decompress::new(false));
                            self.state = State::Body { inflate, crc: Hasher::new() };
                        }
                        Ok(None) => self.input.clear(),
                        Err(_) if self.members == 0 && !begins_as_gzip(found) => {
                            self.state = State::Damaged(GzipError::NotGzip);
                        }
                        Err(what) => self.state = State::Damaged(GzipError::Corrupt(what)),
                    }
                }
                State::Body { inflate, crc } => {
                    let mut window = vec![0; WINDOW];
                    let (read, written) = (inflate.total_in(), inflate.total_out());
                    let outcome = inflate.decompress(&self.input, &mut window, FlushDecompress::None);
                    self.input.advance((inflate.total_in() - read) as usize);
                    window.truncate((inflate.total_out() - written) as usize);
                    crc.update(&window);
                    self.unpacked += window.len() as u64;
                    match outcome {
                        Ok(Status::StreamEnd) => {
                            let crc = std::mem::take(crc).finalize();
                            // Of the length the last 32 bits.
                            let expected = u64::from(crc) | inflate.total_out() << 32;
                            self.state = State::Trailer { expected: expected.to_le_bytes(), found: Vec::new() };
                        }
                        Ok(_) if !window.is_empty() || self.input.is_empty() => {}
                        Ok(_) | Err(_) => {
                            self.state = State::Damaged(GzipError::Corrupt("the compressed data is damaged"));
                        }
                    }
                    if let Some(beyond) = self.beyond() {
                        self.state = State::Damaged(beyond);
                    }
                    if !window.is_empty() {
                        return Unpacked::Bytes(window.into());
                    }
                }
                State::Trailer { expected, found } => {
                    found.push(self.input.get_u8());
                    if found.len() == expected.len() {
                        self.members += 1;
                        self.state = if found[..] == expected[..] {
                            State::Between
                        } else {
                            let what = "the checksum of a gzip member is not that of its data";
                            State::Damaged(GzipError::Corrupt(what))
                        };
                    }
                }
                State::Between => match self.input[0] {
                    0 => self.input.advance(1),
                    _ => self.state = State::Header(Vec::new()),
                },
                State::Damaged(what) => return Unpacked::Damaged(*what),
            }
        }
    }

    /// The limit that is passed.
    fn beyond(&self) -> Option<GzipError> {
        let packed = (self.packed - self.input.len() as u64).max(1);
        if self.unpacked > self.limits.bytes {
            Some(GzipError::TooLarge)
        } else if self.unpacked > Limits::RATIO_FROM && self.unpacked / packed > self.limits.ratio {
            Some(GzipError::Bomb)
        } else {
            None
        }
    }

    fn damaged(&mut self, what: GzipError) -> Unpacked {
        self.state = State::Damaged(what);
        Unpacked::Damaged(what)
    }
}

/// The text of a file, for those who read. Text in UTF-16 with a byte order mark is read as UTF-8. An error of the
/// file's source is returned as it is; damage of its content ends the text and is told by [`GunzipReader::damage`].
pub struct GunzipReader<R> {
    source: R,
    gunzip: Gunzip,
    decoder: Decoder,
    text: Bytes,
    damage: Option<GzipError>,
}

impl<R: BufRead> GunzipReader<R> {
    pub fn new(source: R, limits: Limits) -> Self {
        let (gunzip, decoder) = (Gunzip::new(limits), Decoder::Unknown(None));
        GunzipReader { source, gunzip, decoder, text: Bytes::new(), damage: None }
    }

    /// What ended the text early; `None` after a whole file.
    pub fn damage(&self) -> Option<GzipError> {
        self.damage
    }

    fn feed(&mut self) -> io::Result<()> {
        let piece = loop {
            match self.source.fill_buf() {
                Ok(piece) => break Bytes::copy_from_slice(piece),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        self.source.consume(piece.len());
        if piece.is_empty() {
            self.gunzip.end()
        } else {
            self.gunzip.feed(piece)
        }
        Ok(())
    }
}

impl<R: BufRead> Read for GunzipReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.text.is_empty() {
            match self.gunzip.unpack() {
                Unpacked::Bytes(text) => self.text = self.decoder.decode(text),
                Unpacked::Starved => self.feed()?,
                end @ (Unpacked::End | Unpacked::Damaged(_)) => {
                    if let Unpacked::Damaged(what) = end {
                        self.damage = Some(what);
                    }
                    self.text = self.decoder.end();
                    if self.text.is_empty() {
                        return Ok(0);
                    }
                }
            }
        }
        let length = out.len().min(self.text.len());
        self.text.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}

fn begins_as_gzip(found: &[u8]) -> bool {
    found.iter().zip(MAGIC).all(|(found, magic)| *found == magic)
}

/// The length of the header that `found` begins with; `None` while it is not complete.
fn header_length(found: &[u8]) -> Result<Option<usize>, &'static str> {
    if !begins_as_gzip(found) {
        return Err("what follows a gzip member is none");
    }
    if found.get(2).is_some_and(|method| *method != 8) {
        return Err("the compression method of a gzip member is unknown");
    }
    let Some(flags) = found.get(3).copied() else { return Ok(None) };
    if flags & RESERVED != 0 {
        return Err("the header of a gzip member has unknown flags");
    }
    let length = fields_end(found, flags).filter(|length| *length <= found.len());
    match length {
        None if found.len() > HEADER => Err("the header of a gzip member is too long"),
        length => Ok(length),
    }
}

/// Where the fields that `flags` names end, as far as that can be seen.
fn fields_end(found: &[u8], flags: u8) -> Option<usize> {
    let mut end = 10;
    if flags & EXTRA != 0 {
        let size = found.get(end..end + 2)?;
        end += 2 + usize::from(u16::from_le_bytes([size[0], size[1]]));
    }
    for _ in [NAME, COMMENT].iter().filter(|flag| flags & **flag != 0) {
        end += memchr::memchr(0, found.get(end..)?)? + 1;
    }
    Some(if flags & HEADER_CRC != 0 { end + 2 } else { end })
}
