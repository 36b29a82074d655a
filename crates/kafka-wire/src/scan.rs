//! Walks records without keeping them: over a slice, or over a codec's output in a window of
//! fixed size, so that validation takes the same memory for every batch.

use crate::compression::{Compression, CompressionError, Unpacker};
use crate::records::RecordFault;
use crate::varint;

const WINDOW_SIZE: usize = 16 << 10;

/// What validation needs of a record.
pub(crate) struct Shape {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i64,
    pub(crate) has_key: bool,
}

/// Why a walk ends early.
pub(crate) enum Stop {
    Record(RecordFault),
    Compression(CompressionError),
}

impl From<RecordFault> for Stop {
    fn from(fault: RecordFault) -> Self {
        Self::Record(fault)
    }
}

/// Where records are read from.
pub(crate) trait Input {
    fn byte(&mut self) -> Result<u8, Stop>;
    fn skip(&mut self, size: u64) -> Result<(), Stop>;
    /// Bytes read so far.
    fn position(&self) -> u64;
    fn at_end(&mut self) -> Result<bool, CompressionError>;
}

/// Reads one record.
pub(crate) fn scan(input: &mut impl Input) -> Result<Shape, Stop> {
    let size = length(read_varint(input)?)?;
    let end = input.position().checked_add(size).ok_or(RecordFault::Length)?;
    input.byte()?; // attributes: unused
    let timestamp_delta = varint::unzigzag(read_unsigned(input, varint::LONG_SIZE_MAX)?);
    let offset_delta = read_varint(input)?;
    let has_key = skip_nullable(input, end)?;
    skip_nullable(input, end)?;
    let header_count = length(read_varint(input)?)?;
    for _ in 0..header_count {
        if !skip_nullable(input, end)? {
            return Err(RecordFault::Length.into());
        }
        skip_nullable(input, end)?;
    }
    match input.position().cmp(&end) {
        std::cmp::Ordering::Less => Err(RecordFault::LeftOver.into()),
        std::cmp::Ordering::Equal => Ok(Shape { timestamp_delta, offset_delta, has_key }),
        std::cmp::Ordering::Greater => Err(RecordFault::CutShort.into()),
    }
}

/// Skips a nullable field that must end before `end`; whether it is there.
fn skip_nullable(input: &mut impl Input, end: u64) -> Result<bool, Stop> {
    let declared = read_varint(input)?;
    if declared == -1 {
        return Ok(false);
    }
    let size = length(declared)?;
    let left = end.checked_sub(input.position()).ok_or(RecordFault::CutShort)?;
    if size > left {
        return Err(RecordFault::CutShort.into());
    }
    input.skip(size)?;
    Ok(true)
}

fn read_varint(input: &mut impl Input) -> Result<i64, Stop> {
    let value = read_unsigned(input, varint::SIZE_MAX)?;
    let value = u32::try_from(value).map_err(|_| RecordFault::Varint)?;
    Ok(varint::unzigzag(u64::from(value)))
}

fn read_unsigned(input: &mut impl Input, size_max: usize) -> Result<u64, Stop> {
    let first = input.byte()?;
    if first < 0x80 {
        return Ok(u64::from(first));
    }
    let mut partial = varint::Partial::default();
    let mut byte = first;
    loop {
        if let Some(value) = partial.push(byte, size_max).map_err(RecordFault::from)? {
            return Ok(value);
        }
        byte = input.byte()?;
    }
}

fn length(declared: i64) -> Result<u64, Stop> {
    u64::try_from(declared).map_err(|_| RecordFault::Length.into())
}

/// Records that are not compressed.
pub(crate) struct Slice<'a> {
    rest: &'a [u8],
    position: u64,
}

impl<'a> Slice<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, position: 0 }
    }
}

impl Input for Slice<'_> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let (byte, rest) = self.rest.split_first().ok_or(RecordFault::CutShort)?;
        self.rest = rest;
        self.position = self.position.saturating_add(1);
        Ok(*byte)
    }

    fn skip(&mut self, size: u64) -> Result<(), Stop> {
        let count = usize::try_from(size).map_err(|_| RecordFault::CutShort)?;
        self.rest = self.rest.get(count..).ok_or(RecordFault::CutShort)?;
        self.position = self.position.saturating_add(size);
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn at_end(&mut self) -> Result<bool, CompressionError> {
        Ok(self.rest.is_empty())
    }
}

/// Records that are unpacked on the way.
pub(crate) struct Stream<'a> {
    unpacker: Unpacker<'a>,
    window: Vec<u8>,
    start: usize,
    end: usize,
    position: u64,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(codec: Compression, bytes: &'a [u8]) -> Result<Self, CompressionError> {
        let unpacker = Unpacker::new(codec, bytes)?;
        Ok(Self { unpacker, window: vec![0; WINDOW_SIZE], start: 0, end: 0, position: 0 })
    }

    /// Bytes in the window, read anew if there are none; empty at the end.
    fn unread(&mut self) -> Result<&[u8], CompressionError> {
        if self.start >= self.end {
            self.start = 0;
            self.end = self.unpacker.read(&mut self.window)?;
        }
        Ok(self.window.get(self.start..self.end).unwrap_or_default())
    }

    fn advance(&mut self, count: usize) {
        self.start = self.start.saturating_add(count);
        self.position = self.position.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

impl Input for Stream<'_> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let first = self.unread().map_err(Stop::Compression)?.first().copied();
        self.advance(1);
        first.ok_or(Stop::Record(RecordFault::CutShort))
    }

    fn skip(&mut self, mut size: u64) -> Result<(), Stop> {
        while size > 0 {
            let unread = self.unread().map_err(Stop::Compression)?.len();
            if unread == 0 {
                return Err(RecordFault::CutShort.into());
            }
            let count = usize::try_from(size).map_or(unread, |size| size.min(unread));
            self.advance(count);
            size = size.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn at_end(&mut self) -> Result<bool, CompressionError> {
        Ok(self.unread()?.is_empty())
    }
}
