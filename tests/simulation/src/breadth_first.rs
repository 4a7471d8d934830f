//! Goes through all that can follow from a beginning, each state once, the shortest ways first.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
};

#[derive(Clone, Debug, Default)]
pub struct Explored {
    pub states: usize,
    /// What is broken, and the shortest way to it.
    pub finding: Option<(String, Vec<String>)>,
}

/// What can happen next, and the state that it leads to, or what it breaks.
pub type Next<W> = Vec<(String, Result<W, String>)>;

impl Explored {
    /// What was explored before, and after it the other; the first finding counts.
    pub fn followed_by(self, other: Explored) -> Self {
        Explored { states: self.states + other.states, finding: self.finding.or(other.finding) }
    }
}

/// `key`: what tells two states apart.
pub fn explore<W, K: Hash + Eq>(first: W, key: impl Fn(&W) -> K, mut next_of: impl FnMut(&W) -> Next<W>) -> Explored {
    // Of each state, the one before it, and what happened between the two.
    let mut reached = vec![(0, String::new())];
    let mut known = HashSet::from([key(&first)]);
    let mut waiting = VecDeque::from([(0, first)]);
    while let Some((at, state)) = waiting.pop_front() {
        for (what, outcome) in next_of(&state) {
            match outcome {
                Ok(next) => {
                    if known.insert(key(&next)) {
                        reached.push((at, what));
                        waiting.push_back((reached.len() - 1, next));
                    }
                }
                Err(finding) => {
                    let (mut way, mut back) = (vec![what], at);
                    while back > 0 {
                        way.push(reached[back].1.clone());
                        back = reached[back].0;
                    }
                    way.reverse();
                    return Explored { states: known.len(), finding: Some((finding, way)) };
                }
            }
        }
    }
    Explored { states: known.len(), finding: None }
}
