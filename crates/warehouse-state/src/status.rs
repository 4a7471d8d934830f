//! What ingests and builds have left, and the status made of it: what landed, what is built, and what differs from the
//! schema file.

use crate::{BuildRow, BuildState, IngestRow, REQUESTS, SourceColumn, SourceState, Warehouse};
use errors::{Name, Named};
use futures::TryStreamExt;
use std::collections::{BTreeMap, HashMap};
use storage::{LedgerError, Objects, StoreError};
use warehouse::{
    object,
    schema::{Schema, Source, Table},
    status::{Failure, SchemaChange, SourceStatus, Status, TableStatus},
    time,
    value::Type,
};

#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Named for StandingError {
    fn name(&self) -> Name {
        match self {
            StandingError::Store(error) => error.name(),
            StandingError::Ledger(error) => error.name(),
        }
    }
}

/// What the last build and the last ingest of each table have left.
pub struct Standing {
    row: Option<BuildRow>,
    build: BuildState,
    /// By table.
    ingests: HashMap<String, IngestRow>,
}

/// What has landed and is not built yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    pub objects: u64,
    pub requests: u64,
}

impl Standing {
    pub async fn read(rows: &Warehouse, warehouse: &Objects, schema: &Schema) -> Result<Standing, StandingError> {
        let (row, build) = last_build(rows, warehouse).await?;
        let mut ingests = HashMap::new();
        for table in &schema.tables {
            if let Some(ingest) = rows.ingest(&table.name).await? {
                ingests.insert(table.name.clone(), ingest);
            }
        }
        Ok(Standing { row, build, ingests })
    }

    /// Looks into the buckets for what no build has seen.
    pub async fn pending(
        &self,
        schema: &Schema,
        ingestion: &Objects,
        feeds: Option<&Objects>,
        warehouse: &Objects,
    ) -> Result<Pending, StoreError> {
        let (mut objects, nothing) = (0, SourceState::default());
        for table in &schema.tables {
            let state = self.build.sources.get(&table.name).unwrap_or(&nothing);
            let bucket = if matches!(table.source, Source::Feed { .. }) { feeds } else { Some(ingestion) };
            if let Some(bucket) = bucket {
                objects += waiting(table, state, bucket).await?;
            }
        }
        Ok(Pending { objects, requests: warehouse.list(REQUESTS).await?.len() as u64 })
    }

    /// `schema_digest`: sha256 of the schema file in force, in hex.
    pub fn status(&self, schema: &Schema, schema_digest: &str, pending: Pending, warehouse: &Objects) -> Status {
        let (mut failures, mut sources) = (Vec::new(), Vec::new());
        let failure = |table: &str, object: &str, error: &str, message: &str| Failure {
            table: table.to_owned(),
            object: object.to_owned(),
            error: error.to_owned(),
            message: message.to_owned(),
        };
        if let Some(note) = self.row.as_ref().and_then(|row| row.failure.as_ref()) {
            failures.push(failure("", "", &note.error, &note.message));
        }
        let nothing = SourceState::default();
        for table in &schema.tables {
            let state = self.build.sources.get(&table.name).unwrap_or(&nothing);
            let ingest = self.ingests.get(&table.name);
            let places = state.failures.iter();
            failures.extend(places.map(|place| failure(&table.name, &place.object, &place.error, &place.message)));
            let note = ingest.and_then(|row| row.failure.as_ref());
            failures.extend(note.map(|note| failure(&table.name, "", &note.error, &note.message)));
            let latest =
                state.objects.iter().filter_map(|built| Some((object::Place::of(&built.key).id()?, &built.key))).max();
            let last = state.objects.last().map(|built| &built.key);
            let (columns, first) = match ingest {
                Some(row) => (row.columns.as_slice(), row.first_columns.as_slice()),
                None => (&[][..], &[][..]),
            };
            sources.push(SourceStatus {
                table: table.name.clone(),
                rows: state.rows,
                timestamp: ingest.and_then(|row| row.timestamp.clone()).or_else(|| state.greatest.map(time::text)),
                latest_object: latest.map(|(_, key)| key).or(last).cloned(),
                sequential_id: latest.map_or(0, |(id, _)| id),
                gaps: state.gaps.clone(),
                quarantined: state.quarantined,
                ingested_at: ingest.and_then(|row| row.completed_at),
                schema_changes: schema_changes(table, state, columns, first),
            });
        }
        let tables = self.build.tables.iter().map(|(name, table)| TableStatus {
            table: name.clone(),
            rows: table.rows,
            // Without its slash, so that a reader's `/**/*.parquet` behind it finds the objects.
            location: warehouse.uri(table.prefix.trim_end_matches('/')),
            unknown: table.unknown.clone(),
        });
        let is_in_force = self.build.schema == schema_digest;
        let up_to_date = pending.objects == 0 && pending.requests == 0 && is_in_force;
        Status { pending: pending.objects, up_to_date, failures, sources, tables: tables.collect() }
    }
}

/// The build's row, and what the last build knew. Its document goes when the next build ends, and is then read there.
async fn last_build(rows: &Warehouse, warehouse: &Objects) -> Result<(Option<BuildRow>, BuildState), StandingError> {
    loop {
        let row = rows.build().await?;
        let Some(key) = row.as_ref().and_then(|row| row.state.as_ref()) else {
            return Ok((row, BuildState::default()));
        };
        if let Some(mut documents) = warehouse.find_lines::<BuildState>(key).await? {
            return Ok((row, documents.pop().unwrap_or_default()));
        }
        let now = rows.build().await?.and_then(|row| row.state);
        if now.as_ref() == Some(key) {
            return Err(warehouse
                .corrupt(key, "it is missing; `alert-archive warehouse rebuild` makes it anew")
                .into());
        }
    }
}

/// Objects of a table that no build has seen.
async fn waiting(table: &Table, state: &SourceState, bucket: &Objects) -> Result<u64, StoreError> {
    let mut seen: HashMap<&str, u64> = state.objects.iter().map(|built| (built.key.as_str(), built.bytes)).collect();
    seen.extend(state.failures.iter().map(|place| (place.object.as_str(), place.bytes)));
    let mut pages = Box::pin(bucket.pages(&table.prefix(), None));
    let mut waiting = 0;
    while let Some(page) = pages.try_next().await? {
        let unseen = page.iter().filter(|listed| !listed.key.ends_with('/'));
        waiting += unseen.filter(|listed| seen.get(listed.key.as_str()) != Some(&listed.bytes)).count() as u64;
    }
    Ok(waiting)
}

/// How the source differs from the schema file: by the catalogue at the last ingest where there was one, and by what
/// the lines had. `first`: each column as the first ingest that saw it found it.
fn schema_changes(
    table: &Table,
    state: &SourceState,
    columns: &[SourceColumn],
    first: &[SourceColumn],
) -> Vec<SchemaChange> {
    let mut changes = BTreeMap::new();
    let in_lines = state.added.iter().map(String::as_str);
    for name in in_lines.chain(columns.iter().map(|column| column.name.as_str())) {
        if table.column(name).is_none() {
            changes.insert(name.to_owned(), "added");
        }
    }
    for column in &table.columns {
        let at_source = columns.iter().find(|other| other.name == column.name);
        let at_first = first.iter().find(|other| other.name == column.name);
        let is_dropped = if columns.is_empty() { state.dropped.contains(&column.name) } else { at_source.is_none() };
        if is_dropped {
            changes.insert(column.name.clone(), "dropped");
        } else if let Some(at_source) = at_source
            && match holds(&column.of, &at_source.of) {
                Holds::Every => false,
                Holds::NotEvery => true,
                Holds::Unsaid => at_first.is_some_and(|first| first.of != at_source.of),
            }
        {
            changes.insert(column.name.clone(), "widened");
        }
    }
    changes.into_iter().map(|(column, change)| SchemaChange { column, change }).collect()
}

/// Whether a declared type can hold every value of a type of PostgreSQL.
enum Holds {
    Every,
    NotEvery,
    /// A type without bounds, whose values mostly fit.
    Unsaid,
}

fn holds(declared: &Type, source: &str) -> Holds {
    let every = |every: bool| if every { Holds::Every } else { Holds::NotEvery };
    if let Type::List(element) = declared {
        return source.strip_suffix("[]").map_or(Holds::NotEvery, |source| holds(element, source));
    }
    // Digits before and after the point.
    let digits = match source {
        "smallint" => Some((5, 0)),
        "integer" => Some((10, 0)),
        "bigint" => Some((19, 0)),
        "numeric" => return if matches!(declared, Type::Text) { Holds::Every } else { Holds::Unsaid },
        _ => source.strip_prefix("numeric(").and_then(|rest| {
            let (precision, scale) = rest.strip_suffix(')')?.split_once(',')?;
            let (precision, scale): (i32, i32) = (precision.parse().ok()?, scale.parse().ok()?);
            Some((precision - scale, scale))
        }),
    };
    match declared {
        Type::Text => Holds::Every,
        Type::Integer => {
            every(matches!(source, "smallint" | "integer") || digits.is_some_and(|(w, s)| w <= 9 && s <= 0))
        }
        Type::Bigint => every(
            matches!(source, "smallint" | "integer" | "bigint" | "oid")
                || digits.is_some_and(|(w, s)| w <= 18 && s <= 0),
        ),
        Type::Decimal { precision, scale } => match digits {
            Some((whole, after)) => every(whole <= i32::from(precision - scale) && after <= i32::from(*scale)),
            None => Holds::NotEvery,
        },
        Type::Double => every(matches!(source, "real" | "double precision" | "smallint" | "integer")),
        Type::Boolean => every(source == "boolean"),
        Type::Date => every(source == "date"),
        Type::Timestamp | Type::Timestamptz => every(source.starts_with("timestamp") || source == "date"),
        Type::Json => Holds::Every,
        Type::Bytes => every(source == "bytea"),
        Type::List(_) => Holds::NotEvery,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_at_the_source_is_named_once_and_what_still_fits_is_not() {
        let text = "version: 1\ntables:\n  t:\n    key: id\n    cursor: at\n    columns: {id: bigint, small: integer, \
                    exact: \"decimal(6,2)\", open: \"decimal(9,3)\", freed: \"decimal(9,3)\", list: \"integer[]\", \
                    gone: text, at: timestamptz}\n";
        let schema = Schema::parse(text.as_bytes()).expect("schema");
        let columns = |columns: &[(&str, &str)]| -> Vec<SourceColumn> {
            let column = |(name, of): &(&str, &str)| SourceColumn { name: (*name).into(), of: (*of).into() };
            columns.iter().map(column).collect()
        };
        let first = columns(&[
            ("id", "integer"),
            ("small", "smallint"),
            ("open", "numeric"),
            ("freed", "numeric(9,3)"),
            ("gone", "text"),
        ]);
        let now = columns(&[
            ("id", "bigint"),
            ("small", "bigint"),
            ("exact", "numeric(6,3)"),
            ("open", "numeric"),
            ("freed", "numeric"),
            ("list", "bigint[]"),
            ("at", "timestamp with time zone"),
            ("new", "text"),
        ]);
        let state = SourceState { added: vec!["new".into(), "old".into()], ..SourceState::default() };
        let changes = schema_changes(&schema.tables[0], &state, &now, &first);
        let changes: Vec<_> = changes.iter().map(|change| (change.column.as_str(), change.change)).collect();
        let expected = [
            ("exact", "widened"),
            ("freed", "widened"),
            ("gone", "dropped"),
            ("list", "widened"),
            ("new", "added"),
            ("old", "added"),
            ("small", "widened"),
        ];
        assert_eq!(changes, expected);
        // Where nothing is read from the database the lines say it.
        let state = SourceState { added: vec!["new".into()], dropped: vec!["gone".into()], ..SourceState::default() };
        let changes = schema_changes(&schema.tables[0], &state, &[], &[]);
        let changes: Vec<_> = changes.iter().map(|change| (change.column.as_str(), change.change)).collect();
        assert_eq!(changes, [("gone", "dropped"), ("new", "added")]);
    }
}
