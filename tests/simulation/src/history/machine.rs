//! The state machine of `statemachine/archive-alerts.asl.json` over functions that run, die, sleep and wake by
//! themselves. An execution can be aborted between any two requests: its functions then go on, as they do on Lambda.

use super::scheduler::{Scheduler, TASK_TIMEOUT};
use crate::{Archive, Fault, as_plan};
use alerts::{
    message::tracking::Claim,
    mode::Mode,
    run::payloads::{CollectRequest, Collected, Gate, Plan, PlanRequest, ReportRequest, Version, WindowTask},
};
use errors::{Retried, entry};
use futures::{StreamExt, stream};
use memory_cloud::Cloud;
use runtime::Clock;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{cell::RefCell, rc::Rc, time::Duration};
use tokio::{
    sync::oneshot::{self, Receiver},
    task::spawn_local,
};

/// Tries of a Task, and the time between two of them: longer than a lease.
const TRIES: u32 = 4;
const BETWEEN: Duration = Duration::from_secs(31);
const WINDOWS_AT_ONCE: usize = 3;

/// The state that an execution stands in, with that state's input: where a redrive enters it.
#[derive(Clone)]
pub enum Position {
    Plan(PlanRequest),
    Windows(Plan),
    Collect(CollectRequest),
    Report(Collected),
    Gate(Collected),
}

#[derive(Clone)]
pub struct Machine {
    pub execution_arn: String,
    pub cloud: Cloud,
    pub scheduler: Scheduler,
    pub position: Rc<RefCell<Position>>,
}

impl Machine {
    pub async fn walk(&self) -> Result<(), Fault> {
        loop {
            let position = self.position.borrow().clone();
            let next = match position {
                Position::Plan(request) => Position::Windows(self.task("plan-windows", &request).await?),
                Position::Windows(plan) => {
                    let windows = self.windows(&plan);
                    // A failed window stops no other, and its error is in its row.
                    let children =
                        stream::iter(windows).map(|task| self.window(task)).buffer_unordered(WINDOWS_AT_ONCE);
                    children.collect::<Vec<_>>().await;
                    let Plan { v, run_id, mode, execution_arn, bucket, windows_key, .. } = plan;
                    Position::Collect(CollectRequest { v, run_id, mode, execution_arn, bucket, windows_key })
                }
                Position::Collect(request) => Position::Report(self.task("collect-windows", &request).await?),
                Position::Report(collected) => {
                    let Collected { v, run_id, report_key, reported_at, .. } = collected.clone();
                    let request = ReportRequest { v, run_id, report_key, reported_at };
                    let _: Value = self.task("send-summary", &request).await?;
                    Position::Gate(collected)
                }
                Position::Gate(collected) => {
                    let Gate { collected, retry } = self.task("gate-run", &collected).await?;
                    if !retry {
                        return Ok(());
                    }
                    Position::Windows(as_plan(collected))
                }
            };
            *self.position.borrow_mut() = next;
        }
    }

    fn windows(&self, plan: &Plan) -> Vec<WindowTask> {
        if plan.windows == 0 { Vec::new() } else { Archive::new(self.cloud.clone()).tasks(plan) }
    }

    async fn window(&self, task: WindowTask) -> Result<(), Fault> {
        let mut task = self.repeated("query-messages", task).await?;
        task = self.repeated("classify-alerts", task).await?;
        if task.mode != Mode::Extract {
            self.repeated("write-partitions", task).await?;
        }
        Ok(())
    }

    async fn repeated(&self, function: &'static str, mut task: WindowTask) -> Result<WindowTask, Fault> {
        loop {
            task = self.task(function, &task).await?;
            if !task.more {
                return Ok(task);
            }
        }
    }

    /// A Task state with its Retry list.
    async fn task<I: Serialize, O: DeserializeOwned>(&self, function: &'static str, input: &I) -> Result<O, Fault> {
        let payload = json!(input);
        let mut tries = 1;
        loop {
            let fault = match self.invoke(function, payload.clone()).await {
                Ok(output) => return Ok(serde_json::from_value(output).expect("the function's own type")),
                Err(fault) => fault,
            };
            let is_retried = entry(&fault.name).is_some_and(|entry| entry.retried != Retried::No);
            if !is_retried || tries == TRIES {
                return Err(fault);
            }
            tries += 1;
            self.cloud.clock.sleep(BETWEEN).await;
        }
    }

    /// One call: it runs by itself, whatever becomes of the execution. After the Task's time it is no longer waited
    /// for.
    async fn invoke(&self, function: &'static str, payload: Value) -> Result<Value, Fault> {
        if self.scheduler.starts_twice() {
            drop(self.begin(function, payload.clone()));
        }
        let (answer, death) = self.begin(function, payload);
        let lost = |name: &str| Err(Fault { name: name.to_owned(), message: String::new() });
        tokio::select! {
            biased;
            outcome = answer => outcome.unwrap_or_else(|_| lost("Lambda.Unknown")),
            _ = death => lost("Lambda.Unknown"),
            () = self.cloud.clock.sleep(TASK_TIMEOUT) => lost("States.Timeout"),
        }
    }

    /// What it returns, and when it dies.
    fn begin(&self, function: &'static str, payload: Value) -> (Receiver<Result<Value, Fault>>, Receiver<()>) {
        let about = payload["window"]["window_id"].as_str().map(|id| id[6..8].to_owned()).unwrap_or_default();
        let run = payload["run_id"].as_str().unwrap_or_default();
        let attempt = payload["attempt"].as_u64().map(|attempt| Claim {
            run_id: run.to_owned(),
            window_id: payload["window"]["window_id"].as_str().unwrap_or_default().to_owned(),
            attempt,
        });
        let number = attempt.as_ref().map(|claim| format!("/{}", claim.attempt)).unwrap_or_default();
        let name = format!("{run} {function} {about}{number}");
        let (process, network, death) = self.scheduler.begin(name, &self.execution_arn, attempt);
        let (scheduler, cloud) = (self.scheduler.clone(), self.cloud.through(network));
        let (done, answer) = oneshot::channel();
        spawn_local(async move {
            let archive = Archive { retries: 0, window_messages: 2, ..Archive::new(cloud) };
            let outcome = Box::pin(call(&archive, function, payload)).await;
            let how = match &outcome {
                Ok(_) => "is done".to_owned(),
                Err(fault) => format!("fails: {fault}"),
            };
            scheduler.end(process, &how);
            let _ = done.send(outcome);
        });
        (answer, death)
    }
}

async fn call(archive: &Archive<'static>, function: &str, payload: Value) -> Result<Value, Fault> {
    fn read<T: DeserializeOwned>(payload: Value) -> T {
        serde_json::from_value(payload).expect("the payload's own type")
    }
    Ok(match function {
        "plan-windows" => json!(archive.plan(read(payload)).await?),
        "query-messages" => json!(archive.query(read(payload)).await?),
        "classify-alerts" => json!(archive.classify(read(payload)).await?),
        "write-partitions" => json!(archive.write(read(payload)).await?),
        "collect-windows" => json!(archive.collect(read(payload)).await?),
        "send-summary" => json!(archive.send_summary(read(payload)).await?),
        _ => json!(archive.gate(read(payload)).await?),
    })
}

pub fn first(run_id: &str, arn: &str, input: Value) -> Position {
    let (run_id, execution_arn) = (run_id.to_owned(), arn.to_owned());
    Position::Plan(PlanRequest { v: Version, input, run_id, execution_arn })
}
