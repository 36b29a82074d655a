//! A group of one voter, end to end: what a broker of one node runs on.

use bytes::{Bytes, BytesMut};
use model::{LogIndex, RaftGroupId, Term};
use replication::{
    Action, AppBytes, CommittedEntry, Descriptor, Driver, DriverConfig, ProposeError, RecoverError,
    Role, Ticket,
};

const GROUP: RaftGroupId = RaftGroupId::new(3);

/// A record as a WAL would keep it.
#[derive(Clone)]
enum Record {
    Entry { group: RaftGroupId, term: Term, index: LogIndex, data: Vec<u8> },
    State { group: RaftGroupId, data: Bytes },
}

/// A driver with a WAL that becomes durable when the test says so.
struct Node {
    driver: Driver,
    wal: Vec<Record>,
    tickets: Vec<Ticket>,
    /// Everything but writes, in order.
    seen: Vec<Action>,
}

impl Node {
    fn new() -> Self {
        let config = DriverConfig { payload_window_bytes: 1 << 10, ..DriverConfig::new(1, 7) };
        Self { driver: Driver::new(config), wal: vec![], tickets: vec![], seen: vec![] }
    }

    fn created() -> Self {
        let mut node = Self::new();
        node.driver.start().expect("empty");
        node.driver.create_group(GROUP, &[1]);
        node.settle();
        node
    }

    /// A node that finds `wal` at its start.
    fn recovered(wal: &[Record]) -> Result<Self, RecoverError> {
        let mut node = Self::new();
        for (location, record) in wal.iter().enumerate() {
            match record {
                Record::Entry { group, term, index, data } => {
                    node.driver.recover_entry(*group, *term, *index, data, location as u64)?;
                }
                Record::State { group, data } => node.driver.recover_state(*group, data)?,
            }
        }
        node.wal = wal.to_vec();
        node.driver.start()?;
        Ok(node)
    }

    /// Does what the driver says, short of reporting writes.
    fn work(&mut self) {
        while let Some(action) = self.driver.poll_action() {
            let Action::Persist { group, ticket, entries, snapshot, state } = action else {
                self.seen.push(action);
                continue;
            };
            for entry in entries {
                let data = [&entry.descriptor[..], &entry.payload[..]].concat();
                let (term, index) = (entry.term, entry.index);
                self.driver.placed(group, index, term, self.wal.len() as u64);
                self.wal.push(Record::Entry { group, term, index, data });
            }
            for data in [snapshot, state].into_iter().flatten() {
                self.wal.push(Record::State { group, data });
            }
            self.tickets.push(ticket);
        }
    }

    /// Makes every write durable until nothing is left to do.
    fn settle(&mut self) {
        self.work();
        while !self.tickets.is_empty() {
            for ticket in std::mem::take(&mut self.tickets) {
                self.driver.handle_persisted(ticket);
            }
            self.work();
        }
    }

    fn propose(&mut self, payload: &str, resident: bool) -> Result<LogIndex, ProposeError> {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let app = AppBytes::new(b"app").expect("short");
        let descriptor = Descriptor::of(&payload, resident, app).expect("short");
        self.driver.propose(GROUP, descriptor, payload).map(|(_, index)| index)
    }

    fn applied(&self) -> Vec<CommittedEntry> {
        let mut applied = Vec::new();
        for action in &self.seen {
            if let Action::Apply { entries, .. } = action {
                applied.extend(entries.iter().cloned());
            }
        }
        applied
    }

    fn applied_payloads(&self) -> Vec<(u64, Option<String>)> {
        let full = self.applied().into_iter().filter(|entry| entry.descriptor.is_some());
        full.map(|entry| {
            let payload = entry.payload.map(|p| String::from_utf8(p.to_vec()).expect("text"));
            (entry.index.get(), payload)
        })
        .collect()
    }
}

#[test]
fn it_leads_at_once() {
    let node = Node::created();
    assert_eq!(node.driver.role(GROUP), Role::Leader);
    assert_eq!(node.driver.leader(GROUP), Some(1));
    assert_eq!(node.driver.committed(GROUP), LogIndex::new(1));
}

#[test]
fn nothing_is_committed_before_it_is_durable() {
    let mut node = Node::created();
    let index = node.propose("one", false).expect("leads");
    assert_eq!(index, LogIndex::new(2));
    node.work();
    assert_eq!(node.driver.committed(GROUP), LogIndex::new(1));
    assert_eq!(node.applied_payloads(), []);
    node.settle();
    assert_eq!(node.driver.committed(GROUP), index);
    assert_eq!(node.applied_payloads(), [(2, Some("one".to_owned()))]);
}

#[test]
fn what_is_proposed_together_is_one_write() {
    let mut node = Node::created();
    for payload in ["one", "two", "three"] {
        node.propose(payload, false).expect("leads");
    }
    node.work();
    assert_eq!(node.tickets.len(), 1);
}

#[test]
fn a_commit_is_announced_before_it_is_applied() {
    let mut node = Node::created();
    node.propose("one", false).expect("leads");
    node.seen.clear();
    node.settle();
    let committed = Action::Committed { group: GROUP, index: LogIndex::new(2) };
    assert_eq!(format!("{:?}", node.seen[0]), format!("{committed:?}"));
    assert!(matches!(node.seen[1], Action::Apply { .. }));
}

#[test]
fn after_a_restart_everything_recovered_is_committed() {
    let mut node = Node::created();
    node.propose("data", false).expect("leads");
    node.propose("metadata", true).expect("leads");
    node.work();
    // The write is durable, but nobody was told before the power went.
    let mut again = Node::recovered(&node.wal).expect("whole");
    again.settle();
    assert_eq!(again.driver.role(GROUP), Role::Leader);
    assert_eq!(again.applied_payloads(), [(2, None), (3, Some("metadata".to_owned()))]);
    assert_eq!(again.driver.committed(GROUP), LogIndex::new(4));
    let indexes: Vec<u64> = again.applied().iter().map(|entry| entry.index.get()).collect();
    assert_eq!(indexes, [1, 2, 3, 4]);
    let (location, descriptor) = again.driver.location(GROUP, LogIndex::new(2)).expect("placed");
    let Record::Entry { data, .. } = &node.wal[usize::try_from(location).expect("small")] else {
        panic!("location {location} is not an entry");
    };
    assert_eq!(&data[descriptor.encoded_size()..], b"data");
}

#[test]
fn what_is_resident_is_in_memory_until_it_is_applied() {
    let mut node = Node::created();
    let index = node.propose("held", true).expect("leads");
    let other = node.propose("let go", false).expect("leads");
    node.work();
    let found = |node: &Node, index| node.driver.payload(GROUP, index).cloned();
    assert_eq!(found(&node, index), Some(Bytes::from_static(b"held")));
    let recovered = Node::recovered(&node.wal).expect("sound");
    assert_eq!(found(&recovered, index), Some(Bytes::from_static(b"held")));
    assert_eq!(found(&recovered, other), None, "it is read from the WAL");
}

#[test]
fn each_restart_is_a_new_term() {
    let mut node = Node::created();
    for _ in 0..3 {
        let term = node.driver.term(GROUP);
        node = Node::recovered(&node.wal).expect("whole");
        node.settle();
        assert_eq!(node.driver.term(GROUP).get(), term.get() + 1);
    }
}

#[test]
fn payloads_under_way_are_bounded() {
    let mut node = Node::created();
    let payload = "x".repeat(400);
    node.propose(&payload, false).expect("room");
    node.propose(&payload, false).expect("room");
    assert_eq!(node.propose(&payload, false), Err(ProposeError::Busy));
    node.settle();
    node.propose(&payload, false).expect("room again");
}

#[test]
fn one_payload_larger_than_the_window_still_passes() {
    let mut node = Node::created();
    node.propose(&"x".repeat(5000), false).expect("alone");
    assert_eq!(node.propose("y", false), Err(ProposeError::Busy));
    node.settle();
    assert_eq!(node.applied_payloads().len(), 1);
}

#[test]
fn an_unknown_group_is_led_by_nobody() {
    let mut node = Node::new();
    assert_eq!(node.propose("x", false), Err(ProposeError::NotLeader { leader: None }));
}

#[test]
fn a_compacted_log_recovers_from_its_snapshot() {
    let mut node = Node::created();
    for payload in ["one", "two", "three"] {
        node.propose(payload, false).expect("leads");
    }
    node.settle();
    let snapshot = Bytes::from_static(b"sum of one and two");
    node.driver.compact(GROUP, LogIndex::new(3), snapshot.clone()).expect("applied");
    node.work();
    assert!(!node.seen.iter().any(|action| matches!(action, Action::Compacted { .. })));
    node.settle();
    assert!(matches!(node.seen.last(), Some(Action::Compacted { index, .. }) if index.get() == 3));
    assert_eq!(node.driver.first_index(GROUP), LogIndex::new(4));

    // With and without the records that the WAL may drop now.
    let trimmed: Vec<Record> = node
        .wal
        .iter()
        .filter(|record| !matches!(record, Record::Entry { index, .. } if index.get() <= 3))
        .cloned()
        .collect();
    for wal in [&node.wal, &trimmed] {
        let mut again = Node::recovered(wal).expect("whole");
        again.settle();
        let Some(Action::InstallSnapshot { index, data, .. }) = again.seen.first() else {
            panic!("the snapshot comes first: {:?}", again.seen.first());
        };
        assert_eq!((index.get(), data), (3, &snapshot));
        assert_eq!(again.applied_payloads(), [(4, None)]);
    }
}

#[test]
fn compaction_stays_within_what_is_applied() {
    let mut node = Node::created();
    node.propose("one", false).expect("leads");
    node.work();
    assert!(node.driver.compact(GROUP, LogIndex::new(2), Bytes::new()).is_err());
    node.settle();
    node.driver.compact(GROUP, LogIndex::new(2), Bytes::new()).expect("applied");
    assert!(node.driver.compact(GROUP, LogIndex::new(2), Bytes::new()).is_err());
}

#[test]
fn damage_is_reported_and_never_guessed_away() {
    let mut node = Node::created();
    node.propose("one", true).expect("leads");
    node.propose("two", true).expect("leads");
    node.settle();
    // Its state says that the two before it are committed.
    node.propose("three", true).expect("leads");
    node.settle();
    let without = |lost: &dyn Fn(&Record) -> bool| -> Vec<Record> {
        node.wal.iter().filter(|record| !lost(record)).cloned().collect()
    };
    let no_state = without(&|record| matches!(record, Record::State { .. }));
    assert_eq!(Node::recovered(&no_state).err(), Some(RecoverError::NoState { group: GROUP }));
    let no_first =
        without(&|record| matches!(record, Record::Entry { index, .. } if index.get() == 1));
    assert_eq!(
        Node::recovered(&no_first).err(),
        Some(RecoverError::Gap { group: GROUP, mark: 0, first: 2 })
    );
    let no_tail =
        without(&|record| matches!(record, Record::Entry { index, .. } if index.get() > 2));
    assert!(matches!(Node::recovered(&no_tail).err(), Some(RecoverError::CommitBeyondLog { .. })));
    let mut flipped = node.wal.clone();
    for record in &mut flipped {
        if let Record::Entry { data, .. } = record
            && let Some(last) = data.last_mut()
        {
            *last ^= 1;
        }
    }
    assert!(matches!(Node::recovered(&flipped).err(), Some(RecoverError::Entry { .. })));
}

#[test]
fn an_idle_group_asks_for_nothing() {
    let mut node = Node::created();
    node.seen.clear();
    for _ in 0..100 {
        node.driver.handle_tick();
        assert!(node.driver.poll_action().is_none());
    }
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let mut arena = BytesMut::new();
    arena.extend_from_slice(b"not a message");
    assert!(replication::Message::decode(arena.freeze()).is_err());
}
