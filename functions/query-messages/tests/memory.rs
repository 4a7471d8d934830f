//! What a drain holds at once. In a process of its own, because the peak of a process is measured.

#![cfg(target_os = "linux")]

use memory_cloud::{
    Cloud,
    given::{day, task},
};
use query_messages::{Deps, handle};
use serde_json::json;
use std::fs;

/// History of each message, in 5 documents.
const HISTORY: usize = 500 << 10;
const MESSAGES: usize = 320;
/// The node in memory makes three copies of an answer.
const ALLOWED: usize = 90 << 20;

/// Bytes that the process has held at once, at most.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<usize>().ok()).expect("a number") << 10
}

#[tokio::test]
async fn large_histories_are_held_a_few_messages_at_a_time() {
    let cloud = Cloud::default();
    let details = "history ".repeat(HISTORY / 5 / 8);
    for n in 0..MESSAGES {
        let id = format!("m{n}");
        cloud.put_message(&id, "2024-07-01T05:00:00Z", "closed");
        for part in 0..5 {
            let history = json!({"message_id": id, "timestamp": "2024-07-01T01:00:00Z", "details": details});
            cloud.node.put("history", &format!("{id}-{part}"), &history.to_string());
        }
    }
    cloud.given_window(&day(0), |planned| planned).await;
    let deps = Deps {
        sources: cloud.sources(),
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        rules: Default::default(),
    };
    let before = peak();
    handle(&deps, task(day(0), None), cloud.call()).await.expect("drained");
    let more = peak() - before;
    assert!(more < ALLOWED, "{} MiB more than before", more >> 20);
}
