//! Weekly runs of the deployed workflow over a source that changes between them, compared after each with a simple
//! model. In CI a handful of weeks, on demand a whole year: `WEEKS=52 SEED=3`. The simulation has such years in memory
//! (`tests/simulation/tests/year.rs`), also with indices that are remade and windows that fail.

use crate::tests;
use anyhow::{Result, ensure};
use fixtures::Fixture;
use jiff::{SignedDuration, Timestamp};
use pipeline_tests::{Cloud, Message, Stretch, documents::instant, documents::iso};
use rand::{RngExt, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

tests![after_each_week_archive_open_rows_and_report_are_what_a_simple_model_says];

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What the archive should hold of a message: its bytes, and how many lines of history.
type Version = (String, usize);

#[derive(Default)]
struct Model {
    source: BTreeMap<String, Message>,
    history: BTreeMap<String, usize>,
    archived: BTreeMap<String, Version>,
    held_over: BTreeSet<String>,
    gone_reopened: BTreeSet<String>,
}

/// What the report of a week should say.
#[derive(Debug, Default, PartialEq)]
struct Told {
    closed: u64,
    gone: u64,
    late: u64,
    changed: u64,
    reopened: u64,
    archived: u64,
}

impl Model {
    fn version(&self, id: &str) -> Version {
        let source = String::from_utf8_lossy(&self.source[id].source).into_owned();
        (source, self.history.get(id).copied().unwrap_or_default())
    }

    fn is_open(&self, id: &str) -> bool {
        self.source[id].disposition == fixtures::Disposition::Open
    }

    /// A run over `[from, to)`.
    fn run(&mut self, from: Timestamp, to: Timestamp) -> Told {
        let mut told = Told::default();
        for id in self.held_over.clone() {
            if !self.source.contains_key(&id) {
                told.gone += 1;
                self.held_over.remove(&id);
                if self.archived.contains_key(&id) {
                    self.gone_reopened.insert(id);
                }
            } else if !self.is_open(&id) {
                told.closed += 1;
                told.archived += 1;
                self.held_over.remove(&id);
                self.archived.insert(id.clone(), self.version(&id));
            }
        }
        let seen: Vec<(String, Timestamp)> = self.source.iter().map(|(id, message)| (id.clone(), message.at)).collect();
        for (id, at) in seen.into_iter().filter(|(_, at)| *at < to) {
            let (is_archived, is_held) = (self.archived.contains_key(&id), self.held_over.contains(&id));
            let is_open = self.is_open(&id);
            told.late += u64::from(!is_archived && !is_held && at < from);
            told.reopened += u64::from(is_archived && !is_held && is_open);
            if is_open {
                self.held_over.insert(id);
            } else if self.archived.get(&id) != Some(&self.version(&id)) {
                told.changed += u64::from(is_archived);
                told.archived += 1;
                self.archived.insert(id.clone(), self.version(&id));
            }
        }
        told
    }

    fn not_final(&self) -> BTreeSet<String> {
        let reopened = self.held_over.iter().filter(|id| self.archived.contains_key(*id));
        reopened.chain(&self.gone_reopened).cloned().collect()
    }
}

struct World<'a> {
    cloud: &'a Cloud,
    stretch: Stretch,
    model: Model,
    dice: ChaCha8Rng,
    made: u32,
}

impl World<'_> {
    fn message(&self, name: &str, at: Timestamp, is_open: bool, version: u32) -> Message {
        let make = if is_open { Message::open } else { Message::closed };
        make(&self.stretch, name, &iso(at)).changed(&version.to_string())
    }

    /// What happens in the week that begins at `now`.
    async fn live(&mut self, now: Timestamp) -> Result<()> {
        let mut written: BTreeMap<String, Message> = BTreeMap::new();
        let mut ages: Vec<SignedDuration> = Vec::new();
        for _ in 0..self.dice.random_range(1..5) {
            ages.push(SignedDuration::from_mins(self.dice.random_range(0..7 * 24 * 60)));
        }
        for _ in 0..self.dice.random_range(0..3) {
            ages.push(-SignedDuration::from_mins(self.dice.random_range(0..30 * 24 * 60)));
        }
        for age in ages {
            self.made += 1;
            let is_open = self.dice.random_range(0..3) == 0;
            // Late ones of the first week lie before every range that the model knows.
            let at = (now + age).max(instant(&self.stretch.from()));
            let message = self.message(&format!("{:04}", self.made), at, is_open, 0);
            written.insert(message.id.clone(), message);
        }
        for turn in 0..self.dice.random_range(0..5) {
            let Some(id) = self.model.source.keys().choose(&mut self.dice).cloned() else { break };
            let before = self.model.source[&id].clone();
            if self.dice.random_range(0..6) == 0 && !written.contains_key(&id) {
                self.cloud.delete(&before).await?;
                self.model.source.remove(&id);
                continue;
            }
            let is_open = (before.disposition == fixtures::Disposition::Open) != (self.dice.random_range(0..4) > 0);
            let version = now.as_second() as u32 + turn;
            written.insert(id, self.message(before.name(), before.at, is_open, version));
        }
        let messages: Vec<Message> = written.values().cloned().collect();
        self.model.source.extend(written);
        let mut history = Vec::new();
        for _ in 0..self.dice.random_range(0..3) {
            let Some(id) = self.model.source.keys().choose(&mut self.dice).cloned() else { break };
            let lines = self.model.history.entry(id.clone()).or_default();
            *lines += 1;
            let line = json!({"message_id": id, "timestamp": iso(now), "event": "noted", "n": *lines});
            let (index, line_id) = ("history-a".to_owned(), format!("{id}-later-{lines}"));
            history.push(Fixture { index, id: line_id, source: line.to_string().into_bytes() });
        }
        self.cloud.source.write(history.into_iter(), |_| {}).await?;
        self.cloud.load(&messages).await
    }

    /// Archive and open rows are as the model says, and the report is, where it is known what that run did.
    async fn check(&self, week: u32, report: &Value, expected: Option<Told>) -> Result<()> {
        let mut archived: BTreeMap<String, Version> = BTreeMap::new();
        for row in self.cloud.archived(&self.stretch).await? {
            let before = archived.insert(row.message_id.clone(), (row.message, row.history.len()));
            ensure!(before.is_none(), "week {week}: {} stands in the archive twice", row.message_id);
        }
        ensure!(archived == self.model.archived, "week {week}: {archived:#?}, expected {:#?}", self.model.archived);
        let held: BTreeSet<String> =
            self.cloud.staged(&self.stretch).await?.into_iter().map(|document| document.id).collect();
        ensure!(held == self.model.held_over, "week {week}: held over {held:?}, expected {:?}", self.model.held_over);
        let list = columnar::reopened::read(self.cloud.get("archive/reopened/reopened.parquet").await?)?;
        let not_final: BTreeSet<String> =
            list.into_iter().map(|row| row.identity.id).filter(|id| self.is_own(id)).collect();
        ensure!(not_final == self.model.not_final(), "week {week}: not final {not_final:?}");
        let of = |part: &str, name: &str| report[part][name].as_u64().unwrap_or(u64::MAX);
        let told = Told {
            closed: of("recheck", "closed"),
            gone: of("recheck", "gone"),
            late: of("sweep", "late"),
            changed: of("sweep", "changed"),
            reopened: of("sweep", "reopened"),
            archived: of("messages", "archived"),
        };
        let is_expected = expected.as_ref().is_none_or(|expected| told == *expected);
        ensure!(is_expected, "week {week}: {told:?}, expected {expected:?}: {report:#}");
        ensure!(report["reconciled"] == true, "week {week}: {report:#}");
        Ok(())
    }

    fn is_own(&self, id: &str) -> bool {
        id.starts_with(&format!("{}-", self.stretch.prefix))
    }
}

async fn after_each_week_archive_open_rows_and_report_are_what_a_simple_model_says(cloud: &Cloud) -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    let (weeks, seed) = (number("WEEKS").unwrap_or(6).min(52), number("SEED").unwrap_or(11));
    eprintln!("    {weeks} weeks of seed {seed}");
    let stretch = cloud.stretch();
    let begin = instant(&stretch.from());
    let dice = ChaCha8Rng::seed_from_u64(u64::from(seed));
    let mut world = World { cloud, stretch: stretch.clone(), model: Model::default(), dice, made: 0 };
    // What other tests left is dealt with first: a scheduled run also looks behind its range.
    let week = async |name: &str, to: Timestamp| -> Result<Value> {
        let name = cloud.name(name, &stretch);
        // The settle margin of an hour.
        let at = iso(to + SignedDuration::from_hours(1));
        let ended = cloud.execute(&name, &json!({"mode": "scheduled", "scheduled_for": at})).await?;
        ensure!(ended.status == "SUCCEEDED", "{name}: {ended:?}");
        cloud.report(&name).await
    };
    cloud.set_watermark(Some(&iso(begin - SignedDuration::from_hours(1)))).await?;
    week("before", begin).await?;
    let mut from = begin;
    for number in 1..=weeks {
        let now = begin + WEEK * i32::try_from(number - 1)?;
        world.live(now).await?;
        let is_aborted = number % 8 == 5;
        match number % 8 {
            // No run was started.
            3 => continue,
            // An execution is aborted, and its functions may go on meanwhile.
            5 => {
                let name = cloud.name(&format!("aborted-{number}"), &stretch);
                let at = iso(now + WEEK + SignedDuration::from_mins(59));
                cloud.start(&name, &json!({"mode": "scheduled", "scheduled_for": at})).await?;
                cloud.abort(&name).await?;
                cloud.ended(&name).await?;
            }
            _ => {}
        }
        let report = week(&format!("week-{number}"), now + WEEK).await?;
        let expected = world.model.run(from, now + WEEK);
        world.check(number, &report, (!is_aborted).then_some(expected)).await?;
        from = now + WEEK;
    }
    cloud.set_watermark(None).await
}
