//! Mails the report of log errors, once to each recipient.

use async_trait::async_trait;
use aws_config::SdkConfig;
use errors::{Name, Named};
use ledger::Once;
use log_entries::{LogMail, PAYLOAD, ReportTask};
use logs::LogReport;
use mail::{Content, MailError, Mailer, Outbox, Recipients, Ses, send_once};
use reports::letter::Rendered;
use reports::log_errors::letter;
use runtime::{Call, Config, ConfigMissing, Metrics, Unit};
use std::sync::Arc;
use storage::{LedgerError, Objects, StoreError, Table};

pub struct Deps {
    pub archive: Objects,
    pub mails: Table<LogMail>,
    pub mailer: Arc<dyn Mailer>,
    pub from: String,
    pub to: Recipients,
    pub dashboard: Option<String>,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            archive: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            mails: Table::new(aws, config.required("ALERT_ARCHIVE_LOG_OBJECTS_TABLE")),
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
    #[error("payload version {0} is not {PAYLOAD}")]
    Version(u32),
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
            Error::Version(_) => Name::InvalidInput,
            Error::Render(_) => Name::MailRejected,
            Error::Mail(error) => error.name(),
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
        }
    }
}

pub async fn handle(deps: &Deps, task: ReportTask, call: Call) -> Result<(), Error> {
    if task.v != PAYLOAD {
        return Err(Error::Version(task.v));
    }
    let to = deps.to.list().await?;
    let report: LogReport = deps.archive.get_json(&task.report_key).await?;
    let content = |duplicate: bool| {
        let Rendered { subject, text, html } = letter(&report, duplicate, deps.dashboard.as_deref()).render()?;
        Ok(Content { id: format!("log-errors.{}", task.id), subject, text, html, ..Content::default() })
    };
    let outbox = ReportOutbox { mails: &deps.mails, id: &task.id };
    let outcome = send_once(&outbox, &*deps.mailer, (&deps.from, &to), call.now(), content).await?;
    if outcome.sent.is_empty() {
        tracing::info!(report = task.id, "the mail of this report is out already");
    }
    Metrics::new()
        .dimension("Step", "send-log-report")
        .property("Report", &task.id)
        .duration("Duration", call.took())
        .figure("Mails", Unit::Count, outcome.sent.len() as u64)
        .figure("MailsRejected", Unit::Count, outcome.rejected.len() as u64)
        .write();
    Ok(())
}

struct ReportOutbox<'a> {
    mails: &'a Table<LogMail>,
    id: &'a str,
}

#[async_trait]
impl Outbox for ReportOutbox<'_> {
    type Error = Error;

    async fn change(
        &self,
        recipient: &str,
        decide: &mut (dyn FnMut(Option<Once>) -> Option<Once> + Send),
    ) -> Result<(), Error> {
        let object = LogMail::key_of(self.id, recipient);
        let changed = self.mails.update(&object, None, |row: Option<&LogMail>| {
            let once = decide(row.and_then(|row| row.once));
            Ok::<_, Error>(Some(LogMail { object: object.clone(), once, revision: 0 }))
        });
        changed.await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use mail::MemoryMailer;
    use network::{Calm, Network, OneFault, Strike};
    use parameters::MemoryParameters;
    use runtime::ManualClock;
    use std::time::Duration;
    use storage::{MemoryObjects, MemoryTables};

    struct Cloud {
        objects: MemoryObjects,
        tables: MemoryTables,
        mailer: MemoryMailer,
        parameters: MemoryParameters,
    }

    impl Cloud {
        async fn with_a_report() -> Self {
            let objects = MemoryObjects::new(Calm::shared()).bucket("archive");
            let tables = MemoryTables::new(Calm::shared()).table("objects", "object", None);
            Objects::over(objects.clone(), "archive").put_json("r.json", &LogReport::default()).await.expect("stored");
            let parameters = MemoryParameters::default().with("/mail", "a@example.com,b@example.com");
            Cloud { objects, tables, mailer: MemoryMailer::new(Calm::shared()), parameters }
        }

        async fn send(&self, id: &str, network: Arc<dyn Network>) -> Result<(), Error> {
            let deps = Deps {
                archive: Objects::over(self.objects.through(network.clone()), "archive"),
                mails: Table::over(self.tables.through(network.clone()), "objects"),
                mailer: Arc::new(self.mailer.through(network.clone())),
                from: "archive@example.com".into(),
                to: Recipients::over(Arc::new(self.parameters.through(network)), "/mail"),
                dashboard: None,
            };
            let task = ReportTask { v: PAYLOAD, id: id.into(), report_key: "r.json".into() };
            let call = Call::new(ManualClock::at(Timestamp::UNIX_EPOCH), Duration::from_secs(60));
            handle(&deps, task, call).await
        }
    }

    #[tokio::test]
    async fn a_report_goes_out_once_to_each_and_another_report_by_itself() {
        let cloud = Cloud::with_a_report().await;
        for id in ["scheduled-1", "scheduled-1", "scheduled-2"] {
            cloud.send(id, Calm::shared()).await.expect("sent");
        }
        assert_eq!(cloud.mailer.sent().len(), 4);
    }

    #[tokio::test]
    async fn a_fault_at_any_request_loses_no_mail_and_marks_one_that_may_be_the_second() {
        for strike in [Strike::Request, Strike::Answer, Strike::AnswerThenRetry] {
            for nth in 0.. {
                let cloud = Cloud::with_a_report().await;
                let fault = OneFault::at(nth, strike);
                if cloud.send("one", fault.clone()).await.is_err() {
                    cloud.send("one", Calm::shared()).await.expect("sent");
                }
                let sent = cloud.mailer.sent();
                for to in ["a@example.com", "b@example.com"] {
                    let mails: Vec<_> = sent.iter().filter(|sent| sent.to == to).collect();
                    let subject = |at: usize| mails[at].header("Subject").unwrap_or_default();
                    assert!((1..=2).contains(&mails.len()), "request {nth}, {strike:?}: {} mails", mails.len());
                    assert!(mails.len() == 1 || subject(1).contains("[duplicate]"), "request {nth}, {strike:?}");
                }
                if !fault.struck() {
                    assert!(nth > 5, "only {nth} requests were looked at");
                    break;
                }
            }
        }
    }
}
