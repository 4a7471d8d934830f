//! Runs, started as people start them: through the command line, or as executions of the state machine.

use crate::{Cloud, Stretch};
use anyhow::{Context, Result, ensure};
use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// No run of the tests takes this long.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What `alert-archive ... --wait --json` left.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub well: bool,
    /// Null when the run ended before it was planned.
    pub report: Value,
    /// Standard output as it came.
    pub printed: Vec<u8>,
    /// Standard error.
    pub said: String,
}

/// An execution that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub run_id: String,
    pub status: String,
    pub error: String,
    pub cause: String,
}

impl Outcome {
    pub fn run_id(&self) -> &str {
        self.report["run_id"].as_str().unwrap_or_default()
    }

    pub fn count(&self, of: &str) -> u64 {
        self.report["messages"][of].as_u64().unwrap_or(u64::MAX)
    }

    /// It must have gone well, and says so in full when it did not.
    pub fn completed(self) -> Result<Self> {
        let report = &self.report;
        ensure!(
            self.well && report["status"] == "Completed" && report["reconciled"] == true,
            "the run did not go well: {report:#}\n{}",
            self.said
        );
        Ok(self)
    }

    /// It must have failed in these windows, each with one of these errors.
    pub fn failed(self, windows: u64, errors: &[&str]) -> Result<Self> {
        let report = &self.report;
        ensure!(
            !self.well && report["status"] == "Failed" && report["windows"]["failed"] == windows,
            "expected {windows} failed windows: {report:#}\n{}",
            self.said
        );
        for failure in report["failures"].as_array().into_iter().flatten() {
            ensure!(errors.iter().any(|error| failure["error"] == *error), "expected one of {errors:?}: {failure}");
        }
        ensure!(self.said.contains("WindowsFailed"), "the execution does not end with WindowsFailed: {}", self.said);
        Ok(self)
    }
}

impl Cloud {
    /// Calls the command line and waits for its end.
    pub async fn archive(&self, arguments: &[&str]) -> Result<Outcome> {
        let command = Command::new(&self.program).args(arguments).kill_on_drop(true).output();
        let output = tokio::time::timeout(PATIENCE, command)
            .await
            .with_context(|| format!("alert-archive {} does not end", arguments.join(" ")))??;
        let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok(Outcome {
            well: output.status.success(),
            report,
            printed: output.stdout,
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub async fn run(&self, from: &str, to: &str) -> Result<Outcome> {
        self.archive(&["run", "--from", from, "--to", to, "--wait", "--json"]).await
    }

    /// A run over the whole stretch.
    pub async fn run_stretch(&self, stretch: &Stretch) -> Result<Outcome> {
        self.run(&stretch.from(), &stretch.to()).await
    }

    pub async fn redrive(&self, run_id: &str) -> Result<Outcome> {
        self.archive(&["rerun", run_id, "--redrive", "--wait", "--json"]).await
    }

    pub async fn run_failed_only(&self, run_id: &str) -> Result<Outcome> {
        self.archive(&["rerun", run_id, "--failed-only", "--wait", "--json"]).await
    }

    /// The product's own check of the stretch must find nothing.
    pub async fn verify(&self, stretch: &Stretch) -> Result<()> {
        let outcome =
            self.archive(&["verify", "--from", &stretch.from(), "--to", &stretch.to(), "--deep", "--json"]).await?;
        ensure!(outcome.well, "verify: {:#}\n{}", outcome.report, outcome.said);
        Ok(())
    }

    /// Starts an execution as the console would.
    pub async fn start(&self, name: &str, input: &Value) -> Result<()> {
        let start =
            self.sfn.start_execution().state_machine_arn(&self.state_machine_arn).name(name).input(input.to_string());
        start.send().await.with_context(|| format!("starting {name}"))?;
        Ok(())
    }

    /// Stops an execution, as the console does.
    pub async fn abort(&self, run_id: &str) -> Result<()> {
        let arn = format!("{}:{run_id}", self.state_machine_arn.replacen(":stateMachine:", ":execution:", 1));
        self.sfn.stop_execution().execution_arn(arn).send().await?;
        Ok(())
    }

    pub async fn ended(&self, run_id: &str) -> Result<Ended> {
        let arn = format!("{}:{run_id}", self.state_machine_arn.replacen(":stateMachine:", ":execution:", 1));
        let began = Instant::now();
        loop {
            let answer = self.sfn.describe_execution().execution_arn(&arn).send().await?;
            if answer.status != ExecutionStatus::Running {
                let text = |text: Option<String>| text.unwrap_or_default();
                return Ok(Ended {
                    run_id: run_id.to_owned(),
                    status: answer.status.as_str().to_owned(),
                    error: text(answer.error),
                    cause: text(answer.cause),
                });
            }
            ensure!(began.elapsed() < PATIENCE, "execution {run_id} does not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn execute(&self, name: &str, input: &Value) -> Result<Ended> {
        self.start(name, input).await?;
        self.ended(name).await
    }

    /// Does something while the state machine is defined otherwise.
    pub async fn with_definition<T>(
        &self,
        change: impl FnOnce(&mut Value) -> Result<()>,
        work: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let before =
            self.sfn.describe_state_machine().state_machine_arn(&self.state_machine_arn).send().await?.definition;
        let mut changed: Value = serde_json::from_str(&before)?;
        change(&mut changed)?;
        let define = |definition: String| {
            self.sfn.update_state_machine().state_machine_arn(&self.state_machine_arn).definition(definition).send()
        };
        define(changed.to_string()).await?;
        let outcome = work().await;
        define(before).await?;
        outcome
    }

    pub async fn report(&self, run_id: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.get(&format!("runs/{run_id}/report.json")).await?)?)
    }
}
