//! Text in UTF-16 as UTF-8. Programs on Windows write logs so, and say it with a byte order mark.

use bytes::Bytes;
use encoding_rs::{CoderResult, UTF_16BE, UTF_16LE};

/// Looks at the first two bytes of a text, and decodes what follows them if they are a byte order mark of UTF-16.
pub enum Decoder {
    /// Nothing has come, or one byte that may be half of a mark.
    Unknown(Option<u8>),
    /// Any other text, which stays as it is.
    Plain,
    Utf16(Box<encoding_rs::Decoder>),
}

impl Decoder {
    pub fn decode(&mut self, bytes: Bytes) -> Bytes {
        match self {
            Decoder::Plain => bytes,
            Decoder::Utf16(decoder) => utf8(decoder, &bytes, false),
            Decoder::Unknown(first) => {
                let bytes = match first.take() {
                    Some(first) => [&[first], &bytes[..]].concat().into(),
                    None => bytes,
                };
                let encoding = match &bytes[..] {
                    [] => return bytes,
                    [first @ (0xfe | 0xff)] => {
                        *self = Decoder::Unknown(Some(*first));
                        return Bytes::new();
                    }
                    [0xfe, 0xff, ..] => UTF_16BE,
                    [0xff, 0xfe, ..] => UTF_16LE,
                    _ => {
                        *self = Decoder::Plain;
                        return bytes;
                    }
                };
                let mut decoder = Box::new(encoding.new_decoder_without_bom_handling());
                let text = utf8(&mut decoder, &bytes[2..], false);
                *self = Decoder::Utf16(decoder);
                text
            }
        }
    }

    /// What is left when the text has ended: half of a character, as U+FFFD.
    pub fn end(&mut self) -> Bytes {
        match std::mem::replace(self, Decoder::Plain) {
            Decoder::Unknown(first) => Bytes::from_iter(first),
            Decoder::Plain => Bytes::new(),
            Decoder::Utf16(mut decoder) => utf8(&mut decoder, &[], true),
        }
    }
}

fn utf8(decoder: &mut encoding_rs::Decoder, bytes: &[u8], is_last: bool) -> Bytes {
    // None is more than any memory holds.
    let mut text = String::with_capacity(decoder.max_utf8_buffer_length(bytes.len()).unwrap_or_default());
    let (result, ..) = decoder.decode_to_string(bytes, &mut text, is_last);
    debug_assert_eq!(result, CoderResult::InputEmpty, "there is room for all of it");
    text.into()
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
