//! The copies of a superblock on the device: which one rules, and how they are replaced.
//!
//! An update writes copies 0 and 1, waits until they are durable, then writes 2 and 3. A crash in
//! the first half may tear both of 0 and 1, but 2 and 3 still hold the old state whole; a crash in
//! the second half may tear 2 and 3, but 0 and 1 hold the new state. There is no moment at which a
//! crash leaves fewer than two valid copies of one state or the other.

use std::fmt;
use std::io;

use uring::AlignedBuf;

use super::{CopyError, SUPERBLOCK_SIZE, Superblock};
use crate::BUFFER_ALIGN;
use crate::device::BlockDevice;

pub const COPY_COUNT: u32 = 4;
/// Bytes from one copy to the next: a block of the coarsest device that is supported.
pub const COPY_SIZE: usize = 4096;
/// Copies written together; the others wait until these are durable.
pub(crate) const HALF: u32 = COPY_COUNT / 2;

/// Device offset of one copy.
pub const fn copy_offset(slice_offset: u64, copy_index: u32) -> u64 {
    slice_offset + copy_index as u64 * COPY_SIZE as u64
}

/// One copy as it is written: padded with zeros to its blocks.
pub fn encode_block(superblock: &Superblock, copy_index: u32, target: &mut [u8]) {
    target[..COPY_SIZE].fill(0);
    target[..SUPERBLOCK_SIZE].copy_from_slice(&superblock.encode(copy_index));
}

/// A copy that does not say what the ruling one says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CopyFault {
    pub copy_index: u32,
    /// Device offset of the copy, bytes.
    pub offset: u64,
    /// `None`: valid, but of an older update.
    pub error: Option<CopyError>,
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "superblock copy {} at device offset {}: ", self.copy_index, self.offset)?;
        match self.error {
            Some(error) => error.fmt(f),
            None => f.write_str("of an older update"),
        }
    }
}

/// The ruling superblock, and the copies that must be repaired.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub superblock: Superblock,
    pub faults: Vec<CopyFault>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("device read at offset {offset} failed: {source}")]
    Read { offset: u64, source: io::Error },
    #[error("no WAL at device offset {offset}: the blocks are empty; run `tailrace format`")]
    Blank { offset: u64 },
    #[error("no Tailrace WAL at device offset {offset}: it holds another system's data")]
    Foreign { offset: u64 },
    #[error(
        "WAL at device offset {offset} has format version {found}, this build reads version {}",
        super::VERSION
    )]
    Version { offset: u64, found: u32 },
    #[error(
        "all superblock copies at device offset {offset} are damaged ({first}); \
         restore this node from its replicas"
    )]
    Damaged { offset: u64, first: CopyError },
    #[error(
        "superblock copies at device offset {offset} disagree at sequence {sequence}; \
         restore this node from its replicas"
    )]
    Conflict { offset: u64, sequence: u64 },
}

/// Reads all copies of the slice at `offset`; the valid one with the highest sequence rules.
pub fn load(device: &mut impl BlockDevice, offset: u64) -> Result<Loaded, LoadError> {
    let size = COPY_SIZE * COPY_COUNT as usize;
    let mut area = AlignedBuf::zeroed(size, BUFFER_ALIGN);
    device.read_at(offset, &mut area).map_err(|source| LoadError::Read { offset, source })?;
    select(&area, offset)
}

/// `load` from bytes that are already in memory.
pub(crate) fn select(area: &[u8], offset: u64) -> Result<Loaded, LoadError> {
    let copies: Vec<Result<Superblock, CopyError>> = (0..COPY_COUNT)
        .zip(area.chunks_exact(COPY_SIZE))
        .map(|(copy_index, block)| {
            let bytes = block.first_chunk().expect("a copy is longer than a superblock");
            let superblock = Superblock::decode(bytes, copy_index)?;
            // A copy of another slice, misdirected here by the device, would lead us astray.
            if superblock.layout.slice_offset != offset {
                return Err(CopyError::Field { field: "slice_offset" });
            }
            Ok(superblock)
        })
        .collect();
    let Some(ruling) = copies.iter().flatten().max_by_key(|copy| copy.sequence).copied() else {
        return Err(why_none(&copies, offset));
    };
    let peers = || copies.iter().flatten().filter(|copy| copy.sequence == ruling.sequence);
    if peers().any(|copy| *copy != ruling) {
        return Err(LoadError::Conflict { offset, sequence: ruling.sequence });
    }
    let faults = (0..COPY_COUNT)
        .zip(&copies)
        .filter(|(_, copy)| **copy != Ok(ruling))
        .map(|(copy_index, copy)| CopyFault {
            copy_index,
            offset: copy_offset(offset, copy_index),
            error: copy.err(),
        })
        .collect();
    Ok(Loaded { superblock: ruling, faults })
}

/// Replaces all copies, so that a crash at any point leaves a valid one; durable on return.
pub fn store(device: &mut impl BlockDevice, superblock: &Superblock) -> io::Result<()> {
    let mut block = AlignedBuf::zeroed(COPY_SIZE, BUFFER_ALIGN);
    for half in [0..HALF, HALF..COPY_COUNT] {
        for copy_index in half {
            encode_block(superblock, copy_index, &mut block);
            device.write_at(copy_offset(superblock.layout.slice_offset, copy_index), &block)?;
        }
        device.flush()?;
    }
    Ok(())
}

fn why_none(copies: &[Result<Superblock, CopyError>], offset: u64) -> LoadError {
    let errors = || copies.iter().filter_map(|copy| copy.err());
    let version = errors().find_map(|error| match error {
        CopyError::Version { found } => Some(found),
        _ => None,
    });
    let damaged = errors().find(|error| !matches!(error, CopyError::Blank | CopyError::Foreign));
    match (version, damaged) {
        (Some(found), _) => LoadError::Version { offset, found },
        (None, Some(first)) => LoadError::Damaged { offset, first },
        (None, None) if errors().all(|error| error == CopyError::Blank) => {
            LoadError::Blank { offset }
        }
        (None, None) => LoadError::Foreign { offset },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    fn area(copies: [Superblock; 4]) -> Vec<u8> {
        let mut area = vec![0; COPY_SIZE * 4];
        for ((copy_index, copy), block) in (0..).zip(&copies).zip(area.chunks_exact_mut(COPY_SIZE))
        {
            encode_block(copy, copy_index, block);
        }
        area
    }

    const AT: u64 = 1 << 20;

    #[test]
    fn the_highest_sequence_rules_and_the_others_are_reported() {
        let (old, new) = (sample(), Superblock { sequence: 6, ..sample() });
        let loaded = select(&area([new, new, old, old]), AT).expect("valid");
        assert_eq!(loaded.superblock, new);
        let stale: Vec<_> = loaded.faults.iter().map(|fault| fault.copy_index).collect();
        assert_eq!(stale, [2, 3]);
    }

    #[test]
    fn any_three_copies_may_be_lost() {
        for survivor in 0..4 {
            let mut bytes = area([sample(); 4]);
            for copy in (0..4).filter(|&copy| copy != survivor) {
                bytes[copy * COPY_SIZE + 40] ^= 1;
            }
            let loaded = select(&bytes, AT).expect("one is left");
            assert_eq!((loaded.superblock, loaded.faults.len()), (sample(), 3));
        }
    }

    #[test]
    fn each_reason_to_refuse_has_its_own_line() {
        let mut damaged = area([sample(); 4]);
        damaged.chunks_exact_mut(COPY_SIZE).for_each(|copy| copy[100] ^= 1);
        assert!(matches!(select(&damaged, AT), Err(LoadError::Damaged { .. })));
        assert!(matches!(select(&[0; COPY_SIZE * 4], AT), Err(LoadError::Blank { .. })));
        assert!(matches!(select(&[7; COPY_SIZE * 4], AT), Err(LoadError::Foreign { .. })));
        let other = Superblock { node_id: 9, ..sample() };
        let conflict = select(&area([sample(), sample(), other, other]), AT);
        assert!(matches!(conflict, Err(LoadError::Conflict { sequence: 5, .. })));
        let mut future = area([sample(); 4]);
        for copy in future.chunks_exact_mut(COPY_SIZE) {
            copy[16] = 2;
            let crc = crc32c::crc32c(&copy[4..SUPERBLOCK_SIZE]);
            copy[..4].copy_from_slice(&crc.to_le_bytes());
        }
        assert!(matches!(select(&future, AT), Err(LoadError::Version { found: 2, .. })));
    }
}
