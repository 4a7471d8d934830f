//! Says how long ago a run of the archive completed, several times a day: as a metric, because CloudWatch looks back
//! seven days at most and schedules are weekly; and by mail when runs stay away, once a week while they do.

use alerts::run::job_run::{JobRun, RunStatus, last_sign};
use archive::JobRuns;
use async_trait::async_trait;
use aws_config::SdkConfig;
use errors::{Name, Named, describe};
use identity::instant;
use jiff::Timestamp;
use ledger::Once;
use mail::{Content, MailError, Mailer, Outbox, Recipients, Ses, send_once};
use reports::{
    letter::Rendered,
    mail::{Overdue, overdue},
};
use runtime::{Call, Config, ConfigMissing, Metrics, Unit};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use storage::{LedgerError, Scanned};

pub struct Deps {
    pub job_runs: JobRuns,
    pub mailer: Arc<dyn Mailer>,
    pub from: String,
    pub to: Recipients,
    pub dashboard: Option<String>,
    /// Days without a completed run after which something is wrong.
    pub silent_days: u64,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            mailer: Arc::new(Ses::new(aws)),
            from: config.required("ALERT_ARCHIVE_MAIL_FROM"),
            to: Recipients::new(aws, config.required("ALERT_ARCHIVE_MAIL_RECIPIENTS_PARAMETER")),
            dashboard: config.optional("ALERT_ARCHIVE_DASHBOARD_URL"),
            silent_days: config.parsed("ALERT_ARCHIVE_SILENT_DAYS", 8),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the mail's text cannot be made")]
    Render(#[from] reports::letter::Error),
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Render(_) => Name::MailRejected,
            Error::Mail(error) => error.name(),
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
    let last = last_sign(&runs);
    let days = last.map(|(_, at)| days_between(at, call.now()));
    if let Some(days) = days {
        Metrics::new().figure("DaysSinceCompletedRun", Unit::None, days).write();
    }
    if let Some((run, since)) = last.filter(|_| days.is_some_and(|days| days > deps.silent_days)) {
        tell(deps, run, since, call.now()).await?;
    }
    Ok(Silence { days })
}

/// Whole days. A clock that is ahead makes no negative ones.
fn days_between(since: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(since).as_hours() / 24).unwrap_or(0)
}

/// Mails that runs stay away, once a week: who has the mail is noted in the row of the run that was the last sign.
async fn tell(deps: &Deps, run: &JobRun, since: Timestamp, now: Timestamp) -> Result<(), Error> {
    let days = days_between(since, now);
    // A run that is completed once more later begins a silence of its own.
    let note = format!("overdue-{}-{}", instant::date(since), days / 7);
    let completed = (run.status == RunStatus::Completed).then_some(run.run_id.as_str());
    let content = |duplicate: bool| {
        let silence = Overdue { days, expected: deps.silent_days, completed, dashboard: deps.dashboard.as_deref() };
        let Rendered { subject, text, html } = overdue(&silence, duplicate)?;
        let (id, thread) = (format!("{}.{note}", run.run_id), Some(format!("{}.overdue", run.run_id)));
        Ok(Content { id, thread, subject, text, html, ..Content::default() })
    };
    let to = deps.to.list().await?;
    let outbox = RunOutbox { job_runs: &deps.job_runs, run_id: &run.run_id, note: &note };
    let outcome = send_once(&outbox, &*deps.mailer, (&deps.from, &to), now, content).await?;
    tracing::warn!(days, mails = outcome.sent.len(), "runs stay away");
    Ok(())
}

/// Notes in a run's row who has the mail.
struct RunOutbox<'a> {
    job_runs: &'a JobRuns,
    run_id: &'a str,
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
        self.job_runs.note_mail(self.run_id, &note, |_| true, decide).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn days_of_silence(runs: &[JobRun], now: Timestamp) -> Option<u64> {
        last_sign(runs).map(|(_, at)| days_between(at, now))
    }

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
