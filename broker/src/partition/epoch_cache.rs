//! Where each leader epoch of a partition began (KIP-101, KIP-320).
//!
//! **Invariant**: epochs and start offsets both grow strictly from entry to entry.

use model::{LeaderEpoch, Offset, Term};

/// The leader epoch that clients see for a raft term. Terms beyond 2^31-1 are not told apart; at
/// one election a second that takes 68 years.
pub fn leader_epoch(term: Term) -> LeaderEpoch {
    LeaderEpoch::new(i32::try_from(term.get()).unwrap_or(i32::MAX))
}

/// Where an epoch ended: the answer of OffsetForLeaderEpoch, and `diverging_epoch` of Fetch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EpochEnd {
    pub epoch: LeaderEpoch,
    /// Offset after the epoch's last record.
    pub end_offset: Offset,
}

/// An epoch went back in a log that has records of a later one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("leader epoch {found} after {latest}")]
pub struct EpochWentBack {
    pub latest: LeaderEpoch,
    pub found: LeaderEpoch,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct EpochCache {
    entries: Vec<EpochStart>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EpochStart {
    pub(super) epoch: LeaderEpoch,
    pub(super) start: Offset,
}

impl EpochCache {
    /// The epochs of a snapshot, of which both numbers grow strictly.
    pub(super) fn restored(entries: Vec<EpochStart>) -> Self {
        Self { entries }
    }

    /// The epochs of the log while it reached from `log_start` to `log_end`. One that began at the
    /// end had no record yet, unless all its records were trimmed.
    pub(super) fn as_of(&self, log_start: Offset, log_end: Offset) -> &[EpochStart] {
        let had_records = |entry: &EpochStart| entry.start < log_end || entry.start <= log_start;
        &self.entries[..self.entries.partition_point(had_records)]
    }

    /// Records from `start` on are of `epoch`. An epoch that began there and got no record is
    /// forgotten, even a later one: its leader was replaced before it wrote here.
    pub(super) fn assign(
        &mut self,
        epoch: LeaderEpoch,
        start: Offset,
    ) -> Result<(), EpochWentBack> {
        let with_records = self.entries.partition_point(|entry| entry.start < start);
        if let Some(last) = self.entries[..with_records].last()
            && last.epoch >= epoch
        {
            if last.epoch == epoch {
                self.entries.truncate(with_records);
                return Ok(());
            }
            return Err(EpochWentBack { latest: last.epoch, found: epoch });
        }
        self.entries.truncate(with_records);
        self.entries.push(EpochStart { epoch, start });
        Ok(())
    }

    pub(super) fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch that wrote the record at `offset`; None if there is none in this log.
    pub(super) fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start <= offset);
        self.entries[..after].last().map(|entry| entry.epoch)
    }

    /// Where the largest known epoch up to `asked` ended. An epoch before the first known one ended
    /// where that began. None for an epoch later than all, or negative.
    pub(super) fn end_of(&self, asked: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        if asked < LeaderEpoch::new(0) {
            return None;
        }
        let later = self.entries.partition_point(|entry| entry.epoch <= asked);
        let known = self.entries[..later].last().map(|entry| entry.epoch);
        match self.entries.get(later) {
            Some(next) => Some(EpochEnd { epoch: known.unwrap_or(asked), end_offset: next.start }),
            None if known == Some(asked) => Some(EpochEnd { epoch: asked, end_offset: log_end }),
            None => None,
        }
    }

    /// The log now ends at `log_end`.
    pub(super) fn truncate(&mut self, log_end: Offset) {
        let kept = self.entries.partition_point(|entry| entry.start < log_end);
        self.entries.truncate(kept);
    }

    /// The log now starts at `log_start`: the epoch of that record starts there.
    pub(super) fn trim(&mut self, log_start: Offset) {
        let after = self.entries.partition_point(|entry| entry.start <= log_start);
        if let Some(floor) = after.checked_sub(1) {
            self.entries.drain(..floor);
            self.entries[0].start = log_start;
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.entries.capacity() * size_of::<EpochStart>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_END: Offset = Offset::new(100);

    fn epoch(value: i32) -> LeaderEpoch {
        LeaderEpoch::new(value)
    }

    /// Epoch 2 began at 0, 4 at 10, 7 at 50.
    fn cache() -> EpochCache {
        let mut cache = EpochCache::default();
        for (value, start) in [(2, 0), (4, 10), (7, 50)] {
            cache.assign(epoch(value), Offset::new(start)).expect("in order");
        }
        cache
    }

    fn ends(cache: &EpochCache, asked: i32) -> Option<(i32, i64)> {
        let end = cache.end_of(epoch(asked), LOG_END)?;
        Some((end.epoch.get(), end.end_offset.get()))
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_began() {
        let cache = cache();
        let expected = [
            (-1, None),
            (0, Some((0, 0))),
            (2, Some((2, 10))),
            (3, Some((2, 10))),
            (4, Some((4, 50))),
            (6, Some((4, 50))),
            (7, Some((7, 100))),
            (8, None),
        ];
        for (asked, end) in expected {
            assert_eq!(ends(&cache, asked), end, "epoch {asked}");
        }
        assert_eq!(ends(&EpochCache::default(), 0), None);
    }

    #[test]
    fn the_same_epoch_again_changes_nothing() {
        let mut again = cache();
        again.assign(epoch(7), Offset::new(60)).expect("same epoch");
        assert_eq!(again, cache());
    }

    #[test]
    fn an_epoch_without_records_is_replaced_even_by_an_earlier_one() {
        let mut cache = cache();
        cache.assign(epoch(9), LOG_END).expect("later");
        cache.assign(epoch(8), LOG_END).expect("9 wrote nothing");
        assert_eq!(cache.latest(), Some(epoch(8)));
        cache.assign(epoch(7), LOG_END).expect("8 wrote nothing");
        assert_eq!(cache, self::cache());
    }

    #[test]
    fn an_epoch_does_not_go_back_behind_records() {
        let error = cache().assign(epoch(6), LOG_END).expect_err("7 has records");
        assert_eq!(error, EpochWentBack { latest: epoch(7), found: epoch(6) });
    }

    #[test]
    fn finds_the_epoch_of_a_record() {
        let cache = cache();
        for (offset, expected) in
            [(-1, None), (0, Some(2)), (9, Some(2)), (10, Some(4)), (99, Some(7))]
        {
            assert_eq!(cache.at(Offset::new(offset)).map(LeaderEpoch::get), expected, "{offset}");
        }
    }

    #[test]
    fn truncation_forgets_the_epochs_it_removes() {
        let mut cache = cache();
        cache.truncate(Offset::new(51));
        assert_eq!(cache, self::cache());
        cache.truncate(Offset::new(50));
        assert_eq!(ends(&cache, 4), Some((4, 100)));
        cache.truncate(Offset::ZERO);
        assert_eq!(cache.latest(), None);
    }

    #[test]
    fn trimming_keeps_the_epoch_of_the_first_record() {
        let mut cache = cache();
        cache.trim(Offset::new(20));
        assert_eq!(ends(&cache, 2), Some((2, 20)));
        assert_eq!(ends(&cache, 4), Some((4, 50)));
        assert_eq!(cache.at(Offset::new(20)), Some(epoch(4)));
        cache.trim(Offset::new(50));
        assert_eq!(ends(&cache, 4), Some((4, 50)));
        assert_eq!(cache.at(Offset::new(50)), Some(epoch(7)));
    }

    #[test]
    fn a_term_beyond_31_bits_saturates() {
        assert_eq!(leader_epoch(Term::new(7)), epoch(7));
        assert_eq!(leader_epoch(Term::new(u64::MAX)), epoch(i32::MAX));
    }
}
