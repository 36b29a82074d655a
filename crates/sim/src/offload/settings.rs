//! How a run differs from the others: drawn from the seed before it begins.

use broker::config::BrokerSettings;
use wal_uring::WalOptions;

use crate::hardware;
use crate::kafka::Topic;
use crate::random::Random;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) topics: [Topic; 2],
    pub(crate) broker: BrokerSettings,
    /// Milliseconds, as the checkers believe it.
    pub(crate) delete_grace_ms: i64,
    pub(crate) segment_count: u64,
    pub(crate) wal: WalOptions,
    /// Microseconds of one request of the disk at most.
    pub(crate) disk_delay_max: u64,
    /// Microseconds of trouble.
    pub(crate) duration: u64,
    pub(crate) producer_count: usize,
    /// Microseconds between two batches of a producer at most.
    pub(crate) produce_interval_max: u64,
    /// Bytes of a record at most.
    pub(crate) record_size_max: u64,
    /// Microseconds between two crashes at most.
    pub(crate) crash_interval_max: u64,
    /// Microseconds between two deletions of records at most.
    pub(crate) trim_interval_max: u64,
}

impl Settings {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut broker = BrokerSettings::default();
        let mut set = |key: &str, value: u64| {
            broker.set(&format!("{key}={value}")).expect("a setting of the broker");
        };
        let grace = random.between(2_000, 10_000);
        set("offload.age.ms", random.between(300, 4_000));
        set("offload.bytes", [131_072, 524_288, 33_554_432][random.index(3)]);
        set("object.delete.grace.ms", grace);
        set("object.sweep.interval.ms", random.between(1_000, 8_000));
        set("log.retention.check.interval.ms", random.between(500, 4_000));
        set("shutdown.offload.max.ms", 10_000);
        let kept = random.between(50_000, 400_000);
        Self {
            topics: [
                Topic { name: "kept", partition_count: 2, retention_bytes: None },
                Topic { name: "bounded", partition_count: 2, retention_bytes: Some(kept) },
            ],
            broker,
            delete_grace_ms: i64::try_from(grace).expect("seconds"),
            segment_count: random.between(8, 15),
            wal: hardware::draw_wal(random),
            disk_delay_max: [100, 1_000, 20_000][random.index(3)],
            duration: random.between(30_000_000, 150_000_000),
            producer_count: 2 + random.index(6),
            produce_interval_max: random.between(20_000, 400_000),
            record_size_max: [200, 4_000, 20_000][random.index(3)],
            crash_interval_max: random.between(4_000_000, 40_000_000),
            trim_interval_max: random.between(2_000_000, 20_000_000),
        }
    }

    /// The number of a partition.
    pub(crate) fn place(&self, topic: &str, index: i32) -> Option<usize> {
        self.partitions().iter().position(|(of, at)| of.name == topic && *at == index)
    }

    /// Every partition of every topic, in order: the number of each is its place.
    pub(crate) fn partitions(&self) -> Vec<(Topic, i32)> {
        Topic::partitions(&self.topics)
    }
}
