//! Connections between brokers as TCP makes them: each direction in order, late, sometimes cut off
//! for a while, and broken with what was on the way.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::BROKER_COUNT;
use crate::random::Random;

/// Microseconds from a refused attempt to the word of it, and of one that nobody answers.
const REFUSED_AFTER: u64 = 500;
const UNANSWERED_AFTER: u64 = 1_000_000;

/// What reaches a broker.
#[derive(Debug)]
pub(crate) enum Delivery {
    Bytes(Vec<Bytes>),
    Closed,
    /// The other side connected.
    Accepted,
    /// An attempt to connect to a node is over.
    Dialed {
        node: usize,
        connected: bool,
    },
}

impl Delivery {
    /// Whoever wants a connection, or has one, hears of its end, whatever else is lost.
    fn is_certain(&self) -> bool {
        matches!(self, Self::Dialed { .. } | Self::Closed)
    }
}

/// One end of a connection. Its number is used once in a run.
#[derive(Clone, Copy, Debug)]
struct End {
    node: usize,
    other: u32,
    other_node: usize,
    /// When what was sent last to this end arrives.
    arrives: u64,
}

#[derive(Debug)]
struct Parcel {
    to: usize,
    from: usize,
    conn: u32,
    delivery: Delivery,
}

pub(crate) struct Network {
    ends: BTreeMap<u32, End>,
    /// By time, then in the order in which they were sent.
    parcels: BTreeMap<(u64, u64), Parcel>,
    sent: u64,
    conn_next: u32,
    /// Until when nothing goes from one node to another.
    cut: [[u64; BROKER_COUNT]; BROKER_COUNT],
    delay_max: u64,
    random: Random,
}

impl Network {
    /// `conn_first`: a number above those of all other connections.
    pub(crate) fn new(conn_first: u32, delay_max: u64, random: Random) -> Self {
        Self {
            ends: BTreeMap::new(),
            parcels: BTreeMap::new(),
            sent: 0,
            conn_next: conn_first,
            cut: [[0; BROKER_COUNT]; BROKER_COUNT],
            delay_max,
            random,
        }
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        self.parcels.first_key_value().map(|((at, _), _)| *at)
    }

    /// Does this end exist?
    pub(crate) fn owns(&self, conn: u32) -> bool {
        self.ends.contains_key(&conn)
    }

    /// Nothing goes from `from` to `to` until then.
    pub(crate) fn cut(&mut self, from: usize, to: usize, until: u64) {
        self.cut[from][to] = until;
    }

    pub(crate) fn heal(&mut self) {
        self.cut = Default::default();
    }

    /// A broker sends on its end of a connection.
    pub(crate) fn send(&mut self, now: u64, conn: u32, pieces: Vec<Bytes>) {
        let Some(end) = self.ends.get(&conn).copied() else { return };
        self.post(now, end.other, Delivery::Bytes(pieces));
    }

    /// A broker closes its end: the other one hears of it after all that was sent.
    pub(crate) fn close(&mut self, now: u64, conn: u32) {
        if let Some(end) = self.ends.remove(&conn) {
            self.post(now, end.other, Delivery::Closed);
        }
    }

    /// A broker wants a connection; `listens`: the other one is there.
    pub(crate) fn dial(&mut self, now: u64, from: usize, to: usize, listens: bool) {
        if !listens || self.cut[from][to].max(self.cut[to][from]) > now {
            let after = if listens { UNANSWERED_AFTER } else { REFUSED_AFTER };
            let delivery = Delivery::Dialed { node: to, connected: false };
            let parcel = Parcel { to: from, from, conn: 0, delivery };
            return self.insert(now + after, parcel);
        }
        let (near, far) = (self.conn_next, self.conn_next + 1);
        self.conn_next += 2;
        let end = |node, other, other_node| End { node, other, other_node, arrives: 0 };
        self.ends.insert(near, end(from, far, to));
        self.ends.insert(far, end(to, near, from));
        self.post(now, far, Delivery::Accepted);
        self.post(now, near, Delivery::Dialed { node: to, connected: true });
    }

    /// A node is gone. If its kernel is still there, the others hear so; else not before they are
    /// told by `reset`, and what was on the way from it is lost.
    pub(crate) fn node_ended(&mut self, now: u64, node: usize, kernel_lives: bool) -> Vec<u32> {
        let ends: Vec<_> =
            self.ends.iter().filter(|(_, end)| end.node == node).map(|(conn, _)| *conn).collect();
        self.parcels.retain(|_, it| {
            it.to != node && (kernel_lives || it.from != node || it.delivery.is_certain())
        });
        let mut silent = Vec::new();
        for conn in ends {
            if kernel_lives {
                self.close(now, conn);
            } else if let Some(end) = self.ends.remove(&conn) {
                silent.push(end.other);
            }
        }
        silent
    }

    /// An end whose other one is gone hears of it.
    pub(crate) fn reset(&mut self, now: u64, conn: u32) {
        if self.ends.contains_key(&conn) {
            self.post(now, conn, Delivery::Closed);
        }
    }

    /// All connections of two nodes break, with what is on the way.
    pub(crate) fn break_between(&mut self, now: u64, one: usize, two: usize) {
        let between = |end: &End| [(one, two), (two, one)].contains(&(end.node, end.other_node));
        let ends: Vec<_> =
            self.ends.iter().filter(|(_, end)| between(end)).map(|(conn, _)| *conn).collect();
        self.parcels.retain(|_, it| it.delivery.is_certain() || !ends.contains(&it.conn));
        ends.into_iter().for_each(|conn| self.reset(now, conn));
    }

    /// What arrives now, if anything: at which node, on which connection.
    pub(crate) fn arrival(&mut self, now: u64) -> Option<(usize, u32, Delivery)> {
        while self.next_due().is_some_and(|at| at <= now) {
            let (_, mut parcel) = self.parcels.pop_first()?;
            let until = self.cut[parcel.from][parcel.to];
            if until > now {
                self.insert(until, parcel);
                continue;
            }
            let is_there = self.ends.contains_key(&parcel.conn);
            match &mut parcel.delivery {
                Delivery::Dialed { connected, .. } => *connected &= is_there,
                // The connection broke meanwhile.
                _ if !is_there => continue,
                Delivery::Closed => {
                    self.ends.remove(&parcel.conn);
                }
                _ => {}
            }
            return Some((parcel.to, parcel.conn, parcel.delivery));
        }
        None
    }

    /// Sends to an end, behind all that was sent to it before.
    fn post(&mut self, now: u64, conn: u32, delivery: Delivery) {
        let delay = self.random.between(10, self.delay_max);
        let Some(end) = self.ends.get_mut(&conn) else { return };
        end.arrives = end.arrives.max(now + delay);
        let (at, to, from) = (end.arrives, end.node, end.other_node);
        self.insert(at, Parcel { to, from, conn, delivery });
    }

    fn insert(&mut self, at: u64, parcel: Parcel) {
        self.sent += 1;
        self.parcels.insert((at, self.sent), parcel);
    }
}
