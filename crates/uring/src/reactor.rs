//! The loop of one core: submit, reap, dispatch; spin while a write is in flight, then sleep.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::buffer::FixedPool;
use crate::connection::CloseReason;
use crate::doorbell::{Bell, Doorbell};
use crate::error::{SetupError, Step};
use crate::io::{ConnId, DiskDone, FILES_MAX, Io, ListenerId, RECV_GROUP};
use crate::provided::ProvidedBuffers;
use crate::ring::Ring;
use crate::settle::{Event, Received};
use crate::spin::Spin;

/// How long passes with work may follow one another before the core is offered to kernel threads: a
/// synced write on its way is completed by one, and a pass with much to send takes a tenth of a
/// millisecond.
const BUSY_MAX: Duration = Duration::from_micros(50);

/// How long a write in flight is spun for: past this, waking up late costs a few per cent of what
/// the write takes anyway, and the core is better left to whatever holds the device up.
const WRITE_SPIN_MAX: Duration = Duration::from_millis(1);

/// Where writes have so many bytes the core sleeps, through them and between them: they carry what
/// many wait for, so a wake-up is a small part of what each pays, and looking would be most of what
/// the core does.
const WRITE_BYTES_SPUN_FOR: usize = 12 << 10;

/// Sizes of a reactor's queues and buffers, and when it stops spinning.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// Requests that fit the submission queue; more wait in memory. A power of two.
    pub entries: u32,
    /// Receive buffers shared by all connections. A power of two of at most 32,768.
    pub recv_buffer_count: u16,
    /// Bytes of each.
    pub recv_buffer_size: u32,
    /// How long to look for work before sleeping, after the last event that [`Handler`] thinks
    /// worth it: about twice the device's p50. Zero never spins but for writes in flight.
    pub spin: Duration,
    /// Pauses between events up to here are looked through where they are usual, so that what comes
    /// at a steady pace finds the core awake. Zero: never.
    pub busy_poll: Duration,
    /// Registered disk buffers; they count against the limit of locked memory.
    pub fixed_buffer_count: u16,
    /// Bytes of each, rounded up to 4,096.
    pub fixed_buffer_size: u32,
}

impl Default for ReactorConfig {
    fn default() -> Self {
        Self {
            entries: 512,
            recv_buffer_count: 256,
            recv_buffer_size: 16 << 10,
            spin: Duration::from_micros(100),
            busy_poll: Duration::ZERO,
            fixed_buffer_count: 8,
            fixed_buffer_size: 256 << 10,
        }
    }
}

/// What the reactor calls, always from within `Reactor::turn`.
pub trait Handler {
    fn accepted(&mut self, io: &mut Io, listener: ListenerId, conn: ConnId, peer: SocketAddr);

    /// `bytes` are borrowed for the call and never empty.
    fn received(&mut self, io: &mut Io, conn: ConnId, bytes: &[u8]);

    /// Everything queued on the connection has been taken by the kernel.
    fn sent(&mut self, io: &mut Io, conn: ConnId);

    /// The connection has ended by itself, and its id is dead. Called once; not after `Io::close`
    /// or `Io::close_after_send`.
    fn closed(&mut self, io: &mut Io, conn: ConnId, reason: CloseReason);

    fn disk(&mut self, io: &mut Io, done: DiskDone);

    /// Whether a message is in the inbox; asked when senders have been told to ring from now on,
    /// so that none is missed.
    fn has_work(&mut self) -> bool;

    /// Whether what was dispatched since the last call makes it likely that more follows at once:
    /// then it is worth spinning for, and else it is not.
    fn expects_more(&mut self) -> bool {
        true
    }
}

/// One core's ring and its loop. It stays on the thread that made it.
pub struct Reactor {
    io: Io,
    spin: Spin,
    event_last: Instant,
    /// Bytes in flight when the last write began.
    written: usize,
    /// When the core was last left to others.
    yielded_at: Instant,
    /// The last pass found something to do.
    found_work: bool,
    /// How long passes took that did.
    worked: Duration,
}

impl Reactor {
    pub fn new(config: &ReactorConfig) -> Result<Self, SetupError> {
        check(config)?;
        let ring = Ring::new(config.entries)?;
        let recv_buffers = ProvidedBuffers::new(config.recv_buffer_count, config.recv_buffer_size);
        let fixed = FixedPool::new(config.fixed_buffer_count, config.fixed_buffer_size);
        let duplicate = ring.fd().try_clone_to_owned();
        let duplicate = duplicate.map_err(|e| step("duplicate the ring's descriptor").failed(e))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC);
        let wake = wake.map_err(|e| step("make an eventfd").failed(e.into()))?;
        let now = clock();
        let mut io = Io::new(ring, recv_buffers, fixed, Bell::new(duplicate, wake), now);
        io.register()?;
        let (found_work, worked) = (false, Duration::ZERO);
        let spin = Spin::new(config.spin, config.busy_poll);
        Ok(Self { io, spin, event_last: now, written: 0, yielded_at: now, found_work, worked })
    }

    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// What other threads wake this reactor with.
    pub fn doorbell(&self) -> Doorbell {
        Doorbell::new(Arc::clone(&self.io.bell))
    }

    /// The clock as read by the last `turn`.
    pub fn now(&self) -> Instant {
        self.io.now
    }

    /// How long this thread has worked in all: neither slept nor spun for want of it.
    pub fn worked(&self) -> Duration {
        self.worked
    }

    /// One pass: submits everything queued, reaps, dispatches. Until `spin` has passed since the
    /// last event after which the handler expected more (1 ms at least while a disk write is in
    /// flight, not at all where writes are large) it returns after one look; else it sleeps until
    /// an event, the doorbell or `deadline`. It may return without an event.
    ///
    /// # Errors
    ///
    /// Only if the ring itself is broken; the reactor is of no use then.
    pub fn turn<H: Handler>(
        &mut self,
        deadline: Option<Instant>,
        handler: &mut H,
    ) -> io::Result<()> {
        self.io.retry_accept();
        let linger_end = self.io.end_lingering();
        self.io.flush();
        if std::mem::take(&mut self.io.write_started) {
            self.event_last = self.io.now;
            self.written = self.io.write_bytes;
        }
        let writes = self.io.writes_in_flight > 0;
        let spin = self.spin.time(if writes { WRITE_SPIN_MAX } else { Duration::ZERO });
        let rest_end = (!writes).then(|| self.event_last + self.spin.rest());
        let rest_end = rest_end.filter(|end| *end > self.io.now);
        let spins = rest_end.is_none() && self.io.now.duration_since(self.event_last) < spin;
        let spins = spins && self.written < WRITE_BYTES_SPUN_FOR;
        let looks = spins || self.io.has_local_work();
        if looks {
            self.look()?;
        } else {
            let timers = [deadline, linger_end, self.io.accept_at, rest_end];
            self.sleep(timers.into_iter().flatten().min(), handler)?;
        }
        let now = clock();
        self.note_worked(now);
        let took = now.saturating_duration_since(std::mem::replace(&mut self.io.now, now));
        let any = self.io.reap();
        if looks && !any {
            self.spin.looked(took);
        }
        self.found_work = any;
        while let Some(event) = self.io.next_event() {
            dispatch(&mut self.io, event, handler);
        }
        if any && handler.expects_more() {
            let pause = now.saturating_duration_since(self.event_last);
            self.spin.worked(Some(pause).filter(|_| !writes));
            self.event_last = self.io.now;
        }
        Ok(())
    }

    /// What the last pass found is done.
    fn note_worked(&mut self, now: Instant) {
        if std::mem::take(&mut self.found_work) {
            self.worked += now.saturating_duration_since(self.io.now);
        }
    }

    /// Submits and gives way once to whoever else needs the core: a kernel thread completing our
    /// own synced write may be waiting for it, and would wait for a whole tick.
    fn look(&mut self) -> io::Result<()> {
        self.io.ring.submit()?;
        let busy = self.io.now.duration_since(self.yielded_at);
        if self.io.ring.has_completions() && busy < BUSY_MAX {
            return Ok(());
        }
        self.yielded_at = self.io.now;
        rustix::thread::sched_yield();
        self.io.ring.submit()
    }

    fn sleep<H: Handler>(&mut self, until: Option<Instant>, handler: &mut H) -> io::Result<()> {
        let began = clock();
        self.note_worked(began);
        let bell = Arc::clone(&self.io.bell);
        bell.fall_asleep();
        if handler.has_work() {
            bell.stay_awake();
            // Senders that keep an awake reactor busy do not ring: their message is an event too.
            self.event_last = self.io.now;
            return self.io.ring.submit();
        }
        let timeout = until.map(|until| until.saturating_duration_since(began));
        let slept = self.io.ring.submit_and_sleep(timeout);
        self.yielded_at = clock();
        bell.stay_awake();
        slept
    }
}

fn dispatch<H: Handler>(io: &mut Io, event: Event, handler: &mut H) {
    match event {
        Event::Accepted { listener, conn, peer } => handler.accepted(io, listener, conn, peer),
        Event::Received { conn, bytes: Received::Provided(bytes) } => {
            handler.received(io, conn, &bytes);
        }
        Event::Received { conn, bytes: Received::Held(bytes) } => {
            handler.received(io, conn, &bytes);
        }
        Event::Sent(conn) => handler.sent(io, conn),
        Event::Closed { conn, reason } => handler.closed(io, conn, reason),
        Event::Disk(done) => handler.disk(io, done),
    }
}

impl Io {
    /// Whether a sleep would leave something lying that no completion announces.
    fn has_local_work(&self) -> bool {
        !self.resumed.is_empty() || !self.reaped.is_empty() || self.has_bulk()
    }

    fn register(&mut self) -> Result<(), SetupError> {
        let submitter = self.ring.submitter();
        let files = Step { needs: "IORING_REGISTER_FILES2", ..step("register a file table") };
        submitter.register_files_sparse(FILES_MAX).map_err(|e| files.failed(e))?;
        let address = self.recv_buffers.entries_address();
        let count = self.recv_buffers.count();
        let receive = Step {
            action: "register the receive buffers",
            what: "the ring of receive buffers",
            bytes: usize::from(count) * 16,
            needs: "IORING_REGISTER_PBUF_RING",
        };
        // SAFETY: the entries are page-aligned, `count` of them, and freed after the ring.
        unsafe { submitter.register_buf_ring_with_flags(address, count, RECV_GROUP, 0) }
            .map_err(|e| receive.failed(e))?;
        let slots: Vec<_> = self
            .fixed
            .slots()
            .map(|(start, len)| libc::iovec { iov_base: start.as_ptr().cast(), iov_len: len })
            .collect();
        if slots.is_empty() {
            return Ok(());
        }
        let disk = Step {
            action: "register the disk buffers",
            what: "registered disk buffers",
            bytes: self.fixed.size(),
            needs: "IORING_REGISTER_BUFFERS",
        };
        // SAFETY: the slots belong to `fixed`, which is freed after the ring, and are written only
        // by requests that own the `AlignedBuf` of the slot.
        unsafe { submitter.register_buffers(&slots) }.map_err(|e| disk.failed(e))
    }
}

fn check(config: &ReactorConfig) -> Result<(), SetupError> {
    if !config.entries.is_power_of_two() || config.entries > 4096 {
        return Err(SetupError::Config("entries must be a power of two of at most 4,096"));
    }
    if !config.recv_buffer_count.is_power_of_two() || config.recv_buffer_count > 32_768 {
        let text = "recv_buffer_count must be a power of two of at most 32,768";
        return Err(SetupError::Config(text));
    }
    if config.recv_buffer_size == 0 || config.recv_buffer_size > 1 << 24 {
        return Err(SetupError::Config("recv_buffer_size must be 1 to 16 MiB"));
    }
    if config.fixed_buffer_count > 1024 || config.fixed_buffer_size > 1 << 26 {
        let text = "at most 1,024 registered disk buffers of at most 64 MiB";
        return Err(SetupError::Config(text));
    }
    Ok(())
}

fn step(action: &'static str) -> Step {
    Step { action, what: "the ring", bytes: 0, needs: "a part of io_uring" }
}

#[expect(clippy::disallowed_methods, reason = "the reactor's clock, the only source of time")]
fn clock() -> Instant {
    Instant::now()
}
