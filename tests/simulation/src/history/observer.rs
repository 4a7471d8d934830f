//! Looks at the tables after each write, and holds what changed against [`crate::rules`].

use super::{
    Doc,
    scheduler::{Last, is_table_write},
};
use crate::rules;
use alerts::{
    commit::intent::Intent,
    keys::index_key,
    message::{
        classification::Disposition,
        document,
        entry::Entry,
        tracking::{Claim, Row, Status},
    },
    mode::Mode,
    run::{
        job_run::{JobRun, RunStatus},
        lock::{Held, Lock},
    },
    window::record::{State, WindowRecord},
};
use futures::FutureExt;
use ledger::Keyed;
use memory_cloud::{BUCKET, Cloud, JOB_RUNS, TRACKING, WINDOWS};
use runtime::Clock;
use std::collections::{HashMap, HashSet};

type Key = (String, Option<String>);

#[derive(Default)]
pub struct Observer {
    rows: HashMap<Key, Row>,
    windows: HashMap<Key, WindowRecord>,
    /// Windows of extractions that were classified once: query-messages that is started twice may take one up again.
    extracted: HashSet<Key>,
    runs: HashMap<Key, JobRun>,
    lock: Lock,
    /// Versions of all documents in the order in which the source had them.
    versions: HashMap<String, u32>,
    /// The same of their histories, by the hash that the archive keeps of them.
    histories: HashMap<String, u32>,
    /// An amended intent moves a document after it was written: its row names the new place a moment later.
    has_exclusions: bool,
}

impl Observer {
    pub fn new(has_exclusions: bool) -> Self {
        Observer { has_exclusions, ..Observer::default() }
    }

    /// The source has this version from now on.
    pub fn note(&mut self, doc: &Doc) {
        self.versions.insert(document::version(doc.body().as_bytes()), doc.changes);
        let mut history = doc.history();
        history.sort();
        let bodies: Vec<&[u8]> = history.iter().map(|(_, body)| body.as_bytes()).collect();
        self.histories.insert(document::related(&bodies, &bodies[..0]), doc.events);
    }

    /// Whether the source had what one row describes before what the other does.
    fn is_behind(&self, row: &Row, other: &Row) -> bool {
        // By an operator's order, unread: it tells of no version, but of which write it is.
        if row.disposition == Disposition::Quarantined {
            return row.written.zip(other.written).is_some_and(|(own, other)| own.seq_no < other.seq_no);
        }
        if row.version != other.version {
            return self.versions.get(&row.version) < self.versions.get(&other.version);
        }
        let history = |row: &Row| self.histories.get(&row.related);
        history(row).zip(history(other)).is_some_and(|(own, other)| own < other)
    }

    /// What operators did is not judged.
    pub fn pass_over(&mut self, cloud: &Cloud) {
        changes(&mut self.windows, cloud.typed(WINDOWS));
        changes(&mut self.runs, cloud.typed(JOB_RUNS));
    }

    /// After a request of an execution was carried out.
    pub fn look(&mut self, cloud: &Cloud, last: &Last) -> Vec<String> {
        if !is_table_write(&last.request) {
            return Vec::new();
        }
        let table = last.request.subject.split('/').next().unwrap_or_default();
        match table {
            TRACKING => self.look_at_rows(cloud),
            WINDOWS => self.look_at_windows(cloud, last.attempt.as_ref()),
            _ => self.look_at_runs(cloud, &last.execution_arn),
        }
    }

    fn look_at_rows(&mut self, cloud: &Cloud) -> Vec<String> {
        let mut findings = Vec::new();
        let window_of = |run: &str, window: &str| self.windows.get(&(run.to_owned(), Some(window.to_owned()))).cloned();
        for (before, after) in changes(&mut self.rows, cloud.typed(TRACKING)) {
            let mut broken =
                rules::of_row(before.as_ref(), &after, &window_of, |row, other| self.is_behind(row, other));
            let is_new_object = before.as_ref().is_none_or(|before| before.s3_path != after.s3_path);
            if after.status == Status::Completed && after.claim.is_none() && is_new_object && !self.has_exclusions {
                let path = after.s3_path.as_deref().unwrap_or_default();
                if !holds(cloud, path, &after) {
                    broken.push("Completed, and its object does not hold it");
                }
            }
            let (id, author) = (&after.message_id, (&after.run_id, &after.window_id, after.attempt));
            findings.extend(broken.iter().map(|what| format!("row {id} written by {author:?}: {what}")));
        }
        findings
    }

    fn look_at_windows(&mut self, cloud: &Cloud, author: Option<&Claim>) -> Vec<String> {
        let (mut findings, now) = (Vec::new(), cloud.clock.now());
        for (before, after) in changes(&mut self.windows, cloud.typed(WINDOWS)) {
            let (run_id, window_id) = (after.run_id.clone(), after.window_id.clone());
            let claim = Some(Claim { run_id, window_id, attempt: after.fence.attempt });
            let claimed = self.rows.values().filter(|row| row.claim == claim).count();
            let meant = |key: &str| {
                let lines = cloud.objects().get_lines::<Intent>(key).now_or_never()?.ok()?;
                Some(lines.first()?.objects.iter().map(|object| object.entries.len()).sum())
            };
            let mut broken = rules::of_window(before.as_ref(), &after, claimed, meant, now);
            let is_of = |author: &&Claim| author.run_id == after.run_id && author.window_id == after.window_id;
            let stood = before.as_ref().map_or(0, |before| before.fence.attempt);
            if author.filter(is_of).is_some_and(|author| author.attempt < stood) {
                broken.push("by a superseded attempt");
            }
            if after.status == State::Classified {
                self.extracted.insert(after.key());
            }
            let (from, to) = (before.map(|before| before.status), after.status);
            if to == State::Completed && from != Some(to) {
                broken.extend(self.look_at_what_is_left(cloud, &after));
            }
            let said = |what| format!("window {} of {}, {from:?} to {to:?}: {what}", after.window_id, after.run_id);
            findings.extend(broken.into_iter().map(said));
        }
        findings
    }

    /// The closed messages of a window that it did not write.
    fn look_at_what_is_left(&self, cloud: &Cloud, window: &WindowRecord) -> Vec<&'static str> {
        fn lines<T: serde::de::DeserializeOwned>(cloud: &Cloud, key: &str) -> Vec<T> {
            cloud.objects().get_lines(key).now_or_never().expect("at once").unwrap_or_default()
        }
        let intents: Vec<Intent> = window.intent_key.iter().flat_map(|key| lines(cloud, key)).collect();
        let Some(intent) = intents.first() else { return Vec::new() };
        let written: HashSet<u32> = intent.objects.iter().flat_map(|object| object.entries.iter().copied()).collect();
        let entries = (0..intent.pairs).flat_map(|pair| lines::<Entry>(cloud, &index_key(&intent.spool_prefix, pair)));
        let is_left =
            |(at, entry): &(u32, Entry)| !written.contains(at) && entry.outcome.disposition == Disposition::Closed;
        let left = (0..).zip(entries).filter(is_left);
        let judge = |(_, entry): (u32, Entry)| {
            let row = self.rows.get(&(entry.id.clone(), Some(entry.index.clone())));
            let order = |version: &str| self.versions.get(version).copied().unwrap_or_default();
            rules::of_what_is_left(row, |version| order(version) < order(&entry.version))
        };
        left.filter_map(judge).collect()
    }

    fn look_at_runs(&mut self, cloud: &Cloud, execution_arn: &str) -> Vec<String> {
        let mut findings = Vec::new();
        for (before, after) in changes(&mut self.runs, cloud.typed::<JobRun>(JOB_RUNS)) {
            let is_new = before.as_ref().is_none_or(|before| before.status != RunStatus::Completed);
            let is_done = |window: &WindowRecord| {
                let is_extracted = after.mode == Mode::Extract && self.extracted.contains(&window.key());
                is_extracted || matches!(window.status, State::Completed | State::Skipped)
            };
            let mut own = self.windows.values().filter(|window| window.run_id == after.run_id);
            if after.status == RunStatus::Completed && is_new && !own.all(is_done) {
                findings.push(format!("run {} is Completed, and a window of it is not", after.run_id));
            }
        }
        let Some(lock) = cloud.typed::<Lock>(JOB_RUNS).pop() else { return findings };
        let before = std::mem::replace(&mut self.lock, lock);
        if before == self.lock {
            return findings;
        }
        if self.lock.revision != before.revision + 1 {
            findings.push("the lock changed since it was read".to_owned());
        }
        let is_at_work = |held: &Held| {
            let described = cloud.workflow().describe(&held.execution_arn).now_or_never();
            // A redrive goes on without the range that its execution held before.
            let is_as_before = |execution: &workflow::Execution| execution.running && execution.redrives == 0;
            held.until.is_none() && matches!(described, Some(Ok(execution)) if is_as_before(&execution))
        };
        for (at, held) in self.lock.held.iter().enumerate() {
            let beside = self.lock.held[at + 1..].iter().find(|other| held.from < other.to && other.from < held.to);
            if let Some(other) = beside
                && is_at_work(held)
                && is_at_work(other)
            {
                findings.push(format!("{} and {} hold one range", held.execution_arn, other.execution_arn));
            }
        }
        let taken =
            |held: &&Held| !self.lock.held.contains(held) && held.execution_arn != execution_arn && is_at_work(held);
        findings.extend(before.held.iter().filter(taken).map(|held| format!("{held:?} is at work, and holds nothing")));
        findings
    }
}

/// The rows that are new or another than before, and what they were.
fn changes<T: Keyed + PartialEq>(known: &mut HashMap<Key, T>, now: Vec<T>) -> Vec<(Option<T>, T)> {
    let mut changed = Vec::new();
    for row in now {
        if known.get(&row.key()) != Some(&row) {
            let before = known.insert(row.key(), row.clone());
            changed.push((before, row));
        }
    }
    changed
}

/// Whether the object that a row names holds the version that it names.
fn holds(cloud: &Cloud, path: &str, row: &Row) -> bool {
    let contents = cloud.store.contents(BUCKET);
    let Some((key, body)) = path.splitn(4, '/').nth(3).and_then(|key| contents.get_key_value(key)) else {
        return false;
    };
    if !key.starts_with("archive/parquet/") {
        return true;
    }
    let Ok(rows) = columnar::rows(body.clone()) else { return false };
    let is_it =
        |archived: &columnar::ArchivedRow| archived.identity.id == row.message_id && archived.version == row.version;
    rows.filter_map(Result::ok).any(|archived| is_it(&archived))
}
