//! Partition 1 begins in group 3 and moves to group 5, then maybe on to group 6. Every group has
//! stored a manifest file after each step, but where a test says that one is behind.

use bytes::Bytes;
use model::Term;

use super::*;
use crate::adoption::Adoption;

const MOVED: PartitionId = PartitionId::new(1);
const GROUPS: [u64; 3] = [3, 5, 6];

/// Groups by number, and what is in the bucket.
#[derive(Clone, Debug, Default)]
struct Groups {
    files: BTreeMap<u64, Manifest>,
    bucket: BTreeMap<ObjectName, u64>,
}

impl Groups {
    /// Group 3 has two objects with partition 1, one of them with partition 2 too.
    fn new() -> Self {
        let mut groups = Self::default();
        groups.files.extend(GROUPS.map(|group| (group, Manifest::default())));
        groups.apply(3, &offloaded(1, 2, &[(1, 0, 5, 10), (2, 0, 5, 10)]));
        groups.apply(3, &offloaded(3, 4, &[(1, 5, 9, 10)]));
        groups
    }

    /// Partition 1 has moved from one to another.
    fn moved(mut self, from: u64, to: u64, id: u64) -> Self {
        self.adopt(from, to, id);
        self.lend(from, to);
        self
    }

    fn adopt(&mut self, from: u64, to: u64, id: u64) {
        let old = &self.files[&from];
        let adoption = Adoption {
            group: RaftGroupId::new(to),
            partition: MOVED,
            id: LogIndex::new(id),
            epoch_base: 1,
            log_start: old.log_start(MOVED),
            end: old.offloaded_end(MOVED),
            objects: old.objects_of(MOVED),
            extents: old.extents(MOVED).to_vec(),
            state: Bytes::new(),
        };
        self.apply(to, &Edit::Adopted(Box::new(adoption)));
    }

    fn lend(&mut self, from: u64, to: u64) {
        let to = RaftGroupId::new(to);
        self.apply(from, &Edit::Lent { partition: MOVED, to, since: 1 });
    }

    /// All of partition 1 becomes one object of the group that has it.
    fn merge(&mut self, group: u64) -> ObjectName {
        let object = ObjectName::merged(RaftGroupId::new(group), Term::new(1), 1);
        let (extents, object_size) =
            crate::manifest::tests::laid_out(object, &[(MOVED.get(), 0, 9, 20)]);
        self.apply(group, &Edit::Merged { object, object_size, extents });
        object
    }

    fn release_and_delete(&mut self, group: u64, objects: &[ObjectName]) {
        self.apply(group, &Edit::Released { partition: MOVED, objects: objects.to_vec() });
        self.bucket.retain(|object, _| !objects.contains(object));
    }

    fn apply(&mut self, group: u64, edit: &Edit) {
        if let Edit::Offloaded { object, object_size, .. }
        | Edit::Merged { object, object_size, .. } = edit
        {
            self.bucket.insert(*object, *object_size);
        }
        self.files.entry(group).or_default().apply(edit, 1).expect("it fits");
    }

    fn audit(&self) -> AuditReport {
        let listed: Vec<Listed> = self
            .bucket
            .iter()
            .map(|(name, size)| Listed { key: name.to_string(), size: *size, modified_ms: 0 })
            .collect();
        let group = |(group, manifest)| AuditedGroup { group, manifest, stored_ms: 1 };
        let files = self.files.iter();
        let groups: Vec<_> =
            files.map(|(number, manifest)| group((RaftGroupId::new(*number), manifest))).collect();
        let hosted = [MOVED, PartitionId::new(2)].into();
        Audit { listed: &listed, groups: &groups, hosted: Some(&hosted) }.run()
    }

    fn assert_in_order(&self) {
        let report = self.audit();
        assert_eq!(report.findings, []);
        let orphan = report.objects.iter().find(|object| object.standing == Standing::Orphan);
        assert_eq!(orphan, None);
    }

    fn without(&self, object: ObjectName) -> Vec<Finding> {
        let mut groups = self.clone();
        groups.bucket.remove(&object).expect("it was there");
        groups.audit().findings
    }
}

fn lost(base: i64, end: i64) -> OffsetRange {
    OffsetRange { partition: MOVED, base: Offset::new(base), end: Offset::new(end) }
}

#[test]
fn a_partition_that_moves_is_in_order_at_every_step() {
    let mut groups = Groups::new();
    groups.assert_in_order();
    groups.adopt(3, 5, 10);
    groups.assert_in_order();
    groups.lend(3, 5);
    groups.assert_in_order();
    let (both, alone) = (range_name(1, 2), range_name(3, 4));
    let second = OffsetRange { partition: PartitionId::new(2), ..lost(0, 5) };
    let lost_of_both = vec![second, lost(0, 5)];
    assert_eq!(groups.without(both), [Finding::Missing { object: both, lost: lost_of_both }]);
    let lost_of_alone = vec![lost(5, 9)];
    assert_eq!(groups.without(alone), [Finding::Missing { object: alone, lost: lost_of_alone }]);
    groups.bucket.insert(alone, 7);
    let [Finding::Size { object, found: 7, lost: of_it, .. }] = &groups.audit().findings[..] else {
        panic!("not found")
    };
    assert_eq!((object, &of_it[..]), (&alone, &[lost(5, 9)][..]));
}

#[test]
fn what_is_only_lent_must_be_there_until_it_is_released() {
    let mut groups = Groups::new().moved(3, 5, 10);
    groups.merge(5);
    groups.assert_in_order();
    let (both, alone) = (range_name(1, 2), range_name(3, 4));
    assert_eq!(groups.without(alone), [Finding::Missing { object: alone, lost: vec![] }]);
    groups.release_and_delete(3, &[both, alone]);
    groups.bucket.insert(both, 10 + 10 + 2 * 28 + 100);
    groups.assert_in_order();
}

#[test]
fn an_object_that_its_group_may_delete_while_another_one_needs_it_is_found() {
    let mut groups = Groups::new().moved(3, 5, 10);
    let object = range_name(3, 4);
    groups.apply(3, &Edit::Released { partition: MOVED, objects: vec![object] });
    assert_eq!(groups.audit().findings, [Finding::LiveAndRetired { object }]);
    let standing = |object| groups.audit().objects.iter().find(|it| it.name == object).copied();
    assert_eq!(standing(object).map(|it| it.standing), Some(Standing::Live));
}

#[test]
fn whoever_lent_a_partition_on_does_not_need_foreign_objects() {
    let mut groups = Groups::new().moved(3, 5, 10).moved(5, 6, 11);
    groups.assert_in_order();
    let alone = range_name(3, 4);
    assert_eq!(groups.without(alone), [Finding::Missing { object: alone, lost: vec![lost(5, 9)] }]);
    groups.merge(6);
    groups.release_and_delete(3, &[alone]);
    assert!(groups.files[&5].contains(&alone), "it lends what it does not own");
    groups.assert_in_order();
}

/// Group 5 has not stored a manifest since the partition left it.
#[test]
fn a_manifest_from_before_a_move_does_not_count() {
    let mut groups = Groups::new().moved(3, 5, 10);
    groups.adopt(5, 6, 11);
    groups.assert_in_order();
    groups.merge(6);
    groups.release_and_delete(3, &[range_name(3, 4)]);
    groups.assert_in_order();
}

#[test]
fn a_partition_that_came_back_counts_where_it_is() {
    let groups = Groups::new().moved(3, 5, 10).moved(5, 3, 11);
    groups.assert_in_order();
    let alone = range_name(3, 4);
    assert_eq!(groups.without(alone), [Finding::Missing { object: alone, lost: vec![lost(5, 9)] }]);
}
