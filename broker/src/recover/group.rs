//! A data group, from its newest manifest file and the objects after it.

use std::collections::{BTreeMap, BTreeSet};

use model::{LogIndex, Offset, PartitionId, RaftGroupId, ShardId, Term};
use s3_uploader::{Edit, Manifest, ObjectName};

use super::bucket::{Bucket, Listed};
use super::metadata::Hosted;
use super::{Highest, Ranges, Rebuilt, RecoverError};
use crate::group::{Coordinator, GroupConfig, Now};
use crate::partition::{Partition, TailBudget};
use crate::shard::group_snapshot::{GroupSnapshot, encode_snapshot};

/// See the module's text.
pub(super) struct GroupRebuild {
    group: RaftGroupId,
    pub(super) now_ms: i64,
    pub(super) hosted: BTreeMap<PartitionId, Hosted>,
    pub(super) partitions: BTreeMap<PartitionId, Partition>,
    pub(super) manifest: Manifest,
    pub(super) coordinator: Coordinator,
    /// Nothing is kept of any batch: this is never used up.
    pub(super) tail: TailBudget,
    /// Partitions that lost a part: what comes after it does not continue them.
    pub(super) ended: BTreeSet<PartitionId>,
    /// A part of the log is missing: a gap in a partition is a loss from here on, not a deletion.
    pub(super) incomplete: bool,
    pub(super) highest: Highest,
    pub(super) partition_last: PartitionId,
}

impl GroupRebuild {
    /// Begins with the group's newest manifest file, or with nothing if there is none.
    pub(super) fn start(
        bucket: &mut Bucket,
        hosted: BTreeMap<PartitionId, Hosted>,
        group: RaftGroupId,
        now_ms: i64,
    ) -> Result<Self, RecoverError> {
        let decode = |file: &s3_uploader::ManifestFile| {
            GroupSnapshot::decode(&file.state).map_err(|error| error.to_string())
        };
        let (found, mut highest) = bucket.newest(group, decode)?;
        let (partitions, stored) =
            found.map(|(_, snapshot)| (snapshot.partitions, snapshot.stored)).unwrap_or_default();
        highest.see(stored.edited.max(stored.manifest.offloaded_upto()), Term::default());
        let known = partitions.into_iter().map(|partition| (partition.id(), partition));
        let mut known: BTreeMap<_, _> = known.collect();
        let ids = known.keys().copied().chain(stored.manifest.partitions());
        let partition_last = ids.max().unwrap_or_default();
        let partitions = hosted
            .keys()
            .map(|id| (*id, known.remove(id).unwrap_or_else(|| Partition::new(*id))))
            .collect();
        let mut rebuild = Self {
            group,
            now_ms,
            hosted,
            partitions,
            manifest: stored.manifest,
            coordinator: Coordinator::new(GroupConfig::default()),
            tail: TailBudget::new(0),
            ended: BTreeSet::new(),
            incomplete: false,
            highest,
            partition_last,
        };
        rebuild.drop_deleted(bucket);
        for hosted in rebuild.hosted.values() {
            if let Some(index) = hosted.offsets_index {
                rebuild.coordinator.begin_load(index);
            }
        }
        for (id, records) in stored.offsets {
            let index = rebuild.hosted.get(&id).and_then(|hosted| hosted.offsets_index);
            let Some(index) = index else { continue };
            for (key, value) in records {
                rebuild.coordinator.load(index, &key, Some(&value));
            }
        }
        Ok(rebuild)
    }

    /// Partitions whose topics are gone leave the manifest, as a broker would have them do.
    fn drop_deleted(&mut self, bucket: &mut Bucket) {
        let deleted = |id: &PartitionId| !self.hosted.contains_key(id);
        let partitions: Vec<_> = self.manifest.partitions().filter(deleted).collect();
        bucket.topicless.extend(&partitions);
        let dropped = self.manifest.apply(&Edit::Dropped { partitions }, self.now_ms);
        dropped.expect("partitions can always be dropped");
    }

    /// Takes the objects after the manifest file, in the order of the log. Where several begin at
    /// one entry, the latest leader's is the one that the log went on with: an earlier leader, or
    /// an earlier start of the broker, had stored its own without being able to say so in the log.
    pub(super) fn take_objects(&mut self, bucket: &mut Bucket) -> Result<(), RecoverError> {
        let mut by_first: BTreeMap<LogIndex, Vec<Listed>> = BTreeMap::new();
        let listed = bucket.objects(self.group)?;
        for object in &listed {
            self.highest.see(object.name.last(), object.name.term());
            by_first.entry(object.name.first()).or_default().push(*object);
        }
        self.check_present(bucket, &listed)?;
        let mut covered = self.manifest.offloaded_upto();
        while let Some((first, objects)) = by_first.range_mut(covered.next()..).next() {
            if *first > covered.next() {
                let (from, to) = (covered.next(), first.get() - 1);
                let group = self.group;
                bucket.damage.push(format!("group {group}: no object has entries {from} to {to}"));
                self.incomplete = true;
            }
            objects.sort_by_key(|object| (object.name.term(), object.name.last()));
            covered = objects.last().map_or(*first, |object| object.name.last());
            if let Some(last) = self.take_first_sound(bucket, objects)? {
                covered = last;
            } else {
                self.incomplete = true;
            }
        }
        Ok(())
    }

    /// Tries the last one first; says up to which entry the one that was taken reaches.
    fn take_first_sound(
        &mut self,
        bucket: &mut Bucket,
        objects: &[Listed],
    ) -> Result<Option<LogIndex>, RecoverError> {
        for object in objects.iter().rev() {
            let taken = match bucket.directory(*object)? {
                Ok(directory) => self.take_object(bucket, object, &directory)?,
                Err(reason) => Err(reason),
            };
            match taken {
                Ok(()) => return Ok(Some(object.name.last())),
                Err(reason) => {
                    let name = ObjectName::Range(object.name);
                    bucket.damage.push(format!("{name}: {reason}; it is left out"));
                }
            }
        }
        Ok(None)
    }

    /// Names the offsets that no reader will find.
    fn check_present(&self, bucket: &mut Bucket, listed: &[Listed]) -> Result<(), RecoverError> {
        let here: BTreeSet<_> =
            listed.iter().map(|object| ObjectName::Range(object.name)).collect();
        let mut missing = BTreeSet::new();
        for object in self.manifest.live().filter(|object| !here.contains(object)) {
            if !bucket.has(object)? {
                missing.insert(*object);
            }
        }
        for id in self.manifest.partitions() {
            let lost = |extent: &&s3_uploader::Extent| missing.contains(&extent.object);
            for extent in self.manifest.extents(id).iter().filter(lost) {
                let (name, object) = (self.name_of(id), &extent.object);
                let (base, end) = (extent.base, extent.end);
                bucket.damage.push(format!("{name}: offsets {base} to {end}: no object {object}"));
            }
        }
        Ok(())
    }

    pub(super) fn name_of(&self, id: PartitionId) -> String {
        self.hosted.get(&id).map_or_else(|| format!("partition {id}"), |it| it.name.clone())
    }

    /// What a new partition and a new producer may be called without meeting one that is here.
    pub(super) fn ids_end(&self) -> (PartitionId, i64) {
        let partition = PartitionId::new(self.partition_last.get().saturating_add(1));
        let producer = self.partitions.values().filter_map(Partition::producer_id_last).max();
        (partition, producer.map_or(0, |id| id.saturating_add(1)))
    }

    /// The group's state as of an entry after all that the bucket knows of.
    pub(super) fn finish(
        mut self,
        bucket: &mut Bucket,
        ranges: &mut Ranges,
        shard: ShardId,
    ) -> Result<Rebuilt, RecoverError> {
        let (index, term) = self.highest.beyond();
        self.settle_log_starts();
        let upto = ObjectName::range(self.group, term, index, index).expect("one entry");
        let edit =
            Edit::Offloaded { upto: index, object: upto, object_size: 0, extents: Vec::new() };
        self.manifest.apply(&edit, self.now_ms).expect("it is beyond all that is offloaded");
        if let Some((count, fault)) = self.coordinator.load_fault() {
            let group = self.group;
            bucket
                .damage
                .push(format!("group {group}: {count} records of consumer groups: {fault}"));
        }
        let now = Now { monotonic_ms: 0, unix_ms: self.now_ms };
        let mut offsets = Vec::new();
        for (id, hosted) in &self.hosted {
            let Some(at) = hosted.offsets_index else { continue };
            self.coordinator.end_load(now, at);
            let records = self.coordinator.dump(at);
            if !records.is_empty() {
                offsets.push((*id, records));
            }
        }
        for (id, log) in &self.partitions {
            ranges.insert(*id, (log.log_start(), log.log_end()));
        }
        let partitions: Vec<_> = self.partitions.values().collect();
        let state = encode_snapshot(index, &self.manifest, &partitions, &offsets, index).into();
        Ok(Rebuilt { shard, group: self.group, index, term, state })
    }

    /// Log starts are edits of the manifest; a partition's state may be older.
    fn settle_log_starts(&mut self) {
        for (id, log) in &mut self.partitions {
            let start = self.manifest.log_start(*id);
            if start > log.log_end() {
                log.skip_to(start);
            } else if start > Offset::ZERO {
                log.trim_to(start, &mut self.tail).expect("all of it is committed");
            }
        }
    }
}
