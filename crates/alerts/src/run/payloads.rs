//! The payloads that travel between the states of the workflow. A redrive runs an old definition with new
//! functions, so each payload carries its version.

use crate::{mode::Mode, window::plan::Window};
use serde::{Deserialize, Serialize};

/// The version of every payload below.
pub const VERSION: u8 = 1;

/// What a person, the scheduler or a script starts an execution with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum Input {
    Scheduled { scheduled_for: String },
    Range { from: String, to: String },
    FailedOnly { run_id: String },
    Recheck,
    Extract { from: String, to: String },
    Process,
}

impl Input {
    pub fn mode(&self) -> Mode {
        match self {
            Input::Scheduled { .. } => Mode::Scheduled,
            Input::Range { .. } => Mode::Range,
            Input::FailedOnly { .. } => Mode::FailedOnly,
            Input::Recheck => Mode::Recheck,
            Input::Extract { .. } => Mode::Extract,
            Input::Process => Mode::Process,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanRequest {
    pub v: u8,
    pub input: serde_json::Value,
    pub run_id: String,
    pub execution_arn: String,
}

/// What the plan hands to the Map and to the end of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub v: u8,
    pub run_id: String,
    pub mode: Mode,
    pub execution_arn: String,
    pub bucket: String,
    pub windows: u64,
    pub windows_key: String,
}

/// One window on its way through query, classify and write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowTask {
    pub v: u8,
    pub run_id: String,
    pub mode: Mode,
    pub window: Window,
    /// Set by query-messages: fences off earlier attempts that still run.
    #[serde(default)]
    pub attempt: Option<u64>,
    /// How often the present step has been continued.
    #[serde(default)]
    pub continuation: u32,
    /// The step has more to do and wants to be called again.
    #[serde(default)]
    pub more: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CollectRequest {
    pub v: u8,
    pub run_id: String,
    pub mode: Mode,
    pub execution_arn: String,
    pub bucket: String,
    pub windows_key: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collected {
    pub v: u8,
    pub run_id: String,
    pub mode: Mode,
    pub execution_arn: String,
    pub bucket: String,
    pub report_key: String,
    pub failed: u64,
    /// How many windows a loop would run again; equals `failed`.
    pub windows: u64,
    pub windows_key: String,
    /// The execution's redrive count when the report was made.
    pub reported_at: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportRequest {
    pub v: u8,
    pub run_id: String,
    pub report_key: String,
    pub reported_at: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    #[serde(flatten)]
    pub collected: Collected,
    pub retry: bool,
}
