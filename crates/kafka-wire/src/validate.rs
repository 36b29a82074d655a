//! Checks on a batch that a client appends, in the order of the contract (`kafka-api.md`, 4).

use bytes::BytesMut;

use crate::batch::{self, BatchHeader, HEADER_SIZE, NO_TIMESTAMP, TimestampType};
use crate::compression::{Compression, CompressionError, decompress};
use crate::produce::RecordError;
use crate::records::RecordFault;
use crate::scan::{Input, Slice, Stop, Stream, scan};

/// First Produce version that may carry zstd.
const ZSTD_PRODUCE_VERSION: i16 = 7;
/// Refused records that are named in an error; the batch fails with the first one anyway.
const RECORD_ERRORS_MAX: usize = 1000;

/// What a topic and a request allow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ValidationRules {
    /// Version of the Produce request: zstd needs 7.
    pub produce_version: i16,
    /// `max.message.bytes`: of a whole batch, also after recompression.
    pub max_message_bytes: usize,
    /// `segment.bytes`
    pub segment_bytes: usize,
    /// Whether `cleanup.policy` has `compact`: every record needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: i64,
    /// The broker's clock, milliseconds since 1970.
    pub now_ms: i64,
    /// `compression.type`; `None` is `producer`: stored as received.
    pub compression: Option<Compression>,
}

impl Default for ValidationRules {
    /// Kafka's defaults for a topic, at time 0.
    fn default() -> Self {
        Self {
            produce_version: 13,
            max_message_bytes: 1_048_588,
            segment_bytes: 1 << 30,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            now_ms: 0,
            compression: None,
        }
    }
}

/// What the partition needs to know of a batch that passed. Offsets are relative: the base offset
/// is the partition's to assign ([`crate::batch::patch`]).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchInfo {
    /// Bytes of the whole batch, as it is now.
    pub size: usize,
    pub record_count: i32,
    /// `record_count - 1`.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, milliseconds, or -1. With LogAppendTime: now.
    pub first_timestamp: i64,
    /// Largest timestamp, milliseconds, or -1. With LogAppendTime: now.
    pub max_timestamp: i64,
    /// Offset delta of the first record that has the largest timestamp.
    pub max_timestamp_offset_delta: i32,
    /// -1 for none.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// As stored, codec and timestamp bits included.
    pub attributes: i16,
    pub compression: Compression,
    pub timestamp_type: TimestampType,
    pub is_transactional: bool,
    pub is_control: bool,
}

/// Why a batch is refused; one variant for each cause, in the order of the checks.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BatchError {
    #[error("no records")]
    Empty,
    #[error("{found} bytes are no batch header")]
    HeaderCutShort { found: usize },
    #[error("more than one batch: {left} bytes after the first")]
    MoreThanOne { left: usize },
    #[error("magic {found}, expected 2")]
    Magic { found: i8 },
    #[error("zstd needs Produce v7, this is v{produce_version}")]
    ZstdTooEarly { produce_version: i16 },
    #[error("base offset {found}, expected 0")]
    BaseOffset { found: i64 },
    #[error("batch of {size} bytes, at most {max} are allowed")]
    TooLarge { size: usize, max: usize },
    #[error("batch length {length} with {available} bytes in the field")]
    Length { length: i32, available: usize },
    #[error("CRC is {stored:#010x}, computed {computed:#010x}")]
    Crc { stored: u32, computed: u32 },
    #[error("{record_count} records with last offset delta {last_offset_delta}")]
    Count { record_count: i32, last_offset_delta: i32 },
    #[error("a client may not write a control batch")]
    Control,
    #[error("producer id {producer_id} with base sequence {base_sequence}")]
    Sequence { producer_id: i64, base_sequence: i32 },
    #[error("codec {bits} does not exist")]
    UnknownCodec { bits: i16 },
    /// The compressed records cannot be unpacked, or would be too large.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A record does not parse. `index` counts from 0.
    #[error("record {index}: {fault}")]
    Record { index: i32, fault: RecordFault },
    #[error("record {index} has offset delta {found}")]
    OffsetDelta { index: i32, found: i64 },
    #[error("bytes are left over after {record_count} records")]
    LeftOver { record_count: i32 },
    /// Only if no timestamp is out of range too, as in Kafka.
    #[error("{} records without a key in a compacted topic", record_errors.len())]
    MissingKey { record_errors: Vec<RecordError> },
    #[error("{} records refused, some with a timestamp out of range", record_errors.len())]
    Timestamp { record_errors: Vec<RecordError> },
    #[error("a client may not set LogAppendTime")]
    LogAppendTime,
    #[error("batch of {size} bytes in segments of {max}")]
    LargerThanSegment { size: usize, max: usize },
}

/// Checks `records` (the field of one partition), then brings it into the form to be stored:
/// largest timestamp, LogAppendTime and codec as the rules want, with a CRC that fits.
///
/// On an error `records` is as it was. What is left to the partition is offset and leader epoch.
pub fn validate(records: &mut BytesMut, rules: &ValidationRules) -> Result<BatchInfo, BatchError> {
    let compression = check_header(records, rules)?;
    let header = BatchHeader::read(records).ok_or(BatchError::Empty)?;
    let payload = records.get(HEADER_SIZE..).unwrap_or_default();
    let timestamps = if compression == Compression::None {
        walk(&mut Slice::new(payload), header, rules)?
    } else {
        walk(&mut Stream::new(compression, payload)?, header, rules)?
    };
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::LogAppendTime);
    }
    check_segment(records.len(), rules)?;
    let wanted = rules.compression.unwrap_or(compression);
    if wanted != compression {
        *records = recompress(records, compression, wanted, rules)?;
    }
    match rules.timestamp_type {
        TimestampType::CreateTime => batch::set_max_timestamp(records, timestamps.max),
        TimestampType::LogAppendTime => batch::set_log_append_time(records, rules.now_ms),
    }
    info(records, wanted, timestamps).ok_or(BatchError::Empty)
}

/// Everything that can be judged without the records. Returns the codec.
fn check_header(records: &[u8], rules: &ValidationRules) -> Result<Compression, BatchError> {
    if records.is_empty() {
        return Err(BatchError::Empty);
    }
    // Older formats have their magic in the same place and may be shorter.
    if let Some(magic) = records.get(batch::MAGIC_OFFSET).map(|byte| byte.cast_signed())
        && magic != batch::MAGIC
    {
        return Err(BatchError::Magic { found: magic });
    }
    let header =
        BatchHeader::read(records).ok_or(BatchError::HeaderCutShort { found: records.len() })?;
    let size = header.size();
    if let Some(left) = size.and_then(|size| records.len().checked_sub(size))
        && left > 0
    {
        return Err(BatchError::MoreThanOne { left });
    }
    let codec = header.compression();
    if codec == Some(Compression::Zstd) && rules.produce_version < ZSTD_PRODUCE_VERSION {
        return Err(BatchError::ZstdTooEarly { produce_version: rules.produce_version });
    }
    if header.base_offset() != 0 {
        return Err(BatchError::BaseOffset { found: header.base_offset() });
    }
    check_size(size.unwrap_or(0), rules)?;
    if size != Some(records.len()) {
        let (length, available) = (header.length(), records.len());
        return Err(BatchError::Length { length, available });
    }
    let (stored, computed) = (header.crc(), batch::compute_crc(records));
    if stored != computed {
        return Err(BatchError::Crc { stored, computed });
    }
    check_fields(header)?;
    codec.ok_or(BatchError::UnknownCodec { bits: header.attributes() & 7 })
}

/// Fields that only mean something once the CRC is right.
fn check_fields(header: &BatchHeader) -> Result<(), BatchError> {
    let (record_count, last_offset_delta) = (header.record_count(), header.last_offset_delta());
    if last_offset_delta < 0 || last_offset_delta.checked_add(1) != Some(record_count) {
        return Err(BatchError::Count { record_count, last_offset_delta });
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    let (producer_id, base_sequence) = (header.producer_id(), header.base_sequence());
    if producer_id >= 0 && base_sequence < 0 {
        return Err(BatchError::Sequence { producer_id, base_sequence });
    }
    Ok(())
}

fn check_size(size: usize, rules: &ValidationRules) -> Result<(), BatchError> {
    let max = rules.max_message_bytes;
    if size > max { Err(BatchError::TooLarge { size, max }) } else { Ok(()) }
}

fn check_segment(size: usize, rules: &ValidationRules) -> Result<(), BatchError> {
    let max = rules.segment_bytes;
    if size > max { Err(BatchError::LargerThanSegment { size, max }) } else { Ok(()) }
}

/// What the walk over the records found.
#[derive(Clone, Copy)]
struct Timestamps {
    first: i64,
    max: i64,
    max_offset_delta: i32,
}

/// Checks every record. Nothing is kept but timestamps and the records that are refused.
fn walk(
    input: &mut impl Input,
    header: &BatchHeader,
    rules: &ValidationRules,
) -> Result<Timestamps, BatchError> {
    let mut found = Timestamps { first: NO_TIMESTAMP, max: NO_TIMESTAMP, max_offset_delta: 0 };
    let mut refused = Refused::default();
    for index in 0..header.record_count() {
        let fault = |fault| BatchError::Record { index, fault };
        let shape = scan(input).map_err(|stop| match stop {
            Stop::Record(cause) => fault(cause),
            Stop::Compression(error) => BatchError::Compression(error),
        })?;
        if shape.offset_delta != i64::from(index) {
            return Err(BatchError::OffsetDelta { index, found: shape.offset_delta });
        }
        let timestamp = header.base_timestamp().checked_add(shape.timestamp_delta);
        let timestamp = timestamp.ok_or_else(|| fault(RecordFault::Timestamp))?;
        if rules.compacted && !shape.has_key {
            refused.missing_key(index);
        }
        refused.judge_timestamp(index, timestamp, rules);
        if index == 0 {
            found.first = timestamp;
        }
        if timestamp > found.max {
            (found.max, found.max_offset_delta) = (timestamp, index);
        }
    }
    match input.at_end() {
        Ok(true) => refused.into_result().map(|()| found),
        Ok(false) => Err(BatchError::LeftOver { record_count: header.record_count() }),
        Err(error) => Err(BatchError::Compression(error)),
    }
}

/// Records refused one by one. The batch fails as a whole; the client learns which and why.
#[derive(Default)]
struct Refused {
    errors: Vec<RecordError>,
    timestamp: bool,
}

impl Refused {
    fn missing_key(&mut self, index: i32) {
        self.push(index, "Compacted topic cannot accept message without key.".into());
    }

    fn judge_timestamp(&mut self, index: i32, timestamp: i64, rules: &ValidationRules) {
        if rules.timestamp_type == TimestampType::LogAppendTime || timestamp == NO_TIMESTAMP {
            return;
        }
        let earliest = rules.now_ms.saturating_sub(rules.timestamp_before_max_ms);
        let latest = rules.now_ms.saturating_add(rules.timestamp_after_max_ms);
        if (earliest..=latest).contains(&timestamp) {
            return;
        }
        self.timestamp = true;
        let message = format!(
            "Timestamp {timestamp} of message with offset {index} is out of range. \
             The timestamp should be within [{earliest}, {latest}]"
        );
        self.push(index, message);
    }

    fn push(&mut self, batch_index: i32, message: String) {
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push(RecordError { batch_index, message: Some(message.into()) });
        }
    }

    fn into_result(self) -> Result<(), BatchError> {
        let record_errors = self.errors;
        if self.timestamp {
            Err(BatchError::Timestamp { record_errors })
        } else if record_errors.is_empty() {
            Ok(())
        } else {
            Err(BatchError::MissingKey { record_errors })
        }
    }
}

/// The batch with its records packed by another codec; every record keeps its bytes.
fn recompress(
    batch: &[u8],
    from: Compression,
    to: Compression,
    rules: &ValidationRules,
) -> Result<BytesMut, BatchError> {
    let (header, payload) = batch.split_at_checked(HEADER_SIZE).ok_or(BatchError::Empty)?;
    let payload = to.compress(&decompress(from, payload)?)?;
    let size = HEADER_SIZE.saturating_add(payload.len());
    check_size(size, rules)?;
    check_segment(size, rules)?;
    let mut bytes = BytesMut::with_capacity(size);
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(&payload);
    batch::set_codec(&mut bytes, to);
    batch::seal(&mut bytes);
    Ok(bytes)
}

fn info(batch: &[u8], compression: Compression, found: Timestamps) -> Option<BatchInfo> {
    let header = BatchHeader::read(batch)?;
    let timestamp_type = header.timestamp_type();
    let log_append_time = timestamp_type == TimestampType::LogAppendTime;
    let max_timestamp = header.max_timestamp();
    Some(BatchInfo {
        size: batch.len(),
        record_count: header.record_count(),
        last_offset_delta: header.last_offset_delta(),
        first_timestamp: if log_append_time { max_timestamp } else { found.first },
        max_timestamp,
        max_timestamp_offset_delta: if log_append_time { 0 } else { found.max_offset_delta },
        producer_id: header.producer_id(),
        producer_epoch: header.producer_epoch(),
        base_sequence: header.base_sequence(),
        attributes: header.attributes(),
        compression,
        timestamp_type,
        is_transactional: header.is_transactional(),
        is_control: header.is_control(),
    })
}

#[cfg(test)]
mod tests;
