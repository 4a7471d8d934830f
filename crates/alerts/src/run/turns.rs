//! The row of `job-runs` from which functions take their turns to ask the API.

use super::keyed_by_run;
use serde::{Deserialize, Serialize};

/// `run_id` of the row.
pub const TURNS: &str = "#turns";

/// When the next request to the API may be sent, whichever function sends it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turns {
    pub run_id: String,
    /// Microseconds since 1970.
    pub free_at_micros: i64,
    pub revision: u64,
}

keyed_by_run!(Turns: |run_id| run_id == TURNS);
