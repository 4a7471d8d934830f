//! The page: one file with its style, its script, its charts and its data, so that it opens from a bucket and from a
//! disk alike. From a bucket it looks whether the other pipelines have published something newer, and asks for nothing
//! else.

use crate::archive::{account, became, now_section, run_section};
use crate::cost::{self, Prices};
use crate::section::{Bar, Colour, Section, State, tamed};
use crate::words;
use alerts::counts::{AlertCounts, NO_NAME, OTHER_NAMES};
use alerts::run::{
    grid::{Cell, Grid},
    overview::{Day, Overview},
    report::{Details, RunReport},
    span::Span,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Upper bounds of the age groups, in days; the last group has none.
const AGES: [u64; 5] = [7, 30, 60, 90, 180];
/// The page, in the archive's bucket.
pub const PAGE_KEY: &str = "dashboard/index.html";
/// What [`runs`] gives.
pub const RUNS_KEY: &str = "dashboard/data/runs.json";
/// What [`latest`] gives.
pub const LATEST_KEY: &str = "dashboard/data/latest.json";
/// Names of the pipelines whose sections the page and the weekly mail show, in this order; see [`section_key`].
pub const PIPELINES: [&str; 3] = ["feeds", "logs", "warehouse"];
/// How many runs the page lists.
pub const RUNS: usize = 400;
/// Of how many windows the page shows each, those of the newest runs; of older runs it shows how many were done.
pub const CELLS: usize = 4000;

/// Severities, and categories, that a chart tells apart.
const NAMED: usize = 7;
/// The usual severities, the worst first: they stand in this order whichever is the most frequent.
const SEVERITIES: [&str; 5] = ["critical", "high", "medium", "low", "info"];

const PAGE: &str = include_str!("../../../web/index.html");
const STYLE: &str = include_str!("../../../web/page.css");
const SCRIPT: &str = include_str!("../../../web/page.js");
const CHARTS: &str = include_str!("../../../web/vendor/chart-4.6.1.umd.min.js");

/// What a pipeline has published.
#[derive(Clone, Debug, Serialize)]
pub struct Pipeline {
    /// One of [`PIPELINES`].
    pub name: String,
    pub section: Section,
}

/// `dashboard/index.html` before the first run of the archive.
pub fn first_page(pipelines: &[Pipeline], silent_days: u64, now: Timestamp) -> String {
    let none = runs(&Runs { listed: &[], unreadable: &[], last_completed: None, silent_days, now });
    page(None, &none, pipelines, now)
}

/// `dashboard/index.html`. `latest` and `runs` are what [`latest`] and [`runs`] give.
pub fn page(latest: Option<&Value>, runs: &Value, pipelines: &[Pipeline], now: Timestamp) -> String {
    let data = json!({
        "v": 1, "generated_at": instant::iso(now), "latest": latest, "runs": runs, "pipelines": tamed(json!(pipelines)),
    });
    // Inside a script element only `<` could end it.
    let data = data.to_string().replace('<', "\\u003c");
    let mut page = PAGE.to_owned();
    for (place, text) in [("style_hash", hash(STYLE)), ("charts_hash", hash(CHARTS)), ("script_hash", hash(SCRIPT))] {
        page = page.replace(&format!("{{{{ {place} }}}}"), &text);
    }
    // The data last: nothing that it says is taken for a place.
    for (place, text) in [("style", STYLE), ("charts", CHARTS), ("script", SCRIPT), ("data", &data)] {
        page = page.replacen(&format!("{{{{ {place} }}}}"), text, 1);
    }
    page
}

fn hash(block: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(block)))
}

/// How old the open messages are, by their own timestamps.
pub fn age_groups(open: impl IntoIterator<Item = Timestamp>, now: Timestamp) -> Vec<Bar> {
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
    let groups = numbers.into_iter().enumerate();
    groups.map(|(n, messages)| Bar::count(label(n), messages, Colour::Waiting)).collect()
}

/// A run that the page lists.
#[derive(Clone, Debug)]
pub struct ListedRun {
    /// Of a run without a report, as its row has it.
    pub report: RunReport,
    pub execution_arn: String,
    /// What became of each window; empty where that is not shown.
    pub grid: Grid,
}

/// All runs that the page lists.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    /// Newest first.
    pub listed: &'a [ListedRun],
    /// Why a row that should be a run's cannot be read, one text a row.
    pub unreadable: &'a [String],
    /// When a run completed last.
    pub last_completed: Option<Timestamp>,
    /// Days without a completed run after which something is wrong.
    pub silent_days: u64,
    pub now: Timestamp,
}

/// Where a pipeline publishes its section for page and mail.
pub fn section_key(pipeline: &str) -> String {
    format!("dashboard/data/{pipeline}.json")
}

/// The runs, as the page and the next mail read them at [`RUNS_KEY`].
pub fn runs(runs: &Runs) -> Value {
    let list: Vec<Value> = runs.listed.iter().take(RUNS).map(run).collect();
    let prices = Prices::built_in();
    tamed(json!({
        "v": 1,
        "generated_at": instant::iso(runs.now),
        "last_completed": runs.last_completed.map(instant::iso),
        "silent_days": runs.silent_days,
        "prices": format!("{}, {}", prices.region, prices.as_of),
        "runs": list,
        "unreadable": runs.unreadable,
    }))
}

fn run(ListedRun { report, execution_arn, grid }: &ListedRun) -> Value {
    let seconds = seconds(report);
    let mut run = json!({
        "run_id": report.run_id,
        "mode": report.mode,
        "from": instant::iso(report.from),
        "to": instant::iso(report.to),
        "range": words::extent(report),
        "status": report.status,
        "outcome": words::outcome_label(report),
        "state": words::state(report),
        "attempt": report.attempt,
        "started_at": report.started_at,
        "seconds": seconds,
        "took": seconds.map(words::duration),
        "windows": report.windows,
        "messages": report.messages,
        "planned": account(report).total,
        "not_archived": words::left(report).not_archived(),
        "uncounted": !report.is_counted(),
        "bytes": report.bytes,
        "became": became(report),
        "usd": cost::of_run(report),
    });
    if let Some(console) = words::console_of(execution_arn) {
        run["console"] = json!(console);
    }
    if !grid.is_empty() {
        run["grid"] = grid.iter().map(|cell| cell_of(cell, execution_arn)).collect();
    }
    // A run that went well has nothing to tell that the numbers do not.
    if words::state(report) != State::Good {
        run["sentence"] = json!(words::sentence(report));
        run["section"] =
            json!(run_section(report, &Details { execution_arn: execution_arn.clone(), ..Details::default() }));
    }
    run
}

/// A window, and the log of the function at which it failed.
fn cell_of(cell: &Cell, execution_arn: &str) -> Value {
    let mut shown = json!(cell);
    let log = cell.step.as_deref().and_then(|step| words::log_of(execution_arn, step, &cell.window_id));
    if let Some(log) = log {
        shown["log"] = json!(log);
    }
    shown
}

/// From the run's beginning to its report, redrives included.
fn seconds(report: &RunReport) -> Option<u64> {
    let at = |text: &Option<String>| instant::parse(text.as_deref()?);
    let took = at(&report.reported_at)?.duration_since(at(&report.started_at)?);
    u64::try_from(took.as_secs()).ok()
}

/// What the page tells of the archive as it stands, and of the latest run that is mailed.
#[derive(Clone, Debug)]
pub struct Latest<'a> {
    pub report: &'a RunReport,
    pub details: &'a Details,
    /// The report that was written last, of whichever run: it knows how the archive stands.
    pub newest: &'a RunReport,
    pub details_of_newest: &'a Details,
    pub open_ages: &'a [Bar],
    pub now: Timestamp,
}

/// The archive as it stands and its latest run, as the page reads them at [`LATEST_KEY`].
pub fn latest(latest: &Latest) -> Value {
    let &Latest { report, details, newest, details_of_newest, now, .. } = latest;
    let overview = details_of_newest.overview.clone().unwrap_or_default();
    let Overview { days, covered, gaps, .. } = &overview;
    let now_section = now_section(&overview, details_of_newest.before.as_ref(), &newest.unresolved, now);
    let run_section = Section { title: "The latest run with a report".into(), ..run_section(report, details) };
    let day = |day: &Day| json!([day.date, day.archived, day.open, day.quarantined, day.bytes, day.source_bytes]);
    tamed(json!({
        "v": 1,
        "generated_at": instant::iso(now),
        "run_id": report.run_id,
        "attempt": report.attempt,
        "state": words::state(report).max(now_section.state),
        "sections": [now_section, run_section],
        "report": report,
        "set_aside": newest.unresolved.iter().map(|item| words::set_aside(item, now)).collect::<Vec<_>>(),
        "open_ages": latest.open_ages,
        "covered": covered,
        "gaps": gaps,
        "in_source": overview.in_source,
        "days": days.iter().map(day).collect::<Vec<_>>(),
        "alerts": alerts_by_month(&overview.alerts),
    }))
}

/// What all runs together had committed when [`latest`] was written; nothing where it says so in another form.
pub fn covered(latest: &[u8]) -> Vec<Span> {
    #[derive(Deserialize)]
    struct Told {
        covered: Vec<Span>,
    }
    serde_json::from_slice(latest).map(|Told { covered }| covered).unwrap_or_default()
}

/// After how many days without a completed run something is wrong, as [`runs`] was written with.
pub fn silent_days(runs: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Told {
        silent_days: u64,
    }
    serde_json::from_slice(runs).map(|Told { silent_days }| silent_days).ok()
}

/// One number a month for each severity and each category.
fn alerts_by_month(months: &BTreeMap<String, AlertCounts>) -> Value {
    let messages: i64 = months.values().map(|counts| counts.messages).sum();
    json!({
        "messages": messages.max(0),
        "months": months.keys().collect::<Vec<_>>(),
        "severities": series(months, |counts| &counts.severities, &SEVERITIES),
        "categories": series(months, |counts| &counts.categories, &[]),
    })
}

/// The most frequent names, those of `order` first, and at last all others together.
fn series(
    months: &BTreeMap<String, AlertCounts>,
    names: fn(&AlertCounts) -> &BTreeMap<String, i64>,
    order: &[&str],
) -> Vec<Value> {
    let mut totals: BTreeMap<&str, i64> = BTreeMap::new();
    for (name, count) in months.values().flat_map(names) {
        *totals.entry(name).or_default() += count;
    }
    let mut shown: Vec<(&str, i64)> =
        totals.into_iter().filter(|(name, count)| *count > 0 && *name != OTHER_NAMES).collect();
    shown.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    shown.truncate(NAMED);
    let rank = |name: &str| order.iter().position(|known| *known == name).unwrap_or(order.len());
    // What has no name comes last: it is no kind of its own.
    shown.sort_by_key(|(name, _)| (*name == NO_NAME, rank(name)));
    let count = |counts: &AlertCounts, name: &str| names(counts).get(name).copied().unwrap_or(0).max(0);
    let mut series: Vec<Value> = shown
        .iter()
        .map(|(name, _)| {
            let counts: Vec<i64> = months.values().map(|counts| count(counts, name)).collect();
            json!({"name": name, "counts": counts})
        })
        .collect();
    let is_shown = |name: &str| shown.iter().any(|(shown, _)| *shown == name);
    let others = |counts: &AlertCounts| -> i64 {
        names(counts).iter().filter(|(name, _)| !is_shown(name)).map(|(_, count)| *count).sum()
    };
    let others: Vec<i64> = months.values().map(|counts| others(counts).max(0)).collect();
    if others.iter().any(|count| *count > 0) {
        series.push(json!({"name": "all others", "counts": others}));
    }
    series
}
