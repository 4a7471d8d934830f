//! Partner feeds: what came out, where a file's records are, and another try for what failed.

use crate::{
    archive::{self, NotFound},
    commands::Usage,
};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table as Grid, presets::NOTHING};
use errors::{Name, Named};
use events::s3::ObjectEvent;
use feeds::{
    Batch, BatchIntent, FeedFile, FeedKey, FeedsStatus, FileState, Rank, Rules, Totals,
    key::QUARANTINE,
    pack::{Output, number_of},
    protocol::{BLOCKED_INDEX, MOST_OUTPUTS, intent_key, numbers_of_intent, version_of},
};
use futures::TryStreamExt;
use jiff::Timestamp;
use queue::{Message, Queue};
use runtime::Config;
use serde::Serialize;
use std::{collections::BTreeSet, pin::pin};
use storage::{Objects, Table};

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive feeds status
  alert-archive feeds trace offers/acme/2026/11/21/prices.jsonl
  alert-archive feeds replay-dlq --dry-run")]
pub struct Feeds {
    #[command(subcommand)]
    command: FeedsCommand,
}

#[derive(Subcommand)]
enum FeedsCommand {
    /// Count what came out, what waits, and what failed
    Status(ShowStatus),
    /// Tell which outputs hold a partner's file, or which files an output holds
    Trace(Trace),
    /// Deliver the messages of the dead-letter queue again
    ReplayDlq(ReplayDlq),
}

#[derive(Args)]
#[command(after_help = "\
Exit code: 0 when no message is in the dead-letter queue, else 1.

Examples:
  alert-archive feeds status
  alert-archive feeds status --json | jq .failed")]
struct ShowStatus {
    /// Print JSON: one object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Exit code: 3 when no delivery of the file is known, or when no output has this key.

Examples:
  alert-archive feeds trace offers/acme/2026/11/21/prices.jsonl
  alert-archive feeds trace offers/year=2026/month=11/day=21/output_object-1795274240267634.jsonl --json")]
struct Trace {
    /// Key of a partner's file, of an output, or of a quarantine object; s3://BUCKET/KEY will do
    key: String,
    /// Print JSON: one object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "\
With --dry-run it tells for each file why it failed, as far as that can still be told, and what to do.
A message may be delivered twice when the connection breaks in between: that changes nothing.

Examples:
  alert-archive feeds replay-dlq --dry-run
  alert-archive feeds replay-dlq")]
struct ReplayDlq {
    /// Only tell what failed and why
    #[arg(long)]
    dry_run: bool,
    /// Print JSON: one object
    #[arg(long)]
    json: bool,
}

/// The deployed feeds, as the environment names them.
struct Deployed {
    source: String,
    outputs: String,
    archive: Objects,
    files: Table<FeedFile>,
    batches: Table<Batch>,
    partners: Table<Rules>,
    queue: Queue,
    dead: Queue,
}

impl Deployed {
    async fn from_env() -> Result<Self> {
        let mut config = Config::default();
        let source = config.required("ALERT_ARCHIVE_FEEDS_SOURCE_BUCKET");
        let outputs = config.required("ALERT_ARCHIVE_FEEDS_BUCKET");
        let archive = config.required("ALERT_ARCHIVE_BUCKET");
        let files = config.required("ALERT_ARCHIVE_FEED_FILES_TABLE");
        let batches = config.required("ALERT_ARCHIVE_FEED_BATCHES_TABLE");
        let partners = config.required("ALERT_ARCHIVE_FEEDS_PARTNERS_TABLE");
        let queue = config.required("ALERT_ARCHIVE_FEEDS_QUEUE_URL");
        let dead = config.required("ALERT_ARCHIVE_FEEDS_DLQ_URL");
        config.check().context("the partner feeds are not named; in a checkout, run: eval \"$(make -s env)\"")?;
        let aws = archive::aws().await?;
        Ok(Deployed {
            source,
            outputs,
            archive: Objects::new(&aws, archive),
            files: Table::new(&aws, files),
            batches: Table::new(&aws, batches),
            partners: Table::new(&aws, partners),
            queue: Queue::new(&aws, queue),
            dead: Queue::new(&aws, dead),
        })
    }

    /// Why no file of this key can come out, whatever it holds.
    async fn refusal(&self, key: &str) -> Result<Option<String>> {
        let key = match FeedKey::parse(key) {
            Ok(key) => key,
            Err(why) => return Ok(Some(why.to_string())),
        };
        let rules = self.partners.get(key.content_type, None).await?;
        let why = || format!("table {} has no row for content type {:?}", self.partners.name(), key.content_type);
        Ok(rules.is_none().then(why))
    }
}

impl Feeds {
    pub async fn call(self) -> Result<bool> {
        let deployed = Deployed::from_env().await?;
        match self.command {
            FeedsCommand::Status(command) => command.call(&deployed).await,
            FeedsCommand::Trace(command) => command.call(&deployed).await,
            FeedsCommand::ReplayDlq(command) => command.call(&deployed).await,
        }
    }
}

impl ShowStatus {
    async fn call(self, deployed: &Deployed) -> Result<bool> {
        let mut totals = Totals::default();
        deployed.batches.for_each(|batch| totals.add(&batch, Timestamp::MIN)).await?;
        let partition = (BLOCKED_INDEX, BLOCKED_INDEX);
        let blocked = deployed.files.count(BLOCKED_INDEX, partition, "state", "Blocked").await?;
        let (waiting, failed) = (deployed.queue.depth().await?.total(), deployed.dead.depth().await?.total());
        let report = FeedsStatus::new(&totals, blocked, waiting, failed);
        if self.json {
            say!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(report.failed == 0);
        }
        let mut grid = Grid::new();
        grid.load_preset(NOTHING);
        for (name, value) in [
            ("files consolidated", report.objects.to_string()),
            ("records", report.records.to_string()),
            ("output objects", report.outputs.to_string()),
            ("  size", reports::bytes(report.bytes)),
            ("lines in quarantine", report.quarantined.to_string()),
            ("files of blocked partners", report.blocked.to_string()),
            ("messages waiting", report.waiting.to_string()),
            ("messages failed", report.failed.to_string()),
            (
                "from file to output, newest batch",
                report.lag_seconds.map_or("-".to_owned(), |time| format!("{time} s")),
            ),
        ] {
            grid.add_row([name.to_owned(), value]);
        }
        if let Some(column) = grid.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        say!("{grid}");
        if report.failed > 0 {
            say!("see what failed and why: alert-archive feeds replay-dlq --dry-run");
        }
        Ok(report.failed == 0)
    }
}

/// A file and where its records are.
#[derive(Serialize)]
struct TracedFile {
    #[serde(flatten)]
    file: FeedFile,
    outputs: Vec<TracedSpan>,
    quarantine: Vec<TracedSpan>,
}

/// Lines of a file in an output.
#[derive(Serialize)]
struct TracedSpan {
    key: String,
    lines: u64,
}

/// Lines of an output that come from a file.
#[derive(Serialize)]
struct TracedSource {
    object: String,
    version: String,
    lines: u64,
}

impl Trace {
    async fn call(self, deployed: &Deployed) -> Result<bool> {
        let key = match self.key.strip_prefix("s3://").map(|rest| rest.split_once('/')) {
            None => self.key.as_str(),
            Some(Some((bucket, key))) if bucket == deployed.source || bucket == deployed.outputs => key,
            _ => {
                let what = format!("{} is neither in {} nor in {}", self.key, deployed.source, deployed.outputs);
                return Err(Usage(what).into());
            }
        };
        if key.is_empty() {
            let what = "which file? Give the key of a partner's file or of an output; see --help";
            return Err(Usage(what.into()).into());
        }
        let files = deployed.files.partition(key).await?;
        if !files.is_empty() {
            return self.file(deployed, files).await;
        }
        match number_of(key) {
            Some(number) => self.output(deployed, key, number).await,
            None => {
                let what = match deployed.refusal(key).await? {
                    Some(why) => format!("{key} is not consolidated ({}): {why}", Name::UnknownContentType.as_str()),
                    None => format!(
                        "no delivery of {key} is known: is it in {}? Messages that wait: alert-archive feeds status",
                        deployed.source
                    ),
                };
                Err(NotFound(what).into())
            }
        }
    }

    async fn file(&self, deployed: &Deployed, mut files: Vec<FeedFile>) -> Result<bool> {
        files.sort_by_key(|file| file.updated_at);
        let mut traced = Vec::new();
        for file in files {
            let (mut outputs, mut quarantine) = (Vec::new(), Vec::new());
            for key in &file.intents {
                let intent = intent(deployed, key).await?;
                for output in &intent.outputs {
                    let lines =
                        lines_of(&intent, output, |object, version| object == file.object && version == file.version);
                    let spans = if output.rank == Rank::Quarantine { &mut quarantine } else { &mut outputs };
                    if lines > 0 {
                        spans.push(TracedSpan { key: output.key.clone(), lines });
                    }
                }
            }
            traced.push(TracedFile { file, outputs, quarantine });
        }
        if self.json {
            let object = &traced[0].file.object;
            say!("{}", serde_json::to_string_pretty(&serde_json::json!({"object": object, "versions": traced}))?);
            return Ok(true);
        }
        for TracedFile { file, outputs, quarantine } in &traced {
            let state = match file.state {
                FileState::Done => "consolidated".to_owned(),
                FileState::Blocked => format!("left, because partner {} is blocked", file.partner),
                FileState::Claimed => "being consolidated".to_owned(),
                FileState::Waiting => match &file.error {
                    Some(error) => format!("not consolidated: {error}"),
                    None => "partly consolidated".to_owned(),
                },
            };
            say!("{} in version {}: {state}", file.object, file.version);
            say!(
                "  date {} (of the {}); records: {}, lines in quarantine: {}, blank lines: {}",
                file.date,
                file.date_from,
                file.records,
                file.quarantined,
                file.blank
            );
            for TracedSpan { key, lines } in outputs {
                say!("  {lines:>8} of the records in s3://{}/{key}", deployed.outputs);
            }
            for TracedSpan { key, lines } in quarantine {
                say!("  {lines:>8} of the bad lines in s3://{}/{key}", deployed.outputs);
            }
        }
        Ok(true)
    }

    async fn output(&self, deployed: &Deployed, key: &str, number: u64) -> Result<bool> {
        let unknown = || NotFound(format!("{key} is not an output of these feeds"));
        let found = intent_of(deployed, number).await?.ok_or_else(unknown)?;
        let intent = intent(deployed, &found).await?;
        let is_done =
            deployed.batches.get(&intent.batch, None).await?.is_some_and(|batch| batch.work.intent().is_some());
        let output = intent.outputs.iter().find(|output| output.key == key && is_done).ok_or_else(unknown)?;
        let sources = output.spans.iter().map(|span| {
            let part = &intent.parts[span.part];
            TracedSource { object: part.object.clone(), version: part.version.clone(), lines: span.lines }
        });
        let sources: Vec<TracedSource> = sources.collect();
        if self.json {
            let traced = serde_json::json!({
                "output": key, "batch": intent.batch, "bytes": output.bytes, "sha256": output.sha256, "lines": output.lines,
                "sources": sources,
            });
            say!("{}", serde_json::to_string_pretty(&traced)?);
            return Ok(true);
        }
        let what = if key.starts_with(QUARANTINE) { "quarantined line" } else { "record" };
        let lines = reports::count(output.lines, what);
        say!("{key}: {lines}, {}, of batch {}", reports::bytes(output.bytes), intent.batch);
        for TracedSource { object, version, lines } in sources {
            let lines = reports::count(lines, "line");
            say!("  {lines:>14} of s3://{}/{object} in version {version}", deployed.source);
        }
        Ok(true)
    }
}

/// The key of the intent that holds the output of this number, found by its place in the order of the keys.
async fn intent_of(deployed: &Deployed, number: u64) -> Result<Option<String>> {
    let before = intent_key(number.saturating_sub(MOST_OUTPUTS + 1), 0);
    let mut pages = pin!(deployed.archive.pages("feeds/intents/", Some(&before)));
    while let Some(page) = pages.try_next().await? {
        for (key, first, last) in page.into_iter().filter_map(|object| {
            let (first, last) = numbers_of_intent(&object.key)?;
            Some((object.key, first, last))
        }) {
            if first > number {
                return Ok(None);
            }
            if number <= last {
                return Ok(Some(key));
            }
        }
    }
    Ok(None)
}

async fn intent(deployed: &Deployed, key: &str) -> Result<BatchIntent> {
    let intents: Vec<BatchIntent> = deployed.archive.get_lines(key).await?;
    intents.into_iter().next().with_context(|| format!("{key} holds no intent"))
}

fn lines_of(intent: &BatchIntent, output: &Output, is_wanted: impl Fn(&str, &str) -> bool) -> u64 {
    let spans = output.spans.iter().filter(|span| {
        let part = &intent.parts[span.part];
        is_wanted(&part.object, &part.version)
    });
    spans.map(|span| span.lines).sum()
}

/// An object that a dead message tells of, or a message that tells of none.
#[derive(Serialize)]
struct Dead {
    message: String,
    object: Option<String>,
    version: Option<String>,
    /// The stable name of why it failed, where that can still be told.
    error: Option<String>,
    why: String,
}

impl ReplayDlq {
    async fn call(self, deployed: &Deployed) -> Result<bool> {
        let mut messages: Vec<Message> = Vec::new();
        let mut look = |message: &Message| messages.push(message.clone());
        if self.dry_run {
            deployed.dead.peek(&mut look).await?;
        } else {
            deployed.dead.replay_to(&deployed.queue, &mut look).await?;
        }
        let mut failures = Vec::new();
        for message in &messages {
            failures.extend(failures_of(deployed, message).await?);
        }
        let count = messages.len();
        if self.json {
            let replayed = if self.dry_run { 0 } else { count };
            let objects: Vec<&String> = failures.iter().filter_map(|dead| dead.object.as_ref()).collect();
            let report = serde_json::json!({
                "messages": count, "replayed": replayed, "dry_run": self.dry_run, "objects": objects, "failures": failures,
            });
            say!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(true);
        }
        for Dead { message, object, error, why, .. } in &failures {
            let what = object.clone().unwrap_or_else(|| format!("message {message}"));
            say!("{what}");
            say!("  {}{why}", error.as_ref().map(|name| format!("{name}: ")).unwrap_or_default());
        }
        let names: BTreeSet<&str> = failures.iter().filter_map(|dead| dead.error.as_deref()).collect();
        for (name, advice) in names.into_iter().filter_map(|name| Some((name, errors::entry(name)?.advice))) {
            say!("{name}: {advice}");
        }
        let messages = if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
        match (count, self.dry_run) {
            (0, _) => say!("the dead-letter queue is empty"),
            (_, true) => say!("{messages} in the dead-letter queue; deliver again: alert-archive feeds replay-dlq"),
            (_, false) => say!("{messages} delivered again; follow with: alert-archive feeds status"),
        }
        Ok(true)
    }
}

async fn failures_of(deployed: &Deployed, message: &Message) -> Result<Vec<Dead>> {
    let unreadable = |error: events::s3::NotificationError| Dead {
        message: message.id.clone(),
        object: None,
        version: None,
        error: Some(error.name().as_str().to_owned()),
        why: error.to_string(),
    };
    let events = match events::s3::read(message.body.as_bytes()) {
        Ok(events) => events,
        Err(error) => return Ok(vec![unreadable(error)]),
    };
    let mut failures = Vec::new();
    for event in events {
        failures.push(match event {
            Ok(event) => failure_of(deployed, message, event).await?,
            Err(error) => unreadable(error),
        });
    }
    Ok(failures)
}

/// Why an object did not come out, as far as its row, its key and the partners' table tell.
async fn failure_of(deployed: &Deployed, message: &Message, event: ObjectEvent) -> Result<Dead> {
    let version = version_of(event.version_id.as_deref(), event.sequencer.as_deref());
    let row = deployed.files.get(&event.key, Some(&version)).await?;
    let named = |name: Name, why: String| (Some(name.as_str().to_owned()), why);
    let (error, why) = if event.bucket != deployed.source {
        named(Name::ForeignBucket, format!("the event is about bucket {}", event.bucket))
    } else if let Some(why) = deployed.refusal(&event.key).await? {
        named(Name::UnknownContentType, why)
    } else {
        match row {
            Some(FeedFile { state: FileState::Done, .. }) => (None, "it is consolidated".to_owned()),
            Some(FeedFile { state: FileState::Blocked, partner, .. }) => {
                (None, format!("partner {partner} is blocked"))
            }
            Some(FeedFile { error: Some(name), updated_at, .. }) => (Some(name), format!("at {updated_at}")),
            _ => (None, "the log of consolidate-feeds says why".to_owned()),
        }
    };
    Ok(Dead { message: message.id.clone(), object: Some(event.key), version: event.version_id, error, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use feeds::{
        DateSource,
        protocol::{FileClaim, FileFacts},
    };
    use network::Calm;
    use queue::MemoryQueues;
    use std::collections::HashSet;
    use storage::{MemoryObjects, MemoryTables};

    #[tokio::test]
    async fn why_a_file_failed_is_told_with_a_version_and_without() {
        let tables = MemoryTables::new(Calm::shared())
            .table("files", "object", Some("version"))
            .table("batches", "batch", None)
            .table("partners", "content_type", None);
        let queues = MemoryQueues::default();
        let deployed = Deployed {
            source: "source".into(),
            outputs: "outputs".into(),
            archive: Objects::over(MemoryObjects::new(Calm::shared()).bucket("archive"), "archive"),
            files: Table::over(tables.clone(), "files"),
            batches: Table::over(tables.clone(), "batches"),
            partners: Table::over(tables, "partners"),
            queue: Queue::over(queues.clone(), "queue"),
            dead: Queue::over(queues, "dead"),
        };
        let (content_type, object) = ("offers".to_owned(), "offers/acme/2026/11/21/prices.jsonl".to_owned());
        let rules = Rules { content_type, priority_partners: vec![], blocked_partners: vec![] };
        deployed.partners.put(&rules).await.expect("stored");
        for (version, error) in [("v7", "GzipTruncated"), ("sequencer-0055", "GzipBomb")] {
            let facts = FileFacts {
                object: object.clone(),
                version: version.into(),
                content_type: "offers".into(),
                partner: "acme".into(),
                date: "2026-11-21".parse().expect("a date"),
                date_from: DateSource::Path,
            };
            let claim = FeedFile::claim(None, &facts, "b1", &HashSet::new(), Timestamp::UNIX_EPOCH);
            let FileClaim::Take(file) = claim else { panic!("{claim:?}") };
            let file = FeedFile { error: Some(error.into()), ..*file };
            deployed.files.put(&file).await.expect("stored");
        }
        let message = Message { id: "m".into(), body: String::new(), receipt: "r".into() };
        for (version_id, sequencer, expected) in
            [(Some("v7"), "0066", Some("GzipTruncated")), (None, "0055", Some("GzipBomb")), (None, "0077", None)]
        {
            let event = ObjectEvent {
                bucket: "source".into(),
                key: object.clone(),
                name: "ObjectCreated:Put".into(),
                change: events::s3::ObjectChange::Created,
                at: Timestamp::UNIX_EPOCH,
                size: None,
                etag: None,
                version_id: version_id.map(str::to_owned),
                sequencer: Some(sequencer.into()),
            };
            let dead = failure_of(&deployed, &message, event).await.expect("looked up");
            assert_eq!(dead.error.as_deref(), expected, "{version_id:?} {sequencer}");
        }
    }
}
