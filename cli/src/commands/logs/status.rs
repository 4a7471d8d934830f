use super::Deployment;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive logs status
  alert-archive logs status --json | jq .damaged

Exit code: 0 when every log was extracted, 1 when messages ended in the dead-letter queue.")]
pub struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// Log objects that are extracted.
    objects: u64,
    entries: u64,
    /// Lines in no known format that belong to no entry.
    unparsed: u64,
    /// Entries of logs with more kinds of errors than are noted of one; reports take them for new each time.
    unlisted: u64,
    damaged: Vec<Damaged>,
    /// Messages in the queue, in flight too.
    waiting: u64,
    /// Messages in the dead-letter queue.
    failed: u64,
}

#[derive(Serialize)]
struct Damaged {
    object: String,
    error: String,
    /// Lines that were readable before the damage.
    lines: u64,
}

impl Status {
    pub async fn call(self) -> Result<ExitCode> {
        let deployment = Deployment::from_env().await?;
        let mut report =
            Report { objects: 0, entries: 0, unparsed: 0, unlisted: 0, damaged: Vec::new(), waiting: 0, failed: 0 };
        let look = |row: log_entries::LogObject| {
            let Some(version) = row.current else { return };
            report.objects += 1;
            report.entries += version.entries;
            report.unparsed += version.unparsed;
            report.unlisted += version.unlisted;
            if let Some(damaged) = version.damaged {
                report.damaged.push(Damaged { object: row.object, error: damaged.error, lines: version.lines });
            }
        };
        deployment.objects().for_each(look).await?;
        report.damaged.sort_by(|a, b| a.object.cmp(&b.object));
        report.waiting = deployment.queue().depth().await?.total();
        report.failed = deployment.dead_letters().depth().await?.total();
        let code = if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        if self.json {
            say!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(code);
        }
        let Report { objects, entries, unparsed, unlisted, damaged, waiting, failed } = &report;
        say!("{objects} log objects, {entries} error entries, {unparsed} lines in no known format");
        if *unlisted > 0 {
            say!("{unlisted} entries of more kinds of errors than are noted of one log: reports take them for new");
        }
        for Damaged { object, error, lines } in damaged {
            say!("damaged: {object}: {error} after {lines} lines");
        }
        say!("{waiting} messages wait, {failed} failed");
        if *failed > 0 {
            say!("the log of extract-log-errors names what failed; put it right, then: alert-archive logs replay-dlq");
        }
        Ok(code)
    }
}
