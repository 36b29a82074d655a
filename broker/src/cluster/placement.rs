//! Which raft group a new partition goes to: one with as many copies as its topic is to have; among
//! those the one with the fewest partitions of its topic, then the one with the fewest partitions,
//! then the lowest id. And which groups are to be made first, where too few have so many copies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{NodeId, RaftGroupId, ShardId};

use super::command::Replica;
use super::image::{Group, Image};
use super::membership::NodeState;

/// Partitions counted per data group; counts those that it places too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement(BTreeMap<RaftGroupId, Counted>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Counted {
    copies: usize,
    partitions: u64,
}

impl Placement {
    pub fn new(image: &Image) -> Self {
        let counted = |group: &Arc<Group>| Counted { copies: group.replicas.len(), partitions: 0 };
        let groups = image.data_groups().filter(|group| !image.is_lost(group));
        let groups = groups.map(|group| (group.id, counted(group)));
        let mut placement = Self(groups.collect());
        for partition in image.topics().flat_map(|topic| topic.partitions.iter()) {
            placement.count(partition.destination());
        }
        placement
    }

    /// Groups for `count` partitions of one topic, each with `copies` copies. None if there is no
    /// such group.
    pub fn place(&mut self, count: usize, copies: usize) -> Option<Vec<RaftGroupId>> {
        let fitting = self.0.iter().filter(|(_, it)| it.copies == copies);
        let mut order: Vec<_> = fitting.map(|(group, it)| (it.partitions, *group)).collect();
        if order.is_empty() {
            return None;
        }
        // Each round gives every group one partition, the emptiest group first. Sorting once is
        // enough: a round raises all counts by one.
        order.sort_unstable();
        let groups: Vec<_> =
            order.into_iter().map(|(_, group)| group).cycle().take(count).collect();
        for group in &groups {
            self.count(*group);
        }
        Some(groups)
    }

    /// The emptiest group for which `fits` holds, for a partition that is placed by hand.
    pub(super) fn emptiest(&self, fits: impl Fn(&RaftGroupId) -> bool) -> Option<RaftGroupId> {
        let fitting = self.0.iter().filter(|(group, _)| fits(group));
        fitting.min_by_key(|(_, it)| it.partitions).map(|(group, _)| *group)
    }

    /// Counts a partition that was placed by hand.
    pub fn count(&mut self, group: RaftGroupId) {
        if let Some(counted) = self.0.get_mut(&group) {
            counted.partitions += 1;
        }
    }
}

/// The replicas of groups that are to be made before a topic with so many copies, so that each
/// broker leads one on each shard; the other copies are on the brokers after it, in other racks
/// where there are enough. How many groups of the largest size there are the cluster's shape says.
pub(super) fn groups_to_make(image: &Image, copies: usize) -> Vec<Vec<Replica>> {
    let nodes = image.nodes().map(|node| node.id);
    let able: Vec<_> = nodes.filter(|id| image.state_of(*id) == NodeState::Serving).collect();
    let sizes: BTreeSet<_> = image.data_groups().map(|group| group.replicas.len()).collect();
    if copies == 0 || able.len() < copies || sizes.last() == Some(&copies) {
        return Vec::new();
    }
    let shards: BTreeSet<_> = image.data_groups().filter_map(|group| group.shard()).collect();
    let same = image.data_groups().filter(|group| group.replicas.len() == copies);
    let same = same.filter(|group| !image.is_lost(group));
    let led: BTreeSet<_> =
        same.filter_map(|group| group.replicas.first()).map(|it| (it.shard, it.node)).collect();
    let places = shards.iter().flat_map(|shard| (0..able.len()).map(|first| (*shard, first)));
    let missing = places.filter(|(shard, first)| !led.contains(&(*shard, able[*first])));
    missing.map(|(shard, first)| spread(image, &able, first, shard, copies)).collect()
}

fn spread(
    image: &Image,
    able: &[NodeId],
    first: usize,
    shard: ShardId,
    copies: usize,
) -> Vec<Replica> {
    let mut nodes = vec![able[first]];
    while nodes.len() < copies {
        let in_rack = |node: NodeId| {
            let rack = image.rack_of(node);
            let others = nodes.iter().filter(|it| rack.is_some() && image.rack_of(**it) == rack);
            others.count()
        };
        // Not with the same other broker on every shard.
        let next = first + 1 + usize::from(shard.get());
        let after = able.iter().cycle().skip(next % able.len()).take(able.len());
        let others = after.copied().filter(|node| !nodes.contains(node));
        let Some(node) = others.min_by_key(|node| in_rack(*node)) else { break };
        nodes.push(node);
    }
    nodes.into_iter().map(|node| Replica { node, shard }).collect()
}

#[cfg(test)]
mod tests {
    use model::LogIndex;
    use uuid::Uuid;

    use super::super::command::Command;
    use super::super::creation::{Shape, bootstrap};
    use super::super::image::Node;
    use super::super::state::Cluster;
    use super::*;

    fn placement(counts: &[(u64, u64)]) -> Placement {
        let counted = |partitions| Counted { copies: 3, partitions };
        let counts = counts.iter().map(|(group, it)| (RaftGroupId::new(*group), counted(*it)));
        Placement(counts.collect())
    }

    fn placed(placement: &mut Placement, count: usize) -> Vec<u64> {
        placement.place(count, 3).expect("groups").into_iter().map(RaftGroupId::get).collect()
    }

    #[test]
    fn a_topic_is_spread_over_all_groups_first() {
        let mut uneven = placement(&[(1, 9), (2, 0), (3, 4)]);
        assert_eq!(placed(&mut uneven, 4), [2, 3, 1, 2]);
        assert_eq!(uneven, placement(&[(1, 10), (2, 2), (3, 5)]));
    }

    #[test]
    fn topics_of_one_partition_fill_the_emptiest_group() {
        let mut even = placement(&[(1, 0), (2, 0)]);
        let groups: Vec<u64> = (0..4).flat_map(|_| placed(&mut even, 1)).collect();
        assert_eq!(groups, [1, 2, 1, 2]);
    }

    #[test]
    fn nothing_is_placed_without_groups() {
        assert_eq!(placement(&[]).place(1, 1), None);
        assert_eq!(placed(&mut placement(&[(1, 0)]), 0), []);
    }

    #[test]
    fn a_topic_has_as_many_copies_as_it_asks_for() {
        let mut mixed = placement(&[(1, 0), (2, 7), (3, 0)]);
        for (counted, copies) in mixed.0.values_mut().zip([3, 2, 5]) {
            counted.copies = copies;
        }
        let mut group_of = |copies| mixed.place(1, copies).map(|groups| groups[0].get());
        let groups = [1, 2, 3, 4, 5, 6].map(&mut group_of);
        assert_eq!(groups, [None, Some(2), Some(1), None, Some(3), None]);
    }

    fn cluster(racks: &[Option<&str>]) -> Cluster {
        let mut cluster = Cluster::new(Arc::default());
        let nodes: Vec<_> = (0..).map(NodeId::new).take(racks.len()).collect();
        let own = Node { id: nodes[0], endpoints: Vec::new(), rack: None };
        let shape = Shape { shard_count: 2, groups_per_shard: 1 };
        let mut commands = bootstrap(Uuid::from_u128(1), own, &nodes, shape);
        commands.extend(nodes.iter().zip(racks).map(|(node, rack)| Command::RegisterBroker {
            node: *node,
            endpoints: Vec::new(),
            rack: rack.map(str::to_owned),
        }));
        for (index, command) in (1..).map(LogIndex::new).zip(commands) {
            cluster.apply(index, command);
        }
        cluster
    }

    /// By shard: the brokers of each group.
    fn made(racks: &[Option<&str>], copies: usize) -> Vec<(u16, Vec<i32>)> {
        let groups = groups_to_make(&cluster(racks).image(), copies);
        let nodes = |group: &[Replica]| group.iter().map(|it| it.node.get()).collect();
        groups.iter().map(|group| (group[0].shard.get(), nodes(group))).collect()
    }

    #[test]
    fn each_broker_leads_a_group_of_each_shard_with_others_in_other_racks() {
        let pairs = [[0, 1], [1, 2], [2, 0], [0, 2], [1, 0], [2, 1]].map(|pair| pair.to_vec());
        let shards = [0, 0, 0, 1, 1, 1];
        assert_eq!(made(&[None; 3], 2), shards.into_iter().zip(pairs).collect::<Vec<_>>());
        assert_eq!(
            made(&[None; 2], 1),
            [0, 0, 1, 1].into_iter().zip([0, 1, 0, 1].map(|it| vec![it])).collect::<Vec<_>>()
        );
        let racks = [Some("a"), Some("a"), Some("b"), Some("b")];
        for (_, nodes) in made(&racks, 2) {
            assert_ne!(nodes[0] < 2, nodes[1] < 2, "{nodes:?}");
        }
        assert_eq!(made(&[None; 2], 3), [], "there are too few");
        assert_eq!(made(&[None; 3], 3), [], "there are such groups");
    }

    #[test]
    fn a_group_whose_only_disk_is_lost_gets_nothing_and_another_is_made() {
        let mut cluster = cluster(&[None; 2]);
        let apply = |cluster: &mut Cluster, command| {
            let index = cluster.image().version().next();
            cluster.apply(index, command);
        };
        for replicas in groups_to_make(&cluster.image(), 1) {
            apply(&mut cluster, Command::EnsureGroup { replicas });
        }
        let places = |cluster: &Cluster| {
            let groups = Placement::new(&cluster.image()).place(4, 1).expect("groups");
            groups.into_iter().map(RaftGroupId::get).collect::<Vec<_>>()
        };
        assert_eq!(places(&cluster), [3, 4, 5, 6]);
        let (node, incarnation) = (NodeId::new(1), 9);
        apply(&mut cluster, Command::ReplaceDisk { node, incarnation });
        assert_eq!(places(&cluster), [3, 5, 3, 5]);
        let again = groups_to_make(&cluster.image(), 1);
        assert!(again.len() == 2 && again.iter().all(|it| it[0].node == node), "{again:?}");
    }
}
