//! A sealed object: the batches of many partitions, then what is needed to find them. Normative:
//! `docs/formats/object.md`.
//!
//! ```text
//! data of section 1 | data of section 2 | ... | index 1 | index 2 | ... | directory | trailer
//! ```
//!
//! A section is one partition's batches, as received, one after the other. A reader needs no byte
//! of the directory: the manifest has an `Extent` for each section, and that says where the
//! section's index and data are. Directory and trailer are for `verify` and for rebuilding a
//! manifest; they are last because the data is on its way before they are known.

mod builder;
mod directory;
mod index;
mod loose;

#[cfg(test)]
mod tests;

use std::ops::Range;

use model::{Offset, PartitionId};

use crate::codec::DecodeError;
use crate::object_name::ObjectName;

pub use builder::{BuiltObject, ObjectBuilder};
pub use directory::{DataCheck, Directory, Section, TRAILER_SIZE};
pub use index::{INDEX_INTERVAL, IndexPoint, decode_index};
pub use loose::LooseObject;

/// What the builder must know of a batch; it does not look into the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchMeta {
    pub base_offset: Offset,
    /// Exclusive.
    pub end_offset: Offset,
    pub max_timestamp: i64,
}

/// Where one partition's records from `base` to `end` are: a section of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Extent {
    pub object: ObjectName,
    pub base: Offset,
    /// Exclusive.
    pub end: Offset,
    /// Of the data, in the object.
    pub position: u64,
    /// Of the data.
    pub size: u64,
    pub index_position: u64,
    pub index_count: u32,
    pub max_timestamp: i64,
}

impl Extent {
    /// The bytes of the object that hold the batches.
    pub fn data_range(&self) -> Range<u64> {
        self.position..self.position.saturating_add(self.size)
    }

    /// The bytes of the object that hold the index; `decode_index` reads them.
    pub fn index_range(&self) -> Range<u64> {
        self.index_position..self.index_position.saturating_add(index::size_of(self.index_count))
    }

    /// Whether the records with `offset` are here, or would be if they still existed.
    pub fn holds(&self, offset: Offset) -> bool {
        self.base <= offset && offset < self.end
    }

    /// Whether the ranges are not empty, in order and inside of an object of that size.
    pub(crate) fn is_sound(&self, object_size: u64) -> bool {
        let data_end = self.position.checked_add(self.size);
        let index_end = self.index_position.checked_add(index::size_of(self.index_count));
        Offset::ZERO <= self.base
            && self.base < self.end
            && self.size > 0
            && self.index_count > 0
            && data_end.is_some_and(|end| end <= self.index_position)
            && index_end.is_some_and(|end| end <= object_size)
    }
}

/// Why bytes are not a part of the object that they were read from.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ObjectError {
    #[error("{part} checksum is {stored:#010x}, computed {computed:#010x}")]
    Checksum { part: &'static str, stored: u32, computed: u32 },
    #[error("unknown object magic {found:02x?}")]
    Magic { found: [u8; 4] },
    #[error("the last {wanted} bytes of the object are needed, there are {len}")]
    ShortTail { wanted: u64, len: usize },
    #[error("index of {len} bytes where {wanted} are needed for its extent")]
    IndexSize { wanted: u64, len: usize },
    #[error("data of {len} bytes where partition {partition} has {wanted}")]
    DataSize { partition: PartitionId, wanted: u64, len: usize },
    #[error("point {number} of the index does not belong to offsets {base} to {end}")]
    IndexPoint { number: usize, base: Offset, end: Offset },
    #[error("the directory does not list what the manifest does")]
    OtherSections,
    #[error("directory: {0}")]
    Directory(#[from] DecodeError),
}
