//! The APIs that change metadata: topics are created and deleted, producer ids reserved, brokers
//! come and go, partitions move, settings are altered. Each change is a command to group 0; the
//! request waits until all of its commands are applied.

use std::time::{Duration, Instant};

use kafka_wire::messages::{CreateTopicsRequest, MetadataRequest, TopicName};
use kafka_wire::{ErrorCode, Request, RequestHeader, Response};
use uuid::Uuid;

use super::alter_configs::{self, AlterPlan};
use super::group_calls::coordinators;
use super::membership::{self, MemberPlan};
use super::reassignments::{self, ReassignmentPlan};
use super::topic::{AutoCreation, CreatePlan, DeletePlan};
use super::{
    Ask, CallState, ClientView, Progress, broker_of, metadata, open, producer_id, topic, with_view,
};
use crate::cluster::{Command, Outcome, Planner};
use crate::config::BrokerSettings;
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::shard::message::{CommandRefused, PartRequest};
use crate::shard::metadata::METADATA_SHARD;

/// For requests that carry no time-out of their own.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request that waits for its commands.
pub(crate) struct CommandCall {
    purpose: Purpose,
    /// By part: the slot of the plan that the command is for.
    slots: Vec<usize>,
    outstanding: usize,
    settings: BrokerSettings,
}

enum Purpose {
    Create(CreatePlan),
    Delete(DeletePlan),
    Member(MemberPlan),
    Reassign(ReassignmentPlan),
    Alter(AlterPlan),
    /// Producer ids were used up: the request is served again with new ones.
    ProducerId(Request),
    /// Topics had to be created first; then the request is answered as things stand.
    Then(Request),
    /// Raft groups had to be made first; then the request is served again, unless one was refused.
    Groups {
        request: Request,
        refused: Option<ErrorCode>,
    },
}

pub(crate) fn serve(shard: &mut Shard, reply_to: ReplyTo, header: RequestHeader, request: Request) {
    match request {
        Request::Metadata(request) => metadata(shard, reply_to, header, request),
        Request::CreateTopics(request) => {
            create(shard, reply_to, header, request);
        }
        Request::DeleteTopics(request) => {
            let image = shard.metadata.image();
            let settings = &shard.node.settings.broker;
            let plan = topic::plan_delete(image, settings, header.api_version, &request);
            let commands = plan.commands();
            let timeout = request.timeout_ms;
            start(shard, reply_to, header, Purpose::Delete(plan), commands, Some(timeout));
        }
        Request::InitProducerId(request) => {
            match producer_id::respond(&mut shard.metadata.producer_ids, &request) {
                producer_id::Answer::Reply(response) => {
                    shard.respond(reply_to, &header, Response::InitProducerId(response));
                }
                producer_id::Answer::Refill => {
                    let commands = vec![(0, producer_id::refill_command(shard.node.id))];
                    let purpose = Purpose::ProducerId(Request::InitProducerId(request));
                    start(shard, reply_to, header, purpose, commands, None);
                }
            }
        }
        Request::AddRaftVoter(_) | Request::RemoveRaftVoter(_) | Request::UnregisterBroker(_) => {
            let shard_count = shard.node.has_peers().then_some(shard.node.shard_count);
            let plan = membership::plan(shard.metadata.image(), shard_count, &request);
            let commands = plan.commands();
            let timeout = match &request {
                Request::AddRaftVoter(request) => Some(request.timeout_ms),
                _ => None,
            };
            start(shard, reply_to, header, Purpose::Member(plan), commands, timeout);
        }
        Request::AlterPartitionReassignments(request) => {
            let plan = reassignments::plan(shard.metadata.image(), &request);
            let timeout = Some(request.timeout_ms);
            let groups = plan.groups_to_make();
            if !groups.is_empty() {
                let request = Request::AlterPartitionReassignments(request);
                return make_groups(shard, reply_to, header, groups, request, timeout);
            }
            let commands = plan.commands();
            start(shard, reply_to, header, Purpose::Reassign(plan), commands, timeout);
        }
        Request::IncrementalAlterConfigs(_) | Request::AlterConfigs(_) => {
            alter(shard, reply_to, header, &request);
        }
        _ => unreachable!("the dispatcher sends only requests that change metadata"),
    }
}

fn create(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: CreateTopicsRequest,
) {
    let plan = with_planner(shard, |planner, ids| topic::plan_create(planner, &request, ids));
    let timeout = Some(request.timeout_ms);
    let groups = plan.groups_to_make().to_vec();
    if !groups.is_empty() {
        let request = Request::CreateTopics(request);
        return make_groups(shard, reply_to, header, groups, request, timeout);
    }
    let commands = plan.commands();
    start(shard, reply_to, header, Purpose::Create(plan), commands, timeout);
}

/// Plans topics by what this shard knows.
fn with_planner<T>(
    shard: &mut Shard,
    plan: impl FnOnce(Planner<'_>, &mut dyn FnMut() -> Uuid) -> T,
) -> T {
    let Shard { metadata, node, random, .. } = shard;
    let planner = Planner::new(metadata.image(), &node.settings.broker);
    plan(planner, &mut || random.uuid())
}

fn alter(shard: &mut Shard, reply_to: ReplyTo, header: RequestHeader, request: &Request) {
    let image = shard.metadata.image();
    let (settings, broker) = (&shard.node.settings.broker, broker_of(shard));
    let plan = match request {
        Request::AlterConfigs(request) => {
            alter_configs::plan_whole(image, settings, broker, request)
        }
        Request::IncrementalAlterConfigs(request) => {
            alter_configs::plan_incremental(image, settings, broker, request)
        }
        _ => unreachable!("only these two alter configs"),
    };
    let commands = plan.commands();
    start(shard, reply_to, header, Purpose::Alter(plan), commands, None);
}

/// Metadata creates the topics that its client asks for and that are not there yet.
fn metadata(shard: &mut Shard, reply_to: ReplyTo, header: RequestHeader, request: MetadataRequest) {
    let (response, missing) = with_view(shard, |view| {
        metadata::respond(shard.metadata.image(), view, header.api_version, &request)
    });
    let creation = auto_create(shard, &missing);
    if creation.topics.is_empty() {
        return shard.respond(reply_to, &header, Response::Metadata(response));
    }
    create_then(shard, reply_to, header, creation, Request::Metadata(request));
}

/// What creates topics whose names clients use.
pub(super) fn auto_create(shard: &mut Shard, names: &[TopicName]) -> AutoCreation {
    // Counting every partition for a planner is not for each request.
    if names.is_empty() {
        return AutoCreation::default();
    }
    with_planner(shard, |planner, ids| topic::plan_auto_create(planner, names, ids))
}

/// Creates topics, then answers a request that needs them.
pub(crate) fn create_then(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    creation: AutoCreation,
    request: Request,
) {
    let AutoCreation { groups, topics } = creation;
    if !groups.is_empty() {
        return make_groups(shard, reply_to, header, groups, request, None);
    }
    let commands = topics.into_iter().enumerate().collect();
    start(shard, reply_to, header, Purpose::Then(request), commands, None);
}

/// Makes raft groups that a request needs, then serves it again.
fn make_groups(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    groups: Vec<Command>,
    request: Request,
    timeout_ms: Option<i32>,
) {
    let commands = groups.into_iter().enumerate().collect();
    let purpose = Purpose::Groups { request, refused: None };
    start(shard, reply_to, header, purpose, commands, timeout_ms);
}

fn start(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    purpose: Purpose,
    commands: Vec<(usize, Command)>,
    timeout_ms: Option<i32>,
) {
    let settings = shard.node.settings.broker.clone();
    let slots = commands.iter().map(|(slot, _)| *slot).collect();
    let call = CommandCall { purpose, slots, outstanding: commands.len(), settings };
    if commands.is_empty() {
        let response = call.response().expect("a plan without commands is complete");
        return shard.respond(reply_to, &header, response);
    }
    let asks: Vec<Ask> = commands
        .into_iter()
        .map(|(_, command)| (METADATA_SHARD, PartRequest::Command(Box::new(command))))
        .collect();
    let deadline = deadline(shard.now.instant, timeout_ms);
    open(shard, reply_to, header, CallState::Commands(Box::new(call)), Some(deadline), asks);
}

/// When a request is answered at the latest.
pub(super) fn deadline(now: Instant, timeout_ms: Option<i32>) -> Instant {
    let timeout = timeout_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    now + timeout.unwrap_or(PATIENCE).min(PATIENCE)
}

impl CommandCall {
    pub(crate) fn answered(
        &mut self,
        shard: &mut Shard,
        header: &RequestHeader,
        part: u32,
        answer: Result<Outcome, CommandRefused>,
    ) -> Progress {
        let slot = self.slots[part as usize];
        let result = answer.as_ref().map_err(|refused| error_code(*refused));
        match &mut self.purpose {
            Purpose::Create(plan) => plan.settle(slot, result),
            Purpose::Delete(plan) => plan.settle(slot, result),
            Purpose::Member(plan) => plan.settle(result),
            Purpose::Reassign(plan) => plan.settle(slot, result),
            Purpose::Alter(plan) => {
                let image = shard.metadata.image();
                if let Some(again) = plan.settle(slot, result, image, &self.settings) {
                    let ask = (METADATA_SHARD, PartRequest::Command(Box::new(again)));
                    return Progress::AskAgain { part, asks: vec![ask] };
                }
            }
            Purpose::ProducerId(_) => match result {
                Ok(Outcome::ProducerIdBlock { start, count, .. }) => {
                    shard.metadata.producer_ids.refill(*start, *count);
                }
                _ => return Progress::Done(exhausted()),
            },
            Purpose::Then(_) => {}
            Purpose::Groups { refused, .. } => match result {
                Ok(Outcome::GroupCreated { .. } | Outcome::GroupExists { .. }) => {}
                Ok(_) => *refused = Some(ErrorCode::InvalidReplicaAssignment),
                Err(code) => *refused = Some(code),
            },
        }
        self.outstanding -= 1;
        if self.outstanding > 0 {
            return Progress::Wait;
        }
        match &mut self.purpose {
            Purpose::ProducerId(request) => {
                Progress::Again(std::mem::replace(request, Request::ApiVersionsUnsupported))
            }
            Purpose::Then(request) => Progress::Done(as_things_stand(shard, header, request)),
            Purpose::Groups { request, refused: None } => {
                Progress::Again(std::mem::replace(request, Request::ApiVersionsUnsupported))
            }
            Purpose::Groups { request, refused: Some(code) } => {
                let refused = without_groups(request, *code);
                Progress::Done(refused.unwrap_or_else(|| as_things_stand(shard, header, request)))
            }
            Purpose::Create(plan) => {
                Progress::Done(Response::CreateTopics(plan.response(&self.settings)))
            }
            Purpose::Delete(plan) => Progress::Done(Response::DeleteTopics(plan.response())),
            Purpose::Member(plan) => Progress::Done(plan.response()),
            Purpose::Reassign(plan) => {
                Progress::Done(Response::AlterPartitionReassignments(plan.response()))
            }
            Purpose::Alter(plan) => Progress::Done(plan.response()),
        }
    }

    /// The reply as things stand: what is not settled has timed out. `None` if the request has to
    /// be served again first.
    pub(crate) fn response(&self) -> Option<Response> {
        match &self.purpose {
            Purpose::Create(plan) => Some(Response::CreateTopics(plan.response(&self.settings))),
            Purpose::Delete(plan) => Some(Response::DeleteTopics(plan.response())),
            Purpose::Member(plan) => Some(plan.response()),
            Purpose::Reassign(plan) => Some(Response::AlterPartitionReassignments(plan.response())),
            Purpose::Alter(plan) => Some(plan.response()),
            Purpose::ProducerId(_) => Some(exhausted()),
            Purpose::Then(_) => None,
            Purpose::Groups { request, .. } => without_groups(request, ErrorCode::RequestTimedOut),
        }
    }
}

/// The answer to a request whose raft groups could not be made; `None` if it has one as things
/// stand.
fn without_groups(request: &Request, code: ErrorCode) -> Option<Response> {
    match request {
        Request::CreateTopics(request) => {
            Some(Response::CreateTopics(topic::refuse_all(request, code)))
        }
        Request::AlterPartitionReassignments(request) => {
            let response = reassignments::refuse_all(request, code);
            Some(Response::AlterPartitionReassignments(response))
        }
        _ => None,
    }
}

/// The answer to a request that creates topics, when that was tried. It creates nothing again: a
/// refused command would have it try for ever.
fn as_things_stand(shard: &Shard, header: &RequestHeader, request: &Request) -> Response {
    let version = header.api_version;
    match request {
        Request::FindCoordinator(request) => {
            Response::FindCoordinator(coordinators(shard, version, request))
        }
        Request::Metadata(request) => {
            let image = shard.metadata.image();
            let respond =
                |view: &ClientView<'_>| metadata::respond(image, view, version, request).0;
            Response::Metadata(with_view(shard, respond))
        }
        _ => unreachable!("only these two create topics"),
    }
}

/// No id could be reserved; clients ask again.
fn exhausted() -> Response {
    let code = ErrorCode::CoordinatorLoadInProgress;
    Response::InitProducerId(producer_id::refused(code))
}

fn error_code(refused: CommandRefused) -> ErrorCode {
    match refused {
        CommandRefused::NotLeader => ErrorCode::NotController,
        CommandRefused::Full => ErrorCode::RequestTimedOut,
    }
}
