//! What a device may already hold. Anything at all is reason enough to refuse; a known signature
//! makes the refusal say what would be lost.

use std::fmt;

use uring::AlignedBuf;

use super::FormatError;
use crate::BUFFER_ALIGN;
use crate::device::BlockDevice;

/// What was recognised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signature(&'static str);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Name, offset from the start of the device, bytes.
const KNOWN: [(&str, usize, &[u8]); 9] = [
    ("a Tailrace WAL", 8, b"TAILRWAL"),
    ("an XFS file system", 0, b"XFSB"),
    ("an ext2, ext3 or ext4 file system", 1024 + 56, &[0x53, 0xef]),
    ("a Btrfs file system", 0x1_0040, b"_BHRfS_M"),
    ("a GPT partition table", 512, b"EFI PART"),
    ("a LUKS volume", 0, b"LUKS\xba\xbe"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("a swap area", 4086, b"SWAPSPACE2"),
    ("a boot sector or MBR partition table", 510, &[0x55, 0xaa]),
];

/// Refuses a device whose first or last `guard_size` bytes are not all zero.
pub(super) fn check_empty(
    device: &mut impl BlockDevice,
    guard_size: u64,
) -> Result<(), FormatError> {
    let geometry = device.geometry();
    let block = u64::from(geometry.block_size);
    let size = geometry.size / block * block;
    let guard_size = guard_size.min(size);
    for start in [0, size - guard_size] {
        let mut bytes = AlignedBuf::zeroed(crate::in_memory(guard_size), BUFFER_ALIGN);
        device.read_at(start, &mut bytes).map_err(|source| FormatError::Device {
            action: "read",
            offset: start,
            source,
        })?;
        if start == 0
            && let Some((name, offset)) = recognise(&bytes)
        {
            return Err(FormatError::Occupied { what: Signature(name), offset });
        }
        if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
            let offset = start + at as u64;
            return Err(FormatError::Occupied { what: Signature("data"), offset });
        }
    }
    Ok(())
}

fn recognise(bytes: &[u8]) -> Option<(&'static str, u64)> {
    KNOWN.iter().find_map(|(name, offset, magic)| {
        let found = bytes.get(*offset..offset + magic.len())?;
        (found == *magic).then_some((*name, *offset as u64))
    })
}
