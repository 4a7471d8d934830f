//! Windows over a range, each with the source that it will be read from: fixed here, so that a redrive days later reads
//! the same place.

use crate::{Deps, Error};
use alerts::{
    source::Source,
    window::plan::{Window, bisected, border, counted, join},
};
use jiff::{SignedDuration, Timestamp};
use runtime::Call;
use sources::{OpenSearch, SourceMode, api::TimeRange};
use std::cell::Cell;

/// An API keeps messages so long, less an hour in which the window waits for its turn.
pub const LEAST_KEPT: SignedDuration = SignedDuration::from_hours(60 * 24 - 1);
/// No stretch holds more, whatever the API says.
const LARGEST_ESTIMATE: u64 = 1 << 40;

/// The windows of `[from, to)`, in order.
pub async fn windows(
    deps: &Deps,
    opensearch: Option<&OpenSearch>,
    from: Timestamp,
    to: Timestamp,
    call: &Call,
) -> Result<Vec<Window>, Error> {
    let border = first_of_api(deps.sources.mode, call.now()).clamp(from, to);
    let mut windows = Vec::new();
    if let Some(opensearch) = opensearch.filter(|_| from < border) {
        let count = async |from, to, interval| opensearch.histogram(from, to, interval).await;
        windows = join(&counted(count, from, border, deps.target).await?, deps.target);
    }
    if let Some(api) = deps.sources.api.as_ref().filter(|_| border < to) {
        // Counts only size the windows. When the API cannot be asked, its windows say so, each for itself and in the
        // report.
        let is_over = Cell::new(false);
        let estimate = async |from, to| {
            if is_over.get() || call.is_ending() {
                return 0;
            }
            let count = api.count(TimeRange { from, to }, &call.shorter_by(call.left() / 20)).await;
            count.map(|count| count.min(LARGEST_ESTIMATE)).unwrap_or_else(|error| {
                tracing::warn!(error = errors::describe(&error), "windows of the API are planned without counting");
                is_over.set(true);
                0
            })
        };
        let recent = bisected(estimate, border, to, deps.target).await;
        windows.extend(recent.into_iter().map(|window| window.read_from(Source::Api)));
    }
    Ok(windows)
}

/// Where a window is read from that was not planned after a count.
pub fn source_at(deps: &Deps, from: Timestamp, now: Timestamp) -> Source {
    if from < first_of_api(deps.sources.mode, now) { Source::Opensearch } else { Source::Api }
}

/// A window that is run again so late that the API may have dropped its messages comes from OpenSearch, which has them.
pub fn still_kept(mode: SourceMode, window: Window, now: Timestamp) -> Window {
    let is_dropped = window.from < now - LEAST_KEPT;
    if mode == SourceMode::Hybrid && window.source == Source::Api && is_dropped {
        window.read_from(Source::Opensearch)
    } else {
        window
    }
}

fn first_of_api(mode: SourceMode, now: Timestamp) -> Timestamp {
    match mode {
        SourceMode::OpenSearch => Timestamp::MAX,
        SourceMode::Api => Timestamp::MIN,
        SourceMode::Hybrid => border(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn a_rerun_after_two_weeks_asks_the_api_and_one_after_three_no_more() {
        let planned = at("2026-11-21T06:00:00Z");
        let window = Window::new(border(planned), planned, 10).read_from(Source::Api);
        let source = |days: i64| {
            still_kept(SourceMode::Hybrid, window.clone(), planned + SignedDuration::from_hours(24 * days)).source
        };
        assert_eq!([0, 14, 15, 21].map(source), [Source::Api, Source::Api, Source::Opensearch, Source::Opensearch]);
        let alone = still_kept(SourceMode::Api, window.clone(), planned + SignedDuration::from_hours(24 * 21));
        assert_eq!(alone.source, Source::Api, "there is no other source");
    }

    #[test]
    fn the_border_lies_where_the_clock_of_the_plan_says() {
        let now = at("2026-11-21T06:00:00.123Z");
        assert_eq!(first_of_api(SourceMode::Hybrid, now), at("2026-10-07T06:00:00.123Z"));
        assert_eq!(
            (first_of_api(SourceMode::OpenSearch, now), first_of_api(SourceMode::Api, now)),
            (Timestamp::MAX, Timestamp::MIN)
        );
    }
}
