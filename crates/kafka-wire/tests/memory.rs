//! What hostile bytes cost, counted by the allocator. One test, so that nothing else allocates.
//! (zstd allocates in C, out of sight; its window is bounded in `compression.rs`.)

mod support;

use std::alloc::System;
use std::io::{Read, Write};

use bytes::{BufMut, BytesMut};
use kafka_wire::api::APIS;
use kafka_wire::validate::{BatchError, ValidationRules, validate};
use kafka_wire::{ApiKey, FrameLimits, FrameReader, decode};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated in all, freed ones included, and the result.
fn cost<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let region = Region::new(ALLOCATOR);
    let result = run();
    (region.change().bytes_allocated, result)
}

#[test]
fn hostile_bytes_cost_little() {
    short_frames_with_huge_counts();
    huge_counts_at_every_place();
    floods_stay_within_the_budget();
    small_frames_are_copied_once();
    unpacking_takes_constant_memory();
}

fn header(api_key: ApiKey, version: i16) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i16(api_key.code());
    frame.put_i16(version);
    frame.put_i32(1);
    frame.put_i16(-1);
    if api_key.is_flexible(version) {
        frame.put_u8(0);
    }
    frame
}

fn huge_count(api_key: ApiKey, version: i16) -> &'static [u8] {
    let flexible = api_key.is_flexible(version);
    // 2^31 - 1 elements, compact or not.
    if flexible { &[0x80, 0x80, 0x80, 0x80, 0x08] } else { &[0x7f, 0xff, 0xff, 0xff] }
}

fn short_frames_with_huge_counts() {
    for api in APIS {
        for version in api.min..=api.max {
            let mut frame = header(api.key, version);
            frame.put_slice(huge_count(api.key, version));
            frame.resize(frame.len().max(15), 1);
            let (bytes, _) = cost(|| decode(frame).is_ok());
            assert!(bytes < 2_000, "{} v{version}: {bytes} bytes", api.key);
        }
    }
}

fn huge_counts_at_every_place() {
    for golden in support::requests() {
        for at in 8..golden.frame.len() {
            let mut frame = BytesMut::from(&golden.frame[..at]);
            frame.put_slice(huge_count(golden.api_key, golden.version));
            frame.put_slice(&[1; 40]);
            let limit = 4_000 + 32 * frame.len();
            let (bytes, _) = cost(|| decode(frame).is_ok());
            assert!(bytes < limit, "{} at {at}: {bytes} bytes", golden.name());
        }
    }
}

/// 1 MiB of the smallest elements that each array can have, with and without unknown tags.
fn floods_stay_within_the_budget() {
    let size = 1 << 20;
    let flood = |api_key, version, before: &[u8], element: &[u8]| {
        let mut frame = header(api_key, version);
        frame.put_slice(before);
        let count = u32::try_from((size - frame.len() - 5) / element.len()).expect("below 2^31");
        // A varint of four bytes, `count + 1`.
        let raw = count + 1;
        for shift in [0, 7, 14] {
            frame.put_u8(u8::try_from(raw >> shift & 0x7f).expect("seven bits") | 0x80);
        }
        frame.put_u8(u8::try_from(raw >> 21).expect("seven bits"));
        (0..count).for_each(|_| frame.put_slice(element));
        frame.put_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let length = frame.len();
        let (bytes, decoded) = cost(|| decode(frame).is_ok());
        let limit = (66 << 10) + 32 * length;
        assert!(bytes <= limit, "{api_key} v{version} {element:?}: {bytes} of {limit} bytes");
        decoded
    };
    let refused = false;
    assert_eq!(flood(ApiKey::Metadata, 9, &[], &[1, 0]), refused);
    assert_eq!(flood(ApiKey::Metadata, 9, &[], &[2, b'a', 1, 9, 0]), refused);
    assert!(flood(ApiKey::Metadata, 9, &[], &[6, b't', b'o', b'p', b'i', b'c', 0]));
    assert_eq!(flood(ApiKey::Fetch, 12, &[0; 25], &[1, 1, 0]), !refused);
    assert_eq!(flood(ApiKey::Fetch, 12, &[0; 25], &[1, 1, 1, 9, 0]), refused);
    assert_eq!(flood(ApiKey::FindCoordinator, 4, &[0], &[1]), !refused);
    assert_eq!(flood(ApiKey::DeleteTopics, 4, &[], &[1]), !refused);
    flood(ApiKey::CreateTopics, 5, &[], &[1, 0, 0, 0, 1, 0, 1, 1, 1, 0]);
    flood(ApiKey::OffsetFetch, 6, &[2, b'g'], &[1, 1, 0]);
    flood(ApiKey::JoinGroup, 6, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1], &[1, 1, 0]);
    flood(ApiKey::ElectLeaders, 2, &[0], &[1, 1, 0]);
    flood(ApiKey::AlterConfigs, 2, &[], &[2, 1, 1, 0]);
    flood(ApiKey::AlterConfigs, 2, &[2, 2, 2, b't'], &[1, 0, 0]);
    flood(ApiKey::IncrementalAlterConfigs, 1, &[], &[2, 1, 1, 0]);
    flood(ApiKey::IncrementalAlterConfigs, 1, &[2, 2, 2, b't'], &[1, 0, 0, 0]);
    flood(ApiKey::DescribeLogDirs, 2, &[], &[1, 1, 0]);
    assert_eq!(
        flood(ApiKey::AlterPartitionReassignments, 1, &[0, 0, 0, 1, 1], &[1, 1, 0]),
        !refused
    );
    flood(ApiKey::AlterPartitionReassignments, 0, &[0, 0, 0, 1, 2, 1], &[0, 0, 0, 0, 1, 0]);
    flood(ApiKey::ListPartitionReassignments, 0, &[0, 0, 0, 1], &[1, 1, 0]);
    flood(ApiKey::AddRaftVoter, 0, &[[1].as_slice(), &[0; 24]].concat(), &[1, 1, 0, 1, 0]);
    flood(ApiKey::Produce, 9, &[0, 0, 1, 0, 0, 0, 0], &[1, 1, 0]);
    flood(
        ApiKey::OffsetCommit,
        10,
        &[1, 0, 0, 0, 0, 1, 0],
        &[[0; 16].as_slice(), &[1, 0]].concat(),
    );
}

fn small_frames_are_copied_once() {
    let mut reader = FrameReader::new(FrameLimits::default());
    let mut stream = BytesMut::new();
    stream.put_i32(1000);
    stream.put_i16(0);
    stream.resize(1004, 7);
    // The first one also allocates the queue.
    for first in [true, false] {
        let region = Region::new(ALLOCATOR);
        reader.push(&stream);
        let frame = reader.next_frame();
        let change = region.change();
        assert_eq!(frame.map(|frame| frame.map(|frame| frame.len())), Ok(Some(1000)));
        assert!(first || change.allocations == 1, "{change:?}");
        assert!(first || change.bytes_allocated <= 1000, "{change:?}");
    }
}

fn unpacking_takes_constant_memory() {
    // One record that claims a value of 900 MB, then a gigabyte of zeros.
    let head = [0xfe, 0xd2, 0xa5, 0xda, 0x06, 0, 0, 0, 1, 0x80, 0xd2, 0xa5, 0xda, 0x06];
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("a level");
    encoder.write_all(&head).expect("into memory");
    std::io::copy(&mut std::io::repeat(0).take(1 << 30), &mut encoder).expect("into memory");
    let zstd = encoder.finish().expect("into memory");
    assert!(zstd.len() < 150_000, "{}", zstd.len());

    let snappy = [&[0xf0, 0xff, 0xff, 0xff, 0x0f][..], &[0; 82]].concat();
    assert_eq!(snappy.len(), 87);
    for (codec, payload) in [(4u8, &zstd), (2, &snappy)] {
        let (bytes, result) = cost_of_batch(codec, payload);
        assert!(matches!(result, Err(BatchError::Compression(_))), "codec {codec}: {result:?}");
        assert!(bytes < 300_000, "codec {codec}: {bytes} bytes");
    }
}

fn cost_of_batch(codec: u8, payload: &[u8]) -> (usize, Result<(), BatchError>) {
    let mut batch = support::batches().swap_remove(0).1;
    batch.truncate(61);
    batch.put_slice(payload);
    let length = i32::try_from(batch.len() - 12).expect("short");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = codec;
    batch[23..27].copy_from_slice(&0i32.to_be_bytes());
    batch[57..61].copy_from_slice(&1i32.to_be_bytes());
    let crc = kafka_wire::batch::compute_crc(&batch);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    let rules = ValidationRules { now_ms: 1_700_000_000_000, ..ValidationRules::default() };
    cost(|| validate(&mut batch, &rules).map(|_| ()))
}
