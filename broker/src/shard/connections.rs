//! The client connections that a shard accepted: bytes in, requests out to `api`, replies back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kafka_wire::frame::FrameLimits;
use kafka_wire::{RequestHeader, Response};
use uring::ConnId;

use super::Shard;
use super::call::ReplyTo;
use crate::api;
use crate::metrics::Metric;
use crate::net::NetAction;
use crate::net::connection::{Connection, Reply};

/// Replies that a client has not taken; past that its requests are not read.
const UNSENT_MAX: usize = 8 << 20;

/// Connections by id, and what all of them together hold in memory.
pub(crate) struct Connections {
    open: BTreeMap<ConnId, Connection>,
    /// Bytes of requests received and not answered.
    request_bytes: usize,
    request_count: usize,
    request_bytes_max: usize,
    /// When muted connections are to be read again.
    mutes: Vec<(Instant, ConnId)>,
    /// Connections that wait until others' requests are answered and leave memory.
    starved: Vec<ConnId>,
}

impl Connections {
    pub(crate) fn new(request_bytes_max: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            request_bytes: 0,
            request_count: 0,
            request_bytes_max,
            mutes: Vec::new(),
            starved: Vec::new(),
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.mutes.iter().map(|(until, _)| *until).min()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Requests received and not answered, of all connections.
    pub(crate) fn request_count(&self) -> usize {
        self.request_count
    }

    pub(crate) fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    /// Connections without an open request that sent nothing since `since`; none without a time.
    pub(crate) fn idle_since(&self, since: Option<Instant>) -> Vec<ConnId> {
        let Some(since) = since else { return Vec::new() };
        let idle = |found: &(&ConnId, &Connection)| found.1.is_idle_since(since);
        self.open.iter().filter(idle).map(|(conn, _)| *conn).collect()
    }

    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.open.keys().copied().collect()
    }
}

impl Shard {
    /// A client connected.
    pub(crate) fn accepted(&mut self, conn: ConnId, peer: IpAddr) {
        let connection = Connection::new(self.frame_limits(), peer, self.now.instant);
        self.connections.open.insert(conn, connection);
        self.metrics.add(Metric::ConnectionsAccepted, 1);
        self.metrics.set(Metric::ConnectionsOpen, self.connections.len() as u64);
    }

    /// The host that a connection comes from, as groups show their members ("/" and the address).
    pub(crate) fn client_host(&self, conn: ConnId) -> String {
        let peer = self.connections.open.get(&conn).map(Connection::peer);
        peer.map_or_else(String::new, |peer| format!("/{peer}"))
    }

    /// A socket of a client or of another broker is gone.
    pub(crate) fn closed(&mut self, conn: ConnId) {
        if self.peers.owns(conn) {
            return self.peers.closed(conn, self.now.instant);
        }
        if let Some(connection) = self.connections.open.remove(&conn) {
            self.connections.request_bytes -= connection.open_bytes();
            self.connections.request_count -= connection.open_count();
        }
        self.unsent.remove(&conn);
        self.metrics.set(Metric::ConnectionsOpen, self.connections.len() as u64);
    }

    /// Bytes arrived from a client or another broker. Tells whether somebody waits for what comes
    /// of it.
    pub(crate) fn received(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        if self.peers.owns(conn) {
            self.peers.received(conn, bytes, self.now.instant);
            return self.peers.hears_work();
        }
        self.metrics.add(Metric::RequestBytes, bytes.len() as u64);
        let Some(connection) = self.connections.open.get_mut(&conn) else { return false };
        connection.received(bytes, self.now.instant);
        self.serve_frames(conn);
        true
    }

    /// All is sent that was queued for a client or another broker. Tells whether a client can be
    /// served again that had not taken its replies.
    pub(crate) fn sent(&mut self, conn: ConnId) -> bool {
        if self.peers.owns(conn) {
            self.peers.sent(conn);
            return false;
        }
        let waited = self.unsent.remove(&conn).is_some_and(|bytes| bytes >= UNSENT_MAX);
        if waited {
            self.serve_frames(conn);
        }
        waited
    }

    /// Serves whole frames until one is missing or the connection has to wait.
    fn serve_frames(&mut self, conn: ConnId) {
        loop {
            let full = self.connections.request_bytes >= self.connections.request_bytes_max;
            let unsent = self.unsent.get(&conn).copied().unwrap_or_default();
            let Some(connection) = self.connections.open.get_mut(&conn) else { return };
            if full {
                self.connections.starved.push(conn);
                break;
            }
            if unsent >= UNSENT_MAX {
                break;
            }
            let frame = match connection.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return self.refuse(conn),
            };
            let size = frame.len();
            let sequence = connection.open_reply(size);
            self.connections.request_bytes += size;
            self.connections.request_count += 1;
            self.metrics.add(Metric::Requests, 1);
            let reply_to = ReplyTo { conn, sequence };
            match kafka_wire::request::decode(frame) {
                Ok((header, request)) => api::serve(self, reply_to, header, request),
                Err(_) => return self.refuse(conn),
            }
        }
        self.adjust_reading(conn);
    }

    /// Answers a client's request.
    pub(crate) fn respond(
        &mut self,
        reply_to: ReplyTo,
        header: &RequestHeader,
        response: Response,
    ) {
        match kafka_wire::response::encode(header, response) {
            Ok(pieces) => self.reply(reply_to, pieces),
            // Our own response does not fit its version: nothing sensible can be sent.
            Err(_) => self.refuse(reply_to.conn),
        }
    }

    /// Gives a request's place its reply; an empty one (`acks=0`) sends nothing.
    pub(crate) fn reply(&mut self, reply_to: ReplyTo, reply: Reply) {
        let Some(connection) = self.connections.open.get_mut(&reply_to.conn) else { return };
        connection.complete(reply_to.sequence, reply);
        let mut pieces = Vec::new();
        while let Some((reply, request_size)) = connection.next_reply() {
            self.connections.request_bytes -= request_size;
            self.connections.request_count -= 1;
            // Mostly there is one, and it goes as it is.
            if pieces.is_empty() { pieces = reply } else { pieces.extend(reply) }
        }
        if !pieces.is_empty() {
            let size: usize = pieces.iter().map(bytes::Bytes::len).sum();
            *self.unsent.entry(reply_to.conn).or_default() += size;
            self.actions.push(NetAction::Send { conn: reply_to.conn, pieces });
        }
        self.unblocked.push(reply_to.conn);
        if self.connections.request_bytes < self.connections.request_bytes_max {
            self.unblocked.append(&mut self.connections.starved);
        }
    }

    /// Serves what connections could not go on with before a reply freed their pipeline; false if
    /// there was none.
    pub(crate) fn serve_unblocked(&mut self) -> bool {
        let unblocked = std::mem::take(&mut self.unblocked);
        for conn in &unblocked {
            self.serve_frames(*conn);
        }
        !unblocked.is_empty()
    }

    /// Holds a client back: its socket is not read for `throttle_ms` (KIP-219).
    pub(crate) fn mute(&mut self, conn: ConnId, throttle_ms: i32) {
        let Ok(wait) = u64::try_from(throttle_ms) else { return };
        let until = self.now.instant + Duration::from_millis(wait);
        if let Some(connection) = self.connections.open.get_mut(&conn) {
            connection.mute(until);
            self.connections.mutes.push((until, conn));
            self.metrics.add(Metric::Throttles, 1);
        }
    }

    /// Reads again from connections whose mute is over.
    pub(crate) fn end_mutes(&mut self) {
        let now = self.now.instant;
        let over: Vec<_> =
            self.connections.mutes.extract_if(.., |(until, _)| *until <= now).collect();
        for (_, conn) in over {
            if self.connections.open.get_mut(&conn).is_some_and(|found| found.unmute(now)) {
                self.serve_frames(conn);
            }
        }
    }

    /// Closes a connection whose bytes are not a request that is served (Kafka does the same).
    pub(crate) fn refuse(&mut self, conn: ConnId) {
        self.metrics.add(Metric::ConnectionsRefused, 1);
        self.actions.push(NetAction::CloseAfterSend { conn });
        self.closed(conn);
    }

    fn frame_limits(&self) -> FrameLimits {
        let settings = &self.node.settings.broker;
        FrameLimits {
            produce_max: settings.socket_request_bytes_max as usize,
            other_max: settings.request_bytes_max as usize,
        }
    }

    fn adjust_reading(&mut self, conn: ConnId) {
        let full = self.connections.request_bytes >= self.connections.request_bytes_max;
        let unsent = self.unsent.get(&conn).copied().unwrap_or_default();
        let Some(connection) = self.connections.open.get_mut(&conn) else { return };
        let pause = full || !connection.wants_input(unsent, UNSENT_MAX);
        if connection.set_paused(pause) {
            let action = if pause { NetAction::Pause { conn } } else { NetAction::Resume { conn } };
            self.actions.push(action);
        }
    }
}
