//! The two stores: objects in S3 and versioned rows in DynamoDB. What a change means is decided in `alerts`;
//! here it is only carried out, under the condition that nobody was quicker.

mod job_runs;
pub mod notification;
mod objects;
mod staging;
mod tables;
mod windows;

pub use job_runs::JobRuns;
pub use objects::{Head, Objects, PutOnce, StoreError, sha256_hex};
pub use staging::{StageError, row_key, stage_all};
pub use tables::{Keyed, Ledger, LedgerError, Table};
pub use windows::{WindowError, Windows};
