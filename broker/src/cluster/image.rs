//! The cluster as of one committed command: what every core reads to answer Metadata, to route a
//! request and to know a topic's settings.
//!
//! An image never changes once it is shared. The next one shares every topic that did not change.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{LogIndex, NodeId, PartitionId, RaftGroupId, ShardId};
use uuid::Uuid;

use super::command::{Endpoint, Replica};
use super::membership::Standing;
use super::moves::Move;
use super::topic_name::{may_collide, names_collide};
use crate::config::TopicConfig;

/// An immutable view of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub(super) version: LogIndex,
    /// Ids below it have been given to a partition, which may be deleted by now.
    pub(super) next_partition: PartitionId,
    pub(super) cluster_id: Option<Uuid>,
    pub(super) nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Of nodes that have lost a disk: the incarnations of those after the first, the present one
    /// last.
    pub(super) disks: BTreeMap<NodeId, Vec<u32>>,
    /// Of brokers of which something was decided since the cluster began.
    pub(super) standings: BTreeMap<NodeId, Standing>,
    pub(super) groups: BTreeMap<RaftGroupId, Arc<Group>>,
    pub(super) topics: BTreeMap<Arc<str>, Arc<Topic>>,
    pub(super) topics_by_id: BTreeMap<Uuid, Arc<Topic>>,
}

/// A process of the cluster and how clients reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    pub id: NodeId,
    pub endpoints: Vec<Endpoint>,
    /// Where it stands, if that was said.
    pub rack: Option<String>,
}

/// A raft group and its copies; the first is the preferred leader.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    pub id: RaftGroupId,
    /// Who is to have a copy.
    pub replicas: Vec<Replica>,
    /// Who has one until the group has done without it.
    pub leaving: Vec<Replica>,
    /// The entry of group 0 that asked for these replicas, while some leave.
    pub asked: LogIndex,
    /// Of a group that was made while the cluster ran, and from which nobody has left: the members
    /// that it began with. One of them that has no copy makes an empty one that knows them.
    pub founders: Vec<u64>,
}

/// A topic, with its partitions in order of their index.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub name: Arc<str>,
    pub id: Uuid,
    /// The broker keeps its own state in it: clients do not produce to it.
    pub internal: bool,
    pub partitions: Box<[Partition]>,
    pub config: TopicConfig,
}

/// A partition: its number in the cluster and the raft group that its log is part of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Partition {
    pub id: PartitionId,
    pub group: RaftGroupId,
    /// What its leader epochs are above the terms of that group: it had higher ones in another.
    pub epoch_base: u32,
    /// The move that brought it there, by its entry of group 0; 0 if it began there.
    pub moved: LogIndex,
    /// An entry of that group's log, at or after the one that adopted it.
    pub arrived: LogIndex,
    /// It is on its way to another group.
    pub moving: Option<Move>,
}

impl Image {
    /// Index of the last command that this image contains; grows with every change.
    pub fn version(&self) -> LogIndex {
        self.version
    }

    /// Was there ever a partition with this id? One that is not in the image is deleted then; the
    /// others may be younger than the image.
    pub fn has_had(&self, partition: PartitionId) -> bool {
        partition < self.next_partition
    }

    /// None until the first command of a new cluster is applied.
    pub fn cluster_id(&self) -> Option<Uuid> {
        self.cluster_id
    }

    /// The cluster id as Kafka writes ids: 22 characters of base64; empty before there is one.
    pub fn cluster_id_text(&self) -> String {
        self.cluster_id.map_or_else(String::new, |id| base64_url(id.as_bytes()))
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topics_by_id.get(&id)
    }

    /// Every topic, in order of name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// A topic whose name differs from `name` only in "." and "_".
    pub fn colliding_topic(&self, name: &str) -> Option<&Arc<Topic>> {
        if !may_collide(name) {
            return None;
        }
        self.topics.values().find(|topic| *topic.name != *name && names_collide(&topic.name, name))
    }

    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// Every node, in order of id.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Every address that clients know as a broker.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.nodes.values().flat_map(|node| &node.endpoints)
    }

    /// The same, each with the rack that it stands in.
    pub fn brokers(&self) -> impl Iterator<Item = (&Endpoint, Option<&str>)> {
        self.nodes
            .values()
            .flat_map(|node| node.endpoints.iter().map(|endpoint| (endpoint, node.rack.as_deref())))
    }

    /// Where a node stands.
    pub fn rack_of(&self, node: NodeId) -> Option<&str> {
        self.nodes.get(&node)?.rack.as_deref()
    }

    /// The incarnation of a node's disk: what it has on another one does not count.
    pub fn incarnation(&self, node: NodeId) -> u32 {
        self.disks.get(&node).and_then(|disks| disks.last()).copied().unwrap_or(0)
    }

    /// Was a node's disk of that incarnation replaced?
    pub fn is_retired(&self, node: NodeId, incarnation: u32) -> bool {
        self.retired_disks().any(|retired| retired == (node, incarnation))
    }

    /// Every disk that was replaced, with the node that had it.
    pub fn retired_disks(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.disks.iter().flat_map(|(node, disks)| {
            let before = disks.split_last().map_or(&[][..], |(_, before)| before);
            [0].iter().chain(before).map(|incarnation| (*node, *incarnation))
        })
    }

    pub fn group(&self, id: RaftGroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    /// All groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// The groups that hold partitions.
    pub fn data_groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values().filter(|group| group.id != RaftGroupId::METADATA)
    }

    /// The copies of a partition's group; empty if the group is not known.
    pub fn replicas(&self, partition: &Partition) -> &[Replica] {
        self.groups.get(&partition.group).map_or(&[], |group| &group.replicas)
    }

    /// `topic-index`, for people: all topics are looked through.
    pub fn name_of(&self, id: PartitionId) -> String {
        let name = self.topics.values().find_map(|topic| {
            let index = topic.partitions.iter().position(|partition| partition.id == id)?;
            Some(format!("{}-{index}", topic.name))
        });
        name.unwrap_or_else(|| format!("partition {id}"))
    }

    /// The broker that is to lead a group when it can.
    pub fn preferred_leader(&self, group: RaftGroupId) -> Option<NodeId> {
        self.groups.get(&group)?.preferred_leader()
    }

    /// A group's copy on a node.
    pub fn replica_on(&self, group: RaftGroupId, node: NodeId) -> Option<Replica> {
        self.groups.get(&group)?.copy_on(node)
    }

    /// The shard that runs a group on a node.
    pub fn shard_of(&self, group: RaftGroupId, node: NodeId) -> Option<ShardId> {
        self.replica_on(group, node).map(|replica| replica.shard)
    }

    /// The broker id under which clients reach a copy: of its shard's own listener, or of its node.
    pub fn broker_of(&self, replica: Replica) -> Option<NodeId> {
        let endpoints = &self.nodes.get(&replica.node)?.endpoints;
        endpoints
            .iter()
            .find(|endpoint| endpoint.shard == Some(replica.shard))
            .or_else(|| endpoints.iter().find(|endpoint| endpoint.shard.is_none()))
            .map(|endpoint| endpoint.broker)
    }

    /// The broker id to which administrative requests are sent; any broker takes them.
    pub fn controller(&self) -> Option<NodeId> {
        let metadata = self.groups.get(&RaftGroupId::METADATA);
        metadata
            .and_then(|group| group.replicas.first())
            .and_then(|replica| self.broker_of(*replica))
            .or_else(|| self.endpoints().next().map(|endpoint| endpoint.broker))
    }
}

impl Topic {
    /// The partition with an index as clients send it.
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    /// How many partitions there are, as the protocol counts them.
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

/// Base64 with the URL alphabet and no padding.
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            let index = word >> (18 - 6 * digit) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_kafka_writes_them() {
        assert_eq!(base64_url(b""), "");
        assert_eq!(base64_url(b"f"), "Zg");
        assert_eq!(base64_url(b"fo"), "Zm8");
        assert_eq!(base64_url(b"foobar"), "Zm9vYmFy");
        assert_eq!(base64_url(&[0xff; 16]), "_____________________w");
    }
}
