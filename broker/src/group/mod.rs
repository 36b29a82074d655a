//! The coordinator of classic consumer groups: membership, assignments and committed offsets.
//!
//! Synchronous and without I/O, clock or randomness. [`Coordinator::handle`] takes a request;
//! [`Coordinator::poll_output`] gives replies, and records to append to `__consumer_offsets`.
//! Once such records are committed, or refused, [`Coordinator::appended`] says so, and only then
//! do the replies that depend on them go out. After a restart the same records, replayed through
//! [`Coordinator::load`], bring the groups back.
//!
//! A group lives in the partition of `__consumer_offsets` that [`partition_for`] names; the shard
//! that leads this partition coordinates the group.

mod classic;
mod config;
mod coordinator;
mod dump;
mod expiry;
mod join;
mod leave;
mod member;
mod offsets;
mod output;
mod record;
mod request;
mod restore;
mod sync;
#[cfg(test)]
mod tests;
mod timers;

pub use classic::GroupState;
pub use config::GroupConfig;
pub use coordinator::Coordinator;
pub use dump::{decode_records, encode_records};
pub use output::{AppendFailed, AppendToken, Output, ReplyToken};
pub use record::RecordError;
pub use request::{
    CommitOffset, CommitOffsetsRequest, CommittedOffset, FetchOffsetsRequest, GroupError,
    GroupRequest, GroupResponse, HeartbeatRequest, JoinRefused, JoinRequest, JoinedGroup,
    JoinedMember, LeaveRequest, LeavingMember, MemberLeft, OffsetCommitted, OffsetFetched,
    Operation, Protocol, SyncRequest, SyncedGroup, TopicPartitions,
};

use std::sync::Arc;

/// A group, member, instance, topic or protocol name: cheap to share.
pub type Name = Arc<str>;

/// The two clocks of a shard, read once per turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Milliseconds since a fixed moment, never going back; deadlines are in it.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970; written into records, compared with retention.
    pub unix_ms: i64,
}

/// The partition of `__consumer_offsets` a group lives in: Java's hash of the group id, without
/// its sign, modulo `partition_count`. Zero if there are no partitions.
pub fn partition_for(group: &str, partition_count: i32) -> i32 {
    let hash = group
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX).checked_rem(partition_count.max(1)).unwrap_or(0)
}
