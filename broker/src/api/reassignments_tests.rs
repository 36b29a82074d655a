use kafka_wire::messages::alter_partition_reassignments_request::ReassignableTopic;
use kafka_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use model::{LogIndex, ShardId};
use uuid::Uuid;

use super::*;
use crate::cluster::{Cluster, Endpoint, NewTopic, Replica};

/// The brokers of each data group, from group 1 on; broker 5 has copies of none.
const GROUPS: [&[i32]; 6] = [&[1, 2, 3], &[2, 3, 1], &[1, 2, 4], &[4, 1, 2], &[1, 4, 2], &[3, 4]];
const INTERNAL: &str = "__consumer_offsets";

type Answer = (ErrorCode, String);

/// Brokers 1 to 5; topic `t` with partitions 0 and 1 in group 1, and 2 in group 2; topic `u` with
/// two in group 3; an internal one in group 1.
struct World(Cluster, LogIndex);

impl World {
    fn new() -> Self {
        let mut world = Self(Cluster::new(std::sync::Arc::default()), LogIndex::default());
        (1..=5).for_each(|id| world.register(id));
        let on = |id: &i32| Replica { node: NodeId::new(*id), shard: ShardId::new(0) };
        world.apply(Command::CreateGroup { group: RaftGroupId::METADATA, replicas: vec![on(&5)] });
        for (group, brokers) in (1..).map(RaftGroupId::new).zip(GROUPS) {
            let replicas = brokers.iter().map(on).collect();
            world.apply(Command::CreateGroup { group, replicas });
        }
        world.create("t", &[1, 1, 2]);
        world.create("u", &[3, 3]);
        world.create(INTERNAL, &[1]);
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.1 = self.1.next();
        self.0.apply(self.1, command)
    }

    fn register(&mut self, id: i32) {
        let node = NodeId::new(id);
        let endpoint = Endpoint { broker: node, host: "h".into(), port: 9092, shard: None };
        self.apply(Command::RegisterBroker { node, endpoints: vec![endpoint], rack: None });
    }

    fn create(&mut self, name: &str, placement: &[u64]) {
        self.apply(Command::CreateTopic(NewTopic {
            name: name.into(),
            topic_id: Uuid::from_u128(u128::from(self.1.get())),
            internal: name == INTERNAL,
            placement: placement.iter().map(|group| RaftGroupId::new(*group)).collect(),
            configs: BTreeMap::new(),
        }));
    }

    /// Serves a request: what it says of each partition.
    fn serve(&mut self, request: &AlterPartitionReassignmentsRequest) -> Vec<Answer> {
        let mut plan = self.plan(request);
        for (slot, command) in plan.commands() {
            let outcome = self.apply(command);
            plan.settle(slot, Ok(&outcome));
        }
        read(&plan)
    }

    /// The plan once the groups are there that it needs.
    fn plan(&mut self, request: &AlterPartitionReassignmentsRequest) -> ReassignmentPlan {
        let groups = plan(&self.0.image(), request).groups_to_make();
        for command in groups {
            let outcome = self.apply(command);
            assert!(matches!(outcome, Outcome::GroupCreated { .. }), "{outcome:?}");
        }
        let plan = plan(&self.0.image(), request);
        assert_eq!(plan.groups_to_make(), []);
        plan
    }

    /// Asks for replicas of one partition.
    fn alter(&mut self, topic: &'static str, index: i32, replicas: Option<&[i32]>) -> Answer {
        self.serve(&request(&[(topic, &[(index, replicas)])])).remove(0)
    }

    /// The groups that partitions of a topic have when nothing moves any more.
    fn destinations(&self, topic: &str) -> Vec<u64> {
        let image = self.0.image();
        let topic = image.topic(topic).expect("created");
        topic.partitions.iter().map(|partition| partition.destination().get()).collect()
    }

    /// A move is done.
    fn arrive(&mut self, topic: &str, index: u32) {
        let image = self.0.image();
        let topic = image.topic(topic).expect("created");
        let id = topic.partitions[index as usize].moving.expect("on its way").id;
        let (topic_id, arrived) = (topic.id, LogIndex::new(9));
        let command = Command::PartitionArrived { topic_id, index, id, epoch_base: 1, arrived };
        assert_eq!(self.apply(command), Outcome::PartitionArrived { topic_id, index });
    }

    /// By topic and index: replicas, and those that come and go.
    fn list(&self, topics: Option<&[(&'static str, &[i32])]>) -> Vec<(String, i32, [Vec<i32>; 3])> {
        let topic = |(name, indexes): &(&'static str, &[i32])| {
            ListPartitionReassignmentsTopics::default()
                .with_name(StrBytes::from_static_str(name).into())
                .with_partition_indexes(indexes.to_vec())
        };
        let asked = topics.map(|topics| topics.iter().map(topic).collect());
        let request = ListPartitionReassignmentsRequest::default().with_topics(asked);
        let reply = list(&self.0.image(), &request);
        assert_eq!((reply.error_code, &reply.error_message), (0, &None));
        let ids = |ids: &Vec<BrokerId>| ids.iter().map(|id| id.0).collect();
        let mut listed = Vec::new();
        for topic in &reply.topics {
            assert!(!topic.partitions.is_empty(), "{}", *topic.name);
            for it in &topic.partitions {
                let lists = [&it.replicas, &it.adding_replicas, &it.removing_replicas];
                listed.push((topic.name.to_string(), it.partition_index, lists.map(ids)));
            }
        }
        listed
    }
}

/// By topic, its partitions and the replicas asked for.
type Asked<'a> = (&'static str, &'a [(i32, Option<&'a [i32]>)]);

fn request(topics: &[Asked<'_>]) -> AlterPartitionReassignmentsRequest {
    let partition = |(index, replicas): &(i32, Option<&[i32]>)| {
        let replicas = replicas.map(|ids| ids.iter().map(|id| BrokerId(*id)).collect());
        ReassignablePartition::default().with_partition_index(*index).with_replicas(replicas)
    };
    let topic = |(name, partitions): &Asked<'_>| {
        ReassignableTopic::default()
            .with_name(StrBytes::from_static_str(name).into())
            .with_partitions(partitions.iter().map(partition).collect())
    };
    let topics = topics.iter().map(topic).collect();
    AlterPartitionReassignmentsRequest::default().with_topics(topics)
}

/// What a reply says of each partition.
fn read(plan: &ReassignmentPlan) -> Vec<Answer> {
    let reply = plan.response();
    assert_eq!((reply.error_code, &reply.error_message), (0, &None));
    let partitions = reply.responses.iter().flat_map(|topic| &topic.partitions);
    let answer = |it: &ReassignablePartitionResponse| {
        let message = it.error_message.as_ref().map(|text| text.to_string());
        let code = ErrorCode::from_code(it.error_code).expect("one of ours");
        assert_eq!(message.is_none(), code == ErrorCode::None);
        (code, message.unwrap_or_default())
    };
    partitions.map(answer).collect()
}

fn done() -> Answer {
    (ErrorCode::None, String::new())
}

#[test]
fn a_partition_moves_to_the_group_on_its_brokers_that_prefers_the_first() {
    let mut world = World::new();
    assert_eq!(world.alter("t", 0, Some(&[4, 2, 1])), done());
    assert_eq!(world.alter("t", 1, Some(&[1, 2, 4])), done(), "group 5 has fewer than group 3");
    assert_eq!(world.alter("t", 2, Some(&[2, 4, 1])), done(), "no group prefers broker 2");
    assert_eq!(world.destinations("t"), [4, 5, 4]);
    assert_eq!(world.alter("u", 0, Some(&[4, 3])), done(), "with a copy less");
    assert_eq!(world.destinations("u"), [6, 3]);
}

#[test]
fn the_partitions_of_a_request_are_spread_over_the_groups() {
    let mut world = World::new();
    let to = Some(&[1, 2, 4][..]);
    let partitions = [(0, to), (1, to), (2, to)];
    assert_eq!(world.serve(&request(&[("t", &partitions)])), [done(), done(), done()]);
    assert_eq!(world.destinations("t"), [5, 5, 3]);
}

#[test]
fn what_has_its_replicas_already_stays() {
    let mut world = World::new();
    assert_eq!(world.alter("t", 0, Some(&[1, 3, 2])), done());
    assert_eq!(world.alter("u", 0, Some(&[2, 1, 4])), done(), "none of them prefers broker 2");
    assert_eq!((world.destinations("t"), world.destinations("u")), (vec![1, 1, 2], vec![3, 3]));
    assert_eq!(world.alter("t", 0, Some(&[2, 1, 3])), done(), "another one is to lead");
    assert_eq!(world.destinations("t"), [2, 1, 2]);
    assert_eq!(world.alter("t", 0, Some(&[1, 2, 3])), done(), "and that is called off");
    assert_eq!(world.list(None), []);
}

#[test]
fn one_that_is_asked_for_again_goes_where_it_went() {
    let mut world = World::new();
    assert_eq!(world.alter("t", 0, Some(&[1, 2, 4])), done());
    world.create("v", &[5, 5, 5]);
    assert_eq!(world.alter("t", 0, Some(&[1, 2, 4])), done(), "group 3 has fewer by now");
    assert_eq!(world.destinations("t"), [5, 1, 2]);
    assert_eq!(world.alter("t", 0, Some(&[3, 4])), done(), "elsewhere after all");
    assert_eq!(world.destinations("t"), [6, 1, 2]);
}

#[test]
fn a_move_is_called_off_while_it_is_under_way() {
    let mut world = World::new();
    let none =
        (ErrorCode::NoReassignmentInProgress, "No partition reassignment is in progress.".into());
    assert_eq!(world.alter("t", 0, None), none);
    world.alter("t", 0, Some(&[3, 4]));
    assert_eq!(world.alter("t", 0, None), done());
    assert_eq!(world.alter("t", 0, None), none);
    assert_eq!(world.destinations("t"), [1, 1, 2]);
    world.alter("t", 0, Some(&[3, 4]));
    world.arrive("t", 0);
    assert_eq!(world.alter("t", 0, None), none, "it is there");
    assert_eq!(world.destinations("t"), [6, 1, 2]);
}

#[test]
fn replicas_are_brokers_each_once() {
    let mut world = World::new();
    for (replicas, why) in [
        (&[][..], "an empty replica list"),
        (&[1, 2, 2], "includes the broker 2 more than once"),
        (&[1, 2, 6], "includes broker 6, but no such broker is registered"),
        (&[1, 2, -1], "includes broker -1, but no such broker is registered"),
    ] {
        let (code, message) = world.alter("t", 0, Some(replicas));
        assert_eq!(code, ErrorCode::InvalidReplicaAssignment, "{replicas:?}");
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_group_is_made_where_none_has_its_copies_on_those_brokers() {
    let mut world = World::new();
    let groups = |world: &World| world.0.image().data_groups().count();
    let before = groups(&world);
    assert_eq!(world.alter("t", 0, Some(&[5, 1, 2])), done());
    assert_eq!(world.destinations("t"), [7, 1, 2]);
    let group = world.0.image().group(RaftGroupId::new(7)).expect("made").clone();
    let nodes = group.replicas.iter().map(|it| it.node.get());
    assert_eq!(nodes.collect::<Vec<_>>(), [5, 1, 2]);
    assert!(!group.founders.is_empty() || world.0.image().cluster_id().is_none());
    // Two partitions of one request need one group.
    let to = Some(&[1, 2][..]);
    assert_eq!(world.serve(&request(&[("t", &[(1, to), (2, to)])])), [done(), done()]);
    assert_eq!((world.destinations("t"), groups(&world)), (vec![7, 8, 8], before + 2));
    assert_eq!(world.alter("u", 0, Some(&[5])), done(), "the metadata's group has no partitions");
    assert_eq!(world.destinations("u"), [9, 3]);
}

#[test]
fn what_never_moves_or_is_not_there_is_refused() {
    let mut world = World::new();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    for replicas in [Some(&[3, 4][..]), None] {
        for (topic, index) in [("t", 3), ("t", -1), ("x", 0), (INTERNAL, 1)] {
            assert_eq!(world.alter(topic, index, replicas).0, unknown, "{topic}-{index}");
        }
        let (code, message) = world.alter(INTERNAL, 0, replicas);
        assert_eq!(code, ErrorCode::InvalidReplicaAssignment);
        assert_eq!(message, "partitions of __consumer_offsets do not move yet");
    }
}

/// KIP-860.
#[test]
fn the_number_of_replicas_changes_only_where_it_may() {
    let mut world = World::new();
    let to = Some(&[3, 4][..]);
    let request = request(&[("t", &[(0, to), (1, Some(&[1, 4, 2]))])]);
    let keeping = request.clone().with_allow_replication_factor_change(false);
    let message = "The replication factor is changed from 3 to 2".to_owned();
    let refused = (ErrorCode::InvalidReplicationFactor, message);
    assert_eq!(world.serve(&keeping), [refused, done()]);
    assert_eq!(world.destinations("t"), [1, 5, 2]);
    assert!(!plan(&world.0.image(), &keeping).response().allow_replication_factor_change);
    assert_eq!(world.serve(&request), [done(), done()]);
    assert_eq!(world.destinations("t"), [6, 5, 2]);
    assert!(plan(&world.0.image(), &request).response().allow_replication_factor_change);
}

#[test]
fn a_topic_or_partition_that_is_there_twice_is_refused_the_second_time() {
    let mut world = World::new();
    let (first, second) = (Some(&[3, 4][..]), Some(&[1, 2, 4][..]));
    let request =
        request(&[("t", &[(0, first), (0, second), (1, first)]), ("t", &[(2, first)]), ("u", &[])]);
    let reply = plan(&world.0.image(), &request).response();
    let shape: Vec<_> =
        reply.responses.iter().map(|it| (it.name.as_str(), it.partitions.len())).collect();
    assert_eq!(shape, [("t", 3), ("t", 1), ("u", 0)], "as the request has it");
    let twice = |what: &str| (ErrorCode::InvalidRequest, format!("The {what} is there twice."));
    assert_eq!(world.serve(&request), [done(), twice("partition"), done(), twice("topic")]);
    assert_eq!(world.destinations("t"), [6, 6, 2]);
}

#[test]
fn what_moves_is_listed_until_it_is_there() {
    let mut world = World::new();
    assert_eq!(world.list(None), []);
    world.alter("u", 1, Some(&[3, 4]));
    world.alter("t", 2, Some(&[4, 1, 2]));
    let t2 = ("t".to_owned(), 2, [vec![4, 1, 2, 3], vec![4], vec![3]]);
    let u1 = ("u".to_owned(), 1, [vec![3, 4, 1, 2], vec![3], vec![1, 2]]);
    assert_eq!(world.list(None), [t2.clone(), u1.clone()]);
    let listed = world.list(Some(&[("u", &[0, 1, 2, -1]), ("x", &[0]), ("t", &[0])]));
    assert_eq!(listed, std::slice::from_ref(&u1));
    assert_eq!(world.list(Some(&[])), []);
    world.arrive("t", 2);
    assert_eq!(world.list(None), [u1]);
    world.alter("t", 0, Some(&[2, 3, 1]));
    let t0 = ("t".to_owned(), 0, [vec![2, 3, 1], vec![], vec![]]);
    assert_eq!(world.list(Some(&[("t", &[0, 2])])), [t0], "another leader, and no other brokers");
}

#[test]
fn brokers_are_named_as_clients_know_them() {
    let mut world = World::new();
    let on = |id: i32| Replica { node: NodeId::new(id), shard: ShardId::new(1) };
    let endpoint = |shard: u16| Endpoint {
        broker: NodeId::new(60 + i32::from(shard)),
        host: "h".into(),
        port: 9092 + shard,
        shard: Some(ShardId::new(shard)),
    };
    let endpoints = [0, 1].map(endpoint).to_vec();
    world.apply(Command::RegisterBroker { node: NodeId::new(6), endpoints, rack: None });
    for (group, node) in [(7, 6), (8, 7)] {
        let group = RaftGroupId::new(group);
        world.apply(Command::CreateGroup { group, replicas: vec![on(node)] });
    }
    assert_eq!(world.alter("t", 0, Some(&[60])), done(), "a group is made on that shard");
    let made = world.0.image().group(RaftGroupId::new(9)).expect("made").replicas.clone();
    assert_eq!(made, [Replica { node: NodeId::new(6), shard: ShardId::new(0) }]);
    let (code, message) = world.alter("t", 0, Some(&[60, 61]));
    assert_eq!(code, ErrorCode::InvalidReplicaAssignment);
    assert!(message.contains("two brokers of one node"), "{message}");
    // No group has copies on shards of different numbers: none is made in vain, again and again.
    let endpoints = [(70, 0), (71, 1)]
        .map(|(broker, shard)| Endpoint { broker: NodeId::new(broker), ..endpoint(shard) });
    let (node, endpoints) = (NodeId::new(7), endpoints.to_vec());
    world.apply(Command::RegisterBroker { node, endpoints, rack: None });
    let (code, _) = world.alter("t", 0, Some(&[60, 71]));
    assert_eq!(code, ErrorCode::InvalidReplicaAssignment);
    assert_eq!(world.alter("t", 0, Some(&[61])), done());
    assert_eq!(world.list(None)[0].2[0], [61, 1, 2, 3]);
}

#[test]
fn what_was_not_committed_is_said() {
    let mut world = World::new();
    let to = Some(&[3, 4][..]);
    let partitions = [(0, to), (1, to), (7, to), (2, to)];
    let mut plan = plan(&world.0.image(), &request(&[("t", &partitions)]));
    let slots: Vec<_> = plan.commands().iter().map(|(slot, _)| *slot).collect();
    assert_eq!(slots, [0, 1, 3]);
    plan.settle(0, Err(ErrorCode::NotController));
    let topic_id = world.0.image().topic("t").expect("created").id;
    world.apply(Command::DeleteTopic { topic_id });
    let (_, command) = plan.commands().remove(0);
    let outcome = world.apply(command);
    plan.settle(1, Ok(&outcome));
    let codes: Vec<_> = read(&plan).into_iter().map(|(code, _)| code).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes, [ErrorCode::NotController, unknown, unknown, ErrorCode::RequestTimedOut]);
}
