//! Producers of a partition that nobody leads for a moment, as far as this broker knows: it is
//! handing over, an election is going on, or the partition moves to another group. Clients that are
//! refused at once ask for the leader before there is one, and then again only after their back-off
//! (`retry.backoff.ms`, 100 ms). So they are told when it is known who leads, or after a moment.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use model::{PartitionId, RaftGroupId};

use super::Shard;
use super::call::Origin;
use super::message::{AppendRefused, PartAnswer};

/// Longer than leadership takes to be handed over; far less than any client waits for an answer.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Who waits, the oldest first: no more than there are requests in memory.
#[derive(Debug, Default)]
pub(crate) struct Unled(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    until: Instant,
    group: RaftGroupId,
    /// `None`: it was in the log of a leader that leads no more.
    partition: Option<PartitionId>,
    origin: Origin,
}

impl Unled {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.front().map(|refused| refused.until)
    }
}

impl Shard {
    /// A batch is not taken, since this broker does not lead the group: says so when another one is
    /// known to.
    pub(super) fn refuse_unled(
        &mut self,
        group: RaftGroupId,
        partition: Option<PartitionId>,
        origin: Origin,
    ) {
        let leader = self.node.leader(group).map(|(node, _)| node);
        if self.peers.is_alone() || leader.is_some_and(|leader| leader != self.node.id) {
            return self.say_not_leader(origin);
        }
        let until = self.now.instant + WAIT_MAX;
        self.unled.0.push_back(Waiting { until, group, partition, origin });
    }

    /// A group has a leader.
    pub(super) fn tell_unled_of(&mut self, group: RaftGroupId) {
        self.tell_unled(|refused| refused.group == group);
    }

    /// A partition is in another group now.
    pub(super) fn tell_unled_of_moved(&mut self, partition: PartitionId) {
        self.tell_unled(|refused| refused.partition == Some(partition));
    }

    /// Those that have waited long enough.
    pub(super) fn tell_unled_in_time(&mut self) {
        let now = self.now.instant;
        while let Some(refused) = self.unled.0.pop_front_if(|refused| refused.until <= now) {
            self.say_not_leader(refused.origin);
        }
    }

    fn tell_unled(&mut self, is_over: impl Fn(&Waiting) -> bool) {
        let (over, rest) = std::mem::take(&mut self.unled.0).into_iter().partition(is_over);
        self.unled.0 = rest;
        let over: VecDeque<Waiting> = over;
        over.into_iter().for_each(|refused| self.say_not_leader(refused.origin));
    }

    fn say_not_leader(&mut self, origin: Origin) {
        self.answer(origin, PartAnswer::Append(Err(AppendRefused::NotLeader)));
    }
}
