//! OffsetCommit and OffsetFetch between Kafka's messages and the coordinator's words; see
//! [`super::group`].

use kafka_wire::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_wire::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_wire::{ErrorCode, StrBytes};
use uuid::Uuid;

use super::group::{error_code, name, text};
use crate::cluster::Image;
use crate::group::{
    CommitOffset, CommitOffsetsRequest, CommittedOffset, FetchOffsetsRequest, GroupError,
    GroupRequest, GroupResponse, Name, OffsetFetched, Operation, TopicPartitions,
};

/// First version of both APIs that names topics by id.
const TOPIC_ID_VERSION: i16 = 10;
/// First OffsetCommit version that tells an unknown group from a wrong generation.
const GROUP_NOT_FOUND_VERSION: i16 = 9;
/// First OffsetFetch version with a list of groups (KIP-709).
const GROUP_LIST_VERSION: i16 = 8;
/// First OffsetFetch version with an error for the whole response.
const FETCH_ERROR_VERSION: i16 = 2;

/// The topics there are.
pub(crate) trait TopicLookup {
    fn by_name(&self, name: &str) -> Option<KnownTopic>;
    fn by_id(&self, id: Uuid) -> Option<KnownTopic>;
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct KnownTopic {
    pub(crate) name: Name,
    pub(crate) id: Uuid,
    pub(crate) partition_count: i32,
}

impl TopicLookup for Image {
    fn by_name(&self, name: &str) -> Option<KnownTopic> {
        self.topic(name).map(|topic| known(topic))
    }

    fn by_id(&self, id: Uuid) -> Option<KnownTopic> {
        self.topic_by_id(id).map(|topic| known(topic))
    }
}

fn known(topic: &crate::cluster::Topic) -> KnownTopic {
    let partition_count = topic.partition_count();
    KnownTopic { name: topic.name.clone(), id: topic.id, partition_count }
}

/// The topics of a commit in the request's order, with what is known before the group is asked.
#[derive(Debug)]
pub(crate) struct CommitPlan(Vec<CommitTopic>);

#[derive(Debug)]
struct CommitTopic {
    name: TopicName,
    id: Uuid,
    /// Refused, or asked.
    partitions: Vec<(i32, Result<(), GroupError>)>,
}

impl CommitPlan {
    /// The group is not asked if no partition of the commit exists.
    pub(crate) fn new(
        version: i16,
        request: OffsetCommitRequest,
        topics: &dyn TopicLookup,
    ) -> (Self, Option<GroupRequest>) {
        let mut plan = Vec::new();
        let mut offsets = Vec::new();
        for topic in request.topics {
            let known = if version >= TOPIC_ID_VERSION {
                topics.by_id(topic.topic_id).ok_or(GroupError::UnknownTopicId)
            } else {
                topics.by_name(&topic.name).ok_or(GroupError::UnknownTopicOrPartition)
            };
            let mut partitions = Vec::new();
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let exists = known.as_ref().map_err(|error| *error).and_then(|known| {
                    let exists = (0..known.partition_count).contains(&index);
                    exists.then_some(known).ok_or(GroupError::UnknownTopicOrPartition)
                });
                offsets.extend(exists.ok().map(|topic| commit_offset(topic, partition)));
                partitions.push((index, exists.map(|_| ())));
            }
            plan.push(CommitTopic { name: topic.name, id: topic.topic_id, partitions });
        }
        let ask = (!offsets.is_empty()).then(|| GroupRequest {
            group: name(&request.group_id),
            operation: Operation::CommitOffsets(CommitOffsetsRequest {
                generation: request.generation_id_or_member_epoch,
                member_id: name(&request.member_id),
                instance_id: request.group_instance_id.as_ref().map(name),
                retention_ms: Some(request.retention_time_ms).filter(|ms| *ms >= 0),
                offsets,
            }),
        });
        (Self(plan), ask)
    }

    pub(crate) fn respond(
        self,
        version: i16,
        answer: Option<&GroupResponse>,
    ) -> OffsetCommitResponse {
        let committed = match answer {
            Some(GroupResponse::CommitOffsets(committed)) => committed.as_slice(),
            _ => &[],
        };
        let mut results = committed.iter().map(|offset| offset.result);
        let mut response = OffsetCommitResponse::default();
        for topic in self.0 {
            let mut partitions = Vec::new();
            for (index, known) in topic.partitions {
                let missing = Err(GroupError::CoordinatorNotAvailable);
                let result = known.and_then(|()| results.next().unwrap_or(missing));
                let error = result.map_or_else(|error| commit_code(version, error).code(), |()| 0);
                partitions.push(
                    OffsetCommitResponsePartition::default()
                        .with_partition_index(index)
                        .with_error_code(error),
                );
            }
            response.topics.push(
                OffsetCommitResponseTopic::default()
                    .with_name(topic.name)
                    .with_topic_id(topic.id)
                    .with_partitions(partitions),
            );
        }
        response
    }
}

fn commit_offset(topic: &KnownTopic, partition: &OffsetCommitRequestPartition) -> CommitOffset {
    let metadata = partition.committed_metadata.as_ref();
    CommitOffset {
        topic: topic.name.clone(),
        topic_id: topic.id,
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: metadata.map_or_else(|| Name::from(""), name),
    }
}

fn commit_code(version: i16, error: GroupError) -> ErrorCode {
    match error {
        GroupError::GroupNotFound if version < GROUP_NOT_FOUND_VERSION => {
            ErrorCode::IllegalGeneration
        }
        other => error_code(other),
    }
}

/// The groups of a fetch in the request's order.
#[derive(Debug)]
pub(crate) struct FetchPlan(Vec<FetchGroup>);

#[derive(Debug)]
struct FetchGroup {
    id: StrBytes,
    /// All topics, if none.
    topics: Option<Vec<FetchTopic>>,
}

#[derive(Debug)]
struct FetchTopic {
    name: TopicName,
    id: Uuid,
    /// Not asked for: there is no topic of this id.
    unknown: bool,
    partitions: Vec<i32>,
}

impl FetchPlan {
    pub(crate) fn new(
        version: i16,
        request: OffsetFetchRequest,
        topics: &dyn TopicLookup,
    ) -> (Self, Vec<GroupRequest>) {
        let require_stable = request.require_stable;
        let mut asks = Vec::new();
        let groups = groups_of(version, request);
        for group in &groups {
            let wanted = group.topics.as_ref().map(|wanted| {
                wanted.iter().filter_map(|t| topic_partitions(version, t, topics)).collect()
            });
            let fetch = FetchOffsetsRequest { topics: wanted, require_stable };
            let operation = Operation::FetchOffsets(fetch);
            asks.push(GroupRequest { group: name(&group.id), operation });
        }
        let mut plan = Self(groups);
        plan.mark_unknown(version, topics);
        (plan, asks)
    }

    fn mark_unknown(&mut self, version: i16, topics: &dyn TopicLookup) {
        let wanted = self.0.iter_mut().flat_map(|group| group.topics.iter_mut().flatten());
        for topic in wanted.filter(|_| version >= TOPIC_ID_VERSION) {
            topic.unknown = topics.by_id(topic.id).is_none();
        }
    }

    pub(crate) fn respond(
        self,
        version: i16,
        answers: Vec<GroupResponse>,
        topics: &dyn TopicLookup,
    ) -> OffsetFetchResponse {
        let mut answers = answers.into_iter();
        let mut response = OffsetFetchResponse::default();
        for group in self.0 {
            let fetched = match answers.next() {
                Some(GroupResponse::FetchOffsets(fetched)) => fetched,
                _ => Err(GroupError::CoordinatorNotAvailable),
            };
            if version >= GROUP_LIST_VERSION {
                response.groups.push(group_response(version, group, fetched, topics));
                continue;
            }
            if let Err(error) = fetched {
                let code = error_code(error).code();
                response.error_code = if version < FETCH_ERROR_VERSION { 0 } else { code };
            }
            if fetched.is_ok() || version < FETCH_ERROR_VERSION {
                let found = rows(version, group, fetched, topics);
                response.topics = found.into_iter().map(TopicRows::by_name).collect();
            }
        }
        response
    }
}

/// The groups in either form of the request.
fn groups_of(version: i16, request: OffsetFetchRequest) -> Vec<FetchGroup> {
    if version < GROUP_LIST_VERSION {
        let topic =
            |(name, partitions)| FetchTopic { name, id: Uuid::nil(), unknown: false, partitions };
        let topics = request.topics.map(|topics| {
            topics.into_iter().map(|t| topic((t.name, t.partition_indexes))).collect()
        });
        return vec![FetchGroup { id: request.group_id.0, topics }];
    }
    let group = |group: kafka_wire::messages::offset_fetch_request::OffsetFetchRequestGroup| {
        let topic =
            |t: kafka_wire::messages::offset_fetch_request::OffsetFetchRequestTopics| FetchTopic {
                name: t.name,
                id: t.topic_id,
                unknown: false,
                partitions: t.partition_indexes,
            };
        let topics = group.topics.map(|topics| topics.into_iter().map(topic).collect());
        FetchGroup { id: group.group_id.0, topics }
    };
    request.groups.into_iter().map(group).collect()
}

/// What to ask for a topic; nothing if its id is unknown. A name need not be known.
fn topic_partitions(
    version: i16,
    topic: &FetchTopic,
    topics: &dyn TopicLookup,
) -> Option<TopicPartitions> {
    let partitions = topic.partitions.clone();
    if version >= TOPIC_ID_VERSION {
        let known = topics.by_id(topic.id)?;
        return Some(TopicPartitions { topic: known.name, topic_id: known.id, partitions });
    }
    let topic_id = topics.by_name(&topic.name).map_or(Uuid::nil(), |known| known.id);
    Some(TopicPartitions { topic: name(&topic.name), topic_id, partitions })
}

fn group_response(
    version: i16,
    group: FetchGroup,
    fetched: Result<Vec<OffsetFetched>, GroupError>,
    topics: &dyn TopicLookup,
) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(group.id.clone().into());
    if let Err(error) = fetched {
        return response.with_error_code(error_code(error).code());
    }
    let found = rows(version, group, fetched, topics);
    response.with_topics(found.into_iter().map(TopicRows::by_group).collect())
}

/// A topic of the response in neither of its two forms.
struct TopicRows {
    name: TopicName,
    id: Uuid,
    partitions: Vec<(i32, Result<Option<CommittedOffset>, GroupError>)>,
}

/// The topics as asked for, or all that the group has.
fn rows(
    version: i16,
    group: FetchGroup,
    fetched: Result<Vec<OffsetFetched>, GroupError>,
    topics: &dyn TopicLookup,
) -> Vec<TopicRows> {
    let whole = fetched.as_ref().err().copied();
    let mut fetched = fetched.unwrap_or_default().into_iter();
    let Some(wanted) = group.topics else { return all_rows(version, fetched, topics) };
    let mut found = Vec::new();
    for topic in wanted {
        let unknown = topic.unknown.then_some(GroupError::UnknownTopicId).or(whole);
        let row = |index| match unknown {
            Some(error) => (index, Err(error)),
            None => (index, fetched.next().map_or(Ok(None), |offset| offset.result)),
        };
        let partitions = topic.partitions.into_iter().map(row).collect();
        found.push(TopicRows { name: topic.name, id: topic.id, partitions });
    }
    found
}

fn all_rows(
    version: i16,
    fetched: impl Iterator<Item = OffsetFetched>,
    topics: &dyn TopicLookup,
) -> Vec<TopicRows> {
    let mut found: Vec<TopicRows> = Vec::new();
    for offset in fetched {
        let mut id = offset.topic_id;
        if version >= TOPIC_ID_VERSION {
            // Without an id there is no way to name the topic in the response.
            let Some(known) = topics.by_name(&offset.topic) else { continue };
            if !id.is_nil() && id != known.id {
                continue;
            }
            id = known.id;
        }
        let row = (offset.partition, offset.result);
        let name = TopicName(text(&offset.topic));
        match found.last_mut() {
            Some(last) if last.name == name => last.partitions.push(row),
            _ => found.push(TopicRows { name, id, partitions: vec![row] }),
        }
    }
    found
}

impl TopicRows {
    /// As versions before the list of groups have it.
    fn by_name(self) -> OffsetFetchResponseTopic {
        let partition = |(index, result): (i32, Result<Option<CommittedOffset>, GroupError>)| {
            let row = Row::new(result);
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(row.offset)
                .with_committed_leader_epoch(row.leader_epoch)
                .with_metadata(Some(row.metadata))
                .with_error_code(row.error)
        };
        OffsetFetchResponseTopic::default()
            .with_name(self.name)
            .with_partitions(self.partitions.into_iter().map(partition).collect())
    }

    fn by_group(self) -> OffsetFetchResponseTopics {
        let partition = |(index, result): (i32, Result<Option<CommittedOffset>, GroupError>)| {
            let row = Row::new(result);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_committed_offset(row.offset)
                .with_committed_leader_epoch(row.leader_epoch)
                .with_metadata(Some(row.metadata))
                .with_error_code(row.error)
        };
        OffsetFetchResponseTopics::default()
            .with_name(self.name)
            .with_topic_id(self.id)
            .with_partitions(self.partitions.into_iter().map(partition).collect())
    }
}

/// No commit is offset -1 and no error.
struct Row {
    offset: i64,
    leader_epoch: i32,
    metadata: StrBytes,
    error: i16,
}

impl Row {
    fn new(result: Result<Option<CommittedOffset>, GroupError>) -> Self {
        match result {
            Ok(Some(committed)) => Self {
                offset: committed.offset,
                leader_epoch: committed.leader_epoch,
                metadata: text(&committed.metadata),
                error: 0,
            },
            Ok(None) => Self::none(0),
            Err(error) => Self::none(error_code(error).code()),
        }
    }

    fn none(error: i16) -> Self {
        Self { offset: -1, leader_epoch: -1, metadata: StrBytes::default(), error }
    }
}

#[cfg(test)]
#[path = "offsets_tests.rs"]
mod tests;
