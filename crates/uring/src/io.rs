//! What a reactor does for its shard: sockets, disk requests and doorbells.
//!
//! `Io` owns the ring and all memory that the kernel reads or writes on its behalf. Requests are
//! queued by the methods here, submitted together by `Reactor::turn`, and settled in `settle.rs`.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{cqueue, opcode, squeue};

use crate::buffer::{AlignedBuf, BUFFER_ALIGNMENT, FixedPool};
use crate::connection::{BYTES_PER_SEND_MAX, Connection, Phase, Recv, SendSource};
use crate::doorbell::{Bell, Doorbell};
use crate::provided::ProvidedBuffers;
use crate::ring::Ring;
use crate::token::{SlotRef, Slots, Token};

/// The group of the receive buffers.
pub(crate) const RECV_GROUP: u16 = 0;

/// Files that can be registered with one reactor.
pub(crate) const FILES_MAX: u32 = 64;

/// How long a connection that has sent its last waits for its peer to close.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// An eventfd is read as one u64.
const WAKE_COUNT_SIZE: u32 = 8;

/// Bytes of one disk request; the kernel cuts longer ones short.
const DISK_BYTES_MAX: usize = 1 << 30;

/// Bytes of a connection that the kernel has taken and not begun to send (`TCP_NOTSENT_LOWAT`,
/// tcp(7)). Half of it has to last until the reactor comes to send more: at 10 Gbit/s 50 us.
pub(crate) const KERNEL_UNSENT_MAX: u32 = 128 << 10;

/// A listening socket of one reactor.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ListenerId(u32);

/// A connection of one reactor; never reused, so a late use of a dead one does nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

/// A registered file of one reactor.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileId(u32);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskOpKind {
    Read,
    Write,
}

/// The end of a disk request: the buffer comes back.
#[derive(Debug)]
pub struct DiskDone {
    pub token: u64,
    pub kind: DiskOpKind,
    pub buf: AlignedBuf,
    /// A short transfer is an error: `UnexpectedEof` or `WriteZero`.
    pub result: io::Result<()>,
}

/// Sockets, disk requests and doorbells of one reactor.
pub struct Io {
    pub(crate) ring: Ring,
    pub(crate) recv_buffers: Rc<ProvidedBuffers>,
    pub(crate) fixed: Arc<FixedPool>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) listeners: Slots<Listener>,
    pub(crate) connections: Slots<Connection>,
    pub(crate) disk: Slots<DiskRequest>,
    pub(crate) rings: Slots<Arc<Bell>>,
    files: Vec<OwnedFd>,
    /// Where the eventfd's count is read to.
    wake_count: Option<AlignedBuf>,
    /// Connections with something to send, and those of them that send much, oldest first.
    dirty: Vec<SlotRef>,
    bulk: VecDeque<SlotRef>,
    /// Connections that have sent their last, and when they have waited enough, in that order.
    lingering: VecDeque<(Instant, SlotRef)>,
    /// Connections whose held bytes are to be handed on.
    pub(crate) resumed: VecDeque<SlotRef>,
    /// Completions taken from the ring and not settled yet.
    pub(crate) reaped: VecDeque<cqueue::Entry>,
    /// When to accept again after a failure such as too many open files.
    pub(crate) accept_at: Option<Instant>,
    pub(crate) writes_in_flight: usize,
    /// Bytes of those.
    pub(crate) write_bytes: usize,
    /// A write was asked for since the last turn: worth spinning for, like an event.
    pub(crate) write_started: bool,
    /// Requests whose last completion has not been settled.
    pub(crate) ops: usize,
    pub(crate) now: Instant,
    /// Being dropped: nothing is started any more.
    pub(crate) draining: bool,
    /// The ring belongs to the thread that made it.
    _not_send: PhantomData<*const ()>,
}

pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) armed: bool,
    /// Nobody is accepted any more.
    pub(crate) closed: bool,
}

pub(crate) struct DiskRequest {
    pub(crate) token: u64,
    pub(crate) kind: DiskOpKind,
    pub(crate) buf: AlignedBuf,
    pub(crate) len: u32,
}

impl Io {
    pub(crate) fn new(
        ring: Ring,
        recv_buffers: Rc<ProvidedBuffers>,
        fixed: Arc<FixedPool>,
        bell: Arc<Bell>,
        now: Instant,
    ) -> Self {
        let mut io = Self {
            ring,
            recv_buffers,
            fixed,
            bell,
            listeners: Slots::new(),
            connections: Slots::new(),
            disk: Slots::new(),
            rings: Slots::new(),
            files: Vec::new(),
            wake_count: None,
            dirty: Vec::new(),
            bulk: VecDeque::new(),
            lingering: VecDeque::new(),
            resumed: VecDeque::new(),
            reaped: VecDeque::new(),
            accept_at: None,
            writes_in_flight: 0,
            write_bytes: 0,
            write_started: false,
            ops: 0,
            now,
            draining: false,
            _not_send: PhantomData,
        };
        io.wake_count = Some(AlignedBuf::zeroed(WAKE_COUNT_SIZE as usize, align_of::<u64>()));
        io.arm_wake();
        io
    }

    /// The clock, read once per turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Accepts connections from now on; each is reported by `Handler::accepted`.
    pub fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        // Not blocking would end the accept request at once with EAGAIN.
        listener.set_nonblocking(false)?;
        let slot =
            self.listeners.insert(Listener { socket: listener, armed: false, closed: false });
        self.arm_accept(slot);
        Ok(ListenerId(slot.index))
    }

    /// Who connects from now on is refused, and so is who waits to be accepted.
    pub fn stop_listening(&mut self, listener: ListenerId) {
        let slot = self.listeners.refs().into_iter().find(|slot| slot.index == listener.0);
        let Some(listener) = slot.and_then(|slot| self.listeners.get_mut(slot)) else { return };
        // The socket stays: a request that the kernel has not seen yet may name it.
        listener.closed = true;
        // Fails on none that listens.
        let _ = rustix::net::shutdown(&listener.socket, rustix::net::Shutdown::Both);
    }

    /// Takes over a connected socket and receives from it from now on.
    pub fn adopt(&mut self, stream: TcpStream) -> io::Result<ConnId> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        bound_unsent(&stream)?;
        let slot = self.connections.insert(Connection::new(stream));
        self.arm_recv(slot);
        Ok(ConnId::from(slot))
    }

    /// Queues pieces in order; they leave with the next `turn`, without being copied. Does nothing
    /// on a connection that is closed or closing.
    pub fn send(&mut self, conn: ConnId, pieces: impl IntoIterator<Item = Bytes>) {
        let Some(connection) = self.connections.get_mut(conn.slot()) else { return };
        if connection.phase != Phase::Open {
            return;
        }
        for piece in pieces {
            connection.out.push(piece);
        }
        self.mark_dirty(conn.slot());
    }

    /// Bytes queued or in flight, 0 for a closed connection.
    pub fn unsent(&self, conn: ConnId) -> usize {
        self.connections.get(conn.slot()).map_or(0, |connection| connection.out.unsent())
    }

    /// No `received` (and no `closed` by the peer's hand) until `resume`. What the kernel had
    /// received already is held, at most the receive buffers together. A failed send still closes.
    pub fn pause(&mut self, conn: ConnId) {
        let slot = conn.slot();
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.phase != Phase::Open || connection.paused {
            return;
        }
        connection.paused = true;
        self.cancel_recv(slot);
    }

    /// Receives again after `pause`.
    pub fn resume(&mut self, conn: ConnId) {
        let slot = conn.slot();
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.phase != Phase::Open || !connection.paused {
            return;
        }
        connection.paused = false;
        if !connection.held.is_empty() || connection.held_end.is_some() {
            self.resumed.push_back(slot);
        }
        self.arm_recv(slot);
    }

    /// Closes at once and drops what is unsent; the id is dead and `closed` is not called.
    pub fn close(&mut self, conn: ConnId) {
        let open = self.connections.get(conn.slot()).is_some_and(|c| c.phase != Phase::Closing);
        if open {
            self.release(conn.slot());
        }
    }

    /// Closes when what is queued has been sent and the peer has closed too, or 1 s after the
    /// former. From now on nothing is reported and what arrives is dropped.
    pub fn close_after_send(&mut self, conn: ConnId) {
        let slot = conn.slot();
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.phase != Phase::Open {
            return;
        }
        connection.phase = Phase::Draining;
        connection.held = Vec::new();
        // What arrives is received and dropped: unread, it would turn the close into a reset.
        connection.paused = false;
        if connection.out.is_empty() {
            self.linger(slot);
        }
        self.arm_recv(slot);
    }

    /// Registers a file for `read` and `write`; it stays open as long as the reactor.
    pub fn register_file(&mut self, file: OwnedFd) -> io::Result<FileId> {
        let index = u32::try_from(self.files.len()).ok().filter(|index| *index < FILES_MAX);
        let index = index.ok_or_else(|| {
            io::Error::other(format!("a reactor has room for {FILES_MAX} registered files"))
        })?;
        self.ring.submitter().register_files_update(index, &[file.as_raw_fd()])?;
        self.files.push(file);
        Ok(FileId(index))
    }

    /// A buffer of `len` bytes at a multiple of 4,096: a registered slot if one is free and large
    /// enough, else memory of its own. Its content is unspecified.
    pub fn take_buffer(&mut self, len: usize) -> AlignedBuf {
        self.fixed.take(len).unwrap_or_else(|| AlignedBuf::zeroed(len, BUFFER_ALIGNMENT))
    }

    /// Writes the first `len` bytes of `buf` at `offset`; `Handler::disk` gives the buffer back.
    /// `durable` adds `RWF_DSYNC`: completed means on the medium, behind a volatile cache too.
    ///
    /// # Panics
    ///
    /// If `len` is 0, more than `buf` holds or more than 1 GiB.
    pub fn write(
        &mut self,
        file: FileId,
        token: u64,
        offset: u64,
        buf: AlignedBuf,
        len: usize,
        durable: bool,
    ) {
        let kind = DiskOpKind::Write;
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let request = DiskRequest { token, kind, len: checked(&buf, len), buf };
        self.writes_in_flight += 1;
        self.write_bytes += len;
        self.write_started = true;
        self.start_disk(file, offset, request, flags);
    }

    /// Reads `len` bytes at `offset` into the start of `buf`; `Handler::disk` gives it back.
    ///
    /// # Panics
    ///
    /// If `len` is 0, more than `buf` holds or more than 1 GiB.
    pub fn read(&mut self, file: FileId, token: u64, offset: u64, buf: AlignedBuf, len: usize) {
        let kind = DiskOpKind::Read;
        let request = DiskRequest { token, kind, len: checked(&buf, len), buf };
        self.start_disk(file, offset, request, 0);
    }

    /// Wakes another reactor if it sleeps, with the next submission; call it after the message is
    /// in its inbox.
    pub fn ring(&mut self, bell: &Doorbell) {
        if !bell.bell().answer() {
            return;
        }
        let slot = self.rings.insert(Arc::clone(bell.bell()));
        let fd = Fd(bell.bell().ring.as_raw_fd());
        let entry = opcode::MsgRingData::new(fd, 0, Token::Rung.encode(), None).build();
        // SAFETY: the descriptor stays open: `rings` holds the bell until the completion.
        unsafe { self.push(entry, Token::Ring(slot)) };
    }

    /// Requests not finished, of any kind; for tests and metrics.
    pub fn requests_in_flight(&self) -> usize {
        self.ops
    }

    /// Turns queued bytes into send requests: all that is small, and one of those that are not. The
    /// kernel copies a send while it takes it, and everything else of this core waits meanwhile.
    pub(crate) fn flush(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            let Some(connection) = self.connections.get(slot) else { continue };
            if connection.out.unsent() > BYTES_PER_SEND_MAX {
                self.bulk.push_back(slot);
            } else {
                self.start_send(slot);
            }
        }
        if let Some(slot) = self.bulk.pop_front() {
            self.start_send(slot);
        }
    }

    /// Whether a send is left for the next pass.
    pub(crate) fn has_bulk(&self) -> bool {
        !self.bulk.is_empty()
    }

    fn start_send(&mut self, slot: SlotRef) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.dirty = false;
        if connection.phase == Phase::Closing {
            return;
        }
        let fd = Fd(connection.stream.as_raw_fd());
        let Some(source) = connection.out.start() else { return };
        connection.ops += 1;
        let entry = match source {
            SendSource::One { start, len } => {
                opcode::Send::new(fd, start, len).flags(libc::MSG_NOSIGNAL).build()
            }
            SendSource::Many(message) => {
                opcode::SendMsg::new(fd, message).flags(libc::MSG_NOSIGNAL as u32).build()
            }
        };
        // SAFETY: the pieces and their vector stay in the connection's queue, unchanged, until
        // `SendQueue::finish`; the connection and its socket stay until `ops` is 0.
        unsafe { self.push(entry, Token::Send(slot)) };
    }

    pub(crate) fn mark_dirty(&mut self, slot: SlotRef) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if !connection.dirty && !connection.out.is_empty() && !connection.out.is_in_flight() {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    pub(crate) fn arm_accept(&mut self, slot: SlotRef) {
        let Some(listener) = self.listeners.get_mut(slot) else { return };
        if self.draining || listener.closed {
            return;
        }
        listener.armed = true;
        let fd = Fd(listener.socket.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: points to no memory; the socket is in `listeners` as long as `self`.
        unsafe { self.push(entry, Token::Accept(slot)) };
    }

    /// Starts the multishot receive, unless it runs or must not.
    pub(crate) fn arm_recv(&mut self, slot: SlotRef) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let ended = connection.paused || connection.held_end.is_some();
        if connection.recv != Recv::Idle || ended || connection.phase == Phase::Closing {
            return;
        }
        connection.recv = Recv::Armed;
        connection.ops += 1;
        let fd = Fd(connection.stream.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, RECV_GROUP).build();
        // SAFETY: the kernel writes only into provided buffers, which `self` owns and frees after
        // the ring; the socket stays in its slot until `ops` is 0.
        unsafe { self.push(entry, Token::Recv(slot)) };
    }

    pub(crate) fn cancel_recv(&mut self, slot: SlotRef) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.recv != Recv::Armed {
            return;
        }
        connection.recv = Recv::Cancelling;
        connection.ops += 1;
        let target = CancelBuilder::user_data(Token::Recv(slot).encode());
        // SAFETY: points to no memory and to no descriptor.
        unsafe { self.push(opcode::AsyncCancel2::new(target).build(), Token::Cancel(slot)) };
    }

    /// Everything is sent: says so to the peer and gives it a while to close.
    pub(crate) fn linger(&mut self, slot: SlotRef) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let told = connection.stream.shutdown(Shutdown::Write);
        if told.is_err() || connection.held_end.is_some() {
            self.release(slot);
            return;
        }
        connection.phase = Phase::Lingering;
        self.lingering.push_back((self.now + LINGER_MAX, slot));
    }

    /// Ends the lingering of those who had their time; when the next is due.
    pub(crate) fn end_lingering(&mut self) -> Option<Instant> {
        while let Some((due, slot)) = self.lingering.front().copied() {
            let lingers = self.connections.get(slot).is_some_and(|c| c.phase == Phase::Lingering);
            if lingers && due > self.now {
                return Some(due);
            }
            self.lingering.pop_front();
            if lingers {
                self.release(slot);
            }
        }
        None
    }

    /// Makes the id dead, ends what is in flight, and frees the slot when nothing is.
    pub(crate) fn release(&mut self, slot: SlotRef) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.phase = Phase::Closing;
        connection.held = Vec::new();
        connection.out.abandon();
        if connection.ops == 0 {
            self.connections.remove(slot);
            return;
        }
        // Fails only if the peer has reset it, and then everything in flight ends by itself.
        let _ = connection.stream.shutdown(Shutdown::Both);
        connection.ops += 1;
        let target = CancelBuilder::fd(Fd(connection.stream.as_raw_fd())).all();
        // SAFETY: points to no memory; the socket stays in its slot until `ops` is 0.
        unsafe { self.push(opcode::AsyncCancel2::new(target).build(), Token::Cancel(slot)) };
    }

    pub(crate) fn arm_wake(&mut self) {
        let Some(count) = self.wake_count.as_mut().filter(|_| !self.draining) else { return };
        let fd = Fd(self.bell.eventfd.as_raw_fd());
        let entry = opcode::Read::new(fd, count.as_mut_ptr(), WAKE_COUNT_SIZE).build();
        // SAFETY: `wake_count` is 8 bytes that nothing else touches; it and the eventfd are freed
        // after the ring has been drained.
        unsafe { self.push(entry, Token::Wake) };
    }

    /// Never frees what the kernel may still read or write.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::replace(&mut self.disk, Slots::new()));
        std::mem::forget(std::mem::replace(&mut self.connections, Slots::new()));
        std::mem::forget(Rc::clone(&self.recv_buffers));
        std::mem::forget(Arc::clone(&self.fixed));
        std::mem::forget(self.wake_count.take());
    }

    fn start_disk(&mut self, file: FileId, offset: u64, request: DiskRequest, flags: i32) {
        let (kind, len) = (request.kind, request.len);
        let slot = self.disk.insert(request);
        let Some(request) = self.disk.get_mut(slot) else { return };
        let start = request.buf.as_mut_ptr();
        let fd = Fixed(file.0);
        let registered = request.buf.slot_in(&self.fixed);
        let entry = match (kind, registered) {
            (DiskOpKind::Write, Some(index)) => opcode::WriteFixed::new(fd, start, len, index)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            (DiskOpKind::Write, None) => {
                opcode::Write::new(fd, start, len).offset(offset).rw_flags(flags).build()
            }
            (DiskOpKind::Read, Some(index)) => {
                opcode::ReadFixed::new(fd, start, len, index).offset(offset).build()
            }
            (DiskOpKind::Read, None) => opcode::Read::new(fd, start, len).offset(offset).build(),
        };
        // SAFETY: the buffer holds `len` bytes at least, was moved into `disk`, stays there
        // unreferenced until the completion, and its bytes do not move with it.
        unsafe { self.push(entry, Token::Disk(slot)) };
    }

    /// # Safety
    ///
    /// As for [`Ring::push`].
    unsafe fn push(&mut self, entry: squeue::Entry, token: Token) {
        self.ops += 1;
        // SAFETY: the caller's promise.
        unsafe { self.ring.push(&entry.user_data(token.encode())) };
    }
}

impl ConnId {
    /// A connection of no reactor, for whoever stands in for one: no reactor gives this generation.
    pub const fn simulated(index: u32) -> Self {
        Self { index, generation: u32::MAX }
    }

    /// The number of a simulated connection.
    pub const fn simulated_index(self) -> Option<u32> {
        if self.generation == u32::MAX { Some(self.index) } else { None }
    }

    pub(crate) fn slot(self) -> SlotRef {
        SlotRef { index: self.index, generation: self.generation }
    }
}

impl From<SlotRef> for ConnId {
    fn from(slot: SlotRef) -> Self {
        Self { index: slot.index, generation: slot.generation }
    }
}

impl ListenerId {
    pub(crate) fn new(slot: SlotRef) -> Self {
        Self(slot.index)
    }
}

/// Bounds what the kernel holds of a connection before it may be on its way. An acknowledgement
/// has the kernel send all of that at once, on this core as often as not; what is on its way is not
/// bounded, so a peer that is far away is sent as much as before.
fn bound_unsent(stream: &TcpStream) -> io::Result<()> {
    const SIZE: libc::socklen_t = 4;
    let bytes = KERNEL_UNSENT_MAX.to_ne_bytes();
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT);
    // SAFETY: the descriptor is open as long as the stream, and the kernel reads no more than the 4
    // bytes, which are there until it returns.
    let done =
        unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, bytes.as_ptr().cast(), SIZE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The length of a disk request that fits its buffer.
fn checked(buf: &AlignedBuf, len: usize) -> u32 {
    assert!(len > 0 && len <= buf.len(), "{len} bytes of a buffer of {}", buf.len());
    assert!(len <= DISK_BYTES_MAX, "{len} bytes in one disk request");
    u32::try_from(len).expect("at most 1 GiB")
}
