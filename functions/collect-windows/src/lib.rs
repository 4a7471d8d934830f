//! Holds what was planned against what is committed, and writes the run's report.

mod overview;
mod own;
mod reopened;
mod totals;

use alerts::{
    counts::{Bytes, Messages},
    keys::{ids_key, looked_at_key, plan_key, run_prefix, spool_prefix},
    message::tracking::{self, Row},
    mode::Mode,
    run::{
        grid::{Cell, CellState, Grid},
        job_run::RunStatus,
        looked_at::{Gone, ListedWindow, LookedAt},
        overview::{Extent, span_of},
        payloads::{CollectRequest, Collected, Version},
        report::{
            Before, Details, Failure, GONE_SHOWN, OLDEST_SHOWN, OpenMessage, Recheck, RunReport, Sweep,
            Windows as WindowCounts,
        },
        span::Span,
    },
    source::Source,
    window::{
        plan::{ListUnreadable, Purpose, Window, read_list, write_list},
        record::{State, WindowRecord},
        spool::id_hash,
    },
};
use archive::{JobRuns, QuarantineError, Tracking, Windows};
use aws_config::SdkConfig;
use errors::{Name, Named};
use futures::{StreamExt, TryStreamExt, stream};
use identity::instant;
use jiff::Timestamp;
use overview::{Around, around};
use own::Own;
use runtime::{Call, Config, ConfigMissing, step_metrics};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use storage::{Change, LedgerError, Objects, StoreError};
use workflow::{StepFunctions, Workflow, WorkflowError};

pub struct Deps {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub windows: Windows,
    pub ledger: Tracking,
    pub workflow: Arc<dyn Workflow>,
    /// USD for a GB and month in the source, where the deployment knows.
    pub source_gb_month: Option<f64>,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            windows: Windows::new(aws, config.required("ALERT_ARCHIVE_WINDOWS_TABLE")),
            ledger: Tracking::new(aws, config.required("ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE")),
            workflow: StepFunctions::shared(aws),
            source_gb_month: config.parsed_if_set("ALERT_ARCHIVE_SOURCE_GB_MONTH"),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("run {run_id} is not in job-runs")]
    PlanMissing { run_id: String },
    #[error("run {run_id} is at work in another execution, {execution}; that one will report it")]
    RangeBusy { run_id: String, execution: String },
    #[error("the execution of run {run_id} has died, and this call of it comes too late to report")]
    Ended { run_id: String },
    #[error("{key} is damaged")]
    PlanUnreadable { key: String, source: ListUnreadable },
    #[error("the windows that failed cannot be listed")]
    Unlisted { source: serde_json::Error },
    #[error("other runs keep writing {key}: it could not be brought up to date")]
    ListContended { key: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error(transparent)]
    Workflow(#[from] WorkflowError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::PlanMissing { .. } => Name::PlanMissing,
            Error::RangeBusy { .. } | Error::Ended { .. } => Name::RangeBusy,
            Error::PlanUnreadable { .. } | Error::Unlisted { .. } => Name::ObjectCorrupt,
            Error::ListContended { .. } => Name::StoreUnavailable,
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Quarantine(error) => error.name(),
            Error::Workflow(error) => error.name(),
        }
    }
}

pub async fn handle(deps: &Deps, request: CollectRequest, call: Call) -> Result<Collected, Error> {
    let (run_id, now) = (&request.run_id, call.now());
    let report_key = format!("{}/report.json", run_prefix(run_id));
    let Some((run, own)) = Own::account_for(deps, &request, now).await? else {
        // Another execution has completed the run: its report stands, and is told again.
        return completed_before(deps, &request, report_key).await;
    };
    // Before the report is made: a redrive that comes later than this is seen by the gate.
    let execution = deps.workflow.describe(&request.execution_arn).await?;
    if run.error.is_some() && !execution.running {
        return Err(Error::Ended { run_id: run_id.clone() });
    }
    let reported_at = execution.redrives;
    let planned = read_plan(deps, run_id).await?;
    let records = deps.windows.rows.partition(run_id).await?;
    let unresolved = deps.job_runs.change_unresolved(|register| Some(register.after(&run, &records))).await?.items;
    let records: HashMap<String, WindowRecord> =
        records.into_iter().map(|record| (record.window_id.clone(), record)).collect();

    let mut messages = Messages::default();
    let mut bytes = Bytes::default();
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let mut by_purpose: HashMap<Purpose, Messages> = HashMap::new();
    let (mut done, mut failures, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut skipped, mut set_aside_messages, mut moved) = (0, 0, 0);
    let mut grid = Grid::new();
    for window in planned.iter() {
        moved += records.get(&window.window_id).map_or(0, |record| record.moved);
        match records.get(&window.window_id) {
            Some(record) if is_done(record, request.mode) => {
                messages += record.messages;
                bytes += record.bytes;
                *by_purpose.entry(window.purpose).or_default() += of_its_messages(record);
                grid.push(Cell::new(window, Some(record), CellState::Done, None));
                done.push(record);
                for (reason, count) in &record.reasons {
                    *reasons.entry(reason.clone()).or_default() += count;
                }
            }
            // Skipped by an operator: reported each time, but no reason to fail the run.
            Some(record) if record.status == State::Skipped => {
                skipped += 1;
                set_aside_messages += window.expected;
                let failure = failure(window, Some(record));
                grid.push(Cell::new(window, Some(record), CellState::SetAside, Some(&failure)));
                failures.push(failure);
            }
            record => {
                let failure = failure(window, record);
                grid.push(Cell::new(window, record, CellState::Failed, Some(&failure)));
                failures.push(failure);
                failed.push(window.clone());
            }
        }
    }
    let mut looked_at: LookedAt = deps.objects.find_json(&looked_at_key(run_id)).await?.unwrap_or_default();
    let not_listed = not_listed(deps, run_id, &looked_at.listed, &done).await?;
    looked_at.gone.extend(not_listed);
    let gone = looked_at.gone.iter().take(GONE_SHOWN).map(gone_message).collect();
    let (backlog, oldest_open) = open_messages(deps, &looked_at.gone).await?;
    // Those that are gone leave the staging area once the report that names them is written.
    let backlog = backlog.saturating_sub(still_staged(deps, &looked_at.gone).await?);
    let reopened = reopened::list(deps, &looked_at.gone, now).await?;
    let mut quarantine_reasons: Vec<_> = reasons.into_iter().collect();
    quarantine_reasons.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(&right.0)));
    // An extraction archives nothing yet; what it staged is reconciled when it is written.
    let reconciled = failures.is_empty() && (messages.reconciled() || request.mode == Mode::Extract);
    let of = |purpose| by_purpose.get(&purpose).copied().unwrap_or_default();
    let mut report = RunReport {
        run_id: run_id.clone(),
        mode: request.mode.as_str().to_owned(),
        from: run.from,
        to: run.to,
        status: if failed.is_empty() { RunStatus::Completed } else { RunStatus::Failed },
        attempt: run.attempt,
        windows: WindowCounts {
            planned: planned.len() as u64,
            succeeded: (planned.len() - failed.len()) as u64 - skipped,
            failed: failed.len() as u64,
        },
        messages,
        recheck: recheck(&looked_at, of(Purpose::Recheck)),
        sweep: Sweep {
            moved: looked_at.moved + moved,
            left: looked_at.writes_left,
            ..sweep(of(Purpose::Late), of(Purpose::Changed))
        },
        collisions: collisions(deps, run_id, &done).await?,
        undated: run.undated,
        absent: run.absent.clone(),
        backlog,
        reopened,
        bytes,
        reconciled,
        failures,
        unresolved,
        left: run.left,
        started_at: Some(instant::iso(run.created_at)),
        reported_at: Some(instant::iso(now)),
    };
    let Around { overview, before } = around(deps, &report, oldest_open.clone(), now).await?;
    for failure in &mut report.failures {
        failure.by_other_runs = by_other_runs(failure, &planned, &overview.covered);
    }
    let failed_here = Before {
        run_id: run_id.clone(),
        failed_windows: report.windows.failed,
        failed_messages: failed.iter().map(|window| window.expected).sum(),
        set_aside_windows: skipped,
        set_aside_messages,
        ..Before::default()
    };
    let details = Details {
        oldest_open,
        quarantine_reasons,
        gone,
        overview: Some(overview),
        before,
        execution_arn: request.execution_arn.clone(),
        attempt: run.attempt,
        failed: failed_here,
    };
    // First: what stood before is read from here, and a report that is made again must find it.
    own.put(own::DETAILS, &details).await?;
    own.put(own::GRID, &grid).await?;
    own.put(own::REPORT, &report).await?;
    mark_gone(deps, &looked_at.gone, now).await?;
    let lines = write_list(&failed).map_err(|source| Error::Unlisted { source })?;
    // Named after what it lists: a call that comes late must not change the list under the Map that reads it.
    let (attempt, hash) = (run.attempt, &storage::sha256_hex(&lines)[..16]);
    let windows_key = format!("{}/windows-failed-{attempt}-{hash}.jsonl", run_prefix(run_id));
    deps.objects.put(&windows_key, lines, "application/jsonl").await?;
    let counted = own.change(|row| {
        row.counts = messages;
        // Redriven after its death, it has come as far as its report: the death is history.
        if row.status == RunStatus::Failed {
            row.status = RunStatus::Running;
            (row.error, row.message) = (None, None);
        }
        row.updated_at = now;
    });
    counted.await?;
    let figures = [
        ("Windows", planned.len() as u64),
        ("FailedWindows", failed.len() as u64),
        ("Archived", messages.archived),
        ("Backlog", backlog),
        ("Reopened", reopened),
    ];
    step_metrics("collect-windows", run_id, "", call.took(), &figures);
    Ok(Collected {
        v: Version,
        run_id: run_id.clone(),
        mode: request.mode,
        execution_arn: request.execution_arn.clone(),
        bucket: request.bucket.clone(),
        report_key,
        failed: failed.len() as u64,
        windows: failed.len() as u64,
        windows_key,
        reported_at,
        attempt: Some(run.attempt),
    })
}

/// What stands in the report of a run that another execution has completed.
async fn completed_before(deps: &Deps, request: &CollectRequest, report_key: String) -> Result<Collected, Error> {
    let report: RunReport = deps.objects.get_json(&report_key).await?;
    let CollectRequest { v, run_id, mode, execution_arn, bucket, windows_key } = request.clone();
    let reported_at = deps.workflow.describe(&execution_arn).await?.redrives;
    let attempt = Some(report.attempt);
    let (failed, windows) = (0, 0);
    Ok(Collected {
        v,
        run_id,
        mode,
        execution_arn,
        bucket,
        report_key,
        failed,
        windows,
        windows_key,
        reported_at,
        attempt,
    })
}

fn recheck(looked_at: &LookedAt, read: Messages) -> Recheck {
    let (gone, closed) = (looked_at.gone.len() as u64, read.archived + read.already_archived);
    // Of those that no window read, nothing new is known: they are open.
    let open = looked_at.held_over.saturating_sub(gone + closed + read.quarantined);
    Recheck { looked_at: looked_at.held_over, closed, open, gone, quarantined: read.quarantined, read: read.source }
}

/// Held-over messages that the API no longer lists at their instant.
async fn not_listed(
    deps: &Deps,
    run_id: &str,
    listed: &[ListedWindow],
    done: &[&WindowRecord],
) -> Result<Vec<Gone>, Error> {
    let mut gone = Vec::new();
    for ListedWindow { window_id, messages } in listed {
        let Some(record) = done.iter().find(|record| record.window_id == *window_id) else { continue };
        let key = ids_key(&spool_prefix(run_id, window_id, record.fence.attempt));
        // A spool that has expired says nothing.
        let Some(ids) = deps.objects.find(&key).await? else { continue };
        let (ids, _) = ids.as_chunks::<8>();
        let is_absent = |message: &&Gone| !ids.contains(&id_hash(&message.document.id).to_le_bytes());
        gone.extend(messages.iter().filter(is_absent).cloned());
    }
    Ok(gone)
}

/// What a window says of the messages that it was planned for: an instant of the API has others too, archived before.
fn of_its_messages(record: &WindowRecord) -> Messages {
    let has_others = record.window.source == Source::Api && record.window.purpose == Purpose::Recheck;
    let already_archived = if has_others { 0 } else { record.messages.already_archived };
    Messages { already_archived, ..record.messages }
}

/// What was archived already in that very version is neither late nor changed.
fn sweep(late: Messages, changed: Messages) -> Sweep {
    let new = |messages: Messages| messages.archived + messages.quarantined;
    Sweep { late: new(late) + late.open, changed: new(changed), reopened: changed.open, ..Sweep::default() }
}

fn gone_message(gone: &Gone) -> OpenMessage {
    let (message_id, source_index) = (gone.document.id.clone(), gone.document.source_index.clone());
    OpenMessage { message_id, source_index, timestamp: gone.timestamp, first_seen_open: gone.first_seen_open }
}

/// How many of these rows stand in the staging area as long as nothing has marked them.
async fn still_staged(deps: &Deps, gone: &[Gone]) -> Result<u64, Error> {
    let rows = deps.ledger.rows.get_many(&keys_of(gone)).await?;
    let is_staged = |gone: &&Gone| rows.get(&key_of(gone)).is_some_and(|row| row.revision == gone.revision);
    Ok(gone.iter().filter(is_staged).count() as u64)
}

/// Behind the report: should this call die before it, the next run finds them gone and tells it.
async fn mark_gone(deps: &Deps, gone: &[Gone], now: Timestamp) -> Result<(), Error> {
    let rows = deps.ledger.rows.get_many(&keys_of(gone)).await?;
    let marked = |gone: &Gone| {
        let row = rows.get(&key_of(gone))?;
        Some(Change { before: Some(row.clone()), after: tracking::gone(row, gone.revision, now)? })
    };
    // One that changed meanwhile was found after all.
    deps.ledger.rows.change_many(gone.iter().filter_map(marked).collect()).await?;
    Ok(())
}

fn keys_of(gone: &[Gone]) -> Vec<(String, Option<String>)> {
    gone.iter().map(key_of).collect()
}

fn key_of(gone: &Gone) -> (String, Option<String>) {
    (gone.document.id.clone(), Some(gone.document.source_index.clone()))
}

async fn read_plan(deps: &Deps, run_id: &str) -> Result<Vec<Window>, Error> {
    let key = plan_key(run_id);
    read_list(&deps.objects.get(&key).await?).map_err(|source| Error::PlanUnreadable { key, source })
}

fn is_done(record: &WindowRecord, mode: Mode) -> bool {
    record.status == State::Completed || (mode == Mode::Extract && record.status == State::Classified)
}

fn failure(window: &Window, record: Option<&WindowRecord>) -> Failure {
    let window_id = window.window_id.clone();
    let (error, message) = match record {
        Some(WindowRecord { error: Some(error), message, .. }) => (error.clone(), message.clone().unwrap_or_default()),
        Some(record) if record.fence.attempt > 0 => {
            let message = format!(
                "{} began at {} and did not come back: killed, timed out or out of memory; see its log",
                record.step, record.updated_at
            );
            ("StepCrashed".to_owned(), message)
        }
        _ => ("NotStarted".to_owned(), "the Map did not start this window; see the Map Run".to_owned()),
    };
    let step = record.map(|record| record.step.clone()).filter(|step| !step.is_empty());
    Failure { window_id, error, message, messages: window.expected, step, ..Failure::default() }
}

/// This run has not committed the window: what covers it, others have. Of a message that was changed since, they have
/// an earlier version.
fn by_other_runs(failure: &Failure, planned: &[Window], covered: &[Span]) -> Extent {
    let window = planned.iter().find(|window| window.window_id == failure.window_id);
    match (window, span_of(&failure.window_id)) {
        (Some(Window { purpose: Purpose::Changed, .. }), _) => Extent::Part,
        (_, Some(span)) => Extent::of(&span, covered),
        (_, None) => Extent::Nothing,
    }
}

/// Ids that stand in more than one index. Ten million of them (80 MB) are in memory at once, however large the run was.
async fn collisions(deps: &Deps, run_id: &str, done: &[&WindowRecord]) -> Result<u64, Error> {
    const AT_ONCE: u64 = 10_000_000;
    const READS: usize = 16;
    let passes = done.iter().map(|record| record.messages.source).sum::<u64>() / AT_ONCE + 1;
    let mut collisions = 0;
    for pass in 0..passes {
        let keys = done.iter().map(|record| ids_key(&spool_prefix(run_id, &record.window_id, record.fence.attempt)));
        let mut bodies =
            stream::iter(keys.map(|key| async move { deps.objects.find(&key).await })).buffer_unordered(READS);
        let mut hashes: Vec<u64> = Vec::new();
        // A spool that has expired says nothing of its ids.
        while let Some(body) = bodies.try_next().await?.map(Option::unwrap_or_default) {
            let (of_window, _) = body.as_chunks::<8>();
            hashes
                .extend(of_window.iter().map(|bytes| u64::from_le_bytes(*bytes)).filter(|hash| hash % passes == pass));
        }
        hashes.sort_unstable();
        collisions += hashes.chunk_by(|left, right| left == right).filter(|same| same.len() > 1).count() as u64;
    }
    Ok(collisions)
}

/// How many messages are held over now, and the oldest of them.
async fn open_messages(deps: &Deps, gone: &[Gone]) -> Result<(u64, Vec<OpenMessage>), Error> {
    let (backlog, mut oldest) = deps.ledger.oldest_open(OLDEST_SHOWN).await?;
    oldest.retain(|row| !gone.iter().any(|gone| gone.revision == row.revision && gone.document == row.identity()));
    let open = |row: Row| {
        let first_seen_open = row.first_seen_open?;
        let Row { message_id, source_index, timestamp, .. } = row;
        Some(OpenMessage { message_id, source_index, timestamp, first_seen_open })
    };
    Ok((backlog, oldest.into_iter().filter_map(open).collect()))
}
