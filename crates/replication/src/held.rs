//! Messages that wait for a payload to be read back from the WAL, for followers that lag.

use std::collections::VecDeque;

use bytes::Bytes;
use model::{LogIndex, RaftGroupId, Term};
use raft::eraftpb::{Message as Body, MessageType};

use crate::action::Action;
use crate::message::Message;
use crate::storage::LogStorage;

/// Messages of one group that may wait at once; beyond, a message counts as lost.
const HELD_MAX: usize = 64;
/// Payloads of one group that are read at once. raft-rs joins appends to one node without a limit,
/// and a WAL takes only so many reads: asking for all of them again and again would never end.
const READS_MAX: usize = 32;

/// Appends whose payloads are not all in memory, and every append to the same node behind them: out
/// of order they would be refused.
#[derive(Debug, Default)]
pub(crate) struct HeldMessages {
    messages: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    body: Body,
    /// Positions in `body.entries` whose payload is still missing.
    missing: Vec<usize>,
}

impl HeldMessages {
    /// Sends a message, or holds it and asks for its payloads. `false`: it had to be dropped.
    pub(crate) fn send(
        &mut self,
        group: RaftGroupId,
        mut body: Body,
        storage: &LogStorage,
        actions: &mut VecDeque<Action>,
    ) -> bool {
        if body.msg_type != MessageType::MsgAppend {
            push_send(group, body, actions);
            return true;
        }
        let Some(mut missing) = fill_from_memory(&mut body, storage) else { return false };
        if let Some(cut) = missing.get(READS_MAX).copied() {
            // A shorter append is as good; raft sends the rest again when the follower asks for it.
            body.entries.truncate(cut);
            missing.truncate(READS_MAX);
        }
        let waits = !missing.is_empty() || self.messages.iter().any(|held| held.body.to == body.to);
        if !waits {
            push_send(group, body, actions);
            return true;
        }
        let reads: usize = self.messages.iter().map(|held| held.missing.len()).sum();
        let full = self.messages.len() == HELD_MAX || reads + missing.len() > READS_MAX;
        if full && !self.messages.is_empty() {
            return false;
        }
        for position in &missing {
            let entry = &body.entries[*position];
            if !self.is_awaited(entry.term, entry.index) {
                let location = storage.slot(entry.index).and_then(|slot| slot.location());
                let location = location.expect("fill_from_memory found it");
                let (term, index) = (Term::new(entry.term), LogIndex::new(entry.index));
                actions.push_back(Action::ReadPayload { group, term, index, location });
            }
        }
        self.messages.push_back(Held { body, missing });
        true
    }

    /// Puts a payload into every message that waits for it.
    pub(crate) fn fill(&mut self, term: u64, index: u64, payload: &Bytes) {
        for held in &mut self.messages {
            let entries = &mut held.body.entries;
            held.missing.retain(|position| {
                let entry = &mut entries[*position];
                let found = entry.term == term && entry.index == index;
                if found {
                    entry.context = payload.clone();
                }
                !found
            });
        }
    }

    /// Drops every message that waits for a payload which cannot be read; says whose they were.
    pub(crate) fn abandon(&mut self, term: u64, index: u64) -> Vec<u64> {
        let mut unreachable = Vec::new();
        self.messages.retain(|held| {
            let awaits = held.awaits(term, index);
            if awaits {
                unreachable.push(held.body.to);
            }
            !awaits
        });
        unreachable
    }

    /// Sends what waits for nothing any more, in order per node.
    pub(crate) fn release(&mut self, group: RaftGroupId, actions: &mut VecDeque<Action>) {
        let mut blocked = Vec::new();
        for held in std::mem::take(&mut self.messages) {
            if held.missing.is_empty() && !blocked.contains(&held.body.to) {
                push_send(group, held.body, actions);
            } else {
                blocked.push(held.body.to);
                self.messages.push_back(held);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.messages.clear();
    }

    /// The descriptor of an awaited entry, to check what was read.
    pub(crate) fn is_awaited(&self, term: u64, index: u64) -> bool {
        self.messages.iter().any(|held| held.awaits(term, index))
    }
}

impl Held {
    fn awaits(&self, term: u64, index: u64) -> bool {
        self.missing.iter().any(|position| {
            let entry = &self.body.entries[*position];
            (entry.term, entry.index) == (term, index)
        })
    }
}

/// Completes a message's payloads from memory; positions of those that are in the WAL only, `None`
/// if one is nowhere any more.
fn fill_from_memory(body: &mut Body, storage: &LogStorage) -> Option<Vec<usize>> {
    let mut missing = Vec::new();
    for (position, entry) in body.entries.iter_mut().enumerate() {
        if entry.data.is_empty() || !entry.context.is_empty() {
            continue;
        }
        let slot = storage.slot(entry.index).filter(|slot| slot.term == entry.term)?;
        if slot.descriptor?.payload_len == 0 {
            continue;
        }
        match storage.payloads.get(entry.index) {
            Some(payload) => entry.context = payload.clone(),
            None => {
                slot.location()?;
                missing.push(position);
            }
        }
    }
    Some(missing)
}

fn push_send(group: RaftGroupId, body: Body, actions: &mut VecDeque<Action>) {
    let to = body.to;
    if let Some(message) = Message::new(group, body) {
        actions.push_back(Action::Send { to, message });
    }
}
