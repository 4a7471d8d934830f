//! What things are called: a document's identity, instants in their two spellings, and key components that are safe
//! in S3 and on any file system. Pure; no rule of a pipeline may enter.

pub mod instant;
mod key;

pub use key::safe_component;

use serde::{Deserialize, Serialize};
use std::fmt;

/// A document: the concrete index that holds it (never an alias) and its `_id` there. One id in two indices is two
/// documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub source_index: String,
    pub id: String,
}

impl Identity {
    pub fn new(source_index: impl Into<String>, id: impl Into<String>) -> Self {
        Identity { source_index: source_index.into(), id: id.into() }
    }
}

/// `messages-2024/m-17`, for messages to people; ids may hold slashes, so it cannot be read back.
impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{}/{}", self.source_index, self.id)
    }
}
