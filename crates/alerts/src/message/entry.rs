//! What the steps know of a document without its body: one line of a spool index.

use crate::message::classification::Outcome;
use crate::source::Source;
use identity::{Identity, instant};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The write that made a document what it is, as its index numbers its writes. While it is the same the document is the
/// same; another one may have brought the same bytes. So it tells what need not be read, and never what a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    #[serde(rename = "_seq_no")]
    pub seq_no: u64,
    #[serde(rename = "_primary_term")]
    pub primary_term: u64,
}

/// One line of a spool index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub index: String,
    pub id: String,
    /// The earliest instant that the source indexed for the document: it decides the window and the partition.
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
    pub version: String,
    /// Hash of its history and audit; empty where they were not read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub related: String,
    /// Length of the document in bytes.
    pub bytes: u64,
    /// Length of its history and audit that stand beside it in the spool.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub related_bytes: u64,
    /// Where these bytes are from.
    #[serde(default, skip_serializing_if = "Source::is_opensearch")]
    pub source: Source,
    /// None where these bytes are the API's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

pub(crate) fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Entry {
    pub fn identity(&self) -> Identity {
        Identity::new(&self.index, &self.id)
    }

    pub fn date(&self) -> String {
        instant::date(self.at)
    }
}
