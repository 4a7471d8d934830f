//! A record is a JSON object after RFC 8259 in UTF-8: whatever its numbers, escapes, duplicate names and depth. It is
//! looked at and never rebuilt. The check keeps one bit an open bracket, so that no depth can exhaust the stack.

use base64::{display::Base64Display, prelude::BASE64_STANDARD};
use serde::{Serialize, Serializer};

/// Why a line is in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    InvalidUtf8,
    InvalidJson,
    NotAnObject,
    /// Longer than a line may be; its beginning is kept.
    TooLong,
    /// The file could not be unpacked from this line on.
    DamagedGzip(&'static str),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::InvalidUtf8 => f.write_str("invalid_utf8"),
            Reason::InvalidJson => f.write_str("invalid_json"),
            Reason::NotAnObject => f.write_str("not_an_object"),
            Reason::TooLong => f.write_str("too_long"),
            Reason::DamagedGzip(what) => write!(f, "damaged_gzip: {what}"),
        }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Record,
    /// White space only.
    Blank,
    Bad(Reason),
}

pub fn classify(line: &[u8]) -> Kind {
    match check(line) {
        // JSON in ASCII needs no second look.
        Some(json) if json.is_ascii || std::str::from_utf8(line).is_ok() => {
            let begins_object = line.iter().find(|byte| !is_space(**byte)) == Some(&b'{');
            if begins_object { Kind::Record } else { Kind::Bad(Reason::NotAnObject) }
        }
        Some(_) => Kind::Bad(Reason::InvalidUtf8),
        None => match std::str::from_utf8(line) {
            Err(_) => Kind::Bad(Reason::InvalidUtf8),
            Ok(text) if text.chars().all(char::is_whitespace) => Kind::Blank,
            Ok(_) => Kind::Bad(Reason::InvalidJson),
        },
    }
}

/// A line of a quarantine object, without its line feed.
pub fn quarantine_line(object: &str, number: u64, reason: Reason, source: &[u8]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Quarantined<'a> {
        object: &'a str,
        line: u64,
        #[serde(serialize_with = "displayed")]
        reason: Reason,
        #[serde(serialize_with = "displayed")]
        source_base64: Base64Display<'a, 'static, base64::engine::GeneralPurpose>,
    }
    fn displayed<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }
    let source_base64 = Base64Display::new(source, &BASE64_STANDARD);
    let line = Quarantined { object, line: number, reason, source_base64 };
    serde_json::to_vec(&line).expect("text and numbers are always JSON")
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// One JSON value, if its strings are UTF-8.
struct Json {
    is_ascii: bool,
}

/// `None` when the text is not one JSON value. Whether its strings are UTF-8 is not looked at.
fn check(text: &[u8]) -> Option<Json> {
    let mut cursor = Cursor { text, at: 0, seen: 0 };
    let mut open = Brackets::default();
    cursor.spaces();
    loop {
        // A value begins here.
        match cursor.next()? {
            b'{' => {
                cursor.spaces();
                if !cursor.take(b'}') {
                    open.push(Bracket::Object);
                    cursor.name()?;
                    continue;
                }
            }
            b'[' => {
                cursor.spaces();
                if !cursor.take(b']') {
                    open.push(Bracket::Array);
                    continue;
                }
            }
            b'"' => cursor.string()?,
            b't' => cursor.literal(b"rue")?,
            b'f' => cursor.literal(b"alse")?,
            b'n' => cursor.literal(b"ull")?,
            first @ (b'-' | b'0'..=b'9') => cursor.number(first)?,
            _ => return None,
        }
        // A value has ended.
        loop {
            cursor.spaces();
            let Some(bracket) = open.last() else {
                let is_ascii = cursor.seen & HIGHS == 0;
                return (cursor.at == text.len()).then_some(Json { is_ascii });
            };
            match (cursor.next()?, bracket) {
                (b',', Bracket::Object) => {
                    cursor.spaces();
                    cursor.name()?;
                    break;
                }
                (b',', Bracket::Array) => {
                    cursor.spaces();
                    break;
                }
                (b'}', Bracket::Object) | (b']', Bracket::Array) => open.pop(),
                _ => return None,
            }
        }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    /// The bits of all bytes of strings, eight bytes beside each other; outside of strings JSON is ASCII.
    seen: u64,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Option<()> {
        let is_next = self.text[self.at..].starts_with(rest);
        self.at += rest.len();
        is_next.then_some(())
    }

    /// A member's name and what follows it, up to its value.
    fn name(&mut self) -> Option<()> {
        (self.next()? == b'"').then_some(())?;
        self.string()?;
        self.spaces();
        (self.next()? == b':').then_some(())?;
        self.spaces();
        Some(())
    }

    /// The rest of a string, behind its first quotation mark.
    fn string(&mut self) -> Option<()> {
        loop {
            self.plain();
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.text.get(self.at..self.at + 4)?;
                        digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                        self.at += 4;
                    }
                    _ => return None,
                },
                byte if byte < 0x20 => return None,
                byte => self.seen |= u64::from(byte),
            }
        }
    }

    /// Skips what stands for itself in a string, eight bytes at a time.
    fn plain(&mut self) {
        // The high bit of each byte that is below `limit`; exact for the first such byte.
        let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
        let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        while let Some(eight) = self.text[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            self.seen |= word;
            let found = below(word, 0x20) | is(word, b'"') | is(word, b'\\');
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
    }

    /// The rest of a number, behind its first character.
    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.take(b'.') {
            self.next()?.is_ascii_digit().then_some(())?;
            self.digits();
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.next()?.is_ascii_digit().then_some(())?;
            self.digits();
        }
        Some(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Bracket {
    Object,
    Array,
}

/// The brackets that are open, a bit each: 1 is an array.
#[derive(Default)]
struct Brackets {
    depth: usize,
    /// The innermost up to 64 of them, the last in the lowest bit.
    inner: u64,
    /// Those further out, 64 at a time. Most records need none, and so no memory.
    outer: Vec<u64>,
}

impl Brackets {
    fn push(&mut self, bracket: Bracket) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.inner);
        }
        self.inner = self.inner << 1 | u64::from(bracket == Bracket::Array);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.inner >>= 1;
        if self.depth.is_multiple_of(64) {
            self.inner = self.outer.pop().unwrap_or_default();
        }
    }

    fn last(&self) -> Option<Bracket> {
        let is_array = self.inner & 1 == 1;
        (self.depth > 0).then_some(if is_array { Bracket::Array } else { Bracket::Object })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json, value::RawValue};

    #[test]
    fn a_record_is_an_object_whatever_its_numbers_escapes_names_and_depth() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        for line in [
            "{}",
            " \t\r{ } \r",
            r#"{"a":1,"a":2}"#,
            r#"{"":-0.0e+10,"b":1E400,"c":123456789012345678901234567890.5}"#,
            r#"{"a":"\ud800\u0000\/\b\f\n\r\t\"\\"}"#,
            "{\"a\":\"\u{7f}\u{2028}é\"}",
            r#"{"a":[true,false,null,{"b":[[],{}]}]}"#,
            &deep,
        ] {
            assert_eq!(classify(line.as_bytes()), Kind::Record, "{}", &line[..line.len().min(80)]);
        }
    }

    #[test]
    fn all_else_is_bad_and_says_why() {
        let invalid = [
            "{",
            "}",
            "{}{}",
            "{} x",
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{a:1}"#,
            r#"{'a':1}"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e}"#,
            r#"{"a":+1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            r#"{"a":"\u12"}"#,
            "{\"a\":\"\t\"}",
            "{\"a\":\"1234567\u{1f}\"}",
            "{\"a\0\":1}",
            r#"{"a":[1,]}"#,
            r#"{"a":[1}]"#,
            r#"{"a":"b"#,
            "\u{feff}{}",
            "{}\u{a0}",
            "{},",
            "// {}",
            &"[".repeat(1_000_000),
        ];
        for line in invalid {
            let shown = &line[..line.len().min(80)];
            assert_eq!(classify(line.as_bytes()), Kind::Bad(Reason::InvalidJson), "{shown}");
        }
        for line in ["[]", "1", "\"a\"", "null", " [{}] "] {
            assert_eq!(classify(line.as_bytes()), Kind::Bad(Reason::NotAnObject), "{line}");
        }
        for line in [
            &b"{\"a\":\"\xff\"}"[..],
            b"{\"a\":\"\xff and more than eight bytes\"}",
            b"{\"more than eight bytes and \xff\":1}",
            b"{\"a\":\"\xed\xa0\x80\"}",
            b"{\"a\":\"\xc0\x80\"}",
            b"[\"\xff\"]",
            b"{\"a\":1} \xff",
            b"\xff",
        ] {
            assert_eq!(classify(line), Kind::Bad(Reason::InvalidUtf8), "{line:?}");
        }
        for line in ["", " ", "\t\r \u{b}\u{c}", "\u{a0}\u{2003}"] {
            assert_eq!(classify(line.as_bytes()), Kind::Blank, "{line:?}");
        }
    }

    #[test]
    fn brackets_of_both_kinds_match_at_any_depth() {
        for depth in [1, 62, 63, 64, 65, 127, 128, 129, 200] {
            let is_array: Vec<bool> = (0..depth).map(|at| at * at % 7 < 3).collect();
            let open: String = is_array.iter().map(|is_array| if *is_array { "[" } else { "{\"a\":" }).collect();
            let line = |wrong: Option<usize>| {
                let close = is_array.iter().enumerate().rev();
                let close = close.map(|(at, is_array)| if *is_array == (wrong == Some(at)) { '}' } else { ']' });
                format!("{{\"r\":{open}0{}}}", close.collect::<String>())
            };
            assert_eq!(classify(line(None).as_bytes()), Kind::Record, "{depth}");
            for wrong in 0..depth {
                let line = line(Some(wrong));
                assert_eq!(classify(line.as_bytes()), Kind::Bad(Reason::InvalidJson), "{wrong} of {depth}");
            }
        }
    }

    #[test]
    fn a_quarantine_line_holds_the_bytes_as_they_were() {
        let line = quarantine_line("a\"b/ü", 7, Reason::DamagedGzip("cut"), b"\xff{\n");
        let expected = json!({"object": "a\"b/ü", "line": 7, "reason": "damaged_gzip: cut", "source_base64": "/3sK"});
        assert_eq!(serde_json::from_slice::<Value>(&line).expect("JSON"), expected);
    }

    /// JSON texts, often with one byte more, less or other.
    fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
            r#""([a-zé~ ]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}){0,20}""#,
        ];
        let value = leaf.prop_recursive(6, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(" ,"))),
                proptest::collection::vec(("[a-z\"]{0,12}", inner), 0..5).prop_map(|members| {
                    let members: Vec<_> =
                        members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
                    format!("{{{}}}", members.join(",\t"))
                }),
            ]
        });
        let damage = proptest::option::of((any::<proptest::sample::Index>(), 0usize..3, any::<u8>()));
        (value, damage).prop_map(|(text, damage)| {
            let mut bytes = text.into_bytes();
            if let Some((at, kind, byte)) = damage {
                let at = at.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Another parser, which takes every valid text of little depth, is of the same opinion.
        #[test]
        fn serde_json_agrees(line in nearly_json()) {
            let is_valid = serde_json::from_slice::<&RawValue>(&line).is_ok();
            let expected = match std::str::from_utf8(&line) {
                Err(_) => Kind::Bad(Reason::InvalidUtf8),
                Ok(text) if text.trim().is_empty() => Kind::Blank,
                Ok(text) if is_valid && text.trim_start().starts_with('{') => Kind::Record,
                Ok(_) if is_valid => Kind::Bad(Reason::NotAnObject),
                Ok(_) => Kind::Bad(Reason::InvalidJson),
            };
            prop_assert_eq!(classify(&line), expected, "{}", String::from_utf8_lossy(&line));
        }
    }
}
