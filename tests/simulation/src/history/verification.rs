//! `alert-archive verify --deep --repair`, as an operator calls it beside the runs. Nothing is ever lost or damaged in
//! a history, so that there is nothing to repair but the rows of documents that the source has let go, and only what a
//! run has yet to do may be told.

use super::{Doc, model, scheduler::Scheduler};
use jiff::{SignedDuration, Timestamp};
use memory_cloud::Cloud;
use std::{cell::RefCell, collections::BTreeSet, rc::Rc};
use tokio::task::spawn_local;
use verify::{Archive, Error, Finding, Untold, look, repair, rules::Days};

/// What stands in the source and in no row, or in a row that no run has finished, while runs come and go.
const TO_BE_DONE: [&str; 3] = ["message_unfinished", "source_unaccounted", "message_unaccounted"];
/// A run had begun with it, and the source has let it go since.
const GONE: &str = "message_gone";

/// What the model and `verify` find when no run is at work, `last` having gone over everything: nothing, but that a
/// document was never written which the source let go. That is repaired, and then they find nothing.
pub async fn of_all(cloud: &Cloud, documents: &[Doc], last: &str) -> Vec<String> {
    let findings = model::check(cloud, documents, last).await;
    if !findings.is_empty() {
        return findings;
    }
    let archive = archive(cloud);
    let (_, outcome) = look(&archive, Days::ALL, true).await.expect("no fault");
    let is_gone = |id: &str| documents.iter().any(|doc| doc.is_gone && doc.id == id);
    let is_expected = |finding: &Finding| finding.kind == GONE && is_gone(&finding.what);
    if !outcome.findings.iter().all(is_expected) {
        return outcome.findings.iter().map(told).collect();
    }
    if outcome.findings.is_empty() {
        return Vec::new();
    }
    let repaired = repair(&archive, Days::ALL, true, outcome.findings).await.expect("no fault");
    let mut left: Vec<String> = repaired.iter().filter(|finding| finding.repaired.is_none()).map(told).collect();
    let (_, outcome) = look(&archive, Days::ALL, true).await.expect("no fault");
    left.extend(outcome.findings.iter().map(told));
    let rows = cloud.tracking_rows().into_iter().filter(|row| row["status"] == "Processing");
    left.extend(rows.map(|row| format!("a row stays claimed: {row}")));
    left.extend(model::check(cloud, documents, last).await);
    left
}

/// Begins beside what goes on. `day`: of July 2024, or all days. What it finds or repairs is an alarm, but for
/// documents that the source has `let_go`.
pub fn begin(
    scheduler: &Scheduler,
    cloud: &Cloud,
    day: Option<u32>,
    let_go: &Rc<RefCell<BTreeSet<String>>>,
    alarms: &Rc<RefCell<Vec<String>>>,
) {
    let (process, network, _) = scheduler.begin("verify".to_owned(), "", None);
    let (scheduler, cloud) = (scheduler.clone(), cloud.through(network));
    let (let_go, alarms) = (let_go.clone(), alarms.clone());
    spawn_local(async move {
        let tell = |findings: &[Finding]| {
            let is_gone = |finding: &Finding| finding.kind == GONE && let_go.borrow().contains(&finding.what);
            let is_alarm = |finding: &&Finding| !is_gone(finding) && !TO_BE_DONE.contains(&finding.kind);
            alarms.borrow_mut().extend(findings.iter().filter(is_alarm).map(told));
        };
        let how = match Box::pin(verify_and_repair(&archive(&cloud), days(day), tell)).await {
            Ok(found) => format!("finds {found}"),
            // A service that fails, and a run that is at work, are told by name. Nothing is damaged.
            Err(error) if error.name().is_some() || matches!(error, Error::Busy { .. }) => format!("fails: {error}"),
            Err(error) => {
                alarms.borrow_mut().push(format!("verify: {error}"));
                format!("fails: {error}")
            }
        };
        scheduler.end(process, &how);
    });
}

/// `tell`: what is found, before and after it is repaired. Returns how much is found in the end.
pub async fn verify_and_repair(archive: &Archive, days: Days, tell: impl Fn(&[Finding])) -> Result<usize, Error> {
    let (_, outcome) = look(archive, days, true).await?;
    tell(&outcome.findings);
    if outcome.findings.iter().all(|finding| finding.repair.is_none()) {
        return Ok(outcome.findings.len());
    }
    let repaired = repair(archive, days, true, outcome.findings).await?;
    tell(&repaired);
    Ok(repaired.len())
}

fn days(day: Option<u32>) -> Days {
    let Some(day) = day else { return Days::ALL };
    let from: Timestamp = format!("2024-07-0{day}T00:00:00Z").parse().expect("an instant");
    Days::around(from, from + SignedDuration::from_hours(24))
}

fn told(finding: &Finding) -> String {
    let Finding { kind, what, detail, repaired, .. } = finding;
    let repaired = repaired.as_ref().map(|repair| format!("; repaired: {repair}")).unwrap_or_default();
    format!("verify: {kind} {what}: {detail}{repaired}")
}

pub fn archive(cloud: &Cloud) -> Archive {
    Archive {
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        ledger: cloud.tracking(),
        workflow: cloud.workflow(),
        source: cloud.sources().opensearch().cloned(),
        clock: cloud.clock.clone(),
        progress: Box::new(Untold),
    }
}
