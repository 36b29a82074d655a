//! One broker with its disk and its connection to the bucket. The disk outlasts the broker.

use std::time::Duration;

use broker::config::StoreUrl;
use broker::simulation::{Moment, SimBroker, Start};
use bytes::Bytes;
use s3_uploader::{Bucket, Faults, SteppedWorker, StoreOptions, WorkerConfig};
use uuid::Uuid;
use wal_uring::format::ZeroFill;
use wal_uring::sim::{SimDisk, SimDiskOptions};
use wal_uring::{FormatOptions, format};

use super::network::Delivery;
use super::settings::Settings;
use super::{BROKER_COUNT, NODES};
use crate::kafka::violation::Violation;
use crate::random::Random;

const BLOCK_SIZE: u32 = 512;
const SEGMENT_SIZE: u64 = 512 << 10;
/// Beyond the segments: superblocks, and what a format leaves unused at a device's ends.
const OVERHEAD_SIZE: u64 = 256 << 10;
const CLUSTER: Uuid = Uuid::from_u128(7);
const UNIX_MS_FIRST: i64 = 1_800_000_000_000;

/// How a broker ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    PowerCut,
    Kill,
}

/// What the brokers of a run share.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) url: StoreUrl,
    pub(crate) bucket: Bucket,
    pub(crate) faults: Faults,
}

pub(crate) struct Machine {
    node: usize,
    running: Option<Running>,
    /// What the disk held when the last broker ended.
    image: Option<Vec<u8>>,
    store: Store,
    random: Random,
    settings: Settings,
}

struct Running {
    broker: SimBroker,
    store: SteppedWorker,
    /// When the store's own time began, and how far it is.
    since: u64,
    reached: u64,
    /// The process stands still until then, and this waits for it.
    paused_until: u64,
    waiting: Vec<(u32, Delivery)>,
    /// Something arrived since its last turn.
    touched: bool,
}

/// The wall clock of a run, in ms since 1970.
pub(crate) fn unix_ms(now: u64) -> i64 {
    UNIX_MS_FIRST + i64::try_from(now / 1000).expect("a short run")
}

impl Machine {
    pub(crate) fn new(node: usize, store: Store, settings: &Settings, random: Random) -> Self {
        let settings = settings.clone();
        Self { node, running: None, image: None, store, random, settings }
    }

    /// Starts a broker on what the last one left.
    pub(crate) fn start(&mut self, now: u64) -> Result<(), Violation> {
        let failed = |reason| Violation::Start { reason };
        let disk = self.disk().map_err(failed)?;
        let options = StoreOptions {
            seed: Some(self.random.next()),
            faults: self.store.faults.clone(),
            bucket: Some(self.store.bucket.clone()),
            ..StoreOptions::default()
        };
        let config = WorkerConfig { cluster_id: Some(CLUSTER), ..WorkerConfig::default() };
        let (store, client) = SteppedWorker::start(&self.store.url, options, config)
            .map_err(|error| failed(error.to_string()))?;
        let start = Start {
            node: NODES[self.node],
            nodes: NODES.to_vec(),
            cluster_id: CLUSTER,
            settings: self.settings.broker.clone(),
            wal: self.settings.wal,
            seeds: [0; 3].map(|_| self.random.next()),
        };
        let broker = SimBroker::start(disk, client, start, self.moment(now)).map_err(failed)?;
        self.running = Some(Running {
            broker,
            store,
            since: now,
            reached: now,
            paused_until: 0,
            waiting: Vec::new(),
            touched: true,
        });
        Ok(())
    }

    /// Ends the broker. What the store has not taken it will not get.
    pub(crate) fn end(&mut self, end: End) {
        if let Some(Running { broker, .. }) = self.running.take() {
            self.image = Some(match end {
                End::PowerCut => broker.cut_power(),
                End::Kill => broker.kill(),
            });
        }
    }

    pub(crate) fn broker(&self) -> Option<&SimBroker> {
        self.running.as_ref().map(|running| &running.broker)
    }

    pub(crate) fn broker_mut(&mut self) -> Option<&mut SimBroker> {
        self.running.as_mut().map(|running| &mut running.broker)
    }

    /// The process stands still.
    pub(crate) fn pause(&mut self, until: u64) {
        if let Some(running) = &mut self.running {
            running.paused_until = running.paused_until.max(until);
        }
    }

    /// Something arrives from a client or another broker; a process that stands still finds it
    /// later.
    pub(crate) fn deliver(&mut self, conn: u32, delivery: Delivery) {
        if let Some(running) = &mut self.running {
            running.touched = true;
            running.waiting.push((conn, delivery));
        }
    }

    /// When it has to be looked at, if nothing arrives before.
    pub(crate) fn next_turn(&self, now: u64) -> Option<u64> {
        let running = self.running.as_ref()?;
        if running.paused_until > now {
            return Some(running.paused_until);
        }
        if running.touched { Some(now) } else { running.broker.next_turn() }
    }

    /// Lets the store's time pass to `until`, but only to its next reply; returns the time reached.
    pub(crate) fn run_store(&mut self, until: u64) -> u64 {
        let Some(running) = &mut self.running else { return until };
        let wanted = until - running.since;
        if until / 1000 <= running.reached / 1000 {
            return until;
        }
        let reached = running.store.run_until(Duration::from_micros(wanted));
        let reached = u64::try_from(reached.as_micros()).expect("a short run");
        // The store's time is in whole milliseconds; less than that and a reply has ended it.
        let replied = reached < wanted / 1000 * 1000;
        running.reached = running.since + reached;
        running.touched |= replied;
        if replied { running.reached } else { until }
    }

    /// Lets the broker do what it can, if it is time; returns what it sent.
    pub(crate) fn turn(&mut self, now: u64) -> Result<Vec<(u32, Vec<Bytes>)>, Violation> {
        let due = self.next_turn(now).is_some_and(|at| at <= now);
        let moment = self.moment(now);
        let Some(running) = self.running.as_mut().filter(|_| due) else { return Ok(Vec::new()) };
        running.touched = false;
        let broker = &mut running.broker;
        broker.enter(moment);
        for (conn, delivery) in running.waiting.drain(..) {
            match delivery {
                Delivery::Bytes(pieces) => {
                    pieces.into_iter().for_each(|piece| broker.receive(conn, piece));
                }
                Delivery::Closed => broker.closed(conn),
                Delivery::Accepted => broker.connect_peer(conn),
                Delivery::Dialed { node, connected } => {
                    let refused = || "connection refused".to_owned();
                    broker.dialed(NODES[node], connected.then_some(conn).ok_or_else(refused));
                }
            }
        }
        let sent = broker.turn(moment);
        match broker.failure() {
            Some(reason) => Err(Violation::Failed { reason }),
            None => Ok(sent),
        }
    }

    /// A client connects.
    pub(crate) fn connect(&mut self, conn: u32) {
        if let Some(running) = &mut self.running {
            running.broker.connect(conn);
        }
    }

    fn moment(&self, now: u64) -> Moment {
        Moment { micros: now, unix_ms: unix_ms(now) + self.settings.skew_ms[self.node] }
    }

    fn disk(&mut self) -> Result<SimDisk, String> {
        let size = self.settings.segment_count * SEGMENT_SIZE + OVERHEAD_SIZE;
        let (delay_min, delay_max) = (20, self.settings.disk_delay_max[self.node]);
        let options =
            SimDiskOptions { delay_min, delay_max, ..SimDiskOptions::new(size, BLOCK_SIZE) };
        let seed = self.random.next();
        if let Some(image) = self.image.take() {
            return Ok(SimDisk::with_image(seed, options, image));
        }
        let mut disk = SimDisk::new(seed, options);
        let format_options = FormatOptions {
            cluster_id: CLUSTER,
            node_id: NODES[self.node],
            ring_id: Uuid::from_u64_pair(seed, 0),
            slice_count: 1,
            block_size: Some(BLOCK_SIZE),
            segment_size: Some(SEGMENT_SIZE),
            zero_fill: ZeroFill::Headers,
            force: false,
        };
        format(&mut disk, &format_options, &mut |_, _| {}).map_err(|error| error.to_string())?;
        Ok(disk)
    }
}

const _: () = assert!(NODES.len() == BROKER_COUNT);
