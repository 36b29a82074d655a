//! Dumps of a partition for raft snapshots. That a dump is what the log says, `settle` checks after
//! every append of every test.

use super::*;
use crate::codec::{DecodeError, Reader, Writer};

/// A coordinator that has loaded this dump, and then later records of its partition.
fn loaded(partition: i32, dump: &[(Bytes, Bytes)], later: &[Record]) -> Bench {
    let mut bench = Bench::new();
    bench.coordinator.begin_load(partition);
    for (key, value) in dump {
        bench.coordinator.load(partition, key, Some(value));
    }
    for (key, value) in later {
        bench.coordinator.load(partition, key, value.as_deref());
    }
    bench.coordinator.end_load(bench.now, partition);
    assert_eq!(bench.coordinator.load_fault(), None);
    bench
}

fn partition() -> i32 {
    partition_for(GROUP, PARTITION_COUNT)
}

fn offset(topic: &str, partition: i32, offset: i64, topic_id: u128) -> CommitOffset {
    CommitOffset {
        topic: topic.into(),
        topic_id: Uuid::from_u128(topic_id),
        partition,
        offset,
        leader_epoch: 7,
        metadata: "words".into(),
    }
}

fn commit_of(retention_ms: Option<i64>, offsets: Vec<CommitOffset>) -> Operation {
    Operation::CommitOffsets(CommitOffsetsRequest {
        generation: -1,
        member_id: "".into(),
        instance_id: None,
        retention_ms,
        offsets,
    })
}

fn fetched(bench: &mut Bench) -> GroupResponse {
    bench.ask(fetch())
}

#[test]
fn a_dump_brings_back_offsets_with_all_that_belongs_to_them() {
    let mut bench = Bench::new();
    bench.ask(commit_of(Some(5_000), vec![offset("expiring", 0, 3, 0)]));
    bench.ask(commit_of(None, vec![offset("plain", 1, 4, 0), offset("plain", 2, 5, 0)]));
    bench.ask(commit_of(None, vec![offset("named", 0, 6, 77)]));
    let dump = bench.coordinator.dump(partition());
    assert_eq!(dump.len(), 4);
    let mut after = loaded(partition(), &dump, &[]);
    assert_eq!(after.coordinator.dump(partition()), dump);
    let mut expected = fetched(&mut bench);
    let GroupResponse::FetchOffsets(Ok(offsets)) = &mut expected else { panic!("fetched") };
    let expiring = offsets.iter_mut().find(|found| &*found.topic == "expiring").expect("there");
    let Ok(Some(committed)) = &mut expiring.result else { panic!("committed") };
    // The record of an offset with its own expiry has no leader epoch.
    committed.leader_epoch = -1;
    assert_eq!(fetched(&mut after), expected);
}

#[test]
fn a_dump_brings_back_members_and_instances() {
    let mut bench = Bench::new();
    let token = bench.send(Operation::Join(static_join("i")));
    let fixed = bench.joined(token).member_id;
    bench.sync_all(std::slice::from_ref(&fixed), 1);
    let new = bench.send(Operation::Join(join("")));
    let again =
        bench.send(Operation::Join(JoinRequest { member_id: fixed.clone(), ..static_join("i") }));
    let generation = bench.joined(again).generation;
    let members = [fixed.clone(), bench.joined(new).member_id];
    bench.sync_all(&members, generation);
    bench.ask(commit(&members[1], generation, 9));

    let dump = bench.coordinator.dump(partition());
    let mut after = loaded(partition(), &dump, &[]);
    assert_eq!(after.coordinator.dump(partition()), dump);
    assert_eq!(after.coordinator.state(GROUP), Some(GroupState::Stable));
    for member in &members {
        assert_eq!(after.heartbeat(member, generation), Ok(()));
    }
    assert_eq!(after.ask(leave("", Some("i"))), bench.ask(leave("", Some("i"))));
}

#[test]
fn what_is_on_its_way_into_the_log_is_not_dumped() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(1);
    bench.ask(commit(&members[0], generation, 9));
    let dump = bench.coordinator.dump(partition());
    bench.hold = true;
    // A commit, and a rebalance up to an assignment that is not in the log.
    bench.send(commit(&members[0], generation, 10));
    let token = bench.send(Operation::Join(join(&members[0])));
    let generation = bench.joined(token).generation;
    let token = bench.send(sync(&members[0], generation, vec![(members[0].clone(), Bytes::new())]));
    assert_eq!(bench.coordinator.dump(partition()), dump);
    bench.settle(Err(AppendFailed::Unavailable));
    assert_eq!(bench.coordinator.dump(partition()), dump);
    assert_eq!(bench.refused(token), GroupError::CoordinatorNotAvailable);
}

#[test]
fn a_group_that_came_and_went_while_its_end_was_recorded_is_still_in_the_log() {
    let mut bench = Bench::new();
    let (members, _) = bench.stable(1);
    bench.ask(leave(&members[0], None));
    bench.hold = true;
    // Its tombstone is on the way when somebody joins, and leaves again.
    bench.pass(8 * 24 * 3_600_000);
    let token = bench.send(Operation::Join(join("")));
    bench.pass(3_000);
    let member = bench.joined(token).member_id;
    bench.send(leave(&member, None));
    assert_eq!(bench.waiting.len(), 2);
    bench.settle(Ok(()));
    assert_eq!(bench.coordinator.dump(partition()).len(), 1);
}

#[test]
fn records_after_the_snapshot_may_be_in_the_dump_already() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(1);
    bench.ask(commit(&members[0], generation, 9));
    let before = bench.log.len();
    bench.ask(commit(&members[0], generation, 10));
    bench.ask(leave(&members[0], None));
    bench.ask(commit_of(None, vec![offset("other", 0, 1, 0)]));
    let committed = bench.coordinator.dump(partition());
    bench.coordinator.topics_deleted(bench.now, &[("t".into(), Uuid::nil())]);
    bench.drain();
    let later: Vec<Record> = bench.log[before..].iter().map(|(_, record)| record.clone()).collect();
    assert!(later.iter().any(|(_, value)| value.is_none()), "a tombstone");
    // The offset of "t" is in the first dump and not in the second; the tombstone comes after both.
    let dump = bench.coordinator.dump(partition());
    for older in [&committed, &dump] {
        let after = loaded(partition(), older, &later);
        assert_eq!(after.coordinator.dump(partition()), dump);
    }
}

#[test]
fn a_partition_that_is_not_here_has_no_records() {
    let mut bench = Bench::new();
    bench.stable(1);
    bench.coordinator.unload(partition());
    assert_eq!(bench.coordinator.dump(partition()), []);
}

fn decoded(bytes: &[u8]) -> Result<Vec<(Bytes, Bytes)>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let records = decode_records(&mut reader)?;
    reader.finish()?;
    Ok(records)
}

#[test]
fn a_list_of_records_is_read_as_written() {
    let golden = b"\x02\0\0\0\x01\0\0\0k\x02\0\0\0vw\0\0\0\0\0\0\0\0";
    let bytes = |text: &'static [u8]| Bytes::from_static(text);
    let records = vec![(bytes(b"k"), bytes(b"vw")), (bytes(b""), bytes(b""))];
    let mut writer = Writer::default();
    encode_records(&records, &mut writer);
    assert_eq!(writer.finish(), golden);
    assert_eq!(decoded(golden), Ok(records));
    for end in 0..golden.len() {
        assert!(decoded(&golden[..end]).is_err(), "{end} bytes");
    }
    // A count or a length that the bytes do not have.
    assert!(decoded(b"\xff\xff\xff\xff\x01\0\0\0k\0\0\0\0").is_err());
    assert!(decoded(b"\x01\0\0\0\xff\xff\xff\xffk").is_err());
}
