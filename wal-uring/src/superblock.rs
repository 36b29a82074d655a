//! Superblock: what a slice is, who owns it, from where to recover. Normative:
//! `docs/formats/wal-superblock.md`.
//!
//! ```text
//! offset  size  field              integers are little-endian
//!      0     4  crc                CRC-32C of bytes 4..512
//!      4     4  copy_index         which of the copies this is
//!      8     8  magic              "TAILRWAL"
//!     16     4  version            format version: 1
//!     20     4  block_size         bytes; frames are aligned to it
//!     24     8  sequence           grows by one with each update; the highest valid one rules
//!     32    16  cluster_id
//!     48    16  ring_id            identity of the ring; a new one at each format
//!     64     4  node_id            signed
//!     68     2  slice_index        which slice of the device
//!     70     2  slice_count
//!     72     8  slice_offset       device offset of the slice, bytes
//!     80     8  slice_size         bytes
//!     88     8  segment_size       bytes
//!     96     4  segment_count
//!    100     4  flags              bit 0: clean shutdown
//!    104     8  window_size        bytes; bounds how far writes run ahead of the durable LSN
//!    112     8  writer_epoch       of the last opening
//!    120     8  trimmed_lsn        recovery starts here; a segment's start
//!    128     8  durable_lsn_hint   all before it is durable; the log may be longer
//!    136     4  incarnation        of the node's disk: 0 for its first, then by chance
//!    140   372  reserved           zero
//! ```
//!
//! `crc`, `magic` and `version` keep their places in all versions.

mod copies;
mod update;

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

pub use copies::{
    COPY_COUNT, COPY_SIZE, CopyFault, LoadError, Loaded, copy_offset, encode_block, load, store,
};
pub(crate) use update::SuperblockUpdate;

use crate::ring::{RingLayout, SUPERBLOCK_AREA_SIZE};
use crate::{BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, Lsn, WriterEpoch};

pub const SUPERBLOCK_SIZE: usize = 512;
const MAGIC: [u8; 8] = *b"TAILRWAL";
pub const VERSION: u32 = 1;
const FLAG_CLEAN: u32 = 1;
/// Fewer segments than this leave no room to trim while writing.
pub const SEGMENT_COUNT_MIN: u32 = 4;
/// Smaller segments could not hold a useful entry.
pub const SEGMENT_SIZE_MIN: u64 = 32 << 10;

const _: () = {
    assert!(size_of::<Layout>() == SUPERBLOCK_SIZE);
    assert!(offset_of!(Layout, cluster_id) == 32);
    assert!(offset_of!(Layout, segment_size) == 88);
    assert!(offset_of!(Layout, durable_lsn_hint) == 128);
    assert!(offset_of!(Layout, incarnation) == 136);
    assert!(SUPERBLOCK_SIZE <= BLOCK_SIZE_MIN);
};

/// What all copies agree on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Superblock {
    pub sequence: u64,
    pub cluster_id: Uuid,
    pub ring_id: Uuid,
    pub node_id: i32,
    /// 0 for a node's first disk; another number for each that replaces a lost one.
    pub incarnation: u32,
    pub slice_index: u16,
    pub slice_count: u16,
    pub slice_size: u64,
    pub layout: RingLayout,
    pub writer_epoch: WriterEpoch,
    pub trimmed_lsn: Lsn,
    pub durable_lsn_hint: Lsn,
    pub clean: bool,
}

/// Why a block is no valid superblock copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CopyError {
    #[error("all zeros")]
    Blank,
    #[error("not a Tailrace superblock")]
    Foreign,
    #[error("checksum is {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("format version {found}, this build reads version {VERSION}")]
    Version { found: u32 },
    #[error("copy {found} stands in the place of copy {expected}")]
    Misplaced { expected: u32, found: u32 },
    #[error("{field} has an impossible value")]
    Field { field: &'static str },
}

impl Superblock {
    /// Believes no field before the checksum that covers it.
    pub fn decode(bytes: &[u8; SUPERBLOCK_SIZE], copy_index: u32) -> Result<Self, CopyError> {
        let layout: Layout = transmute!(*bytes);
        let (stored, computed) = (layout.crc.get(), checksum(&layout));
        if stored != computed {
            return Err(if bytes.iter().all(|&byte| byte == 0) {
                CopyError::Blank
            } else if layout.magic == MAGIC {
                CopyError::Checksum { stored, computed }
            } else {
                CopyError::Foreign
            });
        }
        if layout.magic != MAGIC {
            return Err(CopyError::Foreign);
        }
        if layout.version != VERSION {
            return Err(CopyError::Version { found: layout.version.get() });
        }
        if layout.copy_index != copy_index {
            let found = layout.copy_index.get();
            return Err(CopyError::Misplaced { expected: copy_index, found });
        }
        let superblock = layout.to_superblock();
        // Far below what `encode` accepts: whatever is read may be counted on from.
        superblock.check(1 << 60).map_err(|field| CopyError::Field { field })?;
        Ok(superblock)
    }

    pub fn encode(&self, copy_index: u32) -> [u8; SUPERBLOCK_SIZE] {
        assert_eq!(self.check(1 << 62), Ok(()), "an impossible superblock");
        let mut layout = Layout::of(self, copy_index);
        layout.crc = checksum(&layout).into();
        transmute!(layout)
    }

    /// The relations that the rest of the code leans on; a checksum does not prove them, since
    /// anyone can compute one. Names the field that breaks them.
    fn check(&self, count_max: u64) -> Result<(), &'static str> {
        let RingLayout { slice_offset, segment_size, segment_count, block_size, window_size } =
            self.layout;
        let ensure = |holds: bool, field| if holds { Ok(()) } else { Err(field) };
        let block = u64::from(block_size);
        let block_known = block_size.is_power_of_two()
            && (BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&self.layout.block());
        ensure(block_known, "block_size")?;
        ensure(self.slice_index < self.slice_count, "slice_index")?;
        ensure(slice_offset.is_multiple_of(COPY_SIZE as u64), "slice_offset")?;
        ensure(slice_offset.checked_add(self.slice_size).is_some(), "slice_size")?;
        let segment_fits = segment_size.is_multiple_of(block)
            && (SEGMENT_SIZE_MIN..=1 << 30).contains(&segment_size)
            && segment_size >= 8 * block;
        ensure(segment_fits, "segment_size")?;
        ensure(segment_count >= SEGMENT_COUNT_MIN, "segment_count")?;
        let ring_fits = SUPERBLOCK_AREA_SIZE + self.layout.capacity() <= self.slice_size;
        ensure(ring_fits, "segment_count")?;
        ensure((segment_size..=self.layout.capacity()).contains(&window_size), "window_size")?;
        ensure(self.writer_epoch.get() < count_max, "writer_epoch")?;
        ensure(self.sequence < count_max, "sequence")?;
        ensure(self.layout.opens_segment(self.trimmed_lsn), "trimmed_lsn")?;
        // Far from overflow, so that positions may be added without a check.
        ensure(self.durable_lsn_hint.get() < count_max, "durable_lsn_hint")?;
        ensure(self.trimmed_lsn <= self.durable_lsn_hint, "trimmed_lsn")?;
        let in_ring = self.durable_lsn_hint.since(self.trimmed_lsn) <= self.layout.capacity();
        ensure(in_ring, "durable_lsn_hint")
    }
}

/// The table above, byte for byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout {
    crc: U32,
    copy_index: U32,
    magic: [u8; 8],
    version: U32,
    block_size: U32,
    sequence: U64,
    cluster_id: [u8; 16],
    ring_id: [u8; 16],
    node_id: I32,
    slice_index: U16,
    slice_count: U16,
    slice_offset: U64,
    slice_size: U64,
    segment_size: U64,
    segment_count: U32,
    flags: U32,
    window_size: U64,
    writer_epoch: U64,
    trimmed_lsn: U64,
    durable_lsn_hint: U64,
    incarnation: U32,
    reserved: [u8; 372],
}

impl Layout {
    fn of(superblock: &Superblock, copy_index: u32) -> Self {
        Self {
            crc: U32::ZERO,
            copy_index: copy_index.into(),
            magic: MAGIC,
            version: VERSION.into(),
            block_size: superblock.layout.block_size.into(),
            sequence: superblock.sequence.into(),
            cluster_id: superblock.cluster_id.into_bytes(),
            ring_id: superblock.ring_id.into_bytes(),
            node_id: superblock.node_id.into(),
            slice_index: superblock.slice_index.into(),
            slice_count: superblock.slice_count.into(),
            slice_offset: superblock.layout.slice_offset.into(),
            slice_size: superblock.slice_size.into(),
            segment_size: superblock.layout.segment_size.into(),
            segment_count: superblock.layout.segment_count.into(),
            flags: if superblock.clean { FLAG_CLEAN } else { 0 }.into(),
            window_size: superblock.layout.window_size.into(),
            writer_epoch: superblock.writer_epoch.get().into(),
            trimmed_lsn: superblock.trimmed_lsn.get().into(),
            durable_lsn_hint: superblock.durable_lsn_hint.get().into(),
            incarnation: superblock.incarnation.into(),
            reserved: [0; 372],
        }
    }

    fn to_superblock(self) -> Superblock {
        Superblock {
            sequence: self.sequence.get(),
            cluster_id: Uuid::from_bytes(self.cluster_id),
            ring_id: Uuid::from_bytes(self.ring_id),
            node_id: self.node_id.get(),
            incarnation: self.incarnation.get(),
            slice_index: self.slice_index.get(),
            slice_count: self.slice_count.get(),
            slice_size: self.slice_size.get(),
            layout: RingLayout {
                slice_offset: self.slice_offset.get(),
                segment_size: self.segment_size.get(),
                segment_count: self.segment_count.get(),
                block_size: self.block_size.get(),
                window_size: self.window_size.get(),
            },
            writer_epoch: WriterEpoch::new(self.writer_epoch.get()),
            trimmed_lsn: Lsn::new(self.trimmed_lsn.get()),
            durable_lsn_hint: Lsn::new(self.durable_lsn_hint.get()),
            clean: self.flags.get() & FLAG_CLEAN != 0,
        }
    }
}

fn checksum(layout: &Layout) -> u32 {
    crc32c::crc32c(&layout.as_bytes()[offset_of!(Layout, copy_index)..])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const GOLDEN: [u8; SUPERBLOCK_SIZE] = *include_bytes!("../testdata/superblock.v1.bin");

    pub(crate) fn sample() -> Superblock {
        Superblock {
            sequence: 5,
            cluster_id: Uuid::from_u128(0xc0ff_ee00_0000_0000_0000_0000_0000_0001),
            ring_id: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            node_id: 3,
            incarnation: 0,
            slice_index: 1,
            slice_count: 2,
            slice_size: 1 << 20,
            layout: RingLayout {
                slice_offset: 1 << 20,
                segment_size: 64 << 10,
                segment_count: 15,
                block_size: 4096,
                window_size: 64 << 10,
            },
            writer_epoch: WriterEpoch::new(4),
            trimmed_lsn: Lsn::new(128 << 10),
            durable_lsn_hint: Lsn::new(200 << 10),
            clean: true,
        }
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        crate::golden::check("superblock.v1.bin", &sample().encode(2));
        assert_eq!(Superblock::decode(&GOLDEN, 2), Ok(sample()));
        let misplaced = CopyError::Misplaced { expected: 0, found: 2 };
        assert_eq!(Superblock::decode(&GOLDEN, 0), Err(misplaced));
    }

    #[test]
    fn a_later_disk_of_a_node_returns_as_it_went() {
        let later = Superblock { incarnation: 0x0a0b_0c0d, ..sample() };
        let bytes = later.encode(0);
        assert_eq!(bytes[136..140], [0x0d, 0x0c, 0x0b, 0x0a]);
        assert_eq!(Superblock::decode(&bytes, 0), Ok(later));
    }

    #[test]
    fn every_bit_flip_is_refused() {
        for bit in 0..SUPERBLOCK_SIZE * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bytes, 2).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn impossible_fields_under_a_good_checksum_are_refused() {
        type Change = fn(&mut Layout);
        let changes: [(&str, Change); 7] = [
            ("block_size", |layout| layout.block_size = 3000.into()),
            ("slice_index", |layout| layout.slice_index = 2.into()),
            ("slice_size", |layout| layout.slice_size = u64::MAX.into()),
            ("segment_size", |layout| layout.segment_size = 0.into()),
            ("segment_count", |layout| layout.segment_count = u32::MAX.into()),
            ("trimmed_lsn", |layout| layout.trimmed_lsn = 1.into()),
            ("durable_lsn_hint", |layout| layout.durable_lsn_hint = (1 << 59).into()),
        ];
        for (field, change) in changes {
            let mut layout = Layout::of(&sample(), 0);
            change(&mut layout);
            layout.crc = checksum(&layout).into();
            assert_eq!(Superblock::decode(&transmute!(layout), 0), Err(CopyError::Field { field }));
        }
    }
}
