//! Settings of the coordinator, under their Kafka names.

/// Settings of every group on a shard; times are milliseconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupConfig {
    /// `offsets.topic.num.partitions`
    pub partition_count: i32,
    /// `group.min.session.timeout.ms`
    pub session_timeout_ms_min: u64,
    /// `group.max.session.timeout.ms`
    pub session_timeout_ms_max: u64,
    /// `group.initial.rebalance.delay.ms`: how long the first join of an empty group waits for
    /// more members.
    pub initial_rebalance_delay_ms: u64,
    /// `group.max.size`: members of one group.
    pub member_count_max: usize,
    /// `offset.metadata.max.bytes`: the text beside one committed offset.
    pub offset_metadata_size_max: usize,
    /// `offsets.retention.minutes`, in milliseconds: how long the offsets of a group without
    /// members are kept.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub expiry_interval_ms: u64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            partition_count: 50,
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 0,
            member_count_max: usize::MAX,
            offset_metadata_size_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600 * 1_000,
            expiry_interval_ms: 600_000,
        }
    }
}
