use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use errors::{Name, Named};
use std::{collections::HashMap, error::Error, time::Duration};

/// A row, or its key, as DynamoDB has it.
pub type Item = HashMap<String, AttributeValue>;

/// The requests that DynamoDB knows; each method is one of them. [`Table`](crate::Table) says what they are for.
#[async_trait]
pub trait TableStore: Send + Sync {
    /// Reads with strong consistency.
    async fn get(&self, table: &str, key: Item) -> Result<Option<Item>, LedgerError>;

    /// Reads up to 100 rows with strong consistency, and perhaps leaves some of the keys for later.
    async fn batch_get(&self, table: &str, keys: Vec<Item>) -> Result<Batch, LedgerError>;

    /// Writes a row. `false`: the condition does not hold, and nothing is written.
    async fn put(&self, table: &str, item: Item, condition: RowCondition) -> Result<bool, LedgerError>;

    /// Writes up to [`WRITES_AT_ONCE`] rows, no two of one key, each on its own condition: some may be written and
    /// others not. Returns what became of each, in order.
    async fn write_batch(&self, table: &str, writes: &[Write]) -> Result<Vec<WriteOutcome>, LedgerError>;

    /// Writes a row and deletes another, both or neither: written if there is no row of its key (the attribute of its
    /// partition key is named), deleted if it has this revision. `false`: neither.
    async fn replace(
        &self,
        table: &str,
        item: Item,
        partition: &'static str,
        replaced: Item,
        revision: u64,
    ) -> Result<bool, LedgerError>;

    /// A page of the rows of a partition, from the one behind `after` on.
    async fn query(&self, table: &str, query: &Query<'_>, after: Option<Item>) -> Result<Page, LedgerError>;

    /// A page of all rows, with strong consistency, from the one behind `after` on.
    async fn scan(&self, table: &str, after: Option<Item>) -> Result<Page, LedgerError>;

    /// Waits before another try.
    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub items: Vec<Item>,
    /// Keys that the service had no time for.
    pub unprocessed: Vec<Item>,
}

/// What BatchExecuteStatement takes at once.
pub const WRITES_AT_ONCE: usize = 25;

/// One row of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Written if there is no row of its key.
    Insert(Item),
    /// Written if the row of this key exists and has these attributes.
    Update {
        key: Item,
        only_if: Item,
        set: Item,
        /// Attributes that the row then lacks.
        remove: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum WriteOutcome {
    Done,
    /// The condition does not hold. The row that stands there, where the service tells it.
    Refused(Option<Item>),
    /// The service had no time for it.
    Unprocessed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowCondition {
    /// There is no row of this key; its partition key's attribute.
    Absent(&'static str),
    /// The row has this revision.
    Revision(u64),
}

#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Read by an index, which may lag behind the table; otherwise with strong consistency.
    pub index: Option<&'a str>,
    /// The partition: attribute and value.
    pub partition: (&'a str, &'a str),
    /// Only rows in which this attribute has this value.
    pub filter: Option<(&'a str, &'a str)>,
    /// Rows of a page at most, before the filter.
    pub limit: Option<i32>,
    /// Tell the number of rows instead of the rows.
    pub only_count: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub items: Vec<Item>,
    pub count: u64,
    /// Where the next page begins; none at the end.
    pub last: Option<Item>,
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{operation} on table {table}: the table does not exist")]
    TableMissing { operation: &'static str, table: String },
    #[error("{operation} on table {table} is not allowed: {message}")]
    Denied { operation: &'static str, table: String, message: String },
    #[error("{operation} on table {table} failed: {message}")]
    Unavailable { operation: &'static str, table: String, message: String, source: Box<dyn Error + Send + Sync> },
    #[error("{operation} on table {table}: {left} items stayed unprocessed after {tries} tries")]
    Throttled { operation: &'static str, table: String, left: usize, tries: usize },
    #[error("row {key} of table {table} is not readable: {message}")]
    Malformed { table: String, key: String, message: String },
    #[error("row {key} of table {table} changed {tries} times while it was being changed")]
    Contended { table: String, key: String, tries: usize },
}

impl Named for LedgerError {
    fn name(&self) -> Name {
        match self {
            LedgerError::TableMissing { .. } => Name::TableMissing,
            LedgerError::Denied { .. } => Name::LedgerDenied,
            LedgerError::Malformed { .. } => Name::LedgerCorrupt,
            LedgerError::Unavailable { .. } | LedgerError::Throttled { .. } | LedgerError::Contended { .. } => {
                Name::LedgerUnavailable
            }
        }
    }
}
