//! Plans over a cloud in memory.

use alerts::{
    run::payloads::{Plan, PlanRequest, Version},
    window::record::{State, WindowRecord},
};
use errors::Named;
use jiff::SignedDuration;
use memory_cloud::{Cloud, fail_each_request, given::arn};
use plan_windows::{Deps, Error, handle};
use serde_json::{Value, json};

fn deps(cloud: &Cloud) -> Deps {
    Deps {
        sources: cloud.sources(),
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        ledger: cloud.tracking(),
        workflow: cloud.workflow(),
        target: 2,
        most_windows: 2000,
        most_found: 100_000,
        settle: SignedDuration::from_mins(60),
    }
}

async fn plan(cloud: &Cloud, run_id: &str, input: Value) -> Result<Plan, Error> {
    let request = PlanRequest { v: Version, input, run_id: run_id.into(), execution_arn: arn(run_id) };
    handle(&deps(cloud), request, cloud.call()).await
}

fn range(from: &str, to: &str) -> Value {
    json!({"mode": "range", "from": from, "to": to})
}

/// Five messages on two days, with a year between them, and one without an instant.
async fn source() -> Cloud {
    let cloud = Cloud::default();
    for (id, at) in [("a", "01T01"), ("b", "01T02"), ("c", "01T15"), ("d", "01T16")] {
        cloud.put_message(id, &format!("2023-07-{at}:00:00Z"), "closed");
    }
    cloud.put_message("e", "2024-07-01T00:00:00Z", "open");
    cloud.node.put("messages", "f", r#"{"message_id":"f","timestamp":"soon"}"#);
    for run in ["r1", "r2"] {
        cloud.start(run, &json!({})).await;
    }
    cloud
}

fn lines(cloud: &Cloud, key: &str) -> Vec<Value> {
    let lines = String::from_utf8(cloud.object(key).to_vec()).expect("UTF-8");
    lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[tokio::test]
async fn windows_follow_the_data_and_the_plan_is_made_once() {
    let cloud = source().await;
    let first = plan(&cloud, "r1", range("2023-01-01", "2025-01-01")).await.expect("planned");
    let windows = lines(&cloud, &first.windows_key);
    // The busy day is split, the empty year costs nothing.
    let expected: Vec<&Value> = windows.iter().map(|window| &window["expected"]).collect();
    assert_eq!((first.windows, expected), (3, vec![&json!(2), &json!(2), &json!(1)]));
    assert_eq!(cloud.window_rows().len(), 3);
    assert_eq!((&cloud.job_run("r1")["planned"], &cloud.job_run("r1")["undated"]), (&json!(3), &json!(1)));
    cloud.put_message("late", "2023-09-01T00:00:00Z", "closed");
    assert_eq!(plan(&cloud, "r1", range("2023-01-01", "2025-01-01")).await.expect("the same"), first);
    assert_eq!(lines(&cloud, &first.windows_key), windows);
}

#[tokio::test]
async fn a_range_has_one_run_at_a_time_and_a_dead_one_holds_nothing() {
    let cloud = source().await;
    plan(&cloud, "r1", range("2023-01-01", "2024-01-01")).await.expect("planned");
    let busy = plan(&cloud, "r2", range("2023-06-01", "2025-01-01")).await.expect_err("r1 is at work");
    assert!(busy.name() == "RangeBusy" && busy.to_string().contains("r1"), "{busy}");
    assert_eq!(cloud.job_run("r2")["error"], "RangeBusy");
    cloud.executions.end(&arn("r1"), "ABORTED", None);
    plan(&cloud, "r2", range("2023-06-01", "2025-01-01")).await.expect("planned");
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_by_name() {
    let cloud = source().await;
    for input in [
        json!({"mode": "range", "from": "2024-01-01"}),
        json!({"mode": "sometimes"}),
        range("2024-01-01", "2024-01-01"),
        range("yesterday", "2024-01-01"),
        json!({"mode": "failed-only", "run_id": "unknown"}),
    ] {
        let error = plan(&cloud, "r1", input.clone()).await.expect_err("refused");
        assert_eq!(error.name(), "InvalidInput", "{input}");
    }
    assert!(cloud.keys("runs/").is_empty() && cloud.window_rows().is_empty());
}

#[tokio::test]
async fn a_scheduled_run_begins_at_the_watermark_and_the_same_time_again_plans_nothing() {
    let cloud = source().await;
    let scheduled = json!({"mode": "scheduled", "scheduled_for": "2026-11-16T06:00:00Z"});
    cloud.job_runs().move_watermark("2024-01-01T00:00:00Z".parse().expect("instant")).await.expect("moved");
    let first = plan(&cloud, "r1", scheduled.clone()).await.expect("planned");
    assert_eq!(first.windows, 1, "only what is behind the watermark");
    assert_eq!(cloud.job_run("r1")["to"], "2026-11-16T05:00:00.000Z");
    cloud
        .job_runs()
        .change("r1", |row| row.status = alerts::run::job_run::RunStatus::Completed)
        .await
        .expect("changed");
    cloud.job_runs().release("r1", &arn("r1")).await.expect("released");
    let again = plan(&cloud, "r2", scheduled).await.expect("planned");
    assert_eq!((again.run_id.as_str(), again.windows), ("r1", 0));
}

#[tokio::test]
async fn the_first_scheduled_run_begins_with_the_whole_day_of_the_first_message() {
    let cloud = source().await;
    cloud.put_message("first", "2022-03-05T08:13:00Z", "closed");
    let scheduled = json!({"mode": "scheduled", "scheduled_for": "2026-11-16T06:00:00Z"});
    plan(&cloud, "r1", scheduled).await.expect("planned");
    assert_eq!(
        cloud.job_run("r1")["from"],
        "2022-03-05T00:00:00.000Z",
        "the day counts as run, and not as run in part"
    );
}

#[tokio::test]
async fn failed_only_plans_what_is_not_committed_as_the_next_attempt() {
    let cloud = source().await;
    let first = plan(&cloud, "r1", range("2023-01-01", "2025-01-01")).await.expect("planned");
    let ids: Vec<String> = lines(&cloud, &first.windows_key)
        .iter()
        .map(|window| window["window_id"].as_str().expect("an id").into())
        .collect();
    let complete = |record: &WindowRecord| Ok(WindowRecord { status: State::Completed, ..record.clone() });
    cloud.windows().change("r1", &ids[1], complete).await.expect("changed");
    cloud.executions.end(&arn("r1"), "FAILED", None);
    for _ in 0..2 {
        let again = plan(&cloud, "r2", json!({"mode": "failed-only", "run_id": "r1"})).await.expect("planned");
        assert_eq!((again.run_id.as_str(), again.windows), ("r1", 2));
        assert_eq!(cloud.job_run("r1")["attempt"], 2, "a repeated call is no third attempt");
        let left: Vec<Value> =
            lines(&cloud, &again.windows_key).into_iter().map(|window| window["window_id"].clone()).collect();
        assert_eq!(left, [ids[0].as_str(), ids[2].as_str()]);
    }
}

#[tokio::test]
async fn a_plan_that_fails_leaves_its_range_free() {
    let cloud = source().await;
    cloud.node.fail_shards(usize::MAX);
    let error = plan(&cloud, "r1", range("2023-01-01", "2025-01-01")).await.expect_err("the source is ill");
    assert_eq!(error.name(), "PageIncomplete");
    assert_eq!(
        (&cloud.job_run("r1")["status"], &cloud.job_run("r1")["error"]),
        (&json!("Failed"), &json!("PageIncomplete"))
    );
    cloud.node.fail_shards(0);
    plan(&cloud, "r2", range("2023-01-01", "2025-01-01")).await.expect("planned");
}

#[tokio::test]
async fn an_index_that_keeps_no_bodies_is_refused_by_name_and_nothing_is_quarantined_in_its_stead() {
    for index in ["messages", "history", "audit"] {
        let cloud = source().await;
        cloud.node.keep_no_bodies(index);
        let error = plan(&cloud, "r1", range("2023-01-01", "2025-01-01")).await.expect_err("refused");
        let said = error.to_string();
        assert_eq!(error.name(), "MappingUnsupported", "{said}");
        assert!(said.contains("_source") && said.contains(index), "{said}");
    }
}

#[tokio::test]
async fn whatever_request_fails_the_plan_can_be_made_again() {
    let make = async |cloud: &Cloud| plan(cloud, "r1", range("2023-01-01", "2025-01-01")).await;
    let look = |cloud: &Cloud| {
        let run = cloud.job_run("r1");
        let windows: Vec<Value> = cloud.window_rows().into_iter().map(|row| row["window"].clone()).collect();
        (
            lines(cloud, "runs/r1/windows.jsonl"),
            windows,
            run["planned"].clone(),
            run["undated"].clone(),
            run["status"].clone(),
        )
    };
    assert!(fail_each_request(source, make, look).await > 15);
}

#[tokio::test]
async fn a_held_over_message_that_closed_and_whose_window_died_is_looked_at_again() {
    let cloud = source().await;
    let at = "2023-07-01T01:00:00Z";
    let row = |claim: &str| {
        json!({
            "message_id": "a", "source_index": "messages", "status": "Processing", "disposition": "closed", "run_id": "r0",
            "window_id": "w", "version": "v", "timestamp": at, "inserted_at": at, "first_seen_open": at,
            "staging": "open#3", "claim": claim, "revision": 1,
        })
    };
    let row = serde_json::from_value(row("r0/w/1")).expect("a row");
    assert!(cloud.tracking().rows.put(&row).await.expect("written"));
    let first = plan(&cloud, "r1", json!({"mode": "recheck"})).await.expect("planned");
    let windows = lines(&cloud, &first.windows_key);
    assert_eq!(windows.len(), 1, "its run is not at work: {windows:?}");
    assert_eq!(windows[0]["selection"]["identities"][0]["id"], "a");
}

#[tokio::test]
async fn a_run_that_one_execution_is_at_work_on_is_taken_over_by_another_only_behind_it() {
    let cloud = source().await;
    let (whole, failed_only) = (range("2023-01-01", "2025-01-01"), json!({"mode": "failed-only", "run_id": "r1"}));
    let row = |cloud: &Cloud| cloud.job_run("r1");
    // Each is at work without the range, as one is that was redriven after another run had taken that.
    let refused = async |name: &str, input: &Value, holder: &str| {
        cloud.job_runs().release("r1", &arn(holder)).await.expect("released");
        let before = row(&cloud);
        let error = plan(&cloud, name, input.clone()).await.expect_err("the other is at work");
        assert_eq!((error.name().as_str(), row(&cloud)), ("RangeBusy", before));
    };
    plan(&cloud, "r1", whole.clone()).await.expect("planned");
    refused("r2", &failed_only, "r1").await;
    cloud.executions.end(&arn("r1"), "ABORTED", None);
    plan(&cloud, "r2", failed_only.clone()).await.expect("planned");
    assert_eq!((&row(&cloud)["attempt"], &row(&cloud)["execution_arn"]), (&json!(2), &json!(arn("r2"))));
    cloud.workflow().redrive(&arn("r1")).await.expect("redriven");
    refused("r1", &whole, "r2").await;
    cloud.executions.end(&arn("r2"), "ABORTED", None);
    plan(&cloud, "r1", whole.clone()).await.expect("planned");
    assert_eq!((&row(&cloud)["attempt"], &row(&cloud)["execution_arn"]), (&json!(3), &json!(arn("r1"))));
    // A late call of the one that has ended takes nothing back, whoever is at work by then.
    refused("r2", &failed_only, "r1").await;
    cloud.executions.end(&arn("r1"), "ABORTED", None);
    refused("r2", &failed_only, "r1").await;
}

#[tokio::test]
async fn a_late_call_of_failed_only_leaves_the_list_that_the_map_reads() {
    let cloud = source().await;
    plan(&cloud, "r1", range("2023-01-01", "2025-01-01")).await.expect("planned");
    cloud.executions.end(&arn("r1"), "FAILED", None);
    let again = plan(&cloud, "r2", json!({"mode": "failed-only", "run_id": "r1"})).await.expect("planned");
    let before = lines(&cloud, &again.windows_key);
    let window = before[0]["window_id"].as_str().expect("an id").to_owned();
    let done = |record: &WindowRecord| Ok(WindowRecord { status: State::Completed, ..record.clone() });
    cloud.windows().change("r1", &window, done).await.expect("completed");
    let late = plan(&cloud, "r2", json!({"mode": "failed-only", "run_id": "r1"})).await.expect("planned");
    assert_eq!((late, lines(&cloud, &again.windows_key)), (again, before));
}

#[tokio::test]
async fn what_was_just_extracted_is_written_although_the_index_does_not_show_it_yet() {
    let cloud = source().await;
    let run = |run_id: &str, mode: &str, at: &str| {
        let row = json!({
            "run_id": run_id, "mode": mode, "status": "Completed", "from": at, "to": at, "created_at": at, "updated_at": at,
            "execution_arn": arn(run_id), "attempt": 1, "planned": 1, "undated": 0, "revision": 1,
        });
        serde_json::from_value::<alerts::run::job_run::JobRun>(row).expect("a run")
    };
    let at: jiff::Timestamp = "2026-11-21T05:00:00Z".parse().expect("an instant");
    let window = alerts::window::plan::Window::new(
        "2023-07-01T00:00:00Z".parse().expect("an instant"),
        "2023-07-02T12:00:00Z".parse().expect("an instant"),
        4,
    );
    let mut record = WindowRecord::planned("x", alerts::mode::Mode::Extract, window, at);
    (record.status, record.messages.source) = (State::Classified, 4);
    assert!(cloud.windows().rows.put(&record).await.expect("written"));
    assert!(cloud.job_runs().runs.put(&run("x", "extract", "2026-11-21T05:00:00Z")).await.expect("written"));
    let planned = plan(&cloud, "r1", json!({"mode": "process"})).await.expect("planned");
    let froms: Vec<Value> = lines(&cloud, &planned.windows_key).iter().map(|window| window["from"].clone()).collect();
    assert_eq!(froms, ["2023-07-01T00:00:00.000Z"], "both days, in one window");
    cloud.job_runs().release("r1", &arn("r1")).await.expect("released");
    assert!(cloud.job_runs().runs.put(&run("p", "process", "2026-11-21T06:30:00Z")).await.expect("written"));
    assert_eq!(plan(&cloud, "r2", json!({"mode": "process"})).await.expect("planned").windows, 0, "it is written");
}
