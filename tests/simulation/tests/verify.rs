//! What `alert-archive verify --deep --repair` says of archives that runs have left in memory.

use alerts::{
    message::tracking::Row,
    run::{
        job_run::RunStatus,
        payloads::{PlanRequest, Version, WindowTask},
    },
};
use async_trait::async_trait;
use identity::Identity;
use memory_cloud::{BUCKET, Cloud};
use network::{Broken, Network, Request};
use runtime::Clock;
use serde_json::{Value, json};
use simulation::{Archive as Workflow, history::verification::archive};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::{Notify, Semaphore};
use verify::{Archive, Finding, look, repair, rules::Days};

/// Lets no object of the archive through.
struct NoArchive;

#[async_trait]
impl Network for NoArchive {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_of_archive = request.operation == "PutObject" && request.subject.contains("archive/parquet/");
        if is_of_archive { Err(Broken) } else { Ok(()) }
    }
}

/// Stops all requests behind the first few.
struct Stop {
    permits: Semaphore,
    stopped: Notify,
}

#[async_trait]
impl Network for Stop {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        if self.permits.available_permits() == 0 {
            self.stopped.notify_one();
        }
        self.permits.acquire().await.map_err(|_| Broken)?.forget();
        Ok(())
    }
}

fn range() -> Value {
    json!({"mode": "range", "from": "2024-07-01", "to": "2024-07-08"})
}

/// A run dies when it has staged the messages `left` and `stays`; its lease is over, and the source lets `left` go.
async fn died(cloud: &Cloud, is_prepared: bool) -> WindowTask {
    for id in ["stays", "left"] {
        cloud.put_message(id, "2024-07-01T10:00:00Z", "closed");
    }
    let workflow = Workflow::new(cloud.clone());
    let execution_arn = cloud.start("r1", &range()).await;
    let (v, run_id) = (Version, "r1".to_owned());
    let request = PlanRequest { v, input: range(), run_id, execution_arn: execution_arn.clone() };
    let plan = workflow.plan(request).await.expect("a plan");
    let task = workflow.tasks(&plan).pop().expect("a window");
    let task = workflow.query(task).await.expect("read");
    let task = workflow.classify(task).await.expect("staged");
    if is_prepared {
        let workflow = Workflow { retries: 0, ..Workflow::new(cloud.through(Arc::new(NoArchive))) };
        workflow.write(task.clone()).await.expect_err("it is cut off behind its intent");
    }
    cloud.executions.end(&execution_arn, "ABORTED", None);
    let now = cloud.clock.now();
    cloud.job_runs().change("r1", |run| run.end(RunStatus::Failed, now)).await.expect("marked");
    cloud.clock.advance(Duration::from_secs(600));
    cloud.node.delete("messages", "left");
    task
}

/// Kind, message, and whether it was repaired.
async fn verified(cloud: &Cloud, repairs: bool) -> Vec<(&'static str, String, bool)> {
    let (_, outcome) = look(&archive(cloud), Days::ALL, true).await.expect("looked");
    let mut findings = outcome.findings;
    if repairs {
        findings = repair(&archive(cloud), Days::ALL, true, findings).await.expect("repaired");
    }
    let told = |finding: Finding| (finding.kind, finding.what, finding.repaired.is_some());
    findings.into_iter().map(told).collect()
}

async fn run(cloud: &Cloud, run_id: &str, input: Value) {
    Workflow::new(cloud.clone()).run(run_id, input).await.expect("a good end");
}

fn row(cloud: &Cloud, id: &str) -> Value {
    cloud.tracking_rows().into_iter().find(|row| row["message_id"] == id).expect("a row")
}

#[tokio::test]
async fn a_message_that_was_staged_and_left_before_it_was_written_is_told_kept_and_marked() {
    let cloud = Cloud::default();
    let task = died(&cloud, false).await;
    let unfinished = ("message_unfinished", "stays".to_owned(), false);
    let gone = |is_repaired| ("message_gone", "left".to_owned(), is_repaired);
    assert_eq!(verified(&cloud, false).await, [gone(false), unfinished.clone()]);
    assert_eq!(verified(&cloud, true).await, [gone(true), unfinished.clone()]);
    assert_eq!(verified(&cloud, true).await, [unfinished]);
    let left = row(&cloud, "left");
    assert_eq!((&left["status"], &left["reason"], &left["claim"]), (&json!("Failed"), &json!("gone"), &Value::Null));
    let kept = cloud.json("archive/superseded/gone/date=2024-07-01/messages/left.json");
    assert_eq!(kept["message"]["message_id"], "left");
    // The attempt that had staged it wakes up late.
    let late = Workflow { retries: 0, ..Workflow::new(cloud.clone()) }.write(task).await;
    assert_eq!(late.expect_err("it was fenced off").name, "WindowSuperseded");
    run(&cloud, "r2", range()).await;
    assert_eq!(verified(&cloud, false).await, []);
    let (_, outcome) = look(&archive(&cloud), Days::ALL, false).await.expect("looked");
    assert_eq!((outcome.gone, outcome.accounted.map(|sum| (sum.source, sum.archived))), (1, Some((1, 1))));
    // It comes back.
    cloud.put_message("left", "2024-07-01T10:00:00Z", "closed");
    let back = [("source_unaccounted", "2024-07-01"), ("message_unaccounted", "left")];
    assert_eq!(verified(&cloud, false).await, back.map(|(kind, what)| (kind, what.to_owned(), false)));
    run(&cloud, "r3", range()).await;
    assert_eq!((&row(&cloud, "left")["status"], &row(&cloud, "left")["gone_at"]), (&json!("Completed"), &Value::Null));
    assert_eq!(verified(&cloud, false).await, []);
}

#[tokio::test]
async fn the_source_is_counted_only_where_runs_have_been() {
    let cloud = Cloud::default();
    let counted =
        async || look(&archive(&cloud), Days::ALL, false).await.expect("looked").1.accounted.map(|sum| sum.source);
    cloud.put_message("new", "2024-07-01T10:00:00Z", "closed");
    assert_eq!(counted().await, None);
    run(&cloud, "r1", range()).await;
    assert_eq!(counted().await, Some(1));
}

#[tokio::test]
async fn a_message_that_moved_in_time_and_was_reopened_is_no_difference() {
    let cloud = Cloud::default();
    cloud.put_message("moved", "2024-07-01T10:00:00Z", "closed");
    run(&cloud, "r1", range()).await;
    cloud.put_message("moved", "2024-07-03T10:00:00Z", "open");
    run(&cloud, "r2", range()).await;
    assert_eq!(row(&cloud, "moved")["disposition"], "open");
    assert_eq!(verified(&cloud, false).await, []);
    cloud.put_message("unknown", "2024-07-03T10:00:00Z", "closed");
    let expected = [("source_unaccounted", "2024-07-03"), ("message_unaccounted", "unknown")];
    assert_eq!(verified(&cloud, false).await, expected.map(|(kind, what)| (kind, what.to_owned(), false)));
}

#[tokio::test]
async fn a_message_that_left_and_that_a_registered_intent_writes_is_not_marked() {
    let cloud = Cloud::default();
    died(&cloud, true).await;
    let unfinished = |id: &str| ("message_unfinished", id.to_owned(), false);
    assert_eq!(verified(&cloud, true).await, [unfinished("left"), unfinished("stays")]);
    let (_, outcome) = look(&archive(&cloud), Days::ALL, false).await.expect("looked");
    let detail = &outcome.findings[0].detail;
    assert!(detail.contains("alert-archive rerun r1 finishes that"), "{detail}");
    run(&cloud, "r2", json!({"mode": "failed-only", "run_id": "r1"})).await;
    assert_eq!((&row(&cloud, "left")["status"], verified(&cloud, false).await), (&json!("Completed"), Vec::new()));
}

/// What a person is told.
type Told = (&'static str, String);

async fn told(archive: &Archive) -> HashSet<Told> {
    let (_, outcome) = look(archive, Days::ALL, true).await.expect("looked");
    outcome.findings.into_iter().map(|finding| (finding.kind, finding.what)).collect()
}

/// Looks, and lets a run go from its beginning to its end before one of the requests. What is told must have been so
/// before the run or be so after it. `false`: there are not so many requests.
async fn a_run_goes_on_meanwhile(cloud: Cloud, input: Value, before_request: usize) -> bool {
    let mut expected = told(&archive(&cloud)).await;
    let stop = Arc::new(Stop { permits: Semaphore::new(before_request), stopped: Notify::new() });
    let slow = archive(&cloud.through(stop.clone()));
    let mut looking = Box::pin(told(&slow));
    tokio::select! {
        biased;
        () = stop.stopped.notified() => {}
        _ = &mut looking => return false,
    }
    run(&cloud, "r9", input).await;
    stop.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    let found = looking.await;
    expected.extend(told(&archive(&cloud)).await);
    let false_alarms: Vec<&Told> = found.difference(&expected).collect();
    assert!(false_alarms.is_empty(), "a run before request {before_request}: {false_alarms:?}");
    true
}

#[tokio::test]
async fn a_run_that_begins_and_ends_while_verify_looks_makes_it_tell_nothing() {
    let changed = async || {
        let cloud = Cloud::default();
        for id in ["changes", "stays"] {
            cloud.put_message(id, "2024-07-01T10:00:00Z", "closed");
        }
        run(&cloud, "r1", range()).await;
        cloud.put_message("changes", "2024-07-01T11:00:00Z", "closed");
        cloud.put_message("new", "2024-07-01T12:00:00Z", "closed");
        cloud
    };
    let again = json!({"mode": "failed-only", "run_id": "r1"});
    for before_request in 0.. {
        let mut any = a_run_goes_on_meanwhile(changed().await, range(), before_request).await;
        let cloud = Cloud::default();
        died(&cloud, false).await;
        any |= a_run_goes_on_meanwhile(cloud, again.clone(), before_request).await;
        if !any {
            assert!(before_request > 20);
            return;
        }
    }
}

#[tokio::test]
async fn one_id_under_several_routings_is_known_by_each_of_them() {
    let cloud = Cloud::default();
    let body = json!({"message_id": "m", "timestamp": "2024-07-01T05:00:00Z"}).to_string();
    for routing in [Some("left"), Some("right"), None] {
        cloud.node.put_routed("messages", "m", routing, &body);
    }
    Workflow::new(cloud.clone()).run("r1", range()).await.expect("a good end");
    assert_eq!(verified(&cloud, false).await, []);
}

#[tokio::test]
async fn a_row_that_was_repaired_knows_what_stands_beside_its_message() {
    let cloud = Cloud::default();
    cloud.put_message("m", "2024-07-01T10:00:00Z", "closed");
    run(&cloud, "r1", range()).await;
    let rows = cloud.tracking().rows;
    let good = rows.get("m", Some("messages")).await.expect("read").expect("a row");
    let damaged = Row { version: "another".into(), revision: good.revision + 1, ..good.clone() };
    assert!(rows.put(&damaged).await.expect("written"));
    assert_eq!(verified(&cloud, true).await, [("row_differs", "m".to_owned(), true)]);
    let repaired = rows.get("m", Some("messages")).await.expect("read").expect("a row");
    let facts = |row: &Row| (row.version.clone(), row.related.clone(), row.related_bytes);
    assert_eq!(facts(&repaired), facts(&good));
    assert!(repaired.related_bytes > 0);
    let archived = |run_id: &str| cloud.json(&format!("runs/{run_id}/report.json"))["messages"]["archived"].clone();
    run(&cloud, "r2", range()).await;
    assert_eq!(archived("r2"), 0, "it is there as it was");
    let more = json!({"message_id": "m", "timestamp": "2024-07-02T10:00:00Z", "event": "reopened"});
    cloud.node.put("history", "later", &more.to_string());
    run(&cloud, "r3", range()).await;
    assert_eq!(archived("r3"), 1);
    assert_eq!(verified(&cloud, false).await, []);
}

#[tokio::test]
async fn a_message_whose_object_is_gone_damaged_or_without_it_is_lost_and_archived_again() {
    /// What became of the object.
    #[derive(Clone, Copy, Debug)]
    enum Now {
        Gone,
        Damaged,
        Without,
    }
    for now in [Now::Gone, Now::Damaged, Now::Without] {
        let cloud = Cloud::default();
        for id in ["a", "b"] {
            cloud.put_message(id, "2024-07-01T10:00:00Z", "closed");
        }
        run(&cloud, "r1", range()).await;
        assert_eq!(verified(&cloud, false).await, []);
        let key = cloud.keys("archive/parquet/").into_keys().next().expect("an object");
        let object = cloud.object(&key);
        let lost = match now {
            Now::Gone => {
                cloud.store.expire(BUCKET, &key);
                vec!["a", "b"]
            }
            Now::Damaged => {
                cloud.objects().put(&key, object.slice(..object.len() / 2), "any").await.expect("written");
                vec!["a", "b"]
            }
            Now::Without => {
                let named = HashSet::from([Identity::new("messages", "b")]);
                let kept = columnar::split(object, &named).expect("Parquet").expect("a row").kept;
                cloud.objects().put(&key, kept, "any").await.expect("written");
                vec!["b"]
            }
        };
        let told = |found: Vec<(&str, String, bool)>| {
            let found = found.into_iter().filter(|(kind, ..)| *kind == "message_lost");
            let mut found: Vec<_> = found.map(|(_, what, is_repaired)| (what, is_repaired)).collect();
            found.sort();
            found
        };
        let expected = |is_repaired| lost.iter().map(|id| ((*id).to_owned(), is_repaired)).collect::<Vec<_>>();
        assert_eq!(told(verified(&cloud, false).await), expected(false), "{now:?}");
        assert_eq!(told(verified(&cloud, true).await), expected(true), "{now:?}");
        run(&cloud, "r2", range()).await;
        assert_eq!(verified(&cloud, false).await, [], "{now:?}");
        assert_eq!(cloud.json("runs/r2/report.json")["messages"]["archived"], lost.len(), "{now:?}");
    }
}
