//! The promises of the WAL one by one, each on a disk made for it.

use uring::AlignedBuf;
use uuid::Uuid;
use wal_uring::format::ZeroFill;
use wal_uring::ring::SUPERBLOCK_AREA_SIZE;
use wal_uring::sim::{Faults, SimDisk, SimDiskOptions};
use wal_uring::{
    AppendError, BlockDevice, FormatError, FormatOptions, Identity, Lsn, OpenError, Part, Pressure,
    ReadError, Record, Recovered, RecoveryReport, StreamId, Tail, Wal, WalOptions, format,
};

const SEGMENT: u64 = 32 << 10;
const BLOCK: usize = 512;
const SIZE: usize = (64 << 10) + 6 * (32 << 10);
const DISK: SimDiskOptions = SimDiskOptions::new(SIZE as u64, 512);
const ME: Identity =
    Identity { cluster_id: Uuid::from_u128(5), node_id: 1, slice_index: 0, slice_count: 1 };
const FORMAT: FormatOptions = FormatOptions {
    cluster_id: ME.cluster_id,
    node_id: ME.node_id,
    incarnation: 0,
    ring_id: Uuid::from_u128(77),
    slice_count: 1,
    block_size: Some(512),
    segment_size: Some(SEGMENT),
    zero_fill: ZeroFill::Headers,
    force: false,
};
const OPTIONS: WalOptions = WalOptions { depth: 3, beside_min: 0, ..WalOptions::VOLATILE_CACHE };

fn formatted() -> SimDisk {
    let mut disk = SimDisk::new(1, DISK);
    format(&mut disk, &FORMAT, &mut |_, _| {}).expect("an empty disk");
    disk
}

fn open(disk: &mut SimDisk) -> Result<(Wal, RecoveryReport, Vec<Vec<u8>>), OpenError> {
    let mut found = Vec::new();
    let opened = Wal::open(disk, &ME, OPTIONS, &mut |record| {
        if let Recovered::Entry { data, .. } = record {
            found.push(data.to_vec());
        }
    });
    opened.map(|(wal, report)| (wal, report, found))
}

fn append(wal: &mut Wal, data: &[u8]) -> Result<wal_uring::Appended, AppendError> {
    wal.append(Record::Entry {
        stream: StreamId::new(1),
        term: 1,
        index: 1,
        parts: &[Part::of(data)],
        vital: false,
    })
}

/// Appends one frame of one record and hands it to the disk.
fn write(wal: &mut Wal, disk: &mut SimDisk, data: &[u8]) -> Lsn {
    let at = wal.written_lsn();
    append(wal, data).expect("room");
    wal.submit(disk);
    at
}

fn settle(wal: &mut Wal, disk: &mut SimDisk) {
    loop {
        wal.submit(disk);
        let Some(done) = disk.step() else { break };
        wal.complete(disk, done);
    }
}

fn reopened(image: Vec<u8>) -> SimDisk {
    SimDisk::with_image(2, DISK, image)
}

fn offset(lsn: Lsn) -> usize {
    usize::try_from(SUPERBLOCK_AREA_SIZE + lsn.get()).expect("a small disk")
}

#[test]
fn the_worked_crash_a_frame_that_was_cut_off_does_not_come_back() {
    let mut disk = formatted();
    let (mut wal, ..) = open(&mut disk).expect("new");
    write(&mut wal, &mut disk, b"A");
    let b = write(&mut wal, &mut disk, b"B");
    write(&mut wal, &mut disk, b"C");
    // Epoch 1: A and C are on the device, B is torn.
    let mut image = disk.kill();
    image[offset(b)..][..BLOCK].fill(0);
    let mut disk = reopened(image);
    let (mut wal, _, found) = open(&mut disk).expect("B was never durable");
    assert_eq!(found, [b"A".to_vec()]);
    // Epoch 2 writes B', as long as B, and the power fails again.
    write(&mut wal, &mut disk, b"b");
    let mut disk = reopened(disk.kill());
    let (_, report, found) = open(&mut disk).expect("a clean end");
    assert_eq!(found, [b"A".to_vec(), b"b".to_vec()]);
    assert_eq!(report.scan.tail, Some(Tail::OlderEpoch));
}

#[test]
fn rot_in_the_last_frame_is_told_from_a_torn_tail_once_marked() {
    for marked in [false, true] {
        let mut disk = formatted();
        let (mut wal, ..) = open(&mut disk).expect("new");
        write(&mut wal, &mut disk, b"first");
        settle(&mut wal, &mut disk);
        let last = write(&mut wal, &mut disk, b"last");
        settle(&mut wal, &mut disk);
        if marked {
            wal.tick();
            assert!(wal.is_idle(), "not idle since the append: no mark yet");
            wal.tick();
            settle(&mut wal, &mut disk);
            wal.tick();
            assert!(wal.is_idle(), "one mark is enough");
        }
        let mut image = disk.kill();
        image[offset(last) + 64 + 40 + 1] ^= 1;
        let before = image.clone();
        let mut disk = reopened(image);
        match open(&mut disk) {
            Err(OpenError::Corrupt(corruption)) => {
                assert!(marked);
                assert_eq!(corruption.lsn, last);
                assert_eq!(corruption.offset, offset(last) as u64);
                assert_eq!(disk.kill(), before, "a refusal changes nothing");
            }
            Ok((_, report, found)) => {
                assert!(!marked && report.torn_tail());
                assert_eq!(found, [b"first".to_vec()]);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn after_a_failed_write_nothing_becomes_durable() {
    let mut disk = formatted();
    let (mut wal, ..) = open(&mut disk).expect("new");
    write(&mut wal, &mut disk, b"good");
    settle(&mut wal, &mut disk);
    let durable = wal.durable_lsn();
    disk.set_faults(Faults { write_error: 1.0, ..Faults::NONE });
    write(&mut wal, &mut disk, b"bad");
    let done = disk.step().expect("in flight");
    wal.complete(&mut disk, done);
    disk.set_faults(Faults::NONE);
    let failure = wal.failed().expect("failed").to_string();
    assert!(failure.contains(&format!("device offset {}", offset(durable))), "{failure}");
    assert_eq!(append(&mut wal, b"more"), Err(AppendError::Failed));
    wal.trim(durable);
    wal.begin_shutdown();
    settle(&mut wal, &mut disk);
    assert_eq!(wal.durable_lsn(), durable);
    assert!(!wal.shutdown_done());
}

#[test]
fn full_refuses_entries_keeps_a_reserve_for_states_and_ends_with_a_trim() {
    let mut disk = formatted();
    let (mut wal, ..) = open(&mut disk).expect("new");
    let data = vec![7; wal.entry_size_max()];
    let too_large = vec![7; data.len() + 1];
    let max = data.len();
    assert_eq!(append(&mut wal, &too_large), Err(AppendError::TooLarge { max }));
    assert_eq!(wal.pressure(), Pressure::Normal);
    let mut pressures = vec![];
    while append(&mut wal, &data) != Err(AppendError::Full) {
        settle(&mut wal, &mut disk);
        pressures.push(wal.pressure());
    }
    assert!(pressures.is_sorted() && pressures.contains(&Pressure::High), "{pressures:?}");
    let state = Record::State { stream: StreamId::new(1), parts: &[Part::of(&data)] };
    for _ in 0..3 {
        wal.append(state).expect("the reserve is for states");
        settle(&mut wal, &mut disk);
    }
    assert_eq!(wal.pressure(), Pressure::Full);
    assert_eq!(append(&mut wal, b"x"), Err(AppendError::Full), "entries stay out of the reserve");
    wal.trim(Lsn::new(3 * SEGMENT));
    assert_eq!(append(&mut wal, b"x"), Err(AppendError::Full), "the trim is not durable yet");
    settle(&mut wal, &mut disk);
    append(&mut wal, b"x").expect("trimmed");
    settle(&mut wal, &mut disk);
    let mut disk = reopened(disk.kill());
    let (wal, _, found) = open(&mut disk).expect("wrapped");
    assert_eq!(found.last(), Some(&b"x".to_vec()));
    assert_eq!(wal.trimmed_lsn(), Lsn::new(3 * SEGMENT));
}

#[test]
fn a_damaged_segment_header_is_reported_and_costs_nothing() {
    let mut disk = formatted();
    let (mut wal, ..) = open(&mut disk).expect("new");
    write(&mut wal, &mut disk, b"data");
    settle(&mut wal, &mut disk);
    let mut image = disk.kill();
    image[offset(Lsn::ZERO) + 20] ^= 1;
    let (_, report, found) = open(&mut reopened(image)).expect("the frame is whole");
    assert_eq!(found, [b"data".to_vec()]);
    assert_eq!(report.scan.damaged_segment_headers, [SUPERBLOCK_AREA_SIZE]);
}

#[test]
fn a_wal_of_somebody_else_is_refused_with_one_line() {
    let mut disk = formatted();
    let mut refusal = |expected: Identity| {
        let opened = Wal::open(&mut disk, &expected, OPTIONS, &mut |_| {});
        opened.err().expect("refused").to_string()
    };
    let lines = [
        refusal(Identity { cluster_id: Uuid::from_u128(6), ..ME }),
        refusal(Identity { node_id: 2, ..ME }),
        refusal(Identity { slice_count: 2, ..ME }),
    ];
    for (line, word) in lines.iter().zip(["cluster", "node", "slice"]) {
        assert!(line.contains(word) && !line.contains('\n'), "{line}");
    }
    let foreign = open(&mut reopened(vec![0xab; SIZE])).err().expect("refused");
    assert!(foreign.to_string().contains("another system's data"), "{foreign}");
    let empty = open(&mut reopened(vec![0; SIZE])).err().expect("refused");
    assert!(empty.to_string().contains("tailrace format"), "{empty}");
}

#[test]
fn format_refuses_a_device_that_holds_something() {
    let refusal = |at: usize, bytes: &[u8], force: bool| {
        let mut image = vec![0; SIZE];
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let options = FormatOptions { force, ..FORMAT };
        format(&mut reopened(image), &options, &mut |_, _| {})
    };
    let line = |result: Result<(), FormatError>| result.expect_err("refused").to_string();
    assert!(line(refusal(0, b"XFSB", false)).contains("XFS"));
    assert!(line(refusal(1080, &[0x53, 0xef], false)).contains("ext4"));
    assert!(line(refusal(SIZE - 1, &[1], false)).contains(&format!("{}", SIZE - 1)));
    refusal(0, b"XFSB", true).expect("forced");
    let again = format(&mut formatted(), &FORMAT, &mut |_, _| {});
    assert!(line(again).contains("a Tailrace WAL"));
}

/// Stops after a number of writes, the last of which is torn.
struct Cut<'a> {
    disk: &'a mut SimDisk,
    writes_left: u32,
}

impl BlockDevice for Cut<'_> {
    fn geometry(&self) -> wal_uring::Geometry {
        self.disk.geometry()
    }

    fn read_at(&mut self, offset: u64, buf: &mut AlignedBuf) -> std::io::Result<()> {
        self.disk.read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &AlignedBuf) -> std::io::Result<()> {
        if self.writes_left == 0 {
            let mut torn = AlignedBuf::zeroed(512, 4096);
            torn.fill(0xee);
            self.disk.write_at(offset, &torn)?;
            return Err(std::io::Error::other("the power is gone"));
        }
        self.writes_left -= 1;
        self.disk.write_at(offset, buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.disk.flush()
    }
}

#[test]
fn an_open_cut_off_at_any_write_leaves_a_valid_superblock() {
    for writes_left in 0..4 {
        for seed in 0..20 {
            let mut disk = SimDisk::with_image(seed, DISK, formatted().kill());
            let mut cut = Cut { disk: &mut disk, writes_left };
            let opened = Wal::open(&mut cut, &ME, OPTIONS, &mut |_| {});
            assert!(matches!(opened, Err(OpenError::Write { .. })));
            let mut disk = reopened(disk.crash());
            let (_, report, _) = open(&mut disk).expect("a valid copy is left");
            let torn = report.superblock_faults.iter().filter(|fault| fault.error.is_some());
            assert!(torn.count() <= 2, "two copies of one state are whole");
            let loaded = wal_uring::superblock::load(&mut disk, 0).expect("repaired");
            assert!(loaded.faults.is_empty());
        }
    }
}

#[test]
fn reads_refuse_what_is_trimmed_not_durable_or_damaged() {
    let mut disk = formatted();
    let (mut wal, ..) = open(&mut disk).expect("new");
    let at = append(&mut wal, b"some data").expect("room").data;
    let refused = wal.read(&mut disk, at, 1);
    assert!(matches!(refused, Err(ReadError::NotDurable)));
    settle(&mut wal, &mut disk);
    let read = |wal: &mut Wal, disk: &mut SimDisk| {
        wal.read(disk, at, 9).expect("durable");
        let done = disk.step().expect("in flight");
        let read = wal.complete(disk, done).expect("a read");
        assert_eq!(read.token, 9);
        read.result
    };
    assert_eq!(read(&mut wal, &mut disk).expect("intact"), "some data");
    disk.rot(offset(at.lsn) as u64, at.len.into());
    assert!(matches!(read(&mut wal, &mut disk), Err(ReadError::Corrupt { .. })));
    disk.set_faults(Faults { read_error: 1.0, ..Faults::NONE });
    assert!(matches!(read(&mut wal, &mut disk), Err(ReadError::Device { .. })));
    assert!(wal.failed().is_none(), "a failed read is not a failed write");
}
