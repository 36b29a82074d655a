//! One io_uring, driven by the thread that made it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};
use rustix::io::Errno;

use crate::error::{SetupError, Step};

/// Completions have room for this many times the submissions: multishot requests answer often.
const COMPLETIONS_PER_ENTRY: u32 = 8;

/// Submission and completion queue; no entry is lost when either is full.
pub(crate) struct Ring {
    inner: IoUring,
    /// Entries that found the submission queue full, in order.
    backlog: VecDeque<squeue::Entry>,
}

impl Ring {
    pub(crate) fn new(entries: u32) -> Result<Self, SetupError> {
        let step = Step {
            action: "set up an io_uring",
            what: "the ring",
            bytes: entries as usize * (64 + 16 * COMPLETIONS_PER_ENTRY as usize),
            needs: "IORING_SETUP_DEFER_TASKRUN",
        };
        let inner = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_ENTRY))
            .build(entries)
            .map_err(|source| step.failed(source))?;
        if !inner.params().is_feature_nodrop() {
            return Err(SetupError::TooOld { lacks: "IORING_FEAT_NODROP" });
        }
        if !inner.params().is_feature_ext_arg() {
            return Err(SetupError::TooOld { lacks: "IORING_FEAT_EXT_ARG" });
        }
        Ok(Self { inner, backlog: VecDeque::new() })
    }

    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.inner.submitter()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is owned by `inner` and open as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.inner.as_raw_fd()) }
    }

    /// Queues a request for the next submission.
    ///
    /// # Safety
    ///
    /// Every address and descriptor in `entry` must stay valid, and what the kernel writes must
    /// not be referenced, until the request's last completion has been reaped.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: the caller's promise is the one that `push` asks for.
            if unsafe { self.inner.submission().push(entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry.clone());
    }

    /// Hands every queued entry to the kernel and lets it post finished work, in as few system
    /// calls as there are queue lengths; none if there is nothing to do.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        loop {
            self.refill();
            let sq = self.inner.submission();
            let idle = sq.is_empty() && !sq.taskrun() && !sq.cq_overflow();
            drop(sq);
            if idle {
                return Ok(());
            }
            match passing(self.inner.submit())? {
                Some(taken) if taken > 0 && !self.backlog.is_empty() => {}
                // All is submitted, or the kernel wants completions reaped first: with the next
                // turn.
                _ => return Ok(()),
            }
        }
    }

    /// As `submit`, then sleeps until a completion is there or `timeout` has passed.
    pub(crate) fn submit_and_sleep(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.backlog.is_empty() {
            self.submit()?;
        }
        let outcome = match timeout {
            None => self.inner.submit_and_wait(1),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timespec);
                self.inner.submitter().submit_with_args(1, &args)
            }
        };
        passing(outcome).map(|_| ())
    }

    pub(crate) fn has_completions(&mut self) -> bool {
        !self.inner.completion().is_empty()
    }

    /// Moves what has completed to the end of `into`.
    pub(crate) fn reap(&mut self, into: &mut VecDeque<cqueue::Entry>) {
        into.extend(self.inner.completion());
    }

    fn refill(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        let mut submission = self.inner.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the caller of `Ring::push` promised for this entry until its completion.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }
}

/// `None` for the outcomes that mean "nothing yet, call again".
fn passing(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(None),
            _ => Err(error),
        },
    }
}
