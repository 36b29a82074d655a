//! One WAL: appends of many streams to one ring, group commit, trim, catch-up reads, shutdown.
//! Synchronous: it owns no thread and no clock, and does I/O only through the `Disk` it is given.

use std::io;

use uring::DiskDone;
use uuid::Uuid;

use crate::catch_up::{CatchUp, ReadDone, ReadError};
use crate::device::{BlockDevice, Disk};
use crate::frame::{Part, RecordKey};
use crate::group_commit::{GroupCommit, GroupCommitConfig};
use crate::recovery::{OpenError, Recovered, ScanEvent, ScanReport, Tail, scan};
use crate::ring::RingLayout;
use crate::stats::WalStats;
use crate::superblock::{CopyFault, Superblock, SuperblockUpdate, store};
use crate::token::Token;
use crate::{Location, Lsn, StreamId, TOKEN_SPACE, WriterEpoch};

/// Whose WAL it must be, and which slice of the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    pub cluster_id: Uuid,
    pub node_id: i32,
    pub slice_index: u16,
    pub slice_count: u16,
}

/// Bytes of a frame buffer unless told otherwise; a reactor should have some of that size
/// registered. Four batches of 128 KiB fit: writes of half a MiB get most of a device's bandwidth.
/// Six buffers for each of two cores are within the 8 MiB that users may lock by default.
pub const FRAME_BUFFER_SIZE: u32 = 576 << 10;

/// How many of them a reactor should have registered.
pub const FRAME_BUFFER_COUNT: u16 = 6;

/// How to run a WAL; none of it is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WalOptions {
    /// Frame writes in flight at most, 1 to 64. Small with a volatile cache, where each is a flush
    /// that queues behind the one before; larger with write-through.
    pub depth: usize,
    /// Bytes that a frame must have to be written beside others in flight: a smaller one waits for
    /// those and grows meanwhile, since two flushes at once take as long as two in turn.
    pub beside_min: usize,
    /// Bytes of one frame buffer, so about the largest group commit of small records. Capped at a
    /// quarter of the segment.
    pub frame_size_max: usize,
    /// Segments that only state records and vital entries may use. The last of them is for states
    /// alone, so that trimming can always be recorded.
    pub reserve_segments: u32,
    /// Catch-up reads in flight at most, 1 to 64.
    pub reads_in_flight_max: usize,
    /// Catch-up reads waiting at most.
    pub reads_queued_max: usize,
}

impl WalOptions {
    /// For a device whose cache is volatile: few writes in flight, each carries a flush.
    pub const VOLATILE_CACHE: Self = Self {
        depth: 4,
        beside_min: 64 << 10,
        frame_size_max: FRAME_BUFFER_SIZE as usize,
        reserve_segments: 1,
        reads_in_flight_max: 4,
        reads_queued_max: 256,
    };
    /// For a device that is durable when it says so.
    pub const WRITE_THROUGH: Self = Self { depth: 8, beside_min: 0, ..Self::VOLATILE_CACHE };

    /// What suits a device, whose cache is volatile or is not.
    pub const fn for_cache(volatile: bool) -> Self {
        if volatile { Self::VOLATILE_CACHE } else { Self::WRITE_THROUGH }
    }

    fn check(&self, layout: &RingLayout) -> Result<(), OpenError> {
        let ensure = |option, value: usize, min: usize, max: usize| {
            let (value, min, max) = (value as u64, min as u64, max as u64);
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(OpenError::Options { option, value, min, max })
        };
        ensure("depth", self.depth, 1, 64)?;
        ensure("frame_size_max", self.frame_size_max, 4 * layout.block(), 64 << 20)?;
        ensure("reads_in_flight_max", self.reads_in_flight_max, 1, 64)?;
        ensure("reads_queued_max", self.reads_queued_max, 1, 1 << 16)?;
        let reserve_max = layout.segment_count as usize - 3;
        ensure("reserve_segments", self.reserve_segments as usize, 0, reserve_max)
    }
}

impl Default for WalOptions {
    fn default() -> Self {
        Self::VOLATILE_CACHE
    }
}

/// What to append. The parts are copied one after the other.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    Entry {
        stream: StreamId,
        term: u64,
        index: u64,
        parts: &'a [Part<'a>],
        /// Without it nothing would ever become free: it may use what others may not.
        vital: bool,
    },
    /// The latest state of a stream replaces those before it.
    State { stream: StreamId, parts: &'a [Part<'a>] },
}

/// Where a record was put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// The record is durable when `Wal::durable_lsn` has reached this.
    pub end: Lsn,
    pub data: Location,
}

/// Why nothing was appended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendError {
    #[error("the WAL is full: trim, then append again")]
    Full,
    #[error("the frames before are still being written: append again after the next completion")]
    Busy,
    #[error("the record is larger than {max} bytes")]
    TooLarge { max: usize },
    #[error("the WAL has failed or is shutting down")]
    Failed,
}

/// How full the ring is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Pressure {
    Normal,
    /// More than three quarters of what entries may use: slow producers down.
    High,
    /// Entries would need the reserve: they are refused, state records are not.
    Full,
}

/// The device write that ended this WAL's life.
#[derive(Debug, thiserror::Error)]
#[error("WAL write of {what} at device offset {offset} failed: {source}")]
pub struct WalFailure {
    pub what: &'static str,
    /// Bytes.
    pub offset: u64,
    pub source: io::Error,
}

/// What opening found and did.
#[derive(Clone, Debug)]
pub struct RecoveryReport {
    pub ring_id: Uuid,
    pub writer_epoch: WriterEpoch,
    /// The last shutdown was clean.
    pub clean: bool,
    pub trimmed_lsn: Lsn,
    /// End of the log: everything before it was delivered and is durable.
    pub durable_lsn: Lsn,
    pub scan: ScanReport,
    /// Superblock copies that were damaged or out of date, now repaired.
    pub superblock_faults: Vec<CopyFault>,
}

impl RecoveryReport {
    /// A write was cut off by the crash; it had not been acknowledged.
    pub fn torn_tail(&self) -> bool {
        self.scan.tail.is_some_and(Tail::is_torn)
    }
}

/// A write-ahead log on one slice of a device.
pub struct Wal {
    options: WalOptions,
    layout: RingLayout,
    entry_size_max: usize,
    commit: GroupCommit,
    superblock: SuperblockUpdate,
    catch_up: CatchUp,
    /// Trim point asked for; the space is free once the superblock says so durably.
    trimmed_lsn: Lsn,
    appended_since_tick: bool,
    closing: bool,
    failure: Option<WalFailure>,
    stats: WalStats,
}

impl Wal {
    /// Recovers the slice: delivers its records to `sink` in LSN order, declares them durable, and
    /// takes a new writer epoch. On an error what was delivered must be thrown away; the log on
    /// the device is unchanged.
    pub fn open(
        device: &mut impl BlockDevice,
        expected: &Identity,
        options: WalOptions,
        sink: &mut dyn FnMut(Recovered<'_>),
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let loaded = crate::slice::find(device, expected)?;
        let found = loaded.superblock;
        options.check(&found.layout)?;
        let scan = scan(device, &found, &mut |event| {
            if let ScanEvent::Record(record) = event {
                sink(record);
            }
        })?;
        let current = take_over(device, &found, scan.end)?;
        let report = RecoveryReport {
            ring_id: current.ring_id,
            writer_epoch: current.writer_epoch,
            clean: found.clean,
            trimmed_lsn: current.trimmed_lsn,
            durable_lsn: scan.end,
            scan,
            superblock_faults: loaded.faults,
        };
        Ok((Self::new(options, current, report.durable_lsn), report))
    }

    fn new(options: WalOptions, superblock: Superblock, end: Lsn) -> Self {
        let layout = superblock.layout;
        let block = layout.block();
        // Room for a whole frame and the seal behind it, never more than recovery accepts.
        let frame_cap = layout.frame_size_max() + block;
        let buffer_size = options.frame_size_max.min(frame_cap) / block * block;
        let config = GroupCommitConfig {
            layout,
            ring_id: superblock.ring_id,
            writer_epoch: superblock.writer_epoch,
            depth: options.depth,
            beside_min: options.beside_min,
            buffer_size,
            end,
        };
        Self {
            options,
            layout,
            entry_size_max: layout.entry_size_max(),
            commit: GroupCommit::new(config),
            trimmed_lsn: superblock.trimmed_lsn,
            superblock: SuperblockUpdate::new(superblock),
            catch_up: CatchUp::new(layout, options.reads_in_flight_max, options.reads_queued_max),
            appended_since_tick: false,
            closing: false,
            failure: None,
            stats: WalStats::default(),
        }
    }

    /// Takes the frame buffers from `disk` ahead of need. Optional: registered buffers are few, and
    /// this is how the WAL gets its share first.
    pub fn prepare(&mut self, disk: &mut (impl Disk + ?Sized)) {
        self.commit.prepare(disk);
    }

    /// Bytes of data that one record may have: a quarter of a segment less the headers.
    pub const fn entry_size_max(&self) -> usize {
        self.entry_size_max
    }

    /// Copies the record into the open frame. Nothing is written before `submit`.
    pub fn append(&mut self, record: Record<'_>) -> Result<Appended, AppendError> {
        if self.failure.is_some() || self.closing {
            return Err(AppendError::Failed);
        }
        let (key, parts, segment_end) = match record {
            Record::Entry { stream, term, index, parts, vital } => {
                (RecordKey::Entry { stream, term, index }, parts, self.entry_segment_end(vital))
            }
            Record::State { stream, parts } => {
                (RecordKey::State { stream }, parts, self.segment_end())
            }
        };
        let data_size = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        if data_size > self.entry_size_max {
            return Err(AppendError::TooLarge { max: self.entry_size_max });
        }
        let appended = self.commit.append(key, parts, data_size, segment_end);
        match &appended {
            Ok(_) => {
                self.appended_since_tick = true;
                self.stats.records += 1;
                self.stats.record_bytes += data_size as u64;
            }
            Err(AppendError::Full) => self.stats.full += 1,
            Err(_) => self.stats.busy += 1,
        }
        appended
    }

    /// Group commit: writes what may be written now. Call it after a round of appends, and after
    /// completions.
    pub fn submit(&mut self, disk: &mut (impl Disk + ?Sized)) {
        if self.failure.is_none() {
            self.commit.submit(disk, &mut self.stats);
            self.update_superblock();
            self.superblock.submit(disk);
        }
        self.catch_up.submit(disk, !self.commit.is_idle());
    }

    /// Whether a completion's token is one of a WAL's.
    pub const fn owns(token: u64) -> bool {
        token & TOKEN_SPACE != 0
    }

    /// Takes a completion whose token is this WAL's; returns a catch-up read that is over.
    pub fn complete(
        &mut self,
        disk: &mut (impl Disk + ?Sized),
        done: DiskDone,
    ) -> Option<ReadDone> {
        let token = Token::parse(done.token).expect("a token of this WAL");
        let read = match token {
            Token::Write(number) => {
                self.complete_write(number, done);
                None
            }
            Token::Superblock(copy_index) => {
                self.complete_superblock(copy_index, done);
                None
            }
            Token::Read(slot) => Some(self.complete_read(slot, done)),
        };
        if self.failure.is_none() {
            self.superblock.submit(disk);
        }
        self.catch_up.submit(disk, !self.commit.is_idle());
        read
    }

    /// Everything before it is durable.
    pub const fn durable_lsn(&self) -> Lsn {
        self.commit.durable_lsn()
    }

    /// Everything before it was handed to the device.
    pub const fn written_lsn(&self) -> Lsn {
        self.commit.written_lsn()
    }

    /// Everything before it is gone.
    pub const fn trimmed_lsn(&self) -> Lsn {
        self.trimmed_lsn
    }

    /// Starts to read the data of a durable record. `token` is the caller's own.
    pub fn read(
        &mut self,
        disk: &mut (impl Disk + ?Sized),
        at: Location,
        token: u64,
    ) -> Result<(), ReadError> {
        self.catch_up.push(at, token, self.trimmed_lsn, self.commit.durable_lsn())?;
        self.catch_up.submit(disk, !self.commit.is_idle());
        Ok(())
    }

    /// Gives up everything before `to`, in whole segments, never past what is durable. The space
    /// is used again once the superblock has the new trim point, which `submit` writes.
    pub fn trim(&mut self, to: Lsn) {
        let to = self.layout.segment_start_of(to.min(self.commit.durable_lsn()));
        self.trimmed_lsn = self.trimmed_lsn.max(to);
    }

    /// Bytes that [`Self::trim`] to a position would free.
    pub fn trimmable(&self, to: Lsn) -> u64 {
        let to = self.layout.segment_start_of(to.min(self.commit.durable_lsn()));
        if to > self.trimmed_lsn { to.since(self.trimmed_lsn) } else { 0 }
    }

    /// Bytes of the segments that entries may still open: what is left of the open one not counted.
    pub fn room(&self) -> u64 {
        self.room_before(self.entry_segment_end(false))
    }

    /// The same for vital entries; in the last segment that they may use, what is left of it.
    pub fn vital_room(&self) -> u64 {
        let (end, last) = (self.commit.end(), self.entry_segment_end(true));
        if self.layout.segment_of(end) + 1 == last {
            self.layout.room_in_segment(end) as u64
        } else {
            self.room_before(last)
        }
    }

    fn room_before(&self, segment_end: u64) -> u64 {
        let open = self.layout.segment_of(self.commit.end());
        segment_end.saturating_sub(open + 1) * self.layout.segment_size
    }

    /// Bytes of the ring between the trim point and the end of the log.
    pub fn used(&self) -> u64 {
        self.commit.end().since(self.superblock.current().trimmed_lsn)
    }

    /// Bytes that the ring can hold.
    pub const fn capacity(&self) -> u64 {
        self.layout.capacity()
    }

    /// Bytes of one segment.
    pub const fn segment_size(&self) -> u64 {
        self.layout.segment_size
    }

    pub fn pressure(&self) -> Pressure {
        let first = self.layout.segment_of(self.superblock.current().trimmed_lsn);
        let used = self.layout.segment_of(self.commit.end()) - first;
        let usable = self.entry_segment_end(false) - first;
        if used >= usable {
            Pressure::Full
        } else if (used + 1) * 4 > usable * 3 {
            Pressure::High
        } else {
            Pressure::Normal
        }
    }

    /// A failed or short device write: nothing becomes durable any more.
    pub const fn failed(&self) -> Option<&WalFailure> {
        self.failure.as_ref()
    }

    /// Call at a slow, steady pace. If nothing was appended since the last call, and no frame on
    /// the device yet says that the last data is durable, an empty frame is queued that says so:
    /// from then on, rot in the last data frame is told from a torn tail.
    pub fn tick(&mut self) {
        let idle = !std::mem::take(&mut self.appended_since_tick);
        if idle && self.failure.is_none() && !self.closing {
            self.commit.mark_if_unrecorded(self.segment_end());
        }
    }

    /// Refuses appends from now on; `submit` writes what is pending, then the clean mark.
    pub const fn begin_shutdown(&mut self) {
        self.closing = true;
    }

    /// The clean mark is durable and nothing is in flight.
    pub fn shutdown_done(&self) -> bool {
        self.superblock.current().clean
            && self.superblock.is_idle()
            && self.catch_up.in_flight() == 0
    }

    /// No frame is pending or in flight, no superblock update under way.
    pub fn is_idle(&self) -> bool {
        self.commit.is_idle() && self.superblock.is_idle()
    }

    pub fn stats(&self) -> WalStats {
        WalStats {
            writes_in_flight: self.commit.in_flight(),
            written_lsn: self.commit.written_lsn(),
            durable_lsn: self.commit.durable_lsn(),
            trimmed_lsn: self.trimmed_lsn,
            used_bytes: self.used(),
            capacity_bytes: self.layout.capacity(),
            reserve_bytes: self.layout.segment_size * u64::from(self.options.reserve_segments),
            ..self.stats.clone()
        }
    }

    /// Number of the first segment that still holds trimmed or live data of the lap before.
    fn segment_end(&self) -> u64 {
        let trimmed = self.superblock.current().trimmed_lsn;
        self.layout.segment_of(trimmed) + u64::from(self.layout.segment_count)
    }

    fn entry_segment_end(&self, vital: bool) -> u64 {
        let reserve = self.options.reserve_segments;
        self.segment_end() - u64::from(if vital { reserve.min(1) } else { reserve })
    }

    fn update_superblock(&mut self) {
        if !self.superblock.is_idle() {
            return;
        }
        let (trimmed_lsn, durable_lsn) = (self.trimmed_lsn, self.commit.durable_lsn());
        let current = self.superblock.current();
        let close = self.closing && self.commit.is_idle() && !current.clean;
        if !close && trimmed_lsn == current.trimmed_lsn {
            return;
        }
        self.stats.superblock_updates += 1;
        self.superblock.start(|next| {
            next.trimmed_lsn = trimmed_lsn;
            next.durable_lsn_hint = durable_lsn;
            next.clean = close || next.clean;
        });
    }

    fn complete_write(&mut self, number: u64, done: DiskDone) {
        if self.failure.is_some() {
            // Whatever this write says, nothing becomes durable after a failure.
            return;
        }
        if let Err((offset, source)) = self.commit.complete(number, done.buf, done.result) {
            self.failure = Some(WalFailure { what: "a frame", offset, source });
        }
    }

    fn complete_superblock(&mut self, copy_index: u64, done: DiskDone) {
        if self.failure.is_some() {
            return;
        }
        if let Err((offset, source)) = self.superblock.complete(copy_index, done.buf, done.result) {
            self.failure = Some(WalFailure { what: "a superblock copy", offset, source });
        }
    }

    fn complete_read(&mut self, slot: usize, done: DiskDone) -> ReadDone {
        let read = self.catch_up.complete(slot, &done.buf, done.result, self.trimmed_lsn);
        match &read.result {
            Ok(data) => {
                self.stats.reads += 1;
                self.stats.read_bytes += data.len() as u64;
            }
            Err(_) => self.stats.read_errors += 1,
        }
        read
    }
}

/// Makes what was read durable, then the new writer epoch, before anything is written under it.
fn take_over(
    device: &mut impl BlockDevice,
    found: &Superblock,
    end: Lsn,
) -> Result<Superblock, OpenError> {
    let fail = |source| OpenError::Write { source };
    // The last writer may have died with completed writes still in a volatile cache. They were
    // read back from there; only a flush makes it true that they survive the next power cut.
    device.flush().map_err(fail)?;
    let next = Superblock {
        sequence: found.sequence + 1,
        writer_epoch: found.writer_epoch.next(),
        durable_lsn_hint: end,
        clean: false,
        ..*found
    };
    store(device, &next).map_err(fail)?;
    Ok(next)
}
