//! What one topic runs with: its own settings over the broker's defaults, typed and with units.

use std::collections::BTreeMap;

use super::broker::BrokerSettings;
use super::key::{ConfigKey, ConfigSource, Value, ValueError};
use super::topic_table::topic_key;

/// A topic's settings. Built from text once, when the topic is created, altered or loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_type: CompressionType,
    pub delete_retention_ms: i64,
    /// -2 takes `retention_bytes`.
    pub local_retention_bytes: i64,
    /// -2 takes `retention_ms`.
    pub local_retention_ms: i64,
    pub max_compaction_lag_ms: i64,
    /// Largest batch, after compression.
    pub max_message_bytes: u32,
    /// How far ahead of the broker's clock a timestamp may be.
    pub message_timestamp_after_max_ms: i64,
    /// How far behind the broker's clock a timestamp may be.
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: u32,
    pub remote_storage_enable: bool,
    /// Negative is no limit.
    pub retention_bytes: i64,
    /// -1 is no limit.
    pub retention_ms: i64,
    pub segment_bytes: u32,
    pub segment_ms: i64,
    /// What was set on the topic, as given: what DescribeConfigs calls dynamic topic settings.
    overrides: BTreeMap<String, String>,
}

/// What happens to old records. Neither keeps everything.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CleanupPolicy {
    pub compact: bool,
    pub delete: bool,
}

/// The codec in which batches are stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CompressionType {
    /// As the producer sent them.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Whose clock stamps a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// Why settings for a topic are refused, in Kafka's words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("Unknown topic config name: {name}")]
    Unknown { name: String },
    #[error("Null value not supported for topic configs: {name}")]
    Null { name: String },
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(
        "conflict topic config setting min.compaction.lag.ms ({min_ms}) > \
         max.compaction.lag.ms ({max_ms})"
    )]
    CompactionLag { min_ms: i64, max_ms: i64 },
}

/// A setting as it holds for a topic, and where it came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EffectiveValue {
    pub value: String,
    pub source: ConfigSource,
}

impl TopicConfig {
    /// Checks every override; the first wrong one, in order of name, is the error.
    pub fn new(
        overrides: BTreeMap<String, String>,
        broker: &BrokerSettings,
    ) -> Result<Self, ConfigError> {
        let nothing = Self::lenient(BTreeMap::new(), broker);
        nothing.with(overrides, broker)
    }

    /// The same topic with other overrides. Only what differs is checked: one that a later version
    /// has set may stay as it is.
    pub fn with(
        &self,
        overrides: BTreeMap<String, String>,
        broker: &BrokerSettings,
    ) -> Result<Self, ConfigError> {
        for (name, text) in &overrides {
            if self.overrides.get(name) == Some(text) {
                continue;
            }
            let key = topic_key(name).ok_or_else(|| ConfigError::Unknown { name: name.clone() })?;
            key.parse(text)?;
        }
        let config = Self::lenient(overrides, broker);
        let (min_ms, max_ms) = (config.min_compaction_lag_ms, config.max_compaction_lag_ms);
        if min_ms > max_ms {
            return Err(ConfigError::CompactionLag { min_ms, max_ms });
        }
        Ok(config)
    }

    /// Takes the overrides that this version understands and keeps the others as text. The
    /// replicated log is applied with this: an entry must have the same effect whatever version
    /// reads it, so none may be refused here.
    pub(crate) fn lenient(overrides: BTreeMap<String, String>, broker: &BrokerSettings) -> Self {
        let values = Values { overrides: &overrides, broker };
        Self {
            cleanup_policy: CleanupPolicy::parse(&values.text("cleanup.policy")),
            compression_type: CompressionType::parse(&values.text("compression.type")),
            delete_retention_ms: values.integer("delete.retention.ms"),
            local_retention_bytes: values.integer("local.retention.bytes"),
            local_retention_ms: values.integer("local.retention.ms"),
            max_compaction_lag_ms: values.integer("max.compaction.lag.ms"),
            max_message_bytes: values.unsigned("max.message.bytes"),
            message_timestamp_after_max_ms: values.integer("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: values.integer("message.timestamp.before.max.ms"),
            message_timestamp_type: TimestampType::parse(&values.text("message.timestamp.type")),
            min_cleanable_dirty_ratio: values.double("min.cleanable.dirty.ratio"),
            min_compaction_lag_ms: values.integer("min.compaction.lag.ms"),
            min_insync_replicas: values.unsigned("min.insync.replicas"),
            remote_storage_enable: values.boolean("remote.storage.enable"),
            retention_bytes: values.integer("retention.bytes"),
            retention_ms: values.integer("retention.ms"),
            segment_bytes: values.unsigned("segment.bytes"),
            segment_ms: values.integer("segment.ms"),
            overrides,
        }
    }

    /// What was set on the topic itself.
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }

    /// The values of a key that hold or would hold, the one in force first. Never empty.
    pub fn effective(&self, key: &ConfigKey, broker: &BrokerSettings) -> Vec<EffectiveValue> {
        let own = self.overrides.get(key.name).and_then(|text| key.parse(text).ok());
        own.map(|value| EffectiveValue { value: value.to_string(), source: ConfigSource::Topic })
            .into_iter()
            .chain(broker.default_of_topics(key))
            .collect()
    }
}

impl CleanupPolicy {
    fn parse(list: &str) -> Self {
        let has = |word: &str| list.split(',').any(|given| given == word);
        Self { compact: has("compact"), delete: has("delete") }
    }
}

impl CompressionType {
    fn parse(name: &str) -> Self {
        match name {
            "uncompressed" => Self::Uncompressed,
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => Self::Producer,
        }
    }
}

impl TimestampType {
    fn parse(name: &str) -> Self {
        if name == "LogAppendTime" { Self::LogAppendTime } else { Self::CreateTime }
    }
}

/// Looks a key up in the overrides, then in the broker's settings, then in the table.
struct Values<'a> {
    overrides: &'a BTreeMap<String, String>,
    broker: &'a BrokerSettings,
}

impl Values<'_> {
    fn get(&self, name: &str) -> Value {
        let key = topic_key(name).expect("a test looks up every name used here");
        self.overrides
            .get(name)
            .and_then(|text| key.parse(text).ok())
            .or_else(|| self.broker.given(key.broker_synonym).cloned())
            .unwrap_or_else(|| key.default_value())
    }

    fn text(&self, name: &str) -> String {
        self.get(name).to_string()
    }

    fn integer(&self, name: &str) -> i64 {
        match self.get(name) {
            Value::Integer(number) => number,
            _ => unreachable!("{name} is an integer in the table"),
        }
    }

    fn unsigned(&self, name: &str) -> u32 {
        u32::try_from(self.integer(name)).expect("the rule of the key refuses negative numbers")
    }

    fn double(&self, name: &str) -> f64 {
        match self.get(name) {
            Value::Double(number) => number,
            _ => unreachable!("{name} is a double in the table"),
        }
    }

    fn boolean(&self, name: &str) -> bool {
        matches!(self.get(name), Value::Boolean(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn defaults_are_kafkas() {
        let config = TopicConfig::new(BTreeMap::new(), &BrokerSettings::default()).expect("valid");
        assert_eq!(config.cleanup_policy, CleanupPolicy { compact: false, delete: true });
        assert_eq!(config.compression_type, CompressionType::Producer);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.message_timestamp_type, TimestampType::CreateTime);
        assert_eq!(config.message_timestamp_after_max_ms, 3_600_000);
        assert_eq!(config.message_timestamp_before_max_ms, i64::MAX);
        assert_eq!(config.retention_ms, 604_800_000);
        assert_eq!(config.segment_bytes, 1 << 30);
    }

    #[test]
    fn a_topic_overrides_the_broker_which_overrides_the_table() {
        let mut broker = BrokerSettings::default();
        broker.set("log.retention.ms=1000").expect("known");
        broker.set("message.max.bytes=2000").expect("known");
        let config = TopicConfig::new(
            overrides(&[("retention.ms", "-1"), ("cleanup.policy", "compact,delete")]),
            &broker,
        )
        .expect("valid");
        assert_eq!(config.retention_ms, -1);
        assert_eq!(config.max_message_bytes, 2000);
        assert_eq!(config.cleanup_policy, CleanupPolicy { compact: true, delete: true });

        let key = topic_key("retention.ms").expect("known");
        let sources: Vec<_> = config.effective(key, &broker).into_iter().collect();
        let value = |value: &str, source| EffectiveValue { value: value.to_owned(), source };
        assert_eq!(
            sources,
            [
                value("-1", ConfigSource::Topic),
                value("1000", ConfigSource::StaticBroker),
                value("604800000", ConfigSource::Default),
            ]
        );
    }

    #[test]
    fn wrong_settings_are_refused_in_kafkas_words() {
        for (pairs, message) in [
            (&[("no.such.key", "1")][..], "Unknown topic config name: no.such.key"),
            (
                &[("retention.ms", "abc")],
                "Invalid value abc for configuration retention.ms: Not a number of type LONG",
            ),
            (
                &[("min.insync.replicas", "0")],
                "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
            ),
            (
                &[("min.compaction.lag.ms", "2"), ("max.compaction.lag.ms", "1")],
                "conflict topic config setting min.compaction.lag.ms (2) > \
                 max.compaction.lag.ms (1)",
            ),
        ] {
            let error = TopicConfig::new(overrides(pairs), &BrokerSettings::default());
            assert_eq!(error.expect_err(message).to_string(), message);
        }
    }

    #[test]
    fn settings_of_a_later_version_are_kept_but_not_used() {
        let given = overrides(&[("retention.ms", "soon"), ("of.the.future", "1")]);
        let config = TopicConfig::lenient(given.clone(), &BrokerSettings::default());
        assert_eq!(config.retention_ms, 604_800_000);
        assert_eq!(config.overrides(), &given);

        let (broker, mut wanted) = (BrokerSettings::default(), given.clone());
        wanted.insert("segment.ms".to_owned(), "7".to_owned());
        let changed = config.with(wanted.clone(), &broker).expect("what is known is in order");
        assert_eq!((changed.segment_ms, changed.overrides()), (7, &wanted));
        for (name, value) in [("of.the.future", "2"), ("retention.ms", "later")] {
            let other = wanted.iter().map(|(name, value)| (name.clone(), value.clone()));
            let other = other.chain([(name.to_owned(), value.to_owned())]).collect();
            assert!(changed.with(other, &broker).is_err(), "{name} is given anew");
        }
    }
}
