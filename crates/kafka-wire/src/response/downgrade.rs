//! Drops from a response what its version cannot carry.
//!
//! The codec refuses such fields; here they are reset, so that the broker fills in what it knows
//! and need not ask for the version. A field that is not null in older versions gets the value
//! those clients expect.

use kafka_protocol::messages as m;
use kafka_protocol::protocol::StrBytes;

use super::Response;

pub(super) fn to_version(mut response: Response, version: i16) -> Response {
    match &mut response {
        Response::ListOffsets(body) => list_offsets(body, version),
        Response::Metadata(body) => metadata(body, version),
        Response::OffsetFetch(body) => offset_fetch(body, version),
        Response::FindCoordinator(body) => find_coordinator(body, version),
        Response::JoinGroup(body) => join_group(body, version),
        Response::LeaveGroup(body) if version < 3 => body.members.clear(),
        Response::InitProducerId(body) => {
            body.ongoing_txn_producer_id = (-1).into();
            body.ongoing_txn_producer_epoch = -1;
        }
        Response::CreateTopics(body) => create_topics(body, version),
        Response::DeleteTopics(body) => delete_topics(body, version),
        Response::DescribeLogDirs(body) => describe_log_dirs(body, version),
        Response::ElectLeaders(body) if version < 1 => body.error_code = 0,
        Response::AlterPartitionReassignments(body) if version < 1 => {
            body.allow_replication_factor_change = true;
        }
        Response::DescribeCluster(body) => describe_cluster(body, version),
        _ => {}
    }
    response
}

fn list_offsets(body: &mut m::ListOffsetsResponse, version: i16) {
    if version < 4 {
        for partition in body.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.leader_epoch = -1;
        }
    }
}

fn metadata(body: &mut m::MetadataResponse, version: i16) {
    if !(8..=10).contains(&version) {
        body.cluster_authorized_operations = i32::MIN;
    }
    if version < 12 {
        // A topic asked for by id and not found has no name; older clients read no null.
        for topic in &mut body.topics {
            topic.name.get_or_insert_with(|| StrBytes::new().into());
        }
    }
    if version < 8 {
        for topic in &mut body.topics {
            topic.topic_authorized_operations = i32::MIN;
        }
    }
}

fn offset_fetch(body: &mut m::OffsetFetchResponse, version: i16) {
    if version < 8 {
        body.groups.clear();
    } else {
        body.topics.clear();
        body.error_code = 0;
    }
}

fn find_coordinator(body: &mut m::FindCoordinatorResponse, version: i16) {
    if version < 4 {
        body.coordinators.clear();
    } else {
        *body = m::FindCoordinatorResponse::default()
            .with_throttle_time_ms(body.throttle_time_ms)
            .with_coordinators(std::mem::take(&mut body.coordinators));
    }
}

fn join_group(body: &mut m::JoinGroupResponse, version: i16) {
    if version < 9 {
        body.skip_assignment = false;
    }
    if version < 7 {
        body.protocol_name.get_or_insert_with(StrBytes::new);
        body.protocol_type = None;
    }
    if version < 5 {
        for member in &mut body.members {
            member.group_instance_id = None;
        }
    }
}

fn create_topics(body: &mut m::CreateTopicsResponse, version: i16) {
    if version >= 5 {
        return;
    }
    for topic in &mut body.topics {
        topic.topic_config_error_code = 0;
        topic.num_partitions = -1;
        topic.replication_factor = -1;
        topic.configs = Some(Vec::new());
    }
}

fn delete_topics(body: &mut m::DeleteTopicsResponse, version: i16) {
    if version < 6 {
        for topic in &mut body.responses {
            topic.name.get_or_insert_with(|| StrBytes::new().into());
        }
    }
}

fn describe_log_dirs(body: &mut m::DescribeLogDirsResponse, version: i16) {
    if version < 3 {
        body.error_code = 0;
    }
    if version < 4 {
        for result in &mut body.results {
            (result.total_bytes, result.usable_bytes) = (-1, -1);
        }
    }
}

fn describe_cluster(body: &mut m::DescribeClusterResponse, version: i16) {
    if version < 1 {
        body.endpoint_type = 1;
    }
    if version < 2 {
        for broker in &mut body.brokers {
            broker.is_fenced = false;
        }
    }
}
