//! Who should have copies of the groups, and lead them: the next change that is worth making, if
//! there is one. One at a time: the next is asked for when it is done.
//!
//! First come copies on brokers that are draining. Then copies are spread over the brokers, then
//! the leaders of each shard; a broker that was added gets groups of its own to lead. Copies of one
//! group are kept in different racks, where there are enough. Counts that differ by one are left
//! alone, so that nothing goes to and fro.

use std::collections::{BTreeMap, BTreeSet};

use model::{NodeId, RaftGroupId, ShardId};

use super::command::{Command, Replica};
use super::image::{Group, Image};
use super::membership::{GROUPS_MAX, NodeState};

/// The cluster as the balancer sees it.
pub struct Balance<'a> {
    image: &'a Image,
    /// Brokers that may get copies: they serve, are there and registered.
    able: BTreeSet<NodeId>,
}

impl<'a> Balance<'a> {
    /// `members`: the brokers of the cluster; `is_up`: whether one is there.
    pub fn new(
        image: &'a Image,
        members: &BTreeSet<NodeId>,
        is_up: impl Fn(NodeId) -> bool,
    ) -> Self {
        let is_able = |node: &NodeId| {
            image.state_of(*node) == NodeState::Serving
                && image.node(*node).is_some()
                && is_up(*node)
        };
        Self { image, able: members.iter().copied().filter(is_able).collect() }
    }

    /// Takes a copy off a broker that is draining. Where no other broker can have it, that one is
    /// the last to lead the group.
    pub fn drain(&self) -> Option<Command> {
        let mut groups = self.image.groups().filter(|group| group.leaving.is_empty());
        groups.find_map(|group| {
            let is_draining = |it: &&Replica| self.image.state_of(it.node) == NodeState::Draining;
            let draining = group.replicas.iter().find(is_draining)?;
            match self.place_for(group, Some(draining.node)) {
                Some(node) => Some(replaced(group, draining.node, node)),
                None => self.last_to_lead(group, draining.node),
            }
        })
    }

    /// Spreads copies, leaders and groups over the brokers.
    pub fn spread(&self) -> Option<Command> {
        let shards: BTreeSet<ShardId> =
            self.image.data_groups().filter_map(|it| it.shard()).collect();
        let leaders = |shard: &ShardId| self.spread_leaders(|group| group.shard() == Some(*shard));
        self.spread_copies()
            .or_else(|| shards.iter().find_map(leaders))
            .or_else(|| shards.iter().find_map(|shard| self.new_group(*shard)))
            .or_else(|| self.spread_leaders(|_| true))
    }

    /// The broker that should have one more copy of a group, or that of another one: in a rack of
    /// its own if that can be, then the one with the fewest copies.
    fn place_for(&self, group: &Group, from: Option<NodeId>) -> Option<NodeId> {
        let copies = self.copies();
        let others = self.able.iter().copied().filter(|node| !group.is_on(*node));
        others.min_by_key(|to| (self.shared_racks(group, from, *to), count(&copies, *to), *to))
    }

    /// Other copies of a group in the rack of `to`, if `to` takes the place of `from`.
    fn shared_racks(&self, group: &Group, from: Option<NodeId>, to: NodeId) -> usize {
        let Some(rack) = self.image.rack_of(to) else { return 0 };
        let rest = group.replicas.iter().filter(|it| Some(it.node) != from && it.node != to);
        rest.filter(|it| self.image.rack_of(it.node) == Some(rack)).count()
    }

    fn last_to_lead(&self, group: &Group, node: NodeId) -> Option<Command> {
        let next = group.replicas.iter().find(|it| it.node != node)?;
        let is_first = group.preferred_leader() == Some(node);
        let may_hand_over = is_first && self.able.contains(&next.node);
        may_hand_over.then(|| with_first(group, |it| it != node))
    }

    /// Copies of data groups by broker; only those that may get some are counted.
    fn copies(&self) -> BTreeMap<NodeId, usize> {
        let copies = self.image.data_groups().flat_map(|group| &group.replicas);
        self.counted(copies.map(|replica| replica.node))
    }

    fn counted(&self, nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, usize> {
        let mut counts: BTreeMap<_, _> = self.able.iter().map(|node| (*node, 0)).collect();
        for node in nodes {
            if let Some(count) = counts.get_mut(&node) {
                *count += 1;
            }
        }
        counts
    }

    fn spread_copies(&self) -> Option<Command> {
        let copies = self.copies();
        let (&least, &few) = copies.iter().min_by_key(|(node, count)| (**count, **node))?;
        let mut full: Vec<_> = copies.iter().filter(|(_, count)| **count > few + 1).collect();
        full.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        full.into_iter().find_map(|(&most, _)| {
            let groups = self.image.data_groups();
            let may_go = groups.filter(|group| {
                let before = self.shared_racks(group, Some(most), most);
                group.is_on(most)
                    && !group.is_on(least)
                    && self.shared_racks(group, Some(most), least) <= before
            });
            // A copy that does not lead costs nobody anything.
            let leads = |group: &Group| group.preferred_leader() == Some(most);
            let group = may_go.min_by_key(|group| (leads(group), group.id))?;
            Some(replaced(group, most, least))
        })
    }

    /// Evens out how many groups each broker leads, of those that count.
    fn spread_leaders(&self, counts: impl Fn(&Group) -> bool) -> Option<Command> {
        let groups = || self.image.data_groups().filter(|group| counts(group));
        let leads = self.counted(groups().filter_map(|group| group.preferred_leader()));
        groups().find_map(|group| {
            let first = group.preferred_leader()?;
            let many = *leads.get(&first)?;
            let others = group.replicas.iter().map(|it| it.node).filter(|node| *node != first);
            let of = |node: NodeId| Some((*leads.get(&node)?, node));
            let (_, to) = others.filter_map(of).min().filter(|(few, _)| few + 1 < many)?;
            Some(with_first(group, |it| it == to))
        })
    }

    /// A broker that was added leads nothing on a shard on which every group has a leader of its
    /// own: it gets a group there, once there are brokers for as many copies as the others have.
    fn new_group(&self, shard: ShardId) -> Option<Command> {
        let groups = self.image.data_groups();
        let here: Vec<_> = groups.filter(|group| group.shard() == Some(shard)).collect();
        let leaders: BTreeSet<_> = here.iter().filter_map(|it| it.preferred_leader()).collect();
        let size = here.iter().map(|group| group.replicas.len()).max()?;
        let was_added = |node: &&NodeId| self.image.address_of(**node).is_some();
        let mut idle = self.able.iter().filter(was_added).filter(|node| !leaders.contains(*node));
        let first = *idle.next()?;
        let last = self.image.groups().map(|group| group.id.get()).max()?;
        if leaders.len() < here.len() || last + 1 >= GROUPS_MAX {
            return None;
        }
        let replicas = vec![Replica { node: first, shard }];
        let mut group = Group::settled(RaftGroupId::new(last + 1), replicas);
        while group.replicas.len() < size {
            let node = self.place_for(&group, None)?;
            group.replicas.push(Replica { node, shard });
        }
        Some(Command::CreateGroup { group: group.id, replicas: group.replicas })
    }
}

fn count(counts: &BTreeMap<NodeId, usize>, node: NodeId) -> usize {
    counts.get(&node).copied().unwrap_or(0)
}

/// The same copies but for one, which another broker has in its place.
fn replaced(group: &Group, from: NodeId, to: NodeId) -> Command {
    let changed = |it: &Replica| if it.node == from { Replica { node: to, ..*it } } else { *it };
    let replicas = group.replicas.iter().map(changed).collect();
    Command::SetReplicas { group: group.id, replicas }
}

/// The same copies, with those of some brokers first: one of these is to lead.
fn with_first(group: &Group, comes_first: impl Fn(NodeId) -> bool) -> Command {
    let (mut replicas, rest): (Vec<_>, Vec<_>) =
        group.replicas.iter().copied().partition(|it| comes_first(it.node));
    replicas.extend(rest);
    Command::SetReplicas { group: group.id, replicas }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
