//! Record batch v2: a view of the 61-byte header, and the changes that are made in place.
//!
//! ```text
//! offset  size  field                   integers are big-endian
//!      0     8  base_offset             patched in place: not covered by the CRC
//!      8     4  length                  bytes after this field
//!     12     4  partition_leader_epoch  patched in place: not covered by the CRC
//!     16     1  magic                   2
//!     17     4  crc                     CRC-32C of bytes 21 to the end
//!     21     2  attributes              bits 0..3 codec, 3 append time, 4 transactional, 5 control
//!     23     4  last_offset_delta
//!     27     8  base_timestamp          milliseconds
//!     35     8  max_timestamp           milliseconds
//!     43     8  producer_id             -1 for none
//!     51     2  producer_epoch          -1 for none
//!     53     4  base_sequence           -1 for none
//!     57     4  record_count
//!     61        records                 compressed as a whole if a codec is set
//! ```

use std::mem::offset_of;

use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::compression::Compression;

/// Bytes before the records.
pub const HEADER_SIZE: usize = 61;
/// Bytes before those that the header's `length` counts.
pub const LENGTH_END: usize = 12;
/// The only magic served.
pub const MAGIC: i8 = 2;
/// No timestamp.
pub const NO_TIMESTAMP: i64 = -1;

pub(crate) const MAGIC_OFFSET: usize = offset_of!(BatchHeader, magic);
/// Bytes before those that the header's `crc` covers.
pub const CRC_START: usize = offset_of!(BatchHeader, attributes);
const CODEC_BITS: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

const _: () = {
    assert!(size_of::<BatchHeader>() == HEADER_SIZE);
    assert!(offset_of!(BatchHeader, partition_leader_epoch) == LENGTH_END);
    assert!(CRC_START == 21);
    assert!(offset_of!(BatchHeader, record_count) == 57);
};

/// The header of a batch, read in place. Nothing in it is checked by reading it.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct BatchHeader {
    base_offset: I64,
    length: I32,
    partition_leader_epoch: I32,
    magic: i8,
    crc: U32,
    attributes: I16,
    last_offset_delta: I32,
    base_timestamp: I64,
    max_timestamp: I64,
    producer_id: I64,
    producer_epoch: I16,
    base_sequence: I32,
    record_count: I32,
}

/// Whose clock a batch's timestamps are from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

impl BatchHeader {
    /// The header at the start of `bytes`; `None` if they are fewer than [`HEADER_SIZE`].
    pub fn read(bytes: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    pub(crate) fn read_mut(bytes: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    pub fn base_offset(&self) -> i64 {
        self.base_offset.get()
    }

    /// Offset of the last record, inclusive; wraps if the header is nonsense.
    pub fn last_offset(&self) -> i64 {
        self.base_offset().wrapping_add(i64::from(self.last_offset_delta()))
    }

    /// The declared length: bytes after the field. May be negative.
    pub fn length(&self) -> i32 {
        self.length.get()
    }

    /// Bytes of the whole batch as declared; `None` if below [`HEADER_SIZE`].
    pub fn size(&self) -> Option<usize> {
        let size = usize::try_from(self.length()).ok()?.checked_add(LENGTH_END)?;
        (size >= HEADER_SIZE).then_some(size)
    }

    pub fn partition_leader_epoch(&self) -> i32 {
        self.partition_leader_epoch.get()
    }

    pub fn magic(&self) -> i8 {
        self.magic
    }

    pub fn crc(&self) -> u32 {
        self.crc.get()
    }

    pub fn attributes(&self) -> i16 {
        self.attributes.get()
    }

    /// `None` for a codec that does not exist.
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_bits(self.attributes() & CODEC_BITS)
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    pub fn last_offset_delta(&self) -> i32 {
        self.last_offset_delta.get()
    }

    /// Milliseconds.
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp.get()
    }

    /// Milliseconds.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp.get()
    }

    pub fn producer_id(&self) -> i64 {
        self.producer_id.get()
    }

    pub fn producer_epoch(&self) -> i16 {
        self.producer_epoch.get()
    }

    pub fn base_sequence(&self) -> i32 {
        self.base_sequence.get()
    }

    pub fn record_count(&self) -> i32 {
        self.record_count.get()
    }
}

/// The fields of a batch that is being built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewHeader {
    pub(crate) base_offset: i64,
    pub(crate) partition_leader_epoch: i32,
    pub(crate) compression: Compression,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) transactional: bool,
    pub(crate) control: bool,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

impl NewHeader {
    /// The header without length and CRC, which need the records.
    pub(crate) fn into_header(self) -> BatchHeader {
        let flag = |set: bool, bit: i16| if set { bit } else { 0 };
        let log_append_time = self.timestamp_type == TimestampType::LogAppendTime;
        let attributes = self.compression.bits()
            | flag(log_append_time, LOG_APPEND_TIME)
            | flag(self.transactional, TRANSACTIONAL)
            | flag(self.control, CONTROL);
        BatchHeader {
            base_offset: self.base_offset.into(),
            length: 0.into(),
            partition_leader_epoch: self.partition_leader_epoch.into(),
            magic: MAGIC,
            crc: 0.into(),
            attributes: attributes.into(),
            last_offset_delta: self.last_offset_delta.into(),
            base_timestamp: self.base_timestamp.into(),
            max_timestamp: self.max_timestamp.into(),
            producer_id: self.producer_id.into(),
            producer_epoch: self.producer_epoch.into(),
            base_sequence: self.base_sequence.into(),
            record_count: self.record_count.into(),
        }
    }
}

/// CRC-32C of a batch as its header should carry it. 0 for bytes shorter than a header.
pub fn compute_crc(batch: &[u8]) -> u32 {
    batch.get(CRC_START..).map_or(0, crc32c::crc32c)
}

/// Whether the CRC of a whole batch is right.
pub fn crc_is_valid(batch: &[u8]) -> bool {
    BatchHeader::read(batch).is_some_and(|header| header.crc() == compute_crc(batch))
}

/// Assigns offset and leader epoch in place; both are outside the CRC.
pub fn patch(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    if let Some(header) = BatchHeader::read_mut(batch) {
        header.base_offset.set(base_offset);
        header.partition_leader_epoch.set(leader_epoch);
    }
}

/// Stamps a batch with the broker's time (milliseconds), and computes its CRC anew.
pub fn set_log_append_time(batch: &mut [u8], now_ms: i64) {
    if let Some(header) = BatchHeader::read_mut(batch) {
        header.attributes.set(header.attributes() | LOG_APPEND_TIME);
        header.max_timestamp.set(now_ms);
        set_crc(batch);
    }
}

/// Corrects the largest timestamp (milliseconds), with a new CRC if it was another.
pub fn set_max_timestamp(batch: &mut [u8], max_timestamp_ms: i64) {
    if let Some(header) = BatchHeader::read_mut(batch)
        && header.max_timestamp() != max_timestamp_ms
    {
        header.max_timestamp.set(max_timestamp_ms);
        set_crc(batch);
    }
}

/// Sets length and CRC of a batch whose bytes are complete.
pub(crate) fn seal(batch: &mut [u8]) {
    let length = batch.len().saturating_sub(LENGTH_END);
    if let Some(header) = BatchHeader::read_mut(batch) {
        header.length.set(i32::try_from(length).unwrap_or(i32::MAX));
    }
    set_crc(batch);
}

/// Sets the codec bits; the CRC is the caller's to set.
pub(crate) fn set_codec(batch: &mut [u8], codec: Compression) {
    if let Some(header) = BatchHeader::read_mut(batch) {
        header.attributes.set((header.attributes() & !CODEC_BITS) | codec.bits());
    }
}

fn set_crc(batch: &mut [u8]) {
    let crc = compute_crc(batch);
    if let Some(header) = BatchHeader::read_mut(batch) {
        header.crc.set(crc);
    }
}

/// Walks batches that follow each other, as a Fetch reply or a log carries them.
///
/// Stops before a batch that is cut off or whose header is nonsense; [`Batches::rest`] is what
/// was not walked.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

/// One batch: its header and all its bytes, header included.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    pub header: &'a BatchHeader,
    pub bytes: &'a [u8],
}

impl<'a> Batches<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = BatchView<'a>;

    fn next(&mut self) -> Option<BatchView<'a>> {
        let header = BatchHeader::read(self.rest)?;
        let (bytes, rest) = self.rest.split_at_checked(header.size()?)?;
        self.rest = rest;
        Some(BatchView { header, bytes })
    }
}

impl<'a> BatchView<'a> {
    /// The records as they are on the wire: compressed if the header says so.
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_SIZE..).unwrap_or_default()
    }
}
