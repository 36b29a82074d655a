//! What the replicated log tells its shard.

use bytes::Bytes;
use model::{LogIndex, RaftGroupId, Term};
use replication::{CommittedEntry, Descriptor};

/// What happened in the log, for the shard to act on, in order.
pub(crate) enum LogEvent {
    /// Entries up to `index` are durable on a majority.
    Committed { group: RaftGroupId, index: LogIndex },
    /// Committed entries, once each, in order.
    Apply { group: RaftGroupId, entries: Vec<CommittedEntry> },
    /// Entries from `from` on were never committed and are gone.
    Truncated { group: RaftGroupId, from: LogIndex },
    /// An entry that another broker proposed is on its way into the WAL.
    Appended {
        group: RaftGroupId,
        index: LogIndex,
        term: Term,
        descriptor: Descriptor,
        payload: Bytes,
    },
    /// A snapshot of the leader stands for a group's log up to `index`.
    Installed { group: RaftGroupId, index: LogIndex, snapshot: Bytes },
    /// `leader`: its number among the voters, once it is known; `leads`: the term, if this broker
    /// leads in it.
    RoleChanged { group: RaftGroupId, term: Term, leader: Option<u64>, leads: Option<Term> },
    /// A read that [`ReplicatedLog::read`] started is over; no payload if it failed.
    Read { token: u64, payload: Option<Bytes> },
}

impl LogEvent {
    /// The group that it is of.
    pub(crate) fn group(&self) -> Option<RaftGroupId> {
        match self {
            Self::Committed { group, .. }
            | Self::Apply { group, .. }
            | Self::Truncated { group, .. }
            | Self::Appended { group, .. }
            | Self::Installed { group, .. }
            | Self::RoleChanged { group, .. } => Some(*group),
            Self::Read { .. } => None,
        }
    }
}
