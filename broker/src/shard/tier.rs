//! The object tier of a shard: its data group's manifest, and the jobs that the store's thread has
//! from it. A shard never waits for the store: jobs go into a bounded queue, replies come out of
//! one.
//!
//! **Invariant**: the manifest changes only by committed entries of the group's log, in their
//! order.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use model::{LogIndex, Offset, RaftGroupId};
use replication::{AppBytes, CommittedEntry, Descriptor};
use s3_uploader::{
    Client, Edit, FailPoint, Job, Manifest, ManifestFile, ObjectName, Outcome, Reply, Request,
    fail_point,
};

use super::Shard;
use super::call::Origin;
use super::merge::Merging;
use super::message::{PartAnswer, TrimRefused};
use super::offload::Offload;
use super::replicated_log::{Claim, Refused};
use super::sweep::Sweep;
use super::tier_upkeep::TierUpkeep;
use crate::metrics::{Metric, ShardMetrics};
use crate::partition::{KIND_EDIT, entry_kind};

/// See the module's text.
pub(crate) struct Tier {
    store: Client,
    pub(super) manifest: Manifest,
    /// The last entry whose edit the manifest contains.
    pub(super) edited: LogIndex,
    pub(super) offload: Offload,
    pub(super) upkeep: TierUpkeep,
    pub(super) merging: Merging,
    pub(super) sweep: Sweep,
    jobs: BTreeMap<u64, JobOf>,
    next_token: u64,
    /// Who waits until a log start has moved, by the index of the edit.
    waiting: BTreeMap<LogIndex, (Origin, Offset)>,
}

/// What a job of the store was for.
pub(super) enum JobOf {
    /// The object that is being offloaded.
    Object,
    /// A manifest file, which contains the edits or commands up to an index.
    ManifestFile { group: RaftGroupId, upto: LogIndex },
    /// A read for a client, by its token in `Reads`.
    Read(u64),
    /// The object that is put together from others.
    Merge,
    /// A damaged read: nothing is done with the answer.
    Forgetting,
    /// The deletion of objects that nothing refers to.
    Deletion(Vec<ObjectName>),
    /// A page of what is in the bucket.
    Listing,
    /// The deletion of so many keys that no manifest knows of.
    Sweep(u64),
}

impl Tier {
    pub(crate) fn new(store: Client, manifest: Manifest, edited: LogIndex) -> Self {
        Self {
            store,
            offload: Offload::new(manifest.offloaded_upto()),
            manifest,
            edited,
            upkeep: TierUpkeep::default(),
            merging: Merging::default(),
            sweep: Sweep::default(),
            jobs: BTreeMap::new(),
            next_token: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// Takes the state of a snapshot in place of what there is.
    pub(super) fn install(&mut self, manifest: Manifest, edited: LogIndex) {
        self.offload.install(manifest.offloaded_upto());
        self.manifest = manifest;
        self.edited = edited;
    }

    /// Hands a job to the store's thread; false if that has too many.
    pub(super) fn start(&mut self, job: Job, of: JobOf) -> bool {
        self.next_token += 1;
        let token = self.next_token;
        let taken = self.store.try_send(Request { token, job }).is_ok();
        if taken {
            self.jobs.insert(token, of);
        }
        taken
    }

    /// Lets a call hear when the log start is moved to `start` by the edit at `index`.
    pub(super) fn await_edit(&mut self, index: LogIndex, origin: Origin, start: Offset) {
        self.waiting.insert(index, (origin, start));
    }

    pub(crate) fn publish_gauges(&self, metrics: &ShardMetrics, now: Instant) {
        metrics.set(Metric::OffloadLagBytes, self.offload.pending());
        let age = u64::try_from(self.offload.age(now).as_millis()).unwrap_or(u64::MAX);
        metrics.set(Metric::OffloadLagAge, age);
        let totals = self.manifest.totals();
        let objects = totals.live_count + totals.retired_count;
        metrics.set(Metric::TierObjects, objects as u64);
        metrics.set(Metric::TierRetired, totals.retired_count as u64);
        metrics.set(Metric::TierRetiredBytes, totals.retired_size);
        metrics.set(Metric::TierBytes, totals.live_size + totals.retired_size);
        metrics.set(Metric::MergeDebt, self.merging.due());
    }

    pub(crate) fn has_replies(&self) -> bool {
        self.store.has_replies()
    }
}

impl Shard {
    /// Takes in what the store's thread has done. While records are checked the next replies stay
    /// in their queue, which bounds how many there are.
    pub(crate) fn poll_store(&mut self) {
        while self.reads.checking.is_none()
            && let Some(Reply { token, outcome }) = self.tier.store.poll_reply()
        {
            let Some(of) = self.tier.jobs.remove(&token) else { continue };
            match of {
                JobOf::Object => self.object_done(outcome),
                JobOf::ManifestFile { group, upto } => {
                    self.manifest_file_done(group, upto, &outcome)
                }
                JobOf::Read(token) => self.remote_read_done(token, outcome),
                JobOf::Merge => self.merge_done(outcome),
                JobOf::Forgetting => {}
                JobOf::Deletion(objects) => self.deletion_done(objects, &outcome),
                JobOf::Listing => self.listed(outcome),
                JobOf::Sweep(count) => self.swept(count, &outcome),
            }
        }
        self.check_on();
    }

    /// This broker leads the data group no more: what it was about to say of objects is the new
    /// leader's to say, and what it stored unsaid is found and removed as an orphan.
    pub(super) fn tier_steps_down(&mut self) {
        self.tier.offload.step_down(self.now.instant);
        self.tier.merging.step_down();
        self.tier.upkeep.step_down();
        for (_, (origin, _)) in std::mem::take(&mut self.tier.waiting) {
            self.answer(origin, PartAnswer::Trimmed(Err(TrimRefused::NotLeader)));
        }
    }

    /// Proposes a change of the manifest. It is made when the entry is applied.
    pub(super) fn propose_edit(&mut self, edit: &Edit) -> Result<LogIndex, Refused> {
        let payload = edit.encode(self.now.unix_ms);
        let kind = AppBytes::new(&[KIND_EDIT]).expect("one byte fits");
        let descriptor = Descriptor::of(&payload, true, kind).ok_or(Refused::TooLarge)?;
        let (_, index) = self.log.propose(self.data_group(), Claim::Edit, descriptor, payload)?;
        Ok(index)
    }

    /// Applies the edits among committed entries.
    pub(super) fn apply_edits(&mut self, entries: &[CommittedEntry]) {
        for entry in entries {
            let kind = entry.descriptor.as_ref().and_then(|found| entry_kind(&found.app));
            let Some(payload) = entry.payload.as_ref().filter(|_| kind == Some(KIND_EDIT)) else {
                continue;
            };
            if entry.index > self.tier.edited {
                self.apply_edit(entry.index, payload);
            } else {
                self.repeat_edit(payload);
            }
            if let Some((origin, start)) = self.tier.waiting.remove(&entry.index) {
                self.answer(origin, PartAnswer::Trimmed(Ok(start)));
            }
        }
    }

    /// An edit that the manifest of the snapshot contains already. The partitions of that snapshot
    /// are as they were some entries before it, so a log start may have to be moved again.
    fn repeat_edit(&mut self, payload: &Bytes) {
        let (edit, _) = Edit::decode(payload).expect("a committed edit is well formed");
        if let Edit::LogStart { partition, offset } = edit {
            self.log_start_moved(partition, offset);
        }
    }

    fn apply_edit(&mut self, index: LogIndex, payload: &Bytes) {
        // Raft checked the payload against its descriptor: it is what a leader encoded.
        let (edit, proposed_ms) = Edit::decode(payload).expect("a committed edit is well formed");
        self.tier.edited = index;
        if self.tier.manifest.apply(&edit, proposed_ms).is_err() {
            // Proposed on a state that an edit before it has changed: it is void, everywhere.
            self.metrics.add(Metric::TierEditsVoid, 1);
            self.offload_void(&edit);
            if let Edit::Merged { object, .. } = &edit {
                self.merge_ended(object);
            }
            return;
        }
        match edit {
            Edit::Offloaded { upto, .. } => self.offloaded(upto),
            Edit::LogStart { partition, offset } => {
                fail_point(FailPoint::LogStartApplied);
                self.log_start_moved(partition, offset);
            }
            Edit::Merged { object, .. } => self.merge_ended(&object),
            Edit::Removed { .. } => fail_point(FailPoint::DeleteApplied),
            Edit::Dropped { .. } => {}
        }
    }

    /// Stores the state of a group in the bucket, from which a cluster can be rebuilt.
    pub(super) fn store_manifest_file(
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
        let of = JobOf::ManifestFile { group, upto };
        if self.tier.start(Job::PutManifest(file), of) {
            fail_point(FailPoint::ManifestBegun);
            self.tier.upkeep.file_started(group);
        }
    }

    fn manifest_file_done(&mut self, group: RaftGroupId, upto: LogIndex, outcome: &Outcome) {
        // Another state of that number was stored by this broker before it started anew: it tells
        // of the same edits.
        let stored = matches!(outcome, Outcome::Stored | Outcome::Conflict);
        fail_point(FailPoint::ManifestStored);
        self.tier.upkeep.file_ended(group, upto, stored, self.now.instant);
        if stored && group == RaftGroupId::METADATA {
            self.metadata_stored(upto);
        }
    }
}
