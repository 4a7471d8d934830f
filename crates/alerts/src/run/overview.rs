//! The archive as it stands, whichever runs made it: what a report tells beside its own run.

use crate::counts::AlertCounts;
use crate::run::span::{Span, joined, without};
use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All runs together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    #[serde(with = "instant::serde_iso")]
    pub as_of: Timestamp,
    /// When the first run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    pub runs: u64,
    /// Rows in `archive/parquet`, and the bytes that their objects had when they were written.
    pub archived: u64,
    pub bytes: u64,
    pub open: u64,
    pub quarantined: u64,
    /// Most frequent first.
    pub quarantine_reasons: Vec<(String, u64)>,
    /// What runs were to archive and none has committed, in order of time.
    pub gaps: Vec<Span>,
    /// What runs have committed, in order of time.
    pub covered: Vec<Span>,
    /// In order of their dates; a day without messages is not there.
    pub days: Vec<Day>,
    /// Of archived messages, by their months (`2024-07`). Of what was archived before this was counted, nothing.
    #[serde(default)]
    pub alerts: BTreeMap<String, AlertCounts>,
    /// By their own time, oldest first.
    pub oldest_open: Vec<OpenMessage>,
}

/// A held-over message, for the lists in mail and dashboard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenMessage {
    pub message_id: String,
    pub source_index: String,
    #[serde(with = "instant::serde_iso")]
    pub timestamp: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub first_seen_open: Timestamp,
}

/// What the archive holds of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// `2024-07-01`.
    pub date: String,
    pub archived: u64,
    pub open: u64,
    pub quarantined: u64,
    /// Bytes of the archive's objects.
    pub bytes: u64,
}

/// What a run has and has not covered of its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub range: Span,
    pub uncommitted: Vec<Span>,
}

/// How much of a stretch is covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    #[default]
    Nothing,
    Part,
    All,
}

impl Extent {
    /// `covered` is in order, without overlaps.
    pub fn of(span: &Span, covered: &[Span]) -> Self {
        if covered.iter().any(|done| done.from <= span.from && span.to <= done.to) {
            return Extent::All;
        }
        let meets = covered.iter().any(|done| done.from < span.to && span.from < done.to);
        if meets { Extent::Part } else { Extent::Nothing }
    }

    pub fn is_nothing(&self) -> bool {
        *self == Extent::Nothing
    }
}

/// The stretch that a window's id names.
pub fn span_of(window_id: &str) -> Option<Span> {
    let at = |text: &str| {
        let (date, time) = text.split_once('T')?;
        let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
        let (hour, minute, rest) = (time.get(..2)?, time.get(2..4)?, time.get(4..)?);
        instant::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{rest}"))
    };
    let (from, to) = window_id.split_once("--")?;
    Some(Span { from: at(from)?, to: at(to)? })
}

/// What the runs have covered together, and what of their ranges none of them has: both in order, without overlaps.
pub fn covered_and_gaps(runs: &[Coverage]) -> (Vec<Span>, Vec<Span>) {
    let wanted = joined(runs.iter().map(|run| run.range.clone()));
    let committed = runs.iter().flat_map(|run| without(vec![run.range.clone()], &joined(run.uncommitted.clone())));
    let covered = joined(committed);
    let gaps = without(wanted, &covered);
    (covered, gaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{
        job_run::RunStatus,
        report::{RunReport, coverage},
    };

    fn span(from: i64, to: i64) -> Span {
        let at = |second| Timestamp::from_second(second).expect("in range");
        Span { from: at(from), to: at(to) }
    }

    fn run(range: (i64, i64), uncommitted: &[(i64, i64)]) -> Coverage {
        let uncommitted = uncommitted.iter().map(|&(from, to)| span(from, to)).collect();
        Coverage { range: span(range.0, range.1), uncommitted }
    }

    #[test]
    fn what_one_run_left_another_may_have_covered() {
        let failed = run((0, 100), &[(20, 30), (60, 80)]);
        let (covered, gaps) = covered_and_gaps(std::slice::from_ref(&failed));
        assert_eq!(covered, [span(0, 20), span(30, 60), span(80, 100)]);
        assert_eq!(gaps, [span(20, 30), span(60, 80)]);
        let (covered, gaps) = covered_and_gaps(&[failed, run((20, 70), &[]), run((200, 300), &[])]);
        assert_eq!(covered, [span(0, 70), span(80, 100), span(200, 300)]);
        assert_eq!(gaps, [span(70, 80)]);
        assert_eq!(covered_and_gaps(&[]), (vec![], vec![]));
    }

    #[test]
    fn a_stretch_is_covered_whole_in_part_or_not_at_all() {
        let covered = [span(0, 20), span(30, 60)];
        let extent = |from, to| Extent::of(&span(from, to), &covered);
        assert_eq!([extent(0, 20), extent(35, 60)], [Extent::All; 2]);
        assert_eq!([extent(10, 40), extent(59, 90)], [Extent::Part; 2]);
        assert_eq!([extent(20, 30), extent(60, 61)], [Extent::Nothing; 2], "the end is not within");
    }

    #[test]
    fn a_windows_id_names_its_stretch() {
        let id = "20240701T000000.000Z--20240702T123456.789Z";
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        assert_eq!(span_of(id), Some(Span { from: at("2024-07-01T00:00:00Z"), to: at("2024-07-02T12:34:56.789Z") }));
        assert_eq!(span_of("nonsense"), None);
        assert_eq!(span_of("é--é"), None);
    }

    #[test]
    fn a_run_that_died_has_covered_nothing() {
        let report: RunReport = serde_json::from_str(
            r#"{"run_id":"r","mode":"range","from":"2024-07-01T00:00:00.000Z","to":"2024-08-01T00:00:00.000Z",
            "status":"Failed","attempt":1,"windows":{"planned":3,"succeeded":0,"failed":0},
            "messages":{"source":0,"archived":0,"open":0,"quarantined":0,"already_archived":0,"no_alerts":0},
            "recheck":{"looked_at":0,"closed":0,"open":0,"gone":0},"sweep":{"late":0,"changed":0,"reopened":0},
            "collisions":0,"undated":0,"backlog":0,"bytes":{"source":0,"archive":0},"reconciled":false,"failures":[]}"#,
        )
        .expect("a report");
        let died = coverage(&report).expect("it is over");
        assert_eq!(died.uncommitted, [died.range]);
        assert_eq!(coverage(&RunReport { status: RunStatus::Running, ..report.clone() }), None);
        assert_eq!(coverage(&RunReport { mode: "process".into(), ..report.clone() }), None);
        let done = coverage(&RunReport { status: RunStatus::Completed, ..report }).expect("it is over");
        assert_eq!(done.uncommitted, []);
    }
}
