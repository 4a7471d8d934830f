//! The run report: what a script reads, the mail says and the dashboard draws.

use crate::counts::{Bytes, Messages};
use crate::mode::Mode;
use crate::run::job_run::{JobRun, RunStatus};
pub use crate::run::overview::OpenMessage;
use crate::run::overview::{Coverage, Extent, Overview, span_of};
use crate::run::{
    span::{Span, joined, without},
    unresolved::Unresolved,
};
use crate::window::{
    plan::Left,
    record::{State, WindowRecord},
};
use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    pub planned: u64,
    pub succeeded: u64,
    pub failed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recheck {
    pub looked_at: u64,
    pub closed: u64,
    pub open: u64,
    pub gone: u64,
    /// Closed, and not fit for the archive.
    #[serde(default)]
    pub quarantined: u64,
    /// Of `looked_at`, the ones whose documents had to be read, because they were written again.
    #[serde(default)]
    pub read: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    pub late: u64,
    pub changed: u64,
    pub reopened: u64,
    /// Known messages in an index that took the place of another.
    #[serde(default)]
    pub moved: u64,
    /// Writes that were not looked at, because one run takes no more: the next goes on with them.
    #[serde(default, skip_serializing_if = "crate::message::entry::is_zero")]
    pub left: u64,
}

/// A window that did not commit: its error's stable name and what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub window_id: String,
    pub error: String,
    pub message: String,
    /// Documents that the plan counted in it.
    #[serde(default)]
    pub messages: u64,
    /// How much of the window other runs have committed: what they have is not missing, this run only did not look
    /// again.
    #[serde(default, skip_serializing_if = "Extent::is_nothing")]
    pub by_other_runs: Extent,
    /// The function that was at work on it last; none where none began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// `runs/<run>/report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    pub run_id: String,
    pub mode: String,
    #[serde(with = "instant::serde_iso")]
    pub from: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub to: Timestamp,
    pub status: RunStatus,
    pub attempt: u64,
    pub windows: Windows,
    pub messages: Messages,
    pub recheck: Recheck,
    pub sweep: Sweep,
    /// Ids that stand in more than one index.
    pub collisions: u64,
    /// Documents without a usable timestamp: in no window.
    pub undated: u64,
    /// What the run's source does not have: `history` and `audit` where it is the API alone.
    #[serde(default)]
    pub absent: Vec<String>,
    /// All open rows now, whichever run held them over.
    pub backlog: u64,
    /// Archived messages that are open again, or went while they were: `archive/reopened` lists them.
    #[serde(default)]
    pub reopened: u64,
    pub bytes: Bytes,
    pub reconciled: bool,
    pub failures: Vec<Failure>,
    /// What operators have set aside in any run and is not resolved.
    #[serde(default)]
    pub unresolved: Vec<Unresolved>,
    /// What the run left to the next one, because there was more than one run takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
    /// When the run began, and when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<String>,
}

impl RunReport {
    /// What is known of a run that has no report: it is at work, was refused, or died.
    pub fn unreported(run: &JobRun) -> Self {
        let failure = run.error.clone().map(|error| Failure {
            window_id: String::new(),
            error,
            message: run.message.clone().unwrap_or_default(),
            ..Failure::default()
        });
        RunReport {
            run_id: run.run_id.clone(),
            mode: run.mode.as_str().to_owned(),
            from: run.from,
            to: run.to,
            status: run.status,
            attempt: run.attempt,
            windows: Windows { planned: run.planned, ..Windows::default() },
            messages: run.counts,
            recheck: Recheck::default(),
            sweep: Sweep::default(),
            collisions: 0,
            undated: run.undated,
            absent: run.absent.clone(),
            backlog: 0,
            reopened: 0,
            bytes: Bytes::default(),
            reconciled: false,
            failures: failure.into_iter().collect(),
            unresolved: Vec::new(),
            left: run.left,
            started_at: Some(instant::iso(run.created_at)),
            reported_at: None,
        }
    }

    /// As the run's row has it by now: a redrive makes the run live again, and an execution may die, whatever the
    /// last report said.
    pub fn brought_up_to(mut self, run: &JobRun) -> Self {
        self.status = run.status;
        self.attempt = run.attempt;
        self.started_at = Some(instant::iso(run.created_at));
        if let Some(error) = &run.error {
            let message = run.message.clone().unwrap_or_default();
            self.failures.insert(0, Failure { error: error.clone(), message, ..Failure::default() });
            self.reconciled = false;
        }
        self
    }

    /// Whether a report has counted what became of the windows: of a run without one, only its row is known.
    pub fn is_counted(&self) -> bool {
        self.reported_at.is_some()
    }

    fn is_of_mode(&self, modes: &[Mode]) -> bool {
        modes.iter().any(|mode| mode.as_str() == self.mode)
    }

    /// Stretches whose windows failed or were skipped. Of a window that is no stretch of time (held-over messages, late
    /// ones) nothing follows for a range.
    pub fn uncommitted(&self) -> Vec<Span> {
        joined(self.failures.iter().filter_map(|failure| span_of(&failure.window_id)))
    }

    /// As it is to be told now that runs have covered these stretches: what failed here, another may have committed
    /// since.
    pub fn told_after(mut self, covered: &[Span]) -> Self {
        for failure in &mut self.failures {
            if let Some(span) = span_of(&failure.window_id) {
                failure.by_other_runs = failure.by_other_runs.max(Extent::of(&span, covered));
            }
        }
        self
    }
}

/// What a run had planned of a range, and what of it is committed. `records` are the rows of its windows, where its
/// report does not tell all: it died before it had one, or after.
pub fn coverage(report: &RunReport, records: &[WindowRecord]) -> Option<Coverage> {
    if !report.is_of_mode(&[Mode::Range, Mode::Scheduled]) || report.from >= report.to {
        return None;
    }
    let of_range = || records.iter().filter(|record| record.window.purpose.is_range());
    let span = |record: &WindowRecord| Span { from: record.window.from, to: record.window.to };
    let done: Vec<Span> = of_range().filter(|record| record.status == State::Completed).map(span).collect();
    if report.is_counted() {
        let range = vec![Span { from: report.from, to: report.to }];
        let committed = without(range.clone(), &report.uncommitted()).into_iter().chain(done).collect();
        // What failed of a run that is at work again may be done by now.
        let planned = if report.status == RunStatus::Running { Vec::new() } else { range };
        return Some(Coverage { planned, committed });
    }
    // Between the windows of a plan that no report has confirmed nothing is known.
    let planned = if report.status == RunStatus::Running { Vec::new() } else { of_range().map(span).collect() };
    Some(Coverage { planned, committed: done })
}

/// What extractions have staged, and runs that began after them have written.
pub fn extracted(reports: &[RunReport]) -> Vec<Coverage> {
    let counted = |mode| reports.iter().filter(move |report| report.is_of_mode(&[mode]) && report.is_counted());
    let mut committed = Vec::new();
    for extraction in counted(Mode::Extract) {
        let staged = without(vec![Span { from: extraction.from, to: extraction.to }], &extraction.uncommitted());
        // Both are instants of one form, so that their texts are in order of time.
        let writers = counted(Mode::Process).filter(|writer| extraction.reported_at < writer.started_at);
        committed.extend(writers.flat_map(|writer| without(staged.clone(), &writer.uncommitted())));
    }
    vec![Coverage { planned: Vec::new(), committed }]
}

/// `runs/<run>/details.json`: what mail and dashboard show beside the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// By the messages' own time, oldest first; at most [`OLDEST_SHOWN`].
    pub oldest_open: Vec<OpenMessage>,
    /// Quarantined messages of this run by reason, most frequent first.
    pub quarantine_reasons: Vec<(String, u64)>,
    /// Held-over messages that stand in no index any more, told this once; at most [`GONE_SHOWN`].
    #[serde(default)]
    pub gone: Vec<OpenMessage>,
    /// All runs together.
    #[serde(default)]
    pub overview: Option<Overview>,
    /// Where the archive stood at the report before this one.
    #[serde(default)]
    pub before: Option<Before>,
    #[serde(default)]
    pub execution_arn: String,
    /// The attempt that this is about.
    #[serde(default)]
    pub attempt: u64,
    /// What failed in it, for the next report to compare with.
    #[serde(default)]
    pub failed: Before,
}

impl Details {
    /// For readers who have seen these details: nothing of the archive has been counted since, and what is told once is
    /// not told again.
    pub fn told_again(self) -> Self {
        let stands = self.overview.as_ref().map(|overview| Before {
            archived: overview.archived,
            open: overview.open,
            quarantined: overview.quarantined,
            ..Before::default()
        });
        Details { before: stands, gone: Vec::new(), ..self }
    }
}

/// What the report before this one said, so that readers see what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub run_id: String,
    pub attempt: u64,
    pub archived: u64,
    pub open: u64,
    pub quarantined: u64,
    /// Windows of this very run that had failed, and the messages in them.
    pub failed_windows: u64,
    pub failed_messages: u64,
    /// Those that an operator had set aside.
    #[serde(default)]
    pub set_aside_windows: u64,
    #[serde(default)]
    pub set_aside_messages: u64,
}

/// How many of the oldest open messages a report lists.
pub const OLDEST_SHOWN: usize = 10;
/// How many of the messages that are gone a report lists; the ledger has all of them.
pub const GONE_SHOWN: usize = 100;
