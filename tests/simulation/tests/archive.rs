//! Whole runs in memory: what each finished run promises, whatever request failed on the way.

use memory_cloud::{Cloud, column, given::arn};
use network::{OneFault, Strike};
use serde_json::{Value, json};
use simulation::Archive;
use std::collections::BTreeMap;

fn input() -> Value {
    json!({"mode": "range", "from": "2024-07-01", "to": "2024-08-01"})
}

/// Thirteen messages on three days: nine closed, three open, one not valid JSON.
fn source() -> Cloud {
    let cloud = Cloud::default();
    for n in 0..9 {
        cloud.put_message(&format!("closed-{n}"), &format!("2024-07-0{}T0{n}:00:00Z", n % 3 + 1), "closed");
    }
    for n in 0..3 {
        cloud.put_message(&format!("open-{n}"), &format!("2024-07-0{}T12:00:00Z", n + 1), "open");
    }
    cloud.node.put_bytes("messages", "poison", b"{/* no JSON */}", 1_719_900_000_000, "poison");
    cloud
}

/// How often each message stands under `archive/parquet`.
fn archived(cloud: &Cloud) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for key in cloud.keys("archive/parquet/").into_keys() {
        for row in columnar::rows(cloud.object(&key)).expect("Parquet") {
            *found.entry(row.expect("a row").identity.id).or_default() += 1;
        }
    }
    found
}

/// What must hold once a run over everything has finished: promises 1, 2 and 4, and one mail a report.
fn check(cloud: &Cloud, run_id: &str, context: &str) {
    let expected: BTreeMap<String, u64> = (0..9).map(|n| (format!("closed-{n}"), 1)).collect();
    assert_eq!(archived(cloud), expected, "{context}");
    for row in cloud.tracking_rows() {
        let is_open = row["disposition"] == "open";
        let expected = if is_open { "Pending" } else { "Completed" };
        assert_eq!(row["status"], expected, "{context}: {row}");
        assert!(row["claim"].is_null(), "{context}: {row}");
        if let Some(path) = row["s3_path"].as_str() {
            let key = path.strip_prefix("s3://archive/").expect("a key of the bucket");
            assert!(cloud.keys(key).contains_key(key), "{context}: {path} is not there");
        }
    }
    assert!(column(&cloud.window_rows(), "status").iter().all(|status| status == "Completed"), "{context}");
    let report = cloud.json(&format!("runs/{run_id}/report.json"));
    assert_eq!((&report["reconciled"], &report["backlog"]), (&json!(true), &json!(3)), "{context}");
    assert_eq!(cloud.job_run(run_id)["status"], "Completed", "{context}");
}

#[tokio::test]
async fn a_run_archives_holds_over_and_quarantines_and_tells() {
    let cloud = source();
    let archive = Archive { window_messages: 3, ..Archive::new(cloud.clone()) };
    archive.run("r1", input()).await.expect("a good end");
    check(&cloud, "r1", "without a fault");
    assert_eq!(cloud.node.points_in_time(), 0, "all are closed; one whose closing failed expires");
    let report = cloud.json("runs/r1/report.json");
    let messages =
        json!({"source": 13, "archived": 9, "open": 3, "quarantined": 1, "already_archived": 0, "no_alerts": 0});
    assert_eq!(report["messages"], messages);
    assert!(report["windows"]["planned"].as_u64().is_some_and(|windows| windows >= 4), "{report}");
    assert_eq!(cloud.mails.sent().len(), 1);
    assert_eq!(cloud.json("dashboard/data/latest.json")["report"], report);
}

#[tokio::test]
async fn a_second_run_finds_everything_there_and_a_closed_message_no_longer_open() {
    let cloud = source();
    let archive = Archive { window_messages: 3, ..Archive::new(cloud.clone()) };
    archive.run("r1", input()).await.expect("a good end");
    archive.run("r2", input()).await.expect("a good end");
    check(&cloud, "r2", "the second run");
    let report = cloud.json("runs/r2/report.json");
    assert_eq!((&report["messages"]["archived"], &report["messages"]["already_archived"]), (&json!(0), &json!(9)));
    cloud.put_message("open-1", "2024-07-02T12:00:00Z", "closed");
    archive.run("r3", input()).await.expect("a good end");
    assert_eq!(archived(&cloud).get("open-1"), Some(&1));
    assert_eq!(cloud.json("runs/r3/report.json")["backlog"], 2);
    assert_eq!(archived(&cloud).len(), 10);
}

#[tokio::test]
async fn a_failed_window_fails_the_run_and_a_redrive_repairs_only_that() {
    let cloud = source();
    let archive = Archive { window_messages: 3, ..Archive::new(cloud.clone()) };
    // The spool of one window cannot be read: its index is overwritten once, behind the back of the run.
    struct Damage(Cloud, std::sync::atomic::AtomicBool);
    impl simulation::Watch for Damage {
        fn before(&self, function: &str, _: &Value) {
            let is_first = function == "classify-alerts" && !self.1.swap(true, std::sync::atomic::Ordering::SeqCst);
            if is_first {
                self.0.store.expire(memory_cloud::BUCKET, "spool/");
            }
        }
    }
    let damage = Damage(cloud.clone(), Default::default());
    let damaged = Archive { watch: &damage, window_messages: 3, ..Archive::new(cloud.clone()) };
    let error = damaged.run("r1", input()).await.expect_err("a window failed");
    assert_eq!(error.name, "WindowsFailed");
    let report = cloud.json("runs/r1/report.json");
    assert_eq!((&report["windows"]["failed"], &report["failures"][0]["error"]), (&json!(1), &json!("ObjectMissing")));
    let manifests = cloud.keys("archive/_commits/").len();
    let collected = alerts::run::payloads::Collected {
        v: alerts::run::payloads::Version,
        run_id: "r1".into(),
        mode: alerts::mode::Mode::Range,
        execution_arn: arn("r1"),
        bucket: memory_cloud::BUCKET.into(),
        report_key: "runs/r1/report.json".into(),
        failed: 1,
        windows: 1,
        windows_key: cloud.keys("runs/r1/windows-failed-1-").into_keys().next().expect("a list"),
        reported_at: 0,
    };
    archive.redrive(&arn("r1"), collected).await.expect("a good end");
    check(&cloud, "r1", "after the redrive");
    assert_eq!(cloud.keys("archive/_commits/").len(), manifests + 1, "only the failed window ran");
    assert_eq!(cloud.mails.sent().len(), 2, "a mail for each attempt");
}

#[tokio::test]
async fn whatever_request_fails_in_a_whole_run_each_closed_message_is_archived_once() {
    let counting = OneFault::at(usize::MAX, Strike::Request);
    let cloud = source();
    Archive::new(cloud.through(counting.clone())).run("r1", input()).await.expect("a good end");
    check(&cloud, "r1", "without a fault");
    let requests = counting.seen();
    let mut failed = 0;
    for strike in [Strike::Request, Strike::Answer, Strike::AnswerThenRetry] {
        for nth in 0..requests {
            let cloud = source();
            let fault = OneFault::at(nth, strike);
            let context = format!("{strike:?} {nth} of {requests}");
            let outcome = Archive::new(cloud.through(fault.clone())).run("r1", input()).await;
            assert!(fault.struck(), "{context}");
            // One more run, as next week's.
            let last = if outcome.is_ok() { "r1" } else { "r2" };
            if outcome.is_err() {
                failed += 1;
                Archive::new(cloud.clone())
                    .run(last, input())
                    .await
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
            }
            check(&cloud, last, &context);
            let mails = cloud.mails.sent();
            let marked = mails
                .iter()
                .filter(|mail| mail.header("Subject").is_some_and(|subject| subject.contains("uplicate")))
                .count();
            assert!(mails.len() - marked <= if outcome.is_ok() { 1 } else { 2 }, "{context}: {} mails", mails.len());
        }
    }
    println!("{} runs with one fault each, of which {failed} failed and were followed by another", 3 * requests);
}

#[tokio::test]
async fn what_was_extracted_on_the_last_day_that_a_window_reaches_is_written() {
    let cloud = Cloud::default();
    cloud.put_message("last", "9999-12-30T12:00:00Z", "closed");
    let archive = Archive::new(cloud.clone());
    let extract = json!({"mode": "extract", "from": "9999-12-30", "to": "9999-12-31"});
    archive.run("extract", extract).await.expect("a good end");
    archive.run("process", json!({"mode": "process"})).await.expect("a good end");
    assert_eq!(archived(&cloud), BTreeMap::from([("last".to_owned(), 1)]));
}
