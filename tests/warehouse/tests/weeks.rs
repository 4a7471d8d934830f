//! Weeks of tables made by chance, without a database: after the builds of each week the warehouse holds what one build
//! over the same JSON lines makes, whatever died on the way; and tables stay where they are while nothing changes them.
//! `ALERT_ARCHIVE_WEEK_SEEDS=1000..2000` takes other seeds.

use network::{Answer, Calm, Network, Request};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};
use storage::MemoryObjects;
use warehouse_state::{BuildState, BuiltObject, SourceState, TableState};
use warehouse_tests::{
    faults::{disturbed, killed},
    reader::Row,
    world::{INGESTION, WAREHOUSE, World},
};

const SCHEMA: &str = "\
version: 1
tables:
  customer: {source: objects, key: id, cursor: at, columns: {id: integer, name: text, city: text, at: timestamptz}}
  product:
    source: objects
    key: sku
    cursor: at
    soft_delete: gone
    columns: {sku: text, title: text, gone: boolean, at: timestamptz}
  sale:
    source: objects
    key: id
    cursor: at
    columns: {id: bigint, customer: bigint, sku: text, amount: \"decimal(9,2)\", at: timestamptz}
  visit: {source: objects, key: id, cursor: at, columns: {id: bigint, customer: bigint, at: timestamptz}}
dimensions:
  customer: {from: customer, type1: [name], type2: [city]}
  product: {from: product, type1: [title]}
date_dimension: {from: 2024-01-01, to: 2024-12-31}
facts:
  sale:
    from: sale
    as_of: at
    dimensions: {customer: customer, product: sku}
    dates: {sold: at}
    columns: [amount]
  visit: {from: visit, as_of: at, dimensions: {customer: customer}}
";
/// Files that are in force for some weeks, each by what it puts in the place of a part of [`SCHEMA`].
const FILES: [(&str, &str); 4] = [
    ("version: 1", "# It says what the first one says.\nversion: 1"),
    ("type1: [name], type2: [city]", "type1: [city], type2: [name]"),
    ("columns: [amount]", "columns: []"),
    ("decimal(9,2)", "decimal(12,3)"),
];
const WEEKS: u32 = 8;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("ALERT_ARCHIVE_WEEK_SEEDS") else { return 0..60 };
    let (from, to) = text.split_once("..").expect("seeds are given as 100..200");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Objects by chance.
struct Source {
    rng: ChaCha8Rng,
    /// The last id of each table.
    ids: BTreeMap<&'static str, u32>,
    /// Where each customer lives: most changes are of other columns.
    cities: BTreeMap<u32, u32>,
    /// What has not landed yet.
    late: Vec<(String, String)>,
}

impl Source {
    fn line(&mut self, table: &str, week: u32) -> String {
        let rng = &mut self.rng;
        // Two changes within a second are frequent, and so are facts older than their members.
        let at = format!("2024-01-{:02}T00:00:{:02}Z", 1 + week, rng.random_range(0..20));
        let day = rng.random_range(1..=28);
        let id = rng.random_range(1..6 + 2 * week);
        let sku = format!("s{}", rng.random_range(1..8));
        if rng.random_bool(0.03) {
            return "{\"id\":".to_owned();
        }
        if rng.random_bool(0.1) {
            return json!({"id": id, "sku": sku, "_deleted": true, "_deleted_at": at}).to_string();
        }
        let some_customer = if rng.random_bool(0.1) { None } else { Some(rng.random_range(1..14)) };
        let row = match table {
            "customer" => {
                let moves = rng.random_bool(0.15);
                let new = rng.random_range(1..4);
                let city = self.cities.entry(id).or_insert(new);
                *city = if moves { new } else { *city };
                json!({"id": id, "name": format!("n{day}"), "city": format!("c{city}"), "at": at})
            }
            "product" => json!({"sku": sku, "title": format!("t{day}"), "gone": rng.random_bool(0.2), "at": at}),
            "sale" => {
                let amount = rng.random_range(-9_999..99_999);
                // With three places it only fits a later file.
                let amount = format!("{}.{:0width$}", amount, 5, width = rng.random_range(1..4));
                json!({"id": id, "customer": some_customer, "sku": sku, "amount": amount,
                       "at": format!("2024-01-{day:02}T00:00:00Z")})
            }
            _ => json!({"id": id, "customer": some_customer, "at": format!("2024-01-{day:02}T00:00:00Z")}),
        };
        row.to_string()
    }

    /// What lands in a week: new objects, late ones, and some that were put again with other lines.
    fn week(&mut self, week: u32, landed: &[String]) -> Vec<(String, String)> {
        let mut objects = Vec::new();
        for (table, often) in [("customer", 0.6), ("product", 0.4), ("sale", 0.3), ("visit", 0.3)] {
            if week > 0 && !self.rng.random_bool(often) {
                continue;
            }
            let id = *self.ids.entry(table).and_modify(|id| *id += 1).or_insert(1);
            let key = format!("{table}/202401{:02}T000000.000000Z-{id:010}.jsonl", 1 + week);
            let lines = (0..self.rng.random_range(1..7)).map(|_| self.line(table, week)).collect::<Vec<_>>();
            objects.push((key, lines.join("\n") + "\n"));
        }
        let is_late = |rng: &mut ChaCha8Rng| rng.random_bool(0.2);
        let (late, mut now): (Vec<_>, Vec<_>) = objects.into_iter().partition(|_| is_late(&mut self.rng));
        let (land, still) = self.late.drain(..).partition(|_| self.rng.random_bool(0.5));
        self.late = still;
        self.late.extend(late);
        now.extend::<Vec<_>>(land);
        if self.rng.random_bool(0.15)
            && let Some(key) = landed.choose(&mut self.rng).cloned()
        {
            // Longer than any that is there, so that the list alone tells of it.
            let table = key.split('/').next().unwrap_or_default().to_owned();
            let lines: Vec<String> = (0..8 + week).map(|_| self.line(&table, week)).collect();
            now.push((key, lines.join("\n") + &" ".repeat(600)));
        }
        now
    }
}

struct Made {
    tables: BTreeMap<String, Vec<Row>>,
    state: BuildState,
    quarantined: BTreeSet<String>,
}

/// The tables of one build over all that lies in the ingestion bucket, and its state.
async fn made_at_once(world: &World, schema: &str) -> Made {
    let mut other = World::new(String::new());
    other.segment_bytes = 1 << 30;
    other.apply(schema).await;
    for (key, body) in world.objects.contents(INGESTION) {
        other.put(INGESTION, &key, std::str::from_utf8(&body).expect("text")).await;
    }
    other.build(Calm::shared()).await.expect("a build");
    let state = other.state().await;
    Made { tables: sorted(other.read().await), quarantined: quarantined(&other, &state), state }
}

fn sorted(mut tables: BTreeMap<String, Vec<Row>>) -> BTreeMap<String, Vec<Row>> {
    tables.values_mut().for_each(|rows| rows.sort());
    tables
}

/// Without places and segments, which depend on the builds that went before.
fn figures(state: &BuildState) -> (&str, Vec<SourceState>, Vec<TableState>) {
    let table =
        |table: &TableState| TableState { prefix: String::new(), members: None, parts: Vec::new(), ..table.clone() };
    let object = |object: &BuiltObject| BuiltObject { number: 0, ..object.clone() };
    let source = |source: &SourceState| SourceState {
        objects: source.objects.iter().map(object).collect(),
        quarantine: Vec::new(),
        lines: None,
        ..source.clone()
    };
    let sources = state.sources.values().map(source).collect();
    (&state.schema, sources, state.tables.values().map(table).collect())
}

/// Lines in quarantine, as long as they are those of the state.
fn quarantined(world: &World, state: &BuildState) -> BTreeSet<String> {
    let contents = world.objects.contents(WAREHOUSE);
    let keys = state.sources.values().flat_map(|source| &source.quarantine);
    let lines = keys.flat_map(|key| std::str::from_utf8(&contents[key]).expect("text").lines().map(str::to_owned));
    lines.collect()
}

/// How often something came about without which a test would not see much.
#[derive(Default)]
struct Seen {
    /// A fact stayed where it was while a dimension of it was made.
    stayed: u32,
    /// A part of a table was copied instead of made.
    copied: u32,
    /// Lines came to a source of which only some segments were read.
    extended: u32,
}

async fn play(seed: u64, seen: &mut Seen) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut source = Source {
        rng: ChaCha8Rng::seed_from_u64(rng.random()),
        ids: BTreeMap::new(),
        cities: BTreeMap::new(),
        late: Vec::new(),
    };
    let mut world = World::new(String::new());
    world.segment_bytes = rng.random_range(100..3_000);
    let (mut schema, mut landed) = (SCHEMA.to_owned(), BTreeSet::new());
    let mut before: Option<BuildState> = None;
    for week in 0..WEEKS {
        if week == 0 || rng.random_bool(0.15) {
            let (old, new) = FILES.choose(&mut rng).expect("a file");
            schema = SCHEMA.replace(old, new);
            world.apply(&schema).await;
        }
        for (key, body) in source.week(week, &landed.iter().cloned().collect::<Vec<_>>()) {
            world.put(INGESTION, &key, &body).await;
            landed.insert(key);
        }
        if rng.random_bool(0.05) {
            world.ask_for_a_rebuild("{}").await;
        }
        for _ in 0..rng.random_range(0..3) {
            if rng.random_bool(0.5) {
                killed(&world, &mut rng, async |network| world.build(network).await).await;
            } else {
                disturbed(&world, &mut rng, async |network| world.build(network).await).await;
            }
        }
        let copies = Arc::new(Copies::default());
        world.build(copies.clone()).await.expect("a build");
        seen.copied += copies.0.load(Ordering::Relaxed);
        let state = world.state().await;
        let made = made_at_once(&world, &schema).await;
        assert_eq!(sorted(world.read().await), made.tables, "seed {seed}, week {week}");
        assert_eq!(figures(&state), figures(&made.state), "seed {seed}, week {week}");
        assert_eq!(quarantined(&world, &state), made.quarantined, "seed {seed}, week {week}");
        if let Some(before) = before.replace(state.clone()) {
            let moved = |name: &str| before.tables[name].prefix != state.tables[name].prefix;
            seen.stayed += u32::from(moved("dim_customer") && !moved("fact_visit"));
            for (name, after) in &state.sources {
                let segments = |state: &SourceState| -> BTreeSet<String> {
                    let lines = state.lines.iter().flat_map(|lines| &lines.segments);
                    lines.map(|segment| segment.key.clone()).collect()
                };
                let (old, new) = (segments(&before.sources[name]), segments(after));
                seen.extended += u32::from(old != new && old.intersection(&new).next().is_some());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_each_week_the_tables_are_those_of_one_build_over_all_lines() {
    let mut seen = Seen::default();
    for seed in seeds() {
        play(seed, &mut seen).await;
    }
    eprintln!("stayed {}, copied {}, extended {}", seen.stayed, seen.copied, seen.extended);
    assert!(seen.stayed > 0, "no fact stayed while its dimension was made");
    assert!(seen.copied > 0, "no part of a table was copied");
    assert!(seen.extended > 0, "no segment was left unread");
}

/// Counts objects that are copied.
#[derive(Default)]
struct Copies(AtomicU32);

#[async_trait::async_trait]
impl Network for Copies {
    async fn answered(&self, request: &Request) -> Answer {
        self.0.fetch_add(u32::from(request.operation == "CopyObject"), Ordering::Relaxed);
        Answer::Arrives
    }
}

/// Counts objects and bytes that are read, by the first part of their keys, or the first two of `_state`.
struct Reads {
    objects: MemoryObjects,
    found: Mutex<BTreeMap<String, (u64, u64)>>,
}

#[async_trait::async_trait]
impl Network for Reads {
    async fn answered(&self, request: &Request) -> Answer {
        if request.operation == "GetObject"
            && let Some((bucket, key)) = request.subject.split_once('/')
            && let Some(body) = self.objects.contents(bucket).get(key)
        {
            let parts = if key.starts_with("_state/") { 2 } else { 1 };
            let name = format!("{bucket}/{}", key.split('/').take(parts).collect::<Vec<_>>().join("/"));
            let mut found = self.found.lock().expect("lock");
            let (objects, bytes) = found.entry(name).or_default();
            *objects += 1;
            *bytes += body.len() as u64;
        }
        Answer::Arrives
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_members_are_only_renamed_no_line_of_a_fact_is_read() {
    let world = World::new(String::new());
    world.apply(SCHEMA).await;
    let at = "2024-01-01T00:00:00Z";
    let sales = (1..=2_000).map(|id| json!({"id": id, "customer": id % 100, "sku": "s", "amount": 1, "at": at}));
    let sales: Vec<String> = sales.map(|sale| sale.to_string()).collect();
    world.put(INGESTION, "sale/20240101T000000.000000Z-0000000001.jsonl", &sales.join("\n")).await;
    let mut read = Vec::new();
    for load in 1..=10 {
        let names = (0..100).map(|id| json!({"id": id, "name": format!("n{load}"), "city": "c", "at": at}).to_string());
        let key = format!("customer/20240101T000000.000000Z-{load:010}.jsonl");
        world.put(INGESTION, &key, &names.collect::<Vec<_>>().join("\n")).await;
        let reads = Arc::new(Reads { objects: world.objects.clone(), found: Mutex::default() });
        world.build(reads.clone()).await.expect("a build");
        read.push(std::mem::take(&mut *reads.found.lock().expect("lock")));
    }
    let sales: Vec<u64> =
        read.iter().map(|found| found.get("ingestion/sale").map_or(0, |(objects, _)| *objects)).collect();
    assert_eq!(sales, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], "{read:?}");
    let customers =
        world.read().await["dim_customer"].iter().filter(|row| row["name"].as_deref() == Some("n10")).count();
    assert_eq!(customers, 100);
}

/// What the loads of a star read: objects and bytes of lines, in JSON and as they are stored.
async fn reads_of_loads(loads: u32, load: impl Fn(u32) -> Vec<(&'static str, Vec<String>)>) -> Vec<(u64, u64)> {
    let mut world = World::new(String::new());
    world.segment_bytes = 20_000;
    world.apply(SCHEMA).await;
    let mut read = Vec::new();
    for number in 0..=loads {
        for (table, lines) in load(number) {
            let key = format!("{table}/20240101T000000.000000Z-{:010}.jsonl", number + 1);
            world.put(INGESTION, &key, &lines.join("\n")).await;
        }
        let reads = Arc::new(Reads { objects: world.objects.clone(), found: Mutex::default() });
        world.build(reads.clone()).await.expect("a build");
        let found = std::mem::take(&mut *reads.found.lock().expect("lock"));
        let lines = found.into_iter().filter(|(name, _)| name.starts_with("ingestion") || name.ends_with("/lines"));
        read.push(lines.fold((0, 0), |sum, (_, found)| (sum.0 + found.0, sum.1 + found.1)));
    }
    read
}

fn sales(ids: Range<u32>, day: u32) -> Vec<String> {
    let at = format!("2024-01-{:02}T00:00:00Z", 1 + day % 28);
    ids.map(|id| json!({"id": id, "customer": id % 90, "sku": "s", "amount": id, "at": at}).to_string()).collect()
}

fn customers(ids: Range<u32>, name: u32) -> Vec<String> {
    let customer = |id| json!({"id": id, "name": format!("n{name}"), "city": "c", "at": "2024-01-01T00:00:00Z"});
    ids.map(|id| customer(id).to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_new_keys_reads_no_more_after_many_loads_than_after_few() {
    let facts = reads_of_loads(60, |load| match load {
        0 => vec![("customer", customers(0..100, 0)), ("sale", sales(0..2_000, 0))],
        _ => vec![("sale", sales(2_000 + load * 100..2_100 + load * 100, load))],
    });
    let both = reads_of_loads(60, |load| match load {
        0 => vec![("customer", customers(0..100, 0)), ("sale", sales(0..2_000, 0))],
        _ => {
            let members = customers(100 + load * 10..110 + load * 10, 0);
            vec![("customer", members), ("sale", sales(2_000 + load * 100..2_100 + load * 100, load))]
        }
    });
    for (what, read) in [("100 facts", facts.await), ("100 facts and 10 new members", both.await)] {
        eprintln!("{what}: first {:?}, 10th {:?}, 50th {:?}", read[1], read[10], read[50]);
        // A load that finds its last segment nearly full reads more than one that begins the next: averages.
        let bytes = |loads: Range<usize>| read[loads].iter().map(|(_, bytes)| bytes).sum::<u64>();
        // Of every segment the index is read, some bytes a key.
        assert!(bytes(41..61) < 2 * bytes(1..21), "{what}: {read:?}");
    }
}
