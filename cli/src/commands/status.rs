use super::watch::standing;
use crate::{
    archive::{self, Archive, went_well},
    print,
};
use alerts::run::job_run::{JobRun, RunStatus, last_sign};
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
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
    /// Everything about each run on one long line; of one run, nothing is folded to 80 columns
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
    /// Of one run that is at work, the windows are counted.
    pub fn needs(&self) -> &'static [&'static str] {
        let all = &[archive::BUCKET, archive::JOB_RUNS, archive::WINDOWS];
        if self.run.is_some() { all } else { &all[..2] }
    }

    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let covered = archive.covered().await?;
        if let Some(run_id) = &self.run {
            let run = archive.job_run(Some(run_id)).await?;
            let report = archive.report(&run).await?.told_after(&covered);
            print::report(&report, self.wide, self.json)?;
            if report.status == RunStatus::Running && !self.json {
                say!("\nnow: {}", standing(archive, &run).await?);
            }
            return Ok(went_well(&report));
        }
        let Scanned { rows: mut runs, malformed } = archive.job_runs.runs.scan().await?;
        runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
        let mut reports = Vec::with_capacity(runs.len());
        for run in &runs {
            if self.limit.is_some_and(|limit| reports.len() >= limit) {
                break;
            }
            let report = archive.report(run).await?.told_after(&covered);
            if !self.failed || !went_well(&report) {
                reports.push(report);
            }
        }
        if reports.is_empty() && !runs.is_empty() && !self.json {
            say!("{}", none_of(runs.len()));
        } else {
            print::reports(&reports, self.wide, self.json)?;
        }
        if let Some(told) = overdue(&runs, archive.silent_days().await?, Timestamp::now()).filter(|_| !self.json) {
            say!("X  {told}");
        }
        if !self.json {
            print::unresolved(&archive.job_runs.unresolved().await?.items, self.wide)?;
        }
        for error in &malformed {
            eprintln!("{error}");
        }
        Ok(malformed.is_empty())
    }
}

/// As the page tells it.
pub fn overdue(runs: &[JobRun], silent_days: u64, now: Timestamp) -> Option<String> {
    let (_, since) = last_sign(runs)?;
    let days = reports::days(since, now);
    (days > silent_days)
        .then(|| format!("no run has completed for {}; one is due every {silent_days}", reports::count(days, "day")))
}

/// Where there are runs, and none that is asked for.
fn none_of(runs: usize) -> String {
    format!("none of {} is among them", reports::count(runs as u64, "run"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::given::given;
    use jiff::SignedDuration;
    use serde_json::json;

    #[tokio::test]
    async fn runs_are_overdue_by_the_schedule_of_the_deployment_and_not_by_a_weekly_one() {
        let world = given().await;
        let runs = world.archive.job_runs.runs.scan().await.expect("read").rows;
        let after = |days: i64| runs[0].updated_at + SignedDuration::from_hours(24 * days);
        assert_eq!(world.archive.silent_days().await.expect("no page yet"), 8);
        world.archive.objects.put_json("dashboard/data/runs.json", &json!({"silent_days": 32})).await.expect("written");
        let silent_days = world.archive.silent_days().await.expect("the page's");
        assert_eq!(overdue(&runs, silent_days, after(32)), None);
        let told = overdue(&runs, silent_days, after(33));
        assert_eq!(told.as_deref(), Some("no run has completed for 33 days; one is due every 32"));
        assert_eq!(overdue(&[], silent_days, after(33)), None, "nothing was ever planned");
        let never = [JobRun { status: RunStatus::Failed, ..runs[0].clone() }];
        assert!(overdue(&never, silent_days, after(40)).is_some(), "since the first was planned");
    }
}
