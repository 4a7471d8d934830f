mod check;
pub(super) mod evidence;
pub(super) mod repair;
pub(super) mod rules;

use super::range_of;
use crate::archive::Archive;
use anyhow::Result;
use check::Check;
use clap::Args;
use evidence::Evidence;
use jiff::Timestamp;
use repair::Repair;
use reports::{count, grouped};
use rules::Days;
use serde::Serialize;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive verify                                     sizes and checksums, as S3 holds them
  alert-archive verify --from 2024-07-01 --to 2024-08-01 --deep    reads every row of every object again
  alert-archive verify --deep --repair --dry-run           says what would be repaired
  alert-archive verify --deep --repair --json

A range is widened to whole days. What a run that is at work has not finished is no difference.
With --repair the archive is locked while everything that differs is looked at again: what is found twice is repaired,
and no run begins meanwhile. What leaves the archive is kept under archive/superseded.

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

/// Something that is not as it should be.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub kind: &'static str,
    /// The object's key or the message's id.
    pub what: String,
    pub detail: String,
    /// What `--repair` did about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<String>,
    /// What `--repair` would do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    would: Option<String>,
    /// Of the message, or of the object's partition, where it is known.
    #[serde(skip)]
    day: Option<Timestamp>,
    #[serde(skip)]
    repair: Option<Repair>,
}

#[derive(Default, Serialize)]
struct Outcome {
    ok: bool,
    windows: u64,
    objects: u64,
    bytes: u64,
    rows: u64,
    messages_read: u64,
    /// What the source holds where runs have been, against the ledger; none when the source was not asked.
    accounted: Option<Sum>,
    findings: Vec<Finding>,
}

/// Messages by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Sum {
    source: u64,
    archived: u64,
    open: u64,
    quarantined: u64,
}

impl Sum {
    /// More in the ledger than in the source is no fault: the source may forget what is archived.
    fn told(&self) -> String {
        let &Sum { source, archived, open, quarantined } = self;
        let parts = [(archived, "archived"), (open, "open"), (quarantined, "quarantined")];
        let parts = parts.map(|(count, name)| format!("{name} {}", grouped(count))).join(" + ");
        match archived + open + quarantined {
            known if known == source => format!("source {} = {parts}", grouped(source)),
            known => format!("source {}; ledger {} = {parts}", grouped(source), grouped(known)),
        }
    }
}

/// All that there is to be seen of some days, and what differs there when every object is read.
pub(super) async fn read_through(archive: &Archive, days: Days) -> Result<(Evidence, Vec<Finding>)> {
    let evidence = Evidence::gather(archive, days).await?;
    let findings = Check::run(archive, &evidence, true).await?.findings;
    Ok((evidence, findings))
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
        let (_, mut outcome) = self.look(archive, days).await?;
        let repairable = outcome.findings.iter().any(|finding| finding.repair.is_some());
        if self.dry_run {
            for finding in &mut outcome.findings {
                finding.would = finding.repair.as_ref().map(Repair::describe);
            }
        } else if self.repair && repairable {
            let found = std::mem::take(&mut outcome.findings);
            let work = self.repair_what_is_found_again(archive, days, found);
            outcome.findings = repair::with_lock(archive, "verify", work).await?;
        }
        outcome.ok = outcome.findings.iter().all(|finding| finding.repaired.is_some());
        self.print(&outcome)?;
        Ok(outcome.ok)
    }

    async fn look(&self, archive: &Archive, days: Days) -> Result<(Evidence, Outcome)> {
        let evidence = Evidence::gather(archive, days).await?;
        let outcome = Check::run(archive, &evidence, self.deep).await?;
        Ok((evidence, outcome))
    }

    /// Looks again at the days on which something was found. What is no longer so was a run's own doing.
    async fn repair_what_is_found_again(
        &self,
        archive: &Archive,
        days: Days,
        found: Vec<Finding>,
    ) -> Result<Vec<Finding>> {
        let instants: Vec<Option<Timestamp>> = found.iter().map(|finding| finding.day).collect();
        let (evidence, Outcome { findings: mut again, .. }) = self.look(archive, days.of(&instants)).await?;
        let is_same = |first: &Finding, second: &Finding| {
            (first.kind, &first.what, &first.detail) == (second.kind, &second.what, &second.detail)
        };
        again.retain(|second| found.iter().any(|first| is_same(first, second)));
        let repairs: Vec<Repair> = again.iter().filter_map(|finding| finding.repair.clone()).collect();
        let mut done =
            repair::apply(&archive.objects, &archive.ledger.rows, &evidence.named, &repairs).await?.into_iter();
        for finding in again.iter_mut().filter(|finding| finding.repair.is_some()) {
            let is_done = done.next().unwrap_or_default();
            finding.repaired = finding.repair.as_ref().filter(|_| is_done).map(Repair::describe);
        }
        Ok(again)
    }

    fn print(&self, outcome: &Outcome) -> Result<()> {
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
        let Outcome { windows, objects, rows, findings, .. } = outcome;
        match &outcome.accounted {
            Some(sum) => say!("{}", sum.told()),
            None => say!("the source was not asked: OPENSEARCH_URL is not set"),
        }
        let found = count(findings.len() as u64, "difference");
        say!("{}, {}, {}{read}: {found}", count(*windows, "window"), count(*objects, "object"), count(*rows, "row"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_that_was_proved_is_told() {
        let sum = Sum { source: 7900, archived: 6875, open: 949, quarantined: 76 };
        assert_eq!(sum.told(), "source 7,900 = archived 6,875 + open 949 + quarantined 76");
        let forgotten = Sum { source: 7000, ..sum };
        assert_eq!(forgotten.told(), "source 7,000; ledger 7,900 = archived 6,875 + open 949 + quarantined 76");
    }
}
