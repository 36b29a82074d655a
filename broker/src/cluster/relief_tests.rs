use uuid::Uuid;

use super::super::command::{Endpoint, NewTopic, Replica};
use super::super::creation::Shape;
use super::super::state::Cluster;
use super::super::state::tests::cluster_of;
use super::*;

const TOPIC: Uuid = Uuid::from_u128(7);
const BUSY_MIN: u32 = 400;

/// Three brokers of one shard, whose groups 1 to 3 they lead in order; a topic with five partitions
/// in the first group, and one in the second.
fn cluster() -> Cluster {
    let shape = Shape { shard_count: 1, groups_per_shard: 3 };
    let mut cluster = cluster_of(&[0, 1, 2].map(NodeId::new), shape);
    let topic = NewTopic {
        name: "t".to_owned(),
        topic_id: TOPIC,
        internal: false,
        placement: [1, 1, 1, 1, 1, 2].map(RaftGroupId::new).to_vec(),
        configs: BTreeMap::new(),
    };
    cluster.apply(cluster.image().version().next(), Command::CreateTopic(topic));
    cluster
}

/// By broker: how busy it is, and its partitions with their bytes.
fn loads(of: &[(u32, &[(u64, u64)])]) -> BTreeMap<Core, CoreLoad> {
    let load = |(busy, partitions): &(u32, &[(u64, u64)])| CoreLoad {
        busy: *busy,
        bytes: partitions.iter().map(|(_, bytes)| bytes).sum(),
        partitions: partitions.iter().map(|(id, bytes)| (PartitionId::new(*id), *bytes)).collect(),
    };
    (0..).map(|node| (NodeId::new(node), ShardId::new(0))).zip(of.iter().map(load)).collect()
}

/// Index of the partition, and the group that it goes to.
fn chosen(cluster: &Cluster, of: &[(u32, &[(u64, u64)])]) -> Option<(u32, u64)> {
    match relieve(&cluster.image(), &loads(of), BUSY_MIN, |_| true)? {
        (id, Command::MovePartition { topic_id: TOPIC, index, to, .. }) => {
            assert_eq!(id.get(), u64::from(index) + 1);
            Some((index, to.get()))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_partition_goes_from_the_busiest_core_to_where_it_evens_out_most() {
    let cluster = cluster();
    let even: &[_] = &[(1, 10), (2, 10), (3, 10), (4, 10), (5, 10)];
    // A fifth of 700 leaves for the last one, which follows it already.
    assert_eq!(chosen(&cluster, &[(900, even), (300, &[(6, 5)]), (200, &[])]), Some((0, 3)));
    let one_large: &[_] = &[(1, 30), (2, 60), (3, 10)];
    assert_eq!(chosen(&cluster, &[(900, one_large), (300, &[(6, 5)]), (400, &[])]), Some((1, 2)));
    // It would only take the load along.
    let alone: &[_] = &[(1, 70)];
    assert_eq!(chosen(&cluster, &[(900, alone), (100, &[(6, 5)]), (100, &[])]), None);
}

#[test]
fn a_broker_without_a_copy_takes_more_of_the_load() {
    let mut cluster = cluster();
    let even: &[_] = &[(1, 10), (2, 10), (3, 10), (4, 10), (5, 10)];
    let index = cluster.image().version().next();
    let node = NodeId::new(3);
    let endpoint = Endpoint { broker: node, host: "h".into(), port: 9092, shard: None };
    cluster.apply(index, Command::RegisterBroker { node, endpoints: vec![endpoint], rack: None });
    let on = |node| Replica { node: NodeId::new(node), shard: ShardId::new(0) };
    let replicas = vec![on(3), on(0), on(1)];
    cluster.apply(index.next(), Command::CreateGroup { group: RaftGroupId::new(4), replicas });
    let of = [(900, even), (300, &[(6, 5)]), (200, &[]), (200, &[])];
    assert_eq!(chosen(&cluster, &of), Some((0, 4)));
    // Not where it would be the busiest then.
    let of = [(900, even), (300, &[(6, 5)]), (200, &[]), (750, &[])];
    assert_eq!(chosen(&cluster, &of), Some((0, 3)));
}

#[test]
fn what_does_not_pay_or_is_not_busy_stays() {
    let cluster = cluster();
    let even: &[_] = &[(1, 10), (2, 10), (3, 10), (4, 10), (5, 10)];
    assert_eq!(chosen(&cluster, &[(399, even), (0, &[]), (0, &[])]), None, "it is not busy");
    assert_eq!(chosen(&cluster, &[(800, even), (750, &[(6, 5)]), (700, &[])]), None);
    assert_eq!(chosen(&cluster, &[(800, &[]), (0, &[]), (0, &[])]), None, "nothing is written");
    assert_eq!(chosen(&cluster, &[(900, even)]), None, "nothing is known of others");
    assert_eq!(chosen(&cluster, &[]), None);
}

/// Other brokers say what they like.
#[test]
fn no_number_is_too_large() {
    let cluster = cluster();
    let most: &[_] = &[(1, u64::MAX), (99, 0)];
    for busy in [400, 1000, u32::MAX] {
        let loads = loads(&[(busy, most), (u32::MAX - 1, &[]), (0, &[])]);
        relieve(&cluster.image(), &loads, BUSY_MIN, |_| true);
    }
}

#[test]
fn what_has_moved_moves_or_never_does_stays_for_now() {
    let mut cluster = cluster();
    let even: &[_] = &[(1, 10), (2, 10), (3, 10), (4, 10), (5, 10)];
    let of = [(900, even), (300, &[(6, 5)][..]), (200, &[][..])];
    let (image, all) = (cluster.image(), loads(&of));
    assert_eq!(relieve(&image, &all, BUSY_MIN, |_| false), None);
    let second = relieve(&image, &all, BUSY_MIN, |id| id != PartitionId::new(1));
    assert!(matches!(second, Some((_, Command::MovePartition { index: 1, .. }))), "{second:?}");
    let index = image.version().next();
    cluster.apply(index, relieve(&image, &all, BUSY_MIN, |_| true).expect("a move").1);
    assert_eq!(chosen(&cluster, &of), Some((1, 3)), "the first one is on its way");
    // A broker that is about to leave gets nothing.
    let (node, state) = (NodeId::new(2), NodeState::Draining);
    cluster.apply(index.next(), Command::SetNodeState { node, state });
    assert_eq!(chosen(&cluster, &of), Some((1, 2)));
}
