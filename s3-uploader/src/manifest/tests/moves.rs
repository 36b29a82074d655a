//! Partitions that come and go.

use super::cases::{after, names, ranges, refusal};
use super::histories::{OTHER, OWN};
use super::*;
use crate::codec::DecodeError;
use crate::edit::EditError;

const GOLDEN: &[u8] = include_bytes!("../../../testdata/manifest-of-moves.v3.bin");
const P: PartitionId = PartitionId::new(7);
const Q: PartitionId = PartitionId::new(9);

/// An object of the other group.
fn foreign_name(first: u64, last: u64) -> ObjectName {
    let (first, last) = (LogIndex::new(first), LogIndex::new(last));
    ObjectName::range(OTHER, Term::new(12), first, last).expect("a range")
}

fn listed_by_nobody() -> ObjectName {
    foreign_name(99, 99)
}

fn sealed(partition: u64, id: u64) -> Edit {
    Edit::Sealed { partition: PartitionId::new(partition), id: LogIndex::new(id) }
}

fn lent(partition: u64) -> Edit {
    Edit::Lent { partition: PartitionId::new(partition), to: OTHER, since: 321 }
}

fn released(partition: u64, objects: &[ObjectName]) -> Edit {
    Edit::Released { partition: PartitionId::new(partition), objects: objects.to_vec() }
}

/// Partition `id` arrives by that move with one extent in each object.
fn adoption(id: u64, move_id: u64, parts: &[(ObjectName, i64, i64)]) -> Adoption {
    let mut objects = BTreeMap::new();
    let mut extents = Vec::new();
    for &(object, base, end) in parts {
        let (laid, size) = laid_out(object, &[(id, base, end, 10)]);
        objects.insert(object, size);
        extents.extend(laid.into_iter().map(|(_, extent)| extent));
    }
    Adoption {
        group: OWN,
        partition: PartitionId::new(id),
        id: LogIndex::new(move_id),
        epoch_base: 4,
        log_start: Offset::new(parts.first().map_or(0, |part| part.1)),
        end: parts.last().map(|part| Offset::new(part.2)),
        objects: objects.into_iter().collect(),
        extents,
        state: Bytes::from_static(b"state"),
    }
}

fn adopted(adoption: Adoption) -> Edit {
    Edit::Adopted(Box::new(adoption))
}

/// A partition that left, one that arrived and one that is about to leave.
fn golden_manifest() -> Manifest {
    let arrival = Adoption {
        log_start: Offset::new(55),
        ..adoption(9, 901, &[(foreign_name(1, 9), 50, 60)])
    };
    after(&[
        offloaded(1, 10, &[(1, 0, 4, 13), (7, 100, 250, 10)]),
        offloaded(11, 20, &[(7, 250, 300, 20)]),
        adopted(arrival),
        sealed(7, 900),
        lent(7),
        sealed(1, 902),
    ])
}

#[test]
fn reads_and_writes_the_bytes_of_version_3() {
    assert_eq!(golden_manifest().encode(), GOLDEN);
    assert_eq!(Manifest::decode(GOLDEN), Ok(golden_manifest()));
    for len in 0..GOLDEN.len() {
        assert!(Manifest::decode(&GOLDEN[..len]).is_err(), "prefix {len}");
    }
    let longer = [GOLDEN, &[0]].concat();
    assert_eq!(Manifest::decode(&longer), Err(DecodeError::LeftOver { left: 1 }));
}

#[test]
fn an_encoding_that_breaks_an_invariant_is_refused() {
    let changes = [
        (56, 6, "the number of an object"),
        // The lent partition: one that is here, and one that arrived; its objects.
        (58, 2, "a partition both here and lent"),
        (58, 0x12, "a partition both here and lent"),
        (62, 0, "a lent partition without objects"),
        (63, 6, "the number of an object"),
        (64, 1, "the order of objects"),
    ];
    for (at, byte, field) in changes {
        let mut bytes = GOLDEN.to_vec();
        assert_ne!(bytes[at], byte, "byte {at}");
        bytes[at] = byte;
        let error = DecodeError::Inconsistent { field };
        assert_eq!(Manifest::decode(&bytes), Err(error), "byte {at} as {byte}");
    }
    // Nobody needs the first object, nor is it lent.
    let alone = after(&[offloaded(1, 10, &[(7, 0, 4, 13)]), lent(7)]).encode();
    let lent_size = 7;
    let none = [&alone[..alone.len() - lent_size], &[0]].concat();
    let field = "an object without extents";
    assert_eq!(Manifest::decode(&none), Err(DecodeError::Inconsistent { field }));
}

#[test]
fn a_partition_is_sealed_for_the_latest_move() {
    let mut manifest = after(&[sealed(7, 900), sealed(7, 899), sealed(9, 12)]);
    assert_eq!(manifest.sealed(P), Some(LogIndex::new(900)));
    manifest.apply(&sealed(7, 901), 0).expect("fits");
    let all = [(P, LogIndex::new(901)), (Q, LogIndex::new(12))];
    assert_eq!(manifest.sealed_partitions().collect::<Vec<_>>(), all);
    for partition in [P, P, PartitionId::new(55)] {
        manifest.apply(&Edit::Unsealed { partition }, 0).expect("known or not");
    }
    assert_eq!(manifest.sealed_partitions().collect::<Vec<_>>(), all[1..]);
    manifest.apply(&dropped(&[9]), 0).expect("drops");
    assert_eq!(manifest, Manifest::default());
}

#[test]
fn what_a_partition_needs_is_lent_until_it_is_released() {
    let mut manifest = golden_manifest();
    let objects = [range_name(1, 10), range_name(11, 20)];
    assert_eq!((manifest.sealed(P), manifest.offloaded_end(P)), (None, None));
    let all: Vec<_> = manifest.lent().collect();
    let expected = Lent { to: OTHER, since: 321, objects: objects.into() };
    assert_eq!(all, [(P, &expected)]);
    assert!(manifest.is_lent(P) && !manifest.is_lent(Q));
    assert_eq!(manifest.references(&objects[1]), 0);
    assert_eq!(manifest.totals().live_count, 3, "they are live");
    let error = refusal(&mut manifest, &Edit::Removed { objects: vec![objects[1]] });
    assert_eq!(error, EditError::StillReferred { object: objects[1] });

    let unknown = [foreign_name(1, 9), range_name(500, 501)];
    let before = manifest.clone();
    manifest.apply(&released(7, &unknown), 5000).expect("passed over");
    manifest.apply(&released(9, &objects), 5000).expect("passed over");
    assert_eq!(manifest, before);
    manifest.apply(&released(7, &[objects[1], objects[1]]), 5000).expect("released");
    assert_eq!(names(manifest.retired(i64::MAX)), [objects[1]]);
    manifest.apply(&released(7, &objects), 5001).expect("released");
    assert_eq!(names(manifest.retired(i64::MAX)), [objects[1]], "partition 1 has the other one");
    assert!(!manifest.is_lent(P));
}

#[test]
fn an_object_that_is_only_lent_is_not_merged() {
    let manifest = golden_manifest();
    let small: Vec<_> = manifest.small().map(|(name, _)| name).collect();
    assert_eq!(small, [range_name(1, 10), foreign_name(1, 9)]);
    let again = Manifest::decode(&manifest.encode()).expect("its own bytes");
    assert_eq!(again, manifest);
}

#[test]
fn a_partition_without_objects_lends_nothing() {
    let mut manifest = after(&[log_start(7, 60), sealed(7, 900), lent(7)]);
    assert_eq!(manifest, Manifest::default());
    let unknown = after(&[sealed(7, 900), adopted(adoption(9, 901, &[])), lent(7), lent(9)]);
    assert_eq!(unknown, Manifest::default());
    manifest.apply(&lent(7), 0).expect("passed over");
    assert_eq!(manifest, Manifest::default());
}

#[test]
fn an_adopted_partition_is_here_with_foreign_objects() {
    let manifest = golden_manifest();
    let arrival = Arrival { id: LogIndex::new(901), epoch_base: 4 };
    assert_eq!(manifest.arrival(Q), Some(arrival));
    assert_eq!(manifest.arrivals().collect::<Vec<_>>(), [(Q, arrival)]);
    assert_eq!(ranges(&manifest, 9), [(50, 60)]);
    assert_eq!(manifest.log_start(Q), Offset::new(55));
    assert_eq!(manifest.offloaded_end(Q), Some(Offset::new(60)));
    let object = foreign_name(1, 9);
    assert_eq!(manifest.objects_of(Q), [(object, 138)]);
    assert!(manifest.is_foreign(&object) && !manifest.is_foreign(&range_name(1, 10)));
    let mut later = manifest.clone();
    later.apply(&offloaded(21, 30, &[(9, 60, 70, 10)]), 0).expect("continues");
    assert_eq!(later.objects_of(Q).len(), 2);
    later.apply(&dropped(&[9]), 5000).expect("drops");
    assert_eq!(names(later.retired(i64::MAX)), [range_name(21, 30)]);
    assert!(!later.contains(&object) && later.arrival(Q).is_none());
}

#[test]
fn the_last_reference_of_a_foreign_object_is_forgotten_with_it() {
    let object = foreign_name(1, 9);
    for edit in [merged(1, &[(9, 50, 60, 10)]), log_start(9, 60), dropped(&[9])] {
        let mut manifest = golden_manifest();
        manifest.apply(&edit, 5000).expect("fits");
        assert!(!manifest.contains(&object), "{edit:?}");
        assert_eq!(manifest.totals().retired_count, 0);
    }
    let mut manifest = golden_manifest();
    manifest.apply(&lent(9), 5000).expect("goes on to another group");
    assert!(manifest.contains(&object) && manifest.is_foreign(&object));
    manifest.apply(&released(9, &[object]), 5001).expect("released");
    assert!(!manifest.contains(&object));
    assert_eq!(manifest.totals().retired_count, 0);
}

#[test]
fn a_repeat_of_an_adoption_is_void() {
    let mut manifest = golden_manifest();
    for id in [901, 900] {
        let error = refusal(&mut manifest, &adopted(adoption(9, id, &[])));
        let arrived = LogIndex::new(901);
        let id = LogIndex::new(id);
        assert_eq!(error, EditError::AlreadyAdopted { partition: Q, id, arrived });
    }
    let parts = [(foreign_name(1, 9), 50, 60), (foreign_name(10, 12), 60, 61)];
    manifest.apply(&adopted(adoption(9, 903, &parts)), 5000).expect("a later move");
    assert_eq!(ranges(&manifest, 9), [(50, 60), (60, 61)]);
    assert_eq!(manifest.arrival(Q).map(|arrival| arrival.id), Some(LogIndex::new(903)));
}

#[test]
fn a_partition_that_comes_back_needs_some_of_what_is_lent() {
    let mut manifest = golden_manifest();
    // While it was away, its first extent was merged there.
    let merged = ObjectName::merged(OTHER, Term::new(3), 1);
    let mut back = adoption(7, 905, &[(merged, 100, 250), (range_name(11, 20), 250, 300)]);
    back.objects[0].1 = 148;
    back.extents[1] = after(&[offloaded(11, 20, &[(7, 250, 300, 20)])]).extents(P)[0].clone();
    manifest.apply(&adopted(back), 5000).expect("fits");
    assert!(!manifest.is_lent(P));
    assert!(manifest.is_foreign(&merged) && !manifest.is_foreign(&range_name(11, 20)));
    assert_eq!(manifest.totals().retired_count, 0, "partition 1 needs the one it does not");
    manifest.apply(&dropped(&[1]), 5001).expect("drops");
    assert_eq!(names(manifest.retired(i64::MAX)), [range_name(1, 10)]);
    manifest.apply(&log_start(7, 300), 5002).expect("forward");
    assert_eq!(names(manifest.retired(i64::MAX)), [range_name(1, 10), range_name(11, 20)]);
    assert!(!manifest.contains(&merged));
}

#[test]
fn an_adoption_that_does_not_fit_is_refused() {
    type Change = fn(&mut Adoption);
    let (first, second) = (foreign_name(1, 9), foreign_name(10, 12));
    let good = adoption(7, 905, &[(first, 0, 5), (second, 5, 9)]);
    let (extents, order) =
        (EditError::AdoptedExtents { partition: P }, EditError::ObjectOrder { object: first });
    let unused = EditError::UnusedObject { object: listed_by_nobody() };
    let unlisted = EditError::UnlistedObject { object: listed_by_nobody() };
    let other_size = EditError::ObjectSize { object: first, known: 138, found: 139 };
    let changes: [(Change, EditError); 11] = [
        (|it| it.end = None, extents),
        (|it| it.end = Some(Offset::new(10)), extents),
        (|it| it.log_start = Offset::new(5), extents),
        (|it| it.log_start = Offset::new(-1), extents),
        (|it| it.extents[1].base = Offset::new(6), extents),
        (|it| it.objects.swap(0, 1), order),
        (|it| it.objects[1] = it.objects[0], order),
        (|it| it.objects.push((listed_by_nobody(), 5)), unused),
        (|it| it.extents[0].object = listed_by_nobody(), unlisted),
        (|it| it.objects[0].1 = 139, other_size),
        (|it| it.objects[1].1 = u64::MAX, EditError::Sizes),
    ];
    let mut manifest = golden_manifest();
    for (change, expected) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        assert_eq!(refusal(&mut manifest, &adopted(bad)), expected);
    }
    let mut bad = good.clone();
    bad.extents[0].index_count = 99;
    let (base, end) = (Offset::ZERO, Offset::new(5));
    let error = refusal(&mut manifest, &adopted(bad));
    assert_eq!(error, EditError::Unsound { partition: P, base, end });
    let ended = Adoption { end: Some(Offset::ZERO), ..adoption(7, 905, &[]) };
    let error = refusal(&mut manifest, &adopted(ended));
    assert_eq!(error, EditError::AdoptedExtents { partition: P });
    manifest.apply(&adopted(good), 0).expect("as it was");
}

#[test]
fn an_object_that_may_be_deleted_does_not_come_back() {
    let mut manifest = golden_manifest();
    let object = range_name(11, 20);
    manifest.apply(&released(7, &[object]), 5000).expect("released");
    let error = refusal(&mut manifest, &adopted(adoption(7, 905, &[(object, 250, 300)])));
    assert_eq!(error, EditError::RetiredObject { object });
}

#[test]
fn nothing_happens_to_a_partition_that_left() {
    let mut manifest = golden_manifest();
    let before = manifest.clone();
    for edit in [log_start(7, 260), lent(7), dropped(&[7])] {
        manifest.apply(&edit, 5000).expect("passed over");
        assert_eq!(manifest, before, "{edit:?}");
    }
    let late = offloaded(21, 30, &[(1, 4, 5, 1), (7, 300, 310, 1)]);
    manifest.apply(&late, 5000).expect("fits partition 1");
    assert_eq!((ranges(&manifest, 7), manifest.offloaded_end(P)), (vec![], None));
    assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
}

#[test]
fn a_sealed_partition_goes_on_to_lose_what_is_old() {
    let mut manifest = golden_manifest();
    let one = PartitionId::new(1);
    manifest.apply(&log_start(1, 4), 5000).expect("forward");
    assert_eq!((ranges(&manifest, 1), manifest.log_start(one)), (vec![], Offset::new(4)));
    assert_eq!(manifest.sealed(one), Some(LogIndex::new(902)));
}
