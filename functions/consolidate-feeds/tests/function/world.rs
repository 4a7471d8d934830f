//! The function with its stores in memory, and what a reader of the feeds' bucket sees.

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use consolidate_feeds::{Deps, Limits, Partners, Report, handle, work};
use feeds::{Format, Rules};
use jiff::{SignedDuration, Timestamp};
use network::{Calm, Network};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use runtime::{Call, Clock};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use storage::{MemoryObjects, MemoryTables, Objects, Table};

pub const SOURCE: &str = "source";
pub const FEEDS: &str = "feeds";
pub const ARCHIVE: &str = "archive";

/// What Lambda allows a call.
pub const ALLOWED: Duration = Duration::from_secs(90);

/// How often the clock may be looked at since a call began; the tests come to a tenth of it. A call that goes round and
/// round looks more often, and no time ends it, because the clock stands still.
const LOOKS: u64 = 10_000;

/// Time passes when a test says so, and while a function sleeps.
#[derive(Default)]
pub struct TestClock {
    time: Mutex<Duration>,
    looks: AtomicU64,
}

impl TestClock {
    pub fn passed(&self) -> Duration {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn advance(&self, time: Duration) {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let began: Timestamp = "2026-11-22T06:00:00Z".parse().expect("an instant");
        began + SignedDuration::try_from(self.elapsed()).expect("not so long")
    }

    fn elapsed(&self) -> Duration {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        assert!(looks < LOOKS, "a call has looked at the clock {looks} times and does not end");
        self.passed()
    }

    async fn sleep(&self, time: Duration) {
        self.advance(time);
        tokio::task::yield_now().await;
    }
}

#[derive(Clone)]
pub struct World {
    pub objects: MemoryObjects,
    pub tables: MemoryTables,
    pub limits: Limits,
    pub format: Format,
    pub clock: Arc<TestClock>,
}

impl World {
    pub fn new() -> Self {
        // Shown when a test fails.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let objects = MemoryObjects::new(Calm::shared());
        let objects = objects.bucket_with_versions(SOURCE).bucket_with_versions(FEEDS).bucket_with_versions(ARCHIVE);
        let tables = MemoryTables::new(Calm::shared());
        let tables = tables.table("files", "object", Some("version")).table("batches", "batch", None);
        let tables = tables.table("partners", "content_type", None);
        World {
            objects,
            tables,
            limits: Limits { patience: Duration::ZERO, ..Limits::default() },
            format: Format::Plain,
            clock: Arc::default(),
        }
    }

    /// Every lease is over.
    pub fn a_minute_later(&self) {
        self.clock.advance(Duration::from_secs(60));
    }

    /// A call of which so much time has passed already.
    fn call(&self, spent: Duration) -> Call {
        self.clock.looks.store(0, Ordering::Relaxed);
        let call = Call::new(self.clock.clone(), ALLOWED);
        self.clock.advance(spent);
        call
    }

    /// As an operator writes it, over what stands there.
    pub async fn partners(&self, content_type: &str, priority: &[&str], blocked: &[&str]) {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let (priority_partners, blocked_partners) = (owned(priority), owned(blocked));
        let rules = Rules { content_type: content_type.to_owned(), priority_partners, blocked_partners };
        self.tables.plant("partners", serde_dynamo::to_item(rules).expect("an item"));
    }

    /// Puts a file, and returns the record of its event.
    pub async fn put(&self, key: &str, body: impl Into<Bytes>) -> Value {
        let body = body.into();
        let source = Objects::over(self.objects.clone(), SOURCE);
        source.put(key, body.clone(), "application/x-ndjson").await.expect("written");
        let reader = source.open(key, None).await.expect("it is there");
        event(key, body.len(), reader.version(), reader.tag())
    }

    pub fn deps(&self, network: Arc<dyn Network>) -> Deps {
        let (objects, tables) = (self.objects.through(network.clone()), self.tables.through(network));
        Deps {
            source: Objects::over(objects.clone(), SOURCE),
            feeds: Objects::over(objects.clone(), FEEDS),
            archive: Objects::over(objects, ARCHIVE),
            files: Table::over(tables.clone(), "files"),
            batches: Table::over(tables.clone(), "batches"),
            numbers: Table::over(tables.clone(), "batches"),
            partners: Partners::new(Table::over(tables, "partners")),
            format: self.format,
            limits: self.limits,
        }
    }

    /// Delivers messages, each with these records; returns the positions of those that failed.
    pub async fn deliver(&self, messages: &[&[Value]]) -> Vec<usize> {
        self.deliver_through(Calm::shared(), messages).await
    }

    pub async fn deliver_through(&self, network: Arc<dyn Network>, messages: &[&[Value]]) -> Vec<usize> {
        let bodies: Vec<String> = messages.iter().map(|records| json!({"Records": records}).to_string()).collect();
        self.deliver_bodies(network, &bodies, Duration::ZERO).await
    }

    pub async fn deliver_bodies(&self, network: Arc<dyn Network>, bodies: &[String], spent: Duration) -> Vec<usize> {
        let response = handle(&self.deps(network), batch(bodies), self.call(spent)).await.expect("a response");
        let response = serde_json::to_value(response).expect("JSON");
        let failures = response["batchItemFailures"].as_array().expect("a list");
        let id = |failure: &Value| failure["itemIdentifier"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        failures.iter().map(id).collect()
    }

    /// Delivers messages to a function that has these dependencies, and returns what it says of them.
    pub async fn report(&self, deps: &Deps, bodies: &[String]) -> Report {
        work(deps, &batch(bodies), &self.call(Duration::ZERO)).await
    }

    /// What a reader of the bucket sees, by key.
    pub fn outputs(&self) -> BTreeMap<String, Bytes> {
        let mut contents = self.objects.contents(FEEDS);
        contents.retain(|key, _| !key.starts_with("quarantine/"));
        contents
    }

    /// All records, in the order of the outputs' numbers.
    pub fn records(&self) -> Vec<String> {
        let mut outputs: Vec<_> = self.outputs().into_iter().collect();
        outputs.sort_by_key(|(key, _)| number(key));
        let text: String = outputs.iter().map(|(_, body)| std::str::from_utf8(body).expect("UTF-8")).collect();
        text.split_terminator('\n').map(str::to_owned).collect()
    }

    /// Quarantined lines: object, line, reason, bytes.
    pub fn quarantined(&self) -> Vec<(String, u64, String, Vec<u8>)> {
        let mut lines = Vec::new();
        for (key, body) in self.objects.contents(FEEDS) {
            if key.starts_with("quarantine/") {
                for line in body.split_inclusive(|byte| *byte == b'\n') {
                    let line: Value = serde_json::from_slice(line).expect("JSON");
                    let text = |name: &str| line[name].as_str().expect("text").to_owned();
                    let source = BASE64_STANDARD.decode(text("source_base64")).expect("base64");
                    lines.push((text("object"), line["line"].as_u64().expect("a number"), text("reason"), source));
                }
            }
        }
        lines.sort();
        lines
    }
}

fn batch(bodies: &[String]) -> events::sqs::Batch {
    let message =
        |(at, body): (usize, &String)| json!({"messageId": at.to_string(), "body": body, "eventSource": "aws:sqs"});
    let messages: Vec<Value> = bodies.iter().enumerate().map(message).collect();
    serde_json::from_value(json!({"Records": messages})).expect("a batch")
}

pub fn number(key: &str) -> u64 {
    feeds::pack::number_of(key).expect("an output's key")
}

pub fn event(key: &str, bytes: usize, version: Option<&str>, tag: &str) -> Value {
    let encoded = utf8_percent_encode(key, NON_ALPHANUMERIC).to_string().replace("%20", "+");
    let mut object = json!({"key": encoded, "size": bytes, "eTag": tag.trim_matches('"'), "sequencer": "0055AE"});
    if let Some(version) = version {
        object["versionId"] = version.into();
    }
    json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventTime": "2026-11-21T23:59:59.999Z",
        "s3": {"bucket": {"name": SOURCE}, "object": object},
    })
}

/// `count` records of a file, each telling where it comes from.
pub fn lines(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{{\"file\":\"{name}\", \"at\":{at}}}")).collect()
}
