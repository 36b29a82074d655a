//! Reads on their way while their caller looks at what was read before: for a start, when there is
//! no reactor yet and the device would rest between blocking reads.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{cqueue, opcode, types::Fd};

use crate::buffer::{AlignedBuf, BUFFER_ALIGNMENT};
use crate::device::DeviceFile;
use crate::error::SetupError;
use crate::ring::Ring;

/// A few reads of one file that were begun and not yet taken. Dropping it waits for them.
pub struct ReadAhead {
    file: OwnedFd,
    ring: Ring,
    completions: VecDeque<cqueue::Entry>,
    /// In the order in which they were begun.
    reads: VecDeque<Read>,
    reads_max: usize,
    /// Of the read that is begun next.
    id: u64,
    /// Buffers that have served.
    spare: Vec<AlignedBuf>,
}

/// What the kernel writes into, until `filled` is there.
struct Read {
    id: u64,
    offset: u64,
    buf: AlignedBuf,
    /// Bytes, 0 if it failed; `None` until it has completed.
    filled: Option<usize>,
}

impl ReadAhead {
    /// For up to `reads_max` reads at a time.
    ///
    /// # Errors
    ///
    /// There is no ring to be had, or no descriptor.
    pub fn new(file: &DeviceFile, reads_max: u32) -> Result<Self, ReadAheadError> {
        let (ring, file) = (Ring::new(reads_max)?, file.file()?);
        let reads_max = usize::try_from(reads_max).expect("a usize has 32 bits or more");
        let (completions, reads, spare) = (VecDeque::new(), VecDeque::new(), Vec::new());
        Ok(Self { file, ring, completions, reads, reads_max, id: 0, spare })
    }

    /// Begins to read `len` bytes, a multiple of the device's block size, from `offset`. If there
    /// are as many reads as there may be, the oldest is waited for first, and given up.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub fn begin(&mut self, offset: u64, len: usize) -> io::Result<()> {
        self.give_up_all_but(self.reads_max - 1)?;
        let spare = self.spare.pop().filter(|spare| spare.len() == len);
        let buf = spare.unwrap_or_else(|| AlignedBuf::zeroed(len, BUFFER_ALIGNMENT));
        let len = u32::try_from(len).map_err(io::Error::other)?;
        let id = self.id;
        self.id += 1;
        self.reads.push_back(Read { id, offset, buf, filled: None });
        let buf = self.reads.back_mut().expect("it was pushed").buf.as_mut_ptr();
        let read = opcode::Read::new(Fd(self.file.as_raw_fd()), buf, len);
        // SAFETY: the buffer stays in `reads` and the file open until the read has completed.
        unsafe { self.ring.push(&read.offset(offset).build().user_data(id)) };
        self.ring.submit()
    }

    /// Puts the bytes of a read that was begun for just this place into `buf`, in exchange for
    /// those that it has. False if there is none, or it failed or came short: then the caller reads
    /// for itself, and is told why it cannot.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub fn take(&mut self, offset: u64, buf: &mut AlignedBuf) -> io::Result<bool> {
        let mut reads = self.reads.iter();
        let Some(at) = reads.position(|read| read.offset == offset && read.buf.len() == buf.len())
        else {
            return Ok(false);
        };
        let mut read = self.finish(at)?;
        let is_whole = read.filled == Some(buf.len());
        if is_whole {
            std::mem::swap(buf, &mut read.buf);
        }
        self.spare.push(read.buf);
        Ok(is_whole)
    }

    /// Waits for what was begun, and gives it up.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub fn give_up(&mut self) -> io::Result<()> {
        self.give_up_all_but(0)
    }

    /// The oldest ones first.
    fn give_up_all_but(&mut self, count: usize) -> io::Result<()> {
        while self.reads.len() > count {
            let read = self.finish(0)?;
            self.spare.push(read.buf);
        }
        Ok(())
    }

    /// Waits for one of `reads`, and removes it.
    fn finish(&mut self, at: usize) -> io::Result<Read> {
        while self.reads[at].filled.is_none() {
            self.ring.submit_and_sleep(None)?;
            self.ring.reap(&mut self.completions);
            for done in self.completions.drain(..) {
                let filled = usize::try_from(done.result()).unwrap_or_default();
                let mut reads = self.reads.iter_mut();
                let read = reads.find(|read| read.id == done.user_data());
                read.expect("it stays until it has completed").filled = Some(filled);
            }
        }
        Ok(self.reads.remove(at).expect("it is there"))
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if self.give_up().is_err() {
            // The kernel may still write into them.
            std::mem::take(&mut self.reads).into_iter().for_each(std::mem::forget);
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
