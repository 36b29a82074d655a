//! One test for each row of the contract, then what is stored, then hostile batches.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::batch::{BatchView, Batches, crc_is_valid};
use crate::records::{RecordBatchBuilder, RecordHeader, Records};
use crate::varint;

const NOW: i64 = 1_700_000_000_000;
/// Where fields of the header are, for tests that damage them.
const LENGTH: usize = 8;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const RECORD_COUNT: usize = 57;

fn rules() -> ValidationRules {
    ValidationRules { now_ms: NOW, ..ValidationRules::default() }
}

fn builder() -> RecordBatchBuilder {
    let mut builder = RecordBatchBuilder::new();
    let headers = [
        RecordHeader { key: b"h", value: Some(b"1") },
        RecordHeader { key: b"h", value: None },
        RecordHeader { key: &[0xff], value: Some(b"") },
    ];
    builder
        .append(NOW, Some(b"key"), Some(&[b'v'; 300]), &headers)
        .append(NOW + 7, Some(b""), None, &[])
        .append(NOW + 3, Some(b"key"), Some(b"last"), &[]);
    builder
}

fn batch() -> BytesMut {
    builder().build()
}

/// Changes bytes and makes the CRC fit again.
fn damaged(at: usize, bytes: &[u8]) -> BytesMut {
    let mut batch = batch();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    recrc(batch)
}

fn recrc(mut batch: BytesMut) -> BytesMut {
    let crc = batch::compute_crc(&batch);
    batch[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// A batch of `count` records around these bytes.
fn raw(count: i32, codec: Compression, payload: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::from(&batch()[..HEADER_SIZE]);
    bytes.put_slice(payload);
    bytes[LAST_OFFSET_DELTA..][..4].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[RECORD_COUNT..][..4].copy_from_slice(&count.to_be_bytes());
    batch::set_codec(&mut bytes, codec);
    batch::seal(&mut bytes);
    bytes
}

fn record(fields: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    fields(&mut body);
    let mut out = Vec::new();
    varint::put_signed(&mut out, i64::try_from(body.len()).expect("small"));
    out.extend(body);
    out
}

fn refused(mut records: BytesMut, rules: &ValidationRules) -> BatchError {
    let before = records.clone();
    let error = validate(&mut records, rules).expect_err("must be refused");
    assert_eq!(records, before, "a refused batch is not touched");
    error
}

#[test]
fn a_good_batch_keeps_its_bytes() {
    let mut records = batch();
    let info = validate(&mut records, &rules()).expect("good");
    assert_eq!(records, batch());
    let expected = BatchInfo {
        size: records.len(),
        record_count: 3,
        last_offset_delta: 2,
        first_timestamp: NOW,
        max_timestamp: NOW + 7,
        max_timestamp_offset_delta: 1,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        attributes: 0,
        compression: Compression::None,
        timestamp_type: TimestampType::CreateTime,
        is_transactional: false,
        is_control: false,
    };
    assert_eq!(info, expected);
}

#[test]
fn no_records_or_not_one_batch() {
    assert_eq!(refused(BytesMut::new(), &rules()), BatchError::Empty);
    let mut two = batch();
    two.extend_from_slice(&batch());
    assert_eq!(refused(two, &rules()), BatchError::MoreThanOne { left: batch().len() });
    let mut garbage = batch();
    garbage.put_u8(0);
    assert_eq!(refused(garbage, &rules()), BatchError::MoreThanOne { left: 1 });
}

#[test]
fn only_magic_2() {
    for magic in [0u8, 1, 3, 0xff] {
        let found = magic.cast_signed();
        assert_eq!(refused(damaged(16, &[magic]), &rules()), BatchError::Magic { found });
        // An old message set is shorter than a batch header.
        let short = BytesMut::from(&damaged(16, &[magic])[..30]);
        assert_eq!(refused(short, &rules()), BatchError::Magic { found });
    }
}

#[test]
fn zstd_needs_produce_7() {
    let zstd = builder().compression(Compression::Zstd).build();
    let old = ValidationRules { produce_version: 6, ..rules() };
    assert_eq!(refused(zstd.clone(), &old), BatchError::ZstdTooEarly { produce_version: 6 });
    validate(&mut zstd.clone(), &ValidationRules { produce_version: 7, ..rules() }).expect("v7");
}

#[test]
fn base_offset_must_be_0() {
    let mut moved = batch();
    batch::patch(&mut moved, 5, 0);
    assert_eq!(refused(moved, &rules()), BatchError::BaseOffset { found: 5 });
}

#[test]
fn size_limits_are_inclusive() {
    let size = batch().len();
    let at = ValidationRules { max_message_bytes: size, segment_bytes: size, ..rules() };
    validate(&mut batch(), &at).expect("as large as allowed");
    let below = ValidationRules { max_message_bytes: size - 1, ..rules() };
    assert_eq!(refused(batch(), &below), BatchError::TooLarge { size, max: size - 1 });
    let segment = ValidationRules { segment_bytes: size - 1, ..rules() };
    assert_eq!(refused(batch(), &segment), BatchError::LargerThanSegment { size, max: size - 1 });
}

#[test]
fn lengths_that_do_not_fit_the_field() {
    let available = batch().len();
    for length in [i32::MIN, -1, 0, 48, 100_000] {
        let mut records = batch();
        records[LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(refused(records, &rules()), BatchError::Length { length, available });
    }
    for found in [1, 12, 60] {
        let cut = BytesMut::from(&batch()[..found]);
        assert_eq!(refused(cut, &rules()), BatchError::HeaderCutShort { found });
    }
}

#[test]
fn every_flipped_byte_behind_the_crc_is_seen() {
    for at in CRC..batch().len() {
        let mut records = batch();
        records[at] ^= 0x40;
        let error = refused(records, &rules());
        assert!(matches!(error, BatchError::Crc { .. }), "byte {at}: {error}");
    }
}

#[test]
fn counts_must_agree() {
    for (last_offset_delta, record_count) in
        [(-1, 0), (-2, -1), (2, 4), (3, 3), (i32::MAX, i32::MIN), (0, 0)]
    {
        let mut records = batch();
        records[LAST_OFFSET_DELTA..][..4].copy_from_slice(&last_offset_delta.to_be_bytes());
        records[RECORD_COUNT..][..4].copy_from_slice(&record_count.to_be_bytes());
        let expected = BatchError::Count { record_count, last_offset_delta };
        assert_eq!(refused(recrc(records), &rules()), expected);
    }
}

#[test]
fn control_bit_and_sequence() {
    assert_eq!(refused(damaged(ATTRIBUTES + 1, &[0x20]), &rules()), BatchError::Control);
    let batch = builder().producer(9, 0, -1).build();
    let expected = BatchError::Sequence { producer_id: 9, base_sequence: -1 };
    assert_eq!(refused(batch, &rules()), expected);
    let mut good = builder().producer(9, 4, 17).transactional().build();
    let info = validate(&mut good, &rules()).expect("good");
    assert_eq!((info.producer_id, info.producer_epoch, info.base_sequence), (9, 4, 17));
    assert!(info.is_transactional);
}

#[test]
fn unknown_codecs() {
    for bits in 5u8..8 {
        let expected = BatchError::UnknownCodec { bits: i16::from(bits) };
        assert_eq!(refused(damaged(ATTRIBUTES + 1, &[bits]), &rules()), expected);
    }
}

#[test]
fn the_number_of_records_must_be_right_in_every_codec() {
    let payload = batch()[HEADER_SIZE..].to_vec();
    for codec in Compression::ALL {
        let packed = codec.compress(&payload).expect("into memory");
        validate(&mut raw(3, codec, &packed), &rules()).expect("three records");
        let expected = BatchError::LeftOver { record_count: 2 };
        assert_eq!(refused(raw(2, codec, &packed), &rules()), expected, "{codec:?}");
        let expected = BatchError::Record { index: 3, fault: RecordFault::CutShort };
        assert_eq!(refused(raw(4, codec, &packed), &rules()), expected, "{codec:?}");
    }
}

#[test]
fn records_that_do_not_parse() {
    let empty = |out: &mut Vec<u8>| out.extend([0, 0, 0, 1, 1, 0]);
    let fault = |payload: &[u8]| match refused(raw(1, Compression::None, payload), &rules()) {
        BatchError::Record { index: 0, fault } => fault,
        other => panic!("{other}"),
    };
    validate(&mut raw(1, Compression::None, &record(empty)), &rules()).expect("null key and value");
    // Longer than its fields; shorter; cut off; negative length.
    assert_eq!(fault(&record(|out| out.extend([0, 0, 0, 1, 1, 0, 0]))), RecordFault::LeftOver);
    assert_eq!(fault(&[10, 0, 0, 0, 1, 1, 0]), RecordFault::CutShort);
    assert_eq!(fault(&[12, 0, 0]), RecordFault::CutShort);
    assert_eq!(fault(&[1]), RecordFault::Length);
    // Key length -2; header count -1; null header key; 2^31-1 headers.
    assert_eq!(fault(&record(|out| out.extend([0, 0, 0, 3, 1, 0]))), RecordFault::Length);
    assert_eq!(fault(&record(|out| out.extend([0, 0, 0, 1, 1, 1]))), RecordFault::Length);
    assert_eq!(fault(&record(|out| out.extend([0, 0, 0, 1, 1, 2, 1, 1]))), RecordFault::Length);
    let bomb = record(|out| out.extend([0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]));
    assert_eq!(fault(&bomb), RecordFault::CutShort);
    // Varints of six bytes, a varlong of eleven.
    let long = record(|out| out.extend([0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 1, 1, 0]));
    assert_eq!(fault(&long), RecordFault::Varint);
    let long = record(|out| {
        out.extend([0]);
        out.extend([0x80; 10]);
        out.extend([0, 0, 1, 1, 0]);
    });
    assert_eq!(fault(&long), RecordFault::Varint);
}

#[test]
fn offset_deltas_count_up() {
    let first = record(|out| out.extend([0, 0, 0, 1, 1, 0]));
    let expected = BatchError::OffsetDelta { index: 1, found: 0 };
    let payload = [first.clone(), first].concat();
    assert_eq!(refused(raw(2, Compression::None, &payload), &rules()), expected);
}

#[test]
fn a_timestamp_beyond_64_bits() {
    let mut payload = vec![0];
    varint::put_signed(&mut payload, i64::MAX);
    payload.extend([0, 1, 1, 0]);
    let mut records = raw(1, Compression::None, &record(|out| out.extend(payload)));
    records[BASE_TIMESTAMP..][..8].copy_from_slice(&i64::MAX.to_be_bytes());
    let expected = BatchError::Record { index: 0, fault: RecordFault::Timestamp };
    assert_eq!(refused(recrc(records), &rules()), expected);
}

#[test]
fn compacted_topics_need_keys() {
    let compacted = ValidationRules { compacted: true, ..rules() };
    validate(&mut batch(), &compacted).expect("an empty key is a key");
    for codec in Compression::ALL {
        let mut builder = builder().compression(codec);
        builder.append(NOW, None, Some(b"v"), &[]).append(NOW, None, None, &[]);
        let BatchError::MissingKey { record_errors } = refused(builder.build(), &compacted) else {
            panic!("{codec:?}")
        };
        let indexes: Vec<i32> = record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!(indexes, [3, 4]);
        assert!(record_errors[0].message.as_ref().expect("told").contains("without key"));
        validate(&mut builder.build(), &rules()).expect("not compacted");
    }
}

#[test]
fn create_time_has_bounds() {
    let limits = ValidationRules { timestamp_before_max_ms: 1000, ..rules() };
    for timestamp in [NOW - 1000, NOW + 3_600_000, NO_TIMESTAMP] {
        let mut builder = RecordBatchBuilder::new();
        validate(&mut builder.append(timestamp, None, None, &[]).build(), &limits)
            .unwrap_or_else(|error| panic!("{timestamp}: {error}"));
    }
    for timestamp in [NOW - 1001, NOW + 3_600_001, 0, -2] {
        let mut builder = RecordBatchBuilder::new();
        let batch = builder.append(NOW, None, None, &[]).append(timestamp, None, None, &[]).build();
        let BatchError::Timestamp { record_errors } = refused(batch.clone(), &limits) else {
            panic!("{timestamp}")
        };
        assert_eq!(record_errors.len(), 1);
        assert_eq!(record_errors[0].batch_index, 1);
        assert!(record_errors[0].message.as_ref().expect("told").contains("out of range"));
        let log_append = TimestampType::LogAppendTime;
        let broker_time = ValidationRules { timestamp_type: log_append, ..limits };
        validate(&mut batch.clone(), &broker_time).expect("the client's time does not matter");
    }
}

#[test]
fn a_client_may_not_set_log_append_time() {
    for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
        let rules = ValidationRules { timestamp_type, ..rules() };
        assert_eq!(refused(damaged(ATTRIBUTES + 1, &[8]), &rules), BatchError::LogAppendTime);
    }
}

#[test]
fn log_append_time_is_stamped_with_a_new_crc() {
    let timestamp_type = TimestampType::LogAppendTime;
    let rules = ValidationRules { timestamp_type, now_ms: NOW + 99, ..rules() };
    let mut records = batch();
    let info = validate(&mut records, &rules).expect("good");
    assert!(crc_is_valid(&records));
    let header = BatchHeader::read(&records).expect("whole");
    assert_eq!((header.timestamp_type(), header.max_timestamp()), (timestamp_type, NOW + 99));
    assert_eq!((info.first_timestamp, info.max_timestamp), (NOW + 99, NOW + 99));
    assert_eq!(info.max_timestamp_offset_delta, 0);
    assert_eq!(records[HEADER_SIZE..], batch()[HEADER_SIZE..]);
}

#[test]
fn a_wrong_largest_timestamp_is_corrected() {
    let mut records = damaged(BASE_TIMESTAMP + 8, &(NOW - 5).to_be_bytes());
    let info = validate(&mut records, &rules()).expect("good");
    assert_eq!(info.max_timestamp, NOW + 7);
    assert_eq!(records, batch());
}

#[test]
fn recompression_keeps_every_record() {
    let plain = contents(&batch());
    for from in Compression::ALL {
        for to in Compression::ALL {
            let mut records = builder().compression(from).build();
            let before = records.clone();
            let rules = ValidationRules { compression: Some(to), ..rules() };
            let info = validate(&mut records, &rules).expect("good");
            assert_eq!(info.compression, to);
            assert_eq!(info.size, records.len());
            assert!(crc_is_valid(&records));
            assert_eq!(contents(&records), plain, "{from:?} to {to:?}");
            assert!(from != to || records == before);
        }
    }
}

#[test]
fn size_is_checked_again_after_recompression() {
    let mut builder = RecordBatchBuilder::new().compression(Compression::Gzip);
    builder.append(NOW, None, Some(&[0; 10_000]), &[]);
    let rules = ValidationRules {
        compression: Some(Compression::None),
        max_message_bytes: 5_000,
        ..rules()
    };
    let error = refused(builder.build(), &rules);
    assert!(matches!(error, BatchError::TooLarge { size: 10_000.., max: 5_000 }), "{error}");
}

#[test]
fn bombs_are_refused() {
    // 16 MiB and one byte of a single record's value.
    let mut head = Vec::new();
    let value = 20 << 20;
    varint::put_signed(&mut head, value + 16);
    head.extend([0, 0, 0, 1]);
    varint::put_signed(&mut head, value);
    head.resize(head.len() + usize::try_from(value).expect("positive"), 0);
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let packed = codec.compress(&head).expect("into memory");
        let error = refused(raw(1, codec, &packed), &rules());
        let too_large = matches!(
            error,
            BatchError::Compression(CompressionError::TooLarge { limit: 0x100_0000, .. })
        );
        assert!(too_large, "{codec:?}: {error}");
    }
}

fn contents(batch: &[u8]) -> Vec<String> {
    let view: BatchView<'_> = Batches::new(batch).next().expect("whole");
    let records = Records::new(view).expect("unpacks");
    let record = |record| {
        let record: crate::records::Record<'_> = Result::expect(record, "parses");
        format!("{record:?} {:?}", record.headers().collect::<Vec<_>>())
    };
    records.iter().map(record).collect()
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200))
}

type Sample = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn any_record() -> impl Strategy<Value = Sample> {
    let headers =
        proptest::collection::vec((any::<[u8; 3]>().prop_map(Vec::from), any_bytes()), 0..4);
    (NOW - 1_000_000..NOW, any_bytes(), any_bytes(), headers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_records_pass_and_read_back(
        samples in proptest::collection::vec(any_record(), 1..40),
        codec in proptest::sample::select(&Compression::ALL[..]),
    ) {
        let mut builder = RecordBatchBuilder::new().compression(codec);
        for (timestamp, key, value, headers) in &samples {
            let headers: Vec<_> = headers
                .iter()
                .map(|(key, value)| RecordHeader { key, value: value.as_deref() })
                .collect();
            builder.append(*timestamp, key.as_deref(), value.as_deref(), &headers);
        }
        let mut batch = builder.build();
        let info = validate(&mut batch, &rules()).expect("good");
        let max = samples.iter().map(|sample| sample.0).max();
        prop_assert_eq!(Some(info.max_timestamp), max);
        let at = usize::try_from(info.max_timestamp_offset_delta).expect("positive");
        prop_assert_eq!(samples.iter().position(|sample| Some(sample.0) == max), Some(at));
        let view = Batches::new(&batch).next().expect("whole");
        let records = Records::new(view).expect("unpacks");
        for (i, (read, sample)) in records.iter().zip(&samples).enumerate() {
            let read = read.expect("parses");
            prop_assert_eq!(read.offset, i64::try_from(i).expect("small"));
            prop_assert_eq!(read.timestamp, sample.0);
            prop_assert_eq!(read.key, sample.1.as_deref());
            prop_assert_eq!(read.value, sample.2.as_deref());
            let headers: Vec<_> =
                read.headers().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(&headers, &sample.3);
        }
        prop_assert_eq!(records.iter().count(), samples.len());
    }

    /// Damage behind the CRC, with the CRC made to fit: any outcome but a panic; what passes reads.
    #[test]
    fn damage_never_panics(
        codec in proptest::sample::select(&Compression::ALL[..]),
        at in ATTRIBUTES..400usize,
        byte in any::<u8>(),
    ) {
        let mut batch = builder().compression(codec).build();
        let at = at.min(batch.len() - 1);
        batch[at] = byte;
        let mut batch = recrc(batch);
        if validate(&mut batch, &rules()).is_ok() {
            contents(&batch);
        }
    }

    #[test]
    fn noise_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        crate::fuzz::fuzz_batch(&bytes);
        crate::fuzz::fuzz_request(&bytes);
        if bytes.len() > HEADER_SIZE {
            // With a good header, noise reaches the records.
            let mut batch = raw(3, Compression::None, &bytes.split_off(HEADER_SIZE));
            let _ = validate(&mut batch, &rules());
        }
    }
}
