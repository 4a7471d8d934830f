//! A fault: in which function, at which request, what happens. One line each, in `tests/pipeline/faults.rs`.

use crate::proxy::{Harm, Service, When};
use bytes::Bytes;
use hyper::Request;
use std::time::Duration;

/// The head of the table of faults, with which `tests/README.md` ends.
pub const TABLE: &str = concat!(
    "| function | fault | what makes it good | attempted | ok | lost | duplicated | unexpected | test |\n",
    "|---|---|---|--:|--:|--:|--:|--:|---|\n",
);

/// The README with other rows in its table; `None` when it has no table.
pub fn with_rows(readme: &str, rows: &str) -> Option<String> {
    let (before, _) = readme.split_once(TABLE)?;
    Some(format!("{before}{TABLE}{rows}"))
}

/// A request that a function makes; an empty field matches everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    service: Service,
    method: &'static str,
    path: &'static str,
    target: &'static str,
    body: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub name: &'static str,
    pub function: &'static str,
    pub point: Point,
    /// At which matching request it begins, from 1.
    pub nth: u32,
    /// At how many requests it strikes.
    pub times: u32,
    pub harm: Harm,
    pub then: Then,
    /// A limit for the function's Task, in seconds: the Task times out while its Lambda lives on.
    pub task_seconds: Option<u64>,
    /// Part of every CI run; the others are for `make test-faults`.
    pub quick: bool,
}

/// What makes good what the fault broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The workflow itself, in the same execution.
    Retry,
    /// A redrive.
    Redrive,
    /// A new execution of the same run with the failed windows only.
    FailedOnly,
    /// A new run over the same range, so with the same windows.
    SameEdges,
    /// New runs whose windows have other edges.
    OtherEdges,
    /// The next scheduled run.
    Schedule,
}

impl Then {
    pub const fn describe(self) -> &'static str {
        match self {
            Then::Retry => "the same execution",
            Then::Redrive => "a redrive",
            Then::FailedOnly => "a failed-only run",
            Then::SameEdges => "a run over the same range",
            Then::OtherEdges => "runs with other edges",
            Then::Schedule => "the next scheduled run",
        }
    }
}

pub const KILL_BEFORE: Harm = Harm::Kill(When::Before);
pub const KILL_AFTER: Harm = Harm::Kill(When::After);
pub const CUT_BEFORE: Harm = Harm::Cut(When::Before);
pub const CUT_AFTER: Harm = Harm::Cut(When::After);
/// What DynamoDB says to a table's or a partition's overload.
pub const THROTTLE: Harm = Harm::Refuse("ProvisionedThroughputExceededException");
/// What DynamoDB says when another writer changed the row.
pub const CONFLICT: Harm = Harm::Refuse("ConditionalCheckFailedException");
/// Answers that lack documents and say so, for pages, counts and histograms alike.
pub const SHARDS_FAILED: Harm = Harm::Say(
    r#"{"timed_out":false,"_shards":{"total":3,"successful":2,"skipped":0,"failed":1},"hits":{"total":{"value":0},"hits":[]},"aggregations":{"stretches":{"buckets":[]}}}"#,
);
pub const TIMED_OUT: Harm = Harm::Say(
    r#"{"timed_out":true,"_shards":{"total":3,"successful":3,"skipped":0,"failed":0},"hits":{"total":{"value":0},"hits":[]}}"#,
);
pub const ENDED_EARLY: Harm = Harm::Say(
    r#"{"timed_out":false,"terminated_early":true,"_shards":{"total":3,"successful":3,"skipped":0,"failed":0},"hits":{"total":{"value":0},"hits":[]}}"#,
);
/// More than any number of retries.
pub const ALWAYS: u32 = u32::MAX;

pub const fn delay(seconds: u64) -> Harm {
    delay_millis(1000 * seconds)
}

pub const fn delay_millis(millis: u64) -> Harm {
    Harm::Delay(Duration::from_millis(millis))
}

/// An object: method, and what its key contains.
pub const fn s3(method: &'static str, key: &'static str) -> Point {
    Point { service: Service::Aws, method, path: key, target: "", body: &[] }
}

/// An operation of DynamoDB: what the request contains, such as the end of the table's name and a status.
pub const fn dynamodb(operation: &'static str, body: &'static [&'static str]) -> Point {
    Point { service: Service::Aws, method: "POST", path: "", target: operation, body }
}

/// An operation of Step Functions.
pub const fn states(operation: &'static str) -> Point {
    Point { service: Service::Aws, method: "POST", path: "", target: operation, body: &[] }
}

/// An operation of SES.
pub const fn ses(body: &'static [&'static str]) -> Point {
    Point { service: Service::Aws, method: "POST", path: "", target: "", body }
}

/// A request to the source: method, what its path and its body contain.
pub const fn opensearch(method: &'static str, path: &'static str, body: &'static [&'static str]) -> Point {
    Point { service: Service::OpenSearch, method, path, target: "", body }
}

pub const fn fault(name: &'static str, function: &'static str, point: Point, harm: Harm) -> Fault {
    Fault { name, function, point, nth: 1, times: 1, harm, then: Then::Retry, task_seconds: None, quick: false }
}

impl Fault {
    pub const fn nth(self, nth: u32) -> Self {
        Fault { nth, ..self }
    }

    pub const fn times(self, times: u32) -> Self {
        Fault { times, ..self }
    }

    pub const fn then(self, then: Then) -> Self {
        Fault { then, ..self }
    }

    pub const fn task_seconds(self, seconds: u64) -> Self {
        Fault { task_seconds: Some(seconds), ..self }
    }

    pub const fn quick(self) -> Self {
        Fault { quick: true, ..self }
    }

    /// For the table of faults.
    pub fn what(&self) -> String {
        let when = |when| if when == When::Before { "before" } else { "after" };
        let harm = match self.harm {
            Harm::Kill(at) => format!("killed {}", when(at)),
            Harm::Cut(at) => format!("connection cut {}", when(at)),
            Harm::Answer(status) => format!("answered {status} at"),
            Harm::Refuse(error) => format!("refused with {error} at"),
            Harm::Half => "half the keys unprocessed at".to_owned(),
            Harm::Tear => "answer torn at".to_owned(),
            _ if self.harm == SHARDS_FAILED => "answered without a failed shard at".to_owned(),
            _ if self.harm == TIMED_OUT => "answered in part for want of time at".to_owned(),
            _ if self.harm == ENDED_EARLY => "answered in part, ended early, at".to_owned(),
            Harm::Say(_) => "answered otherwise at".to_owned(),
            Harm::Forget => "points in time gone at".to_owned(),
            Harm::Delay(time) => match self.task_seconds {
                None => format!("kept waiting {} s at", time.as_secs()),
                Some(seconds) => {
                    format!("Task timed out after {seconds} s while its Lambda waits {} s at", time.as_secs())
                }
            },
            Harm::Watch => "watched at".to_owned(),
        };
        let often = match self.times {
            1 => String::new(),
            ALWAYS => ", every time".to_owned(),
            times => format!(", {times} times"),
        };
        let nth = if self.nth > 1 { format!("request {} of ", self.nth) } else { String::new() };
        format!("{harm} {nth}{}{often}", self.point.describe())
    }
}

impl Point {
    pub fn matches(&self, service: Service, request: &Request<Bytes>) -> bool {
        let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let body = request.body();
        let holds = |part: &&str| body.windows(part.len()).any(|window| window == part.as_bytes());
        service == self.service
            && (self.method.is_empty() || request.method() == self.method)
            && request.uri().path().contains(self.path)
            && (self.target.is_empty() || target.rsplit('.').next() == Some(self.target))
            && self.body.iter().all(holds)
    }

    fn describe(&self) -> String {
        let mut words = vec![match (self.service, self.target) {
            (Service::OpenSearch, _) => "OpenSearch",
            (_, "DescribeExecution") => "Step Functions",
            (_, "") if self.path.is_empty() => "SES",
            (_, "") => "S3",
            _ => "DynamoDB",
        }];
        if self.target.is_empty() && !self.path.is_empty() {
            words.extend([self.method, self.path]);
        }
        words.push(self.target);
        words.extend(self.body);
        format!("`{}`", words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_keeps_its_text_when_its_table_gets_other_rows() {
        let readme = include_str!("../README.md");
        let (text, rows) = readme.split_once(TABLE).expect("tests/README.md has the table of faults");
        assert_eq!(with_rows(readme, rows).as_deref(), Some(readme));
        assert_eq!(with_rows(readme, "| row |\n"), Some(format!("{text}{TABLE}| row |\n")));
        assert_eq!(with_rows("text", ""), None);
    }
}
