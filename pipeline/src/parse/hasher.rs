//! The hash of a masked key. The keys of the hash are random, so that no peer can aim collisions at the cache.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;

use crate::key::{Class, FlowKey, KeyMask};

/// Hashes keys; one for all workers of a switch, so that equal keys have equal hashes on all of them.
#[derive(Clone, Debug)]
pub struct KeyHasher {
    state: RandomState,
}

impl Default for KeyHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyHasher {
    /// With random keys.
    pub fn new() -> Self {
        Self { state: RandomState::new() }
    }

    /// With keys made of `seed`, for tests and benches that are to be repeatable.
    pub fn seeded(seed: u64) -> Self {
        let word = |n: u64| (seed ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_add(n);
        Self { state: RandomState::with_seeds(word(1), word(2), word(3), word(4)) }
    }

    /// The hash that the parser gives to a frame of this masked key, whose port has this mask.
    pub fn hash(&self, key: &FlowKey, mask: &KeyMask) -> u64 {
        match width(mask) {
            2 => self.words(&prefix::<2>(key)),
            4 => self.words(&prefix::<4>(key)),
            8 if is_narrow(&key.words) => self.words(&prefix::<4>(key)),
            8 => self.words(&prefix::<8>(key)),
            _ => self.words(&key.words),
        }
    }

    /// Two words a step: ahash takes 128 bits with one multiplication.
    #[inline(always)]
    pub(super) fn words<const N: usize>(&self, words: &[u64; N]) -> u64 {
        let mut hasher = self.state.build_hasher();
        for [low, high] in words.as_chunks().0 {
            hasher.write_u128(u128::from(*low) | u128::from(*high) << 64);
        }
        hasher.finish()
    }
}

/// Words that are hashed: those of the mask's class, or the first two when no more of them count.
#[inline]
pub(super) fn width(mask: &KeyMask) -> usize {
    let [_, _, third, fourth, ..] = mask.words;
    match mask.class() {
        Class::V4 if third | fourth == 0 => 2,
        class => class.words(),
    }
}

/// A key of class V6 that class V4 has room for: that of a frame without IPv6 addresses.
#[inline(always)]
pub(super) fn is_narrow(words: &[u64]) -> bool {
    let [_, _, _, _, beyond @ ..] = words else { return true };
    beyond.iter().take(4).fold(0, |all, word| all | word) == 0
}

/// The first `N` words of a key.
#[inline]
pub(super) fn prefix<const N: usize>(key: &FlowKey) -> [u64; N] {
    key.words.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Field;

    #[test]
    fn every_word_that_counts_changes_the_hash_and_seeds_make_it_repeatable() {
        let hasher = KeyHasher::seeded(1);
        for (field, width_of) in [(Field::ETH_SRC, 2), (Field::TP_DST, 4), (Field::IPV6_DST, 8), (Field::METADATA, 32)]
        {
            let mask = FlowKey::mask(&[Field::IN_PORT, field]);
            assert_eq!(width(&mask), width_of);
            let mut key = FlowKey::EMPTY;
            let empty = hasher.hash(&key, &mask);
            key.words[field.at / 8] = 1 << 40;
            assert_ne!(hasher.hash(&key, &mask), empty);
            assert_eq!(KeyHasher::seeded(1).hash(&key, &mask), hasher.hash(&key, &mask));
            assert_ne!(KeyHasher::seeded(2).hash(&key, &mask), hasher.hash(&key, &mask));
            assert_ne!(KeyHasher::new().hash(&key, &mask), KeyHasher::new().hash(&key, &mask));
        }
    }
}
