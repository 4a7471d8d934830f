//! The redo log of a window. Once an intent is registered, what the window writes is fixed: any later
//! attempt, of this run or another, executes the same intent and gets the same objects.

use crate::classification::Disposition;
use crate::partitions;
use crate::spool::Entry;
use serde::{Deserialize, Serialize};

/// Raw message bytes behind one archive object; bounds the memory of the writer.
pub const OBJECT_BYTES: u64 = 32 << 20;

/// What classification decided for one entry of the spool index; a line of the decisions object, in the same order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Write it: nothing of this document is in the archive yet.
    Write,
    /// Write it and take the earlier version out of this object.
    Replace { object: String },
    /// Same version, same disposition: it is where it belongs.
    Already,
    /// Open, in staging.
    Hold,
    /// Claimed by a window that did not finish; settled before the intent is made.
    Contested { run_id: String, window_id: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    pub run_id: String,
    pub window_id: String,
    pub attempt: u64,
    pub spool_prefix: String,
    pub pairs: u32,
    /// Bytes of all documents of the window.
    pub source_bytes: u64,
    /// `archived_at` of every row: a fact of the intent, so that a repeated write yields the same bytes.
    #[serde(with = "crate::instant::serde_iso")]
    pub archived_at: jiff::Timestamp,
    pub jsonl: bool,
    pub message_json: bool,
    pub objects: Vec<PlannedObject>,
    pub counts: crate::report::Messages,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedObject {
    pub disposition: Disposition,
    pub date: String,
    /// The Parquet object, or the quarantine object.
    pub key: String,
    /// The JSONL object beside a Parquet object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jsonl_key: Option<String>,
    /// Positions in the spool, counted over all pairs.
    pub entries: Vec<u32>,
    /// Earlier versions: position -> object that holds the earlier row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<(u32, String)>,
}

/// Lays out the objects of a window: entries come in spool order, grouped by date and cut at [`OBJECT_BYTES`].
pub struct Layout<'a> {
    run_id: &'a str,
    window_id: &'a str,
    jsonl: bool,
    objects: Vec<PlannedObject>,
    filled: std::collections::HashMap<(Disposition, String), (usize, u64)>,
    parts: std::collections::HashMap<(Disposition, String), usize>,
}

impl<'a> Layout<'a> {
    pub fn new(run_id: &'a str, window_id: &'a str, jsonl: bool) -> Self {
        Layout { run_id, window_id, jsonl, objects: Vec::new(), filled: Default::default(), parts: Default::default() }
    }

    /// Plans the entry at `position` into an object.
    pub fn push(&mut self, position: u32, entry: &Entry, replaces: Option<String>) {
        let slot = (entry.outcome.disposition, entry.date());
        let current = match self.filled.get(&slot) {
            Some((object, bytes)) if bytes + entry.bytes <= OBJECT_BYTES => (*object, bytes + entry.bytes),
            _ => (self.open(&slot), entry.bytes),
        };
        self.filled.insert(slot, current);
        let object = &mut self.objects[current.0];
        object.entries.push(position);
        object.replaces.extend(replaces.map(|key| (position, key)));
    }

    pub fn finish(self) -> Vec<PlannedObject> {
        self.objects
    }

    fn open(&mut self, slot: &(Disposition, String)) -> usize {
        let part = self.parts.entry(slot.clone()).or_insert(0);
        let (disposition, date) = slot;
        let archived = *disposition == Disposition::Closed;
        let name = if archived { partitions::parquet_key } else { partitions::quarantine_key };
        self.objects.push(PlannedObject {
            disposition: *disposition,
            date: date.clone(),
            key: name(date, self.window_id, self.run_id, *part),
            jsonl_key: (archived && self.jsonl).then(|| partitions::jsonl_key(date, self.window_id, self.run_id, *part)),
            entries: Vec::new(),
            replaces: Vec::new(),
        });
        *part += 1;
        self.objects.len() - 1
    }
}

/// `archive/_commits/<window>/<run>-<attempt>.json`: the proof of what a window wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub v: u8,
    pub run_id: String,
    pub window_id: String,
    pub attempt: u64,
    #[serde(with = "crate::instant::serde_iso")]
    pub committed_at: jiff::Timestamp,
    /// Documents in the source at the window's point in time.
    pub source: u64,
    pub counts: crate::report::Messages,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classification::Outcome;
    use crate::instant;

    fn entry(id: &str, at: &str, bytes: u64, disposition: Disposition) -> Entry {
        let outcome = Outcome { disposition, reason: None, no_alerts: false };
        Entry { index: "messages".into(), id: id.into(), at: instant::parse(at).expect("instant"), version: String::new(), bytes, outcome }
    }

    #[test]
    fn objects_are_cut_by_date_disposition_and_size() {
        let mut layout = Layout::new("r1", "w1", true);
        let big = OBJECT_BYTES / 2 + 1;
        for (position, entry) in [
            entry("a", "2024-07-01", big, Disposition::Closed),
            entry("b", "2024-07-01", big, Disposition::Closed),
            entry("c", "2024-07-01", 1, Disposition::Quarantined),
            entry("d", "2024-07-02", 1, Disposition::Closed),
            entry("e", "2024-07-02", 1, Disposition::Closed),
        ]
        .iter()
        .enumerate()
        {
            layout.push(position as u32, entry, None);
        }
        let objects: Vec<_> = layout.finish().into_iter().map(|object| (object.key, object.entries)).collect();
        assert_eq!(
            objects,
            [
                ("archive/parquet/date=2024-07-01/w1.r1.0000.parquet".to_owned(), vec![0]),
                ("archive/parquet/date=2024-07-01/w1.r1.0001.parquet".to_owned(), vec![1]),
                ("quarantine/date=2024-07-01/w1.r1.0000.jsonl.zst".to_owned(), vec![2]),
                ("archive/parquet/date=2024-07-02/w1.r1.0000.parquet".to_owned(), vec![3, 4]),
            ]
        );
    }
}
