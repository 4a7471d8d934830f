//! What the steps know of a document without its body: one line of a spool index.

use crate::message::classification::Outcome;
use crate::source::Source;
use identity::{Identity, instant};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One line of a spool index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub index: String,
    pub id: String,
    /// The earliest instant that the source indexed for the document: it decides the window and the partition.
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
    pub version: String,
    /// Length of the document in bytes.
    pub bytes: u64,
    /// Where these bytes are from.
    #[serde(default, skip_serializing_if = "Source::is_opensearch")]
    pub source: Source,
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Entry {
    pub fn identity(&self) -> Identity {
        Identity::new(&self.index, &self.id)
    }

    pub fn date(&self) -> String {
        instant::date(self.at)
    }
}
