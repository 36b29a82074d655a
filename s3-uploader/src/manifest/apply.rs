//! What each edit does to a manifest. Every edit is checked as a whole before the first change, so
//! that one that is refused leaves nothing behind.

use std::ops::Range;

use model::{LogIndex, Offset, PartitionId};

use super::{LiveObject, Manifest, PartitionExtents, RetiredObject};
use crate::edit::{Edit, EditError};
use crate::object::Extent;
use crate::object_name::ObjectName;

impl Manifest {
    /// Makes one change. `now_ms` is the time in the edit's log entry.
    ///
    /// - `Offloaded`: `upto` must be beyond what is offloaded. A partition's first extent may begin
    ///   anywhere; each further one begins where the one before it ends. It may leave a gap only if
    ///   the partition's log start is at or beyond the gap's end, that is if everything missing was
    ///   deleted. Extents wholly below the log start are not kept: it moved while the object was
    ///   under way.
    /// - `Merged`: the extents follow each other without a gap, and the first begins and the last
    ///   ends where a present extent does. All in between are replaced.
    /// - `LogStart`: extents wholly below it are removed. It never goes back: a lower offset than
    ///   the present one changes nothing, since two may cross on their way into the log.
    /// - `Dropped`: the partitions are forgotten. Unknown ones are passed over.
    /// - `Removed`: the objects are forgotten. Unknown ones are passed over, live ones refused.
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
            Edit::Merged { partition, object, object_size, extents } => {
                self.check_merged(*partition, object, *object_size, extents)?;
                self.replace_run(*partition, *object, *object_size, extents, now_ms);
            }
            Edit::LogStart { partition, offset } => {
                self.raise_log_start(*partition, *offset, now_ms);
            }
            Edit::Dropped { partitions } => {
                for partition in partitions {
                    let known = self.partitions.remove(partition).unwrap_or_default();
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
        partition: PartitionId,
        object: &ObjectName,
        object_size: u64,
        extents: &[Extent],
    ) -> Result<(), EditError> {
        let ObjectName::Merged(name) = object else {
            return Err(EditError::ObjectForm { object: *object });
        };
        if name.partition() != partition {
            return Err(EditError::ObjectForm { object: *object });
        }
        self.check_object(object, object_size)?;
        let (base, mut end) = (name.base(), name.base());
        for extent in extents {
            check_extent(partition, extent, object, object_size)?;
            if extent.base != end {
                return Err(EditError::NotARun { partition, base: extent.base, end: extent.end });
            }
            end = extent.end;
        }
        let replaced = if end == name.end() { self.run(partition, base, end) } else { None };
        let not_a_run = EditError::NotARun { partition, base, end: name.end() };
        let replaced = replaced.ok_or(not_a_run)?;
        let replaced_size: u64 =
            self.extents(partition)[replaced].iter().map(|extent| extent.size).sum();
        let kept = self.partition_size(partition) - replaced_size;
        let total = extents.iter().try_fold(kept, |sum, extent| sum.checked_add(extent.size));
        total.map(|_| ()).ok_or(EditError::Sizes)
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

    /// Indexes of the extents that cover exactly `base` to `end`.
    fn run(&self, partition: PartitionId, base: Offset, end: Offset) -> Option<Range<usize>> {
        let extents = self.extents(partition);
        let first = extents.binary_search_by_key(&base, |extent| extent.base).ok()?;
        let last = extents.binary_search_by_key(&end, |extent| extent.end).ok()?;
        (first <= last).then_some(first..last + 1)
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
            let known = self.partitions.entry(*partition).or_default();
            known.end = Some(extent.end);
            if extent.end > known.log_start {
                known.push(extent);
                extent_count += 1;
            }
        }
        self.add_object(object, object_size, extent_count, now_ms);
    }

    fn replace_run(
        &mut self,
        partition: PartitionId,
        object: ObjectName,
        object_size: u64,
        extents: &[Extent],
        now_ms: i64,
    ) {
        let (base, end) = match (extents.first(), extents.last()) {
            (Some(first), Some(last)) => (first.base, last.end),
            _ => unreachable!("an object's name has a range, and the extents cover it"),
        };
        let run = self.run(partition, base, end).expect("checked");
        let known = self.partitions.get_mut(&partition).expect("checked: it has extents");
        let mut extent_count = 0;
        // The run ends above the log start, but the merged extents may be cut elsewhere.
        let kept = extents.iter().filter(|extent| extent.end > known.log_start);
        let kept = kept.cloned().inspect(|extent| {
            known.size += extent.size;
            extent_count += 1;
        });
        let replaced: Vec<Extent> = known.extents.splice(run, kept).collect();
        known.size -= replaced.iter().map(|extent| extent.size).sum::<u64>();
        self.add_object(object, object_size, extent_count, now_ms);
        self.release(&replaced, now_ms);
    }

    fn raise_log_start(&mut self, partition: PartitionId, offset: Offset, now_ms: i64) {
        if offset <= self.log_start(partition) {
            return;
        }
        let known = self.partitions.entry(partition).or_default();
        known.log_start = offset;
        let count = known.extents.partition_point(|extent| extent.end <= offset);
        let removed: Vec<Extent> = known.extents.drain(..count).collect();
        known.size -= removed.iter().map(|extent| extent.size).sum::<u64>();
        self.release(&removed, now_ms);
    }

    /// Lists an object that exists in the store: one of size 0 does not.
    fn add_object(&mut self, name: ObjectName, size: u64, extent_count: u32, now_ms: i64) {
        if extent_count > 0 {
            self.live.insert(name, LiveObject { size, extent_count });
            self.live_size += size;
        } else if size > 0 {
            self.retired.insert(name, RetiredObject { size, retired_ms: now_ms });
            self.retired_size += size;
        }
    }

    /// Takes away the references of extents that are gone; an object's last one retires it.
    fn release(&mut self, extents: &[Extent], now_ms: i64) {
        for extent in extents {
            let object = self.live.get_mut(&extent.object).expect("extents refer to live objects");
            object.extent_count -= 1;
            if object.extent_count == 0 {
                let size = object.size;
                self.live.remove(&extent.object);
                self.live_size -= size;
                let retired = RetiredObject { size, retired_ms: now_ms };
                self.retired.insert(extent.object, retired);
                self.retired_size += size;
            }
        }
    }
}

impl PartitionExtents {
    fn push(&mut self, extent: &Extent) {
        self.size += extent.size;
        self.extents.push(extent.clone());
    }
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
