use std::collections::BTreeMap;

use model::ShardId;
use proptest::prelude::*;

use super::super::command::Endpoint;
use super::super::command::tests::{CLUSTER_ID, golden_in_rack, goldens};
use super::super::creation::{Shape, bootstrap};
use super::*;
use crate::cluster::NodeState;
use crate::codec::DecodeError;
use crate::config::HostPort;

const SNAPSHOT: &[u8] = include_bytes!("../../testdata/metadata-snapshot.v1.bin");
const NODE: NodeId = NodeId::new(0);

fn settings() -> Arc<BrokerSettings> {
    Arc::default()
}

fn new_topic(name: &str, id: u128, partition_count: u64) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        topic_id: Uuid::from_u128(id),
        internal: false,
        placement: (0..partition_count).map(|index| RaftGroupId::new(1 + index % 2)).collect(),
        configs: BTreeMap::new(),
    }
}

fn create(name: &str, id: u128, partition_count: u64) -> Command {
    Command::CreateTopic(new_topic(name, id, partition_count))
}

fn applied(commands: impl IntoIterator<Item = Command>) -> Cluster {
    let mut cluster = Cluster::new(settings());
    for (index, command) in (1..).zip(commands) {
        cluster.apply(LogIndex::new(index), command);
    }
    cluster
}

/// Applies a command; every state has one encoding, and is read back as it was.
pub(in crate::cluster) fn apply_checked(
    cluster: &mut Cluster,
    index: LogIndex,
    command: Command,
) -> Outcome {
    let outcome = cluster.apply(index, command);
    let bytes = cluster.encode_snapshot();
    let again = Cluster::decode_snapshot(&bytes, Arc::clone(cluster.settings()));
    assert_eq!(again.as_ref(), Ok(&*cluster));
    for length in 0..bytes.len() {
        let cut = Cluster::decode_snapshot(&bytes[..length], Arc::default());
        assert!(cut.is_err(), "cut at {length}");
    }
    outcome
}

/// Brokers that have begun with groups on all of them, and are reached.
pub(in crate::cluster) fn cluster_of(nodes: &[NodeId], shape: Shape) -> Cluster {
    let own = Node { id: nodes[0], endpoints: Vec::new(), rack: None };
    let mut commands = bootstrap(Uuid::from_u128(1), own, nodes, shape);
    commands.extend(nodes.iter().map(|node| {
        let endpoint = Endpoint { broker: *node, host: "h".into(), port: 9092, shard: None };
        Command::RegisterBroker { node: *node, endpoints: vec![endpoint], rack: None }
    }));
    applied(commands)
}

/// The state of the golden snapshot: every golden command of a cluster's beginning, its id last.
fn golden_cluster() -> Cluster {
    let group_1 = Command::CreateGroup {
        group: RaftGroupId::new(1),
        replicas: vec![Replica { node: NODE, shard: ShardId::new(0) }],
    };
    let mut commands: Vec<_> = goldens().into_iter().map(|(command, _)| command).collect();
    let is_later = |command: &Command| {
        use Command as C;
        matches!(command, C::DeleteTopic { .. } | C::ReplaceDisk { .. } | C::AddNode { .. })
            || matches!(command, C::SetNodeState { .. } | C::SetReplicas { .. })
            || matches!(command, C::GroupSettled { .. } | C::MovePartition { .. })
            || matches!(command, C::PartitionArrived { .. } | C::SetTopicConfigs { .. })
            || matches!(command, C::EnsureGroup { .. })
    };
    commands.retain(|command| !is_later(command));
    commands.insert(2, group_1);
    // Only the groups that are made after that have founders.
    commands.rotate_left(1);
    applied(commands)
}

#[test]
fn a_new_cluster_takes_its_first_id_and_keeps_it() {
    let mut cluster = Cluster::new(settings());
    assert_eq!(cluster.image().cluster_id(), None);
    for (index, id, expected) in [
        (1, 5, Outcome::ClusterInitialized { cluster_id: Uuid::from_u128(5) }),
        (2, 6, Outcome::ClusterExists { cluster_id: Uuid::from_u128(5) }),
    ] {
        let command = Command::InitializeCluster { cluster_id: Uuid::from_u128(id) };
        assert_eq!(cluster.apply(LogIndex::new(index), command), expected);
    }
    assert_eq!(cluster.image().cluster_id(), Some(Uuid::from_u128(5)));
    assert_eq!(cluster.image().version(), LogIndex::new(2));
}

#[test]
fn partition_ids_are_dense_and_never_used_again() {
    let mut cluster = Cluster::new(settings());
    let ids = |outcome: Outcome| match outcome {
        Outcome::TopicCreated { topic } => {
            topic.partitions.iter().map(|partition| partition.id.get()).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(ids(cluster.apply(LogIndex::new(1), create("a", 1, 3))), [1, 2, 3]);
    let deleted =
        cluster.apply(LogIndex::new(2), Command::DeleteTopic { topic_id: Uuid::from_u128(1) });
    assert!(matches!(deleted, Outcome::TopicDeleted { .. }));
    assert_eq!(ids(cluster.apply(LogIndex::new(3), create("a", 2, 2))), [4, 5]);
    let image = cluster.image();
    assert_eq!(image.topic("a").map(|topic| topic.id), Some(Uuid::from_u128(2)));
    assert!(image.topic_by_id(Uuid::from_u128(1)).is_none());
    let again =
        cluster.apply(LogIndex::new(4), Command::DeleteTopic { topic_id: Uuid::from_u128(1) });
    assert_eq!(again, Outcome::TopicUnknown { topic_id: Uuid::from_u128(1) });
}

#[test]
fn a_name_or_an_id_that_is_taken_changes_nothing_but_the_version() {
    let mut cluster = applied([create("a", 1, 1)]);
    let before = cluster.image();
    for (index, command) in [(2, create("a", 2, 9)), (3, create("b", 1, 9))] {
        let outcome = cluster.apply(LogIndex::new(index), command);
        assert!(matches!(outcome, Outcome::TopicExists { topic } if *topic.name == *"a"));
    }
    let after = cluster.image();
    assert_eq!(after.version(), LogIndex::new(3));
    assert!(after.topics().eq(before.topics()));
    assert_eq!(cluster.image.next_partition, PartitionId::new(2));
}

#[test]
fn an_image_tells_a_deleted_partition_from_one_that_it_does_not_know_yet() {
    let mut cluster = applied([create("a", 1, 1)]);
    cluster.apply(LogIndex::new(2), Command::DeleteTopic { topic_id: Uuid::from_u128(1) });
    let image = cluster.image();
    assert!(image.has_had(PartitionId::new(1)), "it was deleted");
    assert!(!image.has_had(PartitionId::new(2)), "it is yet to come");
    let bytes = cluster.encode_snapshot();
    let again = Cluster::decode_snapshot(&bytes, settings()).expect("a snapshot").image();
    assert!(again.has_had(PartitionId::new(1)) && !again.has_had(PartitionId::new(2)));
}

fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn what_is_set_on_a_topic_changes_if_it_is_what_was_thought() {
    let mut cluster = applied([create("a", 1, 3), create("b", 2, 1)]);
    let held = cluster.image();
    let topic_id = Uuid::from_u128(1);
    let (set, differ) =
        (Outcome::TopicConfigsSet { topic_id }, Outcome::TopicConfigsDiffer { topic_id });
    let (none, minute) = (configs(&[]), configs(&[("retention.ms", "60000")]));
    let both = configs(&[("max.message.bytes", "9"), ("retention.ms", "60000")]);
    for (index, from, to, expected, retention_ms, max_message_bytes) in [
        (3, &none, &minute, &set, 60_000, 1_048_588),
        (4, &none, &both, &differ, 60_000, 1_048_588),
        (5, &minute, &minute, &set, 60_000, 1_048_588),
        (6, &minute, &both, &set, 60_000, 9),
        (7, &minute, &none, &differ, 60_000, 9),
        (8, &both, &none, &set, 604_800_000, 1_048_588),
    ] {
        let command = Command::SetTopicConfigs { topic_id, from: from.clone(), to: to.clone() };
        let outcome = apply_checked(&mut cluster, LogIndex::new(index), command);
        assert_eq!(outcome, *expected, "{index}");
        let image = cluster.image();
        let topic = image.topic("a").expect("there");
        let found = (topic.config.retention_ms, topic.config.max_message_bytes);
        assert_eq!(found, (retention_ms, max_message_bytes), "{index}");
        assert_eq!(image.topic_by_id(topic_id), Some(topic), "one topic under both names");
    }
    let image = cluster.image();
    assert_eq!(image.version(), LogIndex::new(8));
    assert!(image.topics().eq(held.topics()), "partitions and the other topic are as they were");
    let topic_id = Uuid::from_u128(9);
    let command = Command::SetTopicConfigs { topic_id, from: none.clone(), to: none };
    let unknown = Outcome::TopicUnknown { topic_id };
    assert_eq!(apply_checked(&mut cluster, LogIndex::new(9), command), unknown);
}

/// A later version may set what this one does not know: the entry has its effect all the same.
#[test]
fn a_setting_of_a_later_version_is_kept_in_the_state() {
    let mut cluster = applied([create("a", 1, 1)]);
    let to = configs(&[("of.the.future", "1"), ("retention.ms", "soon")]);
    let command = Command::SetTopicConfigs { topic_id: Uuid::from_u128(1), from: configs(&[]), to };
    apply_checked(&mut cluster, LogIndex::new(2), command);
    let image = cluster.image();
    let config = &image.topic("a").expect("there").config;
    assert_eq!((config.retention_ms, config.overrides().len()), (604_800_000, 2));
}

#[test]
fn producer_id_blocks_follow_one_another_and_end() {
    let mut cluster = Cluster::new(settings());
    let allocate = |count| Command::AllocateProducerIds { node: NODE, count };
    for (index, start) in [(1, 0), (2, 1000)] {
        let expected = Outcome::ProducerIdBlock { node: NODE, start, count: 1000 };
        assert_eq!(cluster.apply(LogIndex::new(index), allocate(1000)), expected);
    }
    cluster.next_producer_id = i64::MAX - 1;
    let outcome = cluster.apply(LogIndex::new(3), allocate(2));
    assert_eq!(outcome, Outcome::ProducerIdsExhausted);
    assert_eq!(cluster.next_producer_id, i64::MAX - 1);
}

#[test]
fn a_disk_that_was_replaced_never_counts_again() {
    let mut cluster = Cluster::new(settings());
    let image = cluster.image();
    assert_eq!((image.incarnation(NODE), image.is_retired(NODE, 0)), (0, false));
    let (replaced, known) =
        (Outcome::DiskReplaced { node: NODE }, Outcome::DiskKnown { node: NODE });
    let mut index = LogIndex::default();
    for (incarnation, expected) in
        [(0, &known), (7, &replaced), (7, &known), (0, &known), (9, &replaced), (7, &known)]
    {
        index = index.next();
        let outcome = cluster.apply(index, Command::ReplaceDisk { node: NODE, incarnation });
        assert_eq!(outcome, *expected, "{incarnation}");
    }
    let image = cluster.image();
    assert_eq!(image.incarnation(NODE), 9);
    let retired = [0, 7, 9, 11].map(|incarnation| image.is_retired(NODE, incarnation));
    assert_eq!(retired, [true, true, false, false]);
}

#[test]
fn a_snapshot_with_replaced_disks_is_read_and_written_as_version_2() {
    let golden = include_bytes!("../../testdata/metadata-snapshot.v2.bin").as_slice();
    let mut cluster = golden_cluster();
    cluster.apply(LogIndex::new(9), Command::ReplaceDisk { node: NODE, incarnation: 7 });
    assert_eq!(cluster.encode_snapshot(), golden);
    assert_eq!(Cluster::decode_snapshot(golden, settings()), Ok(cluster));
    let empty = [SNAPSHOT, &[0; 4]].concat();
    let empty = [&[2], &empty[1..]].concat();
    assert!(Cluster::decode_snapshot(&empty, settings()).is_err(), "no disks are version 1");
}

#[test]
fn a_snapshot_with_racks_is_read_and_written_as_version_3() {
    let golden = include_bytes!("../../testdata/metadata-snapshot.v3.bin").as_slice();
    let mut cluster = golden_cluster();
    cluster.apply(LogIndex::new(9), golden_in_rack().0);
    assert_eq!(cluster.encode_snapshot(), golden);
    assert_eq!(Cluster::decode_snapshot(golden, settings()), Ok(cluster));
    let without = &golden[1..golden.len() - "rack-b".len() - 4 - 4 - 4];
    let none = [&[3], without, &[0; 4]].concat();
    assert!(Cluster::decode_snapshot(&none, settings()).is_err(), "no racks are version 1");
    let stranger = [&[3], without, &[1, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, b'a']].concat();
    assert!(Cluster::decode_snapshot(&stranger, settings()).is_err(), "no such node");
    let mut both = golden_cluster();
    both.apply(LogIndex::new(9), Command::ReplaceDisk { node: NODE, incarnation: 7 });
    both.apply(LogIndex::new(10), golden_in_rack().0);
    assert_eq!(Cluster::decode_snapshot(&both.encode_snapshot(), settings()), Ok(both));
}

#[test]
fn a_broker_is_in_the_rack_that_it_said_last() {
    let racks = |cluster: &Cluster| -> Vec<Option<String>> {
        cluster.image().brokers().map(|(_, rack)| rack.map(str::to_owned)).collect()
    };
    let mut cluster = golden_cluster();
    assert_eq!(racks(&cluster), [None, None]);
    for (index, rack) in [(9, Some("rack-b")), (10, Some("c")), (11, None)] {
        let Command::RegisterBroker { node, endpoints, .. } = golden_in_rack().0 else {
            panic!("a registration")
        };
        let rack_of = rack.map(str::to_owned);
        let command = Command::RegisterBroker { node, endpoints, rack: rack_of };
        cluster.apply(LogIndex::new(index), command);
        assert_eq!(racks(&cluster), [rack, rack].map(|rack| rack.map(str::to_owned)));
        assert_eq!(cluster.image().rack_of(NODE), rack);
    }
    assert_eq!(cluster.image().rack_of(NodeId::new(9)), None);
}

#[test]
fn an_image_that_is_held_does_not_change_and_shares_its_topics() {
    let mut cluster = applied([create("a", 1, 1), create("b", 2, 1)]);
    let held = cluster.image();
    cluster.apply(LogIndex::new(3), Command::DeleteTopic { topic_id: Uuid::from_u128(1) });
    let next = cluster.image();
    assert_eq!(held.topics().len(), 2);
    assert_eq!(next.topics().len(), 1);
    let (old, new) = (held.topic("b").expect("kept"), next.topic("b").expect("kept"));
    assert!(Arc::ptr_eq(old, new));
}

#[test]
fn bootstrap_again_changes_only_how_the_node_is_reached() {
    let endpoint = |port| Endpoint { broker: NODE, host: "h".into(), port, shard: None };
    let own = |port| Node { id: NODE, endpoints: vec![endpoint(port)], rack: None };
    let shape = Shape { shard_count: 2, groups_per_shard: 1 };
    let first = bootstrap(CLUSTER_ID, own(9092), &[NODE], shape);
    let second = bootstrap(Uuid::from_u128(9), own(9999), &[NODE], shape);
    let image = applied(first.into_iter().chain(second)).image();
    assert_eq!(image.cluster_id(), Some(CLUSTER_ID));
    let ports: Vec<u16> = image.endpoints().map(|endpoint| endpoint.port).collect();
    assert_eq!(ports, [9999]);
    let groups: Vec<u64> = image.data_groups().map(|group| group.id.get()).collect();
    assert_eq!(groups, [1, 2]);
    assert_eq!(image.shard_of(RaftGroupId::METADATA, NODE), Some(ShardId::new(0)));
    assert_eq!(image.shard_of(RaftGroupId::new(2), NODE), Some(ShardId::new(1)));
    assert_eq!(image.controller(), Some(NODE));
}

#[test]
fn the_groups_of_each_shard_prefer_one_node_after_another() {
    let nodes = [1, 2, 3].map(NodeId::new);
    let shape = Shape { shard_count: 2, groups_per_shard: 3 };
    let own = Node { id: nodes[0], endpoints: Vec::new(), rack: None };
    let image = applied(bootstrap(CLUSTER_ID, own, &nodes, shape)).image();
    let replicas = |group: &Arc<Group>| {
        let nodes: Vec<_> = group.replicas.iter().map(|it| it.node.get()).collect();
        (group.id.get(), group.replicas[0].shard.get(), nodes)
    };
    let groups: Vec<_> = image.data_groups().map(replicas).collect();
    let expected = [
        (1, 0, vec![1, 2, 3]),
        (2, 1, vec![2, 3, 1]),
        (3, 0, vec![2, 3, 1]),
        (4, 1, vec![3, 1, 2]),
        (5, 0, vec![3, 1, 2]),
        (6, 1, vec![1, 2, 3]),
    ];
    assert_eq!(groups, expected);
    let here = [0, 1].map(|shard| shape.groups_of(ShardId::new(shard)));
    assert_eq!(here, [[1, 3, 5], [2, 4, 6]].map(|ids| ids.map(RaftGroupId::new).to_vec()));
}

#[test]
fn a_shard_with_its_own_listener_is_its_own_broker() {
    let endpoint = |shard: u16| Endpoint {
        broker: NodeId::new(i32::from(shard)),
        host: "h".into(),
        port: 9092 + shard,
        shard: Some(ShardId::new(shard)),
    };
    let endpoints = (0..3).map(endpoint).collect();
    let own = Node { id: NODE, endpoints, rack: None };
    let shape = Shape { shard_count: 3, groups_per_shard: 1 };
    let image = applied(bootstrap(CLUSTER_ID, own, &[NODE], shape)).image();
    let brokers: Vec<_> = image
        .data_groups()
        .map(|group| image.broker_of(group.replicas[0]).expect("a listener").get())
        .collect();
    assert_eq!(brokers, [0, 1, 2]);
    let elsewhere = Replica { node: NodeId::new(7), shard: ShardId::new(0) };
    assert_eq!(image.broker_of(elsewhere), None);
}

#[test]
fn a_snapshot_is_read_and_written_as_version_1() {
    let cluster = golden_cluster();
    assert_eq!(cluster.encode_snapshot(), SNAPSHOT);
    assert_eq!(Cluster::decode_snapshot(SNAPSHOT, settings()), Ok(cluster));
}

#[test]
fn a_cut_or_lengthened_snapshot_is_refused() {
    for length in 0..SNAPSHOT.len() {
        assert!(Cluster::decode_snapshot(&SNAPSHOT[..length], settings()).is_err(), "{length}");
    }
    let longer = [SNAPSHOT, &[0]].concat();
    let error = Cluster::decode_snapshot(&longer, settings());
    assert_eq!(error, Err(DecodeError::LeftOver { count: 1 }));
}

/// Whatever one bit does, a snapshot that is accepted is the only encoding of what it says.
#[test]
fn a_flipped_bit_is_refused_or_says_something_else() {
    let golden = golden_cluster();
    for bit in 0..SNAPSHOT.len() * 8 {
        let mut bytes = SNAPSHOT.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(cluster) = Cluster::decode_snapshot(&bytes, settings()) {
            assert_eq!(cluster.encode_snapshot(), bytes, "bit {bit}");
            assert_ne!(cluster, golden, "bit {bit}");
        }
    }
}

#[test]
fn a_partition_id_beyond_the_counter_is_refused() {
    let mut cluster = golden_cluster();
    Arc::make_mut(&mut cluster.image).next_partition = PartitionId::new(3);
    let error = Cluster::decode_snapshot(&cluster.encode_snapshot(), settings());
    assert_eq!(error, Err(DecodeError::Range { field: "partition id" }));
}

/// Few, so that what one command sets is often what the next one thinks that it is.
fn any_configs() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::option::of(0..2_u8).prop_map(|value| {
        value.into_iter().map(|it| ("retention.ms".to_owned(), it.to_string())).collect()
    })
}

fn any_command() -> impl Strategy<Value = Command> {
    let endpoint = (0..3_i32, 1..9_u16, proptest::option::of(0..3_u16));
    let endpoint = endpoint.prop_map(|(broker, port, shard)| Endpoint {
        broker: NodeId::new(broker),
        host: "h".into(),
        port,
        shard: shard.map(ShardId::new),
    });
    prop_oneof![
        (0..3_u128).prop_map(|id| Command::InitializeCluster { cluster_id: Uuid::from_u128(id) }),
        (0..3_i32, proptest::collection::vec(endpoint, 0..3), proptest::option::of("[ab]"))
            .prop_map(|(node, endpoints, rack)| {
                Command::RegisterBroker { node: NodeId::new(node), endpoints, rack }
            }),
        (0..4_u64, 0..3_u16).prop_map(|(group, shard)| Command::CreateGroup {
            group: RaftGroupId::new(group),
            replicas: vec![Replica { node: NODE, shard: ShardId::new(shard) }],
        }),
        ("[a-d]", 0..6_u128, 0..5_u64).prop_map(|(name, id, count)| create(&name, id, count)),
        (0..6_u128).prop_map(|id| Command::DeleteTopic { topic_id: Uuid::from_u128(id) }),
        (0..2000_u32).prop_map(|count| Command::AllocateProducerIds { node: NODE, count }),
        (0..4_i32).prop_map(|node| Command::AddNode {
            node: NodeId::new(node),
            address: HostPort::new("h", 9192),
        }),
        (0..4_i32, 0..3_u8).prop_map(|(node, state)| Command::SetNodeState {
            node: NodeId::new(node),
            state: NodeState::from_code(state).expect("one of three"),
        }),
        (0..4_u64, proptest::collection::vec(0..4_i32, 0..4)).prop_map(|(group, nodes)| {
            let replica = |node| Replica { node: NodeId::new(node), shard: ShardId::new(0) };
            let replicas = nodes.into_iter().map(replica).collect();
            Command::SetReplicas { group: RaftGroupId::new(group), replicas }
        }),
        proptest::collection::vec(0..4_i32, 0..4).prop_map(|nodes| {
            let replica = |node| Replica { node: NodeId::new(node), shard: ShardId::new(0) };
            Command::EnsureGroup { replicas: nodes.into_iter().map(replica).collect() }
        }),
        (0..6_u128, any_configs(), any_configs()).prop_map(|(id, from, to)| {
            Command::SetTopicConfigs { topic_id: Uuid::from_u128(id), from, to }
        }),
        (0..4_u64, 0..60_u64).prop_map(|(group, asked)| Command::GroupSettled {
            group: RaftGroupId::new(group),
            asked: LogIndex::new(asked),
        }),
    ]
}

proptest! {
    /// Two nodes that apply the same log agree, whether one holds images or starts from a snapshot.
    #[test]
    fn the_same_commands_give_the_same_state(
        commands in proptest::collection::vec(any_command(), 0..60),
        cut in 0..60_usize,
    ) {
        let straight = applied(commands.clone());
        let mut other = Cluster::new(settings());
        let mut held = Vec::new();
        for (at, command) in commands.iter().enumerate() {
            if at == cut {
                let bytes = other.encode_snapshot();
                other = Cluster::decode_snapshot(&bytes, settings()).expect("own bytes");
            }
            held.push(other.image());
            let decoded = Command::decode(&command.encode()).expect("own bytes");
            prop_assert_eq!(&decoded, command);
            other.apply(LogIndex::new(at as u64 + 1), decoded);
        }
        prop_assert_eq!(straight.encode_snapshot(), other.encode_snapshot());
        prop_assert_eq!(&straight, &other);
        let image = straight.image();
        prop_assert!(image.topics().all(|topic| image.topic_by_id(topic.id).is_some()));
        prop_assert_eq!(image.topics().len(), image.topics_by_id.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        super::super::fuzz(&bytes);
        super::super::fuzz(&[&[1], bytes.as_slice()].concat());
    }
}
