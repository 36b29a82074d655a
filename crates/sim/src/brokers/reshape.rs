//! Brokers that join, are drained and are removed while all goes on. One step at a time, each when
//! the one before is done; what the balancer makes of it is the brokers' own work.

use broker::simulation::{ClusterChange, Standing};

use super::{BROKER_COUNT, Event, NODES, Simulation};
use crate::hardware::End;

/// The broker that the cluster does not begin with.
pub(super) const JOINER: usize = 3;
/// Microseconds between two looks at what is under way.
const INTERVAL: u64 = 300_000;

/// What was done last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Reshape {
    #[default]
    Nothing,
    /// A broker was asked to be added.
    Adding,
    /// It has started.
    Joining,
    /// A broker is to have no copy any more.
    Draining(usize),
    /// A broker that has none is to go.
    Removing(usize),
    /// One that was drained is to have copies again, or nothing more is to happen.
    Done,
}

impl Simulation {
    /// Takes the next step, if it is time.
    pub(super) fn reshape(&mut self) {
        let next = match self.reshape {
            Reshape::Nothing if self.is_ending => Some(Reshape::Done),
            Reshape::Nothing if self.settings.grows => {
                self.propose(ClusterChange::Add(NODES[JOINER])).then_some(Reshape::Adding)
            }
            Reshape::Nothing => self.drain_one(),
            Reshape::Adding => self.join(),
            Reshape::Joining => self.joined(),
            Reshape::Draining(node) => self.drained(node),
            Reshape::Removing(node) => self.removed(node),
            Reshape::Done => return,
        };
        let after = match next {
            Some(next) => {
                self.note(0, &[17], || format!("the cluster: {next:?}"));
                self.reshape = next;
                if self.is_ending { INTERVAL } else { self.random.between(INTERVAL, 8_000_000) }
            }
            None => INTERVAL,
        };
        self.plan(after, Event::Reshape);
    }

    /// What the cluster has not come to an end with.
    pub(super) fn is_reshaping(&self) -> Option<String> {
        match self.reshape {
            Reshape::Nothing | Reshape::Done => {}
            step => return Some(format!("the cluster: {step:?}")),
        }
        let leads = |node: &usize| {
            self.machines[*node].broker().is_some_and(|it| it.led().iter().any(|it| it.0 == 0))
        };
        let Some(leader) = self.nodes().into_iter().find(leads) else {
            return Some("nobody leads group 0".to_owned());
        };
        let broker = self.machines[leader].broker()?;
        (!broker.is_balanced()).then(|| "groups are on their way to other brokers".to_owned())
    }

    fn propose(&mut self, change: ClusterChange) -> bool {
        let mut brokers = self.machines.iter_mut().filter_map(|it| it.broker_mut());
        brokers.any(|broker| broker.change_cluster(change))
    }

    /// What whoever knows most says of a broker.
    fn standing(&self, node: usize) -> Option<Standing> {
        let brokers = self.machines.iter().filter_map(|it| it.broker());
        let known = brokers.filter_map(|broker| broker.standing(NODES[node]));
        known.max_by_key(|standing| standing.version)
    }

    fn join(&mut self) -> Option<Reshape> {
        if !self.standing(JOINER)?.is_member {
            return self.propose(ClusterChange::Add(NODES[JOINER])).then_some(Reshape::Adding);
        }
        let (incarnation, build) = (self.draw_incarnation(), self.oldest_build_beside(None));
        self.machines[JOINER].set_build(build);
        self.machines[JOINER].set_incarnation(incarnation);
        self.takes_part[JOINER] = true;
        self.plan(0, Event::Start(JOINER));
        Some(Reshape::Joining)
    }

    fn joined(&mut self) -> Option<Reshape> {
        if !self.machines[JOINER].broker()?.is_ready() {
            return None;
        }
        self.clients.hear_of(BROKER_COUNT);
        self.report.joined += 1;
        if self.is_ending { Some(Reshape::Done) } else { self.drain_one() }
    }

    fn drain_one(&mut self) -> Option<Reshape> {
        let nodes = self.nodes();
        let node = nodes[self.random.index(nodes.len())];
        let is_asked = self.propose(ClusterChange::Drain(NODES[node]));
        is_asked.then_some(Reshape::Draining(node))
    }

    /// With four brokers one that drains has no copy in the end; with three nobody can have them.
    fn drained(&mut self, node: usize) -> Option<Reshape> {
        let standing = self.standing(node)?;
        if !standing.is_draining {
            self.propose(ClusterChange::Drain(NODES[node]));
            return None;
        }
        let can_be_empty = self.nodes().len() == BROKER_COUNT;
        if can_be_empty && standing.copies > 0 {
            return None;
        }
        self.report.drained += usize::from(can_be_empty);
        // One whose disk was lost has to have its place before.
        if can_be_empty && self.lost.is_none() && self.random.chance(500) {
            return self
                .propose(ClusterChange::Remove(NODES[node]))
                .then_some(Reshape::Removing(node));
        }
        self.propose(ClusterChange::Serve(NODES[node])).then_some(Reshape::Done)
    }

    fn removed(&mut self, node: usize) -> Option<Reshape> {
        if self.standing(node)?.is_member {
            self.propose(ClusterChange::Remove(NODES[node]));
            return None;
        }
        self.end_broker(node, End::Kill);
        self.takes_part[node] = false;
        self.report.removed += 1;
        if self.lost == Some(node) {
            (self.lost, self.over_since) = (None, None);
        }
        Some(Reshape::Done)
    }
}
