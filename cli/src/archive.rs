//! The deployed archive, as the environment names it.

use alerts::{
    counts::Bytes,
    keys::run_prefix,
    run::{
        job_run::{JobRun, RunStatus},
        report::{Failure, Recheck, RunReport, Sweep, Windows as WindowCounts},
    },
};
use anyhow::{Context, Result, bail};
use archive::{JobRuns, Tracking, Windows};
use identity::instant;
use jiff::{SignedDuration, Timestamp};
use runtime::Config;
use sources::{Auth, Indices, OpenSearch};
use std::sync::Arc;
use storage::Objects;
use workflow::{StepFunctions, Workflow};

pub const BUCKET: &str = "ALERT_ARCHIVE_BUCKET";
pub const JOB_RUNS: &str = "ALERT_ARCHIVE_JOB_RUNS_TABLE";
pub const WINDOWS: &str = "ALERT_ARCHIVE_WINDOWS_TABLE";
pub const TRACKING: &str = "ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE";
pub const STATE_MACHINE: &str = "ALERT_ARCHIVE_STATE_MACHINE_ARN";
/// What a command needs that starts or follows a run.
pub const RUNS: &[&str] = &[BUCKET, JOB_RUNS, WINDOWS, STATE_MACHINE];
pub const ALL: &[&str] = &[BUCKET, JOB_RUNS, WINDOWS, TRACKING, STATE_MACHINE];

pub struct Archive {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub windows: Windows,
    pub ledger: Tracking,
    pub workflow: Arc<dyn Workflow>,
    pub aws: aws_config::SdkConfig,
    pub state_machine_arn: String,
}

impl Archive {
    /// Asks the environment for the variables that a command needs, and for no others.
    pub async fn from_env(needed: &[&str]) -> Result<Self> {
        let mut config = Config::default();
        let mut variable = |name: &str| {
            if needed.contains(&name) {
                return config.required(name);
            }
            // Should a command use it all the same, the error of the service names what is missing.
            config.optional(name).unwrap_or_else(|| format!("({name} is not set)"))
        };
        let (bucket, job_runs, windows) = (variable(BUCKET), variable(JOB_RUNS), variable(WINDOWS));
        let (tracking, state_machine_arn) = (variable(TRACKING), variable(STATE_MACHINE));
        config.check().context("the archive is not named; in a checkout, run: eval \"$(make -s env)\"")?;
        let aws = runtime::aws_config().await;
        Ok(Archive {
            objects: Objects::new(&aws, bucket),
            job_runs: JobRuns::new(&aws, job_runs),
            windows: Windows::new(&aws, windows),
            ledger: Tracking::new(&aws, tracking),
            workflow: StepFunctions::shared(&aws),
            aws,
            state_machine_arn,
        })
    }

    /// The ARN of an execution of the archive's state machine.
    pub fn execution_arn(&self, name: &str) -> String {
        format!("{}:{name}", self.state_machine_arn.replacen(":stateMachine:", ":execution:", 1))
    }

    pub async fn job_run(&self, run_id: &str) -> Result<JobRun> {
        match self.job_runs.get(run_id).await? {
            Some(run) => Ok(run),
            None => bail!("there is no run {run_id}; alert-archive status lists them all"),
        }
    }

    /// The source, where OPENSEARCH_URL names it.
    pub fn source(&self) -> Result<Option<OpenSearch>> {
        let mut config = Config::default();
        let Some(url) = config.optional("OPENSEARCH_URL") else { return Ok(None) };
        let auth = Auth::from_env(&mut config, &self.aws);
        let indices = Indices::from_env(&mut config);
        config.check()?;
        Ok(Some(OpenSearch::connect(&url, auth, &self.aws, indices)?))
    }

    /// Keys of the Parquet objects whose partitions meet `[from, to)`.
    pub async fn parquet_keys(&self, from: Timestamp, to: Timestamp) -> Result<Vec<String>> {
        let (first, last) = (instant::date(from), instant::date(to - SignedDuration::from_millis(1)));
        let mut keys = self.objects.list("archive/parquet/").await?;
        keys.retain(|key| date_of(key).is_some_and(|date| first.as_str() <= date && date <= last.as_str()));
        Ok(keys)
    }

    /// The report of a run; before there is one, what `job-runs` knows of it.
    pub async fn report(&self, run: &JobRun) -> Result<RunReport> {
        let written = self.objects.find(&format!("{}/report.json", run_prefix(&run.run_id))).await?;
        let mut report = match written {
            Some(body) => serde_json::from_slice(&body)
                .with_context(|| format!("the report of run {} is not readable", run.run_id))?,
            None => unreported(run),
        };
        // A redrive makes the run live again, whatever the last report said.
        report.status = run.status;
        report.attempt = run.attempt;
        Ok(report)
    }
}

fn unreported(run: &JobRun) -> RunReport {
    let failure = run.error.clone().map(|error| Failure {
        window_id: String::new(),
        error,
        message: run.message.clone().unwrap_or_default(),
    });
    RunReport {
        run_id: run.run_id.clone(),
        mode: run.mode.as_str().to_owned(),
        from: run.from,
        to: run.to,
        status: run.status,
        attempt: run.attempt,
        windows: WindowCounts { planned: run.planned, ..WindowCounts::default() },
        messages: run.counts,
        recheck: Recheck::default(),
        sweep: Sweep::default(),
        collisions: 0,
        undated: run.undated,
        absent: run.absent.clone(),
        backlog: 0,
        bytes: Bytes::default(),
        reconciled: false,
        failures: failure.into_iter().collect(),
        unresolved: Vec::new(),
    }
}

/// The partition of an object.
pub fn date_of(key: &str) -> Option<&str> {
    key.split('/').find_map(|part| part.strip_prefix("date="))
}

/// Whether a script may go on: everything of the run is where it belongs.
pub fn went_well(report: &RunReport) -> bool {
    report.status == RunStatus::Completed && report.reconciled
}
