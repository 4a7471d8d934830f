//! Sends the run's mail through SES, once for each attempt of the run; also of a run that died or was refused before it
//! had a report.

use alerts::{
    keys::run_prefix,
    run::{
        job_run::{JobRun, RunStatus},
        payloads::ReportRequest,
        report::{Details, RunReport},
    },
};
use archive::JobRuns;
use async_trait::async_trait;
use aws_config::SdkConfig;
use errors::{Name, Named};
use ledger::Once;
use mail::{Content, File, MailError, Mailer, Outbox, Recipients, Ses, send_once};
use reports::{
    console_of,
    dashboard::{PIPELINES, RUNS_KEY, section_key},
    letter::Rendered,
    mail::{CHART, Earlier, Links, Mail, Summary, is_for_everybody, mail},
    section::Section,
};
use runtime::{Call, Config, ConfigMissing, step_metrics};
use std::sync::Arc;
use storage::{LedgerError, Objects, StoreError};

pub struct Deps {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub mailer: Arc<dyn Mailer>,
    pub from: String,
    pub to: Recipients,
    pub dashboard: Option<String>,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            mailer: Arc::new(Ses::new(aws)),
            from: config.required("ALERT_ARCHIVE_MAIL_FROM"),
            to: Recipients::new(aws, config.required("ALERT_ARCHIVE_MAIL_RECIPIENTS_PARAMETER")),
            dashboard: config.optional("ALERT_ARCHIVE_DASHBOARD_URL"),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("run {run_id} is not in job-runs")]
    PlanMissing { run_id: String },
    #[error("run {run_id} has no report yet")]
    NotReported { run_id: String },
    #[error("attempt {attempt} of the run is not the last any more")]
    Superseded { attempt: u64 },
    #[error("the mail's text cannot be made")]
    Render(#[from] reports::letter::Error),
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::PlanMissing { .. } => Name::PlanMissing,
            Error::NotReported { .. } => Name::ObjectMissing,
            Error::Superseded { .. } => Name::RangeBusy,
            Error::Render(_) => Name::MailRejected,
            Error::Mail(error) => error.name(),
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
        }
    }
}

pub async fn handle(deps: &Deps, request: ReportRequest, call: Call) -> Result<(), Error> {
    let run_id = &request.run_id;
    let now = call.now();
    let run = deps.job_runs.get(run_id).await?.ok_or_else(|| Error::PlanMissing { run_id: run_id.clone() })?;
    let written = deps.objects.find(&request.report_key).await?;
    let key = format!("{}/details.json", run_prefix(run_id));
    let written: Option<RunReport> = match written {
        Some(body) => {
            Some(serde_json::from_slice(&body).map_err(|error| deps.objects.corrupt(&request.report_key, error))?)
        }
        None => None,
    };
    let note_of_death = format!("{}-{}", run.attempt, run.error.as_deref().unwrap_or("failed"));
    let (report, details, note) = match written {
        Some(report) if run.error.is_none() && report.attempt != run.attempt => {
            tracing::info!(run = run_id, attempt = report.attempt, "a later attempt tells of the run");
            return Ok(());
        }
        Some(report) if run.error.is_none() => {
            let note = report.attempt.to_string();
            (report, deps.objects.get_json(&key).await?, note)
        }
        // It died after a report, which tells what else had failed.
        Some(report) => {
            let details: Details = deps.objects.get_json(&key).await?;
            (report.brought_up_to(&run), details.told_again(), note_of_death)
        }
        // It died or was refused before it had one.
        None if run.status == RunStatus::Failed => {
            let details = Details { execution_arn: run.execution_arn.clone(), ..Details::default() };
            (RunReport::unreported(&run), details, note_of_death)
        }
        None => return Err(Error::NotReported { run_id: run_id.clone() }),
    };
    if !is_for_everybody(&report) {
        tracing::info!(run = run_id, "a run over one instant is not mailed");
        return Ok(());
    }
    let to = deps.to.list().await?;
    let pipelines = pipelines(deps).await?;
    // As the run before this one left it: the page is written while this mail is.
    let listed = deps.objects.find(RUNS_KEY).await?;
    let earlier = listed.map(|body| Earlier::read(&body)).unwrap_or_default();
    let died_of = died_of(&run, &note);
    let links = Links { dashboard: deps.dashboard.clone(), console: console_of(&details.execution_arn) };
    let content = |duplicate: bool| {
        let Mail { rendered: Rendered { subject, text, html }, chart, failed_windows } = mail(&Summary {
            report: &report,
            details: &details,
            pipelines: &pipelines,
            links: &links,
            earlier: &earlier,
            died_of,
            duplicate,
            now,
        })?;
        let file = |name: String, kind, bytes| File { name, kind, bytes };
        let images = chart.map(|bytes| file(CHART.to_owned(), "image/png", bytes));
        let attachments =
            failed_windows.map(|bytes| file(format!("failed-windows-{run_id}.csv"), "text/csv; charset=utf-8", bytes));
        Ok(Content {
            id: format!("{run_id}.{note}"),
            thread: Some(run_id.clone()),
            subject,
            text,
            html,
            images: images.into_iter().collect(),
            attachments: attachments.into_iter().collect(),
        })
    };
    let outbox = RunOutbox { job_runs: &deps.job_runs, run: &run, note: &note };
    let outcome = match send_once(&outbox, &*deps.mailer, (&deps.from, &to), now, content).await {
        Err(Error::Superseded { attempt }) => {
            tracing::info!(run = run_id, attempt, "the run has gone on meanwhile, and will be told of as it then is");
            return Ok(());
        }
        outcome => outcome?,
    };
    if outcome.sent.is_empty() {
        tracing::info!(run = run_id, attempt = report.attempt, "the mail of this attempt is out already");
    }
    let figures = [("Mails", outcome.sent.len() as u64), ("MailsRejected", outcome.rejected.len() as u64)];
    step_metrics("send-summary", run_id, "", call.took(), &figures);
    Ok(())
}

/// The error that an earlier mail about this run named, because the run had died or was refused: see `note` above.
fn died_of<'a>(run: &'a JobRun, note: &str) -> Option<&'a str> {
    let notes = run.outbox.keys().filter_map(|key| Some(key.split_once('/')?.0)).filter(|earlier| *earlier != note);
    // Other mails are noted there, too; those of an attempt begin with its number.
    let of_attempts = notes.filter_map(|note| note.split_once('-')).filter(|(at, _)| at.parse::<u64>().is_ok());
    of_attempts.map(|(_, error)| error).next_back()
}

/// What the other pipelines have published; one that has published nothing is not mentioned.
async fn pipelines(deps: &Deps) -> Result<Vec<Section>, Error> {
    let mut sections = Vec::new();
    for name in PIPELINES {
        let key = section_key(name);
        if let Some(body) = deps.objects.find(&key).await? {
            sections.push(Section::read(&body).map_err(|error| deps.objects.corrupt(&key, error))?);
        }
    }
    Ok(sections)
}

/// Notes in the run's row who has the mail of one attempt.
struct RunOutbox<'a> {
    job_runs: &'a JobRuns,
    /// As it was when the mail was made.
    run: &'a JobRun,
    note: &'a str,
}

#[async_trait]
impl Outbox for RunOutbox<'_> {
    type Error = Error;

    async fn change(
        &self,
        recipient: &str,
        decide: &mut (dyn FnMut(Option<Once>) -> Option<Once> + Send),
    ) -> Result<(), Error> {
        let note = format!("{}/{recipient}", self.note);
        // An attempt that began since will tell of the run itself, and a death is history when its execution goes on.
        let mut counts = true;
        let still_counts = |row: &JobRun| {
            counts = row.attempt == self.run.attempt && (self.run.error.is_none() || row.error == self.run.error);
            counts
        };
        let noted = self.job_runs.note_mail(&self.run.run_id, &note, still_counts, decide).await?;
        noted.ok_or_else(|| Error::PlanMissing { run_id: self.run.run_id.clone() })?;
        if counts { Ok(()) } else { Err(Error::Superseded { attempt: self.run.attempt }) }
    }
}
