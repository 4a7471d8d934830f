//! The life of a message over several runs: held over, looked at again, closed, reopened, gone.

use memory_cloud::Cloud;
use network::{Broken, Network, Request};
use serde_json::{Value, json};
use simulation::Archive;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

fn range() -> Value {
    json!({"mode": "range", "from": "2024-07-01", "to": "2024-08-01"})
}

fn recheck() -> Value {
    json!({"mode": "recheck"})
}

async fn run(cloud: &Cloud, run_id: &str, input: Value) -> Value {
    Archive::new(cloud.clone()).run(run_id, input).await.expect("a good end");
    cloud.json(&format!("runs/{run_id}/report.json"))
}

/// The partition and object of each message under `archive/parquet`, by id; each stands there once.
fn archived(cloud: &Cloud) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for key in cloud.keys("archive/parquet/").into_keys() {
        for row in columnar::rows(cloud.object(&key)).expect("Parquet") {
            let id = row.expect("a row").identity.id;
            assert_eq!(found.insert(id.clone(), key.clone()), None, "{id} stands in the archive twice");
        }
    }
    found
}

fn row_of(cloud: &Cloud, id: &str) -> Value {
    let rows: Vec<Value> = cloud.tracking_rows().into_iter().filter(|row| row["message_id"] == id).collect();
    let [row] = rows.as_slice() else { panic!("{id} has {} rows", rows.len()) };
    row.clone()
}

/// Counts what is asked of each service.
#[derive(Default)]
struct Counted(Mutex<BTreeMap<(&'static str, &'static str), usize>>);

#[async_trait::async_trait]
impl Network for Counted {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        *self.0.lock().expect("a lock").entry((request.service, request.operation)).or_default() += 1;
        Ok(())
    }
}

impl Counted {
    fn of(&self, service: &'static str, operation: &'static str) -> usize {
        self.0.lock().expect("a lock").get(&(service, operation)).copied().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_held_over_message_is_archived_once_when_it_closes_under_its_own_date_and_keeps_its_age() {
    let cloud = Cloud::default();
    cloud.put_message("closes", "2024-07-02T12:00:00Z", "open");
    cloud.put_message("stays", "2024-07-03T12:00:00Z", "open");
    run(&cloud, "r1", range()).await;
    let held = row_of(&cloud, "closes");
    cloud.put_message("closes", "2024-07-02T12:00:00Z", "closed");
    let report = run(&cloud, "r2", recheck()).await;
    let expected = json!({"looked_at": 2, "closed": 1, "open": 1, "gone": 0, "quarantined": 0, "read": 1});
    assert_eq!((&report["recheck"], &report["backlog"]), (&expected, &json!(1)));
    let object = archived(&cloud).remove("closes").expect("archived");
    assert!(object.starts_with("archive/parquet/date=2024-07-02/"), "{object}");
    let row = row_of(&cloud, "closes");
    assert_eq!((&row["status"], &row["first_seen_open"]), (&json!("Completed"), &held["first_seen_open"]));
    assert!(row["staging"].is_null());
    // Nothing is left to be done about it.
    let report = run(&cloud, "r3", recheck()).await;
    assert_eq!((&report["recheck"]["looked_at"], &report["recheck"]["read"]), (&json!(1), &json!(0)));
    assert_eq!(archived(&cloud).len(), 1);
}

#[tokio::test]
async fn unchanged_messages_cost_one_request_a_thousand_and_no_body_and_no_row() {
    let cloud = Cloud::default();
    for n in 0..2500 {
        cloud.put_message(&format!("open-{n}"), &format!("2024-07-{:02}T12:00:00Z", n % 30 + 1), "open");
    }
    run(&cloud, "r1", range()).await;
    let (rows, counted) = (cloud.tracking_rows(), Arc::new(Counted::default()));
    let archive = Archive::new(cloud.through(counted.clone()));
    archive.run("r2", recheck()).await.expect("a good end");
    let report = cloud.json("runs/r2/report.json");
    let expected = json!({"looked_at": 2500, "closed": 0, "open": 2500, "gone": 0, "quarantined": 0, "read": 0});
    assert_eq!((&report["recheck"], &report["windows"]["planned"]), (&expected, &json!(0)));
    // Each of the sixteen shards is less than a thousand.
    assert_eq!((counted.of("source", "_mget"), counted.of("source", "_search")), (16, 0));
    assert_eq!(cloud.tracking_rows(), rows, "a row was written");
}

#[tokio::test]
async fn a_message_that_no_index_has_any_more_is_told_once_and_kept_in_the_ledger() {
    let cloud = Cloud::default();
    cloud.put_message("goes", "2024-07-02T12:00:00Z", "open");
    cloud.put_message("stays", "2024-07-03T12:00:00Z", "open");
    run(&cloud, "r1", range()).await;
    cloud.node.delete("messages", "goes");
    let report = run(&cloud, "r2", recheck()).await;
    assert_eq!(
        (&report["recheck"]["gone"], &report["recheck"]["open"], &report["backlog"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!(cloud.json("runs/r2/details.json")["gone"][0]["message_id"], "goes");
    let row = row_of(&cloud, "goes");
    assert_eq!((&row["reason"], &row["staging"], &row["status"]), (&json!("gone"), &Value::Null, &json!("Pending")));
    assert!(row["gone_at"].is_string());
    let report = run(&cloud, "r3", recheck()).await;
    assert_eq!((&report["recheck"]["gone"], &report["recheck"]["looked_at"]), (&json!(0), &json!(1)));
    // It comes back, and closes: nothing of it was forgotten.
    cloud.put_message("goes", "2024-07-02T12:00:00Z", "open");
    let report = run(&cloud, "r4", range()).await;
    let back = row_of(&cloud, "goes");
    assert_eq!((&report["backlog"], &back["gone_at"], &back["reason"]), (&json!(2), &Value::Null, &Value::Null));
    assert_eq!(back["first_seen_open"], row["first_seen_open"]);
}

#[tokio::test]
async fn a_message_that_a_search_does_not_find_yet_is_not_gone() {
    let cloud = Cloud::default();
    cloud.put_message("late", "2024-07-02T12:00:00Z", "open");
    run(&cloud, "r1", range()).await;
    cloud.node.let_refresh_lag();
    cloud.node.delete("messages", "late");
    cloud.put_message("late", "2024-07-02T12:00:00Z", "closed");
    let report = run(&cloud, "r2", recheck()).await;
    assert_eq!(report["recheck"]["gone"], 0);
    cloud.node.refresh();
    run(&cloud, "r3", recheck()).await;
    assert_eq!(archived(&cloud).len(), 1);
}

#[tokio::test]
async fn the_week_reads_its_range_and_what_has_closed_since() {
    let cloud = Cloud::default();
    cloud.put_message("old", "2026-10-02T12:00:00Z", "open");
    cloud.put_message("new", "2026-11-20T12:00:00Z", "closed");
    let scheduled = |at: &str| json!({"mode": "scheduled", "scheduled_for": at});
    let report = run(&cloud, "w1", scheduled("2026-11-20T00:00:00Z")).await;
    assert_eq!((&report["messages"]["open"], &report["recheck"]["looked_at"]), (&json!(1), &json!(0)));
    cloud.put_message("old", "2026-10-02T12:00:00Z", "closed");
    let report = run(&cloud, "w2", scheduled("2026-11-21T06:00:00Z")).await;
    assert_eq!((&report["recheck"]["closed"], &report["messages"]["archived"]), (&json!(1), &json!(2)));
    assert_eq!(archived(&cloud).into_keys().collect::<Vec<_>>(), ["new", "old"]);
}

/// A run for a scheduled time of November 2026; its range ends an hour before.
async fn week(cloud: &Cloud, day: u8) -> Value {
    let input = json!({"mode": "scheduled", "scheduled_for": format!("2026-11-{day:02}T06:00:00Z")});
    run(cloud, &format!("week-{day}"), input).await
}

#[tokio::test]
async fn what_is_written_behind_the_range_is_found_once() {
    let cloud = Cloud::default();
    for id in ["changes", "reopens", "stays"] {
        cloud.put_message(id, "2026-10-02T12:00:00Z", "closed");
    }
    let report = week(&cloud, 5).await;
    assert_eq!(report["sweep"], json!({"late": 0, "changed": 0, "reopened": 0, "moved": 0}));
    cloud.put_message("late", "2026-09-01T12:00:00Z", "closed");
    cloud.put_message("late-and-open", "2026-09-01T12:00:00Z", "open");
    cloud.node.put("messages", "changes", &changed("changes"));
    cloud.put_message("reopens", "2026-10-02T12:00:00Z", "open");
    let report = week(&cloud, 12).await;
    assert_eq!(report["sweep"], json!({"late": 2, "changed": 1, "reopened": 1, "moved": 0}));
    assert_eq!((&report["messages"]["source"], &report["backlog"]), (&json!(4), &json!(2)));
    assert_eq!(archived(&cloud).into_keys().collect::<Vec<_>>(), ["changes", "late", "reopens", "stays"]);
    assert_eq!(cloud.keys("archive/superseded/").len(), 1, "the earlier version is kept");
    let report = week(&cloud, 19).await;
    assert_eq!(report["sweep"], json!({"late": 0, "changed": 0, "reopened": 0, "moved": 0}));
    assert_eq!((&report["windows"]["planned"], &report["recheck"]["looked_at"]), (&json!(0), &json!(2)));
    cloud.put_message("reopens", "2026-10-02T12:00:00Z", "closed");
    let report = week(&cloud, 20).await;
    assert_eq!((&report["recheck"]["closed"], &report["sweep"]["changed"]), (&json!(1), &json!(0)));
}

fn changed(id: &str) -> String {
    let alert = json!({"alert_id": "a", "status": "closed"});
    json!({"message_id": id, "timestamp": "2026-10-02T12:00:00Z", "text": "again", "alerts": [alert]}).to_string()
}

#[tokio::test]
async fn what_a_search_does_not_see_yet_is_found_when_it_does() {
    for may_refresh in [true, false] {
        let cloud = Cloud::default();
        cloud.put_message("first", "2026-10-02T12:00:00Z", "closed");
        week(&cloud, 5).await;
        if !may_refresh {
            cloud.node.let_only_read();
        }
        cloud.node.let_refresh_lag();
        cloud.put_message("late", "2026-09-01T12:00:00Z", "closed");
        let report = week(&cloud, 12).await;
        assert_eq!(report["sweep"]["late"], u64::from(may_refresh), "may refresh: {may_refresh}");
        cloud.node.refresh();
        week(&cloud, 19).await;
        assert_eq!(archived(&cloud).len(), 2);
    }
}

#[tokio::test]
async fn a_late_document_whose_window_failed_is_looked_for_again() {
    let cloud = Cloud::default();
    cloud.put_message("first", "2026-10-02T12:00:00Z", "closed");
    week(&cloud, 5).await;
    cloud.put_message("late", "2026-09-01T12:00:00Z", "closed");
    struct Spoil(Cloud);
    impl simulation::Watch for Spoil {
        fn before(&self, function: &str, _: &Value) {
            if function == "classify-alerts" {
                self.0.store.expire(memory_cloud::BUCKET, "spool/");
            }
        }
    }
    let spoil = Spoil(cloud.clone());
    let input = json!({"mode": "scheduled", "scheduled_for": "2026-11-12T06:00:00Z"});
    let failed = Archive { watch: &spoil, ..Archive::new(cloud.clone()) }.run("week-12", input).await;
    assert_eq!(failed.expect_err("its window failed").name, "WindowsFailed");
    let report = week(&cloud, 19).await;
    assert_eq!((&report["sweep"]["late"], archived(&cloud).len()), (&json!(1), 2));
}

/// Moves every document of the first index to a second one behind the alias, as a reindexing does.
fn reindex(cloud: &Cloud, documents: &[(&str, String)]) {
    let _ = cloud.node.clone().alias("messages", "messages-new");
    for (id, body) in documents {
        cloud.node.put("messages-new", id, body);
    }
    cloud.node.remove_index("messages-old");
}

#[tokio::test]
async fn an_index_that_takes_the_place_of_another_is_recognised() {
    let cloud = Cloud::default();
    let _ = cloud.node.clone().alias("messages", "messages-old");
    let body = |status: &str, text: &str| {
        let alert = json!({"alert_id": "a", "status": status});
        json!({"message_id": "m", "timestamp": "2026-10-02T12:00:00Z", "text": text, "alerts": [alert]})
    };
    let of = |id: &str, status: &str, text: &str| {
        let mut body = body(status, text);
        body["message_id"] = json!(id);
        body.to_string()
    };
    for (id, status) in [("same", "closed"), ("changes", "closed"), ("held", "open")] {
        cloud.node.put("messages-old", id, &of(id, status, "first"));
    }
    week(&cloud, 5).await;
    let held = row_of(&cloud, "held");
    let documents = [
        ("same", of("same", "closed", "first")),
        ("changes", of("changes", "closed", "again")),
        ("held", of("held", "open", "first")),
    ];
    reindex(&cloud, &documents);
    let report = week(&cloud, 12).await;
    assert_eq!(report["sweep"], json!({"late": 0, "changed": 1, "reopened": 0, "moved": 3}));
    assert_eq!((&report["recheck"]["gone"], &report["backlog"]), (&json!(0), &json!(1)));
    assert_eq!(archived(&cloud).into_keys().collect::<Vec<_>>(), ["changes", "same"]);
    for id in ["same", "changes", "held"] {
        assert_eq!(row_of(&cloud, id)["source_index"], "messages-new", "{id}");
    }
    assert_eq!(row_of(&cloud, "held")["first_seen_open"], held["first_seen_open"]);
    let report = week(&cloud, 19).await;
    assert_eq!((&report["windows"]["planned"], &report["recheck"]["read"]), (&json!(0), &json!(0)));
}
