//! Writes the dashboard page and its data to S3.

use alerts::{
    keys::run_prefix,
    message::{classification::Disposition, tracking::Row},
    run::{
        payloads::ReportRequest,
        report::{Details, RunReport},
    },
};
use archive::{JobRuns, Tracking};
use aws_config::SdkConfig;
use errors::{Name, Named};
use jiff::Timestamp;
use reports::dashboard::{self, Latest};
use runtime::{Call, Config, ConfigMissing, step_metrics};
use storage::{LedgerError, Objects, PutOnce, Scanned, StoreError};

const RUNS: &str = "dashboard/data/runs.json";
const LATEST: &str = "dashboard/data/latest.json";
const PAGE: &str = "dashboard/index.html";
/// How often the list of runs is written against others who write it.
const TRIES: usize = 8;

pub struct Deps {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub ledger: Tracking,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            ledger: Tracking::new(aws, config.required("ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE")),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{RUNS} was changed by other runs each time it was to be written")]
    Contended,
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Contended => Name::StoreUnavailable,
        }
    }
}

pub async fn handle(deps: &Deps, request: ReportRequest, call: Call) -> Result<(), Error> {
    let report: RunReport = deps.objects.get_json(&request.report_key).await?;
    let details: Details = deps.objects.get_json(&format!("{}/details.json", run_prefix(&request.run_id))).await?;
    let now = call.now();
    list_runs(deps, now).await?;
    let latest = Latest {
        report: &report,
        oldest_open: &details.oldest_open,
        open_ages: &dashboard::age_groups(open_instants(deps).await?, now),
        quarantine_reasons: &details.quarantine_reasons,
        archived_by_month: &[],
        now,
    };
    deps.objects.put_json(LATEST, &dashboard::latest(&latest)).await?;
    deps.objects.put(PAGE, dashboard::page().as_bytes().to_vec(), "text/html; charset=utf-8").await?;
    step_metrics("aggregate-dashboard", &request.run_id, "", call.took(), &[]);
    Ok(())
}

/// Writes the list anew from the reports. Of two runs that end at once, the second sees the first's.
async fn list_runs(deps: &Deps, now: Timestamp) -> Result<(), Error> {
    for _ in 0..TRIES {
        let before = deps.objects.find_versioned(RUNS).await?;
        let Scanned { rows: mut runs, malformed } = deps.job_runs.runs.scan().await?;
        runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
        let mut reports: Vec<RunReport> = Vec::new();
        for run in runs.iter().take(dashboard::RUNS) {
            if let Some(body) = deps.objects.find(&format!("{}/report.json", run_prefix(&run.run_id))).await? {
                reports.push(serde_json::from_slice(&body).map_err(|error| deps.objects.corrupt(RUNS, error))?);
            }
        }
        let unreadable: Vec<String> = malformed.iter().map(ToString::to_string).collect();
        let body = dashboard::runs(&reports, &unreadable, now).to_string().into_bytes();
        let written = match before {
            Some((_, tag)) => deps.objects.replace(RUNS, body.into(), "application/json", &tag).await?,
            None => {
                matches!(deps.objects.put_once(RUNS, body.into(), "application/json").await?, PutOnce::Created(_))
            }
        };
        if written {
            return Ok(());
        }
    }
    Err(Error::Contended)
}

/// The messages' own instants of all that is held over.
async fn open_instants(deps: &Deps) -> Result<Vec<Timestamp>, Error> {
    let mut instants = Vec::new();
    let is_open = |row: &Row| row.disposition == Disposition::Open;
    deps.ledger.staged(|row| instants.extend(is_open(&row).then_some(row.timestamp))).await?;
    Ok(instants)
}
