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
    pub failures: Vec<Place>,
}

/// An object that could not be read, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
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
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Superseded {
    /// A prefix, or the key of members.
    pub prefix: String,
    /// May be removed from this second since 1970 on.
    pub until: i64,
}
