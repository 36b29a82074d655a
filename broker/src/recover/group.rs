//! A data group, from its newest manifest file and the objects after it. Partitions of it that are
//! elsewhere by now are rebuilt too, as they were here: whoever has them may need that
//! (`moves.rs`), and their extents keep the objects that they are in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{LogIndex, Offset, PartitionId, RaftGroupId, ShardId, Term};
use s3_uploader::{Edit, Manifest, ObjectName};

use super::bucket::{Bucket, Listed};
use super::metadata::Hosts;
use super::{Highest, Ranges, Rebuilt, RecoverError};
use crate::group::{Coordinator, GroupConfig, Now};
use crate::partition::{Partition, TailBudget};
use crate::shard::group_snapshot::{GroupRecords, GroupSnapshot, Stored, encode_snapshot};

/// See the module's text.
pub(super) struct GroupRebuild {
    pub(super) group: RaftGroupId,
    pub(super) now_ms: i64,
    pub(super) hosts: Arc<Hosts>,
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
    /// The objects of this group's log that are in the bucket.
    pub(super) present: BTreeSet<ObjectName>,
}

/// A group's newest manifest file; nothing if there is none.
pub(super) struct Loaded {
    pub(super) group: RaftGroupId,
    pub(super) manifest: Manifest,
    partitions: Vec<Partition>,
    offsets: Vec<(PartitionId, GroupRecords)>,
    highest: Highest,
}

impl Loaded {
    pub(super) fn of(bucket: &mut Bucket, group: RaftGroupId) -> Result<Self, RecoverError> {
        let decode = |file: &s3_uploader::ManifestFile| {
            GroupSnapshot::decode(&file.state).map_err(|error| error.to_string())
        };
        let (found, mut highest) = bucket.newest(group, decode)?;
        let (partitions, stored) =
            found.map(|(_, snapshot)| (snapshot.partitions, snapshot.stored)).unwrap_or_default();
        let Stored { manifest, edited, offsets } = stored;
        highest.see(edited.max(manifest.offloaded_upto()), Term::default());
        Ok(Self { group, manifest, partitions, offsets, highest })
    }
}

impl GroupRebuild {
    /// Begins with what is loaded.
    pub(super) fn start(
        bucket: &mut Bucket,
        loaded: Loaded,
        hosts: Arc<Hosts>,
        now_ms: i64,
    ) -> Self {
        let Loaded { group, manifest, partitions, offsets, highest } = loaded;
        let known = partitions.iter().map(Partition::id).chain(manifest.partitions());
        let partition_last = known.max().unwrap_or_default();
        let known = partitions.into_iter().map(|partition| (partition.id(), partition));
        let partitions = known.filter(|(id, _)| hosts.contains_key(id)).collect();
        let mut rebuild = Self {
            group,
            now_ms,
            hosts,
            partitions,
            manifest,
            coordinator: Coordinator::new(GroupConfig::default()),
            tail: TailBudget::new(0),
            ended: BTreeSet::new(),
            incomplete: false,
            highest,
            partition_last,
            present: BTreeSet::new(),
        };
        rebuild.drop_deleted(bucket);
        rebuild.begin_partitions();
        for (id, records) in offsets {
            let index = rebuild.hosts.get(&id).and_then(|hosted| hosted.offsets_index);
            let Some(index) = index else { continue };
            for (key, value) in records {
                rebuild.coordinator.load(index, &key, Some(&value));
            }
        }
        rebuild
    }

    /// Partitions that are here, and of which nothing is stored yet.
    fn begin_partitions(&mut self) {
        let (hosts, group) = (Arc::clone(&self.hosts), self.group);
        for (id, hosted) in hosts.iter().filter(|(_, it)| it.home.group == group) {
            self.highest.see(hosted.home.at, Term::default());
            if self.has_arrived(*id) {
                self.partition(*id);
            }
            if let Some(index) = hosted.offsets_index {
                self.coordinator.begin_load(index);
            }
        }
    }

    /// A partition as it is here, or would begin.
    pub(super) fn partition(&mut self, id: PartitionId) -> &mut Partition {
        self.partitions.entry(id).or_insert_with(|| Partition::new(id))
    }

    /// Is a partition at home here?
    pub(super) fn is_home_of(&self, id: PartitionId) -> bool {
        self.hosts.get(&id).is_some_and(|hosted| hosted.home.group == self.group)
    }

    /// Does what is stored of this group contain the move that brought the partition here, if one
    /// did?
    pub(super) fn has_arrived(&self, id: PartitionId) -> bool {
        let arrived = self.manifest.arrival(id).map(|arrival| arrival.id).unwrap_or_default();
        self.hosts.get(&id).is_some_and(|hosted| arrived >= hosted.home.id)
    }

    /// The latest move that this group took part in.
    pub(super) fn last_move(&self) -> LogIndex {
        let arrived = self.manifest.arrivals().map(|(_, arrival)| arrival.id);
        arrived.chain(self.manifest.sealed_partitions().map(|(_, id)| id)).max().unwrap_or_default()
    }

    /// Partitions whose topics are gone leave the manifest, as a broker would have them do.
    fn drop_deleted(&mut self, bucket: &mut Bucket) {
        let deleted = |id: &PartitionId| !self.hosts.contains_key(id);
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
            self.present.insert(ObjectName::Range(object.name));
            by_first.entry(object.name.first()).or_default().push(*object);
        }
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

    /// Names the offsets of partitions that are here which no reader will find. `present`: objects
    /// that are known to be there.
    pub(super) fn check_present(
        &self,
        bucket: &mut Bucket,
        present: impl Fn(&ObjectName) -> bool,
    ) -> Result<(), RecoverError> {
        let here = || self.manifest.partitions().filter(|id| self.is_home_of(*id));
        let objects = here().flat_map(|id| self.manifest.extents(id)).map(|it| it.object);
        let objects: BTreeSet<_> = objects.filter(|object| !present(object)).collect();
        let mut missing = BTreeSet::new();
        for object in objects {
            if !bucket.has(&object)? {
                missing.insert(object);
            }
        }
        for id in here() {
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
        self.hosts.get(&id).map_or_else(|| format!("partition {id}"), |it| it.name.clone())
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
        for (id, hosted) in self.hosts.iter() {
            let Some(at) = hosted.offsets_index.filter(|_| self.is_home_of(*id)) else { continue };
            self.coordinator.end_load(now, at);
            let records = self.coordinator.dump(at);
            if !records.is_empty() {
                offsets.push((*id, records));
            }
        }
        let here: Vec<_> =
            self.partitions.values().filter(|log| self.is_home_of(log.id())).collect();
        ranges.extend(here.iter().map(|log| (log.id(), (log.log_start(), log.log_end()))));
        let state = encode_snapshot(index, &self.manifest, &here, &offsets, index).into();
        Ok(Rebuilt { shard, group: self.group, index, term, state })
    }

    /// Log starts are edits of the manifest; a partition's state may be older.
    pub(super) fn settle_log_starts(&mut self) {
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
