//! A bucket as a broker would leave it, which is in order; then with one thing wrong, which is
//! found, and nothing else.

mod moves;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::edit::Edit;
use crate::manifest::tests::{extents_mut, forget, merged, offloaded, range_name, retire_too};

const GROUP: RaftGroupId = RaftGroupId::new(3);
const PARTITIONS: u64 = 3;

/// What a broker does next.
#[derive(Clone, Debug)]
enum Step {
    /// So many records of each partition.
    Offload(Vec<i64>),
    /// A partition's first two extents or more.
    Merge(u64, usize),
    LogStart(u64, i64),
    /// Objects that wait for it are deleted.
    Delete,
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = prop::collection::vec(0_i64..4, 3);
    let step = prop_oneof![
        6 => lengths.prop_filter("some", |all| all.iter().any(|it| *it > 0))
            .prop_map(Step::Offload),
        2 => (0..PARTITIONS, 2_usize..4).prop_map(|(id, count)| Step::Merge(id, count)),
        1 => (0..PARTITIONS, 1_i64..9).prop_map(|(id, ahead)| Step::LogStart(id, ahead)),
        1 => Just(Step::Delete),
    ];
    prop::collection::vec(step, 1..30)
}

/// A broker, its bucket, and the newest manifest file in it.
#[derive(Clone, Debug, Default)]
struct World {
    now: Manifest,
    filed: Manifest,
    filed_ms: i64,
    bucket: BTreeMap<ObjectName, (u64, i64)>,
}

impl World {
    /// Files the manifest before that step, and goes on.
    fn run(steps: &[Step], filed_at: usize) -> Self {
        let mut world = Self::default();
        for (number, step) in steps.iter().enumerate() {
            let now_ms = i64::try_from(number).expect("small");
            if number == filed_at {
                (world.filed, world.filed_ms) = (world.now.clone(), now_ms);
            }
            world.step(step, now_ms);
        }
        world
    }

    fn step(&mut self, step: &Step, now_ms: i64) {
        let edit = match step {
            Step::Offload(lengths) => self.offload(lengths),
            Step::Merge(id, count) => match self.merge(*id, *count, now_ms) {
                Some(edit) => edit,
                None => return,
            },
            Step::LogStart(id, ahead) => {
                let partition = PartitionId::new(*id);
                let end = self.now.offloaded_end(partition).unwrap_or_default();
                let offset = self.now.log_start(partition).plus(*ahead).min(end);
                Edit::LogStart { partition, offset }
            }
            // A broker deletes only what the newest manifest file lists as retired.
            Step::Delete => {
                let objects: Vec<_> = self.filed.retired_sizes().map(|(name, ..)| *name).collect();
                self.bucket.retain(|object, _| !objects.contains(object));
                Edit::Removed { objects }
            }
        };
        if let Edit::Offloaded { object, object_size, .. }
        | Edit::Merged { object, object_size, .. } = &edit
        {
            self.bucket.insert(*object, (*object_size, now_ms));
        }
        self.now.apply(&edit, now_ms).expect("it fits");
    }

    fn offload(&self, lengths: &[i64]) -> Edit {
        let wanted = (0..).zip(lengths).filter(|(_, length)| **length > 0);
        let pieces: Vec<_> = wanted
            .map(|(id, length)| {
                let base = self.now.offloaded_end(PartitionId::new(id)).unwrap_or_default().get();
                (id, base, base + length, 10)
            })
            .collect();
        let first = self.now.offloaded_upto().next().get();
        offloaded(first, first + 2, &pieces)
    }

    fn merge(&self, id: u64, count: usize, now_ms: i64) -> Option<Edit> {
        let extents = self.now.extents(PartitionId::new(id)).get(..count)?;
        let (first, last) = (extents.first()?, extents.last()?);
        // The time makes the name new.
        let number = u64::try_from(now_ms).expect("after 1970");
        Some(merged(number, &[(id, first.base.get(), last.end.get(), 30)]))
    }

    fn listed(&self) -> Vec<Listed> {
        let listed = self.bucket.iter().map(|(name, (size, modified_ms))| Listed {
            key: name.to_string(),
            size: *size,
            modified_ms: *modified_ms,
        });
        let file = ManifestName { group: GROUP, sequence: 7 }.to_string();
        let others = ["cluster".to_owned(), file, "probe/0123456789abcdef".to_owned()];
        let others = others.map(|key| Listed { key, size: 64, modified_ms: 0 });
        listed.chain(others).collect()
    }

    fn audit(&self, listed: &[Listed]) -> AuditReport {
        let group = AuditedGroup { group: GROUP, manifest: &self.filed, stored_ms: self.filed_ms };
        let hosted = (0..PARTITIONS).map(PartitionId::new).collect();
        Audit { listed, groups: &[group], hosted: Some(&hosted) }.run()
    }

    fn findings(&self) -> Vec<Finding> {
        self.audit(&self.listed()).findings
    }

    fn ranges_in(&self, object: ObjectName) -> Vec<OffsetRange> {
        let ids = self.filed.partitions();
        ids.flat_map(|id| self.filed.extents(id).iter().map(move |extent| (id, extent)))
            .filter(|(_, extent)| extent.object == object)
            .map(|(id, extent)| OffsetRange::of(id, extent))
            .collect()
    }

    /// One of the extents in the manifest file, and which it is of its partition's.
    fn any_extent(&self, at: Index) -> Option<(PartitionId, usize)> {
        let ids = self.filed.partitions();
        let all: Vec<_> =
            ids.flat_map(|id| (0..self.filed.extents(id).len()).map(move |at| (id, at))).collect();
        (!all.is_empty()).then(|| *at.get(&all))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_a_broker_leaves_is_in_order(
        steps in any_steps(),
        filed_at in 0_usize..30,
        orphan in any::<Index>(),
    ) {
        let mut world = World::run(&steps, filed_at);
        let upto = world.filed.offloaded_upto();
        let retired: BTreeSet<_> = world.filed.retired_sizes().map(|(name, ..)| *name).collect();
        let live: BTreeSet<_> = world.filed.live().copied().collect();
        let mut orphans = BTreeSet::new();
        if upto > LogIndex::default() {
            let first = u64::try_from(orphan.index(upto.get().try_into().expect("small")));
            let first = LogIndex::new(first.expect("small") + 1);
            let name = ObjectName::range(GROUP, model::Term::new(1), first, first);
            orphans.insert(name.expect("a range"));
            world.bucket.extend(orphans.iter().map(|name| (*name, (5, 0))));
        }
        let report = world.audit(&world.listed());
        prop_assert_eq!(report.findings, Vec::new());
        prop_assert_eq!(report.objects.len(), world.bucket.len());
        for AuditedObject { name, size, standing } in report.objects {
            let expected = match name {
                name if live.contains(&name) => Standing::Live,
                name if retired.contains(&name) => Standing::Retired,
                name if orphans.contains(&name) => Standing::Orphan,
                _ => Standing::Newer,
            };
            prop_assert_eq!((size, standing), (world.bucket[&name].0, expected), "{}", name);
        }
    }

    #[test]
    fn a_live_object_that_is_gone_or_cut_short_is_found(
        steps in any_steps(),
        filed_at in 0_usize..30,
        at in any::<Index>(),
        found in 0_u64..9,
    ) {
        let mut world = World::run(&steps, filed_at);
        let live: Vec<_> = world.filed.live().copied().collect();
        prop_assume!(!live.is_empty());
        let object = *at.get(&live);
        let lost = world.ranges_in(object);
        let (stored, modified_ms) = world.bucket[&object];
        world.bucket.insert(object, (found, modified_ms));
        let size = Finding::Size { object, stored, found, lost: lost.clone() };
        prop_assert_eq!(world.findings(), vec![size]);
        world.bucket.remove(&object);
        prop_assert_eq!(world.findings(), vec![Finding::Missing { object, lost }]);
    }

    #[test]
    fn entries_without_an_object_are_found(steps in any_steps(), at in any::<Index>()) {
        let mut world = World::run(&steps, usize::MAX);
        let ranges = world.bucket.keys().filter_map(|name| match name {
            ObjectName::Range(range) => Some((*name, *range)),
            ObjectName::Merged(_) => None,
        });
        let mut ranges: Vec<_> = ranges.collect();
        // Nothing tells of what comes after the last one.
        ranges.pop();
        prop_assume!(!ranges.is_empty());
        let (name, range) = *at.get(&ranges);
        world.bucket.remove(&name);
        let (first, last) = (range.first(), range.last());
        prop_assert_eq!(world.findings(), vec![Finding::Entries { group: GROUP, first, last }]);
        // Another leader had the same entries: it stored them, and its successor did not need to.
        let other = ObjectName::range(GROUP, model::Term::new(1), first, last).expect("a range");
        world.bucket.insert(other, (5, 0));
        prop_assert_eq!(world.findings(), Vec::new());
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_found(steps in any_steps(), at in any::<Index>()) {
        let world = World::run(&steps, steps.len() - 1);
        let Some((id, at)) = world.any_extent(at) else { return Ok(()) };
        let extent = world.filed.extents(id)[at].clone();
        let range = OffsetRange::of(id, &extent);
        let tampered = |change: &dyn Fn(&mut Manifest)| {
            let mut world = world.clone();
            change(&mut world.filed);
            world.findings()
        };
        let found = tampered(&|manifest| {
            extents_mut(manifest, id).remove(at);
        });
        let base = range.base.max(world.filed.log_start(id));
        prop_assert_eq!(found, vec![Finding::Hole(OffsetRange { base, ..range })]);
        let found = tampered(&|manifest| extents_mut(manifest, id).insert(at, extent.clone()));
        prop_assert_eq!(found, vec![Finding::Overlap(range)]);
        let object = extent.object;
        let found = tampered(&|manifest| extents_mut(manifest, id)[at].index_position = 1 << 40);
        prop_assert_eq!(found, vec![Finding::Outside { object, range }]);
        let found = tampered(&|manifest| retire_too(manifest, object));
        prop_assert_eq!(found, vec![Finding::LiveAndRetired { object }]);
        let found = tampered(&|manifest| forget(manifest, object));
        let ranges = world.ranges_in(object).into_iter();
        let all: Vec<_> = ranges.map(|range| Finding::NotLive { object, range }).collect();
        prop_assert_eq!(found, all);
    }
}

#[test]
fn keys_of_nobody_are_named_and_are_no_loss() {
    let world = World::default();
    let key = "holiday/beach.jpg".to_owned();
    let listed = [Listed { key: key.clone(), size: 1, modified_ms: 0 }];
    let report = world.audit(&listed);
    assert_eq!(report.findings, [Finding::UnknownKey { key }]);
    assert!(!report.findings[0].is_loss());
    assert!(Finding::LiveAndRetired { object: range_name(1, 2) }.is_loss());
}

/// An offload that was under way when a topic was deleted brings back a late part of a partition.
#[test]
fn records_before_those_of_a_deleted_partition_are_not_missed() {
    let mut world = World::default();
    let edit = offloaded(1, 2, &[(1, 5, 9, 10)]);
    world.filed.apply(&edit, 0).expect("fits");
    world.bucket.insert(range_name(1, 2), (148, 0));
    let id = PartitionId::new(1);
    let before = OffsetRange { partition: id, base: Offset::ZERO, end: Offset::new(5) };
    let listed = world.listed();
    assert!(world.findings().contains(&Finding::Hole(before)));
    let group = AuditedGroup { group: GROUP, manifest: &world.filed, stored_ms: 0 };
    for hosted in [None, Some(&BTreeSet::from([PartitionId::new(2)]))] {
        let report = Audit { listed: &listed, groups: &[group], hosted }.run();
        assert!(!report.findings.iter().any(|found| matches!(found, Finding::Hole(_))));
    }
}
