//! The clients of a run: producers, some of them idempotent with several batches under way, and
//! readers. Each is connected to one broker at a time, and tries another one when that does not
//! lead, does not answer, or is gone.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use kafka_wire::ErrorCode;

use super::FOUNDER_COUNT;
use super::producer::{Heard, Producer, Sent};
use super::report::Report;
use super::settings::Settings;
use crate::kafka::Topic;
use crate::kafka::history::{Fingerprint, History};
use crate::kafka::requests;
use crate::kafka::violation::Violation;
use crate::random::Random;

/// Microseconds after which a client gives up a broker that does not answer.
const PATIENCE: u64 = 3_000_000;

pub(crate) struct Clients {
    partitions: Vec<(Topic, i32)>,
    producers: Vec<Producer>,
    /// First the producers', then one for each partition's reader, then the administrator's.
    connections: Vec<Connection>,
    /// By partition: how far its reader has read.
    positions: Vec<i64>,
    topics_created: bool,
    conn_next: u32,
    /// Brokers that they know of.
    broker_count: usize,
}

struct Connection {
    broker: usize,
    /// Used once in a run; `None`: not connected.
    number: Option<u32>,
    waiting: VecDeque<Waiting>,
    /// When the oldest of them was sent.
    asked_at: u64,
    received: BytesMut,
}

/// What a connection's next reply is to.
enum Waiting {
    Topics,
    ProducerId,
    Produce(Sent),
    Fetch { partition: usize, from: i64 },
}

/// A request, or that a connection begins.
pub(crate) enum Wanted {
    Connection { broker: usize, conn: u32 },
    Request { broker: usize, conn: u32, bytes: Bytes },
}

impl Clients {
    pub(crate) fn new(settings: &Settings, random: &mut Random) -> Self {
        let partitions = settings.partitions();
        let producer =
            |number| Producer::new(number % partitions.len(), random.chance(700), settings);
        let producers: Vec<_> = (0..settings.producer_count).map(producer).collect();
        let count = producers.len() + partitions.len() + 1;
        let connection = |number: usize| Connection {
            broker: number % FOUNDER_COUNT,
            number: None,
            waiting: VecDeque::new(),
            asked_at: 0,
            received: BytesMut::new(),
        };
        Self {
            connections: (0..count).map(connection).collect(),
            positions: vec![0; partitions.len()],
            partitions,
            producers,
            topics_created: false,
            conn_next: 1,
            broker_count: FOUNDER_COUNT,
        }
    }

    /// A broker has joined.
    pub(crate) fn hear_of(&mut self, broker_count: usize) {
        self.broker_count = broker_count;
    }

    /// Numbers of clients' connections are below.
    pub(crate) const CONN_END: u32 = 1 << 30;

    /// What the administrator sends: the topics, until they are there.
    pub(crate) fn administer(&mut self, now: u64, settings: &Settings) -> Option<Wanted> {
        let at = self.connections.len() - 1;
        if self.topics_created || !self.connections[at].waiting.is_empty() {
            return None;
        }
        let request = || (Waiting::Topics, requests::create_topics(&[settings.topic]));
        Some(self.send(at, now, request))
    }

    /// What a producer sends next, if it may. `fresh`: also batches that it has not sent before.
    pub(crate) fn produce(
        &mut self,
        at: usize,
        (now, now_ms): (u64, i64),
        fresh: bool,
        history: &mut History,
        random: &mut Random,
    ) -> Option<Wanted> {
        if !self.topics_created {
            return None;
        }
        if self.connections[at].number.is_none() {
            return Some(self.connect(at));
        }
        let producer = &mut self.producers[at];
        if producer.wants_id() {
            let idle = self.connections[at].waiting.is_empty();
            let request = || (Waiting::ProducerId, requests::init_producer_id());
            return idle.then(|| self.send(at, now, request));
        }
        let sent = producer.next_batch(fresh, now_ms, random)?;
        let partition = producer.partition;
        history.sent(partition, &sent.batch);
        let (topic, index) = self.partitions[partition];
        let request = requests::produce(topic, index, -1, sent.batch.clone());
        Some(self.send(at, now, || (Waiting::Produce(sent), request)))
    }

    /// The next read of a partition's reader, if it is not waiting for one.
    pub(crate) fn follow(
        &mut self,
        partition: usize,
        now: u64,
        random: &mut Random,
    ) -> Option<Wanted> {
        let at = self.producers.len() + partition;
        if !self.connections[at].waiting.is_empty() || !self.topics_created {
            return None;
        }
        let from = self.positions[partition];
        let max_bytes = [1, 20_000, 200_000, 1 << 20][random.index(4)];
        let (topic, index) = self.partitions[partition];
        let request = || {
            let fetch = requests::fetch(topic, index, from, max_bytes);
            (Waiting::Fetch { partition, from }, fetch)
        };
        Some(self.send(at, now, request))
    }

    /// Has everything that was sent an answer?
    pub(crate) fn is_all_answered(&self) -> bool {
        self.producers.iter().all(Producer::is_all_answered)
    }

    /// Begins to read everything again.
    pub(crate) fn rewind(&mut self) {
        self.positions.fill(0);
    }

    pub(crate) fn position(&self, partition: usize) -> i64 {
        self.positions[partition]
    }

    /// A broker is gone, and all connections to it; nobody knows what became of requests.
    pub(crate) fn broker_ended(&mut self, broker: usize, random: &mut Random) {
        for at in 0..self.connections.len() {
            if self.connections[at].broker == broker {
                self.leave(at, random);
            }
        }
    }

    /// Is it a connection that a client has, and did not leave?
    pub(crate) fn owns(&self, conn: u32) -> bool {
        self.place_of(conn).is_some()
    }

    fn place_of(&self, conn: u32) -> Option<usize> {
        self.connections.iter().position(|it| it.number == Some(conn))
    }

    /// A broker did not take a connection, or let it go.
    pub(crate) fn refused(&mut self, conn: u32, random: &mut Random) {
        if let Some(at) = self.place_of(conn) {
            self.leave(at, random);
        }
    }

    /// Connections whose broker does not answer are given up; returns them with their brokers.
    pub(crate) fn lose_patience(&mut self, now: u64, random: &mut Random) -> Vec<(usize, u32)> {
        let mut left = Vec::new();
        for at in 0..self.connections.len() {
            let connection = &self.connections[at];
            if !connection.waiting.is_empty() && connection.asked_at + PATIENCE < now {
                left.extend(connection.number.map(|conn| (connection.broker, conn)));
                self.leave(at, random);
            }
        }
        left
    }

    /// Takes what a connection received; returns the connection's broker if the client leaves it.
    pub(crate) fn received(
        &mut self,
        now: u64,
        conn: u32,
        pieces: &[Bytes],
        history: &mut History,
        (report, random): (&mut Report, &mut Random),
    ) -> Result<Option<usize>, Violation> {
        let Some(at) = self.place_of(conn) else { return Ok(None) };
        if pieces.is_empty() {
            return Err(Violation::Reply { reason: "the connection was closed".to_owned() });
        }
        let connection = &mut self.connections[at];
        connection.asked_at = now;
        pieces.iter().for_each(|piece| connection.received.extend_from_slice(piece));
        let mut leaves = false;
        while let Some(reply) = requests::next_reply(&mut self.connections[at].received) {
            let unasked = || Violation::Reply { reason: "nobody asked for it".to_owned() };
            let waiting = self.connections[at].waiting.pop_front().ok_or_else(unasked)?;
            leaves |= self.answered(at, waiting, reply, history, report)?;
        }
        let broker = self.connections[at].broker;
        // What is under way first: its replies are on this connection.
        let leaves = leaves && self.connections[at].waiting.is_empty();
        if leaves {
            self.leave(at, random);
        }
        Ok(leaves.then_some(broker))
    }

    /// True if another broker is to be asked.
    fn answered(
        &mut self,
        at: usize,
        waiting: Waiting,
        reply: Bytes,
        history: &mut History,
        report: &mut Report,
    ) -> Result<bool, Violation> {
        match waiting {
            Waiting::Topics => {
                let error = requests::created(reply)?;
                self.topics_created |=
                    [ErrorCode::None, ErrorCode::TopicAlreadyExists].contains(&error);
                Ok(!self.topics_created)
            }
            Waiting::ProducerId => {
                let id = requests::producer_id(reply)?;
                self.producers[at].set_id(id);
                Ok(id.is_none())
            }
            Waiting::Produce(sent) => {
                let produced = requests::produced(reply)?;
                let producer = &mut self.producers[at];
                let partition = producer.partition;
                let fingerprint = Fingerprint::of(&sent.batch);
                let count = sent.count.into();
                match producer.answered(sent, produced.error, report)? {
                    Heard::Done => {
                        let base = produced.base_offset;
                        history.acknowledged(partition, fingerprint, base, count)?;
                        Ok(false)
                    }
                    Heard::NotWritten => {
                        history.refused(partition, fingerprint);
                        Ok(true)
                    }
                    Heard::Again => Ok(true),
                }
            }
            Waiting::Fetch { partition, from } => {
                self.fetched(partition, from, reply, history, report)
            }
        }
    }

    fn fetched(
        &mut self,
        partition: usize,
        from: i64,
        reply: Bytes,
        history: &mut History,
        report: &mut Report,
    ) -> Result<bool, Violation> {
        let fetched = requests::fetched(reply)?;
        match fetched.error {
            ErrorCode::None => {}
            ErrorCode::NotLeaderOrFollower | ErrorCode::UnknownTopicOrPartition => {
                report.not_leader += 1;
                return Ok(true);
            }
            // The object store is away, or its answer was damaged.
            ErrorCode::KafkaStorageError => {
                report.reads_failed += 1;
                return Ok(false);
            }
            // One that led, and does not know yet that it does not, may be behind.
            ErrorCode::OffsetOutOfRange if from > 0 => {
                report.reads_of_old_leaders += 1;
                return Ok(true);
            }
            error => {
                let (partition, reason) = (history.name(partition), error.to_string());
                return Err(Violation::Unreadable { partition, offset: from, reason });
            }
        }
        let read = history.read(partition, from, &fetched.records)?;
        report.batches_read += read.batches;
        self.positions[partition] = read.end;
        Ok(false)
    }

    /// The connection is given up; another broker will be asked.
    fn leave(&mut self, at: usize, random: &mut Random) {
        let connection = &mut self.connections[at];
        connection.number = None;
        connection.received.clear();
        let waiting = std::mem::take(&mut connection.waiting);
        let others = self.broker_count - 1;
        connection.broker = (connection.broker + 1 + random.index(others)) % self.broker_count;
        for waiting in waiting {
            if let Waiting::Produce(sent) = waiting {
                self.producers[at].lost(sent);
            }
        }
        if let Some(producer) = self.producers.get_mut(at) {
            producer.disconnected();
        }
    }

    fn connect(&mut self, at: usize) -> Wanted {
        let conn = self.conn_next;
        self.conn_next += 1;
        let connection = &mut self.connections[at];
        connection.number = Some(conn);
        Wanted::Connection { broker: connection.broker, conn }
    }

    fn send(&mut self, at: usize, now: u64, request: impl FnOnce() -> (Waiting, Bytes)) -> Wanted {
        let Some(conn) = self.connections[at].number else { return self.connect(at) };
        let (waiting, bytes) = request();
        let connection = &mut self.connections[at];
        if connection.waiting.is_empty() {
            connection.asked_at = now;
        }
        connection.waiting.push_back(waiting);
        Wanted::Request { broker: connection.broker, conn, bytes }
    }
}
