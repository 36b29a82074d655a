//! WAL frame header: the 64 bytes before each payload. Normative: `docs/formats/wal-frame.md`.
//!
//! ```text
//! offset  size  field         integers are little-endian
//!      0     4  header_crc    CRC-32C of bytes 4..64
//!      4     4  payload_crc   CRC-32C of the payload
//!      8     4  magic         "WFR1"; the digit is the format version
//!     12     4  payload_size  bytes of payload, padding not counted
//!     16     8  lsn           where this header starts in the log
//!     24     8  writer_epoch  fences a writer that was replaced
//!     32     8  durable_lsn   all before it was durable when this frame was written
//!     40    16  ring_id       identity of the ring; a new one at each format
//!     56     4  record_count  records in the payload
//!     60     1  kind          1 data, 2 seal, 3 mark
//!     61     3  reserved      zero
//! ```
//!
//! The LSN is here because segments are recycled: a frame of an earlier lap has good checksums. The
//! ring id is here because devices are reformatted. The durable LSN is what tells a torn tail from
//! corruption: a frame that says "all before N was durable" convicts every bad frame before N.

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use crate::{BLOCK_SIZE_MIN, Lsn, WriterEpoch};

pub const FRAME_HEADER_SIZE: usize = 64;
const MAGIC: [u8; 4] = *b"WFR1";
const MAGIC_FAMILY: [u8; 3] = *b"WFR";

const _: () = {
    assert!(size_of::<Layout>() == FRAME_HEADER_SIZE);
    assert!(offset_of!(Layout, lsn) == 16);
    assert!(offset_of!(Layout, ring_id) == 40);
    assert!(offset_of!(Layout, kind) == 60);
    // Frames are aligned to the block, so no header straddles two sectors: it is torn whole.
    assert!(BLOCK_SIZE_MIN.is_multiple_of(FRAME_HEADER_SIZE));
};

/// What a frame is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameKind {
    /// Records of one group commit.
    Data,
    /// No payload: the rest of the segment is unused, the log goes on in the next one.
    Seal,
    /// No payload: written after idle, to carry the durable LSN past the last data frame.
    Mark,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Seal => 2,
            Self::Mark => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Data),
            2 => Some(Self::Seal),
            3 => Some(Self::Mark),
            _ => None,
        }
    }
}

/// Why 64 bytes are no frame header at all. Where a well-formed header may stand, and whether it
/// belongs to this ring, is `recovery::decision`'s to say.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeaderError {
    #[error("header checksum is {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("unknown frame magic {found:02x?}")]
    Magic { found: [u8; 4] },
    #[error("frame format version {found}, this build reads version 1")]
    Version { found: char },
    #[error("unknown frame kind {found}")]
    Kind { found: u8 },
    #[error("{kind:?} frame with {payload_size} bytes and {record_count} records")]
    Shape { kind: FrameKind, payload_size: u32, record_count: u32 },
    #[error("frame at {lsn} claims that the log was durable to {durable_lsn}, past itself")]
    Claim { lsn: Lsn, durable_lsn: Lsn },
}

/// What a header says; plain values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameFields {
    pub kind: FrameKind,
    pub lsn: Lsn,
    pub writer_epoch: WriterEpoch,
    pub durable_lsn: Lsn,
    pub ring_id: Uuid,
    pub record_count: u32,
}

/// A checked header: `new` and `decode` are the only ways to obtain one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameHeader {
    layout: Layout,
    kind: FrameKind,
}

impl FrameHeader {
    /// `payload_crc`: the CRC-32C of the payload.
    pub fn new(fields: &FrameFields, payload_size: usize, payload_crc: u32) -> Self {
        assert!(fields.durable_lsn <= fields.lsn, "a frame cannot be durable before it is written");
        assert_eq!(payload_size == 0, fields.kind != FrameKind::Data, "only data has a payload");
        let payload_size = u32::try_from(payload_size).expect("group commit caps the payload");
        let mut layout = Layout {
            header_crc: U32::ZERO,
            payload_crc: payload_crc.into(),
            magic: MAGIC,
            payload_size: payload_size.into(),
            lsn: fields.lsn.get().into(),
            writer_epoch: fields.writer_epoch.get().into(),
            durable_lsn: fields.durable_lsn.get().into(),
            ring_id: fields.ring_id.into_bytes(),
            record_count: fields.record_count.into(),
            kind: fields.kind.code(),
            reserved: [0; 3],
        };
        layout.header_crc = checksum(&layout).into();
        Self { layout, kind: fields.kind }
    }

    /// Believes no field before the checksum that covers it.
    pub fn decode(bytes: [u8; FRAME_HEADER_SIZE]) -> Result<Self, HeaderError> {
        let layout: Layout = transmute!(bytes);
        let (stored, computed) = (layout.header_crc.get(), checksum(&layout));
        if stored != computed {
            return Err(HeaderError::Checksum { stored, computed });
        }
        if layout.magic != MAGIC {
            return Err(match layout.magic {
                [a, b, c, version] if [a, b, c] == MAGIC_FAMILY => {
                    HeaderError::Version { found: char::from(version) }
                }
                found => HeaderError::Magic { found },
            });
        }
        let kind =
            FrameKind::from_code(layout.kind).ok_or(HeaderError::Kind { found: layout.kind })?;
        let (payload_size, record_count) = (layout.payload_size.get(), layout.record_count.get());
        if (payload_size == 0) != (kind != FrameKind::Data)
            || (record_count == 0) != (payload_size == 0)
        {
            return Err(HeaderError::Shape { kind, payload_size, record_count });
        }
        let header = Self { layout, kind };
        let (lsn, durable_lsn) = (header.lsn(), header.durable_lsn());
        if durable_lsn > lsn {
            return Err(HeaderError::Claim { lsn, durable_lsn });
        }
        Ok(header)
    }

    /// `decode` of the first 64 bytes of a block.
    pub fn decode_block(block: &[u8]) -> Result<Self, HeaderError> {
        let bytes = block.first_chunk().expect("a block is longer than a header");
        Self::decode(*bytes)
    }

    pub fn encode(self) -> [u8; FRAME_HEADER_SIZE] {
        transmute!(self.layout)
    }

    pub const fn kind(&self) -> FrameKind {
        self.kind
    }

    pub const fn lsn(&self) -> Lsn {
        Lsn::new(self.layout.lsn.get())
    }

    pub const fn writer_epoch(&self) -> WriterEpoch {
        WriterEpoch::new(self.layout.writer_epoch.get())
    }

    pub const fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.layout.durable_lsn.get())
    }

    pub const fn ring_id(&self) -> Uuid {
        Uuid::from_bytes(self.layout.ring_id)
    }

    pub const fn record_count(&self) -> u32 {
        self.layout.record_count.get()
    }

    /// Bytes of payload, without header and padding.
    pub const fn payload_size(&self) -> u32 {
        self.layout.payload_size.get()
    }

    pub fn payload_is(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.layout.payload_crc.get()
    }
}

/// The table above, byte for byte; `IntoBytes` does not derive over padding.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout {
    header_crc: U32,
    payload_crc: U32,
    magic: [u8; 4],
    payload_size: U32,
    lsn: U64,
    writer_epoch: U64,
    durable_lsn: U64,
    ring_id: [u8; 16],
    record_count: U32,
    kind: u8,
    reserved: [u8; 3],
}

fn checksum(layout: &Layout) -> u32 {
    crc32c::crc32c(&layout.as_bytes()[offset_of!(Layout, payload_crc)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: FrameFields = FrameFields {
        kind: FrameKind::Data,
        lsn: Lsn::new(0x1000),
        writer_epoch: WriterEpoch::new(3),
        durable_lsn: Lsn::new(0x800),
        ring_id: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        record_count: 1,
    };
    const GOLDEN: [u8; FRAME_HEADER_SIZE] = *include_bytes!("../../testdata/frame.v1.bin");

    fn hello() -> FrameHeader {
        FrameHeader::new(&FIELDS, 5, crc32c::crc32c(b"hello"))
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        let header = hello();
        crate::golden::check("frame.v1.bin", &header.encode());
        assert_eq!(FrameHeader::decode(GOLDEN), Ok(header));
        assert!(header.payload_is(b"hello") && !header.payload_is(b"hellO"));
    }

    #[test]
    fn every_bit_flip_is_refused() {
        for bit in 0..FRAME_HEADER_SIZE * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_named_and_a_shape_that_cannot_be_is_refused() {
        let resealed = |change: &dyn Fn(&mut Layout)| {
            let mut layout = hello().layout;
            change(&mut layout);
            layout.header_crc = checksum(&layout).into();
            FrameHeader::decode(transmute!(layout))
        };
        let error = resealed(&|layout| layout.magic = *b"WFR2").expect_err("version 2");
        assert_eq!(error, HeaderError::Version { found: '2' });
        let error = resealed(&|layout| layout.kind = 9).expect_err("kind 9");
        assert_eq!(error, HeaderError::Kind { found: 9 });
        let error = resealed(&|layout| layout.kind = 2).expect_err("a seal with a payload");
        assert!(matches!(error, HeaderError::Shape { kind: FrameKind::Seal, .. }));
    }
}
