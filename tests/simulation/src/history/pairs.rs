//! Two executors that meet over the same message, each stopped before every one of its requests: the first goes to a
//! request and stops, something happens, the second goes to one of its own and stops, the first ends, the second ends.
//! Histories by chance rarely stop two functions in the two narrow places that a fault needs; here are all pairs of
//! them. After each write the rows are held against [`crate::rules`], and after one more run the model looks.

use super::{
    Doc, mark_dead, model,
    observer::Observer,
    scheduler::{Last, is_table_write},
    verification,
};
use crate::{Archive, Fault};
use alerts::{
    keys::spool_prefix,
    message::tracking::Claim,
    run::{
        payloads::{CollectRequest, Collected, Plan, PlanRequest, ReportRequest, Version, WindowTask},
        unresolved::{Register, Unresolved},
    },
};
use async_trait::async_trait;
use identity::Identity;
use memory_cloud::{BUCKET, Cloud, JOB_RUNS, TRACKING, WINDOWS};
use network::{Answer, Broken, Network, Request};
use runtime::Clock;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::{JoinHandle, LocalSet, spawn_local},
};
use verify::rules::Days;

/// What happens while the first executor has stopped, and who the second is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// The execution is aborted and redriven after its document changed.
    Redriven,
    /// An operator excludes a document; the execution is aborted and redriven.
    Excluded,
    /// The same, and the first stops once more before it writes its window's row.
    ExcludedTooLate,
    /// The spool expires; the execution is aborted and redriven.
    Expired,
    /// The spool expires, and another run needs the messages.
    ExpiredForAnother,
    /// A document changed, and another run reads it.
    Changed,
    /// Another run read the document before it changed, and goes on now.
    ReadEarlier,
    /// The execution is aborted while it reports, and its failed window is repeated by another.
    FailedOnly,
    /// The source lets the document go, and an operator has `verify` repair what it finds.
    Gone,
    /// The same, and `verify` is the first: the document comes back, and another run goes on that had read it before.
    Returned,
}

pub const ALL: [Meeting; 10] = [
    Meeting::Redriven,
    Meeting::Excluded,
    Meeting::ExcludedTooLate,
    Meeting::Expired,
    Meeting::ExpiredForAnother,
    Meeting::Changed,
    Meeting::ReadEarlier,
    Meeting::FailedOnly,
    Meeting::Gone,
    Meeting::Returned,
];

/// How many pairs of stops there are, and what is broken in the first that breaks something.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    pub pairs: usize,
    pub finding: Option<String>,
}

/// Tries all pairs of stops of a meeting.
pub fn explore(meeting: Meeting) -> Tried {
    let (mut tried, mut known) = (Tried::default(), HashSet::new());
    for first in 0.. {
        let mut has_stopped = false;
        for second in 0.. {
            let outcome = run(meeting, first, second, &mut known);
            tried.pairs += 1;
            if !outcome.findings.is_empty() {
                let stops = outcome.stops.join(", ");
                tried.finding = Some(format!("{meeting:?}, {stops}: {}", outcome.findings.join("; ")));
                return tried;
            }
            has_stopped |= outcome.stopped[0];
            if !outcome.stopped[1] {
                break;
            }
        }
        if !has_stopped {
            return tried;
        }
    }
    tried
}

struct Outcome {
    findings: Vec<String>,
    /// Whether the first and the second had a request to stop before.
    stopped: [bool; 2],
    stops: Vec<String>,
}

/// What two executors left, in short.
type Left = u64;

fn run(meeting: Meeting, first: usize, second: usize, known: &mut HashSet<Left>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, World::new(meeting).meet(meeting, first, second, known))
}

/// What an executor does.
enum Work {
    /// The steps of a window from this one on.
    Window(Step, WindowTask),
    Plan(PlanRequest),
    /// All that follows the windows.
    Report(CollectRequest),
    /// `alert-archive verify --deep --repair`, for all days.
    Verify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Query,
    Classify,
}

struct World {
    cloud: Cloud,
    documents: Vec<Doc>,
    /// Of each run.
    executions: BTreeMap<String, String>,
    seen: Arc<Mutex<Seen>>,
}

/// What the observer saw of all executors.
struct Seen {
    observer: Observer,
    findings: Vec<String>,
}

impl World {
    fn new(meeting: Meeting) -> Self {
        let documents = vec![Doc::new(0, 1, false)];
        let (cloud, mut observer) = (Cloud::default(), Observer::new(meeting == Meeting::Excluded));
        for doc in &documents {
            doc.put(&cloud);
            observer.note(doc);
        }
        World {
            cloud,
            documents,
            executions: BTreeMap::new(),
            seen: Arc::new(Mutex::new(Seen { observer, findings: Vec::new() })),
        }
    }

    async fn meet(mut self, meeting: Meeting, first: usize, second: usize, known: &mut HashSet<Left>) -> Outcome {
        let of_another = match meeting {
            Meeting::ReadEarlier => {
                let task = self.read("r1").await;
                self.abort("r1").await;
                self.change();
                Some(task)
            }
            Meeting::Returned => {
                let task = self.read("r0").await;
                let seen = self.cloud.through(self.gate("r0", None, is_shared, Semaphore::MAX_PERMITS / 2));
                Box::pin(Archive::new(seen).classify(task)).await.expect("staged");
                self.abort("r0").await;
                let task = self.read("r1").await;
                self.abort("r1").await;
                self.leave_or_return();
                // The lease of what was staged is over.
                self.cloud.clock.advance(Duration::from_secs(31));
                Some(task)
            }
            _ => None,
        };
        let work = match meeting {
            Meeting::FailedOnly => Work::Report(self.report("r0").await),
            Meeting::Returned => Work::Verify,
            _ => Work::Window(Step::Classify, self.read("r0").await),
        };
        let is_stop = if meeting == Meeting::Returned { is_write } else { is_shared };
        let (one, gate) = self.begin("r0", work, is_stop, first);
        let mut stopped = [gate.stops(&one).await, false];
        self.abort("r0").await;
        match meeting {
            Meeting::Redriven | Meeting::Changed => self.change(),
            Meeting::Excluded | Meeting::ExcludedTooLate => self.change_register(Some(&self.documents[0])).await,
            Meeting::Expired | Meeting::ExpiredForAnother => self.expire(),
            Meeting::Gone | Meeting::Returned => self.leave_or_return(),
            Meeting::ReadEarlier | Meeting::FailedOnly => {}
        }
        let (run, work) = match meeting {
            Meeting::Redriven | Meeting::Excluded | Meeting::ExcludedTooLate | Meeting::Expired => {
                ("r0", Work::Window(Step::Query, self.task_of("r0")))
            }
            Meeting::ExpiredForAnother | Meeting::Changed => {
                ("r1", Work::Window(Step::Classify, self.read("r1").await))
            }
            Meeting::ReadEarlier | Meeting::Returned => {
                ("r1", Work::Window(Step::Classify, of_another.expect("it has read")))
            }
            Meeting::Gone => ("r0", Work::Verify),
            Meeting::FailedOnly => {
                ("f1", Work::Plan(self.start("f1", json!({"mode": "failed-only", "run_id": "r0"})).await))
            }
        };
        if meeting != Meeting::ExcludedTooLate {
            // The lease of the first is over.
            self.cloud.clock.advance(Duration::from_secs(31));
        }
        let (other, second_gate) = self.begin(run, work, is_write, second);
        stopped[1] = second_gate.stops(&other).await;
        let stops = [("the first", &gate), ("the second", &second_gate)].map(|(who, gate)| gate.stop(who));
        if meeting == Meeting::ExcludedTooLate {
            gate.goes_to_its_window(&one).await;
            second_gate.permits.add_permits(Semaphore::MAX_PERMITS / 4);
            ended(&other).await;
            gate.at_window.add_permits(Semaphore::MAX_PERMITS / 4);
        }
        for (executor, gate) in [(one, gate), (other, second_gate)] {
            gate.permits.add_permits(Semaphore::MAX_PERMITS / 4);
            ended(&executor).await;
            // Superseded or not: what counts is what it leaves.
            let _ = executor.await.expect("it does not panic");
        }
        self.abort(run).await;
        Outcome { findings: self.look(known).await, stopped, stops: stops.into() }
    }

    /// What the observer saw, and what the model finds before and after one more run, unless others left the same.
    async fn look(self, known: &mut HashSet<Left>) -> Vec<String> {
        let mut findings = std::mem::take(&mut self.seen().findings);
        if findings.is_empty() && !known.insert(self.left()) {
            return findings;
        }
        if findings.is_empty() {
            findings = model::check_quiet(&self.cloud);
        }
        if findings.is_empty() {
            self.change_register(None).await;
            self.cloud.clock.advance(Duration::from_secs(600));
            let input = json!({"mode": "range", "from": "2024-07-01", "to": "2024-07-08"});
            let outcome = Box::pin(Archive::new(self.cloud.clone()).run("last", input)).await;
            findings = outcome.err().map(|fault| fault.to_string()).into_iter().collect();
            let is_gone = self.documents.iter().any(|doc| doc.is_gone);
            for (n, run_id) in model::unfinished_runs(&self.cloud).into_iter().enumerate().filter(|_| is_gone) {
                // No run meets an intent whose messages are all gone: an operator has its run finish it.
                let input = json!({"mode": "failed-only", "run_id": run_id});
                let outcome = Box::pin(Archive::new(self.cloud.clone()).run(&format!("rerun{n}"), input)).await;
                findings.extend(outcome.err().map(|fault| fault.to_string()));
            }
        }
        if findings.is_empty() {
            findings = verification::of_all(&self.cloud, &self.documents, "last").await;
        }
        findings
    }

    fn left(&self) -> Left {
        let mut left = DefaultHasher::new();
        [TRACKING, WINDOWS, JOB_RUNS].map(|table| format!("{:?}", self.cloud.rows(table))).hash(&mut left);
        self.cloud.store.contents(BUCKET).hash(&mut left);
        self.cloud.mails.sent().len().hash(&mut left);
        left.finish()
    }

    async fn start(&mut self, run: &str, input: Value) -> PlanRequest {
        let execution_arn = self.cloud.start(run, &input).await;
        self.executions.insert(run.to_owned(), execution_arn.clone());
        PlanRequest { v: Version, input, run_id: run.to_owned(), execution_arn }
    }

    /// A run plans its only window.
    async fn plan(&mut self, run: &str) -> (Archive<'static>, Plan) {
        let request = self.start(run, json!({"mode": "range", "from": "2024-07-01", "to": "2024-07-04"})).await;
        let archive = Archive::new(self.cloud.through(self.gate(run, None, is_shared, Semaphore::MAX_PERMITS / 2)));
        let plan = Box::pin(archive.plan(request)).await.expect("a plan");
        assert_eq!(plan.windows, 1);
        (archive, plan)
    }

    /// A run plans and reads its window.
    async fn read(&mut self, run: &str) -> WindowTask {
        let (archive, plan) = self.plan(run).await;
        Box::pin(archive.query(archive.tasks(&plan).remove(0))).await.expect("read")
    }

    /// A run whose window never began has come to its report.
    async fn report(&mut self, run: &str) -> CollectRequest {
        let (_, Plan { v, run_id, mode, execution_arn, bucket, windows_key, .. }) = self.plan(run).await;
        CollectRequest { v, run_id, mode, execution_arn, bucket, windows_key }
    }

    /// The window of a run as its execution would name it to a new attempt.
    fn task_of(&self, run: &str) -> WindowTask {
        let row = self.cloud.window_rows().into_iter().find(|row| row["run_id"] == run).expect("it was planned");
        let task = json!({"v": Version, "run_id": run, "mode": "range", "window": row["window"]});
        serde_json::from_value(task).expect("a task")
    }

    async fn abort(&self, run: &str) {
        self.cloud.executions.end(&self.executions[run], "ABORTED", None);
        let of_run = if run == "f1" { "r0" } else { run };
        mark_dead(&self.cloud, of_run, &self.executions[run]).await;
        self.seen().observer.pass_over(&self.cloud);
    }

    fn change(&mut self) {
        let doc = &mut self.documents[0];
        doc.changes += 1;
        doc.events += 1;
        doc.put(&self.cloud);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).observer.note(&self.documents[0]);
    }

    /// The source lets the document go, or has it again.
    fn leave_or_return(&mut self) {
        let doc = &mut self.documents[0];
        doc.is_gone = !doc.is_gone;
        doc.put(&self.cloud);
    }

    /// Excludes a document, or none.
    async fn change_register(&self, excluded: Option<&Doc>) {
        let order = excluded.map(|doc| {
            Unresolved::excluded(Identity::new("messages", &doc.id), "it is poison", self.cloud.clock.now())
        });
        let change = |register: Register| Some(Register { items: order.clone().into_iter().collect(), ..register });
        self.cloud.job_runs().change_unresolved(change).await.expect("no fault");
        self.seen().observer.pass_over(&self.cloud);
    }

    fn expire(&self) {
        let window = self.task_of("r0").window.window_id;
        self.cloud.store.expire(BUCKET, &spool_prefix("r0", &window, 1));
    }

    /// Starts an executor that is to stop before its request `stop`.
    fn begin(&self, run: &str, work: Work, is_stop: fn(&Request) -> bool, stop: usize) -> (Executor, Arc<Gate>) {
        let attempt = match &work {
            Work::Window(_, task) => task.attempt.map(|attempt| Claim {
                run_id: task.run_id.clone(),
                window_id: task.window.window_id.clone(),
                attempt,
            }),
            Work::Plan(_) | Work::Report(_) | Work::Verify => None,
        };
        let gate = self.gate(run, attempt, is_stop, stop);
        let archive = Archive { retries: 0, ..Archive::new(self.cloud.through(gate.clone())) };
        (spawn_local(carry_out(archive, work)), gate)
    }

    fn gate(&self, run: &str, attempt: Option<Claim>, is_stop: fn(&Request) -> bool, stop: usize) -> Arc<Gate> {
        Arc::new(Gate {
            is_stop,
            permits: Semaphore::new(stop),
            stopped: Notify::new(),
            at_window: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            before: Mutex::default(),
            cloud: self.cloud.clone(),
            seen: self.seen.clone(),
            execution_arn: self.executions[run].clone(),
            attempt,
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn carry_out(archive: Archive<'static>, work: Work) -> Result<(), Fault> {
    match work {
        Work::Window(first, mut task) => {
            if first == Step::Query {
                task = Box::pin(archive.query(task)).await?;
            }
            task = Box::pin(archive.classify(task)).await?;
            Box::pin(archive.write(task)).await?;
        }
        Work::Plan(request) => {
            Box::pin(archive.plan(request)).await?;
        }
        Work::Report(request) => {
            let collected = Box::pin(archive.collect(request)).await?;
            let Collected { v, run_id, report_key, reported_at, .. } = collected.clone();
            Box::pin(archive.send_summary(ReportRequest { v, run_id, report_key, reported_at })).await?;
            Box::pin(archive.gate(collected)).await?;
        }
        Work::Verify => {
            let own = verification::archive(&archive.cloud);
            // Refused or not: what counts is what it leaves.
            let _ = Box::pin(verification::verify_and_repair(&own, Days::ALL, |_| ())).await;
        }
    }
    Ok(())
}

/// What lies in the spool is the attempt's own, and nobody changes it.
fn is_shared(request: &Request) -> bool {
    request.service == "dynamodb" || request.service == "s3" && !request.subject.contains("/spool/")
}

/// Whether the second stops before it reads or before it writes what it has read is the same for the first.
fn is_write(request: &Request) -> bool {
    is_shared(request) && (is_table_write(request) || request.operation == "PutObject")
}

type Executor = JoinHandle<Result<(), Fault>>;

/// The network of an executor: it stops all of its requests when so many went on.
struct Gate {
    /// Before which requests it stops.
    is_stop: fn(&Request) -> bool,
    permits: Semaphore,
    stopped: Notify,
    /// For writes of the window's row.
    at_window: Semaphore,
    /// The first request that had to wait.
    before: Mutex<Option<Request>>,
    cloud: Cloud,
    seen: Arc<Mutex<Seen>>,
    execution_arn: String,
    attempt: Option<Claim>,
}

impl Gate {
    /// Whether the executor stops before it ends.
    async fn stops(&self, executor: &Executor) -> bool {
        tokio::select! {
            biased;
            () = self.stopped.notified() => true,
            () = ended(executor) => false,
        }
    }

    /// It goes on until it writes its window's row, or ends.
    async fn goes_to_its_window(&self, executor: &Executor) {
        self.at_window.forget_permits(Semaphore::MAX_PERMITS);
        self.permits.add_permits(Semaphore::MAX_PERMITS / 4);
        tokio::select! {
            biased;
            () = self.stopped.notified() => {}
            () = ended(executor) => {}
        }
    }

    fn stop(&self, who: &str) -> String {
        match &*self.before.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Request { operation, subject, .. }) => format!("{who} stopped before {operation} {subject}"),
            None => format!("{who} went to its end"),
        }
    }
}

/// Without its result, which is taken later.
async fn ended(executor: &Executor) {
    for _ in 0..100_000 {
        if executor.is_finished() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it neither ends nor asks for anything");
}

#[async_trait]
impl Network for Gate {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        if is_table_write(request) && request.subject.starts_with(WINDOWS) {
            if self.at_window.available_permits() == 0 {
                self.stopped.notify_one();
            }
            self.at_window.acquire().await.map_err(|_| Broken)?.forget();
        }
        if !(self.is_stop)(request) {
            return Ok(());
        }
        if let Ok(permit) = self.permits.try_acquire() {
            permit.forget();
            return Ok(());
        }
        self.before.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| request.clone());
        self.stopped.notify_one();
        self.permits.acquire().await.map_err(|_| Broken)?.forget();
        Ok(())
    }

    async fn answered(&self, request: &Request) -> Answer {
        let (execution_arn, attempt) = (self.execution_arn.clone(), self.attempt.clone());
        let last = Last { execution_arn, attempt, request: request.clone() };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let findings = seen.observer.look(&self.cloud, &last);
        seen.findings.extend(findings);
        Answer::Arrives
    }
}
