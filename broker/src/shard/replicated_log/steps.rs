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
    /// All steps of its group before it belong to this ticket.
    Report(Ticket),
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
        let group = match &step {
            Step::Entry { group, .. } => *group,
            Step::State { stream, .. } => group_of(*stream),
            Step::Report(ticket) => ticket.group(),
        };
        self.0[usize::from(group != RaftGroupId::METADATA)].push_back(step);
    }

    /// Takes the steps that `taken` says yes to, each queue up to its first no.
    pub(super) fn take_while(&mut self, mut taken: impl FnMut(&Step) -> bool) {
        for queue in &mut self.0 {
            while queue.pop_front_if(|step| taken(step)).is_some() {}
        }
    }
}
