//! The end of a run: everything is well, so all must come to rest, and all be there, whoever leads.

use std::time::Duration;

use broker::simulation::PartitionState;
use model::{Offset, PartitionId, RaftGroupId};
use s3_uploader::{Manifest, Weather};

use super::{Event, Simulation};
use crate::hardware::End;
use crate::kafka::violation::Violation;

/// Microseconds within which all is answered, replicated and offloaded.
const REST_MAX: u64 = 240_000_000;
/// Microseconds to serve after a start or an election.
const START_MAX: u64 = 30_000_000;
/// Microseconds to the next start of brokers whose power was cut at the end.
const START_AFTER: u64 = 100_000;
/// Microseconds within which a reader gets on: to read all may take long, where disks are slow.
const READ_MAX: u64 = 60_000_000;
/// Microseconds between two looks.
const INTERVAL: u64 = 100_000;

pub(super) fn come_to_rest(it: &mut Simulation) -> Result<(), Violation> {
    let fine = Weather { delay_max: Duration::from_millis(20), ..Weather::default() };
    it.store.faults.set_weather(fine);
    it.network.heal();
    it.is_ending = true;
    it.plan.retain(|_, event| !matches!(event, Event::Fault | Event::Weather));
    if it.random.chance(300) {
        // One may be away, whatever filled the logs of the others.
        let nodes = it.nodes();
        let drawn = nodes[it.random.index(nodes.len())];
        let absent = it.lost.unwrap_or(drawn);
        it.end_broker(absent, End::Kill);
        it.plan.retain(|_, event| !matches!(event, Event::Start(node) if *node == absent));
        wait(it, REST_MAX, unrest_of_leader)?;
        it.plan(START_AFTER, Event::Start(absent));
    }
    wait(it, REST_MAX, unrest)?;
    it.read_all()?;
    // What one broker led is there under the others, and what they know is on their disks.
    let leader = it.settings.groups().find_map(|group| it.leader(group)).expect("at rest");
    it.end_broker(leader, End::PowerCut);
    it.plan.retain(|_, event| !matches!(event, Event::Start(_)));
    wait(it, START_MAX, leaderless)?;
    it.read_all()?;
    for node in it.nodes() {
        it.end_broker(node, End::PowerCut);
        it.plan(START_AFTER, Event::Start(node));
    }
    wait(it, REST_MAX, unrest)?;
    it.read_all()?;
    if it.random.chance(300) {
        it.lose_all_disks()?;
        wait(it, REST_MAX, unrest)?;
        it.read_all()?;
    }
    Ok(())
}

/// What is not at rest on any broker.
fn unrest(it: &Simulation) -> Option<String> {
    if let Some(what) = unrest_of_leader(it) {
        return Some(what);
    }
    if let Some(what) = it.is_reshaping() {
        return Some(what);
    }
    for node in it.nodes() {
        if it.machines[node].broker().is_none() {
            return Some(format!("node {node} is down"));
        }
        if !it.has_its_place(node) {
            return Some(format!("node {node} has no vote"));
        }
    }
    it.settings.groups().find_map(|group| difference(it, group))
}

/// What a follower of a group has that its leader has not, or the other way round.
fn difference(it: &Simulation, group: RaftGroupId) -> Option<String> {
    let leader = it.leader(group)?;
    let (leading, counters) = (ends_of(it, leader, group), it.state_of(leader, group)?);
    for node in it.nodes() {
        // Not every broker has a copy.
        let Some(theirs) = it.state_of(node, group) else { continue };
        let ends = ends_of(it, node, group);
        if ends != leading {
            return Some(format!("node {node} has {ends:?}, the leader {leading:?}"));
        }
        if theirs.edited != counters.edited {
            let (theirs, leading) = (theirs.edited, counters.edited);
            return Some(format!("node {node} has edits to {theirs}, the leader to {leading}"));
        }
        if manifest_of(it, node, group) != manifest_of(it, leader, group) {
            return Some(format!("the manifests of nodes {node} and {leader} differ"));
        }
    }
    None
}

fn leaderless(it: &Simulation) -> Option<String> {
    let mut groups = it.settings.groups();
    let group = groups.find(|group| it.leader(*group).is_none())?;
    Some(format!("nobody leads group {group}"))
}

/// What whoever leads has not done yet, with as many others as there are.
fn unrest_of_leader(it: &Simulation) -> Option<String> {
    if !it.clients.is_all_answered() {
        return Some("batches are not acknowledged".to_owned());
    }
    if let Some(what) = leaderless(it) {
        return Some(what);
    }
    for group in it.settings.groups() {
        let leader = it.leader(group)?;
        let leading = ends_of(it, leader, group);
        if leading.iter().any(|(_, high_watermark, log_end)| high_watermark < log_end) {
            return Some(format!("entries are not committed: {leading:?}"));
        }
        let sealed = |id: &PartitionId| manifest_of(it, leader, group)?.sealed(*id);
        if leading.iter().any(|(id, ..)| sealed(id).is_some()) {
            return Some(format!("partitions of group {group} take no records"));
        }
        let state = it.state_of(leader, group)?;
        if state.pending_bytes > 0 {
            return Some(format!("bytes are not offloaded: {state:?}"));
        }
    }
    None
}

/// High watermark and log end of each partition.
type Ends = Vec<(PartitionId, Offset, Offset)>;

fn ends_of(it: &Simulation, node: usize, group: RaftGroupId) -> Ends {
    let Some(broker) = it.machines[node].broker() else { return Vec::new() };
    let states = broker.partitions().into_iter().filter(|it| it.group == group);
    states.map(|it| (it.id, it.high_watermark, it.log_end)).collect()
}

/// Where the records of each partition are, and what moves, as a broker has it.
fn manifest_of(it: &Simulation, node: usize, group: RaftGroupId) -> Option<&Manifest> {
    Some(it.machines[node].broker()?.manifest(group))
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
            it.describe();
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
        for partition in 0..self.settings.partitions().len() {
            let (mut read, mut by) = (None, 0);
            loop {
                let end = self.end_of(partition);
                let position = self.clients.position(partition);
                if read.replace(position) != Some(position) {
                    by = self.now + READ_MAX;
                }
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
        let is_it = |it: &PartitionState| *it.topic == *topic.name && it.index == index;
        self.settings.groups().find_map(|group| {
            let broker = self.machines[self.leader(group)?].broker()?;
            let mut states = broker.partitions().into_iter().filter(|it| it.group == group);
            Some(states.find(is_it)?.high_watermark.get())
        })
    }
}
