//! The world around the archive: documents that close, reopen, change and come late, and what operators do meanwhile.

use memory_cloud::Cloud;
use serde_json::json;

/// A document at the source.
#[derive(Clone, Debug)]
pub struct Doc {
    pub id: String,
    /// Day of July 2024, from 1.
    pub day: u32,
    pub is_open: bool,
    pub changes: u32,
    pub events: u32,
    /// The source has let it go.
    pub is_gone: bool,
}

impl Doc {
    pub fn new(number: usize, day: u32, is_open: bool) -> Self {
        Doc { id: format!("m{number}"), day, is_open, changes: 0, events: 1, is_gone: false }
    }

    pub fn body(&self) -> String {
        let status = if self.is_open { "open" } else { "closed" };
        json!({
            "message_id": self.id, "timestamp": format!("2024-07-0{}T10:00:00Z", self.day), "subject": self.changes,
            "alerts": [{"alert_id": "a", "status": status}],
        })
        .to_string()
    }

    pub fn put(&self, cloud: &Cloud) {
        if self.is_gone {
            cloud.node.delete("messages", &self.id);
            return;
        }
        cloud.node.put("messages", &self.id, &self.body());
        for (id, event) in self.history() {
            cloud.node.put("history", &id, &event);
        }
    }

    /// Its history, by `_id`.
    pub fn history(&self) -> Vec<(String, String)> {
        let event = |event: u32| {
            let body = json!({"message_id": self.id, "timestamp": "2024-07-01T00:00:00Z", "event": event});
            (format!("{}-{event}", self.id), body.to_string())
        };
        (0..self.events).map(event).collect()
    }
}

/// One thing that happens beside the functions.
#[derive(Clone, Debug)]
pub enum Act {
    Change {
        doc: usize,
        reopens: bool,
        moves: bool,
        only_history: bool,
    },
    Start {
        from: u32,
        to: u32,
    },
    /// An extraction of the same days.
    Extract {
        from: u32,
        to: u32,
    },
    /// A run of another mode: `process`, `recheck` or `scheduled`.
    StartMode {
        mode: &'static str,
    },
    /// Nothing happens for a month, and spools expire when so many requests went on after it.
    Month {
        requests: u64,
    },
    /// Of the executions so far, this one.
    Abort {
        nth: usize,
    },
    Redrive {
        nth: usize,
    },
    FailedOnly {
        nth: usize,
    },
    Exclude {
        doc: usize,
    },
    Release {
        doc: usize,
    },
    Skip {
        nth: usize,
    },
    /// An operator holds the archive, or a day of it, against itself and the source, and lets repair what is found.
    Verify {
        day: Option<u32>,
    },
    /// The source lets a document go; a change brings it back.
    Delete {
        doc: usize,
    },
}

impl Act {
    /// It begins an execution.
    pub fn is_start(&self) -> bool {
        matches!(self, Act::Start { .. } | Act::Extract { .. } | Act::StartMode { .. } | Act::FailedOnly { .. })
    }

    /// It happens when nothing is at work: no function lives for as long.
    pub fn waits(&self) -> bool {
        matches!(self, Act::Month { .. })
    }

    pub fn change(random: &mut fastrand::Rng, documents: usize) -> Self {
        Act::Change {
            doc: random.usize(0..documents),
            reopens: random.u32(0..3) == 0,
            moves: random.u32(0..5) == 0,
            only_history: random.u32(0..5) == 0,
        }
    }

    pub fn start(random: &mut fastrand::Rng) -> Self {
        let from = random.u32(1..3);
        Act::Start { from, to: random.u32(from + 1..5) }
    }
}

/// What a seed makes happen: each act with the request before which it happens.
pub fn acts(random: &mut fastrand::Rng, documents: usize, is_small: bool) -> Vec<(u64, Act)> {
    let mut acts: Vec<(u64, Act)> = Vec::new();
    let (most, steps) = if is_small { (6, 300) } else { (10, 600) };
    for _ in 0..random.usize(1..most) {
        let step = random.u64(0..steps);
        let (doc, nth) = (random.usize(0..documents), random.usize(0..3));
        let act = match random.u32(0..22) {
            0..5 => Act::change(random, documents),
            5..7 => Act::start(random),
            7..10 => Act::Abort { nth },
            10..12 => Act::Redrive { nth },
            12..14 => Act::FailedOnly { nth },
            14 => Act::Exclude { doc },
            15..17 => {
                let from = random.u32(1..3);
                Act::Extract { from, to: random.u32(from + 1..5) }
            }
            17..20 => Act::StartMode { mode: ["process", "recheck", "scheduled"][random.usize(0..3)] },
            20 => Act::Month { requests: if random.bool() { 0 } else { random.u64(0..120) } },
            _ if random.bool() => Act::Release { doc },
            _ => Act::Skip { nth },
        };
        acts.push((step, act));
        // What follows an abort at once is what finds most.
        if let (step, Act::Abort { nth }) = &acts[acts.len() - 1]
            && random.bool()
        {
            let (step, nth) = (step + random.u64(0..12), *nth);
            let next = match random.u32(0..3) {
                0 => Act::Redrive { nth },
                1 => Act::FailedOnly { nth },
                _ => Act::Start { from: 1, to: 4 },
            };
            acts.push((step, next));
        }
        // What is begun just before the spools are gone.
        if let (step, Act::Month { .. }) = &acts[acts.len() - 1] {
            let next = if random.bool() { Act::FailedOnly { nth } } else { Act::Start { from: 1, to: 4 } };
            acts.push((*step, next));
        }
    }
    acts
}

/// What a seed makes happen beside that.
pub fn acts_beside(random: &mut fastrand::Rng, documents: usize) -> Vec<(u64, Act)> {
    let mut acts = Vec::new();
    if random.u32(0..3) == 0 {
        let day = random.bool().then(|| random.u32(1..4));
        acts.push((random.u64(0..600), Act::Verify { day }));
    }
    if random.u32(0..6) == 0 {
        acts.push((random.u64(0..400), Act::Delete { doc: random.usize(0..documents) }));
    }
    acts
}
