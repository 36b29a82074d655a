//! The core that appends.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use uring::{
    CloseReason, ConnId, DeviceFile, DiskDone, FileId, Handler, Io, ListenerId, OpenMode, Reactor,
    ReactorConfig,
};
use uuid::Uuid;
use wal_uring::format::{ZeroFill, format_path};
use wal_uring::{
    AppendError, FRAME_BUFFER_COUNT, FRAME_BUFFER_SIZE, FileDevice, FormatOptions, Identity, Lsn,
    Part, Record, RingDisk, StreamId, Wal, WalOptions,
};

use crate::BenchError;
use crate::clock::{Clock, nanos};

/// Different records in turn, so that what is copied comes from memory, as received bytes do.
const SOURCE_COUNT: usize = 32;

/// The last writes may take this long.
const END_NANOS_MAX: u64 = 10_000_000_000;

const IDENTITY: Identity =
    Identity { cluster_id: Uuid::nil(), node_id: 0, slice_index: 0, slice_count: 1 };

/// What became durable, and what it took.
pub(super) struct Outcome {
    pub(super) write_cache: String,
    pub(super) nanos: u64,
    pub(super) records: u64,
    /// Writes of frames, and their bytes.
    pub(super) writes: u64,
    pub(super) written: u64,
}

/// Makes a file with an empty WAL.
pub(super) fn make(path: &Path, size: u64) -> Result<(), BenchError> {
    let options = FormatOptions {
        cluster_id: IDENTITY.cluster_id,
        node_id: IDENTITY.node_id,
        incarnation: 0,
        ring_id: Uuid::from_u128(1),
        slice_count: IDENTITY.slice_count,
        block_size: None,
        segment_size: None,
        zero_fill: ZeroFill::All,
        force: false,
    };
    Ok(format_path(path, Some(size), &options, &mut |_, _| {})?)
}

/// Appends for `time`, and waits until all of it is durable.
pub(super) fn run(
    path: &Path,
    record_size: usize,
    in_flight: u64,
    time: Duration,
) -> Result<Outcome, BenchError> {
    let device = DeviceFile::open(path, OpenMode::ReadWrite)?;
    let durable = device.write_cache().needs_sync();
    let mut reactor = Reactor::new(&ReactorConfig {
        fixed_buffer_count: FRAME_BUFFER_COUNT,
        fixed_buffer_size: FRAME_BUFFER_SIZE,
        ..ReactorConfig::default()
    })
    .map_err(|error| BenchError::Wal { why: error.to_string() })?;
    let file = device.file().and_then(|file| reactor.io().register_file(file));
    let file = file.map_err(BenchError::io("register the file"))?;
    let mut blocks = FileDevice::new(&device).map_err(BenchError::io("look at the file"))?;
    let (mut wal, _) =
        Wal::open(&mut blocks, &IDENTITY, WalOptions::for_cache(durable), &mut |_| {})
            .map_err(|error| BenchError::Wal { why: error.to_string() })?;
    wal.prepare(&mut RingDisk { io: reactor.io(), file, durable });
    let mut appender = Appender::new(wal, record_size, in_flight, file, durable);
    let (clock, end) = (Clock::start(), nanos(time));
    loop {
        let now = clock.now();
        appender.step(reactor.io(), now < end)?;
        if now >= end && appender.is_durable() {
            let stats = appender.wal.stats();
            let write_cache = device.write_cache().to_string();
            let writes = stats.data_frames + stats.seal_frames;
            let (records, written) = (stats.records, stats.written_bytes);
            return Ok(Outcome { write_cache, nanos: now, records, writes, written });
        }
        if now > end + END_NANOS_MAX {
            return Err(BenchError::Wal { why: "the last writes do not end".to_owned() });
        }
        reactor.turn(None, &mut appender).map_err(BenchError::io("run the reactor"))?;
    }
}

/// What a shard does with its WAL, with records made up beforehand.
struct Appender {
    wal: Wal,
    file: FileId,
    durable: bool,
    sources: Vec<Vec<u8>>,
    in_flight: u64,
    /// Records appended.
    index: usize,
    /// Where the last of them ends.
    end: Lsn,
}

impl Appender {
    fn new(wal: Wal, record_size: usize, in_flight: u64, file: FileId, durable: bool) -> Self {
        let source = |byte: usize| vec![byte.to_le_bytes()[0]; record_size];
        let (sources, end) = ((0..SOURCE_COUNT).map(source).collect(), wal.durable_lsn());
        Self { wal, file, durable, sources, in_flight, index: 0, end }
    }

    fn is_durable(&self) -> bool {
        self.wal.durable_lsn() >= self.end
    }

    /// Gives up what is durable, appends what there is room for, and writes.
    fn step(&mut self, io: &mut Io, appends: bool) -> Result<(), BenchError> {
        if let Some(failure) = self.wal.failed() {
            return Err(BenchError::Wal { why: failure.to_string() });
        }
        self.wal.trim(self.wal.durable_lsn());
        // What waits goes to the device before more is copied.
        self.wal.submit(&mut RingDisk { io, file: self.file, durable: self.durable });
        while appends && self.end.since(self.wal.durable_lsn()) < self.in_flight {
            let source = &self.sources[self.index % SOURCE_COUNT];
            let appended = self.wal.append(Record::Entry {
                stream: StreamId::new(1),
                term: 1,
                index: self.index as u64,
                parts: &[Part::of(source)],
                vital: false,
            });
            match appended {
                Ok(appended) => (self.index, self.end) = (self.index + 1, appended.end),
                Err(AppendError::Busy | AppendError::Full) => break,
                Err(error) => return Err(BenchError::Wal { why: error.to_string() }),
            }
        }
        self.wal.submit(&mut RingDisk { io, file: self.file, durable: self.durable });
        Ok(())
    }
}

impl Handler for Appender {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, _: ConnId, _: SocketAddr) {}

    fn received(&mut self, _: &mut Io, _: ConnId, _: &[u8]) {}

    fn sent(&mut self, _: &mut Io, _: ConnId) {}

    fn closed(&mut self, _: &mut Io, _: ConnId, _: CloseReason) {}

    fn disk(&mut self, io: &mut Io, done: DiskDone) {
        self.wal.complete(&mut RingDisk { io, file: self.file, durable: self.durable }, done);
    }

    fn has_work(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use wal_uring::Recovered;

    use super::*;

    const RECORD_SIZE: usize = 100_000;

    /// A file of 32 MiB with a WAL; none where files take no direct I/O, as on a tmpfs.
    fn wal_file(name: &str) -> Option<PathBuf> {
        let path = std::env::temp_dir().join(format!("bench-wal-{name}-{}", std::process::id()));
        match make(&path, 32 << 20) {
            Err(BenchError::Format(wal_uring::FormatError::Open(
                uring::DeviceError::NoDirectIo { .. },
            ))) => None,
            made => made.map(|()| Some(path)).unwrap(),
        }
    }

    #[test]
    fn what_was_told_to_be_durable_is_found_by_recovery() {
        let Some(path) = wal_file("durable") else { return };
        let outcome = run(&path, RECORD_SIZE, 1 << 20, Duration::from_millis(100));
        let mut last = None;
        let device = DeviceFile::open(&path, OpenMode::ReadWrite).unwrap();
        let mut blocks = FileDevice::new(&device).unwrap();
        let options = WalOptions::for_cache(true);
        let opened = Wal::open(&mut blocks, &IDENTITY, options, &mut |recovered| {
            if let Recovered::Entry { index, data, .. } = recovered {
                assert_eq!(data.len(), RECORD_SIZE);
                assert!(data.iter().all(|byte| u64::from(*byte) == index % SOURCE_COUNT as u64));
                last = Some(index);
            }
        });
        std::fs::remove_file(&path).unwrap();
        opened.unwrap();
        let outcome = outcome.unwrap();
        assert_eq!(last.map(|index| index + 1), Some(outcome.records));
        assert!(outcome.written > outcome.records * RECORD_SIZE as u64 && outcome.writes > 0);
    }

    #[test]
    fn a_record_that_a_segment_cannot_take_is_refused() {
        let Some(path) = wal_file("large") else { return };
        let outcome = run(&path, 16 << 20, 1 << 20, Duration::from_millis(100));
        std::fs::remove_file(&path).unwrap();
        let error = outcome.err().expect("a segment has 2 MiB").to_string();
        assert!(error.starts_with("the WAL: the record is larger than"), "{error}");
    }
}
