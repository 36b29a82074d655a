//! The network between the nodes: late, lossy, repeating, reordering, cut one way, and not always
//! true to the bytes.

use bytes::Bytes;

use crate::NODE_COUNT;
use crate::random::Random;

/// How bad the network is. Chances are per mille, times microseconds.
#[derive(Clone, Debug)]
pub(crate) struct NetworkSettings {
    pub(crate) delay_max: u64,
    pub(crate) slow_chance: u64,
    pub(crate) slow_max: u64,
    pub(crate) loss_chance: u64,
    pub(crate) repeat_chance: u64,
    pub(crate) damage_chance: u64,
}

const DELAY_MIN: u64 = 20;

pub(crate) struct Network {
    settings: NetworkSettings,
    random: Random,
    /// `cut[from][to]`: nothing passes this way.
    cut: [[bool; NODE_COUNT]; NODE_COUNT],
    healed: bool,
}

/// A message that arrives.
pub(crate) struct Delivery {
    /// Microseconds.
    pub(crate) at: u64,
    pub(crate) frame: Bytes,
}

impl Network {
    pub(crate) fn new(settings: NetworkSettings, random: Random) -> Self {
        Self { settings, random, cut: Default::default(), healed: false }
    }

    /// When and how a frame arrives: never, once or twice.
    pub(crate) fn route(
        &mut self,
        now: u64,
        from: usize,
        to: usize,
        frame: &Bytes,
    ) -> Vec<Delivery> {
        if self.healed {
            return vec![Delivery { at: now + self.delay(), frame: frame.clone() }];
        }
        if self.cut[from][to] || self.random.chance(self.settings.loss_chance) {
            return Vec::new();
        }
        let copies = if self.random.chance(self.settings.repeat_chance) { 2 } else { 1 };
        let mut deliveries = Vec::with_capacity(copies);
        for _ in 0..copies {
            let at = now + self.delay();
            let frame = self.maybe_damaged(frame);
            deliveries.push(Delivery { at, frame });
        }
        deliveries
    }

    /// Draws anew which ways are cut.
    pub(crate) fn partition(&mut self, chance: u64) {
        for from in 0..NODE_COUNT {
            for to in 0..NODE_COUNT {
                self.cut[from][to] = from != to && self.random.chance(chance);
            }
        }
    }

    pub(crate) fn reconnect(&mut self) {
        self.cut = Default::default();
    }

    /// From now on every frame arrives, whole and soon.
    pub(crate) fn heal(&mut self) {
        self.reconnect();
        self.healed = true;
    }

    fn delay(&mut self) -> u64 {
        let usual = self.random.between(DELAY_MIN, self.settings.delay_max);
        if !self.healed && self.random.chance(self.settings.slow_chance) {
            return usual + self.random.below(self.settings.slow_max);
        }
        usual
    }

    fn maybe_damaged(&mut self, frame: &Bytes) -> Bytes {
        if !self.random.chance(self.settings.damage_chance) {
            return frame.clone();
        }
        let mut bytes = frame.to_vec();
        let at = self.random.index(bytes.len());
        bytes[at] ^= 1 << self.random.below(8);
        bytes.into()
    }
}
