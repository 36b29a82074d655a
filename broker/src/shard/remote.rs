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
    Fetch(RemotePlace),
    Search { origin: Origin, partition: PartitionId, search: Search },
}

impl Shard {
    /// Asks the object tier for one partition of a fetch.
    pub(super) fn read_remote(&mut self, place: RemotePlace) {
        let Some((extent, next)) = self.tier.manifest.find(place.partition, place.from) else {
            // Not local and in no object would be a fault of ours. The client asks again: told that
            // the offset is out of range, it would pass over records.
            return self.fill_remote(&place, Err(ReadRefused::Storage));
        };
        let job = Job::Read {
            extent: extent.clone(),
            next: next.cloned(),
            from: place.from,
            max_bytes: place.max_bytes,
        };
        let token = self.reads.next_token();
        if self.tier.start(job, JobOf::Read(token)) {
            self.reads.remote.insert(token, RemoteRead::Fetch(place));
        } else {
            // The store's queue is full: nothing now, and the client asks again.
            self.fill_remote(&place, Ok(Vec::new()));
        }
    }

    /// Looks for a record by its time in the objects of a partition; false if none can hold it.
    pub(super) fn find_remote(
        &mut self,
        origin: Origin,
        partition: PartitionId,
        search: Search,
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
        let job = Job::Find { extent: extent.clone(), timestamp };
        let token = self.reads.next_token();
        if !self.tier.start(job, JobOf::Read(token)) {
            self.answer(origin, PartAnswer::FindOffset(Err(ReadRefused::Storage)));
            return true;
        }
        self.reads.remote.insert(token, RemoteRead::Search { origin, partition, search });
        true
    }

    /// The object tier answered a read.
    pub(super) fn remote_read_done(&mut self, token: u64, outcome: Outcome) {
        let bytes = match outcome {
            Outcome::Data(bytes) => Some(bytes),
            _ => None,
        };
        match self.reads.remote.remove(&token) {
            Some(RemoteRead::Fetch(place)) => self.remote_fetched(&place, bytes),
            Some(RemoteRead::Search { origin, partition, search }) => {
                self.remote_searched(origin, partition, search, bytes);
            }
            None => {}
        }
    }

    fn remote_fetched(&mut self, place: &RemotePlace, bytes: Option<Bytes>) {
        let batches = bytes.and_then(|bytes| batches_from(&bytes, place.from, place.max_bytes));
        match &batches {
            Some(batches) => {
                let size: usize = batches.iter().map(Bytes::len).sum();
                self.metrics.add(Metric::FetchRemoteBytes, size as u64);
            }
            None => self.metrics.add(Metric::FetchRemoteFailures, 1),
        }
        self.fill_remote(place, batches.ok_or(ReadRefused::Storage));
    }

    fn remote_searched(
        &mut self,
        origin: Origin,
        partition: PartitionId,
        search: Search,
        bytes: Option<Bytes>,
    ) {
        let found = bytes.and_then(|bytes| search_in(&bytes, &search));
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
/// one of them is not what was written: it is never served.
fn batches_from(bytes: &Bytes, from: Offset, max_bytes: u32) -> Option<Vec<Bytes>> {
    let mut batches = Vec::new();
    let (mut at, mut size) = (0, 0);
    while at < bytes.len() {
        let header = BatchHeader::read(&bytes[at..])?;
        let end = at.checked_add(header.size()?).filter(|end| *end <= bytes.len())?;
        let batch = bytes.slice(at..end);
        at = end;
        if header.last_offset() < from.get() {
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
fn search_in(bytes: &Bytes, search: &Search) -> Option<Option<TimestampedOffset>> {
    for batch in batches_from(bytes, search.log_start, u32::MAX)? {
        let found = search.sought.find_in(search.log_start, &batch).ok()?;
        if found.is_some() {
            return Some(found);
        }
    }
    Some(None)
}
