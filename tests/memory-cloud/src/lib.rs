//! The services that the archive stands on, in memory and in one process: bucket, tables, source, workflow, mail and a
//! clock that stands still. For the functions' own tests, and for a simulation of all of them; no function may enter.

pub mod given;

use archive::{JobRuns, Tracking, Windows};
use jiff::Timestamp;
use ledger::Keyed;
use mail::{Mailer, MemoryMailer, Recipients};
use network::{Calm, Network, OneFault, Strike};
use parameters::MemoryParameters;
use runtime::{Call, ManualClock};
use serde_json::{Value, json};
use sources::{Indices, MemoryNode, OpenSearch, Sources};
use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};
use storage::{MemoryObjects, MemoryTables, Objects};
use workflow::{MemoryWorkflow, Workflow};

pub const BUCKET: &str = "archive";
pub const MACHINE: &str = "arn:aws:states:eu-central-1:1:stateMachine:archive-alerts";
pub const JOB_RUNS: &str = "job-runs";
pub const WINDOWS: &str = "windows";
pub const TRACKING: &str = "message-tracking";
/// The parameter with who gets the mails.
const RECIPIENTS: &str = "/memory/mail";
/// What Lambda would allow one call.
const ALLOWED: Duration = Duration::from_secs(900);

/// All services. Clones share them; [`Cloud::through`] puts another network before them.
#[derive(Clone)]
pub struct Cloud {
    pub store: MemoryObjects,
    pub tables: MemoryTables,
    pub node: MemoryNode,
    pub executions: MemoryWorkflow,
    pub mails: MemoryMailer,
    pub parameters: MemoryParameters,
    pub clock: Arc<ManualClock>,
}

impl Default for Cloud {
    /// As deployed: the stores are empty, and it is 2026-11-21.
    fn default() -> Self {
        let now: Timestamp = "2026-11-21T06:00:00Z".parse().expect("an instant");
        let (network, clock) = (Calm::shared(), ManualClock::at(now));
        let tables = MemoryTables::new(network.clone())
            .table(JOB_RUNS, "run_id", None)
            .table(WINDOWS, "run_id", Some("window_id"))
            .table(TRACKING, "message_id", Some("source_index"))
            .index(TRACKING, "staging", "staging", "timestamp");
        let node = MemoryNode::new(network.clone(), clock.clone());
        Cloud {
            store: MemoryObjects::new(network.clone()).bucket(BUCKET),
            tables,
            node: node.index("messages").index("history").index("audit"),
            executions: MemoryWorkflow::new(network.clone(), clock.clone()),
            mails: MemoryMailer::new(network),
            parameters: MemoryParameters::default(),
            clock,
        }
    }
}

impl Cloud {
    /// The same services behind another network.
    pub fn through(&self, network: Arc<dyn Network>) -> Self {
        Cloud {
            store: self.store.through(network.clone()),
            tables: self.tables.through(network.clone()),
            node: self.node.through(network.clone()),
            executions: self.executions.through(network.clone()),
            mails: self.mails.through(network.clone()),
            parameters: self.parameters.through(network),
            clock: self.clock.clone(),
        }
    }

    pub fn objects(&self) -> Objects {
        Objects::over(self.store.clone(), BUCKET)
    }

    pub fn job_runs(&self) -> JobRuns {
        JobRuns::over(self.tables.clone(), JOB_RUNS)
    }

    pub fn windows(&self) -> Windows {
        Windows::over(self.tables.clone(), WINDOWS)
    }

    pub fn tracking(&self) -> Tracking {
        Tracking::over(self.tables.clone(), TRACKING)
    }

    pub fn sources(&self) -> Sources {
        let name = |name: &str| name.to_owned();
        let indices = Indices { messages: name("messages"), history: name("history"), audit: name("audit") };
        Sources::over(OpenSearch::over(self.node.clone(), indices))
    }

    pub fn workflow(&self) -> Arc<dyn Workflow> {
        Arc::new(self.executions.clone())
    }

    pub fn mailer(&self) -> Arc<dyn Mailer> {
        Arc::new(self.mails.clone())
    }

    /// Addresses with commas between them, as Parameter Store holds them.
    pub fn recipients(&self, addresses: &str) -> Recipients {
        Recipients::over(Arc::new(self.parameters.clone().with(RECIPIENTS, addresses)), RECIPIENTS)
    }

    /// A call that has all of Lambda's time.
    pub fn call(&self) -> Call {
        Call::new(self.clock.clone(), ALLOWED)
    }

    /// Starts an execution as a person does, over a network of her own, and returns its ARN.
    pub async fn start(&self, run_id: &str, input: &Value) -> String {
        let started = self.executions.through(Calm::shared()).start(MACHINE, run_id, input.to_string()).await;
        started.expect("a name that was not used before")
    }

    /// Stores a message with one alert of that status, one line of history and one of audit.
    pub fn put_message(&self, id: &str, timestamp: &str, status: &str) {
        let alert = json!({"alert_id": format!("{id}-a"), "status": status, "severity": "high", "category": "disk"});
        let message = json!({"message_id": id, "timestamp": timestamp, "subject": "Disk is full", "alerts": [alert]});
        let history = json!({"message_id": id, "timestamp": timestamp, "event": "opened", "actor": "monitor"});
        let audit = json!({"message_id": id, "timestamp": timestamp, "action": "read", "outcome": "ok"});
        self.node.put("messages", id, &message.to_string());
        self.node.put("history", &format!("{id}-h"), &history.to_string());
        self.node.put("audit", &format!("{id}-u"), &audit.to_string());
    }

    /// Rows of a table as JSON, in the order of their text.
    pub fn rows(&self, table: &str) -> Vec<Value> {
        let rows = self.tables.contents(table).into_iter();
        let mut rows: Vec<Value> = rows.map(|row| serde_dynamo::from_item(row).expect("a row is JSON")).collect();
        rows.sort_by_key(Value::to_string);
        rows
    }

    /// Rows of a table that are of this type, without a request.
    pub fn typed<T: Keyed>(&self, table: &str) -> Vec<T> {
        let holds = |row: &storage::Item| {
            row.get(T::PARTITION).and_then(|key| key.as_s().ok()).is_some_and(|key| T::holds(key))
        };
        let rows = self.tables.contents(table).into_iter().filter(holds);
        rows.map(|row| serde_dynamo::from_item(row).expect("a row of this type")).collect()
    }

    pub fn tracking_rows(&self) -> Vec<Value> {
        self.rows(TRACKING)
    }

    pub fn window_rows(&self) -> Vec<Value> {
        self.rows(WINDOWS)
    }

    pub fn job_run(&self, run_id: &str) -> Value {
        self.rows(JOB_RUNS).into_iter().find(|row| row["run_id"] == run_id).unwrap_or_default()
    }

    /// Keys under a prefix, with the size of each object.
    pub fn keys(&self, prefix: &str) -> BTreeMap<String, usize> {
        let contents = self.store.contents(BUCKET).into_iter().filter(|(key, _)| key.starts_with(prefix));
        contents.map(|(key, body)| (key, body.len())).collect()
    }

    /// An object's JSON.
    pub fn json(&self, key: &str) -> Value {
        let contents = self.store.contents(BUCKET);
        let body = contents.get(key).unwrap_or_else(|| panic!("{key} is not among {:?}", contents.keys()));
        serde_json::from_slice(body).expect("JSON")
    }
}

/// Lets each request of `work` fail, then its answer be lost, then its answer be lost and the request be sent again;
/// calls `work` once more without a fault, as a retry would, and compares what is then there with what one call without
/// any fault leaves. Returns the number of requests that one call sends.
///
/// `look` picks what must be the same: attempts and revisions need not.
pub async fn fail_each_request<T, E: Debug, L: PartialEq + Debug>(
    set_up: impl AsyncFn() -> Cloud,
    work: impl AsyncFn(&Cloud) -> Result<T, E>,
    look: impl Fn(&Cloud) -> L,
) -> usize {
    let (cloud, counting) = (set_up().await, OneFault::at(usize::MAX, Strike::Request));
    work(&cloud.through(counting.clone())).await.expect("there is no fault");
    let (requests, expected) = (counting.seen(), look(&cloud));
    for strike in [Strike::Request, Strike::Answer, Strike::AnswerThenRetry] {
        for nth in 0..requests {
            let (cloud, fault) = (set_up().await, OneFault::at(nth, strike));
            // It may end well all the same: not every request has to succeed.
            let _ = work(&cloud.through(fault.clone())).await;
            assert!(fault.struck(), "{strike:?} {nth} of {requests}");
            if let Err(error) = work(&cloud).await {
                panic!("after {strike:?} {nth} of {requests}: {error:?}");
            }
            assert_eq!(look(&cloud), expected, "after {strike:?} {nth} of {requests}");
        }
    }
    requests
}

/// The value of a field that stands in each of these rows.
pub fn column(rows: &[Value], field: &str) -> Vec<Value> {
    rows.iter().map(|row| row[field].clone()).collect()
}
