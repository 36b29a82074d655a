//! What a driver asks of its shard.

use bytes::Bytes;
use model::{LogIndex, RaftGroupId, Term};

use crate::{Descriptor, Heartbeats, Message};

/// One thing to do, in the order in which [`crate::Driver::poll_action`] returns it.
#[derive(Clone, Debug)]
pub enum Action {
    /// Append to the WAL: every entry, then the snapshot, then the state, in this order. Report
    /// each entry's place with [`crate::Driver::placed`], and the ticket with
    /// [`crate::Driver::handle_persisted`] once all of it is durable.
    Persist {
        group: RaftGroupId,
        ticket: Ticket,
        entries: Vec<PersistEntry>,
        /// A state record of the group's snapshot stream; replaces the one before it.
        snapshot: Option<Bytes>,
        /// A state record of the group's hard-state stream; replaces the one before it.
        state: Option<Bytes>,
    },
    /// Send to another node. A lost message costs time, never safety.
    Send { to: u64, message: Message },
    /// The same for the heartbeats of all groups, and answers to those of the other node: one
    /// message.
    SendHeartbeats { to: u64, heartbeats: Heartbeats },
    /// Everything up to `index` is durable on a majority: acknowledge it.
    Committed { group: RaftGroupId, index: LogIndex },
    /// Committed entries in log order, without gaps, durable on this node.
    Apply { group: RaftGroupId, entries: Vec<CommittedEntry> },
    /// The uncommitted entries at `from` and above were replaced by another leader's.
    Truncated { group: RaftGroupId, from: LogIndex },
    /// The group's role, term or known leader changed on this node.
    RoleChanged { group: RaftGroupId, role: Role, term: Term, leader: Option<u64> },
    /// Read an entry's data at `location` for a follower that lags; answer with
    /// [`crate::Driver::handle_payload`].
    ReadPayload { group: RaftGroupId, term: Term, index: LogIndex, location: u64 },
    /// A snapshot replaces the application's state of this group. It comes from the leader, or from
    /// this node's own WAL at start; the next applied entry is `index` + 1.
    InstallSnapshot { group: RaftGroupId, index: LogIndex, term: Term, data: Bytes },
    /// The compaction up to `index` is durable: the WAL may drop those entries.
    Compacted { group: RaftGroupId, index: LogIndex },
}

/// Names one [`Action::Persist`]; the tickets of a group come back in the order in which they went
/// out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ticket {
    pub(crate) group: RaftGroupId,
    pub(crate) number: u64,
}

impl Ticket {
    /// The group whose write it is.
    pub const fn group(&self) -> RaftGroupId {
        self.group
    }
}

/// An entry on its way to the WAL; its data there is the descriptor followed by the payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PersistEntry {
    pub term: Term,
    pub index: LogIndex,
    /// The encoded descriptor; no bytes for the empty entry of a new leader.
    pub descriptor: Bytes,
    pub payload: Bytes,
    /// CRC-32C of the payload, as its descriptor says.
    pub payload_crc: u32,
}

/// An entry that a majority holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommittedEntry {
    pub term: Term,
    pub index: LogIndex,
    /// `None`: the empty entry of a new leader, or a change of members.
    pub descriptor: Option<Descriptor>,
    /// Always there for a resident entry; for others only while it happens to be in memory.
    pub payload: Option<Bytes>,
}

/// What a node is to a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    Follower,
    /// Asks for votes, or whether it would get them.
    Candidate,
    Leader,
}
