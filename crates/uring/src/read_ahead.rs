//! One read on its way while its caller looks at what was read before: for a start, when there is
//! no reactor yet and the device would rest between blocking reads.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{cqueue, opcode, types::Fd};

use crate::buffer::AlignedBuf;
use crate::device::DeviceFile;
use crate::error::SetupError;
use crate::ring::Ring;

/// At most one read of one file is in flight. Dropping it waits for that.
pub struct ReadAhead {
    file: OwnedFd,
    ring: Ring,
    completions: VecDeque<cqueue::Entry>,
    in_flight: Option<InFlight>,
}

/// What the kernel writes into.
struct InFlight {
    offset: u64,
    buf: AlignedBuf,
}

impl ReadAhead {
    /// # Errors
    ///
    /// There is no ring to be had, or no descriptor.
    pub fn new(file: &DeviceFile) -> Result<Self, ReadAheadError> {
        let (ring, file) = (Ring::new(1)?, file.file()?);
        Ok(Self { file, ring, completions: VecDeque::new(), in_flight: None })
    }

    /// Begins to fill `buf`, a multiple of the device's block size, from `offset`. A read that is
    /// under way is waited for first, and given up.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub fn begin(&mut self, offset: u64, mut buf: AlignedBuf) -> io::Result<()> {
        self.give_up()?;
        let len = u32::try_from(buf.len()).map_err(io::Error::other)?;
        let read = opcode::Read::new(Fd(self.file.as_raw_fd()), buf.as_mut_ptr(), len);
        let entry = read.offset(offset).build();
        self.in_flight = Some(InFlight { offset, buf });
        // SAFETY: the buffer stays in `in_flight` and the file open until the read has completed.
        unsafe { self.ring.push(&entry) };
        self.ring.submit()
    }

    /// The bytes of a read that was begun for just this place, or `None` if there is none, or it
    /// failed or came short: then the caller reads for itself, and is told why it cannot.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub fn take(&mut self, offset: u64, len: usize) -> io::Result<Option<AlignedBuf>> {
        let Some((InFlight { offset: begun, buf }, filled)) = self.wait()? else {
            return Ok(None);
        };
        let is_whole = begun == offset && buf.len() == len && filled == len;
        Ok(is_whole.then_some(buf))
    }

    /// Waits for what was begun, if anything was, and gives it up.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub fn give_up(&mut self) -> io::Result<()> {
        self.wait().map(|_| ())
    }

    /// Until nothing is in flight: what was, and how many bytes of it were read.
    fn wait(&mut self) -> io::Result<Option<(InFlight, usize)>> {
        if self.in_flight.is_none() {
            return Ok(None);
        }
        while self.completions.is_empty() {
            self.ring.submit_and_sleep(None)?;
            self.ring.reap(&mut self.completions);
        }
        let done = self.completions.pop_front().expect("one is there");
        let filled = usize::try_from(done.result()).unwrap_or_default();
        Ok(self.in_flight.take().map(|read| (read, filled)))
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if self.wait().is_err() {
            // The kernel may still write into it.
            std::mem::forget(self.in_flight.take());
        }
    }
}

/// Why nothing can be read ahead.
#[derive(Debug, thiserror::Error)]
pub enum ReadAheadError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("cannot duplicate a descriptor: {0}")]
    Io(#[from] io::Error),
}
