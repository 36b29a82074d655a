//! A partition that another group adopts.

use super::*;

const ORIGIN: Origin = Origin { index: LogIndex::new(3), id: LogIndex::new(40), epoch_base: 6 };

fn stamped(base_sequence: i32) -> Submission {
    let producer = Some(ProducerStamp { id: 7, epoch: 1, base_sequence });
    Submission { producer, ..plain(10, 0) }
}

/// Three batches of one producer in term 5, all committed and released.
fn whole() -> Log {
    let mut log = Log::new();
    log.term = 5;
    for number in 0..3 {
        log.append(stamped(number * 10));
    }
    log.commit(3);
    log.partition.release_before(LogIndex::new(3), &mut log.budget);
    log
}

fn adopted() -> Log {
    let state = whole().partition.encode_whole().expect("all is in objects");
    let partition = Partition::adopted(&state, ORIGIN).expect("a state");
    Log { partition, index: 3, term: 1, ..Log::new() }
}

#[test]
fn it_goes_on_where_it_was() {
    let mut log = adopted();
    assert_eq!(log.partition.log_end(), Offset::new(30));
    assert_eq!(log.partition.high_watermark(), Offset::new(30));
    assert_eq!(log.partition.first_index(), None);
    let repeat = log.offer(stamped(20)).expect("known");
    assert!(matches!(repeat, Prepared::Duplicate(first) if first.committed), "{repeat:?}");
    assert!(log.offer(stamped(50)).is_err(), "out of order");
    assert_eq!(log.append(stamped(30)), 30);
    assert!(log.partition.has_uncommitted());
    log.truncate(4);
    assert_eq!(log.partition.log_end(), Offset::new(30));
    assert_eq!(log.append(stamped(30)), 30);
    assert!(log.commit(5));
}

#[test]
fn its_epochs_go_on_rising() {
    let mut log = adopted();
    assert_eq!(log.partition.latest_leader_epoch(), Some(LeaderEpoch::new(5)));
    assert_eq!(log.partition.epoch_of(Term::new(1)), LeaderEpoch::new(7));
    log.append(stamped(30));
    assert_eq!(log.partition.leader_epoch_at(Offset::new(29)), Some(LeaderEpoch::new(5)));
    assert_eq!(log.partition.leader_epoch_at(Offset::new(30)), Some(LeaderEpoch::new(7)));
    assert_eq!(raised(LeaderEpoch::NONE, 6), LeaderEpoch::NONE);
    assert_eq!(raised(LeaderEpoch::new(1), u32::MAX), LeaderEpoch::new(i32::MAX));
}

/// The snapshot of a group may be of an entry before the one that adopted the partition.
#[test]
fn a_snapshot_of_its_group_has_it_as_it_came() {
    let log = adopted();
    let back = snapshots::restored(&log.partition, 1);
    assert_eq!(back.log_end(), Offset::new(30));
    assert!(back.has_producer(7));
}

#[test]
fn what_is_not_whole_does_not_travel() {
    let mut log = Log::new();
    assert!(log.partition.encode_whole().is_some(), "an empty one does");
    log.append(plain(1, 0));
    assert!(log.partition.encode_whole().is_none(), "it is not committed");
    log.commit(1);
    assert!(log.partition.encode_whole().is_none(), "it is not in an object");
    let state = whole().partition.encode_whole().expect("all is in objects");
    for length in 0..state.len() {
        assert!(Partition::adopted(&state[..length], ORIGIN).is_err(), "cut at {length}");
    }
}
