//! What became of each window of a run, one cell a window, for the page.

use crate::run::report::Failure;
use crate::window::{plan::Window, record::WindowRecord};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `runs/<run>/grid.json`: the cells in the order of the plan.
pub type Grid = Vec<Cell>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellState {
    Done,
    Failed,
    SetAside,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub window_id: String,
    pub state: CellState,
    /// Documents that were read; before that, as many as the plan counted.
    pub messages: u64,
    /// From the beginning of its last attempt to the last that was heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// The stable name of its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The function at which it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

impl Cell {
    /// `failure` is none where the window is done.
    pub fn new(window: &Window, record: Option<&WindowRecord>, state: CellState, failure: Option<&Failure>) -> Self {
        let seconds = |began: Timestamp, ended: Timestamp| u64::try_from(ended.duration_since(began).as_secs()).ok();
        let read = record.filter(|_| state == CellState::Done).map(|record| record.messages.source);
        Cell {
            window_id: window.window_id.clone(),
            state,
            messages: read.unwrap_or(window.expected),
            seconds: record.and_then(|record| seconds(record.began_at?, record.updated_at)),
            error: failure.map(|failure| failure.error.clone()),
            step: failure.and_then(|failure| failure.step.clone()),
        }
    }
}
