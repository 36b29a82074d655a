//! Settings, parsed once into types with units and printed at start.
//!
//! `node.rs` holds what the command line says about this process, `peer_tls.rs` of it what TLS
//! between brokers needs; `broker.rs` the Kafka-named settings given with `--set`; `file.rs` reads
//! both from a configuration file; `topic.rs` what one topic runs with. The Kafka names, defaults
//! and rules are data: `broker_table.rs` and `topic_table.rs`, in the terms of `key.rs`.

mod broker;
mod broker_table;
mod file;
mod key;
mod node;
pub(crate) mod peer_tls;
mod topic;
mod topic_table;

pub use broker::{BrokerSettings, SettingError};
pub use file::ConfigFileError;
pub use key::{ConfigKey, ConfigSource, Kind, Rule, Value, ValueError};
pub(crate) use node::CLUSTER_SIZES;
pub use node::{GROUPS_PER_CORE_MAX, NodeSettings};
pub use peer_tls::PeerTlsFiles;
pub use s3_uploader::StoreUrl;
pub use tools::host_port::{HostPort, HostPortError};
pub use tools::size::{Size, SizeError};
pub use topic::{
    CleanupPolicy, CompressionType, ConfigError, EffectiveValue, TimestampType, TopicConfig,
};
pub use topic_table::TOPIC_KEYS;

pub use broker_table::BROKER_KEYS;
