//! What a fetch returns: which batches, and where each of them is.

use bytes::Bytes;
use model::{LogIndex, Offset};

use super::Partition;
use super::batch_index::BatchEntry;
use super::descriptor::EntryDescriptor;

/// Most batches of one plan; bounds the pieces of a response when batches are tiny.
const PIECES_MAX: usize = 4096;

/// Up to where a reader sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VisibleEnd {
    /// read_uncommitted: all that is committed in the raft sense.
    HighWatermark,
    /// read_committed: before the first open transaction.
    LastStable,
}

/// Whole batches in offset order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReadPlan {
    pub pieces: Vec<Piece>,
    /// Bytes of all pieces.
    pub size: u64,
    /// Batches were left out that the reader may see.
    pub more: bool,
}

/// One batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    Cached(Bytes),
    Stored(StoredBatch),
}

/// A batch that is not in memory: the payload of a raft entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoredBatch {
    pub index: LogIndex,
    pub base_offset: Offset,
    /// Bytes, the batch's header included.
    pub size: u32,
}

/// Why nothing can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReadError {
    #[error("offset {from} is outside the log, {log_start} to {log_end}")]
    OutOfRange { from: Offset, log_start: Offset, log_end: Offset },
    /// Committed, and so below the high watermark.
    #[error("offset {from} is in the object store, which has what is below {local_start}")]
    Remote { from: Offset, local_start: Offset },
}

impl Partition {
    /// The batches from the one that contains `from`, up to `size_max` bytes. With `at_least_one`
    /// the first is returned even if it is larger (KIP-74). Empty if `from` is between the
    /// visible end and the log end: the fetch waits. What is below the local start is an error:
    /// the caller has to get it from the object store.
    pub fn read(
        &self,
        from: Offset,
        size_max: u64,
        at_least_one: bool,
        visible_end: VisibleEnd,
    ) -> Result<ReadPlan, ReadError> {
        let mut plan = ReadPlan::default();
        for entry in self.visible_batches(from, visible_end)? {
            let size = plan.size + u64::from(entry.size);
            let must_take = at_least_one && plan.pieces.is_empty();
            if (size > size_max && !must_take) || plan.pieces.len() == PIECES_MAX {
                plan.more = true;
                break;
            }
            plan.size = size;
            plan.pieces.push(self.piece(entry));
        }
        Ok(plan)
    }

    /// Where the records of the raft entries up to `index` end, of those that are local: a replica
    /// that has these entries can be read up to there.
    pub fn end_at(&self, index: LogIndex) -> Offset {
        let last = self.batches.at_or_before(index);
        last.map_or_else(|| self.local_start(), BatchEntry::end_offset)
    }

    /// Bytes that a read from `from` would find, counted up to `enough`: tells whether a fetch that
    /// waits for `min_bytes` is served, without a plan.
    pub fn readable_size(
        &self,
        from: Offset,
        enough: u64,
        visible_end: VisibleEnd,
    ) -> Result<u64, ReadError> {
        let mut size = 0;
        for entry in self.visible_batches(from, visible_end)? {
            if size >= enough {
                break;
            }
            size += u64::from(entry.size);
        }
        Ok(size)
    }

    /// The batch of an entry in the raft log, which is of this partition.
    pub fn piece_of(&self, index: LogIndex, batch: &EntryDescriptor) -> Piece {
        self.tail.get(batch.base_offset()).map_or_else(
            || {
                let (base_offset, size) = (batch.base_offset(), batch.batch_size());
                Piece::Stored(StoredBatch { index, base_offset, size })
            },
            |bytes| Piece::Cached(bytes.clone()),
        )
    }

    /// The largest timestamp of the local batches that are visible, ms since 1970.
    pub fn local_max_timestamp(&self) -> Option<i64> {
        let end = self.last_stable_offset();
        let youngest = self.batches.at_max_timestamp(self.local_start(), end);
        youngest.map(|entry| entry.max_timestamp)
    }

    pub(super) fn piece(&self, entry: &BatchEntry) -> Piece {
        match self.tail.get(entry.base_offset) {
            Some(bytes) => Piece::Cached(bytes.clone()),
            None => Piece::Stored(StoredBatch {
                index: entry.index,
                base_offset: entry.base_offset,
                size: entry.size,
            }),
        }
    }

    fn visible_batches(
        &self,
        from: Offset,
        visible_end: VisibleEnd,
    ) -> Result<impl Iterator<Item = &BatchEntry>, ReadError> {
        let (log_start, log_end) = (self.log_start, self.log_end);
        if from < log_start || from > log_end {
            return Err(ReadError::OutOfRange { from, log_start, log_end });
        }
        let local_start = self.local_start();
        if from < local_start {
            return Err(ReadError::Remote { from, local_start });
        }
        let end = self.visible_end(visible_end);
        Ok(self.batches.iter_from(from).take_while(move |entry| entry.end_offset() <= end))
    }
}
