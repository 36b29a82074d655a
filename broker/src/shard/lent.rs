//! What a group knows of partitions that it has no more: their topics are deleted, or another group
//! has them (ADR 0014).
//!
//! A partition that left takes its extents along, and their objects stay: they are lent to the
//! group that has it now, from the moment when the bucket knows that it has, and let go of when the
//! newest manifest file of that group does not name them any more.

use std::collections::{BTreeMap, BTreeSet};

use model::{PartitionId, RaftGroupId};
use s3_uploader::{Edit, GroupHead, Job, ManifestFile, ObjectName, Outcome};

use super::Shard;
use super::tiers::JobOf;
use crate::cluster::Partition;

impl Shard {
    /// Forgets the objects of partitions that are nowhere any more, and looks at the newest
    /// manifest file of each group that has a partition which was here.
    pub(super) fn let_go_of_partitions(&mut self, group: RaftGroupId) {
        let (gone, left) = self.without_partition(group);
        if !gone.is_empty() {
            // Refused only by a full log: then the next round does it.
            let _ = self.propose_edit(group, &Edit::Dropped { partitions: gone });
        }
        let lent = self.tiers[group].manifest.lent().map(|(_, lent)| lent.to);
        let others: BTreeSet<_> = left.into_iter().map(|it| it.group).chain(lent).collect();
        for other in others {
            // If the store has too much to do, the next round asks.
            self.tiers.start(group, Job::NewestManifest { group: other }, JobOf::Borrower(other));
        }
    }

    /// Partitions of the manifest that the group has no more: those that are nowhere, and those
    /// that another group has, as that one has them.
    fn without_partition(&self, group: RaftGroupId) -> (Vec<PartitionId>, Vec<Partition>) {
        let manifest = &self.tiers[group].manifest;
        let arrivals = manifest.arrivals().map(|(id, _)| id);
        let sealed = manifest.sealed_partitions().map(|(id, _)| id);
        let known = manifest.partitions().chain(arrivals).chain(sealed);
        let image = self.metadata.image();
        // One that is apart here left long ago, or comes by a move that the image does not know.
        let is_here = |id: &PartitionId| {
            let log = self.hosting.of(group, *id);
            self.hosting.group_of(*id) == Some(group)
                || log.is_some_and(|log| log.origin().id > image.version())
        };
        let known: BTreeSet<_> = known.filter(|id| !is_here(id)).collect();
        if known.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let all: BTreeMap<_, _> =
            image.partitions().map(|(_, _, partition)| (partition.id, partition)).collect();
        let (mut gone, mut left) = (Vec::new(), Vec::new());
        for id in known {
            if all.get(&id).is_some_and(|there| there.destination() == group) {
                continue; // It comes, or is here as soon as the log says how.
            }
            // Also one that only came for a move that was called off: it may have been here before,
            // and been lent on to where it is, which the group that had it first relies on.
            match all.get(&id) {
                Some(there) => left.push(**there),
                None => gone.push(id),
            }
        }
        (gone, left)
    }

    pub(super) fn borrower_found(
        &mut self,
        group: RaftGroupId,
        other: RaftGroupId,
        outcome: Outcome,
    ) {
        let Outcome::Manifest(Some(file)) = outcome else { return };
        if !self.log.has_caught_up(group) {
            return;
        }
        let ManifestFile { sequence, state, .. } = *file;
        let Ok((GroupHead { manifest: theirs, .. }, _)) = GroupHead::decode(&state) else { return };
        let (_, left) = self.without_partition(group);
        let is_known = |it: &&Partition| it.group == other && sequence >= it.arrived.get();
        let lent = left.iter().filter(is_known).map(|it| Edit::Lent {
            partition: it.id,
            to: other,
            since: it.arrived.get(),
        });
        let released = self.tiers[group].manifest.lent();
        // A file from before that group has adopted the partition does not name its objects yet.
        let released = released.filter(|(_, lent)| lent.to == other && sequence >= lent.since);
        let released = released.filter_map(|(partition, lent)| {
            let unnamed = lent.objects().iter().filter(|object| !theirs.contains(object));
            let objects: Vec<ObjectName> = unnamed.copied().collect();
            (!objects.is_empty()).then_some(Edit::Released { partition, objects })
        });
        let edits: Vec<_> = lent.chain(released).collect();
        for edit in edits {
            // As above.
            let _ = self.propose_edit(group, &edit);
        }
    }
}
