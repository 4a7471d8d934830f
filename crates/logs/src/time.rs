//! Points in time as loggers write them. A time without a zone is a time only where a zone is configured: taking
//! one for granted would move errors by hours, to another day's partition and into another report.

use jiff::civil::{self, Date};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};
use regex::{Captures, Regex};
use std::sync::LazyLock;

/// What is known where an entry's time is read.
#[derive(Clone, Debug, Default)]
pub struct TimeContext {
    /// Of times without a zone.
    pub zone: Option<TimeZone>,
    /// The date in the object's key: of times without a year or a date.
    pub date: Option<Date>,
}

/// Reads a time in any common format, cut to the millisecond. `None` where it is none, or where its zone cannot be
/// known.
pub fn parse(text: &str, context: &TimeContext) -> Option<Timestamp> {
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if text.len() > 64 {
        return None;
    }
    // The two that most loggers write need no pattern.
    if text.ends_with('Z')
        && text.as_bytes().get(10) == Some(&b'T')
        && let Ok(instant) = text.parse::<Timestamp>()
    {
        return Some(to_millisecond(instant));
    }
    if matches!(text.len(), 10 | 13 | 16 | 19) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return epoch_text(text);
    }
    FORMS.iter().find_map(|form| form.pattern.captures(text).map(|found| instant(&found, context)))?.map(to_millisecond)
}

/// Reads a time in a configured format (`strftime`'s conversions).
pub fn parse_as(text: &str, format: &str, context: &TimeContext) -> Option<Timestamp> {
    let parts = jiff::fmt::strtime::parse(format, text.trim()).ok()?;
    if let Ok(instant) = parts.to_timestamp() {
        return Some(to_millisecond(instant));
    }
    let year = || context.date.map(Date::year);
    let date = match parts.to_date() {
        Ok(date) => date,
        Err(_) => match (parts.year().or_else(year), parts.month(), parts.day()) {
            (Some(year), Some(month), Some(day)) => Date::new(year, month, day).ok()?,
            _ => context.date?,
        },
    };
    let local = date.to_datetime(parts.to_time().ok()?);
    Some(to_millisecond(local.to_zoned(context.zone.clone()?).ok()?.timestamp()))
}

/// Seconds since 1970, or thousandths, millionths or billionths of them, told apart by their size.
pub fn epoch(number: f64) -> Option<Timestamp> {
    if !number.is_finite() || number < 1e8 {
        return None;
    }
    let milliseconds = match number {
        n if n < 1e11 => n * 1e3,
        n if n < 1e14 => n,
        n if n < 1e17 => n / 1e3,
        n => n / 1e6,
    };
    Timestamp::from_millisecond(milliseconds.round() as i64).ok()
}

fn epoch_text(text: &str) -> Option<Timestamp> {
    // A float has too few digits for nanoseconds, and seconds with a fraction are cut and not rounded.
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number: i128 = whole.parse().ok()?;
    let milliseconds = match whole.len() {
        ..=8 => return None,
        9..=11 => number * 1000 + i128::from(nanoseconds(fraction)? / 1_000_000),
        12..=14 => number,
        15..=17 => number / 1000,
        _ => number / 1_000_000,
    };
    Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?).ok()
}

fn to_millisecond(instant: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(instant.as_nanosecond().div_euclid(1_000_000) as i64).unwrap_or(instant)
}

struct Form {
    pattern: Regex,
}

const CLOCK: &str = r"(?<h>\d{1,2}):(?<mi>\d\d)(?::(?<s>\d\d)(?:[.,:](?<f>\d{1,9}))?)?(?:\s?(?<pm>(?i)[AP]M))?";
const ZONE: &str =
    r"(?:\s*(?<zone>Z|z|[+-]\d\d(?::?\d\d)?|\[[A-Za-z]+(?:/[\w+-]+)*\]|[A-Z][A-Za-z]+/[A-Za-z_/]+|[A-Z]{2,5}))?";
const MONTH: &str = r"(?<mon>(?i)Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?";

static FORMS: LazyLock<Vec<Form>> = LazyLock::new(|| {
    let forms = [
        // 2024-07-01T10:00:00.123+02:00, 2024/07/01 10:00:00, 2024-07-01_10:00:00
        format!(r"^(?<y>\d{{4}})[-/.](?<m>\d\d?)[-/.](?<d>\d\d?)(?:[T _:]|,\s)\s*{CLOCK}{ZONE}(?:\[[\w/+-]+\])?$"),
        // 20240701T100000Z, 20240701 10:00:00
        format!(
            r"^(?<y>\d{{4}})(?<m>\d\d)(?<d>\d\d)[T ]?(?<h>\d\d):?(?<mi>\d\d):?(?<s>\d\d)(?:[.,](?<f>\d{{1,9}}))?{ZONE}$"
        ),
        // 01/Jul/2024:10:00:00 +0000, Mon, 01 Jul 2024 10:00:00 GMT, 01-Jul-2024::10:00:00
        format!(r"^(?:[A-Za-z]{{3}},?\s+)?(?<d>\d\d?)[ /-]{MONTH}[ /-](?<y>\d{{4}})(?:[ T]|::?){CLOCK}{ZONE}$"),
        // Jul 01, 2024 10:00:00 AM, Mon Jul  1 10:00:00 UTC 2024, Jul  1 10:00:00
        format!(
            r"^(?:[A-Za-z]{{3}},?\s+)?{MONTH}\s+(?<d>\d\d?),?\s+(?:(?<y>\d{{4}}),?\s+)?{CLOCK}{ZONE}(?:\s+(?<y2>\d{{4}}))?$"
        ),
        // 01.07.2024 10:00:00
        format!(r"^(?<d>\d\d?)\.(?<m>\d\d?)\.(?<y>\d{{4}}),? {CLOCK}{ZONE}$"),
        // 11/21/2026 3:04:05 PM, 21/11/2026 15:04:05
        format!(r"^(?<a>\d\d?)/(?<b>\d\d?)/(?<y>\d{{4}}),? {CLOCK}{ZONE}$"),
        // 0701 10:00:00.123456, as klog writes month and day
        format!(r"^(?<m>\d\d)(?<d>\d\d) {CLOCK}$"),
        // 10:00:00.123
        format!(r"^{CLOCK}{ZONE}$"),
        r"^(?<epoch>\d{9,19}(?:\.\d{1,9})?)$".to_owned(),
    ];
    // Digits and letters of ASCII: those of all scripts, which no logger writes, make patterns large and slow. Letters
    // stand in brackets only.
    let ascii = |form: &String| form.replace(r"\d", "[0-9]").replace(r"\w", "0-9A-Za-z_");
    let compiled = forms.iter().filter_map(|form| Regex::new(&ascii(form)).ok());
    let compiled = compiled.map(|pattern| Form { pattern }).collect::<Vec<_>>();
    assert_eq!(compiled.len(), forms.len(), "a form of time is no pattern");
    compiled
});

fn instant(found: &Captures, context: &TimeContext) -> Option<Timestamp> {
    let text = |name: &str| found.name(name).map(|part| part.as_str());
    if let Some(epoch) = text("epoch") {
        return epoch_text(epoch);
    }
    let number = |name: &str| text(name).and_then(|part| part.parse::<i16>().ok());
    let year = number("y").or_else(|| number("y2")).or_else(|| context.date.map(Date::year))?;
    let month = match text("mon") {
        Some(name) => Some(month(name)?),
        None => number("m"),
    };
    let (month, day) = match (number("a"), number("b")) {
        (Some(first), Some(second)) => month_and_day(first, second, text("pm").is_some())?,
        _ => (month, number("d")),
    };
    let date = match (month, day) {
        (Some(month), Some(day)) => Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?,
        _ => context.date?,
    };
    let mut hour = number("h")?;
    if let Some(half) = text("pm") {
        hour = hour % 12 + if half.eq_ignore_ascii_case("pm") { 12 } else { 0 };
    }
    // A leap second is the second before it, as everywhere else in Unix time.
    let second = number("s").unwrap_or(0).min(59);
    let clock = civil::Time::new(
        i8::try_from(hour).ok()?,
        i8::try_from(number("mi")?).ok()?,
        i8::try_from(second).ok()?,
        nanoseconds(text("f").unwrap_or(""))?,
    );
    let local = date.to_datetime(clock.ok()?);
    let zone = match text("zone") {
        Some(name) => zone(name)?,
        None => context.zone.clone()?,
    };
    local.to_zoned(zone).ok().map(|zoned: Zoned| zoned.timestamp())
}

/// Of a date with strokes. Where the clock has two halves the month stands in front, and where a number is too large for
/// a month it is the day; otherwise the two cannot be told apart, and a wrong day is worse than none.
fn month_and_day(first: i16, second: i16, has_halves: bool) -> Option<(Option<i16>, Option<i16>)> {
    match (first > 12, second > 12) {
        (true, _) => Some((Some(second), Some(first))),
        (false, true) => Some((Some(first), Some(second))),
        (false, false) if has_halves || first == second => Some((Some(first), Some(second))),
        (false, false) => None,
    }
}

fn nanoseconds(fraction: &str) -> Option<i32> {
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    digits.parse().ok()
}

fn month(name: &str) -> Option<i16> {
    const NAMES: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let name = name.get(..3)?.to_ascii_lowercase();
    NAMES.iter().position(|known| *known == name).and_then(|at| i16::try_from(at + 1).ok())
}

/// `Z`, an offset, or a name. Abbreviations other than UTC's mean several zones each, and so none.
fn zone(name: &str) -> Option<TimeZone> {
    let name = name.trim_matches(['[', ']']);
    if matches!(name, "Z" | "z" | "UTC" | "GMT" | "UCT") {
        return Some(TimeZone::UTC);
    }
    let Some(sign) = name.chars().next().filter(|sign| "+-".contains(*sign)) else {
        return if name.contains('/') { TimeZone::get(name).ok() } else { None };
    };
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    let hours: i32 = digits.get(..2)?.parse().ok()?;
    let minutes: i32 = digits.get(2..).filter(|rest| !rest.is_empty()).map_or(Some(0), |rest| rest.parse().ok())?;
    let seconds = (hours * 60 + minutes) * 60;
    Offset::from_seconds(if sign == '-' { -seconds } else { seconds }).ok().map(TimeZone::fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, zone: Option<&str>) -> Option<String> {
        let context = TimeContext {
            zone: zone.map(|name| TimeZone::get(name).expect("a zone")),
            date: Some(civil::date(2024, 7, 1)),
        };
        parse(text, &context).map(|instant| format!("{instant:.3}"))
    }

    #[test]
    fn one_instant_in_all_spellings() {
        for text in [
            "2024-07-01T10:00:00.123Z",
            "2024-07-01T12:00:00.123+02:00",
            "2024-07-01 12:00:00,123 +0200",
            "2024-07-01 10:00:00.123456789 UTC",
            "2024-07-01T12:00:00.123456+02",
            "[2024/07/01 10:00:00.123 +0000]",
            "2024-07-01T05:30:00.123-04:30",
            "2024-07-01 12:00:00.123 [Europe/Berlin]",
            "01/Jul/2024:10:00:00.123 +0000",
            "Mon, 01 Jul 2024 10:00:00.123 GMT",
            "01-Jul-2024::10:00:00.123 +00:00",
            "Mon Jul  1 10:00:00.123 UTC 2024",
            "Jul 01, 2024 10:00:00.123 AM UTC",
            "20240701T100000.123Z",
            "1719828000123",
            "1719828000.1234",
            "1719828000123456789",
            "10:00:00.123 Z",
        ] {
            assert_eq!(read(text, None).as_deref(), Some("2024-07-01T10:00:00.123Z"), "{text}");
        }
    }

    #[test]
    fn without_a_zone_it_takes_a_configured_one_or_stays_unknown() {
        for text in [
            "2024-07-01 10:00:00,123",
            "Jul  1 10:00:00.123",
            "10:00:00.123",
            "0701 10:00:00.123000",
            "01.07.2024 10:00:00.123",
        ] {
            assert_eq!(read(text, None), None, "{text}");
            assert_eq!(read(text, Some("Europe/Berlin")).as_deref(), Some("2024-07-01T08:00:00.123Z"), "{text}");
        }
        // CET is also a name of other clocks: neither it nor the configured zone is believed.
        assert_eq!(read("2024-07-01 10:00:00 CST", Some("Europe/Berlin")), None);
    }

    #[test]
    fn dates_with_strokes_are_read_where_month_and_day_can_be_told_apart() {
        for (text, expected) in [
            ("11/21/2026 03:04:05 PM", Some("2026-11-21T15:04:05.000Z")),
            ("11/21/2026, 3:04:05 AM", Some("2026-11-21T03:04:05.000Z")),
            ("11/21/2026, 12:04:05\u{202f}AM", Some("2026-11-21T00:04:05.000Z")),
            ("7/1/2024 10:00:00.5 PM", Some("2024-07-01T22:00:00.500Z")),
            ("07/13/2024 22:00:00", Some("2024-07-13T22:00:00.000Z")),
            ("13/07/2024 22:00:00", Some("2024-07-13T22:00:00.000Z")),
            ("7/7/2024 22:00:00", Some("2024-07-07T22:00:00.000Z")),
            ("07/01/2024 10:00:00", None),
            ("13/13/2024 10:00:00", None),
            ("02/30/2024 10:00:00 PM", None),
        ] {
            assert_eq!(read(text, Some("UTC")).as_deref(), expected, "{text}");
            assert_eq!(read(text, None), None, "{text}, without a zone");
        }
        assert_eq!(read("11/21/2026 3:04:05 PM -05:00", None).as_deref(), Some("2026-11-21T20:04:05.000Z"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "yesterday",
            "2024-13-01T00:00:00Z",
            "2024-07-01T25:00:00Z",
            "123",
            "1.5",
            "99999999999999999999",
            "Foo 1 10:00:00",
        ] {
            assert_eq!(read(text, Some("UTC")), None, "{text}");
        }
        assert_eq!(read("2024-06-30T23:59:60Z", None).as_deref(), Some("2024-06-30T23:59:59.000Z"));
        assert_eq!([f64::NAN, -5.0, 12.0].map(epoch), [None; 3]);
        assert_eq!(read("Jul 01, 2024 12:05:00 AM", Some("UTC")).as_deref(), Some("2024-07-01T00:05:00.000Z"));
    }

    #[test]
    fn a_configured_format_is_read_with_zone_and_date() {
        let context = TimeContext { zone: TimeZone::get("Europe/Berlin").ok(), date: Some(civil::date(2024, 7, 1)) };
        for (text, format) in [
            ("07/01/24 12-00-00", "%m/%d/%y %H-%M-%S"),
            ("12:00:00", "%H:%M:%S"),
            ("01.07. 12:00:00", "%d.%m. %H:%M:%S"),
        ] {
            let instant = parse_as(text, format, &context);
            assert_eq!(instant.map(|instant| instant.to_string()).as_deref(), Some("2024-07-01T10:00:00Z"), "{text}");
        }
        assert_eq!(parse_as("x", "%H:%M:%S", &context), None);
    }
}
