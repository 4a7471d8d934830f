use errors::{Name, Named};
use parameters::ParameterError;
use storage::{LedgerError, StoreError};
use tokio_postgres::error::SqlState;
use warehouse::schema::Problem;
use warehouse_state::ClaimError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no schema file at {uri}")]
    SchemaMissing { uri: String },
    #[error("the schema file has {} mistakes; the first, in line {} at {}: {}", .problems.len(), .problems[0].line,
        .problems[0].field, .problems[0].message)]
    SchemaInvalid { problems: Vec<Problem> },
    #[error("{table} is not among the tables that the schema file reads from the database")]
    NotInFile { table: String },
    #[error("there is no table {table} in the schema public")]
    UnknownTable { table: String },
    #[error("{table} has no column {column}, which is its cursor in the schema file")]
    CursorMissing { table: String, column: String },
    #[error("{table}.{column} is {found}; a cursor is timestamptz or timestamp")]
    CursorType { table: String, column: String, found: String },
    #[error("{table} has no column {column}, which is part of its key in the schema file")]
    KeyMissing { table: String, column: String },
    #[error("the database {what}")]
    Connection { what: String, source: Option<tokio_postgres::Error> },
    #[error("{what}")]
    Denied { what: String },
    #[error("the database does not show when its transactions began: {what}")]
    Hidden { what: &'static str },
    #[error("{table} could not be read: {what}")]
    Read { table: String, what: String },
    #[error("s3://{bucket}/{key} exists and is not ours; nothing was overwritten")]
    ObjectExists { bucket: String, key: String },
    #[error("the secret {secret}: {what}")]
    Secret { secret: String, what: String },
    #[error("{uri}, the file with the authorities to be trusted, {what}")]
    Authorities { uri: String, what: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error("the function's disk: {0}")]
    Scratch(#[from] std::io::Error),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::SchemaMissing { .. } => Name::SchemaMissing,
            Error::SchemaInvalid { .. } => Name::SchemaInvalid,
            Error::NotInFile { .. } | Error::UnknownTable { .. } => Name::UnknownTable,
            Error::CursorMissing { .. } | Error::CursorType { .. } => Name::MissingTimestampColumn,
            Error::KeyMissing { .. } => Name::MissingKeyColumn,
            Error::Connection { .. } => Name::ConnectionFailed,
            Error::Denied { .. } => Name::PermissionDenied,
            Error::Hidden { .. } => Name::TransactionsHidden,
            Error::Read { .. } => Name::ReadFailed,
            Error::ObjectExists { .. } => Name::ObjectExists,
            Error::Secret { .. } => Name::SecretUnavailable,
            Error::Authorities { .. } => Name::AuthoritiesUnusable,
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::Claim(error) => error.name(),
            Error::Parameter(error) => error.name(),
            Error::Scratch(_) => Name::ScratchFailed,
        }
    }
}

impl Error {
    /// What PostgreSQL says about a table, by the classes of its codes.
    pub fn of(table: &str, error: tokio_postgres::Error) -> Error {
        let Some(database) = error.as_db_error() else {
            return Error::Connection { what: "broke the connection off".to_owned(), source: Some(error) };
        };
        let what = format!("{} ({})", database.message(), database.code().code());
        match database.code() {
            code if *code == SqlState::INSUFFICIENT_PRIVILEGE => Error::Denied { what: format!("{table}: {what}") },
            code if *code == SqlState::UNDEFINED_TABLE => Error::UnknownTable { table: table.to_owned() },
            // Connections, authorization, resources, shutdowns.
            code if ["08", "28", "3D", "53", "57P"].iter().any(|class| code.code().starts_with(class)) => {
                Error::Connection { what: format!("refused: {what}"), source: None }
            }
            _ => Error::Read { table: table.to_owned(), what },
        }
    }
}
