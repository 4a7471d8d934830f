//! Which documents were written behind the range since the last sweep: late ones, changed ones, and messages whose
//! history or audit has grown. Only names are read. What the ledger has seen in that very write is passed over, so that
//! a sweep may look at the same writes again and finds nothing the second time.

use crate::{Deps, Error};
use alerts::{
    message::{
        classification::{Disposition, Reason},
        tracking::{NO_INDEX, Row, Status},
    },
    run::{lock::Held, swept::IndexSwept},
    window::plan::{Dated, Purpose, Window},
};
use jiff::Timestamp;
use runtime::Call;
use sources::{IndexWrites, OpenSearch, Sighting, Write, WrittenAfter};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Documents that one run sets out to read: the rest is found by the next.
pub const MOST_FOUND: usize = 100_000;

/// What a sweep found, and how far it looked.
#[derive(Default)]
pub struct Sweep {
    pub swept: Vec<IndexSwept>,
    /// Messages that an index holds which took the place of another.
    pub moved: u64,
    /// Writes that the next run goes on with, because one run takes no more. Not all of them need be of documents behind
    /// its range.
    pub left: u64,
    late: Vec<Dated>,
    changed: Vec<Dated>,
}

impl Sweep {
    pub fn windows(self) -> Vec<Window> {
        let late = Window::of_documents(Purpose::Late, self.late).into_iter();
        late.chain(Window::of_documents(Purpose::Changed, self.changed)).collect()
    }

    fn is_full(&self, most: usize) -> bool {
        self.late.len() + self.changed.len() >= most
    }
}

/// What the documents that were written are held against.
#[derive(Clone, Copy)]
struct World<'a> {
    /// Indices of messages.
    present: &'a HashSet<String>,
    /// Of the run.
    range: (Timestamp, Timestamp),
    /// The index numbers its writes on from where it was looked at before.
    is_numbered_on: bool,
    /// No other run is at work.
    is_settled: bool,
}

/// `[from, to)` is the range of the run, whose windows read what lies there.
pub async fn look(
    deps: &Deps,
    opensearch: &OpenSearch,
    run_id: &str,
    (from, to): (Timestamp, Timestamp),
    known: &HashMap<String, IndexSwept>,
    call: &Call,
) -> Result<Sweep, Error> {
    let names = &opensearch.indices;
    let indices = opensearch.writes(&names.messages).await?;
    let present: HashSet<String> = indices.into_iter().map(|index| index.index).collect();
    let mut sweep = Sweep::default();
    for name in [&names.messages, &names.history, &names.audit] {
        let message_fields =
            if *name == names.messages { Vec::new() } else { opensearch.check_mapping(name).await?.keywords };
        let indices = opensearch.writes(name).await?;
        // Behind the numbers: from now on a search sees everything up to them.
        let is_visible = opensearch.refresh(name).await?;
        // Behind them too: a run at work may have read a message before it was written again, or before its history grew,
        // and come to its end after we have looked.
        let is_running = async |held: &Held| Ok::<_, Error>(deps.workflow.is_running(&held.execution_arn).await?);
        let is_settled = !deps.job_runs.is_another_at_work(run_id, is_running).await?;
        for IndexWrites { index, uuid, shards } in indices {
            let before = known.get(&index);
            let is_numbered_on = before.is_none_or(|before| before.is_numbered_on(&uuid));
            let mut looked = BTreeMap::new();
            for (shard, up_to) in shards {
                let above = match before.and_then(|before| before.up_to(&uuid, &shard)) {
                    Some(above) => above,
                    // What was there before the first sweep is the business of ranges.
                    None if known.is_empty() => up_to,
                    None => -1,
                };
                let before = (*name == names.messages).then_some(from);
                let (index, shard_name, message_fields) = (index.as_str(), shard.as_str(), message_fields.as_slice());
                let writes = WrittenAfter { name, index, shard: shard_name, above, up_to, before, message_fields };
                let world = World { present: &present, range: (from, to), is_numbered_on, is_settled };
                let reached = shard_of(deps, opensearch, writes, world, &mut sweep, call).await?;
                sweep.left += (up_to - reached).max(0) as u64;
                // Where we do not see everything yet, the same writes are looked at again.
                looked.insert(shard, if is_visible && is_settled || above == up_to { reached } else { above });
            }
            sweep.swept.push(IndexSwept { index, uuid, shards: looked, at: Some(call.now()) });
        }
    }
    Ok(sweep)
}

/// Looks at the writes of a shard in their order; returns the number up to which it came.
async fn shard_of(
    deps: &Deps,
    opensearch: &OpenSearch,
    mut writes: WrittenAfter<'_>,
    world: World<'_>,
    sweep: &mut Sweep,
    call: &Call,
) -> Result<i64, Error> {
    while writes.above < writes.up_to && !sweep.is_full(deps.most_found) && !call.is_ending() {
        let page = opensearch.written_after(writes).await?;
        let Some(last) = page.last() else { return Ok(writes.up_to) };
        writes.above = last.seq_no;
        match writes.message_fields {
            [] => messages(deps, page, world, sweep).await?,
            _ => grown(deps, opensearch, page, world, sweep).await?,
        }
    }
    Ok(writes.above)
}

async fn messages(
    deps: &Deps,
    page: Vec<Write>,
    World { present, range, is_numbered_on, .. }: World<'_>,
    sweep: &mut Sweep,
) -> Result<(), Error> {
    let keys: Vec<_> = page.iter().map(|write| key_of(&write.sighting)).collect();
    let rows = deps.ledger.rows.get_many(&keys).await?;
    for (Write { sighting, .. }, key) in page.into_iter().zip(&keys) {
        // A search for instants finds no document without one.
        let Some(at) = sighting.at else { continue };
        let found = Dated { at, document: sighting.document };
        match rows.get(key) {
            None if deps.ledger.rename(&found.document, present).await? => {
                sweep.moved += 1;
                sweep.changed.push(found);
            }
            None => sweep.late.push(found),
            // Unless the index was made anew, and numbers its writes from the beginning.
            Some(row) if is_numbered_on && row.written.is_some() && row.written == sighting.written => {}
            // It is looked at by its name.
            Some(row) if row.is_held_over() && !is_in(range, row.timestamp) => {}
            Some(_) => sweep.changed.push(found),
        }
    }
    Ok(())
}

/// Archived messages to which a document of history or audit belongs that was written since, those that are in quarantine
/// because of theirs, and those of which a run that ended has left the archiving to others: what it had read is older.
async fn grown(
    deps: &Deps,
    opensearch: &OpenSearch,
    page: Vec<Write>,
    World { range, is_settled, .. }: World<'_>,
    sweep: &mut Sweep,
) -> Result<(), Error> {
    let ids: BTreeSet<&str> = page.iter().flat_map(|write| &write.messages).map(String::as_str).collect();
    let mut found = opensearch.found(&Vec::from_iter(ids)).await?;
    // What the index holds of a document may not be what the document says: a long id is left out, another is folded.
    let known: HashSet<&str> = found.iter().map(|sighting| sighting.document.id.as_str()).collect();
    let is_told = |write: &&Write| write.messages.iter().any(|id| known.contains(id.as_str()));
    let untold = page.iter().filter(|write| !is_told(write)).map(|write| write.sighting.document.clone());
    let named = opensearch.named_in(&untold.collect::<Vec<_>>()).await?;
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    found.extend(opensearch.found(&named).await?);
    // A message that came of the API, when no index had it or none was asked, is called after none.
    let called = |sighting: &Sighting| [key_of(sighting), (sighting.document.id.clone(), Some(NO_INDEX.to_owned()))];
    let rows = deps.ledger.rows.get_many(&found.iter().flat_map(called).collect::<Vec<_>>()).await?;
    let is_archived = |row: &Row| {
        let is_left_behind = is_settled && row.status == Status::Processing;
        let is_meant = row.disposition == Disposition::Closed || is_quarantined_for_history(row);
        is_meant && (row.status == Status::Completed || is_left_behind)
    };
    for sighting in found {
        let Some(row) = called(&sighting).iter().find_map(|key| rows.get(key)) else { continue };
        if is_archived(row) && !is_in(range, row.timestamp) {
            sweep.changed.push(Dated { at: row.timestamp, document: sighting.document });
        }
    }
    Ok(())
}

/// Nothing is wrong with the message itself: what is written of its history may put that right.
fn is_quarantined_for_history(row: &Row) -> bool {
    let reasons = [Reason::UnreadableHistory, Reason::HistoryTooLarge].map(|reason| Some(reason.as_str()));
    row.disposition == Disposition::Quarantined && reasons.contains(&row.reason.as_deref())
}

fn key_of(sighting: &Sighting) -> (String, Option<String>) {
    (sighting.document.id.clone(), Some(sighting.document.source_index.clone()))
}

fn is_in((from, to): (Timestamp, Timestamp), at: Timestamp) -> bool {
    from <= at && at < to
}
