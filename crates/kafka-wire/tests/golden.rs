//! Every API and version against frames written by Kafka 4.4's own classes: a request decodes and
//! encodes to the same bytes, and so does a response.

mod support;

use bytes::Bytes;
use kafka_wire::api::APIS;
use kafka_wire::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_wire::api_versions::{FinalizedFeature, SupportedFeature, VersionRange};
use kafka_wire::client::{ClientRequest, decode_response, encode_request};
use kafka_wire::fetch::{
    AbortedTransaction, EpochEndOffset, FetchPartitionResponse, FetchResponse, FetchTopicResponse,
};
use kafka_wire::messages as m;
use kafka_wire::produce::{
    LeaderIdAndEpoch, NodeEndpoint, ProducePartitionResponse, ProduceRequest, ProduceResponse,
    ProduceTopicResponse, RecordError,
};
use kafka_wire::{ApiKey, ErrorCode, Request, RequestHeader, Response, decode, encode};
use support::Golden;

#[test]
fn every_served_version_has_golden_frames() {
    let frames = support::frames();
    for api in APIS {
        for version in api.min..=api.max {
            let here = |golden: &&Golden| golden.api_key == api.key && golden.version == version;
            assert_eq!(frames.iter().filter(here).count(), 2, "{} v{version}", api.key);
        }
    }
}

#[test]
fn requests_decode_and_encode_to_kafkas_bytes() {
    for golden in support::requests() {
        let name = golden.name();
        let (header, request) = decode(golden.bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(header.api_key, golden.api_key);
        assert_eq!(header.api_version, golden.version);
        assert_eq!(header.correlation_id, 77);
        assert_eq!(header.client_id.as_deref(), Some("golden"));
        let again = reencode(request, golden.version);
        assert_eq!(hex(&again[4..]), hex(&golden.frame), "{name}");
        let length = u32::from_be_bytes(again[..4].try_into().expect("four bytes"));
        assert_eq!(usize::try_from(length), Ok(golden.frame.len()), "{name}");
    }
}

#[test]
fn responses_decode_and_encode_to_kafkas_bytes() {
    for golden in support::responses() {
        let name = golden.name();
        let header = RequestHeader {
            api_key: golden.api_key,
            api_version: golden.version,
            correlation_id: 77,
            client_id: None,
        };
        let pieces = encode(&header, response(&golden)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let again = pieces.concat();
        assert_eq!(hex(&again[4..]), hex(&golden.frame), "{name}");
        let length = u32::from_be_bytes(again[..4].try_into().expect("four bytes"));
        assert_eq!(usize::try_from(length), Ok(golden.frame.len()), "{name}");
    }
}

#[test]
fn left_over_bytes_are_ignored() {
    for golden in support::requests() {
        let mut frame = golden.bytes();
        frame.extend_from_slice(&[0, 1, 0xff]);
        let (_, request) = decode(frame).unwrap_or_else(|e| panic!("{}: {e}", golden.name()));
        let again = reencode(request, golden.version);
        assert_eq!(hex(&again[4..]), hex(&golden.frame), "{}", golden.name());
    }
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    for golden in support::requests() {
        // The last byte of each flexible body is an empty tag section; Fetch's is not empty.
        let flexible = golden.api_key.is_flexible(golden.version);
        if !flexible || golden.api_key == ApiKey::Fetch {
            continue;
        }
        let mut frame = golden.bytes();
        assert_eq!(frame.last(), Some(&0), "{}", golden.name());
        frame.truncate(frame.len() - 1);
        frame.extend_from_slice(&[2, 90, 3, 1, 2, 3, 91, 0]);
        decode(frame).unwrap_or_else(|e| panic!("{}: {e}", golden.name()));
    }
}

fn reencode(request: Request, version: i16) -> Bytes {
    match request {
        Request::Produce(body) => to_frame(version, &codec_produce(body)),
        Request::Fetch(body) => to_frame(version, &body),
        Request::ListOffsets(body) => to_frame(version, &body),
        Request::Metadata(body) => to_frame(version, &body),
        Request::OffsetCommit(body) => to_frame(version, &body),
        Request::OffsetFetch(body) => to_frame(version, &body),
        Request::FindCoordinator(body) => to_frame(version, &body),
        Request::JoinGroup(body) => to_frame(version, &body),
        Request::Heartbeat(body) => to_frame(version, &body),
        Request::LeaveGroup(body) => to_frame(version, &body),
        Request::SyncGroup(body) => to_frame(version, &body),
        Request::ApiVersions(body) => to_frame(version, &body),
        Request::ApiVersionsUnsupported => panic!("v{version} is served"),
        Request::CreateTopics(body) => to_frame(version, &body),
        Request::DeleteTopics(body) => to_frame(version, &body),
        Request::DeleteRecords(body) => to_frame(version, &body),
        Request::InitProducerId(body) => to_frame(version, &body),
        Request::OffsetForLeaderEpoch(body) => to_frame(version, &body),
        Request::DescribeConfigs(body) => to_frame(version, &body),
        Request::AlterConfigs(body) => to_frame(version, &body),
        Request::DescribeLogDirs(body) => to_frame(version, &body),
        Request::ElectLeaders(body) => to_frame(version, &body),
        Request::IncrementalAlterConfigs(body) => to_frame(version, &body),
        Request::AlterPartitionReassignments(body) => to_frame(version, &body),
        Request::ListPartitionReassignments(body) => to_frame(version, &body),
        Request::DescribeCluster(body) => to_frame(version, &body),
        Request::UnregisterBroker(body) => to_frame(version, &body),
        Request::AddRaftVoter(body) => to_frame(version, &body),
        Request::RemoveRaftVoter(body) => to_frame(version, &body),
    }
}

fn to_frame<R: ClientRequest>(version: i16, request: &R) -> Bytes {
    encode_request(version, 77, "golden", request).expect("decoded from this version")
}

fn codec_produce(request: ProduceRequest) -> m::ProduceRequest {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            m::produce_request::PartitionProduceData::default()
                .with_index(partition.index)
                .with_records(partition.records.map(|records| records.freeze()))
        });
        m::produce_request::TopicProduceData::default()
            .with_name(topic.name.into())
            .with_topic_id(topic.topic_id)
            .with_partition_data(partitions.collect())
    });
    m::ProduceRequest::default()
        .with_transactional_id(request.transactional_id.map(Into::into))
        .with_acks(request.acks)
        .with_timeout_ms(request.timeout_ms)
        .with_topic_data(topics.collect())
}

fn response(golden: &Golden) -> Response {
    match golden.api_key {
        ApiKey::Produce => Response::Produce(own_produce(body::<m::ProduceRequest>(golden))),
        ApiKey::Fetch => Response::Fetch(own_fetch(body::<m::FetchRequest>(golden))),
        ApiKey::ApiVersions => {
            Response::ApiVersions(own_api_versions(body::<ApiVersionsRequest>(golden)))
        }
        ApiKey::ListOffsets => Response::ListOffsets(body::<m::ListOffsetsRequest>(golden)),
        ApiKey::Metadata => Response::Metadata(body::<m::MetadataRequest>(golden)),
        ApiKey::OffsetCommit => Response::OffsetCommit(body::<m::OffsetCommitRequest>(golden)),
        ApiKey::OffsetFetch => Response::OffsetFetch(body::<m::OffsetFetchRequest>(golden)),
        ApiKey::FindCoordinator => {
            Response::FindCoordinator(body::<m::FindCoordinatorRequest>(golden))
        }
        ApiKey::JoinGroup => Response::JoinGroup(body::<m::JoinGroupRequest>(golden)),
        ApiKey::Heartbeat => Response::Heartbeat(body::<m::HeartbeatRequest>(golden)),
        ApiKey::LeaveGroup => Response::LeaveGroup(body::<m::LeaveGroupRequest>(golden)),
        ApiKey::SyncGroup => Response::SyncGroup(body::<m::SyncGroupRequest>(golden)),
        ApiKey::CreateTopics => Response::CreateTopics(body::<m::CreateTopicsRequest>(golden)),
        ApiKey::DeleteTopics => Response::DeleteTopics(body::<m::DeleteTopicsRequest>(golden)),
        ApiKey::DeleteRecords => Response::DeleteRecords(body::<m::DeleteRecordsRequest>(golden)),
        ApiKey::InitProducerId => {
            Response::InitProducerId(body::<m::InitProducerIdRequest>(golden))
        }
        ApiKey::OffsetForLeaderEpoch => {
            Response::OffsetForLeaderEpoch(body::<m::OffsetForLeaderEpochRequest>(golden))
        }
        ApiKey::DescribeConfigs => {
            Response::DescribeConfigs(body::<m::DescribeConfigsRequest>(golden))
        }
        ApiKey::AlterConfigs => Response::AlterConfigs(body::<m::AlterConfigsRequest>(golden)),
        ApiKey::DescribeLogDirs => {
            Response::DescribeLogDirs(body::<m::DescribeLogDirsRequest>(golden))
        }
        ApiKey::IncrementalAlterConfigs => {
            Response::IncrementalAlterConfigs(body::<m::IncrementalAlterConfigsRequest>(golden))
        }
        ApiKey::ElectLeaders => Response::ElectLeaders(body::<m::ElectLeadersRequest>(golden)),
        ApiKey::AlterPartitionReassignments => {
            Response::AlterPartitionReassignments(body::<m::AlterPartitionReassignmentsRequest>(
                golden,
            ))
        }
        ApiKey::ListPartitionReassignments => {
            Response::ListPartitionReassignments(body::<m::ListPartitionReassignmentsRequest>(
                golden,
            ))
        }
        ApiKey::DescribeCluster => {
            Response::DescribeCluster(body::<m::DescribeClusterRequest>(golden))
        }
        ApiKey::UnregisterBroker => {
            Response::UnregisterBroker(body::<m::UnregisterBrokerRequest>(golden))
        }
        ApiKey::AddRaftVoter => Response::AddRaftVoter(body::<m::AddRaftVoterRequest>(golden)),
        ApiKey::RemoveRaftVoter => {
            Response::RemoveRaftVoter(body::<m::RemoveRaftVoterRequest>(golden))
        }
    }
}

fn body<R: ClientRequest>(golden: &Golden) -> R::Response {
    let frame = golden.bytes().freeze();
    let decoded = decode_response::<R>(golden.version, frame);
    let (correlation_id, body) = decoded.unwrap_or_else(|e| panic!("{}: {e}", golden.name()));
    assert_eq!(correlation_id, 77);
    body
}

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).expect("one of ours")
}

fn own_produce(body: m::ProduceResponse) -> ProduceResponse {
    let partition = |partition: m::produce_response::PartitionProduceResponse| {
        let leader = partition.current_leader;
        let error = |error: m::produce_response::BatchIndexAndErrorMessage| RecordError {
            batch_index: error.batch_index,
            message: error.batch_index_error_message,
        };
        ProducePartitionResponse {
            index: partition.index,
            error_code: code(partition.error_code),
            base_offset: partition.base_offset,
            log_append_time_ms: partition.log_append_time_ms,
            log_start_offset: partition.log_start_offset,
            record_errors: partition.record_errors.into_iter().map(error).collect(),
            error_message: partition.error_message,
            current_leader: (leader.leader_id.0 != -1).then_some(LeaderIdAndEpoch {
                leader_id: leader.leader_id.0,
                leader_epoch: leader.leader_epoch,
            }),
        }
    };
    let topic = |topic: m::produce_response::TopicProduceResponse| ProduceTopicResponse {
        name: topic.name.0,
        topic_id: topic.topic_id,
        partitions: topic.partition_responses.into_iter().map(partition).collect(),
    };
    let endpoint = |node: m::produce_response::NodeEndpoint| NodeEndpoint {
        node_id: node.node_id.0,
        host: node.host,
        port: node.port,
        rack: node.rack,
    };
    ProduceResponse {
        topics: body.responses.into_iter().map(topic).collect(),
        throttle_time_ms: body.throttle_time_ms,
        node_endpoints: body.node_endpoints.into_iter().map(endpoint).collect(),
    }
}

fn own_fetch(body: m::FetchResponse) -> FetchResponse {
    let topic = |topic: m::fetch_response::FetchableTopicResponse| FetchTopicResponse {
        name: topic.topic.0,
        topic_id: topic.topic_id,
        partitions: topic.partitions.into_iter().map(own_fetch_partition).collect(),
    };
    let endpoint = |node: m::fetch_response::NodeEndpoint| NodeEndpoint {
        node_id: node.node_id.0,
        host: node.host,
        port: node.port,
        rack: node.rack,
    };
    FetchResponse {
        throttle_time_ms: body.throttle_time_ms,
        error_code: code(body.error_code),
        session_id: body.session_id,
        topics: body.responses.into_iter().map(topic).collect(),
        node_endpoints: body.node_endpoints.into_iter().map(endpoint).collect(),
    }
}

fn own_fetch_partition(partition: m::fetch_response::PartitionData) -> FetchPartitionResponse {
    let (diverging, leader) = (partition.diverging_epoch, partition.current_leader);
    let aborted = |aborted: m::fetch_response::AbortedTransaction| AbortedTransaction {
        producer_id: aborted.producer_id.0,
        first_offset: aborted.first_offset,
    };
    // In two pieces, as the broker may have it.
    let mut records = partition.records.expect("golden frames have records");
    let first = records.split_to(records.len() / 2);
    FetchPartitionResponse {
        partition: partition.partition_index,
        error_code: code(partition.error_code),
        high_watermark: partition.high_watermark,
        last_stable_offset: partition.last_stable_offset,
        log_start_offset: partition.log_start_offset,
        diverging_epoch: (diverging.epoch != -1)
            .then_some(EpochEndOffset { epoch: diverging.epoch, end_offset: diverging.end_offset }),
        current_leader: (leader.leader_id.0 != -1).then_some(LeaderIdAndEpoch {
            leader_id: leader.leader_id.0,
            leader_epoch: leader.leader_epoch,
        }),
        aborted_transactions: partition
            .aborted_transactions
            .map(|list| list.into_iter().map(aborted).collect()),
        preferred_read_replica: partition.preferred_read_replica.0,
        records: vec![first, records],
    }
}

fn own_api_versions(body: m::ApiVersionsResponse) -> ApiVersionsResponse {
    let range = |api: m::api_versions_response::ApiVersion| VersionRange {
        api_key: api.api_key,
        min_version: api.min_version,
        max_version: api.max_version,
    };
    let supported = |feature: m::api_versions_response::SupportedFeatureKey| SupportedFeature {
        name: feature.name,
        min_version: feature.min_version,
        max_version: feature.max_version,
    };
    let finalized = |feature: m::api_versions_response::FinalizedFeatureKey| FinalizedFeature {
        name: feature.name,
        max_version_level: feature.max_version_level,
        min_version_level: feature.min_version_level,
    };
    ApiVersionsResponse {
        error_code: code(body.error_code),
        api_keys: body.api_keys.into_iter().map(range).collect(),
        throttle_time_ms: body.throttle_time_ms,
        supported_features: body.supported_features.into_iter().map(supported).collect(),
        finalized_features_epoch: body.finalized_features_epoch,
        finalized_features: body.finalized_features.into_iter().map(finalized).collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
