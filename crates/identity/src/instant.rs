//! Instants in UTC, to the millisecond, in the two spellings that the product uses.

use jiff::{Timestamp, civil, tz::TimeZone};
use serde_json::value::RawValue;

/// `2024-07-01T00:00:00.000Z`: in JSON, in tables and in reports.
pub fn iso(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// `20240701T000000.000Z`: in ids and keys, because it has no colon and sorts by time.
pub fn compact(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%S.%3fZ").to_string()
}

/// `2024-07-01`, the UTC date.
pub fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).date().to_string()
}

/// Reads what a person or a document writes: an instant with offset, a UTC date and time, a date, or a month.
pub fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let at = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| civil_utc(text.parse::<civil::DateTime>().ok()?))
        .or_else(|| civil_utc(text.parse::<civil::Date>().ok()?.at(0, 0, 0, 0)))
        .or_else(|| civil_utc(format!("{text}-01").parse::<civil::Date>().ok()?.at(0, 0, 0, 0)))?;
    // Cut to the millisecond that it lies in, also before 1970.
    Timestamp::from_millisecond(i64::try_from(at.as_nanosecond().div_euclid(1_000_000)).ok()?).ok()
}

/// Reads the edge of a range: what [`parse`] reads, and the very end of the year 9999, which stands for the last
/// instant there is.
pub fn parse_edge(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let beyond = || {
        let day = text.get(..10)?.parse::<civil::Date>().ok()?;
        (day >= civil::date(9999, 12, 30)).then(last)
    };
    parse(text).or_else(beyond).filter(|at| *at >= first())
}

/// The beginning of the year 0: earlier years cannot be written with four digits, as partitions and ids have them.
pub fn first() -> Timestamp {
    Timestamp::constant(-62_167_219_200, 0)
}

/// Where a range ends at the latest: the last whole second that can be held.
pub fn last() -> Timestamp {
    Timestamp::from_second(Timestamp::MAX.as_second()).unwrap_or(Timestamp::MAX)
}

/// Reads a JSON value as OpenSearch's `strict_date_optional_time||epoch_millis` would; `None` when it is no instant.
/// Whether it is a number or a text makes no difference: four digits are a year, and other digits milliseconds.
pub fn parse_json(value: &RawValue) -> Option<Timestamp> {
    let raw = value.get();
    let is_text = raw.starts_with('"');
    let text = if is_text { serde_json::from_str(raw).ok()? } else { raw.to_owned() };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() == 4 && is_digits(&text) {
        return parse(&format!("{text}-01-01"));
    }
    let (millis, part) = text.split_once('.').unwrap_or((&text, "0"));
    if is_digits(millis.strip_prefix('-').unwrap_or(millis)) && is_digits(part) {
        let is_below = millis.starts_with('-') && part.bytes().any(|digit| digit != b'0');
        return Timestamp::from_millisecond(millis.parse::<i64>().ok()?.checked_sub(i64::from(is_below))?).ok();
    }
    parse(&text).filter(|_| is_text)
}

fn civil_utc(at: civil::DateTime) -> Option<Timestamp> {
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Serde for a `Timestamp` spelled as [`iso`].
pub mod serde_iso {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(at: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&iso(*at))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(input)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not an instant")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_a_civil_time_and_an_instant_mean_utc() {
        for text in
            ["2024-07-01", "2024-07-01T00:00:00", "2024-07-01T00:00:00Z", "2024-07-01T02:00:00+02:00", "2024-07"]
        {
            assert_eq!(iso(parse(text).expect(text)), "2024-07-01T00:00:00.000Z", "{text}");
        }
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn an_instant_in_json_is_read_as_the_index_reads_it() {
        let read = |json: &str| parse_json(&RawValue::from_string(json.to_owned()).expect("JSON")).map(iso);
        for (json, at) in [
            ("1790812800123", "2026-10-01T00:00:00.123Z"),
            ("\"1790812800123\"", "2026-10-01T00:00:00.123Z"),
            ("1790812800123.9", "2026-10-01T00:00:00.123Z"),
            ("\"-1\"", "1969-12-31T23:59:59.999Z"),
            ("-0.5", "1969-12-31T23:59:59.999Z"),
            ("-1.0", "1969-12-31T23:59:59.999Z"),
            ("0", "1970-01-01T00:00:00.000Z"),
            ("12345", "1970-01-01T00:00:12.345Z"),
            ("2024", "2024-01-01T00:00:00.000Z"),
            ("\"2024\"", "2024-01-01T00:00:00.000Z"),
            ("\"20240701\"", "1970-01-01T05:37:20.701Z"),
            ("\"2024-07\"", "2024-07-01T00:00:00.000Z"),
            ("\"2024-02-29T23:59:60Z\"", "2024-02-29T23:59:59.000Z"),
            ("\"0001-01-01T00:00:00Z\"", "0001-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(read(json).as_deref(), Some(at), "{json}");
        }
        for none in ["null", "true", "{}", "[]", "\"\"", "\"-\"", "1e12", "99999999999999999999", "\".5\"", "\"soon\""]
        {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn a_range_may_end_with_the_calendar() {
        for text in ["9999-12-31", "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59"] {
            let edge = parse_edge(text).expect(text);
            assert_eq!(parse(&iso(edge)), Some(edge), "{text}");
            assert!(parse(text).is_none() && edge > parse("9999-12-30T21:59:59Z").expect("instant"));
        }
        assert_eq!((parse_edge("0000-01-01"), parse_edge("-000001-12-31")), (Some(first()), None));
        assert_eq!(
            (parse_edge("2024-07-01"), parse_edge("yesterday"), parse_edge("2024-13-01")),
            (parse("2024-07-01"), None, None)
        );
    }

    #[test]
    fn instants_are_cut_to_the_millisecond() {
        assert_eq!(iso(parse("2024-07-01T00:00:00.123999Z").expect("instant")), "2024-07-01T00:00:00.123Z");
        assert_eq!(iso(parse("1969-12-31T23:59:59.9995Z").expect("instant")), "1969-12-31T23:59:59.999Z");
        assert_eq!(iso("2024-07-01T23:59:59.999999Z".parse().expect("instant")), "2024-07-01T23:59:59.999Z");
        // A number that was meant as something else can lie before the year 0.
        let early = Timestamp::from_millisecond(-62_167_219_200_001).expect("in range");
        assert_eq!((iso(early).as_str(), date(early).as_str()), ("-000001-12-31T23:59:59.999Z", "-000001-12-31"));
        assert_eq!(compact(parse("2024-07-01T10:11:12.5Z").expect("instant")), "20240701T101112.500Z");
    }
}
