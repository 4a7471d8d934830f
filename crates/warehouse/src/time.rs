//! Dates and times as PostgreSQL writes them in JSON, over its whole range, to the microsecond.

use crate::misfit::Misfit;

pub const INFINITY: i64 = i64::MAX;
pub const MINUS_INFINITY: i64 = i64::MIN;
pub const INFINITE_DATE: i32 = i32::MAX;
pub const MINUS_INFINITE_DATE: i32 = i32::MIN;

/// 9999-12-31 23:59:59.999999 UTC, which stands for infinity in the tables.
pub const LAST: i64 = 253_402_300_799_999_999;
/// 0001-01-01 00:00:00 UTC.
pub const FIRST: i64 = -62_135_596_800_000_000;
/// 9999-12-31.
pub const LAST_DATE: i32 = 2_932_896;
/// 0001-01-01.
pub const FIRST_DATE: i32 = -719_162;

const DAY: i64 = 86_400_000_000;

/// As it stands in a table.
pub fn shown(micros: i64) -> i64 {
    match micros {
        INFINITY => LAST,
        MINUS_INFINITY => FIRST,
        finite => finite,
    }
}

/// As it stands in a table.
pub fn shown_date(days: i32) -> i32 {
    match days {
        INFINITE_DATE => LAST_DATE,
        MINUS_INFINITE_DATE => FIRST_DATE,
        finite => finite,
    }
}

/// As ISO 8601 with six decimals; before the year 1 and after 9999 the nearest time that can be written so.
pub fn text(micros: i64) -> String {
    // The clamp keeps it within jiff's range.
    let at = jiff::Timestamp::from_microsecond(micros.clamp(FIRST, LAST)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Microseconds at midnight UTC of a date.
pub fn midnight(days: i32) -> i64 {
    match days {
        INFINITE_DATE => INFINITY,
        MINUS_INFINITE_DATE => MINUS_INFINITY,
        finite => i64::from(finite) * DAY,
    }
}

/// `2024-02-29`, `0044-03-15 BC`, `infinity`; also a time at midnight, which loses nothing as a date.
pub fn date(text: &str) -> Result<i32, Misfit> {
    match text {
        "infinity" => return Ok(INFINITE_DATE),
        "-infinity" => return Ok(MINUS_INFINITE_DATE),
        _ => {}
    }
    let parsed = parse(text)?;
    if parsed.micros != 0 || parsed.offset.is_some_and(|offset| offset != 0) {
        return Err(Misfit::Digits);
    }
    i32::try_from(parsed.days).map_err(|_| Misfit::Range)
}

/// A time without a zone. A zone other than UTC would be lost, and is refused.
pub fn timestamp(text: &str) -> Result<i64, Misfit> {
    if let Some(infinite) = infinite(text) {
        return Ok(infinite);
    }
    let parsed = parse(text)?;
    if parsed.offset.is_some_and(|offset| offset != 0) {
        return Err(Misfit::Kind);
    }
    parsed.instant()
}

/// An instant. Without a zone it is UTC.
pub fn timestamptz(text: &str) -> Result<i64, Misfit> {
    match infinite(text) {
        Some(infinite) => Ok(infinite),
        None => parse(text)?.instant(),
    }
}

fn infinite(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(INFINITY),
        "-infinity" => Some(MINUS_INFINITY),
        _ => None,
    }
}

struct Parsed {
    days: i64,
    micros: i64,
    /// Seconds east of UTC.
    offset: Option<i64>,
}

impl Parsed {
    fn instant(&self) -> Result<i64, Misfit> {
        let offset = self.offset.unwrap_or(0) * 1_000_000;
        let instant = self.days.checked_mul(DAY).and_then(|at| at.checked_add(self.micros - offset));
        instant.filter(|at| *at != INFINITY && *at != MINUS_INFINITY).ok_or(Misfit::Range)
    }
}

fn parse(text: &str) -> Result<Parsed, Misfit> {
    let (text, is_bc) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    // From the end, since the year has four digits or more.
    let (rest, day) = date.rsplit_once('-').ok_or(Misfit::Kind)?;
    let (year, month) = rest.rsplit_once('-').ok_or(Misfit::Kind)?;
    let (year, month, day) = (digits(year, 4..=7)?, digits(month, 2..=2)?, digits(day, 2..=2)?);
    if year == 0 {
        return Err(Misfit::Kind);
    }
    // 1 BC is the year 0 of the calculation.
    let year = if is_bc { 1 - year } else { year };
    if !(1..=12).contains(&month) || day < 1 || day > month_length(year, month) {
        return Err(Misfit::Range);
    }
    let days = days(year, month, day);
    match time {
        None => Ok(Parsed { days, micros: 0, offset: None }),
        Some(time) => {
            let (time, offset) = split_offset(time)?;
            Ok(Parsed { days, micros: time_of_day(time)?, offset })
        }
    }
}

fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Result<i64, Misfit> {
    if !length.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Misfit::Kind);
    }
    Ok(text.bytes().fold(0, |number, byte| number * 10 + i64::from(byte - b'0')))
}

/// `Z`, `+00`, `+05:30`, `-00:01:15`, or nothing.
fn split_offset(text: &str) -> Result<(&str, Option<i64>), Misfit> {
    if let Some(time) = text.strip_suffix('Z') {
        return Ok((time, Some(0)));
    }
    let Some(at) = text.find(['+', '-']) else { return Ok((text, None)) };
    let (time, offset) = text.split_at(at);
    let mut seconds = 0;
    let mut parts = offset[1..].split(':');
    for unit in [3600, 60, 1] {
        match parts.next() {
            None if unit < 3600 => break,
            part => seconds += digits(part.unwrap_or_default(), 2..=2)? * unit,
        }
    }
    if parts.next().is_some() {
        return Err(Misfit::Kind);
    }
    Ok((time, Some(if offset.starts_with('-') { -seconds } else { seconds })))
}

/// Microseconds since midnight. `24:00:00` is the end of the day, as in PostgreSQL.
fn time_of_day(text: &str) -> Result<i64, Misfit> {
    let mut parts = text.split(':');
    let mut part = || digits(parts.next().unwrap_or_default(), 2..=2);
    let (hour, minute) = (part()?, part()?);
    let (second, fraction) = match parts.next() {
        None => (0, ""),
        Some(seconds) => {
            let (second, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
            (digits(second, 2..=2)?, fraction)
        }
    };
    if parts.next().is_some() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Misfit::Kind);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 6 {
        return Err(Misfit::Digits);
    }
    let digits = fraction.bytes().fold(0, |digits, byte| digits * 10 + i64::from(byte - b'0'));
    let micros = digits * 10_i64.pow(6 - fraction.len() as u32);
    let total = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
    if minute > 59 || second > 59 || total > DAY { Err(Misfit::Range) } else { Ok(total) }
}

fn month_length(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar: years begin in March, so that a leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_the_contract_are_the_dates_they_claim_to_be() {
        assert_eq!(timestamptz("9999-12-31T23:59:59.999999+00:00"), Ok(LAST));
        assert_eq!(timestamptz("0001-01-01T00:00:00+00:00"), Ok(FIRST));
        assert_eq!((date("9999-12-31"), date("0001-01-01")), (Ok(LAST_DATE), Ok(FIRST_DATE)));
    }

    #[test]
    fn times_before_christ_and_after_9999_are_times() {
        assert_eq!(date("0001-12-31 BC"), Ok(FIRST_DATE - 1));
        assert_eq!(date("5874897-12-31"), Ok(2_145_042_905));
        assert_eq!(timestamp("4714-11-24T00:00:00 BC"), Ok(-210_866_803_200_000_000));
        assert_eq!(timestamp("294276-12-31T23:59:59.999999"), Err(Misfit::Range));
    }

    #[test]
    fn zones_are_taken_off() {
        let noon = timestamptz("2024-02-29T12:00:00Z").expect("time");
        assert_eq!(timestamptz("2024-02-29 17:30:00+05:30"), Ok(noon));
        assert_eq!(timestamptz("2024-02-29T11:58:45-00:01:15"), Ok(noon));
        assert_eq!(timestamptz("2024-02-29T12:00:00.0000000"), Ok(noon));
        assert_eq!(timestamp("2024-02-29T12:00:00+02:00"), Err(Misfit::Kind));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "now", "2024-2-1", "2024-02-01T", "2024-02-01T1:00", "2024-02-01T10:00:00+1", "20240201", "é"]
        {
            assert_eq!(timestamptz(text), Err(Misfit::Kind), "{text}");
        }
        for text in ["2023-02-29", "2024-13-01", "2024-01-01T25:00:00", "2024-01-01T00:60:00"] {
            assert_eq!(timestamptz(text), Err(Misfit::Range), "{text}");
        }
        assert_eq!(timestamptz("2024-01-01T00:00:00.0000001"), Err(Misfit::Digits));
        assert_eq!(date("2024-01-01T00:00:01"), Err(Misfit::Digits));
    }

    #[test]
    fn days_agree_with_another_calendar_over_four_centuries() {
        let mut day = jiff::civil::date(1599, 12, 31);
        for expected in i64::from(date("1599-12-31").expect("date"))..146_200 {
            assert_eq!(days(day.year().into(), day.month().into(), day.day().into()), expected);
            day = day.tomorrow().expect("date");
        }
    }
}
