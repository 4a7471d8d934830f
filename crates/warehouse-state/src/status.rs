//! The status of the warehouse: what landed, what is built, and what differs from the schema file.

use crate::{BuildState, IngestRow, REQUESTS, SourceState};
use futures::TryStreamExt;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use storage::{Objects, StoreError};
use warehouse::{
    object,
    schema::{Schema, Source, Table},
    time,
    value::Type,
};

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Objects landed and neither built nor given up.
    pub pending: u64,
    /// Nothing is pending, the schema file in force is built, and no rebuild is waiting.
    pub up_to_date: bool,
    pub failures: Vec<Failure>,
    pub sources: Vec<SourceStatus>,
    pub tables: Vec<TableStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// Empty where the build of all tables failed.
    pub table: String,
    /// Empty where no single object is to blame.
    pub object: String,
    pub error: String,
    pub message: String,
}

impl Failure {
    /// The last ingest of the table failed; else a build did, or an object could not be read.
    pub fn is_of_ingest(&self) -> bool {
        !self.table.is_empty() && self.object.is_empty()
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    pub table: String,
    /// Lines built.
    pub rows: u64,
    pub timestamp: Option<String>,
    pub latest_object: Option<String>,
    pub sequential_id: u64,
    pub gaps: Vec<(u64, u64)>,
    pub quarantined: u64,
    pub schema_changes: Vec<SchemaChange>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SchemaChange {
    pub column: String,
    /// `added`, `dropped` or `widened`.
    pub change: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub struct TableStatus {
    pub table: String,
    /// What a reader counts.
    pub rows: u64,
    pub location: String,
    pub unknown: BTreeMap<String, u64>,
}

/// Everything that a status is made of.
pub struct Known<'a> {
    pub schema: &'a Schema,
    /// sha256 of the schema file, in hex.
    pub schema_digest: &'a str,
    pub build: &'a BuildState,
    pub build_failure: Option<&'a crate::FailureNote>,
    pub ingests: &'a HashMap<String, IngestRow>,
}

/// Makes the status; looks into the buckets for what has landed.
pub async fn status(
    known: &Known<'_>,
    ingestion: &Objects,
    feeds: Option<&Objects>,
    warehouse: &Objects,
) -> Result<Status, StoreError> {
    let (mut pending, mut failures, mut sources) = (0, Vec::new(), Vec::new());
    if let Some(failure) = known.build_failure {
        let (error, message) = (failure.error.clone(), failure.message.clone());
        failures.push(Failure { table: String::new(), object: String::new(), error, message });
    }
    let nothing = SourceState::default();
    for table in &known.schema.tables {
        let state = known.build.sources.get(&table.name).unwrap_or(&nothing);
        let ingest = known.ingests.get(&table.name);
        let bucket = if matches!(table.source, Source::Feed { .. }) { feeds } else { Some(ingestion) };
        if let Some(bucket) = bucket {
            pending += waiting(table, state, bucket).await?;
        }
        failures.extend(state.failures.iter().map(|place| Failure {
            table: table.name.clone(),
            object: place.object.clone(),
            error: place.error.clone(),
            message: place.message.clone(),
        }));
        failures.extend(ingest.and_then(|row| row.failure.as_ref()).map(|failure| Failure {
            table: table.name.clone(),
            object: String::new(),
            error: failure.error.clone(),
            message: failure.message.clone(),
        }));
        let latest =
            state.objects.iter().filter_map(|built| Some((object::Place::of(&built.key).id()?, &built.key))).max();
        let last = state.objects.last().map(|built| &built.key);
        sources.push(SourceStatus {
            table: table.name.clone(),
            rows: state.rows,
            timestamp: ingest.and_then(|row| row.timestamp.clone()).or_else(|| state.greatest.map(time::text)),
            latest_object: latest.map(|(_, key)| key).or(last).cloned(),
            sequential_id: latest.map_or(0, |(id, _)| id),
            gaps: state.gaps.clone(),
            quarantined: state.quarantined,
            schema_changes: schema_changes(table, state, ingest),
        });
    }
    let tables = known.build.tables.iter().map(|(name, table)| TableStatus {
        table: name.clone(),
        rows: table.rows,
        // Without its slash, so that a reader's `/**/*.parquet` behind it finds the objects.
        location: warehouse.uri(table.prefix.trim_end_matches('/')),
        unknown: table.unknown.clone(),
    });
    let requests = warehouse.list(REQUESTS).await?;
    let up_to_date = pending == 0 && known.build.schema == known.schema_digest && requests.is_empty();
    Ok(Status { pending, up_to_date, failures, sources, tables: tables.collect() })
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
/// the lines had.
pub fn schema_changes(table: &Table, state: &SourceState, ingest: Option<&IngestRow>) -> Vec<SchemaChange> {
    let columns = ingest.map(|row| row.columns.as_slice()).unwrap_or_default();
    let first = ingest.map(|row| row.first_columns.as_slice()).unwrap_or_default();
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
