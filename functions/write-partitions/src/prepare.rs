//! From decisions to a registered intent. Nothing here touches the archive.

use crate::{Deps, Error, execute, expired};
use alerts::{
    commit::intent::{Intent, Layout},
    counts::Tally,
    keys::{attempt_of, checkpoint_key, decisions_key, index_key, spool_prefix},
    message::{
        classification::Disposition,
        entry::Entry,
        tracking::{Claim, Decision, Staging},
    },
    run::payloads::WindowTask,
    window::{
        record::{State, WindowRecord},
        spool::SpoolSummary,
    },
};
use archive::{Guesses, StagedAll};
use identity::Identity;
use runtime::Call;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use storage::PutOnce;

/// How often claims of unfinished windows are resolved before the window fails with `WindowBusy`.
const ROUNDS: usize = 3;

pub async fn load(deps: &Deps, key: &str) -> Result<Intent, Error> {
    let mut lines: Vec<Intent> = deps.objects.get_lines(key).await?;
    lines.pop().ok_or_else(|| Error::Spool { prefix: key.to_owned(), what: "the intent is empty".into() })
}

/// The intent that is registered, without the documents that operators have excluded since. An object that is written
/// keeps what it holds, and so does an intent whose commit has begun. The window's row says which intent counts, so
/// that it does not matter who amends it, or when.
pub async fn resume(deps: &Deps, run_id: &str, window_id: &str, mut key: String, call: &Call) -> Result<Intent, Error> {
    let excluded = deps.job_runs.unresolved().await?.excluded_from(run_id);
    loop {
        let intent = load(deps, &key).await?;
        let amendable = if excluded.is_empty() { BTreeMap::new() } else { unwritten(deps, &intent, &excluded).await? };
        if amendable.is_empty() {
            return Ok(intent);
        }
        tracing::info!(window = window_id, documents = amendable.len(), "documents are excluded from the intent");
        let amended = intent.without(&amendable);
        // Of two executors the quicker one wins, here and at the row.
        deps.objects.put_lines_once(&amended.key(), std::slice::from_ref(&amended)).await?;
        let (number, now) = (amendable.len() as u64, call.now());
        let record =
            deps.windows.change(run_id, window_id, |record| Ok(record.amend(&key, amended.key(), number, now))).await?;
        let standing = record.intent_key.ok_or_else(|| Error::Amended { window_id: window_id.to_owned() })?;
        if standing == key {
            // It is committed meanwhile.
            return Ok(intent);
        }
        key = standing;
    }
}

/// Excluded documents of the intent whose archive object is not written yet.
async fn unwritten(deps: &Deps, intent: &Intent, excluded: &HashSet<Identity>) -> Result<BTreeMap<u32, Entry>, Error> {
    let (mut wanted, mut position) = (BTreeMap::new(), 0u32);
    for pair in 0..intent.pairs {
        for entry in deps.objects.get_lines::<Entry>(&index_key(&intent.spool_prefix, pair)).await? {
            if excluded.contains(&entry.identity()) {
                wanted.insert(position, entry);
            }
            position += 1;
        }
    }
    let mut found = BTreeMap::new();
    for object in intent.objects.iter().filter(|object| object.disposition == Disposition::Closed) {
        let here: Vec<u32> = object.entries.iter().copied().filter(|position| wanted.contains_key(position)).collect();
        if !here.is_empty() && deps.objects.head(&object.key).await?.is_none() {
            found.extend(here.into_iter().filter_map(|position| wanted.remove_entry(&position)));
        }
    }
    Ok(found)
}

pub enum Registered {
    Intent(Box<Intent>),
    /// The call ends first; so many rows were claimed that were not before.
    Interrupted {
        advanced: usize,
    },
}

/// Plans the objects of the window, whose rows are claimed, and registers the intent: the moment from which it counts.
/// The rows need no second look: another takes them only after this attempt was fenced off, which then registers
/// nothing.
pub async fn register(deps: &Deps, task: &WindowTask, row: &WindowRecord, call: &Call) -> Result<Registered, Error> {
    let (attempt, ended) = (row.fence.attempt, row.ended);
    let (run_id, window_id) = (task.run_id.as_str(), task.window.window_id.as_str());
    let prefix = spool_prefix(run_id, window_id, attempt);
    let summary: SpoolSummary = deps.objects.get_json(&checkpoint_key(&prefix)).await?;
    let claim = Claim { run_id: run_id.to_owned(), window_id: window_id.to_owned(), attempt };
    let mut staging = Staging::new(claim, summary.seen_at, false).after(summary.had_api, summary.present.as_deref());
    let writer = if ended == 0 { run_id.to_owned() } else { attempt_of(run_id, attempt) };
    let mut layout = Layout::new(&writer, window_id, deps.jsonl);
    let (mut tally, mut position, mut advanced) = (Tally::default(), 0, 0);
    for pair in 0..summary.pairs {
        let entries: Vec<Entry> = deps.objects.get_lines(&index_key(&prefix, pair)).await?;
        let mut decisions: Vec<Decision> = deps.objects.get_lines(&decisions_key(&prefix, pair)).await?;
        if entries.len() != decisions.len() {
            let what = format!("pair {pair}: {} index lines, {} decisions", entries.len(), decisions.len());
            return Err(Error::Spool { prefix, what });
        }
        match resolve_contested(deps, &entries, &mut decisions, &mut staging, call).await? {
            Resolved::All { advanced: more } => advanced += more,
            Resolved::Interrupted { advanced: more } => {
                return Ok(Registered::Interrupted { advanced: advanced + more });
            }
        }
        for (entry, decision) in entries.iter().zip(&decisions) {
            tally.add(entry, decision);
            match decision {
                Decision::Write => layout.push(position, entry, None),
                Decision::Replace { object } => layout.push(position, entry, Some(object.clone())),
                Decision::Already | Decision::Hold | Decision::Contested { .. } => {}
            }
            position += 1;
        }
    }
    let counts = tally.messages;
    if counts.source != summary.documents || !counts.reconciled() {
        return Err(Error::CountMismatch { window_id: window_id.to_owned(), counts });
    }
    let intent = Intent {
        run_id: run_id.to_owned(),
        window_id: window_id.to_owned(),
        attempt,
        spool_prefix: prefix.clone(),
        pairs: summary.pairs,
        source_bytes: summary.bytes,
        archived_at: call.now(),
        seen_at: Some(summary.seen_at),
        jsonl: deps.jsonl,
        message_json: deps.message_json,
        cold_storage: deps.cold_storage,
        objects: layout.finish(),
        counts,
        amended: 0,
        outlives_spool: true,
    };
    let key = intent.key();
    // Two calls of one attempt at once: the first that writes its intent wins, and both carry that one out.
    let intent = match deps.objects.put_lines_once(&key, std::slice::from_ref(&intent)).await? {
        PutOnce::Created(_) => intent,
        PutOnce::Exists(_) => load(deps, &key).await?,
    };
    deps.windows.change(run_id, window_id, |record| record.prepare(attempt, key.clone(), call.now())).await?;
    Ok(Registered::Intent(Box::new(intent)))
}

enum Resolved {
    /// So much was done about other windows and their rows.
    All { advanced: usize },
    /// The call ends first; so much was done about other windows and their rows that was not before.
    Interrupted { advanced: usize },
}

/// Messages that another window had claimed when it died: its intent is carried out, or its attempt is fenced off; then
/// the messages are staged anew, for this window.
async fn resolve_contested(
    deps: &Deps,
    entries: &[Entry],
    decisions: &mut [Decision],
    staging: &mut Staging,
    call: &Call,
) -> Result<Resolved, Error> {
    let mut advanced = 0;
    for _ in 0..ROUNDS {
        let contested = |decision: &Decision| match decision {
            Decision::Contested { claim } => Some(claim.clone()),
            _ => None,
        };
        // In an order of their own, so that a simulated history can be repeated.
        let holders: BTreeSet<Claim> = decisions.iter().filter_map(contested).collect();
        if holders.is_empty() {
            return Ok(Resolved::All { advanced });
        }
        for holder in &holders {
            if call.is_ending() {
                return Ok(Resolved::Interrupted { advanced });
            }
            match resolve_holder(deps, holder, call).await? {
                Resolved::All { .. } => {}
                Resolved::Interrupted { advanced: more } => {
                    return Ok(Resolved::Interrupted { advanced: advanced + more });
                }
            }
        }
        let positions: Vec<usize> =
            (0..entries.len()).filter(|position| contested(&decisions[*position]).is_some()).collect();
        let affected: Vec<&Entry> = positions.iter().map(|position| &entries[*position]).collect();
        staging.over.extend(holders);
        let mut guesses = Guesses::default();
        let staged = deps.ledger.stage_all(&affected, staging, &mut guesses, || call.is_ending()).await?;
        let StagedAll { decisions: staged, moved } = staged;
        deps.windows.note_moved(&staging.claim.run_id, &staging.claim.window_id, moved).await?;
        let Some(staged) = staged else {
            return Ok(Resolved::Interrupted { advanced });
        };
        advanced += affected.len();
        for (position, decision) in positions.into_iter().zip(staged) {
            decisions[position] = decision;
        }
    }
    match decisions.iter().zip(entries).find_map(|(decision, entry)| match decision {
        Decision::Contested { claim } => Some((entry.id.clone(), claim.clone())),
        _ => None,
    }) {
        Some((id, Claim { run_id, window_id, .. })) => Err(Error::ClaimStuck { id, run_id, window_id }),
        None => Ok(Resolved::All { advanced }),
    }
}

/// Does what ends a holder's claim. Another executor that does the same amends or ends its intent meanwhile: then it is
/// looked at anew.
async fn resolve_holder(deps: &Deps, holder: &Claim, call: &Call) -> Result<Resolved, Error> {
    for _ in 1..ROUNDS {
        match end_claim(deps, holder, call).await {
            Err(Error::Amended { .. }) => {}
            ended => return ended,
        }
    }
    end_claim(deps, holder, call).await
}

/// Carries out the intent of a window that has one, or fences its attempt off when its lease is over. Afterwards the
/// claim holds nothing.
async fn end_claim(deps: &Deps, holder: &Claim, call: &Call) -> Result<Resolved, Error> {
    let now = call.now();
    let decide = |record: &WindowRecord| match record.status {
        _ if record.is_over(holder.attempt) => Ok(record.clone()),
        State::Prepared => Ok(record.clone()),
        _ => record.abandon(now),
    };
    let record = deps.windows.change(&holder.run_id, &holder.window_id, decide).await?;
    if let (State::Prepared, Some(key), false) = (record.status, &record.intent_key, record.is_over(holder.attempt)) {
        tracing::info!(
            run = holder.run_id,
            window = holder.window_id,
            "finishing the intent of a window that did not end"
        );
        let intent = resume(deps, &holder.run_id, &holder.window_id, key.clone(), call).await?;
        match Box::pin(execute::carry_out(deps, &intent, call)).await {
            // The next call finds its objects and goes on behind them.
            Ok(execute::Progress::Interrupted { advanced }) => return Ok(Resolved::Interrupted { advanced }),
            Ok(execute::Progress::Done { .. }) => {}
            Err(error) if expired::is_about(&error, &intent) => expired::end(deps, &intent, call).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(Resolved::All { advanced: 1 })
}
