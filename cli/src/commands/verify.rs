use super::{bar, range_of};
use crate::archive::Archive;
use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;
use reports::{count, grouped};
use runtime::SystemClock;
use std::sync::{Mutex, PoisonError};
use verify::{Finding, Outcome, Progress, Repair, Sum, look, repair, rules::Days};

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive verify                                     sizes and checksums, as S3 holds them
  alert-archive verify --from 2024-07-01 --to 2024-08-01 --deep    reads every row of every object again
  alert-archive verify --deep --repair --dry-run           says what would be repaired
  alert-archive verify --deep --repair --json

A range is widened to whole days. What a run that is at work has not finished is no difference.
With --repair the archive is locked while everything that differs is looked at again: what is found twice is repaired,
and no run begins meanwhile. What leaves the archive is kept under archive/superseded. A message that left the source
before it was written is marked so; what was read of it is kept there, too.

Exit code 0 means: nothing differs (or, with --repair, nothing is left that differs).
With OPENSEARCH_URL set, the source is counted too.")]
pub struct Verify {
    /// First instant of a range of message timestamps; without a range, everything
    #[arg(long, value_name = "D", requires = "to")]
    from: Option<String>,
    /// End of the range, not included
    #[arg(long, value_name = "D", requires = "from")]
    to: Option<String>,
    /// Read the objects and compare each message's bytes with its sha256 and its ledger row
    #[arg(long)]
    deep: bool,
    /// Repair what can be repaired: make rows and manifests again, take messages out of objects where they stand twice,
    /// and set messages whose object is lost back, so that the next run over their days archives them again
    #[arg(long)]
    repair: bool,
    /// With --repair: only say what would be done
    #[arg(long, requires = "repair")]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// More in the ledger than in the source is no fault: the source may forget what is archived.
fn told(sum: &Sum) -> String {
    let &Sum { source, archived, open, quarantined } = sum;
    let parts = [(archived, "archived"), (open, "open"), (quarantined, "quarantined")];
    let parts = parts.map(|(count, name)| format!("{name} {}", grouped(count))).join(" + ");
    match archived + open + quarantined {
        known if known == source => format!("source {} = {parts}", grouped(source)),
        known => format!("source {}; ledger {} = {parts}", grouped(source), grouped(known)),
    }
}

/// What is looked at when an archive is held against itself.
pub fn seen_whole(archive: &Archive) -> Result<verify::Archive> {
    Ok(verify::Archive {
        objects: archive.objects.clone(),
        job_runs: archive.job_runs.clone(),
        windows: archive.windows.clone(),
        ledger: archive.ledger.clone(),
        workflow: archive.workflow.clone(),
        source: archive.source()?,
        clock: SystemClock::shared(),
        progress: Box::new(Bars(Mutex::new(ProgressBar::hidden()))),
    })
}

impl Verify {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let days = match &self.from {
            Some(_) => {
                let (from, to) = range_of(self.from.as_deref(), self.to.as_deref())?;
                Days::around(from, to)
            }
            None => Days::ALL,
        };
        let archive = seen_whole(archive)?;
        let (_, mut outcome) = look(&archive, days, self.deep).await?;
        let repairable = outcome.findings.iter().any(|finding| finding.repair.is_some());
        if self.dry_run {
            for finding in &mut outcome.findings {
                finding.would = finding.repair.as_ref().map(Repair::describe);
            }
        } else if self.repair && repairable {
            let found = std::mem::take(&mut outcome.findings);
            outcome.findings = repair(&archive, days, self.deep, found).await?;
        }
        outcome.ok = outcome.findings.iter().all(|finding| finding.repaired.is_some());
        self.print(&outcome, archive.source.is_some())?;
        Ok(outcome.ok)
    }

    fn print(&self, outcome: &Outcome, has_source: bool) -> Result<()> {
        if self.json {
            say!("{}", serde_json::to_string_pretty(outcome)?);
            return Ok(());
        }
        for Finding { kind, what, detail, repaired, would, .. } in &outcome.findings {
            let repaired = repaired.as_ref().map(|repair| format!("; repaired: {repair}"));
            let would = would.as_ref().map(|repair| format!("; --repair would {repair}"));
            say!("{kind}  {what}: {detail}{}", repaired.or(would).unwrap_or_default());
        }
        let read =
            if self.deep { format!(", {} messages read and compared", outcome.messages_read) } else { String::new() };
        let Outcome { windows, objects, rows, findings, gone, .. } = outcome;
        match &outcome.accounted {
            Some(sum) => say!("{}", told(sum)),
            None if has_source => say!("no run has read any of these days: the source was not counted"),
            None => say!("the source was not asked: OPENSEARCH_URL is not set"),
        }
        if *gone > 0 {
            let gone = count(*gone, "message");
            say!("{gone} left the source before a run had written them; alert-archive find ID tells since when");
        }
        let found = count(findings.len() as u64, "difference");
        say!("{}, {}, {}{read}: {found}", count(*windows, "window"), count(*objects, "object"), count(*rows, "row"));
        Ok(())
    }
}

/// A bar for each stretch, on a terminal.
struct Bars(Mutex<ProgressBar>);

impl Bars {
    fn with(&self, change: impl FnOnce(&mut ProgressBar)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Bars {
    fn begin(&self, total: usize, of: &'static str) {
        self.with(|shown| *shown = bar(total, of));
    }

    fn step(&self) {
        self.with(|shown| shown.inc(1));
    }

    fn end(&self) {
        self.with(|shown| shown.finish_and_clear());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_that_was_proved_is_told() {
        let sum = Sum { source: 7900, archived: 6875, open: 949, quarantined: 76 };
        assert_eq!(told(&sum), "source 7,900 = archived 6,875 + open 949 + quarantined 76");
        let forgotten = Sum { source: 7000, ..sum };
        assert_eq!(told(&forgotten), "source 7,000; ledger 7,900 = archived 6,875 + open 949 + quarantined 76");
    }
}
