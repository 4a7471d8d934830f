//! The ingest of one table, under the claim of its row.

use crate::{
    Deps, Error, Ingested,
    database::{Session, cursor, text},
    known::{KnownReader, KnownWriter},
    spelling::Spelling,
    spool::{PARTS, Record, SLICES, Spool, digest, is_whole, key_of_line, slice_of},
    writer::ObjectWriter,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use lines::{Lines, Step};
use parameters::{recall, tell};
use runtime::Call;
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    pin::pin,
    time::Duration,
};
use storage::PutOnce;
use warehouse::{schema::Table, time};
use warehouse_state::{IngestParameter, IngestRow, SourceColumn, ingest_parameter, known_key};

/// Keys that are asked for at once.
const KEYS_AT_ONCE: usize = 1000;
const LINE_BYTES: usize = 1 << 30;
/// The part of a call's time that the reading of keys may take. What is known is written after it, and other tables wait.
const COMPARISON: f64 = 0.4;

pub async fn ingest(deps: &Deps, table: &Table, row: &IngestRow, full: bool, call: &Call) -> Result<Ingested, Error> {
    let mut spool = Spool::new()?;
    let parameter = ingest_parameter(&deps.parameter_prefix, &table.name);
    let told: Option<IngestParameter> = recall(deps.parameters.as_ref(), &parameter).await?;
    let session = deps.database.connect(&deps.warehouse).await?;
    let horizon = session.begin(table).await?;
    let relation = session.relation(&table.name).await?;
    let columns = relation.columns;
    check(table, &columns)?;
    let read_at = session.now().await?;
    let spelling = Spelling::new(table, &columns);
    let is_anew = !spelling.follows(&row.key);
    let mut known = KnownReader::open(&deps.warehouse, row.known.as_deref().filter(|_| !is_anew)).await?;
    if is_anew {
        tracing::warn!(table = table.name, "the key is another one: what was written is compared no further back");
    } else if !spelling.is(&row.key) {
        respell(&spelling, &mut known, &mut spool)?;
    }
    let is_respelled = !spelling.is(&row.key);
    let (last_id, adopted) = adopt(deps, row, &spelling, &mut spool).await?;
    let last_id = last_id.max(told.as_ref().map_or(0, |told| told.sequential_id));
    let micros = |text: &Option<String>| text.as_deref().and_then(|text| time::timestamptz(text).ok());
    let stored = micros(&row.timestamp);
    let is_made_anew = row.oid.is_some() && row.oid != relation.oid;
    if is_made_anew {
        tracing::warn!(table = table.name, "the table was dropped and made anew: all of its rows are read");
    }
    // Where the parameter is behind the row, what lies between is compared once more; nothing is ever skipped.
    let since = match &told {
        _ if full || is_made_anew => None,
        Some(told) => stored.min(micros(&told.timestamp)),
        None => stored,
    };
    let mut merge = Merge {
        table,
        session: &session,
        columns: &columns,
        writer: ObjectWriter::new(deps, table, row.fence.attempt, read_at, last_id + 1),
        read_at,
        compares: 0..0,
        tells_deletions: !is_anew,
        pace: Pace::new(deps.database.rows_per_second, call),
        is_cut: false,
        rows: 0,
        deleted: 0,
    };
    let (mut spool, known, greatest) = merge.read_rows(since, spool, known, deps.spool_bytes).await?;
    let from = if is_respelled { 0 } else { row.compare_from };
    if is_due(table, row, is_respelled, call) {
        merge.compares = merge.pace.slices(from, row.keys.max(merge.pace.rows), row.compare_most);
        merge.is_cut = !read_keys(table, &session, &merge.compares, &mut spool, &mut merge.pace).await?;
    }
    let compares = merge.compares.clone();
    let (writer, keys) = merge.all(spool, known).await?;
    let sequential_id = merge.writer.finish().await?;
    let (rows, deleted, objects) = (merge.rows, merge.deleted, std::mem::take(&mut merge.writer.objects));
    let is_cut = merge.is_cut;
    // Otherwise fewer are compared next time.
    let is_too_long = is_cut && compares.len() == 1;
    drop(session);

    // What is behind the bound cannot change any more, but for transactions that were prepared.
    let reached = stored.max(greatest).map(|at| at.min(horizon.bound));
    let reached = if horizon.has_prepared { stored } else { reached };
    let is_unchanged = rows + deleted == 0 && !adopted && !is_respelled;
    let key = known_key(&table.name, row.fence.attempt);
    if !is_unchanged {
        writer.put(&deps.warehouse, &key).await?;
    }
    let committed = deps.rows.change_ingest(&table.name, row.fence.attempt, |row| {
        let latest = row.planned.last().map(|planned| planned.key.clone());
        IngestRow {
            timestamp: reached.map(time::text).or(row.timestamp),
            sequential_id,
            latest_object: latest.or(row.latest_object),
            known: if is_unchanged { row.known } else { Some(key.clone()) },
            key: spelling.columns.clone(),
            keys,
            planned: Vec::new(),
            compared_at: match compares.end == SLICES && !is_cut {
                true => Some(call.now().as_second()),
                // It goes on whether or not one was due.
                false if is_respelled => None,
                false => row.compared_at,
            },
            compare_from: if compares.is_empty() || is_cut { from } else { compares.end % SLICES },
            compare_most: if is_cut { (compares.len() / 2).max(1) } else { row.compare_most },
            oid: relation.oid,
            completed_at: Some(call.now()),
            first_columns: with_new(row.first_columns, &columns),
            columns: columns.clone(),
            failure: None,
            failures_in_a_row: if is_too_long { row.failures_in_a_row } else { 0 },
            ..row
        }
    });
    let committed = committed.await?;
    let reached = IngestParameter {
        timestamp: committed.timestamp.clone(),
        sequential_id,
        latest_object: committed.latest_object.clone(),
    };
    if told.as_ref() != Some(&reached) {
        tell(deps.parameters.as_ref(), &parameter, &reached).await?;
    }
    let ended = deps.rows.change_ingest(&table.name, row.fence.attempt, |row| {
        let fence = row.fence.end(call.now());
        IngestRow { fence, ..row }
    });
    ended.await?;
    if let Some(old) = row.known.as_ref().filter(|old| Some(*old) != committed.known.as_ref()) {
        deps.warehouse.delete(old).await?;
    }
    if is_too_long {
        let what = "the rows are ingested, but the function's time was over before keys were compared; give it more";
        return Err(Error::Read { table: table.name.clone(), what: what.to_owned() });
    }
    Ok(Ingested {
        table: table.name.clone(),
        rows,
        deleted,
        objects,
        timestamp: committed.timestamp,
        sequential_id,
        ..Ingested::default()
    })
}

/// Whether keys are compared: at most as often as the file says. A comparison that has not seen all keys stays due.
fn is_due(table: &Table, row: &IngestRow, is_respelled: bool, call: &Call) -> bool {
    table.hard_deletes.is_some_and(|every| {
        let due = row.compared_at.map_or(i64::MIN, |at| at.saturating_add(every.as_secs() as i64));
        due <= call.now().as_second() || is_respelled
    })
}

/// Takes what is known into the spool, as it is spelled now.
fn respell(spelling: &Spelling, known: &mut KnownReader, spool: &mut Spool) -> Result<(), Error> {
    for part in 0..PARTS {
        for (key, line) in known.part(part)? {
            if let Some(key) = spelling.key(&key) {
                spool.push(&Record::Adopted { key, line })?;
            }
        }
    }
    Ok(())
}

/// Looks for each object that a dead attempt had planned. One that is there is taken over as it is; one that is not
/// is created empty, so that the dead attempt cannot create it any more should it wake up.
/// Returns the last id that is in use, and whether there was anything to take over.
async fn adopt(deps: &Deps, row: &IngestRow, spelling: &Spelling, spool: &mut Spool) -> Result<(u64, bool), Error> {
    let mut last_id = row.sequential_id;
    for planned in &row.planned {
        let found = deps.ingestion.head(&planned.key).await?;
        let foreign = || Error::ObjectExists { bucket: deps.ingestion.bucket().to_owned(), key: planned.key.clone() };
        match found {
            Some(_) if planned.is_refused => return Err(foreign()),
            // The object that stood in the way is gone, and ours was never written.
            None if planned.is_refused => continue,
            Some(head) if head.sha256.as_ref() == Some(&planned.sha256) => {
                adopt_lines(deps, &planned.key, spelling, spool).await?;
            }
            Some(head) if head.bytes == 0 => {}
            Some(_) => return Err(foreign()),
            None => match deps.ingestion.put_once(&planned.key, Bytes::new(), "application/x-ndjson").await? {
                PutOnce::Created(_) => {}
                // It came just now.
                PutOnce::Exists(head) if head.sha256.as_ref() == Some(&planned.sha256) => {
                    adopt_lines(deps, &planned.key, spelling, spool).await?;
                }
                PutOnce::Exists(_) => return Err(foreign()),
            },
        }
        last_id = planned.id;
    }
    Ok((last_id, last_id > row.sequential_id))
}

async fn adopt_lines(deps: &Deps, key: &str, spelling: &Spelling, spool: &mut Spool) -> Result<(), Error> {
    let damaged = |what: String| Error::Store(deps.ingestion.corrupt(key, what));
    let mut reader = deps.ingestion.open(key, None).await?;
    let mut lines = Lines::new(LINE_BYTES);
    loop {
        match lines.step().map_err(|error| damaged(error.to_string()))? {
            Step::Starved => match reader.chunk().await? {
                Some(piece) => lines.feed(piece),
                None => lines.end(),
            },
            Step::Line(line) => {
                let (key, is_deletion) = spelling.line(line.bytes).ok_or_else(|| damaged("a line is no row".into()))?;
                spool.push(&if is_deletion {
                    Record::AdoptedDeletion { key }
                } else {
                    Record::Adopted { key, line: digest(line.bytes) }
                })?;
            }
            Step::Damage(damage) => return Err(damaged(damage.what.to_string())),
            Step::End => return Ok(()),
        }
    }
}

fn check(table: &Table, columns: &[SourceColumn]) -> Result<(), Error> {
    if columns.is_empty() {
        return Err(Error::UnknownTable { table: table.name.clone() });
    }
    let find = |at: &usize| {
        let name = &table.columns[*at].name;
        (name.clone(), columns.iter().find(|column| column.name == *name))
    };
    for at in &table.key {
        if let (column, None) = find(at) {
            return Err(Error::KeyMissing { table: table.name.clone(), column });
        }
    }
    for at in &table.cursor {
        match find(at) {
            (column, None) => return Err(Error::CursorMissing { table: table.name.clone(), column }),
            (column, Some(found)) if !found.of.starts_with("timestamp") || found.of.ends_with("[]") => {
                return Err(Error::CursorType { table: table.name.clone(), column, found: found.of.clone() });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Rows that were asked for, held against the rows a second that the server is to give at most.
struct Pace<'a> {
    rows_per_second: u64,
    call: &'a Call,
    began: Duration,
    rows: u64,
}

impl<'a> Pace<'a> {
    fn new(rows_per_second: u64, call: &'a Call) -> Self {
        Pace { rows_per_second: rows_per_second.max(1), call, began: call.took(), rows: 0 }
    }

    /// Counts a row and waits where it came too early. Returns whether there is time for more.
    async fn row(&mut self) -> bool {
        self.rows += 1;
        if !self.rows.is_multiple_of(1000.min(self.rows_per_second)) {
            return true;
        }
        let due = Duration::from_secs_f64(self.rows as f64 / self.rows_per_second as f64);
        self.call.sleep(due.saturating_sub(self.call.took().saturating_sub(self.began))).await;
        !self.call.is_ending()
    }

    /// The slices of so many keys that this call has the time to compare, and at least one.
    fn slices(&self, from: usize, keys: u64, most: usize) -> Range<usize> {
        let rows = self.rows_per_second as f64 * self.call.left().as_secs_f64() * COMPARISON;
        let count = (SLICES as f64 * rows / keys.max(1) as f64) as usize;
        let most = if most == 0 { SLICES } else { most };
        from..from.saturating_add(count.clamp(1, most)).min(SLICES)
    }
}

fn record(table: &Table, row: &tokio_postgres::Row) -> Result<Record, Error> {
    let missing = || Error::Read { table: table.name.clone(), what: "a row has no text".to_owned() };
    // PostgreSQL keeps line breaks between the tokens of json columns; inside of strings there are none.
    let one_line = |text: &str| text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect::<Vec<u8>>();
    let line = one_line(text(&table.name, row, 0)?.ok_or_else(missing)?);
    let key = text(&table.name, row, 1)?.map_or_else(|| key_of_line(&line), one_line);
    Ok(Record::Row { key, line, cursor: cursor(&table.name, row, 2)? })
}

/// Reads the keys of these slices into the spool. Returns whether there was time for all of them.
async fn read_keys(
    table: &Table,
    session: &Session,
    slices: &Range<usize>,
    spool: &mut Spool,
    pace: &mut Pace<'_>,
) -> Result<bool, Error> {
    let mut rows = pin!(session.keys(table, slices).await?);
    while let Some(row) = rows.try_next().await.map_err(|error| Error::of(&table.name, error))? {
        if let Some(key) = text(&table.name, &row, 0)? {
            spool
                .push(&Record::Present { key: key.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect() })?;
        }
        if !pace.row().await {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares what was read with what is known, and writes the difference.
struct Merge<'a> {
    table: &'a Table,
    session: &'a Session,
    columns: &'a [SourceColumn],
    writer: ObjectWriter<'a>,
    /// Microseconds since 1970.
    read_at: i64,
    /// Slices whose keys were read.
    compares: Range<usize>,
    /// Not where nothing is known of what was written by another key.
    tells_deletions: bool,
    pace: Pace<'a>,
    /// The time was over before all was compared. What was found by then stays, the rest is left to the next call.
    is_cut: bool,
    rows: u64,
    deleted: u64,
}

impl Merge<'_> {
    /// Reads rows from `since` on. Whenever so many bytes of them are in the spool they are compared and written, so
    /// that a table may be larger than the disk. Returns what is left to be compared, with what is known by then, and
    /// the greatest finite cursor in microseconds since 1970.
    async fn read_rows(
        &mut self,
        since: Option<i64>,
        mut spool: Spool,
        mut known: KnownReader,
        most_bytes: u64,
    ) -> Result<(Spool, KnownReader, Option<i64>), Error> {
        let (table, session) = (self.table, self.session);
        let mut rows = pin!(session.rows(table, since).await?);
        let mut greatest = None;
        while let Some(row) = rows.try_next().await.map_err(|error| Error::of(&table.name, error))? {
            let record = record(table, &row)?;
            if let Record::Row { cursor, .. } = &record {
                greatest = greatest.max(*cursor);
            }
            spool.push(&record)?;
            if spool.bytes >= most_bytes {
                // Nothing is asked of the database meanwhile: it is still answering.
                known = self.all(spool, known).await?.0.reread()?;
                spool = Spool::new()?;
            }
            if !self.pace.row().await {
                let count = self.pace.rows;
                let what =
                    format!("the function's time is over after {count} rows; give it more, or read less at once");
                return Err(Error::Read { table: table.name.clone(), what });
            }
        }
        Ok((spool, known, greatest))
    }

    /// Returns what is known afterwards, and of how many keys.
    async fn all(&mut self, mut spool: Spool, mut known: KnownReader) -> Result<(KnownWriter, u64), Error> {
        let (mut writer, mut keys) = (KnownWriter::new()?, 0);
        for part in 0..PARTS {
            let of_part = self.part(&mut spool, part, known.part(part)?).await?;
            writer.part(&of_part)?;
            keys += of_part.len() as u64;
        }
        Ok((writer, keys))
    }

    /// Returns what is known of the part's keys afterwards.
    async fn part(
        &mut self,
        spool: &mut Spool,
        part: usize,
        mut known: HashMap<Vec<u8>, [u8; 16]>,
    ) -> Result<HashMap<Vec<u8>, [u8; 16]>, Error> {
        let mut present = HashSet::new();
        for record in spool.part(part)? {
            match record? {
                Record::Adopted { key, line } => {
                    known.insert(key, line);
                }
                Record::AdoptedDeletion { key } => {
                    known.remove(&key);
                }
                Record::Row { key, line, cursor } => self.row(&mut known, key, &line, cursor).await?,
                Record::Present { key } => {
                    present.insert(key);
                }
            }
        }
        if self.compares.is_empty() || self.is_cut {
            return Ok(known);
        }
        let missing: Vec<&str> = {
            let missing = present.iter().filter(|key| !known.contains_key(*key));
            missing.filter_map(|key| std::str::from_utf8(key).ok()).collect()
        };
        for keys in missing.chunks(KEYS_AT_ONCE) {
            let rows = self.session.rows_of(self.table, self.columns, keys).await?;
            let mut rows = pin!(rows.map(|row| row.map_err(|error| Error::of(&self.table.name, error))));
            while let Some(row) = rows.next().await {
                if let Record::Row { key, line, cursor } = record(self.table, &row?)? {
                    self.row(&mut known, key, &line, cursor).await?;
                }
                self.is_cut |= !self.pace.row().await;
            }
            if self.is_cut {
                return Ok(known);
            }
        }
        let is_gone =
            |key: &&Vec<u8>| is_whole(key) && self.compares.contains(&slice_of(key)) && !present.contains(*key);
        let gone: Vec<Vec<u8>> = known.keys().filter(is_gone).cloned().collect();
        for keys in gone.chunks(KEYS_AT_ONCE) {
            let texts: Vec<&str> = keys.iter().filter_map(|key| std::str::from_utf8(key).ok()).collect();
            let standing = self.session.standing(self.table, self.columns, &texts).await?;
            for (at, key) in keys.iter().enumerate() {
                known.remove(key);
                // What stands is there in another spelling.
                if self.tells_deletions && !standing.contains(&at) {
                    self.deletion(key).await?;
                }
            }
        }
        Ok(known)
    }

    async fn deletion(&mut self, key: &[u8]) -> Result<(), Error> {
        let end = format!(",\"_deleted\":true,\"_deleted_at\":\"{}\"}}", time::text(self.read_at));
        let line = [key.strip_suffix(b"}").unwrap_or(key), end.as_bytes()].concat();
        self.writer.push(&line, Some(self.read_at)).await?;
        self.deleted += 1;
        Ok(())
    }

    async fn row(
        &mut self,
        known: &mut HashMap<Vec<u8>, [u8; 16]>,
        key: Vec<u8>,
        line: &[u8],
        cursor: Option<i64>,
    ) -> Result<(), Error> {
        let digest = digest(line);
        if known.get(&key) == Some(&digest) {
            return Ok(());
        }
        self.writer.push(line, cursor).await?;
        self.rows += 1;
        known.insert(key, digest);
        Ok(())
    }
}

fn with_new(mut first: Vec<SourceColumn>, columns: &[SourceColumn]) -> Vec<SourceColumn> {
    for column in columns {
        if !first.iter().any(|known| known.name == column.name) {
            first.push(column.clone());
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Database, Secrets};
    use network::{Calm, Network, OneFault, Strike};
    use parameters::MemoryParameters;
    use runtime::SystemClock;
    use std::sync::Arc;
    use storage::{MemoryObjects, MemoryTables, Objects, Table as Rows};
    use warehouse::schema::Schema;
    use warehouse_state::Warehouse;

    struct NoSecrets;

    #[async_trait::async_trait]
    impl Secrets for NoSecrets {
        async fn read(&self, name: &str) -> Result<String, String> {
            Err(format!("{name}: these tests read no database"))
        }
    }

    struct World {
        objects: MemoryObjects,
        tables: MemoryTables,
    }

    impl World {
        fn new() -> World {
            let objects = MemoryObjects::new(Calm::shared()).bucket("ingestion").bucket("warehouse").bucket("archive");
            World { objects, tables: MemoryTables::new(Calm::shared()).table("rows", "name", None) }
        }

        fn deps(&self, network: Arc<dyn Network>) -> Deps {
            let (objects, tables) = (self.objects.through(network.clone()), self.tables.through(network));
            Deps {
                ingestion: Objects::over(objects.clone(), "ingestion"),
                warehouse: Objects::over(objects.clone(), "warehouse"),
                archive: Objects::over(objects, "archive"),
                rows: Warehouse::new(Rows::over(tables.clone(), "rows"), Rows::over(tables, "rows")),
                parameters: Arc::new(MemoryParameters::default()),
                database: Database::over(NoSecrets, "secret"),
                parameter_prefix: "/test".into(),
                spool_bytes: crate::SPOOL_BYTES,
            }
        }

        /// The next attempt, as if the lease of the one before had ended.
        async fn claim(&self) -> IngestRow {
            let rows = self.deps(Calm::shared()).rows;
            let call = call();
            if let Some(row) = rows.ingest("t").await.expect("row") {
                let end = |row: IngestRow| IngestRow { fence: row.fence.end(call.now()), ..row };
                rows.change_ingest("t", row.fence.attempt, end).await.expect("row");
            }
            rows.claim_ingest("t", Duration::ZERO, &call).await.expect("claim")
        }

        /// All lines in the bucket, in the order of their keys' ids.
        fn lines(&self) -> Vec<String> {
            let bodies = self.objects.contents("ingestion").into_values();
            let texts = bodies.map(|body| String::from_utf8(body.to_vec()).expect("text"));
            texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
        }

        fn keys(&self) -> Vec<String> {
            self.objects.contents("ingestion").into_keys().collect()
        }
    }

    fn call() -> Call {
        Call::new(SystemClock::shared(), Duration::from_secs(60))
    }

    fn table() -> Table {
        let text = "version: 1\ntables:\n  t:\n    key: [id, \"na\\\"me\"]\n    cursor: [at, born]\n    \
                    columns: {id: integer, \"na\\\"me\": text, at: timestamptz, born: timestamp}\n";
        Schema::parse(text.as_bytes()).expect("schema").tables.remove(0)
    }

    fn spelling(table: &Table) -> Spelling {
        let column = |name: &str, of: &str| SourceColumn { name: name.into(), of: of.into() };
        Spelling::new(table, &[column("id", "integer"), column("na\"me", "text")])
    }

    fn line(id: i64) -> String {
        format!("{{\"id\":{id},\"na\\\"me\":\"x\",\"at\":null}}")
    }

    /// Writes each line as an object of its own.
    async fn write(writer: &mut ObjectWriter<'_>, ids: &[i64]) -> Result<(), Error> {
        for id in ids {
            writer.push(line(*id).as_bytes(), Some(*id)).await?;
            writer.finish().await?;
        }
        Ok(())
    }

    /// What adoption found of these lines.
    fn adopted(spool: &mut Spool) -> Vec<i64> {
        let records = (0..PARTS).flat_map(|part| spool.part(part).expect("part").collect::<Vec<_>>());
        let digests: Vec<_> = records
            .filter_map(|record| match record.expect("record") {
                Record::Adopted { line, .. } => Some(line),
                _ => None,
            })
            .collect();
        (0..10).filter(|id| digests.contains(&digest(line(*id).as_bytes()))).collect()
    }

    #[tokio::test]
    async fn whichever_request_of_a_writer_fails_the_next_attempt_takes_over_what_was_written_and_writes_the_rest() {
        let table = table();
        let mut nth = 0;
        loop {
            let mut struck = false;
            for strike in [Strike::Request, Strike::Answer, Strike::AnswerThenRetry] {
                let world = World::new();
                let fault = OneFault::at(nth, strike);
                let row = world.claim().await;
                let dying = world.deps(fault.clone());
                let mut first = ObjectWriter::new(&dying, &table, row.fence.attempt, 99, 1);
                let outcome = write(&mut first, &[1, 2, 3]).await;
                struck |= fault.struck();
                assert!(outcome.is_ok() || fault.struck());

                let row = world.claim().await;
                let deps = world.deps(Calm::shared());
                let mut spool = Spool::new().expect("spool");
                let (last_id, found) = adopt(&deps, &row, &spelling(&table), &mut spool).await.expect("adopted");
                let there = adopted(&mut spool);
                assert_eq!(found, !row.planned.is_empty());
                // The attempt that was thought dead goes on, and writes nothing any more.
                let before = world.keys();
                assert!(write(&mut first, &[9]).await.is_err(), "{strike:?} at {nth}");
                assert_eq!(world.keys(), before);

                let missing: Vec<i64> = [1, 2, 3].into_iter().filter(|id| !there.contains(id)).collect();
                let mut second = ObjectWriter::new(&deps, &table, row.fence.attempt, 99, last_id + 1);
                write(&mut second, &missing).await.expect("written");
                let mut lines = world.lines();
                lines.sort();
                assert_eq!(lines, [1, 2, 3].map(line), "{strike:?} at {nth}: each line once");
                let mut ids: Vec<u64> = Vec::new();
                ids.extend(world.keys().iter().filter_map(|key| warehouse::object::Place::of(key).id()));
                ids.sort_unstable();
                assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "{strike:?} at {nth}: no id is missing");
            }
            if !struck {
                break;
            }
            nth += 1;
        }
        assert!(nth >= 6, "only {nth} requests");
    }

    #[tokio::test]
    async fn an_object_in_the_way_is_named_stays_as_it_is_and_its_id_is_given_once_it_is_gone() {
        let key = warehouse::object::key("t", 1, 1);
        // An empty one is as what closes the key of a dead attempt, and is not ours all the same.
        for foreign in ["not ours", ""] {
            let (world, table) = (World::new(), table());
            let deps = world.deps(Calm::shared());
            deps.ingestion.put(&key, foreign.as_bytes(), "text/plain").await.expect("put");
            let row = world.claim().await;
            let mut writer = ObjectWriter::new(&deps, &table, row.fence.attempt, 99, 1);
            let error = write(&mut writer, &[1]).await.expect_err("an object is in the way");
            assert!(matches!(&error, Error::ObjectExists { key: found, .. } if *found == key), "{error}");
            for _ in 0..2 {
                let row = world.claim().await;
                let error = adopt(&deps, &row, &spelling(&table), &mut Spool::new().expect("spool"))
                    .await
                    .expect_err("still there");
                assert!(matches!(error, Error::ObjectExists { .. }), "{error}");
                assert_eq!(world.objects.contents("ingestion")[&key], foreign);
            }
            deps.ingestion.delete(&key).await.expect("deleted");
            let row = world.claim().await;
            let ids = adopt(&deps, &row, &spelling(&table), &mut Spool::new().expect("spool"))
                .await
                .expect("nothing in the way");
            assert_eq!(ids, (0, false));
        }
    }

    #[tokio::test]
    async fn what_others_put_where_a_dead_attempt_was_about_to_write_is_not_taken_for_its_object() {
        let table = table();
        for nth in 0.. {
            let world = World::new();
            let row = world.claim().await;
            let dying = world.deps(OneFault::at(nth, Strike::Request));
            let died = write(&mut ObjectWriter::new(&dying, &table, row.fence.attempt, 99, 1), &[1]).await;
            assert!(died.is_err(), "no request is the object's");
            let row = world.claim().await;
            let [planned] = row.planned.as_slice() else { continue };
            assert_eq!(world.keys().len(), 0);
            let deps = world.deps(Calm::shared());
            deps.ingestion.put(&planned.key, &b"not ours"[..], "text/plain").await.expect("put");
            let error =
                adopt(&deps, &row, &spelling(&table), &mut Spool::new().expect("spool")).await.expect_err("not ours");
            assert!(matches!(error, Error::ObjectExists { .. }), "{error}");
            return;
        }
    }

    #[tokio::test]
    async fn an_object_is_named_by_its_greatest_time_or_by_that_of_the_read() {
        let (world, table) = (World::new(), table());
        let deps = world.deps(Calm::shared());
        let row = world.claim().await;
        let mut writer = ObjectWriter::new(&deps, &table, row.fence.attempt, 99, 7);
        for times in [&[Some(5), Some(3), None][..], &[None], &[Some(4)]] {
            for at in times {
                writer.push(line(1).as_bytes(), *at).await.expect("pushed");
            }
            writer.finish().await.expect("written");
        }
        let expected = [(5, 7), (99, 8), (4, 9)].map(|(time, id)| warehouse::object::key("t", time, id));
        assert_eq!(writer.objects, expected);
        // Nothing is left, so that nothing is written.
        assert_eq!((writer.finish().await.expect("nothing"), world.keys().len()), (9, 3));
    }

    #[test]
    fn a_table_that_lacks_what_the_file_names_is_refused_by_name() {
        let columns = |left_out: &str, at: &str| -> Vec<SourceColumn> {
            let columns = [("id", "integer"), ("na\"me", "text"), ("at", at), ("born", "timestamp without time zone")];
            let kept = columns.iter().filter(|(name, _)| *name != left_out);
            kept.map(|(name, of)| SourceColumn { name: (*name).into(), of: (*of).into() }).collect()
        };
        let refused = |columns: &[SourceColumn]| check(&table(), columns).expect_err("refused");
        check(&table(), &columns("", "timestamp with time zone")).expect("all is there");
        assert!(matches!(refused(&[]), Error::UnknownTable { .. }));
        assert!(
            matches!(refused(&columns("na\"me", "timestamp")), Error::KeyMissing { column, .. } if column == "na\"me")
        );
        assert!(
            matches!(refused(&columns("born", "timestamp")), Error::CursorMissing { column, .. } if column == "born")
        );
        for of in ["date", "timestamp with time zone[]", "text"] {
            assert!(matches!(refused(&columns("", of)), Error::CursorType { column, .. } if column == "at"), "{of}");
        }
    }

    #[test]
    fn a_column_is_remembered_as_it_was_first_seen() {
        let column = |name: &str, of: &str| SourceColumn { name: name.into(), of: of.into() };
        let first = with_new(vec![column("a", "integer")], &[column("a", "bigint"), column("b", "text")]);
        assert_eq!(first, [column("a", "integer"), column("b", "text")]);
    }
}
