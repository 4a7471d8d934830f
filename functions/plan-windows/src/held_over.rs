//! Which held-over messages are to be read again. Their names are asked for, a thousand at a time; a message whose last
//! write is the one that a run has read is as it was, and costs no more than that.

use crate::{Deps, Error, sized::LEAST_KEPT};
use alerts::{
    message::tracking::{NO_INDEX, Row, staging_shards},
    run::{
        job_run::RunStatus,
        looked_at::{Gone, ListedWindow},
    },
    source::Source,
    window::plan::{Dated, Purpose, Window},
};
use identity::Identity;
use jiff::Timestamp;
use sources::{NAMES_AT_ONCE, OpenSearch, Sighting};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The indices of messages as they are now.
#[derive(Default)]
pub struct IndicesNow {
    pub present: HashSet<String>,
    /// Those that were made anew under their names: they number their writes from the beginning.
    pub remade: HashSet<String>,
}

/// What is known of the held-over messages.
#[derive(Default)]
pub struct HeldOver {
    pub looked_at: u64,
    pub gone: Vec<Gone>,
    /// Messages that an index holds which took the place of another.
    pub moved: HashSet<Identity>,
    /// To be read from OpenSearch.
    changed: Vec<Dated>,
    /// To be read from the API, which cannot be asked for a name: by instant.
    of_the_api: BTreeMap<Timestamp, Vec<Gone>>,
}

impl HeldOver {
    pub fn windows(self) -> (Vec<Window>, Vec<ListedWindow>) {
        let mut windows = Window::of_documents(Purpose::Recheck, self.changed);
        let mut listed = Vec::with_capacity(self.of_the_api.len());
        for (at, messages) in self.of_the_api {
            let window = Window::of_instant(Purpose::Recheck, at, messages.len() as u64).read_from(Source::Api);
            listed.push(ListedWindow { window_id: window.window_id.clone(), messages });
            windows.push(window);
        }
        (windows, listed)
    }

    /// An API may keep a message for 60 days only: of an older one nothing more is heard, and it stays open.
    fn ask_the_api(&mut self, row: &Row, now: Timestamp) {
        if row.timestamp >= now - LEAST_KEPT {
            self.of_the_api.entry(row.timestamp).or_default().extend(gone(row));
        }
    }
}

/// Looks for every held-over message but those that a window of the range reads anyway. A shard of them is in memory at
/// once.
pub async fn look(
    deps: &Deps,
    opensearch: Option<&OpenSearch>,
    is_in_range: impl Fn(Timestamp) -> bool,
    indices: &IndicesNow,
    now: Timestamp,
) -> Result<HeldOver, Error> {
    // The time, where an API can be asked too.
    let api_at = deps.sources.api.is_some().then_some(now);
    let (mut held_over, mut runs) = (HeldOver::default(), HashMap::new());
    for shard in staging_shards() {
        let rows = deps.ledger.staged_in(&shard).await?.into_iter();
        // A row that has just moved may stand in a later shard again.
        let is_meant = |row: &Row| !is_in_range(row.timestamp) && !held_over.moved.contains(&row.identity());
        let (rows, others): (Vec<Row>, Vec<Row>) = rows.filter(is_meant).partition(Row::is_held_over);
        held_over.looked_at += rows.len() as u64;
        for row in others {
            if is_left_behind(deps, &row, &mut runs).await? {
                held_over.looked_at += 1;
                match opensearch {
                    Some(_) if row.source_index != NO_INDEX => held_over.changed.push(dated(&row)),
                    _ => held_over.ask_the_api(&row, now),
                }
            }
        }
        match opensearch {
            Some(opensearch) => {
                for rows in rows.chunks(NAMES_AT_ONCE) {
                    by_name(deps, opensearch, api_at, indices, rows, &mut held_over).await?;
                }
            }
            None => rows.iter().for_each(|row| held_over.ask_the_api(row, now)),
        }
    }
    Ok(held_over)
}

/// A held-over message that had closed, and whose window died before it was archived: nothing else would look at it
/// again. `runs`: which of the runs that were asked for are at work.
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

async fn by_name(
    deps: &Deps,
    opensearch: &OpenSearch,
    api_at: Option<Timestamp>,
    indices: &IndicesNow,
    rows: &[Row],
    held_over: &mut HeldOver,
) -> Result<(), Error> {
    let names: Vec<_> = rows.iter().map(Row::identity).filter(|name| name.source_index != NO_INDEX).collect();
    let written = opensearch.written(&names).await?;
    let mut absent = Vec::new();
    for row in rows {
        match written.get(&row.identity()) {
            Some(now) if row.written.as_ref() == Some(now) && !indices.remade.contains(&row.source_index) => {}
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
            None if !indices.present.contains(&row.source_index) && !sightings.is_empty() => {
                // Where each of them has a row of its own, this message is none of them.
                let mut is_moved = false;
                for sighting in sightings {
                    if !is_moved && deps.ledger.rename(&sighting.document, &indices.present).await? {
                        is_moved = true;
                        held_over.moved.insert(sighting.document.clone());
                    }
                }
                let place = |sighting: &Sighting| Dated { at: row.timestamp, document: sighting.document.clone() };
                if is_moved {
                    held_over.changed.extend(sightings.iter().map(place));
                } else {
                    held_over.gone.extend(gone(row));
                }
            }
            None => match api_at.filter(|_| row.source_index == NO_INDEX) {
                Some(now) => held_over.ask_the_api(row, now),
                None => held_over.gone.extend(gone(row)),
            },
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

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use serde_json::json;

    fn held(id: &str, timestamp: Timestamp) -> Row {
        let row = json!({
            "message_id": id, "source_index": NO_INDEX, "status": "Pending", "disposition": "open", "run_id": "r",
            "window_id": "w", "version": "v", "source": "api", "timestamp": timestamp, "inserted_at": timestamp,
            "first_seen_open": timestamp, "staging": "open#0", "revision": 3,
        });
        serde_json::from_value(row).expect("a row")
    }

    #[test]
    fn the_api_is_asked_for_the_instants_that_it_still_keeps() {
        let now: Timestamp = "2026-11-21T06:00:00Z".parse().expect("an instant");
        let days = |days: i64| now - SignedDuration::from_hours(24 * days);
        let mut held_over = HeldOver::default();
        for row in [held("a", days(59)), held("b", days(59)), held("c", days(3)), held("d", days(61))] {
            held_over.ask_the_api(&row, now);
        }
        let (windows, listed) = held_over.windows();
        let spans: Vec<_> = windows.iter().map(|window| (window.from, window.to, window.source)).collect();
        let instant = |at: Timestamp| (at, at + SignedDuration::from_millis(1), Source::Api);
        assert_eq!(spans, [instant(days(59)), instant(days(3))], "and for no more than a millisecond");
        assert_eq!(windows[0].window_id, "20260923T060000.000Z-recheck--20260923T060000.001Z");
        assert_eq!(listed.iter().map(|listed| listed.messages.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!((&listed[0].window_id, listed[0].messages[0].revision), (&windows[0].window_id, 3));
    }
}
