//! The life of a message over several runs: held over, looked at again, closed, reopened, gone.

use alerts::run::payloads::{CollectRequest, Plan, PlanRequest, Version, WindowTask};
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

#[tokio::test]
async fn what_lies_before_the_calendar_is_undated_for_the_first_week_and_the_sweep_and_makes_no_partition() {
    let cloud = Cloud::default();
    let ancient =
        |id: &str| cloud.node.put("messages", id, &format!(r#"{{"message_id":"{id}","timestamp":-70000000000000}}"#));
    cloud.put_message("first", "2026-10-02T12:00:00Z", "closed");
    ancient("ancient-1");
    let report = week(&cloud, 5).await;
    assert_eq!((&report["messages"]["source"], &report["undated"]), (&json!(1), &json!(1)));
    ancient("ancient-2");
    cloud.put_message("year-one", "0001-01-01T00:00:00Z", "closed");
    let report = week(&cloud, 12).await;
    assert_eq!((&report["sweep"]["late"], &report["undated"]), (&json!(1), &json!(2)));
    assert!(archived(&cloud)["year-one"].starts_with("archive/parquet/date=0001-01-01/"));
    assert_eq!(archived(&cloud).len(), 2);
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

/// Takes each window's spool away before its messages are staged, so that every window fails.
struct Spoil(Cloud);

impl simulation::Watch for Spoil {
    fn before(&self, function: &str, _: &Value) {
        if function == "classify-alerts" {
            self.0.store.expire(memory_cloud::BUCKET, "spool/");
        }
    }
}

#[tokio::test]
async fn a_late_document_whose_window_failed_is_looked_for_again() {
    let cloud = Cloud::default();
    cloud.put_message("first", "2026-10-02T12:00:00Z", "closed");
    week(&cloud, 5).await;
    cloud.put_message("late", "2026-09-01T12:00:00Z", "closed");
    let spoil = Spoil(cloud.clone());
    let input = json!({"mode": "scheduled", "scheduled_for": "2026-11-12T06:00:00Z"});
    let failed = Archive { watch: &spoil, ..Archive::new(cloud.clone()) }.run("week-12", input).await;
    assert_eq!(failed.expect_err("its window failed").name, "WindowsFailed");
    let report = week(&cloud, 19).await;
    assert_eq!((&report["sweep"]["late"], archived(&cloud).len()), (&json!(1), 2));
}

#[tokio::test]
async fn what_is_written_to_an_index_that_was_restored_in_place_is_found_although_its_numbers_were_used_before() {
    let cloud = Cloud::default();
    for id in ["stays", "held"] {
        let status = if id == "held" { "open" } else { "closed" };
        cloud.put_message(id, "2026-10-02T12:00:00Z", status);
    }
    week(&cloud, 5).await;
    for id in ["lost-1", "lost-2", "lost-3"] {
        cloud.put_message(id, "2026-10-02T12:00:00Z", "closed");
    }
    assert_eq!(week(&cloud, 12).await["sweep"]["late"], 3);
    // A snapshot of the first week is restored over the index, and others write there since.
    cloud.node.restore_in_place("messages", 2);
    for id in ["after-1", "after-2"] {
        cloud.put_message(id, "2026-10-03T12:00:00Z", "closed");
    }
    let report = week(&cloud, 19).await;
    assert_eq!(report["sweep"], json!({"late": 2, "changed": 0, "reopened": 0, "moved": 0}));
    let all = ["after-1", "after-2", "lost-1", "lost-2", "lost-3", "stays"];
    assert_eq!(archived(&cloud).into_keys().collect::<Vec<_>>(), all, "what the archive has stays");
    assert_eq!(week(&cloud, 20).await["windows"]["planned"], 0);
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

#[tokio::test]
async fn a_range_over_an_index_that_took_the_place_of_another_archives_nothing_twice() {
    let cloud = Cloud::default();
    let _ = cloud.node.clone().alias("messages", "messages-old");
    let of = |id: &str, status: &str, text: &str| {
        let alert = json!({"alert_id": "a", "status": status});
        json!({"message_id": id, "timestamp": "2024-07-02T12:00:00Z", "text": text, "alerts": [alert]}).to_string()
    };
    for (id, status) in [("same", "closed"), ("changes", "closed"), ("held", "open"), ("closes", "open")] {
        cloud.node.put("messages-old", id, &of(id, status, "first"));
    }
    run(&cloud, "r1", range()).await;
    let plan = |run_id: &str| String::from_utf8(cloud.object(&format!("runs/{run_id}/windows.jsonl")).to_vec());
    assert!(!plan("r1").expect("UTF-8").contains("is_index_gone"), "no index has gone, and nothing is looked for");
    let held = row_of(&cloud, "held");
    let documents = [
        ("same", of("same", "closed", "first")),
        ("changes", of("changes", "closed", "again")),
        ("held", of("held", "open", "first")),
        ("closes", of("closes", "closed", "first")),
        ("new", of("new", "closed", "first")),
    ];
    reindex(&cloud, &documents);
    let report = run(&cloud, "r2", range()).await;
    assert_eq!(report["sweep"]["moved"], 4);
    let counts = ["archived", "already_archived", "open"].map(|name| report["messages"][name].as_u64());
    assert_eq!((counts, &report["backlog"]), ([Some(3), Some(1), Some(1)], &json!(1)));
    let all = ["changes", "closes", "new", "same"];
    assert_eq!(archived(&cloud).into_keys().collect::<Vec<_>>(), all);
    for id in all.into_iter().chain(["held"]) {
        assert_eq!(row_of(&cloud, id)["source_index"], "messages-new", "{id}");
    }
    assert_eq!(row_of(&cloud, "held")["first_seen_open"], held["first_seen_open"]);
    // Another range, and the weeks, find nothing more.
    let report = run(&cloud, "r3", range()).await;
    assert_eq!((&report["sweep"]["moved"], &report["messages"]["already_archived"]), (&json!(0), &json!(4)));
    week(&cloud, 12).await;
    assert_eq!(archived(&cloud).into_keys().collect::<Vec<_>>(), all);
}

#[tokio::test]
async fn an_index_that_took_the_place_of_another_while_windows_had_failed_is_recognised_when_they_are_run_again() {
    let cloud = Cloud::default();
    let _ = cloud.node.clone().alias("messages", "messages-old");
    let body = json!({"message_id": "m", "timestamp": "2024-07-02T12:00:00Z", "alerts": []}).to_string();
    cloud.node.put("messages-old", "m", &body);
    run(&cloud, "r1", range()).await;
    let spoil = Spoil(cloud.clone());
    let failed = Archive { watch: &spoil, ..Archive::new(cloud.clone()) }.run("r2", range()).await;
    assert_eq!(failed.expect_err("its window failed").name, "WindowsFailed");
    reindex(&cloud, &[("m", body)]);
    let again = json!({"mode": "failed-only", "run_id": "r2"});
    Archive::new(cloud.clone()).run("r2-again", again).await.expect("a good end");
    assert_eq!((archived(&cloud).len(), row_of(&cloud, "m")["source_index"].as_str()), (1, Some("messages-new")));
    assert_eq!(cloud.json("runs/r2/report.json")["sweep"]["moved"], 1);
}

#[tokio::test]
async fn what_a_sweep_leaves_to_the_next_run_is_told() {
    let cloud = Cloud::default();
    cloud.put_message("first", "2026-10-02T12:00:00Z", "closed");
    week(&cloud, 5).await;
    // More than one page of names.
    for n in 0..2100 {
        cloud.node.put("messages", &format!("late-{n}"), &changed(&format!("late-{n}")));
    }
    let few = async |day: u8| {
        let input = json!({"mode": "scheduled", "scheduled_for": format!("2026-11-{day:02}T06:00:00Z")});
        let archive = Archive { most_found: 100, window_messages: 1000, ..Archive::new(cloud.clone()) };
        archive.run(&format!("week-{day}"), input).await.expect("a good end");
        cloud.json(&format!("runs/week-{day}/report.json"))["sweep"].clone()
    };
    let expected = json!({"late": 2000, "changed": 0, "reopened": 0, "moved": 0, "left": 100});
    assert_eq!(few(12).await, expected);
    assert_eq!(few(19).await, json!({"late": 100, "changed": 0, "reopened": 0, "moved": 0}));
    assert_eq!(archived(&cloud).len(), 2101);
}

/// Ids in the list of archived rows that are not final, each with whether the source has lost it.
fn not_final(cloud: &Cloud) -> Vec<(String, bool)> {
    let rows = columnar::reopened::read(cloud.object("archive/reopened/reopened.parquet")).expect("Parquet");
    for row in &rows {
        assert_eq!(archived(cloud).get(&row.identity.id), Some(&row.object), "it names the object that holds the row");
    }
    rows.into_iter().map(|row| (row.identity.id, row.gone_at.is_some())).collect()
}

#[tokio::test]
async fn a_reader_sees_that_an_archived_message_is_open_again_until_its_next_version_is_archived() {
    let cloud = Cloud::default();
    for id in ["reopens", "goes", "stays"] {
        cloud.put_message(id, "2026-10-02T12:00:00Z", "closed");
    }
    cloud.put_message("never-closed", "2026-10-02T12:00:00Z", "open");
    assert_eq!(week(&cloud, 5).await["reopened"], 0);
    assert_eq!(not_final(&cloud), []);
    for id in ["reopens", "goes"] {
        cloud.put_message(id, "2026-10-02T12:00:00Z", "open");
    }
    let report = week(&cloud, 12).await;
    let name = |id: &str, is_gone| (id.to_owned(), is_gone);
    assert_eq!((&report["reopened"], &report["sweep"]["reopened"]), (&json!(2), &json!(2)));
    assert_eq!(not_final(&cloud), [name("goes", false), name("reopens", false)]);
    assert_eq!(archived(&cloud).len(), 3, "what was archived stays");
    let reopened_at = row_of(&cloud, "reopens")["reopened_at"].clone();
    // Written again while it is open, it is open since then all the same. One that is gone will never be final.
    let open =
        json!({"message_id": "reopens", "timestamp": "2026-10-02T12:00:00Z", "n": 2, "alerts": [{"status": "open"}]});
    cloud.node.put("messages", "reopens", &open.to_string());
    cloud.node.delete("messages", "goes");
    week(&cloud, 19).await;
    assert_eq!(not_final(&cloud), [name("goes", true), name("reopens", false)]);
    assert!(reopened_at.is_string());
    assert_eq!(row_of(&cloud, "reopens")["reopened_at"], reopened_at);
    cloud.node.put("messages", "reopens", &changed("reopens"));
    let report = week(&cloud, 20).await;
    assert_eq!((&report["reopened"], not_final(&cloud)), (&json!(1), vec![name("goes", true)]));
    assert_eq!((archived(&cloud).len(), cloud.keys("archive/superseded/").len()), (3, 1));
    assert!(row_of(&cloud, "reopens")["reopened_at"].is_null());
    // It comes back as it was archived.
    cloud.put_message("goes", "2026-10-02T12:00:00Z", "closed");
    let report = week(&cloud, 21).await;
    assert_eq!((&report["reopened"], not_final(&cloud), archived(&cloud).len()), (&json!(0), vec![], 3));
}

#[tokio::test]
async fn history_that_grows_after_a_message_was_archived_replaces_its_row() {
    let cloud = Cloud::default();
    for id in ["grows", "stays"] {
        cloud.put_message(id, "2026-10-02T12:00:00Z", "closed");
    }
    week(&cloud, 5).await;
    let grown = |index: &str, id: &str| {
        let document = json!({"message_id": id, "timestamp": "2026-11-06T12:00:00Z", "event": "noted"});
        cloud.node.put(index, &format!("{id}-later"), &document.to_string());
    };
    let related = |id: &str| {
        let object = archived(&cloud).remove(id).expect("archived");
        let rows: Vec<_> =
            columnar::rows(cloud.object(&object)).expect("Parquet").map(|row| row.expect("a row")).collect();
        let row = rows.into_iter().find(|row| row.identity.id == id).expect("the row");
        (row.record.history.len(), row.record.audit.len())
    };
    for (day, index, expected) in [(12, "history", (2, 1)), (19, "audit", (2, 2))] {
        grown(index, "grows");
        let report = week(&cloud, day).await;
        assert_eq!(report["sweep"], json!({"late": 0, "changed": 1, "reopened": 0, "moved": 0}), "{index}");
        assert_eq!((related("grows"), related("stays")), (expected, (1, 1)), "{index}");
    }
    assert_eq!(cloud.keys("archive/superseded/").len(), 2, "each earlier row is kept");
    // What belongs to a message that was never archived changes nothing.
    grown("history", "unknown");
    let report = week(&cloud, 20).await;
    assert_eq!((&report["sweep"]["changed"], &report["windows"]["planned"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn history_that_is_put_right_brings_its_message_out_of_quarantine() {
    let cloud = Cloud::default();
    cloud.put_message("m", "2026-10-02T12:00:00Z", "closed");
    cloud.node.put_bytes("history", "m-h", b"{/* no JSON */}", 1_790_942_400_000, "m");
    week(&cloud, 5).await;
    assert_eq!(row_of(&cloud, "m")["reason"], "unreadable_history");
    let history = json!({"message_id": "m", "timestamp": "2026-10-02T12:00:00Z", "event": "opened"});
    cloud.node.put("history", "m-h", &history.to_string());
    let report = week(&cloud, 12).await;
    assert_eq!(report["sweep"]["changed"], 1);
    assert_eq!((history_of(&cloud, "m"), &row_of(&cloud, "m")["disposition"]), (1, &json!("closed")));
}

#[tokio::test]
async fn history_that_grows_is_found_although_the_keyword_leaves_out_the_long_id_of_its_message() {
    let cloud = Cloud::default();
    cloud.node.ignore_ids_above(256);
    let long = "é/".repeat(150);
    for id in [long.as_str(), "short"] {
        cloud.put_message(id, "2026-10-02T12:00:00Z", "closed");
    }
    week(&cloud, 5).await;
    assert_eq!(history_of(&cloud, &long), 1);
    for (nth, id) in [long.as_str(), "short", "unknown"].into_iter().enumerate() {
        let more = json!({"message_id": id, "timestamp": "2026-11-06T12:00:00Z", "event": "noted"});
        cloud.node.put("history", &format!("later-{nth}"), &more.to_string());
    }
    assert_eq!(week(&cloud, 12).await["sweep"]["changed"], 2);
    assert_eq!((history_of(&cloud, &long), history_of(&cloud, "short")), (2, 2));
    assert_eq!(week(&cloud, 19).await["windows"]["planned"], 0);
}

#[tokio::test]
async fn a_missed_week_that_is_made_up_for_behind_a_later_one_hides_nothing_from_the_next_sweep() {
    let cloud = Cloud::default();
    cloud.put_message("first", "2026-10-02T12:00:00Z", "closed");
    week(&cloud, 5).await;
    week(&cloud, 19).await;
    cloud.put_message("late", "2026-11-15T12:00:00Z", "closed");
    let report = week(&cloud, 12).await;
    assert_eq!(report["sweep"], json!({"late": 1, "changed": 0, "reopened": 0, "moved": 0}));
    week(&cloud, 20).await;
    assert_eq!(archived(&cloud).into_keys().collect::<Vec<_>>(), ["first", "late"]);
}

#[tokio::test]
async fn what_is_written_while_a_week_is_at_work_is_not_passed_over_by_another_that_is_quicker() {
    let cloud = Cloud::default();
    cloud.put_message("first", "2026-10-02T12:00:00Z", "closed");
    week(&cloud, 5).await;
    cloud.put_message("second", "2026-11-14T12:00:00Z", "closed");
    let archive = Archive::new(cloud.clone());
    let input = json!({"mode": "scheduled", "scheduled_for": "2026-11-19T06:00:00Z"});
    let execution_arn = cloud.start("slow", &input).await;
    let plan = archive.plan(PlanRequest { v: Version, input, run_id: "slow".into(), execution_arn }).await;
    let plan = plan.expect("a plan");
    let task = archive.query(archive.tasks(&plan).remove(0)).await.expect("it is read");
    cloud.put_message("late", "2026-11-14T13:00:00Z", "closed");
    // A missed week is made up for meanwhile.
    week(&cloud, 4).await;
    let task = archive.classify(task).await.expect("classified");
    archive.write(task).await.expect("written");
    finish(&cloud, &archive, plan).await;
    week(&cloud, 20).await;
    assert_eq!(archived(&cloud).into_keys().collect::<Vec<_>>(), ["first", "late", "second"]);
}

/// A run all of whose windows are done comes to its end.
async fn finish(cloud: &Cloud, archive: &Archive<'_>, plan: Plan) {
    let Plan { v, run_id, mode, execution_arn, bucket, windows_key, .. } = plan;
    let request = CollectRequest { v, run_id, mode, execution_arn: execution_arn.clone(), bucket, windows_key };
    archive.gate(archive.collect(request).await.expect("collected")).await.expect("a good end");
    cloud.executions.end(&execution_arn, "SUCCEEDED", None);
}

/// How much history stands beside a message in the archive.
fn history_of(cloud: &Cloud, id: &str) -> usize {
    let object = archived(cloud).remove(id).expect("archived");
    let mut rows = columnar::rows(cloud.object(&object)).expect("Parquet").map(|row| row.expect("a row"));
    rows.find(|row| row.identity.id == id).expect("the row").record.history.len()
}

/// A message that lies before all weekly runs, in the range of a run `by-hand` whose first window has been read. Its
/// history grows then.
async fn read_by_hand_before_its_history_grew(cloud: &Cloud, archive: &Archive<'_>) -> (Plan, WindowTask) {
    cloud.job_runs().move_watermark("2026-10-01T00:00:00Z".parse().expect("an instant")).await.expect("moved");
    cloud.put_message("m", "2026-09-02T12:00:00Z", "closed");
    week(cloud, 5).await;
    assert!(archived(cloud).is_empty());
    let input = json!({"mode": "range", "from": "2026-09-01", "to": "2026-09-08"});
    let execution_arn = cloud.start("by-hand", &input).await;
    let plan = archive.plan(PlanRequest { v: Version, input, run_id: "by-hand".into(), execution_arn }).await;
    let plan = plan.expect("a plan");
    let task = archive.query(archive.tasks(&plan).remove(0)).await.expect("it is read");
    let more = json!({"message_id": "m", "timestamp": "2026-11-06T12:00:00Z", "event": "noted"});
    cloud.node.put("history", "m-later", &more.to_string());
    (plan, task)
}

#[tokio::test]
async fn history_that_grows_while_another_run_is_about_to_archive_its_message_is_found_when_it_has() {
    let cloud = Cloud::default();
    let archive = Archive::new(cloud.clone());
    let (plan, task) = read_by_hand_before_its_history_grew(&cloud, &archive).await;
    week(&cloud, 12).await;
    let task = archive.classify(task).await.expect("classified");
    archive.write(task).await.expect("written");
    finish(&cloud, &archive, plan).await;
    assert_eq!(history_of(&cloud, "m"), 1, "what was read before");
    assert_eq!(week(&cloud, 19).await["sweep"]["changed"], 1);
    assert_eq!(history_of(&cloud, "m"), 2);
    assert_eq!(week(&cloud, 20).await["windows"]["planned"], 0, "once");
}

/// No object comes into the archive.
struct NoArchive;

#[async_trait::async_trait]
impl Network for NoArchive {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_refused = request.operation == "PutObject" && request.subject.contains("/archive/parquet/");
        if is_refused { Err(Broken) } else { Ok(()) }
    }
}

#[tokio::test]
async fn history_that_grows_after_a_run_died_over_its_message_is_archived_with_it() {
    let cloud = Cloud::default();
    let archive = Archive::new(cloud.clone());
    let (plan, task) = read_by_hand_before_its_history_grew(&cloud, &archive).await;
    let task = archive.classify(task).await.expect("classified");
    let broken = Archive::new(cloud.through(Arc::new(NoArchive)));
    broken.write(task).await.expect_err("the store is away");
    cloud.executions.end(&plan.execution_arn, "ABORTED", None);
    assert_eq!(row_of(&cloud, "m")["status"], "Processing");
    week(&cloud, 12).await;
    archive.run("again", json!({"mode": "failed-only", "run_id": "by-hand"})).await.expect("a good end");
    assert_eq!(history_of(&cloud, "m"), 2);
}

/// Seven years of messages, and a schedule that takes two windows of three messages at once.
async fn catch_up(cloud: &Cloud, run_id: &str) -> Result<Value, simulation::Fault> {
    let archive = Archive { window_messages: 3, run_windows: 2, ..Archive::new(cloud.clone()) };
    archive.run(run_id, json!({"mode": "scheduled", "scheduled_for": "2026-11-20T06:00:00Z"})).await?;
    Ok(cloud.json(&format!("runs/{run_id}/report.json")))
}

fn seven_years() -> Cloud {
    let cloud = Cloud::default();
    for year in 2019..2026 {
        for month in [2, 5, 8, 11] {
            let status = if month == 8 { "open" } else { "closed" };
            cloud.put_message(&format!("{year}-{month:02}"), &format!("{year}-{month:02}-03T12:00:00Z"), status);
        }
    }
    cloud
}

#[tokio::test]
async fn a_first_run_over_seven_years_is_split_and_goes_on_where_it_stopped() {
    let cloud = seven_years();
    let (mut left, mut runs) = (28, 0);
    while left > 0 {
        runs += 1;
        let report = catch_up(&cloud, &format!("r{runs}")).await.expect("a good end");
        assert!(report["windows"]["planned"].as_u64().is_some_and(|windows| windows <= 2), "{report:#}");
        let now = report["left"]["messages"].as_u64().unwrap_or_default();
        assert!(now < left, "{now} of {left} are left");
        assert_eq!(report["messages"]["source"].as_u64(), Some(left - now), "each is read once");
        if now > 0 {
            assert_eq!(report["to"], report["left"]["from"], "its range ends where the next begins");
        }
        assert_eq!(cloud.mails.sent().len(), runs);
        let text = cloud.mails.sent().pop().expect("a mail").message.replace("=\r\n", "");
        assert_eq!(text.contains("Left to the next run"), now > 0, "{text}");
        left = now;
    }
    assert!(runs > 3);
    assert_eq!((archived(&cloud).len(), cloud.tracking_rows().len()), (21, 28));
    // Now the time is done, and doing it again does nothing.
    let (before, input) =
        (cloud.keys("archive/"), json!({"mode": "scheduled", "scheduled_for": "2026-11-20T06:00:00Z"}));
    Archive::new(cloud.clone()).run("again", input).await.expect("a good end");
    assert_eq!((cloud.keys("archive/"), cloud.mails.sent().len()), (before, runs));
}

#[tokio::test]
async fn a_range_of_seven_years_is_cancelled_in_its_middle_and_goes_on_where_it_stopped() {
    let cloud = seven_years();
    let archive = Archive { window_messages: 1, ..Archive::new(cloud.clone()) };
    let input = json!({"mode": "range", "from": "2019-01-01", "to": "2026-01-01"});
    let execution_arn = cloud.start("years", &input).await;
    let (v, run_id) = (alerts::run::payloads::Version, "years".to_owned());
    let request = alerts::run::payloads::PlanRequest { v, input, run_id, execution_arn: execution_arn.clone() };
    let plan = archive.plan(request).await.expect("a plan");
    let tasks = archive.tasks(&plan);
    assert_eq!(tasks.len(), 28, "a range is not capped");
    for task in tasks.iter().take(11).cloned() {
        archive.window(task).await.expect("written");
    }
    // One more is cut in its middle.
    archive.query(tasks[11].clone()).await.expect("spooled");
    cloud.executions.end(&execution_arn, "ABORTED", None);
    let (before, windows) = (cloud.keys("archive/"), cloud.window_rows());
    archive.run("years-again", json!({"mode": "failed-only", "run_id": "years"})).await.expect("a good end");
    let report = cloud.json("runs/years/report.json");
    assert_eq!(report["windows"], json!({"planned": 28, "succeeded": 28, "failed": 0}));
    assert_eq!((&report["messages"]["source"], &report["reconciled"]), (&json!(28), &json!(true)));
    assert_eq!((archived(&cloud).len(), cloud.tracking_rows().len()), (21, 28));
    // What was committed is neither read nor written again.
    let (after, windows_now) = (cloud.keys("archive/"), cloud.window_rows());
    assert!(before.iter().all(|(key, bytes)| after.get(key) == Some(bytes)));
    let committed: Vec<&Value> = windows.iter().filter(|row| row["status"] == "Completed").collect();
    assert!(committed.len() == 11 && committed.into_iter().all(|row| windows_now.contains(row)));
    assert_eq!(windows_now.iter().filter(|row| row["attempt"] == 2).count(), 1, "the one that was cut");
}

#[tokio::test]
async fn whatever_request_of_a_capped_plan_fails_nothing_is_passed_over() {
    let counting = network::OneFault::at(usize::MAX, network::Strike::Request);
    let plan = async |cloud: &Cloud, run_id: &str| {
        let input = json!({"mode": "scheduled", "scheduled_for": "2026-11-20T06:00:00Z"});
        let execution_arn = cloud.start(run_id, &input).await;
        let (v, run_id) = (alerts::run::payloads::Version, run_id.to_owned());
        let request = alerts::run::payloads::PlanRequest { v, input, run_id, execution_arn: execution_arn.clone() };
        let archive = Archive { window_messages: 3, run_windows: 2, retries: 0, ..Archive::new(cloud.clone()) };
        (execution_arn, archive.plan(request).await)
    };
    let cloud = seven_years();
    plan(&cloud.through(counting.clone()), "r1").await.1.expect("a plan");
    let requests = counting.seen();
    assert!(requests > 10);
    for nth in 0..requests {
        let cloud = seven_years();
        let fault = network::OneFault::at(nth, network::Strike::Answer);
        let (arn, planned) = plan(&cloud.through(fault), "r1").await;
        // The source changes meanwhile, so that another plan would end elsewhere.
        cloud.put_message("2019-02-b", "2019-02-04T12:00:00Z", "closed");
        cloud.put_message("2019-02-c", "2019-02-04T12:00:00Z", "closed");
        cloud.executions.end(&arn, "ABORTED", None);
        if planned.is_err() {
            let archive = Archive { window_messages: 3, run_windows: 2, ..Archive::new(cloud.clone()) };
            // As an operator does; where there is no list, the next scheduled run begins anew.
            let _ = archive.run("r1-again", json!({"mode": "failed-only", "run_id": "r1"})).await;
        }
        for run in 2..30 {
            let done = catch_up(&cloud, &format!("r{run}")).await;
            if done.is_ok_and(|report| report["left"].is_null()) {
                break;
            }
        }
        // Those that arrived behind the plan are late, and the sweep of a later run is what finds them.
        let closed = archived(&cloud).into_keys().filter(|id| id.len() == 7).count();
        assert_eq!(closed, 21, "request {nth} of {requests}");
    }
}
