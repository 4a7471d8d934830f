use crate::{Execution, Workflow, WorkflowError};
use async_trait::async_trait;
use network::{Network, Request, through};
use runtime::Clock;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Step Functions in memory, for unit tests and simulations: it remembers executions, refuses names that were used
/// before and counts redrives. What an execution does is up to the test, which also ends it.
#[derive(Clone)]
pub struct MemoryWorkflow {
    executions: Arc<Mutex<BTreeMap<String, Kept>>>,
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
}

struct Kept {
    input: String,
    execution: Execution,
}

impl MemoryWorkflow {
    pub fn new(network: Arc<dyn Network>, clock: Arc<dyn Clock>) -> Self {
        MemoryWorkflow { executions: Arc::default(), network, clock }
    }

    /// The same executions, seen through another network.
    pub fn through(&self, network: Arc<dyn Network>) -> Self {
        MemoryWorkflow { network, ..self.clone() }
    }

    /// Ends an execution: `SUCCEEDED`, `FAILED`, `TIMED_OUT` or `ABORTED`.
    pub fn end(&self, execution_arn: &str, status: &str, error: Option<&str>) {
        if let Some(kept) = self.executions().get_mut(execution_arn) {
            let (status, error) = (status.to_owned(), error.map(str::to_owned));
            kept.execution = Execution { running: false, status, error, ..kept.execution.clone() };
        }
    }

    /// Ends an execution well, with what its last state hands over.
    pub fn succeed(&self, execution_arn: &str, output: &str) {
        self.end(execution_arn, "SUCCEEDED", None);
        if let Some(kept) = self.executions().get_mut(execution_arn) {
            kept.execution.output = Some(output.to_owned());
        }
    }

    /// What an execution was started with.
    pub fn input(&self, execution_arn: &str) -> Option<String> {
        Some(self.executions().get(execution_arn)?.input.clone())
    }

    fn executions(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.executions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request<T: Send>(
        &self,
        (operation, doing): (&'static str, &'static str),
        execution: &str,
        work: impl Fn(&mut BTreeMap<String, Kept>) -> Result<T, WorkflowError> + Send + Sync,
    ) -> Result<T, WorkflowError> {
        let request = Request { service: "states", operation, subject: execution.to_owned() };
        let answer = through(&*self.network, &request, || work(&mut self.executions())).await;
        answer.map_err(|broken| {
            let (name, message) = (execution.to_owned(), broken.to_string());
            WorkflowError::Unavailable { doing, name, message, source: broken.into() }
        })?
    }
}

#[async_trait]
impl Workflow for MemoryWorkflow {
    async fn describe(&self, execution_arn: &str) -> Result<Execution, WorkflowError> {
        let missing = || WorkflowError::Missing { name: execution_arn.to_owned() };
        let describe = |executions: &mut BTreeMap<String, Kept>| {
            executions.get(execution_arn).map(|kept| kept.execution.clone()).ok_or_else(missing)
        };
        self.request(("DescribeExecution", "describe"), execution_arn, describe).await
    }

    async fn start(&self, state_machine_arn: &str, name: &str, input: String) -> Result<String, WorkflowError> {
        let arn = format!("{}:{name}", state_machine_arn.replacen(":stateMachine:", ":execution:", 1));
        let start = |executions: &mut BTreeMap<String, Kept>| match executions.get(&arn) {
            // The same request again, while the execution runs, is answered as the first time.
            Some(kept) if kept.execution.running && kept.input == input => Ok(()),
            Some(_) => Err(WorkflowError::Exists { name: name.to_owned() }),
            None => {
                let status = "RUNNING".to_owned();
                let started = self.clock.now();
                let (error, cause, output) = (None, None, None);
                let execution = Execution { running: true, status, started, redrives: 0, error, cause, output };
                executions.insert(arn.clone(), Kept { input: input.clone(), execution });
                Ok(())
            }
        };
        self.request(("StartExecution", "start"), &arn, start).await?;
        Ok(arn)
    }

    async fn stop(&self, execution_arn: &str, cause: &str) -> Result<(), WorkflowError> {
        let missing = || WorkflowError::Missing { name: execution_arn.to_owned() };
        let stop = |executions: &mut BTreeMap<String, Kept>| {
            let kept = executions.get_mut(execution_arn).ok_or_else(missing)?;
            if kept.execution.running {
                let (status, error, cause) =
                    ("ABORTED".to_owned(), Some("Cancelled".to_owned()), Some(cause.to_owned()));
                kept.execution = Execution { running: false, status, error, cause, ..kept.execution.clone() };
            }
            Ok(())
        };
        self.request(("StopExecution", "stop"), execution_arn, stop).await
    }

    async fn redrive(&self, execution_arn: &str) -> Result<(), WorkflowError> {
        let name = || execution_arn.to_owned();
        let redrive = |executions: &mut BTreeMap<String, Kept>| {
            let kept = executions.get_mut(execution_arn).ok_or_else(|| WorkflowError::Missing { name: name() })?;
            if kept.execution.running || kept.execution.status == "SUCCEEDED" {
                let message = format!("Execution is {}", kept.execution.status);
                return Err(WorkflowError::NotRedrivable { name: name(), message });
            }
            let (status, redrives) = ("RUNNING".to_owned(), kept.execution.redrives + 1);
            let started = kept.execution.started;
            let (error, cause, output) = (None, None, None);
            kept.execution = Execution { running: true, status, started, redrives, error, cause, output };
            Ok(())
        };
        self.request(("RedriveExecution", "redrive"), execution_arn, redrive).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::Calm;
    use runtime::SystemClock;

    const MACHINE: &str = "arn:aws:states:eu-central-1:1:stateMachine:archive-alerts";

    #[tokio::test]
    async fn a_name_is_used_once_but_a_repeated_request_is_no_second_use() {
        let workflow = MemoryWorkflow::new(Calm::shared(), SystemClock::shared());
        let arn = workflow.start(MACHINE, "r1", "{}".into()).await.expect("started");
        assert_eq!(arn, "arn:aws:states:eu-central-1:1:execution:archive-alerts:r1");
        assert_eq!(workflow.start(MACHINE, "r1", "{}".into()).await.expect("the same"), arn);
        let other = workflow.start(MACHINE, "r1", r#"{"mode":"process"}"#.into()).await;
        assert!(matches!(other, Err(WorkflowError::Exists { .. })));
        workflow.end(&arn, "SUCCEEDED", None);
        assert!(matches!(workflow.start(MACHINE, "r1", "{}".into()).await, Err(WorkflowError::Exists { .. })));
    }

    #[tokio::test]
    async fn only_what_ended_badly_is_redriven_and_each_redrive_counts() {
        let workflow = MemoryWorkflow::new(Calm::shared(), SystemClock::shared());
        let arn = workflow.start(MACHINE, "r1", "{}".into()).await.expect("started");
        assert!(matches!(workflow.redrive(&arn).await, Err(WorkflowError::NotRedrivable { .. })));
        for redrives in 1..3 {
            workflow.end(&arn, "FAILED", Some("WindowsFailed"));
            assert_eq!(workflow.describe(&arn).await.expect("known").error.as_deref(), Some("WindowsFailed"));
            workflow.redrive(&arn).await.expect("redriven");
            let execution = workflow.describe(&arn).await.expect("known");
            assert_eq!((execution.running, execution.redrives, execution.error), (true, redrives, None));
        }
        workflow.end(&arn, "SUCCEEDED", None);
        assert!(matches!(workflow.redrive(&arn).await, Err(WorkflowError::NotRedrivable { .. })));
        assert!(matches!(workflow.describe("other").await, Err(WorkflowError::Missing { .. })));
    }
}
