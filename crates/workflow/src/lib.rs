//! Executions of the state machine, as Step Functions tells of them and as an operator acts on them.

mod memory;

pub use memory::MemoryWorkflow;

use async_trait::async_trait;
use aws_sdk_sfn::{Client, error::ProvideErrorMetadata, error::SdkError, types::ExecutionStatus};
use errors::{Name, Named};
use jiff::Timestamp;
use std::{error::Error, sync::Arc};

/// The requests of Step Functions that are needed.
#[async_trait]
pub trait Workflow: Send + Sync {
    async fn describe(&self, execution_arn: &str) -> Result<Execution, WorkflowError>;

    /// Starts an execution and returns its ARN. Refused when the name was used before, within 90 days.
    async fn start(&self, state_machine_arn: &str, name: &str, input: String) -> Result<String, WorkflowError>;

    async fn redrive(&self, execution_arn: &str) -> Result<(), WorkflowError>;

    /// Aborts an execution. Its functions that are at work end by themselves.
    async fn stop(&self, execution_arn: &str, cause: &str) -> Result<(), WorkflowError>;

    /// Whether an execution is at work; one that Step Functions has forgotten is not.
    async fn is_running(&self, execution_arn: &str) -> Result<bool, WorkflowError> {
        match self.describe(execution_arn).await {
            Ok(execution) => Ok(execution.running),
            Err(WorkflowError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Step Functions itself.
pub struct StepFunctions {
    client: Client,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    pub running: bool,
    /// `RUNNING`, `SUCCEEDED`, `FAILED`, `TIMED_OUT`, `ABORTED` or `PENDING_REDRIVE`.
    pub status: String,
    /// The first start, whatever redrives came later.
    pub started: Timestamp,
    /// How often the execution was redriven; grows on a redrive and never on a Retry.
    pub redrives: u64,
    pub error: Option<String>,
    pub cause: Option<String>,
    /// What the last state of an execution that succeeded handed over, as JSON.
    pub output: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkflowError {
    #[error("execution {name} does not exist")]
    Missing { name: String },
    #[error("execution {name} exists already")]
    Exists { name: String },
    #[error("execution {name} cannot be redriven: {message}")]
    NotRedrivable { name: String, message: String },
    #[error("Step Functions cannot {doing} {name}: {message}")]
    Unavailable { doing: &'static str, name: String, message: String, source: Box<dyn Error + Send + Sync> },
}

impl Named for WorkflowError {
    fn name(&self) -> Name {
        match self {
            WorkflowError::Missing { .. } => Name::ExecutionMissing,
            WorkflowError::Exists { .. } => Name::ExecutionExists,
            WorkflowError::NotRedrivable { .. } => Name::ExecutionNotRedrivable,
            WorkflowError::Unavailable { .. } => Name::WorkflowUnavailable,
        }
    }
}

impl StepFunctions {
    pub fn shared(config: &aws_config::SdkConfig) -> Arc<dyn Workflow> {
        Arc::new(StepFunctions { client: Client::new(config) })
    }
}

#[async_trait]
impl Workflow for StepFunctions {
    async fn describe(&self, execution_arn: &str) -> Result<Execution, WorkflowError> {
        let answer = self.client.describe_execution().execution_arn(execution_arn).send().await;
        let answer = answer.map_err(|error| fault("describe", execution_arn, error))?;
        Ok(Execution {
            running: matches!(answer.status, ExecutionStatus::Running | ExecutionStatus::PendingRedrive),
            status: answer.status.as_str().to_owned(),
            started: answer
                .start_date
                .to_millis()
                .ok()
                .and_then(|millis| Timestamp::from_millisecond(millis).ok())
                .unwrap_or_default(),
            redrives: answer.redrive_count.unwrap_or(0).max(0) as u64,
            error: answer.error,
            cause: answer.cause,
            output: answer.output,
        })
    }

    async fn start(&self, state_machine_arn: &str, name: &str, input: String) -> Result<String, WorkflowError> {
        let start = self.client.start_execution().state_machine_arn(state_machine_arn).name(name).input(input);
        Ok(start.send().await.map_err(|error| fault("start", name, error))?.execution_arn)
    }

    async fn stop(&self, execution_arn: &str, cause: &str) -> Result<(), WorkflowError> {
        let stop = self.client.stop_execution().execution_arn(execution_arn).error("Cancelled").cause(cause);
        stop.send().await.map(|_| ()).map_err(|error| fault("stop", execution_arn, error))
    }

    async fn redrive(&self, execution_arn: &str) -> Result<(), WorkflowError> {
        let redrive = self.client.redrive_execution().execution_arn(execution_arn);
        redrive.send().await.map(|_| ()).map_err(|error| fault("redrive", execution_arn, error))
    }
}

fn fault<E, R>(doing: &'static str, execution: &str, error: SdkError<E, R>) -> WorkflowError
where
    E: Error + Send + Sync + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let name = execution.rsplit(':').next().unwrap_or(execution).to_owned();
    let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    match error.code() {
        Some("ExecutionDoesNotExist") => WorkflowError::Missing { name },
        Some("ExecutionAlreadyExists") => WorkflowError::Exists { name },
        Some("ExecutionNotRedrivable") => WorkflowError::NotRedrivable { name, message },
        _ => WorkflowError::Unavailable { doing, name, message, source: Box::new(error) },
    }
}
