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
use reports::cost::{Prices, Work, cost, usd};
use reports::{bytes, count, grouped};
use serde_json::json;

/// Windows that are listed for people.
const SHOWN: usize = 20;

/// The windows of `[from, to)`, planned as plan-windows plans what comes from OpenSearch.
pub async fn show(archive: &Archive, from: Timestamp, to: Timestamp, as_json: bool) -> Result<bool> {
    let source = archive.source()?.context(
        "OPENSEARCH_URL is not set: a dry run counts what the source holds; in a checkout, run: \
         eval \"$(make -s env)\"",
    )?;
    let target = window_messages()?;
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
    if as_json {
        let (from, to) = (instant::iso(from), instant::iso(to));
        let seconds = past.pace().map(|pace| work.messages as f64 / pace);
        let shown = json!({
            "from": from, "to": to, "windows": windows, "messages": work.messages, "undated": undated,
            "bytes": work.source_bytes, "seconds": seconds, "cost": bill, "range_busy": in_the_way,
            "recent_from_api": from_api,
        });
        say!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(true);
    }
    say!("Nothing is started. A run over {} would now plan:\n", reports::range(from, to));
    let target = grouped(target);
    say!("  windows   {}, of at most {target} messages each", grouped(windows.len() as u64));
    say!("  messages  {}", grouped(work.messages));
    say!("  size      about {} ({})", bytes(work.source_bytes), past.told());
    say!("  time      {}", time_told(work.messages, past.pace()));
    let month = usd(bill.usd_a_month);
    say!("  cost      at most about {}, then {month} a month (alert-archive cost says of what)", usd(bill.usd));
    say!("\nEstimates count every message as closed and new. What is archived already costs a read.");
    if undated > 0 {
        say!("{} without a usable timestamp: in no window of any run.", count(undated, "document"));
    }
    if from_api {
        say!("Messages of the last 45 days come from the API: here they are counted as far as OpenSearch has them.");
    }
    for run_id in &in_the_way {
        say!("Run {run_id} is at work on a part of it: until it ends, a run would be refused as RangeBusy.");
    }
    list(&windows)?;
    Ok(true)
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
