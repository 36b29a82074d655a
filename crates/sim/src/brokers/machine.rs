//! One broker with its disk and its connection to the bucket. The disk outlasts the broker.

use std::time::Duration;

use broker::simulation::{Moment, SimBroker, SimRebuild};
use bytes::Bytes;
use s3_uploader::SteppedWorker;

use super::network::Delivery;
use super::reshape::JOINER;
use super::settings::Settings;
use super::{FOUNDER_COUNT, NODES};
use crate::hardware::{End, Hardware, Store, unix_ms};
use crate::kafka::violation::Violation;
use crate::random::Random;

pub(crate) struct Machine {
    node: usize,
    /// The brokers that its configuration names.
    config: Vec<i32>,
    running: Option<Running>,
    /// What the disk held when the last broker ended.
    image: Option<Vec<u8>>,
    /// Of its disk: 0 for its first.
    incarnation: u32,
    /// Another disk of the node: the one that it had before, or that it has now while it runs on
    /// the old one.
    other: Option<Disk>,
    runs_on_old: bool,
    /// Of the broker that starts next: a version number.
    build: u16,
    store: Store,
    random: Random,
    settings: Settings,
}

/// A disk that is not in the machine.
struct Disk {
    image: Option<Vec<u8>>,
    incarnation: u32,
}

struct Running {
    broker: SimBroker,
    store: SteppedWorker,
    /// When the store's own time began, and how far it is.
    since: u64,
    reached: u64,
    /// The process stands still until then, and this waits for it.
    paused_until: u64,
    waiting: Vec<(u32, Delivery)>,
    /// Something arrived since its last turn.
    touched: bool,
}

impl Machine {
    pub(crate) fn new(node: usize, store: Store, settings: &Settings, random: Random) -> Self {
        let settings = settings.clone();
        Self {
            node,
            config: if node == JOINER { &NODES[..] } else { &NODES[..FOUNDER_COUNT] }.to_vec(),
            running: None,
            image: None,
            incarnation: 0,
            other: None,
            runs_on_old: false,
            build: 1,
            store,
            random,
            settings,
        }
    }

    /// Starts a broker on what the last one left.
    pub(crate) fn start(&mut self, now: u64) -> Result<(), Violation> {
        let (moment, image) = (self.moment(now), self.image.take());
        let mut random = self.random.clone();
        let (broker, store) = self.hardware().start(image, moment, &mut random)?;
        self.random = random;
        self.running = Some(Running {
            broker,
            store,
            since: now,
            reached: now,
            paused_until: 0,
            waiting: Vec::new(),
            touched: true,
        });
        Ok(())
    }

    fn hardware(&self) -> Hardware<'_> {
        Hardware {
            node: NODES[self.node],
            incarnation: self.incarnation,
            nodes: &self.config,
            // Each build speaks with the one before it, too.
            versions: (self.build.saturating_sub(1).max(1), self.build),
            data_groups: self.settings.data_groups,
            segment_count: self.settings.segment_count,
            disk_delay_max: self.settings.disk_delay_max[self.node],
            wal: self.settings.wal,
            settings: &self.settings.broker,
            store: &self.store,
        }
    }

    /// The broker, which has ended, gets a disk with what was rebuilt from the bucket.
    pub(crate) fn take_rebuilt(&mut self, rebuild: &SimRebuild) -> Result<(), String> {
        let mut random = self.random.fork();
        self.image = Some(self.hardware().rebuilt_disk(rebuild, &mut random)?);
        Ok(())
    }

    /// Ends the broker. What the store has not taken it will not get.
    pub(crate) fn end(&mut self, end: End) {
        if let Some(Running { broker, .. }) = self.running.take() {
            self.image = Some(match end {
                End::PowerCut => broker.cut_power(),
                End::Kill => broker.kill(),
            });
        }
    }

    pub(crate) fn build(&self) -> u16 {
        self.build
    }

    pub(crate) fn set_build(&mut self, build: u16) {
        self.build = build;
    }

    /// The first disk of a broker that joins.
    pub(crate) fn set_incarnation(&mut self, incarnation: u32) {
        self.incarnation = incarnation;
    }

    /// The disk is gone; an empty one takes its place. Without what it knew the broker has to be
    /// told of all others.
    pub(crate) fn lose_disk(&mut self, incarnation: u32) {
        self.config = NODES.to_vec();
        let (image, old) = (self.image.take(), self.incarnation);
        self.other = Some(Disk { image, incarnation: old });
        self.incarnation = incarnation;
    }

    /// The broker has ended and starts next on the disk that it had before, or again on the one
    /// after; false if there is none.
    pub(crate) fn swap_disks(&mut self) -> bool {
        let Some(Disk { image, incarnation }) = self.other.take() else { return false };
        let image = std::mem::replace(&mut self.image, image);
        let incarnation = std::mem::replace(&mut self.incarnation, incarnation);
        self.other = Some(Disk { image, incarnation });
        self.runs_on_old = !self.runs_on_old;
        true
    }

    pub(crate) fn runs_on_old(&self) -> bool {
        self.runs_on_old
    }

    pub(crate) fn broker(&self) -> Option<&SimBroker> {
        self.running.as_ref().map(|running| &running.broker)
    }

    pub(crate) fn broker_mut(&mut self) -> Option<&mut SimBroker> {
        self.running.as_mut().map(|running| &mut running.broker)
    }

    /// The process stands still.
    pub(crate) fn pause(&mut self, until: u64) {
        if let Some(running) = &mut self.running {
            running.paused_until = running.paused_until.max(until);
        }
    }

    /// Something arrives from a client or another broker; a process that stands still finds it
    /// later.
    pub(crate) fn deliver(&mut self, conn: u32, delivery: Delivery) {
        if let Some(running) = &mut self.running {
            running.touched = true;
            running.waiting.push((conn, delivery));
        }
    }

    /// When it has to be looked at, if nothing arrives before.
    pub(crate) fn next_turn(&self, now: u64) -> Option<u64> {
        let running = self.running.as_ref()?;
        if running.paused_until > now {
            return Some(running.paused_until);
        }
        if running.touched { Some(now) } else { running.broker.next_turn() }
    }

    /// Lets the store's time pass to `until`, but only to its next reply; returns the time reached.
    pub(crate) fn run_store(&mut self, until: u64) -> u64 {
        let Some(running) = &mut self.running else { return until };
        let wanted = until - running.since;
        if until / 1000 <= running.reached / 1000 {
            return until;
        }
        let reached = running.store.run_until(Duration::from_micros(wanted));
        let reached = u64::try_from(reached.as_micros()).expect("a short run");
        // The store's time is in whole milliseconds; less than that and a reply has ended it.
        let replied = reached < wanted / 1000 * 1000;
        running.reached = running.since + reached;
        running.touched |= replied;
        if replied { running.reached } else { until }
    }

    /// Lets the broker do what it can, if it is time; returns what it sent.
    pub(crate) fn turn(&mut self, now: u64) -> Result<Vec<(u32, Vec<Bytes>)>, Violation> {
        let due = self.next_turn(now).is_some_and(|at| at <= now);
        let moment = self.moment(now);
        let Some(running) = self.running.as_mut().filter(|_| due) else { return Ok(Vec::new()) };
        running.touched = false;
        let broker = &mut running.broker;
        broker.enter(moment);
        for (conn, delivery) in running.waiting.drain(..) {
            match delivery {
                Delivery::Bytes(pieces) => {
                    pieces.into_iter().for_each(|piece| broker.receive(conn, piece));
                }
                Delivery::Closed => broker.closed(conn),
                Delivery::Accepted => broker.connect_peer(conn),
                Delivery::Dialed { node, connected } => {
                    let refused = || "connection refused".to_owned();
                    broker.dialed(NODES[node], connected.then_some(conn).ok_or_else(refused));
                }
            }
        }
        let sent = broker.turn(moment);
        match broker.failure() {
            Some(reason) => Err(Violation::Failed { reason }),
            None => Ok(sent),
        }
    }

    /// A client connects.
    pub(crate) fn connect(&mut self, conn: u32) {
        if let Some(running) = &mut self.running {
            running.broker.connect(conn);
        }
    }

    fn moment(&self, now: u64) -> Moment {
        Moment { micros: now, unix_ms: unix_ms(now) + self.settings.skew_ms[self.node] }
    }
}
