//! What is in objects leaves memory, and then the log and the WAL.
//!
//! An object holds records of all of a group's partitions, which may be ten thousand. They are
//! released some in each turn, and the snapshot that stands for the log comes after the last. That
//! is one piece of work, longer with each partition and each of its extents, so it is done where
//! it frees much.
//!
//! **Invariant**: nothing in memory refers to an entry that the log has given up.

use bytes::Bytes;
use model::{LogIndex, PartitionId, RaftGroupId};

use super::Shard;
use super::group_snapshot::encode_snapshot;
use super::metadata::METADATA_SHARD;
use crate::metrics::Metric;

/// Partitions that one turn of the shard looks at, so that no other work waits long.
pub(super) const RELEASED_PER_TURN: usize = 256;
/// While the WAL has room, a snapshot has to free this many times the bytes that the last one took:
/// making it is a small part of the work that filled them.
const FREED_TIMES: u64 = 64;

/// Partitions from `next` on may refer to entries up to `upto` still, all of which are in objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Release {
    upto: LogIndex,
    next: PartitionId,
}

impl Shard {
    /// A group's entries up to `upto` are in objects.
    pub(super) fn release(&mut self, group: RaftGroupId, upto: LogIndex) {
        let next = PartitionId::new(0);
        self.tiers[group].offload.release = Some(Release { upto, next });
        self.release_on(group);
    }

    /// Goes on with it; after the last partition the log is compacted.
    pub(super) fn release_on(&mut self, group: RaftGroupId) {
        let Some(release) = self.tiers[group].offload.release else { return };
        self.release_some(group, self.released_per_turn);
        if self.tiers[group].offload.release.is_none() {
            self.compact_if_worth(group, release.upto);
        }
    }

    fn release_some(&mut self, group: RaftGroupId, count: usize) {
        let Some(Release { upto, next }) = self.tiers[group].offload.release.take() else { return };
        let next = self.hosting.release_before(group, upto, next, count);
        self.tiers[group].offload.release = next.map(|next| Release { upto, next });
    }

    /// Lets a snapshot stand for the log up to `upto`, if that frees enough of the WAL.
    fn compact_if_worth(&mut self, group: RaftGroupId, upto: LogIndex) {
        let freed = self.log.trimmable(group, upto.next());
        let last_size = self.tiers[group].snapshot_size;
        if freed >= FREED_TIMES.saturating_mul(last_size) || self.log.wants_room() {
            self.compact_to(group, upto);
        }
    }

    /// The same, if it frees a segment.
    pub(super) fn compact_to(&mut self, group: RaftGroupId, upto: LogIndex) {
        if self.log.trimmable(group, upto.next()) > 0 {
            self.compact_now(group, upto);
        }
    }

    /// The same, whatever it frees here: other brokers get the snapshot in place of the entries.
    pub(super) fn compact_now(&mut self, group: RaftGroupId, upto: LogIndex) {
        if upto < self.log.first_index(group) || !self.groups_are_loaded(group) {
            return;
        }
        self.release_some(group, usize::MAX);
        let snapshot = self.group_snapshot(group, upto);
        if snapshot.len() > self.log.snapshot_size_max() {
            self.metrics.add(Metric::OffloadFailures, 1);
            return;
        }
        self.tiers[group].snapshot_size = snapshot.len() as u64;
        self.metrics.set(Metric::SnapshotBytes, snapshot.len() as u64);
        if self.log.compact(group, upto, snapshot).is_ok() && self.id == METADATA_SHARD {
            self.compact_metadata(self.log.trimmable(group, upto.next()));
        }
    }

    /// What stands for a data group's log up to `upto`.
    pub(super) fn group_snapshot(&self, group: RaftGroupId, upto: LogIndex) -> Bytes {
        let offsets = self.offsets_records(group);
        let (manifest, edited) = (&self.tiers[group].manifest, self.tiers[group].edited);
        let partitions: Vec<_> = self.hosting.partitions(group).collect();
        encode_snapshot(edited, manifest, &partitions, &offsets, upto).into()
    }

    /// Compacts group 0 if its log holds on to the WAL's first `freed` bytes.
    fn compact_metadata(&mut self, freed: u64) {
        let group = RaftGroupId::METADATA;
        let first = self.log.first_index(group);
        let Some((index, snapshot)) = self.metadata_snapshot() else { return };
        if index >= first && self.log.trimmable(group, first) < freed {
            // It is a snapshot of applied entries, and small: it cannot be refused.
            let _ = self.log.compact(group, index, snapshot);
        }
    }

    /// Compacts logs that have no batches to offload: edits, metadata and elections fill a WAL too.
    pub(super) fn compact_idle(&mut self, group: RaftGroupId) {
        if !self.tiers[group].offload.is_done() {
            return;
        }
        self.compact_to(group, self.tiers[group].offload.covered());
    }

    /// The same of group 0.
    pub(super) fn compact_idle_metadata(&mut self) {
        if !self.tiers.iter().all(|(_, tier)| tier.offload.is_done()) {
            return;
        }
        let group = RaftGroupId::METADATA;
        let end = self.log.end_of(group);
        if self.id == METADATA_SHARD && self.log.trimmable(group, end) > 0 {
            self.compact_metadata(self.log.trimmable(group, end));
        }
    }
}
