//! When raft's clock ticks, and when it is time for what is not urgent: one timer for both, so that
//! a core at rest wakes up once, and the other brokers once for what both send.

use std::time::{Duration, Instant};

/// Between two ticks where there are no other brokers: each is one of both kinds.
const ALONE: Duration = Duration::from_millis(100);
/// With other brokers, and how often a leader says that it is there: four without a word of it, and
/// up to two more, are an election.
pub(super) const RAFT_TICK: Duration = Duration::from_millis(50);
/// Every third of those is for what is not urgent, too.
const RAFT_TICKS: u32 = 3;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Ticks {
    has_peers: bool,
    next: Instant,
    /// Since one that was not raft's alone.
    raft_ticks: u32,
}

/// What it is time for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tick {
    Raft,
    All,
}

impl Ticks {
    pub(super) fn new(has_peers: bool, now: Instant) -> Self {
        let mut ticks = Self { has_peers, next: now, raft_ticks: 0 };
        ticks.next += ticks.interval();
        ticks
    }

    /// There are other brokers, or none any more: from the tick after the next one on.
    pub(super) fn set_has_peers(&mut self, has_peers: bool) {
        self.has_peers = has_peers;
    }

    /// Are there other brokers in the cluster?
    pub(super) fn has_peers(&self) -> bool {
        self.has_peers
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// What it is time for now; `None` before the next tick.
    pub(super) fn due(&mut self, now: Instant) -> Option<Tick> {
        if now < self.next {
            return None;
        }
        self.next = now + self.interval();
        self.raft_ticks += 1;
        if self.has_peers && self.raft_ticks < RAFT_TICKS {
            return Some(Tick::Raft);
        }
        self.raft_ticks = 0;
        Some(Tick::All)
    }

    /// With other brokers an election has to be over soon.
    fn interval(&self) -> Duration {
        if self.has_peers { RAFT_TICK } else { ALONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn every_third_tick_with_other_brokers_is_one_of_both_and_each_without() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut ticks = Ticks::new(true, start);
        assert_eq!((ticks.due(at(49)), ticks.next()), (None, at(50)));
        let found = [50, 100, 150, 200, 250, 300].map(|ms| ticks.due(at(ms)));
        let one_round = [Some(Tick::Raft), Some(Tick::Raft), Some(Tick::All)];
        assert_eq!((&found[..3], &found[3..]), (&one_round[..], &one_round[..]));
        ticks.set_has_peers(false);
        assert_eq!((ticks.due(at(350)), ticks.next()), (Some(Tick::All), at(450)));
        assert_eq!(ticks.due(at(450)), Some(Tick::All));
    }
}
