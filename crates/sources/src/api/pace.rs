//! The limit of requests a second, which holds for all functions together: who wants to send takes a turn from one
//! row that they share. Turns are evenly spaced, so that a delay on the way, or a clock that is a little off, does not
//! put more requests into a second than the server's bucket holds.

use super::ApiError;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use runtime::Call;
use std::{collections::VecDeque, time::Duration};
use tokio::sync::Mutex;

/// Turns that no request took can be made up for so long. The other half of the bucket is for what is late on its way.
const BURST: SignedDuration = SignedDuration::from_millis(500);
/// One reservation holds no more than this part of a second's turns, so that many functions share them fairly.
const SHARE: u32 = 4;

/// Turns that were granted: `count` of them, `step_micros` apart, the first at `first_micros` since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub first_micros: i64,
    pub step_micros: i64,
    pub count: u32,
}

/// Takes up to `wanted` turns of `per_second`; the second value is when the next one is free, which is all that has to
/// be remembered. `free` is that of the last reservation.
pub fn reserve(free: Option<i64>, now: Timestamp, per_second: u32, wanted: usize) -> (Granted, i64) {
    let per_second = per_second.max(1);
    let count = (wanted.max(1) as u64).min(u64::from(per_second.div_ceil(SHARE))) as u32;
    // Rounded up: a step that is too short would exceed the limit.
    let step_micros = (1_000_000 + i64::from(per_second) - 1) / i64::from(per_second);
    let earliest = now.as_microsecond() - BURST.as_micros() as i64;
    let first_micros = free.map_or(now.as_microsecond(), |free| free.max(earliest));
    (Granted { first_micros, step_micros, count }, first_micros + step_micros * i64::from(count))
}

/// Where turns come from: one place for all functions.
#[async_trait]
pub trait Pace: Send + Sync {
    /// Up to `wanted` turns, at least one. `now` is the caller's time of day.
    async fn reserve(&self, wanted: usize, now: Timestamp) -> Result<Granted, String>;

    /// No turn before `until`: the server asked one of the functions to wait.
    async fn pause(&self, until: Timestamp) -> Result<(), String>;
}

/// A pace that no other process shares.
pub struct OwnPace {
    per_second: u32,
    free: Mutex<Option<i64>>,
}

impl OwnPace {
    pub fn new(per_second: u32) -> Self {
        OwnPace { per_second, free: Mutex::default() }
    }
}

#[async_trait]
impl Pace for OwnPace {
    async fn reserve(&self, wanted: usize, now: Timestamp) -> Result<Granted, String> {
        let mut free = self.free.lock().await;
        let (granted, next) = reserve(*free, now, self.per_second, wanted);
        *free = Some(next);
        Ok(granted)
    }

    async fn pause(&self, until: Timestamp) -> Result<(), String> {
        let mut free = self.free.lock().await;
        *free = Some(free.unwrap_or(i64::MIN).max(until.as_microsecond()));
        Ok(())
    }
}

/// The turns of one process, handed to its requests in the order in which they ask.
pub struct Turns {
    pace: Box<dyn Pace>,
    granted: Mutex<VecDeque<Timestamp>>,
}

impl Turns {
    pub fn new(pace: Box<dyn Pace>) -> Self {
        Turns { pace, granted: Mutex::default() }
    }

    /// Waits until one more request may be sent; `more` says how many will probably follow.
    pub(crate) async fn next(&self, more: usize, call: &Call) -> Result<(), ApiError> {
        let at = {
            let mut granted = self.granted.lock().await;
            // A process that was frozen between two calls comes back with turns whose time is long over.
            let now = call.now();
            granted.retain(|at| now.duration_since(*at) < BURST);
            if granted.is_empty() {
                let Granted { first_micros, step_micros, count } =
                    self.pace.reserve(more + 1, now).await.map_err(|reason| ApiError::Pace { reason })?;
                // What can be made up for is sent now; a turn beyond the calendar never comes.
                let now = call.now();
                let turns = (0..i64::from(count)).map(|turn| first_micros + turn * step_micros);
                granted
                    .extend(turns.map(|micros| Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX).max(now)));
            }
            granted.pop_front()
        };
        let wait = at.map(|at| Duration::try_from(at.duration_since(call.now())).unwrap_or_default());
        let Some(wait) = wait.filter(|wait| *wait < call.left()) else { return Err(ApiError::NoTurn) };
        call.sleep(wait).await;
        Ok(())
    }

    /// Nothing is sent before `wait` is over, here or elsewhere.
    pub(crate) async fn pause(&self, wait: Duration, call: &Call) -> Result<(), ApiError> {
        let until = call.now().checked_add(wait).unwrap_or(Timestamp::MAX);
        let mut granted = self.granted.lock().await;
        // Those that were granted for the time until then are lost: sent together afterwards they would be a burst.
        granted.retain(|at| *at >= until);
        self.pace.pause(until).await.map_err(|reason| ApiError::Pace { reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).expect("in range")
    }

    #[test]
    fn turns_are_spaced_and_those_that_no_request_took_are_made_up_for_within_half_a_second() {
        let now = 1_800_000_000_000_000;
        let (first, free) = reserve(None, at(now), 20, 100);
        assert_eq!((first, free), (Granted { first_micros: now, step_micros: 50_000, count: 5 }, now + 250_000));
        let (second, _) = reserve(Some(free), at(now + 1), 20, 2);
        assert_eq!(second, Granted { first_micros: free, step_micros: 50_000, count: 2 });
        let (late, _) = reserve(Some(free), at(now + 60_000_000), 20, 1);
        assert_eq!(late.first_micros, now + 59_500_000);
    }

    proptest! {
        /// The server's bucket: it holds one second's worth and never runs dry, whichever function reserves, however
        /// much, whenever.
        #[test]
        fn a_bucket_of_one_second_never_runs_dry(
            per_second in 1u32..500,
            steps in proptest::collection::vec((0i64..3_000_000, 1usize..300, 0i64..400_000), 1..60),
        ) {
            let (mut now, mut free, mut sent) = (1_800_000_000_000_000i64, None, Vec::new());
            for (pause, wanted, delay) in steps {
                now += pause;
                let (granted, next) = reserve(free, at(now), per_second, wanted);
                free = Some(next);
                prop_assert!(granted.count >= 1 && granted.count as usize <= wanted);
                for turn in 0..i64::from(granted.count) {
                    // Sent at its turn, or now where that has passed; then up to 0.4 s on its way.
                    sent.push((granted.first_micros + turn * granted.step_micros).max(now) + delay);
                }
            }
            sent.sort();
            let rate = f64::from(per_second);
            let (mut left, mut before) = (rate, sent[0]);
            for at in sent {
                left = (left + (at - before) as f64 / 1e6 * rate).min(rate) - 1.0;
                before = at;
                prop_assert!(left > -1.0 - 1e-6, "{left} left at {at}");
            }
        }
    }
}
