//! The deployed archive, as the environment names it.

use alerts::{
    keys::{PARQUET, date_of, run_prefix},
    run::{
        job_run::{JobRun, RunStatus},
        report::RunReport,
        span::Span,
        unresolved::Unresolved,
    },
};
use anyhow::{Context, Result, bail, ensure};
use archive::{JobRuns, Tracking, Windows};
use aws_config::{SdkConfig, retry::RetryConfig};
use aws_credential_types::provider::ProvideCredentials;
use identity::instant;
use jiff::{SignedDuration, Timestamp};
use reports::dashboard::{LATEST_KEY, RUNS_KEY, covered, silent_days};
use runtime::Config;
use sources::{Auth, Indices, OpenSearch};
use std::sync::Arc;
use std::time::Duration;
use storage::{Objects, StoreError};
use workflow::{StepFunctions, Workflow};

pub const BUCKET: &str = "ALERT_ARCHIVE_BUCKET";
pub const JOB_RUNS: &str = "ALERT_ARCHIVE_JOB_RUNS_TABLE";
pub const WINDOWS: &str = "ALERT_ARCHIVE_WINDOWS_TABLE";
pub const TRACKING: &str = "ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE";
pub const STATE_MACHINE: &str = "ALERT_ARCHIVE_STATE_MACHINE_ARN";
/// What a command needs that starts or follows a run.
pub const RUNS: &[&str] = &[BUCKET, JOB_RUNS, WINDOWS, STATE_MACHINE];
pub const ALL: &[&str] = &[BUCKET, JOB_RUNS, WINDOWS, TRACKING, STATE_MACHINE];

/// In the place of a run's id: the run that began last.
pub const LATEST: &str = "latest";

/// Of a deployment whose page does not say: a weekly schedule, and a day more.
const SILENT_DAYS: u64 = 8;

/// What was asked for does not exist: an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

pub struct Archive {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub windows: Windows,
    pub ledger: Tracking,
    pub workflow: Arc<dyn Workflow>,
    pub aws: SdkConfig,
    pub state_machine_arn: String,
    /// Of OPENSEARCH_URL.
    pub source_url: Option<String>,
}

impl Archive {
    /// Notes what every report names until it is resolved.
    pub async fn set_aside(&self, item: &Unresolved) -> Result<()> {
        let (mut has_room, mut items) = (true, 0);
        let change = self.job_runs.change_unresolved(|register| {
            items = register.items.len();
            let next = register.with(item.clone());
            has_room = next.is_some();
            next
        });
        change.await?;
        ensure!(
            has_room,
            "{items} windows and documents are set aside already, and there is no room for more: release or resume \
             some; alert-archive status names them"
        );
        Ok(())
    }

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
        let source_url = config.optional("OPENSEARCH_URL");
        config.check().context("the archive is not named; in a checkout, run: eval \"$(make -s env)\"")?;
        let aws = aws().await?;
        Ok(Archive {
            objects: Objects::new(&aws, bucket),
            job_runs: JobRuns::new(&aws, job_runs),
            windows: Windows::new(&aws, windows),
            ledger: Tracking::new(&aws, tracking),
            workflow: StepFunctions::shared(&aws),
            aws,
            state_machine_arn,
            source_url,
        })
    }

    /// The ARN of an execution of the archive's state machine.
    pub fn execution_arn(&self, name: &str) -> String {
        format!("{}:{name}", self.state_machine_arn.replacen(":stateMachine:", ":execution:", 1))
    }

    /// The run that an operator means: by its id, by the beginning of an id that no other run shares, or the latest.
    pub async fn job_run(&self, text: Option<&str>) -> Result<JobRun> {
        // Every id begins with nothing, and a script's variable may be empty.
        if text == Some("") {
            return Err(NotFound("no run has an empty id; alert-archive status lists them all".into()).into());
        }
        let latest = text.is_none_or(|text| text == LATEST);
        if let Some(text) = text.filter(|_| !latest)
            && let Some(run) = self.job_runs.get(text).await?
        {
            return Ok(run);
        }
        let mut runs = self.job_runs.runs.scan().await?.rows;
        if latest {
            return match runs.into_iter().max_by_key(|run| run.created_at) {
                Some(run) => Ok(run),
                None => Err(NotFound("there has been no run yet; alert-archive run starts one".into()).into()),
            };
        }
        let text = text.unwrap_or_default();
        runs.retain(|run| run.run_id.starts_with(text));
        runs.sort_by(|left, right| left.run_id.cmp(&right.run_id));
        match runs.as_slice() {
            [run] => Ok(run.clone()),
            [] => Err(NotFound(format!("there is no run {text}; alert-archive status lists them all")).into()),
            [first, second, ..] => bail!(
                "{} runs begin with {text}, such as {} and {}: write more of the id",
                runs.len(),
                first.run_id,
                second.run_id
            ),
        }
    }

    /// The run that is at work; of several, the one that began last.
    pub async fn run_at_work(&self) -> Result<JobRun> {
        let mut runs = self.job_runs.runs.scan().await?.rows;
        runs.retain(|run| run.status == RunStatus::Running);
        runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
        for run in runs {
            // Of an execution that was stopped a moment ago, the row does not know yet.
            if self.workflow.is_running(&run.execution_arn).await? {
                return Ok(run);
            }
        }
        Err(NotFound("no run is at work; alert-archive status lists how they ended".into()).into())
    }

    /// After how many days without a completed run something is wrong: what the deployment's page says.
    pub async fn silent_days(&self) -> Result<u64, StoreError> {
        let runs = self.objects.find(RUNS_KEY).await?;
        Ok(runs.and_then(|body| silent_days(&body)).unwrap_or(SILENT_DAYS))
    }

    /// What all runs together had committed at the last report: what failed in one may be done by another since.
    pub async fn covered(&self) -> Result<Vec<Span>> {
        let latest = self.objects.find(LATEST_KEY).await?;
        Ok(latest.map(|body| covered(&body)).unwrap_or_default())
    }

    /// The source, where OPENSEARCH_URL names it.
    pub fn source(&self) -> Result<Option<OpenSearch>> {
        let Some(url) = &self.source_url else { return Ok(None) };
        let mut config = Config::default();
        let auth = Auth::from_env(&mut config, &self.aws);
        let indices = Indices::from_env(&mut config);
        config.check()?;
        Ok(Some(OpenSearch::connect(url, auth, &self.aws, indices)?))
    }

    /// Keys of the Parquet objects whose partitions meet `[from, to)`.
    pub async fn parquet_keys(&self, from: Timestamp, to: Timestamp) -> Result<Vec<String>> {
        let (first, last) = (instant::date(from), instant::date(to - SignedDuration::from_millis(1)));
        let mut keys = self.objects.list(PARQUET).await?;
        keys.retain(|key| date_of(key).is_some_and(|date| first.as_str() <= date && date <= last.as_str()));
        Ok(keys)
    }

    /// The report of a run; before there is one, what `job-runs` knows of it.
    pub async fn report(&self, run: &JobRun) -> Result<RunReport> {
        let written = self.objects.find(&format!("{}/report.json", run_prefix(&run.run_id))).await?;
        match written {
            Some(body) => {
                let report: RunReport = serde_json::from_slice(&body)
                    .with_context(|| format!("the report of run {} is not readable", run.run_id))?;
                // A redrive makes the run live again, whatever the last report said.
                Ok(report.brought_up_to(run))
            }
            None => Ok(RunReport::unreported(run)),
        }
    }
}

/// AWS as the environment has it. What is missing is told before the first request, and what does not answer within
/// seconds: a person waits.
pub async fn aws() -> Result<SdkConfig> {
    let aws = runtime::aws_config().await;
    if aws.region().is_none() {
        bail!("no AWS region is set; set AWS_REGION to where the archive is deployed, such as eu-central-1");
    }
    let no_credentials = "there are no valid AWS credentials; log in again, or set AWS_PROFILE or AWS_ACCESS_KEY_ID";
    if let Some(provider) = aws.credentials_provider() {
        provider.provide_credentials().await.context(no_credentials)?;
    }
    let retries = RetryConfig::standard().with_max_attempts(3).with_max_backoff(Duration::from_secs(2));
    Ok(aws.into_builder().retry_config(retries).build())
}

/// Whether a script may go on: everything of the run is where it belongs.
pub fn went_well(report: &RunReport) -> bool {
    report.status == RunStatus::Completed && report.reconciled
}
