//! Reports for people and for scripts, on standard output.

use alerts::run::{
    job_run::RunStatus,
    report::{Failure, RunReport},
    unresolved::Unresolved,
};
use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use humansize::{BINARY, format_size};
use identity::instant;

pub fn started(run_id: &str, json: bool) -> Result<()> {
    match json {
        true => say!("{}", serde_json::json!({"run_id": run_id})),
        false => say!("started {run_id}\nfollow it with: alert-archive watch {run_id}"),
    }
    Ok(())
}

pub fn report(report: &RunReport, json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let status = status(report);
    say!("{}  {status}  (mode {}, attempt {})", report.run_id, report.mode, report.attempt);
    say!("{} to {}", instant::iso(report.from), instant::iso(report.to));
    let messages = &report.messages;
    let mut table = plain();
    let windows = format!("{} of {} committed", report.windows.succeeded, report.windows.planned);
    table.add_row(["windows".to_owned(), windows]);
    for (name, count) in [
        ("messages in the source", messages.source),
        ("  archived", messages.archived),
        ("  archived before", messages.already_archived),
        ("  open, held over", messages.open),
        ("  quarantined", messages.quarantined),
        ("without alerts", messages.no_alerts),
        ("ids in several indices", report.collisions),
        ("undated, in no window", report.undated),
        ("open messages in all", report.backlog),
    ] {
        table.add_row([name.to_owned(), count.to_string()]);
    }
    table.add_row(["documents read".to_owned(), format_size(report.bytes.source, BINARY)]);
    table.add_row(["objects written".to_owned(), format_size(report.bytes.archive, BINARY)]);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    say!("{table}");
    let is_named_below = |failure: &&Failure| failure.error == "WindowSkipped" && !report.unresolved.is_empty();
    for failure in report.failures.iter().filter(|failure| !is_named_below(failure)) {
        say!("failed: {}  {}: {}", failure.window_id, failure.error, failure.message);
    }
    if report.windows.failed > 0 {
        say!("run the failed windows again with: alert-archive rerun {} --redrive --wait", report.run_id);
    }
    unresolved(&report.unresolved)
}

/// What operators have set aside, and the way back.
pub fn unresolved(items: &[Unresolved]) -> Result<()> {
    for item in items {
        match item {
            Unresolved::SkippedWindow { run_id, window_id, reason, since, .. } => {
                say!("unresolved: window {window_id} of {run_id}, skipped {}: {reason}", instant::date(*since));
                say!("  when its cause is gone: alert-archive skip {run_id} {window_id} --undo");
            }
            Unresolved::QuarantinedByOperator { source_index, id, reason, since } => {
                say!("unresolved: message {id} of {source_index}, quarantined by an operator {}: {reason}", instant::date(*since));
                say!("  when its cause is gone: alert-archive quarantine release {id} --index {source_index}");
            }
        }
    }
    Ok(())
}

pub fn reports(reports: &[RunReport], json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(reports)?);
        return Ok(());
    }
    if reports.is_empty() {
        say!("no runs yet; start one with: alert-archive run --from 2024-07-01 --to 2024-10-01 --wait");
        return Ok(());
    }
    let mut table = plain();
    table.set_header(["run", "status", "windows", "source", "archived", "open", "quarantined", "from", "to"]);
    for report in reports {
        table.add_row([
            report.run_id.clone(),
            status(report).to_owned(),
            format!("{}/{}", report.windows.succeeded, report.windows.planned),
            report.messages.source.to_string(),
            report.messages.archived.to_string(),
            report.messages.open.to_string(),
            report.messages.quarantined.to_string(),
            instant::iso(report.from),
            instant::iso(report.to),
        ]);
    }
    say!("{table}");
    Ok(())
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table
}

fn status(report: &RunReport) -> &'static str {
    match report.status {
        RunStatus::Running => "Running",
        RunStatus::Completed if report.reconciled => "Completed, everything accounted for",
        RunStatus::Completed => "Completed",
        RunStatus::Failed => "Failed",
    }
}
