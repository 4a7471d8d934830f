//! Makes dimensions and facts from the lines that lie in the ingestion bucket, and puts all tables in force at once.
//!
//! Events only say that it is time: what there is to build is the difference between what the buckets hold and what
//! the last build has seen. So an event that comes twice, late or never changes nothing about the outcome. Lines are
//! kept by their keys in segments, and what is made of a segment is made of all of its lines, in their order: a late
//! line needs no rule of its own. What is made of segments without a change is copied.

mod build;
mod event;
mod objects;
mod parquet;
mod segments;
mod side_by_side;
mod spill;

use aws_config::SdkConfig;
use errors::{Name, Named};
use parameters::{Parameters, Ssm};
use runtime::{Call, Config, ConfigMissing};
use std::sync::Arc;
use storage::{LedgerError, Objects, StoreError, Table};
use warehouse::schema::Problem;
use warehouse_state::{ClaimError, Warehouse};

pub use event::{Event, Response};

pub struct Deps {
    pub ingestion: Objects,
    pub warehouse: Objects,
    /// The archive's bucket, which has the page.
    pub archive: Objects,
    /// Absent where the partner feeds are not deployed.
    pub feeds: Option<Objects>,
    pub rows: Warehouse,
    pub parameters: Arc<dyn Parameters>,
    /// Begins the names of parameters.
    pub parameter_prefix: String,
    /// How large a segment of a source's lines is to be; see [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
}

/// Of lines that one processor has in memory at once. In memory their values take a few times as much.
pub const SEGMENT_BYTES: u64 = 32 << 20;

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let table = config.required("ALERT_ARCHIVE_WAREHOUSE_TABLE");
        let deps = Deps {
            ingestion: Objects::new(aws, config.required("ALERT_ARCHIVE_INGESTION_BUCKET")),
            warehouse: Objects::new(aws, config.required("ALERT_ARCHIVE_WAREHOUSE_BUCKET")),
            archive: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            feeds: config.optional("ALERT_ARCHIVE_FEEDS_BUCKET").map(|bucket| Objects::new(aws, bucket)),
            rows: Warehouse::new(Table::new(aws, table.clone()), Table::new(aws, table)),
            parameters: Arc::new(Ssm::new(aws)),
            parameter_prefix: config.required("ALERT_ARCHIVE_WAREHOUSE_PARAMETERS"),
            segment_bytes: SEGMENT_BYTES,
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no schema file at {uri}")]
    SchemaMissing { uri: String },
    #[error("the schema file has {} mistakes; the first, in line {} at {}: {}", .problems.len(), .problems[0].line,
        .problems[0].field, .problems[0].message)]
    SchemaInvalid { problems: Vec<Problem> },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("the function's disk: {0}")]
    Scratch(#[from] std::io::Error),
    #[error("a spilled line cannot be read back: {0}")]
    Spill(#[from] postcard::Error),
    #[error("{table} cannot be written: {what}")]
    NotWritten { table: String, what: String },
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::SchemaMissing { .. } => Name::SchemaMissing,
            Error::SchemaInvalid { .. } => Name::SchemaInvalid,
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Claim(error) => error.name(),
            Error::Scratch(_) | Error::Spill(_) => Name::ScratchFailed,
            Error::NotWritten { .. } => Name::TableNotWritten,
        }
    }
}

/// Builds what has landed. Any error fails all messages of the batch: they come again.
pub async fn handle(deps: &Deps, event: Event, call: Call) -> Result<Response, Error> {
    // Most of what partners deliver is no table's business, and no build needs to wait its turn for it.
    if let Some(feeds) = &deps.feeds {
        let (schema, _) = build::schema(deps).await?;
        if event.is_unwanted(feeds.bucket(), |key| schema.tables.iter().any(|table| table.is_fed_by(key))) {
            return Ok(Response::default());
        }
    }
    // Another build may have taken these objects along by the time that this one has its turn.
    let patience = call.left().mul_f32(0.5);
    let row = deps.rows.claim_build(patience, &call).await?;
    let attempt = row.fence.attempt;
    let built = deps.rows.hold_build(attempt, &call, build::all(deps, &row, &event, &call)).await;
    if let Err(error) = &built {
        let note = warehouse_state::FailureNote {
            error: error.name().entry().name.to_owned(),
            message: errors::describe(error),
            at: call.now(),
        };
        let noted = deps.rows.change_build(attempt, |row| warehouse_state::BuildRow {
            fence: row.fence.end(call.now()),
            failure: Some(note.clone()),
            ..row
        });
        match noted.await {
            Ok(_) => build::publish_failure(deps, &call).await,
            Err(unnoted) => tracing::warn!(error = errors::describe(&unnoted), "the failure could not be noted"),
        }
    }
    built
}
