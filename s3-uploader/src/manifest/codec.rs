//! Bytes of a whole manifest. Normative: `docs/formats/manifest.md`.
//!
//! ```text
//! version          u8
//! offloaded_upto   u64
//! live             list of: name, size u64                     names ascend
//! retired          list of: name, size u64, retired_ms i64     names ascend, none is live
//! partitions       list of: partition u64, log_start i64, end i64 (-1: none),
//!                           list of: number of the object in `live` u32, extent
//! ```
//!
//! Version 1 ends here: the group never gave a partition away nor got one. Version 2 goes on:
//!
//! ```text
//! sealed           list of: partition u64, move u64
//! arrivals         list of: partition u64, move u64, epoch_base u32
//! foreign          list of: number of the object in `live` u32        numbers ascend
//! lent             list of: partition u64, to u64, since u64,
//!                           list of: number of the object in `live` u32
//! ```
//!
//! A manifest has exactly one encoding: replicas that applied the same edits have equal bytes.
//! There is no checksum: the snapshot or the manifest file that carries the bytes has one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use model::{LogIndex, Offset, PartitionId, RaftGroupId};

use super::{Arrival, Lent, LiveObject, Manifest, PartitionExtents, RetiredObject};
use crate::codec::{self, DecodeError, EXTENT_SIZE, NAME_SIZE, Reader};
use crate::object::Extent;
use crate::object_name::ObjectName;
use crate::plan::SMALL_BELOW;

/// Without moves and with them.
const VERSIONS: [u8; 2] = [1, 2];
const NO_END: Offset = Offset::new(-1);
const LIVE_SIZE: usize = NAME_SIZE + 8;
const RETIRED_SIZE: usize = NAME_SIZE + 16;
/// Of a partition without extents.
const PARTITION_SIZE_MIN: usize = 28;
const SEALED_SIZE: usize = 16;
const ARRIVAL_SIZE: usize = 20;
const NUMBER_SIZE: usize = 4;
/// With one object.
const LENT_SIZE_MIN: usize = 28 + NUMBER_SIZE;

impl Manifest {
    pub fn encode(&self) -> Bytes {
        let extents_size = self.extent_count() * (4 + EXTENT_SIZE);
        let objects_size = self.live.len() * LIVE_SIZE + self.retired.len() * RETIRED_SIZE;
        let partitions_size = self.partitions.len() * PARTITION_SIZE_MIN;
        let fixed_size = 1 + 8 + 3 * 4;
        let size = fixed_size + objects_size + partitions_size + extents_size;
        let mut out = BytesMut::with_capacity(size);
        out.put_u8(VERSIONS[usize::from(self.has_moves())]);
        out.put_u64_le(self.offloaded_upto.get());
        codec::put_count(&mut out, self.live.len());
        for (name, object) in &self.live {
            codec::put_name(&mut out, name);
            out.put_u64_le(object.size);
        }
        codec::put_count(&mut out, self.retired.len());
        for (name, object) in &self.retired {
            codec::put_name(&mut out, name);
            out.put_u64_le(object.size);
            out.put_i64_le(object.retired_ms);
        }
        let names: Vec<&ObjectName> = self.live.keys().collect();
        codec::put_count(&mut out, self.partitions.len());
        for (partition, known) in &self.partitions {
            out.put_u64_le(partition.get());
            known.encode(&mut out, &names);
        }
        if self.has_moves() {
            self.encode_moves(&mut out, &names);
        }
        out.freeze()
    }

    /// Whether there is anything that version 1 has no place for.
    fn has_moves(&self) -> bool {
        let has_foreign = || self.live.values().any(|object| object.is_foreign);
        !(self.sealed.is_empty() && self.arrivals.is_empty() && self.lent.is_empty())
            || has_foreign()
    }

    fn encode_moves(&self, out: &mut BytesMut, names: &[&ObjectName]) {
        codec::put_count(out, self.sealed.len());
        for (partition, id) in &self.sealed {
            out.put_u64_le(partition.get());
            out.put_u64_le(id.get());
        }
        codec::put_count(out, self.arrivals.len());
        for (partition, Arrival { id, epoch_base }) in &self.arrivals {
            out.put_u64_le(partition.get());
            out.put_u64_le(id.get());
            out.put_u32_le(*epoch_base);
        }
        let foreign = self.live.iter().filter(|(_, object)| object.is_foreign);
        put_numbers(out, names, foreign.map(|(name, _)| name));
        codec::put_count(out, self.lent.len());
        for (partition, lent) in &self.lent {
            out.put_u64_le(partition.get());
            out.put_u64_le(lent.to.get());
            out.put_u64_le(lent.since);
            put_numbers(out, names, lent.objects.iter());
        }
    }

    /// # Errors
    ///
    /// The bytes are not a manifest that edits could have led to.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if !VERSIONS.contains(&version) {
            return Err(DecodeError::Version { found: version });
        }
        let offloaded_upto = LogIndex::new(reader.u64()?);
        let live = reader.list(LIVE_SIZE, |reader| {
            let (name, size) = (reader.name()?, reader.u64()?);
            Ok((name, LiveObject { size, extent_count: 0, lent_count: 0, is_foreign: false }))
        })?;
        let retired = reader.list(RETIRED_SIZE, |reader| {
            let (name, size) = (reader.name()?, reader.u64()?);
            Ok((name, RetiredObject { size, retired_ms: reader.i64()? }))
        })?;
        let mut objects = Objects { live };
        let partitions = reader.list(PARTITION_SIZE_MIN, |reader| {
            Ok((reader.partition()?, PartitionExtents::decode(reader, &mut objects)?))
        })?;
        let mut manifest = Self {
            offloaded_upto,
            partitions: ascending(partitions, "partitions")?,
            retired: ascending(retired, "retired objects")?,
            ..Self::default()
        };
        if version == VERSIONS[1] {
            manifest.decode_moves(&mut reader, &mut objects)?;
        }
        reader.finish()?;
        manifest.list_live(objects)?;
        if version != VERSIONS[usize::from(manifest.has_moves())] {
            return Err(DecodeError::Inconsistent { field: "the version" });
        }
        Ok(manifest)
    }

    fn decode_moves(
        &mut self,
        reader: &mut Reader<'_>,
        objects: &mut Objects,
    ) -> Result<(), DecodeError> {
        let sealed = reader
            .list(SEALED_SIZE, |reader| Ok((reader.partition()?, LogIndex::new(reader.u64()?))))?;
        self.sealed = ascending(sealed, "sealed partitions")?;
        let arrivals = reader.list(ARRIVAL_SIZE, |reader| {
            let (partition, id) = (reader.partition()?, LogIndex::new(reader.u64()?));
            Ok((partition, Arrival { id, epoch_base: reader.u32()? }))
        })?;
        self.arrivals = ascending(arrivals, "arrivals")?;
        for number in numbers_of(reader)? {
            objects.at(number)?.1.is_foreign = true;
        }
        let lent = reader.list(LENT_SIZE_MIN, |reader| {
            let (partition, to) = (reader.partition()?, RaftGroupId::new(reader.u64()?));
            Ok((partition, Lent { to, since: reader.u64()?, objects: objects.lent(reader)? }))
        })?;
        self.lent = ascending(lent, "lent partitions")?;
        let is_here = |partition: &PartitionId| {
            self.partitions.contains_key(partition) || self.arrivals.contains_key(partition)
        };
        match self.lent.keys().any(is_here) {
            true => Err(DecodeError::Inconsistent { field: "a partition both here and lent" }),
            false => Ok(()),
        }
    }

    /// Live objects, now that all that refers to them is counted.
    fn list_live(&mut self, objects: Objects) -> Result<(), DecodeError> {
        let is_needed = |object: &LiveObject| object.extent_count > 0 || object.lent_count > 0;
        if !objects.live.iter().all(|(_, object)| is_needed(object)) {
            return Err(DecodeError::Inconsistent { field: "an object without extents" });
        }
        self.live_size = total(objects.live.iter().map(|(_, object)| object.size))?;
        self.retired_size = total(self.retired.values().map(|object| object.size))?;
        total([self.live_size, self.retired_size].into_iter())?;
        self.live = ascending(objects.live, "live objects")?;
        let is_small = |object: &LiveObject| object.extent_count > 0 && object.size < SMALL_BELOW;
        let small = self.live.iter().filter(|(_, object)| is_small(object));
        self.small = small.map(|(name, _)| *name).collect();
        if self.retired.keys().any(|name| self.live.contains_key(name)) {
            return Err(DecodeError::Inconsistent { field: "an object both live and retired" });
        }
        Ok(())
    }
}

/// Live objects in the order in which they are numbered, with the references counted.
struct Objects {
    live: Vec<(ObjectName, LiveObject)>,
}

impl Objects {
    fn extent(&mut self, reader: &mut Reader<'_>) -> Result<Extent, DecodeError> {
        let (name, object) = self.at(reader.u32()?)?;
        object.extent_count += 1;
        let extent = reader.extent(*name)?;
        if !extent.is_sound(object.size) {
            return Err(DecodeError::Inconsistent { field: "an extent's place in its object" });
        }
        Ok(extent)
    }

    fn lent(&mut self, reader: &mut Reader<'_>) -> Result<BTreeSet<ObjectName>, DecodeError> {
        let mut names = BTreeSet::new();
        for number in numbers_of(reader)? {
            let (name, object) = self.at(number)?;
            object.lent_count += 1;
            names.insert(*name);
        }
        if names.is_empty() {
            return Err(DecodeError::Inconsistent { field: "a lent partition without objects" });
        }
        Ok(names)
    }

    fn at(&mut self, number: u32) -> Result<&mut (ObjectName, LiveObject), DecodeError> {
        let known = usize::try_from(number).ok().and_then(|number| self.live.get_mut(number));
        known.ok_or(DecodeError::Inconsistent { field: "the number of an object" })
    }
}

fn put_numbers<'a>(
    out: &mut BytesMut,
    names: &[&ObjectName],
    objects: impl Iterator<Item = &'a ObjectName>,
) {
    let number = |name| names.binary_search(&name).expect("what is listed is live");
    let numbers: Vec<usize> = objects.map(number).collect();
    codec::put_count(out, numbers.len());
    numbers.into_iter().for_each(|number| codec::put_count(out, number));
}

/// Numbers of objects that ascend.
fn numbers_of(reader: &mut Reader<'_>) -> Result<Vec<u32>, DecodeError> {
    let numbers = reader.list(NUMBER_SIZE, Reader::u32)?;
    match numbers.is_sorted_by(|a, b| a < b) {
        true => Ok(numbers),
        false => Err(DecodeError::Inconsistent { field: "the order of objects" }),
    }
}

impl PartitionExtents {
    fn encode(&self, out: &mut BytesMut, names: &[&ObjectName]) {
        out.put_i64_le(self.log_start.get());
        out.put_i64_le(self.end.unwrap_or(NO_END).get());
        codec::put_count(out, self.extents.len());
        for extent in &self.extents {
            let number =
                names.binary_search(&&extent.object).expect("extents refer to live objects");
            codec::put_count(out, number);
            codec::put_extent(out, extent);
        }
    }

    fn decode(reader: &mut Reader<'_>, objects: &mut Objects) -> Result<Self, DecodeError> {
        let (log_start, end) = (reader.offset()?, reader.offset()?);
        let end = Some(end).filter(|end| *end != NO_END);
        let extents = reader.list(4 + EXTENT_SIZE, |reader| objects.extent(reader))?;
        let size = total(extents.iter().map(|extent| extent.size))?;
        let known = Self { log_start, end, size, extents };
        if known.is_known() && known.is_consistent() {
            Ok(known)
        } else {
            Err(DecodeError::Inconsistent { field: "a partition's extents" })
        }
    }

    /// Whether there is a reason to list the partition.
    pub(super) fn is_known(&self) -> bool {
        self.end.is_some() || self.log_start > Offset::ZERO
    }

    /// The invariants of `manifest.rs`.
    pub(super) fn is_consistent(&self) -> bool {
        let ends_at_end = self.extents.last().is_none_or(|last| Some(last.end) == self.end);
        let starts_late = self.extents.first().is_none_or(|first| first.end > self.log_start);
        self.log_start >= Offset::ZERO
            && self.end.is_none_or(|end| end > Offset::ZERO)
            && ends_at_end
            && starts_late
            && self.extents.is_sorted_by(|a, b| a.end == b.base)
    }
}

fn total(mut sizes: impl Iterator<Item = u64>) -> Result<u64, DecodeError> {
    let sum = sizes.try_fold(0_u64, u64::checked_add);
    sum.ok_or(DecodeError::Inconsistent { field: "the sum of sizes" })
}

fn ascending<K: Ord, V>(
    list: Vec<(K, V)>,
    field: &'static str,
) -> Result<BTreeMap<K, V>, DecodeError> {
    if list.is_sorted_by(|a, b| a.0 < b.0) {
        Ok(list.into_iter().collect())
    } else {
        Err(DecodeError::Inconsistent { field })
    }
}
