//! Starting and stopping a broker: data directory, listeners, one thread for each core.

use std::io::{self, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use model::{NodeId, ShardId};
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketType};
use s3_uploader::{
    ClaimError, Client, FetchConfig, StoreOptions, StoreUrl, Wake, Worker, WorkerConfig,
    open_claimed,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use tools::format::random_uuid;
use uring::device::DeviceError;
use uring::{SetupError, avoid_cores, core_count, spawn_pinned};

use crate::admin;
use crate::cluster::Endpoint;
use crate::config::{HostPort, NodeSettings};
use crate::data_dir::DataDir;
use crate::node::Node;
use crate::peer::dialer::Dialer;
use crate::peer::tls::credentials::{Credentials, CredentialsError};
use crate::shard_thread::{self, ShardListeners, ShardStart};

/// Connections that the kernel holds until a core accepts them.
const BACKLOG: i32 = 1024;
const BIND_RETRIES: u32 = 50;
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// Why a broker does not run, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot use the data directory {path}: {source}")]
    DataDir { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Device(#[from] DeviceError),
    #[error("cannot prepare the WAL: {0}")]
    Format(#[from] wal_uring::FormatError),
    #[error("cannot read the WAL at {path}: {source}")]
    Load { path: PathBuf, source: wal_uring::superblock::LoadError },
    #[error("cannot open the WAL of shard {shard}: {source}")]
    Open { shard: u16, source: Box<wal_uring::OpenError> },
    #[error("the WAL of shard {shard} does not hold what it should: {reason}")]
    Recover { shard: u16, reason: String },
    #[error("{0}")]
    Ring(#[from] SetupError),
    #[error(
        "the data directory was made for {found} cores, --cores says {asked}: leave --cores out, \
         or start with a new directory"
    )]
    CoreCount { found: u16, asked: u16 },
    #[error(
        "{path} is the WAL of node {node_id} of cluster {cluster_id}, the configuration is \
         another's: correct `node-id` and `cluster-id`, or use another `data-dir`"
    )]
    Identity { path: PathBuf, cluster_id: uuid::Uuid, node_id: NodeId },
    #[error(
        "there is no WAL at {path}: a broker of a cluster that begins is started with \
         --new-cluster, one that joins a cluster with --join, one that has lost its disk with \
         --replacement"
    )]
    NoWal { path: PathBuf },
    #[error(
        "a cluster begins with 1, 3 or 5 brokers, and `nodes` names {count}: others are added when \
         it runs, by `tailrace cluster add`"
    )]
    ClusterSize { count: usize },
    #[error(
        "a replacement gets its log from the other brokers, and the configuration names none: set \
         `nodes`, or see `tailrace recover`"
    )]
    LoneReplacement,
    #[error(
        "the WAL of shard {shard} is empty: a broker of a cluster that begins is started with \
         --new-cluster; a device in place of a lost one is prepared with \
         `tailrace format --replacement`"
    )]
    EmptyWal { shard: u16 },
    #[error("--cores {asked}: this process may use {available} cores")]
    TooManyCores { asked: u16, available: usize },
    #[error("TLS between brokers: {0}")]
    Credentials(#[from] CredentialsError),
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: HostPort, reason: String },
    #[error("cannot use the object store {url}: {source}")]
    Store { url: Box<StoreUrl>, source: Box<ClaimError> },
    #[error("shard {shard} failed: {reason}")]
    Failed { shard: u16, reason: String },
    #[error(transparent)]
    Random(#[from] tools::format::FormatCommandError),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// What a shard's thread tells the main thread.
pub(crate) enum Report {
    /// What a shard has to tell the operator, one line each: what it found in its WAL, first.
    Noted(Vec<String>),
    /// The shard accepts connections.
    Serving,
    /// The shard stopped; with the reason if nobody asked it to.
    Stopped { shard: u16, result: Result<(), StartError> },
    /// A signal, or the end of standard input, asks the broker to stop.
    Signal,
}

/// Runs one broker until SIGTERM or SIGINT, or until standard input ends if that is asked for.
/// Prints its settings, then `ready on HOST:PORT`.
///
/// # Errors
///
/// Whatever keeps it from starting, or a failed device: nothing that was acknowledged is lost.
pub fn serve(
    settings: NodeSettings,
    stop_at_eof: bool,
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let peer_tls = credentials(&settings)?;
    let listeners = Listeners::bind(&settings)?;
    let admin_listener = bind_exclusively(&settings.admin)?;
    let data = DataDir::open(&settings, listeners.shard_count, out)?;
    let peer_listeners = bind_to_peers(&settings, data.shard_count)?;
    let listeners = listeners.spread(&settings, data.shard_count)?;
    for line in settings.lines().into_iter().chain(data.lines()) {
        writeln!(out, "{line}").map_err(StartError::Output)?;
    }
    // What is not a shard runs on cores that no shard has, if there are any.
    let some_left = avoid_cores(usize::from(data.shard_count)).map_err(StartError::Thread)?;
    let (shard_count, endpoints) = (data.shard_count, listeners.endpoints);
    let busy_poll = settings.busy_poll;
    let (process, _) = random_uuid()?.as_u64_pair();
    let mut node = Node::new(data.identity, settings, shard_count, endpoints, process);
    node.peer_tls = peer_tls;
    let node = Arc::new(node);
    let admin_node = Arc::clone(&node);
    spawn_pinned("admin", None, move || admin::serve(&admin_listener, &admin_node))
        .map_err(StartError::Thread)?;
    let (report, reports) = channel();
    let (worker, clients) = start_store(&node, &data, !some_left, report.clone(), out)?;
    #[expect(clippy::disallowed_methods, reason = "the start of the store's rates")]
    node.set_store_metrics(worker.metrics(), std::time::Instant::now());
    let signaled = report.clone();
    watch_signals(move || signaled.send(Report::Signal).is_ok()).map_err(StartError::Thread)?;
    if stop_at_eof {
        watch_input(report.clone())?;
    }
    start_dialer(&node);
    let sockets = listeners.by_shard.into_iter().zip(peer_listeners);
    let sockets = sockets.map(|(clients, peers)| ShardListeners { clients, peers });
    let ends = sockets.zip(clients);
    let threads = start_shards(&node, &data, ends, busy_poll, &report)?;
    drop(report);
    let mut result = supervise(&node, &reports, listeners.shown, out);
    node.stop();
    for thread in threads {
        thread.join().expect("a shard that panics ends the process");
    }
    drop(worker);
    for report in reports.try_iter() {
        match report {
            Report::Stopped { result: Err(error), .. } => result = result.and(Err(error)),
            Report::Noted(lines) => note(out, &lines)?,
            _ => {}
        }
    }
    result
}

/// Of this broker among the others, if they talk by TLS.
fn credentials(settings: &NodeSettings) -> Result<Option<Arc<Credentials>>, StartError> {
    let Some(files) = &settings.peer_tls else { return Ok(None) };
    let cluster_id = settings.cluster_id.unwrap_or_default();
    Ok(Some(Credentials::load(files, cluster_id, settings.node_id)?.into()))
}

/// Waits until all shards serve and says so; then until one stops or a signal comes.
fn supervise(
    node: &Node,
    reports: &Receiver<Report>,
    shown: HostPort,
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let mut serving = 0;
    for report in reports {
        match report {
            Report::Noted(lines) => note(out, &lines)?,
            Report::Serving => {
                serving += 1;
                if serving == node.shard_count {
                    writeln!(out, "ready on {shown}").map_err(StartError::Output)?;
                    out.flush().map_err(StartError::Output)?;
                }
            }
            Report::Stopped { shard, result } => {
                let reason = "it stopped without being asked to".to_owned();
                return result.and(Err(StartError::Failed { shard, reason }));
            }
            Report::Signal => return Ok(()),
        }
    }
    Ok(())
}

fn note(out: &mut dyn Write, lines: &[String]) -> Result<(), StartError> {
    lines.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(StartError::Output)
}

/// Opens the object store and starts its thread. A store that is away now holds nothing up.
fn start_store(
    node: &Arc<Node>,
    data: &DataDir,
    gives_way: bool,
    report: Sender<Report>,
    out: &mut dyn Write,
) -> Result<(Worker, Vec<Client>), StartError> {
    let settings = &node.settings;
    let folder = || StoreUrl::folder(&data.objects);
    let url = settings.object_store.clone().unwrap_or_else(folder);
    let options = StoreOptions::default();
    let (store, away) = open_claimed(&url, options, node.cluster_id)
        .map_err(|source| StartError::Store { url: url.clone().into(), source: source.into() })?;
    if let Some(error) = away {
        writeln!(out, "the object store is away, offload waits for it: {error}")
            .map_err(StartError::Output)?;
    }
    let cache_bytes = settings.broker.object_cache_bytes;
    let fetch = FetchConfig { cache_bytes, ..FetchConfig::default() };
    let cluster_id = Some(node.cluster_id);
    let config = WorkerConfig { cluster_id, fetch, gives_way, ..WorkerConfig::default() };
    let wake = |shard: u16| -> Wake {
        let switchboard = Arc::clone(&node.switchboard);
        Box::new(move || switchboard.wake(ShardId::new(shard)))
    };
    let wakes: Vec<_> = (0..node.shard_count).map(wake).collect();
    // If nobody listens any more, the process is ending.
    let note = move |line| report.send(Report::Noted(vec![line])).unwrap_or_default();
    Worker::start(store, config, wakes.len(), wakes, note).map_err(StartError::Thread)
}

fn start_shards(
    node: &Arc<Node>,
    data: &DataDir,
    ends: impl Iterator<Item = (ShardListeners, Client)>,
    busy_poll: Duration,
    report: &Sender<Report>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut threads = Vec::new();
    for (number, (listeners, store)) in (0_u16..).zip(ends) {
        let start = ShardStart {
            id: ShardId::new(number),
            node: Arc::clone(node),
            device: Arc::clone(&data.device),
            store,
            listeners,
            busy_poll,
            report: report.clone(),
        };
        let report = report.clone();
        let body = move || {
            let _fatal = FatalPanic;
            let result = shard_thread::run(start);
            // If nobody listens any more, the process is ending.
            let _ = report.send(Report::Stopped { shard: number, result });
        };
        let name = format!("shard-{number}");
        let thread = spawn_pinned(&name, Some(usize::from(number)), body);
        threads.push(thread.map_err(StartError::Thread)?);
    }
    Ok(threads)
}

/// Where the other brokers connect to each shard; nowhere if there are none.
fn bind_to_peers(
    settings: &NodeSettings,
    shard_count: u16,
) -> Result<Vec<Option<TcpListener>>, StartError> {
    let Some(first) = settings.nodes.get(&settings.node_id) else {
        return Ok((0..shard_count).map(|_| None).collect());
    };
    let bind = |shard: u16| {
        let beyond = || listen_error(first, &io::ErrorKind::AddrNotAvailable.into());
        bind_exclusively(&first.port_plus(shard).ok_or_else(beyond)?).map(Some)
    };
    (0..shard_count).map(bind).collect()
}

fn start_dialer(node: &Arc<Node>) {
    if !node.has_peers() {
        return;
    }
    let mut addresses = node.settings.nodes.clone();
    addresses.remove(&node.id);
    let switchboard = Arc::clone(&node.switchboard);
    let wake = move |shard| switchboard.wake(shard);
    node.set_dialer(Dialer::new(addresses, node.shard_count, wake));
}

/// A shard that panics takes the process with it: a broker that lacks a shard would leave its
/// clients waiting, and what is durable is found at the next start.
struct FatalPanic;

impl Drop for FatalPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Calls `stop` at each signal that asks this process to stop, until it says that nobody listens.
pub(crate) fn watch_signals(stop: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    spawn_pinned("signals", None, move || signals.forever().all(|_| stop()))?;
    Ok(())
}

/// The end of standard input is as good as a signal.
fn watch_input(report: Sender<Report>) -> Result<(), StartError> {
    let body = move || {
        // What comes before the end is of no interest, and so is why it ends.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = report.send(Report::Signal);
    };
    spawn_pinned("input", None, body).map_err(StartError::Thread)?;
    Ok(())
}

/// Listening sockets, one for each shard.
struct Listeners {
    /// Shards to use for a new data directory.
    shard_count: u16,
    /// The first one, which makes sure that nobody else has the port.
    first: TcpListener,
}

struct Spread {
    by_shard: Vec<TcpListener>,
    endpoints: Vec<Endpoint>,
    shown: HostPort,
}

impl Listeners {
    fn bind(settings: &NodeSettings) -> Result<Self, StartError> {
        let available = core_count();
        let all = u16::try_from(available).unwrap_or(u16::MAX);
        let shard_count = settings.core_count.unwrap_or(all);
        if usize::from(shard_count) > available {
            return Err(StartError::TooManyCores { asked: shard_count, available });
        }
        Ok(Self { shard_count, first: bind_exclusively(&settings.listen)? })
    }

    /// Gives each shard a socket: on ports of their own, or all on one that the kernel spreads.
    fn spread(self, settings: &NodeSettings, shard_count: u16) -> Result<Spread, StartError> {
        let address = &settings.listen;
        let refused = |source: io::Error| listen_error(address, &source);
        let port = self.first.local_addr().map_err(refused)?.port();
        let shown = HostPort::new(&address.host, port);
        let advertised = settings.advertise.clone().unwrap_or_else(|| shown.clone());
        drop(self.first);
        let mut by_shard = Vec::new();
        let mut endpoints = Vec::new();
        for shard in 0..shard_count {
            let step = if settings.shard_listeners { shard } else { 0 };
            let own = HostPort::new(&address.host, port.saturating_add(step));
            let socket =
                if settings.shard_listeners { bind_exclusively(&own)? } else { bind_shared(&own)? };
            by_shard.push(socket);
            if settings.shard_listeners || shard == 0 {
                endpoints.push(Endpoint {
                    broker: NodeId::new(settings.node_id.get() + i32::from(step)),
                    host: advertised.host.clone(),
                    port: advertised.port.saturating_add(step),
                    shard: settings.shard_listeners.then(|| ShardId::new(shard)),
                });
            }
        }
        Ok(Spread { by_shard, endpoints, shown })
    }
}

/// Binds a port that nobody else listens on. One that is in use is tried again for a second: the
/// kernel closes the ring of a killed broker, and with it its sockets, a moment after the process.
#[expect(clippy::disallowed_methods, reason = "no shard runs yet that this could hold up")]
fn bind_exclusively(address: &HostPort) -> Result<TcpListener, StartError> {
    let bind = || TcpListener::bind((address.host.as_str(), address.port));
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    for _ in 0..BIND_RETRIES {
        match bind() {
            Err(error) if in_use(&error) => std::thread::sleep(BIND_PAUSE),
            result => return result.map_err(|error| listen_error(address, &error)),
        }
    }
    bind().map_err(|error| listen_error(address, &error))
}

/// Binds a port that the shards of this process share (SO_REUSEPORT).
fn bind_shared(address: &HostPort) -> Result<TcpListener, StartError> {
    let bind = || -> io::Result<TcpListener> {
        let mut resolved = (address.host.as_str(), address.port).to_socket_addrs()?;
        let target = resolved.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        set_socket_reuseaddr(&socket, true)?;
        set_socket_reuseport(&socket, true)?;
        rustix::net::bind(&socket, &target)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| listen_error(address, &error))
}

fn listen_error(address: &HostPort, error: &io::Error) -> StartError {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use; stop what uses it, or choose another".to_owned()
        }
        _ => error.to_string(),
    };
    StartError::Listen { address: address.clone(), reason }
}

/// The error for a path of the data directory.
pub(crate) fn data_dir_error(path: &Path, source: io::Error) -> StartError {
    StartError::DataDir { path: path.to_owned(), source }
}
