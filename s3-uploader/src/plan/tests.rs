use bytes::Bytes;
use model::{LogIndex, Offset, RaftGroupId, Term};
use proptest::prelude::*;

use super::*;
use crate::adoption::Adoption;
use crate::edit::Edit;
use crate::manifest::tests::{Piece, laid_out, merged_name, offloaded};

const MIB: u64 = 1 << 20;

/// Partition and MiB of each extent of an object.
type Extents = Vec<(u64, u64)>;

/// An offload for each, with ten offsets of each partition that it holds.
fn with(objects: &[Extents]) -> Manifest {
    let sized = |(id, mib): &(u64, u64)| (*id, mib * MIB);
    with_bytes(&objects.iter().map(|object| object.iter().map(sized).collect()).collect::<Vec<_>>())
}

fn with_bytes(objects: &[Extents]) -> Manifest {
    let mut manifest = Manifest::default();
    let mut ends = BTreeMap::<u64, i64>::new();
    for (first, extents) in (1..).zip(objects) {
        let place = |(id, size): &(u64, u64)| {
            let end = ends.entry(*id).or_default();
            *end += 10;
            (*id, *end - 10, *end, *size)
        };
        let pieces: Vec<Piece> = extents.iter().map(place).collect();
        manifest.apply(&offloaded(first, first, &pieces), 0).expect("fits");
    }
    manifest
}

/// Applies the merge; says how many objects are live after it.
fn merge(manifest: &mut Manifest, plan: &MergePlan, number: u64) -> usize {
    let pieces: Vec<Piece> = plan
        .sections
        .iter()
        .map(|(partition, run)| {
            assert!(run.is_sorted_by(|a, b| a.end == b.base), "a run");
            let (base, end) = (run[0].base.get(), run[run.len() - 1].end.get());
            (partition.get(), base, end, run.iter().map(|extent| extent.size).sum())
        })
        .collect();
    let object = merged_name(number);
    let (extents, object_size) = laid_out(object, &pieces);
    manifest.apply(&Edit::Merged { object, object_size, extents }, 0).expect("fits");
    manifest.totals().live_count
}

/// Partition and number of extents of each section.
fn shape(plan: Option<&MergePlan>) -> Option<Vec<(u64, usize)>> {
    plan.map(|plan| plan.sections.iter().map(|(id, run)| (id.get(), run.len())).collect())
}

fn gathered(objects: &[Extents]) -> Option<Vec<(u64, usize)>> {
    shape(with(objects).gather(&BTreeSet::new()).as_ref())
}

fn separated(objects: &[Extents]) -> Option<Vec<(u64, usize)>> {
    shape(with(objects).separate(PartitionId::default(), &BTreeSet::new()).plan.as_ref())
}

fn repeat(object: &[(u64, u64)], count: usize) -> Vec<Extents> {
    vec![object.to_vec(); count]
}

/// Partition 1 comes with 32 tiny objects of another group, each with ten offsets of it.
fn adopted_tiny() -> (Manifest, Vec<ObjectName>) {
    let (other, own) = (RaftGroupId::new(5), RaftGroupId::new(3));
    let names: Vec<ObjectName> =
        (0..32).map(|number| ObjectName::merged(other, Term::new(1), number)).collect();
    let (mut objects, mut extents) = (Vec::new(), Vec::new());
    for (base, name) in (0..).step_by(10).zip(&names) {
        let (laid, size) = laid_out(*name, &[(1, base, base + 10, 1)]);
        extents.push(laid[0].1.clone());
        objects.push((*name, size));
    }
    let adoption = Adoption {
        group: own,
        partition: PartitionId::new(1),
        id: LogIndex::new(1),
        epoch_base: 0,
        log_start: Offset::ZERO,
        end: Some(Offset::new(320)),
        objects,
        extents,
        state: Bytes::new(),
    };
    let mut manifest = Manifest::default();
    manifest.apply(&Edit::Adopted(Box::new(adoption)), 0).expect("fits");
    (manifest, names)
}

#[test]
fn objects_of_another_group_are_merged_into_own_ones() {
    let (mut manifest, foreign) = adopted_tiny();
    let plan = manifest.gather(&BTreeSet::new()).expect("32 of them");
    assert_eq!(plan.objects.len(), foreign.len());
    assert_eq!(merge(&mut manifest, &plan, 1), 1);
    assert!(!manifest.is_foreign(&merged_name(1)));
    assert!(foreign.iter().all(|name| !manifest.contains(name)), "nor is any retired");
    assert_eq!(manifest.gather(&BTreeSet::new()), None);
}

#[test]
fn what_is_only_lent_is_not_merged_and_what_is_also_lent_is_merged_once() {
    let lent = Edit::Lent { partition: PartitionId::new(1), to: RaftGroupId::new(5), since: 1 };
    let (mut manifest, _) = adopted_tiny();
    manifest.apply(&lent, 0).expect("fits");
    assert_eq!(manifest.totals().live_count, 32);
    assert_eq!(manifest.gather(&BTreeSet::new()), None);

    let mut manifest = with_bytes(&repeat(&[(1, 1), (2, 1)], 32));
    manifest.apply(&lent, 0).expect("fits");
    let plan = manifest.gather(&BTreeSet::new()).expect("partition 2 is here");
    assert_eq!(shape(Some(&plan)), Some(vec![(2, 32)]));
    assert_eq!(merge(&mut manifest, &plan, 1), 33, "partition 1 may need the others");
    assert_eq!(manifest.gather(&BTreeSet::new()), None);
}

#[test]
fn many_tiny_objects_are_gathered() {
    let tiny = |count| with_bytes(&repeat(&[(1, 1), (2, 1)], count));
    let none = BTreeSet::new();
    assert_eq!(tiny(31).gather(&none), None);
    let mut all = tiny(32);
    let plan = all.gather(&none).expect("32 of them");
    assert_eq!(shape(Some(&plan)), Some(vec![(1, 32), (2, 32)]));
    assert_eq!(plan.objects.len(), 32);
    assert_eq!(merge(&mut all, &plan, 1), 1);
    let first = *tiny(1).live().next().expect("one");
    assert_eq!(tiny(32).gather(&BTreeSet::from([first])), None, "one is set aside");
}

#[test]
fn small_objects_are_gathered_when_they_are_many_bytes() {
    assert_eq!(gathered(&repeat(&[(1, 3), (2, 4)], 4)), None, "28 MiB");
    assert_eq!(gathered(&repeat(&[(1, 3), (2, 4)], 5)), Some(vec![(1, 5), (2, 5)]));
    assert_eq!(gathered(&repeat(&[(1, 4), (2, 4)], 9)), None, "each is large enough");
    assert_eq!(gathered(&repeat(&[(1, 7)], 12)), Some(vec![(1, 9)]), "at most 64 MiB");
    assert_eq!(gathered(&repeat(&[(1, 4), (2, 3)], 20)), Some(vec![(1, 9), (2, 9)]));
    // The first nine cannot be merged with each other, the others can.
    let lonely: Vec<Extents> = (0..18).map(|at| vec![(1, [7, 9][at % 2])]).collect();
    let mixed = [lonely, repeat(&[(2, 7)], 5)].concat();
    assert_eq!(gathered(&mixed), Some(vec![(2, 5)]));
}

#[test]
fn what_is_between_large_objects_is_not_gathered_for_nothing() {
    // Each small extent of partition 1 stands alone: writing it anew would free no object.
    let lonely: Vec<Extents> = (0..24).map(|at| vec![(1, [7, 9][at % 2])]).collect();
    assert_eq!(gathered(&lonely), None);
}

#[test]
fn small_extents_of_one_partition_are_separated() {
    let object = [(1, 7), (2, 1), (3, 9)];
    assert_eq!(separated(&repeat(&object, 4)), None, "28 MiB");
    assert_eq!(separated(&repeat(&object, 5)), Some(vec![(1, 5)]));
    assert_eq!(separated(&repeat(&object, 12)), Some(vec![(1, 9)]), "at most 64 MiB");
    let around = |count, mib, between| {
        [repeat(&[(1, mib)], count), vec![vec![(1, 8)]], repeat(&[(1, 7)], between)].concat()
    };
    assert_eq!(separated(&around(3, 7, 3)), None, "a large one between");
    assert_eq!(separated(&around(9, 1, 5)), Some(vec![(1, 5)]), "more bytes, not more extents");
}

#[test]
fn what_is_days_apart_is_not_merged() {
    for (apart, runs) in [(AGE_SPAN_MAX / 4, 5), (AGE_SPAN_MAX, 2), (AGE_SPAN_MAX + 1, 1)] {
        let mut manifest = Manifest::default();
        for at in 0..12_u8 {
            let (first, base) = (u64::from(at) + 1, i64::from(at) * 10);
            let mut edit = offloaded(first, first, &[(1, base, base + 10, 7 * MIB)]);
            let Edit::Offloaded { extents, .. } = &mut edit else { unreachable!("an offload") };
            extents[0].1.max_timestamp = i64::from(at) * apart;
            manifest.apply(&edit, 0).expect("fits");
        }
        let found = manifest.separate(PartitionId::default(), &BTreeSet::new()).plan;
        let expected = (runs >= 5).then(|| vec![(1, runs)]);
        assert_eq!(shape(found.as_ref()), expected, "{apart} ms apart");
    }
}

#[test]
fn a_look_ends_and_the_next_one_goes_on() {
    let manifest = with(&repeat(&[(1, 1), (2, 9), (3, 7)], EXTENTS_PER_LOOK));
    let none = BTreeSet::new();
    let first = manifest.separate(PartitionId::default(), &none);
    assert_eq!(shape(first.plan.as_ref()), Some(vec![(1, 64)]));
    assert_eq!((first.due, first.next), (64 * MIB, Some(PartitionId::new(2))));
    let second = manifest.separate(PartitionId::new(2), &none);
    assert_eq!((second.plan, second.due, second.next), (None, 0, Some(PartitionId::new(3))));
    let third = manifest.separate(PartitionId::new(3), &none);
    assert_eq!((shape(third.plan.as_ref()), third.next), (Some(vec![(3, 9)]), None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever the sizes: merging ends, each step leaves less, every offset stays where it can be
    /// found, and no byte is written anew more often than promised.
    #[test]
    fn merging_ends_and_loses_nothing(
        objects in prop::collection::vec(
            prop::collection::btree_map(0_u64..4, 1_u64..12, 1..4), 1..60),
    ) {
        let objects: Vec<Extents> =
            objects.into_iter().map(|object| object.into_iter().collect()).collect();
        let mut manifest = with(&objects);
        let end_of = |id| manifest.offloaded_end(PartitionId::new(id)).map(|end| (id, end.get()));
        let ends: Vec<_> = (0..4).filter_map(end_of).collect();
        let none = BTreeSet::new();
        let (total, mut written) = (manifest.totals().live_size, 0);
        for number in 1.. {
            let (before, extents) = (manifest.totals().live_count, manifest.extent_count());
            if let Some(plan) = manifest.gather(&none) {
                written += plan.size();
                prop_assert!(plan.size() <= TARGET_SIZE);
                prop_assert!(merge(&mut manifest, &plan, number) < before);
            } else if let Some(plan) = manifest.separate(PartitionId::default(), &none).plan {
                written += plan.size();
                prop_assert!((SEPARATED_MIN..=TARGET_SIZE).contains(&plan.size()));
                merge(&mut manifest, &plan, number);
                prop_assert!(manifest.extent_count() < extents);
            } else {
                break;
            }
            for (id, end) in &ends {
                for offset in (0..*end).map(Offset::new) {
                    prop_assert!(manifest.find(PartitionId::new(*id), offset).is_some());
                }
            }
            let decoded = Manifest::decode(&manifest.encode());
            prop_assert_eq!(decoded.as_ref(), Ok(&manifest));
        }
        prop_assert!(written <= 3 * total, "{written} of {total}");
    }
}
