use std::sync::Arc;

use model::LogIndex;
use uuid::Uuid;

use super::super::command::Endpoint;
use super::super::creation::{Shape, bootstrap};
use super::super::image::Node;
use super::super::state::{Cluster, Outcome};
use super::*;
use crate::config::HostPort;

/// A cluster whose groups have at once the members that they should have.
struct World {
    cluster: Cluster,
    index: LogIndex,
    away: BTreeSet<NodeId>,
}

impl World {
    fn new(nodes: i32, shape: Shape) -> Self {
        let cluster = Cluster::new(Arc::default());
        let mut world = Self { cluster, index: LogIndex::default(), away: BTreeSet::new() };
        let founders: Vec<_> = (1..=nodes).map(NodeId::new).collect();
        let own = Node { id: founders[0], endpoints: Vec::new(), rack: None };
        for command in bootstrap(Uuid::from_u128(1), own, &founders, shape) {
            world.apply(command);
        }
        founders.into_iter().for_each(|node| world.register(node, None));
        world
    }

    fn of_three() -> Self {
        Self::new(3, Shape { shard_count: 2, groups_per_shard: 3 })
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.index = self.index.next();
        self.cluster.apply(self.index, command)
    }

    fn register(&mut self, node: NodeId, rack: Option<&str>) {
        let endpoint = Endpoint { broker: node, host: "h".into(), port: 9092, shard: None };
        let rack = rack.map(str::to_owned);
        self.apply(Command::RegisterBroker { node, endpoints: vec![endpoint], rack });
    }

    fn add(&mut self, node: i32, rack: Option<&str>) {
        let node = NodeId::new(node);
        self.apply(Command::AddNode { node, address: HostPort::new("h", 1) });
        self.register(node, rack);
    }

    fn next(&self) -> Option<Command> {
        let image = self.cluster.image();
        let members = image.members();
        let balance = Balance::new(&image, &members, |node| !self.away.contains(&node));
        balance.drain().or_else(|| balance.spread())
    }

    /// Makes all changes that are worth making; returns how many.
    fn settle(&mut self) -> usize {
        for count in 0..1000 {
            let Some(command) = self.next() else { return count };
            let outcome = self.apply(command.clone());
            if let Command::SetReplicas { group, .. } = command {
                assert_eq!(outcome, Outcome::ReplicasSet { group });
                self.apply(Command::GroupSettled { group, asked: self.index });
            }
        }
        panic!("it never ends");
    }

    /// By broker: copies, and groups that it is to lead.
    fn counts(&self) -> BTreeMap<i32, (usize, usize)> {
        let image = self.cluster.image();
        let mut counts: BTreeMap<i32, (usize, usize)> = BTreeMap::new();
        for group in image.data_groups() {
            for (at, replica) in group.replicas.iter().enumerate() {
                let count = counts.entry(replica.node.get()).or_default();
                *count = (count.0 + 1, count.1 + usize::from(at == 0));
            }
        }
        counts
    }
}

#[test]
fn a_new_cluster_is_left_alone() {
    assert_eq!(World::of_three().next(), None);
    let one_group = World::new(3, Shape { shard_count: 2, groups_per_shard: 1 });
    assert_eq!(one_group.next(), None, "as few groups as were asked for");
    assert_eq!(World::new(1, Shape { shard_count: 2, groups_per_shard: 4 }).next(), None);
}

#[test]
fn a_broker_that_was_added_gets_its_part() {
    let mut world = World::of_three();
    world.add(4, None);
    let steps = world.settle();
    let counts = world.counts();
    // 6 groups and one for each core of the new broker, 3 copies each.
    assert_eq!(counts.values().map(|(_, leads)| leads).sum::<usize>(), 8, "{counts:?}");
    assert!(counts.values().all(|counts| *counts == (6, 2)), "{counts:?}");
    assert!(steps < 12, "{steps}");
}

#[test]
fn a_broker_that_is_away_gets_nothing_and_keeps_what_it_has() {
    let mut world = World::of_three();
    world.away.insert(NodeId::new(3));
    assert_eq!(world.next(), None);
    world.add(4, None);
    world.away.insert(NodeId::new(4));
    assert_eq!(world.next(), None);
}

/// With fewer copies than the others it would not live through the loss of a disk.
#[test]
fn a_group_for_a_new_broker_waits_for_as_many_brokers_as_it_needs() {
    let mut world = World::new(3, Shape { shard_count: 1, groups_per_shard: 1 });
    world.away.extend([1, 2].map(NodeId::new));
    world.add(4, None);
    world.settle();
    assert_eq!(world.cluster.image().data_groups().count(), 1);
    world.away.clear();
    world.settle();
    let image = world.cluster.image();
    let copies: Vec<_> = image.data_groups().map(|group| group.replicas.len()).collect();
    assert_eq!(copies, [3, 3]);
}

#[test]
fn a_broker_that_drains_has_nothing_in_the_end() {
    let mut world = World::of_three();
    world.add(4, None);
    world.settle();
    let (node, state) = (NodeId::new(2), NodeState::Draining);
    world.apply(Command::SetNodeState { node, state });
    world.settle();
    let image = world.cluster.image();
    assert!(image.groups().all(|group| !group.is_on(node)), "group 0 neither");
    let leads: Vec<_> = world.counts().into_values().map(|(_, leads)| leads).collect();
    assert!(leads.iter().max() <= leads.iter().min().map(|least| least + 1).as_ref(), "{leads:?}");
    let removed = Command::SetNodeState { node, state: NodeState::Removed };
    assert_eq!(world.apply(removed), Outcome::NodeStateSet { node });
    assert_eq!(world.next(), None);
}

#[test]
fn where_nobody_can_take_its_copies_a_draining_broker_leads_nothing() {
    let mut world = World::of_three();
    let node = NodeId::new(2);
    world.apply(Command::SetNodeState { node, state: NodeState::Draining });
    world.settle();
    assert_eq!(world.counts()[&2], (6, 0));
    world.apply(Command::SetNodeState { node, state: NodeState::Serving });
    world.settle();
    assert_eq!(world.counts()[&2], (6, 2), "it was asked to stay");
}

#[test]
fn copies_stay_in_different_racks() {
    let mut world = World::of_three();
    for (node, rack) in [(1, "a"), (2, "b"), (3, "c")] {
        world.register(NodeId::new(node), Some(rack));
    }
    world.add(4, Some("a"));
    world.settle();
    let image = world.cluster.image();
    for group in image.data_groups() {
        let racks: BTreeSet<_> = group.replicas.iter().map(|it| image.rack_of(it.node)).collect();
        assert_eq!(racks.len(), 3, "{group:?}");
    }
    let counts = world.counts();
    assert_eq!((counts[&1].0 + counts[&4].0, counts[&2].0), (8, 8), "{counts:?}");
    assert_eq!(counts[&1].0, counts[&4].0, "{counts:?}");
}

#[test]
fn a_change_that_is_under_way_is_not_made_another_of() {
    let mut world = World::of_three();
    world.add(4, None);
    let (node, state) = (NodeId::new(1), NodeState::Draining);
    world.apply(Command::SetNodeState { node, state });
    let mut groups = BTreeSet::new();
    while let Some(Command::SetReplicas { group, replicas }) = {
        let image = world.cluster.image();
        let members = image.members();
        Balance::new(&image, &members, |_| true).drain()
    } {
        assert!(groups.insert(group), "{group} twice");
        world.apply(Command::SetReplicas { group, replicas });
    }
    assert_eq!(groups.len(), 7);
}
