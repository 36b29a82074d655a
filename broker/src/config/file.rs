//! The configuration file of `tailrace broker`: TOML, one key for each setting of the process, and
//! a table `[settings]` with the broker's settings by Kafka's names. Unknown keys are refused.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{fs, io};

use model::NodeId;
use s3_uploader::StoreUrl;
use serde::{Deserialize, Deserializer, de};
use tools::host_port::{HostPort, NodeAddress};
use tools::size::Size;
use uuid::Uuid;

use super::SettingError;
use super::node::{GROUPS_PER_CORE_MAX, NodeSettings};
use super::peer_tls::PeerTlsFiles;

/// Of a rack's name, which every broker and many a reply repeat.
const RACK_BYTES_MAX: usize = 255;

/// What is in the file; what is not given has the default of `tailrace dev`, but the directory and
/// the addresses, which a production broker must be told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileSettings {
    data_dir: PathBuf,
    #[serde(deserialize_with = "parsed")]
    listen: HostPort,
    #[serde(default, deserialize_with = "parsed_if_given")]
    advertise: Option<HostPort>,
    #[serde(default, deserialize_with = "parsed_if_given")]
    admin: Option<HostPort>,
    wal: Option<PathBuf>,
    #[serde(default, deserialize_with = "parsed_if_given")]
    wal_size: Option<Size>,
    cores: Option<NonZeroU16>,
    data_groups_per_core: Option<NonZeroU16>,
    busy_poll_us: Option<u32>,
    #[serde(default)]
    shard_listeners: bool,
    #[serde(default, deserialize_with = "parsed_if_given")]
    object_store: Option<StoreUrl>,
    node_id: Option<u16>,
    #[serde(default, deserialize_with = "parsed_if_given")]
    cluster_id: Option<Uuid>,
    /// `ID@HOST:PORT` of every broker of the cluster.
    #[serde(default)]
    nodes: Vec<String>,
    rack: Option<String>,
    peer_tls_certificate: Option<PathBuf>,
    peer_tls_key: Option<PathBuf>,
    peer_tls_ca: Option<PathBuf>,
    #[serde(default)]
    settings: BTreeMap<String, Scalar>,
}

/// The value of a broker setting: what `--set` takes as text.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a setting is a text, a number, true or false")]
enum Scalar {
    Integer(i64),
    Fraction(f64),
    Flag(bool),
    Text(String),
}

/// Why a configuration file gives no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}{line}: {reason}")]
    Content { path: PathBuf, line: String, reason: String },
    #[error("{path}, [settings]: {source}")]
    Setting { path: PathBuf, source: SettingError },
    #[error("{path}: {reason}")]
    Cluster { path: PathBuf, reason: String },
}

impl NodeSettings {
    /// Reads a configuration file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or something in it is not understood; the text says where.
    pub fn from_file(path: &Path) -> Result<Self, ConfigFileError> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|source| ConfigFileError::Read { path: path.into(), source })?;
        let given: FileSettings = toml::from_str(&text).map_err(|error| {
            let line = |span: std::ops::Range<usize>| {
                let before = text.get(..span.start).unwrap_or(&text);
                format!(", line {}", before.matches('\n').count() + 1)
            };
            let line = error.span().map(line).unwrap_or_default();
            let reason = error.message().replace('\n', " ");
            ConfigFileError::Content { path: path.into(), line, reason }
        })?;
        let default = Self::default();
        let refused = |reason| ConfigFileError::Cluster { path: path.into(), reason };
        let peer_tls =
            PeerTlsFiles::of(given.peer_tls_certificate, given.peer_tls_key, given.peer_tls_ca);
        let mut settings = Self {
            data_dir: given.data_dir,
            wal: given.wal,
            listen: given.listen,
            admin: given.admin.unwrap_or(default.admin),
            core_count: given.cores.map(NonZeroU16::get),
            data_groups_per_core: given.data_groups_per_core,
            wal_size: given.wal_size.unwrap_or(default.wal_size),
            busy_poll: given
                .busy_poll_us
                .map_or(default.busy_poll, |us| Duration::from_micros(us.into())),
            shard_listeners: given.shard_listeners,
            advertise: given.advertise,
            object_store: given.object_store,
            node_id: given.node_id.map_or(default.node_id, |id| NodeId::new(i32::from(id))),
            cluster_id: given.cluster_id,
            nodes: BTreeMap::new(),
            rack: given.rack.filter(|rack| !rack.is_empty()),
            peer_tls: peer_tls.map_err(refused)?,
            new_cluster: default.new_cluster,
            replacement: default.replacement,
            broker: default.broker,
        };
        settings.set_nodes(&given.nodes).map_err(refused)?;
        if given.data_groups_per_core.is_some_and(|count| count.get() > GROUPS_PER_CORE_MAX) {
            let reason = format!("`data-groups-per-core` is above {GROUPS_PER_CORE_MAX}");
            return Err(refused(reason));
        }
        if settings.rack.as_ref().is_some_and(|rack| rack.len() > RACK_BYTES_MAX) {
            return Err(refused(format!("`rack` is longer than {RACK_BYTES_MAX} bytes")));
        }
        for (key, value) in given.settings {
            let set = settings.broker.set(&format!("{key}={value}"));
            set.map_err(|source| ConfigFileError::Setting { path: path.into(), source })?;
        }
        Ok(settings)
    }
}

impl NodeSettings {
    /// Takes the brokers of a cluster, each as `ID@HOST:PORT`.
    fn set_nodes(&mut self, nodes: &[String]) -> Result<(), String> {
        for text in nodes {
            let NodeAddress { node, address } =
                text.parse().map_err(|error| format!("`nodes`: {error}"))?;
            if self.nodes.insert(node, address).is_some() {
                return Err(format!("`nodes` has node {node} twice"));
            }
        }
        if self.nodes.is_empty() {
            let alone = "`peer-tls-certificate`, `peer-tls-key` and `peer-tls-ca` are for a broker \
                         with `nodes`";
            return if self.peer_tls.is_none() { Ok(()) } else { Err(alone.to_owned()) };
        }
        if !self.nodes.contains_key(&self.node_id) {
            return Err(format!("`nodes` lacks this broker, whose `node-id` is {}", self.node_id));
        }
        if self.cluster_id.is_none() {
            return Err("brokers of one cluster need the same `cluster-id`: a UUID".to_owned());
        }
        if self.shard_listeners {
            return Err("`shard-listeners` works with a single broker only".to_owned());
        }
        Ok(())
    }
}

impl Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Fraction(value) => value.fmt(f),
            Self::Flag(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

/// A value that is written as text, as on the command line.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}

fn parsed_if_given<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    parsed(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        data-dir = "/var/lib/tailrace"
        listen = "0.0.0.0:9092"
        advertise = "broker-1.example:9092"
        admin = "127.0.0.1:9700"
        wal = "/dev/nvme1n1"
        wal-size = "64GiB"
        cores = 8
        busy-poll-us = 0
        shard-listeners = true
        object-store = "s3://bucket/prefix?region=eu-central-1"

        [settings]
        "num.partitions" = 4
        "auto.create.topics.enable" = false
    "#;
    const OF_THREE: &str = r#"
        data-dir = "/data"
        listen = "10.0.0.1:9092"
        node-id = 1
        cluster-id = "0190f1a0-0000-4000-8000-000000000001"
        nodes = ["0@10.0.0.0:9192", "1@10.0.0.1:9192", "2@[::1]:9192"]
        rack = "eu-central-1b"
        peer-tls-certificate = "/etc/tailrace/node-1.pem"
        peer-tls-key = "/etc/tailrace/node-1.key"
        peer-tls-ca = "/etc/tailrace/ca.pem"
    "#;
    const SAMPLE: &str = include_str!("../../../docs/deploy/broker.toml");
    const LEAST: &str = "data-dir = '/data'\nlisten = '127.0.0.1:9092'\n";

    fn read(test: &str, text: &str) -> Result<NodeSettings, String> {
        let name = format!("tailrace-config-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("written");
        let settings = NodeSettings::from_file(&path);
        fs::remove_file(&path).expect("removed");
        settings.map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_understood() {
        let settings = read("whole", WHOLE).expect("all of it");
        let lines = settings.lines().join("\n");
        for line in [
            "data-dir=/var/lib/tailrace",
            "listen=0.0.0.0:9092",
            "advertise=broker-1.example:9092",
            "admin=127.0.0.1:9700",
            "wal=/dev/nvme1n1",
            "wal-size=64GiB",
            "cores=8",
            "busy-poll-us=0",
            "shard-listeners=true",
            "num.partitions=4",
            "auto.create.topics.enable=false",
        ] {
            assert!(lines.contains(line), "{line} in {lines}");
        }
        assert!(settings.object_store.is_some());
        let of_three = read("three", OF_THREE).expect("a member").lines().join("\n");
        for line in [
            "node-id=1",
            "node=0@10.0.0.0:9192",
            "node=2@[::1]:9192",
            "rack=eu-central-1b",
            "peer-tls-certificate=/etc/tailrace/node-1.pem",
            "peer-tls-key=/etc/tailrace/node-1.key",
            "peer-tls-ca=/etc/tailrace/ca.pem",
        ] {
            assert!(of_three.contains(line), "{line} in {of_three}");
        }
        let (data_dir, default) = (PathBuf::from("/data"), NodeSettings::default());
        let least = Ok(NodeSettings { data_dir, ..default });
        assert_eq!(read("least", LEAST), least);
        assert_eq!(read("no-rack", &format!("{LEAST}rack = ''")), least);
    }

    #[test]
    fn the_sample_is_whole_and_true() {
        let settings = read("sample", SAMPLE).expect("it is understood");
        assert_eq!((settings.node_id, settings.nodes.len()), (NodeId::new(1), 3));
        let given: toml::Table = SAMPLE.parse().expect("a table");
        // The error names every key that there is.
        let known = read("keys", &format!("{LEAST}no-such-key = 1")).expect_err("a key too many");
        let known = known.split('`').skip(3).step_by(2).map(str::to_owned);
        let missing: Vec<_> = known.filter(|key| !given.contains_key(key)).collect();
        assert!(missing.is_empty(), "{missing:?} are not in the sample");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (test, text, said) in [
            ("empty", "", "missing field `data-dir`"),
            ("key", &format!("{LEAST}listn = 'x'"), ", line 3: unknown field `listn`"),
            ("port", "data-dir = '/data'\nlisten = 'here'", ", line 2: "),
            ("size", &format!("{LEAST}wal-size = 'big'"), ", line 3: "),
            ("cores", &format!("{LEAST}cores = 0"), ", line 3: "),
            ("toml", "data-dir = ", ", line 1: "),
            ("list", &format!("{LEAST}[settings]\n'num.partitions' = [1]"), "a setting is a text"),
            ("setting", &format!("{LEAST}[settings]\n'no.such' = 1"), "[settings]: "),
            ("node", &format!("{LEAST}nodes = ['0@h']"), "has no port"),
            ("twice", &format!("{LEAST}nodes = ['0@h:1', '0@h:2']"), "node 0 twice"),
            ("own", &OF_THREE.replace("node-id = 1", "node-id = 3"), "`node-id` is 3"),
            ("even", &OF_THREE.replace("\"2@", "\"1@"), "node 1 twice"),
            ("rack", &format!("{LEAST}rack = '{}'", "r".repeat(256)), "longer than 255 bytes"),
            ("id", &OF_THREE.replace("cluster-id", "# "), "`cluster-id`"),
            ("tls", &OF_THREE.replace("peer-tls-key", "# "), "`peer-tls-key` is missing"),
            ("tls-ca", &OF_THREE.replace("peer-tls-ca", "# "), "`peer-tls-ca` is missing"),
            ("tls-alone", &OF_THREE.replace("nodes", "# "), "for a broker with `nodes`"),
            ("uuid", &OF_THREE.replace("0190f1a0", "x"), ", line 5: "),
        ] {
            let error = read(test, text).expect_err(test);
            assert!(error.contains(said), "{test}: {error}");
            assert!(!error.contains('\n'), "{test}: {error}");
        }
        let absent = NodeSettings::from_file(Path::new("/nonexistent/tailrace.toml"));
        assert!(matches!(absent, Err(ConfigFileError::Read { .. })));
    }
}
