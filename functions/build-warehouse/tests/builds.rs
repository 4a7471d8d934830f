//! Builds without a cloud: whatever order objects land in, and whichever request fails, the tables are the same.

use build_warehouse::{Deps, Event, handle};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use network::{Broken, Calm, Network, OneFault, Request, Strike};
use parameters::MemoryParameters;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Row,
};
use runtime::{Call, ManualClock, SystemClock};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use storage::{MemoryObjects, MemoryTables, Objects, Table, sha256_hex};
use tokio::sync::Notify;
use warehouse_state::{BuildRow, BuildState, PAGE_KEY, SCHEMA_KEY, Warehouse, manifest_key, request_key};

const SCHEMA: &str = "\
version: 1
tables:
  member: {key: id, cursor: at, columns: {id: integer, name: text, city: text, at: timestamptz}}
  event: {key: id, cursor: at, columns: {id: bigint, member: bigint, amount: \"decimal(9,2)\", at: timestamptz}}
dimensions: {member: {from: member, type1: [name], type2: [city]}}
date_dimension: {from: 2024-01-01, to: 2024-01-31}
facts:
  event: {from: event, as_of: at, dimensions: {member: member}, dates: {day: at}, columns: [amount]}
";

/// So small that a table has several.
const SEGMENT_BYTES: u64 = 150;

struct World {
    objects: MemoryObjects,
    tables: MemoryTables,
}

impl World {
    async fn new() -> World {
        let objects = MemoryObjects::new(Calm::shared()).bucket("ingestion").bucket("warehouse").bucket("archive");
        let tables = MemoryTables::new(Calm::shared()).table("rows", "name", None);
        let world = World { objects, tables };
        world.put("warehouse", SCHEMA_KEY, SCHEMA).await;
        world
    }

    /// The same, so far: what one does from here on, the other does not see.
    fn copied(&self) -> World {
        World { objects: self.objects.copied(), tables: self.tables.copied() }
    }

    fn deps(&self, network: Arc<dyn Network>) -> Deps {
        let objects = self.objects.through(network.clone());
        let tables = self.tables.through(network);
        Deps {
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

    async fn put(&self, bucket: &str, key: &str, body: &str) {
        let objects = Objects::over(self.objects.clone(), bucket);
        objects.put(key, body.to_owned().into_bytes(), "text/plain").await.expect("put");
    }

    async fn build(&self) {
        handle(&self.deps(Calm::shared()), Event::default(), call()).await.expect("build");
    }

    /// As time does: the lease of an attempt that is dead is over.
    async fn lease_ends(&self) {
        let rows = self.deps(Calm::shared()).rows;
        if let Some(row) = rows.build().await.expect("row") {
            let end = |row: BuildRow| BuildRow { fence: row.fence.end(jiff::Timestamp::now()), ..row };
            rows.change_build(row.fence.attempt, end).await.expect("row");
        }
    }

    /// Every row of every table in force, without what an attempt's number decides.
    async fn rows(&self) -> BTreeMap<String, BTreeSet<String>> {
        let state = self.state().await;
        let contents = self.objects.contents("warehouse");
        let mut tables = BTreeMap::new();
        for (name, table) in state.tables {
            let parts = contents.iter().filter(|(key, _)| key.starts_with(&table.prefix));
            let rows: Vec<String> = parts.flat_map(|(_, body)| rows(body.clone())).map(|row| row.to_string()).collect();
            assert_eq!(rows.len() as u64, table.rows, "{name}");
            tables.insert(name, rows.into_iter().collect());
        }
        tables
    }

    /// What other readers are told of each table in force.
    fn manifests(&self) -> Vec<(String, Bytes)> {
        let contents = self.objects.contents("warehouse");
        let tables = ["dim_member", "dim_date", "fact_event"].map(manifest_key);
        tables.into_iter().filter_map(|key| Some((key.clone(), contents.get(&key)?.clone()))).collect()
    }

    async fn state(&self) -> BuildState {
        let deps = self.deps(Calm::shared());
        let key = deps.rows.build().await.expect("row").expect("row").state.expect("state");
        deps.warehouse.get_lines(&key).await.expect("state").pop().expect("state")
    }
}

fn call() -> Call {
    Call::new(SystemClock::shared(), Duration::from_secs(60))
}

fn rows(object: Bytes) -> Vec<Row> {
    let reader = SerializedFileReader::new(object).expect("parquet");
    reader.get_row_iter(None).expect("rows").map(|row| row.expect("row")).collect()
}

/// Members that change, events that come before theirs, a deletion of each, a line that is no row.
fn objects() -> Vec<(String, String)> {
    let at = |day: u32| format!("2024-01-{day:02}T00:00:00+00:00");
    let member = |id: u32, city: &str, day: u32| {
        format!("{{\"id\":{id},\"name\":\"m{day}\",\"city\":\"{city}\",\"at\":\"{}\"}}\n", at(day))
    };
    let event = |id: u32, member: u32, day: u32| {
        format!("{{\"id\":{id},\"member\":{member},\"amount\":{id}.5,\"at\":\"{}\"}}\n", at(day))
    };
    let key = |table: &str, day: u32, id: u32| format!("{table}/202401{day:02}T000000.000000Z-{id:010}.jsonl");
    let deletion = |id: u32, day: u32| format!("{{\"id\":{id},\"_deleted\":true,\"_deleted_at\":\"{}\"}}\n", at(day));
    vec![
        (key("member", 1, 1), member(1, "Rome", 1) + &member(2, "Oslo", 1)),
        (key("member", 5, 2), member(1, "Paris", 5) + "{\"id\":"),
        (key("member", 9, 3), member(1, "Rome", 9) + &member(3, "Bonn", 9)),
        (key("member", 20, 4), deletion(2, 20)),
        (key("event", 6, 1), event(1, 1, 6) + &event(2, 3, 2) + &event(3, 9, 6) + &event(5, 1, 6)),
        (key("event", 10, 2), event(4, 1, 10) + &event(1, 1, 3)),
        (key("event", 11, 3), deletion(5, 11)),
    ]
}

async fn built_at_once() -> BTreeMap<String, BTreeSet<String>> {
    let world = World::new().await;
    for (key, body) in objects() {
        world.put("ingestion", &key, &body).await;
    }
    world.build().await;
    world.rows().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fact_finds_the_version_of_its_time_and_unknown_members_are_counted() {
    let tables = built_at_once().await;
    let cities = |table: &str| tables[table].iter().map(|row| row.matches("Rome").count()).sum::<usize>();
    assert_eq!((tables["dim_member"].len(), tables["fact_event"].len(), cities("dim_member")), (2 + 3 + 2 + 1, 5, 2));
    assert_eq!(tables["dim_date"].len(), 2 + 31);
    assert_eq!(tables["fact_event"].iter().filter(|row| row.contains("member_key: -1")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_without_their_member_are_counted_until_the_late_member_comes() {
    let world = World::new().await;
    for (key, body) in objects() {
        world.put("ingestion", &key, &body).await;
    }
    world.build().await;
    assert_eq!(world.state().await.tables["fact_event"].unknown, BTreeMap::from([("member_key".to_owned(), 1)]));
    let member = "{\"id\":9,\"name\":\"late\",\"city\":\"Ulm\",\"at\":\"2024-01-21T00:00:00Z\"}";
    world.put("ingestion", "member/20240121T000000.000000Z-0000000005.jsonl", member).await;
    world.build().await;
    assert_eq!(world.state().await.tables["fact_event"].unknown, BTreeMap::new());
    assert!(world.rows().await["fact_event"].iter().all(|row| !row.contains("member_key: -1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_of_objects_makes_the_same_tables_with_a_build_after_each() {
    let expected = built_at_once().await;
    let objects = objects();
    for turn in 0..objects.len() {
        for step in [1, 5] {
            let world = World::new().await;
            for n in 0..objects.len() {
                let (key, body) = &objects[(turn + n * step) % objects.len()];
                world.put("ingestion", key, body).await;
                world.build().await;
                world.build().await;
            }
            assert_eq!(world.rows().await, expected, "from {turn} on by {step}");
            assert_eq!(world.state().await.sources["member"].quarantined, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_request_fails_the_next_build_makes_the_same_tables() {
    let expected = built_at_once().await;
    let objects = objects();
    let built = World::new().await;
    for (key, body) in &objects[..3] {
        built.put("ingestion", key, body).await;
    }
    built.build().await;
    let before = built.rows().await;
    for (key, body) in &objects[3..] {
        built.put("ingestion", key, body).await;
    }
    let mut nth = 0;
    loop {
        let mut struck = false;
        for strike in [Strike::Request, Strike::Answer, Strike::AnswerThenRetry] {
            let world = built.copied();
            let fault = OneFault::at(nth, strike);
            let outcome = handle(
                &world.deps(fault.clone()),
                Event::default(),
                Call::new(SystemClock::shared(), Duration::from_secs(2)),
            )
            .await;
            struck |= fault.struck();
            // What readers find meanwhile is one build or the other, never a part of both.
            let between = world.rows().await;
            assert!(between == before || between == expected, "{strike:?} at {nth}: {outcome:?}");
            world.lease_ends().await;
            world.build().await;
            assert_eq!(world.rows().await, expected, "{strike:?} at {nth}");
        }
        if !struck {
            break;
        }
        nth += 1;
    }
    assert!(nth > 20, "only {nth} requests");
}

/// Holds its caller at the n-th request, counted from 0, until it is let go.
struct Sleep {
    left: AtomicUsize,
    asleep: Notify,
    wake: Notify,
}

#[async_trait::async_trait]
impl Network for Sleep {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.asleep.notify_one();
            self.wake.notified().await;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_was_thought_dead_and_wakes_up_changes_nothing_any_more() {
    let expected = built_at_once().await;
    let objects = objects();
    let built = World::new().await;
    for (key, body) in &objects[..2] {
        built.put("ingestion", key, body).await;
    }
    built.build().await;
    built.put("ingestion", &objects[2].0, &objects[2].1).await;
    let mut nth = 0;
    loop {
        let world = built.copied();
        let sleep = Arc::new(Sleep { left: AtomicUsize::new(nth), asleep: Notify::new(), wake: Notify::new() });
        let deps = world.deps(sleep.clone());
        let mut old = tokio::spawn(async move { handle(&deps, Event::default(), call()).await });
        let slept = tokio::select! {
            _ = sleep.asleep.notified() => true,
            done = &mut old => { done.expect("no panic").expect("a build"); false }
        };
        if !slept {
            break;
        }
        for (key, body) in &objects[3..] {
            world.put("ingestion", key, body).await;
        }
        world.lease_ends().await;
        world.build().await;
        let (state, manifests) = (world.state().await, world.manifests());
        sleep.wake.notify_one();
        // Whether it had put its tables in force before it fell asleep is its own affair.
        let _ = old.await.expect("no panic");
        assert_eq!(world.state().await, state, "asleep at {nth}");
        assert_eq!(world.manifests(), manifests, "asleep at {nth}");
        assert_eq!(world.rows().await, expected, "asleep at {nth}");
        nth += 1;
    }
    assert!(nth > 20, "only {nth} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_no_table_is_in_force_all_the_same() {
    let world = World::new().await;
    for (key, body) in objects() {
        world.put("ingestion", &key, &body).await;
    }
    world.build().await;
    let before = world.state().await;
    let file = format!("# As before.\n{SCHEMA}");
    world.put("warehouse", SCHEMA_KEY, &file).await;
    world.build().await;
    let after = world.state().await;
    assert_eq!((&after.tables, after.schema), (&before.tables, sha256_hex(file.as_bytes())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_builds_what_it_changes_and_leaves_the_rest_where_it_is() {
    let world = World::new().await;
    for (key, body) in objects() {
        world.put("ingestion", &key, &body).await;
    }
    world.build().await;
    let before = world.state().await.tables;
    world.put("warehouse", SCHEMA_KEY, &SCHEMA.replace("columns: [amount]", "columns: []")).await;
    world.build().await;
    let after = world.state().await.tables;
    assert_eq!((&before["dim_member"], &before["dim_date"]), (&after["dim_member"], &after["dim_date"]));
    assert_ne!(before["fact_event"].prefix, after["fact_event"].prefix);
    // What readers may still have open stays.
    let contents = world.objects.contents("warehouse");
    assert!(contents.keys().any(|key| key.starts_with(&before["fact_event"].prefix)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_say_which_line_is_newer_and_times_do_not() {
    let world = World::new().await;
    let line = |city: &str| format!("{{\"id\":1,\"name\":\"{city}\",\"city\":\"{city}\",\"at\":null}}\n");
    world.put("ingestion", "member/20240101T000000.000000Z-0000000002.jsonl", &line("Oslo")).await;
    world.put("ingestion", "member/20240109T000000.000000Z-0000000001.jsonl", &line("Rome")).await;
    world.build().await;
    let members = &world.rows().await["dim_member"];
    let current = members.iter().find(|row| row.contains("id: 1,") && row.contains("is_current: true"));
    assert!(current.is_some_and(|row| row.contains("Oslo")), "{members:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_of_the_same_length_are_built_when_their_event_comes() {
    let world = World::new().await;
    let key = "event/20240106T000000.000000Z-0000000001.jsonl";
    world.put("ingestion", key, "{\"id\":1,\"amount\":1.5}").await;
    world.build().await;
    let before = world.state().await;
    world.put("ingestion", key, "{\"id\":1,\"amount\":2.5}").await;
    let deps = world.deps(Calm::shared());
    let (_, tag) = deps.ingestion.find_versioned(key).await.expect("read").expect("object");
    let event = || {
        let object = json!({"key": key, "size": 23, "eTag": tag.trim_matches('"'), "sequencer": "01"});
        let record = json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
            "eventName": "ObjectCreated:Put", "eventTime": "2024-01-06T00:00:00.000Z",
            "s3": {"bucket": {"name": "ingestion"}, "object": object},
        });
        let body = json!({"Records": [record]}).to_string();
        serde_json::from_value(json!({"Records": [{"messageId": "1", "body": body}]})).expect("an event")
    };
    handle(&deps, event(), call()).await.expect("build");
    let after = world.state().await;
    assert!(world.rows().await["fact_event"].iter().all(|row| row.contains("2.50")), "{:?}", world.rows().await);
    assert_ne!(before.tables["fact_event"].prefix, after.tables["fact_event"].prefix);
    // The same event again finds nothing to do.
    handle(&deps, event(), call()).await.expect("build");
    assert_eq!(world.state().await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_is_set_aside_alone_until_it_is_made_good() {
    let expected = built_at_once().await;
    let world = World::new().await;
    for (key, body) in objects() {
        world.put("ingestion", &key, &body).await;
    }
    let key = "event/20240112T000000.000000Z-0000000004.jsonl";
    let object = Objects::over(world.objects.clone(), "ingestion");
    object.put(key, b"\x1f\x8b damaged".to_vec(), "application/gzip").await.expect("put");
    world.build().await;
    assert_eq!(world.rows().await, expected);
    let failures = world.state().await.sources["event"].failures.clone();
    let failures: Vec<_> = failures.iter().map(|failure| (failure.object.as_str(), failure.error.as_str())).collect();
    assert_eq!(failures, [(key, "ObjectCorrupt")]);
    world.put("ingestion", key, "").await;
    world.build().await;
    assert!(world.state().await.sources["event"].failures.is_empty());
}

/// Gzip of one stored block that is longer than what there is of it.
fn cut_off(text: &str) -> Vec<u8> {
    let length = text.len() as u16 + 100;
    let mut bytes = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend((!length).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_object_that_is_cut_off_is_in_a_table() {
    let expected = built_at_once().await;
    let world = World::new().await;
    for (key, body) in objects() {
        world.put("ingestion", &key, &body).await;
    }
    let key = "event/20240112T000000.000000Z-0000000004.jsonl.gz";
    let line = |id: u32| format!("{{\"id\":{id},\"new\":1,\"amount\":7,\"at\":\"2024-01-30T00:00:00Z\"}}\n");
    let body = cut_off(&(line(1) + "no line\n" + &line(77) + "{\"id\":78"));
    let object = Objects::over(world.objects.clone(), "ingestion");
    object.put(key, body, "application/gzip").await.expect("put");
    for _ in 0..2 {
        world.build().await;
        assert_eq!(world.rows().await, expected);
        let source = world.state().await.sources["event"].clone();
        let failures: Vec<_> = source.failures.iter().map(|failure| failure.object.as_str()).collect();
        assert_eq!((failures, source.rows, source.quarantined, source.objects.len()), (vec![key], 7, 0, 3));
        assert_eq!((source.added.len(), source.quarantine.len()), (0, 0));
        let contents = world.objects.contents("warehouse");
        assert!(!contents.keys().any(|key| key.starts_with("_quarantine/event/")), "{:?}", contents.keys());
    }
    // Taken away, it has not failed any more.
    object.delete(key).await.expect("delete");
    world.build().await;
    assert_eq!(world.state().await.sources["event"].failures, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_too_long_goes_to_quarantine_and_the_rest_of_its_object_is_built() {
    let world = World::new().await;
    let line = |id: u32, name: &str| format!("{{\"id\":{id},\"name\":\"{name}\",\"at\":\"2024-01-01T00:00:00Z\"}}\n");
    let lines = [line(1, "a"), line(2, &"x".repeat(64 << 20)), line(3, "b")];
    world.put("ingestion", "member/20240101T000000.000000Z-0000000001.jsonl", &lines.concat()).await;
    world.build().await;
    let state = world.state().await;
    let source = &state.sources["member"];
    assert_eq!((source.rows, source.quarantined, source.failures.len()), (2, 1, 0));
    let quarantine = &world.objects.contents("warehouse")[&source.quarantine[0]];
    let noted: serde_json::Value = serde_json::from_slice(quarantine).expect("a line");
    assert_eq!((&noted["line"], &noted["reason"]), (&json!(2), &json!("the line is longer than 67108864 bytes")));
    assert!(quarantine.len() < 100_000, "{} bytes", quarantine.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_much_larger_than_it_was_packed_is_divided_all_the_same() {
    let world = World::new().await;
    let name = "x".repeat(1_000);
    let line = |id: u32| format!("{{\"id\":{id},\"name\":\"{name}\",\"at\":\"2024-01-01T00:00:00Z\"}}\n");
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all((0..500).map(line).collect::<String>().as_bytes()).expect("packed");
    let packed = packed.finish().expect("packed");
    let segment_bytes = 20_000;
    assert!(packed.len() < segment_bytes, "{} bytes", packed.len());
    let key = "member/20240101T000000.000000Z-0000000001.jsonl.gz";
    Objects::over(world.objects.clone(), "ingestion").put(key, packed, "application/gzip").await.expect("put");
    let deps = Deps { segment_bytes: segment_bytes as u64, ..world.deps(Calm::shared()) };
    handle(&deps, Event::default(), call()).await.expect("build");
    let state = world.state().await;
    let source = &state.sources["member"];
    let segments = &source.lines.as_ref().expect("lines").segments;
    assert_eq!(source.rows, 500);
    assert!(segments.len() > 20, "{} segments", segments.len());
    assert!(segments.iter().all(|segment| segment.bytes < 3 * segment_bytes as u64), "{segments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_object_that_is_taken_away_are_in_no_table_any_more() {
    let expected = built_at_once().await;
    let world = World::new().await;
    let key = "event/20240112T000000.000000Z-0000000004.jsonl";
    for (key, body) in objects() {
        world.put("ingestion", &key, &body).await;
    }
    world.put("ingestion", key, "{\"id\":1,\"amount\":7}\n{\"id\":77,\"amount\":7}\n").await;
    world.build().await;
    assert_ne!(world.rows().await, expected);
    Objects::over(world.objects.clone(), "ingestion").delete(key).await.expect("delete");
    world.build().await;
    assert_eq!(world.rows().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_feeds_stay_while_no_feeds_are_deployed() {
    let world = World::new().await;
    world.put("warehouse", SCHEMA_KEY, &SCHEMA.replace("event: {key", "event: {source: feed/offers, key")).await;
    let body = "{\"id\":1,\"member\":1,\"amount\":7,\"at\":\"2024-01-05T00:00:00Z\"}\n";
    world.put("ingestion", "offers/year=2024/month=01/day=05/a.jsonl", body).await;
    let deployed =
        Deps { feeds: Some(Objects::over(world.objects.clone(), "ingestion")), ..world.deps(Calm::shared()) };
    handle(&deployed, Event::default(), call()).await.expect("build");
    let built = world.rows().await;
    assert_eq!(built["fact_event"].len(), 1);
    world.build().await;
    assert_eq!(world.rows().await, built);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_left_the_file_goes_once_no_reader_has_it_open() {
    let world = World::new().await;
    for (key, body) in objects() {
        world.put("ingestion", &key, &body).await;
    }
    let left = || {
        let keys = world.objects.contents("warehouse").into_keys();
        let prefixes = ["fact_event/", "_tables/fact_event/", "dim_member/", "_state/members/dim_member/"];
        keys.filter(|key| prefixes.iter().any(|prefix| key.starts_with(prefix))).collect::<Vec<_>>()
    };
    world.build().await;
    let before = left();
    let tables = SCHEMA.split_once("dimensions:").expect("dimensions").0;
    world.put("warehouse", SCHEMA_KEY, tables).await;
    for _ in 0..2 {
        world.build().await;
        assert!(before.iter().all(|key| left().contains(key)), "{:?}", left());
    }
    let clock = ManualClock::at(jiff::Timestamp::now());
    clock.advance(Duration::from_secs(16 * 60));
    let later = Call::new(clock, Duration::from_secs(60));
    handle(&world.deps(Calm::shared()), Event::default(), later).await.expect("build");
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_divided_fact_without_rows_has_its_folder() {
    let world = World::new().await;
    world.put("warehouse", SCHEMA_KEY, &SCHEMA.replace("columns: [amount]", "partition: day, columns: [amount]")).await;
    world.build().await;
    let prefix = world.state().await.tables["fact_event"].prefix.clone();
    let contents = world.objects.contents("warehouse");
    let keys: Vec<_> = contents.keys().filter_map(|key| key.strip_prefix(&prefix)).collect();
    assert_eq!(keys, ["day_month=-1/part-00000-00000.parquet"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_of_a_build_that_failed_until_one_ends_well() {
    let world = World::new().await;
    let page = || String::from_utf8(world.objects.contents("archive")[PAGE_KEY].to_vec()).expect("UTF-8");
    world.put("ingestion", &objects()[0].0, &objects()[0].1).await;
    world.build().await;
    assert!(!page().contains("SchemaInvalid"), "{}", page());
    world.put("warehouse", SCHEMA_KEY, "version: 2\n").await;
    handle(&world.deps(Calm::shared()), Event::default(), call()).await.expect_err("a file with mistakes");
    assert!(page().contains("SchemaInvalid") && page().contains("dim_member"), "{}", page());
    world.put("warehouse", SCHEMA_KEY, SCHEMA).await;
    world.build().await;
    assert!(!page().contains("SchemaInvalid"), "{}", page());
}

/// What was logged, as lines of JSON.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The warnings of what is done until they are asked for.
struct Warnings {
    log: Log,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Warnings {
    fn listen() -> Warnings {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        Warnings { log, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn of(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8(self.log.0.lock().expect("lock").clone()).expect("UTF-8");
        let warnings = text.lines().filter(|line| line.contains("\"WARN\"") && line.contains(name));
        warnings.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn whichever_request_fails_a_missing_id_is_told() {
    for nth in 0.. {
        let warnings = Warnings::listen();
        let world = World::new().await;
        world.put("ingestion", "event/20240106T000000.000000Z-0000000003.jsonl", "{\"id\":1}").await;
        let fault = OneFault::at(nth, Strike::Answer);
        // Its outcome is its own affair: the next build is to know.
        let _ = handle(&world.deps(fault.clone()), Event::default(), call()).await;
        world.lease_ends().await;
        world.build().await;
        assert!(!warnings.of("SequenceGap").is_empty(), "request {nth}");
        if !fault.struck() {
            assert!(nth > 10, "only {nth} requests");
            return;
        }
    }
}

#[tokio::test]
async fn a_rebuild_makes_the_tables_that_it_names_or_whose_objects_are_from_that_time_on() {
    let world = World::new().await;
    for (key, body) in objects() {
        world.put("ingestion", &key, &body).await;
    }
    world.build().await;
    let rows = world.rows().await;
    let prefixes = async || -> BTreeMap<String, String> {
        world.state().await.tables.into_iter().map(|(name, table)| (name, table.prefix)).collect()
    };
    // The last member is of the 20th of January, the last event of the 11th; dates are made of no objects.
    for (request, expected) in [
        (json!({"tables": ["fact_event"], "from": null}), &["fact_event"][..]),
        (json!({"tables": ["dim_member", "dim_date"], "from": null}), &["dim_date", "dim_member"]),
        (json!({"tables": ["event"], "from": null}), &["fact_event"]),
        (json!({"tables": [], "from": "2024-01-11T00:00:01Z"}), &["dim_member"]),
        (json!({"tables": [], "from": "2024-01-11T00:00:00Z"}), &["dim_member", "fact_event"]),
        (json!({"tables": ["fact_event"], "from": "2024-01-12T00:00:00Z"}), &[]),
        (json!({"tables": [], "from": null}), &["dim_date", "dim_member", "fact_event"]),
    ] {
        let before = prefixes().await;
        world.put("warehouse", &request_key("1"), &request.to_string()).await;
        world.build().await;
        let made = prefixes().await.into_iter().filter(|(name, prefix)| before.get(name) != Some(prefix));
        let made: Vec<String> = made.map(|(name, _)| name).collect();
        assert_eq!(made, expected, "{request}");
        assert_eq!(world.rows().await, rows, "{request}");
        assert!(!world.objects.contents("warehouse").contains_key(&request_key("1")), "the request is done");
    }
}

#[tokio::test]
async fn a_missing_id_is_one_warning_with_table_and_ids_and_holds_nothing_up() {
    let world = World::new().await;
    let log = Warnings::listen();
    // The last one comes when the gaps are known.
    for ids in [&[2, 5][..], &[], &[6]] {
        for id in ids {
            let key = format!("event/20240106T000000.000000Z-{id:010}.jsonl");
            world.put("ingestion", &key, &format!("{{\"id\":{id}}}")).await;
        }
        world.build().await;
    }
    let warnings = log.of("");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["SequenceGap", "\"table\":\"event\"", "[(1, 1), (3, 4)]"] {
        assert!(warnings[0].contains(part), "{part}: {}", warnings[0]);
    }
    assert_eq!(world.rows().await["fact_event"].len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_missing_only_where_the_file_says_that_they_are_sequential() {
    let world = World::new().await;
    world
        .put("warehouse", SCHEMA_KEY, &SCHEMA.replace("event: {key: id,", "event: {key: id, sequential: false,"))
        .await;
    world.put("ingestion", "event/20240106T000000.000000Z-0000000003.jsonl", "{\"id\":1}").await;
    world.build().await;
    assert_eq!(world.state().await.sources["event"].gaps, []);
    world.put("warehouse", SCHEMA_KEY, SCHEMA).await;
    world.build().await;
    assert_eq!(world.state().await.sources["event"].gaps, [(1, 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_at_the_source_is_named_and_once_a_file_follows_it_is_as_if_it_had_always_fitted() {
    let world = World::new().await;
    let key = |id: u32| format!("event/20240106T000000.000000Z-{id:010}.jsonl");
    world.put("ingestion", &key(1), "{\"id\":1,\"member\":7,\"amount\":1.50}").await;
    // A new column, a wider type, and a dropped column.
    world.put("ingestion", &key(2), "{\"id\":2,\"amount\":2.505,\"channel\":\"web\"}\n{\"id\":3,\"amount\":3}").await;
    world.build().await;
    let source = world.state().await.sources["event"].clone();
    let dropped: Vec<&str> = source.dropped.iter().map(String::as_str).collect();
    assert_eq!((source.added, dropped, source.quarantined), (vec!["channel".to_owned()], vec!["member", "at"], 1));
    let contents = world.objects.contents("warehouse");
    let quarantined: Vec<_> = contents.iter().filter(|(key, _)| key.starts_with("_quarantine/event/")).collect();
    let [(_, kept)] = quarantined.as_slice() else { panic!("{quarantined:?}") };
    let kept: serde_json::Value = serde_json::from_slice(kept).expect("JSON");
    assert_eq!((&kept["object"], &kept["line"]), (&json!(key(2)), &json!(1)));
    assert_eq!(kept["reason"], "the value of amount has more digits than fit (decimal(9,2))");
    let rows = &world.rows().await["fact_event"];
    assert_eq!(rows.iter().filter(|row| row.contains("member_key: -2")).count(), 1, "{rows:?}");

    let wider = SCHEMA.replace("amount: \"decimal(9,2)\"", "amount: \"decimal(9,3)\", channel: text");
    world.put("warehouse", SCHEMA_KEY, &wider.replace("columns: [amount]", "columns: [amount, channel]")).await;
    world.build().await;
    let state = world.state().await;
    assert_eq!((&state.sources["event"].added, state.sources["event"].quarantined), (&Vec::new(), 0));
    let rows = &world.rows().await["fact_event"];
    for (amount, channel) in [("1.500", "null"), ("2.505", "\"web\""), ("3.000", "null")] {
        let (amount, channel) = (format!("amount: {amount},"), format!("channel: {channel}"));
        assert!(rows.iter().any(|row| row.contains(&amount) && row.contains(&channel)), "{amount} {channel}: {rows:?}");
    }
    let quarantined = world.objects.contents("warehouse").into_keys().filter(|key| key.starts_with("_quarantine/"));
    assert_eq!(quarantined.count(), 0);
}
