//! Partners' files under all kinds of weather, seed by seed: two functions at a time take batches that overlap and come
//! in any order; every request may be the last of its process, may fail, may lose its answer or be sent twice, and a
//! function may sleep until its lease is over and wake up among its successors. A reader looks at every moment.
//!
//! `ALERT_ARCHIVE_SEED=17 cargo test -p consolidate-feeds random` tries that seed alone, `ALERT_ARCHIVE_SEEDS=5000` so
//! many of them.

use crate::catalogue::Catalogue;
use crate::world::{FEEDS, World};
use async_trait::async_trait;
use bytes::Bytes;
use feeds::Format;
use fixtures::feeds::{FeedsSpec, Treatment};
use network::{Answer, Broken, Calm, Network, Request};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Few, so that the tests of all functions take seconds; CI tries 600.
const SEEDS: u64 = 100;
/// Deliveries under faults, after which the sky clears.
const STORMY: usize = 12;
/// Deliveries after which all must be done under a clear sky: a lease may have to end first.
const CLEAR: usize = 6;

/// How likely it is, at each request.
#[derive(Clone, Copy)]
struct Weather {
    killed: f64,
    refused: f64,
    answer_lost: f64,
    sent_twice: f64,
    asleep: f64,
}

impl Weather {
    fn forecast(rng: &mut ChaCha8Rng) -> Self {
        let mut likely = |most: f64| if rng.random_bool(0.3) { 0.0 } else { rng.random_range(0.0..most) };
        Weather {
            killed: likely(0.04),
            refused: likely(0.02),
            answer_lost: likely(0.02),
            sent_twice: likely(0.05),
            asleep: likely(0.03),
        }
    }
}

/// What stands between one process and the services.
struct Process {
    weather: Weather,
    sky: Arc<Sky>,
    killed: Notify,
}

/// What all processes of a seed share.
struct Sky {
    rng: Mutex<ChaCha8Rng>,
    world: World,
    catalogue: Catalogue,
    what: String,
    /// What a reader saw: no object may ever change.
    seen: Mutex<BTreeMap<String, Bytes>>,
    kills: AtomicU64,
}

impl Sky {
    fn draw<T>(&self, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// After each write into the feeds' bucket.
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.world.objects.contents(FEEDS);
        let is_kept = seen.iter().all(|(key, body)| now.get(key) == Some(body));
        assert!(is_kept, "{}: an object was changed or removed", self.what);
        *seen = now;
        drop(seen);
        self.catalogue.check_meanwhile(&self.world, &self.what);
    }
}

#[async_trait]
impl Network for Process {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        let Weather { killed, refused, asleep, .. } = self.weather;
        let (millis, turns) = self.sky.draw(|rng| (rng.random_range(0..40), rng.random_range(0..3)));
        self.sky.world.clock.advance(Duration::from_millis(millis));
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if self.sky.draw(|rng| rng.random_bool(asleep)) {
            self.sky.world.clock.advance(Duration::from_secs(25));
            for _ in 0..self.sky.draw(|rng| rng.random_range(50..2_000)) {
                tokio::task::yield_now().await;
            }
        }
        if self.sky.draw(|rng| rng.random_bool(killed)) {
            self.die().await;
        }
        if self.sky.draw(|rng| rng.random_bool(refused)) { Err(Broken) } else { Ok(()) }
    }

    async fn answered(&self, request: &Request) -> Answer {
        if request.subject.starts_with(FEEDS) && request.operation != "GetObject" && request.operation != "HeadObject" {
            self.sky.look();
        }
        let Weather { killed, answer_lost, sent_twice, .. } = self.weather;
        if self.sky.draw(|rng| rng.random_bool(killed)) {
            self.die().await;
        }
        match self.sky.draw(|rng| rng.random::<f64>()) {
            lot if lot < answer_lost => Answer::IsLost,
            lot if lot < answer_lost + sent_twice => Answer::IsLostAndRetried,
            _ => Answer::Arrives,
        }
    }
}

impl Process {
    async fn die(&self) {
        self.sky.kills.fetch_add(1, Ordering::Relaxed);
        self.killed.notify_one();
        std::future::pending().await
    }

    /// Delivers messages; the positions of those that failed, or `None` when the process was killed.
    async fn deliver(self: Arc<Self>, bodies: Vec<String>) -> Option<Vec<usize>> {
        let work = self.sky.world.deliver_bodies(self.clone(), &bodies, Duration::ZERO);
        tokio::select! {
            biased;
            () = self.killed.notified() => None,
            failed = work => Some(failed),
        }
    }
}

/// A message, and the files that it tells of.
struct Message {
    body: String,
    files: Vec<u64>,
}

async fn storm(seed: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::new();
    world.limits.round_bytes = rng.random_range(500..60_000);
    world.limits.round_files = rng.random_range(1..8);
    world.limits.patience = Duration::from_secs(rng.random_range(0..40));
    world.format = if rng.random_bool(0.3) { Format::Gzip } else { Format::Plain };
    let spec = FeedsSpec { seed, files: rng.random_range(2..14), dirt: 0.7, has_large: false };
    let catalogue = Catalogue::put(&world, &spec).await;
    let messages = messages(&mut rng, &catalogue);
    let weather = Weather::forecast(&mut rng);
    let sky = Arc::new(Sky {
        rng: Mutex::new(rng),
        world,
        catalogue,
        what: format!("SEED={seed}"),
        seen: Mutex::default(),
        kills: AtomicU64::new(0),
    });
    let mut open: BTreeSet<usize> = (0..messages.len()).collect();
    for _ in 0..STORMY {
        // Some of the messages are done already: a queue may deliver them again.
        let [one, other] = [0, 1].map(|_| sky.draw(|rng| batch(rng, messages.len())));
        let process = || Arc::new(Process { weather, sky: sky.clone(), killed: Notify::new() });
        let bodies = |batch: &[usize]| batch.iter().map(|at| messages[*at].body.clone()).collect::<Vec<_>>();
        let ended = tokio::join!(process().deliver(bodies(&one)), process().deliver(bodies(&other)));
        for (batch, failed) in [(one, ended.0), (other, ended.1)] {
            // Nothing is heard of a process that was killed.
            let Some(failed) = failed else { continue };
            open.retain(|message| batch.iter().position(|at| at == message).is_none_or(|at| failed.contains(&at)));
        }
        sky.look();
        sky.world.clock.advance(Duration::from_secs(sky.draw(|rng| rng.random_range(0..60))));
    }
    // A message that came through is done for good: it is not delivered again.
    for _ in 0..CLEAR {
        sky.world.a_minute_later();
        let left: Vec<usize> = open.iter().copied().collect();
        let bodies: Vec<String> = left.iter().map(|at| messages[*at].body.clone()).collect();
        let failed = sky.world.deliver_bodies(Calm::shared(), &bodies, Duration::ZERO).await;
        open = failed.into_iter().map(|at| left[at]).collect();
    }
    let is_unknown = |file: &u64| sky.catalogue.treatment(*file) == Treatment::Unknown;
    let hopeless = |(_, message): &(usize, &Message)| message.files.iter().any(is_unknown);
    let hopeless: BTreeSet<usize> = messages.iter().enumerate().filter(hopeless).map(|(at, _)| at).collect();
    assert_eq!(open, hopeless, "{}: messages that fail", sky.what);
    sky.look();
    sky.catalogue.check(&sky.world, &sky.what);
    sky.kills.load(Ordering::Relaxed)
}

/// One to four events a message, some of them in two messages, and what else a queue may hold.
fn messages(rng: &mut ChaCha8Rng, catalogue: &Catalogue) -> Vec<Message> {
    let mut events = catalogue.events.clone();
    for _ in 0..rng.random_range(0..4) {
        events.push(events[rng.random_range(0..catalogue.events.len())].clone());
    }
    events.shuffle(rng);
    let mut messages = Vec::new();
    while !events.is_empty() {
        let records = events.split_off(events.len() - rng.random_range(1..5).min(events.len()));
        let (files, records): (Vec<u64>, Vec<Value>) = records.into_iter().unzip();
        messages.push(Message { body: json!({"Records": records}).to_string(), files });
    }
    messages.push(Message { body: json!({"Event": "s3:TestEvent"}).to_string(), files: Vec::new() });
    messages
}

/// A few of the messages, in any order.
fn batch(rng: &mut ChaCha8Rng, messages: usize) -> Vec<usize> {
    let mut batch: Vec<usize> = (0..messages).collect();
    batch.shuffle(rng);
    batch.truncate(rng.random_range(1..=messages));
    batch
}

/// Names the seed of a failure, wherever it was noticed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("ALERT_ARCHIVE_SEED={}", self.0);
        }
    }
}

fn run(seeds: impl Iterator<Item = u64>) -> u64 {
    let mut kills = 0;
    for seed in seeds {
        let _seed = Seed(seed);
        // One thread: a seed means the same each time.
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        kills += runtime.block_on(storm(seed));
    }
    kills
}

#[test]
fn random_kills_lose_double_reorder_and_change_no_record() {
    let variable = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = variable("ALERT_ARCHIVE_SEED") {
        run([seed].into_iter());
        return;
    }
    let seeds = variable("ALERT_ARCHIVE_SEEDS").unwrap_or(SEEDS);
    let kills: u64 = std::thread::scope(|scope| {
        let halves = [0, 1].map(|first| scope.spawn(move || run((first..seeds).step_by(2))));
        halves.into_iter().map(|half| half.join().expect("no seed failed")).sum()
    });
    assert!(kills > seeds, "{kills} processes were killed in {seeds} seeds: the weather is too fair");
}
