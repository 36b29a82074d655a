//! One shard's thread: its ring, its WAL recovered, its groups started, then its core's loop.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{LogIndex, RaftGroupId, ShardId, Term};
use replication::{Descriptor, Driver, DriverConfig};
use tools::format::random_uuid;
use uring::device::DeviceFile;
use uring::{Reactor, ReactorConfig};
use wal_uring::{FileDevice, Identity, Recovered, RecoveryReport, RingDisk, Wal, WalOptions};

use crate::cluster::Cluster;
use crate::config::BrokerSettings;
use crate::core::Core;
use crate::group::GroupConfig;
use crate::metrics::Metric;
use crate::node::Node;
use crate::random::Random;
use crate::shard::coordinate::Groups;
use crate::shard::hosted::{Hosting, entry_of};
use crate::shard::metadata::{METADATA_SHARD, Metadata};
use crate::shard::replicated_log::{ReplicatedLog, group_of};
use crate::shard::{Now, Parts, Shard};
use crate::start::{Report, StartError};

/// Bytes of one group commit at most, but for a single larger entry.
const FRAME_SIZE_MAX: u32 = 512 << 10;
/// Bytes of recent batches that a shard keeps in memory for its readers.
const TAIL_CACHE_SIZE: usize = 128 << 20;

/// What a shard's thread starts from.
pub(crate) struct ShardStart {
    pub(crate) id: ShardId,
    pub(crate) node: Arc<Node>,
    pub(crate) device: Arc<DeviceFile>,
    pub(crate) listener: TcpListener,
    pub(crate) report: Sender<Report>,
}

/// Serves until the broker stops.
pub(crate) fn run(start: ShardStart) -> Result<(), StartError> {
    let shard = start.id.get();
    let mut reactor = Reactor::new(&ReactorConfig {
        fixed_buffer_count: 6,
        fixed_buffer_size: FRAME_SIZE_MAX,
        ..ReactorConfig::default()
    })?;
    let failed = |reason: String| StartError::Failed { shard, reason };
    let file = start.device.file().map_err(|error| failed(error.to_string()))?;
    let file = reactor.io().register_file(file).map_err(|error| failed(error.to_string()))?;
    let durable = start.device.write_cache().needs_sync();
    let (parts, mut wal) = recover(&start, durable)?;
    wal.prepare(&mut RingDisk { io: reactor.io(), file, durable });
    let now = Now { instant: reactor.now(), unix_ms: unix_ms() };
    let shard = Shard::new(parts.into_parts(&start, wal, now), now);
    shard.mailbox.attach(reactor.doorbell());
    shard.metrics.set(Metric::WalVolatileCache, u64::from(durable));
    Core::new(shard, file, durable, start.listener, start.report).run(reactor).map_err(failed)
}

/// What the WAL held.
struct Recovery {
    driver: Driver,
    hosting: Hosting,
    /// Index of the data group's last entry.
    last_index: LogIndex,
    /// Randomness for the ids that the shard makes.
    seeds: [u64; 2],
}

impl Recovery {
    fn into_parts(self, start: &ShardStart, wal: Wal, now: Now) -> Parts {
        let node = Arc::clone(&start.node);
        let settings = &node.settings.broker;
        let cluster =
            (start.id == METADATA_SHARD).then(|| Cluster::new(Arc::new(settings.clone())));
        Parts {
            id: start.id,
            log: ReplicatedLog::new(wal, self.driver, groups(start.id), now.instant),
            hosting: self.hosting,
            groups: Groups::new(group_config(settings), self.last_index, now.instant),
            metadata: Metadata::new(cluster),
            random: Random::new(self.seeds),
            node,
        }
    }
}

/// The raft groups of a shard.
fn groups(shard: ShardId) -> Vec<RaftGroupId> {
    let metadata = (shard == METADATA_SHARD).then_some(RaftGroupId::METADATA);
    metadata.into_iter().chain([Node::data_group(shard)]).collect()
}

fn recover(start: &ShardStart, durable: bool) -> Result<(Recovery, Wal), StartError> {
    let shard = start.id.get();
    let node = &start.node;
    // Raft's ids start at 1.
    let voter = u64::try_from(node.id.get()).unwrap_or_default() + 1;
    let (election_seed, _) = random_uuid()?.as_u64_pair();
    let (high, low) = random_uuid()?.as_u64_pair();
    let mut driver = Driver::new(DriverConfig::new(voter, election_seed));
    let mut hosting = Hosting::new(TAIL_CACHE_SIZE);
    let mut last_index = LogIndex::default();
    let mut refused = None;
    let expected = Identity {
        cluster_id: node.cluster_id,
        node_id: node.id.get(),
        slice_index: shard,
        slice_count: node.shard_count,
    };
    let mut sink = |recovered: Recovered<'_>| {
        let result = replay(&mut driver, &mut hosting, &mut last_index, start.id, recovered);
        if let Err(reason) = result {
            refused.get_or_insert(reason);
        }
    };
    let options = options(durable);
    let failed = |error: std::io::Error| StartError::Failed { shard, reason: error.to_string() };
    let mut device = FileDevice::new(&start.device).map_err(failed)?;
    let (wal, report) = Wal::open(&mut device, &expected, options, &mut sink)
        .map_err(|source| StartError::Open { shard, source: Box::new(source) })?;
    if let Some(reason) = refused {
        return Err(StartError::Recover { shard, reason });
    }
    // If nobody listens any more, the process is ending.
    let _ = start.report.send(Report::Recovered(describe(shard, &report)));
    let recovered = |error: &dyn ToString| StartError::Recover { shard, reason: error.to_string() };
    driver.start().map_err(|error| recovered(&error))?;
    for group in groups(start.id) {
        if !driver.has_group(group) {
            driver.create_group(group, &[voter]);
        }
    }
    Ok((Recovery { driver, hosting, last_index, seeds: [high, low] }, wal))
}

/// What recovery found, for the operator.
fn describe(shard: u16, report: &RecoveryReport) -> Vec<String> {
    let end = match (report.clean, report.torn_tail()) {
        (true, _) => "stopped cleanly",
        (false, true) => "a write was cut off that nobody was told of",
        (false, false) => "not stopped cleanly",
    };
    let (frames, lsn) = (report.scan.data_frames, report.durable_lsn);
    let mut lines = vec![format!("shard {shard}: WAL read to LSN {lsn}, {frames} frames; {end}")];
    lines.extend(
        report.superblock_faults.iter().map(|fault| format!("shard {shard}: repaired {fault}")),
    );
    lines
}

/// Gives one record of the WAL to raft, and its batch to its partition.
fn replay(
    driver: &mut Driver,
    hosting: &mut Hosting,
    last_index: &mut LogIndex,
    shard: ShardId,
    recovered: Recovered<'_>,
) -> Result<(), String> {
    match recovered {
        Recovered::State { stream, data, .. } => {
            driver.recover_state(group_of(stream), data).map_err(|error| error.to_string())
        }
        Recovered::Entry { stream, term, index, data, at } => {
            let group = group_of(stream);
            let (term, index) = (Term::new(term), LogIndex::new(index));
            driver
                .recover_entry(group, term, index, data, at.lsn.get())
                .map_err(|error| error.to_string())?;
            if group != Node::data_group(shard) {
                return Ok(());
            }
            *last_index = index;
            // Only the empty entry of a new leader has no descriptor.
            let Ok(descriptor) = Descriptor::decode(data) else { return Ok(()) };
            let entry = entry_of(&descriptor).ok_or("an entry of an unknown kind")?;
            hosting.recovered(group, index, term, &entry).map_err(|error| error.to_string())
        }
    }
}

fn options(durable: bool) -> WalOptions {
    let base = if durable { WalOptions::VOLATILE_CACHE } else { WalOptions::WRITE_THROUGH };
    WalOptions { frame_size_max: FRAME_SIZE_MAX as usize, ..base }
}

fn group_config(settings: &BrokerSettings) -> GroupConfig {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    GroupConfig {
        partition_count: i32::try_from(settings.offsets_topic_partition_count).unwrap_or(i32::MAX),
        session_timeout_ms_min: ms(settings.group_session_timeout_min),
        session_timeout_ms_max: ms(settings.group_session_timeout_max),
        initial_rebalance_delay_ms: ms(settings.group_initial_rebalance_delay),
        member_count_max: settings.group_size_max as usize,
        offset_metadata_size_max: settings.offset_metadata_bytes_max as usize,
        offsets_retention_ms: i64::try_from(settings.offsets_retention.as_millis())
            .unwrap_or(i64::MAX),
        ..GroupConfig::default()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the first reading of the wall clock, before the loop"
)]
fn unix_ms() -> i64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(unix.as_millis()).unwrap_or(i64::MAX)
}
