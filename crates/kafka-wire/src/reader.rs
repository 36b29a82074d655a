//! A bounds-checked reader that takes values off the front of a frame, without copying.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::varint;

/// What was wrong with the bytes, in words for a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Fault(pub(crate) &'static str);

pub(crate) const CUT_SHORT: Fault = Fault("ends before it is complete");
pub(crate) const BAD_LENGTH: Fault = Fault("a length is negative or beyond the frame");
pub(crate) const BAD_VARINT: Fault = Fault("a varint is too long");
const NOT_UTF8: Fault = Fault("a string is not UTF-8");
const NULL_STRING: Fault = Fault("a string is null");
const NULL_ARRAY: Fault = Fault("an array is null");

/// Owns what is left of a frame. `flexible` chooses compact lengths and tag sections.
pub(crate) struct Reader {
    bytes: BytesMut,
    flexible: bool,
}

impl Reader {
    pub(crate) fn new(bytes: BytesMut, flexible: bool) -> Self {
        Self { bytes, flexible }
    }

    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    pub(crate) fn into_rest(self) -> BytesMut {
        self.bytes
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Fault> {
        self.bytes.try_get_i16().map_err(|_| CUT_SHORT)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Fault> {
        self.bytes.try_get_i32().map_err(|_| CUT_SHORT)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Fault> {
        self.bytes.try_get_i64().map_err(|_| CUT_SHORT)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Fault> {
        Ok(self.bytes.try_get_u8().map_err(|_| CUT_SHORT)? != 0)
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, Fault> {
        let mut bytes = [0; 16];
        self.bytes.try_copy_to_slice(&mut bytes).map_err(|_| CUT_SHORT)?;
        Ok(Uuid::from_bytes(bytes))
    }

    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, Fault> {
        let (value, size) = varint::read_unsigned(&self.bytes).map_err(|_| BAD_VARINT)?;
        self.bytes.advance(size);
        Ok(value)
    }

    /// The next `size` bytes, still in the frame's allocation.
    pub(crate) fn take(&mut self, size: usize) -> Result<BytesMut, Fault> {
        if size > self.bytes.len() {
            return Err(BAD_LENGTH);
        }
        Ok(self.bytes.split_to(size))
    }

    /// A nullable byte field.
    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<BytesMut>, Fault> {
        let length = if self.flexible { self.compact_length()? } else { length(self.i32()?)? };
        length.map(|size| self.take(size)).transpose()
    }

    pub(crate) fn nullable_string(&mut self) -> Result<Option<StrBytes>, Fault> {
        let length =
            if self.flexible { self.compact_length()? } else { length(i32::from(self.i16()?))? };
        length.map(|size| utf8(self.take(size)?.freeze())).transpose()
    }

    /// A nullable string with an `int16` length, whatever the version: the header's client id.
    pub(crate) fn nullable_string_i16(&mut self) -> Result<Option<StrBytes>, Fault> {
        length(i32::from(self.i16()?))?.map(|size| utf8(self.take(size)?.freeze())).transpose()
    }

    pub(crate) fn string(&mut self) -> Result<StrBytes, Fault> {
        self.nullable_string()?.ok_or(NULL_STRING)
    }

    /// Reads an array of a frame that passed the guard.
    pub(crate) fn nullable_array<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Option<Vec<T>>, Fault> {
        let length = if self.flexible { self.compact_length()? } else { length(self.i32()?)? };
        let Some(count) = length else { return Ok(None) };
        if count > self.bytes.len() {
            return Err(BAD_LENGTH);
        }
        // The guard has walked the frame to its end: the count is a fact, and was paid for.
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    pub(crate) fn array<T>(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        self.nullable_array(element)?.ok_or(NULL_ARRAY)
    }

    /// Skips a tag section, if the version has one.
    pub(crate) fn skip_tags(&mut self) -> Result<(), Fault> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let size = usize::try_from(self.unsigned_varint()?).map_err(|_| BAD_LENGTH)?;
            if size > self.bytes.len() {
                return Err(BAD_LENGTH);
            }
            self.bytes.advance(size);
        }
        Ok(())
    }

    fn compact_length(&mut self) -> Result<Option<usize>, Fault> {
        compact_length(self.unsigned_varint()?)
    }
}

/// A length of a classic field: -1 is null, other negative numbers are refused.
pub(crate) fn length(declared: i32) -> Result<Option<usize>, Fault> {
    match declared {
        -1 => Ok(None),
        _ => usize::try_from(declared).map(Some).map_err(|_| BAD_LENGTH),
    }
}

/// A length of a flexible field: `n + 1`, 0 is null.
pub(crate) fn compact_length(declared: u32) -> Result<Option<usize>, Fault> {
    let Some(length) = declared.checked_sub(1) else { return Ok(None) };
    usize::try_from(length).map(Some).map_err(|_| BAD_LENGTH)
}

fn utf8(bytes: Bytes) -> Result<StrBytes, Fault> {
    StrBytes::from_utf8(bytes).map_err(|_| NOT_UTF8)
}
