//! The drain of a window into its spool over a cloud in memory.

use alerts::{
    keys::{checkpoint_key, index_key, records_key, spool_prefix},
    message::{classification::Disposition, entry::Entry},
    window::{
        plan::{Dated, Purpose, Window},
        record::{State, WindowRecord},
    },
};
use async_trait::async_trait;
use errors::Named;
use identity::Identity;
use memory_cloud::{
    BUCKET, Cloud, fail_each_request,
    given::{RUN, day, task},
};
use network::{Answer, Network, Request};
use query_messages::{Deps, handle};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

fn deps(cloud: &Cloud) -> Deps {
    Deps {
        sources: cloud.sources(),
        objects: cloud.objects(),
        job_runs: cloud.job_runs(),
        windows: cloud.windows(),
        rules: Default::default(),
    }
}

/// A planned day with a closed message, an open one, one that is not valid JSON, and one of the day after.
async fn planned() -> Cloud {
    let cloud = Cloud::default();
    cloud.put_message("a", "2024-07-01T01:00:00Z", "closed");
    cloud.put_message("b", "2024-07-01T02:00:00Z", "open");
    let poison = br#"{"message_id":"c", /* no JSON */ "timestamp":"2024-07-01T03:00:00Z"}"#;
    cloud.node.put_bytes("messages", "c", poison, 1_719_802_800_000, "c");
    cloud.put_message("d", "2024-07-02T00:00:00Z", "closed");
    cloud.given_window(&day(0), |planned| planned).await;
    cloud
}

fn latest_attempt(cloud: &Cloud) -> u64 {
    cloud.window_rows()[0]["attempt"].as_u64().expect("a number")
}

/// What the spool of the latest attempt says of its documents.
async fn spooled(cloud: &Cloud) -> Vec<(String, Value)> {
    let entries = entries(cloud, &day(0)).await.into_iter();
    entries.map(|entry| (entry.id, json!(entry.outcome.disposition))).collect()
}

async fn entries(cloud: &Cloud, window: &Window) -> Vec<Entry> {
    let prefix = spool_prefix(RUN, &window.window_id, latest_attempt(cloud));
    let summary = cloud.json(&checkpoint_key(&prefix));
    assert_eq!(summary["done"], true, "{summary}");
    let mut entries = Vec::new();
    for pair in 0..summary["pairs"].as_u64().expect("a number") as u32 {
        let of_pair: Vec<Entry> = cloud.objects().get_lines(&index_key(&prefix, pair)).await.expect("an index");
        entries.extend(of_pair);
    }
    entries
}

#[tokio::test]
async fn a_window_is_spooled_whole_and_its_poison_document_by_name() {
    let cloud = planned().await;
    let done = handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!((done.attempt, done.more), (Some(1), false));
    let expected = [("a", "closed"), ("b", "open"), ("c", "quarantined")];
    assert_eq!(spooled(&cloud).await, expected.map(|(id, disposition)| (id.to_owned(), json!(disposition))));
    assert_eq!(cloud.node.points_in_time(), 0, "all points in time are closed");
}

#[tokio::test]
async fn a_second_call_is_a_second_attempt_and_a_finished_window_is_left_alone() {
    let cloud = planned().await;
    for attempt in 1..3 {
        let done = handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
        assert_eq!(done.attempt, Some(attempt));
    }
    let done = |record: &WindowRecord| Ok(WindowRecord { status: State::Completed, ..record.clone() });
    cloud.windows().change(RUN, &day(0).window_id, done).await.expect("completed");
    let keys = cloud.keys("spool/");
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("nothing to do");
    assert_eq!(cloud.keys("spool/"), keys);
}

/// Takes a minute for each object of records; a point in time lives for three.
struct Slow(Cloud);

#[async_trait]
impl Network for Slow {
    async fn answered(&self, request: &Request) -> Answer {
        if request.operation == "PutObject" && request.subject.contains("/records-") {
            // A page fills up to three pairs, and a point in time lives for three minutes.
            self.0.clock.advance(Duration::from_secs(50));
        }
        Answer::Arrives
    }
}

/// A planned window of small messages, enough for several pairs of the spool, and some that share their second.
async fn several_pairs(messages: usize) -> (Cloud, Window) {
    let cloud = Cloud::default();
    let whole = Window::new(day(0).from, day(2).to, messages as u64);
    for n in 0..messages {
        let second = n as i64 * 80 % 250_000;
        let at = whole.from + jiff::SignedDuration::from_secs(second);
        cloud.node.put(
            "messages",
            &format!("m{n:04}"),
            &json!({"message_id": format!("m{n:04}"), "timestamp": at}).to_string(),
        );
    }
    cloud.given_window(&whole, |planned| planned).await;
    (cloud, whole)
}

/// The spool of an attempt holds each of so many messages once.
async fn assert_whole(cloud: &Cloud, window: &Window, attempt: u64, messages: usize) {
    let prefix = spool_prefix(RUN, &window.window_id, attempt);
    let mut ids = Vec::new();
    for pair in 0.. {
        let Some(entries) = cloud.objects().find_lines::<Entry>(&index_key(&prefix, pair)).await.expect("read") else {
            break;
        };
        ids.extend(entries.into_iter().map(|entry| entry.id));
    }
    ids.sort();
    let expected = (0..messages).map(|n| format!("m{n:04}"));
    assert!(expected.eq(ids.iter().cloned()), "{} of {messages} messages, or one of them twice", ids.len());
}

#[tokio::test]
async fn a_call_whose_time_is_over_leaves_a_checkpoint_and_the_next_goes_on_there() {
    let (cloud, whole) = several_pairs(3000).await;
    let slow = cloud.through(Arc::new(Slow(cloud.clone())));
    let (mut task, mut calls) = (task(whole.clone(), None), 0);
    loop {
        let call = runtime::Call::new(cloud.clock.clone(), Duration::from_secs(60));
        task = handle(&deps(&slow), task, call).await.expect("drained");
        calls += 1;
        if !task.more {
            break;
        }
        assert_eq!(cloud.node.points_in_time(), 1, "only that of the messages waits for the next call");
    }
    assert!(calls > 1, "one call did it all");
    assert_whole(&cloud, &whole, 1, 3000).await;
}

/// How many turns of everything else an upload takes.
const TURNS: usize = 500;

/// Uploads of the spool that take long, while everything else goes on.
struct LongUploads {
    cloud: Cloud,
    under_way: AtomicUsize,
    most: AtomicUsize,
    /// Requests for history while an upload was under way: only who goes on with the next pair asks for it.
    beside: AtomicUsize,
    /// From the first upload on the source gives only a part of each page.
    source_fails: bool,
}

impl LongUploads {
    fn before(cloud: &Cloud) -> Arc<Self> {
        Arc::new(LongUploads {
            cloud: cloud.clone(),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            beside: AtomicUsize::new(0),
            source_fails: false,
        })
    }

    fn is_upload(request: &Request) -> bool {
        request.operation == "PutObject" && ["/records-", "/index-"].iter().any(|name| request.subject.contains(name))
    }
}

#[async_trait]
impl Network for LongUploads {
    async fn sent(&self, request: &Request) -> Result<(), network::Broken> {
        if Self::is_upload(request) {
            self.most.fetch_max(self.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            if self.source_fails {
                self.cloud.node.fail_shards(usize::MAX);
            }
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        } else {
            // Who sends a request lets others go on.
            tokio::task::yield_now().await;
            if request.subject.contains("history") && self.under_way.load(Ordering::SeqCst) > 0 {
                self.beside.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    async fn answered(&self, request: &Request) -> Answer {
        if Self::is_upload(request) {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
        Answer::Arrives
    }
}

#[tokio::test]
async fn a_pair_is_uploaded_while_the_next_is_read_and_no_more_than_one_at_once() {
    let (cloud, whole) = several_pairs(4500).await;
    let long = LongUploads::before(&cloud);
    handle(&deps(&cloud.through(long.clone())), task(whole.clone(), None), cloud.call()).await.expect("drained");
    assert!(long.beside.load(Ordering::SeqCst) > 0, "everything waits for each upload");
    assert_eq!(long.most.load(Ordering::SeqCst), 1, "at once");
    assert_whole(&cloud, &whole, 1, 4500).await;
}

#[tokio::test]
async fn nothing_is_read_beside_the_upload_of_a_document_that_is_larger_than_a_pair() {
    let cloud = Cloud::default();
    // Noise, because what is uploaded is compressed.
    let mut random = 1_u64;
    let mut noise = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"#$%&()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcd"[(random >> 58) as usize])
    };
    let text: String = (0..24 << 20).map(|_| noise()).collect();
    for id in ["large", "larger"] {
        let large = json!({"message_id": id, "timestamp": "2024-07-01T01:00:00Z", "text": text});
        cloud.node.put("messages", id, &large.to_string());
    }
    for n in 0..150 {
        cloud.put_message(&format!("m{n}"), "2024-07-01T02:00:00Z", "closed");
    }
    cloud.given_window(&day(0), |planned| planned).await;
    let long = LongUploads::before(&cloud);
    handle(&deps(&cloud.through(long.clone())), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!(long.beside.load(Ordering::SeqCst), 0, "requests beside it");
    assert_eq!(spooled(&cloud).await.len(), 152);
}

#[tokio::test]
async fn a_call_that_fails_leaves_no_upload_behind() {
    let (cloud, whole) = several_pairs(4500).await;
    let long = LongUploads { source_fails: true, ..Arc::into_inner(LongUploads::before(&cloud)).expect("one owner") };
    let long = Arc::new(long);
    let error = handle(&deps(&cloud.through(long.clone())), task(whole, None), cloud.call()).await.expect_err("a part");
    assert_eq!(error.name(), "PageIncomplete");
    assert_eq!((long.most.load(Ordering::SeqCst), long.under_way.load(Ordering::SeqCst)), (1, 0));
}

/// What becomes of one upload of the spool, the first whose key ends so.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Fails,
    /// And with it the function, before the upload arrives.
    Dies,
    /// The function dies when the upload has arrived.
    DiesBehind,
}

/// Strikes one upload, and holds each checkpoint against what is stored.
struct Struck {
    cloud: Cloud,
    key: &'static str,
    fate: Fate,
    died: tokio::sync::Notify,
    has_struck: AtomicBool,
    is_dead: AtomicBool,
}

impl Struck {
    fn is_it(&self, request: &Request) -> bool {
        request.operation == "PutObject" && request.subject.ends_with(self.key)
    }

    async fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl Network for Struck {
    async fn sent(&self, request: &Request) -> Result<(), network::Broken> {
        if self.is_dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_it(request) && self.fate != Fate::DiesBehind && !self.has_struck.swap(true, Ordering::SeqCst) {
            match self.fate {
                Fate::Fails => return Err(network::Broken),
                _ => self.die().await,
            }
        }
        Ok(())
    }

    async fn answered(&self, request: &Request) -> Answer {
        if self.is_it(request) && self.fate == Fate::DiesBehind && !self.has_struck.swap(true, Ordering::SeqCst) {
            self.die().await;
        }
        if request.operation == "PutObject" && request.subject.contains("/records-") {
            self.cloud.clock.advance(Duration::from_secs(60));
        }
        if let Some(key) = request.subject.strip_prefix(&format!("{BUCKET}/"))
            && let (Some(prefix), "PutObject") = (key.strip_suffix("/checkpoint.json"), request.operation)
        {
            let keys = self.cloud.keys(prefix);
            for pair in 0..self.cloud.json(key)["pairs"].as_u64().expect("a number") as u32 {
                for named in [records_key(prefix, pair), index_key(prefix, pair)] {
                    assert!(keys.contains_key(&named), "a checkpoint names {named}, which is not stored");
                }
            }
        }
        Answer::Arrives
    }
}

/// Calls as the state machine does: again with the same payload where a call failed or died, until all is done.
/// Returns how the calls ended that did not end well.
async fn until_done(cloud: &Cloud, struck: Arc<Struck>, window: &Window) -> Vec<String> {
    let through = cloud.through(struck.clone());
    let (mut task, mut unwell) = (task(window.clone(), None), Vec::new());
    loop {
        let call = runtime::Call::new(cloud.clock.clone(), Duration::from_secs(100));
        let deps = deps(&through);
        let ended = tokio::select! {
            ended = handle(&deps, task.clone(), call) => ended.map_err(|error| error.name().as_str().to_owned()),
            () = struck.died.notified() => Err("died".to_owned()),
        };
        struck.is_dead.store(false, Ordering::SeqCst);
        match ended {
            Ok(next) if !next.more => return unwell,
            Ok(next) => task = next,
            Err(how) => unwell.push(how),
        }
        assert!(unwell.len() < 3, "{unwell:?}");
    }
}

#[tokio::test]
async fn whichever_upload_fails_or_is_the_last_of_a_function_the_spool_is_whole_in_the_end() {
    let keys = ["records-00000.zst", "index-00000.jsonl.zst", "records-00001.zst", "index-00003.jsonl.zst"];
    for key in keys.into_iter().chain(["records-00004.zst", "index-00004.jsonl.zst"]) {
        for fate in [Fate::Fails, Fate::Dies, Fate::DiesBehind] {
            let (cloud, whole) = several_pairs(4500).await;
            let struck = Arc::new(Struck {
                cloud: cloud.clone(),
                key,
                fate,
                died: Default::default(),
                has_struck: Default::default(),
                is_dead: Default::default(),
            });
            let unwell = until_done(&cloud, struck, &whole).await;
            assert_eq!(unwell, [if fate == Fate::Fails { "StoreUnavailable" } else { "died" }], "{fate:?} {key}");
            assert_whole(&cloud, &whole, latest_attempt(&cloud), 4500).await;
        }
    }
}

/// Holds the first point in time up for five minutes.
struct HeldUp(Cloud, std::sync::atomic::AtomicBool);

#[async_trait]
impl Network for HeldUp {
    async fn sent(&self, request: &Request) -> Result<(), network::Broken> {
        let opens = request.subject.contains("point_in_time");
        if opens && !self.1.swap(true, std::sync::atomic::Ordering::Relaxed) {
            self.0.clock.advance(Duration::from_secs(300));
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_reading_that_is_held_up_before_its_point_in_time_is_dated_behind_it() {
    let cloud = planned().await;
    let slow = cloud.through(Arc::new(HeldUp(cloud.clone(), Default::default())));
    let began = cloud.call().now();
    handle(&deps(&slow), task(day(0), None), cloud.call()).await.expect("drained");
    let summary = cloud.json(&checkpoint_key(&spool_prefix(RUN, &day(0).window_id, 2)));
    let seen_at: jiff::Timestamp = summary["seen_at"].as_str().expect("a time").parse().expect("a time");
    assert!(seen_at >= began + jiff::SignedDuration::from_mins(5), "{seen_at}, begun at {began}");
    assert_eq!(cloud.node.points_in_time(), 0, "the first one is closed, too");
}

/// Forgets all points in time before the first page.
struct Forgetful(Cloud, std::sync::atomic::AtomicBool);

#[async_trait]
impl Network for Forgetful {
    async fn answered(&self, request: &Request) -> Answer {
        let is_first_count = request.subject == "/_search" && !self.1.swap(true, std::sync::atomic::Ordering::SeqCst);
        if is_first_count {
            self.0.node.forget_points_in_time();
        }
        Answer::Arrives
    }
}

#[tokio::test]
async fn a_point_in_time_that_expires_starts_a_new_attempt_and_splices_nothing() {
    let cloud = planned().await;
    let forgetful = cloud.through(Arc::new(Forgetful(cloud.clone(), Default::default())));
    let done = handle(&deps(&forgetful), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!(done.attempt, Some(2));
    assert_eq!(spooled(&cloud).await.len(), 3);
}

#[tokio::test]
async fn a_source_that_gives_only_a_part_fails_the_window_by_name() {
    let cloud = planned().await;
    cloud.node.fail_shards(usize::MAX);
    let error = handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect_err("a part");
    assert_eq!(error.name(), "PageIncomplete");
    assert_eq!(cloud.window_rows()[0]["error"], "PageIncomplete");
    cloud.node.fail_shards(2);
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("whole after two tries");
    assert_eq!(spooled(&cloud).await.len(), 3);
}

#[tokio::test]
async fn what_changes_during_the_drain_is_not_seen_by_it() {
    let cloud = planned().await;
    cloud.node.let_refresh_lag();
    cloud.put_message("late", "2024-07-01T05:00:00Z", "closed");
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!(spooled(&cloud).await.len(), 3, "a search does not see it yet");
    cloud.node.refresh();
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!(spooled(&cloud).await.len(), 4);
}

#[tokio::test]
async fn whatever_request_fails_another_call_spools_the_same() {
    let query = async |cloud: &Cloud| handle(&deps(cloud), task(day(0), None), cloud.call()).await;
    let look = |cloud: &Cloud| {
        let attempt = format!("/{}/", latest_attempt(cloud));
        let keys = cloud.keys("spool/").into_keys().filter(|key| key.contains(&attempt));
        let mut contents: Vec<(String, usize)> = Vec::new();
        for key in keys {
            let bytes = cloud.object(&key).len();
            contents.push((key.replace(&attempt, "/N/"), bytes));
        }
        contents
    };
    assert!(fail_each_request(planned, query, look).await > 15);
}

#[tokio::test]
async fn a_page_that_the_node_has_no_memory_for_is_asked_for_smaller() {
    let cloud = planned().await;
    for n in 0..300 {
        cloud.put_message(&format!("m{n:03}"), "2024-07-01T05:00:00Z", "closed");
    }
    cloud.node.refuse_pages_above(7);
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!(spooled(&cloud).await.len(), 303);
}

/// Reading history takes longer each time than half of what a point in time lives.
struct SlowHistory(Cloud);

#[async_trait]
impl Network for SlowHistory {
    async fn answered(&self, request: &Request) -> Answer {
        if request.operation == "_search" && request.subject.contains("history") {
            self.0.clock.advance(Duration::from_secs(100));
            // Whatever else has something to do comes to it.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        Answer::Arrives
    }
}

#[tokio::test]
async fn a_document_that_is_read_by_name_and_has_no_instant_any_more_comes_into_no_partition_of_its_own() {
    let cloud = Cloud::default();
    let body = |id: &str, timestamp: Value, status: &str| {
        json!({"message_id": id, "timestamp": timestamp, "alerts": [{"status": status}]}).to_string()
    };
    for (id, timestamp, status) in [
        ("bare", json!(null), "closed"),
        ("dated", json!("2024-07-01T05:00:00Z"), "closed"),
        ("early", json!("-000005-01-01T00:00:00Z"), "closed"),
        ("open", json!(null), "open"),
    ] {
        cloud.node.put("messages", id, &body(id, timestamp, status));
    }
    let at = day(0).from;
    let names = ["bare", "dated", "early", "open"].map(|id| Dated { at, document: Identity::new("messages", id) });
    let window = Window::of_documents(Purpose::Recheck, names.to_vec()).remove(0);
    cloud.given_window(&window, |planned| planned).await;
    handle(&deps(&cloud), task(window.clone(), None), cloud.call()).await.expect("drained");
    let mut found: Vec<_> = entries(&cloud, &window).await.into_iter().collect();
    found.sort_by(|left, right| left.id.cmp(&right.id));
    let told: Vec<_> =
        found.iter().map(|entry| (entry.id.as_str(), entry.date(), json!(entry.outcome.reason))).collect();
    let day = "2024-07-01".to_owned();
    let unusable = json!("timestamp_unusable");
    assert_eq!(
        told,
        [
            ("bare", day.clone(), unusable.clone()),
            ("dated", day.clone(), Value::Null),
            ("early", day.clone(), unusable),
            ("open", day, Value::Null),
        ]
    );
    assert_eq!(found[3].outcome.disposition, Disposition::Open, "it is asked for by its name once more");
}

#[tokio::test]
async fn a_point_in_time_outlives_the_history_of_a_page_that_takes_longer() {
    let cloud = planned().await;
    for n in 0..300 {
        cloud.put_message(&format!("m{n:03}"), "2024-07-01T05:00:00Z", "closed");
    }
    let slow = cloud.through(Arc::new(SlowHistory(cloud.clone())));
    let call = runtime::Call::new(cloud.clock.clone(), Duration::from_secs(100_000));
    let done = handle(&deps(&slow), task(day(0), None), call).await.expect("drained");
    assert_eq!((done.attempt, spooled(&cloud).await.len()), (Some(1), 303), "it never had to begin anew");
    assert_eq!(cloud.node.points_in_time(), 0);
}

#[tokio::test]
async fn a_window_takes_contexts_only_of_the_indices_that_hold_it() {
    let cloud = planned().await;
    for name in ["messages", "history", "audit"] {
        for month in 0..120 {
            cloud.node.clone().alias(&format!("all-{name}"), &format!("{name}-{month:03}"));
        }
        cloud.node.clone().alias(&format!("all-{name}"), name);
    }
    let indices = ["all-messages", "all-history", "all-audit"].map(str::to_owned);
    let [messages, history, audit] = indices;
    let indices = sources::Indices { messages, history, audit };
    let sources = sources::Sources::over(sources::OpenSearch::over(cloud.node.clone(), indices));
    handle(&Deps { sources, ..deps(&cloud) }, task(day(0), None), cloud.call()).await.expect("drained");
    assert_eq!((spooled(&cloud).await.len(), cloud.node.most_contexts()), (3, 1));
}

#[tokio::test]
async fn one_id_under_several_routings_of_an_index_is_quarantined_by_name() {
    let cloud = planned().await;
    let body = |id: &str| json!({"message_id": id, "timestamp": "2024-07-01T05:00:00Z"}).to_string();
    for (id, routing) in [("m", Some("left")), ("m", Some("right")), ("m", None), ("n", Some("left"))] {
        cloud.node.put_routed("messages", id, routing, &body(id));
    }
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    let mut spooled = spooled(&cloud).await;
    spooled.sort_by(|left, right| left.0.cmp(&right.0));
    let expected = [
        ("a", "closed"),
        ("b", "open"),
        ("c", "quarantined"),
        ("m (no routing)", "quarantined"),
        ("m (routing left)", "quarantined"),
        ("m (routing right)", "quarantined"),
        ("n", "closed"),
    ];
    assert_eq!(spooled, expected.map(|(id, disposition)| (id.to_owned(), json!(disposition))));
}

#[tokio::test]
async fn however_long_a_routing_is_the_id_that_it_tells_apart_fits_into_a_key() {
    let cloud = planned().await;
    let body = json!({"message_id": "m", "timestamp": "2024-07-01T05:00:00Z"}).to_string();
    for end in ["left", "right"] {
        cloud.node.put_routed("messages", "m", Some(&format!("{}{end}", "r".repeat(3000))), &body);
    }
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    let entries = entries(&cloud, &day(0)).await;
    let told: HashSet<&str> =
        entries.iter().map(|entry| entry.id.as_str()).filter(|id| id.starts_with("m (")).collect();
    assert!(told.len() == 2 && told.iter().all(|id| id.len() < 1024), "{told:?}");
}

#[tokio::test]
async fn more_history_than_a_function_can_hold_sends_its_message_into_quarantine_by_name() {
    let cloud = planned().await;
    let details = "x".repeat(1 << 20);
    for n in 0..70 {
        let history = json!({"message_id": "a", "timestamp": "2024-07-01T01:00:00Z", "details": details});
        cloud.node.put("history", &format!("large-{n}"), &history.to_string());
    }
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    let expected = [("a", "quarantined"), ("b", "open"), ("c", "quarantined")];
    assert_eq!(spooled(&cloud).await, expected.map(|(id, disposition)| (id.to_owned(), json!(disposition))));
    assert_eq!(cloud.node.points_in_time(), 0);
}

#[tokio::test]
async fn history_is_found_by_its_body_where_a_keyword_alone_leaves_out_the_long_id_of_its_message() {
    let cloud = Cloud::default();
    cloud.node.keep_no_keyword_above(256);
    let long = "é/".repeat(150);
    for id in [long.as_str(), "short"] {
        cloud.put_message(id, "2024-07-01T01:00:00Z", "closed");
    }
    // More than one answer holds, and none of it the message's.
    for n in 0..1200 {
        let other = json!({"message_id": format!("{long}{n}"), "timestamp": "2024-07-01T01:00:00Z"});
        cloud.node.put("history", &format!("other-{n}"), &other.to_string());
    }
    cloud.given_window(&day(0), |planned| planned).await;
    handle(&deps(&cloud), task(day(0), None), cloud.call()).await.expect("drained");
    let entries = entries(&cloud, &day(0)).await;
    let related = |id: &str| entries.iter().find(|entry| entry.id == id).expect("an entry").related_bytes;
    assert!(related("short") > 0 && related(&long) > related("short"), "history and audit of both, and of no other");
    assert!(related(&long) < 4 * long.len() as u64);
}
