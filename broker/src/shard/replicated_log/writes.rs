//! What the device has been given and has not made durable yet, and since when.

use std::collections::VecDeque;
use std::time::Instant;

use wal_uring::Lsn;

/// Where each write ends, the oldest first: as many as the WAL has in flight.
#[derive(Debug, Default)]
pub(super) struct Writes(VecDeque<(Lsn, Instant)>);

impl Writes {
    /// Everything before `end` has been given to the device by now.
    pub(super) fn given(&mut self, end: Lsn, durable: Lsn, now: Instant) {
        if self.0.back().map_or(durable, |(known, _)| *known) < end {
            self.0.push_back((end, now));
        }
    }

    /// Everything before `durable` is durable: tells of each write that is over since when it was
    /// the device's.
    pub(super) fn done(&mut self, durable: Lsn, mut tell: impl FnMut(Instant)) {
        while let Some((_, since)) = self.0.pop_front_if(|(end, _)| *end <= durable) {
            tell(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NONE: [Instant; 0] = [];

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn each_write_is_told_of_once_with_its_own_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut writes = Writes::default();
        let done = |writes: &mut Writes, durable| {
            let mut told = Vec::new();
            writes.done(Lsn::new(durable), |since| told.push(since));
            told
        };
        writes.given(Lsn::new(100), Lsn::new(100), at(0));
        assert_eq!(done(&mut writes, 100), NONE, "nothing was given");
        writes.given(Lsn::new(200), Lsn::new(100), at(1));
        writes.given(Lsn::new(200), Lsn::new(100), at(2));
        writes.given(Lsn::new(300), Lsn::new(100), at(3));
        assert_eq!(done(&mut writes, 199), NONE);
        assert_eq!(done(&mut writes, 300), [at(1), at(3)]);
        assert_eq!(done(&mut writes, 300), NONE);
    }
}
