//! The rows of `job-runs`: one a run, and some of the archive's own: the lock, the watermark, and what is
//! [`unresolved`](crate::run::unresolved).

use super::keyed_by_run;
use crate::{
    counts::Messages,
    mode::Mode,
    window::plan::{Left, Window},
};
use identity::instant;
use jiff::{SignedDuration, Timestamp};
use ledger::Once;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `run_id` of the watermark's row.
pub const WATERMARK: &str = "#watermark";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunStatus {
    #[default]
    Running,
    Completed,
    Failed,
}

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
    /// The execution that accounts for the run: only its report, its mails and its end count.
    pub execution_arn: String,
    /// 1, and one more for each redrive or failed-only execution.
    pub attempt: u64,
    pub planned: u64,
    pub undated: u64,
    /// What the run's source does not have, as in its report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
    #[serde(default)]
    pub counts: Messages,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<String>,
    /// What a capped run leaves to the next: `to` is where that begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
    /// Which recipient has the mail of which attempt: `attempt/recipient`.
    #[serde(default)]
    pub outbox: BTreeMap<String, Once>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub revision: u64,
}

impl JobRun {
    /// The run is at work once more; what ended it before is history.
    pub fn resume(&mut self, attempt: u64, now: Timestamp) {
        self.attempt = attempt;
        self.end(RunStatus::Running, now);
    }

    /// Another execution goes on with the run, and accounts for it from now on: an attempt of its own.
    pub fn take_over(&mut self, execution_arn: &str, now: Timestamp) {
        execution_arn.clone_into(&mut self.execution_arn);
        self.resume(self.attempt + 1, now);
    }

    /// Whether it stands as this execution's account of this attempt, which nothing has ended since.
    pub fn is_account(&self, execution_arn: &str, attempt: u64) -> bool {
        self.execution_arn == execution_arn && self.attempt == attempt && self.error.is_none()
    }

    /// Whether the row is of an earlier execution of the same name: names are free again after 90 days.
    pub fn is_from_before(&self, started: Timestamp) -> bool {
        const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);
        self.created_at + CLOCKS_DIFFER < started
    }

    /// Whether it is the run of this scheduled time, however that is spelled.
    pub fn is_scheduled_for(&self, at: &str) -> bool {
        let instant_of = |text: &str| instant::parse_edge(text);
        self.scheduled_for
            .as_deref()
            .is_some_and(|own| own == at || (instant_of(own).is_some() && instant_of(own) == instant_of(at)))
    }

    /// The run has come as far as its report, which names whatever failed. An earlier death of its execution is
    /// history.
    pub fn end(&mut self, status: RunStatus, now: Timestamp) {
        self.status = status;
        self.error = None;
        self.message = None;
        self.updated_at = now;
    }

    /// An operator has ended this execution. What the run has told of its end by then stays, unless it is no more than
    /// that the execution is over.
    pub fn cancelled(&mut self, execution_arn: &str, because: &str, now: Timestamp) {
        let is_told = match self.status {
            RunStatus::Running => false,
            RunStatus::Completed => true,
            RunStatus::Failed => self.error.as_deref() != Some("ExecutionDied"),
        };
        if self.execution_arn == execution_arn && !is_told {
            self.end(RunStatus::Failed, now);
            (self.error, self.message) = (Some("RunCancelled".to_owned()), Some(because.to_owned()));
        }
    }
}

/// The latest completed run and when it completed; the first run and when it was planned, where none completed yet.
pub fn last_sign(runs: &[JobRun]) -> Option<(&JobRun, Timestamp)> {
    let completed = runs.iter().filter(|run| run.status == RunStatus::Completed);
    let latest = completed.map(|run| (run, run.updated_at)).max_by_key(|(_, at)| *at);
    latest.or_else(|| runs.iter().map(|run| (run, run.created_at)).min_by_key(|(_, at)| *at))
}

/// The end of the part of a run's range that is committed without a gap: where the first failed window of its range
/// begins. `None` when windows failed and not all of them are known: then nothing is known to be committed.
pub fn committed_to(failed: u64, windows: &[Window], to: Timestamp) -> Option<Timestamp> {
    if windows.len() as u64 != failed {
        return None;
    }
    let of_range = windows.iter().filter(|window| window.purpose.is_range());
    Some(of_range.map(|window| window.from).min().unwrap_or(to))
}

/// Up to where scheduled runs have archived everything without a gap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    pub run_id: String,
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
    pub revision: u64,
}

keyed_by_run!(
    JobRun: |run_id: &str| !run_id.starts_with('#'),
    Watermark: |run_id| run_id == WATERMARK
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::plan::{Dated, Purpose};

    #[test]
    fn the_watermark_stops_at_the_first_failed_window_and_never_passes_one_that_is_not_known() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let failed = [Window::new(at(20), at(30), 1), Window::new(at(10), at(20), 1)];
        assert_eq!(committed_to(0, &[], at(60)), Some(at(60)));
        assert_eq!(committed_to(2, &failed, at(60)), Some(at(10)));
        assert_eq!(committed_to(2, &failed[..1], at(60)), None);
        assert_eq!(committed_to(1, &[], at(60)), None);
        let document = Dated { at: at(5), document: identity::Identity::new("m", "a") };
        let by_name = Window::of_documents(Purpose::Recheck, vec![document]);
        assert_eq!(committed_to(1, &by_name, at(60)), Some(at(60)), "its message stays held over");
    }

    #[test]
    fn a_run_that_comes_to_its_end_after_all_keeps_nothing_of_its_death() {
        let mut run = JobRun {
            run_id: "r1".into(),
            mode: Mode::Range,
            status: RunStatus::Failed,
            from: Timestamp::UNIX_EPOCH,
            to: Timestamp::UNIX_EPOCH,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            execution_arn: String::new(),
            attempt: 1,
            planned: 1,
            undated: 0,
            absent: Vec::new(),
            counts: Messages::default(),
            scheduled_for: None,
            left: None,
            outbox: BTreeMap::new(),
            error: Some("ExecutionDied".into()),
            message: Some("the execution ended ABORTED before its report".into()),
            revision: 1,
        };
        let after = |seconds| Timestamp::from_second(seconds).expect("in range");
        assert!(!run.is_from_before(after(-1)) && !run.is_from_before(after(200)), "its own execution, by two clocks");
        assert!(run.is_from_before(after(90 * 86_400)));
        run.scheduled_for = Some("2026-11-16T06:00:00Z".into());
        for same in ["2026-11-16T06:00:00Z", "2026-11-16T06:00:00.000Z", "2026-11-16T07:00:00+01:00"] {
            assert!(run.is_scheduled_for(same), "{same}");
        }
        assert!(!run.is_scheduled_for("2026-11-23T06:00:00Z") && !run.is_scheduled_for("monday"));
        let mut resumed = run.clone();
        resumed.resume(2, Timestamp::UNIX_EPOCH);
        assert_eq!(
            (resumed.status, resumed.attempt, resumed.error, resumed.message),
            (RunStatus::Running, 2, None, None)
        );
        run.end(RunStatus::Completed, Timestamp::UNIX_EPOCH);
        assert_eq!((run.status, run.attempt, run.error, run.message), (RunStatus::Completed, 1, None, None));
    }
}
