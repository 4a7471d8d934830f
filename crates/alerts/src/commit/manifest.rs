//! The proof of what a window wrote.

use crate::counts::Messages;
use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `archive/_commits/<window>/<run>-<attempt>.json`: the proof of what a window wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub v: u8,
    pub run_id: String,
    pub window_id: String,
    pub attempt: u64,
    #[serde(with = "instant::serde_iso")]
    pub committed_at: Timestamp,
    /// Documents in the source at the window's point in time.
    pub source: u64,
    pub counts: Messages,
    pub objects: Vec<WrittenObject>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WrittenObject {
    pub key: String,
    pub rows: u64,
    pub bytes: u64,
    /// Hex.
    pub sha256: String,
}
