//! The redo log of a window. Once an intent is registered, what the window writes is fixed: any later
//! attempt, of this run or another, executes the same intent and gets the same objects.

use crate::keys;
use crate::message::classification::Disposition;
use crate::message::entry::Entry;
use crate::message::tracking::Claim;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Raw bytes behind one archive object, messages with history and audit; bounds the memory of the writer.
pub const OBJECT_BYTES: u64 = 32 << 20;

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
    #[serde(with = "identity::instant::serde_iso")]
    pub archived_at: jiff::Timestamp,
    /// When the source was read. None in an intent from before this was noted.
    #[serde(default, with = "crate::message::tracking::optional_iso", skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<jiff::Timestamp>,
    pub jsonl: bool,
    pub message_json: bool,
    /// Parquet is packed for cold storage: as `archived_at`, so that a repeated write yields the same bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cold_storage: bool,
    pub objects: Vec<PlannedObject>,
    pub counts: crate::counts::Messages,
    /// How often an operator excluded documents from it.
    #[serde(default)]
    pub amended: u32,
    /// Where it stands: the first ones stood in the spool, and expired with it.
    #[serde(default)]
    pub outlives_spool: bool,
}

impl Intent {
    pub fn key(&self) -> String {
        if self.outlives_spool {
            keys::intent_key(&self.window_id, &self.run_id, self.attempt, self.amended)
        } else {
            keys::intent_key_in_spool(&self.spool_prefix, self.amended)
        }
    }

    pub fn claim(&self) -> Claim {
        Claim { run_id: self.run_id.clone(), window_id: self.window_id.clone(), attempt: self.attempt }
    }

    /// The same intent under another key, whose spool has expired: no executor of the one before goes on to its commit.
    pub fn ended(&self) -> Self {
        Intent { amended: self.amended + 1, ..self.clone() }
    }

    /// The same intent with these documents of its archive objects in quarantine; none of those objects is written yet.
    /// The others keep their keys: of an executor of this intent and one of the next only one can create the object.
    pub fn without(&self, excluded: &BTreeMap<u32, Entry>) -> Self {
        let mut next =
            Intent { amended: self.amended + 1, objects: Vec::with_capacity(self.objects.len() + 1), ..self.clone() };
        let mut by_date: BTreeMap<String, PlannedObject> = BTreeMap::new();
        for object in &self.objects {
            let (out, entries): (Vec<u32>, Vec<u32>) = object
                .entries
                .iter()
                .partition(|position| object.disposition == Disposition::Closed && excluded.contains_key(position));
            for position in &out {
                next.counts.archived -= 1;
                next.counts.quarantined += 1;
                next.counts.no_alerts -= u64::from(excluded.get(position).is_some_and(|entry| entry.outcome.no_alerts));
                // Not among the numbers that the layout gives, nor those of an earlier attempt whose intent was ended.
                let (part, writer) = (9000 + next.amended as usize, keys::attempt_of(&self.run_id, self.attempt));
                let quarantine = by_date.entry(object.date.clone()).or_insert_with(|| PlannedObject {
                    disposition: Disposition::Quarantined,
                    date: object.date.clone(),
                    key: keys::quarantine_key(&object.date, &self.window_id, &writer, part),
                    jsonl_key: None,
                    entries: Vec::new(),
                    replaces: Vec::new(),
                });
                quarantine.entries.push(*position);
                // Should an executor of the earlier intent be quicker, the document is taken out of what it wrote.
                quarantine.replaces.push((*position, object.key.clone()));
            }
            let replaces = object.replaces.iter().filter(|(position, _)| entries.contains(position)).cloned().collect();
            // One that loses all its entries is written all the same, empty, and so are its JSON lines: otherwise an
            // executor of the earlier intent, which wakes up late, would still find its key free.
            next.objects.push(PlannedObject { entries, replaces, ..object.clone() });
        }
        next.objects.extend(by_date.into_values());
        next
    }
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
        let (slot, bytes) = ((entry.outcome.disposition, entry.date()), entry.bytes + entry.related_bytes);
        let current = match self.filled.get(&slot) {
            Some((object, filled)) if filled + bytes <= OBJECT_BYTES => (*object, filled + bytes),
            _ => (self.open(&slot), bytes),
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
        let name = if archived { keys::parquet_key } else { keys::quarantine_key };
        self.objects.push(PlannedObject {
            disposition: *disposition,
            date: date.clone(),
            key: name(date, self.window_id, self.run_id, *part),
            jsonl_key: (archived && self.jsonl).then(|| keys::jsonl_key(date, self.window_id, self.run_id, *part)),
            entries: Vec::new(),
            replaces: Vec::new(),
        });
        *part += 1;
        self.objects.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::classification::Outcome;
    use crate::source::Source;
    use identity::instant;

    fn entry(id: &str, at: &str, bytes: u64, disposition: Disposition) -> Entry {
        let outcome = Outcome { disposition, reason: None, no_alerts: false };
        Entry {
            related: String::new(),
            related_bytes: 0,
            index: "messages".into(),
            id: id.into(),
            at: instant::parse(at).expect("instant"),
            version: String::new(),
            bytes,
            source: Source::Opensearch,
            written: None,
            outcome,
        }
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
            Entry { related_bytes: OBJECT_BYTES, ..entry("f", "2024-07-02", 1, Disposition::Closed) },
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
                ("archive/parquet/date=2024-07-02/w1.r1.0001.parquet".to_owned(), vec![5]),
            ]
        );
    }

    #[test]
    fn a_document_excluded_from_an_intent_leaves_its_object_and_everything_else_stays() {
        let entries = [
            entry("a", "2024-07-01", 1, Disposition::Closed),
            entry("b", "2024-07-01", 1, Disposition::Closed),
            entry("c", "2024-07-01", 1, Disposition::Quarantined),
            Entry {
                outcome: Outcome { no_alerts: true, ..entry("", "2024-07-02", 1, Disposition::Closed).outcome },
                ..entry("d", "2024-07-02", 1, Disposition::Closed)
            },
        ];
        let mut layout = Layout::new("r1", "w1", true);
        for (position, entry) in entries.iter().enumerate() {
            layout.push(position as u32, entry, (position < 2).then(|| format!("earlier-{position}")));
        }
        let counts =
            crate::counts::Messages { source: 4, archived: 3, quarantined: 1, no_alerts: 1, ..Default::default() };
        let intent = Intent {
            run_id: "r1".into(),
            window_id: "w1".into(),
            attempt: 1,
            spool_prefix: "spool/r1/w1/1".into(),
            pairs: 1,
            source_bytes: 4,
            archived_at: jiff::Timestamp::UNIX_EPOCH,
            seen_at: None,
            jsonl: true,
            message_json: true,
            cold_storage: false,
            objects: layout.finish(),
            counts,
            outlives_spool: true,
            amended: 0,
        };
        let next = intent.without(&BTreeMap::from([
            (1, entries[1].clone()),
            (3, entries[3].clone()),
            (2, entries[2].clone()),
        ]));
        let shown: Vec<_> = next
            .objects
            .iter()
            .map(|object| (object.key.as_str(), object.entries.clone(), object.replaces.clone()))
            .collect();
        let (first, second) = (
            "archive/parquet/date=2024-07-01/w1.r1.0000.parquet",
            "archive/parquet/date=2024-07-02/w1.r1.0000.parquet",
        );
        assert_eq!(
            shown,
            [
                (first, vec![0], vec![(0, "earlier-0".to_owned())]),
                ("quarantine/date=2024-07-01/w1.r1.0000.jsonl.zst", vec![2], vec![]),
                (second, vec![], vec![]),
                ("quarantine/date=2024-07-01/w1.r1~1.9001.jsonl.zst", vec![1], vec![(1, first.to_owned())]),
                ("quarantine/date=2024-07-02/w1.r1~1.9001.jsonl.zst", vec![3], vec![(3, second.to_owned())]),
            ]
        );
        assert_eq!(
            (next.counts.archived, next.counts.quarantined, next.counts.no_alerts, next.counts.reconciled()),
            (1, 3, 0, true)
        );
        assert!(next.key() != intent.key() && next.archived_at == intent.archived_at);
    }
}
