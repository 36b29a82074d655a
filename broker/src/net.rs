//! Client connections: framing, the order of replies, back-pressure. And what a shard wants done
//! to sockets, of clients and of other brokers.

pub(crate) mod connection;

use bytes::Bytes;
use model::NodeId;
use uring::ConnId;

/// What a shard wants done to sockets. The shard itself does no I/O: the reactor (or a simulator)
/// carries these out after each event.
#[derive(Debug)]
pub(crate) enum NetAction {
    Send {
        conn: ConnId,
        pieces: Vec<Bytes>,
    },
    Pause {
        conn: ConnId,
    },
    Resume {
        conn: ConnId,
    },
    /// Sends what is queued first.
    CloseAfterSend {
        conn: ConnId,
    },
    /// Drops what is queued.
    Close {
        conn: ConnId,
    },
    /// Connects to another broker.
    Dial {
        node: NodeId,
    },
}
