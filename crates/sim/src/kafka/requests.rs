//! Kafka's requests as the clients of a run send them, and the replies that come back.

use bytes::{Buf, Bytes, BytesMut};
use kafka_wire::client::{ClientRequest, decode_response, encode_request};
use kafka_wire::messages as m;
use kafka_wire::{ErrorCode, StrBytes};

use super::Topic;
use super::violation::Violation;

const CLIENT: &str = "sim";
const CREATE_TOPICS_VERSION: i16 = 5;
const DELETE_RECORDS_VERSION: i16 = 2;
const FETCH_VERSION: i16 = 12;
const INIT_PRODUCER_ID_VERSION: i16 = 4;
const PRODUCE_VERSION: i16 = 9;
const TIMEOUT_MS: i32 = 30_000;

/// What the broker says to one partition's batch.
pub(crate) struct Produced {
    pub(crate) error: ErrorCode,
    pub(crate) base_offset: i64,
    pub(crate) throttled: bool,
}

/// What a read of one partition gave.
pub(crate) struct Fetched {
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    pub(crate) records: Bytes,
}

pub(crate) fn create_topics(topics: &[Topic]) -> Bytes {
    let creatable = |topic: &Topic| {
        let config = |value: u64| {
            m::create_topics_request::CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str("retention.bytes"))
                .with_value(Some(StrBytes::from_string(value.to_string())))
        };
        m::create_topics_request::CreatableTopic::default()
            .with_name(name_of(*topic))
            .with_num_partitions(topic.partition_count)
            .with_replication_factor(-1)
            .with_configs(topic.retention_bytes.map(config).into_iter().collect())
    };
    let request = m::CreateTopicsRequest::default()
        .with_topics(topics.iter().map(creatable).collect())
        .with_timeout_ms(TIMEOUT_MS);
    encode(CREATE_TOPICS_VERSION, &request)
}

/// The first error.
pub(crate) fn created(reply: Bytes) -> Result<ErrorCode, Violation> {
    let reply = decode::<m::CreateTopicsRequest>(CREATE_TOPICS_VERSION, reply)?;
    let codes = reply.topics.iter().map(|topic| topic.error_code);
    code(codes.max().unwrap_or_default())
}

pub(crate) fn init_producer_id() -> Bytes {
    let request = m::InitProducerIdRequest::default().with_transactional_id(None);
    encode(INIT_PRODUCER_ID_VERSION, &request)
}

/// Producer id and epoch.
pub(crate) fn producer_id(reply: Bytes) -> Result<Option<(i64, i16)>, Violation> {
    let reply = decode::<m::InitProducerIdRequest>(INIT_PRODUCER_ID_VERSION, reply)?;
    let given = reply.error_code == ErrorCode::None.code();
    Ok(given.then_some((reply.producer_id.0, reply.producer_epoch)))
}

pub(crate) fn produce(topic: Topic, index: i32, acks: i16, batch: Bytes) -> Bytes {
    let partition = m::produce_request::PartitionProduceData::default()
        .with_index(index)
        .with_records(Some(batch));
    let data = m::produce_request::TopicProduceData::default()
        .with_name(name_of(topic))
        .with_partition_data(vec![partition]);
    let request = m::ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(TIMEOUT_MS)
        .with_topic_data(vec![data]);
    encode(PRODUCE_VERSION, &request)
}

pub(crate) fn produced(reply: Bytes) -> Result<Produced, Violation> {
    let reply = decode::<m::ProduceRequest>(PRODUCE_VERSION, reply)?;
    let throttled = reply.throttle_time_ms > 0;
    let partition = reply.responses.first().and_then(|topic| topic.partition_responses.first());
    let partition = partition.ok_or_else(incomplete)?;
    let error = code(partition.error_code)?;
    Ok(Produced { error, base_offset: partition.base_offset, throttled })
}

pub(crate) fn fetch(topic: Topic, index: i32, from: i64, max_bytes: i32) -> Bytes {
    let partition = m::fetch_request::FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(from)
        .with_partition_max_bytes(max_bytes);
    let topic = m::fetch_request::FetchTopic::default()
        .with_topic(name_of(topic))
        .with_partitions(vec![partition]);
    let request = m::FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(max_bytes)
        .with_topics(vec![topic]);
    encode(FETCH_VERSION, &request)
}

pub(crate) fn fetched(reply: Bytes) -> Result<Fetched, Violation> {
    let reply = decode::<m::FetchRequest>(FETCH_VERSION, reply)?;
    let topic = reply.responses.into_iter().next().ok_or_else(incomplete)?;
    let partition = topic.partitions.into_iter().next().ok_or_else(incomplete)?;
    Ok(Fetched {
        error: code(partition.error_code)?,
        high_watermark: partition.high_watermark,
        log_start: partition.log_start_offset,
        records: partition.records.unwrap_or_default(),
    })
}

pub(crate) fn delete_records(topic: Topic, index: i32, before: i64) -> Bytes {
    let partition = m::delete_records_request::DeleteRecordsPartition::default()
        .with_partition_index(index)
        .with_offset(before);
    let topic = m::delete_records_request::DeleteRecordsTopic::default()
        .with_name(name_of(topic))
        .with_partitions(vec![partition]);
    let request =
        m::DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
    encode(DELETE_RECORDS_VERSION, &request)
}

/// Where the log begins now, unless it was refused.
pub(crate) fn deleted(reply: Bytes) -> Result<Option<i64>, Violation> {
    let reply = decode::<m::DeleteRecordsRequest>(DELETE_RECORDS_VERSION, reply)?;
    let partition = reply.topics.first().and_then(|topic| topic.partitions.first());
    let partition = partition.ok_or_else(incomplete)?;
    let done = partition.error_code == ErrorCode::None.code();
    Ok(done.then_some(partition.low_watermark))
}

/// Cuts whole replies, without their length prefix, off what a connection received.
pub(crate) fn next_reply(received: &mut BytesMut) -> Option<Bytes> {
    let size = received.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))?;
    let size = usize::try_from(size).ok().filter(|size| received.len() >= size + 4)?;
    received.advance(4);
    Some(received.split_to(size).freeze())
}

fn encode<R: ClientRequest>(version: i16, request: &R) -> Bytes {
    encode_request(version, 0, CLIENT, request).expect("a request of ours fits its version")
}

fn decode<R: ClientRequest>(version: i16, reply: Bytes) -> Result<R::Response, Violation> {
    let decoded = decode_response::<R>(version, reply);
    decoded.map(|(_, body)| body).map_err(|error| Violation::Reply { reason: error.to_string() })
}

fn code(code: i16) -> Result<ErrorCode, Violation> {
    let unknown = || Violation::Reply { reason: format!("error {code}") };
    ErrorCode::from_code(code).ok_or_else(unknown)
}

fn incomplete() -> Violation {
    Violation::Reply { reason: "a partition is missing".to_owned() }
}

fn name_of(topic: Topic) -> m::TopicName {
    m::TopicName(StrBytes::from_static_str(topic.name))
}
