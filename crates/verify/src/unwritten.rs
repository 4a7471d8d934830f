//! Messages that a run had staged and none has written, and that the source has let go since. No run comes to their
//! rows again. What was read of them may still stand in the spool, and is then the only copy there is.

use crate::{Archive, Error};
use alerts::{
    keys::{checkpoint_key, index_key, records_key, spool_prefix},
    message::{
        entry::Entry,
        tracking::{NO_INDEX, Row},
    },
    window::spool::{Record, SpoolSummary},
};
use identity::Identity;
use sources::NAMES_AT_ONCE;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io::Cursor,
};
use storage::Objects;

/// Those of the rows whose messages the source has no more; none when it is not asked.
pub async fn gone(archive: &Archive, rows: &[&Row]) -> Result<HashSet<Identity>, Error> {
    let mut gone = HashSet::new();
    let Some(source) = &archive.source else { return Ok(gone) };
    // What no index had cannot be asked for by name.
    let names: Vec<Identity> =
        rows.iter().map(|row| row.identity()).filter(|name| name.source_index != NO_INDEX).collect();
    for names in names.chunks(NAMES_AT_ONCE) {
        let written = source.written(names).await?;
        // In an order of its own, so that a simulated history can be repeated.
        let absent: BTreeSet<&Identity> = names.iter().filter(|name| !written.contains_key(name)).collect();
        // A search asks every shard of every index: a document with a routing of its own, or one that was moved.
        let ids: Vec<&str> = absent.iter().map(|name| name.id.as_str()).collect();
        let mut found = HashSet::new();
        for Identity { source_index, id } in source.found(&ids).await?.into_iter().map(|sighting| sighting.document) {
            let is_it = absent.contains(&Identity::new(&source_index, &id));
            // In another index it is the same document that was moved, unless that one has a row of its own.
            if is_it || archive.ledger.rows.get(&id, Some(&source_index)).await?.is_none() {
                found.insert(id);
            }
        }
        gone.extend(absent.into_iter().filter(|name| !found.contains(&name.id)).cloned());
    }
    Ok(gone)
}

/// What the spool still has of these messages, which one attempt of a window has read: message, history and audit as
/// one JSON each. Nothing of what has expired.
pub async fn read_of(objects: &Objects, rows: &[&Row]) -> Result<HashMap<Identity, Vec<u8>>, Error> {
    let mut read = HashMap::new();
    let Some(first) = rows.first() else { return Ok(read) };
    let prefix = spool_prefix(&first.run_id, &first.window_id, first.attempt);
    let wanted: HashSet<Identity> = rows.iter().map(|row| row.identity()).collect();
    let summary: Option<SpoolSummary> = objects.find_json(&checkpoint_key(&prefix)).await?;
    for pair in 0..summary.map_or(0, |summary| summary.pairs) {
        let entries: Vec<Entry> = objects.find_lines(&index_key(&prefix, pair)).await?.unwrap_or_default();
        if !entries.iter().any(|entry| wanted.contains(&entry.identity())) {
            continue;
        }
        let key = records_key(&prefix, pair);
        let Some(body) = objects.find(&key).await? else { continue };
        let mut records = zstd::Decoder::new(Cursor::new(body)).map_err(|error| objects.corrupt(&key, error))?;
        for entry in entries {
            let record = Record::decode(&mut records).map_err(|error| objects.corrupt(&key, error))?;
            if wanted.contains(&entry.identity()) {
                read.insert(entry.identity(), record.json_parts().concat());
            }
        }
    }
    Ok(read)
}
