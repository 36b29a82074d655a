//! Joining, syncing, heartbeats, leaving, time-outs, restarts.

use super::*;

type Outcome = Result<(), GroupError>;

fn outcome(response: GroupResponse) -> Outcome {
    match response {
        GroupResponse::Join(Err(refused)) => Err(refused.error),
        GroupResponse::Join(Ok(_)) | GroupResponse::Sync(Ok(_)) => Ok(()),
        GroupResponse::Sync(Err(error)) | GroupResponse::Leave(Err(error)) => Err(error),
        GroupResponse::Heartbeat(outcome) => outcome,
        GroupResponse::Leave(Ok(left)) => left[0].result,
        GroupResponse::CommitOffsets(committed) => committed[0].result,
        GroupResponse::FetchOffsets(fetched) => fetched.map(|_| ()),
    }
}

#[test]
fn a_first_join_is_refused_or_completes_alone() {
    use GroupError::*;
    let base = || join("");
    let table: Vec<(&str, JoinRequest, Outcome)> = vec![
        ("plain", base(), Ok(())),
        ("unknown id", join("x"), Err(UnknownMember)),
        ("short", JoinRequest { session_timeout_ms: 5_999, ..base() }, Err(InvalidSessionTimeout)),
        ("neg", JoinRequest { session_timeout_ms: -1, ..base() }, Err(InvalidSessionTimeout)),
        (
            "long",
            JoinRequest { session_timeout_ms: 1_800_001, ..base() },
            Err(InvalidSessionTimeout),
        ),
        ("no protocol", JoinRequest { protocols: vec![], ..base() }, Err(InconsistentProtocol)),
        ("no type", JoinRequest { protocol_type: "".into(), ..base() }, Err(InconsistentProtocol)),
        ("id first", JoinRequest { member_id_required: true, ..base() }, Err(MemberIdRequired)),
    ];
    for (what, request, expected) in table {
        let mut bench = Bench::new();
        assert_eq!(outcome(bench.ask(Operation::Join(request))), expected, "{what}");
        let kept = matches!(expected, Ok(()) | Err(MemberIdRequired));
        assert_eq!(bench.coordinator.group_count(), usize::from(kept), "{what}");
    }
}

#[test]
fn a_member_told_its_id_joins_with_it() {
    let mut bench = Bench::new();
    let required = JoinRequest { member_id_required: true, ..join("") };
    let GroupResponse::Join(Err(refused)) = bench.ask(Operation::Join(required.clone())) else {
        panic!("joined without an id");
    };
    assert!(refused.member_id.starts_with("client-"));
    let again = JoinRequest { member_id: refused.member_id.clone(), ..required };
    let token = bench.send(Operation::Join(again));
    let joined = bench.joined(token);
    assert_eq!((joined.generation, joined.member_id), (1, refused.member_id.clone()));
    assert_eq!((joined.leader_id, joined.members.len()), (refused.member_id, 1));
}

#[test]
fn an_id_that_is_not_used_lapses_and_holds_nobody_up() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(1);
    let required = JoinRequest { member_id_required: true, ..join("") };
    assert_eq!(outcome(bench.ask(Operation::Join(required))), Err(GroupError::MemberIdRequired));
    let token = bench.send(Operation::Join(join(&members[0])));
    assert_eq!(bench.replies.get(&token), None, "the rebalance waits for the new member");
    bench.pass(10_000);
    assert_eq!(bench.joined(token).generation, generation + 1);
}

#[test]
fn group_wide_refusals_by_partition_and_id() {
    let mut bench = Bench::new();
    let token = bench.send_to("", heartbeat("m", 1));
    assert_eq!(outcome(bench.reply(token)), Err(GroupError::InvalidGroupId));
    let partition = partition_for(GROUP, PARTITION_COUNT);
    bench.coordinator.begin_load(partition);
    for operation in [heartbeat("m", 1), Operation::Join(join("")), fetch(), commit("", -1, 1)] {
        assert_eq!(outcome(bench.ask(operation)), Err(GroupError::LoadInProgress));
    }
    bench.coordinator.unload(partition);
    for operation in [heartbeat("m", 1), Operation::Join(join("")), fetch(), commit("", -1, 1)] {
        assert_eq!(outcome(bench.ask(operation)), Err(GroupError::NotCoordinator));
    }
}

#[test]
fn requests_of_strangers_and_of_old_generations() {
    use GroupError::*;
    let mut bench = Bench::new();
    let absent: Vec<(Operation, GroupError)> = vec![
        (heartbeat("m", 1), UnknownMember),
        (sync("m", 1, vec![]), UnknownMember),
        (leave("m", None), UnknownMember),
        (commit("m", 1, 1), GroupNotFound),
    ];
    for (operation, expected) in absent {
        assert_eq!(outcome(bench.ask(operation.clone())), Err(expected), "absent: {operation:?}");
    }
    let (members, generation) = bench.stable(2);
    let m = &members[0];
    let stable: Vec<(Operation, Outcome)> = vec![
        (heartbeat(m, generation), Ok(())),
        (heartbeat(m, generation - 1), Err(IllegalGeneration)),
        (heartbeat("x", generation), Err(UnknownMember)),
        (sync(m, generation, vec![]), Ok(())),
        (sync(m, generation + 1, vec![]), Err(IllegalGeneration)),
        (sync("x", generation, vec![]), Err(UnknownMember)),
        (commit(m, generation, 1), Ok(())),
        (commit(m, generation - 1, 1), Err(IllegalGeneration)),
        (commit("x", generation, 1), Err(UnknownMember)),
        (commit("", -1, 1), Err(UnknownMember)),
        (leave("x", None), Err(UnknownMember)),
        (leave("", Some("x")), Err(UnknownMember)),
        // A follower that missed its answer gets it again.
        (Operation::Join(join(&members[1])), Ok(())),
    ];
    for (operation, expected) in stable {
        assert_eq!(outcome(bench.ask(operation.clone())), expected, "stable: {operation:?}");
    }
    let other = JoinRequest { protocols: vec![protocol("other", "")], ..join("") };
    assert_eq!(outcome(bench.ask(Operation::Join(other))), Err(InconsistentProtocol));
    let other = JoinRequest { protocol_type: "connect".into(), ..join("") };
    assert_eq!(outcome(bench.ask(Operation::Join(other))), Err(InconsistentProtocol));
}

#[test]
fn heartbeats_tell_of_a_rebalance_while_it_is_prepared() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(2);
    let leader = bench.send(Operation::Join(join(&members[0])));
    assert_eq!(bench.coordinator.state(GROUP), Some(GroupState::PreparingRebalance));
    let rebalancing = Err(GroupError::RebalanceInProgress);
    assert_eq!(bench.heartbeat(&members[1], generation), rebalancing);
    assert_eq!(outcome(bench.ask(sync(&members[1], generation, vec![]))), rebalancing);
    // Offsets may still be committed before joining again.
    assert_eq!(outcome(bench.ask(commit(&members[1], generation, 7))), Ok(()));
    let follower = bench.send(Operation::Join(join(&members[1])));
    let (leader, follower) = (bench.joined(leader), bench.joined(follower));
    assert_eq!(leader.members.len(), 2);
    assert!(follower.members.is_empty(), "only the leader gets the members");
    assert_eq!(follower.leader_id, members[0]);
    assert_eq!(bench.coordinator.state(GROUP), Some(GroupState::CompletingRebalance));
    assert_eq!(bench.heartbeat(&members[1], generation + 1), Ok(()));
    assert_eq!(outcome(bench.ask(commit(&members[1], generation + 1, 8))), rebalancing);
    bench.sync_all(&members, generation + 1);
}

#[test]
fn most_votes_choose_the_protocol_among_the_common_ones() {
    let mut bench = Bench::new();
    let with = |id: &str, names: &[&str]| JoinRequest {
        protocols: names.iter().map(|name| protocol(name, "")).collect(),
        ..join(id)
    };
    let token = bench.send(Operation::Join(with("", &["a", "b", "c"])));
    let first = bench.joined(token);
    assert_eq!(&*first.protocol, "a");
    let second = bench.send(Operation::Join(with("", &["c", "b"])));
    let third = bench.send(Operation::Join(with("", &["x", "b", "c"])));
    let again = bench.send(Operation::Join(with(&first.member_id, &["a", "c", "b"])));
    // b and c are known to all; b has one vote, c has two.
    for token in [second, third, again] {
        assert_eq!(&*bench.joined(token).protocol, "c");
    }
}

#[test]
fn an_assignment_goes_out_only_when_it_is_recorded() {
    let mut bench = Bench::new();
    let token = bench.send(Operation::Join(join("")));
    let joined = bench.joined(token);
    bench.hold = true;
    let all = vec![(joined.member_id.clone(), Bytes::from_static(b"mine"))];
    let token = bench.send(sync(&joined.member_id, 1, all.clone()));
    assert_eq!(bench.replies.get(&token), None);
    bench.settle(Err(AppendFailed::Unavailable));
    assert_eq!(bench.refused(token), GroupError::CoordinatorNotAvailable);
    assert_eq!(bench.coordinator.state(GROUP), Some(GroupState::PreparingRebalance));
    let token = bench.send(Operation::Join(join(&joined.member_id)));
    assert_eq!(bench.joined(token).generation, 2);
    let token = bench.send(sync(&joined.member_id, 2, all));
    bench.settle(Ok(()));
    assert_eq!(bench.assignment(token), &b"mine"[..]);
}

#[test]
fn a_failed_leader_is_replaced_when_its_session_ends() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(2);
    bench.pass(9_000);
    assert_eq!(bench.heartbeat(&members[1], generation), Ok(()));
    bench.pass(1_000);
    assert_eq!(bench.heartbeat(&members[0], generation), Err(GroupError::UnknownMember));
    assert_eq!(bench.heartbeat(&members[1], generation), Err(GroupError::RebalanceInProgress));
    let token = bench.send(Operation::Join(join(&members[1])));
    let joined = bench.joined(token);
    assert_eq!((joined.generation, &joined.leader_id), (generation + 1, &members[1]));
    assert_eq!(joined.members.len(), 1);
}

#[test]
fn a_member_that_does_not_join_again_in_time_is_out() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(2);
    let token = bench.send(Operation::Join(join(&members[0])));
    for _ in 0..6 {
        bench.pass(9_999);
        let alive = bench.heartbeat(&members[1], generation);
        assert_eq!(alive, Err(GroupError::RebalanceInProgress));
    }
    bench.pass(6);
    let joined = bench.joined(token);
    assert_eq!((joined.generation, joined.members.len()), (generation + 1, 1));
    assert_eq!(bench.heartbeat(&members[1], generation), Err(GroupError::UnknownMember));
}

#[test]
fn a_member_that_does_not_sync_in_time_is_out() {
    let mut bench = Bench::new();
    let token = bench.send(Operation::Join(join("")));
    let id = bench.joined(token).member_id;
    for _ in 0..7 {
        bench.pass(9_000);
        let _ = bench.heartbeat(&id, 1);
    }
    assert_eq!(bench.heartbeat(&id, 1), Err(GroupError::UnknownMember));
    assert_eq!(bench.coordinator.state(GROUP), Some(GroupState::Empty));
}

#[test]
fn the_first_rebalance_waits_for_more_members() {
    let config = GroupConfig {
        partition_count: PARTITION_COUNT,
        initial_rebalance_delay_ms: 3_000,
        ..GroupConfig::default()
    };
    let mut bench = Bench::with(config);
    let first = bench.send(Operation::Join(join("")));
    bench.pass(2_000);
    let second = bench.send(Operation::Join(join("")));
    bench.pass(1_000);
    assert!(bench.replies.is_empty(), "a member came, so the wait is prolonged");
    bench.pass(3_000);
    assert_eq!(bench.joined(first).members.len(), 2);
    assert_eq!(bench.joined(second).generation, 1);
}

#[test]
fn leaving_rebalances_the_rest_and_empties_the_group() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(2);
    assert_eq!(outcome(bench.ask(leave(&members[0], None))), Ok(()));
    assert_eq!(bench.heartbeat(&members[1], generation), Err(GroupError::RebalanceInProgress));
    assert_eq!(outcome(bench.ask(leave(&members[1], None))), Ok(()));
    assert_eq!(bench.coordinator.state(GROUP), Some(GroupState::Empty));
    assert_eq!(bench.restarted().coordinator.state(GROUP), Some(GroupState::Empty));
}

#[test]
fn a_full_group_takes_no_more() {
    let config = GroupConfig {
        partition_count: PARTITION_COUNT,
        member_count_max: 1,
        ..GroupConfig::default()
    };
    let mut bench = Bench::with(config);
    bench.stable(1);
    assert_eq!(outcome(bench.ask(Operation::Join(join("")))), Err(GroupError::GroupFull));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_former_self() {
    for skip_assignment_known in [false, true] {
        let mut bench = Bench::new();
        let token = bench.send(Operation::Join(static_join("i")));
        let old = bench.joined(token).member_id;
        bench.sync_all(std::slice::from_ref(&old), 1);
        let back = JoinRequest { skip_assignment_known, ..static_join("i") };
        let token = bench.send(Operation::Join(back));
        let joined = bench.joined(token);
        assert_ne!(joined.member_id, old);
        assert_eq!(joined.generation, 1);
        assert_eq!(joined.skip_assignment, skip_assignment_known);
        // A client that does not know the flag is told that somebody else leads.
        let leader = if skip_assignment_known { &joined.member_id } else { &old };
        assert_eq!(&joined.leader_id, leader);
        let fenced = Operation::Heartbeat(HeartbeatRequest {
            generation: 1,
            member_id: old.clone(),
            instance_id: Some("i".into()),
        });
        assert_eq!(outcome(bench.ask(fenced)), Err(GroupError::FencedInstance));
        assert_eq!(bench.heartbeat(&old, 1), Err(GroupError::UnknownMember));
        let token = bench.send(sync(&joined.member_id, 1, vec![]));
        assert_eq!(bench.assignment(token), old.as_bytes(), "the assignment is kept");
        let mut after = bench.restarted();
        assert_eq!(after.heartbeat(&joined.member_id, 1), Ok(()), "the new id is recorded");
        assert_eq!(outcome(bench.ask(leave("", Some("i")))), Ok(()));
    }
}

#[test]
fn a_static_member_whose_new_id_is_not_recorded_keeps_the_old_one() {
    let mut bench = Bench::new();
    let token = bench.send(Operation::Join(static_join("i")));
    let old = bench.joined(token).member_id;
    bench.sync_all(std::slice::from_ref(&old), 1);
    bench.hold = true;
    let token = bench.send(Operation::Join(static_join("i")));
    bench.settle(Err(AppendFailed::NotLeader));
    assert_eq!(bench.refused(token), GroupError::NotCoordinator);
    assert_eq!(bench.heartbeat(&old, 1), Ok(()));
}

#[test]
fn a_second_static_join_fences_the_first_that_waits() {
    let mut bench = Bench::new();
    let (members, _) = bench.stable(1);
    let first = bench.send(Operation::Join(static_join("i")));
    let second = bench.send(Operation::Join(static_join("i")));
    assert_eq!(bench.refused(first), GroupError::FencedInstance);
    let leader = bench.send(Operation::Join(join(&members[0])));
    assert_eq!(bench.joined(second).generation, 2);
    assert_eq!(bench.joined(leader).members.len(), 2);
}

#[test]
fn a_static_member_survives_a_rebalance_it_does_not_join() {
    let mut bench = Bench::new();
    let away = JoinRequest { session_timeout_ms: 300_000, ..static_join("i") };
    let token = bench.send(Operation::Join(away));
    let instance = bench.joined(token).member_id;
    bench.sync_all(std::slice::from_ref(&instance), 1);
    let token = bench.send(Operation::Join(join("")));
    bench.pass(60_000);
    let joined = bench.joined(token);
    assert_eq!((joined.generation, joined.members.len()), (2, 2));
    assert_eq!(joined.leader_id, joined.member_id, "an absent leader is replaced");
}

#[test]
fn members_go_on_after_a_restart_without_a_rebalance() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(3);
    let mut after = bench.restarted();
    assert_eq!(after.coordinator.state(GROUP), Some(GroupState::Stable));
    for id in &members {
        assert_eq!(after.heartbeat(id, generation), Ok(()));
        let token = after.send(sync(id, generation, vec![]));
        assert_eq!(after.assignment(token), id.as_bytes());
        assert_eq!(outcome(after.ask(commit(id, generation, 3))), Ok(()));
    }
    // Sessions start with the restart.
    after.pass(10_000);
    assert_eq!(after.coordinator.state(GROUP), Some(GroupState::Empty));
    let token = after.send(Operation::Join(join("")));
    assert_eq!(after.joined(token).generation, generation + 2);
}

#[test]
fn whoever_waits_is_answered_when_the_partition_goes() {
    let mut bench = Bench::new();
    let (members, generation) = bench.stable(2);
    let token = bench.send(Operation::Join(join(&members[0])));
    bench.hold = true;
    let committing = bench.send(commit(&members[1], generation, 1));
    bench.coordinator.unload(partition_for(GROUP, PARTITION_COUNT));
    bench.drain();
    assert_eq!(bench.refused(token), GroupError::NotCoordinator);
    assert_eq!(outcome(bench.reply(committing)), Err(GroupError::NotCoordinator));
    bench.settle(Ok(()));
    assert!(bench.replies.is_empty());
}
