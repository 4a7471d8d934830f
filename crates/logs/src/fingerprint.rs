//! What makes two errors the same one: the service, the types raised first and last, the function that raised the
//! root cause, and the texts without what varies from one time to the next.
//!
//! Sentry groups by the frames of the whole stack and looks at the text only where there is none: so two errors of one
//! function are one, and one error on two ways is two. Drain learns templates from the lines it has seen: so the answer
//! depends on what was read before, and on the order. Here nothing is learned and nothing depends on order, because
//! objects are read concurrently and again after a fault. As in Drain, a word with a digit is a variable.

use crate::trace::Analysis;
use regex::{Captures, Regex};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Texts are compared this far.
const LONGEST: usize = 600;

/// 16 hex digits, the same for the same error of the service, in whatever object, order or process it is met.
pub fn fingerprint(
    service: &str,
    logger: Option<&str>,
    message: &str,
    exception: Option<&str>,
    analysis: &Analysis,
) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    part(service);
    part(exception.unwrap_or_default());
    part(analysis.causes.last().map_or("", String::as_str));
    match &analysis.place {
        Some(place) => part(place),
        None => part(&template(logger.unwrap_or_default())),
    }
    // The exception's text often is the message, or its end: once is enough, and then one logger is like another.
    let message = template(message);
    let text = template(analysis.text.as_deref().unwrap_or_default());
    part(&message);
    part(if message.ends_with(text.as_str()) { "" } else { &text });
    part(&template(analysis.root_text.as_deref().unwrap_or_default()));
    hex::encode(&hash.finalize()[..8])
}

/// Codes that say what happened, as a word does: the one number that tells an error from another.
static CODE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(HTTP(?:/[0-9.]+)?|status(?: code)?|(?:exit|error|response|return|result) (?:code|status)|errno|SQLSTATE|signal)([ :=]{1,2})([0-9][0-9A-Z]{0,4})\b",
    )
});

/// Whether a number of the text is looked at.
pub fn has_code(text: &str) -> bool {
    CODE.is_match(text)
}

/// A pattern of this file; each is compiled by its test.
fn pattern(source: &'static str) -> Regex {
    Regex::new(source).unwrap_or_else(|error| unreachable!("{error}"))
}

/// The text with each variable part as `*`.
pub fn template(text: &str) -> String {
    static URL: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r#"\b([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/@"'<>]*@)?([^\s/?#:"'<>)\],;]*)[^\s"'<>)\],;]*"#)
    });
    static EMAIL: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"));
    static UUID: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"));
    static QUOTED: LazyLock<Regex> =
        LazyLock::new(|| pattern(r#"(^|[^\w\\])(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|`([^`]*)`)"#));
    static ENDPOINT: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"\b(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[^\s?#]*)(?:[?#]\S*)?"));
    static PATH: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r#"(^|[\s=:(,\["'<])(?:(?:~|\.{1,2})?(?:/[\w.@%+~-]+){2,}/?|/[\w.@%+~-]+\.\w+|[A-Za-z]:\\[^\s"'<>|:,;]*|\\\\[^\s"'<>|:,;]+)"#,
        )
    });
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?i)\b((?:user|user_?name|login|account|customer|tenant|client|owner|host|host_?name|pod|node|container|instance|device|session|transaction|file|file_?name|path|bucket|topic|queue|key|name|\w*_?id|ip|address|email|phone)=)[^\s,;)\]}]+",
        )
    });
    static IPV6: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"\[[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F.]*\](?::[0-9]+)?"));
    static MEASURE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"\* (?:[nuµm]?s|secs?|seconds?|milliseconds?|millis|min|mins|minutes?|h|hours?|days?|[kKMGT]?i?B|bytes?)(?-u:\b)",
        )
    });
    static LIST: LazyLock<Regex> = LazyLock::new(|| pattern(r"\*(?:\s*[,;:/x×-]?\s*\*)+"));
    let text = CODE.replace_all(text, |code: &Captures| format!("{}{}{}", &code[1], &code[2], wide(&code[3])));
    let text = &text[..text.floor_char_boundary(4 * LONGEST)];
    let text = URL.replace_all(text, |url: &Captures| format!("{}{}/*", &url[1], words(&url[2])));
    let text = EMAIL.replace_all(&text, "*");
    let text = IPV6.replace_all(&text, "*");
    let text = UUID.replace_all(&text, "*");
    let whole = text.trim().to_owned();
    let is_json = whole.starts_with('{') && whole.ends_with('}');
    let unquoted = text;
    let text = QUOTED.replace_all(&unquoted, |quoted: &Captures| {
        let end = quoted.get(0).map_or(0, |all| all.end());
        let is_name = is_json && unquoted[end..].trim_start().starts_with(':');
        let inner = quoted.get(2).or(quoted.get(3)).or(quoted.get(4)).map_or("", |inner| inner.as_str());
        // A name in quotes that is the whole text is what tells one error from another: `KeyError: 'amount'`.
        let is_all = whole.len() == quoted[0].len() - quoted[1].len();
        let is_variable = inner.bytes().any(|byte| byte.is_ascii_digit()) || !is_all && !is_name && !is_prose(inner);
        let inner = if is_variable { "*" } else { inner };
        format!("{}'{inner}'", &quoted[1])
    });
    let text = ENDPOINT.replace_all(&text, |endpoint: &Captures| {
        format!("{} {}", &endpoint[1], words(&endpoint[2].replace('/', " / ")))
    });
    let text = PATH.replace_all(&text, "$1*");
    let text = NAMED.replace_all(&text, "$1*");
    let text = words(&text);
    // `30.5s` is as much of a number as `200 ms`.
    let text = MEASURE.replace_all(&text, "*");
    let text = LIST.replace_all(&text, "*");
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}

/// With digits that are not taken for a variable.
fn wide(code: &str) -> String {
    code.chars()
        .map(|c| c.to_digit(10).and_then(|digit| char::from_u32('\u{ff10}' as u32 + digit)).unwrap_or(c))
        .collect()
}

/// Words that say something, and no name: several, of which one after the first is in small letters.
fn is_prose(text: &str) -> bool {
    text.split_whitespace().skip(1).any(|word| word.starts_with(|c: char| c.is_lowercase()))
}

/// Words with a digit become `*`, and white space becomes one space.
fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        if !word.is_empty() {
            out.push_str(&variable(word));
            word.clear();
        }
    };
    for c in text.chars() {
        if c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@' | '#' | '%' | '+' | '$' | '*') {
            word.push(c);
            continue;
        }
        flush(&mut word, &mut out);
        if c.is_whitespace() || c.is_control() {
            if !out.ends_with(' ') && !out.is_empty() {
                out.push(' ');
            }
        } else {
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    out.trim_end().to_owned()
}

fn variable(word: &str) -> Cow<'_, str> {
    // Punctuation at the end belongs to the sentence.
    let body = word.trim_end_matches(['.', ':', '-', '#']);
    let end = &word[body.len()..];
    // `com.acme.Order@1a2b3c`: the object's address.
    if let Some((name, address)) = body.split_once('@')
        && name.contains('.')
        && address.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Cow::Owned(format!("{name}@*{end}"));
    }
    let is_date_word = || {
        const WORDS: &str = " Mon Tue Wed Thu Fri Sat Sun Jan Feb Mar Apr Jun Jul Aug Sep Oct Nov Dec ";
        body.len() == 3 && WORDS.contains(&format!(" {body} "))
    };
    let has_digit = body.bytes().any(|byte| byte.is_ascii_digit());
    let is_hex = || body.len() >= 8 && body.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !has_digit {
        return if is_hex() || is_date_word() { Cow::Owned(format!("*{end}")) } else { Cow::Borrowed(word) };
    }
    // `order-1234`, `status:500`: a name and a number.
    let name_end = body.find(|c: char| !c.is_alphabetic()).unwrap_or(body.len());
    let (name, rest) = body.split_at(name_end);
    let number = rest.trim_start_matches(['-', '_', ':', '#', '.']);
    let is_named = name.len() >= 3 && number.len() < rest.len() && number.bytes().all(|byte| byte.is_ascii_digit());
    if is_named { Cow::Owned(format!("{name}{}*{end}", &rest[..1])) } else { Cow::Owned(format!("*{end}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_left_out_of_a_text() {
        for (text, expected) in [
            ("Order 1234 failed after 30.5s", "Order * failed after *"),
            ("Order order-1234 of 8f14e45f-ceea-467f-a5d5-1b2c3d4e5f60", "Order order-* of *"),
            ("GET https://shop.example.com/v1/items/17?x=1 failed", "GET https://shop.example.com/* failed"),
            ("POST /api/orders/17/lines failed", "POST / api / orders / * / lines failed"),
            ("cannot open /var/lib/app/17/data.bin: No such file", "cannot open *: No such file"),
            ("cannot open C:\\temp\\a.txt.", "cannot open *"),
            ("user 'Jane Doe' unknown", "user '*' unknown"),
            ("failed: 'connection refused'", "failed: 'connection refused'"),
            ("'amount'", "'amount'"),
            (r#"{"code":5,"user":"jane"}"#, "{'code'*,'user':'*'}"),
            (r#"code "a": 5"#, "code '*': *"),
            ("at com.acme.Order@1a2b3c", "at com.acme.Order@*"),
            ("to jane@example.com from 10.0.0.1:8080", "to * from *"),
            ("pointer 0x00007ffc deadbeef", "pointer *"),
            ("on Mon Jul 01 10:00:00 UTC 2024", "on * UTC *"),
            ("ids [1, 2, 3] and [4]", "ids [*] and [*]"),
            ("user=alice state=closed", "user=* state=closed"),
            ("took 30.5s", "took *"),
            ("took 200 ms, 3 seconds more", "took * more"),
            ("used 12MB of 512 MB", "used * of *"),
            ("got 3 messages", "got * messages"),
            ("to [2001:db8::1]:8080 and 10.0.0.1:8080", "to * and *"),
            ("HTTP 404 from orders, HTTP/1.1 500", "HTTP ４０４ from orders, HTTP/* ５００"),
            ("exit code 137, [Errno 13], status=502", "exit code １３７, [Errno １３], status=５０２"),
            ("SQLSTATE: 42P01", "SQLSTATE: ４２P０１"),
            ("status 1714557600 of code 17", "status * of code *"),
            ("can't  reach\thost's\nport", "can't reach host's port"),
        ] {
            assert_eq!(template(text), expected, "{text}");
        }
    }
}
