//! From decisions to the archive over a cloud in memory.

use alerts::{
    keys::{decisions_key, index_key, spool_prefix},
    message::{
        entry::Entry,
        tracking::{Claim, release},
    },
    window::record::WindowRecord,
};
use errors::Named;
use memory_cloud::{
    Cloud, column, fail_each_request,
    given::{RUN, day, message, task},
};
use serde_json::{Value, json};
use write_partitions::{Deps, handle};

fn deps(cloud: &Cloud) -> Deps {
    Deps {
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        ledger: cloud.tracking(),
        jsonl: true,
        message_json: true,
    }
}

fn claim() -> Claim {
    Claim { run_id: RUN.into(), window_id: day(0).window_id }
}

async fn entries(cloud: &Cloud) -> Vec<Entry> {
    let prefix = spool_prefix(RUN, &day(0).window_id, 1);
    cloud.objects().get_lines(&index_key(&prefix, 0)).await.expect("an index")
}

/// A window whose two closed messages, open one and quarantined one are staged.
async fn classified() -> Cloud {
    let cloud = Cloud::default();
    let bodies = [
        ("a", message("a", "closed")),
        ("b", message("b", "closed")),
        ("c", message("c", "open")),
        ("d", message("x", "closed")),
    ];
    let bodies: Vec<(&str, &str)> = bodies.iter().map(|(id, body)| (*id, body.as_str())).collect();
    cloud.given_spool(&day(0), &bodies).await;
    let entries = entries(&cloud).await;
    let entries: Vec<&Entry> = entries.iter().collect();
    let now = cloud.call().now();
    let decisions =
        cloud.tracking().stage_all(&entries, &claim(), false, now, || false).await.expect("staged").expect("in time");
    let key = decisions_key(&spool_prefix(RUN, &day(0).window_id, 1), 0);
    cloud.objects().put_lines(&key, &decisions).await.expect("written");
    cloud
}

/// Each archived message: id and bytes, from every object under `archive/parquet`.
fn archived(cloud: &Cloud) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for key in cloud.keys("archive/parquet/").into_keys() {
        for row in columnar::rows(cloud.object(&key)).expect("Parquet") {
            let row = row.expect("a row");
            rows.push((row.identity.id, String::from_utf8(row.record.message).expect("UTF-8")));
        }
    }
    rows.sort();
    rows
}

fn expected() -> Vec<(String, String)> {
    ["a", "b"].map(|id| (id.to_owned(), message(id, "closed"))).into()
}

#[tokio::test]
async fn closed_messages_are_archived_once_byte_for_byte_and_their_rows_completed() {
    let cloud = classified().await;
    for _ in 0..2 {
        let done = handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect("written");
        assert!(!done.more);
        assert_eq!(archived(&cloud), expected());
        assert_eq!(column(&cloud.tracking_rows(), "status"), ["Completed", "Completed", "Pending", "Completed"]);
        let window = cloud.window_rows().remove(0);
        assert_eq!(window["status"], "Completed");
        let messages =
            json!({"source": 4, "archived": 2, "open": 1, "quarantined": 1, "already_archived": 0, "no_alerts": 0});
        assert_eq!(window["messages"], messages);
        assert_eq!(cloud.keys("archive/messages/").len(), 2);
        assert_eq!((cloud.keys("archive/jsonl/").len(), cloud.keys("quarantine/").len()), (1, 1));
    }
    let manifest = cloud.keys("archive/_commits/").into_keys().next().expect("a manifest");
    let named: Vec<Value> = column(cloud.json(&manifest)["objects"].as_array().expect("a list"), "key");
    assert_eq!(named.len(), 3, "Parquet, JSON lines and quarantine");
}

#[tokio::test]
async fn a_superseded_attempt_registers_no_intent() {
    let cloud = classified().await;
    let next = |record: &WindowRecord| Ok(record.begin("query-messages", record.updated_at).0);
    cloud.windows().change(RUN, &day(0).window_id, next).await.expect("a second attempt");
    let error = handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect_err("superseded");
    assert_eq!(error.name(), "WindowSuperseded");
    assert!(cloud.keys("archive/").is_empty());
}

#[tokio::test]
async fn a_message_that_was_taken_away_is_not_written() {
    let cloud = classified().await;
    let entries = entries(&cloud).await;
    let first: Vec<&Entry> = entries.iter().take(1).collect();
    let take = |_: &Entry, row: Option<&alerts::message::tracking::Row>| {
        Ok::<_, storage::LedgerError>(row.and_then(|row| release(row, &claim())))
    };
    cloud.tracking().change_all(&first, take, || false).await.expect("released");
    let error = handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect_err("its claim is gone");
    assert_eq!(error.name(), "WindowSuperseded");
    assert!(cloud.keys("archive/").is_empty());
}

#[tokio::test]
async fn two_executors_of_one_intent_write_the_same_objects_once() {
    let cloud = classified().await;
    let deps = deps(&cloud);
    let (left, right) = tokio::join!(
        Box::pin(handle(&deps, task(day(0), Some(1)), cloud.call())),
        Box::pin(handle(&deps, task(day(0), Some(1)), cloud.call())),
    );
    left.expect("written");
    right.expect("written");
    assert_eq!(archived(&cloud), expected());
    assert_eq!(cloud.keys("archive/_commits/").len(), 1);
}

#[tokio::test]
async fn whatever_request_fails_the_archive_is_the_same_after_another_call() {
    let write = async |cloud: &Cloud| handle(&deps(cloud), task(day(0), Some(1)), cloud.call()).await;
    let look = |cloud: &Cloud| {
        let mut rows = cloud.tracking_rows();
        for row in &mut rows {
            row["revision"] = 0.into();
        }
        let window = cloud.window_rows().remove(0);
        (
            archived(cloud),
            cloud.keys("archive/"),
            cloud.keys("quarantine/"),
            rows,
            window["status"].clone(),
            window["messages"].clone(),
        )
    };
    assert!(fail_each_request(classified, write, look).await > 30);
}
