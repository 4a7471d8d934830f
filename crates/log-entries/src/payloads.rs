//! What the steps of `report-log-errors` are handed, and return.

use serde::{Deserialize, Serialize};

/// Version of what the report's steps are handed: a redrive runs an old definition with new functions.
pub const PAYLOAD: u32 = 1;

/// What the first step is handed: the execution's name and its input.
#[derive(Clone, Debug, Deserialize)]
pub struct SearchRequest {
    /// [`PAYLOAD`].
    pub v: u32,
    pub run_id: String,
    pub input: ReportInput,
}

/// `{"scheduled_for"}`: the day before it; or `{"from", "to"}`, and which errors and services.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReportInput {
    pub scheduled_for: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub error_types: Vec<String>,
    pub services: Vec<String>,
}

/// What one step of the report hands to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportTask {
    /// [`PAYLOAD`].
    pub v: u32,
    /// The same for the same scheduled time.
    pub id: String,
    pub report_key: String,
}
