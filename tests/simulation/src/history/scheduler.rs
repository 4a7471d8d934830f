//! Decides, request by request, who goes on. Every request of every function waits here twice, before the service carries
//! it out and before its answer arrives; a seed picks the one that goes on, and now and then a fate for it.

use async_trait::async_trait;
use memory_cloud::Cloud;
use network::{Answer, Broken, Network, Request};
use runtime::Clock;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// What may become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    GoesOn,
    Breaks,
    IsLost,
    IsLostAndRetried,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Sent,
    Answered,
}

struct Waiting {
    process: usize,
    moment: Moment,
    request: Request,
    not_before: Duration,
    verdict: oneshot::Sender<Fate>,
}

struct State {
    /// Who goes on.
    order: fastrand::Rng,
    /// What strikes, apart from the order, so that a fault can be left out and all else stays.
    fates: fastrand::Rng,
    waiting: Vec<Waiting>,
    /// Functions that are at work, and how their death is told to the state machine.
    alive: BTreeMap<usize, oneshot::Sender<()>>,
    names: Vec<String>,
    faults: usize,
    most_faults: usize,
    left_out: BTreeSet<usize>,
    asked: u64,
    steps: u64,
    log: Option<Vec<String>>,
}

/// One in so many requests meets a fault, as long as faults are left.
const RARITY: u32 = 40;
/// How long the state machine waits for a function: a process that sleeps for longer wakes up as a zombie.
pub const TASK_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone)]
pub struct Scheduler {
    state: Arc<Mutex<State>>,
}

impl Scheduler {
    pub fn new(seed: u64, most_faults: usize, left_out: BTreeSet<usize>, with_log: bool) -> Self {
        let state = State {
            order: fastrand::Rng::with_seed(seed),
            fates: fastrand::Rng::with_seed(seed ^ 0x5bd1_e995),
            waiting: Vec::new(),
            alive: BTreeMap::new(),
            names: Vec::new(),
            faults: 0,
            most_faults,
            left_out,
            asked: 0,
            steps: 0,
            log: with_log.then(Vec::new),
        };
        Scheduler { state: Arc::new(Mutex::new(state)) }
    }

    /// A function begins: the network of its requests, and a message when it dies.
    pub fn begin(&self, name: String) -> (usize, Arc<dyn Network>, oneshot::Receiver<()>) {
        let mut state = self.state();
        let process = state.names.len();
        let (died, death) = oneshot::channel();
        state.log(format!("{name} begins"));
        state.names.push(name);
        state.alive.insert(process, died);
        (process, Arc::new(Line { process, scheduler: self.clone() }), death)
    }

    pub fn end(&self, process: usize, how: &str) {
        let mut state = self.state();
        state.alive.remove(&process);
        let line = format!("{} {how}", state.names[process]);
        state.log(line);
    }

    pub fn is_quiet(&self) -> bool {
        self.state().alive.is_empty()
    }

    /// From now on nothing strikes.
    pub fn calm(&self) {
        self.state().most_faults = 0;
    }

    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Faults that struck, those that were left out included.
    pub fn faults(&self) -> usize {
        self.state().faults
    }

    pub fn note(&self, line: String) {
        self.state().log(line);
    }

    pub fn log(&self) -> Vec<String> {
        self.state().log.clone().unwrap_or_default()
    }

    /// Lets one request go on, or the time when none can.
    pub async fn step(&self, cloud: &Cloud) {
        self.settle().await;
        let now = cloud.clock.elapsed();
        let mut state = self.state();
        let ready: Vec<usize> = (0..state.waiting.len()).filter(|at| state.waiting[*at].not_before <= now).collect();
        if ready.is_empty() {
            drop(state);
            cloud.clock.advance(Duration::from_secs(5));
            return;
        }
        state.steps += 1;
        let chosen = ready[state.order.usize(0..ready.len())];
        let mut waiting = state.waiting.remove(chosen);
        if state.order.u32(0..50) == 0 {
            let seconds = state.order.u64(1..20);
            cloud.clock.advance(Duration::from_secs(seconds));
        }
        let fate = state.fate(&mut waiting, now);
        let Some(fate) = fate else { return };
        if state.log.is_some() {
            let moment = if waiting.moment == Moment::Sent { "asks" } else { "hears of" };
            let Request { operation, subject, .. } = &waiting.request;
            let mark = if fate == Fate::GoesOn { String::new() } else { format!(" *** {fate:?}") };
            let line = format!("{} {moment} {operation} {subject}{mark}", state.names[waiting.process]);
            state.log(line);
        }
        drop(state);
        let _ = waiting.verdict.send(fate);
        // Handed over before the next one is chosen.
        self.settle().await;
    }

    /// Lets every task run until it waits for a request, or for the clock.
    async fn settle(&self) {
        loop {
            let before = self.state().asked;
            for _ in 0..6 {
                tokio::task::yield_now().await;
            }
            if self.state().asked == before {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn log(&mut self, line: String) {
        if let Some(log) = &mut self.log {
            log.push(line);
        }
    }

    /// `None`: the request goes on waiting, or for ever.
    fn fate(&mut self, waiting: &mut Waiting, now: Duration) -> Option<Fate> {
        if self.fates.u32(0..RARITY) != 0 || self.faults >= self.most_faults {
            return Some(Fate::GoesOn);
        }
        let kind = self.fates.u32(0..5);
        let seconds = self.fates.u64(31..300);
        self.faults += 1;
        if self.left_out.contains(&(self.faults - 1)) {
            return Some(Fate::GoesOn);
        }
        match (kind, waiting.moment) {
            (0, Moment::Sent) => Some(Fate::Breaks),
            (0, Moment::Answered) => Some(Fate::IsLost),
            (1, Moment::Answered) => Some(Fate::IsLostAndRetried),
            (2, _) => {
                self.log(format!("*** {} dies", self.names[waiting.process]));
                let dead = waiting.process;
                self.waiting.retain(|other| other.process != dead);
                // Whoever waits for the dead one's answers waits for ever.
                let (verdict, _) = oneshot::channel();
                waiting.verdict = verdict;
                if let Some(died) = self.alive.remove(&dead) {
                    let _ = died.send(());
                }
                None
            }
            _ => {
                let name = &self.names[waiting.process];
                let line = format!("*** {name} sleeps {seconds} s before {}", waiting.request.operation);
                self.log(line);
                let (verdict, _) = oneshot::channel();
                let verdict = std::mem::replace(&mut waiting.verdict, verdict);
                let not_before = now + Duration::from_secs(seconds);
                let (process, moment, request) = (waiting.process, waiting.moment, waiting.request.clone());
                self.waiting.push(Waiting { process, moment, request, not_before, verdict });
                None
            }
        }
    }
}

/// The network of one call of a function.
struct Line {
    process: usize,
    scheduler: Scheduler,
}

impl Line {
    async fn ask(&self, moment: Moment, request: &Request) -> Fate {
        let answer = {
            let mut state = self.scheduler.state();
            state.asked += 1;
            let (verdict, answer) = oneshot::channel();
            let (process, request, not_before) = (self.process, request.clone(), Duration::ZERO);
            if !state.alive.contains_key(&process) {
                // A task that a dead function left behind.
                None
            } else {
                state.waiting.push(Waiting { process, moment, request, not_before, verdict });
                Some(answer)
            }
        };
        match answer {
            Some(answer) => match answer.await {
                Ok(fate) => fate,
                Err(_) => pending().await,
            },
            None => pending().await,
        }
    }
}

#[async_trait]
impl Network for Line {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        if self.ask(Moment::Sent, request).await == Fate::Breaks { Err(Broken) } else { Ok(()) }
    }

    async fn answered(&self, request: &Request) -> Answer {
        match self.ask(Moment::Answered, request).await {
            Fate::IsLost => Answer::IsLost,
            Fate::IsLostAndRetried => Answer::IsLostAndRetried,
            Fate::GoesOn | Fate::Breaks => Answer::Arrives,
        }
    }

    fn unprocessed(&self, _: &Request, items: usize) -> usize {
        let mut state = self.scheduler.state();
        if state.fates.u32(0..20) == 0 { state.fates.usize(0..items) } else { 0 }
    }

    fn lag(&self, _: &Request) -> usize {
        let mut state = self.scheduler.state();
        if state.fates.u32(0..4) == 0 { state.fates.usize(0..8) } else { 0 }
    }
}
