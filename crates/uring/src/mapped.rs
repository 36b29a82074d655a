//! A file as read-only memory, for the offline tools.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapOptions};
use rustix::fs::{FlockOperation, flock};

/// A mapped file or block device, locked against brokers as long as this lives.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
    /// Holds the lock.
    _file: File,
}

/// Maps the whole of `file`, a regular file or a block device.
///
/// Takes a shared lock: fails with `WouldBlock` while a broker has the file open, and no broker
/// can open it before the map is dropped.
pub fn map_readonly(file: &File) -> io::Result<MappedFile> {
    let file = file.try_clone()?;
    flock(&file, FlockOperation::NonBlockingLockShared).map_err(|_| {
        io::Error::new(
            io::ErrorKind::WouldBlock,
            "the file is in use by another process; stop the broker first",
        )
    })?;
    let size = crate::device::size_of_file(&file)?;
    let size = usize::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the lock, which every writer of ours takes exclusively, keeps the bytes still. A
    // foreign writer that ignores it could change them: this is a tool's map of a file that its
    // user owns, and what is read from it is treated as hostile.
    let map = unsafe { MmapOptions::new().len(size).map(&file) }?;
    Ok(MappedFile { map, _file: file })
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
