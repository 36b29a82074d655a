//! What a topic's settings demand of a batch, and how a refusal is told.

use kafka_wire::batch::TimestampType;
use kafka_wire::validate::{BatchError, ValidationRules};
use kafka_wire::{Compression, ErrorCode};

use crate::config::{self, TopicConfig};

/// The rules for a topic, for a Produce request of a version at a time (milliseconds since 1970).
pub(crate) fn rules(topic: &TopicConfig, produce_version: i16, now_ms: i64) -> ValidationRules {
    ValidationRules {
        produce_version,
        max_message_bytes: topic.max_message_bytes as usize,
        segment_bytes: topic.segment_bytes as usize,
        compacted: topic.cleanup_policy.compact,
        timestamp_type: match topic.message_timestamp_type {
            config::TimestampType::CreateTime => TimestampType::CreateTime,
            config::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: topic.message_timestamp_before_max_ms,
        timestamp_after_max_ms: topic.message_timestamp_after_max_ms,
        now_ms,
        compression: match topic.compression_type {
            config::CompressionType::Producer => None,
            config::CompressionType::Uncompressed => Some(Compression::None),
            config::CompressionType::Gzip => Some(Compression::Gzip),
            config::CompressionType::Snappy => Some(Compression::Snappy),
            config::CompressionType::Lz4 => Some(Compression::Lz4),
            config::CompressionType::Zstd => Some(Compression::Zstd),
        },
    }
}

/// Kafka's code for a refused batch (kafka-api.md, section 4).
pub(crate) fn error_code(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::ZstdTooEarly { .. } => ErrorCode::UnsupportedCompressionType,
        BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        BatchError::HeaderCutShort { .. }
        | BatchError::Length { .. }
        | BatchError::Crc { .. }
        | BatchError::Compression(_) => ErrorCode::CorruptMessage,
        BatchError::Timestamp { .. } | BatchError::LogAppendTime => ErrorCode::InvalidTimestamp,
        BatchError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
        BatchError::Empty
        | BatchError::MoreThanOne { .. }
        | BatchError::Magic { .. }
        | BatchError::BaseOffset { .. }
        | BatchError::Count { .. }
        | BatchError::Control
        | BatchError::Sequence { .. }
        | BatchError::UnknownCodec { .. }
        | BatchError::Record { .. }
        | BatchError::OffsetDelta { .. }
        | BatchError::LeftOver { .. }
        | BatchError::MissingKey { .. } => ErrorCode::InvalidRecord,
    }
}
