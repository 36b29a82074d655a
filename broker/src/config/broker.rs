//! Kafka-named broker settings, given as `--set key=value`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::broker_table::{all_broker_keys, broker_key};
use super::key::{ConfigKey, ConfigSource, Value, ValueError};
use super::topic::EffectiveValue;

/// The settings, typed and with units. Start from `default()` and `set` what was given.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerSettings {
    pub auto_create_topics_enable: bool,
    /// The first of a partition's replicas leads it, when it can.
    pub auto_leader_rebalance: bool,
    pub balancer: bool,
    /// Percent of its time that a core works before partitions leave it.
    pub balancer_busy: u32,
    /// None is no limit.
    pub connections_max_idle: Option<Duration>,
    pub default_replication_factor: u16,
    pub delete_topic_enable: bool,
    /// Bytes of one fetch reply.
    pub fetch_bytes_max: u32,
    pub group_initial_rebalance_delay: Duration,
    pub group_session_timeout_min: Duration,
    pub group_session_timeout_max: Duration,
    pub group_size_max: u32,
    /// Of chunks of objects, for readers.
    pub object_cache_bytes: u64,
    /// How long an object stays after nothing refers to it.
    pub object_delete_grace: Duration,
    pub object_sweep_interval: Duration,
    /// A committed record is on its way to an object after this long.
    pub offload_age: Duration,
    /// Committed bytes of a group that are worth an object before that.
    pub offload_bytes: u32,
    pub partition_count_default: u32,
    /// Bytes of the metadata text beside a committed offset.
    pub offset_metadata_bytes_max: u32,
    pub offsets_retention: Duration,
    pub offsets_topic_partition_count: u32,
    pub offsets_topic_replication_factor: u16,
    pub offsets_topic_segment_bytes: u32,
    pub producer_id_expiration: Duration,
    /// Consumers are sent to a replica in their rack (KIP-392).
    pub rack_aware_reads: bool,
    pub retention_check_interval: Duration,
    /// How long a clean stop waits for the object store.
    pub shutdown_offload_max: Duration,
    /// Bytes of a request of any API but Produce.
    pub request_bytes_max: u32,
    /// Bytes of any request.
    pub socket_request_bytes_max: u32,
    /// Of the WAL, kept for when the object store is away.
    pub wal_reserve_percent: u32,
    given: BTreeMap<&'static str, Value>,
}

/// Why a `key=value` is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SettingError {
    #[error("`{text}` is not a setting: expected KEY=VALUE, such as num.partitions=4")]
    NotKeyValue { text: String },
    #[error("unknown setting `{name}`; the nearest known one is `{nearest}`")]
    Unknown { name: String, nearest: &'static str },
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self::typed(BTreeMap::new())
    }
}

impl BrokerSettings {
    /// Takes one `key=value`; the last one given for a key counts.
    pub fn set(&mut self, text: &str) -> Result<(), SettingError> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| SettingError::NotKeyValue { text: text.to_owned() })?;
        let name = name.trim();
        let key = broker_key(name).ok_or_else(|| SettingError::Unknown {
            name: name.to_owned(),
            nearest: nearest_name(name),
        })?;
        let value = key.parse(value)?;
        self.given.insert(key.name, value);
        *self = Self::typed(std::mem::take(&mut self.given));
        Ok(())
    }

    /// The value given for a name, if one was.
    pub(crate) fn given(&self, name: &str) -> Option<&Value> {
        self.given.get(name)
    }

    /// Every setting with its values, the one in force first, in order of name.
    pub fn effective(&self) -> impl Iterator<Item = (ConfigKey, Vec<EffectiveValue>)> + '_ {
        all_broker_keys().into_iter().map(|key| {
            let values = self.values_of(key.name, &key).collect();
            (key, values)
        })
    }

    /// What a topic key has where the topic sets nothing, the value in force first.
    pub(crate) fn default_of_topics<'a>(
        &'a self,
        key: &'a ConfigKey,
    ) -> impl Iterator<Item = EffectiveValue> + 'a {
        self.values_of(key.broker_synonym, key)
    }

    fn values_of<'a>(
        &'a self,
        name: &str,
        key: &ConfigKey,
    ) -> impl Iterator<Item = EffectiveValue> + use<'a> {
        let default =
            EffectiveValue { value: key.default.to_owned(), source: ConfigSource::Default };
        self.given(name)
            .map(|value| EffectiveValue {
                value: value.to_string(),
                source: ConfigSource::StaticBroker,
            })
            .into_iter()
            .chain(Some(default))
    }

    /// What was given, one `key=value` a line, in order of name.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.given.iter().map(|(name, value)| format!("{name}={value}"))
    }

    fn typed(given: BTreeMap<&'static str, Value>) -> Self {
        let values = Values(&given);
        Self {
            auto_create_topics_enable: values.boolean("auto.create.topics.enable"),
            auto_leader_rebalance: values.boolean("auto.leader.rebalance.enable"),
            balancer: values.boolean("balancer.enable"),
            balancer_busy: values.count("balancer.busy.percent"),
            connections_max_idle: u64::try_from(values.integer("connections.max.idle.ms"))
                .ok()
                .map(Duration::from_millis),
            default_replication_factor: values.factor("default.replication.factor"),
            delete_topic_enable: values.boolean("delete.topic.enable"),
            fetch_bytes_max: values.count("fetch.max.bytes"),
            group_initial_rebalance_delay: values.millis("group.initial.rebalance.delay.ms"),
            group_session_timeout_min: values.millis("group.min.session.timeout.ms"),
            group_session_timeout_max: values.millis("group.max.session.timeout.ms"),
            group_size_max: values.count("group.max.size"),
            object_cache_bytes: u64::try_from(values.integer("object.cache.bytes")).unwrap_or(0),
            object_delete_grace: values.millis("object.delete.grace.ms"),
            object_sweep_interval: values.millis("object.sweep.interval.ms"),
            offload_age: values.millis("offload.age.ms"),
            offload_bytes: values.count("offload.bytes"),
            partition_count_default: values.count("num.partitions"),
            offset_metadata_bytes_max: values.count("offset.metadata.max.bytes"),
            offsets_retention: Duration::from_secs(
                60 * u64::from(values.count("offsets.retention.minutes")),
            ),
            offsets_topic_partition_count: values.count("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: values.factor("offsets.topic.replication.factor"),
            offsets_topic_segment_bytes: values.count("offsets.topic.segment.bytes"),
            producer_id_expiration: values.millis("producer.id.expiration.ms"),
            rack_aware_reads: values.text("replica.selector.class") != "leader",
            retention_check_interval: values.millis("log.retention.check.interval.ms"),
            shutdown_offload_max: values.millis("shutdown.offload.max.ms"),
            request_bytes_max: values.count("request.max.bytes"),
            socket_request_bytes_max: values.count("socket.request.max.bytes"),
            wal_reserve_percent: values.count("wal.reserve.percent"),
            given,
        }
    }
}

/// Looks a key up in what was given, then in the table.
struct Values<'a>(&'a BTreeMap<&'static str, Value>);

impl Values<'_> {
    fn get(&self, name: &str) -> Value {
        let key = broker_key(name).expect("the defaults' test looks up every name used here");
        self.0.get(name).cloned().unwrap_or_else(|| key.default_value())
    }

    fn boolean(&self, name: &str) -> bool {
        matches!(self.get(name), Value::Boolean(true))
    }

    fn integer(&self, name: &str) -> i64 {
        match self.get(name) {
            Value::Integer(number) => number,
            _ => unreachable!("{name} is an integer in the table"),
        }
    }

    fn text(&self, name: &str) -> String {
        self.get(name).to_string()
    }

    /// A 32-bit setting; a negative value counts as 0.
    fn count(&self, name: &str) -> u32 {
        u32::try_from(self.integer(name).max(0)).unwrap_or(u32::MAX)
    }

    fn factor(&self, name: &str) -> u16 {
        u16::try_from(self.count(name)).unwrap_or(u16::MAX)
    }

    fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(u64::from(self.count(name)))
    }
}

/// The known name with the fewest edits to the given one.
fn nearest_name(name: &str) -> &'static str {
    all_broker_keys()
        .iter()
        .map(|key| key.name)
        .min_by_key(|known| edit_distance(known.as_bytes(), name.as_bytes()))
        .expect("the table is not empty")
}

/// Insertions, deletions and replacements that turn one text into the other.
fn edit_distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, left_byte) in left.iter().enumerate() {
        let mut diagonal = above;
        let mut before = above + 1;
        for (cell, right_byte) in row.iter_mut().skip(1).zip(right) {
            let replaced = diagonal + usize::from(left_byte != right_byte);
            diagonal = *cell;
            before = replaced.min(before + 1).min(diagonal + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kafkas() {
        let settings = BrokerSettings::default();
        assert!(settings.auto_create_topics_enable);
        assert_eq!(settings.partition_count_default, 1);
        assert_eq!(settings.offsets_topic_partition_count, 50);
        assert_eq!(settings.group_initial_rebalance_delay, Duration::from_secs(3));
        assert_eq!(settings.socket_request_bytes_max, 104_857_600);
        assert_eq!(settings.fetch_bytes_max, 57_671_680);
        assert_eq!(settings.producer_id_expiration, Duration::from_secs(86_400));
        assert_eq!(settings.connections_max_idle, Some(Duration::from_secs(600)));
        assert!(!settings.rack_aware_reads);
        assert_eq!(settings.lines().count(), 0);
    }

    #[test]
    fn the_replica_selector_is_known_by_kafkas_class_too() {
        for (name, rack_aware) in [
            ("leader", false),
            ("rack-aware", true),
            ("org.apache.kafka.common.replica.RackAwareReplicaSelector", true),
        ] {
            let mut settings = BrokerSettings::default();
            settings.set(&format!("replica.selector.class={name}")).expect(name);
            assert_eq!(settings.rack_aware_reads, rack_aware, "{name}");
        }
        let other = BrokerSettings::default().set("replica.selector.class=com.example.Nearest");
        assert!(other.is_err(), "there are no plug-ins");
    }

    #[test]
    fn the_last_value_of_a_key_counts_and_is_printed() {
        let mut settings = BrokerSettings::default();
        for text in ["num.partitions=2", "num.partitions = 4", "auto.create.topics.enable=False"] {
            settings.set(text).expect(text);
        }
        assert_eq!(settings.partition_count_default, 4);
        assert!(!settings.auto_create_topics_enable);
        let lines: Vec<_> = settings.lines().collect();
        assert_eq!(lines, ["auto.create.topics.enable=false", "num.partitions=4"]);
        let (_, values) = settings
            .effective()
            .find(|(key, _)| key.name == "num.partitions")
            .expect("in the table");
        let values: Vec<_> = values.iter().map(|at| (at.value.as_str(), at.source)).collect();
        assert_eq!(values, [("4", ConfigSource::StaticBroker), ("1", ConfigSource::Default)]);
    }

    #[test]
    fn a_wrong_setting_is_one_clear_line_and_changes_nothing() {
        let mut settings = BrokerSettings::default();
        for (text, message) in [
            (
                "num.partition=4",
                "unknown setting `num.partition`; the nearest known one is `num.partitions`",
            ),
            (
                "log.retention.hours=1",
                "unknown setting `log.retention.hours`; the nearest known one is \
                 `log.retention.bytes`",
            ),
            (
                "num.partitions",
                "`num.partitions` is not a setting: expected KEY=VALUE, such as num.partitions=4",
            ),
            (
                "num.partitions=0",
                "Invalid value 0 for configuration num.partitions: Value must be at least 1",
            ),
        ] {
            assert_eq!(settings.set(text).expect_err(text).to_string(), message);
        }
        assert_eq!(settings, BrokerSettings::default());
    }

    #[test]
    fn edits_are_counted() {
        for (left, right, distance) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(edit_distance(left.as_bytes(), right.as_bytes()), distance);
        }
    }
}
