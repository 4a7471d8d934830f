use crate::{
    archive::{Archive, went_well},
    print,
};
use anyhow::Result;
use clap::Args;
use storage::Scanned;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  alert-archive status\n  alert-archive status --json | jq '.[0].messages'\n  alert-archive status range-20240701-20241001-20261121T050000123"
)]
pub struct Status {
    /// The run's id; without it all runs are listed
    run: Option<String>,
    /// Print JSON: one report, or an array of them
    #[arg(long)]
    json: bool,
}

impl Status {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        if let Some(run_id) = &self.run {
            let report = archive.report(&archive.job_run(run_id).await?).await?;
            print::report(&report, self.json)?;
            return Ok(went_well(&report));
        }
        let Scanned { rows: mut runs, malformed } = archive.job_runs.runs.scan().await?;
        runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
        let mut reports = Vec::with_capacity(runs.len());
        for run in &runs {
            reports.push(archive.report(run).await?);
        }
        print::reports(&reports, self.json)?;
        if !self.json {
            print::unresolved(&archive.job_runs.unresolved().await?.items)?;
        }
        for error in &malformed {
            eprintln!("{error}");
        }
        Ok(malformed.is_empty())
    }
}
