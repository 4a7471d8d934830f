use crate::archive::Archive;
use anyhow::{Result, bail};
use clap::{Args, builder::NonEmptyStringValueParser};
use serde_json::json;

#[derive(Args)]
#[command(after_help = "\
Example:
  alert-archive cancel latest --reason 'the source is needed for something else'

Windows that are at work end by themselves within minutes, and nothing of them is lost: the next run over the range, or
alert-archive rerun RUN, carries out what they have begun. What is committed stays.")]
pub struct Cancel {
    /// The run's id, the beginning of it, or `latest`
    run: String,
    /// Why; stands in the execution's history
    #[arg(long, default_value = "cancelled by an operator", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Cancel {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let run = archive.job_run(Some(&self.run)).await?;
        if !archive.workflow.is_running(&run.execution_arn).await? {
            bail!("run {} is not at work: alert-archive status {} tells how it ended", run.run_id, run.run_id);
        }
        archive.workflow.stop(&run.execution_arn, &self.reason).await?;
        if self.json {
            say!("{}", json!({"run_id": run.run_id, "cancelled": true}));
            return Ok(true);
        }
        say!("cancelled {}", run.run_id);
        say!("go on with it: alert-archive rerun {} --wait", run.run_id);
        Ok(true)
    }
}
