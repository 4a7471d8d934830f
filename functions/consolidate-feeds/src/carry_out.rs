//! Steps 6 to 8 of [`feeds::protocol`]: create the outputs of a registered intent, move the files on, end the batch.
//! Each step can be repeated, by the function that registered the intent and by any other, also at once.

use crate::{Deps, Error};
use bytes::{Bytes, BytesMut};
use feeds::{Batch, BatchIntent, FeedFile, FilePart, Plan, Rank, pack::Output, protocol::staged_key};
use futures::{StreamExt, TryStreamExt, stream};
use ledger::{Keyed, WorkState};
use runtime::Call;
use storage::{LedgerError, ObjectReader, PutOnce, StoreError};

/// Rows that are written at once.
pub const ROWS: usize = 32;
/// Outputs that are created at once.
const PUTS: usize = 8;

/// By the function that registered the intent: it has the bytes, and the rows as it claimed them.
pub async fn fresh(
    deps: &Deps,
    call: &Call,
    intent: &BatchIntent,
    plan: &Plan,
    bodies: Vec<Bytes>,
    rows: Vec<FeedFile>,
) -> Result<(), Error> {
    let outputs: Vec<(&Output, Bytes)> = intent.outputs.iter().zip(bodies).collect();
    // Priority partners' records are there before any other's.
    let (priority, others): (Vec<_>, Vec<_>) =
        outputs.into_iter().partition(|(output, _)| output.rank == Rank::Priority);
    for outputs in [priority, others] {
        let puts = stream::iter(outputs).map(|(output, body)| create(deps, output, body));
        puts.buffered(PUTS).try_for_each(|()| async { Ok(()) }).await?;
    }
    let rows = intent.parts.iter().zip(rows.into_iter().map(Some));
    finish(deps, call, intent, plan, rows.collect()).await
}

/// By any other function, from the staged bytes.
pub async fn staged(deps: &Deps, call: &Call, batch: &str, plan: &Plan) -> Result<(), Error> {
    let intents: Vec<BatchIntent> = deps.archive.get_lines(&plan.key).await?;
    let [intent] = &intents[..] else {
        return Err(deps.archive.corrupt(&plan.key, "it does not hold one intent").into());
    };
    if !intent.outputs.is_empty() {
        let mut bytes = match deps.archive.open(&staged_key(batch), None).await {
            Ok(reader) => Staged { reader, rest: Bytes::new() },
            // Another one was quicker, and removed them.
            Err(StoreError::Missing { .. }) if is_done(deps, batch).await? => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for output in &intent.outputs {
            let body = bytes.take(output.bytes as usize).await?;
            if storage::sha256_hex(&body) != output.sha256 {
                return Err(deps.archive.corrupt(&staged_key(batch), "it holds other bytes than its intent").into());
            }
            create(deps, output, body).await?;
        }
    }
    let rows = intent.parts.iter().map(|part| (part, None));
    finish(deps, call, intent, plan, rows.collect()).await
}

async fn is_done(deps: &Deps, batch: &str) -> Result<bool, LedgerError> {
    Ok(deps.batches.get(batch, None).await?.is_some_and(|row| row.work.state() == WorkState::Done))
}

async fn create(deps: &Deps, output: &Output, body: Bytes) -> Result<(), Error> {
    let content_type = if output.key.ends_with(".gz") { "application/gzip" } else { "application/x-ndjson" };
    match deps.feeds.put_once_hashed(&output.key, body, &output.sha256, content_type).await? {
        PutOnce::Created(_) => Ok(()),
        PutOnce::Exists(head) => Err(Error::Store(StoreError::Conflict {
            bucket: deps.feeds.bucket().to_owned(),
            key: output.key.clone(),
            found: head.sha256.unwrap_or_default(),
            wanted: output.sha256.clone(),
        })),
    }
}

/// The rows of the files, as far as they are known, move on behind their parts; then the batch is done.
async fn finish(
    deps: &Deps,
    call: &Call,
    intent: &BatchIntent,
    plan: &Plan,
    rows: Vec<(&FilePart, Option<FeedFile>)>,
) -> Result<(), Error> {
    let moves = stream::iter(rows).map(|(part, row)| async move {
        let advance = |row: &FeedFile| row.advance(&intent.batch, &plan.key, part, call.now());
        if let Some(next) = row.as_ref().and_then(advance) {
            let revision = next.revision + 1;
            if deps.files.put(&next.revised(revision)).await? {
                return Ok(());
            }
        }
        let update =
            deps.files.update(&part.object, Some(&part.version), |row| Ok::<_, LedgerError>(row.and_then(advance)));
        update.await.map(|_| ())
    });
    moves.buffer_unordered(ROWS).try_for_each(|()| async { Ok(()) }).await?;
    // A function that saw all of it done may mark it as done, also when another function carries the same intent out:
    // that one may die.
    let complete = deps.batches.update(&intent.batch, None, |row| {
        let work = row.and_then(|row| row.work.complete(row.work.attempt(), call.now()).ok());
        Ok::<_, LedgerError>(row.zip(work).map(|(row, work)| Batch { work, ..row.clone() }))
    });
    let row = complete.await?;
    if !intent.outputs.is_empty() && row.is_some_and(|row| row.work.state() == WorkState::Done) {
        deps.archive.delete(&staged_key(&intent.batch)).await?;
    }
    Ok(())
}

/// The staged bytes, output by output.
struct Staged {
    reader: ObjectReader,
    rest: Bytes,
}

impl Staged {
    async fn take(&mut self, length: usize) -> Result<Bytes, Error> {
        if self.rest.len() >= length {
            return Ok(self.rest.split_to(length));
        }
        let mut taken = BytesMut::with_capacity(length);
        while taken.len() < length {
            if self.rest.is_empty() {
                let Some(piece) = self.reader.chunk().await? else { break };
                self.rest = piece;
            }
            let now = self.rest.len().min(length - taken.len());
            taken.extend_from_slice(&self.rest.split_to(now));
        }
        Ok(taken.freeze())
    }
}
