//! Client connections: framing, the order of replies, back-pressure.

pub(crate) mod connection;

use bytes::Bytes;
use uring::ConnId;

/// What a shard wants done to sockets. The shard itself does no I/O: the reactor (or a simulator)
/// carries these out after each event.
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
}
