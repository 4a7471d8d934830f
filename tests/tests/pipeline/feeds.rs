//! Partner feeds, as deployed: files are put into the source bucket, and what lies in the feeds' bucket in the end is
//! held against what was put.

use crate::tests;
use anyhow::{Context, Result, bail, ensure};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use aws_sdk_sqs::types::QueueAttributeName;
use bytes::Bytes;
use fixtures::feeds::{
    BucketContents, CONTENT_TYPES, Change, Expectation, FeedFile, FeedsSpec, Treatment, UNKNOWN_TYPE,
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{Timestamp, tz::TimeZone};
use pipeline_tests::{
    Cloud,
    faults::{KILL_AFTER, KILL_BEFORE, fault, s3},
    functions::{put_proxy_before, take_proxy_away},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    time::{Duration, Instant},
};

tests![
    five_thousand_files_come_out_once_and_poison_is_replayed_when_its_cause_is_gone,
    functions_that_are_killed_again_and_again_lose_double_and_reorder_nothing,
    events_delivered_again_in_one_message_and_to_several_functions_at_once_change_nothing,
    a_large_file_passes_in_little_memory,
];

const FUNCTION: &str = "consolidate-feeds";
/// Without any progress for so long, a test is over.
const PATIENCE: Duration = Duration::from_secs(180);
/// Of one call, as deployed.
const RECEIVES: u32 = 10;

/// The deployed feeds.
struct Feeds<'a> {
    cloud: &'a Cloud,
    sqs: aws_sdk_sqs::Client,
    source: String,
    bucket: String,
    queue: String,
    partners: String,
    /// What earlier tests left in the counts.
    before: Status,
    files: BTreeMap<u64, FeedFile>,
    began: Timestamp,
}

/// What `alert-archive feeds status --json` says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Status {
    objects: u64,
    records: u64,
    bytes: u64,
    quarantined: u64,
    blocked: u64,
    outputs: u64,
    waiting: u64,
    failed: u64,
}

impl<'a> Feeds<'a> {
    /// With empty buckets and nothing in the queues, and a message comes again after so many seconds.
    async fn begin(cloud: &'a Cloud, visibility: u32) -> Result<Self> {
        let variable = |name: &str| env::var(name).with_context(|| name.to_owned());
        let mut feeds = Feeds {
            cloud,
            sqs: aws_sdk_sqs::Client::new(&runtime::aws_config().await),
            source: variable("ALERT_ARCHIVE_FEEDS_SOURCE_BUCKET")?,
            bucket: variable("ALERT_ARCHIVE_FEEDS_BUCKET")?,
            queue: variable("ALERT_ARCHIVE_FEEDS_QUEUE_URL")?,
            partners: variable("ALERT_ARCHIVE_FEEDS_PARTNERS_TABLE")?,
            before: Status::default(),
            files: BTreeMap::new(),
            began: Timestamp::now(),
        };
        feeds.set_visibility(visibility).await?;
        for bucket in [&feeds.source, &feeds.bucket] {
            feeds.empty(bucket).await?;
        }
        for queue in [feeds.queue.clone(), variable("ALERT_ARCHIVE_FEEDS_DLQ_URL")?] {
            feeds.sqs.purge_queue().queue_url(queue).send().await?;
        }
        fixtures::feeds::put_partners(&cloud.dynamodb, &feeds.partners).await?;
        feeds.before = feeds.status().await?;
        Ok(feeds)
    }

    async fn set_visibility(&self, seconds: u32) -> Result<()> {
        let set = self.sqs.set_queue_attributes().queue_url(&self.queue);
        set.attributes(QueueAttributeName::VisibilityTimeout, seconds.to_string()).send().await?;
        Ok(())
    }

    async fn empty(&self, bucket: &str) -> Result<()> {
        for keys in self.keys(bucket).await?.chunks(1000) {
            let objects = keys.iter().map(|key| ObjectIdentifier::builder().key(key).build());
            let objects =
                Delete::builder().set_objects(Some(objects.collect::<Result<_, _>>()?)).quiet(true).build()?;
            self.cloud.s3.delete_objects().bucket(bucket).delete(objects).send().await?;
        }
        Ok(())
    }

    async fn keys(&self, bucket: &str) -> Result<Vec<String>> {
        let mut pages = self.cloud.s3.list_objects_v2().bucket(bucket).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(page?.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
        }
        Ok(keys)
    }

    /// Puts a catalogue; each file's version, for events of one's own.
    async fn put(&mut self, spec: &FeedsSpec) -> Result<BTreeMap<u64, Value>> {
        let changes: Vec<Change> = fixtures::feeds::generate(spec).collect();
        let feeds = &*self;
        let requests = changes.iter().map(|change| async move {
            match change {
                Change::Put(file) => {
                    let body = file.body.clone().into();
                    let put =
                        feeds.cloud.s3.put_object().bucket(&feeds.source).key(&file.key).body(body).send().await?;
                    Ok::<_, anyhow::Error>(Some((file.number, feeds.event(file, put.version_id(), put.e_tag()))))
                }
                Change::Delete { key } => {
                    feeds.cloud.s3.delete_object().bucket(&feeds.source).key(key).send().await?;
                    Ok(None)
                }
            }
        });
        let events = stream::iter(requests).buffered(8).try_filter_map(async |event| Ok(event)).try_collect().await?;
        self.files = changes
            .into_iter()
            .filter_map(|change| match change {
                Change::Put(file) => Some((file.number, *file)),
                Change::Delete { .. } => None,
            })
            .collect();
        Ok(events)
    }

    /// As S3 sends it.
    fn event(&self, file: &FeedFile, version: Option<&str>, tag: Option<&str>) -> Value {
        let encode = |byte: u8| match byte {
            b' ' => "+".to_owned(),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        let key: String = file.key.bytes().map(encode).collect();
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventTime": Timestamp::now(),
            "s3": {
                "bucket": {"name": self.source},
                "object": {
                    "key": key, "size": file.body.len(), "versionId": version, "eTag": tag.map(|tag| tag.trim_matches('"')),
                    "sequencer": "0055AED6DCD90281E5",
                },
            },
        })
    }

    async fn send(&self, body: String) -> Result<()> {
        self.sqs.send_message().queue_url(&self.queue).message_body(body).send().await?;
        Ok(())
    }

    /// Since the test began, but for what waits and failed.
    async fn status(&self) -> Result<Status> {
        let outcome = self.cloud.archive(&["feeds", "status", "--json"]).await?;
        let count = |name: &str| outcome.report[name].as_u64().with_context(|| format!("{name}: {}", outcome.said));
        let status = Status {
            objects: count("objects")? - self.before.objects,
            records: count("records")? - self.before.records,
            bytes: count("bytes")? - self.before.bytes,
            quarantined: count("quarantined")? - self.before.quarantined,
            blocked: count("blocked")? - self.before.blocked,
            outputs: count("outputs")? - self.before.outputs,
            waiting: count("waiting")?,
            failed: count("failed")?,
        };
        ensure!(outcome.well == (status.failed == 0), "exit code and {status:?}");
        Ok(status)
    }

    /// Waits for a state of affairs, as long as anything changes.
    async fn until(&self, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<Status> {
        let (mut last, mut changed) = (Status::default(), Instant::now());
        loop {
            let status = self.status().await?;
            if is_reached(&status) {
                return Ok(status);
            }
            if status != last {
                (last, changed) = (status, Instant::now());
            }
            ensure!(changed.elapsed() < PATIENCE, "{what} is not reached, and nothing changes: {status:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn count(&self, treatment: Treatment) -> u64 {
        self.files.values().filter(|file| file.treatment == treatment).count() as u64
    }

    /// From now on these files count as those of any partner.
    fn expect_after_all(&mut self, treatment: Treatment) {
        self.files.values_mut().filter(|file| file.treatment == treatment).for_each(|file| {
            file.treatment = Treatment::Other;
        });
    }

    /// Everything that lies in the feeds' bucket.
    async fn objects(&self) -> Result<BTreeMap<String, Bytes>> {
        let keys = self.keys(&self.bucket).await?;
        let reads = keys.into_iter().map(|key| async move {
            let object = self.cloud.s3.get_object().bucket(&self.bucket).key(&key).send().await?;
            Ok::<_, anyhow::Error>((key, object.body.collect().await?.into_bytes()))
        });
        stream::iter(reads).buffer_unordered(8).try_collect().await
    }

    /// Each record once, in order, unchanged; and the status says the same.
    async fn check(&self) -> Result<BucketContents> {
        let day = |at: Timestamp| at.to_zoned(TimeZone::UTC).date().to_string();
        let event_dates = [day(self.began), day(Timestamp::now())];
        let expectation = Expectation { files: &self.files, event_dates: &event_dates };
        let found = expectation.check(&self.objects().await?)?;
        let status = self.status().await?;
        let expected = Status {
            objects: self.files.values().filter(|file| file.comes_out()).count() as u64,
            records: found.record_count(),
            bytes: found.bytes,
            quarantined: found.quarantined.len() as u64,
            outputs: found.outputs,
            ..status
        };
        ensure!(status == expected, "{status:?} is said, {expected:?} is found");
        Ok(found)
    }

    async fn replay(&self) -> Result<Value> {
        let outcome = self.cloud.archive(&["feeds", "replay-dlq", "--json"]).await?;
        ensure!(outcome.well, "{}", outcome.said);
        Ok(outcome.report)
    }

    /// As an operator would, until nothing but what must fail is in the dead-letter queue.
    async fn until_quiet(&self, hopeless: u64) -> Result<()> {
        loop {
            let status = self.until("an empty queue", |status| status.waiting == 0).await?;
            if status.failed <= hopeless {
                return Ok(());
            }
            self.replay().await?;
        }
    }

    async fn trace(&self, key: &str) -> Result<Value> {
        let outcome = self.cloud.archive(&["feeds", "trace", key, "--json"]).await?;
        ensure!(outcome.well, "{key}: {}", outcome.said);
        Ok(outcome.report)
    }
}

async fn five_thousand_files_come_out_once_and_poison_is_replayed_when_its_cause_is_gone(cloud: &Cloud) -> Result<()> {
    let mut feeds = Feeds::begin(cloud, 6).await?;
    let events = feeds.put(&FeedsSpec { seed: 12, files: 5_000, dirt: 0.3, has_large: true }).await?;
    let (unknown, blocked) = (feeds.count(Treatment::Unknown), feeds.count(Treatment::Blocked));
    ensure!(unknown > 5 && blocked > 20, "{unknown} unknown, {blocked} blocked: too few");
    // S3 sends a message an object, so that each file of an unknown content type fails one.
    feeds
        .until("the poison in the dead-letter queue", |status| status.waiting == 0 && status.failed >= unknown)
        .await?;
    feeds.until_quiet(unknown).await?;
    let status = feeds.status().await?;
    ensure!((status.failed, status.blocked) == (unknown, blocked), "{status:?}, not {unknown} and {blocked}");
    feeds.check().await?;

    let listed = cloud.archive(&["feeds", "replay-dlq", "--dry-run", "--json"]).await?.report;
    let failures = listed["failures"].as_array().context("failures")?;
    ensure!(failures.iter().all(|failure| failure["error"] == "UnknownContentType"), "{listed:#}");
    let keys: BTreeSet<&str> = failures.iter().filter_map(|failure| failure["object"].as_str()).collect();
    let is_unknown = |file: &&FeedFile| file.treatment == Treatment::Unknown;
    let expected: BTreeSet<&str> = feeds.files.values().filter(is_unknown).map(|file| file.key.as_str()).collect();
    ensure!(keys == expected && failures.len() as u64 == unknown, "{listed:#}");
    ensure!(feeds.status().await?.failed == unknown, "a look took messages away");

    // The operator adds the row and lifts the block; a function believes the old one for ten seconds.
    let row = |content_type: &str| {
        let text = aws_sdk_dynamodb::types::AttributeValue::S(content_type.to_owned());
        cloud.dynamodb.put_item().table_name(&feeds.partners).item("content_type", text)
    };
    for content_type in [CONTENT_TYPES[0], CONTENT_TYPES[1], UNKNOWN_TYPE] {
        row(content_type).send().await?;
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    ensure!(feeds.replay().await?["replayed"] == unknown, "not all were replayed");
    for file in feeds.files.values().filter(|file| file.treatment == Treatment::Blocked) {
        feeds.send(json!({"Records": [events[&file.number]]}).to_string()).await?;
    }
    feeds.until("what was replayed", |status| status.waiting == 0 && status.failed == 0 && status.blocked == 0).await?;
    feeds.expect_after_all(Treatment::Unknown);
    feeds.expect_after_all(Treatment::Blocked);
    feeds.check().await?;
    let text = aws_sdk_dynamodb::types::AttributeValue::S(UNKNOWN_TYPE.to_owned());
    cloud.dynamodb.delete_item().table_name(&feeds.partners).key("content_type", text).send().await?;
    trace(&feeds).await
}

/// From a file to its outputs and back: what `trace` says of some of the files is what they were made of.
async fn trace(feeds: &Feeds<'_>) -> Result<()> {
    for file in feeds.files.values().step_by(331) {
        let traced = feeds.trace(&file.key).await?;
        let versions = traced["versions"].as_array().context("versions")?;
        let is_it = |version: &&Value| {
            version["records"] == file.records.len() as u64 && version["quarantined"] == file.bad.len() as u64
        };
        let version = versions.iter().find(is_it).with_context(|| format!("{traced:#}"))?;
        ensure!(version["state"] == "Done" && version["blank"] == file.blank, "{version:#}");
        ensure!(version["date_from"] == if file.date.is_some() { "path" } else { "event" }, "{version:#}");
        let lines =
            |outputs: &Value| outputs.as_array().into_iter().flatten().filter_map(|span| span["lines"].as_u64()).sum();
        let (records, bad): (u64, u64) = (lines(&version["outputs"]), lines(&version["quarantine"]));
        ensure!((records, bad) == (file.records.len() as u64, file.bad.len() as u64), "{version:#}");
        for span in version["outputs"].as_array().into_iter().flatten().take(2) {
            let output = feeds.trace(span["key"].as_str().context("key")?).await?;
            let sources = output["sources"].as_array().context("sources")?;
            let is_source =
                |source: &&Value| source["object"] == file.key.as_str() && source["version"] == version["version"];
            let back: u64 = sources.iter().filter(is_source).filter_map(|source| source["lines"].as_u64()).sum();
            ensure!(Some(back) == span["lines"].as_u64(), "{output:#}");
        }
    }
    Ok(())
}

async fn functions_that_are_killed_again_and_again_lose_double_and_reorder_nothing(cloud: &Cloud) -> Result<()> {
    const KILLS: u32 = 20;
    let mut feeds = Feeds::begin(cloud, 4).await?;
    put_proxy_before(cloud, FUNCTION).await?;
    let outcome = async {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut kill = || {
            let harm = if rng.random_bool(0.5) { KILL_BEFORE } else { KILL_AFTER };
            // Any request of it whatever, to S3 or to DynamoDB.
            cloud.proxies.arm(fault("", FUNCTION, s3("", ""), harm).nth(rng.random_range(1..60)));
        };
        kill();
        feeds.put(&FeedsSpec { seed: 3, files: 400, dirt: 0.5, has_large: true }).await?;
        let (mut kills, mut idle) = (0, Instant::now());
        while kills < KILLS {
            if cloud.proxies.fired() == [1] {
                // The dying process must have gone before its proxy forgets it.
                tokio::time::sleep(Duration::from_millis(200)).await;
                (kills, idle) = (kills + 1, Instant::now());
                kill();
            }
            let status = feeds.status().await?;
            if status.waiting == 0 {
                feeds.replay().await?;
                // All is out already: the rest of the kills meet messages that come again.
                for file in feeds.files.values().take(20) {
                    let head = cloud.s3.head_object().bucket(&feeds.source).key(&file.key).send().await;
                    let Ok(head) = head else { continue };
                    let event = feeds.event(file, head.version_id(), head.e_tag());
                    feeds.send(json!({"Records": [event]}).to_string()).await?;
                }
            }
            ensure!(idle.elapsed() < PATIENCE, "after {kills} kills no process dies any more: {status:?}");
        }
        cloud.proxies.disarm()?;
        feeds.until_quiet(feeds.count(Treatment::Unknown)).await
    };
    let outcome = outcome.await;
    take_proxy_away(cloud, FUNCTION).await?;
    outcome?;
    feeds.check().await?;
    Ok(())
}

async fn events_delivered_again_in_one_message_and_to_several_functions_at_once_change_nothing(
    cloud: &Cloud,
) -> Result<()> {
    let mut feeds = Feeds::begin(cloud, 30).await?;
    let events = feeds.put(&FeedsSpec { seed: 9, files: 120, dirt: 0.5, has_large: false }).await?;
    let known = |number: &u64| feeds.files[number].treatment != Treatment::Unknown;
    let mut events: Vec<Value> =
        events.into_iter().filter(|(number, _)| known(number)).map(|(_, event)| event).collect();
    // While the queue delivers them one by one, they come in other company and order.
    let invoke = async |events: &[Value]| {
        let messages = events.chunks(7).enumerate().map(|(at, events)| {
            json!({"messageId": at.to_string(), "body": json!({"Records": events}).to_string(), "eventSource": "aws:sqs"})
        });
        let answer = cloud.invoke(FUNCTION, &json!({"Records": messages.collect::<Vec<_>>()})).await?;
        ensure!(answer == json!({"batchItemFailures": []}), "{answer}");
        Ok::<_, anyhow::Error>(())
    };
    let forwards = events.clone();
    events.reverse();
    let (one, two) = tokio::join!(invoke(&forwards), invoke(&events));
    one?;
    two?;
    feeds.send(json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": feeds.source}).to_string()).await?;
    feeds.send(json!({"Records": []}).to_string()).await?;
    feeds.send(json!({"Records": events}).to_string()).await?;
    let unknown = feeds.count(Treatment::Unknown);
    feeds.until("everything but what fails", |status| status.waiting <= unknown).await?;
    feeds.check().await?;
    let before = feeds.objects().await?;
    invoke(&events).await?;
    invoke(&forwards).await?;
    ensure!(feeds.objects().await? == before, "a delivery after the end changed something");
    Ok(())
}

async fn a_large_file_passes_in_little_memory(cloud: &Cloud) -> Result<()> {
    const MEBIBYTES: u64 = 160;
    let mut feeds = Feeds::begin(cloud, 120).await?;
    let line = |number: u64, line: usize| format!("{{\"id\":\"{number}.{line}\",\"text\":\"{}\"}}", "x".repeat(400));
    let files = [(0, "offers/acme/2026/11/21/plain"), (1, "offers/acme/2026/11/21/packed")].map(|(number, key)| {
        let records: Vec<Vec<u8>> = (1..=350_000).map(|at| line(number, at).into_bytes()).collect();
        let mut text = records.join(&b'\n');
        if number == 1 {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packed, &text).expect("into memory");
            text = packed.finish().expect("into memory");
        }
        (number, key, records, text)
    });
    let work = async || {
        for (number, key, records, text) in files {
            let put = cloud.s3.put_object().bucket(&feeds.source).key(key).body(text.into()).send().await?;
            ensure!(put.version_id().is_some(), "{key} has no version");
            feeds.files.insert(
                number,
                FeedFile {
                    number,
                    key: key.to_owned(),
                    body: Bytes::new(),
                    content_type: "offers".to_owned(),
                    partner: "acme".to_owned(),
                    treatment: Treatment::Other,
                    date: Some("2026-11-21".to_owned()),
                    records,
                    bad: Vec::new(),
                    blank: 0,
                },
            );
        }
        feeds.until("both files", |status| status.objects == 2).await?;
        Ok(())
    };
    cloud.with_memory(&[FUNCTION], MEBIBYTES, work).await?;
    feeds.check().await?;
    if feeds.status().await?.failed > 0 {
        bail!("a message failed {RECEIVES} times");
    }
    Ok(())
}
