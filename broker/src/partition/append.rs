//! Appending on the leader, in two steps: [`Partition::prepare`] decides and changes nothing, and
//! [`Partition::appended`] records the batch once raft took it. Between the two the caller patches
//! base offset and leader epoch into the batch and proposes it; if that fails nothing has happened.

use bytes::Bytes;
use kafka_wire::validate::BatchInfo;
use model::{LogIndex, Offset, Term};

use super::descriptor::{EntryDescriptor, ProducerStamp};
use super::producer_state::{Duplicate, FirstSequence, ProducerError};
use super::tail_cache::TailBudget;
use super::{BatchEntry, Partition};

/// A validated batch of a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Submission {
    pub record_count: i32,
    /// Bytes of the batch as it will be stored, its header included.
    pub batch_size: u32,
    /// As it will be stored, ms since 1970: with the broker's stamps that is now.
    pub max_timestamp: i64,
    /// As it will be stored.
    pub attributes: i16,
    /// None if the producer id is -1.
    pub producer: Option<ProducerStamp>,
    pub first_sequence: FirstSequence,
}

impl From<&BatchInfo> for Submission {
    fn from(batch: &BatchInfo) -> Self {
        let producer = ProducerStamp {
            id: batch.producer_id,
            epoch: batch.producer_epoch,
            base_sequence: batch.base_sequence,
        };
        Self {
            record_count: batch.record_count,
            // The header's length field has 31 bits.
            batch_size: u32::try_from(batch.size).unwrap_or(u32::MAX),
            max_timestamp: batch.max_timestamp,
            attributes: batch.attributes,
            producer: (producer.id != ProducerStamp::NO_ID).then_some(producer),
            first_sequence: FirstSequence::Any,
        }
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prepared {
    /// Patch and propose it, then call [`Partition::appended`].
    New(NewBatch),
    /// Answer with the first append, once that is committed; write nothing.
    Duplicate(Duplicate),
}

/// A batch with its place in the log. Only the next one: any append makes it void.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NewBatch {
    descriptor: EntryDescriptor,
}

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error("a batch of {record_count} records in {batch_size} bytes")]
    NotABatch { record_count: i32, batch_size: u32 },
    #[error("no offsets are left after {log_end}")]
    OffsetsExhausted { log_end: Offset },
}

impl NewBatch {
    /// Offset of the batch's first record: patch it into the header.
    pub fn base_offset(&self) -> Offset {
        self.descriptor.base_offset()
    }

    /// To be proposed with the batch.
    pub fn descriptor(&self) -> &EntryDescriptor {
        &self.descriptor
    }
}

impl Partition {
    /// Decides about a batch; changes nothing. `now` is the wall clock, ms since 1970.
    pub fn prepare(&self, batch: &Submission, now: i64) -> Result<Prepared, AppendError> {
        let Submission { batch_size, max_timestamp, attributes, producer, .. } = *batch;
        let not_a_batch = AppendError::NotABatch { record_count: batch.record_count, batch_size };
        let record_count = u32::try_from(batch.record_count).map_err(|_| not_a_batch)?;
        if let Some(stamp) = producer {
            let (first, committed) = (batch.first_sequence, self.committed_index);
            let producers = &self.producers;
            let repeats = producers.check(stamp, record_count, attributes, first, committed)?;
            if let Some(duplicate) = repeats {
                return Ok(Prepared::Duplicate(duplicate));
            }
        }
        let (partition, base_offset) = (self.id, self.log_end);
        if base_offset.get().checked_add(i64::from(record_count)).is_none() {
            return Err(AppendError::OffsetsExhausted { log_end: base_offset });
        }
        let descriptor = EntryDescriptor {
            partition,
            base_offset,
            record_count,
            batch_size,
            max_timestamp,
            appended_at: now,
            attributes,
            producer,
        };
        // What goes into the log must be readable from it: this refuses 0 records, too.
        match EntryDescriptor::decode(&descriptor.encode()) {
            Ok(descriptor) => Ok(Prepared::New(NewBatch { descriptor })),
            Err(_) => Err(not_a_batch),
        }
    }

    /// Records a prepared batch that raft accepted as its entry `index` of `term`. `batch` is as
    /// stored, a slice of a buffer of `allocation` bytes.
    ///
    /// # Panics
    ///
    /// If something was appended since `prepare`: the batch would have another's offsets.
    pub fn appended(
        &mut self,
        new: NewBatch,
        index: LogIndex,
        term: Term,
        batch: Bytes,
        allocation: usize,
        budget: &mut TailBudget,
    ) {
        let NewBatch { descriptor } = new;
        assert_eq!(descriptor.base_offset, self.log_end, "prepared for another log end");
        assert!(index > self.last_index, "entry {index} after {}", self.last_index);
        self.epochs
            .assign(self.epoch_of(term), self.log_end)
            .expect("a leader's term is at least that of its last entry");
        self.push(&descriptor, index);
        self.tail.push(self.id, descriptor.base_offset, batch, allocation, budget);
    }

    /// The state after an entry; the same on a leader, on a follower and in recovery.
    pub(super) fn push(&mut self, batch: &EntryDescriptor, index: LogIndex) {
        self.batches.push(BatchEntry {
            base_offset: batch.base_offset,
            index,
            max_timestamp: batch.max_timestamp,
            record_count: batch.record_count,
            size: batch.batch_size,
        });
        self.producers.appended(batch, index, self.committed_index);
        self.log_end = batch.end_offset();
        self.last_index = index;
        self.written += u64::from(batch.batch_size);
    }
}
