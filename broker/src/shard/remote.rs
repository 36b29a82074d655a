//! Reading what the WAL has given up: from the objects that the manifest names. The store's thread
//! fetches, caches and reads ahead; here the bytes become batches again, each checked
//! (`remote_check.rs`).

use bytes::Bytes;
use kafka_wire::batch::{BatchHeader, HEADER_SIZE};
use model::{Offset, PartitionId};
use s3_uploader::{Extent, Job, Outcome, StoreError};

use super::Shard;
use super::call::Origin;
use super::message::{FoundOffset, PartAnswer, ReadRefused};
use super::read::Search;
use super::remote_check::Check;
use super::tiers::JobOf;
use crate::metrics::Metric;
use crate::partition::{Sought, TimestampedOffset};

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
        let group = self.hosting.group_of(place.partition);
        let found = group.and_then(|group| {
            let (extent, next) = self.tiers[group].manifest.find(place.partition, place.from)?;
            Some((group, extent.clone(), next.cloned()))
        });
        let Some((group, extent, next)) = found else {
            // Not local and in no object would be a fault of ours. The client asks again: told that
            // the offset is out of range, it would pass over records.
            return self.fill_remote(&place, Err(ReadRefused::Storage));
        };
        let RemotePlace { partition, from, max_bytes, .. } = place;
        let job = Job::Read { extent: extent.clone(), next, from, max_bytes };
        let token = self.reads.next_token();
        if self.tiers.start(group, job, JobOf::Read(token)) {
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
        let Some((group, local)) = self.hosting.find(partition) else { return false };
        if local.local_start() <= search.log_start {
            return false;
        }
        let manifest = &self.tiers[group].manifest;
        let found = match search.sought {
            Sought::AtOrAfter(at) => {
                let mut extents = manifest.extents(partition).iter();
                extents.find(|extent| extent.max_timestamp >= at && extent.end > search.log_start)
            }
            Sought::Youngest => {
                let local = local.local_max_timestamp();
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
        if !self.tiers.start(group, job, JobOf::Read(token)) {
            self.answer(origin, PartAnswer::FindOffset(Err(ReadRefused::Storage)));
            return true;
        }
        let wanted = Wanted::Search { origin, search };
        self.reads.remote.insert(token, RemoteRead { partition, extent, wanted, again });
        true
    }

    /// The object tier answered a read: what came is checked before it is used.
    pub(super) fn remote_read_done(&mut self, token: u64, outcome: Outcome) {
        let Some(read) = self.reads.remote.remove(&token) else { return };
        let pieces = match outcome {
            Outcome::Data(pieces) => pieces,
            outcome => return self.remote_failed(read, &outcome),
        };
        let (from, max_bytes) = match &read.wanted {
            Wanted::Fetch(place) => (place.from, place.max_bytes),
            Wanted::Search { search, .. } => {
                let head = pieces.peek::<HEADER_SIZE>();
                let first = head.as_ref().and_then(|head| BatchHeader::read(head));
                let first = first.map_or(0, BatchHeader::base_offset);
                (search.log_start.max(Offset::new(first)), u32::MAX)
            }
        };
        let check = Check::new(pieces, &read.extent, from, max_bytes);
        self.reads.checking = Some((read, check));
    }

    /// Goes on with the check under way, so far that nothing else has to wait long.
    pub(super) fn check_on(&mut self) {
        let Some((read, mut check)) = self.reads.checking.take() else { return };
        // A deleted topic's partition has no log: what is read of it is for nobody.
        let log = self.hosting.get(read.partition);
        let epoch_at = |offset: Offset| log?.leader_epoch_at(offset.max(log?.log_start()));
        if check.go_on(&epoch_at) {
            self.checked(read, check);
        } else {
            self.reads.checking = Some((read, check));
        }
    }

    fn checked(&mut self, read: RemoteRead, check: Check) {
        match &read.wanted {
            Wanted::Fetch(place) => {
                // What comes before a damaged batch is served: a consumer gets to where it begins.
                if check.is_damaged() && check.batches().is_empty() {
                    return self.found_damaged(read);
                }
                let batches = check.into_batches();
                let size: usize = batches.iter().map(Bytes::len).sum();
                self.metrics.add(Metric::FetchRemoteBytes, size as u64);
                self.fill_remote(place, Ok(batches));
            }
            Wanted::Search { origin, search } => match search_in(&check, search) {
                Some(found) => self.remote_searched(*origin, read.partition, *search, found),
                None => self.found_damaged(read),
            },
        }
    }

    /// A batch of an object is not what was written. It may have been damaged on its way, so it is
    /// asked for once more, past the cache; and the object may be restored, so the next reader asks
    /// the store again.
    fn found_damaged(&mut self, read: RemoteRead) {
        // Jobs begin in the order in which they are sent.
        let group = read.extent.object.group();
        self.tiers.start(group, Job::Forget(read.extent.clone()), JobOf::Forgetting);
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
        let is_named = |group| {
            let extents = self.tiers[group].manifest.extents(id);
            extents.iter().any(|extent| extent.object == *object)
        };
        let named = self.hosting.group_of(id).is_some_and(is_named);
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

/// The record sought in an interval of batches. The outer `None`: a damaged batch may hold it.
fn search_in(check: &Check, search: &Search) -> Option<Option<TimestampedOffset>> {
    for batch in check.batches() {
        let found = search.sought.find_in(search.log_start, batch).ok()?;
        if found.is_some() {
            return Some(found);
        }
    }
    (!check.is_damaged()).then_some(None)
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
