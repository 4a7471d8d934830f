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
    Deps { objects: cloud.objects(), job_runs: cloud.job_runs(), ledger: cloud.tracking(), silent_days: 8 }
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
        "reported_at": to(),
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
async fn a_run_that_died_or_was_refused_is_red_though_it_has_no_report() {
    let cloud = reported().await;
    let row = |run_id: &str, error: &str| {
        let mut row = cloud.job_run(RUN);
        row["run_id"] = json!(run_id);
        row["status"] = json!("Failed");
        row["error"] = json!(error);
        row["message"] = json!("its history says where");
        row["created_at"] = json!("2199-01-01T00:00:00.000Z");
        serde_dynamo::to_item(row).expect("an item")
    };
    for (run_id, error) in [("dead", "ExecutionDied"), ("refused", "RangeBusy")] {
        let item: Item = row(run_id, error);
        cloud.tables.plant("job-runs", item);
    }
    handle(&deps(&cloud), request(), cloud.call()).await.expect("written");
    let runs = cloud.json("dashboard/data/runs.json")["runs"].clone();
    let told =
        [("dead", "ExecutionDied", "Failed before its report"), ("refused", "RangeBusy", "Refused, its range is busy")];
    for (n, (run_id, error, outcome)) in told.into_iter().enumerate() {
        let run = runs.as_array().expect("a list").iter().find(|run| run["run_id"] == run_id).expect(run_id);
        assert_eq!((&run["state"], &run["outcome"]), (&json!("bad"), &json!(outcome)), "{n}");
        assert!(run["section"].to_string().contains(error), "{run:#}");
    }
    assert_eq!(cloud.json("dashboard/data/latest.json")["run_id"], RUN, "the last report is still told, as what it is");
}

#[tokio::test]
async fn the_windows_of_the_newest_runs_are_shown_as_long_as_there_is_room() {
    let cloud = reported().await;
    let grid = |cells: usize| json!(vec![json!({"window_id": "w", "state": "done", "messages": 3}); cells]);
    for (run_id, created_at, cells) in [
        ("newest", "2199-01-03T00:00:00.000Z", 3),
        ("too-large", "2199-01-02T00:00:00.000Z", reports::dashboard::CELLS - 2),
        ("small", "2199-01-01T00:00:00.000Z", 2),
    ] {
        let mut row = cloud.job_run(RUN);
        row["run_id"] = json!(run_id);
        row["created_at"] = json!(created_at);
        let item: Item = serde_dynamo::to_item(row).expect("an item");
        cloud.tables.plant("job-runs", item);
        cloud.objects().put_json(&format!("runs/{run_id}/grid.json"), &grid(cells)).await.expect("written");
    }
    handle(&deps(&cloud), request(), cloud.call()).await.expect("written");
    let runs = cloud.json("dashboard/data/runs.json")["runs"].clone();
    let cells = |run: &serde_json::Value| run["grid"].as_array().map(Vec::len);
    assert_eq!(runs.as_array().expect("a list").iter().map(cells).collect::<Vec<_>>(), [Some(3), None, Some(2), None]);
}

#[tokio::test]
async fn a_run_over_one_message_does_not_take_the_headline() {
    let cloud = reported().await;
    let mut row = cloud.job_run(RUN);
    row["run_id"] = json!("release");
    row["created_at"] = json!("2199-01-01T00:00:00.000Z");
    let item: Item = serde_dynamo::to_item(row).expect("an item");
    cloud.tables.plant("job-runs", item);
    let mut report = cloud.json("runs/r1/report.json");
    report["run_id"] = json!("release");
    report["to"] = report["from"].clone();
    report["reported_at"] = json!("2199-01-01T00:01:00.000Z");
    cloud.objects().put_json("runs/release/report.json", &report).await.expect("written");
    let details = json!({"oldest_open": [], "quarantine_reasons": [], "overview": overview(json!([]))});
    cloud.objects().put_json("runs/release/details.json", &details).await.expect("written");
    handle(&deps(&cloud), request(), cloud.call()).await.expect("written");
    let latest = cloud.json("dashboard/data/latest.json");
    assert_eq!((&latest["run_id"], &latest["sections"][1]["scope"].to_string().contains("r1, ")), (&json!(RUN), &true));
    let now = latest["sections"][0].to_string();
    assert!(
        now.contains("77") && now.contains("as of 2199-01-01 00:01 UTC"),
        "the archive now is as the release left it: {now}"
    );
    assert_eq!(cloud.json("dashboard/data/runs.json")["runs"].as_array().map(Vec::len), Some(2));
}

fn overview(covered: serde_json::Value) -> serde_json::Value {
    json!({
        "as_of": "2199-01-01T00:01:00.000Z", "runs": 2, "archived": 77, "bytes": 9, "open": 0, "quarantined": 0,
        "quarantine_reasons": [], "gaps": [], "covered": covered, "days": [], "oldest_open": [],
    })
}

#[tokio::test]
async fn what_failed_in_an_old_run_is_told_as_archived_once_another_has_done_it() {
    let cloud = reported().await;
    let mut row = cloud.job_run(RUN);
    (row["run_id"], row["created_at"]) = (json!("later"), json!("2199-01-01T00:00:00.000Z"));
    let item: Item = serde_dynamo::to_item(row).expect("an item");
    cloud.tables.plant("job-runs", item);
    let mut report = cloud.json("runs/r1/report.json");
    let mut later = report.clone();
    let window = "20240702T000000.000Z--20240703T000000.000Z";
    report["failures"] = json!([{"window_id": window, "error": "CountMismatch", "message": "", "messages": 433}]);
    (report["status"], report["windows"]) = (json!("Failed"), json!({"planned": 2, "succeeded": 1, "failed": 1}));
    (later["run_id"], later["reported_at"]) = (json!("later"), json!("2199-01-01T00:01:00.000Z"));
    for (run_id, report, covered) in [
        (RUN, report, json!([])),
        ("later", later, json!([{"from": "2024-07-02T00:00:00.000Z", "to": "2024-07-04T00:00:00.000Z"}])),
    ] {
        let details = json!({"oldest_open": [], "quarantine_reasons": [], "overview": overview(covered)});
        cloud.objects().put_json(&format!("runs/{run_id}/report.json"), &report).await.expect("written");
        cloud.objects().put_json(&format!("runs/{run_id}/details.json"), &details).await.expect("written");
        handle(&deps(&cloud), request(), cloud.call()).await.expect("written");
        let runs = cloud.json("dashboard/data/runs.json")["runs"].clone();
        let old =
            runs.as_array().expect("a list").iter().find(|run| run["run_id"] == RUN).expect("the old one").clone();
        let is_done = run_id == "later";
        assert_eq!(old["not_archived"], if is_done { 0 } else { 433 }, "{old:#}");
        let told = old["section"].to_string();
        assert_eq!(told.contains("In failed windows that other runs have committed"), is_done, "{told}");
    }
}

#[tokio::test]
async fn the_page_holds_its_data_and_what_other_pipelines_have_published() {
    let cloud = reported().await;
    let section = reports::section::Section::new("Partner feeds", "the last 7 days");
    let published = section.published(cloud.call().now());
    cloud.objects().put_json("dashboard/data/feeds.json", &published).await.expect("written");
    handle(&deps(&cloud), request(), cloud.call()).await.expect("written");
    let page = String::from_utf8(cloud.object("dashboard/index.html").to_vec()).expect("UTF-8");
    assert!(page.contains("\"Partner feeds\"") && page.contains(&format!("\"run_id\":\"{RUN}\"")));
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
