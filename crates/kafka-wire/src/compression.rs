//! Codecs of record batches.
//!
//! Unpacking streams and is bounded by [`limit`]; memory does not follow what compressed bytes
//! declare. Two formats need a closer look:
//!
//! - A snappy block declares its size in front and is unpacked in one piece: the size must be one
//!   that a block of so many bytes can have.
//! - A zstd frame declares a window that its decoder allocates. Beyond 8 MiB (levels 20 and up)
//!   the frame is unpacked in one piece instead, into a buffer that grows with its content.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Magic, version 1, compatible version 1.
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK_SIZE: usize = 32 << 10;
/// A snappy copy of 3 bytes gives at most 64.
const SNAPPY_RATIO_MAX: usize = 22;
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const ZSTD_WINDOW_MAX: u64 = 1 << ZSTD_WINDOW_LOG_MAX;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The codec of a batch's records.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    /// Written in xerial frames, as Java does; read in those or raw, as librdkafka writes.
    Snappy,
    /// The frame format with independent blocks.
    Lz4,
    Zstd,
}

/// Why compressed records cannot be unpacked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CompressionError {
    #[error("compressed records are corrupt: {reason}")]
    Corrupt { reason: String },
    #[error("{compressed} compressed bytes unpack to more than {limit}")]
    TooLarge { compressed: usize, limit: usize },
}

impl Compression {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with these attribute bits.
    pub fn from_bits(bits: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.bits() == bits)
    }

    /// Bits 0..3 of a batch's attributes.
    pub fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's word for it, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Packs records.
    ///
    /// Into memory, where no codec fails; if one does after all, the error is its own.
    pub fn compress(self, records: &[u8]) -> Result<Bytes, CompressionError> {
        let packed = match self {
            Self::None => return Ok(Bytes::copy_from_slice(records)),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(records).and_then(|()| encoder.finish())
            }
            Self::Snappy => snappy_compress(records),
            Self::Lz4 => {
                let info = FrameInfo::new()
                    .block_mode(BlockMode::Independent)
                    .block_size(BlockSize::Max64KB);
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(records).and_then(|()| encoder.finish().map_err(io::Error::other))
            }
            Self::Zstd => zstd::stream::encode_all(records, ZSTD_LEVEL),
        };
        packed.map(Bytes::from).map_err(corrupt)
    }
}

/// Bytes that `compressed` bytes may unpack to: 100 times as many, at least 16 MiB and at most
/// 1 GiB.
pub fn limit(compressed: usize) -> usize {
    compressed.saturating_mul(100).clamp(16 << 20, 1 << 30)
}

/// Unpacks records into memory, up to [`limit`].
pub fn decompress(codec: Compression, bytes: &[u8]) -> Result<Cow<'_, [u8]>, CompressionError> {
    if codec == Compression::None {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut unpacker = Unpacker::new(codec, bytes)?;
    let mut out = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        let size = unpacker.read(&mut part)?;
        match part.get(..size) {
            None | Some([]) => return Ok(Cow::Owned(out)),
            Some(read) => out.extend_from_slice(read),
        }
    }
}

/// Unpacks piece by piece; an error once the output exceeds [`limit`].
pub(crate) struct Unpacker<'a> {
    source: Source<'a>,
    compressed: usize,
    left: usize,
}

enum Source<'a> {
    Plain(&'a [u8]),
    Gzip(Box<GzDecoder<&'a [u8]>>),
    Snappy(SnappyBlocks<'a>),
    Lz4(Box<FrameDecoder<&'a [u8]>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, &'a [u8]>>),
    Whole(io::Cursor<Vec<u8>>),
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(codec: Compression, bytes: &'a [u8]) -> Result<Self, CompressionError> {
        let left = limit(bytes.len());
        let source = match codec {
            Compression::None => Source::Plain(bytes),
            Compression::Gzip => Source::Gzip(Box::new(GzDecoder::new(bytes))),
            Compression::Snappy => Source::Snappy(SnappyBlocks::new(bytes)),
            Compression::Lz4 => Source::Lz4(Box::new(FrameDecoder::new(bytes))),
            Compression::Zstd if zstd_window(bytes) > ZSTD_WINDOW_MAX => {
                Source::Whole(io::Cursor::new(zstd_whole(bytes, left)?))
            }
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(bytes).map_err(corrupt)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(corrupt)?;
                Source::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { source, compressed: bytes.len(), left })
    }

    /// Fills `buf` in part; 0 at the end.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, CompressionError> {
        let size = match &mut self.source {
            Source::Plain(bytes) => bytes.read(buf),
            Source::Gzip(decoder) => decoder.read(buf),
            Source::Snappy(blocks) => blocks.read(buf),
            Source::Lz4(decoder) => decoder.read(buf),
            Source::Zstd(decoder) => decoder.read(buf),
            Source::Whole(cursor) => cursor.read(buf),
        };
        let size = size.map_err(corrupt)?;
        match self.left.checked_sub(size) {
            Some(left) => self.left = left,
            None => return Err(too_large(self.compressed)),
        }
        Ok(size)
    }
}

/// Snappy blocks, in xerial frames or a single raw one.
struct SnappyBlocks<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    position: usize,
}

impl<'a> SnappyBlocks<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let framed = bytes.starts_with(XERIAL_MAGIC) && bytes.len() >= XERIAL_HEADER.len();
        let rest =
            if framed { bytes.get(XERIAL_HEADER.len()..).unwrap_or_default() } else { bytes };
        Self { rest, framed, block: Vec::new(), position: 0 }
    }

    /// The compressed bytes of the next block; `None` at the end.
    fn next_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if !self.framed {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let cut = || io::Error::other("a snappy frame is cut short");
        let (size, rest) = self.rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let size = usize::try_from(u32::from_be_bytes(*size)).map_err(|_| cut())?;
        let (block, rest) = rest.split_at_checked(size).ok_or_else(cut)?;
        self.rest = rest;
        Ok(Some(block))
    }

    fn unpack(&mut self, block: &[u8]) -> io::Result<()> {
        let size = snap::raw::decompress_len(block).map_err(io::Error::other)?;
        if size > block.len().saturating_mul(SNAPPY_RATIO_MAX).saturating_add(64) {
            return Err(io::Error::other("a snappy block declares more than it can hold"));
        }
        self.block.resize(size, 0);
        self.position = 0;
        let written = snap::raw::Decoder::new()
            .decompress(block, &mut self.block)
            .map_err(io::Error::other)?;
        self.block.truncate(written);
        Ok(())
    }
}

impl Read for SnappyBlocks<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.position >= self.block.len() {
            match self.next_block()? {
                Some(block) => self.unpack(block)?,
                None => return Ok(0),
            }
        }
        let mut unread = self.block.get(self.position..).unwrap_or_default();
        let size = unread.read(buf)?;
        self.position = self.position.saturating_add(size);
        Ok(size)
    }
}

fn snappy_compress(records: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = XERIAL_HEADER.to_vec();
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(XERIAL_BLOCK_SIZE) {
        let packed = encoder.compress_vec(block).map_err(io::Error::other)?;
        let size = u32::try_from(packed.len()).map_err(io::Error::other)?;
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

/// The window that the first frame declares, in bytes; 0 if there is no such frame.
///
/// A later frame with a larger window is refused by the decoder.
fn zstd_window(bytes: &[u8]) -> u64 {
    let Some(header) = bytes.strip_prefix(&ZSTD_MAGIC) else { return 0 };
    let (Some(descriptor), Some(window)) = (header.first(), header.get(1)) else { return 0 };
    let single_segment = descriptor & 0x20 != 0;
    if single_segment {
        // Such a frame's window is its content.
        return zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten().unwrap_or(0);
    }
    let log = u32::from(window >> 3).saturating_add(10);
    let base = 1u64.checked_shl(log).unwrap_or(u64::MAX);
    base.saturating_add((base >> 3).saturating_mul(u64::from(window & 7)))
}

/// Unpacks without a window. The buffer starts small and grows while the content does not fit.
fn zstd_whole(bytes: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut capacity = bytes.len().saturating_mul(4).clamp(64 << 10, limit);
    loop {
        match zstd::bulk::decompress(bytes, capacity) {
            Ok(out) => return Ok(out),
            Err(_) if capacity < limit => capacity = capacity.saturating_mul(4).min(limit),
            Err(error) => return Err(corrupt(error)),
        }
    }
}

fn too_large(compressed: usize) -> CompressionError {
    CompressionError::TooLarge { compressed, limit: limit(compressed) }
}

fn corrupt(error: io::Error) -> CompressionError {
    CompressionError::Corrupt { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(size: usize) -> Vec<u8> {
        (0..size).map(|i| u8::try_from(i * i / 7 % 256).expect("below 256")).collect()
    }

    #[test]
    fn every_codec_gives_back_what_it_packed() {
        for codec in Compression::ALL {
            for size in [0, 1, 100, 70_000, 300_000] {
                let records = sample(size);
                let packed = codec.compress(&records).expect("into memory");
                let unpacked = decompress(codec, &packed).expect("own output");
                assert_eq!(*unpacked, *records, "{codec:?} {size}");
            }
        }
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let records = sample(100_000);
        let packed = snap::raw::Encoder::new().compress_vec(&records).expect("into memory");
        assert_eq!(*decompress(Compression::Snappy, &packed).expect("raw"), *records);
    }

    #[test]
    fn output_beyond_the_limit_is_refused() {
        let zeros = vec![0; (16 << 20) + 1];
        for codec in [Compression::Gzip, Compression::Zstd, Compression::Lz4] {
            let packed = codec.compress(&zeros).expect("into memory");
            assert_eq!(limit(packed.len()), 16 << 20, "{codec:?}: {}", packed.len());
            let error = decompress(codec, &packed).expect_err("too large");
            assert_eq!(error, too_large(packed.len()), "{codec:?}");
            let packed = codec.compress(&zeros[1..]).expect("into memory");
            assert_eq!(decompress(codec, &packed).expect("at the limit").len(), 16 << 20);
        }
    }

    #[test]
    fn a_snappy_length_that_cannot_be_is_refused() {
        let bomb = [&[0xf0, 0xff, 0xff, 0xff, 0x0f][..], &[0; 82]].concat();
        let framed = [&XERIAL_HEADER[..], &87u32.to_be_bytes(), &bomb].concat();
        for bytes in [bomb, framed] {
            let error = decompress(Compression::Snappy, &bytes).expect_err("declares 4 GiB");
            assert!(matches!(error, CompressionError::Corrupt { .. }), "{error}");
        }
    }

    #[test]
    fn zstd_frames_with_a_large_window_are_unpacked() {
        let records = sample(3_000_000);
        for window_log in [20, 23, 24, 27] {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).expect("a level");
            encoder.window_log(window_log).expect("a window");
            encoder.write_all(&records).expect("into memory");
            let packed = encoder.finish().expect("into memory");
            assert_eq!(zstd_window(&packed), 1 << window_log);
            assert_eq!(*decompress(Compression::Zstd, &packed).expect("legal"), *records);
        }
    }

    #[test]
    fn cut_or_flipped_input_never_panics() {
        let records = sample(2_000);
        for codec in Compression::ALL {
            let packed = codec.compress(&records).expect("into memory");
            for at in 0..packed.len() {
                let _ = decompress(codec, &packed[..at]);
                let mut flipped = packed.to_vec();
                flipped[at] ^= 0x55;
                let _ = decompress(codec, &flipped);
            }
        }
    }
}
