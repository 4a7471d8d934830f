//! A year of weekly runs over a source that changes between them, compared after every run with a simple model of what
//! should have come out. `YEARS=500 cargo test -p simulation --test year` runs more of them, `SEED=7` one.

use jiff::{SignedDuration, Timestamp};
use memory_cloud::Cloud;
use runtime::Clock;
use serde_json::{Value, json};
use simulation::{Archive, Watch};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A generator of numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        // The steps of splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn pick<'a>(&mut self, from: &'a [String]) -> Option<&'a String> {
        from.get(self.below(from.len().max(1) as u64) as usize)
    }
}

/// A message as the source has it.
#[derive(Clone)]
struct Message {
    index: String,
    at: Timestamp,
    is_open: bool,
    /// Counts its versions.
    version: u64,
}

impl Message {
    fn body(&self, id: &str) -> String {
        let status = if self.is_open { "open" } else { "closed" };
        let alert = json!({"alert_id": "a", "status": status});
        let at = identity::instant::iso(self.at);
        json!({"message_id": id, "timestamp": at, "n": self.version, "alerts": [alert]}).to_string()
    }
}

/// What the archive should know.
#[derive(Default)]
struct Model {
    source: BTreeMap<String, Message>,
    /// Documents of history, by message.
    history: BTreeMap<String, usize>,
    /// The newest closed version that a run has seen, and how much history it had.
    archived: BTreeMap<String, (String, usize)>,
    held_over: BTreeSet<String>,
    /// Archived messages that went while they were open again.
    gone_reopened: BTreeSet<String>,
    /// Where the next range begins.
    watermark: Option<Timestamp>,
}

/// What the report of a run should say.
#[derive(Debug, Default, PartialEq)]
struct Told {
    looked_at: u64,
    closed: u64,
    open: u64,
    gone: u64,
    late: u64,
    changed: u64,
    reopened: u64,
    archived: u64,
    backlog: u64,
    /// Archived messages that are not final.
    not_final: u64,
}

impl Model {
    fn version(&self, id: &str) -> (String, usize) {
        (self.source[id].body(id), self.history.get(id).copied().unwrap_or_default())
    }

    /// Archived messages that are open again, or went while they were.
    fn not_final(&self) -> BTreeSet<String> {
        let reopened = self.held_over.iter().filter(|id| self.archived.contains_key(*id));
        reopened.chain(&self.gone_reopened).cloned().collect()
    }

    /// A run whose range ends at `to`.
    fn run(&mut self, to: Timestamp) -> Told {
        let from = self.watermark.unwrap_or(Timestamp::MIN);
        let is_in_range = |at: Timestamp| from <= at && at < to;
        let is_first = self.watermark.replace(to).is_none();
        let mut told = Told::default();
        for id in self.held_over.clone() {
            told.looked_at += 1;
            match self.source.get(&id) {
                None => {
                    told.gone += 1;
                    self.held_over.remove(&id);
                    if self.archived.contains_key(&id) {
                        self.gone_reopened.insert(id);
                    }
                }
                Some(message) if message.is_open => told.open += 1,
                Some(_) => {
                    told.closed += 1;
                    told.archived += 1;
                    self.held_over.remove(&id);
                    self.archived.insert(id.clone(), self.version(&id));
                }
            }
        }
        for (id, message) in &self.source {
            let version = self.version(id);
            let is_known = self.archived.contains_key(id) || self.held_over.contains(id);
            if !is_in_range(message.at) && (is_first || message.at >= to) {
                continue;
            }
            match (is_known, message.is_open) {
                (false, is_open) => {
                    told.late += u64::from(!is_in_range(message.at));
                    told.archived += u64::from(!is_open);
                    if is_open {
                        self.held_over.insert(id.clone());
                    } else {
                        self.archived.insert(id.clone(), version);
                    }
                }
                (true, true) if !self.held_over.contains(id) => {
                    told.reopened += 1;
                    self.held_over.insert(id.clone());
                }
                (true, false) if self.archived.get(id) != Some(&version) => {
                    told.changed += 1;
                    told.archived += 1;
                    self.archived.insert(id.clone(), version);
                }
                _ => {}
            }
        }
        told.backlog = self.held_over.len() as u64;
        told.not_final = self.not_final().len() as u64;
        told
    }
}

/// What a report says.
fn told_by(report: &Value) -> Told {
    let of = |part: &str, name: &str| report[part][name].as_u64().unwrap_or(u64::MAX);
    Told {
        looked_at: of("recheck", "looked_at"),
        closed: of("recheck", "closed"),
        open: of("recheck", "open"),
        gone: of("recheck", "gone"),
        late: of("sweep", "late"),
        changed: of("sweep", "changed"),
        reopened: of("sweep", "reopened"),
        archived: of("messages", "archived"),
        backlog: report["backlog"].as_u64().unwrap_or(u64::MAX),
        not_final: report["reopened"].as_u64().unwrap_or(u64::MAX),
    }
}

/// The world: the source, and the model that is told the same.
struct World {
    cloud: Cloud,
    model: Model,
    dice: Dice,
    /// The index that new messages go into.
    index: &'static str,
    made: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let cloud = Cloud::default();
        // An alias over two indices: from the middle of the year on new messages go into the second.
        let _ = cloud.node.clone().alias("messages", "messages-1").alias("messages", "messages-2");
        World { cloud, model: Model::default(), dice: Dice(seed), index: "messages-1", made: 0 }
    }

    fn put(&mut self, id: &str, message: Message) {
        self.cloud.node.put(&message.index, id, &message.body(id));
        self.model.source.insert(id.to_owned(), message);
    }

    fn make(&mut self, at: Timestamp) {
        self.made += 1;
        let is_open = self.dice.below(3) == 0;
        let message = Message { index: self.index.to_owned(), at, is_open, version: 0 };
        self.put(&format!("m{:04}", self.made), message);
    }

    /// A week goes by.
    fn live(&mut self) {
        let now = self.cloud.clock.now();
        self.cloud.clock.advance(Duration::try_from(WEEK).expect("a week"));
        for _ in 0..self.dice.below(8) {
            let after = SignedDuration::from_secs(self.dice.below(WEEK.as_secs() as u64 - 7200) as i64);
            self.make(now + after);
        }
        for _ in 0..self.dice.below(3) {
            let before = SignedDuration::from_hours(24 * (8 + self.dice.below(200)) as i64);
            self.make(now - before);
        }
        for _ in 0..self.dice.below(6) {
            let ids: Vec<String> = self.model.source.keys().cloned().collect();
            let Some(id) = self.dice.pick(&ids).cloned() else { return };
            let mut message = self.model.source[&id].clone();
            message.version += 1;
            match self.dice.below(5) {
                0 => {
                    self.cloud.node.delete(&message.index, &id);
                    self.model.source.remove(&id);
                    continue;
                }
                1 => {}
                _ => message.is_open = !message.is_open,
            }
            self.put(&id, message);
        }
        for _ in 0..self.dice.below(3) {
            let ids: Vec<String> = self.model.source.keys().cloned().collect();
            let Some(id) = self.dice.pick(&ids).cloned() else { return };
            let lines = self.model.history.entry(id.clone()).or_default();
            *lines += 1;
            let at = identity::instant::iso(self.cloud.clock.now());
            let line = json!({"message_id": id, "timestamp": at, "event": "noted", "n": *lines});
            self.cloud.node.put("history", &format!("{id}-{lines}"), &line.to_string());
        }
    }

    /// The first index is made anew under its name, with the same documents: its writes are numbered from 0 again.
    fn restore(&mut self) {
        self.cloud.node.remove_index("messages-1");
        let _ = self.cloud.node.clone().alias("messages", "messages-1");
        for (id, message) in self.model.source.iter().filter(|(_, message)| message.index == "messages-1") {
            self.cloud.node.put("messages-1", id, &message.body(id));
        }
    }

    /// A third index takes the place of the second one, with the same documents.
    fn reindex(&mut self) {
        let _ = self.cloud.node.clone().alias("messages", "messages-3");
        for (id, message) in self.model.source.iter_mut().filter(|(_, message)| message.index == "messages-2") {
            message.index = "messages-3".to_owned();
            self.cloud.node.put("messages-3", id, &message.body(id));
        }
        self.cloud.node.remove_index("messages-2");
        self.index = "messages-3";
    }

    fn input(&self) -> (Value, Timestamp) {
        let now = self.cloud.clock.now();
        (json!({"mode": "scheduled", "scheduled_for": identity::instant::iso(now)}), now - HOUR)
    }

    /// The archive, the open rows and the report are as the model says.
    fn check(&self, run_id: &str, expected: &Told) {
        let mut archived = BTreeMap::new();
        for key in self.cloud.keys("archive/parquet/").into_keys() {
            for row in columnar::rows(self.cloud.object(&key)).expect("Parquet") {
                let row = row.expect("a row");
                let body = String::from_utf8(row.record.message).expect("UTF-8");
                let (id, version) = (row.identity.id, (body, row.record.history.len()));
                assert_eq!(archived.insert(id.clone(), version), None, "{run_id}: {id} stands in the archive twice");
            }
        }
        assert_eq!(archived, self.model.archived, "{run_id}: the archive");
        let rows = self.cloud.tracking_rows();
        let is_held = |row: &&Value| row["disposition"] == "open" && !row["staging"].is_null();
        let id = |row: &Value| row["message_id"].as_str().unwrap_or_default().to_owned();
        let held: BTreeSet<String> = rows.iter().filter(is_held).map(id).collect();
        assert_eq!(held, self.model.held_over, "{run_id}: held over");
        let not_final =
            columnar::reopened::read(self.cloud.object("archive/reopened/reopened.parquet")).expect("Parquet");
        let not_final: BTreeSet<String> = not_final.into_iter().map(|row| row.identity.id).collect();
        assert_eq!(not_final, self.model.not_final(), "{run_id}: not final");
        let report = self.cloud.json(&format!("runs/{run_id}/report.json"));
        assert_eq!(told_by(&report), *expected, "{run_id}: {report:#}");
        assert_eq!(report["reconciled"], true, "{run_id}");
    }
}

/// The spool of the first window of a run is lost.
struct Loss(Cloud, std::sync::atomic::AtomicBool);

impl Watch for Loss {
    fn before(&self, function: &str, _: &Value) {
        if function == "classify-alerts" && !self.1.swap(true, std::sync::atomic::Ordering::SeqCst) {
            self.0.store.expire(memory_cloud::BUCKET, "spool/");
        }
    }
}

async fn year(seed: u64) {
    let mut world = World::new(seed);
    for week in 1..=52 {
        world.live();
        match week {
            26 => world.index = "messages-2",
            33 => world.restore(),
            45 => world.reindex(),
            _ => {}
        }
        let (input, to) = world.input();
        let run_id = format!("seed-{seed}-week-{week}");
        let archive = Archive::new(world.cloud.clone());
        match week {
            // Nobody was there.
            10..=12 => continue,
            // The execution is aborted behind its plan.
            20 => {
                let arn = world.cloud.start(&run_id, &input).await;
                let (v, execution_arn) = (alerts::run::payloads::Version, arn.clone());
                let request = alerts::run::payloads::PlanRequest { v, input, run_id, execution_arn };
                archive.plan(request).await.expect("a plan");
                world.cloud.executions.end(&arn, "ABORTED", None);
                continue;
            }
            // A window fails, and the windows that failed are run again under the same run.
            40 => {
                let loss = Loss(world.cloud.clone(), Default::default());
                let outcome = Archive { watch: &loss, ..Archive::new(world.cloud.clone()) }.run(&run_id, input).await;
                if outcome.is_err() {
                    let again = json!({"mode": "failed-only", "run_id": run_id});
                    archive.run(&format!("{run_id}-again"), again).await.expect("a good end");
                }
            }
            // So much has piled up, or so little is taken, that a run leaves a part of it to another.
            13 | 30 => {
                let archive = Archive { run_windows: 1, window_messages: 3, ..archive };
                for part in 1.. {
                    let run_id = format!("{run_id}-{part}");
                    archive.run(&run_id, input.clone()).await.unwrap_or_else(|error| panic!("{run_id}: {error}"));
                    let left = world.cloud.json(&format!("runs/{run_id}/report.json"))["left"]["from"].clone();
                    let end = left.as_str().map_or(to, |from| from.parse().expect("an instant"));
                    let expected = world.model.run(end);
                    world.check(&run_id, &expected);
                    if end == to {
                        break;
                    }
                }
                continue;
            }
            _ => archive.run(&run_id, input).await.unwrap_or_else(|error| panic!("{run_id}: {error}")),
        }
        let expected = world.model.run(to);
        world.check(&run_id, &expected);
    }
}

#[tokio::test]
async fn after_every_week_of_a_year_the_archive_is_what_a_simple_model_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match (number("SEED"), number("YEARS")) {
        (Some(seed), _) => seed..=seed,
        (None, years) => 1..=years.unwrap_or(2),
    };
    for seed in seeds {
        println!("seed {seed}");
        Box::pin(year(seed)).await;
    }
}
