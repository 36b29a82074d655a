//! Decides what a new topic is, before it is proposed: checks the name, counts, settings and
//! assignment against an image, fills in defaults and places the partitions.
//!
//! Two nodes may decide for the same name at once; applying lets the first one win.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{NodeId, RaftGroupId, ShardId};
use uuid::Uuid;

use super::command::{Command, Endpoint, NewTopic, Replica};
use super::image::{Image, Node};
use super::membership::NodeState;
use super::placement::{Placement, groups_to_make};
use super::topic_name::{
    CONSUMER_OFFSETS, TopicNameError, check_topic_name, is_internal, names_collide,
};
use crate::config::{BrokerSettings, ConfigError, TopicConfig};

/// Partitions that one request may create, over all its topics; Kafka's limit. Without one, a
/// request of a few bytes would cost 2^31 partitions.
const PARTITION_COUNT_MAX: usize = 10_000;

/// In place of a group that has to be made first; no partition is ever there.
const TO_BE_MADE: RaftGroupId = RaftGroupId::METADATA;

/// Plans topics against one image; remembers those it has planned.
#[derive(Debug)]
pub struct Planner<'a> {
    image: &'a Image,
    settings: &'a BrokerSettings,
    placement: Placement,
    planned_names: BTreeSet<String>,
    planned_partition_count: usize,
    /// Of the first partition of the last one.
    planned_copies: usize,
    /// Replicas of the groups that have to be made before these topics are.
    missing: Vec<Vec<Replica>>,
}

/// A topic as somebody asks for it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NewTopicSpec {
    pub name: String,
    /// None takes the broker's default.
    pub partition_count: Option<i32>,
    /// None takes the broker's default.
    pub replication_factor: Option<i16>,
    /// Empty lets the planner place the partitions.
    pub assignments: Vec<ManualAssignment>,
    pub configs: BTreeMap<String, String>,
}

/// The brokers that are to hold a partition, the preferred leader first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManualAssignment {
    pub partition_index: i32,
    pub brokers: Vec<NodeId>,
}

/// Why a topic is not created, in Kafka's words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NewTopicError {
    #[error(transparent)]
    Name(#[from] TopicNameError),
    #[error("Topic '{name}' already exists.")]
    Exists { name: String },
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collides { name: String, existing: String },
    #[error("Number of partitions was set to an invalid non-positive value.")]
    PartitionCount,
    #[error("Excessively large number of partitions per request.")]
    TooManyPartitions,
    #[error("Replication factor was set to an invalid non-positive value.")]
    ReplicationFactor,
    #[error(
        "Unable to replicate the partition {factor} time(s): The target replication factor of \
         {factor} cannot be reached because only {node_count} broker(s) are registered."
    )]
    TooFewNodes { factor: i32, node_count: usize },
    #[error(
        "Unable to replicate the partition {factor} time(s): only {serving} broker(s) are \
         registered and not about to leave."
    )]
    TooFewServing { factor: i32, serving: usize },
    #[error("A manual partition assignment was specified, but {field} was not set to -1.")]
    AssignmentAndCount { field: &'static str },
    #[error("partitions should be a consecutive 0-based integer sequence")]
    AssignmentIndexes,
    #[error("The manual partition assignment includes an empty replica list.")]
    AssignmentEmpty,
    #[error(
        "The manual partition assignment includes the broker {broker} more than once, or two \
         brokers of one node."
    )]
    AssignmentRepeats { broker: NodeId },
    #[error(
        "The manual partition assignment includes broker {broker}, but no such broker is \
         registered."
    )]
    AssignmentBroker { broker: NodeId },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("The cluster has no raft group to place partitions in yet.")]
    NoGroups,
}

impl<'a> Planner<'a> {
    pub fn new(image: &'a Image, settings: &'a BrokerSettings) -> Self {
        Self {
            image,
            settings,
            placement: Placement::new(image),
            planned_names: BTreeSet::new(),
            planned_partition_count: 0,
            planned_copies: 0,
            missing: Vec::new(),
        }
    }

    /// What has to be proposed, and planned anew when it is applied, before the topics that were
    /// planned so far are proposed.
    pub fn groups_to_make(&self) -> Vec<Command> {
        let command = |replicas: &Vec<Replica>| Command::EnsureGroup { replicas: replicas.clone() };
        self.missing.iter().map(command).collect()
    }

    /// Checks a topic that somebody asks for. `topic_id` is a fresh random id.
    pub fn plan(&mut self, spec: NewTopicSpec, topic_id: Uuid) -> Result<NewTopic, NewTopicError> {
        self.check_name(&spec.name)?;
        let configs = self.with_internal_configs(&spec.name, spec.configs.clone());
        TopicConfig::new(configs.clone(), self.settings)?;
        let made = self.missing.len();
        let placement = self.place_topic(&spec);
        if placement.is_err() {
            // For a topic that is refused no group is made.
            self.missing.truncate(made);
        }
        let placement = placement?;
        self.planned_partition_count += placement.len();
        self.planned_names.insert(spec.name.clone());
        let internal = is_internal(&spec.name);
        Ok(NewTopic { name: spec.name, topic_id, internal, placement, configs })
    }

    fn place_topic(&mut self, spec: &NewTopicSpec) -> Result<Vec<RaftGroupId>, NewTopicError> {
        let NewTopicSpec { name, partition_count, replication_factor, assignments, .. } = spec;
        if assignments.is_empty() {
            return self.place(name, *partition_count, *replication_factor);
        }
        if partition_count.is_some() {
            return Err(NewTopicError::AssignmentAndCount { field: "numPartitions" });
        }
        if replication_factor.is_some() {
            return Err(NewTopicError::AssignmentAndCount { field: "replicationFactor" });
        }
        self.place_by_hand(assignments)
    }

    /// The copies of the first partition of the topic that was planned last.
    pub fn copies(&self) -> i16 {
        i16::try_from(self.planned_copies).unwrap_or(i16::MAX)
    }

    /// Plans a topic with the broker's defaults, because a client used its name.
    pub fn plan_default(&mut self, name: &str, topic_id: Uuid) -> Result<NewTopic, NewTopicError> {
        self.plan(NewTopicSpec { name: name.to_owned(), ..NewTopicSpec::default() }, topic_id)
    }

    fn check_name(&self, name: &str) -> Result<(), NewTopicError> {
        check_topic_name(name)?;
        if self.image.topic(name).is_some() || self.planned_names.contains(name) {
            return Err(NewTopicError::Exists { name: name.to_owned() });
        }
        let existing = self.image.colliding_topic(name).map(|topic| &*topic.name);
        let planned = || {
            let collides = |planned: &&String| names_collide(planned, name);
            self.planned_names.iter().find(collides).map(String::as_str)
        };
        match existing.or_else(planned) {
            Some(existing) => Err(NewTopicError::Collides {
                name: name.to_owned(),
                existing: existing.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Committed offsets are kept by compaction; what was asked for explicitly stays.
    fn with_internal_configs(
        &self,
        name: &str,
        mut configs: BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        if name == CONSUMER_OFFSETS {
            let segment_bytes = self.settings.offsets_topic_segment_bytes.to_string();
            for (key, value) in [
                ("cleanup.policy", "compact"),
                ("compression.type", "producer"),
                ("segment.bytes", segment_bytes.as_str()),
            ] {
                configs.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        configs
    }

    fn place(
        &mut self,
        name: &str,
        partition_count: Option<i32>,
        replication_factor: Option<i16>,
    ) -> Result<Vec<RaftGroupId>, NewTopicError> {
        let settings = self.settings;
        let (default_count, default_factor) = if name == CONSUMER_OFFSETS {
            (settings.offsets_topic_partition_count, settings.offsets_topic_replication_factor)
        } else {
            (settings.partition_count_default, settings.default_replication_factor)
        };
        let default_factor = usize::from(default_factor);
        let count = match partition_count {
            None => usize::try_from(default_count).unwrap_or(usize::MAX),
            Some(count) => usize::try_from(count).unwrap_or(0),
        };
        if count == 0 {
            return Err(NewTopicError::PartitionCount);
        }
        // No more than there are brokers, where nobody asked for so many.
        let default_factor = default_factor.min(self.image.members().len());
        let factor = match replication_factor {
            None => i32::try_from(default_factor).unwrap_or(i32::MAX),
            Some(factor) => factor.into(),
        };
        if factor < 0 || replication_factor == Some(0) {
            return Err(NewTopicError::ReplicationFactor);
        }
        let node_count = self.image.nodes().len();
        let is_asked = replication_factor.is_some();
        let copies = usize::try_from(factor).unwrap_or(usize::MAX);
        if is_asked && copies > node_count {
            return Err(NewTopicError::TooFewNodes { factor, node_count });
        }
        self.check_budget(count)?;
        self.planned_copies = copies;
        let groups = groups_to_make(self.image, copies);
        if groups.is_empty() {
            let placed = self.placement.place(count, copies);
            return placed.ok_or_else(|| self.cannot_place(factor));
        }
        groups.into_iter().for_each(|replicas| self.make(replicas));
        Ok(vec![TO_BE_MADE; count])
    }

    /// Why no group can be made with so many copies.
    fn cannot_place(&self, factor: i32) -> NewTopicError {
        if self.image.data_groups().next().is_none() {
            return NewTopicError::NoGroups;
        }
        let is_serving = |node: &&Arc<Node>| self.image.state_of(node.id) == NodeState::Serving;
        let serving = self.image.nodes().filter(is_serving).count();
        NewTopicError::TooFewServing { factor, serving }
    }

    fn place_by_hand(
        &mut self,
        assignments: &[ManualAssignment],
    ) -> Result<Vec<RaftGroupId>, NewTopicError> {
        self.check_budget(assignments.len())?;
        let mut assignments: Vec<_> = assignments.iter().collect();
        assignments.sort_by_key(|assignment| assignment.partition_index);
        let mut groups = Vec::with_capacity(assignments.len());
        for (expected, assignment) in (0_i32..).zip(&assignments) {
            if assignment.partition_index != expected {
                return Err(NewTopicError::AssignmentIndexes);
            }
            let group = self.group_on(&assignment.brokers)?;
            self.placement.count(group);
            groups.push(group);
        }
        self.planned_copies = assignments.first().map_or(0, |first| first.brokers.len());
        Ok(groups)
    }

    /// A data group whose copies are on these brokers, the first one preferred to lead.
    fn group_on(&mut self, brokers: &[NodeId]) -> Result<RaftGroupId, NewTopicError> {
        let preferred = *brokers.first().ok_or(NewTopicError::AssignmentEmpty)?;
        let nodes = nodes_of(self.image, brokers)?;
        let fits = |group: &RaftGroupId| {
            self.image.group(*group).is_some_and(|group| {
                let first = group.replicas.first();
                group.replicas.iter().all(|replica| nodes.contains(&replica.node))
                    && group.replicas.len() == nodes.len()
                    && first.and_then(|replica| self.image.broker_of(*replica)) == Some(preferred)
            })
        };
        if let Some(group) = self.placement.emptiest(fits) {
            return Ok(group);
        }
        let shards = shards_of(self.image, preferred);
        // One after another, so that what is placed by hand is spread over the shards, too.
        let number = self.planned_partition_count + self.missing.len();
        let shard = shards.get(number % shards.len().max(1)).copied();
        let shard = shard.ok_or(NewTopicError::NoGroups)?;
        self.make(nodes.into_iter().map(|node| Replica { node, shard }).collect());
        Ok(TO_BE_MADE)
    }

    fn make(&mut self, replicas: Vec<Replica>) {
        if !self.missing.contains(&replicas) {
            self.missing.push(replicas);
        }
    }

    fn check_budget(&self, count: usize) -> Result<(), NewTopicError> {
        if self.planned_partition_count.saturating_add(count) > PARTITION_COUNT_MAX {
            return Err(NewTopicError::TooManyPartitions);
        }
        Ok(())
    }
}

/// The nodes that clients know as these brokers, each once.
pub(crate) fn nodes_of(image: &Image, brokers: &[NodeId]) -> Result<Vec<NodeId>, NewTopicError> {
    let mut nodes = Vec::new();
    for broker in brokers.iter().copied() {
        let has_it = |endpoint: &Endpoint| endpoint.broker == broker;
        let node = image.nodes().find(|node| node.endpoints.iter().any(has_it));
        let node = node.ok_or(NewTopicError::AssignmentBroker { broker })?.id;
        if nodes.contains(&node) {
            return Err(NewTopicError::AssignmentRepeats { broker });
        }
        nodes.push(node);
    }
    Ok(nodes)
}

/// The shards of a node that have groups with partitions and are reached as a broker.
pub(crate) fn shards_of(image: &Image, broker: NodeId) -> Vec<ShardId> {
    let shards: BTreeSet<_> = image.data_groups().filter_map(|group| group.shard()).collect();
    let endpoints = image.endpoints().filter(|endpoint| endpoint.broker == broker);
    let own: Vec<_> = endpoints.map(|endpoint| endpoint.shard).collect();
    let is_reached = |shard: &ShardId| own.contains(&Some(*shard)) || own.contains(&None);
    shards.into_iter().filter(is_reached).collect()
}

/// How many data groups a new cluster has, and where: one after another goes to the next shard.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub shard_count: u16,
    pub groups_per_shard: u16,
}

impl Shape {
    /// The data groups of a shard.
    pub fn groups_of(self, shard: ShardId) -> Vec<RaftGroupId> {
        let rounds = (0..self.groups_per_shard).map(u64::from);
        let first = u64::from(shard.get()) + 1;
        rounds.map(|round| RaftGroupId::new(first + round * u64::from(self.shard_count))).collect()
    }
}

/// The first commands of a cluster, as one of its `nodes` proposes them: how that node is reached
/// and in which rack it is, group 0 on shard 0 and the data groups of each shard, with a copy on
/// every node, and last its id: with that it has begun. The groups of a shard prefer one node after
/// another as their leader. Proposing them again changes only how the node is reached.
pub fn bootstrap(cluster_id: Uuid, node: Node, nodes: &[NodeId], shape: Shape) -> Vec<Command> {
    let on_shard = |shard: ShardId, first: usize| {
        let order = nodes.iter().cycle().skip(first % nodes.len().max(1)).take(nodes.len());
        order.map(|node| Replica { node: *node, shard }).collect()
    };
    let data_groups = (0..shape.shard_count).map(ShardId::new).flat_map(|shard| {
        let groups = shape.groups_of(shard).into_iter().enumerate();
        groups.map(move |(number, group)| (shard, number, group))
    });
    let data_group = |(shard, number, group): (ShardId, usize, RaftGroupId)| {
        let replicas = on_shard(shard, usize::from(shard.get()) + number);
        Command::CreateGroup { group, replicas }
    };
    let replicas = on_shard(ShardId::new(0), 0);
    let metadata_group = Command::CreateGroup { group: RaftGroupId::METADATA, replicas };
    let Node { id: node, endpoints, rack } = node;
    [Command::RegisterBroker { node, endpoints, rack }, metadata_group]
        .into_iter()
        .chain(data_groups.map(data_group))
        .chain([Command::InitializeCluster { cluster_id }])
        .collect()
}

#[cfg(test)]
#[path = "creation_tests.rs"]
mod tests;
