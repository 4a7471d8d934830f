//! Writes what a window archives, exactly once. First the intent: rows are claimed, objects are planned, and the
//! plan is registered. From then on every executor that meets the window carries out that same intent to its end.

mod execute;
mod expired;
mod prepare;

use alerts::{
    counts::Messages,
    run::payloads::{NoProgress, WindowTask},
    window::record::{State, WindowRecord},
};
use archive::{JobRuns, StageError, StepEnd, Tracking, WindowError, Windows};
use aws_config::SdkConfig;
use columnar::ColumnarError;
use errors::{Name, Named};
use execute::Progress;
use prepare::Registered;
use runtime::{Call, Config, ConfigMissing, step_metrics};
use storage::{LedgerError, Objects, StoreError};

pub struct Deps {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub windows: Windows,
    pub ledger: Tracking,
    pub jsonl: bool,
    pub message_json: bool,
    /// Parquet is made smaller, for more CPU.
    pub cold_storage: bool,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            objects: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            job_runs: JobRuns::new(aws, config.required("ALERT_ARCHIVE_JOB_RUNS_TABLE")),
            windows: Windows::new(aws, config.required("ALERT_ARCHIVE_WINDOWS_TABLE")),
            ledger: Tracking::new(aws, config.required("ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE")),
            jsonl: config.parsed("ALERT_ARCHIVE_WRITE_JSONL", false),
            message_json: config.parsed("ALERT_ARCHIVE_WRITE_MESSAGE_JSON", false),
            cold_storage: config.parsed("ALERT_ARCHIVE_COLD_STORAGE", false),
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
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("rows of object {key} cannot be encoded")]
    Columnar { key: String, source: ColumnarError },
    #[error("object {key} cannot be compressed")]
    Compress { key: String, source: std::io::Error },
    #[error("spool {prefix} is damaged: {what}")]
    Spool { prefix: String, what: String },
    #[error("the intent of window {window_id} was amended meanwhile")]
    Amended { window_id: String },
    #[error("message {id} of window {window_id} was claimed by another run meanwhile")]
    ClaimLost { id: String, window_id: String },
    #[error("message {id} has a claim of run {run_id}, window {window_id}, that does not end")]
    ClaimStuck { id: String, run_id: String, window_id: String },
    #[error("window {window_id}: {counts:?} does not add up, nothing of it is committed")]
    CountMismatch { window_id: String, counts: Messages },
    #[error("{key} was changed by another executor each time its earlier rows were taken out")]
    Contended { key: String },
    #[error(transparent)]
    NoProgress(#[from] NoProgress),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Stage(error) => error.name(),
            Error::Window(error) => error.name(),
            Error::Columnar { .. } => Name::EncodingFailed,
            Error::Compress { .. } => Name::CompressionFailed,
            Error::Spool { .. } => Name::ObjectCorrupt,
            Error::Amended { .. } | Error::ClaimLost { .. } => Name::WindowSuperseded,
            Error::ClaimStuck { .. } => Name::WindowBusy,
            Error::CountMismatch { .. } => Name::CountMismatch,
            Error::Contended { .. } => Name::StoreUnavailable,
            Error::NoProgress(_) => Name::NoProgress,
        }
    }
}

pub async fn handle(deps: &Deps, mut task: WindowTask, call: Call) -> Result<WindowTask, Error> {
    let work = async |task: &WindowTask, row| write(deps, task, row, &call).await;
    deps.windows.run_step("write-partitions", &mut task, &call, work).await?;
    Ok(task)
}

async fn write(deps: &Deps, task: &WindowTask, row: WindowRecord, call: &Call) -> Result<StepEnd, Error> {
    let (run_id, window_id) = (&task.run_id, &task.window.window_id);
    let registered = match &row.intent_key {
        Some(key) if row.status == State::Prepared => {
            Registered::Intent(Box::new(prepare::resume(deps, run_id, window_id, key.clone(), call).await?))
        }
        _ => prepare::register(deps, task, &row, call).await?,
    };
    let intent = match registered {
        Registered::Intent(intent) => intent,
        Registered::Interrupted { advanced } => return Ok(StepEnd::Interrupted { advanced: advanced > 0 }),
    };
    let (bytes, figures) = match execute::carry_out(deps, &intent, call).await {
        Ok(Progress::Done { bytes, figures }) => (bytes, figures),
        Ok(Progress::Interrupted { advanced }) => return Ok(StepEnd::Interrupted { advanced: advanced > 0 }),
        Err(error) if expired::is_about(&error, &intent) => {
            expired::end(deps, &intent, call).await?;
            // This execution cannot go back to its source.
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let mut line =
        vec![("Documents", intent.counts.archived), ("SourceBytes", bytes.source), ("ArchiveBytes", bytes.archive)];
    line.extend(figures);
    step_metrics("write-partitions", run_id, window_id, call.took(), &line);
    Ok(StepEnd::Done)
}
