use std::sync::Arc;

use kafka_wire::messages::{
    alter_configs_request as whole, incremental_alter_configs_request as m,
};
use model::{LogIndex, RaftGroupId};
use uuid::Uuid;

use super::*;
use crate::cluster::{Cluster, NewTopic};

const BROKER_ID: NodeId = NodeId::new(0);
const INTERNAL: &str = "__consumer_offsets";

type Answer = (ErrorCode, String);

/// Topic `t`, on which a retention is set, and an internal one; on a broker that keeps records for
/// a second.
struct World(Cluster, LogIndex);

impl World {
    fn new() -> Self {
        let mut settings = BrokerSettings::default();
        settings.set("log.retention.ms=1000").expect("known");
        let mut world = Self(Cluster::new(Arc::new(settings)), LogIndex::default());
        for name in ["t", INTERNAL] {
            world.apply(Command::CreateTopic(NewTopic {
                name: name.into(),
                topic_id: id_of(name),
                internal: name == INTERNAL,
                placement: vec![RaftGroupId::new(1)],
                configs: configs(&[("retention.ms", "60000")]),
            }));
        }
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.1 = self.1.next();
        self.0.apply(self.1, command)
    }

    fn plan(&self, request: &IncrementalAlterConfigsRequest) -> AlterPlan {
        plan_incremental(&self.0.image(), self.0.settings(), BROKER_ID, request)
    }

    /// Proposes what is planned until all of it is settled.
    fn carry_out(&mut self, mut plan: AlterPlan) -> Vec<Answer> {
        let settings = Arc::clone(self.0.settings());
        for (slot, command) in plan.commands() {
            let mut next = Some(command);
            while let Some(command) = next {
                let outcome = self.apply(command);
                next = plan.settle(slot, Ok(&outcome), &self.0.image(), &settings);
            }
        }
        read(&plan)
    }

    fn serve(&mut self, request: &IncrementalAlterConfigsRequest) -> Vec<Answer> {
        self.carry_out(self.plan(request))
    }

    /// Alters one resource.
    fn alter(&mut self, kind: i8, name: &'static str, ops: &[Op<'_>]) -> Answer {
        self.serve(&request(&[(kind, name, ops)])).remove(0)
    }

    /// Sets exactly this on a topic, as AlterConfigs does.
    fn replace(&mut self, kind: i8, name: &'static str, all: &[(&'static str, &str)]) -> Answer {
        let config = |(name, value): &(&'static str, &str)| {
            whole::AlterableConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string((*value).to_owned())))
        };
        let resource = whole::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configs(all.iter().map(config).collect());
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        let plan = plan_whole(&self.0.image(), self.0.settings(), BROKER_ID, &request);
        self.carry_out(plan).remove(0)
    }

    fn config(&self, name: &str) -> TopicConfig {
        self.0.image().topic(name).expect("created").config.clone()
    }

    fn set_on(&self, name: &str) -> BTreeMap<String, String> {
        self.config(name).overrides().clone()
    }
}

/// Key, operation and value.
type Op<'a> = (&'static str, i8, Option<&'a str>);

fn id_of(name: &str) -> Uuid {
    Uuid::from_u128(1 + name.len() as u128)
}

fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn request(resources: &[(i8, &'static str, &[Op<'_>])]) -> IncrementalAlterConfigsRequest {
    let config = |(key, operation, value): &Op<'_>| {
        m::AlterableConfig::default()
            .with_name(StrBytes::from_static_str(key))
            .with_config_operation(*operation)
            .with_value(value.map(|value| StrBytes::from_string(value.to_owned())))
    };
    let resource = |(kind, name, ops): &(i8, &'static str, &[Op<'_>])| {
        m::AlterConfigsResource::default()
            .with_resource_type(*kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configs(ops.iter().map(config).collect())
    };
    let resources = resources.iter().map(resource).collect();
    IncrementalAlterConfigsRequest::default().with_resources(resources)
}

/// What a reply says of each resource, which it names as the request does.
fn read(plan: &AlterPlan) -> Vec<Answer> {
    let results: Vec<_> = match plan.response() {
        Response::IncrementalAlterConfigs(reply) => {
            let results = reply.responses.into_iter();
            let read = results.map(|it| (it.error_code, it.error_message, it.resource_type));
            read.collect()
        }
        Response::AlterConfigs(reply) => {
            let results = reply.responses.into_iter();
            let read = results.map(|it| (it.error_code, it.error_message, it.resource_type));
            read.collect()
        }
        other => panic!("{other:?}"),
    };
    let kinds: Vec<_> = plan.resources.iter().map(|it| it.kind).collect();
    assert_eq!(results.iter().map(|(_, _, kind)| *kind).collect::<Vec<_>>(), kinds);
    let answer = |(code, message, _): (i16, Option<StrBytes>, i8)| {
        let code = ErrorCode::from_code(code).expect("one of ours");
        assert_eq!(message.is_none(), code == ErrorCode::None);
        (code, message.map(|text| text.to_string()).unwrap_or_default())
    };
    results.into_iter().map(answer).collect()
}

fn done() -> Answer {
    (ErrorCode::None, String::new())
}

#[test]
fn settings_are_set_and_deleted_one_by_one() {
    let mut world = World::new();
    let ops = [("max.message.bytes", SET, Some("2000")), ("retention.ms", DELETE, None)];
    assert_eq!(world.alter(TOPIC, "t", &ops), done());
    assert_eq!(world.set_on("t"), configs(&[("max.message.bytes", "2000")]));
    let config = world.config("t");
    assert_eq!((config.max_message_bytes, config.retention_ms), (2000, 1000));
    let ops = [("min.insync.replicas", SET, Some("2"))];
    assert_eq!(world.alter(TOPIC, "t", &ops), done());
    let both = [("max.message.bytes", "2000"), ("min.insync.replicas", "2")];
    assert_eq!(world.set_on("t"), configs(&both), "what was not named stays");
    assert_eq!(world.alter(TOPIC, "t", &[("segment.ms", DELETE, None)]), done(), "it was not set");
    assert_eq!(world.alter(TOPIC, "t", &[]), done());
    assert_eq!(world.set_on("t"), configs(&both));
}

#[test]
fn the_whole_of_what_is_set_is_replaced() {
    let mut world = World::new();
    assert_eq!(world.replace(TOPIC, "t", &[("segment.ms", "5"), ("flush.ms", "6")]), done());
    assert_eq!(world.set_on("t"), configs(&[("flush.ms", "6"), ("segment.ms", "5")]));
    assert_eq!(world.replace(TOPIC, "t", &[]), done());
    assert_eq!(world.set_on("t"), configs(&[]));
    let (code, message) = world.replace(TOPIC, "t", &[("segment.ms", "0")]);
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(message.ends_with("Value must be at least 1"), "{message}");
}

#[test]
fn lists_grow_and_shrink_by_words() {
    let mut world = World::new();
    for (operation, value, expected) in [
        // Not set: it grows from what the topic runs with.
        (APPEND, "compact", "delete,compact"),
        (APPEND, " delete , compact", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
        (SUBTRACT, "delete", "compact"),
        (SUBTRACT, "compact,delete", ""),
        (APPEND, "delete", "delete"),
    ] {
        let ops = [("cleanup.policy", operation, Some(value))];
        assert_eq!(world.alter(TOPIC, "t", &ops), done(), "{value}");
        let set = world.set_on("t");
        assert_eq!(set.get("cleanup.policy").map(String::as_str), Some(expected), "{value}");
    }
    assert!(world.config("t").cleanup_policy.delete);
    for (operation, word) in [(APPEND, "APPEND to"), (SUBTRACT, "SUBTRACT from")] {
        let answer = world.alter(TOPIC, "t", &[("retention.ms", operation, Some("1"))]);
        let message = format!("Can't {word} key retention.ms because its type is not LIST.");
        assert_eq!(answer, (ErrorCode::InvalidConfig, message));
    }
}

#[test]
fn what_is_wrong_is_refused_whole_and_said() {
    let mut world = World::new();
    let before = world.0.image();
    let invalid = ErrorCode::InvalidConfig;
    for (key, operation, value, code, message) in [
        ("no.such.key", SET, Some("1"), invalid, "Unknown topic config name: no.such.key"),
        ("no.such.key", DELETE, None, invalid, "Unknown topic config name: no.such.key"),
        ("no.such.key", APPEND, Some("1"), invalid, "Unknown topic config name: no.such.key"),
        (
            "retention.bytes",
            SET,
            Some("much"),
            invalid,
            "Invalid value much for configuration retention.bytes: Not a number of type LONG",
        ),
        (
            "cleanup.policy",
            APPEND,
            Some("burn"),
            invalid,
            "Invalid value delete,burn for configuration cleanup.policy: String must be one of: \
             compact, delete",
        ),
        (
            "max.compaction.lag.ms",
            SET,
            Some("1"),
            invalid,
            "conflict topic config setting min.compaction.lag.ms (2) > max.compaction.lag.ms (1)",
        ),
        (
            "segment.bytes",
            SET,
            None,
            ErrorCode::InvalidRequest,
            "Null value not supported for: segment.bytes",
        ),
        (
            "segment.bytes",
            4,
            Some("1"),
            ErrorCode::InvalidRequest,
            "Unknown operation 4 on segment.bytes",
        ),
        (
            "min.compaction.lag.ms",
            SET,
            Some("3"),
            ErrorCode::InvalidRequest,
            "Error due to duplicate config keys: min.compaction.lag.ms",
        ),
    ] {
        let ops = [("min.compaction.lag.ms", SET, Some("2")), (key, operation, value)];
        assert_eq!(world.alter(TOPIC, "t", &ops), (code, message.to_owned()), "{key}");
    }
    assert!(world.0.image().topics().eq(before.topics()), "nor is the rest of it done");
}

#[test]
fn only_what_is_there_is_altered_and_once() {
    let mut world = World::new();
    let ops: &[Op<'_>] = &[("segment.ms", SET, Some("7"))];
    let repeated = (ErrorCode::InvalidRequest, "Each resource must appear at most once.".into());
    let unknown = "This server does not host this topic-partition.".to_owned();
    let empty = "Topic name is invalid: the empty string is not allowed".to_owned();
    let unsupported = |kind| format!("Unsupported resource type: {kind}");
    let resources = [
        (TOPIC, "x", ops),
        (TOPIC, "t", ops),
        (TOPIC, "twice", ops),
        (TOPIC, "", ops),
        (8, "0", ops),
        (TOPIC, "twice", ops),
        (32, "t", ops),
    ];
    let answers = world.serve(&request(&resources));
    assert_eq!(
        answers,
        [
            (ErrorCode::UnknownTopicOrPartition, unknown),
            done(),
            repeated.clone(),
            (ErrorCode::InvalidTopicException, empty),
            (ErrorCode::InvalidRequest, unsupported(8)),
            repeated,
            (ErrorCode::InvalidRequest, unsupported(32)),
        ]
    );
    assert_eq!(world.config("t").segment_ms, 7);
}

#[test]
fn what_is_only_validated_is_not_done() {
    let mut world = World::new();
    let bad: &[Op<'_>] = &[("retention.ms", SET, Some("-2"))];
    let good: &[Op<'_>] = &[("retention.ms", SET, Some("5"))];
    let request = request(&[(TOPIC, "t", good), (TOPIC, "x", good), (BROKER, "0", bad)]);
    let request = request.with_validate_only(true);
    assert!(world.plan(&request).commands().is_empty());
    let codes: Vec<_> = world.serve(&request).into_iter().map(|(code, _)| code).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes, [ErrorCode::None, unknown, ErrorCode::InvalidRequest]);
    assert_eq!(world.config("t").retention_ms, 60_000);
}

#[test]
fn changes_that_are_made_at_once_add_up() {
    let mut world = World::new();
    let plans = [
        [("segment.ms", SET, Some("7"))],
        [("retention.ms", DELETE, None)],
        [("cleanup.policy", APPEND, Some("compact"))],
    ]
    .map(|ops| world.plan(&request(&[(TOPIC, "t", &ops)])));
    for plan in plans {
        assert_eq!(world.carry_out(plan), [done()]);
    }
    let all = [("cleanup.policy", "delete,compact"), ("segment.ms", "7")];
    assert_eq!(world.set_on("t"), configs(&all));
}

/// The second one was in order when it was planned, and is not after the first.
#[test]
fn a_change_is_checked_against_the_one_before_it() {
    let mut world = World::new();
    let [first, second] = [("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "8")]
        .map(|(key, value)| world.plan(&request(&[(TOPIC, "t", &[(key, SET, Some(value))])])));
    assert_eq!(world.carry_out(first), [done()]);
    let (code, message) = world.carry_out(second).remove(0);
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(message.contains("(9) > max.compaction.lag.ms (8)"), "{message}");
}

#[test]
fn what_was_not_committed_is_said() {
    let mut world = World::new();
    let ops: &[Op<'_>] = &[("segment.ms", SET, Some("7"))];
    let mut plan = world.plan(&request(&[(TOPIC, "t", ops)]));
    assert_eq!(read(&plan).remove(0).0, ErrorCode::RequestTimedOut, "nothing is heard of it");
    let image = world.0.image();
    let settings = Arc::clone(world.0.settings());
    assert_eq!(plan.settle(0, Err(ErrorCode::NotController), &image, &settings), None);
    assert_eq!(read(&plan).remove(0).0, ErrorCode::NotController);
    let plan = world.plan(&request(&[(TOPIC, "t", ops)]));
    world.apply(Command::DeleteTopic { topic_id: id_of("t") });
    assert_eq!(world.carry_out(plan).remove(0).0, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn the_settings_of_an_internal_topic_are_the_brokers_own() {
    let mut world = World::new();
    let (code, message) = world.alter(TOPIC, INTERNAL, &[("retention.ms", SET, Some("5"))]);
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(message.contains("is internal"), "{message}");
    let throttles = TOPIC_THROTTLES.map(|key| (key, DELETE, None));
    assert_eq!(world.alter(TOPIC, INTERNAL, &throttles), done());
    assert_eq!(world.config(INTERNAL).retention_ms, 60_000);
}

/// What `kafka-reassign-partitions.sh` does with `--throttle`, and after each `--verify`.
#[test]
fn throttles_are_taken_away_and_never_set() {
    let mut world = World::new();
    for key in BROKER_THROTTLES {
        assert_eq!(world.alter(BROKER, "0", &[(key, DELETE, None)]), done());
        assert_eq!(world.alter(BROKER, "", &[(key, DELETE, Some(""))]), done());
        let (code, message) = world.alter(BROKER, "0", &[(key, SET, Some("1000"))]);
        assert_eq!(code, ErrorCode::InvalidConfig);
        assert!(message.contains("nothing to throttle"), "{message}");
    }
    for key in TOPIC_THROTTLES {
        for (operation, value) in [(SET, "*"), (SET, "0:1"), (APPEND, "0:1")] {
            let (code, message) = world.alter(TOPIC, "t", &[(key, operation, Some(value))]);
            assert_eq!(code, ErrorCode::InvalidConfig);
            assert!(message.contains("nothing to throttle"), "{message}");
        }
        assert_eq!(world.alter(TOPIC, "t", &[(key, DELETE, None)]), done());
        assert_eq!(world.alter(TOPIC, "t", &[(key, SUBTRACT, Some("0:1"))]), done());
        assert_eq!(world.alter(TOPIC, "t", &[(key, SET, Some(""))]), done());
    }
    // One that a topic was created with may stay, and go.
    let key = TOPIC_THROTTLES[0];
    let from = world.set_on("t");
    let to = configs(&[(key, "0:1")]);
    world.apply(Command::SetTopicConfigs { topic_id: id_of("t"), from, to });
    let all = [(key, "0:1"), ("segment.ms", "7")];
    assert_eq!(world.replace(TOPIC, "t", &all), done());
    assert_eq!(world.set_on("t"), configs(&all));
    assert_eq!(world.alter(TOPIC, "t", &[(key, DELETE, None)]), done());
    assert_eq!(world.set_on("t"), configs(&[("segment.ms", "7")]));
}

#[test]
fn a_brokers_settings_are_those_of_its_file() {
    let mut world = World::new();
    for (operation, value) in [(SET, Some("5")), (DELETE, None), (APPEND, Some("5"))] {
        for key in ["log.retention.ms", "no.such.key"] {
            let (code, message) = world.alter(BROKER, "0", &[(key, operation, value)]);
            assert_eq!(code, ErrorCode::InvalidRequest);
            assert!(message.starts_with(key) && message.contains("file"), "{message}");
        }
    }
    assert_eq!(world.replace(BROKER, "0", &[]), done(), "nothing is set");
    let (code, _) = world.replace(BROKER, "0", &[("log.retention.ms", "5")]);
    assert_eq!(code, ErrorCode::InvalidRequest);
    let other = world.alter(BROKER, "1", &[]);
    let message = "Unexpected broker id, expected 0 or empty string, but received 1".to_owned();
    assert_eq!(other, (ErrorCode::InvalidRequest, message));
}
