//! Classification's rows and counts over a cloud in memory.

use alerts::{
    keys::{checkpoint_key, spool_prefix},
    message::tracking::{Decision, Row},
    window::{
        record::{State, WindowRecord},
        spool::SpoolSummary,
    },
};
use classify_alerts::{Deps, handle};
use errors::Named;
use memory_cloud::{
    Cloud, column, fail_each_request,
    given::{RUN, day, message, task},
};
use serde_json::{Value, json};

fn deps(cloud: &Cloud) -> Deps {
    Deps { objects: cloud.objects(), windows: cloud.windows(), ledger: cloud.tracking() }
}

/// A spool with a closed message, an open one and one that names another id.
async fn queried() -> Cloud {
    let cloud = Cloud::default();
    let (closed, open, foreign) = (message("a", "closed"), message("b", "open"), message("x", "closed"));
    cloud.given_spool(&day(0), &[("a", &closed), ("b", &open), ("c", &foreign)]).await;
    cloud
}

#[tokio::test]
async fn each_message_gets_a_row_and_the_window_its_counts() {
    let cloud = queried().await;
    for _ in 0..2 {
        let done = handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect("classified");
        assert!(!done.more);
        let rows = cloud.tracking_rows();
        let mut dispositions = column(&rows, "disposition");
        dispositions.sort_by_key(Value::to_string);
        assert_eq!(dispositions, ["closed", "open", "quarantined"]);
        let mut statuses = column(&rows, "status");
        statuses.sort_by_key(Value::to_string);
        assert_eq!(statuses, ["Pending", "Processing", "Processing"], "the window owns what it will write");
        assert_eq!(column(&rows, "revision"), [1, 1, 1], "the second call changes nothing");
        let window = &cloud.window_rows()[0];
        assert_eq!(
            window["messages"],
            json!({"source": 3, "archived": 0, "open": 1, "quarantined": 1, "already_archived": 0, "no_alerts": 0})
        );
    }
}

#[tokio::test]
async fn an_attempt_that_was_superseded_changes_no_row() {
    let cloud = queried().await;
    let next = |record: &WindowRecord| Ok(record.begin("query-messages", record.updated_at).0);
    cloud.windows().change(RUN, &day(0).window_id, next).await.expect("a second attempt");
    let error = handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect_err("superseded");
    assert_eq!(error.name(), "WindowSuperseded");
    assert!(cloud.tracking_rows().is_empty());
    assert_eq!(cloud.window_rows()[0]["status"], "Running");
}

#[tokio::test]
async fn a_window_that_is_done_is_left_alone() {
    let cloud = queried().await;
    let done = |record: &WindowRecord| Ok(WindowRecord { status: State::Completed, ..record.clone() });
    cloud.windows().change(RUN, &day(0).window_id, done).await.expect("completed");
    handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect("nothing to do");
    assert!(cloud.tracking_rows().is_empty());
}

#[tokio::test]
async fn a_failure_is_noted_on_the_window() {
    let cloud = queried().await;
    let key = cloud.keys("spool/").into_keys().find(|key| key.contains("index-")).expect("an index");
    cloud.objects().put(&key, "no zstd", "application/zstd").await.expect("written");
    let error = handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect_err("damaged");
    assert_eq!(error.name(), "ObjectCorrupt");
    let window = &cloud.window_rows()[0];
    assert_eq!((&window["status"], &window["error"]), (&json!("Failed"), &json!("ObjectCorrupt")));
}

#[tokio::test]
async fn whatever_request_fails_the_rows_are_the_same_after_another_call() {
    let classify = async |cloud: &Cloud| handle(&deps(cloud), task(day(0), Some(1)), cloud.call()).await;
    let look = |cloud: &Cloud| {
        let keys: Vec<String> = cloud.keys("spool/").into_keys().collect();
        let window = cloud.window_rows().remove(0);
        (cloud.tracking_rows(), keys, window["messages"].clone(), window["reasons"].clone(), window["status"].clone())
    };
    assert!(fail_each_request(queried, classify, look).await > 10);
    let rows: Vec<Value> = queried().await.tracking_rows();
    assert!(rows.is_empty(), "each starts without rows");
}

/// The same after another index took the place of one in which a run had read the first of them, in another version.
async fn queried_after_a_reindexing() -> Cloud {
    let cloud = queried().await;
    let key = checkpoint_key(&spool_prefix(RUN, &day(0).window_id, 1));
    let summary: SpoolSummary = cloud.objects().get_json(&key).await.expect("a checkpoint");
    let summary = SpoolSummary { present: Some(vec!["messages".to_owned()]), ..summary };
    cloud.objects().put_json(&key, &summary).await.expect("written");
    let at = "2024-07-01T10:00:00Z";
    let row = json!({
        "message_id": "a", "source_index": "messages-old", "status": "Completed", "disposition": "closed",
        "run_id": "r0", "window_id": "w", "version": "v0", "timestamp": at, "inserted_at": at, "processed_at": at,
        "s3_path": "s3://archive/archive/parquet/date=2024-07-01/p.parquet", "revision": 1,
    });
    let row: Row = serde_json::from_value(row).expect("a row");
    assert!(cloud.tracking().rows.put(&row).await.expect("written"));
    cloud
}

#[tokio::test]
async fn whatever_request_fails_a_message_whose_index_was_replaced_is_known_once_and_replaces_its_earlier_version() {
    let classify = async |cloud: &Cloud| handle(&deps(cloud), task(day(0), Some(1)), cloud.call()).await;
    let look = |cloud: &Cloud| {
        let key = cloud.keys("spool/").into_keys().find(|key| key.contains("decisions-")).expect("decided");
        let decisions: Vec<Decision> = cloud.objects().decode_lines(&key, &cloud.object(&key)).expect("lines");
        (cloud.tracking_rows(), decisions)
    };
    assert!(fail_each_request(queried_after_a_reindexing, classify, look).await > 12);
    let cloud = queried_after_a_reindexing().await;
    classify(&cloud).await.expect("classified");
    let (rows, decisions) = look(&cloud);
    assert_eq!(column(&rows, "source_index"), ["messages", "messages", "messages"]);
    let replaced = Decision::Replace { object: "archive/parquet/date=2024-07-01/p.parquet".into() };
    assert_eq!(decisions[0], replaced);
    assert_eq!(cloud.window_rows()[0]["moved"], 1);
}
