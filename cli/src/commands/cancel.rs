use crate::archive::Archive;
use alerts::run::job_run::JobRun;
use anyhow::{Result, bail};
use clap::{Args, builder::NonEmptyStringValueParser};
use jiff::Timestamp;
use serde_json::json;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive cancel                         the run that is at work
  alert-archive cancel range-20240701-20241001-20261121T050000123 --reason 'the range is mistyped'

Windows that are at work end by themselves within minutes, and nothing of them is lost: the next run over the range, or
alert-archive rerun RUN, carries out what they have begun. What is committed stays. The mail tells the reason.")]
pub struct Cancel {
    /// The run's id, the beginning of it, or `latest`; without it the run that is at work
    run: Option<String>,
    /// Why; stands in mail and page, and in the execution's history
    #[arg(long, default_value = "no reason was given", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Cancel {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let run = match &self.run {
            Some(run) => archive.job_run(Some(run)).await?,
            None => archive.run_at_work().await?,
        };
        if !archive.workflow.is_running(&run.execution_arn).await? {
            bail!("run {} is not at work: alert-archive status {} tells how it ended", run.run_id, run.run_id);
        }
        let because = format!("cancelled by an operator: {}", self.reason);
        archive.workflow.stop(&run.execution_arn, &because).await?;
        // At once: the mail is made when the service tells that the execution has ended, of what the row says then.
        let mark = |row: &mut JobRun| row.cancelled(&run.execution_arn, &because, Timestamp::now());
        archive.job_runs.change(&run.run_id, mark).await?;
        if self.json {
            say!("{}", json!({"run_id": run.run_id, "cancelled": true}));
            return Ok(true);
        }
        say!("cancelled {}", run.run_id);
        say!("go on with it: alert-archive rerun {} --wait", run.run_id);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{archive::NotFound, commands::given::archive_over};
    use alerts::run::{job_run::RunStatus, report::RunReport};
    use jiff::SignedDuration;
    use memory_cloud::{
        Cloud, MACHINE,
        given::{RUN, arn},
    };

    async fn cancel(archive: &Archive, run: Option<&str>) -> Result<bool> {
        Cancel { run: run.map(str::to_owned), reason: "a typing error".into(), json: true }.call(archive).await
    }

    #[tokio::test]
    async fn the_run_that_is_named_is_stopped_and_one_that_is_over_is_not() {
        let cloud = Cloud::default();
        cloud.given_run("range").await;
        let archive = archive_over(&cloud);
        assert!(cancel(&archive, Some("latest")).await.expect("cancelled"));
        let ended = archive.workflow.describe(&arn(RUN)).await.expect("described");
        assert_eq!((ended.running, ended.status.as_str()), (false, "ABORTED"));
        assert_eq!(ended.cause.as_deref(), Some("cancelled by an operator: a typing error"));
        let refused = cancel(&archive, Some(RUN)).await.expect_err("it is over");
        assert!(refused.to_string().contains("is not at work"), "{refused:#}");
        assert!(cancel(&archive, Some("nobody")).await.expect_err("no such run").is::<NotFound>());
    }

    #[tokio::test]
    async fn the_reason_stands_in_what_mail_page_and_status_tell_of_the_run() {
        let cloud = Cloud::default();
        cloud.given_run("range").await;
        let archive = archive_over(&cloud);
        cancel(&archive, None).await.expect("cancelled");
        let row = archive.job_runs.get(RUN).await.expect("read").expect("a run");
        let told = RunReport::unreported(&row);
        let [failure] = told.failures.as_slice() else { panic!("{told:?}") };
        assert_eq!((told.status, failure.error.as_str()), (RunStatus::Failed, "RunCancelled"));
        assert_eq!(failure.message, "cancelled by an operator: a typing error");
        assert_ne!(errors::advice(&failure.error), errors::advice("ExecutionDied"));
    }

    #[tokio::test]
    async fn only_the_execution_that_was_stopped_is_marked_and_what_is_known_of_its_end_stays() {
        let cloud = Cloud::default();
        cloud.given_run("range").await;
        let run = archive_over(&cloud).job_runs.get(RUN).await.expect("read").expect("a run");
        let after = |before: JobRun, arn: &str| {
            let mut row = before;
            row.cancelled(arn, "why", row.updated_at);
            row.error
        };
        let failed = |error: &str| JobRun { status: RunStatus::Failed, error: Some(error.into()), ..run.clone() };
        assert_eq!(after(run.clone(), &arn(RUN)).as_deref(), Some("RunCancelled"));
        assert_eq!(after(failed("ExecutionDied"), &arn(RUN)).as_deref(), Some("RunCancelled"), "told a moment before");
        assert_eq!(after(failed("RangeBusy"), &arn(RUN)).as_deref(), Some("RangeBusy"));
        assert_eq!(after(JobRun { status: RunStatus::Completed, ..run.clone() }, &arn(RUN)), None);
        assert_eq!(after(run.clone(), "another execution"), None, "it has taken the run over");
    }

    #[tokio::test]
    async fn without_a_name_it_is_the_latest_of_those_that_are_at_work() {
        let cloud = Cloud::default();
        let archive = archive_over(&cloud);
        assert!(cancel(&archive, None).await.expect_err("there is none").is::<NotFound>());
        cloud.given_run("range").await;
        let first = archive.job_runs.get(RUN).await.expect("read").expect("a run");
        // The latest of all is over, and one that began before is at work, too.
        for (run_id, hours, status) in [("over", 2, RunStatus::Completed), ("earlier", -2, RunStatus::Running)] {
            let created_at = first.created_at + SignedDuration::from_hours(hours);
            let execution_arn = archive.workflow.start(MACHINE, run_id, "{}".into()).await.expect("started");
            let run = JobRun { run_id: run_id.into(), status, created_at, execution_arn, ..first.clone() };
            assert!(archive.job_runs.runs.put(&run).await.expect("written"));
        }
        for stopped in [RUN, "earlier"] {
            assert!(cancel(&archive, None).await.expect("cancelled"));
            assert!(!archive.workflow.is_running(&arn(stopped)).await.expect("asked"), "{stopped}");
        }
        assert!(archive.workflow.is_running(&arn("over")).await.expect("asked"), "its row says that it is done");
        assert!(cancel(&archive, None).await.expect_err("none is left").is::<NotFound>());
    }
}
