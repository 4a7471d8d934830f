//! What a build knew when it ended: one document, put in force by one write to the build's row.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildState {
    /// sha256 of the schema file that was in force, in hex.
    pub schema: String,
    pub sources: BTreeMap<String, SourceState>,
    pub tables: BTreeMap<String, TableState>,
    /// Earlier locations that readers may still have open.
    #[serde(default)]
    pub superseded: Vec<Superseded>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceState {
    /// Digest of the table's entry in the schema file.
    pub definition: String,
    /// In the order of their places.
    pub objects: Vec<BuiltObject>,
    /// Lines built.
    pub rows: u64,
    pub quarantined: u64,
    /// Greatest finite cursor of the lines, in microseconds since 1970.
    pub greatest: Option<i64>,
    pub gaps: Vec<(u64, u64)>,
    /// Columns of lines that the file does not name.
    pub added: Vec<String>,
    /// Columns of the file that the latest object's rows do not have.
    pub dropped: Vec<String>,
    /// Objects that could not be read.
    pub failures: Vec<UnreadObject>,
    /// Keys of the objects with the lines that no table took.
    #[serde(default)]
    pub quarantine: Vec<String>,
    /// The lines of all objects as they were read. `None`: the next build reads the objects again.
    #[serde(default)]
    pub lines: Option<StoredLines>,
}

/// The lines of a source, so that a build need not read them again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredLines {
    /// Another number is another form, which is not read.
    pub format: u32,
    /// All lines of a key are there, and not only those that its newest values follow from.
    pub has_all: bool,
    pub segments: Vec<Segment>,
}

/// All lines of some keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Begins the keys of its two objects.
    pub key: String,
    /// Of lines, unpacked.
    pub bytes: u64,
    /// The same when it was first written.
    pub first_bytes: u64,
}

impl Segment {
    pub fn lines_key(&self) -> String {
        format!("{}lines.zst", self.key)
    }

    pub fn index_key(&self) -> String {
        format!("{}index", self.key)
    }
}

/// An object that could not be read, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreadObject {
    pub object: String,
    pub bytes: u64,
    pub error: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuiltObject {
    pub key: String,
    pub bytes: u64,
    /// Entity tag of what was read.
    pub tag: String,
    /// By which stored lines refer to it.
    #[serde(default)]
    pub number: u32,
    /// Columns of the file that its rows do not have; `None`: it has no rows.
    #[serde(default)]
    pub dropped: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableState {
    /// Digest of all that the schema file says of it and of its source.
    pub definition: String,
    pub rows: u64,
    /// Prefix in the warehouse bucket, with a slash at its end.
    pub prefix: String,
    /// Of a dimension: where its members lie.
    #[serde(default)]
    pub members: Option<String>,
    /// Rows with the member -1, by column.
    #[serde(default)]
    pub unknown: BTreeMap<String, u64>,
    /// What of it is made of each segment of its source; none where the segments are others by now.
    #[serde(default)]
    pub parts: Vec<TablePart>,
    /// Of a dimension: with which its surrogate keys are made.
    #[serde(default)]
    pub salt: u32,
}

/// The rows of a table that are made of one segment of its source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TablePart {
    /// Behind the table's prefix.
    pub objects: Vec<String>,
    pub rows: u64,
    /// Rows with the member -1, by column.
    pub unknown: BTreeMap<String, u64>,
    /// Of a fact: the greatest of the times as of which its members are looked for, in microseconds since 1970.
    pub latest: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Superseded {
    /// A prefix, or the key of members.
    pub prefix: String,
    /// May be removed from this second since 1970 on.
    pub until: i64,
}
