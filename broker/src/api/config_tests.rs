use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::protocol::Encodable;
use model::{LogIndex, RaftGroupId};
use uuid::Uuid;

use super::*;
use crate::cluster::{Cluster, Command, NewTopic};

const BROKER_ID: NodeId = NodeId::new(0);

/// A topic `offsets` that is compacted, on a broker that keeps records for a second.
fn fixture() -> (Arc<Image>, Arc<BrokerSettings>) {
    let mut settings = BrokerSettings::default();
    settings.set("log.retention.ms=1000").expect("known");
    let settings = Arc::new(settings);
    let mut cluster = Cluster::new(Arc::clone(&settings));
    let topic = NewTopic {
        name: "offsets".into(),
        topic_id: Uuid::from_u128(1),
        internal: false,
        placement: vec![RaftGroupId::new(1)],
        configs: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
    };
    cluster.apply(LogIndex::new(1), Command::CreateTopic(topic));
    (cluster.image(), settings)
}

fn resource(kind: i8, name: &'static str) -> DescribeConfigsResource {
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(StrBytes::from_static_str(name))
        .with_configuration_keys(None)
}

fn ask(version: i16, request: DescribeConfigsRequest) -> DescribeConfigsResult {
    let (image, settings) = fixture();
    let mut reply = describe(&image, &settings, BROKER_ID, version, &request);
    reply.encode(&mut BytesMut::new(), version).expect("encodes");
    assert_eq!(reply.results.len(), 1);
    reply.results.remove(0)
}

fn of(resource: DescribeConfigsResource) -> DescribeConfigsRequest {
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

fn entry(result: &DescribeConfigsResult, name: &str) -> DescribeConfigsResourceResult {
    result.configs.iter().find(|config| *config.name == *name).expect("described").clone()
}

#[test]
fn a_topic_tells_every_setting_its_value_and_its_source() {
    for version in 1..=4 {
        let result = ask(version, of(resource(TOPIC, "offsets")));
        assert_eq!((result.error_code, result.error_message.as_ref()), (0, None));
        assert_eq!(result.configs.len(), TOPIC_KEYS.len());
        for (name, value, source) in [
            ("cleanup.policy", "compact", ConfigSource::Topic),
            ("retention.ms", "1000", ConfigSource::StaticBroker),
            ("message.timestamp.type", "CreateTime", ConfigSource::Default),
        ] {
            let entry = entry(&result, name);
            assert_eq!(entry.value.as_deref(), Some(value));
            assert_eq!(entry.config_source, source.wire());
            assert!(entry.synonyms.is_empty() && !entry.read_only && !entry.is_sensitive);
            assert_eq!(entry.documentation, None);
            let list_or_other = entry.config_type;
            assert_eq!(list_or_other != 0, version >= 3, "type is told from version 3 on");
        }
    }
}

#[test]
fn synonyms_and_documentation_are_told_when_asked() {
    let request =
        of(resource(TOPIC, "offsets")).with_include_synonyms(true).with_include_documentation(true);
    for version in 1..=4 {
        let result = ask(version, request.clone());
        let retention = entry(&result, "retention.ms");
        let synonyms: Vec<_> = retention
            .synonyms
            .iter()
            .map(|at| (at.name.to_string(), at.value.as_deref().map(str::to_owned), at.source))
            .collect();
        let broker = "log.retention.ms".to_owned();
        assert_eq!(
            synonyms,
            [
                (broker.clone(), Some("1000".to_owned()), 4),
                (broker, Some("604800000".to_owned()), 5),
            ]
        );
        assert_eq!(retention.documentation.is_some(), version >= 3);
        let policy = entry(&result, "cleanup.policy");
        assert_eq!(policy.synonyms[0].name.as_str(), "cleanup.policy");
        assert_eq!(policy.synonyms[1].name.as_str(), "log.cleanup.policy");
        assert!(entry(&result, "remote.storage.enable").synonyms.is_empty());
    }
}

#[test]
fn only_the_keys_that_are_asked_for_are_told() {
    let keys = ["cleanup.policy", "no.such.key"].map(StrBytes::from_static_str).to_vec();
    let asked = resource(TOPIC, "offsets").with_configuration_keys(Some(keys));
    assert_eq!(ask(4, of(asked)).configs.len(), 1);
    let nothing = resource(TOPIC, "offsets").with_configuration_keys(Some(Vec::new()));
    assert_eq!(ask(4, of(nothing)).configs.len(), TOPIC_KEYS.len());
}

#[test]
fn a_broker_tells_its_own_settings_read_only() {
    let result = ask(4, of(resource(BROKER, "0")).with_include_synonyms(true));
    let retention = entry(&result, "log.retention.ms");
    assert_eq!(retention.value.as_deref(), Some("1000"));
    assert_eq!(retention.config_source, ConfigSource::StaticBroker.wire());
    assert!(retention.read_only);
    for (name, value) in [
        ("auto.create.topics.enable", "true"),
        ("num.partitions", "1"),
        ("default.replication.factor", "3"),
        ("message.max.bytes", "1048588"),
    ] {
        let entry = entry(&result, name);
        assert_eq!(entry.value.as_deref(), Some(value));
        assert_eq!(entry.config_source, ConfigSource::Default.wire());
        assert_eq!(entry.synonyms[0].name.as_str(), name);
    }
    assert!(ask(4, of(resource(BROKER, ""))).configs.is_empty());
}

#[test]
fn what_is_not_here_is_refused() {
    for (asked, code, message) in [
        (
            resource(TOPIC, "absent"),
            ErrorCode::UnknownTopicOrPartition,
            "This server does not host this topic-partition.",
        ),
        (
            resource(TOPIC, ""),
            ErrorCode::InvalidTopicException,
            "Topic name is invalid: the empty string is not allowed",
        ),
        (
            resource(BROKER, "1"),
            ErrorCode::InvalidRequest,
            "Unexpected broker id, expected 0 or empty string, but received 1",
        ),
        (resource(16, "x"), ErrorCode::InvalidRequest, "Unsupported resource type: 16"),
    ] {
        let result = ask(4, of(asked));
        assert_eq!(result.error_code, code.code());
        assert_eq!(result.error_message.as_deref(), Some(message));
        assert!(result.configs.is_empty());
    }
}
