//! Histories: the whole workflow under every kind of trouble at once, decided by a seed. Functions die, sleep, wake as
//! zombies and lose answers; executions are aborted, redriven and repeated; documents change; operators set aside. When
//! all is quiet, one more run goes over everything, and [`model`] looks at what is then there.

mod machine;
mod model;
mod observer;
pub mod pairs;
mod scheduler;
pub mod verification;
mod world;

use crate::Archive;
use alerts::run::{
    job_run::{JobRun, RunStatus},
    payloads::{ReportRequest, Version},
    unresolved::{Register, Unresolved},
};
use identity::Identity;
use machine::{Machine, first};
use memory_cloud::{BUCKET, Cloud};
use observer::Observer;
use runtime::Clock;
use scheduler::{Frozen, Idle, Scheduler, Temper};
use serde_json::{Value, json};
use std::{cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc, time::Duration};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
pub use world::{Act, Doc};

/// No history that goes on takes as many.
const MOST_STEPS: u64 = 30_000;
const MOST_EXECUTIONS: usize = 8;

/// What happens in a history, but for the order of requests and the faults, which follow from the seed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub documents: Vec<Doc>,
    pub acts: Vec<(u64, Act)>,
    pub temper: Temper,
    /// The numbers of the faults that do not strike.
    pub left_out: BTreeSet<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub findings: Vec<String>,
    pub steps: u64,
    pub faults: usize,
    pub log: Vec<String>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
        // Where little is, all that happens meets.
        let is_small = random.u32(0..4) != 0;
        let (most, days) = if is_small { (4, 3) } else { (6, 4) };
        let documents = (0..random.usize(1..most)).map(|n| Doc::new(n, random.u32(1..days), random.u32(0..5) == 0));
        let documents: Vec<Doc> = documents.collect();
        let mut acts = world::acts(&mut random, documents.len(), is_small);
        let temper = Temper { faults: random.u32(0..5), by_priority: random.bool() };
        acts.extend(world::acts_beside(&mut random, documents.len()));
        acts.sort_by_key(|(step, _)| *step);
        Plan { seed, documents, acts, temper, left_out: BTreeSet::new() }
    }

    pub fn run(&self, with_log: bool) -> Outcome {
        let idle = Arc::new(Idle::default());
        let note = idle.clone();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.on_thread_park(move || note.note()).build().expect("a runtime");
        LocalSet::new().block_on(&runtime, History::new(self, idle, with_log).run(self))
    }

    /// A shorter plan that still has findings: acts and faults are left out as long as some remain.
    pub fn shrunk(&self) -> Self {
        let mut best = self.clone();
        let fails = |plan: &Plan| !plan.run(false).findings.is_empty();
        loop {
            let mut shorter = None;
            for at in 0..best.acts.len() {
                let mut plan = best.clone();
                plan.acts.remove(at);
                if fails(&plan) {
                    shorter = Some(plan);
                    break;
                }
            }
            let faults = best.run(false).faults;
            for fault in (0..faults).filter(|fault| !best.left_out.contains(fault)) {
                if shorter.is_some() {
                    break;
                }
                let mut plan = best.clone();
                plan.left_out.insert(fault);
                if fails(&plan) {
                    shorter = Some(plan);
                }
            }
            match shorter {
                Some(plan) => best = plan,
                None => return best,
            }
        }
    }
}

struct Execution {
    run_id: String,
    /// Of a failed-only execution: the run that it repeats.
    of_run: String,
    arn: String,
    machine: Machine,
    walk: JoinHandle<()>,
    is_walking: Rc<RefCell<bool>>,
}

struct History {
    cloud: Cloud,
    scheduler: Scheduler,
    observer: Observer,
    findings: Vec<String>,
    /// What an operator's verification found that it should not.
    alarms: Rc<RefCell<Vec<String>>>,
    /// Documents that the source has let go, if only for a while.
    let_go: Rc<RefCell<BTreeSet<String>>>,
    documents: Vec<Doc>,
    executions: Vec<Execution>,
    /// Spools that expire when so many requests went on.
    old: Vec<String>,
    expires_at: u64,
}

impl History {
    fn new(plan: &Plan, idle: Arc<Idle>, with_log: bool) -> Self {
        let (left_out, documents) = (plan.left_out.clone(), plan.documents.clone());
        let scheduler = Scheduler::new(plan.seed, plan.temper.clone(), left_out, idle, with_log);
        let has_exclusions = plan.acts.iter().any(|(_, act)| matches!(act, Act::Exclude { .. }));
        let observer = Observer::new(has_exclusions);
        let (cloud, findings, executions) = (Cloud::default(), Vec::new(), Vec::new());
        let (alarms, let_go) = (Rc::default(), Rc::default());
        History {
            cloud,
            scheduler,
            observer,
            findings,
            alarms,
            let_go,
            documents,
            executions,
            old: Vec::new(),
            expires_at: 0,
        }
    }

    async fn run(mut self, plan: &Plan) -> Outcome {
        for doc in &self.documents {
            doc.put(&self.cloud);
            self.observer.note(doc);
        }
        self.start("r0", json!({"mode": "range", "from": "2024-07-01", "to": "2024-07-08"})).await;
        let mut acts = plan.acts.iter().peekable();
        loop {
            let is_quiet = self.is_quiet();
            while let Some((_, act)) =
                acts.next_if(|(step, act)| is_quiet || !act.waits() && *step <= self.scheduler.steps())
            {
                self.act(act).await;
                if is_quiet {
                    break;
                }
            }
            if self.is_quiet() && acts.peek().is_none() {
                break;
            }
            if self.scheduler.steps() > MOST_STEPS {
                self.findings.push("it does not come to an end".to_owned());
                break;
            }
            self.step().await;
            if let Some(frozen) = self.scheduler.frozen() {
                self.surround(&frozen).await;
            }
            if !self.findings.is_empty() {
                break;
            }
        }
        if self.findings.is_empty() {
            self.findings = model::check_quiet(&self.cloud);
        }
        if self.findings.is_empty() {
            self.one_more_run().await;
        }
        let (steps, faults, log) = (self.scheduler.steps(), self.scheduler.faults(), self.scheduler.log());
        Outcome { findings: self.findings, steps, faults, log }
    }

    async fn step(&mut self) {
        self.scheduler.step(&self.cloud).await;
        if let Some(last) = self.scheduler.last() {
            self.findings.extend(self.observer.look(&self.cloud, &last));
        }
        self.findings.append(&mut self.alarms.borrow_mut());
        self.expire();
    }

    /// What makes a function dangerous that is thought dead: others begin its work again, on what has changed.
    async fn surround(&mut self, frozen: &Frozen) {
        let mut random = fastrand::Rng::with_seed(frozen.chance);
        let Some(nth) = self.executions.iter().position(|execution| execution.arn == frozen.execution_arn) else {
            return;
        };
        if random.bool() {
            let change = Act::change(&mut random, self.documents.len());
            self.act(&change).await;
        }
        let what_follows = |random: &mut fastrand::Rng| match random.u32(0..4) {
            0 => Some(Act::Redrive { nth }),
            1 => Some(Act::FailedOnly { nth }),
            2 => Some(Act::start(random)),
            _ => None,
        };
        let acts = match random.u32(0..6) {
            0..2 => Vec::new(),
            2 => vec![Act::start(&mut random)],
            _ => [Some(Act::Abort { nth }), what_follows(&mut random)].into_iter().flatten().collect(),
        };
        for act in acts {
            self.act(&act).await;
        }
        if random.u32(0..8) == 0 {
            // What was read of a document is all that is left of it, and it is marked meanwhile.
            self.act(&Act::Delete { doc: random.usize(0..self.documents.len()) }).await;
            self.act(&Act::Verify { day: None }).await;
        }
    }

    /// All is put back, and nothing strikes any more: what does one run over everything leave?
    async fn one_more_run(&mut self) {
        self.scheduler.calm();
        self.scheduler.note(|| "--- all is quiet; one more run".to_owned());
        let none = |register: Register| Some(Register { items: Vec::new(), ..register });
        self.cloud.job_runs().change_unresolved(none).await.expect("no fault");
        self.expires_at = 0;
        self.expire();
        self.cloud.clock.advance(Duration::from_secs(600));
        self.run_to_its_end("last", json!({"mode": "range", "from": "2024-07-01", "to": "2024-07-08"})).await;
        if self.documents.iter().any(|doc| doc.is_gone) {
            // No run meets an intent whose messages are all gone: an operator has its run finish it, as `verify` says.
            for (n, run_id) in model::unfinished_runs(&self.cloud).into_iter().enumerate() {
                self.run_to_its_end(&format!("rerun{n}"), json!({"mode": "failed-only", "run_id": run_id})).await;
            }
        }
        if self.findings.is_empty() {
            self.findings = verification::of_all(&self.cloud, &self.documents, "last").await;
        }
    }

    async fn run_to_its_end(&mut self, name: &str, input: Value) {
        self.start(name, input).await;
        let before = self.scheduler.steps();
        while !self.is_quiet() && self.findings.is_empty() {
            if self.scheduler.steps() > before + MOST_STEPS {
                self.findings.push(format!("run {name} does not come to an end"));
            }
            self.step().await;
        }
    }

    fn is_quiet(&self) -> bool {
        self.scheduler.is_quiet() && self.executions.iter().all(|execution| !*execution.is_walking.borrow())
    }

    async fn start(&mut self, name: &str, input: Value) {
        let arn = self.cloud.start(name, &input).await;
        self.scheduler.note(|| format!("=== execution {name} starts: {input}"));
        let of_run = input["run_id"].as_str().unwrap_or(name).to_owned();
        let position = Rc::new(RefCell::new(first(name, &arn, input)));
        let (cloud, scheduler) = (self.cloud.clone(), self.scheduler.clone());
        let machine = Machine { execution_arn: arn.clone(), cloud, scheduler, position };
        let is_walking = Rc::new(RefCell::new(false));
        let walk = self.walk(name, &of_run, &arn, &machine, &is_walking);
        self.executions.push(Execution { run_id: name.to_owned(), of_run, arn, machine, walk, is_walking });
    }

    fn walk(
        &self,
        name: &str,
        of_run: &str,
        arn: &str,
        machine: &Machine,
        is_walking: &Rc<RefCell<bool>>,
    ) -> JoinHandle<()> {
        *is_walking.borrow_mut() = true;
        let (machine, name, arn, is_walking) = (machine.clone(), name.to_owned(), arn.to_owned(), is_walking.clone());
        let of_run = of_run.to_owned();
        spawn_local(async move {
            let outcome = Box::pin(machine.walk()).await;
            match &outcome {
                Ok(()) => machine.cloud.executions.end(&arn, "SUCCEEDED", None),
                Err(fault) => machine.cloud.executions.end(&arn, "FAILED", Some(&fault.name)),
            }
            machine.scheduler.note(|| format!("=== execution {name} ends: {outcome:?}"));
            if outcome.is_err() {
                mark_dead(&machine.cloud, &of_run, &arn).await;
            }
            *is_walking.borrow_mut() = false;
        })
    }

    async fn act(&mut self, act: &Act) {
        if self.executions.len() >= MOST_EXECUTIONS && act.is_start() {
            return;
        }
        self.scheduler.note(|| format!("=== {act:?}"));
        self.carry_out(act).await;
        self.observer.pass_over(&self.cloud);
    }

    async fn carry_out(&mut self, act: &Act) {
        match act {
            Act::Change { doc, reopens, moves, only_history } => self.change(*doc, *reopens, *moves, *only_history),
            Act::Start { from, to } | Act::Extract { from, to } => {
                let name = format!("r{}", self.executions.len());
                let mode = if matches!(act, Act::Start { .. }) { "range" } else { "extract" };
                let (from, to) = (format!("2024-07-0{from}"), format!("2024-07-0{to}"));
                self.start(&name, json!({"mode": mode, "from": from, "to": to})).await;
            }
            Act::StartMode { mode } => {
                let name = format!("r{}", self.executions.len());
                let input = match *mode {
                    "scheduled" => json!({"mode": mode, "scheduled_for": self.cloud.clock.now()}),
                    mode => json!({"mode": mode}),
                };
                self.start(&name, input).await;
            }
            Act::Month { requests } => {
                self.cloud.clock.advance(Duration::from_secs(30 * 86_400));
                self.old = self.cloud.keys("spool/").into_keys().collect();
                self.expires_at = self.scheduler.steps() + requests;
                self.expire();
            }
            Act::Abort { nth } => {
                let Some(execution) = self.executions.get(*nth) else { return };
                if *execution.is_walking.borrow() {
                    execution.walk.abort();
                    *execution.is_walking.borrow_mut() = false;
                    self.cloud.executions.end(&execution.arn, "ABORTED", None);
                    mark_dead(&self.cloud, &execution.of_run, &execution.arn).await;
                }
            }
            Act::Redrive { nth } => {
                let Some(at) = (*nth < self.executions.len()).then_some(*nth) else { return };
                let Execution { run_id, of_run, arn, machine, is_walking, .. } = &self.executions[at];
                if !*is_walking.borrow() && self.cloud.workflow().redrive(arn).await.is_ok() {
                    let walk = self.walk(run_id, of_run, arn, machine, is_walking);
                    self.executions[at].walk = walk;
                }
            }
            Act::FailedOnly { nth } => {
                let Some(run_id) = self.executions.get(*nth).map(|execution| execution.of_run.clone()) else { return };
                let name = format!("f{}", self.executions.len());
                self.start(&name, json!({"mode": "failed-only", "run_id": run_id})).await;
            }
            Act::Exclude { doc } | Act::Release { doc } => {
                let document = Identity::new("messages", &self.documents[*doc].id);
                let order = Unresolved::excluded(document, "it is poison", self.cloud.clock.now());
                let is_exclusion = matches!(act, Act::Exclude { .. });
                let change = |register: Register| {
                    if is_exclusion { register.with(order.clone()) } else { Some(register.without(&order)) }
                };
                self.cloud.job_runs().change_unresolved(change).await.expect("no fault");
            }
            Act::Verify { day } => {
                verification::begin(&self.scheduler, &self.cloud, *day, &self.let_go, &self.alarms);
            }
            Act::Delete { doc } => {
                let doc = &mut self.documents[*doc];
                doc.is_gone = true;
                doc.put(&self.cloud);
                self.let_go.borrow_mut().insert(doc.id.clone());
            }
            Act::Skip { nth } => {
                let Some(run_id) = self.executions.get(*nth).map(|execution| execution.run_id.clone()) else { return };
                let (windows, now) = (self.cloud.windows(), self.cloud.clock.now());
                for record in windows.rows.partition(&run_id).await.expect("no fault").into_iter().take(1) {
                    if let Some(mut skipped) = record.skip("it keeps failing", now) {
                        skipped.revision = record.revision + 1;
                        windows.rows.put(&skipped).await.expect("no fault");
                    }
                }
            }
        }
    }

    fn change(&mut self, doc: usize, reopens: bool, moves: bool, only_history: bool) {
        let doc = &mut self.documents[doc];
        if doc.is_gone && only_history {
            return;
        }
        doc.is_gone = false;
        doc.events += u32::from(!doc.is_open);
        if !only_history {
            doc.is_open = reopens;
            doc.changes += 1;
            doc.day = if moves { doc.day % 3 + 1 } else { doc.day };
        }
        doc.put(&self.cloud);
        self.observer.note(doc);
    }

    /// The lifecycle rule of the bucket comes to what is a month old, at whatever moment.
    fn expire(&mut self) {
        if self.scheduler.steps() >= self.expires_at {
            self.old.drain(..).for_each(|key| self.cloud.store.expire(BUCKET, &key));
        }
    }
}

/// As the rule of EventBridge does with an execution that ended before its report: it marks the run where its row names
/// that execution, and sends what is to be told.
async fn mark_dead(cloud: &Cloud, run_id: &str, execution_arn: &str) {
    let now = cloud.clock.now();
    let mark = |run: &mut JobRun| {
        if run.status == RunStatus::Running && run.execution_arn == execution_arn {
            run.end(RunStatus::Failed, now);
            run.error = Some("ExecutionDied".to_owned());
        }
    };
    cloud.job_runs().change(run_id, mark).await.expect("no fault");
    let report_key = format!("runs/{run_id}/report.json");
    let request = ReportRequest { v: Version, run_id: run_id.to_owned(), report_key, reported_at: 0 };
    // One that is at work again has no report yet, and a refused one no row.
    let _ = Archive::new(cloud.clone()).send_summary(request).await;
}
