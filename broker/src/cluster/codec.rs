//! Bytes of commands and snapshots. Normative: `docs/formats/metadata-command.md`.
//!
//! Integers are little-endian; a text is a `u32` length and UTF-8; a list is a `u32` count and its
//! elements. No length sizes an allocation: lists grow as their elements are read.

use uuid::Uuid;

/// Why bytes are not a command or a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("bytes end at {length} within {field}")]
    Truncated { field: &'static str, length: usize },
    #[error("{count} bytes are left over")]
    LeftOver { count: usize },
    #[error("format version {found} is not known")]
    Version { found: u8 },
    #[error("command kind {found} is not known")]
    Kind { found: u8 },
    #[error("{field} is not UTF-8")]
    Utf8 { field: &'static str },
    #[error("{field} is {found}, expected 0 or 1")]
    Flag { field: &'static str, found: u8 },
    #[error("{field} are not in strictly ascending order")]
    Order { field: &'static str },
    #[error("{field} is out of range")]
    Range { field: &'static str },
}

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

/// Takes fields off the front of bytes.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

macro_rules! integer {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&mut self, value: $type) {
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    };
}

macro_rules! read_integer {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&mut self, field: &'static str) -> Result<$type, DecodeError> {
            self.array(field).map(<$type>::from_le_bytes)
        }
    };
}

impl Writer {
    integer!(u8, u8);
    integer!(u16, u16);
    integer!(u32, u32);
    integer!(u64, u64);
    integer!(i32, i32);
    integer!(i64, i64);

    pub(super) fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(super) fn uuid(&mut self, value: Uuid) {
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(super) fn text(&mut self, value: &str) {
        self.count(value.len());
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(super) fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("a request's frame bounds every list and text"));
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    read_integer!(u8, u8);
    read_integer!(u16, u16);
    read_integer!(u32, u32);
    read_integer!(u64, u64);
    read_integer!(i32, i32);
    read_integer!(i64, i64);

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(DecodeError::Flag { field, found }),
        }
    }

    pub(super) fn uuid(&mut self, field: &'static str) -> Result<Uuid, DecodeError> {
        self.array(field).map(Uuid::from_bytes)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let length = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        let bytes = self.take(length, field)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8 { field })
    }

    /// Reads a list into anything that grows.
    pub(super) fn list<T, C: Default + Extend<T>>(
        &mut self,
        field: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<C, DecodeError> {
        let mut list = C::default();
        for _ in 0..self.u32(field)? {
            let value = element(self)?;
            list.extend(Some(value));
        }
        Ok(list)
    }

    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::LeftOver { count }),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated { field, length: self.length })?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated { field, length: self.length })?;
        self.rest = rest;
        Ok(taken)
    }
}
