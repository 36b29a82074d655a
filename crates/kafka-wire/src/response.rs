//! Typed responses to the pieces of a frame.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::Encodable;

use crate::api::ApiKey;
use crate::api_versions::ApiVersionsResponse;
use crate::fetch::FetchResponse;
use crate::produce::ProduceResponse;
use crate::request::RequestHeader;
use crate::writer::{TooLong, Writer};

mod downgrade;

const PREFIX_SIZE: usize = 4;
/// ListOffsets v11 only allows one more special timestamp: it has the layout of v10, the last
/// that the codec knows.
pub(crate) const LIST_OFFSETS_CODEC_MAX: i16 = 10;

/// A response body; the variant must be the one of the request's API.
#[derive(Clone, Debug)]
pub enum Response {
    Produce(ProduceResponse),
    Fetch(FetchResponse),
    ListOffsets(m::ListOffsetsResponse),
    Metadata(m::MetadataResponse),
    OffsetCommit(m::OffsetCommitResponse),
    OffsetFetch(m::OffsetFetchResponse),
    FindCoordinator(m::FindCoordinatorResponse),
    JoinGroup(m::JoinGroupResponse),
    Heartbeat(m::HeartbeatResponse),
    LeaveGroup(m::LeaveGroupResponse),
    SyncGroup(m::SyncGroupResponse),
    ApiVersions(ApiVersionsResponse),
    CreateTopics(m::CreateTopicsResponse),
    DeleteTopics(m::DeleteTopicsResponse),
    DeleteRecords(m::DeleteRecordsResponse),
    InitProducerId(m::InitProducerIdResponse),
    OffsetForLeaderEpoch(m::OffsetForLeaderEpochResponse),
    DescribeConfigs(m::DescribeConfigsResponse),
    AlterConfigs(m::AlterConfigsResponse),
    DescribeLogDirs(m::DescribeLogDirsResponse),
    ElectLeaders(m::ElectLeadersResponse),
    IncrementalAlterConfigs(m::IncrementalAlterConfigsResponse),
    AlterPartitionReassignments(m::AlterPartitionReassignmentsResponse),
    ListPartitionReassignments(m::ListPartitionReassignmentsResponse),
    DescribeCluster(m::DescribeClusterResponse),
    UnregisterBroker(m::UnregisterBrokerResponse),
    AddRaftVoter(m::AddRaftVoterResponse),
    RemoveRaftVoter(m::RemoveRaftVoterResponse),
}

/// Why a response cannot be sent. It is a fault of ours: the connection must be closed.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("{api_key} version {version}: {error}")]
    Codec { api_key: ApiKey, version: i16, error: kafka_protocol::error::ProtoError },
    #[error("{api_key} version {version}: a field or the frame is too long")]
    TooLong { api_key: ApiKey, version: i16 },
    #[error("a response of {response} to a request of {request}")]
    OtherApi { request: ApiKey, response: ApiKey },
}

impl Response {
    /// The API that this is a response of.
    pub fn api_key(&self) -> ApiKey {
        match self {
            Self::Produce(_) => ApiKey::Produce,
            Self::Fetch(_) => ApiKey::Fetch,
            Self::ListOffsets(_) => ApiKey::ListOffsets,
            Self::Metadata(_) => ApiKey::Metadata,
            Self::OffsetCommit(_) => ApiKey::OffsetCommit,
            Self::OffsetFetch(_) => ApiKey::OffsetFetch,
            Self::FindCoordinator(_) => ApiKey::FindCoordinator,
            Self::JoinGroup(_) => ApiKey::JoinGroup,
            Self::Heartbeat(_) => ApiKey::Heartbeat,
            Self::LeaveGroup(_) => ApiKey::LeaveGroup,
            Self::SyncGroup(_) => ApiKey::SyncGroup,
            Self::ApiVersions(_) => ApiKey::ApiVersions,
            Self::CreateTopics(_) => ApiKey::CreateTopics,
            Self::DeleteTopics(_) => ApiKey::DeleteTopics,
            Self::DeleteRecords(_) => ApiKey::DeleteRecords,
            Self::InitProducerId(_) => ApiKey::InitProducerId,
            Self::OffsetForLeaderEpoch(_) => ApiKey::OffsetForLeaderEpoch,
            Self::DescribeConfigs(_) => ApiKey::DescribeConfigs,
            Self::AlterConfigs(_) => ApiKey::AlterConfigs,
            Self::DescribeLogDirs(_) => ApiKey::DescribeLogDirs,
            Self::ElectLeaders(_) => ApiKey::ElectLeaders,
            Self::IncrementalAlterConfigs(_) => ApiKey::IncrementalAlterConfigs,
            Self::AlterPartitionReassignments(_) => ApiKey::AlterPartitionReassignments,
            Self::ListPartitionReassignments(_) => ApiKey::ListPartitionReassignments,
            Self::DescribeCluster(_) => ApiKey::DescribeCluster,
            Self::UnregisterBroker(_) => ApiKey::UnregisterBroker,
            Self::AddRaftVoter(_) => ApiKey::AddRaftVoter,
            Self::RemoveRaftVoter(_) => ApiKey::RemoveRaftVoter,
        }
    }
}

/// Encodes the reply to the request with this header: length prefix, response header and body.
///
/// The pieces go out in order, as they are: `records` of a Fetch reply are not copied. Fields that
/// the version lacks are dropped first, so any response may be given for any served version.
pub fn encode(header: &RequestHeader, response: Response) -> Result<Vec<Bytes>, EncodeError> {
    let (api_key, version) = (header.api_key, header.api_version);
    if response.api_key() != api_key {
        return Err(EncodeError::OtherApi { request: api_key, response: response.api_key() });
    }
    let too_long = |TooLong| EncodeError::TooLong { api_key, version };
    let mut writer = Writer::new(api_key.is_flexible(version));
    // The frame's length, known at the end.
    writer.i32(0);
    writer.i32(header.correlation_id);
    if api_key.response_header_version(version) >= 1 {
        writer.no_tags();
    }
    encode_body(version, response, &mut writer, api_key)?;
    let mut pieces = writer.finish();
    set_length(&mut pieces).map_err(too_long)?;
    Ok(pieces)
}

fn encode_body(
    version: i16,
    response: Response,
    writer: &mut Writer,
    api_key: ApiKey,
) -> Result<(), EncodeError> {
    let too_long = |TooLong| EncodeError::TooLong { api_key, version };
    let sink = |message: Result<(), kafka_protocol::error::ProtoError>| {
        message.map_err(|error| EncodeError::Codec { api_key, version, error })
    };
    let response = downgrade::to_version(response, version);
    match response {
        Response::Produce(body) => body.write(writer, version).map_err(too_long),
        Response::Fetch(body) => body.write(writer, version).map_err(too_long),
        Response::ApiVersions(body) => {
            let layout_version = ApiVersionsResponse::layout_version(version);
            writer.set_flexible(api_key.is_flexible(layout_version));
            body.write(writer, layout_version).map_err(too_long)
        }
        Response::ListOffsets(body) => {
            sink(body.encode(writer.buf(), version.min(LIST_OFFSETS_CODEC_MAX)))
        }
        Response::Metadata(body) => sink(body.encode(writer.buf(), version)),
        Response::OffsetCommit(body) => sink(body.encode(writer.buf(), version)),
        Response::OffsetFetch(body) => sink(body.encode(writer.buf(), version)),
        Response::FindCoordinator(body) => sink(body.encode(writer.buf(), version)),
        Response::JoinGroup(body) => sink(body.encode(writer.buf(), version)),
        Response::Heartbeat(body) => sink(body.encode(writer.buf(), version)),
        Response::LeaveGroup(body) => sink(body.encode(writer.buf(), version)),
        Response::SyncGroup(body) => sink(body.encode(writer.buf(), version)),
        Response::CreateTopics(body) => sink(body.encode(writer.buf(), version)),
        Response::DeleteTopics(body) => sink(body.encode(writer.buf(), version)),
        Response::DeleteRecords(body) => sink(body.encode(writer.buf(), version)),
        Response::InitProducerId(body) => sink(body.encode(writer.buf(), version)),
        Response::OffsetForLeaderEpoch(body) => sink(body.encode(writer.buf(), version)),
        Response::DescribeConfigs(body) => sink(body.encode(writer.buf(), version)),
        Response::AlterConfigs(body) => sink(body.encode(writer.buf(), version)),
        Response::DescribeLogDirs(body) => sink(body.encode(writer.buf(), version)),
        Response::ElectLeaders(body) => sink(body.encode(writer.buf(), version)),
        Response::IncrementalAlterConfigs(body) => sink(body.encode(writer.buf(), version)),
        Response::AlterPartitionReassignments(body) => sink(body.encode(writer.buf(), version)),
        Response::ListPartitionReassignments(body) => sink(body.encode(writer.buf(), version)),
        Response::DescribeCluster(body) => sink(body.encode(writer.buf(), version)),
        Response::UnregisterBroker(body) => sink(body.encode(writer.buf(), version)),
        Response::AddRaftVoter(body) => sink(body.encode(writer.buf(), version)),
        Response::RemoveRaftVoter(body) => sink(body.encode(writer.buf(), version)),
    }
}

/// Writes the frame's length into the first piece, which nobody else holds yet.
pub(crate) fn set_length(pieces: &mut [Bytes]) -> Result<(), TooLong> {
    let size = pieces.iter().try_fold(0usize, |sum, piece| sum.checked_add(piece.len()));
    let length = size.and_then(|size| size.checked_sub(PREFIX_SIZE)).ok_or(TooLong)?;
    let length = i32::try_from(length).map_err(|_| TooLong)?;
    let first = pieces.first_mut().ok_or(TooLong)?;
    let mut head = BytesMut::from(std::mem::take(first));
    if let Some(prefix) = head.first_chunk_mut::<PREFIX_SIZE>() {
        *prefix = length.to_be_bytes();
    }
    *first = head.freeze();
    Ok(())
}
