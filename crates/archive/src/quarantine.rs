use crate::Tracking;
use alerts::{
    keys::QUARANTINE,
    message::{classification::Disposition, tracking::Row},
};
use errors::{Name, Named};
use serde::Deserialize;
use storage::{LedgerError, Objects, StoreError};

/// A message that is in quarantine now.
#[derive(Clone, Debug)]
pub struct Quarantined {
    /// The object that holds it.
    pub key: String,
    pub source_index: String,
    pub id: String,
    /// As the ledger has it.
    pub reason: String,
    pub source_base64: String,
}

#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Named for QuarantineError {
    fn name(&self) -> Name {
        match self {
            QuarantineError::Store(error) => error.name(),
            QuarantineError::Ledger(error) => error.name(),
        }
    }
}

/// A line of a quarantine object.
#[derive(Debug, Deserialize)]
pub struct QuarantineLine {
    pub source_index: String,
    pub id: String,
    pub reason: String,
    pub source_base64: String,
}

/// Looks at every message in quarantine whose object is wanted, by its key, one object at a time. A message that was
/// archived meanwhile has left; its line stays as it was written.
pub async fn quarantined(
    objects: &Objects,
    ledger: &Tracking,
    is_wanted: impl Fn(&str) -> bool,
    mut look: impl FnMut(Quarantined),
) -> Result<(), QuarantineError> {
    for key in objects.list(&format!("{QUARANTINE}date=")).await?.into_iter().filter(|key| is_wanted(key)) {
        let lines: Vec<QuarantineLine> = objects.get_lines(&key).await?;
        let keys: Vec<_> = lines.iter().map(|line| (line.id.clone(), Some(line.source_index.clone()))).collect();
        let rows = ledger.rows.get_many(&keys).await?;
        let uri = objects.uri(&key);
        for (line, row_key) in lines.into_iter().zip(keys) {
            let is_here = |row: &&Row| {
                row.disposition == Disposition::Quarantined && row.s3_path.as_deref() == Some(uri.as_str())
            };
            if let Some(row) = rows.get(&row_key).filter(is_here) {
                let QuarantineLine { source_index, id, reason, source_base64 } = line;
                let reason = row.reason.clone().unwrap_or(reason);
                look(Quarantined { key: key.clone(), source_index, id, reason, source_base64 });
            }
        }
    }
    Ok(())
}
