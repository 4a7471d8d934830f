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
        let prefix = identity.prefix(self.bits());
        let [from, to] = [prefix, prefix + 1].map(|at| self.starts.get(at).map_or(0, |start| *start as usize));
        let members = &self.members[from..to];
        let first = members.partition_point(|member| member.identity < identity);
        let versions = &members[first..];
        let versions = &versions[..versions.partition_point(|member| member.identity == identity)];
        let held = as_of.map_or(0, |at| versions.partition_point(|member| member.valid_from <= at));
        versions.get(held.saturating_sub(1)).map_or(UNKNOWN, |member| member.surrogate)
    }
}

/// The columns of a dimension's table that come from its source, in their order: key, type 1, type 2.
pub fn source_columns(table: &Table, dimension: &Dimension) -> Vec<usize> {
    table.key.iter().chain(&dimension.type1).chain(&dimension.type2).copied().collect()
}
