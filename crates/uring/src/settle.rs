//! What completions mean: bookkeeping first, then at most one event for the handler.
//!
//! The split keeps the reactor sound whatever a handler does (close, panic, swap reactors): when
//! it is called, every table is consistent and every buffer has its owner.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::CancelBuilder;
use io_uring::{cqueue, opcode};

use crate::connection::{CloseReason, Phase, Recv};
use crate::io::{ConnId, DiskDone, DiskOpKind, Io, ListenerId, RECV_GROUP};
use crate::provided::Filled;
use crate::token::{SlotRef, Token};

/// How long to leave the accept queue alone when a connection could not be taken for want of
/// descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the end of requests is waited for when a reactor is dropped.
const DRAIN_MAX: Duration = Duration::from_secs(10);

pub(crate) enum Event {
    Accepted { listener: ListenerId, conn: ConnId, peer: SocketAddr },
    Received { conn: ConnId, bytes: Received },
    Sent(ConnId),
    Closed { conn: ConnId, reason: CloseReason },
    Disk(DiskDone),
}

pub(crate) enum Received {
    Provided(Filled),
    /// Kept from a pause.
    Held(Vec<u8>),
}

impl Io {
    /// Takes completions off the ring; whether any is more than the end of our own bookkeeping.
    pub(crate) fn reap(&mut self) -> bool {
        let before = self.reaped.len();
        self.ring.reap(&mut self.reaped);
        self.reaped.range(before..).any(|entry| {
            !matches!(Token::decode(entry.user_data()), Some(Token::Ring(_) | Token::Cancel(_)))
        })
    }

    /// The next event of what was reaped or held.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        loop {
            while let Some(slot) = self.resumed.pop_front() {
                if let Some(event) = self.next_held(slot) {
                    return Some(event);
                }
            }
            let entry = self.reaped.pop_front()?;
            if let Some(event) = self.settle(&entry) {
                return Some(event);
            }
        }
    }

    /// Accepts again if a pause after a failure is over.
    pub(crate) fn retry_accept(&mut self) {
        if self.accept_at.is_none_or(|at| at > self.now) {
            return;
        }
        self.accept_at = None;
        for slot in self.listeners.refs() {
            if self.listeners.get(slot).is_some_and(|listener| !listener.armed) {
                self.arm_accept(slot);
            }
        }
    }

    fn next_held(&mut self, slot: SlotRef) -> Option<Event> {
        let connection = self.connections.get_mut(slot)?;
        if connection.paused || connection.phase != Phase::Open {
            return None;
        }
        let conn = ConnId::from(slot);
        if !connection.held.is_empty() {
            let held = std::mem::take(&mut connection.held);
            if connection.held_end.is_some() {
                self.resumed.push_front(slot);
            }
            return Some(Event::Received { conn, bytes: Received::Held(held) });
        }
        let reason = connection.held_end.take()?;
        self.release(slot);
        Some(Event::Closed { conn, reason })
    }

    fn settle(&mut self, entry: &cqueue::Entry) -> Option<Event> {
        let token = Token::decode(entry.user_data())?;
        let more = cqueue::more(entry.flags());
        if !more && token != Token::Rung {
            self.ops -= 1;
        }
        let outcome = outcome(entry.result());
        match token {
            Token::Accept(slot) => self.settle_accept(slot, outcome, more),
            Token::Recv(slot) => self.settle_recv(slot, entry, outcome, more),
            Token::Send(slot) => self.settle_send(slot, outcome),
            Token::Cancel(slot) => self.settle_cancel(slot),
            Token::Disk(slot) => self.settle_disk(slot, outcome),
            Token::Ring(slot) => {
                let bell = self.rings.resolve(slot).and_then(|slot| self.rings.remove(slot));
                if let (Some(bell), Err(_)) = (bell, outcome) {
                    bell.wake();
                }
                None
            }
            Token::Wake => {
                self.arm_wake();
                None
            }
            Token::Rung | Token::CancelAll => None,
        }
    }

    fn settle_accept(
        &mut self,
        slot: SlotRef,
        outcome: io::Result<u32>,
        more: bool,
    ) -> Option<Event> {
        let slot = self.listeners.resolve(slot);
        if let Some(slot) = slot.filter(|_| !more) {
            match &outcome {
                Err(error) if !passes(error) => {
                    let listener = self.listeners.get_mut(slot);
                    if let Some(listener) = listener.filter(|it| !it.closed) {
                        listener.armed = false;
                        self.accept_at = Some(self.now + ACCEPT_PAUSE);
                    }
                }
                _ => self.arm_accept(slot),
            }
        }
        let fd = i32::try_from(outcome.ok()?).ok()?;
        // SAFETY: the kernel has just opened this descriptor for us, and this completion is the
        // only one that names it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let stream = TcpStream::from(fd);
        if self.draining {
            return None;
        }
        // Fails if the peer has gone already: then there is nobody to serve.
        let peer = stream.peer_addr().ok()?;
        let conn = self.adopt(stream).ok()?;
        Some(Event::Accepted { listener: ListenerId::new(slot?), conn, peer })
    }

    fn settle_recv(
        &mut self,
        slot: SlotRef,
        entry: &cqueue::Entry,
        outcome: io::Result<u32>,
        more: bool,
    ) -> Option<Event> {
        // First of all, so that the buffer goes back to the kernel on every path.
        let filled = cqueue::buffer_select(entry.flags()).and_then(|buffer| {
            let len = outcome.as_ref().map_or(0, |len| *len);
            // SAFETY: this completion gives the buffer to us, and is settled once.
            unsafe { self.recv_buffers.take(buffer, len) }
        });
        let slot = self.connections.resolve(slot)?;
        let connection = self.connections.get_mut(slot)?;
        if !more {
            connection.recv = Recv::Idle;
            connection.ops -= 1;
        }
        if connection.phase == Phase::Closing {
            self.free_if_done(slot);
            return None;
        }
        let end = match outcome {
            Ok(0) => Some(CloseReason::PeerClosed),
            Ok(_) => None,
            // No buffer was free, or we cancelled it ourselves: go on when the batch is settled.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) || passes(&error) => None,
            Err(error) => Some(CloseReason::Error(error)),
        };
        if let Some(reason) = end {
            return self.end(slot, reason);
        }
        let event = filled.and_then(|filled| self.hand_on(slot, filled));
        self.arm_recv(slot);
        event
    }

    /// Received bytes: to the handler, or held, or dropped when draining.
    fn hand_on(&mut self, slot: SlotRef, filled: Filled) -> Option<Event> {
        let connection = self.connections.get_mut(slot)?;
        if connection.phase != Phase::Open || filled.is_empty() {
            return None;
        }
        if connection.holds() {
            connection.held.extend_from_slice(&filled);
            if connection.paused {
                // The cancellation may have missed the request.
                self.cancel_recv(slot);
            }
            return None;
        }
        Some(Event::Received { conn: ConnId::from(slot), bytes: Received::Provided(filled) })
    }

    fn settle_send(&mut self, slot: SlotRef, outcome: io::Result<u32>) -> Option<Event> {
        let slot = self.connections.resolve(slot)?;
        let connection = self.connections.get_mut(slot)?;
        connection.ops -= 1;
        let sent = outcome.as_ref().map_or(0, |sent| *sent as usize);
        connection.out.finish(sent);
        if connection.phase == Phase::Closing {
            connection.out.abandon();
            self.free_if_done(slot);
            return None;
        }
        match outcome {
            Err(error) if !passes(&error) => return self.fail(slot, CloseReason::Error(error)),
            Ok(0) => {
                let error = io::Error::from(io::ErrorKind::WriteZero);
                return self.fail(slot, CloseReason::Error(error));
            }
            _ => {}
        }
        if !connection.out.is_empty() {
            self.mark_dirty(slot);
            return None;
        }
        if connection.phase == Phase::Draining {
            self.linger(slot);
            return None;
        }
        Some(Event::Sent(ConnId::from(slot)))
    }

    fn settle_cancel(&mut self, slot: SlotRef) -> Option<Event> {
        let slot = self.connections.resolve(slot)?;
        let connection = self.connections.get_mut(slot)?;
        connection.ops -= 1;
        if connection.phase == Phase::Closing {
            self.free_if_done(slot);
        } else if connection.recv == Recv::Cancelling {
            // If it missed, the next bytes of the paused connection cancel again.
            connection.recv = Recv::Armed;
        }
        None
    }

    fn settle_disk(&mut self, slot: SlotRef, outcome: io::Result<u32>) -> Option<Event> {
        let slot = self.disk.resolve(slot)?;
        let request = self.disk.remove(slot)?;
        let short = match request.kind {
            DiskOpKind::Read => io::ErrorKind::UnexpectedEof,
            DiskOpKind::Write => io::ErrorKind::WriteZero,
        };
        if request.kind == DiskOpKind::Write {
            self.writes_in_flight -= 1;
            self.write_bytes -= request.len as usize;
        }
        let result = outcome.and_then(|done| {
            if done == request.len { Ok(()) } else { Err(io::Error::from(short)) }
        });
        let (token, kind, buf) = (request.token, request.kind, request.buf);
        Some(Event::Disk(DiskDone { token, kind, buf, result }))
    }

    /// The receiving side has ended: reported now, or after what is held; a peer that closed its
    /// side may still read what is being drained to it.
    fn end(&mut self, slot: SlotRef, reason: CloseReason) -> Option<Event> {
        let connection = self.connections.get_mut(slot)?;
        let finishes =
            connection.phase == Phase::Draining && matches!(reason, CloseReason::PeerClosed);
        if finishes || connection.phase == Phase::Open && connection.holds() {
            connection.held_end = Some(reason);
            return None;
        }
        self.fail(slot, reason)
    }

    fn fail(&mut self, slot: SlotRef, reason: CloseReason) -> Option<Event> {
        let open = self.connections.get(slot)?.phase == Phase::Open;
        self.release(slot);
        open.then(|| Event::Closed { conn: ConnId::from(slot), reason })
    }

    fn free_if_done(&mut self, slot: SlotRef) {
        if self.connections.get(slot).is_some_and(|connection| connection.ops == 0) {
            self.connections.remove(slot);
        }
    }

    /// Ends every request and waits for that; whether the kernel holds nothing of ours any more.
    fn drain(&mut self) -> bool {
        let deadline = clock() + DRAIN_MAX;
        self.bell.stay_awake();
        self.resumed.clear();
        self.draining = true;
        self.connections.for_each(|connection| connection.phase = Phase::Closing);
        loop {
            while let Some(entry) = self.reaped.pop_front() {
                drop(self.settle(&entry));
            }
            self.ring.reap(&mut self.reaped);
            if !self.reaped.is_empty() {
                continue;
            }
            if self.ops == 0 {
                return true;
            }
            if clock() > deadline {
                return false;
            }
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
            self.ops += 1;
            // SAFETY: points to no memory and to no descriptor.
            unsafe { self.ring.push(&cancel.user_data(Token::CancelAll.encode())) };
            if self.ring.submit_and_sleep(Some(Duration::from_millis(10))).is_err() {
                return false;
            }
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if self.drain() {
            // Now, because doorbells may keep the ring alive: so that a device opened exclusively
            // can be opened again, and locked memory is given back. It cannot fail in a way that
            // matters, since nothing is in flight.
            let submitter = self.ring.submitter();
            let _ = submitter.unregister_files();
            let _ = submitter.unregister_buffers();
            let _ = submitter.unregister_buf_ring(RECV_GROUP);
            return;
        }
        // The kernel may still write: what it knows of must outlive the process instead.
        self.leak();
    }
}

fn outcome(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

/// Not a failure of the socket: try again.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED | libc::ECONNABORTED)
    )
}

#[expect(clippy::disallowed_methods, reason = "bounds the wait of a drop, which has no argument")]
fn clock() -> Instant {
    Instant::now()
}
