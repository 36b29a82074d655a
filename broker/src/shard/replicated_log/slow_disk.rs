//! Tells a leader whose disk is slower than a majority of the others': it costs nobody an
//! acknowledgement, since those commit without it, but whoever reads or leads waits for it.

use std::time::{Duration, Instant};

/// A write that takes so long is late, if a majority had it before.
const LATE: Duration = Duration::from_millis(50);
/// All writes of so long, and so many, have to be late before the disk counts as slow.
const LATE_FOR: Duration = Duration::from_secs(1);
const LATE_COUNT: u32 = 5;
/// A leader that has handed over for its disk leaves it at that for a while: if all are as slow,
/// nothing is won by it.
const REST: Duration = Duration::from_secs(30);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct SlowDisk {
    late_since: Option<Instant>,
    late: u32,
    not_before: Option<Instant>,
}

impl SlowDisk {
    /// A write of a group that is led here took so long; `majority_has_it`: it did not wait for
    /// this disk.
    pub(super) fn written(&mut self, took: Duration, majority_has_it: bool, now: Instant) {
        if took < LATE || !majority_has_it {
            (self.late_since, self.late) = (None, 0);
        } else {
            self.late_since.get_or_insert(now);
            self.late += 1;
        }
    }

    /// Is it time that another broker leads? Told once. `open`: how long the oldest write is under
    /// way of which a majority has what is written.
    pub(super) fn should_hand_over(&mut self, open: Option<Duration>, now: Instant) -> bool {
        if self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        let long = |since| now.saturating_duration_since(since) >= LATE_FOR;
        let is_late = self.late >= LATE_COUNT && self.late_since.is_some_and(long);
        let is_slow = is_late || open.is_some_and(|open| open >= LATE_FOR);
        if is_slow {
            *self = Self { not_before: Some(now + REST), ..Self::default() };
        }
        is_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn only_a_disk_that_is_late_all_the_time_is_slow() {
        let (mut disk, start) = (SlowDisk::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let write = |disk: &mut SlowDisk, from: u64, count: u64, took: Duration, ahead| {
            (0..count).for_each(|each| disk.written(took, ahead, at(from + 200 * each)));
        };
        write(&mut disk, 0, 6, LATE, true);
        assert!(!disk.should_hand_over(None, at(999)), "not for long");
        disk.written(LATE / 2, true, at(1_000));
        assert!(!disk.should_hand_over(None, at(2_000)), "one was in time");
        write(&mut disk, 2_000, 6, LATE, false);
        assert!(!disk.should_hand_over(None, at(4_000)), "the others are no faster");
        write(&mut disk, 4_000, 4, LATE, true);
        assert!(!disk.should_hand_over(None, at(6_000)), "too few");
        write(&mut disk, 6_000, 1, LATE, true);
        assert!(disk.should_hand_over(None, at(6_000)));
        write(&mut disk, 6_100, 20, LATE, true);
        assert!(!disk.should_hand_over(Some(LATE_FOR), at(35_999)), "it has just done so");
        assert!(disk.should_hand_over(None, at(36_000)));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn a_write_that_does_not_end_is_enough() {
        let (mut disk, now) = (SlowDisk::default(), Instant::now());
        assert!(!disk.should_hand_over(Some(LATE_FOR / 2), now));
        assert!(disk.should_hand_over(Some(LATE_FOR), now));
    }
}
