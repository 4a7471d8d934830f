//! The whole archive in one process: the functions as they are deployed, called in the order of
//! `statemachine/archive-alerts.asl.json`, over a cloud in memory. Payloads pass as JSON. What the definition says of
//! order, retries and failures is repeated here and compared with it by `tests/follows_the_definition.rs`.

use alerts::{
    mode::Mode,
    run::payloads::{CollectRequest, Collected, Gate, Plan, PlanRequest, ReportRequest, Version, WindowTask},
};
use errors::{Named, Retried, describe, entry};
use memory_cloud::{BUCKET, Cloud};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sources::{Sources, api::Api};
use std::{fmt, time::Duration};

/// The definition's `MaxAttempts` for what passes.
const RETRIES: u32 = 6;
/// Between two tries, and longer than a lease, so that none has to wait for more than one of them.
const BETWEEN: Duration = Duration::from_secs(31);

pub mod breadth_first;
pub mod history;
pub mod rules;
pub mod states;
pub mod work;

/// An error as the state machine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub name: String,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{}: {}", self.name, self.message)
    }
}

/// Something that stands between the states and the functions: a test that changes the world, or counts.
pub trait Watch {
    /// Before a function is called.
    fn before(&self, _function: &str, _payload: &Value) {}
}

/// Only lets pass.
pub struct Idle;

impl Watch for Idle {}

/// The deployed workflow over a cloud.
pub struct Archive<'a> {
    pub cloud: Cloud,
    pub watch: &'a dyn Watch,
    /// Documents that a window should hold at most.
    pub window_messages: u64,
    /// Windows of its range that a scheduled run takes at most.
    pub run_windows: usize,
    /// Documents behind its range that a scheduled run sets out to read at most.
    pub most_found: usize,
    /// Where messages come from, unless from OpenSearch alone.
    pub api: Option<(sources::SourceMode, Api)>,
    /// How often a call that failed in passing is made again.
    pub retries: u32,
}

impl<'a> Archive<'a> {
    pub fn new(cloud: Cloud) -> Self {
        Archive {
            cloud,
            watch: &Idle,
            window_messages: 10,
            run_windows: 2000,
            most_found: 100_000,
            api: None,
            retries: RETRIES,
        }
    }

    /// Starts an execution and runs it to its end.
    pub async fn run(&self, run_id: &str, input: Value) -> Result<(), Fault> {
        let arn = self.cloud.start(run_id, &input).await;
        let outcome = self.begin_at_plan(run_id, &arn, input).await;
        self.end(&arn, outcome)
    }

    /// Redrives an execution that failed in its gate: it begins there again, with the same payload.
    pub async fn redrive(&self, arn: &str, collected: Collected) -> Result<(), Fault> {
        self.cloud.workflow().redrive(arn).await.map_err(|error| fault(&error))?;
        let outcome = self.begin_at_gate(collected).await;
        self.end(arn, outcome)
    }

    fn end(&self, arn: &str, outcome: Result<(), Fault>) -> Result<(), Fault> {
        match &outcome {
            Ok(()) => self.cloud.executions.end(arn, "SUCCEEDED", None),
            Err(error) => self.cloud.executions.end(arn, "FAILED", Some(&error.name)),
        }
        outcome
    }

    fn sources(&self) -> Sources {
        match &self.api {
            Some((mode, api)) => self.cloud.sources().with_api(*mode, api.clone()),
            None => self.cloud.sources(),
        }
    }

    async fn begin_at_plan(&self, run_id: &str, arn: &str, input: Value) -> Result<(), Fault> {
        let request = PlanRequest { v: Version, input, run_id: run_id.to_owned(), execution_arn: arn.to_owned() };
        let plan = self.plan(request).await?;
        self.begin_at_windows(plan).await
    }

    async fn begin_at_windows(&self, plan: Plan) -> Result<(), Fault> {
        let mut plan = plan;
        loop {
            if plan.windows > 0 {
                // A failed window stops no other, and its error is in its row.
                for task in self.tasks(&plan) {
                    let _ = self.window(task).await;
                }
            }
            let Plan { v, run_id, mode, execution_arn, bucket, windows_key, .. } = plan;
            let collected =
                self.collect(CollectRequest { v, run_id, mode, execution_arn, bucket, windows_key }).await?;
            self.report(&collected).await?;
            let Gate { collected, retry } = self.gate(collected).await?;
            if !retry {
                return Ok(());
            }
            plan = as_plan(collected);
        }
    }

    async fn begin_at_gate(&self, collected: Collected) -> Result<(), Fault> {
        let Gate { collected, retry } = self.gate(collected).await?;
        if retry { self.begin_at_windows(as_plan(collected)).await } else { Ok(()) }
    }

    /// The Map's items: each line of the plan with what the ItemSelector adds.
    pub fn tasks(&self, plan: &Plan) -> Vec<WindowTask> {
        let contents = self.cloud.store.contents(BUCKET);
        let lines = serde_json::Deserializer::from_slice(&contents[&plan.windows_key]).into_iter::<Value>();
        let Plan { run_id, mode, execution_arn, .. } = plan;
        let task = |window: Value| json!({"v": Version, "run_id": run_id, "mode": mode, "execution_arn": execution_arn, "window": window});
        let tasks = lines.map(|line| serde_json::from_value(task(line.expect("a line of JSON"))));
        tasks.map(|task| task.expect("a task")).collect()
    }

    pub async fn window(&self, task: WindowTask) -> Result<(), Fault> {
        let mut task = self.repeated("query-messages", task).await?;
        task = self.repeated("classify-alerts", task).await?;
        if task.mode != Mode::Extract {
            self.repeated("write-partitions", task).await?;
        }
        Ok(())
    }

    /// Calls a step as long as it has more to do.
    async fn repeated(&self, function: &'static str, mut task: WindowTask) -> Result<WindowTask, Fault> {
        loop {
            task = match function {
                "query-messages" => self.query(task).await?,
                "classify-alerts" => self.classify(task).await?,
                _ => self.write(task).await?,
            };
            if !task.more {
                return Ok(task);
            }
        }
    }

    pub async fn plan(&self, request: PlanRequest) -> Result<Plan, Fault> {
        let deps = plan_windows::Deps {
            sources: self.sources(),
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            windows: self.cloud.windows(),
            ledger: self.cloud.tracking(),
            workflow: self.cloud.workflow(),
            target: self.window_messages,
            most_windows: self.run_windows,
            most_found: self.most_found,
            settle: jiff::SignedDuration::from_mins(60),
        };
        let handle = async |request| plan_windows::handle(&deps, request, self.cloud.call()).await;
        self.call("plan-windows", &request, handle).await
    }

    pub async fn query(&self, task: WindowTask) -> Result<WindowTask, Fault> {
        let deps = query_messages::Deps {
            sources: self.sources(),
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            windows: self.cloud.windows(),
            rules: Default::default(),
        };
        let handle = async |task| query_messages::handle(&deps, task, self.cloud.call()).await;
        self.call("query-messages", &task, handle).await
    }

    pub async fn classify(&self, task: WindowTask) -> Result<WindowTask, Fault> {
        let deps = classify_alerts::Deps {
            objects: self.cloud.objects(),
            windows: self.cloud.windows(),
            ledger: self.cloud.tracking(),
        };
        let handle = async |task| classify_alerts::handle(&deps, task, self.cloud.call()).await;
        self.call("classify-alerts", &task, handle).await
    }

    pub async fn write(&self, task: WindowTask) -> Result<WindowTask, Fault> {
        let deps = write_partitions::Deps {
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            windows: self.cloud.windows(),
            ledger: self.cloud.tracking(),
            jsonl: true,
            message_json: true,
            cold_storage: false,
        };
        let handle = async |task| write_partitions::handle(&deps, task, self.cloud.call()).await;
        self.call("write-partitions", &task, handle).await
    }

    pub async fn collect(&self, request: CollectRequest) -> Result<Collected, Fault> {
        let deps = collect_windows::Deps {
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            windows: self.cloud.windows(),
            ledger: self.cloud.tracking(),
            workflow: self.cloud.workflow(),
            source_gb_month: None,
        };
        let handle = async |request| collect_windows::handle(&deps, request, self.cloud.call()).await;
        self.call("collect-windows", &request, handle).await
    }

    async fn report(&self, collected: &Collected) -> Result<(), Fault> {
        let Collected { v, run_id, report_key, reported_at, .. } = collected.clone();
        let request = ReportRequest { v, run_id, report_key, reported_at };
        self.send_summary(request.clone()).await?;
        self.aggregate_dashboard(request).await
    }

    pub async fn send_summary(&self, request: ReportRequest) -> Result<(), Fault> {
        let deps = send_summary::Deps {
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            mailer: self.cloud.mailer(),
            from: "archive@example.com".into(),
            to: self.cloud.recipients("operations@example.com"),
            dashboard: None,
        };
        let handle = async |request| send_summary::handle(&deps, request, self.cloud.call()).await;
        self.call("send-summary", &request, handle).await
    }

    pub async fn aggregate_dashboard(&self, request: ReportRequest) -> Result<(), Fault> {
        let deps = aggregate_dashboard::Deps {
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            ledger: self.cloud.tracking(),
            silent_days: 8,
        };
        let handle = async |request| aggregate_dashboard::handle(&deps, request, self.cloud.call()).await;
        self.call("aggregate-dashboard", &request, handle).await
    }

    pub async fn gate(&self, collected: Collected) -> Result<Gate, Fault> {
        let deps = gate_run::Deps {
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            workflow: self.cloud.workflow(),
        };
        let handle = async |collected| gate_run::handle(&deps, collected, self.cloud.call()).await;
        self.call("gate-run", &collected, handle).await
    }

    /// A Task state: the payload goes as JSON, and what passes is tried again.
    async fn call<I: Serialize + DeserializeOwned, O: Serialize + DeserializeOwned, E: Named>(
        &self,
        function: &str,
        payload: &I,
        handle: impl AsyncFn(I) -> Result<O, E>,
    ) -> Result<O, Fault> {
        let payload = json!(payload);
        let mut tries = 0;
        loop {
            self.watch.before(function, &payload);
            let input = serde_json::from_value(payload.clone()).expect("the payload's own type");
            // On the heap: a chain of such futures is deeper than a thread's stack.
            match Box::pin(handle(input)).await {
                Ok(output) => return Ok(serde_json::from_value(json!(output)).expect("its own type")),
                Err(error) => {
                    let fault = fault(&error);
                    let is_retried = entry(&fault.name).is_some_and(|entry| entry.retried != Retried::No);
                    if !is_retried || tries == self.retries {
                        return Err(fault);
                    }
                    tries += 1;
                    self.cloud.clock.advance(BETWEEN);
                }
            }
        }
    }
}

fn fault(error: &impl Named) -> Fault {
    Fault { name: error.name().as_str().to_owned(), message: describe(error) }
}

fn as_plan(collected: Collected) -> Plan {
    let Collected { v, run_id, mode, execution_arn, bucket, windows, windows_key, .. } = collected;
    Plan { v, run_id, mode, execution_arn, bucket, windows, windows_key }
}
