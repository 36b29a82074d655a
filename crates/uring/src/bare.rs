//! The yardstick of ADR 0001: the least code that serves "request, 4 KiB write, reply".
//!
//! A hand-written loop over one ring, as in the prototype that the figure to hold came from: no
//! connection state, no back-pressure, no fairness, the write straight out of the receive buffer,
//! no giving way to kernel threads. What the reactor's abstractions cost is measured against it
//! by `bench::reactor`. Not for use.

mod write;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::net::sockopt::set_tcp_nodelay;

use crate::buffer::Region;

pub use write::BlockWriter;

const BUFFERS: u16 = 256;
const BUFFER_SIZE: u32 = 4096;
const KIND: u64 = 0xff << 56;
const ACCEPT: u64 = 1 << 56;
const RECV: u64 = 2 << 56;
const WRITE: u64 = 3 << 56;
const SEND: u64 = 4 << 56;
const CANCEL: u64 = 5 << 56;

/// How often the stop flag is looked at while nothing happens.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// What to serve from.
#[derive(Debug)]
pub struct Yardstick {
    pub listener: TcpListener,
    pub file: OwnedFd,
    /// Writes go around in this many bytes, a multiple of 4,096.
    pub file_size: u64,
    pub durable: bool,
    pub spin: Duration,
    /// Gives way on each pass, as the reactor does.
    pub yields: bool,
}

struct Bare {
    ring: IoUring,
    memory: Region,
    entries: Region,
    tail: u16,
    in_flight: usize,
    sockets: Vec<OwnedFd>,
    /// By buffer: the socket that its request came from, and the request's length.
    requests: [(i32, u32); BUFFERS as usize],
    offset: u64,
    yardstick: Yardstick,
}

/// Serves until `stop`; the peers should have closed by then.
pub fn serve(yardstick: Yardstick, stop: &AtomicBool) -> io::Result<()> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_cqsize(1024)
        .build(256)?;
    let mut bare = Bare {
        ring,
        memory: Region::zeroed(usize::from(BUFFERS) * BUFFER_SIZE as usize, 4096),
        entries: Region::zeroed(usize::from(BUFFERS) * size_of::<BufRingEntry>(), 4096),
        tail: 0,
        in_flight: 0,
        sockets: Vec::new(),
        requests: [(0, 0); BUFFERS as usize],
        offset: 0,
        yardstick,
    };
    let outcome = bare.register().and_then(|()| bare.run(stop));
    if !bare.drain() {
        // The kernel may still write into its memory.
        std::mem::forget(bare);
    }
    outcome
}

impl Bare {
    fn register(&mut self) -> io::Result<()> {
        let submitter = self.ring.submitter();
        submitter.register_files(&[self.yardstick.file.as_raw_fd()])?;
        let entries = self.entries.ptr().as_ptr().expose_provenance() as u64;
        // SAFETY: page-aligned entries that live until the ring has been drained.
        unsafe { submitter.register_buf_ring_with_flags(entries, BUFFERS, 0, 0) }?;
        let whole = libc::iovec {
            iov_base: self.memory.ptr().as_ptr().cast(),
            iov_len: usize::from(BUFFERS) * BUFFER_SIZE as usize,
        };
        // SAFETY: lives until the ring has been drained.
        unsafe { submitter.register_buffers(&[whole]) }
    }

    fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        for buffer in 0..BUFFERS {
            self.recycle(buffer);
        }
        self.publish();
        let listener = Fd(self.yardstick.listener.as_raw_fd());
        self.push(opcode::AcceptMulti::new(listener).build().user_data(ACCEPT))?;
        let mut completions = Vec::with_capacity(1024);
        let mut event_last = clock();
        while !stop.load(Ordering::Relaxed) {
            self.ring.submit()?;
            loop {
                if self.ring.submission().taskrun() {
                    self.ring.submit()?;
                }
                if !self.ring.completion().is_empty() {
                    break;
                }
                if event_last.elapsed() > self.yardstick.spin {
                    self.sleep()?;
                    break;
                }
                if self.yardstick.yields {
                    rustix::thread::sched_yield();
                } else {
                    std::hint::spin_loop();
                }
            }
            completions.extend(self.ring.completion());
            if completions.is_empty() {
                continue;
            }
            event_last = clock();
            for entry in completions.drain(..) {
                self.settle(&entry)?;
            }
            self.publish();
        }
        Ok(())
    }

    fn settle(&mut self, entry: &cqueue::Entry) -> io::Result<()> {
        let value = entry.user_data() & !KIND;
        let more = cqueue::more(entry.flags());
        if !more {
            self.in_flight -= 1;
        }
        let done = u32::try_from(entry.result());
        match (entry.user_data() & KIND, done) {
            (ACCEPT, Ok(fd)) => {
                let fd = fd.cast_signed();
                // SAFETY: the kernel has just opened it for us and tells once.
                let socket = unsafe { OwnedFd::from_raw_fd(fd) };
                set_tcp_nodelay(&socket, true)?;
                self.sockets.push(socket);
                self.receive(fd)
            }
            (RECV, Ok(len)) if len > 0 => {
                let fd = i32::try_from(value).map_err(io::Error::other)?;
                let buffer = cqueue::buffer_select(entry.flags())
                    .filter(|buffer| *buffer < BUFFERS)
                    .ok_or_else(|| io::Error::other("a receive without a buffer"))?;
                self.requests[usize::from(buffer)] = (fd, len);
                self.write(buffer)?;
                if more { Ok(()) } else { self.receive(fd) }
            }
            (WRITE, Ok(BUFFER_SIZE)) => {
                let buffer = u16::try_from(value).map_err(io::Error::other)?;
                let (fd, len) = self.requests[usize::from(buffer)];
                let start = self.buffer(buffer);
                let send = opcode::Send::new(Fd(fd), start.as_ptr(), len);
                self.push(send.build().user_data(SEND | value))
            }
            (WRITE, _) => Err(io::Error::other("a write failed or was short")),
            (SEND, _) => {
                self.recycle(u16::try_from(value).map_err(io::Error::other)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn receive(&mut self, fd: i32) -> io::Result<()> {
        let value = RECV | u64::from(fd.cast_unsigned());
        self.push(opcode::RecvMulti::new(Fd(fd), 0).build().user_data(value))
    }

    fn write(&mut self, buffer: u16) -> io::Result<()> {
        let flags = if self.yardstick.durable { libc::RWF_DSYNC } else { 0 };
        let start = self.buffer(buffer).as_ptr();
        let entry = opcode::WriteFixed::new(Fixed(0), start, BUFFER_SIZE, 0)
            .offset(self.offset)
            .rw_flags(flags)
            .build();
        self.offset = (self.offset + u64::from(BUFFER_SIZE)) % self.yardstick.file_size;
        self.push(entry.user_data(WRITE | u64::from(buffer)))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: entries made here point only into `memory`, `sockets` and the yardstick's files,
        // all of which live until the ring has been drained.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(io::Error::other)?;
        self.in_flight += 1;
        Ok(())
    }

    fn sleep(&self) -> io::Result<()> {
        let timeout = Timespec::from(STOP_CHECK);
        let args = SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &args) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn recycle(&mut self, buffer: u16) {
        let start = self.buffer(buffer).as_ptr().expose_provenance() as u64;
        let entries = self.entries.ptr().cast::<BufRingEntry>();
        // SAFETY: the index is masked to the entries there are.
        let entry = unsafe { entries.add(usize::from(self.tail & (BUFFERS - 1))) };
        // SAFETY: aligned, initialised, and not the kernel's before `publish`.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(start);
        entry.set_len(BUFFER_SIZE);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        let entries = self.entries.ptr().cast::<BufRingEntry>();
        // SAFETY: the first of the initialised entries.
        let tail = unsafe { BufRingEntry::tail(entries.as_ptr()) };
        // SAFETY: aligned and alive with `entries`; the kernel only loads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn buffer(&self, buffer: u16) -> NonNull<u8> {
        assert!(buffer < BUFFERS);
        // SAFETY: inside the region of `BUFFERS` buffers.
        unsafe { self.memory.ptr().add(usize::from(buffer) * BUFFER_SIZE as usize) }
    }

    /// Whether every request has ended.
    fn drain(&mut self) -> bool {
        for _ in 0..500 {
            if self.in_flight == 0 {
                return true;
            }
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
            if self.push(cancel.user_data(CANCEL)).is_err() || self.sleep().is_err() {
                return false;
            }
            let done = self.ring.completion().filter(|entry| !cqueue::more(entry.flags())).count();
            self.in_flight -= done;
        }
        false
    }
}

#[expect(clippy::disallowed_methods, reason = "the yardstick keeps its own time")]
fn clock() -> Instant {
    Instant::now()
}
