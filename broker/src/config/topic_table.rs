//! Kafka 4.4's topic settings: every public name, its type, default and rule.

use super::key::{ConfigKey, Kind, Rule};

/// In order of name, so that one is found by bisection.
pub const TOPIC_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "cleanup.policy",
        kind: Kind::List,
        default: "delete",
        rule: Rule::ListOf(&["compact", "delete"]),
        broker_synonym: "log.cleanup.policy",
        documentation: "What happens to old records: `delete` drops them by age or size, \
                        `compact` keeps the last record of each key; both may be given.",
    },
    ConfigKey {
        name: "compression.gzip.level",
        kind: Kind::Int,
        default: "-1",
        rule: Rule::Between(-1, 9),
        broker_synonym: "compression.gzip.level",
        documentation: "Level used when compression.type is gzip.",
    },
    ConfigKey {
        name: "compression.lz4.level",
        kind: Kind::Int,
        default: "9",
        rule: Rule::Between(1, 17),
        broker_synonym: "compression.lz4.level",
        documentation: "Level used when compression.type is lz4.",
    },
    ConfigKey {
        name: "compression.type",
        kind: Kind::String,
        default: "producer",
        rule: Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        broker_synonym: "compression.type",
        documentation: "Codec in which batches are stored; `producer` keeps each batch as it \
                        was sent.",
    },
    ConfigKey {
        name: "compression.zstd.level",
        kind: Kind::Int,
        default: "3",
        rule: Rule::Between(-131_072, 22),
        broker_synonym: "compression.zstd.level",
        documentation: "Level used when compression.type is zstd.",
    },
    ConfigKey {
        name: "delete.retention.ms",
        kind: Kind::Long,
        default: "86400000",
        rule: Rule::AtLeast(0),
        broker_synonym: "log.cleaner.delete.retention.ms",
        documentation: "How long a compacted topic keeps tombstones, so that a reader \
                        starting at the beginning sees them.",
    },
    ConfigKey {
        name: "file.delete.delay.ms",
        kind: Kind::Long,
        default: "60000",
        rule: Rule::AtLeast(0),
        broker_synonym: "log.segment.delete.delay.ms",
        documentation: "How long removed data stays before its space is reused.",
    },
    ConfigKey {
        name: "flush.messages",
        kind: Kind::Long,
        default: "9223372036854775807",
        rule: Rule::AtLeast(1),
        broker_synonym: "log.flush.interval.messages",
        documentation: "Accepted for compatibility: every acknowledged record is already \
                        durable.",
    },
    ConfigKey {
        name: "flush.ms",
        kind: Kind::Long,
        default: "9223372036854775807",
        rule: Rule::AtLeast(0),
        broker_synonym: "log.flush.interval.ms",
        documentation: "Accepted for compatibility: every acknowledged record is already \
                        durable.",
    },
    ConfigKey {
        name: "follower.replication.throttled.replicas",
        kind: Kind::List,
        default: "",
        rule: Rule::ReplicaList,
        broker_synonym: "",
        documentation: "Replicas whose copying is throttled on the follower, as \
                        partition:broker pairs or `*`.",
    },
    ConfigKey {
        name: "index.interval.bytes",
        kind: Kind::Int,
        default: "4096",
        rule: Rule::AtLeast(0),
        broker_synonym: "log.index.interval.bytes",
        documentation: "Bytes between two entries of the offset index.",
    },
    ConfigKey {
        name: "leader.replication.throttled.replicas",
        kind: Kind::List,
        default: "",
        rule: Rule::ReplicaList,
        broker_synonym: "",
        documentation: "Replicas whose copying is throttled on the leader, as \
                        partition:broker pairs or `*`.",
    },
    ConfigKey {
        name: "local.retention.bytes",
        kind: Kind::Long,
        default: "-2",
        rule: Rule::AtLeast(-2),
        broker_synonym: "log.local.retention.bytes",
        documentation: "Bytes of a partition kept on local devices once offloaded; -2 takes \
                        retention.bytes.",
    },
    ConfigKey {
        name: "local.retention.ms",
        kind: Kind::Long,
        default: "-2",
        rule: Rule::AtLeast(-2),
        broker_synonym: "log.local.retention.ms",
        documentation: "Milliseconds records are kept on local devices once offloaded; -2 \
                        takes retention.ms.",
    },
    ConfigKey {
        name: "max.compaction.lag.ms",
        kind: Kind::Long,
        default: "9223372036854775807",
        rule: Rule::AtLeast(1),
        broker_synonym: "log.cleaner.max.compaction.lag.ms",
        documentation: "Longest time a record may stay uncompacted.",
    },
    ConfigKey {
        name: "max.message.bytes",
        kind: Kind::Int,
        default: "1048588",
        rule: Rule::AtLeast(0),
        broker_synonym: "message.max.bytes",
        documentation: "Largest record batch accepted, in bytes, after compression.",
    },
    ConfigKey {
        name: "message.timestamp.after.max.ms",
        kind: Kind::Long,
        default: "3600000",
        rule: Rule::AtLeast(0),
        broker_synonym: "log.message.timestamp.after.max.ms",
        documentation: "How far a record's timestamp may be ahead of the broker's clock.",
    },
    ConfigKey {
        name: "message.timestamp.before.max.ms",
        kind: Kind::Long,
        default: "9223372036854775807",
        rule: Rule::AtLeast(0),
        broker_synonym: "log.message.timestamp.before.max.ms",
        documentation: "How far a record's timestamp may be behind the broker's clock.",
    },
    ConfigKey {
        name: "message.timestamp.type",
        kind: Kind::String,
        default: "CreateTime",
        rule: Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        broker_synonym: "log.message.timestamp.type",
        documentation: "Whether a record keeps its producer's timestamp or gets the time of \
                        its append.",
    },
    ConfigKey {
        name: "min.cleanable.dirty.ratio",
        kind: Kind::Double,
        default: "0.5",
        rule: Rule::Fraction,
        broker_synonym: "log.cleaner.min.cleanable.ratio",
        documentation: "Share of a compacted log that must be uncompacted before it is \
                        compacted again.",
    },
    ConfigKey {
        name: "min.compaction.lag.ms",
        kind: Kind::Long,
        default: "0",
        rule: Rule::AtLeast(0),
        broker_synonym: "log.cleaner.min.compaction.lag.ms",
        documentation: "Shortest time a record stays uncompacted.",
    },
    ConfigKey {
        name: "min.insync.replicas",
        kind: Kind::Int,
        default: "1",
        rule: Rule::AtLeast(1),
        broker_synonym: "min.insync.replicas",
        documentation: "Replicas that must be in sync for a produce with acks=all to be accepted; \
                        a majority must be, whatever this says.",
    },
    ConfigKey {
        name: "preallocate",
        kind: Kind::Boolean,
        default: "false",
        rule: Rule::Any,
        broker_synonym: "log.preallocate",
        documentation: "Accepted for compatibility: the write-ahead log is always \
                        preallocated.",
    },
    ConfigKey {
        name: "remote.copy.lag.bytes",
        kind: Kind::Long,
        default: "0",
        rule: Rule::AtLeast(-1),
        broker_synonym: "log.remote.copy.lag.bytes",
        documentation: "Bytes that may wait before they are offloaded; -1 takes \
                        local.retention.bytes.",
    },
    ConfigKey {
        name: "remote.copy.lag.ms",
        kind: Kind::Long,
        default: "0",
        rule: Rule::AtLeast(-1),
        broker_synonym: "log.remote.copy.lag.ms",
        documentation: "Milliseconds records may wait before they are offloaded; -1 takes \
                        local.retention.ms.",
    },
    ConfigKey {
        name: "remote.log.copy.disable",
        kind: Kind::Boolean,
        default: "false",
        rule: Rule::Any,
        broker_synonym: "",
        documentation: "Stops offloading new data of the topic; what is offloaded stays \
                        readable.",
    },
    ConfigKey {
        name: "remote.log.delete.on.disable",
        kind: Kind::Boolean,
        default: "false",
        rule: Rule::Any,
        broker_synonym: "",
        documentation: "Deletes offloaded data when remote storage is turned off for the \
                        topic.",
    },
    ConfigKey {
        name: "remote.storage.enable",
        kind: Kind::Boolean,
        default: "false",
        rule: Rule::Any,
        broker_synonym: "",
        documentation: "Kafka's switch for tiered storage of a topic.",
    },
    ConfigKey {
        name: "retention.bytes",
        kind: Kind::Long,
        default: "-1",
        rule: Rule::Any,
        broker_synonym: "log.retention.bytes",
        documentation: "Largest size of a partition before its oldest records are deleted; \
                        -1 is no limit.",
    },
    ConfigKey {
        name: "retention.ms",
        kind: Kind::Long,
        default: "604800000",
        rule: Rule::AtLeast(-1),
        broker_synonym: "log.retention.ms",
        documentation: "Milliseconds after which records may be deleted; -1 is no limit.",
    },
    ConfigKey {
        name: "segment.bytes",
        kind: Kind::Int,
        default: "1073741824",
        rule: Rule::AtLeast(1_048_576),
        broker_synonym: "log.segment.bytes",
        documentation: "Size at which a partition's segment is closed; also the largest \
                        batch.",
    },
    ConfigKey {
        name: "segment.index.bytes",
        kind: Kind::Int,
        default: "10485760",
        rule: Rule::AtLeast(4),
        broker_synonym: "log.index.size.max.bytes",
        documentation: "Largest size of a segment's offset index.",
    },
    ConfigKey {
        name: "segment.jitter.ms",
        kind: Kind::Long,
        default: "0",
        rule: Rule::AtLeast(0),
        broker_synonym: "log.roll.jitter.ms",
        documentation: "Largest random time taken off segment.ms, so that segments do not \
                        all close at once.",
    },
    ConfigKey {
        name: "segment.ms",
        kind: Kind::Long,
        default: "604800000",
        rule: Rule::AtLeast(1),
        broker_synonym: "log.roll.ms",
        documentation: "Time after which a partition's segment is closed even if it is not \
                        full.",
    },
    ConfigKey {
        name: "unclean.leader.election.enable",
        kind: Kind::Boolean,
        default: "false",
        rule: Rule::Any,
        broker_synonym: "unclean.leader.election.enable",
        documentation: "Accepted for compatibility: a replica without the committed records \
                        is never elected.",
    },
];

/// The row of a name, if there is one.
pub(crate) fn topic_key(name: &str) -> Option<&'static ConfigKey> {
    let index = TOPIC_KEYS.binary_search_by(|key| key.name.cmp(name)).ok()?;
    TOPIC_KEYS.get(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_obeys_its_own_rule_and_prints_as_written() {
        for key in TOPIC_KEYS {
            assert_eq!(key.default_value().to_string(), key.default, "{}", key.name);
            assert!(!key.documentation.is_empty(), "{}", key.name);
        }
    }

    #[test]
    fn the_names_of_kafka_4_are_all_there_in_order() {
        assert_eq!(TOPIC_KEYS.len(), 35);
        assert!(TOPIC_KEYS.is_sorted_by(|left, right| left.name < right.name));
        for key in TOPIC_KEYS {
            assert_eq!(topic_key(key.name).map(|found| found.name), Some(key.name));
        }
        // Gone since Kafka 4.0.
        assert!(topic_key("message.format.version").is_none());
        assert!(topic_key("message.downconversion.enable").is_none());
    }
}
