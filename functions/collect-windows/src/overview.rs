//! The archive as it stands, whichever runs made it: gathered from rows, reports and what is kept of manifests.

use crate::{
    Deps, Error,
    totals::{self, Written},
};
use alerts::{
    counts::SourceSize,
    keys::{date_of, run_prefix},
    message::{classification::Disposition, tracking::Row},
    run::{
        overview::{Coverage, Day, Overview, covered_and_gaps},
        report::{Before, Details, OpenMessage, RunReport, coverage, extracted},
    },
};
use archive::quarantined;
use errors::describe;
use futures::{StreamExt, TryStreamExt, stream};
use identity::instant;
use jiff::Timestamp;
use std::collections::BTreeMap;
use storage::Scanned;

/// Requests to S3 that are under way at once.
const READS: usize = 16;

/// What the report says beside its own run.
pub struct Around {
    pub overview: Overview,
    pub before: Option<Before>,
}

pub async fn around(
    deps: &Deps,
    report: &RunReport,
    oldest_open: Vec<OpenMessage>,
    now: Timestamp,
) -> Result<Around, Error> {
    let Scanned { rows: mut runs, malformed } = deps.job_runs.runs.scan().await?;
    for error in &malformed {
        tracing::error!(error = describe(error), "a run cannot be read, and is missing from the overview");
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
    let others = runs.iter().filter(|run| run.run_id != report.run_id);
    let others = others.map(async |run| {
        let key = format!("{}/report.json", run_prefix(&run.run_id));
        let Some(body) = deps.objects.find(&key).await? else { return Ok(RunReport::unreported(run)) };
        let report: RunReport = serde_json::from_slice(&body).map_err(|error| deps.objects.corrupt(&key, error))?;
        Ok::<_, Error>(report.brought_up_to(run))
    });
    let others: Vec<RunReport> = stream::iter(others).buffered(READS).try_collect().await?;
    let before = before(deps, report, &others).await?;
    let mut all = others;
    all.push(report.clone());
    let coverages = all.iter().map(|report| coverage_of(deps, report));
    let coverages: Vec<Option<Coverage>> = stream::iter(coverages).buffered(READS).try_collect().await?;
    let coverages: Vec<Coverage> = coverages.into_iter().flatten().chain(extracted(&all)).collect();
    let (covered, gaps) = covered_and_gaps(&coverages);

    let oldest_first: Vec<_> = runs.iter().rev().cloned().collect();
    let totals = totals::up_to_date(deps, &oldest_first).await?;
    let mut days: BTreeMap<String, Day> = BTreeMap::new();
    let mut in_source = SourceSize::default();
    for (date, Written { archived, bytes, in_source: of_day, .. }) in totals.days {
        in_source.add_all(of_day, 1);
        let (archived, source_bytes) = (archived.max(0).cast_unsigned(), of_day.bytes.max(0).cast_unsigned());
        days.insert(date, Day { archived, bytes, source_bytes, ..Day::default() });
    }
    let count_open = |row: Row| {
        if row.disposition == Disposition::Open && row.first_seen_open.is_some() {
            days.entry(instant::date(row.timestamp)).or_default().open += 1;
        }
    };
    deps.ledger.staged(count_open).await?;
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let count_quarantined = |message: archive::Quarantined| {
        if let Some(date) = date_of(&message.key) {
            days.entry(date.to_owned()).or_default().quarantined += 1;
        }
        *reasons.entry(message.reason).or_default() += 1;
    };
    quarantined(&deps.objects, &deps.ledger, |_| true, count_quarantined).await?;
    let quarantined = reasons.values().sum();
    let mut quarantine_reasons: Vec<_> = reasons.into_iter().collect();
    quarantine_reasons.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(&right.0)));
    let overview = Overview {
        as_of: now,
        since: runs.last().map(|run| instant::iso(run.created_at)),
        runs: runs.len() as u64,
        archived: days.values().map(|day| day.archived).sum(),
        bytes: days.values().map(|day| day.bytes).sum(),
        in_source,
        source_gb_month: deps.source_gb_month,
        open: report.backlog,
        quarantined,
        quarantine_reasons,
        gaps,
        covered,
        days: days.into_iter().map(|(date, day)| Day { date, ..day }).collect(),
        alerts: totals.alerts,
        oldest_open,
    };
    Ok(Around { overview, before })
}

/// A run without a report, and one that died after it, are asked for their windows.
async fn coverage_of(deps: &Deps, report: &RunReport) -> Result<Option<Coverage>, Error> {
    let died = report.failures.iter().any(|failure| failure.window_id.is_empty());
    let records =
        if died || !report.is_counted() { deps.windows.rows.partition(&report.run_id).await? } else { Vec::new() };
    Ok(coverage(report, &records))
}

/// What the last report said: an earlier attempt of this run, else the run before.
async fn before(deps: &Deps, report: &RunReport, others: &[RunReport]) -> Result<Option<Before>, Error> {
    let read = async |run_id: &str| {
        let key = format!("{}/details.json", run_prefix(run_id));
        let Some(body) = deps.objects.find(&key).await? else { return Ok(None) };
        serde_json::from_slice(&body).map(Some).map_err(|error| Error::from(deps.objects.corrupt(&key, error)))
    };
    let of = |details: Details| {
        let overview = details.overview?;
        let (archived, open, quarantined) = (overview.archived, overview.open, overview.quarantined);
        Some(Before { attempt: details.attempt, archived, open, quarantined, ..details.failed })
    };
    if let Some(details) = read(&report.run_id).await? {
        let details: Details = details;
        // This very report is made again.
        if details.attempt == report.attempt {
            return Ok(details.before);
        }
        if let Some(before) = of(details) {
            return Ok(Some(before));
        }
    }
    for other in others.iter().filter(|other| other.reported_at.is_some()) {
        if let Some(before) = read(&other.run_id).await?.and_then(of) {
            return Ok(Some(before));
        }
    }
    Ok(None)
}
