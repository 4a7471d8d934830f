//! Ends the run, or fails the execution so that an operator can redrive it. A redrive comes back here: the live
//! redrive count is then greater than the one the report was made at, and the failed windows run again.

use alerts::{
    keys::looked_at_key,
    mode::Mode,
    run::{
        job_run::{JobRun, RunStatus, committed_to},
        lock::Held,
        looked_at::LookedAt,
        payloads::{Collected, Gate},
    },
    window::plan::{ListUnreadable, Window, read_list},
};
use archive::{Account, JobRuns};
use aws_config::SdkConfig;
use errors::{Name, Named};
use jiff::Timestamp;
use runtime::{Call, Config, ConfigMissing, step_metrics};
use std::sync::Arc;
use storage::{LedgerError, Objects, StoreError};
use workflow::{StepFunctions, Workflow, WorkflowError};

pub struct Deps {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub workflow: Arc<dyn Workflow>,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            workflow: StepFunctions::shared(aws),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{failed} windows of run {run_id} failed; the report names each. Redrive this execution, or: alert-archive \
        rerun {run_id} --redrive"
    )]
    WindowsFailed { run_id: String, failed: u64 },
    #[error("run {run_id} is not in job-runs")]
    PlanMissing { run_id: String },
    #[error("an execution of run {holder} has taken the range meanwhile; wait for it, then redrive again")]
    RangeBusy { holder: String },
    #[error("run {run_id} has gone on without this report, as {execution}; the last report and mail say how")]
    Superseded { run_id: String, execution: String },
    #[error("{key} is damaged")]
    ListUnreadable { key: String, source: ListUnreadable },
    #[error("{failed} windows failed, but {key} lists {listed}: the watermark cannot be moved")]
    FailedUnknown { key: String, failed: u64, listed: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Workflow(#[from] WorkflowError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::WindowsFailed { .. } => Name::WindowsFailed,
            Error::PlanMissing { .. } => Name::PlanMissing,
            Error::RangeBusy { .. } | Error::Superseded { .. } => Name::RangeBusy,
            Error::ListUnreadable { .. } | Error::FailedUnknown { .. } => Name::ObjectCorrupt,
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Workflow(error) => error.name(),
        }
    }
}

pub async fn handle(deps: &Deps, collected: Collected, call: Call) -> Result<Gate, Error> {
    let now = call.now();
    let run_id = &collected.run_id;
    let run = deps.job_runs.get(run_id).await?.ok_or_else(|| Error::PlanMissing { run_id: run_id.clone() })?;
    if run.status == RunStatus::Completed && run.execution_arn != collected.execution_arn {
        // Another execution has gone on with the run, and nothing is left of it.
        return Ok(Gate { collected, retry: false });
    }
    // Whether the report that led here is still what is to be said of the run.
    let counts = |row: &JobRun| row.is_account(&collected.execution_arn, collected.attempt.unwrap_or(row.attempt));
    let redrives = deps.workflow.describe(&collected.execution_arn).await?.redrives;
    if redrives > collected.reported_at && (collected.failed > 0 || !counts(&run)) {
        go_round(deps, &collected, &run, now).await?;
        return Ok(Gate { collected, retry: true });
    }
    let superseded = |execution: &str| Error::Superseded { run_id: run_id.clone(), execution: execution.to_owned() };
    if !counts(&run) {
        return Err(superseded(&run.execution_arn));
    }
    if collected.mode == Mode::Scheduled {
        let failed = failed_windows(deps, &collected).await?;
        let incomplete = || Error::FailedUnknown {
            key: collected.windows_key.clone(),
            failed: collected.failed,
            listed: failed.len(),
        };
        let looked_at: LookedAt = deps.objects.find_json(&looked_at_key(run_id)).await?.unwrap_or_default();
        // Not from the run's row: a plan that died may not have noted there that it was capped.
        let end = looked_at.left.map_or(run.to, |left| left.from);
        // A document by name that was not read would not be looked for again.
        if failed.iter().all(|window| window.purpose.is_range()) {
            for index in &looked_at.swept {
                deps.job_runs.note_swept(index).await?;
            }
        }
        deps.job_runs.move_watermark(committed_to(collected.failed, &failed, end).ok_or_else(incomplete)?).await?;
    }
    let status = if collected.failed == 0 { RunStatus::Completed } else { RunStatus::Failed };
    let mut other = None;
    let ended = deps.job_runs.change(run_id, |row| {
        other = (!counts(row)).then(|| row.execution_arn.clone());
        if other.is_none() {
            row.end(status, now);
        }
    });
    ended.await?;
    if let Some(execution) = other {
        return Err(superseded(&execution));
    }
    deps.job_runs.release(run_id, &collected.execution_arn).await?;
    step_metrics("gate-run", run_id, "", call.took(), &[]);
    match collected.failed {
        0 => Ok(Gate { collected, retry: false }),
        failed => Err(Error::WindowsFailed { run_id: run_id.clone(), failed }),
    }
}

/// A redriven execution takes range and run again. It is an attempt of its own, so that its report is mailed, whatever
/// the run's row says by now: an execution that was aborted here may be redriven before the row says that it failed, and
/// another may have gone on with the run meanwhile. Repeated, it counts once.
async fn go_round(deps: &Deps, collected: &Collected, run: &JobRun, now: Timestamp) -> Result<(), Error> {
    let Collected { run_id, execution_arn, .. } = collected;
    let (holder, execution) = (run_id.clone(), execution_arn.clone());
    let wanted = Held { holder, execution_arn: execution, from: run.from, to: run.to, until: None };
    let is_running = async |holder: &Held| Ok::<_, Error>(deps.workflow.is_running(&holder.execution_arn).await?);
    if let Some(holder) = deps.job_runs.acquire(&wanted, now, is_running).await? {
        return Err(Error::RangeBusy { holder: holder.holder });
    }
    let is_running = async |arn: &str| Ok::<_, Error>(deps.workflow.is_running(arn).await?);
    let account = deps.job_runs.account_for(run_id, execution_arn, now, is_running).await?;
    if let Some(Account::Other(execution)) = account {
        return Err(Error::Superseded { run_id: run_id.clone(), execution });
    }
    let resume = |row: &mut JobRun| {
        let attempt = row.attempt;
        if row.execution_arn == *execution_arn && attempt == collected.attempt.unwrap_or(attempt) {
            row.resume(attempt + 1, now);
        }
    };
    deps.job_runs.change(run_id, resume).await?;
    Ok(())
}

/// What collect-windows listed. A line that cannot be read may be the window that the watermark must not pass.
async fn failed_windows(deps: &Deps, collected: &Collected) -> Result<Vec<Window>, Error> {
    if collected.failed == 0 {
        return Ok(Vec::new());
    }
    let lines = deps.objects.get(&collected.windows_key).await?;
    read_list(&lines).map_err(|source| Error::ListUnreadable { key: collected.windows_key.clone(), source })
}
