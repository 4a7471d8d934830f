//! The archive as it stands, whichever runs made it: what a report tells beside its own run.

use crate::counts::{AlertCounts, SourceSize};
use crate::run::{
    span::{Span, joined, without},
    unresolved::Unresolved,
};
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
    /// Rows in `archive/parquet`, and the bytes of their objects.
    pub archived: u64,
    pub bytes: u64,
    /// Of these rows, those whose size in the source is known, and that size.
    #[serde(default)]
    pub in_source: SourceSize,
    /// USD for a GB and month in the source, where the deployment knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_gb_month: Option<f64>,
    pub open: u64,
    pub quarantined: u64,
    /// Most frequent first.
    pub quarantine_reasons: Vec<(String, u64)>,
    /// What runs had planned and none has committed, in order of time.
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
    /// Bytes that the archived messages have in the source, as far as known.
    #[serde(default)]
    pub source_bytes: u64,
}

/// What a run had planned, and what it has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub planned: Vec<Span>,
    pub committed: Vec<Span>,
}

/// How much of a stretch is covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// What the runs have covered together, and what they had planned and none of them has: both in order, without
/// overlaps.
pub fn covered_and_gaps(runs: &[Coverage]) -> (Vec<Span>, Vec<Span>) {
    let covered = joined(runs.iter().flat_map(|run| run.committed.clone()));
    let planned = joined(runs.iter().flat_map(|run| run.planned.clone()));
    let gaps = without(planned, &covered);
    (covered, gaps)
}

impl Overview {
    /// The gaps that nobody knows of: what operators have set aside is told with its reason, and waits for them.
    pub fn gaps_beside(&self, unresolved: &[Unresolved]) -> Vec<Span> {
        let set_aside = unresolved.iter().flat_map(|item| match item {
            Unresolved::SkippedWindow { left, .. } | Unresolved::WatermarkSet { left, .. } => left.clone(),
            Unresolved::QuarantinedByOperator { .. } => Vec::new(),
        });
        without(self.gaps.clone(), &joined(set_aside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mode::Mode,
        run::{
            job_run::RunStatus,
            report::{Failure, RunReport, coverage, extracted},
        },
        window::{
            plan::Window,
            record::{State, WindowRecord},
        },
    };

    fn span(from: i64, to: i64) -> Span {
        let at = |second| Timestamp::from_second(second).expect("in range");
        Span { from: at(from), to: at(to) }
    }

    fn spans(all: &[(i64, i64)]) -> Vec<Span> {
        all.iter().map(|&(from, to)| span(from, to)).collect()
    }

    fn run(range: (i64, i64), uncommitted: &[(i64, i64)]) -> Coverage {
        let planned = vec![span(range.0, range.1)];
        Coverage { committed: without(planned.clone(), &spans(uncommitted)), planned }
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

    fn report(mode: &str, status: RunStatus, reported_at: Option<&str>) -> RunReport {
        let report: RunReport = serde_json::from_str(
            r#"{"run_id":"r","mode":"","from":"1970-01-01T00:00:00.000Z","to":"1970-01-01T00:05:00.000Z",
            "status":"Failed","attempt":1,"windows":{"planned":3,"succeeded":0,"failed":0},
            "messages":{"source":0,"archived":0,"open":0,"quarantined":0,"already_archived":0,"no_alerts":0},
            "recheck":{"looked_at":0,"closed":0,"open":0,"gone":0},"sweep":{"late":0,"changed":0,"reopened":0},
            "collisions":0,"undated":0,"backlog":0,"bytes":{"source":0,"archive":0},"reconciled":false,"failures":[]}"#,
        )
        .expect("a report");
        RunReport { mode: mode.into(), status, reported_at: reported_at.map(str::to_owned), ..report }
    }

    fn record(from: i64, to: i64, status: State) -> WindowRecord {
        let Span { from, to } = span(from, to);
        WindowRecord { status, ..WindowRecord::planned("r", Mode::Range, Window::new(from, to, 1), from) }
    }

    fn failed(from: i64, to: i64) -> Failure {
        let Span { from, to } = span(from, to);
        Failure { window_id: Window::new(from, to, 1).window_id, messages: 7, ..Failure::default() }
    }

    const REPORTED: Option<&str> = Some("1970-01-01T00:10:00.000Z");

    #[test]
    fn of_a_run_that_died_only_what_it_had_planned_and_not_committed_is_a_gap() {
        let died = report("range", RunStatus::Failed, None);
        let rows = [record(0, 20, State::Completed), record(50, 60, State::Running), record(70, 90, State::Planned)];
        let (covered, gaps) = covered_and_gaps(&[coverage(&died, &rows).expect("a range")]);
        assert_eq!((covered, gaps), (spans(&[(0, 20)]), spans(&[(50, 60), (70, 90)])));
        // It was cancelled before its plan stood.
        assert_eq!(covered_and_gaps(&[coverage(&died, &[]).expect("a range")]), (vec![], vec![]));
        let first = report("range", RunStatus::Running, None);
        let (covered, gaps) = covered_and_gaps(&[coverage(&first, &rows).expect("a range")]);
        assert_eq!((covered, gaps), (spans(&[(0, 20)]), vec![]), "it is at work");
        assert_eq!(coverage(&RunReport { mode: "process".into(), ..died }, &rows), None);
    }

    #[test]
    fn a_report_is_brought_up_to_what_its_windows_have_committed_since() {
        let of =
            |status| RunReport { failures: vec![failed(20, 30), failed(40, 60)], ..report("range", status, REPORTED) };
        let (covered, gaps) = covered_and_gaps(&[coverage(&of(RunStatus::Failed), &[]).expect("a range")]);
        assert_eq!((covered, gaps), (spans(&[(0, 20), (30, 40), (60, 300)]), spans(&[(20, 30), (40, 60)])));
        // A redrive did one of them and died.
        let rows = [record(20, 30, State::Completed), record(40, 60, State::Failed)];
        let (_, gaps) = covered_and_gaps(&[coverage(&of(RunStatus::Failed), &rows).expect("a range")]);
        assert_eq!(gaps, spans(&[(40, 60)]));
        let (covered, gaps) = covered_and_gaps(&[coverage(&of(RunStatus::Running), &[]).expect("a range")]);
        assert_eq!((covered.len(), gaps), (3, vec![]), "what it has committed stays so while it is at work again");
    }

    #[test]
    fn what_was_staged_is_covered_once_a_later_run_has_written_it() {
        let extraction = RunReport { failures: vec![failed(0, 10)], ..report("extract", RunStatus::Failed, REPORTED) };
        let writer = |started_at: &str, failures| RunReport {
            started_at: Some(started_at.into()),
            failures,
            ..report("process", RunStatus::Completed, Some("1970-01-01T00:30:00.000Z"))
        };
        let covered = |writer: RunReport| covered_and_gaps(&extracted(&[extraction.clone(), writer]));
        let later = "1970-01-01T00:20:00.000Z";
        assert_eq!(covered(writer(later, vec![])), (spans(&[(10, 300)]), vec![]));
        assert_eq!(covered(writer(later, vec![failed(0, 100)])), (spans(&[(100, 300)]), vec![]), "it failed there");
        assert_eq!(covered(writer("1970-01-01T00:09:00.000Z", vec![])), (vec![], vec![]), "it began before");
        let died = RunReport { reported_at: None, ..writer(later, vec![]) };
        assert_eq!(covered(died), (vec![], vec![]), "nothing is known of what it has written");
    }

    #[test]
    fn what_failed_in_one_run_is_told_as_what_others_have_made_of_it_since() {
        let failures = vec![failed(20, 30), failed(40, 60), failed(70, 80)];
        let told =
            RunReport { failures, ..report("range", RunStatus::Failed, REPORTED) }.told_after(&spans(&[(0, 50)]));
        let extents: Vec<Extent> = told.failures.iter().map(|failure| failure.by_other_runs).collect();
        assert_eq!(extents, [Extent::All, Extent::Part, Extent::Nothing]);
        assert_eq!(told.clone().told_after(&[]), told, "what was committed once stays so");
    }

    #[test]
    fn what_operators_have_set_aside_is_no_gap_that_nobody_knows_of() {
        let overview = Overview { gaps: spans(&[(0, 10), (20, 40)]), ..Overview::default() };
        let skipped = |left| Unresolved::SkippedWindow {
            run_id: "r".into(),
            window_id: "w".into(),
            reason: "the shard is lost".into(),
            since: Timestamp::UNIX_EPOCH,
            left,
        };
        assert_eq!(overview.gaps_beside(&[]), overview.gaps);
        assert_eq!(overview.gaps_beside(&[skipped(spans(&[(20, 30)]))]), spans(&[(0, 10), (30, 40)]));
        assert_eq!(overview.gaps_beside(&[skipped(spans(&[(20, 40)])), skipped(spans(&[(0, 10)]))]), []);
    }
}
