//! Where an LSN lies on the device: a ring of fixed segments behind the slice's superblocks.
//!
//! ```text
//! slice_offset        + SUPERBLOCK_AREA_SIZE   + segment_size
//! | superblock copies | segment slot 0         | slot 1 | ... | slot segment_count - 1 |
//! ```
//!
//! Segment number = LSN / segment size, slot = number % segment count.

use crate::frame::{FRAME_HEADER_SIZE, RECORD_HEADER_SIZE};
use crate::{Lsn, in_memory};

/// Bytes at the start of a slice that belong to the superblock copies.
pub const SUPERBLOCK_AREA_SIZE: u64 = 64 << 10;

/// The fixed sizes of one ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RingLayout {
    /// Device offset of the slice.
    pub slice_offset: u64,
    pub segment_size: u64,
    pub segment_count: u32,
    pub block_size: u32,
    /// A frame that ends at Y is written only while Y - durable LSN is at most this.
    pub window_size: u64,
}

impl RingLayout {
    pub const fn capacity(&self) -> u64 {
        self.segment_size * self.segment_count as u64
    }

    pub const fn block(&self) -> usize {
        self.block_size as usize
    }

    pub const fn segment_of(&self, lsn: Lsn) -> u64 {
        lsn.get() / self.segment_size
    }

    pub const fn segment_start(&self, number: u64) -> Lsn {
        Lsn::new(number.saturating_mul(self.segment_size))
    }

    pub const fn segment_start_of(&self, lsn: Lsn) -> Lsn {
        self.segment_start(self.segment_of(lsn))
    }

    pub const fn opens_segment(&self, lsn: Lsn) -> bool {
        lsn.get().is_multiple_of(self.segment_size)
    }

    /// Bytes from `lsn` to the end of its segment; a whole segment at its start.
    pub fn room_in_segment(&self, lsn: Lsn) -> usize {
        in_memory(self.segment_size - lsn.get() % self.segment_size)
    }

    /// Where the frame header of a write at `lsn` stands: behind the segment header, if there is
    /// one.
    pub const fn header_lsn(&self, lsn: Lsn) -> Lsn {
        if self.opens_segment(lsn) { lsn.advance(self.block_size as u64) } else { lsn }
    }

    pub const fn device_offset(&self, lsn: Lsn) -> u64 {
        let slot = self.segment_of(lsn) % self.segment_count as u64;
        self.slice_offset
            + SUPERBLOCK_AREA_SIZE
            + slot * self.segment_size
            + lsn.get() % self.segment_size
    }

    /// Bytes of the largest frame: a quarter of a segment.
    pub fn frame_size_max(&self) -> usize {
        in_memory(self.segment_size / 4) / self.block() * self.block()
    }

    /// Bytes of data in the largest record: a quarter of a segment with all its headers, so that
    /// closing a segment early for want of room wastes at most a quarter of it.
    pub fn entry_size_max(&self) -> usize {
        self.frame_size_max() - FRAME_HEADER_SIZE - RECORD_HEADER_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_wrap_over_slots_and_stay_in_their_segment() {
        let layout = RingLayout {
            slice_offset: 1 << 20,
            segment_size: 64 << 10,
            segment_count: 4,
            block_size: 4096,
            window_size: 64 << 10,
        };
        let first = (1 << 20) + SUPERBLOCK_AREA_SIZE;
        assert_eq!(layout.device_offset(Lsn::new(0)), first);
        assert_eq!(layout.device_offset(Lsn::new(layout.capacity() + 5)), first + 5);
        assert_eq!(layout.device_offset(Lsn::new((64 << 10) * 7 + 1)), first + (64 << 10) * 3 + 1);
        assert_eq!(layout.room_in_segment(Lsn::new((64 << 10) + 4096)), 60 << 10);
        assert_eq!(layout.header_lsn(Lsn::new(64 << 10)), Lsn::new((64 << 10) + 4096));
    }
}
