//! Connecting to other brokers takes as long as the network lets it, so that is done by threads of
//! its own: one for each other broker, so that one that is away holds up no other.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
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
    /// By broker: shards that want a connection to it.
    wanted: Vec<(NodeId, Sender<ShardId>)>,
    /// By shard: what became of it.
    done: Vec<Arc<SegQueue<Dialed>>>,
}

/// What became of an attempt to connect.
pub(crate) struct Dialed {
    pub(crate) node: NodeId,
    pub(crate) stream: Result<TcpStream, String>,
}

impl Dialer {
    /// `wake` lets a shard look again.
    pub(crate) fn start(
        peers: &[(NodeId, HostPort)],
        shard_count: u16,
        wake: impl Fn(ShardId) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let done: Vec<_> = (0..shard_count).map(|_| Arc::new(SegQueue::new())).collect();
        let mut wanted = Vec::new();
        for (node, address) in peers {
            let (sender, receiver) = channel::<ShardId>();
            let (node, address) = (*node, address.clone());
            let (done, wake) = (done.clone(), wake.clone());
            let body = move || {
                for shard in receiver {
                    let stream = connect(&address, shard).map_err(|error| error.to_string());
                    done[usize::from(shard.get())].push(Dialed { node, stream });
                    wake(shard);
                }
            };
            spawn_pinned(&format!("dial-{node}"), None, body)?;
            wanted.push((node, sender));
        }
        Ok(Self { wanted, done })
    }

    /// Connects to a broker, for a shard.
    pub(crate) fn dial(&self, shard: ShardId, node: NodeId) {
        if let Some((_, sender)) = self.wanted.iter().find(|(known, _)| *known == node) {
            // The thread ends with the dialer only.
            let _ = sender.send(shard);
        }
    }

    pub(crate) fn next(&self, shard: ShardId) -> Option<Dialed> {
        self.done.get(usize::from(shard.get()))?.pop()
    }

    pub(crate) fn has_news(&self, shard: ShardId) -> bool {
        self.done.get(usize::from(shard.get())).is_some_and(|queue| !queue.is_empty())
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("peers", &self.wanted.len()).finish_non_exhaustive()
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
