//! Which partners come first and which are left out, by content type, from a table that operators keep.

use feeds::Rank;
use jiff::{SignedDuration, Timestamp};
use ledger::Keyed;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use storage::{LedgerError, Table};

/// How long what the table said is taken for true. A content type that it does not have is asked for each time.
const CACHED: SignedDuration = SignedDuration::from_secs(10);

/// A row of the partners' table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    pub content_type: String,
    #[serde(default)]
    pub priority_partners: Vec<String>,
    #[serde(default)]
    pub blocked_partners: Vec<String>,
}

impl Keyed for Rules {
    const PARTITION: &'static str = "content_type";
    const SORT: Option<&'static str> = None;
    fn key(&self) -> (String, Option<String>) {
        (self.content_type.clone(), None)
    }
    /// Operators write these rows; the product only reads them.
    fn revision(&self) -> u64 {
        0
    }
    fn revised(self, _: u64) -> Self {
        self
    }
}

/// What becomes of a partner's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    Consolidate(Rank),
    Blocked,
}

impl Rules {
    /// A partner in both lists is blocked.
    pub fn treatment(&self, partner: &str) -> Treatment {
        let is_in = |list: &[String]| list.iter().any(|listed| listed == partner);
        if is_in(&self.blocked_partners) {
            Treatment::Blocked
        } else if is_in(&self.priority_partners) {
            Treatment::Consolidate(Rank::Priority)
        } else {
            Treatment::Consolidate(Rank::Other)
        }
    }
}

pub struct Partners {
    table: Table<Rules>,
    cache: Mutex<HashMap<String, (Timestamp, Rules)>>,
}

impl Partners {
    pub fn new(table: Table<Rules>) -> Self {
        Partners { table, cache: Mutex::default() }
    }

    /// `None`: the content type is not known.
    pub async fn rules(&self, content_type: &str, now: Timestamp) -> Result<Option<Rules>, LedgerError> {
        let cached = self.cache().get(content_type).cloned();
        if let Some((_, rules)) = cached.filter(|(read_at, _)| now.duration_since(*read_at) < CACHED) {
            return Ok(Some(rules));
        }
        let rules = self.table.get(content_type, None).await?;
        if let Some(rules) = &rules {
            self.cache().insert(content_type.to_owned(), (now, rules.clone()));
        }
        Ok(rules)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Timestamp, Rules)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
