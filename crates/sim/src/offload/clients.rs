//! The clients of a run: producers, some of them idempotent, and readers. Each has a connection of
//! its own, on which replies come in the order of requests.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use kafka_wire::ErrorCode;
use kafka_wire::records::RecordBatchBuilder;

use super::report::Report;
use super::settings::Settings;
use crate::kafka::Topic;
use crate::kafka::history::{Fingerprint, History};
use crate::kafka::requests;
use crate::kafka::violation::Violation;
use crate::random::Random;

/// Batches of a plain producer that are not answered at most.
const IN_FLIGHT_MAX: usize = 4;
const RECORDS_MAX: u64 = 5;

pub(crate) struct Clients {
    partitions: Vec<(Topic, i32)>,
    producers: Vec<Producer>,
    /// By connection: first the producers', then one for each partition's reader, then the one
    /// that reads here and there, then the administrator's.
    connections: Vec<Connection>,
    /// By partition: how far its reader has read.
    positions: Vec<i64>,
    record_size_max: u64,
    topics_created: bool,
    batch_next: u64,
}

#[derive(Default)]
struct Connection {
    /// The broker never sees a number twice.
    number: u32,
    waiting: VecDeque<Waiting>,
    received: BytesMut,
}

struct Producer {
    partition: usize,
    acks: i16,
    is_idempotent: bool,
    /// Id and epoch.
    id: Option<(i64, i16)>,
    sequence: i32,
    /// An idempotent batch that has to be sent again until it is acknowledged.
    unanswered: Option<Sent>,
}

#[derive(Clone)]
struct Sent {
    batch: Bytes,
    count: i32,
    /// It may be in the log: an attempt got no answer.
    is_uncertain: bool,
}

/// What a connection's next reply is to.
enum Waiting {
    Topics,
    ProducerId,
    Produce(Sent),
    Fetch(Fetch),
    Trim { partition: usize },
}

#[derive(Clone, Copy)]
struct Fetch {
    partition: usize,
    from: i64,
    /// Known when it was asked: what the reply says is not less.
    high_watermark: i64,
    follows: bool,
}

impl Clients {
    pub(crate) fn new(settings: &Settings, random: &mut Random) -> Self {
        let partitions = settings.partitions();
        let producer = |number: usize| {
            let is_idempotent = random.chance(500);
            let acks = if is_idempotent { -1 } else { [-1, -1, 1, 0][random.index(4)] };
            let partition = number % partitions.len();
            Producer { partition, acks, is_idempotent, id: None, sequence: 0, unanswered: None }
        };
        let producers: Vec<_> = (0..settings.producer_count).map(producer).collect();
        let count = producers.len() + partitions.len() + 2;
        Self {
            connections: (0..count).map(Connection::new).collect(),
            positions: vec![0; partitions.len()],
            partitions,
            producers,
            record_size_max: settings.record_size_max,
            topics_created: false,
            batch_next: 0,
        }
    }

    /// The numbers of all connections.
    pub(crate) fn connections(&self) -> impl Iterator<Item = u32> {
        self.connections.iter().map(|connection| connection.number)
    }

    /// The broker is gone, and all connections with it: nobody knows what became of requests.
    pub(crate) fn disconnected(&mut self) {
        let count = self.producers.len();
        for (at, connection) in self.connections.iter_mut().enumerate() {
            for waiting in std::mem::take(&mut connection.waiting) {
                if let Waiting::Produce(sent) = waiting
                    && at < count
                    && self.producers[at].is_idempotent
                {
                    self.producers[at].unanswered = Some(Sent { is_uncertain: true, ..sent });
                }
            }
            connection.received.clear();
        }
    }

    /// The broker closed a connection: its client opens another one.
    pub(crate) fn reconnect(&mut self, conn: u32) -> Option<u32> {
        let next = self.connections.iter().map(|connection| connection.number).max()? + 1;
        let closed = self.connections.iter_mut().find(|connection| connection.number == conn)?;
        *closed = Connection { number: next, ..Connection::default() };
        Some(next)
    }

    /// What the administrator sends to a broker that has just started: the topics, if need be.
    pub(crate) fn administer(&mut self, settings: &Settings) -> Option<(u32, Bytes)> {
        let at = self.connections.len() - 1;
        if self.topics_created || !self.connections[at].waiting.is_empty() {
            return None;
        }
        Some(self.send(at, Waiting::Topics, requests::create_topics(&settings.topics)))
    }

    /// What a producer sends next, if it may.
    pub(crate) fn produce(
        &mut self,
        at: usize,
        now_ms: i64,
        history: &mut History,
        random: &mut Random,
    ) -> Option<(u32, Bytes)> {
        let in_flight = self.connections[at].waiting.len();
        let producer = &self.producers[at];
        let most = if producer.is_idempotent { 1 } else { IN_FLIGHT_MAX };
        if in_flight >= most || !self.topics_created {
            return None;
        }
        if producer.is_idempotent && producer.id.is_none() {
            return Some(self.send(at, Waiting::ProducerId, requests::init_producer_id()));
        }
        let again = self.producers[at].unanswered.take();
        let sent = again.unwrap_or_else(|| self.new_batch(at, now_ms, random));
        let producer = &self.producers[at];
        let (partition, acks) = (producer.partition, producer.acks);
        history.sent(partition, &sent.batch);
        let (topic, index) = self.partitions[partition];
        let request = requests::produce(topic, index, acks, sent.batch.clone());
        if acks == 0 {
            return Some((self.connections[at].number, request));
        }
        Some(self.send(at, Waiting::Produce(sent), request))
    }

    fn new_batch(&mut self, at: usize, now_ms: i64, random: &mut Random) -> Sent {
        let producer = &self.producers[at];
        let mut builder = RecordBatchBuilder::new();
        if let Some((id, epoch)) = producer.id {
            builder = builder.producer(id, epoch, producer.sequence);
        }
        self.batch_next += 1;
        for _ in 0..random.between(1, RECORDS_MAX + 1) {
            let size = usize::try_from(random.below(self.record_size_max)).expect("small");
            let mut value = vec![0; size];
            value.chunks_mut(8).for_each(|chunk| {
                chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
            });
            builder.append(now_ms, Some(&self.batch_next.to_le_bytes()), Some(&value), &[]);
        }
        let (count, batch) = (builder.record_count(), builder.build().freeze());
        Sent { batch, count, is_uncertain: false }
    }

    /// The next read of a partition's reader, if it is not waiting for one.
    pub(crate) fn follow(
        &mut self,
        partition: usize,
        history: &History,
        random: &mut Random,
    ) -> Option<(u32, Bytes)> {
        let at = self.producers.len() + partition;
        let from = self.positions[partition];
        self.fetch(at, (partition, from), true, history, random)
    }

    /// A read somewhere.
    pub(crate) fn look_up(
        &mut self,
        history: &History,
        random: &mut Random,
    ) -> Option<(u32, Bytes)> {
        let partition = random.index(self.partitions.len());
        let (start, end) = (history.log_start(partition), history.high_watermark(partition));
        if start >= end {
            return None;
        }
        let known = u64::try_from(end - start).expect("positive");
        let from = start + i64::try_from(random.below(known)).expect("an offset");
        let at = self.connections.len() - 2;
        self.fetch(at, (partition, from), false, history, random)
    }

    fn fetch(
        &mut self,
        at: usize,
        (partition, from): (usize, i64),
        follows: bool,
        history: &History,
        random: &mut Random,
    ) -> Option<(u32, Bytes)> {
        if !self.connections[at].waiting.is_empty() || !self.topics_created {
            return None;
        }
        let max_bytes = [1, 20_000, 200_000, 1 << 20][random.index(4)];
        let (topic, index) = self.partitions[partition];
        let request = requests::fetch(topic, index, from, max_bytes);
        let high_watermark = history.high_watermark(partition);
        let fetch = Fetch { partition, from, high_watermark, follows };
        Some(self.send(at, Waiting::Fetch(fetch), request))
    }

    /// Asks that a partition's log begin somewhere else.
    pub(crate) fn trim(
        &mut self,
        history: &mut History,
        random: &mut Random,
    ) -> Option<(u32, Bytes)> {
        let partition = random.index(self.partitions.len());
        let (start, end) = (history.log_start(partition), history.high_watermark(partition));
        let at = self.connections.len() - 1;
        if start >= end || !self.connections[at].waiting.is_empty() {
            return None;
        }
        let known = u64::try_from(end - start).expect("positive");
        let before = start + 1 + i64::try_from(random.below(known)).expect("an offset");
        history.asks_start(partition, before);
        let (topic, index) = self.partitions[partition];
        let request = requests::delete_records(topic, index, before);
        Some(self.send(at, Waiting::Trim { partition }, request))
    }

    /// Begins to read everything again.
    pub(crate) fn rewind(&mut self, history: &History) {
        for (partition, position) in self.positions.iter_mut().enumerate() {
            *position = history.log_start(partition);
        }
    }

    pub(crate) fn position(&self, partition: usize) -> i64 {
        self.positions[partition]
    }

    /// Takes what a connection received.
    pub(crate) fn received(
        &mut self,
        conn: u32,
        pieces: &[Bytes],
        history: &mut History,
        report: &mut Report,
    ) -> Result<(), Violation> {
        let at = self.connections.iter().position(|connection| connection.number == conn);
        let Some(at) = at else { return Ok(()) };
        if pieces.is_empty() {
            // How a producer that wants no replies hears of an error.
            if self.producers.get(at).is_some_and(|producer| producer.acks == 0) {
                report.closed += 1;
                return Ok(());
            }
            return Err(Violation::Reply { reason: "the connection was closed".to_owned() });
        }
        let connection = &mut self.connections[at];
        pieces.iter().for_each(|piece| connection.received.extend_from_slice(piece));
        while let Some(reply) = requests::next_reply(&mut self.connections[at].received) {
            let unasked = || Violation::Reply { reason: "nobody asked for it".to_owned() };
            match self.connections[at].waiting.pop_front().ok_or_else(unasked)? {
                Waiting::Topics => {
                    let error = requests::created(reply)?;
                    self.topics_created |=
                        [ErrorCode::None, ErrorCode::TopicAlreadyExists].contains(&error);
                }
                Waiting::ProducerId => self.producers[at].id = requests::producer_id(reply)?,
                Waiting::Produce(sent) => {
                    self.producers[at].answered(sent, reply, history, report)?;
                }
                Waiting::Fetch(fetch) => self.fetched(&fetch, reply, history, report)?,
                Waiting::Trim { partition } => {
                    if let Some(log_start) = requests::deleted(reply)? {
                        report.trims += 1;
                        history.told_start(partition, log_start);
                    }
                }
            }
        }
        Ok(())
    }

    fn fetched(
        &mut self,
        fetch: &Fetch,
        reply: Bytes,
        history: &mut History,
        report: &mut Report,
    ) -> Result<(), Violation> {
        let Fetch { partition, from, high_watermark, follows } = *fetch;
        let fetched = requests::fetched(reply)?;
        let unreadable = |reason: String| {
            Err(Violation::Unreadable { partition: history.name(partition), offset: from, reason })
        };
        match fetched.error {
            ErrorCode::None => {}
            // The object store is away, or its answer was damaged.
            ErrorCode::KafkaStorageError => {
                report.reads_failed += 1;
                return Ok(());
            }
            ErrorCode::OffsetOutOfRange if history.log_start(partition) > from => {
                report.reads_too_late += 1;
                if follows {
                    self.positions[partition] = history.log_start(partition);
                }
                return Ok(());
            }
            error => return unreadable(error.to_string()),
        }
        if fetched.high_watermark < high_watermark || fetched.log_start > fetched.high_watermark {
            return unreadable(format!("high watermark {}", fetched.high_watermark));
        }
        let read = history.read(partition, from, &fetched.records)?;
        report.batches_read += read.batches;
        if follows {
            self.positions[partition] = read.end;
        }
        Ok(())
    }

    fn send(&mut self, at: usize, waiting: Waiting, request: Bytes) -> (u32, Bytes) {
        self.connections[at].waiting.push_back(waiting);
        (self.connections[at].number, request)
    }
}

impl Producer {
    fn answered(
        &mut self,
        sent: Sent,
        reply: Bytes,
        history: &mut History,
        report: &mut Report,
    ) -> Result<(), Violation> {
        let produced = requests::produced(reply)?;
        let fingerprint = Fingerprint::of(&sent.batch);
        report.throttled += usize::from(produced.throttled);
        match produced.error {
            ErrorCode::None => {
                report.repeats += usize::from(sent.is_uncertain);
                let base = produced.base_offset;
                history.acknowledged(self.partition, fingerprint, base, sent.count.into())?;
                if self.is_idempotent {
                    self.sequence += sent.count;
                }
            }
            // The log is full: nothing of this attempt was written.
            ErrorCode::NotEnoughReplicas => {
                report.refused += 1;
                if !sent.is_uncertain {
                    history.refused(self.partition, fingerprint);
                }
                self.unanswered = self.is_idempotent.then_some(sent);
            }
            ErrorCode::RequestTimedOut => {
                report.timed_out += 1;
                self.unanswered = self.is_idempotent.then_some(Sent { is_uncertain: true, ..sent });
            }
            error => return Err(Violation::Refused { reason: error.to_string() }),
        }
        Ok(())
    }
}

impl Connection {
    fn new(at: usize) -> Self {
        let number = u32::try_from(at).expect("few connections");
        Self { number, ..Self::default() }
    }
}
