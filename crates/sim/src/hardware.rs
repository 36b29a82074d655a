//! What a simulated broker runs on: a disk that outlasts it, a bucket, and the wall clock.

use std::array;
use std::num::NonZeroU16;

use broker::config::{BrokerSettings, StoreUrl};
use broker::simulation::{Moment, SimBroker, SimRebuild, Start};
use s3_uploader::{Bucket, Faults, SteppedWorker, StoreOptions, WorkerConfig};
use uuid::Uuid;
use wal_uring::format::ZeroFill;
use wal_uring::sim::{SimDisk, SimDiskOptions};
use wal_uring::{FormatOptions, WalOptions, format};

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

/// The bucket of a run, and what goes wrong with it.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) url: StoreUrl,
    pub(crate) bucket: Bucket,
    pub(crate) faults: Faults,
}

/// What a broker is started on.
pub(crate) struct Hardware<'a> {
    pub(crate) node: i32,
    /// Of its disk: 0 for its first.
    pub(crate) incarnation: u32,
    /// All brokers of its cluster; empty if it is alone.
    pub(crate) nodes: &'a [i32],
    /// The oldest and the newest version that it speaks with other brokers.
    pub(crate) versions: (u16, u16),
    /// Of a new disk.
    pub(crate) data_groups: NonZeroU16,
    pub(crate) segment_count: u64,
    /// Microseconds of one request of the disk at most.
    pub(crate) disk_delay_max: u64,
    pub(crate) wal: WalOptions,
    pub(crate) settings: &'a BrokerSettings,
    pub(crate) store: &'a Store,
}

/// The wall clock of a run, in ms since 1970; `now`: microseconds since it began.
pub(crate) fn unix_ms(now: u64) -> i64 {
    UNIX_MS_FIRST + i64::try_from(now / 1000).expect("a short run")
}

/// How a log is run that is small, on a device with a cache: frames that wait for company, and not.
pub(crate) fn draw_wal(random: &mut Random) -> WalOptions {
    let depth = 1 + random.index(8);
    WalOptions {
        depth,
        beside_min: if depth.is_multiple_of(2) { 0 } else { 3000 },
        frame_size_max: [16 << 10, 64 << 10][random.index(2)],
        reserve_segments: 2,
        ..WalOptions::VOLATILE_CACHE
    }
}

impl Store {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            url: "file:///simulated".parse().expect("an address"),
            bucket: Bucket::default(),
            faults: Faults::seeded(random.next()),
        }
    }

    /// What the bucket alone gives back. It is read while nothing is wrong with it.
    pub(crate) fn rebuild(&self, incarnation: u32, now_ms: i64) -> Result<SimRebuild, String> {
        SimRebuild::of(&self.url, &self.bucket, incarnation, now_ms)
    }
}

impl Hardware<'_> {
    /// Starts a broker on what the last one left on the disk, or on a new one; and what brings its
    /// objects to the bucket.
    pub(crate) fn start(
        &self,
        image: Option<Vec<u8>>,
        now: Moment,
        random: &mut Random,
    ) -> Result<(SimBroker, SteppedWorker), Violation> {
        let failed = |reason| Violation::Start { reason };
        let disk = self.disk(image, random.next()).map_err(failed)?;
        let options = StoreOptions {
            seed: Some(random.next()),
            faults: self.store.faults.clone(),
            bucket: Some(self.store.bucket.clone()),
            ..StoreOptions::default()
        };
        let config = WorkerConfig { cluster_id: Some(CLUSTER), ..WorkerConfig::default() };
        let (worker, client) = SteppedWorker::start(&self.store.url, options, config)
            .map_err(|error| failed(error.to_string()))?;
        let start = Start {
            node: self.node,
            incarnation: self.incarnation,
            nodes: self.nodes.to_vec(),
            versions: self.versions,
            data_groups: self.data_groups,
            cluster_id: CLUSTER,
            settings: self.settings.clone(),
            wal: self.wal,
            seeds: array::from_fn(|_| random.next()),
        };
        Ok((SimBroker::start(disk, client, start, now).map_err(failed)?, worker))
    }

    /// A new disk with what was rebuilt from the bucket; returns what is on it.
    pub(crate) fn rebuilt_disk(
        &self,
        rebuild: &SimRebuild,
        random: &mut Random,
    ) -> Result<Vec<u8>, String> {
        let mut disk = self.disk(None, random.next())?;
        rebuild.write(&mut disk, CLUSTER, self.wal)?;
        Ok(disk.crash())
    }

    fn disk(&self, image: Option<Vec<u8>>, seed: u64) -> Result<SimDisk, String> {
        let size = self.segment_count * SEGMENT_SIZE + OVERHEAD_SIZE;
        let (delay_min, delay_max) = (20, self.disk_delay_max);
        let options =
            SimDiskOptions { delay_min, delay_max, ..SimDiskOptions::new(size, BLOCK_SIZE) };
        if let Some(image) = image {
            return Ok(SimDisk::with_image(seed, options, image));
        }
        let mut disk = SimDisk::new(seed, options);
        let format_options = FormatOptions {
            cluster_id: CLUSTER,
            node_id: self.node,
            incarnation: self.incarnation,
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
