//! Writes a message's fields, classic or flexible, as pieces: payloads are kept, not copied.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::varint;

/// A length does not fit the field that carries it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooLong;

/// Collects a message. `flexible` chooses compact lengths and tag sections.
pub(crate) struct Writer {
    open: BytesMut,
    pieces: Vec<Bytes>,
    flexible: bool,
}

impl Writer {
    pub(crate) fn new(flexible: bool) -> Self {
        Self { open: BytesMut::with_capacity(256), pieces: Vec::new(), flexible }
    }

    pub(crate) fn is_flexible(&self) -> bool {
        self.flexible
    }

    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    pub(crate) fn buf(&mut self) -> &mut BytesMut {
        &mut self.open
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.open.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.open.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.open.put_i64(value);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.open.put_u8(u8::from(value));
    }

    pub(crate) fn uuid(&mut self, value: Uuid) {
        self.open.put_slice(value.as_bytes());
    }

    pub(crate) fn unsigned_varint(&mut self, value: u32) {
        varint::put_unsigned(&mut self.open, value);
    }

    pub(crate) fn string(&mut self, value: &str) -> Result<(), TooLong> {
        let size = i16::try_from(value.len()).map_err(|_| TooLong)?;
        if self.flexible {
            self.compact_length(value.len())?;
        } else {
            self.i16(size);
        }
        self.open.put_slice(value.as_bytes());
        Ok(())
    }

    pub(crate) fn nullable_string(&mut self, value: Option<&StrBytes>) -> Result<(), TooLong> {
        match value {
            Some(value) => self.string(value),
            None if self.flexible => {
                self.unsigned_varint(0);
                Ok(())
            }
            None => {
                self.i16(-1);
                Ok(())
            }
        }
    }

    /// The length of an array or of bytes that follow.
    pub(crate) fn length(&mut self, length: usize) -> Result<(), TooLong> {
        if self.flexible {
            return self.compact_length(length);
        }
        self.i32(i32::try_from(length).map_err(|_| TooLong)?);
        Ok(())
    }

    /// The length of an array that is null.
    pub(crate) fn null_length(&mut self) {
        if self.flexible {
            self.unsigned_varint(0);
        } else {
            self.i32(-1);
        }
    }

    /// A byte field made of payload pieces, which become pieces of the message.
    pub(crate) fn payload(&mut self, payload: Vec<Bytes>) -> Result<(), TooLong> {
        let length = payload.iter().try_fold(0usize, |sum, piece| sum.checked_add(piece.len()));
        self.length(length.ok_or(TooLong)?)?;
        for piece in payload {
            if !piece.is_empty() {
                self.close_piece();
                self.pieces.push(piece);
            }
        }
        Ok(())
    }

    /// An empty tag section, if the version has one.
    pub(crate) fn no_tags(&mut self) {
        self.tag_count(0);
    }

    pub(crate) fn tag_count(&mut self, count: u32) {
        if self.flexible {
            self.unsigned_varint(count);
        }
    }

    /// One tagged field, whose value `write` puts into a message of its own to learn its size.
    pub(crate) fn tag(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Self) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        let mut value = Self::new(self.flexible);
        write(&mut value)?;
        self.unsigned_varint(tag);
        self.unsigned_varint(u32::try_from(value.open.len()).map_err(|_| TooLong)?);
        self.open.put_slice(&value.open);
        Ok(())
    }

    /// The message's pieces, in order.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        self.close_piece();
        self.pieces
    }

    fn compact_length(&mut self, length: usize) -> Result<(), TooLong> {
        let length = i32::try_from(length).map_err(|_| TooLong)?;
        self.unsigned_varint(length.cast_unsigned().saturating_add(1));
        Ok(())
    }

    fn close_piece(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push(self.open.split().freeze());
        }
    }
}
