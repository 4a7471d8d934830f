//! Messages of the API that an index has later: their rows move, and each message is known once.

use alerts::{
    message::{
        classification::{Disposition, Outcome},
        entry::Entry,
        tracking::{Claim, Decision, NO_INDEX, Row, Staging, Status, complete, renamed, stage},
    },
    source::Source,
};
use archive::{Guesses, Tracking};
use identity::{Identity, instant};
use jiff::Timestamp;
use network::{Calm, OneFault, Strike};
use std::collections::HashSet;
use storage::{MemoryTables, Table};

const TABLE: &str = "messages";

fn at(text: &str) -> Timestamp {
    instant::parse(text).expect("an instant")
}

fn claim(run_id: &str) -> Claim {
    Claim { run_id: run_id.into(), window_id: "w".into(), attempt: 1 }
}

fn staging(run_id: &str) -> Staging {
    Staging::new(claim(run_id), at("2026-11-08"), false)
}

fn beside_an_api(run_id: &str) -> Staging {
    Staging { had_api: true, ..staging(run_id) }
}

fn entry(index: &str, source: Source, disposition: Disposition) -> Entry {
    let outcome = Outcome { disposition, reason: None, no_alerts: false };
    Entry {
        index: index.into(),
        id: "m".into(),
        at: at("2026-10-08"),
        version: "v1".into(),
        related: String::new(),
        related_bytes: 0,
        bytes: 1,
        source,
        written: None,
        outcome,
    }
}

fn ledger() -> Tracking {
    let tables = MemoryTables::new(Calm::shared()).table(TABLE, "message_id", Some("source_index"));
    Tracking { rows: Table::over(tables, TABLE) }
}

fn earlier() -> Staging {
    Staging { seen_at: at("2026-11-01"), ..staging("r1") }
}

/// The row of an archived message that no index had.
fn archived() -> Row {
    let entry = entry(NO_INDEX, Source::Api, Disposition::Closed);
    let staged = stage(None, &entry, &earlier()).expect("staged").row.expect("a row");
    let path = "s3://b/archive/one.parquet".to_owned();
    let completed = complete(&staged, &entry, &claim("r1"), path, at("2026-11-01"));
    let mut row = completed.expect("its own").expect("a row");
    row.revision = 1;
    row
}

async fn known(ledger: &Tracking) -> Vec<Row> {
    ledger.rows.partition("m").await.expect("rows")
}

async fn find(ledger: &Tracking, run_id: &str, entry: &Entry) -> Decision {
    let mut guesses = Guesses::default();
    let staged = ledger.stage_all(&[entry], &beside_an_api(run_id), &mut guesses, || false).await;
    staged.expect("staged").decisions.expect("in time").remove(0)
}

#[tokio::test]
async fn an_archived_message_is_known_under_its_index_and_not_archived_again() {
    let ledger = ledger();
    assert!(ledger.rows.put(&archived()).await.expect("written"));
    let indexed = entry("messages-1", Source::Opensearch, Disposition::Closed);
    for run in ["r2", "r3"] {
        assert_eq!(find(&ledger, run, &indexed).await, Decision::Already, "{run}");
        let rows = known(&ledger).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].source_index.as_str(), rows[0].status), ("messages-1", Status::Completed));
        assert_eq!((&rows[0].s3_path, rows[0].inserted_at), (&archived().s3_path, archived().inserted_at));
    }
    assert_eq!(known(&ledger).await[0].source, Source::Opensearch, "from now on the index's bytes count");
}

#[tokio::test]
async fn of_two_documents_of_one_id_one_takes_the_row_over_and_the_other_is_archived() {
    let documents = ["messages-1", "messages-2"].map(|index| entry(index, Source::Opensearch, Disposition::Closed));
    let stage = async |ledger: &Tracking, entries: &[&Entry]| {
        let staged = ledger.stage_all(entries, &beside_an_api("r2"), &mut Guesses::default(), || false).await;
        staged.expect("staged").decisions.expect("in time")
    };
    let together = ledger();
    assert!(together.rows.put(&archived()).await.expect("written"));
    let [first, second] = &documents;
    assert_eq!(stage(&together, &[first, second]).await, [Decision::Already, Decision::Write]);
    let apart = ledger();
    assert!(apart.rows.put(&archived()).await.expect("written"));
    assert_eq!(stage(&apart, &[first]).await, [Decision::Already]);
    assert_eq!(stage(&apart, &[second]).await, [Decision::Write]);
    for ledger in [together, apart] {
        let indices: Vec<String> = known(&ledger).await.into_iter().map(|row| row.source_index).collect();
        assert_eq!(indices, ["messages-1", "messages-2"]);
    }
}

/// Counts the rows that are asked for in batches.
#[derive(Default)]
struct Reads(std::sync::Mutex<Vec<&'static str>>);

#[async_trait::async_trait]
impl network::Network for Reads {
    async fn sent(&self, request: &network::Request) -> Result<(), network::Broken> {
        self.0.lock().expect("not poisoned").push(request.operation);
        Ok(())
    }
}

#[tokio::test]
async fn where_the_api_was_never_a_source_a_new_message_costs_one_write_and_no_read() {
    let reads = std::sync::Arc::new(Reads::default());
    let tables = MemoryTables::new(reads.clone()).table(TABLE, "message_id", Some("source_index"));
    let ledger = Tracking { rows: Table::over(tables, TABLE) };
    let indexed = entry("messages-1", Source::Opensearch, Disposition::Closed);
    let staged = ledger.stage_all(&[&indexed], &staging("r1"), &mut Guesses::default(), || false).await;
    assert_eq!(staged.expect("staged").decisions.expect("in time"), [Decision::Write]);
    assert_eq!(*reads.0.lock().expect("not poisoned"), ["BatchExecuteStatement"]);
}

#[tokio::test]
async fn an_open_message_keeps_its_age_when_an_index_has_it() {
    let ledger = ledger();
    let open = entry(NO_INDEX, Source::Api, Disposition::Open);
    assert_eq!(find(&ledger, "r1", &open).await, Decision::Hold);
    let since = known(&ledger).await[0].first_seen_open;
    let decision = find(&ledger, "r2", &entry("messages-1", Source::Opensearch, Disposition::Open)).await;
    let rows = known(&ledger).await;
    assert_eq!((decision, rows.len(), rows[0].first_seen_open), (Decision::Hold, 1, since));
    assert!(rows[0].staging.is_some() && rows[0].source_index == "messages-1");
}

#[tokio::test]
async fn a_message_that_another_window_writes_now_stays_where_it_is() {
    let ledger = ledger();
    let staged = stage(None, &entry(NO_INDEX, Source::Api, Disposition::Closed), &earlier()).expect("staged");
    let claimed = staged.row.expect("a row");
    assert_eq!(claimed.status, Status::Processing);
    assert!(ledger.rows.put(&claimed).await.expect("written"));
    let decision = find(&ledger, "r2", &entry("messages-1", Source::Opensearch, Disposition::Closed)).await;
    assert!(matches!(decision, Decision::Contested { .. }), "{decision:?}");
    assert_eq!(known(&ledger).await, [claimed]);
}

/// For a reading after which these were the indices.
fn among(run_id: &str, present: &[&str]) -> Staging {
    Staging { present: Some(present.iter().map(|index| (*index).to_owned()).collect()), ..staging(run_id) }
}

fn of_index(index: &str) -> Row {
    Row { source_index: index.into(), source: Source::Opensearch, ..archived() }
}

async fn staged(ledger: &Tracking, entry: &Entry, staging: &Staging) -> (Decision, u64) {
    let staged = ledger.stage_all(&[entry], staging, &mut Guesses::default(), || false).await.expect("staged");
    (staged.decisions.expect("in time").remove(0), staged.moved)
}

#[tokio::test]
async fn a_row_called_after_an_index_that_is_gone_moves_to_the_one_that_has_its_message() {
    let ledger = ledger();
    assert!(ledger.rows.put(&of_index("messages-1")).await.expect("written"));
    let indexed = entry("messages-2", Source::Opensearch, Disposition::Closed);
    for (run, moved) in [("r2", 1), ("r3", 0)] {
        let staged = staged(&ledger, &indexed, &among(run, &["messages-2"])).await;
        assert_eq!(staged, (Decision::Already, moved), "{run}");
    }
    let rows = known(&ledger).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0].source_index.as_str(), rows[0].archived_as.as_deref()), ("messages-2", Some("messages-1")));
    // While both are there, they are two messages.
    let both = among("r4", &["messages-2", "messages-3"]);
    let other = entry("messages-3", Source::Opensearch, Disposition::Closed);
    assert_eq!(staged(&ledger, &other, &both).await, (Decision::Write, 0));
}

#[tokio::test]
async fn a_row_moves_in_one_request_so_that_no_death_leaves_two() {
    let (before, after) = (of_index("messages-1"), renamed(&of_index("messages-1"), "messages-2").expect("no claim"));
    let (document, present) = (Identity::new("messages-2", "m"), HashSet::from(["messages-2".to_owned()]));
    for strike in [Strike::Request, Strike::Answer, Strike::AnswerThenRetry] {
        for nth in 0..2 {
            let tables = MemoryTables::new(Calm::shared()).table(TABLE, "message_id", Some("source_index"));
            let ledger = Tracking::over(tables.clone(), TABLE);
            assert!(ledger.rows.put(&before).await.expect("written"));
            let broken = Tracking::over(tables.through(OneFault::at(nth, strike)), TABLE);
            let _ = broken.rename(&document, &present).await;
            let rows = known(&ledger).await;
            assert!(rows == [before.clone()] || rows == [after.clone()], "{strike:?} {nth}: {rows:?}");
        }
    }
}

#[tokio::test]
async fn a_row_that_a_window_claims_while_it_is_moved_stays_where_it_is() {
    let ledger = ledger();
    let before = of_index("messages-1");
    assert!(ledger.rows.put(&before).await.expect("written"));
    let claimed = Row { claim: Some(claim("r9")), revision: 2, ..before.clone() };
    assert!(ledger.rows.put(&claimed).await.expect("written"));
    let after = renamed(&before, "messages-2").expect("no claim");
    assert!(!ledger.rows.rekey(&before, &after).await.expect("tried"), "it has changed since it was read");
    let indexed = entry("messages-2", Source::Opensearch, Disposition::Closed);
    let (decision, _) = staged(&ledger, &indexed, &among("r2", &["messages-2"])).await;
    assert_eq!(decision, Decision::Contested { claim: claim("r9") });
    assert_eq!(known(&ledger).await, [claimed]);
    // When that claim is over, it moves.
    let over = Staging { over: HashSet::from([claim("r9")]), ..among("r2", &["messages-2"]) };
    assert_eq!(staged(&ledger, &indexed, &over).await, (Decision::Already, 1));
}

#[tokio::test]
async fn a_message_that_an_index_had_is_known_to_the_api_alone() {
    let ledger = ledger();
    assert!(ledger.rows.put(&of_index("messages-1")).await.expect("written"));
    let alone = |run: &str| Staging { had_api: true, ..among(run, &[]) };
    let listed = |version: &str| {
        let entry = entry(NO_INDEX, Source::Api, Disposition::Closed);
        Entry { version: version.into(), ..entry }
    };
    // The API may spell it otherwise than the index did. Another spelling is a change.
    for (run, version, expected) in [
        ("r2", "spelled", Decision::Already),
        ("r3", "spelled", Decision::Already),
        ("r4", "v2", Decision::Replace { object: "archive/one.parquet".into() }),
    ] {
        assert_eq!(staged(&ledger, &listed(version), &alone(run)).await.0, expected, "{run}");
        let rows = known(&ledger).await;
        assert_eq!((rows.len(), rows[0].source_index.as_str()), (1, NO_INDEX), "{run}: {rows:?}");
    }
}
