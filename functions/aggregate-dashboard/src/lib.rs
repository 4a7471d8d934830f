//! Writes the dashboard page and its data to S3.

use alerts::{
    keys::{grid_key, run_prefix},
    message::{classification::Disposition, tracking::Row},
    run::{
        grid::Grid,
        job_run::{JobRun, RunStatus},
        payloads::ReportRequest,
        report::{Details, RunReport},
    },
};
use archive::{JobRuns, Tracking};
use aws_config::SdkConfig;
use errors::{Name, Named};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use reports::{
    dashboard::{self, LATEST_KEY, Latest, ListedRun, PAGE_KEY, Pipeline, RUNS_KEY, Runs},
    mail::is_for_everybody,
    section::Section,
};
use runtime::{Call, Config, ConfigMissing, step_metrics};
use serde_json::Value;
use storage::{LedgerError, Objects, PutOnce, Scanned, StoreError};

/// How often the list of runs is written against others who write it.
const TRIES: usize = 8;
/// Reports that are read at once.
const READS: usize = 16;
/// Of so many runs, the newest, the page shows each window: about a year of a weekly one.
const GRIDS: usize = 60;

pub struct Deps {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub ledger: Tracking,
    /// Days without a completed run after which something is wrong.
    pub silent_days: u64,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            ledger: Tracking::new(aws, config.required("ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE")),
            silent_days: config.parsed("ALERT_ARCHIVE_SILENT_DAYS", 8),
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
    #[error("{RUNS_KEY} was changed by other runs each time it was to be written")]
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
    let now = call.now();
    let (runs, listed) = list_runs(deps, now).await?;
    let mut reports = listed.iter().map(|run| &run.report);
    let newest = reports.clone().max_by_key(|report| &report.reported_at);
    let latest = match reports.find(|report| report.is_counted() && is_for_everybody(report)).zip(newest) {
        Some((report, newest)) => Some(latest(deps, report, newest, now).await?),
        None => None,
    };
    if let Some(latest) = &latest {
        deps.objects.put_json(LATEST_KEY, latest).await?;
    }
    let mut pipelines = Vec::new();
    for name in dashboard::PIPELINES {
        let key = dashboard::section_key(name);
        if let Some(body) = deps.objects.find(&key).await? {
            let section = Section::read(&body).map_err(|error| deps.objects.corrupt(&key, error))?;
            pipelines.push(Pipeline { name: name.to_owned(), section });
        }
    }
    let page = dashboard::page(latest.as_ref(), &runs, &pipelines, now);
    deps.objects.put(PAGE_KEY, page, "text/html; charset=utf-8").await?;
    step_metrics("aggregate-dashboard", &request.run_id, "", call.took(), &[]);
    Ok(())
}

async fn latest(deps: &Deps, report: &RunReport, newest: &RunReport, now: Timestamp) -> Result<Value, Error> {
    let (details, details_of_newest) = (&details(deps, report).await?, &details(deps, newest).await?);
    let open_ages = &dashboard::age_groups(open_instants(deps).await?, now);
    Ok(dashboard::latest(&Latest { report, details, newest, details_of_newest, open_ages, now }))
}

async fn details(deps: &Deps, report: &RunReport) -> Result<Details, Error> {
    Ok(deps.objects.get_json(&format!("{}/details.json", run_prefix(&report.run_id))).await?)
}

/// Writes the list anew from rows and reports, newest first: also of runs that died or were refused before they had a
/// report. Of two runs that end at once, the second sees the first's.
async fn list_runs(deps: &Deps, now: Timestamp) -> Result<(Value, Vec<ListedRun>), Error> {
    for _ in 0..TRIES {
        let before = deps.objects.find_versioned(RUNS_KEY).await?;
        let Scanned { rows: mut runs, malformed } = deps.job_runs.runs.scan().await?;
        runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
        let last_completed =
            runs.iter().filter(|run| run.status == RunStatus::Completed).map(|run| run.updated_at).max();
        runs.truncate(dashboard::RUNS);
        let listed = runs.iter().map(|run| listed(deps, run));
        let mut listed: Vec<ListedRun> = stream::iter(listed).buffered(READS).try_collect().await?;
        bring_up_to_date(deps, &mut listed).await?;
        add_grids(deps, &mut listed).await?;
        let unreadable: Vec<String> = malformed.iter().map(ToString::to_string).collect();
        let silent_days = deps.silent_days;
        let list =
            dashboard::runs(&Runs { listed: &listed, unreadable: &unreadable, last_completed, silent_days, now });
        let body = list.to_string().into_bytes();
        let written = match before {
            Some((_, tag)) => deps.objects.replace(RUNS_KEY, body.into(), "application/json", &tag).await?,
            None => {
                matches!(deps.objects.put_once(RUNS_KEY, body.into(), "application/json").await?, PutOnce::Created(_))
            }
        };
        if written {
            return Ok((list, listed));
        }
    }
    Err(Error::Contended)
}

async fn listed(deps: &Deps, run: &JobRun) -> Result<ListedRun, Error> {
    let execution_arn = run.execution_arn.clone();
    Ok(ListedRun { report: report_of(deps, run).await?, execution_arn, grid: Grid::new() })
}

/// What failed in one run, others may have committed since: the report that was written last knows it.
async fn bring_up_to_date(deps: &Deps, listed: &mut [ListedRun]) -> Result<(), Error> {
    let newest = listed.iter().filter(|run| run.report.is_counted()).max_by_key(|run| &run.report.reported_at);
    let Some(newest) = newest else { return Ok(()) };
    let covered = details(deps, &newest.report).await?.overview.map(|overview| overview.covered).unwrap_or_default();
    for run in listed {
        run.report = run.report.clone().told_after(&covered);
    }
    Ok(())
}

/// The windows of the newest runs, as many as the page has room for. A run that has no report yet has none.
async fn add_grids(deps: &Deps, listed: &mut [ListedRun]) -> Result<(), Error> {
    let keys: Vec<String> = listed.iter().take(GRIDS).map(|run| grid_key(&run.report.run_id)).collect();
    let grids = keys.into_iter().map(async |key| deps.objects.find_json::<Grid>(&key).await);
    let grids: Vec<Option<Grid>> = stream::iter(grids).buffered(READS).try_collect().await?;
    let mut room = dashboard::CELLS;
    for (run, grid) in listed.iter_mut().zip(grids) {
        let Some(grid) = grid.filter(|grid| grid.len() <= room) else { continue };
        room -= grid.len();
        run.grid = grid;
    }
    Ok(())
}

async fn report_of(deps: &Deps, run: &JobRun) -> Result<RunReport, Error> {
    let key = format!("{}/report.json", run_prefix(&run.run_id));
    let Some(body) = deps.objects.find(&key).await? else { return Ok(RunReport::unreported(run)) };
    let report: RunReport = serde_json::from_slice(&body).map_err(|error| deps.objects.corrupt(&key, error))?;
    // The page is written by the run itself, just before its end.
    let is_at_its_end = run.status == RunStatus::Running && run.attempt == report.attempt;
    Ok(if is_at_its_end { report } else { report.brought_up_to(run) })
}

/// The messages' own instants of all that is held over.
async fn open_instants(deps: &Deps) -> Result<Vec<Timestamp>, Error> {
    let mut instants = Vec::new();
    let is_open = |row: &Row| row.disposition == Disposition::Open;
    deps.ledger.staged(|row| instants.extend(is_open(&row).then_some(row.timestamp))).await?;
    Ok(instants)
}
