use crate::archive::Archive;
use alerts::{
    run::unresolved::Unresolved,
    window::record::{State, WindowRecord},
};
use anyhow::{Result, bail, ensure};
use clap::{Args, builder::NonEmptyStringValueParser};
use jiff::Timestamp;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive skip RUN 20240701T000000.000Z--20240702T000000.000Z --reason 'shard 3 is lost, see ticket 4711'
  alert-archive rerun RUN --redrive --wait                     ends the run; the window stays in its report
  alert-archive skip RUN 20240701T000000.000Z--20240702T000000.000Z --undo

Every report of every run names the window, until it is wanted again or later runs have archived all of it.
When one document makes the window fail, exclude only that one: alert-archive quarantine add --help")]
pub struct Skip {
    /// The run's id
    run: String,
    /// The window's id, as the report names it
    window: String,
    /// Why; stands in the report, the mail and the dashboard until the window is archived by some run
    #[arg(long, required_unless_present = "undo", value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Want the window again
    #[arg(long, conflicts_with = "reason")]
    undo: bool,
    /// Print JSON: the window's row
    #[arg(long)]
    json: bool,
}

impl Skip {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let now = Timestamp::now();
        let before = archive.windows.rows.get(&self.run, Some(&self.window)).await?;
        let Some(before) = before else {
            bail!("run {} has no window {}; alert-archive status {} names them", self.run, self.window, self.run)
        };
        let decide = |record: &WindowRecord| match &self.reason {
            Some(reason) => record.skip(reason, now),
            None => record.resume(now),
        };
        if decide(&before).is_none() {
            let hint = match before.status {
                State::Completed | State::Classified => "it is done",
                State::Prepared => {
                    "its intent is registered: a rerun has to finish it, if need be without a document (alert-archive quarantine add)"
                }
                State::Skipped => "it is skipped already",
                _ => "it is not skipped",
            };
            bail!("nothing to do for window {}: {hint}", self.window);
        }
        // Noted before it is skipped and forgotten after it is wanted: what is set aside is never unknown.
        let noted = Unresolved::skipped(&before, self.reason.as_deref().unwrap_or_default(), now);
        if self.reason.is_some() {
            archive.set_aside(&noted).await?;
        }
        let change = |record: &WindowRecord| Ok(decide(record).unwrap_or_else(|| record.clone()));
        let after = archive.windows.change(&self.run, &self.window, change).await?;
        if after.status != State::Skipped {
            archive.job_runs.change_unresolved(|register| Some(register.without(&noted))).await?;
        }
        let wanted = if self.reason.is_some() { State::Skipped } else { State::Failed };
        ensure!(after.status == wanted, "window {} changed meanwhile: it is {:?}", self.window, after.status);
        match (self.json, self.undo) {
            (true, _) => say!("{}", serde_json::to_string_pretty(&after)?),
            (false, false) => say!("end the run with: alert-archive rerun {} --redrive --wait", self.run),
            (false, true) => say!("archive it with: alert-archive rerun {} --wait", self.run),
        }
        Ok(true)
    }
}
