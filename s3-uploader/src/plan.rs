//! Which extents to merge next.
//!
//! An object of an offload holds a few seconds of all partitions of its group. Two kinds of merge
//! make fewer and larger ones of them:
//!
//! - *Gathering*: many small objects become one, with one section for each partition. It costs as
//!   few requests as there are objects, however many partitions they hold.
//! - *Separating*: many small extents of one partition become an object of that partition alone.
//!
//! Extents of a partition that is sealed stay as they are: they are on their way to another group.
//!
//! Each gathering leaves fewer objects with extents and each separation fewer extents than there
//! were, so merging comes to an end. What was merged is larger than what that kind of merge takes,
//! so a byte is written anew three times at most, except where all is tiny.
//!
//! Objects of other groups, which came with a partition, are merged like own ones: the merged one
//! is this group's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use model::PartitionId;

use crate::manifest::Manifest;
use crate::object::Extent;
use crate::object_name::ObjectName;

/// Objects, and extents, of this size or more are left alone.
pub(crate) const SMALL_BELOW: u64 = 8 << 20;
/// The data of a merged object has at most this size.
const TARGET_SIZE: u64 = 64 << 20;
/// When small objects are gathered: the first of these that is due.
const GATHERINGS: [Gathering; 2] = [
    Gathering { below: 1 << 20, size_min: 8 << 20, count_min: 32 },
    Gathering { below: SMALL_BELOW, size_min: 32 << 20, count_min: usize::MAX },
];
/// When small extents of one partition are separated.
const SEPARATED_MIN: u64 = 32 << 20;
/// Retention by age goes by whole extents, by their youngest record: those further apart than this,
/// in milliseconds, stay apart.
const AGE_SPAN_MAX: i64 = 24 * 3600 * 1000;
/// Extents that one look at the partitions passes, or a few more.
const EXTENTS_PER_LOOK: usize = 4096;

/// Objects below a size, when there are so many, or so many bytes, of them.
struct Gathering {
    below: u64,
    size_min: u64,
    count_min: usize,
}

impl Gathering {
    /// Of so many objects with so many bytes; one alone would not be fewer afterwards.
    fn is_due(&self, count: usize, size: u64) -> bool {
        count >= self.count_min || count > 1 && size >= self.size_min
    }
}

/// Extents that one merged object is to replace.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MergePlan {
    /// Ascending; of each partition a run of extents without a gap.
    pub sections: Vec<(PartitionId, Vec<Extent>)>,
    /// Sizes of the objects that they are in.
    pub objects: BTreeMap<ObjectName, u64>,
}

/// What a look at some of the partitions found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Separable {
    /// The first merge that is due among them.
    pub plan: Option<MergePlan>,
    /// Bytes of all extents that are due for one.
    pub due: u64,
    /// Where the next look begins; nothing if this one came to the last partition.
    pub next: Option<PartitionId>,
}

impl MergePlan {
    /// Bytes of data.
    pub fn size(&self) -> u64 {
        self.extents().map(|extent| extent.size).sum()
    }

    pub fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.sections.iter().flat_map(|(_, extents)| extents)
    }

    fn add(&mut self, manifest: &Manifest, partition: PartitionId, extents: &[Extent]) {
        for extent in extents {
            self.objects.insert(extent.object, manifest.live_size(&extent.object));
        }
        self.sections.push((partition, extents.to_vec()));
    }

    /// Objects without extents once this is done. One that is also lent stays a while, but is not
    /// merged again.
    fn freed(&self, manifest: &Manifest) -> usize {
        let mut counts = BTreeMap::<ObjectName, usize>::new();
        self.extents().for_each(|extent| *counts.entry(extent.object).or_default() += 1);
        counts.iter().filter(|(name, count)| manifest.references(name) == **count).count()
    }
}

impl Manifest {
    /// The gathering that is due, if any, of objects that are not set aside. Walks all extents if
    /// there are small objects enough: ask again only after an edit.
    pub fn gather(&self, aside: &BTreeSet<ObjectName>) -> Option<MergePlan> {
        GATHERINGS.iter().find_map(|kind| self.gather_kind(kind, aside))
    }

    fn gather_kind(&self, kind: &Gathering, aside: &BTreeSet<ObjectName>) -> Option<MergePlan> {
        let small = self.small().filter(|(name, size)| *size < kind.below && !aside.contains(name));
        let small: Vec<(ObjectName, u64)> = small.collect();
        let mut rest = &small[..];
        while !rest.is_empty() {
            // As many as fit one object.
            let mut size = 0;
            let fits = |(_, more): &&(ObjectName, u64)| {
                size += more;
                size <= TARGET_SIZE
            };
            let (some, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = others;
            let due = kind.is_due(some.len(), some.iter().map(|(_, size)| size).sum());
            let plan = due.then(|| self.gather_all(some));
            let plan = plan.filter(|plan| kind.is_due(plan.freed(self), plan.size()));
            if plan.is_some() {
                return plan;
            }
        }
        None
    }

    /// All extents in these objects, of each partition as many as follow each other.
    fn gather_all(&self, objects: &[(ObjectName, u64)]) -> MergePlan {
        let wanted: BTreeSet<ObjectName> = objects.iter().map(|(name, _)| *name).collect();
        let mut plan = MergePlan::default();
        for partition in self.partitions().filter(|id| self.sealed(*id).is_none()) {
            let extents = self.extents(partition);
            let is_wanted = |extent: &Extent| wanted.contains(&extent.object);
            let run = best_run(extents, TARGET_SIZE, is_wanted, |count, _| count as u64);
            if !run.is_empty() {
                plan.add(self, partition, &extents[run]);
            }
        }
        plan
    }

    /// The separation that is due among some of the partitions, beginning with `from`.
    pub fn separate(&self, from: PartitionId, aside: &BTreeSet<ObjectName>) -> Separable {
        let mut found = Separable::default();
        let mut passed = 0;
        for partition in self.partitions_from(from).filter(|id| self.sealed(*id).is_none()) {
            if passed >= EXTENTS_PER_LOOK {
                found.next = Some(partition);
                break;
            }
            let extents = self.extents(partition);
            passed += extents.len().max(1);
            let is_small =
                |extent: &Extent| extent.size < SMALL_BELOW && !aside.contains(&extent.object);
            let run = best_run(extents, TARGET_SIZE, is_small, |_, size| size);
            let run = &extents[run];
            let size: u64 = run.iter().map(|extent| extent.size).sum();
            if size < SEPARATED_MIN {
                continue;
            }
            found.due += size;
            if found.plan.is_none() {
                found.plan.insert(MergePlan::default()).add(self, partition, run);
            }
        }
        found
    }
}

/// The first of the best runs of extents that are all wanted, together at most `size_max` and not
/// too far apart in time; the rank is by number of extents and size.
fn best_run(
    extents: &[Extent],
    size_max: u64,
    is_wanted: impl Fn(&Extent) -> bool,
    rank: impl Fn(usize, u64) -> u64,
) -> Range<usize> {
    let (mut best, mut best_rank) = (0..0, 0);
    let (mut start, mut size) = (0, 0_u64);
    for (at, extent) in extents.iter().enumerate() {
        if !is_wanted(extent) {
            (start, size) = (at + 1, 0);
            continue;
        }
        // A partition's sizes add up to 64 bits: `apply` and `decode` see to it.
        size += extent.size;
        let is_too_old = |first: &Extent| {
            extent.max_timestamp.saturating_sub(first.max_timestamp) > AGE_SPAN_MAX
        };
        while start <= at && (size > size_max || is_too_old(&extents[start])) {
            size -= extents[start].size;
            start += 1;
        }
        let rank = rank(at + 1 - start, size);
        if rank > best_rank {
            (best, best_rank) = (start..at + 1, rank);
        }
    }
    best
}

#[cfg(test)]
mod tests;
