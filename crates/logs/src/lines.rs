//! Lines of a text that may be of any size: split at LF and nowhere else, with their number and place.

use std::io::{self, Read};

/// The most of one line that is kept; the rest is skipped. Enough for the 10 MB lines that collectors do write.
pub const LONGEST: usize = 16 << 20;
const CHUNK: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// From 1.
    pub number: u64,
    /// Of its first byte, in the unpacked text.
    pub byte: u64,
    /// Without its line break, LF or CRLF.
    pub text: &'a [u8],
}

pub struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    /// What of the buffer is read and not yet passed on.
    start: usize,
    end: usize,
    number: u64,
    byte: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    pub fn new(source: R) -> Self {
        Lines { source, buffer: vec![0; CHUNK], start: 0, end: 0, number: 0, byte: 0, ended: false }
    }

    /// Lines passed on so far.
    pub fn count(&self) -> u64 {
        self.number
    }

    pub fn source(&self) -> &R {
        &self.source
    }

    /// The next line. Bytes behind the last line break are a line, too.
    #[allow(clippy::should_implement_trait)] // A line borrows the buffer, so this is no Iterator.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let mut searched = self.start;
        let stop = loop {
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[searched..self.end]) {
                break searched + found;
            }
            searched = self.end;
            if self.ended {
                if self.start == self.end {
                    return Ok(None);
                }
                break self.end;
            }
            if self.end - self.start >= LONGEST {
                return self.cut().map(Some);
            }
            let moved = self.start;
            self.fill()?;
            searched -= moved - self.start;
        };
        let (start, at_break) = (self.start, stop < self.end);
        self.start = if at_break { stop + 1 } else { stop };
        let byte = self.byte;
        self.byte += (self.start - start) as u64;
        self.number += 1;
        Ok(Some(Line { number: self.number, byte, text: without_cr(&self.buffer[start..stop]) }))
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize((self.buffer.len() * 2).min(LONGEST + CHUNK), 0);
        } else if self.end < CHUNK / 2 && self.buffer.len() > CHUNK {
            // One long line must not cost its memory until the end of the object.
            self.buffer.truncate(CHUNK);
            self.buffer.shrink_to_fit();
        }
        match read(&mut self.source, &mut self.buffer[self.end..])? {
            0 => self.ended = true,
            n => self.end += n,
        }
        Ok(())
    }

    /// A line that is longer than can be kept: its beginning, and the rest read over.
    fn cut(&mut self) -> io::Result<Line<'_>> {
        let byte = self.byte;
        self.byte += (self.end - self.start) as u64;
        self.buffer.copy_within(self.start..self.start + LONGEST, 0);
        self.number += 1;
        self.buffer.resize(LONGEST + CHUNK, 0);
        loop {
            let (head, rest) = self.buffer.split_at_mut(LONGEST);
            debug_assert_eq!(head.len(), LONGEST);
            let n = read(&mut self.source, rest)?;
            if n == 0 {
                self.ended = true;
                (self.start, self.end) = (LONGEST, LONGEST);
                break;
            }
            if let Some(found) = memchr::memchr(b'\n', &rest[..n]) {
                self.byte += found as u64 + 1;
                (self.start, self.end) = (LONGEST + found + 1, LONGEST + n);
                break;
            }
            self.byte += n as u64;
        }
        Ok(Line { number: self.number, byte, text: without_cr(&self.buffer[..LONGEST]) })
    }
}

fn read(source: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(out) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn without_cr(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\r").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives at most `piece` bytes a call.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = out.len().min(self.1);
            self.0.read(&mut out[..n])
        }
    }

    fn split(text: &[u8], piece: usize) -> Vec<(u64, u64, Vec<u8>)> {
        let mut lines = Lines::new(Pieces(text, piece));
        let mut out = Vec::new();
        while let Some(line) = lines.next().expect("memory") {
            out.push((line.number, line.byte, line.text.to_vec()));
        }
        out
    }

    #[test]
    fn lines_end_at_lf_and_lose_one_cr() {
        let text = b"a\r\n\nb\0\xff\rc\r\r\nlast";
        let expected = [(1, 0, &b"a"[..]), (2, 3, b""), (3, 4, b"b\0\xff\rc\r"), (4, 12, b"last")];
        assert_eq!(split(text, 3), expected.map(|(number, byte, text)| (number, byte, text.to_vec())));
        assert_eq!(split(b"", 3), []);
        assert_eq!(split(b"\n", 3).len(), 1);
    }

    #[test]
    fn a_line_of_ten_megabytes_is_whole_and_the_buffer_shrinks_after_it() {
        let long = vec![b'x'; 10 << 20];
        let text = [&long[..], b"\n", &b"short line\n".repeat(100_000)].concat();
        let mut lines = Lines::new(&text[..]);
        assert_eq!(lines.next().expect("memory").expect("a line").text.len(), 10 << 20);
        while lines.next().expect("memory").is_some() {}
        assert!(lines.buffer.capacity() <= CHUNK, "{}", lines.buffer.capacity());
        assert_eq!(lines.count(), 100_001);
    }

    #[test]
    fn of_an_endless_line_the_beginning_counts_and_what_follows_keeps_its_place() {
        let text = [&vec![b'x'; LONGEST + 3 * CHUNK + 17][..], b"\nnext\n"].concat();
        let lines = split(&text, 100_000);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].2.len(), lines[1].0, lines[1].2.as_slice()), (LONGEST, 2, &b"next"[..]));
        assert_eq!(lines[1].1, text.len() as u64 - 5);
        let unended = split(&vec![b'x'; LONGEST + CHUNK + 5], 100_000);
        assert_eq!(unended.len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_in_any_pieces_is_split_as_at_once(text in prop::collection::vec(prop::sample::select(&b"ab\r\n\0"[..]), 0..300), piece in 1usize..40) {
            let mut expected: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            let lines = split(&text, piece);
            prop_assert_eq!(lines.len(), expected.len());
            for (n, ((number, byte, line), expected)) in lines.into_iter().zip(expected).enumerate() {
                prop_assert_eq!(number, n as u64 + 1);
                prop_assert_eq!(&line[..], expected.strip_suffix(b"\r").unwrap_or(expected));
                prop_assert!(text[byte as usize..].starts_with(&line));
            }
        }
    }
}
