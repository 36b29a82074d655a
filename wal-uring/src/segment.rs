//! Segment header: the first block of each segment. Normative: `docs/formats/wal-segment.md`.
//!
//! ```text
//! offset  size  field           integers are little-endian
//!      0     4  crc             CRC-32C of bytes 4..64
//!      4     4  magic           "WSG1"; the digit is the format version
//!      8     8  segment_number  LSN of the segment's start / segment size
//!     16    16  ring_id         identity of the ring
//!     32     8  writer_epoch    who wrote it
//!     40     8  durable_lsn     all before it was durable when this header was written
//!     48    16  reserved        zero
//! ```
//!
//! It travels in the same device write as the segment's first frame. Recovery does not need it to
//! read that frame, which names its own LSN and ring: a damaged header costs nothing but is
//! reported. Its use is as evidence: the durable LSN of each segment lies at a known place, found
//! without walking the log.

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use crate::{BLOCK_SIZE_MIN, Lsn, WriterEpoch};

pub const SEGMENT_HEADER_SIZE: usize = 64;
const MAGIC: [u8; 4] = *b"WSG1";

const _: () = {
    assert!(size_of::<Layout>() == SEGMENT_HEADER_SIZE);
    assert!(offset_of!(Layout, ring_id) == 16);
    assert!(offset_of!(Layout, durable_lsn) == 40);
    assert!(BLOCK_SIZE_MIN.is_multiple_of(SEGMENT_HEADER_SIZE));
};

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SegmentError {
    #[error("segment header checksum is {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("unknown segment magic {found:02x?}")]
    Magic { found: [u8; 4] },
}

/// What a segment header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentHeader {
    pub segment_number: u64,
    pub ring_id: Uuid,
    pub writer_epoch: WriterEpoch,
    pub durable_lsn: Lsn,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE] {
        let mut layout = Layout {
            crc: U32::ZERO,
            magic: MAGIC,
            segment_number: self.segment_number.into(),
            ring_id: self.ring_id.into_bytes(),
            writer_epoch: self.writer_epoch.get().into(),
            durable_lsn: self.durable_lsn.get().into(),
            reserved: [0; 16],
        };
        layout.crc = checksum(&layout).into();
        transmute!(layout)
    }

    /// Believes no field before the checksum that covers it.
    pub fn decode(bytes: [u8; SEGMENT_HEADER_SIZE]) -> Result<Self, SegmentError> {
        let layout: Layout = transmute!(bytes);
        let (stored, computed) = (layout.crc.get(), checksum(&layout));
        if stored != computed {
            return Err(SegmentError::Checksum { stored, computed });
        }
        if layout.magic != MAGIC {
            return Err(SegmentError::Magic { found: layout.magic });
        }
        Ok(Self {
            segment_number: layout.segment_number.get(),
            ring_id: Uuid::from_bytes(layout.ring_id),
            writer_epoch: WriterEpoch::new(layout.writer_epoch.get()),
            durable_lsn: Lsn::new(layout.durable_lsn.get()),
        })
    }

    /// `decode` of the first 64 bytes of a block.
    pub fn decode_block(block: &[u8]) -> Result<Self, SegmentError> {
        Self::decode(*block.first_chunk().expect("a block is longer than a header"))
    }
}

/// The table above, byte for byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout {
    crc: U32,
    magic: [u8; 4],
    segment_number: U64,
    ring_id: [u8; 16],
    writer_epoch: U64,
    durable_lsn: U64,
    reserved: [u8; 16],
}

fn checksum(layout: &Layout) -> u32 {
    crc32c::crc32c(&layout.as_bytes()[offset_of!(Layout, magic)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; SEGMENT_HEADER_SIZE] = *include_bytes!("../testdata/segment.v1.bin");

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        let header = SegmentHeader {
            segment_number: 9,
            ring_id: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            writer_epoch: WriterEpoch::new(3),
            durable_lsn: Lsn::new(0x8_0000),
        };
        crate::golden::check("segment.v1.bin", &header.encode());
        assert_eq!(SegmentHeader::decode(GOLDEN), Ok(header));
    }

    #[test]
    fn every_bit_flip_is_refused() {
        for bit in 0..SEGMENT_HEADER_SIZE * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(bytes).is_err(), "bit {bit}");
        }
    }
}
