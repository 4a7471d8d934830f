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

impl Lock {
    /// The run that holds a part of `[from, to)`, if it is another than `holder`.
    pub fn holder_of(&self, from: Timestamp, to: Timestamp, holder: &str) -> Option<&Held> {
        self.held.iter().find(|held| held.holder != holder && held.from < to && from < held.to)
    }

    pub fn with(mut self, held: Held) -> Self {
        self.held.retain(|other| other.holder != held.holder);
        self.held.push(held);
        self
    }

    pub fn without(mut self, holder: &str) -> Self {
        self.held.retain(|held| held.holder != holder);
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
        let blocks = |other: Held| lock.holder_of(other.from, other.to, &other.holder).is_some();
        assert!(blocks(held("r2", 9, 20)));
        assert!(blocks(held("r2", 3, 4)));
        assert!(!blocks(held("r2", 10, 20)));
        assert!(!blocks(held("r1", 0, 10)));
        assert!(lock.clone().without("r1").held.is_empty());
    }
}
