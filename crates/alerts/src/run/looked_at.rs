//! What the plan of a run found out about messages outside its range by their names alone, without reading one of them.
//! It is stored once, like the list of windows: a repeated plan and the report go by what stands there.

use crate::run::swept::IndexSwept;
use crate::window::plan::{Left, Window};
use identity::{Identity, instant};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `runs/<run>/looked-at.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LookedAt {
    /// Held-over messages that were looked for.
    pub held_over: u64,
    /// Of those, the ones that stand in no index any more.
    pub gone: Vec<Gone>,
    /// Held-over messages that are among what a window lists, or are gone.
    #[serde(default)]
    pub listed: Vec<ListedWindow>,
    /// Windows of the documents that are to be read.
    pub windows: Vec<Window>,
    /// How far the sweep has looked, once these windows are committed.
    #[serde(default)]
    pub swept: Vec<IndexSwept>,
    /// Messages whose index took the place of another.
    #[serde(default)]
    pub moved: u64,
    /// Writes that the sweep has not looked at.
    #[serde(default)]
    pub writes_left: u64,
    /// What lies behind the end of this run, where its plan was capped. It is fixed before the list of windows is, so
    /// that every call of the plan lists windows up to the same instant, and the watermark stops there.
    #[serde(default)]
    pub left: Option<Left>,
}

/// The held-over messages of one instant, all of whose messages a window lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListedWindow {
    pub window_id: String,
    pub messages: Vec<Gone>,
}

/// A held-over message that the source has no more, or may have no more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gone {
    #[serde(flatten)]
    pub document: Identity,
    #[serde(with = "instant::serde_iso")]
    pub timestamp: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub first_seen_open: Timestamp,
    /// Of its row when it was looked for.
    pub revision: u64,
}
