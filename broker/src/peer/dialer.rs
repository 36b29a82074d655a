//! Connecting to other brokers takes as long as the network lets it, so that is done by threads of
//! its own: one for each other broker, so that one that is away holds up no other.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use crossbeam::queue::SegQueue;
use model::{NodeId, ShardId};
use uring::spawn_pinned;

use crate::config::HostPort;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After so long without a word from the other kernel a connection is lost. TCP alone would wait
/// longer and longer, and not be back when the network is.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(1);

/// Connects for the shards of one broker. A shard asks for one connection to a broker at a time.
pub(crate) struct Dialer {
    /// No shard waits for another one long: a shard dials once a second, and only who is away.
    peers: Mutex<Peers>,
    /// By shard: what became of it.
    done: Vec<Arc<SegQueue<Dialed>>>,
    wake: Arc<dyn Fn(ShardId) + Send + Sync>,
}

/// The other brokers.
#[derive(Default)]
struct Peers {
    addresses: BTreeMap<NodeId, HostPort>,
    /// By broker that was ever dialed: shards that want a connection to an address of it.
    wanted: BTreeMap<NodeId, Sender<(ShardId, HostPort)>>,
}

/// What became of an attempt to connect.
pub(crate) struct Dialed {
    pub(crate) node: NodeId,
    pub(crate) stream: Result<TcpStream, String>,
}

impl Dialer {
    /// `addresses`: where the first shards of the other brokers listen to this one. `wake` lets a
    /// shard look again.
    pub(crate) fn new(
        addresses: BTreeMap<NodeId, HostPort>,
        shard_count: u16,
        wake: impl Fn(ShardId) + Send + Sync + 'static,
    ) -> Self {
        Self {
            peers: Mutex::new(Peers { addresses, ..Peers::default() }),
            done: (0..shard_count).map(|_| Arc::new(SegQueue::new())).collect(),
            wake: Arc::new(wake),
        }
    }

    /// Notes where a broker listens that was added to the cluster, whatever was known before.
    pub(crate) fn meet(&self, node: NodeId, address: &HostPort) {
        let mut peers = self.peers();
        if peers.addresses.get(&node) != Some(address) {
            peers.addresses.insert(node, address.clone());
        }
    }

    /// Connects to a broker, for a shard.
    pub(crate) fn dial(&self, shard: ShardId, node: NodeId) {
        let mut peers = self.peers();
        let address = peers.addresses.get(&node).cloned();
        let wanted = match peers.wanted.get(&node) {
            Some(wanted) => Ok(wanted.clone()),
            None => self.start_thread(node),
        };
        let asked = address.ok_or_else(|| "its address is not known".to_owned()).and_then(|at| {
            let wanted = wanted.map_err(|error| error.to_string())?;
            peers.wanted.insert(node, wanted.clone());
            // The thread ends with the dialer only.
            let _ = wanted.send((shard, at));
            Ok(())
        });
        if let Err(reason) = asked
            && let Some(done) = self.done.get(usize::from(shard.get()))
        {
            done.push(Dialed { node, stream: Err(reason) });
            (self.wake)(shard);
        }
    }

    pub(crate) fn next(&self, shard: ShardId) -> Option<Dialed> {
        self.done.get(usize::from(shard.get()))?.pop()
    }

    pub(crate) fn has_news(&self, shard: ShardId) -> bool {
        self.done.get(usize::from(shard.get())).is_some_and(|queue| !queue.is_empty())
    }

    fn start_thread(&self, node: NodeId) -> io::Result<Sender<(ShardId, HostPort)>> {
        let (sender, receiver) = channel::<(ShardId, HostPort)>();
        let (done, wake) = (self.done.clone(), Arc::clone(&self.wake));
        let body = move || {
            for (shard, address) in receiver {
                let stream = connect(&address, shard).map_err(|error| error.to_string());
                done[usize::from(shard.get())].push(Dialed { node, stream });
                wake(shard);
            }
        };
        spawn_pinned(&format!("dial-{node}"), None, body)?;
        Ok(sender)
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// A broker's shards listen on ports of their own, one after the other.
fn connect(address: &HostPort, shard: ShardId) -> io::Result<TcpStream> {
    let own = address.port_plus(shard.get()).ok_or(io::ErrorKind::InvalidInput)?;
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for target in (own.host.as_str(), own.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) {
            Ok(stream) => {
                let most = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
                rustix::net::sockopt::set_tcp_user_timeout(&stream, most)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
