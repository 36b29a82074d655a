//! Partitions that come from other groups and go to them: what is known of that, and what the edits
//! about it do.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use model::{LogIndex, PartitionId, RaftGroupId};

use super::{Arrival, Lent, LiveObject, Manifest, PartitionExtents};
use crate::adoption::Adoption;
use crate::edit::EditError;
use crate::object_name::ObjectName;
use crate::plan::SMALL_BELOW;

impl Manifest {
    /// The move that takes the partition away; it takes no more records.
    pub fn sealed(&self, partition: PartitionId) -> Option<LogIndex> {
        self.sealed.get(&partition).copied()
    }

    /// All that are sealed, ascending.
    pub fn sealed_partitions(&self) -> impl Iterator<Item = (PartitionId, LogIndex)> + '_ {
        self.sealed.iter().map(|(partition, id)| (*partition, *id))
    }

    /// How the partition came here; `None` if it was made here or is not here.
    pub fn arrival(&self, partition: PartitionId) -> Option<Arrival> {
        self.arrivals.get(&partition).copied()
    }

    /// Partitions that came here from other groups, ascending.
    pub fn arrivals(&self) -> impl Iterator<Item = (PartitionId, Arrival)> + '_ {
        self.arrivals.iter().map(|(partition, arrival)| (*partition, *arrival))
    }

    /// Partitions that left, as long as they may need objects that are listed here, ascending.
    pub fn lent(&self) -> impl Iterator<Item = (PartitionId, &Lent)> {
        self.lent.iter().map(|(partition, lent)| (*partition, lent))
    }

    /// Whether the partition left and may need objects that are listed here.
    pub fn is_lent(&self, partition: PartitionId) -> bool {
        self.lent.contains_key(&partition)
    }

    /// Whether the object is live here and another group's to delete.
    pub fn is_foreign(&self, object: &ObjectName) -> bool {
        self.live.get(object).is_some_and(|live| live.is_foreign)
    }

    /// The objects that the partition's extents refer to with their sizes, ascending: what whoever
    /// takes it over has to know of.
    pub fn objects_of(&self, partition: PartitionId) -> Vec<(ObjectName, u64)> {
        let names: BTreeSet<ObjectName> =
            self.extents(partition).iter().map(|extent| extent.object).collect();
        names.into_iter().map(|name| (name, self.live_size(&name))).collect()
    }

    /// What a group has to know of a partition that is here and comes to it. `state`: the broker's.
    pub fn adoption(
        &self,
        partition: PartitionId,
        group: RaftGroupId,
        arrival: Arrival,
        state: Bytes,
    ) -> Adoption {
        let Arrival { id, epoch_base } = arrival;
        let (log_start, end) = (self.log_start(partition), self.offloaded_end(partition));
        let (objects, extents) = (self.objects_of(partition), self.extents(partition).to_vec());
        Adoption { group, partition, id, epoch_base, log_start, end, objects, extents, state }
    }

    pub(super) fn seal(&mut self, partition: PartitionId, id: LogIndex) {
        let sealed = self.sealed.entry(partition).or_insert(id);
        *sealed = id.max(*sealed);
    }

    pub(super) fn check_adopted(&self, adoption: &Adoption) -> Result<(), EditError> {
        let Adoption { partition, id, .. } = *adoption;
        let arrived = self.arrival(partition).map(|arrival| arrival.id);
        if let Some(arrived) = arrived.filter(|arrived| *arrived >= id) {
            return Err(EditError::AlreadyAdopted { partition, id, arrived });
        }
        adoption.check()?;
        let mut sizes = adoption.extents.iter().map(|extent| extent.size);
        let size = sizes.try_fold(0_u64, u64::checked_add);
        let known = PartitionExtents::adopted(adoption, size.ok_or(EditError::Sizes)?);
        if !known.is_consistent() {
            return Err(EditError::AdoptedExtents { partition });
        }
        let mut listed = self.live_size + self.retired_size;
        for &(object, found) in &adoption.objects {
            if self.retired.contains_key(&object) {
                return Err(EditError::RetiredObject { object });
            }
            match self.live.get(&object) {
                Some(live) if live.size != found => {
                    return Err(EditError::ObjectSize { object, known: live.size, found });
                }
                Some(_) => {}
                None => listed = listed.checked_add(found).ok_or(EditError::Sizes)?,
            }
        }
        Ok(())
    }

    /// The new references first: what was known of the partition may need the same objects, and
    /// none of them is retired in between.
    pub(super) fn adopt(&mut self, adoption: &Adoption, now_ms: i64) {
        let Adoption { group, partition, id, epoch_base, .. } = *adoption;
        for &(name, size) in &adoption.objects {
            if let Entry::Vacant(new) = self.live.entry(name) {
                let is_foreign = name.group() != group;
                new.insert(LiveObject { size, extent_count: 0, lent_count: 0, is_foreign });
                self.live_size += size;
            }
            if size < SMALL_BELOW {
                self.small.insert(name);
            }
        }
        for extent in &adoption.extents {
            let object = self.live.get_mut(&extent.object).expect("it was checked to be listed");
            object.extent_count += 1;
        }
        let before = self.forget(partition);
        let size = adoption.extents.iter().map(|extent| extent.size).sum();
        let known = PartitionExtents::adopted(adoption, size);
        if known.is_known() {
            self.partitions.insert(partition, known);
        }
        self.arrivals.insert(partition, Arrival { id, epoch_base });
        self.release(&before.extents, now_ms);
        if let Some(lent) = self.lent.remove(&partition) {
            lent.objects.iter().for_each(|object| self.take_back(*object, now_ms));
        }
    }

    pub(super) fn lend(
        &mut self,
        partition: PartitionId,
        to: RaftGroupId,
        since: u64,
        now_ms: i64,
    ) {
        let known = self.forget(partition);
        let objects: BTreeSet<ObjectName> =
            known.extents.iter().map(|extent| extent.object).collect();
        for object in &objects {
            let live = self.live.get_mut(object).expect("extents refer to live objects");
            live.lent_count += 1;
        }
        self.release(&known.extents, now_ms);
        if !objects.is_empty() {
            self.lent.insert(partition, Lent { to, since, objects });
        }
    }

    pub(super) fn release_lent(
        &mut self,
        partition: PartitionId,
        objects: &[ObjectName],
        now_ms: i64,
    ) {
        let Some(mut lent) = self.lent.remove(&partition) else { return };
        for object in objects.iter().filter(|object| lent.objects.remove(object)) {
            self.take_back(*object, now_ms);
        }
        if !lent.objects.is_empty() {
            self.lent.insert(partition, lent);
        }
    }

    /// A partition that left does not need the object any more.
    fn take_back(&mut self, object: ObjectName, now_ms: i64) {
        let live = self.live.get_mut(&object).expect("what is lent is live");
        live.lent_count -= 1;
        self.settle(object, now_ms);
    }

    /// All of a partition that is here; its extents still count in their objects.
    pub(super) fn forget(&mut self, partition: PartitionId) -> PartitionExtents {
        self.sealed.remove(&partition);
        self.arrivals.remove(&partition);
        self.partitions.remove(&partition).unwrap_or_default()
    }
}

impl PartitionExtents {
    fn adopted(adoption: &Adoption, size: u64) -> Self {
        let Adoption { log_start, end, .. } = *adoption;
        Self { log_start, end, size, extents: adoption.extents.clone() }
    }
}
