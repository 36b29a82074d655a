//! Kafka's broker settings that this broker knows, beside those that give topics their defaults.
//!
//! The latter are not repeated here: each topic key names its broker synonym, which has its type,
//! rule and default.

use super::key::{ConfigKey, Kind, Rule};
use super::topic_table::TOPIC_KEYS;

/// In order of name, so that one is found by bisection.
pub const BROKER_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "auto.create.topics.enable",
        kind: Kind::Boolean,
        default: "true",
        rule: Rule::Any,
        broker_synonym: "auto.create.topics.enable",
        documentation: "A topic that a client asks for and that is absent is created.",
    },
    ConfigKey {
        name: "auto.leader.rebalance.enable",
        kind: Kind::Boolean,
        default: "true",
        rule: Rule::Any,
        broker_synonym: "auto.leader.rebalance.enable",
        documentation: "The first of a partition's replicas leads it, once it has been there for \
                        ten seconds with all that is committed.",
    },
    ConfigKey {
        name: "balancer.busy.percent",
        kind: Kind::Int,
        default: "40",
        rule: Rule::Between(1, 100),
        broker_synonym: "balancer.busy.percent",
        documentation: "A core that works for less of its time keeps its partitions; from a busier \
                        one they move to others, one by one, where that makes a difference.",
    },
    ConfigKey {
        name: "balancer.enable",
        kind: Kind::Boolean,
        default: "true",
        rule: Rule::Any,
        broker_synonym: "balancer.enable",
        documentation: "Copies of partitions and leaders are spread anew over the brokers when \
                        some are added, and partitions move from busy cores to others. Brokers \
                        that are drained are emptied in any case.",
    },
    ConfigKey {
        name: "connections.max.idle.ms",
        kind: Kind::Long,
        default: "600000",
        rule: Rule::Any,
        broker_synonym: "connections.max.idle.ms",
        documentation: "A connection without a request for this long is closed; a negative \
                        value is no limit.",
    },
    ConfigKey {
        name: "default.replication.factor",
        kind: Kind::Int,
        default: "3",
        rule: Rule::Between(1, 32_767),
        broker_synonym: "default.replication.factor",
        documentation: "Replicas of a topic created without saying how many; as many as there \
                        are brokers, at most.",
    },
    ConfigKey {
        name: "delete.topic.enable",
        kind: Kind::Boolean,
        default: "true",
        rule: Rule::Any,
        broker_synonym: "delete.topic.enable",
        documentation: "Topics may be deleted.",
    },
    ConfigKey {
        name: "fetch.max.bytes",
        kind: Kind::Int,
        default: "57671680",
        rule: Rule::AtLeast(1024),
        broker_synonym: "fetch.max.bytes",
        documentation: "Most bytes in one fetch reply.",
    },
    ConfigKey {
        name: "group.initial.rebalance.delay.ms",
        kind: Kind::Int,
        default: "3000",
        rule: Rule::AtLeast(0),
        broker_synonym: "group.initial.rebalance.delay.ms",
        documentation: "How long the first rebalance of an empty group waits for more \
                        members.",
    },
    ConfigKey {
        name: "group.max.session.timeout.ms",
        kind: Kind::Int,
        default: "1800000",
        rule: Rule::AtLeast(0),
        broker_synonym: "group.max.session.timeout.ms",
        documentation: "Longest session timeout a group member may ask for.",
    },
    ConfigKey {
        name: "group.max.size",
        kind: Kind::Int,
        default: "2147483647",
        rule: Rule::AtLeast(1),
        broker_synonym: "group.max.size",
        documentation: "Most members of one consumer group.",
    },
    ConfigKey {
        name: "group.min.session.timeout.ms",
        kind: Kind::Int,
        default: "6000",
        rule: Rule::AtLeast(0),
        broker_synonym: "group.min.session.timeout.ms",
        documentation: "Shortest session timeout a group member may ask for.",
    },
    ConfigKey {
        name: "log.retention.check.interval.ms",
        kind: Kind::Long,
        default: "300000",
        rule: Rule::AtLeast(1),
        broker_synonym: "log.retention.check.interval.ms",
        documentation: "How often old records and unused objects are looked for.",
    },
    ConfigKey {
        name: "num.partitions",
        kind: Kind::Int,
        default: "1",
        rule: Rule::Between(1, 10_000),
        broker_synonym: "num.partitions",
        documentation: "Partitions of a topic created without saying how many.",
    },
    ConfigKey {
        name: "object.cache.bytes",
        kind: Kind::Long,
        default: "268435456",
        rule: Rule::AtLeast(1_048_576),
        broker_synonym: "object.cache.bytes",
        documentation: "Memory for parts of objects that readers asked for or will ask for.",
    },
    ConfigKey {
        name: "object.delete.grace.ms",
        kind: Kind::Long,
        default: "3600000",
        rule: Rule::AtLeast(0),
        broker_synonym: "object.delete.grace.ms",
        documentation: "How long an object stays after nothing refers to it.",
    },
    ConfigKey {
        name: "object.sweep.interval.ms",
        kind: Kind::Long,
        default: "3600000",
        rule: Rule::AtLeast(1),
        broker_synonym: "object.sweep.interval.ms",
        documentation: "How often the object store is listed for what nothing refers to.",
    },
    ConfigKey {
        name: "offload.age.ms",
        kind: Kind::Long,
        default: "10000",
        rule: Rule::AtLeast(1),
        broker_synonym: "offload.age.ms",
        documentation: "A committed record is on its way to an object after this long.",
    },
    ConfigKey {
        name: "offload.bytes",
        kind: Kind::Int,
        default: "33554432",
        rule: Rule::AtLeast(4096),
        broker_synonym: "offload.bytes",
        documentation: "Committed bytes of a group that are worth an object before that.",
    },
    ConfigKey {
        name: "offset.metadata.max.bytes",
        kind: Kind::Int,
        default: "4096",
        rule: Rule::Any,
        broker_synonym: "offset.metadata.max.bytes",
        documentation: "Longest metadata text beside a committed offset.",
    },
    ConfigKey {
        name: "offsets.retention.minutes",
        kind: Kind::Int,
        default: "10080",
        rule: Rule::AtLeast(1),
        broker_synonym: "offsets.retention.minutes",
        documentation: "How long the offsets of an empty group are kept.",
    },
    ConfigKey {
        name: "offsets.topic.num.partitions",
        kind: Kind::Int,
        default: "50",
        rule: Rule::Between(1, 10_000),
        broker_synonym: "offsets.topic.num.partitions",
        documentation: "Partitions of __consumer_offsets; fixed when the topic is created.",
    },
    ConfigKey {
        name: "offsets.topic.replication.factor",
        kind: Kind::Int,
        default: "3",
        rule: Rule::Between(1, 32_767),
        broker_synonym: "offsets.topic.replication.factor",
        documentation: "Replicas of __consumer_offsets; as many as there are brokers, at most.",
    },
    ConfigKey {
        name: "offsets.topic.segment.bytes",
        kind: Kind::Int,
        default: "104857600",
        rule: Rule::AtLeast(1_048_576),
        broker_synonym: "offsets.topic.segment.bytes",
        documentation: "segment.bytes of __consumer_offsets.",
    },
    ConfigKey {
        name: "producer.id.expiration.ms",
        kind: Kind::Int,
        default: "86400000",
        rule: Rule::AtLeast(1),
        broker_synonym: "producer.id.expiration.ms",
        documentation: "How long an idle producer's sequence numbers are remembered.",
    },
    ConfigKey {
        name: "replica.selector.class",
        kind: Kind::String,
        default: "leader",
        rule: Rule::OneOf(&[
            "leader",
            "rack-aware",
            "org.apache.kafka.common.replica.RackAwareReplicaSelector",
        ]),
        broker_synonym: "replica.selector.class",
        documentation: "Where consumers read that say what rack they are in: from the leader, or \
                        from a replica in their rack (rack-aware, or Kafka's class of that name).",
    },
    ConfigKey {
        name: "request.max.bytes",
        kind: Kind::Int,
        default: "1048576",
        rule: Rule::AtLeast(1024),
        broker_synonym: "request.max.bytes",
        documentation: "Largest request of any API but Produce: decoding can take many times \
                        its size. Not a setting of Kafka's.",
    },
    ConfigKey {
        name: "shutdown.offload.max.ms",
        kind: Kind::Long,
        default: "30000",
        rule: Rule::AtLeast(0),
        broker_synonym: "shutdown.offload.max.ms",
        documentation: "How long a clean stop waits for the object store.",
    },
    ConfigKey {
        name: "socket.request.max.bytes",
        kind: Kind::Int,
        default: "104857600",
        rule: Rule::AtLeast(1024),
        broker_synonym: "socket.request.max.bytes",
        documentation: "Largest request accepted; a longer one closes the connection.",
    },
    ConfigKey {
        name: "wal.reserve.percent",
        kind: Kind::Int,
        default: "50",
        rule: Rule::Between(0, 90),
        broker_synonym: "wal.reserve.percent",
        documentation: "Of the WAL's room for records, what is kept for when the object store is \
                        away.",
    },
];

/// The row of a broker setting; for a topic default, that of the topic key under its broker name.
pub(crate) fn broker_key(name: &str) -> Option<ConfigKey> {
    if let Ok(index) = BROKER_KEYS.binary_search_by(|key| key.name.cmp(name)) {
        return BROKER_KEYS.get(index).copied();
    }
    topic_defaults().find(|key| key.name == name)
}

/// Every broker setting, in order of name.
pub(crate) fn all_broker_keys() -> Vec<ConfigKey> {
    let mut keys: Vec<ConfigKey> = BROKER_KEYS.iter().copied().chain(topic_defaults()).collect();
    keys.sort_unstable_by_key(|key| key.name);
    keys
}

/// The broker settings that are topic keys under another name.
fn topic_defaults() -> impl Iterator<Item = ConfigKey> {
    TOPIC_KEYS
        .iter()
        .filter(|key| !key.broker_synonym.is_empty())
        .map(|key| ConfigKey { name: key.broker_synonym, ..*key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_obeys_its_own_rule_and_prints_as_written() {
        for key in all_broker_keys() {
            assert_eq!(key.default_value().to_string(), key.default, "{}", key.name);
            assert!(!key.documentation.is_empty(), "{}", key.name);
        }
    }

    #[test]
    fn no_name_is_there_twice_and_each_is_found() {
        let keys = all_broker_keys();
        assert!(keys.is_sorted_by(|left, right| left.name < right.name));
        assert!(BROKER_KEYS.is_sorted_by(|left, right| left.name < right.name));
        for key in keys {
            assert_eq!(broker_key(key.name).map(|found| found.name), Some(key.name));
        }
    }
}
