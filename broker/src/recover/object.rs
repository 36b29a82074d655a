//! One object of a group's log, put on top of what is rebuilt of the group so far.

use bytes::Bytes;
use kafka_wire::batch::Batches;
use model::{LeaderEpoch, LogIndex, Offset, PartitionId, Term};
use s3_uploader::{Directory, Edit, Extent, ObjectName, Section};

use super::RecoverError;
use super::bucket::{Bucket, Listed, Sound};
use super::group::GroupRebuild;
use crate::partition::EntryDescriptor;
use crate::shard::coordinate::load;

/// A section that continues its partition.
struct Usable {
    partition: PartitionId,
    extent: Extent,
    batches: Vec<(Term, EntryDescriptor, Bytes)>,
}

/// What a section of an object is to the group.
enum Use {
    Taken(Usable),
    /// Of a deleted topic, or there already.
    Unwanted,
    /// It cannot continue its partition.
    Lost,
}

impl GroupRebuild {
    /// Takes an object's sections. One that cannot be used ends its partition, and is told of.
    pub(super) fn take_object(
        &mut self,
        bucket: &mut Bucket,
        object: &Listed,
        directory: &Directory,
    ) -> Result<Sound<()>, RecoverError> {
        let mut usable = Vec::new();
        let mut lost = false;
        for section in &directory.sections {
            self.partition_last = self.partition_last.max(section.partition);
            match self.use_section(bucket, section)? {
                Use::Taken(section) => usable.push(section),
                Use::Unwanted => {}
                Use::Lost => lost = true,
            }
        }
        for section in &usable {
            self.note_deletion(section.partition, section.extent.base);
        }
        let extents: Vec<_> =
            usable.iter().map(|section| (section.partition, section.extent.clone())).collect();
        // What is damaged is not listed: nobody may delete it, it may be all that is left.
        let unlisted = extents.is_empty() && lost;
        let edit = Edit::Offloaded {
            upto: object.name.last(),
            object: ObjectName::Range(object.name),
            object_size: if unlisted { 0 } else { object.size },
            extents,
        };
        if let Err(error) = self.manifest.apply(&edit, self.now_ms) {
            return Ok(Err(error.to_string()));
        }
        for section in usable {
            self.replay(section);
        }
        Ok(Ok(()))
    }

    fn use_section(&mut self, bucket: &mut Bucket, section: &Section) -> Result<Use, RecoverError> {
        let (id, extent) = (section.partition, &section.extent);
        if !self.hosts.contains_key(&id) {
            bucket.topicless.insert(id);
            return Ok(Use::Unwanted);
        }
        if self.ended.contains(&id) {
            return Ok(Use::Lost);
        }
        if self.manifest.offloaded_end(id).is_some_and(|end| extent.end <= end) {
            return Ok(Use::Unwanted);
        }
        // Of one that came back here the offsets before may be where it was meanwhile.
        let may_lack = self.incomplete || self.is_home_of(id) && !self.has_arrived(id);
        let log_start = self.manifest.log_start(id);
        let log = self.partition(id);
        let log_end = log.log_end();
        let batches = if extent.base > log_end.max(log_start) && may_lack {
            Err(format!("the offsets before {} are missing", extent.base))
        } else {
            let (latest, epoch_base) = (log.latest_leader_epoch(), log.origin().epoch_base);
            let found = bucket.section(section)?;
            found.and_then(|data| self.batches_of(section, &data, latest, epoch_base))
        };
        match batches {
            Ok(batches) => {
                Ok(Use::Taken(Usable { partition: id, extent: extent.clone(), batches }))
            }
            Err(reason) => {
                let (name, object) = (self.name_of(id), &extent.object);
                let line = format!("{name}: ends at offset {log_end}, in {object}: {reason}");
                bucket.damage.push(line);
                self.ended.insert(id);
                Ok(Use::Lost)
            }
        }
    }

    /// The batches of a section, of which each follows the one before it. `epoch_base`: what the
    /// partition's leader epochs are above the group's terms.
    fn batches_of(
        &self,
        section: &Section,
        data: &Bytes,
        latest: Option<LeaderEpoch>,
        epoch_base: u32,
    ) -> Sound<Vec<(Term, EntryDescriptor, Bytes)>> {
        let mut walk = Batches::new(data);
        let mut batches = Vec::new();
        let mut end = section.extent.base;
        let mut epoch_min = latest.unwrap_or_else(|| LeaderEpoch::new(0));
        for batch in walk.by_ref() {
            let header = batch.header;
            let entry = EntryDescriptor::of_batch(section.partition, header, self.now_ms)
                .map_err(|error| error.to_string())?;
            let base = entry.base_offset();
            let epoch = LeaderEpoch::new(header.partition_leader_epoch());
            let term = u32::try_from(epoch.get()).ok().and_then(|it| it.checked_sub(epoch_base));
            let term = term.ok_or_else(|| format!("leader epoch {epoch} at offset {base}"))?;
            if base < end || epoch < epoch_min {
                return Err(format!("offset {base} of epoch {epoch} after {end} of {epoch_min}"));
            }
            (end, epoch_min) = (entry.end_offset(), epoch);
            batches.push((Term::new(term.into()), entry, data.slice_ref(batch.bytes)));
        }
        if end != section.extent.end || !walk.rest().is_empty() {
            return Err(format!("its batches end at offset {end}"));
        }
        Ok(batches)
    }

    /// The offsets before `base` are nowhere although the log is complete: they were deleted.
    fn note_deletion(&mut self, partition: PartitionId, base: Offset) {
        let end = self.partitions.get(&partition).map_or(Offset::ZERO, |log| log.log_end());
        if base > end {
            let edit = Edit::LogStart { partition, offset: base };
            self.manifest.apply(&edit, self.now_ms).expect("a log start can always move");
        }
    }

    fn replay(&mut self, section: Usable) {
        let Usable { partition: id, batches, .. } = section;
        let offsets_index = self.hosts.get(&id).and_then(|hosted| hosted.offsets_index);
        for (term, entry, bytes) in batches {
            let index = self.next_index(term);
            let end = self.partitions.get(&id).map_or(Offset::ZERO, |log| log.log_end());
            if entry.end_offset() <= end {
                continue;
            }
            self.note_deletion(id, entry.base_offset());
            let Some(log) = self.partitions.get_mut(&id) else { continue };
            if entry.base_offset() > end {
                log.skip_to(entry.base_offset());
            }
            log.replay(index, term, &entry).expect("offsets and epochs were checked");
            log.committed(index);
            log.release_before(index, &mut self.tail);
            if let Some(at) = offsets_index {
                load(&mut self.coordinator, at, &bytes);
            }
        }
    }

    /// Stands for the entry that brought a batch: above every entry that a snapshot may name.
    fn next_index(&mut self, term: Term) -> LogIndex {
        self.highest.see(self.highest.index.next(), term);
        self.highest.index
    }
}
