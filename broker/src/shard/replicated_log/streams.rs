//! Which streams of the WAL a raft group has.

use model::RaftGroupId;
use wal_uring::StreamId;

/// The WAL stream of a group's entries and hard state.
pub(crate) const fn stream(group: RaftGroupId) -> StreamId {
    StreamId::new(2 * group.get())
}

/// The WAL stream of a group's snapshot record: a stream keeps only its latest state.
pub(crate) const fn snapshot_stream(group: RaftGroupId) -> StreamId {
    StreamId::new(2 * group.get() + 1)
}

/// The group that a WAL stream belongs to.
pub(crate) const fn group_of(stream: StreamId) -> RaftGroupId {
    RaftGroupId::new(stream.get() / 2)
}
