//! Case by case in `cases.rs` and `moves.rs`, random histories against a model in `histories.rs`,
//! random bytes in `damage.rs`.

mod cases;
mod damage;
mod histories;
mod moves;

use bytes::Bytes;
use model::{RaftGroupId, Term};
use proptest::prelude::*;

use super::*;
use crate::adoption::Adoption;
use crate::edit::Edit;

/// What one extent of data in tests takes, with its index.
pub(crate) const INDEX_SIZE: u64 = 28;

pub(crate) fn range_name(first: u64, last: u64) -> ObjectName {
    let (first, last) = (LogIndex::new(first), LogIndex::new(last));
    ObjectName::range(RaftGroupId::new(3), Term::new(12), first, last).expect("a range")
}

pub(crate) fn merged_name(number: u64) -> ObjectName {
    ObjectName::merged(RaftGroupId::new(3), Term::new(12), number)
}

/// A part of an object: partition, base, end and size of the data.
pub(crate) type Piece = (u64, i64, i64, u64);

/// Extents laid out in an object as the builder does, and the object's size.
pub(crate) fn laid_out(object: ObjectName, pieces: &[Piece]) -> (Vec<(PartitionId, Extent)>, u64) {
    let mut index_position = pieces.iter().map(|piece| piece.3).sum();
    let mut position = 0;
    let mut extents = Vec::new();
    for &(partition, base, end, size) in pieces {
        let extent = Extent {
            object,
            base: Offset::new(base),
            end: Offset::new(end),
            position,
            size,
            index_position,
            index_count: 1,
            max_timestamp: base,
        };
        extents.push((PartitionId::new(partition), extent));
        position += size;
        index_position += INDEX_SIZE;
    }
    (extents, index_position + 100)
}

/// An offload of the entries from `first` to `last`.
pub(crate) fn offloaded(first: u64, last: u64, pieces: &[Piece]) -> Edit {
    let object = range_name(first, last);
    let (extents, object_size) = laid_out(object, pieces);
    Edit::Offloaded { upto: LogIndex::new(last), object, object_size, extents }
}

/// The merge of that number.
pub(crate) fn merged(number: u64, pieces: &[Piece]) -> Edit {
    let object = merged_name(number);
    let (extents, object_size) = laid_out(object, pieces);
    Edit::Merged { object, object_size, extents }
}

/// The extents of a partition, for tests of what no edit can do.
pub(crate) fn extents_mut(manifest: &mut Manifest, partition: PartitionId) -> &mut Vec<Extent> {
    &mut manifest.partitions.get_mut(&partition).expect("it is known").extents
}

/// Lists an object as retired as well.
pub(crate) fn retire_too(manifest: &mut Manifest, object: ObjectName) {
    let size = manifest.live[&object].size;
    manifest.retired.insert(object, RetiredObject { size, retired_ms: 0 });
}

/// Forgets that an object is live, but not the extents in it.
pub(crate) fn forget(manifest: &mut Manifest, object: ObjectName) {
    manifest.live.remove(&object).expect("it is live");
}

fn log_start(partition: u64, offset: i64) -> Edit {
    Edit::LogStart { partition: PartitionId::new(partition), offset: Offset::new(offset) }
}

fn dropped(partitions: &[u64]) -> Edit {
    Edit::Dropped { partitions: partitions.iter().copied().map(PartitionId::new).collect() }
}

fn any_name() -> impl Strategy<Value = ObjectName> {
    let range = (any::<[u64; 3]>(), any::<u64>()).prop_map(|([group, term, a], b)| {
        let (first, last) = (LogIndex::new(a.min(b)), LogIndex::new(a.max(b)));
        ObjectName::range(RaftGroupId::new(group), Term::new(term), first, last).expect("a range")
    });
    let merged = any::<[u64; 3]>().prop_map(|[group, term, number]| {
        ObjectName::merged(RaftGroupId::new(group), Term::new(term), number)
    });
    prop_oneof![range, merged]
}

fn any_extent(object: ObjectName) -> impl Strategy<Value = Extent> {
    let fields = (any::<(i64, i64)>(), any::<[u64; 3]>(), any::<u32>(), any::<i64>());
    fields.prop_map(move |((base, end), [position, size, index_position], count, timestamp)| {
        Extent {
            object,
            base: Offset::new(base),
            end: Offset::new(end),
            position,
            size,
            index_position,
            index_count: count,
            max_timestamp: timestamp,
        }
    })
}

/// Any adoption that can be written, whether it makes sense or not.
pub(crate) fn any_adoption() -> impl Strategy<Value = Adoption> {
    let objects = prop::collection::btree_map(any_name(), any::<u64>(), 0..4);
    let objects = objects.prop_map(|objects| objects.into_iter().collect::<Vec<_>>());
    let with_extents = objects.prop_flat_map(|objects| {
        let places = prop::collection::vec(
            (any::<prop::sample::Index>(), any_extent(merged_name(0))),
            if objects.is_empty() { 0..1 } else { 0..5 },
        );
        places.prop_map(move |places| {
            let within = |(at, extent): (prop::sample::Index, Extent)| {
                let (object, _) = *at.get(&objects);
                Extent { object, ..extent }
            };
            (objects.clone(), places.into_iter().map(within).collect::<Vec<_>>())
        })
    });
    let end = prop::option::of(any::<i64>().prop_filter("none", |end| *end != -1));
    let state = prop::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from);
    let fields = (any::<[u64; 3]>(), any::<u32>(), any::<i64>(), end, state);
    (fields, with_extents).prop_map(
        |(([group, partition, id], epoch_base, log_start, end, state), (objects, extents))| {
            Adoption {
                group: RaftGroupId::new(group),
                partition: PartitionId::new(partition),
                id: LogIndex::new(id),
                epoch_base,
                log_start: Offset::new(log_start),
                end: end.map(Offset::new),
                objects,
                extents,
                state,
            }
        },
    )
}

/// Any edit that can be written, whether it makes sense or not.
pub(crate) fn any_edit() -> impl Strategy<Value = Edit> {
    let id = || any::<u64>().prop_map(PartitionId::new);
    let object = || {
        (any_name(), any::<u64>()).prop_flat_map(move |(object, object_size)| {
            let extents = prop::collection::vec((id(), any_extent(object)), 0..4);
            extents.prop_map(move |extents| (object, object_size, extents))
        })
    };
    let offloaded = (object(), any::<u64>()).prop_map(|((object, object_size, extents), upto)| {
        Edit::Offloaded { upto: LogIndex::new(upto), object, object_size, extents }
    });
    let merged = object().prop_map(|(object, object_size, extents)| Edit::Merged {
        object,
        object_size,
        extents,
    });
    prop_oneof![
        offloaded,
        merged,
        (id(), any::<i64>()).prop_map(|(partition, offset)| {
            Edit::LogStart { partition, offset: Offset::new(offset) }
        }),
        prop::collection::vec(id(), 0..5).prop_map(|partitions| Edit::Dropped { partitions }),
        prop::collection::vec(any_name(), 0..5).prop_map(|objects| Edit::Removed { objects }),
        (id(), any::<u64>())
            .prop_map(|(partition, id)| { Edit::Sealed { partition, id: LogIndex::new(id) } }),
        id().prop_map(|partition| Edit::Unsealed { partition }),
        any_adoption().prop_map(|adoption| Edit::Adopted(Box::new(adoption))),
        (id(), any::<[u64; 2]>()).prop_map(|(partition, [to, since])| {
            Edit::Lent { partition, to: RaftGroupId::new(to), since }
        }),
        (id(), prop::collection::vec(any_name(), 0..5))
            .prop_map(|(partition, objects)| Edit::Released { partition, objects }),
    ]
}
