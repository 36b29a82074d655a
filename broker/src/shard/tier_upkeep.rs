//! What the object tier does beside offload: retention, and the deletion of objects that nothing
//! refers to.

use std::collections::BTreeSet;
use std::time::Instant;

use model::{Offset, PartitionId, RaftGroupId};
use s3_uploader::{Edit, FailPoint, Job, ObjectName, Outcome, fail_point};

use super::Shard;
use super::call::Origin;
use super::manifest_files::File;
use super::message::{PartAnswer, TrimRefused};
use super::replicated_log::Refused;
use super::tiers::JobOf;
use crate::metrics::Metric;

/// Partitions whose log start moves in one round.
const TRIMMED_PER_ROUND: usize = 64;
/// Objects deleted in one request: what S3 takes.
const DELETED_PER_ROUND: usize = 1000;

/// See the module's text.
#[derive(Default)]
pub(crate) struct TierUpkeep {
    /// The group's file in the bucket.
    pub(super) file: File,
    /// What was retired when the state of the group was taken for the file that is under way, and
    /// for the newest one in the bucket. These alone may be deleted: a cluster may be rebuilt from
    /// that file.
    pub(super) retired_then: BTreeSet<ObjectName>,
    retired_in_file: BTreeSet<ObjectName>,
    deleting: bool,
    /// When this broker first could have deleted anything.
    led_since: Option<Instant>,
    next_round: Option<Instant>,
}

impl TierUpkeep {
    /// The file that was under way is the newest one in the bucket.
    pub(super) fn file_stored(&mut self) {
        self.retired_in_file = std::mem::take(&mut self.retired_then);
    }

    /// Another broker looks after the objects from now on. What it deletes is not known here.
    pub(super) fn step_down(&mut self) {
        self.led_since = None;
        self.retired_then.clear();
        self.retired_in_file.clear();
    }
}

impl Shard {
    /// Does what is due; called at the tick.
    pub(crate) fn keep_tiers(&mut self) {
        self.store_metadata_file();
        let groups = self.tiers.groups();
        groups.iter().for_each(|group| self.keep_tier(*group));
        self.compact_idle_metadata();
    }

    fn keep_tier(&mut self, group: RaftGroupId) {
        self.store_file(group);
        self.compact_idle(group);
        if !self.groups_are_loaded(group) {
            return;
        }
        if !self.tiers.is_flushing() {
            self.merge_on(group);
            self.sweep_on(group);
        }
        let now = self.now.instant;
        let upkeep = &mut self.tiers[group].upkeep;
        if upkeep.next_round.is_some_and(|at| now < at) {
            return;
        }
        upkeep.next_round = Some(now + self.node.settings.broker.retention_check_interval);
        if self.log.has_caught_up(group) {
            self.let_go_of_partitions(group);
            self.apply_retention(group);
            self.delete_retired(group);
        }
    }

    /// Moves log starts as the topics' `retention.ms` and `retention.bytes` say, by whole extents.
    fn apply_retention(&mut self, group: RaftGroupId) {
        let mut moves = Vec::new();
        for topic in self.metadata.image().topics() {
            let config = &topic.config;
            if !config.cleanup_policy.delete || topic.internal {
                continue;
            }
            for partition in topic.partitions.iter().filter(|it| self.is_at_home(group, it.id)) {
                let log = self.hosting.of(group, partition.id);
                let Some(log) = log.filter(|log| !log.is_sealed()) else { continue };
                let oldest = (config.retention_ms >= 0)
                    .then(|| self.now.unix_ms.saturating_sub(config.retention_ms));
                let bytes = u64::try_from(config.retention_bytes).ok();
                let start = self.tiers[group].manifest.retained_from(partition.id, oldest, bytes);
                if let Some(offset) = start.filter(|offset| *offset > log.log_start()) {
                    moves.push((partition.id, offset.min(log.high_watermark())));
                }
            }
        }
        for (partition, offset) in moves.into_iter().take(TRIMMED_PER_ROUND) {
            let _ = self.propose_edit(group, &Edit::LogStart { partition, offset });
        }
    }

    /// Deletes objects that nothing has referred to for the grace period. The bucket's newest
    /// manifest file must know them as retired too. The period counts at least from this broker's
    /// start: neither the time that it was down nor a clock that is set anew shortens it.
    fn delete_retired(&mut self, group: RaftGroupId) {
        let grace = self.node.settings.broker.object_delete_grace;
        let now = self.now.instant;
        let led_since = *self.tiers[group].upkeep.led_since.get_or_insert(now);
        if now.saturating_duration_since(led_since) < grace {
            return;
        }
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let before = self.now.unix_ms.saturating_sub(grace_ms);
        let upkeep = &self.tiers[group].upkeep;
        if upkeep.deleting {
            return;
        }
        let mut retired = self.tiers[group].manifest.retired(before).peekable();
        let some = retired.peek().is_some();
        let known = retired.filter(|object| upkeep.retired_in_file.contains(object));
        let objects: Vec<_> = known.take(DELETED_PER_ROUND).copied().collect();
        if !objects.is_empty() {
            let keys = objects.iter().map(ToString::to_string).collect();
            self.tiers[group].upkeep.deleting =
                self.tiers.start(group, Job::Delete(keys), JobOf::Deletion(objects));
            fail_point(FailPoint::DeleteBegun);
        } else if some && !upkeep.file.is_under_way() {
            self.store_data_file(group);
        }
    }

    pub(super) fn deletion_done(
        &mut self,
        group: RaftGroupId,
        objects: Vec<ObjectName>,
        outcome: &Outcome,
    ) {
        self.tiers[group].upkeep.deleting = false;
        if matches!(outcome, Outcome::Deleted) {
            fail_point(FailPoint::DeleteDone);
            self.metrics.add(Metric::TierObjectsDeleted, objects.len() as u64);
            let _ = self.propose_edit(group, &Edit::Removed { objects });
        }
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
        let (group, log) = self.hosting.find(id).ok_or(TrimRefused::UnknownPartition)?;
        let leads = self.log.leads(group).is_some() && self.has_quorum(group);
        if !leads || log.is_sealed() || !self.is_at_home(group, id) {
            return Err(TrimRefused::NotLeader);
        }
        let offset = before.unwrap_or_else(|| log.high_watermark());
        if offset > log.high_watermark() || offset < Offset::ZERO {
            return Err(TrimRefused::OutOfRange);
        }
        if offset <= log.log_start() {
            let answer = PartAnswer::Trimmed(Ok(log.log_start()));
            self.answer(origin, answer);
            return Ok(());
        }
        let index = self.propose_edit(group, &Edit::LogStart { partition: id, offset })?;
        self.tiers[group].await_edit(index, origin, offset);
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
