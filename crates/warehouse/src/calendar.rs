//! The date dimension, and the date that a time belongs to.

use crate::{schema::DateDimension, time, value::Value};
use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// Infinite, or outside of the range.
const UNKNOWN: i32 = -1;
const NOT_APPLICABLE: i32 = -2;

const DAY: i64 = 86_400_000_000;

pub struct Calendar {
    from: Date,
    to: Date,
    /// `None` is UTC, which needs no tables.
    zone: Option<TimeZone>,
}

impl Calendar {
    /// The schema file was checked, so that its zone is known; else UTC.
    pub fn new(dimension: &DateDimension) -> Calendar {
        let zone = if dimension.time_zone == "UTC" { None } else { TimeZone::get(&dimension.time_zone).ok() };
        Calendar { from: dimension.from, to: dimension.to, zone }
    }

    /// The key of a date or a time.
    pub fn key(&self, value: &Value) -> i32 {
        let date = match value {
            Value::Null => return NOT_APPLICABLE,
            Value::Date(days) => civil(i64::from(*days)),
            Value::Timestamp(micros) => self.date_of(*micros),
            _ => None,
        };
        date.filter(|date| self.from <= *date && *date <= self.to).map_or(UNKNOWN, date_key)
    }

    fn date_of(&self, micros: i64) -> Option<Date> {
        match &self.zone {
            None => civil(micros.div_euclid(DAY)),
            Some(zone) => Some(Timestamp::from_microsecond(micros).ok()?.to_zoned(zone.clone()).date()),
        }
    }

    /// All rows of `dim_date`, in the order of [`crate::table::date`].
    pub fn rows(&self) -> impl Iterator<Item = Vec<Value>> {
        let member = |key| {
            let mut row = vec![Value::Null; 9];
            row[0] = Value::Integer(key);
            row
        };
        let dates = std::iter::successors(Some(self.from), |date| date.tomorrow().ok());
        let dates = dates.take_while(|date| *date <= self.to).map(row);
        [member(UNKNOWN), member(NOT_APPLICABLE)].into_iter().chain(dates)
    }
}

fn civil(days: i64) -> Option<Date> {
    if days < i64::from(time::FIRST_DATE) || days > i64::from(time::LAST_DATE) {
        return None;
    }
    let epoch = jiff::civil::date(1970, 1, 1);
    epoch.checked_add(jiff::Span::new().try_days(days).ok()?).ok()
}

fn date_key(date: Date) -> i32 {
    (i32::from(date.year()) * 100 + i32::from(date.month())) * 100 + i32::from(date.day())
}

fn row(date: Date) -> Vec<Value> {
    let days = (date.to_zoned(TimeZone::UTC).map_or(0, |zoned| zoned.timestamp().as_second())).div_euclid(86_400);
    let weekday = date.weekday().to_monday_one_offset();
    vec![
        Value::Integer(date_key(date)),
        Value::Date(days as i32),
        Value::Integer(date.year().into()),
        Value::Integer((i32::from(date.month()) + 2) / 3),
        Value::Integer(date.month().into()),
        Value::Integer(date.day().into()),
        Value::Integer(date.iso_week_date().week().into()),
        Value::Integer(weekday.into()),
        Value::Boolean(weekday >= 6),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(zone: &str) -> Calendar {
        Calendar::new(&DateDimension {
            from: jiff::civil::date(2020, 1, 1),
            to: jiff::civil::date(2030, 12, 31),
            time_zone: zone.into(),
        })
    }

    #[test]
    fn a_time_belongs_to_the_date_of_its_zone() {
        let late = Value::Timestamp(time::timestamptz("2024-06-30T22:30:00Z").expect("time"));
        assert_eq!((calendar("UTC").key(&late), calendar("Europe/Berlin").key(&late)), (20_240_630, 20_240_701));
    }

    #[test]
    fn what_has_no_date_in_the_range_is_unknown_and_null_is_not_applicable() {
        let calendar = calendar("Europe/Berlin");
        assert_eq!(calendar.key(&Value::Null), -2);
        for value in [
            Value::Timestamp(time::INFINITY),
            Value::Timestamp(time::MINUS_INFINITY),
            Value::Date(time::INFINITE_DATE),
            Value::Date(time::MINUS_INFINITE_DATE),
            Value::Date(0),
        ] {
            assert_eq!(calendar.key(&value), -1, "{value:?}");
        }
        let whole = DateDimension {
            from: "0001-01-01".parse().expect("date"),
            to: "9999-12-31".parse().expect("date"),
            time_zone: "UTC".into(),
        };
        assert_eq!(Calendar::new(&whole).key(&Value::Timestamp(time::INFINITY)), -1);
        assert_eq!(Calendar::new(&whole).key(&Value::Date(time::LAST_DATE)), 99_991_231);
    }

    #[test]
    fn each_day_of_the_range_has_a_row_and_weeks_are_those_of_iso() {
        let rows: Vec<_> = calendar("UTC").rows().collect();
        assert_eq!(rows.len(), 2 + 4018);
        let integers = |row: &[Value]| -> Vec<i32> {
            row.iter()
                .map(|value| match value {
                    Value::Integer(n) => *n,
                    Value::Date(n) => *n,
                    _ => 0,
                })
                .collect()
        };
        // 2021-01-03: a Sunday of week 53.
        let row = rows.iter().find(|row| row[0] == Value::Integer(20_210_103)).expect("row");
        assert_eq!(integers(row), [20_210_103, 18_630, 2021, 1, 1, 3, 53, 7, 0]);
        assert_eq!(row[8], Value::Boolean(true));
    }
}
