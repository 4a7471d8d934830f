//! Makes a version the one that readers see. Each step can be repeated, by this call or another.

use crate::claim::Holder;
use crate::{Deps, Error};
use futures::{StreamExt, TryStreamExt, stream};
use log_entries::{
    ALL_OBJECTS, Attempt, Contribution, Occurrence, Sightings, VersionIntent, sightings_by_object, write,
};
use logs::service_of;
use std::collections::HashSet;
use storage::PutOnce;

pub const PARQUET: &str = "application/vnd.apache.parquet";
/// Rows written at once.
const WRITES: usize = 16;

pub async fn carry_out(deps: &Deps, key: &str, intent: &VersionIntent) -> Result<(), Error> {
    for moved in intent.moves(key) {
        let Some(body) = deps.archive.find(&moved.from).await? else {
            // Another executor of this intent was quicker.
            deps.archive
                .head(&moved.to)
                .await?
                .ok_or_else(|| deps.archive.corrupt(&moved.to, "its staged bytes are gone"))?;
            continue;
        };
        let wanted = body.len();
        match deps.archive.put_once(&moved.to, body, PARQUET).await? {
            PutOnce::Created(_) => {}
            PutOnce::Exists(head) if head.bytes == wanted as u64 => {}
            PutOnce::Exists(_) => return Err(deps.archive.corrupt(&moved.to, "it is not what was staged").into()),
        }
    }
    let version = &intent.version;
    let added: Vec<Contribution> = deps.archive.get_lines(&version.contributions).await?;
    let key_of = |contribution: &Contribution| Occurrence::partition(&contribution.service, &contribution.fingerprint);
    let row = |fingerprint: String, contribution| Occurrence {
        fingerprint,
        object: key.to_owned(),
        sequencer: version.sequencer.clone(),
        contribution,
        revision: 0,
    };
    let still: HashSet<String> = added.iter().map(key_of).collect();
    note(deps, added.iter().map(|added| row(key_of(added), Some(added.clone()))).collect()).await?;
    let seen = added.iter().map(|added| see(deps, added));
    let () = stream::iter(seen.collect::<Vec<_>>()).buffer_unordered(WRITES).try_collect().await?;
    let Some(before) = &intent.before else { return Ok(()) };
    let earlier: Vec<Contribution> = deps.archive.find_lines(&before.contributions).await?.unwrap_or_default();
    let gone = earlier.iter().map(key_of).filter(|fingerprint| !still.contains(fingerprint));
    note(deps, gone.map(|fingerprint| row(fingerprint, None)).collect()).await?;
    // An object without rows takes the place of each earlier part. Were the part deleted, an executor of the earlier
    // version that was thought dead could create it again.
    let empty = write(service_of(key), key, &[]).map_err(|source| Error::Columns { key: key.to_owned(), source })?;
    for part in before.part_keys(key) {
        deps.archive.put(&part, empty.clone(), PARQUET).await?;
    }
    Ok(())
}

/// Writes rows, unless a later version of the object has written them.
async fn note(deps: &Deps, rows: Vec<Occurrence>) -> Result<(), Error> {
    let writes = rows.into_iter().map(|row| async move {
        let decide = |standing: Option<&Occurrence>| {
            let is_newer = standing.is_some_and(|standing| standing.sequencer > row.sequencer);
            Ok::<_, Error>((!is_newer).then(|| row.clone()))
        };
        deps.occurrences.update(&row.fingerprint, Some(&row.object), decide).await.map(|_| ())
    });
    stream::iter(writes).buffer_unordered(WRITES).try_collect().await
}

/// Notes when an error was seen, behind the row of its object.
async fn see(deps: &Deps, added: &Contribution) -> Result<(), Error> {
    let key = Sightings::key_of(&added.service, &added.fingerprint);
    let earlier = match deps.sightings.get(&key, Some(ALL_OBJECTS)).await? {
        Some(standing) if Sightings::with(Some(&standing), added).is_none() => return Ok(()),
        Some(_) => None,
        None => sightings_by_object(&deps.occurrences, &added.service, &added.fingerprint).await?,
    };
    let decide = |standing: Option<&Sightings>| {
        let with = Sightings::with(standing.or(earlier.as_ref()), added);
        Ok::<_, Error>(if standing.is_none() { with.or_else(|| earlier.clone()) } else { with })
    };
    deps.sightings.update(&key, Some(ALL_OBJECTS), decide).await.map(|_| ())
}

/// What served the commit only, and what attempts left that died before it.
pub async fn clean_up(deps: &Deps, holder: &Holder, intent: &VersionIntent) -> Result<(), Error> {
    for moved in intent.moves(&holder.key) {
        deps.archive.delete(&moved.from).await?;
    }
    if let Some(before) = &intent.before {
        deps.archive.delete(&before.contributions).await?;
    }
    // The first attempt has nothing in front of it.
    if holder.attempt > 1 {
        for folder in Attempt::folders(&holder.key) {
            for key in deps.archive.list(&folder).await? {
                // Later versions may be at work already. Up to this one, no attempt has the right to go on.
                let is_over = Attempt::of(&key).is_some_and(|attempt| attempt.sequencer <= holder.sequencer);
                if is_over && key != intent.version.contributions {
                    deps.archive.delete(&key).await?;
                }
            }
        }
    }
    Ok(())
}
