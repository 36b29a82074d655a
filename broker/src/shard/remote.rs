//! Reading what the WAL has given up: from the objects that the manifest names. The store's thread
//! fetches, caches and reads ahead; here the bytes become batches again, each checked.

use bytes::Bytes;
use kafka_wire::batch::{self, BatchHeader};
use model::{Offset, PartitionId};
use s3_uploader::{Job, Outcome};

use super::Shard;
use super::call::Origin;
use super::message::{FoundOffset, PartAnswer, ReadRefused};
use super::read::Search;
use super::tier::JobOf;
use crate::metrics::Metric;
use crate::partition::{Partition, Sought, TimestampedOffset};

/// Where an answer of the object tier belongs.
pub(super) struct RemotePlace {
    pub(super) read: u64,
    pub(super) part: usize,
    pub(super) partition: PartitionId,
    /// The first offset wanted.
    pub(super) from: Offset,
    /// Bytes of batches; one may exceed it.
    pub(super) max_bytes: u32,
}

/// What waits for an answer of the object tier.
pub(super) enum RemoteRead {
    Fetch(RemotePlace, Tried),
    Search { origin: Origin, partition: PartitionId, search: Search, tried: Tried },
}

/// What is known of a read under way.
#[derive(Clone, Copy)]
pub(super) struct Tried {
    /// Of the extent that is read.
    end: Offset,
    /// What came first was damaged, on its way perhaps: it is asked for once more.
    again: bool,
}

impl Shard {
    /// Asks the object tier for one partition of a fetch; `again`, past its cache.
    pub(super) fn read_remote(&mut self, place: RemotePlace, again: bool) {
        let Some((extent, next)) = self.tier.manifest.find(place.partition, place.from) else {
            // Not local and in no object would be a fault of ours. The client asks again: told that
            // the offset is out of range, it would pass over records.
            return self.fill_remote(&place, Err(ReadRefused::Storage));
        };
        let tried = Tried { end: extent.end, again };
        let job = Job::Read {
            extent: extent.clone(),
            next: next.cloned(),
            from: place.from,
            max_bytes: place.max_bytes,
            again,
        };
        let token = self.reads.next_token();
        if self.tier.start(job, JobOf::Read(token)) {
            self.reads.remote.insert(token, RemoteRead::Fetch(place, tried));
        } else {
            // The store's queue is full: nothing now, and the client asks again.
            self.fill_remote(&place, Ok(Vec::new()));
        }
    }

    /// Looks for a record by its time in the objects of a partition; false if none can hold it.
    /// `again`, past the cache.
    pub(super) fn find_remote(
        &mut self,
        origin: Origin,
        partition: PartitionId,
        search: Search,
        again: bool,
    ) -> bool {
        let manifest = &self.tier.manifest;
        let local = self.hosting.get(partition);
        if local.is_none_or(|log| log.local_start() <= search.log_start) {
            return false;
        }
        let found = match search.sought {
            Sought::AtOrAfter(at) => {
                let mut extents = manifest.extents(partition).iter();
                extents.find(|extent| extent.max_timestamp >= at && extent.end > search.log_start)
            }
            Sought::Youngest => {
                let local = local.and_then(Partition::local_max_timestamp);
                manifest
                    .extents(partition)
                    .iter()
                    .reduce(|a, b| if b.max_timestamp > a.max_timestamp { b } else { a })
                    .filter(|extent| local.is_none_or(|local| extent.max_timestamp >= local))
            }
        };
        let Some(extent) = found else { return false };
        let timestamp = match search.sought {
            Sought::AtOrAfter(at) => at,
            Sought::Youngest => extent.max_timestamp,
        };
        // The first record as young as the youngest is the youngest.
        let search = Search { sought: Sought::AtOrAfter(timestamp), ..search };
        let tried = Tried { end: extent.end, again };
        let job = Job::Find { extent: extent.clone(), timestamp, again };
        let token = self.reads.next_token();
        if !self.tier.start(job, JobOf::Read(token)) {
            self.answer(origin, PartAnswer::FindOffset(Err(ReadRefused::Storage)));
            return true;
        }
        self.reads.remote.insert(token, RemoteRead::Search { origin, partition, search, tried });
        true
    }

    /// The object tier answered a read.
    pub(super) fn remote_read_done(&mut self, token: u64, outcome: Outcome) {
        let bytes = match outcome {
            Outcome::Data(bytes) => Some(bytes),
            _ => None,
        };
        match self.reads.remote.remove(&token) {
            Some(RemoteRead::Fetch(place, tried)) => self.remote_fetched(place, tried, bytes),
            Some(RemoteRead::Search { origin, partition, search, tried }) => {
                let arrived = bytes.is_some();
                let found = bytes.and_then(|bytes| search_in(&bytes, &search, tried.end));
                if arrived && found.is_none() && !tried.again {
                    if !self.find_remote(origin, partition, search, true) {
                        self.find_local(origin, partition, search);
                    }
                } else {
                    self.remote_searched(origin, partition, search, found);
                }
            }
            None => {}
        }
    }

    fn remote_fetched(&mut self, place: RemotePlace, tried: Tried, bytes: Option<Bytes>) {
        let arrived = bytes.is_some();
        let batches =
            bytes.and_then(|bytes| batches_from(&bytes, place.from, tried.end, place.max_bytes));
        if arrived && batches.is_none() && !tried.again {
            return self.read_remote(place, true);
        }
        match &batches {
            Some(batches) => {
                let size: usize = batches.iter().map(Bytes::len).sum();
                self.metrics.add(Metric::FetchRemoteBytes, size as u64);
            }
            None => self.metrics.add(Metric::FetchRemoteFailures, 1),
        }
        self.fill_remote(&place, batches.ok_or(ReadRefused::Storage));
    }

    fn remote_searched(
        &mut self,
        origin: Origin,
        partition: PartitionId,
        search: Search,
        found: Option<Option<TimestampedOffset>>,
    ) {
        match found {
            Some(Some(found)) => {
                let answer = FoundOffset {
                    offset: Some(found.offset),
                    timestamp_ms: found.timestamp,
                    leader_epoch: search.epoch,
                };
                self.answer(origin, PartAnswer::FindOffset(Ok(answer)));
            }
            // Only records below the log start were as young.
            Some(None) => self.find_local(origin, partition, search),
            None => {
                self.metrics.add(Metric::FetchRemoteFailures, 1);
                self.answer(origin, PartAnswer::FindOffset(Err(ReadRefused::Storage)));
            }
        }
    }
}

/// Whole batches from the one that contains `from`, up to `max_bytes` but one at least. `None` if
/// one of them is not what was written: it is never served. A batch's own checksum leaves out what
/// is before it: offsets must ascend and end before the extent does.
fn batches_from(bytes: &Bytes, from: Offset, end: Offset, max_bytes: u32) -> Option<Vec<Bytes>> {
    let mut batches = Vec::new();
    let mut next = 0;
    let (mut at, mut size) = (0, 0);
    while at < bytes.len() {
        let header = BatchHeader::read(&bytes[at..])?;
        let last = header.last_offset();
        let ascends = next <= header.base_offset() && header.base_offset() <= last;
        if header.magic() != batch::MAGIC || !ascends || last >= end.get() {
            return None;
        }
        next = last + 1;
        let batch_end = at.checked_add(header.size()?).filter(|end| *end <= bytes.len())?;
        let batch = bytes.slice(at..batch_end);
        at = batch_end;
        if last < from.get() {
            continue;
        }
        size += batch.len();
        if size > max_bytes as usize && !batches.is_empty() {
            break;
        }
        if !batch::crc_is_valid(&batch) {
            return None;
        }
        batches.push(batch);
    }
    Some(batches)
}

/// The record sought in an interval of batches. The outer `None`: they are not what was written.
fn search_in(bytes: &Bytes, search: &Search, end: Offset) -> Option<Option<TimestampedOffset>> {
    for batch in batches_from(bytes, search.log_start, end, u32::MAX)? {
        let found = search.sought.find_in(search.log_start, &batch).ok()?;
        if found.is_some() {
            return Some(found);
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_wire::records::RecordBatchBuilder;

    use super::*;

    /// Batches of two records each, from these offsets on.
    fn batches(bases: &[i64]) -> BytesMut {
        let mut all = BytesMut::new();
        for base in bases {
            let mut builder = RecordBatchBuilder::new();
            builder.append(1, None, Some(b"one"), &[]).append(2, None, Some(b"two"), &[]);
            let mut batch = builder.build();
            batch::patch(&mut batch, *base, 3);
            all.extend_from_slice(&batch);
        }
        all
    }

    /// Base offsets of what is served.
    fn served(bytes: BytesMut, from: i64, end: i64, max_bytes: u32) -> Option<Vec<i64>> {
        let batches =
            batches_from(&bytes.freeze(), Offset::new(from), Offset::new(end), max_bytes)?;
        let base = |batch: &Bytes| BatchHeader::read(batch).map(|header| header.base_offset());
        batches.iter().map(base).collect()
    }

    #[test]
    fn batches_are_served_whole_from_the_one_that_is_asked_for() {
        let size = u32::try_from(batches(&[0]).len()).expect("small");
        assert_eq!(served(batches(&[0, 2, 4]), 3, 6, u32::MAX), Some(vec![2, 4]));
        assert_eq!(served(batches(&[0, 2, 4]), 0, 6, 2 * size), Some(vec![0, 2]));
        assert_eq!(served(batches(&[0, 2, 4]), 0, 6, 1), Some(vec![0]), "one at least");
        assert_eq!(served(batches(&[0, 6]), 0, 8, u32::MAX), Some(vec![0, 6]), "compacted");
    }

    #[test]
    fn no_bit_of_a_batch_may_be_another_one() {
        let whole = batches(&[0, 2, 4]);
        let size = batches(&[0]).len();
        for bit in 0..size * 8 {
            // Of the batch in the middle. The leader epoch is not checked: it is the WAL's word.
            let mut bytes = whole.clone();
            bytes[size + bit / 8] ^= 1 << (bit % 8);
            let served = served(bytes, 0, 6, u32::MAX);
            let is_epoch = (12..16).contains(&(bit / 8));
            assert_eq!(served.is_none(), !is_epoch, "bit {bit}: {served:?}");
        }
    }

    #[test]
    fn a_batch_that_would_end_after_its_extent_is_refused() {
        assert_eq!(served(batches(&[0, 2]), 0, 4, u32::MAX), Some(vec![0, 2]));
        assert_eq!(served(batches(&[0, 2]), 0, 3, u32::MAX), None);
    }
}
