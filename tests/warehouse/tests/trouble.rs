//! The ingest while its database is in trouble: connections that end, passwords that change, locks, limits.

use ingest_tables::Place;
use network::Calm;
use std::time::{Duration, Instant};
use warehouse_tests::{
    postgres::{ask, connect, connect_to, execute, secret, secret_of, with_password},
    reader::Row,
    server::{PASSWORD, Server},
    world::{INGESTION, WAREHOUSE, World},
};

fn schema(tables: &[&str]) -> String {
    let table = |name: &&str| {
        format!(
            "  {name}: {{key: id, cursor: updated_at, hard_deletes: 0s, \
             columns: {{id: bigint, name: text, updated_at: timestamptz}}}}\n"
        )
    };
    format!("version: 1\ntables:\n{}", tables.iter().map(table).collect::<String>())
}

async fn create(name: &str, rows: usize, bytes: usize) {
    let sql = format!(
        "DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (id bigint PRIMARY KEY, name text, updated_at timestamptz); \
         INSERT INTO {name} SELECT n, repeat('x', {bytes}), now() FROM generate_series(1, {rows}) n"
    );
    execute(&connect().await, &sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_connection_is_ended_in_the_middle_begins_again_and_writes_each_row_once() {
    create("torn", 6_000, 4_000).await;
    let mut world = World::new(secret());
    world.rows_per_second = 4_000;
    world.apply(&schema(&["torn"])).await;
    let ended = tokio::spawn(async {
        let client = connect().await;
        // As when the server is stopped: all of the snapshot is lost.
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' \
                   AND query LIKE 'SELECT row_to_json%public.\"torn\"%'";
        while ask(&client, sql).await[0][0].as_deref() == Some("0") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    ended.await.expect("a connection was ended");
    assert!(done.failures.is_empty(), "{:?}", done.failures);
    let lines = world.lines("torn");
    let keys: std::collections::BTreeSet<_> = lines.iter().map(|(_, line)| line.split(',').next()).collect();
    assert_eq!((lines.len(), keys.len(), done.tables[0].rows), (6_000, 6_000, 6_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_rotated_is_read_again() {
    create("rotated", 1, 1).await;
    let world = World::new(with_password("before"));
    world.apply(&schema(&["rotated"])).await;
    // The secret is read a moment before the rotation, and used a moment after it.
    world.rotate(&[with_password("before"), secret()]);
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((done.failures.len(), done.tables[0].rows), (0, 1), "{:?}", done.failures);
    world.rotate(&[with_password("before")]);
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!(done.failures[0].error, "ConnectionFailed");
    assert!(!done.failures[0].message.contains("before"), "{}", done.failures[0].message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_read_in_its_time_fails_by_name_and_the_others_go_on() {
    create("locked", 1, 1).await;
    create("unlocked", 1, 1).await;
    let mut world = World::new(secret());
    world.read_timeout = Duration::from_secs(1);
    world.apply(&schema(&["locked", "unlocked"])).await;
    let client = connect().await;
    execute(&client, "BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE").await;
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    let failed: Vec<_> = done.failures.iter().map(|failure| (failure.table.as_str(), failure.error.as_str())).collect();
    assert_eq!((failed, done.tables[1].rows), (vec![("locked", "ReadFailed")], 1));
    assert!(done.failures[0].message.contains("statement timeout"), "{}", done.failures[0].message);
    execute(&client, "COMMIT").await;
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((done.failures.len(), done.tables[0].rows, done.tables[1].rows), (0, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_no_faster_than_is_allowed() {
    create("slow", 3_000, 1).await;
    let mut world = World::new(secret());
    world.rows_per_second = 2_000;
    world.apply(&schema(&["slow"])).await;
    let began = Instant::now();
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!(done.tables[0].rows, 3_000);
    assert!(began.elapsed() >= Duration::from_millis(1_400), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_only_the_comparison_finds_is_read_also_where_another_column_refuses_null() {
    let client = connect().await;
    // And where a column is called as the row is in our statements.
    let sql = "DROP TABLE IF EXISTS strict; DROP DOMAIN IF EXISTS filled; CREATE DOMAIN filled AS text NOT NULL; \
               CREATE TABLE strict (id bigint PRIMARY KEY, name filled, updated_at timestamptz, \
               \"alert-archive row\" text, \"alert-archive key\" text); \
               INSERT INTO strict VALUES (1, 'a', now())";
    execute(&client, sql).await;
    let world = World::new(secret());
    world.apply(&schema(&["strict"])).await;
    world.ingest(Calm::shared(), false).await.expect("an ingest");
    execute(&client, "INSERT INTO strict VALUES (2, 'b', '2001-01-01')").await;
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((&done.failures, done.tables[0].rows), (&Vec::new(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_in_the_way_is_named_and_nothing_is_overwritten_or_left_out() {
    let client = connect().await;
    let sql = "DROP TABLE IF EXISTS barred; CREATE TABLE barred AS \
               SELECT 1::bigint AS id, 'a' AS name, timestamptz '2024-01-01' AS updated_at";
    execute(&client, sql).await;
    let world = World::new(secret());
    world.apply(&schema(&["barred"])).await;
    let key = "barred/20240101T000000.000000Z-0000000001.jsonl";
    world.put(INGESTION, key, "not ours").await;
    for _ in 0..2 {
        let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
        assert_eq!(done.failures[0].error, "ObjectExists");
        assert_eq!(world.lines("barred"), [(key.to_owned(), "not ours".to_owned())]);
    }
    storage::Objects::over(world.objects.clone(), INGESTION).delete(key).await.expect("deleted");
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((&done.failures, done.tables[0].rows, done.tables[0].sequential_id), (&Vec::new(), 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_share_a_timestamp_or_come_from_a_clock_that_stepped_back_are_read_once() {
    let client = connect().await;
    let sql = "DROP TABLE IF EXISTS stepped; \
               CREATE TABLE stepped (id bigint PRIMARY KEY, name text, updated_at timestamptz)";
    execute(&client, sql).await;
    let world = World::new(secret());
    world.apply(&schema(&["stepped"]).replace("hard_deletes: 0s", "lookback: 60s")).await;
    // All of them in the past, so that no running transaction bounds the read.
    for (id, at) in
        [(1, "00:10:00"), (2, "00:10:00"), (3, "00:09:01"), (4, "00:10:00"), (5, "00:20:00"), (6, "00:19:00")]
    {
        execute(&client, &format!("INSERT INTO stepped VALUES ({id}, 'a', '2024-01-01 {at}')")).await;
        let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
        assert_eq!((&done.failures, done.tables[0].rows), (&Vec::new(), 1), "row {id}");
    }
    // Further behind than the file allows for: only a full read finds it.
    execute(&client, "INSERT INTO stepped VALUES (7, 'a', '2024-01-01 00:01:00')").await;
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!(done.tables[0].rows, 0);
    let done = world.ingest(Calm::shared(), true).await.expect("an ingest");
    assert_eq!(done.tables[0].rows, 1);
    let ids = |(_, line): (String, String)| line.split([':', ',']).nth(1).unwrap_or_default().to_owned();
    let found: Vec<String> = world.lines("stepped").into_iter().map(ids).collect();
    assert_eq!(found, ["1", "2", "3", "4", "5", "6", "7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_long_transaction_commits_is_read_however_many_ingests_went_by() {
    let (client, long) = (connect().await, connect().await);
    let sql = "DROP TABLE IF EXISTS lasting; \
               CREATE TABLE lasting (id bigint PRIMARY KEY, name text, updated_at timestamptz)";
    execute(&client, sql).await;
    let world = World::new(secret());
    // Without the comparison of keys, which would find the row too.
    world.apply(&schema(&["lasting"]).replace("hard_deletes: 0s, ", "")).await;
    // Longer ago than the read overlaps in any case.
    execute(&long, "BEGIN; INSERT INTO lasting VALUES (1, 'late', now()); SELECT pg_sleep(6)").await;
    for id in 2..5 {
        execute(&client, &format!("INSERT INTO lasting VALUES ({id}, 'early', now())")).await;
        let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
        assert_eq!((&done.failures, done.tables[0].rows), (&Vec::new(), 1), "row {id}");
    }
    execute(&long, "COMMIT").await;
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((done.tables[0].rows, world.lines("lasting").len()), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_gone_are_found_by_comparison_once_and_may_come_back() {
    create("gone", 3, 1).await;
    let client = connect().await;
    let world = World::new(secret());
    world.apply(&schema(&["gone"])).await;
    let ingest = async || {
        let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
        assert!(done.failures.is_empty(), "{:?}", done.failures);
        (done.tables[0].rows, done.tables[0].deleted)
    };
    assert_eq!(ingest().await, (3, 0));
    execute(&client, "DELETE FROM gone WHERE id = 2").await;
    assert_eq!(ingest().await, (0, 1));
    let (_, line) = world.lines("gone").pop().expect("a line");
    assert!(line.starts_with("{\"id\":2,\"_deleted\":true,\"_deleted_at\":\"20"), "{line}");
    assert_eq!(ingest().await, (0, 0));
    // With the very row that it had, long behind the stored timestamp.
    execute(&client, "INSERT INTO gone VALUES (2, 'x', '2001-01-01')").await;
    assert_eq!(ingest().await, (1, 0));
    // Not compared, so that nothing is known of what is gone.
    world.apply(&schema(&["gone"]).replace("hard_deletes: 0s, ", "")).await;
    execute(&client, "DELETE FROM gone WHERE id = 3").await;
    assert_eq!(ingest().await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_only_spelled_in_another_way_is_not_gone() {
    let client = connect().await;
    let sql = "DROP TABLE IF EXISTS spelled; CREATE TABLE spelled (id numeric PRIMARY KEY, updated_at timestamptz); \
        INSERT INTO spelled SELECT n + 0.5, now() FROM generate_series(1, 20) n";
    execute(&client, sql).await;
    let world = World::new(secret());
    let columns = "columns: {id: \"decimal(9,3)\", updated_at: timestamptz}";
    let table = format!("spelled: {{key: id, cursor: updated_at, hard_deletes: 0s, {columns}}}");
    world
        .apply(&format!("version: 1\ntables:\n  {table}\ndimensions: {{it: {{from: spelled, type1: [updated_at]}}}}\n"))
        .await;
    world.ingest(Calm::shared(), false).await.expect("an ingest");
    execute(&client, "UPDATE spelled SET id = id + 0.00 WHERE id < 20; DELETE FROM spelled WHERE id = 20.5").await;
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((done.tables[0].rows, done.tables[0].deleted), (19, 1), "{done:?}");
    let again = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((again.tables[0].rows, again.tables[0].deleted), (0, 0));
    world.build(Calm::shared()).await.expect("a build");
    let tables = world.read().await;
    let deleted: Vec<_> = tables["dim_it"].iter().filter(|row| row["is_deleted"].as_deref() == Some("true")).collect();
    assert_eq!(deleted.len(), 1, "{deleted:?}");
    assert_eq!(tables["dim_it"].len(), 2 + 20);
}

/// A schema file with one table and a dimension of it.
fn with_dimension(table: &str, key: &str, columns: &str) -> String {
    let table = format!("{table}: {{key: {key}, cursor: updated_at, hard_deletes: 0s, columns: {columns}}}");
    format!(
        "version: 1\ntables:\n  {table}\ndimensions: {{it: {{from: {}, type1: [updated_at]}}}}\n",
        table.split(':').next().unwrap_or_default()
    )
}

async fn ingested(world: &World) -> (u64, u64) {
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert!(done.failures.is_empty(), "{:?}", done.failures);
    (done.tables[0].rows, done.tables[0].deleted)
}

/// Builds, and returns how many members of the dimension are there and how many are deleted.
async fn members(world: &World) -> (usize, usize) {
    world.build(Calm::shared()).await.expect("a build");
    let tables = world.read().await;
    let is_deleted = |row: &&Row| row["is_deleted"].as_deref() == Some("true");
    let deleted = tables["dim_it"].iter().filter(is_deleted).count();
    (tables["dim_it"].len() - 2 - deleted, deleted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_type_changes_deletes_no_row_that_lives_and_forgets_no_row_that_was_deleted() {
    let client = connect().await;
    for (table, before, after) in [
        ("to_text", "bigint", "text"),
        ("to_number", "text", "bigint"),
        ("to_decimal", "character varying(9)", "numeric"),
        ("to_time", "date", "timestamp"),
    ] {
        let value = |n: &str| match before {
            "date" => format!("date '2024-01-01' + {n}"),
            _ => format!("({n})::{before}"),
        };
        let sql = format!(
            "DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id {before} PRIMARY KEY, updated_at timestamptz); \
             INSERT INTO {table} SELECT {}, now() FROM generate_series(1, 20) n",
            value("n")
        );
        execute(&client, &sql).await;
        let world = World::new(secret());
        let of = if before == "date" { "timestamp" } else { "text" };
        world.apply(&with_dimension(table, "id", &format!("{{id: {of}, updated_at: timestamptz}}"))).await;
        assert_eq!(ingested(&world).await, (20, 0), "{table}");
        // One row is gone before the type changes, and no comparison has seen it.
        let sql = format!(
            "DELETE FROM {table} WHERE id = {}; ALTER TABLE {table} ALTER id TYPE {after} USING id::{after}",
            value("3")
        );
        execute(&client, &sql).await;
        ingested(&world).await;
        assert_eq!(ingested(&world).await, (0, 0), "{table}");
        let found = members(&world).await;
        let is_known = before != "date";
        // What cannot be told by another spelling stays: a row that lives is worth more.
        assert_eq!(found, if is_known { (19, 1) } else { (20, 0) }, "{table}");
        execute(&client, &format!("DELETE FROM {table} WHERE id = ({})::{after}", value("4"))).await;
        assert_eq!(ingested(&world).await, (0, 1), "{table}");
        assert_eq!(members(&world).await, (found.0 - 1, found.1 + 1), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_share_a_key_because_a_part_of_it_is_null_are_written_once_each() {
    let client = connect().await;
    let sql = "DROP TABLE IF EXISTS partly; CREATE TABLE partly (a int, b text, v text, updated_at timestamptz, \
               UNIQUE (a, b)); INSERT INTO partly VALUES (1, NULL, 'x', now()), (1, NULL, 'y', now()), (1, 'b', 'z', now())";
    execute(&client, sql).await;
    let world = World::new(secret());
    let columns = "{a: integer, b: text, v: text, updated_at: timestamptz}";
    world.apply(&with_dimension("partly", "[a, b]", columns)).await;
    assert_eq!(ingested(&world).await, (3, 0));
    assert_eq!(ingested(&world).await, (0, 0));
    execute(&client, "UPDATE partly SET v = 'w', updated_at = now() WHERE v = 'x'").await;
    assert_eq!(ingested(&world).await, (1, 0));
    // Of a row that no table took nothing has to be deleted.
    execute(&client, "DELETE FROM partly WHERE b IS NULL").await;
    assert_eq!(ingested(&world).await, (0, 0));
    assert_eq!(members(&world).await, (1, 0));
    assert_eq!(world.state().await.sources["partly"].quarantined, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_gets_another_case_is_another_key_although_postgresql_takes_them_for_one() {
    let server = Server::start();
    let client = connect_to(&server.url("postgres")).await;
    let sql = "CREATE SCHEMA elsewhere; CREATE EXTENSION citext SCHEMA elsewhere; \
               CREATE TABLE cased (id elsewhere.citext PRIMARY KEY, updated_at timestamptz); \
               INSERT INTO cased VALUES ('a', now()), ('b', now())";
    execute(&client, sql).await;
    let world = World::new(secret_of(&server.url("postgres")));
    world.apply(&with_dimension("cased", "id", "{id: text, updated_at: timestamptz}")).await;
    assert_eq!(ingested(&world).await, (2, 0));
    execute(&client, "UPDATE cased SET id = 'A', updated_at = now() WHERE id = 'a'").await;
    assert_eq!(ingested(&world).await, (1, 1));
    assert_eq!(ingested(&world).await, (0, 0));
    assert_eq!(members(&world).await, (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_columns_change_their_order_or_number_in_the_file_deletes_no_row_that_lives() {
    let client = connect().await;
    let sql = "DROP TABLE IF EXISTS ordered; CREATE TABLE ordered (a int, b text, updated_at timestamptz); \
               INSERT INTO ordered SELECT n, 'x' || n, now() FROM generate_series(1, 20) n";
    execute(&client, sql).await;
    let world = World::new(secret());
    let file = |key: &str| with_dimension("ordered", key, "{a: integer, b: text, updated_at: timestamptz}");
    world.apply(&file("[a, b]")).await;
    assert_eq!(ingested(&world).await, (20, 0));
    world.apply(&file("[b, a]")).await;
    execute(&client, "DELETE FROM ordered WHERE a = 3").await;
    // Their lines are as they were, so that none is written again.
    assert_eq!(ingested(&world).await, (0, 1));
    assert_eq!(members(&world).await, (19, 1));
    // By less than its columns a key is still told.
    world.apply(&file("a")).await;
    execute(&client, "DELETE FROM ordered WHERE a = 4").await;
    assert_eq!(ingested(&world).await, (0, 1));
    assert_eq!(members(&world).await, (18, 2));
    // By more it is not: all rows are known anew.
    world.apply(&file("[a, updated_at]")).await;
    assert_eq!(ingested(&world).await, (18, 0));
    execute(&client, "DELETE FROM ordered WHERE a = 5").await;
    assert_eq!(ingested(&world).await, (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_while_it_is_read_does_not_look_empty() {
    create("rewritten", 20, 1).await;
    let (client, long) = (connect().await, connect().await);
    let world = World::new(secret());
    world.apply(&schema(&["rewritten"])).await;
    assert_eq!(ingested(&world).await, (20, 0));
    execute(&long, "BEGIN; ALTER TABLE rewritten ADD told timestamptz DEFAULT clock_timestamp()").await;
    let (done, ()) = tokio::join!(ingested(&world), async {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%\"rewritten\"%'";
        while ask(&client, waits).await[0][0].as_deref() == Some("0") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        execute(&long, "COMMIT").await;
    });
    assert_eq!(done.1, 0, "no row was deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_does_not_fit_into_a_call_goes_on_in_the_next_ones() {
    create("long_compared", 600, 1).await;
    let client = connect().await;
    // So that few of them are read again by their time.
    execute(&client, "UPDATE long_compared SET updated_at = timestamptz '2024-01-01' + id * interval '1 min'").await;
    let mut world = World::new(secret());
    // Nothing is due for a day once a comparison has seen all.
    world.apply(&schema(&["long_compared"]).replace("hard_deletes: 0s", "hard_deletes: 1d")).await;
    assert_eq!(ingested(&world).await, (600, 0));
    world.wait(Duration::from_secs(86_400));
    execute(
        &client,
        "DELETE FROM long_compared WHERE id <= 60; INSERT INTO long_compared VALUES (601, 'x', '2001-01-01')",
    )
    .await;
    (world.rows_per_second, world.time) = (100, Duration::from_secs(5));
    let (mut found, mut calls) = ((0, 0), 0);
    while found != (1, 60) {
        let began = Instant::now();
        let (rows, deleted) = ingested(&world).await;
        assert!(began.elapsed() < world.time, "{:?}", began.elapsed());
        found = (found.0 + rows, found.1 + deleted);
        calls += 1;
        assert!(calls < 10, "{found:?} after {calls} calls");
    }
    assert!(calls > 1, "the comparison fitted into one call");
    // The last slices may have had no deleted key.
    (world.rows_per_second, world.time) = (100_000, Duration::from_secs(60));
    assert_eq!(ingested(&world).await, (0, 0));
    execute(&client, "DELETE FROM long_compared WHERE id = 100").await;
    assert_eq!(ingested(&world).await, (0, 0), "not due");
    world.wait(Duration::from_secs(86_401));
    assert_eq!(ingested(&world).await, (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_compared_no_faster_than_rows_may_be_read() {
    create("slowly_compared", 3_000, 1).await;
    let mut world = World::new(secret());
    world.apply(&schema(&["slowly_compared"])).await;
    assert_eq!(ingested(&world).await, (3_000, 0));
    execute(&connect().await, "UPDATE slowly_compared SET updated_at = '2001-01-01'").await;
    world.rows_per_second = 2_000;
    let began = Instant::now();
    assert_eq!(ingested(&world).await.1, 0);
    assert!(began.elapsed() >= Duration::from_millis(1_400), "{:?}", began.elapsed());
}

/// Why nothing was ingested.
async fn refused(world: &World) -> (String, String) {
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    let failure = done.failures.first().expect("a failure");
    (failure.error.clone(), failure.message.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_transactions_are_hidden_nothing_is_read_and_it_is_said_why() {
    let replica = Server::replica();
    let world = World::new(secret_of(&replica.url("postgres")));
    world.apply(&schema(&["hidden"])).await;
    let (error, message) = refused(&world).await;
    assert_eq!(error, "TransactionsHidden");
    assert!(message.contains("read replica"), "{message}");

    let server = Server::start();
    let client = connect_to(&server.url("postgres")).await;
    execute(&client, "CREATE TABLE hidden AS SELECT 1::bigint AS id, 'a' AS name, now() AS updated_at").await;
    let world = World::new(secret_of(&server.url("postgres")));
    world.apply(&schema(&["hidden"])).await;
    let hiding = connect_to(&server.url("postgres")).await;
    // In the middle of a transaction it shows itself again, but not when that began.
    for sql in ["SET track_activities = off", "BEGIN; SET track_activities = on", "SELECT 1"] {
        execute(&hiding, sql).await;
        let (error, message) = refused(&world).await;
        assert_eq!(error, "TransactionsHidden", "{sql}");
        assert!(message.contains("track_activities"), "{message}");
    }
    // Nor while a statement runs.
    let (refusal, ()) = tokio::join!(refused(&world), execute(&hiding, "SELECT pg_sleep(4)"));
    assert_eq!(refusal.0, "TransactionsHidden");
    execute(&hiding, "COMMIT").await;
    assert_eq!(ingested(&world).await, (1, 0));
    execute(&client, "ALTER SYSTEM SET track_activities = off").await;
    execute(&client, "SELECT pg_reload_conf()").await;
    execute(&client, "SELECT pg_sleep(0.2)").await;
    assert_eq!(refused(&world).await.0, "TransactionsHidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_in_the_middle_of_a_transaction_hides_nothing() {
    let server = Server::start();
    let client = connect_to(&server.url("postgres")).await;
    execute(&client, "CREATE TABLE ended AS SELECT 1::bigint AS id, 'a' AS name, now() AS updated_at").await;
    let world = World::new(secret_of(&server.url("postgres")));
    world.apply(&schema(&["ended"])).await;
    let url = server.url("postgres");
    let ending = || async {
        loop {
            execute(&connect_to(&url).await, "BEGIN; SELECT 1").await;
        }
    };
    let ingests = async {
        for _ in 0..100 {
            ingested(&world).await;
        }
    };
    tokio::select! {
        () = ingests => {}
        _ = futures::future::join_all([ending(), ending(), ending(), ending(), ending(), ending()]) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_and_made_anew_is_read_from_its_beginning() {
    create("remade", 3, 1).await;
    let client = connect().await;
    let world = World::new(secret());
    world.apply(&schema(&["remade"]).replace("hard_deletes: 0s, ", "")).await;
    assert_eq!(ingested(&world).await, (3, 0));
    let rows = |id: u32| format!("INSERT INTO remade VALUES ({id}, 'older', '2001-01-01')");
    // In the same table only a full read would find it.
    execute(&client, &format!("TRUNCATE remade; {}", rows(4))).await;
    assert_eq!(ingested(&world).await, (0, 0));
    execute(&client, "CREATE TABLE remade_next (LIKE remade); DROP TABLE remade").await;
    execute(&client, &format!("ALTER TABLE remade_next RENAME TO remade; {}", rows(5))).await;
    assert_eq!(ingested(&world).await, (1, 0));
    assert_eq!(ingested(&world).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_larger_than_the_disk_is_written_while_it_is_read() {
    create("oversized", 30_000, 4_000).await;
    let mut world = World::new(secret());
    world.spool_bytes = 4_000_000;
    world.apply(&schema(&["oversized"])).await;
    // Cut off in the middle, so that what was written by then is to be seen: whole objects, of 16 MB.
    (world.rows_per_second, world.time) = (1_500, Duration::from_secs(18));
    let (error, message) = refused(&world).await;
    assert_eq!(error, "ReadFailed", "{message}");
    let written = world.lines("oversized").len();
    assert!(written > 0 && written < 30_000, "{written} rows");
    (world.rows_per_second, world.time) = (100_000, Duration::from_secs(120));
    assert_eq!(ingested(&world).await, (30_000 - written as u64, 0));
    let lines = world.lines("oversized");
    let keys: std::collections::BTreeSet<_> = lines.iter().map(|(_, line)| line.split(',').next()).collect();
    assert_eq!((lines.len(), keys.len()), (30_000, 30_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_a_new_spelling_began_goes_on_though_none_is_due() {
    create("respelled", 600, 1).await;
    let client = connect().await;
    let old = "UPDATE respelled SET updated_at = timestamptz '2024-01-01' + id * interval '1 min'";
    execute(&client, old).await;
    let mut world = World::new(secret());
    world.apply(&schema(&["respelled"]).replace("hard_deletes: 0s", "hard_deletes: 1d")).await;
    assert_eq!(ingested(&world).await, (600, 0));
    execute(&client, "ALTER TABLE respelled ALTER id TYPE text; DELETE FROM respelled WHERE length(id) = 2").await;
    (world.rows_per_second, world.time) = (100, Duration::from_secs(5));
    let (mut deleted, mut calls) = (0, 0);
    while deleted < 90 {
        deleted += ingested(&world).await.1;
        calls += 1;
        assert!(calls < 10, "{deleted} deleted after {calls} calls");
    }
    assert!(calls > 1, "the comparison fitted into one call");
    (world.rows_per_second, world.time) = (100_000, Duration::from_secs(60));
    while world.ingest_row("respelled").await.compare_from > 0 {
        assert_eq!(ingested(&world).await.1, 0);
    }
    execute(&client, "DELETE FROM respelled WHERE id = '100'").await;
    assert_eq!(ingested(&world).await, (0, 0), "not due");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_rds_manages_takes_host_port_and_name_from_the_settings() {
    create("placed", 1, 1).await;
    let whole: serde_json::Value = serde_json::from_str(&secret()).expect("a secret");
    let of = |parts: &[&str]| {
        let parts = parts.iter().map(|part| ((*part).to_owned(), whole[*part].clone()));
        serde_json::Value::Object(parts.collect()).to_string()
    };
    let mut world = World::new(of(&["username", "password", "sslmode"]));
    world.apply(&schema(&["placed"])).await;
    let text = |part: &str| whole[part].as_str().map(str::to_owned);
    let (error, message) = refused(&world).await;
    assert_eq!(error, "SecretUnavailable");
    assert!(message.contains("names no host, and ALERT_ARCHIVE_DATABASE_HOST"), "{message}");
    world.place.host = text("host");
    let (error, message) = refused(&world).await;
    assert_eq!(error, "SecretUnavailable");
    assert!(message.contains("names no name, and ALERT_ARCHIVE_DATABASE_NAME"), "{message}");
    world.place.name = text("dbname");
    world.place.port = whole["port"].as_u64().and_then(|port| port.try_into().ok());
    assert_eq!(ingested(&world).await, (1, 0));
    // What the secret says is newer: a rotation may move the database.
    world.rotate(&[secret()]);
    world.place = Place { host: Some("gone.invalid".into()), port: Some(1), name: Some("gone".into()) };
    assert_eq!(ingested(&world).await, (0, 0));
    world.rotate(&[of(&["username"])]);
    assert_eq!(refused(&world).await.0, "SecretUnavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_believed_by_the_authorities_that_are_named_and_by_no_others() {
    let (server, other) = (Server::with_tls(), Server::with_tls());
    let client = connect_to(&server.url("postgres")).await;
    execute(&client, "CREATE TABLE sealed AS SELECT 1::bigint AS id, 'a' AS name, now() AS updated_at").await;
    let managed = serde_json::json!({"username": "postgres", "password": PASSWORD}).to_string();
    let mut world = World::new(managed);
    world.apply(&schema(&["sealed"])).await;
    world.place = Place { host: Some("127.0.0.1".into()), port: Some(server.port), name: Some("postgres".into()) };
    // The system knows nothing of this authority.
    assert_eq!(refused(&world).await.0, "ConnectionFailed");
    let key = "_database/authorities.pem";
    world.authorities = Some(key.into());
    let (error, message) = refused(&world).await;
    assert_eq!(error, "AuthoritiesUnusable");
    assert!(message.contains(key), "{message}");
    for broken in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        world
            .put(
                WAREHOUSE,
                key,
                &format!("{}{broken}", if broken.len() > 20 { server.authority() } else { String::new() }),
            )
            .await;
        assert_eq!(refused(&world).await.0, "AuthoritiesUnusable", "{broken}");
    }
    world.put(WAREHOUSE, key, &other.authority()).await;
    assert_eq!(refused(&world).await.0, "ConnectionFailed");
    world.put(WAREHOUSE, key, &(other.authority() + &server.authority())).await;
    assert_eq!(ingested(&world).await, (1, 0));
    // Another name than that in the certificate.
    world.place.host = Some("localhost".into());
    assert_eq!(refused(&world).await.0, "ConnectionFailed");
}

#[tokio::test(flavor = "multi_thread")]
async fn ingests_that_fail_in_a_row_are_counted_until_one_goes_well() {
    create("counted", 1, 1).await;
    let client = connect().await;
    let world = World::new(with_password("wrong"));
    world.apply(&schema(&["counted"])).await;
    // Each of them tries the connection three times.
    for failed in 1..3 {
        assert_eq!(refused(&world).await.0, "ConnectionFailed");
        assert_eq!(world.ingest_row("counted").await.failures_in_a_row, failed);
    }
    world.rotate(&[secret()]);
    execute(&client, "REVOKE SELECT ON counted FROM CURRENT_USER").await;
    assert_eq!(refused(&world).await.0, "PermissionDenied");
    assert_eq!(world.ingest_row("counted").await.failures_in_a_row, 3);
    execute(&client, "GRANT SELECT ON counted TO CURRENT_USER").await;
    assert_eq!(ingested(&world).await, (1, 0));
    assert_eq!(world.ingest_row("counted").await.failures_in_a_row, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prepared_transaction_commits_is_read_however_many_ingests_went_by() {
    let server = Server::start();
    let client = connect_to(&server.url("postgres")).await;
    execute(&client, "CREATE TABLE prepared (id bigint PRIMARY KEY, name text, updated_at timestamptz)").await;
    let world = World::new(secret_of(&server.url("postgres")));
    // Without the comparison of keys, which would find the row too.
    world.apply(&schema(&["prepared"]).replace("hard_deletes: 0s, ", "")).await;
    let sql = "BEGIN; INSERT INTO prepared VALUES (1, 'late', now()); SELECT pg_sleep(6); PREPARE TRANSACTION 'late'";
    execute(&client, sql).await;
    for id in 2..5 {
        execute(&client, &format!("INSERT INTO prepared VALUES ({id}, 'early', now())")).await;
        assert_eq!(ingested(&world).await, (1, 0), "row {id}");
    }
    execute(&client, "COMMIT PREPARED 'late'").await;
    assert_eq!((ingested(&world).await, world.lines("prepared").len()), ((1, 0), 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_which_the_role_may_see_only_some_rows_is_refused_and_no_row_of_it_is_told_as_deleted() {
    let server = Server::start();
    let client = connect_to(&server.url("postgres")).await;
    execute(&client, &Server::role("reader")).await;
    let sql = "CREATE TABLE guarded AS SELECT n::bigint AS id, 'a' AS name, now() AS updated_at FROM generate_series(1, 9) n; \
               GRANT SELECT ON guarded TO reader";
    execute(&client, sql).await;
    let world = World::new(secret_of(&server.url("reader")));
    world.apply(&schema(&["guarded"])).await;
    assert_eq!(ingested(&world).await, (9, 0));
    execute(&client, "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON guarded USING (id < 5)")
        .await;
    let (error, message) = refused(&world).await;
    assert_eq!(error, "PermissionDenied");
    assert!(message.contains("row-level security"), "{message}");
    assert_eq!(world.lines("guarded").len(), 9);
    execute(&client, "ALTER ROLE reader BYPASSRLS").await;
    assert_eq!(ingested(&world).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_table_that_cannot_be_ingested_says_why_by_name_and_the_others_go_on() {
    let client = connect().await;
    for table in ["without_cursor", "without_key", "wrong_cursor", "denied", "well"] {
        create(table, 1, 1).await;
    }
    execute(
        &client,
        "DROP TABLE IF EXISTS absent; ALTER TABLE without_cursor DROP updated_at; ALTER TABLE without_key DROP id; \
         ALTER TABLE wrong_cursor ALTER updated_at TYPE text; REVOKE SELECT ON denied FROM CURRENT_USER",
    )
    .await;
    let world = World::new(secret());
    let names = ["absent", "without_cursor", "without_key", "wrong_cursor", "denied", "well"];
    world.apply(&schema(&names)).await;
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    let failed: Vec<_> = done.failures.iter().map(|failure| (failure.table.as_str(), failure.error.as_str())).collect();
    let expected = [
        ("absent", "UnknownTable"),
        ("without_cursor", "MissingTimestampColumn"),
        ("without_key", "MissingKeyColumn"),
        ("wrong_cursor", "MissingTimestampColumn"),
        ("denied", "PermissionDenied"),
    ];
    assert_eq!((failed, done.tables[5].rows), (expected.to_vec(), 1));
    execute(&client, "GRANT SELECT ON denied TO CURRENT_USER").await;
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((done.failures.len(), done.tables[4].rows, done.tables[5].rows), (4, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_the_password_is_sent_only_where_the_secret_says_so() {
    create("plain", 1, 1).await;
    let world = World::new(secret());
    world.apply(&schema(&["plain"])).await;
    let mut careful: serde_json::Value = serde_json::from_str(&secret()).expect("a secret");
    careful.as_object_mut().expect("an object").remove("sslmode");
    world.rotate(&[careful.to_string()]);
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((done.failures[0].error.as_str(), done.tables[0].rows), ("ConnectionFailed", 0));
    assert!(done.failures[0].message.contains("TLS"), "{}", done.failures[0].message);
    world.rotate(&[secret()]);
    let done = world.ingest(Calm::shared(), false).await.expect("an ingest");
    assert_eq!((done.failures.len(), done.tables[0].rows), (0, 1));
}
