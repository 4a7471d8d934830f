//! Writes lines as objects with ids without gaps.

use crate::{Deps, Error};
use bytes::Bytes;
use storage::{PutOnce, sha256_hex};
use warehouse::{object, schema::Table};
use warehouse_state::{IngestRow, Planned};

/// Bytes of lines after which an object is written.
const OBJECT_BYTES: usize = 16 << 20;

pub struct ObjectWriter<'a> {
    deps: &'a Deps,
    table: &'a Table,
    attempt: u64,
    /// Stands in the name where no row has a finite cursor; microseconds since 1970.
    read_at: i64,
    next_id: u64,
    lines: Vec<u8>,
    greatest: Option<i64>,
    pub objects: Vec<String>,
}

impl<'a> ObjectWriter<'a> {
    pub fn new(deps: &'a Deps, table: &'a Table, attempt: u64, read_at: i64, next_id: u64) -> Self {
        let (lines, objects) = (Vec::new(), Vec::new());
        ObjectWriter { deps, table, attempt, read_at, next_id, lines, greatest: None, objects }
    }

    /// Adds a line without its end. `at`: the cursor, or the time of the comparison.
    pub async fn push(&mut self, line: &[u8], at: Option<i64>) -> Result<(), Error> {
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        self.greatest = self.greatest.max(at);
        if self.lines.len() >= OBJECT_BYTES { self.put().await } else { Ok(()) }
    }

    /// Writes what is left and returns the last id that was given.
    pub async fn finish(&mut self) -> Result<u64, Error> {
        if !self.lines.is_empty() {
            self.put().await?;
        }
        Ok(self.next_id - 1)
    }

    async fn put(&mut self) -> Result<(), Error> {
        let body = Bytes::from(std::mem::take(&mut self.lines));
        let time = self.greatest.take().unwrap_or(self.read_at);
        let key = object::key(&self.table.name, time, self.next_id);
        let planned = Planned { id: self.next_id, key: key.clone(), sha256: sha256_hex(&body), is_refused: false };
        // The id belongs to this key from now on. Of an attempt that was superseded this is refused.
        let plan = self.deps.rows.change_ingest(&self.table.name, self.attempt, |mut row| {
            row.planned.retain(|other| other.id != planned.id);
            row.planned.push(planned.clone());
            row
        });
        plan.await?;
        match self.deps.ingestion.put_once(&key, body, "application/x-ndjson").await? {
            PutOnce::Created(_) => {}
            PutOnce::Exists(_) => return Err(refused(self.deps, self.table, self.attempt, &planned).await?),
        }
        self.next_id += 1;
        self.objects.push(key);
        Ok(())
    }
}

/// Notes that a key is taken by an object that is not ours, so that the next attempt looks at it first.
async fn refused(deps: &Deps, table: &Table, attempt: u64, refused: &Planned) -> Result<Error, Error> {
    let noted = deps.rows.change_ingest(&table.name, attempt, |row| {
        let planned = row.planned.into_iter();
        let note = |planned: Planned| Planned { is_refused: planned.is_refused || planned.id == refused.id, ..planned };
        IngestRow { planned: planned.map(note).collect(), ..row }
    });
    noted.await?;
    Ok(Error::ObjectExists { bucket: deps.ingestion.bucket().to_owned(), key: refused.key.clone() })
}
