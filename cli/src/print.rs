//! Reports for people and for scripts, on standard output.

use alerts::run::{job_run::RunStatus, report::RunReport, unresolved::Unresolved};
use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use identity::{Identity, instant};

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
    for line in lines(report) {
        say!("{line}");
    }
    unresolved(&report.unresolved)
}

/// The report but for what operators have set aside.
fn lines(report: &RunReport) -> Vec<String> {
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
    table.add_row(["documents read".to_owned(), reports::bytes(report.bytes.source)]);
    table.add_row(["objects written".to_owned(), reports::bytes(report.bytes.archive)]);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = vec![
        format!("{}  {}  (mode {}, attempt {})", report.run_id, status(report), report.mode, report.attempt),
        format!("{} to {}", instant::iso(report.from), instant::iso(report.to)),
        table.to_string(),
    ];
    if !report.absent.is_empty() {
        lines.push(format!("the source has no {}", report.absent.join(" and no ")));
    }
    let failed = |window: &str, error: &str, message: &str| format!("failed: {window}  {error}: {message}");
    lines.extend(reports::failures(report).map(|failure| failed(&failure.window_id, &failure.error, &failure.message)));
    if report.windows.failed > 0 {
        lines
            .push(format!("run the failed windows again with: alert-archive rerun {} --redrive --wait", report.run_id));
    }
    lines
}

/// What operators have set aside, and the way back.
pub fn unresolved(items: &[Unresolved]) -> Result<()> {
    for item in items {
        match item {
            Unresolved::SkippedWindow { run_id, window_id, reason, since, .. } => {
                say!("unresolved: window {window_id} of {run_id}, skipped {}: {reason}", instant::date(*since));
                say!("  when its cause is gone: alert-archive skip {run_id} {window_id} --undo");
            }
            Unresolved::QuarantinedByOperator { document: Identity { source_index, id }, reason, since } => {
                say!(
                    "unresolved: message {id} of {source_index}, quarantined by an operator {}: {reason}",
                    instant::date(*since)
                );
                say!("  when its cause is gone: alert-archive quarantine release {id} --index {source_index}");
            }
            Unresolved::WatermarkSet { before, at, reason, since, left } => {
                let (before, at, day) = (instant::iso(*before), instant::iso(*at), instant::date(*since));
                say!("unresolved: the watermark, moved from {before} to {at} {day}: {reason}");
                for span in left {
                    let (from, to) = (instant::iso(span.from), instant::iso(span.to));
                    say!("  unless the next scheduled run covers it: alert-archive run --from {from} --to {to} --wait");
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use alerts::{
        counts::Bytes,
        run::report::{Failure, Windows},
    };
    use jiff::Timestamp;

    fn report(failures: &[&str]) -> RunReport {
        RunReport {
            run_id: "r1".into(),
            windows: Windows { planned: 3, succeeded: 1, failed: 0 },
            bytes: Bytes { source: 12_340_000, archive: 0 },
            failures: failures
                .iter()
                .map(|window_id| Failure {
                    window_id: (*window_id).to_owned(),
                    error: "WindowSkipped".to_owned(),
                    message: "shard 3 is lost".to_owned(),
                })
                .collect(),
            ..serde_json::from_str(REPORT).expect("a report")
        }
    }

    const REPORT: &str = r#"{"run_id":"","mode":"range","from":"2024-07-01T00:00:00.000Z","to":"2024-08-01T00:00:00.000Z",
        "status":"Completed","attempt":1,"windows":{"planned":0,"succeeded":0,"failed":0},
        "messages":{"source":0,"archived":0,"open":0,"quarantined":0,"already_archived":0,"no_alerts":0},
        "recheck":{"looked_at":0,"closed":0,"open":0,"gone":0},"sweep":{"late":0,"changed":0,"reopened":0},
        "collisions":0,"undated":0,"backlog":0,"bytes":{"source":0,"archive":0},"reconciled":false,"failures":[],
        "unresolved":[]}"#;

    fn skipped(run_id: &str, window_id: &str) -> Unresolved {
        Unresolved::SkippedWindow {
            run_id: run_id.into(),
            window_id: window_id.into(),
            reason: "shard 3 is lost".into(),
            since: Timestamp::UNIX_EPOCH,
            left: Vec::new(),
        }
    }

    #[test]
    fn a_skipped_window_is_named_among_the_failures_unless_it_is_named_below() {
        let mut report = report(&["w1", "w2"]);
        report.unresolved = vec![skipped("another run", "w2"), skipped("r1", "w1")];
        let failed: Vec<String> = lines(&report).into_iter().filter(|line| line.starts_with("failed")).collect();
        assert_eq!(failed, ["failed: w2  WindowSkipped: shard 3 is lost"]);
    }

    #[test]
    fn sizes_are_those_of_the_mail() {
        assert!(lines(&report(&[]))[2].contains("12.3 MB"));
    }
}
