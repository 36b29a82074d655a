//! Randomness for ids. It enters a shard at its top as a seed, so that a simulated shard repeats
//! itself.

use std::cell::Cell;

use uuid::{Builder, Uuid};

/// A stream of random numbers (SplitMix64, two lanes). Not for secrets.
#[derive(Debug)]
pub(crate) struct Random {
    lanes: [Cell<u64>; 2],
}

impl Random {
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self { lanes: seed.map(Cell::new) }
    }

    /// A random (version 4) UUID.
    pub(crate) fn uuid(&self) -> Uuid {
        let [high, low] = [0, 1].map(|lane: usize| next(&self.lanes[lane]));
        let bytes = (u128::from(high) << 64) | u128::from(low);
        Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid()
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn next(state: &Cell<u64>) -> u64 {
    let value = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(value);
    let mixed = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_differ_and_repeat_with_their_seed() {
        let ids = |seed| {
            let random = Random::new(seed);
            (0..1000).map(|_| random.uuid()).collect::<Vec<_>>()
        };
        let first = ids([1, 2]);
        assert_eq!(first, ids([1, 2]));
        assert_ne!(first, ids([1, 3]));
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len());
        assert!(first.iter().all(|id| id.get_version_num() == 4));
    }
}
