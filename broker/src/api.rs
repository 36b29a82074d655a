//! The Kafka APIs: one function for each, which translates a request to the domain, and the
//! domain's answer to a response. Kafka's error codes are chosen here and nowhere else.
//!
//! A request is served on the core of its connection. What other shards own is asked of them in
//! parts; the request waits as a [`CallState`] until the last part is answered.

mod alter_configs;
mod cluster;
mod commands;
mod config;
mod delete_records;
mod elect_leaders;
mod epoch_end;
mod fetch;
mod group;
mod group_calls;
mod list_offsets;
mod log_dirs;
mod membership;
mod metadata;
mod offsets;
mod parts;
mod produce;
mod producer_id;
mod reassignments;
mod records;
mod topic;

use std::time::Instant;

use kafka_wire::api_versions::ApiVersionsResponse;
use kafka_wire::{ErrorCode, Request, RequestHeader, Response};
use model::{NodeId, PartitionId, ShardId};

pub(crate) use self::metadata::{ClientView, Leader};
pub(crate) use self::producer_id::ProducerIds;

use self::commands::CommandCall;
use self::delete_records::TrimCall;
use self::elect_leaders::ElectionCall;
use self::epoch_end::EpochEndCall;
use self::fetch::FetchCall;
use self::group_calls::GroupCall;
use self::list_offsets::OffsetsCall;
use self::log_dirs::LogDirsCall;
use self::produce::ProduceCall;
use crate::cluster::Partition;
use crate::shard::Shard;
use crate::shard::call::{CallId, Origin, ReplyTo};
use crate::shard::message::{PartAnswer, PartRequest, ReadRefused};

/// What a request under way waits for.
pub(crate) enum CallState {
    Produce(ProduceCall),
    Fetch(Box<FetchCall>),
    Offsets(OffsetsCall),
    EpochEnd(EpochEndCall),
    Trims(TrimCall),
    Groups(Box<GroupCall>),
    Commands(Box<CommandCall>),
    Election(Box<ElectionCall>),
    LogDirs(Box<LogDirsCall>),
}

/// A part of a call and the shard to ask.
type Ask = (ShardId, PartRequest);

/// What became of a call when an answer came in.
pub(crate) enum Progress {
    Wait,
    /// Ask again; the parts are numbered alike.
    AskAgain {
        part: u32,
        asks: Vec<Ask>,
    },
    Done(Response),
    /// Finished without a reply (`acks=0`).
    Silent,
    /// Finished; the request is to be served again from the start.
    Again(Request),
}

/// Serves a client's request, at once or when its parts are answered.
pub(crate) fn serve(shard: &mut Shard, reply_to: ReplyTo, header: RequestHeader, request: Request) {
    match request {
        Request::Produce(request) => produce::serve(shard, reply_to, header, request),
        Request::Fetch(request) => fetch::serve(shard, reply_to, header, &request),
        Request::ListOffsets(request) => list_offsets::serve(shard, reply_to, header, &request),
        Request::OffsetForLeaderEpoch(request) => {
            epoch_end::serve(shard, reply_to, header, &request);
        }
        Request::ApiVersionsUnsupported => {
            let response = Response::ApiVersions(ApiVersionsResponse::unsupported_version());
            shard.respond(reply_to, &header, response);
        }
        Request::ApiVersions(request) => {
            let response = with_view(shard, |view| {
                let image = shard.metadata.image();
                cluster::api_versions(image, view, header.api_version, &request)
            });
            shard.respond(reply_to, &header, Response::ApiVersions(response));
        }
        Request::DescribeCluster(request) => {
            let response = with_view(shard, |view| {
                cluster::describe_cluster(shard.metadata.image(), view, &request)
            });
            shard.respond(reply_to, &header, Response::DescribeCluster(response));
        }
        Request::DescribeConfigs(request) => {
            let (image, settings) = (shard.metadata.image(), &shard.node.settings.broker);
            let (broker, version) = (broker_of(shard), header.api_version);
            let response = config::describe(image, settings, broker, version, &request);
            shard.respond(reply_to, &header, Response::DescribeConfigs(response));
        }
        Request::ListPartitionReassignments(request) => {
            let response = reassignments::list(shard.metadata.image(), &request);
            shard.respond(reply_to, &header, Response::ListPartitionReassignments(response));
        }
        Request::DescribeLogDirs(request) => log_dirs::serve(shard, reply_to, header, request),
        Request::ElectLeaders(request) => elect_leaders::serve(shard, reply_to, header, &request),
        Request::DeleteRecords(request) => delete_records::serve(shard, reply_to, header, &request),
        Request::Metadata(_)
        | Request::CreateTopics(_)
        | Request::DeleteTopics(_)
        | Request::InitProducerId(_)
        | Request::AddRaftVoter(_)
        | Request::RemoveRaftVoter(_)
        | Request::UnregisterBroker(_)
        | Request::AlterPartitionReassignments(_)
        | Request::AlterConfigs(_)
        | Request::IncrementalAlterConfigs(_) => commands::serve(shard, reply_to, header, request),
        Request::FindCoordinator(_)
        | Request::JoinGroup(_)
        | Request::SyncGroup(_)
        | Request::Heartbeat(_)
        | Request::LeaveGroup(_)
        | Request::OffsetCommit(_)
        | Request::OffsetFetch(_) => group_calls::serve(shard, reply_to, header, request),
    }
}

/// Opens a call and asks its parts, numbered from 0.
fn open(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    state: CallState,
    deadline: Option<Instant>,
    asks: Vec<Ask>,
) {
    let id = shard.calls.reserve();
    shard.calls.open(id, reply_to, header, state, deadline);
    for (part, (to, request)) in (0..).zip(asks) {
        shard.ask(to, Origin { call: id, part }, request);
    }
}

/// An answer to a part of a call of this shard. One that comes too late finds no call.
pub(crate) fn answered(shard: &mut Shard, origin: Origin, answer: PartAnswer) {
    let Some(mut call) = shard.calls.take(origin.call) else { return };
    let part = origin.part;
    let progress = match (&mut call.state, answer) {
        (CallState::Produce(state), PartAnswer::Append(answer)) => {
            state.answered(shard, call.reply_to, part, answer)
        }
        (CallState::Fetch(state), answer @ (PartAnswer::Read(_) | PartAnswer::Wake)) => {
            state.answered(shard, origin.call, part, answer)
        }
        (CallState::Offsets(state), PartAnswer::FindOffset(answer)) => state.found(part, answer),
        (CallState::EpochEnd(state), PartAnswer::EpochEnd(answer)) => state.found(part, answer),
        (CallState::Trims(state), PartAnswer::Trimmed(answer)) => state.trimmed(part, answer),
        (CallState::Groups(state), PartAnswer::Group(answer)) => {
            state.answered(shard, part, *answer)
        }
        (CallState::Commands(state), PartAnswer::Command(answer)) => {
            state.answered(shard, &call.header, part, answer)
        }
        (CallState::LogDirs(state), PartAnswer::Log(answer)) => state.described(shard, answer),
        _ => unreachable!("an answer has the kind of its question"),
    };
    match progress {
        Progress::Wait => shard.calls.put_back(origin.call, call),
        Progress::AskAgain { part, asks } => {
            shard.calls.put_back(origin.call, call);
            for (to, request) in asks {
                shard.ask(to, Origin { call: origin.call, part }, request);
            }
        }
        Progress::Done(response) => {
            shard.calls.forget(origin.call, &call);
            shard.respond(call.reply_to, &call.header, response);
        }
        Progress::Silent => {
            shard.calls.forget(origin.call, &call);
            shard.reply(call.reply_to, Vec::new());
        }
        Progress::Again(request) => {
            shard.calls.forget(origin.call, &call);
            serve(shard, call.reply_to, call.header, request);
        }
    }
}

/// A call's deadline has passed.
pub(crate) fn overdue(shard: &mut Shard, id: CallId) {
    let Some(mut call) = shard.calls.take(id) else { return };
    let response = match &mut call.state {
        CallState::Produce(state) => state.overdue(shard, call.reply_to),
        CallState::Fetch(state) => state.overdue(shard, id),
        CallState::Commands(state) => state.response(),
        CallState::Election(state) => match state.look(shard) {
            Some(again) => return shard.calls.put_back_until(id, call, again),
            None => Some(state.response()),
        },
        CallState::Offsets(_)
        | CallState::EpochEnd(_)
        | CallState::Trims(_)
        | CallState::Groups(_)
        | CallState::LogDirs(_) => None,
    };
    match response {
        Some(response) => shard.respond(call.reply_to, &call.header, response),
        None => shard.calls.put_back(id, call),
    }
}

/// What the client of this shard sees of the cluster.
fn with_view<T>(shard: &Shard, work: impl FnOnce(&ClientView<'_>) -> T) -> T {
    let is_up = |node| node == shard.node.id || shard.peers.is_up(node);
    // A client that is told of one that has just ended believes it, and asks again much later.
    let has_ended = |node| !is_up(node) && shard.peers.incarnation(node).is_some();
    let leader = |partition: &Partition| {
        let (node, epoch) = shard.node.leader(partition.group)?;
        (!has_ended(node)).then_some(Leader { node, epoch })
    };
    work(&ClientView {
        broker: broker_of(shard),
        auto_create: shard.node.settings.broker.auto_create_topics_enable,
        leader: &leader,
        is_up: &is_up,
    })
}

/// A partition that a client names, and the shard of this broker that hosts it.
fn locate(shard: &Shard, topic: &str, index: i32) -> Result<(ShardId, PartitionId), ErrorCode> {
    let image = shard.metadata.image();
    let found = image.topic(topic).and_then(|topic| topic.partition(index));
    let found = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let to = produce::route(image, shard, found.group).ok_or(ErrorCode::NotLeaderOrFollower)?;
    Ok((to, found.id))
}

/// The broker id that this shard's clients are connected to.
fn broker_of(shard: &Shard) -> NodeId {
    shard.node.broker_of(shard.id)
}

/// Kafka's code for a partition that was not read.
fn read_error_code(refused: ReadRefused) -> ErrorCode {
    match refused {
        ReadRefused::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        ReadRefused::NotLeader => ErrorCode::NotLeaderOrFollower,
        ReadRefused::OutOfRange => ErrorCode::OffsetOutOfRange,
        ReadRefused::NotYetHere => ErrorCode::OffsetNotAvailable,
        ReadRefused::FencedEpoch => ErrorCode::FencedLeaderEpoch,
        ReadRefused::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
        ReadRefused::Storage => ErrorCode::KafkaStorageError,
    }
}
