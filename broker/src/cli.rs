//! The command line: what may be said, and which part of the product does it.

use std::io;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use broker::RecoverSettings;
use broker::config::{GROUPS_PER_CORE_MAX, HostPort, NodeSettings, Size, StoreUrl};
use s3_uploader::{FAIL_POINT_VARIABLE, FailPointError};

/// A Kafka-compatible broker for streams that cannot wait.
#[derive(Parser)]
#[command(name = "tailrace", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One broker on 127.0.0.1:9092, data under ./tailrace-data; nothing to set up. Or a cluster of
    /// some, with --nodes.
    Dev(DevArgs),
    /// A broker as its configuration file says.
    Broker(BrokerArgs),
    /// Rebuilds a data directory from the object store alone; the old broker must not run.
    Recover(RecoverArgs),
    /// Prepares a device or file for the WAL.
    Format(tools::format::FormatArgs),
    /// Inspects, verifies or dumps a WAL.
    #[command(subcommand)]
    Wal(tools::wal::WalCommand),
    /// Lists, prints or verifies what is in an object store.
    #[command(subcommand)]
    Object(tools::object::ObjectCommand),
    /// Shows a cluster, lets brokers join and leave it, moves leaders and partitions.
    #[command(subcommand)]
    Cluster(tools::cluster::ClusterCommand),
    /// Measures: the reactor, a load, or a broker against the floor of its hardware.
    #[cfg(feature = "bench")]
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

/// `tailrace dev`.
#[derive(Args)]
struct DevArgs {
    /// Directory of the data; created if it is not there.
    #[arg(long, value_name = "DIR", default_value = "./tailrace-data")]
    data_dir: std::path::PathBuf,
    /// Start so many brokers, 3 or 5, as one cluster: each a process with a port and data of its
    /// own, from --listen, --admin and DIR on, with one core each unless --cores says more.
    #[arg(long, value_name = "N", conflicts_with_all = ["wal", "shard_listeners", "advertise"])]
    nodes: Option<u16>,
    /// Device of the WAL, prepared with `tailrace format`, or a file; DIR/wal if not given.
    #[arg(long, value_name = "PATH")]
    wal: Option<std::path::PathBuf>,
    /// Where Kafka clients connect.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    listen: HostPort,
    /// Where /healthz and /metrics answer.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    admin: HostPort,
    /// Cores to use, one shard each; all if not given, and what the data directory has once it
    /// exists.
    #[arg(long, value_name = "N")]
    cores: Option<std::num::NonZeroU16>,
    /// Raft groups with partitions for each core, used when the data directory is created; as many
    /// as there are brokers if not given.
    #[arg(long, value_name = "N", value_parser = groups_per_core())]
    data_groups_per_core: Option<u16>,
    /// Size of the WAL of all cores together, used when the data directory is created.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    wal_size: Size,
    /// Keep a core awake between requests that come less than so many microseconds apart; 0 lets it
    /// sleep. 2000 if not given; with --nodes, where brokers share cores, 0.
    #[arg(long, value_name = "MICROSECONDS")]
    busy_poll_us: Option<u32>,
    /// Give every core a port of its own, from --listen's upwards, and list each as a broker.
    #[arg(long)]
    shard_listeners: bool,
    /// What clients are told to connect to, where it differs from --listen.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<HostPort>,
    /// Where the log's objects go: s3://BUCKET/PREFIX or file:///DIRECTORY; DIR/objects if not
    /// given.
    #[arg(long, value_name = "URL")]
    object_store: Option<StoreUrl>,
    /// A broker setting by Kafka's name, for instance num.partitions=4; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// `tailrace broker`.
#[derive(Args)]
struct BrokerArgs {
    /// TOML with data-dir, listen and what else differs from the defaults of `tailrace dev`.
    #[arg(long, value_name = "FILE")]
    config: std::path::PathBuf,
    /// Where the log's objects go, instead of what the file says.
    #[arg(long, value_name = "URL")]
    object_store: Option<StoreUrl>,
    /// Make the data directory of a broker whose cluster begins now. Never for one that has lost
    /// its disk: the others count on what it has acknowledged. See --replacement.
    #[arg(long)]
    new_cluster: bool,
    /// Make the data directory of a broker that has lost its disk, or that joins a cluster after
    /// `tailrace cluster add`. The others must be a majority; what is on a lost disk never counts
    /// again.
    #[arg(long, visible_alias = "join", conflicts_with = "new_cluster")]
    replacement: bool,
    /// Stop when standard input ends: with the process that holds its other end.
    #[arg(long)]
    stop_at_eof: bool,
}

/// `tailrace recover`.
#[derive(Args)]
struct RecoverArgs {
    /// The object store of the lost broker: s3://BUCKET/PREFIX or file:///DIRECTORY.
    #[arg(long, value_name = "URL")]
    object_store: StoreUrl,
    /// Directory to make; it must hold no WAL. Start the broker on it with the same store.
    #[arg(long, value_name = "DIR")]
    data_dir: std::path::PathBuf,
    /// An empty device for the WAL, or a file to make; DIR/wal if not given.
    #[arg(long, value_name = "PATH")]
    wal: Option<std::path::PathBuf>,
    /// Size of the WAL of all cores together, if it is a file.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    wal_size: Size,
    /// The broker of a cluster that it is for; the first that has a vote on the metadata if not
    /// given. The others get their copies from it.
    #[arg(long, value_name = "N")]
    node_id: Option<i32>,
}

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Said by clap: one line of it.
    #[error("{0}; see `tailrace --help`")]
    Usage(String),
    #[error("--set: {0}")]
    Setting(#[from] broker::config::SettingError),
    #[error("{FAIL_POINT_VARIABLE}: {0}")]
    FailPoint(#[from] FailPointError),
    #[error(transparent)]
    Config(#[from] broker::config::ConfigFileError),
    #[error(transparent)]
    Start(#[from] broker::StartError),
    #[error(transparent)]
    LocalCluster(#[from] broker::LocalClusterError),
    #[error(transparent)]
    Recover(#[from] broker::RecoverError),
    #[error(transparent)]
    Format(#[from] tools::format::FormatCommandError),
    #[error(transparent)]
    Wal(#[from] tools::wal::WalError),
    #[error(transparent)]
    Object(#[from] tools::object::ObjectError),
    #[error(transparent)]
    Cluster(#[from] tools::cluster::ClusterError),
    #[cfg(feature = "bench")]
    #[error(transparent)]
    Bench(#[from] bench::BenchError),
}

impl CliError {
    /// 2 for a command line that is not understood, 1 for everything else.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, Self::Usage(_) | Self::Setting(_) | Self::FailPoint(_) | Self::Config(_))
        {
            2
        } else {
            1
        }
    }
}

/// Reads the command line. Help and version are printed here and end the process.
pub(crate) fn parse() -> Result<Cli, CliError> {
    Cli::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => CliError::Usage(first_line(&error.to_string())),
    })
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<(), CliError> {
    let mut out = io::stdout();
    match cli.command {
        Command::Dev(args) => match args.nodes {
            Some(count) => Ok(broker::serve_nodes(&args.into_settings()?, count, &mut out)?),
            None => serve(args.into_settings()?, false, &mut out),
        },
        Command::Broker(args) => {
            let stop_at_eof = args.stop_at_eof;
            serve(args.into_settings()?, stop_at_eof, &mut out)
        }
        Command::Recover(args) => Ok(broker::recover(&args.into_settings(), &mut out)?),
        Command::Format(args) => Ok(args.run(&mut out)?),
        Command::Wal(command) => Ok(command.run(&mut out)?),
        Command::Object(command) => Ok(command.run(&mut out, &mut io::stderr())?),
        Command::Cluster(command) => Ok(command.run(&mut out)?),
        #[cfg(feature = "bench")]
        Command::Bench(command) => Ok(bench::run(command, &mut out)?),
    }
}

fn serve(
    settings: NodeSettings,
    stop_at_eof: bool,
    out: &mut dyn io::Write,
) -> Result<(), CliError> {
    // A test may have the broker die at a step of its choice.
    if let Ok(text) = std::env::var(FAIL_POINT_VARIABLE) {
        s3_uploader::arm(text.parse()?);
    }
    Ok(broker::serve(settings, stop_at_eof, out)?)
}

impl DevArgs {
    fn busy_poll(&self) -> Duration {
        match self.busy_poll_us {
            Some(us) => Duration::from_micros(us.into()),
            None if self.nodes.is_some() => Duration::ZERO,
            None => NodeSettings::default().busy_poll,
        }
    }

    fn into_settings(self) -> Result<NodeSettings, CliError> {
        let busy_poll = self.busy_poll();
        let mut settings = NodeSettings {
            data_dir: self.data_dir,
            wal: self.wal,
            listen: self.listen,
            admin: self.admin,
            core_count: self.cores.map(std::num::NonZeroU16::get),
            data_groups_per_core: self.data_groups_per_core.and_then(std::num::NonZeroU16::new),
            wal_size: self.wal_size,
            busy_poll,
            shard_listeners: self.shard_listeners,
            advertise: self.advertise,
            object_store: self.object_store,
            ..NodeSettings::default()
        };
        for setting in &self.settings {
            settings.broker.set(setting)?;
        }
        Ok(settings)
    }
}

impl BrokerArgs {
    fn into_settings(self) -> Result<NodeSettings, CliError> {
        let settings = NodeSettings::from_file(&self.config)?;
        let object_store = self.object_store.or(settings.object_store);
        let Self { new_cluster, replacement, .. } = self;
        Ok(NodeSettings { object_store, new_cluster, replacement, ..settings })
    }
}

impl RecoverArgs {
    fn into_settings(self) -> RecoverSettings {
        let Self { object_store, data_dir, wal, wal_size, node_id } = self;
        let node_id = node_id.map(model::NodeId::new);
        RecoverSettings { object_store, data_dir, wal, wal_size, node_id }
    }
}

fn groups_per_core() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(GROUPS_PER_CORE_MAX))
}

/// The line of clap's message that says what is wrong.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
