//! The function over a cloud in memory.

use events::sqs::Batch;
use extract_log_errors::{Deps, handle};
use flate2::{Compression, write::GzEncoder};
use log_entries::{ENTRIES, EntryRow, LogObject, Occurrence, Sightings, read};
use logs::LIMITS;
use network::{Calm, Network};
use runtime::{Call, ManualClock};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use storage::{MemoryObjects, MemoryTables, Objects, Table};

/// Kinds of errors that are noted of one object.
pub const KINDS: usize = 500;
pub const KEY: &str = "shop/2024/07/01/app.gz";

pub struct Cloud {
    pub objects: MemoryObjects,
    pub tables: MemoryTables,
    pub clock: Arc<ManualClock>,
}

impl Cloud {
    pub fn new() -> Self {
        Cloud {
            objects: MemoryObjects::new(Calm::shared()).bucket("archive").bucket_with_versions("logs"),
            tables: MemoryTables::new(Calm::shared()).table("objects", "object", None).table(
                "errors",
                "fingerprint",
                Some("object"),
            ),
            clock: ManualClock::at("2026-11-21T12:00:00Z".parse().expect("an instant")),
        }
    }

    /// The same, so far: what one does from here on, the other does not see. Its clock begins anew.
    pub fn copied(&self) -> Self {
        Cloud { objects: self.objects.copied(), tables: self.tables.copied(), ..Cloud::new() }
    }

    pub fn deps(&self, network: Arc<dyn Network>) -> Deps {
        Deps {
            logs: Objects::over(self.objects.through(network.clone()), "logs"),
            archive: Objects::over(self.objects.through(network.clone()), "archive"),
            objects: Table::over(self.tables.through(network.clone()), "objects"),
            occurrences: Table::over(self.tables.through(network.clone()), "errors"),
            sightings: Table::over(self.tables.through(network), "errors"),
            limits: LIMITS,
            kinds: KINDS,
        }
    }

    /// Puts a version of the log, and returns the event on it.
    pub async fn put(&self, key: &str, text: &str, sequencer: &str) -> Value {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).expect("memory");
        let body = encoder.finish().expect("memory");
        let logs = Objects::over(self.objects.clone(), "logs");
        logs.put(key, body, "application/gzip").await.expect("stored");
        let version = logs.open(key, None).await.expect("stored").version().map(str::to_owned);
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2026-11-21T12:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "logs"}, "object": {"key": key, "size": 1, "sequencer": sequencer, "versionId": version}},
        })
    }

    /// One call with a message for each event; how many failed.
    pub async fn deliver(&self, network: Arc<dyn Network>, events: &[Value]) -> usize {
        let messages: Vec<&[Value]> = events.chunks(1).collect();
        self.deliver_messages(network, &messages).await
    }

    /// One call with these messages, each of some events; how many failed.
    pub async fn deliver_messages(&self, network: Arc<dyn Network>, messages: &[&[Value]]) -> usize {
        let message = |events: &&[Value]| {
            let body = json!({"Records": events}).to_string();
            json!({"messageId": body, "body": body})
        };
        let batch: Batch = serde_json::from_value(json!({"Records": messages.iter().map(message).collect::<Vec<_>>()}))
            .expect("a batch");
        let call = Call::new(self.clock.clone(), Duration::from_secs(900));
        let deps = self.deps(network);
        let mut work = std::pin::pin!(handle(&deps, batch, call));
        let done = loop {
            // Requests are done at once here: who waits sleeps.
            tokio::select! {
                biased;
                done = &mut work => break done,
                () = tokio::task::yield_now() => self.clock.advance(Duration::from_secs(1)),
            }
        };
        match done {
            Ok(response) => response.batch_item_failures.len(),
            Err(_) => messages.len(),
        }
    }

    pub fn rows(&self) -> Vec<EntryRow> {
        let contents = self.objects.contents("archive");
        let parts = contents.iter().filter(|(key, _)| key.starts_with(ENTRIES));
        let mut rows: Vec<EntryRow> = parts.flat_map(|(_, body)| read(body.clone()).expect("entries")).collect();
        rows.sort_by_key(|row| (row.object.clone(), row.line));
        rows
    }

    pub async fn counted(&self) -> u64 {
        let errors: Table<Occurrence> = Table::over(self.tables.clone(), "errors");
        let rows = errors.scan().await.expect("rows").rows;
        rows.iter().filter_map(|row| row.contribution.as_ref()).map(|contribution| contribution.count).sum()
    }

    pub async fn sightings(&self) -> Vec<Sightings> {
        let errors: Table<Sightings> = Table::over(self.tables.clone(), "errors");
        errors.scan().await.expect("rows").rows
    }

    pub async fn row(&self) -> LogObject {
        let objects: Table<LogObject> = Table::over(self.tables.clone(), "objects");
        objects.get(KEY, None).await.expect("a row").expect("a row")
    }
}

pub fn log(errors: std::ops::Range<u32>) -> String {
    let line =
        |n: u32| format!("2024-07-0{}T10:00:00Z ERROR order {n} failed\n2024-07-01T10:00:01Z INFO fine\n", n % 3 + 1);
    errors.map(line).collect()
}

pub fn lines(cloud: &Cloud) -> Vec<u64> {
    cloud.rows().iter().map(|row| row.line).collect()
}
