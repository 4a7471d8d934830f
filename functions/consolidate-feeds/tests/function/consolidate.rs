//! What comes out of files of all kinds.

use crate::world::{ALLOWED, ARCHIVE, FEEDS, SOURCE, TestClock, World, event, lines, number};
use async_trait::async_trait;
use errors::Name;
use feeds::{
    Batch, BatchIntent,
    protocol::{BLOCKED_INDEX, NUMBERS},
};
use flate2::{Compression, write::GzEncoder};
use network::{Broken, Calm, Network, OneFault, Request, Strike};
use runtime::Clock;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::Write,
    slice,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use storage::Objects;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).and_then(|()| encoder.finish()).expect("into memory")
}

#[tokio::test]
async fn small_files_become_one_object_in_their_order_under_their_date() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let one = world.put("offers/acme/2026/11/20/a.jsonl", "{\"a\":1}\r\n\n{\"a\" : 2}").await;
    let two = world.put("offers/b c/year=2026/month=11/day=20/ü+%.jsonl.gz", gzip(b"\xef\xbb\xbf{\"b\":1}\n")).await;
    assert_eq!(world.deliver(&[&[one, two]]).await, [0; 0]);
    let outputs = world.outputs();
    let [(key, body)] = &outputs.iter().collect::<Vec<_>>()[..] else { panic!("{outputs:?}") };
    assert!(key.starts_with("offers/year=2026/month=11/day=20/output_object-1") && key.ends_with(".jsonl"), "{key}");
    assert_eq!(body, &"{\"a\":1}\n{\"a\" : 2}\n{\"b\":1}\n");
}

#[tokio::test]
async fn a_path_without_a_date_takes_that_of_the_event() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let file = world.put("offers/acme/2026/13/20/a.jsonl", "{}").await;
    let dated = world.put("offers/acme/2026/1/5/b.jsonl", "{}").await;
    world.deliver(&[&[file, dated]]).await;
    let keys: Vec<String> = world.outputs().into_keys().collect();
    assert!(keys.len() == 2 && keys[0].starts_with("offers/year=2026/month=01/day=05/"), "{keys:?}");
    assert!(keys[1].starts_with("offers/year=2026/month=11/day=21/"), "{keys:?}");
    // Each file's row says which it was, and `feeds trace` with it.
    let text = |row: &storage::Item, name: &str| row[name].as_s().cloned().unwrap_or_default();
    let mut rows: Vec<_> =
        world.tables.contents("files").iter().map(|row| (text(row, "date"), text(row, "date_from"))).collect();
    rows.sort();
    let said = |date: &str, from: &str| (date.to_owned(), from.to_owned());
    assert_eq!(rows, [said("2026-01-05", "path"), said("2026-11-21", "event")]);
}

#[tokio::test]
async fn priority_partners_come_first_and_alone_and_blocked_ones_not_at_all() {
    let world = World::new();
    world.partners("offers", &["first", "both"], &["blocked", "both"]).await;
    let mut messages = Vec::new();
    for partner in ["other", "blocked", "first", "both"] {
        messages.push(world.put(&format!("offers/{partner}/2026/11/20/a"), format!("{{\"p\":\"{partner}\"}}")).await);
    }
    assert_eq!(world.deliver(&[&messages]).await, [0; 0]);
    assert_eq!(world.records(), ["{\"p\":\"first\"}", "{\"p\":\"other\"}"]);
    assert_eq!(world.outputs().len(), 2);
    let body = [json!({"Records": messages}).to_string()];
    let report = world.report(&world.deps(Calm::shared()), &body).await;
    assert_eq!((report.blocked, report.failed.len()), (2, 0));
    let is_blocked = |row: &storage::Item| row["state"].as_s().is_ok_and(|state| state == "Blocked");
    let rows: Vec<_> = world.tables.contents("files").into_iter().filter(is_blocked).collect();
    // The sparse index of blocked files, which the status counts.
    assert!(rows.len() == 2 && rows.iter().all(|row| row.contains_key(BLOCKED_INDEX)), "{rows:?}");
    // Once the block is gone, the event delivered again brings the file out.
    world.partners("offers", &["first"], &[]).await;
    assert_eq!(world.deliver(&[&messages]).await, [0; 0]);
    assert_eq!(world.records()[2..], ["{\"p\":\"blocked\"}", "{\"p\":\"both\"}"]);
    assert!(!world.tables.contents("files").iter().any(|row| row.contains_key(BLOCKED_INDEX)));
}

/// Each request takes a while, and as many as are under way take it together.
struct Crowd {
    clock: Arc<TestClock>,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Network for Crowd {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        tokio::task::yield_now().await;
        self.clock.advance(Duration::from_secs(1) / self.under_way.fetch_sub(1, Ordering::Relaxed) as u32);
        Ok(())
    }
}

#[tokio::test]
async fn files_of_blocked_partners_are_noted_some_at_once_and_what_time_does_not_allow_comes_again() {
    let world = World::new();
    world.partners("offers", &[], &["acme"]).await;
    let mut bodies = Vec::new();
    for at in 0..1_500 {
        bodies.push(json!({"Records": [world.put(&format!("offers/acme/2026/11/20/{at}"), "{}").await]}).to_string());
    }
    let crowd =
        Arc::new(Crowd { clock: world.clock.clone(), under_way: AtomicUsize::new(0), most: AtomicUsize::new(0) });
    let report = world.report(&world.deps(crowd.clone()), &bodies).await;
    let (most, passed) = (crowd.most.load(Ordering::Relaxed), world.clock.passed());
    assert!((2..=32).contains(&most), "{most} requests at once");
    assert!(passed < ALLOWED, "{passed:?}");
    assert!(report.blocked > 100 && !report.failed.is_empty(), "{} blocked", report.blocked);
    assert!(report.failed.values().all(|name| *name == Name::OutOfTime), "{:?}", report.failed);
    assert_eq!(report.blocked as usize + report.failed.len(), bodies.len());
    let rest: Vec<String> = report.failed.keys().map(|at| bodies[*at].clone()).collect();
    let again = world.report(&world.deps(Calm::shared()), &rest).await;
    assert_eq!((again.blocked as usize, again.failed.len()), (rest.len(), 0));
}

/// The keys of outputs, in the order in which they were created.
#[derive(Default)]
struct Created(Mutex<Vec<String>>);

#[async_trait]
impl Network for Created {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        if request.operation == "PutObject" && request.subject.starts_with(FEEDS) {
            self.0.lock().expect("one test").push(request.subject.clone());
        }
        Ok(())
    }
}

#[tokio::test]
async fn outputs_of_priority_partners_are_there_before_any_other() {
    let world = World::new();
    world.partners("offers", &["first"], &[]).await;
    let mut events = Vec::new();
    for (at, partner) in ["other", "first", "acme", "first", "other"].into_iter().enumerate() {
        let record = format!("{{\"p\":\"{partner}\",\"x\":\"{}\"}}\nbad\n", "x".repeat(300_000));
        events.push(world.put(&format!("offers/{partner}/2026/11/2{at}/a"), record).await);
    }
    let created = Arc::new(Created::default());
    assert_eq!(world.deliver_through(created.clone(), &[&events]).await, [0; 0]);
    let created = created.0.lock().expect("one test").clone();
    let days: Vec<&str> = created.iter().filter_map(|key| Some(key.split_once("day=")?.1.split_once('/')?.0)).collect();
    assert_eq!(days[..2], ["21", "23"], "{created:?}");
    assert_eq!(created.len(), 10);
}

#[tokio::test]
async fn files_of_priority_partners_are_in_the_first_rounds_of_a_call_wherever_they_stand_in_it() {
    let mut world = World::new();
    world.limits.round_files = 2;
    world.partners("offers", &["first"], &[]).await;
    let mut events = Vec::new();
    for (at, partner) in ["other", "acme", "other", "first", "acme", "first"].into_iter().enumerate() {
        events.push(world.put(&format!("offers/{partner}/2026/11/2{at}/a"), "{}").await);
    }
    let created = Arc::new(Created::default());
    let messages: Vec<_> = events.chunks(1).collect();
    assert_eq!(world.deliver_through(created.clone(), &messages).await, [0; 0]);
    let created = created.0.lock().expect("one test").clone();
    let is_first = |key: &String| key.contains("day=23") || key.contains("day=25");
    assert_eq!(created.iter().map(is_first).collect::<Vec<_>>(), [true, true, false, false, false, false]);
}

/// How often an object of the source was opened.
#[derive(Default)]
struct Opened(AtomicUsize);

#[async_trait]
impl Network for Opened {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_one = request.operation == "GetObject" && request.subject.starts_with(SOURCE);
        self.0.fetch_add(usize::from(is_one), Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test]
async fn a_large_file_is_opened_once_and_no_round_holds_more_of_it_than_it_may() {
    let mut world = World::new();
    world.limits.round_bytes = 100_000;
    world.partners("offers", &[], &[]).await;
    let text = lines("large", 20_000);
    let file = world.put("offers/acme/2026/11/20/a", text.join("\n")).await;
    let opened = Arc::new(Opened::default());
    assert_eq!(world.deliver_through(opened.clone(), &[&[file]]).await, [0; 0]);
    assert!(world.records() == text, "order or content");
    assert_eq!(opened.0.load(Ordering::Relaxed), 1);
    let archive = Objects::over(world.objects.clone(), ARCHIVE);
    let mut rounds = 0;
    for key in archive.list("feeds/intents/").await.expect("listed") {
        let [intent] = &archive.get_lines::<BatchIntent>(&key).await.expect("readable")[..] else { panic!("{key}") };
        let bytes: u64 = intent.outputs.iter().map(|output| output.bytes).sum();
        assert!(bytes < 100_100, "{key}: {bytes} bytes");
        rounds += 1;
    }
    assert!(rounds >= 6, "{rounds} rounds");
}

#[tokio::test]
async fn a_batch_says_when_the_oldest_of_its_files_was_put() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let mut events = Vec::new();
    for (name, time) in [("a", "2026-11-21T05:00:00Z"), ("b", "2026-11-21T03:00:00Z"), ("c", "2026-11-21T04:00:00Z")] {
        let mut event = world.put(&format!("offers/acme/{name}"), "{}").await;
        event["eventTime"] = time.into();
        events.push(event);
    }
    assert_eq!(world.deliver(&[&events]).await, [0; 0]);
    let rows = world.tables.contents("batches").into_iter();
    let rows = rows.filter(|row| row["batch"].as_s().is_ok_and(|batch| batch != NUMBERS));
    let batches: Vec<Batch> = rows.map(|row| serde_dynamo::from_item(row).expect("a batch")).collect();
    let oldest: Vec<String> =
        batches.iter().filter_map(|batch| Some(batch.work.intent()?.oldest.to_string())).collect();
    assert_eq!(oldest, ["2026-11-21T03:00:00Z"]);
}

#[tokio::test]
async fn what_operators_write_into_the_partners_table_holds_after_ten_seconds_and_is_read_once_until_then() {
    let world = World::new();
    world.partners("offers", &[], &["acme"]).await;
    let counting = OneFault::at(usize::MAX, Strike::Request);
    let mut bodies = Vec::new();
    for at in 0..3 {
        let event = world.put(&format!("offers/acme/{at}"), "{}").await;
        bodies.push(json!({"Records": [event]}).to_string());
    }
    // One process, call after call.
    let deps = world.deps(counting.clone());
    assert_eq!(world.report(&deps, &bodies[..1]).await.blocked, 1);
    let first = counting.seen();
    assert_eq!(world.report(&deps, &bodies[1..2]).await.blocked, 1);
    // Without the read of the partners' table.
    assert_eq!(counting.seen() - first, first - 1);
    world.partners("offers", &[], &[]).await;
    world.clock.advance(Duration::from_millis(9_900));
    assert_eq!(world.report(&deps, &bodies[2..]).await.blocked, 1);
    world.clock.advance(Duration::from_millis(100));
    assert_eq!(world.report(&deps, &bodies).await.blocked, 0);
    assert_eq!(world.records().len(), 3);
}

#[tokio::test]
async fn a_flood_of_an_unknown_content_type_asks_the_table_once() {
    let world = World::new();
    let mut events = Vec::new();
    for at in 0..50 {
        events.push(world.put(&format!("unheard/acme/{at}"), "{}").await);
    }
    let counting = OneFault::at(usize::MAX, Strike::Request);
    let bodies: Vec<String> = events.iter().map(|event| json!({"Records": [event]}).to_string()).collect();
    // One process, call after call.
    let deps = world.deps(counting.clone());
    assert_eq!(world.report(&deps, &bodies).await.failed.len(), 50);
    assert_eq!(counting.seen(), 1);
    // A second after the row was written, the files come out.
    world.partners("unheard", &[], &[]).await;
    assert_eq!(world.report(&deps, &bodies).await.failed.len(), 50);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.report(&deps, &bodies).await.failed.len(), 0);
    assert_eq!(world.records().len(), 50);
}

#[tokio::test]
async fn bad_lines_go_to_quarantine_and_the_rest_of_the_file_goes_on() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let file = world.put("offers/acme/2026/11/20/a", &b"{}\n[1]\nnope\n \n{\"a\":\"\xff\"}\n{\"z\":1}"[..]).await;
    let mut cut = gzip(b"{\"g\":1}\n{\"g\":2}\n{\"g\":");
    cut.truncate(cut.len() - 3);
    let cut = world.put("offers/acme/2026/11/20/cut", cut).await;
    assert_eq!(world.deliver(&[&[file], &[cut]]).await, [0; 0]);
    assert_eq!(world.records(), ["{}", "{\"z\":1}", "{\"g\":1}", "{\"g\":2}"]);
    let line =
        |object: &str, line, reason: &str, bytes: &[u8]| (object.to_owned(), line, reason.to_owned(), bytes.to_vec());
    let (a, b) = ("offers/acme/2026/11/20/a", "offers/acme/2026/11/20/cut");
    assert_eq!(
        world.quarantined(),
        [
            line(a, 2, "not_an_object", b"[1]"),
            line(a, 3, "invalid_json", b"nope"),
            line(a, 5, "invalid_utf8", b"{\"a\":\"\xff\"}"),
            line(b, 3, "damaged_gzip: the file ends in the middle of a gzip member", b"{\"g\":"),
        ]
    );
}

#[tokio::test]
async fn objects_hold_at_most_500_000_bytes_and_a_file_larger_than_a_round_keeps_its_order() {
    let mut world = World::new();
    world.limits.round_bytes = 1_200_000;
    world.partners("offers", &[], &[]).await;
    let mut text = lines("large", 60_000);
    text.insert(30_000, format!("{{\"large\":\"{}\"}}", "x".repeat(600_000)));
    let plain = world.put("offers/acme/2026/11/20/a", text.join("\n")).await;
    let packed = world.put("offers/acme/2026/11/20/b", gzip(lines("packed", 50_000).join("\n").as_bytes())).await;
    assert_eq!(world.deliver(&[&[plain], &[packed]]).await, [0; 0]);
    assert!(world.records() == [text, lines("packed", 50_000)].concat(), "order or content");
    let large: Vec<usize> = world.outputs().values().map(|body| body.len()).filter(|bytes| *bytes > 500_000).collect();
    assert_eq!(large, [600_013]);
}

#[tokio::test]
async fn a_record_that_is_larger_than_an_object_is_counted_for_its_warning() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let large = format!("{{\"large\":\"{}\"}}\n{{}}\n", "x".repeat(600_000));
    let body = json!({"Records": [world.put("offers/acme/a", large).await]}).to_string();
    let report = world.report(&world.deps(Calm::shared()), &[body]).await;
    assert_eq!((report.large, report.counts.records, report.counts.outputs), (1, 2, 2));
}

#[tokio::test]
async fn a_version_is_a_file_of_its_own_even_when_it_is_overwritten_or_deleted_later() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let key = "offers/acme/2026/11/20/a";
    let first = world.put(key, "{\"v\":1}").await;
    let second = world.put(key, "{\"v\":2}").await;
    Objects::over(world.objects.clone(), SOURCE).delete(key).await.expect("deleted");
    assert_eq!(world.deliver(&[std::slice::from_ref(&second), &[first.clone(), second.clone()]]).await, [0; 0]);
    assert_eq!(world.deliver(&[&[first]]).await, [0; 0]);
    let mut records = world.records();
    records.sort();
    assert_eq!(records, ["{\"v\":1}", "{\"v\":2}"]);
}

#[tokio::test]
async fn what_cannot_come_out_fails_its_own_message_and_no_other() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let good = world.put("offers/acme/2026/11/20/a", "{\"good\":1}").await;
    let also_good = world.put("offers/acme/2026/11/20/b", "{\"good\":2}").await;
    let unknown = world.put("unheard/acme/2026/11/20/a", "{}").await;
    let no_partner = world.put("offers/a.jsonl", "{}").await;
    let gone = event("offers/acme/gone", 3, Some("v99"), "tag");
    let again = gone.clone();
    let mut removed = good.clone();
    removed["eventName"] = "ObjectRemoved:Delete".into();
    removed["s3"]["object"]["versionId"] = "v98".into();
    let mut foreign = good.clone();
    foreign["s3"]["bucket"]["name"] = "other".into();
    let bodies = [
        json!({"Records": [unknown, also_good]}).to_string(),
        json!({"Records": [no_partner]}).to_string(),
        json!({"Records": [gone]}).to_string(),
        json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": SOURCE}).to_string(),
        json!({"Records": []}).to_string(),
        json!({"Records": [removed]}).to_string(),
        "not JSON".to_owned(),
        json!({"Records": [foreign]}).to_string(),
        json!({"Records": [good]}).to_string(),
        json!({"Records": [again]}).to_string(),
    ];
    assert_eq!(world.deliver_bodies(Calm::shared(), &bodies, Duration::ZERO).await, [0, 1, 2, 6, 7, 9]);
    assert_eq!(world.records(), ["{\"good\":2}", "{\"good\":1}"]);
    let report = world.report(&world.deps(Calm::shared()), &bodies).await;
    let names = [
        (0, Name::UnknownContentType),
        (1, Name::UnknownContentType),
        (2, Name::FeedFileMissing),
        (6, Name::EventUnreadable),
        (7, Name::ForeignBucket),
        // The same file in another message: that one comes again, too.
        (9, Name::FeedFileMissing),
    ];
    assert_eq!(report.failed, BTreeMap::from(names));
}

#[tokio::test]
async fn without_versions_an_overwritten_file_is_missing_and_not_another() {
    let world = World::new();
    let objects = world.objects.clone().bucket(SOURCE);
    assert!(objects.contents(SOURCE).is_empty());
    world.partners("offers", &[], &[]).await;
    let first = world.put("offers/acme/a", "{\"v\":1}").await;
    let mut second = world.put("offers/acme/a", "{\"v\":2}").await;
    second["s3"]["object"]["sequencer"] = "0055AF".into();
    assert!(first["s3"]["object"]["versionId"].is_null());
    assert_eq!(world.deliver(&[&[first], &[second]]).await, [0]);
}

#[tokio::test]
async fn a_call_that_has_no_time_leaves_its_messages_to_the_next() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let file = world.put("offers/acme/a", "{}").await;
    let bodies = [json!({"Records": [file]}).to_string()];
    assert_eq!(world.deliver_bodies(Calm::shared(), &bodies, Duration::from_secs(80)).await, [0]);
    assert_eq!(world.outputs().len(), 0);
    assert_eq!(world.deliver_bodies(Calm::shared(), &bodies, Duration::ZERO).await, [0; 0]);
    assert_eq!(world.records(), ["{}"]);
}

/// Each object takes so long to open.
struct Slow(Arc<TestClock>);

#[async_trait]
impl Network for Slow {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        if request.operation == "GetObject" && request.subject.starts_with(SOURCE) {
            self.0.advance(Duration::from_millis(800));
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_is_read_slowly_comes_out_in_rounds_that_end_within_their_lease() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let mut events = Vec::new();
    for at in 0..25 {
        events.push(world.put(&format!("offers/acme/{at}"), format!("{{\"at\":{at}}}")).await);
    }
    assert_eq!(world.deliver_through(Arc::new(Slow(world.clock.clone())), &[&events]).await, [0; 0]);
    assert_eq!(world.records().len(), 25);
    let intents = world.objects.contents(ARCHIVE).into_keys().filter(|key| key.starts_with("feeds/intents/"));
    assert!(intents.count() >= 2, "one round took all of {:?}", world.clock.elapsed());
}

#[tokio::test]
async fn a_file_that_fails_says_why_in_its_row_and_can_be_taken_again_at_once() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let gone = event("offers/acme/gone", 3, Some("v99"), "tag");
    for _ in 0..2 {
        assert_eq!(world.deliver(&[slice::from_ref(&gone)]).await, [0]);
    }
    let error = |row: &storage::Item| row.get("error").and_then(|error| error.as_s().ok()).cloned();
    let errors: Vec<_> = world.tables.contents("files").iter().map(error).collect();
    assert_eq!(errors, [Some("FeedFileMissing".to_owned())]);
}

#[tokio::test]
async fn a_line_that_is_too_long_goes_to_quarantine_and_the_rest_of_its_file_goes_on() {
    let mut world = World::new();
    world.limits.line_bytes = 100_000;
    world.partners("offers", &[], &[]).await;
    let long = |length: usize| format!("{{\"long\":\"{}\"}}", "x".repeat(length - 11));
    let text = format!("{{\"a\":1}}\n{}\r\n{}\r\n{{\"b\":2}}\n{}", long(100_000), long(100_001), long(5_000_000));
    for (name, body) in [("a.jsonl", text.clone().into_bytes()), ("a.gz", gzip(text.as_bytes()))] {
        let key = format!("offers/acme/{name}");
        let file = world.put(&key, body).await;
        for _ in 0..2 {
            assert_eq!(world.deliver(&[slice::from_ref(&file)]).await, [0; 0]);
        }
        let quarantined = world.quarantined().into_iter().filter(|(object, ..)| *object == key);
        let quarantined: Vec<_> = quarantined
            .map(|(_, line, reason, source)| {
                (
                    line,
                    reason,
                    source.len(),
                    long(90_000).starts_with(std::str::from_utf8(&source[..1_000]).expect("UTF-8")),
                )
            })
            .collect();
        let too_long = |line: u64| (line, "too_long".to_owned(), 64 << 10, true);
        assert_eq!(quarantined, [too_long(3), too_long(5)]);
    }
    let expected = ["{\"a\":1}".to_owned(), long(100_000), "{\"b\":2}".to_owned()];
    assert_eq!(world.records(), [expected.clone(), expected].concat());
}

#[tokio::test]
async fn nothing_but_outputs_and_quarantine_lies_in_the_bucket_and_no_staged_bytes_stay() {
    let world = World::new();
    world.partners("offers", &[], &[]).await;
    let file = world.put("offers/acme/a", "{}\nbad\n").await;
    let empty = world.put("offers/acme/b", "").await;
    let blank = world.put("offers/acme/c/", "\n \n").await;
    assert_eq!(world.deliver(&[&[file], &[empty], &[blank]]).await, [0; 0]);
    let keys: Vec<String> = world.objects.contents(FEEDS).into_keys().collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(number(&keys[0]) < number(&keys[1]));
    let archive: Vec<String> = world.objects.contents(ARCHIVE).into_keys().collect();
    assert!(archive.iter().all(|key| key.starts_with("feeds/intents/")), "{archive:?}");
    let rows = world.tables.contents("files");
    assert!(rows.len() == 3 && rows.iter().all(|row| row["state"].as_s().is_ok_and(|state| state == "Done")));
}
