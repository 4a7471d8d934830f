//! The two places that messages come from.

use serde::{Deserialize, Serialize};

/// Where the documents of a window are read from; fixed in the plan, so that a retry reads the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    #[default]
    Opensearch,
    Api,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Opensearch => "opensearch",
            Source::Api => "api",
        }
    }

    pub fn is_opensearch(&self) -> bool {
        *self == Source::Opensearch
    }
}
