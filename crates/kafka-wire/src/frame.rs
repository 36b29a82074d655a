//! Splits a connection's bytes into frames: an `int32` length and that many bytes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::api::ApiKey;

/// API key, version and correlation id: the shortest frame that can be answered.
const LENGTH_MIN: usize = 8;
const PREFIX_SIZE: usize = 4;
const API_KEY_SIZE: usize = 2;
/// Of what has arrived of a frame, so much is allocated; what is not written takes no pages.
const GROWTH: usize = 16;

/// Largest frames accepted, in bytes, without the length prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameLimits {
    /// For Produce: `socket.request.max.bytes`.
    pub produce_max: usize,
    /// For every other API. One byte of those can become 32 bytes of memory, so it is smaller.
    pub other_max: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { produce_max: 104_857_600, other_max: 1 << 20 }
    }
}

/// Why a connection must be closed: its bytes can no longer be split.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    #[error("frame length {length} is below {LENGTH_MIN}")]
    TooShort { length: i32 },
    #[error("frame length {length} is above {max}")]
    TooLong { length: usize, max: usize },
    #[error("frame length {length} is above {max}, the limit of API key {api_key}")]
    TooLongForApi { length: usize, max: usize, api_key: i16 },
}

/// Takes bytes as they arrive and gives whole frames, without their length prefix.
///
/// A frame that arrives whole is copied once, into a buffer of its own size. One that arrives in
/// parts grows with what has arrived, never by what its prefix declares.
#[derive(Debug, Default)]
pub struct FrameReader {
    limits: FrameLimits,
    /// The first bytes of a length prefix, while it is incomplete.
    prefix: [u8; PREFIX_SIZE],
    prefix_size: usize,
    /// The frame being received, once its length is known.
    partial: Option<Partial>,
    complete: VecDeque<BytesMut>,
    complete_size: usize,
    failed: Option<FrameError>,
}

#[derive(Debug)]
struct Partial {
    length: usize,
    /// A `Vec`, because its growth can be exact.
    bytes: Vec<u8>,
}

impl FrameReader {
    pub fn new(limits: FrameLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes bytes received from the connection. After an error, further bytes are dropped.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.failed.is_none() {
            let step = match self.partial.take() {
                Some(partial) => self.extend(partial, bytes),
                None => self.begin(bytes),
            };
            match step {
                Ok(rest) => bytes = rest,
                Err(error) => self.failed = Some(error),
            }
        }
    }

    /// The next whole frame; `None` if more bytes are needed. The error comes after the frames
    /// that were complete before it, and stays.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, FrameError> {
        if let Some(frame) = self.complete.pop_front() {
            self.complete_size = self.complete_size.saturating_sub(frame.len());
            return Ok(Some(frame));
        }
        self.failed.map_or(Ok(None), Err)
    }

    /// Bytes held: whole frames not taken yet and the part of the one being received.
    pub fn buffered(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.bytes.len());
        self.complete_size.saturating_add(partial).saturating_add(self.prefix_size)
    }

    /// Reads a length prefix, perhaps over several calls. Returns what is left of `bytes`.
    fn begin<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let missing = PREFIX_SIZE.saturating_sub(self.prefix_size);
        let (head, rest) = bytes.split_at(missing.min(bytes.len()));
        for (slot, byte) in self.prefix.iter_mut().skip(self.prefix_size).zip(head) {
            *slot = *byte;
        }
        self.prefix_size = self.prefix_size.saturating_add(head.len());
        if self.prefix_size < PREFIX_SIZE {
            return Ok(rest);
        }
        self.prefix_size = 0;
        let declared = i32::from_be_bytes(self.prefix);
        let length = usize::try_from(declared).unwrap_or(0);
        if length < LENGTH_MIN {
            return Err(FrameError::TooShort { length: declared });
        }
        let max = self.limits.produce_max.max(self.limits.other_max);
        if length > max {
            return Err(FrameError::TooLong { length, max });
        }
        self.extend(Partial { length, bytes: Vec::new() }, rest)
    }

    /// Adds to the frame being received. Returns what belongs to the next one.
    fn extend<'a>(
        &mut self,
        mut partial: Partial,
        bytes: &'a [u8],
    ) -> Result<&'a [u8], FrameError> {
        let missing = partial.length.saturating_sub(partial.bytes.len());
        let (ours, rest) = bytes.split_at(missing.min(bytes.len()));
        partial.append(ours);
        if let Some(api_key) = partial.api_key() {
            let max = self.max_of(api_key);
            if partial.length > max {
                return Err(FrameError::TooLongForApi { length: partial.length, max, api_key });
            }
        }
        if partial.bytes.len() == partial.length {
            self.complete_size = self.complete_size.saturating_add(partial.length);
            // Full to its capacity, so this moves the allocation.
            self.complete.push_back(BytesMut::from(Bytes::from(partial.bytes)));
        } else {
            self.partial = Some(partial);
        }
        Ok(rest)
    }

    fn max_of(&self, api_key: i16) -> usize {
        if api_key == ApiKey::Produce.code() {
            self.limits.produce_max
        } else {
            self.limits.other_max
        }
    }
}

impl Partial {
    /// Grows at most sixteenfold and never past the frame's length: the buffer ends at exactly that
    /// size. Each growth copies what is there.
    fn append(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len().saturating_add(bytes.len());
        if needed > self.bytes.capacity() {
            let target = self.bytes.len().saturating_mul(GROWTH);
            let target = target.clamp(needed, self.length.max(needed));
            self.bytes.reserve_exact(target.saturating_sub(self.bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn api_key(&self) -> Option<i16> {
        self.bytes.first_chunk::<API_KEY_SIZE>().map(|bytes| i16::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(api_key: i16, size: usize) -> Vec<u8> {
        let mut bytes = i32::try_from(size).expect("small").to_be_bytes().to_vec();
        bytes.extend_from_slice(&api_key.to_be_bytes());
        bytes.extend((2..size).map(|i| u8::try_from(i % 251).expect("below 251")));
        bytes
    }

    fn drain(reader: &mut FrameReader) -> Vec<BytesMut> {
        std::iter::from_fn(|| reader.next_frame().expect("no error")).collect()
    }

    #[test]
    fn every_split_of_two_frames_gives_the_same_frames() {
        let (first, second) = (frame(18, 9), frame(0, 40));
        let stream = [first.clone(), second.clone()].concat();
        for cut in 0..=stream.len() {
            for other in cut..=stream.len() {
                let mut reader = FrameReader::default();
                reader.push(&stream[..cut]);
                reader.push(&stream[cut..other]);
                reader.push(&stream[other..]);
                let frames = drain(&mut reader);
                assert_eq!(frames, [&first[4..], &second[4..]], "cuts {cut} {other}");
                assert_eq!(reader.buffered(), 0);
            }
        }
    }

    #[test]
    fn byte_by_byte_counts_what_is_buffered() {
        let bytes = frame(3, 20);
        let mut reader = FrameReader::default();
        for (i, byte) in bytes.iter().enumerate() {
            // The prefix is no longer needed once it is complete.
            assert_eq!(reader.buffered(), if i < 4 { i } else { i - 4 });
            reader.push(&[*byte]);
        }
        assert_eq!(reader.buffered(), 20);
        assert_eq!(drain(&mut reader).len(), 1);
    }

    #[test]
    fn whole_frames_have_about_their_own_size() {
        let mut reader = FrameReader::default();
        reader.push(&frame(0, 1000));
        assert_eq!(drain(&mut reader)[0].capacity(), 1000);
        let long = frame(0, 100_000);
        for part in long.chunks(999) {
            reader.push(part);
        }
        let frames = drain(&mut reader);
        assert_eq!(frames[0], &long[4..]);
        assert_eq!(frames[0].capacity(), 100_000);
    }

    #[test]
    fn a_declared_length_alone_allocates_nothing() {
        let mut reader = FrameReader::default();
        reader.push(&104_857_600i32.to_be_bytes());
        reader.push(&[0, 0, 0, 9]);
        let partial = reader.partial.as_ref().expect("incomplete");
        assert!(partial.bytes.capacity() < 64, "{}", partial.bytes.capacity());
    }

    #[test]
    fn bad_lengths_fail_for_good_and_after_earlier_frames() {
        for length in [i32::MIN, -1, 0, 7] {
            let mut reader = FrameReader::default();
            reader.push(&frame(18, 8));
            reader.push(&length.to_be_bytes());
            assert!(reader.next_frame().expect("the first is whole").is_some());
            assert_eq!(reader.next_frame(), Err(FrameError::TooShort { length }));
            reader.push(&frame(18, 8));
            assert_eq!(reader.next_frame(), Err(FrameError::TooShort { length }));
        }
        let mut reader = FrameReader::default();
        reader.push(&104_857_601i32.to_be_bytes());
        let max = 104_857_600;
        assert_eq!(reader.next_frame(), Err(FrameError::TooLong { length: max + 1, max }));
    }

    #[test]
    fn only_produce_may_be_long_and_the_key_alone_decides() {
        let limits = FrameLimits { produce_max: 1000, other_max: 100 };
        let mut reader = FrameReader::new(limits);
        reader.push(&frame(0, 1000));
        assert_eq!(drain(&mut reader).len(), 1);
        reader.push(&frame(3, 101)[..5]);
        assert_eq!(reader.next_frame(), Ok(None));
        reader.push(&frame(3, 101)[5..6]);
        let error = FrameError::TooLongForApi { length: 101, max: 100, api_key: 3 };
        assert_eq!(reader.next_frame(), Err(error));
    }
}
