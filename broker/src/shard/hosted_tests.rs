use s3_uploader::Edit;

use super::*;
use crate::partition::{FirstSequence, Prepared, Submission};

const ID: PartitionId = PartitionId::new(9);
const GROUP: RaftGroupId = RaftGroupId::new(2);
const TERM: Term = Term::new(1);

/// Batches of 10 records each, one after the other.
fn batches(count: u64) -> Vec<EntryDescriptor> {
    batches_of(ID, count)
}

fn batches_of(id: PartitionId, count: u64) -> Vec<EntryDescriptor> {
    let mut log = Partition::new(id);
    let submission = Submission {
        record_count: 10,
        batch_size: 100,
        max_timestamp: 0,
        attributes: 0,
        producer: None,
        first_sequence: FirstSequence::Any,
    };
    let batch = |index| {
        let Ok(Prepared::New(new)) = log.prepare(&submission, 0) else { panic!("it is new") };
        log.replay(LogIndex::new(index), TERM, new.descriptor()).expect("it follows");
        *new.descriptor()
    };
    (1..=count).map(batch).collect()
}

fn adoption() -> Adoption {
    Adoption {
        group: GROUP,
        partition: ID,
        id: LogIndex::new(40),
        epoch_base: 0,
        log_start: Offset::ZERO,
        end: None,
        objects: Vec::new(),
        extents: Vec::new(),
        state: Partition::new(ID).encode_whole().expect("it is empty").into(),
    }
}

/// A follower that is behind with a group's log, and not with the metadata.
#[test]
fn what_was_dropped_between_an_adoption_and_its_commit_is_there_again() {
    let batches = batches(3);
    let entry = |at: usize| (LogIndex::new(6 + at as u64), TERM, batches[at]);
    let mut hosting = Hosting::new(0);
    let take = |hosting: &mut Hosting, at: usize| {
        let (index, term, batch) = entry(at);
        hosting.recovered(GROUP, index, term, &batch, true)
    };
    assert!(hosting.adopt(GROUP, LogIndex::new(5), &adoption()));
    assert!(!hosting.adopt(GROUP, LogIndex::new(5), &adoption()), "it is here");
    take(&mut hosting, 0).expect("it follows");
    hosting.remove(GROUP, ID);
    take(&mut hosting, 1).expect("of what is not here it may be the first");
    assert!(hosting.adopt(GROUP, LogIndex::new(5), &adoption()));
    hosting.replay_after(GROUP, ID, [entry(0), entry(1)].into_iter(), LogIndex::new(6));
    take(&mut hosting, 2).expect("nothing is missing before it");
    let log = hosting.of(GROUP, ID).expect("it is here");
    assert_eq!((log.high_watermark(), log.log_end()), (Offset::new(10), Offset::new(30)));
}

#[test]
fn a_group_that_has_left_keeps_its_own_partition_apart() {
    let (other, batches) = (RaftGroupId::new(1), batches(2));
    let mut hosting = Hosting::new(0);
    hosting.ensure(other, ID, LogIndex::default());
    assert!(hosting.adopt(GROUP, LogIndex::new(5), &adoption()));
    assert_eq!(hosting.group_of(ID), Some(other), "the metadata says so still");
    assert!(hosting.ensure(GROUP, ID, adoption().id));
    let late = hosting.recovered(other, LogIndex::new(3), TERM, &batches[0], true);
    late.expect("it follows what that group has");
    assert_eq!(hosting.get(ID).map(Partition::log_end), Some(Offset::ZERO));
    assert_eq!(hosting.of(other, ID).map(Partition::log_end), Some(Offset::new(10)));
    // What the metadata puts elsewhere is found in its group only, until it is of no use there.
    let apart = |group, _: &Partition| if group == GROUP { Fate::Apart } else { Fate::Gone };
    assert_eq!(hosting.sort(apart), [ID]);
    assert!(hosting.of(other, ID).is_none() && hosting.find(ID).is_none());
    assert!(hosting.of(GROUP, ID).is_some());
    assert_eq!(hosting.partitions(GROUP).count(), 1, "snapshots tell of it");
    assert_eq!(hosting.sort(|_, _| Fate::Gone), []);
    assert!(hosting.of(GROUP, ID).is_none());
}

/// What a broker that is behind makes anew, since the metadata says that the partition has come
/// back, is filled by what the log has of its first time there.
#[test]
fn what_was_made_anew_may_begin_anywhere() {
    let batches = batches(3);
    let mut hosting = Hosting::new(0);
    hosting.ensure(GROUP, ID, adoption().id);
    let mut take =
        |at: usize| hosting.recovered(GROUP, LogIndex::new(at as u64), TERM, &batches[at], true);
    take(1).expect("of what is not here it may be the first");
    take(2).expect("it follows");
    assert_eq!(hosting.get(ID).map(Partition::log_end), Some(Offset::new(30)));
    // What an entry adopted is whole, and what follows it has to.
    assert!(hosting.adopt(GROUP, LogIndex::new(5), &adoption()));
    let gap = hosting.recovered(GROUP, LogIndex::new(6), TERM, &batches[1], true);
    assert!(gap.is_err(), "something is missing before it");
}

#[test]
fn a_partition_is_where_the_metadata_names_it_by_the_move_that_brought_it() {
    let (other, moved) = (RaftGroupId::new(1), adoption().id);
    let mut hosting = Hosting::new(0);
    assert!(hosting.adopt(GROUP, LogIndex::new(5), &adoption()));
    assert!(!hosting.is_named(GROUP, ID, moved), "the metadata does not know of it yet");
    hosting.ensure(other, ID, LogIndex::default());
    assert!(hosting.is_named(other, ID, LogIndex::default()));
    assert!(!hosting.is_named(GROUP, ID, moved), "the move was called off");
    hosting.ensure(GROUP, ID, moved);
    assert!(hosting.is_named(GROUP, ID, moved) && !hosting.is_named(other, ID, moved));
    hosting.ensure(GROUP, ID, moved.next());
    assert!(!hosting.is_named(GROUP, ID, moved), "it has gone and come back");
}

/// Two states of it in a snapshot would be the older one for whoever takes that.
#[test]
fn one_that_is_kept_apart_and_comes_back_is_there_once() {
    let mut hosting = Hosting::new(0);
    assert!(hosting.adopt(GROUP, LogIndex::new(5), &adoption()));
    hosting.sort(|_, _| Fate::Apart);
    assert!(hosting.find(ID).is_none());
    let again = Adoption { id: adoption().id.next(), ..adoption() };
    assert!(hosting.adopt(GROUP, LogIndex::new(8), &again));
    let origins: Vec<_> = hosting.partitions(GROUP).map(|log| log.origin().id).collect();
    assert_eq!(origins, [again.id]);
}

/// The manifest of a snapshot is younger than the entries that follow it, and the partition, which
/// has left since, is not in the snapshot.
#[test]
fn an_earlier_stay_ends_where_an_entry_adopts_the_partition_again() {
    let batches = batches(3);
    let mut manifest = Manifest::default();
    manifest.apply(&Edit::Adopted(Box::new(adoption())), 0).expect("it is news");
    let mut hosting = Hosting::new(0);
    hosting.adopt_again(GROUP, LogIndex::new(5), &adoption(), &manifest);
    assert!(hosting.of(GROUP, ID).is_none(), "it has left");
    let old = hosting.recovered(GROUP, LogIndex::new(4), TERM, &batches[2], true);
    old.expect("of what is not here it may be the first");
    hosting.adopt_again(GROUP, LogIndex::new(5), &adoption(), &manifest);
    let next = hosting.recovered(GROUP, LogIndex::new(6), TERM, &batches[0], true);
    next.expect("it follows what was adopted");
    assert_eq!(hosting.of(GROUP, ID).map(Partition::log_end), Some(Offset::new(10)));
}

#[test]
fn batches_are_released_some_partitions_at_a_time() {
    let (other, ids) = (RaftGroupId::new(1), [2, 3, 5, 8].map(PartitionId::new));
    let mut hosting = Hosting::new(0);
    for (id, group) in ids.into_iter().zip([GROUP, other, GROUP, GROUP]) {
        hosting.ensure(group, id, LogIndex::default());
        for (index, batch) in (7..).zip(batches_of(id, 2)) {
            let taken = hosting.recovered(group, LogIndex::new(index), TERM, &batch, true);
            taken.expect("it is the next one");
        }
        let (log, _) = hosting.of_mut(group, id).expect("it is here");
        log.committed(LogIndex::new(8));
    }
    // The metadata puts the last one elsewhere.
    hosting.sort(|_, log| if log.id() == ids[3] { Fate::Apart } else { Fate::Here });
    let starts = |hosting: &Hosting| {
        let of = |id| hosting.of(GROUP, id).or_else(|| hosting.of(other, id)).expect("it is kept");
        ids.map(|id| of(id).local_start().get())
    };
    let upto = LogIndex::new(7);
    let next = hosting.release_before(GROUP, upto, PartitionId::new(0), 1);
    assert_eq!((next, starts(&hosting)), (Some(ids[1]), [10, 0, 0, 0]));
    let next = hosting.release_before(GROUP, upto, ids[1], 1);
    assert_eq!((next, starts(&hosting)), (Some(ids[2]), [10, 0, 0, 0]), "another group's");
    let next = hosting.release_before(GROUP, upto, ids[2], 1);
    assert_eq!((next, starts(&hosting)), (None, [10, 0, 10, 10]));
    assert_eq!(hosting.release_before(GROUP, LogIndex::new(8), ids[0], usize::MAX), None);
    assert_eq!(starts(&hosting), [20, 0, 20, 20]);
}
