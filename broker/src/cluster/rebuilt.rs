//! A cluster that is rebuilt from what the bucket knows of it, on one of its brokers.

use std::sync::Arc;

use model::{LogIndex, NodeId, PartitionId, RaftGroupId};

use super::command::Replica;
use super::image::{Group, Partition, Topic};
use super::state::Cluster;

/// Where a partition is, as the group that has it knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrived {
    pub group: RaftGroupId,
    /// The move that brought it there, and what that did to its leader epochs.
    pub id: LogIndex,
    pub epoch_base: u32,
    /// An entry of that group's log, at or after the one that adopted it.
    pub at: LogIndex,
}

impl Cluster {
    /// Takes no partition id below `partition` and no producer id below `producer` from now on:
    /// they were found in use, by commands that this state does not have.
    pub fn pass_over(&mut self, partition: PartitionId, producer: i64) {
        let image = self.image_mut();
        image.next_partition = image.next_partition.max(partition);
        self.next_producer_id = self.next_producer_id.max(producer);
    }

    /// One broker has all there is, on a disk of that incarnation. The disks of all others are
    /// lost: they take their places in the groups again when they come with new ones. A group that
    /// is not to be on that broker leaves it as soon as others have it.
    pub fn rebuild_on(&mut self, node: NodeId, incarnation: u32) {
        let asked = self.image.version;
        let members = self.image.members();
        let image = self.image_mut();
        for other in members.into_iter().filter(|it| *it != node) {
            image.retire_disk(other);
        }
        for group in image.groups.values_mut() {
            *group = Arc::new(rebuilt_on(group, node, asked));
        }
        self.replace_disk(node, incarnation);
    }

    /// No partition is on its way any more: each stays where it is.
    pub fn call_off_moves(&mut self) {
        self.change_partitions(|it| Partition { moving: None, ..*it });
    }

    /// A partition came to another group, or by a later move, than this state knows.
    pub fn note_arrival(&mut self, partition: PartitionId, arrived: Arrived) {
        let Arrived { group, id, epoch_base, at } = arrived;
        self.change_partitions(|it| {
            let there = Partition { group, epoch_base, moved: id, arrived: at, ..*it };
            if it.id == partition { there } else { *it }
        });
    }

    fn change_partitions(&mut self, change: impl Fn(&Partition) -> Partition) {
        let topics: Vec<_> = self.image.topics().cloned().collect();
        for topic in topics {
            let partitions: Box<[_]> = topic.partitions.iter().map(&change).collect();
            if partitions != topic.partitions {
                let changed = Topic { partitions, ..Topic::clone(&topic) };
                self.image_mut().insert_topic(&Arc::new(changed));
            }
        }
    }
}

/// A group of which only `node` has a copy.
fn rebuilt_on(group: &Group, node: NodeId, asked: LogIndex) -> Group {
    let shard = group.shard();
    let is_guest = !group.is_on(node);
    let guest = shard.filter(|_| is_guest).map(|shard| Replica { node, shard });
    let asked = if is_guest { asked } else { LogIndex::default() };
    let leaving = guest.into_iter().collect();
    Group { leaving, asked, ..Group::settled(group.id, group.replicas.clone()) }
}

#[cfg(test)]
#[path = "rebuilt_tests.rs"]
mod tests;
