//! Who may work on a log object: one attempt at a time, the newest version last, an unfinished intent first.

use crate::{Deps, Error};
use errors::{Named, describe};
use events::s3::ObjectEvent;
use jiff::{SignedDuration, Timestamp};
use ledger::{ClaimOutcome, Superseded, Work, WorkState};
use log_entries::{LogObject, ObjectVersion, VersionIntent};
use runtime::Call;

/// An attempt cannot live longer than its call.
const MARGIN: SignedDuration = SignedDuration::from_secs(10);

pub enum Claimed {
    /// This version or a later one is extracted.
    Done,
    Busy {
        until: Timestamp,
    },
    /// An attempt, perhaps on another version, died behind its decision.
    Resume {
        holder: Holder,
        intent: Box<VersionIntent>,
    },
    Begin {
        holder: Holder,
        before: Option<Box<ObjectVersion>>,
    },
}

/// The right to work on one version of an object.
pub struct Holder {
    pub key: String,
    pub sequencer: String,
    pub attempt: u64,
}

pub async fn claim(deps: &Deps, event: &ObjectEvent, call: &Call) -> Result<Claimed, Error> {
    let sequencer = event.sequencer.clone().unwrap_or_default();
    let (now, lease) = (call.now(), SignedDuration::try_from(call.left()).unwrap_or(SignedDuration::ZERO) + MARGIN);
    let mut claimed = Claimed::Done;
    let decide = |row: Option<&LogObject>| {
        let next = decided(row, &event.key, &sequencer, now, lease);
        claimed = next.0;
        Ok::<_, Error>(next.1)
    };
    deps.objects.update(&event.key, None, decide).await?;
    Ok(claimed)
}

/// What to do about an event on an object whose row is `row`, and the row to write first.
fn decided(
    row: Option<&LogObject>,
    key: &str,
    sequencer: &str,
    now: Timestamp,
    lease: SignedDuration,
) -> (Claimed, Option<LogObject>) {
    let current = row.and_then(|row| row.current.clone());
    if current.as_ref().is_some_and(|current| current.sequencer.as_str() >= sequencer) {
        return (Claimed::Done, None);
    }
    let holder = |sequencer: &str, attempt| Holder { key: key.to_owned(), sequencer: sequencer.to_owned(), attempt };
    let unfinished = row.and_then(|row| row.work.as_ref()).filter(|work| work.state() != WorkState::Done);
    let claimed = row.and_then(|row| row.claimed.as_deref()).unwrap_or_default();
    let next = |sequencer: &str, work| LogObject {
        object: key.to_owned(),
        current: current.clone(),
        claimed: Some(sequencer.to_owned()),
        work: Some(work),
        not_read_on: current.as_ref().and_then(ObjectVersion::not_read_on),
        extractions: row.map(|row| row.extractions.clone()).unwrap_or_default(),
        extracted_on: row.and_then(|row| row.extracted_on),
        revision: 0,
    };
    match Work::claim(unfinished, now, lease) {
        // Work that is done was filtered out above.
        ClaimOutcome::Done(_) => (Claimed::Done, None),
        ClaimOutcome::Busy { until } => (Claimed::Busy { until }, None),
        ClaimOutcome::Resume { work, intent } => (
            Claimed::Resume { holder: holder(claimed, work.attempt()), intent: Box::new(intent) },
            Some(next(claimed, work)),
        ),
        ClaimOutcome::Begin(work) => {
            let holder = holder(sequencer, work.attempt());
            (Claimed::Begin { holder, before: current.clone().map(Box::new) }, Some(next(sequencer, work)))
        }
    }
}

impl Holder {
    /// From here on this intent is carried out, by whichever executor.
    pub async fn prepare(&self, deps: &Deps, intent: &VersionIntent, call: &Call) -> Result<(), Error> {
        self.change(deps, |row, work| {
            Ok(LogObject { work: Some(work.prepare(self.attempt, intent.clone(), call.now())?), ..row })
        })
        .await
    }

    /// The intent is carried out.
    pub async fn complete(&self, deps: &Deps, intent: &VersionIntent, call: &Call) -> Result<(), Error> {
        self.change(deps, |row, work| {
            let work = Some(work.complete(self.attempt, call.now())?);
            Ok(LogObject { work, ..row }.with_current(intent.version.clone(), call.now()))
        })
        .await
    }

    pub async fn fail(&self, deps: &Deps, error: &Error, call: &Call) -> Result<(), Error> {
        let (name, message) = (error.name().as_str(), describe(error));
        self.change(deps, |row, work| {
            Ok(LogObject { work: Some(work.fail(self.attempt, name, &message, call.now())?), ..row })
        })
        .await
    }

    async fn change(
        &self,
        deps: &Deps,
        change: impl Fn(LogObject, &Work<VersionIntent>) -> Result<LogObject, Superseded>,
    ) -> Result<(), Error> {
        let gone = Superseded { attempt: self.attempt, current: 0 };
        let superseded = |source| Error::Superseded { key: self.key.clone(), source };
        let decide = |row: Option<&LogObject>| {
            let row = row.filter(|row| row.claimed.as_deref() == Some(self.sequencer.as_str()));
            let (row, work) = row.and_then(|row| Some((row, row.work.as_ref()?))).ok_or_else(|| superseded(gone))?;
            change(row.clone(), work).map(Some).map_err(superseded)
        };
        deps.objects.update(&self.key, None, decide).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: SignedDuration = SignedDuration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn intent(sequencer: &str) -> VersionIntent {
        let version = ObjectVersion {
            sequencer: sequencer.into(),
            version_id: None,
            at: Timestamp::UNIX_EPOCH,
            lines: 1,
            bytes: 1,
            entries: 0,
            unparsed: 0,
            unlisted: 0,
            damaged: None,
            parts: vec![],
            part_name: None,
            contributions: String::new(),
        };
        VersionIntent { version, attempt: 1, before: None }
    }

    fn begun(row: Option<&LogObject>, sequencer: &str, now: i64) -> LogObject {
        match decided(row, "k", sequencer, at(now), LEASE) {
            (Claimed::Begin { .. }, Some(row)) => row,
            _ => panic!("not to be begun"),
        }
    }

    #[test]
    fn a_dead_attempt_is_taken_over_and_its_decision_comes_first() {
        let first = begun(None, "1", 0);
        assert!(matches!(decided(Some(&first), "k", "2", at(59), LEASE).0, Claimed::Busy { .. }));
        // Nothing was decided: the later version is begun, and the attempts go on counting.
        let second = begun(Some(&first), "2", 60);
        assert_eq!(second.work.as_ref().map(Work::attempt), Some(2));
        let work = second.work.clone().expect("work").prepare(2, intent("2"), at(61)).expect("its own");
        let prepared = LogObject { work: Some(work), ..second };
        let (Claimed::Resume { holder, intent }, _) = decided(Some(&prepared), "k", "3", at(500), LEASE) else {
            panic!("decided")
        };
        assert_eq!((holder.sequencer.as_str(), intent.version.sequencer.as_str()), ("2", "2"));
    }

    #[test]
    fn an_event_that_is_older_than_what_is_extracted_is_done() {
        let row = LogObject {
            object: "k".into(),
            current: Some(intent("5").version),
            claimed: None,
            work: None,
            not_read_on: None,
            extractions: vec![],
            extracted_on: None,
            revision: 1,
        };
        for sequencer in ["4", "5"] {
            assert!(matches!(decided(Some(&row), "k", sequencer, at(0), LEASE), (Claimed::Done, None)), "{sequencer}");
        }
        assert!(begun(Some(&row), "6", 0).current.is_some(), "readers still see the earlier version");
    }
}
