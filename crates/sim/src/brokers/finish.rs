//! The end of a run: everything is well, so all must come to rest, and all be there, whoever leads.

use std::time::Duration;

use broker::simulation::Counters;
use model::{Offset, PartitionId};
use s3_uploader::{Extent, Weather};

use super::{BROKER_COUNT, Event, Simulation};
use crate::hardware::End;
use crate::kafka::violation::Violation;

/// Microseconds within which all is answered, replicated and offloaded.
const REST_MAX: u64 = 240_000_000;
/// Microseconds to serve after a start or an election.
const START_MAX: u64 = 30_000_000;
/// Microseconds to the next start of brokers whose power was cut at the end.
const START_AFTER: u64 = 100_000;
/// Microseconds to read everything.
const READ_MAX: u64 = 180_000_000;
/// Microseconds between two looks.
const INTERVAL: u64 = 100_000;

pub(super) fn come_to_rest(it: &mut Simulation) -> Result<(), Violation> {
    let fine = Weather { delay_max: Duration::from_millis(20), ..Weather::default() };
    it.store.faults.set_weather(fine);
    it.network.heal();
    it.is_ending = true;
    it.plan.retain(|_, event| !matches!(event, Event::Fault | Event::Weather));
    if it.random.chance(300) {
        // Two of three are enough for all, whatever filled their logs.
        let drawn = it.random.index(BROKER_COUNT);
        let absent = it.lost.unwrap_or(drawn);
        it.end_broker(absent, End::Kill);
        it.plan.retain(|_, event| !matches!(event, Event::Start(node) if *node == absent));
        wait(it, REST_MAX, unrest_of_leader)?;
        it.plan(START_AFTER, Event::Start(absent));
    }
    wait(it, REST_MAX, unrest)?;
    it.read_all()?;
    // What one broker led is there under the others, and what they know is on their disks.
    let leader = it.leader().expect("at rest");
    it.end_broker(leader, End::PowerCut);
    it.plan.retain(|_, event| !matches!(event, Event::Start(_)));
    wait(it, START_MAX, |it| it.leader().is_none().then(|| "nobody leads".to_owned()))?;
    it.read_all()?;
    for node in 0..BROKER_COUNT {
        it.end_broker(node, End::PowerCut);
        it.plan(START_AFTER, Event::Start(node));
    }
    wait(it, REST_MAX, unrest)?;
    it.read_all()
}

/// What is not at rest on any broker.
fn unrest(it: &Simulation) -> Option<String> {
    if let Some(what) = unrest_of_leader(it) {
        return Some(what);
    }
    let leader = it.leader()?;
    let (leading, counters) = state_of(it, leader)?;
    for node in 0..BROKER_COUNT {
        let Some((ends, theirs)) = state_of(it, node) else {
            return Some(format!("node {node} is down"));
        };
        if !it.has_its_place(node) {
            return Some(format!("node {node} has no vote"));
        }
        if ends != leading {
            return Some(format!("node {node} has {ends:?}, the leader {leading:?}"));
        }
        if manifest_of(it, node) != manifest_of(it, leader) {
            return Some(format!("the manifests of nodes {node} and {leader} differ"));
        }
        if theirs.edited != counters.edited {
            let (theirs, leading) = (theirs.edited, counters.edited);
            return Some(format!("node {node} has edits to {theirs}, the leader to {leading}"));
        }
    }
    None
}

/// What whoever leads has not done yet, with as many others as there are.
fn unrest_of_leader(it: &Simulation) -> Option<String> {
    if !it.clients.is_all_answered() {
        return Some("batches are not acknowledged".to_owned());
    }
    let Some((leading, counters)) = it.leader().and_then(|leader| state_of(it, leader)) else {
        return Some("nobody leads".to_owned());
    };
    if leading.iter().any(|(_, high_watermark, log_end)| high_watermark < log_end) {
        return Some(format!("entries are not committed: {leading:?}"));
    }
    (counters.pending_bytes > 0).then(|| format!("bytes are not offloaded: {counters:?}"))
}

/// High watermark and log end of each partition.
type Ends = Vec<(PartitionId, Offset, Offset)>;

fn state_of(it: &Simulation, node: usize) -> Option<(Ends, Counters)> {
    let broker = it.machines[node].broker()?;
    let states = broker.partitions().into_iter();
    let ends = states.map(|it| (it.id, it.high_watermark, it.log_end)).collect();
    Some((ends, broker.counters()))
}

/// Where the records of each partition are, as a broker's manifest has it.
fn manifest_of(it: &Simulation, node: usize) -> Vec<(PartitionId, Vec<Extent>)> {
    let Some(broker) = it.machines[node].broker() else { return Vec::new() };
    let manifest = broker.manifest();
    manifest.partitions().map(|id| (id, manifest.extents(id).to_vec())).collect()
}

/// Lets time pass until nothing is wrong any more.
fn wait(
    it: &mut Simulation,
    most: u64,
    wrong: impl Fn(&Simulation) -> Option<String>,
) -> Result<(), Violation> {
    let by = it.now + most;
    while let Some(what) = wrong(it) {
        if it.now >= by {
            return Err(Violation::Stuck { seconds: most / 1_000_000, what });
        }
        it.run_to((it.now + INTERVAL).min(by))?;
    }
    Ok(())
}

impl Simulation {
    /// Reads every partition from its beginning: all that was acknowledged is there.
    fn read_all(&mut self) -> Result<(), Violation> {
        self.clients.rewind();
        let by = self.now + READ_MAX;
        for partition in 0..self.settings.partitions().len() {
            loop {
                let end = self.end_of(partition);
                let position = self.clients.position(partition);
                if end.is_some_and(|end| position >= end) {
                    self.history.read_through(partition, position)?;
                    break;
                }
                if self.now >= by {
                    let (partition, offset) = (self.history.name(partition), position);
                    let reason = format!("the log ends at {end:?}");
                    return Err(Violation::Unreadable { partition, offset, reason });
                }
                self.run_to(self.now + INTERVAL)?;
            }
        }
        Ok(())
    }

    /// Where a partition ends for whoever leads it.
    fn end_of(&self, partition: usize) -> Option<i64> {
        let (topic, index) = self.settings.partitions()[partition];
        let broker = self.machines[self.leader()?].broker()?;
        let mut states = broker.partitions().into_iter();
        let state = states.find(|it| *it.topic == *topic.name && it.index == index)?;
        Some(state.high_watermark.get())
    }
}
