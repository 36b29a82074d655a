//! How the room of a shard's WAL is shared out, and for how long it lasts while the store is away.
//!
//! ```text
//! 0               reserve_start              slow_start              full            capacity
//! | in use while    | the reserve: for when    | producers are slowed | the broker's own |
//! | the store works | the store is away        | down, ever more      | entries          |
//! ```
//!
//! Offload keeps what is used below `reserve_start` as long as the store takes what it is given.
//! While it does not, nobody notices until the reserve is used up.

use std::time::{Duration, Instant};

/// The longest that a producer is asked to hold back at a time.
pub(crate) const THROTTLE_MS_MAX: i32 = 1000;
/// Segments that clients' batches leave free: one that the WAL keeps for states, one for edits of
/// the manifest, one for other entries of the broker.
const SEGMENTS_KEPT: u64 = 3;
/// Of what is left, the last part, in which producers are slowed down.
const SLOW_PART: u64 = 8;
/// Of what may be in use normally, the part that one object may be.
const OBJECT_PART: u64 = 4;
/// Writes of the last minute count most.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// See the module's text. Positions are bytes used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WalRoom {
    reserve_start: u64,
    slow_start: u64,
    full: u64,
}

impl WalRoom {
    /// `reserve_percent` is of the bytes that producers may use without being slowed down.
    pub(crate) fn new(capacity: u64, segment_size: u64, reserve_percent: u32) -> Self {
        let full = capacity.saturating_sub(SEGMENTS_KEPT * segment_size);
        let slow_start = full - full / SLOW_PART;
        let reserve = slow_start / 100 * u64::from(reserve_percent.min(100));
        Self { reserve_start: slow_start - reserve, slow_start, full }
    }

    /// Bytes kept for when the store is away.
    pub(crate) fn reserve(&self) -> u64 {
        self.slow_start - self.reserve_start
    }

    /// What of the reserve is left.
    pub(crate) fn reserve_free(&self, used: u64) -> u64 {
        self.slow_start.saturating_sub(used).min(self.reserve())
    }

    /// Whole seconds until producers are slowed down, if `rate` bytes a second are written and
    /// nothing becomes free.
    pub(crate) fn seconds_left(&self, used: u64, rate: u64) -> u64 {
        self.slow_start.saturating_sub(used) / rate.max(1)
    }

    /// More than half of what may be in use normally: time for an object, whatever its size.
    pub(crate) fn wants_offload(&self, used: u64) -> bool {
        used > self.reserve_start / 2
    }

    /// Bytes of an object, so that one being gathered and one on its way leave the reserve alone.
    pub(crate) fn object_size_max(&self) -> u64 {
        self.reserve_start / OBJECT_PART
    }

    /// Milliseconds for which a producer should hold back: none until the reserve is used up, then
    /// more with each byte.
    pub(crate) fn throttle_ms(&self, used: u64) -> i32 {
        let most = u64::from(THROTTLE_MS_MAX.unsigned_abs());
        let (above, all) = (used.saturating_sub(self.slow_start), self.full - self.slow_start);
        let share = if above == 0 { 0 } else { above.saturating_mul(most) / all.max(1) };
        i32::try_from(share.min(most)).unwrap_or(THROTTLE_MS_MAX)
    }
}

/// Bytes a second, as a decaying average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteRate {
    average: u64,
    /// The count of bytes at the last look.
    count: u64,
    looked: Instant,
    /// What the average is over: less than the window at first.
    window: Duration,
}

impl WriteRate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { average: 0, count: 0, looked: now, window: Duration::ZERO }
    }

    /// `count` bytes were written up to now; returns the average.
    pub(crate) fn look(&mut self, count: u64, now: Instant) -> u64 {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let since = now.saturating_duration_since(self.looked);
        let (window, step) = (millis(self.window), millis(since));
        if step > 0 {
            let written = count.saturating_sub(self.count).saturating_mul(1000);
            let before = self.average.saturating_mul(window);
            self.average = before.saturating_add(written) / window.saturating_add(step);
            self.window = RATE_WINDOW.min(self.window + since);
            (self.count, self.looked) = (count, now);
        }
        self.average
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_room_is_shared_out_as_drawn() {
        let room = WalRoom::new(128 * MIB, 8 * MIB, 50);
        // 24 MiB are the broker's; of 104, producers are slowed down in the last 13.
        assert_eq!(room.full, 104 * MIB);
        assert_eq!(room.slow_start, 91 * MIB);
        assert!(room.reserve().abs_diff(room.slow_start / 2) < 100);
        assert_eq!(room.reserve() + room.reserve_start, room.slow_start);
        assert!(!room.wants_offload(22 * MIB) && room.wants_offload(23 * MIB));
        assert!(2 * room.object_size_max() <= room.reserve_start / 2);
    }

    #[test]
    fn the_reserve_is_left_alone_then_used_and_then_producers_are_slowed_down() {
        let room = WalRoom::new(128 * MIB, 8 * MIB, 50);
        assert_eq!(room.reserve_free(0), room.reserve());
        assert_eq!(room.reserve_free(room.reserve_start), room.reserve());
        assert_eq!(room.reserve_free(room.slow_start - MIB), MIB);
        assert_eq!(room.reserve_free(room.full), 0);
        assert_eq!([0, room.reserve_start, room.slow_start].map(|at| room.throttle_ms(at)), [0; 3]);
        let steps: Vec<_> = (91..=104).map(|used| room.throttle_ms(used * MIB)).collect();
        assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
        assert_eq!(steps.last(), Some(&THROTTLE_MS_MAX));
        assert_eq!(room.throttle_ms(u64::MAX), THROTTLE_MS_MAX);
    }

    #[test]
    fn no_reserve_and_no_room_are_possible() {
        let none = WalRoom::new(128 * MIB, 8 * MIB, 0);
        assert_eq!((none.reserve(), none.reserve_start), (0, 91 * MIB));
        let all = WalRoom::new(128 * MIB, 8 * MIB, 100);
        assert!(all.reserve_start < 100);
        let tiny = WalRoom::new(3 * MIB, MIB, 50);
        assert_eq!((tiny.full, tiny.throttle_ms(0), tiny.throttle_ms(1)), (0, 0, THROTTLE_MS_MAX));
    }

    #[test]
    fn the_reserve_buys_time_by_the_rate_of_writes() {
        let room = WalRoom::new(128 * MIB, 8 * MIB, 50);
        assert_eq!(room.seconds_left(0, MIB), 91);
        assert_eq!(room.seconds_left(81 * MIB, 10 * MIB), 1);
        assert_eq!(room.seconds_left(91 * MIB, MIB), 0);
        assert_eq!(room.seconds_left(91 * MIB - 7, 0), 7);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn the_rate_is_known_at_once_and_follows_slowly() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut rate = WriteRate::new(start);
        assert_eq!(rate.look(0, start), 0);
        assert_eq!(rate.look(100_000, at(100)), 1_000_000);
        assert_eq!(rate.look(200_000, at(200)), 1_000_000);
        // Ten minutes of 1 MB/s, then nothing: a minute later about a third is left.
        let steady = (3..=6000).map(|tick| rate.look(tick * 100_000, at(tick * 100))).last();
        assert_eq!(steady, Some(1_000_000));
        let idle = (6001..=6600).map(|tick| rate.look(600_000_000, at(tick * 100))).last();
        assert!(idle.is_some_and(|rate| (300_000..400_000).contains(&rate)), "{idle:?}");
        let long = (6601..20_000).map(|tick| rate.look(600_000_000, at(tick * 100))).last();
        assert_eq!(long, Some(0));
    }
}
