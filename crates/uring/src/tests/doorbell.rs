use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use super::{Recorder, tight};
use crate::{
    CloseReason, ConnId, DiskDone, Doorbell, Handler, Io, ListenerId, Reactor, ReactorConfig,
    spawn_pinned,
};

/// A turn that lasts as long as this with a message in the inbox has lost a wake.
const LOST: Duration = Duration::from_secs(5);

type Queue = Arc<ArrayQueue<u64>>;

struct Inbox(Queue);

impl Handler for Inbox {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, _: ConnId, _: SocketAddr) {}
    fn received(&mut self, _: &mut Io, _: ConnId, _: &[u8]) {}
    fn sent(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, _: ConnId, _: CloseReason) {}
    fn disk(&mut self, _: &mut Io, _: DiskDone) {}

    fn has_work(&mut self) -> bool {
        !self.0.is_empty()
    }
}

fn turn(reactor: &mut Reactor, inbox: &mut Inbox) {
    let deadline = Instant::now() + LOST;
    reactor.turn(Some(deadline), inbox).unwrap();
    assert!(inbox.0.is_empty() || reactor.now() < deadline, "a wake was lost");
}

/// Sends `0..count` while it receives the peer's; both start together.
fn exchange(
    spin: Duration,
    inbox: &Queue,
    outbox: &Queue,
    count: u64,
    swap: impl FnOnce(Doorbell) -> Doorbell,
) {
    let config = ReactorConfig { spin, ..tight() };
    let mut reactor = Reactor::new(&config).unwrap();
    let peer = swap(reactor.doorbell());
    let mut inbox = Inbox(Arc::clone(inbox));
    let (mut sent, mut received) = (0, 0);
    while received < count || sent < count {
        while let Some(message) = inbox.0.pop() {
            assert_eq!(message, received);
            received += 1;
        }
        // One ahead at most: each side sleeps between messages as often as can be.
        while sent < count && sent <= received && outbox.push(sent).is_ok() {
            sent += 1;
            reactor.io().ring(&peer);
        }
        if received < count {
            turn(&mut reactor, &mut inbox);
        }
    }
    // The last ring is in the queue still.
    while reactor.io().requests_in_flight() > 1 {
        reactor.turn(Some(Instant::now()), &mut inbox).unwrap();
    }
}

fn two_reactors(spin: Duration, count: u64) {
    let queues: [Queue; 2] = std::array::from_fn(|_| Arc::new(ArrayQueue::new(64)));
    let ready = Arc::new(Barrier::new(2));
    let (bell_a, bell_b) = (channel(), channel());
    let sides = [(0, bell_a.0, bell_b.1), (1, bell_b.0, bell_a.1)];
    let threads = sides.map(|(side, tell, told)| {
        let (inbox, outbox) = (Arc::clone(&queues[side]), Arc::clone(&queues[1 - side]));
        let ready = Arc::clone(&ready);
        spawn_pinned("side", None, move || {
            exchange(spin, &inbox, &outbox, count, |bell| {
                tell.send(bell).unwrap();
                told.recv().unwrap()
            });
            ready.wait();
        })
        .unwrap()
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn no_wake_is_lost_between_reactors_that_sleep_at_once() {
    two_reactors(Duration::ZERO, 50_000);
}

#[test]
fn no_wake_is_lost_between_reactors_that_spin_a_little() {
    two_reactors(Duration::from_micros(5), 100_000);
}

#[test]
fn no_wake_is_lost_from_plain_threads() {
    const PER_THREAD: u64 = 50_000;
    let queue: Queue = Arc::new(ArrayQueue::new(16));
    let (tell, told) = channel::<Doorbell>();
    let receiver = {
        let mut inbox = Inbox(Arc::clone(&queue));
        spawn_pinned("receiver", None, move || {
            let mut reactor = Reactor::new(&tight()).unwrap();
            tell.send(reactor.doorbell()).unwrap();
            let mut sum = 0;
            let mut count = 0;
            while count < 2 * PER_THREAD {
                while let Some(message) = inbox.0.pop() {
                    sum += message;
                    count += 1;
                }
                if count < 2 * PER_THREAD {
                    turn(&mut reactor, &mut inbox);
                }
            }
            sum
        })
        .unwrap()
    };
    let bell = told.recv().unwrap();
    let senders = [0, 1].map(|_| {
        let (queue, bell) = (Arc::clone(&queue), bell.clone());
        spawn_pinned("sender", None, move || {
            for message in 0..PER_THREAD {
                while queue.push(message).is_err() {
                    std::thread::yield_now();
                }
                bell.ring();
            }
        })
        .unwrap()
    });
    for sender in senders {
        sender.join().unwrap();
    }
    assert_eq!(receiver.join().unwrap(), PER_THREAD * (PER_THREAD - 1));
    // The reactor has gone: nobody to wake.
    bell.ring();
}

#[test]
fn a_deadline_ends_a_sleep_and_the_core_did_sleep() {
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let deadline = Instant::now() + Duration::from_millis(60);
    let mut turns = 0;
    while reactor.now() < deadline {
        reactor.turn(Some(deadline), &mut recorder).unwrap();
        turns += 1;
    }
    assert!(turns < 50, "{turns} turns: it did not sleep");
    // A deadline in the past does not sleep at all.
    reactor.turn(Some(deadline), &mut recorder).unwrap();
}
