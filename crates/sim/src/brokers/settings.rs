//! How a run differs from the others: drawn from the seed before it begins.

use std::num::NonZeroU16;

use broker::config::BrokerSettings;
use model::RaftGroupId;
use wal_uring::WalOptions;

use super::BROKER_COUNT;
use crate::hardware;
use crate::kafka::Topic;
use crate::random::Random;

/// One for each of the topic's partitions.
const GROUPS_MAX: NonZeroU16 = NonZeroU16::new(3).expect("not 0");

/// Milliseconds by which the clocks of brokers differ at most, in some runs.
const SKEW_MAX: u64 = 3_600_000;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) topic: Topic,
    pub(crate) broker: BrokerSettings,
    pub(crate) data_groups: NonZeroU16,
    /// Milliseconds that an object stays after the last reference to it went.
    pub(crate) delete_grace_ms: i64,
    pub(crate) segment_count: u64,
    pub(crate) wal: WalOptions,
    /// By node: microseconds of one request of its disk at most.
    pub(crate) disk_delay_max: [u64; BROKER_COUNT],
    /// By node: milliseconds by which its clock is ahead.
    pub(crate) skew_ms: [i64; BROKER_COUNT],
    /// Microseconds that a message is under way at most.
    pub(crate) network_delay_max: u64,
    /// Microseconds of trouble.
    pub(crate) duration: u64,
    /// A broker joins, or one is drained: how many microseconds after the beginning, and then
    /// between two such steps.
    pub(crate) reshape_after: u64,
    pub(crate) grows: bool,
    /// Microseconds between two moves of partitions at most, where they move.
    pub(crate) move_interval_max: Option<u64>,
    /// Brokers are stopped and come back with another build.
    pub(crate) upgrades: bool,
    pub(crate) producer_count: usize,
    /// Microseconds between two batches of a producer at most.
    pub(crate) produce_interval_max: u64,
    /// Bytes of a record at most.
    pub(crate) record_size_max: u64,
    /// Microseconds between two faults at most.
    pub(crate) fault_interval_max: u64,
}

impl Settings {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut broker = BrokerSettings::default();
        let mut set = |key: &str, value: u64| {
            broker.set(&format!("{key}={value}")).expect("a setting of the broker");
        };
        set("offload.age.ms", random.between(300, 4_000));
        set("offload.bytes", [131_072, 524_288, 33_554_432][random.index(3)]);
        let grace = random.between(2_000, 10_000);
        set("object.delete.grace.ms", grace);
        set("object.sweep.interval.ms", random.between(1_000, 8_000));
        set("log.retention.check.interval.ms", random.between(500, 4_000));
        let mut disk_delay_max = [[100, 1_000, 20_000][random.index(3)]; BROKER_COUNT];
        if random.chance(200) {
            disk_delay_max[random.index(BROKER_COUNT)] = 100_000;
        }
        let skewed = random.chance(200);
        let data_groups = [NonZeroU16::MIN, GROUPS_MAX][random.index(2)];
        let may_move = data_groups == GROUPS_MAX && random.chance(700);
        let move_interval_max = may_move.then(|| [500_000, 3_000_000, 10_000_000][random.index(3)]);
        let mut skew = || if skewed { random.below(SKEW_MAX) } else { 0 };
        let skew_ms = [(); BROKER_COUNT].map(|()| i64::try_from(skew()).expect("an hour"));
        Self {
            topic: Topic { name: "kept", partition_count: 3, retention_bytes: None },
            broker,
            data_groups,
            move_interval_max,
            delete_grace_ms: i64::try_from(grace).expect("seconds"),
            segment_count: random.between(8, 15),
            wal: hardware::draw_wal(random),
            disk_delay_max,
            skew_ms,
            network_delay_max: [100, 1_000, 20_000][random.index(3)],
            duration: random.between(10_000_000, 60_000_000),
            reshape_after: random.between(1_000_000, 20_000_000),
            grows: random.chance(500),
            upgrades: random.chance(500),
            producer_count: 2 + random.index(4),
            produce_interval_max: random.between(10_000, 200_000),
            record_size_max: [200, 4_000, 20_000][random.index(3)],
            fault_interval_max: random.between(1_000_000, 10_000_000),
        }
    }

    /// The data groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = RaftGroupId> + use<> {
        (1..=u64::from(self.data_groups.get())).map(RaftGroupId::new)
    }

    /// Every partition, in order: the place of each is its number.
    pub(crate) fn partitions(&self) -> Vec<(Topic, i32)> {
        Topic::partitions(&[self.topic])
    }
}
