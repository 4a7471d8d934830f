//! Text in UTF-16 as UTF-8. Programs on Windows write logs so, and say it with a byte order mark.

use bytes::Bytes;

/// Looks at the first two bytes of a text, and decodes what follows them if they are a byte order mark of UTF-16.
pub enum Decoder {
    /// Nothing has come, or one byte that may be half of a mark.
    Unknown(Option<u8>),
    /// Any other text, which stays as it is.
    Plain,
    Utf16(Utf16),
}

pub struct Utf16 {
    is_big_endian: bool,
    /// The first byte of a unit whose second has not come.
    half: Option<u8>,
    /// The first unit of a pair whose second has not come.
    high: Option<u16>,
}

impl Decoder {
    pub fn decode(&mut self, bytes: Bytes) -> Bytes {
        match self {
            Decoder::Plain => bytes,
            Decoder::Utf16(utf16) => utf16.decode(&bytes),
            Decoder::Unknown(first) => {
                let bytes = match first.take() {
                    Some(first) => [&[first], &bytes[..]].concat().into(),
                    None => bytes,
                };
                let is_big_endian = match &bytes[..] {
                    [] => return bytes,
                    [first @ (0xfe | 0xff)] => {
                        *self = Decoder::Unknown(Some(*first));
                        return Bytes::new();
                    }
                    [0xfe, 0xff, ..] => true,
                    [0xff, 0xfe, ..] => false,
                    _ => {
                        *self = Decoder::Plain;
                        return bytes;
                    }
                };
                let mut utf16 = Utf16 { is_big_endian, half: None, high: None };
                let text = utf16.decode(&bytes[2..]);
                *self = Decoder::Utf16(utf16);
                text
            }
        }
    }

    /// What is left when the text has ended: half of a character, as U+FFFD.
    pub fn end(&mut self) -> Bytes {
        match std::mem::replace(self, Decoder::Plain) {
            Decoder::Unknown(first) => Bytes::from_iter(first),
            Decoder::Utf16(Utf16 { half, high, .. }) if half.is_some() || high.is_some() => "\u{fffd}".into(),
            Decoder::Plain | Decoder::Utf16(_) => Bytes::new(),
        }
    }
}

impl Utf16 {
    fn decode(&mut self, bytes: &[u8]) -> Bytes {
        let half = self.half.take();
        let mut units = Vec::with_capacity(bytes.len() / 2 + 2);
        units.extend(self.high.take());
        let (first, rest) = match (half, bytes.split_first()) {
            (Some(half), Some((second, rest))) => (Some([half, *second]), rest),
            (half, _) => {
                self.half = half;
                (None, bytes)
            }
        };
        let (pairs, odd) = rest.as_chunks::<2>();
        let unit =
            |pair: &[u8; 2]| if self.is_big_endian { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
        units.extend(first.iter().chain(pairs).map(unit));
        self.half = self.half.or(odd.first().copied());
        let is_high = |unit: &&u16| matches!(**unit, 0xd800..=0xdbff);
        self.high = units.last().filter(is_high).copied();
        if self.high.is_some() {
            units.pop();
        }
        let text: String = char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "eins\r\nzw\u{f6}lf\n\u{1f980}\u{10ffff}\n";

    fn encoded(is_big_endian: bool) -> Vec<u8> {
        let bytes = |unit: u16| if is_big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() };
        "\u{feff}".encode_utf16().chain(TEXT.encode_utf16()).flat_map(bytes).collect()
    }

    fn decoded(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut decoder = Decoder::Unknown(None);
        let mut text: Vec<u8> =
            bytes.chunks(piece).flat_map(|piece| decoder.decode(Bytes::copy_from_slice(piece))).collect();
        text.extend(decoder.end());
        text
    }

    #[test]
    fn utf_16_becomes_utf_8_wherever_its_pieces_end() {
        for piece in 1..40 {
            for is_big_endian in [true, false] {
                assert_eq!(decoded(&encoded(is_big_endian), piece), TEXT.as_bytes(), "{piece} {is_big_endian}");
            }
        }
    }

    #[test]
    fn what_has_no_mark_of_utf_16_stays_as_it_is() {
        for text in [&b""[..], b"\xff", b"\xfe", b"\xfeabc", b"\xff\xff", b"a\0b\0", "\u{feff}a".as_bytes()] {
            for piece in 1..4 {
                assert_eq!(decoded(text, piece), text);
            }
        }
    }

    #[test]
    fn half_of_a_character_is_told() {
        for (bytes, text) in [
            (&b"\xff\xfea\0b"[..], "a\u{fffd}"),
            (b"\xff\xfe\x3e\xd8", "\u{fffd}"),
            (b"\xff\xfe\x3e\xd8a\0", "\u{fffd}a"),
            (b"\xff\xfe\x80\xdd\n\0", "\u{fffd}\n"),
        ] {
            for piece in 1..4 {
                assert_eq!(String::from_utf8_lossy(&decoded(bytes, piece)), text, "{piece}");
            }
        }
    }
}
