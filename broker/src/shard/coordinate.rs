//! The consumer groups of a shard: requests to the coordinator, its records into
//! `__consumer_offsets`, and those records back into it after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka_wire::batch::Batches;
use kafka_wire::records::{RecordBatchBuilder, Records};
use kafka_wire::validate::{ValidationRules, validate};
use model::{PartitionId, RaftGroupId, Term};
use replication::CommittedEntry;

use super::Shard;
use super::call::Origin;
use super::group_snapshot::GroupRecords;
use super::hosted::{Waiter, entry_of};
use super::message::{Append, AppendRefused, PartAnswer};
use crate::cluster::{CONSUMER_OFFSETS, Image};
use crate::group::{
    self, AppendFailed, AppendToken, Coordinator, GroupConfig, GroupError, GroupRequest, Output,
    ReplyToken,
};
use crate::metrics::Metric;

/// See the module's text.
pub(crate) struct Groups {
    coordinator: Coordinator,
    /// Calls that wait for a reply, by token.
    waiting: BTreeMap<ReplyToken, Origin>,
    next_token: u64,
    /// The partitions of `__consumer_offsets` that are here, with their index and raft group.
    partitions: BTreeMap<PartitionId, (i32, RaftGroupId)>,
    /// Those whose records are still to be loaded, by raft group, since a group that another broker
    /// leads keeps its own here, and this is looked through at each commit.
    loading: BTreeMap<RaftGroupId, BTreeSet<i32>>,
    /// Records of snapshots, by partition; loaded before the entries after them.
    stored: Vec<(RaftGroupId, PartitionId, GroupRecords)>,
    /// Entries that cannot be read until the metadata image says what they are.
    deferred: Vec<(RaftGroupId, CommittedEntry)>,
    /// Where the coordinator's monotonic clock has its zero.
    started: Instant,
}

impl Groups {
    /// `stored`: what the snapshots of data groups have.
    pub(crate) fn new(
        config: GroupConfig,
        stored: Vec<(RaftGroupId, PartitionId, GroupRecords)>,
        now: Instant,
    ) -> Self {
        Self {
            coordinator: Coordinator::new(config),
            waiting: BTreeMap::new(),
            next_token: 0,
            partitions: BTreeMap::new(),
            loading: BTreeMap::new(),
            stored,
            deferred: Vec::new(),
            started: now,
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.coordinator.deadline()?;
        Some(self.started + Duration::from_millis(deadline))
    }

    /// Keeps what the coordinator has to load once the metadata image is there: all but its own
    /// records, which are those of the term in which this broker leads.
    pub(crate) fn defer(
        &mut self,
        group: RaftGroupId,
        entries: Vec<CommittedEntry>,
        led: Option<Term>,
    ) {
        let wanted = |entry: &CommittedEntry| {
            Some(entry.term) != led
                && entry.payload.is_some()
                && entry.descriptor.as_ref().is_some_and(|descriptor| descriptor.resident)
        };
        self.deferred.extend(entries.into_iter().filter(wanted).map(|entry| (group, entry)));
    }

    /// Index of each partition of `__consumer_offsets` in a raft group.
    fn indexes(&self, group: RaftGroupId) -> Vec<i32> {
        let here = self.partitions.values().filter(|(_, of)| *of == group);
        here.map(|(index, _)| *index).collect()
    }

    /// The partition with an index, if it is here, and its raft group.
    fn place_of(&self, index: i32) -> Option<(PartitionId, RaftGroupId)> {
        let mut hosted = self.partitions.iter();
        hosted.find(|(_, (found, _))| *found == index).map(|(id, (_, group))| (*id, *group))
    }
}

impl Shard {
    fn group_now(&self) -> group::Now {
        let elapsed = self.now.instant.saturating_duration_since(self.groups.started);
        let monotonic_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        group::Now { monotonic_ms, unix_ms: self.now.unix_ms }
    }

    /// Serves a request to one consumer group.
    pub(crate) fn serve_group(&mut self, origin: Origin, request: GroupRequest) {
        let index = self.groups.coordinator.partition_of(&request.group);
        let place = self.groups.place_of(index);
        if place.and_then(|(_, group)| self.log.leads(group)).is_none() {
            let response = request.refused(GroupError::NotCoordinator);
            return self.answer(origin, PartAnswer::Group(Box::new(response)));
        }
        let now = self.group_now();
        self.groups.next_token += 1;
        let token = ReplyToken(self.groups.next_token);
        self.groups.waiting.insert(token, origin);
        let random = &self.random;
        self.groups.coordinator.handle(now, token, request, &mut || random.uuid());
    }

    /// Does what the coordinator asks for; false if it asked for nothing.
    pub(crate) fn drain_group_output(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.groups.coordinator.poll_output() {
            any = true;
            match output {
                Output::Reply { token, response } => {
                    if let Some(origin) = self.groups.waiting.remove(&token) {
                        self.answer(origin, PartAnswer::Group(Box::new(response)));
                    }
                }
                Output::Append { partition, records, token } => {
                    if let Err(failed) = self.append_group_records(partition, &records, token) {
                        self.coordinator_appended(token, Err(failed));
                    }
                }
            }
        }
        any
    }

    fn append_group_records(
        &mut self,
        index: i32,
        records: &[(bytes::Bytes, Option<bytes::Bytes>)],
        token: AppendToken,
    ) -> Result<(), AppendFailed> {
        let (partition, _) = self.groups.place_of(index).ok_or(AppendFailed::NotLeader)?;
        let mut builder = RecordBatchBuilder::new();
        for (key, value) in records {
            builder.append(self.now.unix_ms, Some(key), value.as_deref(), &[]);
        }
        let mut batch = builder.build();
        let rules = ValidationRules { now_ms: self.now.unix_ms, ..ValidationRules::default() };
        let info = validate(&mut batch, &rules).map_err(|_| AppendFailed::TooLarge)?;
        let append = Append { partition, batch, info, in_sync_min: 0 };
        self.try_append(append, true, |_| Waiter::Coordinator(token)).map_err(append_failed)
    }

    pub(crate) fn coordinator_appended(
        &mut self,
        token: AppendToken,
        result: Result<(), AppendFailed>,
    ) {
        let now = self.group_now();
        self.groups.coordinator.appended(now, token, result);
    }

    pub(crate) fn groups_deadline(&mut self) {
        let now = self.group_now();
        if self.groups.coordinator.deadline().is_some_and(|at| at <= now.monotonic_ms) {
            self.groups.coordinator.handle_deadline(now);
        }
    }

    /// Takes over the partitions of `__consumer_offsets` that a new image puts here.
    pub(crate) fn coordinate(&mut self, partitions: BTreeMap<PartitionId, (i32, RaftGroupId)>) {
        if let Some(topic) = self.metadata.image().topic(CONSUMER_OFFSETS) {
            self.groups.coordinator.set_partition_count(topic.partition_count());
        }
        let old = std::mem::replace(&mut self.groups.partitions, partitions);
        let groups = &mut self.groups;
        for (id, (index, group)) in &old {
            if !groups.partitions.contains_key(id) {
                groups.coordinator.unload(*index);
                groups.loading.entry(*group).or_default().remove(index);
            }
        }
        for (id, (index, group)) in &groups.partitions {
            if !old.contains_key(id) {
                groups.coordinator.begin_load(*index);
                groups.loading.entry(*group).or_default().insert(*index);
            }
        }
    }

    /// Gives the coordinator what the log held, then lets it serve where this broker leads.
    pub(crate) fn load_offsets(&mut self) {
        if !self.metadata.is_ready() {
            return;
        }
        let groups = &mut self.groups;
        let image = self.metadata.image();
        for (group, partition, records) in std::mem::take(&mut groups.stored) {
            if let Some((index, _)) = groups.partitions.get(&partition).copied() {
                for (key, value) in records {
                    groups.coordinator.load(index, &key, Some(&value));
                }
            } else if !image.has_had(partition) {
                groups.stored.push((group, partition, records));
            }
        }
        for (group, entry) in std::mem::take(&mut groups.deferred) {
            let Some(described) = entry.descriptor.as_ref().and_then(entry_of) else { continue };
            let index = groups.partitions.get(&described.partition()).copied();
            if let (Some((index, _)), Some(payload)) = (index, &entry.payload) {
                load(&mut groups.coordinator, index, payload);
            } else if !image.has_had(described.partition()) {
                groups.deferred.push((group, entry));
            }
        }
        if let Some((count, _)) = self.groups.coordinator.load_fault() {
            self.metrics.set(Metric::GroupLoadFaults, count);
        }
        let now = self.group_now();
        let is_led = |group: &RaftGroupId, _: &mut _| self.log.has_caught_up(*group);
        let led: Vec<_> = self.groups.loading.extract_if(.., is_led).collect();
        for index in led.into_iter().flat_map(|(_, indexes)| indexes) {
            self.groups.coordinator.end_load(now, index);
        }
    }

    /// This broker leads a group no more: the coordinator goes back to what is committed there, and
    /// follows.
    pub(super) fn stop_coordinating(&mut self, group: RaftGroupId) {
        for index in self.groups.indexes(group) {
            let records = self.groups.coordinator.dump(index);
            self.groups.coordinator.unload(index);
            self.load_anew(group, index, records);
        }
    }

    /// The consumer groups of a raft group are those of a snapshot.
    pub(super) fn install_offsets(
        &mut self,
        group: RaftGroupId,
        stored: Vec<(PartitionId, GroupRecords)>,
    ) {
        for index in self.groups.indexes(group) {
            self.groups.coordinator.unload(index);
            self.load_anew(group, index, Vec::new());
        }
        self.groups.deferred.retain(|(of, _)| *of != group);
        self.groups.stored.retain(|(of, ..)| *of != group);
        let stored = stored.into_iter().map(|(partition, records)| (group, partition, records));
        self.groups.stored.extend(stored);
        self.load_offsets();
    }

    fn load_anew(&mut self, group: RaftGroupId, index: i32, records: GroupRecords) {
        let groups = &mut self.groups;
        groups.coordinator.begin_load(index);
        for (key, value) in records {
            groups.coordinator.load(index, &key, Some(&value));
        }
        groups.loading.entry(group).or_default().insert(index);
    }

    /// Everything that the log of a raft group held of consumer groups is loaded.
    pub(super) fn groups_are_loaded(&self, group: RaftGroupId) -> bool {
        let groups = &self.groups;
        let follows = self.log.leads(group).is_none();
        self.metadata.is_ready()
            && (follows || groups.loading.get(&group).is_none_or(BTreeSet::is_empty))
            && groups.deferred.iter().all(|(of, _)| *of != group)
            && groups.stored.iter().all(|(of, ..)| *of != group)
    }

    /// What a snapshot of a raft group keeps of the consumer groups there.
    pub(super) fn offsets_records(&self, group: RaftGroupId) -> Vec<(PartitionId, GroupRecords)> {
        let groups = &self.groups;
        let here = groups.partitions.iter().filter(|(_, (_, of))| *of == group);
        let records = here.map(|(id, (index, _))| (*id, groups.coordinator.dump(*index)));
        records.filter(|(_, records)| !records.is_empty()).collect()
    }

    /// Drops the committed offsets of topics that the new image does not have any more.
    pub(crate) fn forget_deleted_topics(&mut self, old: &Image) {
        let image = self.metadata.image();
        let deleted: Vec<_> = old
            .topics()
            .filter(|topic| image.topic_by_id(topic.id).is_none())
            .map(|topic| (topic.name.clone(), topic.id))
            .collect();
        if !deleted.is_empty() {
            let now = self.group_now();
            self.groups.coordinator.topics_deleted(now, &deleted);
        }
    }
}

/// Replays one batch of `__consumer_offsets`.
pub(crate) fn load(coordinator: &mut Coordinator, partition: i32, batch: &[u8]) {
    for batch in Batches::new(batch) {
        let Ok(records) = Records::new(batch) else { continue };
        for record in records.iter().map_while(Result::ok) {
            if let Some(key) = record.key {
                coordinator.load(partition, key, record.value);
            }
        }
    }
}

pub(crate) fn append_failed(refused: AppendRefused) -> AppendFailed {
    match refused {
        AppendRefused::NotLeader | AppendRefused::UnknownPartition => AppendFailed::NotLeader,
        AppendRefused::TooLarge | AppendRefused::NotABatch => AppendFailed::TooLarge,
        AppendRefused::Full
        | AppendRefused::Behind
        | AppendRefused::NotInSync
        | AppendRefused::OutOfOrderSequence
        | AppendRefused::InvalidProducerEpoch
        | AppendRefused::OpenTransaction => AppendFailed::Unavailable,
    }
}
