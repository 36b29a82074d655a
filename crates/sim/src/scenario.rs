//! What happens in a run: clients write while things go wrong, then everything heals and must come
//! together.

mod faults;
mod finish;
mod settings;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use settings::Settings;

use crate::checker::Violation;
use crate::cluster::{Cluster, Event};
use crate::random::Random;
use crate::trace::Trace;
use crate::world::World;
use crate::{Bug, NODES};

/// Counts of a run that held.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// The same for the same seed.
    pub trace_hash: u64,
    pub acknowledged: usize,
    /// Acknowledged by a majority without the leader's own disk.
    pub acknowledged_without_leader: usize,
    pub applied: usize,
    pub elections: usize,
    pub crashes: usize,
    pub snapshots_installed: usize,
}

impl Report {
    /// Sums the counts; the hashes are folded into one.
    pub fn add(&mut self, other: &Self) {
        self.trace_hash ^= other.trace_hash;
        self.acknowledged += other.acknowledged;
        self.acknowledged_without_leader += other.acknowledged_without_leader;
        self.applied += other.applied;
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.snapshots_installed += other.snapshots_installed;
    }
}

/// A run that did not hold.
#[derive(Clone, Debug)]
pub struct Failure<V = Violation> {
    pub violation: V,
    /// What led to it; only of a readable run.
    pub timeline: Vec<String>,
}

/// Runs a seed. The same seed and bug always give the same result.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Report, Failure> {
    simulate(seed, bug, false)
}

/// [`run`], with a timeline if it fails.
pub fn run_readable(seed: u64, bug: Option<Bug>) -> Result<Report, Failure> {
    simulate(seed, bug, true)
}

fn simulate(seed: u64, bug: Option<Bug>, readable: bool) -> Result<Report, Failure> {
    let mut random = Random::new(seed);
    let settings = Settings::draw(&mut random);
    let mut world = World::new(Trace::new(readable));
    world.note(0, &[seed], || format!("{settings:?}"));
    let mut cluster = Cluster::new(seed, settings, bug, random, world);
    // Broken invariants panic, in raft-rs as in our own code; a panic is a result like another.
    let result = catch_unwind(AssertUnwindSafe(|| play(&mut cluster)))
        .unwrap_or_else(|panic| Err(Violation::Panic { message: text_of(panic.as_ref()) }));
    let world = cluster.world;
    match result {
        Ok(crashes) => Ok(Report {
            trace_hash: world.trace.hash(),
            acknowledged: world.durability.acknowledgements(),
            acknowledged_without_leader: world.durability.without_leader(),
            applied: world.agreement.entries(),
            elections: world.leadership.elections(),
            crashes,
            snapshots_installed: world.installs,
        }),
        Err(violation) => Err(Failure { violation, timeline: world.trace.into_lines() }),
    }
}

/// The whole run; how often a node lost power.
fn play(cluster: &mut Cluster) -> Result<usize, Violation> {
    for node in NODES {
        cluster.start(node)?;
    }
    cluster.plan(0, Event::Clients);
    cluster.plan(cluster.settings.calm, Event::Fault);
    let mut crashes = 0;
    let end = cluster.settings.duration;
    while let Some(event) = cluster.next(end) {
        match event {
            Event::Clients => workload::write(cluster)?,
            Event::Fault => crashes += faults::strike(cluster)?,
            other => cluster.handle(other)?,
        }
    }
    cluster.world.now = end;
    finish::come_together(cluster)?;
    Ok(crashes)
}

pub(crate) fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned()
}
