//! Steps 1 to 5 of [`feeds::protocol`]: claim files, read them, pack their records, register the intent.

use crate::{
    Deps, Error,
    carry_out::{self, ROWS},
    deliveries::{Delivery, Report},
};
use bytes::Bytes;
use errors::{Name, Named};
use feeds::{
    Batch, BatchCounts, BatchIntent, FeedFile, FilePart, Numbers, Pack, Plan, Rank,
    pack::{Destination, Output},
    protocol::{FileClaim, FilePosition, Holder, NUMBERS, intent_key, staged_key},
    record::{Kind, Reason, classify, quarantine_line},
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use ledger::{Keyed, Superseded};
use lines::{Lines, Position, Step};
use runtime::Call;
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use storage::{LedgerError, ObjectReader, StoreError};

/// Files that are opened ahead of the one that is read.
const OPEN: usize = 8;
/// What quarantine keeps of a line that is too long, in bytes.
const SHOWN: usize = 64 << 10;
/// How often a claim is tried while the row changes.
const CLAIMS: usize = 12;

pub enum RoundError {
    /// Another function took the batch over before its intent was registered; nothing of it is visible.
    Overtaken {
        batch: String,
        files: Vec<Delivery>,
    },
    Failed(Error),
}

impl<E: Into<Error>> From<E> for RoundError {
    fn from(error: E) -> Self {
        RoundError::Failed(error.into())
    }
}

/// What a round left behind.
pub struct Rounded {
    /// Files of which there is more, or which were not read at all.
    pub left: Vec<Delivery>,
    pub busy: Vec<Busy>,
    pub counts: BatchCounts,
    /// Records that are larger than an output may be.
    pub large: u64,
}

/// A file that another function holds, which may be alive.
pub struct Busy {
    pub delivery: Delivery,
    pub error: Error,
}

/// A file that is being read.
pub struct OpenFile {
    object: String,
    version: String,
    reader: ObjectReader,
    lines: Lines,
}

/// A file whose row names this round's batch.
struct Held {
    delivery: Delivery,
    row: FeedFile,
}

pub struct Round<'a> {
    deps: &'a Deps,
    call: &'a Call,
    /// How far the call was when the round began.
    began: Duration,
    /// It has read for long enough.
    is_late: bool,
    batch: String,
    pack: Pack,
    parts: Vec<FilePart>,
    /// The rows of `parts`.
    rows: Vec<FeedFile>,
    large: u64,
    oldest: Timestamp,
}

impl<'a> Round<'a> {
    /// Brings out what fits of the files.
    pub async fn run(
        deps: &'a Deps,
        call: &'a Call,
        files: Vec<Delivery>,
        open: &mut Option<OpenFile>,
        report: &mut Report,
    ) -> Result<Rounded, RoundError> {
        let batch = format!("{:016}", take_numbers(deps, call, 1).await?);
        // Refused only when the row is there already, by a request of this call whose answer was lost.
        deps.batches.put(&Batch::begin(&batch, call.now()).revised(1)).await?;
        let mut round = Round {
            deps,
            call,
            began: call.took(),
            is_late: false,
            batch,
            pack: Pack::default(),
            parts: Vec::new(),
            rows: Vec::new(),
            large: 0,
            oldest: Timestamp::MAX,
        };
        let (held, busy) = round.claim(files.clone(), report).await?;
        let (left, unread) = round.read(held, open, report).await?;
        let (batch, large) = (round.batch.clone(), round.large);
        let counts = if round.parts.is_empty() {
            BatchCounts::default()
        } else {
            match round.register_and_carry_out().await? {
                Some(counts) => counts,
                None => return Err(RoundError::Overtaken { batch, files }),
            }
        };
        release(deps, call, &batch, unread).await?;
        Ok(Rounded { left, busy, counts, large })
    }

    /// Writes the batch's name into the files' rows. Files that are done fall out.
    async fn claim(&self, files: Vec<Delivery>, report: &mut Report) -> Result<(Vec<Held>, Vec<Busy>), Error> {
        let order: HashMap<(String, String), usize> = files.iter().map(identity).zip(0..).collect();
        let (mut wanted, mut free, mut held, mut busy) = (files, HashSet::new(), Vec::new(), Vec::new());
        while !wanted.is_empty() {
            let claims = stream::iter(wanted).map(|delivery| self.claim_one(delivery, &free));
            let claims: Vec<(Delivery, Claimed)> = claims.buffer_unordered(ROWS).try_collect().await?;
            let mut others: Vec<(String, Vec<Delivery>)> = Vec::new();
            for (delivery, claimed) in claims {
                match claimed {
                    Claimed::Done => {}
                    Claimed::Taken(row) => held.push(Held { delivery, row: *row }),
                    Claimed::HeldBy(batch) => match others.iter_mut().find(|(other, _)| *other == batch) {
                        Some((_, deliveries)) => deliveries.push(delivery),
                        None => others.push((batch, vec![delivery])),
                    },
                }
            }
            wanted = Vec::new();
            for (batch, deliveries) in others {
                match self.look_after(&batch).await {
                    Ok(None) => {
                        free.insert(batch);
                        wanted.extend(deliveries);
                    }
                    Ok(Some(until)) => busy.extend(deliveries.into_iter().map(|delivery| {
                        let (key, batch) = (delivery.facts.object.clone(), batch.clone());
                        Busy { delivery, error: Error::FileBusy { key, batch, until } }
                    })),
                    // The files of other batches do not wait for this one.
                    Err(error) => report.fail(deliveries.into_iter().flat_map(|delivery| delivery.messages), &error),
                }
            }
        }
        held.sort_by_cached_key(|held| order.get(&identity(&held.delivery)).copied());
        Ok((held, busy))
    }

    async fn claim_one(&self, delivery: Delivery, free: &HashSet<String>) -> Result<(Delivery, Claimed), Error> {
        let facts = &delivery.facts;
        // Nearly always there is no row yet, and the condition of the write says so.
        let mut row = None;
        for _ in 0..CLAIMS {
            let taken = match FeedFile::claim(row.as_ref(), facts, &self.batch, free, self.call.now()) {
                FileClaim::Done => return Ok((delivery, Claimed::Done)),
                FileClaim::Held(batch) => return Ok((delivery, Claimed::HeldBy(batch))),
                FileClaim::Take(taken) => taken.revised(row.as_ref().map_or(1, |row| row.revision + 1)),
            };
            if self.deps.files.put(&taken).await? {
                return Ok((delivery, Claimed::Taken(Box::new(taken))));
            }
            row = self.deps.files.get(&facts.object, Some(&facts.version)).await?;
        }
        let table = self.deps.files.name().to_owned();
        Err(LedgerError::Contended { table, key: facts.object.clone(), tries: CLAIMS }.into())
    }

    /// `None`: the batch holds nothing any more. Otherwise its function may be alive until then.
    async fn look_after(&self, batch: &str) -> Result<Option<Timestamp>, Error> {
        for _ in 0..CLAIMS {
            let row = self.deps.batches.get(batch, None).await?;
            let revision = row.as_ref().map_or(1, |row| row.revision + 1);
            let put = |row: Batch| async move { self.deps.batches.put(&row.revised(revision)).await };
            match Batch::looked_after(row.as_ref(), self.call.now()) {
                Err(Superseded { .. }) => {}
                Ok(Holder::Free) => return Ok(None),
                Ok(Holder::Busy { until }) => return Ok(Some(until)),
                Ok(Holder::FenceOff(row)) => {
                    if put(row).await? {
                        return Ok(None);
                    }
                }
                Ok(Holder::CarryOut { row, plan }) => {
                    if put(row).await? {
                        tracing::info!(batch, "carrying out the intent of a function that died");
                        carry_out::staged(self.deps, self.call, batch, &plan).await?;
                        return Ok(None);
                    }
                }
            }
        }
        Err(LedgerError::Contended { table: self.deps.batches.name().to_owned(), key: batch.to_owned(), tries: CLAIMS }
            .into())
    }

    /// Reads the files in order, until the pack is full. Returns the deliveries that must come again, and the rows of
    /// those of which nothing was taken.
    async fn read(
        &mut self,
        held: Vec<Held>,
        open: &mut Option<OpenFile>,
        report: &mut Report,
    ) -> Result<(Vec<Delivery>, Vec<Released>), Error> {
        let deps = self.deps;
        let (mut left, mut unread) = (Vec::new(), Vec::new());
        let mut kept = open.take();
        // Files are opened ahead, but not those that would only be left.
        let (is_full, full) = (AtomicBool::new(false), Ordering::Relaxed);
        let opening = held.into_iter().map(|held| {
            let (kept, is_full) = (kept.take_if(|kept| kept.is(&held)), &is_full);
            async move {
                let file = match kept {
                    _ if is_full.load(full) => None,
                    Some(file) => Some(Ok(file)),
                    None => Some(OpenFile::open(deps, &held).await),
                };
                (held, file)
            }
        });
        let mut files = stream::iter(opening.collect::<Vec<_>>()).buffered(OPEN);
        while let Some((Held { delivery, row }, file)) = files.next().await {
            self.look_at_the_clock();
            is_full.store(self.is_full(), full);
            let Some(file) = file.filter(|_| !self.is_full()) else {
                left.push(delivery);
                unread.push(Released { row, error: None });
                continue;
            };
            let mut file = match file {
                Ok(file) => file,
                Err(error) => {
                    report.fail(delivery.messages, &error);
                    unread.push(Released { row, error: Some(error.name()) });
                    continue;
                }
            };
            let (part, error) = self.read_part(&delivery, &row, &mut file).await;
            let is_last = part.is_last;
            if is_last || part.from != part.to {
                self.parts.push(part);
                self.oldest = self.oldest.min(delivery.time);
                self.rows.push(row);
            } else {
                unread.push(Released { row, error: error.as_ref().map(Error::name) });
            }
            match error {
                // What was read in front of it comes out; the next delivery goes on there.
                Some(error) => report.fail(delivery.messages, &error),
                None if is_last => {}
                None => {
                    left.push(delivery);
                    *open = Some(file);
                }
            }
        }
        Ok((left, unread))
    }

    fn is_full(&self) -> bool {
        let limits = &self.deps.limits;
        self.is_late || self.pack.bytes() >= limits.round_bytes || self.pack.outputs() >= limits.round_outputs
    }

    /// Not for every line: that would cost as much as to check it. A round takes something, however late it is.
    fn look_at_the_clock(&mut self) {
        let has_something = !self.parts.is_empty() || self.pack.bytes() > 0;
        let is_long = self.call.took().saturating_sub(self.began) > self.deps.limits.round_time;
        self.is_late = has_something && (is_long || self.call.is_ending());
    }

    async fn read_part(
        &mut self,
        delivery: &Delivery,
        row: &FeedFile,
        file: &mut OpenFile,
    ) -> (FilePart, Option<Error>) {
        let number = self.parts.len();
        let destination = |rank| Destination { rank, content_type: row.content_type.clone(), date: row.date };
        let (records, quarantine) = (destination(delivery.rank), destination(Rank::Quarantine));
        let from = place(file.lines.position());
        let mut part = FilePart {
            object: row.object.clone(),
            version: row.version.clone(),
            from,
            to: from,
            is_gzip: false,
            is_last: false,
            records: 0,
            quarantined: 0,
            blank: 0,
        };
        let bad = |pack: &mut Pack, part: &mut FilePart, line, reason: Reason, bytes: &[u8]| {
            part.quarantined += 1;
            pack.add(&quarantine, number, &quarantine_line(&row.object, line, reason, bytes));
        };
        let error = loop {
            match file.lines.step() {
                Ok(Step::Line(line)) if line.is_cut => {
                    let beginning = &line.bytes[..line.bytes.len().min(SHOWN)];
                    bad(&mut self.pack, &mut part, line.number, Reason::TooLong, beginning);
                }
                Ok(Step::Line(line)) => match classify(line.bytes) {
                    Kind::Blank => part.blank += 1,
                    Kind::Bad(reason) => bad(&mut self.pack, &mut part, line.number, reason, line.bytes),
                    Kind::Record => {
                        part.records += 1;
                        if self.pack.add(&records, number, line.bytes) {
                            self.large += 1;
                            let (key, line) = (&row.object, line.number);
                            tracing::warn!(key, line, "a record is larger than 500,000 bytes and gets its own object");
                        }
                    }
                },
                Ok(Step::Damage(damage)) => {
                    bad(
                        &mut self.pack,
                        &mut part,
                        damage.number,
                        Reason::DamagedGzip(damage.what.text()),
                        damage.bytes,
                    );
                    // The end, also of a round that is full: a function that went on here would meet the damage again.
                    part.is_last = true;
                    break None;
                }
                Ok(Step::Starved) => {
                    match file.reader.chunk().await {
                        Ok(Some(piece)) => file.lines.feed(piece),
                        Ok(None) => file.lines.end(),
                        Err(error) => break Some(error.into()),
                    }
                    self.look_at_the_clock();
                }
                Ok(Step::End) => {
                    part.is_last = true;
                    break None;
                }
                // Longer lines are cut.
                Err(error) => unreachable!("{error}"),
            }
            if self.is_full() {
                break None;
            }
        };
        part.to = place(file.lines.position());
        part.is_gzip = file.lines.is_gzip().unwrap_or_default();
        (part, error)
    }

    /// `None`: another function took the batch over.
    async fn register_and_carry_out(self) -> Result<Option<BatchCounts>, Error> {
        let (deps, call) = (self.deps, self.call);
        let count = self.pack.outputs();
        let first = take_numbers(deps, call, count.max(1) as u64).await?;
        let (outputs, bodies): (Vec<Output>, Vec<Bytes>) = self.pack.seal(first, deps.format).into_iter().unzip();
        if !bodies.is_empty() {
            let mut upload = deps.archive.staged_upload(&staged_key(&self.batch), "application/octet-stream");
            for body in &bodies {
                upload.write(body).await?;
            }
            upload.finish().await?;
        }
        let intent = BatchIntent { batch: self.batch, parts: self.parts, outputs };
        let plan = Plan { key: intent_key(first, count), counts: intent.counts(), oldest: self.oldest };
        deps.archive.put_lines(&plan.key, std::slice::from_ref(&intent)).await?;
        let mut is_overtaken = false;
        let prepared = deps.batches.update(&intent.batch, None, |row| {
            let now = call.now();
            let work = row.and_then(|row| row.work.prepare(1, plan.clone(), now).ok());
            is_overtaken = work.is_none();
            Ok::<_, LedgerError>(row.zip(work).map(|(row, work)| Batch { work, ..row.clone() }))
        });
        prepared.await?;
        if is_overtaken {
            return Ok(None);
        }
        let counts = plan.counts;
        carry_out::fresh(deps, call, &intent, &plan, bodies, self.rows).await?;
        tracing::info!(
            batch = intent.batch,
            files = intent.parts.len(),
            objects = counts.objects,
            records = counts.records,
            outputs = counts.outputs,
            bytes = counts.bytes,
            quarantined = counts.quarantined,
            large = self.large,
            "carried out"
        );
        Ok(Some(counts))
    }
}

enum Claimed {
    Done,
    Taken(Box<FeedFile>),
    HeldBy(String),
}

/// A file that was claimed and of which nothing was taken.
struct Released {
    row: FeedFile,
    error: Option<Name>,
}

/// Lets go of files, so that no other function has to finish this batch before it can read them.
async fn release(deps: &Deps, call: &Call, batch: &str, files: Vec<Released>) -> Result<(), Error> {
    let releases = stream::iter(files).map(|Released { row, error }| async move {
        let name = error.map(Name::as_str);
        let update = deps.files.update(&row.object, Some(&row.version), |row| {
            Ok::<_, LedgerError>(row.and_then(|row| row.release(batch, name, call.now())))
        });
        update.await
    });
    Ok(releases.buffer_unordered(ROWS).try_for_each(|_| async { Ok(()) }).await?)
}

/// The first of `count` numbers that no other output has.
async fn take_numbers(deps: &Deps, call: &Call, count: u64) -> Result<u64, LedgerError> {
    let update =
        deps.numbers.update(NUMBERS, None, |row| Ok::<_, LedgerError>(Some(Numbers::give(row, count, call.now()))));
    let last = update.await?.map_or(0, |row| row.last);
    Ok(last + 1 - count)
}

fn identity(delivery: &Delivery) -> (String, String) {
    (delivery.facts.object.clone(), delivery.facts.version.clone())
}

fn place(position: Position) -> FilePosition {
    FilePosition { offset: position.offset, lines: position.lines }
}

impl OpenFile {
    async fn open(deps: &Deps, held: &Held) -> Result<Self, Error> {
        let Held { delivery, row } = held;
        let missing = || Error::FileMissing { key: row.object.clone(), version: row.version.clone() };
        let reader = match deps.source.open(&row.object, delivery.version_id.as_deref()).await {
            Ok(reader) => reader,
            Err(StoreError::Missing { .. }) => return Err(missing()),
            Err(error) => return Err(error.into()),
        };
        // Without versions a later object may have taken the place of the one that the event names.
        let is_other = |tag: &String| tag.trim_matches('"') != reader.tag().trim_matches('"');
        if delivery.version_id.is_none() && delivery.tag.as_ref().is_some_and(is_other) {
            return Err(missing());
        }
        let position = Position { offset: row.offset, lines: row.lines };
        let lines = Lines::resume(deps.limits.line_bytes, position).cutting();
        Ok(OpenFile { object: row.object.clone(), version: row.version.clone(), reader, lines })
    }

    /// Whether it stands where the held file is to go on.
    fn is(&self, held: &Held) -> bool {
        let position = Position { offset: held.row.offset, lines: held.row.lines };
        self.object == held.row.object && self.version == held.row.version && self.lines.position() == position
    }
}
