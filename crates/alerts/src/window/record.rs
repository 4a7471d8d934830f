//! How a window of a run may change. Registering the intent is the one decisive moment: before it another run may take
//! the window's messages over; after it the window can only be finished. Attempts and leases are those of `ledger`; a
//! window has more states than [`ledger::Work`], because it is planned before it is claimed and an operator may skip
//! it.

use crate::counts::{Bytes, Messages, Tally};
use crate::message::classification::Reason;
use crate::mode::Mode;
use crate::window::plan::Window;
use identity::instant;
use jiff::{SignedDuration, Timestamp};
use ledger::{Fence, Keyed, Superseded};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long after its last sign of life a window counts as alive. The lease only avoids contention. Safety comes from
/// fencing: a superseded attempt cannot register an intent.
pub const LEASE: SignedDuration = SignedDuration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    Planned,
    /// An attempt queries, classifies or claims.
    Running,
    /// Classified, and left so on purpose (mode `extract`).
    Classified,
    /// The intent is registered: every executor that meets it carries it out.
    Prepared,
    Completed,
    Failed,
    /// Another run needed its messages after its lease was over, and fenced its attempt off.
    Abandoned,
    /// Set aside by an operator, with a reason, because it kept failing.
    Skipped,
}

/// A row of `windows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowRecord {
    pub run_id: String,
    pub window_id: String,
    pub status: State,
    pub mode: Mode,
    /// The attempt that may act, and until when no other run takes its claims.
    #[serde(flatten)]
    pub fence: Fence,
    #[serde(with = "instant::serde_iso")]
    pub updated_at: Timestamp,
    /// When its last attempt began to read the source.
    #[serde(default, with = "crate::message::tracking::optional_iso", skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Timestamp>,
    /// The step that began last.
    #[serde(default)]
    pub step: String,
    pub window: Window,
    #[serde(default)]
    pub messages: Messages,
    #[serde(default)]
    pub bytes: Bytes,
    /// Quarantined messages by reason.
    #[serde(default)]
    pub reasons: BTreeMap<String, u64>,
    /// Messages whose rows were moved to the index that took the place of theirs.
    #[serde(default, skip_serializing_if = "crate::message::entry::is_zero")]
    pub moved: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent_key: Option<String>,
    /// All objects of the intent are written, and earlier versions of its messages leave theirs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_committing: bool,
    /// Intents of it that were ended because their spool had expired.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ended: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub revision: u64,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Why a step must not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("attempt {attempt} of window {window_id} was replaced by attempt {current}")]
    Superseded { window_id: String, attempt: u64, current: u64 },
    #[error("window {window_id} of run {run_id} may be at work until {until}")]
    Busy { run_id: String, window_id: String, until: String },
    #[error("window {window_id} of run {run_id} was abandoned: another run needed its messages")]
    Abandoned { run_id: String, window_id: String },
    #[error("window {window_id} of run {run_id} is not in the plan")]
    Unknown { run_id: String, window_id: String },
}

/// What a new attempt has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Begin {
    /// Query the source, as this attempt.
    Query { attempt: u64 },
    /// Its intent stands: only finish it.
    Finish { attempt: u64 },
    /// Nothing: it is committed.
    Nothing { attempt: u64 },
}

impl Keyed for WindowRecord {
    const PARTITION: &'static str = "run_id";
    const SORT: Option<&'static str> = Some("window_id");

    fn key(&self) -> (String, Option<String>) {
        (self.run_id.clone(), Some(self.window_id.clone()))
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn revised(self, revision: u64) -> Self {
        WindowRecord { revision, ..self }
    }
}

impl WindowRecord {
    pub fn planned(run_id: &str, mode: Mode, window: Window, now: Timestamp) -> Self {
        WindowRecord {
            run_id: run_id.to_owned(),
            window_id: window.window_id.clone(),
            status: State::Planned,
            mode,
            fence: Fence::new(now),
            updated_at: now,
            began_at: None,
            step: String::new(),
            window,
            messages: Messages::default(),
            bytes: Bytes::default(),
            reasons: BTreeMap::new(),
            moved: 0,
            intent_key: None,
            is_committing: false,
            ended: 0,
            manifest_key: None,
            error: None,
            message: None,
            revision: 1,
        }
    }

    /// A new attempt of the same run needs not wait for the lease: its number fences the older one off.
    pub fn begin(&self, step: &str, now: Timestamp) -> (Self, Begin) {
        let mut next = self.step(step, now);
        match self.status {
            State::Completed | State::Skipped => (self.clone(), Begin::Nothing { attempt: self.fence.attempt }),
            State::Prepared => (next, Begin::Finish { attempt: self.fence.attempt }),
            _ => {
                next.status = State::Running;
                next.fence = self.fence.next(now, LEASE);
                next.began_at = Some(now);
                let attempt = next.fence.attempt;
                (next, Begin::Query { attempt })
            }
        }
    }

    /// The same attempt goes on with a step.
    pub fn proceed(&self, attempt: u64, step: &str, now: Timestamp) -> Result<Self, Refused> {
        self.owned(attempt)?;
        Ok(match self.status {
            State::Completed | State::Skipped => self.clone(),
            State::Prepared => self.step(step, now),
            _ => WindowRecord { status: State::Running, ..self.step(step, now) },
        })
    }

    /// What classification found. In mode `extract` the window rests there.
    pub fn classified(&self, attempt: u64, tally: Tally, now: Timestamp) -> Result<Self, Refused> {
        self.owned(attempt)?;
        if matches!(self.status, State::Prepared | State::Completed | State::Skipped) {
            // A call that comes late: what counts is the intent.
            return Ok(self.clone());
        }
        let Tally { messages, reasons } = tally;
        let mut next = WindowRecord { messages, reasons, updated_at: now, ..self.clone() };
        if self.mode == Mode::Extract {
            next.status = State::Classified;
            next.fence = self.fence.end(now);
        }
        Ok(next)
    }

    /// Registers the intent.
    pub fn prepare(&self, attempt: u64, intent_key: String, now: Timestamp) -> Result<Self, Refused> {
        self.owned(attempt)?;
        if matches!(self.status, State::Prepared | State::Completed) {
            return Ok(self.clone());
        }
        if self.status == State::Skipped {
            return Err(Refused::Abandoned { run_id: self.run_id.clone(), window_id: self.window_id.clone() });
        }
        Ok(WindowRecord { status: State::Prepared, intent_key: Some(intent_key), updated_at: now, ..self.clone() })
    }

    /// Puts an amended intent in the place of the one that stands, unless that has changed or is carried out.
    /// `excluded`: documents that go into quarantine by it. That is too late once the intent is committed: an executor
    /// of it may take their earlier versions out of the archive at any time from then on. An intent is ended all the
    /// same.
    pub fn amend(&self, before: &str, after: String, excluded: u64, now: Timestamp) -> Self {
        let is_too_late = self.is_committing && excluded > 0;
        if self.status != State::Prepared || self.intent_key.as_deref() != Some(before) || is_too_late {
            return self.clone();
        }
        let mut next = WindowRecord { intent_key: Some(after), updated_at: now, ..self.clone() };
        if excluded > 0 {
            *next.reasons.entry(Reason::ByOperator.as_str().to_owned()).or_default() += excluded;
        }
        next
    }

    /// All objects of this intent are written. Unchanged when another one stands by now.
    pub fn commit(&self, intent: &str, now: Timestamp) -> Self {
        let stands = self.status == State::Prepared && self.intent_key.as_deref() == Some(intent);
        if self.is_committing || !stands {
            return self.clone();
        }
        WindowRecord { is_committing: true, updated_at: now, ..self.clone() }
    }

    /// The spool of the registered intent has expired, so that it cannot be carried out. What it had written is
    /// completed; the rest was never written, and its claims are over with the attempt. A new attempt reads the window
    /// anew.
    pub fn end_intent(&self, key: &str, now: Timestamp) -> Self {
        if self.status != State::Prepared || self.intent_key.as_deref() != Some(key) {
            return self.clone();
        }
        WindowRecord {
            status: State::Abandoned,
            intent_key: None,
            is_committing: false,
            ended: self.ended + 1,
            fence: self.fence.next(now, LEASE).end(now),
            error: Some("ObjectMissing".to_owned()),
            message: Some("its spool had expired; what was written of it is completed".to_owned()),
            updated_at: now,
            ..self.clone()
        }
    }

    /// All of this intent is carried out. Unchanged when another one stands by now: it was amended, or ended, and then
    /// the window is read anew.
    pub fn complete(
        &self,
        intent: Option<&str>,
        messages: Messages,
        bytes: Bytes,
        manifest_key: Option<String>,
        now: Timestamp,
    ) -> Self {
        if self.status == State::Completed || self.intent_key.as_deref() != intent {
            return self.clone();
        }
        WindowRecord {
            status: State::Completed,
            is_committing: false,
            messages,
            bytes,
            manifest_key,
            fence: self.fence.end(now),
            updated_at: now,
            error: None,
            message: None,
            ..self.clone()
        }
    }

    /// Notes why an attempt ended. A registered intent stays registered.
    pub fn fail(&self, attempt: u64, error: &str, message: String, now: Timestamp) -> Result<Self, Refused> {
        self.owned(attempt)?;
        let status = match self.status {
            State::Completed | State::Skipped => return Ok(self.clone()),
            State::Prepared => self.status,
            _ => State::Failed,
        };
        let (error, message) = (Some(error.to_owned()), Some(message));
        Ok(WindowRecord { status, error, message, fence: self.fence.end(now), updated_at: now, ..self.clone() })
    }

    /// An operator sets the window aside. One whose intent is registered can only be finished, and is not skipped.
    pub fn skip(&self, reason: &str, now: Timestamp) -> Option<Self> {
        let is_open = matches!(self.status, State::Failed | State::Planned | State::Running | State::Abandoned);
        is_open.then(|| WindowRecord {
            status: State::Skipped,
            error: Some("WindowSkipped".to_owned()),
            message: Some(reason.to_owned()),
            fence: self.fence.next(now, LEASE).end(now),
            updated_at: now,
            ..self.clone()
        })
    }

    /// The window is wanted again.
    pub fn resume(&self, now: Timestamp) -> Option<Self> {
        (self.status == State::Skipped).then(|| WindowRecord { status: State::Failed, updated_at: now, ..self.clone() })
    }

    /// Another run needs messages that this window has claimed, and fences its attempt off, unless that may be alive.
    pub fn abandon(&self, now: Timestamp) -> Result<Self, Refused> {
        if self.fence.is_alive(now) {
            let until = instant::iso(self.fence.lease_until);
            return Err(Refused::Busy { run_id: self.run_id.clone(), window_id: self.window_id.clone(), until });
        }
        let fence = self.fence.next(now, LEASE).end(now);
        Ok(WindowRecord { status: State::Abandoned, fence, updated_at: now, ..self.clone() })
    }

    /// Claims of this attempt hold nothing any more: it registers no intent, and has none that is not carried out.
    pub fn is_over(&self, attempt: u64) -> bool {
        self.fence.attempt > attempt || self.status == State::Completed
    }

    /// The attempt is alive.
    pub fn renew(&self, attempt: u64, now: Timestamp) -> Result<Self, Refused> {
        self.owned(attempt)?;
        let is_at_work = matches!(self.status, State::Running | State::Prepared);
        let fence = if is_at_work { self.fence.renew(now, LEASE) } else { self.fence };
        Ok(WindowRecord { fence, ..self.clone() })
    }

    fn step(&self, step: &str, now: Timestamp) -> Self {
        let (step, fence) = (step.to_owned(), self.fence.renew(now, LEASE));
        WindowRecord { step, fence, updated_at: now, error: None, message: None, ..self.clone() }
    }

    fn owned(&self, attempt: u64) -> Result<(), Refused> {
        if self.status == State::Abandoned {
            return Err(Refused::Abandoned { run_id: self.run_id.clone(), window_id: self.window_id.clone() });
        }
        let superseded = |Superseded { attempt, current }| Refused::Superseded {
            window_id: self.window_id.clone(),
            attempt,
            current,
        };
        self.fence.check(attempt).map_err(superseded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn running() -> WindowRecord {
        let planned = WindowRecord::planned("r1", Mode::Range, Window::new(at(0), at(60), 1), at(0));
        planned.begin("query-messages", at(0)).0
    }

    #[test]
    fn a_later_attempt_fences_the_earlier_one_off() {
        let (second, begin) = running().begin("query-messages", at(10));
        assert_eq!(begin, Begin::Query { attempt: 2 });
        assert_eq!(
            (running().began_at, second.began_at),
            (Some(at(0)), Some(at(10))),
            "a window's time is its last attempt's"
        );
        assert!(matches!(
            second.prepare(1, "k".into(), at(11)),
            Err(Refused::Superseded { attempt: 1, current: 2, .. })
        ));
    }

    #[test]
    fn a_registered_intent_is_only_ever_finished() {
        let prepared = running().prepare(1, "k".into(), at(5)).expect("prepared");
        let failed = prepared.fail(1, "StoreUnavailable", "no".into(), at(6)).expect("failed");
        assert_eq!(failed.status, State::Prepared);
        assert_eq!(failed.begin("query-messages", at(7)).1, Begin::Finish { attempt: 1 });
    }

    #[test]
    fn an_intent_is_amended_only_while_it_is_the_one_that_stands() {
        let prepared = running().prepare(1, "k".into(), at(5)).expect("prepared");
        let amended = prepared.amend("k", "k2".into(), 2, at(6));
        assert_eq!((amended.intent_key.as_deref(), amended.reasons.get("by_operator")), (Some("k2"), Some(&2)));
        assert_eq!(amended.amend("k", "k3".into(), 1, at(7)), amended);
        let done = prepared.complete(Some("k"), Messages::default(), Bytes::default(), None, at(6));
        assert_eq!(done.amend("k", "k2".into(), 1, at(7)), done);
    }

    #[test]
    fn an_intent_whose_spool_has_expired_ends_and_the_window_is_read_anew() {
        let prepared = running().prepare(1, "k".into(), at(5)).expect("prepared");
        assert_eq!(prepared.end_intent("another", at(6)), prepared);
        let ended = prepared.end_intent("k", at(6));
        assert_eq!((ended.status, &ended.intent_key, ended.ended), (State::Abandoned, &None, 1));
        assert!(ended.is_over(1) && ended.prepare(1, "k".into(), at(7)).is_err());
        assert_eq!(ended.begin("query-messages", at(7)).1, Begin::Query { attempt: 3 });
        let done = prepared.complete(Some("k"), Messages::default(), Bytes::default(), None, at(6));
        assert_eq!(done.end_intent("k", at(7)), done);
    }

    #[test]
    fn from_its_commit_on_an_intent_loses_no_document_and_can_still_be_ended() {
        let prepared = running().prepare(1, "k".into(), at(5)).expect("prepared");
        assert_eq!(prepared.commit("another", at(6)), prepared);
        let committing = prepared.commit("k", at(6));
        assert!(committing.is_committing);
        assert_eq!(committing.commit("k", at(7)), committing);
        assert_eq!(committing.amend("k", "k2".into(), 1, at(7)), committing);
        let ended = committing.amend("k", "k2".into(), 0, at(7));
        assert_eq!(ended.intent_key.as_deref(), Some("k2"));
        assert!(!ended.end_intent("k2", at(8)).is_committing);
        let amended = prepared.amend("k", "k2".into(), 1, at(6));
        assert_eq!(amended.commit("k", at(7)), amended);
    }

    #[test]
    fn an_executor_of_an_intent_that_no_longer_stands_completes_nothing() {
        let prepared = running().prepare(1, "k".into(), at(5)).expect("prepared");
        let complete = |row: &WindowRecord| row.complete(Some("k"), Messages::default(), Bytes::default(), None, at(9));
        assert_eq!(complete(&prepared).status, State::Completed);
        let amended = prepared.amend("k", "k2".into(), 1, at(6));
        let ended = prepared.end_intent("k", at(6));
        let read_anew = ended.begin("query-messages", at(7)).0;
        for row in [amended, ended, read_anew] {
            assert_eq!(complete(&row), row);
        }
    }

    #[test]
    fn a_skipped_window_is_left_alone_until_it_is_wanted_again() {
        let failed = running().fail(1, "CountMismatch", "no".into(), at(5)).expect("failed");
        let skipped = failed.skip("the index is damaged", at(6)).expect("skipped");
        assert_eq!(skipped.begin("query-messages", at(7)).1, Begin::Nothing { attempt: 2 });
        assert!(skipped.prepare(1, "k".into(), at(7)).is_err());
        assert_eq!(skipped.proceed(2, "classify-alerts", at(7)).expect("left alone").status, State::Skipped);
        let wanted = skipped.resume(at(8)).expect("wanted");
        assert!(wanted.prepare(1, "k".into(), at(8)).is_err(), "its messages may be another's by now");
        assert_eq!(wanted.begin("query-messages", at(9)).1, Begin::Query { attempt: 3 });
        assert_eq!(running().prepare(1, "k".into(), at(5)).expect("prepared").skip("too late", at(6)), None);
    }

    #[test]
    fn a_late_call_changes_nothing_of_a_window_that_is_prepared_or_completed() {
        let prepared = running().prepare(1, "k".into(), at(5)).expect("prepared");
        let messages = Messages { source: 7, archived: 7, ..Messages::default() };
        let completed = prepared.complete(Some("k"), messages, Bytes::default(), None, at(6));
        for record in [prepared, completed.clone()] {
            assert_eq!(record.classified(1, Tally::default(), at(7)).expect("left alone"), record);
        }
        assert_eq!(completed.fail(1, "StoreUnavailable", "late".into(), at(7)).expect("left alone"), completed);
    }

    #[test]
    fn attempt_and_lease_stand_beside_the_other_fields_of_a_row() {
        let row = serde_json::to_value(running()).expect("JSON");
        assert_eq!((&row["attempt"], &row["lease_until"]), (&1.into(), &"1970-01-01T00:00:30.000Z".into()));
        assert_eq!(serde_json::from_value::<WindowRecord>(row).expect("a row"), running());
    }

    #[test]
    fn a_window_is_abandoned_after_its_lease_and_not_before() {
        assert!(matches!(running().abandon(at(29)), Err(Refused::Busy { .. })));
        let renewed = running().renew(1, at(20)).expect("alive");
        assert!(matches!(renewed.abandon(at(49)), Err(Refused::Busy { .. })));
        let abandoned = renewed.abandon(at(50)).expect("abandoned");
        assert!(matches!(abandoned.prepare(1, "k".into(), at(51)), Err(Refused::Abandoned { .. })));
        assert!(matches!(abandoned.renew(1, at(51)), Err(Refused::Abandoned { .. })));
        assert!(abandoned.is_over(1) && !renewed.is_over(1));
        let (again, begin) = abandoned.begin("query-messages", at(52));
        assert_eq!((begin, again.is_over(2), again.is_over(3)), (Begin::Query { attempt: 3 }, true, false));
    }
}
