//! What a table's last ingest and build have reached, in Parameter Store, for operators and other programs. The table's row
//! decides. An ingest reads the parameter all the same: it never begins later than the parameter says, and never gives an
//! id again that the parameter knows of, should the row be lost.

use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where the next ingest of a table begins, as its parameter says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IngestParameter {
    /// As PostgreSQL writes it, UTC; `None`: at the beginning.
    pub timestamp: Option<String>,
    pub sequential_id: u64,
    pub latest_object: Option<String>,
}

/// What the last build of a table has read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildParameter {
    pub latest_object: Option<String>,
    pub sequential_id: u64,
    pub rows: u64,
    #[serde(with = "instant::serde_iso")]
    pub built_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use parameters::{MemoryParameters, tell};
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn the_longest_key_of_an_object_fits_and_any_name_of_a_table_does() {
        let table = "Größe %/\"".repeat(5);
        let name = crate::build_parameter("/deployment/warehouse", &table);
        let latest_object = Some("k".repeat(1024));
        let parameter =
            BuildParameter { latest_object, sequential_id: u64::MAX, rows: u64::MAX, built_at: Timestamp::MAX };
        tell(&MemoryParameters::default(), &name, &parameter).await.expect("told");
    }

    #[test]
    fn no_two_tables_share_a_parameter() {
        let tables = ["a_b", "a-b", "a b", "a/b", "a.b", "A_b", "a-2db", "ab", "a_b/build"];
        let names: BTreeSet<String> = tables.iter().map(|table| crate::build_parameter("/p", table)).collect();
        assert_eq!(names.len(), tables.len(), "{names:?}");
    }
}
