//! Whole runs whose messages come from the fixture API, alone or beside OpenSearch, over a clock that the test moves.

use async_trait::async_trait;
use fixtures::api::{Message, Secret, Server, Settings};
use jiff::{SignedDuration, Timestamp};
use memory_cloud::{BUCKET, Cloud};
use runtime::Clock;
use serde_json::{Value, json};
use simulation::{Archive, Watch};
use sources::{
    ReadSecret, SecretError, SourceMode,
    api::{Api, Granted, Pace, Turns},
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

struct Token;

#[async_trait]
impl ReadSecret for Token {
    async fn read(&self) -> Result<String, SecretError> {
        Ok(r#"{"token":"token-of-the-tests"}"#.to_owned())
    }
}

/// The clock of these runs stands still while they work, so that no turn may lie ahead.
struct NoLimit;

#[async_trait]
impl Pace for NoLimit {
    async fn reserve(&self, wanted: usize, now: Timestamp) -> Result<Granted, String> {
        Ok(Granted { first_micros: now.as_microsecond(), step_micros: 0, count: wanted.max(1) as u32 })
    }

    async fn pause(&self, _: Timestamp) -> Result<(), String> {
        Ok(())
    }
}

/// One turn, the fourth, lies behind the end of the call: other functions took those before it.
#[derive(Default)]
struct Taken(std::sync::atomic::AtomicU32);

#[async_trait]
impl Pace for Taken {
    async fn reserve(&self, _: usize, now: Timestamp) -> Result<Granted, String> {
        let is_taken = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 3;
        let at = if is_taken { now + SignedDuration::from_hours(1) } else { now };
        Ok(Granted { first_micros: at.as_microsecond(), step_micros: 0, count: 1 })
    }

    async fn pause(&self, _: Timestamp) -> Result<(), String> {
        Ok(())
    }
}

struct World {
    cloud: Cloud,
    server: Server,
    api: Api,
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let secret = Secret::Token { token: "token-of-the-tests".into() };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(address, secret, Settings::default()).await.expect("a server");
        let api = Api::connect(&server.url, 10, Arc::new(Token), Turns::new(Box::new(NoLimit))).expect("an API");
        World { cloud: Cloud::default(), server, api }
    }

    fn now(&self) -> Timestamp {
        self.cloud.clock.now()
    }

    fn archive(&self, mode: SourceMode) -> Archive<'_> {
        Archive { api: Some((mode, self.api.clone())), retries: 0, ..Archive::new(self.cloud.clone()) }
    }

    fn pass(&self, days: u64) {
        self.cloud.clock.advance(Duration::from_secs(days * 86_400));
    }

    /// Into the API, and behind the alias too where it is meant to.
    fn put(&self, id: &str, at: Timestamp, status: &str, text: &str, is_indexed: bool) {
        let alert = json!({"alert_id": "a", "status": status});
        let timestamp = identity::instant::iso(at);
        let source = json!({"message_id": id, "timestamp": timestamp, "text": text, "alerts": [alert]}).to_string();
        if is_indexed {
            self.cloud.node.put("messages", id, &source);
        }
        let at = at.as_millisecond();
        self.server.state.messages().put(Message { at, id: id.to_owned(), source: source.into_bytes() });
    }

    /// Message and index of each row under `archive/parquet`, by id; each stands there once.
    fn archived(&self) -> BTreeMap<String, (String, String)> {
        let mut found = BTreeMap::new();
        for key in self.cloud.keys("archive/parquet/").into_keys() {
            for row in columnar::rows(self.cloud.object(&key)).expect("Parquet") {
                let row = row.expect("a row");
                let message: Value = serde_json::from_slice(&row.record.message).expect("JSON");
                let text = message["text"].as_str().unwrap_or_default().to_owned();
                let before = found.insert(row.identity.id.clone(), (row.identity.source_index, text));
                assert_eq!(before, None, "{} stands in the archive twice", row.identity.id);
            }
        }
        found
    }

    /// How long before `now` the oldest message lies that the API was asked for since the last look.
    fn furthest_back(&self) -> Option<SignedDuration> {
        let asked = self.server.state.take_asked();
        let starts = asked.iter().map(|asked| {
            let start = asked.query.split('&').find_map(|pair| pair.strip_prefix("start_time=")).expect("a start");
            start.replace("%3A", ":").parse::<Timestamp>().expect("an instant")
        });
        Some(self.now().duration_since(starts.min()?))
    }
}

/// Loses the spool of each window, so that all of them fail.
struct Spoil(Cloud);

impl Watch for Spoil {
    fn before(&self, function: &str, _: &Value) {
        if function == "classify-alerts" {
            self.0.store.expire(BUCKET, "spool/");
        }
    }
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

/// A range that reaches 17 days over the border on both sides, all of whose windows failed.
async fn failed_over_the_border() -> (World, BTreeMap<String, (String, String)>) {
    let world = World::new().await;
    let border = world.now() - days(45);
    let mut expected = BTreeMap::new();
    for number in -80..80i64 {
        // The border itself, and the milliseconds beside it, belong to one side each.
        let at = match number {
            -1..=1 => border + SignedDuration::from_millis(number),
            _ => border + SignedDuration::from_hours(number * 5),
        };
        let id = format!("m{:04}", number + 1000);
        world.put(&id, at, "closed", "first", true);
        expected.insert(id, ("messages".to_owned(), "first".to_owned()));
    }
    let (from, to) = (identity::instant::iso(border - days(17)), identity::instant::iso(border + days(17)));
    let spoil = Spoil(world.cloud.clone());
    let archive = Archive { watch: &spoil, ..world.archive(SourceMode::Hybrid) };
    let failed =
        archive.run("r1", json!({"mode": "range", "from": from, "to": to})).await.expect_err("all windows failed");
    assert_eq!(failed.name, "WindowsFailed", "{failed}");
    assert!(world.archived().is_empty());
    assert_eq!(world.furthest_back(), Some(days(45)), "the API is asked for nothing older than the border");
    (world, expected)
}

#[tokio::test]
async fn a_range_over_the_border_is_redriven_fourteen_days_later_and_loses_and_doubles_nothing() {
    let (world, expected) = failed_over_the_border().await;
    world.pass(14);
    let report = world.cloud.json("runs/r1/report.json");
    let failed = report["windows"]["failed"].as_u64().expect("a number");
    let list = world.cloud.keys("runs/r1/windows-failed-1-").into_keys().next().expect("a list");
    let collected = json!({
        "v": 1, "run_id": "r1", "mode": "range", "execution_arn": memory_cloud::given::arn("r1"), "bucket": BUCKET,
        "report_key": "runs/r1/report.json", "failed": failed, "windows": failed,
        "windows_key": list, "reported_at": 0,
    });
    let collected = serde_json::from_value(collected).expect("a payload");
    let redriven = world.archive(SourceMode::Hybrid).redrive(&memory_cloud::given::arn("r1"), collected).await;
    redriven.expect("a good end");
    assert_eq!(world.archived(), expected);
    let furthest = world.furthest_back().expect("its windows are still the API's");
    assert!(furthest == days(59), "an API that keeps 60 days has all of it: {furthest}");
    assert_eq!(world.cloud.json("runs/r1/report.json")["messages"]["archived"], 160);
}

#[tokio::test]
async fn a_rerun_that_comes_so_late_that_the_api_has_dropped_messages_asks_the_index() {
    let (world, expected) = failed_over_the_border().await;
    world.pass(30);
    let again = json!({"mode": "failed-only", "run_id": "r1"});
    world.archive(SourceMode::Hybrid).run("r1-again", again).await.expect("a good end");
    assert_eq!(world.archived(), expected);
    assert!(world.furthest_back().is_none_or(|furthest| furthest < days(60)));
}

#[tokio::test]
async fn a_turn_that_comes_too_late_for_a_call_is_left_to_the_next_with_what_has_come() {
    let world = World::new().await;
    for number in 0..60 {
        world.put(&format!("m{number}"), world.now() - days(3), "closed", "first", false);
    }
    let api = Api::connect(&world.server.url, 10, Arc::new(Token), Turns::new(Box::new(Taken::default())));
    let archive = Archive { window_messages: 1000, ..world.archive(SourceMode::Api) };
    let archive = Archive { api: Some((SourceMode::Api, api.expect("an API"))), ..archive };
    let (from, to) = (identity::instant::iso(world.now() - days(4)), identity::instant::iso(world.now()));
    archive.run("r1", json!({"mode": "range", "from": from, "to": to})).await.expect("a good end");
    assert_eq!(world.archived().len(), 60);
}

async fn week(world: &World, run_id: &str) -> Value {
    week_of(world, SourceMode::Api, run_id).await
}

async fn week_of(world: &World, mode: SourceMode, run_id: &str) -> Value {
    world.pass(7);
    let input = json!({"mode": "scheduled", "scheduled_for": identity::instant::iso(world.now())});
    let archive = match mode {
        SourceMode::OpenSearch => Archive::new(world.cloud.clone()),
        _ => world.archive(mode),
    };
    archive.run(run_id, input).await.expect("a good end");
    world.cloud.json(&format!("runs/{run_id}/report.json"))
}

#[tokio::test]
async fn history_of_a_message_that_the_api_alone_gave_is_archived_when_it_grows_beside_an_index() {
    let world = World::new().await;
    world.put("m", world.now() - days(3), "closed", "first", true);
    week(&world, "alone").await;
    assert_eq!(world.archived()["m"].0, "api");
    week_of(&world, SourceMode::Hybrid, "beside-1").await;
    let noted = json!({"message_id": "m", "timestamp": world.now(), "event": "noted"});
    world.cloud.node.put("history", "m-1", &noted.to_string());
    let report = week_of(&world, SourceMode::Hybrid, "beside-2").await;
    assert_eq!((&report["sweep"]["changed"], world.archived().len()), (&json!(1), 1));
    let objects = world.cloud.keys("archive/parquet/").into_keys().map(|key| world.cloud.object(&key));
    let rows = objects.flat_map(|object| columnar::rows(object).expect("Parquet").map(|row| row.expect("a row")));
    assert_eq!(rows.map(|row| row.record.history.len()).sum::<usize>(), 1);
    assert_eq!(week_of(&world, SourceMode::Hybrid, "beside-3").await["sweep"]["changed"], 0);
}

#[tokio::test]
async fn of_an_api_alone_a_late_a_changed_and_a_reopened_message_are_found_though_it_numbers_no_writes() {
    let world = World::new().await;
    let begin = world.now();
    for id in ["changes", "reopens", "stays"] {
        world.put(id, begin - days(3), "closed", "first", false);
    }
    week(&world, "w1").await;
    assert_eq!(world.archived().len(), 3);
    world.put("late", begin - days(10), "closed", "first", false);
    world.put("changes", begin - days(3), "closed", "again", false);
    world.put("reopens", begin - days(3), "open", "again", false);
    let report = week(&world, "w2").await;
    assert_eq!((&report["messages"]["archived"], &report["messages"]["already_archived"]), (&json!(2), &json!(1)));
    assert_eq!((&report["backlog"], &report["reopened"]), (&json!(1), &json!(1)));
    let text = |id: &str| world.archived()[id].1.clone();
    assert_eq!(["changes", "late", "reopens", "stays"].map(text), ["again", "first", "first", "first"]);
    // Nothing new: all of it is listed, and nothing is written.
    let before = world.cloud.keys("archive/parquet/");
    let report = week(&world, "w3").await;
    assert_eq!((&report["messages"]["archived"], &report["backlog"]), (&json!(0), &json!(1)));
    assert_eq!(world.cloud.keys("archive/parquet/"), before);
    // It closes when it is older than what each run lists again: its own instant is asked for.
    for week_number in 4..8 {
        week(&world, &format!("w{week_number}")).await;
    }
    world.put("reopens", begin - days(3), "closed", "third", false);
    assert!(world.now() - days(45) > begin - days(3));
    let report = week(&world, "w8").await;
    assert_eq!((&report["recheck"]["closed"], &report["reopened"]), (&json!(1), &json!(0)));
    assert_eq!(text("reopens"), "third");
}

#[tokio::test]
async fn where_the_api_alone_is_asked_from_now_on_what_an_index_had_is_archived_once() {
    for earlier in [SourceMode::OpenSearch, SourceMode::Hybrid] {
        let world = World::new().await;
        let begin = world.now();
        for (id, status) in [("changes", "closed"), ("closes", "open"), ("stays", "closed"), ("waits", "open")] {
            world.put(id, begin - days(3), status, "first", true);
        }
        week_of(&world, earlier, "w1").await;
        let since = |id: &str| {
            let rows: Vec<Value> =
                world.cloud.tracking_rows().into_iter().filter(|row| row["message_id"] == id).collect();
            assert_eq!(rows.len(), 1, "{id}: {rows:?}");
            rows[0]["first_seen_open"].clone()
        };
        let held_since = since("waits");
        world.put("closes", begin - days(3), "closed", "again", true);
        let report = week(&world, "w2").await;
        let counts = ["archived", "already_archived", "open"].map(|name| report["messages"][name].as_u64());
        assert_eq!((counts, &report["backlog"]), ([Some(1), Some(2), Some(1)], &json!(1)));
        assert_eq!((world.archived().len(), since("waits"), since("stays")), (3, held_since, Value::Null));
        // What changes from then on is archived anew, and takes the place of what the index had.
        world.put("changes", begin - days(3), "closed", "again", true);
        let report = week(&world, "w3").await;
        assert_eq!((&report["messages"]["archived"], &report["messages"]["already_archived"]), (&json!(1), &json!(2)));
        assert_eq!((world.archived().len(), world.archived()["changes"].1.as_str()), (3, "again"));
        // And back again.
        week_of(&world, SourceMode::Hybrid, "w4").await;
        assert_eq!(world.archived().len(), 3);
        assert_eq!(world.cloud.tracking_rows().len(), 4);
    }
}
