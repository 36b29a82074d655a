//! Counters of one WAL since it was opened.

use crate::Lsn;
use crate::frame::FrameKind;

/// Buckets of a power-of-two histogram: bucket n counts values in 2^n .. 2^(n + 1).
pub const SIZE_BUCKETS: usize = 32;

/// Counted since open; fill is of the moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WalStats {
    pub records: u64,
    /// Bytes of data appended, without headers and padding.
    pub record_bytes: u64,
    pub data_frames: u64,
    pub seal_frames: u64,
    pub mark_frames: u64,
    /// Bytes handed to the device for frames, padding and segment headers included.
    pub written_bytes: u64,
    /// Data frames by records in them.
    pub frame_records: [u64; SIZE_BUCKETS],
    /// Data frames by bytes written.
    pub frame_bytes: [u64; SIZE_BUCKETS],
    pub superblock_updates: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub read_errors: u64,
    /// Appends refused because the frames before them are still being written.
    pub busy: u64,
    /// Appends refused because the ring is full.
    pub full: u64,
    pub writes_in_flight: usize,
    pub written_lsn: Lsn,
    pub durable_lsn: Lsn,
    pub trimmed_lsn: Lsn,
    /// Bytes of the ring between the trim point and the end of the log.
    pub used_bytes: u64,
    pub capacity_bytes: u64,
    /// Bytes of `capacity_bytes` that only state records may use.
    pub reserve_bytes: u64,
}

impl WalStats {
    pub(crate) fn count_frame(&mut self, kind: FrameKind, record_count: u32, size: usize) {
        self.written_bytes += size as u64;
        match kind {
            FrameKind::Data => {
                self.data_frames += 1;
                self.frame_records[bucket(u64::from(record_count))] += 1;
                self.frame_bytes[bucket(size as u64)] += 1;
            }
            FrameKind::Seal => self.seal_frames += 1,
            FrameKind::Mark => self.mark_frames += 1,
        }
    }
}

fn bucket(value: u64) -> usize {
    let log = value.checked_ilog2().unwrap_or(0) as usize;
    log.min(SIZE_BUCKETS - 1)
}
