//! What the command line says about this process.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use model::NodeId;
use s3_uploader::StoreUrl;
use tools::host_port::HostPort;
use tools::size::Size;
use uuid::Uuid;

use super::broker::BrokerSettings;
use super::peer_tls::PeerTlsFiles;

/// Raft groups with partitions of one shard.
pub const GROUPS_PER_CORE_MAX: u16 = 256;

/// How many brokers a cluster may begin with. Each has a copy of every log: more would make nothing
/// safer. Others may be added when it runs.
pub(crate) const CLUSTER_SIZES: [usize; 3] = [1, 3, 5];

/// A core that is asked 500 times a second or more is awake when the next request is due: that does
/// not wait 40 us for it to wake up, which is a good part of what a write takes.
pub(crate) const BUSY_POLL_DEFAULT: Duration = Duration::from_millis(2);

/// Settings of one `tailrace dev` or `tailrace broker` process.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSettings {
    pub data_dir: PathBuf,
    /// Device or file of the write-ahead log, where it is not `wal` in the data directory.
    pub wal: Option<PathBuf>,
    /// Where Kafka clients connect; the first of several with `shard_listeners`.
    pub listen: HostPort,
    /// Where `/healthz` and `/metrics` answer.
    pub admin: HostPort,
    /// Shards, one core each; None is all cores.
    pub core_count: Option<u16>,
    /// Raft groups with partitions that a new cluster has, for each shard; as many as there are
    /// brokers if not given.
    pub data_groups_per_core: Option<NonZeroU16>,
    /// Bytes of the write-ahead logs of all shards together.
    pub wal_size: Size,
    /// Pauses between requests up to here keep a core awake where they are usual; zero: never.
    pub busy_poll: Duration,
    /// Every shard has its own port and is listed as a broker.
    pub shard_listeners: bool,
    /// What clients are told to connect to, where it differs from `listen`.
    pub advertise: Option<HostPort>,
    /// Where the log's objects are: `s3://BUCKET/PREFIX` or `file:///DIRECTORY`; the folder
    /// `objects` in the data directory if not given.
    pub object_store: Option<StoreUrl>,
    /// This broker's number in its cluster.
    pub node_id: NodeId,
    /// Of a new data directory; a number by chance if not given.
    pub cluster_id: Option<Uuid>,
    /// Brokers of the cluster, this one included, and where the first shard of each listens to the
    /// others; the next shards listen on the next ports. A cluster begins with these; others are
    /// added when it runs. Empty: this broker is alone.
    pub nodes: BTreeMap<NodeId, HostPort>,
    /// Where this broker stands: consumers that say they are there read from it where they can.
    pub rack: Option<String>,
    /// For TLS on the connections between brokers, which are plain if not given.
    pub peer_tls: Option<PeerTlsFiles>,
    /// The cluster begins: a broker without a data directory makes one. A member that has lost its
    /// own must not, since it would vote and count without knowing what it has acknowledged.
    pub new_cluster: bool,
    /// A broker without a data directory is new to a cluster that is there, or has lost its own: it
    /// makes one, and the others give it a part.
    pub replacement: bool,
    pub broker: BrokerSettings,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./tailrace-data"),
            wal: None,
            listen: HostPort::new("127.0.0.1", 9092),
            admin: HostPort::new("127.0.0.1", 9644),
            core_count: None,
            data_groups_per_core: None,
            wal_size: Size::gib(1),
            busy_poll: BUSY_POLL_DEFAULT,
            shard_listeners: false,
            advertise: None,
            object_store: None,
            node_id: NodeId::new(0),
            cluster_id: None,
            nodes: BTreeMap::new(),
            rack: None,
            peer_tls: None,
            new_cluster: false,
            replacement: false,
            broker: BrokerSettings::default(),
        }
    }
}

impl NodeSettings {
    /// The settings as printed at start, one a line.
    pub fn lines(&self) -> Vec<String> {
        let cores = self.core_count.map_or_else(|| "all".to_owned(), |count| count.to_string());
        let mut lines = vec![
            format!("data-dir={}", self.data_dir.display()),
            format!("listen={}", self.listen),
            format!("admin={}", self.admin),
            format!("cores={cores}"),
            format!("wal-size={}", self.wal_size),
            format!("busy-poll-us={}", self.busy_poll.as_micros()),
            format!("shard-listeners={}", self.shard_listeners),
        ];
        let groups = self.data_groups_per_core;
        lines.extend(groups.iter().map(|count| format!("data-groups-per-core={count}")));
        lines.extend(self.object_store.iter().map(|url| format!("object-store={url}")));
        lines.extend(self.wal.iter().map(|path| format!("wal={}", path.display())));
        lines.extend(self.advertise.iter().map(|address| format!("advertise={address}")));
        if !self.nodes.is_empty() {
            lines.push(format!("node-id={}", self.node_id));
        }
        lines.extend(self.nodes.iter().map(|(node, address)| format!("node={node}@{address}")));
        lines.extend(self.rack.iter().map(|rack| format!("rack={rack}")));
        lines.extend(self.peer_tls.iter().flat_map(PeerTlsFiles::lines));
        lines.extend(self.broker.lines());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_every_setting_and_what_was_set() {
        let mut settings = NodeSettings::default();
        settings.broker.set("num.partitions=4").expect("known");
        assert_eq!(
            settings.lines(),
            [
                "data-dir=./tailrace-data",
                "listen=127.0.0.1:9092",
                "admin=127.0.0.1:9644",
                "cores=all",
                "wal-size=1GiB",
                "busy-poll-us=2000",
                "shard-listeners=false",
                "num.partitions=4",
            ]
        );
    }
}
