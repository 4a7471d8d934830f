use crate::{Fence, Superseded};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Something that is sent once to a service that knows no keys, such as a mail: claimed before it is sent, marked
/// afterwards. A crash between the two can cost one duplicate, and the second sending knows that it may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    sent: bool,
    #[serde(flatten)]
    fence: Fence,
}

/// What a sender has to do. For `Now`, write the row first; when that write is refused, claim again on the row that
/// stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Send it, then [`Once::sent`]. `again`: an earlier sender died, and its mail may be out.
    Now { once: Once, again: bool },
    /// Nothing: it is out.
    Done,
    /// Another sender may be at work until then: come back later.
    Busy { until: Timestamp },
}

impl Once {
    pub fn claim(existing: Option<&Self>, now: Timestamp, lease: SignedDuration) -> Sending {
        match existing {
            None => Sending::Now { once: Once { sent: false, fence: Fence::new(now).next(now, lease) }, again: false },
            Some(once) if once.sent => Sending::Done,
            Some(once) if once.fence.is_alive(now) => Sending::Busy { until: once.fence.lease_until },
            Some(once) => Sending::Now { once: Once { fence: once.fence.next(now, lease), ..*once }, again: true },
        }
    }

    /// It is out. A superseded sender may not say so: the sender that took over sends again and marks it itself.
    pub fn sent(self, attempt: u64, now: Timestamp) -> Result<Self, Superseded> {
        self.fence.check(attempt)?;
        Ok(Once { sent: true, fence: self.fence.end(now) })
    }

    /// The service refused it, so that nothing went out: the claim is taken back, and `None` is to stand in its place.
    pub fn refused(self, attempt: u64, now: Timestamp) -> Result<Option<Self>, Superseded> {
        self.fence.check(attempt)?;
        // After a takeover an earlier mail may still be out: the mark of that must not be lost.
        Ok((attempt > 1).then_some(Once { fence: self.fence.end(now), ..self }))
    }

    pub fn attempt(&self) -> u64 {
        self.fence.attempt
    }

    pub fn is_sent(&self) -> bool {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: SignedDuration = SignedDuration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn first() -> Once {
        match Once::claim(None, at(0), LEASE) {
            Sending::Now { once, again: false } => once,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_sent_is_never_sent_again() {
        let sent = first().sent(1, at(1)).expect("its own");
        assert_eq!(Once::claim(Some(&sent), at(999), LEASE), Sending::Done);
    }

    #[test]
    fn a_sender_that_died_is_followed_by_one_that_says_so() {
        assert_eq!(Once::claim(Some(&first()), at(59), LEASE), Sending::Busy { until: at(60) });
        let Sending::Now { once, again } = Once::claim(Some(&first()), at(60), LEASE) else {
            panic!("the lease is over")
        };
        assert!(again);
        assert_eq!(once.sent(1, at(61)), Err(Superseded { attempt: 1, current: 2 }));
        assert!(once.sent(2, at(61)).expect("its own").is_sent());
    }

    #[test]
    fn a_refused_mail_is_tried_again_without_a_warning_unless_an_earlier_one_may_be_out() {
        assert_eq!(first().refused(1, at(1)), Ok(None));
        let Sending::Now { once, .. } = Once::claim(Some(&first()), at(60), LEASE) else { panic!("the lease is over") };
        let kept = once.refused(2, at(60)).expect("its own").expect("an earlier one may be out");
        assert!(matches!(Once::claim(Some(&kept), at(60), LEASE), Sending::Now { again: true, .. }));
    }
}
