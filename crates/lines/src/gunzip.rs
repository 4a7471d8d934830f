//! Gzip members one after the other. The usual decoders drop what they had unpacked when they meet an error; this one
//! hands out every byte in front of the damage.

use bytes::{Buf, Bytes};
use flate2::{Crc, Decompress, FlushDecompress, Status};

pub const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// How much is unpacked at once, in bytes.
const WINDOW: usize = 128 * 1024;
/// A header holds a name, a comment and extra fields; one that goes on for longer is not from a compressor.
const HEADER: usize = 256 * 1024;

const RESERVED: u8 = 0b1110_0000;
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;

pub struct Gunzip {
    input: Bytes,
    is_whole: bool,
    state: State,
}

enum State {
    Header(Vec<u8>),
    Body {
        inflate: Box<Decompress>,
        crc: Crc,
    },
    Trailer {
        crc: Crc,
        found: Vec<u8>,
    },
    /// Behind a member: another one, zeros up to a block's end, or the end of the file.
    Between,
    Damaged(&'static str),
}

pub enum Unpacked {
    Bytes(Bytes),
    /// More of the file is needed.
    Starved,
    End,
    Damaged(&'static str),
}

impl Gunzip {
    pub fn new() -> Self {
        Gunzip { input: Bytes::new(), is_whole: false, state: State::Header(Vec::new()) }
    }

    /// Takes the next piece of the file; the one before must have been used up.
    pub fn feed(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty(), "a piece was not used up");
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
                    (true, _) => self.damaged("the file ends in the middle of a gzip member"),
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
                            self.state = State::Body { inflate, crc: Crc::new() };
                        }
                        Ok(None) => self.input.clear(),
                        Err(what) => self.state = State::Damaged(what),
                    }
                }
                State::Body { inflate, crc } => {
                    let mut window = vec![0; WINDOW];
                    let (read, written) = (inflate.total_in(), inflate.total_out());
                    let outcome = inflate.decompress(&self.input, &mut window, FlushDecompress::None);
                    self.input.advance((inflate.total_in() - read) as usize);
                    window.truncate((inflate.total_out() - written) as usize);
                    crc.update(&window);
                    match outcome {
                        Ok(Status::StreamEnd) => {
                            let crc = std::mem::take(crc);
                            self.state = State::Trailer { crc, found: Vec::new() };
                        }
                        Ok(_) if !window.is_empty() || self.input.is_empty() => {}
                        Ok(_) | Err(_) => self.state = State::Damaged("the compressed data is damaged"),
                    }
                    if !window.is_empty() {
                        return Unpacked::Bytes(window.into());
                    }
                }
                State::Trailer { crc, found } => {
                    found.push(self.input.get_u8());
                    if let Ok(trailer) = <[u8; 8]>::try_from(found.as_slice()) {
                        let expected = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
                        self.state = match trailer[..] == expected[..] {
                            true => State::Between,
                            false => State::Damaged("the checksum of a gzip member is not that of its data"),
                        };
                    }
                }
                State::Between => match self.input[0] {
                    0 => self.input.advance(1),
                    _ => self.state = State::Header(Vec::new()),
                },
                State::Damaged(what) => return Unpacked::Damaged(what),
            }
        }
    }

    fn damaged(&mut self, what: &'static str) -> Unpacked {
        self.state = State::Damaged(what);
        Unpacked::Damaged(what)
    }
}

/// The length of the header that `found` begins with; `None` while it is not complete.
fn header_length(found: &[u8]) -> Result<Option<usize>, &'static str> {
    let is_magic = found.iter().zip(MAGIC).all(|(found, magic)| *found == magic);
    if !is_magic {
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
