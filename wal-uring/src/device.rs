//! The seam between the WAL and what it is written to: blocking for format, open and recovery,
//! asynchronous for everything after. Each has a real and a simulated side (`sim::SimDisk`).

use std::io;

use uring::device::DeviceFile;
use uring::{AlignedBuf, FileId, Io, ReadAhead};

use crate::BUFFER_ALIGN;

/// Reads that a device may have begun before they are asked for: with fewer it rests while what was
/// read is looked at.
pub(crate) const READS_AHEAD: u32 = 4;

/// What a device demands of its I/O.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Geometry {
    /// Bytes.
    pub size: u64,
    /// Offsets and sizes of I/O are multiples of it, bytes.
    pub block_size: u32,
}

/// Blocking device I/O at absolute device offsets. A write is durable after the next `flush`.
pub trait BlockDevice {
    fn geometry(&self) -> Geometry;
    /// Fills all of `buf`; a short read is an error.
    fn read_at(&mut self, offset: u64, buf: &mut AlignedBuf) -> io::Result<()>;
    /// Says that `len` bytes at `offset` are likely to be read soon, into a buffer of just that
    /// size. A device may begin with that, with up to `READS_AHEAD` of them at a time.
    fn read_ahead(&mut self, _offset: u64, _len: usize) {}
    /// Writes all of `buf`; a short write is an error.
    fn write_at(&mut self, offset: u64, buf: &AlignedBuf) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

impl<T: BlockDevice + ?Sized> BlockDevice for &mut T {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn read_at(&mut self, offset: u64, buf: &mut AlignedBuf) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }

    fn read_ahead(&mut self, offset: u64, len: usize) {
        (**self).read_ahead(offset, len);
    }

    fn write_at(&mut self, offset: u64, buf: &AlignedBuf) -> io::Result<()> {
        (**self).write_at(offset, buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }
}

/// Asynchronous device I/O at absolute device offsets. Completions come back through
/// `Wal::complete`; a write is durable when it has completed.
pub trait Disk {
    /// A buffer of at least `len` bytes, aligned for the device; its content is unspecified.
    fn take_buffer(&mut self, len: usize) -> AlignedBuf;
    fn write(&mut self, token: u64, offset: u64, buf: AlignedBuf, len: usize);
    fn read(&mut self, token: u64, offset: u64, buf: AlignedBuf, len: usize);
}

/// `Disk` on the ring of a shard's reactor; made for the call and dropped after it.
pub struct RingDisk<'a> {
    pub io: &'a mut Io,
    pub file: FileId,
    /// Each write carries `RWF_DSYNC`: what a device with a volatile cache needs.
    pub durable: bool,
}

impl Disk for RingDisk<'_> {
    fn take_buffer(&mut self, len: usize) -> AlignedBuf {
        self.io.take_buffer(len)
    }

    fn write(&mut self, token: u64, offset: u64, buf: AlignedBuf, len: usize) {
        self.io.write(self.file, token, offset, buf, len, self.durable);
    }

    fn read(&mut self, token: u64, offset: u64, buf: AlignedBuf, len: usize) {
        self.io.read(self.file, token, offset, buf, len);
    }
}

/// `BlockDevice` on an open file or block device; several shards may share one by reference.
pub struct FileDevice<'a> {
    file: &'a DeviceFile,
    geometry: Geometry,
    ahead: Ahead,
}

/// What `read_ahead` needs, made when it is first called.
enum Ahead {
    NotAsked,
    Ready(Box<ReadAhead>),
    /// There is no ring for it: reads wait for the device, and are right all the same.
    Refused,
}

impl<'a> FileDevice<'a> {
    pub fn new(file: &'a DeviceFile) -> io::Result<Self> {
        let geometry = Geometry { size: file.size()?, block_size: file.logical_block_size() };
        Ok(Self { file, geometry, ahead: Ahead::NotAsked })
    }
}

impl BlockDevice for FileDevice<'_> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&mut self, offset: u64, buf: &mut AlignedBuf) -> io::Result<()> {
        if let Ahead::Ready(ahead) = &mut self.ahead
            && ahead.take(offset, buf)?
        {
            return Ok(());
        }
        self.file.read_at(offset, buf)
    }

    fn read_ahead(&mut self, offset: u64, len: usize) {
        if matches!(self.ahead, Ahead::NotAsked) {
            let ready = |ahead| Ahead::Ready(Box::new(ahead));
            self.ahead = ReadAhead::new(self.file, READS_AHEAD).map_or(Ahead::Refused, ready);
        }
        if let Ahead::Ready(ahead) = &mut self.ahead
            && ahead.begin(offset, len).is_err()
        {
            self.ahead = Ahead::Refused;
        }
    }

    fn write_at(&mut self, offset: u64, buf: &AlignedBuf) -> io::Result<()> {
        if let Ahead::Ready(ahead) = &mut self.ahead {
            // What was read ahead may be what is written now.
            ahead.give_up()?;
        }
        self.file.write_at(offset, buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

/// A slice of an image in memory, read-only: what `tailrace wal` maps a file to.
pub struct ImageDevice<'a> {
    bytes: &'a [u8],
    block_size: u32,
}

impl<'a> ImageDevice<'a> {
    pub const fn new(bytes: &'a [u8], block_size: u32) -> Self {
        Self { bytes, block_size }
    }
}

impl BlockDevice for ImageDevice<'_> {
    fn geometry(&self) -> Geometry {
        Geometry { size: self.bytes.len() as u64, block_size: self.block_size }
    }

    fn read_at(&mut self, offset: u64, buf: &mut AlignedBuf) -> io::Result<()> {
        let source = usize::try_from(offset)
            .ok()
            .and_then(|start| self.bytes.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(source);
        Ok(())
    }

    fn write_at(&mut self, _: u64, _: &AlignedBuf) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Reads `len` bytes at `offset` into a fresh buffer.
pub(crate) fn read_vec(
    device: &mut impl BlockDevice,
    offset: u64,
    len: usize,
) -> io::Result<AlignedBuf> {
    let mut buf = AlignedBuf::zeroed(len, BUFFER_ALIGN);
    device.read_at(offset, &mut buf)?;
    Ok(buf)
}
