//! What no single write may do to a row of `message-tracking` or `windows`, told without a look at how the archive
//! decides. A history is held against these after each write, because most of what goes wrong on the way is repaired by
//! the run that looks last. The exploration of all small states ([`crate::states`]) is held against the same.

use alerts::{
    message::tracking::{Claim, Row, Status},
    window::record::{State, WindowRecord},
};
use jiff::Timestamp;

/// The row of a window, by run and window.
pub type WindowOf<'a> = &'a dyn Fn(&str, &str) -> Option<WindowRecord>;

/// The attempt that made the claim can still write: it may register an intent, or has registered one that is not
/// carried out.
fn holds(claim: &Claim, window_of: WindowOf) -> bool {
    let window = window_of(&claim.run_id, &claim.window_id);
    window.is_some_and(|window| window.fence.attempt <= claim.attempt && window.status != State::Completed)
}

fn claim_of(row: &Row) -> Claim {
    Claim { run_id: row.run_id.clone(), window_id: row.window_id.clone(), attempt: row.attempt }
}

fn is_of_one_window(left: &Claim, right: &Claim) -> bool {
    left.run_id == right.run_id && left.window_id == right.window_id
}

/// What a write of a message's row breaks. `is_behind`: the source had what the first row describes before what the
/// second does.
pub fn of_row(
    before: Option<&Row>,
    after: &Row,
    window_of: WindowOf,
    is_behind: impl Fn(&Row, &Row) -> bool,
) -> Vec<&'static str> {
    let mut broken = Vec::new();
    let mut must = |holds: bool, what| {
        if !holds {
            broken.push(what);
        }
    };
    let author = claim_of(after);
    must(after.revision == before.map_or(0, |row| row.revision) + 1, "it changed since it was read");
    must(after.status != Status::Processing || after.claim.is_some(), "nobody is at work on what is Processing");
    must(after.status != Status::Pending || after.claim.is_none(), "what is Pending is claimed");
    must(after.status != Status::Pending || after.staging.is_some() || after.gone_at.is_some(), "Pending, not staged");
    must(after.claim.as_ref().is_none_or(|claim| *claim == author), "it is claimed for another");
    let completes = after.status == Status::Completed && after.claim.is_none() && after.s3_path.is_some();
    must(after.status != Status::Completed || after.s3_path.is_some(), "Completed without an object");
    let Some(before) = before else {
        must(!completes, "Completed, and never claimed");
        return broken;
    };
    let earlier = claim_of(before);
    must(!is_of_one_window(&earlier, &author) || earlier.attempt <= author.attempt, "by a superseded attempt");
    must(before.status != Status::Completed || after.status == Status::Completed, "it was Completed");
    must(before.inserted_at == after.inserted_at, "inserted_at changed");
    must(before.first_seen_open.is_none() || before.first_seen_open == after.first_seen_open, "its age changed");
    // What was claimed and never written may be lost with its claim: its window failed. Of what is gone, all is
    // welcome.
    let may_be_lost = before.status == Status::Processing || before.gone_at.is_some();
    must(may_be_lost || !is_behind(after, before), "an earlier reading undoes a later one");
    let is_new_object = completes && before.s3_path != after.s3_path;
    match &before.claim {
        None => {
            let is_amended = earlier == author;
            must(!is_new_object || is_amended, "Completed, and not claimed");
        }
        Some(claim) if after.claim.as_ref() != Some(claim) => {
            let is_completed = completes && author == *claim;
            let later_attempt = is_of_one_window(claim, &author) && claim.attempt < author.attempt;
            must(is_completed || !holds(claim, window_of), "taken from an attempt that can still write");
            // An operator's repair leaves the row in the name of the attempt that staged it.
            let is_marked = after.is_gone_unwritten();
            let is_given_up = is_of_one_window(claim, &author) && !is_completed && !later_attempt && !is_marked;
            must(!is_given_up, "given up by its own attempt");
            must(!is_new_object || is_completed, "Completed, and claimed by another");
            if is_completed {
                let window = window_of(&claim.run_id, &claim.window_id);
                let is_meant = window.is_some_and(|window| {
                    matches!(window.status, State::Prepared | State::Completed) && window.fence.attempt == claim.attempt
                });
                must(is_meant, "Completed without an intent");
            }
        }
        Some(_) => {}
    }
    broken
}

/// What a window leaves alone of the closed messages that it read: they are archived in that version or a newer one, or
/// a later reading knows why they wait. `is_behind`: the version of the row is older than the one that was read.
pub fn of_what_is_left(row: Option<&Row>, is_behind: impl Fn(&str) -> bool) -> Option<&'static str> {
    let Some(row) = row else { return Some("left alone, and it has no row") };
    let is_archived = row.status == Status::Completed && !is_behind(&row.version);
    let waits = row.staging.is_some() || row.gone_at.is_some();
    (!is_archived && !waits).then_some("left alone as archived, and it is not")
}

/// What a write of a window's row breaks. `claimed`: rows that its attempt has claimed; `meant`: documents that the
/// intent writes.
pub fn of_window(
    before: Option<&WindowRecord>,
    after: &WindowRecord,
    claimed: usize,
    meant: impl FnOnce(&str) -> Option<usize>,
    now: Timestamp,
) -> Vec<&'static str> {
    let mut broken = Vec::new();
    let mut must = |holds: bool, what| {
        if !holds {
            broken.push(what);
        }
    };
    must(after.revision == before.map_or(0, |row| row.revision) + 1, "it changed since it was read");
    let Some(before) = before else {
        must(after.status == State::Planned, "it was not planned");
        return broken;
    };
    let (from, to) = (before.status, after.status);
    let (earlier, later) = (before.fence.attempt, after.fence.attempt);
    must(later == earlier || later == earlier + 1, "attempts do not count");
    must(from != State::Completed, "it was Completed");
    must(from != State::Skipped, "it was skipped");
    let begins = to == State::Running && later > earlier;
    must(from != State::Abandoned || begins || to == State::Skipped, "its attempt was fenced off");
    must(from != State::Planned || begins || matches!(to, State::Skipped | State::Failed), "no attempt had begun");
    let is_set_aside = matches!(to, State::Skipped | State::Abandoned);
    must(to == from || !is_set_aside || later > earlier, "set aside, and its attempt goes on");
    // What its expired spool leaves of an intent is ended: an empty intent came before, and fences off who is at work.
    let is_ended = from == State::Prepared && to == State::Abandoned && after.ended == before.ended + 1;
    let is_free = is_ended || before.fence.lease_until <= now;
    must(to != State::Abandoned || from == State::Abandoned || is_free, "its lease lasts");
    if is_ended {
        must(later == earlier + 1 && after.intent_key.is_none(), "its intent is ended, and goes on");
    } else if from == State::Prepared {
        must(matches!(to, State::Prepared | State::Completed), "its intent was registered");
        must(later == earlier, "its intent is another attempt's");
        let is_same = before.intent_key == after.intent_key;
        let folder = |key: &Option<String>| key.as_deref().and_then(|key| Some(key.rsplit_once('/')?.0.to_owned()));
        // Amended, it stands beside the first.
        must(is_same || folder(&before.intent_key) == folder(&after.intent_key), "its intent was replaced");
    } else if to == State::Prepared {
        must(later == earlier && matches!(from, State::Running | State::Failed), "its attempt does not run");
        let meant = after.intent_key.as_deref().and_then(meant);
        must(meant == Some(claimed), "its intent is not what its attempt has claimed");
    }
    if to == State::Completed {
        must(from == State::Prepared, "nothing was registered");
        must(claimed == 0, "rows of it are not completed");
        must(after.messages.reconciled(), "its counts do not add up");
    }
    broken
}
