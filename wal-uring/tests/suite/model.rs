//! What was appended and acknowledged, to compare recovery with.

use std::collections::VecDeque;

use wal_uring::sim::Injected;
use wal_uring::{Location, Lsn, RecoveryReport, StreamId};

/// (term, index) of an entry, stream, data, location.
pub(crate) type Found = (Option<(u64, u64)>, StreamId, Vec<u8>, Location);

#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) record: Found,
    /// Durable when the durable LSN has reached this.
    pub(crate) end: Lsn,
}

/// A completed frame write, and the durable LSN in its headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Witness {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) durable_lsn: Lsn,
}

#[derive(Default)]
pub(crate) struct Model {
    /// In LSN order.
    pub(crate) records: VecDeque<Expected>,
    pub(crate) durable_lsn: Lsn,
    pub(crate) trim_requested: Lsn,
    /// Trim point that was durable for sure.
    pub(crate) trim_durable: Lsn,
    /// What may be said durable by frames on the device.
    pub(crate) witnesses: Vec<Witness>,
    /// Superblock copies damaged while the WAL was down: recovery must report and repair them.
    pub(crate) damaged_copies: Vec<u32>,
    /// The least durable LSN that recovery must know of, after a lie.
    proven_lsn: Lsn,
}

impl Model {
    /// After a lie of the device: which witnesses are still to be believed in.
    pub(crate) fn discount(&mut self, injected: &Injected) {
        let hit: Vec<(u64, u64)> = injected
            .lost
            .iter()
            .copied()
            .chain(
                injected.misdirected.iter().flat_map(|&(from, to, len)| [(from, len), (to, len)]),
            )
            .collect();
        let spared = |witness: &&Witness| {
            hit.iter().all(|&(offset, len)| {
                offset + len <= witness.offset || witness.offset + witness.len <= offset
            })
        };
        let proven = self.witnesses.iter().filter(spared).map(|witness| witness.durable_lsn).max();
        self.proven_lsn = proven.unwrap_or_default();
    }

    /// Everything acknowledged is there, in order, byte for byte, and nothing else but a prefix
    /// of what was appended after it.
    pub(crate) fn check_recovered(&mut self, report: &RecoveryReport, found: &[Found], lied: bool) {
        let trimmed = report.trimmed_lsn;
        if !lied {
            assert!(trimmed >= self.trim_durable, "the trim point went back");
        }
        assert!(trimmed <= self.trim_requested, "trimmed more than was asked for");
        while self.records.front().is_some_and(|first| first.record.3.lsn < trimmed) {
            self.records.pop_front();
        }
        for (index, record) in found.iter().enumerate() {
            let expected =
                self.records.get(index).unwrap_or_else(|| panic!("invented: {record:?}"));
            assert!(expected.record == *record, "record {index} differs from what was appended");
        }
        let must_reach = if lied { self.proven_lsn } else { self.durable_lsn };
        let lost = self.records.get(found.len()).filter(|record| record.end <= must_reach);
        assert!(lost.is_none(), "lost: {:?}, durable to {must_reach}", lost.map(|it| it.record.3));
        assert!(report.durable_lsn >= must_reach, "the log ends before {must_reach}");
        let repaired =
            |copy: &u32| report.superblock_faults.iter().any(|it| it.copy_index == *copy);
        assert!(self.damaged_copies.iter().all(repaired), "a damaged copy was not reported");
        self.damaged_copies.clear();
        self.records.truncate(found.len());
        self.durable_lsn = report.durable_lsn;
        (self.trim_durable, self.trim_requested) = (trimmed, trimmed);
        self.witnesses.clear();
    }

    pub(crate) fn durable(&self) -> usize {
        self.records.partition_point(|record| record.end <= self.durable_lsn)
    }
}
