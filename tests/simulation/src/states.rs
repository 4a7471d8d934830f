//! Every state that two runs over the same two messages can reach, breadth first, each state once: readers, claims,
//! intents and completions in any order, with changes of the source, an executor that dies, and one that is thought
//! dead and goes on. How rows may change is decided by the archive's own rules; each write is held against
//! [`crate::rules`], and from each state in which nothing goes on, one more run must leave each message once, in its
//! newest version.

use crate::{
    breadth_first::{self, Explored, Next},
    rules,
};
use alerts::{
    counts::{Bytes, Messages},
    message::{
        classification::{Disposition, Outcome},
        entry::{Entry, Written},
        tracking::{Claim, Decision, Row, Staging, complete, stage},
    },
    mode::Mode,
    source::Source,
    window::{
        plan::Window,
        record::{Begin, State as WindowState, WindowRecord},
    },
};
use jiff::{SignedDuration, Timestamp};
use ledger::Keyed;
use serde::Serialize;
use std::collections::HashMap;

/// The two runs, and the one that looks last.
const RUNS: usize = 3;
const LAST: u8 = 2;
const MESSAGES: usize = 2;
const WINDOW: &str = "w";
/// A name of a row or of a window; 0 where there is none.
type Id = u32;

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Changes of the first message at the source, and whether it is open then.
    pub changes: u8,
    pub reopens: bool,
    /// Executors that die.
    pub deaths: u8,
    /// Attempts that begin although an earlier one of their window goes on, or after it has ended.
    pub attempts: u8,
}

/// What every `make simulate` goes through: one that goes on although it was thought dead, or one that dies.
pub const LIMITS: [Limits; 3] = [
    Limits { changes: 0, reopens: false, deaths: 0, attempts: 1 },
    Limits { changes: 1, reopens: false, deaths: 1, attempts: 0 },
    Limits { changes: 1, reopens: true, deaths: 1, attempts: 0 },
];

/// Both at any point: minutes on two processors.
pub const ALL: [Limits; 2] = [
    Limits { changes: 1, reopens: false, deaths: 1, attempts: 1 },
    Limits { changes: 1, reopens: true, deaths: 1, attempts: 1 },
];

/// A run and its attempt: whose claim, intent or object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Attempt {
    run: u8,
    number: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    Begin,
    /// The time is noted; what is read may be what others archive in between.
    Note,
    Read,
    Stage(u8),
    Resolve,
    Register,
    Create,
    TakeOut,
    Complete(u8),
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Plan {
    Undecided,
    Write,
    Replace(Attempt),
    /// Nothing is to be written.
    Rest,
    Contested(Attempt),
}

/// A version of each message, as one reading found it. An odd one may be open.
type Versions = [u8; MESSAGES];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Executor {
    own: Attempt,
    step: Step,
    seen: Versions,
    seen_at: u8,
    plans: [Plan; MESSAGES],
    over: Vec<Attempt>,
    /// Whose intent it carries out.
    carries_out: Option<Attempt>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Intent {
    of: Attempt,
    seen: Versions,
    seen_at: u8,
    plans: [Plan; MESSAGES],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    source: Versions,
    rows: [Id; MESSAGES],
    windows: [Id; RUNS],
    executors: Vec<Executor>,
    intents: Vec<Intent>,
    /// What stands in the object of each intent.
    objects: Vec<(Attempt, [Option<u8>; MESSAGES])>,
    readings: u8,
    changes: u8,
    deaths: u8,
    attempts: u8,
}

/// Rows by their content, so that a state is a few numbers.
struct Names<T> {
    rows: Vec<T>,
    ids: HashMap<String, Id>,
}

impl<T: Serialize + Clone> Names<T> {
    fn new() -> Self {
        Names { rows: Vec::new(), ids: HashMap::new() }
    }

    fn get(&self, id: Id) -> Option<&T> {
        self.rows.get((id as usize).checked_sub(1)?)
    }

    fn id(&mut self, row: T) -> Id {
        let text = serde_json::to_string(&row).expect("a row is JSON");
        *self.ids.entry(text).or_insert_with(|| {
            self.rows.push(row);
            self.rows.len() as Id
        })
    }
}

struct Explorer {
    limits: Limits,
    rows: Names<Row>,
    windows: Names<WindowRecord>,
}

pub fn explore(limits: Limits) -> Explored {
    let mut explorer = Explorer { limits, rows: Names::new(), windows: Names::new() };
    let mut first = State {
        source: [0; MESSAGES],
        rows: [0; MESSAGES],
        windows: [0; RUNS],
        executors: vec![executor(0), executor(1)],
        intents: Vec::new(),
        objects: Vec::new(),
        readings: 0,
        changes: limits.changes,
        deaths: limits.deaths,
        attempts: limits.attempts,
    };
    for run in 0..RUNS {
        let window = Window { window_id: WINDOW.to_owned(), ..Window::new(at(0), at(86_400), MESSAGES as u64) };
        first.windows[run] = explorer.windows.id(WindowRecord::planned(&run_id(run as u8), Mode::Range, window, at(0)));
    }
    breadth_first::explore(first, State::clone, |state| explorer.after(state))
}

fn executor(run: u8) -> Executor {
    Executor {
        own: Attempt { run, number: 0 },
        step: Step::Begin,
        seen: [0; MESSAGES],
        seen_at: 0,
        plans: [Plan::Undecided; MESSAGES],
        over: Vec::new(),
        carries_out: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_719_792_000 + second).expect("in range")
}

/// Leases avoid contention only: all of them are over.
fn late() -> Timestamp {
    at(0) + SignedDuration::from_hours(1000)
}

fn run_id(run: u8) -> String {
    format!("r{run}")
}

fn claim_of(attempt: Attempt) -> Claim {
    Claim { run_id: run_id(attempt.run), window_id: WINDOW.to_owned(), attempt: attempt.number.into() }
}

fn attempt_of(claim: &Claim) -> Attempt {
    Attempt { run: claim.run_id[1..].parse().expect("a run's number"), number: claim.attempt as u8 }
}

fn object_of(attempt: Attempt) -> String {
    format!("archive/parquet/{}-{}", attempt.run, attempt.number)
}

fn of_object(key: &str) -> Attempt {
    let (run, number) = key.rsplit('/').next().and_then(|name| name.split_once('-')).expect("an object of ours");
    Attempt { run: run.parse().expect("a run"), number: number.parse().expect("an attempt") }
}

fn intent_key(attempt: Attempt) -> String {
    format!("{}/intent", object_of(attempt))
}

type Followed = Result<State, String>;

impl Explorer {
    /// All that can happen next.
    fn after(&mut self, state: &State) -> Next<State> {
        let mut after = Vec::new();
        for at in 0..state.executors.len() {
            let Executor { own, step, .. } = &state.executors[at];
            after.push((format!("r{}/{} {step:?}", own.run, own.number), self.step(state.clone(), at)));
            if state.deaths > 0 {
                let mut next = State { deaths: state.deaths - 1, ..state.clone() };
                next.executors.remove(at);
                after.push((format!("r{}/{} dies before {step:?}", own.run, own.number), Ok(next)));
            }
        }
        if state.attempts > 0 {
            for run in 0..LAST {
                let begins = |executor: &Executor| executor.own.run == run && executor.step == Step::Begin;
                if !state.executors.iter().any(begins) {
                    let mut next = State { attempts: state.attempts - 1, ..state.clone() };
                    next.executors.push(executor(run));
                    after.push((format!("r{run} begins another attempt"), Ok(next)));
                }
            }
        }
        if state.changes > 0 {
            let mut next = State { changes: state.changes - 1, ..state.clone() };
            next.source[0] += 1;
            after.push(("the first message changes".to_owned(), Ok(next)));
        }
        if state.executors.is_empty()
            && let Err(finding) = self.one_more_run(state.clone())
        {
            after.push(("one more run".to_owned(), Err(finding)));
        }
        after
    }

    fn one_more_run(&mut self, mut state: State) -> Result<(), String> {
        let is_prepared = |id: &Id| self.windows.get(*id).is_some_and(|row| row.status == WindowState::Prepared);
        let finished = !state.windows.iter().any(is_prepared);
        for message in 0..MESSAGES {
            let copies = state.objects.iter().filter(|(_, rows)| rows[message].is_some()).count();
            if finished && copies > 1 {
                return Err(format!("message {message} stands {copies} times"));
            }
        }
        state.executors.push(executor(LAST));
        for _ in 0..100 {
            if state.executors.is_empty() {
                break;
            }
            state = self.step(state, 0)?;
        }
        for message in 0..MESSAGES {
            let version = state.source[message];
            let copies: Vec<_> = state.objects.iter().filter(|(_, rows)| rows[message].is_some()).collect();
            let row = self.rows.get(state.rows[message]).ok_or_else(|| format!("message {message} has no row"))?;
            if row.claim.is_some() {
                return Err(format!("message {message} stays claimed by {:?}", row.claim));
            }
            if self.disposition(message, version) == Disposition::Open {
                if row.disposition != Disposition::Open || row.staging.is_none() {
                    return Err(format!("message {message} is open, and not held over"));
                }
                continue;
            }
            let [(object, rows)] = copies.as_slice() else {
                return Err(format!("message {message} stands {} times after one more run", copies.len()));
            };
            if rows[message] != Some(version) || row.version != version.to_string() {
                return Err(format!("message {message} stands in version {:?}, not {version}", rows[message]));
            }
            if row.s3_path.as_deref() != Some(&format!("s3://b/{}", object_of(*object))) {
                return Err(format!("the row of message {message} names {:?}", row.s3_path));
            }
        }
        let last = self.windows.get(state.windows[usize::from(LAST)]).map(|row| row.status);
        if last == Some(WindowState::Completed) { Ok(()) } else { Err(format!("the last run's window is {last:?}")) }
    }

    fn disposition(&self, message: usize, version: u8) -> Disposition {
        if message == 0 && version % 2 == 1 && self.limits.reopens { Disposition::Open } else { Disposition::Closed }
    }

    fn entry(&self, message: u8, version: u8) -> Entry {
        let disposition = self.disposition(message.into(), version);
        Entry {
            index: "messages".to_owned(),
            id: format!("m{message}"),
            at: at(60),
            version: version.to_string(),
            related: String::new(),
            bytes: 1,
            related_bytes: 0,
            source: Source::Opensearch,
            written: Some(Written { seq_no: version.into(), primary_term: 1 }),
            outcome: Outcome { disposition, reason: None, no_alerts: false },
        }
    }

    /// The next step of an executor. One that has nothing more to do, or is refused, is gone.
    fn step(&mut self, mut state: State, at: usize) -> Followed {
        let mut own = state.executors.swap_remove(at);
        let goes_on = match own.step {
            Step::Begin => self.begin(&mut state, &mut own)?,
            Step::Note => {
                state.readings += 1;
                own.seen_at = state.readings;
                own.step = Step::Read;
                true
            }
            Step::Read => {
                own.seen = state.source;
                own.step = Step::Stage(0);
                true
            }
            Step::Stage(message) => self.stage(&mut state, &mut own, message)?,
            Step::Resolve => self.resolve(&mut state, &mut own)?,
            Step::Register => self.register(&mut state, &mut own)?,
            Step::Create => {
                if !self.still_stands(&state, &own) {
                    self.fail(&mut state, &own)?
                } else {
                    create(&mut state, &own);
                    own.step = Step::TakeOut;
                    true
                }
            }
            Step::TakeOut => {
                take_out(&mut state, &own);
                own.step = Step::Complete(0);
                true
            }
            Step::Complete(message) => self.complete(&mut state, &mut own, message)?,
            Step::Finish => self.finish(&mut state, &mut own)?,
        };
        if goes_on {
            state.executors.push(own);
        }
        // Executors are the same in any order.
        state.executors.sort();
        Ok(state)
    }

    fn window(&self, state: &State, run: u8) -> &WindowRecord {
        self.windows.get(state.windows[usize::from(run)]).expect("it is planned")
    }

    /// A change that is decided on what stands, as a conditional write that is repeated until it meets nobody.
    fn write_window(&mut self, state: &mut State, run: u8, after: WindowRecord) -> Result<(), String> {
        let before = self.window(state, run).clone();
        if after == before {
            return Ok(());
        }
        let after = after.revised(before.revision + 1);
        let claim = claim_of(Attempt { run, number: after.fence.attempt as u8 });
        let claimed =
            state.rows.iter().filter_map(|id| self.rows.get(*id)).filter(|row| row.claim.as_ref() == Some(&claim));
        let claimed = claimed.count();
        let meant = |key: &str| {
            let intent = state.intents.iter().find(|intent| intent_key(intent.of) == key)?;
            Some(intent.plans.iter().filter(|plan| matches!(plan, Plan::Write | Plan::Replace(_))).count())
        };
        let broken = rules::of_window(Some(&before), &after, claimed, meant, late());
        if let Some(what) = broken.first() {
            return Err(format!("window of r{run}, {:?} to {:?}: {what}", before.status, after.status));
        }
        state.windows[usize::from(run)] = self.windows.id(after);
        Ok(())
    }

    /// A change that is decided on what stands, as of a window: one that was decided on less is refused, and decided
    /// again.
    fn write_row(&mut self, state: &mut State, message: u8, after: Row) -> Result<(), String> {
        let stands = state.rows[usize::from(message)];
        let window_of = |run: &str, _: &str| {
            let run: usize = run[1..].parse().ok()?;
            self.windows.get(state.windows[run]).cloned()
        };
        let number = |row: &Row| row.version.parse::<u8>().expect("a number");
        let is_behind = |row: &Row, other: &Row| number(row) < number(other);
        let broken = rules::of_row(self.rows.get(stands), &after, &window_of, is_behind);
        if let Some(what) = broken.first() {
            return Err(format!("row of message {message}: {what}"));
        }
        state.rows[usize::from(message)] = self.rows.id(after);
        Ok(())
    }

    fn begin(&mut self, state: &mut State, own: &mut Executor) -> Result<bool, String> {
        let run = own.own.run;
        let (next, begin) = self.window(state, run).begin("query-messages", at(0));
        self.write_window(state, run, next)?;
        match begin {
            Begin::Query { attempt } => {
                own.own.number = attempt as u8;
                own.step = Step::Note;
            }
            Begin::Finish { attempt } => {
                own.own.number = attempt as u8;
                own.carries_out = self.registered(state, run);
                own.step = Step::Create;
            }
            Begin::Nothing { .. } => return Ok(false),
        }
        Ok(true)
    }

    /// Whose intent is registered for the window of a run.
    fn registered(&self, state: &State, run: u8) -> Option<Attempt> {
        let key = self.window(state, run).intent_key.clone()?;
        state.intents.iter().map(|intent| intent.of).find(|of| intent_key(*of) == key)
    }

    fn still_stands(&self, state: &State, own: &Executor) -> bool {
        own.carries_out.is_some_and(|intent| self.registered(state, intent.run) == Some(intent))
    }

    /// A call of a step begins with a look at whether its attempt still counts.
    fn proceeds(&mut self, state: &mut State, own: &Executor, step: &str) -> Result<bool, String> {
        match self.window(state, own.own.run).proceed(own.own.number.into(), step, at(0)) {
            Ok(next) => self.write_window(state, own.own.run, next).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    fn fail(&mut self, state: &mut State, own: &Executor) -> Result<bool, String> {
        let window = self.window(state, own.own.run);
        if let Ok(next) = window.fail(own.own.number.into(), "E", String::new(), at(0)) {
            self.write_window(state, own.own.run, next)?;
        }
        Ok(false)
    }

    fn stage(&mut self, state: &mut State, own: &mut Executor, message: u8) -> Result<bool, String> {
        let entry = self.entry(message, own.seen[usize::from(message)]);
        let mut staging = Staging::new(claim_of(own.own), at(own.seen_at.into()), false);
        staging.over = own.over.iter().map(|attempt| claim_of(*attempt)).collect();
        let row = self.rows.get(state.rows[usize::from(message)]);
        let Ok(staged) = stage(row, &entry, &staging) else { return self.fail(state, own) };
        let seen = own.seen[usize::from(message)];
        let is_behind = |version: &str| version.parse::<u8>().expect("a number") < seen;
        let is_left = matches!(staged.decision, Decision::Already | Decision::Hold);
        if is_left && entry.outcome.disposition == Disposition::Closed {
            let row = staged.row.as_ref().or(row);
            if let Some(what) = rules::of_what_is_left(row, is_behind) {
                return Err(format!("r{} and message {message}: {what}", own.own.run));
            }
        }
        if let Some(after) = staged.row {
            self.write_row(state, message, after)?;
        }
        own.plans[usize::from(message)] = match staged.decision {
            Decision::Write => Plan::Write,
            Decision::Replace { object } => Plan::Replace(of_object(&object)),
            Decision::Already | Decision::Hold => Plan::Rest,
            Decision::Contested { claim } => Plan::Contested(attempt_of(&claim)),
        };
        let undecided = |message: &usize| own.plans[*message] == Plan::Undecided;
        if let Some(message) = (0..MESSAGES).find(undecided) {
            own.step = Step::Stage(message as u8);
            return Ok(true);
        }
        let is_contested = own.plans.iter().any(|plan| matches!(plan, Plan::Contested(_)));
        own.step = if is_contested { Step::Resolve } else { Step::Register };
        self.proceeds(state, own, "write-partitions")
    }

    /// The windows that hold messages of this one: an intent is carried out, or an attempt fenced off.
    fn resolve(&mut self, state: &mut State, own: &mut Executor) -> Result<bool, String> {
        let mut holders = own.plans.iter().filter_map(|plan| match plan {
            Plan::Contested(holder) => Some(*holder),
            _ => None,
        });
        let Some(holder) = holders.find(|holder| !own.over.contains(holder)) else {
            for plan in own.plans.iter_mut().filter(|plan| matches!(plan, Plan::Contested(_))) {
                *plan = Plan::Undecided;
            }
            let first = own.plans.iter().position(|plan| *plan == Plan::Undecided).unwrap_or(0);
            own.step = Step::Stage(first as u8);
            return Ok(true);
        };
        let window = self.window(state, holder.run).clone();
        let number: u64 = holder.number.into();
        if !window.is_over(number) && window.status != WindowState::Prepared {
            match window.abandon(late()) {
                Ok(next) => self.write_window(state, holder.run, next)?,
                Err(_) => return self.fail(state, own),
            }
        }
        own.over.push(holder);
        if !window.is_over(number) && window.status == WindowState::Prepared {
            own.carries_out = self.registered(state, holder.run);
            own.step = Step::Create;
        }
        Ok(true)
    }

    fn register(&mut self, state: &mut State, own: &mut Executor) -> Result<bool, String> {
        let of = own.own;
        let intent = Intent { of, seen: own.seen, seen_at: own.seen_at, plans: own.plans };
        if !state.intents.iter().any(|intent| intent.of == of) {
            state.intents.push(intent);
            state.intents.sort_by_key(|intent| intent.of);
        }
        let Ok(next) = self.window(state, of.run).prepare(of.number.into(), intent_key(of), at(0)) else {
            return self.fail(state, own);
        };
        self.write_window(state, of.run, next)?;
        own.carries_out = Some(of);
        own.step = Step::Create;
        Ok(true)
    }

    fn complete(&mut self, state: &mut State, own: &mut Executor, message: u8) -> Result<bool, String> {
        let of = own.carries_out.expect("an intent");
        let intent = state.intents.iter().find(|intent| intent.of == of).expect("it was written").clone();
        let is_meant = matches!(intent.plans[usize::from(message)], Plan::Write | Plan::Replace(_));
        let mut step = if usize::from(message) + 1 < MESSAGES { Step::Complete(message + 1) } else { Step::Finish };
        if is_meant {
            let entry = self.entry(message, intent.seen[usize::from(message)]);
            let path = format!("s3://b/{}", object_of(of));
            let is_completed = self.window(state, of.run).status == WindowState::Completed;
            let row = self.rows.get(state.rows[usize::from(message)]);
            let next = row.map(|row| complete(row, &entry, &claim_of(of), path, at(1)));
            match next {
                Some(Ok(None)) => {}
                Some(Ok(Some(after))) => self.write_row(state, message, after)?,
                // All of it was carried out before.
                _ if is_completed => step = Step::Finish,
                _ => return self.fail(state, own),
            }
        }
        own.step = step;
        Ok(true)
    }

    fn finish(&mut self, state: &mut State, own: &mut Executor) -> Result<bool, String> {
        let of = own.carries_out.take().expect("an intent");
        let counts = Messages { source: MESSAGES as u64, archived: MESSAGES as u64, ..Messages::default() };
        let next = self.window(state, of.run).complete(Some(&intent_key(of)), counts, Bytes::default(), None, at(1));
        self.write_window(state, of.run, next)?;
        // Of another window: back to what is left to be resolved.
        own.step = Step::Resolve;
        Ok(of != own.own && own.plans.iter().any(|plan| matches!(plan, Plan::Contested(_))))
    }
}

fn create(state: &mut State, own: &Executor) {
    let of = own.carries_out.expect("an intent");
    let intent = state.intents.iter().find(|intent| intent.of == of).expect("it was written");
    let is_written = |message: usize| matches!(intent.plans[message], Plan::Write | Plan::Replace(_));
    let rows = std::array::from_fn(|message| is_written(message).then_some(intent.seen[message]));
    if rows.iter().any(Option::is_some) && !state.objects.iter().any(|(object, _)| *object == of) {
        state.objects.push((of, rows));
        state.objects.sort_by_key(|(object, _)| (object.run, object.number));
    }
}

/// Earlier versions leave their objects.
fn take_out(state: &mut State, own: &Executor) {
    let of = own.carries_out.expect("an intent");
    let intent = state.intents.iter().find(|intent| intent.of == of).expect("it was written").clone();
    for (message, plan) in intent.plans.iter().enumerate() {
        if let Plan::Replace(earlier) = plan
            && let Some((_, rows)) = state.objects.iter_mut().find(|(object, _)| object == earlier)
        {
            rows[message] = None;
        }
    }
}
