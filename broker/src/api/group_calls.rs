//! The consumer-group APIs: each group of a request is asked of the shard that coordinates it.

use kafka_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse, TopicName};
use kafka_wire::{Request, RequestHeader, Response, StrBytes};
use model::{RaftGroupId, ShardId};

use super::commands::{auto_create, create_then};
use super::group::{CoordinatorAddress, CoordinatorKind, GroupPlan, find_coordinator};
use super::produce::{current_leader, route};
use super::{CallState, Progress, open};
use crate::cluster::{CONSUMER_OFFSETS, Image};
use crate::group::{GroupError, GroupResponse, partition_for};
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::shard::message::PartRequest;

/// A request to groups that waits for their answers.
pub(crate) struct GroupCall {
    plan: Option<GroupPlan>,
    /// By the plan's question.
    answers: Vec<Option<GroupResponse>>,
    /// By part: the plan's question.
    questions: Vec<usize>,
    outstanding: usize,
}

pub(crate) fn serve(shard: &mut Shard, reply_to: ReplyTo, header: RequestHeader, request: Request) {
    let request = match request {
        Request::FindCoordinator(request) => {
            return find(shard, reply_to, header, request);
        }
        request => request,
    };
    let host = shard.client_host(reply_to.conn);
    let image = shard.metadata.image();
    let Some(mut plan) = GroupPlan::new(&header, &host, image, request) else {
        unreachable!("the dispatcher sends only requests to groups");
    };
    let mut asks = Vec::new();
    let mut answers = Vec::new();
    let mut questions = Vec::new();
    for (question, ask) in plan.take_asks().into_iter().enumerate() {
        match coordinator_of(shard, image, &ask.group) {
            Some(to) => {
                questions.push(question);
                answers.push(None);
                asks.push((to, PartRequest::Group(Box::new(ask))));
            }
            None => answers.push(Some(ask.refused(GroupError::CoordinatorNotAvailable))),
        }
    }
    let outstanding = asks.len();
    let mut call = GroupCall { plan: Some(plan), answers, questions, outstanding };
    if asks.is_empty() {
        let response = call.respond(shard);
        return shard.respond(reply_to, &header, response);
    }
    open(shard, reply_to, header, CallState::Groups(Box::new(call)), None, asks);
}

/// The raft group whose leader coordinates a consumer group.
fn raft_group_of(image: &Image, group: &str) -> Option<RaftGroupId> {
    let offsets = image.topic(CONSUMER_OFFSETS)?;
    let index = partition_for(group, offsets.partition_count());
    offsets.partition(index).map(|partition| partition.group)
}

/// The shard here that coordinates a consumer group, if this broker does.
fn coordinator_of(shard: &Shard, image: &Image, group: &str) -> Option<ShardId> {
    route(image, shard, raft_group_of(image, group)?)
}

/// Where clients find the coordinator of a consumer group.
fn address_of(shard: &Shard, image: &Image, group: &str) -> Option<CoordinatorAddress> {
    let (_, endpoint) = current_leader(shard, raft_group_of(image, group)?, 0)?;
    Some(CoordinatorAddress {
        node_id: endpoint.node_id,
        host: endpoint.host.to_string(),
        port: endpoint.port,
    })
}

/// FindCoordinator; the first one of a cluster creates the topic that groups live in.
fn find(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: FindCoordinatorRequest,
) {
    let image = shard.metadata.image();
    if image.topic(CONSUMER_OFFSETS).is_none() {
        let name = TopicName(StrBytes::from_static_str(CONSUMER_OFFSETS));
        let creation = auto_create(shard, &[name]);
        if !creation.topics.is_empty() {
            let request = Request::FindCoordinator(request);
            return create_then(shard, reply_to, header, creation, request);
        }
    }
    let response = coordinators(shard, header.api_version, &request);
    shard.respond(reply_to, &header, Response::FindCoordinator(response));
}

/// Where each coordinator is, as things stand.
pub(crate) fn coordinators(
    shard: &Shard,
    version: i16,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let image = shard.metadata.image();
    let mut lookup = |kind: CoordinatorKind, key: &str| match kind {
        CoordinatorKind::Group => {
            address_of(shard, image, key).ok_or(GroupError::CoordinatorNotAvailable)
        }
        CoordinatorKind::Transaction | CoordinatorKind::Share => {
            Err(GroupError::CoordinatorNotAvailable)
        }
    };
    find_coordinator(version, request, &mut lookup)
}

impl GroupCall {
    pub(crate) fn answered(&mut self, shard: &Shard, part: u32, answer: GroupResponse) -> Progress {
        self.answers[self.questions[part as usize]] = Some(answer);
        self.outstanding -= 1;
        if self.outstanding > 0 {
            return Progress::Wait;
        }
        Progress::Done(self.respond(shard))
    }

    fn respond(&mut self, shard: &Shard) -> Response {
        let plan = self.plan.take().expect("a call responds once");
        let answers = std::mem::take(&mut self.answers).into_iter().flatten().collect();
        plan.respond(answers, shard.metadata.image())
    }
}
