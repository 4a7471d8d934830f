//! What is counted of a window and summed over a run.

use crate::message::{classification::Disposition, entry::Entry, tracking::Decision};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::AddAssign};

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

/// `source`: bytes of all documents of the windows; `archive`: bytes of the Parquet and quarantine objects that hold
/// them.
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

/// Counts of a window by what was decided of each document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub messages: Messages,
    /// Quarantined messages by reason.
    pub reasons: BTreeMap<String, u64>,
}

impl Tally {
    /// `archived` counts what is to be archived: see [`Tally::before_the_write`].
    pub fn add(&mut self, entry: &Entry, decision: &Decision) {
        let messages = &mut self.messages;
        messages.source += 1;
        messages.no_alerts += u64::from(entry.outcome.no_alerts);
        match (entry.outcome.disposition, decision) {
            // Held over by a run that read the source later, too.
            (Disposition::Open, _) | (Disposition::Closed, Decision::Hold) => messages.open += 1,
            (Disposition::Quarantined, _) => messages.quarantined += 1,
            (Disposition::Closed, Decision::Already) => messages.already_archived += 1,
            (Disposition::Closed, _) => messages.archived += 1,
        }
        if let Some(reason) = entry.outcome.reason {
            *self.reasons.entry(reason.as_str().to_owned()).or_default() += 1;
        }
    }

    /// As a report has it while nothing is archived yet.
    pub fn before_the_write(mut self) -> Self {
        self.messages.archived = 0;
        self
    }
}
