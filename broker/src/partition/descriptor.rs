//! What a raft entry says about its payload: enough to rebuild a partition without reading batches.
//! Normative: `docs/formats/partition-descriptor.md`.
//!
//! ```text
//! offset  size  field           integers are little-endian
//!      0     1  kind            1: a record batch of a partition (2: an edit of the group's
//!                              manifest, which has this byte alone)
//!      1     1  version         1
//!      2     2  attributes      as in the batch's header
//!      4     4  record_count    at least 1
//!      8     8  partition       partition id
//!     16     8  base_offset     offset of the batch's first record
//!     24     8  max_timestamp   as in the batch's header, ms
//!     32     8  appended_at     the leader's clock when it took the batch, ms since 1970
//!     40     8  producer_id     -1: none, then the next two mean nothing
//!     48     4  base_sequence
//!     52     4  batch_size      bytes of the whole batch, its header included
//!     56     2  producer_epoch
//! ```
//!
//! No checksum is here: the WAL's frame and the replication message each carry one over it.

use kafka_wire::batch::BatchHeader;
use model::{Offset, PartitionId};
use zerocopy::byteorder::little_endian::{I16, I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

/// Kind byte of a record batch.
///
/// The byte's space: 0 is never valid; 1 to 63 are entries of data partitions, described here; 64
/// to 127 are the metadata commands of group 0, described by the cluster module; the rest is free.
pub const KIND_BATCH: u8 = 1;
/// Kind byte of an edit of the group's manifest: the payload is the edit, nothing is beside it.
pub const KIND_EDIT: u8 = 2;
/// First kind byte of group 0's commands; see [`KIND_BATCH`].
pub const KIND_METADATA_FIRST: u8 = 64;
/// Bytes of an encoded descriptor.
pub const DESCRIPTOR_SIZE: usize = 58;

const VERSION: u8 = 1;
/// Header of a Kafka record batch v2: no batch is smaller.
const BATCH_SIZE_MIN: u32 = 61;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;

const _: () = {
    assert!(size_of::<Layout>() == DESCRIPTOR_SIZE);
    // The raft log keeps at most this many bytes of ours beside an entry.
    assert!(DESCRIPTOR_SIZE <= 64);
};

/// Who sent a batch, and which of its batches it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProducerStamp {
    pub id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
}

impl ProducerStamp {
    /// The producer id of a batch that is not idempotent.
    pub const NO_ID: i64 = -1;
}

/// A batch in the log of its partition. From [`decode`](Self::decode) or
/// [`Partition::prepare`](super::Partition::prepare), both of which check the fields against each
/// other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EntryDescriptor {
    pub(super) partition: PartitionId,
    pub(super) base_offset: Offset,
    pub(super) record_count: u32,
    pub(super) batch_size: u32,
    pub(super) max_timestamp: i64,
    pub(super) appended_at: i64,
    pub(super) attributes: i16,
    pub(super) producer: Option<ProducerStamp>,
}

/// Why bytes are not the descriptor of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DescriptorError {
    #[error("a batch's descriptor has {DESCRIPTOR_SIZE} bytes, not {found}")]
    Size { found: usize },
    #[error("entry kind {found} is not a batch")]
    Kind { found: u8 },
    #[error("unknown version {found} of a batch's descriptor")]
    Version { found: u8 },
    #[error("a batch of {found} records")]
    RecordCount { found: i32 },
    #[error("a batch at offset {found}")]
    BaseOffset { found: i64 },
    #[error("a batch of {found} bytes")]
    BatchSize { found: u32 },
    #[error("producer id {id} with epoch {epoch} and sequence {base_sequence}")]
    Producer { id: i64, epoch: i16, base_sequence: i32 },
}

/// The kind byte of an entry's descriptor, by which a shard tells whose it is. None if it is empty.
pub fn entry_kind(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied()
}

impl EntryDescriptor {
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let size = DescriptorError::Size { found: bytes.len() };
        // Kind first: an entry of another kind may have another size.
        let kind = entry_kind(bytes).ok_or(size)?;
        if kind != KIND_BATCH {
            return Err(DescriptorError::Kind { found: kind });
        }
        let bytes: [u8; DESCRIPTOR_SIZE] = bytes.try_into().map_err(|_| size)?;
        let layout: Layout = transmute!(bytes);
        if layout.version != VERSION {
            return Err(DescriptorError::Version { found: layout.version });
        }
        Self::check(&layout)
    }

    /// The descriptor of a batch that is in the object store; when the leader took it is not known
    /// there.
    ///
    /// # Errors
    ///
    /// The header is not one that a leader would have taken.
    pub fn of_batch(
        partition: PartitionId,
        header: &BatchHeader,
        appended_at: i64,
    ) -> Result<Self, DescriptorError> {
        let batch_size = header.size().and_then(|size| u32::try_from(size).ok());
        Self::check(&Layout {
            kind: KIND_BATCH,
            version: VERSION,
            attributes: header.attributes().into(),
            record_count: header.record_count().into(),
            partition: partition.get().into(),
            base_offset: header.base_offset().into(),
            max_timestamp: header.max_timestamp().into(),
            appended_at: appended_at.into(),
            producer_id: header.producer_id().into(),
            base_sequence: header.base_sequence().into(),
            batch_size: batch_size.unwrap_or_default().into(),
            producer_epoch: header.producer_epoch().into(),
        })
    }

    pub fn encode(&self) -> [u8; DESCRIPTOR_SIZE] {
        let none = ProducerStamp { id: ProducerStamp::NO_ID, epoch: -1, base_sequence: -1 };
        let producer = self.producer.unwrap_or(none);
        transmute!(Layout {
            kind: KIND_BATCH,
            version: VERSION,
            attributes: self.attributes.into(),
            record_count: I32::new(self.record_count.cast_signed()),
            partition: self.partition.get().into(),
            base_offset: self.base_offset.get().into(),
            max_timestamp: self.max_timestamp.into(),
            appended_at: self.appended_at.into(),
            producer_id: producer.id.into(),
            base_sequence: producer.base_sequence.into(),
            batch_size: self.batch_size.into(),
            producer_epoch: producer.epoch.into(),
        })
    }

    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Offset of the batch's last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.record_count) - 1)
    }

    /// Offset after the batch's last record.
    pub fn end_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.record_count))
    }

    /// Records in the batch, at least 1 and at most 2^31-1.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Bytes of the batch as stored, its header included.
    pub fn batch_size(&self) -> u32 {
        self.batch_size
    }

    /// Largest record timestamp, ms since 1970 (or -1: the batch has none).
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// The leader's clock when it took the batch, ms since 1970.
    pub fn appended_at(&self) -> i64 {
        self.appended_at
    }

    /// `attributes` of the batch's header.
    pub fn attributes(&self) -> i16 {
        self.attributes
    }

    /// None if the batch is not idempotent.
    pub fn producer(&self) -> Option<ProducerStamp> {
        self.producer
    }

    /// When the broker stamped the records, ms since 1970; None if the client did.
    pub fn log_append_time(&self) -> Option<i64> {
        (self.attributes & LOG_APPEND_TIME != 0).then_some(self.max_timestamp)
    }

    fn check(layout: &Layout) -> Result<Self, DescriptorError> {
        let record_count = layout.record_count.get();
        let base_offset = layout.base_offset.get();
        let batch_size = layout.batch_size.get();
        if record_count <= 0 {
            return Err(DescriptorError::RecordCount { found: record_count });
        }
        if base_offset < 0 || base_offset.checked_add(i64::from(record_count)).is_none() {
            return Err(DescriptorError::BaseOffset { found: base_offset });
        }
        if batch_size < BATCH_SIZE_MIN {
            return Err(DescriptorError::BatchSize { found: batch_size });
        }
        Ok(Self {
            partition: PartitionId::new(layout.partition.get()),
            base_offset: Offset::new(base_offset),
            record_count: record_count.unsigned_abs(),
            batch_size,
            max_timestamp: layout.max_timestamp.get(),
            appended_at: layout.appended_at.get(),
            attributes: layout.attributes.get(),
            producer: producer(layout)?,
        })
    }
}

pub(super) fn is_transactional(attributes: i16) -> bool {
    attributes & TRANSACTIONAL != 0
}

pub(super) fn is_log_append_time(attributes: i16) -> bool {
    attributes & LOG_APPEND_TIME != 0
}

fn producer(layout: &Layout) -> Result<Option<ProducerStamp>, DescriptorError> {
    let stamp = ProducerStamp {
        id: layout.producer_id.get(),
        epoch: layout.producer_epoch.get(),
        base_sequence: layout.base_sequence.get(),
    };
    match stamp {
        ProducerStamp { id: ProducerStamp::NO_ID, .. } => Ok(None),
        ProducerStamp { id: 0.., epoch: 0.., base_sequence: 0.. } => Ok(Some(stamp)),
        ProducerStamp { id, epoch, base_sequence } => {
            Err(DescriptorError::Producer { id, epoch, base_sequence })
        }
    }
}

/// The table above, byte for byte; `IntoBytes` does not derive over padding.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Layout {
    kind: u8,
    version: u8,
    attributes: I16,
    record_count: I32,
    partition: U64,
    base_offset: I64,
    max_timestamp: I64,
    appended_at: I64,
    producer_id: I64,
    base_sequence: I32,
    batch_size: U32,
    producer_epoch: I16,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; DESCRIPTOR_SIZE] =
        *include_bytes!("../../testdata/partition-descriptor.v1.bin");

    fn example() -> EntryDescriptor {
        EntryDescriptor {
            partition: PartitionId::new(0x0102_0304_0506_0708),
            base_offset: Offset::new(0x1112_1314_1516_1718),
            record_count: 0x2122_2324,
            batch_size: 0x3132_3334,
            max_timestamp: 0x4142_4344_4546_4748,
            appended_at: 0x5152_5354_5556_5758,
            attributes: 0x0018,
            producer: Some(ProducerStamp {
                id: 0x6162_6364_6566_6768,
                epoch: 0x7172,
                base_sequence: 0x0a0b_0c0d,
            }),
        }
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        assert_eq!(example().encode(), GOLDEN);
        assert_eq!(EntryDescriptor::decode(&GOLDEN), Ok(example()));
    }

    #[test]
    fn a_batch_without_a_producer_survives() {
        let descriptor = EntryDescriptor { producer: None, ..example() };
        assert_eq!(EntryDescriptor::decode(&descriptor.encode()), Ok(descriptor));
    }

    #[test]
    fn every_inconsistent_field_is_refused() {
        let bad = |at: usize, bytes: &[u8]| {
            let mut golden = GOLDEN;
            golden[at..at + bytes.len()].copy_from_slice(bytes);
            EntryDescriptor::decode(&golden)
        };
        let minus_one = [0xff; 8];
        assert_eq!(bad(0, &[64]), Err(DescriptorError::Kind { found: 64 }));
        assert_eq!(bad(1, &[2]), Err(DescriptorError::Version { found: 2 }));
        assert_eq!(bad(4, &[0; 4]), Err(DescriptorError::RecordCount { found: 0 }));
        assert_eq!(bad(4, &minus_one[..4]), Err(DescriptorError::RecordCount { found: -1 }));
        assert_eq!(bad(16, &minus_one), Err(DescriptorError::BaseOffset { found: -1 }));
        let at_the_end = i64::MAX;
        let result = bad(16, &at_the_end.to_le_bytes());
        assert_eq!(result, Err(DescriptorError::BaseOffset { found: at_the_end }));
        assert_eq!(bad(52, &[60, 0, 0, 0]), Err(DescriptorError::BatchSize { found: 60 }));
        for (at, size) in [(48, 4), (56, 2)] {
            let result = bad(at, &minus_one[..size]);
            assert!(matches!(result, Err(DescriptorError::Producer { .. })), "at {at}");
        }
        let result = bad(40, &(-2_i64).to_le_bytes());
        assert!(matches!(result, Err(DescriptorError::Producer { id: -2, .. })));
    }

    #[test]
    fn every_other_size_is_refused() {
        for size in 0..DESCRIPTOR_SIZE {
            let result = EntryDescriptor::decode(&GOLDEN[..size]);
            assert_eq!(result, Err(DescriptorError::Size { found: size }));
        }
        let mut long = GOLDEN.to_vec();
        long.push(0);
        assert_eq!(EntryDescriptor::decode(&long), Err(DescriptorError::Size { found: 59 }));
    }
}
