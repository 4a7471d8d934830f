//! What an operator has set aside and must come back to: windows that were skipped, and documents that were excluded.
//! One row of `job-runs` holds them all, and every report names them until they are resolved.

use super::keyed_by_run;
use crate::{
    mode::Mode,
    run::{
        job_run::{JobRun, RunStatus},
        span::{Span, joined, without},
    },
    window::record::{State, WindowRecord},
};
use identity::{Identity, instant};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// `run_id` of the row in `job-runs`.
pub const UNRESOLVED: &str = "#unresolved";
/// What the row may hold, as JSON: DynamoDB takes rows of 400 KB, and counts no more bytes than JSON has.
const MOST_BYTES: usize = 350_000;
/// Characters that are kept of an operator's words.
pub const WORDS: usize = 300;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Unresolved {
    /// Resolved when it is wanted again (`skip --undo`), or when later runs have committed all of it.
    SkippedWindow {
        run_id: String,
        window_id: String,
        reason: String,
        #[serde(with = "instant::serde_iso")]
        since: Timestamp,
        /// What no later run has committed yet.
        left: Vec<Span>,
    },
    /// The watermark was moved by hand. Resolved when runs have committed what lies between.
    WatermarkSet {
        #[serde(with = "instant::serde_iso")]
        before: Timestamp,
        #[serde(with = "instant::serde_iso")]
        at: Timestamp,
        reason: String,
        #[serde(with = "instant::serde_iso")]
        since: Timestamp,
        /// What no later run has committed yet.
        left: Vec<Span>,
    },
    /// An excluded document, resolved when it is released.
    QuarantinedByOperator {
        #[serde(flatten)]
        document: Identity,
        reason: String,
        #[serde(with = "instant::serde_iso")]
        since: Timestamp,
        /// The run that judges it again: for every other it stays excluded, and it is resolved when this one is
        /// complete.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        released_by: Option<String>,
    },
}

impl Unresolved {
    pub fn skipped(record: &WindowRecord, reason: &str, since: Timestamp) -> Self {
        let left = vec![Span { from: record.window.from, to: record.window.to }];
        let (run_id, window_id) = (record.run_id.clone(), record.window_id.clone());
        Unresolved::SkippedWindow { run_id, window_id, reason: words(reason), since, left }
    }

    pub fn excluded(document: Identity, reason: &str, since: Timestamp) -> Self {
        Unresolved::QuarantinedByOperator { document, reason: words(reason), since, released_by: None }
    }

    /// The same document, which a run is to judge again.
    pub fn released_by(self, run_id: &str) -> Self {
        match self {
            Unresolved::QuarantinedByOperator { document, reason, since, .. } => {
                Unresolved::QuarantinedByOperator { document, reason, since, released_by: Some(run_id.to_owned()) }
            }
            other => other,
        }
    }

    /// `None` when no time that is over lies between: then there is nothing to come back to.
    pub fn watermark_set(before: Timestamp, at: Timestamp, reason: &str, since: Timestamp) -> Option<Self> {
        let gap = Span { from: before.min(at), to: before.max(at).min(since) };
        (gap.from < gap.to).then(|| Unresolved::WatermarkSet {
            before,
            at,
            reason: words(reason),
            since,
            left: vec![gap],
        })
    }

    /// What later runs have to commit before it is resolved, and since when.
    fn left(&mut self) -> Option<(&mut Vec<Span>, Timestamp)> {
        match self {
            Unresolved::SkippedWindow { left, since, .. } | Unresolved::WatermarkSet { left, since, .. } => {
                Some((left, *since))
            }
            Unresolved::QuarantinedByOperator { .. } => None,
        }
    }

    /// The same window or document, whatever is said of it.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Unresolved::SkippedWindow { run_id, window_id, .. },
                Unresolved::SkippedWindow { run_id: run, window_id: window, .. },
            ) => run_id == run && window_id == window,
            (
                Unresolved::QuarantinedByOperator { document, .. },
                Unresolved::QuarantinedByOperator { document: other, .. },
            ) => document == other,
            (Unresolved::WatermarkSet { before, at, .. }, Unresolved::WatermarkSet { before: other, at: to, .. }) => {
                before == other && at == to
            }
            _ => false,
        }
    }
}

fn words(reason: &str) -> String {
    reason.chars().take(WORDS).collect()
}

/// The row `#unresolved`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Register {
    pub run_id: String,
    pub items: Vec<Unresolved>,
    pub revision: u64,
}

keyed_by_run!(Register: |run_id| run_id == UNRESOLVED);

impl Register {
    /// With `item`, in the place of what was said of the same thing before; `None` when there is no room.
    pub fn with(mut self, item: Unresolved) -> Option<Self> {
        self = self.without(&item);
        self.items.push(item);
        self.fits().then_some(self)
    }

    fn fits(&self) -> bool {
        serde_json::to_string(&self.items).is_ok_and(|text| text.len() <= MOST_BYTES)
    }

    pub fn without(mut self, item: &Unresolved) -> Self {
        self.items.retain(|other| !other.is(item));
        self
    }

    /// The documents that operators have excluded from this run.
    pub fn excluded_from(&self, run_id: &str) -> HashSet<Identity> {
        let identity = |item: &Unresolved| match item {
            Unresolved::QuarantinedByOperator { document, released_by, .. } => {
                (released_by.as_deref() != Some(run_id)).then(|| document.clone())
            }
            Unresolved::SkippedWindow { .. } | Unresolved::WatermarkSet { .. } => None,
        };
        self.items.iter().filter_map(identity).collect()
    }

    /// What is left after a run has come to its end: its own skipped windows are in, and what it committed is out.
    pub fn after(self, run: &JobRun, records: &[WindowRecord]) -> Self {
        let mut next = self;
        let of_run =
            |item: &Unresolved| matches!(item, Unresolved::SkippedWindow { run_id, .. } if *run_id == run.run_id);
        let skipped: Vec<_> = records.iter().filter(|record| record.status == State::Skipped).collect();
        next.items.retain(|item| {
            !of_run(item) || skipped.iter().any(|record| Unresolved::skipped(record, "", record.updated_at).is(item))
        });
        // Collected before with the same windows: what is no longer listed of them has been resolved.
        let is_told = |record: &WindowRecord| run.status == RunStatus::Completed && record.updated_at <= run.updated_at;
        for record in skipped.into_iter().filter(|record| !is_told(record)) {
            let item = Unresolved::skipped(record, record.message.as_deref().unwrap_or_default(), record.updated_at);
            if !next.items.iter().any(|other| other.is(&item)) {
                next = next.clone().with(item).unwrap_or(next);
            }
        }
        for item in next.items.iter_mut().filter(|item| !of_run(item)) {
            if let Some((left, since)) = item.left() {
                *left = without(std::mem::take(left), &committed_since(run, records, since));
            }
        }
        let is_complete = !records.is_empty() && records.iter().all(|record| record.status == State::Completed);
        let is_of_run = |item: &Unresolved| matches!(item, Unresolved::QuarantinedByOperator { released_by: Some(by), .. } if *by == run.run_id);
        next.items.retain(|item| !(is_complete && is_of_run(item)));
        next.items.retain_mut(|item| item.left().is_none_or(|(left, _)| !left.is_empty()));
        next
    }
}

/// What a run has seen to since then. A range that was planned later is covered but for its unfinished windows,
/// because no window means no document; of any other run only the windows count that it committed since.
fn committed_since(run: &JobRun, records: &[WindowRecord], since: Timestamp) -> Vec<Span> {
    let span = |record: &WindowRecord| Span { from: record.window.from, to: record.window.to };
    let is_done = |record: &&WindowRecord| record.status == State::Completed;
    // Documents by name are not all that stands between the first and the last of them.
    let of_range = || records.iter().filter(|record| record.window.purpose.is_range());
    if run.created_at > since && matches!(run.mode, Mode::Range | Mode::Scheduled) {
        let whole = vec![Span { from: run.from, to: run.to }];
        return without(whole, &joined(of_range().filter(|record| !is_done(record)).map(span)));
    }
    joined(of_range().filter(is_done).filter(|record| record.updated_at > since).map(span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counts::Messages, window::plan::Window};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn run(run_id: &str, from: i64, to: i64, created: i64) -> JobRun {
        JobRun {
            run_id: run_id.into(),
            mode: Mode::Range,
            status: RunStatus::Running,
            from: at(from),
            to: at(to),
            created_at: at(created),
            updated_at: at(created),
            execution_arn: String::new(),
            attempt: 1,
            planned: 1,
            undated: 0,
            absent: Vec::new(),
            counts: Messages::default(),
            scheduled_for: None,
            left: None,
            outbox: Default::default(),
            error: None,
            message: None,
            revision: 1,
        }
    }

    fn window(run_id: &str, from: i64, to: i64, status: State, updated: i64) -> WindowRecord {
        let planned = WindowRecord::planned(run_id, Mode::Range, Window::new(at(from), at(to), 1), at(updated));
        WindowRecord { status, message: Some("the shard is lost".into()), ..planned }
    }

    /// A window of `[100, 200)` that was skipped at 1000.
    fn skipped() -> Register {
        Register::default().after(&run("r1", 0, 300, 900), &[window("r1", 100, 200, State::Skipped, 1000)])
    }

    fn left(register: &Register) -> Vec<(i64, i64)> {
        let spans = register.items.iter().flat_map(|item| match item {
            Unresolved::SkippedWindow { left, .. } | Unresolved::WatermarkSet { left, .. } => left.clone(),
            Unresolved::QuarantinedByOperator { .. } => Vec::new(),
        });
        spans.map(|span| (span.from.as_second(), span.to.as_second())).collect()
    }

    #[test]
    fn a_released_document_stays_excluded_from_other_runs_until_the_one_that_judges_it_is_complete() {
        let document = Identity::new("messages", "m1");
        let item = Unresolved::excluded(document.clone(), "kills its window", at(1)).released_by("release-1");
        let register = Register::default().with(item).expect("there is room");
        assert_eq!(register.excluded_from("release-1"), HashSet::new());
        assert_eq!(register.excluded_from("r1"), HashSet::from([document]));
        let planned = |run_id: &str, status| {
            let window = Window::new(at(0), at(10), 1);
            WindowRecord { status, ..WindowRecord::planned(run_id, Mode::Range, window, at(2)) }
        };
        let after = |run_id: &str, records: &[WindowRecord]| {
            register.clone().after(&run(run_id, 0, 10, 2), records).items.len()
        };
        assert_eq!(after("r1", &[planned("r1", State::Completed)]), 1);
        assert_eq!(
            after("release-1", &[planned("release-1", State::Failed)]),
            1,
            "the command was stopped, the run failed"
        );
        assert_eq!(after("release-1", &[]), 1);
        assert_eq!(after("release-1", &[planned("release-1", State::Completed)]), 0);
    }

    #[test]
    fn a_skipped_window_is_noted_by_its_run_and_forgotten_when_it_is_wanted_again() {
        assert_eq!(left(&skipped()), [(100, 200)]);
        let again = skipped().after(&run("r1", 0, 300, 900), &[window("r1", 100, 200, State::Failed, 1100)]);
        assert_eq!(again.items, []);
    }

    #[test]
    fn later_runs_take_away_what_they_committed_until_nothing_is_left() {
        let half = skipped().after(&run("r2", 0, 150, 1100), &[window("r2", 90, 120, State::Completed, 1100)]);
        assert_eq!(left(&half), [(150, 200)], "the empty stretch behind the window is covered by the range");
        let failed = half.after(&run("r3", 0, 300, 1100), &[window("r3", 160, 170, State::Failed, 1100)]);
        assert_eq!(left(&failed), [(160, 170)]);
        assert_eq!(failed.after(&run("r4", 160, 170, 1200), &[]).items, []);
    }

    #[test]
    fn a_run_that_is_collected_again_brings_nothing_back_that_was_resolved() {
        let resolved = skipped().after(&run("r2", 0, 300, 1100), &[]);
        assert_eq!(resolved.items, []);
        // Its scheduled time was delivered once more.
        let ended = JobRun { status: RunStatus::Completed, updated_at: at(1050), ..run("r1", 0, 300, 900) };
        let windows = |skipped_at| [window("r1", 100, 200, State::Skipped, skipped_at)];
        assert_eq!(resolved.clone().after(&ended, &windows(1000)).items, []);
        assert_eq!(left(&resolved.after(&ended, &windows(1060))), [(100, 200)], "skipped since it ended");
    }

    #[test]
    fn what_was_committed_before_the_skip_covers_nothing() {
        let earlier = run("r0", 0, 300, 500);
        assert_eq!(left(&skipped().after(&earlier, &[window("r0", 100, 200, State::Completed, 999)])), [(100, 200)]);
        // Planned earlier, but this one window was committed since.
        assert_eq!(left(&skipped().after(&earlier, &[window("r0", 100, 180, State::Completed, 1001)])), [(180, 200)]);
    }

    #[test]
    fn a_watermark_that_was_moved_by_hand_is_told_until_runs_have_covered_what_lies_between() {
        let set = |before, to| Unresolved::watermark_set(at(before), at(to), "a typing error", at(1000));
        assert_eq!(set(1100, 1050), None, "only the future lies between");
        // Back from the future, and forth over what no run has archived.
        for (before, to, gap) in [(9000, 700, (700, 1000)), (100, 300, (100, 300))] {
            let register = Register::default().with(set(before, to).expect("a gap")).expect("room");
            assert_eq!(left(&register), [gap]);
            let earlier = register.after(&run("r1", 0, 2000, 900), &[]);
            assert_eq!(left(&earlier), [gap], "a run that was planned before covers nothing");
            let half = earlier.after(&run("r2", 0, gap.0 + 50, 1100), &[]);
            assert_eq!(left(&half), [(gap.0 + 50, gap.1)]);
            assert_eq!(half.after(&run("r3", 0, 2000, 1200), &[]).items, []);
        }
    }

    #[test]
    fn an_extraction_covers_nothing() {
        let extract = JobRun { mode: Mode::Extract, ..run("r2", 0, 300, 1100) };
        assert_eq!(left(&skipped().after(&extract, &[window("r2", 100, 200, State::Classified, 1100)])), [(100, 200)]);
    }

    #[test]
    fn an_exclusion_stays_until_it_is_released_and_is_about_one_index() {
        let order = |index: &str, reason: &str| Unresolved::excluded(Identity::new(index, "m1"), reason, at(1));
        let register = Register::default()
            .with(order("a", "x"))
            .and_then(|register| register.with(order("a", "y")))
            .expect("room");
        assert_eq!(register.items, [order("a", "y")]);
        let register = register.after(&run("r1", 0, 300, 900), &[]);
        assert_eq!(register.excluded_from("r1"), HashSet::from([Identity::new("a", "m1")]));
        assert_eq!(register.clone().without(&order("b", "")).items.len(), 1);
        assert_eq!(register.without(&order("a", "")).items, []);
    }

    #[test]
    fn there_is_room_for_a_thousand_and_for_no_more_than_a_row_of_the_table_takes() {
        let excluded = |n: usize, id: &str, reason: &str| {
            Unresolved::excluded(Identity::new("messages-2024", format!("{id}{n}")), reason, at(1))
        };
        let usual = (0..1000).try_fold(Register::default(), |register, n| {
            register.with(excluded(n, "MSG-2024-", "kills its window, ticket 4711"))
        });
        assert_eq!(usual.expect("room").excluded_from("r1").len(), 1000);
        // Words are cut, and ids have 512 bytes at most.
        let (id, words) = ("i".repeat(508), "ä".repeat(5000));
        let mut full = Register::default();
        let refused = (0..).find(|n| match full.clone().with(excluded(*n, &id, &words)) {
            Some(next) => {
                full = next;
                false
            }
            None => true,
        });
        assert_eq!(refused, Some(full.items.len()), "no more than there was room for");
        assert!(full.items.len() > 200, "{}", full.items.len());
        let row: usize = full.items.iter().map(|item| serde_json::to_string(item).expect("JSON").len()).sum();
        assert!(row < 400_000, "{row} bytes");
    }
}
