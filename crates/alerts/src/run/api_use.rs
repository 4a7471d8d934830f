//! The row of `job-runs` that says that the API is, or once was, a source: rows of messages may be called after no
//! index.

use super::keyed_by_run;
use serde::{Deserialize, Serialize};

/// `run_id` of the row.
pub const API_USE: &str = "#api";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiUse {
    pub run_id: String,
    pub revision: u64,
}

keyed_by_run!(ApiUse: |run_id| run_id == API_USE);
