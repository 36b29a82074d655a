//! Decides what a new topic is, before it is proposed: checks the name, counts, settings and
//! assignment against an image, fills in defaults and places the partitions.
//!
//! Two nodes may decide for the same name at once; applying lets the first one win.

use std::collections::{BTreeMap, BTreeSet};

use model::{NodeId, RaftGroupId, ShardId};
use uuid::Uuid;

use super::command::{Command, Endpoint, NewTopic, Replica};
use super::image::{Image, Node};
use super::placement::Placement;
use super::topic_name::{
    CONSUMER_OFFSETS, TopicNameError, check_topic_name, is_internal, names_collide,
};
use crate::config::{BrokerSettings, ConfigError, TopicConfig};

/// Partitions that one request may create, over all its topics; Kafka's limit. Without one, a
/// request of a few bytes would cost 2^31 partitions.
const PARTITION_COUNT_MAX: usize = 10_000;

/// Plans topics against one image; remembers those it has planned.
#[derive(Debug)]
pub struct Planner<'a> {
    image: &'a Image,
    settings: &'a BrokerSettings,
    placement: Placement,
    planned_names: BTreeSet<String>,
    planned_partition_count: usize,
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
        "Unable to replicate the partition {factor} time(s): the raft groups of this cluster have \
         at most {most} copies."
    )]
    TooFewCopies { factor: i32, most: usize },
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
    #[error("The manual partition assignment needs a raft group on those brokers; there is none.")]
    AssignmentGroup,
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
        }
    }

    /// Checks a topic that somebody asks for. `topic_id` is a fresh random id.
    pub fn plan(&mut self, spec: NewTopicSpec, topic_id: Uuid) -> Result<NewTopic, NewTopicError> {
        self.check_name(&spec.name)?;
        let configs = self.with_internal_configs(&spec.name, spec.configs);
        TopicConfig::new(configs.clone(), self.settings)?;
        let placement = if spec.assignments.is_empty() {
            self.place(&spec.name, spec.partition_count, spec.replication_factor)?
        } else {
            if spec.partition_count.is_some() {
                return Err(NewTopicError::AssignmentAndCount { field: "numPartitions" });
            }
            if spec.replication_factor.is_some() {
                return Err(NewTopicError::AssignmentAndCount { field: "replicationFactor" });
            }
            self.place_by_hand(spec.assignments)?
        };
        self.planned_partition_count += placement.len();
        self.planned_names.insert(spec.name.clone());
        let internal = is_internal(&spec.name);
        Ok(NewTopic { name: spec.name, topic_id, internal, placement, configs })
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
        let count = match partition_count {
            None => usize::try_from(default_count).unwrap_or(usize::MAX),
            Some(count) => usize::try_from(count).unwrap_or(0),
        };
        if count == 0 {
            return Err(NewTopicError::PartitionCount);
        }
        let factor = replication_factor.map_or_else(|| i32::from(default_factor), i32::from);
        if factor <= 0 {
            return Err(NewTopicError::ReplicationFactor);
        }
        let node_count = self.image.nodes().len();
        if usize::try_from(factor).is_ok_and(|factor| factor > node_count) {
            return Err(NewTopicError::TooFewNodes { factor, node_count });
        }
        self.check_budget(count)?;
        let copies = usize::try_from(factor).unwrap_or(usize::MAX);
        let most = self.placement.copies_max();
        let too_few = if most == 0 {
            NewTopicError::NoGroups
        } else {
            NewTopicError::TooFewCopies { factor, most }
        };
        self.placement.place(count, copies).ok_or(too_few)
    }

    fn place_by_hand(
        &mut self,
        mut assignments: Vec<ManualAssignment>,
    ) -> Result<Vec<RaftGroupId>, NewTopicError> {
        self.check_budget(assignments.len())?;
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
        Ok(groups)
    }

    /// A data group whose copies are on these brokers, the first one preferred to lead.
    fn group_on(&self, brokers: &[NodeId]) -> Result<RaftGroupId, NewTopicError> {
        let preferred = *brokers.first().ok_or(NewTopicError::AssignmentEmpty)?;
        let mut nodes = BTreeSet::new();
        for broker in brokers {
            let node = self.node_of(*broker)?;
            if !nodes.insert(node) {
                return Err(NewTopicError::AssignmentRepeats { broker: *broker });
            }
        }
        let fits = |group: &RaftGroupId| {
            self.image.group(*group).is_some_and(|group| {
                let first = group.replicas.first();
                group.replicas.iter().all(|replica| nodes.contains(&replica.node))
                    && group.replicas.len() == nodes.len()
                    && first.and_then(|replica| self.image.broker_of(*replica)) == Some(preferred)
            })
        };
        self.placement.emptiest(fits).ok_or(NewTopicError::AssignmentGroup)
    }

    fn node_of(&self, broker: NodeId) -> Result<NodeId, NewTopicError> {
        let has_it = |endpoint: &Endpoint| endpoint.broker == broker;
        self.image
            .nodes()
            .find(|node| node.endpoints.iter().any(has_it))
            .map(|node| node.id)
            .ok_or(NewTopicError::AssignmentBroker { broker })
    }

    fn check_budget(&self, count: usize) -> Result<(), NewTopicError> {
        if self.planned_partition_count.saturating_add(count) > PARTITION_COUNT_MAX {
            return Err(NewTopicError::TooManyPartitions);
        }
        Ok(())
    }
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
