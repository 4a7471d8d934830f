//! Tables made and changed by chance in a PostgreSQL that runs: after each ingest and build the warehouse holds what
//! the model says, whatever dies, comes twice or at once on the way. `ALERT_ARCHIVE_ODD_SEEDS=100..200` takes other
//! seeds.

use network::{Calm, Network};
use parameters::{recall, tell};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, ops::Range, sync::Arc};
use tokio_postgres::Client;
use warehouse_state::IngestParameter;
use warehouse_tests::{
    faults::{disturbed, killed},
    odd::Database,
    postgres::{ask, connect, execute, secret},
    world::World,
};

const ROUNDS: usize = 6;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("ALERT_ARCHIVE_ODD_SEEDS") else { return 0..12 };
    let (from, to) = text.split_once("..").expect("seeds are given as 100..200");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Does something once, after something went wrong with it or beside it.
async fn with_trouble<O, E: std::fmt::Debug>(
    world: &World,
    rng: &mut impl Rng,
    act: impl AsyncFn(Arc<dyn Network>) -> Result<O, E>,
) {
    match rng.random_range(0..6) {
        0 => killed(world, rng, act).await,
        1 => disturbed(world, rng, act).await,
        2 => {
            let (one, two) = tokio::join!(act(Calm::shared()), act(Calm::shared()));
            one.expect("the first of two");
            two.expect("the second of two");
        }
        _ => {}
    }
}

async fn ingest(world: &World, full: bool) {
    let done = world.ingest(Calm::shared(), full).await.expect("an ingest");
    assert!(done.failures.is_empty(), "{:?}", done.failures);
}

async fn observe(database: &mut Database, client: &Client) {
    for at in 0..database.sources.len() {
        let mut references = BTreeMap::new();
        if let Some((question, names, keys)) = database.references(at) {
            for row in ask(client, &question).await {
                let text = |at: usize| row[at].clone().unwrap_or_default();
                let key: Vec<String> = (0..keys).map(text).collect();
                let parts = names.iter().cloned().zip(row[keys..].iter().cloned()).collect();
                references.insert(key, parts);
            }
        }
        let rows = ask(client, &database.sources[at].question()).await;
        database.sources[at].observe(rows, &references);
    }
}

async fn play(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let client = connect().await;
    let mut database = Database::new(&mut rng);
    execute(&client, &database.created()).await;
    let mut world = World::new(secret());
    world.segment_bytes = rng.random_range(500..20_000);
    world.spool_bytes = rng.random_range(1..5_000);
    world.apply(&database.schema()).await;
    let mut held: BTreeMap<usize, Client> = BTreeMap::new();
    for round in 0..ROUNDS {
        eprintln!("seed {seed} round {round}");
        let mut full = false;
        for at in 0..database.sources.len() {
            for _ in 0..rng.random_range(1..3) {
                let changes = database.changes(&mut rng, at, false);
                execute(&client, &format!("BEGIN; {changes} COMMIT")).await;
            }
            match held.remove(&at) {
                // It began before earlier reads, and commits after them.
                Some(long) if rng.random_bool(0.5) => execute(&long, "COMMIT").await,
                Some(long) => drop(held.insert(at, long)),
                None if rng.random_bool(0.3) => {
                    let long = connect().await;
                    execute(&long, &format!("BEGIN; {}", database.changes(&mut rng, at, true))).await;
                    held.insert(at, long);
                }
                None if round > 0 && rng.random_bool(0.4) => {
                    if let Some(sql) = database.alteration(&mut rng, at) {
                        execute(&client, &sql).await;
                        full = true;
                    }
                }
                None => {}
            }
        }
        with_trouble(&world, &mut rng, async |network| world.ingest(network, full).await).await;
        ingest(&world, full).await;
        observe(&mut database, &client).await;
        for source in &database.sources {
            source.check_lines(&world.lines(&source.name));
        }
        if rng.random_bool(0.3) {
            database.follow();
            world.apply(&database.schema()).await;
        }
        with_trouble(&world, &mut rng, async |network| world.build(network).await).await;
        world.build(Calm::shared()).await.expect("a build");
        database.check(&world.read().await);
        let state = world.state().await;
        for source in &database.sources {
            assert_eq!(state.sources[&source.name].quarantined, source.quarantined(), "{}: quarantined", source.name);
        }
    }
    for (_, long) in held {
        execute(&long, "COMMIT").await;
    }
    ingest(&world, false).await;
    observe(&mut database, &client).await;
    world.build(Calm::shared()).await.expect("a build");
    let mut tables = world.read().await;
    database.check(&tables);
    world.ask_for_a_rebuild("{}").await;
    world.build(Calm::shared()).await.expect("a rebuild");
    let mut rebuilt = world.read().await;
    for rows in tables.values_mut().chain(rebuilt.values_mut()) {
        rows.sort();
    }
    assert_eq!(rebuilt, tables, "a rebuild makes the same tables");
    execute(&client, &database.dropped()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_odd_tables_the_warehouse_holds_what_postgresql_held() {
    for seed in seeds() {
        play(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_begins_where_its_parameter_says_when_that_is_earlier_and_gives_no_id_again_that_it_knows_of() {
    let client = connect().await;
    let old = "DROP TABLE IF EXISTS told; CREATE TABLE told AS SELECT 1 AS id, timestamptz '2024-06-01' AS updated_at";
    execute(&client, old).await;
    let world = World::new(secret());
    let columns = "{id: integer, updated_at: timestamptz}";
    world.apply(&format!("version: 1\ntables:\n  told: {{key: id, cursor: updated_at, columns: {columns}}}\n")).await;
    ingest(&world, false).await;
    // Behind what was read, as when a backup was restored: only an operator can know.
    execute(&client, "INSERT INTO told VALUES (2, '2024-01-01')").await;
    ingest(&world, false).await;
    assert_eq!(world.lines("told").len(), 1);
    let name = "/test/told/ingest";
    let mut parameter: IngestParameter = recall(&world.parameters, name).await.expect("readable").expect("there");
    assert_eq!((parameter.timestamp.as_deref(), parameter.sequential_id), (Some("2024-06-01T00:00:00.000000Z"), 1));
    parameter.timestamp = Some("2023-12-31T00:00:00Z".into());
    parameter.sequential_id = 7;
    tell(&world.parameters, name, &parameter).await.expect("told");
    ingest(&world, false).await;
    let keys: Vec<String> = world.lines("told").into_iter().map(|(key, _)| key).collect();
    let expected = ["told/20240601T000000.000000Z-0000000001.jsonl", "told/20240101T000000.000000Z-0000000008.jsonl"];
    assert_eq!(keys, expected);
    execute(&client, "DROP TABLE told").await;
}
