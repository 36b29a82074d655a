//! A voter whose disk is lost is replaced by a learner that has caught up.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{LogIndex, RaftGroupId, Term};
use replication::{
    Action, AppBytes, Descriptor, Driver, DriverConfig, MemberChange, Members, ProposeError, Role,
};

const GROUP: RaftGroupId = RaftGroupId::new(3);
const LOST: u64 = 3;
const NEW: u64 = 1 << 32 | 3;

/// A record as a WAL would keep it.
#[derive(Clone)]
enum Record {
    Entry(Term, LogIndex, Vec<u8>),
    State(Bytes),
}

/// A driver whose writes are durable at once, what it applied, and its WAL.
struct Node {
    driver: Driver,
    wal: Vec<Record>,
    applied: Vec<(LogIndex, Option<Bytes>)>,
    installed: Option<LogIndex>,
}

impl Node {
    fn new(id: u64, voters: &[u64]) -> Self {
        let mut driver = Driver::new(DriverConfig::new(id, 7));
        driver.start().expect("empty");
        driver.create_group(GROUP, voters);
        Self { driver, wal: Vec::new(), applied: Vec::new(), installed: None }
    }

    fn restarted(id: u64, wal: Vec<Record>) -> Self {
        let mut driver = Driver::new(DriverConfig::new(id, 8));
        for (location, record) in (0..).zip(&wal) {
            let taken = match record {
                Record::Entry(term, index, data) => {
                    driver.recover_entry(GROUP, *term, *index, data, location)
                }
                Record::State(data) => driver.recover_state(GROUP, data),
            };
            taken.expect("what was written");
        }
        driver.start().expect("a whole log");
        Self { driver, wal, applied: Vec::new(), installed: None }
    }

    fn propose(&mut self, payload: &'static [u8]) -> LogIndex {
        let payload = Bytes::from_static(payload);
        let descriptor = Descriptor::of(&payload, false, AppBytes::EMPTY).expect("small");
        self.driver.propose(GROUP, descriptor, payload).expect("it leads").1
    }

    fn members(&self) -> &Members {
        self.driver.members(GROUP).expect("it has the group")
    }
}

/// Nodes by number; a message to a number that is not there is lost.
struct Cluster(BTreeMap<u64, Node>);

impl Cluster {
    fn of_three() -> Self {
        Self((1..=3).map(|id| (id, Node::new(id, &[1, 2, 3]))).collect())
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.0.get_mut(&id).expect("it is there")
    }

    /// Lets everything happen that needs no time.
    fn settle(&mut self) {
        loop {
            let (mut sent, mut beats) = (Vec::new(), Vec::new());
            for (from, node) in &mut self.0 {
                while let Some(action) = node.driver.poll_action() {
                    match action {
                        Action::Send { to, message } => sent.push((*from, to, message)),
                        Action::SendHeartbeats { to, heartbeats } => {
                            beats.push((*from, to, heartbeats));
                        }
                        action => node.act(action),
                    }
                }
            }
            if sent.is_empty() && beats.is_empty() {
                return;
            }
            for (from, to, message) in sent {
                if let Some(node) = self.0.get_mut(&to) {
                    node.driver.handle_message(from, message);
                }
            }
            for (from, to, heartbeats) in beats {
                if let Some(node) = self.0.get_mut(&to) {
                    node.driver.handle_heartbeats(from, &heartbeats);
                }
            }
        }
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.0.values_mut().for_each(|node| node.driver.handle_tick());
            self.settle();
        }
    }

    /// The leader, once there is one that has applied an entry of its term.
    fn leader(&mut self) -> u64 {
        for _ in 0..1000 {
            self.ticks(1);
            let leads = |node: &Node| {
                let driver = &node.driver;
                driver.role(GROUP) == Role::Leader
                    && driver.applied_term(GROUP) == driver.term(GROUP)
            };
            if let Some((id, _)) = self.0.iter().find(|(_, node)| leads(node)) {
                return *id;
            }
        }
        panic!("nobody leads");
    }

    fn change(&mut self, leader: u64, change: MemberChange) {
        let place = self.node(leader).driver.propose_change(GROUP, change);
        assert!(place.is_some(), "{change:?} is not taken");
        self.ticks(3);
    }

    /// Node 3 is gone; two entries are in the log of the others.
    fn with_a_loss() -> (Self, u64) {
        let mut cluster = Self::of_three();
        cluster.leader();
        cluster.0.remove(&LOST);
        let leader = cluster.leader();
        cluster.node(leader).propose(b"one");
        cluster.node(leader).propose(b"two");
        cluster.ticks(3);
        (cluster, leader)
    }

    /// The leader's log up to its end is replaced by a snapshot.
    fn compact(&mut self, leader: u64) {
        let driver = &mut self.node(leader).driver;
        let applied = driver.applied(GROUP);
        driver.compact(GROUP, applied, Bytes::from_static(b"snapshot")).expect("it is applied");
        self.ticks(10);
    }
}

impl Node {
    fn act(&mut self, action: Action) {
        match action {
            Action::Persist { ticket, entries, snapshot, state, .. } => {
                for entry in entries {
                    let data = [&entry.descriptor[..], &entry.payload[..]].concat();
                    let place = self.wal.len() as u64;
                    self.driver.placed(GROUP, entry.index, entry.term, place);
                    self.wal.push(Record::Entry(entry.term, entry.index, data));
                }
                let states = [snapshot, state].into_iter().flatten();
                self.wal.extend(states.map(Record::State));
                self.driver.handle_persisted(ticket);
            }
            Action::Apply { entries, .. } => {
                let of_application = entries.into_iter().filter(|it| it.descriptor.is_some());
                self.applied.extend(of_application.map(|it| (it.index, it.payload)));
            }
            Action::ReadPayload { term, index, location, .. } => {
                let at = usize::try_from(location).expect("a place in a vector");
                let Record::Entry(_, _, data) = &self.wal[at] else { panic!("an entry") };
                let data = Some(Bytes::from(data.clone()));
                self.driver.handle_payload(GROUP, term, index, data);
            }
            Action::InstallSnapshot { index, .. } => self.installed = Some(index),
            _ => {}
        }
    }
}

#[test]
fn a_lost_voter_is_replaced_and_the_new_one_votes() {
    let (mut cluster, leader) = Cluster::with_a_loss();
    cluster.0.insert(NEW, Node::new(NEW, &[]));
    cluster.change(leader, MemberChange::AddLearner(NEW));
    assert!(!cluster.node(leader).driver.snapshot_names(GROUP, NEW));
    cluster.compact(leader);
    assert!(cluster.node(leader).driver.snapshot_names(GROUP, NEW));
    let three = cluster.node(leader).propose(b"three");
    cluster.ticks(3);
    let expected = [(three, Some(Bytes::from_static(b"three")))];
    assert_eq!(cluster.node(NEW).applied, expected, "the rest came as a snapshot");
    assert_eq!(cluster.node(leader).driver.matched(GROUP, NEW), Some(three));

    cluster.change(leader, MemberChange::Replace { learner: NEW, voter: LOST });
    for id in [leader, NEW] {
        assert_eq!(cluster.node(id).members().outgoing, [1, 2, 3]);
        assert_eq!(cluster.node(id).members().voters, [1, 2, NEW]);
    }
    cluster.change(leader, MemberChange::Leave);
    let whole = Members { voters: vec![1, 2, NEW], ..Members::default() };
    assert!(cluster.0.values().all(|node| *node.members() == whole));

    // It is as good as any: one of the two that had the first entries may go now.
    cluster.0.remove(&leader);
    let next = cluster.leader();
    let four = cluster.node(next).propose(b"four");
    cluster.ticks(3);
    assert!(cluster.0.values().all(|node| node.applied.last().map(|it| it.0) == Some(four)));
}

#[test]
fn a_majority_of_both_is_needed_while_a_voter_is_replaced() {
    let (mut cluster, leader) = Cluster::with_a_loss();
    cluster.0.insert(NEW, Node::new(NEW, &[]));
    cluster.change(leader, MemberChange::AddLearner(NEW));
    cluster.compact(leader);
    cluster.change(leader, MemberChange::Replace { learner: NEW, voter: LOST });
    let other = 3 - leader;
    let parted = cluster.0.remove(&other).expect("it was there");
    let index = cluster.node(leader).propose(b"with the new one only");
    cluster.ticks(2);
    assert!(cluster.node(leader).driver.committed(GROUP) < index, "two of 1, 2, 3 do not have it");
    cluster.0.insert(other, parted);
    cluster.ticks(30);
    let leader = cluster.leader();
    assert!(cluster.node(leader).driver.committed(GROUP) >= index);
}

#[test]
fn members_outlive_restarts_at_every_step() {
    let (mut cluster, mut leader) = Cluster::with_a_loss();
    cluster.0.insert(NEW, Node::new(NEW, &[]));
    let restart = |cluster: &mut Cluster| {
        for (id, node) in &mut cluster.0 {
            *node = Node::restarted(*id, std::mem::take(&mut node.wal));
        }
        cluster.settle();
        cluster.leader()
    };
    cluster.change(leader, MemberChange::AddLearner(NEW));
    leader = restart(&mut cluster);
    assert_eq!(cluster.node(leader).members().learners, [NEW]);
    cluster.compact(leader);
    leader = restart(&mut cluster);
    // The other one may lead now, whose log has no such snapshot yet.
    cluster.compact(leader);
    assert_eq!(cluster.node(NEW).members().learners, [NEW]);
    cluster.change(leader, MemberChange::Replace { learner: NEW, voter: LOST });
    leader = restart(&mut cluster);
    assert!(cluster.node(leader).members().is_joint());
    cluster.compact(leader);
    leader = restart(&mut cluster);
    assert!(cluster.node(leader).members().is_joint(), "the snapshot has it");
    cluster.change(leader, MemberChange::Leave);
    restart(&mut cluster);
    assert!(cluster.0.values().all(|node| node.members().voters == [1, 2, NEW]));
    assert!(cluster.0.values().all(|node| !node.members().is_joint()));
}

#[test]
fn who_has_left_is_not_asked_after_a_restart() {
    let (mut cluster, leader) = Cluster::with_a_loss();
    cluster.0.insert(NEW, Node::new(NEW, &[]));
    cluster.change(leader, MemberChange::AddLearner(NEW));
    cluster.compact(leader);
    cluster.change(leader, MemberChange::Replace { learner: NEW, voter: LOST });
    cluster.change(leader, MemberChange::Leave);
    // The next disk is lost, and the two that are left have to find out about each other.
    cluster.0.remove(&leader);
    for (id, node) in &mut cluster.0 {
        *node = Node::restarted(*id, std::mem::take(&mut node.wal));
    }
    let next = cluster.leader();
    assert_eq!(cluster.node(next).members().voters, [1, 2, NEW]);
}

#[test]
fn a_node_that_is_new_begins_with_a_snapshot_or_not_at_all() {
    let (mut cluster, leader) = Cluster::with_a_loss();
    cluster.0.insert(NEW, Node::new(NEW, &[]));
    cluster.change(leader, MemberChange::AddLearner(NEW));
    cluster.ticks(50);
    let new = cluster.node(NEW);
    assert!(new.driver.last_index(GROUP) == LogIndex::default() && new.members().is_empty());
    cluster.compact(leader);
    let last = cluster.node(leader).driver.last_index(GROUP);
    assert_eq!(cluster.node(NEW).installed, Some(last));
}

#[test]
fn a_snapshot_that_is_lost_is_sent_again() {
    let (mut cluster, leader) = Cluster::with_a_loss();
    cluster.change(leader, MemberChange::AddLearner(NEW));
    // Sent to one that is not there yet.
    cluster.compact(leader);
    cluster.0.insert(NEW, Node::new(NEW, &[]));
    cluster.ticks(10);
    let last = cluster.node(leader).driver.last_index(GROUP);
    assert_eq!(cluster.node(NEW).installed, Some(last));
}

#[test]
fn changes_that_make_no_sense_or_come_too_early_are_not_taken() {
    let (mut cluster, leader) = Cluster::with_a_loss();
    let driver = &mut cluster.node(leader).driver;
    assert_eq!(driver.propose_change(GROUP, MemberChange::Leave), None);
    assert_eq!(driver.propose_change(GROUP, MemberChange::AddLearner(LOST)), None);
    let add = |driver: &mut Driver, id| driver.propose_change(GROUP, MemberChange::AddLearner(id));
    assert!(add(driver, NEW).is_some());
    assert_eq!(add(driver, NEW + 1), None, "one at a time");
    cluster.ticks(3);
    assert_eq!(add(&mut cluster.node(3 - leader).driver, NEW + 1), None, "it does not lead");
    assert_eq!(cluster.node(leader).members().learners, [NEW]);
    cluster.change(leader, MemberChange::RemoveLearner(NEW));
    assert!(cluster.node(leader).members().learners.is_empty());
}

/// The records of the group are there still when the node starts again, and say nothing any more.
#[test]
fn a_voter_is_removed_forgets_the_group_and_may_come_back() {
    let mut cluster = Cluster::of_three();
    let leader = cluster.leader();
    let (left, other) = (1 + leader % 3, 1 + (leader + 1) % 3);
    cluster.node(leader).propose(b"one");
    cluster.ticks(3);
    cluster.change(leader, MemberChange::RemoveVoter(left));
    let mut voters = vec![leader, other];
    voters.sort_unstable();
    assert_eq!(cluster.node(leader).members().voters, voters);

    let node = cluster.node(left);
    let gone = node.driver.remove_group(GROUP).expect("it has the group");
    assert_eq!(node.driver.remove_group(GROUP), None);
    node.wal.push(Record::State(gone));
    let wal = std::mem::take(&mut node.wal);
    *node = Node::restarted(left, wal.clone());
    assert!(!node.driver.has_group(GROUP), "it is gone after a restart, too");
    // Only the end of its log is left in the WAL.
    let from = wal.len() - 2;
    assert!(!Node::restarted(left, wal[from..].to_vec()).driver.has_group(GROUP));

    cluster.node(left).driver.create_group(GROUP, &[]);
    cluster.ticks(50);
    assert_eq!(cluster.node(left).driver.term(GROUP), Term::default(), "nobody asked it");
    let leader = cluster.leader();
    cluster.change(leader, MemberChange::AddLearner(left));
    cluster.compact(leader);
    cluster.change(leader, MemberChange::Promote(left));
    let two = cluster.node(leader).propose(b"two");
    cluster.ticks(3);
    assert!(cluster.0.values().all(|node| node.members().voters == [1, 2, 3]));
    assert_eq!(cluster.node(leader).driver.matched(GROUP, left), Some(two));
    let wal = std::mem::take(&mut cluster.node(left).wal);
    *cluster.node(left) = Node::restarted(left, wal);
    assert!(cluster.node(left).driver.has_group(GROUP), "what came after counts");
}

/// One that was a member before and has forgotten it would vote for whoever has as little.
#[test]
fn a_node_that_is_new_votes_for_nobody_and_believes_no_old_leader() {
    let mut cluster = Cluster::of_three();
    let leader = cluster.leader();
    let index = cluster.node(leader).propose(b"one");
    cluster.ticks(3);
    // Voter `left` is not told of anything from here on.
    let left = 1 + leader % 3;
    let last = cluster.node(left).driver.last_index(GROUP);
    assert_eq!(last, index);
    let node = cluster.node(left);
    node.driver.remove_group(GROUP).expect("it has the group");
    node.driver.create_group(GROUP, &[]);
    // Heartbeats of the leader count on what it had; they are not for it.
    cluster.ticks(20);
    cluster.0.remove(&leader);
    cluster.ticks(200);
    let other = cluster.0.iter().find(|(id, _)| **id != left).expect("two are left").1;
    assert_ne!(other.driver.role(GROUP), Role::Leader, "it had one vote only");
}

/// It may have become the leader when its removal was on the way; others go on without it.
#[test]
fn a_leader_that_is_removed_leads_no_more() {
    let removals: [fn(u64) -> Vec<MemberChange>; 2] = [
        |leader| vec![MemberChange::RemoveVoter(leader)],
        |leader| vec![MemberChange::Replace { learner: 4, voter: leader }, MemberChange::Leave],
    ];
    for removal in removals {
        let mut cluster = Cluster::of_three();
        let leader = cluster.leader();
        cluster.0.insert(4, Node::new(4, &[]));
        cluster.change(leader, MemberChange::AddLearner(4));
        cluster.compact(leader);
        cluster.node(leader).propose(b"one");
        cluster.ticks(3);
        for change in removal(leader) {
            cluster.change(leader, change);
        }
        assert_ne!(cluster.node(leader).driver.role(GROUP), Role::Leader);
        let removed = cluster.0.remove(&leader).expect("it is there");
        let next = cluster.leader();
        cluster.0.insert(leader, removed);
        let two = cluster.node(next).propose(b"two");
        cluster.ticks(30);
        assert!(cluster.node(next).driver.committed(GROUP) >= two);
        assert_eq!(cluster.leader(), next);
    }
}

#[test]
fn a_leader_that_hands_over_takes_no_entries() {
    let mut cluster = Cluster::of_three();
    let leader = cluster.leader();
    let next = leader % 3 + 1;
    let of_leader = &mut cluster.node(leader).driver;
    of_leader.transfer_leader(GROUP, next);
    let payload = Bytes::from_static(b"late");
    let descriptor = Descriptor::of(&payload, false, AppBytes::EMPTY).expect("small");
    assert_eq!(of_leader.role(GROUP), Role::Leader);
    let refused = of_leader.propose(GROUP, descriptor, payload);
    assert_eq!(refused, Err(ProposeError::HandingOver));
    cluster.settle();
    assert_eq!(cluster.leader(), next);
    cluster.node(next).propose(b"in time");
}
