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
        incarnation: 0,
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
    let options = WalOptions {
        depth: 4,
        beside_min: 0,
        frame_size_max: 16 << 10,
        reserve_segments: 2,
        ..WalOptions::default()
    };
    let (wal, _) = Wal::open(disk, &identity(), options, &mut sink).expect("the WAL opens");
    driver.start().expect("what was written can be recovered");
    for group in GROUPS {
        if !driver.has_group(group) {
            driver.create_group(group, &[1]);
        }
    }
    (ReplicatedLog::new(wal, driver, GROUPS, states, false, 50, now), found)
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

/// Lets everything happen that follows.
fn settle(log: &mut ReplicatedLog, disk: &mut SimDisk, now: Instant) {
    let metrics = ShardMetrics::new();
    loop {
        log.pump(disk, now, &metrics);
        while log.next_event().is_some() {}
        let Some(done) = disk.step() else { break };
        log.disk_done(disk, done);
    }
}

fn propose(log: &mut ReplicatedLog, claim: Claim, size: usize) -> Result<LogIndex, Refused> {
    let kind: &[u8] = if claim == Claim::Edit { &[KIND_EDIT] } else { &[] };
    let payload = Bytes::from(vec![7; size]);
    let app = AppBytes::new(kind).expect("one byte fits");
    let descriptor = Descriptor::of(&payload, true, app).expect("small");
    log.propose(GROUPS[0], claim, descriptor, payload).map(|(_, index)| index)
}

/// As many as are taken, all in one turn.
fn flood(log: &mut ReplicatedLog, claim: Claim, size: usize) -> usize {
    (0..).take_while(|_| propose(log, claim, size).is_ok()).count()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
fn a_full_log_keeps_room_for_what_makes_room() {
    let now = Instant::now();
    let mut disk = formatted(1);
    let (mut log, _) = open(&mut disk, now);
    settle(&mut log, &mut disk, now);
    let taken = flood(&mut log, Claim::Client, 20_000);
    assert!((10..200).contains(&taken), "{taken} in one turn, before anything is written");
    for claim in [Claim::Client, Claim::Broker] {
        for size in [20_000, 100] {
            while flood(&mut log, claim, size) > 0 {
                settle(&mut log, &mut disk, now);
            }
        }
    }
    propose(&mut log, Claim::Edit, 100).expect("an edit has room");
    settle(&mut log, &mut disk, now);
    // Nothing waits for room.
    assert!(log.steps.is_empty() && log.queued_bytes == 0);
    for life in 0..20 {
        disk = SimDisk::with_image(life, disk_options(), disk.crash());
        (log, _) = open(&mut disk, now);
        settle(&mut log, &mut disk, now);
        assert!(log.has_caught_up(GROUPS[0]), "life {life}: a new leader has room");
        assert_eq!(propose(&mut log, Claim::Broker, 100), Err(Refused::Full));
        propose(&mut log, Claim::Edit, 100).expect("an edit has room");
        settle(&mut log, &mut disk, now);
    }
    compact_all(&mut log, &mut disk, now);
}

fn compact_all(log: &mut ReplicatedLog, disk: &mut SimDisk, now: Instant) {
    for group in GROUPS {
        let applied = log.driver.applied(group);
        log.compact(group, applied, Bytes::from_static(b"all")).expect("it is applied");
    }
    settle(log, disk, now);
    assert!(flood(log, Claim::Client, 20_000) > 10, "the log is free again");
}

/// As a burst would that nobody holds back: entries wait for room at the end.
fn overfilled(mut disk: SimDisk, now: Instant) -> (ReplicatedLog, SimDisk) {
    let (mut log, _) = open(&mut disk, now);
    settle(&mut log, &mut disk, now);
    for size in [20_000, 100] {
        let payload = Bytes::from(vec![7; size]);
        let descriptor = Descriptor::of(&payload, true, AppBytes::EMPTY).expect("small");
        while log.steps.is_empty() {
            log.driver.propose(GROUPS[0], descriptor, payload.clone()).expect("it leads");
            settle(&mut log, &mut disk, now);
        }
        // What waits is lost with the power; what is smaller may still find room.
        disk = SimDisk::with_image(1, disk_options(), disk.crash());
        (log, _) = open(&mut disk, now);
        settle(&mut log, &mut disk, now);
    }
    (log, disk)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
fn a_log_that_is_full_to_the_last_byte_is_led_again() {
    let now = Instant::now();
    let (mut log, mut disk) = overfilled(formatted(1), now);
    assert!(log.has_caught_up(GROUPS[0]), "a new leader has room");
    assert_eq!(log.wal.room(), 0);
    assert_eq!(propose(&mut log, Claim::Broker, 100), Err(Refused::Full));
    propose(&mut log, Claim::Edit, 100).expect("an edit has room");
    // However many edits there are, what they make room by still finds its place.
    while flood(&mut log, Claim::Edit, 1000) > 0 {
        settle(&mut log, &mut disk, now);
    }
    assert!(log.steps.is_empty() && log.queued_bytes == 0);
    compact_all(&mut log, &mut disk, now);
}
