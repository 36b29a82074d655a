//! CreateTopics and DeleteTopics.
//!
//! A request becomes a plan: each topic is refused at once or has a command for group 0. The shard
//! proposes the commands, settles each with its outcome, and asks the plan for the reply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_wire::messages::create_topics_request::CreatableTopic;
use kafka_wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_wire::messages::delete_topics_response::DeletableTopicResult;
use kafka_wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_wire::{ErrorCode, StrBytes};
use model::NodeId;
use uuid::Uuid;

use crate::cluster::{
    Command, Image, ManualAssignment, NewTopic, NewTopicError, NewTopicSpec, Outcome, Planner,
    Topic,
};
use crate::config::{BrokerSettings, ConfigError, TOPIC_KEYS, TopicConfig};

/// First DeleteTopics version whose topics are names or ids; before it is a list of names.
const DELETE_BY_ID_VERSION_MIN: i16 = 6;

/// Creation of the topics of one request.
#[derive(Clone, Debug)]
pub(crate) struct CreatePlan {
    topics: Vec<CreatedTopic>,
    validate_only: bool,
    groups: Vec<Command>,
}

/// Topics that are created because clients use their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct AutoCreation {
    /// Raft groups that have to be made first; then it is planned anew.
    pub(crate) groups: Vec<Command>,
    pub(crate) topics: Vec<Command>,
}

/// A topic to create, as the reply names it.
#[derive(Clone, Debug)]
struct CreatedTopic {
    name: TopicName,
    replication_factor: i16,
    creation: Creation,
}

#[derive(Clone, Debug)]
enum Creation {
    Refused(Refusal),
    Planned(NewTopic),
    Created(Arc<Topic>),
}

/// Deletion of the topics of one request.
#[derive(Clone, Debug)]
pub(crate) struct DeletePlan {
    topics: Vec<Deletion>,
}

/// A topic to delete, as the reply names it.
#[derive(Clone, Debug)]
struct Deletion {
    name: Option<TopicName>,
    topic_id: Uuid,
    state: DeletionState,
}

#[derive(Clone, Debug)]
enum DeletionState {
    Refused(Refusal),
    /// The id of the topic that the request means, which it may have named.
    Planned(Uuid),
    Deleted,
}

/// An error code and its reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    message: String,
}

/// Checks each topic of a request. `new_id` gives a fresh random id with each call.
pub(crate) fn plan_create(
    mut planner: Planner<'_>,
    request: &CreateTopicsRequest,
    new_id: &mut dyn FnMut() -> Uuid,
) -> CreatePlan {
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *asked.entry(topic.name.as_str()).or_default() += 1;
    }
    let mut topics = Vec::new();
    for topic in &request.topics {
        let creation = match asked.get_mut(topic.name.as_str()) {
            Some(1) => plan_topic(&mut planner, topic, new_id),
            // A name that is there twice is refused once.
            Some(count) if *count > 1 => {
                *count = 0;
                Creation::Refused(Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
            }
            _ => continue,
        };
        let replication_factor = match &creation {
            Creation::Planned(_) => planner.copies(),
            _ => -1,
        };
        topics.push(CreatedTopic { name: topic.name.clone(), replication_factor, creation });
    }
    let groups = planner.groups_to_make();
    CreatePlan { topics, validate_only: request.validate_only, groups }
}

/// Plans topics that clients asked for by using their names. One that cannot be created is left
/// out: the client is told so when it asks again.
pub(crate) fn plan_auto_create(
    mut planner: Planner<'_>,
    names: &[TopicName],
    new_id: &mut dyn FnMut() -> Uuid,
) -> AutoCreation {
    let planned = names.iter().filter_map(|name| planner.plan_default(name, new_id()).ok());
    let topics = planned.map(Command::CreateTopic).collect();
    AutoCreation { groups: planner.groups_to_make(), topics }
}

impl CreatePlan {
    /// Raft groups that have to be made before; then it is planned anew. None if the request only
    /// asks whether it would work.
    pub(crate) fn groups_to_make(&self) -> &[Command] {
        if self.validate_only { &[] } else { &self.groups }
    }

    /// The commands to propose, each with the slot under which its outcome is settled. None if the
    /// request only asks whether it would work.
    pub(crate) fn commands(&self) -> Vec<(usize, Command)> {
        if self.validate_only {
            return Vec::new();
        }
        let command = |(slot, topic): (usize, &CreatedTopic)| match &topic.creation {
            Creation::Planned(topic) => Some((slot, Command::CreateTopic(topic.clone()))),
            Creation::Refused(_) | Creation::Created(_) => None,
        };
        self.topics.iter().enumerate().filter_map(command).collect()
    }

    /// Notes what became of a command, or why it was not proposed or committed.
    pub(crate) fn settle(&mut self, slot: usize, result: Result<&Outcome, ErrorCode>) {
        let Some(CreatedTopic { name, creation, .. }) = self.topics.get_mut(slot) else { return };
        *creation = match result {
            Ok(Outcome::TopicCreated { topic }) => Creation::Created(Arc::clone(topic)),
            Ok(Outcome::TopicExists { .. }) => {
                let error = NewTopicError::Exists { name: name.to_string() };
                Creation::Refused(Refusal::of_new_topic(&error))
            }
            Ok(_) => Creation::Refused(Refusal::unexpected()),
            Err(code) => Creation::Refused(Refusal::not_committed(code)),
        };
    }

    /// The reply. A command that was never settled has timed out.
    pub(crate) fn response(&self, settings: &BrokerSettings) -> CreateTopicsResponse {
        let results = self.topics.iter().map(|topic| {
            let result = CreatableTopicResult::default().with_name(topic.name.clone());
            let replicated = || result.clone().with_replication_factor(topic.replication_factor);
            match &topic.creation {
                Creation::Refused(refusal) => refused_topic(result, refusal),
                Creation::Created(topic) => {
                    let result = replicated().with_topic_id(topic.id);
                    described(result, topic.partition_count(), &topic.config, settings)
                }
                Creation::Planned(topic) if self.validate_only => {
                    let count = i32::try_from(topic.placement.len()).unwrap_or(i32::MAX);
                    let config = TopicConfig::lenient(topic.configs.clone(), settings);
                    described(replicated(), count, &config, settings)
                }
                Creation::Planned(_) => {
                    let timed_out = Refusal::not_committed(ErrorCode::RequestTimedOut);
                    refused_topic(result, &timed_out)
                }
            }
        });
        CreateTopicsResponse::default().with_topics(results.collect())
    }
}

fn plan_topic(
    planner: &mut Planner<'_>,
    topic: &CreatableTopic,
    new_id: &mut dyn FnMut() -> Uuid,
) -> Creation {
    let planned = spec_of(topic).and_then(|spec| planner.plan(spec, new_id()));
    match planned {
        Ok(topic) => Creation::Planned(topic),
        Err(error) => Creation::Refused(Refusal::of_new_topic(&error)),
    }
}

/// The topic that a request describes; -1 means the broker's default (KIP-464).
fn spec_of(topic: &CreatableTopic) -> Result<NewTopicSpec, NewTopicError> {
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let name = config.name.to_string();
        let Some(value) = &config.value else { return Err(ConfigError::Null { name }.into()) };
        configs.insert(name, value.to_string());
    }
    let assignments = topic.assignments.iter().map(|assignment| ManualAssignment {
        partition_index: assignment.partition_index,
        brokers: assignment.broker_ids.iter().map(|id| NodeId::new(id.0)).collect(),
    });
    Ok(NewTopicSpec {
        name: topic.name.to_string(),
        partition_count: (topic.num_partitions != -1).then_some(topic.num_partitions),
        replication_factor: (topic.replication_factor != -1).then_some(topic.replication_factor),
        assignments: assignments.collect(),
        configs,
    })
}

/// The reply to a request whose raft groups could not be made.
pub(super) fn refuse_all(request: &CreateTopicsRequest, code: ErrorCode) -> CreateTopicsResponse {
    let refusal = Refusal::not_committed(code);
    let topics = request.topics.iter().map(|topic| {
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        refused_topic(result, &refusal)
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn refused_topic(result: CreatableTopicResult, refusal: &Refusal) -> CreatableTopicResult {
    result
        .with_error_code(refusal.code.code())
        .with_error_message(Some(refusal.text()))
        .with_configs(Some(Vec::new()))
}

fn described(
    result: CreatableTopicResult,
    partition_count: i32,
    config: &TopicConfig,
    settings: &BrokerSettings,
) -> CreatableTopicResult {
    let configs = TOPIC_KEYS.iter().filter_map(|key| {
        let effective = config.effective(key, settings).into_iter().next()?;
        Some(
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(key.name))
                .with_value(Some(StrBytes::from_string(effective.value)))
                .with_config_source(effective.source.wire()),
        )
    });
    result
        .with_error_message(None)
        .with_num_partitions(partition_count)
        .with_configs(Some(configs.collect()))
}

/// Finds each topic of a request.
pub(crate) fn plan_delete(
    image: &Image,
    settings: &BrokerSettings,
    version: i16,
    request: &DeleteTopicsRequest,
) -> DeletePlan {
    let asked: Vec<(Option<TopicName>, Uuid)> = if version < DELETE_BY_ID_VERSION_MIN {
        request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::nil())).collect()
    } else {
        request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id)).collect()
    };
    let mut seen = BTreeSet::new();
    let mut topics = Vec::new();
    for (name, topic_id) in asked {
        let found = if settings.delete_topic_enable {
            find_topic(image, name.as_ref(), topic_id)
        } else {
            Err(deletion_disabled(version))
        };
        let state = match found {
            Ok(topic) if !seen.insert(topic.id) => DeletionState::Refused(Refusal::new(
                ErrorCode::InvalidRequest,
                "The provided topic name or id was already supplied.",
            )),
            Ok(topic) => DeletionState::Planned(topic.id),
            Err(refusal) => DeletionState::Refused(refusal),
        };
        topics.push(Deletion { name, topic_id, state });
    }
    DeletePlan { topics }
}

impl DeletePlan {
    /// The commands to propose, each with the slot under which its outcome is settled.
    pub(crate) fn commands(&self) -> Vec<(usize, Command)> {
        let command = |(slot, topic): (usize, &Deletion)| match &topic.state {
            DeletionState::Planned(id) => Some((slot, Command::DeleteTopic { topic_id: *id })),
            DeletionState::Refused(_) | DeletionState::Deleted => None,
        };
        self.topics.iter().enumerate().filter_map(command).collect()
    }

    /// Notes what became of a command, or why it was not proposed or committed.
    pub(crate) fn settle(&mut self, slot: usize, result: Result<&Outcome, ErrorCode>) {
        let Some(topic) = self.topics.get_mut(slot) else { return };
        match result {
            Ok(Outcome::TopicDeleted { topic: deleted }) => {
                topic.name = Some(TopicName(StrBytes::from_string(deleted.name.to_string())));
                topic.topic_id = deleted.id;
                topic.state = DeletionState::Deleted;
            }
            // Somebody else deleted it between the plan and the commit.
            Ok(Outcome::TopicUnknown { .. }) => {
                let by_name = topic.name.is_some();
                topic.state = DeletionState::Refused(Refusal::unknown_topic(by_name));
            }
            Ok(_) => topic.state = DeletionState::Refused(Refusal::unexpected()),
            Err(code) => topic.state = DeletionState::Refused(Refusal::not_committed(code)),
        }
    }

    /// The reply. A command that was never settled has timed out.
    pub(crate) fn response(&self) -> DeleteTopicsResponse {
        let results = self.topics.iter().map(|topic| {
            let result = DeletableTopicResult::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
                .with_error_message(None);
            let refusal = match &topic.state {
                DeletionState::Deleted => return result,
                DeletionState::Refused(refusal) => refusal.clone(),
                DeletionState::Planned(_) => Refusal::not_committed(ErrorCode::RequestTimedOut),
            };
            result.with_error_code(refusal.code.code()).with_error_message(Some(refusal.text()))
        });
        DeleteTopicsResponse::default().with_responses(results.collect())
    }
}

fn find_topic<'a>(
    image: &'a Image,
    name: Option<&TopicName>,
    topic_id: Uuid,
) -> Result<&'a Arc<Topic>, Refusal> {
    let found = match (name, topic_id.is_nil()) {
        (Some(_), false) => {
            let message = "You may not specify both topic name and topic id.";
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        (None, true) => {
            let message = "Neither topic name nor id were specified.";
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        (Some(name), true) => image.topic(name),
        (None, false) => image.topic_by_id(topic_id),
    };
    let topic = found.ok_or_else(|| Refusal::unknown_topic(name.is_some()))?;
    if topic.internal {
        // Committed offsets would be gone, and groups with them.
        let message = format!("Topic '{}' is internal and cannot be deleted.", topic.name);
        return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
    }
    Ok(topic)
}

fn deletion_disabled(version: i16) -> Refusal {
    let code =
        if version < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
    Refusal::new(code, "Topic deletion is disabled.")
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn of_new_topic(error: &NewTopicError) -> Self {
        Self::new(code_of(error), error.to_string())
    }

    pub(super) fn unknown_topic(by_name: bool) -> Self {
        if by_name {
            let message = "This server does not host this topic-partition.";
            Self::new(ErrorCode::UnknownTopicOrPartition, message)
        } else {
            Self::new(ErrorCode::UnknownTopicId, "This server does not host this topic ID.")
        }
    }

    pub(super) fn not_committed(code: ErrorCode) -> Self {
        let message = match code {
            ErrorCode::RequestTimedOut => "The request timed out; it may still take effect.",
            ErrorCode::NotController => "This is not the correct controller for this cluster.",
            _ => "The change was not committed.",
        };
        Self::new(code, message)
    }

    pub(super) fn unexpected() -> Self {
        Self::new(ErrorCode::UnknownServerError, "The change had an unexpected outcome.")
    }

    pub(super) fn text(&self) -> StrBytes {
        StrBytes::from_string(self.message.clone())
    }
}

fn code_of(error: &NewTopicError) -> ErrorCode {
    match error {
        NewTopicError::Name(_) | NewTopicError::Collides { .. } => ErrorCode::InvalidTopicException,
        NewTopicError::Exists { .. } => ErrorCode::TopicAlreadyExists,
        NewTopicError::PartitionCount => ErrorCode::InvalidPartitions,
        NewTopicError::TooManyPartitions => ErrorCode::PolicyViolation,
        NewTopicError::ReplicationFactor
        | NewTopicError::TooFewNodes { .. }
        | NewTopicError::TooFewServing { .. } => ErrorCode::InvalidReplicationFactor,
        NewTopicError::AssignmentAndCount { .. } => ErrorCode::InvalidRequest,
        NewTopicError::AssignmentIndexes
        | NewTopicError::AssignmentEmpty
        | NewTopicError::AssignmentRepeats { .. }
        | NewTopicError::AssignmentBroker { .. } => ErrorCode::InvalidReplicaAssignment,
        NewTopicError::Config(_) => ErrorCode::InvalidConfig,
        NewTopicError::NoGroups => ErrorCode::NotController,
    }
}

#[cfg(test)]
#[path = "topic_tests.rs"]
mod tests;
