//! Partner feeds: what came out, where a file's records are, and another try for what failed.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table as Grid, presets::NOTHING};
use feeds::{
    Batch, Counts, FeedFile, FileState, Intent, Rank,
    key::QUARANTINE,
    pack::{Output, number_of},
    protocol::{BLOCKED_INDEX, numbers_of_intent},
};
use ledger::State;
use queue::Queue;
use runtime::Config;
use serde::Serialize;
use storage::{Objects, Table};

#[derive(Args)]
pub struct Feeds {
    #[command(subcommand)]
    command: FeedsCommand,
}

#[derive(Subcommand)]
enum FeedsCommand {
    /// Count what came out, what waits, and what failed
    Status(Status),
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
struct Status {
    /// Print JSON: one object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "\
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
A message may be delivered twice when the connection breaks in between: that changes nothing.

Examples:
  alert-archive feeds replay-dlq --dry-run
  alert-archive feeds replay-dlq")]
struct ReplayDlq {
    /// Only list the messages
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
        let queue = config.required("ALERT_ARCHIVE_FEEDS_QUEUE_URL");
        let dead = config.required("ALERT_ARCHIVE_FEEDS_DLQ_URL");
        config.check().context("the partner feeds are not named; in a checkout, run: eval \"$(make -s env)\"")?;
        let aws = runtime::aws_config().await;
        Ok(Deployed {
            source,
            outputs,
            archive: Objects::new(&aws, archive),
            files: Table::new(&aws, files),
            batches: Table::new(&aws, batches),
            queue: Queue::new(&aws, queue),
            dead: Queue::new(&aws, dead),
        })
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

/// As `--json` prints it.
#[derive(Serialize)]
struct Report {
    /// Versions that were consolidated.
    objects: u64,
    records: u64,
    /// Of the output objects.
    bytes: u64,
    /// Lines.
    quarantined: u64,
    /// Versions that were left because their partner is blocked.
    blocked: u64,
    /// Messages in the queue, also those that a function has just taken.
    waiting: u64,
    /// Messages in the dead-letter queue.
    failed: u64,
    outputs: u64,
    /// How long the oldest file of the newest batch had waited when it came out, in seconds; null before there is one.
    lag_seconds: Option<i64>,
}

impl Status {
    async fn call(self, deployed: &Deployed) -> Result<bool> {
        let mut counts = Counts::default();
        let mut newest: Option<Batch> = None;
        let add = |batch: Batch| {
            let Some(plan) = batch.work.intent().filter(|_| batch.work.state() == State::Done) else { return };
            counts += plan.counts;
            if newest.as_ref().is_none_or(|newest| newest.work.updated_at() < batch.work.updated_at()) {
                newest = Some(batch);
            }
        };
        deployed.batches.for_each(add).await?;
        let lag = newest.and_then(|batch| Some((batch.work.updated_at(), batch.work.intent()?.oldest)));
        let partition = (BLOCKED_INDEX, BLOCKED_INDEX);
        let blocked = deployed.files.count(BLOCKED_INDEX, partition, "state", "Blocked").await?;
        let Counts { objects, records, bytes, outputs, quarantined } = counts;
        let report = Report {
            objects,
            records,
            bytes,
            quarantined,
            blocked,
            waiting: deployed.queue.depth().await?.total(),
            failed: deployed.dead.depth().await?.total(),
            outputs,
            lag_seconds: lag.map(|(done, oldest)| done.duration_since(oldest).as_secs().max(0)),
        };
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
            ("seconds waited, newest batch", report.lag_seconds.map_or("-".to_owned(), |seconds| seconds.to_string())),
        ] {
            grid.add_row([name.to_owned(), value]);
        }
        if let Some(column) = grid.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        say!("{grid}");
        if report.failed > 0 {
            say!("look at what failed with: alert-archive feeds replay-dlq --dry-run");
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
            _ => bail!("{} is neither in {} nor in {}", self.key, deployed.source, deployed.outputs),
        };
        let files = deployed.files.partition(key).await?;
        if !files.is_empty() {
            return self.file(deployed, files).await;
        }
        match number_of(key) {
            Some(number) => self.output(deployed, key, number).await,
            None => bail!("{key} is neither a partner's file that was delivered nor an output"),
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
                "  date {} (of the {}), {} records, {} lines in quarantine, {} blank lines",
                file.date,
                file.date_from,
                file.records,
                file.quarantined,
                file.blank
            );
            for TracedSpan { key, lines } in outputs.iter().chain(quarantine) {
                say!("  {lines:>8} lines in s3://{}/{key}", deployed.outputs);
            }
        }
        Ok(true)
    }

    async fn output(&self, deployed: &Deployed, key: &str, number: u64) -> Result<bool> {
        let keys = deployed.archive.list("feeds/intents/").await?;
        let holds =
            |key: &&String| numbers_of_intent(key).is_some_and(|(first, last)| first <= number && number <= last);
        let Some(found) = keys.iter().find(holds) else { bail!("{key} is not an output of these feeds") };
        let intent = intent(deployed, found).await?;
        let is_done =
            deployed.batches.get(&intent.batch, None).await?.is_some_and(|batch| batch.work.intent().is_some());
        let Some(output) = intent.outputs.iter().find(|output| output.key == key && is_done) else {
            bail!("{key} is not an output of these feeds");
        };
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
        let what = if key.starts_with(QUARANTINE) { "quarantined lines" } else { "records" };
        say!("{key}: {} {what}, {}, of batch {}", output.lines, reports::bytes(output.bytes), intent.batch);
        for TracedSource { object, version, lines } in sources {
            say!("  {lines:>8} lines of s3://{}/{object} in version {version}", deployed.source);
        }
        Ok(true)
    }
}

async fn intent(deployed: &Deployed, key: &str) -> Result<Intent> {
    let intents: Vec<Intent> = deployed.archive.get_lines(key).await?;
    intents.into_iter().next().with_context(|| format!("{key} holds no intent"))
}

fn lines_of(intent: &Intent, output: &Output, is_wanted: impl Fn(&str, &str) -> bool) -> u64 {
    let spans = output.spans.iter().filter(|span| {
        let part = &intent.parts[span.part];
        is_wanted(&part.object, &part.version)
    });
    spans.map(|span| span.lines).sum()
}

impl ReplayDlq {
    async fn call(self, deployed: &Deployed) -> Result<bool> {
        let mut objects = Vec::new();
        let mut count = 0u64;
        let mut look = |message: &queue::Message| {
            count += 1;
            objects.extend(objects_of(&message.body));
        };
        if self.dry_run {
            deployed.dead.peek(&mut look).await?;
        } else {
            deployed.dead.replay_to(&deployed.queue, &mut look).await?;
        }
        if self.json {
            let replayed = if self.dry_run { 0 } else { count };
            let report = serde_json::json!({"messages": count, "replayed": replayed, "dry_run": self.dry_run, "objects": objects});
            say!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(true);
        }
        for object in &objects {
            say!("{object}");
        }
        match self.dry_run {
            true => say!("{count} messages are in the dead-letter queue; without --dry-run they are delivered again"),
            false => say!("{count} messages are delivered again; follow them with: alert-archive feeds status"),
        }
        Ok(true)
    }
}

/// Keys that a message is about; a message that is not S3's has none.
fn objects_of(body: &str) -> Vec<String> {
    let events = events::s3::read(body.as_bytes()).unwrap_or_default();
    events.into_iter().flatten().map(|event| event.key).collect()
}
