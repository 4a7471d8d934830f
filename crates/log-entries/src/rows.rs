//! Rows of the two tables: `log-objects`, one a log object, and `log-errors`, one a fingerprint and object.

use crate::keys::{Attempt, PartKey, object_id};
use identity::instant;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use ledger::{Keyed, Once, Work};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use storage::{LedgerError, Table};

/// A log object: which version of it is extracted, and the claim on the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogObject {
    /// Its key.
    pub object: String,
    /// The version whose entries readers see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<ObjectVersion>,
    /// Sequencer of the version that `work` is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work<VersionIntent>>,
    /// UTC date on which the current version came, where something of it could not be read. For [`NOT_READ`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_read_on: Option<Date>,
    /// Versions that readers have seen, the newest last, of the last [`EXTRACTIONS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extractions: Vec<Extracted>,
    /// UTC date of the last of them. For [`EXTRACTED`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extracted_on: Option<Date>,
    pub revision: u64,
}

/// From when on readers have seen a version, and how many lines it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extracted {
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
    pub lines: u64,
}

/// As many versions of one object are remembered: those of a day, when a collector writes it again every hour.
const EXTRACTIONS: usize = 24;

impl LogObject {
    /// With a version that readers see from now on.
    pub fn with_current(self, version: ObjectVersion, now: Timestamp) -> Self {
        let mut extractions = self.extractions;
        extractions.push(Extracted { at: now, lines: version.lines });
        extractions.drain(..extractions.len().saturating_sub(EXTRACTIONS));
        LogObject {
            extractions,
            extracted_on: Some(now.to_zoned(TimeZone::UTC).date()),
            not_read_on: version.not_read_on(),
            current: Some(version),
            ..self
        }
    }

    /// Lines that readers had seen before an instant: none of an object that was not there.
    pub fn lines_before(&self, instant: Timestamp) -> u64 {
        self.extractions.iter().rev().find(|extracted| extracted.at < instant).map_or(0, |extracted| extracted.lines)
    }
}

/// Index of `log-objects` over `extracted_on`: what came on a day, whatever it is about.
pub const EXTRACTED: &str = "extracted";

/// Index of `log-objects` over `not_read_on`: what a report tells of a day without looking at all objects.
pub const NOT_READ: &str = "not-read";

/// What was extracted of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectVersion {
    /// Of two versions the one with the greater sequencer is the later one.
    pub sequencer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// When S3 had it.
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
    pub lines: u64,
    /// Unpacked.
    pub bytes: u64,
    pub entries: u64,
    pub unparsed: u64,
    /// Entries of errors beyond the kinds that one object may note in `log-errors`. They stand in its Parquet objects.
    #[serde(default)]
    pub unlisted: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<Damaged>,
    /// Its Parquet objects.
    pub parts: Vec<Part>,
    /// How their names begin. `None`: as in earlier versions of this project, [`object_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_name: Option<String>,
    /// Key of its [`Contribution`]s, JSON lines.
    pub contributions: String,
}

impl ObjectVersion {
    /// Its date, where some of its lines could not be read.
    pub fn not_read_on(&self) -> Option<Date> {
        let is_read = self.damaged.is_none() && self.unparsed == 0;
        (!is_read).then(|| self.at.to_zoned(TimeZone::UTC).date())
    }

    /// Keys of its parts, in their order. `object`: the log object's key.
    pub fn part_keys(&self, object: &str) -> impl Iterator<Item = String> {
        let object = self.part_name.clone().unwrap_or_else(|| object_id(object));
        self.parts.iter().map(move |Part { date, is_dated, number }| {
            let (object, sequencer) = (object.clone(), self.sequencer.clone());
            PartKey { date: *date, object, sequencer, is_dated: *is_dated, number: *number }.key()
        })
    }
}

/// One of a version's Parquet objects. In the row it is a dozen bytes, because a log may have errors of each day of
/// many years, and a row has 400 KB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Part {
    pub date: Date,
    pub is_dated: bool,
    /// From 0, over all of the version.
    pub number: usize,
}

impl From<Part> for String {
    fn from(Part { date, is_dated, number }: Part) -> Self {
        format!("{date}~{number}{}", if is_dated { "" } else { "~undated" })
    }
}

impl TryFrom<String> for Part {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // Rows of earlier versions hold the whole key.
        if let Some(PartKey { date, is_dated, number, .. }) = PartKey::parse(&text) {
            return Ok(Part { date, is_dated, number });
        }
        let (dated, is_dated) = text.strip_suffix("~undated").map_or((text.as_str(), true), |dated| (dated, false));
        let part = dated
            .split_once('~')
            .and_then(|(date, number)| Some(Part { date: date.parse().ok()?, is_dated, number: number.parse().ok()? }));
        part.ok_or_else(|| format!("{text} is no part"))
    }
}

/// Why a version could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// `GzipTruncated`, `GzipCorrupt`, `GzipBomb`, `GzipTooLarge`, `NotGzip`.
    pub error: String,
    pub message: String,
}

/// Everything that makes a version the current one. Fixed once it is registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionIntent {
    pub version: ObjectVersion,
    /// Which attempt at the version has written its parts.
    pub attempt: u64,
    /// What it replaces.
    pub before: Option<ObjectVersion>,
}

impl VersionIntent {
    /// The parts' ways from where they wait. `object`: the log object's key.
    pub fn moves(&self, object: &str) -> impl Iterator<Item = Moved> {
        let attempt = Attempt { sequencer: self.version.sequencer.clone(), number: self.attempt };
        let parts = self.version.parts.iter().zip(self.version.part_keys(object));
        parts.map(move |(part, to)| Moved { from: attempt.staged_key(object, part.number), to })
    }
}

/// A part that is written, on its way to where readers look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub from: String,
    pub to: String,
}

impl Keyed for LogObject {
    const PARTITION: &'static str = "object";
    const SORT: Option<&'static str> = None;

    fn key(&self) -> (String, Option<String>) {
        (self.object.clone(), None)
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn revised(self, revision: u64) -> Self {
        LogObject { revision, ..self }
    }

    fn holds(partition: &str) -> bool {
        !partition.starts_with(MAIL)
    }
}

/// One entry to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub object: String,
    pub line: u64,
    pub time: Option<String>,
    /// Without secrets, and cut.
    pub message: String,
    pub stack: Option<String>,
}

/// What one version of a log object adds to one fingerprint. Rows stay small: an object covers few hours, and has one
/// sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    pub fingerprint: String,
    pub service: String,
    pub category: String,
    pub level: String,
    pub exception: Option<String>,
    pub count: u64,
    pub first_seen: String,
    pub last_seen: String,
    /// By hour in UTC, `2024-07-01T10`.
    pub hours: BTreeMap<String, u64>,
    pub sample: Sample,
}

/// A row of `log-errors`: a fingerprint in one object. Adding up a fingerprint's rows gives what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Occurrence {
    /// `<service>#<fingerprint>`.
    pub fingerprint: String,
    /// Key of the log object.
    pub object: String,
    /// Of the object's version; an older one never replaces a newer.
    pub sequencer: String,
    /// `None`: this version of the object has the error no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contribution: Option<Contribution>,
    pub revision: u64,
}

impl Keyed for Occurrence {
    const PARTITION: &'static str = "fingerprint";
    const SORT: Option<&'static str> = Some("object");

    fn key(&self) -> (String, Option<String>) {
        (self.fingerprint.clone(), Some(self.object.clone()))
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn revised(self, revision: u64) -> Self {
        Occurrence { revision, ..self }
    }

    fn holds(partition: &str) -> bool {
        !partition.starts_with(SEEN)
    }
}

impl Occurrence {
    pub fn partition(service: &str, fingerprint: &str) -> String {
        format!("{service}#{fingerprint}")
    }
}

/// A row of `log-errors`, too: when a fingerprint was seen, over all objects, so that nobody has to read all of them.
/// It only grows: what a later version of a log no longer holds was seen all the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sightings {
    /// `//seen/<service>#<fingerprint>`; no service is called so.
    pub fingerprint: String,
    /// Always [`ALL_OBJECTS`].
    pub object: String,
    pub first_seen: String,
    /// The first and the last hour in which it was seen on a date in UTC, of the last [`DAYS`] such dates.
    pub days: BTreeMap<String, (u8, u8)>,
    pub revision: u64,
}

const SEEN: &str = "//seen/";
pub const ALL_OBJECTS: &str = "//all";
/// A report looks back over its own days and a week of silence.
const DAYS: usize = 62;

impl Sightings {
    pub fn key_of(service: &str, fingerprint: &str) -> String {
        format!("{SEEN}{}", Occurrence::partition(service, fingerprint))
    }

    /// The row with what an object adds. `None`: it stands as it is.
    pub fn with(standing: Option<&Self>, added: &Contribution) -> Option<Self> {
        let mut sightings = standing.cloned().unwrap_or_else(|| Sightings {
            fingerprint: Sightings::key_of(&added.service, &added.fingerprint),
            object: ALL_OBJECTS.to_owned(),
            first_seen: added.first_seen.clone(),
            days: BTreeMap::new(),
            revision: 0,
        });
        if added.first_seen < sightings.first_seen {
            sightings.first_seen.clone_from(&added.first_seen);
        }
        let hours = added.hours.keys().filter_map(|hour| hour.split_once('T'));
        for (date, hour) in hours.filter_map(|(date, hour)| Some((date, hour.parse().ok()?))) {
            let (first, last) = sightings.days.entry(date.to_owned()).or_insert((hour, hour));
            (*first, *last) = ((*first).min(hour), (*last).max(hour));
        }
        while sightings.days.len() > DAYS {
            sightings.days.pop_first();
        }
        (standing != Some(&sightings)).then_some(sightings)
    }
}

/// What is known of an error that earlier versions of this project have noted, object by object only.
pub async fn sightings_by_object(
    occurrences: &Table<Occurrence>,
    service: &str,
    fingerprint: &str,
) -> Result<Option<Sightings>, LedgerError> {
    let mut sightings = None;
    let look = |row: Occurrence| {
        let contribution = row.contribution.iter();
        sightings = contribution.fold(sightings.take(), |all, added| Sightings::with(all.as_ref(), added).or(all));
    };
    occurrences.for_each_of(&Occurrence::partition(service, fingerprint), look).await?;
    Ok(sightings)
}

impl Keyed for Sightings {
    const PARTITION: &'static str = "fingerprint";
    const SORT: Option<&'static str> = Some("object");

    fn key(&self) -> (String, Option<String>) {
        (self.fingerprint.clone(), Some(self.object.clone()))
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn revised(self, revision: u64) -> Self {
        Sightings { revision, ..self }
    }

    fn holds(partition: &str) -> bool {
        partition.starts_with(SEEN)
    }
}

/// When a fingerprint was seen, over all objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub first: Timestamp,
    /// The end of the last hour before an instant of interest in which it was seen.
    pub last_before: Option<Timestamp>,
}

impl Seen {
    /// `None` when the row names no instant.
    pub fn of(sightings: &Sightings, before: Timestamp) -> Option<Self> {
        let hours = sightings.days.iter().rev().flat_map(|(date, (first, last))| [(date, last), (date, first)]);
        let ends = hours.filter_map(|(date, hour)| format!("{date}T{hour:02}:59:59.999Z").parse::<Timestamp>().ok());
        let mut ends = ends.filter(|end| *end < before);
        Some(Seen { first: sightings.first_seen.parse().ok()?, last_before: ends.next() })
    }
}

/// A row of `log-objects`, too: whether a recipient has the mail of a report. No object's key begins as these do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogMail {
    pub object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<Once>,
    pub revision: u64,
}

const MAIL: &str = "//mail/";

impl LogMail {
    pub fn key_of(report: &str, recipient: &str) -> String {
        format!("{MAIL}{report}/{recipient}")
    }
}

impl Keyed for LogMail {
    const PARTITION: &'static str = "object";
    const SORT: Option<&'static str> = None;

    fn key(&self) -> (String, Option<String>) {
        (self.object.clone(), None)
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn revised(self, revision: u64) -> Self {
        LogMail { revision, ..self }
    }

    fn holds(partition: &str) -> bool {
        partition.starts_with(MAIL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn added(first_seen: &str, hours: &[&str]) -> Contribution {
        Contribution {
            fingerprint: "f".into(),
            service: "shop".into(),
            category: "other".into(),
            level: "ERROR".into(),
            exception: None,
            count: 1,
            first_seen: first_seen.into(),
            last_seen: first_seen.into(),
            hours: hours.iter().map(|hour| ((*hour).to_owned(), 1)).collect(),
            sample: Sample { object: "o".into(), line: 1, time: None, message: "m".into(), stack: None },
        }
    }

    #[test]
    fn what_is_known_of_an_error_does_not_depend_on_the_order_in_which_its_logs_come() {
        let all = [
            added("2024-07-01T10:12:00.000Z", &["2024-07-01T10", "2024-07-02T23"]),
            added("2024-07-01T10:05:00.000Z", &["2024-07-01T10", "2024-07-01T22"]),
            added("2024-07-20T05:00:00.000Z", &["2024-07-20T05", "2024-07-20T09"]),
        ];
        let sum = |order: [usize; 3]| {
            order.into_iter().fold(None, |row, at| Sightings::with(row.as_ref(), &all[at]).or(row)).expect("a row")
        };
        let row = sum([0, 1, 2]);
        for order in [[2, 1, 0], [1, 0, 2], [0, 2, 1]] {
            assert_eq!(sum(order), row);
        }
        assert!(all.iter().all(|added| Sightings::with(Some(&row), added).is_none()), "nothing is new");
        let seen = |before: &str| {
            let seen = Seen::of(&row, before.parse().expect("an instant")).expect("seen");
            (format!("{:.3}", seen.first), seen.last_before.map(|last| format!("{last:.0}")))
        };
        let first = "2024-07-01T10:05:00.000Z";
        for (before, last) in [
            ("2024-07-01T10:00:00Z", None),
            ("2024-07-01T11:00:00Z", Some("2024-07-01T10:59:59Z")),
            ("2024-07-20T00:00:00Z", Some("2024-07-02T23:59:59Z")),
            // On this day it was seen before six, and after: that is no silence.
            ("2024-07-20T06:00:00Z", Some("2024-07-20T05:59:59Z")),
            ("2024-08-01T00:00:00Z", Some("2024-07-20T09:59:59Z")),
        ] {
            assert_eq!(seen(before), (first.to_owned(), last.map(str::to_owned)), "{before}");
        }
    }

    #[test]
    fn what_is_known_of_an_error_takes_no_more_space_over_the_years() {
        let mut row = None;
        for day in date(2024, 1, 1).series(jiff::ToSpan::day(1)).take(1000) {
            let first = format!("{day}T10:00:00.000Z");
            row = Sightings::with(row.as_ref(), &added(&first, &[&first[..13]])).or(row);
        }
        let row = row.expect("a row");
        assert_eq!((row.days.len(), row.first_seen.as_str()), (DAYS, "2024-01-01T10:00:00.000Z"));
    }

    #[test]
    fn a_part_comes_back_from_its_row() {
        for is_dated in [true, false] {
            let part = Part { date: date(2024, 7, 1), is_dated, number: 12 };
            assert_eq!(Part::try_from(String::from(part)), Ok(part));
            let (object, sequencer) = ("o".to_owned(), "05".to_owned());
            let key = PartKey { date: part.date, object, sequencer, is_dated, number: part.number }.key();
            assert_eq!(Part::try_from(key), Ok(part), "as earlier versions have written it");
        }
        for text in ["", "2024-07-01", "2024-07-01~", "~1", "2024-07-01~1~", "2024-07-01~1~undated~undated"] {
            assert!(Part::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
