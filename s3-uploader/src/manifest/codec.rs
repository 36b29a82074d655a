//! Bytes of a whole manifest. Normative: `docs/formats/manifest.md`.
//!
//! Snapshots are sent to replicas that come anew and written whenever a log is compacted, so a
//! manifest takes few bytes: some 18 for an object with one extent. Its numbers are varints, most
//! of them as the distance from what is expected (`near.rs`).
//!
//! A manifest has exactly one encoding: replicas that applied the same edits have equal bytes.
//! There is no checksum: the snapshot or the manifest file that carries the bytes has one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use model::{LogIndex, Offset, PartitionId, RaftGroupId};

use super::near::{narrow, put_count, put_near, put_varint};
use super::{Arrival, Lent, LiveObject, Manifest, PartitionExtents, RetiredObject};
use crate::codec::{DecodeError, FORM_RANGE, NameFields, Reader};
use crate::object::Extent;
use crate::object_name::ObjectName;
use crate::plan::SMALL_BELOW;

const VERSION: u8 = 3;
/// In place of a form: form, group and term are those of the object before.
const SAME: u8 = 0;
/// No partition ends there.
const NO_END: Offset = Offset::ZERO;
/// Of elements of lists, in bytes.
const LIVE_SIZE_MIN: usize = 3;
const RETIRED_SIZE_MIN: usize = 4;
const PARTITION_SIZE_MIN: usize = 4;
const EXTENT_SIZE_MIN: usize = 8;
const SEALED_SIZE_MIN: usize = 2;
const ARRIVAL_SIZE_MIN: usize = 3;
const NUMBER_SIZE_MIN: usize = 1;
const LENT_SIZE_MIN: usize = 5;
/// Of an extent, and of the other elements of a manifest, as they mostly are, in bytes.
const EXTENT_SIZE_GUESS: usize = 20;
const ELEMENT_SIZE_GUESS: usize = 16;

impl Manifest {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out.into()
    }

    /// Appends the same.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_size_guess());
        out.push(VERSION);
        put_varint(out, self.offloaded_upto.get());
        put_count(out, self.live.len());
        let mut before = ObjectBefore::default();
        for (name, object) in &self.live {
            before.put(out, name, object.size);
        }
        put_count(out, self.retired.len());
        let mut before = ObjectBefore::default();
        for (name, object) in &self.retired {
            before.put(out, name, object.size);
            before.put_time(out, object.retired_ms);
        }
        let names: Vec<&ObjectName> = self.live.keys().collect();
        put_count(out, self.partitions.len());
        let mut ids = Ascending::default();
        for (partition, known) in &self.partitions {
            ids.put(out, partition.get());
            known.encode(out, &names);
        }
        self.encode_moves(out, &names);
    }

    /// Bytes that most manifests of as many elements stay below: a large one is not to be copied
    /// while it grows.
    fn encoded_size_guess(&self) -> usize {
        let extents: usize = self.live.values().map(|object| object.extent_count as usize).sum();
        let others = self.live.len() + self.retired.len() + self.partitions.len();
        EXTENT_SIZE_GUESS * extents + ELEMENT_SIZE_GUESS * others
    }

    fn encode_moves(&self, out: &mut Vec<u8>, names: &[&ObjectName]) {
        put_count(out, self.sealed.len());
        let mut ids = Ascending::default();
        for (partition, id) in &self.sealed {
            ids.put(out, partition.get());
            put_varint(out, id.get());
        }
        put_count(out, self.arrivals.len());
        let mut ids = Ascending::default();
        for (partition, Arrival { id, epoch_base }) in &self.arrivals {
            ids.put(out, partition.get());
            put_varint(out, id.get());
            put_varint(out, (*epoch_base).into());
        }
        let foreign = self.live.iter().filter(|(_, object)| object.is_foreign);
        put_numbers(out, names, foreign.map(|(name, _)| name));
        put_count(out, self.lent.len());
        let mut ids = Ascending::default();
        for (partition, lent) in &self.lent {
            ids.put(out, partition.get());
            put_varint(out, lent.to.get());
            put_varint(out, lent.since);
            put_numbers(out, names, lent.objects.iter());
        }
    }

    /// # Errors
    ///
    /// The bytes are not a manifest that edits could have led to.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(VERSION)?;
        let offloaded_upto = LogIndex::new(reader.varint()?);
        let mut before = ObjectBefore::default();
        let live = reader.near_list(LIVE_SIZE_MIN, |reader| {
            let (name, size) = before.read(reader)?;
            Ok((name, LiveObject { size, extent_count: 0, lent_count: 0, is_foreign: false }))
        })?;
        let mut before = ObjectBefore::default();
        let retired = reader.near_list(RETIRED_SIZE_MIN, |reader| {
            let (name, size) = before.read(reader)?;
            Ok((name, RetiredObject { size, retired_ms: before.read_time(reader)? }))
        })?;
        let mut objects = Objects { live };
        let mut ids = Ascending::default();
        let partitions = reader.near_list(PARTITION_SIZE_MIN, |reader| {
            Ok((ids.partition(reader)?, PartitionExtents::decode(reader, &mut objects)?))
        })?;
        let mut manifest = Self {
            offloaded_upto,
            partitions: ascending(partitions, "partitions")?,
            retired: ascending(retired, "retired objects")?,
            ..Self::default()
        };
        manifest.decode_moves(&mut reader, &mut objects)?;
        reader.finish()?;
        manifest.list_live(objects)?;
        Ok(manifest)
    }

    fn decode_moves(
        &mut self,
        reader: &mut Reader<'_>,
        objects: &mut Objects,
    ) -> Result<(), DecodeError> {
        let mut ids = Ascending::default();
        let sealed = reader.near_list(SEALED_SIZE_MIN, |reader| {
            Ok((ids.partition(reader)?, LogIndex::new(reader.varint()?)))
        })?;
        self.sealed = ascending(sealed, "sealed partitions")?;
        let mut ids = Ascending::default();
        let arrivals = reader.near_list(ARRIVAL_SIZE_MIN, |reader| {
            let (partition, id) = (ids.partition(reader)?, LogIndex::new(reader.varint()?));
            Ok((partition, Arrival { id, epoch_base: narrow(reader.varint()?)? }))
        })?;
        self.arrivals = ascending(arrivals, "arrivals")?;
        for number in numbers_of(reader)? {
            objects.at(number)?.1.is_foreign = true;
        }
        let mut ids = Ascending::default();
        let lent = reader.near_list(LENT_SIZE_MIN, |reader| {
            let (partition, to) = (ids.partition(reader)?, RaftGroupId::new(reader.varint()?));
            Ok((partition, Lent { to, since: reader.varint()?, objects: objects.lent(reader)? }))
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

/// The object before in a list: the next one mostly goes on where it ended.
#[derive(Default)]
struct ObjectBefore {
    family: (u8, u64, u64),
    next: u64,
    size: u64,
    time: u64,
}

impl ObjectBefore {
    fn put(&mut self, out: &mut Vec<u8>, name: &ObjectName, size: u64) {
        let fields = NameFields::of(name);
        let NameFields { form, group, term, from, to } = fields;
        if self.family == (form, group, term) {
            out.push(SAME);
        } else {
            out.push(form);
            put_varint(out, group);
            put_varint(out, term);
            self.begin(form, group, term);
        }
        put_near(out, from, self.next);
        if form == FORM_RANGE {
            put_varint(out, to - from);
        }
        put_near(out, size, self.size);
        self.end(fields, size);
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(ObjectName, u64), DecodeError> {
        let form = reader.u8()?;
        if form != SAME {
            let (group, term) = (reader.varint()?, reader.varint()?);
            if self.family == (form, group, term) {
                return Err(DecodeError::Inconsistent { field: "a name that begins anew" });
            }
            self.begin(form, group, term);
        }
        let (form, group, term) = self.family;
        let from = reader.near(self.next)?;
        let to = match form {
            FORM_RANGE => from.wrapping_add(reader.varint()?),
            _ => 0,
        };
        let fields = NameFields { form, group, term, from, to };
        let (name, size) = (fields.name()?, reader.near(self.size)?);
        self.end(fields, size);
        Ok((name, size))
    }

    fn begin(&mut self, form: u8, group: u64, term: u64) {
        self.family = (form, group, term);
        self.next = 0;
    }

    fn end(&mut self, NameFields { from, to, .. }: NameFields, size: u64) {
        self.next = from.max(to).wrapping_add(1);
        self.size = size;
    }

    fn put_time(&mut self, out: &mut Vec<u8>, time_ms: i64) {
        let time = time_ms.cast_unsigned();
        put_near(out, time, self.time);
        self.time = time;
    }

    fn read_time(&mut self, reader: &mut Reader<'_>) -> Result<i64, DecodeError> {
        self.time = reader.near(self.time)?;
        Ok(self.time.cast_signed())
    }
}

/// Numbers of a list that mostly count up.
#[derive(Default)]
struct Ascending {
    next: u64,
}

impl Ascending {
    fn put(&mut self, out: &mut Vec<u8>, number: u64) {
        put_near(out, number, self.next);
        self.next = number.wrapping_add(1);
    }

    /// The number of an object, if it is the expected one.
    fn guess(&self, names: &[&ObjectName], name: &ObjectName) -> Option<u64> {
        let expected = usize::try_from(self.next).ok().and_then(|next| names.get(next));
        expected.is_some_and(|expected| *expected == name).then_some(self.next)
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
        let number = reader.near(self.next)?;
        self.next = number.wrapping_add(1);
        Ok(number)
    }

    fn partition(&mut self, reader: &mut Reader<'_>) -> Result<PartitionId, DecodeError> {
        self.read(reader).map(PartitionId::new)
    }
}

/// Live objects in the order in which they are numbered, with the references counted.
struct Objects {
    live: Vec<(ObjectName, LiveObject)>,
}

impl Objects {
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

    fn at(&mut self, number: u64) -> Result<&mut (ObjectName, LiveObject), DecodeError> {
        let known = usize::try_from(number).ok().and_then(|number| self.live.get_mut(number));
        known.ok_or(DecodeError::Inconsistent { field: "the number of an object" })
    }
}

fn put_numbers<'a>(
    out: &mut Vec<u8>,
    names: &[&ObjectName],
    objects: impl Iterator<Item = &'a ObjectName>,
) {
    let numbers: Vec<u64> = objects.map(|name| number_of(names, name)).collect();
    put_count(out, numbers.len());
    let mut before = Ascending::default();
    numbers.into_iter().for_each(|number| before.put(out, number));
}

fn number_of(names: &[&ObjectName], name: &ObjectName) -> u64 {
    let number = names.binary_search(&name).expect("what is listed is live");
    u64::try_from(number).expect("a length in memory has at most 64 bits")
}

/// Numbers of objects that ascend.
fn numbers_of(reader: &mut Reader<'_>) -> Result<Vec<u64>, DecodeError> {
    let mut before = Ascending::default();
    let numbers = reader.near_list(NUMBER_SIZE_MIN, |reader| before.read(reader))?;
    match numbers.is_sorted_by(|a, b| a < b) {
        true => Ok(numbers),
        false => Err(DecodeError::Inconsistent { field: "the order of objects" }),
    }
}

/// The extent before in a partition: the next one begins where it ended.
#[derive(Default)]
struct ExtentBefore {
    numbers: Ascending,
    end: u64,
    length: u64,
    size: u64,
    index_count: u64,
    max_timestamp: u64,
}

impl ExtentBefore {
    /// Of the first extent of a partition.
    fn none(log_start: Offset) -> Self {
        Self { end: log_start.get().cast_unsigned(), ..Self::default() }
    }

    fn put(&mut self, out: &mut Vec<u8>, number: u64, extent: &Extent) {
        let [base, end] = [extent.base, extent.end].map(|offset| offset.get().cast_unsigned());
        let length = end.wrapping_sub(base);
        let max_timestamp = extent.max_timestamp.cast_unsigned();
        self.numbers.put(out, number);
        put_near(out, base, self.end);
        put_near(out, length, self.length);
        put_varint(out, extent.position);
        put_near(out, extent.size, self.size);
        put_near(out, extent.index_position, extent.position.wrapping_add(extent.size));
        put_near(out, extent.index_count.into(), self.index_count);
        put_near(out, max_timestamp, self.max_timestamp);
        (self.end, self.length, self.size) = (end, length, extent.size);
        (self.index_count, self.max_timestamp) = (extent.index_count.into(), max_timestamp);
    }

    fn read(
        &mut self,
        reader: &mut Reader<'_>,
        objects: &mut Objects,
    ) -> Result<Extent, DecodeError> {
        let (object, live) = objects.at(self.numbers.read(reader)?)?;
        live.extent_count += 1;
        let base = reader.near(self.end)?;
        self.length = reader.near(self.length)?;
        self.end = base.wrapping_add(self.length);
        let position = reader.varint()?;
        self.size = reader.near(self.size)?;
        let index_position = reader.near(position.wrapping_add(self.size))?;
        self.index_count = reader.near(self.index_count)?;
        self.max_timestamp = reader.near(self.max_timestamp)?;
        let extent = Extent {
            object: *object,
            base: Offset::new(base.cast_signed()),
            end: Offset::new(self.end.cast_signed()),
            position,
            size: self.size,
            index_position,
            index_count: narrow(self.index_count)?,
            max_timestamp: self.max_timestamp.cast_signed(),
        };
        match extent.is_sound(live.size) {
            true => Ok(extent),
            false => Err(DecodeError::Inconsistent { field: "an extent's place in its object" }),
        }
    }
}

impl PartitionExtents {
    fn encode(&self, out: &mut Vec<u8>, names: &[&ObjectName]) {
        put_varint(out, self.log_start.get().cast_unsigned());
        put_varint(out, self.end.unwrap_or(NO_END).get().cast_unsigned());
        put_count(out, self.extents.len());
        let mut before = ExtentBefore::none(self.log_start);
        for extent in &self.extents {
            let number = before.numbers.guess(names, &extent.object);
            before.put(out, number.unwrap_or_else(|| number_of(names, &extent.object)), extent);
        }
    }

    fn decode(reader: &mut Reader<'_>, objects: &mut Objects) -> Result<Self, DecodeError> {
        let mut offset = || reader.varint().map(|offset| Offset::new(offset.cast_signed()));
        let (log_start, end) = (offset()?, offset()?);
        let end = Some(end).filter(|end| *end != NO_END);
        let mut before = ExtentBefore::none(log_start);
        let extents = reader.near_list(EXTENT_SIZE_MIN, |reader| before.read(reader, objects))?;
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
