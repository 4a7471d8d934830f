//! From decisions to the archive over a cloud in memory.

use alerts::{
    keys::{checkpoint_key, decisions_key, index_key, spool_prefix},
    message::{
        entry::Entry,
        tracking::{Claim, Decision, Staging},
    },
    run::unresolved::{Register, Unresolved},
    window::{plan::Window, record::WindowRecord, spool::SpoolSummary},
};
use archive::{Guesses, StageError};
use async_trait::async_trait;
use errors::Named;
use identity::Identity;
use memory_cloud::{
    Cloud, column, fail_each_request,
    given::{RUN, day, message, task},
};
use network::{Broken, Network, Request};
use runtime::Clock;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use write_partitions::{Deps, handle};

fn deps(cloud: &Cloud) -> Deps {
    Deps {
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        ledger: cloud.tracking(),
        jsonl: true,
        message_json: true,
        cold_storage: false,
    }
}

fn claim() -> Claim {
    Claim { run_id: RUN.into(), window_id: day(0).window_id, attempt: 1 }
}

/// Stages the window's entries on behalf of an attempt that read the source now.
async fn stage(cloud: &Cloud, claim: Claim) -> Result<Vec<Decision>, StageError> {
    let entries = entries(cloud).await;
    let entries: Vec<&Entry> = entries.iter().collect();
    let staging = Staging::new(claim, cloud.call().now(), false);
    let staged = cloud.tracking().stage_all(&entries, &staging, &mut Guesses::default(), || false).await?;
    Ok(staged.decisions.expect("in time"))
}

async fn entries(cloud: &Cloud) -> Vec<Entry> {
    let prefix = spool_prefix(RUN, &day(0).window_id, 1);
    cloud.objects().get_lines(&index_key(&prefix, 0)).await.expect("an index")
}

/// A window whose two closed messages, open one and quarantined one are staged.
async fn classified() -> Cloud {
    staged_window(&[
        ("a", message("a", "closed")),
        ("b", message("b", "closed")),
        ("c", message("c", "open")),
        ("d", message("x", "closed")),
    ])
    .await
}

async fn staged_window(bodies: &[(&str, String)]) -> Cloud {
    let cloud = Cloud::default();
    let bodies: Vec<(&str, &str)> = bodies.iter().map(|(id, body)| (*id, body.as_str())).collect();
    cloud.given_spool(&day(0), &bodies).await;
    let decisions = stage(&cloud, claim()).await.expect("staged");
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

/// Objects that no manifest names.
fn unnamed(cloud: &Cloud) -> Vec<String> {
    let manifests = cloud.keys("archive/_commits/").into_keys().map(|key| cloud.json(&key));
    let named: Vec<String> = manifests
        .flat_map(|manifest| column(manifest["objects"].as_array().expect("a list"), "key"))
        .map(|key| key.as_str().expect("a key").to_owned())
        .collect();
    let places = ["archive/parquet/", "archive/jsonl/", "quarantine/"];
    let keys = places.into_iter().flat_map(|place| cloud.keys(place).into_keys());
    keys.filter(|key| !named.contains(key)).collect()
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

/// DynamoDB bills a write by the started KB, and each write adds one to the row's revision.
#[tokio::test]
async fn an_archived_message_costs_two_writes_of_less_than_a_kilobyte() {
    const LONGEST_RUN_ID: usize = 80;
    let (cloud, id) = (Cloud::default(), "MSG-20240701-0000001-0a1b2c-of-a-long-name");
    cloud.given_spool(&day(0), &[(id, &message(id, "closed"))]).await;
    let decisions = stage(&cloud, claim()).await.expect("staged");
    let claimed = cloud.tracking_rows().remove(0);
    let key = decisions_key(&spool_prefix(RUN, &day(0).window_id, 1), 0);
    cloud.objects().put_lines(&key, &decisions).await.expect("written");
    handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect("written");
    let completed = cloud.tracking_rows().remove(0);
    assert_eq!((&claimed["status"], &completed["status"]), (&json!("Processing"), &json!("Completed")));
    assert_eq!((&claimed["revision"], &completed["revision"]), (&json!(1), &json!(2)));
    for row in [claimed, completed] {
        let text = row.to_string();
        // As JSON it is longer than what DynamoDB counts.
        let size = text.len() + text.matches(&format!("{RUN}\"")).count() * (LONGEST_RUN_ID - RUN.len());
        assert!(size < 1024, "{size} bytes: {text}");
    }
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
async fn a_late_classification_of_a_superseded_attempt_changes_no_row() {
    let cloud = classified().await;
    let next = |record: &WindowRecord| Ok(record.begin("query-messages", record.updated_at).0);
    cloud.windows().change(RUN, &day(0).window_id, next).await.expect("a second attempt");
    for key in cloud.keys("spool/").into_keys().filter(|key| !key.contains("decisions")) {
        let second = key.replace(&spool_prefix(RUN, &day(0).window_id, 1), &spool_prefix(RUN, &day(0).window_id, 2));
        cloud.objects().put(&second, cloud.object(&key), "application/zstd").await.expect("copied");
    }
    let decisions = stage(&cloud, Claim { attempt: 2, ..claim() }).await.expect("staged");
    let key = decisions_key(&spool_prefix(RUN, &day(0).window_id, 2), 0);
    cloud.objects().put_lines(&key, &decisions).await.expect("written");
    let before = cloud.tracking_rows();
    let late = stage(&cloud, claim()).await.expect_err("superseded");
    assert_eq!(late.name(), "WindowSuperseded");
    assert_eq!(cloud.tracking_rows(), before);
    handle(&deps(&cloud), task(day(0), Some(2)), cloud.call()).await.expect("written");
    stage(&cloud, claim()).await.expect_err("superseded");
    let mut statuses = column(&cloud.tracking_rows(), "status");
    statuses.sort_by_key(Value::to_string);
    assert_eq!(statuses, ["Completed", "Completed", "Completed", "Pending"]);
    assert_eq!(archived(&cloud), expected());
}

/// Another window of the run, whose spool and decisions name the same messages.
async fn given_second_window(cloud: &Cloud) -> Window {
    let (first, second) = (day(0), day(1));
    let now = cloud.call().now();
    cloud.given_window(&second, |planned| planned.begin("query-messages", now).0).await;
    let (from, to) = (spool_prefix(RUN, &first.window_id, 1), spool_prefix(RUN, &second.window_id, 1));
    for key in cloud.keys("spool/").into_keys() {
        let body = cloud.object(&key);
        cloud.objects().put(&key.replace(&from, &to), body, "application/zstd").await.expect("copied");
    }
    let mut summary: SpoolSummary = cloud.objects().get_json(&checkpoint_key(&to)).await.expect("a spool");
    summary.seen_at = now;
    cloud.objects().put_json(&checkpoint_key(&to), &summary).await.expect("written");
    let decisions = stage(cloud, Claim { window_id: second.window_id.clone(), ..claim() }).await.expect("staged");
    assert!(decisions.iter().any(|decision| matches!(decision, Decision::Contested { .. })), "{decisions:?}");
    cloud.objects().put_lines(&decisions_key(&to, 0), &decisions).await.expect("written");
    second
}

#[tokio::test]
async fn a_window_that_is_abandoned_writes_nothing_and_a_later_attempt_of_it_waits_for_the_other() {
    let cloud = classified().await;
    let second = given_second_window(&cloud).await;
    let busy = handle(&deps(&cloud), task(second.clone(), Some(1)), cloud.call()).await.expect_err("it may be at work");
    assert_eq!(busy.name(), "WindowBusy");
    cloud.clock.advance(std::time::Duration::from_secs(31));
    handle(&deps(&cloud), task(second, Some(1)), cloud.call()).await.expect("written");
    let error = handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect_err("abandoned");
    assert_eq!(error.name(), "WindowSuperseded");
    assert_eq!(archived(&cloud), expected());
}

#[tokio::test]
async fn claims_of_an_attempt_that_began_after_the_other_was_abandoned_are_not_taken() {
    let cloud = classified().await;
    let second = given_second_window(&cloud).await;
    cloud.clock.advance(std::time::Duration::from_secs(31));
    // The other run abandons attempt 1. Before it takes the rows, attempt 3 begins, by a redrive, and stages them.
    let now = cloud.call().now();
    let begin = |record: &WindowRecord| Ok(record.abandon(now)?.begin("query-messages", now).0);
    cloud.windows().change(RUN, &day(0).window_id, begin).await.expect("abandoned and begun");
    stage(&cloud, Claim { attempt: 3, ..claim() }).await.expect("staged");
    let error = handle(&deps(&cloud), task(second, Some(1)), cloud.call()).await.expect_err("attempt 3 is at work");
    assert_eq!(error.name(), "WindowBusy");
    let held = column(&cloud.tracking_rows(), "claim");
    assert!(held.iter().filter_map(Value::as_str).all(|claim| claim.ends_with("/3")), "{held:?}");
}

#[tokio::test]
async fn a_row_whose_claim_is_gone_is_an_error_and_never_skipped() {
    let cloud = classified().await;
    let rows = cloud.tracking().rows;
    let row = rows.get("a", Some("messages")).await.expect("read").expect("a row");
    let taken = Claim { run_id: "other".into(), ..claim() };
    let taken = alerts::message::tracking::Row { claim: Some(taken), revision: row.revision + 1, ..row };
    assert!(rows.put(&taken).await.expect("written"));
    let error = handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect_err("its claim is gone");
    assert_eq!(error.name(), "WindowSuperseded");
    assert_eq!(cloud.window_rows()[0]["status"], "Prepared", "not completed");
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
    assert!(fail_each_request(classified, write, look).await > 20);
}

/// In a thread of its own, because the executor that is held up waits in this one.
fn carried_out_by_another(cloud: &Cloud, window: Window) {
    let cloud = cloud.clone();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(handle(&deps(&cloud), task(window, Some(1)), cloud.call())).expect("carried out by another");
    });
    other.join().expect("carried out by another");
}

/// Holds an executor up in front of its first per-message object, until another has carried the intent out and a later
/// version of that message has been written.
struct HeldUp(Cloud, AtomicBool);

#[async_trait]
impl Network for HeldUp {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        if request.operation == "PutObject"
            && request.subject.contains("archive/messages/")
            && !self.1.swap(true, Ordering::SeqCst)
        {
            carried_out_by_another(&self.0, day(0));
            for key in self.0.keys("archive/messages/").into_keys() {
                self.0.objects().put(&key, "newer", "application/json").await.expect("written");
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_late_executor_leaves_the_newer_version_of_a_message_alone() {
    let cloud = classified().await;
    let late = cloud.through(Arc::new(HeldUp(cloud.clone(), AtomicBool::new(false))));
    let done = Box::pin(handle(&deps(&late), task(day(0), Some(1)), cloud.call())).await;
    done.expect("there was nothing left to do");
    for key in cloud.keys("archive/messages/").into_keys() {
        assert_eq!(cloud.object(&key), "newer", "{key}");
    }
    assert_eq!(archived(&cloud), expected());
}

/// Amends the intent as soon as its objects are written, in front of the next write to its window.
struct Amended(Cloud, AtomicBool);

#[async_trait]
impl Network for Amended {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_window = request.operation == "PutItem" && request.subject.starts_with("windows/");
        let are_written = !self.0.keys("archive/parquet/").is_empty() && !self.0.keys("quarantine/").is_empty();
        if is_window && are_written && !self.1.swap(true, Ordering::SeqCst) {
            let amend = |record: &WindowRecord| {
                let intent = record.intent_key.clone().expect("an intent");
                Ok(record.amend(&intent, format!("{intent}-amended"), 1, self.0.clock.now()))
            };
            self.0.windows().change(RUN, &day(0).window_id, amend).await.expect("changed");
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_executor_whose_intent_is_amended_before_its_commit_commits_nothing() {
    let cloud = classified().await;
    let late = cloud.through(Arc::new(Amended(cloud.clone(), AtomicBool::new(false))));
    let error = handle(&deps(&late), task(day(0), Some(1)), cloud.call()).await.expect_err("its intent was amended");
    assert_eq!(error.name(), "WindowSuperseded");
    assert!(cloud.keys("archive/_commits/").is_empty());
    assert!(!column(&cloud.tracking_rows(), "status").contains(&json!("Completed")));
    assert_eq!(cloud.window_rows()[0]["status"], "Prepared");
}

#[tokio::test]
async fn an_exclusion_that_comes_after_the_commit_has_begun_changes_nothing_also_when_an_object_is_lost() {
    let cloud = classified().await;
    let dies = cloud.through(Arc::new(Without("archive/_commits/")));
    handle(&deps(&dies), task(day(0), Some(1)), cloud.call()).await.expect_err("it dies before its manifest");
    let exclude = |register: Register| {
        let now = cloud.clock.now();
        register.with(Unresolved::excluded(Identity::new("messages", "a"), "it kills its window", now))
    };
    cloud.job_runs().change_unresolved(exclude).await.expect("excluded");
    for key in cloud.keys("archive/parquet/").into_keys() {
        cloud.objects().delete(&key).await.expect("deleted");
    }
    handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect("carried out");
    assert_eq!(archived(&cloud), expected());
}

#[tokio::test]
async fn an_earlier_version_of_a_message_is_overwritten_by_the_window_that_has_its_claim() {
    let cloud = classified().await;
    let key = alerts::keys::message_key("2024-07-01", "messages", "a");
    cloud.objects().put(&key, "older", "application/json").await.expect("written");
    handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect("written");
    assert!(cloud.object(&key).starts_with(b"{\"message\":"));
}

#[tokio::test]
async fn json_lines_whose_messages_are_all_excluded_before_their_object_is_written_are_named() {
    let cloud = classified().await;
    let dies = cloud.through(Arc::new(Without("archive/parquet/")));
    handle(&deps(&dies), task(day(0), Some(1)), cloud.call()).await.expect_err("it dies between the two");
    assert_eq!(cloud.keys("archive/jsonl/").len(), 1);
    for id in ["a", "b"] {
        let exclude = |register: Register| {
            register.with(Unresolved::excluded(Identity::new("messages", id), "it kills its window", cloud.clock.now()))
        };
        cloud.job_runs().change_unresolved(exclude).await.expect("excluded");
    }
    handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect("carried out");
    assert_eq!((archived(&cloud), unnamed(&cloud)), (vec![], vec![]));
}

/// Lets no object be written whose key holds this.
struct Without(&'static str);

#[async_trait]
impl Network for Without {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_meant = request.operation == "PutObject" && request.subject.contains(self.0);
        if is_meant { Err(Broken) } else { Ok(()) }
    }
}

#[tokio::test]
async fn an_intent_is_carried_out_for_cold_storage_or_not_as_it_was_registered() {
    // Words by chance: what repeats lies far apart, as in mail.
    let mut random = 1_u64;
    let mut word = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:x} ", (random >> 33) % 5_000)
    };
    let text: String = (0..100_000).map(|_| word()).collect();
    let body = json!({"message_id": "a", "timestamp": "2024-07-01T10:00:00Z", "alerts": [], "text": text}).to_string();
    // Begun with one setting, and ended with another.
    let written = async |begun: bool, ended: bool| {
        let cloud = staged_window(&[("a", body.clone())]).await;
        let cut = cloud.through(Arc::new(Without("archive/parquet")));
        let deps_of = |cloud: &Cloud, cold_storage| Deps { cold_storage, ..deps(cloud) };
        let broken = handle(&deps_of(&cut, begun), task(day(0), Some(1)), cloud.call()).await;
        assert_eq!(broken.expect_err("nothing can be written").name(), "StoreUnavailable");
        handle(&deps_of(&cloud, ended), task(day(0), Some(1)), cloud.call()).await.expect("carried out");
        assert_eq!(archived(&cloud), [("a".to_owned(), body.clone())]);
        let key = cloud.keys("archive/parquet/").into_keys().next().expect("an object");
        cloud.object(&key)
    };
    let (daily, cold) = (written(false, false).await, written(true, true).await);
    assert!(cold.len() < daily.len(), "{} and {} bytes", cold.len(), daily.len());
    assert!(written(true, false).await == cold, "not as its intent says");
    assert!(written(false, true).await == daily, "not as its intent says");
}

/// A month passes, and the spool of the first window is gone.
async fn expire(cloud: &Cloud) {
    for key in cloud.keys(&spool_prefix(RUN, &day(0).window_id, 1)).into_keys() {
        cloud.objects().delete(&key).await.expect("deleted");
    }
    cloud.clock.advance(std::time::Duration::from_secs(31 * 24 * 3600));
}

/// The intent of the first window is registered, and carried out up to the objects whose keys hold `missing`; its spool
/// has expired since. Another window has the same messages.
async fn expired(missing: &'static str) -> (Cloud, Window) {
    let cloud = classified().await;
    let second = given_second_window(&cloud).await;
    let cut = cloud.through(Arc::new(Without(missing)));
    handle(&deps(&cut), task(day(0), Some(1)), cloud.call()).await.expect_err("cut off");
    let row = cloud.windows().rows.get(RUN, Some(&day(0).window_id)).await.expect("read").expect("a row");
    assert!(row.status == alerts::window::record::State::Prepared, "{row:?}");
    expire(&cloud).await;
    (cloud, second)
}

#[tokio::test]
async fn a_registered_intent_whose_spool_has_expired_holds_its_messages_no_longer() {
    // Nothing was written of it; all but its manifest; its quarantine object only.
    for missing in ["archive/parquet", "_commits", "archive/jsonl", "quarantine/"] {
        let (cloud, second) = expired(missing).await;
        handle(&deps(&cloud), task(second, Some(1)), cloud.call()).await.expect("written");
        assert_eq!(archived(&cloud), expected(), "{missing}");
        assert!(unnamed(&cloud).is_empty(), "{missing}: {:?}", unnamed(&cloud));
        // An executor of the intent that wakes up late finds these keys taken, too.
        let (objects, lines) = (cloud.keys("archive/parquet/").len(), cloud.keys("archive/jsonl/").len());
        assert_eq!(objects, lines, "{missing}");
        let statuses = column(&cloud.tracking_rows(), "status");
        assert_eq!(statuses, ["Completed", "Completed", "Pending", "Completed"], "{missing}");
        let window = cloud.windows().rows.get(RUN, Some(&day(0).window_id)).await.expect("read").expect("a row");
        assert_eq!((window.status, window.ended), (alerts::window::record::State::Abandoned, 1), "{missing}");
        for row in cloud.tracking_rows() {
            let Some(path) = row["s3_path"].as_str() else { continue };
            let key = cloud.objects().key_of(path).expect("of this bucket").to_owned();
            assert!(cloud.keys(&key).contains_key(&key), "{missing}: {key}");
        }
    }
}

/// Lets a month pass before it sends its first Parquet object: the spool expires, and another window takes the messages.
struct SleepsForAMonth {
    cloud: Cloud,
    second: Window,
    has_slept: AtomicBool,
}

#[async_trait]
impl Network for SleepsForAMonth {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_meant = request.operation == "PutObject" && request.subject.contains("archive/parquet");
        if is_meant && !self.has_slept.swap(true, Ordering::Relaxed) {
            expire(&self.cloud).await;
            carried_out_by_another(&self.cloud, self.second.clone());
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_executor_that_sleeps_until_its_spool_has_expired_finds_its_keys_taken() {
    let cloud = classified().await;
    let second = given_second_window(&cloud).await;
    let sleeper = SleepsForAMonth { cloud: cloud.clone(), second, has_slept: AtomicBool::default() };
    let sleeps = cloud.through(Arc::new(sleeper));
    handle(&deps(&sleeps), task(day(0), Some(1)), cloud.call()).await.expect_err("its window is abandoned");
    assert_eq!((archived(&cloud), unnamed(&cloud)), (expected(), vec![]));
}

/// Once the objects of an intent are looked at, another executor ends it.
struct EndedMeanwhile {
    cloud: Cloud,
    second: Window,
    has_ended: AtomicBool,
}

#[async_trait]
impl Network for EndedMeanwhile {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_meant = request.operation == "HeadObject" && request.subject.contains("archive/parquet");
        if is_meant && !self.has_ended.swap(true, Ordering::Relaxed) {
            carried_out_by_another(&self.cloud, self.second.clone());
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_intent_that_another_executor_ends_meanwhile_holds_no_messages_either() {
    let (cloud, second) = expired("archive/parquet").await;
    let meets = EndedMeanwhile { cloud: cloud.clone(), second: second.clone(), has_ended: AtomicBool::default() };
    let meets = cloud.through(Arc::new(meets));
    handle(&deps(&meets), task(second, Some(1)), cloud.call()).await.expect("written");
    assert_eq!((archived(&cloud), unnamed(&cloud)), (expected(), vec![]));
}

/// Lets no write to a window pass once message `a` is archived in the second window's object.
struct NoWindowEnds(Cloud);

#[async_trait]
impl Network for NoWindowEnds {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_window = request.operation == "PutItem" && request.subject.starts_with("windows/");
        let is_completed = |row: &Value| {
            row["status"] == "Completed" && row["s3_path"].as_str().is_some_and(|path| path.contains("date=2024-07-02"))
        };
        if is_window && self.0.tracking_rows().iter().any(is_completed) { Err(Broken) } else { Ok(()) }
    }
}

#[tokio::test]
async fn an_expired_intent_that_is_ended_twice_still_tells_what_it_took_out_of_other_objects() {
    let cloud = classified().await;
    handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect("written");
    // The message comes again, on the next day.
    let (window, changed) = (day(1), message("a", "closed").replace("2024-07-01", "2024-07-02"));
    cloud.given_spool(&window, &[("a", changed.as_str())]).await;
    let prefix = spool_prefix(RUN, &window.window_id, 1);
    let entries: Vec<Entry> = cloud.objects().get_lines(&index_key(&prefix, 0)).await.expect("an index");
    let staging = Staging::new(Claim { window_id: window.window_id.clone(), ..claim() }, cloud.call().now(), false);
    let (ledger, entries) = (cloud.tracking(), entries.iter().collect::<Vec<_>>());
    let staged = ledger.stage_all(&entries, &staging, &mut Guesses::default(), || false).await;
    let decisions = staged.expect("staged").decisions.expect("in time");
    assert!(matches!(decisions[..], [Decision::Replace { .. }]), "{decisions:?}");
    cloud.objects().put_lines(&decisions_key(&prefix, 0), &decisions).await.expect("written");
    let earlier = cloud.keys("archive/parquet/").into_keys().next().expect("the first window's object");
    let dies = cloud.through(Arc::new(Without("archive/_commits/")));
    handle(&deps(&dies), task(window.clone(), Some(1)), cloud.call()).await.expect_err("it dies before its manifest");
    for key in cloud.keys(&prefix).into_keys() {
        cloud.objects().delete(&key).await.expect("deleted");
    }
    cloud.clock.advance(std::time::Duration::from_secs(31 * 24 * 3600));
    let dies = cloud.through(Arc::new(NoWindowEnds(cloud.clone())));
    handle(&deps(&dies), task(window.clone(), Some(1)), cloud.call()).await.expect_err("its rows are completed");
    handle(&deps(&cloud), task(window.clone(), Some(1)), cloud.call()).await.expect_err("nothing to write from");
    let manifest: Value = cloud.json(&alerts::keys::manifest_key(&window.window_id, RUN, 1));
    let sha256 = storage::sha256_hex(&cloud.object(&earlier));
    let told = manifest["objects"].as_array().expect("objects").iter().find(|object| object["key"] == *earlier);
    assert_eq!(told.expect("the earlier object")["sha256"], sha256);
}

#[tokio::test]
async fn a_window_whose_spool_has_expired_is_read_anew_by_its_next_attempt() {
    let (cloud, _) = expired("archive/parquet").await;
    let error = handle(&deps(&cloud), task(day(0), Some(1)), cloud.call()).await.expect_err("nothing to write from");
    assert_eq!(error.name(), "ObjectMissing");
    let now = cloud.call().now();
    let (windows, first) = (cloud.windows(), day(0));
    let begun = windows.change(RUN, &first.window_id, |record| Ok(record.begin("query-messages", now).0));
    assert_eq!(begun.await.expect("begun").fence.attempt, 3, "it queries its source once more");
}

#[tokio::test]
async fn whatever_request_fails_while_an_expired_intent_ends_the_archive_is_the_same() {
    let set_up = async || {
        let (cloud, _) = expired("_commits").await;
        cloud
    };
    let second = day(1);
    let write = async |cloud: &Cloud| handle(&deps(cloud), task(second.clone(), Some(1)), cloud.call()).await;
    let look = |cloud: &Cloud| (archived(cloud), unnamed(cloud), column(&cloud.tracking_rows(), "status"));
    assert!(fail_each_request(set_up, write, look).await > 20);
}
