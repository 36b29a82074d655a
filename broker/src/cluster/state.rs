//! Applies committed commands, in the order of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{LogIndex, NodeId, PartitionId, RaftGroupId};
use uuid::Uuid;

use super::command::{Command, NewTopic, Replica};
use super::image::{Group, Image, Node, Partition, Topic};
use super::membership::NodeState;
use crate::config::{BrokerSettings, TopicConfig};

/// Group 0's state. The same commands give the same state, and the same snapshot bytes, anywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    pub(super) image: Arc<Image>,
    /// Ids below it are in a block that was given out.
    pub(super) next_producer_id: i64,
    /// Topic defaults of this node. They shape the typed configs of the image, not the state.
    pub(super) settings: Arc<BrokerSettings>,
}

/// What a command changed, for whoever proposed it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    ClusterInitialized {
        cluster_id: Uuid,
    },
    /// The cluster keeps the id it had.
    ClusterExists {
        cluster_id: Uuid,
    },
    BrokerRegistered {
        node: NodeId,
    },
    GroupCreated {
        group: RaftGroupId,
    },
    GroupExists {
        group: RaftGroupId,
    },
    /// Its replicas cannot be, or there are as many groups as there can be; nothing changed.
    GroupRefused,
    TopicCreated {
        topic: Arc<Topic>,
    },
    /// A topic of that name, or with that id, is there; nothing changed.
    TopicExists {
        topic: Arc<Topic>,
    },
    TopicDeleted {
        topic: Arc<Topic>,
    },
    TopicUnknown {
        topic_id: Uuid,
    },
    /// Producer ids from `start` on, `count` of them.
    ProducerIdBlock {
        node: NodeId,
        start: i64,
        count: u32,
    },
    DiskReplaced {
        node: NodeId,
    },
    /// That disk is the node's, or was replaced itself; nothing changed.
    DiskKnown {
        node: NodeId,
    },
    /// All 2^63 producer ids are given out.
    ProducerIdsExhausted,
    NodeAdded {
        node: NodeId,
    },
    /// A broker of that number is there; nothing changed.
    NodeExists {
        node: NodeId,
    },
    NodeStateSet {
        node: NodeId,
    },
    /// No broker of that number is there; nothing changed.
    NodeUnknown {
        node: NodeId,
    },
    /// It has copies of groups, which have to go elsewhere first; nothing changed.
    NodeInUse {
        node: NodeId,
    },
    ReplicasSet {
        group: RaftGroupId,
    },
    /// The group or a broker is not there, or others were asked for since; nothing changed.
    ReplicasRefused {
        group: RaftGroupId,
    },
    GroupSettled {
        group: RaftGroupId,
    },
    /// The partition is on its way, or stays where it is.
    MoveSet {
        topic_id: Uuid,
        index: u32,
    },
    PartitionArrived {
        topic_id: Uuid,
        index: u32,
    },
    /// No such partition or group is there, the partition never moves, or another move was asked
    /// for since; nothing changed.
    MoveRefused {
        topic_id: Uuid,
        index: u32,
    },
    TopicConfigsSet {
        topic_id: Uuid,
    },
    /// Something else is set on the topic than whoever asked knew of; nothing changed.
    TopicConfigsDiffer {
        topic_id: Uuid,
    },
}

impl Cluster {
    /// A cluster before its first command.
    pub fn new(settings: Arc<BrokerSettings>) -> Self {
        let image = Image { next_partition: PartitionId::new(1), ..Image::default() };
        Self { image: Arc::new(image), next_producer_id: 0, settings }
    }

    pub fn settings(&self) -> &Arc<BrokerSettings> {
        &self.settings
    }

    /// The state as it is now. Costs one reference; after it was taken, the next `apply` copies the
    /// maps (not the topics) once, so take it once for each batch of commands.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image)
    }

    /// Applies the command committed at `index`. One that the state has seen already is for the
    /// caller to leave out: a raft log is applied once.
    pub fn apply(&mut self, index: LogIndex, command: Command) -> Outcome {
        let outcome = match command {
            Command::InitializeCluster { cluster_id } => self.initialize(cluster_id),
            Command::RegisterBroker { node, endpoints, rack } => {
                self.register(Node { id: node, endpoints, rack })
            }
            Command::CreateGroup { group, replicas } => self.create_group(group, replicas),
            Command::EnsureGroup { replicas } => self.ensure_group(replicas),
            Command::CreateTopic(topic) => self.create_topic(topic),
            Command::DeleteTopic { topic_id } => self.delete_topic(topic_id),
            Command::AllocateProducerIds { node, count } => self.allocate(node, count),
            Command::ReplaceDisk { node, incarnation } => self.replace_disk(node, incarnation),
            Command::AddNode { node, address } => self.add_node(node, address),
            Command::SetNodeState { node, state } => self.set_node_state(node, state),
            Command::SetReplicas { group, replicas } => self.set_replicas(index, group, replicas),
            Command::GroupSettled { group, asked } => self.settle_group(group, asked),
            Command::MovePartition { topic_id, index: at, to, replaces } => {
                self.move_partition(index, (topic_id, at), to, replaces)
            }
            Command::PartitionArrived { topic_id, index: at, id, epoch_base, arrived } => {
                self.partition_arrived((topic_id, at), id, epoch_base, arrived)
            }
            Command::SetTopicConfigs { topic_id, from, to } => {
                self.set_topic_configs(topic_id, &from, to)
            }
        };
        self.image_mut().version = index;
        outcome
    }

    fn initialize(&mut self, cluster_id: Uuid) -> Outcome {
        if let Some(cluster_id) = self.image.cluster_id {
            return Outcome::ClusterExists { cluster_id };
        }
        self.image_mut().cluster_id = Some(cluster_id);
        Outcome::ClusterInitialized { cluster_id }
    }

    fn register(&mut self, node: Node) -> Outcome {
        let id = node.id;
        if self.image.state_of(id) == NodeState::Removed {
            return Outcome::NodeUnknown { node: id };
        }
        self.image_mut().nodes.insert(id, Arc::new(node));
        Outcome::BrokerRegistered { node: id }
    }

    pub(super) fn create_group(&mut self, group: RaftGroupId, replicas: Vec<Replica>) -> Outcome {
        if self.image.groups.contains_key(&group) {
            return Outcome::GroupExists { group };
        }
        let founders = self.founders(&replicas);
        let new = Group { founders, ..Group::settled(group, replicas) };
        self.image_mut().groups.insert(group, Arc::new(new));
        Outcome::GroupCreated { group }
    }

    fn create_topic(&mut self, new: NewTopic) -> Outcome {
        let known = self.image.topic(&new.name).or_else(|| self.image.topic_by_id(new.topic_id));
        if let Some(topic) = known {
            return Outcome::TopicExists { topic: Arc::clone(topic) };
        }
        let partitions = new.placement.iter().map(|group| self.new_partition(*group)).collect();
        let topic = Arc::new(Topic {
            name: new.name.into(),
            id: new.topic_id,
            internal: new.internal,
            partitions,
            config: TopicConfig::lenient(new.configs, &self.settings),
        });
        self.image_mut().insert_topic(&topic);
        Outcome::TopicCreated { topic }
    }

    fn new_partition(&mut self, group: RaftGroupId) -> Partition {
        let id = self.image.next_partition;
        self.image_mut().next_partition = PartitionId::new(id.get().saturating_add(1));
        Partition::new(id, group)
    }

    fn delete_topic(&mut self, topic_id: Uuid) -> Outcome {
        if self.image.topic_by_id(topic_id).is_none() {
            return Outcome::TopicUnknown { topic_id };
        }
        let image = self.image_mut();
        match image.topics_by_id.remove(&topic_id) {
            Some(topic) => {
                image.topics.remove(&topic.name);
                Outcome::TopicDeleted { topic }
            }
            None => Outcome::TopicUnknown { topic_id },
        }
    }

    fn set_topic_configs(
        &mut self,
        topic_id: Uuid,
        from: &BTreeMap<String, String>,
        to: BTreeMap<String, String>,
    ) -> Outcome {
        let Some(topic) = self.image.topic_by_id(topic_id) else {
            return Outcome::TopicUnknown { topic_id };
        };
        if topic.config.overrides() != from {
            return Outcome::TopicConfigsDiffer { topic_id };
        }
        if *from != to {
            let config = TopicConfig::lenient(to, &self.settings);
            let changed = Topic { config, ..Topic::clone(topic) };
            self.image_mut().insert_topic(&Arc::new(changed));
        }
        Outcome::TopicConfigsSet { topic_id }
    }

    fn allocate(&mut self, node: NodeId, count: u32) -> Outcome {
        let start = self.next_producer_id;
        let Some(next) = start.checked_add(i64::from(count)) else {
            return Outcome::ProducerIdsExhausted;
        };
        self.next_producer_id = next;
        Outcome::ProducerIdBlock { node, start, count }
    }

    pub(super) fn replace_disk(&mut self, node: NodeId, incarnation: u32) -> Outcome {
        let image = &self.image;
        if incarnation == image.incarnation(node) || image.is_retired(node, incarnation) {
            return Outcome::DiskKnown { node };
        }
        self.image_mut().disks.entry(node).or_default().push(incarnation);
        Outcome::DiskReplaced { node }
    }

    /// The image to change: a copy of its maps if somebody holds the current one.
    pub(super) fn image_mut(&mut self) -> &mut Image {
        Arc::make_mut(&mut self.image)
    }
}

impl Image {
    pub(super) fn insert_topic(&mut self, topic: &Arc<Topic>) {
        self.topics.insert(Arc::clone(&topic.name), Arc::clone(topic));
        self.topics_by_id.insert(topic.id, Arc::clone(topic));
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(super) mod tests;
