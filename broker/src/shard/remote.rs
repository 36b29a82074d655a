//! Reading what the WAL has given up: from the objects that the manifest names. The store's thread
//! fetches, caches and reads ahead; here the bytes become batches again, each checked.

use bytes::Bytes;
use kafka_wire::batch::{self, BatchHeader};
use model::{LeaderEpoch, Offset, PartitionId};
use s3_uploader::{Extent, Job, Outcome, StoreError};

use super::Shard;
use super::call::Origin;
use super::message::{FoundOffset, PartAnswer, ReadRefused};
use super::read::Search;
use super::tier::JobOf;
use crate::metrics::Metric;
use crate::partition::{Partition, Sought, TimestampedOffset};

/// Objects whose damage is told of in the log, each once.
const TOLD_MAX: usize = 100;

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
pub(super) struct RemoteRead {
    partition: PartitionId,
    extent: Extent,
    wanted: Wanted,
    /// What came first was damaged, on its way perhaps: it was asked for once more.
    again: bool,
}

enum Wanted {
    Fetch(RemotePlace),
    Search { origin: Origin, search: Search },
}

impl Shard {
    /// Asks the object tier for one partition of a fetch, `again` if what came was damaged.
    pub(super) fn read_remote(&mut self, place: RemotePlace, again: bool) {
        let Some((extent, next)) = self.tier.manifest.find(place.partition, place.from) else {
            // Not local and in no object would be a fault of ours. The client asks again: told that
            // the offset is out of range, it would pass over records.
            return self.fill_remote(&place, Err(ReadRefused::Storage));
        };
        let (extent, next) = (extent.clone(), next.cloned());
        let RemotePlace { partition, from, max_bytes, .. } = place;
        let job = Job::Read { extent: extent.clone(), next, from, max_bytes };
        let token = self.reads.next_token();
        if self.tier.start(job, JobOf::Read(token)) {
            let wanted = Wanted::Fetch(place);
            self.reads.remote.insert(token, RemoteRead { partition, extent, wanted, again });
        } else {
            // The store's queue is full: nothing now, and the client asks again.
            self.fill_remote(&place, Ok(Vec::new()));
        }
    }

    /// Looks for a record by its time in the objects of a partition; false if none can hold it.
    /// `again` if what came was damaged.
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
        let Some(extent) = found.cloned() else { return false };
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
        let wanted = Wanted::Search { origin, search };
        self.reads.remote.insert(token, RemoteRead { partition, extent, wanted, again });
        true
    }

    /// The object tier answered a read.
    pub(super) fn remote_read_done(&mut self, token: u64, outcome: Outcome) {
        let Some(read) = self.reads.remote.remove(&token) else { return };
        let bytes = match outcome {
            Outcome::Data(bytes) => bytes,
            outcome => return self.remote_failed(read, &outcome),
        };
        let RemoteRead { partition, ref extent, .. } = read;
        // A deleted topic's partition has no log: what is read of it is for nobody.
        let log = self.hosting.get(partition);
        let epoch_at = |offset: Offset| log?.leader_epoch_at(offset.max(log?.log_start()));
        match &read.wanted {
            Wanted::Fetch(place) => {
                let found = batches_from(&bytes, extent, &epoch_at, place.from, place.max_bytes);
                // What comes before a damaged batch is served: a consumer gets to where it begins.
                if found.damaged && found.batches.is_empty() {
                    return self.found_damaged(read);
                }
                let size: usize = found.batches.iter().map(Bytes::len).sum();
                self.metrics.add(Metric::FetchRemoteBytes, size as u64);
                self.fill_remote(place, Ok(found.batches));
            }
            Wanted::Search { origin, search } => match search_in(&bytes, extent, &epoch_at, search)
            {
                Some(found) => self.remote_searched(*origin, partition, *search, found),
                None => self.found_damaged(read),
            },
        }
    }

    /// A batch of an object is not what was written. It may have been damaged on its way, so it is
    /// asked for once more, past the cache; and the object may be restored, so the next reader asks
    /// the store again.
    fn found_damaged(&mut self, read: RemoteRead) {
        // Jobs begin in the order in which they are sent.
        self.tier.start(Job::Forget(read.extent.clone()), JobOf::Forgetting);
        if read.again {
            let object = read.extent.object;
            self.note_damage(&read, &format!("a batch in {object} is not what was written"));
            return self.refuse_remote(&read);
        }
        match read.wanted {
            Wanted::Fetch(place) => self.read_remote(place, true),
            Wanted::Search { origin, search } => {
                if !self.find_remote(origin, read.partition, search, true) {
                    self.find_local(origin, read.partition, search);
                }
            }
        }
    }

    fn remote_failed(&mut self, read: RemoteRead, outcome: &Outcome) {
        // A store that does not answer is no damage.
        if let Outcome::Failed(
            error @ (StoreError::NotFound { .. }
            | StoreError::Truncated { .. }
            | StoreError::Checksum { .. }),
        ) = outcome
        {
            self.note_damage(&read, &error.to_string());
        }
        self.refuse_remote(&read);
    }

    fn refuse_remote(&mut self, read: &RemoteRead) {
        self.metrics.add(Metric::FetchRemoteFailures, 1);
        match &read.wanted {
            Wanted::Fetch(place) => self.fill_remote(place, Err(ReadRefused::Storage)),
            Wanted::Search { origin, .. } => {
                self.answer(*origin, PartAnswer::FindOffset(Err(ReadRefused::Storage)));
            }
        }
    }

    fn remote_searched(
        &mut self,
        origin: Origin,
        partition: PartitionId,
        search: Search,
        found: Option<TimestampedOffset>,
    ) {
        match found {
            Some(found) => {
                let answer = FoundOffset {
                    offset: Some(found.offset),
                    timestamp_ms: found.timestamp,
                    leader_epoch: search.epoch,
                };
                self.answer(origin, PartAnswer::FindOffset(Ok(answer)));
            }
            // Only records below the log start were as young.
            None => self.find_local(origin, partition, search),
        }
    }

    /// One line for each object, as long as the manifest names it.
    fn note_damage(&mut self, read: &RemoteRead, reason: &str) {
        let Extent { object, base, end, .. } = &read.extent;
        let id = read.partition;
        let named = self.tier.manifest.extents(id).iter().any(|extent| extent.object == *object);
        if !named || self.reads.told.len() >= TOLD_MAX || !self.reads.told.insert(*object) {
            return;
        }
        let (shard, name) = (self.id.get(), self.metadata.image().name_of(id));
        let line = format!(
            "shard {shard}: {name}: cannot read all of offsets {base} to {end}: {reason}; readers \
             get an error there: run `tailrace object verify` and restore the object from a copy"
        );
        self.notes.push(line);
    }
}

/// What an interval of an object gives a reader.
#[derive(Debug, Default)]
struct Found {
    batches: Vec<Bytes>,
    /// The batch after these is not what was written: it is never served.
    damaged: bool,
}

/// Tells what the log knows of an offset.
type EpochAt<'a> = &'a dyn Fn(Offset) -> Option<LeaderEpoch>;

/// Whole batches from the one that contains `from`, up to `max_bytes` but one at least. A CRC does
/// not cover what is in front of it: the offsets must follow each other inside of the extent, and
/// the leader epoch be what the log says.
fn batches_from(
    bytes: &Bytes,
    extent: &Extent,
    epoch_at: EpochAt<'_>,
    from: Offset,
    max_bytes: u32,
) -> Found {
    let mut found = Found::default();
    let (mut at, mut size) = (0, 0);
    let mut expected = None;
    while at < bytes.len() {
        let header = BatchHeader::read(&bytes[at..]);
        let whole = header.and_then(|header| Some((header, at.checked_add(header.size()?)?)));
        let Some((header, next)) = whole.filter(|(_, next)| *next <= bytes.len()) else {
            found.damaged = true;
            break;
        };
        let batch = bytes.slice(at..next);
        at = next;
        let (base, last) = (header.base_offset(), header.last_offset());
        let inside = extent.base.get() <= base && base <= last && last < extent.end.get();
        if !inside || expected.is_some_and(|expected| expected != base) {
            // This one or the one before it has wrong offsets.
            found.batches.pop();
            found.damaged = true;
            break;
        }
        expected = Some(last + 1);
        if last < from.get() {
            continue;
        }
        size += batch.len();
        if size > max_bytes as usize && !found.batches.is_empty() {
            break;
        }
        let epoch = epoch_at(Offset::new(base)).map(LeaderEpoch::get);
        let is_sound = header.magic() == batch::MAGIC
            && epoch == Some(header.partition_leader_epoch())
            && batch::crc_is_valid(&batch);
        // One that begins after what is asked for would pass over records.
        if !is_sound || found.batches.is_empty() && base > from.get() {
            found.damaged = true;
            break;
        }
        found.batches.push(batch);
    }
    found
}

/// The record sought in an interval of batches. The outer `None`: a damaged batch may hold it.
fn search_in(
    bytes: &Bytes,
    extent: &Extent,
    epoch_at: EpochAt<'_>,
    search: &Search,
) -> Option<Option<TimestampedOffset>> {
    let first = BatchHeader::read(bytes)?.base_offset();
    let from = search.log_start.max(Offset::new(first));
    let Found { batches, damaged } = batches_from(bytes, extent, epoch_at, from, u32::MAX);
    for batch in batches {
        let found = search.sought.find_in(search.log_start, &batch).ok()?;
        if found.is_some() {
            return Some(found);
        }
    }
    (!damaged).then_some(None)
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
