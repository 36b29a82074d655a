//! One broker that offloads: the real shard on a simulated disk, the real jobs of the offload
//! thread on a simulated bucket, one clock. Clients write and read while the power is cut and the
//! store misbehaves; then everything is well, and all must be in objects and there to be read.

mod clients;
mod faults;
mod finish;
mod machine;
mod report;
mod settings;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use s3_uploader::Extent;

pub use self::report::Report;
pub use crate::kafka::violation::Violation;

use self::clients::Clients;
use self::faults::Ambush;
use self::machine::Machine;
use self::settings::Settings;
use self::watch::Watch;
use crate::Failure;
use crate::kafka::history::{History, hash_of};
use crate::random::Random;
use crate::scenario::text_of;
use crate::trace::Trace;

/// A planted fault, to show that the checkers see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bug {
    /// The log is given up before the entry that names the object is committed.
    TrimBeforeEdit,
    /// Objects that nothing refers to are deleted although the bucket's newest manifest names them.
    DeleteNamed,
    /// Objects that nothing refers to are deleted at once.
    DeleteWithoutGrace,
    /// A write whose reply was lost is taken for one that failed, and the name for another content.
    ReuseName,
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
    // Broken invariants of the broker panic; a panic is a result like another.
    let result = catch_unwind(AssertUnwindSafe(|| simulation.play()))
        .unwrap_or_else(|panic| Err(Violation::Panic { message: text_of(panic.as_ref()) }));
    match result {
        Ok(()) => Ok(simulation.report()),
        Err(violation) => Err(Failure { violation, timeline: simulation.trace.into_lines() }),
    }
}

/// Where the first hole after `start` begins in a partition's extents, or their end.
pub(crate) fn covered_from(start: i64, extents: &[Extent]) -> i64 {
    let mut covered = start;
    for extent in extents.iter().filter(|extent| extent.end.get() > start) {
        if extent.base.get() > covered {
            break;
        }
        covered = extent.end.get();
    }
    covered
}

/// What is planned for a time.
#[derive(Clone, Copy, Debug)]
enum Event {
    Produce(usize),
    Follow(usize),
    LookUp,
    Trim,
    Weather,
    Crash,
    Start,
}

struct Simulation {
    settings: Settings,
    random: Random,
    bug: Option<Bug>,
    /// When the bug last had its chance.
    planted_at: Option<u64>,
    machine: Machine,
    clients: Clients,
    history: History,
    watch: Watch,
    trace: Trace,
    report: Report,
    /// By time; events of one time in the order in which they were planned.
    plan: BTreeMap<(u64, u64), Event>,
    planned: u64,
    /// The broker ends when this comes true.
    ambush: Option<Ambush>,
    /// The first entry of the log when it was last looked at.
    first_index: u64,
    ready: bool,
}

impl Simulation {
    fn new(seed: u64, bug: Option<Bug>, readable: bool) -> Self {
        let mut random = Random::new(seed);
        let mut settings = Settings::draw(&mut random);
        let believed_grace_ms = settings.delete_grace_ms;
        if bug == Some(Bug::DeleteWithoutGrace) {
            settings.broker.set("object.delete.grace.ms=0").expect("a setting of the broker");
        }
        let mut trace = Trace::new(readable);
        trace.note(0, 0, &[seed], || format!("{settings:?}"));
        let machine = Machine::new(&settings, random.fork());
        if bug == Some(Bug::ReuseName) {
            machine.store.bucket.reuse_names();
        }
        Self {
            watch: Watch::new(
                machine.store.bucket.clone(),
                machine.store.url.clone(),
                believed_grace_ms,
            ),
            clients: Clients::new(&settings, &mut random),
            history: History::new(settings.partitions()),
            machine,
            settings,
            random,
            bug,
            planted_at: None,
            trace,
            report: Report::default(),
            plan: BTreeMap::new(),
            planned: 0,
            ambush: None,
            first_index: 0,
            ready: false,
        }
    }

    /// The whole run.
    fn play(&mut self) -> Result<(), Violation> {
        self.start()?;
        for producer in 0..self.settings.producer_count {
            self.plan(0, Event::Produce(producer));
        }
        for partition in 0..self.settings.partitions().len() {
            self.plan(0, Event::Follow(partition));
        }
        for event in [Event::LookUp, Event::Trim, Event::Weather, Event::Crash] {
            self.plan(3_000_000, event);
        }
        let end = self.settings.duration;
        while self.machine.now < end {
            self.step(end)?;
        }
        finish::come_to_rest(self)
    }

    /// The next thing that happens, at `end` at the latest.
    fn step(&mut self, end: u64) -> Result<(), Violation> {
        let planned = self.plan.first_key_value().map_or(end, |((at, _), _)| *at);
        self.machine.advance(planned.min(end));
        while let Some(entry) = self.plan.first_entry() {
            if entry.key().0 > self.machine.now {
                break;
            }
            let event = entry.remove();
            self.handle(event)?;
        }
        self.turn()
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Produce(producer) => {
                let again = self.random.between(1_000, self.settings.produce_interval_max);
                self.plan(again, event);
                self.ask(|it, now_ms| {
                    it.clients.produce(producer, now_ms, &mut it.history, &mut it.random)
                });
            }
            Event::Follow(partition) => {
                let again = self.random.between(1_000, 1_000_000);
                self.plan(again, event);
                self.ask(|it, _| it.clients.follow(partition, &it.history, &mut it.random));
            }
            Event::LookUp => {
                let again = self.random.between(1_000, 400_000);
                self.plan(again, event);
                self.ask(|it, _| it.clients.look_up(&it.history, &mut it.random));
            }
            Event::Trim => {
                let again = self.random.between(100_000, self.settings.trim_interval_max);
                self.plan(again, event);
                self.ask(|it, _| it.clients.trim(&mut it.history, &mut it.random));
            }
            Event::Weather => self.change_weather(),
            Event::Crash => self.lay_ambush()?,
            Event::Start => self.start()?,
        }
        Ok(())
    }

    /// Sends what a client asks for, if there is a broker that it can reach.
    fn ask(&mut self, request: impl FnOnce(&mut Self, i64) -> Option<(u32, Bytes)>) {
        let now_ms = self.machine.now_ms();
        if self.machine.ready().is_some()
            && let Some((conn, bytes)) = request(self, now_ms)
        {
            let (now, size) = (self.machine.now, bytes.len() as u64);
            self.trace.note(now, 0, &[1, conn.into(), size], || format!("{conn} asks: {size} B"));
            if let Some(broker) = self.machine.broker_mut() {
                broker.receive(conn, bytes);
            }
        }
    }

    /// The broker does what it can, and everybody looks at it.
    fn turn(&mut self) -> Result<(), Violation> {
        let replies = self.machine.turn()?;
        self.plant_bug();
        let is_ready = self.machine.ready().is_some();
        if is_ready && !self.ready {
            self.connect();
        }
        self.ready = is_ready;
        if is_ready {
            self.look()?;
        }
        for (conn, pieces) in replies {
            let hash = pieces.iter().fold(0, |hash, piece| hash ^ hash_of(piece));
            let now = self.machine.now;
            self.trace.note(now, 0, &[2, conn.into(), hash], || format!("{conn} is answered"));
            self.clients.received(conn, &pieces, &mut self.history, &mut self.report)?;
            if pieces.is_empty()
                && let Some(conn) = self.clients.reconnect(conn)
                && let Some(broker) = self.machine.broker_mut()
            {
                broker.connect(conn);
            }
        }
        self.spring_ambush()
    }

    fn connect(&mut self) {
        let Some(broker) = self.machine.broker_mut() else { return };
        self.clients.connections().for_each(|conn| broker.connect(conn));
        self.trace.note(self.machine.now, 0, &[3], || "serves".to_owned());
        self.ask(|it, _| it.clients.administer(&it.settings));
    }

    /// What must hold at any moment.
    fn look(&mut self) -> Result<(), Violation> {
        let (now, now_ms) = (self.machine.now, self.machine.now_ms());
        let Some(broker) = self.machine.broker() else { return Ok(()) };
        let Some(group) = broker.groups().next() else { return Ok(()) };
        if group.first_index > self.first_index {
            let first = group.first_index;
            self.report.compactions += usize::from(self.first_index > 0);
            self.trace.note(now, 0, &[4, first], || format!("the log begins at {first}"));
        }
        self.first_index = group.first_index;
        self.watch.look(broker, &group, &broker.homes(), now_ms)?;
        self.watch.look_at_bucket(now_ms)?;
        for state in broker.partitions() {
            let Some(place) = self.settings.place(&state.topic, state.index) else { continue };
            let (start, end) = (state.log_start.get(), state.high_watermark.get());
            let expired = self.history.positions(place, start, end)?;
            self.report.expiries += usize::from(expired);
            let covered = covered_from(start, broker.extents(state.id));
            if covered < state.local_start.get() {
                let partition = self.history.name(place);
                return Err(Violation::Uncovered { partition, from: covered });
            }
        }
        Ok(())
    }

    fn plant_bug(&mut self) {
        // The store may answer within the same moment: a bug for each answer, and none ever ends.
        let now = self.machine.now;
        let Some(broker) = self.machine.broker_mut() else { return };
        if self.planted_at.replace(now) == Some(now) {
            return;
        }
        match self.bug {
            Some(Bug::TrimBeforeEdit) => broker.trim_early(),
            Some(Bug::DeleteNamed) => broker.delete_unasked(),
            Some(Bug::DeleteWithoutGrace | Bug::ReuseName) | None => {}
        }
    }

    fn plan(&mut self, after: u64, event: Event) {
        self.planned += 1;
        self.plan.insert((self.machine.now + after, self.planned), event);
    }

    /// What became of a run that held.
    fn report(mut self) -> Report {
        let now = self.machine.now;
        for (key, bytes) in self.machine.store.bucket.objects(&self.machine.store.url, "") {
            let hash = hash_of(key.as_bytes()) ^ hash_of(&bytes);
            self.trace.note(now, 0, &[5, hash], || format!("{key} is left"));
        }
        self.report.set_injected(self.machine.store.faults.injected());
        self.report.seconds = usize::try_from(now / 1_000_000).unwrap_or(usize::MAX);
        self.report.acknowledged = self.history.acknowledgements();
        self.report.objects = self.watch.created;
        self.report.objects_deleted = self.watch.deleted;
        self.report.manifest_files = self.watch.manifest_files;
        Report { trace_hash: self.trace.hash(), ..self.report }
    }
}
