//! The object tiers of a shard, one for each of its data groups, and the jobs that the store's
//! thread has from it. A shard never waits for the store: jobs go into a bounded queue, replies
//! come out of one.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{LogIndex, RaftGroupId};
use s3_uploader::{Client, Job, Manifest, ObjectName, Reply, Request};

use super::Shard;
use super::manifest_files::File;
use super::tier::Tier;
use crate::metrics::{Metric, ShardMetrics};

/// See the module's text. Indexed by the groups of [`Self::groups`].
pub(crate) struct Tiers {
    store: Client,
    /// What the store's thread has, and for which group.
    jobs: BTreeMap<u64, (RaftGroupId, JobOf)>,
    next_token: u64,
    /// In order, with the tier of each at the same place.
    groups: Arc<[RaftGroupId]>,
    tiers: Vec<Tier>,
    /// Group 0's file in the bucket.
    pub(super) metadata_file: File,
    is_flushing: bool,
}

/// What a job of the store was for.
pub(super) enum JobOf {
    /// The object that is being offloaded.
    Object,
    /// A manifest file, which contains the edits or commands up to an index.
    ManifestFile { upto: LogIndex },
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
    /// The newest manifest file of a group that has partitions which left this one.
    Borrower(RaftGroupId),
}

impl Tiers {
    /// `tiers`: of every data group of the shard, in order.
    pub(crate) fn new(store: Client, tiers: BTreeMap<RaftGroupId, Tier>) -> Self {
        let (groups, tiers): (Vec<_>, Vec<_>) = tiers.into_iter().unzip();
        Self {
            store,
            jobs: BTreeMap::new(),
            next_token: 0,
            groups: groups.into(),
            tiers,
            metadata_file: File::default(),
            is_flushing: false,
        }
    }

    /// The data groups of the shard, in order.
    pub(super) fn groups(&self) -> Arc<[RaftGroupId]> {
        Arc::clone(&self.groups)
    }

    pub(super) fn len(&self) -> usize {
        self.tiers.len()
    }

    /// A group comes to this shard.
    pub(super) fn insert(&mut self, group: RaftGroupId) {
        if let Err(at) = self.groups.binary_search(&group) {
            let before = self.groups[..at].iter().copied();
            self.groups = before.chain([group]).chain(self.groups[at..].iter().copied()).collect();
            self.tiers.insert(at, Tier::new(Manifest::default(), LogIndex::default()));
            if self.is_flushing {
                self.tiers[at].offload.flush();
            }
        }
    }

    /// A group leaves this shard. What the store's thread does for it ends unheard, but for reads:
    /// clients wait for those.
    pub(super) fn remove(&mut self, group: RaftGroupId) {
        if let Ok(at) = self.groups.binary_search(&group) {
            self.groups = self.groups.iter().copied().filter(|it| *it != group).collect();
            self.tiers.remove(at);
            self.jobs.retain(|_, (of, job)| *of != group || matches!(job, JobOf::Read(_)));
        }
    }

    /// Is it a data group of this shard?
    pub(super) fn contains(&self, group: RaftGroupId) -> bool {
        self.groups.binary_search(&group).is_ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RaftGroupId, &Tier)> {
        self.groups.iter().copied().zip(&self.tiers)
    }

    /// The group at a place in their order, from 0 on.
    pub(super) fn at(&self, at: usize) -> Option<(RaftGroupId, &Tier)> {
        self.groups.get(at).copied().zip(self.tiers.get(at))
    }

    /// Hands a job to the store's thread; false if that has too many.
    pub(super) fn start(&mut self, group: RaftGroupId, job: Job, of: JobOf) -> bool {
        self.next_token += 1;
        let token = self.next_token;
        let taken = self.store.try_send(Request { token, job }).is_ok();
        if taken {
            self.jobs.insert(token, (group, of));
        }
        taken
    }

    /// The broker stops: all there is, is offloaded, and nothing else is begun.
    pub(super) fn flush(&mut self) {
        if !self.is_flushing {
            self.is_flushing = true;
            self.tiers.iter_mut().for_each(|tier| tier.offload.flush());
        }
    }

    pub(super) fn is_flushing(&self) -> bool {
        self.is_flushing
    }

    pub(crate) fn has_replies(&self) -> bool {
        self.store.has_replies()
    }

    pub(crate) fn publish_gauges(&self, metrics: &ShardMetrics, now: Instant) {
        let sum = |of: fn(&Tier) -> u64| self.tiers.iter().map(of).sum();
        metrics.set(Metric::OffloadLagBytes, sum(|tier| tier.offload.pending()));
        let ages = self.tiers.iter().map(|tier| tier.offload.age(now));
        let age = ages.max().unwrap_or(Duration::ZERO).as_millis();
        metrics.set(Metric::OffloadLagAge, u64::try_from(age).unwrap_or(u64::MAX));
        metrics.set(Metric::TierObjects, sum(Tier::object_count));
        metrics.set(Metric::TierRetired, sum(|tier| tier.manifest.totals().retired_count as u64));
        metrics.set(Metric::TierRetiredBytes, sum(|tier| tier.manifest.totals().retired_size));
        metrics.set(Metric::TierBytes, sum(Tier::size));
        metrics.set(Metric::MergeDebt, sum(|tier| tier.merging.due()));
    }
}

impl Index<RaftGroupId> for Tiers {
    type Output = Tier;

    fn index(&self, group: RaftGroupId) -> &Tier {
        let at = self.groups.binary_search(&group);
        &self.tiers[at.expect("a data group of this shard")]
    }
}

impl IndexMut<RaftGroupId> for Tiers {
    fn index_mut(&mut self, group: RaftGroupId) -> &mut Tier {
        let at = self.groups.binary_search(&group);
        &mut self.tiers[at.expect("a data group of this shard")]
    }
}

impl Shard {
    /// Begins to offload all that there is: the broker stops.
    pub(crate) fn flush_tier(&mut self) {
        self.tiers.flush();
    }

    /// Takes in what the store's thread has done. While records are checked the next replies stay
    /// in their queue, which bounds how many there are.
    pub(crate) fn poll_store(&mut self) {
        while self.reads.checking.is_none()
            && let Some(Reply { token, outcome }) = self.tiers.store.poll_reply()
        {
            let Some((group, of)) = self.tiers.jobs.remove(&token) else { continue };
            match of {
                JobOf::Object => self.object_done(group, outcome),
                JobOf::ManifestFile { upto } => self.manifest_file_done(group, upto, &outcome),
                JobOf::Read(token) => self.remote_read_done(token, outcome),
                JobOf::Merge => self.merge_done(group, outcome),
                JobOf::Forgetting => {}
                JobOf::Deletion(objects) => self.deletion_done(group, objects, &outcome),
                JobOf::Listing => self.listed(group, outcome),
                JobOf::Sweep(count) => self.swept(group, count, &outcome),
                JobOf::Borrower(other) => self.borrower_found(group, other, outcome),
            }
        }
        self.check_on();
    }
}
