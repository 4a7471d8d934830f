//! An intent whose spool has expired cannot be carried out any more, and must not hold its messages for ever. What it
//! has written stays and is completed; the keys of what it has not written are taken by empty objects, so that no
//! executor that wakes up late can still create them; then the claims are over, and the window can be read anew.

use crate::{
    Deps, Error,
    execute::{Executor, LINES, content_type, empty, empty_lines},
};
use alerts::{
    commit::{
        intent::{Intent, PlannedObject},
        manifest::Manifest,
    },
    counts::Messages,
    keys::manifest_key,
    message::{
        classification::{Disposition, Outcome, Reason, quarantined},
        document,
        entry::Entry,
        tracking::{Row, complete},
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use identity::Identity;
use runtime::Call;
use serde::{Deserialize, de::IgnoredAny};
use std::collections::{BTreeMap, HashSet};
use storage::{Change, PutOnce, StoreError};

/// Whether an object of the intent's spool is missing.
pub fn is_about(error: &Error, intent: &Intent) -> bool {
    matches!(error, Error::Store(StoreError::Missing { key, .. }) if key.starts_with(&intent.spool_prefix))
}

/// A message that an object of the intent holds.
struct Written {
    document: Identity,
    version: String,
    related: String,
    outcome: Outcome,
}

/// Ends the intent that is registered. It can be repeated at any point, by several executors at once.
pub async fn end(deps: &Deps, intent: &Intent, call: &Call) -> Result<(), Error> {
    let (run_id, window_id) = (intent.run_id.as_str(), intent.window_id.as_str());
    tracing::warn!(
        run = run_id,
        window = window_id,
        "the spool of a registered intent has expired; the intent is ended"
    );
    let ended = intent.ended();
    deps.objects.put_lines_once(&ended.key(), std::slice::from_ref(&ended)).await?;
    let (before, now) = (intent.key(), call.now());
    let record =
        deps.windows.change(run_id, window_id, |record| Ok(record.amend(&before, ended.key(), 0, now))).await?;
    if record.intent_key.as_ref() != Some(&ended.key()) {
        return Err(Error::Amended { window_id: window_id.to_owned() });
    }
    let (mut executor, mut changes, mut counts) = (Executor::new(deps, intent, call), Vec::new(), Messages::default());
    let mut replaced: BTreeMap<String, HashSet<Identity>> = BTreeMap::new();
    for planned in &ended.objects {
        let written = take_key(deps, &ended, planned, &mut executor).await?;
        let key = |Written { document, .. }: &Written| (document.id.clone(), Some(document.source_index.clone()));
        let keys: Vec<_> = written.iter().map(key).collect();
        let rows = deps.ledger.rows.get_many(&keys).await?;
        let path = deps.objects.uri(&planned.key);
        for (written, key) in written.iter().zip(&keys) {
            count(&mut counts, &written.outcome);
            let Some(row) = rows.get(key) else { continue };
            let completed = complete(row, &entry(written, row), &intent.claim(), path.clone(), call.now());
            let Ok(after) = completed else { continue };
            // Of a row that is completed already only the intent knows where the earlier version was. The manifest that
            // is written again must tell of that object, too.
            let planned_objects = planned.replaces.iter().map(|(_, object)| object.as_str());
            let earlier = row.archived_object().into_iter().chain(planned_objects);
            for object in earlier.filter(|object| planned.disposition == Disposition::Closed && *object != planned.key)
            {
                replaced.entry(object.to_owned()).or_default().insert(written.document.clone());
            }
            changes.extend(after.map(|after| Change { before: Some(row.clone()), after }));
        }
    }
    for (object, identities) in replaced {
        executor.take_out(&object, &identities).await?;
    }
    let manifest = Manifest {
        v: 1,
        run_id: run_id.to_owned(),
        window_id: window_id.to_owned(),
        attempt: intent.attempt,
        committed_at: call.now(),
        source: counts.source,
        counts,
        objects: std::mem::take(&mut executor.objects),
    };
    deps.objects.put_json(&manifest_key(window_id, run_id, intent.attempt), &manifest).await?;
    if !deps.ledger.rows.change_many(changes).await?.is_empty() {
        // Another executor of this intent completes the same rows: all is looked at once more.
        return Err(Error::Contended { key: ended.key() });
    }
    deps.windows.change(run_id, window_id, |record| Ok(record.end_intent(&ended.key(), call.now()))).await?;
    Ok(())
}

/// Takes the key of a planned object, unless it is written; returns what it holds.
async fn take_key(
    deps: &Deps,
    intent: &Intent,
    planned: &PlannedObject,
    executor: &mut Executor<'_>,
) -> Result<Vec<Written>, Error> {
    let body = empty(intent, planned)?;
    let (head, written) = match deps.objects.put_once(&planned.key, body, content_type(planned.disposition)).await? {
        PutOnce::Created(head) => (head, Vec::new()),
        PutOnce::Exists(head) => {
            let body = deps.objects.get(&planned.key).await?;
            let is_closed = planned.disposition == Disposition::Closed;
            (head, if is_closed { rows(planned, body)? } else { lines(deps, planned, &body)? })
        }
    };
    take_lines_key(deps, planned, executor).await?;
    executor.note(&planned.key, written.len() as u64, &head)?;
    Ok(written)
}

/// The JSON lines beside an object are written before it. So their key is taken behind that of the object: either they
/// are there, or none that a late executor writes are. What is there stays, whether its object was written or not: of
/// a message that left the source since it may be the last copy.
async fn take_lines_key(deps: &Deps, planned: &PlannedObject, executor: &mut Executor<'_>) -> Result<(), Error> {
    let Some(key) = &planned.jsonl_key else { return Ok(()) };
    let head = match deps.objects.put_once(key, empty_lines(key)?, LINES).await? {
        PutOnce::Created(head) | PutOnce::Exists(head) => head,
    };
    let lines: Vec<IgnoredAny> = deps.objects.get_lines(key).await?;
    executor.note(key, lines.len() as u64, &head)
}

fn rows(planned: &PlannedObject, body: Bytes) -> Result<Vec<Written>, Error> {
    let columnar = |source| Error::Columnar { key: planned.key.clone(), source };
    let written = |row: columnar::ArchivedRow| Written {
        document: row.identity,
        version: row.version,
        related: document::related(&row.record.history, &row.record.audit),
        outcome: Outcome { disposition: Disposition::Closed, reason: None, no_alerts: row.no_alerts },
    };
    columnar::rows(body).map_err(columnar)?.map(|row| row.map(written).map_err(columnar)).collect()
}

fn lines(deps: &Deps, planned: &PlannedObject, body: &[u8]) -> Result<Vec<Written>, Error> {
    #[derive(Deserialize)]
    struct Line {
        source_index: String,
        id: String,
        reason: Reason,
        source_base64: String,
    }
    let lines: Vec<Line> = deps.objects.decode_lines(&planned.key, body)?;
    let written = |line: Line| {
        let source = BASE64_STANDARD.decode(&line.source_base64);
        let source = source.map_err(|error| deps.objects.corrupt(&planned.key, error))?;
        Ok(Written {
            document: Identity::new(line.source_index, line.id),
            version: document::version(&source),
            related: String::new(),
            outcome: quarantined(line.reason),
        })
    };
    lines.into_iter().map(written).collect()
}

fn count(counts: &mut Messages, outcome: &Outcome) {
    counts.source += 1;
    counts.no_alerts += u64::from(outcome.no_alerts);
    if outcome.disposition == Disposition::Closed {
        counts.archived += 1;
    } else {
        counts.quarantined += 1;
    }
}

/// The line of the spool's index that is gone, as far as the row needs it.
fn entry(written: &Written, row: &Row) -> Entry {
    Entry {
        index: written.document.source_index.clone(),
        id: written.document.id.clone(),
        at: row.timestamp,
        version: written.version.clone(),
        related: written.related.clone(),
        related_bytes: 0,
        bytes: 0,
        source: row.source,
        written: row.written,
        outcome: written.outcome.clone(),
    }
}
