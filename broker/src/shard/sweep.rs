//! Removing what crashes and time leave in the bucket: objects that no manifest names, and manifest
//! files that newer ones have replaced.
//!
//! A sweep lists what is under the group's prefixes, page by page, and deletes from each page what
//! is left over. An object is left over if the manifest does not name it and never will:
//!
//! - its group is this shard's, and its term is not above the one in which this shard leads. A
//!   higher one means that another broker took over: then this one knows too little to judge;
//! - it is not on its way into the manifest: no offload or merge of this shard makes it now. A
//!   range beyond what is offloaded is kept even if an earlier leader left it: until the range is
//!   stored anew, a cluster could be rebuilt from it;
//! - it is older than the grace period by the store's clock.
//!
//! What the probe of a start wrote is left over if the broker died in the middle of it.

use std::time::Instant;

use model::{RaftGroupId, Term};
use s3_uploader::{
    FailPoint, Job, Listed, ManifestName, ObjectName, Outcome, PROBE_PREFIX, Page, fail_point,
};

use super::Shard;
use super::metadata::METADATA_SHARD;
use super::tiers::JobOf;
use crate::metrics::Metric;

/// Replaced manifest files that stay, in case that the newest one is damaged.
const FILES_KEPT: usize = 2;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Sweep {
    next: Option<Instant>,
    under_way: Option<Place>,
}

/// Where a sweep is.
#[derive(Clone, Debug)]
struct Place {
    /// Number of the prefix.
    prefix: usize,
    /// The last key seen under it.
    after: Option<String>,
}

impl Shard {
    /// Begins a sweep if one is due; called at the tick.
    pub(super) fn sweep_on(&mut self, group: RaftGroupId) {
        let now = self.now.instant;
        let sweep = &mut self.tiers[group].sweep;
        if sweep.under_way.is_some() || sweep.next.is_some_and(|at| now < at) {
            return;
        }
        sweep.next = Some(now + self.node.settings.broker.object_sweep_interval);
        self.list(group, Place { prefix: 0, after: None });
    }

    /// What the keys of a group that this shard leads begin with.
    fn sweep_prefixes(&self, group: RaftGroupId) -> Vec<String> {
        let mut prefixes = vec![
            ObjectName::group_prefix(group),
            ObjectName::merged_prefix(group),
            ManifestName::prefix(group),
        ];
        if self.id == METADATA_SHARD && self.tiers.groups().first() == Some(&group) {
            prefixes.push(ManifestName::prefix(RaftGroupId::METADATA));
            prefixes.push(PROBE_PREFIX.to_owned());
        }
        prefixes
    }

    fn list(&mut self, group: RaftGroupId, place: Place) {
        self.tiers[group].sweep.under_way = None;
        let Some(prefix) = self.sweep_prefixes(group).into_iter().nth(place.prefix) else { return };
        let job = Job::List { prefix, after: place.after.clone() };
        if self.tiers.start(group, job, JobOf::Listing) {
            self.tiers[group].sweep.under_way = Some(place);
        }
    }

    /// A page of a listing is here; deletes what is left over, or goes on.
    pub(super) fn listed(&mut self, group: RaftGroupId, outcome: Outcome) {
        let (Some(place), Outcome::Listed(page)) =
            (self.tiers[group].sweep.under_way.take(), outcome)
        else {
            // The next sweep begins anew.
            return;
        };
        let left_over = self.left_over(group, &page);
        let next = match page.objects.last() {
            Some(last) if page.more => {
                Place { prefix: place.prefix, after: Some(last.key.clone()) }
            }
            _ => Place { prefix: place.prefix + 1, after: None },
        };
        if left_over.is_empty() {
            return self.list(group, next);
        }
        fail_point(FailPoint::SweepListed);
        let count = left_over.len() as u64;
        if self.tiers.start(group, Job::Delete(left_over), JobOf::Sweep(count)) {
            self.tiers[group].sweep.under_way = Some(next);
        }
    }

    /// What was left over is deleted, or the store refused: then the next sweep tries again.
    pub(super) fn swept(&mut self, group: RaftGroupId, count: u64, outcome: &Outcome) {
        let Some(next) = self.tiers[group].sweep.under_way.take() else { return };
        if matches!(outcome, Outcome::Deleted) {
            fail_point(FailPoint::SweepDone);
            self.metrics.add(Metric::TierOrphansDeleted, count);
            self.list(group, next);
        }
    }

    fn left_over(&self, group: RaftGroupId, page: &Page) -> Vec<String> {
        let grace = self.node.settings.broker.object_delete_grace;
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let before = self.now.unix_ms.saturating_sub(grace_ms);
        let Some(term) = self.log.leads(group).filter(|_| self.log.has_caught_up(group)) else {
            return Vec::new();
        };
        let old = || page.objects.iter().filter(|listed| listed.modified_ms < before);
        let orphans = old().filter(|listed| {
            listed.key.starts_with(PROBE_PREFIX) || self.is_orphan(group, listed, term)
        });
        let mut files: Vec<_> = old().filter(|listed| self.is_replaced(listed)).collect();
        files.truncate(files.len().saturating_sub(FILES_KEPT));
        orphans.chain(files).map(|listed| listed.key.clone()).collect()
    }

    fn is_orphan(&self, group: RaftGroupId, listed: &Listed, term: Term) -> bool {
        let Ok(object) = listed.key.parse::<ObjectName>() else { return false };
        let is_passed = match object {
            ObjectName::Range(range) => range.last() <= self.tiers[group].offload.upto(),
            ObjectName::Merged(_) => !self.tiers[group].merging.makes(&object),
        };
        let is_ours = object.group() == group && object.term() <= term;
        is_ours && is_passed && !self.tiers[group].manifest.contains(&object)
    }

    /// Whether this broker has stored a newer file of the group since it started.
    fn is_replaced(&self, listed: &Listed) -> bool {
        let Ok(name) = listed.key.parse::<ManifestName>() else { return false };
        let stored = self.stored_file(name.group);
        name.sequence < stored.get()
    }
}
