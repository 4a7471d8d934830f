//! Errors of a time range, grouped by fingerprint: what command line, mail and page tell.

use crate::columns::{self, ColumnsError, EntryRow};
use crate::keys::{ENTRIES, PartKey};
use crate::rows::{LogObject, Sample};
use errors::{Name, Named};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use logs::{Mask, date_of, excerpt};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use storage::{Listed, Objects, StoreError};

/// Parquet objects read at once.
const READS: usize = 8;
/// A group's message and trace are cut to this many bytes, those of the groups beyond [`WHOLE`] to fewer: a period may
/// have any number of kinds, and nobody reads the samples of all.
const STACK: usize = 8 << 10;
const SHORT: usize = 256;
const WHOLE: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{key} cannot be read as entries")]
    Columns { key: String, source: ColumnsError },
}

impl Named for SearchError {
    fn name(&self) -> Name {
        match self {
            SearchError::Store(error) => error.name(),
            SearchError::Columns { .. } => Name::ObjectCorrupt,
        }
    }
}

/// Which entries count.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Inclusive.
    pub from: Timestamp,
    /// Exclusive.
    pub to: Timestamp,
    /// Empty: all.
    pub services: Vec<String>,
    /// Types, categories or fingerprints; empty: all.
    pub error_types: Vec<String>,
}

/// When an entry may have been written: both ends, the last exclusive. Without a time it is as old as its object's name
/// says; `None` where that says nothing.
fn span(row: &EntryRow) -> Option<(Timestamp, Timestamp)> {
    let Some(time) = row.time else {
        let midnight = date_of(&row.object)?.to_zoned(TimeZone::UTC).ok()?.timestamp();
        return Some((midnight, midnight + SignedDuration::from_hours(24)));
    };
    Some((time, time + SignedDuration::from_millis(1)))
}

impl Filter {
    fn has(&self, row: &EntryRow) -> bool {
        span(row).is_some_and(|(first, end)| first < self.to && self.from < end) && self.is_about(row)
    }

    fn is_about(&self, row: &EntryRow) -> bool {
        let is_type = |wanted: &String| {
            let exception = row.exception.as_deref().unwrap_or_default();
            exception == wanted
                || exception.rsplit(['.', ':']).next() == Some(wanted)
                || row.category == *wanted
                || row.fingerprint == *wanted
        };
        let has_service = self.services.is_empty() || self.services.contains(&row.service);
        has_service && (self.error_types.is_empty() || self.error_types.iter().any(is_type))
    }

    /// No earlier partition holds rows that count: undated entries lie on the day on which their object came, and that
    /// is its key's date or later, but for clocks and zones.
    fn first_partition(&self) -> String {
        let first = self.from.to_zoned(TimeZone::UTC).date().saturating_sub(2.days());
        format!("{ENTRIES}date={first}")
    }

    /// Whether a part may hold rows that count.
    fn may_hold(&self, part: &PartKey) -> bool {
        let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
        // Undated entries lie in the partition of the day on which their object came.
        !part.is_dated || (date(self.from) <= part.date && part.date <= date(self.to))
    }
}

/// One error and how often it came.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    pub fingerprint: String,
    pub category: String,
    pub service: String,
    pub level: String,
    pub exception: Option<String>,
    /// Of the sample, without secrets.
    pub message: String,
    pub count: u64,
    pub first_seen: Option<String>,
    pub last_seen: Option<String>,
    pub sample: Sample,
    /// By hour in UTC, `2024-07-01T10`.
    #[serde(skip)]
    pub hours: BTreeMap<String, u64>,
    /// By log object.
    #[serde(skip)]
    pub objects: BTreeMap<String, u64>,
}

/// The groups of a filter, the most frequent first.
pub async fn groups(objects: &Objects, filter: &Filter, masks: &[Mask]) -> Result<Vec<Group>, SearchError> {
    let pages: Vec<Vec<Listed>> = objects.pages(ENTRIES, Some(&filter.first_partition())).try_collect().await?;
    let keys = pages.into_iter().flatten().map(|listed| listed.key);
    let parts: Vec<(PartKey, String)> = keys.filter_map(|key| Some((PartKey::parse(&key)?, key))).collect();
    // While a new version of an object comes in, the parts of both are there.
    let mut newest: HashMap<&str, &str> = HashMap::new();
    for (part, _) in &parts {
        let known = newest.entry(part.object_name()).or_insert(&part.sequencer);
        *known = (*known).max(part.sequencer.as_str());
    }
    let wanted = parts
        .iter()
        .filter(|(part, _)| newest.get(part.object_name()) == Some(&part.sequencer.as_str()) && filter.may_hold(part));
    let wanted: Vec<String> = wanted.map(|(_, key)| key.clone()).collect();
    read_groups(objects, wanted, |row| filter.has(row), masks).await
}

/// The groups of what a period's report missed: entries from before the filter's period that came to be read during
/// `when`. Of an object that grew, only what is new in it.
pub async fn late_groups(
    objects: &Objects,
    extracted: &[LogObject],
    filter: &Filter,
    when: Range<Timestamp>,
    masks: &[Mask],
) -> Result<Vec<Group>, SearchError> {
    let lines = |row: &LogObject| row.lines_before(when.start)..row.lines_before(when.end);
    let came: HashMap<&str, Range<u64>> = extracted.iter().map(|row| (row.object.as_str(), lines(row))).collect();
    let last = filter.from.to_zoned(TimeZone::UTC).date();
    let may_be_late = |key: &String| PartKey::parse(key).is_some_and(|part| !part.is_dated || part.date <= last);
    let came_any = extracted.iter().filter(|row| came.get(row.object.as_str()).is_some_and(|lines| !lines.is_empty()));
    let parts = came_any.filter_map(|row| Some(row.current.as_ref()?.part_keys(&row.object))).flatten();
    let wanted: Vec<String> = parts.filter(may_be_late).collect();
    let is_late = |row: &EntryRow| {
        span(row).is_some_and(|(_, end)| end <= filter.from)
            && came.get(row.object.as_str()).is_some_and(|lines| lines.contains(&(row.line - 1)))
            && filter.is_about(row)
    };
    read_groups(objects, wanted, is_late, masks).await
}

async fn read_groups(
    objects: &Objects,
    keys: Vec<String>,
    counts: impl Fn(&EntryRow) -> bool,
    masks: &[Mask],
) -> Result<Vec<Group>, SearchError> {
    let read = stream::iter(keys).map(|key| async move {
        // A part that was replaced meanwhile is gone; its rows stand in the newer ones.
        let Some(body) = objects.find(&key).await? else { return Ok(Vec::new()) };
        columns::read(body).map_err(|source| SearchError::Columns { key, source })
    });
    let mut found = HashMap::new();
    let mut read = read.buffer_unordered(READS);
    while let Some(rows) = read.try_next().await? {
        group(&mut found, rows.into_iter().filter(&counts), masks);
    }
    let mut groups: Vec<Group> = found.into_values().collect();
    groups.sort_by(|a, b| (b.count, &a.service, &a.fingerprint).cmp(&(a.count, &b.service, &b.fingerprint)));
    Ok(groups)
}

/// Adds rows to groups, by service and fingerprint.
pub fn group(groups: &mut HashMap<(String, String), Group>, rows: impl IntoIterator<Item = EntryRow>, masks: &[Mask]) {
    for row in rows {
        let cut = if groups.len() < WHOLE { STACK } else { SHORT };
        let time = row.time.map(|time| format!("{time:.3}"));
        let hour = time.as_deref().map(|time| time[..13].to_owned());
        let key = (row.service.clone(), row.fingerprint.clone());
        let place = |object: &str, line: u64, time: &Option<String>| (time.clone(), object.to_owned(), line);
        let group = groups.entry(key).or_insert_with(|| Group {
            fingerprint: row.fingerprint.clone(),
            category: row.category.clone(),
            service: row.service.clone(),
            level: row.level.clone(),
            exception: None,
            message: String::new(),
            count: 0,
            first_seen: time.clone(),
            last_seen: time.clone(),
            sample: Sample { object: String::new(), line: 0, time: None, message: String::new(), stack: None },
            hours: BTreeMap::new(),
            objects: BTreeMap::new(),
        });
        group.count += 1;
        if let Some(time) = &time {
            if group.first_seen.as_ref().is_none_or(|first| time < first) {
                group.first_seen = Some(time.clone());
            }
            if group.last_seen.as_ref().is_none_or(|last| time > last) {
                group.last_seen = Some(time.clone());
            }
        }
        if let Some(hour) = hour {
            *group.hours.entry(hour).or_default() += 1;
        }
        *group.objects.entry(row.object.clone()).or_default() += 1;
        // The latest one is the sample, the same whatever the order of reading.
        if group.count == 1
            || place(&row.object, row.line, &time) > place(&group.sample.object, group.sample.line, &group.sample.time)
        {
            group.message = excerpt(&row.message, cut, masks);
            // A logger writes what it likes as the type, too.
            group.exception = row.exception.as_deref().map(|exception| excerpt(exception, cut, masks));
            group.level = row.level;
            group.category = row.category;
            group.sample = Sample {
                object: row.object,
                line: row.line,
                time,
                message: group.message.clone(),
                stack: row.stack.as_deref().map(|stack| excerpt(stack, cut, masks)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_told_wherever_it_stands() {
        let row = EntryRow {
            time: None,
            service: "shop".into(),
            level: "ERROR".into(),
            logger: None,
            category: "other".into(),
            fingerprint: "00".into(),
            exception: Some("a.Refused password=hunter2".into()),
            message: "login password=hunter2".into(),
            stack: Some("a.Refused password=hunter2".into()),
            object: "shop/2024/07/01/a.gz".into(),
            line: 1,
        };
        let mut groups = HashMap::new();
        group(&mut groups, [row], &logs::Settings::built_in().masks);
        let group = groups.into_values().next().expect("a group");
        assert_eq!(group.exception.as_deref(), Some("a.Refused password=***"));
        let told = format!("{group:?}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
