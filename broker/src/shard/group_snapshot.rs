//! What stands for the compacted log of a data group: its manifest, the state of its partitions and
//! the consumer groups of its `__consumer_offsets` partitions. Records are in the objects that the
//! manifest names. Normative: `docs/formats/group-snapshot.md`.

use bytes::Bytes;
use model::{LogIndex, PartitionId};
use s3_uploader::{Arrival, GroupHead, Manifest};

use crate::codec::{DecodeError, Reader, Writer};
use crate::group::{decode_records, encode_records};
use crate::partition::{Origin, Partition};

/// Keys and values of records.
pub(crate) type GroupRecords = Vec<(Bytes, Bytes)>;

/// Why bytes are not the snapshot of a data group.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum GroupSnapshotError {
    #[error("group snapshot: {0}")]
    Decode(#[from] DecodeError),
    #[error("group snapshot: {0}")]
    Head(#[from] s3_uploader::DecodeError),
}

/// A snapshot as it is read back.
#[derive(Debug)]
pub(crate) struct GroupSnapshot {
    pub(crate) stored: Stored,
    pub(crate) partitions: Vec<Partition>,
}

/// What a snapshot says beside the partitions themselves.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) manifest: Manifest,
    /// The last entry whose edit the manifest contains. It may be younger than the snapshot's
    /// entry: an edit up to here is not applied again.
    pub(crate) edited: LogIndex,
    /// The live records of partitions of `__consumer_offsets`.
    pub(crate) offsets: Vec<(PartitionId, GroupRecords)>,
}

/// Bytes of a snapshot that stands for the log up to `upto`. `edited` and `offsets` as in
/// [`Stored`].
pub(crate) fn encode_snapshot(
    edited: LogIndex,
    manifest: &Manifest,
    partitions: &[&Partition],
    offsets: &[(PartitionId, GroupRecords)],
    upto: LogIndex,
) -> Vec<u8> {
    let mut writer = Writer::after(GroupHead::encode(edited, manifest));
    debug_assert!(partitions.is_sorted_by(|a, b| a.id() < b.id()), "each once, in order");
    writer.count(partitions.len());
    for partition in partitions {
        partition.encode_snapshot(upto, &mut writer);
    }
    writer.count(offsets.len());
    for (partition, records) in offsets {
        writer.u64(partition.get());
        encode_records(records, &mut writer);
    }
    writer.finish()
}

impl GroupSnapshot {
    /// # Errors
    ///
    /// The bytes are not a snapshot of a version that this broker knows.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, GroupSnapshotError> {
        let (GroupHead { edited, manifest }, rest) = GroupHead::decode(bytes)?;
        let mut reader = Reader::new(rest);
        let mut last = None;
        let partitions = reader.list("partitions", |reader| {
            let mut partition = Partition::decode_snapshot(reader)?;
            if last.replace(partition.id()) >= Some(partition.id()) {
                return Err(DecodeError::Order { field: "partitions" });
            }
            if let Some(Arrival { id, epoch_base }) = manifest.arrival(partition.id()) {
                partition.set_origin(Origin { index: LogIndex::default(), id, epoch_base });
            }
            Ok(partition)
        })?;
        let offsets = reader.list("offsets", |reader| {
            let partition = PartitionId::new(reader.u64("offsets partition")?);
            Ok((partition, decode_records(reader)?))
        })?;
        reader.finish()?;
        Ok(Self { stored: Stored { manifest, edited, offsets }, partitions })
    }
}

#[cfg(test)]
mod tests {
    use model::Offset;

    use super::*;

    fn golden() -> Bytes {
        let offset = |number: u64| Offset::new(i64::try_from(number).expect("small"));
        let partition = |number| Partition::starting_at(PartitionId::new(number), offset(number));
        let (a, b) = (partition(3), partition(5));
        let record = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
        let offsets = [(PartitionId::new(5), vec![record])];
        let edited = LogIndex::new(9);
        encode_snapshot(edited, &Manifest::default(), &[&a, &b], &offsets, LogIndex::new(7)).into()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let found = GroupSnapshot::decode(&golden()).expect("a snapshot");
        assert_eq!(found.stored.edited, LogIndex::new(9));
        assert_eq!(found.stored.manifest.extent_count(), 0);
        let partitions: Vec<_> = found.partitions.iter().map(|it| it.id().get()).collect();
        assert_eq!(partitions, [3, 5]);
        assert_eq!(found.partitions[1].log_end(), Offset::new(5));
        let [(partition, records)] = &found.stored.offsets[..] else { panic!("one list") };
        assert_eq!((partition.get(), records.len(), &records[0].0[..]), (5, 1, &b"key"[..]));
    }

    #[test]
    fn a_partition_that_is_there_twice_is_refused() {
        let twice = [3, 3].map(|id| Partition::new(PartitionId::new(id)));
        let mut writer =
            Writer::after(GroupHead::encode(LogIndex::default(), &Manifest::default()));
        writer.count(twice.len());
        twice.iter().for_each(|it| it.encode_snapshot(LogIndex::default(), &mut writer));
        writer.count(0);
        let error = GroupSnapshot::decode(&writer.finish().into()).expect_err("twice");
        assert_eq!(error, DecodeError::Order { field: "partitions" }.into());
    }

    #[test]
    fn every_prefix_and_another_version_are_refused() {
        let golden = golden();
        for len in 0..golden.len() {
            assert!(GroupSnapshot::decode(&golden.slice(..len)).is_err(), "prefix {len}");
        }
        let mut other = golden.to_vec();
        other[0] = 2;
        let error = GroupSnapshot::decode(&other.into()).expect_err("version 2");
        assert_eq!(error, GroupSnapshotError::Head(s3_uploader::DecodeError::Version { found: 2 }));
    }
}
