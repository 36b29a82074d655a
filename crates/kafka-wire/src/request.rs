//! Frames to typed requests.

use bytes::BytesMut;
use kafka_protocol::messages as m;
use kafka_protocol::protocol::StrBytes;

use crate::api::ApiKey;
use crate::api_versions::ApiVersionsRequest;
use crate::guard;
use crate::offset_ids;
use crate::produce::ProduceRequest;
use crate::reader::{Fault, Reader};

/// A request header, v1 or v2; the version follows from API and version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestHeader {
    pub api_key: ApiKey,
    pub api_version: i16,
    /// Chosen by the client, repeated in the reply.
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

/// A decoded request body. Types not of this crate are the codec's ([`crate::messages`]).
#[derive(Debug)]
pub enum Request {
    Produce(ProduceRequest),
    Fetch(m::FetchRequest),
    ListOffsets(m::ListOffsetsRequest),
    Metadata(m::MetadataRequest),
    OffsetCommit(m::OffsetCommitRequest),
    OffsetFetch(m::OffsetFetchRequest),
    FindCoordinator(m::FindCoordinatorRequest),
    JoinGroup(m::JoinGroupRequest),
    Heartbeat(m::HeartbeatRequest),
    LeaveGroup(m::LeaveGroupRequest),
    SyncGroup(m::SyncGroupRequest),
    ApiVersions(ApiVersionsRequest),
    /// ApiVersions in a version above ours: its body is not read. Answer with
    /// [`crate::api_versions::ApiVersionsResponse::unsupported_version`].
    ApiVersionsUnsupported,
    CreateTopics(m::CreateTopicsRequest),
    DeleteTopics(m::DeleteTopicsRequest),
    DeleteRecords(m::DeleteRecordsRequest),
    InitProducerId(m::InitProducerIdRequest),
    OffsetForLeaderEpoch(m::OffsetForLeaderEpochRequest),
    DescribeConfigs(m::DescribeConfigsRequest),
    AlterConfigs(m::AlterConfigsRequest),
    DescribeLogDirs(m::DescribeLogDirsRequest),
    ElectLeaders(m::ElectLeadersRequest),
    IncrementalAlterConfigs(m::IncrementalAlterConfigsRequest),
    AlterPartitionReassignments(m::AlterPartitionReassignmentsRequest),
    ListPartitionReassignments(m::ListPartitionReassignmentsRequest),
    DescribeCluster(m::DescribeClusterRequest),
    UnregisterBroker(m::UnregisterBrokerRequest),
    AddRaftVoter(m::AddRaftVoterRequest),
    RemoveRaftVoter(m::RemoveRaftVoterRequest),
}

/// Why a frame is no request of ours. The connection must be closed for each of them.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("request header: {what}")]
    Header { what: &'static str },
    #[error("API key {api_key} is not served")]
    UnsupportedApi { api_key: i16 },
    #[error("{api_key} version {version} is not served")]
    UnsupportedVersion { api_key: ApiKey, version: i16 },
    #[error("{api_key} version {version}: {what}")]
    Malformed { api_key: ApiKey, version: i16, what: &'static str },
    /// The codec refused a field's value, such as a string that is not UTF-8.
    #[error("{api_key} version {version}: {error}")]
    Codec { api_key: ApiKey, version: i16, error: kafka_protocol::error::ProtoError },
}

/// Decodes one frame (without its length prefix).
///
/// Bytes left over after the body and unknown tagged fields are ignored. Strings and byte fields
/// of the result are views into the frame. Memory beyond the frame is at most 64 KiB and 32 times
/// its length.
pub fn decode(frame: BytesMut) -> Result<(RequestHeader, Request), DecodeError> {
    let (header, body) = decode_header(frame)?;
    let request = decode_body(&header, body)?;
    Ok((header, request))
}

fn decode_header(frame: BytesMut) -> Result<(RequestHeader, BytesMut), DecodeError> {
    let fault = |Fault(what)| DecodeError::Header { what };
    let mut reader = Reader::new(frame, false);
    let code = reader.i16().map_err(fault)?;
    let api_version = reader.i16().map_err(fault)?;
    let correlation_id = reader.i32().map_err(fault)?;
    let api_key = ApiKey::from_code(code).ok_or(DecodeError::UnsupportedApi { api_key: code })?;
    let newer_api_versions = api_key == ApiKey::ApiVersions && api_version > api_key.api().max;
    if newer_api_versions {
        // The header of a future version need not look like ours.
        let header = RequestHeader { api_key, api_version, correlation_id, client_id: None };
        return Ok((header, BytesMut::new()));
    }
    if !api_key.serves(api_version) {
        return Err(DecodeError::UnsupportedVersion { api_key, version: api_version });
    }
    let client_id = reader.nullable_string_i16().map_err(fault)?;
    reader.set_flexible(api_key.is_flexible(api_version));
    reader.skip_tags().map_err(fault)?;
    let header = RequestHeader { api_key, api_version, correlation_id, client_id };
    Ok((header, reader.into_rest()))
}

fn decode_body(header: &RequestHeader, body: BytesMut) -> Result<Request, DecodeError> {
    let (api_key, version) = (header.api_key, header.api_version);
    guard::check(api_key, version, &body)?;
    let fault = |Fault(what)| DecodeError::Malformed { api_key, version, what };
    let reader = |body| Reader::new(body, api_key.is_flexible(version));
    Ok(match api_key {
        ApiKey::Produce => {
            Request::Produce(ProduceRequest::read(reader(body), version).map_err(fault)?)
        }
        ApiKey::ApiVersions if version > api_key.api().max => Request::ApiVersionsUnsupported,
        ApiKey::ApiVersions => {
            Request::ApiVersions(ApiVersionsRequest::read(reader(body), version).map_err(fault)?)
        }
        ApiKey::OffsetCommit if version >= offset_ids::VERSION => {
            Request::OffsetCommit(offset_ids::read_commit(reader(body)).map_err(fault)?)
        }
        ApiKey::OffsetFetch if version >= offset_ids::VERSION => {
            Request::OffsetFetch(offset_ids::read_fetch(reader(body)).map_err(fault)?)
        }
        ApiKey::Fetch => Request::Fetch(guard::decode(header, body)?),
        ApiKey::ListOffsets => Request::ListOffsets(guard::decode(header, body)?),
        ApiKey::Metadata => Request::Metadata(guard::decode(header, body)?),
        ApiKey::OffsetCommit => Request::OffsetCommit(guard::decode(header, body)?),
        ApiKey::OffsetFetch => Request::OffsetFetch(guard::decode(header, body)?),
        ApiKey::FindCoordinator => Request::FindCoordinator(guard::decode(header, body)?),
        ApiKey::JoinGroup => Request::JoinGroup(guard::decode(header, body)?),
        ApiKey::Heartbeat => Request::Heartbeat(guard::decode(header, body)?),
        ApiKey::LeaveGroup => Request::LeaveGroup(guard::decode(header, body)?),
        ApiKey::SyncGroup => Request::SyncGroup(guard::decode(header, body)?),
        ApiKey::CreateTopics => Request::CreateTopics(guard::decode(header, body)?),
        ApiKey::DeleteTopics => Request::DeleteTopics(guard::decode(header, body)?),
        ApiKey::DeleteRecords => Request::DeleteRecords(guard::decode(header, body)?),
        ApiKey::InitProducerId => Request::InitProducerId(guard::decode(header, body)?),
        ApiKey::OffsetForLeaderEpoch => Request::OffsetForLeaderEpoch(guard::decode(header, body)?),
        ApiKey::DescribeConfigs => Request::DescribeConfigs(guard::decode(header, body)?),
        ApiKey::AlterConfigs => Request::AlterConfigs(guard::decode(header, body)?),
        ApiKey::DescribeLogDirs => Request::DescribeLogDirs(guard::decode(header, body)?),
        ApiKey::ElectLeaders => Request::ElectLeaders(guard::decode(header, body)?),
        ApiKey::IncrementalAlterConfigs => {
            Request::IncrementalAlterConfigs(guard::decode(header, body)?)
        }
        ApiKey::AlterPartitionReassignments => {
            Request::AlterPartitionReassignments(guard::decode(header, body)?)
        }
        ApiKey::ListPartitionReassignments => {
            Request::ListPartitionReassignments(guard::decode(header, body)?)
        }
        ApiKey::DescribeCluster => Request::DescribeCluster(guard::decode(header, body)?),
        ApiKey::UnregisterBroker => Request::UnregisterBroker(guard::decode(header, body)?),
        ApiKey::AddRaftVoter => Request::AddRaftVoter(guard::decode(header, body)?),
        ApiKey::RemoveRaftVoter => Request::RemoveRaftVoter(guard::decode(header, body)?),
    })
}
