//! What idle groups say to each other, and what becomes of a word that was lost.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{LogIndex, RaftGroupId};
use replication::{Action, AppBytes, Descriptor, Driver, DriverConfig, Role};

const NODES: [u64; 3] = [1, 2, 3];
const GROUPS: u64 = 20;
/// Of an election and all that follows it; far more than it takes.
const ELECTION_TICKS: usize = 100;

/// Three nodes with many groups, whose writes are durable at once.
struct Cluster {
    nodes: BTreeMap<u64, Driver>,
    /// Messages of a group, and messages of heartbeats, since they were last counted.
    sent: usize,
    beats: usize,
    role_changes: usize,
    loses_messages: bool,
}

impl Cluster {
    /// Each group is led.
    fn new() -> Self {
        let node = |id| {
            let mut driver = Driver::new(DriverConfig::new(id, 7));
            driver.start().expect("empty");
            groups().for_each(|group| driver.create_group(group, &NODES));
            (id, driver)
        };
        let nodes = NODES.map(node).into();
        let (sent, beats, role_changes) = (0, 0, 0);
        let mut cluster = Self { nodes, sent, beats, role_changes, loses_messages: false };
        cluster.ticks(ELECTION_TICKS);
        (cluster.sent, cluster.beats, cluster.role_changes) = (0, 0, 0);
        cluster
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.nodes.values_mut().for_each(Driver::handle_tick);
            while self.settle() {}
        }
    }

    /// Does what every driver asks for; false if none asked for anything.
    fn settle(&mut self) -> bool {
        let mut actions = Vec::new();
        for (node, driver) in &mut self.nodes {
            actions.extend(std::iter::from_fn(|| driver.poll_action()).map(|it| (*node, it)));
        }
        let any = !actions.is_empty();
        actions.into_iter().for_each(|(node, action)| self.act(node, action));
        any
    }

    fn act(&mut self, node: u64, action: Action) {
        match action {
            Action::Persist { ticket, .. } => self.node(node).handle_persisted(ticket),
            Action::Send { .. } if self.loses_messages => self.sent += 1,
            Action::Send { to, message } => {
                self.sent += 1;
                self.node(to).handle_message(node, message);
            }
            Action::SendHeartbeats { to, heartbeats } => {
                self.beats += 1;
                self.node(to).handle_heartbeats(node, &heartbeats);
            }
            Action::RoleChanged { .. } => self.role_changes += 1,
            _ => {}
        }
    }

    fn node(&mut self, id: u64) -> &mut Driver {
        self.nodes.get_mut(&id).expect("it is there")
    }

    fn leader(&self, group: RaftGroupId) -> u64 {
        let leads = |(_, driver): &(&u64, &Driver)| driver.role(group) == Role::Leader;
        *self.nodes.iter().find(leads).expect("somebody leads").0
    }

    fn propose(&mut self, group: RaftGroupId) -> LogIndex {
        let payload = Bytes::from_static(b"record");
        let descriptor = Descriptor::of(&payload, false, AppBytes::EMPTY).expect("small");
        let leader = self.leader(group);
        self.node(leader).propose(group, descriptor, payload).expect("it leads").1
    }

    fn committed(&self, group: RaftGroupId) -> Vec<LogIndex> {
        self.nodes.values().map(|driver| driver.committed(group)).collect()
    }
}

fn groups() -> impl Iterator<Item = RaftGroupId> {
    (1..=GROUPS).map(RaftGroupId::new)
}

#[test]
fn idle_groups_say_it_together_and_stay_as_they_are() {
    let mut cluster = Cluster::new();
    let leaders: Vec<_> = groups().map(|group| cluster.leader(group)).collect();
    assert!(NODES.iter().all(|node| leaders.contains(node)), "each leads some: {leaders:?}");
    cluster.ticks(ELECTION_TICKS);
    assert_eq!((cluster.sent, cluster.role_changes), (0, 0));
    // One in each tick from each node to each of the two others.
    assert_eq!(cluster.beats, ELECTION_TICKS * NODES.len() * 2);
}

#[test]
fn what_was_lost_is_sent_again_after_a_heartbeat() {
    let mut cluster = Cluster::new();
    let group = RaftGroupId::new(1);
    let index = cluster.propose(group);
    cluster.loses_messages = true;
    cluster.ticks(1);
    assert!(cluster.sent > 0 && cluster.committed(group).iter().all(|it| *it < index));
    cluster.loses_messages = false;
    cluster.ticks(3);
    assert_eq!(cluster.committed(group), [index; 3]);
    assert_eq!(cluster.role_changes, 0);
}

#[test]
fn a_leader_that_nobody_answers_steps_down_and_another_one_leads() {
    let mut cluster = Cluster::new();
    let group = RaftGroupId::new(1);
    let leader = cluster.leader(group);
    let mut alone = cluster.nodes.remove(&leader).expect("it is there");
    for _ in 0..ELECTION_TICKS {
        alone.handle_tick();
        while alone.poll_action().is_some() {}
    }
    assert_ne!(alone.role(group), Role::Leader);
    // What the others have for it is lost.
    let nobody = Driver::new(DriverConfig::new(leader, 7));
    cluster.nodes.insert(leader, nobody);
    cluster.ticks(ELECTION_TICKS);
    assert_ne!(cluster.leader(group), leader);
}
