//! Kafka's per-partition term.

identifier! {
    /// Kafka's leader epoch of a partition (KIP-101): here the raft term of the partition's group.
    LeaderEpoch(i32)
}

impl LeaderEpoch {
    /// What a client sends that knows no epoch, and a broker answers that has none.
    pub const NONE: Self = Self::new(-1);
}
