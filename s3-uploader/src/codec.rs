//! Fields that the directory of an object, an edit and a manifest have in common.
//!
//! Integers are little-endian. A list is a `u32` count and its elements, all of one size; the count
//! is checked against the bytes that are left before anything is reserved for it. Normative:
//! `docs/formats/object.md`, `docs/formats/manifest.md`.

use bytes::{BufMut, BytesMut};
use model::{LogIndex, Offset, PartitionId, RaftGroupId, Term};

use crate::object::Extent;
use crate::object_name::{ObjectName, ObjectNameError};

pub(crate) const NAME_SIZE: usize = 33;
/// An extent without the name of its object.
pub(crate) const EXTENT_SIZE: usize = 52;

pub(crate) const FORM_RANGE: u8 = 1;
const FORM_MERGED: u8 = 2;

/// The name of an object as numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NameFields {
    pub(crate) form: u8,
    pub(crate) group: u64,
    pub(crate) term: u64,
    /// The first index, or the number of a merged object.
    pub(crate) from: u64,
    /// The last index, or 0.
    pub(crate) to: u64,
}

/// Why bytes are not a directory, an edit or a manifest.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("{left} bytes are left where {wanted} are needed")]
    Short { left: usize, wanted: usize },
    #[error("{count} elements do not fit the {left} bytes that are left")]
    Count { count: u64, left: usize },
    #[error("{left} bytes are left over")]
    LeftOver { left: usize },
    #[error("format version {found} is not known")]
    Version { found: u8 },
    #[error("kind {found} of {field} is not known")]
    Kind { field: &'static str, found: u8 },
    #[error("not the name of an object: {0}")]
    Name(#[from] ObjectNameError),
    #[error("{field} contradicts the rest")]
    Inconsistent { field: &'static str },
}

/// Takes fields off the front of bytes.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn offset(&mut self) -> Result<Offset, DecodeError> {
        self.i64().map(Offset::new)
    }

    pub(crate) fn partition(&mut self) -> Result<PartitionId, DecodeError> {
        self.u64().map(PartitionId::new)
    }

    pub(crate) fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        let found = self.u8()?;
        if found == known { Ok(()) } else { Err(DecodeError::Version { found }) }
    }

    pub(crate) fn name(&mut self) -> Result<ObjectName, DecodeError> {
        let (form, group, term) = (self.u8()?, self.u64()?, self.u64()?);
        NameFields { form, group, term, from: self.u64()?, to: self.u64()? }.name()
    }

    pub(crate) fn extent(&mut self, object: ObjectName) -> Result<Extent, DecodeError> {
        Ok(Extent {
            object,
            base: self.offset()?,
            end: self.offset()?,
            position: self.u64()?,
            size: self.u64()?,
            index_position: self.u64()?,
            index_count: self.u32()?,
            max_timestamp: self.i64()?,
        })
    }

    /// Reads a list whose elements have `element_size` bytes or, if they vary, no less.
    pub(crate) fn list<T>(
        &mut self,
        element_size: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()?;
        self.elements(count.into(), element_size, element)
    }

    /// The elements of a list whose count has been read.
    pub(crate) fn elements<T>(
        &mut self,
        count: u64,
        element_size: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let left = self.rest.len();
        let fitting = usize::try_from(count).ok().filter(|count| *count <= left / element_size);
        let mut elements = Vec::with_capacity(fitting.ok_or(DecodeError::Count { count, left })?);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// A `u32` length and as many bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let wanted = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        let short = DecodeError::Short { left: self.rest.len(), wanted };
        let (bytes, rest) = self.rest.split_at_checked(wanted).ok_or(short)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left over.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::LeftOver { left }),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let short = DecodeError::Short { left: self.rest.len(), wanted: N };
        let (array, rest) = self.rest.split_first_chunk().ok_or(short)?;
        self.rest = rest;
        Ok(*array)
    }
}

impl NameFields {
    pub(crate) fn of(name: &ObjectName) -> Self {
        let (form, from, to) = match name {
            ObjectName::Range(name) => (FORM_RANGE, name.first().get(), name.last().get()),
            ObjectName::Merged(name) => (FORM_MERGED, name.number(), 0),
        };
        Self { form, group: name.group().get(), term: name.term().get(), from, to }
    }

    /// # Errors
    ///
    /// The numbers are no name.
    pub(crate) fn name(self) -> Result<ObjectName, DecodeError> {
        let (group, term) = (RaftGroupId::new(self.group), Term::new(self.term));
        match (self.form, self.to) {
            (FORM_RANGE, to) => {
                Ok(ObjectName::range(group, term, LogIndex::new(self.from), LogIndex::new(to))?)
            }
            (FORM_MERGED, 0) => Ok(ObjectName::merged(group, term, self.from)),
            (FORM_MERGED, _) => Err(DecodeError::Inconsistent { field: "the padding of a name" }),
            (found, _) => Err(DecodeError::Kind { field: "an object's name", found }),
        }
    }
}

pub(crate) fn put_name(out: &mut BytesMut, name: &ObjectName) {
    let NameFields { form, group, term, from, to } = NameFields::of(name);
    out.put_u8(form);
    for number in [group, term, from, to] {
        out.put_u64_le(number);
    }
}

/// All but the object's name, which is written once for many extents.
pub(crate) fn put_extent(out: &mut BytesMut, extent: &Extent) {
    out.put_i64_le(extent.base.get());
    out.put_i64_le(extent.end.get());
    out.put_u64_le(extent.position);
    out.put_u64_le(extent.size);
    out.put_u64_le(extent.index_position);
    out.put_u32_le(extent.index_count);
    out.put_i64_le(extent.max_timestamp);
}

pub(crate) fn put_count(out: &mut impl BufMut, len: usize) {
    out.put_u32_le(u32::try_from(len).expect("memory holds fewer than 2^32 extents"));
}
