//! The least code that writes 4 KiB blocks with `O_DIRECT`: what the disk itself takes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};

use crate::buffer::Region;

/// Writes in flight at most; a power of two.
const DEPTH: u32 = 64;

/// Writes one registered buffer to one registered file; the caller polls for the end of it.
pub struct BlockWriter {
    // Dropped last, so that it outlives the file and the memory below in the kernel's eyes too.
    memory: Option<Region>,
    ring: Option<IoUring>,
    _file: OwnedFd,
    block_size: u32,
    durable: bool,
    in_flight: u32,
}

impl BlockWriter {
    /// `block_size` is a multiple of the device's; `durable` writes carry `RWF_DSYNC`.
    pub fn new(file: OwnedFd, block_size: u32, durable: bool) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(DEPTH)?;
        let memory = Region::zeroed(block_size as usize, 4096);
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        let whole =
            libc::iovec { iov_base: memory.ptr().as_ptr().cast(), iov_len: block_size as usize };
        // SAFETY: the memory lives until no write is in flight (see `drop`), or for ever.
        unsafe { ring.submitter().register_buffers(&[whole]) }?;
        let (memory, ring) = (Some(memory), Some(ring));
        Ok(Self { memory, ring, _file: file, block_size, durable, in_flight: 0 })
    }

    /// Whether another write may be started.
    pub fn has_room(&self) -> bool {
        self.in_flight < DEPTH
    }

    /// Starts a write at `offset` and hands it to the kernel.
    pub fn start(&mut self, offset: u64, token: u64) -> io::Result<()> {
        let (Some(ring), Some(memory)) = (&mut self.ring, &self.memory) else { return Ok(()) };
        if self.in_flight >= DEPTH {
            return Err(io::Error::other("too many writes in flight"));
        }
        let flags = if self.durable { libc::RWF_DSYNC } else { 0 };
        let entry = opcode::WriteFixed::new(Fixed(0), memory.ptr().as_ptr(), self.block_size, 0)
            .offset(offset)
            .rw_flags(flags)
            .build()
            .user_data(token);
        // SAFETY: the buffer lives until no write is in flight; the kernel only reads it.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
        self.in_flight += 1;
        ring.submit()?;
        Ok(())
    }

    /// One look at the ring: the token of a write that has ended. Otherwise gives way to other
    /// threads, the kernel's own workers among them.
    pub fn poll(&mut self) -> io::Result<Option<u64>> {
        let Some(ring) = &mut self.ring else { return Ok(None) };
        if ring.submission().taskrun() {
            ring.submit()?;
        }
        let Some(entry) = ring.completion().next() else {
            rustix::thread::sched_yield();
            return Ok(None);
        };
        self.in_flight -= 1;
        match u32::try_from(entry.result()) {
            Ok(len) if len == self.block_size => Ok(Some(entry.user_data())),
            Ok(_) => Err(io::Error::from(io::ErrorKind::WriteZero)),
            Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
        }
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        if let Some(ring) = &mut self.ring {
            for _ in 0..self.in_flight {
                if ring.submit_and_wait(1).is_err() {
                    break;
                }
                self.in_flight -= u32::from(ring.completion().next().is_some());
            }
        }
        if self.in_flight > 0 {
            // The kernel may still read the memory.
            std::mem::forget(self.memory.take());
            std::mem::forget(self.ring.take());
        }
    }
}
