use model::LogIndex;
use uuid::Uuid;

use super::super::command::{Command, Endpoint};
use super::super::creation::{Shape, bootstrap};
use super::super::image::Node;
use super::super::state::tests::apply_checked;
use super::*;

const NODES: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];
const FOURTH: NodeId = NodeId::new(4);
const GROUP: RaftGroupId = RaftGroupId::new(1);

/// A cluster of three brokers, with one data group, and the index of its last command.
struct World(Cluster, LogIndex);

impl World {
    fn new() -> Self {
        let mut world = Self(Cluster::new(Arc::default()), LogIndex::default());
        let own = Node { id: NODES[0], endpoints: Vec::new(), rack: None };
        let shape = Shape { shard_count: 1, groups_per_shard: 1 };
        for command in bootstrap(Uuid::from_u128(1), own, &NODES, shape) {
            world.apply(command);
        }
        for node in NODES {
            world.register(node);
        }
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.1 = self.1.next();
        apply_checked(&mut self.0, self.1, command)
    }

    fn register(&mut self, node: NodeId) -> Outcome {
        let endpoint = Endpoint { broker: node, host: "h".into(), port: 9092, shard: None };
        self.apply(Command::RegisterBroker { node, endpoints: vec![endpoint], rack: None })
    }

    fn add(&mut self, node: NodeId) -> Outcome {
        self.apply(Command::AddNode { node, address: HostPort::new("h4", 9192) })
    }

    fn set(&mut self, node: NodeId, state: NodeState) -> Outcome {
        self.apply(Command::SetNodeState { node, state })
    }

    fn replicas(&mut self, nodes: &[i32]) -> Outcome {
        self.apply(Command::SetReplicas { group: GROUP, replicas: on(nodes) })
    }

    fn group(&self) -> Arc<Group> {
        Arc::clone(self.0.image.group(GROUP).expect("it is there"))
    }

    fn members(&self) -> Vec<i32> {
        self.0.image.members().into_iter().map(NodeId::get).collect()
    }
}

fn on(nodes: &[i32]) -> Vec<Replica> {
    let replica = |node: &i32| Replica { node: NodeId::new(*node), shard: ShardId::new(0) };
    nodes.iter().map(replica).collect()
}

#[test]
fn a_broker_joins_with_a_disk_of_its_own() {
    let mut world = World::new();
    assert_eq!(world.add(NODES[0]), Outcome::NodeExists { node: NODES[0] });
    assert_eq!(world.add(FOURTH), Outcome::NodeAdded { node: FOURTH });
    assert_eq!(world.add(FOURTH), Outcome::NodeExists { node: FOURTH });
    assert_eq!(world.members(), [1, 2, 3, 4]);
    let image = world.0.image();
    assert_eq!(image.address_of(FOURTH), Some(&HostPort::new("h4", 9192)));
    assert!(image.is_retired(FOURTH, 0), "one that begins a cluster does not join another");
    world.apply(Command::ReplaceDisk { node: FOURTH, incarnation: 9 });
    assert_eq!(world.0.image.incarnation(FOURTH), 9);
}

#[test]
fn a_group_goes_from_broker_to_broker() {
    let mut world = World::new();
    let refused = Outcome::ReplicasRefused { group: GROUP };
    assert_eq!(world.replicas(&[1, 2, 4]), refused, "nobody knows where node 4 is");
    world.add(FOURTH);
    world.register(FOURTH);
    world.apply(Command::ReplaceDisk { node: FOURTH, incarnation: 9 });
    assert_eq!(world.replicas(&[]), refused);
    assert_eq!(world.replicas(&[1, 2, 2]), refused);
    let other_shard = vec![Replica { node: FOURTH, shard: ShardId::new(1) }];
    let command = Command::SetReplicas { group: GROUP, replicas: other_shard };
    assert_eq!(world.apply(command), refused);
    let settle = |asked| Command::GroupSettled { group: GROUP, asked };
    assert_eq!(world.apply(settle(LogIndex::default())), refused, "nothing is under way");

    assert_eq!(world.replicas(&[4, 1, 2]), Outcome::ReplicasSet { group: GROUP });
    let (group, first) = (world.group(), world.1);
    assert_eq!((&group.replicas, &group.leaving), (&on(&[4, 1, 2]), &on(&[3])));
    assert!(group.is_on(FOURTH) && !group.is_on(NODES[2]));
    let voters = world.0.image.voters_of(&group);
    assert_eq!(voters, [voter(NODES[0], 0), voter(NODES[1], 0), voter(FOURTH, 9)].into());
    let left = world.0.image.replica_on(GROUP, NODES[2]);
    assert!(left.is_some(), "it has a copy until it is not needed");
    // Another wish comes before that: who was to come has to leave.
    world.replicas(&[1, 3]);
    assert_eq!(world.group().leaving, on(&[4, 2]));
    let second = world.1;
    assert_eq!(world.apply(settle(first)), refused, "that was before");
    assert_eq!(world.apply(settle(second)), Outcome::GroupSettled { group: GROUP });
    assert_eq!(world.group().leaving, []);
    assert_eq!(world.0.image.replica_on(GROUP, FOURTH), None);
}

#[test]
fn only_groups_that_are_made_later_have_founders_and_only_while_nobody_has_left() {
    let mut world = World::new();
    assert_eq!(world.group().founders, []);
    world.apply(Command::ReplaceDisk { node: NODES[1], incarnation: 7 });
    let later = RaftGroupId::new(5);
    world.apply(Command::CreateGroup { group: later, replicas: on(&[1, 2]) });
    let founders = |world: &World| world.0.image.group(later).expect("made").founders.clone();
    assert_eq!(founders(&world), [voter(NODES[0], 0), voter(NODES[1], 7)]);
    world.apply(Command::SetReplicas { group: later, replicas: on(&[1, 3]) });
    assert_eq!(founders(&world).len(), 2);
    let asked = world.1;
    world.apply(Command::GroupSettled { group: later, asked });
    assert_eq!(founders(&world), []);
}

#[test]
fn a_broker_is_removed_once_it_has_no_copy_and_its_disk_never_counts_again() {
    let mut world = World::new();
    let unknown = Outcome::NodeUnknown { node: FOURTH };
    assert_eq!(world.set(FOURTH, NodeState::Draining), unknown);
    let third = NODES[2];
    let (set, in_use) = (Outcome::NodeStateSet { node: third }, Outcome::NodeInUse { node: third });
    assert_eq!(world.set(third, NodeState::Draining), set);
    assert_eq!(world.0.image.state_of(third), NodeState::Draining);
    assert_eq!(world.set(third, NodeState::Removed), in_use);
    for group in [RaftGroupId::METADATA, GROUP] {
        world.apply(Command::SetReplicas { group, replicas: on(&[1, 2]) });
        let asked = world.1;
        assert_eq!(world.set(third, NodeState::Removed), in_use, "it leaves, and has not left");
        world.apply(Command::GroupSettled { group, asked });
    }
    assert_eq!(world.set(third, NodeState::Removed), set);
    assert_eq!(world.members(), [1, 2]);
    assert!(world.0.image.node(third).is_none() && world.0.image.is_retired(third, 0));
    assert_eq!(world.register(third), Outcome::NodeUnknown { node: third });
    assert_eq!(world.set(third, NodeState::Serving), Outcome::NodeUnknown { node: third });
    // Another machine may have its number.
    assert_eq!(world.add(third), Outcome::NodeAdded { node: third });
    world.apply(Command::ReplaceDisk { node: third, incarnation: 8 });
    assert_eq!(world.members(), [1, 2, 3]);
    assert!(world.0.image.is_retired(third, 0));
}

#[test]
fn a_group_is_made_once_for_its_replicas_and_with_the_next_number() {
    let mut world = World::new();
    let ensure = |world: &mut World, nodes: &[i32]| {
        world.apply(Command::EnsureGroup { replicas: on(nodes) })
    };
    let created = |group| Outcome::GroupCreated { group: RaftGroupId::new(group) };
    let exists = |group| Outcome::GroupExists { group: RaftGroupId::new(group) };
    assert_eq!(ensure(&mut world, &[2, 1]), created(2));
    assert_eq!(ensure(&mut world, &[2, 1]), exists(2));
    assert_eq!(ensure(&mut world, &[1, 2]), created(3), "another one is to lead");
    assert_eq!(
        ensure(&mut world, &[1, 3, 2]),
        exists(1),
        "the order of the others is all the same"
    );
    let founders = &world.0.image.group(RaftGroupId::new(2)).expect("made").founders;
    assert_eq!(*founders, [voter(NODES[1], 0), voter(NODES[0], 0)]);
    for nodes in [&[][..], &[1, 1], &[1, 4]] {
        assert_eq!(ensure(&mut world, nodes), Outcome::GroupRefused, "{nodes:?}");
    }
    let other_shard = vec![Replica { node: NODES[0], shard: ShardId::new(9) }];
    let command = Command::EnsureGroup { replicas: other_shard };
    assert_eq!(world.apply(command), Outcome::GroupRefused);
    // One that is on its way to other brokers is none for these any more.
    world.apply(Command::SetReplicas { group: RaftGroupId::new(2), replicas: on(&[2, 3]) });
    assert_eq!(ensure(&mut world, &[2, 1]), created(4));
    // Nor is one whose only disk is gone: who asked would ask again, for ever.
    assert_eq!(ensure(&mut world, &[2]), created(5));
    world.apply(Command::ReplaceDisk { node: NODES[1], incarnation: 7 });
    assert_eq!(ensure(&mut world, &[2]), created(6));
    assert_eq!(ensure(&mut world, &[2]), exists(6));
    let last = RaftGroupId::new(GROUPS_MAX - 1);
    world.apply(Command::CreateGroup { group: last, replicas: on(&[1]) });
    assert_eq!(ensure(&mut world, &[3]), Outcome::GroupRefused, "there are as many as can be");
}
