//! One object put together from sections of others.
//!
//! What is written replaces what it was made from, so every section is checked against the checksum
//! in its object's directory before it is copied. The copy is by intervals of the section's index:
//! this crate does not know what a batch looks like.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use model::PartitionId;
use tokio::sync::Semaphore;

use crate::fetcher::FetchError;
use crate::object::{
    BatchMeta, BuiltObject, Directory, Extent, IndexPoint, ObjectBuilder, ObjectError, decode_index,
};
use crate::object_name::ObjectName;
use crate::plan::MergePlan;
use crate::store::{Store, StoreError};

/// Objects that are read at a time: merging is in no hurry, readers are.
const READS_MAX: usize = 4;
/// An object of which more than this share is wanted, one in so many bytes, is read with one
/// request.
const WHOLE_ABOVE: u64 = 2;

/// A section that was read and is as it was written.
struct Source {
    data: Bytes,
    points: Vec<IndexPoint>,
}

/// By object and position in it: where an extent's data is.
type Sources = BTreeMap<(ObjectName, u64), Source>;

/// Reads what the plan names and builds the object; nothing is written.
pub(super) async fn build(
    store: &Rc<Store>,
    object: ObjectName,
    plan: &MergePlan,
) -> Result<BuiltObject, FetchError> {
    let mut wanted = BTreeMap::<ObjectName, Vec<(PartitionId, &Extent)>>::new();
    for (partition, extents) in &plan.sections {
        for extent in extents {
            wanted.entry(extent.object).or_default().push((*partition, extent));
        }
    }
    let reads = Semaphore::new(READS_MAX);
    let read = wanted.into_iter().map(|(name, extents)| {
        let (reads, size) = (&reads, plan.objects.get(&name).copied().unwrap_or_default());
        async move {
            let _permit = reads.acquire().await.expect("it is never closed");
            read_object(store, name, size, &extents).await
        }
    });
    let sources: Sources = try_join_all(read).await?.into_iter().flatten().collect();
    let mut merged = ObjectBuilder::new(object);
    for (partition, extents) in &plan.sections {
        merged.section(*partition);
        for extent in extents {
            push(&mut merged, extent, &sources[&(extent.object, extent.position)]);
        }
    }
    Ok(merged.finish())
}

/// The extents' data and indexes, all of one object.
async fn read_object(
    store: &Store,
    name: ObjectName,
    size: u64,
    extents: &[(PartitionId, &Extent)],
) -> Result<Sources, FetchError> {
    let key = name.to_string();
    let wanted: u64 = extents.iter().map(|(_, extent)| extent.size).sum();
    // Behind the data are all indexes and the directory.
    let indexes = extents.iter().map(|(_, extent)| extent.index_position).min().unwrap_or(size);
    let start = if wanted > size / WHOLE_ABOVE { 0 } else { indexes };
    let tail = store.get_range(&key, start..size).await?;
    let damaged = |error| FetchError::Object { object: name, error };
    let directory = Directory::decode(&tail).map_err(damaged)?;
    let mut sources = Sources::new();
    for (partition, extent) in extents {
        let sections = &directory.sections;
        let section = sections
            .iter()
            .find(|section| section.partition == *partition && section.extent == **extent);
        let section = section.filter(|_| directory.size == size && directory.name == name);
        let section = section.ok_or_else(|| damaged(ObjectError::OtherSections))?;
        let points = decode_index(&part(&tail, start, extent.index_range()), extent);
        let data = if start == 0 {
            part(&tail, start, extent.data_range())
        } else {
            store.get_range(&key, extent.data_range()).await?
        };
        section.check_data(&data).map_err(damaged)?;
        let source = Source { data, points: points.map_err(damaged)? };
        sources.insert((name, extent.position), source);
    }
    Ok(sources)
}

/// A range of the object, of which `bytes` are those from `start` on; less if they end before.
fn part(bytes: &Bytes, start: u64, range: Range<u64>) -> Bytes {
    let place = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
    let (from, to) = (place(range.start), place(range.end).min(bytes.len()));
    bytes.slice(from.min(to)..to)
}

fn push(merged: &mut ObjectBuilder, extent: &Extent, source: &Source) {
    let ends = source.points.iter().skip(1).map(|next| (next.base_offset, next.position));
    let ends = ends.chain([(extent.end, extent.data_range().end)]);
    for (point, (end_offset, end)) in source.points.iter().zip(ends) {
        let batch = BatchMeta {
            base_offset: point.base_offset,
            end_offset,
            max_timestamp: point.max_timestamp,
        };
        merged.push(batch, part(&source.data, extent.position, point.position..end));
    }
}

impl From<FetchError> for StoreError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Store(error) => error,
            FetchError::Object { object, error } => {
                Self::Checksum { key: object.to_string(), reason: error.to_string() }
            }
            outside @ FetchError::Outside { .. } => Self::Config { advice: outside.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Offset, RaftGroupId, Term};

    use super::*;
    use crate::sample::{Folder, object};
    use crate::store::{Fault, Faults, Verb};

    /// Objects of two partitions that follow each other, stored; their sections in log order.
    struct Bed {
        _folder: Folder,
        faults: Faults,
        store: Rc<Store>,
        objects: Vec<BuiltObject>,
    }

    impl Bed {
        async fn new(test: &str) -> Self {
            let (folder, faults) = (Folder::new(test), Faults::default());
            let store = Rc::new(folder.store(&faults).await);
            let objects = vec![
                object(1, 2, 0, &[30_000; 5]),
                object(2, 2, 50, &[100; 3]),
                object(3, 2, 80, &[200_000; 2]),
            ];
            for object in &objects {
                let key = object.name.to_string();
                store.put_new(&key, object.parts.clone()).await.expect("stored");
            }
            Self { _folder: folder, faults, store, objects }
        }

        fn plan(&self, partitions: &[usize]) -> MergePlan {
            let section = |at: &usize| {
                let partition = self.objects[0].extents[*at].0;
                let extents = self.objects.iter().map(|object| object.extents[*at].1.clone());
                (partition, extents.collect())
            };
            MergePlan {
                sections: partitions.iter().map(section).collect(),
                objects: self.objects.iter().map(|object| (object.name, object.size)).collect(),
            }
        }

        async fn build(&self, partitions: &[usize]) -> Result<BuiltObject, FetchError> {
            let name = ObjectName::merged(RaftGroupId::new(1), Term::new(1), 1);
            build(&self.store, name, &self.plan(partitions)).await
        }

        /// Batches of a partition, one after the other.
        fn data(&self, partition: usize) -> Vec<u8> {
            let of = |object: &BuiltObject| {
                let whole = object.parts.concat();
                let range = object.extents[partition].1.data_range();
                let [start, end] =
                    [range.start, range.end].map(|at| usize::try_from(at).expect("small"));
                whole[start..end].to_vec()
            };
            self.objects.iter().flat_map(of).collect()
        }
    }

    #[tokio::test]
    async fn all_batches_are_there_and_the_index_finds_them() {
        let bed = Bed::new("merge-all").await;
        // Both partitions: whole objects. One: not half of any.
        for (partitions, gets) in [(vec![0, 1], 3), (vec![0], 6), (vec![1], 6)] {
            let before = bed.store.metrics().verb(Verb::Get).requests();
            let merged = bed.build(&partitions).await.expect("a merged object");
            let after = bed.store.metrics().verb(Verb::Get).requests();
            assert_eq!(after - before, gets);
            let whole = Bytes::from(merged.parts.concat());
            let directory = Directory::decode(&whole).expect("sound");
            for (section, partition) in directory.sections.iter().zip(&partitions) {
                let extent = &section.extent;
                assert_eq!((extent.base, extent.end), (Offset::new(0), Offset::new(100)));
                let data = part(&whole, 0, extent.data_range());
                assert!(data == bed.data(*partition), "the bytes of partition {partition}");
                section.check_data(&data).expect("sound");
                let points = decode_index(&part(&whole, 0, extent.index_range()), extent);
                let points = points.expect("sound");
                // A point for each 64 KiB: three batches of 30,000; two of them, the three small
                // ones and the first of 200,000, which begins 60,300 after the point; the last.
                let bases: Vec<_> = points.iter().map(|point| point.base_offset.get()).collect();
                assert_eq!(bases, [0, 30, 90]);
                let at = points.iter().map(|point| point.position - extent.position);
                assert_eq!(at.collect::<Vec<_>>(), [0, 90_000, 350_300]);
                assert_eq!(points[1].max_timestamp, 8900);
            }
        }
    }

    #[tokio::test]
    async fn a_damaged_source_is_named_and_not_merged() {
        let bed = Bed::new("merge-damaged").await;
        // The first byte of what is read: of whole objects, and of sections.
        for partitions in [vec![0, 1], vec![1]] {
            bed.faults.always(Verb::Get, Fault::Flip(0));
            let error = bed.build(&partitions).await.expect_err("a byte is another one");
            let FetchError::Object { object, .. } = error else { panic!("{error}") };
            assert!(bed.objects.iter().any(|known| known.name == object));
            bed.faults.clear();
            bed.build(&partitions).await.expect("it was on the way");
        }
        bed.store.delete(&[bed.objects[1].name.to_string()]).await.expect("deleted");
        let error = bed.build(&[0]).await.expect_err("an object is gone");
        assert!(matches!(error, FetchError::Store(StoreError::NotFound { .. })), "{error}");
    }

    #[tokio::test]
    async fn an_extent_that_its_object_does_not_have_is_refused() {
        let bed = Bed::new("merge-other").await;
        let mut plan = bed.plan(&[0]);
        plan.sections[0].1[0].end = Offset::new(49);
        let name = ObjectName::merged(RaftGroupId::new(1), Term::new(1), 1);
        let error = build(&bed.store, name, &plan).await.expect_err("the manifest is wrong");
        let FetchError::Object { error, .. } = error else { panic!("{error}") };
        assert_eq!(error, ObjectError::OtherSections);
    }
}
