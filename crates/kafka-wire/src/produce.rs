//! Produce, written by hand: `records` stays in the frame, so that the broker patches the batch
//! in place and hands the same bytes to the log.

use bytes::BytesMut;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::error_code::ErrorCode;
use crate::reader::{Fault, Reader};
use crate::writer::{TooLong, Writer};

/// First version that names topics by id only.
const TOPIC_ID_VERSION: i16 = 13;
/// First version whose replies may carry the current leader (KIP-951).
const CURRENT_LEADER_VERSION: i16 = 10;

/// A Produce request.
#[derive(Debug)]
pub struct ProduceRequest {
    pub transactional_id: Option<StrBytes>,
    /// -1, 0 or 1 in a valid request; not checked here.
    pub acks: i16,
    /// Milliseconds.
    pub timeout_ms: i32,
    pub topics: Vec<ProduceTopic>,
}

/// A topic of a Produce request.
#[derive(Debug)]
pub struct ProduceTopic {
    /// Empty from v13 on.
    pub name: StrBytes,
    /// Nil below v13.
    pub topic_id: Uuid,
    pub partitions: Vec<ProducePartition>,
}

/// A partition of a Produce request.
#[derive(Debug)]
pub struct ProducePartition {
    pub index: i32,
    /// The record batch as the client sent it: a part of the frame that may be changed in place.
    /// Keeping it keeps the whole frame alive.
    pub records: Option<BytesMut>,
}

impl ProduceRequest {
    pub(crate) fn read(mut reader: Reader, version: i16) -> Result<Self, Fault> {
        let transactional_id = reader.nullable_string()?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let topics = reader.array(|reader| ProduceTopic::read(reader, version))?;
        reader.skip_tags()?;
        Ok(Self { transactional_id, acks, timeout_ms, topics })
    }
}

impl ProduceTopic {
    fn read(reader: &mut Reader, version: i16) -> Result<Self, Fault> {
        let by_id = version >= TOPIC_ID_VERSION;
        let name = if by_id { StrBytes::new() } else { reader.string()? };
        let topic_id = if by_id { reader.uuid()? } else { Uuid::nil() };
        let partitions = reader.array(|reader| {
            let index = reader.i32()?;
            let records = reader.nullable_bytes()?;
            reader.skip_tags()?;
            Ok(ProducePartition { index, records })
        })?;
        reader.skip_tags()?;
        Ok(Self { name, topic_id, partitions })
    }
}

/// The reply to a Produce request. Fields that the version lacks are left out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProduceResponse {
    pub topics: Vec<ProduceTopicResponse>,
    pub throttle_time_ms: i32,
    /// Where the leaders named in the partitions are reached (v10+).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A topic of a Produce reply, named as in the request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProduceTopicResponse {
    pub name: StrBytes,
    pub topic_id: Uuid,
    pub partitions: Vec<ProducePartitionResponse>,
}

/// A partition of a Produce reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProducePartitionResponse {
    pub index: i32,
    pub error_code: ErrorCode,
    /// Offset of the first record; -1 with an error.
    pub base_offset: i64,
    /// Milliseconds; -1 unless the topic uses LogAppendTime.
    pub log_append_time_ms: i64,
    /// -1 with an error (v5+).
    pub log_start_offset: i64,
    /// Records that made the batch fail (v8+).
    pub record_errors: Vec<RecordError>,
    /// v8+.
    pub error_message: Option<StrBytes>,
    /// With `NOT_LEADER_OR_FOLLOWER` (v10+).
    pub current_leader: Option<LeaderIdAndEpoch>,
}

/// A record that made its batch fail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordError {
    /// Position in the batch, from 0.
    pub batch_index: i32,
    pub message: Option<StrBytes>,
}

/// The leader of a partition (KIP-951).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaderIdAndEpoch {
    pub leader_id: i32,
    pub leader_epoch: i32,
}

/// The address of a broker (KIP-951).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeEndpoint {
    pub node_id: i32,
    pub host: StrBytes,
    pub port: i32,
    pub rack: Option<StrBytes>,
}

impl ProducePartitionResponse {
    /// A successful append with CreateTime.
    pub fn appended(index: i32, base_offset: i64, log_start_offset: i64) -> Self {
        Self {
            index,
            error_code: ErrorCode::None,
            base_offset,
            log_append_time_ms: -1,
            log_start_offset,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }

    /// A partition that failed.
    pub fn failed(index: i32, error_code: ErrorCode) -> Self {
        Self { error_code, ..Self::appended(index, -1, -1) }
    }

    fn write(&self, writer: &mut Writer, version: i16) -> Result<(), TooLong> {
        writer.i32(self.index);
        writer.i16(self.error_code.code());
        writer.i64(self.base_offset);
        writer.i64(self.log_append_time_ms);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        if version >= 8 {
            writer.length(self.record_errors.len())?;
            for error in &self.record_errors {
                writer.i32(error.batch_index);
                writer.nullable_string(error.message.as_ref())?;
                writer.no_tags();
            }
            writer.nullable_string(self.error_message.as_ref())?;
        }
        match self.current_leader.filter(|_| version >= CURRENT_LEADER_VERSION) {
            Some(leader) => {
                writer.tag_count(1);
                writer.tag(0, |writer| leader.write(writer))
            }
            None => {
                writer.no_tags();
                Ok(())
            }
        }
    }
}

impl LeaderIdAndEpoch {
    pub(crate) fn write(self, writer: &mut Writer) -> Result<(), TooLong> {
        writer.i32(self.leader_id);
        writer.i32(self.leader_epoch);
        writer.no_tags();
        Ok(())
    }
}

impl NodeEndpoint {
    /// The tagged array of endpoints, as Produce and Fetch replies carry it.
    pub(crate) fn write_all(endpoints: &[Self], writer: &mut Writer) -> Result<(), TooLong> {
        writer.length(endpoints.len())?;
        for endpoint in endpoints {
            writer.i32(endpoint.node_id);
            writer.string(&endpoint.host)?;
            writer.i32(endpoint.port);
            writer.nullable_string(endpoint.rack.as_ref())?;
            writer.no_tags();
        }
        Ok(())
    }
}

impl ProduceResponse {
    pub(crate) fn write(&self, writer: &mut Writer, version: i16) -> Result<(), TooLong> {
        writer.length(self.topics.len())?;
        for topic in &self.topics {
            if version >= TOPIC_ID_VERSION {
                writer.uuid(topic.topic_id);
            } else {
                writer.string(&topic.name)?;
            }
            writer.length(topic.partitions.len())?;
            for partition in &topic.partitions {
                partition.write(writer, version)?;
            }
            writer.no_tags();
        }
        writer.i32(self.throttle_time_ms);
        if version >= CURRENT_LEADER_VERSION && !self.node_endpoints.is_empty() {
            writer.tag_count(1);
            return writer.tag(0, |writer| NodeEndpoint::write_all(&self.node_endpoints, writer));
        }
        writer.no_tags();
        Ok(())
    }
}
