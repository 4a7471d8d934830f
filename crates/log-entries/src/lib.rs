//! Where extracted log errors live: Parquet partitions in S3, one row a log object and one a fingerprint in DynamoDB.
//! What an entry is belongs to `logs`; who writes or reads when belongs to functions and command line.

mod columns;
mod keys;
mod payloads;
mod rows;
mod search;

pub use columns::{ColumnsError, Row, read, write};
pub use keys::{Attempt, ENTRIES, Part, SETTINGS, object_id};
pub use payloads::{Context, PAYLOAD, ReportTask, SearchRequest};
pub use rows::{
    Contribution, Damaged, EXTRACTED, Extracted, Intent, LogMail, LogObject, Moved, NOT_READ, Occurrence, Sample, Seen,
    Version,
};
pub use search::{Filter, Group, SearchError, group, groups, late_groups};
