//! Partitions that move from one raft group to another (ADR 0014): who asked for it, and what
//! became of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{LogIndex, PartitionId, RaftGroupId};
use uuid::Uuid;

use super::image::{Image, Partition, Topic};
use super::state::{Cluster, Outcome};
use crate::codec::{DecodeError, Reader, Writer};

/// A move that is under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Move {
    pub to: RaftGroupId,
    /// The entry of group 0 that asked for it. One that is asked for again is another move.
    pub id: LogIndex,
}

impl Partition {
    /// One that begins in a group.
    pub fn new(id: PartitionId, group: RaftGroupId) -> Self {
        let none = LogIndex::default();
        Self { id, group, epoch_base: 0, moved: none, arrived: none, moving: None }
    }

    /// The group that has it when nothing moves any more.
    pub fn destination(&self) -> RaftGroupId {
        self.moving.map_or(self.group, |it| it.to)
    }

    /// Has it moved, or is it to?
    pub(crate) fn is_moved(&self) -> bool {
        self.moving.is_some() || self.moved > LogIndex::default()
    }
}

impl Cluster {
    /// Begins a move, or another one in place of the one that is under way; to the group that has
    /// the partition, ends it.
    pub(super) fn move_partition(
        &mut self,
        id: LogIndex,
        (topic_id, index): (Uuid, u32),
        to: RaftGroupId,
        replaces: LogIndex,
    ) -> Outcome {
        let is_group = to != RaftGroupId::METADATA && self.image.groups.contains_key(&to);
        let is_meant = |it: &Partition| {
            replaces == LogIndex::default() || it.moving.is_some_and(|it| it.id == replaces)
        };
        let found = self.partition(topic_id, index).filter(|(topic, _)| !topic.internal);
        let Some((topic, partition)) = found.filter(|(_, it)| is_group && is_meant(it)) else {
            return Outcome::MoveRefused { topic_id, index };
        };
        let moving = (to != partition.group).then_some(Move { to, id });
        let changed = Partition { moving, ..partition };
        self.replace_partition(&topic, index, changed);
        Outcome::MoveSet { topic_id, index }
    }

    /// The group that a partition moves to has adopted it: it is there from now on.
    pub(super) fn partition_arrived(
        &mut self,
        (topic_id, index): (Uuid, u32),
        id: LogIndex,
        epoch_base: u32,
        arrived: LogIndex,
    ) -> Outcome {
        let moving = |it: &Partition| it.moving.filter(|it| it.id == id);
        let found = self.partition(topic_id, index);
        let found = found.and_then(|(topic, it)| Some((topic, moving(&it)?, it)));
        let Some((topic, moving, partition)) = found else {
            return Outcome::MoveRefused { topic_id, index };
        };
        let group = moving.to;
        let there = Partition { group, epoch_base, moved: id, arrived, moving: None, ..partition };
        self.replace_partition(&topic, index, there);
        Outcome::PartitionArrived { topic_id, index }
    }

    fn partition(&self, topic_id: Uuid, index: u32) -> Option<(Arc<Topic>, Partition)> {
        let topic = self.image.topic_by_id(topic_id)?;
        let partition = topic.partition(i32::try_from(index).ok()?)?;
        Some((Arc::clone(topic), *partition))
    }

    fn replace_partition(&mut self, topic: &Arc<Topic>, index: u32, partition: Partition) {
        let mut changed = Topic::clone(topic);
        if let Some(place) = changed.partitions.get_mut(index as usize) {
            *place = partition;
        }
        self.image_mut().insert_topic(&Arc::new(changed));
    }
}

impl Image {
    /// The partitions that are on their way, each with its topic and index.
    pub fn moving(&self) -> impl Iterator<Item = (&Arc<Topic>, u32, &Partition, Move)> {
        self.partitions().filter_map(|(topic, index, it)| Some((topic, index, it, it.moving?)))
    }

    /// All partitions, each with its topic and index.
    pub fn partitions(&self) -> impl Iterator<Item = (&Arc<Topic>, u32, &Partition)> {
        self.topics().flat_map(|topic| {
            (0..).zip(&topic.partitions).map(move |(index, partition)| (topic, index, partition))
        })
    }

    pub(super) fn has_moves(&self) -> bool {
        self.partitions().any(|(_, _, partition)| partition.is_moved())
    }

    pub(super) fn write_moves(&self, writer: &mut Writer) {
        let all = self.partitions().map(|(_, _, partition)| partition);
        let moved: BTreeMap<_, _> =
            all.filter(|it| it.is_moved()).map(|partition| (partition.id, partition)).collect();
        writer.count(moved.len());
        for (id, partition) in moved {
            writer.u64(id.get());
            writer.u32(partition.epoch_base);
            writer.u64(partition.moved.get());
            writer.u64(partition.arrived.get());
            writer.flag(partition.moving.is_some());
            if let Some(moving) = partition.moving {
                writer.u64(moving.to.get());
                writer.u64(moving.id.get());
            }
        }
    }

    /// Of partitions that are there; of one at least.
    pub(super) fn read_moves(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let wrong = DecodeError::Range { field: "moves" };
        let mut left: BTreeMap<PartitionId, Moved> = reader.map("moves", |reader| {
            let id = PartitionId::new(reader.u64("partition")?);
            let epoch_base = reader.u32("epoch base")?;
            let moved = LogIndex::new(reader.u64("moved")?);
            let arrived = LogIndex::new(reader.u64("arrived")?);
            let moving = if reader.flag("is moving")? {
                let to = RaftGroupId::new(reader.u64("group")?);
                Some(Move { to, id: LogIndex::new(reader.u64("move")?) })
            } else {
                None
            };
            Ok((id, Moved { epoch_base, moved, arrived, moving }))
        })?;
        if left.is_empty() {
            return Err(wrong);
        }
        let topics: Vec<_> = self.topics().cloned().collect();
        for topic in topics {
            if !topic.partitions.iter().any(|it| left.contains_key(&it.id)) {
                continue;
            }
            let mut topic = Topic::clone(&topic);
            for partition in &mut topic.partitions {
                let Some(found) = left.remove(&partition.id) else { continue };
                let Moved { epoch_base, moved, arrived, moving } = found;
                let began_here = moved == LogIndex::default();
                let is_moved = epoch_base > 0 || arrived > LogIndex::default();
                let goes_nowhere = moving.is_some_and(|it| it.to == partition.group);
                if began_here && (moving.is_none() || is_moved) || goes_nowhere {
                    return Err(wrong);
                }
                *partition = Partition { epoch_base, moved, arrived, moving, ..*partition };
            }
            self.insert_topic(&Arc::new(topic));
        }
        if left.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// What a snapshot says of a partition beside its group.
struct Moved {
    epoch_base: u32,
    moved: LogIndex,
    arrived: LogIndex,
    moving: Option<Move>,
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
