//! Why a reader sees each record once and in order, although messages come twice, late, in any order and to several
//! functions at once, and any function can be killed at any moment.
//!
//! # Rows and objects
//!
//! - A *file* ([`FeedFile`], table `feed-files`) is one version of one source object. It is read from front to back, in
//!   one part or, when it is large, in several. Its row says how far its records have come out, and which batch holds
//!   it.
//! - A *batch* ([`Batch`], table `feed-batches`) is one round of work over parts of files: a [`ledger::Work`] whose
//!   intent is a [`Plan`].
//! - The *intent* ([`BatchIntent`], `feeds/intents/...` in the archive bucket) names the parts, and each output object
//!   with its key, size and sha256. The outputs' bytes lie beside it in one staged object (`feeds/staged/...`), so that
//!   nothing is asked of the source again: it may be overwritten or deleted by then. S3 verifies them by a CRC-32 when
//!   they arrive, and the batch that brings them out compares them with the intent.
//! - The *numbers* ([`Numbers`]) are one row: the last microsecond that was given to an output. Who needs n numbers
//!   raises it by conditional write to at least the present microsecond plus n. No number is given twice.
//!
//! # Steps of a round
//!
//! 1. Create the batch's row (`Claimed`, with a lease).
//! 2. Claim each file: write the batch's name into its row, on condition of the row's revision. Where the row names
//!    another batch, that one is looked after first, also when the row says `Done` or has moved on: its function may
//!    have died between steps 7 and 8.
//!    - it is `Done`: it holds nothing any more;
//!    - it is `Prepared`: carry out steps 6 to 8 for it first;
//!    - it is `Claimed` and its lease is over: claim the *batch's* row, which fences its function off from step 5;
//!    - it is `Claimed` and its lease runs: wait, or leave the message to its next delivery.
//!
//!    Then a file whose row says `Done` is finished, and any other is taken.
//! 3. Read each file from where its row says, and pack the records.
//! 4. Take numbers for the outputs. Stage the bytes and the intent.
//! 5. Register the intent: the batch's row becomes `Prepared`. **This one conditional write decides.** Before it,
//!    nothing of the batch is visible; after it, exactly these bytes under exactly these keys become visible.
//! 6. Create each output with `If-None-Match: *`. One that is there already with the same sha256 is this very output.
//! 7. Move each file's row on behind its part, on condition that the batch still holds it.
//! 8. Mark the batch `Done`, remove the staged bytes.
//!
//! # What follows
//!
//! - **No record twice.** A batch that registers holds all its files: a file can be taken from a batch only after its
//!   row was claimed by another, which makes step 5 fail, or after step 7. So each part of a file is in one registered
//!   intent at most. An intent is carried out by any number of functions, but its keys and bytes are fixed, and S3
//!   creates a key once.
//! - **No record lost.** A message is done with only when the row of each of its files says `Done` (or the file is
//!   blocked), which is written after its outputs were seen in S3. Until then it is delivered again, and the function
//!   that meets a registered intent carries it out.
//! - **No batch forgotten.** The messages of a function that died come again, and name its batch by its files' rows.
//! - **In order.** Within a batch a file's records are packed in order, into outputs with rising numbers. The next part
//!   of the file can be claimed after step 7 only, takes its numbers after that, and so has greater ones.
//! - **No output overwritten.** Two batches never have a number in common, and step 6 refuses to overwrite.
//! - While a batch is carried out, a reader may see some of its outputs and not yet the others.

use crate::{
    key::DateSource,
    pack::{Output, Rank},
};
use identity::instant::serde_iso;
use jiff::{SignedDuration, Timestamp, civil::Date};
use ledger::{ClaimOutcome, Keyed, Superseded, Work};
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, ops::AddAssign};

/// How long a batch that has not registered its intent counts as alive. Shorter only costs work that is done twice.
pub const LEASE: SignedDuration = SignedDuration::from_secs(20);

/// A version of a source object, as the event names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    pub object: String,
    /// As [`version_of`] spells it.
    pub version: String,
    pub content_type: String,
    pub partner: String,
    pub date: Date,
    pub date_from: DateSource,
}

/// The version of an object in its row: where the bucket keeps none, after the event that told of it.
pub fn version_of(version_id: Option<&str>, sequencer: Option<&str>) -> String {
    match version_id {
        Some(version_id) => version_id.to_owned(),
        None => format!("sequencer-{}", sequencer.unwrap_or_default()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileState {
    /// A batch holds it.
    Claimed,
    /// No batch holds it, and records of it are still to come out.
    Waiting,
    /// All its records are in output objects.
    Done,
    /// Left where it is, because its partner is blocked.
    Blocked,
}

/// A row of `feed-files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedFile {
    pub object: String,
    pub version: String,
    pub state: FileState,
    /// What holds it, or took a part of it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    pub content_type: String,
    pub partner: String,
    pub date: Date,
    pub date_from: DateSource,
    /// Where the next part begins, in bytes of the unpacked text.
    pub offset: u64,
    /// Lines in front of the next part.
    pub lines: u64,
    /// Known once a part was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_gzip: Option<bool>,
    pub records: u64,
    pub quarantined: u64,
    /// Lines of white space only.
    pub blank: u64,
    /// The intents that hold its parts, in order.
    pub intents: Vec<String>,
    /// Only in blocked files: the key of a sparse index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// Why it did not come out at its last delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(with = "serde_iso")]
    pub updated_at: Timestamp,
    pub revision: u64,
}

/// The sparse index of blocked files, and the one value of its key.
pub const BLOCKED_INDEX: &str = "blocked";

impl Keyed for FeedFile {
    const PARTITION: &'static str = "object";
    const SORT: Option<&'static str> = Some("version");
    fn key(&self) -> (String, Option<String>) {
        (self.object.clone(), Some(self.version.clone()))
    }
    fn revision(&self) -> u64 {
        self.revision
    }
    fn revised(self, revision: u64) -> Self {
        FeedFile { revision, ..self }
    }
}

/// What a batch that wants a file has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum FileClaim {
    /// Write this row; when that is refused, claim again on the row that stands.
    Take(Box<FeedFile>),
    /// Nothing: all its records are out.
    Done,
    /// First look after the batch of this name.
    Held(String),
}

impl FeedFile {
    fn new(facts: &FileFacts, now: Timestamp) -> Self {
        let FileFacts { object, version, content_type, partner, date, date_from } = facts.clone();
        FeedFile {
            object,
            version,
            state: FileState::Waiting,
            batch: None,
            content_type,
            partner,
            date,
            date_from,
            offset: 0,
            lines: 0,
            is_gzip: None,
            records: 0,
            quarantined: 0,
            blank: 0,
            intents: Vec::new(),
            blocked: None,
            error: None,
            updated_at: now,
            revision: 0,
        }
    }

    /// `free`: batches that were looked after and no longer hold anything.
    pub fn claim(
        existing: Option<&Self>,
        facts: &FileFacts,
        batch: &str,
        free: &HashSet<String>,
        now: Timestamp,
    ) -> FileClaim {
        let taken = |file: FeedFile| {
            let batch = Some(batch.to_owned());
            FileClaim::Take(Box::new(FeedFile {
                state: FileState::Claimed,
                batch,
                blocked: None,
                updated_at: now,
                ..file
            }))
        };
        let Some(file) = existing else { return taken(FeedFile::new(facts, now)) };
        match &file.batch {
            Some(holder) if holder != batch && !free.contains(holder) => FileClaim::Held(holder.clone()),
            _ if file.state == FileState::Done => FileClaim::Done,
            _ => taken(file.clone()),
        }
    }

    /// The file is left where it is; `None` when there is nothing to write.
    pub fn block(existing: Option<&Self>, facts: &FileFacts, now: Timestamp) -> Option<Self> {
        let is_new = existing.is_none_or(|file| file.state == FileState::Waiting && file.intents.is_empty());
        let blocked = Some(BLOCKED_INDEX.to_owned());
        is_new.then(|| FeedFile { state: FileState::Blocked, blocked, ..FeedFile::new(facts, now) })
    }

    /// The batch's outputs are there: the file goes on behind its part. `None` when it has gone on already.
    pub fn advance(&self, batch: &str, intent: &str, part: &FilePart, now: Timestamp) -> Option<Self> {
        if !self.is_held_by(batch) {
            return None;
        }
        let mut next = self.clone();
        next.state = if part.is_last { FileState::Done } else { FileState::Waiting };
        (next.offset, next.lines, next.is_gzip) = (part.to.offset, part.to.lines, Some(part.is_gzip));
        next.records += part.records;
        next.quarantined += part.quarantined;
        next.blank += part.blank;
        next.intents.push(intent.to_owned());
        (next.error, next.updated_at) = (None, now);
        Some(next)
    }

    /// The batch could not read it, for a reason, or had no room for it. `None` when the batch does not hold it.
    pub fn release(&self, batch: &str, error: Option<&str>, now: Timestamp) -> Option<Self> {
        let error = error.map(str::to_owned);
        let state = FileState::Waiting;
        self.is_held_by(batch).then(|| FeedFile { state, batch: None, error, updated_at: now, ..self.clone() })
    }

    fn is_held_by(&self, batch: &str) -> bool {
        self.state == FileState::Claimed && self.batch.as_deref() == Some(batch)
    }
}

/// Between two lines of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// In bytes of the unpacked text.
    pub offset: u64,
    pub lines: u64,
}

/// What a batch takes of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    pub object: String,
    pub version: String,
    pub from: FilePosition,
    pub to: FilePosition,
    pub is_gzip: bool,
    /// The file ends here.
    pub is_last: bool,
    pub records: u64,
    pub quarantined: u64,
    pub blank: u64,
}

/// What a batch will write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchIntent {
    pub batch: String,
    pub parts: Vec<FilePart>,
    /// In the order of their bytes in the staged object, which is that of their numbers.
    pub outputs: Vec<Output>,
}

impl BatchIntent {
    pub fn counts(&self) -> BatchCounts {
        let mut counts = BatchCounts::default();
        for part in &self.parts {
            counts.objects += u64::from(part.is_last);
            counts.records += part.records;
            counts.quarantined += part.quarantined;
        }
        for output in self.outputs.iter().filter(|output| output.rank != Rank::Quarantine) {
            counts.outputs += 1;
            counts.bytes += output.bytes;
        }
        counts
    }
}

/// What a batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCounts {
    /// Files that ended in it.
    pub objects: u64,
    pub records: u64,
    /// Of the output objects, without quarantine.
    pub bytes: u64,
    pub outputs: u64,
    /// Lines.
    pub quarantined: u64,
}

impl AddAssign for BatchCounts {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.records += other.records;
        self.bytes += other.bytes;
        self.outputs += other.outputs;
        self.quarantined += other.quarantined;
    }
}

/// A batch's intent, as its row names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Key of the [`BatchIntent`] in the archive bucket.
    pub key: String,
    pub counts: BatchCounts,
    /// When the first of its files was put into the source bucket.
    #[serde(with = "serde_iso")]
    pub oldest: Timestamp,
}

/// A row of `feed-batches`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub batch: String,
    #[serde(flatten)]
    pub work: Work<Plan>,
    pub revision: u64,
}

impl Keyed for Batch {
    const PARTITION: &'static str = "batch";
    const SORT: Option<&'static str> = None;
    fn holds(partition: &str) -> bool {
        partition != NUMBERS
    }
    fn key(&self) -> (String, Option<String>) {
        (self.batch.clone(), None)
    }
    fn revision(&self) -> u64 {
        self.revision
    }
    fn revised(self, revision: u64) -> Self {
        Batch { revision, ..self }
    }
}

/// What to do about a batch that holds a file which another one wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Holder {
    /// It holds nothing any more.
    Free,
    /// Write its row: then its function cannot register any more, and it holds nothing.
    FenceOff(Batch),
    /// Its intent stands: write its row, then carry the intent out.
    CarryOut { row: Batch, plan: Plan },
    /// Its function may be alive until then.
    Busy { until: Timestamp },
}

impl Batch {
    /// A batch for its first and only attempt of its own.
    pub fn begin(name: &str, now: Timestamp) -> Self {
        match Work::claim(None, now, LEASE) {
            ClaimOutcome::Begin(work) => Batch { batch: name.to_owned(), work, revision: 0 },
            _ => unreachable!("without a row there is nothing to resume"),
        }
    }

    pub fn looked_after(existing: Option<&Self>, now: Timestamp) -> Result<Holder, Superseded> {
        // Its row is written before its first claim, so a batch without one has claimed nothing.
        let Some(batch) = existing else { return Ok(Holder::Free) };
        let with = |work| Batch { work, ..batch.clone() };
        Ok(match Work::claim(Some(&batch.work), now, LEASE) {
            ClaimOutcome::Done(_) => Holder::Free,
            ClaimOutcome::Busy { until } => Holder::Busy { until },
            ClaimOutcome::Resume { work, intent } => Holder::CarryOut { row: with(work), plan: intent },
            ClaimOutcome::Begin(work) => {
                // No executor goes on with it: its files go into the batch of the one that found it.
                let attempt = work.attempt();
                Holder::FenceOff(with(work.fail(
                    attempt,
                    "Superseded",
                    "its files were taken over by another batch",
                    now,
                )?))
            }
        })
    }
}

/// The numbers of outputs: microseconds since 1970, each given once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Always [`NUMBERS`].
    pub batch: String,
    pub last: u64,
    pub revision: u64,
}

/// The key of the row of [`Numbers`].
pub const NUMBERS: &str = "numbers";

impl Keyed for Numbers {
    const PARTITION: &'static str = "batch";
    const SORT: Option<&'static str> = None;
    fn holds(partition: &str) -> bool {
        partition == NUMBERS
    }
    fn key(&self) -> (String, Option<String>) {
        (self.batch.clone(), None)
    }
    fn revision(&self) -> u64 {
        self.revision
    }
    fn revised(self, revision: u64) -> Self {
        Numbers { revision, ..self }
    }
}

impl Numbers {
    /// Gives `count` numbers, the present microsecond or later; the last of them is that of the row to write.
    pub fn give(existing: Option<&Self>, count: u64, now: Timestamp) -> Self {
        let present = u64::try_from(now.as_microsecond()).unwrap_or_default();
        let (last, revision) = existing.map_or((0, 0), |row| (row.last, row.revision));
        Numbers { batch: NUMBERS.to_owned(), last: present.max(last + 1) + count.saturating_sub(1), revision }
    }
}

/// The most outputs that an intent has, so that the intent of an output is found without a look at all of them.
pub const MOST_OUTPUTS: u64 = 4_000;

/// Where the intent lies whose outputs have `count` numbers from `first` on. Sorted by key, intents are in the order of
/// their numbers, so that the intent of an output can be found by its number.
pub fn intent_key(first: u64, count: usize) -> String {
    format!("feeds/intents/{first:016}-{count}.json.zst")
}

/// First and last number of the intent of this key.
pub fn numbers_of_intent(key: &str) -> Option<(u64, u64)> {
    let (first, count) = key.strip_prefix("feeds/intents/")?.strip_suffix(".json.zst")?.split_once('-')?;
    let (first, count): (u64, u64) = (first.parse().ok()?, count.parse().ok()?);
    Some((first, first + count.saturating_sub(1)))
}

/// Where the bytes of a batch's outputs wait, one after the other.
pub fn staged_key(batch: &str) -> String {
    format!("feeds/staged/{batch}.bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    fn facts() -> FileFacts {
        FileFacts {
            object: "offers/acme/a".into(),
            version: "v1".into(),
            content_type: "offers".into(),
            partner: "acme".into(),
            date: Date::constant(2026, 11, 21),
            date_from: DateSource::Event,
        }
    }

    /// Once batch `one` was looked after.
    fn claim(existing: Option<&FeedFile>, batch: &str) -> FileClaim {
        FeedFile::claim(existing, &facts(), batch, &HashSet::from(["one".to_owned()]), at(0))
    }

    fn claimed(existing: Option<&FeedFile>, batch: &str) -> FeedFile {
        match claim(existing, batch) {
            FileClaim::Take(file) => *file,
            other => panic!("{other:?}"),
        }
    }

    fn part(to: u64, is_last: bool) -> FilePart {
        FilePart {
            object: "offers/acme/a".into(),
            version: "v1".into(),
            from: FilePosition::default(),
            to: FilePosition { offset: to, lines: to },
            is_gzip: false,
            is_last,
            records: to,
            quarantined: 0,
            blank: 0,
        }
    }

    #[test]
    fn a_file_is_taken_from_another_batch_only_when_that_one_was_looked_after() {
        let file = claimed(None, "one");
        let claim = |free: &[&str]| {
            let free = free.iter().map(|name| (*name).to_owned()).collect();
            FeedFile::claim(Some(&file), &facts(), "two", &free, at(1))
        };
        assert_eq!(claim(&[]), FileClaim::Held("one".into()));
        assert_eq!(claim(&["three"]), FileClaim::Held("one".into()));
        assert!(matches!(claim(&["one"]), FileClaim::Take(file) if file.batch.as_deref() == Some("two")));
        assert_eq!(claimed(Some(&file), "one").batch.as_deref(), Some("one"));
    }

    #[test]
    fn a_file_goes_on_behind_its_part_once_and_for_its_own_batch_only() {
        let file = claimed(None, "one");
        assert_eq!(file.advance("two", "k", &part(5, false), at(1)), None);
        let next = file.advance("one", "k", &part(5, false), at(1)).expect("its own");
        assert_eq!((next.state, next.offset, next.lines, next.records), (FileState::Waiting, 5, 5, 5));
        assert_eq!(next.advance("one", "k", &part(5, false), at(2)), None);
        let last = claimed(Some(&next), "two").advance("two", "l", &part(9, true), at(3)).expect("its own");
        assert_eq!((last.state, last.records, last.intents.len()), (FileState::Done, 14, 2));
        assert_eq!((next.batch.as_deref(), last.batch.as_deref()), (Some("one"), Some("two")));
    }

    #[test]
    fn a_file_that_is_done_is_finished_once_its_batch_was_looked_after() {
        let file = claimed(None, "one").advance("one", "k", &part(5, true), at(1)).expect("its own");
        let unknown = FeedFile::claim(Some(&file), &facts(), "two", &HashSet::new(), at(4));
        assert_eq!(unknown, FileClaim::Held("one".into()));
        assert_eq!(claim(Some(&file), "two"), FileClaim::Done);
    }

    #[test]
    fn a_file_that_was_released_can_be_taken_at_once_and_says_why_it_did_not_come_out() {
        let file = claimed(None, "two").release("two", Some("FeedFileMissing"), at(1)).expect("its own");
        assert_eq!((file.batch.as_deref(), file.error.as_deref()), (None, Some("FeedFileMissing")));
        assert_eq!(file.release("two", None, at(2)), None);
        assert!(matches!(claim(Some(&file), "three"), FileClaim::Take(_)));
    }

    #[test]
    fn a_file_that_has_begun_is_not_blocked_any_more() {
        let file = claimed(None, "one");
        assert_eq!(FeedFile::block(Some(&file), &facts(), at(1)), None);
        let next = file.advance("one", "k", &part(5, false), at(1)).expect("its own");
        assert_eq!(FeedFile::block(Some(&next), &facts(), at(1)), None);
        let blocked = FeedFile::block(None, &facts(), at(1)).expect("nothing of it is out");
        assert_eq!((blocked.state, blocked.blocked.as_deref()), (FileState::Blocked, Some(BLOCKED_INDEX)));
        let released = claimed(Some(&blocked), "two");
        assert_eq!((released.state, released.blocked), (FileState::Claimed, None));
    }

    fn plan() -> Plan {
        Plan { key: intent_key(7, 2), counts: BatchCounts::default(), oldest: at(0) }
    }

    #[test]
    fn a_batch_that_was_fenced_off_cannot_register_its_intent() {
        let batch = Batch::begin("one", at(0));
        assert!(matches!(Batch::looked_after(Some(&batch), at(19)), Ok(Holder::Busy { until }) if until == at(20)));
        let Ok(Holder::FenceOff(row)) = Batch::looked_after(Some(&batch), at(20)) else { panic!("its lease is over") };
        assert!(row.work.prepare(1, plan(), at(21)).is_err());
        // The next one that meets it need not wait.
        assert!(matches!(Batch::looked_after(Some(&row), at(20)), Ok(Holder::FenceOff(_))));
        assert_eq!(Batch::looked_after(None, at(0)), Ok(Holder::Free));
    }

    #[test]
    fn a_registered_batch_is_carried_out_and_then_holds_nothing() {
        let batch = Batch::begin("one", at(0));
        let work = batch.work.prepare(1, plan(), at(1)).expect("its own");
        let batch = Batch { work, ..batch };
        let Ok(Holder::CarryOut { row, plan: found }) = Batch::looked_after(Some(&batch), at(30)) else {
            panic!("prepared")
        };
        assert_eq!(found, plan());
        let work = row.work.complete(row.work.attempt(), at(31)).expect("its own");
        assert_eq!(Batch::looked_after(Some(&Batch { work, ..row }), at(31)), Ok(Holder::Free));
    }

    #[test]
    fn numbers_only_grow_whatever_the_clock_says() {
        let first = Numbers::give(None, 3, at(10));
        assert_eq!(first.last, 1_700_000_010_000_002);
        assert_eq!(Numbers::give(Some(&first), 2, at(5)).last, 1_700_000_010_000_004);
        assert_eq!(Numbers::give(Some(&first), 1, at(20)).last, 1_700_000_020_000_000);
    }

    #[test]
    fn the_intent_of_an_output_is_found_by_its_number() {
        assert_eq!(
            numbers_of_intent(&intent_key(1_700_000_010_000_000, 3)),
            Some((1_700_000_010_000_000, 1_700_000_010_000_002))
        );
        assert_eq!(numbers_of_intent(&intent_key(7, 0)), Some((7, 7)));
        assert_eq!(numbers_of_intent("feeds/intents/x.json.zst"), None);
    }
}
