//! One core: a reactor and the shard that it drives. The only place where sockets, the device and
//! the clock meet a shard.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uring::{CloseReason, ConnId, DiskDone, FileId, Handler, Io, ListenerId, Reactor};
use wal_uring::RingDisk;

use crate::net::NetAction;
use crate::peer::dialer::Dialed;
use crate::shard::{Now, Shard};
use crate::shard_thread::ShardListeners;
use crate::start::Report;

/// After the order to stop: how long clients get to take their last replies.
const GRACE: Duration = Duration::from_secs(2);
/// For so long after another broker took over is a client told whom to ask: one whose connection is
/// closed before it asked looks for the new leader later.
const FAREWELL: Duration = Duration::from_millis(300);

/// See the module's text.
pub(crate) struct Core {
    shard: Shard,
    wal_file: FileId,
    /// Group commits carry `RWF_DSYNC`: the device has a volatile write cache.
    durable_writes: bool,
    /// Something happened since the shard last settled.
    touched: bool,
    /// Among that was something that somebody waits for, and not only a word of other brokers that
    /// they are there.
    pressed: bool,
    /// Not accepted from before every shard of the broker is ready.
    listener: Option<TcpListener>,
    client_listener: Option<ListenerId>,
    /// Stopping, and other brokers have taken over: clients are served until then.
    farewell_until: Option<Instant>,
    /// Where other brokers connect, before and after it listens.
    peer_socket: Option<TcpListener>,
    peer_listener: Option<ListenerId>,
    report: Sender<Report>,
}

impl Core {
    pub(crate) fn new(
        shard: Shard,
        wal_file: FileId,
        durable_writes: bool,
        listeners: ShardListeners,
        report: Sender<Report>,
    ) -> Self {
        Self {
            shard,
            wal_file,
            durable_writes,
            touched: true,
            pressed: false,
            listener: Some(listeners.clients),
            client_listener: None,
            farewell_until: None,
            peer_socket: listeners.peers,
            peer_listener: None,
            report,
        }
    }

    /// Serves until the broker is told to stop.
    ///
    /// # Errors
    ///
    /// The ring or the WAL failed; the text says which and what to do.
    pub(crate) fn run(mut self, mut reactor: Reactor) -> Result<(), String> {
        let (mut stop_by, mut worked) = (None, Duration::ZERO);
        if let Some(socket) = self.peer_socket.take() {
            let listener = reactor.io().listen(socket);
            let listener = listener.map_err(|it| format!("cannot hear other brokers: {it}"))?;
            self.peer_listener = Some(listener);
        }
        loop {
            self.enter(reactor.now());
            if self.shard.load.is_due(reactor.now()) {
                self.shard.load.note(reactor.now(), reactor.worked());
            }
            self.settle_if_touched(reactor.io());
            if let Some(failure) = self.shard.failure() {
                return Err(failure);
            }
            self.open_if_ready(reactor.io())?;
            if self.shard.node.stopping() {
                let by = *stop_by.get_or_insert_with(|| {
                    self.touched = true;
                    self.shard.hand_over();
                    reactor.now() + GRACE
                });
                let now = reactor.now();
                if self.has_said_farewell(now) && self.shard.is_quiet() || now >= by {
                    return self.shut_down(reactor);
                }
            }
            let stop = earliest(self.farewell_until, stop_by);
            let deadline = earliest(self.shard.next_deadline(), stop);
            reactor
                .turn(deadline, &mut self)
                .map_err(|error| format!("io_uring failed: {error}"))?;
            // The pass before the turn is over.
            let pass = reactor.worked() - std::mem::replace(&mut worked, reactor.worked());
            if !pass.is_zero() {
                self.shard.metrics.pass.record(pass);
            }
        }
    }

    /// Accepts connections once all shards serve: a client may need any of them.
    fn open_if_ready(&mut self, io: &mut Io) -> Result<(), String> {
        if self.listener.is_none() || !self.shard.node.all_ready() {
            return Ok(());
        }
        if let Some(listener) = self.listener.take() {
            let listener = io.listen(listener);
            let listener = listener.map_err(|it| format!("cannot accept connections: {it}"))?;
            self.client_listener = Some(listener);
            // If nobody listens any more, the process is ending.
            let _ = self.report.send(Report::Serving);
        }
        Ok(())
    }

    /// Reads the clocks for the events of this turn.
    #[expect(
        clippy::disallowed_methods,
        reason = "the wall clock enters the shard here, once a turn"
    )]
    fn enter(&mut self, now: Instant) {
        if self.shard.now.instant != now {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let unix_ms = i64::try_from(unix.as_millis()).unwrap_or(i64::MAX);
            self.shard.now = Now { instant: now, unix_ms };
        }
    }

    fn settle_if_touched(&mut self, io: &mut Io) {
        self.take_dialed(io);
        let due = self.shard.next_deadline().is_some_and(|at| at <= self.shard.now.instant);
        if !(self.touched || due || self.shard.has_work()) {
            return;
        }
        self.touched = false;
        self.shard.take_in();
        let mut disk = RingDisk { io, file: self.wal_file, durable: self.durable_writes };
        self.shard.settle(&mut disk);
        for action in self.shard.take_actions() {
            self.carry_out(io, action);
        }
        self.shard.mailbox.flush(|bell| io.ring(bell));
        let notes = self.shard.take_notes();
        if !notes.is_empty() {
            // If nobody listens any more, the process is ending.
            let _ = self.report.send(Report::Noted(notes));
        }
    }

    /// Have other brokers taken over, and clients had the time to hear of it?
    fn has_said_farewell(&mut self, now: Instant) -> bool {
        if self.shard.could_hand_over() {
            return false;
        }
        let time = if self.shard.peers.any_up() { FAREWELL } else { Duration::ZERO };
        now >= *self.farewell_until.get_or_insert(now + time)
    }

    /// Closes what is idle, offloads what there is, then writes the mark of a clean stop.
    fn shut_down(mut self, mut reactor: Reactor) -> Result<(), String> {
        if let Some(listener) = self.client_listener.take() {
            reactor.io().stop_listening(listener);
        }
        self.shard.close_idle_connections();
        self.offload_all(&mut reactor)?;
        let by = reactor.now() + GRACE;
        loop {
            self.enter(reactor.now());
            self.touched = true;
            self.settle_if_touched(reactor.io());
            let mut disk =
                RingDisk { io: reactor.io(), file: self.wal_file, durable: self.durable_writes };
            if self.shard.shut_down(&mut disk) {
                return Ok(());
            }
            if let Some(failure) = self.shard.failure() {
                return Err(failure);
            }
            if reactor.now() >= by {
                return Err("the WAL did not become quiet in time; nothing is lost, but the \
                            next start has to scan it"
                    .into());
            }
            reactor
                .turn(Some(by), &mut self)
                .map_err(|error| format!("io_uring failed: {error}"))?;
        }
    }
}

impl Core {
    /// After a clean stop the object store has everything: the disk may be thrown away. A store
    /// that does not take it in time holds nothing up; the WAL has it too.
    fn offload_all(&mut self, reactor: &mut Reactor) -> Result<(), String> {
        let by = reactor.now() + self.shard.node.settings.broker.shutdown_offload_max;
        self.shard.flush_tier();
        while !self.shard.tier_is_flushed() {
            let now = reactor.now();
            if now >= by {
                let shard = self.shard.id.get();
                let line = format!("shard {shard}: stopped before all records were offloaded");
                // If nobody listens any more, the process is ending.
                let _ = self.report.send(Report::Noted(vec![line]));
                return Ok(());
            }
            self.enter(now);
            self.touched = true;
            self.settle_if_touched(reactor.io());
            if let Some(failure) = self.shard.failure() {
                return Err(failure);
            }
            let deadline = earliest(self.shard.next_deadline(), Some(by));
            reactor.turn(deadline, self).map_err(|error| format!("io_uring failed: {error}"))?;
        }
        Ok(())
    }
}

impl Handler for Core {
    fn accepted(&mut self, io: &mut Io, at: ListenerId, conn: ConnId, peer: SocketAddr) {
        self.enter(io.now());
        self.touched = true;
        if self.peer_listener == Some(at) {
            self.shard.peer_accepted(conn, peer.ip());
        } else {
            self.shard.accepted(conn, peer.ip());
        }
    }

    fn received(&mut self, io: &mut Io, conn: ConnId, bytes: &[u8]) {
        self.enter(io.now());
        self.touched = true;
        self.pressed |= self.shard.received(conn, bytes);
    }

    fn sent(&mut self, io: &mut Io, conn: ConnId) {
        self.enter(io.now());
        self.touched |= self.shard.sent(conn);
    }

    fn closed(&mut self, io: &mut Io, conn: ConnId, _: CloseReason) {
        self.enter(io.now());
        self.touched = true;
        self.shard.closed(conn);
    }

    fn disk(&mut self, io: &mut Io, done: DiskDone) {
        self.enter(io.now());
        (self.touched, self.pressed) = (true, true);
        let mut disk = RingDisk { io, file: self.wal_file, durable: self.durable_writes };
        self.shard.disk_done(&mut disk, done);
    }

    fn has_work(&mut self) -> bool {
        let (node, now) = (&self.shard.node, self.shard.now.instant);
        let opens = self.listener.is_some() && node.all_ready();
        let stops = node.stopping() && self.farewell_until.is_none_or(|at| at <= now);
        self.shard.has_work() || opens || self.was_dialed() || stops
    }

    fn expects_more(&mut self) -> bool {
        std::mem::take(&mut self.pressed) || self.shard.has_work()
    }
}

impl Core {
    fn carry_out(&self, io: &mut Io, action: NetAction) {
        match action {
            NetAction::Send { conn, pieces } => io.send(conn, pieces),
            NetAction::Pause { conn } => io.pause(conn),
            NetAction::Resume { conn } => io.resume(conn),
            NetAction::CloseAfterSend { conn } => io.close_after_send(conn),
            NetAction::Close { conn } => io.close(conn),
            NetAction::Dial { node } => {
                if let Some(dialer) = self.shard.node.dialer() {
                    dialer.dial(self.shard.id, node);
                }
            }
        }
    }

    fn was_dialed(&self) -> bool {
        self.shard.node.dialer().is_some_and(|dialer| dialer.has_news(self.shard.id))
    }

    /// Takes over connections to other brokers.
    fn take_dialed(&mut self, io: &mut Io) {
        if !self.was_dialed() {
            return;
        }
        let node = Arc::clone(&self.shard.node);
        let Some(dialer) = node.dialer() else { return };
        while let Some(Dialed { node, stream }) = dialer.next(self.shard.id) {
            let adopted =
                stream.and_then(|stream| io.adopt(stream).map_err(|error| error.to_string()));
            self.touched = true;
            self.shard.peer_dialed(node, adopted);
        }
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}
