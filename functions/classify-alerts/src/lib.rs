//! Turns the index of a spool into one row a message in `message-tracking`, and notes beside the index
//! what the next step has to do about each. Bodies are not read.

use alerts::{
    counts::Tally,
    keys::{checkpoint_key, decisions_key, ids_key, index_key, spool_prefix},
    message::{
        entry::Entry,
        tracking::{Claim, Decision, Staging},
    },
    mode::Mode,
    run::payloads::{NoProgress, WindowTask},
    window::{
        record::{State, WindowRecord},
        spool::{SpoolSummary, id_hash},
    },
};
use archive::{Guesses, StageError, StagedAll, StepEnd, Tracking, WindowError, Windows};
use aws_config::SdkConfig;
use errors::{Name, Named};
use runtime::{Call, Config, ConfigMissing, step_metrics};
use storage::{Objects, PutOnce, StoreError};

pub struct Deps {
    pub objects: Objects,
    pub windows: Windows,
    pub ledger: Tracking,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            windows: Windows::new(aws, config.required("ALERT_ARCHIVE_WINDOWS_TABLE")),
            ledger: Tracking::new(aws, config.required("ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE")),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("the spool of window {window_id} is not complete")]
    Unfinished { window_id: String },
    #[error("the spool of window {window_id} says {expected} documents, its index holds {found}")]
    CountMismatch { window_id: String, expected: u64, found: u64 },
    #[error(transparent)]
    NoProgress(#[from] NoProgress),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Store(error) => error.name(),
            Error::Stage(error) => error.name(),
            Error::Window(error) => error.name(),
            Error::Unfinished { .. } => Name::SpoolUnfinished,
            Error::CountMismatch { .. } => Name::CountMismatch,
            Error::NoProgress(_) => Name::NoProgress,
        }
    }
}

pub async fn handle(deps: &Deps, mut task: WindowTask, call: Call) -> Result<WindowTask, Error> {
    let work = async |task: &WindowTask, row| classify(deps, task, row, &call).await;
    deps.windows.run_step("classify-alerts", &mut task, &call, work).await?;
    Ok(task)
}

async fn classify(deps: &Deps, task: &WindowTask, row: WindowRecord, call: &Call) -> Result<StepEnd, Error> {
    if row.status == State::Prepared {
        // An earlier call classified the window, and its intent is registered.
        return Ok(StepEnd::Done);
    }
    let now = call.now();
    let (run_id, window_id, attempt) = (task.run_id.clone(), task.window.window_id.clone(), row.fence.attempt);
    let prefix = spool_prefix(&run_id, &window_id, attempt);
    let summary: SpoolSummary = deps.objects.get_json(&checkpoint_key(&prefix)).await?;
    if !summary.done {
        return Err(Error::Unfinished { window_id });
    }
    let claim = Claim { run_id: run_id.clone(), window_id: window_id.clone(), attempt };
    let staging = Staging::new(claim, summary.seen_at, row.mode == Mode::Extract)
        .after(summary.had_api, summary.present.as_deref());
    let mut guesses = Guesses::default();
    let mut tally = Tally::default();
    let mut ids = Vec::with_capacity(8 * summary.documents as usize);
    let mut staged = 0;
    for pair in 0..summary.pairs {
        let entries: Vec<Entry> = deps.objects.get_lines(&index_key(&prefix, pair)).await?;
        let key = decisions_key(&prefix, pair);
        let decisions: Vec<Decision> = match deps.objects.find_lines(&key).await? {
            // By an earlier call of this attempt.
            Some(decisions) => decisions,
            None => {
                let all: Vec<&Entry> = entries.iter().collect();
                let decided = deps.ledger.stage_all(&all, &staging, &mut guesses, || call.is_ending());
                let StagedAll { decisions, moved } = decided.await?;
                deps.windows.note_moved(&run_id, &window_id, moved).await?;
                let Some(decisions) = decisions else {
                    return Ok(StepEnd::Interrupted { advanced: staged > 0 });
                };
                staged += 1;
                match deps.objects.put_lines_once(&key, &decisions).await? {
                    PutOnce::Created(_) => decisions,
                    // By another call of this attempt, which came first.
                    PutOnce::Exists(_) => deps.objects.get_lines(&key).await?,
                }
            }
        };
        entries.iter().zip(&decisions).for_each(|(entry, decision)| tally.add(entry, decision));
        ids.extend(entries.iter().flat_map(|entry| id_hash(&entry.id).to_le_bytes()));
    }
    let tally = tally.before_the_write();
    let messages = tally.messages;
    if messages.source != summary.documents {
        return Err(Error::CountMismatch { window_id, expected: summary.documents, found: messages.source });
    }
    deps.objects.put(&ids_key(&prefix), ids, "application/octet-stream").await?;
    deps.windows.change(&run_id, &window_id, |record| record.classified(attempt, tally.clone(), now)).await?;
    let figures = [
        ("Documents", messages.source),
        ("Open", messages.open),
        ("Quarantined", messages.quarantined),
        ("AlreadyArchived", messages.already_archived),
        ("SourceBytes", summary.bytes),
    ];
    step_metrics("classify-alerts", &run_id, &window_id, call.took(), &figures);
    Ok(StepEnd::Done)
}
