//! One connection's state and the bytes that wait to be sent on it. No system calls.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::ptr;

use bytes::{Buf, Bytes};

/// Pieces that one send hands to the kernel.
const PIECES_PER_SEND_MAX: usize = 64;

/// Bytes that one send hands to the kernel, which takes some 15 us to copy them.
pub(crate) const BYTES_PER_SEND_MAX: usize = 32 << 10;

/// Why a connection ended without `Io::close`.
#[derive(Debug)]
pub enum CloseReason {
    /// The peer closed its side.
    PeerClosed,
    /// Receiving or sending failed, for example because the peer reset the connection.
    Error(io::Error),
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) phase: Phase,
    pub(crate) recv: Recv,
    pub(crate) paused: bool,
    /// Received while paused, handed on after `resume`, before anything newer.
    pub(crate) held: Vec<u8>,
    /// The end that follows `held`.
    pub(crate) held_end: Option<CloseReason>,
    pub(crate) out: SendQueue,
    /// Listed for a send at the next submission.
    pub(crate) dirty: bool,
    /// Requests in the kernel or on their way; the slot and the socket live until it is 0.
    pub(crate) ops: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Open,
    /// Sends what is queued, then closes; what arrives is dropped.
    Draining,
    /// Everything is sent; waits a little for the peer to close, so that bytes which it is still
    /// sending do not turn our close into a reset that destroys the last reply on its way.
    Lingering,
    /// Dead to the outside; waits for its requests to end.
    Closing,
}

/// The multishot receive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Recv {
    Idle,
    Armed,
    Cancelling,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            phase: Phase::Open,
            recv: Recv::Idle,
            paused: false,
            held: Vec::new(),
            held_end: None,
            out: SendQueue::new(),
            dirty: false,
            ops: 0,
        }
    }

    /// What arrives now must wait: for `resume`, or for what was held before it.
    pub(crate) fn holds(&self) -> bool {
        self.paused || !self.held.is_empty()
    }
}

/// Bytes to send, in order. The pieces of the send in flight are the first `in_flight` of them and
/// stay untouched until [`SendQueue::finish`].
pub(crate) struct SendQueue {
    pieces: VecDeque<Bytes>,
    unsent: usize,
    in_flight: usize,
    vector: Option<Box<Vector>>,
}

/// What a vectored send points to; boxed, so that it stays where the kernel was told.
struct Vector {
    message: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

/// What the kernel is to send.
pub(crate) enum SendSource {
    One { start: *const u8, len: u32 },
    Many(*const libc::msghdr),
}

impl SendQueue {
    const fn new() -> Self {
        Self { pieces: VecDeque::new(), unsent: 0, in_flight: 0, vector: None }
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.unsent += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Bytes queued or in flight.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Starts a send of the first pieces, unless there are none or one is in flight. What the
    /// result points to stays valid and unchanged until `finish`.
    pub(crate) fn start(&mut self) -> Option<SendSource> {
        if self.in_flight > 0 {
            return None;
        }
        let first = self.pieces.front()?;
        if self.pieces.len() == 1 || first.len() >= BYTES_PER_SEND_MAX {
            let len = u32::try_from(first.len().min(BYTES_PER_SEND_MAX)).ok()?;
            self.in_flight = 1;
            return Some(SendSource::One { start: first.as_ptr(), len });
        }
        let vector = self.vector.get_or_insert_with(Vector::new);
        let mut room = BYTES_PER_SEND_MAX;
        vector.pieces.clear();
        for piece in self.pieces.iter().take(PIECES_PER_SEND_MAX) {
            let len = piece.len().min(room);
            if len == 0 {
                break;
            }
            room -= len;
            let base = piece.as_ptr().cast_mut().cast();
            vector.pieces.push(libc::iovec { iov_base: base, iov_len: len });
        }
        self.in_flight = vector.pieces.len();
        vector.message.msg_iov = vector.pieces.as_mut_ptr();
        vector.message.msg_iovlen = vector.pieces.len();
        Some(SendSource::Many(&raw const vector.message))
    }

    /// The send in flight has ended after `sent` bytes.
    pub(crate) fn finish(&mut self, mut sent: usize) {
        self.in_flight = 0;
        self.unsent = self.unsent.saturating_sub(sent);
        while let Some(piece) = self.pieces.front_mut() {
            if sent < piece.len() {
                piece.advance(sent);
                return;
            }
            sent -= piece.len();
            self.pieces.pop_front();
        }
    }

    /// Drops everything that the kernel does not hold.
    pub(crate) fn abandon(&mut self) {
        self.pieces.truncate(self.in_flight);
        self.unsent = 0;
    }
}

impl Vector {
    fn new() -> Box<Self> {
        let message = libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Box::new(Self { message, pieces: Vec::with_capacity(PIECES_PER_SEND_MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the kernel: takes up to `take` bytes of a send.
    fn kernel_sends(source: &SendSource, take: usize) -> Vec<u8> {
        let vector = match *source {
            SendSource::One { start, len } => vec![(start, len as usize)],
            SendSource::Many(message) => {
                // SAFETY: points to the queue's message, which lives until `finish`.
                let message = unsafe { &*message };
                // SAFETY: the queue's vector of that many entries.
                let pieces =
                    unsafe { std::slice::from_raw_parts(message.msg_iov, message.msg_iovlen) };
                assert!(pieces.len() <= PIECES_PER_SEND_MAX);
                pieces
                    .iter()
                    .map(|piece| (piece.iov_base.cast_const().cast(), piece.iov_len))
                    .collect()
            }
        };
        let mut sent = Vec::new();
        for (start, len) in vector {
            // SAFETY: a piece of the queue, unchanged until `finish`.
            sent.extend_from_slice(unsafe { std::slice::from_raw_parts(start, len) });
        }
        sent.truncate(take);
        sent
    }

    #[test]
    fn every_split_of_a_send_gives_the_same_bytes() {
        for take in 1..40 {
            let mut queue = SendQueue::new();
            let mut expected = Vec::new();
            for at in 0..130_u8 {
                let piece = vec![at; usize::from(at % 5)];
                expected.extend_from_slice(&piece);
                queue.push(Bytes::from(piece));
            }
            let mut sent = Vec::new();
            while let Some(source) = queue.start() {
                assert!(queue.is_in_flight() && queue.start().is_none());
                // Pushed while in flight: must not move what the kernel reads.
                if sent.len() == take {
                    queue.push(Bytes::from_static(b"late"));
                    expected.extend_from_slice(b"late");
                }
                let part = kernel_sends(&source, take);
                sent.extend_from_slice(&part);
                queue.finish(part.len());
                assert_eq!(queue.unsent(), expected.len() - sent.len());
            }
            assert!(queue.is_empty());
            assert_eq!(sent, expected, "by {take}");
        }
    }

    #[test]
    fn what_the_kernel_holds_survives_a_close() {
        let mut queue = SendQueue::new();
        for at in 0..100 {
            queue.push(Bytes::from(vec![at; 10]));
        }
        let source = queue.start().expect("there is something");
        queue.abandon();
        assert_eq!(queue.unsent(), 0);
        assert_eq!(kernel_sends(&source, 640)[630..], [63; 10]);
        queue.finish(0);
        queue.abandon();
        assert!(queue.is_empty());
    }
}
