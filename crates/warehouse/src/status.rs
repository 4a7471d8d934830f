//! What a warehouse says of itself: the answer of `warehouse status --json`, and what mail and page are made of.

use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Objects that landed, and are neither built nor reported as failed.
    pub pending: u64,
    /// Nothing is pending, the schema file in force is built, and no rebuild is waiting.
    pub up_to_date: bool,
    pub failures: Vec<Failure>,
    pub sources: Vec<SourceStatus>,
    pub tables: Vec<TableStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// Empty where the build of all tables failed.
    pub table: String,
    /// Empty where no single object is to blame.
    pub object: String,
    pub error: String,
    pub message: String,
}

impl Failure {
    /// The last ingest of the table failed; else a build did, or an object could not be read.
    pub fn is_of_ingest(&self) -> bool {
        !self.table.is_empty() && self.object.is_empty()
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    pub table: String,
    /// Lines built.
    pub rows: u64,
    pub timestamp: Option<String>,
    pub latest_object: Option<String>,
    pub sequential_id: u64,
    pub gaps: Vec<(u64, u64)>,
    pub quarantined: u64,
    /// When the last ingest that went well ended; `None` where nothing is read from the database.
    pub ingested_at: Option<Timestamp>,
    pub schema_changes: Vec<SchemaChange>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SchemaChange {
    pub column: String,
    /// `added`, `dropped` or `widened`.
    pub change: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub struct TableStatus {
    pub table: String,
    /// What a reader counts.
    pub rows: u64,
    pub location: String,
    pub unknown: BTreeMap<String, u64>,
}
