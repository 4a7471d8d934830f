//! What archiving costs, from one file of prices: an estimate for what the source holds, and what runs have used.

use super::range_of;
use crate::archive::Archive;
use alerts::window::plan::{Bucket, Interval, Window, join};
use anyhow::{Context, Result};
use clap::Args;
use jiff::Timestamp;
use reports::cost::{Cost, Prices, Work, cost, usd};
use reports::{bytes, count, grouped};
use runtime::Config;
use serde_json::json;
use sources::OpenSearch;
use std::path::PathBuf;

/// What a message is taken to have where no run has seen any, in bytes.
const USUAL_MESSAGE: u64 = 25_000;
/// Runs whose size and pace an estimate goes by.
const LOOKED_AT: usize = 20;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive cost --from 2019-01-01 --to 2026-01-01
  alert-archive cost --from 2024-07 --to 2024-08 --prices eu-central-1.json --json

Counts what the source holds in the range (where OPENSEARCH_URL is set) and estimates what a run over it costs; beside
it stands what the runs that lie in the range have used, as far as it follows from what their reports count: retries are
not in it, and the time of the functions is an estimate in both. The prices that are built in name their day and region;
a file of your own has the same fields. What the source costs is an assumption: docs/cost.md.")]
pub struct CostOf {
    /// First instant of a range of message timestamps, in UTC
    #[arg(long, value_name = "D")]
    from: Option<String>,
    /// End of the range, not included
    #[arg(long, value_name = "D")]
    to: Option<String>,
    /// JSON file with the prices of your region
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl CostOf {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let (from, to) = range_of(self.from.as_deref(), self.to.as_deref())?;
        let prices = match &self.prices {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
                Prices::read(&text).with_context(|| format!("{} is not a list of prices", path.display()))?
            }
            None => Prices::built_in().clone(),
        };
        let (estimate, used) = work(archive, archive.source()?.as_ref(), from, to).await?;
        let estimate = estimate.map(|work| Priced { work, cost: cost(&work, &prices) });
        let used = Priced { work: used, cost: cost(&used, &prices) };
        if self.json {
            let shown = |priced: &Priced| json!({"work": priced.work, "cost": priced.cost});
            let (estimate, used) = (estimate.as_ref().map(shown), shown(&used));
            let all = json!({"prices": prices, "estimate": estimate, "used": used});
            say!("{}", serde_json::to_string_pretty(&all)?);
            return Ok(true);
        }
        match &estimate {
            Some(estimate) => estimate.print("A run over all that the source holds there, about", &prices)?,
            None => say!("the source was not asked: OPENSEARCH_URL is not set\n"),
        }
        match used.work.runs {
            0 => say!("No run lies in this range yet."),
            runs => used.print(&format!("What {} in this range used", count(runs, "run")), &prices)?,
        }
        say!("Prices of {}, {}, without taxes, free tiers and data transfer.", prices.region, prices.as_of);
        Ok(true)
    }
}

/// What a run over the range would have to do, as far as there is a source, and what runs within it have done.
async fn work(
    archive: &Archive,
    source: Option<&OpenSearch>,
    from: Timestamp,
    to: Timestamp,
) -> Result<(Option<Work>, Work)> {
    let past = Past::of(archive).await?;
    let estimate = match source {
        Some(source) => {
            let days = source.histogram(from, to, Interval::Day).await?;
            Some(Work::planned(&windows_of(&days, window_messages()?), past.bytes_a_message()))
        }
        None => None,
    };
    let within = past.runs.iter().filter(|run| from <= run.from && run.to <= to);
    Ok((estimate, within.map(|run| run.work).sum()))
}

struct Priced {
    work: Work,
    cost: Cost,
}

impl Priced {
    fn print(&self, title: &str, prices: &Prices) -> Result<()> {
        let Work { windows, messages, source_bytes, archive_bytes, .. } = self.work;
        say!("{title}:");
        say!("  {}, {}, {} read", count(windows, "window"), count(messages, "message"), bytes(source_bytes));
        for item in &self.cost.items {
            say!("  {:>14}  {:<15} {}", usd(item.usd), item.service, item.what);
        }
        say!("  {:>14}  in all, once", usd(self.cost.usd));
        say!("  {:>14}  a month, for {} in S3", usd(self.cost.usd_a_month), bytes(archive_bytes));
        let (kept, price) = (usd(self.cost.source_usd_a_month), prices.source_gb_month);
        say!(
            "  {kept:>14}  a month, for {} in the source while they are kept there, at ${price} a GB\n",
            bytes(source_bytes)
        );
        Ok(())
    }
}

/// Messages that a window should hold, as the deployment says.
pub fn window_messages() -> Result<u64> {
    let mut config = Config::default();
    let target = config.parsed("ALERT_ARCHIVE_WINDOW_MESSAGES", 4000).max(1);
    config.check()?;
    Ok(target)
}

/// The windows that a run would have, as far as days tell.
fn windows_of(days: &[Bucket], target: u64) -> Vec<Window> {
    let whole = join(days, target).into_iter();
    // A day that holds more than a window is split.
    let split = |window: Window| {
        let parts = window.expected.div_ceil(target).max(1);
        let (expected, rest) = (window.expected / parts, window.expected % parts);
        (0..parts).map(move |n| Window::new(window.from, window.to, expected + u64::from(n < rest)))
    };
    whole.flat_map(split).collect()
}

/// A run of which there is a report.
struct PastRun {
    from: Timestamp,
    to: Timestamp,
    work: Work,
    /// From its beginning to its report; none where it was run again in between.
    seconds: Option<f64>,
}

/// The last runs that read something, newest first: how large messages are, and how fast they are archived.
pub struct Past {
    runs: Vec<PastRun>,
}

impl Past {
    pub async fn of(archive: &Archive) -> Result<Self> {
        let mut rows = archive.job_runs.runs.scan().await?.rows;
        rows.sort_by_key(|run| std::cmp::Reverse(run.created_at));
        let mut runs = Vec::new();
        for row in &rows {
            let report = archive.report(row).await?;
            if report.messages.source == 0 {
                continue;
            }
            let at = |text: &Option<String>| identity::instant::parse(text.as_deref()?);
            let took = at(&report.started_at).zip(at(&report.reported_at));
            let seconds = took.filter(|_| report.attempt == 1).map(|(from, to)| to.duration_since(from).as_secs_f64());
            runs.push(PastRun { from: report.from, to: report.to, work: Work::done(&report), seconds });
        }
        Ok(Past { runs })
    }

    fn last(&self) -> impl Iterator<Item = &PastRun> {
        self.runs.iter().take(LOOKED_AT)
    }

    pub fn bytes_a_message(&self) -> u64 {
        let (bytes, messages) = self
            .last()
            .map(|run| (run.work.source_bytes, run.work.messages))
            .fold((0, 0), |left, right| (left.0 + right.0, left.1 + right.1));
        if bytes == 0 { USUAL_MESSAGE } else { bytes / messages }
    }

    /// Messages a second, of the runs that were large enough to tell.
    pub fn pace(&self) -> Option<f64> {
        let told = self.last().filter_map(|run| Some((run.work.messages, run.seconds?)));
        let (messages, seconds) = told
            .filter(|(messages, seconds)| *messages >= 100 && *seconds > 0.0)
            .fold((0, 0.0), |left, right| (left.0 + right.0, left.1 + right.1));
        (messages > 0).then(|| messages as f64 / seconds)
    }

    /// What estimates are made of, for people.
    pub fn told(&self) -> String {
        match self.last().count() as u64 {
            0 => format!("{} a message, as no run has read any yet", bytes(USUAL_MESSAGE)),
            runs => format!("{} a message, as in the last {}", bytes(self.bytes_a_message()), count(runs, "run")),
        }
    }
}

/// `about 4 min 10 s, at 410 messages a second`.
pub fn time_told(messages: u64, pace: Option<f64>) -> String {
    match pace {
        Some(pace) => {
            let seconds = (messages as f64 / pace).ceil() as u64;
            format!("about {}, at {} messages a second", reports::duration(seconds), grouped(pace as u64))
        }
        None => "not known: no run has read 100 messages yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::given::given;
    use alerts::{
        counts::{Bytes, Messages},
        run::report::RunReport,
    };
    use jiff::SignedDuration;
    use memory_cloud::given::{RUN, from, to};
    use network::Calm;

    #[tokio::test]
    async fn what_the_source_holds_is_estimated_and_what_runs_in_the_range_did_is_summed() {
        let world = given().await;
        let run = world.archive.job_runs.get(RUN).await.expect("read").expect("a run");
        let messages = Messages { source: 4, archived: 3, open: 1, ..Messages::default() };
        let report = RunReport { messages, bytes: Bytes { source: 4000, archive: 900 }, ..RunReport::unreported(&run) };
        world.archive.objects.put_json(&format!("runs/{RUN}/report.json"), &report).await.expect("written");
        let source = world.source(Calm::shared());
        let (estimate, used) = work(&world.archive, Some(&source), from(), to()).await.expect("counted");
        let estimate = estimate.expect("there is a source");
        assert_eq!(
            (estimate.windows, estimate.messages, estimate.source_bytes),
            (1, 4, 4000),
            "by the last run's size"
        );
        assert_eq!((used.runs, used.messages, used.changed, used.archive_bytes), (1, 4, 4, 900));
        let (nothing, outside) =
            work(&world.archive, None, from(), to() - SignedDuration::from_hours(1)).await.expect("counted");
        assert_eq!((nothing, outside.runs), (None, 0), "the run reaches beyond this range");
        assert!(cost(&used, Prices::built_in()).usd > 0.0);
    }

    #[tokio::test]
    async fn prices_of_ones_own_are_read_and_a_file_that_is_none_is_refused() {
        let world = given().await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("prices.json");
        let call = async || {
            let (from, to) = (Some("2024-07".into()), Some("2024-08".into()));
            CostOf { from, to, prices: Some(file.clone()), json: true }.call(&world.archive).await
        };
        let missing = call().await.expect_err("no file");
        assert!(missing.to_string().contains("prices.json cannot be read"), "{missing:#}");
        std::fs::write(&file, "{}").expect("written");
        let none = call().await.expect_err("no prices");
        assert!(none.to_string().contains("is not a list of prices"), "{none:#}");
        std::fs::write(&file, serde_json::to_vec(Prices::built_in()).expect("JSON")).expect("written");
        assert!(call().await.expect("told"));
    }

    #[test]
    fn a_busy_day_is_several_windows_and_quiet_days_share_one() {
        let at = |day: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * day);
        let day = |n, count| Bucket { from: at(n), to: at(n + 1), count };
        let windows = windows_of(&[day(0, 5), day(1, 7), day(2, 4500)], 2000);
        assert_eq!(windows.iter().map(|window| window.expected).collect::<Vec<_>>(), [12, 1500, 1500, 1500]);
    }

    #[test]
    fn size_and_pace_are_those_of_the_last_runs() {
        let run = |messages, source_bytes, seconds| PastRun {
            from: Timestamp::UNIX_EPOCH,
            to: Timestamp::UNIX_EPOCH,
            work: Work { messages, source_bytes, ..Work::default() },
            seconds,
        };
        let none = Past { runs: Vec::new() };
        assert_eq!((none.bytes_a_message(), none.pace()), (USUAL_MESSAGE, None));
        // One is too small to tell how fast runs are, and one was run again.
        let past = Past { runs: vec![run(1, 10_000, Some(9.0)), run(1000, 20_000_000, Some(10.0)), run(500, 0, None)] };
        assert_eq!((past.bytes_a_message(), past.pace()), (20_010_000 / 1501, Some(100.0)));
        assert_eq!(time_told(30_000, past.pace()), "about 5 min 0 s, at 100 messages a second");
    }
}
