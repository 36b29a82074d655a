//! A node's WAL on its simulated disk: the real `wal_uring::Wal`, with completions that time
//! brings.

use std::collections::VecDeque;

use bytes::Bytes;
use model::RaftGroupId;
use uring::DiskDone;
use uuid::Uuid;
use wal_uring::format::ZeroFill;
use wal_uring::sim::{Faults, SimDisk, SimDiskOptions};
use wal_uring::{
    AppendError, Appended, FormatOptions, Identity, Location, Lsn, Part, Pressure, ReadError,
    Record, Recovered, StreamId, Wal, WalOptions, format,
};

use crate::random::Random;

const BLOCK_SIZE: u32 = 512;
pub(crate) const SEGMENT_SIZE: u64 = 64 << 10;
/// Beyond the segments: superblocks, and what a format leaves unused at a device's ends.
const OVERHEAD_SIZE: u64 = 128 << 10;

/// How a node's disk behaves and how large it is; a draw for each node and life.
#[derive(Clone, Debug)]
pub(crate) struct LogSettings {
    pub(crate) segment_count: u64,
    /// Microseconds of one request at most.
    pub(crate) delay_max: u64,
    /// Writes in flight at most.
    pub(crate) depth: usize,
    /// Chance that a write fails, after which the node has to stop.
    pub(crate) write_error: f64,
    /// Chance that a read fails.
    pub(crate) read_error: f64,
}

/// What is left when the power is gone; `None` before the first start.
#[derive(Default)]
pub(crate) struct Disk(Option<Vec<u8>>);

/// The WAL of a running node.
pub(crate) struct NodeLog {
    wal: Wal,
    disk: SimDisk,
    /// Completions that came due while the node was not looking.
    due: VecDeque<DiskDone>,
}

/// Which of a group's records: entries and hard state have one stream, snapshots another.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    State,
    Snapshot,
}

/// A record found at a start.
pub(crate) enum Found {
    Entry { term: u64, index: u64, location: u64 },
    State { kind: Kind, lsn: u64 },
}

/// Takes each record found at a start with its data, and may refuse it.
type Sink<'a> = dyn FnMut(RaftGroupId, Found, &[u8]) -> Result<(), String> + 'a;

impl NodeLog {
    /// Opens the WAL, on a disk that is formatted first if it is new. Gives every record to `sink`,
    /// its data last.
    pub(crate) fn open(
        disk: Disk,
        settings: &LogSettings,
        now: u64,
        random: &mut Random,
        sink: &mut Sink<'_>,
    ) -> Result<Self, String> {
        let size = settings.segment_count * SEGMENT_SIZE + OVERHEAD_SIZE;
        let options = SimDiskOptions {
            delay_min: 60.min(settings.delay_max),
            delay_max: settings.delay_max,
            ..SimDiskOptions::new(size, BLOCK_SIZE)
        };
        let mut disk = match disk.0 {
            Some(image) => SimDisk::with_image(random.next(), options, image),
            None => formatted(random, options)?,
        };
        let mut refused = None;
        let wal_options = WalOptions {
            depth: settings.depth,
            beside_min: if settings.depth.is_multiple_of(2) { 0 } else { 1000 },
            frame_size_max: 16 << 10,
            ..WalOptions::VOLATILE_CACHE
        };
        let opened = Wal::open(&mut disk, &identity(), wal_options, &mut |record| {
            if refused.is_none() {
                refused = give(record, sink).err();
            }
        });
        let (wal, _) = opened.map_err(|error| error.to_string())?;
        if let Some(reason) = refused {
            return Err(reason);
        }
        let (write_error, read_error) = (settings.write_error, settings.read_error);
        disk.set_faults(Faults { write_error, read_error, ..Faults::NONE });
        let mut log = Self { wal, disk, due: VecDeque::new() };
        log.catch_up_with(now);
        Ok(log)
    }

    pub(crate) fn append_entry(
        &mut self,
        group: RaftGroupId,
        term: u64,
        index: u64,
        parts: &[Part<'_>],
    ) -> Result<Appended, AppendError> {
        let stream = stream(group, Kind::State);
        self.wal.append(Record::Entry { stream, term, index, parts, vital: false })
    }

    pub(crate) fn append_state(
        &mut self,
        group: RaftGroupId,
        kind: Kind,
        data: &[u8],
    ) -> Result<Appended, AppendError> {
        self.wal.append(Record::State { stream: stream(group, kind), parts: &[Part::of(data)] })
    }

    pub(crate) fn submit(&mut self, now: u64) {
        self.catch_up_with(now);
        self.wal.submit(&mut self.disk);
    }

    /// Starts a read of an entry's data, unless there are too many, or it is gone.
    pub(crate) fn read(
        &mut self,
        now: u64,
        location: u64,
        len: u32,
        token: u64,
    ) -> Result<(), ReadError> {
        self.catch_up_with(now);
        let at = Location { lsn: Lsn::new(location), len };
        self.wal.read(&mut self.disk, at, token)
    }

    /// Takes every completion up to now; returns the reads among them.
    pub(crate) fn poll(&mut self, now: u64) -> Vec<(u64, Option<Bytes>)> {
        self.catch_up_with(now);
        let mut reads = Vec::new();
        while let Some(done) = self.due.pop_front() {
            if let Some(read) = self.wal.complete(&mut self.disk, done) {
                reads.push((read.token, read.result.ok()));
            }
        }
        reads
    }

    /// When there is something to poll for.
    pub(crate) fn next_event(&self) -> Option<u64> {
        if self.due.is_empty() { self.disk.next_due() } else { Some(0) }
    }

    pub(crate) fn durable(&self) -> u64 {
        self.wal.durable_lsn().get()
    }

    /// Bytes that it has room for.
    pub(crate) fn room(&self) -> u64 {
        self.wal.room()
    }

    pub(crate) fn is_under_pressure(&self) -> bool {
        self.wal.pressure() > Pressure::Normal
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.wal.failed().is_some()
    }

    pub(crate) fn trim(&mut self, to: u64) {
        self.wal.trim(Lsn::new(to));
    }

    /// An idle WAL notes how far it is durable.
    pub(crate) fn tick(&mut self) {
        self.wal.tick();
    }

    pub(crate) fn heal(&mut self) {
        self.disk.set_faults(Faults::NONE);
    }

    /// The power goes: each write in flight is kept, lost or torn.
    pub(crate) fn lose_power(self) -> Disk {
        Disk(Some(self.disk.crash()))
    }

    /// The process is killed: what it has written stays.
    pub(crate) fn kill(self) -> Disk {
        Disk(Some(self.disk.kill()))
    }

    /// Moves the disk's clock, which counts the delay of a new request from where it stands.
    fn catch_up_with(&mut self, now: u64) {
        while let Some(done) = self.disk.poll(now) {
            self.due.push_back(done);
        }
    }
}

fn formatted(random: &mut Random, options: SimDiskOptions) -> Result<SimDisk, String> {
    let mut disk = SimDisk::new(random.next(), options);
    let format_options = FormatOptions {
        cluster_id: identity().cluster_id,
        node_id: identity().node_id,
        incarnation: 0,
        ring_id: Uuid::from_u64_pair(random.next(), random.next()),
        slice_count: 1,
        block_size: Some(BLOCK_SIZE),
        segment_size: Some(SEGMENT_SIZE),
        zero_fill: ZeroFill::Headers,
        force: true,
    };
    format(&mut disk, &format_options, &mut |_, _| ()).map_err(|error| error.to_string())?;
    Ok(disk)
}

/// Every node may have the same: no disk ever moves to another.
fn identity() -> Identity {
    Identity { cluster_id: Uuid::from_u128(7), node_id: 1, slice_index: 0, slice_count: 1 }
}

fn stream(group: RaftGroupId, kind: Kind) -> StreamId {
    let offset = match kind {
        Kind::State => 0,
        Kind::Snapshot => 1,
    };
    StreamId::new(group.get() * 2 + offset)
}

fn give(record: Recovered<'_>, sink: &mut Sink<'_>) -> Result<(), String> {
    match record {
        Recovered::Entry { stream, term, index, data, at } => {
            let location = at.lsn.get();
            sink(RaftGroupId::new(stream.get() / 2), Found::Entry { term, index, location }, data)
        }
        Recovered::State { stream, data, at } => {
            let kind = if stream.get() % 2 == 0 { Kind::State } else { Kind::Snapshot };
            let found = Found::State { kind, lsn: at.lsn.get() };
            sink(RaftGroupId::new(stream.get() / 2), found, data)
        }
    }
}
