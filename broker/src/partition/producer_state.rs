//! Idempotent producers of a partition (KIP-98, KIP-360): which batch may follow, which is a
//! repeat.
//!
//! A producer's state is nothing but its recent batches, each with its raft index. So the
//! uncommitted part is a suffix: replacing it in the raft log drops the same batches here, and what
//! is left is exactly the state before them. **Invariant**: in a producer's list are all its
//! uncommitted batches and at least the last [`BATCHES_KEPT`] committed ones of the newest
//! committed epoch.

use std::collections::{BTreeMap, VecDeque};

use model::{LogIndex, Offset};

use super::descriptor::{self, EntryDescriptor, ProducerStamp};

/// As many as a Java producer has in flight; a repeat of an older batch is out of order.
pub(super) const BATCHES_KEPT: usize = 5;

/// Why a producer's batch is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProducerError {
    #[error("producer {producer_id}: sequence {found} where {expected} follows")]
    OutOfOrderSequence { producer_id: i64, expected: i32, found: i32 },
    #[error("producer {producer_id}: epoch {found}, but {known} is known")]
    InvalidProducerEpoch { producer_id: i64, known: i16, found: i16 },
    #[error("producer {producer_id}: a batch outside its open transaction")]
    OpenTransaction { producer_id: i64 },
    #[error("producer {producer_id}: no sequence number")]
    NoSequence { producer_id: i64 },
}

/// What the first batch of a producer that this partition does not know must look like.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FirstSequence {
    /// Its state may have expired: any sequence is taken.
    #[default]
    Any,
    /// Transaction version 2: sequence 0.
    Zero,
}

/// The append that a batch repeats.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Duplicate {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// When the broker stamped the records, ms since 1970; None if the client did.
    pub log_append_time: Option<i64>,
    /// The raft entry of the first append: the reply waits until it is committed.
    pub index: LogIndex,
    pub committed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Producers {
    by_id: BTreeMap<i64, Producer>,
}

impl Producers {
    /// The rules, in their order: a repeat first, then epoch, then sequence. Ok(None): append it.
    pub(super) fn check(
        &self,
        stamp: ProducerStamp,
        record_count: u32,
        attributes: i16,
        first_sequence: FirstSequence,
        committed: LogIndex,
    ) -> Result<Option<Duplicate>, ProducerError> {
        let producer_id = stamp.id;
        if stamp.base_sequence < 0 {
            return Err(ProducerError::NoSequence { producer_id });
        }
        let Some(producer) = self.by_id.get(&producer_id) else {
            return check_unknown(stamp, first_sequence).map(|()| None);
        };
        if let Some(duplicate) = producer.duplicate_of(stamp, record_count, committed) {
            return Ok(Some(duplicate));
        }
        producer.check_order(stamp)?;
        if producer.has_open_transaction() && !descriptor::is_transactional(attributes) {
            return Err(ProducerError::OpenTransaction { producer_id });
        }
        Ok(None)
    }

    /// A batch was appended; the log's word is final, so nothing is checked here.
    pub(super) fn appended(
        &mut self,
        batch: &EntryDescriptor,
        index: LogIndex,
        committed: LogIndex,
    ) {
        if let Some(stamp) = batch.producer {
            let producer = self.by_id.entry(stamp.id).or_default();
            producer.forget_old(committed);
            producer.batches.push_back(ProducedBatch::of(batch, stamp, index));
        }
    }

    /// The raft log from `from` on is replaced.
    pub(super) fn truncate(&mut self, from: LogIndex) {
        self.by_id.retain(|_, producer| {
            let kept = producer.batches.partition_point(|batch| batch.index < from);
            producer.batches.truncate(kept);
            kept > 0
        });
    }

    /// All batches are committed, by entries of another group: here they have the index of the one
    /// that brought them.
    pub(super) fn set_indexes(&mut self, index: LogIndex) {
        let batches = self.by_id.values_mut().flat_map(|producer| &mut producer.batches);
        batches.for_each(|batch| batch.index = index);
    }

    pub(super) fn has(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The highest id of a producer that is known.
    pub(super) fn id_last(&self) -> Option<i64> {
        self.by_id.last_key_value().map(|(id, _)| *id)
    }

    /// Forgets producers whose last batch was taken before `before`, ms since 1970. One with a
    /// batch that is not committed, or in a transaction, is kept. Returns how many are
    /// forgotten.
    pub(super) fn expire(&mut self, before: i64, committed: LogIndex) -> usize {
        let count = self.by_id.len();
        self.by_id.retain(|_, producer| {
            producer.has_open_transaction()
                || producer
                    .batches
                    .back()
                    .is_some_and(|last| last.index > committed || last.appended_at >= before)
        });
        count - self.by_id.len()
    }

    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    /// Bytes on the heap: an upper bound, since the tree does not say.
    pub(super) fn heap_size(&self) -> usize {
        const NODE_ENTRIES: usize = 11;
        const NODE: usize = NODE_ENTRIES * size_of::<(i64, Producer)>() + 16;
        // Inner nodes have 12 children more, and every node but the root is nearly half full.
        let nodes = self.by_id.len().div_ceil(NODE_ENTRIES / 2);
        let batches: usize = self.by_id.values().map(|p| p.batches.capacity()).sum();
        nodes * (NODE + 12 * size_of::<usize>()) + batches * size_of::<ProducedBatch>()
    }

    /// What the rules see of every producer without the entries after `index`, which is committed:
    /// its last batches, oldest first.
    ///
    /// Where committed batches after `index` have pushed older ones out, those are missing. They
    /// are not missed: whoever goes on from here has all committed entries, and after them they
    /// are out there, too.
    pub(super) fn as_of(&self, index: LogIndex) -> BTreeMap<i64, Vec<ProducedBatch>> {
        let batches = |producer: &Producer| {
            let before = producer.batches.iter().rev().skip_while(|batch| batch.index > index);
            let mut batches: Vec<_> = of_newest_epoch(before).copied().collect();
            batches.reverse();
            batches
        };
        let producers = self.by_id.iter().map(|(id, producer)| (*id, batches(producer)));
        producers.filter(|(_, batches)| !batches.is_empty()).collect()
    }

    /// The producers of [`as_of`](Self::as_of) again.
    pub(super) fn restored(producers: BTreeMap<i64, Vec<ProducedBatch>>) -> Self {
        let restored = |(id, batches): (i64, Vec<_>)| (id, Producer { batches: batches.into() });
        Self { by_id: producers.into_iter().map(restored).collect() }
    }
}

/// Not empty while it is in [`Producers`].
#[derive(Debug, Default)]
struct Producer {
    batches: VecDeque<ProducedBatch>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ProducedBatch {
    pub(super) index: LogIndex,
    pub(super) base_offset: Offset,
    pub(super) appended_at: i64,
    pub(super) base_sequence: i32,
    pub(super) record_count: u32,
    pub(super) epoch: i16,
    pub(super) attributes: i16,
}

impl Producer {
    /// The last batches of the current epoch, youngest first.
    fn recent(&self) -> impl Iterator<Item = &ProducedBatch> {
        of_newest_epoch(self.batches.iter().rev())
    }

    fn duplicate_of(
        &self,
        stamp: ProducerStamp,
        record_count: u32,
        committed: LogIndex,
    ) -> Option<Duplicate> {
        let same = self.recent().find(|batch| {
            batch.epoch == stamp.epoch
                && batch.base_sequence == stamp.base_sequence
                && batch.record_count == record_count
        })?;
        Some(Duplicate {
            base_offset: same.base_offset,
            last_offset: same.base_offset.plus(i64::from(record_count) - 1),
            log_append_time: descriptor::is_log_append_time(same.attributes)
                .then_some(same.appended_at),
            index: same.index,
            committed: same.index <= committed,
        })
    }

    fn check_order(&self, stamp: ProducerStamp) -> Result<(), ProducerError> {
        let Some(last) = self.batches.back() else {
            return Ok(());
        };
        if stamp.epoch < last.epoch {
            return Err(ProducerError::InvalidProducerEpoch {
                producer_id: stamp.id,
                known: last.epoch,
                found: stamp.epoch,
            });
        }
        let expected = if stamp.epoch == last.epoch {
            sequence_after(last.base_sequence, last.record_count)
        } else {
            0
        };
        check_sequence(stamp, expected)
    }

    /// Its last batch is transactional. Markers, which close a transaction, come with transactions.
    fn has_open_transaction(&self) -> bool {
        self.batches.back().is_some_and(|last| descriptor::is_transactional(last.attributes))
    }

    /// Restores the bound on the list before it grows.
    fn forget_old(&mut self, committed: LogIndex) {
        let committed_count = self.batches.partition_point(|batch| batch.index <= committed);
        let Some(newest) = committed_count.checked_sub(1) else {
            return;
        };
        let epoch = self.batches.get(newest).map(|batch| batch.epoch);
        let mut in_excess = committed_count.saturating_sub(BATCHES_KEPT);
        while in_excess > 0 || self.batches.front().map(|batch| batch.epoch) != epoch {
            self.batches.pop_front();
            in_excess = in_excess.saturating_sub(1);
        }
        // After a burst of uncommitted batches.
        if self.batches.capacity() > 4 * BATCHES_KEPT.max(self.batches.len()) {
            self.batches.shrink_to(2 * BATCHES_KEPT);
        }
    }
}

impl ProducedBatch {
    fn of(batch: &EntryDescriptor, stamp: ProducerStamp, index: LogIndex) -> Self {
        Self {
            index,
            base_offset: batch.base_offset,
            appended_at: batch.log_append_time().unwrap_or(batch.appended_at),
            base_sequence: stamp.base_sequence,
            record_count: batch.record_count,
            epoch: stamp.epoch,
            attributes: batch.attributes,
        }
    }
}

/// Of batches given youngest first, those that the rules look at.
fn of_newest_epoch<'a>(
    batches: impl Iterator<Item = &'a ProducedBatch>,
) -> impl Iterator<Item = &'a ProducedBatch> {
    let mut newest = None;
    let of_newest = move |batch: &&ProducedBatch| *newest.get_or_insert(batch.epoch) == batch.epoch;
    batches.take_while(of_newest).take(BATCHES_KEPT)
}

fn check_unknown(stamp: ProducerStamp, first: FirstSequence) -> Result<(), ProducerError> {
    if stamp.epoch < 0 {
        return Err(ProducerError::InvalidProducerEpoch {
            producer_id: stamp.id,
            known: 0,
            found: stamp.epoch,
        });
    }
    match first {
        FirstSequence::Any => Ok(()),
        FirstSequence::Zero => check_sequence(stamp, 0),
    }
}

fn check_sequence(stamp: ProducerStamp, expected: i32) -> Result<(), ProducerError> {
    if stamp.base_sequence == expected {
        return Ok(());
    }
    Err(ProducerError::OutOfOrderSequence {
        producer_id: stamp.id,
        expected,
        found: stamp.base_sequence,
    })
}

/// The sequence after `count` records that begin at `base`: 2^31-1 is followed by 0.
fn sequence_after(base: i32, count: u32) -> i32 {
    // Both are in 0..2^31, so the remainder is too.
    let sum = (i64::from(base) + i64::from(count)) % (i64::from(i32::MAX) + 1);
    i32::try_from(sum).unwrap_or(0)
}
