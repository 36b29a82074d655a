//! The two ends of a shard's line to the offload thread.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;
use tokio::sync::Notify;

use super::{Reply, Request, Signals, Wake};

/// A shard's end. It never waits; it may be moved to the shard's thread but not shared.
pub struct Client {
    line: Arc<Line>,
    signals: Arc<Signals>,
    /// Jobs whose replies were not fetched yet: as many replies there may be, so that the queue of
    /// replies always has room.
    unanswered: Cell<usize>,
    not_shared: PhantomData<Cell<()>>,
}

/// The offload thread's end.
pub(super) struct Port {
    line: Arc<Line>,
    wake: Wake,
}

struct Line {
    requests: ArrayQueue<Request>,
    replies: ArrayQueue<Reply>,
    closed: AtomicBool,
    closing: Notify,
}

pub(super) fn pair(jobs_max: usize, wake: Wake, signals: Arc<Signals>) -> (Client, Port) {
    let capacity = jobs_max.max(1);
    let line = Arc::new(Line {
        requests: ArrayQueue::new(capacity),
        replies: ArrayQueue::new(capacity),
        closed: AtomicBool::new(false),
        closing: Notify::new(),
    });
    let port = Port { line: line.clone(), wake };
    (Client { line, signals, unanswered: Cell::new(0), not_shared: PhantomData }, port)
}

impl Client {
    /// # Errors
    ///
    /// Too many jobs are unanswered: the request comes back, to be sent again after a reply.
    #[expect(clippy::result_large_err, reason = "what comes back is what was given")]
    pub fn try_send(&self, request: Request) -> Result<(), Request> {
        if self.unanswered.get() >= self.line.requests.capacity() {
            return Err(request);
        }
        self.line.requests.push(request)?;
        self.unanswered.set(self.unanswered.get() + 1);
        self.signals.jobs.notify_one();
        Ok(())
    }

    pub fn poll_reply(&self) -> Option<Reply> {
        let reply = self.line.replies.pop()?;
        self.unanswered.set(self.unanswered.get() - 1);
        Some(reply)
    }

    pub fn has_replies(&self) -> bool {
        !self.line.replies.is_empty()
    }

    /// Jobs whose replies were not fetched yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered.get()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.line.closed.store(true, Relaxed);
        self.line.closing.notify_waiters();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("unanswered", &self.unanswered.get()).finish()
    }
}

impl Port {
    pub(super) fn take(&self) -> Option<Request> {
        self.line.requests.pop()
    }

    pub(super) fn answer(&self, reply: Reply) {
        self.line.replies.push(reply).expect("a client sends no more than it has replies for");
        (self.wake)();
    }

    /// Returns once the client is gone.
    pub(super) async fn closed(&self) {
        let closing = self.line.closing.notified();
        if !self.line.closed.load(Relaxed) {
            closing.await;
        }
    }
}
