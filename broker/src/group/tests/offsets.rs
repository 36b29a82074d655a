//! Commits, fetches and what is forgotten.

use super::*;

fn committed(bench: &mut Bench) -> Vec<(i32, i64)> {
    match bench.ask(fetch()) {
        GroupResponse::FetchOffsets(Ok(all)) => {
            let offset = |f: &OffsetFetched| f.result.clone().ok().flatten().map(|o| o.offset);
            all.iter().map(|f| (f.partition, offset(f).expect("committed"))).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn result(response: GroupResponse) -> Result<(), GroupError> {
    match response {
        GroupResponse::CommitOffsets(results) => results[0].result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_commit_is_answered_and_visible_only_when_recorded() {
    let mut bench = Bench::new();
    assert_eq!(result(bench.ask(commit("", -1, 10))), Ok(()));
    bench.hold = true;
    let token = bench.send(commit("", -1, 20));
    assert_eq!(committed(&mut bench), [(0, 10)]);
    assert_eq!(bench.replies.get(&token), None);
    bench.settle(Err(AppendFailed::Unavailable));
    assert_eq!(result(bench.reply(token)), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(committed(&mut bench), [(0, 10)]);
    let token = bench.send(commit("", -1, 30));
    bench.settle(Ok(()));
    assert_eq!(result(bench.reply(token)), Ok(()));
    assert_eq!(committed(&mut bench), [(0, 30)]);
    assert_eq!(committed(&mut bench.restarted()), [(0, 30)]);
}

#[test]
fn what_was_never_committed_is_no_error() {
    let mut bench = Bench::new();
    let wanted =
        TopicPartitions { topic: "t".into(), topic_id: Uuid::nil(), partitions: vec![0, 9] };
    let some = FetchOffsetsRequest { topics: Some(vec![wanted]), require_stable: false };
    let GroupResponse::FetchOffsets(Ok(none)) = bench.ask(Operation::FetchOffsets(some.clone()))
    else {
        panic!("refused");
    };
    assert!(none.iter().all(|f| f.result == Ok(None)) && none.len() == 2);
    assert_eq!(result(bench.ask(commit("", -1, 4))), Ok(()));
    let GroupResponse::FetchOffsets(Ok(one)) = bench.ask(Operation::FetchOffsets(some)) else {
        panic!("refused");
    };
    let expected = CommittedOffset { offset: 4, leader_epoch: 5, metadata: "m".into() };
    assert_eq!(one[0].result, Ok(Some(expected)));
    assert_eq!(one[1].result, Ok(None));
}

#[test]
fn text_beside_an_offset_has_a_limit_of_its_own() {
    let mut bench = Bench::new();
    let Operation::CommitOffsets(mut request) = commit("", -1, 1) else { panic!() };
    let good = request.offsets[0].clone();
    let long = CommitOffset { metadata: "x".repeat(4_097).into(), partition: 1, ..good.clone() };
    request.offsets = vec![long.clone(), good];
    let GroupResponse::CommitOffsets(results) = bench.ask(Operation::CommitOffsets(request)) else {
        panic!("no commit");
    };
    assert_eq!(results[0].result, Err(GroupError::OffsetMetadataTooLarge));
    assert_eq!(results[1].result, Ok(()));
    assert_eq!(committed(&mut bench), [(0, 1)]);
    let Operation::CommitOffsets(mut request) = commit("", -1, 1) else { panic!() };
    request.offsets = vec![long];
    bench.hold = true;
    let response = bench.ask(Operation::CommitOffsets(request));
    assert_eq!(result(response), Err(GroupError::OffsetMetadataTooLarge));
}

#[test]
fn a_commit_counts_as_a_heartbeat() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(1);
    for offset in 0..5 {
        bench.pass(9_000);
        assert_eq!(result(bench.ask(commit(&members[0], generation, offset))), Ok(()));
    }
    assert_eq!(bench.coordinator.state(GROUP), Some(GroupState::Stable));
}

#[test]
fn offsets_and_their_group_go_after_their_retention() {
    let mut bench = Bench::new();
    assert_eq!(result(bench.ask(commit("", -1, 1))), Ok(()));
    let retention = u64::try_from(GroupConfig::default().offsets_retention_ms).expect("positive");
    bench.pass(retention - 1_000);
    assert_eq!(committed(&mut bench), [(0, 1)]);
    bench.pass(1_000_000);
    assert_eq!(committed(&mut bench), []);
    bench.pass(1_000_000);
    assert_eq!(bench.coordinator.group_count(), 0);
    assert_eq!(bench.restarted().coordinator.group_count(), 0);
}

#[test]
fn a_group_with_members_keeps_its_offsets() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(1);
    assert_eq!(result(bench.ask(commit(&members[0], generation, 1))), Ok(()));
    let retention = GroupConfig::default().offsets_retention_ms;
    bench.now.unix_ms += 2 * retention;
    bench.coordinator.expire_offsets(bench.now);
    bench.drain();
    assert_eq!(committed(&mut bench), [(0, 1)]);
    // From the moment it is empty the time runs.
    let _ = bench.ask(leave(&members[0], None));
    bench.coordinator.expire_offsets(bench.now);
    bench.drain();
    assert_eq!(committed(&mut bench), [(0, 1)]);
    bench.now.unix_ms += retention;
    bench.coordinator.expire_offsets(bench.now);
    bench.drain();
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn offsets_of_a_deleted_topic_go_and_those_of_its_successor_stay() {
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (committed_for, kept) in [(old, 0), (new, 1), (Uuid::nil(), 0)] {
        let mut bench = Bench::new();
        let Operation::CommitOffsets(mut request) = commit("", -1, 1) else { panic!() };
        request.offsets[0].topic_id = committed_for;
        assert_eq!(result(bench.ask(Operation::CommitOffsets(request))), Ok(()));
        bench.coordinator.topics_deleted(bench.now, &[("t".into(), old), ("u".into(), new)]);
        bench.drain();
        assert_eq!(committed(&mut bench).len(), kept, "{committed_for}");
        assert_eq!(committed(&mut bench.restarted()).len(), kept, "{committed_for}");
    }
}
