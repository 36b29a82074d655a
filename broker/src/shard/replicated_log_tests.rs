//! What was announced as committed is on the device: the power is cut at any moment, over a disk
//! that loses, tears and reorders what it has not completed.

use std::collections::BTreeMap;

use replication::{AppBytes, DriverConfig};
use uuid::Uuid;
use wal_uring::format::ZeroFill;
use wal_uring::sim::{Random, SimDisk, SimDiskOptions};
use wal_uring::{FormatOptions, Identity, Recovered, WalOptions};

use super::*;

const GROUP: RaftGroupId = RaftGroupId::new(1);
const SEEDS: u64 = 300;

fn disk_options() -> SimDiskOptions {
    SimDiskOptions::new(4 << 20, 512)
}

fn identity() -> Identity {
    Identity { cluster_id: Uuid::from_u128(7), node_id: 0, slice_index: 0, slice_count: 1 }
}

fn formatted(seed: u64) -> SimDisk {
    let mut disk = SimDisk::new(seed, disk_options());
    let options = FormatOptions {
        cluster_id: identity().cluster_id,
        node_id: 0,
        ring_id: Uuid::from_u128(u128::from(seed) + 1),
        slice_count: 1,
        block_size: Some(512),
        segment_size: Some(256 << 10),
        zero_fill: ZeroFill::Headers,
        force: false,
    };
    wal_uring::format(&mut disk, &options, &mut |_, _| {}).expect("an empty disk is formatted");
    disk
}

/// Opens the disk and returns its payloads by index, beside the log.
fn open(disk: &mut SimDisk, now: Instant) -> (ReplicatedLog, BTreeMap<u64, Vec<u8>>) {
    let mut driver = Driver::new(DriverConfig::new(1, 3));
    let mut found = BTreeMap::new();
    let mut sink = |recovered: Recovered<'_>| match recovered {
        Recovered::State { stream, data, .. } => {
            driver.recover_state(group_of(stream), data).expect("a state of ours");
        }
        Recovered::Entry { stream, term, index, data, at } => {
            let (term, place) = (Term::new(term), LogIndex::new(index));
            driver
                .recover_entry(group_of(stream), term, place, data, at.lsn.get())
                .expect("an entry of ours");
            let start = Descriptor::decode(data).map_or(data.len(), |d| d.encoded_size());
            found.insert(index, data[start..].to_vec());
        }
    };
    let options = WalOptions { depth: 4, frame_size_max: 16 << 10, ..WalOptions::default() };
    let (wal, _) = Wal::open(disk, &identity(), options, &mut sink).expect("the WAL opens");
    driver.start().expect("what was written can be recovered");
    if !driver.has_group(GROUP) {
        driver.create_group(GROUP, &[1]);
    }
    (ReplicatedLog::new(wal, driver, [GROUP], now), found)
}

/// A run between two power cuts.
struct Run<'a> {
    log: ReplicatedLog,
    disk: SimDisk,
    random: &'a mut Random,
    metrics: ShardMetrics,
    now: Instant,
    /// Proposed payloads by index.
    proposed: BTreeMap<u64, Vec<u8>>,
    committed: u64,
}

impl Run<'_> {
    fn step(&mut self) {
        match self.random.below(4) {
            0 => {
                if let Some(done) = self.disk.step() {
                    self.log.disk_done(&mut self.disk, done);
                }
            }
            1 => self.propose(),
            _ => self.log.pump(&mut self.disk, self.now, &self.metrics),
        }
        while let Some(event) = self.log.next_event() {
            if let LogEvent::Committed { index, .. } = event {
                self.committed = self.committed.max(index.get());
            }
        }
    }

    fn propose(&mut self) {
        let mut payload = vec![0; self.random.below_usize(9_000)];
        self.random.fill(&mut payload);
        let bytes = Bytes::from(payload.clone());
        let descriptor = Descriptor::of(&bytes, false, AppBytes::EMPTY).expect("small");
        if let Ok((_, index)) = self.log.propose(GROUP, descriptor, bytes) {
            self.proposed.insert(index.get(), payload);
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
fn what_was_committed_survives_a_power_cut() {
    let now = Instant::now();
    let mut committed_count = 0;
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let mut disk = formatted(seed);
        let mut acknowledged: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for cut in 0..4 {
            let (log, found) = open(&mut disk, now);
            for (index, payload) in &acknowledged {
                assert_eq!(found.get(index), Some(payload), "seed {seed}, cut {cut}: {index} lost");
            }
            let steps = random.below(200);
            let mut run = Run {
                log,
                disk,
                random: &mut random,
                metrics: ShardMetrics::new(),
                now,
                proposed: BTreeMap::new(),
                committed: 0,
            };
            (0..steps).for_each(|_| run.step());
            let committed = run.committed;
            acknowledged.extend(run.proposed.into_iter().filter(|entry| entry.0 <= committed));
            disk = SimDisk::with_image(seed, disk_options(), run.disk.crash());
        }
        committed_count += acknowledged.len();
    }
    assert!(committed_count > 1000, "the runs commit little: {committed_count}");
}
