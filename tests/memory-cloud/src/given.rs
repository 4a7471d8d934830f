//! States of the archive that a test begins from, as the functions leave them.

use crate::{BUCKET, Cloud, MACHINE};
use alerts::{
    keys::{checkpoint_key, index_key, records_key, spool_prefix},
    message::{
        classification::{Rules, classify},
        document,
        entry::Entry,
    },
    mode::Mode,
    run::{job_run::JobRun, payloads::WindowTask},
    window::{
        plan::Window,
        record::WindowRecord,
        spool::{Record, Summary},
    },
};
use jiff::{SignedDuration, Timestamp};
use runtime::Clock;
use serde_json::{Value, json};

pub const RUN: &str = "r1";

/// The range of [`RUN`]: 2024-07-01 to 2024-07-04.
pub fn from() -> Timestamp {
    "2024-07-01T00:00:00Z".parse().expect("an instant")
}

pub fn to() -> Timestamp {
    from() + SignedDuration::from_hours(72)
}

/// The `n`-th day of the range, from 0.
pub fn day(n: i64) -> Window {
    let begin = from() + SignedDuration::from_hours(24 * n);
    Window::new(begin, begin + SignedDuration::from_hours(24), 1)
}

pub fn arn(run_id: &str) -> String {
    format!("{}:{run_id}", MACHINE.replace(":stateMachine:", ":execution:"))
}

pub fn task(window: Window, attempt: Option<u64>) -> WindowTask {
    let task = json!({"v": 1, "run_id": RUN, "mode": Mode::Range, "window": window, "attempt": attempt});
    serde_json::from_value(task).expect("a task")
}

/// A closed message with one alert.
pub fn message(id: &str, status: &str) -> String {
    json!({"message_id": id, "timestamp": "2024-07-01T10:00:00Z", "alerts": [{"alert_id": "a", "status": status}]})
        .to_string()
}

impl Cloud {
    /// A running execution and its row in `job-runs`.
    pub async fn given_run(&self, mode: &str) {
        self.start(RUN, &json!({"mode": mode})).await;
        let now = self.clock.now();
        let run: JobRun = serde_json::from_value(json!({
            "run_id": RUN, "mode": mode, "status": "Running", "from": from(), "to": to(), "created_at": now,
            "updated_at": now, "execution_arn": arn(RUN), "attempt": 1, "planned": 3, "undated": 0, "revision": 1,
        }))
        .expect("a run");
        assert!(self.job_runs().runs.put(&run).await.expect("written"), "the run is there already");
    }

    /// A planned window, changed as a step would have changed it.
    pub async fn given_window(&self, window: &Window, change: impl FnOnce(WindowRecord) -> WindowRecord) {
        let planned = WindowRecord::planned(RUN, Mode::Range, window.clone(), self.clock.now());
        let record = WindowRecord { revision: 1, ..change(planned) };
        assert!(self.windows().rows.put(&record).await.expect("written"), "the window is there already");
    }

    /// The spool of an attempt on a window, with these messages by id and body in one pair, and the window's row.
    pub async fn given_spool(&self, window: &Window, messages: &[(&str, &str)]) {
        let now = self.clock.now();
        self.given_window(window, |planned| planned.begin("query-messages", now).0).await;
        let (objects, prefix) = (self.objects(), spool_prefix(RUN, &window.window_id, 1));
        let (mut entries, mut records) = (Vec::new(), Vec::new());
        for (id, body) in messages {
            let outcome = classify(&Rules::default(), id, body.as_bytes());
            let (version, bytes) = (document::version(body.as_bytes()), body.len() as u64);
            let (index, id) = ("messages".to_owned(), (*id).to_owned());
            let at = window.from + SignedDuration::from_hours(10);
            let entry = json!({"index": index, "id": id, "at": at, "version": version, "bytes": bytes});
            let entry: Entry = serde_json::from_value(merged(entry, json!(outcome))).expect("an entry");
            entries.push(entry);
            Record::encode(body.as_bytes(), &[b"{\"event\":\"opened\"}"], &[b"{}"], &mut records).expect("encoded");
        }
        let compressed = zstd::encode_all(records.as_slice(), 1).expect("compressed");
        objects.put(&records_key(&prefix, 0), compressed, "application/zstd").await.expect("written");
        objects.put_lines(&index_key(&prefix, 0), &entries).await.expect("written");
        let bytes = entries.iter().map(|entry| entry.bytes).sum();
        let documents = entries.len() as u64;
        let summary = Summary { pairs: 1, documents, bytes, seen_at: now, done: true, ..Summary::default() };
        objects.put_json(&checkpoint_key(&prefix), &summary).await.expect("written");
    }

    /// The list of windows of [`RUN`] under a key.
    pub async fn given_list(&self, key: &str, windows: &[Window]) {
        let lines: String = windows.iter().map(|window| format!("{}\n", json!(window))).collect();
        self.objects().put(key, lines.into_bytes(), "application/jsonl").await.expect("written");
    }

    /// The bytes of an object.
    pub fn object(&self, key: &str) -> bytes::Bytes {
        self.store.contents(BUCKET).remove(key).unwrap_or_else(|| panic!("there is no {key}"))
    }
}

fn merged(mut left: Value, right: Value) -> Value {
    if let (Some(left), Value::Object(right)) = (left.as_object_mut(), right) {
        left.extend(right);
    }
    left
}
