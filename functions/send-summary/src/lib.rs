//! Sends the run's mail through SES, once for each attempt of the run.

use alerts::{
    keys::run_prefix,
    run::{
        payloads::ReportRequest,
        report::{Details, RunReport},
    },
};
use archive::JobRuns;
use async_trait::async_trait;
use aws_config::SdkConfig;
use errors::{Name, Named};
use ledger::Once;
use mail::{Content, MailError, Mailer, Outbox, Ses, send_once};
use reports::mail::{Links, Rendered, Summary, summary};
use runtime::{Call, Config, ConfigMissing, step_metrics};
use std::sync::Arc;
use storage::{LedgerError, Objects, StoreError};

pub struct Deps {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub mailer: Arc<dyn Mailer>,
    pub from: String,
    pub to: Vec<String>,
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
    #[error("the mail's text cannot be made")]
    Render(#[from] reports::mail::Error),
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
            Error::Render(_) => Name::MailRejected,
            Error::Mail(error) => error.name(),
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
        }
    }
}

pub async fn handle(deps: &Deps, request: ReportRequest, call: Call) -> Result<(), Error> {
    let run_id = &request.run_id;
    let report: RunReport = deps.objects.get_json(&request.report_key).await?;
    let details: Details = deps.objects.get_json(&format!("{}/details.json", run_prefix(run_id))).await?;
    let now = call.now();
    let links = Links { dashboard: deps.dashboard.clone(), console: None };
    let content = |duplicate: bool| {
        let Rendered { subject, text, html } = summary(&Summary {
            report: &report,
            oldest_open: &details.oldest_open,
            quarantine_reasons: &details.quarantine_reasons,
            links: &links,
            duplicate,
            now,
        })?;
        Ok(Content { id: format!("{run_id}.{}", report.attempt), subject, text, html })
    };
    let outbox = RunOutbox { job_runs: &deps.job_runs, run_id, attempt: report.attempt };
    let outcome = send_once(&outbox, &*deps.mailer, (&deps.from, &deps.to), now, content).await?;
    if outcome.sent.is_empty() {
        tracing::info!(run = run_id, attempt = report.attempt, "the mail of this attempt is out already");
    }
    let figures = [("Mails", outcome.sent.len() as u64), ("MailsRejected", outcome.rejected.len() as u64)];
    step_metrics("send-summary", run_id, "", call.took(), &figures);
    Ok(())
}

/// Notes in the run's row who has the mail of one attempt.
struct RunOutbox<'a> {
    job_runs: &'a JobRuns,
    run_id: &'a str,
    attempt: u64,
}

#[async_trait]
impl Outbox for RunOutbox<'_> {
    type Error = Error;

    async fn change(
        &self,
        recipient: &str,
        decide: &mut (dyn FnMut(Option<Once>) -> Option<Once> + Send),
    ) -> Result<(), Error> {
        let note = format!("{}/{recipient}", self.attempt);
        let changed = self.job_runs.change(self.run_id, |row| {
            match decide(row.outbox.get(&note).copied()) {
                Some(once) => row.outbox.insert(note.clone(), once),
                None => row.outbox.remove(&note),
            };
        });
        changed.await?.map(|_| ()).ok_or_else(|| Error::PlanMissing { run_id: self.run_id.to_owned() })
    }
}
