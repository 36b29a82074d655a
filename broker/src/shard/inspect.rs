//! What a simulation sees of a shard, to check it, and the bugs that it plants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{LogIndex, NodeId, Offset, PartitionId, RaftGroupId, Term};
use s3_uploader::{Extent, Job, Manifest, ManifestFile, ObjectName};

use super::Shard;
use super::tiers::JobOf;
use crate::cluster::{Command, NodeState};
use crate::config::HostPort;
use crate::metrics::Metric;
use crate::partition::Partition;

/// A number of a manifest that no other one has.
const LEAP: u64 = 1 << 40;

/// Where the records of a partition are.
#[derive(Clone, Debug)]
pub struct PartitionState {
    pub topic: Arc<str>,
    pub index: i32,
    pub group: RaftGroupId,
    pub id: PartitionId,
    pub log_start: Offset,
    /// What is below is in no entry of the log any more.
    pub local_start: Offset,
    pub high_watermark: Offset,
    pub log_end: Offset,
}

/// What is known of a data group.
#[derive(Clone, Copy, Debug)]
pub struct GroupState {
    pub group: RaftGroupId,
    /// This broker leads it, and has applied all that was committed before.
    pub leads: bool,
    /// Bytes that are not offloaded.
    pub pending_bytes: u64,
    pub phase: &'static str,
    /// The first entry that is in its log.
    pub first_index: u64,
    /// The last entry whose edit its manifest contains.
    pub edited: u64,
}

/// Numbers that tell what a shard has done since its start, or has to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub wal_room: u64,
    /// Producers are slowed down.
    pub is_under_pressure: bool,
    pub throttles: u64,
    pub wal_reads: u64,
    pub object_reads: u64,
    pub object_read_failures: u64,
    pub objects: u64,
    pub objects_deleted: u64,
    pub offload_failures: u64,
    pub edits_void: u64,
    pub merges: u64,
    pub orphans_deleted: u64,
    /// Snapshots of other brokers that took the place of a log.
    pub snapshots: u64,
    /// Times that another broker was given what this one led, while both were there.
    pub hand_overs: u64,
    /// Batches that waited until less was not committed.
    pub held: u64,
    /// Clients' connections that it closed since it knew no leader.
    pub let_go: u64,
}

/// A change of who belongs to the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClusterChange {
    Add(i32),
    Drain(i32),
    Serve(i32),
    Remove(i32),
}

/// What is known of a broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Of the metadata that says so.
    pub version: u64,
    pub is_member: bool,
    pub is_draining: bool,
    /// Groups of which it has a copy, or is to have one.
    pub copies: usize,
}

/// The group of each partition.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Homes {
    /// Of the metadata that says so.
    pub version: u64,
    pub groups: BTreeMap<PartitionId, RaftGroupId>,
}

impl Shard {
    pub(crate) fn change_cluster(&mut self, change: ClusterChange) -> bool {
        let set = |node, state| Command::SetNodeState { node: NodeId::new(node), state };
        let command = match change {
            ClusterChange::Add(node) => {
                let address = HostPort::new("simulated", 9192);
                Command::AddNode { node: NodeId::new(node), address }
            }
            ClusterChange::Drain(node) => set(node, NodeState::Draining),
            ClusterChange::Serve(node) => set(node, NodeState::Serving),
            ClusterChange::Remove(node) => set(node, NodeState::Removed),
        };
        let is_led = self.log.has_caught_up(RaftGroupId::METADATA);
        is_led && self.try_propose_command(&command).is_ok()
    }

    pub(crate) fn move_partition(&mut self, topic: &str, index: i32, to: RaftGroupId) -> bool {
        let Some(topic_id) = self.metadata.image().topic(topic).map(|topic| topic.id) else {
            return false;
        };
        let Ok(index) = u32::try_from(index) else { return false };
        let replaces = LogIndex::default();
        let command = Command::MovePartition { topic_id, index, to, replaces };
        let is_led = self.log.has_caught_up(RaftGroupId::METADATA);
        is_led && self.try_propose_command(&command).is_ok()
    }

    pub(crate) fn moved(&self) -> Vec<u64> {
        let partitions = self.metadata.image().partitions();
        let moved = partitions.map(|(_, _, partition)| partition.moved.get());
        moved.filter(|moved| *moved > 0).collect()
    }

    pub(crate) fn standing(&self, node: NodeId) -> Option<Standing> {
        let image = self.metadata.image();
        image.cluster_id().map(|_| Standing {
            version: image.version().get(),
            is_member: image.members().contains(&node),
            is_draining: image.state_of(node) == NodeState::Draining,
            copies: image.groups().filter(|group| group.copy_on(node).is_some()).count(),
        })
    }

    pub(crate) fn describe_groups(&self) -> Vec<String> {
        let describe = |group| {
            let (members, leader) = (self.log.members(group), self.log.leader(group));
            let wanted = self.metadata.image().group(group).map(|it| (&it.replicas, &it.leaving));
            let (first, end) = (self.log.first_index(group), self.log.end_of(group));
            let committed = self.log.committed(group);
            format!(
                "group {group}: led by {leader:?}, {first}..{committed}..{end}, {members:?}, \
                 wanted {wanted:?}"
            )
        };
        let ups: Vec<_> = self.peers.nodes().filter(|node| self.peers.is_up(*node)).collect();
        let (id, room) = (self.node.voter(), self.log.room());
        let first = format!("is {id}, reaches {ups:?}, its WAL has room for {room}");
        std::iter::once(first).chain(self.log.groups().into_iter().map(describe)).collect()
    }

    pub(crate) fn is_balanced(&self) -> bool {
        let image = self.metadata.image();
        let is_still = image.moving().next().is_none();
        is_still && image.groups().all(|group| group.leaving.is_empty())
    }

    pub(crate) fn homes(&self) -> Homes {
        let image = self.metadata.image();
        let groups = image.partitions().map(|(_, _, partition)| (partition.id, partition.group));
        Homes { version: image.version().get(), groups: groups.collect() }
    }

    pub(crate) fn needed(&self, group: RaftGroupId, homes: &Homes) -> BTreeSet<ObjectName> {
        let manifest = &self.tiers[group].manifest;
        let own = manifest.live().copied().filter(|object| !manifest.is_foreign(object));
        let here = homes.groups.iter().filter(|(_, home)| **home == group);
        let objects = here.flat_map(|(partition, _)| manifest.objects_of(*partition));
        own.chain(objects.map(|(object, _)| object)).collect()
    }

    pub(crate) fn manifest(&self, group: RaftGroupId) -> &Manifest {
        &self.tiers[group].manifest
    }

    /// Where the records of a partition are that are in objects.
    pub(crate) fn extents(&self, id: PartitionId) -> &[Extent] {
        let group = self.hosting.group_of(id);
        group.map_or(&[], |group| self.tiers[group].manifest.extents(id))
    }

    pub(crate) fn group_states(&self) -> impl Iterator<Item = GroupState> {
        self.tiers.iter().map(|(group, tier)| GroupState {
            group,
            leads: self.log.has_caught_up(group),
            pending_bytes: tier.offload.pending(),
            phase: tier.offload.phase_name(),
            first_index: self.log.first_index(group).get(),
            edited: tier.edited.get(),
        })
    }

    pub(crate) fn partition_states(&self) -> Vec<PartitionState> {
        let mut states = Vec::new();
        for topic in self.metadata.image().topics().filter(|topic| !topic.internal) {
            for (index, partition) in (0_i32..).zip(&topic.partitions) {
                let Some((group, log)) = self.hosting.find(partition.id) else { continue };
                // It may be in the log, and not in the manifest yet, or not even in the log.
                let arrival = self.tiers[group].manifest.arrival(partition.id);
                let brought = partition.moved.max(log.origin().id);
                if arrival.map(|it| it.id).unwrap_or_default() < brought {
                    continue;
                }
                states.push(PartitionState {
                    group,
                    topic: Arc::clone(&topic.name),
                    index,
                    id: partition.id,
                    log_start: log.log_start(),
                    local_start: log.local_start(),
                    high_watermark: log.high_watermark(),
                    log_end: log.log_end(),
                });
            }
        }
        states
    }

    pub(crate) fn counters(&self) -> Counters {
        let metrics = &self.metrics;
        Counters {
            wal_room: self.log.room(),
            is_under_pressure: self.log.throttle_ms() > 0,
            merges: metrics.get(Metric::Merges),
            orphans_deleted: metrics.get(Metric::TierOrphansDeleted),
            snapshots: metrics.get(Metric::SnapshotsInstalled),
            held: metrics.get(Metric::ProduceHeld),
            let_go: metrics.get(Metric::ConnectionsLetGo),
            hand_overs: metrics.get(Metric::HandOvers),
            throttles: metrics.get(Metric::Throttles),
            wal_reads: metrics.get(Metric::FetchStoredBytes),
            object_reads: metrics.get(Metric::FetchRemoteBytes),
            object_read_failures: metrics.get(Metric::FetchRemoteFailures),
            objects: metrics.get(Metric::OffloadObjects),
            objects_deleted: metrics.get(Metric::TierObjectsDeleted),
            offload_failures: metrics.get(Metric::OffloadFailures),
            edits_void: metrics.get(Metric::TierEditsVoid),
        }
    }

    pub(crate) fn led(&self) -> Vec<(u64, u64)> {
        let led = |group| Some((group, self.log.leads(group)?));
        self.log
            .groups()
            .into_iter()
            .filter_map(led)
            .map(|(group, term)| (group.get(), term.get()))
            .collect()
    }

    /// See `SimBroker`.
    pub(crate) fn acknowledge_early(&mut self) {
        for group in self.tiers.groups().iter() {
            for waiter in self.hosting.take_waiters(*group) {
                self.tell(waiter, Ok(()));
            }
        }
    }

    /// See `SimBroker`.
    pub(crate) fn store_file_unasked(&mut self, group: RaftGroupId) {
        if !self.groups_are_loaded(group) {
            return;
        }
        let (index, upto) = (self.tiers[group].offload.upto(), self.tiers[group].edited);
        let state = self.group_snapshot(group, index);
        let sequence = upto.get() + LEAP;
        let (cluster_id, term) = (self.node.cluster_id, Term::new(1));
        let file = ManifestFile { cluster_id, group, term, index, sequence, state };
        self.tiers.start(group, Job::PutManifest(file), JobOf::ManifestFile { upto });
    }

    /// See `SimBroker`.
    pub(crate) fn trim_early(&mut self) {
        for group in self.tiers.groups().iter().copied() {
            if let Some(upto) = self.tiers[group].offload.recording() {
                self.hosting.release_before(group, upto, PartitionId::new(0), usize::MAX);
                self.compact_to(group, upto);
            }
        }
    }

    /// See `SimBroker`.
    pub(crate) fn settle_early(&mut self) {
        if !self.log.has_caught_up(RaftGroupId::METADATA) {
            return;
        }
        let image = self.metadata.shared_image();
        for group in image.groups().filter(|group| !group.leaving.is_empty()) {
            let command = Command::GroupSettled { group: group.id, asked: group.asked };
            let _ = self.try_propose_command(&command);
        }
    }

    /// See `SimBroker`.
    pub(crate) fn store_arrivals_late(&mut self) {
        for group in self.tiers.groups().iter().copied() {
            self.tiers[group].forget_arrivals();
        }
    }

    /// See `SimBroker`.
    pub(crate) fn greet_as_old(&mut self) {
        self.peers.greet_as_old();
    }

    /// See `SimBroker`.
    pub(crate) fn ignore_seals(&mut self) {
        for group in self.tiers.groups().iter().copied() {
            let ids: Vec<_> = self.hosting.partitions(group).map(Partition::id).collect();
            for id in ids {
                if let Some((log, _)) = self.hosting.of_mut(group, id) {
                    log.set_sealed(false);
                }
            }
        }
    }

    /// See `SimBroker`.
    pub(crate) fn delete_unasked(&mut self) {
        for group in self.tiers.groups().iter().copied() {
            let retired = self.tiers[group].manifest.retired(i64::MAX);
            let retired: Vec<ObjectName> = retired.copied().collect();
            if !retired.is_empty() && self.log.has_caught_up(group) {
                let keys = retired.iter().map(ToString::to_string).collect();
                self.tiers.start(group, Job::Delete(keys), JobOf::Deletion(retired));
            }
        }
    }
}
