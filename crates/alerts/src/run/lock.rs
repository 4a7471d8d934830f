//! The row of `job-runs` that keeps two runs from planning the same messages at once.

use super::keyed_by_run;
use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `run_id` of the row.
pub const LOCK: &str = "#lock";

/// Ranges at work now, so that no two runs plan the same messages at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lock {
    pub run_id: String,
    pub held: Vec<Held>,
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub holder: String,
    pub execution_arn: String,
    #[serde(with = "instant::serde_iso")]
    pub from: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub to: Timestamp,
    /// Of a holder that is no execution: how long it holds the range unless it renews it.
    #[serde(default, with = "crate::message::tracking::optional_iso", skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Held {
    /// The same run in the same execution. Another execution of that run (a redrive beside a failed-only, for example)
    /// is as much in the way as another run.
    fn is_same(&self, other: &Self) -> bool {
        self.holder == other.holder && self.execution_arn == other.execution_arn
    }
}

impl Lock {
    /// Who else holds a part of the wanted range.
    pub fn holder_of(&self, wanted: &Held) -> Option<&Held> {
        self.held.iter().find(|held| !held.is_same(wanted) && held.from < wanted.to && wanted.from < held.to)
    }

    pub fn with(mut self, held: Held) -> Self {
        self.held.retain(|other| !other.is_same(&held));
        self.held.push(held);
        self
    }

    /// Without what this execution of a run holds.
    pub fn without(mut self, holder: &str, execution_arn: &str) -> Self {
        self.held.retain(|held| held.holder != holder || held.execution_arn != execution_arn);
        self
    }
}

keyed_by_run!(Lock: |run_id| run_id == LOCK);

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, from: i64, to: i64) -> Held {
        let at = |second| Timestamp::from_second(second).expect("in range");
        Held { holder: holder.into(), execution_arn: String::new(), from: at(from), to: at(to), until: None }
    }

    #[test]
    fn ranges_that_touch_do_not_overlap_and_a_run_never_blocks_itself() {
        let lock = Lock::default().with(held("r1", 0, 10));
        let blocks = |other: Held| lock.holder_of(&other).is_some();
        assert!(blocks(held("r2", 9, 20)));
        assert!(blocks(held("r2", 3, 4)));
        assert!(!blocks(held("r2", 10, 20)));
        assert!(!blocks(held("r1", 0, 10)));
        assert!(blocks(Held { execution_arn: "another".into(), ..held("r1", 0, 10) }), "of the same run");
        assert_eq!(lock.clone().without("r1", "another"), lock);
        assert!(lock.clone().without("r1", "").held.is_empty());
    }
}
