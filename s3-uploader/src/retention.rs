//! How far a partition's log start may move by age and by size.

use model::{Offset, PartitionId};

use crate::manifest::Manifest;

impl Manifest {
    /// Where the records begin that retention keeps: extents go whole, the oldest first, while all
    /// their records are older than `oldest_ms` or the rest still has `size_min` bytes. `None` if
    /// nothing has to go. An extent without timestamps has no age.
    pub fn retained_from(
        &self,
        partition: PartitionId,
        oldest_ms: Option<i64>,
        size_min: Option<u64>,
    ) -> Option<Offset> {
        let mut size = self.partition_size(partition);
        let mut start = None;
        for extent in self.extents(partition) {
            let aged = oldest_ms.is_some_and(|oldest| (0..oldest).contains(&extent.max_timestamp));
            let surplus = size_min.is_some_and(|kept| size - extent.size >= kept);
            if !(aged || surplus) {
                break;
            }
            size -= extent.size;
            start = Some(extent.end);
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{LogIndex, RaftGroupId, Term};

    use super::*;
    use crate::{BatchMeta, Edit, ObjectBuilder, ObjectName};

    const PARTITION: PartitionId = PartitionId::new(3);

    /// Extents of 100 bytes and 10 records each, the youngest record of each at these times.
    fn manifest(timestamps: &[i64]) -> Manifest {
        let mut manifest = Manifest::default();
        for (number, max_timestamp) in (1_u64..).zip(timestamps) {
            let index = LogIndex::new(number);
            let name = ObjectName::range(RaftGroupId::new(1), Term::new(1), index, index);
            let mut builder = ObjectBuilder::new(name.expect("a range"));
            builder.section(PARTITION);
            let base = i64::try_from(number - 1).expect("small") * 10;
            let batch = BatchMeta {
                base_offset: Offset::new(base),
                end_offset: Offset::new(base + 10),
                max_timestamp: *max_timestamp,
            };
            builder.push(batch, Bytes::from(vec![7; 100]));
            let built = builder.finish();
            let edit = Edit::Offloaded {
                upto: index,
                object: built.name,
                object_size: built.size,
                extents: built.extents,
            };
            manifest.apply(&edit, 0).expect("it follows the one before");
        }
        manifest
    }

    #[test]
    fn old_extents_go_from_the_front() {
        let manifest = manifest(&[10, 30, 20, 40]);
        let from = |oldest| manifest.retained_from(PARTITION, Some(oldest), None);
        assert_eq!(from(10), None);
        assert_eq!(from(11), Some(Offset::new(10)));
        // The third is old too, but a younger one is before it.
        assert_eq!(from(25), Some(Offset::new(10)));
        assert_eq!(from(31), Some(Offset::new(30)));
        assert_eq!(from(99), Some(Offset::new(40)));
    }

    #[test]
    fn what_is_kept_has_at_least_the_size_asked_for() {
        let manifest = manifest(&[-1, -1, -1]);
        let from = |size| manifest.retained_from(PARTITION, None, Some(size));
        assert_eq!(from(300), None);
        assert_eq!(from(201), None);
        assert_eq!(from(200), Some(Offset::new(10)));
        assert_eq!(from(0), Some(Offset::new(30)));
    }

    #[test]
    fn records_without_timestamps_have_no_age_and_no_rule_keeps_all() {
        assert_eq!(manifest(&[-1]).retained_from(PARTITION, Some(i64::MAX), None), None);
        assert_eq!(manifest(&[5]).retained_from(PARTITION, None, None), None);
    }
}
