use identity::instant;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Which attempt may act, and until when it counts as alive. A part of [`Work`](crate::Work), and of rows that have
/// more states than that one knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Counts from 1; 0 when there was no attempt yet.
    pub attempt: u64,
    /// The lease only avoids contention; safety comes from the attempt's number.
    #[serde(with = "instant::serde_iso")]
    pub lease_until: Timestamp,
}

/// Another attempt has taken over: this one must stop and may not report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attempt {attempt} was superseded by attempt {current}")]
pub struct Superseded {
    pub attempt: u64,
    pub current: u64,
}

impl Fence {
    /// No attempt yet.
    pub fn new(now: Timestamp) -> Self {
        Fence { attempt: 0, lease_until: now }
    }

    /// A new attempt: every older one is fenced off from now on.
    pub fn next(self, now: Timestamp, lease: SignedDuration) -> Self {
        Fence { attempt: self.attempt + 1, lease_until: after(now, lease) }
    }

    pub fn check(self, attempt: u64) -> Result<(), Superseded> {
        if self.attempt == attempt { Ok(()) } else { Err(Superseded { attempt, current: self.attempt }) }
    }

    pub fn is_alive(self, now: Timestamp) -> bool {
        now < self.lease_until
    }

    /// A sign of life. A clock that runs behind never shortens the lease.
    pub fn renew(self, now: Timestamp, lease: SignedDuration) -> Self {
        Fence { lease_until: self.lease_until.max(after(now, lease)), ..self }
    }

    /// The attempt has ended: the next one need not wait.
    pub fn end(self, now: Timestamp) -> Self {
        Fence { lease_until: now, ..self }
    }
}

fn after(now: Timestamp, lease: SignedDuration) -> Timestamp {
    now.checked_add(lease).unwrap_or(Timestamp::MAX)
}
