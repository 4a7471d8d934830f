//! What follows from what was seen. Pure: everything that explains a finding is an argument, so that a finding is never
//! made from a part of the archive that hides its explanation.

use alerts::{
    commit::manifest::WrittenObject,
    keys::{date_of, run_of},
    message::tracking::Claim,
    mode::Mode,
    run::{
        job_run::{JobRun, RunStatus},
        span::{Span, joined, without},
    },
    window::{
        plan::Interval,
        record::{State, WindowRecord},
    },
};
use identity::instant;
use jiff::Timestamp;
use storage::Head;

/// The days that are looked at, always whole ones: an object holds messages of one day, from windows on either side of
/// any instant in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Days {
    /// `[from, to)`, both midnights; `None` for all days there are.
    range: Option<(Timestamp, Timestamp)>,
}

impl Days {
    pub const ALL: Days = Days { range: None };

    pub fn around(from: Timestamp, to: Timestamp) -> Self {
        let day = Interval::Day.length().as_millis() as i64;
        let midnight = |millis: i64| Timestamp::from_millisecond(millis * day).unwrap_or(Timestamp::MAX);
        let last = (to.as_millisecond() - 1).div_euclid(day);
        Days { range: Some((midnight(from.as_millisecond().div_euclid(day)), midnight(last + 1))) }
    }

    /// Those of these days that the instants lie on, from the first to the last; all of them when one instant is
    /// unknown.
    pub fn of(self, instants: &[Option<Timestamp>]) -> Self {
        let known: Option<Vec<Timestamp>> = instants.iter().copied().collect();
        let edges = known.and_then(|known| Some((*known.iter().min()?, *known.iter().max()?)));
        edges.map_or(self, |(first, last)| Days::around(first, last + Interval::Millisecond.length()))
    }

    pub fn hold(&self, at: Timestamp) -> bool {
        self.meet(at, at)
    }

    /// Whether `[from, to)` and these days have a part in common.
    pub fn meet(&self, from: Timestamp, to: Timestamp) -> bool {
        self.range.is_none_or(|(first, end)| from < end && (first < to || first <= from))
    }

    /// Whether the object stands in the partition of one of them.
    pub fn hold_key(&self, key: &str) -> bool {
        match (self.range, date_of(key).and_then(instant::parse)) {
            (None, _) => true,
            (_, Some(date)) => self.hold(date),
            (_, None) => false,
        }
    }

    /// The part of `span` that lies on these days.
    pub fn cut(&self, span: &Span) -> Option<Span> {
        let (first, end) = self.range.unwrap_or((span.from, span.to));
        let cut = Span { from: span.from.max(first), to: span.to.min(end) };
        (cut.from < cut.to).then_some(cut)
    }
}

/// A window of a run, whichever of its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunWindow {
    pub run_id: String,
    pub window_id: String,
}

impl From<&Claim> for RunWindow {
    fn from(claim: &Claim) -> Self {
        RunWindow { run_id: claim.run_id.clone(), window_id: claim.window_id.clone() }
    }
}

/// The run and the window that an object's name begins with: `<window>.<run>.<part>.<ending>`.
pub fn writer_of(key: &str) -> Option<RunWindow> {
    let name = key.rsplit('/').next()?;
    let name = name.strip_suffix(".parquet").or_else(|| name.strip_suffix(".jsonl.zst"))?;
    let (name, _part) = name.rsplit_once('.')?;
    window_and_run(name)
}

/// The object that lost rows to a newer version, and the run and window that took them out:
/// `archive/superseded/date=<day>/<object>/by-<window>.<run>.parquet`.
pub fn taker_of(key: &str) -> Option<(String, RunWindow)> {
    let (object, by) = key.strip_prefix("archive/superseded/date=")?.rsplit_once('/')?;
    let claim = window_and_run(by.strip_prefix("by-")?.strip_suffix(".parquet")?)?;
    Some((format!("archive/parquet/date={object}.parquet"), claim))
}

/// The window and run of `archive/_commits/<window>/<run>-<attempt>.json`.
pub fn committer_of(key: &str) -> Option<RunWindow> {
    let (window_id, name) = key.strip_prefix("archive/_commits/")?.split_once('/')?;
    let (run_id, _attempt) = name.strip_suffix(".json")?.rsplit_once('-')?;
    Some(RunWindow { run_id: run_id.to_owned(), window_id: window_id.to_owned() })
}

/// A window's id holds dots of its own, and ends with the `Z` of its second instant.
fn window_and_run(name: &str) -> Option<RunWindow> {
    let second = name.find("--")? + 2;
    let end = second + name[second..].find("Z.")? + 1;
    Some(RunWindow { run_id: run_of(&name[end + 1..]).to_owned(), window_id: name[..end].to_owned() })
}

/// Whether an executor is at work on the window: its run, or an attempt that has not noticed yet that its run died.
pub fn is_alive(record: &WindowRecord, run: Option<&JobRun>, now: Timestamp) -> bool {
    let is_open = !matches!(record.status, State::Completed | State::Skipped);
    is_open && (record.fence.is_alive(now) || run.is_some_and(|run| run.status == RunStatus::Running))
}

/// Whether the window may still write what it planned: the next run that meets its intent carries it out.
pub fn is_unfinished(record: &WindowRecord, run: Option<&JobRun>, now: Timestamp) -> bool {
    record.status == State::Prepared || is_alive(record, run, now)
}

/// An entry of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// The manifest's key.
    pub manifest: String,
    pub object: WrittenObject,
}

/// What is to be said of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// As the last window that wrote it left it.
    Sound,
    /// A window that is not finished may write it, or take rows out of it: nothing can be said yet.
    Unfinished,
    /// A manifest names it, and it is not there.
    Missing,
    /// It is there, and no manifest names it.
    Unnamed,
    Differs {
        detail: String,
    },
}

/// `named`: what all manifests say that name the object, wherever their windows lie. A window that archives a newer
/// version takes the earlier row out, so that of several states the one with the fewest rows is the last, whatever the
/// times at which the manifests were written.
pub fn judge(found: Option<&Head>, named: &[Named], writer_unfinished: bool, taker_unfinished: bool) -> Verdict {
    if writer_unfinished {
        return Verdict::Unfinished;
    }
    let Some(found) = found else { return Verdict::Missing };
    let Some(fewest) = named.iter().map(|named| named.object.rows).min() else { return Verdict::Unnamed };
    let is_found =
        |named: &&Named| named.object.bytes == found.bytes && found.sha256.as_ref() == Some(&named.object.sha256);
    let same: Vec<&Named> = named.iter().filter(is_found).collect();
    if same.iter().any(|named| named.object.rows == fewest) {
        return Verdict::Sound;
    }
    if taker_unfinished {
        return Verdict::Unfinished;
    }
    let sha256 = found.sha256.as_deref().unwrap_or("unknown");
    let detail = match same.first() {
        Some(earlier) => format!("it is as {} says, but rows were taken out of it since", earlier.manifest),
        None => format!("{} bytes with sha256 {sha256}, which no manifest names", found.bytes),
    };
    Verdict::Differs { detail }
}

/// Where every message of the source should have a row: what windows have committed, and the empty stretches between
/// the windows of runs that completed.
pub fn covered(runs: &[JobRun], windows: &[WindowRecord]) -> Vec<Span> {
    let is_done = |record: &&WindowRecord| record.status == State::Completed;
    let span = |record: &WindowRecord| Span { from: record.window.from, to: record.window.to };
    // Documents by name are not all that stands between the first and the last of them.
    let of_range = || windows.iter().filter(|record| record.window.purpose.is_range());
    let mut spans: Vec<Span> = of_range().filter(is_done).map(span).collect();
    let reads_its_range = |mode: Mode| matches!(mode, Mode::Range | Mode::Scheduled);
    for run in runs.iter().filter(|run| run.status == RunStatus::Completed && reads_its_range(run.mode)) {
        let whole = vec![Span { from: run.from, to: run.to }];
        let undone = of_range().filter(|record| record.run_id == run.run_id && !is_done(record));
        spans.extend(without(whole, &joined(undone.map(span))));
    }
    joined(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alerts::{counts::Messages, window::plan::Window};
    use std::collections::BTreeMap;

    fn at(text: &str) -> Timestamp {
        instant::parse(text).expect("an instant")
    }

    fn span(from: &str, to: &str) -> Span {
        Span { from: at(from), to: at(to) }
    }

    #[test]
    fn a_range_is_widened_to_whole_days_and_not_to_the_day_behind_it() {
        let days = Days::around(at("2024-03-01T12:00:00Z"), at("2024-03-03"));
        for (key, inside) in [("2024-02-29", false), ("2024-03-01", true), ("2024-03-02", true), ("2024-03-03", false)]
        {
            assert_eq!(days.hold_key(&format!("archive/parquet/date={key}/x.parquet")), inside, "{key}");
        }
        assert!(days.hold(at("2024-03-01")) && !days.hold(at("2024-03-03")));
        assert!(
            days.meet(at("2024-02-01"), at("2024-03-01T00:00:00.001Z"))
                && !days.meet(at("2024-03-03"), at("2024-04-01"))
        );
        assert_eq!(Days::ALL.of(&[Some(at("2024-03-02T10:00:00Z"))]), Days::around(at("2024-03-02"), at("2024-03-03")));
        assert_eq!(days.of(&[Some(at("2024-03-02")), None]), days);
    }

    #[test]
    fn names_say_who_wrote_and_who_took_out() {
        let window_id = "20240301T000000.000Z--20240302T000000.000Z";
        let claim = RunWindow { run_id: "range-1.a".into(), window_id: window_id.into() };
        let object = alerts::keys::parquet_key("2024-03-01", window_id, "range-1.a", 7);
        assert_eq!(writer_of(&object), Some(claim.clone()));
        assert_eq!(
            writer_of(&alerts::keys::quarantine_key("2024-03-01", window_id, "range-1.a", 7)),
            Some(claim.clone())
        );
        let superseded = alerts::keys::superseded_key(&object, window_id, "range-1.a");
        assert_eq!(taker_of(&superseded), Some((object, claim.clone())));
        assert_eq!(committer_of(&alerts::keys::manifest_key(window_id, "range-1.a", 12)), Some(claim));
        assert_eq!(writer_of("archive/parquet/date=2024-03-01/by-hand.parquet"), None);
        // Another attempt after an intent that was ended, and a run that is called like it.
        let key = |writer: &str| alerts::keys::parquet_key("2024-03-01", window_id, writer, 7);
        let again = key(&alerts::keys::attempt_of("range-1.a", 2));
        assert_eq!((writer_of(&again), again == key("range-1.a-2")), (writer_of(&key("range-1.a")), false));
    }

    fn named(manifest: &str, rows: u64, sha256: &str) -> Named {
        let object = WrittenObject { key: "k".into(), rows, bytes: 10 * rows, sha256: sha256.into() };
        Named { manifest: manifest.into(), object }
    }

    fn head(rows: u64, sha256: &str) -> Head {
        Head { bytes: 10 * rows, sha256: Some(sha256.into()) }
    }

    #[test]
    fn of_several_states_the_one_with_the_fewest_rows_is_the_last_whatever_the_order_of_their_manifests() {
        let (written, first, second) = (named("writer", 8, "a"), named("march", 7, "b"), named("september", 6, "c"));
        for states in [[&written, &first, &second], [&second, &first, &written], [&first, &written, &second]] {
            let states = states.map(Clone::clone);
            assert_eq!(judge(Some(&head(6, "c")), &states, false, false), Verdict::Sound);
            assert!(matches!(judge(Some(&head(8, "a")), &states, false, false), Verdict::Differs { .. }));
        }
        // A zombie of the writer wrote its manifest again, and found the object as it had become.
        let again = WrittenObject { rows: 8, ..first.object.clone() };
        let zombie = [Named { manifest: "writer".into(), object: again }, first];
        assert_eq!(judge(Some(&head(7, "b")), &zombie, false, false), Verdict::Sound);
    }

    #[test]
    fn nothing_is_said_of_an_object_while_a_window_may_write_it_or_take_rows_out_of_it() {
        let written = [named("writer", 8, "a")];
        assert_eq!(judge(Some(&head(7, "b")), &written, false, true), Verdict::Unfinished);
        assert!(matches!(judge(Some(&head(7, "b")), &written, false, false), Verdict::Differs { .. }));
        assert_eq!(judge(Some(&head(8, "a")), &[], true, false), Verdict::Unfinished);
        assert_eq!(judge(None, &written, true, false), Verdict::Unfinished);
        assert_eq!(judge(None, &written, false, true), Verdict::Missing);
        assert_eq!(judge(Some(&head(8, "a")), &[], false, false), Verdict::Unnamed);
    }

    fn run(run_id: &str, status: RunStatus, mode: Mode, from: &str, to: &str) -> JobRun {
        JobRun {
            run_id: run_id.into(),
            mode,
            status,
            from: at(from),
            to: at(to),
            created_at: at(from),
            updated_at: at(from),
            execution_arn: String::new(),
            attempt: 1,
            planned: 0,
            undated: 0,
            absent: Vec::new(),
            counts: Messages::default(),
            scheduled_for: None,
            left: None,
            outbox: BTreeMap::new(),
            error: None,
            message: None,
            revision: 1,
        }
    }

    fn window(run_id: &str, status: State, from: &str, to: &str) -> WindowRecord {
        let record = WindowRecord::planned(run_id, Mode::Range, Window::new(at(from), at(to), 1), at(from));
        WindowRecord { status, ..record }
    }

    #[test]
    fn a_window_is_unfinished_while_its_run_or_its_lease_lives_and_as_long_as_its_intent_stands() {
        let (running, failed) = (RunStatus::Running, RunStatus::Failed);
        let run = |status| run("r1", status, Mode::Range, "2024-03-01", "2024-04-01");
        let (before, after) = (at("2024-02-01"), at("2024-03-02"));
        for (state, status, now, alive, unfinished) in [
            (State::Planned, running, after, true, true),
            (State::Failed, running, after, true, true),
            (State::Running, failed, before, true, true),
            (State::Running, failed, after, false, false),
            (State::Prepared, failed, after, false, true),
            (State::Completed, running, before, false, false),
            (State::Skipped, running, before, false, false),
        ] {
            let record = window("r1", state, "2024-03-01", "2024-03-02");
            assert_eq!(is_alive(&record, Some(&run(status)), now), alive, "{state:?} of a run that is {status:?}");
            assert_eq!(
                is_unfinished(&record, Some(&run(status)), now),
                unfinished,
                "{state:?} of a run that is {status:?}"
            );
        }
        assert!(!is_alive(&window("r1", State::Planned, "2024-03-01", "2024-03-02"), None, after));
    }

    #[test]
    fn a_day_in_several_windows_and_one_that_was_empty_are_covered() {
        let runs = [run("r1", RunStatus::Completed, Mode::Range, "2024-03-01", "2024-04-01")];
        let windows = [
            window("r1", State::Completed, "2024-03-05", "2024-03-05T12:00:00Z"),
            window("r1", State::Completed, "2024-03-05T12:00:00Z", "2024-03-06"),
        ];
        assert_eq!(covered(&runs, &windows), [span("2024-03-01", "2024-04-01")]);
        // Without its run, a day is as covered as its windows together.
        assert_eq!(covered(&[], &windows), [span("2024-03-05", "2024-03-06")]);
    }

    #[test]
    fn what_was_skipped_failed_or_only_staged_is_not_covered() {
        let runs = [
            run("r1", RunStatus::Completed, Mode::Range, "2024-03-01", "2024-03-04"),
            run("r2", RunStatus::Failed, Mode::Range, "2024-05-01", "2024-06-01"),
            run("r3", RunStatus::Completed, Mode::Process, "1970-01-01", "2026-01-01"),
        ];
        let windows = [
            window("r1", State::Skipped, "2024-03-02", "2024-03-03"),
            window("r2", State::Failed, "2024-05-01", "2024-05-02"),
        ];
        assert_eq!(covered(&runs, &windows), [span("2024-03-01", "2024-03-02"), span("2024-03-03", "2024-03-04")]);
    }
}
