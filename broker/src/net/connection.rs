//! One client connection: requests in, replies out in the order of the requests.
//!
//! Clients pipeline and match replies by their order (Kafka's protocol guide, "Network"), while
//! requests finish in any order: a reply waits here until all before it are complete.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use kafka_wire::frame::{FrameError, FrameLimits, FrameReader};

/// Requests that a connection may have under way; more stay unread in its socket. Clients have 5 by
/// default (Java's `max.in.flight.requests.per.connection`), librdkafka up to 1,000,000.
const PIPELINE_LENGTH_MAX: usize = 64;

/// The encoded pieces of one reply, written to the socket without being joined.
pub(crate) type Reply = Vec<Bytes>;

/// What a client is on the other side of a socket.
pub(crate) struct Connection {
    peer: IpAddr,
    /// When bytes last arrived.
    heard: Instant,
    reader: FrameReader,
    /// Sequence number of the oldest request without a sent reply.
    first_open: u64,
    /// One place for each open request; filled when its reply is ready before its turn.
    replies: VecDeque<Option<Reply>>,
    /// Bytes of the frames whose requests are open.
    open_bytes: VecDeque<usize>,
    /// Not read from until then (KIP-219).
    muted_until: Option<Instant>,
    paused: bool,
}

impl Connection {
    pub(crate) fn new(limits: FrameLimits, peer: IpAddr, now: Instant) -> Self {
        Self {
            peer,
            heard: now,
            reader: FrameReader::new(limits),
            first_open: 0,
            replies: VecDeque::new(),
            open_bytes: VecDeque::new(),
            muted_until: None,
            paused: false,
        }
    }

    /// Where the client is.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Has the client no open request, and has it sent nothing since then?
    pub(crate) fn is_idle_since(&self, since: Instant) -> bool {
        self.replies.is_empty() && self.heard < since
    }

    /// Takes in bytes from the socket.
    pub(crate) fn received(&mut self, bytes: &[u8], now: Instant) {
        self.heard = now;
        self.reader.push(bytes);
    }

    /// The next whole request, if one is there and the pipeline has room.
    ///
    /// # Errors
    ///
    /// The bytes cannot be a frame that is served: the connection has to be closed.
    pub(crate) fn next_frame(&mut self) -> Result<Option<BytesMut>, FrameError> {
        if self.replies.len() >= PIPELINE_LENGTH_MAX || self.muted_until.is_some() {
            return Ok(None);
        }
        self.reader.next_frame()
    }

    /// Opens the place for a request's reply and returns its number.
    pub(crate) fn open_reply(&mut self, frame_size: usize) -> u64 {
        self.replies.push_back(None);
        self.open_bytes.push_back(frame_size);
        self.first_open + self.replies.len() as u64 - 1
    }

    /// Fills a request's place. An empty reply (`acks=0`) closes its place and sends nothing.
    pub(crate) fn complete(&mut self, sequence: u64, reply: Reply) {
        let position = usize::try_from(sequence - self.first_open).expect("a pipeline is short");
        let place = self.replies.get_mut(position).expect("a reply belongs to an open request");
        assert!(place.is_none(), "a request is answered once");
        *place = Some(reply);
    }

    /// The next reply whose turn it is, with the size of the request that it answers.
    pub(crate) fn next_reply(&mut self) -> Option<(Reply, usize)> {
        let reply = self.replies.front_mut()?.take()?;
        self.replies.pop_front();
        self.first_open += 1;
        Some((reply, self.open_bytes.pop_front().unwrap_or_default()))
    }

    /// Bytes of requests that are not answered; for the shard's memory account at close.
    pub(crate) fn open_bytes(&self) -> usize {
        self.open_bytes.iter().sum()
    }

    pub(crate) fn open_count(&self) -> usize {
        self.replies.len()
    }

    /// Stops reading until `until`; a later mute is not shortened.
    pub(crate) fn mute(&mut self, until: Instant) {
        self.muted_until = self.muted_until.max(Some(until));
    }

    /// Ends a mute that is over by now; true if there was one.
    pub(crate) fn unmute(&mut self, now: Instant) -> bool {
        let over = self.muted_until.is_some_and(|until| until <= now);
        if over {
            self.muted_until = None;
        }
        over
    }

    /// Should the socket be read? No while the pipeline is full, muted, or the client does not take
    /// its replies (`unsent` bytes of them are queued).
    pub(crate) fn wants_input(&self, unsent: usize, unsent_max: usize) -> bool {
        self.replies.len() < PIPELINE_LENGTH_MAX
            && self.muted_until.is_none()
            && unsent < unsent_max
    }

    /// Records whether the socket is read; returns true if that is a change.
    pub(crate) fn set_paused(&mut self, paused: bool) -> bool {
        std::mem::replace(&mut self.paused, paused) != paused
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn now() -> Instant {
        Instant::now()
    }

    fn connection() -> Connection {
        Connection::new(FrameLimits::default(), Ipv4Addr::LOCALHOST.into(), now())
    }

    fn reply(byte: u8) -> Reply {
        vec![Bytes::copy_from_slice(&[byte])]
    }

    #[test]
    fn replies_leave_in_the_order_of_requests() {
        let mut connection = connection();
        let places: Vec<_> = (0..3).map(|_| connection.open_reply(10)).collect();
        connection.complete(places[2], reply(2));
        assert!(connection.next_reply().is_none());
        connection.complete(places[0], reply(0));
        assert_eq!(connection.next_reply(), Some((reply(0), 10)));
        assert!(connection.next_reply().is_none());
        connection.complete(places[1], reply(1));
        assert_eq!(connection.next_reply(), Some((reply(1), 10)));
        assert_eq!(connection.next_reply(), Some((reply(2), 10)));
        assert_eq!(connection.open_count(), 0);
    }

    #[test]
    fn a_connection_with_an_open_request_is_not_idle() {
        let mut connection = connection();
        let later = connection.heard + std::time::Duration::from_secs(1);
        assert!(connection.is_idle_since(later));
        assert!(!connection.is_idle_since(connection.heard));
        connection.open_reply(10);
        assert!(!connection.is_idle_since(later));
    }

    #[test]
    fn full_pipeline_leaves_frames_unread() {
        let mut connection = connection();
        let frame = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 255, 255];
        for _ in 0..PIPELINE_LENGTH_MAX {
            connection.open_reply(0);
        }
        connection.received(&frame, now());
        assert_eq!(connection.next_frame().unwrap(), None);
        assert!(!connection.wants_input(0, 1));
        connection.complete(0, Vec::new());
        connection.next_reply();
        assert!(connection.next_frame().unwrap().is_some());
    }
}
