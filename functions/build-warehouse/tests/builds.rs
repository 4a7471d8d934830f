//! Builds without a cloud: whatever order objects land in, and whichever request fails, the tables are the same.

use build_warehouse::{Deps, Event, handle};
use bytes::Bytes;
use network::{Calm, Network, OneFault, Strike};
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Row,
};
use runtime::{Call, SystemClock};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use storage::{MemoryObjects, MemoryTables, Objects, Table};
use warehouse_state::{BuildRow, BuildState, MemoryParameters, SCHEMA_KEY, Warehouse};

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

/// Members that change, events that come before theirs, a deletion, a line that is no row.
fn objects() -> Vec<(String, String)> {
    let at = |day: u32| format!("2024-01-{day:02}T00:00:00+00:00");
    let member = |id: u32, city: &str, day: u32| {
        format!("{{\"id\":{id},\"name\":\"m{day}\",\"city\":\"{city}\",\"at\":\"{}\"}}\n", at(day))
    };
    let event = |id: u32, member: u32, day: u32| {
        format!("{{\"id\":{id},\"member\":{member},\"amount\":{id}.5,\"at\":\"{}\"}}\n", at(day))
    };
    let key = |table: &str, day: u32, id: u32| format!("{table}/202401{day:02}T000000.000000Z-{id:010}.jsonl");
    let deletion = format!("{{\"id\":2,\"_deleted\":true,\"_deleted_at\":\"{}\"}}\n", at(20));
    vec![
        (key("member", 1, 1), member(1, "Rome", 1) + &member(2, "Oslo", 1)),
        (key("member", 5, 2), member(1, "Paris", 5) + "{\"id\":"),
        (key("member", 9, 3), member(1, "Rome", 9) + &member(3, "Bonn", 9)),
        (key("member", 20, 4), deletion),
        (key("event", 6, 1), event(1, 1, 6) + &event(2, 3, 2) + &event(3, 9, 6)),
        (key("event", 10, 2), event(4, 1, 10) + &event(1, 1, 3)),
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
    assert_eq!((tables["dim_member"].len(), tables["fact_event"].len(), cities("dim_member")), (2 + 3 + 2 + 1, 4, 2));
    assert_eq!(tables["dim_date"].len(), 2 + 31);
    assert_eq!(tables["fact_event"].iter().filter(|row| row.contains("member_key: -1")).count(), 1);
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
    let mut nth = 0;
    loop {
        let mut struck = false;
        for strike in [Strike::Request, Strike::Answer, Strike::AnswerThenRetry] {
            let world = World::new().await;
            for (key, body) in &objects[..3] {
                world.put("ingestion", key, body).await;
            }
            world.build().await;
            let before = world.rows().await;
            for (key, body) in &objects[3..] {
                world.put("ingestion", key, body).await;
            }
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
