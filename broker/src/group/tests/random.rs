//! Random histories: nothing panics, every request is answered once, generations only grow, and a
//! group with members has one of them as its leader.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Join { member: usize, instance: Option<u8>, id_first: bool, protocol: bool },
    Sync { member: usize, back: i32 },
    Heartbeat { member: usize, back: i32 },
    Leave { member: usize },
    Commit { member: usize, back: i32, offset: i64 },
    Fetch,
    Pass { ms: u64 },
    Settle { good: bool },
    Restart,
    Move,
}

fn event() -> impl Strategy<Value = Event> {
    let member = 0_usize..5;
    let back = prop_oneof![8 => Just(0), 1 => 1..3_i32];
    prop_oneof![
        6 => (member.clone(), prop::option::weighted(0.3, 0_u8..2), any::<bool>(), any::<bool>())
            .prop_map(|(member, instance, id_first, protocol)| Event::Join {
                member, instance, id_first, protocol,
            }),
        6 => (member.clone(), back.clone()).prop_map(|(member, back)| Event::Sync { member, back }),
        3 => (member.clone(), back.clone())
            .prop_map(|(member, back)| Event::Heartbeat { member, back }),
        1 => member.clone().prop_map(|member| Event::Leave { member }),
        3 => (member, back, 0..9_i64)
            .prop_map(|(member, back, offset)| Event::Commit { member, back, offset }),
        1 => Just(Event::Fetch),
        3 => prop_oneof![0..5_000_u64, 5_000..70_000_u64].prop_map(|ms| Event::Pass { ms }),
        5 => prop::bool::weighted(0.8).prop_map(|good| Event::Settle { good }),
        1 => Just(Event::Restart),
        1 => Just(Event::Move),
    ]
}

/// What the clients know: five members, the last id each was given, the last generation seen.
struct Clients {
    ids: Vec<Name>,
    generation: i32,
}

impl Clients {
    fn operation(&self, event: &Event) -> Option<Operation> {
        Some(match event {
            Event::Join { member, instance, id_first, protocol: other } => {
                let mut request = join(&self.ids[*member]);
                request.member_id_required = *id_first;
                request.instance_id = instance.map(|i| i.to_string().into());
                if request.instance_id.is_some() {
                    request.member_id = "".into();
                }
                if *other {
                    request.protocols.push(protocol("sticky", "s"));
                }
                Operation::Join(request)
            }
            Event::Sync { member, back } => {
                let all = self.ids.iter().map(|id| (id.clone(), Bytes::new())).collect();
                sync(&self.ids[*member], self.generation - back, all)
            }
            Event::Heartbeat { member, back } => {
                heartbeat(&self.ids[*member], self.generation - back)
            }
            Event::Leave { member } => leave(&self.ids[*member], None),
            Event::Commit { member, back, offset } => {
                commit(&self.ids[*member], self.generation - back, *offset)
            }
            Event::Fetch => fetch(),
            Event::Pass { .. } | Event::Settle { .. } | Event::Restart | Event::Move => {
                return None;
            }
        })
    }

    fn learn(&mut self, member: Option<usize>, response: &GroupResponse) {
        let (Some(member), GroupResponse::Join(joined)) = (member, response) else { return };
        match joined {
            Ok(joined) => {
                self.ids[member] = joined.member_id.clone();
                self.generation = joined.generation;
            }
            Err(refused) if refused.error == GroupError::MemberIdRequired => {
                self.ids[member] = refused.member_id.clone();
            }
            Err(_) => self.ids[member] = "".into(),
        }
    }
}

fn check(bench: &Bench, generation_last: &mut i32) {
    let Some(group) = bench.coordinator.groups.get(GROUP) else {
        *generation_last = 0;
        return;
    };
    assert!(group.generation >= *generation_last, "the generation went back");
    *generation_last = group.generation;
    assert_eq!(group.members.is_empty(), group.leader.is_none(), "{group:?}");
    assert!(group.leader.iter().all(|leader| group.members.contains_key(leader)));
    for (instance, id) in &group.instances {
        assert_eq!(group.members[id].instance_id.as_ref(), Some(instance));
    }
    if group.state == GroupState::Empty {
        assert!(group.members.is_empty());
    }
    if matches!(group.state, GroupState::Empty | GroupState::PreparingRebalance) {
        assert!(group.members.values().all(|m| m.sync.is_none()), "{group:?}");
    }
    for (id, member) in &group.members {
        assert_eq!(*id, member.id);
        assert!(member.timer_at.is_some_and(|at| at <= member.session_end), "{member:?}");
    }
}

fn run(events: &[Event]) {
    let mut bench = Bench::new();
    bench.hold = true;
    let mut clients = Clients { ids: vec!["".into(); 5], generation: 1 };
    let mut asked: BTreeMap<u64, Option<usize>> = BTreeMap::new();
    let mut generation_last = 0;
    for event in events {
        match event {
            Event::Pass { ms } => bench.pass(*ms),
            Event::Settle { good } => {
                bench.settle(if *good { Ok(()) } else { Err(AppendFailed::Unavailable) });
            }
            Event::Restart => {
                bench = bench.restarted();
                bench.hold = true;
                // The connections broke with the broker; what was not recorded is forgotten.
                asked.clear();
                generation_last = 0;
            }
            Event::Move => {
                let partition = partition_for(GROUP, PARTITION_COUNT);
                bench.settle(Ok(()));
                bench.coordinator.unload(partition);
                bench.drain();
                collect(&mut bench, &mut asked, &mut clients);
                assert!(asked.is_empty(), "not answered: {asked:?}");
                let (token, ids, now) = (bench.token, bench.ids, bench.now);
                bench = bench.restarted();
                (bench.token, bench.ids, bench.hold) = (token, ids, true);
                bench.now = now;
                generation_last = 0;
            }
            other => {
                let member = match other {
                    Event::Join { member, .. } => Some(*member),
                    _ => None,
                };
                let operation = clients.operation(other).expect("a request");
                asked.insert(bench.send(operation), member);
            }
        }
        collect(&mut bench, &mut asked, &mut clients);
        check(&bench, &mut generation_last);
    }
    // In the end everybody is answered, once the appends are done and the waits over.
    for _ in 0..12 {
        bench.settle(Ok(()));
        bench.pass(400_000);
    }
    collect(&mut bench, &mut asked, &mut clients);
    assert!(asked.is_empty(), "not answered: {asked:?}");
}

fn collect(bench: &mut Bench, asked: &mut BTreeMap<u64, Option<usize>>, clients: &mut Clients) {
    for (token, response) in std::mem::take(&mut bench.replies) {
        let member = asked.remove(&token).expect("answered once, and asked before");
        clients.learn(member, &response);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_keep_the_invariants(events in prop::collection::vec(event(), 1..120)) {
        run(&events);
    }
}
