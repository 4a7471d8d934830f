use super::instant_of;
use crate::archive::Archive;
use alerts::run::unresolved::Unresolved;
use anyhow::{Result, ensure};
use clap::{Args, builder::NonEmptyStringValueParser};
use identity::instant;
use jiff::Timestamp;
use serde_json::json;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive watermark
  alert-archive watermark --set 2024-07-01 --reason 'a schedule of the year 2062 moved it, see ticket 4711'

The next scheduled run begins at the watermark. What lies between the old and the new one stands in every report, with
the reason, until runs have covered it.")]
pub struct Watermark {
    /// The instant at which the next scheduled run is to begin, in UTC; not later than now
    #[arg(long, value_name = "T", requires = "reason")]
    set: Option<String>,
    /// Why; stands in the report, the mail and the dashboard
    #[arg(long, requires = "set", value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Watermark {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        if let (Some(_), Some(reason)) = (&self.set, &self.reason) {
            set(archive, instant_of("--set", self.set.as_deref())?, reason).await?;
        }
        let at = archive.job_runs.watermark().await?.map(instant::iso);
        if self.json {
            say!("{}", serde_json::to_string_pretty(&json!({ "watermark": at }))?);
            return Ok(true);
        }
        match at {
            Some(at) => say!("the next scheduled run begins at {at}"),
            None => say!("no scheduled run has ended yet: the next one begins with the first message of the source"),
        }
        Ok(true)
    }
}

async fn set(archive: &Archive, at: Timestamp, reason: &str) -> Result<()> {
    let now = Timestamp::now();
    ensure!(
        at <= now,
        "--set {} lies in the future: scheduled runs would pass over what comes until then",
        instant::iso(at)
    );
    let before = archive.job_runs.watermark().await?;
    // Noted before it is done: a gap is never unknown.
    if let Some(noted) = before.and_then(|before| Unresolved::watermark_set(before, at, reason, now)) {
        archive.set_aside(&noted).await?;
    }
    ensure!(
        archive.job_runs.set_watermark(before, at).await?,
        "a run has moved the watermark meanwhile; look at it, and set it again"
    );
    Ok(())
}
