//! Bytes of a whole manifest. Normative: `docs/formats/manifest.md`.
//!
//! ```text
//! version          u8 = 1
//! offloaded_upto   u64
//! live             list of: name, size u64                     names ascend
//! retired          list of: name, size u64, retired_ms i64     names ascend, none is live
//! partitions       list of: partition u64, log_start i64, end i64 (-1: none),
//!                           list of: number of the object in `live` u32, extent
//! ```
//!
//! A manifest has exactly one encoding: replicas that applied the same edits have equal bytes.
//! There is no checksum: the snapshot or the manifest file that carries the bytes has one.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use model::{LogIndex, Offset};

use super::{LiveObject, Manifest, PartitionExtents, RetiredObject};
use crate::codec::{self, DecodeError, EXTENT_SIZE, NAME_SIZE, Reader};
use crate::object::Extent;
use crate::object_name::ObjectName;
use crate::plan::SMALL_BELOW;

const VERSION: u8 = 1;
const NO_END: Offset = Offset::new(-1);
const LIVE_SIZE: usize = NAME_SIZE + 8;
const RETIRED_SIZE: usize = NAME_SIZE + 16;
/// Of a partition without extents.
const PARTITION_SIZE_MIN: usize = 28;

impl Manifest {
    pub fn encode(&self) -> Bytes {
        let extents_size = self.extent_count() * (4 + EXTENT_SIZE);
        let objects_size = self.live.len() * LIVE_SIZE + self.retired.len() * RETIRED_SIZE;
        let partitions_size = self.partitions.len() * PARTITION_SIZE_MIN;
        let fixed_size = 1 + 8 + 3 * 4;
        let size = fixed_size + objects_size + partitions_size + extents_size;
        let mut out = BytesMut::with_capacity(size);
        out.put_u8(VERSION);
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
        out.freeze()
    }

    /// # Errors
    ///
    /// The bytes are not a manifest that edits could have led to.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(VERSION)?;
        let offloaded_upto = LogIndex::new(reader.u64()?);
        let live = reader.list(LIVE_SIZE, |reader| {
            Ok((reader.name()?, LiveObject { size: reader.u64()?, extent_count: 0 }))
        })?;
        let retired = reader.list(RETIRED_SIZE, |reader| {
            let (name, size) = (reader.name()?, reader.u64()?);
            Ok((name, RetiredObject { size, retired_ms: reader.i64()? }))
        })?;
        let mut objects = Objects { live };
        let partitions = reader.list(PARTITION_SIZE_MIN, |reader| {
            Ok((reader.partition()?, PartitionExtents::decode(reader, &mut objects)?))
        })?;
        reader.finish()?;
        if objects.live.iter().any(|(_, object)| object.extent_count == 0) {
            return Err(DecodeError::Inconsistent { field: "an object without extents" });
        }
        let live_size = total(objects.live.iter().map(|(_, object)| object.size))?;
        let retired_size = total(retired.iter().map(|(_, object)| object.size))?;
        total([live_size, retired_size].into_iter())?;
        let small = objects.live.iter().filter(|(_, object)| object.size < SMALL_BELOW);
        let small = small.map(|(name, _)| *name).collect();
        let manifest = Self {
            offloaded_upto,
            small,
            partitions: ascending(partitions, "partitions")?,
            live: ascending(objects.live, "live objects")?,
            retired: ascending(retired, "retired objects")?,
            live_size,
            retired_size,
        };
        if manifest.retired.keys().any(|name| manifest.live.contains_key(name)) {
            return Err(DecodeError::Inconsistent { field: "an object both live and retired" });
        }
        Ok(manifest)
    }
}

/// Live objects in the order in which extents number them, with the extents counted.
struct Objects {
    live: Vec<(ObjectName, LiveObject)>,
}

impl Objects {
    fn extent(&mut self, reader: &mut Reader<'_>) -> Result<Extent, DecodeError> {
        let number = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        let known = self.live.get_mut(number);
        let (name, object) =
            known.ok_or(DecodeError::Inconsistent { field: "the number of an object" })?;
        object.extent_count += 1;
        let extent = reader.extent(*name)?;
        if !extent.is_sound(object.size) {
            return Err(DecodeError::Inconsistent { field: "an extent's place in its object" });
        }
        Ok(extent)
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
        if known.is_consistent() {
            Ok(known)
        } else {
            Err(DecodeError::Inconsistent { field: "a partition's extents" })
        }
    }

    /// The invariants of `manifest.rs`, and that there is a reason to list the partition.
    fn is_consistent(&self) -> bool {
        let is_known = self.end.is_some() || self.log_start > Offset::ZERO;
        let ends_at_end = self.extents.last().is_none_or(|last| Some(last.end) == self.end);
        let starts_late = self.extents.first().is_none_or(|first| first.end > self.log_start);
        self.log_start >= Offset::ZERO
            && self.end.is_none_or(|end| end > Offset::ZERO)
            && is_known
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
