//! Every state that two executors of one piece of work can reach, and two senders of one mail: the protocol of `ledger`
//! that archive, feeds, logs and mail share, breadth first. Executors die, go on after their lease, and start again.

use crate::breadth_first::{self, Explored, Next};
use jiff::{SignedDuration, Timestamp};
use ledger::{ClaimOutcome, Once, Sending, Work, WorkState};

const LEASE: SignedDuration = SignedDuration::from_secs(30);
/// Executors that begin, one after the other or side by side.
const EXECUTORS: usize = 3;
/// What they may intend: each has a plan, and another one that it makes when it does not hear whether the first was
/// registered.
const INTENTS: usize = 2 * EXECUTORS;
/// Leases that run out.
const LEASES: i64 = 3;

fn at(leases: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + LEASE * leases as i32
}

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    /// Has not begun, or is to look again.
    Idle,
    /// Has read the row, and goes by it.
    Read(Option<Work<usize>>),
    Claimed(u64),
    /// Holds an intent, and is about to write what it says.
    Intends {
        attempt: u64,
        intent: usize,
    },
    Written(u64),
    Over,
}

#[derive(Clone, Debug, PartialEq)]
struct World {
    row: Option<Work<usize>>,
    leases: i64,
    executors: [Stage; EXECUTORS],
    /// Whose intents were written.
    written: [bool; INTENTS],
}

/// Goes through all of it; the first state that breaks a rule ends it.
pub fn explore() -> Explored {
    let executors = [const { Stage::Idle }; EXECUTORS];
    let first = World { row: None, leases: 0, executors, written: [false; INTENTS] };
    let of_work = breadth_first::explore(first, |world| format!("{world:?}"), after_work);
    of_work.followed_by(breadth_first::explore(Mailing::default(), |mailing| format!("{mailing:?}"), after_sending))
}

fn after_work(world: &World) -> Next<World> {
    let mut after = Vec::new();
    if world.leases < LEASES {
        after.push(("a lease runs out".to_owned(), Ok(World { leases: world.leases + 1, ..world.clone() })));
    }
    for n in 0..EXECUTORS {
        if world.executors[n] == Stage::Over {
            continue;
        }
        let mut dead = world.clone();
        dead.executors[n] = Stage::Over;
        after.push((format!("{n} dies"), Ok(dead)));
        after.push((format!("{n} goes on: {:?}", world.executors[n]), go_on(world.clone(), n)));
        if let Stage::Intends { attempt, intent } = world.executors[n]
            && intent == n
        {
            let what = format!("{n} does not hear that its intent is registered, and plans anew");
            after.push((what, register(world.clone(), n, attempt, n + EXECUTORS)));
        }
    }
    if world.executors.iter().all(|stage| *stage == Stage::Over)
        && let Err(finding) = one_more(world)
    {
        after.push(("one more executor".to_owned(), Err(finding)));
    }
    after
}

fn go_on(mut world: World, n: usize) -> Result<World, String> {
    let now = at(world.leases);
    let row = world.row.clone();
    world.executors[n] = match world.executors[n].clone() {
        Stage::Idle => Stage::Read(row),
        Stage::Read(read) => match Work::claim(read.as_ref(), now, LEASE) {
            ClaimOutcome::Done(_) => Stage::Over,
            ClaimOutcome::Busy { .. } => Stage::Idle,
            // The write is refused when the row has changed since.
            _ if read != world.row => Stage::Idle,
            ClaimOutcome::Begin(work) => {
                let attempt = work.attempt();
                write(&mut world, work, attempt)?;
                Stage::Claimed(attempt)
            }
            ClaimOutcome::Resume { work, intent } => {
                let attempt = work.attempt();
                write(&mut world, work, attempt)?;
                Stage::Intends { attempt, intent }
            }
        },
        Stage::Claimed(attempt) => return register(world, n, attempt, n),
        Stage::Intends { attempt, intent } => {
            world.written[intent] = true;
            if world.written.iter().filter(|written| **written).count() > 1 {
                return Err("two intents were written".to_owned());
            }
            Stage::Written(attempt)
        }
        Stage::Written(attempt) => {
            if let Ok(work) = row.ok_or("the row is gone")?.complete(attempt, now) {
                write(&mut world, work, attempt)?;
            }
            Stage::Over
        }
        Stage::Over => Stage::Over,
    };
    Ok(world)
}

fn register(mut world: World, n: usize, attempt: u64, intent: usize) -> Result<World, String> {
    let row = world.row.clone().ok_or("the row is gone")?;
    world.executors[n] = match row.prepare(attempt, intent, at(world.leases)) {
        Ok(work) => {
            write(&mut world, work, attempt)?;
            Stage::Intends { attempt, intent }
        }
        Err(_) => Stage::Over,
    };
    Ok(world)
}

fn write(world: &mut World, after: Work<usize>, attempt: u64) -> Result<(), String> {
    let now = at(world.leases);
    if let Some(before) = &world.row {
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let takes_over = after.attempt() == before.attempt() + 1;
        must(takes_over || after.attempt() == before.attempt(), "attempts do not count")?;
        must(after.attempt() == attempt, "by a superseded attempt")?;
        must(!takes_over || before.lease_until() <= now, "it was taken over while its lease lasted")?;
        must(before.state() != WorkState::Done || *before == after, "it was done")?;
        must(before.intent().is_none() || before.intent() == after.intent(), "its intent was replaced")?;
        if after.state() == WorkState::Done {
            let is_written = after.intent().is_some_and(|intent| world.written[*intent]);
            must(is_written, "done, and not written")?;
        }
    }
    world.row = Some(after);
    Ok(())
}

/// Whatever was left, the next executor brings it to its end.
fn one_more(world: &World) -> Result<(), String> {
    let mut world = World { leases: LEASES + 1, ..world.clone() };
    world.executors[0] = Stage::Idle;
    for _ in 0..5 {
        world = go_on(world, 0)?;
    }
    let is_done = world.row.as_ref().is_some_and(|work| work.state() == WorkState::Done);
    if is_done { Ok(()) } else { Err(format!("it stays {:?}", world.row)) }
}

#[derive(Clone, Debug, PartialEq)]
enum Sender {
    Idle,
    Read(Option<Once>),
    Sends { attempt: u64, again: bool },
    Sent(u64),
    Over,
}

#[derive(Clone, Debug)]
struct Mailing {
    row: Option<Once>,
    leases: i64,
    /// When it was claimed last.
    claimed: i64,
    senders: [Sender; EXECUTORS],
    /// Mails that went out, and those of them that do not say that they may be a second one.
    mails: usize,
    unmarked: usize,
}

impl Default for Mailing {
    fn default() -> Self {
        Mailing {
            row: None,
            leases: 0,
            claimed: 0,
            senders: [const { Sender::Idle }; EXECUTORS],
            mails: 0,
            unmarked: 0,
        }
    }
}

fn after_sending(mailing: &Mailing) -> Next<Mailing> {
    let mut after = Vec::new();
    if mailing.leases < LEASES {
        after.push(("a lease runs out".to_owned(), Ok(Mailing { leases: mailing.leases + 1, ..mailing.clone() })));
    }
    for n in 0..EXECUTORS {
        if mailing.senders[n] == Sender::Over {
            continue;
        }
        let mut dead = mailing.clone();
        dead.senders[n] = Sender::Over;
        after.push((format!("{n} dies"), Ok(dead)));
        after.push((format!("{n} goes on: {:?}", mailing.senders[n]), send(mailing.clone(), n)));
    }
    after
}

fn send(mut mailing: Mailing, n: usize) -> Result<Mailing, String> {
    let now = at(mailing.leases);
    mailing.senders[n] = match mailing.senders[n].clone() {
        Sender::Idle => Sender::Read(mailing.row),
        Sender::Read(read) => match Once::claim(read.as_ref(), now, LEASE) {
            Sending::Done => Sender::Over,
            Sending::Busy { .. } => Sender::Idle,
            Sending::Now { .. } if read != mailing.row => Sender::Idle,
            Sending::Now { once, again } => {
                if mailing.row.is_some_and(|row| row.is_sent()) {
                    return Err("what was sent is claimed again".to_owned());
                }
                if mailing.row.is_some() && mailing.leases == mailing.claimed {
                    return Err("it was taken over while its lease lasted".to_owned());
                }
                mailing.claimed = mailing.leases;
                mailing.row = Some(once);
                Sender::Sends { attempt: once.attempt(), again }
            }
        },
        Sender::Sends { attempt, again } => {
            mailing.mails += 1;
            mailing.unmarked += usize::from(!again);
            if mailing.unmarked > 1 {
                return Err("two mails, and neither says that it may be the second".to_owned());
            }
            Sender::Sent(attempt)
        }
        Sender::Sent(attempt) => {
            let row = mailing.row.ok_or("the row is gone")?;
            if let Ok(sent) = row.sent(attempt, now) {
                if attempt != row.attempt() {
                    return Err("a superseded sender says that it is out".to_owned());
                }
                mailing.row = Some(sent);
            }
            Sender::Over
        }
        Sender::Over => Sender::Over,
    };
    Ok(mailing)
}
