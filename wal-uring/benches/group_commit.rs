//! What a group commit costs the core, without the device: append, checksum, stamp, complete.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uring::{AlignedBuf, DiskDone, DiskOpKind};
use uuid::Uuid;
use wal_uring::format::ZeroFill;
use wal_uring::sim::{SimDisk, SimDiskOptions};
use wal_uring::{Disk, FormatOptions, Identity, Part, Record, StreamId, Wal, WalOptions, format};

/// Completes every write at once.
#[derive(Default)]
struct NoDisk(Vec<DiskDone>);

impl Disk for NoDisk {
    fn take_buffer(&mut self, len: usize) -> AlignedBuf {
        AlignedBuf::zeroed(len, 4096)
    }

    fn write(&mut self, token: u64, _: u64, buf: AlignedBuf, _: usize) {
        self.0.push(DiskDone { token, kind: DiskOpKind::Write, buf, result: Ok(()) });
    }

    fn read(&mut self, _: u64, _: u64, _: AlignedBuf, _: usize) {}
}

fn new_wal() -> Wal {
    let identity = Identity { cluster_id: Uuid::nil(), node_id: 1, slice_index: 0, slice_count: 1 };
    let mut device = SimDisk::new(1, SimDiskOptions::new(64 << 20, 4096));
    let options = FormatOptions {
        cluster_id: identity.cluster_id,
        node_id: 1,
        incarnation: 0,
        ring_id: Uuid::from_u128(1),
        slice_count: 1,
        block_size: None,
        segment_size: None,
        zero_fill: ZeroFill::Headers,
        force: true,
    };
    format(&mut device, &options, &mut |_, _| {}).expect("format");
    Wal::open(&mut device, &identity, WalOptions::WRITE_THROUGH, &mut |_| {}).expect("open").0
}

fn commit(wal: &mut Wal, disk: &mut NoDisk, records: u64, data: &[u8]) {
    for index in 0..records {
        let stream = StreamId::new(1);
        let record = Record::Entry {
            stream,
            term: 1,
            index,
            parts: &[Part::of(black_box(data))],
            vital: false,
        };
        wal.append(record).expect("there is room");
    }
    wal.submit(disk);
    while let Some(done) = disk.0.pop() {
        wal.complete(disk, done);
    }
    wal.trim(wal.durable_lsn());
}

fn group_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group_commit");
    for (records, size) in [(1, 100), (1, 1024), (64, 1024), (1, 64 << 10)] {
        let data = vec![7; size];
        let (mut wal, mut disk) = (new_wal(), NoDisk::default());
        group.throughput(Throughput::Bytes(records * size as u64));
        group.bench_function(format!("{records}x{size}"), |bencher| {
            bencher.iter(|| commit(&mut wal, &mut disk, records, &data));
        });
    }
    group.finish();
}

criterion_group!(benches, group_commit);
criterion_main!(benches);
