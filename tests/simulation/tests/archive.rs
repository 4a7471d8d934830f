//! Whole runs in memory: what each finished run promises, whatever request failed on the way.

use alerts::run::{
    job_run::{JobRun, RunStatus},
    payloads::{CollectRequest, Collected, Plan, PlanRequest, ReportRequest, Version},
};
use async_trait::async_trait;
use memory_cloud::{BUCKET, Cloud, column, given::arn};
use network::{Broken, Network, OneFault, Request, Strike};
use serde_json::{Value, json};
use simulation::{Archive, Fault, Watch};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{Notify, Semaphore};

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
    let collected = Collected {
        v: Version,
        run_id: "r1".into(),
        mode: alerts::mode::Mode::Range,
        execution_arn: arn("r1"),
        bucket: memory_cloud::BUCKET.into(),
        report_key: "runs/r1/report.json".into(),
        failed: 1,
        windows: 1,
        windows_key: cloud.keys("runs/r1/windows-failed-1-").into_keys().next().expect("a list"),
        reported_at: 0,
        // As an older function left it.
        attempt: None,
    };
    archive.redrive(&arn("r1"), collected).await.expect("a good end");
    check(&cloud, "r1", "after the redrive");
    assert_eq!(cloud.keys("archive/_commits/").len(), manifests + 1, "only the failed window ran");
    assert_eq!(cloud.mails.sent().len(), 2, "a mail for each attempt");
}

/// An execution that has planned.
struct Planned {
    arn: String,
    plan: Plan,
}

async fn planned(archive: &Archive<'_>, name: &str, input: Value) -> Planned {
    let arn = archive.cloud.start(name, &input).await;
    let request = PlanRequest { v: Version, input, run_id: name.to_owned(), execution_arn: arn.clone() };
    Planned { arn, plan: archive.plan(request).await.expect("planned") }
}

/// The Map, and what follows it until the execution ends.
async fn to_its_end(archive: &Archive<'_>, Planned { arn, plan }: &Planned) -> Result<(), Fault> {
    for task in archive.tasks(plan) {
        let _ = archive.window(task).await;
    }
    let outcome = reported(archive, plan).await;
    let status = if outcome.is_ok() { "SUCCEEDED" } else { "FAILED" };
    archive.cloud.executions.end(arn, status, None);
    outcome
}

async fn reported(archive: &Archive<'_>, plan: &Plan) -> Result<(), Fault> {
    let Plan { v, run_id, mode, execution_arn, bucket, windows_key, .. } = plan.clone();
    let collected = archive.collect(CollectRequest { v, run_id, mode, execution_arn, bucket, windows_key }).await?;
    let Collected { v, run_id, report_key, reported_at, .. } = collected.clone();
    archive.send_summary(ReportRequest { v, run_id, report_key, reported_at }).await?;
    archive.gate(collected).await.map(|_| ())
}

/// The report that each mail is about, and whether it tells of a failure.
fn told(cloud: &Cloud) -> Vec<(String, bool)> {
    let mails = cloud.mails.sent();
    let headers = mails.iter().filter_map(|mail| Some((mail.header("Message-ID")?, mail.header("Subject")?)));
    let of_report = |id: &str| id.trim_start_matches('<').split('@').next().map(str::to_owned);
    headers.filter_map(|(id, subject)| Some((of_report(&id)?, subject.contains("failed")))).collect()
}

/// Loses what every window has read.
struct Lose(Cloud);

impl Watch for Lose {
    fn before(&self, function: &str, _: &Value) {
        if function == "classify-alerts" {
            self.0.store.expire(BUCKET, "spool/");
        }
    }
}

#[tokio::test]
async fn beside_a_failed_only_execution_one_that_is_redriven_begins_no_window_and_tells_nothing() {
    let cloud = source();
    let archive = Archive::new(cloud.clone());
    let first = planned(&archive, "r1", input()).await;
    cloud.executions.end(&first.arn, "ABORTED", None);
    let second = planned(&archive, "f1", json!({"mode": "failed-only", "run_id": "r1"})).await;
    cloud.workflow().redrive(&first.arn).await.expect("redriven");
    let before = (cloud.window_rows(), cloud.job_run("r1"), cloud.keys("runs/r1/"));
    for task in archive.tasks(&first.plan) {
        assert_eq!(archive.window(task).await.expect_err("the other reads it").name, "RangeBusy");
    }
    assert_eq!(reported(&archive, &first.plan).await.expect_err("the other reports").name, "RangeBusy");
    assert_eq!((cloud.window_rows(), cloud.job_run("r1"), cloud.keys("runs/r1/")), before);
    to_its_end(&archive, &second).await.expect("a good end");
    // Redriven once more, it has nothing left to do, and tells what stands.
    to_its_end(&archive, &first).await.expect("a good end");
    assert_eq!(told(&cloud), [("r1.2".to_owned(), false)]);
    assert_eq!(
        (&cloud.job_run("r1")["status"], cloud.json("runs/r1/report.json")["attempt"].as_u64()),
        (&json!("Completed"), Some(2))
    );
}

#[tokio::test]
async fn what_a_redrive_repairs_behind_a_failed_only_execution_is_told_last() {
    let cloud = source();
    let archive = Archive::new(cloud.clone());
    let first = planned(&archive, "r1", input()).await;
    cloud.executions.end(&first.arn, "ABORTED", None);
    let lose = Lose(cloud.clone());
    let losing = Archive { watch: &lose, ..Archive::new(cloud.clone()) };
    let second = planned(&losing, "f1", json!({"mode": "failed-only", "run_id": "r1"})).await;
    cloud.workflow().redrive(&first.arn).await.expect("redriven");
    assert_eq!(to_its_end(&losing, &second).await.expect_err("its windows failed").name, "WindowsFailed");
    to_its_end(&archive, &first).await.expect("a good end");
    assert_eq!(told(&cloud), [("r1.2".to_owned(), true), ("r1.3".to_owned(), false)]);
    assert_eq!(
        (&cloud.job_run("r1")["status"], cloud.json("runs/r1/report.json")["attempt"].as_u64()),
        (&json!("Completed"), Some(3))
    );
}

/// Holds back one kind of request until it is let go.
struct Held {
    operation: &'static str,
    subject: &'static str,
    reached: Notify,
    go: Semaphore,
}

#[async_trait]
impl Network for Held {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        if request.operation == self.operation && request.subject.ends_with(self.subject) {
            self.reached.notify_one();
            drop(self.go.acquire().await.map_err(|_| Broken)?);
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_report_that_is_written_late_leaves_what_another_execution_has_told_since() {
    for subject in ["/details.json", "/grid.json", "/report.json"] {
        let cloud = source();
        let archive = Archive::new(cloud.clone());
        let first = planned(&archive, "r1", input()).await;
        let held = Arc::new(Held { operation: "PutObject", subject, reached: Notify::new(), go: Semaphore::new(0) });
        let late = Archive::new(cloud.through(held.clone()));
        let report = reported(&late, &first.plan);
        let others = async {
            held.reached.notified().await;
            cloud.executions.end(&first.arn, "ABORTED", None);
            let second = planned(&archive, "f1", json!({"mode": "failed-only", "run_id": "r1"})).await;
            to_its_end(&archive, &second).await.expect("a good end");
            let stands = cloud.store.contents(BUCKET);
            held.go.add_permits(1);
            stands
        };
        let (outcome, stands) = tokio::join!(report, others);
        assert_eq!(outcome.expect_err("it is too late").name, "RangeBusy", "{subject}");
        for key in ["details", "grid", "report"].map(|name| format!("runs/r1/{name}.json")) {
            assert_eq!(cloud.object(&key), stands[&key], "{key}, when {subject} came late");
        }
        assert_eq!(told(&cloud), [("r1.2".to_owned(), false)]);
    }
}

#[tokio::test]
async fn a_run_that_is_complete_when_its_execution_is_aborted_in_the_gate_and_redriven_is_told_as_complete() {
    let cloud = source();
    let archive = Archive::new(cloud.clone());
    let first = planned(&archive, "r1", input()).await;
    for task in archive.tasks(&first.plan) {
        archive.window(task).await.expect("written");
    }
    let Plan { v, run_id, mode, execution_arn, bucket, windows_key, .. } = first.plan.clone();
    let request = CollectRequest { v, run_id, mode, execution_arn, bucket, windows_key };
    let collected = archive.collect(request).await.expect("collected");
    cloud.executions.end(&first.arn, "ABORTED", None);
    let died = |row: &mut JobRun| (row.status, row.error) = (RunStatus::Failed, Some("ExecutionDied".to_owned()));
    cloud.job_runs().change("r1", died).await.expect("noted");
    assert_eq!(archive.gate(collected.clone()).await.expect_err("a call that wakes up late").name, "RangeBusy");
    archive.redrive(&first.arn, collected).await.expect("a good end");
    assert_eq!(told(&cloud), [("r1.2".to_owned(), false)]);
    assert_eq!(cloud.job_run("r1")["status"], "Completed");
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
