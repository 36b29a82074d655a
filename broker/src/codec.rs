//! Bytes of commands and snapshots, field by field. The formats are in `docs/formats/`.
//!
//! Integers are little-endian; a text is a `u32` length and UTF-8; a list is a `u32` count and its
//! elements. No length sizes an allocation: lists grow as their elements are read.

use std::collections::BTreeMap;

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
pub struct Writer(Vec<u8>);

/// Takes fields off the front of bytes.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

macro_rules! integer {
    ($name:ident, $type:ty) => {
        pub fn $name(&mut self, value: $type) {
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    };
}

macro_rules! read_integer {
    ($name:ident, $type:ty) => {
        pub fn $name(&mut self, field: &'static str) -> Result<$type, DecodeError> {
            self.array(field).map(<$type>::from_le_bytes)
        }
    };
}

impl Writer {
    integer!(u8, u8);
    integer!(u16, u16);
    integer!(u32, u32);
    integer!(u64, u64);
    integer!(i16, i16);
    integer!(i32, i32);
    integer!(i64, i64);

    /// Goes on after bytes that another codec wrote.
    pub fn after(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.0.extend_from_slice(value.as_bytes());
    }

    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.extend_from_slice(value);
    }

    pub fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("no list and no text has 2^32 elements"));
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    read_integer!(u8, u8);
    read_integer!(u16, u16);
    read_integer!(u32, u32);
    read_integer!(u64, u64);
    read_integer!(i16, i16);
    read_integer!(i32, i32);
    read_integer!(i64, i64);

    pub fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(DecodeError::Flag { field, found }),
        }
    }

    pub fn uuid(&mut self, field: &'static str) -> Result<Uuid, DecodeError> {
        self.array(field).map(Uuid::from_bytes)
    }

    pub fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| DecodeError::Utf8 { field })
    }

    pub fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        self.take(length, field)
    }

    /// Reads a list into anything that grows.
    pub fn list<T, C: Default + Extend<T>>(
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

    /// Reads a list in strictly ascending order of its keys.
    pub fn map<K: Ord + Clone, V>(
        &mut self,
        field: &'static str,
        mut entry: impl FnMut(&mut Self) -> Result<(K, V), DecodeError>,
    ) -> Result<BTreeMap<K, V>, DecodeError> {
        let mut last: Option<K> = None;
        self.list(field, |reader| {
            let (key, value) = entry(reader)?;
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(DecodeError::Order { field });
            }
            last = Some(key.clone());
            Ok((key, value))
        })
    }

    pub fn finish(self) -> Result<(), DecodeError> {
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
