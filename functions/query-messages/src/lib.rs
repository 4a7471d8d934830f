//! Drains a window once into a compressed spool in S3: each message with what belongs to it, and an index
//! that already says what becomes of it. No other step reads the source.

mod reading;
mod spool_writer;
mod wait;

use alerts::{
    keys::{checkpoint_key, points_key, spool_prefix},
    message::{
        classification::{Disposition, Outcome, Reason, Rules, classify, quarantined},
        document,
        entry::Entry,
        tracking::OPENED_WITHIN,
    },
    run::{
        job_run::RunStatus,
        payloads::{NoProgress, WindowTask},
    },
    source::Source,
    window::{plan::Window, record::Begin, spool::SpoolSummary},
};
use archive::{JobRuns, WindowError, Windows};
use aws_config::SdkConfig;
use bytes::Bytes;
use errors::{Name, Named};
use identity::Identity;
use jiff::Timestamp;
use reading::{Reading, ReadingPosition};
use runtime::{Call, Config, ConfigMissing, step_metrics};
use serde::{Deserialize, Serialize};
use sources::{Defect, Document, OpenSearch, Related, RelatedBodies, SourceError, Sources, api::SharedPace};
use spool_writer::SpoolWriter;
use std::collections::HashSet;
use std::time::Duration;
use storage::{LedgerError, Objects, StoreError};

pub struct Deps {
    pub sources: Sources,
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub windows: Windows,
    pub rules: Rules,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let defaults = Rules::default();
        let (open, closed) = (config.list("ALERT_ARCHIVE_OPEN_STATUSES"), config.list("ALERT_ARCHIVE_CLOSED_STATUSES"));
        let job_runs = config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE");
        let pace = |per_second| SharedPace::boxed(aws, job_runs.clone(), per_second);
        let deps = Deps {
            sources: Sources::from_env(&mut config, aws, pace),
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, job_runs.clone()),
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
    #[error("run {run_id} is at work in another execution, {execution}; that one reads its windows")]
    RangeBusy { run_id: String, execution: String },
    #[error(transparent)]
    NoProgress(#[from] NoProgress),
    #[error("the spool of window {window_id} cannot be compressed")]
    Compress { window_id: String, source: std::io::Error },
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Source(error) => error.name(),
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Window(error) => error.name(),
            Error::CountMismatch { .. } => Name::CountMismatch,
            Error::RangeBusy { .. } => Name::RangeBusy,
            Error::NoProgress(_) => Name::NoProgress,
            Error::Compress { .. } => Name::CompressionFailed,
        }
    }
}

/// The checkpoint between two calls of one attempt.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    #[serde(flatten)]
    summary: SpoolSummary,
    cursor: Option<ReadingPosition>,
}

const STEP: &str = "query-messages";

pub async fn handle(deps: &Deps, mut task: WindowTask, call: Call) -> Result<WindowTask, Error> {
    refuse_beside_another(deps, &task).await?;
    let mut result = Box::pin(query(deps, &mut task, &call)).await;
    let mut again = 0;
    while result.as_ref().is_err_and(|error| again < reading::worth_again(error)) {
        again += 1;
        // What was read belongs to a view of the source that is gone: a new attempt starts over, never splices.
        // Where a newer attempt closed the points in time of this one, the window is no longer its own.
        result = match deps.windows.proceed(STEP, &task, &call).await {
            Ok(_) => {
                task.step_done();
                Box::pin(query(deps, &mut task, &call)).await
            }
            Err(error) => Err(error.into()),
        };
    }
    if let Err(error) = &result {
        deps.windows.note_failure(&task, error, call.now()).await;
        wait::note(deps, &task, error, call.now()).await?;
    }
    result.map(|()| task)
}

/// Another execution is at work on the run (a failed-only, where this one was redriven meanwhile): a window that this one
/// began would fail there, and be told as failed by the only report that counts. So the window's row stays as it is.
async fn refuse_beside_another(deps: &Deps, task: &WindowTask) -> Result<(), Error> {
    let Some(own) = task.execution_arn.as_ref().filter(|_| !task.more) else { return Ok(()) };
    match deps.job_runs.get(&task.run_id).await? {
        Some(run) if run.status == RunStatus::Running && run.execution_arn != *own => {
            Err(Error::RangeBusy { run_id: run.run_id, execution: run.execution_arn })
        }
        _ => Ok(()),
    }
}

async fn query(deps: &Deps, task: &mut WindowTask, call: &Call) -> Result<(), Error> {
    let (run_id, window_id) = (task.run_id.clone(), task.window.window_id.clone());
    let attempt = if task.more {
        deps.windows.proceed(STEP, task, call).await?.fence.attempt
    } else {
        match deps.windows.begin(STEP, task, call).await? {
            Begin::Query { attempt } => attempt,
            // Only the write is left, or nothing at all.
            Begin::Finish { attempt } | Begin::Nothing { attempt } => {
                task.attempt = Some(attempt);
                task.step_done();
                return Ok(());
            }
        }
    };
    task.attempt = Some(attempt);
    deps.windows.hold(call, &run_id, &window_id, attempt, Box::pin(drain(deps, task, attempt, call))).await
}

/// One call's share of the window, as the attempt that owns it.
async fn drain(deps: &Deps, task: &mut WindowTask, attempt: u64, call: &Call) -> Result<(), Error> {
    let window_id = task.window.window_id.clone();
    let continued = task.more;
    let prefix = spool_prefix(&task.run_id, &window_id, attempt);
    if task.window.source == Source::Api {
        wait::check(deps, task, call.now()).await?;
    }
    let opensearch = deps.sources.opensearch();
    let (position, mut summary) = if continued {
        let checkpoint: Checkpoint = deps.objects.get_json(&checkpoint_key(&prefix)).await?;
        (Some(checkpoint.cursor.ok_or(SourceError::PointInTimeExpired)?), checkpoint.summary)
    } else {
        (None, SpoolSummary { had_api: deps.job_runs.uses_api().await?, ..SpoolSummary::default() })
    };
    let points_key = points_key(&task.run_id, &window_id);
    if let Some(opensearch) = opensearch.filter(|_| continued || attempt > 1) {
        close_what_was_left(deps, opensearch, &points_key, position.as_ref()).await?;
    }
    // The messages first: what was written about a message before it was seen as it is, is then seen too.
    let mut reading = if continued {
        Reading::open(deps, opensearch, &task.window, position, call).await?
    } else {
        let (reading, seen_at) = begin_reading(deps, opensearch, &task.window, call).await?;
        summary.seen_at = seen_at;
        reading
    };
    // Before anything else: what is not noted here stays open when this call is killed.
    let points: Vec<String> = reading.position().point_in_time().map(str::to_owned).into_iter().collect();
    deps.objects.put_json(&points_key, &points).await?;
    if task.window.is_index_gone && !continued {
        // Behind the reading: whatever index it sees that is gone by now has given its messages away.
        summary.present = Some(match opensearch {
            Some(source) => source.writes(&source.indices.messages).await?.into_iter().map(|one| one.index).collect(),
            None => Vec::new(),
        });
    }
    let trail = match opensearch {
        Some(source) => {
            let (history, audit) =
                (Related::open(source, &source.indices.history), Related::open(source, &source.indices.audit));
            let (history, audit) = tokio::try_join!(history, audit)?;
            Some(Trail { history, audit })
        }
        None => None,
    };
    let mut excluded = HashSet::new();
    if !continued || matches!(reading, Reading::Api(_)) {
        excluded = deps.job_runs.unresolved().await?.excluded_from(&task.run_id);
    }
    if let Reading::OpenSearch(drain) = &mut reading
        && !continued
    {
        drain.count().await?;
        drain.exclude(&excluded).await?;
    }
    let before = summary.documents + summary.foreign;
    let writer = SpoolWriter::new(deps.objects.clone(), prefix.clone(), summary);
    let mut draining = Draining { deps, task, reading, trail, excluded, writer, waited: Duration::ZERO };
    let drained = alive(opensearch, &points, call, draining.drain(call)).await;
    let Draining { reading, writer, waited, .. } = draining;
    let finished = match drained {
        Ok(finished) => finished,
        Err(error) => {
            writer.leave().await;
            return Err(error);
        }
    };
    let position = reading.position();
    let (mut summary, spooled) = writer.finish().await.map_err(|error| error.of(&window_id))?;
    if finished {
        reading.finish(&task.window).await?;
        summary.done = true;
        task.step_done();
    } else {
        task.call_again(STEP, summary.documents + summary.foreign > before)?;
        reading.leave().await?;
    }
    let (documents, bytes) = (summary.documents, summary.bytes);
    let checkpoint = Checkpoint { summary, cursor: (!finished).then_some(position) };
    deps.objects.put_json(&checkpoint_key(&prefix), &checkpoint).await?;
    let figures = [
        ("Documents", documents),
        ("SourceBytes", bytes),
        ("SpoolBytes", spooled),
        ("SourceWaitMillis", waited.as_millis() as u64),
    ];
    step_metrics(STEP, &task.run_id, &window_id, call.took(), &figures);
    Ok(())
}

/// A reading, and the time before it was opened. One that was held up in between is of no use: another run may have read
/// and archived meanwhile what is then older than this reading, and dated later.
async fn begin_reading(
    deps: &Deps,
    opensearch: Option<&OpenSearch>,
    window: &Window,
    call: &Call,
) -> Result<(Reading, Timestamp), SourceError> {
    let seen_at = call.now();
    let reading = Reading::open(deps, opensearch, window, None, call).await?;
    if call.now().duration_since(seen_at) <= OPENED_WITHIN {
        return Ok((reading, seen_at));
    }
    reading.close().await;
    Err(SourceError::PointInTimeExpired)
}

/// Does the work, and renews points in time meanwhile: one page's history may take longer than they live.
async fn alive<T>(
    source: Option<&OpenSearch>,
    points: &[String],
    call: &Call,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(source) = source.filter(|_| !points.is_empty()) else { return work.await };
    let renew = async {
        loop {
            call.sleep(sources::RENEWED_EVERY).await;
            if let Err(error) = source.renew_points_in_time(points).await {
                // The work will meet the same trouble, and knows what to do about it.
                tracing::warn!(error = errors::describe(&error), "a point in time could not be renewed");
            }
        }
    };
    tokio::select! {
        // In this order, so that a simulated history can be repeated.
        biased;
        done = work => done,
        never = renew => never,
    }
}

/// Closes the points in time of an earlier call, except that from which this one goes on.
async fn close_what_was_left(
    deps: &Deps,
    source: &OpenSearch,
    points_key: &str,
    position: Option<&ReadingPosition>,
) -> Result<(), StoreError> {
    let mut left: Vec<String> = match deps.objects.get_json(points_key).await {
        Ok(left) => left,
        Err(StoreError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let kept = position.and_then(ReadingPosition::point_in_time);
    left.retain(|id| kept != Some(id.as_str()));
    source.close_points_in_time(&left).await;
    Ok(())
}

/// What belongs to messages. It is always read from OpenSearch.
struct Trail {
    history: Related,
    audit: Related,
}

/// A document and what becomes of it.
struct Judged<'a> {
    document: &'a Document,
    outcome: Outcome,
}

impl Judged<'_> {
    fn is_closed(&self) -> bool {
        self.outcome.disposition == Disposition::Closed
    }
}

struct Draining<'a> {
    deps: &'a Deps,
    task: &'a WindowTask,
    reading: Reading,
    /// None where the API is the only source.
    trail: Option<Trail>,
    /// Documents excluded by an operator that a page of the API may hold all the same.
    excluded: HashSet<Identity>,
    writer: SpoolWriter,
    /// Time in which the function only waited for the source.
    waited: Duration,
}

impl Draining<'_> {
    /// `true` at the end of the window; `false` when the call ends first.
    async fn drain(&mut self, call: &Call) -> Result<bool, Error> {
        while let Reading::OpenSearch(drain) = &mut self.reading {
            // An operator excluded these: their bytes are kept, and nothing of them is read.
            let Some(document) = drain.next_excluded().await? else { break };
            if !self.task.window.contains(document.at) {
                self.writer.skip(1);
                continue;
            }
            let entry = self.entry(&document, quarantined(Reason::ByOperator));
            self.push(entry, &document.hit.source, &[], &[]).await?;
        }
        let mut has_read = false;
        loop {
            let asked = call.took();
            let page = match self.reading.next_page().await {
                // What came before is kept, and the next call has time for it.
                Err(error) if has_read && reading::is_out_of_time(&error, call) => return Ok(false),
                page => page?,
            };
            self.waited += call.took() - asked;
            if page.is_empty() {
                return Ok(true);
            }
            self.page(&page, call).await?;
            has_read = true;
            if call.is_ending() {
                return Ok(false);
            }
        }
    }

    async fn page(&mut self, documents: &[Document], call: &Call) -> Result<(), Error> {
        // An index gives a document for each of its instants, and the earliest owns it. What the API lists in a window
        // belongs to it: no other window need have it.
        let is_own =
            |document: &&Document| matches!(self.reading, Reading::Api(_)) || self.task.window.contains(document.at);
        let (own, foreign): (Vec<_>, Vec<_>) = documents.iter().partition(is_own);
        self.writer.skip(foreign.len() as u64);
        let judged: Vec<Judged> =
            own.into_iter().map(|document| Judged { document, outcome: self.judge(document) }).collect();
        let mut left = judged.as_slice();
        while !left.is_empty() {
            let done = self.batch(left, call).await?;
            left = &left[done..];
        }
        Ok(())
    }

    /// Spools the first of these documents with what belongs to them, as many as can be held at once; returns how many.
    async fn batch(&mut self, judged: &[Judged<'_>], call: &Call) -> Result<usize, Error> {
        let closed = judged.iter().filter(|judged| judged.is_closed());
        let ids: Vec<&str> = closed.map(|judged| judged.document.hit.id.as_str()).collect();
        let asked = call.took();
        let (mut history, mut audit) = (RelatedBodies::default(), RelatedBodies::default());
        let mut known = ids.len();
        if let Some(trail) = self.trail.as_mut().filter(|_| !ids.is_empty()) {
            (history, audit) = tokio::try_join!(trail.history.of(&ids), trail.audit.of(&ids))?;
            known = history.messages.min(audit.messages);
        }
        self.waited += call.took() - asked;
        let mut done = 0;
        for judged in judged {
            if judged.is_closed() {
                if known == 0 {
                    break;
                }
                known -= 1;
            }
            self.spool(judged, &history, &audit).await?;
            done += 1;
        }
        Ok(done)
    }

    async fn spool(
        &mut self,
        Judged { document, outcome }: &Judged<'_>,
        history: &RelatedBodies,
        audit: &RelatedBodies,
    ) -> Result<(), Error> {
        let hit = &document.hit;
        let mut outcome = outcome.clone();
        if outcome.disposition == Disposition::Closed {
            if [history, audit].iter().any(|found| found.unreadable.contains(&hit.id)) {
                outcome = quarantined(Reason::UnreadableHistory);
            } else if [history, audit].iter().any(|found| found.too_large.contains(&hit.id)) {
                outcome = quarantined(Reason::HistoryTooLarge);
            }
        }
        if outcome.disposition != Disposition::Closed {
            return self.push(self.entry(document, outcome), &hit.source, &[], &[]).await;
        }
        let of = |found: &RelatedBodies| found.bodies.get(&hit.id).cloned().unwrap_or_default();
        let (history, audit) = (of(history), of(audit));
        let mut entry = self.entry(document, outcome);
        if self.trail.is_some() {
            entry.related = document::related(&history, &audit);
            entry.related_bytes = history.iter().chain(&audit).map(|body| body.len() as u64).sum();
        }
        self.push(entry, &hit.source, &history, &audit).await
    }

    fn judge(&self, document: &Document) -> Outcome {
        let hit = &document.hit;
        if self.excluded.contains(&hit.identity()) {
            return quarantined(Reason::ByOperator);
        }
        let outcome = classify(&self.deps.rules, &hit.id, &hit.source);
        match document.defect {
            None => outcome,
            // Also when it is open: it cannot be looked at again by its id.
            Some(Defect::SeveralByRouting) => quarantined(Reason::SeveralByRouting),
            // An index can be asked for it by its name once more.
            Some(Defect::NoUsableTimestamp)
                if outcome.disposition == Disposition::Open && self.task.window.source == Source::Opensearch =>
            {
                outcome
            }
            // What its content says is the better reason, but it can neither be held over nor dated.
            Some(_) if outcome.disposition == Disposition::Quarantined => outcome,
            Some(Defect::NoUsableId) => quarantined(Reason::MessageIdUnusable),
            Some(Defect::NoUsableTimestamp) => quarantined(Reason::TimestampUnusable),
        }
    }

    fn entry(&self, document: &Document, outcome: Outcome) -> Entry {
        let hit = &document.hit;
        Entry {
            index: hit.index.clone(),
            id: hit.id.clone(),
            at: document.at,
            version: document::version(&hit.source),
            related: String::new(),
            related_bytes: 0,
            bytes: hit.source.len() as u64,
            source: self.task.window.source,
            written: hit.written,
            outcome,
        }
    }

    async fn push(&mut self, entry: Entry, source: &[u8], history: &[Bytes], audit: &[Bytes]) -> Result<(), Error> {
        self.writer.push(entry, source, history, audit).await.map_err(|error| error.of(&self.task.window.window_id))
    }
}
