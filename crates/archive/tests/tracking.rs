//! `message-tracking` against the local cloud (AWS_ENDPOINT_URL; `make test` starts it), in tables of its own.

use alerts::message::{
    classification::{Disposition, Outcome},
    entry::Entry,
    tracking::{Claim, Row, Staging, as_staged_first, complete},
};
use archive::{Changed, Guesses, Tracking, row_key};
use aws_sdk_dynamodb::{
    Client,
    types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType},
};
use identity::instant;
use std::cell::Cell;

/// A table of its own for each test, so that no run of the archive meets its rows.
struct Bench {
    client: Client,
    name: String,
    ledger: Tracking,
}

impl Bench {
    async fn new(name: &str) -> Self {
        let config = runtime::aws_config().await;
        let (client, name) = (Client::new(&config), unique(name));
        let attribute = |name: &str| {
            AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build()
                .expect("attribute")
        };
        let key =
            |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("key");
        let create = client.create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
        let create =
            create.attribute_definitions(attribute("message_id")).attribute_definitions(attribute("source_index"));
        let create =
            create.key_schema(key("message_id", KeyType::Hash)).key_schema(key("source_index", KeyType::Range));
        create.send().await.expect("AWS_ENDPOINT_URL names the local cloud: use `make test`");
        let ledger = Tracking::new(&config, name.clone());
        Bench { client, name, ledger }
    }

    async fn wipe(self) {
        self.client.delete_table().table_name(&self.name).send().await.expect("deleted");
    }
}

fn unique(name: &str) -> String {
    format!("adapter-{name}-{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond())
}

fn entry(id: &str, version: &str) -> Entry {
    let outcome = Outcome { disposition: Disposition::Closed, reason: None, no_alerts: false };
    Entry {
        index: "messages".into(),
        id: id.into(),
        at: instant::parse("1999-01-01").expect("instant"),
        version: version.into(),
        related: String::new(),
        related_bytes: 0,
        bytes: 1,
        source: alerts::source::Source::Opensearch,
        written: None,
        outcome,
    }
}

fn claim(run: &str) -> Claim {
    Claim { run_id: run.into(), window_id: "w".into(), attempt: 1 }
}

fn staging(run: &str) -> Staging {
    Staging::new(claim(run), instant::parse("2026-01-01").expect("instant"), false)
}

#[tokio::test]
async fn of_twenty_writers_that_read_the_same_row_one_wins() {
    let (bench, id) = (Bench::new("race").await, unique("race"));
    let ledger = bench.ledger.clone();
    let row = as_staged_first(&entry(&id, "v1"), &claim("r1"), jiff::Timestamp::now());
    assert!(ledger.rows.put(&row).await.expect("written"));
    let writers: Vec<_> = (0..20)
        .map(|n| {
            let (ledger, mut row) = (ledger.clone(), row.clone());
            row.revision += 1;
            row.version = format!("writer-{n}");
            tokio::spawn(async move { ledger.rows.put(&row).await.expect("answered") })
        })
        .collect();
    let mut won = 0;
    for writer in writers {
        won += u32::from(writer.await.expect("joined"));
    }
    assert_eq!(won, 1);
    bench.wipe().await;
}

#[tokio::test]
async fn many_rows_are_staged_read_and_changed_in_batches() {
    let (bench, id) = (Bench::new("many").await, unique("many"));
    let ledger = bench.ledger.clone();
    let entries: Vec<Entry> = (0..250).map(|n| entry(&format!("{id}-{n}"), "v1")).collect();
    let entries: Vec<&Entry> = entries.iter().collect();
    let staged = ledger.stage_all(&entries, &staging("r1"), &mut Guesses::default(), || false).await;
    let decisions = staged.expect("staged").decisions.expect("in time");
    assert_eq!(decisions.len(), 250);
    let keys: Vec<_> = entries.iter().map(|entry| row_key(entry)).collect();
    assert_eq!(ledger.rows.get_many(&keys).await.expect("read").len(), 250);
    let raise = |_: usize, row: Option<&Row>| {
        let mut next = row.expect("staged").clone();
        next.revision += 1;
        Ok::<_, storage::LedgerError>(Some(next))
    };
    let changed =
        ledger.change_all(&entries, &mut Guesses::default(), |_| None, raise, || false).await.expect("changed");
    assert_eq!(changed, Changed { rows: 250, all: true });
    let rows = ledger.rows.get_many(&keys).await.expect("read");
    assert!(rows.values().all(|row| row.revision == 2));
    bench.wipe().await;
}

#[tokio::test]
async fn work_on_many_rows_stops_when_the_time_is_over_and_goes_on_from_there() {
    let (bench, id) = (Bench::new("deadline").await, unique("deadline"));
    let ledger = bench.ledger.clone();
    let entries: Vec<Entry> = (0..600).map(|n| entry(&format!("{id}-{n}"), "v1")).collect();
    let entries: Vec<&Entry> = entries.iter().collect();
    // The time is over at the second look at the clock, however fast or slow the machine is.
    let second_look = || {
        let looks = Cell::new(0);
        move || looks.replace(looks.get() + 1) > 0
    };
    let mut guesses = Guesses::default();
    let staged = ledger.stage_all(&entries, &staging("r1"), &mut guesses, second_look()).await.expect("staged");
    assert_eq!(staged.decisions, None);
    let keys: Vec<_> = entries.iter().map(|entry| row_key(entry)).collect();
    let begun = ledger.rows.get_many(&keys).await.expect("read").len();
    assert!(0 < begun && begun < 600, "{begun} rows are staged");
    let staged = ledger.stage_all(&entries, &staging("r1"), &mut guesses, || false).await;
    assert_eq!(staged.expect("staged").decisions.expect("in time").len(), 600);
    // Each call has a time of its own, as functions have.
    let now = jiff::Timestamp::now();
    let finish_at = |now: jiff::Timestamp| {
        let entries = &entries;
        move |at: usize, row: Option<&Row>| {
            let completed = complete(row.expect("staged"), entries[at], &claim("r1"), "s3://b/k".into(), now);
            Ok::<_, storage::LedgerError>(completed.expect("its own"))
        }
    };
    let guess = |at: usize| Some(as_staged_first(entries[at], &claim("r1"), staging("r1").seen_at));
    let mut guesses = Guesses::default();
    let first = ledger.change_all(&entries, &mut guesses, guess, finish_at(now), second_look()).await.expect("changed");
    assert!(!first.all && first.rows > 0 && first.rows < 600, "{first:?}");
    let rest =
        ledger.change_all(&entries, &mut guesses, guess, finish_at(now + jiff::SignedDuration::from_secs(1)), || false);
    assert_eq!(rest.await.expect("changed"), Changed { rows: 600 - first.rows, all: true });
    let rows = ledger.rows.get_many(&keys).await.expect("read");
    assert!(rows.values().all(|row| row.revision == 2 && row.claim.is_none()), "two writes a row");
    bench.wipe().await;
}
