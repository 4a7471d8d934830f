//! Which archived rows are not final, because their messages are open again: listed anew with each report, whole, from
//! the ledger, so that a list that was never written is made good by the next.

use crate::{Deps, Error};
use alerts::{keys::REOPENED, message::tracking::Row, run::looked_at::Gone};
use columnar::reopened::{Reopened, read, write};
use identity::Identity;
use jiff::Timestamp;
use std::collections::BTreeMap;
use storage::PutOnce;

/// How often the list is made again because another run has written it meanwhile.
const ROUNDS: usize = 8;
const PARQUET: &str = "application/vnd.apache.parquet";

/// Writes the list, and returns how many rows it has. `gone`: messages that this run has found gone, at `now`, and
/// whose rows say so once the report that names them is written.
pub async fn list(deps: &Deps, gone: &[Gone], now: Timestamp) -> Result<u64, Error> {
    let unreadable = |error| deps.objects.corrupt(REOPENED, error);
    for _ in 0..ROUNDS {
        // Before the ledger is read: a list that is written over another's was made from rows as they stood after it.
        let before = deps.objects.find_versioned(REOPENED).await?;
        let listed = match &before {
            Some((body, _)) => read(body.clone()).map_err(unreadable)?,
            None => Vec::new(),
        };
        let mut rows = rows(deps, &listed).await?;
        for row in &mut rows {
            let is_gone = gone.iter().any(|gone| gone.document == row.identity() && gone.revision == row.revision);
            row.gone_at = row.gone_at.or(is_gone.then_some(now));
        }
        let rows: Vec<Reopened> = rows.iter().filter_map(reopened).collect();
        let body = write(&rows).map_err(unreadable)?;
        let is_written = match before {
            Some(_) if rows == listed => true,
            Some((_, tag)) => deps.objects.replace(REOPENED, body, PARQUET, &tag).await?,
            None => matches!(deps.objects.put_once(REOPENED, body, PARQUET).await?, PutOnce::Created(_)),
        };
        if is_written {
            return Ok(rows.len() as u64);
        }
    }
    Err(Error::ListContended { key: REOPENED.to_owned() })
}

/// Rows of reopened messages, in order of what the archive calls them.
async fn rows(deps: &Deps, listed: &[Reopened]) -> Result<Vec<Row>, Error> {
    let mut rows = BTreeMap::new();
    let note = |rows: &mut BTreeMap<Identity, Row>, row: Row| {
        if row.is_reopened() {
            rows.insert(row.archived_identity(), row);
        }
    };
    deps.ledger.staged(|row| note(&mut rows, row)).await?;
    // What is gone has left the staging area, and is known from an earlier list.
    let earlier: Vec<&Reopened> = listed.iter().filter(|row| !rows.contains_key(&row.identity)).collect();
    for Reopened { identity, .. } in earlier {
        deps.ledger.rows.partition(&identity.id).await?.into_iter().for_each(|row| note(&mut rows, row));
    }
    Ok(rows.into_values().collect())
}

fn reopened(row: &Row) -> Option<Reopened> {
    let object = row.archived_object()?.to_owned();
    let Row { reopened_at, gone_at, .. } = *row;
    Some(Reopened { identity: row.archived_identity(), object, reopened_at, gone_at })
}
