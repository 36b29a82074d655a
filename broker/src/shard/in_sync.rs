//! Which replicas are in sync: they are there, and have what was committed a moment ago. Counted at
//! the tick, so that an append only compares (`min.insync.replicas`).

use std::collections::BTreeMap;
use std::time::Duration;

use model::{NodeId, RaftGroupId};

use super::Shard;
use super::message::AppendRefused;

/// A broker that was silent for longer is not counted on. What is said between brokers at rest is
/// some twenty times as frequent.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(1);

/// By group that this broker leads: how many replicas were in sync at the last tick, it included.
#[derive(Debug, Default)]
pub(crate) struct InSync(BTreeMap<RaftGroupId, usize>);

impl Shard {
    /// At the tick, before what is committed by now is noted: a follower is not to be measured by
    /// what has just been written.
    pub(super) fn count_in_sync(&mut self) {
        let led = self.log.groups().into_iter().filter(|group| self.log.leads(*group).is_some());
        let count = |group| {
            let others = self.peers.nodes().filter(|node| self.is_in_sync(group, *node));
            (group, 1 + others.count())
        };
        self.in_sync = InSync(led.map(count).collect());
    }

    /// Are as many replicas of a group in sync as a topic wants? A majority is needed for the
    /// commit anyway: a batch waits for that, whatever the topic says.
    pub(super) fn check_in_sync(
        &self,
        group: RaftGroupId,
        count_min: u32,
    ) -> Result<(), AppendRefused> {
        if count_min <= 1 {
            return Ok(());
        }
        let voter_count = self.log.members(group).map_or(1, |members| members.voters.len());
        // One that has just begun to lead knows only of itself.
        let count = self.in_sync.0.get(&group).copied().unwrap_or(1);
        if suffices(count, count_min, voter_count) {
            return Ok(());
        }
        Err(AppendRefused::NotInSync)
    }

    /// Is the copy of a group on another broker in sync: it votes, was heard of late, and has what
    /// was committed at the last tick.
    pub(super) fn is_in_sync(&self, group: RaftGroupId, node: NodeId) -> bool {
        self.could_lead(group, node)
            && self.log.has_heard(self.voter_at(node), SILENCE_MAX, self.now.instant)
    }
}

fn suffices(count: usize, count_min: u32, voter_count: usize) -> bool {
    let count_min = usize::try_from(count_min).unwrap_or(usize::MAX);
    count_min <= voter_count / 2 + 1 || count >= count_min
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_majority_has_to_be_in_sync_where_a_topic_wants_it() {
        for (voter_count, count_min, counts_refused) in [
            (1, 1, &[][..]),
            (1, 2, &[1]),
            (3, 2, &[]),
            (3, 3, &[1, 2]),
            (3, 4, &[1, 2, 3]),
            (5, 3, &[]),
            (5, 4, &[1, 2, 3]),
            (5, u32::MAX, &[1, 2, 3, 4, 5]),
        ] {
            let refused: Vec<_> = (1..=voter_count)
                .filter(|count| !suffices(*count, count_min, voter_count))
                .collect();
            assert_eq!(refused, counts_refused, "{count_min} of {voter_count}");
        }
    }
}
