//! A file or block device for direct I/O: opened exclusively, its geometry discovered.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FlockOperation, StatxFlags, flock, fstatfs, ioctl_blksszget, major, minor, statx,
};

use crate::buffer::AlignedBuf;

/// After a process has gone, the kernel needs up to 61 ms to give up its registered files.
const BUSY_RETRY: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Memory alignment that every device accepts, for kernels that do not tell.
const ALIGNMENT_SAFE: u32 = 4096;

/// tmpfs and ramfs, whose files take `O_DIRECT` and ignore it: nothing there is durable.
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// What an open may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OpenMode {
    /// Reads, beside whoever has it open.
    ReadOnly,
    /// Reads and writes, and keeps everybody else who asks for that out.
    ReadWrite,
    /// As `ReadWrite`; a file that is not there is made.
    Create,
}

/// Whether completed writes may be lost with the power.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteCache {
    /// `write back`: durable only with `RWF_DSYNC` or a flush.
    Volatile,
    /// `write through`: durable when completed.
    WriteThrough,
    /// Not told (a virtual or network file system): treated as volatile.
    Unknown,
}

impl WriteCache {
    /// Whether a write must carry `RWF_DSYNC` to be durable when it completes.
    pub fn needs_sync(self) -> bool {
        self != Self::WriteThrough
    }
}

impl fmt::Display for WriteCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volatile => "write back",
            Self::WriteThrough => "write through",
            Self::Unknown => "unknown (treated as write back)",
        })
    }
}

/// Why a device or file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("{path} does not exist; create it with `tailrace format`")]
    NotFound { path: PathBuf },
    #[error(
        "{path} is in use: mounted, or opened by another process (see `fuser -v {path}`); stop \
         that first"
    )]
    Busy { path: PathBuf },
    #[error(
        "{path} is on a file system without direct I/O (tmpfs, overlay and some network ones); \
         use a block device, or a file on ext4 or XFS"
    )]
    NoDirectIo { path: PathBuf },
    #[error("{path} is neither a regular file nor a block device")]
    WrongKind { path: PathBuf },
    #[error("no permission to open {path}; run as a user who may read and write it")]
    Permission { path: PathBuf },
    #[error("cannot {action} {path}: {source}")]
    Other { path: PathBuf, action: &'static str, source: io::Error },
}

/// An open file or block device. Offsets, lengths and addresses of its I/O must be multiples of
/// the block size and the memory alignment.
#[derive(Debug)]
pub struct DeviceFile {
    path: PathBuf,
    file: File,
    block_device: bool,
    logical_block_size: u32,
    memory_alignment: u32,
    write_cache: WriteCache,
}

impl DeviceFile {
    /// Opens `path` for direct I/O. A device or file that is in use is tried again for 1 s.
    pub fn open(path: impl AsRef<Path>, mode: OpenMode) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let failed = |action, source| DeviceError::from_io(path, action, source);
        let block_device = match fs::metadata(path) {
            Ok(found) if found.file_type().is_block_device() => true,
            Ok(found) if found.file_type().is_file() => false,
            Ok(_) => return Err(DeviceError::WrongKind { path: path.to_owned() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound && mode == OpenMode::Create => false,
            Err(e) => return Err(failed("look at", e)),
        };
        let file = retry_busy(|| open_exclusively(path, mode, block_device))
            .map_err(|e| failed("open", e))?;
        let (logical_block_size, memory_alignment) =
            geometry(&file, block_device).map_err(|e| failed("find the block size of", e))?;
        let write_cache = write_cache(&file).unwrap_or(WriteCache::Unknown);
        let path = path.to_owned();
        Ok(Self { path, file, block_device, logical_block_size, memory_alignment, write_cache })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// Bytes of the device, or of the file as it is now.
    pub fn size(&self) -> io::Result<u64> {
        size_of_file(&self.file)
    }

    /// Makes a regular file `size` bytes long; the new part is a hole until it is written.
    pub fn resize(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    /// Bytes; offsets and lengths of I/O are multiples of it.
    pub fn logical_block_size(&self) -> u32 {
        self.logical_block_size
    }

    /// Bytes; addresses of buffers are multiples of it.
    pub fn memory_alignment(&self) -> u32 {
        self.memory_alignment
    }

    /// Of the device, or of the device under the file's file system.
    pub fn write_cache(&self) -> WriteCache {
        self.write_cache
    }

    /// Fills all of `buf` from `offset`, or fails.
    pub fn read_at(&self, offset: u64, buf: &mut AlignedBuf) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Writes all of `buf` at `offset`, or fails. Durable only after [`DeviceFile::sync`].
    pub fn write_at(&self, offset: u64, buf: &AlignedBuf) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    /// Makes every completed write durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// A duplicate for `Io::register_file`. The exclusive hold lasts until all are closed.
    pub fn file(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

impl DeviceError {
    fn from_io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::ENOENT) => Self::NotFound { path },
            Some(libc::EBUSY | libc::EAGAIN) => Self::Busy { path },
            Some(libc::EINVAL | libc::EOPNOTSUPP) if action == "open" => Self::NoDirectIo { path },
            Some(libc::EACCES | libc::EPERM) => Self::Permission { path },
            _ => Self::Other { path, action, source },
        }
    }
}

/// Bytes of a regular file or block device.
pub(crate) fn size_of_file(mut file: &File) -> io::Result<u64> {
    // The end of a block device is where a seek finds it; its metadata says 0.
    file.seek(SeekFrom::End(0))
}

fn open_exclusively(path: &Path, mode: OpenMode, block_device: bool) -> io::Result<File> {
    let writes = mode != OpenMode::ReadOnly;
    let exclusive = if block_device && writes { libc::O_EXCL } else { 0 };
    let file = OpenOptions::new()
        .read(true)
        .write(writes)
        .create(mode == OpenMode::Create && !block_device)
        .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | exclusive)
        .open(path)?;
    let file_system = fstatfs(&file)?.f_type;
    if !block_device && MEMORY_FILE_SYSTEMS.contains(&file_system) {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    if writes {
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    }
    Ok(file)
}

#[expect(clippy::disallowed_methods, reason = "bounds a wait at start, before any reactor runs")]
fn retry_busy(open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    let started = Instant::now();
    loop {
        match open() {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN))
                    && started.elapsed() < BUSY_RETRY =>
            {
                std::thread::sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Logical block size and memory alignment for direct I/O.
fn geometry(file: &File, block_device: bool) -> io::Result<(u32, u32)> {
    let told = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    let knows = told.stx_mask & StatxFlags::DIOALIGN.bits() != 0 && told.stx_dio_mem_align > 0;
    let block_size = match block_device {
        true => ioctl_blksszget(file)?,
        false if knows => told.stx_dio_offset_align,
        false => ALIGNMENT_SAFE,
    };
    let memory = if knows { told.stx_dio_mem_align } else { block_size.max(512) };
    Ok((block_size, memory))
}

/// As the kernel tells it of the device, or of the device that holds the file's file system.
fn write_cache(file: &File) -> Option<WriteCache> {
    let found = file.metadata().ok()?;
    let device = if found.file_type().is_block_device() { found.rdev() } else { found.dev() };
    write_cache_in(Path::new("/sys/dev/block"), major(device), minor(device))
}

pub(crate) fn write_cache_in(devices: &Path, major: u32, minor: u32) -> Option<WriteCache> {
    let device = devices.join(format!("{major}:{minor}"));
    // A partition has no queue of its own; its folder lies in the folder of the whole device.
    let text = fs::read_to_string(device.join("queue/write_cache"))
        .or_else(|_| fs::read_to_string(device.join("../queue/write_cache")))
        .ok()?;
    match text.trim() {
        "write back" => Some(WriteCache::Volatile),
        "write through" => Some(WriteCache::WriteThrough),
        _ => None,
    }
}
