use super::watch::follow;
use crate::{archive::Archive, print};
use alerts::run::payloads::Input;
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive rerun range-20240701-20241001-20261121T050000123 --redrive --wait
  alert-archive rerun range-20240701-20241001-20261121T050000123 --wait    after 14 days, or when the execution is gone")]
pub struct Rerun {
    /// The run's id
    run: String,
    /// Redrive the execution, as the console's button does (possible for 14 days)
    #[arg(long)]
    redrive: bool,
    /// Follow the run to its end and print its report
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Rerun {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let run = archive.job_run(&self.run).await?;
        let execution = if self.redrive {
            archive.workflow.redrive(&run.execution_arn).await?;
            run.execution_arn
        } else {
            let input = serde_json::to_string(&Input::FailedOnly { run_id: self.run.clone() })?;
            let name = format!("failed-only-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S%3f"));
            archive.workflow.start(&archive.state_machine_arn, &name, input).await?
        };
        if !self.wait {
            print::started(&self.run, self.json)?;
            return Ok(true);
        }
        follow(archive, &self.run, &execution, self.json).await
    }
}
