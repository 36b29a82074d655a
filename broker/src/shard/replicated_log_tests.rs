//! What was announced as committed is on the device, or a snapshot stands for it: the power is cut
//! at any moment, over a disk that loses, tears and reorders what it has not completed.

use std::collections::BTreeMap;

use replication::{AppBytes, DriverConfig};
use uuid::Uuid;
use wal_uring::format::ZeroFill;
use wal_uring::sim::{Random, SimDisk, SimDiskOptions};
use wal_uring::{FormatOptions, Identity, Recovered, WalOptions};

use super::*;

const GROUPS: [RaftGroupId; 2] = [RaftGroupId::new(1), RaftGroupId::METADATA];
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

type Payloads = BTreeMap<(RaftGroupId, u64), Vec<u8>>;

/// Opens the disk; returns its payloads, beside the log.
fn open(disk: &mut SimDisk, now: Instant) -> (ReplicatedLog, Payloads) {
    let mut driver = Driver::new(DriverConfig::new(1, 3));
    let (mut found, mut states) = (Payloads::new(), BTreeMap::new());
    let mut sink = |recovered: Recovered<'_>| match recovered {
        Recovered::State { stream, data, at } => {
            states.insert(stream, at.lsn);
            driver.recover_state(group_of(stream), data).expect("a state of ours");
        }
        Recovered::Entry { stream, term, index, data, at } => {
            let (term, place) = (Term::new(term), LogIndex::new(index));
            driver
                .recover_entry(group_of(stream), term, place, data, at.lsn.get())
                .expect("an entry of ours");
            let start = Descriptor::decode(data).map_or(data.len(), |d| d.encoded_size());
            found.insert((group_of(stream), index), data[start..].to_vec());
        }
    };
    let options = WalOptions { depth: 4, frame_size_max: 16 << 10, ..WalOptions::default() };
    let (wal, _) = Wal::open(disk, &identity(), options, &mut sink).expect("the WAL opens");
    driver.start().expect("what was written can be recovered");
    for group in GROUPS {
        if !driver.has_group(group) {
            driver.create_group(group, &[1]);
        }
    }
    (ReplicatedLog::new(wal, driver, GROUPS, states, 50, now), found)
}

/// A run between two power cuts.
struct Run<'a> {
    log: ReplicatedLog,
    disk: SimDisk,
    random: &'a mut Random,
    metrics: ShardMetrics,
    now: Instant,
    /// Proposed payloads.
    proposed: Payloads,
    committed: BTreeMap<RaftGroupId, u64>,
}

impl Run<'_> {
    fn step(&mut self) {
        match self.random.below(40) {
            0..10 => {
                if let Some(done) = self.disk.step() {
                    self.log.disk_done(&mut self.disk, done);
                }
            }
            10..20 => self.propose(),
            20 => self.compact(),
            _ => self.log.pump(&mut self.disk, self.now, &self.metrics),
        }
        while let Some(event) = self.log.next_event() {
            if let LogEvent::Committed { group, index } = event {
                let committed = self.committed.entry(group).or_default();
                *committed = (*committed).max(index.get());
            }
        }
    }

    fn propose(&mut self) {
        // The second group writes seldom: what little it has must not be trimmed with the rest.
        let group = GROUPS[usize::from(self.random.below(20) == 0)];
        let mut payload = vec![0; self.random.below_usize(24_000)];
        self.random.fill(&mut payload);
        let bytes = Bytes::from(payload.clone());
        let descriptor = Descriptor::of(&bytes, false, AppBytes::EMPTY).expect("small");
        if let Ok((_, index)) = self.log.propose(group, Claim::Client, descriptor, bytes) {
            self.proposed.insert((group, index.get()), payload);
        }
    }

    /// Lets a snapshot, which names its index, stand for a part of what is applied.
    fn compact(&mut self) {
        let group = GROUPS[self.random.below_usize(2)];
        let (first, applied) =
            (self.log.first_index(group).get(), self.log.driver.applied(group).get());
        if applied >= first {
            let index = first + self.random.below(applied - first + 1);
            let snapshot = Bytes::copy_from_slice(&index.to_le_bytes());
            self.log.compact(group, LogIndex::new(index), snapshot).expect("it is applied");
        }
    }
}

/// Every acknowledged entry is there, or a snapshot stands for it.
fn check(log: &ReplicatedLog, found: &Payloads, acknowledged: &Payloads, context: &str) {
    for group in GROUPS {
        let snapshot = log.driver.snapshot(group);
        let mark = snapshot.as_ref().map_or(0, |(index, _)| index.get());
        if let Some((index, data)) = &snapshot {
            assert_eq!(&data[..], index.get().to_le_bytes(), "{context}: another's snapshot");
        }
        let above = ((group, mark + 1), (group, u64::MAX));
        for ((_, index), payload) in acknowledged.range(above.0..=above.1) {
            assert_eq!(found.get(&(group, *index)), Some(payload), "{context}: {index} lost");
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
fn what_was_committed_survives_a_power_cut() {
    let now = Instant::now();
    let (mut committed_count, mut laps) = (0, 0);
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let mut disk = formatted(seed);
        let mut acknowledged = Payloads::new();
        for cut in 0..8 {
            let (log, found) = open(&mut disk, now);
            check(&log, &found, &acknowledged, &format!("seed {seed}, cut {cut}"));
            laps += log.wal.durable_lsn().get() / disk_options().size;
            let steps = random.below(800);
            let mut run = Run {
                log,
                disk,
                random: &mut random,
                metrics: ShardMetrics::new(),
                now,
                proposed: BTreeMap::new(),
                committed: BTreeMap::new(),
            };
            (0..steps).for_each(|_| run.step());
            let committed = run.committed;
            let is_committed = |group: &RaftGroupId, index: &u64| {
                committed.get(group).is_some_and(|committed| index <= committed)
            };
            let proposed = run.proposed.into_iter();
            acknowledged.extend(proposed.filter(|((group, at), _)| is_committed(group, at)));
            disk = SimDisk::with_image(seed, disk_options(), run.disk.crash());
        }
        committed_count += acknowledged.len();
    }
    assert!(committed_count > 1000, "the runs commit little: {committed_count}");
    assert!(laps > 100, "the ring is seldom used again: {laps}");
}
