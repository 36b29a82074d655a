//! A change to a group's manifest: the payload of an entry in the group's log. Normative:
//! `docs/formats/manifest.md`.
//!
//! ```text
//! version u8 = 1 | kind u8 | now_ms i64 | body by kind
//! ```
//!
//! The time is the proposing leader's and travels with the edit: every replica must come to the
//! same manifest, and each has a clock of its own. There is no checksum: the log entry that carries
//! the bytes has one.

use bytes::{BufMut, Bytes, BytesMut};
use model::{LogIndex, Offset, PartitionId, RaftGroupId};

use crate::adoption::Adoption;
use crate::codec::{self, DecodeError, EXTENT_SIZE, NAME_SIZE, Reader};
use crate::object::Extent;
use crate::object_name::ObjectName;

const VERSION: u8 = 1;
const OFFLOADED: u8 = 1;
const MERGED: u8 = 2;
const LOG_START: u8 = 3;
const DROPPED: u8 = 4;
const REMOVED: u8 = 5;
const SEALED: u8 = 6;
const UNSEALED: u8 = 7;
const ADOPTED: u8 = 8;
const LENT: u8 = 9;
const RELEASED: u8 = 10;

/// What happened to a group's objects; `Manifest::apply` says what each does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Edit {
    /// The group's log is in the store up to `upto`, inclusive. Where no entry carried a record
    /// there is no object: `extents` are empty and `object_size` is 0.
    Offloaded {
        upto: LogIndex,
        object: ObjectName,
        object_size: u64,
        extents: Vec<(PartitionId, Extent)>,
    },
    /// Each extent of a new object replaces those of its partition that it was made from.
    Merged { object: ObjectName, object_size: u64, extents: Vec<(PartitionId, Extent)> },
    /// Nothing below `offset` can be read any more: retention, DeleteRecords.
    LogStart { partition: PartitionId, offset: Offset },
    /// The partitions' topics were deleted.
    Dropped { partitions: Vec<PartitionId> },
    /// The objects are gone from the store.
    Removed { objects: Vec<ObjectName> },
    /// The partition takes no more records, since that move takes it away.
    Sealed { partition: PartitionId, id: LogIndex },
    /// It takes records again: the move is called off.
    Unsealed { partition: PartitionId },
    /// A partition came from another group, with all that is known of it.
    Adopted(Box<Adoption>),
    /// The partition is group `to`'s, by entry `since` of that group's log.
    Lent { partition: PartitionId, to: RaftGroupId, since: u64 },
    /// The group that has the partition does not need these any more.
    Released { partition: PartitionId, objects: Vec<ObjectName> },
}

/// Why an edit does not fit the manifest, which it then leaves as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EditError {
    #[error("offload up to entry {upto}, but {offloaded_upto} is offloaded already")]
    AlreadyOffloaded { upto: LogIndex, offloaded_upto: LogIndex },
    #[error("object {object} is in the manifest already")]
    KnownObject { object: ObjectName },
    #[error("object {object} has the wrong form of name for this edit")]
    ObjectForm { object: ObjectName },
    #[error("an extent names object {found} in an edit about {object}")]
    OtherObject { object: ObjectName, found: ObjectName },
    #[error("partition {partition}: offsets {base} to {end} are no place in their object")]
    Unsound { partition: PartitionId, base: Offset, end: Offset },
    #[error("partition {partition} comes after a higher one")]
    Order { partition: PartitionId },
    #[error("partition {partition}: extent from {base} overlaps what ends at {end}")]
    Overlap { partition: PartitionId, base: Offset, end: Offset },
    #[error("partition {partition}: extent from {base} leaves a gap after {end}")]
    Gap { partition: PartitionId, base: Offset, end: Offset },
    #[error("object {object} cannot be gone: an extent refers to it")]
    StillReferred { object: ObjectName },
    #[error("partition {partition} came by move {arrived}: move {id} is no news")]
    AlreadyAdopted { partition: PartitionId, id: LogIndex, arrived: LogIndex },
    #[error(
        "partition {partition} comes with extents that do not lead from its log start to its end"
    )]
    AdoptedExtents { partition: PartitionId },
    #[error("object {object} does not come after the one before it")]
    ObjectOrder { object: ObjectName },
    #[error("object {object} is listed without an extent in it")]
    UnusedObject { object: ObjectName },
    #[error("an extent names object {object}, which is not listed")]
    UnlistedObject { object: ObjectName },
    #[error("object {object} comes with {found} bytes and has {known}")]
    ObjectSize { object: ObjectName, known: u64, found: u64 },
    #[error("object {object} comes back although it may be deleted already")]
    RetiredObject { object: ObjectName },
    #[error("sizes in the manifest add up to more than 64 bits hold")]
    Sizes,
}

impl Edit {
    /// The bytes of a log entry that says that this happened at `now_ms`.
    ///
    /// # Panics
    ///
    /// An extent names another object than the edit: its name is written only once. As
    /// [`Adoption::encode`] does.
    pub fn encode(&self, now_ms: i64) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u8(self.kind());
        out.put_i64_le(now_ms);
        match self {
            Self::Offloaded { upto, object, object_size, extents } => {
                out.put_u64_le(upto.get());
                put_object(&mut out, object, *object_size, extents);
            }
            Self::Merged { object, object_size, extents } => {
                put_object(&mut out, object, *object_size, extents);
            }
            Self::LogStart { partition, offset } => {
                out.put_u64_le(partition.get());
                out.put_i64_le(offset.get());
            }
            Self::Dropped { partitions } => {
                codec::put_count(&mut out, partitions.len());
                partitions.iter().for_each(|partition| out.put_u64_le(partition.get()));
            }
            Self::Removed { objects } => put_names(&mut out, objects),
            Self::Sealed { partition, id } => {
                out.put_u64_le(partition.get());
                out.put_u64_le(id.get());
            }
            Self::Unsealed { partition } => out.put_u64_le(partition.get()),
            Self::Adopted(adoption) => adoption.put(&mut out),
            Self::Lent { partition, to, since } => {
                out.put_u64_le(partition.get());
                out.put_u64_le(to.get());
                out.put_u64_le(*since);
            }
            Self::Released { partition, objects } => {
                out.put_u64_le(partition.get());
                put_names(&mut out, objects);
            }
        }
        out.freeze()
    }

    /// The edit and its time. That it fits a manifest is for `Manifest::apply` to say.
    ///
    /// # Errors
    ///
    /// The bytes are not an edit.
    pub fn decode(bytes: &[u8]) -> Result<(Self, i64), DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(VERSION)?;
        let (kind, now_ms) = (reader.u8()?, reader.i64()?);
        let edit = Self::decode_body(kind, &mut reader)?;
        reader.finish()?;
        Ok((edit, now_ms))
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Offloaded { .. } => OFFLOADED,
            Self::Merged { .. } => MERGED,
            Self::LogStart { .. } => LOG_START,
            Self::Dropped { .. } => DROPPED,
            Self::Removed { .. } => REMOVED,
            Self::Sealed { .. } => SEALED,
            Self::Unsealed { .. } => UNSEALED,
            Self::Adopted(_) => ADOPTED,
            Self::Lent { .. } => LENT,
            Self::Released { .. } => RELEASED,
        }
    }

    fn decode_body(kind: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match kind {
            OFFLOADED => {
                let upto = LogIndex::new(reader.u64()?);
                let (object, object_size, extents) = object_of(reader)?;
                Ok(Self::Offloaded { upto, object, object_size, extents })
            }
            MERGED => {
                let (object, object_size, extents) = object_of(reader)?;
                Ok(Self::Merged { object, object_size, extents })
            }
            LOG_START => {
                Ok(Self::LogStart { partition: reader.partition()?, offset: reader.offset()? })
            }
            DROPPED => {
                let partitions = reader.list(size_of::<u64>(), Reader::partition)?;
                Ok(Self::Dropped { partitions })
            }
            REMOVED => Ok(Self::Removed { objects: names_of(reader)? }),
            SEALED => {
                let (partition, id) = (reader.partition()?, LogIndex::new(reader.u64()?));
                Ok(Self::Sealed { partition, id })
            }
            UNSEALED => Ok(Self::Unsealed { partition: reader.partition()? }),
            ADOPTED => Ok(Self::Adopted(Box::new(Adoption::read(reader)?))),
            LENT => {
                let (partition, to) = (reader.partition()?, RaftGroupId::new(reader.u64()?));
                Ok(Self::Lent { partition, to, since: reader.u64()? })
            }
            RELEASED => {
                let partition = reader.partition()?;
                Ok(Self::Released { partition, objects: names_of(reader)? })
            }
            found => Err(DecodeError::Kind { field: "edit", found }),
        }
    }
}

fn put_object(
    out: &mut BytesMut,
    object: &ObjectName,
    object_size: u64,
    extents: &[(PartitionId, Extent)],
) {
    codec::put_name(out, object);
    out.put_u64_le(object_size);
    codec::put_count(out, extents.len());
    for (partition, extent) in extents {
        assert_eq!(extent.object, *object, "all extents of an edit are in its object");
        out.put_u64_le(partition.get());
        codec::put_extent(out, extent);
    }
}

fn put_names(out: &mut BytesMut, objects: &[ObjectName]) {
    codec::put_count(out, objects.len());
    objects.iter().for_each(|object| codec::put_name(out, object));
}

fn names_of(reader: &mut Reader<'_>) -> Result<Vec<ObjectName>, DecodeError> {
    reader.list(NAME_SIZE, Reader::name)
}

type ObjectFields = (ObjectName, u64, Vec<(PartitionId, Extent)>);

fn object_of(reader: &mut Reader<'_>) -> Result<ObjectFields, DecodeError> {
    let (object, object_size) = (reader.name()?, reader.u64()?);
    let extents = reader.list(size_of::<u64>() + EXTENT_SIZE, |reader| {
        Ok((reader.partition()?, reader.extent(object)?))
    })?;
    Ok((object, object_size, extents))
}

#[cfg(test)]
mod tests {
    use model::{RaftGroupId, Term};
    use proptest::prelude::*;

    use super::*;
    use crate::adoption::tests::golden_adoption;
    use crate::manifest::tests::{any_edit, range_name};

    const OFFLOADED_GOLDEN: &[u8] = include_bytes!("../testdata/edit-offloaded.v1.bin");
    const MERGED_GOLDEN: &[u8] = include_bytes!("../testdata/edit-merged.v1.bin");
    const LOG_START_GOLDEN: &[u8] = include_bytes!("../testdata/edit-log-start.v1.bin");
    const DROPPED_GOLDEN: &[u8] = include_bytes!("../testdata/edit-dropped.v1.bin");
    const REMOVED_GOLDEN: &[u8] = include_bytes!("../testdata/edit-removed.v1.bin");
    const SEALED_GOLDEN: &[u8] = include_bytes!("../testdata/edit-sealed.v1.bin");
    const UNSEALED_GOLDEN: &[u8] = include_bytes!("../testdata/edit-unsealed.v1.bin");
    const ADOPTED_GOLDEN: &[u8] = include_bytes!("../testdata/edit-adopted.v1.bin");
    const LENT_GOLDEN: &[u8] = include_bytes!("../testdata/edit-lent.v1.bin");
    const RELEASED_GOLDEN: &[u8] = include_bytes!("../testdata/edit-released.v1.bin");
    const NOW_MS: i64 = 1_700_000_000_300;

    fn extent(object: ObjectName, base: i64, end: i64, position: u64) -> Extent {
        let (base, end) = (Offset::new(base), Offset::new(end));
        let (size, index_position, index_count) = (10, 54 + position, 1);
        let max_timestamp = 1_700_000_000_200;
        Extent { object, base, end, position, size, index_position, index_count, max_timestamp }
    }

    fn golden_edits() -> [(Edit, &'static [u8]); 10] {
        let (first, last) = (LogIndex::new(4711), LogIndex::new(4999));
        let range = ObjectName::range(RaftGroupId::new(3), Term::new(12), first, last);
        let range = range.expect("a range");
        let partition = PartitionId::new(7);
        let merged = ObjectName::merged(RaftGroupId::new(3), Term::new(12), 7);
        let in_range = [(1, extent(range, 0, 4, 0)), (7, extent(range, 100, 250, 10))];
        let extents = in_range.map(|(partition, extent)| (PartitionId::new(partition), extent));
        let offloaded = Edit::Offloaded {
            upto: LogIndex::new(5000),
            object: range,
            object_size: 371,
            extents: extents.into(),
        };
        let extents = vec![(partition, extent(merged, 100, 250, 0))];
        let merged = Edit::Merged { object: merged, object_size: 171, extents };
        [
            (offloaded, OFFLOADED_GOLDEN),
            (merged, MERGED_GOLDEN),
            (Edit::LogStart { partition, offset: Offset::new(120) }, LOG_START_GOLDEN),
            (Edit::Dropped { partitions: vec![PartitionId::new(1), partition] }, DROPPED_GOLDEN),
            (Edit::Removed { objects: vec![range] }, REMOVED_GOLDEN),
            (Edit::Sealed { partition, id: LogIndex::new(900) }, SEALED_GOLDEN),
            (Edit::Unsealed { partition }, UNSEALED_GOLDEN),
            (Edit::Adopted(Box::new(golden_adoption())), ADOPTED_GOLDEN),
            (Edit::Lent { partition, to: RaftGroupId::new(5), since: 321 }, LENT_GOLDEN),
            (Edit::Released { partition, objects: vec![range] }, RELEASED_GOLDEN),
        ]
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        for (edit, golden) in golden_edits() {
            assert_eq!(edit.encode(NOW_MS), golden, "{edit:?}");
            assert_eq!(Edit::decode(golden), Ok((edit, NOW_MS)));
        }
    }

    #[test]
    fn every_prefix_and_what_is_left_over_is_refused() {
        for (_, golden) in golden_edits() {
            for len in 0..golden.len() {
                assert!(Edit::decode(&golden[..len]).is_err(), "prefix {len}");
            }
            let longer = [golden, &[0]].concat();
            assert_eq!(Edit::decode(&longer), Err(DecodeError::LeftOver { left: 1 }));
        }
    }

    #[test]
    fn unknown_versions_kinds_and_forms_are_refused() {
        let mut bytes = OFFLOADED_GOLDEN.to_vec();
        bytes[0] = 2;
        assert_eq!(Edit::decode(&bytes), Err(DecodeError::Version { found: 2 }));
        (bytes[0], bytes[1]) = (1, 11);
        let kind = DecodeError::Kind { field: "edit", found: 11 };
        assert_eq!(Edit::decode(&bytes), Err(kind));
        (bytes[1], bytes[18]) = (1, 3);
        let kind = DecodeError::Kind { field: "an object's name", found: 3 };
        assert_eq!(Edit::decode(&bytes), Err(kind));
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused() {
        let counts = [59, 51, 0, 10, 10, 0, 0, 55, 0, 18];
        for (at, (_, golden)) in counts.into_iter().zip(golden_edits()) {
            if at == 0 {
                continue;
            }
            let mut bytes = golden.to_vec();
            bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            let left = golden.len() - at - 4;
            let error = DecodeError::Count { count: u32::MAX.into(), left };
            assert_eq!(Edit::decode(&bytes), Err(error));
        }
    }

    #[test]
    #[should_panic(expected = "all extents of an edit are in its object")]
    fn an_extent_of_another_object_cannot_be_written() {
        let [(_, _), (Edit::Merged { object_size, extents, .. }, _), ..] = golden_edits() else {
            unreachable!("the second edit is a merge")
        };
        let object = range_name(1, 5);
        Edit::Merged { object, object_size, extents }.encode(NOW_MS);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(edit in any_edit(), now_ms in any::<i64>()) {
            prop_assert_eq!(Edit::decode(&edit.encode(now_ms)), Ok((edit, now_ms)));
        }

        /// Whatever decodes is the only reading of its bytes.
        #[test]
        fn random_bytes_never_panic(
            edit in any_edit(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
            tail in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = edit.encode(NOW_MS).to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let adopted = [ADOPTED_GOLDEN[..11].to_vec(), tail.clone()].concat();
            for bytes in [bytes.as_slice(), &tail, &[&[1, 1], &tail[..]].concat(), &adopted] {
                if let Ok((edit, now_ms)) = Edit::decode(bytes) {
                    prop_assert_eq!(&edit.encode(now_ms)[..], bytes);
                }
            }
        }
    }
}
