//! The object tier of a data group: its manifest, and what is done to it. The jobs that the store's
//! thread has from a shard are in `tiers.rs`.
//!
//! **Invariant**: the manifest changes only by committed entries of the group's log, in their
//! order.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{LogIndex, Offset, RaftGroupId};
use replication::{AppBytes, CommittedEntry, Descriptor};
use s3_uploader::{Edit, FailPoint, Manifest, fail_point};

use super::Shard;
use super::call::Origin;
use super::merge::Merging;
use super::message::{PartAnswer, TrimRefused};
use super::offload::Offload;
use super::replicated_log::{Claim, Refused};
use super::sweep::Sweep;
use super::tier_upkeep::TierUpkeep;
use crate::metrics::Metric;
use crate::partition::{KIND_EDIT, entry_kind};

/// See the module's text.
pub(crate) struct Tier {
    pub(super) manifest: Manifest,
    /// The last entry whose edit the manifest contains.
    pub(super) edited: LogIndex,
    /// The last of those that brought a partition from another group, or a later one.
    adopted: LogIndex,
    pub(super) offload: Offload,
    /// Bytes of the last snapshot that stood for the log; 0 before the first since the start.
    pub(super) snapshot_size: u64,
    pub(super) upkeep: TierUpkeep,
    pub(super) merging: Merging,
    pub(super) sweep: Sweep,
    /// Who waits until a log start has moved, by the index of the edit.
    waiting: BTreeMap<LogIndex, (Origin, Offset)>,
}

impl Tier {
    pub(crate) fn new(manifest: Manifest, edited: LogIndex) -> Self {
        Self {
            offload: Offload::new(manifest.offloaded_upto()),
            adopted: adopted_by(&manifest, edited),
            manifest,
            edited,
            snapshot_size: 0,
            upkeep: TierUpkeep::default(),
            merging: Merging::default(),
            sweep: Sweep::default(),
            waiting: BTreeMap::new(),
        }
    }

    /// Takes the state of a snapshot in place of what there is.
    pub(super) fn install(&mut self, manifest: Manifest, edited: LogIndex) {
        self.offload.install(manifest.offloaded_upto());
        self.adopted = adopted_by(&manifest, edited);
        self.manifest = manifest;
        self.edited = edited;
    }

    /// Does a file that this broker has stored know of all partitions that came from other groups?
    /// Whoever rebuilds the cluster from the bucket finds the objects of this group by their names,
    /// but from that file alone how a partition came to be in them.
    pub(super) fn arrivals_are_stored(&self) -> bool {
        self.upkeep.file.stored() >= self.adopted
    }

    /// Objects in the bucket, those that nothing refers to any more included.
    pub(super) fn object_count(&self) -> u64 {
        let totals = self.manifest.totals();
        (totals.live_count + totals.retired_count) as u64
    }

    /// Their bytes.
    pub(super) fn size(&self) -> u64 {
        let totals = self.manifest.totals();
        totals.live_size + totals.retired_size
    }

    /// See `SimBroker::store_arrivals_late`.
    #[cfg(feature = "simulation")]
    pub(super) fn forget_arrivals(&mut self) {
        self.adopted = LogIndex::default();
    }

    /// Everything is in the bucket that the group's leader has to bring there.
    pub(super) fn is_flushed(&self) -> bool {
        self.offload.is_done() && self.upkeep.file.stored() >= self.edited
    }

    /// Lets a call hear when the log start is moved to `start` by the edit at `index`.
    pub(super) fn await_edit(&mut self, index: LogIndex, origin: Origin, start: Offset) {
        self.waiting.insert(index, (origin, start));
    }
}

/// What can be said of a manifest that was read back.
fn adopted_by(manifest: &Manifest, edited: LogIndex) -> LogIndex {
    if manifest.arrivals().next().is_some() { edited } else { LogIndex::default() }
}

impl Shard {
    /// This broker leads a data group no more: what it was about to say of objects is the new
    /// leader's to say, and what it stored unsaid is found and removed as an orphan.
    pub(super) fn tier_steps_down(&mut self, group: RaftGroupId) {
        self.tiers[group].offload.step_down(self.now.instant);
        self.tiers[group].merging.step_down();
        self.tiers[group].upkeep.step_down();
        for (_, (origin, _)) in std::mem::take(&mut self.tiers[group].waiting) {
            self.answer(origin, PartAnswer::Trimmed(Err(TrimRefused::NotLeader)));
        }
    }

    /// Proposes a change of the manifest. It is made when the entry is applied.
    pub(super) fn propose_edit(
        &mut self,
        group: RaftGroupId,
        edit: &Edit,
    ) -> Result<LogIndex, Refused> {
        let payload = edit.encode(self.now.unix_ms);
        let kind = AppBytes::new(&[KIND_EDIT]).expect("one byte fits");
        let descriptor = Descriptor::of(&payload, true, kind).ok_or(Refused::TooLarge)?;
        let (_, index) = self.log.propose(group, Claim::Edit, descriptor, payload)?;
        Ok(index)
    }

    /// Applies the edits among committed entries.
    pub(super) fn apply_edits(&mut self, group: RaftGroupId, entries: &[CommittedEntry]) {
        for entry in entries {
            let kind = entry.descriptor.as_ref().and_then(|found| entry_kind(&found.app));
            let Some(payload) = entry.payload.as_ref().filter(|_| kind == Some(KIND_EDIT)) else {
                continue;
            };
            if entry.index > self.tiers[group].edited {
                self.apply_edit(group, entry.index, payload);
            } else {
                self.repeat_edit(group, entry.index, payload);
            }
            if let Some((origin, start)) = self.tiers[group].waiting.remove(&entry.index) {
                self.answer(origin, PartAnswer::Trimmed(Ok(start)));
            }
        }
    }

    /// An edit that the manifest of the snapshot contains already. The partitions of that snapshot
    /// are as they were some entries before it, so a log start may have to be moved again.
    fn repeat_edit(&mut self, group: RaftGroupId, index: LogIndex, payload: &Bytes) {
        let (edit, _) = Edit::decode(payload).expect("a committed edit is well formed");
        match edit {
            Edit::LogStart { partition, offset } => self.log_start_moved(group, partition, offset),
            // One that has come back since is that of the snapshot.
            Edit::Lent { partition, .. }
                if self.tiers[group].manifest.arrival(partition).is_none() =>
            {
                self.lent(group, index, partition);
            }
            _ => {}
        }
    }

    fn apply_edit(&mut self, group: RaftGroupId, index: LogIndex, payload: &Bytes) {
        // Raft checked the payload against its descriptor: it is what a leader encoded.
        let (edit, proposed_ms) = Edit::decode(payload).expect("a committed edit is well formed");
        self.tiers[group].edited = index;
        if self.tiers[group].manifest.apply(&edit, proposed_ms).is_err() {
            // Proposed on a state that an edit before it has changed: it is void, everywhere.
            self.metrics.add(Metric::TierEditsVoid, 1);
            self.offload_void(group, &edit);
            if let Edit::Merged { object, .. } = &edit {
                self.merge_ended(group, object);
            }
            return;
        }
        match edit {
            Edit::Offloaded { upto, .. } => self.offloaded(group, upto),
            Edit::LogStart { partition, offset } => {
                fail_point(FailPoint::LogStartApplied);
                self.log_start_moved(group, partition, offset);
            }
            Edit::Merged { object, .. } => self.merge_ended(group, &object),
            Edit::Removed { .. } => fail_point(FailPoint::DeleteApplied),
            Edit::Sealed { partition, .. } | Edit::Unsealed { partition } => {
                self.heed_seal(group, partition);
            }
            Edit::Adopted(adoption) => {
                self.tiers[group].adopted = index;
                self.adopted(group, index, &adoption);
            }
            Edit::Lent { partition, .. } => self.lent(group, index, partition),
            Edit::Dropped { .. } | Edit::Released { .. } => {}
        }
    }
}
