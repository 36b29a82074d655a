//! Puts an object together from batches without copying them.

use std::mem;

use bytes::{Bytes, BytesMut};
use model::{Offset, PartitionId};

use super::directory::{self, Section};
use super::index::{self, INDEX_INTERVAL, IndexPoint};
use super::{BatchMeta, Extent};
use crate::object_name::ObjectName;

/// Takes batches section by section, in ascending order of partitions and of offsets.
#[derive(Debug)]
pub struct ObjectBuilder {
    name: ObjectName,
    parts: Vec<Bytes>,
    size: u64,
    sections: Vec<OpenSection>,
}

/// An object to put under its name: the parts in their order are its bytes.
#[derive(Clone, Debug)]
pub struct BuiltObject {
    pub name: ObjectName,
    /// The batches as they were pushed, then one part with all that describes them.
    pub parts: Vec<Bytes>,
    pub size: u64,
    pub extents: Vec<(PartitionId, Extent)>,
}

#[derive(Debug)]
struct OpenSection {
    partition: PartitionId,
    position: u64,
    size: u64,
    base: Offset,
    end: Offset,
    max_timestamp: i64,
    data_crc: u32,
    points: Vec<IndexPoint>,
}

impl ObjectBuilder {
    pub fn new(name: ObjectName) -> Self {
        Self { name, parts: Vec::new(), size: 0, sections: Vec::new() }
    }

    /// Starts the next section. One that gets no batch leaves nothing in the object.
    ///
    /// # Panics
    ///
    /// Partitions do not ascend.
    pub fn section(&mut self, partition: PartitionId) {
        if let Some(last) = self.sections.last() {
            assert!(last.partition < partition, "sections ascend by partition");
        }
        self.remove_empty_section();
        self.sections.push(OpenSection {
            partition,
            position: self.size,
            size: 0,
            base: Offset::ZERO,
            end: Offset::ZERO,
            max_timestamp: i64::MIN,
            data_crc: 0,
            points: Vec::new(),
        });
    }

    /// Appends a batch to the section that was started last. Offsets may be missing between two
    /// batches: compaction removes some.
    ///
    /// # Panics
    ///
    /// No section was started, offsets do not ascend, or the batch is empty.
    pub fn push(&mut self, batch: BatchMeta, bytes: Bytes) {
        let section = self.sections.last_mut().expect("a section was started");
        section.push(batch, &bytes);
        self.size += len_of(&bytes);
        self.parts.push(bytes);
    }

    /// Bytes of batches so far.
    pub fn data_size(&self) -> u64 {
        self.size
    }

    pub fn finish(mut self) -> BuiltObject {
        self.remove_empty_section();
        let mut tail = BytesMut::new();
        let mut sections = Vec::with_capacity(self.sections.len());
        for section in self.sections {
            let index_position = self.size + len_of(&tail);
            index::encode(&mut tail, &section.points);
            sections.push(section.close(self.name, index_position));
        }
        directory::encode(&mut tail, &self.name, &sections, self.size);
        self.size += len_of(&tail);
        self.parts.push(tail.freeze());
        let extents = sections.into_iter().map(|section| (section.partition, section.extent));
        BuiltObject {
            name: self.name,
            parts: self.parts,
            size: self.size,
            extents: extents.collect(),
        }
    }

    fn remove_empty_section(&mut self) {
        self.sections.pop_if(|section| section.size == 0);
    }
}

impl OpenSection {
    fn push(&mut self, batch: BatchMeta, bytes: &Bytes) {
        assert!(batch.base_offset < batch.end_offset && !bytes.is_empty(), "a batch has records");
        assert!(self.end <= batch.base_offset, "batches ascend by offset");
        if self.size == 0 {
            self.base = batch.base_offset;
        }
        self.end = batch.end_offset;
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
        self.data_crc = crc32c::crc32c_append(self.data_crc, bytes);
        let position = self.position + self.size;
        self.size += len_of(bytes);
        match self.points.last_mut() {
            Some(point) if position - point.position < INDEX_INTERVAL => {
                point.max_timestamp = point.max_timestamp.max(batch.max_timestamp);
            }
            _ => self.points.push(IndexPoint {
                base_offset: batch.base_offset,
                position,
                max_timestamp: batch.max_timestamp,
            }),
        }
    }

    fn close(mut self, object: ObjectName, index_position: u64) -> Section {
        let points = mem::take(&mut self.points);
        let index_count = u32::try_from(points.len()).expect("an object is far below 256 TiB");
        let Self { partition, position, size, base, end, max_timestamp, data_crc, .. } = self;
        let extent = Extent {
            object,
            base,
            end,
            position,
            size,
            index_position,
            index_count,
            max_timestamp,
        };
        Section { partition, extent, data_crc }
    }
}

fn len_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length in memory has at most 64 bits")
}
