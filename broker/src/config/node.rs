//! What the command line says about this process.

use std::path::PathBuf;

use s3_uploader::StoreUrl;
use tools::size::Size;

use super::broker::BrokerSettings;
use super::host_port::HostPort;

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
    /// Bytes of the write-ahead logs of all shards together.
    pub wal_size: Size,
    /// Every shard has its own port and is listed as a broker.
    pub shard_listeners: bool,
    /// What clients are told to connect to, where it differs from `listen`.
    pub advertise: Option<HostPort>,
    /// Where the log's objects are: `s3://BUCKET/PREFIX` or `file:///DIRECTORY`; the folder
    /// `objects` in the data directory if not given.
    pub object_store: Option<StoreUrl>,
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
            wal_size: Size::gib(1),
            shard_listeners: false,
            advertise: None,
            object_store: None,
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
            format!("shard-listeners={}", self.shard_listeners),
        ];
        lines.extend(self.object_store.iter().map(|url| format!("object-store={url}")));
        lines.extend(self.wal.iter().map(|path| format!("wal={}", path.display())));
        lines.extend(self.advertise.iter().map(|address| format!("advertise={address}")));
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
                "shard-listeners=false",
                "num.partitions=4",
            ]
        );
    }
}
