//! The youngest batches of a partition in memory, under one byte budget for all partitions of a
//! shard.
//!
//! The budget evicts the oldest batch of the shard, whichever partition has it. It does not own the
//! partitions, so the shard runs the loop:
//!
//! ```text
//! while let Some(victim) = budget.victim() {
//!     if let Some(partition) = partitions.get_mut(&victim.partition) {
//!         partition.evict(victim, &mut budget);
//!     }
//! }
//! ```

use std::collections::VecDeque;

use bytes::Bytes;
use model::{Offset, PartitionId};

/// What a cached batch costs beside its bytes: its places in the two queues and its shared header.
const ENTRY_OVERHEAD: usize = 128;
/// A slice is copied out of a buffer more than this many times its size, or it would pin the rest.
const PINNED_FACTOR_MAX: usize = 2;
/// The budget's queue may hold this many entries more than twice the cached ones: those that their
/// partition dropped itself.
const STALE_MAX: usize = 1024;

/// Memory for the cached batches of all partitions of a shard.
#[derive(Debug)]
pub struct TailBudget {
    bytes_max: usize,
    bytes: usize,
    /// Batches cached now.
    count: usize,
    next_ticket: u64,
    /// Oldest first; some were dropped by their partition since.
    queue: VecDeque<Victim>,
}

/// A cached batch to evict: pass it to [`Partition::evict`](super::Partition::evict).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Victim {
    pub partition: PartitionId,
    ticket: u64,
}

impl TailBudget {
    /// `bytes_max`: of batches with their overhead.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, count: 0, next_ticket: 0, queue: VecDeque::new() }
    }

    /// Bytes that cached batches hold now, with their overhead.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next batch to evict, while there are too many.
    pub fn victim(&mut self) -> Option<Victim> {
        // The second condition bounds the queue if partitions drop their batches themselves.
        let stale_max = self.count.saturating_add(STALE_MAX);
        if self.bytes > self.bytes_max || self.queue.len() > self.count.saturating_add(stale_max) {
            return self.queue.pop_front();
        }
        None
    }

    fn charge(&mut self, partition: PartitionId, bytes: usize) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.bytes += bytes;
        self.count += 1;
        self.queue.push_back(Victim { partition, ticket });
        ticket
    }

    fn release(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.count = self.count.saturating_sub(1);
    }
}

/// **Invariant**: base offsets and tickets grow strictly from entry to entry.
#[derive(Debug, Default)]
pub(super) struct TailCache {
    batches: VecDeque<CachedBatch>,
}

#[derive(Debug)]
struct CachedBatch {
    base_offset: Offset,
    ticket: u64,
    charge: usize,
    bytes: Bytes,
}

impl TailCache {
    /// Keeps a batch that is younger than all in the cache; one that is not is left out.
    /// `allocation`: size of the buffer that `batch` is a slice of.
    pub(super) fn push(
        &mut self,
        partition: PartitionId,
        base_offset: Offset,
        batch: Bytes,
        allocation: usize,
        budget: &mut TailBudget,
    ) {
        if self.batches.back().is_some_and(|last| last.base_offset >= base_offset) {
            return;
        }
        let (bytes, pinned) = unpinned(batch, allocation);
        let charge = pinned.saturating_add(ENTRY_OVERHEAD);
        if charge > budget.bytes_max {
            return;
        }
        let ticket = budget.charge(partition, charge);
        self.batches.push_back(CachedBatch { base_offset, ticket, charge, bytes });
    }

    /// The batch whose first record is at `base_offset`.
    pub(super) fn get(&self, base_offset: Offset) -> Option<&Bytes> {
        let at = self.batches.binary_search_by_key(&base_offset, |batch| batch.base_offset).ok()?;
        self.batches.get(at).map(|batch| &batch.bytes)
    }

    /// Drops the batches up to the victim, which is the oldest unless it was dropped before.
    pub(super) fn evict(&mut self, victim: Victim, budget: &mut TailBudget) {
        self.drop_front(budget, |batch| batch.ticket <= victim.ticket);
    }

    /// Drops the batches that begin below `offset`.
    pub(super) fn trim(&mut self, offset: Offset, budget: &mut TailBudget) {
        self.drop_front(budget, |batch| batch.base_offset < offset);
    }

    /// Drops the batches that begin at or after `offset`.
    pub(super) fn truncate(&mut self, offset: Offset, budget: &mut TailBudget) {
        let kept = self.batches.partition_point(|batch| batch.base_offset < offset);
        self.batches.drain(kept..).for_each(|batch| budget.release(batch.charge));
        self.shrink();
    }

    /// Bytes on the heap, without the batches: those are the budget's.
    pub(super) fn heap_size(&self) -> usize {
        self.batches.capacity() * size_of::<CachedBatch>()
    }

    fn drop_front(&mut self, budget: &mut TailBudget, old: impl Fn(&CachedBatch) -> bool) {
        let count = self.batches.partition_point(old);
        self.batches.drain(..count).for_each(|batch| budget.release(batch.charge));
        self.shrink();
    }

    /// An idle partition gives back the queue it needed when it was busy.
    fn shrink(&mut self) {
        if self.batches.capacity() > 16 && self.batches.len() < self.batches.capacity() / 4 {
            self.batches.shrink_to(self.batches.len() * 2);
        }
    }
}

/// The batch and the size of the buffer it keeps alive.
fn unpinned(batch: Bytes, allocation: usize) -> (Bytes, usize) {
    let size = batch.len();
    if allocation > size.saturating_mul(PINNED_FACTOR_MAX) {
        return (Bytes::copy_from_slice(&batch), size);
    }
    (batch, allocation.max(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: PartitionId = PartitionId::new(1);
    const CHARGE: usize = 100 + ENTRY_OVERHEAD;

    fn push(cache: &mut TailCache, budget: &mut TailBudget, base_offset: i64) {
        let batch = Bytes::from(vec![0; 100]);
        cache.push(PARTITION, Offset::new(base_offset), batch, 100, budget);
    }

    fn cached(cache: &TailCache) -> Vec<i64> {
        (0..100).filter(|offset| cache.get(Offset::new(*offset)).is_some()).collect()
    }

    fn evict_all(cache: &mut TailCache, budget: &mut TailBudget) {
        while let Some(victim) = budget.victim() {
            cache.evict(victim, budget);
        }
    }

    #[test]
    fn the_oldest_batch_goes_first() {
        let mut budget = TailBudget::new(3 * CHARGE);
        let mut cache = TailCache::default();
        for offset in 0..5 {
            push(&mut cache, &mut budget, offset);
            evict_all(&mut cache, &mut budget);
        }
        assert_eq!(cached(&cache), [2, 3, 4]);
        assert_eq!(budget.bytes(), 3 * CHARGE);
    }

    #[test]
    fn one_victim_is_one_batch() {
        let mut budget = TailBudget::new(CHARGE);
        let mut cache = TailCache::default();
        push(&mut cache, &mut budget, 0);
        push(&mut cache, &mut budget, 1);
        let victim = budget.victim().expect("one batch too many");
        cache.evict(victim, &mut budget);
        assert_eq!((cached(&cache), budget.victim()), (vec![1], None));
    }

    #[test]
    fn a_victim_that_was_truncated_does_not_evict_its_successor() {
        let mut budget = TailBudget::new(2 * CHARGE);
        let mut cache = TailCache::default();
        push(&mut cache, &mut budget, 0);
        push(&mut cache, &mut budget, 1);
        cache.truncate(Offset::ZERO, &mut budget);
        assert_eq!(budget.bytes(), 0);
        for offset in 0..3 {
            push(&mut cache, &mut budget, offset);
        }
        evict_all(&mut cache, &mut budget);
        assert_eq!(cached(&cache), [1, 2]);
    }

    #[test]
    fn the_queue_is_bounded_while_partitions_trim() {
        let mut budget = TailBudget::new(2 * CHARGE);
        let mut cache = TailCache::default();
        for offset in 0..10_000 {
            push(&mut cache, &mut budget, offset);
            cache.trim(Offset::new(offset), &mut budget);
            evict_all(&mut cache, &mut budget);
        }
        assert!(budget.queue.len() <= 2 + STALE_MAX, "{}", budget.queue.len());
        assert_eq!(budget.bytes(), CHARGE);
    }

    #[test]
    fn a_small_slice_is_copied_out_of_a_large_buffer() {
        let mut budget = TailBudget::new(1 << 20);
        let mut cache = TailCache::default();
        let frame = Bytes::from(vec![7; 10_000]);
        let slice = frame.slice(100..200);
        cache.push(PARTITION, Offset::ZERO, slice.clone(), frame.len(), &mut budget);
        let kept = cache.get(Offset::ZERO).expect("cached");
        assert_eq!(kept, &slice);
        assert_ne!(kept.as_ptr(), slice.as_ptr());
        assert_eq!(budget.bytes(), CHARGE);

        let slice = frame.slice(100..9_000);
        cache.push(PARTITION, Offset::new(1), slice.clone(), frame.len(), &mut budget);
        assert_eq!(cache.get(Offset::new(1)).expect("cached").as_ptr(), slice.as_ptr());
        assert_eq!(budget.bytes(), CHARGE + 10_000 + ENTRY_OVERHEAD);
    }

    #[test]
    fn a_batch_larger_than_the_budget_or_older_than_the_cache_is_left_out() {
        let mut budget = TailBudget::new(2 * CHARGE);
        let mut cache = TailCache::default();
        let batch = Bytes::from(vec![0; 1000]);
        cache.push(PARTITION, Offset::ZERO, batch, 1000, &mut budget);
        assert_eq!((cached(&cache), budget.bytes()), (vec![], 0));
        push(&mut cache, &mut budget, 5);
        push(&mut cache, &mut budget, 4);
        assert_eq!(cached(&cache), [5]);
    }
}
