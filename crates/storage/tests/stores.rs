//! The stores against the local cloud (AWS_ENDPOINT_URL; `make test` starts it), under keys of their own.

use alerts::{
    classification::{Disposition, Outcome},
    instant,
    ledger::{Claim, Row, stage},
    spool::Entry,
};
use aws_sdk_dynamodb::{
    Client,
    types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType},
};
use bytes::Bytes;
use errors::Named;
use storage::{Ledger, Objects, PutOnce, row_key, stage_all};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use `make test`, or eval \"$(make -s env)\" after `make up`"))
}

async fn objects() -> Objects {
    Objects::new(&runtime::aws_config().await, variable("ALERT_ARCHIVE_BUCKET"))
}

/// A table of its own for each test, so that no run of the archive meets its rows.
struct Bench {
    client: Client,
    name: String,
    ledger: Ledger,
}

impl Bench {
    async fn new(name: &str) -> Self {
        let config = runtime::aws_config().await;
        let (client, name) = (Client::new(&config), unique(name));
        let attribute =
            |name: &str| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build().expect("attribute");
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("key");
        let create = client.create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
        let create = create.attribute_definitions(attribute("message_id")).attribute_definitions(attribute("source_index"));
        let create = create.key_schema(key("message_id", KeyType::Hash)).key_schema(key("source_index", KeyType::Range));
        create.send().await.expect("AWS_ENDPOINT_URL names the local cloud: use `make test`");
        let ledger = Ledger::new(&config, name.clone());
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
    Entry { index: "messages".into(), id: id.into(), at: instant::parse("1999-01-01").expect("instant"), version: version.into(), bytes: 1, outcome }
}

fn claim(run: &str) -> Claim {
    Claim { run_id: run.into(), window_id: "w".into() }
}

#[tokio::test]
async fn a_key_is_created_once_and_one_s_own_success_is_recognised() {
    let (objects, key) = (objects().await, format!("spool/{}", unique("once")));
    let body = Bytes::from_static(b"first");
    assert_eq!(objects.put_once(&key, body.clone(), "text/plain").await.expect("written"), PutOnce::Created);
    // What a retry after a lost answer sees: 412, and one's own bytes.
    assert_eq!(objects.put_once(&key, body, "text/plain").await.expect("recognised"), PutOnce::Created);
    let other = objects.put_once(&key, Bytes::from_static(b"second"), "text/plain").await.expect("refused");
    assert!(matches!(other, PutOnce::Exists(head) if head.bytes == 5));
    assert_eq!(objects.get(&key).await.expect("object"), "first");
}

#[tokio::test]
async fn an_object_is_replaced_only_as_it_was_read() {
    let (objects, key) = (objects().await, format!("spool/{}", unique("replace")));
    objects.put(&key, Bytes::from_static(b"one"), "text/plain").await.expect("written");
    let (_, tag) = objects.find_versioned(&key).await.expect("found").expect("there");
    assert!(objects.replace(&key, Bytes::from_static(b"two"), "text/plain", &tag).await.expect("replaced"));
    assert!(!objects.replace(&key, Bytes::from_static(b"three"), "text/plain", &tag).await.expect("refused"));
    assert_eq!(objects.get(&key).await.expect("object"), "two");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let objects = objects().await;
    assert_eq!(objects.get("spool/adapter-no-such-object").await.expect_err("missing").name(), "ObjectMissing");
    assert_eq!(objects.head("spool/adapter-no-such-object").await.expect("no error"), None);
    let nowhere = Objects::new(&runtime::aws_config().await, "alert-archive-no-such-bucket".into());
    assert_eq!(nowhere.get("x").await.expect_err("missing").name(), "BucketMissing");
    let nowhere: Ledger = Ledger::new(&runtime::aws_config().await, "alert-archive-no-such-table".into());
    assert_eq!(nowhere.get("x", Some("y")).await.expect_err("missing").name(), "TableMissing");
}

#[tokio::test]
async fn of_twenty_writers_that_read_the_same_row_one_wins() {
    let (bench, id) = (Bench::new("race").await, unique("race"));
    let ledger = bench.ledger.clone();
    let row = stage(None, &entry(&id, "v1"), &claim("r1"), jiff::Timestamp::now()).row.expect("row");
    assert!(ledger.put(&row).await.expect("written"));
    let writers: Vec<_> = (0..20)
        .map(|n| {
            let (ledger, mut row) = (ledger.clone(), row.clone());
            row.revision += 1;
            row.version = format!("writer-{n}");
            tokio::spawn(async move { ledger.put(&row).await.expect("answered") })
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
    let now = jiff::Timestamp::now();
    let decisions = stage_all(&ledger, &entries, &claim("r1"), now).await.expect("staged");
    assert_eq!(decisions.len(), 250);
    let keys: Vec<_> = entries.iter().map(|entry| row_key(entry)).collect();
    assert_eq!(ledger.get_many(&keys).await.expect("read").len(), 250);
    let raise = |_: &Entry, row: Option<&Row>| {
        let mut next = row.expect("staged").clone();
        next.revision += 1;
        Ok::<_, storage::LedgerError>(Some(next))
    };
    ledger.change_all(&entries, raise).await.expect("changed");
    let rows = ledger.get_many(&keys).await.expect("read");
    assert!(rows.values().all(|row| row.revision == 2));
    bench.wipe().await;
}
