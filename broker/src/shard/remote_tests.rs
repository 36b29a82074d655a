use kafka_wire::records::RecordBatchBuilder;
use model::{LeaderEpoch, LogIndex, RaftGroupId, Term};
use s3_uploader::ObjectName;

use super::*;

/// Batches of ten records each, from offset 100 on, and the extent that has them.
fn interval(count: i64) -> (Vec<u8>, usize, Extent) {
    let mut bytes = Vec::new();
    for number in 0..count {
        let mut batch = RecordBatchBuilder::new().base_offset(100 + number * 10);
        (0..10).for_each(|at| {
            batch.append(1000 + number * 10 + at, None, Some(b"value"), &[]);
        });
        bytes.extend_from_slice(&batch.build());
    }
    let size = bytes.len() / usize::try_from(count).expect("small");
    let index = LogIndex::new(1);
    let object = ObjectName::range(RaftGroupId::new(1), Term::new(1), index, index);
    let extent = Extent {
        object: object.expect("a range"),
        base: Offset::new(100),
        end: Offset::new(100 + count * 10),
        position: 0,
        size: bytes.len() as u64,
        index_position: bytes.len() as u64,
        index_count: 1,
        max_timestamp: 1000 + count * 10,
    };
    (bytes, size, extent)
}

/// That of all batches above.
fn epoch(_: Offset) -> Option<LeaderEpoch> {
    let batch = RecordBatchBuilder::new().build();
    BatchHeader::read(&batch).map(|header| LeaderEpoch::new(header.partition_leader_epoch()))
}

/// A check that is at its end.
fn check(bytes: &Bytes, extent: &Extent, from: i64, max_bytes: u32) -> Check {
    let mut check = Check::new(bytes.clone().into(), extent, Offset::new(from), max_bytes);
    while !check.go_on(&epoch) {}
    check
}

fn bases(found: &Check) -> Vec<i64> {
    let base = |batch: &Bytes| BatchHeader::read(batch).expect("a header").base_offset();
    found.batches().iter().map(base).collect()
}

#[test]
fn a_reader_gets_whole_batches_from_where_it_is() {
    let (bytes, size, extent) = interval(4);
    let bytes = Bytes::from(bytes);
    let two = u32::try_from(2 * size).expect("small");
    for (from, max_bytes, expected) in [
        (100, u32::MAX, &[100, 110, 120, 130][..]),
        (119, u32::MAX, &[110, 120, 130]),
        (110, two, &[110, 120]),
        (110, two - 1, &[110]),
        (135, 1, &[130]),
    ] {
        let found = check(&bytes, &extent, from, max_bytes);
        assert_eq!((bases(&found).as_slice(), found.is_damaged()), (expected, false), "{from}");
    }
}

#[test]
fn batches_may_lie_in_more_than_one_buffer() {
    let (bytes, _, extent) = interval(4);
    let bytes = Bytes::from(bytes);
    for at in 0..=bytes.len() {
        let pieces = vec![bytes.slice(..at), bytes.slice(at..)];
        let mut check = Check::new(pieces.into(), &extent, Offset::new(100), u32::MAX);
        while !check.go_on(&epoch) {}
        assert_eq!(check.batches().concat(), bytes, "{at}");
        assert_eq!((bases(&check).len(), check.is_damaged()), (4, false), "{at}");
    }
}

#[test]
fn a_flipped_bit_is_never_served_and_what_is_before_it_is() {
    let (good, size, extent) = interval(3);
    for at in size..2 * size {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let bytes = Bytes::from(bytes);
            let first = check(&bytes, &extent, 110, u32::MAX);
            assert!(first.is_damaged() && first.batches().is_empty(), "byte {at} bit {bit}");
            let found = check(&bytes, &extent, 100, u32::MAX);
            assert!(found.is_damaged(), "byte {at} bit {bit}");
            assert!(found.batches().iter().all(|batch| *batch == good[..size]), "{at} {bit}");
            assert!(found.batches().len() < 2, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_search_does_not_pass_over_a_damaged_batch() {
    let (mut bytes, size, extent) = interval(3);
    let search = |at| Search {
        sought: Sought::AtOrAfter(at),
        log_start: Offset::ZERO,
        epoch: LeaderEpoch::new(0),
    };
    let good = Bytes::from(bytes.clone());
    bytes[size + 70] ^= 1;
    let bad = Bytes::from(bytes);
    let offset = |found: Option<TimestampedOffset>| found.map(|found| found.offset.get());
    for (at, in_good, in_bad) in [
        (1005, Some(Some(105)), Some(Some(105))),
        (1012, Some(Some(112)), None),
        (1025, Some(Some(125)), None),
        (9999, Some(None), None),
    ] {
        for (bytes, expected) in [(&good, in_good), (&bad, in_bad), (&Bytes::new(), None)] {
            let check = check(bytes, &extent, 100, u32::MAX);
            assert_eq!(search_in(&check, &search(at)).map(offset), expected, "{at}");
        }
    }
}
