//! Three nodes, the network between them, and the queue of everything that is still to happen.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::RaftGroupId;
use replication::DriverConfig;

use crate::checker::Violation;
use crate::network::Network;
use crate::node::{Node, Outgoing};
use crate::random::Random;
use crate::scenario::Settings;
use crate::world::World;
use crate::{Bug, NODE_COUNT, NODES, position};

/// Microseconds between two ticks of a driver, give or take.
const TICK: u64 = 10_000;

/// Microseconds until a node whose disk failed is back at most.
const REPAIR_MAX: u64 = 200_000;

pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) random: Random,
    pub(crate) settings: Settings,
    pub(crate) groups: Vec<RaftGroupId>,
    seed: u64,
    healed: bool,
    /// By time and number: what happens at one time happens in the order in which it was planned.
    events: BTreeMap<(u64, u64), Event>,
    planned: u64,
    /// By node: for which life and time its last disk event is planned.
    disk_events: [Option<(u64, u64)>; NODE_COUNT],
}

/// Something that is going to happen.
pub(crate) enum Event {
    Deliver {
        from: u64,
        to: u64,
        frame: Bytes,
    },
    Tick {
        node: u64,
        life: u64,
    },
    Disk {
        node: u64,
        life: u64,
    },
    Restart {
        node: u64,
    },
    /// Clients write.
    Clients,
    /// Something goes wrong.
    Fault,
}

impl Cluster {
    pub(crate) fn new(
        seed: u64,
        settings: Settings,
        bug: Option<Bug>,
        mut random: Random,
        world: World,
    ) -> Self {
        let groups = (0..settings.group_count).map(RaftGroupId::new).collect();
        let network = Network::new(settings.network.clone(), random.fork());
        let nodes = NODES.iter().map(|id| Node::new(*id, bug)).collect();
        let (events, planned, healed) = (BTreeMap::new(), 0, false);
        let disk_events = [None; NODE_COUNT];
        Self {
            world,
            nodes,
            network,
            random,
            settings,
            groups,
            seed,
            healed,
            events,
            planned,
            disk_events,
        }
    }

    pub(crate) fn plan(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.events.insert((at, self.planned), event);
    }

    /// The next event, with the clock moved to it; `None` if it lies at or after `end`.
    pub(crate) fn next(&mut self, end: u64) -> Option<Event> {
        let entry = self.events.first_entry()?;
        if entry.key().0 >= end {
            return None;
        }
        let ((at, _), event) = entry.remove_entry();
        self.world.now = at;
        Some(event)
    }

    /// What does not depend on the scenario.
    pub(crate) fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Deliver { from, to, frame } => {
                self.with(to, |node, world, out| node.receive(from, frame, world, out))
            }
            Event::Tick { node, life } if self.nodes[position(node)].life == life => {
                let at = self.world.now + self.random.between(TICK * 9 / 10, TICK * 11 / 10);
                self.plan(at, Event::Tick { node, life });
                if self.random.chance(100) {
                    self.nodes[position(node)].tick_log();
                }
                self.with(node, |node, world, out| {
                    node.handle(world, out, |driver| driver.handle_tick())
                })
            }
            Event::Disk { node, life } if self.nodes[position(node)].life == life => {
                self.with(node, Node::poll_disk)
            }
            Event::Restart { node } => self.start(node),
            Event::Tick { .. } | Event::Disk { .. } | Event::Clients | Event::Fault => Ok(()),
        }
    }

    pub(crate) fn start(&mut self, id: u64) -> Result<(), Violation> {
        if self.nodes[position(id)].is_up() {
            return Ok(());
        }
        let (config, random) = (self.driver_config(id), self.random.fork());
        self.world.note(id, &[8], || "starts".to_owned());
        let groups = self.groups.clone();
        let settings = self.settings.draw_log(&mut self.random);
        self.nodes[position(id)].start(config, &settings, &groups, random, &mut self.world)?;
        if self.healed {
            self.nodes[position(id)].heal_disk();
        }
        let life = self.nodes[position(id)].life;
        let at = self.world.now + self.random.below(TICK);
        self.plan(at, Event::Tick { node: id, life });
        self.with(id, |node, world, out| node.handle(world, out, |_| ()))
    }

    pub(crate) fn crash(&mut self, id: u64) {
        if self.nodes[position(id)].is_up() {
            let power_lost = self.random.chance(700);
            self.world.note(id, &[9, u64::from(power_lost)], || {
                format!("stops, power lost: {power_lost}")
            });
            self.nodes[position(id)].crash(power_lost);
        }
    }

    /// From now on nothing fails any more.
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        self.world.note(0, &[10], || "everything is healed".to_owned());
        self.healed = true;
        self.network.heal();
        self.nodes.iter_mut().for_each(Node::heal_disk);
        NODES.iter().try_for_each(|id| self.start(*id))
    }

    /// Ends the timeline with how each node stands.
    pub(crate) fn tell_state(&mut self) {
        for node in &self.nodes {
            let lines = node.describe(&self.groups);
            lines.into_iter().for_each(|line| self.world.note(node.id, &[14], || line));
        }
    }

    /// Lets a node work, sends what it says and looks when its disk reports next.
    pub(crate) fn with(
        &mut self,
        id: u64,
        work: impl FnOnce(&mut Node, &mut World, &mut Vec<Outgoing>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let mut outgoing = Vec::new();
        let node = &mut self.nodes[position(id)];
        work(node, &mut self.world, &mut outgoing)?;
        if node.has_failed() {
            // A WAL that failed is never written again; what follows from a failed write stays
            // unsaid.
            self.crash(id);
            let at = self.world.now + self.random.between(1_000, REPAIR_MAX);
            self.plan(at, Event::Restart { node: id });
            return Ok(());
        }
        let (disk, life) = (node.next_disk_event(), node.life);
        if let Some(at) = disk.map(|at| at.max(self.world.now)) {
            let planned = &mut self.disk_events[position(id)];
            if *planned != Some((life, at)) {
                *planned = Some((life, at));
                self.plan(at, Event::Disk { node: id, life });
            }
        }
        for Outgoing { to, frame } in outgoing {
            let now = self.world.now;
            for delivery in self.network.route(now, position(id), position(to), &frame) {
                let event = Event::Deliver { from: id, to, frame: delivery.frame };
                self.plan(delivery.at, event);
            }
        }
        Ok(())
    }

    fn driver_config(&self, node: u64) -> DriverConfig {
        DriverConfig {
            election_ticks: 10,
            inflight_max: 8,
            message_bytes: self.settings.message_bytes,
            payload_window_bytes: 64 << 10,
            payload_cache_bytes: self.settings.payload_cache_bytes,
            ..DriverConfig::new(node, self.seed)
        }
    }
}
