//! The two servers: the product's reactor, and the bare loop.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use uring::bare::{self, Yardstick};
use uring::{
    CloseReason, ConnId, DeviceFile, DiskDone, FileId, Handler, Io, ListenerId, Reactor,
    ReactorConfig,
};

use super::client::REQUEST_SIZE;
use super::{BLOCK_SIZE, FILE_SIZE, ReactorArgs, RunError, SPIN, io_error};

/// How often an idle server looks at its stop flag.
const STOP_CHECK: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
pub(super) enum Server {
    Product,
    Bare,
}

pub(super) struct Running {
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), RunError>>,
}

impl Server {
    /// Starts it on core 0.
    pub(super) fn start(self, device: &DeviceFile, args: &ReactorArgs) -> io::Result<Running> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let file = device.file()?;
        let (durable, yields) = (args.durable, args.bare_yields);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = uring::spawn_pinned("server", Some(0), move || match self {
            Self::Product => serve(listener, file, durable, &stopped),
            Self::Bare => {
                let yardstick =
                    Yardstick { listener, file, file_size: FILE_SIZE, durable, spin: SPIN, yields };
                bare::serve(yardstick, &stopped).map_err(io_error("run the bare loop"))
            }
        })?;
        Ok(Running { address, stop, thread })
    }
}

impl Running {
    pub(super) fn stop(self) -> Result<(), RunError> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.join().map_err(|_| io::Error::other("the server panicked"));
        joined.map_err(io_error("stop the server"))?
    }
}

fn serve(
    listener: TcpListener,
    file: std::os::fd::OwnedFd,
    durable: bool,
    stop: &AtomicBool,
) -> Result<(), RunError> {
    let config = ReactorConfig { spin: SPIN, ..ReactorConfig::default() };
    let mut reactor = Reactor::new(&config)?;
    let io = reactor.io();
    let file = io.register_file(file).map_err(io_error("register the file"))?;
    io.listen(listener).map_err(io_error("listen"))?;
    let mut service = Service {
        file,
        durable,
        offset: 0,
        next: 0,
        partial: BTreeMap::new(),
        waiting: BTreeMap::new(),
        failed: None,
    };
    while !stop.load(Ordering::Relaxed) {
        let deadline = reactor.now() + STOP_CHECK;
        reactor.turn(Some(deadline), &mut service).map_err(io_error("run the reactor"))?;
        if let Some(error) = service.failed.take() {
            return Err(io_error("write to the file")(error));
        }
    }
    Ok(())
}

/// What a shard does to a produce request, without Kafka and raft: collect, write, reply.
struct Service {
    file: FileId,
    durable: bool,
    offset: u64,
    next: u64,
    partial: BTreeMap<ConnId, BytesMut>,
    /// Writes in flight, by token.
    waiting: BTreeMap<u64, ConnId>,
    failed: Option<io::Error>,
}

impl Handler for Service {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, conn: ConnId, _: SocketAddr) {
        self.partial.insert(conn, BytesMut::new());
    }

    fn received(&mut self, io: &mut Io, conn: ConnId, bytes: &[u8]) {
        let Some(partial) = self.partial.get_mut(&conn) else { return };
        partial.extend_from_slice(bytes);
        while partial.len() >= REQUEST_SIZE {
            let request = partial.split_to(REQUEST_SIZE);
            let mut block = io.take_buffer(BLOCK_SIZE);
            block[..REQUEST_SIZE].copy_from_slice(&request);
            self.waiting.insert(self.next, conn);
            io.write(self.file, self.next, self.offset, block, BLOCK_SIZE, self.durable);
            self.next += 1;
            self.offset = (self.offset + BLOCK_SIZE as u64) % FILE_SIZE;
        }
    }

    fn sent(&mut self, _: &mut Io, _: ConnId) {}

    fn closed(&mut self, _: &mut Io, conn: ConnId, _: CloseReason) {
        self.partial.remove(&conn);
    }

    fn disk(&mut self, io: &mut Io, done: DiskDone) {
        if let Err(error) = done.result {
            self.failed = Some(error);
            return;
        }
        if let Some(conn) = self.waiting.remove(&done.token) {
            io.send(conn, [Bytes::copy_from_slice(&done.buf[..REQUEST_SIZE])]);
        }
    }

    fn has_work(&mut self) -> bool {
        false
    }
}
