//! Batches on their way into an object, as a shard gathers them.

use bytes::Bytes;
use model::PartitionId;

use super::BatchMeta;
use super::builder::{BuiltObject, ObjectBuilder};
use crate::object_name::ObjectName;

/// A group's batches in the order of its log. Sorting them and computing their checksums is left to
/// the store's thread: on a shard it would hold up everything else.
#[derive(Debug)]
pub struct LooseObject {
    pub name: ObjectName,
    pub batches: Vec<(PartitionId, BatchMeta, Bytes)>,
}

impl LooseObject {
    /// # Panics
    ///
    /// Offsets of a partition do not ascend.
    pub fn build(mut self) -> BuiltObject {
        // Stable: the batches of a partition stay in the order of their offsets.
        self.batches.sort_by_key(|(partition, ..)| *partition);
        let mut object = ObjectBuilder::new(self.name);
        let mut section = None;
        for (partition, meta, batch) in self.batches {
            if section.replace(partition) != Some(partition) {
                object.section(partition);
            }
            object.push(meta, batch);
        }
        object.finish()
    }
}

#[cfg(test)]
mod tests {
    use model::{LogIndex, Offset, RaftGroupId, Term};

    use super::*;

    #[test]
    fn batches_of_partitions_that_alternate_end_in_one_section_each() {
        let index = LogIndex::new(4);
        let name = ObjectName::range(RaftGroupId::new(1), Term::new(1), index, index);
        let batch = |partition: u64, base: i64| {
            let meta = BatchMeta {
                base_offset: Offset::new(base),
                end_offset: Offset::new(base + 1),
                max_timestamp: base,
            };
            (PartitionId::new(partition), meta, Bytes::from(format!("{partition}:{base} ")))
        };
        let batches = vec![batch(2, 0), batch(1, 5), batch(2, 1), batch(1, 6)];
        let built = LooseObject { name: name.expect("a range"), batches }.build();
        let partitions: Vec<_> = built.extents.iter().map(|(id, _)| id.get()).collect();
        assert_eq!(partitions, [1, 2]);
        let data: Vec<u8> = built.parts[..4].concat();
        assert_eq!(data, b"1:5 1:6 2:0 2:1 ");
    }
}
