//! How the row of a message may change. Every change is decided here, on what was read, and carried out on condition
//! that the row has not changed in between (its revision and its claim).
//!
//! A row is claimed for an attempt of a window (`Processing`) before the window registers its intent, and only that
//! attempt completes it. Another attempt, or another window, takes it over only when the claim is over: the window's
//! row then says that the attempt can never register an intent any more, or has carried out the one it registered.
//! `Pending` is what waits and no window has claimed: held-over messages, and what mode `extract` left.

use crate::message::classification::{Disposition, Outcome, Reason};
use crate::message::entry::{Entry, Written, is_zero};
use crate::source::Source;
use identity::{Identity, instant};
use jiff::{SignedDuration, Timestamp};
use ledger::{Keyed, Superseded};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{cmp::Ordering, collections::HashSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Pending,
    Processing,
    Completed,
    Failed,
}

/// An attempt of a window of a run that has claimed a row until it is completed; `run/window/attempt` in the row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    pub run_id: String,
    pub window_id: String,
    pub attempt: u64,
}

impl Serialize for Claim {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&format_args!("{}/{}/{}", self.run_id, self.window_id, self.attempt))
    }
}

impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let mut parts = text.rsplitn(3, '/');
        let (attempt, window_id, run_id) = (parts.next(), parts.next(), parts.next());
        let claim = attempt.and_then(|attempt| attempt.parse().ok()).zip(window_id).zip(run_id);
        let ((attempt, window_id), run_id) = claim.ok_or_else(|| D::Error::custom(format!("claim `{text}`")))?;
        Ok(Claim { run_id: run_id.to_owned(), window_id: window_id.to_owned(), attempt })
    }
}

/// A row of `message-tracking`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub message_id: String,
    pub source_index: String,
    pub status: Status,
    pub disposition: Disposition,
    /// The run, the window and its attempt that last staged or wrote the message.
    pub run_id: String,
    pub window_id: String,
    #[serde(default)]
    pub attempt: u64,
    /// When the source was read for it: the last of those readings.
    #[serde(default, with = "optional_iso", skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
    /// sha256 of the version that `s3_path` holds, or, before there is one, of the version staged.
    pub version: String,
    /// Hash of the history and audit that `s3_path` holds beside that version. Empty where that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub related: String,
    /// Their length in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub related_bytes: u64,
    /// Where this version is from.
    #[serde(default, skip_serializing_if = "Source::is_opensearch")]
    pub source: Source,
    /// The write that made the document what it was when a run read it last: it need not be read again until another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
    /// The document's own instant.
    #[serde(with = "instant::serde_iso")]
    pub timestamp: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub inserted_at: Timestamp,
    #[serde(default, with = "optional_iso", skip_serializing_if = "Option::is_none")]
    pub processed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3_path: Option<String>,
    /// Where an earlier version stands in the archive while `s3_path` is in quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_path: Option<String>,
    #[serde(default, with = "optional_iso", skip_serializing_if = "Option::is_none")]
    pub first_seen_open: Option<Timestamp>,
    /// When a run found an archived message open again. What is archived of it is then no longer final.
    #[serde(default, with = "optional_iso", skip_serializing_if = "Option::is_none")]
    pub reopened_at: Option<Timestamp>,
    /// Since when a message that is held over, or was never written, stands in no index any more: no run waits for it.
    /// Found again, it is dealt with again.
    #[serde(default, with = "optional_iso", skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_alerts: bool,
    /// Who is at work on the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Key of the sparse index: set while the row is open or unfinished. The index is in order of `timestamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<String>,
    /// The index after which the archive calls the message, where another index has taken that one's place since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_as: Option<String>,
    /// sha256 of the API's spelling of a version whose bytes in the archive are an index's, where the API alone is asked
    /// by now: another one is a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spelled: Option<String>,
    /// Grows with each change.
    pub revision: u64,
}

impl Keyed for Row {
    const PARTITION: &'static str = "message_id";
    const SORT: Option<&'static str> = Some("source_index");
    const OWNER: Option<&'static str> = Some("claim");

    fn key(&self) -> (String, Option<String>) {
        (self.message_id.clone(), Some(self.source_index.clone()))
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn revised(self, revision: u64) -> Self {
        Row { revision, ..self }
    }
}

impl Row {
    pub fn identity(&self) -> Identity {
        Identity::new(&self.source_index, &self.message_id)
    }

    /// Open, and looked at again by each scheduled run until it closes or is gone.
    pub fn is_held_over(&self) -> bool {
        self.disposition == Disposition::Open && self.staging.is_some() && self.claim.is_none()
    }

    /// What the message is called in the archive.
    pub fn archived_identity(&self) -> Identity {
        Identity::new(self.archived_as.as_ref().unwrap_or(&self.source_index), &self.message_id)
    }

    /// Key of the archive object that holds the newest closed version so far.
    pub fn archived_object(&self) -> Option<&str> {
        let path = self.s3_path.as_deref().filter(|_| !self.in_quarantine()).or(self.archived_path.as_deref())?;
        path.splitn(4, '/').nth(3)
    }

    /// Archived, and open again since, or gone from the source while it was.
    pub fn is_reopened(&self) -> bool {
        let is_unfinished = self.staging.is_some() || self.gone_at.is_some();
        self.disposition == Disposition::Open && is_unfinished && self.archived_object().is_some()
    }

    /// It left the source before a run had written it ([`gone_unwritten`]).
    pub fn is_gone_unwritten(&self) -> bool {
        self.status == Status::Failed && self.gone_at.is_some()
    }

    /// What `s3_path` names is a quarantine object.
    fn in_quarantine(&self) -> bool {
        self.s3_path.as_ref().is_some_and(|path| path.contains("/quarantine/"))
    }
}

pub(crate) mod optional_iso {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => instant::serde_iso::serialize(at, out),
            None => out.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Timestamp>, D::Error> {
        instant::serde_iso::deserialize(input).map(Some)
    }
}

/// The `source_index` of a message that the API has and no index, or none yet.
pub const NO_INDEX: &str = "api";

/// What becomes of the row of a message that is called after another place than the one in which it was read.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// The first of these rows makes way for the second.
    Take { before: Box<Row>, after: Box<Row> },
    /// A window is at work on it.
    Wait(Claim),
    /// There is none, or the message has a row of its own by now.
    Nothing,
}

/// `rows`: all that there are of the entry's id. A message that no index had is called after none, until one has it. An
/// index that took the place of another holds its messages: of the same bytes, or of the same instant where they have
/// changed since. The API knows no index: what it calls by an id is what was called so before.
pub fn moved(rows: &[Row], entry: &Entry, staging: &Staging) -> Move {
    let is_of_api = entry.index == NO_INDEX;
    if rows.iter().any(|row| row.source_index == entry.index) {
        return Move::Nothing;
    }
    let is_left = |row: &&Row| match &staging.present {
        _ if row.source_index == NO_INDEX => staging.had_api,
        Some(present) => !present.contains(&row.source_index),
        None => false,
    };
    let left: Vec<&Row> = rows.iter().filter(is_left).collect();
    let is_same = |row: &&&Row| {
        let is_alike = row.version == entry.version || row.timestamp == entry.at;
        is_alike || row.source_index == NO_INDEX || is_of_api && left.len() == 1
    };
    let last = |row: &&&Row| (row.source_index == NO_INDEX, row.version == entry.version, row.processed_at);
    let Some(row) = left.iter().filter(is_same).max_by_key(last) else { return Move::Nothing };
    if let Some(holder) = staging.holder(row) {
        return Move::Wait(holder.clone());
    }
    let is_of_no_index = row.source_index == NO_INDEX;
    let after = if is_of_no_index { rekeyed(row, &entry.index) } else { called_after(row, &entry.index) };
    Move::Take { before: Box::new((*row).clone()), after: Box::new(after) }
}

/// The row of a message that no index had, under the index that has it now. What is archived stays where it is.
fn rekeyed(row: &Row, source_index: &str) -> Row {
    let source_index = source_index.to_owned();
    let mut next = Row { source_index, claim: None, revision: 1, ..row.clone() };
    if next.staging.take().is_some() {
        into_staging(&mut next);
    }
    next
}

/// Shards of the sparse index: one partition would throttle.
const STAGING_SHARDS: u8 = 16;

/// The partition keys of the sparse index.
pub fn staging_shards() -> impl Iterator<Item = String> {
    (0..STAGING_SHARDS).map(staging_shard)
}

fn staging_shard(shard: u8) -> String {
    format!("open#{shard}")
}

fn staging_of(message_id: &str, source_index: &str) -> String {
    let hash = crate::message::document::version(format!("{source_index}/{message_id}").as_bytes());
    let byte = u8::from_str_radix(&hash[..2], 16).unwrap_or(0);
    staging_shard(byte % STAGING_SHARDS)
}

/// What classification decided for one entry of the spool index; a line of the decisions object, in the same order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Write it: nothing of this document is in the archive yet.
    Write,
    /// Write it and take the earlier version out of this object.
    Replace { object: String },
    /// Same version, same disposition: it is where it belongs.
    Already,
    /// Open, in staging.
    Hold,
    /// Claimed by a window that is not finished; decided again, when that claim is over, before the intent is made.
    Contested { claim: Claim },
}

/// What a step does about a row: perhaps a new state of it, and what that means for the window.
#[derive(Clone, Debug, PartialEq)]
pub struct Staged {
    pub row: Option<Row>,
    pub decision: Decision,
}

/// For whom documents are staged, and what is known of others.
#[derive(Clone, Debug)]
pub struct Staging {
    pub claim: Claim,
    /// When the window read the source. What a later reading found is never undone by an earlier one.
    pub seen_at: Timestamp,
    /// Nothing is to be written now: what is closed waits for mode `process`.
    pub waits: bool,
    /// Claims that are over: their attempts register no intent any more, and have none that is not carried out.
    pub over: HashSet<Claim>,
    /// Rows may be called after no index.
    pub had_api: bool,
    /// The indices of messages, where rows may be called after one that is not among them any more.
    pub present: Option<HashSet<String>>,
}

impl Staging {
    pub fn new(claim: Claim, seen_at: Timestamp, waits: bool) -> Self {
        Staging { claim, seen_at, waits, over: HashSet::new(), had_api: false, present: None }
    }

    /// With what the window found out beside its documents.
    pub fn after(self, had_api: bool, present: Option<&[String]>) -> Self {
        let present = present.map(|indices| indices.iter().cloned().collect());
        Staging { had_api, present, ..self }
    }

    /// The claim of another window that holds the row and must be waited for.
    fn holder<'r>(&self, row: &'r Row) -> Option<&'r Claim> {
        let own = &self.claim;
        let is_own = |claim: &Claim| claim.run_id == own.run_id && claim.window_id == own.window_id;
        // An earlier attempt of this window was fenced off before this one began.
        row.claim.as_ref().filter(|claim| !is_own(claim) && !self.over.contains(claim))
    }

    /// A later attempt of this window has dealt with the row already.
    fn check(&self, row: &Row) -> Result<(), Superseded> {
        let own = &self.claim;
        // A claimed row names its attempt as the one that staged it, too.
        let is_of_later = row.run_id == own.run_id && row.window_id == own.window_id && row.attempt > own.attempt;
        if is_of_later {
            return Err(Superseded { attempt: own.attempt, current: row.attempt });
        }
        Ok(())
    }

    /// A later reading has dealt with the row. One that found the document in no index says nothing of what was read of
    /// it before: that may be all there is of it. Nor does the time of one whose claim is over: it has written nothing.
    fn is_older_than(&self, row: &Row, entry: &Entry) -> bool {
        let is_last_seen = row.gone_at.is_some() && entry.outcome.disposition != Disposition::Open;
        let Some(seen_at) = row.seen_at.filter(|_| !is_last_seen) else { return false };
        let (by_content, by_time) = (order(entry, row), self.seen_at.cmp(&seen_at));
        let is_apart = self.seen_at.duration_since(seen_at).abs() > APART;
        if by_content == Ordering::Equal || is_apart && by_content != by_time {
            return row.claim.is_none() && by_time == Ordering::Less;
        }
        by_content == Ordering::Less
    }

    /// The row after a change, stamped with who made it; `None` when nothing changes, so that no write is needed.
    fn changed(&self, before: &Row, mut after: Row) -> Option<Row> {
        if *before == after {
            return None;
        }
        after.run_id = self.claim.run_id.clone();
        after.window_id = self.claim.window_id.clone();
        after.attempt = self.claim.attempt;
        after.seen_at = before.seen_at.max(Some(self.seen_at));
        after.revision = before.revision + 1;
        Some(after)
    }
}

/// Two readings that were begun further apart than this follow each other as their times say. Of others the times do
/// not tell: a point in time is opened a while after the time was noted ([`OPENED_WITHIN`]), one copy of a shard shows
/// a write later than another, and clocks differ.
const APART: SignedDuration = SignedDuration::from_mins(10);

/// A reading whose point in time was opened later than this after the time was noted begins anew.
pub const OPENED_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// Which is earlier of a document: what was read, or what its row tells. `Equal` where that cannot be seen. An index
/// numbers its writes, but from the beginning when it is made anew. History and audit only grow.
fn order(entry: &Entry, row: &Row) -> Ordering {
    let is_archived = row.status == Status::Completed;
    // A row that is claimed describes what is about to be written, unless it is archived; one whose changed message
    // waits for mode `process` still describes what is archived.
    let is_claimed_first = row.claim.is_some() && !is_archived;
    let waits = row.claim.is_none() && is_archived && row.staging.is_some() && row.disposition != Disposition::Open;
    let is_described = !is_claimed_first && !waits && row.gone_at.is_none();
    let (Some(own), Some(known)) = (entry.written, row.written.filter(|_| is_described)) else {
        return Ordering::Equal;
    };
    let by_number = (own.primary_term, own.seq_no).cmp(&(known.primary_term, known.seq_no));
    let has_related = !row.related.is_empty() && !entry.related.is_empty();
    let by_related = if has_related { entry.related_bytes.cmp(&row.related_bytes) } else { Ordering::Equal };
    by_number.then(by_related)
}

/// Stages a classified document: its row is claimed where the window has to write it.
pub fn stage(existing: Option<&Row>, entry: &Entry, staging: &Staging) -> Result<Staged, Superseded> {
    let Some(row) = existing else {
        let decision = if entry.outcome.disposition == Disposition::Open { Decision::Hold } else { Decision::Write };
        return Ok(Staged { row: Some(fresh(entry, staging)), decision });
    };
    staging.check(row)?;
    if let Some(holder) = staging.holder(row) {
        return Ok(Staged { row: None, decision: Decision::Contested { claim: holder.clone() } });
    }
    if staging.is_older_than(row, entry) {
        // Open, or left to mode `process` by an extraction: it waits, and is not archived.
        let decision = if row.staging.is_some() { Decision::Hold } else { Decision::Already };
        return Ok(Staged { row: staging.changed(row, Row { claim: None, ..row.clone() }), decision });
    }
    Ok(match (row.status, entry.outcome.disposition) {
        (Status::Completed, Disposition::Open) => hold_again(row, entry, staging),
        (Status::Completed, disposition) => restage_completed(row, entry, disposition, staging),
        (_, Disposition::Open) => hold(row, entry, staging),
        (_, disposition) => take(row, entry, disposition, staging),
    })
}

/// A reopened message: what is archived stays Completed, and the row returns to staging until it closes.
fn hold_again(row: &Row, entry: &Entry, staging: &Staging) -> Staged {
    let mut next = row.clone();
    next.claim = None;
    next.disposition = Disposition::Open;
    next.written = entry.written;
    next.reason = None;
    next.first_seen_open.get_or_insert(staging.seen_at);
    if row.archived_object().is_some() {
        next.reopened_at.get_or_insert(staging.seen_at);
    }
    into_staging(&mut next);
    Staged { row: staging.changed(row, next), decision: Decision::Hold }
}

fn restage_completed(row: &Row, entry: &Entry, disposition: Disposition, staging: &Staging) -> Staged {
    let in_quarantine = row.in_quarantine();
    let same_place = in_quarantine == (disposition == Disposition::Quarantined);
    let mut next = row.clone();
    next.claim = None;
    let left_alone = |next| Staged { row: staging.changed(row, next), decision: Decision::Already };
    if same_place && row.version == entry.version && has_same_related(row, entry) {
        describe(&mut next, &entry.outcome);
        if entry.source == Source::Opensearch {
            next.source = entry.source;
            next.written = entry.written;
            next.spelled = None;
        } else if row.source == Source::Opensearch && row.source_index == NO_INDEX {
            next.spelled = Some(entry.version.clone());
        }
        next.reopened_at = None;
        out_of_staging(&mut next);
        return left_alone(next);
    }
    let is_spelled_by_index = row.source == Source::Opensearch && row.disposition == Disposition::Closed;
    if same_place && !in_quarantine && is_spelled_by_index && entry.source == Source::Api {
        // Where API and index spell one message differently, the index's bytes stay. What changed since, the index
        // tells, or, where none is asked any more, another spelling.
        if row.source_index != NO_INDEX {
            return left_alone(next);
        }
        if row.spelled.as_ref().is_none_or(|spelled| *spelled == entry.version) {
            next.spelled = Some(entry.version.clone());
            return left_alone(next);
        }
    }
    if !in_quarantine && row.version == entry.version && entry.outcome.reason == Some(Reason::ByOperator) {
        // This very version is archived and verified: excluding it has no effect any more.
        return left_alone(next);
    }
    // Completed stays until the newer version is verified in S3.
    if staging.waits {
        into_staging(&mut next);
        if next.disposition == Disposition::Open {
            next.disposition = Disposition::Closed;
        }
    } else {
        next.claim = Some(staging.claim.clone());
    }
    Staged { row: staging.changed(row, next), decision: write(row, disposition) }
}

/// History and audit grow after a message is closed: then the same version is written once more, with what came.
fn has_same_related(row: &Row, entry: &Entry) -> bool {
    if row.related.is_empty() && row.source == Source::Api {
        // Archived while the API was the only source, which has neither.
        return entry.related_bytes == 0;
    }
    row.related.is_empty() || entry.related.is_empty() || row.related == entry.related
}

fn hold(row: &Row, entry: &Entry, staging: &Staging) -> Staged {
    let mut next = described(row, entry);
    next.status = Status::Pending;
    next.claim = None;
    next.first_seen_open.get_or_insert(staging.seen_at);
    into_staging(&mut next);
    Staged { row: staging.changed(row, next), decision: Decision::Hold }
}

fn take(row: &Row, entry: &Entry, disposition: Disposition, staging: &Staging) -> Staged {
    let mut next = described(row, entry);
    if staging.waits {
        next.status = Status::Pending;
        next.claim = None;
        into_staging(&mut next);
    } else {
        next.status = Status::Processing;
        next.claim = Some(staging.claim.clone());
    }
    Staged { row: staging.changed(row, next), decision: write(row, disposition) }
}

/// A version that is not where it belongs: an earlier one that stands in the archive goes when a closed one comes.
fn write(row: &Row, disposition: Disposition) -> Decision {
    let earlier = row.archived_object().filter(|_| disposition == Disposition::Closed);
    earlier.map_or(Decision::Write, |object| Decision::Replace { object: object.to_owned() })
}

/// The row as it stands after an attempt staged a closed document that had none.
pub fn as_staged_first(entry: &Entry, claim: &Claim, seen_at: Timestamp) -> Row {
    fresh(entry, &Staging::new(claim.clone(), seen_at, false))
}

/// The row is not this attempt's, nor completed by it in this place.
#[derive(Debug, PartialEq)]
pub struct Lost;

/// After the object was verified. `None`: the row says so already.
pub fn complete(row: &Row, entry: &Entry, claim: &Claim, s3_path: String, now: Timestamp) -> Result<Option<Row>, Lost> {
    if row.claim.as_ref() != Some(claim) {
        let is_done = row.status == Status::Completed && row.s3_path.as_ref() == Some(&s3_path);
        return if is_done && row.version == entry.version { Ok(None) } else { Err(Lost) };
    }
    let mut next = described(row, entry);
    next.status = Status::Completed;
    next.archived_path = match entry.outcome.disposition {
        // The earlier version stays in the archive, and goes when a newer one comes out of quarantine.
        Disposition::Quarantined if !row.in_quarantine() => row.s3_path.clone(),
        Disposition::Quarantined => row.archived_path.clone(),
        _ => None,
    };
    if next.archived_path.is_none() {
        next.archived_as = None;
    }
    next.spelled = None;
    next.s3_path = Some(s3_path);
    next.related = entry.related.clone();
    next.related_bytes = entry.related_bytes;
    next.processed_at = Some(now);
    next.reopened_at = None;
    next.run_id = claim.run_id.clone();
    next.window_id = claim.window_id.clone();
    next.attempt = claim.attempt;
    next.claim = None;
    out_of_staging(&mut next);
    next.revision = row.revision + 1;
    Ok(Some(next))
}

/// A held-over message that no index has any more leaves the staging area; what the ledger and the archive know of it
/// stays. `None` when the row is no longer the one that was looked for: it was found after all.
pub fn gone(row: &Row, looked_for: u64, now: Timestamp) -> Option<Row> {
    if row.revision != looked_for || !row.is_held_over() {
        return None;
    }
    let mut next = row.clone();
    out_of_staging(&mut next);
    next.gone_at = Some(now);
    next.reason = Some(GONE.to_owned());
    next.seen_at = Some(now);
    next.revision = row.revision + 1;
    Some(next)
}

/// A message that a run had staged and none has written, and that the source has no more: no run comes to its row.
/// `None` when something of it is archived, it is held over, or its row says so already. The claim must be over.
pub fn gone_unwritten(row: &Row, now: Timestamp) -> Option<Row> {
    if row.status == Status::Completed || row.disposition == Disposition::Open || row.is_gone_unwritten() {
        return None;
    }
    let mut next = row.clone();
    next.status = Status::Failed;
    next.claim = None;
    out_of_staging(&mut next);
    next.gone_at = Some(now);
    next.reason = Some(GONE.to_owned());
    next.revision = row.revision + 1;
    Some(next)
}

/// The row of a message under the index that took the place of its own; the archive goes on calling it after the
/// earlier one. `None` while a window is at work on it.
pub fn renamed(row: &Row, source_index: &str) -> Option<Row> {
    row.claim.is_none().then(|| called_after(row, source_index))
}

fn called_after(row: &Row, source_index: &str) -> Row {
    let is_archived = row.s3_path.is_some() || row.archived_path.is_some();
    let archived_as = is_archived.then(|| row.archived_identity().source_index);
    Row { archived_as, written: None, ..rekeyed(row, source_index) }
}

/// The `reason` of a row whose message is gone.
pub const GONE: &str = "gone";

/// The row was completed by this very claim, but for another object of its window: the intent was amended meanwhile.
pub fn was_completed_by(row: &Row, claim: &Claim) -> bool {
    let last = (row.run_id.as_str(), row.window_id.as_str(), row.attempt);
    row.claim.is_none()
        && row.status == Status::Completed
        && last == (claim.run_id.as_str(), claim.window_id.as_str(), claim.attempt)
}

/// A row whose object is lost: the next run over its day finds it pending and archives the message again.
pub fn set_back(row: &Row) -> Row {
    let mut next = row.clone();
    next.status = Status::Pending;
    next.s3_path = None;
    next.processed_at = None;
    next.claim = None;
    // Whatever is read next counts.
    next.seen_at = None;
    into_staging(&mut next);
    next.revision = row.revision + 1;
    next
}

/// What an archive object says of a message.
pub struct Archived {
    pub document: Identity,
    pub timestamp: Timestamp,
    /// sha256 of the bytes, in hex.
    pub version: String,
    /// Hash of the history and audit beside it: without it, what they grow by later would not be seen.
    pub related: String,
    /// Their length in bytes.
    pub related_bytes: u64,
    /// The run that wrote it.
    pub run_id: String,
    pub no_alerts: bool,
}

/// The row of a message that stands in an archive object, rebuilt from there.
pub fn restored(before: Option<&Row>, archived: Archived, s3_path: String, now: Timestamp) -> Row {
    let Archived { document, timestamp, version, related, related_bytes, run_id, no_alerts } = archived;
    Row {
        message_id: document.id,
        source_index: document.source_index,
        status: Status::Completed,
        disposition: Disposition::Closed,
        run_id,
        window_id: before.map(|row| row.window_id.clone()).unwrap_or_default(),
        attempt: before.map(|row| row.attempt).unwrap_or_default(),
        seen_at: None,
        version,
        related,
        related_bytes,
        source: before.map(|row| row.source).unwrap_or_default(),
        written: None,
        timestamp,
        inserted_at: before.map_or(now, |row| row.inserted_at),
        processed_at: before.and_then(|row| row.processed_at).or(Some(now)),
        s3_path: Some(s3_path),
        archived_path: None,
        first_seen_open: before.and_then(|row| row.first_seen_open),
        reopened_at: None,
        gone_at: None,
        reason: None,
        no_alerts,
        claim: None,
        staging: None,
        archived_as: None,
        spelled: None,
        revision: before.map_or(1, |row| row.revision + 1),
    }
}

fn fresh(entry: &Entry, staging: &Staging) -> Row {
    let Staging { claim, seen_at, waits, .. } = staging;
    let open = entry.outcome.disposition == Disposition::Open;
    let is_claimed = !open && !waits;
    let mut row = Row {
        message_id: entry.id.clone(),
        source_index: entry.index.clone(),
        status: if is_claimed { Status::Processing } else { Status::Pending },
        disposition: entry.outcome.disposition,
        run_id: claim.run_id.clone(),
        window_id: claim.window_id.clone(),
        attempt: claim.attempt,
        seen_at: Some(*seen_at),
        version: entry.version.clone(),
        related: String::new(),
        related_bytes: 0,
        source: entry.source,
        written: entry.written,
        timestamp: entry.at,
        inserted_at: *seen_at,
        processed_at: None,
        s3_path: None,
        archived_path: None,
        first_seen_open: open.then_some(*seen_at),
        reopened_at: None,
        gone_at: None,
        reason: None,
        no_alerts: false,
        claim: is_claimed.then(|| claim.clone()),
        staging: None,
        archived_as: None,
        spelled: None,
        revision: 1,
    };
    describe(&mut row, &entry.outcome);
    if !is_claimed {
        into_staging(&mut row);
    }
    row
}

/// The row with what the entry says of the document.
fn described(row: &Row, entry: &Entry) -> Row {
    let mut next = row.clone();
    describe(&mut next, &entry.outcome);
    next.version = entry.version.clone();
    next.source = entry.source;
    next.written = entry.written;
    next.timestamp = entry.at;
    next
}

fn describe(row: &mut Row, outcome: &Outcome) {
    row.disposition = outcome.disposition;
    row.reason = outcome.reason.map(|reason| reason.as_str().to_owned());
    row.no_alerts = outcome.no_alerts;
}

fn into_staging(row: &mut Row) {
    row.gone_at = None;
    row.staging.get_or_insert_with(|| staging_of(&row.message_id, &row.source_index));
}

fn out_of_staging(row: &mut Row) {
    row.gone_at = None;
    row.staging = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    fn at(text: &str) -> Timestamp {
        instant::parse(text).expect("instant")
    }

    fn claim(run: &str) -> Claim {
        Claim { run_id: run.into(), window_id: "w".into(), attempt: 1 }
    }

    /// Stages on behalf of `claim`, for a reading at `seen_at`.
    fn stage(existing: Option<&Row>, entry: &Entry, claim: &Claim, seen_at: Timestamp) -> Staged {
        super::stage(existing, entry, &Staging::new(claim.clone(), seen_at, false)).expect("not superseded")
    }

    fn entry(disposition: Disposition, version: &str) -> Entry {
        let outcome = Outcome { disposition, reason: None, no_alerts: false };
        Entry {
            index: "messages".into(),
            id: "m1".into(),
            at: at("2024-07-01"),
            version: version.into(),
            related: String::new(),
            related_bytes: 0,
            bytes: 1,
            source: Source::Opensearch,
            written: None,
            outcome,
        }
    }

    fn archived(version: &str) -> Row {
        let staged = stage(None, &entry(Disposition::Closed, version), &claim("r1"), at("2026-01-01"));
        let row = staged.row.expect("row");
        let path = "s3://b/archive/parquet/p".into();
        let completed = complete(&row, &entry(Disposition::Closed, version), &claim("r1"), path, at("2026-01-02"));
        completed.expect("its own").expect("changed")
    }

    #[test]
    fn a_message_that_no_index_had_keeps_its_age_and_its_object_under_its_index() {
        let of_the_api = Entry { index: NO_INDEX.into(), source: Source::Api, ..entry(Disposition::Open, "v1") };
        let held = stage(None, &of_the_api, &claim("r1"), at("2026-01-01")).row.expect("a row");
        let known = rekeyed(&held, "messages");
        assert_eq!(
            (known.first_seen_open, known.inserted_at, known.revision),
            (held.first_seen_open, held.inserted_at, 1)
        );
        assert_eq!(
            known.staging,
            stage(None, &entry(Disposition::Open, "v1"), &claim("r1"), at("2026-01-01")).row.expect("a row").staging
        );
        let archived = Row { source_index: NO_INDEX.into(), source: Source::Api, ..archived("v1") };
        let same = stage(
            Some(&rekeyed(&archived, "messages")),
            &entry(Disposition::Closed, "v1"),
            &claim("r2"),
            at("2026-02-01"),
        );
        assert_eq!(same.decision, Decision::Already);
        let other = stage(
            Some(&rekeyed(&archived, "messages")),
            &entry(Disposition::Closed, "v2"),
            &claim("r2"),
            at("2026-02-01"),
        );
        assert!(matches!(other.decision, Decision::Replace { .. }), "{other:?}");
    }

    #[test]
    fn the_bytes_of_the_index_win_over_those_of_the_api_and_stay() {
        let of = |source, version: &str| Entry { source, ..entry(Disposition::Closed, version) };
        let staged = |row: &Row, entry: &Entry| stage(Some(row), entry, &claim("r2"), at("2026-02-01"));
        let from_api = Row { source: Source::Api, ..archived("v1") };
        let first = staged(&from_api, &of(Source::Opensearch, "v2"));
        assert!(matches!(first.decision, Decision::Replace { .. }), "{first:?}");
        let claimed = first.row.expect("a row");
        let won = complete(&claimed, &of(Source::Opensearch, "v2"), &claim("r2"), "s3://b/k".into(), at("2026-02-01"))
            .expect("its own")
            .expect("a row");
        assert_eq!((won.version.as_str(), won.source), ("v2", Source::Opensearch));
        let again = staged(&won, &of(Source::Api, "v1"));
        assert_eq!((again.row, again.decision), (None, Decision::Already));
        // A message that was seen reopened is another matter, and so is one that the API alone has.
        let reopened = Row { disposition: Disposition::Open, ..won };
        assert!(matches!(staged(&reopened, &of(Source::Api, "v3")).decision, Decision::Replace { .. }));
        assert!(matches!(staged(&from_api, &of(Source::Api, "v3")).decision, Decision::Replace { .. }));
    }

    #[test]
    fn a_message_that_is_archived_at_once_is_written_twice_and_never_stands_in_the_index() {
        let first = stage(None, &entry(Disposition::Closed, "v1"), &claim("r1"), at("2026-01-01")).row.expect("row");
        assert_eq!((first.status, first.staging.as_deref()), (Status::Processing, None));
        assert_eq!(first, as_staged_first(&entry(Disposition::Closed, "v1"), &claim("r1"), at("2026-01-01")));
        let row = archived("v1");
        assert_eq!((row.status, row.staging.as_deref(), row.claim), (Status::Completed, None, None));
        assert_eq!(row.revision, 2);
    }

    #[test]
    fn the_same_version_again_changes_nothing() {
        let again = stage(Some(&archived("v1")), &entry(Disposition::Closed, "v1"), &claim("r2"), at("2026-02-01"));
        assert_eq!(again, Staged { row: None, decision: Decision::Already });
    }

    #[test]
    fn a_newer_version_replaces_and_stays_completed_meanwhile() {
        let again = stage(Some(&archived("v1")), &entry(Disposition::Closed, "v2"), &claim("r2"), at("2026-02-01"));
        assert_eq!(again.decision, Decision::Replace { object: "archive/parquet/p".into() });
        let row = again.row.expect("claimed");
        assert_eq!((row.status, row.version.as_str()), (Status::Completed, "v1"));
        assert_eq!(row.claim, Some(claim("r2")));
    }

    #[test]
    fn a_reopened_message_returns_to_staging_and_leaves_when_it_closes_unchanged() {
        let reopened = stage(Some(&archived("v1")), &entry(Disposition::Open, "v2"), &claim("r2"), at("2026-02-01"));
        let row = reopened.row.expect("row");
        assert_eq!(
            (reopened.decision, row.status, row.first_seen_open),
            (Decision::Hold, Status::Completed, Some(at("2026-02-01")))
        );
        let closed = stage(Some(&row), &entry(Disposition::Closed, "v1"), &claim("r3"), at("2026-03-01"));
        assert_eq!((closed.decision, closed.row.expect("row").staging), (Decision::Already, None));
    }

    #[test]
    fn first_seen_open_and_inserted_at_are_never_reset() {
        let first = stage(None, &entry(Disposition::Open, "v1"), &claim("r1"), at("2026-01-01")).row.expect("row");
        let second =
            stage(Some(&first), &entry(Disposition::Open, "v2"), &claim("r2"), at("2026-02-01")).row.expect("row");
        assert_eq!((second.first_seen_open, second.inserted_at), (Some(at("2026-01-01")), at("2026-01-01")));
        let closed = stage(Some(&second), &entry(Disposition::Closed, "v3"), &claim("r3"), at("2026-03-01"));
        assert_eq!(
            (closed.decision, closed.row.expect("row").first_seen_open),
            (Decision::Write, Some(at("2026-01-01")))
        );
    }

    #[test]
    fn a_row_that_another_window_writes_is_contested_until_its_claim_is_over() {
        let closed = entry(Disposition::Closed, "v1");
        let processing = stage(None, &closed, &claim("r1"), at("2026-01-01")).row.expect("row");
        let other = stage(Some(&processing), &closed, &claim("r2"), at("2026-02-01"));
        assert_eq!(other, Staged { row: None, decision: Decision::Contested { claim: claim("r1") } });
        let mut staging = Staging::new(claim("r2"), at("2026-02-01"), false);
        staging.over.insert(claim("r1"));
        let taken = super::stage(Some(&processing), &closed, &staging).expect("not superseded").row.expect("row");
        assert_eq!(taken.claim, Some(claim("r2")));
        assert_eq!(complete(&taken, &closed, &claim("r1"), "s3://b/k".into(), at("2026-02-02")), Err(Lost));
        // Of the window's attempts only those that were looked at are over.
        let second = Row { claim: Some(Claim { attempt: 2, ..claim("r1") }), ..processing };
        let again = super::stage(Some(&second), &closed, &staging).expect("not superseded");
        assert!(matches!(again.decision, Decision::Contested { .. }), "{again:?}");
    }

    #[test]
    fn a_superseded_attempt_neither_stages_nor_completes() {
        let (old, new) = (claim("r1"), Claim { attempt: 2, ..claim("r1") });
        let (closed, open) = (entry(Disposition::Closed, "v1"), entry(Disposition::Open, "v2"));
        let first = stage(None, &closed, &old, at("2026-01-01")).row.expect("row");
        let second = stage(Some(&first), &closed, &new, at("2026-01-02")).row.expect("row");
        let held = stage(Some(&second), &open, &new, at("2026-01-02")).row.expect("row");
        let path = || "s3://b/k".to_owned();
        assert_eq!(complete(&second, &closed, &old, path(), at("2026-01-03")), Err(Lost));
        let done = complete(&second, &closed, &new, path(), at("2026-01-03")).expect("its own").expect("changed");
        for row in [&second, &held, &done] {
            let late = super::stage(Some(row), &closed, &Staging::new(old.clone(), at("2026-01-01"), false));
            assert_eq!(late, Err(Superseded { attempt: 1, current: 2 }));
        }
    }

    #[test]
    fn an_earlier_reading_never_undoes_what_a_later_one_found() {
        let (closed, open) = (entry(Disposition::Closed, "v1"), entry(Disposition::Open, "v2"));
        let held = stage(None, &open, &claim("r2"), at("2026-02-02")).row.expect("row");
        let late = stage(Some(&held), &closed, &claim("r1"), at("2026-02-01"));
        assert_eq!(late, Staged { row: None, decision: Decision::Hold });
        let newer = stage(Some(&archived("v1")), &entry(Disposition::Closed, "v3"), &claim("r2"), at("2026-02-02"));
        let newer = complete(
            &newer.row.expect("row"),
            &entry(Disposition::Closed, "v3"),
            &claim("r2"),
            "s3://b/k".into(),
            at("2026-02-03"),
        );
        let newer = newer.expect("its own").expect("changed");
        let late = stage(Some(&newer), &entry(Disposition::Closed, "v2"), &claim("r1"), at("2026-02-01"));
        assert_eq!(late, Staged { row: None, decision: Decision::Already });
    }

    fn with_number(entry: Entry, seq_no: u64) -> Entry {
        Entry { written: Some(Written { seq_no, primary_term: 1 }), ..entry }
    }

    /// Archived by `r1`, which read the source at the given time.
    fn archived_at(entry: &Entry, seen_at: Timestamp) -> Row {
        let row = stage(None, entry, &claim("r1"), seen_at).row.expect("row");
        let path = "s3://b/archive/parquet/p".to_owned();
        complete(&row, entry, &claim("r1"), path, seen_at).expect("own").expect("changed")
    }

    #[test]
    fn of_two_readings_at_about_the_same_time_the_numbers_of_the_writes_tell_which_is_earlier() {
        let closed = |version: &str, seq_no| with_number(entry(Disposition::Closed, version), seq_no);
        let row = archived_at(&closed("v2", 5), at("2026-02-01T00:01:00Z"));
        // Its time was noted before that of the other, and its point in time opened behind.
        let slept = stage(Some(&row), &closed("v3", 8), &claim("r2"), at("2026-02-01T00:00:00Z"));
        assert_eq!(slept.decision, Decision::Replace { object: "archive/parquet/p".into() });
        assert_eq!(slept.row.expect("claimed").seen_at, row.seen_at, "what was known later is not forgotten");
        // And the other way round: the one that is archived slept.
        let early = stage(Some(&row), &closed("v1", 3), &claim("r2"), at("2026-02-01T00:02:00Z"));
        assert_eq!(early, Staged { row: None, decision: Decision::Already });
        let open = with_number(entry(Disposition::Open, "v1"), 3);
        let early = stage(Some(&row), &open, &claim("r2"), at("2026-02-01T00:02:00Z"));
        assert_eq!(early, Staged { row: None, decision: Decision::Already });
        // A primary that failed may have given numbers that its successor gives again.
        let later_term = Written { seq_no: 4, primary_term: 2 };
        let promoted = Entry { written: Some(later_term), ..closed("v3", 4) };
        let staged = stage(Some(&row), &promoted, &claim("r2"), at("2026-02-01T00:00:00Z"));
        assert!(matches!(staged.decision, Decision::Replace { .. }), "{staged:?}");
    }

    #[test]
    fn an_index_that_was_made_anew_numbers_its_writes_from_the_beginning() {
        let closed = |version: &str, seq_no| with_number(entry(Disposition::Closed, version), seq_no);
        let row = archived_at(&closed("v2", 500), at("2026-02-01T00:00:00Z"));
        let anew = stage(Some(&row), &closed("v3", 3), &claim("r2"), at("2026-02-01T01:00:00Z"));
        assert!(matches!(anew.decision, Decision::Replace { .. }), "{anew:?}");
        let late = stage(Some(&row), &closed("v1", 600), &claim("r2"), at("2026-01-31T23:00:00Z"));
        assert_eq!(late, Staged { row: None, decision: Decision::Already }, "from the index before, read before");
    }

    #[test]
    fn of_two_readings_of_one_version_the_one_with_less_history_is_earlier() {
        let closed = |related: &str, related_bytes| Entry {
            related: related.into(),
            related_bytes,
            ..with_number(entry(Disposition::Closed, "v1"), 5)
        };
        let row = archived_at(&closed("h2", 20), at("2026-02-01T00:01:00Z"));
        let slept = stage(Some(&row), &closed("h3", 30), &claim("r2"), at("2026-02-01T00:00:00Z"));
        assert!(matches!(slept.decision, Decision::Replace { .. }), "{slept:?}");
        let early = stage(Some(&row), &closed("h1", 10), &claim("r2"), at("2026-02-01T00:02:00Z"));
        assert_eq!(early, Staged { row: None, decision: Decision::Already });
        // Much later it is what the source has: some of its history was deleted there.
        let deleted = stage(Some(&row), &closed("h1", 10), &claim("r2"), at("2026-03-01"));
        assert!(matches!(deleted.decision, Decision::Replace { .. }), "{deleted:?}");
    }

    #[test]
    fn a_claim_that_is_over_does_not_hide_that_what_is_archived_is_newer() {
        let closed = |version: &str, seq_no| with_number(entry(Disposition::Closed, version), seq_no);
        let row = archived_at(&closed("v2", 5), at("2026-02-01T00:01:00Z"));
        let claimed = stage(Some(&row), &closed("v3", 8), &claim("r3"), at("2026-02-01T00:02:00Z")).row.expect("row");
        let mut staging = Staging::new(claim("r2"), at("2026-02-01"), false);
        staging.over.insert(claim("r3"));
        let early = super::stage(Some(&claimed), &closed("v1", 3), &staging).expect("not superseded");
        assert_eq!(early.decision, Decision::Already);
        let row = early.row.expect("it is claimed no more");
        assert_eq!((row.claim, row.version.as_str()), (None, "v2"));
        let next = super::stage(Some(&claimed), &closed("v3", 8), &staging).expect("not superseded");
        assert!(matches!(next.decision, Decision::Replace { .. }), "{next:?}");
    }

    #[test]
    fn an_earlier_reading_does_not_call_archived_what_an_extraction_left_waiting() {
        let extract = Staging::new(claim("r2"), at("2026-02-02"), true);
        let waiting = super::stage(None, &entry(Disposition::Closed, "v2"), &extract).expect("not superseded").row;
        let late = stage(waiting.as_ref(), &entry(Disposition::Closed, "v1"), &claim("r1"), at("2026-02-01"));
        assert_eq!(late, Staged { row: None, decision: Decision::Hold });
    }

    #[test]
    fn what_was_read_before_the_document_was_gone_is_archived() {
        let open = entry(Disposition::Open, "v1");
        let held = stage(None, &open, &claim("r1"), at("2026-01-01")).row.expect("row");
        let gone = gone(&held, held.revision, at("2026-02-02")).expect("gone");
        let late = stage(Some(&gone), &entry(Disposition::Closed, "v2"), &claim("r2"), at("2026-02-01"));
        assert_eq!(late.decision, Decision::Write);
        assert_eq!(late.row.expect("row").claim, Some(claim("r2")));
        // That it was open then is no news.
        assert_eq!(stage(Some(&gone), &open, &claim("r2"), at("2026-02-01")).row, None);
    }

    #[test]
    fn an_open_row_that_did_not_change_is_not_written_again() {
        let open = entry(Disposition::Open, "v1");
        let held = stage(None, &open, &claim("r1"), at("2026-01-01")).row.expect("row");
        let again = stage(Some(&held), &open, &claim("r2"), at("2026-02-01"));
        assert_eq!(again, Staged { row: None, decision: Decision::Hold });
        let reopened = stage(Some(&archived("v1")), &open, &claim("r2"), at("2026-02-01")).row.expect("row");
        assert_eq!(stage(Some(&reopened), &open, &claim("r3"), at("2026-03-01")).row, None);
    }

    #[test]
    fn a_message_that_left_before_it_was_written_is_marked_and_dealt_with_when_it_comes_back() {
        let claimed = stage(None, &entry(Disposition::Closed, "v1"), &claim("r1"), at("2026-01-01")).row.expect("row");
        let gone = gone_unwritten(&claimed, at("2026-01-02")).expect("marked");
        assert_eq!((gone.status, gone.claim.as_ref(), gone.staging.as_ref()), (Status::Failed, None, None));
        assert_eq!((gone.reason.as_deref(), gone.gone_at), (Some(GONE), Some(at("2026-01-02"))));
        assert!(gone.is_gone_unwritten() && gone_unwritten(&gone, at("2026-01-03")).is_none());
        assert_eq!(gone_unwritten(&archived("v1"), at("2026-01-02")), None, "something of it is archived");
        let held = stage(None, &entry(Disposition::Open, "v1"), &claim("r1"), at("2026-01-01")).row.expect("row");
        assert_eq!(gone_unwritten(&held, at("2026-01-02")), None, "the next run tells it");
        // Also by a call that had read it before it was gone.
        let again = stage(Some(&gone), &entry(Disposition::Closed, "v1"), &claim("r2"), at("2026-01-01"));
        let row = again.row.expect("claimed");
        assert_eq!((again.decision, row.status), (Decision::Write, Status::Processing));
        let marked = gone_unwritten(&row, at("2026-01-04")).expect("it dies too: marked again");
        assert!(marked.is_gone_unwritten() && marked.claim.is_none(), "{marked:?}");
        let path = "s3://b/archive/parquet/p".to_owned();
        let row = complete(&row, &entry(Disposition::Closed, "v1"), &claim("r2"), path, at("2026-01-04"));
        let row = row.expect("its own").expect("changed");
        assert_eq!((row.status, row.gone_at, row.reason), (Status::Completed, None, None));
        let reopened = stage(Some(&gone), &entry(Disposition::Open, "v2"), &claim("r2"), at("2026-02-01"));
        let row = reopened.row.expect("held over");
        assert_eq!((reopened.decision, row.gone_at, row.is_held_over()), (Decision::Hold, None, true));
    }

    #[test]
    fn what_an_extraction_finds_waits_in_the_index_changed_messages_too() {
        let extract = Staging::new(claim("r1"), at("2026-02-01"), true);
        let extracted = |row: Option<&Row>, version: &str| {
            super::stage(row, &entry(Disposition::Closed, version), &extract).expect("not superseded").row
        };
        let fresh = extracted(None, "v1").expect("row");
        assert_eq!((fresh.status, fresh.claim.as_ref(), fresh.staging.is_some()), (Status::Pending, None, true));
        let reopened = stage(Some(&archived("v1")), &entry(Disposition::Open, "v2"), &claim("r0"), at("2026-01-15"));
        for row in [archived("v1"), reopened.row.expect("row")] {
            let changed = extracted(Some(&row), "v3").expect("row");
            assert_eq!((changed.status, changed.disposition), (Status::Completed, Disposition::Closed));
            assert_eq!((changed.claim.as_ref(), changed.staging.is_some()), (None, true));
            let taken = stage(Some(&changed), &entry(Disposition::Closed, "v3"), &claim("r2"), at("2026-03-01"));
            assert!(matches!(taken.decision, Decision::Replace { .. }), "{taken:?}");
        }
        let taken = stage(Some(&fresh), &entry(Disposition::Closed, "v1"), &claim("r2"), at("2026-03-01"));
        let row = taken.row.expect("row");
        assert_eq!((row.status, row.staging.is_some()), (Status::Processing, true), "it stays until it is written");
    }

    #[test]
    fn a_message_whose_history_grew_is_written_again() {
        let with = |related: &str| Entry { related: related.into(), ..entry(Disposition::Closed, "v1") };
        let staged = stage(None, &with("h1"), &claim("r1"), at("2026-01-01")).row.expect("row");
        let path = "s3://b/archive/parquet/p".to_owned();
        let row = complete(&staged, &with("h1"), &claim("r1"), path, at("2026-01-02")).expect("own").expect("changed");
        let again = |entry: &Entry| stage(Some(&row), entry, &claim("r2"), at("2026-02-01")).decision;
        assert_eq!(again(&with("h1")), Decision::Already);
        assert_eq!(again(&with("h2")), Decision::Replace { object: "archive/parquet/p".into() });
        assert_eq!(again(&with("")), Decision::Already, "nothing is known of it this time");
        let unknown = Row { related: String::new(), ..row.clone() };
        assert_eq!(stage(Some(&unknown), &with("h2"), &claim("r2"), at("2026-02-01")).decision, Decision::Already);
    }

    #[test]
    fn a_message_that_was_archived_without_history_gets_it_from_a_source_that_has_it() {
        let without = Row { source: Source::Api, ..archived("v1") };
        let with = |related_bytes| {
            let entry = entry(Disposition::Closed, "v1");
            stage(
                Some(&without),
                &Entry { related: "r".into(), related_bytes, ..entry },
                &claim("r2"),
                at("2026-02-01"),
            )
        };
        assert_eq!(with(0).decision, Decision::Already, "there is none");
        assert_eq!(with(7).decision, Decision::Replace { object: "archive/parquet/p".into() });
        let of_the_api = Entry { source: Source::Api, ..entry(Disposition::Closed, "v1") };
        assert_eq!(stage(Some(&without), &of_the_api, &claim("r2"), at("2026-02-01")).decision, Decision::Already);
    }

    #[test]
    fn a_claim_is_written_in_one_word_and_read_again() {
        let claim = Claim { run_id: "weekly-1".into(), window_id: "20240701T000000.000Z--x".into(), attempt: 12 };
        let text = serde_json::to_value(&claim).expect("JSON");
        assert_eq!(text, "weekly-1/20240701T000000.000Z--x/12");
        assert_eq!(serde_json::from_value::<Claim>(text).expect("a claim"), claim);
        assert!(serde_json::from_value::<Claim>("weekly-1/x".into()).is_err());
    }

    #[test]
    fn a_version_in_quarantine_leaves_the_archived_one_alone_and_the_next_good_one_replaces_it() {
        let complete_at = |row: &Row, entry: &Entry, path: &str| {
            complete(row, entry, &claim("r2"), path.into(), at("2026-02-01")).expect("its own").expect("completed")
        };
        let (bad, good) = (entry(Disposition::Quarantined, "v2"), entry(Disposition::Closed, "v3"));
        let staged = stage(Some(&archived("v1")), &bad, &claim("r2"), at("2026-02-01"));
        assert_eq!(staged.decision, Decision::Write);
        let row = complete_at(&staged.row.expect("row"), &bad, "s3://b/quarantine/date=2024-07-01/q");
        assert_eq!(row.archived_path.as_deref(), Some("s3://b/archive/parquet/p"));
        let staged = stage(Some(&row), &good, &claim("r2"), at("2026-02-02"));
        assert_eq!(staged.decision, Decision::Replace { object: "archive/parquet/p".into() });
        assert_eq!(complete_at(&staged.row.expect("row"), &good, "s3://b/archive/parquet/p2").archived_path, None);
    }

    #[test]
    fn excluding_an_archived_version_changes_nothing_and_a_newer_one_is_quarantined() {
        let excluded = |version: &str| {
            let outcome =
                Outcome { reason: Some(Reason::ByOperator), ..entry(Disposition::Quarantined, version).outcome };
            stage(
                Some(&archived("v1")),
                &Entry { outcome, ..entry(Disposition::Quarantined, version) },
                &claim("r2"),
                at("2026-02-01"),
            )
        };
        assert_eq!(excluded("v1"), Staged { row: None, decision: Decision::Already });
        assert_eq!(excluded("v2").decision, Decision::Write);
    }

    #[test]
    fn a_message_out_of_quarantine_is_written_to_the_archive() {
        let mut row = archived("v1");
        row.s3_path = Some("s3://b/quarantine/date=2024-07-01/q".into());
        row.disposition = Disposition::Quarantined;
        let again = stage(Some(&row), &entry(Disposition::Quarantined, "v1"), &claim("r2"), at("2026-02-01"));
        assert_eq!(again, Staged { row: None, decision: Decision::Already });
        let fixed = stage(Some(&row), &entry(Disposition::Closed, "v2"), &claim("r2"), at("2026-02-01"));
        assert_eq!(fixed.decision, Decision::Write);
    }

    #[test]
    fn of_an_index_that_is_gone_a_message_is_known_by_its_bytes_or_its_instant_and_no_other_by_its_id_alone() {
        let present = HashSet::from(["i-2".to_owned(), "i-3".to_owned()]);
        let staging =
            Staging { present: Some(present), ..Staging::new(claim("r2"), at("2026-02-01T00:00:00Z"), false) };
        let read = |version: &str, day: &str| Entry {
            index: "i-2".into(),
            at: at(day),
            ..entry(Disposition::Closed, version)
        };
        let row = |index: &str, version: &str, day: &str| Row {
            source_index: index.into(),
            timestamp: at(day),
            ..archived(version)
        };
        let from = |rows: &[Row], entry: &Entry, staging: &Staging| match moved(rows, entry, staging) {
            Move::Take { before, after } => {
                assert_eq!((after.source_index.as_str(), after.revision), (entry.index.as_str(), 1));
                assert_eq!(after.archived_as.as_ref(), Some(&before.source_index));
                Some(before.source_index)
            }
            _ => None,
        };
        let gone = row("i-1", "v1", "2024-07-01");
        assert_eq!(from(from_ref(&gone), &read("v1", "2024-07-02"), &staging).as_deref(), Some("i-1"), "its bytes");
        assert_eq!(from(from_ref(&gone), &read("v2", "2024-07-01"), &staging).as_deref(), Some("i-1"), "its instant");
        assert_eq!(from(from_ref(&gone), &read("v2", "2024-07-02"), &staging), None, "another message of that id");
        let others = [row("i-0", "v0", "2024-07-01"), gone.clone(), row("i-3", "v1", "2024-07-01")];
        assert_eq!(from(&others, &read("v1", "2024-07-01"), &staging).as_deref(), Some("i-1"), "the same bytes first");
        assert_eq!(from(&others[2..], &read("v1", "2024-07-01"), &staging), None, "that index is still there");
        let own = [gone.clone(), row("i-2", "v1", "2024-07-01")];
        assert_eq!(from(&own, &read("v1", "2024-07-01"), &staging), None, "it has a row of its own");
        let none = Staging { present: None, ..staging.clone() };
        assert_eq!(from(from_ref(&gone), &read("v1", "2024-07-01"), &none), None, "no index is gone");
        let listed = |version: &str| Entry { index: NO_INDEX.into(), ..read(version, "2024-07-02") };
        let alone = Staging { present: Some(HashSet::new()), had_api: true, ..staging };
        assert_eq!(from(from_ref(&gone), &listed("v2"), &alone).as_deref(), Some("i-1"), "the API has one of an id");
        assert_eq!(from(&[gone, row("i-3", "v3", "2024-07-01")], &listed("v2"), &alone), None, "which of the two?");
    }
}
