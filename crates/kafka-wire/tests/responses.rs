//! A response filled in for one version encodes in every other one, and reads back there.

mod support;

use bytes::Bytes;
use kafka_wire::client::{ClientRequest, decode_response};
use kafka_wire::fetch::{FetchPartitionResponse, FetchResponse, FetchTopicResponse};
use kafka_wire::messages as m;
use kafka_wire::produce::{
    LeaderIdAndEpoch, NodeEndpoint, ProducePartitionResponse, ProduceResponse,
    ProduceTopicResponse, RecordError,
};
use kafka_wire::{ApiKey, EncodeError, ErrorCode, RequestHeader, Response, StrBytes, encode};

fn header(api_key: ApiKey, api_version: i16) -> RequestHeader {
    RequestHeader { api_key, api_version, correlation_id: 5, client_id: None }
}

/// Encodes for every version and reads it back with the codec.
fn in_every_version<R: ClientRequest>(response: Response) {
    let api = response.api_key().api();
    for version in api.min..=api.max {
        let pieces = encode(&header(api.key, version), response.clone())
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", api.key));
        let frame = Bytes::from(pieces.concat()).split_off(4);
        let (correlation_id, _) = decode_response::<R>(version, frame)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", api.key));
        assert_eq!(correlation_id, 5);
    }
}

macro_rules! every_golden_in_every_version {
    ($($test:ident: $variant:ident, $request:ty;)*) => {$(
        #[test]
        fn $test() {
            for golden in support::responses() {
                if golden.api_key == ApiKey::$variant {
                    let frame = golden.bytes().freeze();
                    let decoded = decode_response::<$request>(golden.version, frame);
                    let (_, body) = decoded.expect("golden");
                    in_every_version::<$request>(Response::$variant(body));
                }
            }
        }
    )*};
}

every_golden_in_every_version! {
    list_offsets: ListOffsets, m::ListOffsetsRequest;
    metadata: Metadata, m::MetadataRequest;
    offset_commit: OffsetCommit, m::OffsetCommitRequest;
    offset_fetch: OffsetFetch, m::OffsetFetchRequest;
    find_coordinator: FindCoordinator, m::FindCoordinatorRequest;
    join_group: JoinGroup, m::JoinGroupRequest;
    heartbeat: Heartbeat, m::HeartbeatRequest;
    leave_group: LeaveGroup, m::LeaveGroupRequest;
    sync_group: SyncGroup, m::SyncGroupRequest;
    create_topics: CreateTopics, m::CreateTopicsRequest;
    delete_topics: DeleteTopics, m::DeleteTopicsRequest;
    delete_records: DeleteRecords, m::DeleteRecordsRequest;
    init_producer_id: InitProducerId, m::InitProducerIdRequest;
    offset_for_leader_epoch: OffsetForLeaderEpoch, m::OffsetForLeaderEpochRequest;
    describe_configs: DescribeConfigs, m::DescribeConfigsRequest;
    alter_configs: AlterConfigs, m::AlterConfigsRequest;
    describe_log_dirs: DescribeLogDirs, m::DescribeLogDirsRequest;
    elect_leaders: ElectLeaders, m::ElectLeadersRequest;
    incremental_alter_configs: IncrementalAlterConfigs, m::IncrementalAlterConfigsRequest;
    alter_partition_reassignments: AlterPartitionReassignments,
        m::AlterPartitionReassignmentsRequest;
    list_partition_reassignments: ListPartitionReassignments, m::ListPartitionReassignmentsRequest;
    describe_cluster: DescribeCluster, m::DescribeClusterRequest;
    unregister_broker: UnregisterBroker, m::UnregisterBrokerRequest;
    add_raft_voter: AddRaftVoter, m::AddRaftVoterRequest;
    remove_raft_voter: RemoveRaftVoter, m::RemoveRaftVoterRequest;
}

/// Version 0 cannot say that the number of replicas is to stay.
#[test]
fn a_reassignment_that_keeps_the_factor() {
    let response = m::AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(false)
        .with_error_message(None);
    in_every_version::<m::AlterPartitionReassignmentsRequest>(
        Response::AlterPartitionReassignments(response),
    );
}

#[test]
fn produce_with_everything() {
    let text = StrBytes::from_static_str;
    let partition = ProducePartitionResponse {
        record_errors: vec![RecordError { batch_index: 1, message: Some(text("bad")) }],
        error_message: Some(text("worse")),
        current_leader: Some(LeaderIdAndEpoch { leader_id: 2, leader_epoch: 3 }),
        ..ProducePartitionResponse::failed(4, ErrorCode::NotLeaderOrFollower)
    };
    let response = ProduceResponse {
        topics: vec![ProduceTopicResponse { partitions: vec![partition], ..Default::default() }],
        throttle_time_ms: 1,
        node_endpoints: vec![NodeEndpoint { node_id: 2, host: text("h"), port: 9, rack: None }],
    };
    in_every_version::<m::ProduceRequest>(Response::Produce(response));
}

fn fetch(records: Vec<Bytes>) -> Response {
    let partition = FetchPartitionResponse {
        current_leader: Some(LeaderIdAndEpoch { leader_id: 2, leader_epoch: 3 }),
        records,
        ..FetchPartitionResponse::empty(4)
    };
    let topics = vec![FetchTopicResponse { partitions: vec![partition], ..Default::default() }];
    Response::Fetch(FetchResponse { topics, ..Default::default() })
}

#[test]
fn fetched_records_are_pieces_and_not_copies() {
    let records = [Bytes::from(vec![1; 5000]), Bytes::from(vec![2; 70_000])];
    for version in 4..=18 {
        let response = fetch(records.to_vec());
        let pieces = encode(&header(ApiKey::Fetch, version), response).expect("short");
        for batch in &records {
            let same = |piece: &&Bytes| piece.as_ptr() == batch.as_ptr() && piece == &batch;
            assert_eq!(pieces.iter().filter(same).count(), 1, "v{version}");
        }
        let frame = Bytes::from(pieces.concat()).split_off(4);
        let decoded = decode_response::<m::FetchRequest>(version, frame);
        let body = decoded.expect("own encoding").1;
        let read = body.responses[0].partitions[0].records.as_ref();
        assert_eq!(read, Some(&Bytes::from(records.concat())));
    }
}

#[test]
fn empty_records_are_never_null() {
    for version in 4..=18 {
        let pieces = encode(&header(ApiKey::Fetch, version), fetch(Vec::new())).expect("short");
        let frame = Bytes::from(pieces.concat()).split_off(4);
        let decoded = decode_response::<m::FetchRequest>(version, frame);
        let body = decoded.expect("own encoding").1;
        assert_eq!(body.responses[0].partitions[0].records, Some(Bytes::new()), "v{version}");
    }
}

/// Error replies: the name is "" for those who read no null, null from v7 on.
#[test]
fn join_group_names_no_protocol_as_the_version_wants() {
    let failed = m::JoinGroupResponse::default().with_protocol_name(None);
    for version in 0..=9 {
        let response = Response::JoinGroup(failed.clone());
        let pieces = encode(&header(ApiKey::JoinGroup, version), response).expect("short");
        let frame = Bytes::from(pieces.concat()).split_off(4);
        let decoded = decode_response::<m::JoinGroupRequest>(version, frame);
        let name = decoded.expect("own encoding").1.protocol_name;
        assert_eq!(name, (version < 7).then(StrBytes::new), "v{version}");
    }
}

#[test]
fn a_response_of_another_api_is_refused() {
    let response = Response::Heartbeat(m::HeartbeatResponse::default());
    let error = encode(&header(ApiKey::Metadata, 1), response).expect_err("another API");
    assert!(matches!(error, EncodeError::OtherApi { .. }), "{error}");
}
