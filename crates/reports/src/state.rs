use serde::{Deserialize, Serialize};

/// How much a reader has to care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Says nothing of good or bad.
    #[default]
    Plain,
    Good,
    /// An operator should look at it, though nothing failed.
    Attention,
    Bad,
}
