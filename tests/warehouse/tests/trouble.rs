//! The ingest while its database is in trouble: connections that end, passwords that change, locks, limits.

use network::Calm;
use std::time::{Duration, Instant};
use warehouse_tests::{
    postgres::{ask, connect, execute, secret, with_password},
    world::{INGESTION, World},
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
