//! The partners' table, and what a function has read of it.

use feeds::Rules;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use storage::{LedgerError, Table};

/// How long what the table said is taken for true.
const CACHED: SignedDuration = SignedDuration::from_secs(10);
/// How long a row is taken to be absent: an operator who adds it replays what failed at once.
const ABSENT: SignedDuration = SignedDuration::from_secs(1);

pub struct Partners {
    table: Table<Rules>,
    cache: Mutex<HashMap<String, Known>>,
}

struct Known {
    read_at: Timestamp,
    rules: Option<Rules>,
}

impl Partners {
    pub fn new(table: Table<Rules>) -> Self {
        Partners { table, cache: Mutex::default() }
    }

    /// `None`: the content type is not known.
    pub async fn rules(&self, content_type: &str, now: Timestamp) -> Result<Option<Rules>, LedgerError> {
        let is_fresh = |known: &Known| {
            let age = now.duration_since(known.read_at);
            age < if known.rules.is_some() { CACHED } else { ABSENT }
        };
        if let Some(known) = self.cache().get(content_type).filter(|known| is_fresh(known)) {
            return Ok(known.rules.clone());
        }
        let rules = self.table.get(content_type, None).await?;
        let mut cache = self.cache();
        // Content types come from outside: what is out of date may not pile up.
        cache.retain(|_, known| is_fresh(known));
        cache.insert(content_type.to_owned(), Known { read_at: now, rules: rules.clone() });
        Ok(rules)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
