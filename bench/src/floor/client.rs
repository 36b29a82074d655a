//! The client of the floor: one connection, spinning, the same for the bare echo and the broker.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::BenchError;
use crate::clock::{Clock, Contention};
use crate::kafka::{KafkaError, Replies, Requests, io_error};
use crate::open_loop::{Next, OpenLoop, Schedule};

use super::{IN_FLIGHT_MAX, Measured, REPLY_NANOS_MAX};

/// Runs the load; call it on the client's core.
pub(super) fn run(
    address: SocketAddr,
    requests: &mut Requests,
    schedule: Schedule,
) -> Result<Measured, BenchError> {
    let mut stream = TcpStream::connect(address).map_err(io_error("connect"))?;
    stream.set_nodelay(true).map_err(io_error("set TCP_NODELAY"))?;
    stream.set_nonblocking(true).map_err(io_error("make the socket non-blocking"))?;
    let mut load = OpenLoop::new(schedule, IN_FLIGHT_MAX)?;
    let mut replies = Replies::default();
    let mut bytes = [0; 4096];
    let (clock, contention) = (Clock::start(), Contention::start());
    loop {
        let now = clock.now();
        match load.next(now) {
            Next::Send => {
                let index = load.sent(now);
                send(&mut stream, requests.get(index)).map_err(io_error("send a request"))?;
            }
            Next::Done => break,
            Next::WaitUntil(_) | Next::AwaitReply | Next::Drain => {}
        }
        match stream.read(&mut bytes) {
            Ok(0) => return Err(KafkaError::Closed.into()),
            Ok(len) => replies.push(&bytes[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // As servers do: without it the kernel's threads on this core starve.
                rustix::thread::sched_yield();
                if now > schedule.end_ns.saturating_add(REPLY_NANOS_MAX) {
                    break;
                }
                continue;
            }
            Err(error) => return Err(io_error("read a reply")(error).into()),
        }
        let now = clock.now();
        while let Some(good) = replies.next_reply()? {
            load.replied(now, good);
        }
    }
    match replies.first_error {
        Some(error) => Err(BenchError::Refused { error }),
        None => Ok(Measured::new(load.finish(clock.now()), contention)),
    }
}

/// The few kilobytes in flight fit into the socket's buffer; if not, this spins.
fn send(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                rustix::thread::sched_yield();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
