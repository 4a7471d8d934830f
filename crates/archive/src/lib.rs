//! The archive workflow's own tables: runs, windows and messages, each a set of versioned rows in DynamoDB. What a
//! change means is decided in `alerts`; here it is carried out on condition that the row is as it was read. No other
//! pipeline's row may enter, and no step's logic.

mod job_runs;
mod quarantine;
mod tracking;
mod windows;

pub use job_runs::{Account, JobRuns};
pub use quarantine::{QuarantineError, QuarantineLine, Quarantined, quarantined};
pub use tracking::{Changed, Guesses, StageError, StagedAll, Tracking, row_key};
pub use windows::{StepEnd, WindowError, Windows};
