//! Random numbers from a seed, the same on every machine and in every version.

/// SplitMix64: a counter, mixed.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is at least 1. The bias is of no matter to a test.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn below_usize(&mut self, bound: usize) -> usize {
        crate::in_memory(self.below(bound as u64))
    }

    /// True with this probability; draws nothing if it is zero, so that a disk without faults
    /// behaves the same whatever faults there are to choose from.
    pub fn chance(&mut self, probability: f64) -> bool {
        const UNIT: f64 = (1_u64 << 32) as f64;
        probability > 0.0
            && f64::from(u32::try_from(self.next() >> 32).unwrap_or(0)) < probability * UNIT
    }

    /// Fills with bytes that differ from place to place.
    pub fn fill(&mut self, target: &mut [u8]) {
        for chunk in target.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
