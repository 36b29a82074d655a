//! Brokers that come and go, and who is to have copies of a group: what the operator or the
//! balancer decided. The groups themselves follow (`shard/members.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{LogIndex, NodeId, RaftGroupId, ShardId};

use super::command::Replica;
use super::image::{Group, Image};
use super::state::{Cluster, Outcome};
use crate::config::HostPort;
use crate::voter::voter;

/// A group's number is below this one: a broker has a place for the leader of each.
pub const GROUPS_MAX: u64 = 1 << 14;

/// In place of the incarnation of a disk, of a broker that has none that counts: no disk has it.
const NO_DISK: u32 = u32::MAX;

/// What a broker is to the cluster.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NodeState {
    #[default]
    Serving,
    /// It is to have no copy of any group: others take its place.
    Draining,
    /// It is not part of the cluster any more, and its disk never counts again.
    Removed,
}

/// What was decided of a broker after the cluster began.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// Where the first shard of one that was added listens to the others; those of the beginning
    /// have that in their configuration.
    pub address: Option<HostPort>,
    pub state: NodeState,
}

impl NodeState {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Serving => 0,
            Self::Draining => 1,
            Self::Removed => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Serving, Self::Draining, Self::Removed].into_iter().find(|it| it.code() == code)
    }
}

impl Group {
    /// A group whose members are those that it should have, and none of them a founder.
    pub(super) fn settled(id: RaftGroupId, replicas: Vec<Replica>) -> Self {
        let (leaving, founders) = (Vec::new(), Vec::new());
        Self { id, replicas, leaving, asked: LogIndex::default(), founders }
    }

    /// Every copy that there is or is to be: one that leaves counts until another has its place.
    pub fn copies(&self) -> impl Iterator<Item = Replica> + '_ {
        self.replicas.iter().chain(&self.leaving).copied()
    }

    /// The copy on a broker, if that has one or is to have one.
    pub fn copy_on(&self, node: NodeId) -> Option<Replica> {
        self.copies().find(|copy| copy.node == node)
    }

    /// The shard that runs it, on each of its brokers: shards talk to those of their number.
    pub fn shard(&self) -> Option<ShardId> {
        self.replicas.first().map(|replica| replica.shard)
    }

    /// The broker that is to lead it when it can: that of its first copy.
    pub fn preferred_leader(&self) -> Option<NodeId> {
        self.replicas.first().map(|replica| replica.node)
    }

    /// Is a broker among those that are to have a copy?
    pub fn is_on(&self, node: NodeId) -> bool {
        self.replicas.iter().any(|replica| replica.node == node)
    }
}

impl Image {
    /// What a broker is to the cluster.
    pub fn state_of(&self, node: NodeId) -> NodeState {
        self.standings.get(&node).map_or(NodeState::Serving, |standing| standing.state)
    }

    /// Where a broker that was added listens to the others.
    pub fn address_of(&self, node: NodeId) -> Option<&HostPort> {
        self.standings.get(&node)?.address.as_ref()
    }

    /// Has a broker a copy of some group, or is it to have one?
    pub fn has_copies(&self, node: NodeId) -> bool {
        self.groups.values().any(|group| group.copy_on(node).is_some())
    }

    /// The brokers of the cluster: those that it began with, which have copies of groups from then
    /// on, and those that were added, but for those that were removed.
    pub fn members(&self) -> BTreeSet<NodeId> {
        let added = self.standings.iter().filter(|(_, it)| it.address.is_some());
        let copies = self.groups.values().flat_map(|group| group.copies());
        let known = self.nodes.keys().chain(added.map(|(node, _)| node)).copied();
        let all = known.chain(copies.map(|copy| copy.node));
        all.filter(|node| self.state_of(*node) != NodeState::Removed).collect()
    }

    /// The disk that a broker has now counts no more; the next one that it comes with does.
    pub(super) fn retire_disk(&mut self, node: NodeId) {
        let disks = self.disks.entry(node).or_default();
        if disks.last() != Some(&NO_DISK) {
            disks.push(NO_DISK);
        }
    }

    /// Is the only disk gone that a group ever was on?
    pub(crate) fn is_lost(&self, group: &Group) -> bool {
        let (&[only], &[founder]) = (&group.replicas[..], &group.founders[..]) else {
            return false;
        };
        founder != voter(only.node, self.incarnation(only.node))
    }

    /// The numbers that the members of a group are to have among its voters.
    pub(crate) fn voters_of(&self, group: &Group) -> BTreeSet<u64> {
        self.voter_numbers(group).collect()
    }

    /// The same, in the order of the replicas.
    pub(crate) fn voter_numbers(&self, group: &Group) -> impl Iterator<Item = u64> + Clone {
        group.replicas.iter().map(|it| voter(it.node, self.incarnation(it.node)))
    }
}

impl Cluster {
    pub(super) fn add_node(&mut self, node: NodeId, address: HostPort) -> Outcome {
        let image = &self.image;
        let is_removed = image.state_of(node) == NodeState::Removed;
        let is_known = image.node(node).is_some() || image.address_of(node).is_some();
        if is_known && !is_removed {
            return Outcome::NodeExists { node };
        }
        let standing = Standing { address: Some(address), state: NodeState::Serving };
        let image = self.image_mut();
        image.standings.insert(node, standing);
        // A first disk is one that a cluster begins with: this broker comes with another.
        image.retire_disk(node);
        Outcome::NodeAdded { node }
    }

    pub(super) fn set_node_state(&mut self, node: NodeId, state: NodeState) -> Outcome {
        let image = &self.image;
        let is_there = image.node(node).is_some() || image.address_of(node).is_some();
        if !is_there || image.state_of(node) == NodeState::Removed {
            return Outcome::NodeUnknown { node };
        }
        if state == NodeState::Removed && image.has_copies(node) {
            return Outcome::NodeInUse { node };
        }
        let image = self.image_mut();
        let standing = image.standings.entry(node).or_default();
        standing.state = state;
        if state == NodeState::Removed {
            standing.address = None;
            image.nodes.remove(&node);
            image.retire_disk(node);
        }
        Outcome::NodeStateSet { node }
    }

    pub(super) fn set_replicas(
        &mut self,
        index: LogIndex,
        group: RaftGroupId,
        replicas: Vec<Replica>,
    ) -> Outcome {
        let refused = Outcome::ReplicasRefused { group };
        let Some(found) = self.image.groups.get(&group) else { return refused };
        let nodes: BTreeSet<_> = replicas.iter().map(|replica| replica.node).collect();
        let shard = found.shard();
        let is_sound = |it: &Replica| Some(it.shard) == shard && self.image.node(it.node).is_some();
        if nodes.is_empty() || nodes.len() != replicas.len() || !replicas.iter().all(is_sound) {
            return refused;
        }
        let left = found.copies().filter(|copy| !nodes.contains(&copy.node));
        let leaving: Vec<_> = left.collect();
        let asked = if leaving.is_empty() { LogIndex::default() } else { index };
        let founders = found.founders.clone();
        let changed = Group { id: group, replicas, leaving, asked, founders };
        self.image_mut().groups.insert(group, Arc::new(changed));
        Outcome::ReplicasSet { group }
    }

    pub(super) fn settle_group(&mut self, group: RaftGroupId, asked: LogIndex) -> Outcome {
        let found = self.image.groups.get(&group).filter(|it| it.asked == asked);
        let Some(found) = found.filter(|it| !it.leaving.is_empty()) else {
            return Outcome::ReplicasRefused { group };
        };
        // One that has left forgets the group: it is none of its founders if it comes back.
        let settled = Group::settled(group, found.replicas.clone());
        self.image_mut().groups.insert(group, Arc::new(settled));
        Outcome::GroupSettled { group }
    }

    pub(super) fn ensure_group(&mut self, replicas: Vec<Replica>) -> Outcome {
        let image = &self.image;
        let nodes: BTreeSet<_> = replicas.iter().map(|replica| replica.node).collect();
        let first = replicas.first().copied();
        let shard = first.map(|first| first.shard);
        // Every broker has the shards that the others have.
        let is_shard = image.data_groups().any(|group| group.shard() == shard);
        let is_sound = |it: &Replica| Some(it.shard) == shard && image.node(it.node).is_some();
        if !is_shard || nodes.len() != replicas.len() || !replicas.iter().all(is_sound) {
            return Outcome::GroupRefused;
        }
        let is_it = |group: &&Arc<Group>| {
            let its: BTreeSet<_> = group.replicas.iter().map(|replica| replica.node).collect();
            let is_settled = group.leaving.is_empty() && !image.is_lost(group);
            its == nodes && group.replicas.first().copied() == first && is_settled
        };
        if let Some(group) = image.data_groups().find(is_it) {
            return Outcome::GroupExists { group: group.id };
        }
        let last = image.groups.last_key_value().map_or(0, |(id, _)| id.get());
        if last + 1 >= GROUPS_MAX {
            return Outcome::GroupRefused;
        }
        self.create_group(RaftGroupId::new(last + 1), replicas)
    }

    /// The members that a group has when it is made while the cluster runs. Those of the groups of
    /// its beginning, which come before its id, stand in the brokers' WALs.
    pub(super) fn founders(&self, replicas: &[Replica]) -> Vec<u64> {
        if self.image.cluster_id.is_none() {
            return Vec::new();
        }
        replicas.iter().map(|it| voter(it.node, self.image.incarnation(it.node))).collect()
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
