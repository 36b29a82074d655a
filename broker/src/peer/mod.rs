//! The other brokers of the cluster, as one shard talks to them: a connection to each, over which
//! it sends, and a connection from each, over which it hears. Synchronous and without I/O, as all
//! of a shard: what is to be done to sockets goes out as [`NetAction`]s.
//!
//! A shard talks to the shard of the same number on each other broker, in order. Losing a message
//! costs time and never safety: raft sends again.

pub(crate) mod dialer;
pub(crate) mod frame;
pub(crate) mod hello;
mod link;
mod secured;
pub(crate) mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use model::NodeId;
use replication::{Heartbeats, Message};
use uring::ConnId;

use self::frame::{Control, Frame, take_frame};
use self::hello::{HELLO_SIZE, Hello, Welcome};
use self::link::{GREETING_TIMEOUT, Heard, Link};
use self::tls::Tls;
use self::tls::credentials::Credentials;
use crate::net::NetAction;
use crate::shard::Now;

/// A broker whose connection works says something several times in it.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Peers {
    /// What this shard says of itself; `to` is filled in for each.
    own: Hello,
    links: BTreeMap<NodeId, Link>,
    inbound: BTreeMap<ConnId, Inbound>,
    /// Of those that were let in: which of its disks each was with the last time.
    incarnations: BTreeMap<NodeId, u32>,
    /// Disks that were replaced: brokers with those are not let in.
    retired: BTreeSet<(NodeId, u32)>,
    /// Brokers that have taken part, and have their first disk still; `None` until that is known.
    on_first_disk: Option<BTreeSet<NodeId>>,
    tls: Tls,
    /// What the operator was told of those that were not let in.
    strangers: BTreeSet<(IpAddr, String)>,
    frame_size_max: usize,
    /// Where heads of messages are encoded, many to an allocation.
    arena: BytesMut,
    actions: Vec<NetAction>,
    events: Vec<PeerEvent>,
    notes: Vec<String>,
}

/// A connection that another broker began.
#[derive(Debug)]
struct Inbound {
    /// Known once it was let in: the node, and which of its processes.
    node: Option<(NodeId, u64)>,
    address: IpAddr,
    /// When it has to have been.
    by: Instant,
    heard_at: Instant,
    buffer: BytesMut,
}

impl Inbound {
    fn deadline(&self) -> Option<Instant> {
        self.node.is_none().then_some(self.by)
    }

    fn is_of(&self, node: NodeId) -> bool {
        self.node.is_some_and(|(it, _)| it == node)
    }
}

/// What a shard hears from another broker.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    Frame {
        from: NodeId,
        frame: Frame,
    },
    /// It was let in; with what its clock says, ms since 1970.
    LetIn {
        node: NodeId,
        unix_ms: i64,
    },
    /// Messages to it go out from now on.
    Up {
        node: NodeId,
    },
    /// The connection to it is lost, and what was under way perhaps.
    Down {
        node: NodeId,
    },
    /// It closed the connection over which it sends: most likely it has stopped.
    Gone {
        node: NodeId,
    },
}

impl Peers {
    /// `nodes`: the other brokers.
    pub(crate) fn new(
        own: Hello,
        nodes: impl IntoIterator<Item = NodeId>,
        frame_size_max: usize,
        now: Instant,
    ) -> Self {
        Self {
            own,
            links: nodes.into_iter().map(|node| (node, Link::new(now))).collect(),
            inbound: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            retired: BTreeSet::new(),
            on_first_disk: None,
            tls: Tls::new(None),
            strangers: BTreeSet::new(),
            frame_size_max,
            arena: BytesMut::new(),
            actions: Vec::new(),
            events: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Has connections carry TLS, if there are credentials for it.
    pub(crate) fn with_tls(self, credentials: Option<Arc<Credentials>>) -> Self {
        Self { tls: Tls::new(credentials), ..self }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let greetings = self.inbound.values().filter_map(Inbound::deadline);
        self.links.values().filter_map(Link::deadline).chain(greetings).min()
    }

    /// Begins connections whose time it is, and gives up those that are not answered.
    pub(crate) fn keep_up(&mut self, now: Instant) {
        self.give_up_late(now);
        for (node, link) in &mut self.links {
            if link.dial_if_due(now) {
                self.actions.push(NetAction::Dial { node: *node });
            }
        }
    }

    /// A [`NetAction::Dial`] is done: connected, or not.
    pub(crate) fn dialed(&mut self, node: NodeId, conn: Result<ConnId, String>, now: Now) {
        let Some(link) = self.links.get_mut(&node) else {
            // It was removed meanwhile.
            return self.actions.extend(conn.ok().map(|conn| NetAction::Close { conn }));
        };
        match conn {
            Ok(conn) => {
                link.connected(conn, now.instant);
                let hello = Hello { to: node, unix_ms: now.unix_ms, ..self.own };
                self.tls.dialed(conn, node);
                self.put(conn, vec![hello.encode().into()]);
            }
            Err(reason) => {
                link.failed(now.instant);
                self.tell(node, &format!("cannot be reached: {reason}"));
            }
        }
    }

    /// Another broker, or somebody who takes this port for something else, connected.
    pub(crate) fn accepted(&mut self, conn: ConnId, address: IpAddr, now: Instant) {
        let by = now + GREETING_TIMEOUT;
        let buffer = BytesMut::new();
        let inbound = Inbound { node: None, address, by, heard_at: now, buffer };
        self.inbound.insert(conn, inbound);
        self.tls.accepted(conn);
    }

    /// Is this a connection between brokers?
    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.inbound.contains_key(&conn) || self.links.values().any(|it| it.conn() == Some(conn))
    }

    /// Bytes arrived on a connection that [`Self::owns`].
    pub(crate) fn received(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        if self.tls.is_on() {
            return self.received_sealed(conn, bytes, now);
        }
        if let Some(inbound) = self.inbound.get_mut(&conn) {
            inbound.buffer.extend_from_slice(bytes);
            return self.take_frames(conn, now);
        }
        self.received_back(conn, bytes, now);
    }

    /// Plain bytes came back over a connection that this side began.
    fn received_back(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let Some((node, link)) = self.link_of(conn) else { return };
        match link.received(bytes, now) {
            Heard::More => {}
            Heard::Up => {
                self.events.push(PeerEvent::Up { node });
                self.tell(node, "connected");
            }
            Heard::Broken(reason) => {
                self.tls.closed(conn);
                self.actions.push(NetAction::Close { conn });
                self.tell(node, &reason);
            }
        }
    }

    /// All that was queued on a connection is sent.
    pub(crate) fn sent(&mut self, conn: ConnId) {
        if let Some((_, link)) = self.link_of(conn) {
            link.sent();
        }
    }

    /// A connection that [`Self::owns`] is gone.
    pub(crate) fn closed(&mut self, conn: ConnId, now: Instant) {
        self.tls.closed(conn);
        if let Some(inbound) = self.inbound.remove(&conn) {
            self.events.extend(inbound.node.map(|(node, _)| PeerEvent::Gone { node }));
            return;
        }
        let Some((node, link)) = self.link_of(conn) else { return };
        let (was_up, answer) = (link.is_up(), link.take_answer());
        link.failed(now);
        if was_up {
            self.events.push(PeerEvent::Down { node });
            self.tell(node, "connection lost");
        } else if let Some(answer) = answer {
            self.tell_unanswered(node, &answer);
        }
    }

    /// Does that broker hear this one?
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.links.get(&node).is_some_and(Link::is_up)
    }

    /// Which of its disks a broker has, as it said last; `None` if it was never heard.
    pub(crate) fn incarnation(&self, node: NodeId) -> Option<u32> {
        self.incarnations.get(&node).copied()
    }

    /// Those that have taken part with their first disk, this one perhaps: an empty one in its
    /// place has forgotten what it promised.
    pub(crate) fn note_on_first_disk(&mut self, nodes: BTreeSet<NodeId>) {
        self.own.is_new &= !nodes.contains(&self.own.from);
        self.on_first_disk = Some(nodes);
    }

    /// See `SimBroker`.
    #[cfg(feature = "simulation")]
    pub(crate) fn greet_as_old(&mut self) {
        self.own.is_new = false;
    }

    /// These disks were replaced: who has one of them is heard no more.
    pub(crate) fn retire(&mut self, retired: BTreeSet<(NodeId, u32)>) {
        self.retired = retired;
        let is_retired = |(node, _)| Some((node, *self.incarnations.get(&node)?));
        let gone = |it: &&Inbound| {
            it.node.and_then(is_retired).is_some_and(|disk| self.retired.contains(&disk))
        };
        let conns = self.inbound.iter().filter(|(_, it)| gone(it)).map(|(conn, _)| *conn);
        conns.collect::<Vec<_>>().into_iter().for_each(|conn| self.drop_inbound(conn));
    }

    /// The other brokers of the cluster.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.links.keys().copied()
    }

    /// Is this broker the only one?
    pub(crate) fn is_alone(&self) -> bool {
        self.links.is_empty()
    }

    /// The other brokers of the cluster are these from now on.
    pub(crate) fn meet(&mut self, nodes: &BTreeSet<NodeId>, now: Instant) {
        for node in nodes {
            self.links.entry(*node).or_insert_with(|| Link::new(now));
        }
        let gone: Vec<_> = self.links.keys().filter(|it| !nodes.contains(it)).copied().collect();
        for node in gone {
            self.notes.push(format!("shard {}, node {node}: it was removed", self.own.shard));
            let outbound = self.links.remove(&node).and_then(|link| link.conn());
            let inbound = self.inbound.iter().find(|(_, it)| it.is_of(node));
            let inbound = inbound.map(|(conn, _)| *conn);
            inbound.into_iter().for_each(|conn| self.drop_inbound(conn));
            if let Some(conn) = outbound {
                self.tls.closed(conn);
                self.actions.push(NetAction::Close { conn });
            }
            self.events.push(PeerEvent::Down { node });
        }
    }

    /// Does any?
    pub(crate) fn any_up(&self) -> bool {
        self.links.values().any(Link::is_up)
    }

    /// Sends a message of raft; false if it is lost, since the broker is away or takes nothing.
    pub(crate) fn send(&mut self, node: NodeId, message: &Message) -> bool {
        let pieces = message.encode(&mut self.arena);
        self.send_pieces(node, pieces)
    }

    /// Sends the heartbeats of all groups, and the answers to those of the other broker.
    pub(crate) fn send_heartbeats(&mut self, node: NodeId, heartbeats: &Heartbeats) -> bool {
        let frame = heartbeats.encode(&mut self.arena);
        self.send_pieces(node, vec![frame])
    }

    pub(crate) fn send_control(&mut self, node: NodeId, control: &Control) -> bool {
        self.send_pieces(node, vec![control.encode()])
    }

    fn send_pieces(&mut self, node: NodeId, pieces: Vec<Bytes>) -> bool {
        let conn = self.links.get_mut(&node).and_then(|link| link.admit(&pieces));
        if let Some(conn) = conn {
            self.put(conn, pieces);
        }
        conn.is_some()
    }

    /// Sends pieces on a connection, sealed if it has TLS.
    fn put(&mut self, conn: ConnId, pieces: Vec<Bytes>) {
        let pieces = self.tls.seal(conn, pieces);
        self.actions.push(NetAction::Send { conn, pieces });
    }

    pub(crate) fn take_actions(&mut self) -> Vec<NetAction> {
        std::mem::take(&mut self.actions)
    }

    /// Is there anything among the events beside words of brokers that they are there?
    pub(crate) fn hears_work(&self) -> bool {
        let is_work = |event: &PeerEvent| match event {
            PeerEvent::Frame { frame: Frame::Raft(_), .. } => true,
            PeerEvent::Frame { frame: Frame::Heartbeats(_), .. } => false,
            PeerEvent::Frame { frame: Frame::Control(control), .. } => !matches!(
                control,
                Control::WalRoom { .. } | Control::MetadataStored { .. } | Control::Added { .. }
            ),
            PeerEvent::LetIn { .. }
            | PeerEvent::Up { .. }
            | PeerEvent::Gone { .. }
            | PeerEvent::Down { .. } => true,
        };
        self.events.iter().any(is_work)
    }

    pub(crate) fn take_events(&mut self) -> Vec<PeerEvent> {
        std::mem::take(&mut self.events)
    }

    /// Lines for the operator.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn link_of(&mut self, conn: ConnId) -> Option<(NodeId, &mut Link)> {
        let found = self.links.iter_mut().find(|(_, link)| link.conn() == Some(conn));
        found.map(|(node, link)| (*node, link))
    }

    fn take_frames(&mut self, conn: ConnId, now: Instant) {
        let Some(inbound) = self.inbound.get_mut(&conn) else { return };
        inbound.heard_at = now;
        let Some((from, _)) = inbound.node else {
            if inbound.buffer.len() < HELLO_SIZE {
                return;
            }
            let (address, bytes) = (inbound.address, inbound.buffer.split_to(HELLO_SIZE));
            let Ok(hello) = Hello::decode(&bytes) else {
                self.tell_of_no_greeting(address, &bytes);
                return self.drop_inbound(conn);
            };
            return self.let_in(conn, &hello, now);
        };
        // Who has forgotten what it promised must not make up for it from what it is told: whoever
        // knows better does not let it in.
        let is_heard = !self.own.is_new || self.links.get(&from).is_some_and(Link::is_up);
        loop {
            match take_frame(&mut inbound.buffer, self.frame_size_max) {
                Ok(Some(_)) if !is_heard => {}
                Ok(Some(frame)) => self.events.push(PeerEvent::Frame { from, frame }),
                Ok(None) => return,
                Err(error) => {
                    self.notes.push(format!("node {from}: its connection is closed: {error}"));
                    return self.drop_inbound(conn);
                }
            }
        }
    }

    fn let_in(&mut self, conn: ConnId, hello: &Hello, now: Instant) {
        let verdict = self.verdict(conn, hello, now);
        self.put(conn, vec![verdict.encode().into()]);
        if let Welcome::Refused(refusal) = verdict {
            if let Some(inbound) = self.inbound.remove(&conn) {
                self.tell_of_refused(inbound.address, hello, refusal);
            }
            self.tls.closed(conn);
            return self.actions.push(NetAction::CloseAfterSend { conn });
        }
        // One that it had before is dead, whether this side has heard of that or not.
        let older = self.inbound.iter().find(|(_, it)| it.is_of(hello.from));
        if let Some(older) = older.map(|(conn, _)| *conn) {
            self.drop_inbound(older);
        }
        if let Some(inbound) = self.inbound.get_mut(&conn) {
            inbound.node = Some((hello.from, hello.process));
            self.incarnations.insert(hello.from, hello.incarnation);
            self.strangers.clear();
            let (node, unix_ms) = (hello.from, hello.unix_ms);
            self.events.push(PeerEvent::LetIn { node, unix_ms });
            self.take_frames(conn, now);
        }
    }

    /// Is another process heard that says it is the same node? One that is silent has lost its
    /// connection, and this side has not heard of that.
    fn is_running(&self, hello: &Hello, now: Instant) -> bool {
        self.inbound.values().any(|it| {
            it.node.is_some_and(|(node, process)| node == hello.from && process != hello.process)
                && now.saturating_duration_since(it.heard_at) < SILENCE_MAX
        })
    }

    fn drop_inbound(&mut self, conn: ConnId) {
        self.inbound.remove(&conn);
        self.tls.closed(conn);
        self.actions.push(NetAction::Close { conn });
    }

    /// Tells the operator of a link, once for each new state.
    fn tell(&mut self, node: NodeId, what: &str) {
        if let Some(link) = self.links.get_mut(&node)
            && link.is_news(what)
        {
            self.notes.push(format!("shard {}, node {node}: {what}", self.own.shard));
        }
    }
}

#[cfg(test)]
mod tests;
