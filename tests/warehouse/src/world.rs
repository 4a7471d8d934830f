//! Stores in memory, a clock that runs on and can be moved, and both functions over them.

use crate::reader::{Row, rows};
use async_trait::async_trait;
use build_warehouse::Event;
use bytes::Bytes;
use ingest_tables::{Database, Place, Request, Response, Secrets};
use jiff::{SignedDuration, Timestamp};
use network::{Calm, Network};
use parameters::MemoryParameters;
use runtime::{Call, Clock};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use storage::{MemoryObjects, MemoryTables, Objects, Table};
use warehouse_state::{BuildState, IngestRow, SCHEMA_KEY, Warehouse, request_key};

pub const INGESTION: &str = "ingestion";
pub const WAREHOUSE: &str = "warehouse";
pub const FEEDS: &str = "feeds";
pub const ARCHIVE: &str = "archive";

/// The system's clock, some time later.
pub struct LaterClock {
    began: Instant,
    ahead: Mutex<Duration>,
}

impl LaterClock {
    fn ahead(&self) -> Duration {
        *self.ahead.lock().expect("lock")
    }
}

#[async_trait]
impl Clock for LaterClock {
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::try_from(self.ahead()).expect("time")
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed() + self.ahead()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Texts of a secret, one for each time that it is read; the last one stays.
#[derive(Clone)]
struct Given(Arc<Mutex<VecDeque<String>>>);

#[async_trait]
impl Secrets for Given {
    async fn read(&self, _name: &str) -> Result<String, String> {
        let mut texts = self.0.lock().expect("lock");
        let next = if texts.len() > 1 { texts.pop_front() } else { texts.front().cloned() };
        next.ok_or_else(|| "there is no secret".to_owned())
    }
}

#[derive(Clone)]
pub struct World {
    pub objects: MemoryObjects,
    tables: MemoryTables,
    pub parameters: MemoryParameters,
    clock: Arc<LaterClock>,
    /// What the functions log in with, as JSON.
    secret: Given,
    /// Where the database is, for secrets that do not say it.
    pub place: Place,
    /// Key of the file with the authorities to be trusted.
    pub authorities: Option<String>,
    pub read_timeout: Duration,
    pub rows_per_second: u64,
    /// That a call may take.
    pub time: Duration,
    pub segment_bytes: u64,
    /// Of rows that are read before they are compared and written.
    pub spool_bytes: u64,
}

impl World {
    pub fn new(secret: String) -> World {
        let objects =
            MemoryObjects::new(Calm::shared()).bucket(INGESTION).bucket(WAREHOUSE).bucket(FEEDS).bucket(ARCHIVE);
        World {
            objects,
            tables: MemoryTables::new(Calm::shared()).table("rows", "name", None),
            parameters: MemoryParameters::default(),
            clock: Arc::new(LaterClock { began: Instant::now(), ahead: Mutex::default() }),
            secret: Given(Arc::new(Mutex::new([secret].into()))),
            place: Place::default(),
            authorities: None,
            read_timeout: Duration::from_secs(60),
            rows_per_second: 100_000,
            time: Duration::from_secs(120),
            // So small that a table has several.
            segment_bytes: 400,
            spool_bytes: ingest_tables::SPOOL_BYTES,
        }
    }

    /// From now on the secret reads so, one text after the other.
    pub fn rotate(&self, secrets: &[String]) {
        *self.secret.0.lock().expect("lock") = secrets.iter().cloned().collect();
    }

    /// So that the lease of an attempt that is dead is over.
    pub fn wait_for_leases(&self) {
        self.wait(Duration::from_secs(31));
    }

    pub fn wait(&self, time: Duration) {
        *self.clock.ahead.lock().expect("lock") += time;
    }

    pub fn call(&self) -> Call {
        Call::new(self.clock.clone(), self.time)
    }

    fn rows(&self, network: &Arc<dyn Network>) -> Warehouse {
        let tables = self.tables.through(network.clone());
        Warehouse::new(Table::over(tables.clone(), "rows"), Table::over(tables, "rows"))
    }

    pub async fn ingest(&self, network: Arc<dyn Network>, full: bool) -> Result<Response, ingest_tables::Error> {
        let objects = self.objects.through(network.clone());
        let mut database = Database::over(self.secret.clone(), "secret");
        database.place = self.place.clone();
        database.authorities = self.authorities.clone();
        database.read_timeout = self.read_timeout;
        database.rows_per_second = self.rows_per_second;
        let deps = ingest_tables::Deps {
            ingestion: Objects::over(objects.clone(), INGESTION),
            warehouse: Objects::over(objects.clone(), WAREHOUSE),
            archive: Objects::over(objects, ARCHIVE),
            rows: self.rows(&network),
            parameters: Arc::new(self.parameters.clone()),
            database,
            parameter_prefix: "/test".into(),
            spool_bytes: self.spool_bytes,
        };
        ingest_tables::handle(&deps, Request { tables: None, full }, self.call()).await
    }

    pub async fn build(&self, network: Arc<dyn Network>) -> Result<(), build_warehouse::Error> {
        let objects = self.objects.through(network.clone());
        let deps = build_warehouse::Deps {
            ingestion: Objects::over(objects.clone(), INGESTION),
            warehouse: Objects::over(objects.clone(), WAREHOUSE),
            archive: Objects::over(objects.clone(), ARCHIVE),
            feeds: Some(Objects::over(objects, FEEDS)),
            rows: self.rows(&network),
            parameters: Arc::new(self.parameters.clone()),
            parameter_prefix: "/test".into(),
            segment_bytes: self.segment_bytes,
        };
        build_warehouse::handle(&deps, Event::default(), self.call()).await.map(|_| ())
    }

    pub async fn apply(&self, schema: &str) {
        self.put(WAREHOUSE, SCHEMA_KEY, schema).await;
    }

    /// `request`: as `alert-archive warehouse rebuild` writes it.
    pub async fn ask_for_a_rebuild(&self, request: &str) {
        self.put(WAREHOUSE, &request_key("1"), request).await;
    }

    pub async fn put(&self, bucket: &str, key: &str, body: &str) {
        let objects = Objects::over(self.objects.clone(), bucket);
        objects.put(key, Bytes::from(body.to_owned()), "text/plain").await.expect("put");
    }

    /// What the ingests of a table have reached.
    pub async fn ingest_row(&self, table: &str) -> IngestRow {
        self.rows(&Calm::shared()).ingest(table).await.expect("row").expect("an ingest")
    }

    pub async fn state(&self) -> BuildState {
        let rows = self.rows(&Calm::shared());
        let key = rows.build().await.expect("row").expect("a build").state.expect("a state");
        let warehouse = Objects::over(self.objects.clone(), WAREHOUSE);
        warehouse.get_lines(&key).await.expect("state").pop().expect("state")
    }

    /// Every table in force.
    pub async fn read(&self) -> BTreeMap<String, Vec<Row>> {
        let (state, contents) = (self.state().await, self.objects.contents(WAREHOUSE));
        let table = |(name, table): (String, warehouse_state::TableState)| {
            let parts = contents.iter().filter(|(key, _)| key.starts_with(&table.prefix));
            let found: Vec<Row> = parts.flat_map(|(_, body)| rows(body.clone())).collect();
            assert_eq!(found.len() as u64, table.rows, "{name} has as many rows as its state says");
            (name, found)
        };
        state.tables.into_iter().map(table).collect()
    }

    /// Lines of a source table, each with its object's key, in the order of ids.
    pub fn lines(&self, table: &str) -> Vec<(String, String)> {
        let prefix = format!("{table}/");
        let contents = self.objects.contents(INGESTION);
        let mut objects: Vec<_> = contents.iter().filter(|(key, _)| key.starts_with(&prefix)).collect();
        objects.sort_by_key(|(key, _)| key.rsplit('-').next().map(str::to_owned));
        let lines = objects.into_iter().flat_map(|(key, body)| {
            let text = std::str::from_utf8(body).expect("UTF-8");
            text.lines().map(|line| (key.clone(), line.to_owned())).collect::<Vec<_>>()
        });
        lines.collect()
    }
}
