//! What is in the object store: its reads, and the snapshots that stand for its entries.

use proptest::prelude::*;

use super::*;
use crate::codec::{DecodeError, Reader, Writer};

const GOLDEN: &[u8] = include_bytes!("../../../testdata/partition-snapshot.v1.bin");

/// The log as a snapshot of the entries up to `upto` brings it back.
pub(super) fn restored(partition: &Partition, upto: u64) -> Partition {
    let bytes = encoded(partition, upto);
    let restored = decoded(&bytes).expect("just written");
    assert_eq!(encoded(&restored, upto), bytes, "a state has one encoding");
    assert_eq!(restored.local_start(), restored.log_end());
    assert_eq!(restored.high_watermark(), restored.log_end());
    assert_eq!(restored.first_index(), None);
    restored
}

fn encoded(partition: &Partition, upto: u64) -> Vec<u8> {
    let mut writer = Writer::default();
    partition.encode_snapshot(LogIndex::new(upto), &mut writer);
    writer.finish()
}

fn decoded(bytes: &[u8]) -> Result<Partition, DecodeError> {
    let mut reader = Reader::new(bytes);
    let partition = Partition::decode_snapshot(&mut reader)?;
    reader.finish()?;
    Ok(partition)
}

fn stamped(producer: i64, epoch: i16, base_sequence: i32) -> Submission {
    let producer = Some(ProducerStamp { id: producer, epoch, base_sequence });
    Submission { producer, ..plain(10, 0) }
}

/// Six batches of 10 records in two epochs: two producers, one of which came back with a new
/// epoch. The first five are committed, and the log starts within the first.
fn sample() -> Log {
    let mut log = Log::new();
    for number in 0..3 {
        log.append(stamped(7, 1, number * 10));
    }
    log.term = 3;
    log.append(stamped(7, 2, 0));
    log.append(stamped(8, 0, 40));
    log.append(stamped(7, 2, 10));
    log.commit(5);
    log.trim(5).expect("committed");
    log
}

#[test]
fn reads_and_writes_the_bytes_of_version_1() {
    assert_eq!(encoded(&sample().partition, 5), GOLDEN);
    let partition = decoded(GOLDEN).expect("golden");
    assert_eq!(encoded(&partition, 5), GOLDEN);
    assert_eq!(partition.id(), ID);
    assert_eq!((partition.log_start().get(), partition.log_end().get()), (5, 50));
}

#[test]
fn every_shorter_snapshot_is_refused_and_no_flipped_bit_is_ambiguous() {
    for end in 0..GOLDEN.len() {
        let result = decoded(&GOLDEN[..end]);
        assert!(matches!(result, Err(DecodeError::Truncated { .. })), "{end} bytes");
    }
    for bit in 0..GOLDEN.len() * 8 {
        let mut bytes = GOLDEN.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(partition) = decoded(&bytes) {
            assert_eq!(encoded(&partition, 0), bytes, "bit {bit}");
        }
    }
}

#[test]
fn a_snapshot_has_nothing_of_later_entries() {
    let log = sample();
    let partition = restored(&log.partition, 3);
    let decide = |batch| partition.prepare(&batch, NOW);
    assert!(matches!(decide(stamped(7, 1, 20)), Ok(Prepared::Duplicate(found)) if found.committed));
    assert!(matches!(decide(stamped(7, 1, 30)), Ok(Prepared::New(_))));
    assert!(matches!(decide(stamped(7, 2, 0)), Ok(Prepared::New(_))));
    assert_eq!(partition.producer_count(), 1);
    assert_eq!(partition.latest_leader_epoch(), Some(LeaderEpoch::new(1)));
    assert_eq!(partition.log_end(), Offset::new(30));
}

#[test]
fn a_restored_log_goes_on_where_the_snapshot_ended() {
    let mut partition = restored(&sample().partition, 5);
    let (index, term) = (LogIndex::new(5), Term::new(3));
    assert_eq!(partition.replay(index, term, &entry(9, 40, 10)), Ok(()), "known already");
    assert_eq!(partition.log_end(), Offset::new(50));
    partition.replay(LogIndex::new(6), term, &entry(9, 50, 10)).expect("in order");
    assert_eq!((partition.high_watermark().get(), partition.log_end().get()), (50, 60));
    assert_eq!(partition.first_index(), Some(LogIndex::new(6)));
    assert!(partition.committed(LogIndex::new(6)));
    let end = partition.epoch_end(LeaderEpoch::new(1)).expect("known");
    assert_eq!(end.end_offset, Offset::new(30));
}

#[test]
fn a_trim_beyond_the_snapshot_does_not_lose_what_it_left() {
    let mut log = sample();
    log.trim(45).expect("committed");
    // Entries 1 to 4 are trimmed away, and the fifth is half left: it is not in the store.
    let mut partition = restored(&log.partition, 2);
    assert_eq!((partition.log_start().get(), partition.log_end().get()), (40, 40));
    let term = Term::new(3);
    partition.replay(LogIndex::new(3), term, &entry(9, 20, 10)).expect("trimmed away");
    partition.replay(LogIndex::new(5), term, &entry(9, 40, 10)).expect("in order");
    assert_eq!(partition.log_end(), Offset::new(50));
}

#[test]
fn an_epoch_whose_records_are_all_trimmed_is_still_known() {
    let mut log = Log::filled(2, 10);
    log.commit(2);
    log.trim(20).expect("committed");
    let partition = restored(&log.partition, 2);
    assert_eq!(partition.latest_leader_epoch(), Some(LeaderEpoch::new(1)));
    assert_eq!(
        partition.epoch_end(LeaderEpoch::new(1)),
        log.partition.epoch_end(LeaderEpoch::new(1))
    );
}

#[test]
#[should_panic(expected = "snapshot to 60, but 50 is committed")]
fn there_is_no_snapshot_of_what_is_not_committed() {
    encoded(&sample().partition, 6);
}

#[test]
#[should_panic(expected = "release to 60, but 50 is committed")]
fn what_is_not_committed_is_not_released() {
    sample().release(6);
}

#[test]
fn what_is_released_is_remote_and_costs_nothing() {
    let mut log = Log::filled(5000, 1);
    log.commit(5000);
    log.release(4999);
    log.release(3);
    assert_eq!(log.ends(), (0, 5000, 5000));
    assert_eq!(log.partition.local_start(), Offset::new(4999));
    assert_eq!(log.partition.first_index(), Some(LogIndex::new(5000)));
    let remote = |from| {
        let (from, local_start) = (Offset::new(from), Offset::new(4999));
        Err(ReadError::Remote { from, local_start })
    };
    assert_eq!(log.read(0, u64::MAX, true), remote(0));
    assert_eq!(log.read(4998, u64::MAX, true), remote(4998));
    let end = VisibleEnd::HighWatermark;
    let size = log.partition.readable_size(Offset::ZERO, 1, end);
    assert!(matches!(size, Err(ReadError::Remote { .. })));
    assert_eq!(bases(&log.read(4999, u64::MAX, true).expect("local")), [4999]);
    log.release(5000);
    assert_eq!(log.read(5000, u64::MAX, true), Ok(ReadPlan::default()));
    assert_eq!((log.budget.bytes(), log.partition.first_index()), (0, None));
    assert!(log.partition.memory_size() <= 4096, "{}", log.partition.memory_size());
    assert_eq!(log.append(plain(1, 0)), 5000);
}

#[test]
fn a_trim_goes_into_the_remote_part_and_keeps_its_epochs() {
    let mut log = Log::filled(2, 10);
    log.term = 2;
    log.append(plain(10, 0));
    log.commit(3);
    log.release(3);
    let epoch_at = |log: &Log, offset| log.partition.leader_epoch_at(Offset::new(offset));
    assert_eq!(epoch_at(&log, 0), Some(LeaderEpoch::new(1)));
    log.trim(15).expect("committed");
    assert_eq!((log.ends(), log.partition.local_start()), ((15, 30, 30), Offset::new(30)));
    assert_eq!(epoch_at(&log, 15), Some(LeaderEpoch::new(1)));
    assert!(matches!(log.read(15, 1, true), Err(ReadError::Remote { .. })));
    assert!(matches!(log.read(14, 1, true), Err(ReadError::OutOfRange { .. })));
}

#[test]
fn the_bytes_of_a_batch_that_is_not_local_are_not_kept() {
    let mut log = Log::filled(2, 10);
    log.commit(2);
    log.release(2);
    let bytes = bytes_of(Offset::new(10), LogIndex::new(2));
    log.partition.keep_in_tail(Offset::new(10), bytes.clone(), bytes.len(), &mut log.budget);
    assert_eq!(log.budget.bytes(), 0);
}

#[test]
fn a_search_by_timestamp_names_the_remote_part_that_comes_first() {
    let mut log = Log::filled(4, 10);
    log.commit(4);
    log.release(2);
    log.trim(5).expect("committed");
    let search = |from| {
        let (sought, from) = (Sought::AtOrAfter(1), Offset::new(from));
        let found = log.partition.timestamp_candidates(sought, from, VisibleEnd::LastStable);
        let remote = found.remote.map(|remote| (remote.start.get(), remote.end.get()));
        (remote, found.local.map(|local| local.end_offset.get()))
    };
    assert_eq!(search(0), (Some((5, 20)), Some(30)));
    assert_eq!(search(19), (Some((19, 20)), Some(30)));
    assert_eq!(search(20), (None, Some(30)));
    log.release(4);
    let found =
        log.partition.timestamp_candidates(Sought::Youngest, Offset::ZERO, VisibleEnd::LastStable);
    assert_eq!((found.remote, found.local), (Some(Offset::new(5)..Offset::new(40)), None));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_are_read_are_written_again(
        at in 0..GOLDEN.len(),
        patch in prop::collection::vec(any::<u8>(), 1..16),
    ) {
        let mut bytes = GOLDEN.to_vec();
        bytes.splice(at..(at + patch.len()).min(GOLDEN.len()), patch);
        if let Ok(partition) = decoded(&bytes) {
            prop_assert_eq!(encoded(&partition, 0), bytes);
        }
    }
}
