//! What each edit does to a manifest. Every edit is checked as a whole before the first change, so
//! that one that is refused leaves nothing behind.

use std::ops::Range;

use model::{LogIndex, Offset, PartitionId};

use super::{LiveObject, Manifest, PartitionExtents, RetiredObject};
use crate::edit::{Edit, EditError};
use crate::object::Extent;
use crate::object_name::ObjectName;
use crate::plan::SMALL_BELOW;

impl Manifest {
    /// Makes one change. `now_ms` is the time in the edit's log entry.
    ///
    /// - `Offloaded`: `upto` must be beyond what is offloaded. A partition's first extent may begin
    ///   anywhere; each further one begins where the one before it ends. It may leave a gap only if
    ///   the partition's log start is at or beyond the gap's end, that is if everything missing was
    ///   deleted. Extents wholly below the log start are not kept: it moved while the object was
    ///   under way.
    /// - `Merged`: each extent replaces the present ones that it covers. It has to end where one of
    ///   them ends, and to begin where one begins or where those before were deleted since. An
    ///   extent whose partition was dropped or is sealed, or whose records were deleted, is passed
    ///   over.
    /// - `LogStart`: extents wholly below it are removed. It never goes back: a lower offset than
    ///   the present one changes nothing, since two may cross on their way into the log.
    /// - `Dropped`: the partitions are forgotten, but not what is lent of them: another group may
    ///   need it still. Unknown ones are passed over.
    /// - `Removed`: the objects are forgotten. Unknown ones are passed over, live ones refused.
    /// - `Sealed`: the partition is sealed for that move, unless for a later one already.
    /// - `Unsealed`: it is sealed for none.
    /// - `Adopted`: the partition's state replaces all that was known of it; it is sealed no more.
    ///   Void if it came by this move or a later one.
    /// - `Lent`: all that its extents refer to is lent, and the rest of it forgotten. An unknown
    ///   partition has nothing to lend.
    /// - `Released`: the objects are lent no more. Those that are not are passed over.
    ///
    /// Of a partition with lent objects `Offloaded` and `LogStart` change nothing: it is another
    /// group's, and what was under way when it left comes too late.
    ///
    /// # Errors
    ///
    /// The edit does not fit; nothing has changed. The object of a refused edit is an orphan only
    /// if `contains` does not know it: a repeat of an edit is refused too.
    pub fn apply(&mut self, edit: &Edit, now_ms: i64) -> Result<(), EditError> {
        match edit {
            Edit::Offloaded { upto, object, object_size, extents } => {
                self.check_offloaded(*upto, object, *object_size, extents)?;
                self.add_offloaded(*upto, *object, *object_size, extents, now_ms);
            }
            Edit::Merged { object, object_size, extents } => {
                self.check_merged(object, *object_size, extents)?;
                self.replace_merged(*object, *object_size, extents, now_ms);
            }
            Edit::LogStart { partition, offset } => {
                self.raise_log_start(*partition, *offset, now_ms);
            }
            Edit::Dropped { partitions } => {
                for partition in partitions {
                    let known = self.forget(*partition);
                    self.release(&known.extents, now_ms);
                }
            }
            Edit::Removed { objects } => {
                if let Some(object) = objects.iter().find(|object| self.live.contains_key(object)) {
                    return Err(EditError::StillReferred { object: *object });
                }
                for retired in objects.iter().filter_map(|object| self.retired.remove(object)) {
                    self.retired_size -= retired.size;
                }
            }
            Edit::Sealed { partition, id } => self.seal(*partition, *id),
            Edit::Unsealed { partition } => {
                self.sealed.remove(partition);
            }
            Edit::Adopted(adoption) => {
                self.check_adopted(adoption)?;
                self.adopt(adoption, now_ms);
            }
            Edit::Lent { partition, to, since } => self.lend(*partition, *to, *since, now_ms),
            Edit::Released { partition, objects } => {
                self.release_lent(*partition, objects, now_ms);
            }
        }
        Ok(())
    }

    fn check_offloaded(
        &self,
        upto: LogIndex,
        object: &ObjectName,
        object_size: u64,
        extents: &[(PartitionId, Extent)],
    ) -> Result<(), EditError> {
        let offloaded_upto = self.offloaded_upto;
        if upto <= offloaded_upto {
            return Err(EditError::AlreadyOffloaded { upto, offloaded_upto });
        }
        if !matches!(object, ObjectName::Range(_)) {
            return Err(EditError::ObjectForm { object: *object });
        }
        self.check_object(object, object_size)?;
        // The partition of the extent before, where its records end and how large they are.
        let mut before: Option<(PartitionId, Option<Offset>, u64)> = None;
        for (partition, extent) in extents {
            let partition = *partition;
            let (end, size) = match before {
                Some((same, end, size)) if same == partition => (end, size),
                Some((higher, ..)) if higher > partition => {
                    return Err(EditError::Order { partition });
                }
                _ => (self.offloaded_end(partition), self.partition_size(partition)),
            };
            check_extent(partition, extent, object, object_size)?;
            check_follows(partition, extent, end, self.log_start(partition))?;
            let size = size.checked_add(extent.size).ok_or(EditError::Sizes)?;
            before = Some((partition, Some(extent.end), size));
        }
        Ok(())
    }

    fn check_merged(
        &self,
        object: &ObjectName,
        object_size: u64,
        extents: &[(PartitionId, Extent)],
    ) -> Result<(), EditError> {
        if !matches!(object, ObjectName::Merged(_)) {
            return Err(EditError::ObjectForm { object: *object });
        }
        self.check_object(object, object_size)?;
        let mut before = None;
        for (partition, extent) in extents {
            let partition = *partition;
            if before.replace(partition).is_some_and(|before| before >= partition) {
                return Err(EditError::Order { partition });
            }
            check_extent(partition, extent, object, object_size)?;
            let covered = self.covered(partition, extent).unwrap_or_default();
            let replaced = &self.extents(partition)[covered];
            let kept = self.partition_size(partition) - size_of(replaced);
            kept.checked_add(extent.size).ok_or(EditError::Sizes)?;
        }
        Ok(())
    }

    /// A name that is listed already would give one object two lives: what the first life's end
    /// retires, the second one would still need.
    fn check_object(&self, object: &ObjectName, object_size: u64) -> Result<(), EditError> {
        if self.contains(object) {
            return Err(EditError::KnownObject { object: *object });
        }
        // Live and retired objects together, so that moving one over never overflows.
        let listed = self.live_size + self.retired_size;
        listed.checked_add(object_size).map(|_| ()).ok_or(EditError::Sizes)
    }

    /// Indexes of the present extents that a merged one stands for.
    fn covered(&self, partition: PartitionId, merged: &Extent) -> Option<Range<usize>> {
        if self.sealed.contains_key(&partition) {
            return None; // Another group may have been told of the present ones.
        }
        let extents = self.extents(partition);
        let first = extents.partition_point(|extent| extent.end <= merged.base);
        let last = extents.binary_search_by_key(&merged.end, |extent| extent.end).ok()?;
        let base = extents.get(first)?.base;
        // Those at its beginning may have been deleted while it was made.
        let begins = base == merged.base
            || first == 0 && merged.base < base && base <= self.log_start(partition);
        (begins && first <= last).then_some(first..last + 1)
    }

    fn add_offloaded(
        &mut self,
        upto: LogIndex,
        object: ObjectName,
        object_size: u64,
        extents: &[(PartitionId, Extent)],
        now_ms: i64,
    ) {
        self.offloaded_upto = upto;
        let mut extent_count = 0;
        for (partition, extent) in extents {
            if self.is_lent(*partition) {
                continue;
            }
            let known = self.partitions.entry(*partition).or_default();
            known.end = Some(extent.end);
            if extent.end > known.log_start {
                known.push(extent);
                extent_count += 1;
            }
        }
        self.add_object(object, object_size, extent_count, now_ms);
    }

    fn replace_merged(
        &mut self,
        object: ObjectName,
        object_size: u64,
        extents: &[(PartitionId, Extent)],
        now_ms: i64,
    ) {
        let mut replaced = Vec::new();
        let mut extent_count = 0;
        for (partition, extent) in extents {
            let Some(covered) = self.covered(*partition, extent) else { continue };
            let known = self.partitions.get_mut(partition).expect("it has extents");
            let before = replaced.len();
            replaced.extend(known.extents.splice(covered, [extent.clone()]));
            known.size = known.size - size_of(&replaced[before..]) + extent.size;
            extent_count += 1;
        }
        self.add_object(object, object_size, extent_count, now_ms);
        self.release(&replaced, now_ms);
    }

    fn raise_log_start(&mut self, partition: PartitionId, offset: Offset, now_ms: i64) {
        if offset <= self.log_start(partition) || self.is_lent(partition) {
            return;
        }
        let known = self.partitions.entry(partition).or_default();
        known.log_start = offset;
        let count = known.extents.partition_point(|extent| extent.end <= offset);
        let removed: Vec<Extent> = known.extents.drain(..count).collect();
        known.size -= size_of(&removed);
        self.release(&removed, now_ms);
    }

    /// Lists an object that exists in the store: one of size 0 does not.
    fn add_object(&mut self, name: ObjectName, size: u64, extent_count: u32, now_ms: i64) {
        if extent_count > 0 {
            let object = LiveObject { size, extent_count, lent_count: 0, is_foreign: false };
            self.live.insert(name, object);
            self.live_size += size;
            if size < SMALL_BELOW {
                self.small.insert(name);
            }
        } else if size > 0 {
            self.retired.insert(name, RetiredObject { size, retired_ms: now_ms });
            self.retired_size += size;
        }
    }

    /// Takes away the references of extents that are gone; an object's last one retires it.
    pub(super) fn release(&mut self, extents: &[Extent], now_ms: i64) {
        for extent in extents {
            let object = self.live.get_mut(&extent.object).expect("extents refer to live objects");
            object.extent_count -= 1;
            self.settle(extent.object, now_ms);
        }
    }

    /// A live object has lost a reference. With the last one an own object is retired; a foreign
    /// one is forgotten, since whether it is deleted is its own group's to say.
    pub(super) fn settle(&mut self, name: ObjectName, now_ms: i64) {
        let LiveObject { size, extent_count, lent_count, is_foreign } = self.live[&name];
        if extent_count > 0 {
            return;
        }
        self.small.remove(&name);
        if lent_count > 0 {
            return;
        }
        self.live.remove(&name);
        self.live_size -= size;
        if !is_foreign {
            self.retired.insert(name, RetiredObject { size, retired_ms: now_ms });
            self.retired_size += size;
        }
    }
}

impl PartitionExtents {
    fn push(&mut self, extent: &Extent) {
        self.size += extent.size;
        self.extents.push(extent.clone());
    }
}

/// Bytes of data. Extents of one partition add up to 64 bits: `apply` and `decode` see to it.
fn size_of(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.size).sum()
}

fn check_extent(
    partition: PartitionId,
    extent: &Extent,
    object: &ObjectName,
    object_size: u64,
) -> Result<(), EditError> {
    if extent.object != *object {
        return Err(EditError::OtherObject { object: *object, found: extent.object });
    }
    if !extent.is_sound(object_size) {
        let (base, end) = (extent.base, extent.end);
        return Err(EditError::Unsound { partition, base, end });
    }
    Ok(())
}

/// `end` is where the partition's records end before this extent.
fn check_follows(
    partition: PartitionId,
    extent: &Extent,
    end: Option<Offset>,
    log_start: Offset,
) -> Result<(), EditError> {
    let base = extent.base;
    match end {
        Some(end) if base < end => Err(EditError::Overlap { partition, base, end }),
        Some(end) if base > end && base > log_start => Err(EditError::Gap { partition, base, end }),
        _ => Ok(()),
    }
}
