//! The row of `job-runs` that says which indices of messages the runs have read: rows of messages are called after them,
//! also when another index has taken the place of one.

use super::keyed_by_run;
use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// `run_id` of the row.
pub const INDICES: &str = "#indices";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndicesRead {
    pub run_id: String,
    /// Of those that the last plan found, the beginning of the sha256 of each name: ten thousand long names would not
    /// fit into a row.
    pub present: BTreeSet<String>,
    /// One that an earlier plan found is gone. That stays so: its rows may lie in wait for years.
    pub is_one_gone: bool,
    /// When the last plan looked.
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
    pub revision: u64,
}

keyed_by_run!(IndicesRead: |run_id| run_id == INDICES);

impl IndicesRead {
    /// After a plan that found these.
    pub fn with<'a>(before: Option<&Self>, names: impl IntoIterator<Item = &'a String>, at: Timestamp) -> Self {
        let short = |name: &String| crate::message::document::version(name.as_bytes())[..16].to_owned();
        let present: BTreeSet<String> = names.into_iter().map(short).collect();
        let is_one_gone = before.is_some_and(|before| before.is_one_gone || !before.present.is_subset(&present));
        let at = before.map_or(at, |before| before.at.max(at));
        IndicesRead { run_id: INDICES.to_owned(), present, is_one_gone, at, revision: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_an_index_is_gone_is_not_forgotten() {
        let at = |day: &str| instant::parse(day).expect("an instant");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let first = IndicesRead::with(None, &names(&["a", "b"]), at("2026-01-01"));
        let grown = IndicesRead::with(Some(&first), &names(&["a", "b", "c"]), at("2026-01-02"));
        assert_eq!((first.is_one_gone, grown.is_one_gone, grown.at), (false, false, at("2026-01-02")));
        let shrunk = IndicesRead::with(Some(&grown), &names(&["a", "c"]), at("2026-01-01"));
        assert_eq!((shrunk.is_one_gone, shrunk.at), (true, at("2026-01-02")), "a late plan's time counts no more");
        assert!(IndicesRead::with(Some(&shrunk), &names(&["a", "b", "c"]), at("2026-01-03")).is_one_gone);
    }
}
