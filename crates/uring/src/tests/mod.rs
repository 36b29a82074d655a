//! The reactor against real sockets, files and threads.

mod disk;
mod doorbell;
mod read_ahead;
mod sockets;
mod teardown;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{CloseReason, ConnId, DiskDone, Handler, Io, ListenerId, Reactor, ReactorConfig};

/// Records what happens, echoes if told to.
#[derive(Default)]
struct Recorder {
    echo: bool,
    accepted: Vec<ConnId>,
    received: Vec<(ConnId, Vec<u8>)>,
    sent: Vec<ConnId>,
    closed: Vec<(ConnId, CloseReason)>,
    disk: Vec<DiskDone>,
}

impl Recorder {
    fn bytes(&self, conn: ConnId) -> Vec<u8> {
        let of_conn = self.received.iter().filter(|(of, _)| *of == conn);
        of_conn.flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }
}

impl Handler for Recorder {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, conn: ConnId, peer: SocketAddr) {
        assert!(peer.ip().is_loopback());
        self.accepted.push(conn);
    }

    fn received(&mut self, io: &mut Io, conn: ConnId, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        if self.echo {
            io.send(conn, [bytes::Bytes::copy_from_slice(bytes)]);
        } else {
            self.received.push((conn, bytes.to_vec()));
        }
    }

    fn sent(&mut self, io: &mut Io, conn: ConnId) {
        assert_eq!(io.unsent(conn), 0);
        self.sent.push(conn);
    }

    fn closed(&mut self, _: &mut Io, conn: ConnId, reason: CloseReason) {
        assert!(self.closed.iter().all(|(of, _)| *of != conn), "closed twice");
        self.closed.push((conn, reason));
    }

    fn disk(&mut self, _: &mut Io, done: DiskDone) {
        self.disk.push(done);
    }

    fn has_work(&mut self) -> bool {
        false
    }
}

/// Turns until `done`; panics if nothing comes of it.
fn turn_until(
    reactor: &mut Reactor,
    recorder: &mut Recorder,
    what: &str,
    mut done: impl FnMut(&mut Io, &Recorder) -> bool,
) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !done(reactor.io(), recorder) {
        assert!(Instant::now() < give_up, "waited 30 s for: {what}");
        let deadline = Instant::now() + Duration::from_millis(20);
        reactor.turn(Some(deadline), recorder).expect("the ring works");
    }
}

/// Turns for a while, for what must not happen.
fn turn_for(reactor: &mut Reactor, recorder: &mut Recorder, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        reactor.turn(Some(end), recorder).expect("the ring works");
    }
}

/// Small enough that queues fill and receive buffers run out.
fn tight() -> ReactorConfig {
    ReactorConfig {
        entries: 8,
        recv_buffer_count: 4,
        recv_buffer_size: 1024,
        spin: Duration::ZERO,
        busy_poll: Duration::ZERO,
        fixed_buffer_count: 2,
        fixed_buffer_size: 8192,
    }
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at.wrapping_mul(31) >> 3) ^ at ^ seed.wrapping_mul(97)) as u8).collect()
}

/// A path under a disk file system, removed with this.
struct TempPath(PathBuf);

impl TempPath {
    fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = format!("tailrace-uring-{}-{count}-{name}", std::process::id());
        Self(PathBuf::from("/var/tmp").join(file))
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
