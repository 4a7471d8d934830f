//! What a run would plan now, how long it would take and what it would cost. Starts nothing and writes nothing.

use super::cost::{Past, time_told, window_messages};
use crate::archive::Archive;
use alerts::{
    run::job_run::RunStatus,
    window::plan::{Window, border, counted, join},
};
use anyhow::{Context, Result};
use identity::instant;
use jiff::Timestamp;
use reports::cost::{Cost, Prices, Work, cost, usd};
use reports::{bytes, count, grouped};
use serde_json::{Value, json};
use sources::OpenSearch;

/// Windows that are listed for people.
const SHOWN: usize = 20;

/// What a run over `[from, to)` would plan now.
pub async fn show(archive: &Archive, from: Timestamp, to: Timestamp, as_json: bool) -> Result<bool> {
    let source = archive.source()?.context(
        "OPENSEARCH_URL is not set: a dry run counts what the source holds; in a checkout, run: \
         eval \"$(make -s env)\"",
    )?;
    DryRun::of(archive, &source, from, to, window_messages()?).await?.print(as_json)?;
    Ok(true)
}

struct DryRun {
    from: Timestamp,
    to: Timestamp,
    /// Messages that a window holds at most, as a rule.
    target: u64,
    windows: Vec<Window>,
    undated: u64,
    past: Past,
    work: Work,
    bill: Cost,
    in_the_way: Vec<String>,
    from_api: bool,
}

impl DryRun {
    /// The windows are planned as plan-windows plans what comes from OpenSearch.
    async fn of(archive: &Archive, source: &OpenSearch, from: Timestamp, to: Timestamp, target: u64) -> Result<Self> {
        for index in [&source.indices.messages, &source.indices.history, &source.indices.audit] {
            source.check_mapping(index).await?;
        }
        let count_in = async |from, to, interval| source.histogram(from, to, interval).await;
        let windows = join(&counted(count_in, from, to, target).await?, target);
        let undated = source.undated().await?;
        let past = Past::of(archive).await?;
        let work = Work::planned(&windows, past.bytes_a_message());
        let bill = cost(&work, Prices::built_in());
        let in_the_way = in_the_way(archive, from, to).await?;
        // A run that reads an API takes what is recent from there, whatever OpenSearch holds of it.
        let from_api = archive.job_runs.uses_api().await? && border(Timestamp::now()) < to;
        Ok(DryRun { from, to, target, windows, undated, past, work, bill, in_the_way, from_api })
    }

    fn json(&self) -> Value {
        json!({
            "from": instant::iso(self.from), "to": instant::iso(self.to), "windows": self.windows,
            "messages": self.work.messages, "undated": self.undated, "bytes": self.work.source_bytes,
            "seconds": self.past.pace().map(|pace| self.work.messages as f64 / pace), "cost": self.bill,
            "range_busy": self.in_the_way, "recent_from_api": self.from_api,
        })
    }

    fn print(&self, as_json: bool) -> Result<()> {
        if as_json {
            say!("{}", serde_json::to_string_pretty(&self.json())?);
            return Ok(());
        }
        let DryRun { windows, past, work, bill, .. } = self;
        say!("Nothing is started. A run over {} would now plan:\n", reports::range(self.from, self.to));
        let target = grouped(self.target);
        say!("  windows   {}, of at most {target} messages each", grouped(windows.len() as u64));
        say!("  messages  {}", grouped(work.messages));
        say!("  size      about {} ({})", bytes(work.source_bytes), past.told());
        say!("  time      {}", time_told(work.messages, past.pace()));
        let month = usd(bill.usd_a_month);
        say!("  cost      at most about {}, then {month} a month (alert-archive cost says of what)", usd(bill.usd));
        say!("\nEstimates count every message as closed and new. What is archived already costs a read.");
        if self.undated > 0 {
            say!("{} without a usable timestamp: in no window of any run.", count(self.undated, "document"));
        }
        if self.from_api {
            say!(
                "Messages of the last 45 days come from the API: here they are counted as far as OpenSearch has them."
            );
        }
        for run_id in &self.in_the_way {
            say!("Run {run_id} is at work on a part of it: until it ends, a run would be refused as RangeBusy.");
        }
        list(windows)
    }
}

async fn in_the_way(archive: &Archive, from: Timestamp, to: Timestamp) -> Result<Vec<String>> {
    let runs = archive.job_runs.runs.scan().await?.rows.into_iter();
    let meets = runs.filter(|run| run.status == RunStatus::Running && run.from < to && from < run.to);
    Ok(meets.map(|run| run.run_id).collect())
}

fn list(windows: &[Window]) -> Result<()> {
    if windows.is_empty() {
        return Ok(());
    }
    say!("\n  messages  window");
    for window in windows.iter().take(SHOWN) {
        say!("{:>10}  {}", grouped(window.expected), window.window_id);
    }
    if windows.len() > SHOWN {
        say!("            and {} more; --json lists all", grouped((windows.len() - SHOWN) as u64));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::given::{body, given};
    use memory_cloud::given::{RUN, from, to};
    use network::Calm;

    #[tokio::test]
    async fn windows_messages_time_and_cost_are_told_and_nothing_is_started_or_written() {
        let world = given().await;
        for id in ["e", "f", "g"] {
            world.cloud.node.put("messages", id, &body(id).replace("2024-07-01", "2024-07-03"));
        }
        world.cloud.node.put("messages", "undated", r#"{"message_id":"undated"}"#);
        let before = (world.cloud.keys(""), world.cloud.rows("job-runs"), world.cloud.rows("windows"));
        let source = world.source(Calm::shared());
        let dry = DryRun::of(&world.archive, &source, from(), to(), 4).await.expect("counted");
        let told = dry.json();
        assert_eq!((&told["messages"], &told["undated"], &told["range_busy"]), (&json!(7), &json!(1), &json!([])));
        let expected: Vec<&Value> =
            told["windows"].as_array().expect("a list").iter().map(|window| &window["expected"]).collect();
        assert_eq!(expected, [4, 3], "seven are too many for one window of four");
        assert!(told["cost"]["usd"].as_f64().is_some_and(|usd| usd > 0.0), "{told:#}");
        assert_eq!((&told["bytes"], &told["seconds"]), (&json!(7 * 25_000), &Value::Null), "no run has read any yet");
        for as_json in [false, true] {
            dry.print(as_json).expect("told");
        }
        let after = (world.cloud.keys(""), world.cloud.rows("job-runs"), world.cloud.rows("windows"));
        assert_eq!(before, after);
    }

    #[tokio::test]
    async fn a_run_that_is_in_the_way_is_named() {
        let world = given().await;
        let busy = |row: &mut alerts::run::job_run::JobRun| row.status = RunStatus::Running;
        world.archive.job_runs.change(RUN, busy).await.expect("noted");
        assert_eq!(in_the_way(&world.archive, from(), to()).await.expect("asked"), [RUN]);
        let behind = in_the_way(&world.archive, to(), to() + jiff::SignedDuration::from_hours(1)).await;
        assert!(behind.expect("asked").is_empty());
    }

    #[tokio::test]
    async fn without_a_source_there_is_nothing_to_count() {
        let world = given().await;
        let refused = show(&world.archive, from(), to(), true).await.expect_err("no source");
        assert!(refused.to_string().starts_with("OPENSEARCH_URL is not set"), "{refused:#}");
    }
}
