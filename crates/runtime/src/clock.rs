use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// The time, as a function sees it: only the edge of the program asks the system for it.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time of day, in UTC.
    fn now(&self) -> Timestamp;

    /// Time since some moment in the past; never goes back.
    fn elapsed(&self) -> Duration;

    async fn sleep(&self, time: Duration);
}

/// The clocks of the system.
pub struct SystemClock {
    began: Instant,
}

impl SystemClock {
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(SystemClock { began: Instant::now() })
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// A clock that stands still until it is moved, for tests. It wakes sleepers in the order of their times, and of those
/// of one time the one that lay down first, so that a simulated history can be repeated.
pub struct ManualClock {
    began: Timestamp,
    state: Mutex<Moved>,
}

#[derive(Default)]
struct Moved {
    elapsed: Duration,
    sleepers: Vec<Sleeper>,
}

struct Sleeper {
    until: Duration,
    wake: oneshot::Sender<()>,
}

impl ManualClock {
    pub fn at(began: Timestamp) -> Arc<Self> {
        Arc::new(ManualClock { began, state: Mutex::default() })
    }

    /// Moves on, and wakes who slept until then.
    pub fn advance(&self, time: Duration) {
        let mut state = self.state();
        state.elapsed += time;
        let now = state.elapsed;
        let sleepers = mem::take(&mut state.sleepers);
        let (mut due, later): (Vec<_>, Vec<_>) = sleepers.into_iter().partition(|sleeper| sleeper.until <= now);
        state.sleepers = later;
        drop(state);
        due.sort_by_key(|sleeper| sleeper.until);
        for sleeper in due {
            // Who no longer waits needs no waking.
            let _ = sleeper.wake.send(());
        }
    }

    fn sleeper(&self, time: Duration) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        let mut state = self.state();
        let until = state.elapsed + time;
        state.sleepers.retain(|sleeper| !sleeper.wake.is_closed());
        state.sleepers.push(Sleeper { until, wake });
        woken
    }

    fn state(&self) -> MutexGuard<'_, Moved> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.elapsed()).unwrap_or(SignedDuration::MAX);
        self.began.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.state().elapsed
    }

    async fn sleep(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        // The sender lives as long as the clock.
        let _ = self.sleeper(time).await;
    }
}

/// One invocation: when it began and when Lambda will end it.
#[derive(Clone)]
pub struct Call {
    clock: Arc<dyn Clock>,
    began: Duration,
    allowed: Duration,
}

impl Call {
    /// A call that may take `allowed` from now on.
    pub fn new(clock: Arc<dyn Clock>, allowed: Duration) -> Self {
        Call { began: clock.elapsed(), clock, allowed }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn took(&self) -> Duration {
        self.clock.elapsed().saturating_sub(self.began)
    }

    pub fn left(&self) -> Duration {
        self.allowed.saturating_sub(self.took())
    }

    /// Time to stop, keep what is done and ask to be called again: a fifth of the time is left, at most a minute of it.
    pub fn is_ending(&self) -> bool {
        self.left() < (self.allowed / 5).min(Duration::from_secs(60))
    }

    /// The same call, as though Lambda ended it `margin` earlier: for work that must leave time for what follows.
    pub fn shorter_by(&self, margin: Duration) -> Self {
        Call { allowed: self.allowed.saturating_sub(margin), ..self.clone() }
    }

    pub async fn sleep(&self, time: Duration) {
        self.clock.sleep(time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_ends_when_a_fifth_of_its_time_is_left_or_a_minute() {
        for (allowed, last) in [(100, 80), (900, 840)] {
            let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
            clock.advance(Duration::from_secs(7));
            let call = Call::new(clock.clone(), Duration::from_secs(allowed));
            clock.advance(Duration::from_secs(last));
            assert!(!call.is_ending());
            clock.advance(Duration::from_millis(1));
            assert!(call.is_ending());
            clock.advance(Duration::from_secs(2 * allowed));
            assert_eq!((call.left(), call.now().as_second()), (Duration::ZERO, (7 + last + 2 * allowed) as i64));
        }
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_moved_and_not_before() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let sleeper = clock.clone();
        let sleeping = tokio::spawn(async move { sleeper.sleep(Duration::from_secs(10)).await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeping.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeping.await.expect("awake");
    }
}
