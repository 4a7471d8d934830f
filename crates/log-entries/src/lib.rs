//! Where extracted log errors live: Parquet partitions in S3, one row a log object and one a fingerprint in DynamoDB.
//! What an entry is belongs to `logs`; who writes or reads when belongs to functions and command line.

mod columns;
mod keys;
mod payloads;
mod rows;
mod search;

pub use columns::{ColumnsError, EntryRow, read, write};
pub use keys::{Attempt, ENTRIES, PartKey, SETTINGS, object_id, part_name};
pub use payloads::{PAYLOAD, ReportInput, ReportTask, SearchRequest};
pub use rows::{
    ALL_OBJECTS, Contribution, Damaged, EXTRACTED, Extracted, LogMail, LogObject, Moved, NOT_READ, ObjectVersion,
    Occurrence, Part, Sample, Seen, Sightings, VersionIntent, sightings_by_object,
};
pub use search::{Filter, Group, SearchError, group, groups, late_groups};
