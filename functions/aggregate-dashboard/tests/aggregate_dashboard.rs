//! The dashboard's data over a cloud in memory.

use aggregate_dashboard::{Deps, handle};
use alerts::run::payloads::{ReportRequest, Version};
use memory_cloud::{
    Cloud, fail_each_request,
    given::{RUN, from, to},
};
use serde_json::json;
use storage::Item;

fn deps(cloud: &Cloud) -> Deps {
    Deps { objects: cloud.objects(), job_runs: cloud.job_runs(), ledger: cloud.tracking() }
}

fn request() -> ReportRequest {
    ReportRequest { v: Version, run_id: RUN.into(), report_key: "runs/r1/report.json".into(), reported_at: 0 }
}

async fn reported() -> Cloud {
    let cloud = Cloud::default();
    cloud.given_run("range").await;
    let report = json!({
        "run_id": RUN, "mode": "range", "from": from(), "to": to(), "status": "Completed", "attempt": 1,
        "windows": {"planned": 1, "succeeded": 1, "failed": 0},
        "messages": {"source": 3, "archived": 3, "open": 0, "quarantined": 0, "already_archived": 0, "no_alerts": 0},
        "recheck": {"looked_at": 0, "closed": 0, "open": 0, "gone": 0},
        "sweep": {"late": 0, "changed": 0, "reopened": 0}, "collisions": 0, "undated": 0, "backlog": 0,
        "bytes": {"source": 9, "archive": 3}, "reconciled": true, "failures": [], "unresolved": [],
    });
    let objects = cloud.objects();
    objects.put_json("runs/r1/report.json", &report).await.expect("written");
    let details = json!({"oldest_open": [], "quarantine_reasons": []});
    objects.put_json("runs/r1/details.json", &details).await.expect("written");
    cloud
}

#[tokio::test]
async fn the_page_its_latest_run_and_the_list_of_runs_are_written() {
    let cloud = reported().await;
    for _ in 0..2 {
        handle(&deps(&cloud), request(), cloud.call()).await.expect("written");
    }
    assert_eq!(cloud.json("dashboard/data/latest.json")["report"]["run_id"], RUN);
    let runs = cloud.json("dashboard/data/runs.json");
    assert_eq!((runs["runs"].as_array().map(Vec::len), &runs["unreadable"]), (Some(1), &json!([])));
    assert!(cloud.keys("dashboard/").contains_key("dashboard/index.html"));
}

#[tokio::test]
async fn a_run_whose_row_cannot_be_read_is_reported_and_hides_no_other() {
    let cloud = reported().await;
    let broken: Item =
        serde_dynamo::to_item(json!({"run_id": "r0", "mode": "no mode", "revision": 1})).expect("an item");
    cloud.tables.plant("job-runs", broken);
    handle(&deps(&cloud), request(), cloud.call()).await.expect("written");
    let runs = cloud.json("dashboard/data/runs.json");
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1));
    let unreadable = runs["unreadable"][0].as_str().expect("a text");
    assert!(unreadable.starts_with("row r0 of table job-runs is not readable"), "{unreadable}");
}

#[tokio::test]
async fn whatever_request_fails_the_dashboard_can_be_written_again() {
    let write = async |cloud: &Cloud| handle(&deps(cloud), request(), cloud.call()).await;
    let look = |cloud: &Cloud| ["latest", "runs"].map(|name| cloud.json(&format!("dashboard/data/{name}.json")));
    assert!(fail_each_request(reported, write, look).await > 20);
}
