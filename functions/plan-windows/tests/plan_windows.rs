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
