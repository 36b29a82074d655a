//! The conformance suite on the simulated disk, 1,000 seeds.

mod suite;

use suite::{Plan, Store};
use uring::DiskDone;
use wal_uring::Disk;
use wal_uring::ring::SUPERBLOCK_AREA_SIZE;
use wal_uring::sim::{Faults, Injected, SimDisk, SimDiskOptions};

const SEEDS: u64 = 1000;
const SEGMENTS: u64 = 9;

/// A simulated disk that lives through crashes.
struct SimStore {
    disk: Option<SimDisk>,
    options: SimDiskOptions,
    seed: u64,
}

impl SimStore {
    fn new(plan: &Plan) -> Self {
        let size = SUPERBLOCK_AREA_SIZE + SEGMENTS * plan.segment_size;
        let options = SimDiskOptions::new(size, plan.block_size);
        let disk = SimDisk::new(plan.seed, options);
        Self { disk: Some(disk), options, seed: plan.seed }
    }

    fn disk(&mut self) -> &mut SimDisk {
        self.disk.as_mut().expect("only `end` takes it, and puts it back")
    }
}

impl Store for SimStore {
    type Device<'a> = &'a mut SimDisk;

    fn device(&mut self) -> &mut SimDisk {
        self.disk()
    }

    fn with_disk(&mut self, work: &mut dyn FnMut(&mut dyn Disk)) {
        work(self.disk());
    }

    fn wait(&mut self) -> Option<DiskDone> {
        self.disk().step()
    }

    fn end(&mut self, power_cut: bool) {
        let disk = self.disk.take().expect("there is a disk");
        let image = if power_cut { disk.crash() } else { disk.kill() };
        self.seed += 1 << 32;
        self.disk = Some(SimDisk::with_image(self.seed, self.options, image));
    }

    fn set_faults(&mut self, faults: Faults) -> bool {
        self.disk().set_faults(faults);
        true
    }

    fn injected(&self) -> Injected {
        self.disk.as_ref().map(|disk| disk.injected().clone()).unwrap_or_default()
    }

    fn trace(&self) -> u32 {
        self.disk.as_ref().map_or(0, SimDisk::trace)
    }
}

fn run(seed: u64) -> u32 {
    let plan = Plan::from_seed(seed);
    suite::run(&mut SimStore::new(&plan), &plan)
}

/// Says how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "seed {seed} failed; replay: WAL_SEED={seed} cargo test --release \
                       -p wal-uring --test sim"
            );
        }
    }
}

#[test]
fn every_seed_keeps_the_promises() {
    let given: Option<u64> = std::env::var("WAL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let _replay = Replay(seed);
        run(seed);
    }
}

#[test]
fn a_seed_replays_bit_by_bit() {
    let traces: Vec<u32> = (0..20).map(run).collect();
    assert_eq!(traces, (0..20).map(run).collect::<Vec<_>>());
    let different: std::collections::BTreeSet<_> = traces.iter().collect();
    assert_eq!(different.len(), traces.len(), "each seed is another run");
}
