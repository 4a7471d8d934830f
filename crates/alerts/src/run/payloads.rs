//! The payloads that travel between the states of the workflow. A redrive runs an old definition with new
//! functions, so each payload carries its version.

use crate::{mode::Mode, window::plan::Window};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The version of every payload below: serialized as 1, and any other is refused when a payload is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version;

impl Version {
    const NUMBER: u8 = 1;
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u8(Version::NUMBER)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match u64::deserialize(input)? {
            number if number == u64::from(Version::NUMBER) => Ok(Version),
            other => {
                Err(D::Error::custom(format!("version {other} of the payload is not known, only {}", Version::NUMBER)))
            }
        }
    }
}

/// What a person, the scheduler or a script starts an execution with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum Input {
    Scheduled { scheduled_for: String },
    Range { from: String, to: String },
    FailedOnly { run_id: String },
    Recheck,
    Extract { from: String, to: String },
    Process,
}

impl Input {
    pub fn mode(&self) -> Mode {
        match self {
            Input::Scheduled { .. } => Mode::Scheduled,
            Input::Range { .. } => Mode::Range,
            Input::FailedOnly { .. } => Mode::FailedOnly,
            Input::Recheck => Mode::Recheck,
            Input::Extract { .. } => Mode::Extract,
            Input::Process => Mode::Process,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanRequest {
    pub v: Version,
    pub input: serde_json::Value,
    pub run_id: String,
    pub execution_arn: String,
}

/// What the plan hands to the Map and to the end of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub v: Version,
    pub run_id: String,
    pub mode: Mode,
    pub execution_arn: String,
    pub bucket: String,
    pub windows: u64,
    pub windows_key: String,
}

/// One window on its way through query, classify and write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowTask {
    pub v: Version,
    pub run_id: String,
    pub mode: Mode,
    pub window: Window,
    /// Whose Map began the window; absent where an old definition runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_arn: Option<String>,
    /// Set by query-messages: fences off earlier attempts that still run.
    #[serde(default)]
    pub attempt: Option<u64>,
    /// How often the present step has been continued.
    #[serde(default)]
    pub continuation: u32,
    /// The step has more to do and wants to be called again.
    #[serde(default)]
    pub more: bool,
    /// The last call of the present step got no further.
    #[serde(default)]
    pub stalled: bool,
}

/// Two calls in a row got no further: a third would not either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("window {window_id}: call {call} of {step} got no further, like the one before; give the function more time")]
pub struct NoProgress {
    pub window_id: String,
    pub step: &'static str,
    pub call: u32,
}

impl WindowTask {
    /// The step's time is over before its work. One call without progress may have met a slow moment; the second in a
    /// row is an error.
    pub fn call_again(&mut self, step: &'static str, progress: bool) -> Result<(), NoProgress> {
        if self.stalled && !progress {
            let window_id = self.window.window_id.clone();
            return Err(NoProgress { window_id, step, call: self.continuation + 1 });
        }
        self.more = true;
        self.continuation += 1;
        self.stalled = !progress;
        Ok(())
    }

    /// The step is over: the next one begins.
    pub fn step_done(&mut self) {
        self.more = false;
        self.continuation = 0;
        self.stalled = false;
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CollectRequest {
    pub v: Version,
    pub run_id: String,
    pub mode: Mode,
    pub execution_arn: String,
    pub bucket: String,
    pub windows_key: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collected {
    pub v: Version,
    pub run_id: String,
    pub mode: Mode,
    pub execution_arn: String,
    pub bucket: String,
    pub report_key: String,
    pub failed: u64,
    /// How many windows a loop would run again; equals `failed`.
    pub windows: u64,
    pub windows_key: String,
    /// The execution's redrive count when the report was made.
    pub reported_at: u64,
    /// Which attempt of the run the report is about; absent where an older function made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportRequest {
    pub v: Version,
    pub run_id: String,
    pub report_key: String,
    pub reported_at: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    #[serde(flatten)]
    pub collected: Collected,
    pub retry: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    #[test]
    fn the_second_call_in_a_row_that_gets_no_further_is_no_progress() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let window = Window::new(at(0), at(60), 1);
        let window_id = window.window_id.clone();
        let mut task = WindowTask {
            v: Version,
            run_id: "r1".into(),
            mode: Mode::Range,
            window,
            execution_arn: None,
            attempt: Some(1),
            continuation: 0,
            more: false,
            stalled: false,
        };
        for progress in [false, true, true, false, true, false] {
            task.call_again("query-messages", progress).expect("not twice in a row");
            assert!(task.more);
        }
        let expected = NoProgress { window_id, step: "query-messages", call: 7 };
        assert_eq!(task.call_again("query-messages", false), Err(expected));
        task.step_done();
        assert_eq!((task.more, task.continuation), (false, 0));
        assert!(task.call_again("classify-alerts", false).is_ok(), "another step begins anew");
    }

    #[test]
    fn a_payload_of_another_version_or_of_none_is_refused() {
        let request = |v: Value| json!({"v": v, "run_id": "r1", "report_key": "k", "reported_at": 0});
        assert!(serde_json::from_value::<ReportRequest>(request(json!(1))).is_ok());
        let refused =
            |payload: Value| serde_json::from_value::<ReportRequest>(payload).expect_err("refused").to_string();
        assert_eq!(refused(request(json!(2))), "version 2 of the payload is not known, only 1");
        assert_eq!(refused(json!({"run_id": "r1", "report_key": "k", "reported_at": 0})), "missing field `v`");
        assert!(refused(request(json!("1"))).contains("expected u64"));
        assert_eq!(serde_json::to_value(Version).expect("JSON"), 1);
    }
}
