//! Drives the balancer (`cluster/balance.rs`), where group 0 is led: one change at a time, the next
//! when the groups have followed. Copies on brokers that are draining go first and at once; to
//! spread the rest anew waits until the brokers have been the same for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use model::{LogIndex, NodeId, RaftGroupId};

use super::Shard;
use super::metadata::METADATA_SHARD;
use crate::cluster::{Balance, Image};
use crate::metrics::Metric;

/// How long the brokers must have been the same, and the last change done, before the next that
/// only spreads.
const REST: Duration = Duration::from_secs(5);
/// A proposal that has changed nothing by then was lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    /// The brokers that were there at the last tick.
    up: BTreeSet<NodeId>,
    /// Since when they are the same and nothing was changed.
    quiet_since: Option<Instant>,
    /// The image on which the last change was proposed, and when.
    proposed: Option<(LogIndex, Instant)>,
    /// The image on which there was nothing to change, and whether spreading counted; until the
    /// brokers that are there are others.
    found_even: Option<(LogIndex, bool)>,
    /// Groups whose members do not follow the last wish yet, and since when.
    under_way: BTreeMap<RaftGroupId, Instant>,
}

impl Balancer {
    /// Is it time for a change that only spreads?
    fn has_rested(&mut self, up: BTreeSet<NodeId>, now: Instant) -> bool {
        if self.up != up {
            (self.up, self.quiet_since, self.found_even) = (up, Some(now), None);
        }
        let since = *self.quiet_since.get_or_insert(now);
        now.saturating_duration_since(since) >= REST
    }

    fn awaits(&self, image: &Image, now: Instant) -> bool {
        self.proposed.is_some_and(|(version, at)| {
            image.version() <= version && now.saturating_duration_since(at) < PATIENCE
        })
    }
}

impl Shard {
    /// At the tick.
    pub(super) fn balance(&mut self) {
        if self.id != METADATA_SHARD || self.peers.is_alone() {
            return;
        }
        if !self.log.has_caught_up(RaftGroupId::METADATA) {
            self.balancer = Balancer::default();
            return;
        }
        let image = self.metadata.shared_image();
        self.note_moves(&image);
        let now = self.now.instant;
        let members = image.members();
        let is_up = |node| node == self.node.id || self.peers.is_up(node);
        let up = members.iter().copied().filter(|node| is_up(*node)).collect();
        let may_spread = self.balancer.has_rested(up, now) && self.node.settings.broker.balancer;
        let seen = Some((image.version(), may_spread));
        if !self.balancer.under_way.is_empty()
            || self.balancer.awaits(&image, now)
            || self.balancer.found_even == seen
        {
            return;
        }
        let balance = Balance::new(&image, &members, is_up);
        let spread = || if may_spread { balance.spread() } else { None };
        let Some(command) = balance.drain().or_else(spread) else {
            self.balancer.found_even = seen;
            return;
        };
        if self.try_propose_command(&command).is_ok() {
            self.metrics.add(Metric::BalancerChanges, 1);
            self.balancer.proposed = Some((image.version(), now));
            self.balancer.quiet_since = Some(now);
        }
    }

    /// Notes which groups follow a wish, and for how long those did that are done.
    fn note_moves(&mut self, image: &Image) {
        let now = self.now.instant;
        let open: BTreeSet<_> =
            image.groups().filter(|it| !it.leaving.is_empty()).map(|group| group.id).collect();
        let done = self.balancer.under_way.extract_if(.., |group, _| !open.contains(group));
        for (_, since) in done {
            let took = now.saturating_duration_since(since).as_millis();
            self.metrics.add(Metric::GroupMoves, 1);
            self.metrics.add(Metric::GroupMoveMillis, u64::try_from(took).unwrap_or(u64::MAX));
            self.balancer.quiet_since = Some(now);
        }
        for group in open {
            self.balancer.under_way.entry(group).or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn what_only_spreads_waits_until_the_brokers_are_the_same_for_a_while() {
        let (mut balancer, start) = (Balancer::default(), Instant::now());
        let up = |count: i32| (1..=count).map(NodeId::new).collect::<BTreeSet<_>>();
        assert!(!balancer.has_rested(up(3), start));
        assert!(!balancer.has_rested(up(4), start + REST), "one came");
        assert!(!balancer.has_rested(up(4), start + REST * 2 - Duration::from_millis(1)));
        assert!(balancer.has_rested(up(4), start + REST * 2));
        balancer.quiet_since = Some(start + REST * 2);
        assert!(!balancer.has_rested(up(4), start + REST * 2), "something was changed");
    }
}
