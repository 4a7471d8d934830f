//! What is counted of a window and summed over a run.

use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// Documents of the windows of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messages {
    pub source: u64,
    pub archived: u64,
    pub open: u64,
    pub quarantined: u64,
    pub already_archived: u64,
    pub no_alerts: u64,
}

impl Messages {
    /// Promise 1: every document of the source has become something.
    pub fn reconciled(&self) -> bool {
        self.source == self.archived + self.already_archived + self.open + self.quarantined
    }
}

impl AddAssign for Messages {
    fn add_assign(&mut self, other: Self) {
        self.source += other.source;
        self.archived += other.archived;
        self.open += other.open;
        self.quarantined += other.quarantined;
        self.already_archived += other.already_archived;
        self.no_alerts += other.no_alerts;
    }
}

/// `source`: bytes of all documents of the windows; `archive`: bytes of the Parquet and quarantine objects that hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    pub source: u64,
    pub archive: u64,
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        self.source += other.source;
        self.archive += other.archive;
    }
}
