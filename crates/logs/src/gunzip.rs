//! Unpacks gzip as a stream: any number of members, and an end that says what was wrong.
//!
//! The deflate stream itself is flate2's. Members are framed here, because of a damaged one every byte before the
//! damage counts, and flate2's own readers drop what they unpacked in the call that meets it.

use flate2::{Crc, Decompress, FlushDecompress, Status};
use std::io::{self, BufRead, Read};

/// What an object may unpack to before it is taken for an attack.
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
}

impl Default for Limits {
    /// 256 GiB, and 400:1. Logs reach 10:1 to 100:1; deflate itself ends at 1032:1.
    fn default() -> Self {
        Limits { bytes: 256 << 30, ratio: 400 }
    }
}

/// Why an object could not be read to its end. What was unpacked before is good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it does not begin as gzip does")]
    NotGzip,
    #[error("it ends in the middle of a gzip member")]
    Truncated,
    #[error("{0}")]
    Corrupt(&'static str),
    #[error("it unpacks to more than {ratio} times its size")]
    Bomb { ratio: u64 },
    #[error("it unpacks to more than {bytes} bytes")]
    TooLarge { bytes: u64 },
}

impl Damage {
    /// The stable name, as reports and `logs status` print it.
    pub fn name(&self) -> &'static str {
        match self {
            Damage::NotGzip => "NotGzip",
            Damage::Truncated => "GzipTruncated",
            Damage::Corrupt(_) => "GzipCorrupt",
            Damage::Bomb { .. } => "GzipBomb",
            Damage::TooLarge { .. } => "GzipTooLarge",
        }
    }
}

/// Reads the unpacked bytes of `source`. An error of `source` itself is returned as it is; damage of the
/// content ends the stream and is told by [`Gunzip::damage`].
pub struct Gunzip<R> {
    source: R,
    inflate: Decompress,
    crc: Crc,
    state: State,
    members: u64,
    packed: u64,
    unpacked: u64,
    limits: Limits,
    damage: Option<Damage>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Between,
    Body,
    Ended,
}

impl<R: BufRead> Gunzip<R> {
    pub fn new(source: R, limits: Limits) -> Self {
        let (inflate, crc) = (Decompress::new(false), Crc::new());
        Gunzip { source, inflate, crc, state: State::Between, members: 0, packed: 0, unpacked: 0, limits, damage: None }
    }

    /// What ended the stream early; `None` after a whole object.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    fn end(&mut self, damage: Option<Damage>) {
        self.damage = damage;
        self.state = State::Ended;
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let next = fill(&mut self.source)?.first().copied();
        if next.is_some() {
            self.source.consume(1);
            self.packed += 1;
        }
        Ok(next)
    }

    /// Reads a member's header and is then in its body, or the stream has ended.
    fn begin_member(&mut self) -> io::Result<()> {
        let Some(mut first) = self.byte()? else {
            let damage = (self.members == 0).then_some(Damage::Truncated);
            self.end(damage);
            return Ok(());
        };
        // Blocks of a tape are filled up with zeros.
        while first == 0 && self.members > 0 {
            match self.byte()? {
                Some(next) => first = next,
                None => {
                    self.end(None);
                    return Ok(());
                }
            }
        }
        let not_gzip = || match self.members {
            0 => Damage::NotGzip,
            _ => Damage::Corrupt("what follows the last gzip member is not gzip"),
        };
        let not_gzip = not_gzip();
        if first != 0x1f {
            self.end(Some(not_gzip));
            return Ok(());
        }
        match self.byte()? {
            Some(0x8b) => {}
            Some(_) => {
                self.end(Some(not_gzip));
                return Ok(());
            }
            None => {
                self.end(Some(Damage::Truncated));
                return Ok(());
            }
        }
        match self.header()? {
            Some(()) => {
                self.inflate.reset(false);
                self.crc.reset();
                self.state = State::Body;
            }
            None if self.damage.is_none() => self.end(Some(Damage::Truncated)),
            None => {}
        }
        Ok(())
    }

    /// The rest of a header (RFC 1952, 2.3); `None` when it ends early or is of another kind.
    fn header(&mut self) -> io::Result<Option<()>> {
        const HEADER_CRC: u8 = 2;
        const EXTRA: u8 = 4;
        const NAME: u8 = 8;
        const COMMENT: u8 = 16;
        const RESERVED: u8 = 0xe0;
        let mut fixed = [0; 8];
        for byte in &mut fixed {
            let Some(next) = self.byte()? else { return Ok(None) };
            *byte = next;
        }
        let [method, flags, ..] = fixed;
        if method != 8 || flags & RESERVED != 0 {
            self.end(Some(Damage::Corrupt("a gzip header names a compression that does not exist")));
            return Ok(None);
        }
        let mut skip = 0;
        if flags & EXTRA != 0 {
            let (Some(low), Some(high)) = (self.byte()?, self.byte()?) else { return Ok(None) };
            skip = u16::from_le_bytes([low, high]);
        }
        for _ in 0..skip {
            if self.byte()?.is_none() {
                return Ok(None);
            }
        }
        for text in [NAME, COMMENT] {
            if flags & text == 0 {
                continue;
            }
            loop {
                match self.byte()? {
                    Some(0) => break,
                    Some(_) => {}
                    None => return Ok(None),
                }
            }
        }
        if flags & HEADER_CRC != 0 && (self.byte()?.is_none() || self.byte()?.is_none()) {
            return Ok(None);
        }
        Ok(Some(()))
    }

    /// The checksum and length behind a body.
    fn end_member(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        for byte in &mut trailer {
            let Some(next) = self.byte()? else {
                self.end(Some(Damage::Truncated));
                return Ok(());
            };
            *byte = next;
        }
        let [a, b, c, d, e, f, g, h] = trailer;
        if u32::from_le_bytes([a, b, c, d]) != self.crc.sum() || u32::from_le_bytes([e, f, g, h]) != self.crc.amount() {
            self.end(Some(Damage::Corrupt("a gzip member does not have the checksum or the length that it names")));
            return Ok(());
        }
        self.members += 1;
        self.state = State::Between;
        Ok(())
    }

    /// Unpacks a piece of the body; 0 when the body ended or more packed bytes are needed.
    fn body(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let input = fill(&mut self.source)?;
        let at_end = input.is_empty();
        let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
        let outcome = self.inflate.decompress(input, out, FlushDecompress::None);
        let taken = (self.inflate.total_in() - before_in) as usize;
        let written = (self.inflate.total_out() - before_out) as usize;
        self.source.consume(taken);
        self.packed += taken as u64;
        self.unpacked += written as u64;
        self.crc.update(&out[..written]);
        match outcome {
            Ok(Status::StreamEnd) => self.end_member()?,
            Err(_) => self.end(Some(Damage::Corrupt("the compressed data cannot be unpacked"))),
            Ok(_) if at_end && written == 0 => self.end(Some(Damage::Truncated)),
            Ok(_) => {}
        }
        if self.unpacked > self.limits.bytes {
            self.end(Some(Damage::TooLarge { bytes: self.limits.bytes }));
        } else if self.unpacked > Limits::RATIO_FROM && self.unpacked / self.packed.max(1) > self.limits.ratio {
            self.end(Some(Damage::Bomb { ratio: self.limits.ratio }));
        }
        Ok(written)
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::Ended => return Ok(0),
                State::Between => self.begin_member()?,
                State::Body => match self.body(out)? {
                    0 => {}
                    written => return Ok(written),
                },
            }
        }
    }
}

fn fill(source: &mut impl BufRead) -> io::Result<&[u8]> {
    // Asked twice, because the borrow checker cannot see that an interrupted call returned nothing.
    loop {
        match source.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    source.fill_buf()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, GzBuilder, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn gz(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn text(lines: usize) -> Vec<u8> {
        (0..lines)
            .flat_map(|n| format!("2024-07-01 line {n} of {}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
            .collect()
    }

    fn unpack_in(packed: &[u8], piece: usize, limits: Limits) -> (Vec<u8>, Option<Damage>) {
        let mut gunzip = Gunzip::new(io::BufReader::with_capacity(piece, packed), limits);
        let mut out = Vec::new();
        gunzip.read_to_end(&mut out).expect("memory does not fail");
        (out, gunzip.damage().cloned())
    }

    fn unpack(packed: &[u8]) -> (Vec<u8>, Option<Damage>) {
        unpack_in(packed, 8192, Limits::default())
    }

    #[test]
    fn members_are_one_text_and_padding_is_none() {
        let mut named =
            GzBuilder::new().filename("a.log").comment("c").extra(vec![1; 300]).write(Vec::new(), Compression::fast());
        named.write_all(b"second\nthi").expect("memory");
        let mut packed = [gz(b"first\n"), gz(b""), named.finish().expect("memory"), gz(b"rd\n")].concat();
        assert_eq!(unpack(&packed), (b"first\nsecond\nthird\n".to_vec(), None));
        packed.extend([0; 1000]);
        assert_eq!(unpack(&packed), (b"first\nsecond\nthird\n".to_vec(), None));
        packed.extend(b"junk");
        let (out, damage) = unpack(&packed);
        assert_eq!((out.len(), damage.expect("junk").name()), (19, "GzipCorrupt"));
    }

    #[test]
    fn what_is_not_gzip_says_so() {
        for (bytes, name) in [
            (&b"plain text\n"[..], "NotGzip"),
            (b"\x1f\x8c", "NotGzip"),
            (b"", "GzipTruncated"),
            (b"\x1f", "GzipTruncated"),
        ] {
            assert_eq!(unpack(bytes).1.expect("damage").name(), name, "{bytes:?}");
        }
        assert_eq!(unpack(b"\x1f\x8b\x09\0\0\0\0\0\0\0").1.expect("damage").name(), "GzipCorrupt");
    }

    #[test]
    fn a_file_cut_anywhere_gives_what_stands_before_the_cut() {
        let (whole, packed) = (text(300), gz(&text(300)));
        for cut in 0..packed.len() {
            let (out, damage) = unpack(&packed[..cut]);
            assert_eq!(damage, Some(Damage::Truncated), "{cut}");
            assert!(whole.starts_with(&out), "{cut}");
        }
        // Cut in the trailer: all of the text is there.
        assert_eq!(unpack(&packed[..packed.len() - 3]).0, whole);
    }

    /// Byte by byte in and out: the most that can be had before the damage.
    fn all_before_the_damage(packed: &[u8]) -> usize {
        let mut inflate = Decompress::new(false);
        let mut input = &packed[10..];
        let mut byte = [0];
        let mut total = 0;
        loop {
            let (before, consumed) = (inflate.total_out(), inflate.total_in());
            let outcome = inflate.decompress(&input[..input.len().min(1)], &mut byte, FlushDecompress::None);
            input = &input[(inflate.total_in() - consumed) as usize..];
            total += (inflate.total_out() - before) as usize;
            match outcome {
                Err(_) | Ok(Status::StreamEnd) => return total,
                Ok(_) if input.is_empty() && inflate.total_out() == before => return total,
                Ok(_) => {}
            }
        }
    }

    #[test]
    fn a_flipped_bit_costs_nothing_before_it_and_never_passes() {
        let packed = gz(&text(3000));
        for at in (10..packed.len()).step_by(37) {
            let mut broken = packed.clone();
            broken[at] ^= 0x10;
            let (out, damage) = unpack(&broken);
            assert!(damage.is_some(), "bit in byte {at} went unnoticed");
            assert!(out.len() >= all_before_the_damage(&broken), "byte {at}: {} bytes", out.len());
        }
    }

    #[test]
    fn a_bomb_is_defused_by_ratio_and_by_size() {
        let zeros = gz(&vec![0; 100 << 20]);
        let (out, damage) = unpack(&zeros);
        assert_eq!(damage, Some(Damage::Bomb { ratio: 400 }));
        assert!(out.len() < 65 << 20);
        let small = Limits { bytes: 1000, ratio: 400 };
        let (out, damage) = unpack_in(&gz(&text(10_000)), 64, small);
        assert_eq!(damage, Some(Damage::TooLarge { bytes: 1000 }));
        assert!(out.len() >= 1000);
    }

    #[test]
    fn an_error_of_the_source_is_no_damage() {
        struct Broken<'a>(&'a [u8]);
        impl Read for Broken<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                match self.0.read(out)? {
                    0 => Err(io::Error::other("connection lost")),
                    n => Ok(n),
                }
            }
        }
        let packed = gz(&text(3000));
        let mut gunzip = Gunzip::new(io::BufReader::new(Broken(&packed[..packed.len() / 2])), Limits::default());
        assert_eq!(gunzip.read_to_end(&mut Vec::new()).expect_err("lost").to_string(), "connection lost");
        assert_eq!(gunzip.damage(), None);
    }

    proptest! {
        #[test]
        fn any_members_in_any_pieces_come_back(members in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..500), 1..6), piece in 1usize..300) {
            let packed: Vec<u8> = members.iter().flat_map(|member| gz(member)).collect();
            prop_assert_eq!(unpack_in(&packed, piece, Limits::default()), (members.concat(), None));
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let bytes = [&[0x1f, 0x8b, 8, 0][..], &bytes].concat();
            unpack(&bytes);
        }
    }
}
