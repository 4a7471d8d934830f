use super::store::{
    Batch, Item, LedgerError, Page, Query, RowCondition, TableStore, WRITES_AT_ONCE, Write, WriteOutcome,
};
use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use network::{Network, Request, through};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The service's own limits, in bytes and keys.
const LARGEST_ITEM: usize = 400 << 10;
const LARGEST_PAGE: usize = 1 << 20;
const LARGEST_BATCH: usize = 100;
const LONGEST_PARTITION: usize = 2048;
const LONGEST_SORT: usize = 1024;
/// Changes that an index can be behind.
const LONGEST_LAG: usize = 1000;

/// DynamoDB in memory, for unit tests and simulations: conditional writes, unprocessed keys, pages, and indices that
/// lag behind. Clones share the tables; each may have a [`Network`] of its own.
#[derive(Clone)]
pub struct MemoryTables {
    tables: Arc<Mutex<BTreeMap<String, Rows>>>,
    network: Arc<dyn Network>,
}

/// Rows stand in the order of a hash of their partition, as they do in the service: no reader may rely on it.
type Place = (u64, String, Option<String>);

#[derive(Clone)]
struct Rows {
    partition: String,
    sort: Option<String>,
    indices: HashMap<String, Index>,
    rows: BTreeMap<Place, Item>,
    /// What each change found, oldest first: an index that lags is read without the last of them.
    changes: Vec<(Place, Option<Item>)>,
}

#[derive(Clone)]
struct Index {
    partition: String,
    sort: String,
}

impl MemoryTables {
    pub fn new(network: Arc<dyn Network>) -> Self {
        MemoryTables { tables: Arc::default(), network }
    }

    pub fn table(self, name: &str, partition: &str, sort: Option<&str>) -> Self {
        let (partition, sort) = (partition.to_owned(), sort.map(str::to_owned));
        let rows = Rows { partition, sort, indices: HashMap::new(), rows: BTreeMap::new(), changes: Vec::new() };
        self.tables().insert(name.to_owned(), rows);
        self
    }

    /// An index over all attributes of a table that was given before.
    pub fn index(self, table: &str, name: &str, partition: &str, sort: &str) -> Self {
        if let Some(rows) = self.tables().get_mut(table) {
            rows.indices.insert(name.to_owned(), Index { partition: partition.to_owned(), sort: sort.to_owned() });
        }
        self
    }

    /// The same tables, seen through another network.
    pub fn through(&self, network: Arc<dyn Network>) -> Self {
        MemoryTables { network, ..self.clone() }
    }

    /// A copy of the tables, which goes its own way from here on.
    pub fn copied(&self) -> Self {
        MemoryTables { tables: Arc::new(Mutex::new(self.tables().clone())), ..self.clone() }
    }

    /// All rows of a table, without a request.
    pub fn contents(&self, table: &str) -> Vec<Item> {
        self.tables().get(table).map(|rows| rows.rows.values().cloned().collect()).unwrap_or_default()
    }

    /// Puts a row without a request or a condition, as another program might.
    pub fn plant(&self, table: &str, item: Item) {
        if let Some(rows) = self.tables().get_mut(table)
            && let Ok(place) = rows.place(&item)
        {
            rows.write(place, item);
        }
    }

    fn tables(&self) -> MutexGuard<'_, BTreeMap<String, Rows>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request<T: Send>(
        &self,
        operation: &'static str,
        table: &str,
        subject: String,
        work: impl Fn(&mut Rows, &Request) -> Result<T, String> + Send + Sync,
    ) -> Result<T, LedgerError> {
        let request = Request { service: "dynamodb", operation, subject: format!("{table}{subject}") };
        let answer = through(&*self.network, &request, || {
            let missing = || LedgerError::TableMissing { operation, table: table.to_owned() };
            let mut tables = self.tables();
            let rows = tables.get_mut(table).ok_or_else(missing)?;
            work(rows, &request).map_err(|what| invalid(operation, table, what))
        });
        answer.await.map_err(|broken| LedgerError::Unavailable {
            operation,
            table: table.to_owned(),
            message: broken.to_string(),
            source: broken.into(),
        })?
    }
}

impl Rows {
    fn place(&self, item: &Item) -> Result<Place, String> {
        let text = |attribute: &str, longest: usize| match item.get(attribute) {
            Some(AttributeValue::S(text)) if text.is_empty() => Err(format!("key attribute {attribute} is empty")),
            Some(AttributeValue::S(text)) if text.len() > longest => Err(format!("key {attribute} is too long")),
            Some(AttributeValue::S(text)) => Ok(text.clone()),
            _ => Err(format!("key attribute {attribute} is missing or no string")),
        };
        let partition = text(&self.partition, LONGEST_PARTITION)?;
        let sort = self.sort.as_deref().map(|sort| text(sort, LONGEST_SORT)).transpose()?;
        Ok((hash(&partition), partition, sort))
    }

    fn key_of(&self, item: &Item, index: Option<&Index>) -> Item {
        let own = [Some(&self.partition), self.sort.as_ref()];
        let indexed = [index.map(|index| &index.partition), index.map(|index| &index.sort)];
        let names = own.into_iter().chain(indexed).flatten();
        names.filter_map(|name| Some((name.clone(), item.get(name)?.clone()))).collect()
    }

    fn write(&mut self, place: Place, item: Item) {
        let before = self.rows.insert(place.clone(), item);
        self.changes.push((place, before));
        if self.changes.len() > 2 * LONGEST_LAG {
            self.changes.drain(..LONGEST_LAG);
        }
    }

    /// The rows as they stood before the last `lag` changes.
    fn before(&self, lag: usize) -> BTreeMap<Place, Item> {
        let mut rows = self.rows.clone();
        for (place, before) in self.changes.iter().rev().take(lag) {
            match before {
                Some(item) => rows.insert(place.clone(), item.clone()),
                None => rows.remove(place),
            };
        }
        rows
    }

    /// Cuts a page out of rows that are in order of `sort` and their places. The row of `after` need not exist any
    /// more.
    fn page(
        &self,
        rows: Vec<&Item>,
        (index, sort): (Option<&Index>, Option<&String>),
        after: Option<&Item>,
        limit: Option<i32>,
    ) -> Cut {
        let order = |item: &Item| (sort.and_then(|sort| text(item, sort)).map(str::to_owned), self.place(item).ok());
        let start = after.map_or(0, |after| rows.partition_point(|row| order(row) <= order(after)));
        let limit = limit.map_or(usize::MAX, |limit| limit.max(1) as usize);
        let (mut items, mut bytes) = (Vec::new(), 0);
        for row in &rows[start..] {
            if items.len() == limit || bytes >= LARGEST_PAGE {
                let last = items.last().map(|item| self.key_of(item, index));
                return Cut { items, last };
            }
            bytes += size(row);
            items.push((*row).clone());
        }
        // As the service does: a limit that is met exactly leaves open whether there is more.
        let last = items.last().filter(|_| items.len() == limit).map(|item| self.key_of(item, index));
        Cut { items, last }
    }
}

struct Cut {
    items: Vec<Item>,
    last: Option<Item>,
}

#[async_trait]
impl TableStore for MemoryTables {
    async fn get(&self, table: &str, key: Item) -> Result<Option<Item>, LedgerError> {
        let subject = shown(&key);
        self.request("GetItem", table, subject, |rows, _| {
            let place = rows.place(&key)?;
            Ok(rows.rows.get(&place).cloned())
        })
        .await
    }

    async fn batch_get(&self, table: &str, keys: Vec<Item>) -> Result<Batch, LedgerError> {
        self.request("BatchGetItem", table, String::new(), |rows, request| {
            let places = keys.iter().map(|key| rows.place(key)).collect::<Result<Vec<_>, _>>()?;
            if keys.is_empty() || keys.len() > LARGEST_BATCH {
                return Err(format!("{} keys", keys.len()));
            }
            if places.iter().collect::<HashSet<_>>().len() < keys.len() {
                return Err("provided list of item keys contains duplicates".to_owned());
            }
            let (mut bytes, mut done) = (0, keys.len().saturating_sub(self.network.unprocessed(request, keys.len())));
            let mut items = Vec::new();
            for (at, place) in places[..done].iter().enumerate() {
                if bytes > 16 * LARGEST_PAGE {
                    done = at;
                    break;
                }
                if let Some(item) = rows.rows.get(place) {
                    bytes += size(item);
                    items.push(item.clone());
                }
            }
            Ok(Batch { items, unprocessed: keys[done..].to_vec() })
        })
        .await
    }

    async fn put(&self, table: &str, item: Item, condition: RowCondition) -> Result<bool, LedgerError> {
        let subject = self.tables().get(table).map(|rows| shown(&rows.key_of(&item, None))).unwrap_or_default();
        self.request("PutItem", table, subject, |rows, _| {
            let place = rows.place(&item)?;
            if size(&item) > LARGEST_ITEM {
                return Err("item size has exceeded the maximum allowed size".to_owned());
            }
            let before = rows.rows.get(&place);
            let holds = match condition {
                RowCondition::Absent(_) => before.is_none(),
                RowCondition::Revision(revision) => {
                    before.and_then(|row| row.get("revision")) == Some(&AttributeValue::N(revision.to_string()))
                }
            };
            if holds {
                rows.write(place, item.clone());
            }
            Ok(holds)
        })
        .await
    }

    async fn write_batch(&self, table: &str, writes: &[Write]) -> Result<Vec<WriteOutcome>, LedgerError> {
        self.request("BatchExecuteStatement", table, String::new(), |rows, request| {
            let place = |write: &Write| match write {
                Write::Insert(item) => rows.place(item),
                Write::Update { key, .. } => rows.place(key),
            };
            let places = writes.iter().map(place).collect::<Result<Vec<_>, _>>()?;
            if writes.is_empty() || writes.len() > WRITES_AT_ONCE {
                return Err(format!("{} statements", writes.len()));
            }
            if places.iter().collect::<HashSet<_>>().len() < writes.len() {
                return Err("two statements on one row".to_owned());
            }
            let done = writes.len().saturating_sub(self.network.unprocessed(request, writes.len()));
            let mut written = Vec::with_capacity(writes.len());
            for (write, place) in writes[..done].iter().zip(places) {
                let before = rows.rows.get(&place);
                let after = match (write, before) {
                    (Write::Insert(item), None) => item.clone(),
                    // As the service does: it names the duplicate, and does not show it.
                    (Write::Insert(_), Some(_)) | (Write::Update { .. }, None) => {
                        written.push(WriteOutcome::Refused(None));
                        continue;
                    }
                    (Write::Update { only_if, set, remove, .. }, Some(before)) => {
                        if only_if.iter().any(|(name, value)| before.get(name) != Some(value)) {
                            written.push(WriteOutcome::Refused(Some(before.clone())));
                            continue;
                        }
                        let mut after = before.clone();
                        after.extend(set.clone());
                        after.retain(|name, _| !remove.contains(name));
                        after
                    }
                };
                if size(&after) > LARGEST_ITEM {
                    return Err("item size has exceeded the maximum allowed size".to_owned());
                }
                rows.write(place, after);
                written.push(WriteOutcome::Done);
            }
            written.resize(writes.len(), WriteOutcome::Unprocessed);
            Ok(written)
        })
        .await
    }

    async fn replace(
        &self,
        table: &str,
        item: Item,
        _partition: &'static str,
        replaced: Item,
        revision: u64,
    ) -> Result<bool, LedgerError> {
        self.request("TransactWriteItems", table, shown(&replaced), |rows, _| {
            let (place, before) = (rows.place(&item)?, rows.place(&replaced)?);
            if place == before {
                return Err("two operations on one row".to_owned());
            }
            if size(&item) > LARGEST_ITEM {
                return Err("item size has exceeded the maximum allowed size".to_owned());
            }
            let found = rows.rows.get(&before).and_then(|row| row.get("revision"));
            let holds = found == Some(&AttributeValue::N(revision.to_string())) && !rows.rows.contains_key(&place);
            if holds {
                let row = rows.rows.remove(&before);
                rows.changes.push((before, row));
                rows.write(place, item.clone());
            }
            Ok(holds)
        })
        .await
    }

    async fn query(&self, table: &str, query: &Query<'_>, after: Option<Item>) -> Result<Page, LedgerError> {
        let subject = format!("/{}", query.partition.1);
        self.request("Query", table, subject, |rows, request| {
            let (attribute, value) = query.partition;
            let unknown = |name: &str| format!("the table does not have the specified index: {name}");
            let index = query.index.map(|name| rows.indices.get(name).ok_or_else(|| unknown(name))).transpose()?;
            let (partition, sort) = match index {
                Some(index) => (&index.partition, Some(&index.sort)),
                None => (&rows.partition, rows.sort.as_ref()),
            };
            if attribute != partition {
                return Err(format!("query condition missed key schema element: {partition}"));
            }
            let lag = if index.is_some() { self.network.lag(request) } else { 0 };
            let seen = if lag > 0 { Some(rows.before(lag)) } else { None };
            let is_here = |item: &&Item| text(item, partition) == Some(value);
            // A row without the sort attribute is not in the index.
            let is_indexed = |item: &&Item| index.is_none_or(|index| text(item, &index.sort).is_some());
            let found = seen.as_ref().unwrap_or(&rows.rows).values().filter(is_here).filter(is_indexed);
            let mut found: Vec<&Item> = found.collect();
            found.sort_by_key(|item| sort.and_then(|sort| text(item, sort)));
            let Cut { mut items, last } = rows.page(found, (index, sort), after.as_ref(), query.limit);
            items.retain(|item| query.filter.is_none_or(|(name, value)| text(item, name) == Some(value)));
            let count = items.len() as u64;
            Ok(Page { items: if query.only_count { Vec::new() } else { items }, count, last })
        })
        .await
    }

    async fn scan(&self, table: &str, after: Option<Item>) -> Result<Page, LedgerError> {
        self.request("Scan", table, String::new(), |rows, _| {
            let Cut { items, last } = rows.page(rows.rows.values().collect(), (None, None), after.as_ref(), None);
            Ok(Page { count: items.len() as u64, items, last })
        })
        .await
    }

    async fn wait(&self, time: Duration) {
        self.network.wait(time).await;
    }
}

fn hash(partition: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    partition.hash(&mut hasher);
    hasher.finish()
}

fn text<'a>(item: &'a Item, attribute: &str) -> Option<&'a str> {
    item.get(attribute)?.as_s().ok().map(String::as_str)
}

/// A key as a request's subject shows it.
fn shown(key: &Item) -> String {
    let mut parts: Vec<_> = key.iter().collect();
    parts.sort_by_key(|(name, _)| name.as_str());
    parts.into_iter().filter_map(|(_, value)| value.as_s().ok()).map(|value| format!("/{value}")).collect()
}

/// What the service counts: names and values in UTF-8.
fn size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of(value)).sum()
}

fn size_of(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.len(),
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(texts) | AttributeValue::Ns(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::L(values) => 3 + values.iter().map(|value| 1 + size_of(value)).sum::<usize>(),
        AttributeValue::M(values) => {
            3 + values.iter().map(|(name, value)| 1 + name.len() + size_of(value)).sum::<usize>()
        }
        _ => 1,
    }
}

fn invalid(operation: &'static str, table: &str, what: String) -> LedgerError {
    let message = format!("ValidationException: {what}");
    LedgerError::Unavailable { operation, table: table.to_owned(), source: message.clone().into(), message }
}
