//! One group's log, rebuilt from what the WAL still holds.

use std::collections::VecDeque;

use bytes::Bytes;
use model::RaftGroupId;
use raft::eraftpb::HardState;

use crate::descriptor::{Descriptor, DescriptorError};
use crate::payload::PayloadWindow;
use crate::state::{HardRecord, Mark, SnapshotRecord, StateError, StateRecord};
use crate::storage::{LogStorage, Slot};

/// Why a WAL does not hold a group that could run. None of them is repaired by guessing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecoverError {
    #[error("group {group}, entry {index}: {source}")]
    Entry { group: RaftGroupId, index: u64, source: DescriptorError },
    #[error("group {group}: {source}")]
    State { group: RaftGroupId, source: StateError },
    #[error("group {group}: no group has such a number")]
    Number { group: RaftGroupId },
    #[error("group {group} has entries but no state record")]
    NoState { group: RaftGroupId },
    #[error("group {group} is compacted to {mark}, its snapshot only reaches {snapshot}")]
    SnapshotBehind { group: RaftGroupId, mark: u64, snapshot: u64 },
    #[error("group {group} is compacted to {mark}, its entries begin at {first}")]
    Gap { group: RaftGroupId, mark: u64, first: u64 },
    #[error("group {group} had committed {commit}, its entries end at {last}")]
    CommitBeyondLog { group: RaftGroupId, commit: u64, last: u64 },
}

/// Gathers one group's records in the order of the WAL.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// The group was removed, and what else is here came after that.
    gone: bool,
    hard: Option<HardRecord>,
    snapshot: SnapshotRecord,
    /// Index of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    payloads: PayloadWindow,
}

impl Recovery {
    /// An entry below the end replaces the suffix from there on, as it did when it was written. One
    /// beyond the end follows a snapshot that replaced the log; [`Self::finish`] makes sure that
    /// there is one.
    pub(crate) fn entry(
        &mut self,
        term: u64,
        index: u64,
        data: &[u8],
        location: u64,
    ) -> Result<(), DescriptorError> {
        let (descriptor, payload) = split(data)?;
        let kept = index
            .checked_sub(self.first)
            .and_then(|kept| usize::try_from(kept).ok())
            .filter(|kept| *kept <= self.slots.len());
        if kept.is_none() {
            self.first = index;
        }
        self.slots.truncate(kept.unwrap_or(0));
        self.payloads.truncate(if kept.is_some() { index } else { 0 });
        self.slots.push_back(Slot::placed(term, descriptor, location));
        if let Some(payload) = payload {
            self.payloads.push(index, Bytes::copy_from_slice(payload));
        }
        Ok(())
    }

    /// A snapshot acts on the entries before it as it did when it was written; those after it
    /// follow it. Of each kind the last record counts.
    pub(crate) fn state(&mut self, data: &[u8]) -> Result<(), StateError> {
        match StateRecord::decode(data)? {
            StateRecord::State(hard) => self.hard = Some(hard),
            // It may have been made anew since.
            StateRecord::Gone => *self = Self { gone: true, ..Self::default() },
            StateRecord::Snapshot(snapshot) => {
                self.drop_compacted(snapshot.mark);
                self.snapshot = snapshot;
            }
        }
        Ok(())
    }

    /// Was the group removed, and not made anew since?
    pub(crate) fn is_gone(&self) -> bool {
        self.gone && self.hard.is_none() && self.slots.is_empty()
    }

    /// Puts entries, mark and hard state together, or says why they do not fit.
    pub(crate) fn finish(mut self, group: RaftGroupId) -> Result<LogStorage, RecoverError> {
        let hard = self.hard.take().ok_or(RecoverError::NoState { group })?;
        // Written before the state that names it, the snapshot may be ahead of the mark, never
        // behind.
        let mark = self.snapshot.mark;
        if mark.index < hard.mark.index {
            let (mark, snapshot) = (hard.mark.index, mark.index);
            return Err(RecoverError::SnapshotBehind { group, mark, snapshot });
        }
        if mark.index == 0 {
            self.snapshot.members.voters.clone_from(&hard.voters);
        }
        if !self.slots.is_empty() && self.first != mark.index + 1 {
            return Err(RecoverError::Gap { group, mark: mark.index, first: self.first });
        }
        let (commit, last) = (hard.commit.max(mark.index), mark.index + self.slots.len() as u64);
        if commit > last {
            return Err(RecoverError::CommitBeyondLog { group, commit, last });
        }
        let last_term = self.slots.back().map_or(mark.term, |slot| slot.term);
        let hard = hard_state(&hard, commit, last_term);
        Ok(LogStorage::recovered(hard, self.snapshot, self.slots, self.payloads))
    }

    /// Leaves only what follows the mark. If the log does not have the snapshot's last entry, the
    /// leader's snapshot replaced all of it.
    fn drop_compacted(&mut self, mark: Mark) {
        let at_mark = mark.index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        match at_mark {
            Some(at) if self.slots.get(at).is_some_and(|slot| slot.term == mark.term) => {
                self.slots.drain(..=at);
                self.first = mark.index + 1;
            }
            Some(_) => self.slots.clear(),
            None => return,
        }
        if self.slots.is_empty() {
            self.payloads.truncate(0);
        }
        while self.payloads.first().is_some_and(|first| first <= mark.index) {
            self.payloads.release_first();
        }
    }
}

/// Descriptor of an entry's data, and its payload if it has to stay in memory.
fn split(data: &[u8]) -> Result<(Option<Descriptor>, Option<&[u8]>), DescriptorError> {
    if data.is_empty() {
        return Ok((None, None));
    }
    let descriptor = Descriptor::decode(data)?;
    let payload = data.get(descriptor.encoded_size()..).unwrap_or_default();
    if descriptor.resident {
        descriptor.verify(payload)?;
        return Ok((Some(descriptor), Some(payload)));
    }
    // The WAL has checked the bytes themselves.
    if u32::try_from(payload.len()) != Ok(descriptor.payload_len) {
        let (expected, found) = (descriptor.payload_len, payload.len());
        return Err(DescriptorError::PayloadLen { expected, found });
    }
    Ok((Some(descriptor), None))
}

/// A crash between a new leader's entries and the state that names its term leaves a log ahead of
/// the term: the term then is the log's, and no vote has been given in it.
fn hard_state(hard: &HardRecord, commit: u64, last_term: u64) -> HardState {
    let (term, vote) = if hard.term < last_term { (last_term, 0) } else { (hard.term, hard.vote) };
    HardState { term, vote, commit, ..HardState::default() }
}
