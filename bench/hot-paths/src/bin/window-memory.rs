//! How much memory a step takes for a window of some size, beyond that of the services in memory, which are there
//! before. What the step stores is dropped as soon as it is stored and looked at, so that the store does not grow.

use alerts::window::plan::Window;
use async_trait::async_trait;
use clap::{Parser, ValueEnum};
use fixtures::{Spec, Wording};
use memory_cloud::{
    BUCKET, Cloud,
    given::{day, task},
};
use network::{Answer, Network, Request};
use serde_json::json;
use std::{fs, sync::Arc};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Step {
    QueryMessages,
    WritePartitions,
}

#[derive(Parser)]
#[command(
    about = "Measures the memory of a step for a window of some size",
    after_help = "Example: window-memory query-messages --megabytes 300"
)]
struct Cli {
    step: Step,
    /// What the window's messages come to.
    #[arg(long, default_value_t = 30)]
    megabytes: u64,
    /// Messages of 25 KB that each document holds: with few large ones, rows of the ledger in memory weigh nothing.
    #[arg(long, default_value_t = 10)]
    texts: usize,
    /// Parquet is packed for cold storage.
    #[arg(long)]
    cold: bool,
}

/// Drops an object when it is stored (`PutObject`), or when it was looked at (`HeadObject`).
struct Forgets {
    cloud: Cloud,
    operation: &'static str,
    prefix: &'static str,
    part: &'static str,
}

#[async_trait]
impl Network for Forgets {
    async fn answered(&self, request: &Request) -> Answer {
        if let Some(key) = request.subject.strip_prefix(&format!("{BUCKET}/"))
            && request.operation == self.operation
            && key.starts_with(self.prefix)
            && key.contains(self.part)
        {
            self.cloud.store.expire(BUCKET, key);
        }
        Answer::Arrives
    }
}

/// A figure of /proc/self/status, in bytes.
fn figure(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}

/// Closed messages over one day; returns their bytes.
fn fill(cloud: &Cloud, megabytes: u64, texts: usize) -> u64 {
    let spec = Spec { count: 200, wording: Wording::Wide, ..Spec::default() };
    let bodies: Vec<String> = fixtures::generate(&spec)
        .map(|message| String::from_utf8(message.document.source).expect("the generator writes UTF-8"))
        .collect();
    let (mut bytes, mut n) = (0, 0);
    while bytes < megabytes * 1_000_000 {
        let at = day(0).from + jiff::SignedDuration::from_millis(n as i64 * 300);
        let texts: Vec<&str> = (0..texts).map(|text| bodies[(n * 7 + text) % bodies.len()].as_str()).collect();
        let id = format!("m{n:06}");
        let alerts = [json!({"alert_id": "a", "status": "closed"})];
        let body = json!({"message_id": id, "timestamp": at, "alerts": alerts, "texts": texts}).to_string();
        cloud.node.put("messages", &id, &body);
        bytes += body.len() as u64;
        n += 1;
    }
    bytes
}

async fn query(cloud: &Cloud) {
    let deps = query_messages::Deps {
        sources: cloud.sources(),
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        rules: Default::default(),
    };
    query_messages::handle(&deps, task(day(0), None), cloud.call()).await.expect("drained");
}

async fn classify(cloud: &Cloud) {
    let deps = classify_alerts::Deps { objects: cloud.objects(), windows: cloud.windows(), ledger: cloud.tracking() };
    classify_alerts::handle(&deps, task(day(0), Some(1)), cloud.call()).await.expect("classified");
}

async fn write(cloud: &Cloud, cold_storage: bool) {
    let deps = write_partitions::Deps {
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        ledger: cloud.tracking(),
        jsonl: false,
        message_json: false,
        cold_storage,
    };
    write_partitions::handle(&deps, task(day(0), Some(1)), cloud.call()).await.expect("written");
}

#[tokio::main]
async fn main() {
    let Cli { step, megabytes, texts, cold } = Cli::parse();
    let cloud = Cloud::default();
    let bytes = fill(&cloud, megabytes, texts);
    let window: Window = day(0);
    cloud.given_window(&window, |planned| planned).await;
    if step == Step::WritePartitions {
        query(&cloud).await;
        classify(&cloud).await;
    }
    // The peak counts from here on.
    fs::write("/proc/self/clear_refs", "5").expect("a peak that begins anew");
    let before = figure("VmRSS:");
    match step {
        Step::QueryMessages => {
            let forgets = Forgets { cloud: cloud.clone(), operation: "PutObject", prefix: "spool/", part: "/records-" };
            query(&cloud.through(Arc::new(forgets))).await;
        }
        Step::WritePartitions => {
            let forgets =
                Forgets { cloud: cloud.clone(), operation: "HeadObject", prefix: "archive/parquet/", part: "" };
            write(&cloud.through(Arc::new(forgets)), cold).await;
        }
    }
    println!("{}", json!({"source_bytes": bytes, "peak_bytes": figure("VmHWM:") - before, "before_bytes": before}));
}
