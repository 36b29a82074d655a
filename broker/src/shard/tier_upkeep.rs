//! What the object tier does beside offload: manifest files in the bucket, retention, and the
//! deletion of objects that nothing refers to.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{LogIndex, Offset, PartitionId, RaftGroupId};
use s3_uploader::{Edit, FailPoint, Job, ObjectName, Outcome, fail_point};

use super::Shard;
use super::call::Origin;
use super::message::{PartAnswer, TrimRefused};
use super::metadata::METADATA_SHARD;
use super::replicated_log::Refused;
use super::tier::JobOf;
use crate::metrics::Metric;

/// How long a changed manifest may be missing from the bucket. Objects after it are found by their
/// names when a cluster is rebuilt, so this bounds work, not loss.
const FILE_INTERVAL: Duration = Duration::from_secs(300);
/// How long the metadata may be missing from the bucket: no object is offloaded before it is there.
const METADATA_INTERVAL: Duration = Duration::from_secs(1);
/// Partitions whose log start moves in one round.
const TRIMMED_PER_ROUND: usize = 64;
/// Objects deleted in one request: what S3 takes.
const DELETED_PER_ROUND: usize = 1000;

/// One group's file in the bucket.
#[derive(Default)]
struct File {
    /// The newest one that is stored contains the edits (or commands) up to here.
    stored: LogIndex,
    under_way: bool,
    ended: Option<Instant>,
}

impl File {
    fn is_due(&self, upto: LogIndex, interval: Duration, now: Instant) -> bool {
        let rested = self.ended.is_none_or(|at| now.saturating_duration_since(at) >= interval);
        upto > self.stored && !self.under_way && rested
    }
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct TierUpkeep {
    data: File,
    metadata: File,
    /// What was retired when the state of the data group was taken for the file that is under way,
    /// and for the newest one in the bucket. These alone may be deleted: a cluster may be rebuilt
    /// from that file.
    retired_then: BTreeSet<ObjectName>,
    retired_in_file: BTreeSet<ObjectName>,
    deleting: bool,
    /// When this broker first could have deleted anything.
    led_since: Option<Instant>,
    flushing: bool,
    next_round: Option<Instant>,
}

impl TierUpkeep {
    pub(super) fn file_started(&mut self, group: RaftGroupId) {
        self.file(group).under_way = true;
    }

    pub(super) fn file_ended(
        &mut self,
        group: RaftGroupId,
        upto: LogIndex,
        stored: bool,
        now: Instant,
    ) {
        let file = self.file(group);
        file.under_way = false;
        file.ended = Some(now);
        if stored {
            file.stored = file.stored.max(upto);
        }
        if stored && group != RaftGroupId::METADATA {
            self.retired_in_file = std::mem::take(&mut self.retired_then);
        }
    }

    /// Another broker looks after the objects from now on. What it deletes is not known here.
    pub(super) fn step_down(&mut self) {
        self.led_since = None;
        self.retired_then.clear();
        self.retired_in_file.clear();
    }

    /// The broker stops: nothing new is begun.
    pub(super) fn is_flushing(&self) -> bool {
        self.flushing
    }

    /// The number of the newest file of a group that this broker has stored since it started.
    pub(super) fn stored_file(&self, group: RaftGroupId) -> LogIndex {
        let is_metadata = group == RaftGroupId::METADATA;
        if is_metadata { self.metadata.stored } else { self.data.stored }
    }

    fn file(&mut self, group: RaftGroupId) -> &mut File {
        if group == RaftGroupId::METADATA { &mut self.metadata } else { &mut self.data }
    }
}

impl Shard {
    /// Does what is due; called at the tick.
    pub(crate) fn keep_tier(&mut self) {
        self.store_files();
        self.compact_idle();
        if !self.tier.upkeep.flushing && self.groups_are_loaded() {
            self.merge_on();
            self.sweep_on();
        }
        let now = self.now.instant;
        let interval = self.node.settings.broker.retention_check_interval;
        if self.tier.upkeep.next_round.is_some_and(|at| now < at) || !self.groups_are_loaded() {
            return;
        }
        self.tier.upkeep.next_round = Some(now + interval);
        if self.log.has_caught_up(self.data_group()) {
            self.drop_deleted_partitions();
            self.apply_retention();
            self.delete_retired();
        }
    }

    fn store_files(&mut self) {
        let now = self.now.instant;
        let flushing = self.tier.upkeep.flushing;
        if let Some((upto, _)) = self.metadata_position()
            && self.tier.upkeep.metadata.is_due(upto, METADATA_INTERVAL, now)
            && let Some((index, state)) = self.metadata_snapshot()
        {
            self.store_manifest_file(RaftGroupId::METADATA, index, upto, state);
        }
        let edited = self.tier.edited;
        let interval = if flushing { Duration::ZERO } else { FILE_INTERVAL };
        let whole = !flushing || self.tier.offload.is_done();
        if whole && self.tier.upkeep.data.is_due(edited, interval, now) && self.groups_are_loaded()
        {
            self.store_data_file(edited);
        }
    }

    fn store_data_file(&mut self, edited: LogIndex) {
        let index = self.tier.offload.upto();
        let state = self.group_snapshot(index);
        self.tier.upkeep.retired_then = self.tier.manifest.retired(i64::MAX).copied().collect();
        self.store_manifest_file(self.data_group(), index, edited, state);
    }

    /// Forgets the objects of partitions whose topics are deleted.
    fn drop_deleted_partitions(&mut self) {
        let hosting = &self.hosting;
        let gone: Vec<PartitionId> =
            self.tier.manifest.partitions().filter(|id| hosting.get(*id).is_none()).collect();
        if !gone.is_empty() {
            // Refused only by a full log: then the next round does it.
            let _ = self.propose_edit(&Edit::Dropped { partitions: gone });
        }
    }

    /// Moves log starts as the topics' `retention.ms` and `retention.bytes` say, by whole extents.
    fn apply_retention(&mut self) {
        let mut moves = Vec::new();
        for topic in self.metadata.image().topics() {
            let config = &topic.config;
            if !config.cleanup_policy.delete || topic.internal {
                continue;
            }
            for partition in &topic.partitions {
                let Some(log) = self.hosting.get(partition.id) else { continue };
                let oldest = (config.retention_ms >= 0)
                    .then(|| self.now.unix_ms.saturating_sub(config.retention_ms));
                let bytes = u64::try_from(config.retention_bytes).ok();
                let start = self.tier.manifest.retained_from(partition.id, oldest, bytes);
                if let Some(offset) = start.filter(|offset| *offset > log.log_start()) {
                    moves.push((partition.id, offset.min(log.high_watermark())));
                }
            }
        }
        for (partition, offset) in moves.into_iter().take(TRIMMED_PER_ROUND) {
            let _ = self.propose_edit(&Edit::LogStart { partition, offset });
        }
    }

    /// Deletes objects that nothing has referred to for the grace period. The bucket's newest
    /// manifest file must know them as retired too. The period counts at least from this broker's
    /// start: neither the time that it was down nor a clock that is set anew shortens it.
    fn delete_retired(&mut self) {
        let grace = self.node.settings.broker.object_delete_grace;
        let now = self.now.instant;
        let led_since = *self.tier.upkeep.led_since.get_or_insert(now);
        if now.saturating_duration_since(led_since) < grace {
            return;
        }
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let before = self.now.unix_ms.saturating_sub(grace_ms);
        let upkeep = &self.tier.upkeep;
        if upkeep.deleting {
            return;
        }
        let mut retired = self.tier.manifest.retired(before).peekable();
        let some = retired.peek().is_some();
        let known = retired.filter(|object| upkeep.retired_in_file.contains(object));
        let objects: Vec<_> = known.take(DELETED_PER_ROUND).copied().collect();
        if !objects.is_empty() {
            let keys = objects.iter().map(ToString::to_string).collect();
            self.tier.upkeep.deleting =
                self.tier.start(Job::Delete(keys), JobOf::Deletion(objects));
            fail_point(FailPoint::DeleteBegun);
        } else if some && !upkeep.data.under_way {
            self.store_data_file(self.tier.edited);
        }
    }

    pub(super) fn deletion_done(&mut self, objects: Vec<ObjectName>, outcome: &Outcome) {
        self.tier.upkeep.deleting = false;
        if matches!(outcome, Outcome::Deleted) {
            fail_point(FailPoint::DeleteDone);
            self.metrics.add(Metric::TierObjectsDeleted, objects.len() as u64);
            let _ = self.propose_edit(&Edit::Removed { objects });
        }
    }

    /// Begins to offload all that there is: the broker stops.
    pub(crate) fn flush_tier(&mut self) {
        if !self.tier.upkeep.flushing {
            self.tier.upkeep.flushing = true;
            self.tier.offload.flush();
        }
    }

    /// Everything is in the bucket that this broker has to bring there: records, manifest and
    /// metadata of the groups that it leads.
    pub(crate) fn tier_is_flushed(&self) -> bool {
        let upkeep = &self.tier.upkeep;
        let metadata = self.metadata_position();
        let follows = |group| self.log.leads(group).is_none();
        let data = || self.tier.offload.is_done() && upkeep.data.stored >= self.tier.edited;
        (follows(self.data_group()) || data())
            && (follows(RaftGroupId::METADATA)
                || metadata.is_none_or(|(upto, _)| upkeep.metadata.stored >= upto))
    }

    /// Index of the last command that changed the metadata and of the last one applied, on the
    /// shard that hosts it.
    fn metadata_position(&self) -> Option<(LogIndex, LogIndex)> {
        let position = self.metadata.position()?;
        debug_assert_eq!(self.id, METADATA_SHARD);
        Some(position)
    }

    /// State of group 0 and the index that it is of.
    pub(super) fn metadata_snapshot(&self) -> Option<(LogIndex, Bytes)> {
        self.metadata.snapshot()
    }

    /// Sets where a partition's records begin, because a client asks for it; answers when a
    /// majority holds that durably.
    pub(crate) fn delete_records(
        &mut self,
        origin: Origin,
        id: PartitionId,
        before: Option<Offset>,
    ) {
        if let Err(refused) = self.try_delete_records(origin, id, before) {
            self.answer(origin, PartAnswer::Trimmed(Err(refused)));
        }
    }

    fn try_delete_records(
        &mut self,
        origin: Origin,
        id: PartitionId,
        before: Option<Offset>,
    ) -> Result<(), TrimRefused> {
        if self.log.leads(self.data_group()).is_none() || !self.has_quorum() {
            return Err(TrimRefused::NotLeader);
        }
        let log = self.hosting.get(id).ok_or(TrimRefused::UnknownPartition)?;
        let offset = before.unwrap_or_else(|| log.high_watermark());
        if offset > log.high_watermark() || offset < Offset::ZERO {
            return Err(TrimRefused::OutOfRange);
        }
        if offset <= log.log_start() {
            let answer = PartAnswer::Trimmed(Ok(log.log_start()));
            self.answer(origin, answer);
            return Ok(());
        }
        let index = self.propose_edit(&Edit::LogStart { partition: id, offset })?;
        self.tier.await_edit(index, origin, offset);
        Ok(())
    }
}

impl From<Refused> for TrimRefused {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotLeader => Self::NotLeader,
            Refused::TooLarge | Refused::Full | Refused::Behind => Self::Full,
        }
    }
}
