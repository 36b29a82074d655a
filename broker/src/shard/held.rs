//! Batches that wait until less of their raft group is not committed (ADR 0009): a client that has
//! many on the way would be refused what it is a moment too early with, and come again only after
//! its back-off (`retry.backoff.ms`, 100 ms). They wait in the order in which they came.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use model::RaftGroupId;
use replication::DESCRIPTOR_SIZE_MAX;

use super::Shard;
use super::call::Origin;
use super::message::Append;
use crate::metrics::Metric;

/// Far longer than a commit takes. Where nothing is committed for so long, clients are told so.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Who waits, by group, the oldest first: no more than there are requests in memory. No queue is
/// empty.
#[derive(Default)]
pub(crate) struct Held(BTreeMap<RaftGroupId, VecDeque<Waiting>>);

struct Waiting {
    until: Instant,
    origin: Origin,
    append: Append,
}

impl Held {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(|queue| queue.front()).map(|waiting| waiting.until).min()
    }
}

impl Shard {
    /// Appends a client's batch, at once or when it is not too far ahead of what is committed.
    pub(super) fn append_in_turn(&mut self, origin: Origin, append: Append) {
        if self.peers.is_alone() {
            return self.append(origin, append);
        }
        match self.hosting.group_of(append.partition) {
            // Nobody overtakes: what comes later may be the same producer's.
            Some(group)
                if self.held.0.contains_key(&group) || self.is_too_early(group, &append) =>
            {
                self.metrics.add(Metric::ProduceHeld, 1);
                let until = self.now.instant + WAIT_MAX;
                let waiting = Waiting { until, origin, append };
                self.held.0.entry(group).or_default().push_back(waiting);
            }
            _ => self.append(origin, append),
        }
    }

    fn is_too_early(&self, group: RaftGroupId, append: &Append) -> bool {
        self.log.is_too_far_ahead(group, append.batch.len() + DESCRIPTOR_SIZE_MAX)
    }

    /// Appends what need not wait any more, or has waited for too long and is refused now; false
    /// if that is nothing.
    pub(super) fn append_held(&mut self) -> bool {
        if self.held.0.is_empty() {
            return false;
        }
        let mut any = false;
        for group in self.held.0.keys().copied().collect::<Vec<_>>() {
            while let Some(waiting) = self.next_held(group) {
                self.append(waiting.origin, waiting.append);
                any = true;
            }
        }
        any
    }

    fn next_held(&mut self, group: RaftGroupId) -> Option<Waiting> {
        let front = self.held.0.get(&group)?.front()?;
        if front.until > self.now.instant && self.is_too_early(group, &front.append) {
            return None;
        }
        let queue = self.held.0.get_mut(&group)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.held.0.remove(&group);
        }
        next
    }
}
