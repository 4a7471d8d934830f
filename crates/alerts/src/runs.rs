//! The rows of `job-runs`: one a run, and some of the archive's own: the lock, the watermark, and what is
//! [`unresolved`](crate::unresolved).

use crate::report::{Messages, RunStatus};
use crate::unresolved::Register;
use crate::{instant, steps::Mode};
use jiff::Timestamp;
use ledger::Keyed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `run_id` of the two rows that are no runs.
pub const LOCK: &str = "#lock";
pub const WATERMARK: &str = "#watermark";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRun {
    pub run_id: String,
    pub mode: Mode,
    pub status: RunStatus,
    #[serde(with = "instant::serde_iso")]
    pub from: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub to: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub created_at: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub updated_at: Timestamp,
    pub execution_arn: String,
    /// 1, and one more for each redrive or failed-only execution.
    pub attempt: u64,
    pub planned: u64,
    pub undated: u64,
    #[serde(default)]
    pub counts: Messages,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<String>,
    /// Mails by attempt: claimed before they are sent.
    #[serde(default)]
    pub mails: BTreeMap<String, Mail>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub revision: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mail {
    Claimed,
    Sent,
}

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

/// Up to where scheduled runs have archived everything without a gap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    pub run_id: String,
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
    pub revision: u64,
}

macro_rules! keyed_by_run {
    ($($row:ty),*) => {$(
        impl Keyed for $row {
            const PARTITION: &'static str = "run_id";
            const SORT: Option<&'static str> = None;

            fn key(&self) -> (String, Option<String>) {
                (self.run_id.clone(), None)
            }

            fn revision(&self) -> u64 {
                self.revision
            }

            fn revised(mut self, revision: u64) -> Self {
                self.revision = revision;
                self
            }
        }
    )*};
}
keyed_by_run!(JobRun, Lock, Watermark, Register);

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, from: i64, to: i64) -> Held {
        let at = |second| Timestamp::from_second(second).expect("in range");
        Held { holder: holder.into(), execution_arn: String::new(), from: at(from), to: at(to) }
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
