//! Format: writes empty rings onto a device.

use std::io;
use std::path::PathBuf;

use uring::AlignedBuf;
use uuid::Uuid;

use crate::device::BlockDevice;
use crate::ring::{RingLayout, SUPERBLOCK_AREA_SIZE};
use crate::slice::slice_size;
use crate::superblock::{SEGMENT_COUNT_MIN, SEGMENT_SIZE_MIN, Superblock, store};
use crate::{BLOCK_SIZE_MAX, BUFFER_ALIGN, Lsn, WriterEpoch};

mod path;
mod signature;

pub use path::format_path;
pub use signature::Signature;

/// Bytes at both ends of a device that must be empty.
const GUARD_SIZE: u64 = 1 << 20;
/// Bytes of one write of zeros.
const ZERO_SIZE: usize = 1 << 20;
const SEGMENT_SIZE_AUTO_MAX: u64 = 64 << 20;
const SEGMENT_SIZE_WANTED: u64 = 8 << 20;

/// What to write over with zeros before the superblocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ZeroFill {
    /// Everything: what a file needs, so that later writes change no file-system metadata.
    All,
    /// Superblocks and segment headers: what a block device needs.
    Headers,
}

/// What to make of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FormatOptions {
    pub cluster_id: Uuid,
    pub node_id: i32,
    /// 0 for the node's first disk; for one that replaces a lost one a number by chance.
    pub incarnation: u32,
    /// Fresh randomness: the ring id of the first slice; the others count up from it.
    pub ring_id: Uuid,
    pub slice_count: u16,
    /// Bytes; `None`: 4096, or the device's if that is larger. A finer block than 4096 saves space
    /// but lets a frame share a physical sector with a durable one, which a drive without
    /// power-loss protection may tear when it rewrites the sector.
    pub block_size: Option<u32>,
    /// Bytes; `None`: a sixteenth of the slice, or a seventh if that is below 8 MiB, as a power of
    /// two, 1 MiB to 64 MiB.
    pub segment_size: Option<u64>,
    pub zero_fill: ZeroFill,
    /// Format even if the device holds something.
    pub force: bool,
}

/// Why a device was not formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("the device already holds {what} at offset {offset}; to overwrite it, use --force")]
    Occupied { what: Signature, offset: u64 },
    #[error("{size} bytes are too few for {slices} slices of {min} bytes")]
    TooSmall { size: u64, slices: u16, min: u64 },
    #[error("{what} of {value} is not possible: {why}")]
    Option { what: &'static str, value: u64, why: &'static str },
    #[error("{path} exists and may hold data; to overwrite it, use --force")]
    Exists { path: PathBuf },
    #[error("no space for {size} bytes at {path}; the partial file was removed")]
    NoSpace { path: PathBuf, size: u64 },
    #[error("cannot {action} at device offset {offset}: {source}")]
    Device { action: &'static str, offset: u64, source: io::Error },
    #[error("cannot {action} {path}: {source}")]
    File { path: PathBuf, action: &'static str, source: io::Error },
    #[error(transparent)]
    Open(#[from] uring::device::DeviceError),
}

/// Writes empty rings onto all slices of the device; `progress` is told bytes done and in total.
/// A crash in between leaves nothing that can be opened.
pub fn format(
    device: &mut impl BlockDevice,
    options: &FormatOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), FormatError> {
    let superblocks = plan(device, options)?;
    if !options.force {
        signature::check_empty(device, GUARD_SIZE)?;
    }
    // What was here before must not be taken for a WAL while the format is under way.
    for superblock in &superblocks {
        let start = superblock.layout.slice_offset;
        zero(device, start, start + SUPERBLOCK_AREA_SIZE, &mut |_| {})?;
    }
    flush(device)?;
    match options.zero_fill {
        ZeroFill::All => {
            let size = device.geometry().size;
            let block = u64::from(device.geometry().block_size);
            zero(device, 0, size / block * block, &mut |done| progress(done, size))?;
        }
        ZeroFill::Headers => zero_headers(device, &superblocks, progress)?,
    }
    flush(device)?;
    for superblock in &superblocks {
        let offset = superblock.layout.slice_offset;
        store(device, superblock).map_err(|source| FormatError::Device {
            action: "write the superblock",
            offset,
            source,
        })?;
    }
    Ok(())
}

fn plan(
    device: &impl BlockDevice,
    options: &FormatOptions,
) -> Result<Vec<Superblock>, FormatError> {
    let geometry = device.geometry();
    let default_block = geometry.block_size.max(4096);
    let block_size = options.block_size.unwrap_or(default_block);
    let block_fits = block_size.is_power_of_two()
        && block_size.is_multiple_of(geometry.block_size)
        && (512..=BLOCK_SIZE_MAX as u64).contains(&block_size.into());
    if !block_fits {
        let why = "it must be 512 to 4096, a power of two and a multiple of the device's block";
        return Err(FormatError::Option { what: "block size", value: block_size.into(), why });
    }
    let slices = options.slice_count;
    if slices == 0 {
        return Err(FormatError::Option { what: "slice count", value: 0, why: "at least 1" });
    }
    let slice_size = slice_size(geometry.size, slices);
    let room = slice_size.saturating_sub(SUPERBLOCK_AREA_SIZE);
    let segment_size = options.segment_size.unwrap_or_else(|| automatic_segment_size(room));
    let segment_fits = segment_size.is_multiple_of(block_size.into())
        && (SEGMENT_SIZE_MIN..=1 << 30).contains(&segment_size)
        && segment_size >= 8 * u64::from(block_size);
    if !segment_fits {
        let why = "it must be 32 KiB to 1 GiB, a multiple of the block and at least 8 of them";
        return Err(FormatError::Option { what: "segment size", value: segment_size, why });
    }
    let segment_count = u32::try_from(room / segment_size).unwrap_or(u32::MAX);
    if segment_count < SEGMENT_COUNT_MIN {
        let min = SUPERBLOCK_AREA_SIZE + segment_size * u64::from(SEGMENT_COUNT_MIN);
        return Err(FormatError::TooSmall { size: geometry.size, slices, min });
    }
    let superblock = |slice_index: u16| Superblock {
        sequence: 1,
        cluster_id: options.cluster_id,
        ring_id: Uuid::from_u128(options.ring_id.as_u128().wrapping_add(slice_index.into())),
        node_id: options.node_id,
        incarnation: options.incarnation,
        slice_index,
        slice_count: slices,
        slice_size,
        layout: RingLayout {
            slice_offset: slice_size * u64::from(slice_index),
            segment_size,
            segment_count,
            block_size,
            window_size: segment_size,
        },
        writer_epoch: WriterEpoch::new(0),
        trimmed_lsn: Lsn::ZERO,
        durable_lsn_hint: Lsn::ZERO,
        clean: true,
    };
    Ok((0..slices).map(superblock).collect())
}

fn automatic_segment_size(room: u64) -> u64 {
    let part = |of: u64| 1_u64 << (room / of).max(1).ilog2();
    // A record may have a quarter of a segment: a small slice has fewer segments rather than no
    // room for a record of more than 1 MiB, which is what messaging protocols let through.
    part(16).max(part(7).min(SEGMENT_SIZE_WANTED)).clamp(1 << 20, SEGMENT_SIZE_AUTO_MAX)
}

fn zero_headers(
    device: &mut impl BlockDevice,
    superblocks: &[Superblock],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), FormatError> {
    let total: u64 = superblocks.iter().map(|it| u64::from(it.layout.segment_count)).sum();
    let mut done = 0;
    for RingLayout { slice_offset, segment_size, segment_count, block_size, .. } in
        superblocks.iter().map(|superblock| superblock.layout)
    {
        // The segment header, and the block where the first frame's header would stand.
        for slot in 0..u64::from(segment_count) {
            let start = slice_offset + SUPERBLOCK_AREA_SIZE + slot * segment_size;
            zero(device, start, start + 2 * u64::from(block_size), &mut |_| {})?;
            done += 1;
            progress(done * segment_size, total * segment_size);
        }
    }
    Ok(())
}

fn zero(
    device: &mut impl BlockDevice,
    start: u64,
    end: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), FormatError> {
    let zeros = AlignedBuf::zeroed(ZERO_SIZE, BUFFER_ALIGN);
    let mut offset = start;
    while offset < end {
        let left = end - offset;
        let fail = |source| FormatError::Device { action: "write zeros", offset, source };
        if left >= ZERO_SIZE as u64 {
            device.write_at(offset, &zeros).map_err(fail)?;
            offset += ZERO_SIZE as u64;
        } else {
            let rest = AlignedBuf::zeroed(crate::in_memory(left), BUFFER_ALIGN);
            device.write_at(offset, &rest).map_err(fail)?;
            offset = end;
        }
        progress(offset - start);
    }
    Ok(())
}

fn flush(device: &mut impl BlockDevice) -> Result<(), FormatError> {
    device.flush().map_err(|source| FormatError::Device { action: "flush", offset: 0, source })
}
