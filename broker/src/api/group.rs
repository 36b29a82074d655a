//! The consumer-group APIs between Kafka's messages and the coordinator's words. Pure: what shard
//! coordinates a group, and where it is reached, is the caller's business.
//!
//! A request becomes a [`GroupPlan`]: one question for each group it names, and how the answers
//! make up the response.

use kafka_wire::messages::find_coordinator_response::Coordinator;
use kafka_wire::messages::join_group_response::JoinGroupResponseMember;
use kafka_wire::messages::leave_group_response::MemberResponse;
use kafka_wire::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_wire::{ErrorCode, Request, RequestHeader, Response, StrBytes};

use super::offsets::{CommitPlan, FetchPlan, TopicLookup};
use crate::group::{
    self, GroupError, GroupRequest, GroupResponse, JoinRefused, JoinRequest, JoinedGroup,
    JoinedMember, LeaveRequest, LeavingMember, MemberLeft, Name, Operation, Protocol, SyncRequest,
    SyncedGroup,
};

/// First JoinGroup version whose dynamic members are told their id before they join (KIP-394).
const MEMBER_ID_REQUIRED_VERSION: i16 = 4;
/// First JoinGroup version that may have no protocol name.
const PROTOCOL_NAME_NULL_VERSION: i16 = 7;
/// First JoinGroup version in which a leader can be told to assign nothing (KIP-814).
const SKIP_ASSIGNMENT_VERSION: i16 = 9;
/// First SyncGroup version that must name protocol type and protocol (KIP-559).
const SYNC_PROTOCOL_VERSION: i16 = 5;
/// First LeaveGroup version with a list of members.
const LEAVE_LIST_VERSION: i16 = 3;
/// First FindCoordinator version with a list of keys (KIP-699).
const COORDINATOR_LIST_VERSION: i16 = 4;
/// First FindCoordinator version with share groups.
const SHARE_VERSION: i16 = 6;

/// A request to groups, split by group.
#[derive(Debug)]
pub(crate) struct GroupPlan {
    version: i16,
    asks: Vec<GroupRequest>,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Join,
    Sync,
    Heartbeat,
    Leave,
    Commit(CommitPlan),
    Fetch(FetchPlan),
}

impl GroupPlan {
    /// `None` if it is a request of another API.
    pub(crate) fn new(
        header: &RequestHeader,
        client_host: &str,
        topics: &dyn TopicLookup,
        request: Request,
    ) -> Option<Self> {
        let version = header.api_version;
        let (asks, shape) = match request {
            Request::JoinGroup(request) => (vec![join(header, client_host, request)], Shape::Join),
            Request::SyncGroup(request) => (vec![sync(version, request)], Shape::Sync),
            Request::Heartbeat(request) => (vec![heartbeat(request)], Shape::Heartbeat),
            Request::LeaveGroup(request) => (vec![leave(version, request)], Shape::Leave),
            Request::OffsetCommit(request) => {
                let (plan, asks) = CommitPlan::new(version, request, topics);
                (asks.into_iter().collect(), Shape::Commit(plan))
            }
            Request::OffsetFetch(request) => {
                let (plan, asks) = FetchPlan::new(version, request, topics);
                (asks, Shape::Fetch(plan))
            }
            _ => return None,
        };
        Some(Self { version, asks, shape })
    }

    /// What to ask, in order; there may be nothing to ask. A group that cannot be asked is
    /// answered with [`GroupRequest::refused`].
    pub(crate) fn take_asks(&mut self) -> Vec<GroupRequest> {
        std::mem::take(&mut self.asks)
    }

    /// The response, from the answers in the order of the questions.
    pub(crate) fn respond(self, answers: Vec<GroupResponse>, topics: &dyn TopicLookup) -> Response {
        let version = self.version;
        let one = answers.first();
        match self.shape {
            Shape::Join => Response::JoinGroup(match one {
                Some(GroupResponse::Join(joined)) => join_response(version, joined.as_ref()),
                _ => join_response(version, Err(&lost())),
            }),
            Shape::Sync => Response::SyncGroup(match one {
                Some(GroupResponse::Sync(synced)) => sync_response(synced.as_ref()),
                _ => sync_response(Err(&GroupError::CoordinatorNotAvailable)),
            }),
            Shape::Heartbeat => {
                let alive = match one {
                    Some(GroupResponse::Heartbeat(alive)) => *alive,
                    _ => Err(GroupError::CoordinatorNotAvailable),
                };
                Response::Heartbeat(HeartbeatResponse::default().with_error_code(code_of(alive)))
            }
            Shape::Leave => Response::LeaveGroup(match one {
                Some(GroupResponse::Leave(left)) => leave_response(version, left.as_ref()),
                _ => leave_response(version, Err(&GroupError::CoordinatorNotAvailable)),
            }),
            Shape::Commit(plan) => Response::OffsetCommit(plan.respond(version, one)),
            Shape::Fetch(plan) => Response::OffsetFetch(plan.respond(version, answers, topics)),
        }
    }
}

fn join(header: &RequestHeader, client_host: &str, request: JoinGroupRequest) -> GroupRequest {
    let static_member = request.group_instance_id.is_some();
    let rebalance_timeout_ms = match request.rebalance_timeout_ms {
        // Version 0 has one time-out for both.
        none if none < 0 => request.session_timeout_ms,
        given => given,
    };
    let protocol = |p: kafka_wire::messages::join_group_request::JoinGroupRequestProtocol| {
        Protocol { name: name(&p.name), metadata: p.metadata }
    };
    let join = JoinRequest {
        member_id: name(&request.member_id),
        instance_id: request.group_instance_id.as_ref().map(name),
        client_id: header.client_id.as_ref().map(name).unwrap_or_else(|| Name::from("")),
        client_host: Name::from(client_host),
        member_id_required: header.api_version >= MEMBER_ID_REQUIRED_VERSION && !static_member,
        skip_assignment_known: header.api_version >= SKIP_ASSIGNMENT_VERSION,
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: name(&request.protocol_type),
        protocols: request.protocols.into_iter().map(protocol).collect(),
    };
    GroupRequest { group: name(&request.group_id), operation: Operation::Join(join) }
}

fn sync(version: i16, request: SyncGroupRequest) -> GroupRequest {
    // From the version on that has them both must be given: "" agrees with no group.
    let required = |given: Option<StrBytes>| {
        let given = given.as_ref().map(name);
        given.or_else(|| (version >= SYNC_PROTOCOL_VERSION).then(|| Name::from("")))
    };
    let sync = SyncRequest {
        generation: request.generation_id,
        member_id: name(&request.member_id),
        instance_id: request.group_instance_id.as_ref().map(name),
        protocol_type: required(request.protocol_type),
        protocol: required(request.protocol_name),
        assignments: request
            .assignments
            .into_iter()
            .map(|assignment| (name(&assignment.member_id), assignment.assignment))
            .collect(),
    };
    GroupRequest { group: name(&request.group_id), operation: Operation::Sync(sync) }
}

fn heartbeat(request: HeartbeatRequest) -> GroupRequest {
    let heartbeat = group::HeartbeatRequest {
        generation: request.generation_id,
        member_id: name(&request.member_id),
        instance_id: request.group_instance_id.as_ref().map(name),
    };
    GroupRequest { group: name(&request.group_id), operation: Operation::Heartbeat(heartbeat) }
}

fn leave(version: i16, request: LeaveGroupRequest) -> GroupRequest {
    let members = if version >= LEAVE_LIST_VERSION {
        let member = |m: &kafka_wire::messages::leave_group_request::MemberIdentity| {
            let instance_id = m.group_instance_id.as_ref().map(name);
            LeavingMember { member_id: name(&m.member_id), instance_id }
        };
        request.members.iter().map(member).collect()
    } else {
        vec![LeavingMember { member_id: name(&request.member_id), instance_id: None }]
    };
    let operation = Operation::Leave(LeaveRequest { members });
    GroupRequest { group: name(&request.group_id), operation }
}

fn join_response(version: i16, joined: Result<&JoinedGroup, &JoinRefused>) -> JoinGroupResponse {
    let joined = match joined {
        Ok(joined) => joined,
        Err(refused) => {
            let protocol_name = (version < PROTOCOL_NAME_NULL_VERSION).then(StrBytes::default);
            return JoinGroupResponse::default()
                .with_error_code(error_code(refused.error).code())
                .with_protocol_name(protocol_name)
                .with_member_id(text(&refused.member_id));
        }
    };
    let member = |member: &JoinedMember| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_ref().map(text))
            .with_metadata(member.metadata.clone())
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(text(&joined.protocol_type)))
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader_id))
        .with_skip_assignment(joined.skip_assignment && version >= SKIP_ASSIGNMENT_VERSION)
        .with_member_id(text(&joined.member_id))
        .with_members(joined.members.iter().map(member).collect())
}

fn sync_response(synced: Result<&SyncedGroup, &GroupError>) -> SyncGroupResponse {
    match synced {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(Some(text(&synced.protocol_type)))
            .with_protocol_name(Some(text(&synced.protocol)))
            .with_assignment(synced.assignment.clone()),
        Err(error) => SyncGroupResponse::default().with_error_code(error_code(*error).code()),
    }
}

fn leave_response(version: i16, left: Result<&Vec<MemberLeft>, &GroupError>) -> LeaveGroupResponse {
    let left = match left {
        Ok(left) => left,
        Err(error) => {
            return LeaveGroupResponse::default().with_error_code(error_code(*error).code());
        }
    };
    if version < LEAVE_LIST_VERSION {
        let result = left.first().map_or(Ok(()), |left| left.result);
        return LeaveGroupResponse::default().with_error_code(code_of(result));
    }
    let member = |left: &MemberLeft| {
        MemberResponse::default()
            .with_member_id(text(&left.member.member_id))
            .with_group_instance_id(left.member.instance_id.as_ref().map(text))
            .with_error_code(code_of(left.result))
    };
    LeaveGroupResponse::default().with_members(left.iter().map(member).collect())
}

/// What a coordinator is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CoordinatorKind {
    Group,
    Transaction,
    Share,
}

/// Where a coordinator is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CoordinatorAddress {
    pub(crate) node_id: i32,
    pub(crate) host: String,
    pub(crate) port: i32,
}

/// Answers every key with what `lookup` says of it.
pub(crate) fn find_coordinator(
    version: i16,
    request: &FindCoordinatorRequest,
    lookup: &mut dyn FnMut(CoordinatorKind, &str) -> Result<CoordinatorAddress, GroupError>,
) -> FindCoordinatorResponse {
    let kind = match request.key_type {
        0 => Ok(CoordinatorKind::Group),
        1 => Ok(CoordinatorKind::Transaction),
        2 if version >= SHARE_VERSION => Ok(CoordinatorKind::Share),
        _ => Err(ErrorCode::InvalidRequest),
    };
    let mut find = |key: &StrBytes| {
        let found = kind.and_then(|kind| lookup(kind, key).map_err(error_code));
        coordinator(key, found)
    };
    if version >= COORDINATOR_LIST_VERSION {
        let coordinators = request.coordinator_keys.iter().map(find).collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let found = find(&request.key);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn coordinator(key: &StrBytes, found: Result<CoordinatorAddress, ErrorCode>) -> Coordinator {
    let entry = Coordinator::default().with_key(key.clone());
    match found {
        Ok(address) => entry
            .with_node_id(BrokerId(address.node_id))
            .with_host(StrBytes::from_string(address.host))
            .with_port(address.port),
        Err(error) => entry
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(error.name())))
            .with_node_id(BrokerId(-1))
            .with_port(-1),
    }
}

/// Kafka's code for a refusal.
pub(super) fn error_code(error: GroupError) -> ErrorCode {
    match error {
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::LoadInProgress => ErrorCode::CoordinatorLoadInProgress,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::GroupNotFound => ErrorCode::GroupIdNotFound,
        GroupError::UnknownMember => ErrorCode::UnknownMemberId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::GroupFull => ErrorCode::GroupMaxSizeReached,
        GroupError::FencedInstance => ErrorCode::FencedInstanceId,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
        GroupError::UnknownTopicId => ErrorCode::UnknownTopicId,
        GroupError::RecordTooLarge => ErrorCode::UnknownServerError,
    }
}

pub(super) fn code_of(result: Result<(), GroupError>) -> i16 {
    result.map_or_else(|error| error_code(error).code(), |()| 0)
}

pub(super) fn name(text: &StrBytes) -> Name {
    Name::from(text.as_str())
}

pub(super) fn text(name: &Name) -> StrBytes {
    StrBytes::from_string(name.to_string())
}

/// For an answer that does not belong to the question.
fn lost() -> JoinRefused {
    JoinRefused { error: GroupError::CoordinatorNotAvailable, member_id: Name::from("") }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
