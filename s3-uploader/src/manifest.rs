//! Which object holds which offsets: the state that a raft group keeps of its part of the bucket.
//!
//! It changes only by edits in the group's log, so every replica has the same. An object is listed
//! from the edit that names it until the edit that says that it is gone from the store. As long as
//! extents refer to it, it is *live*; when the last one goes, it is *retired* with the time of
//! that edit, and may be deleted some time later: readers of the old extents come to an end first.
//!
//! A partition may move to another group, and no data is copied for it: the other group's manifest
//! names the same objects. An object is deleted only by the group in its name. To every other one
//! that names it, it is *foreign*: forgotten with its last reference, never retired. Its own group
//! goes on to list it as *lent* until it is told that nobody needs it any more.
//!
//! **Invariants**, checked by `decode` and kept by `apply`:
//! - a partition's extents follow each other without a gap, and the last ends at `end`;
//! - no extent is wholly below the partition's log start;
//! - an object is live if an extent refers to it or it is lent, else retired, never both;
//! - a partition with lent objects is another group's: nothing else is known of it.

mod apply;
mod codec;
mod moves;
mod near;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use model::{LogIndex, Offset, PartitionId, RaftGroupId};

use crate::object::Extent;
use crate::object_name::ObjectName;

/// A group's extents by partition, and its objects.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Manifest {
    offloaded_upto: LogIndex,
    partitions: BTreeMap<PartitionId, PartitionExtents>,
    live: BTreeMap<ObjectName, LiveObject>,
    retired: BTreeMap<ObjectName, RetiredObject>,
    sealed: BTreeMap<PartitionId, LogIndex>,
    arrivals: BTreeMap<PartitionId, Arrival>,
    lent: BTreeMap<PartitionId, Lent>,
    live_size: u64,
    retired_size: u64,
    /// Objects with extents that are small enough to be merged: it follows from `live`.
    small: BTreeSet<ObjectName>,
}

/// How a partition came to this group from another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// The move: an index of group 0's log.
    pub id: LogIndex,
    pub epoch_base: u32,
}

/// Objects that a partition needed when it left, but for those that were released since: at least
/// one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lent {
    pub to: RaftGroupId,
    /// The entry of that group's log that adopted the partition.
    pub since: u64,
    objects: BTreeSet<ObjectName>,
}

impl Lent {
    pub fn objects(&self) -> &BTreeSet<ObjectName> {
        &self.objects
    }
}

/// Objects and extents of a manifest, for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    pub live_count: usize,
    pub live_size: u64,
    /// Objects that wait to be deleted.
    pub retired_count: usize,
    pub retired_size: u64,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct PartitionExtents {
    log_start: Offset,
    /// Where the offloaded records end, known even when retention has removed all extents.
    end: Option<Offset>,
    /// Bytes of data in all extents.
    size: u64,
    /// In order of offsets.
    extents: Vec<Extent>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct LiveObject {
    size: u64,
    /// Extents that refer to it.
    extent_count: u32,
    /// Partitions that left and may need it where they are now. Not 0 if there is no extent.
    lent_count: u32,
    /// Whether it is another group's to delete.
    is_foreign: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct RetiredObject {
    size: u64,
    retired_ms: i64,
}

impl Manifest {
    /// The last entry of the group's log whose records are in the store.
    pub fn offloaded_upto(&self) -> LogIndex {
        self.offloaded_upto
    }

    /// Partitions of which anything is known, in ascending order. An offload that was under way
    /// when a partition was dropped brings it back; the leader finds it here and drops it again.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.partitions.keys().copied()
    }

    /// Is a partition one of those?
    pub fn has(&self, partition: PartitionId) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// The same, beginning with `from` or the first one after it.
    pub(crate) fn partitions_from(
        &self,
        from: PartitionId,
    ) -> impl Iterator<Item = PartitionId> + '_ {
        self.partitions.range(from..).map(|(id, _)| *id)
    }

    /// A partition's extents in order of offsets.
    pub fn extents(&self, partition: PartitionId) -> &[Extent] {
        self.partitions.get(&partition).map_or(&[], |known| &known.extents)
    }

    /// The extent that holds an offset, and the one after it for reading ahead.
    pub fn find(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> Option<(&Extent, Option<&Extent>)> {
        let extents = self.extents(partition);
        let at = extents.partition_point(|extent| extent.end <= offset);
        let extent = extents.get(at).filter(|extent| extent.holds(offset))?;
        Some((extent, extents.get(at + 1)))
    }

    /// The first offset that can be read as far as edits say; 0 for a partition without any.
    pub fn log_start(&self, partition: PartitionId) -> Offset {
        self.partitions.get(&partition).map_or(Offset::ZERO, |known| known.log_start)
    }

    /// Where the partition's offloaded records end, exclusive; `None` if there never were any.
    pub fn offloaded_end(&self, partition: PartitionId) -> Option<Offset> {
        self.partitions.get(&partition).and_then(|known| known.end)
    }

    /// Bytes of data in the partition's extents.
    pub fn partition_size(&self, partition: PartitionId) -> u64 {
        self.partitions.get(&partition).map_or(0, |known| known.size)
    }

    pub fn extent_count(&self) -> usize {
        self.partitions.values().map(|known| known.extents.len()).sum()
    }

    pub fn totals(&self) -> Totals {
        Totals {
            live_count: self.live.len(),
            live_size: self.live_size,
            retired_count: self.retired.len(),
            retired_size: self.retired_size,
        }
    }

    /// Whether the object is listed, live or retired. An object in the store that is not listed,
    /// and that no offload or merge under way has put there, is an orphan.
    pub fn contains(&self, object: &ObjectName) -> bool {
        self.live.contains_key(object) || self.retired.contains_key(object)
    }

    /// Objects that extents refer to or that are lent, foreign ones too, in order of names.
    pub fn live(&self) -> impl Iterator<Item = &ObjectName> {
        self.live.keys()
    }

    /// Objects with extents that are small enough to be merged, and their sizes.
    pub(crate) fn small(&self) -> impl Iterator<Item = (ObjectName, u64)> {
        self.small.iter().map(|name| (*name, self.live_size(name)))
    }

    /// Size of a live object; 0 of any other.
    pub(crate) fn live_size(&self, object: &ObjectName) -> u64 {
        self.live.get(object).map_or(0, |live| live.size)
    }

    /// Extents that refer to an object.
    pub(crate) fn references(&self, object: &ObjectName) -> usize {
        self.live.get(object).map_or(0, |live| live.extent_count as usize)
    }

    /// Live objects with their sizes, in order of names.
    pub fn live_sizes(&self) -> impl Iterator<Item = (&ObjectName, u64)> {
        self.live.iter().map(|(name, object)| (name, object.size))
    }

    /// Retired objects with their sizes and the times when they were, in order of names.
    pub fn retired_sizes(&self) -> impl Iterator<Item = (&ObjectName, u64, i64)> {
        self.retired.iter().map(|(name, object)| (name, object.size, object.retired_ms))
    }

    /// Objects that nothing refers to since before that time, in order of names: they may be
    /// deleted.
    pub fn retired(&self, before_ms: i64) -> impl Iterator<Item = &ObjectName> {
        let old = self.retired.iter().filter(move |(_, object)| object.retired_ms < before_ms);
        old.map(|(name, _)| name)
    }
}
