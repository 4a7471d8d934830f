//! Which objects a source has, and their lines.

use crate::{
    Error,
    spill::{Order, Spill},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use errors::{Name, Named};
use futures::TryStreamExt;
use lines::{Lines, Step};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use storage::{ObjectReader, Objects, StoreError, Upload};
use tokio::{sync::Mutex, task::JoinSet};
use warehouse::{
    line::{Change, LineReader},
    object::Place,
    schema::Table,
    surrogate::Identity,
};
use warehouse_state::{BuiltObject, QUARANTINE, SourceState};

/// Longer lines end the reading of their object.
const LINE_BYTES: usize = 64 << 20;
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

/// Reads all lines of a table into a spill, and tells what was in them.
pub async fn read(
    table: &Table,
    listed: &[Listed],
    bucket: &Objects,
    warehouse: &Objects,
    attempt: u64,
) -> Result<(Spill, SourceState), Error> {
    let key = format!("{QUARANTINE}{}/{attempt:010}.jsonl", table.name);
    let reading = Arc::new(Reading {
        table: table.clone(),
        bucket: bucket.clone(),
        spill: Spill::new(listed.iter().map(|object| object.bytes).sum())?,
        quarantine: Mutex::new(Quarantine { objects: warehouse.clone(), key, upload: None }),
    });
    let (mut waiting, mut tasks, mut read) = (listed.iter().cloned().enumerate(), JoinSet::new(), BTreeMap::new());
    loop {
        while tasks.len() < AT_ONCE
            && let Some((position, object)) = waiting.next()
        {
            let reading = reading.clone();
            tasks.spawn(async move { (position, reading.object(position as u32, &object).await) });
        }
        let Some(done) = tasks.join_next().await else { break };
        let (position, object) = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        read.insert(position, object?);
    }
    drop(tasks);
    let reading = Arc::into_inner(reading).expect("all tasks have ended");
    reading.quarantine.into_inner().finish().await?;
    let (mut state, mut added) = (SourceState::default(), BTreeSet::new());
    for object in read.into_values().flatten() {
        state.rows += object.rows;
        state.quarantined += object.quarantined;
        state.greatest = state.greatest.max(object.greatest);
        added.extend(object.added);
        // What the rows of the latest object do not have is dropped.
        state.dropped = object.dropped.unwrap_or(state.dropped);
        match object.end {
            Ok(built) => state.objects.push(built),
            Err(failure) => state.failures.push(failure),
        }
    }
    state.added = added.into_iter().collect();
    Ok((reading.spill, state))
}

/// What the tasks share that read the objects of one table side by side.
struct Reading {
    table: Table,
    bucket: Objects,
    spill: Spill,
    quarantine: Mutex<Quarantine>,
}

/// What was in an object.
struct ObjectRead {
    rows: u64,
    quarantined: u64,
    greatest: Option<i64>,
    added: Vec<String>,
    dropped: Option<Vec<String>>,
    end: Result<BuiltObject, warehouse_state::Place>,
}

impl Reading {
    /// `position`: of the object among all of its table. `None`: it was taken away since it was listed.
    async fn object(&self, position: u32, object: &Listed) -> Result<Option<ObjectRead>, Error> {
        let mut lines = ObjectLines {
            object,
            position,
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
                    Ok(()) => Ok(BuiltObject { key, bytes: object.bytes, tag }),
                    Err(Broken::Store(error)) => Err(given_up(object, error)?),
                    Err(Broken::Lines(message)) => {
                        let error = Name::ObjectCorrupt.as_str().to_owned();
                        Err(warehouse_state::Place { object: key, bytes: object.bytes, error, message })
                    }
                    Err(Broken::Other(error)) => return Err(error),
                }
            }
            Err(error) => Err(given_up(object, error)?),
        };
        let owned = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect();
        Ok(Some(ObjectRead {
            rows: lines.rows,
            quarantined: lines.quarantined,
            greatest: lines.greatest,
            added: owned(&mut lines.reader.added()),
            dropped: lines.reader.dropped().map(|mut names| owned(&mut names)),
            end,
        }))
    }
}

/// An object that stands alone with its trouble is set aside as failed; where the store is down, the build fails and is tried again.
fn given_up(object: &Listed, error: StoreError) -> Result<warehouse_state::Place, Error> {
    match error {
        StoreError::Unavailable { .. } | StoreError::BucketMissing { .. } => Err(error.into()),
        error => Ok(warehouse_state::Place {
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
    position: u32,
    reader: LineReader<'a>,
    spill: &'a Spill,
    record: Vec<u8>,
    rows: u64,
    quarantined: u64,
    greatest: Option<i64>,
}

impl ObjectLines<'_> {
    async fn read(&mut self, content: &mut Content, quarantine: &Mutex<Quarantine>) -> Result<(), Broken> {
        let mut lines = Lines::new(LINE_BYTES);
        loop {
            match lines.step().map_err(|error| Broken::Lines(error.to_string()))? {
                Step::Starved => match content.piece().await.map_err(Broken::Store)? {
                    Some(piece) => lines.feed(piece),
                    None => lines.end(),
                },
                Step::Line(line) => {
                    let number = line.number;
                    if line.bytes.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    }
                    if let Err(reason) = self.take(number, line.bytes)? {
                        self.quarantined += 1;
                        let mut quarantine = quarantine.lock().await;
                        quarantine.put(&self.object.place.key, number, &reason, line.bytes).await?;
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
        let order = Order { object: self.position, line: number as u32 };
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

    async fn finish(&mut self) -> Result<(), Error> {
        if let Some(upload) = self.upload.take() {
            upload.finish().await?;
        }
        Ok(())
    }
}
