//! What one produce request costs a broker: the real shard on a simulated disk, without kernel,
//! clock or chance, so that the same build always takes the same instructions and allocations.

use std::num::NonZeroU16;

use broker::config::BrokerSettings;
use broker::simulation::{Moment, SimBroker};
use bytes::{Bytes, BytesMut};
use kafka_wire::records::RecordBatchBuilder;
use s3_uploader::SteppedWorker;
use wal_uring::WalOptions;

use crate::hardware::{Hardware, Store, unix_ms};
use crate::kafka::{Topic, requests};
use crate::random::Random;

const CONN: u32 = 0;
const ACKS_ALL: i16 = -1;
const RECORD_SIZE: usize = 1024;
const TOPIC: Topic = Topic { name: "cost", partition_count: 1, retention_bytes: None };
/// The log of a run is never given up: 64 MiB.
const SEGMENT_COUNT: u64 = 128;
/// Until a broker serves, in its own time.
const START_TURNS_MAX: usize = 10_000;

/// A broker and a client that sends one request at a time.
pub struct CostRun {
    broker: SimBroker,
    /// Its jobs are never done: nothing is offloaded.
    _store: SteppedWorker,
    micros: u64,
    frame: Bytes,
}

impl CostRun {
    /// A broker that has taken a first request of `records` records of 1 KiB.
    ///
    /// # Panics
    ///
    /// The broker does not serve: there is nothing to measure then.
    pub fn new(records: usize) -> Self {
        let mut random = Random::new(1);
        let mut settings = BrokerSettings::default();
        settings.set("offload.age.ms=3600000").expect("a setting of the broker");
        let store = Store::new(&mut random);
        let hardware = Hardware {
            node: 0,
            incarnation: 0,
            nodes: &[],
            versions: (1, 1),
            data_groups: NonZeroU16::MIN,
            segment_count: SEGMENT_COUNT,
            disk_delay_max: 20,
            wal: WalOptions::VOLATILE_CACHE,
            settings: &settings,
            store: &store,
        };
        let moment = Moment { micros: 0, unix_ms: unix_ms(0) };
        let started = hardware.start(None, moment, &mut random);
        let (broker, store) = started.expect("a broker on an empty disk starts");
        let frame = requests::produce(TOPIC, 0, ACKS_ALL, batch(records));
        let mut run = Self { broker, _store: store, micros: 0, frame };
        run.await_ready();
        run.broker.connect(CONN);
        let created = requests::created(run.ask(requests::create_topics(&[TOPIC])));
        assert_eq!(created.expect("a reply"), kafka_wire::ErrorCode::None);
        // What a topic's first request makes is made.
        let produced = run.ask(run.frame.clone());
        let produced = requests::produced(produced).expect("a reply");
        assert_eq!(produced.error, kafka_wire::ErrorCode::None);
        run
    }

    /// Sends that many produce requests, one after another, and waits for each reply.
    ///
    /// # Panics
    ///
    /// One is not answered.
    pub fn produce(&mut self, requests: usize) {
        for _ in 0..requests {
            self.broker.receive(CONN, self.frame.clone());
            let mut replies = 0;
            while replies == 0 {
                replies = self.turn().len();
            }
        }
    }

    /// The whole reply to one request, without its size.
    fn ask(&mut self, request: Bytes) -> Bytes {
        self.broker.receive(CONN, request);
        let mut reply = BytesMut::new();
        loop {
            for (_, pieces) in self.turn() {
                pieces.iter().for_each(|piece| reply.extend_from_slice(piece));
            }
            if let Some((size, rest)) = reply.split_first_chunk()
                && rest.len() == u32::from_be_bytes(*size) as usize
            {
                return reply.freeze().slice(size_of::<u32>()..);
            }
        }
    }

    fn await_ready(&mut self) {
        for _ in 0..START_TURNS_MAX {
            if self.broker.is_ready() {
                return;
            }
            self.turn();
        }
        panic!("the broker does not serve");
    }

    /// What the broker does now; without a reply to that, time goes on to its next turn.
    fn turn(&mut self) -> Vec<(u32, Vec<Bytes>)> {
        let replies =
            self.broker.turn(Moment { micros: self.micros, unix_ms: unix_ms(self.micros) });
        if replies.is_empty() {
            self.micros = self.broker.next_turn().unwrap_or(self.micros).max(self.micros);
        }
        replies
    }
}

fn batch(records: usize) -> Bytes {
    let value: Vec<u8> = (0..=u8::MAX).cycle().take(RECORD_SIZE).collect();
    let mut builder = RecordBatchBuilder::new();
    for _ in 0..records {
        builder.append(unix_ms(0), None, Some(&value), &[]);
    }
    builder.build().freeze()
}
