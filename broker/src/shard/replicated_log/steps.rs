//! What raft wants persisted and the WAL has not taken yet.

use std::collections::VecDeque;

use bytes::Bytes;
use model::RaftGroupId;
use replication::{PersistEntry, Ticket};
use wal_uring::StreamId;

use super::group_of;

/// One step of what raft wants persisted.
pub(super) enum Step {
    Entry {
        group: RaftGroupId,
        entry: PersistEntry,
    },
    State {
        stream: StreamId,
        state: Bytes,
    },
    /// The group is not on this broker any more.
    Gone {
        group: RaftGroupId,
        record: Bytes,
    },
    /// All steps of its group before it belong to this ticket.
    Report(Ticket),
}

impl Step {
    fn group(&self) -> RaftGroupId {
        match self {
            Self::Entry { group, .. } | Self::Gone { group, .. } => *group,
            Self::State { stream, .. } => group_of(*stream),
            Self::Report(ticket) => ticket.group(),
        }
    }
}

/// The steps of group 0, and those of the others: each in order. A broker whose WAL is full of
/// records gives none of them up before it knows the newest metadata, so those never wait behind
/// records.
#[derive(Default)]
pub(super) struct Steps([VecDeque<Step>; 2]);

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(VecDeque::is_empty)
    }

    pub(super) fn push(&mut self, step: Step) {
        self.0[usize::from(step.group() != RaftGroupId::METADATA)].push_back(step);
    }

    /// Drops what is to be written of a group; returns the bytes of the payloads among it.
    pub(super) fn forget(&mut self, group: RaftGroupId) -> usize {
        let mut size = 0;
        for queue in &mut self.0 {
            queue.retain(|step| {
                let is_of_it = step.group() == group;
                if let (true, Step::Entry { entry, .. }) = (is_of_it, step) {
                    size += entry.payload.len();
                }
                !is_of_it
            });
        }
        size
    }

    /// Takes the steps that `taken` says yes to, each queue up to its first no.
    pub(super) fn take_while(&mut self, mut taken: impl FnMut(&Step) -> bool) {
        for queue in &mut self.0 {
            while queue.pop_front_if(|step| taken(step)).is_some() {}
        }
    }
}
