//! Reads from the closest replica (KIP-392). The leader sends a consumer that says where it is to a
//! replica in its rack; that one serves it up to its own high watermark, as long as it hears the
//! leader. Whatever it does not know it leaves to the leader, to which the client goes back
//! (ADR 0013).

use bytes::Bytes;
use model::{NodeId, Offset, RaftGroupId};

use super::Shard;
use super::in_sync::SILENCE_MAX;
use super::message::{PartitionRead, ReadRecords, ReadRefused};
use crate::cluster::Replica;
use crate::metrics::Metric;
use crate::partition::{EntryDescriptor, Partition};

impl Shard {
    /// A partition for a fetch with its group, and whether another broker leads it. Only consumers
    /// that name a `rack` read what this broker does not lead: all others take it for the leader.
    pub(super) fn readable_in(
        &self,
        wanted: &PartitionRead,
        rack: Option<&str>,
    ) -> Result<(RaftGroupId, &Partition, bool), ReadRefused> {
        let (id, current) = (wanted.partition, wanted.current_epoch);
        let found = rack.and_then(|_| self.hosting.find(id));
        if let Some((group, partition)) = found.filter(|(group, _)| self.hears_leader_of(*group)) {
            self.check_epoch((group, partition), current)?;
            return Ok((group, partition, true));
        }
        let (group, partition) = self.readable(id, current)?;
        Ok((group, partition, false))
    }

    /// Does another broker lead a group, and was it heard of late? One that is cut off, or stood
    /// still, would keep its readers waiting for what others have long been given.
    fn hears_leader_of(&self, group: RaftGroupId) -> bool {
        let now = self.now.instant;
        let is_heard = |leader: u64| self.log.has_heard(leader, SILENCE_MAX, now);
        self.log.leads(group).is_none() && self.log.leader(group).is_some_and(is_heard)
    }

    /// The broker id of a replica in a consumer's rack that has what it asks for, where this
    /// broker leads and is not in that rack itself.
    pub(super) fn closest_replica(
        &self,
        group: RaftGroupId,
        partition: &Partition,
        wanted: &PartitionRead,
        rack: &str,
    ) -> Option<NodeId> {
        let image = self.metadata.image();
        let is_there = |node| image.rack_of(node) == Some(rack);
        let is_on = self.node.settings.broker.rack_aware_reads;
        if !is_on || is_there(self.node.id) || wanted.from < partition.log_start() {
            return None;
        }
        let end_on = |node| {
            let matched = self.log.matched(group, self.voter_at(node))?;
            self.is_in_sync(group, node).then(|| partition.end_at(matched))
        };
        let replicas = &image.group(group)?.replicas;
        let broker = image.broker_of(closest(replicas, is_there, end_on, wanted.from)?)?;
        self.metrics.add(Metric::FetchesSentOn, 1);
        Some(broker)
    }

    /// Keeps the bytes of an entry that this broker takes from a leader, where consumers may read
    /// them here: otherwise only a restart or another leader would make them be read.
    pub(super) fn keep_for_readers(
        &mut self,
        group: RaftGroupId,
        entry: &EntryDescriptor,
        payload: Bytes,
    ) {
        let is_read_here = self.hosting.group_of(entry.partition()) == Some(group);
        if !self.node.settings.broker.rack_aware_reads || !is_read_here {
            return;
        }
        if let Some((partition, tail)) = self.hosting.with_tail(entry.partition()) {
            // A slice of all that came with it, however much that is.
            partition.keep_in_tail(entry.base_offset(), payload, usize::MAX, tail);
            self.hosting.evict();
        }
    }

    /// What a follower serves is told apart from what a leader does.
    pub(super) fn count_read(&self, records: &ReadRecords) {
        if records.from_follower {
            let size: usize = records.batches.iter().map(Bytes::len).sum();
            self.metrics.add(Metric::FetchFollowerBytes, size as u64);
        }
    }
}

/// Of the replicas that are there, the first of those whose records reach furthest, if that is as
/// far as `from`. `end_on`: where the records of a replica in sync end.
fn closest(
    replicas: &[Replica],
    is_there: impl Fn(NodeId) -> bool,
    end_on: impl Fn(NodeId) -> Option<Offset>,
    from: Offset,
) -> Option<Replica> {
    let there = replicas.iter().rev().filter(|replica| is_there(replica.node));
    let ends = there.filter_map(|replica| Some((end_on(replica.node)?, *replica)));
    let furthest = ends.max_by_key(|(end, _)| *end);
    furthest.filter(|(end, _)| *end >= from).map(|(_, replica)| replica)
}

#[cfg(test)]
mod tests {
    use model::ShardId;

    use super::*;

    #[test]
    fn the_replica_of_the_rack_that_has_most_is_chosen_if_it_has_the_offset() {
        let nodes = [1, 2, 3, 4].map(NodeId::new);
        let replicas = nodes.map(|node| Replica { node, shard: ShardId::new(0) });
        let closest = |there: &[i32], ends: [Option<i64>; 4], from| {
            let is_there = |node: NodeId| there.contains(&node.get());
            let end_on = |node| {
                let at = nodes.iter().position(|it| *it == node)?;
                ends[at].map(Offset::new)
            };
            closest(&replicas, is_there, end_on, Offset::new(from)).map(|it| it.node.get())
        };
        let ends = [Some(9), Some(5), Some(7), None];
        assert_eq!(closest(&[2, 3], ends, 5), Some(3));
        assert_eq!(closest(&[2], ends, 5), Some(2), "it can wait for the next record");
        assert_eq!(closest(&[2], ends, 6), None, "it would not know the offset");
        assert_eq!(closest(&[4], ends, 0), None, "it is not in sync");
        assert_eq!(closest(&[], ends, 0), None, "nobody is in that rack");
        assert_eq!(closest(&[2, 3], [Some(7); 4], 7), Some(2), "the first of equals");
    }
}
