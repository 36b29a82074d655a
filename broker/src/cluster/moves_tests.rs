use super::super::command::{Command, NewTopic, Replica};
use super::super::membership::NodeState;
use super::super::state::tests::apply_checked;
use super::*;
use model::{NodeId, ShardId};

const TOPIC: Uuid = Uuid::from_u128(7);
const HOME: RaftGroupId = RaftGroupId::new(1);
const AWAY: RaftGroupId = RaftGroupId::new(2);

/// A topic with two partitions in the first of three groups.
struct World(Cluster, LogIndex);

impl World {
    fn new() -> Self {
        let mut world = Self(Cluster::new(Arc::default()), LogIndex::default());
        for group in 0..4 {
            let replicas = vec![Replica { node: NodeId::new(1), shard: ShardId::new(0) }];
            world.apply(Command::CreateGroup { group: RaftGroupId::new(group), replicas });
        }
        for (name, topic_id, internal) in [("t", TOPIC, false), ("__i", Uuid::from_u128(8), true)] {
            let placement = vec![HOME, HOME];
            let (name, configs) = (name.to_owned(), BTreeMap::new());
            world.apply(Command::CreateTopic(NewTopic {
                name,
                topic_id,
                internal,
                placement,
                configs,
            }));
        }
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.1 = self.1.next();
        apply_checked(&mut self.0, self.1, command)
    }

    /// Asks for a move of partition 1; returns its number.
    fn move_to(&mut self, to: RaftGroupId) -> LogIndex {
        assert!(self.replace(to, LogIndex::default()));
        self.1
    }

    fn replace(&mut self, to: RaftGroupId, replaces: LogIndex) -> bool {
        let (topic_id, index) = (TOPIC, 1);
        let outcome = self.apply(Command::MovePartition { topic_id, index, to, replaces });
        outcome == Outcome::MoveSet { topic_id, index }
    }

    fn arrive(&mut self, id: LogIndex) -> bool {
        let (epoch_base, arrived) = (5, LogIndex::new(90));
        let command =
            Command::PartitionArrived { topic_id: TOPIC, index: 1, id, epoch_base, arrived };
        self.apply(command) == Outcome::PartitionArrived { topic_id: TOPIC, index: 1 }
    }

    fn partition(&self) -> Partition {
        self.0.image().topic_by_id(TOPIC).expect("there").partitions[1]
    }
}

#[test]
fn a_partition_is_elsewhere_when_the_other_group_has_adopted_it() {
    let mut world = World::new();
    let before = world.partition();
    assert_eq!(before, Partition::new(before.id, HOME));
    let id = world.move_to(AWAY);
    let moving = Some(Move { to: AWAY, id });
    assert_eq!(world.partition(), Partition { moving, ..before });
    assert_eq!(world.partition().destination(), AWAY);
    let image = world.0.image();
    let under_way: Vec<_> =
        image.moving().map(|(topic, at, it, _)| (topic.id, at, it.id)).collect();
    assert_eq!(under_way, [(TOPIC, 1, before.id)]);
    assert!(world.arrive(id));
    let there =
        Partition { group: AWAY, epoch_base: 5, moved: id, arrived: LogIndex::new(90), ..before };
    assert_eq!(world.partition(), there);
    assert_eq!(world.0.image().topic("t").expect("by name").partitions[1], there);
    assert!(!world.arrive(id), "it came before");
}

#[test]
fn what_was_asked_for_last_counts() {
    let mut world = World::new();
    let first = world.move_to(AWAY);
    let again = world.move_to(AWAY);
    assert!(first < again && !world.arrive(first));
    let other = world.move_to(RaftGroupId::new(3));
    assert!(!world.arrive(again));
    world.move_to(HOME);
    assert_eq!(world.partition().moving, None);
    assert!(!world.arrive(other), "it was called off");
    let id = world.move_to(RaftGroupId::new(3));
    assert!(world.arrive(id));
    assert_eq!(world.partition().group, RaftGroupId::new(3));
}

/// Who calls a move off, or puts it off, means that one: it may be over, or another may be asked
/// for.
#[test]
fn only_the_move_that_is_meant_is_replaced() {
    let mut world = World::new();
    let first = world.move_to(AWAY);
    let again = world.move_to(AWAY);
    assert!(!world.replace(HOME, first));
    assert_eq!(world.partition().moving, Some(Move { to: AWAY, id: again }));
    assert!(world.replace(AWAY, again));
    let last = world.1;
    assert!(world.arrive(last));
    assert!(!world.replace(HOME, last), "it is over");
    assert_eq!((world.partition().group, world.partition().moving), (AWAY, None));
}

#[test]
fn what_cannot_move_stays() {
    let mut world = World::new();
    let before = world.0.image();
    let (internal, other) = (Uuid::from_u128(8), Uuid::from_u128(9));
    for (topic_id, index, to) in [
        (TOPIC, 2, AWAY),
        (TOPIC, u32::MAX, AWAY),
        (TOPIC, 1, RaftGroupId::METADATA),
        (TOPIC, 1, RaftGroupId::new(4)),
        (internal, 0, AWAY),
        (other, 0, AWAY),
    ] {
        let replaces = LogIndex::default();
        let outcome = world.apply(Command::MovePartition { topic_id, index, to, replaces });
        assert_eq!(outcome, Outcome::MoveRefused { topic_id, index });
    }
    assert!(world.0.image().topics().eq(before.topics()));
}

#[test]
fn a_topic_that_is_deleted_takes_its_moves_along() {
    let mut world = World::new();
    let id = world.move_to(AWAY);
    world.apply(Command::DeleteTopic { topic_id: TOPIC });
    assert!(world.0.image().moving().next().is_none());
    assert!(!world.arrive(id));
    // A snapshot of all that there is, beside moves of none.
    world.apply(Command::SetNodeState { node: NodeId::new(1), state: NodeState::Draining });
}
