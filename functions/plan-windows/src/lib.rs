//! Turns what the execution was started with into a range, takes the range's lock, and writes the list of windows.
//! A repeated call of the same run finds its plan and leaves it.

mod held_over;
mod sized;
mod sweep;

use alerts::{
    counts::Messages,
    keys::{looked_at_key, plan_key, run_prefix},
    message::{classification::Disposition, tracking::Row},
    mode::Mode,
    run::{
        job_run::{JobRun, RunStatus},
        lock::Held,
        looked_at::LookedAt,
        payloads::{Input, Plan, PlanRequest, Version},
    },
    window::{
        plan::{Bucket, HYBRID_REACH, Interval, Left, ListUnreadable, Window, capped, join, read_list, write_list},
        record::{State, WindowRecord},
    },
};
use archive::{Account, JobRuns, Tracking, Windows};
use aws_config::SdkConfig;
use errors::{Name, Named, describe};
use held_over::IndicesNow;
use identity::instant;
use jiff::{SignedDuration, Timestamp};
use runtime::{Call, Config, ConfigMissing, step_metrics};
use sources::{IndexWrites, OpenSearch, SourceError, Sources, api::SharedPace};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use storage::{Change, LedgerError, Objects, PutOnce, Scanned, StoreError};
use sweep::Sweep;
use workflow::{StepFunctions, Workflow, WorkflowError};

/// How far an index of the tables may be behind, at most, and a run that reads it.
const INDEX_LAGS: SignedDuration = SignedDuration::from_hours(1);
/// By how much the clock of the machine that started the run may be ahead of the function's.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

pub struct Deps {
    pub sources: Sources,
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub windows: Windows,
    pub ledger: Tracking,
    pub workflow: Arc<dyn Workflow>,
    /// Documents that a window should hold at most.
    pub target: u64,
    /// Windows of its range that a scheduled run takes at most; the next one goes on behind them.
    pub most_windows: usize,
    /// Documents behind its range that a scheduled run sets out to read at most.
    pub most_found: usize,
    /// How long after its instant a document may still appear in the source.
    pub settle: SignedDuration,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let job_runs = config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE");
        let pace = |per_second| SharedPace::boxed(aws, job_runs.clone(), per_second);
        let deps = Deps {
            sources: Sources::from_env(&mut config, aws, pace),
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, job_runs.clone()),
            windows: Windows::new(aws, config.required("ALERT_ARCHIVE_WINDOWS_TABLE")),
            ledger: Tracking::new(aws, config.required("ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE")),
            workflow: StepFunctions::shared(aws),
            target: config.parsed("ALERT_ARCHIVE_WINDOW_MESSAGES", 2000).max(1),
            most_windows: config.parsed("ALERT_ARCHIVE_RUN_WINDOWS", 2000),
            most_found: sweep::MOST_FOUND,
            settle: SignedDuration::from_mins(config.parsed("ALERT_ARCHIVE_SETTLE_MINUTES", 60)),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the input {input} is not understood: {problem}")]
    Input { input: String, problem: String },
    #[error("`{field}` is `{value}`: write a UTC date or instant, such as 2019-07-01 or 2019-07-01T12:00:00Z")]
    Instant { field: &'static str, value: String },
    #[error("the range is empty: from {from} is not before to {to}")]
    Reversed { from: String, to: String },
    #[error(
        "`scheduled_for` is {at}, which lies in the future: the watermark would pass over all that comes until then"
    )]
    Future { at: String },
    #[error("run {run_id} was made on {at} by another execution: start this one under another name")]
    NameUsed { run_id: String, at: String },
    #[error("there is no run {run_id}")]
    NoSuchRun { run_id: String },
    #[error("run {run_id} died before it had a plan: start its range anew")]
    NotPlanned { run_id: String },
    #[error("{key} is damaged")]
    PlanUnreadable { key: String, source: ListUnreadable },
    #[error("the windows cannot be listed")]
    Unlisted { source: serde_json::Error },
    #[error("an execution of run {holder} is at work on {from} to {to}; wait for it, or choose another range")]
    RangeBusy { holder: String, from: String, to: String },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Workflow(#[from] WorkflowError),
}

impl Error {
    fn busy(holder: &str, (from, to): (Timestamp, Timestamp)) -> Self {
        Error::RangeBusy { holder: holder.to_owned(), from: instant::iso(from), to: instant::iso(to) }
    }
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Input { .. }
            | Error::Instant { .. }
            | Error::Reversed { .. }
            | Error::Future { .. }
            | Error::NoSuchRun { .. } => Name::InvalidInput,
            Error::NameUsed { .. } => Name::ExecutionExists,
            Error::NotPlanned { .. } => Name::PlanMissing,
            Error::PlanUnreadable { .. } | Error::Unlisted { .. } => Name::ObjectCorrupt,
            Error::RangeBusy { .. } => Name::RangeBusy,
            Error::Source(error) => error.name(),
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Workflow(error) => error.name(),
        }
    }
}

/// What a run is about, once its input is understood.
#[derive(Clone)]
struct Task {
    run_id: String,
    mode: Mode,
    execution_arn: String,
    from: Timestamp,
    to: Timestamp,
    scheduled_for: Option<String>,
}

impl Task {
    /// Of an execution whose range is not known, or not its own.
    fn refused(request: &PlanRequest, mode: Mode, now: Timestamp) -> Self {
        let (run_id, execution_arn) = (request.run_id.clone(), request.execution_arn.clone());
        Task { run_id, mode, execution_arn, from: now, to: now, scheduled_for: None }
    }

    fn row(&self, now: Timestamp) -> JobRun {
        JobRun {
            run_id: self.run_id.clone(),
            mode: self.mode,
            status: RunStatus::Running,
            from: self.from,
            to: self.to,
            created_at: now,
            updated_at: now,
            execution_arn: self.execution_arn.clone(),
            attempt: 1,
            planned: 0,
            undated: 0,
            absent: Vec::new(),
            counts: Messages::default(),
            scheduled_for: self.scheduled_for.clone(),
            left: None,
            outbox: BTreeMap::new(),
            error: None,
            message: None,
            revision: 1,
        }
    }
}

pub async fn handle(deps: &Deps, request: PlanRequest, call: Call) -> Result<Plan, Error> {
    let now = call.now();
    let input: Input = serde_json::from_value(request.input.clone())
        .map_err(|error| Error::Input { input: request.input.to_string(), problem: error.to_string() })?;
    if let Input::FailedOnly { run_id } = &input {
        let planned = rerun(deps, run_id, &request.execution_arn, now).await;
        if let Err(error) = &planned {
            // Under the execution's own name: the run that it was about stands as it was.
            note_refusal(deps, &Task::refused(&request, Mode::FailedOnly, now), error, now).await;
        }
        return planned;
    }
    let mode = input.mode();
    let task = match understand(deps, &request, input, now).await {
        Ok(task) => task,
        Err(error) => {
            note_refusal(deps, &Task::refused(&request, mode, now), &error, now).await;
            return Err(error);
        }
    };
    if let Some(done) = already_done(deps, &task).await? {
        return Ok(done);
    }
    refuse_used_name(deps, &task).await?;
    if let Err(error) = lock(deps, &task.run_id, &task.execution_arn, (task.from, task.to), now).await {
        note_refusal(deps, &task, &error, now).await;
        return Err(error);
    }
    let planned = Box::pin(plan(deps, &task, &call)).await;
    if let Err(error) = &planned {
        mark_failed(deps, &task, error, now).await;
    }
    let plan = planned?;
    step_metrics("plan-windows", &task.run_id, "", call.took(), &[("Windows", plan.windows)]);
    Ok(plan)
}

async fn understand(deps: &Deps, request: &PlanRequest, input: Input, now: Timestamp) -> Result<Task, Error> {
    let read = |field: &'static str, value: &str| {
        instant::parse_edge(value).ok_or_else(|| Error::Instant { field, value: value.to_owned() })
    };
    let (mode, from, to, scheduled_for) = match input {
        Input::Range { from, to } => (Mode::Range, read("from", &from)?, read("to", &to)?, None),
        Input::Extract { from, to } => (Mode::Extract, read("from", &from)?, read("to", &to)?, None),
        Input::Scheduled { scheduled_for } => {
            let at = read("scheduled_for", &scheduled_for)?;
            if at > now + CLOCKS_DIFFER {
                return Err(Error::Future { at: instant::iso(at) });
            }
            let to = at - deps.settle;
            let (from, to) = match deps.job_runs.watermark().await? {
                // An API numbers no writes, so that no sweep can say what came late or was changed: what it still keeps
                // is listed again, and the hash of each message decides.
                Some(watermark) if deps.sources.opensearch().is_none() => (watermark.min(to - HYBRID_REACH), to),
                // A time that was missed may be made up for behind a later one: what ranges have passed is the sweep's.
                Some(watermark) => (watermark, to.max(watermark)),
                None => (earliest(deps, to).await?.min(to), to),
            };
            // Nothing new since the last run: an empty range is no fault of a schedule.
            (Mode::Scheduled, from, to, Some(scheduled_for))
        }
        Input::Process => (Mode::Process, Timestamp::UNIX_EPOCH, now, None),
        // Wherever they lie: no run of a range may be at work on one of them.
        Input::Recheck => (Mode::Recheck, Timestamp::UNIX_EPOCH, now, None),
        Input::FailedOnly { run_id } => return Err(Error::NoSuchRun { run_id }),
    };
    if from >= to && mode != Mode::Scheduled {
        return Err(Error::Reversed { from: instant::iso(from), to: instant::iso(to) });
    }
    Ok(Task {
        run_id: request.run_id.clone(),
        mode,
        execution_arn: request.execution_arn.clone(),
        from,
        to,
        scheduled_for,
    })
}

/// What another run of this name left is not this run's: its plan must not be taken for the plan of this range.
async fn refuse_used_name(deps: &Deps, task: &Task) -> Result<(), Error> {
    let Some(run) = deps.job_runs.get(&task.run_id).await? else { return Ok(()) };
    let started = deps.workflow.describe(&task.execution_arn).await?.started;
    if run.is_from_before(started) {
        return Err(Error::NameUsed { run_id: run.run_id, at: instant::iso(run.created_at) });
    }
    Ok(())
}

/// The same scheduled time again: the run that did it is reported once more, and nothing is done.
async fn already_done(deps: &Deps, task: &Task) -> Result<Option<Plan>, Error> {
    let Some(scheduled_for) = &task.scheduled_for else { return Ok(None) };
    let Scanned { rows: runs, malformed } = deps.job_runs.runs.scan().await?;
    for error in &malformed {
        // A run that cannot be read is not known to have done this time: at worst the work is looked at again.
        tracing::error!(error = describe(error), "a run is skipped in the search for this scheduled time");
    }
    let same = |run: &&JobRun| run.run_id != task.run_id && run.is_scheduled_for(scheduled_for);
    // One that was capped has left a part of it to the next.
    let is_done = |run: &&JobRun| run.status == RunStatus::Completed && run.left.is_none();
    let Some(run) = runs.iter().find(|run| same(run) && is_done(run)) else { return Ok(None) };
    tracing::info!(scheduled_for, run = run.run_id, "this scheduled time is done already");
    Ok(Some(plan_of(deps, &run.run_id, run.mode, &task.execution_arn, 0, plan_key(&run.run_id))))
}

/// Storing the list of windows is the decisive moment: a repeated call goes on with the list that stands, whatever the
/// source holds by then. So every row of a window belongs to the plan, and none is left over from another.
async fn plan(deps: &Deps, task: &Task, call: &Call) -> Result<Plan, Error> {
    let now = call.now();
    take_run(deps, &task.run_id, &task.execution_arn, (task.from, task.to), now).await?;
    begin(deps, task, now).await?;
    if deps.sources.api.is_some() {
        deps.job_runs.note_api_use().await?;
    }
    let (key, opensearch) = (plan_key(&task.run_id), deps.sources.opensearch());
    let windows = match find_list(deps, &key).await? {
        Some(windows) => windows,
        None => {
            let planned = list(deps, task, opensearch, call).await?;
            match deps.objects.put_once(&key, list_of(&planned)?.into(), "application/jsonl").await? {
                PutOnce::Created(_) => planned,
                PutOnce::Exists(_) => {
                    find_list(deps, &key).await?.ok_or_else(|| Error::NotPlanned { run_id: task.run_id.clone() })?
                }
            }
        }
    };
    let undated = match opensearch {
        Some(source) => source.undated().await?,
        None => 0,
    };
    let absent = if opensearch.is_none() { vec!["history".to_owned(), "audit".to_owned()] } else { Vec::new() };
    add_records(deps, &task.run_id, task.mode, &windows, now).await?;
    let planned = windows.len() as u64;
    let noted = deps.job_runs.change(&task.run_id, |row| {
        row.undated = undated;
        row.absent = absent.clone();
        row.planned = planned;
    });
    noted.await?;
    Ok(plan_of(deps, &task.run_id, task.mode, &task.execution_arn, planned, key))
}

/// All windows of a run. Where a scheduled one is capped, what was looked at outside its range says so first, once and
/// for all calls of the plan; then the run's row does, and only then the list is stored.
async fn list(deps: &Deps, task: &Task, opensearch: Option<&OpenSearch>, call: &Call) -> Result<Vec<Window>, Error> {
    let strays = strays(deps, opensearch, call.now()).await?;
    let mut planned = cut(deps, task, opensearch, call).await?;
    if !matches!(task.mode, Mode::Scheduled | Mode::Recheck) {
        return Ok(strays.marked(planned));
    }
    // Of an API alone there is never more than it keeps, a part of which every run lists again.
    let left = if task.mode == Mode::Scheduled && opensearch.is_some() {
        capped(&mut planned, deps.most_windows, task.to)
    } else {
        None
    };
    let end = left.map_or(task.to, |left| left.from);
    let looked_at = outside_the_range(deps, &Task { to: end, ..task.clone() }, left, opensearch, call).await?;
    if looked_at.left != left {
        // Another call was first, and the source has changed since: what that one left is left.
        let end = looked_at.left.map_or(task.to, |left| left.from);
        planned = cut(deps, &Task { to: end, ..task.clone() }, opensearch, call).await?;
    }
    if let Some(left) = looked_at.left {
        let noted = |row: &mut JobRun| (row.to, row.left) = (left.from, Some(left));
        deps.job_runs.change(&task.run_id, noted).await?;
    }
    planned.extend(looked_at.windows);
    Ok(strays.marked(planned))
}

/// Before which instant messages may have rows that are called after an index which is gone.
struct Strays(Option<Timestamp>);

impl Strays {
    fn marked(&self, windows: Vec<Window>) -> Vec<Window> {
        let may_meet = |window: &Window| self.0.is_some_and(|before| window.from < before);
        let marked = |window: Window| Window { is_index_gone: window.is_index_gone || may_meet(&window), ..window };
        windows.into_iter().map(marked).collect()
    }
}

/// Notes the indices of messages, before anything of them is read, and holds them against those that earlier runs have
/// read.
async fn strays(deps: &Deps, opensearch: Option<&OpenSearch>, now: Timestamp) -> Result<Strays, Error> {
    let Some(opensearch) = opensearch else {
        // The API alone is asked by now. The last run that asked an index may have been redriven since.
        return Ok(Strays(deps.job_runs.indices_read().await?.map(|read| read.at + HYBRID_REACH)));
    };
    let writes = opensearch.writes(&opensearch.indices.messages).await?;
    let present: Vec<String> = writes.into_iter().map(|writes| writes.index).collect();
    if !deps.job_runs.note_indices(&present, now).await?.is_one_gone {
        return Ok(Strays(None));
    }
    // The sweep of a run has gone through the others, and the windows of that run through what it left.
    let swept = deps.job_runs.swept().await?;
    let is_new = present.iter().any(|index| !swept.contains_key(index));
    Ok(Strays(is_new.then_some(Timestamp::MAX)))
}

/// The windows of a run, sized by what the source holds now.
async fn cut(deps: &Deps, task: &Task, opensearch: Option<&OpenSearch>, call: &Call) -> Result<Vec<Window>, Error> {
    if let Some(source) = opensearch {
        for index in [&source.indices.messages, &source.indices.history, &source.indices.audit] {
            source.check_mapping(index).await?;
        }
    }
    if task.mode == Mode::Process {
        return pending_days(deps, call.now()).await;
    }
    if task.from >= task.to || task.mode == Mode::Recheck {
        return Ok(Vec::new());
    }
    sized::windows(deps, opensearch, task.from, task.to, call).await
}

/// Windows of messages outside the range: held-over ones that are to be read again, and what was written behind the
/// range. What was found out about the others is kept for the report, and a repeated call goes by what the first one
/// found.
async fn outside_the_range(
    deps: &Deps,
    task: &Task,
    left: Option<Left>,
    opensearch: Option<&OpenSearch>,
    call: &Call,
) -> Result<LookedAt, Error> {
    let is_in_range = |at: Timestamp| task.mode == Mode::Scheduled && task.from <= at && at < task.to;
    let key = looked_at_key(&task.run_id);
    if let Some(found) = deps.objects.find_json::<LookedAt>(&key).await? {
        return Ok(found);
    }
    let known = deps.job_runs.swept().await?;
    let mut indices = IndicesNow::default();
    if let Some(opensearch) = opensearch {
        for IndexWrites { index, uuid, .. } in opensearch.writes(&opensearch.indices.messages).await? {
            if known.get(&index).is_some_and(|before| !before.is_numbered_on(&uuid)) {
                indices.remade.insert(index.clone());
            }
            indices.present.insert(index);
        }
    }
    let held_over = held_over::look(deps, opensearch, is_in_range, &indices, call.now()).await?;
    let sweep = match opensearch.filter(|_| task.mode == Mode::Scheduled) {
        Some(opensearch) => sweep::look(deps, opensearch, &task.run_id, (task.from, task.to), &known, call).await?,
        None => Sweep::default(),
    };
    let (looked_for, gone) = (held_over.looked_at, held_over.gone.clone());
    let (swept, moved) = (sweep.swept.clone(), held_over.moved.len() as u64 + sweep.moved);
    let writes_left = sweep.left;
    let (mut windows, listed) = held_over.windows();
    windows.extend(sweep.windows());
    let found = LookedAt { held_over: looked_for, gone, listed, windows, swept, moved, writes_left, left };
    let body = serde_json::to_vec(&found).map_err(|source| Error::Unlisted { source })?;
    match deps.objects.put_once(&key, body.into(), "application/json").await? {
        PutOnce::Created(_) => Ok(found),
        PutOnce::Exists(_) => Ok(deps.objects.get_json(&key).await?),
    }
}

/// One row a window; one that exists is from another call of this very plan, and may be at work.
async fn add_records(deps: &Deps, run_id: &str, mode: Mode, windows: &[Window], now: Timestamp) -> Result<(), Error> {
    let planned = |window: &Window| WindowRecord::planned(run_id, mode, window.clone(), now);
    let records = windows.iter().map(|window| Change { before: None, after: planned(window) }).collect();
    deps.windows.rows.change_many(records).await?;
    Ok(())
}

async fn find_list(deps: &Deps, key: &str) -> Result<Option<Vec<Window>>, Error> {
    let unreadable = |source| Error::PlanUnreadable { key: key.to_owned(), source };
    deps.objects.find(key).await?.map(|lines| read_list(&lines).map_err(unreadable)).transpose()
}

fn list_of(windows: &[Window]) -> Result<Vec<u8>, Error> {
    write_list(windows).map_err(|source| Error::Unlisted { source })
}

/// Days that have messages which an extraction staged and no run has written.
async fn pending_days(deps: &Deps, now: Timestamp) -> Result<Vec<Window>, Error> {
    let mut days = extracted_days(deps).await?;
    let count = |row: Row| {
        // A row that is completed waits here for the newer version of its message.
        if row.disposition != Disposition::Open {
            *days.entry(instant::date(row.timestamp)).or_default() += 1;
        }
    };
    deps.ledger.staged(count).await?;
    let buckets = days.into_iter().filter_map(|(day, count)| {
        let from = instant::parse(&day)?;
        Some(Bucket { from, to: day_after(from), count })
    });
    let windows = join(&buckets.collect::<Vec<_>>(), deps.target).into_iter();
    Ok(windows
        .map(|window| {
            let source = sized::source_at(deps, window.from, now);
            window.read_from(source)
        })
        .collect())
}

/// Days that extractions have classified since a run wrote what was staged: the index of staged rows is not up to date
/// at once, and a message that moved in time is still called after its earlier day there.
async fn extracted_days(deps: &Deps) -> Result<BTreeMap<String, u64>, Error> {
    let Scanned { rows: runs, malformed } = deps.job_runs.runs.scan().await?;
    for error in &malformed {
        tracing::error!(error = describe(error), "a run is skipped in the search for extractions");
    }
    let is_written = |run: &&JobRun| run.mode == Mode::Process && run.status == RunStatus::Completed;
    let written = runs.iter().filter(is_written).map(|run| run.created_at).max();
    let is_new = |at: Timestamp| written.is_none_or(|written| at + INDEX_LAGS >= written);
    let mut days = BTreeMap::new();
    for run in runs.iter().filter(|run| run.mode == Mode::Extract && is_new(run.updated_at)) {
        for record in deps.windows.rows.partition(&run.run_id).await? {
            let staged = record.messages.source - record.messages.open - record.messages.already_archived;
            if record.status != State::Classified || !is_new(record.updated_at) || staged == 0 {
                continue;
            }
            let mut day = instant::parse(&instant::date(record.window.from)).unwrap_or(record.window.from);
            while day < record.window.to {
                days.entry(instant::date(day)).or_insert(1);
                day = day_after(day);
            }
        }
    }
    Ok(days)
}

/// The next midnight, or where all ranges end.
fn day_after(day: Timestamp) -> Timestamp {
    day.checked_add(Interval::Day.length()).unwrap_or(instant::last())
}

/// The windows of a run that are not committed, in a new execution of the same run.
async fn rerun(deps: &Deps, run_id: &str, execution_arn: &str, now: Timestamp) -> Result<Plan, Error> {
    let run = deps.job_runs.get(run_id).await?.ok_or_else(|| Error::NoSuchRun { run_id: run_id.to_owned() })?;
    // The plan says what belongs to the run.
    let planned =
        find_list(deps, &plan_key(run_id)).await?.ok_or_else(|| Error::NotPlanned { run_id: run_id.to_owned() })?;
    lock(deps, run_id, execution_arn, (run.from, run.to), now).await?;
    // Its Map may be at work without the range: one that was redriven after another run took that.
    let is_other = run.status == RunStatus::Running && run.execution_arn != execution_arn;
    if is_other && deps.workflow.is_running(&run.execution_arn).await? {
        return Err(Error::busy(run_id, (run.from, run.to)));
    }
    let records = deps.windows.rows.partition(run_id).await?;
    let is_done = |record: &&WindowRecord| {
        record.status == State::Completed || (run.mode == Mode::Extract && record.status == State::Classified)
    };
    let done: HashSet<&str> = records.iter().filter(is_done).map(|record| record.window_id.as_str()).collect();
    let left = planned.into_iter().filter(|window| !done.contains(window.window_id.as_str()));
    let windows: Vec<Window> = left.map(|window| sized::still_kept(deps.sources.mode, window, now)).collect();
    let windows = match strays(deps, deps.sources.opensearch(), now).await {
        Ok(strays) => strays.marked(windows),
        // What only has to be written needs no source, and a window that reads says itself what is wrong.
        Err(Error::Source(error)) => {
            tracing::warn!(run = run_id, error = describe(&error), "the indices are taken to be those of the plan");
            windows
        }
        Err(error) => return Err(error),
    };
    // A plan that was killed may have a list, and no row yet.
    add_records(deps, run_id, run.mode, &windows, now).await?;
    // A repeated call of this very execution counts no second attempt.
    let again = run.execution_arn == execution_arn;
    let attempt = if again { run.attempt } else { run.attempt + 1 };
    let key = format!("{}/windows-attempt-{attempt}.jsonl", run_prefix(run_id));
    // A call of this attempt that comes late must not change the list under the Map that reads it.
    let windows = match deps.objects.put_once(&key, list_of(&windows)?.into(), "application/jsonl").await? {
        PutOnce::Created(_) => windows,
        PutOnce::Exists(_) => find_list(deps, &key).await?.unwrap_or_default(),
    };
    take_run(deps, run_id, execution_arn, (run.from, run.to), now).await?;
    Ok(plan_of(deps, run_id, run.mode, execution_arn, windows.len() as u64, key))
}

/// This execution accounts for the run from now on, unless another does that is at work.
async fn take_run(
    deps: &Deps,
    run_id: &str,
    execution_arn: &str,
    range: (Timestamp, Timestamp),
    now: Timestamp,
) -> Result<(), Error> {
    let is_running = async |arn: &str| Ok::<_, Error>(deps.workflow.is_running(arn).await?);
    match deps.job_runs.account_for(run_id, execution_arn, now, is_running).await? {
        Some(Account::Other(_)) => Err(Error::busy(run_id, range)),
        Some(Account::Own(_)) | None => Ok(()),
    }
}

async fn lock(
    deps: &Deps,
    run_id: &str,
    execution_arn: &str,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
) -> Result<(), Error> {
    let wanted = Held { holder: run_id.to_owned(), execution_arn: execution_arn.to_owned(), from, to, until: None };
    let is_running = async |holder: &Held| Ok::<_, Error>(deps.workflow.is_running(&holder.execution_arn).await?);
    match deps.job_runs.acquire(&wanted, now, is_running).await? {
        Some(Held { holder, from, to, .. }) => Err(Error::busy(&holder, (from, to))),
        None => Ok(()),
    }
}

/// A run that dies in its plan is marked so, and its range is free again. Best effort: the error itself is what the
/// caller returns.
async fn mark_failed(deps: &Deps, task: &Task, error: &Error, now: Timestamp) {
    let marked = deps.job_runs.change(&task.run_id, |row| {
        if row.execution_arn != task.execution_arn {
            return;
        }
        row.status = RunStatus::Failed;
        row.error = Some(error.name().to_string());
        row.message = Some(describe(error));
        row.updated_at = now;
    });
    let marked = marked.await.map(|_| ());
    let released = deps.job_runs.release(&task.run_id, &task.execution_arn).await;
    for failed in [marked, released].into_iter().filter_map(Result::err) {
        tracing::warn!(run = task.run_id, error = describe(&failed), "the failed plan could not be noted");
    }
}

/// An execution that came to no plan is listed all the same, with what it was refused for. Best effort, as above.
async fn note_refusal(deps: &Deps, task: &Task, error: &Error, now: Timestamp) {
    let (name, message) = (Some(error.name().to_string()), Some(describe(error)));
    let update = deps.job_runs.runs.update(&task.run_id, None, |row| {
        let row = row.cloned().unwrap_or_else(|| task.row(now));
        // A redrive of a run that was planned stands as it stood, and so does what another execution goes on with.
        let is_own = row.execution_arn == task.execution_arn;
        let is_refused = is_own && row.planned == 0 && row.status != RunStatus::Completed;
        let refused =
            JobRun { status: RunStatus::Failed, error: name.clone(), message: message.clone(), updated_at: now, ..row };
        Ok::<_, LedgerError>(is_refused.then_some(refused))
    });
    if let Err(failed) = update.await {
        tracing::warn!(run = task.run_id, error = describe(&failed), "the refusal could not be noted");
    }
}

/// The run has a row before anything can go wrong. What an earlier call of it noted is kept.
async fn begin(deps: &Deps, task: &Task, now: Timestamp) -> Result<(), Error> {
    let update = deps.job_runs.runs.update(&task.run_id, None, |before| {
        let row = task.row(now);
        if before.is_some_and(|before| before.execution_arn != task.execution_arn) {
            return Err(Error::busy(&task.run_id, (task.from, task.to)));
        }
        Ok(match before.cloned() {
            // A call that wakes up late.
            Some(done) if done.status == RunStatus::Completed => None,
            Some(JobRun { outbox, created_at, attempt, left, .. }) => {
                let to = left.map_or(row.to, |left| left.from);
                Some(JobRun { outbox, created_at, attempt, left, to, ..row })
            }
            None => Some(row),
        })
    });
    update.await?;
    Ok(())
}

/// Where the first scheduled run begins. An API cannot be asked for its first message, and may refuse what is old: it
/// is asked for as much as a hybrid run would ask for.
async fn earliest(deps: &Deps, to: Timestamp) -> Result<Timestamp, SourceError> {
    match deps.sources.opensearch() {
        // With the whole first day, so that it counts as run. What lies before the calendar of partitions is undated.
        Some(source) => {
            let first = source.earliest().await?.map(|at| at.max(instant::first()));
            Ok(first.map_or(to, |at| instant::parse(&instant::date(at)).unwrap_or(at)))
        }
        None => Ok(to - HYBRID_REACH),
    }
}

fn plan_of(deps: &Deps, run_id: &str, mode: Mode, execution_arn: &str, windows: u64, windows_key: String) -> Plan {
    let bucket = deps.objects.bucket().to_owned();
    Plan {
        v: Version,
        run_id: run_id.to_owned(),
        mode,
        execution_arn: execution_arn.to_owned(),
        bucket,
        windows,
        windows_key,
    }
}
