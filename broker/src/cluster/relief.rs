//! Which partition should leave the busiest core, and for which group.
//!
//! A core's load is the share of its time that it worked. A partition's part of it is taken to be
//! its part of the bytes that were written to all that the core leads: what readers cost goes with
//! that, most of all. Where the other core follows the partition already, most of the load is there
//! too, and only what leading costs more goes over: that part of what the two cores differ by.
//!
//! A move has to pay: the busier of the two must be less busy after it than the busiest is now, by
//! a good deal.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::{LogIndex, NodeId, PartitionId, RaftGroupId, ShardId};

use super::command::Command;
use super::image::{Group, Image, Topic};
use super::membership::NodeState;

/// A core of a broker.
pub type Core = (NodeId, ShardId);

/// What part of its load the busiest core has to be less busy by, and so has the other one to stay
/// below it.
const GAIN_PART: u32 = 8;

/// How busy a core is, and with what.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CoreLoad {
    /// Thousandths of its time that it worked.
    pub busy: u32,
    /// Bytes a second written to all partitions that it leads.
    pub bytes: u64,
    /// Those with the most, and the bytes of each.
    pub partitions: Vec<(PartitionId, u64)>,
}

/// The partition whose move pays most, and what moves it. A core that is less busy than `busy_min`,
/// in thousandths of its time, needs no relief. `may_move`: whether a partition has not moved for a
/// while.
pub fn relieve(
    image: &Image,
    loads: &BTreeMap<Core, CoreLoad>,
    busy_min: u32,
    may_move: impl Fn(PartitionId) -> bool,
) -> Option<(PartitionId, Command)> {
    let (hottest, load) = loads.iter().max_by_key(|(core, load)| (load.busy, Reverse(**core)))?;
    if load.busy < busy_min || load.bytes == 0 {
        return None;
    }
    let told: BTreeMap<_, _> = load.partitions.iter().copied().collect();
    let candidates = image.partitions().filter_map(|(topic, index, partition)| {
        let bytes = *told.get(&partition.id)?;
        let present = image.group(partition.group)?;
        let is_free = !topic.internal && partition.moving.is_none() && may_move(partition.id);
        is_free.then_some((topic, index, (partition.id, present), bytes))
    });
    let counts = counts(image);
    let moves = candidates.flat_map(|(topic, index, (id, present), bytes)| {
        let others = loads.iter().filter(move |(core, _)| *core != hottest);
        let counts = &counts;
        others.filter_map(move |(core, other)| {
            let to = group_on(image, *core, present, counts)?;
            let follows = present.is_on(core.0) && present.shard() == Some(core.1);
            let shared = if follows { load.busy.saturating_sub(other.busy) } else { load.busy };
            let part = u64::from(shared).saturating_mul(bytes) / load.bytes;
            let part = u32::try_from(part).unwrap_or(u32::MAX);
            let there = other.busy.saturating_add(part);
            let after = load.busy.saturating_sub(part).max(there);
            Some((after, there, (id, move_to(topic, index, to))))
        })
    });
    // Of two that come to the same it is the one that leaves the other core less busy.
    let best = moves.min_by_key(|(after, there, _)| (*after, *there));
    best.filter(|(after, ..)| *after <= load.busy - load.busy / GAIN_PART)
        .map(|(.., moving)| moving)
}

/// Partitions by group when nothing moves any more.
fn counts(image: &Image) -> BTreeMap<RaftGroupId, usize> {
    let mut counts = BTreeMap::new();
    for (_, _, partition) in image.partitions() {
        *counts.entry(partition.destination()).or_default() += 1;
    }
    counts
}

/// The emptiest group that a core is to lead, with as many copies as the partition has now.
fn group_on(
    image: &Image,
    (node, shard): Core,
    present: &Group,
    counts: &BTreeMap<RaftGroupId, usize>,
) -> Option<RaftGroupId> {
    let serves = image.state_of(node) == NodeState::Serving;
    let is_led_there = |group: &&Arc<Group>| {
        group.preferred_leader() == Some(node)
            && group.shard() == Some(shard)
            && group.leaving.is_empty()
            && group.replicas.len() == present.replicas.len()
    };
    let groups = image.data_groups().filter(|_| serves).filter(is_led_there);
    groups.map(|group| group.id).min_by_key(|id| (counts.get(id).copied().unwrap_or(0), *id))
}

fn move_to(topic: &Topic, index: u32, to: RaftGroupId) -> Command {
    Command::MovePartition { topic_id: topic.id, index, to, replaces: LogIndex::default() }
}

#[cfg(test)]
#[path = "relief_tests.rs"]
mod tests;
