//! Holds an archive against itself and its source: objects, manifests, rows and windows; and repairs what differs. What
//! follows from what was seen is decided in [`rules`], purely. For the command line, and for a simulation that looks at
//! every archive it makes. How findings are shown may not enter, nor what writes an archive.

mod check;
pub mod evidence;
mod repair;
pub mod rules;
mod unwritten;

use archive::{JobRuns, Tracking, Windows};
use errors::{Name, Named};
use evidence::Evidence;
use jiff::Timestamp;
use repair::Place;
pub use repair::{Repair, with_lock};
use rules::Days;
use runtime::Clock;
use serde::Serialize;
use sources::{OpenSearch, SourceError};
use std::sync::Arc;
use storage::{LedgerError, Objects, StoreError};
use workflow::{Workflow, WorkflowError};

/// An archive, and where its messages are from.
pub struct Archive {
    pub objects: Objects,
    pub job_runs: JobRuns,
    pub windows: Windows,
    pub ledger: Tracking,
    pub workflow: Arc<dyn Workflow>,
    /// None: the source is not asked.
    pub source: Option<OpenSearch>,
    pub clock: Arc<dyn Clock>,
    /// Who is told how far it is.
    pub progress: Box<dyn Progress>,
}

/// Is told how far a long check is. One phase follows another.
pub trait Progress: Send + Sync {
    /// So many of something come.
    fn begin(&self, _total: usize, _of: &'static str) {}
    /// One more of them is done.
    fn step(&self) {}
    fn end(&self) {}
}

/// Shows no progress.
pub struct Untold;

impl Progress for Untold {}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Workflow(#[from] WorkflowError),
    #[error("{key} cannot be read as Parquet")]
    Parquet { key: String, source: columnar::ColumnarError },
    #[error("{key} is not a manifest")]
    Manifest { key: String, source: serde_json::Error },
    #[error("run {holder} is at work: this waits until no run is; try again when it has ended")]
    Busy { holder: String },
    #[error("the lock of the archive was lost, nothing more is repaired")]
    LockLost { source: Box<Error> },
    #[error("{first} and {second} hold something else: {key} stays as it is")]
    NotKept { key: String, first: String, second: String },
}

impl Error {
    /// The stable name of what a service said.
    pub fn name(&self) -> Option<Name> {
        match self {
            Error::Store(error) => Some(error.name()),
            Error::Ledger(error) => Some(error.name()),
            Error::Source(error) => Some(error.name()),
            Error::Workflow(error) => Some(error.name()),
            Error::LockLost { source } => source.name(),
            Error::Parquet { .. } | Error::Manifest { .. } | Error::Busy { .. } | Error::NotKept { .. } => None,
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub kind: &'static str,
    /// The object's key or the message's id.
    pub what: String,
    pub detail: String,
    /// What [`repair`] did about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
    /// What [`repair`] would do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would: Option<String>,
    /// Of the message, or of the object's partition, where it is known.
    #[serde(skip)]
    pub day: Option<Timestamp>,
    #[serde(skip)]
    pub repair: Option<Repair>,
}

#[derive(Default, Serialize)]
pub struct Outcome {
    pub ok: bool,
    pub windows: u64,
    pub objects: u64,
    pub bytes: u64,
    pub rows: u64,
    pub messages_read: u64,
    /// Messages that left the source before a run had written them, as their rows say.
    pub gone: u64,
    /// What the source holds where runs have been, against the ledger; none when the source was not asked, or no run has
    /// been anywhere in these days.
    pub accounted: Option<Sum>,
    pub findings: Vec<Finding>,
}

/// Messages by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    pub source: u64,
    pub archived: u64,
    pub open: u64,
    pub quarantined: u64,
}

/// All that there is to be seen of some days, and what differs there. `deep`: every object is read.
pub async fn look(archive: &Archive, days: Days, deep: bool) -> Result<(Evidence, Outcome), Error> {
    let evidence = Evidence::gather(archive, days).await?;
    let outcome = check::Check::run(archive, &evidence, deep).await?;
    Ok((evidence, outcome))
}

/// Locks the archive, looks again at the days on which something was found, and repairs what is found twice. What is no
/// longer so was a run's own doing.
pub async fn repair(archive: &Archive, days: Days, deep: bool, found: Vec<Finding>) -> Result<Vec<Finding>, Error> {
    with_lock(archive, "verify", repair_what_is_found_again(archive, days, deep, found)).await
}

async fn repair_what_is_found_again(
    archive: &Archive,
    days: Days,
    deep: bool,
    found: Vec<Finding>,
) -> Result<Vec<Finding>, Error> {
    let instants: Vec<Option<Timestamp>> = found.iter().map(|finding| finding.day).collect();
    let (evidence, Outcome { findings: mut again, .. }) = look(archive, days.of(&instants), deep).await?;
    let is_same = |first: &Finding, second: &Finding| {
        (first.kind, &first.what, &first.detail) == (second.kind, &second.what, &second.detail)
    };
    again.retain(|second| found.iter().any(|first| is_same(first, second)));
    let repairs: Vec<Repair> = again.iter().filter_map(|finding| finding.repair.clone()).collect();
    let Archive { objects, ledger, windows, clock, .. } = archive;
    let place = Place { objects, rows: &ledger.rows, windows, now: clock.now() };
    let mut done = repair::apply(place, &evidence.named, &repairs).await?.into_iter();
    for finding in again.iter_mut().filter(|finding| finding.repair.is_some()) {
        let is_done = done.next().unwrap_or_default();
        finding.repaired = finding.repair.as_ref().filter(|_| is_done).map(Repair::describe);
    }
    Ok(again)
}
