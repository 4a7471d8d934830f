//! Calls at the same time, over messages that come twice and out of order. At each request a call may die, lose the
//! request or its answer, or fall asleep for longer than anyone waits for it and then go on. Whatever the seed, once
//! the queue is empty each entry of each object's newest version is there once, and nothing else is.

use crate::world::{Cloud, log};
use async_trait::async_trait;
use events::sqs::{Batch, BatchResponse};
use extract_log_errors::handle;
use futures::channel::oneshot;
use futures::executor::block_on;
use futures::task::noop_waker_ref;
use log_entries::{LogObject, Occurrence};
use network::{Answer, Broken, Network, Request};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use runtime::{Call, Clock};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use storage::Table;

/// As deployed: a call may take this long, and a message stays hidden a minute longer.
const TIMEOUT: Duration = Duration::from_secs(900);
const HIDDEN: Duration = Duration::from_secs(960);
/// Calls at once.
const CALLS: usize = 4;
/// After so many steps nothing fails any more, and within as many again all must be done.
const STEPS: usize = 3000;

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Passes,
    IsLost,
    AnswerIsLost,
    IsRepeated,
}

/// Requests of one call that wait for their fate.
#[derive(Default)]
struct Gate(Mutex<Vec<oneshot::Sender<Fate>>>);

impl Gate {
    async fn fate(&self) -> Fate {
        let (sender, fate) = oneshot::channel();
        self.0.lock().expect("a lock").push(sender);
        fate.await.unwrap_or(Fate::IsLost)
    }
}

#[async_trait]
impl Network for Gate {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        if self.fate().await == Fate::IsLost { Err(Broken) } else { Ok(()) }
    }

    async fn answered(&self, _: &Request) -> Answer {
        match self.fate().await {
            Fate::AnswerIsLost => Answer::IsLost,
            Fate::IsRepeated => Answer::IsLostAndRetried,
            Fate::Passes | Fate::IsLost => Answer::Arrives,
        }
    }

    async fn wait(&self, _: Duration) {
        self.fate().await;
    }
}

struct Message {
    event: Value,
    hidden_until: Duration,
}

struct Running {
    work: Pin<Box<dyn Future<Output = Option<BatchResponse>>>>,
    gate: Arc<Gate>,
    messages: Vec<usize>,
    began: Duration,
    asleep_until: Duration,
}

struct Simulation {
    random: ChaCha8Rng,
    cloud: Arc<Cloud>,
    queue: BTreeMap<usize, Message>,
    calls: Vec<Running>,
    /// Lines of errors in the newest version, by object.
    expected: BTreeMap<String, Vec<u64>>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let cloud = Arc::new(Cloud::new());
        let (mut events, mut expected) = (Vec::new(), BTreeMap::new());
        for object in 0..random.random_range(1..3) {
            let key = format!("shop/2024/07/01/app-{object}.gz");
            for version in 1..=random.random_range(1..4) {
                let from = random.random_range(0..3);
                let text = log(from..from + random.random_range(0..8));
                let errors = text.lines().enumerate().filter(|(_, line)| line.contains("ERROR"));
                expected.insert(key.clone(), errors.map(|(at, _)| at as u64 + 1).collect());
                let event = block_on(cloud.put(&key, &text, &format!("{version:04}")));
                (0..random.random_range(1..3)).for_each(|_| events.push(event.clone()));
            }
        }
        let mut queue = BTreeMap::new();
        while !events.is_empty() {
            let event = events.swap_remove(random.random_range(0..events.len()));
            queue.insert(queue.len(), Message { event, hidden_until: Duration::ZERO });
        }
        Simulation { random, cloud, queue, calls: Vec::new(), expected }
    }

    fn now(&self) -> Duration {
        self.cloud.clock.elapsed()
    }

    fn begin(&mut self) {
        let now = self.now();
        let mut visible: Vec<usize> =
            self.queue.iter().filter(|(_, message)| message.hidden_until <= now).map(|(number, _)| *number).collect();
        let mut messages = Vec::new();
        for _ in 0..self.random.random_range(1..3).min(visible.len()) {
            messages.push(visible.swap_remove(self.random.random_range(0..visible.len())));
        }
        if messages.is_empty() {
            return;
        }
        let record = |number: &usize| {
            let message = self.queue.get_mut(number).expect("a visible message");
            message.hidden_until = now + HIDDEN;
            json!({"messageId": number.to_string(), "body": json!({"Records": [message.event]}).to_string()})
        };
        let records: Vec<Value> = messages.iter().map(record).collect();
        let batch: Batch = serde_json::from_value(json!({"Records": records})).expect("a batch");
        let gate = Arc::new(Gate::default());
        let (deps, call) = (self.cloud.deps(gate.clone()), Call::new(self.cloud.clock.clone(), TIMEOUT));
        let work = Box::pin(async move { handle(&deps, batch, call).await.ok() });
        self.calls.push(Running { work, gate, messages, began: now, asleep_until: Duration::ZERO });
        self.poll(self.calls.len() - 1);
    }

    fn poll(&mut self, at: usize) {
        let Poll::Ready(response) = self.calls[at].work.as_mut().poll(&mut Context::from_waker(noop_waker_ref()))
        else {
            return;
        };
        let call = self.calls.swap_remove(at);
        // Of a call that took too long the queue hears nothing.
        if call.began + TIMEOUT < self.now() {
            return;
        }
        let failed: Vec<String> = match response {
            Some(response) => response.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect(),
            None => call.messages.iter().map(usize::to_string).collect(),
        };
        let now = self.now();
        for number in call.messages {
            if failed.contains(&number.to_string()) {
                self.queue.entry(number).and_modify(|message| message.hidden_until = now);
            } else {
                self.queue.remove(&number);
            }
        }
    }

    /// Lets one request of one call meet its fate.
    fn step(&mut self, is_calm: bool) {
        let now = self.now();
        let awake: Vec<usize> = (0..self.calls.len()).filter(|&at| self.calls[at].asleep_until <= now).collect();
        if self.calls.len() < CALLS && (awake.is_empty() || self.random.random_range(0..10) == 0) {
            let before = self.calls.len();
            self.begin();
            if self.calls.len() > before || !awake.is_empty() {
                return;
            }
        }
        if awake.is_empty() {
            let wakes = self.calls.iter().map(|call| call.asleep_until);
            let next =
                wakes.chain(self.queue.values().map(|message| message.hidden_until)).filter(|at| *at > now).min();
            self.cloud.clock.advance(next.map_or(Duration::from_secs(1), |next| next - now));
            return;
        }
        let at = awake[self.random.random_range(0..awake.len())];
        let fate = match self.random.random_range(0..100) {
            _ if is_calm => Fate::Passes,
            0 => {
                self.calls.swap_remove(at);
                return;
            }
            1 => {
                let sleep = Duration::from_secs(self.random.random_range(1..4000));
                self.calls[at].asleep_until = now + sleep;
                return;
            }
            2 => Fate::IsLost,
            3 => Fate::AnswerIsLost,
            4 => Fate::IsRepeated,
            _ => Fate::Passes,
        };
        let waiting = {
            let mut gate = self.calls[at].gate.0.lock().expect("a lock");
            let one = self.random.random_range(0..gate.len().max(1));
            (!gate.is_empty()).then(|| gate.swap_remove(one))
        };
        let Some(waiting) = waiting else {
            // It sleeps until the object that it wants may be free.
            self.cloud.clock.advance(Duration::from_secs(1));
            self.poll(at);
            return;
        };
        // A request that its caller has dropped needs no fate.
        let _ = waiting.send(fate);
        self.poll(at);
        self.cloud.clock.advance(Duration::from_millis(self.random.random_range(0..2000)));
    }

    fn run(mut self, seed: u64) {
        for step in 0.. {
            if self.queue.is_empty() && self.calls.is_empty() {
                break;
            }
            assert!(step < 2 * STEPS, "seed {seed}: {} messages are not done with", self.queue.len());
            self.step(step >= STEPS);
        }
        let mut found: BTreeMap<String, Vec<u64>> = self.expected.keys().map(|key| (key.clone(), Vec::new())).collect();
        for row in self.cloud.rows() {
            found.entry(row.object).or_default().push(row.line);
        }
        assert_eq!(found, self.expected, "seed {seed}: rows");
        let occurrences: Table<Occurrence> = Table::over(self.cloud.tables.clone(), "errors");
        let objects: Table<LogObject> = Table::over(self.cloud.tables.clone(), "objects");
        let mut counted: BTreeMap<String, u64> = self.expected.keys().map(|key| (key.clone(), 0)).collect();
        for row in block_on(occurrences.scan()).expect("rows").rows {
            *counted.entry(row.object).or_default() += row.contribution.map_or(0, |contribution| contribution.count);
        }
        let wanted: BTreeMap<String, u64> =
            self.expected.iter().map(|(key, lines)| (key.clone(), lines.len() as u64)).collect();
        assert_eq!(counted, wanted, "seed {seed}: counts");
        for row in block_on(objects.scan()).expect("rows").rows {
            let entries = row.current.expect("extracted").entries;
            assert_eq!(Some(&entries), wanted.get(&row.object), "seed {seed}: {}", row.object);
        }
    }
}

#[test]
fn whatever_the_seed_each_entry_of_the_newest_version_is_counted_once() {
    // Few, so that the tests of all functions take seconds. CI tries 600; ALERT_ARCHIVE_SEED=17 tries that one.
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("ALERT_ARCHIVE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ALERT_ARCHIVE_SEEDS").unwrap_or(100),
    };
    for seed in seeds {
        Simulation::new(seed).run(seed);
    }
}
