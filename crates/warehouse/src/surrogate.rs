//! Surrogate keys that a rebuild finds again: they are made of the member's key and of the begin of its version.

use sha2::{Digest, Sha256};

/// A key of a source table; 16 bytes of its digest, so that two keys are never the same.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Identity(u128);

impl Identity {
    /// Of the bytes of a key, as [`crate::value::write_key`] makes them.
    pub fn of(key: &[u8]) -> Identity {
        let digest = Sha256::digest(key);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Identity(u128::from_be_bytes(bytes))
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Identity {
        Identity(u128::from_be_bytes(bytes))
    }

    /// The first bits, which are spread evenly; `bits` is at most 32.
    pub fn prefix(self, bits: u32) -> usize {
        (self.0 >> 64 >> (64 - bits)) as usize
    }

    /// Spreads keys evenly over `count` parts.
    pub fn part(&self, count: usize) -> usize {
        (self.0 % count.max(1) as u128) as usize
    }
}

/// A positive number for a member's version. `valid_from` is 0 in dimensions without versions.
/// Two members of one dimension get the same number about once in a billion dimensions of 100,000 members;
/// then all of the dimension are made anew with the next `salt`.
pub fn surrogate(identity: Identity, valid_from: i64, salt: u32) -> i64 {
    let mut digest = Sha256::new();
    digest.update(identity.0.to_be_bytes());
    digest.update(valid_from.to_be_bytes());
    digest.update(salt.to_be_bytes());
    let digest = digest.finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    (i64::from_be_bytes(bytes) & i64::MAX).max(1)
}

/// Whether no number stands twice; sorts them.
pub fn are_unique(surrogates: &mut [i64]) -> bool {
    surrogates.sort_unstable();
    surrogates.windows(2).all(|pair| pair[0] != pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_in_every_build_and_positive() {
        let member = Identity::of(b"patient 7");
        assert_eq!(surrogate(member, 0, 0), surrogate(Identity::of(b"patient 7"), 0, 0));
        // A change of this number would give every warehouse new keys.
        assert_eq!(surrogate(member, 0, 0), 4_614_091_998_105_415_788);
        let mut many: Vec<i64> = (0..1000).map(|valid_from| surrogate(member, valid_from, 0)).collect();
        assert!(many.iter().all(|key| *key > 0));
        assert!(are_unique(&mut many));
        many.push(many[0]);
        assert!(!are_unique(&mut many));
        assert_ne!(surrogate(member, 0, 0), surrogate(member, 0, 1));
    }
}
