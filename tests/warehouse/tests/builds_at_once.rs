//! Builds side by side, in every order that chance makes of their requests, with lost answers, deaths, events that come
//! twice, late or in the wrong order, new files and requests. Time and order follow from the seed alone.
//! `ALERT_ARCHIVE_BUILD_SEEDS=1000..2000` takes other seeds.

use async_trait::async_trait;
use build_warehouse::Event;
use jiff::{SignedDuration, Timestamp};
use network::{Answer, Broken, Calm, Network, Request};
use parameters::MemoryParameters;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use runtime::{Call, Clock};
use serde_json::json;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use storage::{MemoryObjects, MemoryTables, Objects, Table, sha256_hex};
use tokio::sync::Notify;
use warehouse_state::{BuildState, REQUESTS, SCHEMA_KEY, Warehouse, manifest_key, request_key};
use warehouse_tests::reader::{Row, rows};

const SCHEMA: &str = "\
version: 1
tables:
  member: {source: objects, key: id, cursor: at, columns: {id: integer, name: text, city: text, at: timestamptz}}
  event: {source: objects, key: id, cursor: at, columns: {id: bigint, member: bigint, at: timestamptz}}
dimensions: {member: {from: member, type1: [name], type2: [city]}}
facts:
  event: {from: event, as_of: at, dimensions: {member: member}, columns: [at]}
";

/// How long readers may go on with what they have found.
const STAYS: Duration = Duration::from_secs(600);

/// So small that a table has several.
const SEGMENT_BYTES: u64 = 150;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("ALERT_ARCHIVE_BUILD_SEEDS") else { return 0..300 };
    let (from, to) = text.split_once("..").expect("seeds are given as 100..200");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Time passes while a call waits for it.
#[derive(Default)]
struct SimulatedClock(AtomicU64);

const TICK_MILLIS: u64 = 20;

#[async_trait]
impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::try_from(self.elapsed()).expect("time")
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    async fn sleep(&self, time: Duration) {
        let until = self.elapsed() + time;
        while self.elapsed() < until {
            self.0.fetch_add(TICK_MILLIS, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    }
}

/// Lets others go on at each request, and loses some; ends its caller at the request that it is told.
struct Chance {
    rng: Mutex<ChaCha8Rng>,
    faults: f64,
    left: AtomicUsize,
    died: Notify,
}

impl Chance {
    async fn pass(&self) -> f64 {
        let (yields, draw) = {
            let mut rng = self.rng.lock().expect("lock");
            (rng.random_range(0..4), rng.random())
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        draw
    }
}

#[async_trait]
impl Network for Chance {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        if self.pass().await < self.faults { Err(Broken) } else { Ok(()) }
    }

    async fn answered(&self, _: &Request) -> Answer {
        match self.pass().await {
            draw if draw < self.faults => Answer::IsLost,
            draw if draw < 2.0 * self.faults => Answer::IsLostAndRetried,
            _ => Answer::Arrives,
        }
    }
}

struct World {
    objects: MemoryObjects,
    tables: MemoryTables,
    clock: Arc<SimulatedClock>,
    /// Bodies of messages that wait in the queue.
    queue: RefCell<VecDeque<String>>,
    /// Calls that are at work, and whether anything is still to land.
    busy: Cell<usize>,
    landing: Cell<bool>,
}

impl World {
    fn new() -> World {
        let objects = MemoryObjects::new(Calm::shared()).bucket("ingestion").bucket("warehouse").bucket("archive");
        World {
            objects,
            tables: MemoryTables::new(Calm::shared()).table("rows", "name", None),
            clock: Arc::default(),
            queue: RefCell::default(),
            busy: Cell::new(0),
            landing: Cell::new(true),
        }
    }

    fn deps(&self, network: Arc<dyn Network>) -> build_warehouse::Deps {
        let (objects, tables) = (self.objects.through(network.clone()), self.tables.through(network));
        build_warehouse::Deps {
            ingestion: Objects::over(objects.clone(), "ingestion"),
            warehouse: Objects::over(objects.clone(), "warehouse"),
            archive: Objects::over(objects, "archive"),
            feeds: None,
            rows: Warehouse::new(Table::over(tables.clone(), "rows"), Table::over(tables, "rows")),
            parameters: Arc::new(MemoryParameters::default()),
            parameter_prefix: "/test".into(),
            segment_bytes: SEGMENT_BYTES,
        }
    }

    fn call(&self) -> Call {
        Call::new(self.clock.clone(), Duration::from_secs(900))
    }

    /// Puts an object, and a message about it into the queue.
    async fn put(&self, bucket: &str, key: &str, body: &str) {
        let objects = Objects::over(self.objects.clone(), bucket);
        objects.put(key, body.to_owned().into_bytes(), "text/plain").await.expect("put");
        let tag = &sha256_hex(body.as_bytes())[..32];
        let object = json!({"key": key, "size": body.len(), "eTag": tag, "sequencer": "00"});
        let record = json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
            "eventTime": "2024-01-01T00:00:00Z", "s3": {"bucket": {"name": bucket}, "object": object},
        });
        self.queue.borrow_mut().push_back(json!({"Records": [record]}).to_string());
    }

    async fn state(&self) -> Option<BuildState> {
        let deps = self.deps(Calm::shared());
        let key = deps.rows.build().await.expect("row")?.state?;
        Some(deps.warehouse.get_lines(&key).await.expect("the state in force").pop().expect("state"))
    }

    /// The rows of every table of a state.
    fn read(&self, state: &BuildState) -> BTreeMap<String, Vec<Row>> {
        let contents = self.objects.contents("warehouse");
        let table = |(name, table): (&String, &warehouse_state::TableState)| {
            let parts = contents.iter().filter(|(key, _)| key.starts_with(&table.prefix));
            let mut found: Vec<Row> = parts.flat_map(|(_, body)| rows(body.clone())).collect();
            assert_eq!(found.len() as u64, table.rows, "{} is whole", table.prefix);
            found.sort();
            (name.clone(), found)
        };
        state.tables.iter().map(table).collect()
    }
}

/// Whether each fact refers to members that are there.
fn check_references(tables: &BTreeMap<String, Vec<Row>>) {
    let keys = |table: &str| -> BTreeSet<Option<String>> {
        tables.get(table).into_iter().flatten().map(|row| row["member_key"].clone()).collect()
    };
    let missing: Vec<_> = keys("fact_event").difference(&keys("dim_member")).cloned().collect();
    assert_eq!(missing, [], "members that facts refer to");
}

/// Objects with lines: each key's newest content, whatever was put before.
fn objects(rng: &mut ChaCha8Rng) -> Vec<(String, String)> {
    let mut objects = Vec::new();
    for (table, key) in [("member", "city"), ("event", "member")] {
        for id in 1..=rng.random_range(2..7_u32) {
            let mut body = String::new();
            for _ in 0..rng.random_range(1..4) {
                let (key_value, value, second) =
                    (rng.random_range(1..5), rng.random_range(1..5), rng.random_range(10..60));
                let line = if rng.random_bool(0.15) {
                    json!({"id": key_value, "_deleted": true, "_deleted_at": format!("2024-01-01T00:00:{second}Z")})
                } else {
                    let value = if table == "member" { json!(format!("c{value}")) } else { json!(value) };
                    json!({"id": key_value, "name": format!("n{second}"), key: value, "at": format!("2024-01-01T00:00:{second}Z")})
                };
                body += &format!("{line}\n");
            }
            objects.push((format!("{table}/20240101T0000{:02}.000000Z-{id:010}.jsonl", 60 - id), body));
        }
    }
    objects
}

/// Everything that lands, in the order in which it does: some objects twice, some with other content before.
async fn land(world: &World, mut rng: ChaCha8Rng, objects: &[(String, String)]) {
    let mut order: Vec<&(String, String)> = objects.iter().collect();
    order.shuffle(&mut rng);
    for (key, body) in order {
        if rng.random_bool(0.1) {
            world.put("ingestion", key, &body.replace("c1", "c9")).await;
            world.clock.sleep(Duration::from_secs(rng.random_range(0..60))).await;
        }
        world.put("ingestion", key, body).await;
        if rng.random_bool(0.2) {
            let again = world.queue.borrow().back().cloned();
            world.queue.borrow_mut().extend(again);
        }
        match rng.random_range(0..10) {
            0 => world.put("warehouse", &request_key(key.rsplit('/').next().unwrap_or_default()), "{}").await,
            1 => {
                world.put("warehouse", SCHEMA_KEY, &SCHEMA.replace("type2: [city]", "type2: []")).await;
                world.clock.sleep(Duration::from_secs(rng.random_range(0..60))).await;
                world.put("warehouse", SCHEMA_KEY, SCHEMA).await;
            }
            _ => {}
        }
        world.clock.sleep(Duration::from_secs(rng.random_range(0..240))).await;
    }
    world.landing.set(false);
}

/// Takes messages from the queue; those of a call that fails or dies come again.
async fn work(world: &World, mut rng: ChaCha8Rng) {
    loop {
        let mut batch: Vec<String> = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            let mut queue = world.queue.borrow_mut();
            let at = rng.random_range(0..queue.len().max(1));
            batch.extend(queue.remove(at));
        }
        if batch.is_empty() {
            if !world.landing.get() && world.busy.get() == 0 {
                return;
            }
            world.clock.sleep(Duration::from_secs(1)).await;
            continue;
        }
        world.busy.set(world.busy.get() + 1);
        let dies = rng.random_bool(0.3);
        let network = Arc::new(Chance {
            faults: if rng.random_bool(0.3) { 0.01 } else { 0.0 },
            left: AtomicUsize::new(if dies { rng.random_range(0..150) } else { usize::MAX }),
            rng: Mutex::new(ChaCha8Rng::seed_from_u64(rng.random())),
            died: Notify::new(),
        });
        let messages: Vec<_> = batch.iter().map(|body| json!({"body": body})).collect();
        let event: Event = serde_json::from_value(json!({"Records": messages})).expect("an event");
        let deps = world.deps(network.clone());
        let well = tokio::select! {
            biased;
            done = build_warehouse::handle(&deps, event, world.call()) => done.is_ok(),
            _ = network.died.notified() => false,
        };
        if !well {
            world.queue.borrow_mut().extend(batch);
        }
        world.busy.set(world.busy.get() - 1);
    }
}

/// Looks at the tables again and again; what it found once stays as long as the contract says.
async fn look(world: &World, mut rng: ChaCha8Rng) {
    while world.landing.get() || world.busy.get() > 0 || !world.queue.borrow().is_empty() {
        if let Some(state) = world.state().await {
            let found = world.read(&state);
            check_references(&found);
            world.clock.sleep(STAYS.mul_f64(rng.random())).await;
            assert_eq!(world.read(&state), found, "a location stays as it is");
        }
        world.clock.sleep(Duration::from_secs(rng.random_range(1..90))).await;
    }
}

async fn play(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let objects = objects(&mut rng);
    let alone = World::new();
    let world = World::new();
    for of in [&alone, &world] {
        of.put("warehouse", SCHEMA_KEY, SCHEMA).await;
    }
    for (key, body) in &objects {
        alone.put("ingestion", key, body).await;
    }
    build_warehouse::handle(&alone.deps(Calm::shared()), Event::default(), alone.call()).await.expect("a build");
    let expected = alone.read(&alone.state().await.expect("state"));

    let mut fork = || ChaCha8Rng::seed_from_u64(rng.random());
    let (landing, one, two, three, looking) = (fork(), fork(), fork(), fork(), fork());
    tokio::join!(
        land(&world, landing, &objects),
        work(&world, one),
        work(&world, two),
        work(&world, three),
        look(&world, looking)
    );
    let state = world.state().await.expect("state");
    assert_eq!(world.read(&state), expected, "all that landed is built");
    assert!(!world.objects.contents("warehouse").keys().any(|key| key.starts_with(REQUESTS)), "a request is left");

    // Once no reader may have them open any more, only the tables in force are left.
    world.clock.sleep(Duration::from_secs(3600)).await;
    for request in ["z1", "z2"] {
        world.put("warehouse", &request_key(request), "{}").await;
        build_warehouse::handle(&world.deps(Calm::shared()), Event::default(), world.call()).await.expect("a build");
        world.clock.sleep(Duration::from_secs(3600)).await;
    }
    let state = world.state().await.expect("state");
    assert_eq!(world.read(&state), expected, "after rebuilds");
    let prefixes =
        state.tables.values().map(|table| &table.prefix).chain(state.superseded.iter().map(|old| &old.prefix));
    let kept: Vec<&String> = prefixes.collect();
    let contents = world.objects.contents("warehouse");
    for (name, table) in &state.tables {
        let manifest = String::from_utf8(contents[&manifest_key(name)].to_vec()).expect("text");
        let parts = contents.keys().filter(|key| key.starts_with(&table.prefix));
        let expected: String = parts.map(|key| format!("s3://warehouse/{key}\n")).collect();
        assert_eq!(manifest, expected, "the manifest of {name}");
    }
    let left = contents.keys().filter(|key| ["dim_", "fact_"].iter().any(|start| key.starts_with(start)));
    let left: Vec<_> = left.filter(|key| !kept.iter().any(|prefix| key.starts_with(*prefix))).collect();
    assert!(left.is_empty(), "{left:?} belong to no table");
}

#[test]
fn builds_at_once_that_die_and_are_repeated_end_with_the_tables_of_one_build() {
    for seed in seeds() {
        // One thread and no timer: the order follows from the seed.
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        eprintln!("seed {seed}");
        runtime.block_on(play(seed));
    }
}
