//! Which held-over messages are to be read again. Their names are asked for, a thousand at a time; a message whose last
//! write is the one that a run has read is as it was, and costs no more than that.

use crate::{Deps, Error};
use alerts::{
    message::tracking::{NO_INDEX, Row, STAGING_SHARDS},
    run::{job_run::RunStatus, looked_at::Gone},
    source::Source,
    window::plan::{Dated, Purpose, Window},
};
use jiff::Timestamp;
use sources::{NAMES_AT_ONCE, OpenSearch, Sighting};
use std::collections::HashMap;

/// What is known of the held-over messages.
#[derive(Default)]
pub struct HeldOver {
    pub looked_at: u64,
    pub gone: Vec<Gone>,
    /// To be read from OpenSearch, and from the API.
    changed: Vec<Dated>,
    of_the_api: Vec<Dated>,
}

impl HeldOver {
    pub fn windows(self) -> Vec<Window> {
        let mut windows = Window::of_documents(Purpose::Recheck, self.changed);
        // Numbered behind the others, so that no two share an id.
        let first = windows.len();
        let of_the_api = Window::numbered(Purpose::Recheck, first, self.of_the_api);
        windows.extend(of_the_api.into_iter().map(|window| window.read_from(Source::Api)));
        windows
    }
}

/// Looks for every held-over message but those that a window of the range reads anyway. A shard of them is in memory at once.
pub async fn look(
    deps: &Deps,
    opensearch: Option<&OpenSearch>,
    is_in_range: impl Fn(Timestamp) -> bool,
) -> Result<HeldOver, Error> {
    let (mut held_over, mut runs) = (HeldOver::default(), HashMap::new());
    for shard in 0..STAGING_SHARDS {
        let rows = deps.ledger.staged_in(shard).await?.into_iter();
        let rows: Vec<Row> = rows.filter(|row| !is_in_range(row.timestamp)).collect();
        let (rows, others): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(Row::is_held_over);
        held_over.looked_at += rows.len() as u64;
        for row in others {
            if is_left_behind(deps, &row, &mut runs).await? {
                held_over.looked_at += 1;
                match opensearch {
                    Some(_) if row.source_index != NO_INDEX => held_over.changed.push(dated(&row)),
                    _ => held_over.of_the_api.push(dated(&row)),
                }
            }
        }
        match opensearch {
            Some(opensearch) => {
                for rows in rows.chunks(NAMES_AT_ONCE) {
                    by_name(opensearch, deps.sources.api.is_some(), rows, &mut held_over).await?;
                }
            }
            None => held_over.of_the_api.extend(rows.iter().map(dated)),
        }
    }
    Ok(held_over)
}

/// A held-over message that had closed, and whose window died before it was archived: nobody else would look at it again.
/// `runs`: which of the runs that were asked for are at work.
async fn is_left_behind(deps: &Deps, row: &Row, runs: &mut HashMap<String, bool>) -> Result<bool, Error> {
    let Some(claim) = row.claim.as_ref().filter(|_| row.first_seen_open.is_some()) else { return Ok(false) };
    if let Some(is_at_work) = runs.get(&claim.run_id) {
        return Ok(!is_at_work);
    }
    let run = deps.job_runs.get(&claim.run_id).await?;
    let is_at_work = run.is_some_and(|run| run.status == RunStatus::Running);
    runs.insert(claim.run_id.clone(), is_at_work);
    Ok(!is_at_work)
}

async fn by_name(opensearch: &OpenSearch, has_api: bool, rows: &[Row], held_over: &mut HeldOver) -> Result<(), Error> {
    let names: Vec<_> = rows.iter().map(Row::identity).filter(|name| name.source_index != NO_INDEX).collect();
    let written = opensearch.written(&names).await?;
    let mut absent = Vec::new();
    for row in rows {
        match written.get(&row.identity()) {
            Some(now) if row.written.as_ref() == Some(now) => {}
            Some(_) => held_over.changed.push(dated(row)),
            None => absent.push(row),
        }
    }
    // A search asks every shard of every index: a document with a routing of its own, or one that a rollover has moved.
    let ids: Vec<&str> = absent.iter().map(|row| row.message_id.as_str()).collect();
    let mut found: HashMap<String, Vec<Sighting>> = HashMap::new();
    for sighting in opensearch.found(&ids).await? {
        found.entry(sighting.document.id.clone()).or_default().push(sighting);
    }
    for row in absent {
        let sightings = found.get(&row.message_id).map(Vec::as_slice).unwrap_or_default();
        match sightings.iter().find(|sighting| sighting.document.source_index == row.source_index) {
            Some(same) if same.written.is_some() && same.written == row.written => {}
            Some(_) => held_over.changed.push(dated(row)),
            // From the time when no index had it: the index that has it now takes its row over.
            None if row.source_index == NO_INDEX && !sightings.is_empty() => {
                let place = |sighting: &Sighting| Dated { at: row.timestamp, document: sighting.document.clone() };
                held_over.changed.extend(sightings.iter().map(place));
            }
            None if row.source_index == NO_INDEX && has_api => held_over.of_the_api.push(dated(row)),
            None => held_over.gone.extend(gone(row)),
        }
    }
    Ok(())
}

fn dated(row: &Row) -> Dated {
    Dated { at: row.timestamp, document: row.identity() }
}

fn gone(row: &Row) -> Option<Gone> {
    let (document, timestamp, revision) = (row.identity(), row.timestamp, row.revision);
    Some(Gone { document, timestamp, first_seen_open: row.first_seen_open?, revision })
}
