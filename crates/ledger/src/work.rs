use crate::{Fence, Superseded};
use identity::instant;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkState {
    /// An attempt reads and plans; nothing has been written.
    Claimed,
    /// The intent is registered: every executor that claims the work carries it out.
    Prepared,
    /// Everything in the intent is written and verified.
    Done,
}

/// Why the last attempt ended early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A name of the errors' registry.
    pub error: String,
    pub message: String,
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
}

/// One piece of work: a part of a row, `I` being what it intends to write. Changed by the functions below only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work<I> {
    state: WorkState,
    #[serde(flatten)]
    fence: Fence,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    intent: Option<I>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(with = "instant::serde_iso")]
    updated_at: Timestamp,
}

fn none<I>() -> Option<I> {
    None
}

/// What an executor that wants to do a piece of work has to do. `Begin` and `Resume` hold the row to write first;
/// when that write is refused, claim again on the row that stands.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimOutcome<I> {
    /// Nothing was written before: plan, then [`Work::prepare`].
    Begin(Work<I>),
    /// An earlier attempt registered this intent and may have carried out a part: carry it out, then
    /// [`Work::complete`].
    Resume { work: Work<I>, intent: I },
    /// Nothing: it is done, by this intent. The row needs no write.
    Done(I),
    /// Another attempt may be at work until then: come back later. The row needs no write.
    Busy { until: Timestamp },
}

impl<I: Clone + PartialEq> Work<I> {
    /// Claims the work for a new attempt, unless it is done or another attempt is alive.
    pub fn claim(existing: Option<&Self>, now: Timestamp, lease: SignedDuration) -> ClaimOutcome<I> {
        let Some(work) = existing else {
            let fence = Fence::new(now).next(now, lease);
            return ClaimOutcome::Begin(Work {
                state: WorkState::Claimed,
                fence,
                intent: None,
                failure: None,
                updated_at: now,
            });
        };
        match (work.state, &work.intent) {
            (WorkState::Done, Some(intent)) => ClaimOutcome::Done(intent.clone()),
            _ if work.fence.is_alive(now) => ClaimOutcome::Busy { until: work.fence.lease_until },
            (WorkState::Prepared, Some(intent)) => {
                ClaimOutcome::Resume { work: work.taken_over(now, lease), intent: intent.clone() }
            }
            // Without an intent nothing was written, whatever the state says.
            _ => ClaimOutcome::Begin(Work { state: WorkState::Claimed, intent: None, ..work.taken_over(now, lease) }),
        }
    }

    fn taken_over(&self, now: Timestamp, lease: SignedDuration) -> Self {
        Work { fence: self.fence.next(now, lease), updated_at: now, ..self.clone() }
    }

    /// Registers the intent. Repeated with the same intent it changes nothing, so that a write whose response was lost
    /// can be tried again. An intent that is registered is never replaced: a different one is [`Superseded`] too.
    pub fn prepare(&self, attempt: u64, intent: I, now: Timestamp) -> Result<Self, Superseded> {
        self.fence.check(attempt)?;
        match &self.intent {
            None => Ok(Work { state: WorkState::Prepared, intent: Some(intent), updated_at: now, ..self.clone() }),
            Some(registered) if *registered == intent => Ok(self.clone()),
            Some(_) => Err(Superseded { attempt, current: self.fence.attempt }),
        }
    }

    /// Everything in the intent is written and verified. Work without an intent cannot be completed: one that has
    /// nothing to write registers an empty intent.
    pub fn complete(&self, attempt: u64, now: Timestamp) -> Result<Self, Superseded> {
        self.fence.check(attempt)?;
        match self.state {
            WorkState::Claimed => Err(Superseded { attempt, current: self.fence.attempt }),
            WorkState::Done => Ok(self.clone()),
            WorkState::Prepared => {
                let fence = self.fence.end(now);
                Ok(Work { state: WorkState::Done, fence, failure: None, updated_at: now, ..self.clone() })
            }
        }
    }

    /// A sign of life of a long attempt: call it every third of the lease.
    pub fn renew(&self, attempt: u64, now: Timestamp, lease: SignedDuration) -> Result<Self, Superseded> {
        self.fence.check(attempt)?;
        match self.state {
            WorkState::Done => Ok(self.clone()),
            _ => Ok(Work { fence: self.fence.renew(now, lease), updated_at: now, ..self.clone() }),
        }
    }

    /// Notes why the attempt ends, and ends its lease: the next attempt need not wait. A registered intent stays.
    pub fn fail(&self, attempt: u64, error: &str, message: &str, now: Timestamp) -> Result<Self, Superseded> {
        self.fence.check(attempt)?;
        if self.state == WorkState::Done {
            return Ok(self.clone());
        }
        let failure = Some(Failure { error: error.to_owned(), message: message.to_owned(), at: now });
        Ok(Work { fence: self.fence.end(now), failure, updated_at: now, ..self.clone() })
    }

    pub fn state(&self) -> WorkState {
        self.state
    }

    /// The number of the attempt that may act.
    pub fn attempt(&self) -> u64 {
        self.fence.attempt
    }

    pub fn lease_until(&self) -> Timestamp {
        self.fence.lease_until
    }

    pub fn intent(&self) -> Option<&I> {
        self.intent.as_ref()
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEASE: SignedDuration = SignedDuration::from_secs(30);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn begun() -> Work<&'static str> {
        match Work::claim(None, at(0), LEASE) {
            ClaimOutcome::Begin(work) => work,
            other => panic!("{other:?}"),
        }
    }

    fn prepared() -> Work<&'static str> {
        begun().prepare(1, "plan", at(1)).expect("the first attempt")
    }

    #[test]
    fn work_that_is_claimed_is_busy_until_its_lease_is_over_and_then_begins_anew() {
        let claim = |second| Work::claim(Some(&begun()), at(second), LEASE);
        assert_eq!(claim(29), ClaimOutcome::Busy { until: at(30) });
        let ClaimOutcome::Begin(second) = claim(30) else { panic!("the lease is over") };
        assert_eq!((second.attempt(), second.state(), second.lease_until()), (2, WorkState::Claimed, at(60)));
    }

    #[test]
    fn a_superseded_attempt_can_do_nothing() {
        let ClaimOutcome::Resume { work, .. } = Work::claim(Some(&prepared()), at(99), LEASE) else {
            panic!("prepared")
        };
        let refused = Err(Superseded { attempt: 1, current: 2 });
        assert_eq!(work.prepare(1, "plan", at(100)), refused);
        assert_eq!(work.complete(1, at(100)), refused);
        assert_eq!(work.renew(1, at(100), LEASE), refused);
        assert_eq!(work.fail(1, "StoreUnavailable", "", at(100)), refused);
        assert!(work.complete(2, at(100)).is_ok());
    }

    #[test]
    fn a_registered_intent_is_never_replaced() {
        assert_eq!(prepared().prepare(1, "plan", at(2)), Ok(prepared()));
        assert!(prepared().prepare(1, "another", at(2)).is_err());
        let failed = prepared().fail(1, "StoreUnavailable", "no response", at(3)).expect("its own");
        assert_eq!(failed.failure().map(|failure| failure.error.as_str()), Some("StoreUnavailable"));
        assert!(matches!(Work::claim(Some(&failed), at(3), LEASE), ClaimOutcome::Resume { intent: "plan", .. }));
    }

    #[test]
    fn nothing_is_completed_that_was_not_prepared() {
        assert!(begun().complete(1, at(1)).is_err());
    }

    #[test]
    fn done_work_stays_done_and_keeps_its_intent() {
        let done = prepared().complete(1, at(2)).expect("its own");
        assert_eq!(Work::claim(Some(&done), at(500), LEASE), ClaimOutcome::Done("plan"));
        assert_eq!(done.fail(1, "StoreUnavailable", "late", at(3)), Ok(done.clone()));
        assert_eq!(done.renew(1, at(3), LEASE), Ok(done.clone()));
        assert_eq!(done.complete(1, at(3)), Ok(done));
    }

    #[test]
    fn a_row_is_the_same_after_json() {
        let rows = [begun(), prepared(), prepared().fail(1, "CountMismatch", "3 of 4", at(3)).expect("its own")];
        for row in rows.map(|work| Work::<String> {
            state: work.state,
            fence: work.fence,
            intent: work.intent.map(str::to_owned),
            failure: work.failure,
            updated_at: work.updated_at,
        }) {
            let json = serde_json::to_string(&row).expect("JSON");
            assert_eq!(serde_json::from_str::<Work<String>>(&json).expect("a row"), row, "{json}");
        }
        let json = serde_json::to_value(begun()).expect("JSON");
        assert_eq!(json["lease_until"], "1970-01-01T00:00:30.000Z");
        assert_eq!(json["attempt"], 1);
    }

    /// What an executor does next, on the row as it read it earlier or reads it now.
    #[derive(Clone, Debug)]
    enum Act {
        Claim,
        Prepare,
        Write,
        Complete,
        Renew,
        Fail,
        /// Reads the row, and acts on it later.
        Read,
        Wait(i64),
    }

    fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
        let act = prop_oneof![
            3 => Just(Act::Claim),
            3 => Just(Act::Prepare),
            3 => Just(Act::Write),
            2 => Just(Act::Complete),
            1 => Just(Act::Renew),
            1 => Just(Act::Fail),
            3 => Just(Act::Read),
            2 => (1i64..40).prop_map(Act::Wait),
        ];
        proptest::collection::vec((0usize..3, act), 1..120)
    }

    /// An executor: what it read last, the attempt it holds, and the intent it carries out.
    #[derive(Clone, Default)]
    struct Executor {
        read: Option<(u64, Option<Work<u64>>)>,
        attempt: Option<u64>,
        intent: Option<u64>,
    }

    proptest! {
        /// Three executors act in any order, on rows that may be stale; a write is refused when the revision moved on.
        /// Each attempt would plan something else (its own number), so that two plans would show.
        #[test]
        fn only_one_intent_is_ever_written_and_done_means_that_it_was(acts in acts()) {
            let (mut row, mut revision): (Option<Work<u64>>, u64) = (None, 0);
            let mut executors = vec![Executor::default(); 3];
            let (mut now, mut written) = (at(0), std::collections::BTreeSet::new());
            let mut planned = 100;
            for (who, act) in acts {
                let me = &mut executors[who];
                let (seen, work) = match act {
                    Act::Wait(seconds) => {
                        now += SignedDuration::from_secs(seconds);
                        continue;
                    }
                    Act::Read => {
                        me.read = Some((revision, row.clone()));
                        continue;
                    }
                    Act::Write => {
                        written.extend(me.intent);
                        continue;
                    }
                    _ => me.read.take().unwrap_or_else(|| (revision, row.clone())),
                };
                let held = me.attempt.unwrap_or_default();
                let (mut attempt, mut intent) = (me.attempt, me.intent);
                let next = match (&act, &work) {
                    (Act::Claim, _) => match Work::claim(work.as_ref(), now, LEASE) {
                        ClaimOutcome::Begin(work) => {
                            (attempt, intent) = (Some(work.attempt()), None);
                            Some(work)
                        }
                        ClaimOutcome::Resume { work, intent: registered } => {
                            (attempt, intent) = (Some(work.attempt()), Some(registered));
                            Some(work)
                        }
                        ClaimOutcome::Done(_) | ClaimOutcome::Busy { .. } => None,
                    },
                    (Act::Prepare, Some(work)) => {
                        planned += 1;
                        let prepared = work.prepare(held, planned, now).ok();
                        if prepared.is_some() {
                            intent = Some(planned);
                        }
                        prepared
                    }
                    // An honest executor completes only what it has written.
                    (Act::Complete, Some(work)) if intent.is_some_and(|intent| written.contains(&intent)) => {
                        work.complete(held, now).ok()
                    }
                    (Act::Renew, Some(work)) => work.renew(held, now, LEASE).ok(),
                    (Act::Fail, Some(work)) => work.fail(held, "StoreUnavailable", "", now).ok(),
                    _ => None,
                };
                if let Some(next) = next
                    && seen == revision
                {
                    let before = row.replace(next);
                    revision += 1;
                    (me.attempt, me.intent) = (attempt, intent);
                    let after = row.as_ref().expect("just written");
                    prop_assert!(before.as_ref().is_none_or(|before| before.attempt() <= after.attempt()));
                    if let Some(before) = before.filter(|before| before.intent.is_some()) {
                        prop_assert_eq!(before.intent, after.intent, "an intent is for ever");
                        prop_assert!(before.state != WorkState::Done || after.state == WorkState::Done);
                    }
                }
                prop_assert!(written.len() <= 1, "two intents were written: {:?}", written);
                if let Some(work) = row.as_ref().filter(|work| work.state == WorkState::Done) {
                    prop_assert!(work.intent.is_some_and(|intent| written.contains(&intent)));
                }
            }
        }
    }
}
