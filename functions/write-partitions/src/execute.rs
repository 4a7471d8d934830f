//! Carries out an intent. Every part can be repeated, by the same attempt, a later one or another run, and by two at
//! once: objects are created once, rows are completed under their claim, and what exists already is only looked at.

use crate::{Deps, Error};
use alerts::{
    commit::{
        intent::{Intent, PlannedObject},
        manifest::{Manifest, WrittenObject},
    },
    counts::Bytes as ByteCounts,
    keys::{index_key, manifest_key, message_key, records_key, superseded_key},
    message::{
        classification::{Disposition, Reason, quarantined},
        entry::Entry,
        tracking::{Claim, NO_INDEX, Row, as_staged_first, complete, was_completed_by},
    },
    window::{record::State, spool::Record},
};
use archive::{Changed, Guesses};
use base64::{display::Base64Display, prelude::BASE64_STANDARD};
use bytes::Bytes;
use columnar::{ObjectWriter, Origin, writer::Packing};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use identity::Identity;
use runtime::Call;
use serde_json::json;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::time::Duration;
use storage::{Head, PutOnce, StoreError};

/// Small uploads under way at once, and the bytes that they may hold together (a larger document goes alone).
const UPLOADS: usize = 16;
const UPLOAD_BYTES: usize = 4 << 20;
/// The content type of JSON lines.
pub const LINES: &str = "application/zstd";
/// How often the rewrite of an object is tried against others who rewrite it.
const REWRITES: usize = 8;

pub enum Progress {
    Done {
        bytes: ByteCounts,
        figures: Vec<(&'static str, u64)>,
    },
    /// The call ends; so many objects were written and rows completed that were not before.
    Interrupted {
        advanced: usize,
    },
}

pub async fn carry_out(deps: &Deps, intent: &Intent, call: &Call) -> Result<Progress, Error> {
    let mut executor = Executor::new(deps, intent, call);
    let heads = intent.objects.iter().map(|object| deps.objects.head(&object.key));
    let done: Vec<Option<Head>> = stream::iter(heads).buffered(UPLOADS).try_collect().await?;
    // Only now that the objects were looked at: one that is there may hold less than an intent says that was amended.
    executor.still_stands().await?;
    let missing = done.iter().filter(|head| head.is_none()).count();
    let written = executor.write_objects(&done).await?;
    if written < missing {
        return Ok(Progress::Interrupted { advanced: written });
    }
    for (object, head) in intent.objects.iter().zip(done) {
        executor.note_existing(object, head).await?;
    }
    executor.commit(written).await
}

pub struct Executor<'a> {
    deps: &'a Deps,
    intent: &'a Intent,
    call: &'a Call,
    pub objects: Vec<WrittenObject>,
    /// Objects that hold earlier versions of the window's messages, and which.
    replaced: BTreeMap<String, HashSet<Identity>>,
    /// Per-message objects that wait for their upload.
    messages: Vec<MessageObject>,
    uploading: Duration,
}

struct MessageObject {
    key: String,
    document: Identity,
    body: Vec<u8>,
}

/// An object that is being filled.
struct Filling<'a> {
    planned: &'a PlannedObject,
    left: usize,
    entries: Vec<Entry>,
    body: Body,
    jsonl: Option<zstd::Encoder<'static, Vec<u8>>>,
}

enum Body {
    Rows(Box<ObjectWriter>),
    Lines(zstd::Encoder<'static, Vec<u8>>),
}

impl Body {
    fn begin(intent: &Intent, planned: &PlannedObject) -> Result<Self, Error> {
        if planned.disposition != Disposition::Closed {
            return lines(&planned.key).map(Body::Lines);
        }
        let origin = Origin { run_id: intent.run_id.clone(), archived_at: intent.archived_at };
        let packing = if intent.cold_storage { Packing::COLD } else { Packing::BALANCED };
        let rows = ObjectWriter::packed(origin, packing);
        let rows = rows.map_err(|source| Error::Columnar { key: planned.key.clone(), source })?;
        Ok(Body::Rows(Box::new(rows)))
    }

    fn finish(self, key: &str) -> Result<Bytes, Error> {
        match self {
            Body::Rows(rows) => rows.finish().map_err(|source| Error::Columnar { key: key.to_owned(), source }),
            Body::Lines(lines) => {
                let body = lines.finish().map_err(|source| Error::Compress { key: key.to_owned(), source })?;
                Ok(body.into())
            }
        }
    }
}

/// The object as it is when it has lost all its entries: its key is taken.
pub fn empty(intent: &Intent, planned: &PlannedObject) -> Result<Bytes, Error> {
    Body::begin(intent, planned)?.finish(&planned.key)
}

/// JSON lines of no message.
pub fn empty_lines(key: &str) -> Result<Bytes, Error> {
    Body::Lines(lines(key)?).finish(key)
}

pub fn content_type(disposition: Disposition) -> &'static str {
    if disposition == Disposition::Closed { "application/vnd.apache.parquet" } else { LINES }
}

fn lines(key: &str) -> Result<zstd::Encoder<'static, Vec<u8>>, Error> {
    zstd::Encoder::new(Vec::new(), 3).map_err(|source| Error::Compress { key: key.to_owned(), source })
}

impl<'a> Executor<'a> {
    pub fn new(deps: &'a Deps, intent: &'a Intent, call: &'a Call) -> Self {
        Executor {
            deps,
            intent,
            call,
            objects: Vec::new(),
            replaced: BTreeMap::new(),
            messages: Vec::new(),
            uploading: Duration::ZERO,
        }
    }
}

impl Executor<'_> {
    /// Streams the spool once and writes the objects that are not there; returns how many it wrote.
    async fn write_objects(&mut self, done: &[Option<Head>]) -> Result<usize, Error> {
        let intent = self.intent;
        let of_position = objects_by_position(intent);
        let replaces: HashMap<u32, &String> =
            intent.objects.iter().flat_map(|object| &object.replaces).map(|(at, key)| (*at, key)).collect();
        let mut filling: BTreeMap<usize, Filling> = BTreeMap::new();
        let (mut position, mut written) = (0u32, 0);
        for pair in 0..intent.pairs {
            let first = position;
            let entries = self.entries(pair, first, &of_position).await?;
            position += entries.len() as u32;
            let is_wanted = |at: u32| of_position.get(&at).is_some_and(|object| done[*object].is_none());
            for (at, entry) in (first..).zip(&entries) {
                if let Some(object) = replaces.get(&at) {
                    // The earlier version may be from before any index had the message.
                    let names = [entry.index.as_str(), NO_INDEX].map(|index| Identity::new(index, &entry.id));
                    self.replaced.entry((*object).clone()).or_default().extend(names);
                }
            }
            if !(first..position).any(is_wanted) {
                continue;
            }
            let mut records = self.open_records(pair).await?;
            for (at, entry) in (first..).zip(entries) {
                let record = Record::decode(&mut records)
                    .map_err(|error| self.damaged(format!("records of pair {pair}: {error}")))?;
                let Some(number) = of_position.get(&at).copied().filter(|number| done[*number].is_none()) else {
                    continue;
                };
                // An object that is begun and not finished is begun anew by the next call.
                if self.call.is_ending() {
                    return Ok(written);
                }
                if alerts::message::document::version(&record.message) != entry.version {
                    return Err(self.damaged(format!("record {at} is not the document that its index names")));
                }
                let full = {
                    let object = match filling.entry(number) {
                        std::collections::btree_map::Entry::Occupied(slot) => slot.into_mut(),
                        std::collections::btree_map::Entry::Vacant(slot) => {
                            slot.insert(self.start(&intent.objects[number])?)
                        }
                    };
                    if intent.message_json && object.planned.disposition == Disposition::Closed {
                        self.put_message(&entry, &record).await?;
                    }
                    fill(object, entry, record)?;
                    object.left == 0
                };
                if full && let Some(object) = filling.remove(&number) {
                    self.finish(object).await?;
                    written += 1;
                }
            }
        }
        // An amendment took all its documents.
        for (planned, _) in
            intent.objects.iter().zip(done).filter(|(planned, head)| planned.entries.is_empty() && head.is_none())
        {
            let object = self.start(planned)?;
            self.finish(object).await?;
            written += 1;
        }
        Ok(written)
    }

    async fn still_stands(&self) -> Result<(), Error> {
        let record = self.deps.windows.rows.get(&self.intent.run_id, Some(&self.intent.window_id)).await?;
        if record.and_then(|record| record.intent_key) == Some(self.intent.key()) {
            return Ok(());
        }
        Err(Error::Amended { window_id: self.intent.window_id.clone() })
    }

    /// Earlier versions leave their objects only when no amendment can leave them in: those of excluded documents stay.
    async fn begin_commit(&self) -> Result<(), Error> {
        let (run_id, window_id) = (&self.intent.run_id, &self.intent.window_id);
        let (own, now) = (self.intent.key(), self.call.now());
        let record = self.deps.windows.change(run_id, window_id, |record| Ok(record.commit(&own, now))).await?;
        if record.intent_key.as_ref() == Some(&own) {
            return Ok(());
        }
        Err(Error::Amended { window_id: window_id.clone() })
    }

    /// The entries of a pair, whose first stands at position `first`, as the intent sees them: what an operator
    /// excluded since the spool was written goes to quarantine.
    async fn entries(&self, pair: u32, first: u32, of_position: &HashMap<u32, usize>) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = self.deps.objects.get_lines(&index_key(&self.intent.spool_prefix, pair)).await?;
        for (at, entry) in (first..).zip(&mut entries) {
            let object = of_position.get(&at).map(|object| &self.intent.objects[*object]);
            let is_quarantined = object.is_some_and(|object| object.disposition == Disposition::Quarantined);
            if is_quarantined && entry.outcome.disposition == Disposition::Closed {
                entry.outcome = quarantined(Reason::ByOperator);
            }
        }
        Ok(entries)
    }

    async fn open_records(&self, pair: u32) -> Result<impl std::io::Read + use<>, Error> {
        let body = self.deps.objects.get(&records_key(&self.intent.spool_prefix, pair)).await?;
        zstd::Decoder::new(std::io::Cursor::new(body)).map_err(|error| self.damaged(error.to_string()))
    }

    fn damaged(&self, what: String) -> Error {
        Error::Spool { prefix: self.intent.spool_prefix.clone(), what }
    }

    fn start<'o>(&self, planned: &'o PlannedObject) -> Result<Filling<'o>, Error> {
        let body = Body::begin(self.intent, planned)?;
        let jsonl = planned.jsonl_key.as_deref().map(lines).transpose()?;
        Ok(Filling { planned, left: planned.entries.len(), entries: Vec::new(), body, jsonl })
    }

    async fn put_message(&mut self, entry: &Entry, record: &Record) -> Result<(), Error> {
        let (key, body) = (message_key(&entry.date(), &entry.index, &entry.id), record.json_parts().concat());
        self.messages.push(MessageObject { key, document: entry.identity(), body });
        let waiting: usize = self.messages.iter().map(|message| message.body.len()).sum();
        if self.messages.len() < UPLOADS && waiting < UPLOAD_BYTES { Ok(()) } else { self.put_messages().await }
    }

    async fn put_messages(&mut self) -> Result<(), Error> {
        let began = self.call.took();
        let waiting = std::mem::take(&mut self.messages);
        try_join_all(waiting.into_iter().map(|message| self.put_newest(message))).await?;
        self.uploading += self.call.took() - began;
        Ok(())
    }

    /// One object holds the newest version of a message. It is overwritten only while this intent has the message's
    /// claim: until it is over no other window writes a version of it. An executor that comes late leaves it alone.
    async fn put_newest(&self, MessageObject { key, document, body }: MessageObject) -> Result<(), Error> {
        const KIND: &str = "application/json";
        let (objects, body) = (&self.deps.objects, Bytes::from(body));
        for _ in 0..REWRITES {
            if let PutOnce::Created(_) = objects.put_once(&key, body.clone(), KIND).await? {
                return Ok(());
            }
            // The object first, then the claim: what is written after both were read has another tag.
            let tag = match objects.open(&key, None).await {
                Ok(reader) => reader.tag().to_owned(),
                Err(StoreError::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let row = self.deps.ledger.rows.get(&document.id, Some(&document.source_index)).await?;
            let is_claimed = row.and_then(|row| row.claim) == Some(self.intent.claim());
            if !is_claimed || objects.replace(&key, body.clone(), KIND, &tag).await? {
                return Ok(());
            }
        }
        Err(Error::Contended { key })
    }

    /// Uploads an object and what stands beside it; the Parquet object last, because its presence says that all is
    /// there.
    async fn finish(&mut self, object: Filling<'_>) -> Result<(), Error> {
        let Filling { planned, entries, body, jsonl, .. } = object;
        self.put_messages().await?;
        let began = self.call.took();
        if let (Some(key), Some(jsonl)) = (&planned.jsonl_key, jsonl) {
            let body: Bytes = jsonl.finish().map_err(|source| Error::Compress { key: key.clone(), source })?.into();
            self.put_once(key, body, entries.len() as u64, LINES).await?;
        }
        let body = body.finish(&planned.key)?;
        self.put_once(&planned.key, body, entries.len() as u64, content_type(planned.disposition)).await?;
        self.uploading += self.call.took() - began;
        Ok(())
    }

    async fn put_once(&mut self, key: &str, body: Bytes, rows: u64, content_type: &str) -> Result<(), Error> {
        let sha256 = storage::sha256_hex(&body);
        let head = match self.deps.objects.put_once(key, body, content_type).await? {
            PutOnce::Created(head) => head,
            // Other bytes: an executor of the intent as it was before it was amended was quicker. Next time the object
            // is found there, and the excluded documents are taken out of it.
            PutOnce::Exists(head) if key.ends_with(".parquet") => {
                let found = head.sha256.unwrap_or_default();
                return Err(StoreError::Conflict {
                    bucket: self.deps.objects.bucket().to_owned(),
                    key: key.to_owned(),
                    found,
                    wanted: sha256,
                }
                .into());
            }
            // A copy for other readers: what it held before it was amended stays.
            PutOnce::Exists(head) => head,
        };
        self.note(key, rows, &head)
    }

    pub fn note(&mut self, key: &str, rows: u64, head: &Head) -> Result<(), Error> {
        let sha256 = head.sha256.clone().ok_or_else(|| {
            self.deps.objects.corrupt(key, "it has no checksum, so it was not written by this product")
        })?;
        self.objects.push(WrittenObject { key: key.to_owned(), rows, bytes: head.bytes, sha256 });
        Ok(())
    }

    /// An object that was there when this call began.
    async fn note_existing(&mut self, planned: &PlannedObject, head: Option<Head>) -> Result<(), Error> {
        let Some(head) = head else { return Ok(()) };
        let rows = planned.entries.len() as u64;
        if let Some(key) = &planned.jsonl_key {
            let beside = self
                .deps
                .objects
                .head(key)
                .await?
                .ok_or_else(|| self.deps.objects.corrupt(key, "it is missing beside its Parquet object"))?;
            self.note(key, rows, &beside)?;
        }
        self.note(&planned.key, rows, &head)
    }

    /// The same messages, and what the archive calls those whose index took the place of another.
    async fn archived_identities(&self, identities: &HashSet<Identity>) -> Result<HashSet<Identity>, Error> {
        let keys: Vec<_> = identities.iter().map(|name| (name.id.clone(), Some(name.source_index.clone()))).collect();
        let rows = self.deps.ledger.rows.get_many(&keys).await?;
        Ok(identities.iter().cloned().chain(rows.values().map(Row::archived_identity)).collect())
    }

    /// Keeps the earlier rows under `archive/superseded`, then rewrites their object without them. `false`: they are
    /// out already.
    pub async fn take_out(&mut self, object: &str, identities: &HashSet<Identity>) -> Result<bool, Error> {
        let columnar = |source| Error::Columnar { key: object.to_owned(), source };
        let identities = &self.archived_identities(identities).await?;
        for _ in 0..REWRITES {
            let Some((body, tag)) = self.deps.objects.find_versioned(object).await? else { return Ok(false) };
            let superseded = superseded_key(object, &self.intent.window_id, &self.intent.run_id);
            let Some(columnar::Split { kept, kept_rows, taken }) =
                columnar::split(body.clone(), identities).map_err(columnar)?
            else {
                if self.deps.objects.head(&superseded).await?.is_some() {
                    // This very intent took them out, and died before its manifest could say so.
                    let rows = columnar::row_count(body.clone()).map_err(columnar)?;
                    self.objects.push(WrittenObject {
                        key: object.to_owned(),
                        rows,
                        bytes: body.len() as u64,
                        sha256: storage::sha256_hex(&body),
                    });
                }
                return Ok(false);
            };
            self.deps.objects.put(&superseded, taken, "application/vnd.apache.parquet").await?;
            let (bytes, sha256) = (kept.len() as u64, storage::sha256_hex(&kept));
            if self.deps.objects.replace(object, kept, "application/vnd.apache.parquet", &tag).await? {
                self.objects.push(WrittenObject { key: object.to_owned(), rows: kept_rows, bytes, sha256 });
                return Ok(true);
            }
        }
        Err(Error::Contended { key: object.to_owned() })
    }

    /// Earlier versions leave their objects, the manifest is written, the rows are completed, and last the window is.
    /// The manifest comes before the rows: as long as one of them is claimed, the next run that needs it carries this
    /// intent out.
    async fn commit(mut self, written: usize) -> Result<Progress, Error> {
        let intent = self.intent;
        // JSON lines are a copy for other readers and no part of what the archive costs.
        let is_copy = |object: &WrittenObject| {
            intent.objects.iter().any(|planned| planned.jsonl_key.as_ref() == Some(&object.key))
        };
        let archive = self.objects.iter().filter(|object| !is_copy(object)).map(|object| object.bytes).sum();
        let bytes = ByteCounts { source: intent.source_bytes, archive };
        self.begin_commit().await?;
        let mut rewritten = 0;
        for (object, identities) in std::mem::take(&mut self.replaced) {
            if self.call.is_ending() {
                return Ok(Progress::Interrupted { advanced: written + rewritten });
            }
            rewritten += usize::from(self.take_out(&object, &identities).await?);
        }
        let key = manifest_key(&intent.window_id, &intent.run_id, intent.attempt);
        let manifest = Manifest {
            v: 1,
            run_id: intent.run_id.clone(),
            window_id: intent.window_id.clone(),
            attempt: intent.attempt,
            committed_at: self.call.now(),
            source: intent.counts.source,
            counts: intent.counts,
            objects: std::mem::take(&mut self.objects),
        };
        self.deps.objects.put_json(&key, &manifest).await?;
        let completed = self.complete_rows().await?;
        if !completed.all {
            return Ok(Progress::Interrupted { advanced: written + rewritten + completed.rows });
        }
        let (now, own) = (self.call.now(), intent.key());
        let completed = self.deps.windows.change(&intent.run_id, &intent.window_id, |record| {
            Ok(record.complete(Some(&own), intent.counts, bytes, Some(key.clone()), now))
        });
        if completed.await?.status != State::Completed {
            return Err(Error::Amended { window_id: intent.window_id.clone() });
        }
        Ok(Progress::Done {
            bytes,
            figures: vec![
                ("UploadMillis", self.uploading.as_millis() as u64),
                ("Objects", manifest.objects.len() as u64),
            ],
        })
    }

    /// Rows of objects that are verified, pair by pair.
    async fn complete_rows(&self) -> Result<Changed, Error> {
        let intent = self.intent;
        let of_position = objects_by_position(intent);
        let claim = self.intent.claim();
        let paths: Vec<String> = intent.objects.iter().map(|object| self.deps.objects.uri(&object.key)).collect();
        let (mut position, mut completed, mut guesses) = (0u32, Changed::default(), Guesses::default());
        for pair in 0..intent.pairs {
            let entries = self.entries(pair, position, &of_position).await?;
            let places: Vec<(&Entry, &String)> = (position..)
                .zip(&entries)
                .filter_map(|(at, entry)| Some((entry, &paths[*of_position.get(&at)?])))
                .collect();
            position += entries.len() as u32;
            let written: Vec<&Entry> = places.iter().map(|(entry, _)| *entry).collect();
            let mut elsewhere = Vec::new();
            let complete = |at: usize, row: Option<&Row>| {
                let (entry, path) = places[at];
                let lost = || Error::ClaimLost { id: entry.id.clone(), window_id: intent.window_id.clone() };
                let row = row.ok_or_else(lost)?;
                match complete(row, entry, &claim, path.clone(), self.call.now()) {
                    Ok(next) => Ok(next),
                    Err(_) if was_completed_by(row, &claim) => {
                        elsewhere.push(at);
                        Ok(None)
                    }
                    Err(_) => Err(lost()),
                }
            };
            let as_staged = |at: usize| Some(as_staged_first(places[at].0, &claim, intent.seen_at?));
            let is_ending = || self.call.is_ending();
            let changed = self.deps.ledger.change_all(&written, &mut guesses, as_staged, complete, is_ending);
            let changed = match changed.await {
                // Its rows are another's by now because all of it was carried out before.
                Err(Error::ClaimLost { .. }) if self.is_completed().await? => {
                    return Ok(Changed { all: true, ..completed });
                }
                changed => changed?,
            };
            completed.rows += changed.rows;
            for at in elsewhere {
                self.point_to(places[at].0, &claim, places[at].1).await?;
            }
            if !changed.all {
                return Ok(completed);
            }
        }
        completed.all = true;
        Ok(completed)
    }

    async fn is_completed(&self) -> Result<bool, Error> {
        let record = self.deps.windows.rows.get(&self.intent.run_id, Some(&self.intent.window_id)).await?;
        Ok(record.is_some_and(|record| record.status == State::Completed))
    }

    /// An executor of this intent as it was before it was amended completed the row, for another object. The intent
    /// that stands decides: it is looked at after the row was read, and the row is written as it was read.
    async fn point_to(&self, entry: &Entry, claim: &Claim, path: &str) -> Result<(), Error> {
        let rows = &self.deps.ledger.rows;
        let row = rows.get(&entry.id, Some(&entry.index)).await?;
        self.still_stands().await?;
        let Some(row) = row.filter(|row| was_completed_by(row, claim)) else { return Ok(()) };
        let claimed = Row { claim: Some(claim.clone()), ..row.clone() };
        let processed_at = row.processed_at.unwrap_or(self.intent.archived_at);
        let next = complete(&claimed, entry, claim, path.to_owned(), processed_at);
        if let Ok(Some(next)) = next {
            rows.put(&next).await?;
        }
        Ok(())
    }
}

/// The number of the object that each position of the spool goes into.
fn objects_by_position(intent: &Intent) -> HashMap<u32, usize> {
    intent
        .objects
        .iter()
        .enumerate()
        .flat_map(|(number, object)| object.entries.iter().map(move |position| (*position, number)))
        .collect()
}

fn fill(object: &mut Filling, entry: Entry, record: Record) -> Result<(), Error> {
    let compress = |source| Error::Compress { key: object.planned.key.clone(), source };
    if let Some(jsonl) = &mut object.jsonl {
        // A valid document has line breaks only between its tokens, so that they can go.
        for part in record.json_parts() {
            for piece in part.split(|byte| matches!(byte, b'\n' | b'\r')) {
                jsonl.write_all(piece).map_err(compress)?;
            }
        }
        jsonl.write_all(b"\n").map_err(compress)?;
    }
    match &mut object.body {
        Body::Rows(rows) => {
            rows.push(&entry, record).map_err(|source| Error::Columnar { key: object.planned.key.clone(), source })?
        }
        Body::Lines(lines) => {
            let reason = entry.outcome.reason.map(|reason| reason.as_str());
            let line = json!({"source_index": entry.index, "id": entry.id, "reason": reason}).to_string();
            let source = Base64Display::new(&record.message, &BASE64_STANDARD);
            writeln!(lines, "{},\"source_base64\":\"{source}\"}}", &line[..line.len() - 1]).map_err(compress)?;
        }
    }
    object.entries.push(entry);
    object.left -= 1;
    Ok(())
}
