//! One version of a log object, from its bytes to staged parts and an intent. Readers see nothing of it yet.

use crate::claim::Holder;
use crate::commit::PARQUET;
use crate::{Deps, Error};
use events::s3::ObjectEvent;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use log_entries::{Attempt, Contribution, Damaged, ObjectVersion, Part, Sample, VersionIntent, part_name, write};
use logs::{Entry, Extraction, Mask, ObjectStats, Settings, date_of, excerpt, service_of};
use runtime::Call;
use std::collections::{BTreeMap, HashMap};

/// Bytes of entries that wait for a part of their own, in one partition and in all of them.
const PART_BYTES: usize = 8 << 20;
const WAITING_BYTES: usize = 24 << 20;
/// A sample's message and trace in DynamoDB, in bytes; an exception's type is no longer than a message.
const SAMPLE_MESSAGE: usize = 1 << 10;
const SAMPLE_STACK: usize = 4 << 10;
/// Hours of one fingerprint in one object that are told apart.
const HOURS: usize = 1000;

pub async fn run(
    deps: &Deps,
    settings: &Settings,
    event: &ObjectEvent,
    holder: &Holder,
    before: Option<ObjectVersion>,
    call: &Call,
) -> Result<VersionIntent, Error> {
    let mut object = deps.logs.open(&event.key, event.version_id.as_deref()).await?;
    let mut extraction = Extraction::new(&event.key, settings, deps.limits);
    let mut parts = Parts::new(event, holder, settings, deps.kinds);
    while !extraction.is_over() {
        if call.is_ending() {
            return Err(Error::OutOfTime { key: event.key.clone() });
        }
        match object.chunk().await? {
            Some(piece) => extraction.feed(piece),
            None => extraction.end(),
        }
        while let Some(entry) = extraction.next_entry() {
            parts.push(deps, entry).await?;
        }
    }
    parts.finish(deps, extraction.summary(), before).await
}

fn size(entry: &Entry) -> usize {
    200 + entry.message.len() + entry.stack.as_ref().map_or(0, String::len)
}

fn midnight(key: &str) -> Option<Timestamp> {
    date_of(key)?.to_zoned(TimeZone::UTC).map(|day| day.timestamp()).ok()
}

#[derive(Default)]
struct Waiting {
    entries: Vec<Entry>,
    bytes: usize,
}

/// Entries by partition, on their way into staged Parquet objects.
struct Parts<'a> {
    key: &'a str,
    service: &'a str,
    sequencer: String,
    version_id: Option<String>,
    attempt: Attempt,
    masks: &'a [Mask],
    arrived: Timestamp,
    /// When entries without a time were seen: on the date in the object's key, as in searches.
    undated: Timestamp,
    waiting: BTreeMap<(Date, bool), Waiting>,
    bytes: usize,
    staged: Vec<Part>,
    contributions: HashMap<String, Contribution>,
    /// How many of them there may be, and entries of others.
    kinds: usize,
    unlisted: u64,
}

impl<'a> Parts<'a> {
    fn new(event: &'a ObjectEvent, holder: &Holder, settings: &'a Settings, kinds: usize) -> Self {
        Parts {
            key: &event.key,
            service: service_of(&event.key),
            sequencer: holder.sequencer.clone(),
            version_id: event.version_id.clone(),
            attempt: Attempt { sequencer: holder.sequencer.clone(), number: holder.attempt },
            masks: &settings.masks,
            arrived: event.at,
            undated: midnight(&event.key).unwrap_or(event.at),
            waiting: BTreeMap::new(),
            bytes: 0,
            staged: Vec::new(),
            contributions: HashMap::new(),
            kinds,
            unlisted: 0,
        }
    }

    async fn push(&mut self, deps: &Deps, entry: Entry) -> Result<(), Error> {
        self.count(&entry);
        let date = entry.time.unwrap_or(self.arrived).to_zoned(TimeZone::UTC).date();
        let place = (date, entry.time.is_some());
        let waiting = self.waiting.entry(place).or_default();
        let bytes = size(&entry);
        waiting.bytes += bytes;
        waiting.entries.push(entry);
        let is_full = waiting.bytes >= PART_BYTES;
        self.bytes += bytes;
        if is_full {
            return self.flush(deps, place).await;
        }
        if self.bytes >= WAITING_BYTES
            && let Some(largest) = self.waiting.iter().max_by_key(|(_, waiting)| waiting.bytes).map(|(place, _)| *place)
        {
            return self.flush(deps, largest).await;
        }
        Ok(())
    }

    async fn flush(&mut self, deps: &Deps, place: (Date, bool)) -> Result<(), Error> {
        let Some(waiting) = self.waiting.remove(&place) else { return Ok(()) };
        self.bytes -= waiting.bytes;
        let (date, is_dated) = place;
        let part = Part { date, is_dated, number: self.staged.len() };
        let body = write(self.service, self.key, &waiting.entries);
        let body = body.map_err(|source| Error::Columns { key: self.key.to_owned(), source })?;
        deps.archive.put(&self.attempt.staged_key(self.key, part.number), body, PARQUET).await?;
        self.staged.push(part);
        Ok(())
    }

    fn count(&mut self, entry: &Entry) {
        if self.contributions.len() >= self.kinds && !self.contributions.contains_key(&entry.fingerprint) {
            self.unlisted += 1;
            return;
        }
        let time = format!("{:.3}", entry.time.unwrap_or(self.undated));
        let (key, masks) = (self.key, self.masks);
        let cut = |text: &str, bytes: usize| excerpt(text, bytes, masks);
        let known = self.contributions.entry(entry.fingerprint.clone()).or_insert_with(|| Contribution {
            fingerprint: entry.fingerprint.clone(),
            service: self.service.to_owned(),
            category: entry.category.clone(),
            level: entry.level.as_str().to_owned(),
            exception: entry.exception.as_deref().map(|exception| cut(exception, SAMPLE_MESSAGE)),
            count: 0,
            first_seen: time.clone(),
            last_seen: time.clone(),
            hours: BTreeMap::new(),
            sample: Sample {
                object: key.to_owned(),
                line: entry.line,
                time: entry.time.map(|time| format!("{time:.3}")),
                message: cut(&entry.message, SAMPLE_MESSAGE),
                stack: entry.stack.as_deref().map(|stack| cut(stack, SAMPLE_STACK)),
            },
        });
        known.count += 1;
        if time < known.first_seen {
            known.first_seen.clone_from(&time);
        }
        if time > known.last_seen {
            known.last_seen.clone_from(&time);
        }
        let hour = &time[..time.len().min(13)];
        if known.hours.len() < HOURS || known.hours.contains_key(hour) {
            *known.hours.entry(hour.to_owned()).or_default() += 1;
        } else if let Some(mut last) = known.hours.last_entry() {
            *last.get_mut() += 1;
        }
    }

    async fn finish(
        mut self,
        deps: &Deps,
        stats: ObjectStats,
        before: Option<ObjectVersion>,
    ) -> Result<VersionIntent, Error> {
        while let Some(place) = self.waiting.keys().next().copied() {
            self.flush(deps, place).await?;
        }
        let contributions = self.attempt.contributions_key(self.key);
        let mut list: Vec<Contribution> = self.contributions.into_values().collect();
        list.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
        deps.archive.put_lines(&contributions, &list).await?;
        let damaged =
            stats.damage.map(|damage| Damaged { error: damage.name().to_owned(), message: damage.text().to_owned() });
        let version = ObjectVersion {
            sequencer: self.sequencer,
            version_id: self.version_id,
            at: self.arrived,
            lines: stats.lines,
            bytes: stats.bytes,
            entries: stats.entries,
            unparsed: stats.unparsed,
            unlisted: self.unlisted,
            damaged,
            parts: self.staged,
            part_name: Some(part_name(self.key)),
            contributions,
        };
        Ok(VersionIntent { version, attempt: self.attempt.number, before })
    }
}
