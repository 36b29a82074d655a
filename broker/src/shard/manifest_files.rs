//! The state of each group as a file in the bucket, from which a cluster can be rebuilt: of data
//! groups now and then, of group 0 and of groups that partitions came to before anything is
//! offloaded that needs it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{LogIndex, RaftGroupId};
use s3_uploader::{FailPoint, Job, ManifestFile, Outcome, fail_point};

use super::Shard;
use super::metadata::METADATA_SHARD;
use super::tiers::JobOf;

/// How long a changed manifest may be missing from the bucket. Objects after it are found by their
/// names when a cluster is rebuilt, so this bounds work, not loss.
const FILE_INTERVAL: Duration = Duration::from_secs(300);
/// The same of the metadata, and of partitions that came from another group: no object is offloaded
/// before that is there.
const AWAITED_INTERVAL: Duration = Duration::from_secs(1);

/// One group's file in the bucket.
#[derive(Default)]
pub(super) struct File {
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

    fn end(&mut self, upto: LogIndex, stored: bool, now: Instant) {
        self.under_way = false;
        self.ended = Some(now);
        if stored {
            self.stored = self.stored.max(upto);
        }
    }

    /// What the newest one contains that this broker has stored since it started.
    pub(super) fn stored(&self) -> LogIndex {
        self.stored
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }
}

impl Shard {
    /// At the tick: group 0's file.
    pub(super) fn store_metadata_file(&mut self) {
        let (group, now) = (RaftGroupId::METADATA, self.now.instant);
        if let Some((upto, _)) = self.metadata_position()
            && self.tiers.metadata_file.is_due(upto, AWAITED_INTERVAL, now)
            && let Some((index, state)) = self.metadata_snapshot()
        {
            self.store_manifest_file(group, index, upto, state);
        }
    }

    /// At the tick: a data group's file.
    pub(super) fn store_file(&mut self, group: RaftGroupId) {
        let flushing = self.tiers.is_flushing();
        let tier = &self.tiers[group];
        let is_awaited = !tier.arrivals_are_stored();
        let interval = match (flushing, is_awaited) {
            (true, _) => Duration::ZERO,
            (false, true) => AWAITED_INTERVAL,
            (false, false) => FILE_INTERVAL,
        };
        let whole = !flushing || is_awaited || tier.offload.is_done();
        if whole
            && tier.upkeep.file.is_due(tier.edited, interval, self.now.instant)
            && self.groups_are_loaded(group)
        {
            self.store_data_file(group);
        }
    }

    pub(super) fn store_data_file(&mut self, group: RaftGroupId) {
        let index = self.tiers[group].offload.upto();
        let state = self.group_snapshot(group, index);
        let tier = &mut self.tiers[group];
        tier.upkeep.retired_then = tier.manifest.retired(i64::MAX).copied().collect();
        let edited = tier.edited;
        self.store_manifest_file(group, index, edited, state);
    }

    fn store_manifest_file(
        &mut self,
        group: RaftGroupId,
        index: LogIndex,
        upto: LogIndex,
        state: Bytes,
    ) {
        let Some(term) = self.log.leads(group) else { return };
        let cluster_id = self.node.cluster_id;
        // Every edit, and every command of group 0, gives a newer state its own number.
        let sequence = upto.get();
        let file = ManifestFile { cluster_id, group, term, index, sequence, state };
        if self.tiers.start(group, Job::PutManifest(file), JobOf::ManifestFile { upto }) {
            fail_point(FailPoint::ManifestBegun);
            self.file_of(group).under_way = true;
        }
    }

    pub(super) fn manifest_file_done(
        &mut self,
        group: RaftGroupId,
        upto: LogIndex,
        outcome: &Outcome,
    ) {
        // Another state of that number was stored by this broker before it started anew: it tells
        // of the same edits.
        let stored = matches!(outcome, Outcome::Stored | Outcome::Conflict);
        fail_point(FailPoint::ManifestStored);
        let now = self.now.instant;
        self.file_of(group).end(upto, stored, now);
        match stored {
            true if group == RaftGroupId::METADATA => self.metadata_stored(upto),
            true => self.tiers[group].upkeep.file_stored(),
            false => {}
        }
    }

    /// Everything is in the bucket that this broker has to bring there: records, manifests and
    /// metadata of the groups that it leads.
    pub(crate) fn tier_is_flushed(&self) -> bool {
        let follows = |group| self.log.leads(group).is_none();
        let metadata = self.metadata_position();
        let of_metadata = || {
            let stored = self.tiers.metadata_file.stored();
            metadata.is_none_or(|(upto, _)| stored >= upto)
        };
        self.tiers.iter().all(|(group, tier)| follows(group) || tier.is_flushed())
            && (follows(RaftGroupId::METADATA) || of_metadata())
    }

    /// What the newest file of a group contains that this broker has stored since it started.
    pub(super) fn stored_file(&self, group: RaftGroupId) -> LogIndex {
        if group == RaftGroupId::METADATA {
            self.tiers.metadata_file.stored()
        } else {
            self.tiers[group].upkeep.file.stored()
        }
    }

    fn file_of(&mut self, group: RaftGroupId) -> &mut File {
        if group == RaftGroupId::METADATA {
            &mut self.tiers.metadata_file
        } else {
            &mut self.tiers[group].upkeep.file
        }
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
}
