//! One broker with its disk, its bucket and the clock. Disk and bucket outlast the broker.

use std::time::Duration;

use broker::config::StoreUrl;
use broker::simulation::{Moment, SimBroker, Start};
use bytes::Bytes;
use s3_uploader::{Bucket, Faults, SteppedWorker, StoreOptions, WorkerConfig};
use uuid::Uuid;
use wal_uring::format::ZeroFill;
use wal_uring::sim::{SimDisk, SimDiskOptions};
use wal_uring::{FormatOptions, format};

use super::settings::Settings;
use crate::kafka::violation::Violation;
use crate::random::Random;

const BLOCK_SIZE: u32 = 512;
const SEGMENT_SIZE: u64 = 512 << 10;
/// Beyond the segments: superblocks, and what a format leaves unused at a device's ends.
const OVERHEAD_SIZE: u64 = 256 << 10;
const NODE: i32 = 0;
const CLUSTER: Uuid = Uuid::from_u128(7);
const UNIX_MS_FIRST: i64 = 1_800_000_000_000;

/// How a broker ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    PowerCut,
    Kill,
}

pub(crate) struct Machine {
    /// Microseconds since the run began.
    pub(crate) now: u64,
    pub(crate) bucket: Bucket,
    pub(crate) faults: Faults,
    pub(crate) url: StoreUrl,
    running: Option<Running>,
    /// What the disk held when the last broker ended.
    image: Option<Vec<u8>>,
    random: Random,
    settings: Settings,
}

struct Running {
    broker: SimBroker,
    store: SteppedWorker,
    /// When the store's own time began.
    since: u64,
}

impl Machine {
    pub(crate) fn new(settings: &Settings, mut random: Random) -> Self {
        Self {
            now: 0,
            bucket: Bucket::default(),
            faults: Faults::seeded(random.next()),
            url: "file:///simulated".parse().expect("an address"),
            running: None,
            image: None,
            random,
            settings: settings.clone(),
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        UNIX_MS_FIRST + i64::try_from(self.now / 1000).expect("a short run")
    }

    /// Starts a broker on what the last one left.
    pub(crate) fn start(&mut self) -> Result<(), Violation> {
        let failed = |reason| Violation::Start { reason };
        let disk = self.disk().map_err(failed)?;
        let options = StoreOptions {
            seed: Some(self.random.next()),
            faults: self.faults.clone(),
            bucket: Some(self.bucket.clone()),
            ..StoreOptions::default()
        };
        let config = WorkerConfig { cluster_id: Some(CLUSTER), ..WorkerConfig::default() };
        let (store, client) = SteppedWorker::start(&self.url, options, config)
            .map_err(|error| failed(error.to_string()))?;
        let start = Start {
            node: NODE,
            nodes: Vec::new(),
            cluster_id: CLUSTER,
            settings: self.settings.broker.clone(),
            wal: self.settings.wal,
            seeds: [0; 3].map(|_| self.random.next()),
        };
        let broker = SimBroker::start(disk, client, start, self.moment()).map_err(failed)?;
        self.running = Some(Running { broker, store, since: self.now });
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

    /// A broker that accepts connections.
    pub(crate) fn ready(&mut self) -> Option<&mut SimBroker> {
        self.broker_mut().filter(|broker| broker.is_ready())
    }

    /// Lets time pass to `until`, but only to what the broker has to do first.
    pub(crate) fn advance(&mut self, until: u64) {
        if let Some(Running { broker, store, since }) = &mut self.running {
            let until = until.min(broker.next_turn().unwrap_or(u64::MAX)).max(self.now);
            let wanted = until - *since;
            let reached = store.run_until(Duration::from_micros(wanted));
            let reached = u64::try_from(reached.as_micros()).expect("a short run");
            // The store's time is in whole milliseconds; less than that and a reply has ended it.
            let replied = reached < wanted / 1000 * 1000;
            self.now = if replied { self.now.max(*since + reached) } else { until };
        } else {
            self.now = self.now.max(until);
        }
        self.bucket.set_now_ms(self.now_ms());
    }

    /// Lets the broker do what it can; returns what clients received.
    pub(crate) fn turn(&mut self) -> Result<Vec<(u32, Vec<Bytes>)>, Violation> {
        let moment = self.moment();
        let Some(broker) = self.broker_mut() else { return Ok(Vec::new()) };
        let replies = broker.turn(moment);
        match broker.failure() {
            Some(reason) => Err(Violation::Failed { reason }),
            None => Ok(replies),
        }
    }

    fn moment(&self) -> Moment {
        Moment { micros: self.now, unix_ms: self.now_ms() }
    }

    fn disk(&mut self) -> Result<SimDisk, String> {
        let size = self.settings.segment_count * SEGMENT_SIZE + OVERHEAD_SIZE;
        let (delay_min, delay_max) = (20, self.settings.disk_delay_max);
        let options =
            SimDiskOptions { delay_min, delay_max, ..SimDiskOptions::new(size, BLOCK_SIZE) };
        let seed = self.random.next();
        if let Some(image) = self.image.take() {
            return Ok(SimDisk::with_image(seed, options, image));
        }
        let mut disk = SimDisk::new(seed, options);
        let format_options = FormatOptions {
            cluster_id: CLUSTER,
            node_id: NODE,
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
