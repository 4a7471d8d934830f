//! Hides secrets in what people are shown. The Parquet rows stay as they were written.

use crate::settings::Mask;
use regex::Captures;
use std::borrow::Cow;

const HIDDEN: &str = "***";

/// The text with each secret as `***`.
fn mask<'a>(text: &'a str, masks: &[Mask]) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for mask in masks {
        if !mask.pattern.is_match(&text) {
            continue;
        }
        let hidden = mask.pattern.replace_all(&text, |found: &Captures| {
            let whole = &found[0];
            if mask.luhn && !is_luhn(whole) {
                return whole.to_owned();
            }
            match (found.name("secret"), found.get(0)) {
                (Some(secret), Some(all)) => {
                    let (before, behind) =
                        (&whole[..secret.start() - all.start()], &whole[secret.end() - all.start()..]);
                    format!("{before}{HIDDEN}{behind}")
                }
                _ => HIDDEN.to_owned(),
            }
        });
        text = Cow::Owned(hidden.into_owned());
    }
    text
}

/// The longest secret that is looked for beyond a cut, in bytes.
const LONGEST_SECRET: usize = 64 << 10;

/// The beginning of a text as people may see it: without secrets, and of so many bytes at most. It is cut last, because
/// half a secret does not look like one.
pub fn excerpt(text: &str, bytes: usize, masks: &[Mask]) -> String {
    let mut shown = mask(&text[..text.floor_char_boundary(bytes + LONGEST_SECRET)], masks).into_owned();
    shown.truncate(shown.floor_char_boundary(bytes));
    shown
}

/// The check digit of card numbers.
fn is_luhn(text: &str) -> bool {
    let digits = text.chars().rev().filter_map(|c| c.to_digit(10));
    let sum: u32 =
        digits.enumerate().map(|(at, digit)| if at % 2 == 1 { digit * 2 / 10 + digit * 2 % 10 } else { digit }).sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn hide(text: &str) -> String {
        mask(text, &Settings::built_in().masks).into_owned()
    }

    #[test]
    fn secrets_are_hidden_and_what_surrounds_them_stays() {
        for (text, expected) in [
            ("Authorization: Bearer abc.def-123456", "Authorization: Bearer ***"),
            ("postgres://app:s3cret@db/orders refused", "postgres://app:***@db/orders refused"),
            ("login failed password=hunter2 user=jane", "login failed password=*** user=jane"),
            (r#"{"password":"hunter 2","user":"jane"}"#, r#"{"password":***,"user":"jane"}"#),
            ("api_key: 'a b c', next", "api_key: ***, next"),
            ("card 4111 1111 1111 1111 declined", "card *** declined"),
            ("card 4111111111111111 declined", "card *** declined"),
            ("order 4111111111111112 declined", "order 4111111111111112 declined"),
            ("key AKIAIOSFODNN7EXAMPLE denied", "key *** denied"),
            ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_def", "token ***"),
            ("postgres://app:p@ss@db/orders refused", "postgres://app:***@db/orders refused"),
            (
                r#"body="{\"password\":\"hunter2\",\"user\":\"jane\"}""#,
                r#"body="{\"password\":***,\"user\":\"jane\"}""#,
            ),
            (r#"{\\"token\\": \\"a b\\"}"#, r#"{\\"token\\": ***}"#),
            ("Cookie: sid=abc; theme=x; auth=def", "Cookie: ***"),
            ("<ns:Password type='text'>hunter2</ns:Password>", "<ns:Password type='text'>***</ns:Password>"),
            ("mysqldump --password hunter2 orders", "mysqldump --password *** orders"),
            ("GET /a?X-Amz-Signature=abc123&x=1", "GET /a?X-Amz-Signature=***&x=1"),
            ("nothing to hide in order 17", "nothing to hide in order 17"),
        ] {
            assert_eq!(hide(text), expected, "{text}");
        }
    }

    #[test]
    fn no_half_of_a_secret_is_left_in_front_of_a_cut() {
        let text = "postgres://app:s3cret@db token='s3 cret' card 4111 1111 1111 1111";
        for bytes in 0..=text.len() {
            let shown = excerpt(text, bytes, &Settings::built_in().masks);
            assert!(!["s3", "4111"].iter().any(|secret| shown.contains(secret)), "{bytes}: {shown}");
            assert!(shown.len() <= bytes && hide(text).starts_with(&shown), "{bytes}: {shown}");
        }
        assert_eq!(excerpt("größe", 4, &[]), "gr\u{f6}");
    }

    #[test]
    fn a_configured_mask_works_beside_those_built_in() {
        let settings = Settings::parse("[[mask]]\nname = 'customer'\npattern = 'C-\\d+'\n").expect("a file");
        assert_eq!(mask("C-17 password=x", &settings.masks), "*** password=***");
    }
}
