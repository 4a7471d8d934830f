//! Windows: half-open `[from, to)` stretches of time, planned after the data and not after the calendar.

use crate::source::Source;
use identity::{Identity, instant};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// No window is longer, however little it holds.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(31 * 24);

/// How far back the API is asked where OpenSearch has the older messages: a redrive 14 days later then still lies
/// within the 60 days that an API may keep.
pub const HYBRID_REACH: SignedDuration = SignedDuration::from_hours(45 * 24);

/// From when on messages come from the API, in a plan that is made at `now`.
pub fn border(now: Timestamp) -> Timestamp {
    let millis = (now - HYBRID_REACH).as_microsecond().div_euclid(1000);
    // Rounded up to the millisecond: nothing older is asked of the API.
    let whole = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MIN);
    if whole < now - HYBRID_REACH { whole + SignedDuration::from_millis(1) } else { whole }
}

/// Identities in one window.
pub const MOST_IDENTITIES: usize = 100;
/// Bytes of their names in JSON, where a control character takes six: with their window they must fit into a payload of
/// 256 KiB.
const MOST_NAME_BYTES: usize = 150 << 10;

/// Which documents between the window's edges belong to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// All whose earliest instant lies there.
    #[default]
    Range,
    /// These and no others, wherever their instants lie by now; at most [`MOST_IDENTITIES`].
    Identities(Vec<Identity>),
}

/// What a window is planned for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// All documents of a stretch of time.
    #[default]
    Range,
    /// Held-over messages that may have closed.
    Recheck,
    /// Documents behind the range that the ledger has never seen.
    Late,
    /// Documents behind the range that were written again, or whose history or audit has grown.
    Changed,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Range => "range",
            Purpose::Recheck => "recheck",
            Purpose::Late => "late",
            Purpose::Changed => "changed",
        }
    }

    pub fn is_range(&self) -> bool {
        *self == Purpose::Range
    }
}

/// One line of `runs/<run>/windows.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub window_id: String,
    #[serde(with = "instant::serde_iso")]
    pub from: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub to: Timestamp,
    /// Documents counted when the plan was made; the drain has its own exact count.
    pub expected: u64,
    pub source: Source,
    #[serde(default, skip_serializing_if = "Selection::is_range")]
    pub selection: Selection,
    #[serde(default, skip_serializing_if = "Purpose::is_range")]
    pub purpose: Purpose,
    /// Rows of its messages may be called after an index that is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_index_gone: bool,
}

/// A document, and its instant as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dated {
    pub at: Timestamp,
    pub document: Identity,
}

impl Selection {
    fn is_range(&self) -> bool {
        *self == Selection::Range
    }
}

impl Window {
    /// All documents of a stretch of time.
    pub fn new(from: Timestamp, to: Timestamp, expected: u64) -> Self {
        let window_id = format!("{}--{}", instant::compact(from), instant::compact(to));
        let (source, selection) = (Source::default(), Selection::Range);
        Window { window_id, from, to, expected, source, selection, purpose: Purpose::Range, is_index_gone: false }
    }

    /// Windows of documents by name, in order of their instants. A window's id names its purpose and number between the
    /// first and the last of them.
    pub fn of_documents(purpose: Purpose, mut documents: Vec<Dated>) -> Vec<Self> {
        documents.sort();
        let mut known = HashSet::with_capacity(documents.len());
        documents.retain(|dated| known.insert(dated.document.clone()));
        let window = |(number, part): (usize, &[Dated])| {
            let (from, last) = (part.first()?.at, part.last()?.at);
            let to = last.checked_add(Interval::Millisecond.length()).unwrap_or(last);
            let edges = (instant::compact(from), instant::compact(to));
            let identities = part.iter().map(|dated| dated.document.clone()).collect();
            Some(Window {
                window_id: format!("{}-{}-{}--{}", edges.0, purpose.as_str(), number + 1, edges.1),
                selection: Selection::Identities(identities),
                purpose,
                ..Window::new(from, to, part.len() as u64)
            })
        };
        let (mut parts, mut left) = (Vec::new(), documents.as_slice());
        while !left.is_empty() {
            let (part, rest) = left.split_at(fitting(left));
            parts.push(part);
            left = rest;
        }
        parts.into_iter().enumerate().filter_map(window).collect()
    }

    /// All documents of one instant, for a source that cannot be asked for a document by name.
    pub fn of_instant(purpose: Purpose, at: Timestamp, expected: u64) -> Self {
        let to = at.checked_add(Interval::Millisecond.length()).unwrap_or(at);
        let window_id = format!("{}-{}--{}", instant::compact(at), purpose.as_str(), instant::compact(to));
        Window { window_id, purpose, ..Window::new(at, to, expected) }
    }

    /// The same window, read from another source.
    pub fn read_from(self, source: Source) -> Self {
        Window { source, ..self }
    }

    /// Whether a document that the source gave for this window belongs to it: `at` is the earliest of its instants, and
    /// a document with several matches several ranges.
    pub fn contains(&self, at: Timestamp) -> bool {
        matches!(self.selection, Selection::Identities(_)) || (self.from <= at && at < self.to)
    }
}

/// How many of the first documents fit into one window.
fn fitting(documents: &[Dated]) -> usize {
    let size = |name: &str| serde_json::to_string(name).map_or(0, |spelled| spelled.len());
    let mut bytes = 0;
    let fits = documents.iter().take(MOST_IDENTITIES).take_while(|Dated { document, .. }| {
        bytes += size(&document.source_index) + size(&document.id);
        bytes <= MOST_NAME_BYTES
    });
    fits.count().max(1)
}

/// A list of windows as JSON lines: the plan of a run, or those of its windows that failed.
pub fn write_list(windows: &[Window]) -> serde_json::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for window in windows {
        serde_json::to_writer(&mut lines, window)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// All windows of a list. One line that cannot be read spoils it: that window would be forgotten.
pub fn read_list(lines: &[u8]) -> Result<Vec<Window>, ListUnreadable> {
    let windows = serde_json::Deserializer::from_slice(lines).into_iter().enumerate();
    windows.map(|(line, window)| window.map_err(|source| ListUnreadable { line: line + 1, source })).collect()
}

/// A line of a list of windows that is no window.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not a window")]
pub struct ListUnreadable {
    line: usize,
    source: serde_json::Error,
}

/// A stretch of time and how many documents stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub from: Timestamp,
    pub to: Timestamp,
    pub count: u64,
}

/// How finely the source counts documents. A bucket that holds too many is counted again one step finer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interval {
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

impl Interval {
    pub fn finer(self) -> Option<Interval> {
        use Interval::*;
        match self {
            Day => Some(Hour),
            Hour => Some(Minute),
            Minute => Some(Second),
            Second => Some(Millisecond),
            Millisecond => None,
        }
    }

    pub fn length(self) -> SignedDuration {
        match self {
            Interval::Day => SignedDuration::from_hours(24),
            Interval::Hour => SignedDuration::from_hours(1),
            Interval::Minute => SignedDuration::from_mins(1),
            Interval::Second => SignedDuration::from_secs(1),
            Interval::Millisecond => SignedDuration::from_millis(1),
        }
    }
}

/// Days with too many documents are counted by the hour, such hours by the minute, down to the millisecond.
/// `count` returns the buckets of a stretch in order, cut to the stretch.
pub async fn counted<E>(
    count: impl AsyncFn(Timestamp, Timestamp, Interval) -> Result<Vec<Bucket>, E>,
    from: Timestamp,
    to: Timestamp,
    target: u64,
) -> Result<Vec<Bucket>, E> {
    let mut counted = Vec::new();
    let mut todo: Vec<(Bucket, Interval)> =
        count(from, to, Interval::Day).await?.into_iter().rev().map(|bucket| (bucket, Interval::Day)).collect();
    while let Some((bucket, interval)) = todo.pop() {
        match interval.finer().filter(|_| bucket.count > target) {
            Some(finer) => {
                let parts = count(bucket.from, bucket.to, finer).await?;
                todo.extend(parts.into_iter().rev().map(|part| (part, finer)));
            }
            None => counted.push(bucket),
        }
    }
    Ok(counted)
}

/// Joins neighbouring buckets, in order, into windows of at most `target` documents and [`LONGEST`] length.
/// A single bucket above `target` stays alone. Stretches without documents belong to no window.
pub fn join(buckets: &[Bucket], target: u64) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for bucket in buckets.iter().filter(|bucket| bucket.count > 0 && bucket.from < bucket.to) {
        match windows.last_mut() {
            Some(last) if last.expected + bucket.count <= target && bucket.to.duration_since(last.from) <= LONGEST => {
                *last = Window::new(last.from, bucket.to, last.expected + bucket.count);
            }
            _ => windows.push(Window::new(bucket.from, bucket.to, bucket.count)),
        }
    }
    windows
}

/// What a capped plan leaves to the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Where the next run begins.
    #[serde(with = "instant::serde_iso")]
    pub from: Timestamp,
    #[serde(with = "instant::serde_iso")]
    pub to: Timestamp,
    /// As far as they were counted.
    pub messages: u64,
}

/// Keeps the first `most` windows of a stretch that ends at `to`, in order, and tells what is left behind them.
pub fn capped(windows: &mut Vec<Window>, most: usize, to: Timestamp) -> Option<Left> {
    if windows.len() <= most.max(1) {
        return None;
    }
    let beyond = windows.split_off(most.max(1));
    let from = beyond.first()?.from;
    Some(Left { from, to, messages: beyond.iter().map(|window| window.expected).sum() })
}

/// Counts of a bisection: a source that tells the same number of any stretch must not be asked for ever.
const LARGEST_BISECTION: usize = 1000;

/// The whole of `[from, to)` in stretches of at most [`LONGEST`], halved where `estimate` finds more than `target`: for
/// a source that can only count. Empty stretches stay, because the count is an estimate.
pub async fn bisected(
    estimate: impl AsyncFn(Timestamp, Timestamp) -> u64,
    from: Timestamp,
    to: Timestamp,
    target: u64,
) -> Vec<Window> {
    let (mut windows, mut asked): (Vec<Window>, usize) = (Vec::new(), 0);
    let mut todo: Vec<(Timestamp, Timestamp)> = Vec::new();
    let mut start = from;
    while start < to {
        let end = start.checked_add(LONGEST).unwrap_or(to).min(to);
        todo.push((start, end));
        start = end;
    }
    let most = todo.len() + LARGEST_BISECTION;
    todo.reverse();
    while let Some((start, end)) = todo.pop() {
        let held = estimate(start, end).await;
        asked += 1;
        if let Some(middle) = middle(start, end).filter(|_| held > target && asked + todo.len() < most) {
            todo.extend([(middle, end), (start, middle)]);
            continue;
        }
        match windows.last_mut() {
            Some(last) if last.expected + held <= target && end.duration_since(last.from) <= LONGEST => {
                *last = Window::new(last.from, end, last.expected + held);
            }
            _ => windows.push(Window::new(start, end, held)),
        }
    }
    windows
}

/// About half way, on the roundest edge: of a day, an hour, a minute, a second, or a millisecond.
fn middle(from: Timestamp, to: Timestamp) -> Option<Timestamp> {
    let (from, to) = (from.as_millisecond(), to.as_millisecond());
    let half = from + (to - from) / 2;
    let edges =
        [Interval::Day, Interval::Hour, Interval::Minute, Interval::Second, Interval::Millisecond].map(|interval| {
            let length = interval.length().as_millis() as i64;
            half.div_euclid(length) * length
        });
    // Not so round that one of the halves is much larger than the other.
    let is_fair = |edge: &i64| *edge > from && *edge < to && (half - edge) * 4 <= to - from;
    edges.into_iter().find(is_fair).and_then(|edge| Timestamp::from_millisecond(edge).ok())
}

/// The stretch of `interval` that begins at `start`, a count of milliseconds, cut to a range; `None` when nothing is
/// left. A day may reach over the edge of a range that begins at noon, and one of a document's instants, far outside,
/// may be more than a [`Timestamp`] holds.
pub fn clip(start: i64, interval: Interval, count: u64, from: Timestamp, to: Timestamp) -> Option<Bucket> {
    let end = start.saturating_add(interval.length().as_millis() as i64);
    let held =
        |millis: i64| Timestamp::from_millisecond(millis.max(from.as_millisecond()).min(to.as_millisecond())).ok();
    let bucket = Bucket { from: held(start)?, to: held(end)?, count };
    (bucket.from < bucket.to && count > 0).then_some(bucket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).expect("in range")
    }

    const DAY: i64 = 86_400_000;

    #[test]
    fn a_plan_of_too_many_windows_ends_where_the_first_one_begins_that_is_left() {
        let all = [Window::new(at(0), at(10), 1), Window::new(at(10), at(20), 2), Window::new(at(50), at(60), 4)];
        for (most, left) in [(3, None), (2, Some((50, 4))), (1, Some((10, 6))), (0, Some((10, 6)))] {
            let mut windows = all.to_vec();
            let left = left.map(|(from, messages)| Left { from: at(from), to: at(99), messages });
            assert_eq!(capped(&mut windows, most, at(99)), left);
            assert_eq!(windows, all[..most.max(1)], "in order, and never none at all");
        }
    }

    #[test]
    fn a_list_of_windows_is_read_whole_or_not_at_all() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let windows = [Window::new(at(0), at(10), 1), Window::new(at(10), at(20), 2)];
        let lines = write_list(&windows).expect("lines");
        assert_eq!(read_list(&lines).expect("a list"), windows);
        let torn = &lines[..lines.len() - 5];
        assert_eq!(read_list(torn).expect_err("torn").to_string(), "line 2 is not a window");
        assert!(read_list(&[b"{}\n", lines.as_slice()].concat()).is_err());
    }

    #[test]
    fn the_window_id_is_readable_stable_and_has_no_colon() {
        let window = Window::new(at(1_719_792_000_000), at(1_719_792_000_000 + DAY), 1);
        assert_eq!(window.window_id, "20240701T000000.000Z--20240702T000000.000Z");
    }

    #[test]
    fn a_window_of_the_first_payloads_is_read_and_written_as_it_was() {
        let line = r#"{"window_id":"w","from":"2024-07-01T00:00:00.000Z","to":"2024-07-02T00:00:00.000Z","expected":3,"source":"opensearch"}"#;
        let window: Window = serde_json::from_str(line).expect("a window");
        assert_eq!(window.selection, Selection::Range);
        assert_eq!(serde_json::to_string(&window).expect("JSON"), line);
    }

    #[test]
    fn a_window_may_name_documents_and_fits_a_payload() {
        let named = (0..MOST_IDENTITIES).map(|n| Identity::new("\"".repeat(255), format!("{n:\"<512}")));
        let window = Window { selection: Selection::Identities(named.collect()), ..Window::new(at(0), at(DAY), 1) };
        let json = serde_json::to_string(&window).expect("JSON");
        assert!(json.len() < 200 * 1024, "{} bytes", json.len());
        assert_eq!(serde_json::from_str::<Window>(&json).expect("a window"), window);
        assert!(window.contains(at(2 * DAY)));
    }

    #[test]
    fn documents_by_name_come_in_windows_whose_ids_tell_what_for() {
        let dated = |n: i64| Dated { at: at(n * DAY), document: Identity::new("m", format!("{n}")) };
        let documents: Vec<Dated> = (0..250).rev().chain(0..3).map(dated).collect();
        let windows = Window::of_documents(Purpose::Recheck, documents);
        assert_eq!(windows.iter().map(|window| window.expected).collect::<Vec<_>>(), [100, 100, 50]);
        assert_eq!(windows[0].window_id, "19700101T000000.000Z-recheck-1--19700410T000000.001Z");
        assert!(windows[2].contains(at(-DAY)), "wherever its instant lies by now");
        let json = serde_json::to_string(&windows[0]).expect("JSON");
        assert_eq!(serde_json::from_str::<Window>(&json).expect("a window"), windows[0]);
        assert!(Window::of_documents(Purpose::Late, Vec::new()).is_empty());
    }

    #[test]
    fn a_window_of_documents_fits_into_a_payload_whatever_their_ids_are_made_of() {
        let dated =
            |n: u32| Dated { at: at(0), document: Identity::new("m", format!("{n:03}{}", "\u{1}".repeat(509))) };
        let windows = Window::of_documents(Purpose::Recheck, (0..150).map(dated).collect());
        assert_eq!(windows.iter().map(|window| window.expected).sum::<u64>(), 150);
        for window in &windows {
            assert!(serde_json::to_string(window).expect("JSON").len() < 200 << 10, "{}", window.expected);
        }
    }

    #[test]
    fn mostly_empty_years_cost_few_windows() {
        let buckets: Vec<_> = (0..2557)
            .step_by(100)
            .map(|day| Bucket { from: at(day * DAY), to: at((day + 1) * DAY), count: 3 })
            .collect();
        assert_eq!(join(&buckets, 4000).len(), 26);
    }

    #[test]
    fn nothing_older_than_45_days_is_asked_of_the_api() {
        for (now, expected) in [
            ("2026-11-21T00:00:00Z", "2026-10-07T00:00:00.000Z"),
            ("2026-11-21T13:14:15.678Z", "2026-10-07T13:14:15.678Z"),
            ("2026-11-21T13:14:15.678000001Z", "2026-10-07T13:14:15.679Z"),
            ("2024-03-01T00:00:00Z", "2024-01-16T00:00:00.000Z"),
            ("2027-01-10T00:00:00.0005Z", "2026-11-26T00:00:00.001Z"),
        ] {
            let now: Timestamp = now.parse().expect("instant");
            assert_eq!(instant::iso(border(now)), expected, "{now}");
            assert!(now.duration_since(border(now)) <= HYBRID_REACH);
            // Run again 14 days later it still lies within what an API may keep.
            assert!(
                now.duration_since(border(now)) + SignedDuration::from_hours(14 * 24)
                    < SignedDuration::from_hours(60 * 24)
            );
        }
    }

    fn now_or_never<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("not ready"),
        }
    }

    #[test]
    fn a_source_that_counts_the_same_everywhere_is_not_asked_for_ever() {
        let asked = std::cell::Cell::new(0);
        let count = async |_, _| {
            asked.set(asked.get() + 1);
            1_000_000
        };
        let windows = now_or_never(bisected(count, at(0), at(2557 * DAY), 10));
        assert!(asked.get() <= 2000 && windows.len() <= 2000, "{} counts, {} windows", asked.get(), windows.len());
        assert_eq!((windows[0].from, windows[windows.len() - 1].to), (at(0), at(2557 * DAY)));
    }

    proptest! {
        #[test]
        fn a_bisection_covers_the_whole_range_whatever_is_counted(
            documents in proptest::collection::vec(0..90 * DAY, 0..80),
            (from, length) in (0..60 * DAY, 1..70 * DAY),
            target in 1u64..12,
        ) {
            let (from, to) = (at(from), at(from + length));
            let within = |from: Timestamp, to: Timestamp| documents.iter().filter(|document| (from..to).contains(&at(**document))).count() as u64;
            let windows = now_or_never(bisected(async |from, to| within(from, to), from, to, target));
            prop_assert_eq!((windows[0].from, windows[windows.len() - 1].to), (from, to));
            for pair in windows.windows(2) {
                prop_assert_eq!(pair[0].to, pair[1].from);
            }
            for window in &windows {
                prop_assert!(window.from < window.to && window.to.duration_since(window.from) <= LONGEST);
                prop_assert!(window.expected <= target || window.to.duration_since(window.from) == Interval::Millisecond.length());
                prop_assert_eq!(within(window.from, window.to), window.expected);
            }
        }

        #[test]
        fn windows_hold_every_bucket_once_and_never_overlap(
            days in proptest::collection::btree_map(0i64..3000, 0u64..9000, 0..200),
            target in 1u64..10_000,
        ) {
            let buckets: Vec<_> = days.iter().map(|(day, count)| Bucket { from: at(day * DAY), to: at((day + 1) * DAY), count: *count }).collect();
            let windows = join(&buckets, target);
            for pair in windows.windows(2) {
                prop_assert!(pair[0].to <= pair[1].from);
            }
            for window in &windows {
                prop_assert!(window.to.duration_since(window.from) <= LONGEST);
                let inside: Vec<_> = buckets.iter().filter(|b| b.count > 0 && window.contains(b.from)).collect();
                prop_assert_eq!(inside.iter().map(|b| b.count).sum::<u64>(), window.expected);
                prop_assert!(window.expected <= target || inside.len() == 1);
            }
            prop_assert_eq!(windows.iter().map(|w| w.expected).sum::<u64>(), days.values().sum::<u64>());
        }

        #[test]
        fn each_document_of_a_range_is_in_one_window_and_only_a_millisecond_holds_too_many(
            clusters in proptest::collection::vec((-40 * DAY..100 * DAY, 0u32..28, proptest::collection::vec(any::<u32>(), 1..20)), 0..12),
            (from, length) in (-40 * DAY..60 * DAY, 1..70 * DAY),
            target in 1u64..12,
        ) {
            // Documents crowd together within a day, an hour, or a millisecond.
            let spread = |base: i64, bits: u32, offset: &u32| base + i64::from(offset & ((1 << bits) - 1));
            let cluster = |(base, bits, all): &(i64, u32, Vec<u32>)| all.iter().map(|offset| spread(*base, *bits, offset)).collect::<Vec<_>>();
            let mut documents: Vec<i64> = clusters.iter().flat_map(cluster).collect();
            documents.sort();
            let (from, to) = (at(from), at(from + length));
            let count = async |from: Timestamp, to: Timestamp, interval: Interval| {
                let length = interval.length().as_millis() as i64;
                let inside = documents.iter().filter(|document| (from..to).contains(&at(**document)));
                let mut counts = std::collections::BTreeMap::new();
                inside.for_each(|document| *counts.entry(document.div_euclid(length) * length).or_insert(0) += 1);
                Ok::<_, ()>(counts.into_iter().filter_map(|(key, count)| clip(key, interval, count, from, to)).collect())
            };
            // The source returns at once, so that the future is ready when it is first asked.
            let Poll::Ready(Ok(buckets)) = pin!(counted(count, from, to, target)).poll(&mut Context::from_waker(Waker::noop())) else {
                return Err(TestCaseError::fail("not ready"));
            };
            let windows = join(&buckets, target);
            for pair in windows.windows(2) {
                prop_assert!(pair[0].to <= pair[1].from);
            }
            for window in &windows {
                prop_assert!(from <= window.from && window.from < window.to && window.to <= to);
                prop_assert!(window.to.duration_since(window.from) <= LONGEST);
                prop_assert!(window.expected <= target || window.to.duration_since(window.from) == Interval::Millisecond.length());
                prop_assert_eq!(documents.iter().filter(|document| window.contains(at(**document))).count() as u64, window.expected);
            }
            let inside = documents.iter().filter(|document| (from..to).contains(&at(**document))).count() as u64;
            prop_assert_eq!(windows.iter().map(|window| window.expected).sum::<u64>(), inside);
        }
    }
}
