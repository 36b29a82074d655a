//! Frames that no client sends: cut, damaged, of unknown APIs. Nothing may panic.

mod support;

use bytes::BytesMut;
use kafka_wire::batch::{Batches, patch};
use kafka_wire::records::Records;
use kafka_wire::validate::{ValidationRules, validate};
use kafka_wire::{ApiKey, Compression, DecodeError, Request, decode};

#[test]
fn every_cut_of_every_request_is_refused() {
    for golden in support::requests() {
        for cut in 0..golden.frame.len() {
            let frame = BytesMut::from(&golden.frame[..cut]);
            assert!(decode(frame).is_err(), "{} cut at {cut}", golden.name());
        }
    }
}

#[test]
fn no_damaged_byte_panics() {
    for golden in support::requests() {
        for at in 0..golden.frame.len() {
            for damage in [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff] {
                let mut frame = golden.bytes();
                frame[at] = damage;
                let _ = decode(frame);
                let mut frame = golden.bytes();
                frame[at] ^= damage;
                let _ = decode(frame);
            }
        }
    }
}

#[test]
fn unknown_apis_and_versions_are_told_apart() {
    let frame = |api_key: i16, version: i16| {
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&api_key.to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 7, 0xff, 0xff]);
        frame
    };
    for api_key in [-1, 4, 17, 24, 999, i16::MAX] {
        let error = decode(frame(api_key, 0)).expect_err("not served");
        assert!(matches!(error, DecodeError::UnsupportedApi { api_key: key } if key == api_key));
    }
    for (api_key, version) in
        [(0, 2), (0, 0), (0, 14), (1, 3), (1, 19), (3, 14), (3, -1), (18, -1), (22, 6)]
    {
        let error = decode(frame(api_key, version)).expect_err("not served");
        let unsupported =
            matches!(error, DecodeError::UnsupportedVersion { version: v, .. } if v == version);
        assert!(unsupported, "{error}");
    }
}

#[test]
fn api_versions_above_ours_is_known_by_its_first_8_bytes() {
    for rest in [&b""[..], b"\xff\xff", b"\x7f\xff garbage"] {
        let frame = BytesMut::from(&[&[0, 18, 0, 6, 0, 0, 0, 42][..], rest].concat()[..]);
        let (header, request) = decode(frame).expect("answered");
        assert!(matches!(request, Request::ApiVersionsUnsupported));
        assert_eq!((header.api_key, header.correlation_id), (ApiKey::ApiVersions, 42));
    }
}

#[test]
fn produce_records_are_a_part_of_the_frame() {
    for golden in support::requests() {
        if golden.api_key != ApiKey::Produce {
            continue;
        }
        let frame = golden.bytes();
        let range = frame.as_ptr_range();
        let (_, Request::Produce(mut produce)) = decode(frame).expect("golden") else {
            panic!("{}", golden.name())
        };
        let records = produce.topics[0].partitions[0].records.as_mut().expect("present");
        assert!(range.contains(&records.as_ptr()), "{}", golden.name());
        let rules = ValidationRules { now_ms: 1_700_000_000_000, ..ValidationRules::default() };
        validate(records, &rules).expect("written by Kafka");
        patch(records, 1234, 5);
        assert!(range.contains(&records.as_ptr()), "{}", golden.name());
        let header = *Batches::new(records).next().expect("whole").header;
        assert_eq!((header.base_offset(), header.partition_leader_epoch()), (1234, 5));
    }
}

#[test]
fn batches_of_kafkas_producer_pass_unchanged() {
    for (name, batch) in support::batches() {
        let rules = ValidationRules { now_ms: 1_700_000_000_000, ..ValidationRules::default() };
        let mut stored = batch.clone();
        let info = validate(&mut stored, &rules).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(stored, batch, "{name}");
        assert_eq!(info.record_count, 3);
        assert_eq!(info.max_timestamp, 1_700_000_000_500);
        assert_eq!(info.max_timestamp_offset_delta, 1);
        let codec = if name == "none" { "uncompressed" } else { name };
        assert_eq!(info.compression.name(), codec);
        let records = Records::new(Batches::new(&batch).next().expect("whole")).expect("unpacks");
        let records: Vec<_> = records.iter().map(|record| record.expect("parses")).collect();
        assert_eq!(records[0].key, Some(&b"key"[..]));
        let headers: Vec<_> = records[0].headers().map(|header| header.value).collect();
        assert_eq!(headers, [Some(&[1u8][..]), None]);
        assert_eq!((records[1].key, records[2].value), (None, None));
        // And packed by us, every codec reads back.
        for codec in Compression::ALL {
            let rules = ValidationRules { compression: Some(codec), ..rules };
            validate(&mut batch.clone(), &rules).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

#[test]
fn damaged_batches_of_every_codec_never_panic() {
    for (_, batch) in support::batches() {
        for at in 0..batch.len() {
            for damage in [0x01, 0x80, 0xff] {
                let mut damaged = batch.clone();
                damaged[at] ^= damage;
                // A CRC that fits lets the damage reach the codec.
                let crc = kafka_wire::batch::compute_crc(&damaged);
                damaged[17..21].copy_from_slice(&crc.to_be_bytes());
                let _ = validate(&mut damaged, &ValidationRules::default());
            }
            let _ = validate(&mut BytesMut::from(&batch[..at]), &ValidationRules::default());
        }
    }
}
