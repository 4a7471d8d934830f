//! The drain of a window into its spool over a cloud in memory.

use alerts::{
    keys::{checkpoint_key, index_key, spool_prefix},
    message::entry::Entry,
    window::{
        plan::Window,
        record::{State, WindowRecord},
    },
};
use async_trait::async_trait;
use errors::Named;
use memory_cloud::{
    Cloud, fail_each_request,
    given::{RUN, day, task},
};
use network::{Answer, Network, Request};
use query_messages::{Deps, handle};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

fn deps(cloud: &Cloud) -> Deps {
    Deps {
        sources: cloud.sources(),
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        rules: Default::default(),
    }
}

/// A planned day with a closed message, an open one, one that is not valid JSON, and one of the day after.
async fn planned() -> Cloud {
    let cloud = Cloud::default();
    cloud.put_message("a", "2024-07-01T01:00:00Z", "closed");
    cloud.put_message("b", "2024-07-01T02:00:00Z", "open");
    let poison = br#"{"message_id":"c", /* no JSON */ "timestamp":"2024-07-01T03:00:00Z"}"#;
    cloud.node.put_bytes("messages", "c", poison, 1_719_802_800_000, "c");
    cloud.put_message("d", "2024-07-02T00:00:00Z", "closed");
    cloud.given_window(&day(0), |planned| planned).await;
    cloud
}

fn latest_attempt(cloud: &Cloud) -> u64 {
    cloud.window_rows()[0]["attempt"].as_u64().expect("a number")
}

/// What the spool of the latest attempt says of its documents.
async fn spooled(cloud: &Cloud) -> Vec<(String, Value)> {
    let prefix = spool_prefix(RUN, &day(0).window_id, latest_attempt(cloud));
    let summary = cloud.json(&checkpoint_key(&prefix));
    assert_eq!(summary["done"], true, "{summary}");
    let mut documents = Vec::new();
    for pair in 0..summary["pairs"].as_u64().expect("a number") as u32 {
        let entries: Vec<Entry> = cloud.objects().get_lines(&index_key(&prefix, pair)).await.expect("an index");
        documents.extend(entries.into_iter().map(|entry| (entry.id.clone(), json!(entry.outcome.disposition))));
    }
    documents
}

#[tokio::test]
async fn a_window_is_spooled_whole_and_its_poison_document_by_name() {
    let cloud = planned().await;
    let done = handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!((done.attempt, done.more), (Some(1), false));
    let expected = [("a", "closed"), ("b", "open"), ("c", "quarantined")];
    assert_eq!(spooled(&cloud).await, expected.map(|(id, disposition)| (id.to_owned(), json!(disposition))));
    assert_eq!(cloud.node.points_in_time(), 0, "all points in time are closed");
}

#[tokio::test]
async fn a_second_call_is_a_second_attempt_and_a_finished_window_is_left_alone() {
    let cloud = planned().await;
    for attempt in 1..3 {
        let done = handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
        assert_eq!(done.attempt, Some(attempt));
    }
    let done = |record: &WindowRecord| Ok(WindowRecord { status: State::Completed, ..record.clone() });
    cloud.windows().change(RUN, &day(0).window_id, done).await.expect("completed");
    let keys = cloud.keys("spool/");
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("nothing to do");
    assert_eq!(cloud.keys("spool/"), keys);
}

/// Takes a minute for each object of records: two are under way at once, and a point in time lives for three.
struct Slow(Cloud);

#[async_trait]
impl Network for Slow {
    async fn answered(&self, request: &Request) -> Answer {
        if request.operation == "PutObject" && request.subject.contains("/records-") {
            self.0.clock.advance(Duration::from_secs(60));
        }
        Answer::Arrives
    }
}

#[tokio::test]
async fn a_call_whose_time_is_over_leaves_a_checkpoint_and_the_next_goes_on_there() {
    let cloud = Cloud::default();
    let whole = Window::new(day(0).from, day(2).to, 3000);
    for n in 0..3000 {
        let second = n * 80 % 250_000;
        let at = whole.from + jiff::SignedDuration::from_secs(second);
        cloud.node.put(
            "messages",
            &format!("m{n:04}"),
            &json!({"message_id": format!("m{n:04}"), "timestamp": at}).to_string(),
        );
    }
    cloud.given_window(&whole, |planned| planned).await;
    let slow = cloud.through(Arc::new(Slow(cloud.clone())));
    let (mut task, mut calls) = (task(whole.clone(), None), 0);
    loop {
        let call = runtime::Call::new(cloud.clock.clone(), Duration::from_secs(60));
        task = handle(&deps(&slow), task, call).await.expect("drained");
        calls += 1;
        if !task.more {
            break;
        }
        assert_eq!(cloud.node.points_in_time(), 1, "only that of the messages waits for the next call");
    }
    assert!(calls > 1, "one call did it all");
    let prefix = spool_prefix(RUN, &whole.window_id, 1);
    let mut ids = Vec::new();
    for pair in 0.. {
        let Some(entries) = cloud.objects().find_lines::<Entry>(&index_key(&prefix, pair)).await.expect("read") else {
            break;
        };
        ids.extend(entries.into_iter().map(|entry| entry.id));
    }
    ids.sort();
    assert_eq!(ids, (0..3000).map(|n| format!("m{n:04}")).collect::<Vec<_>>(), "each once");
}

/// Forgets all points in time before the first page.
struct Forgetful(Cloud, std::sync::atomic::AtomicBool);

#[async_trait]
impl Network for Forgetful {
    async fn answered(&self, request: &Request) -> Answer {
        let is_first_count = request.operation == "_search" && !self.1.swap(true, std::sync::atomic::Ordering::SeqCst);
        if is_first_count {
            self.0.node.forget_points_in_time();
        }
        Answer::Arrives
    }
}

#[tokio::test]
async fn a_point_in_time_that_expires_starts_a_new_attempt_and_splices_nothing() {
    let cloud = planned().await;
    let forgetful = cloud.through(Arc::new(Forgetful(cloud.clone(), Default::default())));
    let done = handle(&deps(&forgetful), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!(done.attempt, Some(2));
    assert_eq!(spooled(&cloud).await.len(), 3);
}

#[tokio::test]
async fn a_source_that_gives_only_a_part_fails_the_window_by_name() {
    let cloud = planned().await;
    cloud.node.fail_shards(usize::MAX);
    let error = handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect_err("a part");
    assert_eq!(error.name(), "PageIncomplete");
    assert_eq!(cloud.window_rows()[0]["error"], "PageIncomplete");
    cloud.node.fail_shards(2);
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("whole after two tries");
    assert_eq!(spooled(&cloud).await.len(), 3);
}

#[tokio::test]
async fn what_changes_during_the_drain_is_not_seen_by_it() {
    let cloud = planned().await;
    cloud.node.let_refresh_lag();
    cloud.put_message("late", "2024-07-01T05:00:00Z", "closed");
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!(spooled(&cloud).await.len(), 3, "a search does not see it yet");
    cloud.node.refresh();
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!(spooled(&cloud).await.len(), 4);
}

#[tokio::test]
async fn whatever_request_fails_another_call_spools_the_same() {
    let query = async |cloud: &Cloud| handle(&deps(cloud), task(day(0), None), cloud.call()).await;
    let look = |cloud: &Cloud| {
        let attempt = format!("/{}/", latest_attempt(cloud));
        let keys = cloud.keys("spool/").into_keys().filter(|key| key.contains(&attempt));
        let mut contents: Vec<(String, usize)> = Vec::new();
        for key in keys {
            let bytes = cloud.object(&key).len();
            contents.push((key.replace(&attempt, "/N/"), bytes));
        }
        contents
    };
    assert!(fail_each_request(planned, query, look).await > 15);
}
