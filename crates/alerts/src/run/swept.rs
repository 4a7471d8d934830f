//! How far the writes of each index have been looked at. A document that is written behind the range of every later
//! run, because it came late, was changed, or was opened again, has a write that no sweep has looked at yet.

use super::keyed_by_run;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the `run_id` of such a row of `job-runs` begins; the index follows.
const SWEPT: &str = "#swept/";

/// The row of one index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swept {
    pub run_id: String,
    #[serde(flatten)]
    pub index: IndexSwept,
    pub revision: u64,
}

/// How far one index has been looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexSwept {
    /// Its name.
    pub index: String,
    /// Names the numbering. An index that was made anew under an old name has another one, and so has one of which a
    /// shard was restored in place: `<uuid of the index>@<hash of its shards' histories>`.
    pub uuid: String,
    /// By shard: every write up to this sequence number has been looked at, and none behind it; -1 before the first.
    pub shards: BTreeMap<String, i64>,
    /// When a plan looked first: of two indices of one name, the later is the one that is there.
    #[serde(default, with = "crate::message::tracking::optional_iso", skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Swept {
    pub fn key_of(index: &str) -> String {
        format!("{SWEPT}{index}")
    }

    pub fn new(index: IndexSwept) -> Self {
        Swept { run_id: Swept::key_of(&index.index), index, revision: 0 }
    }
}

impl IndexSwept {
    /// Up to where a shard of the index that has this uuid now has been looked at.
    pub fn up_to(&self, uuid: &str, shard: &str) -> Option<i64> {
        self.shards.get(shard).copied().filter(|_| self.is_numbered_on(uuid))
    }

    /// What is noted once this has been looked at, too: never back, and of another index only if that is not the earlier.
    pub fn after(&self, before: &IndexSwept) -> IndexSwept {
        if !before.is_numbered_on(&self.uuid) {
            return if self.at < before.at { before.clone() } else { self.clone() };
        }
        let mut next = IndexSwept { at: before.at.or(self.at), ..self.clone() };
        for (shard, up_to) in &before.shards {
            let shard = next.shards.entry(shard.clone()).or_insert(*up_to);
            *shard = (*shard).max(*up_to);
        }
        next
    }

    /// Whether the index that has this uuid now numbers its writes on from where this was noted. What was noted before
    /// histories were is of the index alone.
    pub fn is_numbered_on(&self, uuid: &str) -> bool {
        let noted = self.uuid.as_str();
        noted == uuid || (!noted.contains('@') && uuid.split('@').next() == Some(noted))
    }
}

keyed_by_run!(Swept: |run_id: &str| run_id.starts_with(SWEPT));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_made_anew_under_an_old_name_has_not_been_looked_at() {
        let shards = BTreeMap::from([("0".to_owned(), 41), ("1".to_owned(), -1)]);
        let swept = IndexSwept { index: "messages-1".into(), uuid: "a".into(), shards, at: None };
        assert_eq!((swept.up_to("a", "0"), swept.up_to("a", "1"), swept.up_to("a", "2")), (Some(41), Some(-1), None));
        assert_eq!(swept.up_to("b", "0"), None);
        assert_eq!(swept.up_to("a@1", "0"), Some(41), "noted before histories were");
        let with_history = IndexSwept { uuid: "a@1".into(), ..swept.clone() };
        assert_eq!((with_history.up_to("a@1", "0"), with_history.up_to("a@2", "0")), (Some(41), None));
        assert_eq!(with_history.up_to("a", "0"), None, "it was restored, and tells no history any more");
        let row = serde_json::to_value(Swept::new(swept.clone())).expect("JSON");
        assert_eq!((&row["run_id"], &row["shards"]["0"]), (&"#swept/messages-1".into(), &41.into()));
        assert_eq!(serde_json::from_value::<Swept>(row).expect("a row"), Swept::new(swept));
    }

    #[test]
    fn a_run_that_ends_late_does_not_overwrite_the_marks_of_the_index_that_was_made_anew_meanwhile() {
        let swept = |uuid: &str, at: &str, up_to: i64| IndexSwept {
            index: "messages-1".into(),
            uuid: uuid.into(),
            shards: BTreeMap::from([("0".to_owned(), up_to)]),
            at: identity::instant::parse(at),
        };
        let (old, new) = (swept("a", "2026-01-01", 41), swept("b", "2026-01-08", 7));
        assert_eq!((new.after(&old), old.after(&new)), (new.clone(), new.clone()), "whichever is noted first");
        let late = swept("b", "2026-01-07", 5);
        assert_eq!(late.after(&new), new, "nothing changes, and nothing is written");
        assert_eq!(new.after(&late), IndexSwept { at: late.at, ..new });
    }
}
