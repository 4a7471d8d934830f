//! What a report of a period says, in figures and samples. Words and looks belong to `reports`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogReport {
    pub id: String,
    /// Inclusive and exclusive, UTC.
    pub from: String,
    pub to: String,
    /// Types and services that were asked for; empty: all.
    pub error_types: Vec<String>,
    pub services: Vec<String>,
    /// Error entries of the period, and of the period of the same length before it.
    pub entries: u64,
    pub entries_before: u64,
    pub kinds: u64,
    pub by_category: Vec<Share>,
    pub by_service: Vec<Share>,
    /// Seen for the first time, the most frequent first.
    pub new: Vec<Finding>,
    /// Seen again after days of silence.
    pub back: Vec<Finding>,
    /// By growth against the period before.
    pub top: Vec<Finding>,
    /// Those that are neither new nor back.
    pub frequent: Vec<Finding>,
    pub worst_files: Vec<FileShare>,
    pub by_hour: Vec<Share>,
    /// Files of the period that could not be read to their end.
    pub damaged: Vec<DamagedFile>,
    /// Files of the period with lines in no known format; the count is of these lines.
    pub unread_files: Vec<FileShare>,
    /// How many there are of those that are listed above only in part; 0 in reports of earlier versions.
    #[serde(default)]
    pub new_kinds: u64,
    #[serde(default)]
    pub back_kinds: u64,
    #[serde(default)]
    pub damaged_files: u64,
    /// When the errors of the period were looked for. What came later is late.
    #[serde(default)]
    pub searched_at: String,
    /// Error entries from before the period that came after the report of their own period, and what they are.
    #[serde(default)]
    pub late_entries: u64,
    #[serde(default)]
    pub late: Vec<Finding>,
}

impl LogReport {
    /// How many errors are new, are back, and how many files are damaged, listed or not.
    pub fn totals(&self) -> (u64, u64, u64) {
        let all = |total: u64, listed: usize| total.max(listed as u64);
        let LogReport { new, back, damaged, .. } = self;
        (all(self.new_kinds, new.len()), all(self.back_kinds, back.len()), all(self.damaged_files, damaged.len()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedFile {
    /// Key of the log object.
    pub object: String,
    /// `GzipTruncated` and its like.
    pub error: String,
    /// Lines before the damage.
    pub lines: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub label: String,
    pub count: u64,
    pub before: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileShare {
    /// Key of the log object.
    pub object: String,
    pub count: u64,
}

/// One error of the period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub fingerprint: String,
    pub service: String,
    pub category: String,
    pub level: String,
    pub exception: Option<String>,
    /// Without secrets.
    pub message: String,
    pub count: u64,
    pub before: u64,
    /// Ever, over all logs.
    pub first_seen: Option<String>,
    /// Before the period.
    pub last_before: Option<String>,
    /// Where the sample stands.
    pub object: String,
    pub line: u64,
    pub stack: Option<String>,
}
