//! The coordinator as Kafka's group coordinator behaves: tables of requests by state, rebalances of
//! several members, static members, time-outs, restarts, and random histories.

mod dump;
mod membership;
mod offsets;
mod random;
mod records;

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::*;

const GROUP: &str = "g";
const PARTITION_COUNT: i32 = 4;

type Record = (Bytes, Option<Bytes>);

/// A coordinator with a clock, a log and the replies it has given.
struct Bench {
    coordinator: Coordinator,
    now: Now,
    token: u64,
    ids: u128,
    replies: BTreeMap<u64, GroupResponse>,
    log: Vec<(i32, Record)>,
    /// Appends that wait for `settle`, if it is not done at once.
    waiting: Vec<(AppendToken, i32, Vec<Record>)>,
    hold: bool,
}

impl Bench {
    fn new() -> Self {
        Self::with(GroupConfig { partition_count: PARTITION_COUNT, ..GroupConfig::default() })
    }

    fn with(config: GroupConfig) -> Self {
        let now = Now { monotonic_ms: 1_000, unix_ms: 1_700_000_000_000 };
        let mut bench = Self {
            coordinator: Coordinator::new(config),
            now,
            token: 0,
            ids: 0,
            replies: BTreeMap::new(),
            log: Vec::new(),
            waiting: Vec::new(),
            hold: false,
        };
        for partition in 0..PARTITION_COUNT {
            bench.coordinator.begin_load(partition);
            bench.coordinator.end_load(now, partition);
        }
        bench
    }

    /// The same log in a new coordinator, some time later.
    fn restarted(&self) -> Self {
        let mut after = Self::new();
        for partition in 0..PARTITION_COUNT {
            after.coordinator.begin_load(partition);
            for (_, (key, value)) in self.log.iter().filter(|(of, _)| *of == partition) {
                after.coordinator.load(partition, key, value.as_deref());
            }
            after.coordinator.end_load(after.now, partition);
        }
        assert_eq!(after.coordinator.load_fault(), None);
        (after.log, after.ids) = (self.log.clone(), self.ids + 1_000);
        after.check_dump();
        after
    }

    fn send(&mut self, operation: Operation) -> u64 {
        self.send_to(GROUP, operation)
    }

    fn send_to(&mut self, group: &str, operation: Operation) -> u64 {
        self.token += 1;
        let request = GroupRequest { group: group.into(), operation };
        let ids = &mut self.ids;
        let mut next_id = || {
            *ids += 1;
            Uuid::from_u128(*ids)
        };
        self.coordinator.handle(self.now, ReplyToken(self.token), request, &mut next_id);
        self.drain();
        self.token
    }

    fn drain(&mut self) {
        while let Some(output) = self.coordinator.poll_output() {
            match output {
                Output::Reply { token, response } => {
                    let twice = self.replies.insert(token.0, response);
                    assert_eq!(twice, None, "token {} is answered twice", token.0);
                }
                Output::Append { partition, records, token } => {
                    self.waiting.push((token, partition, records));
                    if !self.hold {
                        self.settle(Ok(()));
                    }
                }
            }
        }
    }

    /// Reports the appends that wait, in order.
    fn settle(&mut self, result: Result<(), AppendFailed>) {
        for (token, partition, records) in std::mem::take(&mut self.waiting) {
            if result.is_ok() {
                self.log.extend(records.into_iter().map(|record| (partition, record)));
            }
            self.coordinator.appended(self.now, token, result);
        }
        self.check_dump();
        self.drain();
    }

    /// A dump is the log without what a later record of the same key has replaced or deleted.
    fn check_dump(&self) {
        for partition in self.coordinator.partitions.keys().copied() {
            let mut last: BTreeMap<Bytes, Bytes> = BTreeMap::new();
            for (_, (key, value)) in self.log.iter().filter(|(of, _)| *of == partition) {
                match value {
                    Some(value) => last.insert(key.clone(), value.clone()),
                    None => last.remove(key),
                };
            }
            let dump = self.coordinator.dump(partition);
            assert_eq!(dump.len(), last.len(), "a key is there once");
            assert_eq!(dump.into_iter().collect::<BTreeMap<_, _>>(), last);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.unix_ms += i64::try_from(ms).expect("small");
        self.coordinator.handle_deadline(self.now);
        self.drain();
        assert!(self.coordinator.deadline().is_some_and(|at| at > self.now.monotonic_ms));
    }

    fn ask(&mut self, operation: Operation) -> GroupResponse {
        let token = self.send(operation);
        self.replies.remove(&token).expect("answered at once")
    }

    fn reply(&mut self, token: u64) -> GroupResponse {
        self.replies.remove(&token).unwrap_or_else(|| panic!("token {token} is not answered"))
    }

    fn joined(&mut self, token: u64) -> JoinedGroup {
        match self.reply(token) {
            GroupResponse::Join(Ok(joined)) => joined,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, token: u64) -> GroupError {
        match self.reply(token) {
            GroupResponse::Join(Err(refused)) => refused.error,
            GroupResponse::Sync(Err(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        match self.ask(heartbeat(member, generation)) {
            GroupResponse::Heartbeat(alive) => alive,
            other => panic!("{other:?}"),
        }
    }

    fn assignment(&mut self, token: u64) -> Bytes {
        match self.reply(token) {
            GroupResponse::Sync(Ok(synced)) => synced.assignment,
            other => panic!("{other:?}"),
        }
    }

    /// A stable group of so many members; their ids, the leader's first.
    fn stable(&mut self, count: usize) -> (Vec<Name>, i32) {
        let first = self.send(Operation::Join(join("")));
        let mut members = vec![self.joined(first).member_id];
        let mut generation = 1;
        for _ in 1..count {
            let new = self.send(Operation::Join(join("")));
            let again: Vec<u64> =
                members.iter().map(|id| self.send(Operation::Join(join(id)))).collect();
            for token in again {
                generation = self.joined(token).generation;
            }
            members.push(self.joined(new).member_id);
        }
        self.sync_all(&members, generation);
        (members, generation)
    }

    /// Everybody syncs, the leader last; each gets its own id as assignment.
    fn sync_all(&mut self, members: &[Name], generation: i32) {
        let assign = |id: &Name| (id.clone(), Bytes::from(id.to_string()));
        let tokens: Vec<u64> =
            members[1..].iter().map(|id| self.send(sync(id, generation, Vec::new()))).collect();
        let all = members.iter().map(assign).collect();
        let leader = self.send(sync(&members[0], generation, all));
        for (id, token) in members.iter().zip([leader].into_iter().chain(tokens)) {
            assert_eq!(self.assignment(token), id.as_bytes());
        }
        assert_eq!(self.coordinator.state(GROUP), Some(GroupState::Stable));
    }
}

fn join(member_id: &str) -> JoinRequest {
    JoinRequest {
        member_id: member_id.into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        member_id_required: false,
        skip_assignment_known: false,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", "r")],
    }
}

fn static_join(instance_id: &str) -> JoinRequest {
    JoinRequest { instance_id: Some(instance_id.into()), ..join("") }
}

fn protocol(name: &str, metadata: &'static str) -> Protocol {
    Protocol { name: name.into(), metadata: Bytes::from_static(metadata.as_bytes()) }
}

fn sync(member_id: &str, generation: i32, assignments: Vec<(Name, Bytes)>) -> Operation {
    Operation::Sync(SyncRequest {
        generation,
        member_id: member_id.into(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments,
    })
}

fn heartbeat(member_id: &str, generation: i32) -> Operation {
    let member_id = member_id.into();
    Operation::Heartbeat(HeartbeatRequest { generation, member_id, instance_id: None })
}

fn leave(member_id: &str, instance_id: Option<&str>) -> Operation {
    let instance_id = instance_id.map(Name::from);
    let members = vec![LeavingMember { member_id: member_id.into(), instance_id }];
    Operation::Leave(LeaveRequest { members })
}

fn commit(member_id: &str, generation: i32, offset: i64) -> Operation {
    Operation::CommitOffsets(CommitOffsetsRequest {
        generation,
        member_id: member_id.into(),
        instance_id: None,
        retention_ms: None,
        offsets: vec![CommitOffset {
            topic: "t".into(),
            topic_id: Uuid::nil(),
            partition: 0,
            offset,
            leader_epoch: 5,
            metadata: "m".into(),
        }],
    })
}

fn fetch() -> Operation {
    Operation::FetchOffsets(FetchOffsetsRequest { topics: None, require_stable: true })
}

#[test]
fn groups_are_spread_by_javas_string_hash() {
    // Java's hash codes; two of them are negative, one the smallest there is.
    for (group, hash) in [
        ("", 0),
        ("a", 97),
        ("hello", 99_162_322),
        ("zzzzzz", -685_785_664),
        ("my-group", -1_906_497_762),
        ("polygenelubricants", i32::MIN),
    ] {
        assert_eq!(partition_for(group, 50), (hash & i32::MAX) % 50, "{group}");
    }
    assert_eq!(partition_for("group", 0), 0);
}
