use super::*;
use crate::codec::DecodeError;
use crate::edit::EditError;

const GOLDEN: &[u8] = include_bytes!("../../../testdata/manifest.v3.bin");
const P: PartitionId = PartitionId::new(7);

/// A manifest after edits that all fit, at times 1000, 1001 and so on.
pub(super) fn after(edits: &[Edit]) -> Manifest {
    let mut manifest = Manifest::default();
    for (edit, now_ms) in edits.iter().zip(1000..) {
        manifest.apply(edit, now_ms).unwrap_or_else(|error| panic!("{edit:?}: {error}"));
    }
    manifest
}

/// The error of an edit, having seen that it changes nothing.
pub(super) fn refusal(manifest: &mut Manifest, edit: &Edit) -> EditError {
    let before = manifest.clone();
    let error = manifest.apply(edit, 2000).expect_err("must be refused");
    assert_eq!(*manifest, before);
    error
}

pub(super) fn ranges(manifest: &Manifest, partition: u64) -> Vec<(i64, i64)> {
    let extents = manifest.extents(PartitionId::new(partition)).iter();
    extents.map(|extent| (extent.base.get(), extent.end.get())).collect()
}

pub(super) fn names<'a>(names: impl Iterator<Item = &'a ObjectName>) -> Vec<ObjectName> {
    names.copied().collect()
}

/// Two offloads and a merge of their extents of partition 7, retention, a partition that only has
/// a log start.
fn golden_manifest() -> Manifest {
    after(&[
        offloaded(1, 10, &[(1, 0, 4, 13), (7, 100, 250, 10)]),
        offloaded(11, 20, &[(7, 250, 300, 20)]),
        offloaded(21, 30, &[(7, 300, 310, 5)]),
        merged(7, &[(7, 100, 300, 30)]),
        log_start(1, 2),
        log_start(9, 77),
    ])
}

#[test]
fn reads_and_writes_the_bytes_of_version_3() {
    assert_eq!(golden_manifest().encode(), GOLDEN);
    assert_eq!(Manifest::decode(GOLDEN), Ok(golden_manifest()));
}

#[test]
fn every_prefix_and_what_is_left_over_is_refused() {
    for len in 0..GOLDEN.len() {
        assert!(Manifest::decode(&GOLDEN[..len]).is_err(), "prefix {len}");
    }
    let longer = [GOLDEN, &[0]].concat();
    assert_eq!(Manifest::decode(&longer), Err(DecodeError::LeftOver { left: 1 }));
}

#[test]
fn a_count_beyond_the_bytes_is_refused() {
    // Lists of live objects, retired objects, partitions, and extents of the first partition.
    for at in [2, 19, 29, 33] {
        let mut bytes = GOLDEN.to_vec();
        bytes[at] = 0x7f;
        let error = DecodeError::Count { count: 0x7f, left: GOLDEN.len() - at - 1 };
        assert_eq!(Manifest::decode(&bytes), Err(error), "count at {at}");
    }
}

#[test]
fn an_encoding_that_breaks_an_invariant_is_refused() {
    let changes = [
        // The first object's size, with a byte too many; the second one's first index.
        (9, 0, "the form of a number"),
        (11, 0x15, "live objects"),
        // The first partition: log start and end; its extent: number of the object, which may also
        // be one that leaves the first object without extents, length, size, points of the index.
        (31, 4, "a partition's extents"),
        (32, 5, "a partition's extents"),
        (34, 6, "the number of an object"),
        (34, 2, "an object without extents"),
        (36, 0, "an extent's place in its object"),
        (38, 0, "an extent's place in its object"),
        (40, 0, "an extent's place in its object"),
        // The second partition: its id; the base of its second extent.
        (42, 3, "partitions"),
        (59, 2, "a partition's extents"),
    ];
    for (at, byte, field) in changes {
        let mut bytes = GOLDEN.to_vec();
        assert_ne!(bytes[at], byte, "byte {at}");
        bytes[at] = byte;
        let error = DecodeError::Inconsistent { field };
        assert_eq!(Manifest::decode(&bytes), Err(error), "byte {at} as {byte}");
    }
}

#[test]
fn a_name_has_one_form_and_no_end_before_its_beginning() {
    let in_full = [&GOLDEN[..10], &[1, 3, 12], &GOLDEN[11..]].concat();
    let field = "a name that begins anew";
    assert_eq!(Manifest::decode(&in_full), Err(DecodeError::Inconsistent { field }));
    let mut beyond_64_bits = GOLDEN.to_vec();
    beyond_64_bits[6] = 1;
    assert!(matches!(Manifest::decode(&beyond_64_bits), Err(DecodeError::Name(_))));
    let mut unknown = GOLDEN.to_vec();
    unknown[3] = 3;
    assert!(matches!(Manifest::decode(&unknown), Err(DecodeError::Kind { found: 3, .. })));
    let nothing_before = [3, 0, 1, 0, 0, 0];
    assert!(matches!(Manifest::decode(&nothing_before), Err(DecodeError::Kind { found: 0, .. })));
}

#[test]
fn an_object_with_one_extent_takes_less_than_20_bytes() {
    let mut manifest = Manifest::default();
    let sizes = (0..1100_u64).map(|number| {
        let records = 16_000 + i64::try_from(number % 7).expect("small");
        let base = manifest.offloaded_end(P).map_or(0, Offset::get);
        let piece = (7, base, base + records, (16 << 20) + number % 11 * 9_001);
        let first = manifest.offloaded_upto().get() + 1;
        let last = first + 16_100 + number % 13;
        manifest.apply(&offloaded(first, last, &[piece]), 1000).expect("fits");
        manifest.encode().len()
    });
    let sizes: Vec<usize> = sizes.collect();
    assert!(sizes[1099] - sizes[99] < 20 * 1000, "{} bytes", sizes[1099] - sizes[99]);
}

#[test]
fn offloads_add_up() {
    let manifest = golden_manifest();
    assert_eq!(manifest.offloaded_upto(), LogIndex::new(30));
    assert_eq!(manifest.partitions().collect::<Vec<_>>().len(), 3);
    assert_eq!(ranges(&manifest, 7), [(100, 300), (300, 310)]);
    assert_eq!(
        (manifest.partition_size(P), manifest.offloaded_end(P)),
        (35, Some(Offset::new(310)))
    );
    assert_eq!(manifest.log_start(PartitionId::new(9)), Offset::new(77));
    assert_eq!(manifest.offloaded_end(PartitionId::new(9)), None);
    assert_eq!(names(manifest.retired(1004)), [range_name(11, 20)]);
    assert_eq!(names(manifest.retired(1003)), []);
    let totals = manifest.totals();
    assert_eq!((totals.live_count, totals.retired_count), (3, 1));
    assert_eq!((totals.live_size, totals.retired_size), (179 + 133 + 158, 148));
    assert!(manifest.contains(&range_name(11, 20)) && !manifest.contains(&range_name(11, 21)));
}

#[test]
fn an_offset_is_found_with_what_follows() {
    let manifest = golden_manifest();
    let found = |offset| {
        let (extent, next) = manifest.find(P, Offset::new(offset))?;
        Some((extent.base.get(), next.map(|next| next.base.get())))
    };
    assert_eq!([99, 310, i64::MAX].map(found), [None, None, None]);
    assert_eq!([100, 299].map(found), [Some((100, Some(300))); 2]);
    assert_eq!([300, 309].map(found), [Some((300, None)); 2]);
    assert_eq!(manifest.find(PartitionId::new(8), Offset::ZERO), None);
}

#[test]
fn an_offload_must_go_forward() {
    let mut manifest = after(&[offloaded(1, 10, &[(7, 0, 5, 10)])]);
    let error = refusal(&mut manifest, &offloaded(2, 10, &[(7, 5, 6, 10)]));
    let upto = LogIndex::new(10);
    assert_eq!(error, EditError::AlreadyOffloaded { upto, offloaded_upto: upto });
}

#[test]
fn an_offload_continues_where_the_last_one_ended() {
    let mut manifest = after(&[offloaded(1, 10, &[(7, 50, 60, 10)])]);
    let (base, end) = (Offset::new(59), Offset::new(60));
    let overlap = refusal(&mut manifest, &offloaded(11, 20, &[(7, 59, 70, 10)]));
    assert_eq!(overlap, EditError::Overlap { partition: P, base, end });
    let base = Offset::new(61);
    let gap = refusal(&mut manifest, &offloaded(11, 20, &[(7, 61, 70, 10)]));
    assert_eq!(gap, EditError::Gap { partition: P, base, end });
    // The second extent of one edit follows the first of the same edit.
    let gap = refusal(&mut manifest, &offloaded(11, 20, &[(7, 60, 61, 1), (7, 62, 63, 1)]));
    let (base, end) = (Offset::new(62), Offset::new(61));
    assert_eq!(gap, EditError::Gap { partition: P, base, end });
    let order = refusal(&mut manifest, &offloaded(11, 20, &[(8, 0, 1, 1), (7, 60, 63, 1)]));
    assert_eq!(order, EditError::Order { partition: P });
    manifest.apply(&offloaded(11, 20, &[(7, 60, 61, 1), (7, 61, 63, 1)]), 0).expect("fits");
}

#[test]
fn a_gap_is_allowed_if_all_in_it_was_deleted() {
    let edits = [offloaded(1, 10, &[(7, 0, 50, 10)]), log_start(7, 80)];
    let mut manifest = after(&edits);
    assert_eq!((ranges(&manifest, 7), manifest.offloaded_end(P)), (vec![], Some(Offset::new(50))));
    let (base, end) = (Offset::new(81), Offset::new(50));
    let gap = refusal(&mut manifest, &offloaded(11, 20, &[(7, 81, 90, 10)]));
    assert_eq!(gap, EditError::Gap { partition: P, base, end }, "80 would be lost");
    let overlap = refusal(&mut manifest, &offloaded(11, 20, &[(7, 49, 90, 10)]));
    assert!(matches!(overlap, EditError::Overlap { .. }), "even though the extents are gone");
    manifest.apply(&offloaded(11, 20, &[(7, 80, 90, 10)]), 0).expect("nothing is lost");
    assert_eq!(ranges(&manifest, 7), [(80, 90)]);
}

#[test]
fn extents_below_the_log_start_are_not_kept_on_arrival() {
    let mut manifest = after(&[log_start(7, 80), offloaded(1, 10, &[(7, 0, 80, 10)])]);
    assert_eq!((manifest.extent_count(), manifest.partition_size(P)), (0, 0));
    assert_eq!(manifest.offloaded_end(P), Some(Offset::new(80)));
    assert_eq!(names(manifest.retired(i64::MAX)), [range_name(1, 10)], "nobody needs it");
    let both = offloaded(11, 20, &[(7, 80, 90, 10), (8, 0, 1, 1)]);
    manifest.apply(&log_start(7, 90), 1).expect("forward");
    manifest.apply(&both, 2).expect("continues");
    assert_eq!(names(manifest.live()), [range_name(11, 20)], "partition 8 needs it");
}

#[test]
fn an_offload_without_records_has_no_object() {
    let object = range_name(1, 10);
    let none = Edit::Offloaded { upto: LogIndex::new(10), object, object_size: 0, extents: vec![] };
    let manifest = after(&[none]);
    assert_eq!(manifest.offloaded_upto(), LogIndex::new(10));
    assert_eq!(manifest.totals(), Totals::default());
}

#[test]
fn extents_that_cannot_be_are_refused() {
    let edit = |change: fn(&mut Extent)| {
        let mut edit = offloaded(1, 10, &[(7, 0, 5, 10)]);
        let Edit::Offloaded { extents, .. } = &mut edit else { unreachable!("an offload") };
        change(&mut extents[0].1);
        edit
    };
    let changes: [fn(&mut Extent); 9] = [
        |extent| extent.base = Offset::new(-1),
        |extent| extent.end = extent.base,
        |extent| extent.size = 0,
        |extent| extent.size = 11,
        |extent| extent.size = u64::MAX,
        |extent| extent.position = u64::MAX,
        |extent| extent.index_count = 0,
        |extent| extent.index_count = 1000,
        |extent| extent.index_position = u64::MAX,
    ];
    for change in changes {
        let error = refusal(&mut Manifest::default(), &edit(change));
        assert!(matches!(error, EditError::Unsound { .. }), "{error}");
    }
    let error = refusal(&mut Manifest::default(), &edit(|extent| extent.object = range_name(1, 9)));
    let (object, found) = (range_name(1, 10), range_name(1, 9));
    assert_eq!(error, EditError::OtherObject { object, found });
}

#[test]
fn an_object_is_listed_once_and_in_its_form() {
    let mut manifest = golden_manifest();
    for (object, listed) in [(range_name(1, 10), true), (range_name(11, 20), true)] {
        assert_eq!(manifest.contains(&object), listed);
        let (extents, object_size) = laid_out(object, &[(7, 310, 320, 1)]);
        let upto = LogIndex::new(99);
        let edit = Edit::Offloaded { upto, object, object_size, extents };
        assert_eq!(refusal(&mut manifest, &edit), EditError::KnownObject { object });
    }
    let (object, upto) = (merged_name(13), LogIndex::new(99));
    let (extents, object_size) = laid_out(object, &[(7, 310, 320, 1)]);
    let offload = Edit::Offloaded { upto, object, object_size, extents };
    assert_eq!(refusal(&mut manifest, &offload), EditError::ObjectForm { object });
    let object = range_name(500, 501);
    let (extents, object_size) = laid_out(object, &[(7, 300, 310, 1)]);
    let merge = Edit::Merged { object, object_size, extents };
    assert_eq!(refusal(&mut manifest, &merge), EditError::ObjectForm { object });
}

/// Six offloads with ten offsets of partition 7 and one of partition 8 each.
fn six_offloads() -> Vec<Edit> {
    let offload = |at: i64| {
        let first = u64::try_from(at).expect("small") * 10 + 1;
        offloaded(first, first + 9, &[(7, at * 10, at * 10 + 10, 10), (8, at, at + 1, 1)])
    };
    (0..6).map(offload).collect()
}

#[test]
fn a_merge_replaces_what_it_covers() {
    let mut manifest = after(&six_offloads());
    manifest.apply(&merged(1, &[(7, 10, 40, 25), (8, 0, 3, 3)]), 3000).expect("fits");
    assert_eq!(ranges(&manifest, 7), [(0, 10), (10, 40), (40, 50), (50, 60)]);
    assert_eq!(ranges(&manifest, 8), [(0, 3), (3, 4), (4, 5), (5, 6)]);
    assert_eq!((manifest.partition_size(P), manifest.extent_count()), (55, 8));
    let retired = [range_name(11, 20), range_name(21, 30)];
    assert_eq!(names(manifest.retired(i64::MAX)), retired, "others still have extents");
    let object = merged_name(1);
    let again = refusal(&mut manifest, &merged(1, &[(7, 10, 40, 25)]));
    assert_eq!(again, EditError::KnownObject { object });
    manifest.apply(&merged(2, &[(7, 10, 60, 40), (8, 0, 6, 6)]), 3001).expect("merged again");
    assert_eq!(ranges(&manifest, 7), [(0, 10), (10, 60)]);
    assert_eq!(names(manifest.live()), [range_name(1, 10), merged_name(2)]);
}

#[test]
fn a_merge_of_other_extents_than_there_are_is_passed_over() {
    for piece in [(5, 30), (10, 35), (0, 70), (60, 70), (12, 18)] {
        let mut manifest = after(&six_offloads());
        let (base, end) = piece;
        let edit = merged(1, &[(6, 0, 10, 3), (7, base, end, 30), (8, 1, 3, 2)]);
        manifest.apply(&edit, 3000).expect("partition 8 fits");
        assert_eq!(ranges(&manifest, 7).len(), 6, "{piece:?}");
        assert_eq!(ranges(&manifest, 8), [(0, 1), (1, 3), (3, 4), (4, 5), (5, 6)]);
    }
    let mut manifest = after(&six_offloads());
    manifest.apply(&merged(1, &[(6, 0, 10, 3)]), 3000).expect("nothing fits");
    assert_eq!(names(manifest.retired(3001)), [merged_name(1)], "so that it is deleted");
    let backwards = merged(2, &[(8, 0, 1, 1), (7, 0, 10, 10)]);
    assert_eq!(refusal(&mut manifest, &backwards), EditError::Order { partition: P });
    let twice = merged(2, &[(7, 0, 10, 10), (7, 10, 20, 10)]);
    assert_eq!(refusal(&mut manifest, &twice), EditError::Order { partition: P });
}

#[test]
fn a_merge_that_retention_has_overtaken_fits_what_is_left() {
    let mut edits = six_offloads();
    edits.extend([log_start(7, 25), log_start(8, 6)]);
    let mut manifest = after(&edits);
    manifest.apply(&merged(1, &[(7, 0, 40, 30), (8, 0, 6, 6)]), 3000).expect("fits partition 7");
    assert_eq!(ranges(&manifest, 7), [(0, 40), (40, 50), (50, 60)]);
    assert_eq!(ranges(&manifest, 8), []);
    assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
    manifest.apply(&log_start(7, 40), 3001).expect("forward");
    assert_eq!(ranges(&manifest, 7), [(40, 50), (50, 60)], "the merged extent goes as one");
}

#[test]
fn the_log_start_never_goes_back() {
    let mut manifest = after(&[offloaded(1, 10, &[(7, 0, 10, 10)]), log_start(7, 9)]);
    assert_eq!(ranges(&manifest, 7), [(0, 10)], "offset 9 is in it");
    for offset in [9, 8, -1, i64::MIN] {
        let before = manifest.clone();
        manifest.apply(&log_start(7, offset), 5000).expect("passed over");
        assert_eq!(manifest, before, "{offset}");
    }
    manifest.apply(&log_start(7, 10), 5000).expect("forward");
    assert_eq!(ranges(&manifest, 7), []);
    assert_eq!(names(manifest.retired(5001)), [range_name(1, 10)]);
    manifest.apply(&log_start(6, 0), 5000).expect("no change");
    assert_eq!(manifest.partitions().collect::<Vec<_>>(), [P]);
}

#[test]
fn a_dropped_partition_is_forgotten() {
    let mut manifest = golden_manifest();
    manifest.apply(&dropped(&[7, 7, 55]), 5000).expect("drops");
    assert_eq!((ranges(&manifest, 7), manifest.offloaded_end(P)), (vec![], None));
    assert_eq!(names(manifest.live()), [range_name(1, 10)], "partition 1 needs it");
    let late = offloaded(31, 40, &[(7, 310, 320, 1)]);
    manifest.apply(&late, 5001).expect("was under way");
    assert!(manifest.partitions().any(|partition| partition == P), "so it can be dropped again");
}

#[test]
fn only_retired_objects_can_be_removed() {
    let mut manifest = golden_manifest();
    let (live, retired) = (range_name(1, 10), range_name(11, 20));
    let error = refusal(&mut manifest, &Edit::Removed { objects: vec![retired, live] });
    assert_eq!(error, EditError::StillReferred { object: live });
    let objects = vec![retired, range_name(500, 501), retired];
    manifest.apply(&Edit::Removed { objects }, 0).expect("retired and unknown ones");
    assert!(!manifest.contains(&retired));
    assert_eq!(manifest.totals().retired_size, 0);
}

#[test]
fn sizes_beyond_64_bits_are_refused() {
    let huge = |first, last, base, size| {
        let mut edit = offloaded(first, last, &[(7, base, base + 1, 1)]);
        let Edit::Offloaded { object_size, extents, .. } = &mut edit else {
            unreachable!("an offload")
        };
        (*object_size, extents[0].1.size) = (size, 1 << 62);
        extents[0].1.index_position = 1 << 62;
        edit
    };
    let mut manifest = after(&[huge(1, 10, 0, u64::MAX - 5), log_start(7, 1)]);
    let sum = refusal(&mut manifest, &huge(11, 20, 1, u64::MAX - 5));
    assert_eq!(sum, EditError::Sizes, "retired objects count too");
    assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
}
