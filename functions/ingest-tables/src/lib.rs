//! Reads what is new in the tables of a PostgreSQL database and writes it as JSON lines into the ingestion bucket,
//! each version of a row once.
//!
//! How nothing is missed: the stored timestamp never passes the start of the oldest transaction that was running, so
//! that rows which it commits later are still ahead of the next read. How nothing is doubled: what is read again is
//! compared, key by key, with the digest of the last line that was written. How a call can die at any moment: an id is
//! given to one key in the table's row before the object is written, and the next attempt looks for each such object.

mod database;
mod error;
mod known;
mod spelling;
mod spool;
mod table;
mod writer;

pub use database::{Database, Place, Secrets};
pub use error::Error;

use aws_config::SdkConfig;
use errors::Named;
use parameters::{Parameters, Ssm};
use runtime::{Call, Config, ConfigMissing, Metrics, Unit};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use storage::{Objects, Table, sha256_hex};
use warehouse::schema::{self, Schema, Source};
use warehouse_state::{FailureNote, IngestRow, PAGE_KEY, Pending, SCHEMA_KEY, Standing, StandingError, Warehouse};

/// A table whose connection broke is read again from its beginning so many times.
const TRIES: u32 = 3;

pub struct Deps {
    pub ingestion: Objects,
    pub warehouse: Objects,
    /// The archive's bucket, which has the page.
    pub archive: Objects,
    pub rows: Warehouse,
    pub parameters: Arc<dyn Parameters>,
    pub database: Database,
    /// Begins the names of parameters.
    pub parameter_prefix: String,
    /// How much of a table is on the disk at once; see [`SPOOL_BYTES`].
    pub spool_bytes: u64,
}

/// Rows that are read before they are compared and written. The keys of a table need room on the disk as well.
pub const SPOOL_BYTES: u64 = 1 << 30;

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let table = config.required("ALERT_ARCHIVE_WAREHOUSE_TABLE");
        let deps = Deps {
            ingestion: Objects::new(aws, config.required("ALERT_ARCHIVE_INGESTION_BUCKET")),
            warehouse: Objects::new(aws, config.required("ALERT_ARCHIVE_WAREHOUSE_BUCKET")),
            archive: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            rows: Warehouse::new(Table::new(aws, table.clone()), Table::new(aws, table)),
            parameters: Arc::new(Ssm::new(aws)),
            database: Database::from_env(aws, &mut config),
            parameter_prefix: config.required("ALERT_ARCHIVE_WAREHOUSE_PARAMETERS"),
            spool_bytes: SPOOL_BYTES,
        };
        config.check()?;
        Ok(deps)
    }
}

/// Which tables to read; all of the schema file where none is named.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Request {
    #[serde(default)]
    pub tables: Option<Vec<String>>,
    /// Read all rows, also those older than the stored timestamp.
    #[serde(default)]
    pub full: bool,
}

#[derive(Debug, Default, Serialize)]
pub struct Response {
    pub tables: Vec<Ingested>,
    pub failures: Vec<Failure>,
}

/// What became of one table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ingested {
    pub table: String,
    /// Lines with rows.
    pub rows: u64,
    /// Lines with deleted keys.
    pub deleted: u64,
    pub objects: Vec<String>,
    /// Where the next read begins.
    pub timestamp: Option<String>,
    pub sequential_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    pub table: String,
    pub error: String,
    pub message: String,
}

/// Ingests one table after the other; one that fails stops none of the others.
pub async fn handle(deps: &Deps, request: Request, call: Call) -> Result<Response, Error> {
    let done = all(deps, request, &call).await;
    // Of tables it is told one by one.
    let calls = u64::from(done.is_err());
    Metrics::new().dimension("Function", "ingest-tables").figure("FailedIngestCalls", Unit::Count, calls).write();
    done
}

async fn all(deps: &Deps, request: Request, call: &Call) -> Result<Response, Error> {
    let uri = deps.warehouse.uri(SCHEMA_KEY);
    let text = deps.warehouse.find(SCHEMA_KEY).await?.ok_or(Error::SchemaMissing { uri })?;
    let schema = Schema::parse(&text).map_err(|problems| Error::SchemaInvalid { problems })?;
    let from_database = schema.tables.iter().filter(|table| table.source == Source::Database);
    let names = match request.tables {
        Some(names) => names,
        None => from_database.map(|table| table.name.clone()).collect(),
    };
    let mut response = Response::default();
    for name in names {
        let mut ingested = match schema.table(&name).filter(|table| table.source == Source::Database) {
            Some(table) => ingest(deps, table, request.full, call).await,
            None => failed(&name, &Error::NotInFile { table: name.clone() }),
        };
        let mut in_a_row = 0;
        if let Some(error) = &ingested.error {
            in_a_row = 1;
            let message = ingested.message.clone().unwrap_or_default();
            response.failures.push(Failure { table: name.clone(), error: error.clone(), message });
            // Where it stands all the same.
            if let Ok(Some(row)) = deps.rows.ingest(&name).await {
                ingested.timestamp = row.timestamp;
                ingested.sequential_id = row.sequential_id;
                in_a_row = row.failures_in_a_row.max(1);
            }
        }
        report(&ingested, in_a_row, call);
        response.tables.push(ingested);
    }
    // What was ingested stays so without it.
    if let Err(error) = publish(deps, &schema, &sha256_hex(&text), call).await {
        tracing::warn!(error = errors::describe(&error), "the page could not be written");
    }
    Ok(response)
}

/// Writes the section that page and weekly mail show.
async fn publish(deps: &Deps, schema: &Schema, schema_digest: &str, call: &Call) -> Result<(), StandingError> {
    let standing = Standing::read(&deps.rows, &deps.warehouse, schema).await?;
    let status = standing.status(schema, schema_digest, Pending::default(), &deps.warehouse);
    let section = reports::warehouse::section(&status).published(call.now());
    Ok(deps.archive.put_json(PAGE_KEY, &section).await?)
}

fn failed(table: &str, error: &Error) -> Ingested {
    Ingested {
        table: table.to_owned(),
        error: Some(error.name().entry().name.to_owned()),
        message: Some(errors::describe(error)),
        ..Ingested::default()
    }
}

async fn ingest(deps: &Deps, table: &schema::Table, full: bool, call: &Call) -> Ingested {
    let mut tries = 0;
    loop {
        tries += 1;
        match attempt(deps, table, full, tries == 1, call).await {
            Ok(ingested) => return ingested,
            Err(error @ Error::Connection { .. }) if tries < TRIES && !call.is_ending() => {
                tracing::warn!(table = table.name, error = errors::describe(&error), "the table is read again");
                call.sleep(Duration::from_secs(1 << tries)).await;
            }
            Err(error) => return failed(&table.name, &error),
        }
    }
}

async fn attempt(
    deps: &Deps,
    table: &schema::Table,
    full: bool,
    is_first: bool,
    call: &Call,
) -> Result<Ingested, Error> {
    let row = deps.rows.claim_ingest(&table.name, call.left().mul_f32(0.5), call).await?;
    let attempt = row.fence.attempt;
    let work = table::ingest(deps, table, &row, full, call);
    let done = deps.rows.hold_ingest(&table.name, attempt, call, work).await;
    if let Err(error) = &done {
        let note = FailureNote {
            error: error.name().entry().name.to_owned(),
            message: errors::describe(error),
            at: call.now(),
        };
        let noted = deps.rows.change_ingest(&table.name, attempt, |row| IngestRow {
            fence: row.fence.end(call.now()),
            failure: Some(note.clone()),
            failures_in_a_row: row.failures_in_a_row + u64::from(is_first),
            ..row
        });
        if let Err(unnoted) = noted.await {
            tracing::warn!(table = table.name, error = errors::describe(&unnoted), "the failure could not be noted");
        }
    }
    done
}

/// `in_a_row`: how many ingests of the table have failed since one went well.
fn report(ingested: &Ingested, in_a_row: u64, call: &Call) {
    Metrics::new()
        .dimension("Function", "ingest-tables")
        .property("Table", &ingested.table)
        .duration("Duration", call.took())
        .figure("Rows", Unit::Count, ingested.rows)
        .figure("Deleted", Unit::Count, ingested.deleted)
        .figure("Objects", Unit::Count, ingested.objects.len() as u64)
        .figure("IngestFailures", Unit::Count, u64::from(ingested.error.is_some()))
        .figure("IngestFailuresInARow", Unit::Count, in_a_row)
        .write();
    match &ingested.error {
        Some(error) => {
            let message = ingested.message.as_deref().unwrap_or_default();
            tracing::error!(table = ingested.table, error, message, "the table was not ingested");
        }
        None => tracing::info!(table = ingested.table, rows = ingested.rows, deleted = ingested.deleted, "ingested"),
    }
}
