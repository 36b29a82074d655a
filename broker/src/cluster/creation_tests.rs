use std::sync::Arc;

use model::LogIndex;

use super::super::state::Cluster;
use super::super::state::tests::cluster_of;
use super::*;

const NODE: NodeId = NodeId::new(0);

/// One node of two shards with one listener, and a topic `taken.name`.
fn image() -> Arc<Image> {
    let endpoint = Endpoint { broker: NODE, host: "h".into(), port: 9092, shard: None };
    cluster_with(vec![endpoint])
}

/// The same with a listener for each shard: brokers 0 and 1.
fn sharded_image() -> Arc<Image> {
    let endpoint = |shard: u16| Endpoint {
        broker: NodeId::new(i32::from(shard)),
        host: "h".into(),
        port: 9092 + shard,
        shard: Some(ShardId::new(shard)),
    };
    cluster_with(vec![endpoint(0), endpoint(1)])
}

fn cluster_with(endpoints: Vec<Endpoint>) -> Arc<Image> {
    let mut cluster = Cluster::new(Arc::default());
    let taken = NewTopic {
        name: "taken.name".into(),
        topic_id: Uuid::from_u128(1),
        internal: false,
        placement: vec![RaftGroupId::new(1)],
        configs: BTreeMap::new(),
    };
    let own = Node { id: NODE, endpoints, rack: None };
    let shape = Shape { shard_count: 2, groups_per_shard: 1 };
    let commands = bootstrap(Uuid::from_u128(5), own, &[NODE], shape);
    for (index, command) in (1..).zip(commands.into_iter().chain([Command::CreateTopic(taken)])) {
        cluster.apply(LogIndex::new(index), command);
    }
    cluster.image()
}

fn spec(name: &str, partition_count: i32) -> NewTopicSpec {
    NewTopicSpec {
        name: name.to_owned(),
        partition_count: Some(partition_count),
        ..NewTopicSpec::default()
    }
}

fn by_hand(name: &str, brokers: &[&[i32]]) -> NewTopicSpec {
    let assignments = (0..).zip(brokers).map(|(partition_index, brokers)| ManualAssignment {
        partition_index,
        brokers: brokers.iter().copied().map(NodeId::new).collect(),
    });
    NewTopicSpec {
        name: name.to_owned(),
        assignments: assignments.collect(),
        ..NewTopicSpec::default()
    }
}

fn groups(topic: &NewTopic) -> Vec<u64> {
    topic.placement.iter().map(|group| group.get()).collect()
}

#[test]
fn defaults_come_from_the_settings() {
    let mut settings = BrokerSettings::default();
    settings.set("num.partitions=4").expect("known");
    let image = image();
    let mut planner = Planner::new(&image, &settings);
    let topic = planner.plan_default("t", Uuid::from_u128(2)).expect("valid");
    assert_eq!(groups(&topic), [2, 1, 2, 1], "group 1 has a partition already");
    assert!(!topic.internal && topic.configs.is_empty());
}

#[test]
fn committed_offsets_get_a_compacted_internal_topic() {
    let (image, settings) = (image(), BrokerSettings::default());
    let mut planner = Planner::new(&image, &settings);
    let topic = planner.plan_default(CONSUMER_OFFSETS, Uuid::from_u128(2)).expect("valid");
    assert!(topic.internal);
    assert_eq!(topic.placement.len(), 50);
    assert_eq!(topic.configs.get("cleanup.policy").map(String::as_str), Some("compact"));
    assert_eq!(topic.configs.get("segment.bytes").map(String::as_str), Some("104857600"));
}

#[test]
fn topics_of_one_request_know_of_one_another() {
    let (image, settings) = (image(), BrokerSettings::default());
    let mut planner = Planner::new(&image, &settings);
    planner.plan(spec("a.b", 9_000), Uuid::from_u128(2)).expect("valid");
    for (name, count, message) in [
        ("a.b", 1, "Topic 'a.b' already exists."),
        ("a_b", 1, "Topic 'a_b' collides with existing topic: a.b"),
        ("c", 1_001, "Excessively large number of partitions per request."),
        ("c", i32::MAX, "Excessively large number of partitions per request."),
    ] {
        let error = planner.plan(spec(name, count), Uuid::from_u128(3)).expect_err(name);
        assert_eq!(error.to_string(), message);
    }
    assert!(planner.plan(spec("c", 1_000), Uuid::from_u128(3)).is_ok());
}

#[test]
fn what_cannot_be_is_refused_in_kafkas_words() {
    let (image, settings) = (image(), BrokerSettings::default());
    let replicated = |factor| NewTopicSpec { replication_factor: Some(factor), ..spec("t", 1) };
    for (spec, message) in [
        (spec("", 1), "Topic name is invalid: the empty string is not allowed"),
        (spec("taken.name", 1), "Topic 'taken.name' already exists."),
        (spec("taken_name", 1), "Topic 'taken_name' collides with existing topic: taken.name"),
        (spec("t", 0), "Number of partitions was set to an invalid non-positive value."),
        (spec("t", -2), "Number of partitions was set to an invalid non-positive value."),
        (replicated(0), "Replication factor was set to an invalid non-positive value."),
        (
            replicated(3),
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 \
             cannot be reached because only 1 broker(s) are registered.",
        ),
        (
            NewTopicSpec { partition_count: Some(1), ..by_hand("t", &[&[0]]) },
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            NewTopicSpec { replication_factor: Some(1), ..by_hand("t", &[&[0]]) },
            "A manual partition assignment was specified, but replicationFactor was not set to -1.",
        ),
        (by_hand("t", &[&[]]), "The manual partition assignment includes an empty replica list."),
        (
            by_hand("t", &[&[0], &[5]]),
            "The manual partition assignment includes broker 5, but no such broker is registered.",
        ),
        (
            by_hand("t", &[&[0, 0]]),
            "The manual partition assignment includes the broker 0 more than once, or two \
             brokers of one node.",
        ),
    ] {
        let mut planner = Planner::new(&image, &settings);
        let error = planner.plan(spec, Uuid::from_u128(2)).expect_err(message);
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn partitions_assigned_by_hand_must_be_numbered_from_0() {
    let (image, settings) = (image(), BrokerSettings::default());
    for indexes in [[1, 2], [0, 2], [0, 0], [-1, 0]] {
        let mut spec = by_hand("t", &[&[0], &[0]]);
        for (assignment, index) in spec.assignments.iter_mut().zip(indexes) {
            assignment.partition_index = index;
        }
        let mut planner = Planner::new(&image, &settings);
        let error = planner.plan(spec, Uuid::from_u128(2));
        assert_eq!(error, Err(NewTopicError::AssignmentIndexes), "{indexes:?}");
    }
    let mut spec = by_hand("t", &[&[0], &[0]]);
    spec.assignments.reverse();
    assert!(Planner::new(&image, &settings).plan(spec, Uuid::from_u128(2)).is_ok());
}

#[test]
fn an_assignment_by_hand_goes_where_that_broker_leads() {
    let (image, settings) = (sharded_image(), BrokerSettings::default());
    let mut planner = Planner::new(&image, &settings);
    let topic = planner.plan(by_hand("t", &[&[1], &[0], &[1]]), Uuid::from_u128(2)).expect("ok");
    assert_eq!(groups(&topic), [2, 1, 2]);
    let both = planner.plan(by_hand("u", &[&[0, 1]]), Uuid::from_u128(3));
    assert_eq!(both, Err(NewTopicError::AssignmentRepeats { broker: NodeId::new(1) }));
}

#[test]
fn nothing_is_planned_before_there_are_groups() {
    let (image, mut settings) = (Image::default(), BrokerSettings::default());
    settings.set("num.partitions=1").expect("known");
    let error = Planner::new(&image, &settings).plan_default("t", Uuid::from_u128(1));
    assert_eq!(error, Err(NewTopicError::NoGroups));
}

/// Three brokers of one shard, whose groups have copies on all of them.
fn three() -> Cluster {
    let shape = Shape { shard_count: 1, groups_per_shard: 3 };
    cluster_of(&[0, 1, 2].map(NodeId::new), shape)
}

fn apply(cluster: &mut Cluster, commands: Vec<Command>) {
    for command in commands {
        let index = cluster.image().version().next();
        cluster.apply(index, command);
    }
}

/// Plans a topic, makes the groups that it needs, and plans it anew.
fn plan_with_groups(cluster: &mut Cluster, spec: &NewTopicSpec) -> (usize, NewTopic) {
    let settings = BrokerSettings::default();
    let image = cluster.image();
    let mut planner = Planner::new(&image, &settings);
    planner.plan(spec.clone(), Uuid::from_u128(7)).expect("valid");
    let copies = planner.copies();
    let groups = planner.groups_to_make();
    let made = groups.len();
    apply(cluster, groups);
    let image = cluster.image();
    let mut planner = Planner::new(&image, &settings);
    let topic = planner.plan(spec.clone(), Uuid::from_u128(7)).expect("valid");
    assert_eq!(planner.groups_to_make(), []);
    let group = image.group(topic.placement[0]).expect("a group");
    assert_eq!((usize::try_from(copies), planner.copies()), (Ok(group.replicas.len()), copies));
    (made, topic)
}

#[test]
fn groups_are_made_for_as_many_copies_as_a_topic_asks_for() {
    let mut cluster = three();
    let replicated = |factor| NewTopicSpec { replication_factor: Some(factor), ..spec("t", 4) };
    let (made, topic) = plan_with_groups(&mut cluster, &replicated(3));
    assert_eq!((made, groups(&topic)), (0, vec![1, 2, 3, 1]));
    let (made, topic) = plan_with_groups(&mut cluster, &replicated(2));
    assert_eq!((made, groups(&topic)), (3, vec![4, 5, 6, 4]));
    let replicas = vec![Replica { node: NodeId::new(1), shard: ShardId::new(0) }];
    apply(&mut cluster, vec![Command::EnsureGroup { replicas }]);
    let (made, topic) = plan_with_groups(&mut cluster, &replicated(1));
    assert_eq!((made, groups(&topic)), (2, vec![7, 8, 9, 7]), "one was there");
    let (made, _) = plan_with_groups(&mut cluster, &replicated(2));
    assert_eq!(made, 0, "they are there");
    // By default it is three, here and where there are more brokers.
    let (_, topic) = plan_with_groups(&mut cluster, &spec("t", 1));
    assert_eq!(groups(&topic), [1]);
}

#[test]
fn groups_are_made_for_brokers_that_are_named() {
    let mut cluster = three();
    let (made, topic) = plan_with_groups(&mut cluster, &by_hand("t", &[&[2, 0], &[2, 0], &[1]]));
    assert_eq!((made, groups(&topic)), (2, vec![4, 4, 5]));
    let image = cluster.image();
    let settings = BrokerSettings::default();
    let mut planner = Planner::new(&image, &settings);
    let refused = planner.plan(by_hand("u", &[&[0], &[7]]), Uuid::from_u128(8));
    assert_eq!(refused, Err(NewTopicError::AssignmentBroker { broker: NodeId::new(7) }));
    assert_eq!(planner.groups_to_make(), [], "for a topic that is refused none is made");
    let nodes = |group| {
        let group = image.group(RaftGroupId::new(group)).expect("made");
        group.replicas.iter().map(|it| it.node.get()).collect::<Vec<_>>()
    };
    assert_eq!((nodes(4), nodes(5)), (vec![2, 0], vec![1]));
}

#[test]
fn a_broker_that_is_about_to_leave_gets_no_new_groups() {
    let mut cluster = three();
    let (node, state) = (NodeId::new(1), NodeState::Draining);
    apply(&mut cluster, vec![Command::SetNodeState { node, state }]);
    let (made, _) = plan_with_groups(
        &mut cluster,
        &NewTopicSpec { replication_factor: Some(2), ..spec("t", 1) },
    );
    assert_eq!(made, 2);
    apply(&mut cluster, vec![Command::SetNodeState { node: NodeId::new(0), state }]);
    let (image, settings) = (cluster.image(), BrokerSettings::default());
    let mut planner = Planner::new(&image, &settings);
    let asked = NewTopicSpec { replication_factor: Some(1), ..spec("u", 1) };
    planner.plan(asked, Uuid::from_u128(8)).expect("one is left");
    assert_eq!(planner.groups_to_make().len(), 1);
}
