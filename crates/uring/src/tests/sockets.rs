use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::{Recorder, pattern, tight, turn_for, turn_until};
use crate::connection::BYTES_PER_SEND_MAX;
use crate::io::KERNEL_UNSENT_MAX;
use crate::{CloseReason, ConnId, Reactor, ReactorConfig, spawn_pinned};

fn listen(reactor: &mut Reactor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    reactor.io().listen(listener).unwrap();
    address
}

#[test]
fn who_connects_after_the_end_of_listening_is_refused_and_who_is_connected_stays() {
    let mut reactor = Reactor::new(&ReactorConfig::default()).unwrap();
    let mut recorder = Recorder::default();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = reactor.io().listen(socket).unwrap();
    let (conn, mut peer) = connect(&mut reactor, &mut recorder, address);
    reactor.io().stop_listening(listener);
    reactor.io().stop_listening(listener);
    turn_for(&mut reactor, &mut recorder, Duration::from_millis(150));
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    peer.write_all(b"still here").unwrap();
    turn_until(&mut reactor, &mut recorder, "bytes", |_, seen| seen.bytes(conn) == b"still here");
}

/// A connected pair: our id and the peer's socket.
fn connect(reactor: &mut Reactor, recorder: &mut Recorder, to: SocketAddr) -> (ConnId, TcpStream) {
    let before = recorder.accepted.len();
    let peer = TcpStream::connect(to).unwrap();
    turn_until(reactor, recorder, "accept", |_, seen| seen.accepted.len() > before);
    (recorder.accepted[before], peer)
}

fn thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn_pinned("test", None, f).unwrap()
}

/// Reads so many bytes and tells whether they are those of `pattern(0, len)`.
fn reads_pattern(mut peer: TcpStream, len: usize) -> JoinHandle<(TcpStream, bool)> {
    thread(move || {
        let mut got = vec![0; len];
        peer.read_exact(&mut got).unwrap();
        (peer, got == pattern(0, len))
    })
}

fn echoes_everything(config: ReactorConfig, connections: usize, len: usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, told) = std::sync::mpsc::channel();
    let server = {
        let stop = Arc::clone(&stop);
        thread(move || {
            let mut reactor = Reactor::new(&config).unwrap();
            let mut recorder = Recorder { echo: true, ..Recorder::default() };
            tell.send((listen(&mut reactor), reactor.doorbell())).unwrap();
            while !stop.load(Ordering::Relaxed) {
                reactor.turn(None, &mut recorder).unwrap();
            }
            assert_eq!(recorder.closed.len(), connections);
            recorder.accepted.len()
        })
    };
    let (address, bell) = told.recv().unwrap();
    let clients: Vec<_> = (0..connections)
        .map(|seed| {
            thread(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let mut sending = stream.try_clone().unwrap();
                let writer = thread(move || sending.write_all(&pattern(seed, len)).unwrap());
                let mut echo = vec![0; len];
                stream.read_exact(&mut echo).unwrap();
                writer.join().unwrap();
                assert!(echo == pattern(seed, len), "connection {seed} got other bytes back");
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut echo).unwrap(), 0);
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    // The flag is no inbox that `has_work` looks at, so ring until it was seen.
    while !server.is_finished() {
        bell.ring();
        std::thread::yield_now();
    }
    assert_eq!(server.join().unwrap(), connections);
}

#[test]
fn echoes_large_payloads_of_many_connections() {
    echoes_everything(ReactorConfig::default(), 24, 1 << 20);
}

#[test]
fn echoes_with_too_few_buffers_and_entries() {
    echoes_everything(tight(), 24, 100_000);
}

#[test]
fn one_send_of_many_pieces_arrives_in_order_and_is_reported_once() {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let address = listen(&mut reactor);
    let (conn, mut peer) = connect(&mut reactor, &mut recorder, address);
    // More pieces than one send takes, more bytes than the socket does, empty pieces between.
    let pieces: Vec<Bytes> = (0..300)
        .map(|at| Bytes::from(pattern(at, if at % 7 == 0 { 0 } else { at * 150 })))
        .collect();
    let expected: Vec<u8> = pieces.concat();
    reactor.io().send(conn, pieces);
    assert_eq!(reactor.io().unsent(conn), expected.len());
    let reader = thread(move || {
        let mut got = vec![0; expected.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == expected);
        peer
    });
    turn_until(&mut reactor, &mut recorder, "sent", |_, seen| !seen.sent.is_empty());
    let _peer = reader.join().unwrap();
    assert_eq!(recorder.sent, [conn]);
    assert!(recorder.closed.is_empty());
}

#[test]
fn what_is_small_does_not_wait_for_what_is_large() {
    const LARGE: usize = 8 << 20;
    let mut reactor = Reactor::new(&ReactorConfig::default()).unwrap();
    let mut recorder = Recorder::default();
    let address = listen(&mut reactor);
    let pairs = [(); 4].map(|()| connect(&mut reactor, &mut recorder, address));
    let conns = pairs.each_ref().map(|(conn, _)| *conn);
    let lens = [LARGE, LARGE, LARGE, 10];
    let readers = pairs.into_iter().zip(lens).map(|((_, peer), len)| reads_pattern(peer, len));
    let readers: Vec<_> = readers.collect();
    for conn in &conns[..3] {
        reactor.io().send(*conn, [Bytes::from(pattern(0, LARGE))]);
    }
    reactor.io().send(conns[3], [Bytes::from(pattern(0, 10))]);
    let mut turns = 0;
    turn_until(&mut reactor, &mut recorder, "the small one", |_, seen| {
        turns += 1;
        !seen.sent.is_empty()
    });
    assert_eq!(recorder.sent, [conns[3]]);
    // One large send begins in each turn, and of each connection one may end that had to wait.
    let sent = 3 * LARGE - conns[..3].iter().map(|conn| reactor.io().unsent(*conn)).sum::<usize>();
    assert!(sent <= turns * 4 * BYTES_PER_SEND_MAX, "{sent} bytes in {turns} turns");
    turn_until(&mut reactor, &mut recorder, "the large ones", |_, seen| seen.sent.len() == 4);
    for reader in readers {
        let (_peer, same) = reader.join().unwrap();
        assert!(same);
    }
}

/// Bytes that the kernel has taken and not sent yet, of the one connection of a reactor.
fn not_sent(reactor: &mut Reactor) -> usize {
    // <linux/sockios.h>
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    let io = reactor.io();
    let slot = io.connections.refs()[0];
    let socket = io.connections.get(slot).unwrap().stream.as_raw_fd();
    let mut count: libc::c_int = 0;
    // SAFETY: the socket is open, and the request writes one `int`.
    assert_eq!(unsafe { libc::ioctl(socket, SIOCOUTQNSD, &raw mut count) }, 0);
    usize::try_from(count).unwrap()
}

#[test]
fn the_kernel_takes_little_that_a_peer_is_not_sent() {
    const LARGE: usize = 16 << 20;
    let mut reactor = Reactor::new(&ReactorConfig::default()).unwrap();
    let mut recorder = Recorder::default();
    let address = listen(&mut reactor);
    let (conn, peer) = connect(&mut reactor, &mut recorder, address);
    reactor.io().send(conn, [Bytes::from(pattern(0, LARGE))]);
    let mut not_sent_max = 0;
    for _ in 0..1000 {
        let soon = reactor.now() + Duration::from_micros(10);
        reactor.turn(Some(soon), &mut recorder).unwrap();
        not_sent_max = not_sent_max.max(not_sent(&mut reactor));
    }
    // The peer reads nothing: what it has room for is sent, and then no more.
    let bound = KERNEL_UNSENT_MAX as usize + BYTES_PER_SEND_MAX;
    assert!((1..=bound).contains(&not_sent_max), "{not_sent_max} bytes");
    let reader = reads_pattern(peer, LARGE);
    turn_until(&mut reactor, &mut recorder, "the rest", |_, seen| seen.sent == [conn]);
    let (_peer, same) = reader.join().unwrap();
    assert!(same);
}

#[test]
fn nothing_is_received_while_paused_and_nothing_is_lost() {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let address = listen(&mut reactor);
    let (conn, mut peer) = connect(&mut reactor, &mut recorder, address);
    let sent = pattern(5, 200_000);
    let writer = {
        let sent = sent.clone();
        thread(move || peer.write_all(&sent).unwrap())
    };
    for _ in 0..20 {
        let before = recorder.received.len();
        turn_until(&mut reactor, &mut recorder, "bytes", |_, seen| seen.received.len() > before);
        reactor.io().pause(conn);
        let paused_at = recorder.received.len();
        turn_for(&mut reactor, &mut recorder, Duration::from_millis(3));
        assert_eq!(recorder.received.len(), paused_at, "received while paused");
        reactor.io().resume(conn);
        // At once again: the cancellation of the first pause is still on its way.
        reactor.io().pause(conn);
        reactor.io().resume(conn);
    }
    turn_until(&mut reactor, &mut recorder, "the end", |_, seen| !seen.closed.is_empty());
    writer.join().unwrap();
    assert!(recorder.bytes(conn) == sent, "bytes lost or out of order");
    assert!(matches!(recorder.closed[0], (of, CloseReason::PeerClosed) if of == conn));
}

#[test]
fn an_end_during_a_pause_follows_the_bytes_before_it() {
    let mut reactor = Reactor::new(&ReactorConfig::default()).unwrap();
    let mut recorder = Recorder::default();
    let address = listen(&mut reactor);
    let (conn, mut peer) = connect(&mut reactor, &mut recorder, address);
    peer.write_all(&pattern(1, 5000)).unwrap();
    drop(peer);
    // Not submitted or reaped yet: bytes and end are in the batch that the pause must hold back.
    reactor.io().pause(conn);
    turn_for(&mut reactor, &mut recorder, Duration::from_millis(20));
    assert!(recorder.received.is_empty() && recorder.closed.is_empty());
    reactor.io().resume(conn);
    turn_until(&mut reactor, &mut recorder, "the end", |_, seen| !seen.closed.is_empty());
    assert!(recorder.bytes(conn) == pattern(1, 5000));
}

#[test]
fn a_close_with_sends_pending_frees_the_slot_and_the_id_stays_dead() {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let address = listen(&mut reactor);
    let idle = reactor.io().requests_in_flight();
    let (first, peer) = connect(&mut reactor, &mut recorder, address);
    reactor.io().send(first, (0..64).map(|at| Bytes::from(pattern(at, 1 << 20))));
    turn_for(&mut reactor, &mut recorder, Duration::from_millis(20));
    assert!(reactor.io().unsent(first) > 0, "the peer does not read");
    reactor.io().close(first);
    reactor.io().close(first);
    assert_eq!(reactor.io().unsent(first), 0);
    turn_until(&mut reactor, &mut recorder, "requests end", |io, _| {
        io.requests_in_flight() == idle
    });
    assert!(recorder.closed.is_empty(), "closed by us, not reported");
    drop(peer);

    let (second, mut peer) = connect(&mut reactor, &mut recorder, address);
    assert_ne!(first, second);
    assert_eq!(first.slot().index, second.slot().index, "the slot is used again");
    reactor.io().send(first, [Bytes::from_static(b"to the dead")]);
    reactor.io().pause(first);
    reactor.io().close(first);
    reactor.io().close_after_send(first);
    peer.write_all(b"alive").unwrap();
    turn_until(&mut reactor, &mut recorder, "bytes", |_, seen| seen.bytes(second) == b"alive");
    reactor.io().send(second, [Bytes::from_static(b"yes")]);
    turn_until(&mut reactor, &mut recorder, "sent", |_, seen| seen.sent.contains(&second));
    let mut got = [0; 3];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"yes");
}

#[test]
fn close_after_send_delivers_everything_then_ends() {
    drains(false);
}

#[test]
fn close_after_send_delivers_everything_to_a_peer_that_only_reads() {
    drains(true);
}

fn drains(half_closed: bool) {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let address = listen(&mut reactor);
    let idle = reactor.io().requests_in_flight();
    let (conn, mut peer) = connect(&mut reactor, &mut recorder, address);
    peer.write_all(&pattern(2, 50_000)).unwrap();
    if half_closed {
        peer.shutdown(Shutdown::Write).unwrap();
    }
    reactor.io().send(conn, [Bytes::from(pattern(3, 5_000_000))]);
    reactor.io().close_after_send(conn);
    reactor.io().send(conn, [Bytes::from_static(b"too late")]);
    let reader = thread(move || {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        got
    });
    turn_until(&mut reactor, &mut recorder, "requests end", |io, _| {
        io.requests_in_flight() == idle && io.unsent(conn) == 0
    });
    assert!(reader.join().unwrap() == pattern(3, 5_000_000));
    assert!(recorder.sent.is_empty() && recorder.closed.is_empty() && recorder.received.is_empty());
}

#[test]
fn a_peer_that_does_not_close_is_not_waited_for_long() {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let address = listen(&mut reactor);
    let idle = reactor.io().requests_in_flight();
    let (first, mut peer) = connect(&mut reactor, &mut recorder, address);
    let (second, other_peer) = connect(&mut reactor, &mut recorder, address);
    reactor.io().send(first, [Bytes::from_static(b"bye")]);
    reactor.io().close_after_send(first);
    reactor.io().close_after_send(second);
    let mut got = Vec::new();
    turn_for(&mut reactor, &mut recorder, Duration::from_millis(50));
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"bye");
    turn_until(&mut reactor, &mut recorder, "requests end", |io, _| {
        io.requests_in_flight() == idle
    });
    assert!(recorder.closed.is_empty() && recorder.sent.is_empty());
    drop((peer, other_peer));
}

#[test]
fn a_reset_is_reported_once_with_sends_pending_or_paused() {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let address = listen(&mut reactor);
    let idle = reactor.io().requests_in_flight();
    for paused in [false, true] {
        let (conn, peer) = connect(&mut reactor, &mut recorder, address);
        if paused {
            reactor.io().pause(conn);
        }
        reactor.io().send(conn, [Bytes::from(pattern(3, 64 << 20))]);
        turn_for(&mut reactor, &mut recorder, Duration::from_millis(10));
        rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        turn_until(&mut reactor, &mut recorder, "the end", |io, seen| {
            seen.closed.iter().any(|(of, _)| *of == conn) && io.requests_in_flight() == idle
        });
        assert!(matches!(recorder.closed.last(), Some((_, CloseReason::Error(_)))));
    }
}
