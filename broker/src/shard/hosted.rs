//! The partitions of a shard, and the entries of its raft groups that are not committed yet with
//! who waits for each.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Instant;

use bytes::Bytes;
use model::{LogIndex, NodeId, Offset, PartitionId, RaftGroupId, Term};
use replication::Descriptor;
use s3_uploader::{Adoption, Manifest};

use super::Shard;
use super::call::Origin;
use super::coordinate::append_failed;
use super::group_snapshot::GroupSnapshot;
use super::message::{AppendRefused, Appended, PartAnswer};
use super::moves::is_news;
use crate::group::AppendToken;
use crate::metrics::Metric;
use crate::partition::{self, EntryDescriptor, Partition, TailBudget};

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
    /// The move that brought it there, by the metadata, once that has named it.
    moved: Option<LogIndex>,
    log: Partition,
}

/// See the module's text.
pub(crate) struct Hosting {
    partitions: BTreeMap<PartitionId, Hosted>,
    /// Partitions that another group has, as this one left them; and that one of this broker has
    /// still, as this one is about to get them.
    others: BTreeMap<(RaftGroupId, PartitionId), Partition>,
    tail: TailBudget,
    open: BTreeMap<RaftGroupId, VecDeque<OpenEntry>>,
}

/// What becomes of a partition that a group has, or has had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    Here,
    /// Another group has it, and may not have stored yet how it is: it is kept for whoever
    /// rebuilds the cluster from what this group stores.
    Apart,
    Gone,
}

impl Hosting {
    pub(crate) fn new(tail_cache_size: usize) -> Self {
        Self {
            partitions: BTreeMap::new(),
            others: BTreeMap::new(),
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

    /// Where the metadata says that they are: each partition and the bytes of its batches that are
    /// here.
    pub(crate) fn local_sizes(&self) -> impl Iterator<Item = (PartitionId, u64)> {
        self.partitions.iter().map(|(id, hosted)| (*id, hosted.log.local_size()))
    }

    /// A partition as a group has it, which may not be the one that the metadata names.
    pub(crate) fn of(&self, group: RaftGroupId, partition: PartitionId) -> Option<&Partition> {
        match self.partitions.get(&partition) {
            Some(hosted) if hosted.group == group => Some(&hosted.log),
            _ => self.others.get(&(group, partition)),
        }
    }

    /// The same, and the budget of the tail caches.
    pub(crate) fn of_mut(
        &mut self,
        group: RaftGroupId,
        partition: PartitionId,
    ) -> Option<(&mut Partition, &mut TailBudget)> {
        let log = match self.partitions.get_mut(&partition) {
            Some(hosted) if hosted.group == group => &mut hosted.log,
            _ => self.others.get_mut(&(group, partition))?,
        };
        Some((log, &mut self.tail))
    }

    /// Does the metadata name a partition in a group, where that move brought it?
    pub(crate) fn is_named(
        &self,
        group: RaftGroupId,
        partition: PartitionId,
        moved: LogIndex,
    ) -> bool {
        let hosted = self.partitions.get(&partition);
        hosted.is_some_and(|it| it.group == group && it.moved == Some(moved))
    }

    /// Puts a partition where the metadata says that it is, by which move, and starts it if it is
    /// not there yet. True if another group had it.
    pub(crate) fn ensure(
        &mut self,
        group: RaftGroupId,
        partition: PartitionId,
        moved: LogIndex,
    ) -> bool {
        let moved = Some(moved);
        if let Some(hosted) = self.partitions.get_mut(&partition).filter(|it| it.group == group) {
            hosted.moved = moved;
            return false;
        }
        let arrived = self.others.remove(&(group, partition));
        let log = arrived.unwrap_or_else(|| Partition::new(partition));
        let left = self.partitions.insert(partition, Hosted { group, moved, log });
        let has_left = left.is_some();
        if let Some(mut left) = left {
            left.log.drop_tail(&mut self.tail);
            self.others.insert((left.group, partition), left.log);
        }
        has_left
    }

    /// Does with each partition of each group what `fate` says. Returns those that are no more
    /// where the metadata named them.
    pub(crate) fn sort(
        &mut self,
        fate: impl Fn(RaftGroupId, &Partition) -> Fate,
    ) -> Vec<PartitionId> {
        self.others.retain(|(group, _), log| {
            let kept = fate(*group, log) != Fate::Gone;
            if !kept {
                log.drop_tail(&mut self.tail);
            }
            kept
        });
        let named = self.partitions.iter();
        let others = named.map(|(id, it)| (*id, it.group, fate(it.group, &it.log)));
        let others: Vec<_> = others.filter(|(.., fate)| *fate != Fate::Here).collect();
        for (id, group, fate) in &others {
            let Some(mut hosted) = self.partitions.remove(id) else { continue };
            hosted.log.drop_tail(&mut self.tail);
            if *fate == Fate::Apart {
                self.others.insert((*group, *id), hosted.log);
            }
        }
        others.into_iter().map(|(id, ..)| id).collect()
    }

    /// Drops the partitions for which `keep` says no.
    fn retain(&mut self, keep: impl Fn(RaftGroupId, &Partition) -> bool) {
        self.sort(|group, log| if keep(group, log) { Fate::Here } else { Fate::Gone });
    }

    /// A group has a partition no more.
    pub(crate) fn remove(&mut self, group: RaftGroupId, partition: PartitionId) {
        self.retain(|of, log| of != group || log.id() != partition);
    }

    /// Takes a partition as a snapshot of its group has it, or an entry that adopted it.
    pub(crate) fn restore(&mut self, group: RaftGroupId, log: Partition) {
        let id = log.id();
        let before = match self.partitions.get_mut(&id) {
            Some(hosted) if hosted.group == group => Some(std::mem::replace(&mut hosted.log, log)),
            Some(_) => self.others.insert((group, id), log),
            None => {
                self.partitions.insert(id, Hosted { group, moved: None, log });
                self.others.remove(&(group, id))
            }
        };
        if let Some(mut before) = before {
            before.drop_tail(&mut self.tail);
        }
    }

    /// Takes a partition that an entry of a group's log adopts; false if it is here already.
    ///
    /// # Panics
    ///
    /// Its state is none: a leader looked at it before it proposed the entry.
    pub(crate) fn adopt(
        &mut self,
        group: RaftGroupId,
        index: LogIndex,
        adoption: &Adoption,
    ) -> bool {
        let here = self.of(group, adoption.partition);
        if here.is_some_and(|log| log.origin().id >= adoption.id) {
            return false;
        }
        let origin = partition::Origin { index, id: adoption.id, epoch_base: adoption.epoch_base };
        let log = Partition::adopted(&adoption.state, origin).expect("a leader's adoption");
        self.restore(group, log);
        true
    }

    /// Takes a partition that an entry adopts of which `manifest` may know already, being younger
    /// than the snapshot under the log. Then the snapshot has the partition, or it has left since;
    /// but what the log has of an earlier stay of it ends here.
    pub(crate) fn adopt_again(
        &mut self,
        group: RaftGroupId,
        index: LogIndex,
        adoption: &Adoption,
        manifest: &Manifest,
    ) {
        if is_news(manifest, adoption) || self.of(group, adoption.partition).is_some() {
            self.adopt(group, index, adoption);
        }
    }

    /// Gives a partition what its group's log has of it since it was adopted: that was here, and
    /// went with what was dropped, since the metadata says that the partition has moved on.
    pub(crate) fn replay_after(
        &mut self,
        group: RaftGroupId,
        partition: PartitionId,
        entries: impl Iterator<Item = (LogIndex, Term, EntryDescriptor)>,
        committed: LogIndex,
    ) {
        let Some((log, _)) = self.of_mut(group, partition) else { return };
        for (index, term, batch) in entries.filter(|(_, _, it)| it.partition() == partition) {
            let taken = log.replay(index, term, &batch);
            taken.expect("entries follow one another in a partition");
        }
        log.committed(committed);
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
    ) -> Result<(), partition::ReplayError> {
        let id = descriptor.partition();
        let start = if compacted { descriptor.base_offset() } else { Offset::ZERO };
        // A broker that is behind may have dropped what went to another group, and hear from the
        // metadata that it has come back before the log says that it went.
        let was_made_anew = |log: &Partition| {
            log.log_end() == Offset::ZERO && log.origin() == partition::Origin::default()
        };
        if self.of(group, id).is_none_or(|log| start > Offset::ZERO && was_made_anew(log)) {
            self.restore(group, Partition::starting_at(id, start));
        }
        if let Some((log, _)) = self.of_mut(group, id) {
            log.replay(index, term, descriptor)?;
        }
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
        self.retain(|of, _| of != group);
        partitions.into_iter().for_each(|partition| self.restore(group, partition));
        let open = self.open.remove(&group).unwrap_or_default();
        open.into_iter().flat_map(|it| it.waiter.into_iter().chain(it.repeats)).collect()
    }

    /// The partitions of a group, in order of their numbers.
    pub(crate) fn partitions(&self, group: RaftGroupId) -> impl Iterator<Item = &Partition> {
        let here = self.partitions.values().filter(move |it| it.group == group).map(|it| &it.log);
        let others = self.others.range(all_of(group)).map(|(_, log)| log);
        let mut all = Vec::with_capacity(self.partitions.len());
        all.extend(here.chain(others));
        all.sort_unstable_by_key(|log| log.id());
        all.into_iter()
    }

    /// Lets go of a group's batches up to an entry: they are in the object store. Looks at `count`
    /// partitions from `first` on; returns where to go on, unless it is through.
    pub(crate) fn release_before(
        &mut self,
        group: RaftGroupId,
        index: LogIndex,
        first: PartitionId,
        count: usize,
    ) -> Option<PartitionId> {
        let mut here = self.partitions.range_mut(first..);
        for (_, hosted) in here.by_ref().take(count).filter(|(_, it)| it.group == group) {
            hosted.log.release_before(index, &mut self.tail);
        }
        if let Some((next, _)) = here.next() {
            return Some(*next);
        }
        for (_, log) in self.others.range_mut(all_of(group)) {
            log.release_before(index, &mut self.tail);
        }
        None
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
        self.retain(|of, log| of != group || log.origin().index < from);
        let is_replaced = |entry: &mut OpenEntry| entry.index >= from;
        while let Some(entry) = self.open.get_mut(&group).and_then(|it| it.pop_back_if(is_replaced))
        {
            waiters.extend(entry.waiter);
            waiters.extend(entry.repeats);
            if let Some((log, tail)) = self.of_mut(group, entry.partition) {
                log.truncate(from, tail).expect("raft never replaces a committed entry");
            }
        }
        waiters
    }

    /// Forgets producers that wrote nothing for `expiration_ms`.
    pub(crate) fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) {
        let here = self.partitions.values_mut().map(|hosted| &mut hosted.log);
        for log in here.chain(self.others.values_mut()) {
            log.expire_producers(now_ms, expiration_ms);
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
            let log = self.hosting.of_mut(group, entry.partition);
            if log.is_some_and(|(log, _)| log.committed(entry.index)) {
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
        if !self.tiers.contains(group) {
            return;
        }
        if let Some(entry) = entry_of(descriptor) {
            // A leader proposes what fits its log, and that is ours.
            let taken = self.hosting.recovered(group, index, term, &entry, true);
            taken.expect("entries follow one another in a partition");
            self.keep_for_readers(group, &entry, payload);
            if let Some(producer) = entry.producer() {
                self.refusals.forget(entry.partition(), producer.id);
            }
        } else {
            self.edit_appended(group, index, &payload);
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
        self.tiers[group].install(stored.manifest, stored.edited);
        // Some are younger than the snapshot, some have left since.
        let image = self.metadata.shared_image();
        for partition in self.place_partitions(&image) {
            self.wake_readers(partition);
        }
        self.heed_seals(group);
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
        if self.tiers.contains(group) {
            self.heed_seals(group);
        }
        if leader.is_some() {
            self.tell_unled_of(group);
        }
    }

    /// This broker does not lead a data group any more.
    fn step_down(&mut self, group: RaftGroupId) {
        self.tier_steps_down(group);
        self.moves.step_down(group);
        self.stop_coordinating(group);
        // What they wait for may be committed after all, or replaced: who leads will know. They
        // would hear of it only when this broker does, however long it is cut off.
        for waiter in self.hosting.take_waiters(group) {
            match waiter {
                Waiter::Client { origin, .. } => self.refuse_unled(group, None, origin),
                Waiter::Coordinator(_) => self.tell(waiter, Err(AppendRefused::NotLeader)),
            }
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

/// What a map by group has of one.
fn all_of(group: RaftGroupId) -> RangeInclusive<(RaftGroupId, PartitionId)> {
    (group, PartitionId::new(0))..=(group, PartitionId::new(u64::MAX))
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

#[cfg(test)]
#[path = "hosted_tests.rs"]
mod tests;
