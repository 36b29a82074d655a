use model::ShardId;
use uuid::Uuid;

use super::super::command::{Command, NewTopic};
use super::super::creation::Shape;
use super::super::moves::Move;
use super::super::state::tests::{apply_checked, cluster_of};
use super::*;

const NODES: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];
const GROUPS: [RaftGroupId; 2] = [RaftGroupId::new(1), RaftGroupId::new(2)];
const TOPIC: Uuid = Uuid::from_u128(7);
const DISK: u32 = 99;

fn copy(node: NodeId) -> Replica {
    Replica { node, shard: ShardId::new(0) }
}

/// Three brokers, two groups of which the second is on the last two brokers only, and a topic with
/// a partition in each.
fn cluster() -> Cluster {
    let shape = Shape { shard_count: 1, groups_per_shard: 1 };
    let mut cluster = cluster_of(&NODES, shape);
    let replicas = vec![copy(NODES[1]), copy(NODES[2])];
    let group = Command::CreateGroup { group: GROUPS[1], replicas };
    let topic = Command::CreateTopic(NewTopic {
        name: "t".to_owned(),
        topic_id: TOPIC,
        internal: false,
        placement: GROUPS.to_vec(),
        configs: Default::default(),
    });
    for command in [group, topic] {
        let index = cluster.image().version().next();
        apply_checked(&mut cluster, index, command);
    }
    cluster
}

fn is_read_back(cluster: &Cluster) {
    let bytes = cluster.encode_snapshot();
    let again = Cluster::decode_snapshot(&bytes, Arc::default()).expect("a snapshot");
    assert_eq!(&again, cluster);
}

#[test]
fn one_broker_has_all_groups_and_the_others_come_with_new_disks() {
    let mut cluster = cluster();
    cluster.rebuild_on(NODES[0], DISK);
    let image = cluster.image();
    assert_eq!(image.incarnation(NODES[0]), DISK);
    for node in NODES {
        assert!(image.is_retired(node, 0), "the disk of {node}");
    }
    for group in GROUPS {
        assert!(image.replica_on(group, NODES[0]).is_some(), "group {group}");
    }
    let [whole, guest] = GROUPS.map(|group| image.group(group).expect("a group").clone());
    assert!(whole.leaving.is_empty());
    // It leaves a group that it was not to have as soon as the others have it.
    assert_eq!(guest.replicas, [copy(NODES[1]), copy(NODES[2])]);
    assert_eq!(guest.leaving, [copy(NODES[0])]);
    assert!(guest.founders.is_empty(), "no disk of before counts");
    is_read_back(&cluster);
    let settled = Command::GroupSettled { group: GROUPS[1], asked: guest.asked };
    cluster.apply(image.version().next(), settled);
    assert!(cluster.image().replica_on(GROUPS[1], NODES[0]).is_none());
}

#[test]
fn partitions_stay_or_are_where_they_came_to() {
    let mut cluster = cluster();
    let (topic_id, index) = (TOPIC, 0);
    let id = cluster.image().version().next();
    let replaces = LogIndex::default();
    cluster.apply(id, Command::MovePartition { topic_id, index, to: GROUPS[1], replaces });
    let partition = |cluster: &Cluster, index: i32| {
        let image = cluster.image();
        *image.topic_by_id(TOPIC).and_then(|it| it.partition(index)).expect("a partition")
    };
    assert_eq!(partition(&cluster, 0).moving, Some(Move { to: GROUPS[1], id }));
    cluster.call_off_moves();
    assert_eq!(partition(&cluster, 0), Partition::new(PartitionId::new(1), GROUPS[0]));
    let arrived = Arrived { group: GROUPS[1], id, epoch_base: 9, at: LogIndex::new(40) };
    cluster.note_arrival(PartitionId::new(1), arrived);
    let there = partition(&cluster, 0);
    assert_eq!((there.group, there.moved, there.epoch_base), (GROUPS[1], id, 9));
    assert_eq!(there.arrived, LogIndex::new(40));
    assert_eq!(partition(&cluster, 1), Partition::new(PartitionId::new(2), GROUPS[1]));
    is_read_back(&cluster);
}
