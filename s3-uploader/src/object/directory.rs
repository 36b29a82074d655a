//! Directory and trailer: the end of an object, from which all of it can be found and checked.
//!
//! ```text
//! Directory, at object_size - 32 - directory_size       Trailer, the last 32 bytes
//! offset  size  field                                   offset  size  field
//!      0    33  name         of this object                  0     4  crc   of bytes 4..32
//!     33     4  section_count                                4     4  magic "OBJ1"
//!     37  64*n  sections                                     8     4  directory_crc
//!                                                           12     4  directory_size
//! Section                                                   16     8  object_size
//!      0     8  partition                                   24     8  zero
//!      8     4  data_crc     of the section's data
//!     12    52  extent       see `codec.rs`
//! ```
//!
//! Checksums are CRC-32C. The name is here because a store may hand out another object's bytes;
//! the size, because it may hand out a part of them.

use bytes::{BufMut, BytesMut};
use model::PartitionId;

use super::{Extent, ObjectError};
use crate::codec::{self, DecodeError, EXTENT_SIZE, Reader};
use crate::object_name::ObjectName;

/// Bytes at the end of every object that tell how long its directory is.
pub const TRAILER_SIZE: usize = 32;

const MAGIC: [u8; 4] = *b"OBJ1";
const SECTION_SIZE: usize = 8 + 4 + EXTENT_SIZE;
const CRC_SIZE: usize = 4;

/// What an object says about itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Directory {
    pub name: ObjectName,
    /// Of the whole object.
    pub size: u64,
    pub sections: Vec<Section>,
}

/// One partition's part of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Section {
    pub partition: PartitionId,
    pub extent: Extent,
    /// CRC-32C of the data.
    pub data_crc: u32,
}

struct Trailer {
    directory_crc: u32,
    directory_size: u32,
    object_size: u64,
}

impl Directory {
    /// Reads the last bytes of an object, as many as there are. Believes no field before the
    /// checksum that covers it. The caller compares name and size with what it asked for.
    ///
    /// # Errors
    ///
    /// The bytes are not the end of an object. `ShortTail` tells how many bytes of it are needed.
    pub fn decode(tail: &[u8]) -> Result<Self, ObjectError> {
        let short = ObjectError::ShortTail { wanted: to_u64(TRAILER_SIZE), len: tail.len() };
        let (rest, trailer) = tail.split_last_chunk::<TRAILER_SIZE>().ok_or(short)?;
        let trailer = Trailer::decode(trailer)?;
        let wanted = u64::from(trailer.directory_size) + to_u64(TRAILER_SIZE);
        let size = usize::try_from(trailer.directory_size).ok();
        let start = size.and_then(|size| rest.len().checked_sub(size));
        let bytes = start.and_then(|start| rest.get(start..));
        let bytes = bytes.ok_or(ObjectError::ShortTail { wanted, len: tail.len() })?;
        let (stored, computed) = (trailer.directory_crc, crc32c::crc32c(bytes));
        if stored != computed {
            return Err(ObjectError::Checksum { part: "directory", stored, computed });
        }
        let (name, sections) = decode_sections(bytes)?;
        let directory = Self { name, size: trailer.object_size, sections };
        let data_end = trailer.object_size.checked_sub(wanted);
        if !data_end.is_some_and(|end| directory.is_laid_out_before(end)) {
            return Err(DecodeError::Inconsistent { field: "the sections' layout" }.into());
        }
        Ok(directory)
    }

    /// Whether all data, then all indexes fill the object without a gap up to the directory.
    fn is_laid_out_before(&self, directory_position: u64) -> bool {
        let extents = || self.sections.iter().map(|section| &section.extent);
        let mut position = 0;
        for extent in extents() {
            if extent.position != position || !extent.is_sound(directory_position) {
                return false;
            }
            position = extent.data_range().end;
        }
        for extent in extents() {
            if extent.index_position != position {
                return false;
            }
            position = extent.index_range().end;
        }
        position == directory_position
    }
}

impl Section {
    /// Checks the whole data of the section.
    ///
    /// # Errors
    ///
    /// The bytes are not those that the object was built from.
    pub fn check_data(&self, data: &[u8]) -> Result<(), ObjectError> {
        let mut check = self.data_check();
        check.push(data);
        check.finish()
    }

    /// Checks the data part by part, where it is too large to hold.
    pub fn data_check(&self) -> DataCheck<'_> {
        DataCheck { section: self, len: 0, crc: 0 }
    }
}

/// Takes the data of a section in its order, and tells at the end whether it was that.
#[derive(Debug)]
pub struct DataCheck<'a> {
    section: &'a Section,
    len: usize,
    crc: u32,
}

impl DataCheck<'_> {
    pub fn push(&mut self, part: &[u8]) {
        self.len += part.len();
        self.crc = crc32c::crc32c_append(self.crc, part);
    }

    /// # Errors
    ///
    /// The bytes are not those that the object was built from.
    pub fn finish(self) -> Result<(), ObjectError> {
        let Self { section: Section { partition, extent, data_crc }, len, crc } = self;
        if to_u64(len) != extent.size {
            let (partition, wanted) = (*partition, extent.size);
            return Err(ObjectError::DataSize { partition, wanted, len });
        }
        let (stored, computed) = (*data_crc, crc);
        if stored != computed {
            return Err(ObjectError::Checksum { part: "data", stored, computed });
        }
        Ok(())
    }
}

impl Trailer {
    fn decode(bytes: &[u8; TRAILER_SIZE]) -> Result<Self, ObjectError> {
        let mut reader = Reader::new(bytes);
        let (stored, computed) = (reader.u32()?, crc32c::crc32c(&bytes[CRC_SIZE..]));
        if stored != computed {
            return Err(ObjectError::Checksum { part: "trailer", stored, computed });
        }
        let found = reader.u32()?.to_le_bytes();
        if found != MAGIC {
            return Err(ObjectError::Magic { found });
        }
        let (directory_crc, directory_size) = (reader.u32()?, reader.u32()?);
        let (object_size, zero) = (reader.u64()?, reader.u64()?);
        if zero != 0 {
            return Err(DecodeError::Inconsistent { field: "the trailer's padding" }.into());
        }
        Ok(Self { directory_crc, directory_size, object_size })
    }
}

/// Appends directory and trailer to a tail that begins at `tail_position` of the object.
pub(super) fn encode(
    out: &mut BytesMut,
    name: &ObjectName,
    sections: &[Section],
    tail_position: u64,
) {
    let start = out.len();
    codec::put_name(out, name);
    codec::put_count(out, sections.len());
    for section in sections {
        out.put_u64_le(section.partition.get());
        out.put_u32_le(section.data_crc);
        codec::put_extent(out, &section.extent);
    }
    let directory_crc = crc32c::crc32c(&out[start..]);
    let directory_size = u32::try_from(out.len() - start).expect("64 bytes for each partition");
    let trailer = out.len();
    out.put_u32_le(0);
    out.put_slice(&MAGIC);
    out.put_u32_le(directory_crc);
    out.put_u32_le(directory_size);
    out.put_u64_le(tail_position + to_u64(trailer + TRAILER_SIZE));
    out.put_u64_le(0);
    let crc = crc32c::crc32c(&out[trailer + CRC_SIZE..]);
    out[trailer..trailer + CRC_SIZE].copy_from_slice(&crc.to_le_bytes());
}

fn decode_sections(bytes: &[u8]) -> Result<(ObjectName, Vec<Section>), DecodeError> {
    let mut reader = Reader::new(bytes);
    let name = reader.name()?;
    let sections = reader.list(SECTION_SIZE, |reader| {
        let (partition, data_crc) = (reader.partition()?, reader.u32()?);
        Ok(Section { partition, extent: reader.extent(name)?, data_crc })
    })?;
    reader.finish()?;
    if !sections.is_sorted_by(|a, b| a.partition < b.partition) {
        return Err(DecodeError::Inconsistent { field: "the order of sections" });
    }
    Ok((name, sections))
}

fn to_u64(size: usize) -> u64 {
    u64::try_from(size).expect("a length in memory has at most 64 bits")
}
