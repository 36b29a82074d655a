//! The client's side, for the load generator, tools and tests: requests to frames, replies back.
//!
//! Requests and replies are the codec's types ([`crate::messages`]), but for ApiVersions, whose
//! request is [`ApiVersionsRequest`]. Unlike the broker's side, replies are trusted: nothing here
//! bounds what they cost.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::error::ProtoError;
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::api::ApiKey;
use crate::api_versions::ApiVersionsRequest;
use crate::offset_ids;
use crate::response::{LIST_OFFSETS_CODEC_MAX, set_length};
use crate::writer::{TooLong, Writer};

/// Why a request cannot be encoded or a reply decoded.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{api_key} version {version}: {error}")]
    Codec { api_key: ApiKey, version: i16, error: ProtoError },
    #[error("{api_key} version {version}: a field is too long")]
    TooLong { api_key: ApiKey, version: i16 },
    #[error("the reply is cut short")]
    CutShort,
}

/// A request that can be sent, and the type of its reply.
pub trait ClientRequest {
    const API_KEY: ApiKey;
    type Response: Decodable;

    /// Appends the body of this version.
    fn encode_body(&self, out: &mut BytesMut, version: i16) -> Result<(), ClientError>;
}

/// A frame, length prefix included, ready to be sent.
///
/// Fields that the version lacks must have their default values.
pub fn encode_request<R: ClientRequest>(
    version: i16,
    correlation_id: i32,
    client_id: &str,
    request: &R,
) -> Result<Bytes, ClientError> {
    let api_key = R::API_KEY;
    let too_long = |TooLong| ClientError::TooLong { api_key, version };
    let mut writer = Writer::new(false);
    writer.i32(0);
    writer.i16(api_key.code());
    writer.i16(version);
    writer.i32(correlation_id);
    writer.string(client_id).map_err(too_long)?;
    writer.set_flexible(api_key.is_flexible(version));
    writer.no_tags();
    request.encode_body(writer.buf(), version)?;
    let mut pieces = writer.finish();
    set_length(&mut pieces).map_err(too_long)?;
    Ok(pieces.pop().unwrap_or_default())
}

/// Decodes a reply (without its length prefix) to a request of this version: correlation id and
/// body.
pub fn decode_response<R: ClientRequest>(
    version: i16,
    mut frame: Bytes,
) -> Result<(i32, R::Response), ClientError> {
    let api_key = R::API_KEY;
    let correlation_id = frame.try_get_i32().map_err(|_| ClientError::CutShort)?;
    if api_key.response_header_version(version) >= 1 {
        // Nobody sends tagged fields here.
        frame.try_get_u8().map_err(|_| ClientError::CutShort)?;
    }
    let codec_version = match api_key {
        // The highest version that the codec knows; the layouts above are the same.
        ApiKey::ApiVersions => version.min(4),
        ApiKey::ListOffsets => version.min(LIST_OFFSETS_CODEC_MAX),
        _ => version,
    };
    let body = R::Response::decode(&mut frame, codec_version);
    let body = body.map_err(|error| ClientError::Codec { api_key, version, error })?;
    Ok((correlation_id, body))
}

/// The correlation id of a reply (without its length prefix).
pub fn correlation_id(frame: &[u8]) -> Option<i32> {
    frame.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes))
}

/// Requests that the codec can encode in every version served.
macro_rules! codec_requests {
    ($($api:ident: $request:ty => $response:ty;)*) => {$(
        impl ClientRequest for $request {
            const API_KEY: ApiKey = ApiKey::$api;
            type Response = $response;

            fn encode_body(&self, out: &mut BytesMut, version: i16) -> Result<(), ClientError> {
                codec_body(ApiKey::$api, self, out, version)
            }
        }
    )*};
}

codec_requests! {
    Produce: m::ProduceRequest => m::ProduceResponse;
    Fetch: m::FetchRequest => m::FetchResponse;
    Metadata: m::MetadataRequest => m::MetadataResponse;
    FindCoordinator: m::FindCoordinatorRequest => m::FindCoordinatorResponse;
    JoinGroup: m::JoinGroupRequest => m::JoinGroupResponse;
    Heartbeat: m::HeartbeatRequest => m::HeartbeatResponse;
    LeaveGroup: m::LeaveGroupRequest => m::LeaveGroupResponse;
    SyncGroup: m::SyncGroupRequest => m::SyncGroupResponse;
    CreateTopics: m::CreateTopicsRequest => m::CreateTopicsResponse;
    DeleteTopics: m::DeleteTopicsRequest => m::DeleteTopicsResponse;
    DeleteRecords: m::DeleteRecordsRequest => m::DeleteRecordsResponse;
    InitProducerId: m::InitProducerIdRequest => m::InitProducerIdResponse;
    OffsetForLeaderEpoch: m::OffsetForLeaderEpochRequest => m::OffsetForLeaderEpochResponse;
    DescribeConfigs: m::DescribeConfigsRequest => m::DescribeConfigsResponse;
    AlterConfigs: m::AlterConfigsRequest => m::AlterConfigsResponse;
    DescribeLogDirs: m::DescribeLogDirsRequest => m::DescribeLogDirsResponse;
    ElectLeaders: m::ElectLeadersRequest => m::ElectLeadersResponse;
    IncrementalAlterConfigs: m::IncrementalAlterConfigsRequest
        => m::IncrementalAlterConfigsResponse;
    AlterPartitionReassignments: m::AlterPartitionReassignmentsRequest
        => m::AlterPartitionReassignmentsResponse;
    ListPartitionReassignments: m::ListPartitionReassignmentsRequest
        => m::ListPartitionReassignmentsResponse;
    DescribeCluster: m::DescribeClusterRequest => m::DescribeClusterResponse;
    UnregisterBroker: m::UnregisterBrokerRequest => m::UnregisterBrokerResponse;
    AddRaftVoter: m::AddRaftVoterRequest => m::AddRaftVoterResponse;
    RemoveRaftVoter: m::RemoveRaftVoterRequest => m::RemoveRaftVoterResponse;
}

impl ClientRequest for ApiVersionsRequest {
    const API_KEY: ApiKey = ApiKey::ApiVersions;
    type Response = m::ApiVersionsResponse;

    fn encode_body(&self, out: &mut BytesMut, version: i16) -> Result<(), ClientError> {
        own_body(Self::API_KEY, out, version, |writer| self.write(writer, version))
    }
}

impl ClientRequest for m::ListOffsetsRequest {
    const API_KEY: ApiKey = ApiKey::ListOffsets;
    type Response = m::ListOffsetsResponse;

    fn encode_body(&self, out: &mut BytesMut, version: i16) -> Result<(), ClientError> {
        codec_body(Self::API_KEY, self, out, version.min(LIST_OFFSETS_CODEC_MAX))
    }
}

impl ClientRequest for m::OffsetCommitRequest {
    const API_KEY: ApiKey = ApiKey::OffsetCommit;
    type Response = m::OffsetCommitResponse;

    fn encode_body(&self, out: &mut BytesMut, version: i16) -> Result<(), ClientError> {
        if version < offset_ids::VERSION {
            return codec_body(Self::API_KEY, self, out, version);
        }
        own_body(Self::API_KEY, out, version, |writer| offset_ids::write_commit(self, writer))
    }
}

impl ClientRequest for m::OffsetFetchRequest {
    const API_KEY: ApiKey = ApiKey::OffsetFetch;
    type Response = m::OffsetFetchResponse;

    fn encode_body(&self, out: &mut BytesMut, version: i16) -> Result<(), ClientError> {
        if version < offset_ids::VERSION {
            return codec_body(Self::API_KEY, self, out, version);
        }
        own_body(Self::API_KEY, out, version, |writer| offset_ids::write_fetch(self, writer))
    }
}

fn codec_body<T: Encodable>(
    api_key: ApiKey,
    body: &T,
    out: &mut BytesMut,
    version: i16,
) -> Result<(), ClientError> {
    body.encode(out, version).map_err(|error| ClientError::Codec { api_key, version, error })
}

fn own_body(
    api_key: ApiKey,
    out: &mut BytesMut,
    version: i16,
    write: impl FnOnce(&mut Writer) -> Result<(), TooLong>,
) -> Result<(), ClientError> {
    let mut writer = Writer::new(api_key.is_flexible(version));
    write(&mut writer).map_err(|TooLong| ClientError::TooLong { api_key, version })?;
    writer.finish().iter().for_each(|piece| out.extend_from_slice(piece));
    Ok(())
}
