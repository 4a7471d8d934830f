//! Which objects a source has, and their lines.

use crate::{
    Error,
    side_by_side::side_by_side,
    spill::{Order, Spill},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use errors::{Name, Named};
use futures::TryStreamExt;
use lines::Step;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use storage::{ObjectReader, Objects, StoreError, Upload};
use tokio::sync::Mutex;
use warehouse::{
    line::{Change, LineReader},
    object::Place,
    schema::Table,
    surrogate::Identity,
};
use warehouse_state::{BuiltObject, QUARANTINE, SourceState};

/// Longer lines go into quarantine. As many as objects are read side by side may be in memory.
const LINE_BYTES: usize = 64 << 20;
/// What quarantine keeps of such a line.
const SHOWN: usize = 64 << 10;
/// Objects up to this size are fetched as a whole.
const WHOLE_BYTES: u64 = 4 << 20;
/// How many are read side by side.
const AT_ONCE: usize = 8;

/// An object that lies in a bucket.
#[derive(Clone, Debug)]
pub struct Listed {
    pub place: Place,
    pub bytes: u64,
}

/// All objects of a table, in the order of their places.
pub async fn list(table: &Table, bucket: &Objects) -> Result<Vec<Listed>, Error> {
    let mut listed = Vec::new();
    let mut pages = Box::pin(bucket.pages(&table.prefix(), None));
    while let Some(page) = pages.try_next().await? {
        // A key that ends with a slash is a folder that a console made.
        let objects = page.into_iter().filter(|object| !object.key.ends_with('/'));
        listed.extend(objects.map(|object| Listed { place: Place::of(&object.key), bytes: object.bytes }));
    }
    listed.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(listed)
}

/// An object to be read, with the number by which its lines refer to it.
#[derive(Clone, Debug)]
pub struct Numbered {
    pub number: u32,
    pub listed: Listed,
}

/// What was in some objects of a table.
pub struct Lines {
    pub spill: Spill,
    /// In the order in which they were asked for.
    pub objects: Vec<ObjectRead>,
    /// The key of what no table took.
    pub quarantine: Option<String>,
}

/// Reads all lines of objects into a spill of parts of about `part_bytes`, and tells what was in them.
pub async fn read(
    table: &Table,
    objects: Vec<Numbered>,
    bucket: &Objects,
    warehouse: &Objects,
    attempt: u64,
    part_bytes: u64,
) -> Result<Lines, Error> {
    let key = format!("{QUARANTINE}{}/{attempt:010}.jsonl", table.name);
    let reading = Arc::new(Reading {
        table: table.clone(),
        bucket: bucket.clone(),
        spill: Spill::new(objects.iter().map(|object| object.listed.bytes).sum(), part_bytes)?,
        quarantine: Mutex::new(Quarantine { objects: warehouse.clone(), key: key.clone(), upload: None }),
    });
    let read = side_by_side(0..objects.len(), AT_ONCE, |at| {
        let (reading, object) = (reading.clone(), objects[at].clone());
        async move { reading.object(object.number, &object.listed).await }
    });
    let read = read.await?;
    let reading = Arc::into_inner(reading).expect("all tasks have ended");
    let has_quarantined = reading.quarantine.into_inner().finish().await?;
    let objects = read.into_values().flatten().collect();
    let spill = reading.spill.divided(part_bytes)?;
    Ok(Lines { spill, objects, quarantine: has_quarantined.then_some(key) })
}

/// Adds what was in objects to what is known of a source.
pub fn note(state: &mut SourceState, read: Vec<ObjectRead>, quarantine: Option<String>) {
    let mut added: BTreeSet<String> = std::mem::take(&mut state.added).into_iter().collect();
    for object in read {
        match object.end {
            Ok(built) => {
                state.rows += object.rows;
                state.quarantined += object.quarantined;
                state.greatest = state.greatest.max(object.greatest);
                added.extend(object.added);
                state.objects.push(built);
            }
            // What was read of it is in no table.
            Err(failure) => state.failures.push(failure),
        }
    }
    state.added = added.into_iter().collect();
    state.quarantine.extend(quarantine);
    state.objects.sort_by_cached_key(|object| Place::of(&object.key));
    // What the rows of the latest object do not have is dropped.
    state.dropped = state.objects.iter().rev().find_map(|object| object.dropped.clone()).unwrap_or_default();
}

/// What the tasks share that read the objects of one table side by side.
struct Reading {
    table: Table,
    bucket: Objects,
    spill: Spill,
    quarantine: Mutex<Quarantine>,
}

/// What was in an object.
pub struct ObjectRead {
    rows: u64,
    quarantined: u64,
    greatest: Option<i64>,
    added: Vec<String>,
    pub end: Result<BuiltObject, warehouse_state::UnreadObject>,
}

impl Reading {
    /// `None`: it was taken away since it was listed.
    async fn object(&self, number: u32, object: &Listed) -> Result<Option<ObjectRead>, Error> {
        let mut lines = ObjectLines {
            object,
            number,
            reader: LineReader::new(&self.table),
            spill: &self.spill,
            record: Vec::new(),
            rows: 0,
            quarantined: 0,
            greatest: None,
        };
        let end = match fetch(&self.bucket, object).await {
            Ok(None) => return Ok(None),
            Ok(Some(mut content)) => {
                let (key, tag) = (object.place.key.clone(), content.tag().to_owned());
                match lines.read(&mut content, &self.quarantine).await {
                    Ok(()) => {
                        let dropped = lines.reader.dropped().map(|names| names.map(str::to_owned).collect());
                        Ok(BuiltObject { key, bytes: object.bytes, tag, number, dropped })
                    }
                    Err(Broken::Store(error)) => Err(given_up(object, error)?),
                    Err(Broken::Lines(message)) => {
                        let error = Name::ObjectCorrupt.as_str().to_owned();
                        Err(warehouse_state::UnreadObject { object: key, bytes: object.bytes, error, message })
                    }
                    Err(Broken::Other(error)) => return Err(error),
                }
            }
            Err(error) => Err(given_up(object, error)?),
        };
        Ok(Some(ObjectRead {
            rows: lines.rows,
            quarantined: lines.quarantined,
            greatest: lines.greatest,
            added: lines.reader.added().map(str::to_owned).collect(),
            end,
        }))
    }
}

/// An object that stands alone with its trouble is set aside as failed; where the store is down, the build fails and is
/// tried again.
fn given_up(object: &Listed, error: StoreError) -> Result<warehouse_state::UnreadObject, Error> {
    match error {
        StoreError::Unavailable { .. } | StoreError::BucketMissing { .. } => Err(error.into()),
        error => Ok(warehouse_state::UnreadObject {
            object: object.place.key.clone(),
            bytes: object.bytes,
            error: error.name().entry().name.to_owned(),
            message: errors::describe(&error),
        }),
    }
}

/// The bytes of an object: all of them, or as they are asked for.
enum Content {
    Whole { body: Option<Bytes>, tag: String },
    Reader(ObjectReader),
}

impl Content {
    fn tag(&self) -> &str {
        match self {
            Content::Whole { tag, .. } => tag,
            Content::Reader(reader) => reader.tag(),
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self {
            Content::Whole { body, .. } => Ok(body.take().filter(|body| !body.is_empty())),
            Content::Reader(reader) => reader.chunk().await,
        }
    }
}

async fn fetch(bucket: &Objects, object: &Listed) -> Result<Option<Content>, StoreError> {
    let key = &object.place.key;
    if object.bytes <= WHOLE_BYTES {
        let found = bucket.find_versioned(key).await;
        found.map(|found| found.map(|(body, tag)| Content::Whole { body: Some(body), tag }))
    } else {
        match bucket.open(key, None).await {
            Ok(reader) => Ok(Some(Content::Reader(reader))),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

enum Broken {
    Store(StoreError),
    Lines(String),
    Other(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Broken::Other(error)
    }
}

struct ObjectLines<'a> {
    object: &'a Listed,
    number: u32,
    reader: LineReader<'a>,
    spill: &'a Spill,
    record: Vec<u8>,
    rows: u64,
    quarantined: u64,
    greatest: Option<i64>,
}

impl ObjectLines<'_> {
    async fn read(&mut self, content: &mut Content, quarantine: &Mutex<Quarantine>) -> Result<(), Broken> {
        let mut lines = lines::Lines::new(LINE_BYTES).cutting();
        loop {
            match lines.step().map_err(|error| Broken::Lines(error.to_string()))? {
                Step::Starved => match content.piece().await.map_err(Broken::Store)? {
                    Some(piece) => lines.feed(piece),
                    None => lines.end(),
                },
                Step::Line(line) => {
                    let number = line.number;
                    let (taken, shown) = if line.is_cut {
                        let reason = format!("the line is longer than {LINE_BYTES} bytes");
                        (Err(reason), &line.bytes[..line.bytes.len().min(SHOWN)])
                    } else if line.bytes.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    } else {
                        (self.take(number, line.bytes)?, line.bytes)
                    };
                    if let Err(reason) = taken {
                        self.quarantined += 1;
                        let mut quarantine = quarantine.lock().await;
                        quarantine.put(&self.object.place.key, number, &reason, shown).await?;
                    }
                }
                Step::Damage(damage) => {
                    return Err(Broken::Lines(format!("line {} cannot be unpacked: {}", damage.number, damage.what)));
                }
                Step::End => return Ok(()),
            }
        }
    }

    /// The inner error is why the line goes into quarantine.
    fn take(&mut self, number: u64, bytes: &[u8]) -> Result<Result<(), String>, Error> {
        let line = match self.reader.read(bytes) {
            Ok(line) => line,
            Err(refusal) => return Ok(Err(refusal.to_string())),
        };
        let (Change::Row { at, .. } | Change::Gone { at, .. }) = &line.change;
        self.greatest = self.greatest.max(*at);
        let order = Order { object: self.number, line: number as u32 };
        let time = self.object.place.time.unwrap_or(0);
        self.spill.push(Identity::of(&line.key), order, time, &line.change, &mut self.record)?;
        self.rows += 1;
        Ok(Ok(()))
    }
}

/// Lines that no table took, with their reasons.
struct Quarantine {
    objects: Objects,
    key: String,
    upload: Option<Upload>,
}

impl Quarantine {
    async fn put(&mut self, object: &str, line: u64, reason: &str, source: &[u8]) -> Result<(), Error> {
        let upload = self.upload.get_or_insert_with(|| self.objects.upload(&self.key, "application/x-ndjson"));
        let source = BASE64_STANDARD.encode(source);
        let record = json!({"object": object, "line": line, "reason": reason, "source_base64": source});
        upload.write(format!("{record}\n").as_bytes()).await?;
        Ok(())
    }

    /// Returns whether there were any.
    async fn finish(&mut self) -> Result<bool, Error> {
        let Some(upload) = self.upload.take() else { return Ok(false) };
        upload.finish().await?;
        Ok(true)
    }
}
