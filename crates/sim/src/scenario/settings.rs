//! How a run differs from the others: drawn from the seed before it begins.

use crate::log::LogSettings;
use crate::network::NetworkSettings;
use crate::random::Random;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) group_count: u64,
    /// Microseconds of trouble.
    pub(crate) duration: u64,
    /// Microseconds before the first fault.
    pub(crate) calm: u64,
    /// Microseconds between two faults at most.
    pub(crate) fault_interval_max: u64,
    /// Microseconds between two writes of clients at most.
    pub(crate) write_interval_max: u64,
    /// Bytes of a payload at most.
    pub(crate) payload_size_max: u64,
    pub(crate) message_bytes: u64,
    /// Small, so that payloads are read back from the WAL for followers that lag.
    pub(crate) payload_cache_bytes: usize,
    /// The size of every node's ring.
    pub(crate) segment_count: u64,
    pub(crate) network: NetworkSettings,
}

impl Settings {
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            group_count: random.between(1, 5),
            duration: random.between(3_000_000, 6_000_000),
            calm: random.between(100_000, 1_000_000),
            fault_interval_max: random.between(50_000, 500_000),
            write_interval_max: random.between(1_000, 20_000),
            payload_size_max: [16, 200, 2_000][random.index(3)],
            message_bytes: [1, 1_000, 64_000][random.index(3)],
            payload_cache_bytes: [0, 1_000, 1 << 20][random.index(3)],
            segment_count: [16, 32, 64][random.index(3)],
            network: NetworkSettings {
                delay_max: random.between(200, 2_000),
                slow_chance: random.below(50),
                slow_max: random.between(2_000, 100_000),
                loss_chance: random.below(60),
                repeat_chance: random.below(40),
                damage_chance: random.below(20),
            },
        }
    }

    /// A disk differs from one life of a node to the next.
    pub(crate) fn draw_log(&self, random: &mut Random) -> LogSettings {
        LogSettings {
            segment_count: self.segment_count,
            delay_max: [100, 600, 600, 20_000][random.index(4)],
            depth: 1 + random.index(8),
            write_error: [0.0, 0.0, 0.001][random.index(3)],
            read_error: [0.0, 0.05][random.index(2)],
        }
    }
}
