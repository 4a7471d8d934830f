//! The dashboard: one page without any data in it, and the data that it fetches beside itself.

use crate::words;
use alerts::run::report::{OpenMessage, RunReport};
use identity::instant;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

/// Upper bounds of the age groups, in days; the last group has none.
const AGES: [u64; 5] = [7, 30, 60, 90, 180];
/// Names of the pipelines whose sections the page and the weekly mail show, in this order: `dashboard/data/<name>.json`.
pub const PIPELINES: [&str; 3] = ["feeds", "logs", "warehouse"];
/// How many runs the page lists.
pub const RUNS: usize = 104;
const FAILURES: usize = 100;
const OLDEST: usize = 50;

/// `dashboard/index.html`.
pub fn page() -> &'static str {
    include_str!("../../../web/index.html")
}

/// An age group of the open messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgeGroup {
    pub label: String,
    pub messages: u64,
}

/// How old the open messages are, by their own timestamps.
pub fn age_groups(open: impl IntoIterator<Item = Timestamp>, now: Timestamp) -> Vec<AgeGroup> {
    let mut numbers = [0u64; AGES.len() + 1];
    for at in open {
        let age = words::days(at, now);
        numbers[AGES.iter().position(|&bound| age < bound).unwrap_or(AGES.len())] += 1;
    }
    let label = |n: usize| match n {
        0 => format!("under {} days", AGES[0]),
        n if n < AGES.len() => format!("{} to {} days", AGES[n - 1], AGES[n] - 1),
        _ => format!("{} days and more", AGES[AGES.len() - 1]),
    };
    numbers.into_iter().enumerate().map(|(n, messages)| AgeGroup { label: label(n), messages }).collect()
}

/// `dashboard/data/runs.json`: the latest runs, newest first, as they come in. `unreadable`: why a row that should be
/// a run's cannot be read, one text a row.
pub fn runs(runs: &[RunReport], unreadable: &[String], now: Timestamp) -> Value {
    let list: Vec<Value> = runs
        .iter()
        .take(RUNS)
        .map(|report| {
            let mut run = json!(report);
            run["failures"] = json!(report.failures.len());
            run["unresolved"] = json!(report.unresolved.len());
            run["well"] = json!(words::all_well(report));
            run["range"] = json!(words::range(report.from, report.to));
            run
        })
        .collect();
    json!({"v": 1, "generated_at": instant::iso(now), "runs": list, "unreadable": unreadable})
}

/// What the page tells of the latest run and of the archive as it stands.
#[derive(Clone, Debug)]
pub struct Latest<'a> {
    pub report: &'a RunReport,
    /// Oldest first.
    pub oldest_open: &'a [OpenMessage],
    pub open_ages: &'a [AgeGroup],
    pub quarantine_reasons: &'a [(String, u64)],
    /// Messages in the archive by month of the message, `2024-07`, oldest first; empty when not known.
    pub archived_by_month: &'a [(String, u64)],
    pub now: Timestamp,
}

/// `dashboard/data/latest.json`.
pub fn latest(latest: &Latest) -> Value {
    let &Latest { report, now, .. } = latest;
    let failures: Vec<Value> = words::failures(report)
        .take(FAILURES)
        .map(|failure| json!({"window_id": failure.window_id, "error": failure.error, "message": failure.message, "advice": errors::advice(&failure.error)}))
        .collect();
    let oldest: Vec<Value> = latest
        .oldest_open
        .iter()
        .take(OLDEST)
        .map(|open| {
            json!({
                "message_id": open.message_id, "source_index": open.source_index, "timestamp": instant::iso(open.timestamp),
                "first_seen_open": instant::iso(open.first_seen_open), "days": words::days(open.timestamp, now),
            })
        })
        .collect();
    let pairs = |list: &[(String, u64)]| {
        list.iter().map(|(label, messages)| json!({"label": label, "messages": messages})).collect::<Vec<_>>()
    };
    json!({
        "v": 1,
        "generated_at": instant::iso(now),
        "sentence": words::sentence(report),
        "well": words::all_well(report),
        "range": words::range(report.from, report.to),
        "rerun": words::rerun_command(&report.run_id),
        "report": report,
        "failures": failures,
        "failures_in_all": words::failures(report).count(),
        "set_aside": report.unresolved.iter().map(|item| words::set_aside(item, now)).collect::<Vec<_>>(),
        "oldest_open": oldest,
        "open_ages": latest.open_ages,
        "quarantine_reasons": pairs(latest.quarantine_reasons),
        "archived_by_month": pairs(latest.archived_by_month),
    })
}
