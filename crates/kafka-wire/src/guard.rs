//! The only door to the codec's decoders, and what its faults cost if it were not there.
//!
//! Every body is first walked by its layout (`layout.rs`), touching nothing but the frame:
//!
//! - The codec reserves `count * size_of::<Element>()` for an array, with `count` checked only
//!   against the bytes that are left: a frame of 1 MiB made it reserve 100 MiB and more before the
//!   first element was read. The walk reads every element first, so that a count is a fact.
//! - The codec keeps unknown tagged fields in a `BTreeMap`, whose first entry allocates about
//!   half a KiB: 4 bytes on the wire became 500 in memory. They are charged to the budget.
//! - Floods of small, legal elements are charged too. The budget is 64 KiB and 32 times the
//!   frame, at most 33 MiB for a frame of Produce.
//! - The codec's header helper panics below 4 bytes: it is not used (`request.rs`).
//!
//! A known tagged field must be as long as it says; the codec does not look.

use bytes::BytesMut;
use kafka_protocol::protocol::Decodable;

use crate::api::ApiKey;
use crate::layout::{self, Field, Kind, Layout, Tag};
use crate::reader::{BAD_LENGTH, BAD_VARINT, CUT_SHORT, Fault};
use crate::reader::{compact_length, length};
use crate::request::{DecodeError, RequestHeader};
use crate::response::LIST_OFFSETS_CODEC_MAX;
use crate::varint;

/// Memory that a body of any size may become.
const BUDGET_MIN: usize = 64 << 10;
/// Memory that one byte of a body may become beyond that.
const BUDGET_PER_BYTE: usize = 32;
/// Produce frames can be 100 MiB, of which nearly all must be records, kept in the frame.
const PRODUCE_BUDGET_MAX: usize = 33 << 20;
/// What a `BTreeMap` of tagged fields takes with its first entry, and with each further one.
const TAG_MAP_SIZE: usize = 512;
const TAG_SIZE: usize = 64;

const OVER_BUDGET: Fault = Fault("would take too much memory for its size");
const BAD_TAG: Fault = Fault("a tagged field has another length than its value");

/// Walks a body without allocating. After it, decoding is bounded and every count is a fact.
pub(crate) fn check(api_key: ApiKey, version: i16, body: &[u8]) -> Result<(), DecodeError> {
    if !api_key.serves(version) {
        return Ok(());
    }
    let per_byte = body.len().saturating_mul(BUDGET_PER_BYTE).saturating_add(BUDGET_MIN);
    let budget =
        if api_key == ApiKey::Produce { per_byte.min(PRODUCE_BUDGET_MAX) } else { per_byte };
    let flexible = api_key.is_flexible(version);
    let mut walk = Walk { rest: body, budget, version, flexible };
    walk.layout(layout::of(api_key)).map_err(|Fault(what)| DecodeError::Malformed {
        api_key,
        version,
        what,
    })
}

/// Decodes a body that passed [`check`].
pub(crate) fn decode<T: Decodable>(
    header: &RequestHeader,
    body: BytesMut,
) -> Result<T, DecodeError> {
    let (api_key, version) = (header.api_key, header.api_version);
    let is_list_offsets = api_key == ApiKey::ListOffsets;
    let codec_version = if is_list_offsets { version.min(LIST_OFFSETS_CODEC_MAX) } else { version };
    T::decode(&mut body.freeze(), codec_version).map_err(|error| DecodeError::Codec {
        api_key,
        version,
        error,
    })
}

struct Walk<'a> {
    rest: &'a [u8],
    budget: usize,
    version: i16,
    flexible: bool,
}

impl Walk<'_> {
    fn layout(&mut self, layout: &Layout) -> Result<(), Fault> {
        for Field { from, to, kind } in layout.fields {
            if (*from..=*to).contains(&self.version) {
                self.kind(kind)?;
            }
        }
        if self.flexible { self.tags(layout.tags) } else { Ok(()) }
    }

    fn kind(&mut self, kind: &Kind) -> Result<(), Fault> {
        match kind {
            Kind::Fixed(size) => self.skip(*size),
            Kind::String => {
                let length = self.string_length()?;
                self.skip(length.unwrap_or(0))
            }
            Kind::Bytes => {
                let length = self.length()?;
                self.skip(length.unwrap_or(0))
            }
            Kind::Array(element) => {
                let count = self.count()?;
                self.charge(count.saturating_mul(element.memory))?;
                (0..count).try_for_each(|_| self.layout(element))
            }
            Kind::FixedArray { size } => {
                let count = self.count()?;
                self.skip(count.checked_mul(*size).ok_or(BAD_LENGTH)?)
            }
            Kind::StringArray { memory } => {
                let count = self.count()?;
                self.charge(count.saturating_mul(*memory))?;
                (0..count).try_for_each(|_| self.kind(&Kind::String))
            }
            Kind::Struct(layout) => self.layout(layout),
        }
    }

    fn tags(&mut self, known: &[Tag]) -> Result<(), Fault> {
        let count = self.unsigned_varint()?;
        let mut any_unknown = false;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let size = usize::try_from(self.unsigned_varint()?).map_err(|_| BAD_LENGTH)?;
            let version = self.version;
            match known.iter().find(|known| known.tag == tag && known.from <= version) {
                Some(known) => {
                    let left = self.rest.len().checked_sub(size).ok_or(BAD_LENGTH)?;
                    self.kind(&known.kind)?;
                    if self.rest.len() != left {
                        return Err(BAD_TAG);
                    }
                }
                None => {
                    self.skip(size)?;
                    self.charge(if any_unknown { TAG_SIZE } else { TAG_MAP_SIZE })?;
                    any_unknown = true;
                }
            }
        }
        Ok(())
    }

    fn charge(&mut self, memory: usize) -> Result<(), Fault> {
        self.budget = self.budget.checked_sub(memory).ok_or(OVER_BUDGET)?;
        Ok(())
    }

    /// The number of elements of an array, each of at least one byte.
    fn count(&mut self) -> Result<usize, Fault> {
        let count = self.length()?.unwrap_or(0);
        if count > self.rest.len() { Err(BAD_LENGTH) } else { Ok(count) }
    }

    fn length(&mut self) -> Result<Option<usize>, Fault> {
        if self.flexible {
            return compact_length(self.unsigned_varint()?);
        }
        length(i32::from_be_bytes(self.chunk()?))
    }

    fn string_length(&mut self) -> Result<Option<usize>, Fault> {
        if self.flexible {
            return compact_length(self.unsigned_varint()?);
        }
        length(i32::from(i16::from_be_bytes(self.chunk()?)))
    }

    fn unsigned_varint(&mut self) -> Result<u32, Fault> {
        let (value, size) = varint::read_unsigned(self.rest).map_err(|_| BAD_VARINT)?;
        self.skip(size)?;
        Ok(value)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn skip(&mut self, size: usize) -> Result<(), Fault> {
        self.rest = self.rest.get(size..).ok_or(CUT_SHORT)?;
        Ok(())
    }
}
