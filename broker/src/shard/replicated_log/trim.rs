//! What of the WAL is in use, and what of it no group needs any more.

use model::{LogIndex, RaftGroupId};
use s3_uploader::{FailPoint, fail_point};
use wal_uring::Lsn;

use super::{ReplicatedLog, group_of};

impl ReplicatedLog {
    /// Gives up the prefix of the WAL that no group needs. Groups whose state records lie in it
    /// write them again first: recovery reads them only from what is left.
    pub(super) fn trim(&mut self) {
        let durable = self.wal.durable_lsn();
        self.forgetting.retain(|_, end| end.is_none_or(|end| end > durable));
        let is_settled =
            self.rewriting.is_empty() && self.forgetting.is_empty() && self.snapshots.is_empty();
        if !is_settled || self.wal.trimmable(durable) == 0 {
            return;
        }
        let needed = |group| self.place_of(group, self.driver.first_index(group));
        let entries = self.groups.keys().map(needed).min().unwrap_or(self.appended_end);
        if self.wal.trimmable(entries) == 0 {
            return;
        }
        let mut behind: Vec<_> = self
            .states
            .iter()
            .filter(|(_, at)| self.wal.trimmable(**at) < self.wal.trimmable(entries))
            .map(|(stream, _)| group_of(*stream))
            .collect();
        behind.dedup();
        if behind.is_empty() {
            self.wal.trim(entries);
            return fail_point(FailPoint::WalTrimmed);
        }
        behind.iter().for_each(|group| self.driver.rewrite_state(*group));
        self.rewriting = behind;
    }

    /// Bytes that the WAL can hold, and how many of them are free.
    pub(crate) fn capacity_and_free(&self) -> (u64, u64) {
        let capacity = self.wal.capacity();
        (capacity, capacity.saturating_sub(self.wal.used()))
    }

    /// Where an entry lies in the WAL, or will lie.
    pub(super) fn place_of(&self, group: RaftGroupId, index: LogIndex) -> Lsn {
        let location = self.driver.entry(group, index).and_then(|entry| entry.location);
        location.map_or(self.appended_end, Lsn::new)
    }
}
