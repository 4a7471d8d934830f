mod dynamodb;
mod memory;
mod store;

pub use memory::MemoryTables;
pub use store::{Batch, Item, LedgerError, Page, Query, RowCondition, TableStore, WRITES_AT_ONCE, Write, WriteOutcome};

use aws_sdk_dynamodb::types::AttributeValue;
use futures::{StreamExt, TryStreamExt, stream};
use ledger::Keyed;
use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

/// What BatchGetItem takes at once.
const BATCH: usize = 100;
/// Batches of writes under way at once.
const BATCHES: usize = 8;
/// How often what the service had no time for is asked for again.
const TRIES: usize = 8;
/// How often a change is decided again because another writer was quicker.
const CONTESTS: usize = 12;

/// Rows of one type. Each change is conditional on the revision that was read.
pub struct Table<T> {
    store: Arc<dyn TableStore>,
    name: String,
    row: PhantomData<fn() -> T>,
}

/// A change of a row. Its revision is one above that of the row before, and 1 where there was none.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<T> {
    /// The row as it was read, or as it is expected to stand.
    pub before: Option<T>,
    pub after: T,
}

/// A change that was not made, because the row is another than the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused<T> {
    /// Partition key and sort key.
    pub key: (String, Option<String>),
    /// The row that stands there, where the service told it.
    pub stands: Option<T>,
}

/// Every row of a table that holds a `T`.
#[derive(Debug)]
#[must_use = "rows that cannot be read must be reported"]
pub struct Scanned<T> {
    pub rows: Vec<T>,
    /// One error for each row that cannot be read.
    pub malformed: Vec<LedgerError>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Table { store: self.store.clone(), name: self.name.clone(), row: PhantomData }
    }
}

impl<T: Keyed> Table<T> {
    pub fn new(config: &aws_config::SdkConfig, name: String) -> Self {
        Table { store: Arc::new(dynamodb::DynamoDb::new(config)), name, row: PhantomData }
    }

    /// A table of another store than DynamoDB, such as [`MemoryTables`].
    pub fn over(store: impl TableStore + 'static, name: impl Into<String>) -> Self {
        Table { store: Arc::new(store), name: name.into(), row: PhantomData }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads with strong consistency; `None` when there is no such row.
    pub async fn get(&self, partition: &str, sort: Option<&str>) -> Result<Option<T>, LedgerError> {
        let item = self.store.get(&self.name, key::<T>(partition, sort)).await?;
        item.map(|item| self.read(item)).transpose()
    }

    /// Reads many rows with strong consistency, by key; rows that do not exist are absent from what it returns.
    pub async fn get_many(
        &self,
        keys: &[(String, Option<String>)],
    ) -> Result<HashMap<(String, Option<String>), T>, LedgerError> {
        // DynamoDB refuses a request that names a key twice.
        let keys: Vec<_> = keys.iter().collect::<HashSet<_>>().into_iter().cloned().collect();
        let batches = stream::iter(keys.chunks(BATCH).map(|batch| self.get_batch(batch))).buffer_unordered(4);
        let rows: Vec<Vec<T>> = batches.try_collect().await?;
        Ok(rows.into_iter().flatten().map(|row| (row.key(), row)).collect())
    }

    async fn get_batch(&self, keys: &[(String, Option<String>)]) -> Result<Vec<T>, LedgerError> {
        let mut wanted: Vec<_> = keys.iter().map(|(partition, sort)| key::<T>(partition, sort.as_deref())).collect();
        let mut rows = Vec::with_capacity(keys.len());
        for round in 0..TRIES {
            let answer = self.store.batch_get(&self.name, std::mem::take(&mut wanted)).await?;
            for item in answer.items {
                rows.push(self.read(item)?);
            }
            wanted = answer.unprocessed;
            if wanted.is_empty() {
                return Ok(rows);
            }
            self.store.wait(Duration::from_millis(50 << round)).await;
        }
        let (operation, table) = ("BatchGetItem", self.name.clone());
        Err(LedgerError::Throttled { operation, table, left: wanted.len(), tries: TRIES })
    }

    /// Writes a row whose revision is one above the one that was read. `false`: it has changed since.
    pub async fn put(&self, row: &T) -> Result<bool, LedgerError> {
        let item = serde_dynamo::to_item(row).map_err(|error| self.malformed(shown(row), error))?;
        let condition = match row.revision() {
            0 | 1 => RowCondition::Absent(T::PARTITION),
            revision => RowCondition::Revision(revision - 1),
        };
        self.store.put(&self.name, item, condition).await
    }

    /// Writes a row under another key than it had, in one request: at no time are there both, or neither. `false`: it
    /// has changed since, or there is a row of the new key.
    pub async fn rekey(&self, before: &T, after: &T) -> Result<bool, LedgerError> {
        let item = serde_dynamo::to_item(after).map_err(|error| self.malformed(shown(after), error))?;
        let (partition, sort) = before.key();
        let replaced = key::<T>(&partition, sort.as_deref());
        self.store.replace(&self.name, item, T::PARTITION, replaced, before.revision()).await
    }

    /// Makes many changes, of one row each, in batches; returns those that were refused.
    pub async fn change_many(&self, changes: Vec<Change<T>>) -> Result<Vec<Refused<T>>, LedgerError> {
        let batches = changes.chunks(WRITES_AT_ONCE).map(|batch| self.change_batch(batch));
        let refused: Vec<Vec<_>> = stream::iter(batches).buffer_unordered(BATCHES).try_collect().await?;
        Ok(refused.into_iter().flatten().collect())
    }

    async fn change_batch(&self, changes: &[Change<T>]) -> Result<Vec<Refused<T>>, LedgerError> {
        let items = changes.iter().map(|change| {
            let item = serde_dynamo::to_item(&change.after);
            item.map_err(|error| self.malformed(shown(&change.after), error))
        });
        let items: Vec<Item> = items.collect::<Result<_, _>>()?;
        let mut left: Vec<usize> = (0..changes.len()).collect();
        let mut refused = Vec::new();
        for round in 0..TRIES {
            let writes =
                left.iter().map(|at| self.write_of(&changes[*at], &items[*at])).collect::<Result<Vec<_>, _>>()?;
            let written = self.store.write_batch(&self.name, &writes).await?;
            let mut unprocessed = Vec::new();
            for (at, written) in std::mem::take(&mut left).into_iter().zip(written) {
                match written {
                    WriteOutcome::Done => {}
                    WriteOutcome::Unprocessed => unprocessed.push(at),
                    // The answer of an earlier try was lost: this very row stands.
                    WriteOutcome::Refused(Some(stands)) if stands == items[at] => {}
                    WriteOutcome::Refused(stands) => {
                        let stands = stands.map(|item| self.read(item)).transpose()?;
                        refused.push(Refused { key: changes[at].after.key(), stands });
                    }
                }
            }
            left = unprocessed;
            if left.is_empty() {
                return Ok(refused);
            }
            self.store.wait(Duration::from_millis(50 << round)).await;
        }
        let (operation, table) = ("BatchExecuteStatement", self.name.clone());
        Err(LedgerError::Throttled { operation, table, left: left.len(), tries: TRIES })
    }

    fn write_of(&self, change: &Change<T>, item: &Item) -> Result<Write, LedgerError> {
        let Some(before) = &change.before else { return Ok(Write::Insert(item.clone())) };
        let before: Item = serde_dynamo::to_item(before).map_err(|error| self.malformed(shown(before), error))?;
        let (partition, sort) = change.after.key();
        let key = key::<T>(&partition, sort.as_deref());
        let set: Item = item.iter().filter(|(name, _)| !key.contains_key(*name)).map(owned).collect();
        let remove = before.keys().filter(|name| !item.contains_key(*name)).cloned().collect();
        let conditions = ["revision"].into_iter().chain(T::OWNER);
        let only_if = conditions.filter_map(|name| before.get_key_value(name)).map(owned).collect();
        Ok(Write::Update { key, only_if, set, remove })
    }

    /// Reads a row, lets `decide` change it (`None`: leave it) and writes it, until no other writer was quicker.
    /// `decide` sets no revision; returns the row as it then stands.
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
            self.store.wait(Duration::from_millis(20 << round.min(6))).await;
        }
        let key = [Some(partition), sort].into_iter().flatten().collect::<Vec<_>>().join("/");
        Err(LedgerError::Contended { table: self.name.clone(), key, tries: CONTESTS }.into())
    }

    /// All rows of a partition.
    pub async fn partition(&self, partition: &str) -> Result<Vec<T>, LedgerError> {
        let partition = (T::PARTITION, partition);
        self.query(Query { index: None, partition, filter: None, limit: None, only_count: false }).await
    }

    /// Looks at every row of a partition, a page in memory at a time.
    pub async fn for_each_of(&self, partition: &str, mut look: impl FnMut(T)) -> Result<(), LedgerError> {
        let partition = (T::PARTITION, partition);
        let query = Query { index: None, partition, filter: None, limit: None, only_count: false };
        let mut after = None;
        loop {
            let page = self.store.query(&self.name, &query, after.take()).await?;
            for item in page.items {
                look(self.read(item)?);
            }
            after = page.last;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Rows of a partition of an index, in the index's order; about `limit` of them. An index lags behind the table.
    pub async fn by_index(
        &self,
        index: &str,
        attribute: &str,
        value: &str,
        limit: Option<i32>,
    ) -> Result<Vec<T>, LedgerError> {
        let partition = (attribute, value);
        self.query(Query { index: Some(index), partition, filter: None, limit, only_count: false }).await
    }

    /// Hands over all rows of these partitions of an index: the partitions side by side, a page of each in memory.
    pub async fn for_each_by_index(
        &self,
        index: &str,
        attribute: &str,
        values: &[String],
        mut look: impl FnMut(T),
    ) -> Result<(), LedgerError> {
        let pages = |value| {
            let partition = (attribute, value);
            let query = Query { index: Some(index), partition, filter: None, limit: None, only_count: false };
            stream::try_unfold((query, Some(None)), async move |(query, after)| {
                let Some(after) = after else { return Ok::<_, LedgerError>(None) };
                let page = self.store.query(&self.name, &query, after).await?;
                Ok(Some((page.items, (query, page.last.map(Some)))))
            })
            .boxed()
        };
        let mut pages = stream::select_all(values.iter().map(|value| pages(value.as_str())));
        while let Some(items) = pages.try_next().await? {
            for item in items {
                look(self.read(item)?);
            }
        }
        Ok(())
    }

    async fn query(&self, query: Query<'_>) -> Result<Vec<T>, LedgerError> {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.query(&self.name, &query, after.take()).await?;
            for item in page.items {
                rows.push(self.read(item)?);
            }
            after = page.last;
            if after.is_none() || query.limit.is_some_and(|limit| rows.len() >= limit as usize) {
                return Ok(rows);
            }
        }
    }

    /// How many rows of an index partition have `attribute` = `value`.
    pub async fn count(
        &self,
        index: &str,
        partition: (&str, &str),
        attribute: &str,
        value: &str,
    ) -> Result<u64, LedgerError> {
        let filter = Some((attribute, value));
        let query = Query { index: Some(index), partition, filter, limit: None, only_count: true };
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.store.query(&self.name, &query, after.take()).await?;
            count += page.count;
            after = page.last;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// Looks at every row, a page in memory at a time.
    pub async fn for_each(&self, mut look: impl FnMut(T)) -> Result<(), LedgerError> {
        let mut after = None;
        loop {
            let page = self.store.scan(&self.name, after.take()).await?;
            for item in page.items.into_iter().filter(holds::<T>) {
                look(self.read(item)?);
            }
            after = page.last;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Every row, and what cannot be read; for small tables only.
    pub async fn scan(&self) -> Result<Scanned<T>, LedgerError> {
        let mut scanned = Scanned { rows: Vec::new(), malformed: Vec::new() };
        let mut after = None;
        loop {
            let page = self.store.scan(&self.name, after.take()).await?;
            for item in page.items.into_iter().filter(holds::<T>) {
                match self.read(item) {
                    Ok(row) => scanned.rows.push(row),
                    Err(error) => scanned.malformed.push(error),
                }
            }
            after = page.last;
            if after.is_none() {
                return Ok(scanned);
            }
        }
    }

    fn read(&self, item: Item) -> Result<T, LedgerError> {
        let parts = [Some(T::PARTITION), T::SORT].into_iter().flatten();
        let parts: Vec<_> = parts.filter_map(|name| item.get(name)?.as_s().ok().cloned()).collect();
        serde_dynamo::from_item(item).map_err(|error| self.malformed(parts.join("/"), error))
    }

    fn malformed(&self, key: String, error: impl std::fmt::Display) -> LedgerError {
        LedgerError::Malformed { table: self.name.clone(), key, message: error.to_string() }
    }
}

fn key<T: Keyed>(partition: &str, sort: Option<&str>) -> Item {
    let mut key = Item::from([(T::PARTITION.to_owned(), AttributeValue::S(partition.to_owned()))]);
    key.extend(T::SORT.zip(sort).map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned()))));
    key
}

fn owned((name, value): (&String, &AttributeValue)) -> (String, AttributeValue) {
    (name.clone(), value.clone())
}

fn shown<T: Keyed>(row: &T) -> String {
    let (partition, sort) = row.key();
    [Some(partition), sort].into_iter().flatten().collect::<Vec<_>>().join("/")
}

/// Whether a row of a table that holds several types is one of these, by its key alone.
fn holds<T: Keyed>(item: &Item) -> bool {
    item.get(T::PARTITION).and_then(|key| key.as_s().ok()).is_some_and(|key| T::holds(key))
}
