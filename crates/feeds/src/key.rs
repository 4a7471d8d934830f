//! Keys of feed files: `<content type>/<partner>/.../<name>`, with a date in one of the usual spellings.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Below this prefix the quarantine lies, so no content type may have its name.
pub const QUARANTINE: &str = "quarantine";
/// An output's key must stay below the 1,024 bytes of S3, in bytes.
const CONTENT_TYPE_BYTES: usize = 900;

/// What a feed file's key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedKey<'a> {
    pub content_type: &'a str,
    pub partner: &'a str,
    /// The date that the path names, if it names one.
    pub date: Option<Date>,
}

/// Where the date of a file's records comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DateSource {
    Path,
    Event,
}

impl fmt::Display for DateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DateSource::Path => "path",
            DateSource::Event => "event",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("key {0:?} is not <content type>/<partner>/<name>")]
    Incomplete(String),
    #[error("content type {0:?} is reserved")]
    Reserved(String),
    #[error("a content type has at most {CONTENT_TYPE_BYTES} bytes, this one has {0}")]
    TooLong(usize),
}

impl<'a> FeedKey<'a> {
    pub fn parse(key: &'a str) -> Result<Self, KeyError> {
        let mut parts = key.split('/');
        let (Some(content_type), Some(partner), Some(_)) = (parts.next(), parts.next(), parts.clone().next()) else {
            return Err(KeyError::Incomplete(key.to_owned()));
        };
        if content_type.is_empty() || partner.is_empty() {
            return Err(KeyError::Incomplete(key.to_owned()));
        }
        if content_type == QUARANTINE {
            return Err(KeyError::Reserved(content_type.to_owned()));
        }
        if content_type.len() > CONTENT_TYPE_BYTES {
            return Err(KeyError::TooLong(content_type.len()));
        }
        let parts: Vec<&str> = parts.collect();
        let date = parts.windows(3).find_map(|parts| date(parts[0], parts[1], parts[2]));
        Ok(FeedKey { content_type, partner, date })
    }
}

/// `2026/11/21`, `2026/1/5` or `year=2026/month=11/day=21`.
fn date(year: &str, month: &str, day: &str) -> Option<Date> {
    let named = year.strip_prefix("year=").zip(month.strip_prefix("month=")).zip(day.strip_prefix("day="));
    let (year, month, day) = named.map_or((year, month, day), |((year, month), day)| (year, month, day));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_spelled = year.len() == 4 && [month, day].iter().all(|part| (1..=2).contains(&part.len()));
    if !is_spelled || ![year, month, day].into_iter().all(is_number) {
        return None;
    }
    let year: i16 = year.parse().ok().filter(|year| *year > 0)?;
    Date::new(year, month.parse().ok()?, day.parse().ok()?).ok()
}

/// `year=2026/month=11/day=21`.
pub fn date_path(date: Date) -> String {
    format!("year={:04}/month={:02}/day={:02}", date.year(), date.month(), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date_of(rest: &str) -> Option<String> {
        FeedKey::parse(&format!("offers/acme/{rest}")).expect("a feed key").date.map(|date| date.to_string())
    }

    #[test]
    fn the_first_two_components_are_content_type_and_partner() {
        let key = FeedKey::parse("offers eu/a+b%c/ü.jsonl").expect("a feed key");
        assert_eq!((key.content_type, key.partner, key.date), ("offers eu", "a+b%c", None));
        assert!(FeedKey::parse("offers/acme/").is_ok());
        assert!(FeedKey::parse("offers/acme//2026/11/21/x").is_ok_and(|key| key.date.is_some()));
        for key in ["", "x", "offers/acme", "/acme/x", "offers//x", "//", "/"] {
            assert_eq!(FeedKey::parse(key), Err(KeyError::Incomplete(key.to_owned())), "{key}");
        }
        assert_eq!(FeedKey::parse("quarantine/a/x"), Err(KeyError::Reserved("quarantine".into())));
        let long = "x".repeat(1_000);
        assert_eq!(FeedKey::parse(&format!("{long}/a/x")), Err(KeyError::TooLong(1_000)));
    }

    #[test]
    fn the_date_is_the_first_of_three_components_in_a_row_that_is_one() {
        for (rest, expected) in [
            ("2026/11/21/x.jsonl", Some("2026-11-21")),
            ("2026/1/5/x.jsonl", Some("2026-01-05")),
            ("year=2026/month=11/day=21/x.jsonl", Some("2026-11-21")),
            ("year=2026/month=1/day=05/x.jsonl", Some("2026-01-05")),
            ("in/2026/11/21/2027/01/02/x", Some("2026-11-21")),
            ("2026/02/30/2026/03/01/x", Some("2026-03-01")),
            ("2026/2026/11/21/x", Some("2026-11-21")),
            ("2024/02/29/x", Some("2024-02-29")),
            ("2026/02/29/x", None),
            ("2026/11/21", Some("2026-11-21")),
            ("2026/11/x.jsonl", None),
            ("2026/111/2/x", None),
            ("26/11/21/x", None),
            ("0000/01/01/x", None),
            ("2026/+1/21/x", None),
            ("٢٠٢٦/١١/٢١/x", None),
            ("year=2026/11/21/x", None),
            ("2026-11-21/x", None),
            ("year=2026/day=21/month=11/x", None),
            ("x.jsonl", None),
        ] {
            assert_eq!(date_of(rest).as_deref(), expected, "{rest}");
        }
        assert_eq!(FeedKey::parse("2026/11/21/x").expect("a feed key").date, None);
        assert_eq!(date_path(Date::constant(926, 1, 5)), "year=0926/month=01/day=05");
    }
}
