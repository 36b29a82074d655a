//! The Fetch reply, written by hand: record batches become pieces of the message, not copies.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::error_code::ErrorCode;
use crate::produce::{LeaderIdAndEpoch, NodeEndpoint};
use crate::writer::{TooLong, Writer};

/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;
/// First version whose replies may carry leaders' endpoints (KIP-951).
const ENDPOINTS_VERSION: i16 = 16;

/// The reply to a Fetch request. Fields that the version lacks are left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchResponse {
    pub throttle_time_ms: i32,
    /// Top-level error: sessions (v7+).
    pub error_code: ErrorCode,
    /// 0 declines a session (v7+).
    pub session_id: i32,
    pub topics: Vec<FetchTopicResponse>,
    /// Where the leaders named in the partitions are reached (v16+).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A topic of a Fetch reply, named as in the request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FetchTopicResponse {
    pub name: StrBytes,
    pub topic_id: Uuid,
    pub partitions: Vec<FetchPartitionResponse>,
}

/// A partition of a Fetch reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchPartitionResponse {
    pub partition: i32,
    pub error_code: ErrorCode,
    /// End of the committed prefix, exclusive.
    pub high_watermark: i64,
    /// End of the prefix without open transactions, exclusive.
    pub last_stable_offset: i64,
    /// v5+.
    pub log_start_offset: i64,
    /// v12+: where the client's log diverges from this one.
    pub diverging_epoch: Option<EpochEndOffset>,
    /// v12+: with `NOT_LEADER_OR_FOLLOWER` and `FENCED_LEADER_EPOCH`.
    pub current_leader: Option<LeaderIdAndEpoch>,
    /// `None` for read_uncommitted; in first-offset order.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// v11+; -1 for none.
    pub preferred_read_replica: i32,
    /// Whole record batches, in any cut. None at all is sent as length 0, never as null
    /// (KAFKA-18646).
    pub records: Vec<Bytes>,
}

/// An aborted transaction that overlaps the returned range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

/// A leader epoch and where it ended, exclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EpochEndOffset {
    pub epoch: i32,
    pub end_offset: i64,
}

impl Default for FetchResponse {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error_code: ErrorCode::None,
            session_id: 0,
            topics: Vec::new(),
            node_endpoints: Vec::new(),
        }
    }
}

impl FetchPartitionResponse {
    /// An empty partition without error; the offsets are -1.
    pub fn empty(partition: i32) -> Self {
        Self {
            partition,
            error_code: ErrorCode::None,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }

    /// A partition that failed.
    pub fn failed(partition: i32, error_code: ErrorCode) -> Self {
        Self { error_code, ..Self::empty(partition) }
    }

    /// Bytes of its record batches.
    pub fn records_size(&self) -> usize {
        self.records.iter().fold(0, |sum, piece| sum.saturating_add(piece.len()))
    }

    fn write(self, writer: &mut Writer, version: i16) -> Result<(), TooLong> {
        writer.i32(self.partition);
        writer.i16(self.error_code.code());
        writer.i64(self.high_watermark);
        writer.i64(self.last_stable_offset);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        match &self.aborted_transactions {
            None => writer.null_length(),
            Some(aborted) => {
                writer.length(aborted.len())?;
                for transaction in aborted {
                    writer.i64(transaction.producer_id);
                    writer.i64(transaction.first_offset);
                    writer.no_tags();
                }
            }
        }
        if version >= 11 {
            writer.i32(self.preferred_read_replica);
        }
        writer.payload(self.records)?;
        let count = u32::from(self.diverging_epoch.is_some())
            .saturating_add(u32::from(self.current_leader.is_some()));
        writer.tag_count(count);
        if !writer.is_flexible() {
            return Ok(());
        }
        if let Some(diverging) = self.diverging_epoch {
            writer.tag(0, |writer| {
                writer.i32(diverging.epoch);
                writer.i64(diverging.end_offset);
                writer.no_tags();
                Ok(())
            })?;
        }
        self.current_leader.map_or(Ok(()), |leader| writer.tag(1, |writer| leader.write(writer)))
    }
}

impl FetchResponse {
    pub(crate) fn write(self, writer: &mut Writer, version: i16) -> Result<(), TooLong> {
        writer.i32(self.throttle_time_ms);
        if version >= 7 {
            writer.i16(self.error_code.code());
            writer.i32(self.session_id);
        }
        writer.length(self.topics.len())?;
        for topic in self.topics {
            if version >= TOPIC_ID_VERSION {
                writer.uuid(topic.topic_id);
            } else {
                writer.string(&topic.name)?;
            }
            writer.length(topic.partitions.len())?;
            for partition in topic.partitions {
                partition.write(writer, version)?;
            }
            writer.no_tags();
        }
        if version >= ENDPOINTS_VERSION && !self.node_endpoints.is_empty() {
            writer.tag_count(1);
            return writer.tag(0, |writer| NodeEndpoint::write_all(&self.node_endpoints, writer));
        }
        writer.no_tags();
        Ok(())
    }
}
