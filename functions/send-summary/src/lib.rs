//! Sends the run's mail through SES, once for each attempt of the run.

use alerts::{
    keys::run_prefix,
    run::{
        job_run::Mail,
        payloads::ReportRequest,
        report::{Details, RunReport},
    },
};
use archive::JobRuns;
use aws_config::SdkConfig;
use aws_sdk_ses::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::send_raw_email::SendRawEmailError,
    primitives::Blob,
    types::RawMessage,
};
use errors::{Name, Named};
use reports::mail::{self, Links};
use runtime::{Call, Config, ConfigMissing, step_metrics};
use storage::{LedgerError, Objects, StoreError};

pub struct Deps {
    objects: Objects,
    job_runs: JobRuns,
    ses: Client,
    from: String,
    to: Vec<String>,
    dashboard: Option<String>,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            ses: Client::new(aws),
            from: config.required("ALERT_ARCHIVE_MAIL_FROM"),
            to: config.required_list("ALERT_ARCHIVE_MAIL_TO"),
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
    #[error("SES refuses the mail: {message}")]
    Rejected { message: String },
    #[error("SES cannot take the mail now: {message}")]
    Unavailable { message: String, source: Box<SdkError<SendRawEmailError>> },
    #[error("the mail cannot be built")]
    Mail(#[from] mail::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::PlanMissing { .. } => Name::PlanMissing,
            Error::Rejected { .. } | Error::Mail(_) => Name::MailRejected,
            Error::Unavailable { .. } => Name::MailUnavailable,
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
        }
    }
}

pub async fn handle(deps: &Deps, request: ReportRequest, call: Call) -> Result<(), Error> {
    let run_id = &request.run_id;
    let report: RunReport = deps.objects.get_json(&request.report_key).await?;
    let details: Details = deps.objects.get_json(&format!("{}/details.json", run_prefix(run_id))).await?;
    // Claimed before it is sent: SES has no idempotency key. A claim that was never marked sent
    // belongs to a call that died, so that this mail may be the second of its kind, and says so.
    let key = report.attempt.to_string();
    let mut before = None;
    let claimed = deps.job_runs.change(run_id, |row| {
        before = row.mails.get(&key).copied();
        row.mails.entry(key.clone()).or_insert(Mail::Claimed);
    });
    claimed.await?.ok_or_else(|| Error::PlanMissing { run_id: run_id.clone() })?;
    if before == Some(Mail::Sent) {
        tracing::info!(run = run_id, attempt = key, "the mail of this attempt is out already");
        return Ok(());
    }
    let now = call.now;
    let links = Links { dashboard: deps.dashboard.clone(), console: None };
    let summary = mail::Summary {
        report: &report,
        oldest_open: &details.oldest_open,
        quarantine_reasons: &details.quarantine_reasons,
        links: &links,
        duplicate: before.is_some(),
        now,
    };
    send(deps, mail::summary(&summary, &deps.from, &deps.to)?).await?;
    let sent = deps.job_runs.change(run_id, |row| {
        row.mails.insert(key.clone(), Mail::Sent);
    });
    sent.await?;
    step_metrics("send-summary", run_id, "", call.took(), &[("Mails", 1)]);
    Ok(())
}

async fn send(deps: &Deps, mail: Vec<u8>) -> Result<(), Error> {
    let raw = RawMessage::builder()
        .data(Blob::new(mail))
        .build()
        .map_err(|error| Error::Rejected { message: error.to_string() })?;
    let outcome = deps
        .ses
        .send_raw_email()
        .source(&deps.from)
        .set_destinations(Some(deps.to.clone()))
        .raw_message(raw)
        .send()
        .await;
    outcome.map(|_| ()).map_err(|error| {
        let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
        match &error {
            SdkError::ServiceError(answer)
                if answer.raw().status().is_client_error() && error.code() != Some("Throttling") =>
            {
                Error::Rejected { message }
            }
            _ => Error::Unavailable { message, source: Box::new(error) },
        }
    })
}
