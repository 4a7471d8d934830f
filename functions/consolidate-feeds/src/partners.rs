//! The partners' table, and what a function has read of it.

use feeds::Rules;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use storage::{LedgerError, Table};

/// How long what the table said is taken for true. A content type that it does not have is asked for each time.
const CACHED: SignedDuration = SignedDuration::from_secs(10);

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
