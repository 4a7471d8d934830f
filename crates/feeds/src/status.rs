//! What the feeds came to, for the command line, the mail and the page.

use crate::protocol::{Batch, BatchCounts};
use jiff::Timestamp;
use ledger::WorkState;
use serde::Serialize;

/// Batches that are done, added up one by one, in any order.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub all: BatchCounts,
    /// Since the moment that was given.
    pub recent: BatchCounts,
    newest: Option<Newest>,
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    done: Timestamp,
    /// When its oldest file was put.
    oldest: Timestamp,
}

impl Totals {
    pub fn add(&mut self, batch: &Batch, since: Timestamp) {
        let Some(plan) = batch.work.intent().filter(|_| batch.work.state() == WorkState::Done) else { return };
        let done = batch.work.updated_at();
        self.all += plan.counts;
        if done >= since {
            self.recent += plan.counts;
        }
        if self.newest.is_none_or(|newest| newest.done < done) {
            self.newest = Some(Newest { done, oldest: plan.oldest });
        }
    }

    /// How long the oldest file of the newest batch had waited when it came out, in seconds.
    pub fn lag_seconds(&self) -> Option<i64> {
        self.newest.map(|Newest { done, oldest }| done.duration_since(oldest).as_secs().max(0))
    }
}

/// What `alert-archive feeds status --json` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FeedsStatus {
    /// Versions that were consolidated.
    pub objects: u64,
    pub records: u64,
    /// Of the output objects.
    pub bytes: u64,
    /// Lines.
    pub quarantined: u64,
    /// Versions that were left because their partner is blocked.
    pub blocked: u64,
    /// Messages in the queue, also those that a function has just taken.
    pub waiting: u64,
    /// Messages in the dead-letter queue.
    pub failed: u64,
    pub outputs: u64,
    /// As [`Totals::lag_seconds`]; null before there is a batch.
    pub lag_seconds: Option<i64>,
}

impl FeedsStatus {
    pub fn new(totals: &Totals, blocked: u64, waiting: u64, failed: u64) -> Self {
        let BatchCounts { objects, records, bytes, outputs, quarantined } = totals.all;
        let lag_seconds = totals.lag_seconds();
        FeedsStatus { objects, records, bytes, quarantined, blocked, waiting, failed, outputs, lag_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Plan;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    fn batch(records: u64, oldest: i64, done: Option<i64>) -> Batch {
        let batch = Batch::begin("one", at(0));
        let plan =
            Plan { key: "k".into(), counts: BatchCounts { records, ..BatchCounts::default() }, oldest: at(oldest) };
        let prepared = batch.work.prepare(1, plan, at(1)).expect("its own");
        let work = done.map_or(Ok(prepared.clone()), |second| prepared.complete(1, at(second))).expect("its own");
        Batch { work, ..batch }
    }

    #[test]
    fn batches_that_are_done_count_and_the_newest_tells_the_lag() {
        let mut totals = Totals::default();
        assert_eq!(totals.lag_seconds(), None);
        for batch in [batch(4, 70, Some(100)), batch(2, 5, Some(50)), batch(100, 0, None), Batch::begin("x", at(0))] {
            totals.add(&batch, at(60));
        }
        assert_eq!((totals.all.records, totals.recent.records, totals.lag_seconds()), (6, 4, Some(30)));
        let status = FeedsStatus::new(&totals, 1, 2, 3);
        assert_eq!((status.records, status.blocked, status.waiting, status.failed), (6, 1, 2, 3));
    }

    #[test]
    fn a_clock_that_is_behind_makes_no_negative_lag() {
        let mut totals = Totals::default();
        totals.add(&batch(1, 200, Some(100)), at(0));
        assert_eq!(totals.lag_seconds(), Some(0));
    }
}
