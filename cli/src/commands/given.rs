//! An archive that tests of the commands begin from.

use crate::archive::Archive;
use alerts::{
    commit::manifest::{Manifest, WrittenObject},
    counts::{Bytes as Sizes, Messages},
    keys::{manifest_key, parquet_key},
    message::{
        classification::{Rules, classify},
        document,
        tracking::{Archived, restored},
    },
    run::job_run::{JobRun, RunStatus},
    window::{record::WindowRecord, spool::Record},
};
use columnar::{ObjectWriter, Origin};
use identity::Identity;
use jiff::Timestamp;
use memory_cloud::{
    Cloud, MACHINE,
    given::{RUN, day},
};
use network::Network;
use runtime::Clock;
use serde_json::{Value, json};
use sources::{Indices, OpenSearch};
use std::sync::Arc;

pub const IDS: [&str; 4] = ["a", "b", "c", "d"];

/// What stands beside each of them.
const EVENT: &str = r#"{"event": "opened"}"#;

/// A message as the source has it; odd spaces and numbers, because bytes are compared.
pub fn body(id: &str) -> String {
    format!(r#"{{"message_id":"{id}",  "timestamp":"2024-07-01T10:00:00Z","n":1.0,"alerts":[]}}"#)
}

pub struct World {
    pub cloud: Cloud,
    pub archive: Archive,
    pub key: String,
}

impl World {
    /// The source behind a network.
    pub fn source(&self, network: Arc<dyn Network>) -> OpenSearch {
        let name = |name: &str| name.to_owned();
        let indices = Indices { messages: name("messages"), history: name("history"), audit: name("audit") };
        OpenSearch::over(self.cloud.node.through(network), indices)
    }
}

pub fn archive_over(cloud: &Cloud) -> Archive {
    Archive {
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        ledger: cloud.tracking(),
        workflow: cloud.workflow(),
        aws: aws_config::SdkConfig::builder().build(),
        state_machine_arn: MACHINE.to_owned(),
        source_url: None,
    }
}

/// Four messages in the source and in one object of the archive, as a completed run leaves them.
pub async fn given() -> World {
    let cloud = Cloud::default();
    let archive = archive_over(&cloud);
    let (window, now) = (day(0), cloud.clock.now());
    let key = parquet_key("2024-07-01", &window.window_id, RUN, 0);
    let mut writer = ObjectWriter::new(Origin { run_id: RUN.into(), archived_at: now }).expect("a writer");
    for id in IDS {
        let body = body(id);
        cloud.node.put("messages", id, &body);
        let version = document::version(body.as_bytes());
        let at: Timestamp = "2024-07-01T10:00:00Z".parse().expect("an instant");
        let outcome = classify(&Rules::default(), id, body.as_bytes());
        let mut entry = json!({"index": "messages", "id": id, "at": at, "version": version, "bytes": body.len()});
        let Value::Object(more) = json!(outcome) else { panic!("an outcome is an object") };
        entry.as_object_mut().expect("an object").extend(more);
        let record = Record { message: body.into_bytes(), history: vec![EVENT.as_bytes().to_vec()], audit: Vec::new() };
        writer.push(&serde_json::from_value(entry).expect("an entry"), record).expect("a row");
        let (related, related_bytes) = (document::related(&[EVENT], &[""; 0]), EVENT.len() as u64);
        let (document, run_id) = (Identity::new("messages", id), RUN.to_owned());
        let facts = Archived { document, timestamp: at, version, related, related_bytes, run_id, no_alerts: true };
        let row = restored(None, facts, archive.objects.uri(&key), now);
        assert!(archive.ledger.rows.put(&row).await.expect("written"));
    }
    let object = writer.finish().expect("an object");
    let (size, sha256) = (object.len() as u64, storage::sha256_hex(&object));
    archive.objects.put(&key, object, "application/vnd.apache.parquet").await.expect("written");
    let messages = Messages { source: 4, archived: 4, ..Messages::default() };
    let commit = manifest_key(&window.window_id, RUN, 1);
    let manifest = Manifest {
        v: 1,
        run_id: RUN.into(),
        window_id: window.window_id.clone(),
        attempt: 1,
        committed_at: now,
        source: 4,
        counts: messages,
        objects: vec![WrittenObject { key: key.clone(), rows: 4, bytes: size, sha256 }],
    };
    archive.objects.put_json(&commit, &manifest).await.expect("written");
    cloud.given_run("range").await;
    let end = |run: &mut JobRun| run.end(RunStatus::Completed, now);
    archive.job_runs.change(RUN, end).await.expect("changed");
    let done = |planned: WindowRecord| planned.complete(None, messages, Sizes::default(), Some(commit.clone()), now);
    cloud.given_window(&window, done).await;
    World { cloud, archive, key }
}
