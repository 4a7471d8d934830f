//! Rounds of work, until every file is out or the call ends.

use crate::{
    Deps, Error,
    deliveries::{Delivery, Report},
    round::{Busy, OpenFile, Round, RoundError},
};
use runtime::Call;
use std::{collections::VecDeque, time::Duration};

/// How often in a row a round may be overtaken by another function.
const OVERTAKEN: usize = 5;

/// Between two looks at files that another function holds.
const LOOK: Duration = Duration::from_secs(1);

pub async fn all(deps: &Deps, mut queue: VecDeque<Delivery>, call: &Call, report: &mut Report) {
    let mut patience = deps.limits.patience;
    loop {
        let busy = rounds(deps, &mut queue, call, report).await;
        if patience < LOOK || call.is_ending() {
            busy.into_iter().for_each(|busy| report.fail(busy.delivery.messages, &busy.error));
        } else if !busy.is_empty() {
            // The other function is nearly done, or its lease is over soon. To leave it to the next delivery would cost
            // one of the message's receives.
            patience -= LOOK;
            call.sleep(LOOK).await;
            queue.extend(busy.into_iter().map(|busy| busy.delivery));
        }
        if queue.is_empty() {
            return;
        }
    }
}

/// Works until the queue is empty, and returns the files that other functions hold.
async fn rounds(deps: &Deps, queue: &mut VecDeque<Delivery>, call: &Call, report: &mut Report) -> Vec<Busy> {
    let mut open: Option<OpenFile> = None;
    let (mut busy, mut overtaken) = (Vec::new(), 0);
    while let Some(next) = queue.front() {
        if call.is_ending() {
            let key = next.facts.object.clone();
            report.fail(queue.drain(..).flat_map(|delivery| delivery.messages), &Error::OutOfTime { key });
            break;
        }
        let files = take(queue, deps);
        let waiting: Vec<usize> = files.iter().flat_map(|delivery| delivery.messages.clone()).collect();
        match Round::run(deps, call, files, &mut open, report).await {
            Ok(rounded) => {
                overtaken = 0;
                report.counts += rounded.counts;
                report.large += rounded.large;
                busy.extend(rounded.busy);
                rounded.left.into_iter().rev().for_each(|delivery| queue.push_front(delivery));
            }
            Err(RoundError::Overtaken { files, .. }) if overtaken < OVERTAKEN => {
                overtaken += 1;
                open = None;
                files.into_iter().rev().for_each(|delivery| queue.push_front(delivery));
            }
            Err(RoundError::Overtaken { batch, .. }) => report.fail(waiting, &Error::Overtaken { batch }),
            // The store or the ledger does not work: the other files would meet the same.
            Err(RoundError::Failed(error)) => {
                report.fail(waiting.into_iter().chain(queue.drain(..).flat_map(|delivery| delivery.messages)), &error);
                break;
            }
        }
    }
    busy
}

/// Files for one round: as many as their sizes promise to fit, and at least one.
fn take(queue: &mut VecDeque<Delivery>, deps: &Deps) -> Vec<Delivery> {
    let (mut files, mut bytes) = (Vec::new(), 0);
    while let Some(next) = queue.front() {
        let fits = bytes + next.bytes <= deps.limits.round_bytes as u64 && files.len() < deps.limits.round_files;
        if !files.is_empty() && !fits {
            break;
        }
        bytes += next.bytes;
        files.extend(queue.pop_front());
    }
    files
}
