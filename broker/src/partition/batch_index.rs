//! Where each batch of a partition is: 32 bytes a batch, in offset order.
//!
//! The list is cut in chunks: it grows to millions of entries, and one large vector would stall its
//! shard each time it is copied to grow. A chunk knows its largest timestamp, so that a search by
//! timestamp skips it whole.

use std::collections::VecDeque;

use model::{LogIndex, Offset};

/// 32 KiB of entries: small enough to move, large enough that the list of chunks is short.
const CHUNK_ENTRIES_MAX: usize = 1024;

const _: () = assert!(size_of::<BatchEntry>() == 32);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BatchEntry {
    pub(super) base_offset: Offset,
    /// The raft entry that holds the batch.
    pub(super) index: LogIndex,
    pub(super) max_timestamp: i64,
    pub(super) record_count: u32,
    /// Bytes of the batch, its header included.
    pub(super) size: u32,
}

impl BatchEntry {
    pub(super) fn end_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.record_count))
    }
}

#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct BatchIndex {
    /// None is empty.
    chunks: VecDeque<Chunk>,
    /// Bytes of all batches.
    size: u64,
}

impl BatchIndex {
    /// The entry follows the last one, in offset and in index.
    pub(super) fn push(&mut self, entry: BatchEntry) {
        self.size += u64::from(entry.size);
        match self.chunks.back_mut() {
            Some(chunk) if chunk.entries.len() < CHUNK_ENTRIES_MAX => chunk.push(entry),
            _ => self.chunks.push_back(Chunk::of(entry)),
        }
    }

    /// Bytes of all batches.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn first(&self) -> Option<&BatchEntry> {
        self.chunks.front().and_then(|chunk| chunk.entries.first())
    }

    pub(super) fn last(&self) -> Option<&BatchEntry> {
        self.chunks.back().and_then(|chunk| chunk.entries.last())
    }

    /// Batches in offset order, from the one that contains `offset`.
    pub(super) fn iter_from(&self, offset: Offset) -> impl Iterator<Item = &BatchEntry> {
        let (chunk, entry) = self.position(|entry| entry.end_offset() <= offset);
        let later = self.chunks.iter().skip(chunk.saturating_add(1));
        let first = self.chunks.get(chunk).map_or(&[][..], |chunk| &chunk.entries[entry..]);
        first.iter().chain(later.flat_map(|chunk| &chunk.entries))
    }

    /// The last batch whose raft entry is at or before `index`.
    pub(super) fn at_or_before(&self, index: LogIndex) -> Option<&BatchEntry> {
        let (chunk, entry) = self.position(|entry| entry.index <= index);
        self.before(chunk, entry)
    }

    /// The first batch at or after the one that contains `from`, and wholly below `end`, that holds
    /// a record as young as `timestamp`.
    pub(super) fn at_timestamp(
        &self,
        timestamp: i64,
        from: Offset,
        end: Offset,
    ) -> Option<&BatchEntry> {
        let (first, _) = self.position(|entry| entry.end_offset() <= from);
        self.chunks
            .iter()
            .skip(first)
            .filter(|chunk| chunk.max_timestamp >= timestamp)
            .flat_map(|chunk| &chunk.entries)
            .take_while(|entry| entry.end_offset() <= end)
            .find(|entry| entry.end_offset() > from && entry.max_timestamp >= timestamp)
    }

    /// Of the batches from the one that contains `from`, and wholly below `end`, the first that
    /// holds a youngest record.
    pub(super) fn at_max_timestamp(&self, from: Offset, end: Offset) -> Option<&BatchEntry> {
        let (first, _) = self.position(|entry| entry.end_offset() <= from);
        let mut youngest: Option<&BatchEntry> = None;
        for chunk in self.chunks.iter().skip(first) {
            let is_older = |found: &BatchEntry| chunk.max_timestamp <= found.max_timestamp;
            if youngest.is_some_and(is_older) {
                continue;
            }
            let visible = chunk.entries.iter().take_while(|entry| entry.end_offset() <= end);
            for entry in visible.filter(|entry| entry.end_offset() > from) {
                if youngest.is_none_or(|found| found.max_timestamp < entry.max_timestamp) {
                    youngest = Some(entry);
                }
            }
        }
        youngest
    }

    /// Forgets the batches at and after `from`. Returns the base offset of the first of them.
    pub(super) fn truncate(&mut self, from: LogIndex) -> Option<Offset> {
        let (chunk, entry) = self.position(|entry| entry.index < from);
        let first_removed = self.chunks.get(chunk)?.entries.get(entry)?.base_offset;
        let after = self.chunks.drain(chunk.saturating_add(1)..);
        self.size -= after.map(|chunk| size_of_all(&chunk.entries)).sum::<u64>();
        if let Some(last) = self.chunks.back_mut() {
            self.size -= size_of_all(&last.entries[entry..]);
            last.entries.truncate(entry);
            last.restore();
        }
        self.chunks.retain(|chunk| !chunk.entries.is_empty());
        Some(first_removed)
    }

    /// Forgets the batches wholly below `offset`. Returns the raft entry of the last of them.
    pub(super) fn trim(&mut self, offset: Offset) -> Option<LogIndex> {
        self.drop_front(|entry| entry.end_offset() <= offset)
    }

    /// Forgets the batches whose raft entry is at or before `index`. Returns that of the last of
    /// them.
    pub(super) fn release(&mut self, index: LogIndex) -> Option<LogIndex> {
        self.drop_front(|entry| entry.index <= index)
    }

    fn drop_front(&mut self, gone: impl Fn(&BatchEntry) -> bool) -> Option<LogIndex> {
        let (chunk, entry) = self.position(gone);
        let last = self.before(chunk, entry)?.index;
        let before = self.chunks.drain(..chunk);
        self.size -= before.map(|chunk| size_of_all(&chunk.entries)).sum::<u64>();
        if let Some(first) = self.chunks.front_mut()
            && entry > 0
        {
            self.size -= size_of_all(&first.entries[..entry]);
            first.entries.drain(..entry);
            first.restore();
        }
        if self.chunks.is_empty() {
            self.chunks.shrink_to_fit();
        }
        Some(last)
    }

    /// Bytes on the heap.
    pub(super) fn heap_size(&self) -> usize {
        let entries: usize = self.chunks.iter().map(|chunk| chunk.entries.capacity()).sum();
        self.chunks.capacity() * size_of::<Chunk>() + entries * size_of::<BatchEntry>()
    }

    /// The entry before a position.
    fn before(&self, chunk: usize, entry: usize) -> Option<&BatchEntry> {
        match entry.checked_sub(1) {
            Some(entry) => self.chunks.get(chunk)?.entries.get(entry),
            None => self.chunks.get(chunk.checked_sub(1)?)?.entries.last(),
        }
    }

    /// Chunk, and entry in it, of the first entry that is not `before`; one past the last chunk if
    /// all are. Entries that are `before` come first.
    fn position(&self, before: impl Fn(&BatchEntry) -> bool) -> (usize, usize) {
        let whole = |chunk: &Chunk| chunk.entries.last().is_none_or(&before);
        let chunk = self.chunks.partition_point(whole);
        let entries = self.chunks.get(chunk).map(|chunk| &chunk.entries);
        (chunk, entries.map_or(0, |entries| entries.partition_point(&before)))
    }
}

fn size_of_all(entries: &[BatchEntry]) -> u64 {
    entries.iter().map(|entry| u64::from(entry.size)).sum()
}

#[derive(Debug, Eq, PartialEq)]
struct Chunk {
    max_timestamp: i64,
    entries: Vec<BatchEntry>,
}

impl Chunk {
    fn of(entry: BatchEntry) -> Self {
        Self { max_timestamp: entry.max_timestamp, entries: vec![entry] }
    }

    fn push(&mut self, entry: BatchEntry) {
        self.max_timestamp = self.max_timestamp.max(entry.max_timestamp);
        self.entries.push(entry);
    }

    /// After entries were removed.
    fn restore(&mut self) {
        let timestamps = self.entries.iter().map(|entry| entry.max_timestamp);
        self.max_timestamp = timestamps.max().unwrap_or(i64::MIN);
        if self.entries.len() <= self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u32 = 3000;

    /// Batches of 10 records at indexes 1, 3, 5 ..; timestamps go up and down in steps of 7.
    fn filled() -> (BatchIndex, Vec<BatchEntry>) {
        let entries: Vec<_> = (0..COUNT).map(entry).collect();
        let mut index = BatchIndex::default();
        entries.iter().for_each(|entry| index.push(*entry));
        (index, entries)
    }

    fn entry(number: u32) -> BatchEntry {
        BatchEntry {
            base_offset: Offset::new(i64::from(number) * 10),
            index: LogIndex::new(u64::from(number) * 2 + 1),
            max_timestamp: i64::from(number * 7 % 5000),
            record_count: 10,
            size: 100 + number % 7,
        }
    }

    #[test]
    fn finds_the_batch_that_contains_an_offset_across_chunks() {
        let (index, entries) = filled();
        for offset in 0..i64::from(COUNT) * 10 {
            let found = index.iter_from(Offset::new(offset)).next();
            assert_eq!(found.map(|entry| entry.base_offset.get()), Some(offset / 10 * 10));
        }
        assert_eq!(index.iter_from(Offset::new(i64::from(COUNT) * 10)).next(), None);
        assert_eq!(index.iter_from(Offset::ZERO).copied().collect::<Vec<_>>(), entries);
        let tail: Vec<_> = index.iter_from(Offset::new(10_245)).copied().collect();
        assert_eq!(tail, entries[1024..]);
    }

    #[test]
    fn finds_the_last_batch_at_or_before_an_index() {
        let (index, entries) = filled();
        assert_eq!(index.at_or_before(LogIndex::new(0)), None);
        for number in 0..u64::from(COUNT) {
            let expected = entries.get(usize::try_from(number).expect("small"));
            assert_eq!(index.at_or_before(LogIndex::new(number * 2 + 1)), expected);
            assert_eq!(index.at_or_before(LogIndex::new(number * 2 + 2)), expected);
        }
    }

    #[test]
    fn timestamps_are_found_as_by_a_plain_scan() {
        let (index, entries) = filled();
        for end in [0, 10, 7_001, 20_480, 30_000] {
            let end = Offset::new(end);
            let visible: Vec<_> = entries.iter().filter(|e| e.end_offset() <= end).collect();
            for timestamp in (-1..5001).step_by(97) {
                for from in [0, 5, 9_999, 15_000] {
                    let from = Offset::new(from);
                    let expected = visible
                        .iter()
                        .find(|e| e.max_timestamp >= timestamp && e.end_offset() > from);
                    let found = index.at_timestamp(timestamp, from, end);
                    assert_eq!(found, expected.copied(), "{timestamp} {from} {end}");
                }
            }
            for from in [0, 5, 9_999, 15_000] {
                let from = Offset::new(from);
                let after = || visible.iter().filter(|e| e.end_offset() > from);
                let youngest = after().map(|e| e.max_timestamp).max();
                let expected = after().find(|e| Some(e.max_timestamp) == youngest);
                assert_eq!(index.at_max_timestamp(from, end), expected.copied(), "{from} {end}");
            }
        }
    }

    fn assert_chunks_and_size_are_right(index: &BatchIndex) {
        for chunk in &index.chunks {
            let youngest = chunk.entries.iter().map(|e| e.max_timestamp).max();
            assert_eq!(Some(chunk.max_timestamp), youngest);
        }
        let sizes = index.iter_from(Offset::ZERO).map(|entry| u64::from(entry.size));
        assert_eq!(index.size(), sizes.sum::<u64>());
    }

    #[test]
    fn truncates_and_trims_at_every_chunk_boundary() {
        for cut in [0, 1, 1023, 1024, 1025, 2048, 2999] {
            let (mut index, entries) = filled();
            let at = &entries[cut];
            assert_eq!(index.truncate(at.index), Some(at.base_offset));
            assert_chunks_and_size_are_right(&index);
            assert_eq!(index.last(), cut.checked_sub(1).map(|last| &entries[last]));
            assert_eq!(index.iter_from(Offset::ZERO).count(), cut);
            let youngest = entries[..cut].iter().map(|e| e.max_timestamp).max();
            let found = index.at_max_timestamp(Offset::ZERO, Offset::new(i64::MAX));
            assert_eq!(found.map(|e| e.max_timestamp), youngest);

            let (mut index, _) = filled();
            index.trim(at.base_offset.plus(3));
            assert_chunks_and_size_are_right(&index);
            assert_eq!(index.first(), Some(at));
            assert_eq!(index.iter_from(Offset::ZERO).copied().collect::<Vec<_>>(), entries[cut..]);
            let youngest = entries[cut..].iter().map(|e| e.max_timestamp).max();
            let found = index.at_max_timestamp(Offset::ZERO, Offset::new(i64::MAX));
            assert_eq!(found.map(|e| e.max_timestamp), youngest);
        }
        let (mut index, _) = filled();
        assert_eq!(index.truncate(LogIndex::new(6_000)), None);
        index.trim(Offset::new(30_000));
        assert_eq!(index, BatchIndex::default());
        assert_eq!(index.heap_size(), 0);
    }
}
