//! The conformance suite: what any disk under a WAL must pass, simulated or real.
//!
//! A run lives through several lives of one WAL: random work, then an end (power cut, kill, clean
//! shutdown, a device error, a lie of the device), perhaps damage while it is down, then recovery,
//! whose result is compared with a model of what was appended and acknowledged.

mod life;
mod model;

use uring::{AlignedBuf, DiskDone};
use uuid::Uuid;
use wal_uring::format::ZeroFill;
use wal_uring::sim::{Faults, Injected, Random};
use wal_uring::{
    BlockDevice, Disk, FormatOptions, Identity, OpenError, Recovered, Wal, WalOptions, format,
};

use life::Life;
use model::Model;

/// A disk of either kind, with what the suite needs besides.
pub(crate) trait Store {
    type Device<'a>: BlockDevice
    where
        Self: 'a;

    fn device(&mut self) -> Self::Device<'_>;
    fn with_disk(&mut self, work: &mut dyn FnMut(&mut dyn Disk));
    /// The next completion; `None` if nothing is in flight.
    fn wait(&mut self) -> Option<DiskDone>;
    /// Ends the process: everything in flight or cached survives or not, as the disk can do it.
    fn end(&mut self, power_cut: bool);
    /// Sets faults, if the disk has any to offer.
    fn set_faults(&mut self, _: Faults) -> bool {
        false
    }
    fn injected(&self) -> Injected {
        Injected::default()
    }
    fn trace(&self) -> u32 {
        0
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Part of the ring ids: fresh on a device that remembers the frames of earlier runs.
    pub(crate) ring_salt: u32,
    pub(crate) block_size: u32,
    pub(crate) segment_size: u64,
    pub(crate) slice_index: u16,
    pub(crate) slice_count: u16,
    pub(crate) lives: u32,
    pub(crate) steps: u64,
}

impl Plan {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        Self {
            seed,
            ring_salt: 0,
            block_size: [512, 4096][random.below_usize(2)],
            segment_size: [32 << 10, 64 << 10][random.below_usize(2)],
            slice_index: 0,
            slice_count: 1,
            lives: 5,
            steps: 60,
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            cluster_id: Uuid::from_u128(0xc1),
            node_id: 7,
            slice_index: self.slice_index,
            slice_count: self.slice_count,
        }
    }

    fn format_options(&self) -> FormatOptions {
        FormatOptions {
            cluster_id: self.identity().cluster_id,
            node_id: 7,
            incarnation: 0,
            ring_id: Uuid::from_u128(
                u128::from(self.seed) << 64 | u128::from(self.ring_salt) << 16,
            ),
            slice_count: self.slice_count,
            block_size: Some(self.block_size),
            segment_size: Some(self.segment_size),
            zero_fill: ZeroFill::Headers,
            force: true,
        }
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    PowerCut,
    Kill,
    Clean,
    DeviceError,
    Lie,
}

/// Runs the whole plan; panics with the place where it went wrong. Returns the trace hash.
pub(crate) fn run(store: &mut impl Store, plan: &Plan) -> u32 {
    let mut random = Random::new(plan.seed);
    format(&mut store.device(), &plan.format_options(), &mut |_, _| {}).expect("format");
    let mut model = Model::default();
    let mut trace = 0;
    let mut lied = false;
    for _ in 0..plan.lives {
        let Some(wal) = open(store, plan, &mut model, &mut random, lied) else {
            // The device lied and was caught: this WAL is refused, which is the right end.
            return trace;
        };
        let mut life = Life::new(store, wal, &mut model, &mut random);
        let end = live(&mut life, plan.steps);
        trace = crc32c::crc32c_append(trace, &life.store.trace().to_le_bytes());
        trace = crc32c::crc32c_append(trace, &life.wal.written_lsn().get().to_le_bytes());
        drop(life);
        store.set_faults(Faults::NONE);
        lied = end == End::Lie;
        if lied {
            model.discount(&store.injected());
        }
        store.end(end == End::PowerCut || lied);
        if !lied {
            damage(store, plan, &mut random, &mut model);
        }
    }
    trace
}

fn live<S: Store>(life: &mut Life<'_, S>, steps: u64) -> End {
    let end = [End::PowerCut, End::PowerCut, End::Kill, End::Clean, End::DeviceError, End::Lie]
        [life.random.below_usize(6)];
    let steps = life.random.below(steps);
    for _ in 0..steps {
        life.step();
    }
    let faults = match end {
        End::DeviceError => Faults { write_error: 0.2, short_write: 0.2, ..Faults::NONE },
        End::Lie => Faults { lost_write: 0.1, misdirected_write: 0.1, ..Faults::NONE },
        End::Clean => {
            life.shut_down();
            return end;
        }
        End::PowerCut | End::Kill => return end,
    };
    if !life.store.set_faults(faults) {
        return End::Kill;
    }
    for _ in 0..20 {
        life.step();
        let injected = life.store.injected();
        // One lie only: the suite then knows what the WAL must still be able to tell.
        if injected.lost.len() + injected.misdirected.len() > 0 {
            life.store.set_faults(Faults::NONE);
        }
    }
    end
}

/// Opens and compares with the model. `None` if the device lied and the WAL saw it.
fn open<S: Store>(
    store: &mut S,
    plan: &Plan,
    model: &mut Model,
    random: &mut Random,
    lied: bool,
) -> Option<Wal> {
    let depth = 1 + random.below_usize(4);
    let options = WalOptions {
        depth,
        beside_min: if depth.is_multiple_of(2) { 0 } else { 1500 },
        frame_size_max: 16 << 10,
        reserve_segments: 1,
        reads_in_flight_max: 2,
        reads_queued_max: 4,
    };
    if random.below(8) == 0 && store.set_faults(Faults { read_error: 0.5, ..Faults::NONE }) {
        let refused = Wal::open(&mut store.device(), &plan.identity(), options, &mut |_| {});
        store.set_faults(Faults::NONE);
        match refused {
            Err(OpenError::Read { .. } | OpenError::Superblock(_)) => {}
            Err(other) => assert!(lied, "read errors are reported as what they are: {other}"),
            // No read failed. It was a life without work.
            Ok(_) => {}
        }
    }
    let mut found = Vec::new();
    let opened = Wal::open(&mut store.device(), &plan.identity(), options, &mut |record| {
        found.push(match record {
            Recovered::Entry { stream, term, index, data, at } => {
                (Some((term, index)), stream, data.to_vec(), at)
            }
            Recovered::State { stream, data, at } => (None, stream, data.to_vec(), at),
        });
    });
    match opened {
        Ok((wal, report)) => {
            model.check_recovered(&report, &found, lied);
            Some(wal)
        }
        Err(OpenError::Corrupt(_) | OpenError::Superblock(_)) if lied => None,
        Err(error) => panic!("not opened: {error}"),
    }
}

/// While the WAL is down: rot in superblock copies (repaired) and in the log (detected).
fn damage<S: Store>(store: &mut S, plan: &Plan, random: &mut Random, model: &mut Model) {
    let slice_offset =
        wal_uring::slice::slice_size(store.device().geometry().size, plan.slice_count)
            * u64::from(plan.slice_index);
    let loaded = wal_uring::superblock::load(&mut store.device(), slice_offset).expect("copies");
    // If the crash came amid an update, the newest copies are few: to lose them is to lose it.
    if loaded.faults.is_empty() && random.below(3) == 0 {
        let survivor = random.below(4);
        for copy in (0..4).filter(|&copy| copy != survivor) {
            if random.below(2) == 0 {
                flip(store, slice_offset + copy * 4096 + random.below(512), 1);
                model.damaged_copies.push(u32::try_from(copy).expect("below 4"));
            }
        }
    }
    for _ in 0..random.below(4) {
        rot_in_log(store, slice_offset, random);
    }
}

/// Flips a bit of a frame of which something else says that it was durable: the scan must refuse,
/// with that frame's address. Then puts the bit back.
fn rot_in_log<S: Store>(store: &mut S, slice_offset: u64, random: &mut Random) {
    let superblock =
        wal_uring::superblock::load(&mut store.device(), slice_offset).expect("copies").superblock;
    let mut frames = Vec::new();
    let report = wal_uring::scan(&mut store.device(), &superblock, &mut |event| {
        if let wal_uring::ScanEvent::Frame { header, offset } = event {
            frames.push((header.lsn(), offset, 64 + u64::from(header.payload_size())));
        }
    })
    .expect("an undamaged log");
    if frames.is_empty() {
        return;
    }
    let (lsn, offset, size) = frames[random.below_usize(frames.len())];
    let at = offset + random.below(size);
    let intact = flip(store, at, 1 << random.below(8));
    let rotten = wal_uring::scan(&mut store.device(), &superblock, &mut |_| {});
    let proof = report.recorded_durable_lsn.max(superblock.durable_lsn_hint);
    match rotten {
        Err(OpenError::Corrupt(corruption)) => {
            assert_eq!((corruption.lsn, corruption.offset), (lsn, offset), "{corruption}");
        }
        Err(other) => panic!("{other}"),
        Ok(found) => {
            assert!(lsn >= proof, "a durable frame at {lsn} was cut off; durable to {proof}");
            assert!(found.end <= lsn, "a rotten frame at {lsn} was accepted");
        }
    }
    let block = u64::from(store.device().geometry().block_size);
    write_block(store, at / block * block, &intact);
}

/// Flips bits of one byte, past the WAL's back; returns the block as it was.
fn flip<S: Store>(store: &mut S, offset: u64, bits: u8) -> AlignedBuf {
    let mut device = store.device();
    let block_size = u64::from(device.geometry().block_size);
    let start = offset / block_size * block_size;
    let read = |device: &mut S::Device<'_>| {
        let mut block = AlignedBuf::zeroed(usize::try_from(block_size).expect("small"), 4096);
        device.read_at(start, &mut block).expect("read");
        block
    };
    let (intact, mut rotten) = (read(&mut device), read(&mut device));
    rotten[usize::try_from(offset - start).expect("small")] ^= bits;
    device.write_at(start, &rotten).expect("write");
    device.flush().expect("flush");
    intact
}

fn write_block<S: Store>(store: &mut S, offset: u64, block: &AlignedBuf) {
    let mut device = store.device();
    let block_size = u64::from(device.geometry().block_size);
    device.write_at(offset / block_size * block_size, block).expect("write");
    device.flush().expect("flush");
}
