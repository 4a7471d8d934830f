//! Decides, request by request, who goes on. Every request of every function waits here before the service carries it
//! out; a seed picks the one that goes on, and now and then a fate for it.
//!
//! Chance alone rarely hits the narrow places. So some histories let one function run as long as it can (each has a
//! priority, and now and then the one that runs falls behind all others), faults strike at writes to tables ten times
//! as often as at other requests, and a function that freezes at one is often followed by what makes it dangerous: its
//! execution is aborted, another one starts, the document changes. The frozen function wakes up when others have gone
//! on for a while.

use alerts::message::tracking::Claim;
use async_trait::async_trait;
use futures::task::AtomicWaker;
use memory_cloud::Cloud;
use network::{Answer, Broken, Network, Request};
use runtime::Clock;
use std::{
    collections::BTreeSet,
    future::{pending, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
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

struct Waiting {
    process: usize,
    request: Request,
    /// Of the clock.
    not_before: Duration,
    /// Of [`State::ticks`].
    frozen_until: u64,
    verdict: oneshot::Sender<Fate>,
}

struct Process {
    name: String,
    execution_arn: String,
    attempt: Option<Claim>,
    /// The one with the greatest goes on, where the history goes by priorities.
    priority: i64,
    /// How its death is told to the state machine; none when it has ended.
    alive: Option<oneshot::Sender<()>>,
}

/// How a history goes.
#[derive(Clone, Debug)]
pub struct Temper {
    /// About so many faults strike in a history.
    pub faults: u32,
    /// The function with the greatest priority goes on, until it falls behind; else any.
    pub by_priority: bool,
}

/// A request that went on, and who sent it.
pub struct Last {
    pub execution_arn: String,
    /// The attempt of a window for which its function was called.
    pub attempt: Option<Claim>,
    pub request: Request,
}

/// A function froze at a request. What happens around it then is up to the history.
pub struct Frozen {
    pub execution_arn: String,
    /// Decides what happens.
    pub chance: u64,
}

struct State {
    temper: Temper,
    /// Who goes on.
    order: fastrand::Rng,
    /// What strikes, apart from the order, so that a fault can be left out and all else stays.
    fates: fastrand::Rng,
    waiting: Vec<Waiting>,
    processes: Vec<Process>,
    /// Of the request that goes on.
    answer: Fate,
    last: Option<(usize, Request)>,
    frozen: Option<Frozen>,
    is_calm: bool,
    faults: usize,
    left_out: BTreeSet<usize>,
    lowest: i64,
    steps: u64,
    ticks: u64,
    log: Option<Vec<String>>,
}

/// So many faults strike at most.
const MOST_FAULTS: usize = 12;
/// Requests of a history, about, and those of them that write to a table.
const REQUESTS: u32 = 300;
const WRITES: u32 = 40;
/// How long the state machine waits for a function: a process that sleeps for longer wakes up as a zombie.
pub const TASK_TIMEOUT: Duration = Duration::from_secs(120);

/// Tells when every task waits for a request or for the clock.
#[derive(Default)]
pub struct Idle {
    is_idle: AtomicBool,
    waker: AtomicWaker,
}

impl Idle {
    /// The runtime has nothing to do.
    pub fn note(&self) {
        self.is_idle.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    async fn wait(&self) {
        self.is_idle.store(false, Ordering::Relaxed);
        poll_fn(|context| {
            if self.is_idle.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            self.waker.register(context.waker());
            Poll::Pending
        })
        .await;
    }
}

#[derive(Clone)]
pub struct Scheduler {
    state: Arc<Mutex<State>>,
    idle: Arc<Idle>,
}

impl Scheduler {
    pub fn new(seed: u64, temper: Temper, left_out: BTreeSet<usize>, idle: Arc<Idle>, with_log: bool) -> Self {
        let state = State {
            temper,
            order: fastrand::Rng::with_seed(seed),
            fates: fastrand::Rng::with_seed(seed ^ 0x5bd1_e995),
            waiting: Vec::new(),
            processes: Vec::new(),
            answer: Fate::GoesOn,
            last: None,
            frozen: None,
            is_calm: false,
            faults: 0,
            left_out,
            lowest: 0,
            steps: 0,
            ticks: 0,
            log: with_log.then(Vec::new),
        };
        Scheduler { state: Arc::new(Mutex::new(state)), idle }
    }

    /// A function begins: the network of its requests, and a message when it dies.
    pub fn begin(
        &self,
        name: String,
        execution_arn: &str,
        attempt: Option<Claim>,
    ) -> (usize, Arc<dyn Network>, oneshot::Receiver<()>) {
        let mut state = self.state();
        let process = state.processes.len();
        let (died, death) = oneshot::channel();
        state.log(|| format!("{name} begins"));
        let (execution_arn, priority) = (execution_arn.to_owned(), state.order.i64(1..1 << 32));
        state.processes.push(Process { name, execution_arn, attempt, priority, alive: Some(died) });
        (process, Arc::new(Line { process, scheduler: self.clone() }), death)
    }

    pub fn end(&self, process: usize, how: &str) {
        let mut state = self.state();
        state.processes[process].alive = None;
        state.log_of(process, how);
    }

    /// Whether a function is started twice: that is at least once, as Lambda promises.
    pub fn starts_twice(&self) -> bool {
        let mut state = self.state();
        state.strikes(1, REQUESTS / 3)
    }

    pub fn is_quiet(&self) -> bool {
        self.state().processes.iter().all(|process| process.alive.is_none())
    }

    /// From now on nothing strikes.
    pub fn calm(&self) {
        self.state().is_calm = true;
    }

    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Faults that struck, those that were left out included.
    pub fn faults(&self) -> usize {
        self.state().faults
    }

    pub fn note(&self, line: impl FnOnce() -> String) {
        self.state().log(line);
    }

    pub fn log(&self) -> Vec<String> {
        self.state().log.clone().unwrap_or_default()
    }

    /// The function that froze since this was asked last.
    pub fn frozen(&self) -> Option<Frozen> {
        self.state().frozen.take()
    }

    /// The request that went on last.
    pub fn last(&self) -> Option<Last> {
        let mut state = self.state();
        let (process, request) = state.last.take()?;
        let Process { execution_arn, attempt, .. } = &state.processes[process];
        Some(Last { execution_arn: execution_arn.clone(), attempt: attempt.clone(), request })
    }

    /// Lets one request go on, or the time when none can.
    pub async fn step(&self, cloud: &Cloud) {
        self.idle.wait().await;
        let Some((verdict, fate)) = self.choose(cloud) else { return };
        let _ = verdict.send(fate);
        self.idle.wait().await;
    }

    fn choose(&self, cloud: &Cloud) -> Option<(oneshot::Sender<Fate>, Fate)> {
        let now = cloud.clock.elapsed();
        let mut state = self.state();
        let state = &mut *state;
        state.ticks += 1;
        let ticks = state.ticks;
        let is_ready = |waiting: &Waiting| waiting.not_before <= now && waiting.frozen_until <= ticks;
        let ready: Vec<usize> = (0..state.waiting.len()).filter(|at| is_ready(&state.waiting[*at])).collect();
        if ready.is_empty() {
            cloud.clock.advance(Duration::from_secs(5));
            return None;
        }
        state.steps += 1;
        let any = ready[state.order.usize(0..ready.len())];
        let chosen = if state.temper.by_priority {
            let priority = |at: &usize| state.processes[state.waiting[*at].process].priority;
            let greatest = ready.iter().map(priority).max();
            ready.iter().copied().filter(|at| Some(priority(at)) == greatest).min().unwrap_or(any)
        } else {
            any
        };
        let waiting = state.waiting.swap_remove(chosen);
        if state.temper.by_priority && state.order.u32(0..40) == 0 {
            state.lowest -= 1;
            state.processes[waiting.process].priority = state.lowest;
        }
        if state.order.u32(0..30) == 0 {
            let seconds = state.order.u64(1..20);
            cloud.clock.advance(Duration::from_secs(seconds));
        }
        let process = waiting.process;
        let (verdict, request, fate) = state.fate(waiting, now)?;
        if state.log.is_some() {
            let mark = if fate == Fate::GoesOn { String::new() } else { format!(" *** {fate:?}") };
            state.log_of(process, &format!("asks {} {}{mark}", request.operation, request.subject));
        }
        state.answer = fate;
        state.last = Some((process, request));
        Some((verdict, fate))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn log(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(line());
        }
    }

    fn log_of(&mut self, process: usize, what: &str) {
        let name = self.processes[process].name.clone();
        self.log(|| format!("{name} {what}"));
    }

    /// Whether a fault strikes here, of which `share` in `of` requests of the history are struck by one.
    fn strikes(&mut self, share: u32, of: u32) -> bool {
        let is_hit = self.fates.u32(0..of) < share * self.temper.faults;
        if !is_hit || self.is_calm || self.faults >= MOST_FAULTS {
            return false;
        }
        self.faults += 1;
        !self.left_out.contains(&(self.faults - 1))
    }

    /// `None`: the request goes on waiting, or for ever.
    fn fate(&mut self, waiting: Waiting, now: Duration) -> Option<(oneshot::Sender<Fate>, Request, Fate)> {
        let goes = |waiting: Waiting, fate| Some((waiting.verdict, waiting.request, fate));
        let of = if is_table_write(&waiting.request) { WRITES } else { REQUESTS };
        let (kind, seconds) = (self.fates.u32(0..10), self.fates.u64(31..300));
        let (ticks, chance) = (self.fates.u64(8..16) << self.fates.u32(0..7), self.fates.u64(..));
        if !self.strikes(1, of) {
            return goes(waiting, Fate::GoesOn);
        }
        let process = waiting.process;
        match kind {
            0 => goes(waiting, Fate::Breaks),
            1 => goes(waiting, Fate::IsLost),
            2 => goes(waiting, Fate::IsLostAndRetried),
            3 => {
                self.log_of(process, "*** dies");
                // Whoever waits for the dead one's answers waits for ever.
                self.waiting.retain(|other| other.process != process);
                if let Some(died) = self.processes[process].alive.take() {
                    let _ = died.send(());
                }
                None
            }
            4 => {
                self.log_of(process, &format!("*** sleeps {seconds} s before {}", waiting.request.operation));
                self.waiting.push(Waiting { not_before: now + Duration::from_secs(seconds), ..waiting });
                None
            }
            _ => {
                let Request { operation, subject, .. } = &waiting.request;
                self.log_of(process, &format!("*** freezes before {operation} {subject}"));
                let until = self.ticks + ticks;
                // All that it does at once freezes with it.
                self.waiting.iter_mut().filter(|other| other.process == process).for_each(|other| {
                    other.frozen_until = until;
                });
                self.waiting.push(Waiting { frozen_until: until, ..waiting });
                let execution_arn = self.processes[process].execution_arn.clone();
                self.frozen = Some(Frozen { execution_arn, chance });
                None
            }
        }
    }
}

pub fn is_table_write(request: &Request) -> bool {
    matches!(request.operation, "PutItem" | "BatchExecuteStatement" | "DeleteItem")
}

/// The network of one call of a function.
struct Line {
    process: usize,
    scheduler: Scheduler,
}

#[async_trait]
impl Network for Line {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let answer = {
            let mut state = self.scheduler.state();
            let (verdict, answer) = oneshot::channel();
            let process = self.process;
            // A task that a dead function left behind asks nothing any more.
            let is_alive = state.processes[process].alive.is_some();
            if is_alive {
                let (request, not_before, frozen_until) = (request.clone(), Duration::ZERO, 0);
                state.waiting.push(Waiting { process, request, not_before, frozen_until, verdict });
            }
            is_alive.then_some(answer)
        };
        let Some(answer) = answer else { return pending().await };
        match answer.await {
            Ok(Fate::Breaks) => Err(Broken),
            Ok(_) => Ok(()),
            Err(_) => pending().await,
        }
    }

    /// At once: whoever goes on before the answer arrives could as well go on before the next request.
    async fn answered(&self, _: &Request) -> Answer {
        match self.scheduler.state().answer {
            Fate::IsLost => Answer::IsLost,
            Fate::IsLostAndRetried => Answer::IsLostAndRetried,
            Fate::GoesOn | Fate::Breaks => Answer::Arrives,
        }
    }

    fn unprocessed(&self, _: &Request, items: usize) -> usize {
        let mut state = self.scheduler.state();
        if !state.is_calm && state.fates.u32(0..20) == 0 { state.fates.usize(0..items) } else { 0 }
    }

    fn lag(&self, _: &Request) -> usize {
        let mut state = self.scheduler.state();
        if !state.is_calm && state.fates.u32(0..4) == 0 { state.fates.usize(0..8) } else { 0 }
    }
}
