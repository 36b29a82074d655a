//! The partitions of a shard, and the entries of its raft groups that are not committed yet with
//! who waits for each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use model::{LogIndex, NodeId, Offset, PartitionId, RaftGroupId, Term};
use replication::Descriptor;

use super::Shard;
use super::call::Origin;
use super::coordinate::append_failed;
use super::group_snapshot::GroupSnapshot;
use super::message::{AppendRefused, Appended, PartAnswer};
use crate::group::AppendToken;
use crate::metrics::Metric;
use crate::partition::{EntryDescriptor, Partition, TailBudget};

/// Who hears when an entry is committed.
pub(crate) enum Waiter {
    /// A client's produce request.
    Client { origin: Origin, appended: Appended },
    /// The coordinator, for its records in `__consumer_offsets`.
    Coordinator(AppendToken),
}

/// An entry in the log of a group that is not known to be committed.
struct OpenEntry {
    index: LogIndex,
    partition: PartitionId,
    /// Bytes of the batch.
    size: u32,
    waiter: Option<Waiter>,
    /// Repeats of the batch that arrived before it was committed.
    repeats: Vec<Waiter>,
    /// When it was proposed; `None` if it was recovered.
    proposed: Option<Instant>,
}

/// A partition, and the raft group whose log has its records.
struct Hosted {
    group: RaftGroupId,
    log: Partition,
}

/// See the module's text.
pub(crate) struct Hosting {
    partitions: BTreeMap<PartitionId, Hosted>,
    tail: TailBudget,
    open: BTreeMap<RaftGroupId, VecDeque<OpenEntry>>,
}

impl Hosting {
    pub(crate) fn new(tail_cache_size: usize) -> Self {
        Self {
            partitions: BTreeMap::new(),
            tail: TailBudget::new(tail_cache_size),
            open: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.partitions.len()
    }

    pub(crate) fn tail_cache_bytes(&self) -> usize {
        self.tail.bytes()
    }

    pub(crate) fn get(&self, partition: PartitionId) -> Option<&Partition> {
        Some(&self.partitions.get(&partition)?.log)
    }

    /// A partition and its group.
    pub(crate) fn find(&self, partition: PartitionId) -> Option<(RaftGroupId, &Partition)> {
        self.partitions.get(&partition).map(|hosted| (hosted.group, &hosted.log))
    }

    /// The group of a partition.
    pub(crate) fn group_of(&self, partition: PartitionId) -> Option<RaftGroupId> {
        Some(self.partitions.get(&partition)?.group)
    }

    /// A partition and the budget of the tail caches, which its changes need.
    pub(crate) fn with_tail(
        &mut self,
        partition: PartitionId,
    ) -> Option<(&mut Partition, &mut TailBudget)> {
        Some((&mut self.partitions.get_mut(&partition)?.log, &mut self.tail))
    }

    /// Starts a partition of a group that is not there yet.
    pub(crate) fn ensure(&mut self, group: RaftGroupId, partition: PartitionId) {
        let new = || Hosted { group, log: Partition::new(partition) };
        self.partitions.entry(partition).or_insert_with(new);
    }

    /// Drops the partitions for which `keep` says no: their topics are deleted.
    pub(crate) fn retain(&mut self, keep: impl Fn(PartitionId) -> bool) -> Vec<PartitionId> {
        let gone: Vec<_> = self.partitions.keys().copied().filter(|id| !keep(*id)).collect();
        for id in &gone {
            if let Some(mut hosted) = self.partitions.remove(id) {
                hosted.log.drop_tail(&mut self.tail);
            }
        }
        gone
    }

    /// Takes a partition as a snapshot of its group has it.
    pub(crate) fn restore(&mut self, group: RaftGroupId, log: Partition) {
        self.partitions.insert(log.id(), Hosted { group, log });
    }

    /// Takes an entry that recovery found in the log of a group, after those before it. With
    /// `compacted` a partition that the snapshot lacks may begin anywhere: its topic was deleted
    /// before the snapshot, and the next metadata image says so.
    pub(crate) fn recovered(
        &mut self,
        group: RaftGroupId,
        index: LogIndex,
        term: Term,
        descriptor: &EntryDescriptor,
        compacted: bool,
    ) -> Result<(), crate::partition::ReplayError> {
        let id = descriptor.partition();
        let start = if compacted { descriptor.base_offset() } else { Offset::ZERO };
        let new = || Hosted { group, log: Partition::starting_at(id, start) };
        self.partitions.entry(id).or_insert_with(new).log.replay(index, term, descriptor)?;
        self.push_open(group, index, (id, descriptor.batch_size()), None, None);
        Ok(())
    }

    /// Takes the partitions of a group's snapshot in place of those that it has; returns who waits
    /// in vain.
    pub(crate) fn install(
        &mut self,
        group: RaftGroupId,
        partitions: Vec<Partition>,
    ) -> Vec<Waiter> {
        let before: BTreeSet<_> = self.partitions(group).map(Partition::id).collect();
        self.retain(|id| !before.contains(&id));
        partitions.into_iter().for_each(|partition| self.restore(group, partition));
        let open = self.open.remove(&group).unwrap_or_default();
        open.into_iter().flat_map(|it| it.waiter.into_iter().chain(it.repeats)).collect()
    }

    /// The partitions of a group, in order of their numbers.
    pub(crate) fn partitions(&self, group: RaftGroupId) -> impl Iterator<Item = &Partition> {
        self.partitions.values().filter(move |it| it.group == group).map(|it| &it.log)
    }

    /// Lets go of a group's batches up to an entry: they are in the object store.
    pub(crate) fn release_before(&mut self, group: RaftGroupId, index: LogIndex) {
        for hosted in self.partitions.values_mut().filter(|it| it.group == group) {
            hosted.log.release_before(index, &mut self.tail);
        }
    }

    /// Notes an entry that raft took, and who waits for its commit.
    pub(crate) fn push_open(
        &mut self,
        group: RaftGroupId,
        index: LogIndex,
        (partition, size): (PartitionId, u32),
        waiter: Option<Waiter>,
        proposed: Option<Instant>,
    ) {
        let entry = OpenEntry { index, partition, size, waiter, repeats: Vec::new(), proposed };
        self.open.entry(group).or_default().push_back(entry);
    }

    /// Lets a repeat of an uncommitted batch wait for the first one. Gives the waiter back if there
    /// is no such entry.
    pub(crate) fn wait_for(
        &mut self,
        group: RaftGroupId,
        index: LogIndex,
        waiter: Waiter,
    ) -> Option<Waiter> {
        let entries = self.open.entry(group).or_default();
        match entries.binary_search_by_key(&index, |entry| entry.index) {
            Ok(position) => {
                entries[position].repeats.push(waiter);
                None
            }
            Err(_) => Some(waiter),
        }
    }

    /// Those who wait for entries of a group that are not committed.
    pub(crate) fn take_waiters(&mut self, group: RaftGroupId) -> Vec<Waiter> {
        let open = self.open.get_mut(&group).into_iter().flatten();
        open.flat_map(|it| it.waiter.take().into_iter().chain(std::mem::take(&mut it.repeats)))
            .collect()
    }

    fn pop_committed(&mut self, group: RaftGroupId, index: LogIndex) -> Option<OpenEntry> {
        self.open.get_mut(&group)?.pop_front_if(|entry| entry.index <= index)
    }

    /// Drops entries at and after `from` that were never committed, the newest first.
    pub(crate) fn truncate(&mut self, group: RaftGroupId, from: LogIndex) -> Vec<Waiter> {
        let mut waiters = Vec::new();
        let Some(entries) = self.open.get_mut(&group) else { return waiters };
        while let Some(entry) = entries.pop_back_if(|entry| entry.index >= from) {
            waiters.extend(entry.waiter);
            waiters.extend(entry.repeats);
            if let Some(hosted) = self.partitions.get_mut(&entry.partition) {
                hosted
                    .log
                    .truncate(from, &mut self.tail)
                    .expect("raft never replaces a committed entry");
            }
        }
        waiters
    }

    /// Forgets producers that wrote nothing for `expiration_ms`.
    pub(crate) fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) {
        for hosted in self.partitions.values_mut() {
            hosted.log.expire_producers(now_ms, expiration_ms);
        }
    }

    /// Frees tail caches down to their budget, oldest batches first.
    pub(crate) fn evict(&mut self) {
        while let Some(victim) = self.tail.victim() {
            if let Some(hosted) = self.partitions.get_mut(&victim.partition) {
                hosted.log.evict(victim, &mut self.tail);
            }
        }
    }
}

impl Shard {
    /// Entries up to `index` are durable on a majority: readers see them, producers hear of them.
    pub(crate) fn committed(&mut self, group: RaftGroupId, index: LogIndex) {
        if !self.tiers.contains(group) {
            return; // Group 0 has no batches.
        }
        self.tiers[group].offload.advance(index);
        while let Some(entry) = self.hosting.pop_committed(group, index) {
            if let Some(proposed) = entry.proposed {
                let waited = self.now.instant.saturating_duration_since(proposed);
                self.metrics.commit.record(waited);
            }
            self.tiers[group].offload.committed(u64::from(entry.size), self.now.instant);
            let hosted = self.hosting.partitions.get_mut(&entry.partition);
            if hosted.is_some_and(|hosted| hosted.log.committed(entry.index)) {
                self.wake_readers(entry.partition);
            }
            for waiter in entry.waiter.into_iter().chain(entry.repeats) {
                self.tell(waiter, Ok(()));
            }
        }
    }

    /// Entries from `from` on were replaced by another leader's: whoever waits has to ask there.
    pub(crate) fn truncated(&mut self, group: RaftGroupId, from: LogIndex) {
        for waiter in self.hosting.truncate(group, from) {
            self.tell(waiter, Err(AppendRefused::NotLeader));
        }
    }

    /// Another broker's entry is on its way into the log.
    pub(crate) fn appended_elsewhere(
        &mut self,
        group: RaftGroupId,
        (index, term): (LogIndex, Term),
        descriptor: &Descriptor,
        payload: Bytes,
    ) {
        if group == RaftGroupId::METADATA {
            return self.command_appended(&payload);
        }
        if let Some(entry) = entry_of(descriptor).filter(|_| self.tiers.contains(group)) {
            // A leader proposes what fits its log, and that is ours.
            let taken = self.hosting.recovered(group, index, term, &entry, true);
            taken.expect("entries follow one another in a partition");
            self.keep_for_readers(&entry, payload);
            if let Some(producer) = entry.producer() {
                self.refusals.forget(entry.partition(), producer.id);
            }
        }
    }

    /// A snapshot of the leader stands for a group's log up to `index`.
    pub(crate) fn installed(&mut self, group: RaftGroupId, index: LogIndex, snapshot: &Bytes) {
        self.metrics.add(Metric::SnapshotsInstalled, 1);
        if group == RaftGroupId::METADATA {
            return self.install_cluster(index, snapshot);
        }
        // Raft checked what came: it is what a leader encoded.
        let GroupSnapshot { stored, partitions } =
            GroupSnapshot::decode(snapshot).expect("a leader's snapshot");
        for waiter in self.hosting.install(group, partitions) {
            self.tell(waiter, Err(AppendRefused::NotLeader));
        }
        // Partitions that are younger than the snapshot.
        let image = self.metadata.shared_image();
        self.host_partitions(&image);
        self.tiers[group].install(stored.manifest, stored.edited);
        self.install_offsets(group, stored.offsets);
    }

    /// A group's leader or term changed.
    pub(crate) fn role_changed(&mut self, group: RaftGroupId, term: Term, leader: Option<NodeId>) {
        let own = self.node.id;
        let led = self.node.leader(group).is_some_and(|(node, _)| node == own);
        self.node.set_leader(group, leader, term);
        if leader == Some(own) {
            self.metrics.add(Metric::Elections, 1);
            self.led_told = None;
        } else if led && self.tiers.contains(group) {
            self.step_down(group);
        }
    }

    /// This broker does not lead a data group any more.
    fn step_down(&mut self, group: RaftGroupId) {
        self.tier_steps_down(group);
        self.stop_coordinating(group);
        // What they wait for may be committed after all, or replaced: who leads will know. They
        // would hear of it only when this broker does, however long it is cut off.
        for waiter in self.hosting.take_waiters(group) {
            self.tell(waiter, Err(AppendRefused::NotLeader));
        }
        let partitions: Vec<_> = self.hosting.partitions(group).map(Partition::id).collect();
        for partition in partitions {
            self.wake_readers(partition);
        }
    }

    pub(crate) fn tell(&mut self, waiter: Waiter, result: Result<(), AppendRefused>) {
        match waiter {
            Waiter::Client { origin, mut appended } => {
                appended.throttle_ms = self.log.throttle_ms();
                let answer = result.map(|()| appended);
                self.answer(origin, PartAnswer::Append(answer));
            }
            Waiter::Coordinator(token) => {
                self.coordinator_appended(token, result.map_err(append_failed));
            }
        }
    }
}

/// What an entry of a data group says of its batch.
pub(crate) fn entry_of(descriptor: &Descriptor) -> Option<EntryDescriptor> {
    EntryDescriptor::decode(&descriptor.app).ok()
}

/// An answer about the first append of a repeated batch.
pub(crate) fn appended_at(
    base_offset: Offset,
    log_append_time_ms: i64,
    log_start: Offset,
) -> Appended {
    Appended { base_offset, log_append_time_ms, log_start_offset: log_start, throttle_ms: 0 }
}
