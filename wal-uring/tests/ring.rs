//! The conformance suite through a real ring: on a file under the target folder, or on the file or
//! block device that `TAILRACE_TEST_DEVICE` names, **whose content is lost**.
//! `tools/wal-devices.sh` runs it on ext4, XFS and loop devices with 512 and 4096-byte blocks.

mod suite;

use std::net::SocketAddr;
use std::path::PathBuf;

use suite::{Plan, Store};
use uring::{
    CloseReason, ConnId, DeviceFile, DiskDone, FileId, Handler, Io, ListenerId, OpenMode, Reactor,
    ReactorConfig,
};
use wal_uring::{Disk, FileDevice, RingDisk};

const FILE_SIZE: u64 = 4 << 20;
/// Each is hundreds of synced writes; a loop device takes a second for them.
const SEEDS: u64 = 10;

/// A file or block device behind a reactor.
struct RingStore {
    device: DeviceFile,
    file: FileId,
    completions: Completions,
    in_flight: usize,
    // Dropped last: it waits for what the kernel still has.
    reactor: Reactor,
}

#[derive(Default)]
struct Completions(std::collections::VecDeque<DiskDone>);

impl Handler for Completions {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, _: ConnId, _: SocketAddr) {}
    fn received(&mut self, _: &mut Io, _: ConnId, _: &[u8]) {}
    fn sent(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, _: ConnId, _: CloseReason) {}
    fn disk(&mut self, _: &mut Io, done: DiskDone) {
        self.0.push_back(done);
    }
    fn has_work(&mut self) -> bool {
        false
    }
}

/// Counts requests on their way to the ring.
struct Counted<'a> {
    disk: RingDisk<'a>,
    in_flight: &'a mut usize,
}

impl Disk for Counted<'_> {
    fn take_buffer(&mut self, len: usize) -> uring::AlignedBuf {
        self.disk.take_buffer(len)
    }

    fn write(&mut self, token: u64, offset: u64, buf: uring::AlignedBuf, len: usize) {
        *self.in_flight += 1;
        self.disk.write(token, offset, buf, len);
    }

    fn read(&mut self, token: u64, offset: u64, buf: uring::AlignedBuf, len: usize) {
        *self.in_flight += 1;
        self.disk.read(token, offset, buf, len);
    }
}

impl RingStore {
    fn new(path: &PathBuf) -> Self {
        let device = DeviceFile::open(path, OpenMode::Create).expect("the device opens");
        if !device.is_block_device() {
            device.resize(FILE_SIZE).expect("the file grows");
        }
        let config = ReactorConfig {
            entries: 64,
            recv_buffer_count: 1,
            fixed_buffer_count: 8,
            fixed_buffer_size: 64 << 10,
            ..ReactorConfig::default()
        };
        let mut reactor = Reactor::new(&config).expect("a ring");
        let file = reactor.io().register_file(device.file().expect("a duplicate"));
        let file = file.expect("registered");
        Self { device, file, completions: Completions::default(), in_flight: 0, reactor }
    }
}

impl Store for RingStore {
    type Device<'a> = FileDevice<'a>;

    fn device(&mut self) -> FileDevice<'_> {
        FileDevice::new(&self.device).expect("the size is known")
    }

    fn with_disk(&mut self, work: &mut dyn FnMut(&mut dyn Disk)) {
        let durable = self.device.write_cache().needs_sync();
        let disk = RingDisk { io: self.reactor.io(), file: self.file, durable };
        work(&mut Counted { disk, in_flight: &mut self.in_flight });
    }

    fn wait(&mut self) -> Option<DiskDone> {
        if self.in_flight == 0 {
            return None;
        }
        while self.completions.0.is_empty() {
            self.reactor.turn(None, &mut self.completions).expect("the ring works");
        }
        self.in_flight -= 1;
        self.completions.0.pop_front()
    }

    /// A killed process: the kernel finishes what it has.
    fn end(&mut self, _: bool) {
        while self.wait().is_some() {}
    }
}

fn path() -> PathBuf {
    std::env::var_os("TAILRACE_TEST_DEVICE").map_or_else(
        || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("wal-ring-suite"),
        PathBuf::from,
    )
}

#[test]
fn a_real_ring_passes_the_suite_on_each_slice() {
    let mut store = RingStore::new(&path());
    let finest = store.device.logical_block_size();
    let mut salt = [0; 4];
    rustix::rand::getrandom(&mut salt[..], rustix::rand::GetRandomFlags::empty()).expect("random");
    let ring_salt = u32::from_le_bytes(salt);
    for seed in 0..SEEDS {
        let slice_index = u16::try_from(seed % 2).expect("0 or 1");
        let plan =
            Plan { slice_index, slice_count: 2, lives: 4, ring_salt, ..Plan::from_seed(seed) };
        let plan = Plan { block_size: plan.block_size.max(finest), ..plan };
        suite::run(&mut store, &plan);
    }
}
