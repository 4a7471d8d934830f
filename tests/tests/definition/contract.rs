//! What each function takes and returns, as the functions' own types say, with values as long as they can get.

use alerts::run::payloads::{CollectRequest, Collected, Gate, Plan, PlanRequest, ReportRequest, WindowTask};
use log_entries::{ReportTask, SearchRequest};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub const VERSION: u64 = 1;

/// The largest input that an execution is given, far above what people and the scheduler send. `None` for a state
/// machine of which nothing is known here.
pub fn execution_input(machine: &str) -> Option<Value> {
    match machine {
        "archive-alerts" => Some(json!({"mode": "failed-only", "run_id": "r".repeat(1024)})),
        "report-log-errors" => {
            Some(json!({"from": "f".repeat(64), "to": "t".repeat(64), "services": ["s".repeat(1024)]}))
        }
        _ => None,
    }
}

/// Values of the context object. Only those that the service and the local cloud both fill in.
pub fn context(path: &str) -> Option<Value> {
    match path {
        "$$.Execution.Name" => Some(json!("r".repeat(80))),
        "$$.Execution.Id" => Some(json!(format!(
            "arn:aws:states:eu-central-1:123456789012:execution:{}:{}",
            "m".repeat(80),
            "r".repeat(80)
        ))),
        "$$.Map.Item.Value" => Some(json!({
            "window_id": "20240701T000000.000Z--20240702T000000.000Z",
            "from": "2024-07-01T00:00:00.000Z",
            "to": "2024-07-02T00:00:00.000Z",
            "expected": u32::MAX,
            "source": "opensearch",
        })),
        _ => None,
    }
}

/// What a function returns for a payload, or why it cannot read it.
pub fn call(state: &str, payload: Value) -> Result<Value, String> {
    match state {
        "PlanWindows" => {
            let request: PlanRequest = read(payload)?;
            answer::<Plan>(json!({
                "v": VERSION, "run_id": request.run_id, "mode": "failed-only", "execution_arn": request.execution_arn,
                "bucket": "b".repeat(63), "windows": 10_000, "windows_key": "k".repeat(1024),
            }))
        }
        "QueryMessages" | "ClassifyAlerts" | "WritePartitions" => {
            let task: WindowTask = read(payload)?;
            answer::<WindowTask>(json!(WindowTask { attempt: Some(u64::MAX), ..task }))
        }
        "CollectWindows" => {
            let request: CollectRequest = read(payload)?;
            answer::<Collected>(json!({
                "v": VERSION, "run_id": request.run_id, "mode": request.mode, "execution_arn": request.execution_arn, "bucket": request.bucket,
                "report_key": "k".repeat(1024), "failed": 10_000, "windows": 10_000, "windows_key": "k".repeat(1024), "reported_at": 1_000,
            }))
        }
        "SendSummary" | "AggregateDashboard" => read::<ReportRequest>(payload).map(|_| json!({})),
        "GateRun" => {
            let collected: Collected = read(payload)?;
            answer::<Gate>(json!(Gate { collected, retry: true }))
        }
        "SearchLogErrors" => {
            read::<SearchRequest>(payload)?;
            answer::<ReportTask>(json!({"v": VERSION, "id": "i".repeat(80), "report_key": "k".repeat(1024)}))
        }
        "SendLogReport" | "AggregateLogDashboard" => read::<ReportTask>(payload).map(|_| json!({})),
        other => {
            Err(format!("tests/tests/definition/contract.rs does not say what `{other}` takes and returns (`call`)"))
        }
    }
}

/// Errors of its own that a function can end with and that pass by themselves.
pub fn passing(state: &str) -> &'static [&'static str] {
    match state {
        "PlanWindows" => {
            &["SourceUnavailable", "SourceUnreadable", "StoreUnavailable", "LedgerUnavailable", "WorkflowUnavailable"]
        }
        "QueryMessages" => {
            &["SourceUnavailable", "SourceUnreadable", "StoreUnavailable", "LedgerUnavailable", "WindowBusy"]
        }
        "ClassifyAlerts" | "WritePartitions" => &["StoreUnavailable", "LedgerUnavailable", "WindowBusy"],
        "CollectWindows" | "GateRun" => &["StoreUnavailable", "LedgerUnavailable", "WorkflowUnavailable"],
        "SendSummary" | "SendLogReport" => {
            &["StoreUnavailable", "LedgerUnavailable", "MailUnavailable", "ParametersUnavailable"]
        }
        _ => &["StoreUnavailable", "LedgerUnavailable"],
    }
}

fn read<T: DeserializeOwned>(payload: Value) -> Result<T, String> {
    serde_json::from_value(payload).map_err(|error| error.to_string())
}

/// Through the function's own type, so that a sample cannot hold a field which the function does not return.
fn answer<T: Serialize + DeserializeOwned>(sample: Value) -> Result<Value, String> {
    let typed: T =
        serde_json::from_value(sample).map_err(|error| format!("the contract's sample is no longer true: {error}"))?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}
