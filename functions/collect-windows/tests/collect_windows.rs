//! The report of a run over a cloud in memory.

use alerts::{
    commit::manifest::WrittenObject,
    counts::Messages,
    mode::Mode,
    run::job_run::{JobRun, RunStatus},
    run::payloads::{CollectRequest, Version},
    window::{
        record::{State, WindowRecord},
        spool::Record,
    },
};
use async_trait::async_trait;
use collect_windows::{Deps, handle};
use columnar::{ObjectWriter, Origin};
use errors::Named;
use identity::Identity;
use ledger::Fence;
use memory_cloud::{
    Cloud, fail_each_request,
    given::{RUN, arn, day},
};
use network::{Broken, Network, Request};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

fn deps(cloud: &Cloud) -> Deps {
    Deps {
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        ledger: cloud.tracking(),
        workflow: cloud.workflow(),
        source_gb_month: Some(0.5),
    }
}

fn request() -> CollectRequest {
    CollectRequest {
        v: Version,
        run_id: RUN.into(),
        mode: Mode::Range,
        execution_arn: arn(RUN),
        bucket: memory_cloud::BUCKET.into(),
        windows_key: "runs/r1/windows.jsonl".into(),
    }
}

/// The fence of a first attempt that has ended.
fn first(planned: &WindowRecord) -> Fence {
    Fence { attempt: 1, ..planned.fence }
}

fn completed(planned: WindowRecord) -> WindowRecord {
    let messages = Messages { source: 5, archived: 3, open: 1, quarantined: 1, ..Messages::default() };
    WindowRecord { status: State::Completed, fence: first(&planned), messages, ..planned }
}

/// A run of four windows: one is completed, one failed, one crashed, one was never started.
async fn ended() -> Cloud {
    let cloud = Cloud::default();
    cloud.given_run("range").await;
    cloud.given_list("runs/r1/windows.jsonl", &[day(0), day(1), day(2), day(3)]).await;
    cloud.given_window(&day(0), completed).await;
    let failed = |planned: WindowRecord| {
        let (error, message) = (Some("CountMismatch".to_owned()), Some("5 counted, 4 read".to_owned()));
        WindowRecord { status: State::Failed, fence: first(&planned), error, message, ..planned }
    };
    cloud.given_window(&day(1), failed).await;
    let crashed = |planned: WindowRecord| WindowRecord { status: State::Running, fence: first(&planned), ..planned };
    cloud.given_window(&day(2), crashed).await;
    cloud
}

#[tokio::test]
async fn what_is_planned_and_not_committed_has_failed_each_with_its_reason() {
    let cloud = ended().await;
    let collected = handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    assert_eq!((collected.failed, collected.windows, collected.reported_at), (3, 3, 0));
    let report = cloud.json("runs/r1/report.json");
    assert_eq!(report["windows"], json!({"planned": 4, "succeeded": 1, "failed": 3}));
    assert_eq!(
        (&report["messages"]["source"], &report["reconciled"], &report["status"]),
        (&json!(5), &json!(false), &json!("Failed"))
    );
    let errors: Vec<&Value> =
        report["failures"].as_array().expect("a list").iter().map(|failure| &failure["error"]).collect();
    assert_eq!(errors, ["CountMismatch", "StepCrashed", "NotStarted"]);
    let failed = String::from_utf8(cloud.object(&collected.windows_key).to_vec()).expect("UTF-8");
    assert_eq!(failed.lines().count(), 3);
    assert!(!failed.contains(&day(0).window_id));
}

#[tokio::test]
async fn each_window_of_the_plan_has_a_cell_with_its_state_its_messages_and_its_time() {
    let cloud = ended().await;
    let took = |record: &WindowRecord| {
        let began_at = Some(record.updated_at - jiff::SignedDuration::from_secs(12));
        Ok(WindowRecord { began_at, ..record.clone() })
    };
    cloud.windows().change(RUN, &day(0).window_id, took).await.expect("noted");
    let skip = |planned: WindowRecord| planned.skip("the index is damaged", planned.updated_at).expect("skipped");
    cloud.given_window(&day(3), skip).await;
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    let cell = |n: i64, state: &str, messages: u64| json!({"window_id": day(n).window_id, "state": state, "messages": messages});
    let with = |mut cell: Value, name: &str, value: Value| {
        cell[name] = value;
        cell
    };
    let expected = json!([
        with(cell(0, "done", 5), "seconds", json!(12)),
        with(cell(1, "failed", day(1).expected), "error", json!("CountMismatch")),
        with(cell(2, "failed", day(2).expected), "error", json!("StepCrashed")),
        with(cell(3, "set_aside", day(3).expected), "error", json!("WindowSkipped")),
    ]);
    assert_eq!(cloud.json("runs/r1/grid.json"), expected);
}

#[tokio::test]
async fn what_failed_is_counted_against_the_plan_and_is_a_gap_of_the_archive() {
    let cloud = ended().await;
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    let report = cloud.json("runs/r1/report.json");
    let expected: Vec<&Value> =
        report["failures"].as_array().expect("a list").iter().map(|failure| &failure["messages"]).collect();
    assert_eq!(expected, [&json!(day(1).expected), &json!(day(2).expected), &json!(day(3).expected)]);
    let overview = cloud.json("runs/r1/details.json")["overview"].clone();
    assert_eq!(overview["runs"], 1);
    let gap = &overview["gaps"].as_array().expect("a list")[0];
    assert_eq!(gap["from"], identity::instant::iso(day(1).from), "{overview:#}");
}

#[tokio::test]
async fn of_a_run_that_was_cancelled_only_what_it_had_planned_and_not_done_is_a_gap() {
    let cloud = ended().await;
    let row: JobRun = serde_json::from_value(cloud.job_run(RUN)).expect("a row");
    let hours = jiff::SignedDuration::from_hours;
    // Its range reaches ten years further than the source.
    let (from, to) = (day(10).from, day(10).from + hours(24 * 3650));
    let dead = JobRun { run_id: "r0".into(), status: RunStatus::Failed, from, to, revision: 1, ..row };
    let dead = JobRun { error: Some("ExecutionDied".into()), ..dead };
    assert!(cloud.job_runs().runs.put(&dead).await.expect("written"));
    for (n, status) in [(10, State::Completed), (12, State::Running)] {
        let planned = WindowRecord::planned("r0", Mode::Range, day(n), from);
        let record = WindowRecord { status, revision: 1, ..planned };
        assert!(cloud.windows().rows.put(&record).await.expect("written"));
    }
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    let overview = cloud.json("runs/r1/details.json")["overview"].clone();
    let has = |kind: &str, n: i64| {
        let span = json!({"from": identity::instant::iso(day(n).from), "to": identity::instant::iso(day(n).to)});
        overview[kind].as_array().expect("a list").contains(&span)
    };
    assert!(has("covered", 10) && has("gaps", 12), "{overview:#}");
    assert_eq!(overview["gaps"].as_array().map(Vec::len), Some(2), "and what failed in this run: {overview:#}");
}

#[tokio::test]
async fn what_an_earlier_run_has_committed_is_no_gap_and_not_called_missing() {
    let cloud = ended().await;
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    let extents = |cloud: &Cloud| -> Vec<Value> {
        let report = cloud.json("runs/r1/report.json");
        report["failures"].as_array().expect("a list").iter().map(|failure| failure["by_other_runs"].clone()).collect()
    };
    assert_eq!(extents(&cloud), [Value::Null, Value::Null, Value::Null], "nobody else has them");
    // Another run has done the second day whole, and half of the third.
    let to = day(2).from + jiff::SignedDuration::from_hours(12);
    let (row, mut earlier) = (cloud.job_run(RUN), cloud.json("runs/r1/report.json"));
    let row: JobRun = serde_json::from_value(row).expect("a row");
    let other = JobRun { run_id: "r0".into(), status: RunStatus::Completed, to, revision: 1, ..row };
    assert!(cloud.job_runs().runs.put(&other).await.expect("written"));
    earlier["to"] = json!(identity::instant::iso(to));
    (earlier["run_id"], earlier["status"], earlier["failures"]) = (json!("r0"), json!("Completed"), json!([]));
    cloud.objects().put_json("runs/r0/report.json", &earlier).await.expect("written");
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    assert_eq!(extents(&cloud), [json!("all"), json!("part"), Value::Null]);
}

/// The manifest of a committed window of a run: so many rows in its own object.
async fn given_manifest(cloud: &Cloud, window_id: &str, run_id: &str, rows: u64) -> String {
    let key = format!("archive/parquet/date=2024-07-01/{window_id}.{run_id}.0000.parquet");
    let quarantine = format!("quarantine/date=2024-07-01/{window_id}");
    let manifest = json!({
        "v": 1, "run_id": run_id, "window_id": window_id, "attempt": 1, "committed_at": "2024-08-01T00:00:00.000Z",
        "source": 5, "counts": Messages::default(),
        "objects": [{"key": key, "rows": rows, "bytes": 10 * rows, "sha256": ""}, {"key": quarantine, "rows": 1, "bytes": 9, "sha256": ""}],
    });
    let key = format!("archive/_commits/{window_id}/{run_id}-1.json");
    cloud.objects().put_json(&key, &manifest).await.expect("written");
    key
}

/// Manifests that were read.
#[derive(Default)]
struct Manifests(AtomicUsize);

#[async_trait]
impl Network for Manifests {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        if request.operation == "GetObject" && request.subject.contains("/_commits/") {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_overview_counts_each_manifest_once_and_never_reads_it_again() {
    let cloud = ended().await;
    let window_id = day(0).window_id;
    let key = given_manifest(&cloud, &window_id, RUN, 7).await;
    let committed = |record: &WindowRecord| Ok(WindowRecord { manifest_key: Some(key.clone()), ..record.clone() });
    cloud.windows().change(RUN, &window_id, committed).await.expect("committed");
    let counting = Arc::new(Manifests::default());
    let through = cloud.through(counting.clone());
    for reports in 1..=3 {
        handle(&deps(&through), request(), cloud.call()).await.expect("collected");
        let overview = cloud.json("runs/r1/details.json")["overview"].clone();
        assert_eq!((&overview["archived"], &overview["bytes"]), (&json!(7), &json!(70)), "report {reports}");
        let day =
            json!([{"date": "2024-07-01", "archived": 7, "open": 0, "quarantined": 0, "bytes": 70, "source_bytes": 0}]);
        assert_eq!(overview["days"], day);
        assert_eq!(counting.0.load(Ordering::SeqCst), 1, "report {reports}");
    }
    // Another window of the run is committed after its report.
    let key = given_manifest(&cloud, &day(1).window_id, RUN, 5).await;
    let committed = |record: &WindowRecord| {
        Ok(WindowRecord { status: State::Completed, manifest_key: Some(key.clone()), ..record.clone() })
    };
    cloud.windows().change(RUN, &day(1).window_id, committed).await.expect("committed");
    handle(&deps(&through), request(), cloud.call()).await.expect("collected");
    assert_eq!(cloud.json("runs/r1/details.json")["overview"]["archived"], 12);
    assert_eq!(counting.0.load(Ordering::SeqCst), 2);
}

/// An object of the archive with a message for each of these severities.
async fn given_object(cloud: &Cloud, window_id: &str, severities: &[&str]) -> WrittenObject {
    given_object_of(cloud, window_id, RUN, severities).await
}

/// As a window calls it after `writer`.
async fn given_object_of(cloud: &Cloud, window_id: &str, writer_id: &str, severities: &[&str]) -> WrittenObject {
    let origin = Origin { run_id: RUN.into(), archived_at: day(0).from };
    let mut writer = ObjectWriter::new(origin).expect("a writer");
    for (n, severity) in severities.iter().enumerate() {
        let alert = json!({"status": "closed", "severity": severity, "category": "fraud"});
        let message = json!({"message_id": n.to_string(), "alerts": [alert]}).to_string();
        let entry = json!({
            "index": "messages", "id": n.to_string(), "at": "2024-07-01T08:00:00.000Z", "version": "v",
            "bytes": message.len(), "disposition": "closed",
        });
        let record = Record { message: message.into_bytes(), ..Record::default() };
        writer.push(&serde_json::from_value(entry).expect("an entry"), record).expect("a row");
    }
    let body = writer.finish().expect("an object");
    let key = alerts::keys::parquet_key("2024-07-01", window_id, writer_id, 0);
    let (rows, bytes, sha256) = (severities.len() as u64, body.len() as u64, storage::sha256_hex(&body));
    cloud.objects().put(&key, body, "application/vnd.apache.parquet").await.expect("written");
    WrittenObject { key, rows, bytes, sha256 }
}

async fn commit(cloud: &Cloud, window_id: &str, objects: &[&WrittenObject]) {
    let manifest = json!({
        "v": 1, "run_id": RUN, "window_id": window_id, "attempt": 1, "committed_at": "2024-08-01T00:00:00.000Z",
        "source": 5, "counts": Messages::default(), "objects": objects,
    });
    let key = format!("archive/_commits/{window_id}/{RUN}-1.json");
    cloud.objects().put_json(&key, &manifest).await.expect("written");
    let committed = |record: &WindowRecord| {
        Ok(WindowRecord { status: State::Completed, manifest_key: Some(key.clone()), ..record.clone() })
    };
    cloud.windows().change(RUN, window_id, committed).await.expect("committed");
}

/// Takes the message with this number out of an object, as a window does that has a newer version of it.
async fn take_out(cloud: &Cloud, object: &WrittenObject, number: usize, window_id: &str) {
    let named = HashSet::from([Identity::new("messages", number.to_string())]);
    let split = columnar::split(cloud.object(&object.key), &named).expect("Parquet").expect("it holds the message");
    let taken = alerts::keys::superseded_key(&object.key, window_id, RUN);
    for (key, body) in [(&taken, split.taken), (&object.key, split.kept)] {
        cloud.objects().put(key, body, "application/vnd.apache.parquet").await.expect("written");
    }
}

#[tokio::test]
async fn alerts_are_counted_by_month_as_often_as_their_messages_stand_in_the_archive() {
    let cloud = ended().await;
    let severities = |cloud: &Cloud| {
        let month = cloud.json("runs/r1/details.json")["overview"]["alerts"]["2024-07"].clone();
        (month["messages"].clone(), month["severities"].clone())
    };
    let first = given_object(&cloud, &day(0).window_id, &["high", "HIGH", "low"]).await;
    commit(&cloud, &day(0).window_id, &[&first]).await;
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    assert_eq!(severities(&cloud), (json!(3), json!({"high": 2, "low": 1})));
    // Two windows have newer versions: the first of a message that is counted, the second of one that is not yet.
    let second = given_object(&cloud, &day(1).window_id, &["critical", "low"]).await;
    commit(&cloud, &day(1).window_id, &[&second, &first]).await;
    take_out(&cloud, &first, 0, &day(1).window_id).await;
    let third = given_object(&cloud, &day(2).window_id, &["low"]).await;
    commit(&cloud, &day(2).window_id, &[&third, &second]).await;
    take_out(&cloud, &second, 0, &day(2).window_id).await;
    for _ in 0..2 {
        handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
        let left = json!({"high": 1, "low": 3, "critical": 0});
        assert_eq!(severities(&cloud), (json!(4), left));
    }
}

#[tokio::test]
async fn sizes_are_those_of_what_stands_there_also_where_rows_were_replaced() {
    let cloud = ended().await;
    let told = async |stands: &[&WrittenObject]| {
        handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
        let overview = cloud.json("runs/r1/details.json")["overview"].clone();
        let objects: Vec<_> = stands.iter().map(|object| cloud.object(&object.key)).collect();
        let rows = objects.iter().flat_map(|object| columnar::rows(object.clone()).expect("Parquet"));
        let messages: Vec<usize> = rows.map(|row| row.expect("a row").record.message.len()).collect();
        let bytes = objects.iter().map(|object| object.len() as u64).sum::<u64>();
        assert_eq!(overview["bytes"], json!(bytes));
        let in_source = &overview["in_source"];
        assert_eq!(in_source["messages"], json!(messages.len()));
        let more = in_source["bytes"].as_i64().expect("bytes") - messages.iter().sum::<usize>() as i64;
        assert!((0..300).contains(&more), "{more} bytes more than the messages have");
        assert_eq!(overview["days"][0]["source_bytes"], in_source["bytes"]);
        assert_eq!(overview["source_gb_month"], json!(0.5));
        bytes
    };
    let long = "a severity that is long ".repeat(1000);
    let first = given_object(&cloud, &day(0).window_id, &["high", &long, "low"]).await;
    commit(&cloud, &day(0).window_id, &[&first]).await;
    assert_eq!(told(&[&first]).await, first.bytes);
    // Two windows have newer versions: the first of a message that is counted, the second of one that is not yet.
    let second = given_object(&cloud, &day(1).window_id, &[&long, "low"]).await;
    commit(&cloud, &day(1).window_id, &[&second, &first]).await;
    take_out(&cloud, &first, 1, &day(1).window_id).await;
    let third = given_object(&cloud, &day(2).window_id, &["low"]).await;
    commit(&cloud, &day(2).window_id, &[&third, &second]).await;
    take_out(&cloud, &second, 0, &day(2).window_id).await;
    assert!(told(&[&first, &second, &third]).await < first.bytes + second.bytes + third.bytes);
    // One that only adds to the day is counted once, too.
    let fourth = given_object(&cloud, &day(3).window_id, &["low"]).await;
    cloud.given_window(&day(3), |planned| planned).await;
    commit(&cloud, &day(3).window_id, &[&fourth]).await;
    for _ in 0..2 {
        told(&[&first, &second, &third, &fourth]).await;
    }
}

#[tokio::test]
async fn a_window_is_counted_with_the_objects_of_an_attempt_behind_an_ended_intent() {
    let cloud = ended().await;
    let window_id = day(0).window_id;
    let writer = alerts::keys::attempt_of(RUN, 2);
    let again = given_object_of(&cloud, &window_id, &writer, &["high", "low"]).await;
    commit(&cloud, &window_id, &[&again]).await;
    cloud
        .windows()
        .change(RUN, &window_id, |record| Ok(WindowRecord { ended: 1, ..record.clone() }))
        .await
        .expect("ended");
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    let overview = cloud.json("runs/r1/details.json")["overview"].clone();
    assert_eq!((&overview["archived"], &overview["alerts"]["2024-07"]["messages"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn a_row_that_was_replaced_before_its_window_is_counted_does_not_stay_in_the_sum() {
    let cloud = ended().await;
    // The first window, which is counted first, has sent the message of the second to another day.
    let [older, newer] = [day(1).window_id, day(0).window_id];
    let replaced = given_object(&cloud, &older, &["high"]).await;
    let named = HashSet::from([Identity::new("messages", "0")]);
    let split = columnar::split(cloud.object(&replaced.key), &named).expect("Parquet").expect("it holds the message");
    let taken = alerts::keys::superseded_key(&replaced.key, &newer, RUN);
    cloud.objects().put(&taken, split.taken, "application/vnd.apache.parquet").await.expect("written");
    commit(&cloud, &newer, &[&replaced]).await;
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    commit(&cloud, &older, &[&replaced]).await;
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    assert_eq!(cloud.json("runs/r1/details.json")["overview"]["archived"], 0);
}

#[tokio::test]
async fn sums_from_before_alerts_were_counted_go_on_without_them() {
    let cloud = ended().await;
    let totals =
        json!({"days": {"2024-07-01": {"archived": 7, "bytes": 70}}, "runs": [], "windows": {RUN: [day(0).window_id]}});
    cloud.objects().put_json("runs/#totals.json", &totals).await.expect("written");
    let later = given_object(&cloud, &day(1).window_id, &["high"]).await;
    commit(&cloud, &day(1).window_id, &[&later]).await;
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    let overview = cloud.json("runs/r1/details.json")["overview"].clone();
    assert_eq!((&overview["archived"], &overview["alerts"]["2024-07"]["messages"]), (&json!(8), &json!(1)));
    // What rows had left by then is not known: the day is looked at.
    assert_eq!((&overview["bytes"], &overview["in_source"]["messages"]), (&json!(later.bytes), &json!(1)));
}

#[tokio::test]
async fn the_next_attempt_knows_what_failed_before_however_often_it_reports() {
    let cloud = ended().await;
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    cloud.job_runs().change(RUN, |row| row.attempt = 2).await.expect("noted");
    for _ in 0..2 {
        handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
        let before = cloud.json("runs/r1/details.json")["before"].clone();
        let messages = day(1).expected + day(2).expected + day(3).expected;
        assert_eq!((&before["run_id"], &before["attempt"]), (&json!(RUN), &json!(1)), "{before:#}");
        assert_eq!((&before["failed_windows"], &before["failed_messages"]), (&json!(3), &json!(messages)));
    }
}

#[tokio::test]
async fn a_run_that_was_redriven_after_its_death_is_at_work_again_and_its_report_counts() {
    let cloud = ended().await;
    let job_runs = cloud.job_runs();
    let died = job_runs.change(RUN, |row| {
        row.status = alerts::run::job_run::RunStatus::Failed;
        row.error = Some("ExecutionDied".into());
    });
    died.await.expect("noted");
    handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    let row = cloud.job_run(RUN);
    assert_eq!((&row["status"], row["error"].is_null()), (&json!("Running"), true), "{row:#}");
}

#[tokio::test]
async fn a_call_of_an_execution_that_has_died_meanwhile_neither_reports_nor_brings_the_run_back() {
    /// It dies before the report is written.
    struct Dies(Cloud);
    #[async_trait]
    impl Network for Dies {
        async fn sent(&self, request: &Request) -> Result<(), Broken> {
            if request.operation == "PutObject" && request.subject.ends_with("/report.json") {
                die(&self.0).await;
            }
            Ok(())
        }
    }
    async fn die(cloud: &Cloud) {
        cloud.executions.end(&arn(RUN), "ABORTED", None);
        let died = |row: &mut JobRun| (row.status, row.error) = (RunStatus::Failed, Some("ExecutionDied".into()));
        cloud.job_runs().change(RUN, died).await.expect("noted");
    }
    for is_late in [false, true] {
        let cloud = ended().await;
        let seen = if is_late { cloud.clone() } else { cloud.through(Arc::new(Dies(cloud.clone()))) };
        if is_late {
            die(&cloud).await;
        }
        let error = handle(&deps(&seen), request(), seen.call()).await.expect_err("it has died");
        assert_eq!(error.name(), "RangeBusy");
        let row = cloud.job_run(RUN);
        assert_eq!((&row["status"], &row["error"]), (&json!("Failed"), &json!("ExecutionDied")), "late: {is_late}");
        assert_eq!(cloud.keys("runs/r1/report.json").is_empty(), is_late);
    }
}

#[tokio::test]
async fn a_skipped_window_is_reported_but_does_not_fail_the_run() {
    let cloud = Cloud::default();
    cloud.given_run("range").await;
    cloud.given_list("runs/r1/windows.jsonl", &[day(0), day(1)]).await;
    cloud.given_window(&day(0), completed).await;
    let skip = |planned: WindowRecord| planned.skip("the index is damaged", planned.updated_at).expect("skipped");
    cloud.given_window(&day(1), skip).await;
    let collected = handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    assert_eq!(collected.failed, 0);
    let report = cloud.json("runs/r1/report.json");
    assert_eq!((&report["failures"][0]["error"], &report["reconciled"]), (&json!("WindowSkipped"), &json!(false)));
    assert_eq!(report["unresolved"].as_array().map(Vec::len), Some(1));
    let noted = cloud.json("runs/r1/details.json")["failed"].clone();
    assert_eq!((&noted["set_aside_windows"], &noted["set_aside_messages"]), (&json!(1), &json!(day(1).expected)));
}

#[tokio::test]
async fn a_redrive_that_comes_while_the_report_is_made_is_seen_by_the_gate() {
    let cloud = ended().await;
    cloud.executions.end(&arn(RUN), "FAILED", None);
    cloud.workflow().redrive(&arn(RUN)).await.expect("redriven");
    let collected = handle(&deps(&cloud), request(), cloud.call()).await.expect("collected");
    assert_eq!(collected.reported_at, 1);
}

#[tokio::test]
async fn a_run_without_a_row_or_a_readable_plan_has_no_report() {
    let cloud = Cloud::default();
    let missing = handle(&deps(&cloud), request(), cloud.call()).await.expect_err("no row");
    assert_eq!(missing.name(), "PlanMissing");
    let cloud = ended().await;
    cloud.objects().put("runs/r1/windows.jsonl", "{\"window_id\"", "application/jsonl").await.expect("written");
    let unreadable = handle(&deps(&cloud), request(), cloud.call()).await.expect_err("no window");
    assert_eq!(unreadable.name(), "ObjectCorrupt");
}

#[tokio::test]
async fn whatever_request_fails_the_report_can_be_made_again() {
    let collect = async |cloud: &Cloud| handle(&deps(cloud), request(), cloud.call()).await;
    let look =
        |cloud: &Cloud| (cloud.json("runs/r1/report.json"), cloud.keys("runs/"), cloud.job_run(RUN)["counts"].clone());
    assert!(fail_each_request(ended, collect, look).await > 30);
}
