//! Records inside a frame's payload. Normative: `docs/formats/wal-frame.md`.
//!
//! ```text
//! offset  size  field       integers are little-endian
//!      0     4  record_crc  CRC-32C of the record's LSN (8 bytes), bytes 4..40 and the data
//!      4     4  data_size   bytes of data that follow
//!      8     1  kind        1 entry, 2 state
//!      9     7  reserved    zero
//!     16     8  stream      the caller's stream
//!     24     8  term        of an entry; 0 in a state
//!     32     8  index       of an entry; 0 in a state
//!     40     -  data
//! ```
//!
//! The frame's payload checksum covers all of this at recovery. The record's own checksum is for
//! catch-up reads, which fetch one record of a frame and must hand out neither rotten bytes nor,
//! after a lost write, the record that an earlier lap left at the same place: hence the LSN in it.

use std::mem::offset_of;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use crate::checksum::{JOINED_MIN, Shift, crc_with};
use crate::{Lsn, StreamId};

pub const RECORD_HEADER_SIZE: usize = 40;

const _: () = {
    assert!(size_of::<Layout>() == RECORD_HEADER_SIZE);
    assert!(offset_of!(Layout, stream) == 16);
};

/// Names a record: which stream, and for an entry its place in the stream.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum RecordKey {
    Entry { stream: StreamId, term: u64, index: u64 },
    State { stream: StreamId },
}

/// A record as found in a checked payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordView<'a> {
    pub key: RecordKey,
    pub data: &'a [u8],
    /// Where the data starts in the payload, in bytes.
    pub data_offset: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    #[error("record at byte {offset} of the payload is cut off")]
    Cut { offset: usize },
    #[error("record at byte {offset} of the payload: checksum mismatch")]
    Checksum { offset: usize },
    #[error("record at byte {offset} of the payload: unknown kind {found}")]
    Kind { offset: usize, found: u8 },
    #[error("payload holds {found} records, its header says {stated}")]
    Count { stated: u32, found: u32 },
}

/// A piece of a record's data.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    bytes: &'a [u8],
    /// CRC-32C, if it is known.
    crc: Option<u32>,
}

impl<'a> Part<'a> {
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, crc: None }
    }

    /// `crc`: the CRC-32C of the bytes, which is believed. A wrong one makes a record that is
    /// taken for damaged.
    pub const fn checked(bytes: &'a [u8], crc: u32) -> Self {
        Self { bytes, crc: Some(crc) }
    }

    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes the record at the start of `target`, copying `parts` once; returns its size in bytes.
/// `target` must have room. `lsn` is that of the record's first byte. `frame_crc` is that of the
/// payload before it, and becomes that of the payload with it.
pub(crate) fn encode_record(
    target: &mut [u8],
    lsn: Lsn,
    key: RecordKey,
    parts: &[Part<'_>],
    frame_crc: &mut u32,
) -> usize {
    let mut end = RECORD_HEADER_SIZE;
    for part in parts {
        target[end..end + part.len()].copy_from_slice(part.bytes);
        end += part.len();
    }
    let data_size = u32::try_from(end - RECORD_HEADER_SIZE).expect("append caps the data");
    let (kind, stream, term, index) = match key {
        RecordKey::Entry { stream, term, index } => (KIND_ENTRY, stream, term, index),
        RecordKey::State { stream } => (KIND_STATE, stream, 0, 0),
    };
    let mut layout = Layout {
        record_crc: U32::ZERO,
        data_size: data_size.into(),
        kind,
        reserved: [0; 7],
        stream: stream.get().into(),
        term: term.into(),
        index: index.into(),
    };
    let data = &target[RECORD_HEADER_SIZE..end];
    let before_data = checksum_before_data(lsn, &layout);
    if data.len() < JOINED_MIN {
        layout.record_crc = crc32c::crc32c_append(before_data, data).into();
        target[..RECORD_HEADER_SIZE].copy_from_slice(layout.as_bytes());
        *frame_crc = crc32c::crc32c_append(*frame_crc, &target[..end]);
    } else {
        let data_crc = parts.iter().fold(0, |crc, part| crc_with(crc, part.bytes, part.crc));
        let shift = Shift::over(data.len());
        layout.record_crc = shift.join(before_data, data_crc).into();
        target[..RECORD_HEADER_SIZE].copy_from_slice(layout.as_bytes());
        *frame_crc = crc32c::crc32c_append(*frame_crc, layout.as_bytes());
        *frame_crc = shift.join(*frame_crc, data_crc);
    }
    end
}

/// Checks that `bytes` are exactly the record written at `lsn` and returns its data.
pub fn decode_single(bytes: &[u8], lsn: Lsn) -> Result<RecordView<'_>, RecordError> {
    let view = decode_at(bytes, lsn, 0)?;
    if view.data_offset + view.data.len() != bytes.len() {
        return Err(RecordError::Cut { offset: 0 });
    }
    Ok(view)
}

/// Walks the records of a payload. Ends after an error.
pub struct RecordIter<'a> {
    payload: &'a [u8],
    payload_lsn: Lsn,
    offset: usize,
    left: u32,
    stated: u32,
}

impl<'a> RecordIter<'a> {
    pub const fn new(payload: &'a [u8], payload_lsn: Lsn, record_count: u32) -> Self {
        Self { payload, payload_lsn, offset: 0, left: record_count, stated: record_count }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at_end = self.offset == self.payload.len();
        if at_end && self.left == 0 {
            return None;
        }
        if at_end || self.left == 0 {
            let found = self.stated - self.left + u32::from(!at_end);
            (self.offset, self.left) = (self.payload.len(), 0);
            return Some(Err(RecordError::Count { stated: self.stated, found }));
        }
        let record = decode_at(self.payload, self.payload_lsn, self.offset);
        match &record {
            Ok(view) => {
                self.offset = view.data_offset + view.data.len();
                self.left -= 1;
            }
            Err(_) => (self.offset, self.left) = (self.payload.len(), 0),
        }
        Some(record)
    }
}

const KIND_ENTRY: u8 = 1;
const KIND_STATE: u8 = 2;

/// The table above, byte for byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout {
    record_crc: U32,
    data_size: U32,
    kind: u8,
    reserved: [u8; 7],
    stream: U64,
    term: U64,
    index: U64,
}

fn checksum_before_data(lsn: Lsn, layout: &Layout) -> u32 {
    let place = crc32c::crc32c(&lsn.get().to_le_bytes());
    crc32c::crc32c_append(place, &layout.as_bytes()[offset_of!(Layout, data_size)..])
}

fn decode_at(
    payload: &[u8],
    payload_lsn: Lsn,
    offset: usize,
) -> Result<RecordView<'_>, RecordError> {
    let cut = RecordError::Cut { offset };
    let rest = payload.get(offset..).ok_or(cut)?;
    let (header, rest) = rest.split_first_chunk::<RECORD_HEADER_SIZE>().ok_or(cut)?;
    let layout: Layout = transmute!(*header);
    let data_size = usize::try_from(layout.data_size.get()).map_err(|_| cut)?;
    let data = rest.get(..data_size).ok_or(cut)?;
    let before_data = checksum_before_data(payload_lsn.advance(offset as u64), &layout);
    if crc32c::crc32c_append(before_data, data) != layout.record_crc.get() {
        return Err(RecordError::Checksum { offset });
    }
    let stream = StreamId::new(layout.stream.get());
    let key = match layout.kind {
        KIND_ENTRY => {
            RecordKey::Entry { stream, term: layout.term.get(), index: layout.index.get() }
        }
        KIND_STATE => RecordKey::State { stream },
        found => return Err(RecordError::Kind { offset, found }),
    };
    Ok(RecordView { key, data, data_offset: offset + RECORD_HEADER_SIZE })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Lsn = Lsn::new(0x1040);
    const ENTRY: RecordKey = RecordKey::Entry { stream: StreamId::new(7), term: 2, index: 41 };
    const STATE: RecordKey = RecordKey::State { stream: StreamId::new(7) };

    fn payload() -> Vec<u8> {
        let mut bytes = vec![0; 256];
        let (hello, mut crc) = ([&b"hel"[..], b"lo"].map(Part::of), 0);
        let first = encode_record(&mut bytes, AT, ENTRY, &hello, &mut crc);
        let at = AT.advance(first as u64);
        let second = encode_record(&mut bytes[first..], at, STATE, &[], &mut crc);
        bytes.truncate(first + second);
        assert_eq!(crc, crc32c::crc32c(&bytes), "the frame's checksum grows with it");
        bytes
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        let bytes = payload();
        crate::golden::check("records.v1.bin", &bytes);
        let records: Result<Vec<_>, _> = RecordIter::new(&bytes, AT, 2).collect();
        let expected = [
            RecordView { key: ENTRY, data: b"hello", data_offset: 40 },
            RecordView { key: STATE, data: b"", data_offset: 85 },
        ];
        assert_eq!(records.expect("own bytes"), expected);
        assert_eq!(decode_single(&bytes[..45], AT), Ok(expected[0]));
    }

    #[test]
    fn a_record_of_an_earlier_lap_at_the_same_place_is_refused() {
        let error = decode_single(&payload()[..45], Lsn::new(0x9040)).expect_err("stale");
        assert_eq!(error, RecordError::Checksum { offset: 0 });
    }

    #[test]
    fn every_bit_flip_is_refused() {
        for bit in 0..payload().len() * 8 {
            let mut bytes = payload();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordIter::new(&bytes, AT, 2).any(|record| record.is_err()), "bit {bit}");
        }
    }

    #[test]
    fn a_wrong_count_or_a_cut_is_refused_and_ends_the_walk() {
        let bytes = payload();
        for (bytes, count) in [(&bytes[..], 1), (&bytes[..], 3), (&bytes[..84], 2), (&bytes[..], 0)]
        {
            let results: Vec<_> = RecordIter::new(bytes, AT, count).collect();
            assert!(results.len() <= 3 && results.last().is_some_and(Result::is_err), "{count}");
        }
    }
}
