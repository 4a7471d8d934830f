//! Holds what was seen against each other, and names everything that differs.

use crate::{
    Archive, Error, Finding, Outcome, Sum,
    evidence::{Evidence, JSONL, PARQUET, QUARANTINE},
    repair::Repair,
    rules::{Verdict, covered, judge, writer_of},
    unwritten,
};
use alerts::{
    keys::date_of,
    message::{
        classification::Disposition,
        document,
        tracking::{Archived, NO_INDEX, Row, Status, restored},
    },
    window::plan::{Interval, Window},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use columnar::ArchivedRow;
use identity::{Identity, instant};
use jiff::Timestamp;
use serde::Deserialize;
use sources::OpenSearch;
use std::collections::{HashMap, HashSet};
use storage::Objects;

pub struct Check<'a> {
    archive: &'a Archive,
    evidence: &'a Evidence,
    outcome: Outcome,
    /// Completed rows by the object that they name, as the ledger spells it.
    rows_of: HashMap<&'a str, Vec<&'a Row>>,
    /// Where messages go whose row is to be made from an object.
    placed: HashMap<Identity, String>,
    /// The last object outside these days that was looked into, and what it holds.
    beside: Option<(String, HashMap<Identity, String>)>,
}

#[derive(Deserialize)]
struct QuarantineLine {
    source_index: String,
    id: String,
    source_base64: String,
}

impl<'a> Check<'a> {
    pub async fn run(archive: &'a Archive, evidence: &'a Evidence, deep: bool) -> Result<Outcome, Error> {
        let outcome = Outcome {
            windows: evidence.windows_of_days().count() as u64,
            objects: evidence.objects.len() as u64,
            bytes: evidence.objects.values().map(|head| head.bytes).sum(),
            rows: evidence.rows.len() as u64,
            gone: evidence.rows.values().filter(|row| row.is_gone_unwritten()).count() as u64,
            ..Outcome::default()
        };
        let mut rows_of: HashMap<&str, Vec<&Row>> = HashMap::new();
        for row in evidence.rows.values().filter(|row| row.status == Status::Completed) {
            if let Some(path) = &row.s3_path {
                rows_of.entry(path).or_default().push(row);
            }
        }
        let mut check = Check { archive, evidence, outcome, rows_of, placed: HashMap::new(), beside: None };
        check.runs();
        check.manifests();
        let sound = check.objects().await?;
        check.rows().await?;
        if deep {
            check.contents(&sound).await?;
        }
        check.source(deep).await?;
        Ok(check.outcome)
    }

    fn find(
        &mut self,
        kind: &'static str,
        what: &str,
        day: Option<Timestamp>,
        detail: impl Into<String>,
        repair: Option<Repair>,
    ) {
        let (what, detail) = (what.to_owned(), detail.into());
        self.outcome.findings.push(Finding { kind, what, detail, repaired: None, would: None, day, repair });
    }

    fn runs(&mut self) {
        for error in &self.evidence.malformed {
            self.find("run_unreadable", "job-runs", None, error.to_string(), None);
        }
    }

    fn manifests(&mut self) {
        for rebuilt in &self.evidence.rebuilt {
            let repair = Repair::Manifest { key: rebuilt.key.clone(), manifest: Box::new(rebuilt.manifest.clone()) };
            self.find("manifest_missing", &rebuilt.key, Some(rebuilt.window_from), rebuilt.why.clone(), Some(repair));
        }
    }

    /// Judges every object that is there or should be; returns those that are sound.
    async fn objects(&mut self) -> Result<Vec<String>, Error> {
        let evidence = self.evidence;
        let mut keys: Vec<&String> = evidence.objects.keys().chain(evidence.named.keys()).collect();
        keys.sort();
        keys.dedup();
        let mut sound = Vec::new();
        for key in keys {
            let named = evidence.named.get(key).map(Vec::as_slice).unwrap_or_default();
            let writer_unfinished = writer_of(key).is_some_and(|writer| evidence.unfinished.contains(&writer));
            match judge(evidence.objects.get(key), named, writer_unfinished, evidence.may_lose_rows(key)) {
                Verdict::Sound => sound.push(key.clone()),
                Verdict::Unfinished => {}
                Verdict::Unnamed if writer_of(key).is_some_and(|writer| evidence.is_new(&writer)) => {}
                Verdict::Missing => self.missing(key).await?,
                Verdict::Unnamed => {
                    let detail = "no committed window wrote it, and none is at work that could have";
                    self.find("object_without_manifest", key, day_of(key), detail, None);
                }
                Verdict::Differs { detail } => self.differs("object_differs", key, detail).await?,
            }
        }
        Ok(sound)
    }

    async fn missing(&mut self, key: &str) -> Result<(), Error> {
        self.find("object_missing", key, day_of(key), "it is not in S3", Some(Repair::Strike { key: key.to_owned() }));
        let lost: Vec<Row> = self.rows_of(key).cloned().collect();
        self.lose(key, "is not in S3", lost).await
    }

    async fn lose(&mut self, key: &str, why: &str, rows: Vec<Row>) -> Result<(), Error> {
        for row in self.unchanged(rows).await? {
            let (id, at) = (row.message_id.clone(), row.timestamp);
            let repair = Repair::SetBack { row: Box::new(row), after: Some(key.to_owned()) };
            self.find("message_lost", &id, Some(at), format!("its object {key} {why}"), Some(repair));
        }
        Ok(())
    }

    /// Those of the rows that are still as they were read: a run may have come to the others since.
    async fn unchanged(&self, rows: Vec<Row>) -> Result<Vec<Row>, Error> {
        let key_of = |row: &Row| (row.message_id.clone(), Some(row.source_index.clone()));
        let keys: Vec<_> = rows.iter().map(key_of).collect();
        let now = self.archive.ledger.rows.get_many(&keys).await?;
        Ok(rows.into_iter().filter(|row| now.get(&key_of(row)) == Some(row)).collect())
    }

    /// Completed rows that name the object.
    fn rows_of(&self, key: &str) -> impl Iterator<Item = &'a Row> {
        let (evidence, uri) = (self.evidence, self.archive.objects.uri(key));
        let rows = self.rows_of.get(uri.as_str()).into_iter().flatten().copied();
        rows.filter(|row| !evidence.may_change(row))
    }

    /// An object that is not as its manifests say. What it holds decides: when it can be read, only the manifests are
    /// wrong, and each of its messages is looked at by itself.
    async fn differs(&mut self, kind: &'static str, key: &str, detail: String) -> Result<(), Error> {
        let body = self.archive.objects.find(key).await?.unwrap_or_default();
        match contents(&self.archive.objects, key, body.clone()) {
            Ok(held) => {
                self.find(kind, key, day_of(key), detail, Some(Repair::Name { key: key.to_owned() }));
                self.compare(key, body, &held).await
            }
            Err(error) => {
                let repair = Repair::SetAside { key: key.to_owned() };
                self.find(kind, key, day_of(key), format!("{detail}; it cannot be read: {error}"), Some(repair));
                let lost: Vec<Row> = self.rows_of(key).cloned().collect();
                self.lose(key, "cannot be read", lost).await
            }
        }
    }

    /// Rows that name nothing that is there, and rows that no window is about to finish.
    async fn rows(&mut self) -> Result<(), Error> {
        let evidence = self.evidence;
        let is_left = |row: &Row| {
            row.status != Status::Completed
                && row.disposition != Disposition::Open
                && !row.is_gone_unwritten()
                && evidence.days.hold(row.timestamp)
                && !evidence.is_at_work(row)
        };
        let mut rows: Vec<&Row> = evidence.rows.values().collect();
        rows.sort_by(|left, right| {
            (&left.message_id, &left.source_index).cmp(&(&right.message_id, &right.source_index))
        });
        let left: Vec<&Row> = rows.iter().copied().filter(|row| is_left(row)).collect();
        let absent = unwritten::gone(self.archive, &left).await?;
        let of_absent = left.iter().filter(|row| absent.contains(&row.identity())).copied().cloned().collect();
        let gone: HashSet<Identity> = self.unchanged(of_absent).await?.iter().map(Row::identity).collect();
        for row in rows {
            let key = row.s3_path.as_deref().and_then(|path| self.archive.objects.key_of(path));
            if row.status == Status::Completed {
                if evidence.may_change(row) {
                    continue;
                }
                // An object that is named is spoken of above; one of another day is not looked at now.
                let is_known = key.is_some_and(|key| {
                    !evidence.days.hold_key(key)
                        || evidence.objects.contains_key(key)
                        || evidence.named.contains_key(key)
                });
                if !is_known {
                    let place = row.s3_path.as_deref().unwrap_or("no object");
                    let repair = Repair::SetBack { row: Box::new(row.clone()), after: None };
                    let detail = format!("its ledger row is Completed and names {place}, which is not there");
                    self.find("message_lost", &row.message_id, Some(row.timestamp), detail, Some(repair));
                }
            } else if is_left(row) {
                self.unfinished(row, gone.contains(&row.identity()));
            }
        }
        Ok(())
    }

    /// A row that no run is at work on. `is_gone`: the source has its message no more.
    fn unfinished(&mut self, row: &Row, is_gone: bool) {
        let since = format!("its ledger row is {:?} since run {}", row.status, row.run_id);
        let (id, day) = (row.message_id.as_str(), Some(row.timestamp));
        if !is_gone {
            let advice = "a run over its day, or alert-archive run --mode process, finishes it";
            self.find("message_unfinished", id, day, format!("{since}; {advice}"), None);
        } else if self.evidence.is_meant(row) {
            let why = "the source has it no more, and its window is about to write it";
            let detail = format!("{since}; {why}: alert-archive rerun {} finishes that", row.run_id);
            self.find("message_unfinished", id, day, detail, None);
        } else {
            let detail = format!("{since}, none has written it, and the source has it no more");
            self.find("message_gone", id, day, detail, Some(Repair::Gone { row: Box::new(row.clone()) }));
        }
    }

    /// Reads every sound object and compares it, message by message, with the ledger.
    async fn contents(&mut self, sound: &[String]) -> Result<(), Error> {
        self.archive.progress.begin(sound.len(), "objects read");
        for key in sound.iter().filter(|key| !key.starts_with(JSONL)) {
            self.archive.progress.step();
            let Some(body) = self.archive.objects.find(key).await? else { continue };
            let sha256 = storage::sha256_hex(&body);
            let said = self.evidence.objects.get(key).and_then(|head| head.sha256.clone());
            if said.as_ref() != Some(&sha256) {
                // A run that began since may have taken rows out of it.
                if self.archive.objects.head(key).await?.is_none_or(|head| head.sha256 != said) {
                    continue;
                }
                self.differs("object_differs", key, format!("its bytes have sha256 {sha256}, S3 says {said:?}"))
                    .await?;
                continue;
            }
            match contents(&self.archive.objects, key, body.clone()) {
                Ok(held) => self.compare(key, body, &held).await?,
                Err(error) => self.differs("object_damaged", key, error).await?,
            }
        }
        self.archive.progress.end();
        Ok(())
    }

    /// Holds what an object holds against the ledger.
    async fn compare(&mut self, key: &str, body: Bytes, held: &HashMap<Identity, String>) -> Result<(), Error> {
        self.outcome.messages_read += held.len() as u64;
        if key.starts_with(PARQUET) {
            let damaged = |source| Error::Parquet { key: key.to_owned(), source };
            for row in columnar::rows(body).map_err(damaged)? {
                self.place(key, &row.map_err(damaged)?).await?;
            }
        }
        if key.starts_with(JSONL) {
            return Ok(());
        }
        let absent = |row: &&Row| version_in(held, row).is_none();
        let lost: Vec<Row> = self.rows_of(key).filter(absent).cloned().collect();
        for row in self.unchanged(lost).await? {
            let (id, at) = (row.message_id.clone(), row.timestamp);
            let repair = Repair::SetBack { row: Box::new(row), after: None };
            self.find(
                "message_lost",
                &id,
                Some(at),
                format!("its ledger row names {key}, which does not hold it"),
                Some(repair),
            );
        }
        if key.starts_with(QUARANTINE) {
            let altered = |row: &&Row| version_in(held, row).is_some_and(|version| *version != row.version);
            let altered: Vec<String> = self.rows_of(key).filter(altered).map(|row| row.message_id.clone()).collect();
            for id in altered {
                self.find(
                    "message_damaged",
                    &id,
                    day_of(key),
                    format!("its bytes in {key} are not those that were kept"),
                    None,
                );
            }
        }
        Ok(())
    }

    /// Whether the object is where the message belongs. Its ledger row decides, wherever that points.
    async fn place(&mut self, key: &str, archived: &ArchivedRow) -> Result<(), Error> {
        let identity = archived.identity.clone();
        let (id, day) = (archived.identity.id.as_str(), Some(archived.timestamp));
        if document::version(&archived.record.message) != archived.version {
            let row = self.evidence.rows.get(&identity).filter(|row| self.names(row, key)).cloned();
            let detail = format!("its bytes in {key} are not those that were archived");
            self.find("message_damaged", id, day, detail, Some(Repair::TakeOut { key: key.to_owned(), identity }));
            return self.lose(key, "does not hold it as it was archived", row.into_iter().collect()).await;
        }
        let mut row = match self.evidence.rows.get(&identity) {
            Some(row) => Some(row.clone()),
            None => self.archive.ledger.rows.get(&archived.identity.id, Some(&archived.identity.source_index)).await?,
        };
        if row.is_none() {
            // Its row has moved since to the index that has it now: no index had it, or another one took the place of
            // its own.
            let moved = self.archive.ledger.rows.partition(&archived.identity.id).await?;
            row = moved.into_iter().find(|row| self.names(row, key));
        }
        if row.as_ref().is_some_and(|row| self.evidence.may_change(row)) {
            return Ok(());
        }
        let fault = match &row {
            None => format!("it stands in {key}, but the ledger has no row for it"),
            Some(row) if row.status == Status::Completed && self.names(row, key) => {
                if row.version == archived.version {
                    return Ok(());
                }
                format!("its ledger row says sha256 {}, {key} holds {}", row.version, archived.version)
            }
            // A newer version is in quarantine, and the earlier one stays where it is.
            Some(row) if row.archived_path == Some(self.archive.objects.uri(key)) => return Ok(()),
            Some(row) => {
                if let Some(other) = self.other_place(row, &identity).await? {
                    let repair = Repair::TakeOut { key: key.to_owned(), identity };
                    self.find(
                        "message_twice",
                        id,
                        day,
                        format!("it stands in {key} and, as its ledger row says, in {other}"),
                        Some(repair),
                    );
                    return Ok(());
                }
                let place = row.s3_path.as_deref().unwrap_or("no object");
                format!("it stands in {key}, but its ledger row is {:?} and names {place}", row.status)
            }
        };
        if let Some(other) = self.placed.get(&identity) {
            let detail = format!("it stands in {key} and in {other}, and its ledger row names neither");
            self.find("message_twice", id, day, detail, Some(Repair::TakeOut { key: key.to_owned(), identity }));
            return Ok(());
        }
        self.placed.insert(identity, key.to_owned());
        let (history, audit) = (&archived.record.history, &archived.record.audit);
        let facts = Archived {
            document: archived.identity.clone(),
            timestamp: archived.timestamp,
            version: archived.version.clone(),
            related: document::related(history, audit),
            related_bytes: history.iter().chain(audit).map(|body| body.len() as u64).sum(),
            run_id: archived.run_id.clone(),
            no_alerts: archived.no_alerts,
        };
        let next = restored(row.as_ref(), facts, self.archive.objects.uri(key), self.archive.clock.now());
        self.find("row_differs", id, day, fault, Some(Repair::Row { row: Box::new(next) }));
        Ok(())
    }

    fn names(&self, row: &Row, key: &str) -> bool {
        row.s3_path == Some(self.archive.objects.uri(key))
    }

    /// The archive object that the row names, when it holds the message in the row's version.
    async fn other_place(&mut self, row: &Row, identity: &Identity) -> Result<Option<String>, Error> {
        let places = [&row.s3_path, &row.archived_path];
        let mut keys = places.into_iter().flatten().filter_map(|path| self.archive.objects.key_of(path));
        let Some(key) = keys.find(|key| key.starts_with(PARQUET)).map(str::to_owned) else { return Ok(None) };
        if self.beside.as_ref().is_none_or(|(known, _)| *known != key) {
            let body = self.archive.objects.find(&key).await?.unwrap_or_default();
            self.beside = Some((key.clone(), contents(&self.archive.objects, &key, body).unwrap_or_default()));
        }
        let is_held = self.beside.as_ref().is_some_and(|(_, held)| held.get(identity) == Some(&row.version));
        Ok(is_held.then_some(key))
    }

    /// Counts the source by day against the ledger, wherever windows have committed or found nothing.
    async fn source(&mut self, deep: bool) -> Result<(), Error> {
        let Some(source) = &self.archive.source else { return Ok(()) };
        let spans = covered(&self.evidence.runs, &self.evidence.windows);
        let spans: Vec<_> = spans.iter().filter_map(|span| self.evidence.days.cut(span)).collect();
        if spans.is_empty() {
            return Ok(());
        }
        let rows = || self.evidence.rows.values().filter(|row| !row.is_gone_unwritten());
        let mut instants: Vec<Timestamp> = rows().map(|row| row.timestamp).collect();
        instants.sort_unstable();
        let rows_before = |at: Timestamp| instants.partition_point(|instant| *instant < at) as u64;
        let mut suspicious = Vec::new();
        let mut sum = Sum::default();
        for span in spans {
            for row in rows().filter(|row| span.from <= row.timestamp && row.timestamp < span.to) {
                match row.disposition {
                    Disposition::Closed => sum.archived += 1,
                    Disposition::Open => sum.open += 1,
                    Disposition::Quarantined => sum.quarantined += 1,
                }
            }
            for day in source.histogram(span.from, span.to, Interval::Day).await? {
                sum.source += day.count;
                let known = rows_before(day.to) - rows_before(day.from);
                if day.count <= known && !deep {
                    continue;
                }
                let held = day.count - source.foreign(day.from, day.to).await?.min(day.count);
                // Counts may be equal although names differ: one message came, another went.
                if held > known || deep {
                    suspicious.push(Suspicious { from: day.from, to: day.to, held, known });
                }
            }
        }
        self.outcome.accounted = Some(sum);
        self.unknown_messages(source, &suspicious).await
    }

    /// Names the messages of these days that are in the source and in no row. Where each has one, there are more of them
    /// than rows of that day only because messages have moved in time: a row keeps the instant of what is archived.
    async fn unknown_messages(&mut self, source: &OpenSearch, days: &[Suspicious]) -> Result<(), Error> {
        for Suspicious { from, to, held, known } in days {
            let day = Window::new(*from, *to, 0);
            let mut strange = Vec::new();
            let look = |document: sources::Document| {
                let identity = Identity::new(document.hit.index, document.hit.id);
                if day.contains(document.at) && !is_known(self.evidence.rows.get(&identity)) {
                    strange.push(identity);
                }
            };
            source.for_each_name(&day, look).await?;
            let mut unknown = Vec::new();
            for name in strange {
                if !is_known(self.archive.ledger.rows.get(&name.id, Some(&name.source_index)).await?.as_ref()) {
                    unknown.push(name);
                }
            }
            if held > known && !unknown.is_empty() {
                let detail =
                    format!("the source holds {held} messages of that day, the ledger {known}; run the day again");
                self.find("source_unaccounted", &instant::date(day.from), Some(day.from), detail, None);
            }
            for name in unknown {
                let Identity { source_index, id } = &name;
                let detail = match self.evidence.rows.get(&name) {
                    None => format!("it stands in {source_index} and in no row of the ledger; run its day again"),
                    Some(_) => {
                        format!("it stands in {source_index} again, and its row calls it gone; run its day again")
                    }
                };
                self.find("message_unaccounted", id, Some(day.from), detail, None);
            }
        }
        Ok(())
    }
}

/// It has a row, which does not say that it is gone.
fn is_known(row: Option<&Row>) -> bool {
    row.is_some_and(|row| !row.is_gone_unwritten())
}

/// A day of which the source may hold messages that have no row.
struct Suspicious {
    from: Timestamp,
    to: Timestamp,
    /// Messages in the source, and rows.
    held: u64,
    known: u64,
}

/// The version in which an object holds a row's message, perhaps still under the name from before any index had it.
fn version_in<'a>(held: &'a HashMap<Identity, String>, row: &Row) -> Option<&'a String> {
    let of_no_index = || held.get(&Identity::new(NO_INDEX, &row.message_id));
    held.get(&row.archived_identity()).or_else(of_no_index)
}

fn day_of(key: &str) -> Option<Timestamp> {
    date_of(key).and_then(instant::parse)
}

/// The messages of an object, each with the sha256 of its bytes, or why it cannot be read.
fn contents(objects: &Objects, key: &str, body: Bytes) -> Result<HashMap<Identity, String>, String> {
    let mut held = HashMap::new();
    if key.starts_with(PARQUET) {
        for row in columnar::rows(body).map_err(|error| error.to_string())? {
            let row = row.map_err(|error| error.to_string())?;
            held.insert(row.identity, document::version(&row.record.message));
        }
    } else if key.starts_with(QUARANTINE) {
        let lines: Vec<QuarantineLine> = objects.decode_lines(key, &body).map_err(|error| error.to_string())?;
        for line in lines {
            let version =
                BASE64_STANDARD.decode(&line.source_base64).map(|body| document::version(&body)).unwrap_or_default();
            held.insert(Identity::new(line.source_index, line.id), version);
        }
    }
    Ok(held)
}
