//! Slices: several WALs side by side on one device, each for one shard.

use crate::Identity;
use crate::device::BlockDevice;
use crate::recovery::OpenError;
use crate::superblock::{COPY_SIZE, LoadError, Loaded, load};

/// Slices start at multiples of this, bytes.
pub const SLICE_ALIGN: u64 = 1 << 20;

/// Bytes of each of `count` equal slices of a device of `size` bytes.
pub const fn slice_size(size: u64, count: u16) -> u64 {
    if count == 1 {
        // One slice may be smaller than the alignment of several.
        return size / COPY_SIZE as u64 * COPY_SIZE as u64;
    }
    size / count as u64 / SLICE_ALIGN * SLICE_ALIGN
}

/// Loads the superblock of a slice and checks that it is the expected one.
pub(crate) fn find(
    device: &mut impl BlockDevice,
    expected: &Identity,
) -> Result<Loaded, OpenError> {
    let loaded = load_slice(device, expected.slice_index, expected.slice_count)?;
    let found = &loaded.superblock;
    if found.cluster_id != expected.cluster_id {
        let (expected, found) = (expected.cluster_id, found.cluster_id);
        return Err(OpenError::OtherCluster { expected, found });
    }
    if found.node_id != expected.node_id {
        let (expected, found) = (expected.node_id, found.node_id);
        return Err(OpenError::OtherNode { expected, found });
    }
    let (index, count) = (expected.slice_index, expected.slice_count);
    if (found.slice_index, found.slice_count) != (index, count) {
        let found = (found.slice_index, found.slice_count);
        return Err(OpenError::OtherSlice { expected: (index, count), found });
    }
    check_geometry(device, &loaded)?;
    Ok(loaded)
}

/// Loads the superblock of slice `index` of `count`, wherever the format put it.
pub fn load_slice(
    device: &mut impl BlockDevice,
    index: u16,
    count: u16,
) -> Result<Loaded, LoadError> {
    if index == 0 {
        return load(device, 0);
    }
    // The first slice knows how large they are, even if the device has grown since. If all its
    // copies are lost, the device's size tells.
    let size = match load(device, 0) {
        Ok(first) => first.superblock.slice_size,
        Err(_) => slice_size(device.geometry().size, count.max(1)),
    };
    load(device, size.saturating_mul(index.into()))
}

/// Checks that the device can hold the slice that its superblock describes.
pub(crate) fn check_geometry(device: &impl BlockDevice, loaded: &Loaded) -> Result<(), OpenError> {
    let (found, geometry) = (&loaded.superblock, device.geometry());
    let (wal, device) = (found.layout.block_size, geometry.block_size);
    if !wal.is_multiple_of(device) {
        return Err(OpenError::BlockSize { wal, device });
    }
    let end = found.layout.slice_offset + found.slice_size;
    if end > geometry.size {
        return Err(OpenError::DeviceTooSmall { end, size: geometry.size });
    }
    Ok(())
}
