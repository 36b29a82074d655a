//! What is in an object: every batch of it, read in parts, so that memory is bounded by the largest
//! batch.

use kafka_wire::batch::{BatchHeader, BatchView, Batches, crc_is_valid};
use model::{Offset, PartitionId};
use s3_uploader::{
    AuditedObject, BucketReader, Extent, IndexPoint, ObjectError as Malformed, OffsetRange,
    Section, Sound, Standing, Unsound, decode_index,
};

use super::ObjectError;

/// Bytes asked for at a time.
const PART_SIZE: u64 = 4 << 20;

/// A part of an object that is not as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    /// The records in it; nothing if it is about the object as a whole.
    pub(super) range: Option<OffsetRange>,
    pub(super) reason: String,
}

/// A batch as its header has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) position: u64,
    pub(super) header: BatchHeader,
    pub(super) size: usize,
    pub(super) crc_is_valid: bool,
}

/// How the walk over a section's batches ended.
pub(super) struct Walked {
    /// Where something begins that is no batch.
    pub(super) stopped_at: Option<u64>,
    /// The checksum over all data, where there is one to compare with.
    pub(super) data: Result<(), Malformed>,
}

impl Batch {
    fn of(position: u64, view: BatchView<'_>) -> Self {
        let (header, size) = (*view.header, view.bytes.len());
        Self { position, header, size, crc_is_valid: crc_is_valid(view.bytes) }
    }

    pub(super) fn base(&self) -> Offset {
        Offset::new(self.header.base_offset())
    }

    /// Exclusive.
    pub(super) fn end(&self) -> Offset {
        Offset::new(self.header.last_offset()).plus(1)
    }
}

/// Reads a whole object. What is compared is what somebody may read: of a live object its extents,
/// of one that is newer than the manifest all that it says it has.
pub(super) fn check(
    bucket: &BucketReader,
    object: &AuditedObject,
    extents: &[(PartitionId, Extent)],
) -> Result<Sound<Vec<Fault>>, ObjectError> {
    let mut faults = Vec::new();
    let sections = match bucket.directory(object.name, object.size)? {
        Ok(directory) => directory.sections,
        Err(gone @ Unsound::Gone(_)) => return Ok(Err(gone)),
        Err(Unsound::Damaged(reason)) => {
            faults.push(Fault { range: None, reason });
            Vec::new()
        }
    };
    let own: Vec<_> = match object.standing {
        Standing::Newer => sections.iter().map(|it| (it.partition, it.extent.clone())).collect(),
        Standing::Live | Standing::Retired | Standing::Orphan => extents.to_vec(),
    };
    let has_directory = faults.is_empty();
    for (partition, extent) in &own {
        let same =
            |section: &&Section| section.partition == *partition && section.extent == *extent;
        let section = sections.iter().find(same);
        if section.is_none() && has_directory {
            let reason = "its directory does not have them where the manifest does".to_owned();
            faults.push(Fault { range: Some(OffsetRange::of(*partition, extent)), reason });
        }
        let mut checked = SectionCheck::new(*partition, extent);
        match checked.run(bucket, section)? {
            Ok(()) => faults.append(&mut checked.faults),
            Err(unsound) => return Ok(Err(unsound)),
        }
    }
    Ok(Ok(faults))
}

/// Walks the batches of a section.
pub(super) fn walk(
    bucket: &BucketReader,
    extent: &Extent,
    section: Option<&Section>,
    on_batch: &mut dyn FnMut(Batch),
) -> Result<Sound<Walked>, ObjectError> {
    let key = extent.object.to_string();
    let range = extent.data_range();
    let mut data = section.map(Section::data_check);
    // What is read and not walked yet, and where it begins.
    let (mut rest, mut at, mut read) = (Vec::new(), range.start, range.start);
    let mut stopped_at = None;
    while read < range.end && stopped_at.is_none() {
        let end = range.end.min(read + PART_SIZE);
        let part = match bucket.sound(bucket.store.get_range(&key, read..end))? {
            Ok(part) => part,
            Err(unsound) => return Ok(Err(unsound)),
        };
        read = end;
        if let Some(data) = &mut data {
            data.push(&part);
        }
        rest.extend_from_slice(&part);
        let mut batches = Batches::new(&rest);
        for view in &mut batches {
            on_batch(Batch::of(at, view));
            at += view.bytes.len() as u64;
        }
        let left = batches.rest().len();
        let whole = BatchHeader::read(batches.rest()).map(BatchHeader::size);
        let fits = |size: usize| size as u64 <= range.end - at;
        if whole.is_some_and(|size| !size.is_some_and(fits)) || read == range.end && left > 0 {
            stopped_at = Some(at);
        }
        rest.drain(..rest.len() - left);
    }
    let data = match data {
        Some(data) if stopped_at.is_none() => data.finish(),
        _ => Ok(()),
    };
    Ok(Ok(Walked { stopped_at, data }))
}

/// Checks one section, and keeps what is wrong with it.
struct SectionCheck<'a> {
    extent: &'a Extent,
    partition: PartitionId,
    points: Vec<IndexPoint>,
    /// Points before this one are met.
    next_point: usize,
    /// Where the batches so far end.
    end: Offset,
    faults: Vec<Fault>,
}

impl<'a> SectionCheck<'a> {
    fn new(partition: PartitionId, extent: &'a Extent) -> Self {
        let (points, faults, end) = (Vec::new(), Vec::new(), extent.base);
        Self { extent, partition, points, next_point: 0, end, faults }
    }

    fn run(
        &mut self,
        bucket: &BucketReader,
        section: Option<&Section>,
    ) -> Result<Sound<()>, ObjectError> {
        let extent = self.extent;
        let key = extent.object.to_string();
        let index = bucket.store.get_range(&key, extent.index_range());
        let index = bucket.sound(index)?.and_then(|bytes| {
            decode_index(&bytes, extent).map_err(|error| Unsound::Damaged(error.to_string()))
        });
        match index {
            Ok(points) => self.points = points,
            Err(Unsound::Damaged(reason)) => self.fault(extent.base, extent.end, reason),
            Err(gone @ Unsound::Gone(_)) => return Ok(Err(gone)),
        }
        match walk(bucket, extent, section, &mut |batch| self.batch(&batch))? {
            Ok(walked) => self.ended(&walked),
            Err(Unsound::Damaged(reason)) => self.fault(self.end, extent.end, reason),
            Err(gone @ Unsound::Gone(_)) => return Ok(Err(gone)),
        }
        Ok(Ok(()))
    }

    fn batch(&mut self, batch: &Batch) {
        let (base, end, position) = (batch.base(), batch.end(), batch.position);
        if base < self.end || base >= end || end > self.extent.end {
            let reason = format!("the batch at byte {position} says that it has {base} to {end}");
            return self.fault(self.end, self.extent.end, reason);
        }
        self.end = end;
        let index_fault = match self.points.get(self.next_point) {
            Some(point) if point.position == position => {
                self.next_point += 1;
                point.base_offset != base
            }
            Some(point) => point.position < position,
            None => false,
        };
        if !batch.crc_is_valid {
            let reason = format!("the batch at byte {position} does not have its checksum");
            self.fault(base, end, reason);
        } else if index_fault {
            // Once is enough: readers cannot find any of the later ones.
            self.points.clear();
            let reason = format!("the index does not have the batch at byte {position}");
            self.fault(base, self.extent.end, reason);
        }
    }

    fn ended(&mut self, walked: &Walked) {
        let Extent { base, end, .. } = *self.extent;
        if let Some(position) = walked.stopped_at {
            self.fault(self.end, end, format!("there is no batch at byte {position}"));
        } else if self.faults.is_empty() && self.end != end {
            self.fault(self.end, end, format!("its batches end at offset {}", self.end));
        }
        if let Some(point) = self.points.get(self.next_point).filter(|_| self.faults.is_empty()) {
            let reason = format!("the index names byte {}, where no batch begins", point.position);
            self.fault(point.base_offset, end, reason);
        }
        if let (Err(error), true) = (&walked.data, self.faults.is_empty()) {
            self.fault(base, end, error.to_string());
        }
    }

    /// Damage that goes on is one fault.
    fn fault(&mut self, base: Offset, end: Offset, reason: String) {
        let before = self.faults.last_mut().and_then(|fault| fault.range.as_mut());
        match before.filter(|before| before.end >= base) {
            Some(before) => before.end = before.end.max(end),
            None => {
                let range = OffsetRange { partition: self.partition, base, end };
                self.faults.push(Fault { range: Some(range), reason });
            }
        }
    }
}
