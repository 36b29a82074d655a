//! `tailrace dev --nodes N`: a cluster on one machine. Each broker is a process of its own with a
//! configuration file of its own, as it would have elsewhere; this process starts them, tells what
//! they say and stops them.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{env, fs};

use rustix::process::{Pid, Signal, kill_process};
use tools::format::random_uuid;
use uring::{avoid_cores, core_count, spawn_pinned};
use uuid::Uuid;

use crate::config::{CLUSTER_SIZES, ConfigFileError, HostPort, NodeSettings, StoreUrl};
use crate::start::watch_signals;

/// Brokers listen to each other so many ports above those of their clients.
const PEER_PORTS: u16 = 1000;
/// What a broker says when it serves.
const READY: &str = "ready on ";

/// Why a cluster does not run, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LocalClusterError {
    #[error("--nodes {asked}: a cluster has 1, 3 or 5 brokers")]
    Count { asked: u16 },
    #[error("--listen and --admin need a port, below {most}, from which the brokers count on")]
    Ports { most: u16 },
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    #[error(transparent)]
    Random(#[from] tools::format::FormatCommandError),
    #[error("cannot use {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot start a broker: {0}")]
    Start(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("all brokers have ended")]
    AllEnded,
}

/// What the threads of this process tell its main one.
enum Event {
    Said {
        node: u16,
        line: String,
    },
    /// A broker closed its output: it has ended, or is about to.
    Ended {
        node: u16,
    },
    Signal,
}

/// A broker's process.
struct Broker {
    child: Child,
    address: HostPort,
    status: Option<ExitStatus>,
}

impl Broker {
    /// Asks it to stop.
    fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended a moment ago.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// Runs `count` brokers until SIGTERM or SIGINT, which stops them all. Prints a line `node N pid P
/// ready on HOST:PORT` for each. A broker that ends by itself leaves the others running.
///
/// # Errors
///
/// Whatever keeps them from being started, or that all of them have ended.
pub fn serve_nodes(
    settings: &NodeSettings,
    count: u16,
    out: &mut dyn Write,
) -> Result<(), LocalClusterError> {
    if !CLUSTER_SIZES.contains(&usize::from(count)) {
        return Err(LocalClusterError::Count { asked: count });
    }
    let core_count = settings.core_count.unwrap_or(1);
    let plan = Plan::new(settings, count, core_count)?;
    let (sender, events) = channel();
    let mut brokers = Vec::new();
    for node in 0..count {
        let config = plan.write_config(node)?;
        let started = start(&config, plan.begins, node * core_count);
        let mut child = started.map_err(LocalClusterError::Start)?;
        listen_to(&mut child, node, sender.clone()).map_err(LocalClusterError::Start)?;
        brokers.push(Broker { child, address: plan.listen(node), status: None });
    }
    watch_signals(move || sender.send(Event::Signal).is_ok()).map_err(LocalClusterError::Start)?;
    supervise(brokers, &events, out)
}

/// Tells what the brokers say until all have ended.
fn supervise(
    mut brokers: Vec<Broker>,
    events: &Receiver<Event>,
    out: &mut dyn Write,
) -> Result<(), LocalClusterError> {
    let mut stopping = false;
    for event in events {
        let line = match event {
            Event::Said { node, line } => {
                let Broker { child, address, .. } = &brokers[usize::from(node)];
                match line.strip_prefix(READY) {
                    Some(_) => format!("node {node} pid {} {READY}{address}", child.id()),
                    None => format!("node {node}: {line}"),
                }
            }
            Event::Ended { node } => {
                let broker = &mut brokers[usize::from(node)];
                let status = broker.child.wait().map_err(LocalClusterError::Start)?;
                broker.status = Some(status);
                format!("node {node} has ended: {status}")
            }
            Event::Signal => {
                stopping = true;
                brokers.iter().filter(|it| it.status.is_none()).for_each(Broker::terminate);
                "stopping".to_owned()
            }
        };
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(LocalClusterError::Output)?;
        if brokers.iter().all(|broker| broker.status.is_some()) {
            break;
        }
    }
    if stopping { Ok(()) } else { Err(LocalClusterError::AllEnded) }
}

/// Where everything of a cluster is.
struct Plan<'a> {
    settings: &'a NodeSettings,
    root: PathBuf,
    cluster_id: Uuid,
    count: u16,
    core_count: u16,
    /// No broker has data yet.
    begins: bool,
}

impl<'a> Plan<'a> {
    fn new(
        settings: &'a NodeSettings,
        count: u16,
        core_count: u16,
    ) -> Result<Self, LocalClusterError> {
        let peers = PEER_PORTS.saturating_add(count.saturating_mul(core_count));
        let most = u16::MAX - peers;
        let fits = |port: u16| port > 0 && port < most;
        if !fits(settings.listen.port) || !fits(settings.admin.port) {
            return Err(LocalClusterError::Ports { most });
        }
        let directory = &settings.data_dir;
        let refused = |source| LocalClusterError::Directory { path: directory.clone(), source };
        fs::create_dir_all(directory).map_err(refused)?;
        let root = fs::canonicalize(directory).map_err(refused)?;
        // A cluster that was here before goes on.
        let known = config_path(&root, 0);
        let known = known.exists().then(|| NodeSettings::from_file(&known)).transpose()?;
        let cluster_id = match known.and_then(|known| known.cluster_id) {
            Some(cluster_id) => cluster_id,
            None => random_uuid()?,
        };
        let begins = !(0..count).any(|node| data_dir(&root, node).exists());
        Ok(Self { settings, root, cluster_id, count, core_count, begins })
    }

    fn listen(&self, node: u16) -> HostPort {
        further(&self.settings.listen, node)
    }

    /// The configuration file of a broker.
    fn write_config(&self, node: u16) -> Result<PathBuf, LocalClusterError> {
        let settings = self.settings;
        let admin = further(&settings.admin, node);
        let objects = settings.object_store.clone();
        let objects = objects.unwrap_or_else(|| StoreUrl::folder(&self.root.join("objects")));
        let mut text = "# Written anew at every start of `tailrace dev --nodes`.\n".to_owned();
        let mut line = |key: &str, value: String| {
            writeln!(text, "{key} = {value}").expect("a text takes what is written to it");
        };
        line("data-dir", quoted(&data_dir(&self.root, node).to_string_lossy()));
        line("listen", quoted(&self.listen(node).to_string()));
        line("admin", quoted(&admin.to_string()));
        line("wal-size", quoted(&settings.wal_size.to_string()));
        line("cores", self.core_count.to_string());
        line("busy-poll-us", self.settings.busy_poll.as_micros().to_string());
        if let Some(count) = settings.data_groups_per_core {
            line("data-groups-per-core", count.to_string());
        }
        line("object-store", quoted(&objects.to_string()));
        line("node-id", node.to_string());
        line("cluster-id", quoted(&self.cluster_id.to_string()));
        let peer = |node: u16| {
            let address = further(&settings.listen, PEER_PORTS + node * self.core_count);
            quoted(&format!("{node}@{address}"))
        };
        let peers: Vec<_> = (0..self.count).map(peer).collect();
        line("nodes", format!("[{}]", peers.join(", ")));
        text.push_str("[settings]\n");
        for setting in settings.broker.lines() {
            if let Some((key, value)) = setting.split_once('=') {
                writeln!(text, "{} = {}", quoted(key), quoted(value)).expect("as above");
            }
        }
        let path = config_path(&self.root, node);
        let written = fs::write(&path, text);
        written.map_err(|source| LocalClusterError::Directory { path: path.clone(), source })?;
        Ok(path)
    }
}

/// An address of the plan, which has made sure that there are so many ports.
fn further(address: &HostPort, step: u16) -> HostPort {
    address.port_plus(step).expect("the plan has room for it")
}

fn config_path(root: &Path, node: u16) -> PathBuf {
    root.join(format!("{node}.toml"))
}

fn data_dir(root: &Path, node: u16) -> PathBuf {
    root.join(node.to_string())
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                write!(quoted, "\\u{:04x}", u32::from(control)).expect("a text takes it");
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Starts a broker, on the cores after the first `before`; around, if there are not so many. It
/// stops when this process is gone, however that ends: its standard input ends then.
fn start(config: &Path, begins: bool, before: u16) -> io::Result<Child> {
    let program = env::current_exe()?;
    let config = config.to_owned();
    let skipped = usize::from(before) % core_count();
    let starter = spawn_pinned("start", None, move || {
        // A process has the cores of the thread that starts it.
        avoid_cores(skipped)?;
        Command::new(program)
            .args(["broker", "--stop-at-eof", "--config"])
            .arg(config)
            .args(begins.then_some("--new-cluster"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    })?;
    starter.join().expect("starting a process does not panic")
}

fn listen_to(child: &mut Child, node: u16, events: Sender<Event>) -> io::Result<()> {
    let output = child.stdout.take().expect("it was asked for");
    spawn_pinned(&format!("node-{node}"), None, move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if events.send(Event::Said { node, line }).is_err() {
                return;
            }
        }
        // If nobody listens any more, the process is ending.
        let _ = events.send(Event::Ended { node });
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::NodeId;

    use super::*;

    fn settings(test: &str) -> NodeSettings {
        let name = format!("tailrace-local-cluster-{}-{test}", std::process::id());
        let mut settings =
            NodeSettings { data_dir: env::temp_dir().join(name), ..NodeSettings::default() };
        settings.broker.set("num.partitions=4").expect("a setting");
        settings
    }

    #[test]
    fn a_broker_reads_what_was_planned_for_it() {
        let settings = settings("planned \"quoted\"");
        let plan = Plan::new(&settings, 3, 2).expect("a plan");
        let read = |node| NodeSettings::from_file(&plan.write_config(node).expect("a file"));
        let found = read(2).expect("what was written is understood");
        assert_eq!(found.listen, HostPort::new("127.0.0.1", 9094));
        assert_eq!(found.admin, HostPort::new("127.0.0.1", 9646));
        assert_eq!((found.node_id, found.core_count), (NodeId::new(2), Some(2)));
        let ports: Vec<_> = found.nodes.values().map(|address| address.port).collect();
        assert_eq!(ports, [10092, 10094, 10096]);
        assert!(found.lines().contains(&"num.partitions=4".to_owned()));
        read(0).expect("another file");
        let again = Plan::new(&settings, 3, 2).expect("a plan");
        assert_eq!(again.cluster_id, plan.cluster_id, "the cluster goes on");
        fs::remove_dir_all(&settings.data_dir).expect("removed");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut nowhere = settings("nowhere");
        for count in [0, 2, 4, 7] {
            let refused = serve_nodes(&nowhere, count, &mut Vec::new());
            assert!(matches!(refused, Err(LocalClusterError::Count { .. })), "{count}");
        }
        for port in [0, 64_534, u16::MAX] {
            nowhere.listen.port = port;
            let refused = Plan::new(&nowhere, 3, 1);
            assert!(matches!(refused, Err(LocalClusterError::Ports { .. })), "{port}");
        }
        assert!(!nowhere.data_dir.exists());
    }
}
