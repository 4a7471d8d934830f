//! Ends the run, or fails the execution so that an operator can redrive it. A redrive comes back here: the live
//! redrive count is then greater than the one the report was made at, and the failed windows run again.

use alerts::{
    mode::Mode,
    run::{
        job_run::RunStatus,
        lock::Held,
        payloads::{Collected, Gate},
    },
    window::plan::Window,
};
use archive::JobRuns;
use aws_config::SdkConfig;
use errors::{Name, Named};
use jiff::Timestamp;
use runtime::{Call, Config, ConfigMissing};
use storage::{LedgerError, Objects, StoreError};
use workflow::{Workflow, WorkflowError};

pub struct Deps {
    objects: Objects,
    job_runs: JobRuns,
    workflow: Workflow,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            workflow: Workflow::new(aws),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{failed} windows of run {run_id} failed; the report names each. Redrive this execution, or: alert-archive rerun {run_id} --redrive")]
    WindowsFailed { run_id: String, failed: u64 },
    #[error("run {run_id} is not in job-runs")]
    PlanMissing { run_id: String },
    #[error("run {holder} has taken the range meanwhile; wait for it, then redrive again")]
    RangeBusy { holder: String },
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
            Error::RangeBusy { .. } => Name::RangeBusy,
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Workflow(error) => error.name(),
        }
    }
}

pub async fn handle(deps: &Deps, collected: Collected, call: Call) -> Result<Gate, Error> {
    let now = call.now;
    let run_id = &collected.run_id;
    let run = deps.job_runs.get(run_id).await?.ok_or_else(|| Error::PlanMissing { run_id: run_id.clone() })?;
    let redrives = deps.workflow.describe(&collected.execution_arn).await?.redrives;
    if collected.failed > 0 && redrives > collected.reported_at {
        let wanted = Held { holder: run_id.clone(), execution_arn: collected.execution_arn.clone(), from: run.from, to: run.to };
        if let Some(holder) = deps.job_runs.acquire(&wanted, &[]).await? {
            return Err(Error::RangeBusy { holder: holder.holder });
        }
        let changed = deps.job_runs.change(run_id, |row| {
            // Running already: this very redrive was counted by a call whose answer got lost.
            row.attempt += u64::from(row.status != RunStatus::Running);
            row.status = RunStatus::Running;
            row.updated_at = now;
        });
        changed.await?;
        return Ok(Gate { collected, retry: true });
    }
    let committed_to = committed_to(deps, &collected, run.to).await?;
    if collected.mode == Mode::Scheduled {
        deps.job_runs.move_watermark(committed_to).await?;
    }
    let status = if collected.failed == 0 { RunStatus::Completed } else { RunStatus::Failed };
    let changed = deps.job_runs.change(run_id, |row| {
        row.status = status;
        row.updated_at = now;
    });
    changed.await?;
    deps.job_runs.release(run_id).await?;
    match collected.failed {
        0 => Ok(Gate { collected, retry: false }),
        failed => Err(Error::WindowsFailed { run_id: run_id.clone(), failed }),
    }
}

/// The end of the stretch that is committed without a gap.
async fn committed_to(deps: &Deps, collected: &Collected, to: Timestamp) -> Result<Timestamp, Error> {
    if collected.failed == 0 {
        return Ok(to);
    }
    let lines = deps.objects.get(&collected.windows_key).await?;
    let failed = serde_json::Deserializer::from_slice(&lines).into_iter::<Window>();
    let first = failed.filter_map(Result::ok).map(|window| window.from).min();
    Ok(first.unwrap_or(to))
}
