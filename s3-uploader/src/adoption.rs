//! A partition as it comes to a raft group from another one: which objects hold it, and its state.
//! Normative: `docs/formats/manifest.md`.
//!
//! ```text
//! version     u8 = 1
//! group       u64                                       that adopts
//! partition   u64
//! id          u64                                       of the move: an index of group 0's log
//! epoch_base  u32
//! log_start   i64
//! end         i64                                       -1: nothing was offloaded
//! objects     list of: name, size u64                   names ascend
//! extents     list of: number of the object u32, extent
//! state       u32 size, bytes
//! ```
//!
//! Brokers send it to each other, and then it is the body of an edit. It has no checksum: the log
//! entry has one, and so has what carries it between brokers.

use bytes::{BufMut, Bytes, BytesMut};
use model::{LogIndex, Offset, PartitionId, RaftGroupId};

use crate::codec::{self, DecodeError, EXTENT_SIZE, NAME_SIZE, Reader};
use crate::edit::EditError;
use crate::object::Extent;
use crate::object_name::ObjectName;

const VERSION: u8 = 1;
const NO_END: Offset = Offset::new(-1);
const FIXED_SIZE: usize = 57;

/// See the module's text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Adoption {
    /// That adopts: to it, objects of any other group are foreign.
    pub group: RaftGroupId,
    pub partition: PartitionId,
    /// The move: an index of group 0's log.
    pub id: LogIndex,
    pub epoch_base: u32,
    pub log_start: Offset,
    /// Where the records end, exclusive; `None` if there never were any. Never -1.
    pub end: Option<Offset>,
    /// With sizes, ascending. Each has an extent.
    pub objects: Vec<(ObjectName, u64)>,
    /// In order of offsets, without a gap.
    pub extents: Vec<Extent>,
    /// Opaque here: the broker's.
    pub state: Bytes,
}

impl Adoption {
    /// # Panics
    ///
    /// The objects do not ascend, or do not have that of an extent among them.
    pub fn encode(&self) -> Bytes {
        let objects_size = self.objects.len() * (NAME_SIZE + 8);
        let extents_size = self.extents.len() * (4 + EXTENT_SIZE);
        let size = FIXED_SIZE + objects_size + extents_size + self.state.len();
        let mut out = BytesMut::with_capacity(size);
        self.put(&mut out);
        out.freeze()
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        let ascend = self.objects.is_sorted_by(|a, b| a.0 < b.0);
        assert!(ascend, "the objects of an adoption ascend");
        out.put_u8(VERSION);
        out.put_u64_le(self.group.get());
        out.put_u64_le(self.partition.get());
        out.put_u64_le(self.id.get());
        out.put_u32_le(self.epoch_base);
        out.put_i64_le(self.log_start.get());
        out.put_i64_le(self.end.unwrap_or(NO_END).get());
        codec::put_count(out, self.objects.len());
        for (name, size) in &self.objects {
            codec::put_name(out, name);
            out.put_u64_le(*size);
        }
        codec::put_count(out, self.extents.len());
        for extent in &self.extents {
            let number = self.number_of(&extent.object);
            codec::put_count(out, number.expect("the objects of all extents are listed"));
            codec::put_extent(out, extent);
        }
        codec::put_count(out, self.state.len());
        out.put_slice(&self.state);
    }

    /// That it fits a manifest is for `Manifest::apply` to say.
    ///
    /// # Errors
    ///
    /// The bytes are not an adoption.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let adoption = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(adoption)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version(VERSION)?;
        let (group, partition) = (RaftGroupId::new(reader.u64()?), reader.partition()?);
        let (id, epoch_base) = (LogIndex::new(reader.u64()?), reader.u32()?);
        let (log_start, end) = (reader.offset()?, reader.offset()?);
        let end = Some(end).filter(|end| *end != NO_END);
        let objects = reader.list(NAME_SIZE + 8, |reader| Ok((reader.name()?, reader.u64()?)))?;
        if !objects.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(DecodeError::Inconsistent { field: "the order of objects" });
        }
        let extents = reader.list(4 + EXTENT_SIZE, |reader| {
            let number = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
            let object = objects.get(number);
            let (name, _) =
                object.ok_or(DecodeError::Inconsistent { field: "the number of an object" })?;
            reader.extent(*name)
        })?;
        let state = Bytes::copy_from_slice(reader.bytes()?);
        Ok(Self { group, partition, id, epoch_base, log_start, end, objects, extents, state })
    }

    /// What there is to check without the manifest that it is to be a part of: its objects, and
    /// that the extents are in them.
    pub(crate) fn check(&self) -> Result<(), EditError> {
        let mut pairs = self.objects.iter().zip(self.objects.iter().skip(1));
        if let Some((_, (object, _))) = pairs.find(|(a, b)| a.0 >= b.0) {
            return Err(EditError::ObjectOrder { object: *object });
        }
        let mut used = vec![false; self.objects.len()];
        for extent in &self.extents {
            let Extent { object, base, end, .. } = *extent;
            let number = self.number_of(&object).ok_or(EditError::UnlistedObject { object })?;
            if !extent.is_sound(self.objects[number].1) {
                let partition = self.partition;
                return Err(EditError::Unsound { partition, base, end });
            }
            used[number] = true;
        }
        match self.objects.iter().zip(used).find(|(_, used)| !used) {
            Some(((object, _), _)) => Err(EditError::UnusedObject { object: *object }),
            None => Ok(()),
        }
    }

    fn number_of(&self, object: &ObjectName) -> Option<usize> {
        self.objects.binary_search_by_key(object, |(name, _)| *name).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use model::Term;
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::tests::any_adoption;

    const GOLDEN: &[u8] = include_bytes!("../testdata/adoption.v1.bin");

    fn extent(object: ObjectName, base: i64, end: i64, position: u64) -> Extent {
        let (base, end) = (Offset::new(base), Offset::new(end));
        let (size, index_position, index_count) = (10, 54 + position, 1);
        let max_timestamp = 1_700_000_000_200;
        Extent { object, base, end, position, size, index_position, index_count, max_timestamp }
    }

    pub(crate) fn golden_adoption() -> Adoption {
        let (group, term) = (RaftGroupId::new(3), Term::new(12));
        let range = ObjectName::range(group, term, LogIndex::new(4711), LogIndex::new(4999));
        let (range, merged) = (range.expect("a range"), ObjectName::merged(group, term, 7));
        Adoption {
            group: RaftGroupId::new(5),
            partition: PartitionId::new(7),
            id: LogIndex::new(900),
            epoch_base: 4,
            log_start: Offset::new(120),
            end: Some(Offset::new(310)),
            objects: vec![(range, 371), (merged, 171)],
            extents: vec![extent(range, 100, 250, 10), extent(merged, 250, 310, 0)],
            state: Bytes::from_static(b"state"),
        }
    }

    fn decoded(bytes: &[u8]) -> Result<Adoption, DecodeError> {
        Adoption::decode(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        assert_eq!(golden_adoption().encode(), GOLDEN);
        assert_eq!(decoded(GOLDEN), Ok(golden_adoption()));
        let nothing = Adoption { end: None, objects: vec![], extents: vec![], ..golden_adoption() };
        assert_eq!(decoded(&nothing.encode()), Ok(nothing));
    }

    #[test]
    fn every_prefix_and_what_is_left_over_is_refused() {
        for len in 0..GOLDEN.len() {
            assert!(decoded(&GOLDEN[..len]).is_err(), "prefix {len}");
        }
        let longer = [GOLDEN, &[0]].concat();
        assert_eq!(decoded(&longer), Err(DecodeError::LeftOver { left: 1 }));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        // The number of the first extent's object.
        let mut bytes = GOLDEN.to_vec();
        bytes[135] = 2;
        let field = "the number of an object";
        assert_eq!(decoded(&bytes), Err(DecodeError::Inconsistent { field }));
        let (first, second) = (49..90, 90..131);
        for (one, other) in [(&first, &second), (&first, &first)] {
            let parts = [&GOLDEN[..49], &GOLDEN[other.clone()], &GOLDEN[one.clone()]];
            let bytes = [&parts.concat(), &GOLDEN[131..]].concat();
            let field = "the order of objects";
            assert_eq!(decoded(&bytes), Err(DecodeError::Inconsistent { field }));
        }
        for at in [45, 131, 247] {
            let mut bytes = GOLDEN.to_vec();
            bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(decoded(&bytes).is_err(), "count at {at}");
        }
    }

    #[test]
    #[should_panic(expected = "the objects of all extents are listed")]
    fn an_extent_of_an_object_that_is_not_listed_cannot_be_written() {
        let mut adoption = golden_adoption();
        adoption.objects.pop();
        adoption.encode();
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(adoption in any_adoption()) {
            prop_assert_eq!(Adoption::decode(&adoption.encode()), Ok(adoption));
        }

        /// Whatever decodes is the only reading of its bytes.
        #[test]
        fn random_bytes_never_panic(
            adoption in any_adoption(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut bytes = adoption.encode().to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(adoption) = decoded(&bytes) {
                let _ = adoption.check();
                prop_assert_eq!(&adoption.encode()[..], bytes);
            }
        }
    }
}
