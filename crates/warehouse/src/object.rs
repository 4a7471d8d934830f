//! Names of objects with lines, and the order and the gaps that they tell of.

use crate::time;
use std::ops::RangeInclusive;

/// What the name of an object says of its place among the others.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Objects without ids come after those with, in the order of their times.
    id: Id,
    /// Microseconds since 1970.
    pub time: Option<i64>,
    pub key: String,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Id {
    Some(u64),
    None,
}

impl Place {
    /// Reads a key such as `patient/20240701T000000.000000Z-0000000007.jsonl`; of an output of the partner feeds
    /// `output_object-<microseconds>.jsonl`. Any other name has its place by a date in its path, or by its key alone.
    pub fn of(key: &str) -> Place {
        let name = key.rsplit('/').next().unwrap_or(key);
        let stem = name.split_once(".json").map_or(name, |(stem, _)| stem);
        let (time, id) = match stem.split_once('-') {
            Some((time, id)) if is_id(id) => (parse_time(time), id.parse().ok()),
            _ => (parse_time(stem), None),
        };
        let id = match (time, id) {
            (Some(_), Some(id)) => Id::Some(id),
            _ => Id::None,
        };
        Place { id, time: time.or_else(|| feed_time(stem)).or_else(|| path_date(key)), key: key.to_owned() }
    }

    pub fn id(&self) -> Option<u64> {
        match self.id {
            Id::Some(id) => Some(id),
            Id::None => None,
        }
    }
}

/// The key of an object of `table`. `time` in microseconds since 1970.
pub fn key(table: &str, time: i64, id: u64) -> String {
    format!("{table}/{}-{id:010}.jsonl", format_time(time))
}

/// `YYYYMMDDTHHMMSS.ffffffZ`.
fn format_time(micros: i64) -> String {
    time::text(micros).replace(['-', ':'], "")
}

fn is_id(text: &str) -> bool {
    text.len() >= 10 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_time(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (date, clock) = text.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    if date.len() != 8 || clock.len() != 6 || !(date.is_ascii() && clock.is_ascii()) {
        return None;
    }
    let (year, month, day) = (&date[..4], &date[4..6], &date[6..]);
    let (hour, minute, second) = (&clock[..2], &clock[2..4], &clock[4..]);
    time::timestamptz(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}.{fraction}Z")).ok()
}

fn feed_time(stem: &str) -> Option<i64> {
    let micros = stem.strip_prefix("output_object-")?;
    if micros.len() == 16 && micros.bytes().all(|byte| byte.is_ascii_digit()) { micros.parse().ok() } else { None }
}

/// Midnight of `year=2024/month=07/day=01` in the path.
fn path_date(key: &str) -> Option<i64> {
    let part = |name: &str| key.split('/').find_map(|part| part.strip_prefix(name));
    let (year, month, day) = (part("year=")?, part("month=")?, part("day=")?);
    time::date(&format!("{year}-{month:0>2}-{day:0>2}")).ok().map(time::midnight)
}

/// Ranges of ids that are missing between 1 and the greatest of `ids`, which come in order.
pub fn gaps(ids: impl IntoIterator<Item = u64>) -> Vec<RangeInclusive<u64>> {
    let mut gaps = Vec::new();
    let mut next = 1;
    for id in ids {
        if id > next {
            gaps.push(next..=id - 1);
        }
        next = next.max(id.saturating_add(1));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_as_it_was_written() {
        let key = key("patient", 1_719_792_000_000_001, 7);
        assert_eq!(key, "patient/20240701T000000.000001Z-0000000007.jsonl");
        let place = Place::of(&key);
        assert_eq!((place.id(), place.time), (Some(7), Some(1_719_792_000_000_001)));
    }

    #[test]
    fn ids_come_before_times_and_times_before_keys() {
        let mut places: Vec<_> = [
            "t/20240101T000000Z.jsonl",
            "t/20250101T000000.000000Z-0000000001.jsonl",
            "t/20240101T000000.000000Z-0000000002.jsonl",
            "t/x.jsonl",
            "t/year=2024/month=1/day=02/b.jsonl",
            "t/output_object-1704067200000001.jsonl",
            "t/year=2024/month=1/day=02/a.jsonl",
        ]
        .map(Place::of)
        .into();
        places.sort();
        let keys: Vec<_> = places.iter().map(|place| place.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "t/20250101T000000.000000Z-0000000001.jsonl",
                "t/20240101T000000.000000Z-0000000002.jsonl",
                "t/x.jsonl",
                "t/20240101T000000Z.jsonl",
                "t/output_object-1704067200000001.jsonl",
                "t/year=2024/month=1/day=02/a.jsonl",
                "t/year=2024/month=1/day=02/b.jsonl",
            ]
        );
    }

    #[test]
    fn odd_names_have_no_id() {
        for key in
            ["t/2024-0000000001.jsonl", "t/20240101T000000Z-1.jsonl", "t/é0240101T000000Z-0000000001.jsonl", "", "t/"]
        {
            assert_eq!(Place::of(key).id(), None, "{key}");
        }
    }

    #[test]
    fn a_gap_is_what_is_missing_from_one_on() {
        assert_eq!(gaps([1, 2, 3]), []);
        assert_eq!(gaps([3, 4, 4, 7]), [1..=2, 5..=6]);
        assert_eq!(gaps([]), []);
    }
}
