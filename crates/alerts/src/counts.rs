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

/// Alerts of messages, by what they are called. What leaves the archive is counted below nothing until what it was
/// counted with is known, too: so the order in which windows are counted does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertCounts {
    /// Whose alerts these are.
    pub messages: i64,
    pub severities: BTreeMap<String, i64>,
    pub categories: BTreeMap<String, i64>,
}

/// How many names are told apart, of severities and of categories: they come from the source, and may be anything.
const NAMES: usize = 40;
/// Characters of a name that are looked at.
const NAME_LENGTH: usize = 60;
/// Where a name is counted that is one too many.
pub const OTHER_NAMES: &str = "other";
/// Where an alert is counted that names none.
pub const NO_NAME: &str = "(none)";

impl AlertCounts {
    pub fn add_alert(&mut self, severity: Option<&str>, category: Option<&str>) {
        add(&mut self.severities, name(severity), 1);
        add(&mut self.categories, name(category), 1);
    }

    /// Adds them `times` over: -1 takes them away.
    pub fn add_all(&mut self, other: &AlertCounts, times: i64) {
        self.messages += times * other.messages;
        for (into, from) in [(&mut self.severities, &other.severities), (&mut self.categories, &other.categories)] {
            for (name, count) in from {
                add(into, name.clone(), times * count);
            }
        }
    }
}

/// Alike whatever its case and the white space around it.
fn name(given: Option<&str>) -> String {
    let name: String = given.unwrap_or_default().trim().to_lowercase().chars().take(NAME_LENGTH).collect();
    if name.is_empty() { NO_NAME.to_owned() } else { name }
}

fn add(counts: &mut BTreeMap<String, i64>, name: String, count: i64) {
    let name = if counts.contains_key(&name) || counts.len() < NAMES { name } else { OTHER_NAMES.to_owned() };
    *counts.entry(name).or_default() += count;
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

/// Messages of the archive, and the bytes that they have in the source, without history and audit, to a hundred or so
/// an object. As with alerts, both may be below nothing for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSize {
    pub messages: i64,
    pub bytes: i64,
}

impl SourceSize {
    /// Adds them `times` over: -1 takes them away.
    pub fn add_all(&mut self, other: SourceSize, times: i64) {
        self.messages += times * other.messages;
        self.bytes += times * other.bytes;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_counted_by_names_that_are_bounded_and_alike_in_any_case() {
        let mut counts = AlertCounts::default();
        counts.add_alert(Some(" High "), Some("fraud"));
        counts.add_alert(Some("HIGH"), None);
        counts.add_alert(Some(""), Some(&"x".repeat(500)));
        assert_eq!(counts.severities, BTreeMap::from([("high".into(), 2), (NO_NAME.into(), 1)]));
        assert_eq!(counts.categories.keys().map(|name| name.chars().count()).max(), Some(NAME_LENGTH));
        for n in 0..1000 {
            counts.add_alert(None, Some(&format!("c{n}")));
        }
        assert_eq!(counts.categories.len(), NAMES + 1);
        assert_eq!(counts.categories.values().sum::<i64>(), 1003, "none is lost");
    }

    #[test]
    fn what_is_taken_away_before_it_was_added_is_not_counted_either() {
        let (mut one, mut all) = (AlertCounts { messages: 1, ..AlertCounts::default() }, AlertCounts::default());
        one.add_alert(Some("high"), Some("fraud"));
        all.add_all(&one, -1);
        all.add_all(&one, 1);
        assert_eq!((all.messages, all.severities["high"], all.categories["fraud"]), (0, 0, 0));
    }
}
