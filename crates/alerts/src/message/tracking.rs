//! How the row of a message may change. Every change is decided here, on what was read, and carried out on condition
//! that the row has not changed in between (its revision).

use crate::message::classification::{Disposition, Outcome, Reason};
use crate::message::entry::{Entry, Written};
use crate::source::Source;
use identity::{Identity, instant};
use jiff::Timestamp;
use ledger::Keyed;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Pending,
    Processing,
    Completed,
    Failed,
}

/// A window of a run that has claimed a row until it is completed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    pub run_id: String,
    pub window_id: String,
}

/// A row of `message-tracking`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub message_id: String,
    pub source_index: String,
    pub status: Status,
    pub disposition: Disposition,
    /// The run and window that last staged or wrote the message.
    pub run_id: String,
    pub window_id: String,
    /// sha256 of the version that `s3_path` holds, or, before there is one, of the version staged.
    pub version: String,
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
    /// Since when a held-over message stands in no index any more: no run waits for it. Found again, it is held over again.
    #[serde(default, with = "optional_iso", skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_alerts: bool,
    /// `run/window` while one of them works on the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Key of the sparse index: set while the row is open or unfinished. The index is in order of `timestamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<String>,
    /// Of a row that is called after no index: the index whose row takes its place. It is named before that row is written,
    /// so that of two documents of one id, in two indices, one takes it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_to: Option<String>,
    /// The index after which the archive calls the message, where another index has taken that one's place since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_as: Option<String>,
    /// Grows with each change.
    pub revision: u64,
}

impl Keyed for Row {
    const PARTITION: &'static str = "message_id";
    const SORT: Option<&'static str> = Some("source_index");

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

/// What becomes of the row of a message that no index had, when `source_index` has a document of its id.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// The row names this index first; then all is looked at again.
    Name(Box<Row>),
    /// This row is written, and then the earlier one deleted.
    Take(Box<Row>),
    /// The row of this index stands already: the earlier one is deleted.
    Leave,
    /// A window is at work on it.
    Wait(Claim),
    /// It is another document's, or that of none that is known.
    Nothing,
}

/// `own`: the row of the document in `source_index`, where there is one; `earlier`: the one that is called after no index.
pub fn moved(own: Option<&Row>, earlier: &Row, source_index: &str) -> Move {
    match (&earlier.moves_to, own, &earlier.claim) {
        (Some(index), ..) if index != source_index => Move::Nothing,
        (Some(_), Some(_), _) => Move::Leave,
        (None, Some(_), _) => Move::Nothing,
        (_, None, Some(claim)) => Move::Wait(claim.clone()),
        (Some(_), None, None) => Move::Take(Box::new(rekeyed(earlier, source_index))),
        (None, None, None) => {
            let (moves_to, revision) = (Some(source_index.to_owned()), earlier.revision + 1);
            Move::Name(Box::new(Row { moves_to, revision, ..earlier.clone() }))
        }
    }
}

/// The row of a message that no index had, under the index that has it now. What is archived stays where it is.
fn rekeyed(row: &Row, source_index: &str) -> Row {
    let mut next = Row { source_index: source_index.to_owned(), moves_to: None, revision: 1, ..row.clone() };
    if next.staging.take().is_some() {
        into_staging(&mut next);
    }
    next
}

/// Shards of the sparse index: one partition would throttle.
pub const STAGING_SHARDS: u8 = 16;

pub fn staging_shard(shard: u8) -> String {
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
    /// Claimed by a window that did not finish; decided again, without that claim, before the intent is made.
    Contested { run_id: String, window_id: String },
}

/// What a step does about a row: perhaps a new state of it, and what that means for the window.
#[derive(Clone, Debug, PartialEq)]
pub struct Staged {
    pub row: Option<Row>,
    pub decision: Decision,
}

/// Stages a classified document on behalf of `claim`. The window's earlier attempts are the same claim.
pub fn stage(existing: Option<&Row>, entry: &Entry, claim: &Claim, now: Timestamp) -> Staged {
    let Some(row) = existing else {
        let decision = if entry.outcome.disposition == Disposition::Open { Decision::Hold } else { Decision::Write };
        return Staged { row: Some(fresh(entry, claim, now)), decision };
    };
    if let Some(holder) = row.claim.as_ref().filter(|holder| *holder != claim && row.status != Status::Pending) {
        let Claim { run_id, window_id } = holder.clone();
        return Staged { row: None, decision: Decision::Contested { run_id, window_id } };
    }
    match (row.status, entry.outcome.disposition) {
        (Status::Completed, Disposition::Open) => hold_again(row, entry, now),
        (Status::Completed, disposition) => restage_completed(row, entry, disposition, claim),
        (_, Disposition::Open) => {
            let mut next = restaged(row, entry, claim, now);
            next.claim = None;
            Staged { row: changed(row, next), decision: Decision::Hold }
        }
        (_, disposition) => {
            Staged { row: changed(row, restaged(row, entry, claim, now)), decision: write(row, disposition) }
        }
    }
}

/// A reopened message: what is archived stays Completed, and the row returns to staging until it closes.
fn hold_again(row: &Row, entry: &Entry, now: Timestamp) -> Staged {
    let mut next = row.clone();
    next.disposition = Disposition::Open;
    next.written = entry.written;
    next.reason = None;
    next.first_seen_open.get_or_insert(now);
    into_staging(&mut next);
    Staged { row: changed(row, next), decision: Decision::Hold }
}

fn restage_completed(row: &Row, entry: &Entry, disposition: Disposition, claim: &Claim) -> Staged {
    let in_quarantine = row.in_quarantine();
    let same_place = in_quarantine == (disposition == Disposition::Quarantined);
    let mut next = row.clone();
    if same_place && row.version == entry.version {
        describe(&mut next, &entry.outcome);
        if entry.source == Source::Opensearch {
            next.source = entry.source;
            next.written = entry.written;
        }
        out_of_staging(&mut next);
        return Staged { row: changed(row, next), decision: Decision::Already };
    }
    let is_spelled_by_index = row.source == Source::Opensearch && row.disposition == Disposition::Closed;
    if same_place && !in_quarantine && is_spelled_by_index && entry.source == Source::Api {
        // Where API and index spell one message differently, the index's bytes stay. What changed since, the index tells.
        return Staged { row: None, decision: Decision::Already };
    }
    if !in_quarantine && row.version == entry.version && entry.outcome.reason == Some(Reason::ByOperator) {
        // This very version is archived and verified: excluding it has no effect any more.
        return Staged { row: None, decision: Decision::Already };
    }
    // Completed stays until the newer version is verified in S3.
    next.claim = Some(claim.clone());
    into_staging(&mut next);
    Staged { row: changed(row, next), decision: write(row, disposition) }
}

/// A version that is not where it belongs: an earlier one that stands in the archive goes when a closed one comes.
fn write(row: &Row, disposition: Disposition) -> Decision {
    let archived = row.s3_path.as_deref().filter(|_| !row.in_quarantine()).or(row.archived_path.as_deref());
    let earlier = archived.and_then(|path| path.splitn(4, '/').nth(3)).filter(|_| disposition == Disposition::Closed);
    earlier.map_or(Decision::Write, |object| Decision::Replace { object: object.to_owned() })
}

/// Before the intent: a closed or quarantined row that this window will write. `None` when nothing has to change.
pub fn claim_for_writing(row: &Row, claim: &Claim) -> Result<Option<Row>, Lost> {
    if row.claim.as_ref() != Some(claim) {
        return Err(Lost);
    }
    let mut next = row.clone();
    if next.status == Status::Pending || next.status == Status::Failed {
        next.status = Status::Processing;
    }
    Ok(changed(row, next))
}

/// The row is no longer this window's.
#[derive(Debug, PartialEq)]
pub struct Lost;

/// After the object was verified. `None` when the row is completed already, or claimed by another window.
pub fn complete(row: &Row, entry: &Entry, claim: &Claim, s3_path: String, now: Timestamp) -> Option<Row> {
    if row.claim.as_ref() != Some(claim) {
        return None;
    }
    let mut next = row.clone();
    next.status = Status::Completed;
    next.version = entry.version.clone();
    next.source = entry.source;
    next.written = entry.written;
    next.timestamp = entry.at;
    next.archived_path = match entry.outcome.disposition {
        // The earlier version stays in the archive, and goes when a newer one comes out of quarantine.
        Disposition::Quarantined if !row.in_quarantine() => row.s3_path.clone(),
        Disposition::Quarantined => row.archived_path.clone(),
        _ => None,
    };
    if next.archived_path.is_none() {
        next.archived_as = None;
    }
    next.s3_path = Some(s3_path);
    next.processed_at = Some(now);
    next.run_id = claim.run_id.clone();
    next.window_id = claim.window_id.clone();
    describe(&mut next, &entry.outcome);
    next.claim = None;
    out_of_staging(&mut next);
    changed(row, next)
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
    changed(row, next)
}

/// The row of a message under the index that took the place of its own; the archive goes on calling it after the earlier
/// one. `None` while a window is at work on it.
pub fn renamed(row: &Row, source_index: &str) -> Option<Row> {
    let is_archived = row.s3_path.is_some() || row.archived_path.is_some();
    let archived_as = is_archived.then(|| row.archived_identity().source_index);
    let next = || Row { archived_as, written: None, ..rekeyed(row, source_index) };
    row.claim.is_none().then(next)
}

/// The `reason` of a row whose message is gone.
pub const GONE: &str = "gone";

/// Releases a dead window's claim on a row; `complete` of that window no longer finds it.
pub fn release(row: &Row, claim: &Claim) -> Option<Row> {
    if row.claim.as_ref() != Some(claim) {
        return None;
    }
    let mut next = row.clone();
    if next.status == Status::Processing {
        next.status = Status::Pending;
    }
    next.claim = None;
    changed(row, next)
}

/// A row whose object is lost: the next run over its day finds it pending and archives the message again.
pub fn set_back(row: &Row) -> Row {
    let mut next = row.clone();
    next.status = Status::Pending;
    next.s3_path = None;
    next.processed_at = None;
    next.claim = None;
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
    /// The run that wrote it.
    pub run_id: String,
    pub no_alerts: bool,
}

/// The row of a message that stands in an archive object, rebuilt from there.
pub fn restored(before: Option<&Row>, archived: Archived, s3_path: String, now: Timestamp) -> Row {
    let Archived { document, timestamp, version, run_id, no_alerts } = archived;
    Row {
        message_id: document.id,
        source_index: document.source_index,
        status: Status::Completed,
        disposition: Disposition::Closed,
        run_id,
        window_id: before.map(|row| row.window_id.clone()).unwrap_or_default(),
        version,
        source: before.map(|row| row.source).unwrap_or_default(),
        written: None,
        timestamp,
        inserted_at: before.map_or(now, |row| row.inserted_at),
        processed_at: before.and_then(|row| row.processed_at).or(Some(now)),
        s3_path: Some(s3_path),
        archived_path: None,
        first_seen_open: before.and_then(|row| row.first_seen_open),
        gone_at: None,
        reason: None,
        no_alerts,
        claim: None,
        staging: None,
        moves_to: None,
        archived_as: None,
        revision: before.map_or(1, |row| row.revision + 1),
    }
}

fn fresh(entry: &Entry, claim: &Claim, now: Timestamp) -> Row {
    let open = entry.outcome.disposition == Disposition::Open;
    let mut row = Row {
        message_id: entry.id.clone(),
        source_index: entry.index.clone(),
        status: Status::Pending,
        disposition: entry.outcome.disposition,
        run_id: claim.run_id.clone(),
        window_id: claim.window_id.clone(),
        version: entry.version.clone(),
        source: entry.source,
        written: entry.written,
        timestamp: entry.at,
        inserted_at: now,
        processed_at: None,
        s3_path: None,
        archived_path: None,
        first_seen_open: open.then_some(now),
        gone_at: None,
        reason: None,
        no_alerts: false,
        claim: (!open).then(|| claim.clone()),
        staging: None,
        moves_to: None,
        archived_as: None,
        revision: 1,
    };
    describe(&mut row, &entry.outcome);
    into_staging(&mut row);
    row
}

fn restaged(row: &Row, entry: &Entry, claim: &Claim, now: Timestamp) -> Row {
    let mut next = row.clone();
    describe(&mut next, &entry.outcome);
    if next.status == Status::Failed {
        next.status = Status::Pending;
    }
    if next.disposition == Disposition::Open {
        next.status = Status::Pending;
        next.first_seen_open.get_or_insert(now);
    }
    next.version = entry.version.clone();
    next.source = entry.source;
    next.written = entry.written;
    next.timestamp = entry.at;
    next.run_id = claim.run_id.clone();
    next.window_id = claim.window_id.clone();
    next.claim = Some(claim.clone());
    into_staging(&mut next);
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

/// A changed row gets the next revision; an unchanged one needs no write, so a rerun over open messages writes nothing.
fn changed(before: &Row, mut after: Row) -> Option<Row> {
    if *before == after {
        return None;
    }
    after.revision = before.revision + 1;
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        instant::parse(text).expect("instant")
    }

    fn claim(run: &str) -> Claim {
        Claim { run_id: run.into(), window_id: "w".into() }
    }

    fn entry(disposition: Disposition, version: &str) -> Entry {
        let outcome = Outcome { disposition, reason: None, no_alerts: false };
        Entry {
            index: "messages".into(),
            id: "m1".into(),
            at: at("2024-07-01"),
            version: version.into(),
            bytes: 1,
            source: Source::Opensearch,
            written: None,
            outcome,
        }
    }

    fn archived(version: &str) -> Row {
        let staged = stage(None, &entry(Disposition::Closed, version), &claim("r1"), at("2026-01-01"));
        let row = claim_for_writing(&staged.row.expect("row"), &claim("r1")).expect("mine").expect("changed");
        complete(
            &row,
            &entry(Disposition::Closed, version),
            &claim("r1"),
            "s3://b/archive/parquet/p".into(),
            at("2026-01-02"),
        )
        .expect("completed")
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
    fn a_closed_message_goes_through_all_three_states() {
        let row = archived("v1");
        assert_eq!((row.status, row.staging.as_deref(), row.claim), (Status::Completed, None, None));
        assert_eq!(row.revision, 3);
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
        assert!(row.staging.is_some());
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
    fn a_row_that_another_window_writes_is_contested_and_one_it_only_staged_is_taken_over() {
        let pending = stage(None, &entry(Disposition::Closed, "v1"), &claim("r1"), at("2026-01-01")).row.expect("row");
        let processing = claim_for_writing(&pending, &claim("r1")).expect("mine").expect("changed");
        let other = stage(Some(&processing), &entry(Disposition::Closed, "v1"), &claim("r2"), at("2026-02-01"));
        assert_eq!(other.decision, Decision::Contested { run_id: "r1".into(), window_id: "w".into() });
        let taken =
            stage(Some(&pending), &entry(Disposition::Closed, "v1"), &claim("r2"), at("2026-02-01")).row.expect("row");
        assert_eq!(claim_for_writing(&taken, &claim("r1")), Err(Lost));
        assert_eq!(
            complete(&taken, &entry(Disposition::Closed, "v1"), &claim("r1"), "s3://b/k".into(), at("2026-02-02")),
            None
        );
    }

    #[test]
    fn a_version_in_quarantine_leaves_the_archived_one_alone_and_the_next_good_one_replaces_it() {
        let complete_at = |row: &Row, entry: &Entry, path: &str| {
            complete(row, entry, &claim("r2"), path.into(), at("2026-02-01")).expect("completed")
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
}
