//! Says how long ago a run of the archive completed, as a metric, several times a day. An alarm on it notices that runs
//! stay away: CloudWatch looks back seven days at most, and schedules are weekly.

use alerts::run::job_run::{JobRun, RunStatus};
use archive::JobRuns;
use aws_config::SdkConfig;
use errors::{Name, Named, describe};
use jiff::Timestamp;
use runtime::{Call, Config, ConfigMissing, Metrics, Unit};
use serde::{Deserialize, Serialize};
use storage::{LedgerError, Scanned};

pub struct Deps {
    pub job_runs: JobRuns,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps { job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")) };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Ledger(error) => error.name(),
        }
    }
}

/// What the schedule sends; nothing in it matters.
#[derive(Debug, Deserialize)]
pub struct Request {}

#[derive(Debug, PartialEq, Serialize)]
pub struct Silence {
    /// Whole days; none before the first run.
    pub days: Option<u64>,
}

pub async fn handle(deps: &Deps, _request: Request, call: Call) -> Result<Silence, Error> {
    let Scanned { rows: runs, malformed } = deps.job_runs.runs.scan().await?;
    for error in &malformed {
        // The metric may then tell of more silence than there is: an alarm too many, and here is why.
        tracing::error!(error = describe(error), "a run cannot be read");
    }
    let days = days_of_silence(&runs, call.now());
    if let Some(days) = days {
        Metrics::new().figure("DaysSinceCompletedRun", Unit::None, days).write();
    }
    Ok(Silence { days })
}

/// Since the latest completed run, or since the first run was planned where none completed yet.
fn days_of_silence(runs: &[JobRun], now: Timestamp) -> Option<u64> {
    let completed = runs.iter().filter(|run| run.status == RunStatus::Completed).map(|run| run.updated_at).max();
    let since = completed.or_else(|| runs.iter().map(|run| run.created_at).min())?;
    // A clock that is ahead makes no negative days.
    Some(u64::try_from(now.duration_since(since).as_hours() / 24).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(status: RunStatus, created: &str, updated: &str) -> JobRun {
        let row = json!({
            "run_id": created, "mode": "range", "status": status, "from": created, "to": updated,
            "created_at": created, "updated_at": updated, "execution_arn": "", "attempt": 1, "planned": 0, "undated": 0,
            "revision": 0,
        });
        serde_json::from_value(row).expect("a row of job-runs")
    }

    #[test]
    fn silence_is_counted_from_the_latest_completed_run() {
        let runs = [
            run(RunStatus::Completed, "2026-11-02T06:00:00Z", "2026-11-02T07:00:00Z"),
            run(RunStatus::Completed, "2026-11-09T06:00:00Z", "2026-11-09T07:00:00Z"),
            run(RunStatus::Failed, "2026-11-16T06:00:00Z", "2026-11-16T07:00:00Z"),
        ];
        let days = |now: &str| days_of_silence(&runs, now.parse().expect("an instant"));
        assert_eq!(days("2026-11-17T06:59:59Z"), Some(7));
        assert_eq!(days("2026-11-17T07:00:00Z"), Some(8));
        assert_eq!(days("2026-11-09T06:59:00Z"), Some(0));
    }

    #[test]
    fn where_no_run_completed_silence_began_with_the_first() {
        let now: Timestamp = "2026-11-20T06:00:00Z".parse().expect("an instant");
        let runs = [
            run(RunStatus::Failed, "2026-11-16T06:00:00Z", "2026-11-16T07:00:00Z"),
            run(RunStatus::Running, "2026-11-18T06:00:00Z", "2026-11-18T07:00:00Z"),
        ];
        assert_eq!(days_of_silence(&runs, now), Some(4));
        assert_eq!(days_of_silence(&[], now), None);
    }
}
