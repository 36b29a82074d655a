//! One shard's thread: its ring, its WAL recovered, its groups started, then its core's loop.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{LogIndex, RaftGroupId, ShardId, Term};
use replication::{Driver, DriverConfig, LogEntry, RecoverError};
use s3_uploader::{Client, Edit};
use tools::format::random_uuid;
use uring::device::DeviceFile;
use uring::{Reactor, ReactorConfig};
use wal_uring::{
    BlockDevice, FRAME_BUFFER_COUNT, FRAME_BUFFER_SIZE, FileDevice, Identity, Lsn, Recovered,
    RecoveryReport, RingDisk, StreamId, Wal, WalOptions,
};

use crate::cluster::Cluster;
use crate::codec::DecodeError;
use crate::config::BrokerSettings;
use crate::core::Core;
use crate::group::GroupConfig;
use crate::metrics::Metric;
use crate::node::Node;
use crate::partition::{KIND_EDIT, entry_kind};
use crate::random::Random;
use crate::shard::coordinate::Groups;
use crate::shard::group_snapshot::{GroupSnapshot, Stored};
use crate::shard::hosted::{Hosting, entry_of};
use crate::shard::metadata::{METADATA_SHARD, Metadata};
use crate::shard::replicated_log::{ReplicatedLog, group_of};
use crate::shard::tier::Tier;
use crate::shard::tiers::Tiers;
use crate::shard::{Now, Parts, Shard};
use crate::start::{Report, StartError};
use crate::voter::voter;

/// Bytes of recent batches that a shard keeps in memory for its readers.
const TAIL_CACHE_SIZE: usize = 128 << 20;

/// Bytes of entries that are applied, and kept for brokers that lag.
const PAYLOAD_CACHE_SIZE: usize = 32 << 20;

/// What a shard's thread starts from.
pub(crate) struct ShardStart {
    pub(crate) id: ShardId,
    pub(crate) node: Arc<Node>,
    pub(crate) device: Arc<DeviceFile>,
    /// This shard's end of the object store's thread.
    pub(crate) store: Client,
    pub(crate) listeners: ShardListeners,
    /// See [`crate::config::NodeSettings`].
    pub(crate) busy_poll: Duration,
    pub(crate) report: Sender<Report>,
}

/// Where others connect to a shard.
pub(crate) struct ShardListeners {
    pub(crate) clients: TcpListener,
    /// Other brokers, where there are some.
    pub(crate) peers: Option<TcpListener>,
}

/// Serves until the broker stops.
pub(crate) fn run(start: ShardStart) -> Result<(), StartError> {
    let shard = start.id.get();
    let mut reactor = Reactor::new(&ReactorConfig {
        fixed_buffer_count: FRAME_BUFFER_COUNT,
        fixed_buffer_size: FRAME_BUFFER_SIZE,
        busy_poll: start.busy_poll,
        ..ReactorConfig::default()
    })?;
    let failed = |reason: String| StartError::Failed { shard, reason };
    let file = start.device.file().map_err(|error| failed(error.to_string()))?;
    let file = reactor.io().register_file(file).map_err(|error| failed(error.to_string()))?;
    let durable = start.device.write_cache().needs_sync();
    let (recovery, mut wal) = open(&start, durable)?;
    wal.prepare(&mut RingDisk { io: reactor.io(), file, durable });
    let now = Now { instant: reactor.now(), unix_ms: unix_ms() };
    let ShardStart { id, node, store, listeners, report, .. } = start;
    let shard = Shard::new(recovery.into_parts(id, node, store, wal, now), now);
    shard.mailbox.attach(reactor.doorbell());
    shard.metrics.set(Metric::WalVolatileCache, u64::from(durable));
    Core::new(shard, file, durable, listeners, report).run(reactor).map_err(failed)
}

/// What the WAL held.
pub(crate) struct Recovery {
    driver: Driver,
    hosting: Hosting,
    /// What the snapshots of the data groups say of their objects.
    stored: BTreeMap<RaftGroupId, Stored>,
    cluster: Option<(LogIndex, Cluster)>,
    /// Where the latest state record of each stream lies.
    states: BTreeMap<StreamId, Lsn>,
    /// Randomness for the ids that the shard makes.
    seeds: [u64; 2],
}

impl Recovery {
    pub(crate) fn into_parts(
        self,
        id: ShardId,
        node: Arc<Node>,
        store: Client,
        wal: Wal,
        now: Now,
    ) -> Parts {
        let settings = &node.settings.broker;
        let reserve = settings.wal_reserve_percent;
        let has_peers = node.founders().len() > 1;
        let (driver, states) = (self.driver, self.states);
        let groups: Vec<_> = driver.groups().collect();
        let (mut tiers, mut offsets) = (BTreeMap::new(), Vec::new());
        for (group, stored) in self.stored {
            tiers.insert(group, Tier::new(stored.manifest, stored.edited));
            let records = stored.offsets.into_iter();
            offsets.extend(records.map(|(partition, records)| (group, partition, records)));
        }
        let log = ReplicatedLog::new(wal, driver, groups, states, has_peers, reserve, now.instant);
        let config = group_config(settings);
        Parts {
            id,
            log,
            hosting: self.hosting,
            groups: Groups::new(config, offsets, now.instant),
            tiers: Tiers::new(store, tiers),
            metadata: Metadata::new(self.cluster),
            random: Random::new(self.seeds),
            node,
        }
    }
}

/// Opens the WAL on its device, and tells the operator what it held.
fn open(start: &ShardStart, durable: bool) -> Result<(Recovery, Wal), StartError> {
    let shard = start.id.get();
    let (election, _) = random_uuid()?.as_u64_pair();
    let (high, low) = random_uuid()?.as_u64_pair();
    let failed = |error: std::io::Error| StartError::Failed { shard, reason: error.to_string() };
    let mut device = FileDevice::new(&start.device).map_err(failed)?;
    let seeds = Seeds { election, ids: [high, low] };
    let recovered = recover(&mut device, start.id, &start.node, options(durable), seeds)?;
    let (recovery, wal, report) = recovered;
    // If nobody listens any more, the process is ending.
    let _ = start.report.send(Report::Noted(describe(shard, &report)));
    Ok((recovery, wal))
}

/// Randomness for a shard, which has no other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeds {
    pub(crate) election: u64,
    /// For the ids that it makes.
    pub(crate) ids: [u64; 2],
}

pub(crate) fn recover(
    device: &mut impl BlockDevice,
    id: ShardId,
    node: &Node,
    options: WalOptions,
    seeds: Seeds,
) -> Result<(Recovery, Wal, RecoveryReport), StartError> {
    let shard = id.get();
    let mut driver = Driver::new(driver_config(id, node, seeds.election));
    let mut states = BTreeMap::new();
    let mut refused = None;
    let expected = Identity {
        cluster_id: node.cluster_id,
        node_id: node.id.get(),
        slice_index: shard,
        slice_count: node.shard_count,
    };
    let mut sink = |recovered: Recovered<'_>| {
        if let Err(reason) = replay(&mut driver, &mut states, recovered) {
            refused.get_or_insert_with(|| reason.to_string());
        }
    };
    let (wal, report) = Wal::open(device, &expected, options, &mut sink)
        .map_err(|source| StartError::Open { shard, source: Box::new(source) })?;
    if let Some(reason) = refused {
        return Err(StartError::Recover { shard, reason });
    }
    let recovered = |error: &dyn ToString| StartError::Recover { shard, reason: error.to_string() };
    driver.start().map_err(|error| recovered(&error))?;
    states.retain(|stream, _| driver.has_group(group_of(*stream)));
    let was_used = driver.groups().next().is_some()
        || report.scan.data_frames > 0
        || report.durable_lsn.get() > wal.segment_size();
    if !was_used {
        create_groups(&mut driver, id, node)?;
    }
    let mut hosting = Hosting::new(TAIL_CACHE_SIZE);
    let mut stored = BTreeMap::new();
    for group in data_groups(&driver) {
        let found = rebuild(&driver, &mut hosting, group).map_err(|reason| recovered(&reason))?;
        stored.insert(group, found);
    }
    let cluster = (id == METADATA_SHARD)
        .then(|| cluster(&driver, &node.settings.broker))
        .transpose()
        .map_err(|error| recovered(&error))?;
    let seeds = seeds.ids;
    let recovery = Recovery { driver, hosting, stored, cluster, states, seeds };
    Ok((recovery, wal, report))
}

/// The more groups there are, the less memory each has.
fn driver_config(id: ShardId, node: &Node, seed: u64) -> DriverConfig {
    let config = DriverConfig::new(node.voter(), seed);
    let cache_size = PAYLOAD_CACHE_SIZE / node.new_groups(id).len().max(1);
    DriverConfig { payload_cache_bytes: cache_size.min(config.payload_cache_bytes), ..config }
}

fn data_groups(driver: &Driver) -> Vec<RaftGroupId> {
    driver.groups().filter(|group| *group != RaftGroupId::METADATA).collect()
}

/// Makes the groups of a WAL in which nothing was ever written. They become durable in one frame,
/// so a WAL has all or none.
fn create_groups(driver: &mut Driver, id: ShardId, node: &Node) -> Result<(), StartError> {
    let is_alone = node.settings.nodes.is_empty();
    let metadata = (id == METADATA_SHARD).then_some(RaftGroupId::METADATA);
    if node.incarnation > 0 && is_alone {
        return Err(StartError::LoneReplacement);
    } else if node.incarnation > 0 {
        // The others make it a member, and the metadata says of which groups.
        metadata.into_iter().for_each(|group| driver.create_group(group, &[]));
    } else if is_alone || node.settings.new_cluster {
        let voters: Vec<_> = node.founders().into_iter().map(|it| voter(it, 0)).collect();
        let groups = metadata.into_iter().chain(node.new_groups(id));
        groups.for_each(|group| driver.create_group(group, &voters));
    } else {
        return Err(StartError::EmptyWal { shard: id.get() });
    }
    Ok(())
}

/// Gives one record of the WAL to raft, and notes where the state records are.
fn replay(
    driver: &mut Driver,
    states: &mut BTreeMap<StreamId, Lsn>,
    recovered: Recovered<'_>,
) -> Result<(), RecoverError> {
    match recovered {
        Recovered::State { stream, data, at } => {
            states.insert(stream, at.lsn);
            driver.recover_state(group_of(stream), data)
        }
        Recovered::Entry { stream, term, index, data, at } => {
            let (term, index) = (Term::new(term), LogIndex::new(index));
            driver.recover_entry(group_of(stream), term, index, data, at.lsn.get())
        }
    }
}

/// Rebuilds the partitions of a group from its snapshot and the descriptors of the entries above.
fn rebuild(driver: &Driver, hosting: &mut Hosting, group: RaftGroupId) -> Result<Stored, String> {
    let snapshot = driver.snapshot(group);
    let compacted = snapshot.is_some();
    let mut stored = Stored::default();
    if let Some((_, data)) = snapshot {
        let found = GroupSnapshot::decode(&data).map_err(|error| error.to_string())?;
        found.partitions.into_iter().for_each(|partition| hosting.restore(group, partition));
        stored = found.stored;
    }
    let (first, last) = (driver.first_index(group), driver.last_index(group));
    for index in (first.get()..=last.get()).map(LogIndex::new) {
        let Some(LogEntry { term, descriptor, .. }) = driver.entry(group, index) else { continue };
        // Only the empty entry of a new leader has no descriptor.
        let Some(descriptor) = descriptor else { continue };
        if entry_kind(&descriptor.app) == Some(KIND_EDIT) {
            // Applied when raft hands it out. But batches may follow one that adopts a partition.
            let edit = driver.payload(group, index).and_then(|it| Edit::decode(it).ok());
            if let Some((Edit::Adopted(adoption), _)) = edit {
                hosting.adopt_again(group, index, &adoption, &stored.manifest);
            }
            continue;
        }
        let entry = entry_of(&descriptor).ok_or("an entry of an unknown kind")?;
        hosting
            .recovered(group, index, term, &entry, compacted)
            .map_err(|error| error.to_string())?;
    }
    Ok(stored)
}

/// Group 0's state as its snapshot has it, with the last entry that it stands for; the commands
/// above are applied when raft hands them out.
fn cluster(driver: &Driver, settings: &BrokerSettings) -> Result<(LogIndex, Cluster), DecodeError> {
    let settings = Arc::new(settings.clone());
    Ok(match driver.snapshot(RaftGroupId::METADATA) {
        Some((index, data)) => (index, Cluster::decode_snapshot(&data, settings)?),
        None => (LogIndex::default(), Cluster::new(settings)),
    })
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

pub(crate) fn options(durable: bool) -> WalOptions {
    // One for states, one for what makes room.
    WalOptions { reserve_segments: 2, ..WalOptions::for_cache(durable) }
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
pub(crate) fn unix_ms() -> i64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(unix.as_millis()).unwrap_or(i64::MAX)
}
