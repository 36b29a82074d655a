//! The log of one group as raft reads it: descriptors in memory, never a wait for the disk.
//!
//! A slot takes 96 bytes and owns nothing on the heap. raft's `Entry` is built when raft asks for
//! one; only an entry that is about to be sent carries its descriptor (`data`) and its payload
//! (`context`, by reference).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use raft::eraftpb::{Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

use crate::descriptor::{DESCRIPTOR_SIZE_MAX, Descriptor};
use crate::members::{Members, entry_type};
use crate::payload::PayloadWindow;
use crate::state::{HardRecord, Mark, SnapshotRecord};

/// Location of an entry that the WAL has not placed yet.
const UNPLACED: u64 = u64::MAX;
/// What an entry weighs on the wire beside its descriptor and payload.
const ENTRY_OVERHEAD: u64 = 16;

const _: () = assert!(size_of::<Slot>() == 96);

/// What is kept in memory of one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) term: u64,
    location: u64,
    /// `None`: the empty entry of a new leader.
    pub(crate) descriptor: Option<Descriptor>,
}

impl Slot {
    pub(crate) fn new(term: u64, descriptor: Option<Descriptor>) -> Self {
        Self { term, location: UNPLACED, descriptor }
    }

    pub(crate) fn placed(term: u64, descriptor: Option<Descriptor>, location: u64) -> Self {
        Self { term, location, descriptor }
    }

    /// What the application has to know of the entry: nothing of those that are raft's own.
    pub(crate) fn of_application(&self) -> Option<Descriptor> {
        self.descriptor.filter(|descriptor| !descriptor.changes_members)
    }

    pub(crate) fn location(&self) -> Option<u64> {
        (self.location != UNPLACED).then_some(self.location)
    }
}

/// Entries above the mark, the payloads that are in memory, and the group's hard state.
#[derive(Debug)]
pub(crate) struct LogStorage {
    pub(crate) hard: HardState,
    /// Data of the snapshot that stands for everything up to the mark.
    snapshot: Bytes,
    /// Who took part at the mark.
    members: Members,
    /// Who took part after each change above the mark that is applied, by its index.
    changes: VecDeque<(u64, Members)>,
    mark: Mark,
    slots: VecDeque<Slot>,
    pub(crate) payloads: PayloadWindow,
}

impl LogStorage {
    /// An empty log. Without voters it is that of a node which is new to its group.
    pub(crate) fn new(voters: Vec<u64>) -> Self {
        Self {
            hard: HardState::default(),
            snapshot: Bytes::new(),
            members: Members::of_voters(voters),
            changes: VecDeque::new(),
            mark: Mark::default(),
            slots: VecDeque::new(),
            payloads: PayloadWindow::default(),
        }
    }

    /// A log read back from the WAL: `slots` begin right above `snapshot`'s mark.
    pub(crate) fn recovered(
        hard: HardState,
        snapshot: SnapshotRecord,
        slots: VecDeque<Slot>,
        payloads: PayloadWindow,
    ) -> Self {
        let SnapshotRecord { mark, members, data } = snapshot;
        Self { hard, snapshot: data, members, changes: VecDeque::new(), mark, slots, payloads }
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    pub(crate) fn first(&self) -> u64 {
        self.mark.index + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.mark.index + self.slots.len() as u64
    }

    pub(crate) fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(self.position(index)?)
    }

    /// Appends the entry after the last. Its payload is kept until it is released.
    pub(crate) fn append(&mut self, slot: Slot, payload: Bytes) {
        self.slots.push_back(slot);
        if slot.descriptor.is_some() {
            self.payloads.push(self.last(), payload);
        }
    }

    /// Drops the entries at `from` and above; they were never committed.
    pub(crate) fn truncate(&mut self, from: u64) {
        let length = self.position(from).expect("raft never truncates what is compacted");
        self.slots.truncate(length);
        self.payloads.truncate(from);
    }

    /// Notes where the WAL put an entry, if that entry is still the one in the log.
    pub(crate) fn place(&mut self, index: u64, term: u64, location: u64) {
        let slot = self.position(index).and_then(|position| self.slots.get_mut(position));
        if let Some(slot) = slot.filter(|slot| slot.term == term) {
            slot.location = location;
        }
    }

    /// Drops the entries up to `index`, for which `snapshot` stands from now on.
    pub(crate) fn compact(&mut self, index: u64, snapshot: Bytes) {
        let term = self.slot(index).expect("compaction is checked against the log").term;
        let count = self.position(index).map_or(0, |position| position + 1);
        self.slots.drain(..count);
        self.mark = Mark { index, term };
        self.snapshot = snapshot;
        while let Some((_, members)) = self.changes.pop_front_if(|(at, _)| *at <= index) {
            self.members = members;
        }
        self.release_payloads(index);
    }

    /// Replaces the whole log by a snapshot from the leader.
    pub(crate) fn install(&mut self, snapshot: &SnapshotRecord) {
        self.slots.clear();
        self.payloads.truncate(0);
        self.mark = snapshot.mark;
        self.members.clone_from(&snapshot.members);
        self.changes.clear();
        self.snapshot = snapshot.data.clone();
    }

    pub(crate) fn snapshot_record(&self) -> SnapshotRecord {
        let (mark, members) = (self.mark, self.members.clone());
        SnapshotRecord { mark, members, data: self.snapshot.clone() }
    }

    pub(crate) fn hard_record(&self) -> HardRecord {
        let HardState { term, vote, commit, .. } = self.hard;
        // After compaction or a snapshot, raft reports the commit index that goes with it only in a
        // later Ready. A mark above the commit index would be a state that no recovery accepts.
        let commit = commit.max(self.mark.index);
        HardRecord { term, vote, commit, mark: self.mark, voters: self.members.voters.clone() }
    }

    /// Drops the payloads up to `to` that can be read back from the WAL, oldest first, while more
    /// than `keep` bytes are held.
    pub(crate) fn release_placed(&mut self, to: u64, keep: usize) {
        while let Some(first) = self.payloads.first()
            && first <= to
            && (self.payloads.size() > keep || self.payloads.get(first).is_none())
            && self.slot(first).is_none_or(|slot| slot.location().is_some())
        {
            self.payloads.release_first();
        }
    }

    fn release_payloads(&mut self, to: u64) {
        while self.payloads.first().is_some_and(|first| first <= to) {
            self.payloads.release_first();
        }
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first())?).ok()
    }

    /// Who takes part now, by all that is applied.
    pub(crate) fn members(&self) -> &Members {
        self.changes.back().map_or(&self.members, |(_, members)| members)
    }

    /// The entry since which it has been they; the mark, if none above it changed that.
    pub(crate) fn members_since(&self) -> u64 {
        self.changes.back().map_or(self.mark.index, |(index, _)| *index)
    }

    /// The entry at `index` is applied: these take part from now on.
    pub(crate) fn set_members(&mut self, index: u64, members: Members) {
        self.changes.push_back((index, members));
    }

    /// Does a snapshot of this log tell its receiver that it takes part?
    pub(crate) fn snapshot_names(&self, member: u64) -> bool {
        self.mark.index > 0 && self.members.contains(member)
    }

    /// `arena` is given for entries that are about to be sent.
    fn entry(&self, index: u64, slot: &Slot, arena: Option<&mut BytesMut>) -> Entry {
        let mut entry = Entry { term: slot.term, index, ..Entry::default() };
        entry.entry_type = slot.descriptor.as_ref().map_or(EntryType::EntryNormal, entry_type);
        if let (Some(descriptor), Some(arena)) = (&slot.descriptor, arena) {
            descriptor.encode(arena);
            entry.data = arena.split().freeze();
            entry.context = self.payloads.get(index).cloned().unwrap_or_default();
        }
        entry
    }
}

impl raft::Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard.clone(), conf_state: self.members.to_raft() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        size_max: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let start = self.position(low).ok_or(raft::Error::Store(StorageError::Compacted))?;
        let count = usize::try_from(high - low).expect("a log fits into memory");
        let size_max = size_max.into().unwrap_or(u64::MAX);
        // Only a read for sending may be asynchronous; every other one wants terms and types alone.
        let mut arena = context.can_async().then(BytesMut::new);
        let (mut entries, mut size) = (Vec::new(), 0);
        for (index, slot) in (low..).zip(self.slots.range(start..start + count)) {
            size += weight(slot);
            if size > size_max && !entries.is_empty() {
                break;
            }
            if let Some(arena) = &mut arena {
                arena.reserve(DESCRIPTOR_SIZE_MAX);
            }
            entries.push(self.entry(index, slot, arena.as_mut()));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.mark.index {
            return Ok(self.mark.term);
        }
        if index < self.mark.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let slot = self.slot(index).ok_or(raft::Error::Store(StorageError::Unavailable))?;
        Ok(slot.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Not for one that joined after the mark: it would not take it.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        if !self.snapshot_names(to) || self.mark.index < request_index {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot { data: self.snapshot.clone(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = self.mark.index;
        metadata.term = self.mark.term;
        metadata.set_conf_state(self.members.to_raft());
        Ok(snapshot)
    }
}

/// Bytes that an entry takes in a message: raft limits messages by this.
fn weight(slot: &Slot) -> u64 {
    let data = slot.descriptor.map_or(0, |d| d.encoded_size() as u64 + u64::from(d.payload_len));
    ENTRY_OVERHEAD + data
}
