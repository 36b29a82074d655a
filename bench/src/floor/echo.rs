//! (a): the least that answers requests over TCP: receive, reply, spinning.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;

/// A running echo server.
pub(super) struct Echo {
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Echo {
    /// On core 0: answers each `request_size` bytes with `reply`, the request's correlation id in
    /// it. Serves one connection.
    pub(super) fn start(request_size: usize, reply: &Bytes) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut reply) = (Arc::clone(&stop), reply.to_vec());
        let thread = uring::spawn_pinned("echo", Some(0), move || {
            serve(&listener, request_size, &mut reply, &stopped)
        })?;
        Ok(Self { address, stop, thread })
    }

    pub(super) fn stop(self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the echo server panicked"))?
    }
}

fn serve(
    listener: &TcpListener,
    request_size: usize,
    reply: &mut [u8],
    stop: &AtomicBool,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                rustix::thread::sched_yield();
            }
            Err(error) => return Err(error),
        }
    };
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let (mut request, mut got) = (vec![0; request_size], 0);
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut request[got..]) {
            Ok(0) => return Ok(()),
            Ok(len) => got += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                rustix::thread::sched_yield();
            }
            Err(error) => return Err(error),
        }
        if got == request_size {
            reply[4..8].copy_from_slice(&request[8..12]);
            // Replies are small: the socket's buffer takes them.
            stream.write_all(reply)?;
            got = 0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::client;
    use crate::kafka::{Requests, Workload, canned_reply};
    use crate::load::{self, Plan};
    use crate::open_loop::Rate;
    use std::collections::BTreeMap;

    fn workload() -> Workload {
        let topic = "t".to_owned();
        Workload { topic, partitions: 1, record_size: 1024, batch_records: 1, acks: -1 }
    }

    fn plan() -> Plan {
        Plan {
            connections: 1,
            rate: Rate::of_records(2000, 1),
            warmup_ns: 10_000_000,
            measured_ns: 100_000_000,
            in_flight_max: 64,
        }
    }

    fn echo() -> Echo {
        let requests = Requests::new(&workload(), &[0]).unwrap();
        Echo::start(requests.size(), &canned_reply("t")).unwrap()
    }

    #[test]
    fn the_spinning_client_and_the_echo_understand_each_other() {
        let echo = echo();
        let leaders = BTreeMap::from([(echo.address, vec![0])]);
        let mut lane = load::lanes(&plan(), &workload(), &leaders).unwrap().remove(0);
        let measured = client::run(echo.address, &mut lane.requests, lane.schedule);
        echo.stop().unwrap();
        let outcome = measured.unwrap().outcome;
        assert_eq!((outcome.answered, outcome.unanswered, outcome.errors), (200, 0, 0));
    }

    #[test]
    fn executors_send_the_whole_schedule_spinning_or_not() {
        for spins in [true, false] {
            let echo = echo();
            let leaders = BTreeMap::from([(echo.address, vec![0])]);
            let lanes = load::lanes(&plan(), &workload(), &leaders).unwrap();
            let outcomes = load::run(lanes, &[0], spins).unwrap();
            echo.stop().unwrap();
            let outcome = &outcomes[0].outcome;
            assert_eq!((outcome.answered, outcome.unanswered, outcome.errors), (200, 0, 0));
        }
    }
}
