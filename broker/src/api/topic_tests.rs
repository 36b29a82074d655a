use bytes::BytesMut;
use kafka_protocol::protocol::Encodable;
use kafka_wire::messages::BrokerId;
use kafka_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopicConfig,
};
use kafka_wire::messages::delete_topics_request::DeleteTopicState;
use model::LogIndex;

use super::*;
use crate::cluster::{Cluster, Endpoint, Node, Shape, bootstrap};

const NODE: NodeId = NodeId::new(0);

/// A cluster of one node and two shards, with the topics `orders` and `__consumer_offsets`.
struct Fixture {
    cluster: Cluster,
    settings: Arc<BrokerSettings>,
    next_index: u64,
    next_id: u128,
}

impl Fixture {
    fn new() -> Self {
        let settings = Arc::new(BrokerSettings::default());
        let cluster = Cluster::new(Arc::clone(&settings));
        let mut fixture = Self { cluster, settings, next_index: 1, next_id: 1 };
        let endpoint = Endpoint { broker: NODE, host: "h".into(), port: 9092, shard: None };
        let own = Node { id: NODE, endpoints: vec![endpoint], rack: None };
        let shape = Shape { shard_count: 2, groups_per_shard: 1 };
        for command in bootstrap(Uuid::from_u128(99), own, &[NODE], shape) {
            fixture.apply(command);
        }
        let names = ["orders", "__consumer_offsets"].map(name_of);
        let image = fixture.cluster.image();
        let settings = Arc::clone(&fixture.settings);
        let planner = Planner::new(&image, &settings);
        let creation = plan_auto_create(planner, &names, &mut || {
            fixture.next_id += 1;
            Uuid::from_u128(fixture.next_id)
        });
        assert_eq!(creation.groups, []);
        for command in creation.topics {
            fixture.apply(command);
        }
        fixture
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.next_index += 1;
        self.cluster.apply(LogIndex::new(self.next_index), command)
    }

    fn plan(&mut self, request: &CreateTopicsRequest) -> CreatePlan {
        let next_id = &mut self.next_id;
        let image = self.cluster.image();
        let planner = Planner::new(&image, &self.settings);
        plan_create(planner, request, &mut || {
            *next_id += 1;
            Uuid::from_u128(*next_id)
        })
    }

    fn create(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let mut plan = self.plan(request);
        for (slot, command) in plan.commands() {
            let outcome = self.apply(command);
            plan.settle(slot, Ok(&outcome));
        }
        let response = plan.response(&self.settings);
        for version in 2..=7 {
            response.encode(&mut BytesMut::new(), version).expect("encodes in every version");
        }
        response
    }

    fn delete(&mut self, version: i16, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
        let mut plan = plan_delete(&self.cluster.image(), &self.settings, version, request);
        for (slot, command) in plan.commands() {
            let outcome = self.apply(command);
            plan.settle(slot, Ok(&outcome));
        }
        let response = plan.response();
        response.encode(&mut BytesMut::new(), version).expect("encodes");
        response
    }

    fn topic_id(&self, name: &str) -> Uuid {
        self.cluster.image().topic(name).expect("exists").id
    }
}

fn name_of(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

fn topic(name: &'static str, partition_count: i32, factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name_of(name))
        .with_num_partitions(partition_count)
        .with_replication_factor(factor)
}

fn config(name: &'static str, value: Option<&'static str>) -> CreatableTopicConfig {
    CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(value.map(StrBytes::from_static_str))
}

fn creating(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics)
}

#[test]
fn a_new_topic_is_described_with_its_id_and_settings() {
    let mut fixture = Fixture::new();
    let asked = topic("t", 3, 1).with_configs(vec![config("cleanup.policy", Some("compact"))]);
    let response = fixture.create(&creating(vec![asked]));
    let result = &response.topics[0];
    assert_eq!((result.error_code, result.error_message.as_ref()), (0, None));
    assert_eq!((result.num_partitions, result.replication_factor), (3, 1));
    assert_eq!(result.topic_id, fixture.topic_id("t"));
    let configs = result.configs.as_ref().expect("echoed");
    assert_eq!(configs.len(), TOPIC_KEYS.len());
    let of = |name: &str| {
        let entry = configs.iter().find(|config| *config.name == *name).expect("echoed");
        (entry.value.as_deref().map(str::to_owned), entry.config_source)
    };
    assert_eq!(of("cleanup.policy"), (Some("compact".into()), 1));
    assert_eq!(of("retention.ms"), (Some("604800000".into()), 5));
}

#[test]
fn minus_one_takes_the_brokers_defaults() {
    let mut fixture = Fixture::new();
    let mut settings = BrokerSettings::default();
    settings.set("num.partitions=4").expect("known");
    fixture.settings = Arc::new(settings);
    let response = fixture.create(&creating(vec![topic("t", -1, -1)]));
    assert_eq!(response.topics[0].num_partitions, 4);
    assert_eq!(response.topics[0].replication_factor, 1);
}

#[test]
fn validation_alone_changes_nothing() {
    let mut fixture = Fixture::new();
    let topics = vec![topic("t", 2, 1), topic("orders", 2, 1)];
    let response = fixture.create(&creating(topics).with_validate_only(true));
    assert_eq!(response.topics[0].error_code, 0);
    assert_eq!(response.topics[0].num_partitions, 2);
    assert_eq!(response.topics[0].topic_id, Uuid::nil());
    assert_eq!(response.topics[1].error_code, ErrorCode::TopicAlreadyExists.code());
    assert!(fixture.cluster.image().topic("t").is_none());
}

/// Topics that are refused, each with the code and the words that its client sees.
fn wrong_topics() -> Vec<(CreatableTopic, ErrorCode, &'static str)> {
    let assigned = |brokers: &[i32]| {
        let assignment = CreatableReplicaAssignment::default()
            .with_broker_ids(brokers.iter().copied().map(BrokerId).collect());
        topic("t", -1, -1).with_assignments(vec![assignment])
    };
    let configured = |name, value| topic("t", 1, 1).with_configs(vec![config(name, value)]);
    vec![
        (topic("orders", 1, 1), ErrorCode::TopicAlreadyExists, "Topic 'orders' already exists."),
        (
            topic("bad name", 1, 1),
            ErrorCode::InvalidTopicException,
            "Topic name is invalid: 'bad name' contains one or more characters other than ASCII \
             alphanumerics, '.', '_' and '-'",
        ),
        (
            topic("..consumer_offsets", 1, 1),
            ErrorCode::InvalidTopicException,
            "Topic '..consumer_offsets' collides with existing topic: __consumer_offsets",
        ),
        (
            topic("t", 0, 1),
            ErrorCode::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        ),
        (
            topic("t", i32::MAX, 1),
            ErrorCode::PolicyViolation,
            "Excessively large number of partitions per request.",
        ),
        (
            topic("t", 1, 0),
            ErrorCode::InvalidReplicationFactor,
            "Replication factor was set to an invalid non-positive value.",
        ),
        (
            topic("t", 1, 2),
            ErrorCode::InvalidReplicationFactor,
            "Unable to replicate the partition 2 time(s): The target replication factor of 2 \
             cannot be reached because only 1 broker(s) are registered.",
        ),
        (
            assigned(&[3]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes broker 3, but no such broker is registered.",
        ),
        (
            assigned(&[0]).with_num_partitions(1),
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            configured("no.such", Some("1")),
            ErrorCode::InvalidConfig,
            "Unknown topic config name: no.such",
        ),
        (
            configured("retention.ms", Some("x")),
            ErrorCode::InvalidConfig,
            "Invalid value x for configuration retention.ms: Not a number of type LONG",
        ),
        (
            configured("retention.ms", None),
            ErrorCode::InvalidConfig,
            "Null value not supported for topic configs: retention.ms",
        ),
    ]
}

#[test]
fn each_wrong_topic_has_its_code_and_reason_and_does_not_stop_the_others() {
    for (wrong, code, message) in wrong_topics() {
        let response = Fixture::new().create(&creating(vec![wrong, topic("right", 1, 1)]));
        let result = &response.topics[0];
        assert_eq!(result.error_code, code.code(), "{message}");
        assert_eq!(result.error_message.as_deref(), Some(message));
        assert_eq!((result.num_partitions, result.replication_factor), (-1, -1));
        assert_eq!(response.topics[1].error_code, 0);
    }
}

#[test]
fn partitions_assigned_by_hand_are_counted() {
    let assignment = |index| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(vec![BrokerId(0)])
    };
    let asked = topic("t", -1, -1).with_assignments((0..3).map(assignment).collect());
    let response = Fixture::new().create(&creating(vec![asked]));
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 3));
}

#[test]
fn a_name_given_twice_is_refused_once() {
    let mut fixture = Fixture::new();
    let topics = vec![topic("t", 1, 1), topic("u", 1, 1), topic("t", 1, 1), topic("t", 2, 1)];
    let response = fixture.create(&creating(topics));
    let codes: Vec<_> =
        response.topics.iter().map(|at| (at.name.to_string(), at.error_code)).collect();
    let invalid = ErrorCode::InvalidRequest.code();
    assert_eq!(codes, [("t".to_owned(), invalid), ("u".to_owned(), 0)]);
    assert!(fixture.cluster.image().topic("t").is_none());
}

#[test]
fn what_group_0_did_not_settle_has_timed_out() {
    let mut fixture = Fixture::new();
    let mut plan = fixture.plan(&creating(vec![topic("t", 1, 1), topic("u", 1, 1)]));
    let slots: Vec<usize> = plan.commands().into_iter().map(|(slot, _)| slot).collect();
    assert_eq!(slots, [0, 1]);
    plan.settle(1, Err(ErrorCode::NotController));
    let response = plan.response(&fixture.settings);
    let codes: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [ErrorCode::RequestTimedOut.code(), ErrorCode::NotController.code()]);
}

/// Two clients create the same topic at once: the log decides, and the second one is told.
#[test]
fn the_loser_of_a_race_is_told_that_the_topic_exists() {
    let mut fixture = Fixture::new();
    let mut late = fixture.plan(&creating(vec![topic("t", 1, 1)]));
    assert_eq!(fixture.create(&creating(vec![topic("t", 2, 1)])).topics[0].error_code, 0);
    for (slot, command) in late.commands() {
        let outcome = fixture.apply(command);
        late.settle(slot, Ok(&outcome));
    }
    let response = late.response(&fixture.settings);
    assert_eq!(response.topics[0].error_code, ErrorCode::TopicAlreadyExists.code());
}

#[test]
fn topics_are_deleted_by_name_up_to_version_5() {
    for version in 1..=5 {
        let mut fixture = Fixture::new();
        let names = ["orders", "absent", "orders", "__consumer_offsets"].map(name_of).to_vec();
        let request = DeleteTopicsRequest::default().with_topic_names(names);
        let response = fixture.delete(version, &request);
        let codes: Vec<_> = response.responses.iter().map(|topic| topic.error_code).collect();
        let expected = [
            ErrorCode::None,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidTopicException,
        ];
        assert_eq!(codes, expected.map(ErrorCode::code));
        assert_eq!(response.responses[0].error_message, None);
        assert!(fixture.cluster.image().topic("orders").is_none());
        assert!(fixture.cluster.image().topic("__consumer_offsets").is_some());
    }
}

#[test]
fn topics_are_deleted_by_name_or_id_in_version_6() {
    let mut fixture = Fixture::new();
    let id = fixture.topic_id("orders");
    let state = |name: Option<&'static str>, id| {
        DeleteTopicState::default().with_name(name.map(name_of)).with_topic_id(id)
    };
    let request = DeleteTopicsRequest::default().with_topics(vec![
        state(Some("orders"), id),
        state(None, Uuid::nil()),
        state(None, Uuid::from_u128(1000)),
        state(None, id),
        state(Some("orders"), Uuid::nil()),
    ]);
    let response = fixture.delete(6, &request);
    let codes: Vec<_> = response.responses.iter().map(|topic| topic.error_code).collect();
    let expected = [
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
        ErrorCode::UnknownTopicId,
        ErrorCode::None,
        ErrorCode::InvalidRequest,
    ];
    assert_eq!(codes, expected.map(ErrorCode::code));
    let deleted = &response.responses[3];
    assert_eq!(deleted.name.as_ref().map(|name| name.to_string()).as_deref(), Some("orders"));
    assert_eq!(deleted.topic_id, id);
}

#[test]
fn a_topic_made_again_has_another_id() {
    let mut fixture = Fixture::new();
    let before = fixture.topic_id("orders");
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name_of("orders")]);
    fixture.delete(4, &request);
    assert_eq!(fixture.create(&creating(vec![topic("orders", 1, 1)])).topics[0].error_code, 0);
    assert_ne!(fixture.topic_id("orders"), before);
}

#[test]
fn deletion_can_be_disabled() {
    for (version, code) in [(1, ErrorCode::InvalidRequest), (3, ErrorCode::TopicDeletionDisabled)] {
        let mut fixture = Fixture::new();
        let mut settings = BrokerSettings::default();
        settings.set("delete.topic.enable=false").expect("known");
        fixture.settings = Arc::new(settings);
        let request = DeleteTopicsRequest::default().with_topic_names(vec![name_of("orders")]);
        assert_eq!(fixture.delete(version, &request).responses[0].error_code, code.code());
    }
}
