use crate::{Ledger, LedgerError, Table};
use alerts::{
    intent::Decision,
    ledger::{Claim, Row, stage},
    spool::Entry,
};
use jiff::Timestamp;
use errors::{Name, Named};
use std::collections::HashMap;

/// How often rows are staged again because somebody else changed them meanwhile.
const ROUNDS: usize = 6;

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{rows} rows of table {table} changed again and again while they were being staged")]
    Contended { table: String, rows: usize },
}

impl Named for StageError {
    fn name(&self) -> Name {
        match self {
            StageError::Ledger(error) => error.name(),
            StageError::Contended { .. } => Name::LedgerUnavailable,
        }
    }
}

/// Stages classified documents on behalf of `claim`; answers a decision for each, in order.
pub async fn stage_all(ledger: &Ledger, entries: &[&Entry], claim: &Claim, now: Timestamp) -> Result<Vec<Decision>, StageError> {
    let mut decisions: Vec<Option<Decision>> = vec![None; entries.len()];
    for _ in 0..ROUNDS {
        let undecided: Vec<usize> = (0..entries.len()).filter(|position| decisions[*position].is_none()).collect();
        if undecided.is_empty() {
            break;
        }
        let keys: Vec<_> = undecided.iter().map(|position| row_key(entries[*position])).collect();
        let rows = ledger.get_many(&keys).await?;
        let mut changes = Vec::new();
        for (position, key) in undecided.iter().zip(&keys) {
            let staged = stage(rows.get(key), entries[*position], claim, now);
            decisions[*position] = Some(staged.decision);
            changes.extend(staged.row);
        }
        let lost = ledger.put_many(changes).await?;
        let lost: HashMap<_, Row> = lost.into_iter().map(|row| ((row.message_id.clone(), Some(row.source_index.clone())), row)).collect();
        for (position, key) in undecided.iter().zip(&keys) {
            if lost.contains_key(key) {
                decisions[*position] = None;
            }
        }
    }
    let rows = decisions.iter().filter(|decision| decision.is_none()).count();
    decisions.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| StageError::Contended { table: ledger.name().to_owned(), rows })
}

/// The ledger's key of a document.
pub fn row_key(entry: &Entry) -> (String, Option<String>) {
    (entry.id.clone(), Some(entry.index.clone()))
}

impl Table<Row> {
    /// Reads the rows of `entries` and changes each as `decide` says, until nobody interferes.
    pub async fn change_all<E: From<LedgerError>>(
        &self,
        entries: &[&Entry],
        mut decide: impl FnMut(&Entry, Option<&Row>) -> Result<Option<Row>, E>,
    ) -> Result<(), E> {
        let mut left: Vec<&Entry> = entries.to_vec();
        for _ in 0..ROUNDS {
            let keys: Vec<_> = left.iter().map(|entry| row_key(entry)).collect();
            let rows = self.get_many(&keys).await?;
            let mut changes = Vec::new();
            for (entry, key) in left.iter().zip(&keys) {
                changes.extend(decide(entry, rows.get(key))?);
            }
            let lost = self.put_many(changes).await?;
            if lost.is_empty() {
                return Ok(());
            }
            let lost: std::collections::HashSet<_> = lost.into_iter().map(|row| (row.message_id, row.source_index)).collect();
            left.retain(|entry| lost.contains(&(entry.id.clone(), entry.index.clone())));
        }
        Err(LedgerError::Contended { table: self.name().to_owned(), key: format!("{} rows", left.len()), tries: ROUNDS }.into())
    }
}
