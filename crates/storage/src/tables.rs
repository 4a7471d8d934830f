use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{AttributeValue, KeysAndAttributes, Select},
};
use errors::{Name, Named};
use futures::{StreamExt, TryStreamExt, stream};
use ledger::Keyed;
use std::{collections::HashMap, error::Error, marker::PhantomData, time::Duration};

/// What BatchGetItem takes at once.
const BATCH: usize = 100;
/// Single writes under way at once.
const WRITES: usize = 32;
/// How often a change is decided again because somebody else was quicker.
const CONTESTS: usize = 12;

/// Rows of one type. Each change is conditional on the revision that was read.
pub struct Table<T> {
    client: Client,
    name: String,
    row: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Table { client: self.client.clone(), name: self.name.clone(), row: PhantomData }
    }
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
    #[error("a row of table {table} is not readable: {message}")]
    Malformed { table: String, message: String },
    #[error("row {key} of table {table} changed {tries} times while it was being changed")]
    Contended { table: String, key: String, tries: usize },
}

impl Named for LedgerError {
    fn name(&self) -> Name {
        match self {
            LedgerError::TableMissing { .. } => Name::TableMissing,
            LedgerError::Denied { .. } => Name::LedgerDenied,
            LedgerError::Malformed { .. } => Name::LedgerCorrupt,
            LedgerError::Unavailable { .. } | LedgerError::Throttled { .. } | LedgerError::Contended { .. } => Name::LedgerUnavailable,
        }
    }
}

impl<T: Keyed> Table<T> {
    pub fn new(config: &aws_config::SdkConfig, name: String) -> Self {
        Table { client: Client::new(config), name, row: PhantomData }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads with strong consistency; `None` when there is no such row.
    pub async fn get(&self, partition: &str, sort: Option<&str>) -> Result<Option<T>, LedgerError> {
        let get = self.client.get_item().table_name(&self.name).consistent_read(true);
        let answer = get.set_key(Some(key::<T>(partition, sort))).send().await.map_err(|error| self.error("GetItem", error))?;
        answer.item.map(|item| self.read(item)).transpose()
    }

    /// Reads many rows with strong consistency, by key; rows that do not exist are absent from the answer.
    pub async fn get_many(&self, keys: &[(String, Option<String>)]) -> Result<HashMap<(String, Option<String>), T>, LedgerError> {
        let batches = stream::iter(keys.chunks(BATCH).map(|batch| self.get_batch(batch))).buffer_unordered(4);
        let rows: Vec<Vec<T>> = batches.try_collect().await?;
        Ok(rows.into_iter().flatten().map(|row| (row.key(), row)).collect())
    }

    async fn get_batch(&self, keys: &[(String, Option<String>)]) -> Result<Vec<T>, LedgerError> {
        const TRIES: usize = 8;
        let mut wanted: Vec<_> = keys.iter().map(|(partition, sort)| key::<T>(partition, sort.as_deref())).collect();
        let mut rows = Vec::with_capacity(keys.len());
        for round in 0..TRIES {
            let request = KeysAndAttributes::builder().set_keys(Some(std::mem::take(&mut wanted))).consistent_read(true).build();
            let request = request.map_err(|error| self.malformed(error))?;
            let answer = self.client.batch_get_item().request_items(&self.name, request).send().await;
            let answer = answer.map_err(|error| self.error("BatchGetItem", error))?;
            for items in answer.responses.unwrap_or_default().into_values() {
                for item in items {
                    rows.push(self.read(item)?);
                }
            }
            wanted = answer.unprocessed_keys.unwrap_or_default().into_values().flat_map(|rest| rest.keys).collect();
            if wanted.is_empty() {
                return Ok(rows);
            }
            tokio::time::sleep(Duration::from_millis(50 << round)).await;
        }
        Err(LedgerError::Throttled { operation: "BatchGetItem", table: self.name.clone(), left: wanted.len(), tries: TRIES })
    }

    /// Writes a row whose revision is one above the one that was read. `false`: somebody else changed it since.
    pub async fn put(&self, row: &T) -> Result<bool, LedgerError> {
        let item = serde_dynamo::to_item(row).map_err(|error| self.malformed(error))?;
        let put = self.client.put_item().table_name(&self.name).set_item(Some(item)).expression_attribute_names("#p", T::PARTITION);
        let put = match row.revision() {
            0 | 1 => put.condition_expression("attribute_not_exists(#p)"),
            revision => {
                put.condition_expression("revision = :before").expression_attribute_values(":before", AttributeValue::N((revision - 1).to_string()))
            }
        };
        // DynamoDB refuses names that no expression uses.
        let put = if row.revision() > 1 { put.set_expression_attribute_names(None) } else { put };
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(self.error("PutItem", error)),
        }
    }

    /// Writes many rows; answers those that somebody else changed since they were read.
    pub async fn put_many(&self, rows: Vec<T>) -> Result<Vec<T>, LedgerError> {
        let writes = stream::iter(rows.into_iter().map(|row| async move {
            let written = self.put(&row).await?;
            Ok::<_, LedgerError>((!written).then_some(row))
        }));
        writes.buffer_unordered(WRITES).try_filter_map(|lost| async move { Ok(lost) }).try_collect().await
    }

    /// Reads a row, lets `decide` change it (`None`: leave it) and writes it, again and again until nobody interferes.
    /// `decide` sets no revision; answers the row as it then stands.
    pub async fn update<E>(
        &self,
        partition: &str,
        sort: Option<&str>,
        mut decide: impl FnMut(Option<&T>) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E>
    where
        E: From<LedgerError>,
    {
        for round in 0..CONTESTS {
            let before = self.get(partition, sort).await?;
            let Some(after) = decide(before.as_ref())? else { return Ok(before) };
            let after = after.revised(before.as_ref().map_or(1, |row| row.revision() + 1));
            if self.put(&after).await? {
                return Ok(Some(after));
            }
            tokio::time::sleep(Duration::from_millis(20 << round.min(6))).await;
        }
        let key = [Some(partition), sort].into_iter().flatten().collect::<Vec<_>>().join("/");
        Err(LedgerError::Contended { table: self.name.clone(), key, tries: CONTESTS }.into())
    }

    /// All rows of a partition.
    pub async fn partition(&self, partition: &str) -> Result<Vec<T>, LedgerError> {
        self.query(None, T::PARTITION, partition, None).await
    }

    /// Rows of a partition of an index, in the index's order; at most `limit`.
    pub async fn by_index(&self, index: &str, attribute: &str, value: &str, limit: Option<i32>) -> Result<Vec<T>, LedgerError> {
        self.query(Some(index), attribute, value, limit).await
    }

    async fn query(&self, index: Option<&str>, attribute: &str, value: &str, limit: Option<i32>) -> Result<Vec<T>, LedgerError> {
        let query = self.client.query().table_name(&self.name).set_index_name(index.map(str::to_owned)).set_limit(limit);
        let query = query
            .consistent_read(index.is_none())
            .key_condition_expression("#a = :v")
            .expression_attribute_names("#a", attribute)
            .expression_attribute_values(":v", AttributeValue::S(value.to_owned()));
        let mut pages = query.into_paginator().send();
        let mut rows = Vec::new();
        while let Some(page) = pages.next().await {
            for item in page.map_err(|error| self.error("Query", error))?.items.unwrap_or_default() {
                rows.push(self.read(item)?);
            }
            if limit.is_some_and(|limit| rows.len() >= limit as usize) {
                break;
            }
        }
        Ok(rows)
    }

    /// How many rows of an index partition have `attribute` = `value`.
    pub async fn count(&self, index: &str, partition: (&str, &str), attribute: &str, value: &str) -> Result<u64, LedgerError> {
        let query = self.client.query().table_name(&self.name).index_name(index).select(Select::Count);
        let query = query
            .key_condition_expression("#p = :p")
            .filter_expression("#a = :v")
            .expression_attribute_names("#p", partition.0)
            .expression_attribute_names("#a", attribute)
            .expression_attribute_values(":p", AttributeValue::S(partition.1.to_owned()))
            .expression_attribute_values(":v", AttributeValue::S(value.to_owned()));
        let mut pages = query.into_paginator().send();
        let mut count = 0;
        while let Some(page) = pages.next().await {
            count += page.map_err(|error| self.error("Query", error))?.count as u64;
        }
        Ok(count)
    }

    /// Looks at every row, a page in memory at a time.
    pub async fn for_each(&self, mut look: impl FnMut(T)) -> Result<(), LedgerError> {
        let mut pages = self.client.scan().table_name(&self.name).consistent_read(true).into_paginator().send();
        while let Some(page) = pages.next().await {
            for item in page.map_err(|error| self.error("Scan", error))?.items.unwrap_or_default() {
                look(self.read(item)?);
            }
        }
        Ok(())
    }

    /// Every row that can be read as `T`; for small tables only.
    pub async fn scan(&self) -> Result<Vec<T>, LedgerError> {
        let mut pages = self.client.scan().table_name(&self.name).consistent_read(true).into_paginator().send();
        let mut rows = Vec::new();
        while let Some(page) = pages.next().await {
            let items = page.map_err(|error| self.error("Scan", error))?.items.unwrap_or_default();
            rows.extend(items.into_iter().filter_map(|item| serde_dynamo::from_item(item).ok()));
        }
        Ok(rows)
    }

    fn read(&self, item: HashMap<String, AttributeValue>) -> Result<T, LedgerError> {
        serde_dynamo::from_item(item).map_err(|error| self.malformed(error))
    }

    fn malformed(&self, error: impl std::fmt::Display) -> LedgerError {
        LedgerError::Malformed { table: self.name.clone(), message: error.to_string() }
    }

    fn error<E, R>(&self, operation: &'static str, error: SdkError<E, R>) -> LedgerError
    where
        E: Error + Send + Sync + ProvideErrorMetadata + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let table = self.name.clone();
        let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
        match error.code() {
            Some("ResourceNotFoundException") => LedgerError::TableMissing { operation, table },
            Some("AccessDeniedException" | "UnrecognizedClientException") => LedgerError::Denied { operation, table, message },
            _ => LedgerError::Unavailable { operation, table, message, source: Box::new(error) },
        }
    }
}

fn key<T: Keyed>(partition: &str, sort: Option<&str>) -> HashMap<String, AttributeValue> {
    let mut key = HashMap::from([(T::PARTITION.to_owned(), AttributeValue::S(partition.to_owned()))]);
    key.extend(T::SORT.zip(sort).map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned()))));
    key
}
