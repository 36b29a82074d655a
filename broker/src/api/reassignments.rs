//! AlterPartitionReassignments and ListPartitionReassignments (KIP-455): partitions that move.
//!
//! A partition has no replicas of its own: it is in a raft group, and that has copies on brokers,
//! the preferred leader first. So replicas ask for a group that has its copies on these brokers and
//! on no others, and the partition moves to it (ADR 0014). Of several groups it is one that prefers
//! the first of these brokers, if there is one; then the one that has the partition, so that
//! nothing moves, or the one that it is on its way to; then the one with the fewest partitions.
//! Where there is none it is made first, on the shard that has the partition, and the request is
//! served again.
//!
//! An alteration is answered when it is committed, which begins the move; what is under way is
//! listed until it is done. Any broker takes both calls.

use std::collections::{BTreeMap, BTreeSet};

use kafka_wire::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
};
use kafka_wire::{ErrorCode, StrBytes};
use model::{LogIndex, NodeId, RaftGroupId};

use super::topic::Refusal;
use crate::cluster::{
    Command, Image, NewTopicError, Outcome, Partition, Replica, Topic, nodes_of, shards_of,
};

/// The moves of one request.
#[derive(Clone, Debug)]
pub(crate) struct ReassignmentPlan {
    allow_replication_factor_change: bool,
    topics: Vec<TopicName>,
    /// Of all topics, in the order of the request.
    partitions: Vec<Reassignment>,
    groups: Vec<Command>,
}

/// A partition to move, as the reply names it.
#[derive(Clone, Debug)]
struct Reassignment {
    /// Its topic's place in the plan.
    topic: usize,
    index: i32,
    state: ReassignmentState,
}

#[derive(Clone, Debug)]
enum ReassignmentState {
    Refused(Refusal),
    Planned(Command),
    Set,
}

/// Chooses groups against one image; counts the partitions that it has sent to each.
struct Planner<'a> {
    image: &'a Image,
    allow_replication_factor_change: bool,
    brokers: BTreeSet<NodeId>,
    /// By the brokers that have their copies, the data groups, each with the broker of the first.
    groups: BTreeMap<BTreeSet<NodeId>, Vec<(NodeId, RaftGroupId)>>,
    /// The partitions of each when nothing moves any more.
    counts: BTreeMap<RaftGroupId, u64>,
    /// What makes groups that are not there.
    missing: Vec<Command>,
}

/// Checks each partition of a request.
pub(crate) fn plan(
    image: &Image,
    request: &AlterPartitionReassignmentsRequest,
) -> ReassignmentPlan {
    let allow_replication_factor_change = request.allow_replication_factor_change;
    let mut planner = Planner::new(image, allow_replication_factor_change);
    let mut names = BTreeSet::new();
    let mut partitions = Vec::new();
    for (place, topic) in request.topics.iter().enumerate() {
        let is_first = names.insert(topic.name.as_str());
        let mut indexes = BTreeSet::new();
        for asked in &topic.partitions {
            let command = if !is_first {
                Err(Refusal::new(ErrorCode::InvalidRequest, "The topic is there twice."))
            } else if !indexes.insert(asked.partition_index) {
                Err(Refusal::new(ErrorCode::InvalidRequest, "The partition is there twice."))
            } else {
                planner.command(&topic.name, asked)
            };
            let state = match command {
                Ok(Some(command)) => ReassignmentState::Planned(command),
                Ok(None) => ReassignmentState::Set,
                Err(refusal) => ReassignmentState::Refused(refusal),
            };
            partitions.push(Reassignment { topic: place, index: asked.partition_index, state });
        }
    }
    let topics = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let groups = planner.missing;
    ReassignmentPlan { allow_replication_factor_change, topics, partitions, groups }
}

/// The reply to a request whose raft groups could not be made.
pub(crate) fn refuse_all(
    request: &AlterPartitionReassignmentsRequest,
    code: ErrorCode,
) -> AlterPartitionReassignmentsResponse {
    let refusal = Refusal::not_committed(code);
    let topic = |asked: &ReassignableTopic| {
        let partition = |asked: &ReassignablePartition| {
            ReassignablePartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(code.code())
                .with_error_message(Some(refusal.text()))
        };
        ReassignableTopicResponse::default()
            .with_name(asked.name.clone())
            .with_partitions(asked.partitions.iter().map(partition).collect())
    };
    AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_message(None)
        .with_responses(request.topics.iter().map(topic).collect())
}

impl ReassignmentPlan {
    /// Raft groups that have to be made before; then it is planned anew.
    pub(crate) fn groups_to_make(&self) -> Vec<Command> {
        self.groups.clone()
    }

    /// The commands to propose, each with the slot under which its outcome is settled.
    pub(crate) fn commands(&self) -> Vec<(usize, Command)> {
        let command = |(slot, partition): (usize, &Reassignment)| match &partition.state {
            ReassignmentState::Planned(command) => Some((slot, command.clone())),
            ReassignmentState::Refused(_) | ReassignmentState::Set => None,
        };
        self.partitions.iter().enumerate().filter_map(command).collect()
    }

    /// Notes what became of a command, or why it was not proposed or committed.
    pub(crate) fn settle(&mut self, slot: usize, result: Result<&Outcome, ErrorCode>) {
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        partition.state = match result {
            Ok(Outcome::MoveSet { .. }) => ReassignmentState::Set,
            // The topic was deleted between the plan and the commit, or the move was over.
            Ok(Outcome::MoveRefused { .. }) => {
                let is_called_off = matches!(
                    &partition.state,
                    ReassignmentState::Planned(Command::MovePartition { replaces, .. })
                        if *replaces > LogIndex::default()
                );
                let refusal = if is_called_off { nothing_moves() } else { unknown_partition() };
                ReassignmentState::Refused(refusal)
            }
            Ok(_) => ReassignmentState::Refused(Refusal::unexpected()),
            Err(code) => ReassignmentState::Refused(Refusal::not_committed(code)),
        };
    }

    /// The reply. A command that was never settled has timed out.
    pub(crate) fn response(&self) -> AlterPartitionReassignmentsResponse {
        let topic = |name: &TopicName| ReassignableTopicResponse::default().with_name(name.clone());
        let mut responses: Vec<_> = self.topics.iter().map(topic).collect();
        for partition in &self.partitions {
            let refusal = match &partition.state {
                ReassignmentState::Set => None,
                ReassignmentState::Refused(refusal) => Some(refusal.clone()),
                ReassignmentState::Planned(_) => {
                    Some(Refusal::not_committed(ErrorCode::RequestTimedOut))
                }
            };
            let code = refusal.as_ref().map_or(ErrorCode::None, |refusal| refusal.code);
            let result = ReassignablePartitionResponse::default()
                .with_partition_index(partition.index)
                .with_error_code(code.code())
                .with_error_message(refusal.as_ref().map(Refusal::text));
            responses[partition.topic].partitions.push(result);
        }
        AlterPartitionReassignmentsResponse::default()
            .with_allow_replication_factor_change(self.allow_replication_factor_change)
            .with_error_message(None)
            .with_responses(responses)
    }
}

impl<'a> Planner<'a> {
    fn new(image: &'a Image, allow_replication_factor_change: bool) -> Self {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for group in image.data_groups().filter(|group| !image.is_lost(group)) {
            let brokers = group.replicas.iter().map(|replica| image.broker_of(*replica));
            // One with a broker that is not there yet has no name that clients know.
            let Some(brokers) = brokers.collect::<Option<Vec<_>>>() else { continue };
            let Some(first) = brokers.first().copied() else { continue };
            groups.entry(brokers.into_iter().collect()).or_default().push((first, group.id));
        }
        let mut counts = BTreeMap::new();
        for (_, _, partition) in image.partitions() {
            *counts.entry(partition.destination()).or_default() += 1;
        }
        let brokers = image.endpoints().map(|endpoint| endpoint.broker).collect();
        let missing = Vec::new();
        Self { image, allow_replication_factor_change, brokers, groups, counts, missing }
    }

    /// What moves a partition as asked, or calls its move off.
    fn command(
        &mut self,
        topic: &TopicName,
        asked: &ReassignablePartition,
    ) -> Result<Option<Command>, Refusal> {
        let topic = self.image.topic(topic).ok_or_else(unknown_partition)?;
        let partition = topic.partition(asked.partition_index).ok_or_else(unknown_partition)?;
        let index = u32::try_from(asked.partition_index).map_err(|_| unknown_partition())?;
        if topic.internal {
            let message = format!("partitions of {} do not move yet", topic.name);
            return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        let (to, replaces) = match (&asked.replicas, partition.moving) {
            (Some(replicas), _) => match self.choose(partition, replicas)? {
                Some(group) => (group, LogIndex::default()),
                None => return Ok(None), // A group is made first.
            },
            (None, Some(moving)) => (partition.group, moving.id),
            (None, None) => return Err(nothing_moves()),
        };
        if to == partition.destination() {
            return Ok(None); // It is there, or on its way: asked for again it would begin anew.
        }
        if let Some(count) = self.counts.get_mut(&partition.destination()) {
            *count -= 1;
        }
        *self.counts.entry(to).or_default() += 1;
        Ok(Some(Command::MovePartition { topic_id: topic.id, index, to, replaces }))
    }

    /// The group that replicas of a partition ask for; `None` if it has to be made.
    fn choose(
        &mut self,
        partition: &Partition,
        replicas: &[BrokerId],
    ) -> Result<Option<RaftGroupId>, Refusal> {
        let wanted = self.checked(replicas)?;
        let present = self.image.replicas(partition).len();
        if !self.allow_replication_factor_change && wanted.len() != present {
            let message =
                format!("The replication factor is changed from {present} to {}", wanted.len());
            return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
        }
        let rank = |(first, group): &&(NodeId, RaftGroupId)| {
            let is_preferred = replicas.first().is_some_and(|broker| broker.0 == first.get());
            let is_there = *group == partition.group;
            let is_to_be_there = *group == partition.destination();
            let count = self.counts.get(group).copied().unwrap_or(0);
            (!is_preferred, !is_there, !is_to_be_there, count, *group)
        };
        let chosen = self.groups.get(&wanted).and_then(|groups| groups.iter().min_by_key(rank));
        if let Some((_, group)) = chosen {
            return Ok(Some(*group));
        }
        self.make_group(partition, replicas)?;
        Ok(None)
    }

    /// Has a group made on these brokers, on the shard that has the partition if that can be.
    fn make_group(&mut self, partition: &Partition, wanted: &[BrokerId]) -> Result<(), Refusal> {
        let refused = |error: NewTopicError| Refusal::of_new_topic(&error);
        let wanted: Vec<_> = wanted.iter().map(|id| NodeId::new(id.0)).collect();
        let nodes = nodes_of(self.image, &wanted).map_err(refused)?;
        let first =
            wanted.first().copied().ok_or_else(|| refused(NewTopicError::AssignmentEmpty))?;
        let shards = shards_of(self.image, first);
        let present = self.image.group(partition.group).and_then(|group| group.shard());
        let shard =
            present.filter(|shard| shards.contains(shard)).or_else(|| shards.first().copied());
        let shard = shard.ok_or_else(Refusal::unexpected)?;
        let replicas: Vec<_> = nodes.into_iter().map(|node| Replica { node, shard }).collect();
        // All of a group's copies are on shards of one number, each a broker of its own to clients
        // where shards have their own listeners.
        for (broker, replica) in wanted.into_iter().zip(&replicas) {
            if self.image.broker_of(*replica) != Some(broker) {
                return Err(refused(NewTopicError::AssignmentBroker { broker }));
            }
        }
        let command = Command::EnsureGroup { replicas };
        if !self.missing.contains(&command) {
            self.missing.push(command);
        }
        Ok(())
    }

    /// The brokers that replicas name, each once and known.
    fn checked(&self, replicas: &[BrokerId]) -> Result<BTreeSet<NodeId>, Refusal> {
        let refused = |error: NewTopicError| Refusal::of_new_topic(&error);
        let mut brokers = BTreeSet::new();
        for broker in replicas.iter().map(|id| NodeId::new(id.0)) {
            if !self.brokers.contains(&broker) {
                return Err(refused(NewTopicError::AssignmentBroker { broker }));
            }
            if !brokers.insert(broker) {
                return Err(refused(NewTopicError::AssignmentRepeats { broker }));
            }
        }
        if brokers.is_empty() {
            return Err(refused(NewTopicError::AssignmentEmpty));
        }
        Ok(brokers)
    }
}

fn unknown_partition() -> Refusal {
    let message = "This server does not host this topic-partition.";
    Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
}

fn nothing_moves() -> Refusal {
    let message = "No partition reassignment is in progress.";
    Refusal::new(ErrorCode::NoReassignmentInProgress, message)
}

/// What moves, of all partitions or of those asked for; others are left out, as Kafka does.
pub(crate) fn list(
    image: &Image,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let topics: Vec<_> = match &request.topics {
        None => {
            let all =
                image.topics().map(|topic| under_way(image, topic, 0..topic.partition_count()));
            all.collect()
        }
        Some(asked) => {
            let known = asked.iter().filter_map(|it| Some((image.topic(&it.name)?, it)));
            let listed = known
                .map(|(topic, it)| under_way(image, topic, it.partition_indexes.iter().copied()));
            listed.collect()
        }
    };
    let moving = topics.into_iter().filter(|topic| !topic.partitions.is_empty());
    ListPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_topics(moving.collect())
}

/// Those of a topic's partitions that move.
fn under_way(
    image: &Image,
    topic: &Topic,
    indexes: impl Iterator<Item = i32>,
) -> OngoingTopicReassignment {
    let brokers = |group: RaftGroupId| {
        let replicas = image.group(group).map_or(&[][..], |group| &group.replicas);
        let brokers = replicas.iter().filter_map(|replica| image.broker_of(*replica));
        brokers.map(|broker| BrokerId(broker.get())).collect::<Vec<_>>()
    };
    let without = |some: &[BrokerId], others: &[BrokerId]| {
        some.iter().filter(|broker| !others.contains(broker)).copied().collect::<Vec<_>>()
    };
    let moving = indexes.filter_map(|index| {
        let partition = topic.partition(index)?;
        let (present, target) = (brokers(partition.group), brokers(partition.moving?.to));
        let removing = without(&present, &target);
        let ongoing = OngoingPartitionReassignment::default()
            .with_partition_index(index)
            .with_adding_replicas(without(&target, &present))
            .with_replicas([target, removing.clone()].concat())
            .with_removing_replicas(removing);
        Some(ongoing)
    });
    OngoingTopicReassignment::default()
        .with_name(StrBytes::from_string(topic.name.to_string()).into())
        .with_partitions(moving.collect())
}

#[cfg(test)]
#[path = "reassignments_tests.rs"]
mod tests;
