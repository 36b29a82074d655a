//! A section's index: where to begin reading for an offset or a timestamp.
//!
//! ```text
//! offset  size  field          integers are little-endian; a point for each 64 KiB of data or more
//!      0     8  base_offset    of the batch at position
//!      8     8  position       in the object, of the first byte of a batch
//!     16     8  max_timestamp  of the batches from here to the next point
//! 24 * n     4  crc            CRC-32C of all points
//! ```

use bytes::{BufMut, BytesMut};
use model::Offset;

use super::{Extent, ObjectError};
use crate::codec::Reader;

/// Bytes of batches after which a new interval of the index begins.
pub const INDEX_INTERVAL: u64 = 64 * 1024;

const POINT_SIZE: usize = 24;
const CRC_SIZE: usize = 4;

/// The first batch of an interval; the interval ends where the next one begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IndexPoint {
    pub base_offset: Offset,
    /// In the object.
    pub position: u64,
    /// Of the batches up to the next point.
    pub max_timestamp: i64,
}

/// Bytes of an index with its checksum.
pub(super) fn size_of(count: u32) -> u64 {
    u64::from(count) * u64::try_from(POINT_SIZE).expect("a few bytes")
        + u64::try_from(CRC_SIZE).expect("a few bytes")
}

pub(super) fn encode(out: &mut BytesMut, points: &[IndexPoint]) {
    let start = out.len();
    for point in points {
        out.put_i64_le(point.base_offset.get());
        out.put_u64_le(point.position);
        out.put_i64_le(point.max_timestamp);
    }
    let crc = crc32c::crc32c(&out[start..]);
    out.put_u32_le(crc);
}

/// Reads the bytes at `extent.index_range()`. The points are checked against the extent as well:
/// the index of another section has a good checksum too.
///
/// # Errors
///
/// The bytes are not that index.
pub fn decode_index(bytes: &[u8], extent: &Extent) -> Result<Vec<IndexPoint>, ObjectError> {
    let (wanted, len) = (size_of(extent.index_count), bytes.len());
    let fits = u64::try_from(len) == Ok(wanted);
    let split = bytes.split_last_chunk::<CRC_SIZE>().filter(|_| fits);
    let (points, stored) = split.ok_or(ObjectError::IndexSize { wanted, len })?;
    let (stored, computed) = (u32::from_le_bytes(*stored), crc32c::crc32c(points));
    if stored != computed {
        return Err(ObjectError::Checksum { part: "index", stored, computed });
    }
    let mut reader = Reader::new(points);
    // The bytes are there, so the count is no larger than they are.
    let mut decoded = Vec::with_capacity(points.len() / POINT_SIZE);
    for _ in 0..extent.index_count {
        let (base_offset, position) = (reader.offset()?, reader.u64()?);
        decoded.push(IndexPoint { base_offset, position, max_timestamp: reader.i64()? });
    }
    check(&decoded, extent)?;
    Ok(decoded)
}

/// Points ascend, the first is where the data begins, all are inside of the extent.
fn check(points: &[IndexPoint], extent: &Extent) -> Result<(), ObjectError> {
    let (base, end) = (extent.base, extent.end);
    let fault = |number| ObjectError::IndexPoint { number, base, end };
    let first = points.first().ok_or_else(|| fault(0))?;
    if first.position != extent.position {
        return Err(fault(0));
    }
    for (number, point) in points.iter().enumerate() {
        let ascends =
            number.checked_sub(1).and_then(|before| points.get(before)).is_none_or(|before| {
                before.base_offset < point.base_offset && before.position < point.position
            });
        let inside =
            extent.holds(point.base_offset) && extent.data_range().contains(&point.position);
        if !ascends || !inside || point.max_timestamp > extent.max_timestamp {
            return Err(fault(number));
        }
    }
    Ok(())
}
