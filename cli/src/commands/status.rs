use crate::{
    archive::{Archive, went_well},
    print,
};
use anyhow::Result;
use clap::Args;
use storage::Scanned;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive status
  alert-archive status latest
  alert-archive status range-20240701-20241001-20261121T050000123
  alert-archive status --failed --limit 5
  alert-archive status --json | jq '.[0].messages'")]
pub struct Status {
    /// The run's id, the beginning of it, or `latest`; without it all runs are listed
    run: Option<String>,
    /// Everything about each run, on one long line
    #[arg(long)]
    wide: bool,
    /// Only runs that did not go well
    #[arg(long, conflicts_with = "run")]
    failed: bool,
    /// At most so many runs
    #[arg(long, value_name = "N", conflicts_with = "run")]
    limit: Option<usize>,
    /// Print JSON: one report, or an array of them
    #[arg(long)]
    json: bool,
}

impl Status {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        if let Some(run_id) = &self.run {
            let report = archive.report(&archive.job_run(Some(run_id)).await?).await?;
            print::report(&report, self.json)?;
            return Ok(went_well(&report));
        }
        let Scanned { rows: mut runs, malformed } = archive.job_runs.runs.scan().await?;
        runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
        let mut reports = Vec::with_capacity(runs.len());
        for run in &runs {
            if self.limit.is_some_and(|limit| reports.len() >= limit) {
                break;
            }
            let report = archive.report(run).await?;
            if !self.failed || !went_well(&report) {
                reports.push(report);
            }
        }
        if reports.is_empty() && !runs.is_empty() && !self.json {
            say!("{}", none_of(runs.len()));
        } else {
            print::reports(&reports, self.wide, self.json)?;
        }
        if !self.json {
            print::unresolved(&archive.job_runs.unresolved().await?.items)?;
        }
        for error in &malformed {
            eprintln!("{error}");
        }
        Ok(malformed.is_empty())
    }
}

/// Where there are runs, and none that is asked for.
fn none_of(runs: usize) -> String {
    format!("none of {} is among them", reports::count(runs as u64, "run"))
}
