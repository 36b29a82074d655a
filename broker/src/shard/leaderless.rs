//! Groups in which nobody leads for longer than an election takes: a majority of their brokers is
//! away. Nothing is acknowledged in them until it is back, so the operator is told which brokers
//! are missed, and when it is over.

use std::time::{Duration, Instant};

use super::Shard;
use crate::metrics::Metric;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Looks in a row that find such groups before the operator is told: an election is over by then.
const LOOKS: u32 = 3;

/// What the last look found.
#[derive(Debug)]
pub(super) struct Leaderless {
    next: Instant,
    /// Looks in a row that found groups without leaders.
    looks: u32,
}

impl Leaderless {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now + LOOK_INTERVAL, looks: 0 }
    }
}

impl Shard {
    /// At the tick: counts them, and tells of them.
    pub(super) fn look_for_leaderless(&mut self) {
        let now = self.now.instant;
        if self.peers.is_alone() || now < self.leaderless.next {
            return;
        }
        self.leaderless.next = now + LOOK_INTERVAL;
        let (count, shard) = (self.log.leaderless_count(), self.id);
        self.metrics.set(Metric::LeaderlessGroups, count as u64);
        let before = self.leaderless.looks;
        let looks = if count == 0 { 0 } else { before.saturating_add(1) };
        self.leaderless.looks = looks;
        if looks == LOOKS {
            let away = self.peers.nodes().filter(|node| !self.peers.is_up(*node));
            let away: Vec<_> = away.map(|node| node.to_string()).collect();
            let (all, away) = (self.log.groups().len(), away.join(", "));
            self.notes.push(format!(
                "shard {shard}: {count} of {all} groups have no leader, and acknowledge nothing \
                 until a majority of their brokers is there (away: {away}): bring those back; if \
                 the disks of a majority are lost, see `tailrace recover`"
            ));
        } else if looks == 0 && before >= LOOKS {
            self.notes.push(format!("shard {shard}: all groups have leaders again"));
        }
    }
}
