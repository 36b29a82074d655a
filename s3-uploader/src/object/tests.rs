use bytes::{Bytes, BytesMut};
use model::{LogIndex, RaftGroupId, Term};
use proptest::prelude::*;

use super::*;

const GOLDEN: &[u8] = include_bytes!("../../testdata/object.v1.bin");
const MERGED_GOLDEN: &[u8] = include_bytes!("../../testdata/object-merged.v1.bin");

/// Where things are in the golden file: see `docs/formats/object.md`.
const DATA_SIZE: usize = 26;
const INDEXES_END: usize = DATA_SIZE + 3 * 28;
const DIRECTORY_SIZE: usize = 37 + 3 * 64;
const TRAILER: usize = INDEXES_END + DIRECTORY_SIZE;

fn range_name() -> ObjectName {
    let (first, last) = (LogIndex::new(4711), LogIndex::new(4999));
    ObjectName::range(RaftGroupId::new(3), Term::new(12), first, last).expect("a range")
}

fn merged_name() -> ObjectName {
    ObjectName::merged(RaftGroupId::new(3), Term::new(12), 7)
}

fn batch(base: i64, end: i64, max_timestamp: i64) -> BatchMeta {
    BatchMeta { base_offset: Offset::new(base), end_offset: Offset::new(end), max_timestamp }
}

/// Three partitions; in the second one offsets are missing, the last has no timestamps.
fn golden_builder() -> ObjectBuilder {
    let mut builder = ObjectBuilder::new(range_name());
    builder.section(PartitionId::new(1));
    builder.push(batch(0, 3, 1_700_000_000_000), Bytes::from_static(b"first "));
    builder.push(batch(3, 4, 1_600_000_000_000), Bytes::from_static(b"second "));
    builder.section(PartitionId::new(4));
    builder.section(PartitionId::new(7));
    builder.push(batch(100, 150, 1_700_000_000_100), Bytes::from_static(b"third "));
    builder.push(batch(200, 250, 1_700_000_000_200), Bytes::from_static(b"four"));
    builder.section(PartitionId::new(9));
    builder.push(batch(5, 6, -1), Bytes::from_static(b"six"));
    builder.section(PartitionId::new(11));
    builder
}

fn merged_builder() -> ObjectBuilder {
    let mut builder = ObjectBuilder::new(merged_name());
    builder.section(PartitionId::new(7));
    builder.push(batch(100, 150, 1_700_000_000_100), Bytes::from_static(b"third "));
    builder.push(batch(200, 250, 1_700_000_000_200), Bytes::from_static(b"four"));
    builder
}

fn slice(object: &[u8], range: Range<u64>) -> &[u8] {
    let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).expect("small"));
    &object[start..end]
}

/// Writes the checksums of directory and trailer anew, as one would who means harm.
fn reseal(object: &mut [u8], directory: usize, trailer: usize) {
    let crc = crc32c::crc32c(&object[directory..trailer]);
    object[trailer + 8..trailer + 12].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&object[trailer + 4..]);
    object[trailer..trailer + 4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn reads_and_writes_the_bytes_of_version_1() {
    for (builder, golden) in [(golden_builder(), GOLDEN), (merged_builder(), MERGED_GOLDEN)] {
        let built = builder.finish();
        assert_eq!(built.parts.concat(), golden);
        assert_eq!(u64::try_from(golden.len()), Ok(built.size));
        let directory = Directory::decode(golden).expect("its own bytes");
        assert_eq!((directory.name, directory.size), (built.name, built.size));
        let sections = directory.sections.iter();
        let extents: Vec<_> =
            sections.map(|found| (found.partition, found.extent.clone())).collect();
        assert_eq!(extents, built.extents);
        for section in &directory.sections {
            let extent = &section.extent;
            assert_eq!(section.check_data(slice(golden, extent.data_range())), Ok(()));
            let points = decode_index(slice(golden, extent.index_range()), extent);
            let point = IndexPoint {
                base_offset: extent.base,
                position: extent.position,
                max_timestamp: extent.max_timestamp,
            };
            assert_eq!(points, Ok(vec![point]));
        }
    }
}

#[test]
fn extents_tell_offsets_and_places() {
    let built = golden_builder().finish();
    assert_eq!(built.extents.len(), 3, "sections without batches leave nothing");
    let extent = Extent {
        object: range_name(),
        base: Offset::new(100),
        end: Offset::new(250),
        position: 13,
        size: 10,
        index_position: 26 + 28,
        index_count: 1,
        max_timestamp: 1_700_000_000_200,
    };
    assert_eq!(built.extents[1], (PartitionId::new(7), extent.clone()));
    assert_eq!((extent.data_range(), extent.index_range()), (13..23, 54..82));
    assert!(extent.holds(Offset::new(170)) && !extent.holds(Offset::new(250)));
    assert_eq!(built.extents[0].1.max_timestamp, 1_700_000_000_000, "not that of the last batch");
}

#[test]
fn every_bit_flip_is_refused() {
    let directory = Directory::decode(GOLDEN).expect("golden");
    for bit in 0..GOLDEN.len() * 8 {
        let mut bytes = GOLDEN.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if bit / 8 >= INDEXES_END {
            assert!(Directory::decode(&bytes).is_err(), "bit {bit}");
            continue;
        }
        let refused = directory.sections.iter().filter(|section| {
            let extent = &section.extent;
            section.check_data(slice(&bytes, extent.data_range())).is_err()
                || decode_index(slice(&bytes, extent.index_range()), extent).is_err()
        });
        assert_eq!(refused.count(), 1, "bit {bit}");
    }
}

#[test]
fn every_prefix_is_refused_and_a_short_tail_tells_what_is_needed() {
    for len in 0..GOLDEN.len() {
        assert!(Directory::decode(&GOLDEN[..len]).is_err(), "prefix {len}");
    }
    let whole = Directory::decode(GOLDEN);
    for start in 0..GOLDEN.len() {
        let found = Directory::decode(&GOLDEN[start..]);
        let len = GOLDEN.len() - start;
        if start <= INDEXES_END {
            assert_eq!(found, whole, "tail from {start}");
        } else {
            let wanted = if len < TRAILER_SIZE { TRAILER_SIZE } else { GOLDEN.len() - INDEXES_END };
            let wanted = u64::try_from(wanted).expect("small");
            assert_eq!(found, Err(ObjectError::ShortTail { wanted, len }));
        }
    }
    let extent = &golden_builder().finish().extents[0].1;
    let index = slice(GOLDEN, extent.index_range());
    for len in 0..index.len() {
        assert!(decode_index(&index[..len], extent).is_err(), "index prefix {len}");
    }
}

#[test]
fn a_count_beyond_the_bytes_is_refused_even_with_good_checksums() {
    for count in [4_u32, u32::MAX] {
        let mut bytes = GOLDEN.to_vec();
        bytes[INDEXES_END + 33..INDEXES_END + 37].copy_from_slice(&count.to_le_bytes());
        reseal(&mut bytes, INDEXES_END, TRAILER);
        let error = Directory::decode(&bytes).expect_err("too many sections");
        let left = 3 * 64;
        assert_eq!(error, ObjectError::Directory(DecodeError::Count { count: count.into(), left }));
    }
    let mut extent = golden_builder().finish().extents[0].1.clone();
    let index = slice(GOLDEN, extent.index_range());
    extent.index_count = u32::MAX;
    assert!(matches!(decode_index(index, &extent), Err(ObjectError::IndexSize { .. })));
    extent.index_count = 0;
    let crc = crc32c::crc32c(b"").to_le_bytes();
    assert!(matches!(decode_index(&crc, &extent), Err(ObjectError::IndexPoint { .. })));
}

/// Each field of a section, the name and the trailer changed with the checksums made good again:
/// what contradicts the rest is refused.
#[test]
fn a_directory_that_contradicts_itself_is_refused() {
    let section = INDEXES_END + 37 + 64;
    // Partition, base, end, position, size, index position, index count; magic, object size, zero.
    let fields = [0, 12, 20, 28, 36, 44, 52].map(|field| section + field);
    let fields = fields.into_iter().chain([4, 16, 24].map(|field| TRAILER + field));
    for field in fields {
        let mut bytes = GOLDEN.to_vec();
        bytes[field + 3] ^= 0x80;
        reseal(&mut bytes, INDEXES_END, TRAILER);
        let found = Directory::decode(&bytes);
        // Nothing else in the directory tells where a section's offsets end.
        let may_pass = field == section + 20;
        assert_eq!(found.is_ok(), may_pass, "byte {field}: {found:?}");
    }
    // The form of the name, and what is to be zero in that of a merged object.
    let trailer = MERGED_GOLDEN.len() - TRAILER_SIZE;
    let directory = trailer - 37 - 64;
    for (field, value) in [(0, 3), (25, 1)] {
        let mut bytes = MERGED_GOLDEN.to_vec();
        bytes[directory + field] = value;
        reseal(&mut bytes, directory, trailer);
        assert!(Directory::decode(&bytes).is_err(), "name's byte {field}");
    }
}

#[test]
fn the_index_of_another_section_is_refused() {
    let extents = golden_builder().finish().extents;
    let index = slice(GOLDEN, extents[0].1.index_range());
    let error = decode_index(index, &extents[1].1).expect_err("of partition 1, not 7");
    let (base, end) = (Offset::new(100), Offset::new(250));
    assert_eq!(error, ObjectError::IndexPoint { number: 0, base, end });
}

#[test]
fn points_out_of_order_or_outside_are_refused_even_with_a_good_checksum() {
    let mut extent = golden_builder().finish().extents[1].1.clone();
    extent.index_count = 2;
    let second = |base_offset, position, max_timestamp| {
        let first = IndexPoint { base_offset: extent.base, position: 13, max_timestamp: 0 };
        let base_offset = Offset::new(base_offset);
        let mut out = BytesMut::new();
        index::encode(&mut out, &[first, IndexPoint { base_offset, position, max_timestamp }]);
        decode_index(&out, &extent)
    };
    assert_eq!(second(200, 19, extent.max_timestamp).map(|points| points.len()), Ok(2));
    for (base_offset, position, max_timestamp) in [
        (100, 19, 0),
        (250, 19, 0),
        (-1, 19, 0),
        (200, 13, 0),
        (200, 12, 0),
        (200, 23, 0),
        (200, 19, extent.max_timestamp + 1),
    ] {
        let error = second(base_offset, position, max_timestamp).expect_err("not of this extent");
        let (base, end) = (extent.base, extent.end);
        assert_eq!(error, ObjectError::IndexPoint { number: 1, base, end });
    }
}

#[test]
fn data_of_another_length_is_refused() {
    let directory = Directory::decode(GOLDEN).expect("golden");
    let error = directory.sections[0].check_data(b"first").expect_err("short");
    let partition = PartitionId::new(1);
    assert_eq!(error, ObjectError::DataSize { partition, wanted: 13, len: 5 });
}

#[test]
fn an_object_without_batches_has_a_directory() {
    let built = ObjectBuilder::new(range_name()).finish();
    let directory = Directory::decode(&built.parts.concat()).expect("its own bytes");
    assert_eq!((built.extents.len(), directory.sections.len()), (0, 0));
}

#[test]
#[should_panic(expected = "sections ascend by partition")]
fn partitions_must_ascend() {
    let mut builder = golden_builder();
    builder.section(PartitionId::new(11));
}

#[test]
#[should_panic(expected = "batches ascend by offset")]
fn offsets_must_ascend() {
    let mut builder = merged_builder();
    builder.push(batch(249, 260, 0), Bytes::from_static(b"overlap"));
}

#[test]
#[should_panic(expected = "a section was started")]
fn a_batch_needs_a_section() {
    let mut builder = ObjectBuilder::new(range_name());
    builder.push(batch(0, 1, 0), Bytes::from_static(b"nowhere"));
}

/// Sizes around the interval, and a step to the next base offset, and a timestamp.
fn any_batches() -> impl Strategy<Value = Vec<(usize, i64, i64)>> {
    let size = prop_oneof![1_usize..200, 60_000_usize..70_000, Just(65_535), Just(65_536)];
    prop::collection::vec((size, 0_i64..5, -1_i64..50), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_index_leads_to_every_batch(sections in prop::collection::vec(any_batches(), 1..4)) {
        let mut builder = ObjectBuilder::new(range_name());
        let mut pushed = Vec::new();
        for (partition, batches) in (0..).zip(&sections) {
            builder.section(PartitionId::new(partition));
            let mut base = 0;
            for &(size, step, timestamp) in batches {
                let meta = batch(base + step, base + step + 2, timestamp);
                pushed.push((partition, meta, builder.data_size()));
                builder.push(meta, Bytes::from(vec![size.to_le_bytes()[0]; size]));
                base += step + 2;
            }
        }
        let data_size = builder.data_size();
        let built = builder.finish();
        prop_assert_eq!(built.parts.len(), pushed.len() + 1);
        let bytes = built.parts.concat();
        let directory = Directory::decode(&bytes).expect("its own bytes");
        for section in &directory.sections {
            let extent = &section.extent;
            prop_assert!(extent.data_range().end <= data_size);
            section.check_data(slice(&bytes, extent.data_range())).expect("its own data");
            let points = decode_index(slice(&bytes, extent.index_range()), extent).expect("index");
            for (at, point) in points.iter().enumerate() {
                let next = points.get(at + 1).map(|next| next.position);
                let end = next.unwrap_or(extent.position + extent.size);
                prop_assert!(end - point.position >= INDEX_INTERVAL || at + 1 == points.len());
                let inside = pushed.iter().filter(|(_, _, position)| {
                    point.position <= *position && *position < end
                });
                let inside: Vec<_> = inside.collect();
                prop_assert_eq!(inside[0].1.base_offset, point.base_offset);
                prop_assert_eq!(inside[0].2, point.position);
                let max = inside.iter().map(|(_, meta, _)| meta.max_timestamp).max();
                prop_assert_eq!(max, Some(point.max_timestamp));
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        index_count in 0_u32..12,
        position in any::<u64>(),
    ) {
        let mut extent = golden_builder().finish().extents[0].1.clone();
        (extent.position, extent.index_count) = (position, index_count);
        let _ = (decode_index(&bytes, &extent), Directory::decode(&bytes));
        // Past the checksums, with all that they protect at random.
        if let Some(end) = bytes.len().checked_sub(4) {
            let crc = crc32c::crc32c(&bytes[..end]).to_le_bytes();
            bytes[end..].copy_from_slice(&crc);
            let _ = decode_index(&bytes, &extent);
        }
        if let Some(trailer) = bytes.len().checked_sub(TRAILER_SIZE) {
            bytes[trailer + 4..trailer + 8].copy_from_slice(b"OBJ1");
            bytes[trailer + 24..].fill(0);
            let size = u32::try_from(trailer).expect("small").to_le_bytes();
            bytes[trailer + 12..trailer + 16].copy_from_slice(&size);
            reseal(&mut bytes, 0, trailer);
            let _ = Directory::decode(&bytes);
        }
    }

    /// A golden directory with some bytes replaced and good checksums: never a panic, and what
    /// passes is laid out within the object.
    #[test]
    fn hostile_directories_never_panic(
        changes in prop::collection::vec((0..DIRECTORY_SIZE, any::<u8>()), 1..6),
    ) {
        let mut bytes = GOLDEN.to_vec();
        for (at, byte) in changes {
            bytes[INDEXES_END + at] = byte;
        }
        reseal(&mut bytes, INDEXES_END, TRAILER);
        if let Ok(directory) = Directory::decode(&bytes) {
            for section in &directory.sections {
                let _ = section.check_data(slice(&bytes, section.extent.data_range()));
                let index = slice(&bytes, section.extent.index_range());
                let _ = decode_index(index, &section.extent);
            }
        }
    }
}
