use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::protocol::Encodable;
use model::{LogIndex, RaftGroupId, ShardId};

use super::*;
use crate::cluster::{Cluster, Command, Endpoint, NewTopic, Node, Shape, bootstrap};

const NODE: NodeId = NodeId::new(0);
const ORDERS: Uuid = Uuid::from_u128(7);

/// Two shards; topic `orders` with a partition on each. With `sharded`, each shard is a broker.
fn image(sharded: bool) -> Arc<Image> {
    let endpoint = |shard: u16| Endpoint {
        broker: NodeId::new(i32::from(shard)),
        host: "127.0.0.1".into(),
        port: 9092 + shard,
        shard: sharded.then(|| ShardId::new(shard)),
    };
    let endpoints = (0..if sharded { 2 } else { 1 }).map(endpoint).collect();
    let topic = NewTopic {
        name: "orders".into(),
        topic_id: ORDERS,
        internal: false,
        placement: [1, 2].map(RaftGroupId::new).to_vec(),
        configs: BTreeMap::new(),
    };
    let mut cluster = Cluster::new(Arc::default());
    let own = Node { id: NODE, endpoints, rack: Some("r".into()) };
    let shape = Shape { shard_count: 2, groups_per_shard: 1 };
    let commands = bootstrap(Uuid::from_u128(0xc1), own, &[NODE], shape);
    for (index, command) in (1..).zip(commands.into_iter().chain([Command::CreateTopic(topic)])) {
        cluster.apply(LogIndex::new(index), command);
    }
    cluster.image()
}

fn led(_: &Partition) -> Option<Leader> {
    Some(Leader { node: NODE, epoch: LeaderEpoch::new(3) })
}

const VIEW: ClientView<'_> =
    ClientView { broker: NODE, auto_create: true, leader: &led, is_up: &|_| true };

fn named(names: &[&'static str]) -> MetadataRequest {
    let topic = |name: &&'static str| {
        MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(name))))
    };
    MetadataRequest::default().with_topics(Some(names.iter().map(topic).collect()))
}

/// Name, code and partition count of each topic, and the names to create; the reply can be encoded.
fn ask(version: i16, request: &MetadataRequest) -> (Vec<(String, i16, usize)>, Vec<String>) {
    let (reply, to_create) = respond(&image(false), &VIEW, version, request);
    reply.encode(&mut BytesMut::new(), version).expect("encodes in the version asked");
    let topic = |topic: &MetadataResponseTopic| {
        let name = topic.name.as_ref().map_or_else(|| "-".to_owned(), |name| name.to_string());
        (name, topic.error_code, topic.partitions.len())
    };
    let to_create = to_create.iter().map(|name| name.to_string()).collect();
    (reply.topics.iter().map(topic).collect(), to_create)
}

fn entry(name: &str, code: ErrorCode, partition_count: usize) -> (String, i16, usize) {
    (name.to_owned(), code.code(), partition_count)
}

#[test]
fn no_list_is_all_topics_and_an_empty_one_is_none_but_in_version_0() {
    let all = vec![entry("orders", ErrorCode::None, 2)];
    for version in 0..=13 {
        let expected = if version == 0 { all.clone() } else { vec![] };
        assert_eq!(ask(version, &named(&[])), (expected, vec![]), "version {version}");
        if version > 0 {
            let request = MetadataRequest::default().with_topics(None);
            assert_eq!(ask(version, &request), (all.clone(), vec![]), "version {version}");
        }
    }
}

#[test]
fn a_known_topic_has_its_id_leader_epoch_and_replicas() {
    for version in 0..=13 {
        let (reply, _) = respond(&image(false), &VIEW, version, &named(&["orders"]));
        reply.encode(&mut BytesMut::new(), version).expect("encodes");
        assert_eq!(reply.brokers.len(), 1);
        assert_eq!(reply.brokers[0].rack.as_deref(), Some("r"));
        assert_eq!(reply.controller_id.0, 0);
        assert_eq!(reply.cluster_id.as_deref(), Some("AAAAAAAAAAAAAAAAAAAAwQ"));
        let topic = &reply.topics[0];
        assert_eq!(topic.topic_id, ORDERS);
        assert_eq!(topic.topic_authorized_operations, i32::MIN);
        for (index, partition) in (0..).zip(&topic.partitions) {
            assert_eq!(partition.partition_index, index);
            assert_eq!((partition.leader_id.0, partition.leader_epoch), (0, 3));
            assert_eq!(partition.replica_nodes, [BrokerId(0)]);
            assert_eq!(partition.isr_nodes, [BrokerId(0)]);
            assert!(partition.offline_replicas.is_empty());
        }
    }
}

#[test]
fn a_replica_that_is_away_is_not_in_sync_and_offline() {
    let view = ClientView { leader: &|_| None, is_up: &|node| node != NODE, ..VIEW };
    for version in 0..=13 {
        let (reply, _) = respond(&image(false), &view, version, &named(&["orders"]));
        reply.encode(&mut BytesMut::new(), version).expect("encodes");
        let partition = &reply.topics[0].partitions[0];
        assert_eq!(partition.replica_nodes, [BrokerId(0)]);
        assert!(partition.isr_nodes.is_empty());
        assert_eq!(partition.offline_replicas, [BrokerId(0)]);
    }
}

#[test]
fn with_shard_listeners_each_partition_is_led_by_its_shards_broker() {
    let (reply, _) = respond(&image(true), &VIEW, 13, &named(&["orders"]));
    let brokers: Vec<_> = reply.brokers.iter().map(|at| (at.node_id.0, at.port)).collect();
    assert_eq!(brokers, [(0, 9092), (1, 9093)]);
    let leaders: Vec<_> = reply.topics[0].partitions.iter().map(|at| at.leader_id.0).collect();
    assert_eq!(leaders, [0, 1]);
}

#[test]
fn a_partition_without_a_leader_says_so() {
    let view = ClientView { leader: &|_| None, ..VIEW };
    let (reply, _) = respond(&image(false), &view, 9, &named(&["orders"]));
    assert_eq!(reply.topics[0].error_code, 0);
    for partition in &reply.topics[0].partitions {
        assert_eq!(partition.error_code, ErrorCode::LeaderNotAvailable.code());
        assert_eq!((partition.leader_id.0, partition.leader_epoch), (-1, -1));
    }
}

#[test]
fn unknown_topics_are_created_if_broker_and_request_allow_it() {
    let names = &["fresh", "orders", "fresh", "bad name", "__consumer_offsets"];
    let (topics, to_create) = ask(4, &named(names));
    assert_eq!(
        topics,
        [
            entry("fresh", ErrorCode::LeaderNotAvailable, 0),
            entry("orders", ErrorCode::None, 2),
            entry("bad name", ErrorCode::InvalidTopicException, 0),
            entry("__consumer_offsets", ErrorCode::LeaderNotAvailable, 0),
        ]
    );
    assert_eq!(to_create, ["fresh", "__consumer_offsets"]);

    let unknown = vec![entry("fresh", ErrorCode::UnknownTopicOrPartition, 0)];
    let forbidden = named(&["fresh"]).with_allow_auto_topic_creation(false);
    assert_eq!(ask(4, &forbidden), (unknown.clone(), vec![]));
    let view = ClientView { auto_create: false, ..VIEW };
    let (reply, to_create) = respond(&image(false), &view, 4, &named(&["fresh"]));
    assert_eq!(reply.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    assert!(to_create.is_empty());
}

#[test]
fn topics_are_found_by_id_from_version_12() {
    let by_id = |id: Uuid| {
        let topic = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
        MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    for version in [12, 13] {
        let known = (vec![entry("orders", ErrorCode::None, 2)], vec![]);
        assert_eq!(ask(version, &by_id(ORDERS)), known);
        let unknown = (vec![entry("-", ErrorCode::UnknownTopicId, 0)], vec![]);
        assert_eq!(ask(version, &by_id(Uuid::from_u128(9))), unknown);
    }
    for version in [10, 11] {
        let invalid = (vec![entry("", ErrorCode::InvalidRequest, 0)], vec![]);
        assert_eq!(ask(version, &by_id(ORDERS)), invalid);
    }
}

#[test]
fn operations_are_told_only_when_asked() {
    for (version, cluster) in [(8, CLUSTER_OPERATIONS), (10, CLUSTER_OPERATIONS), (11, i32::MIN)] {
        let request = named(&["orders"])
            .with_include_cluster_authorized_operations(true)
            .with_include_topic_authorized_operations(true);
        let (reply, _) = respond(&image(false), &VIEW, version, &request);
        reply.encode(&mut BytesMut::new(), version).expect("encodes");
        assert_eq!(reply.cluster_authorized_operations, cluster);
        assert_eq!(reply.topics[0].topic_authorized_operations, TOPIC_OPERATIONS);
    }
}

#[test]
fn before_the_first_command_there_is_no_cluster_to_show() {
    let (reply, _) = respond(&Image::default(), &VIEW, 13, &named(&["orders"]));
    reply.encode(&mut BytesMut::new(), 13).expect("encodes");
    assert_eq!(reply.cluster_id, None);
    assert!(reply.brokers.is_empty());
}
