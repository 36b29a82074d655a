//! Three brokers, and in some runs a fourth that joins them: real shards on simulated disks, over a
//! simulated network and one bucket, with one clock. Clients write and read while power is cut,
//! processes stand still, links break and the store misbehaves; then everything is well, and all
//! must be there on every broker.

mod clients;
mod disaster;
mod faults;
mod finish;
mod machine;
mod moves;
mod network;
mod producer;
mod report;
mod reshape;
mod settings;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use broker::simulation::{GroupState, Homes, SimBroker};
use bytes::Bytes;
use model::RaftGroupId;

pub use self::report::Report;
pub use crate::kafka::violation::Violation;

use self::clients::{Clients, Wanted};
use self::machine::Machine;
use self::network::{Delivery, Network};
use self::reshape::{JOINER, Reshape};
use self::settings::Settings;
use crate::Failure;
use crate::hardware::{Store, unix_ms};
use crate::kafka::history::{History, hash_of};
use crate::offload::covered_from;
use crate::offload::watch::Watch;
use crate::random::Random;
use crate::scenario::text_of;
use crate::trace::Trace;

/// Brokers at most: those that the cluster begins with, and one that may join.
const BROKER_COUNT: usize = 4;
const FOUNDER_COUNT: usize = 3;
/// Their node ids.
const NODES: [i32; BROKER_COUNT] = [0, 1, 2, 3];

/// A planted fault, to show that the checkers see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bug {
    /// Producers are told of their batches before a majority has them.
    EarlyAck,
    /// The log is given up before the entry that names the object is committed.
    TrimBeforeEdit,
    /// A leader that was replaced writes the newest manifest.
    OldLeaderWrites,
    /// A broker that has lost its disk votes as if it had not.
    SameVoter,
    /// A copy is forgotten that is to go, though the group counts on it still.
    ForgetEarly,
    /// A partition that was handed over to another group takes records still.
    IgnoreSeals,
    /// Records of a partition are in objects of a group of which nothing in the bucket says that it
    /// has that partition.
    StoreArrivalsLate,
}

/// Runs a seed. The same seed and bug always give the same result.
///
/// # Errors
///
/// A promise was broken.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Report, Failure<Violation>> {
    simulate(seed, bug, false)
}

/// [`run`], with a timeline if it fails.
///
/// # Errors
///
/// As for [`run`].
pub fn run_readable(seed: u64, bug: Option<Bug>) -> Result<Report, Failure<Violation>> {
    simulate(seed, bug, true)
}

fn simulate(seed: u64, bug: Option<Bug>, readable: bool) -> Result<Report, Failure<Violation>> {
    let mut simulation = Simulation::new(seed, bug, readable);
    // Broken invariants of a broker panic; a panic is a result like another.
    let result = catch_unwind(AssertUnwindSafe(|| simulation.play()))
        .unwrap_or_else(|panic| Err(Violation::Panic { message: text_of(panic.as_ref()) }));
    match result {
        Ok(()) => Ok(simulation.report()),
        Err(violation) => Err(Failure { violation, timeline: simulation.trace.into_lines() }),
    }
}

/// What is planned for a time.
#[derive(Clone, Copy, Debug)]
enum Event {
    Produce(usize),
    Follow(usize),
    Administer,
    Look,
    Weather,
    Fault,
    Start(usize),
    /// A broker that stops, and by when it does.
    Stop(usize, u64),
    /// A broker that runs on an old disk gets the new one back.
    NewDisk(usize),
    /// A broker with a build that is too new for the others gets the one before it.
    TakeBack(usize),
    /// The other side of a connection lost its power.
    Reset(u32),
    /// Brokers are added, drained and removed.
    Reshape,
    /// A partition moves to another group.
    Move,
}

struct Simulation {
    /// Microseconds since the run began.
    now: u64,
    settings: Settings,
    random: Random,
    bug: Option<Bug>,
    store: Store,
    machines: [Machine; BROKER_COUNT],
    network: Network,
    clients: Clients,
    history: History,
    trace: Trace,
    report: Report,
    /// By time; events of one time in the order in which they were planned.
    plan: BTreeMap<(u64, u64), Event>,
    planned: u64,
    /// By group and term: who led.
    leaders: BTreeMap<(u64, u64), i32>,
    watch: Watch,
    /// By the newest metadata that a broker ever had.
    homes: Homes,
    /// By group: the last entry whose edit a broker's manifest contains.
    edited: BTreeMap<RaftGroupId, u64>,
    /// By node and group: the first entry of the log when it was last looked at.
    first_index: BTreeMap<(usize, RaftGroupId), u64>,
    /// The broker whose disk is gone and that has not its place again.
    lost: Option<usize>,
    /// Since when all brokers know that it has.
    over_since: Option<u64>,
    /// By node: connections of clients that it has closed in its present life.
    let_go: [u64; BROKER_COUNT],
    /// By node: it belongs to the cluster.
    takes_part: [bool; BROKER_COUNT],
    reshape: Reshape,
    /// Moves that are over, by their entries of group 0.
    moved: BTreeSet<u64>,
    /// No new batches, no new faults.
    is_ending: bool,
}

impl Simulation {
    fn new(seed: u64, bug: Option<Bug>, readable: bool) -> Self {
        let mut random = Random::new(seed);
        let settings = Settings::draw(&mut random);
        let mut trace = Trace::new(readable);
        trace.note(0, 0, &[seed], || format!("{settings:?}"));
        let store = Store::new(&mut random);
        let machines =
            std::array::from_fn(|node| Machine::new(node, store.clone(), &settings, random.fork()));
        let delay_max = settings.network_delay_max;
        Self {
            now: 0,
            network: Network::new(Clients::CONN_END, delay_max, random.fork()),
            clients: Clients::new(&settings, &mut random),
            watch: Watch::new(store.bucket.clone(), store.url.clone(), settings.delete_grace_ms),
            homes: Homes::default(),
            edited: BTreeMap::new(),
            history: History::new(settings.partitions()),
            store,
            machines,
            settings,
            random,
            bug,
            trace,
            report: Report::default(),
            plan: BTreeMap::new(),
            planned: 0,
            leaders: BTreeMap::new(),
            first_index: BTreeMap::new(),
            lost: None,
            over_since: None,
            let_go: [0; BROKER_COUNT],
            takes_part: NODES.map(|node| node != NODES[JOINER]),
            reshape: Reshape::default(),
            moved: BTreeSet::new(),
            is_ending: false,
        }
    }

    /// The whole run.
    fn play(&mut self) -> Result<(), Violation> {
        for node in self.nodes() {
            self.plan(0, Event::Start(node));
        }
        self.plan(self.settings.reshape_after, Event::Reshape);
        if let Some(interval) = self.settings.move_interval_max {
            self.plan(interval, Event::Move);
        }
        for producer in 0..self.settings.producer_count {
            self.plan(0, Event::Produce(producer));
        }
        for partition in 0..self.settings.partitions().len() {
            self.plan(0, Event::Follow(partition));
        }
        self.plan(0, Event::Look);
        self.plan(0, Event::Administer);
        for event in [Event::Weather, Event::Fault] {
            self.plan(2_000_000, event);
        }
        self.run_to(self.settings.duration)?;
        finish::come_to_rest(self)
    }

    /// Lets all happen that does until `end`.
    fn run_to(&mut self, end: u64) -> Result<(), Violation> {
        while self.now < end {
            self.advance(end);
            while let Some(entry) = self.plan.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let event = entry.remove();
                self.handle(event)?;
            }
            while let Some((node, conn, delivery)) = self.network.arrival(self.now) {
                self.machines[node].deliver(conn, delivery);
            }
            for node in 0..BROKER_COUNT {
                self.turn(node)?;
            }
        }
        Ok(())
    }

    /// Lets time pass to the next thing that happens.
    fn advance(&mut self, end: u64) {
        let planned = self.plan.first_key_value().map(|((at, _), _)| *at);
        let turns = self.machines.iter().filter_map(|it| it.next_turn(self.now));
        let next = turns.chain(planned).chain(self.network.next_due()).min().unwrap_or(end);
        let mut until = next.clamp(self.now, end);
        for machine in &mut self.machines {
            until = machine.run_store(until).max(self.now);
        }
        // Something is due now: it is done before time passes.
        self.now = if next <= self.now { self.now } else { until.max(self.now) };
        self.store.bucket.set_now_ms(unix_ms(self.now));
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Produce(producer) => {
                let again = self.random.between(1_000, self.settings.produce_interval_max);
                self.plan(again, event);
                let (time, fresh) = ((self.now, unix_ms(self.now)), !self.is_ending);
                let Self { clients, history, random, .. } = self;
                let wanted = clients.produce(producer, time, fresh, history, random);
                self.ask(wanted);
            }
            Event::Follow(partition) => {
                let again = self.random.between(1_000, 500_000);
                self.plan(again, event);
                let wanted = self.clients.follow(partition, self.now, &mut self.random);
                self.ask(wanted);
            }
            Event::Administer => {
                self.plan(200_000, event);
                let wanted = self.clients.administer(self.now, &self.settings);
                self.ask(wanted);
                for (broker, conn) in self.clients.lose_patience(self.now, &mut self.random) {
                    self.report.given_up += 1;
                    self.machines[broker].deliver(conn, Delivery::Closed);
                }
            }
            Event::Look => {
                self.plan(50_000, event);
                self.look()?;
            }
            Event::Weather => {
                self.change_weather();
                self.look_at_rebuild()?;
            }
            Event::Fault => self.strike()?,
            Event::Start(node) if self.may_start(node) => {
                self.note(node, &[13], || "starts".to_owned());
                self.machines[node].start(self.now)?;
                self.first_index.retain(|(at, _), _| *at != node);
                self.let_go[node] = 0;
            }
            Event::Start(_) => {}
            Event::Stop(node, by) => self.stop_on(node, by),
            Event::NewDisk(node) => {
                self.swap_disks(node);
            }
            Event::TakeBack(node) => self.take_back_build(node),
            Event::Reset(conn) => self.network.reset(self.now, conn),
            Event::Reshape => self.reshape(),
            Event::Move => self.move_one(),
        }
        Ok(())
    }

    /// Sends what a client wants, or connects it; a broker that is down refuses it.
    fn ask(&mut self, wanted: Option<Wanted>) {
        match wanted {
            Some(Wanted::Connection { broker, conn }) => {
                if self.machines[broker].broker().is_some_and(|it| it.is_ready()) {
                    self.machines[broker].connect(conn);
                } else {
                    self.clients.refused(conn, &mut self.random);
                }
            }
            Some(Wanted::Request { broker, conn, bytes }) => {
                let facts = [1, conn.into(), bytes.len() as u64];
                if self.is_ending {
                    // Of what is waited for in vain there would be too many lines.
                    self.trace.note_silently(self.now, broker as u64, &facts);
                } else {
                    self.note(broker, &facts, || format!("{conn} asks: {} B", bytes.len()));
                }
                self.machines[broker].deliver(conn, Delivery::Bytes(vec![bytes]));
            }
            None => {}
        }
    }

    /// A broker does what it can.
    fn turn(&mut self, node: usize) -> Result<(), Violation> {
        let sent = self.machines[node].turn(self.now)?;
        if let Some(broker) = self.machines[node].broker_mut() {
            match self.bug {
                Some(Bug::EarlyAck) => broker.acknowledge_early(),
                Some(Bug::TrimBeforeEdit) => broker.trim_early(),
                Some(Bug::OldLeaderWrites) => broker.write_as_old_leader(),
                Some(Bug::ForgetEarly) => broker.settle_early(),
                Some(Bug::IgnoreSeals) => broker.ignore_seals(),
                Some(Bug::StoreArrivalsLate) => broker.store_arrivals_late(),
                // By its number and by its greeting, either of which would keep it out.
                Some(Bug::SameVoter) => broker.greet_as_old(),
                None => {}
            }
            for to in broker.take_dials() {
                let to = NODES.iter().position(|node| *node == to).expect("a node");
                let listens = self.machines[to].broker().is_some();
                self.network.dial(self.now, node, to, listens);
            }
        }
        for (conn, pieces) in sent {
            self.sent(node, conn, pieces)?;
        }
        Ok(())
    }

    fn sent(&mut self, node: usize, conn: u32, pieces: Vec<Bytes>) -> Result<(), Violation> {
        let hash = pieces.iter().fold(0, |hash, piece| hash ^ hash_of(piece));
        self.trace.note_silently(self.now, node as u64, &[2, conn.into(), hash]);
        if self.network.owns(conn) {
            if pieces.is_empty() {
                self.network.close(self.now, conn);
            } else {
                self.network.send(self.now, conn, pieces);
            }
            return Ok(());
        }
        if pieces.is_empty() && self.clients.owns(conn) && self.is_let_go(node) {
            self.clients.refused(conn, &mut self.random);
            return Ok(());
        }
        let Self { clients, history, report, random, .. } = self;
        let left = clients.received(self.now, conn, &pieces, history, (report, random))?;
        if let Some(broker) = left {
            self.machines[broker].deliver(conn, Delivery::Closed);
        }
        Ok(())
    }

    /// Is a connection that a broker closed one of those that it has let go?
    fn is_let_go(&mut self, node: usize) -> bool {
        let broker = self.machines[node].broker();
        self.let_go[node] += 1;
        broker.is_some_and(|it| it.counters().let_go >= self.let_go[node])
    }

    /// What must hold at any moment.
    fn look(&mut self) -> Result<(), Violation> {
        self.look_at_replacement();
        for (at, machine) in self.machines.iter().enumerate() {
            let Some(broker) = machine.broker() else { continue };
            let node = NODES[at];
            for (group, term) in broker.led() {
                let known = *self.leaders.entry((group, term)).or_insert(node);
                if known != node {
                    return Err(Violation::TwoLeaders { group, term, nodes: [known, node] });
                }
            }
            for state in broker.groups() {
                let first = state.first_index;
                let before = self.first_index.insert((at, state.group), first);
                let is_later = before.is_some_and(|before| first > before);
                self.report.compactions += usize::from(is_later);
            }
            self.moved.extend(broker.moved());
            for state in broker.partitions() {
                let (start, local) = (state.log_start.get(), state.local_start.get());
                let covered = covered_from(start, broker.extents(state.id));
                if covered < local {
                    let partition = format!("{}-{} of node {node}", state.topic, state.index);
                    return Err(Violation::Uncovered { partition, from: covered });
                }
            }
        }
        self.look_at_bucket()
    }

    /// Objects that a manifest names are there, and stay for a while after none does: as the broker
    /// has it that knows of the most edits.
    fn look_at_bucket(&mut self) -> Result<(), Violation> {
        let now_ms = unix_ms(self.now);
        let homes = self.machines.iter().filter_map(|it| it.broker()).map(SimBroker::homes);
        if let Some(newest) = homes.max_by_key(|homes| homes.version)
            && newest.version > self.homes.version
        {
            self.homes = newest;
        }
        for group in self.settings.groups() {
            let Some((node, state)) = self.most_edited(group) else { return Ok(()) };
            let known = self.edited.get(&group).copied().unwrap_or(0);
            let Some(broker) = self.machines[node].broker().filter(|_| state.edited >= known)
            else {
                return Ok(());
            };
            self.edited.insert(group, state.edited);
            self.watch.look(broker, &state, &self.homes, now_ms)?;
        }
        self.watch.look_at_bucket(now_ms)
    }

    fn most_edited(&self, group: RaftGroupId) -> Option<(usize, GroupState)> {
        let states = (0..BROKER_COUNT).filter_map(|node| Some((node, self.state_of(node, group)?)));
        states.max_by_key(|(_, state)| state.edited)
    }

    /// What a node knows of a group.
    fn state_of(&self, node: usize, group: RaftGroupId) -> Option<GroupState> {
        self.machines[node].broker()?.groups().find(|state| state.group == group)
    }

    /// The node that leads a group, and knows all that was committed.
    fn leader(&self, group: RaftGroupId) -> Option<usize> {
        let leads = |node: &usize| {
            let is_ready = self.machines[*node].broker().is_some_and(SimBroker::is_ready);
            is_ready && self.state_of(*node, group).is_some_and(|state| state.leads)
        };
        (0..BROKER_COUNT).find(leads)
    }

    /// The brokers that belong to the cluster.
    fn nodes(&self) -> Vec<usize> {
        (0..BROKER_COUNT).filter(|node| self.takes_part[*node]).collect()
    }

    fn may_start(&self, node: usize) -> bool {
        self.takes_part[node] && self.machines[node].broker().is_none()
    }

    /// Notes what each broker knows of its groups.
    fn describe(&mut self) {
        for node in 0..BROKER_COUNT {
            let lines = self.machines[node].broker().map(SimBroker::describe).unwrap_or_default();
            lines.into_iter().for_each(|line| self.note(node, &[], || line));
        }
    }

    fn plan(&mut self, after: u64, event: Event) {
        self.planned += 1;
        self.plan.insert((self.now + after, self.planned), event);
    }

    fn note(&mut self, node: usize, facts: &[u64], text: impl FnOnce() -> String) {
        self.trace.note(self.now, node as u64, facts, text);
    }

    /// What became of a run that held.
    fn report(mut self) -> Report {
        for (key, bytes) in self.store.bucket.objects(&self.store.url, "") {
            let hash = hash_of(key.as_bytes()) ^ hash_of(&bytes);
            self.trace.note(self.now, 0, &[5, hash], || format!("{key} is left"));
        }
        self.report.set_injected(self.store.faults.injected());
        self.report.seconds = usize::try_from(self.now / 1_000_000).unwrap_or(usize::MAX);
        self.report.acknowledged = self.history.acknowledgements();
        self.report.terms = self.leaders.len();
        self.report.moved = self.moved.len();
        self.report.objects_deleted = self.watch.deleted;
        Report { trace_hash: self.trace.hash(), ..self.report }
    }
}
