//! Deletes from the source what is archived, and nothing else. What is deleted was proved at that very moment: the
//! object in S3 is as its manifest says, the ledger's row names it, the bytes in it are those of the source, and the
//! source deletes on condition that nothing was written since those bytes were read.

use super::{bar, instant_of, verify::seen_whole};
use crate::archive::Archive;
use alerts::{
    message::{
        classification::Disposition,
        document,
        entry::Written,
        tracking::{Row, Status},
    },
    run::job_run::RunStatus,
};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use columnar::ArchivedRow;
use identity::{Identity, instant};
use indicatif::ProgressBar;
use jiff::Timestamp;
use reports::{bytes, count, grouped};
use serde::Serialize;
use sources::{Deleted, OpenSearch, Stored};
use std::collections::BTreeMap;
use std::time::Duration;
use verify::{
    Finding,
    evidence::{Evidence, PARQUET},
    look,
    rules::Days,
    with_lock,
};

/// What is read, compared and deleted with one request each.
const DOCUMENTS_AT_ONCE: usize = 500;
const BYTES_AT_ONCE: usize = 8 << 20;
/// Findings that are printed.
const SHOWN: usize = 20;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive purge --before 2020-01-01 --dry-run      what would be deleted, and what would be spared
  alert-archive purge --before 2020-01-01 --rate 500

First everything before that day is verified, as by `verify --deep`: one finding, and nothing is deleted. Then a message
goes only if it is archived now: its object is as the manifest says, the ledger names it, and its bytes are those of the
source. A message that is written again in between is spared. Held-over and quarantined messages stay, and so do history
and audit of all messages. No run begins meanwhile, and none may be at work.

What is deleted is listed below runs/<purge>/ before it is. No schedule calls this command.")]
pub struct Purge {
    /// Messages before this UTC date or instant
    #[arg(long, value_name = "D")]
    before: String,
    /// At most so many messages a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why a message that the archive holds is not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Spared {
    /// Its object is not as its last manifest says, or a window may still change it.
    ObjectInDoubt,
    /// The ledger's row does not say that this object holds it in this version.
    RowDiffers,
    /// The source holds other bytes than the archive, or they were written again in between.
    Changed,
    /// It does not stand in the source any more, or not where its name says.
    NotThere,
}

impl Spared {
    fn told(self) -> &'static str {
        match self {
            Spared::ObjectInDoubt => {
                "in objects that a window may still change, or that are not as their manifest says"
            }
            Spared::RowDiffers => "whose ledger row does not name this object and version",
            Spared::Changed => "that were changed in the source since they were archived: the next run looks at them",
            Spared::NotThere => "that do not stand in the source any more",
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Outcome {
    dry_run: bool,
    before: String,
    /// Where the lists are; absent where nothing was deleted.
    list: Option<String>,
    deleted: u64,
    bytes: u64,
    spared: BTreeMap<Spared, u64>,
}

/// A line of the list.
#[derive(Serialize)]
struct Line<'a> {
    source_index: &'a str,
    id: &'a str,
    version: &'a str,
    object: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    spared: Option<Spared>,
}

impl Purge {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let before = instant_of("--before", Some(&self.before))?;
        let source = archive.source()?.context("OPENSEARCH_URL is not set: it names the source to delete from")?;
        if self.dry_run {
            return self.purge(archive, &source, before).await;
        }
        with_lock(&seen_whole(archive)?, "purge", self.purge(archive, &source, before)).await
    }

    async fn purge(&self, archive: &Archive, source: &OpenSearch, before: Timestamp) -> Result<bool> {
        let runs = archive.job_runs.runs.scan().await?.rows;
        if let Some(run) = runs.iter().find(|run| run.status == RunStatus::Running) {
            bail!("run {} is at work; nothing was deleted. Try again when it has ended", run.run_id);
        }
        eprintln!("verifying everything before {} ...", instant::iso(before));
        let (evidence, findings) = read_through(archive, before).await?;
        if !findings.is_empty() {
            for finding in findings.iter().take(SHOWN) {
                eprintln!("{}  {}: {}", finding.kind, finding.what, finding.detail);
            }
            let found = count(findings.len() as u64, "difference");
            bail!(
                "verify found {found} before {}: nothing was deleted. alert-archive verify --deep says more",
                self.before
            );
        }
        let outcome = delete(archive, source, &evidence, before, self).await?;
        self.print(&outcome)?;
        Ok(true)
    }

    fn print(&self, outcome: &Outcome) -> Result<()> {
        if self.json {
            say!("{}", serde_json::to_string_pretty(outcome)?);
            return Ok(());
        }
        let what = if self.dry_run { "would be deleted" } else { "deleted" };
        say!("{} of {} {what} from the source", count(outcome.deleted, "message"), bytes(outcome.bytes));
        for (reason, spared) in &outcome.spared {
            say!("{:>10} spared, {}", grouped(*spared), reason.told());
        }
        if let Some(list) = &outcome.list {
            say!("each is listed in {list}");
        }
        Ok(())
    }
}

/// All that there is to be seen before an instant, and what differs there when every object is read.
async fn read_through(archive: &Archive, before: Timestamp) -> Result<(Evidence, Vec<Finding>)> {
    let days = Days::around(instant::first(), before);
    let (evidence, outcome) = look(&seen_whole(archive)?, days, true).await?;
    Ok((evidence, outcome.findings))
}

async fn delete(
    archive: &Archive,
    source: &OpenSearch,
    evidence: &Evidence,
    before: Timestamp,
    options: &Purge,
) -> Result<Outcome> {
    let name = format!("purge-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S%3f"));
    let keys: Vec<&String> = evidence.objects.keys().filter(|key| key.starts_with(PARQUET)).collect();
    let progress = bar(keys.len(), "objects");
    let dry_run = options.dry_run;
    let outcome = Outcome { dry_run, before: instant::iso(before), ..Outcome::default() };
    let mut work = Work { archive, source, evidence, options, name, batches: 0, outcome, progress };
    for key in keys {
        work.object(key, before).await?;
        work.progress.inc(1);
    }
    work.progress.finish_and_clear();
    if work.batches > 0 {
        let prefix = format!("runs/{}/", work.name);
        work.outcome.list = Some(archive.objects.uri(&prefix));
        archive.objects.put_json(&format!("{prefix}purge.json"), &work.outcome).await?;
    }
    Ok(work.outcome)
}

struct Work<'a> {
    archive: &'a Archive,
    source: &'a OpenSearch,
    evidence: &'a Evidence,
    options: &'a Purge,
    name: String,
    /// Requests that have deleted something.
    batches: usize,
    outcome: Outcome,
    progress: ProgressBar,
}

impl Work<'_> {
    /// Deletes what one object holds, a few messages at a time.
    async fn object(&mut self, key: &str, before: Timestamp) -> Result<()> {
        let Some(body) = self.archive.objects.find(key).await? else { return Ok(()) };
        let sha256 = storage::sha256_hex(&body);
        let (mut batch, mut size) = (Vec::new(), 0);
        for row in columnar::rows(body.clone()).with_context(|| format!("{key} is not a Parquet object"))? {
            let row = row.with_context(|| format!("{key} is damaged"))?;
            if row.timestamp >= before {
                continue;
            }
            size += row.record.message.len();
            batch.push(row);
            // A batch is one request: more than the rate would go within the first second.
            if batch.len() >= DOCUMENTS_AT_ONCE.min(self.options.rate as usize) || size >= BYTES_AT_ONCE {
                self.batch(key, &sha256, std::mem::take(&mut batch)).await?;
                size = 0;
            }
        }
        self.batch(key, &sha256, batch).await
    }

    async fn batch(&mut self, key: &str, sha256: &str, batch: Vec<ArchivedRow>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let names: Vec<Identity> = batch.iter().map(|row| row.identity.clone()).collect();
        let keys: Vec<_> = names.iter().map(|name| (name.id.clone(), Some(name.source_index.clone()))).collect();
        let rows = self.archive.ledger.rows.get_many(&keys).await?;
        let stored = self.source.stored(&names).await?;
        let uri = self.archive.objects.uri(key);
        let (mut proved, mut spared) = (Vec::new(), Vec::new());
        for (archived, row_key) in batch.iter().zip(&keys) {
            match proof(archived, rows.get(row_key), &uri, stored.get(&archived.identity)) {
                Ok(written) => proved.push((archived, written)),
                Err(why) => spared.push((archived, why)),
            }
        }
        // The object last, so that nothing lies between this look and the deletion.
        let head = self.archive.objects.head(key).await?;
        let is_as_read = head.as_ref().is_some_and(|head| head.sha256.as_deref() == Some(sha256));
        if !is_as_read || !self.evidence.is_sound(key, head.as_ref()) {
            spared.extend(proved.drain(..).map(|(archived, _)| (archived, Spared::ObjectInDoubt)));
        }
        if !self.options.dry_run && !proved.is_empty() {
            proved = self.carry_out(key, proved, &mut spared).await?;
        }
        self.outcome.deleted += proved.len() as u64;
        self.outcome.bytes += proved.iter().map(|(archived, _)| archived.record.message.len() as u64).sum::<u64>();
        for (_, why) in &spared {
            *self.outcome.spared.entry(*why).or_default() += 1;
        }
        self.progress.set_message(format!("{} messages", grouped(self.outcome.deleted)));
        Ok(())
    }

    /// Lists what is to go, lets it go, and lists what was spared after all; returns what is gone.
    async fn carry_out<'r>(
        &mut self,
        key: &str,
        proved: Vec<(&'r ArchivedRow, Written)>,
        spared: &mut Vec<(&'r ArchivedRow, Spared)>,
    ) -> Result<Vec<(&'r ArchivedRow, Written)>> {
        self.batches += 1;
        let list = |what: &str| format!("runs/{}/{what}-{:06}.jsonl.zst", self.name, self.batches);
        let lines: Vec<Line> = proved.iter().map(|(archived, _)| line(archived, key, None)).collect();
        self.archive.objects.put_lines(&list("deleted"), &lines).await?;
        let wanted: Vec<_> = proved.iter().map(|(archived, written)| (archived.identity.clone(), *written)).collect();
        let ends = self.source.delete_written(&wanted).await?;
        let (mut gone, mut after_all) = (Vec::new(), Vec::new());
        for (one, end) in proved.into_iter().zip(ends) {
            match end {
                Deleted::Done | Deleted::Gone => gone.push(one),
                Deleted::Changed => after_all.push((one.0, Spared::Changed)),
            }
        }
        if !after_all.is_empty() {
            let lines: Vec<Line> = after_all.iter().map(|(archived, why)| line(archived, key, Some(*why))).collect();
            self.archive.objects.put_lines(&list("spared"), &lines).await?;
        }
        spared.extend(after_all);
        let pause = gone.len() as f64 / f64::from(self.options.rate);
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        Ok(gone)
    }
}

fn line<'a>(archived: &'a ArchivedRow, object: &'a str, spared: Option<Spared>) -> Line<'a> {
    let Identity { source_index, id } = &archived.identity;
    Line { source_index, id, version: &archived.version, object, spared }
}

/// Whether the archive holds exactly what the source holds; then the write on whose standing it may be deleted.
fn proof(archived: &ArchivedRow, row: Option<&Row>, uri: &str, stored: Option<&Stored>) -> Result<Written, Spared> {
    let version = document::version(&archived.record.message);
    let is_named = |row: &&Row| {
        row.status == Status::Completed
            && row.disposition == Disposition::Closed
            && row.claim.is_none()
            && row.s3_path.as_deref() == Some(uri)
            && row.version == version
    };
    row.filter(is_named).filter(|_| archived.version == version).ok_or(Spared::RowDiffers)?;
    let stored = stored.ok_or(Spared::NotThere)?;
    let is_same = stored.source == Bytes::copy_from_slice(&archived.record.message);
    if is_same { Ok(stored.written) } else { Err(Spared::Changed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::given::{IDS, World, body, given};
    use async_trait::async_trait;
    use network::{Broken, Calm, Network, Request};
    use serde_json::{Value, json};
    use sources::MemoryNode;
    use std::sync::Arc;

    impl World {
        async fn purge(&self, dry_run: bool, network: Arc<dyn Network>) -> Result<Outcome> {
            let options = Purge { before: "2024-07-02".into(), rate: u32::MAX, dry_run, json: false };
            let before = instant::parse("2024-07-02").expect("an instant");
            let (evidence, findings) = read_through(&self.archive, before).await?;
            assert!(findings.is_empty(), "{findings:?}");
            delete(&self.archive, &self.source(network), &evidence, before, &options).await
        }

        async fn left(&self) -> Vec<String> {
            let names = IDS.map(|id| Identity::new("messages", id));
            let stored = self.source(Calm::shared()).stored(&names).await.expect("read");
            let mut left: Vec<String> = stored.into_keys().map(|name| name.id).collect();
            left.sort();
            left
        }
    }

    #[tokio::test]
    async fn what_is_archived_goes_and_is_listed_and_a_dry_run_touches_nothing() {
        let world = given().await;
        let dry = world.purge(true, Calm::shared()).await.expect("looked");
        assert_eq!((dry.deleted, dry.list.is_none(), world.left().await.len()), (4, true, 4));
        let outcome = world.purge(false, Calm::shared()).await.expect("deleted");
        assert_eq!((outcome.deleted, outcome.spared.is_empty()), (4, true));
        assert!(world.left().await.is_empty());
        let list = world.archive.objects.list("runs/purge-").await.expect("listed");
        let listed = list.iter().find(|key| key.contains("/deleted-")).expect("a list");
        let lines: Vec<Value> = world.archive.objects.get_lines(listed).await.expect("lines");
        assert_eq!(lines.len(), 4);
        assert_eq!((&lines[0]["id"], &lines[0]["object"]), (&json!("a"), &json!(world.key)));
        let again = world.purge(false, Calm::shared()).await.expect("nothing is left");
        assert_eq!((again.deleted, again.spared.get(&Spared::NotThere)), (0, Some(&4)));
    }

    #[tokio::test]
    async fn no_request_deletes_more_than_may_go_in_a_second() {
        let world = given().await;
        let before = instant::parse("2024-07-02").expect("an instant");
        let (evidence, _) = read_through(&world.archive, before).await.expect("read");
        let options = Purge { before: "2024-07-02".into(), rate: 3, dry_run: false, json: false };
        let source = world.source(Calm::shared());
        let outcome = delete(&world.archive, &source, &evidence, before, &options).await.expect("deleted");
        assert_eq!(outcome.deleted, 4);
        let mut at_once = Vec::new();
        let lists = world.archive.objects.list("runs/purge-").await.expect("listed");
        for list in lists.into_iter().filter(|key| key.contains("/deleted-")) {
            at_once.push(world.archive.objects.get_lines::<Value>(&list).await.expect("lines").len());
        }
        assert_eq!(at_once, [3, 1]);
    }

    /// Writes a message again after it was compared, just before the deletion reaches the source.
    struct Meddler(MemoryNode);

    #[async_trait]
    impl Network for Meddler {
        async fn sent(&self, request: &Request) -> Result<(), Broken> {
            if request.operation == "_bulk" {
                self.0.put("messages", "b", &body("b").replace("1.0", "2.0"));
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_message_that_changes_between_the_look_and_the_deletion_is_spared() {
        let world = given().await;
        let outcome = world.purge(false, Arc::new(Meddler(world.cloud.node.clone()))).await.expect("deleted");
        assert_eq!((outcome.deleted, outcome.spared.get(&Spared::Changed)), (3, Some(&1)));
        assert_eq!(world.left().await, ["b"]);
        let spared = world.archive.objects.list("runs/purge-").await.expect("listed");
        assert!(spared.iter().any(|key| key.contains("/spared-")), "{spared:?}");
    }

    #[tokio::test]
    async fn what_the_source_or_the_ledger_holds_otherwise_is_spared() {
        let world = given().await;
        // The same values, other bytes.
        world.cloud.node.put("messages", "a", &body("a").replace("1.0", "1"));
        world.cloud.node.delete("messages", "c");
        let rows = &world.archive.ledger.rows;
        let row = rows.get("d", Some("messages")).await.expect("read").expect("a row");
        let evidence = world.purge(true, Calm::shared()).await.expect("looked");
        assert_eq!(evidence.spared, BTreeMap::from([(Spared::Changed, 1), (Spared::NotThere, 1)]));
        let archived = columnar::rows(world.cloud.object(&world.key)).expect("rows").last().expect("d").expect("a row");
        let stored = Stored { written: Written { seq_no: 3, primary_term: 1 }, source: body("d").into() };
        let uri = world.archive.objects.uri(&world.key);
        let proved = |row: &Row| proof(&archived, Some(row), &uri, Some(&stored)).is_ok();
        assert!(proved(&row));
        for doubtful in [
            Row { status: Status::Processing, ..row.clone() },
            Row { disposition: Disposition::Open, ..row.clone() },
            Row { s3_path: Some("s3://archive/another".into()), ..row.clone() },
            Row { version: "another".into(), ..row.clone() },
        ] {
            assert!(!proved(&doubtful), "{doubtful:?}");
        }
        assert_eq!(proof(&archived, None, &uri, Some(&stored)), Err(Spared::RowDiffers));
    }

    #[tokio::test]
    async fn an_object_that_is_not_as_it_was_verified_holds_everything_back() {
        let world = given().await;
        let before = instant::parse("2024-07-02").expect("an instant");
        let (evidence, _) = read_through(&world.archive, before).await.expect("read");
        // A row is taken out after the verification.
        let one = std::collections::HashSet::from([Identity::new("messages", "a")]);
        let split = columnar::split(world.cloud.object(&world.key), &one).expect("split").expect("it holds it");
        world.archive.objects.put(&world.key, split.kept, "application/octet-stream").await.expect("written");
        let options = Purge { before: "2024-07-02".into(), rate: u32::MAX, dry_run: false, json: false };
        let source = world.source(Calm::shared());
        let outcome = delete(&world.archive, &source, &evidence, before, &options).await.expect("held back");
        assert_eq!((outcome.deleted, outcome.spared.get(&Spared::ObjectInDoubt)), (0, Some(&3)));
        assert_eq!(world.left().await.len(), 4);
    }

    #[tokio::test]
    async fn one_finding_and_nothing_is_deleted() {
        let world = given().await;
        world.archive.objects.delete(&world.key).await.expect("deleted");
        let options = Purge { before: "2024-07-02".into(), rate: u32::MAX, dry_run: false, json: false };
        let before = instant::parse("2024-07-02").expect("an instant");
        let refused = options.purge(&world.archive, &world.source(Calm::shared()), before).await.expect_err("refused");
        assert!(refused.to_string().contains("nothing was deleted"), "{refused:#}");
        assert_eq!(world.left().await.len(), 4);
    }
}
