//! What `alert-archive verify` says and repairs, on an archive that real runs wrote.

use crate::tests;
use anyhow::{Context, Result, ensure};
use aws_sdk_s3::{primitives::ByteStream, types::ChecksumAlgorithm};
use pipeline_tests::{
    Cloud, Message, Outcome, PATIENCE, Stretch, check,
    documents::{instant, iso, mixture},
    faults::{delay, fault, s3},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

tests![
    a_message_that_moved_in_time_leaves_nothing_to_find_on_the_day_that_it_left,
    a_range_has_no_false_edges,
    a_message_that_stands_twice_is_taken_out_where_its_row_does_not_say_and_kept,
    rows_of_windows_that_are_gone_harm_no_message,
    a_repair_waits_until_no_run_is_at_work,
    a_day_in_several_windows_and_an_empty_one_are_held_against_the_source,
];

async fn verify(cloud: &Cloud, from: &str, to: &str, more: &[&str]) -> Result<Outcome> {
    cloud.archive(&[&["verify", "--from", from, "--to", to, "--json"], more].concat()).await
}

fn findings(outcome: &Outcome) -> &[Value] {
    outcome.report["findings"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn silent(outcome: &Outcome) -> Result<()> {
    ensure!(
        outcome.well && outcome.report["ok"] == true && findings(outcome).is_empty(),
        "{:#}\n{}",
        outcome.report,
        outcome.said
    );
    Ok(())
}

fn day(stretch: &Stretch, name: &str, hour: u32) -> Message {
    Message::closed(stretch, name, &format!("{}-03-01T{hour:02}:00:00Z", stretch.year))
}

async fn a_message_that_moved_in_time_leaves_nothing_to_find_on_the_day_that_it_left(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut messages: Vec<Message> = (0..8).map(|n| day(&stretch, &format!("m{n}"), n)).collect();
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let at = instant(&format!("{}-09-01T10:00:00Z", stretch.year));
    let source = String::from_utf8_lossy(&messages[3].source).replace(&iso(messages[3].at), &iso(at)).into_bytes();
    messages[3] = Message { at, source, ..messages[3].clone() };
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let (from, to) = (format!("{}-03-01", stretch.year), format!("{}-03-02", stretch.year));
    for more in [&[][..], &["--deep"], &["--deep", "--repair"]] {
        silent(&verify(cloud, &from, &to, more).await?)?;
    }
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_range_has_no_false_edges(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 36);
    cloud.load(&messages).await?;
    let year = stretch.year;
    // Windows that end within a day, so that objects of one day are written by several.
    for (from, to) in
        [("01-31", "02-01T12:00:00Z"), ("02-01T12:00:00Z", "02-02T11:30:00Z"), ("02-02T11:30:00Z", "12-31")]
    {
        cloud.run(&format!("{year}-{from}"), &format!("{year}-{to}")).await?.completed()?;
    }
    for (from, to) in [
        ("02-01", "02-02"),
        ("02-02", "02-03"),
        ("02-01T06:00:00Z", "02-02T18:00:00Z"),
        ("02-03", "05-10"),
        ("05-10", "05-11"),
    ] {
        silent(&verify(cloud, &format!("{year}-{from}"), &format!("{year}-{to}"), &["--deep"]).await?)?;
    }
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_message_that_stands_twice_is_taken_out_where_its_row_does_not_say_and_kept(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut messages: Vec<Message> = (0..8).map(|n| day(&stretch, &format!("m{n}"), n)).collect();
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let key = cloud
        .keys(&format!("archive/parquet/date={}-03-01/", stretch.year))
        .await?
        .into_keys()
        .next()
        .context("an object")?;
    let earlier = cloud.get(&key).await?;
    messages[3] = messages[3].changed("second");
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    // A person brings the object's earlier state back, and with it the message's earlier version.
    let put = cloud.s3.put_object().bucket(&cloud.bucket).key(&key).checksum_algorithm(ChecksumAlgorithm::Sha256);
    put.body(ByteStream::from(earlier)).send().await?;
    let (from, to) = (stretch.from(), stretch.to());
    let twice = |outcome: &Outcome| {
        let named = findings(outcome).iter().filter(|finding| finding["kind"] == "message_twice");
        named.filter_map(|finding| finding["what"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let bad = verify(cloud, &from, &to, &["--deep"]).await?;
    ensure!(!bad.well && twice(&bad) == [messages[3].id.as_str()], "{:#}", bad.report);
    ensure!(
        !findings(&bad).iter().any(|finding| finding["kind"] == "message_lost"),
        "nothing is lost: {:#}",
        bad.report
    );
    let before = cloud.keys("archive/").await?;
    let dry = verify(cloud, &from, &to, &["--deep", "--repair", "--dry-run"]).await?;
    ensure!(!dry.well && findings(&dry).iter().all(|finding| finding["would"].is_string()), "{:#}", dry.report);
    ensure!(before == cloud.keys("archive/").await?, "a dry run changed something");
    let repaired = verify(cloud, &from, &to, &["--deep", "--repair"]).await?;
    ensure!(
        repaired.well && findings(&repaired).iter().all(|finding| finding["repaired"].is_string()),
        "{:#}",
        repaired.report
    );
    silent(&verify(cloud, &from, &to, &["--deep"]).await?)?;
    check(cloud, &stretch, &messages).await?;
    let kept = cloud.superseded(&stretch).await?;
    ensure!(
        kept.iter().filter(|row| row.message_id == messages[3].id).count() == 2,
        "the copy that was taken out is not kept"
    );
    let lock = cloud.job_run("#lock").await?;
    ensure!(!lock["held"].to_string().contains("verify-"), "the lock is left: {lock}");
    Ok(())
}

async fn rows_of_windows_that_are_gone_harm_no_message(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    let run = cloud.run_stretch(&stretch).await?.completed()?;
    cloud.forget_windows(run.run_id()).await?;
    silent(&verify(cloud, &stretch.from(), &stretch.to(), &["--deep", "--repair"]).await?)?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_repair_waits_until_no_run_is_at_work(cloud: &Cloud) -> Result<()> {
    let (stretch, beside) = (cloud.stretch(), cloud.stretch());
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let key = cloud
        .keys(&format!("archive/parquet/date={}-02-01/", stretch.year))
        .await?
        .into_keys()
        .next()
        .context("an object")?;
    cloud.s3.delete_object().bucket(&cloud.bucket).key(&key).send().await?;
    cloud.load(&mixture(&beside, 12)).await?;
    cloud.proxies.arm(fault("", "write-partitions", s3("PUT", "/archive/parquet/"), delay(6)));
    let name = cloud.name("beside", &beside);
    cloud.start(&name, &json!({"mode": "range", "from": beside.from(), "to": beside.to()})).await?;
    let began = Instant::now();
    while cloud.proxies.fired() == [0] {
        ensure!(began.elapsed() < PATIENCE, "the run does not get as far as to its objects");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What the run has not finished is no difference, and nothing is repaired while it is at work.
    silent(&verify(cloud, &beside.from(), &beside.to(), &["--deep"]).await?)?;
    let before = cloud.rows(&messages).await?;
    let refused = verify(cloud, &stretch.from(), &stretch.to(), &["--repair"]).await?;
    ensure!(!refused.well && refused.said.contains(&name) && refused.said.contains("is at work"), "{refused:?}");
    ensure!(before == cloud.rows(&messages).await?, "rows were changed beside a run");
    ensure!(cloud.ended(&name).await?.status == "SUCCEEDED");
    let repaired = verify(cloud, &stretch.from(), &stretch.to(), &["--repair"]).await?;
    ensure!(repaired.well && !findings(&repaired).is_empty(), "{:#}\n{}", repaired.report, repaired.said);
    cloud.run_stretch(&stretch).await?.completed()?;
    silent(&verify(cloud, &stretch.from(), &stretch.to(), &["--deep"]).await?)?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_day_in_several_windows_and_an_empty_one_are_held_against_the_source(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut messages: Vec<Message> = (0..12).map(|n| day(&stretch, &format!("m{n:02}"), n)).collect();
    cloud.load(&messages).await?;
    let run = async || cloud.run_stretch(&stretch).await?.completed();
    let outcome = cloud.with_setting("plan-windows", "ALERT_ARCHIVE_WINDOW_MESSAGES", "5", run).await?;
    ensure!(outcome.report["windows"]["planned"].as_u64() > Some(1), "{:#}", outcome.report);
    silent(&verify(cloud, &stretch.from(), &stretch.to(), &[]).await?)?;
    let late =
        [day(&stretch, "late", 20), Message::closed(&stretch, "alone", &format!("{}-06-01T10:00:00Z", stretch.year))];
    cloud.load(&late).await?;
    let expected: BTreeSet<&str> = late.iter().map(|message| message.id.as_str()).collect();
    for more in [&[][..], &["--deep"]] {
        let found = verify(cloud, &stretch.from(), &stretch.to(), more).await?;
        let named = findings(&found).iter().filter(|finding| finding["kind"] == "message_unaccounted");
        let named: BTreeSet<&str> = named.filter_map(|finding| finding["what"].as_str()).collect();
        ensure!(!found.well && named == expected, "{:#}", found.report);
    }
    messages.extend(late);
    cloud.run_stretch(&stretch).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}
