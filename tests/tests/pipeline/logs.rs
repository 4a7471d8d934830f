//! From gz logs in a bucket to the mail: what the generator says stands in them is what the tables, the command line,
//! the mail and the page tell, whatever is delivered twice, late, in parts or not at all.

use crate::tests;
use anyhow::{Context, Result, ensure};
use aws_sdk_s3::primitives::ByteStream;
use fixtures::logs::{ExpectedError, LogFile, LogSpec, Service, logs};
use flate2::{Compression, write::GzEncoder};
use jiff::civil::Date;
use pipeline_tests::Cloud;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

tests![
    gz_logs_become_entries_a_report_a_mail_and_a_section_of_the_page,
    logs_delivered_twice_out_of_order_and_at_once_count_once,
    a_log_whose_extraction_is_killed_is_extracted_once,
    a_log_that_is_written_again_replaces_its_rows_and_damage_is_told,
    an_event_on_a_log_that_is_gone_ends_in_the_dead_letter_queue,
    the_saved_queries_answer_what_the_command_line_says,
];

const LONGEST: Duration = Duration::from_secs(120);

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

fn gz(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).expect("memory")
}

/// A day that no other test has, in the time that logs are from.
fn day(cloud: &Cloud) -> Result<Date> {
    // The years of the archive's tests begin long before there were logs.
    let number = i32::from(cloud.stretch().year) - 1600;
    Ok(jiff::civil::date(2001, 1, 1).checked_add(jiff::Span::new().days(number * 10))?)
}

fn range(day: Date) -> Result<(String, String)> {
    Ok((day.to_string(), day.tomorrow()?.to_string()))
}

async fn put(cloud: &Cloud, key: &str, body: Vec<u8>) -> Result<()> {
    let bucket = variable("ALERT_ARCHIVE_LOGS_BUCKET")?;
    cloud.s3.put_object().bucket(&bucket).key(key).body(ByteStream::from(body)).send().await?;
    Ok(())
}

/// What a command printed.
async fn command(cloud: &Cloud, arguments: &[&str]) -> Result<Value> {
    let done = cloud.archive(&[&["logs"], arguments].concat()).await?;
    ensure!(done.well, "logs {}: {:#}\n{}", arguments.join(" "), done.report, done.said);
    Ok(done.report)
}

/// Waits until the queue holds nothing any more, and says how it then stands.
async fn extracted(cloud: &Cloud) -> Result<Value> {
    let begun = Instant::now();
    let (mut before, mut quiet) = (Value::Null, 0);
    // Notifications are on their way for a moment.
    while quiet < 4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let done = cloud.archive(&["logs", "status", "--json"]).await?;
        ensure!(begun.elapsed() < LONGEST, "the logs are not extracted: {:#}\n{}", done.report, done.said);
        quiet = if done.report == before && done.report["waiting"] == 0 { quiet + 1 } else { 0 };
        before = done.report;
    }
    Ok(before)
}

/// Rows of Parquet whose objects begin so, as DuckDB reads them: line and fingerprint by object.
async fn rows(cloud: &Cloud, begin: &str) -> Result<BTreeMap<String, Vec<(u64, String)>>> {
    let keys: Vec<String> = cloud.keys("log-errors/parquet/").await?.into_keys().collect();
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let folder = cloud.scratch.join("log-errors");
    let _ = std::fs::remove_dir_all(&folder);
    for (key, body) in cloud.get_many(keys).await? {
        let path = folder.join(key);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(path, body)?;
    }
    let files = folder.join("log-errors/parquet/**/*.parquet");
    let sql = format!(
        "SELECT object, line, fingerprint FROM read_parquet('{}', hive_partitioning = true) \
         WHERE starts_with(object, '{begin}') ORDER BY object, line",
        files.display()
    );
    let script = "import duckdb, json, sys; print(json.dumps(duckdb.sql(sys.argv[1]).fetchall()))";
    let output = tokio::process::Command::new(&cloud.python).args(["-c", script, &sql]).output().await?;
    ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    let mut found: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for (object, line, fingerprint) in serde_json::from_slice::<Vec<(String, u64, String)>>(&output.stdout)? {
        found.entry(object).or_default().push((line, fingerprint));
    }
    Ok(found)
}

fn lines(rows: &BTreeMap<String, Vec<(u64, String)>>) -> BTreeMap<String, Vec<u64>> {
    rows.iter().map(|(object, rows)| (object.clone(), rows.iter().map(|(line, _)| *line).collect())).collect()
}

fn expected_lines<'a>(errors: impl IntoIterator<Item = &'a ExpectedError>) -> BTreeMap<String, Vec<u64>> {
    let mut lines: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for error in errors {
        lines.entry(error.object.clone()).or_default().push(error.line);
    }
    lines
}

/// Runs `report-log-errors` to its end.
async fn report(cloud: &Cloud, name: &str, input: Value) -> Result<()> {
    let machine = variable("ALERT_ARCHIVE_LOG_REPORT_STATE_MACHINE_ARN")?;
    let start = cloud.sfn.start_execution().state_machine_arn(&machine).name(name).input(input.to_string());
    let arn = start.send().await?.execution_arn;
    let begun = Instant::now();
    loop {
        let execution = cloud.sfn.describe_execution().execution_arn(&arn).send().await?;
        match execution.status.as_str() {
            "RUNNING" => ensure!(begun.elapsed() < LONGEST, "{name} does not end"),
            "SUCCEEDED" => return Ok(()),
            other => anyhow::bail!("{name} {other}: {:?} {:?}", execution.error, execution.cause),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn files(seed: u64, date: Date, release: u64) -> Result<Vec<LogFile>> {
    let of = |service| logs(&LogSpec { seed, service, date, entries: 600, rotation: 250, release });
    Ok(Service::ALL.into_iter().map(of).collect::<std::io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

async fn gz_logs_become_entries_a_report_a_mail_and_a_section_of_the_page(cloud: &Cloud) -> Result<()> {
    let today = day(cloud)?;
    let (from, to) = range(today)?;
    // A day before, with the same kinds of errors: what comes now is not new, and what then came alone is.
    let before = today.yesterday()?;
    for file in files(1, before, 1)?.iter().filter(|file| !file.key.starts_with("pay/")) {
        put(cloud, &file.key, file.body.clone()).await?;
    }
    let files = files(2, today, 2)?;
    for file in &files {
        put(cloud, &file.key, file.body.clone()).await?;
    }
    let key = |service: &str| format!("{service}/{}/hostile.gz", today.strftime("%Y/%m/%d"));
    let secret = "ERROR: login failed password=hunter2 <script>alert(1)</script>\n";
    put(cloud, &key("web"), gz(&format!("{today}T10:00:00Z {secret}"))).await?;
    let status = extracted(cloud).await?;
    ensure!(status["failed"] == 0, "{status:#}");

    let expected: Vec<&ExpectedError> = files.iter().flat_map(|file| &file.expected).collect();
    let mut found = rows(cloud, "").await?;
    found.retain(|object, _| object.contains(&today.strftime("/%Y/%m/%d/").to_string()));
    let hostile = found.remove(&key("web")).context("the hostile log's row")?;
    ensure!(hostile.len() == 1, "{hostile:?}");
    ensure!(lines(&found) == expected_lines(expected.iter().copied()), "rows differ from what was written");

    // By the command line: counts by kind, as the generator wrote them.
    let errors = command(cloud, &["errors", "--from", &from, "--to", &to, "--json"]).await?;
    let mut counts: Vec<u64> =
        errors.as_array().context("errors")?.iter().filter_map(|error| error["count"].as_u64()).collect();
    let mut kinds: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for error in &expected {
        *kinds.entry((error.object.split('/').next().unwrap_or_default(), error.kind)).or_default() += 1;
    }
    let mut wanted: Vec<u64> = kinds.into_values().chain([1]).collect();
    counts.sort_unstable();
    wanted.sort_unstable();
    ensure!(counts == wanted, "{counts:?} are not {wanted:?}");

    // The report: mailed once for one scheduled time.
    let scheduled = json!({"scheduled_for": format!("{to}T00:00:00Z")});
    for name in ["daily", "daily-again"] {
        report(cloud, &cloud.name(name, &cloud.stretch()), scheduled.clone()).await?;
    }
    let mails = cloud.mails_that_say(&format!("{from} 00:00 to {to} 00:00"))?;
    ensure!(mails.len() == 1, "{} mails", mails.len());
    let mail = &mails[0].text;
    let total = expected.len() as u64 + 1;
    for part in [&format!("{total} errors of"), "new", "By category", "By service", "TypeError", &key("web")] {
        ensure!(mail.contains(part), "`{part}` is not in the mail:\n{mail}");
    }
    let html = mail.split_once("text/html").context("HTML")?.1;
    ensure!(!mail.contains("hunter2") && !html.contains("<script>"), "a secret or a tag:\n{mail}");
    ensure!(html.contains("&lt;script&gt;"), "the hostile line is not shown as text");
    ensure!(!mail.contains("never seen before\nqueue holds"), "what was there the day before is not new:\n{mail}");
    let section: Value = serde_json::from_slice(&cloud.get("dashboard/data/logs.json").await?)?;
    let headline = section["section"]["headline"].as_str().context("a headline")?;
    ensure!(headline.contains(&format!("{total} errors of")), "{section:#}");
    ensure!(cloud.keys("dashboard/index.html").await?.len() == 1, "the page is not there");

    // A report of certain errors of one service.
    let only = json!({"from": from, "to": to, "services": ["shop"], "error_types": ["IllegalStateException"]});
    let name = cloud.name("only", &cloud.stretch());
    report(cloud, &name, only).await?;
    let stores = expected.iter().filter(|error| error.kind == "store").count();
    let mails = cloud.mails_that_say("only shop, IllegalStateException")?;
    let wanted = format!("{stores} errors of 1 kind");
    ensure!(mails.len() == 1 && mails[0].text.contains(&wanted), "{wanted}: {mails:?}");

    // The search: each line at its place.
    let lost = expected.iter().filter(|error| error.kind == "lost");
    let done = cloud.archive(&["logs", "search", "item lost", "--from", &from, "--to", &to, "--json"]).await?;
    ensure!(done.well, "{}", done.said);
    let places = |object: &str, line: u64| (object.to_owned(), line);
    let mut printed = Vec::new();
    for line in done.printed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let found: Value = serde_json::from_slice(line)?;
        let line = found["line"].as_u64().context("a line")?;
        printed.push(places(found["object"].as_str().context("an object")?, line));
    }
    printed.sort();
    let mut wanted: Vec<(String, u64)> = lost.map(|error| places(&error.object, error.line)).collect();
    wanted.sort();
    ensure!(printed == wanted && !wanted.is_empty(), "{} lines found of {}", printed.len(), wanted.len());
    let none = cloud.archive(&["logs", "search", "no such text", "--from", &from, "--to", &to]).await?;
    ensure!(!none.well && none.printed.is_empty(), "nothing is found, and that is no success");
    Ok(())
}

/// An event as S3 sends it, for a message of our own.
async fn event(cloud: &Cloud, key: &str, sequencer: &str) -> Result<String> {
    let bucket = variable("ALERT_ARCHIVE_LOGS_BUCKET")?;
    let head = cloud.s3.head_object().bucket(&bucket).key(key).send().await.ok();
    let version = head.and_then(|head| head.version_id);
    let record = json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2026-11-21T12:00:00.000Z",
        "eventName": "ObjectCreated:Put", "awsRegion": cloud.region,
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 1, "sequencer": sequencer, "versionId": version}},
    });
    Ok(json!({"Records": [record]}).to_string())
}

async fn send(bodies: &[String]) -> Result<()> {
    let (sqs, url) =
        (aws_sdk_sqs::Client::new(&runtime::aws_config().await), variable("ALERT_ARCHIVE_LOGS_QUEUE_URL")?);
    for body in bodies {
        sqs.send_message().queue_url(&url).message_body(body).send().await?;
    }
    Ok(())
}

/// How long a message stays hidden that was delivered and not done with, in seconds.
const AS_DEPLOYED: &str = "960";

async fn hide_failed_for(seconds: &str) -> Result<()> {
    let (sqs, url) =
        (aws_sdk_sqs::Client::new(&runtime::aws_config().await), variable("ALERT_ARCHIVE_LOGS_QUEUE_URL")?);
    let name = aws_sdk_sqs::types::QueueAttributeName::VisibilityTimeout;
    sqs.set_queue_attributes().queue_url(&url).attributes(name, seconds).send().await?;
    Ok(())
}

async fn logs_delivered_twice_out_of_order_and_at_once_count_once(cloud: &Cloud) -> Result<()> {
    let today = day(cloud)?;
    let files = files(3, today, 1)?;
    for file in &files {
        put(cloud, &file.key, file.body.clone()).await?;
    }
    // The service's own events are among these.
    let mut bodies = Vec::new();
    for sequencer in ["00", "FFFFFFFFFFFFFFFF", "01", "FFFFFFFFFFFFFFFE"] {
        for file in &files {
            bodies.push(event(cloud, &file.key, sequencer).await?);
        }
    }
    send(&bodies).await?;
    let begun = Instant::now();
    let expected = expected_lines(files.iter().flat_map(|file| &file.expected));
    loop {
        let mut found = rows(cloud, "").await?;
        found.retain(|object, _| files.iter().any(|file| file.key == *object));
        if lines(&found) == expected {
            break;
        }
        ensure!(begun.elapsed() < LONGEST, "rows differ from what was written: {:?}", lines(&found));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // The rows are there before the last of the messages is done with, which would meet the next test's functions.
    extracted(cloud).await?;
    let mut found = rows(cloud, "").await?;
    found.retain(|object, _| files.iter().any(|file| file.key == *object));
    ensure!(lines(&found) == expected, "a later delivery changed rows: {:?}", lines(&found));
    Ok(())
}

async fn a_log_whose_extraction_is_killed_is_extracted_once(cloud: &Cloud) -> Result<()> {
    let today = day(cloud)?;
    let key = format!("slow/{}/app.gz", today.strftime("%Y/%m/%d"));
    let line = |n: u32| match n % 10 {
        0 => format!("{today}T10:00:00Z ERROR a.B - order {n} failed\n"),
        _ => format!("{today}T10:00:00Z INFO a.B - order {n} fine, and more of it to read than can be read at once\n"),
    };
    let text: String = (0..600_000).map(line).collect();
    let body = gz(&text);
    let sequencer = "FFFFFFFFFFFFFFF0";
    // Killed by Lambda in the middle, and delivered again before its lease is over.
    hide_failed_for("20").await?;
    cloud
        .with_timeouts(&[("extract-log-errors", 1)], async || {
            put(cloud, &key, body).await?;
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(())
        })
        .await?;
    send(&[event(cloud, &key, sequencer).await?]).await?;
    let begun = Instant::now();
    loop {
        let found = rows(cloud, &key).await?;
        if let Some(rows) = found.get(&key) {
            let mut seen: Vec<u64> = rows.iter().map(|(line, _)| *line).collect();
            let count = seen.len();
            seen.dedup();
            ensure!(count == seen.len(), "{} of {count} rows are double", count - seen.len());
            if count == 60_000 {
                break;
            }
        }
        ensure!(begun.elapsed() < LONGEST, "not extracted: {:?}", found.get(&key).map(Vec::len));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    extracted(cloud).await?;
    hide_failed_for(AS_DEPLOYED).await
}

async fn a_log_that_is_written_again_replaces_its_rows_and_damage_is_told(cloud: &Cloud) -> Result<()> {
    let today = day(cloud)?;
    let (from, to) = range(today)?;
    let key = format!("grow/{}/app 1+2.gz", today.strftime("%Y/%m/%d"));
    let line = |n: u32| format!("{today}T10:00:{:02}Z ERROR a.B - step {n} failed\n", n % 60);
    for lines in [3, 8, 5] {
        put(cloud, &key, gz(&(0..lines).map(line).collect::<String>())).await?;
        extracted(cloud).await?;
    }
    let found = lines(&rows(cloud, &key).await?);
    ensure!(found.get(&key) == Some(&vec![1, 2, 3, 4, 5]), "{found:?}");
    let errors = command(cloud, &["errors", "--from", &from, "--to", &to, "--service", "grow", "--json"]).await?;
    ensure!(errors[0]["count"] == 5, "{errors:#}");
    let (cut, plain) = (format!("grow/{}/cut.gz", today.strftime("%Y/%m/%d")), "not gzip at all\n");
    let whole = gz(&(0..5000).map(line).collect::<String>());
    put(cloud, &cut, whole[..whole.len() / 2].to_vec()).await?;
    put(cloud, &cut.replace("cut", "plain"), plain.into()).await?;
    let status = extracted(cloud).await?;
    let damaged = |key: &str| {
        let list = status["damaged"].as_array().into_iter().flatten();
        list.clone().find(|damaged| damaged["object"] == key).cloned().unwrap_or_default()
    };
    ensure!(damaged(&cut)["error"] == "GzipTruncated" && damaged(&cut)["lines"].as_u64() > Some(100), "{status:#}");
    ensure!(damaged(&cut.replace("cut", "plain"))["error"] == "NotGzip", "{status:#}");
    let rows = rows(cloud, &cut).await?;
    ensure!(rows.get(&cut).map(|rows| rows.len() as u64) == damaged(&cut)["lines"].as_u64(), "{status:#}");
    Ok(())
}

async fn an_event_on_a_log_that_is_gone_ends_in_the_dead_letter_queue(cloud: &Cloud) -> Result<()> {
    let gone = json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2026-11-21T12:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": variable("ALERT_ARCHIVE_LOGS_BUCKET")?},
            "object": {"key": "gone/2001/01/01/gone.gz", "size": 1, "sequencer": "0A"}},
    }]});
    // It fails five times: that takes an hour and more with the queue as it is.
    hide_failed_for("1").await?;
    send(&[gone.to_string()]).await?;
    let begun = Instant::now();
    loop {
        let done = cloud.archive(&["logs", "status", "--json"]).await?;
        if done.report["failed"] == 1 {
            ensure!(!done.well, "what failed is no success");
            break;
        }
        ensure!(begun.elapsed() < LONGEST, "it does not get to the dead-letter queue: {:#}", done.report);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    hide_failed_for(AS_DEPLOYED).await?;
    // The log comes after all: the message is delivered again.
    put(cloud, "gone/2001/01/01/gone.gz", gz("2001-01-01T10:00:00Z ERROR here it is\n")).await?;
    let done = cloud.archive(&["logs", "replay-dlq"]).await?;
    ensure!(done.well, "{}", done.said);
    let status = extracted(cloud).await?;
    ensure!(status["failed"] == 0, "{status:#}");
    let found = lines(&rows(cloud, "gone/").await?);
    ensure!(found.values().eq([&vec![1]]), "{found:?}");
    Ok(())
}

async fn the_saved_queries_answer_what_the_command_line_says(cloud: &Cloud) -> Result<()> {
    // The queries look back from today.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let yesterday = today.yesterday()?;
    let files = files(4, yesterday, 1)?;
    for file in &files {
        put(cloud, &file.key, file.body.clone()).await?;
    }
    extracted(cloud).await?;
    rows(cloud, "").await?;
    let (from, to) = (today.checked_sub(jiff::Span::new().days(7))?.to_string(), today.tomorrow()?.to_string());
    let errors = command(cloud, &["errors", "--from", &from, "--to", &to, "--json"]).await?;
    let errors = errors.as_array().context("errors")?;
    let wanted: u64 = errors.iter().filter_map(|error| error["count"].as_u64()).sum();
    // Athena on the local cloud is DuckDB as well, and knows no partition projection: the same SQL over the same
    // objects.
    for (query, column) in [("log-errors-top", 5), ("log-errors-trend", 3)] {
        let text = std::fs::read_to_string(format!("{}/../infra/queries/{query}.sql", env!("CARGO_MANIFEST_DIR")))?;
        let files = cloud.scratch.join("log-errors/log-errors/parquet/**/*.parquet");
        let script = format!(
            "import duckdb, sys\nduckdb.sql(\"CREATE VIEW log_errors AS SELECT * REPLACE (CAST(time AS VARCHAR) AS time) \
             FROM read_parquet('{}', hive_partitioning = true, hive_types = {{'date': VARCHAR}}) \
             WHERE contains(object, '{}')\")\n\
             rows = duckdb.sql(sys.argv[1]).fetchall()\nprint(sum(row[{column}] for row in rows))",
            files.display(),
            // What other tests wrote of other years came today too, and some of it has no time of its own.
            yesterday.strftime("/%Y/%m/%d/"),
        );
        let output = tokio::process::Command::new(&cloud.python).args(["-c", &script, &text]).output().await?;
        ensure!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        let found: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
        ensure!(found == wanted && wanted > 0, "{query} counts {found} errors, the command line {wanted}");
    }
    Ok(())
}
