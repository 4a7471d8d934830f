//! The versions of a dimension's member, and the member that a fact refers to.

use crate::{
    line::Change,
    schema::{Dimension, Table},
    surrogate::Identity,
    time,
    value::Value,
};

/// The key of a member that the dimension does not have.
pub const UNKNOWN: i64 = -1;
/// The key where a part of the source key is null.
pub const NOT_APPLICABLE: i64 = -2;

/// The newest values of a key, fed with its changes in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest {
    pub values: Vec<Value>,
    pub is_deleted: bool,
}

impl Newest {
    pub fn first(change: Change) -> Newest {
        match change {
            Change::Row { values, is_deleted, .. } => Newest { values, is_deleted },
            Change::Gone { values, .. } => Newest { values, is_deleted: true },
        }
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Row { values, is_deleted, .. } => *self = Newest { values, is_deleted },
            // The last values stay.
            Change::Gone { .. } => self.is_deleted = true,
        }
    }
}

/// A member as it was for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Microseconds since 1970; of columns of type 1 the newest value of all.
    pub valid_from: i64,
    /// Exclusive; [`time::LAST`] for the current version.
    pub valid_to: i64,
    pub is_current: bool,
    pub is_deleted: bool,
    pub values: Vec<Value>,
}

/// Builds the versions of one key from its changes in their order.
pub struct History<'a> {
    dimension: &'a Dimension,
    newest: Option<Newest>,
    versions: Vec<Begun>,
}

struct Begun {
    valid_from: i64,
    is_deleted: bool,
    type2: Vec<Value>,
}

impl<'a> History<'a> {
    pub fn new(dimension: &'a Dimension) -> Self {
        History { dimension, newest: None, versions: Vec::new() }
    }

    /// `object_time` stands in where the line has no time of its own.
    pub fn push(&mut self, change: Change, object_time: i64) {
        let at = match &change {
            Change::Row { at, .. } | Change::Gone { at, .. } => at.unwrap_or(object_time),
        };
        match &mut self.newest {
            None => self.newest = Some(Newest::first(change)),
            Some(newest) => newest.apply(change),
        }
        let Some(newest) = &self.newest else { return };
        let begins = self.versions.last().is_none_or(|version| {
            let mut values = self.dimension.type2.iter().zip(&version.type2);
            version.is_deleted != newest.is_deleted || values.any(|(column, value)| newest.values[*column] != *value)
        });
        if begins && (self.dimension.is_type2() || self.versions.is_empty()) {
            let valid_from = self.versions.last().map_or(at, |version| at.max(version.valid_from.saturating_add(1)));
            let type2 = self.dimension.type2.iter().map(|column| newest.values[*column].clone()).collect();
            self.versions.push(Begun { valid_from, is_deleted: newest.is_deleted, type2 });
        }
    }

    /// All versions of the key, oldest first; of a dimension without type 2 the one row.
    pub fn finish(self) -> Vec<Version> {
        let Some(newest) = self.newest else { return Vec::new() };
        let ends: Vec<i64> = self.versions.iter().skip(1).map(|version| version.valid_from).collect();
        let last = self.versions.len() - 1;
        let mut versions = Vec::with_capacity(self.versions.len());
        for (at, begun) in self.versions.into_iter().enumerate() {
            let mut values = newest.values.clone();
            for (column, value) in self.dimension.type2.iter().zip(begun.type2) {
                values[*column] = value;
            }
            let is_current = at == last;
            versions.push(Version {
                valid_from: begun.valid_from,
                valid_to: ends.get(at).copied().unwrap_or(time::LAST),
                is_current,
                is_deleted: if is_current { newest.is_deleted } else { begun.is_deleted },
                values,
            });
        }
        versions
    }
}

/// All members of a dimension in 32 bytes a version, for facts that look for theirs.
#[derive(Debug, Default)]
pub struct Members {
    members: Vec<Member>,
    /// Where the members begin whose identities have the same first bits; as many bits as make about one member each.
    starts: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Member {
    identity: Identity,
    valid_from: i64,
    surrogate: i64,
}

impl Members {
    pub fn push(&mut self, identity: Identity, valid_from: i64, surrogate: i64) {
        self.members.push(Member { identity, valid_from, surrogate });
    }

    /// 32 bytes a member.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.members.len() * 32);
        for member in &self.members {
            bytes.extend_from_slice(&member.identity.to_bytes());
            bytes.extend_from_slice(&member.valid_from.to_be_bytes());
            bytes.extend_from_slice(&member.surrogate.to_be_bytes());
        }
        bytes
    }

    /// What [`Members::to_bytes`] made of sealed members.
    pub fn from_bytes(bytes: &[u8]) -> Members {
        let number = |bytes: &[u8]| bytes.iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
        let member = |member: &[u8]| {
            let mut identity = [0; 16];
            identity.copy_from_slice(&member[..16]);
            Member {
                identity: Identity::from_bytes(identity),
                valid_from: number(&member[16..24]),
                surrogate: number(&member[24..]),
            }
        };
        let mut members = Members { members: bytes.chunks_exact(32).map(member).collect(), starts: Vec::new() };
        members.seal();
        members
    }

    pub fn surrogates(&self) -> impl Iterator<Item = i64> {
        self.members.iter().map(|member| member.surrogate)
    }

    pub fn append(&mut self, mut others: Members) {
        self.members.append(&mut others.members);
    }

    /// Takes sealed members in, in the place of the versions of the same keys.
    pub fn replace(&mut self, newer: Members) {
        self.members.retain(|member| newer.versions(member.identity).is_empty());
        self.append(newer);
    }

    /// The versions of one key, oldest first, of sealed members.
    fn versions(&self, identity: Identity) -> &[Member] {
        let prefix = identity.prefix(self.bits());
        let [from, to] = [prefix, prefix + 1].map(|at| self.starts.get(at).map_or(0, |start| *start as usize));
        let members = &self.members[from..to];
        let versions = &members[members.partition_point(|member| member.identity < identity)..];
        &versions[..versions.partition_point(|member| member.identity == identity)]
    }

    /// Makes members ready to be found.
    pub fn seal(&mut self) {
        self.members.sort_unstable();
        let bits = self.bits();
        let starts = 0..=1 << bits;
        let start = |prefix| self.members.partition_point(|member| member.identity.prefix(bits) < prefix) as u32;
        self.starts = starts.map(start).collect();
    }

    fn bits(&self) -> u32 {
        self.members.len().max(1).ilog2()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The version that held at `as_of`; before the first one, or without a time, the first.
    pub fn find(&self, identity: Identity, as_of: Option<i64>) -> i64 {
        let versions = self.versions(identity);
        let held = as_of.map_or(0, |at| versions.partition_point(|member| member.valid_from <= at));
        versions.get(held.saturating_sub(1)).map_or(UNKNOWN, |member| member.surrogate)
    }
}

/// Which facts a change of members may concern.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Keys came that were unknown.
    pub has_new: bool,
    /// The earliest time from which a known key has other versions; the least of all where its first one is another.
    pub from: Option<i64>,
}

impl Difference {
    /// Nothing is as it was.
    pub const ALL: Difference = Difference { has_new: true, from: Some(i64::MIN) };

    /// Of sealed members.
    pub fn between(before: &Members, after: &Members) -> Difference {
        let mut difference = Difference::default();
        let mut old = before.members.chunk_by(|a, b| a.identity == b.identity).peekable();
        for new in after.members.chunk_by(|a, b| a.identity == b.identity) {
            while old.next_if(|old| old[0].identity < new[0].identity).is_some() {
                difference.begins(i64::MIN);
            }
            match old.next_if(|old| old[0].identity == new[0].identity) {
                None => difference.has_new = true,
                Some(old) => {
                    let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
                    let others = [old.get(same), new.get(same)].into_iter().flatten();
                    if let Some(from) = others.map(|version| version.valid_from).min() {
                        difference.begins(if same == 0 { i64::MIN } else { from });
                    }
                }
            }
        }
        if old.next().is_some() {
            difference.begins(i64::MIN);
        }
        difference
    }

    fn begins(&mut self, from: i64) {
        self.from = Some(self.from.map_or(from, |before| before.min(from)));
    }

    /// Whether rows may refer to other members than before. `has_unknown`: some have the member -1. `latest`: the
    /// greatest time as of which members are looked for.
    pub fn concerns(&self, has_unknown: bool, latest: Option<i64>) -> bool {
        let has_others = self.from.is_some_and(|from| from == i64::MIN || latest.is_some_and(|latest| latest >= from));
        has_others || (self.has_new && has_unknown)
    }
}

/// The columns of a dimension's table that come from its source, in their order: key, type 1, type 2.
pub fn source_columns(table: &Table, dimension: &Dimension) -> Vec<usize> {
    table.key.iter().chain(&dimension.type1).chain(&dimension.type2).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(of: &[(u8, i64)]) -> Members {
        let mut members = Members::default();
        of.iter().for_each(|(key, from)| members.push(Identity::of(&[*key]), *from, i64::from(*key) * 1000 + from));
        members.seal();
        members
    }

    #[test]
    fn a_difference_concerns_the_facts_that_find_another_member() {
        let versions: Vec<(u8, i64)> = vec![(1, 10), (1, 20), (2, 10), (2, 30), (3, 10)];
        let mut changes = vec![versions.clone()];
        for at in 0..versions.len() {
            let without = [&versions[..at], &versions[at + 1..]].concat();
            changes.extend([(1, 15), (1, 5), (2, 31), (4, 1)].map(|new| [&without[..], &[new]].concat()));
            changes.push(without);
        }
        for before in &changes {
            for after in &changes {
                let (old, new) = (members(before), members(after));
                let difference = Difference::between(&old, &new);
                for key in 0..6 {
                    for as_of in [None, Some(0), Some(5), Some(14), Some(15), Some(20), Some(25), Some(30), Some(40)] {
                        let [was, is] = [&old, &new].map(|members| members.find(Identity::of(&[key]), as_of));
                        let concerns = difference.concerns(was == UNKNOWN, as_of);
                        assert!(was == is || concerns, "{before:?} -> {after:?}: {key} at {as_of:?}, {difference:?}");
                    }
                }
            }
        }
        assert_eq!(Difference::between(&members(&versions), &members(&versions)), Difference::default());
        let later = Difference::between(&members(&versions), &members(&[&versions[..], &[(3, 50), (7, 1)]].concat()));
        assert_eq!(later, Difference { has_new: true, from: Some(50) });
        assert!(!later.concerns(false, Some(49)) && !later.concerns(false, None));
    }

    #[test]
    fn members_take_the_place_of_those_of_their_keys() {
        let mut all = members(&[(1, 10), (1, 20), (2, 10), (3, 10)]);
        all.replace(members(&[(1, 15), (4, 10)]));
        all.seal();
        assert_eq!(all.to_bytes(), members(&[(1, 15), (2, 10), (3, 10), (4, 10)]).to_bytes());
    }
}
