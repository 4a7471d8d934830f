use crate::archive::Archive;
use alerts::window_state::{State, WindowRecord};
use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive skip RUN 20240701T000000.000Z--20240702T000000.000Z --reason 'shard 3 is lost, see ticket 4711'
  alert-archive rerun RUN --redrive --wait                     ends the run; the window stays in its report
  alert-archive skip RUN 20240701T000000.000Z--20240702T000000.000Z --undo")]
pub struct Skip {
    /// The run's id
    run: String,
    /// The window's id, as the report names it
    window: String,
    /// Why; stands in the report, the mail and the dashboard until the window is archived by some run
    #[arg(long, required_unless_present = "undo")]
    reason: Option<String>,
    /// Want the window again
    #[arg(long, conflicts_with = "reason")]
    undo: bool,
}

impl Skip {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let now = Timestamp::now();
        let before = archive.windows.get(&self.run, Some(&self.window)).await?;
        let Some(before) = before else { bail!("run {} has no window {}; alert-archive status {} names them", self.run, self.window, self.run) };
        let decide = |record: &WindowRecord| match &self.reason {
            Some(reason) => record.skip(reason, now),
            None => record.resume(now),
        };
        if decide(&before).is_none() {
            let hint = match before.status {
                State::Completed | State::Classified => "it is done",
                State::Prepared => "its intent is registered: a rerun only has to finish it",
                State::Skipped => "it is skipped already",
                _ => "it is not skipped",
            };
            bail!("nothing to do for window {}: {hint}", self.window);
        }
        archive.windows.change(&self.run, &self.window, |record| Ok(decide(record).unwrap_or_else(|| record.clone()))).await?;
        say!("end the run with: alert-archive rerun {} --redrive --wait", self.run);
        Ok(true)
    }
}
