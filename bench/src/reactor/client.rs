//! The client: one request at a time, spinning, so that its own wake-up is not in the figures.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::report::Percentiles;

/// Bytes of a request and of its reply.
pub(super) const REQUEST_SIZE: usize = 100;

/// Not counted: caches, the server's first accept.
const WARM_UP: Duration = Duration::from_millis(100);

/// A reply that takes longer than this will not come.
const REPLY_MAX: Duration = Duration::from_secs(10);

pub(super) fn measure(address: SocketAddr, time: Duration) -> io::Result<Percentiles> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut histogram =
        Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?;
    let started = clock();
    let mut now = started;
    while now - started < WARM_UP + time {
        let sent = clock();
        stream.write_all(&[7; REQUEST_SIZE])?;
        now = reply(&mut stream, sent)?;
        if now - started > WARM_UP {
            let nanos = u64::try_from((now - sent).as_nanos()).map_err(io::Error::other)?;
            histogram.record(nanos).map_err(io::Error::other)?;
        }
    }
    Ok(Percentiles::of(&histogram))
}

/// When the whole reply was there.
fn reply(stream: &mut TcpStream, sent: Instant) -> io::Result<Instant> {
    let mut bytes = [0; REQUEST_SIZE];
    let mut got = 0;
    loop {
        match stream.read(&mut bytes[got..]) {
            Ok(0) => return Err(io::Error::other("the server closed the connection")),
            Ok(len) => got += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let now = clock();
        if got == REQUEST_SIZE {
            return Ok(now);
        }
        if now - sent > REPLY_MAX {
            return Err(io::Error::other("no reply for 10 s"));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the client's clock is what is measured with")]
fn clock() -> Instant {
    Instant::now()
}
