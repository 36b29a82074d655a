//! The WAL that the rebuilt groups are found in.

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use replication::RestoredGroup;
use tools::format::random_uuid;
use tools::size::Size;
use uring::device::{DeviceFile, OpenMode};
use uring::{
    CloseReason, ConnId, DiskDone, FileId, Handler, Io, ListenerId, Reactor, ReactorConfig,
};
use wal_uring::format::{FormatOptions, ZeroFill, format_path};
use wal_uring::{
    AppendError, Disk, FRAME_BUFFER_COUNT, FRAME_BUFFER_SIZE, FileDevice, Identity, Part, Record,
    RingDisk, StreamId, Wal,
};

use super::{Rebuild, Rebuilt, RecoverError, RecoverSettings};
use crate::data_dir::wal_path;
use crate::shard::replicated_log::{snapshot_stream, stream};
use crate::shard_thread::options;
use crate::start::{StartError, data_dir_error};

/// A completion wakes the loop long before.
const TURN: Duration = Duration::from_secs(1);

/// Where the WAL will be. A file gets its name when it is complete: half of a cluster would be
/// started as a whole one.
pub(super) struct Target {
    path: PathBuf,
    written: PathBuf,
    size: Size,
    is_device: bool,
}

impl Target {
    /// Makes the data directory, and refuses one that is in use.
    pub(super) fn new(settings: &RecoverSettings) -> Result<Self, RecoverError> {
        let directory = &settings.data_dir;
        fs::create_dir_all(directory).map_err(|error| data_dir_error(directory, error))?;
        let path = wal_path(directory, settings.wal.as_deref());
        let is_device = fs::metadata(&path).is_ok_and(|it| it.file_type().is_block_device());
        if path.exists() && !is_device {
            return Err(RecoverError::Exists { path });
        }
        let mut written = path.clone();
        if !is_device {
            written.as_mut_os_string().push(".recovering");
        }
        Ok(Self { path, written, size: settings.wal_size, is_device })
    }

    /// Formats it and writes the state of each group into the slice of its shard.
    pub(super) fn write(&self, rebuild: &Rebuild) -> Result<(), RecoverError> {
        let Rebuild { bucket, metadata, .. } = rebuild;
        let options = FormatOptions {
            cluster_id: bucket.cluster_id,
            node_id: metadata.node.get(),
            incarnation: metadata.incarnation,
            ring_id: random_uuid().map_err(StartError::from)?,
            slice_count: metadata.shard_count(),
            block_size: None,
            segment_size: None,
            zero_fill: ZeroFill::All,
            // What an earlier attempt left; a device that holds anything is refused.
            force: !self.is_device,
        };
        let size = (!self.is_device).then_some(self.size.get());
        format_path(&self.written, size, &options, &mut |_, _| {}).map_err(StartError::from)?;
        let written = self.write_slices(&options, rebuild);
        if written.is_err() && !self.is_device {
            // The first error is the one to tell; the next attempt overwrites the file.
            let _ = fs::remove_file(&self.written);
        }
        written?;
        if self.is_device {
            return Ok(());
        }
        let named = fs::rename(&self.written, &self.path).and_then(|()| sync_folder(&self.path));
        named.map_err(|error| self.failed(error.to_string()))
    }

    fn write_slices(&self, options: &FormatOptions, rebuild: &Rebuild) -> Result<(), RecoverError> {
        let own = rebuild.metadata.voter();
        let slice_count = options.slice_count;
        let device = DeviceFile::open(&self.written, OpenMode::ReadWrite);
        let device = device.map_err(StartError::from)?;
        for slice_index in 0..slice_count {
            let identity = Identity {
                cluster_id: options.cluster_id,
                node_id: options.node_id,
                slice_index,
                slice_count,
            };
            let here = |found: &&Rebuilt| found.shard.get() == slice_index;
            let mut slice = Slice::open(&device, &identity)?;
            for rebuilt in rebuild.groups.iter().filter(here) {
                slice.writer.beginning.push(own, rebuilt)?;
            }
            slice.finish().map_err(|reason| self.failed(reason))?;
        }
        Ok(())
    }

    fn failed(&self, reason: String) -> RecoverError {
        RecoverError::Wal { path: self.path.clone(), reason }
    }
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// What a slice begins with: the groups of its shard, and the mark of a clean stop.
pub(super) struct Beginning {
    pub(super) wal: Wal,
    records: VecDeque<(StreamId, Bytes)>,
}

/// One shard's WAL while that is written.
struct Slice {
    reactor: Reactor,
    writer: Writer,
}

struct Writer {
    beginning: Beginning,
    file: FileId,
    durable: bool,
}

impl Slice {
    fn open(device: &DeviceFile, identity: &Identity) -> Result<Self, RecoverError> {
        let shard = identity.slice_index;
        let failed = |reason: String| StartError::Failed { shard, reason };
        let mut reactor = Reactor::new(&ReactorConfig {
            fixed_buffer_count: FRAME_BUFFER_COUNT,
            fixed_buffer_size: FRAME_BUFFER_SIZE,
            ..ReactorConfig::default()
        })
        .map_err(StartError::from)?;
        let file = device.file().map_err(|error| failed(error.to_string()))?;
        let file = reactor.io().register_file(file).map_err(|error| failed(error.to_string()))?;
        let durable = device.write_cache().needs_sync();
        let mut blocks = FileDevice::new(device).map_err(|error| failed(error.to_string()))?;
        let (mut wal, _) = Wal::open(&mut blocks, identity, options(durable), &mut |_| {})
            .map_err(|source| StartError::Open { shard, source: Box::new(source) })?;
        wal.prepare(&mut RingDisk { io: reactor.io(), file, durable });
        Ok(Self { reactor, writer: Writer { beginning: Beginning::new(wal), file, durable } })
    }

    /// Writes everything and the mark of a clean stop.
    fn finish(mut self) -> Result<(), String> {
        loop {
            let (file, durable) = (self.writer.file, self.writer.durable);
            let mut disk = RingDisk { io: self.reactor.io(), file, durable };
            if self.writer.beginning.write_on(&mut disk)? {
                return Ok(());
            }
            let by = self.reactor.now() + TURN;
            let turned = self.reactor.turn(Some(by), &mut self.writer);
            turned.map_err(|error| format!("io_uring failed: {error}"))?;
        }
    }
}

impl Beginning {
    pub(super) fn new(wal: Wal) -> Self {
        Self { wal, records: VecDeque::new() }
    }

    /// A group of which `own` is the only member.
    pub(super) fn push(&mut self, own: u64, rebuilt: &Rebuilt) -> Result<(), RecoverError> {
        let Rebuilt { group, index, term, state, .. } = rebuilt;
        let (size, max) = (state.len(), self.wal.entry_size_max());
        let too_large = RecoverError::StateSize { group: *group, size, max };
        let restored = RestoredGroup::new(own, &[own], *index, *term, state.clone()).ok();
        let restored = restored.filter(|restored| restored.snapshot.len() <= max);
        let restored = restored.ok_or(too_large)?;
        self.records.push_back((snapshot_stream(*group), restored.snapshot));
        self.records.push_back((stream(*group), restored.state));
        Ok(())
    }

    /// Writes on; true when all is durable.
    pub(super) fn write_on(&mut self, disk: &mut impl Disk) -> Result<bool, String> {
        self.fill().map_err(|error| error.to_string())?;
        self.wal.submit(disk);
        match self.wal.failed() {
            Some(failure) => Err(failure.to_string()),
            None => Ok(self.wal.shutdown_done()),
        }
    }

    fn fill(&mut self) -> Result<(), AppendError> {
        while let Some((stream, data)) = self.records.front() {
            match self.wal.append(Record::State { stream: *stream, parts: &[Part::of(data)] }) {
                Ok(_) => {
                    self.records.pop_front();
                }
                Err(AppendError::Busy) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.wal.begin_shutdown();
        Ok(())
    }
}

/// Only the disk speaks here: no socket is open.
impl Handler for Writer {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, _: ConnId, _: SocketAddr) {}

    fn received(&mut self, _: &mut Io, _: ConnId, _: &[u8]) {}

    fn sent(&mut self, _: &mut Io, _: ConnId) {}

    fn closed(&mut self, _: &mut Io, _: ConnId, _: CloseReason) {}

    fn disk(&mut self, io: &mut Io, done: DiskDone) {
        let mut disk = RingDisk { io, file: self.file, durable: self.durable };
        self.beginning.wal.complete(&mut disk, done);
    }

    fn has_work(&mut self) -> bool {
        false
    }
}
