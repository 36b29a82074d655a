use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;

use super::{Recorder, TempPath, pattern, tight, turn_until};
use crate::{
    AlignedBuf, CloseReason, ConnId, DeviceFile, DiskDone, Handler, Io, ListenerId, OpenMode,
    Reactor,
};

#[test]
fn dropped_with_everything_in_flight() {
    let path = TempPath::new("dropped");
    let device = DeviceFile::open(&path.0, OpenMode::Create).unwrap();
    for round in 0..20 {
        let mut reactor = Reactor::new(&tight()).unwrap();
        let mut recorder = Recorder::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        reactor.io().listen(listener).unwrap();
        let mut peer = TcpStream::connect(address).unwrap();
        turn_until(&mut reactor, &mut recorder, "accept", |_, seen| !seen.accepted.is_empty());
        // One more that nobody has accepted, and one whose accept is reaped by the drop.
        let _unseen = TcpStream::connect(address).unwrap();
        let conn = recorder.accepted[0];
        reactor.io().send(conn, (0..80).map(|at| Bytes::from(pattern(at, 100_000))));
        let file = reactor.io().register_file(device.file().unwrap()).unwrap();
        for token in 0..40 {
            let buf = reactor.io().take_buffer(8192);
            reactor.io().write(file, token, token * 8192, buf, 8192, true);
        }
        // A slot that is used after the reactor has gone.
        if round % 2 == 0 {
            reactor.turn(None, &mut recorder).unwrap();
        }
        let bell = reactor.doorbell();
        drop(reactor);
        bell.ring();
        for done in &mut recorder.disk {
            done.buf.fill(1);
        }
        // The end is seen by the peer: the socket was closed, not leaked.
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest);
    }
}

#[test]
fn a_slot_outlives_its_reactor() {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut slot = reactor.io().take_buffer(4096);
    assert!(slot.is_registered());
    drop(reactor);
    slot.fill(7);
    assert!(slot.iter().all(|byte| *byte == 7));
}

struct Panics;

impl Handler for Panics {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, _: ConnId, _: SocketAddr) {}
    fn received(&mut self, _: &mut Io, _: ConnId, _: &[u8]) {
        panic!("as planned by the test");
    }
    fn sent(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, _: ConnId, _: CloseReason) {}
    fn disk(&mut self, _: &mut Io, _: DiskDone) {}
    fn has_work(&mut self) -> bool {
        false
    }
}

#[test]
fn a_handler_that_panics_leaves_a_reactor_that_works() {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    reactor.io().adopt(listener.accept().unwrap().0).unwrap();
    // More than the buffers together: each must come back.
    for _ in 0..12 {
        std::io::Write::write_all(&mut peer, &pattern(1, 512)).unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..1000 {
                let deadline = reactor.now() + Duration::from_secs(1);
                reactor.turn(Some(deadline), &mut Panics).unwrap();
            }
        }));
        assert!(caught.is_err());
    }
    drop(reactor);
}

/// Swaps the insides of two reactors in the middle of a callback: safe code may.
struct Swaps(Reactor);

impl Handler for Swaps {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, _: ConnId, _: SocketAddr) {}
    fn received(&mut self, io: &mut Io, _: ConnId, bytes: &[u8]) {
        std::mem::swap(io, self.0.io());
        assert!(bytes == pattern(1, bytes.len()));
    }
    fn sent(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, _: ConnId, _: CloseReason) {}
    fn disk(&mut self, _: &mut Io, _: DiskDone) {}
    fn has_work(&mut self) -> bool {
        false
    }
}

#[test]
fn swapped_insides_take_their_memory_along() {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut handler = Swaps(Reactor::new(&tight()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    reactor.io().adopt(listener.accept().unwrap().0).unwrap();
    std::io::Write::write_all(&mut peer, &pattern(1, 512)).unwrap();
    for _ in 0..5 {
        let deadline = reactor.now() + Duration::from_millis(20);
        reactor.turn(Some(deadline), &mut handler).unwrap();
    }
    drop(reactor);
    let buf: AlignedBuf = handler.0.io().take_buffer(16);
    drop(handler);
    assert_eq!(buf.len(), 16);
}
