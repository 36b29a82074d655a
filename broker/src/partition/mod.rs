//! The log of one partition, on the shard that owns it: pure state, no I/O, no clock, no raft.
//!
//! An entry of the raft group's log holds one batch of one partition. This module decides what may
//! be appended (`append`), knows where each batch is (`batch_index`) and what a reader may see
//! (`read`, `list_offsets`). All of it can be rebuilt from the entries' descriptors.
//!
//! ```text
//! log start    local start      high watermark       log end     offsets of the partition
//!    |             |  committed       |    appended     |
//!    + . . . . . . +----+----+---..---+----+----+-------+
//!        remote      17   20            90   93   94            indexes of the group's raft log
//! ```
//!
//! What is below the local start is in the object store, and its entries may be gone from the raft
//! log: a snapshot of the group stands for them (`snapshot`).

mod append;
mod batch_index;
mod descriptor;
mod epoch_cache;
mod list_offsets;
mod moved;
mod producer_state;
mod read;
mod snapshot;
mod tail_cache;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use model::{LeaderEpoch, LogIndex, Offset, PartitionId, Term};

pub use append::{AppendError, NewBatch, Prepared, Submission};
pub use descriptor::{
    DESCRIPTOR_SIZE, DescriptorError, EntryDescriptor, KIND_BATCH, KIND_EDIT, KIND_METADATA_FIRST,
    ProducerStamp, entry_kind,
};
pub use epoch_cache::{EpochEnd, EpochWentBack, leader_epoch};
pub use list_offsets::{
    SearchError, Sought, TimestampCandidate, TimestampCandidates, TimestampedOffset,
};
pub use moved::{Origin, raised};
pub use producer_state::{Duplicate, FirstSequence, ProducerError};
pub use read::{Piece, ReadError, ReadPlan, StoredBatch, VisibleEnd};
pub use tail_cache::{TailBudget, Victim};

use batch_index::{BatchEntry, BatchIndex};
use epoch_cache::EpochCache;
use producer_state::Producers;
use tail_cache::TailCache;

/// **Invariant**: `log_start <= local_start <= high_watermark <= log_end`, and the batches of the
/// index are dense from the one that contains the local start to the log end.
#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    log_start: Offset,
    high_watermark: Offset,
    log_end: Offset,
    /// The group's log is committed up to here.
    committed_index: LogIndex,
    /// The entry of the last batch, or 0.
    last_index: LogIndex,
    /// The entry of the last batch that left the index at its front, trimmed or released, or 0.
    dropped_index: LogIndex,
    batches: BatchIndex,
    producers: Producers,
    epochs: EpochCache,
    tail: TailCache,
    /// How it came to its group.
    origin: Origin,
    /// It takes no more records: it moves to another group.
    sealed: bool,
    /// Bytes of all batches that were put behind the log since it is in memory.
    written: u64,
}

/// Why an entry does not continue a partition's log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReplayError {
    #[error("an entry of partition {found} given to partition {expected}")]
    OtherPartition { expected: PartitionId, found: PartitionId },
    #[error("entry {index} is at offset {found}, but the log ends at {expected}")]
    OffsetGap { index: LogIndex, expected: Offset, found: Offset },
    #[error("entry {found} after entry {last}")]
    IndexWentBack { last: LogIndex, found: LogIndex },
    #[error(transparent)]
    EpochWentBack(#[from] EpochWentBack),
}

/// Committed entries cannot be replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("truncation from entry {from}, but {committed} is committed")]
pub struct TruncateError {
    pub from: LogIndex,
    pub committed: LogIndex,
}

/// Only what is committed can be trimmed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("trim to offset {to}, but the high watermark is {high_watermark}")]
pub struct TrimError {
    pub to: Offset,
    pub high_watermark: Offset,
}

impl Partition {
    /// An empty log at offset 0.
    pub fn new(id: PartitionId) -> Self {
        Self::starting_at(id, Offset::ZERO)
    }

    /// An empty log whose next record gets offset `log_start`: what is below was trimmed.
    pub fn starting_at(id: PartitionId, log_start: Offset) -> Self {
        Self {
            id,
            log_start,
            high_watermark: log_start,
            log_end: log_start,
            committed_index: LogIndex::default(),
            last_index: LogIndex::default(),
            dropped_index: LogIndex::default(),
            batches: BatchIndex::default(),
            producers: Producers::default(),
            epochs: EpochCache::default(),
            tail: TailCache::default(),
            origin: Origin::default(),
            sealed: false,
            written: 0,
        }
    }

    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The first readable offset.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The first offset whose batch is in the raft log of this replica, as far as this log needs
    /// it: what is below is in the object store. The log end if there is none.
    pub fn local_start(&self) -> Offset {
        self.local_base().max(self.log_start)
    }

    /// Bytes of all batches that came since the log is in memory: what it grows by is its load.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes of the batches from the one that contains the local start on.
    pub fn local_size(&self) -> u64 {
        self.batches.size()
    }

    /// The next offset to be assigned.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// End of the committed prefix, exclusive.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// End of the prefix without open transactions, exclusive: the high watermark as long as there
    /// are no transactions.
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark
    }

    pub fn visible_end(&self, end: VisibleEnd) -> Offset {
        match end {
            VisibleEnd::HighWatermark => self.high_watermark(),
            VisibleEnd::LastStable => self.last_stable_offset(),
        }
    }

    /// The oldest raft entry that this log needs; None if it needs none.
    pub fn first_index(&self) -> Option<LogIndex> {
        self.batches.first().map(|entry| entry.index)
    }

    /// Records of this log are not all committed.
    pub fn has_uncommitted(&self) -> bool {
        self.high_watermark < self.log_end
    }

    /// Producers whose state is kept.
    pub fn producer_count(&self) -> usize {
        self.producers.count()
    }

    /// Is the state of that producer kept?
    pub fn has_producer(&self, id: i64) -> bool {
        self.producers.has(id)
    }

    /// The highest id of a producer whose state is kept.
    pub fn producer_id_last(&self) -> Option<i64> {
        self.producers.id_last()
    }

    /// An entry of the raft log as recovery or a follower sees it. One whose batch is in the
    /// snapshot that this log was restored from, because it had been trimmed or released, changes
    /// nothing.
    pub fn replay(
        &mut self,
        index: LogIndex,
        term: Term,
        batch: &EntryDescriptor,
    ) -> Result<(), ReplayError> {
        if batch.partition != self.id {
            return Err(ReplayError::OtherPartition { expected: self.id, found: batch.partition });
        }
        if index <= self.dropped_index {
            return Ok(());
        }
        if index <= self.last_index {
            return Err(ReplayError::IndexWentBack { last: self.last_index, found: index });
        }
        let (expected, found) = (self.log_end, batch.base_offset);
        if found != expected {
            return Err(ReplayError::OffsetGap { index, expected, found });
        }
        self.epochs.assign(self.epoch_of(term), expected)?;
        self.push(batch, index);
        self.advance_high_watermark();
        Ok(())
    }

    /// Keeps the bytes of a replayed batch for readers, unless younger ones are kept already.
    /// `batch` is a slice of a buffer of `allocation` bytes.
    pub fn keep_in_tail(
        &mut self,
        base_offset: Offset,
        batch: Bytes,
        allocation: usize,
        budget: &mut TailBudget,
    ) {
        if base_offset >= self.local_base() {
            self.tail.push(self.id, base_offset, batch, allocation, budget);
        }
    }

    /// The group's log is committed up to `index`. True if the high watermark moved.
    pub fn committed(&mut self, index: LogIndex) -> bool {
        self.committed_index = self.committed_index.max(index);
        self.advance_high_watermark()
    }

    /// The group's log from `from` on is replaced. Everything is as before those entries.
    pub fn truncate(
        &mut self,
        from: LogIndex,
        budget: &mut TailBudget,
    ) -> Result<(), TruncateError> {
        if from <= self.committed_index {
            return Err(TruncateError { from, committed: self.committed_index });
        }
        if let Some(log_end) = self.batches.truncate(from) {
            self.log_end = log_end;
            self.producers.truncate(from);
            self.tail.truncate(log_end, budget);
            self.last_index = self.batches.last().map_or(self.committed_index, |last| last.index);
        }
        // Also an epoch that began here and wrote nothing.
        self.epochs.truncate(self.log_end);
        Ok(())
    }

    /// Forgets the records below `to`: it is the new log start. No change if it is below the
    /// present.
    pub fn trim_to(&mut self, to: Offset, budget: &mut TailBudget) -> Result<(), TrimError> {
        if to > self.high_watermark {
            return Err(TrimError { to, high_watermark: self.high_watermark });
        }
        if to > self.log_start {
            self.log_start = to;
            let dropped = self.batches.trim(to);
            self.dropped(dropped, budget);
            self.epochs.trim(to);
        }
        Ok(())
    }

    /// The batches of the raft entries up to `index` are in the object store: readers find them
    /// there from now on.
    ///
    /// # Panics
    ///
    /// If one of them is not committed: it could be replaced, and would still be in the store.
    pub fn release_before(&mut self, index: LogIndex, budget: &mut TailBudget) {
        let last = self.batches.at_or_before(index);
        let end = last.map_or(self.log_start, BatchEntry::end_offset);
        let high_watermark = self.high_watermark;
        assert!(end <= high_watermark, "release to {end}, but {high_watermark} is committed");
        let dropped = self.batches.release(index);
        self.dropped(dropped, budget);
    }

    /// Everything below `to` was deleted, also what this log never had: it is empty and goes on
    /// there. What producers wrote last stays known.
    ///
    /// # Panics
    ///
    /// If it has records at or above `to`, or some that are not released.
    pub fn skip_to(&mut self, to: Offset) {
        assert!(
            self.log_end <= to && self.batches.first().is_none(),
            "records are left below {to}"
        );
        (self.log_start, self.high_watermark, self.log_end) = (to, to, to);
        self.epochs.trim(to);
    }

    /// This replica leads from now on: the term's epoch begins at the log end.
    pub fn become_leader(&mut self, term: Term) -> Result<(), EpochWentBack> {
        self.epochs.assign(self.epoch_of(term), self.log_end)
    }

    /// The newest epoch of this log.
    pub fn latest_leader_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest()
    }

    /// The epoch in which the record at `offset` was written.
    pub fn leader_epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs.at(offset)
    }

    /// The answer of OffsetForLeaderEpoch; None stands for -1/-1.
    pub fn epoch_end(&self, asked: LeaderEpoch) -> Option<EpochEnd> {
        self.epochs.end_of(asked, self.log_end)
    }

    /// Whether the log of a fetcher that has records of `last_fetched` up to `fetch_offset` is
    /// another one than this, and if so, where this one can still be the same (Fetch v12+). An
    /// epoch that is not known here is out of range: `Err`.
    pub fn diverging_epoch(
        &self,
        last_fetched: LeaderEpoch,
        fetch_offset: Offset,
    ) -> Result<Option<EpochEnd>, ReadError> {
        let (log_start, log_end) = (self.log_start, self.log_end);
        let out_of_range = ReadError::OutOfRange { from: fetch_offset, log_start, log_end };
        let end = self.epoch_end(last_fetched).ok_or(out_of_range)?;
        let diverges = end.epoch < last_fetched || end.end_offset < fetch_offset;
        Ok(diverges.then_some(end))
    }

    /// Forgets producers idle since before `now - expiration`, both ms. Returns how many.
    pub fn expire_producers(&mut self, now: i64, expiration: i64) -> usize {
        self.producers.expire(now.saturating_sub(expiration), self.committed_index)
    }

    /// Drops a batch that the shard's budget chose.
    pub fn evict(&mut self, victim: Victim, budget: &mut TailBudget) {
        self.tail.evict(victim, budget);
    }

    /// Gives back the tail's memory: the partition is deleted or moves away.
    pub fn drop_tail(&mut self, budget: &mut TailBudget) {
        self.tail.truncate(Offset::ZERO, budget);
    }

    /// Bytes of memory, without the cached batches: those are the budget's.
    pub fn memory_size(&self) -> usize {
        size_of::<Self>()
            + self.batches.heap_size()
            + self.producers.heap_size()
            + self.epochs.heap_size()
            + self.tail.heap_size()
    }

    /// Offset of the first record in the index; the log start may be behind it, in the same batch.
    fn local_base(&self) -> Offset {
        self.batches.first().map_or(self.log_end, |entry| entry.base_offset)
    }

    /// After batches have left the index at its front, the last of them of entry `index`. Their
    /// cached bytes go, too: whoever reads below the local start asks the object tier, and never
    /// looks here.
    fn dropped(&mut self, index: Option<LogIndex>, budget: &mut TailBudget) {
        if let Some(index) = index {
            self.dropped_index = index;
            self.tail.trim(self.local_base(), budget);
        }
    }

    fn advance_high_watermark(&mut self) -> bool {
        if !self.has_uncommitted() {
            return false;
        }
        let committed = self.batches.at_or_before(self.committed_index);
        let end = committed.map_or(self.high_watermark, |entry| entry.end_offset());
        let moved = end > self.high_watermark;
        self.high_watermark = self.high_watermark.max(end);
        moved
    }
}
