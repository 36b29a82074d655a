//! Merging: many small extents become few large ones, in the background, one merge at a time.
//!
//! ```text
//! Idle -> Merging -> Recording -> Idle
//!         (store)    (log)
//! ```
//!
//! The store's thread reads, checks and writes; here is only what to merge and when. A crash at any
//! step leaves at most an object that no manifest names. What a merge has replaced is deleted after
//! the grace period, like all that nothing refers to (`tier_upkeep.rs`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use model::{PartitionId, RaftGroupId};
use s3_uploader::{Edit, FailPoint, Job, MergePlan, ObjectName, Outcome, StoreError, fail_point};

use super::Shard;
use super::replicated_log::Refused;
use super::tiers::JobOf;
use crate::metrics::Metric;

/// From one merge, or one look for something to merge, to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// After a failure: the store is slow or away, and merging is in no hurry.
const PAUSE: Duration = Duration::from_secs(60);
/// Objects that cannot be read are not tried again for as long.
const ASIDE: Duration = Duration::from_secs(3600);

/// See the module's text.
#[derive(Default)]
pub(crate) struct Merging {
    phase: Phase,
    /// Counts the attempts: each has a name of its own.
    number: u64,
    not_before: Option<Instant>,
    /// Where the look at partitions goes on.
    next: PartitionId,
    /// Edits at the last look for small objects to gather: without a new one nothing is new.
    gathered_at: Option<u64>,
    /// Bytes due for a merge: as counted so far, and by the last look that came around.
    due_so_far: u64,
    due: u64,
    /// Objects that cannot be read, or not be spared, and until when they are left alone.
    aside: BTreeSet<ObjectName>,
    aside_until: Option<Instant>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    /// The bytes that are merged.
    Merging(ObjectName, u64),
    /// The object is stored; its edit is proposed, or has to be.
    Recording { edit: Box<Edit>, object: ObjectName, proposed: bool },
}

impl Merging {
    /// Whether that object is being made: nothing refers to it yet.
    pub(super) fn makes(&self, name: &ObjectName) -> bool {
        match &self.phase {
            Phase::Idle => false,
            Phase::Merging(object, _) | Phase::Recording { object, .. } => object == name,
        }
    }

    /// Bytes of extents that are due for a merge.
    pub(super) fn due(&self) -> u64 {
        self.due
    }

    /// Another broker merges from now on.
    pub(super) fn step_down(&mut self) {
        if matches!(self.phase, Phase::Recording { .. }) {
            self.phase = Phase::Idle;
        }
    }

    fn rest(&mut self, until: Instant) {
        self.phase = Phase::Idle;
        self.not_before = Some(until);
    }
}

impl Shard {
    /// Begins a merge if one is due; called at the tick.
    pub(super) fn merge_on(&mut self, group: RaftGroupId) {
        let now = self.now.instant;
        match std::mem::take(&mut self.tiers[group].merging.phase) {
            Phase::Idle if self.may_merge(group) => {
                self.tiers[group].merging.rest(now + INTERVAL);
                if let Some(plan) = self.next_merge(group) {
                    self.begin_merge(group, plan);
                }
            }
            Phase::Recording { edit, object, proposed: false } => {
                self.record_merge(group, edit, object)
            }
            phase => self.tiers[group].merging.phase = phase,
        }
    }

    /// Offload comes first: while records wait for it, the store has enough to do.
    fn may_merge(&self, group: RaftGroupId) -> bool {
        let rests = self.tiers[group].merging.not_before.is_some_and(|at| self.now.instant < at);
        !rests
            && !self.tiers.is_flushing()
            && self.tiers[group].offload.pending() < 2 * self.object_size()
            && self.log.has_caught_up(group)
    }

    fn next_merge(&mut self, group: RaftGroupId) -> Option<MergePlan> {
        let tier = &mut self.tiers[group];
        let (manifest, merging) = (&tier.manifest, &mut tier.merging);
        if merging.aside_until.is_some_and(|until| until <= self.now.instant) {
            merging.aside.clear();
            merging.aside_until = None;
        }
        let edited = tier.edited.get();
        if merging.gathered_at != Some(edited) {
            let gathered = manifest.gather(&merging.aside);
            if gathered.is_some() {
                return gathered;
            }
            merging.gathered_at = Some(edited);
        }
        let found = manifest.separate(merging.next, &merging.aside);
        merging.due_so_far += found.due;
        if found.next.is_none() {
            merging.due = std::mem::take(&mut merging.due_so_far);
        }
        merging.next = found.next.unwrap_or_default();
        found.plan
    }

    fn begin_merge(&mut self, group: RaftGroupId, plan: MergePlan) {
        let Some(term) = self.log.leads(group) else { return };
        if plan.sections.iter().any(|(partition, _)| !self.is_at_home(group, *partition)) {
            let objects = plan.objects.into_keys();
            return objects.for_each(|object| self.set_aside(group, object));
        }
        self.tiers[group].merging.number += 1;
        let object = ObjectName::merged(group, term, self.tiers[group].merging.number);
        let size = plan.size();
        if self.tiers.start(group, Job::Merge { object, plan }, JobOf::Merge) {
            self.tiers[group].merging.phase = Phase::Merging(object, size);
            fail_point(FailPoint::MergeBegun);
        }
    }

    /// The merged object is stored, or could not be made.
    pub(super) fn merge_done(&mut self, group: RaftGroupId, outcome: Outcome) {
        let phase = std::mem::take(&mut self.tiers[group].merging.phase);
        let Phase::Merging(object, size) = phase else { unreachable!("one merge at a time") };
        let now = self.now.instant;
        match outcome {
            Outcome::Sealed { size: object_size, extents, .. } => {
                fail_point(FailPoint::MergeStored);
                self.metrics.add(Metric::Merges, 1);
                self.metrics.add(Metric::MergedBytes, size);
                let edit = Edit::Merged { object, object_size, extents };
                self.record_merge(group, Box::new(edit), object);
            }
            outcome => {
                self.metrics.add(Metric::MergeFailures, 1);
                self.tiers[group].merging.rest(now + PAUSE);
                self.set_aside_damaged(group, &outcome);
            }
        }
    }

    /// An object that is damaged or gone would fail every merge that it is part of.
    fn set_aside_damaged(&mut self, group: RaftGroupId, outcome: &Outcome) {
        let Outcome::Failed(
            StoreError::Checksum { key, .. }
            | StoreError::NotFound { key }
            | StoreError::Truncated { key, .. },
        ) = outcome
        else {
            return;
        };
        if let Ok(object) = key.parse() {
            self.set_aside(group, object);
        }
    }

    fn set_aside(&mut self, group: RaftGroupId, object: ObjectName) {
        let until = self.now.instant + ASIDE;
        self.tiers[group].merging.aside.insert(object);
        self.tiers[group].merging.aside_until.get_or_insert(until);
    }

    fn record_merge(&mut self, group: RaftGroupId, mut edit: Box<Edit>, object: ObjectName) {
        if let Edit::Merged { extents, .. } = &mut *edit {
            // One may have left meanwhile, and be in the manifest again for a move that was called
            // off: what its extents refer to is needed as it is.
            extents.retain(|(partition, _)| self.is_at_home(group, *partition));
        }
        // The reserve for the broker's own entries may be used up for now: then it is tried again.
        let outcome = self.propose_edit(group, &edit);
        if outcome == Err(Refused::NotLeader) {
            return;
        }
        let proposed = outcome.is_ok();
        fail_point(FailPoint::MergeProposed);
        self.tiers[group].merging.phase = Phase::Recording { edit, object, proposed };
    }

    /// The edit of a merge was applied, or was void.
    pub(super) fn merge_ended(&mut self, group: RaftGroupId, object: &ObjectName) {
        let phase = &mut self.tiers[group].merging.phase;
        if matches!(phase, Phase::Recording { object: own, .. } if own == object) {
            *phase = Phase::Idle;
            fail_point(FailPoint::MergeApplied);
        }
    }
}
