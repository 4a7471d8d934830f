//! The rows of `job-runs`: one a run, and some of the archive's own: the lock, the watermark, and what is
//! [`unresolved`](crate::run::unresolved).

use super::keyed_by_run;
use crate::{counts::Messages, mode::Mode};
use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `run_id` of the watermark's row.
pub const WATERMARK: &str = "#watermark";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunStatus {
    #[default]
    Running,
    Completed,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRun {
    pub run_id: String,
    pub mode: Mode,
    pub status: RunStatus,
    #[serde(with = "instant::serde_iso")]
    pub from: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub to: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub created_at: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub updated_at: Timestamp,
    pub execution_arn: String,
    /// 1, and one more for each redrive or failed-only execution.
    pub attempt: u64,
    pub planned: u64,
    pub undated: u64,
    #[serde(default)]
    pub counts: Messages,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<String>,
    /// Mails by attempt: claimed before they are sent.
    #[serde(default)]
    pub mails: BTreeMap<String, Mail>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub revision: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mail {
    Claimed,
    Sent,
}

/// Up to where scheduled runs have archived everything without a gap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    pub run_id: String,
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
    pub revision: u64,
}

keyed_by_run!(
    JobRun: |run_id: &str| !run_id.starts_with('#'),
    Watermark: |run_id| run_id == WATERMARK
);
