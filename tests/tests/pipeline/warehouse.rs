//! From PostgreSQL to the star schema: what DuckDB reads is what PostgreSQL has.

use crate::tests;
use anyhow::{Context, Result, ensure};
use pipeline_tests::Cloud;
use serde_json::{Value, json};
use std::{env, process::Stdio};
use tokio::{io::AsyncWriteExt, process::Command};

tests![
    after_each_week_and_a_rebuild_every_question_has_the_answer_that_postgresql_gives,
    a_transaction_that_commits_after_two_ingests_is_written_once,
    two_ingests_at_once_write_each_row_once_and_leave_no_gap,
    an_object_in_the_way_is_named_and_never_overwritten,
    a_line_that_does_not_fit_is_in_its_place_once_a_wider_file_is_applied,
    objects_out_of_order_twice_and_with_a_gap_make_the_tables_of_the_ids,
    tables_that_cannot_be_read_are_named_and_the_others_go_on,
    connections_that_break_while_a_table_is_read_lose_and_double_nothing,
    consolidated_feeds_make_tables_as_soon_as_they_land,
];

pub const ORDERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/warehouse/orders.yaml");

async fn psql(arguments: &[&str]) -> Result<String> {
    let url = env::var("ALERT_ARCHIVE_DATABASE_URL").context("ALERT_ARCHIVE_DATABASE_URL")?;
    let output = Command::new("psql").args([&url, "-XAtq", "-v", "ON_ERROR_STOP=1"]).args(arguments).output().await?;
    ensure!(output.status.success(), "psql {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

async fn sql(statement: &str) -> Result<String> {
    psql(&["-c", statement]).await
}

pub async fn script(name: &str, arguments: &[&str]) -> Result<String> {
    let path = format!("{}/../fixtures/warehouse/{name}", env!("CARGO_MANIFEST_DIR"));
    psql(&[arguments, &["-f", &path]].concat()).await
}

/// Runs a warehouse command that must go well.
async fn well(cloud: &Cloud, arguments: &[&str]) -> Result<Value> {
    let done = cloud.archive(&[&["warehouse"], arguments].concat()).await?;
    ensure!(done.well, "warehouse {}: {:#}\n{}", arguments.join(" "), done.report, done.said);
    Ok(done.report)
}

/// Puts a schema file in force; returns when all is built by it.
async fn apply(cloud: &Cloud, text: &str) -> Result<()> {
    std::fs::create_dir_all(&cloud.scratch)?;
    let path = cloud.scratch.join("schema.yaml");
    std::fs::write(&path, text)?;
    well(cloud, &["apply", path.to_str().context("path")?, "--wait"]).await?;
    Ok(())
}

async fn compare(cloud: &Cloud) -> Result<()> {
    let status = well(cloud, &["status", "--json"]).await?;
    let compare = concat!(env!("CARGO_MANIFEST_DIR"), "/compare_warehouse.py");
    let mut command = Command::new(&cloud.python);
    let mut child = command.arg(compare).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(status.to_string().as_bytes()).await?;
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(())
}

/// All lines that lie below a table's prefix, in the order of their objects' ids.
async fn lines(cloud: &Cloud, table: &str) -> Result<Vec<Value>> {
    let bucket = env::var("ALERT_ARCHIVE_INGESTION_BUCKET")?;
    let listed = cloud.s3.list_objects_v2().bucket(&bucket).prefix(format!("{table}/")).send().await?;
    let mut keys: Vec<&str> = listed.contents().iter().filter_map(|object| object.key()).collect();
    keys.sort_by_key(|key| key.rsplit('-').next().map(str::to_owned));
    let mut lines = Vec::new();
    for key in keys {
        let body = cloud.s3.get_object().bucket(&bucket).key(key).send().await?.body.collect().await?.into_bytes();
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            lines.push(serde_json::from_slice(line)?);
        }
    }
    Ok(lines)
}

async fn put(cloud: &Cloud, key: &str, body: &str) -> Result<()> {
    let bucket = env::var("ALERT_ARCHIVE_INGESTION_BUCKET")?;
    cloud.s3.put_object().bucket(bucket).key(key).body(body.as_bytes().to_vec().into()).send().await?;
    Ok(())
}

async fn source(cloud: &Cloud, table: &str) -> Result<Value> {
    let status = well(cloud, &["status", "--json"]).await?;
    let found = status["sources"].as_array().into_iter().flatten().find(|source| source["table"] == table);
    found.cloned().with_context(|| format!("{table} is not in {status:#}"))
}

/// What Parameter Store says of a table.
async fn parameter(cloud: &Cloud, name: &str) -> Result<Value> {
    let ssm = aws_sdk_ssm::Client::new(&runtime::aws_config().await);
    let found = ssm.get_parameter().name(format!("/{}/warehouse/{name}", cloud.prefix)).send().await?;
    let value = found.parameter.and_then(|parameter| parameter.value).context("no value")?;
    Ok(serde_json::from_str(&value)?)
}

/// Waits until nothing that landed is waiting any more.
async fn built(cloud: &Cloud) -> Result<Value> {
    for _ in 0..240 {
        let status = well(cloud, &["status", "--json"]).await?;
        if status["up_to_date"] == true {
            return Ok(status);
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    anyhow::bail!("the warehouse is not up to date after two minutes")
}

/// Rows of a table of the warehouse as DuckDB reads them.
async fn read(cloud: &Cloud, table: &str, columns: &str) -> Result<Value> {
    let status = built(cloud).await?;
    let tables = status["tables"].as_array().context("tables")?;
    let location = tables.iter().find(|found| found["table"] == table).context("table")?["location"].as_str();
    let (bucket, prefix) =
        location.and_then(|location| location.strip_prefix("s3://")?.split_once('/')).context("location")?;
    let folder = cloud.scratch.join(prefix);
    std::fs::create_dir_all(&folder)?;
    let listed = cloud.s3.list_objects_v2().bucket(bucket).prefix(prefix).send().await?;
    for key in listed.contents().iter().filter_map(|object| object.key()) {
        let body = cloud.s3.get_object().bucket(bucket).key(key).send().await?.body.collect().await?.into_bytes();
        std::fs::write(folder.join(key.rsplit('/').next().context("name")?), body)?;
    }
    let program = format!(
        "import duckdb, json; r = duckdb.sql(\"SELECT {columns} FROM read_parquet('{}/*.parquet') ORDER BY ALL\"); \
         print(json.dumps(r.fetchall(), default=str))",
        folder.display()
    );
    let output = Command::new(&cloud.python).args(["-c", &program]).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A warehouse without a history: what other tests, or an earlier run of them, made of tables of the same names would
/// still be there.
async fn forget_everything(cloud: &Cloud) -> Result<()> {
    let status = cloud.archive(&["warehouse", "status", "--json"]).await?;
    if status.well {
        built(cloud).await?;
    }
    for bucket in ["ALERT_ARCHIVE_INGESTION_BUCKET", "ALERT_ARCHIVE_WAREHOUSE_BUCKET"].map(env::var) {
        let bucket = bucket?;
        let mut pages = cloud.s3.list_objects_v2().bucket(&bucket).into_paginator().send();
        while let Some(page) = pages.next().await {
            for key in page?.contents().iter().filter_map(|object| object.key()) {
                cloud.s3.delete_object().bucket(&bucket).key(key).send().await?;
            }
        }
    }
    let table = env::var("ALERT_ARCHIVE_WAREHOUSE_TABLE")?;
    for row in cloud.dynamodb.scan().table_name(&table).send().await?.items() {
        let name = row.get("name").cloned().context("a row without a name")?;
        cloud.dynamodb.delete_item().table_name(&table).key("name", name).send().await?;
    }
    let ssm = aws_sdk_ssm::Client::new(&runtime::aws_config().await);
    let path = format!("/{}/warehouse", cloud.prefix);
    let mut pages = ssm.get_parameters_by_path().path(path).recursive(true).into_paginator().send();
    while let Some(page) = pages.next().await {
        for parameter in page?.parameters() {
            ssm.delete_parameter().name(parameter.name().unwrap_or_default()).send().await?;
        }
    }
    Ok(())
}

async fn after_each_week_and_a_rebuild_every_question_has_the_answer_that_postgresql_gives(
    cloud: &Cloud,
) -> Result<()> {
    forget_everything(cloud).await?;
    well(cloud, &["apply", ORDERS, "--wait"]).await?;
    script("orders.sql", &[]).await?;
    for week in 1..=4 {
        script("week.sql", &["-v", &format!("week={week}")]).await?;
        well(cloud, &["ingest", "--wait", "--json"]).await?;
        compare(cloud).await.with_context(|| format!("after week {week}"))?;
        let again = well(cloud, &["ingest", "--json"]).await?;
        let rows = again["tables"].as_array().into_iter().flatten().map(|table| table["rows"].as_u64());
        ensure!(rows.sum::<Option<u64>>() == Some(0), "rows were written again: {again:#}");
    }
    let told = parameter(cloud, "customer/ingest").await?;
    let customers = source(cloud, "customer").await?;
    for name in ["timestamp", "sequential_id", "latest_object"] {
        ensure!(told[name] == customers[name], "{told:#} is not what the status says: {customers:#}");
    }
    ensure!(parameter(cloud, "customer/build").await?["rows"] == customers["rows"], "the parameter of the build");
    let keys = read(cloud, "dim_customer", "customer_id, valid_from, customer_key").await?;
    well(cloud, &["rebuild", "--wait"]).await?;
    compare(cloud).await.context("after the rebuild")?;
    ensure!(
        keys == read(cloud, "dim_customer", "customer_id, valid_from, customer_key").await?,
        "keys differ after a rebuild"
    );
    Ok(())
}

async fn a_transaction_that_commits_after_two_ingests_is_written_once(cloud: &Cloud) -> Result<()> {
    sql("DROP TABLE IF EXISTS late; CREATE TABLE late (id integer PRIMARY KEY, updated_at timestamptz DEFAULT now())")
        .await?;
    apply(
        cloud,
        "version: 1\ntables:\n  late: {key: id, cursor: updated_at, columns: {id: integer, updated_at: timestamptz}}\n",
    )
    .await?;
    let url = env::var("ALERT_ARCHIVE_DATABASE_URL")?;
    let mut held = Command::new("psql").args([&url, "-Xq"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut session = held.stdin.take().context("stdin")?;
    session.write_all(b"BEGIN; INSERT INTO late (id) VALUES (1);\n").await?;
    session.flush().await?;
    while sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%late%'")
        .await?
        .trim()
        != "1"
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    sql("INSERT INTO late (id) VALUES (2)").await?;
    // As far ahead of the late row as its transaction may be long.
    sql("INSERT INTO late VALUES (3, now() + interval '1 hour')").await?;
    for _ in 0..2 {
        well(cloud, &["ingest", "--json"]).await?;
    }
    session.write_all(b"COMMIT;\n").await?;
    drop(session);
    held.wait().await?;
    for _ in 0..2 {
        well(cloud, &["ingest", "--wait", "--json"]).await?;
    }
    let mut ids: Vec<i64> = lines(cloud, "late").await?.iter().filter_map(|line| line["id"].as_i64()).collect();
    ids.sort_unstable();
    ensure!(ids == [1, 2, 3], "{ids:?}");
    Ok(())
}

async fn two_ingests_at_once_write_each_row_once_and_leave_no_gap(cloud: &Cloud) -> Result<()> {
    sql(
        "DROP TABLE IF EXISTS twice; CREATE TABLE twice AS SELECT n AS id, repeat('x', 500) AS t, now() AS updated_at \
         FROM generate_series(1, 50000) n",
    )
    .await?;
    apply(cloud, "version: 1\ntables:\n  twice: {key: id, cursor: updated_at, columns: {id: integer, updated_at: timestamptz}}\n").await?;
    let (one, two) = tokio::join!(well(cloud, &["ingest", "--json"]), well(cloud, &["ingest", "--json"]));
    one?;
    two?;
    built(cloud).await?;
    let lines = lines(cloud, "twice").await?;
    let ids: std::collections::BTreeSet<_> = lines.iter().filter_map(|line| line["id"].as_i64()).collect();
    ensure!((lines.len(), ids.len()) == (50_000, 50_000), "{} lines of {} rows", lines.len(), ids.len());
    let source = source(cloud, "twice").await?;
    ensure!(source["gaps"] == json!([]) && source["rows"] == 50_000, "{source:#}");
    Ok(())
}

async fn an_object_in_the_way_is_named_and_never_overwritten(cloud: &Cloud) -> Result<()> {
    sql("DROP TABLE IF EXISTS held; CREATE TABLE held AS SELECT 1 AS id, timestamptz '2024-01-01 00:00:01+00' AS updated_at").await?;
    apply(
        cloud,
        "version: 1\ntables:\n  held: {key: id, cursor: updated_at, columns: {id: integer, updated_at: timestamptz}}\n",
    )
    .await?;
    let key = "held/20240101T000001.000000Z-0000000001.jsonl";
    put(cloud, key, "{\"id\":7}\n").await?;
    for _ in 0..2 {
        let refused = cloud.archive(&["warehouse", "ingest", "--json"]).await?;
        ensure!(!refused.well && refused.report["tables"][0]["error"] == "ObjectExists", "{:#}", refused.report);
    }
    ensure!(lines(cloud, "held").await? == [json!({"id": 7})], "the object was overwritten");
    let bucket = env::var("ALERT_ARCHIVE_INGESTION_BUCKET")?;
    cloud.s3.delete_object().bucket(bucket).key(key).send().await?;
    let done = well(cloud, &["ingest", "--wait", "--json"]).await?;
    ensure!(done["tables"][0]["objects"] == json!([key]), "{done:#}");
    Ok(())
}

async fn a_line_that_does_not_fit_is_in_its_place_once_a_wider_file_is_applied(cloud: &Cloud) -> Result<()> {
    let file = |of: &str| {
        format!(
            "version: 1\ntables:\n  fits: {{source: objects, key: id, columns: {{id: integer, n: \"{of}\"}}}}\n\
                 dimensions: {{fits: {{from: fits, type1: [n]}}}}\n"
        )
    };
    apply(cloud, &file("decimal(4,2)")).await?;
    let body =
        "{\"id\":1,\"n\":1.25}\n{\"id\":2,\"n\":1.255}\nno line\n{\"id\":3,\"n\":\"NaN\",\"other\":1}\n{\"n\":1}\n";
    put(cloud, "fits/20240101T000000.000000Z-0000000001.jsonl", body).await?;
    let rows = read(cloud, "dim_fits", "id, n::VARCHAR").await?;
    ensure!(rows == json!([[1, "1.25"], [null, null], [null, null]]), "{rows}");
    let source = source(cloud, "fits").await?;
    ensure!(source["quarantined"] == 4 && source["rows"] == 1, "{source:#}");
    ensure!(source["schema_changes"] == json!([{"column": "other", "change": "added"}]), "{source:#}");
    apply(cloud, &file("text")).await?;
    let rows = read(cloud, "dim_fits", "id, n::VARCHAR").await?;
    ensure!(rows == json!([[1, "1.25"], [2, "1.255"], [3, "NaN"], [null, null], [null, null]]), "{rows}");
    Ok(())
}

async fn objects_out_of_order_twice_and_with_a_gap_make_the_tables_of_the_ids(cloud: &Cloud) -> Result<()> {
    let columns = "{id: integer, n: integer, at: timestamptz}";
    apply(
        cloud,
        &format!(
            "version: 1\ntables:\n  order: {{source: objects, key: id, cursor: at, columns: {columns}}}\n\
        dimensions: {{order: {{from: order, type2: [n]}}}}\n"
        ),
    )
    .await?;
    let object = |id: u32, n: u32| {
        let key = format!("order/20240101T00000{n}.000000Z-{id:010}.jsonl");
        (key, format!("{{\"id\":1,\"n\":{n},\"at\":\"2024-01-01T00:00:0{n}Z\"}}\n"))
    };
    for (id, n) in [(4, 4), (1, 1), (4, 4), (2, 2), (1, 1)] {
        let (key, body) = object(id, n);
        put(cloud, &key, &body).await?;
    }
    built(cloud).await?;
    let columns = "n, epoch(valid_from)::BIGINT % 60, is_current";
    let rows = read(cloud, "dim_order", columns).await?;
    ensure!(
        rows[0] == json!([1, 1, false]) && rows[1] == json!([2, 2, false]) && rows[2] == json!([4, 4, true]),
        "{rows}"
    );
    ensure!(source(cloud, "order").await?["gaps"] == json!([[3, 3]]), "no gap");
    let (key, body) = object(3, 3);
    put(cloud, &key, &body).await?;
    built(cloud).await?;
    let rows = read(cloud, "dim_order", columns).await?;
    ensure!(rows[2] == json!([3, 3, false]) && rows[3] == json!([4, 4, true]), "{rows}");
    ensure!(source(cloud, "order").await?["gaps"] == json!([]), "the gap stays");
    Ok(())
}

async fn tables_that_cannot_be_read_are_named_and_the_others_go_on(cloud: &Cloud) -> Result<()> {
    sql("DROP TABLE IF EXISTS fine, cursorless, guarded; CREATE TABLE fine (id integer, updated_at timestamptz); \
         INSERT INTO fine VALUES (1, now()); CREATE TABLE cursorless (id integer, updated_at text); \
         CREATE TABLE guarded (id integer, updated_at timestamptz); REVOKE ALL ON guarded FROM PUBLIC; \
         REVOKE ALL ON guarded FROM warehouse_reader")
    .await?;
    let table = |name: &str| {
        format!("  {name}: {{key: id, cursor: updated_at, columns: {{id: integer, updated_at: timestamptz}}}}\n")
    };
    let tables = ["absent", "cursorless", "fine", "guarded"].map(table).concat();
    apply(cloud, &format!("version: 1\ntables:\n{tables}")).await?;
    let done = cloud.archive(&["warehouse", "ingest", "--json"]).await?;
    let errors: Vec<_> =
        done.report["tables"].as_array().into_iter().flatten().map(|table| table["error"].as_str()).collect();
    let expected = [Some("UnknownTable"), Some("MissingTimestampColumn"), None, Some("PermissionDenied")];
    ensure!(!done.well && errors == expected && done.report["tables"][2]["rows"] == 1, "{:#}", done.report);
    let page: Value = serde_json::from_slice(&cloud.get("dashboard/data/warehouse.json").await?)?;
    ensure!(page["section"]["headline"] == "3 tables could not be ingested.", "{page:#}");
    apply(cloud, &format!("version: 1\ntables:\n{}", table("fine"))).await
}

async fn connections_that_break_while_a_table_is_read_lose_and_double_nothing(cloud: &Cloud) -> Result<()> {
    sql("DROP TABLE IF EXISTS broken; CREATE TABLE broken AS SELECT n AS id, repeat('x', 400) AS t, now() AS updated_at \
         FROM generate_series(1, 60000) n")
    .await?;
    apply(
        cloud,
        "version: 1\ntables:\n  broken: {key: id, cursor: updated_at, columns: {id: integer, updated_at: timestamptz}}\n",
    )
    .await?;
    // As a restart of the database does to a reader.
    let breaking = async {
        for _ in 0..2000 {
            let ended = sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE application_name = 'alert-archive ingest-tables' AND query LIKE '%broken%'")
            .await?;
            if ended.trim() != "0" {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        anyhow::bail!("no connection was seen that reads the table")
    };
    let (ingested, broken) = tokio::join!(cloud.archive(&["warehouse", "ingest", "--json"]), breaking);
    broken?;
    // It tries again by itself, and if that were not enough, the next one does.
    if !ingested?.well {
        well(cloud, &["ingest", "--json"]).await?;
    }
    let lines = lines(cloud, "broken").await?;
    let ids: std::collections::BTreeSet<_> = lines.iter().filter_map(|line| line["id"].as_i64()).collect();
    ensure!((lines.len(), ids.len()) == (60_000, 60_000), "{} lines of {} rows", lines.len(), ids.len());
    Ok(())
}

async fn consolidated_feeds_make_tables_as_soon_as_they_land(cloud: &Cloud) -> Result<()> {
    let columns = "{id: integer, price: \"decimal(8,2)\"}";
    apply(
        cloud,
        &format!(
            "version: 1\ntables:\n  quote: {{source: feed/quotes, key: id, columns: {columns}}}\n\
             dimensions: {{quote: {{from: quote, type1: [price]}}}}\n"
        ),
    )
    .await?;
    let text = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
    let none = || aws_sdk_dynamodb::types::AttributeValue::L(Vec::new());
    let partners = env::var("ALERT_ARCHIVE_FEEDS_PARTNERS_TABLE")?;
    let row = cloud.dynamodb.put_item().table_name(partners).item("content_type", text("quotes"));
    row.item("priority_partners", none()).item("blocked_partners", none()).send().await?;
    // Functions that are warm read the table of partners once in ten seconds.
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    let bucket = env::var("ALERT_ARCHIVE_FEEDS_SOURCE_BUCKET")?;
    for (name, body) in [("a", "{\"id\":1,\"price\":1.50}\n"), ("b", "{\"id\":2,\"price\":2.25}\nno line\n")] {
        let key = format!("quotes/acme/2024/01/02/{name}.jsonl");
        cloud.s3.put_object().bucket(&bucket).key(key).body(body.as_bytes().to_vec().into()).send().await?;
    }
    for _ in 0..240 {
        if source(cloud, "quote").await?["rows"] == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let rows = read(cloud, "dim_quote", "id, price::VARCHAR").await?;
    ensure!(rows == json!([[1, "1.50"], [2, "2.25"], [null, null], [null, null]]), "{rows}");
    Ok(())
}
