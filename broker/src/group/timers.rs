//! Deadlines of groups and members, in order.
//!
//! A heartbeat moves a deadline without touching the set: the old entry fires early, finds that
//! the deadline has moved, and is set again. An entry that finds nothing to do is dropped.

use std::collections::BTreeSet;

use super::Name;

/// Moments are [`super::Now::monotonic_ms`].
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(u64, Timer)>);

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Timer {
    /// Look for offsets and groups to forget.
    Expiry,
    /// The wait for members to join ends.
    Join(Name),
    /// The wait for members to sync ends.
    Sync(Name),
    /// The session of a member, group first, ends.
    Session(Name, Name),
    /// A member id that was given out has not been used.
    Pending(Name, Name),
}

impl Timers {
    pub(super) fn set(&mut self, at: u64, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: u64) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }
}
