//! Drains a window once into a compressed spool in S3: each message with what belongs to it, and an index
//! that already says what becomes of it. No other step reads the source.

mod spool_writer;

use alerts::{
    keys::{checkpoint_key, points_key, spool_prefix},
    message::{
        classification::{Disposition, Outcome, Reason, Rules, classify, quarantined},
        document,
        entry::Entry,
    },
    run::payloads::{NoProgress, WindowTask},
    window::{record::Begin, spool::Summary},
};
use archive::{JobRuns, WindowError, Windows};
use aws_config::SdkConfig;
use bytes::Bytes;
use errors::{Name, Named};
use jiff::Timestamp;
use runtime::{Call, Config, ConfigMissing, step_metrics};
use serde::{Deserialize, Serialize};
use sources::{Auth, Cursor, Document, Drain, Found, Indices, OpenSearch, Related, SourceError};
use spool_writer::SpoolWriter;
use std::time::{Duration, Instant};
use storage::{LedgerError, Objects, StoreError};

/// Messages whose history and audit are asked for at once.
const RELATED_BATCH: usize = 200;

pub struct Deps {
    url: String,
    auth: Auth,
    indices: Indices,
    aws: SdkConfig,
    objects: Objects,
    job_runs: JobRuns,
    windows: Windows,
    rules: Rules,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let defaults = Rules::default();
        let (open, closed) = (config.list("ALERT_ARCHIVE_OPEN_STATUSES"), config.list("ALERT_ARCHIVE_CLOSED_STATUSES"));
        let deps = Deps {
            url: config.required("OPENSEARCH_URL"),
            auth: config.parsed("ALERT_ARCHIVE_OPENSEARCH_AUTH", Auth::None),
            indices: Indices::from_env(&mut config),
            aws: aws.clone(),
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            windows: Windows::new(aws, config.required("ALERT_ARCHIVE_WINDOWS_TABLE")),
            rules: defaults.with(open, closed),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("the source counts {matched} documents in window {window_id}, but gave {seen}")]
    CountMismatch { window_id: String, matched: u64, seen: u64 },
    #[error(transparent)]
    NoProgress(#[from] NoProgress),
    #[error("the spool of window {window_id} cannot be compressed")]
    Compress { window_id: String, source: std::io::Error },
    #[error("continuation of window {window_id} names no attempt")]
    Attempt { window_id: String },
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Source(error) => error.name(),
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Window(error) => error.name(),
            Error::CountMismatch { .. } => Name::CountMismatch,
            Error::NoProgress(_) => Name::NoProgress,
            Error::Compress { .. } => Name::StoreUnavailable,
            Error::Attempt { .. } => Name::InvalidInput,
        }
    }
}

/// The checkpoint between two calls of one attempt.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    #[serde(flatten)]
    summary: Summary,
    cursor: Option<Cursor>,
}

pub async fn handle(deps: &Deps, mut task: WindowTask, call: Call) -> Result<WindowTask, Error> {
    let mut result = Box::pin(query(deps, &mut task, call)).await;
    if let Err(Error::Source(SourceError::PointInTimeExpired)) = result {
        // What was read belongs to a view of the source that is gone: a new attempt starts over, never splices.
        result = match still_ours(deps, &task).await {
            Ok(()) => {
                task.step_done();
                Box::pin(query(deps, &mut task, call)).await
            }
            Err(error) => Err(error),
        };
    }
    if let Err(error) = &result {
        deps.windows.note_failure(&task, error, Timestamp::now()).await;
    }
    result.map(|()| task)
}

/// A newer attempt closes the points in time of an older one, which must not take the window back for that.
async fn still_ours(deps: &Deps, task: &WindowTask) -> Result<(), Error> {
    let Some(attempt) = task.attempt else { return Ok(()) };
    let proceed = |record: &alerts::window::record::WindowRecord| record.proceed(attempt, "query-messages", Timestamp::now());
    deps.windows.change(&task.run_id, &task.window.window_id, proceed).await?;
    Ok(())
}

async fn query(deps: &Deps, task: &mut WindowTask, call: Call) -> Result<(), Error> {
    let now = call.now;
    let window_id = task.window.window_id.clone();
    let continued = task.more;
    let attempt = match continued {
        true => {
            let attempt = task.attempt.ok_or_else(|| Error::Attempt { window_id: window_id.clone() })?;
            deps.windows.change(&task.run_id, &window_id, |record| record.proceed(attempt, "query-messages", now)).await?;
            attempt
        }
        false => {
            let mut begin = Begin::Query { attempt: 0 };
            let decide = |record: &alerts::window::record::WindowRecord| {
                let (next, what) = record.begin("query-messages", now);
                begin = what;
                Ok(next)
            };
            deps.windows.change(&task.run_id, &window_id, decide).await?;
            match begin {
                Begin::Query { attempt } => attempt,
                // Only the write is left, or nothing at all.
                Begin::Finish { attempt } | Begin::Nothing { attempt } => {
                    task.attempt = Some(attempt);
                    task.step_done();
                    return Ok(());
                }
            }
        }
    };
    task.attempt = Some(attempt);
    let run_id = task.run_id.clone();
    deps.windows.hold(&run_id, &window_id, attempt, Box::pin(drain(deps, task, attempt, call))).await
}

/// One call's share of the window, as the attempt that owns it.
async fn drain(deps: &Deps, task: &mut WindowTask, attempt: u64, call: Call) -> Result<(), Error> {
    let window_id = task.window.window_id.clone();
    let continued = task.more;
    let prefix = spool_prefix(&task.run_id, &window_id, attempt);
    let source = OpenSearch::connect(&deps.url, deps.auth, &deps.aws, deps.indices.clone())?;
    let (cursor, summary) = match continued {
        true => {
            let checkpoint: Checkpoint = deps.objects.get_json(&checkpoint_key(&prefix)).await?;
            (Some(checkpoint.cursor.ok_or(SourceError::PointInTimeExpired)?), checkpoint.summary)
        }
        false => (None, Summary::default()),
    };
    let points_key = points_key(&task.run_id, &window_id);
    if continued || attempt > 1 {
        close_what_was_left(deps, &source, &points_key, cursor.as_ref()).await?;
    }
    let messages = async {
        match cursor {
            Some(cursor) => Ok(Drain::resume(&source, &task.window, cursor)),
            None => Drain::open(&source, &task.window).await,
        }
    };
    let (history, audit) = (Related::open(&source, &source.indices.history), Related::open(&source, &source.indices.audit));
    let (mut drain, history, audit) = tokio::try_join!(messages, history, audit)?;
    // Before anything else: what is not noted here stays open when this call is killed.
    deps.objects.put_json(&points_key, &[drain.cursor().point_in_time(), history.point_in_time(), audit.point_in_time()]).await?;
    if !continued {
        drain.count().await?;
        drain.leave_out(&deps.job_runs.unresolved().await?.ordered()).await?;
    }
    let before = summary.documents + summary.foreign;
    let mut run =
        Run { deps, task, drain, history, audit, writer: SpoolWriter::new(deps.objects.clone(), prefix.clone(), summary), waited: Duration::ZERO };
    let finished = run.drain(call).await?;
    let Run { drain, history, audit, writer, waited, .. } = run;
    let cursor = drain.cursor().clone();
    let (mut summary, spooled) = writer.finish().await.map_err(|error| error.of(&window_id))?;
    history.close().await;
    audit.close().await;
    if finished {
        drain.close().await;
        if cursor.seen != cursor.matched {
            return Err(Error::CountMismatch { window_id, matched: cursor.matched, seen: cursor.seen });
        }
        summary.done = true;
        task.step_done();
    } else {
        task.call_again("query-messages", summary.documents + summary.foreign > before)?;
        drain.leave().await?;
    }
    let (documents, bytes) = (summary.documents, summary.bytes);
    let checkpoint = Checkpoint { summary, cursor: (!finished).then_some(cursor) };
    deps.objects.put_json(&checkpoint_key(&prefix), &checkpoint).await?;
    let figures = [("Documents", documents), ("SourceBytes", bytes), ("SpoolBytes", spooled), ("SourceWaitMillis", waited.as_millis() as u64)];
    step_metrics("query-messages", &task.run_id, &window_id, call.took(), &figures);
    Ok(())
}

/// Closes the points in time of an earlier call, except that from which this one goes on.
async fn close_what_was_left(deps: &Deps, source: &OpenSearch, points_key: &str, cursor: Option<&Cursor>) -> Result<(), StoreError> {
    let mut left: Vec<String> = match deps.objects.get_json(points_key).await {
        Ok(left) => left,
        Err(StoreError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    left.retain(|id| cursor.is_none_or(|cursor| cursor.point_in_time() != id));
    source.close_points_in_time(&left).await;
    Ok(())
}

struct Run<'a> {
    deps: &'a Deps,
    task: &'a WindowTask,
    drain: Drain,
    history: Related,
    audit: Related,
    writer: SpoolWriter,
    /// Time in which the function only waited for the source.
    waited: Duration,
}

impl Run<'_> {
    /// `true` at the end of the window; `false` when the call ends first.
    async fn drain(&mut self, call: Call) -> Result<bool, Error> {
        // What is wrong with these nobody knows: their bytes are kept, and nothing of them is read.
        while let Some(document) = self.drain.next_left_out().await? {
            if !self.task.window.contains(document.at) {
                self.writer.skip(1);
                continue;
            }
            let entry = entry(&document, quarantined(Reason::ByOperator));
            self.push(entry, &document.hit.source, &[], &[]).await?;
        }
        loop {
            let asked = Instant::now();
            let page = self.drain.next_page().await?;
            self.waited += asked.elapsed();
            if page.is_empty() {
                return Ok(true);
            }
            for batch in page.chunks(RELATED_BATCH) {
                self.batch(batch).await?;
            }
            if call.is_ending() {
                return Ok(false);
            }
        }
    }

    async fn batch(&mut self, documents: &[Document]) -> Result<(), Error> {
        let (own, foreign): (Vec<_>, Vec<_>) = documents.iter().partition(|document| self.task.window.contains(document.at));
        self.writer.skip(foreign.len() as u64);
        let mut outcomes: Vec<_> = own.iter().map(|document| classify(&self.deps.rules, &document.hit.id, &document.hit.source)).collect();
        let closed = own.iter().zip(&outcomes).filter(|(_, outcome)| outcome.disposition == Disposition::Closed);
        let ids: Vec<&str> = closed.map(|(document, _)| document.hit.id.as_str()).collect();
        let asked = Instant::now();
        let (history, audit) = tokio::try_join!(self.history.of(&ids), self.audit.of(&ids))?;
        self.waited += asked.elapsed();
        let none = Vec::new();
        for (document, outcome) in own.into_iter().zip(&mut outcomes) {
            let hit = &document.hit;
            let of = |found: &Found| found.unreadable.contains(&hit.id);
            if outcome.disposition == Disposition::Closed && (of(&history) || of(&audit)) {
                *outcome = quarantined(Reason::UnreadableHistory);
            }
            let archived = outcome.disposition == Disposition::Closed;
            let bodies = |found: &'_ Found| if archived { found.bodies.get(&hit.id).unwrap_or(&none).clone() } else { Vec::new() };
            self.push(entry(document, outcome.clone()), &hit.source, &bodies(&history), &bodies(&audit)).await?;
        }
        Ok(())
    }

    async fn push(&mut self, entry: Entry, source: &[u8], history: &[Bytes], audit: &[Bytes]) -> Result<(), Error> {
        self.writer.push(entry, source, history, audit).await.map_err(|error| error.of(&self.task.window.window_id))
    }
}

fn entry(document: &Document, outcome: Outcome) -> Entry {
    let hit = &document.hit;
    Entry {
        index: hit.index.clone(),
        id: hit.id.clone(),
        at: document.at,
        version: document::version(&hit.source),
        bytes: hit.source.len() as u64,
        outcome,
    }
}
