use crate::archive::{Archive, NotFound};
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
  alert-archive rerun RUN --wait                               ends the run; the window stays in its report
  alert-archive skip RUN 20240701T000000.000Z--20240702T000000.000Z --undo

Every report of every run names the window, until it is wanted again or later runs have archived all of it.
When one document makes the window fail, exclude only that one: alert-archive quarantine add --help")]
pub struct Skip {
    /// The run's id, the beginning of it, or `latest`
    run: String,
    /// The window's id, as the report names it, or the beginning of it
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
        let before = window(archive, &self.run, &self.window).await?;
        let (run_id, window_id) = (before.run_id.clone(), before.window_id.clone());
        let decide = |record: &WindowRecord| match &self.reason {
            Some(reason) => record.skip(reason, now),
            None => record.resume(now),
        };
        if decide(&before).is_none() {
            let hint = match before.status {
                State::Completed | State::Classified => "it is done",
                State::Prepared => {
                    "its intent is registered: a rerun has to finish it, if need be without a document (alert-archive \
                    quarantine add)"
                }
                State::Skipped => "it is skipped already",
                _ => "it is not skipped",
            };
            bail!("nothing to do for window {window_id}: {hint}");
        }
        // Noted before it is skipped and forgotten after it is wanted: what is set aside is never unknown.
        let noted = Unresolved::skipped(&before, self.reason.as_deref().unwrap_or_default(), now);
        if self.reason.is_some() {
            archive.set_aside(&noted).await?;
        }
        let change = |record: &WindowRecord| Ok(decide(record).unwrap_or_else(|| record.clone()));
        let after = archive.windows.change(&run_id, &window_id, change).await?;
        if after.status != State::Skipped {
            archive.job_runs.change_unresolved(|register| Some(register.without(&noted))).await?;
        }
        let wanted = if self.reason.is_some() { State::Skipped } else { State::Failed };
        ensure!(after.status == wanted, "window {window_id} changed meanwhile: it is {:?}", after.status);
        match (self.json, self.undo) {
            (true, _) => say!("{}", serde_json::to_string_pretty(&after)?),
            (false, false) => say!("end the run with: alert-archive rerun {run_id} --wait"),
            (false, true) => say!("archive it with: alert-archive rerun {run_id} --wait"),
        }
        Ok(true)
    }
}

/// The window that an operator means, by its id or by the beginning of it.
async fn window(archive: &Archive, run: &str, window: &str) -> Result<WindowRecord> {
    let run_id = archive.job_run(Some(run)).await?.run_id;
    if let Some(record) = archive.windows.rows.get(&run_id, Some(window)).await? {
        return Ok(record);
    }
    let mut records = archive.windows.rows.partition(&run_id).await?;
    records.retain(|record| record.window_id.starts_with(window));
    match records.as_slice() {
        [record] => Ok(record.clone()),
        [] => {
            let what = format!("run {run_id} has no window {window}; alert-archive status {run_id} names them");
            Err(NotFound(what).into())
        }
        [first, second, ..] => {
            let (first, second) = (&first.window_id, &second.window_id);
            bail!("{} windows of {run_id} begin with {window}, such as {first} and {second}", records.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::given;
    use memory_cloud::given::{RUN, day};

    #[tokio::test]
    async fn a_window_is_named_by_its_beginning_and_its_run_too() {
        let world = given::given().await;
        let (other, id) = (day(1), day(0).window_id);
        world.cloud.given_window(&other, |planned| planned).await;
        for run in [RUN, "latest", &RUN[..1]] {
            for window in [id.as_str(), &id[..10]] {
                assert_eq!(super::window(&world.archive, run, window).await.expect("found").window_id, id);
            }
        }
        let several = super::window(&world.archive, RUN, &id[..4]).await.expect_err("two begin so");
        assert!(several.to_string().contains(&other.window_id), "{several}");
        for (run, window) in [(RUN, "1999"), ("no such run", id.as_str()), ("", id.as_str())] {
            let none = super::window(&world.archive, run, window).await.expect_err("there is none");
            assert!(none.is::<NotFound>(), "{none}");
        }
    }
}
