//! Names of things that the cluster numbers.

identifier! {
    /// Kafka's broker id, as Metadata lists it.
    NodeId(i32)
}

identifier! {
    /// A partition, numbered by group 0 when its topic is created and never reused.
    PartitionId(u64)
}

identifier! {
    /// A raft group. A group holds many partitions; group 0 holds the cluster's metadata.
    RaftGroupId(u64)
}

impl RaftGroupId {
    /// The group whose state machine is the cluster's metadata.
    pub const METADATA: Self = Self::new(0);
}

identifier! {
    /// A core's slice of a broker, counted from 0.
    ShardId(u16)
}
