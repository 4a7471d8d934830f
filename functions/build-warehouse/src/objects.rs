//! Which objects a source has, and their lines.

use crate::{
    Error,
    spill::{Order, Spill},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use errors::Named;
use futures::{StreamExt, TryStreamExt, stream};
use lines::{Lines, Step};
use serde_json::json;
use storage::{ObjectReader, Objects, StoreError, Upload};
use warehouse::{
    line::{Change, LineReader},
    object::Place,
    schema::Table,
    surrogate::Identity,
};
use warehouse_state::{BuiltObject, QUARANTINE, SourceState};

/// Longer lines end the reading of their object.
const LINE_BYTES: usize = 64 << 20;
/// Objects up to this size are fetched ahead as a whole.
const WHOLE_BYTES: u64 = 4 << 20;
/// How many are fetched ahead.
const AHEAD: usize = 8;

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
    let mut spill = Spill::new(listed.iter().map(|object| object.bytes).sum())?;
    let mut state = SourceState::default();
    let mut reader = LineReader::new(table);
    let key = format!("{QUARANTINE}{}/{attempt:010}.jsonl", table.name);
    let mut quarantine = Quarantine { objects: warehouse.clone(), key, upload: None };
    let fetched = stream::iter(listed).map(|object| fetch(bucket, object)).buffered(AHEAD);
    let mut fetched = Box::pin(fetched);
    let mut position = 0;
    while let Some((object, found)) = fetched.next().await {
        let mut content = match found {
            Ok(Some(content)) => content,
            // It was taken away since it was listed.
            Ok(None) => continue,
            Err(error) => {
                state.failures.push(given_up(object, error)?);
                continue;
            }
        };
        let mut source = ObjectLines { object, position, reader: &mut reader, spill: &mut spill };
        let tag = content.tag().to_owned();
        match source.read(&mut content, &mut state, &mut quarantine).await {
            Ok(()) => state.objects.push(BuiltObject { key: object.place.key.clone(), bytes: object.bytes, tag }),
            Err(Broken::Store(error)) => state.failures.push(given_up(object, error)?),
            Err(Broken::Lines(what)) => state.failures.push(warehouse_state::Place {
                object: object.place.key.clone(),
                bytes: object.bytes,
                error: "ObjectCorrupt".to_owned(),
                message: what,
            }),
            Err(Broken::Other(error)) => return Err(error),
        }
        reader.end_object();
        position += 1;
    }
    quarantine.finish().await?;
    state.added = reader.added().map(str::to_owned).collect();
    state.dropped = reader.dropped().map(str::to_owned).collect();
    Ok((spill, state))
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

async fn fetch<'a>(bucket: &Objects, object: &'a Listed) -> (&'a Listed, Result<Option<Content>, StoreError>) {
    let key = &object.place.key;
    let found = if object.bytes <= WHOLE_BYTES {
        let found = bucket.find_versioned(key).await;
        found.map(|found| found.map(|(body, tag)| Content::Whole { body: Some(body), tag }))
    } else {
        match bucket.open(key, None).await {
            Ok(reader) => Ok(Some(Content::Reader(reader))),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    (object, found)
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

struct ObjectLines<'a, 'b> {
    object: &'a Listed,
    /// Of the object among all of its table.
    position: u32,
    reader: &'b mut LineReader<'a>,
    spill: &'b mut Spill,
}

impl ObjectLines<'_, '_> {
    async fn read(
        &mut self,
        content: &mut Content,
        state: &mut SourceState,
        quarantine: &mut Quarantine,
    ) -> Result<(), Broken> {
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
                    if let Err(reason) = self.take(number, line.bytes, state)? {
                        state.quarantined += 1;
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
    fn take(&mut self, number: u64, bytes: &[u8], state: &mut SourceState) -> Result<Result<(), String>, Error> {
        let line = match self.reader.read(bytes) {
            Ok(line) => line,
            Err(refusal) => return Ok(Err(refusal.to_string())),
        };
        let (Change::Row { at, .. } | Change::Gone { at, .. }) = &line.change;
        state.greatest = state.greatest.max(*at);
        let order = Order { object: self.position, line: number as u32 };
        self.spill.push(Identity::of(&line.key), order, self.object.place.time.unwrap_or(0), &line.change)?;
        state.rows += 1;
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
