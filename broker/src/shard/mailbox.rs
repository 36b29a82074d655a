//! How cores talk: one bounded queue for each ordered pair of shards, and a doorbell for a core
//! that sleeps. Nothing else is shared between shards on the data path.
//!
//! A queue keeps the order of its sender. What does not fit waits in the sender's own overflow, in
//! order too; it is bounded by the requests that connections may have under way.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use crossbeam::queue::ArrayQueue;
use model::ShardId;
use uring::Doorbell;

use super::message::Message;

/// Messages that fit between two shards before the sender keeps them itself.
const QUEUE_LENGTH: usize = 1024;

/// The queues of all shards of a broker.
pub(crate) struct Switchboard {
    shard_count: usize,
    /// Index `to * shard_count + from`.
    queues: Vec<ArrayQueue<Message>>,
    /// Set by each shard when its reactor is up.
    bells: Vec<OnceLock<Doorbell>>,
}

impl Switchboard {
    pub(crate) fn new(shard_count: u16) -> Arc<Self> {
        let shard_count = usize::from(shard_count);
        Arc::new(Self {
            shard_count,
            queues: (0..shard_count * shard_count).map(|_| ArrayQueue::new(QUEUE_LENGTH)).collect(),
            bells: (0..shard_count).map(|_| OnceLock::new()).collect(),
        })
    }

    /// Wakes every shard that sleeps; from a thread that is no shard.
    pub(crate) fn wake_all(&self) {
        for bell in self.bells.iter().filter_map(OnceLock::get) {
            bell.ring();
        }
    }

    /// Wakes one shard, from a thread that is no shard.
    pub(crate) fn wake(&self, shard: ShardId) {
        if let Some(bell) = self.bells.get(usize::from(shard.get())).and_then(OnceLock::get) {
            bell.ring();
        }
    }

    fn queue(&self, from: usize, to: usize) -> &ArrayQueue<Message> {
        &self.queues[to * self.shard_count + from]
    }
}

/// One shard's end of the switchboard.
pub(crate) struct Mailbox {
    own: usize,
    shared: Arc<Switchboard>,
    /// By receiver: what its queue had no room for.
    overflow: Vec<VecDeque<Message>>,
    /// By receiver: a message was queued since its bell was last rung.
    unrung: Vec<bool>,
}

impl Mailbox {
    pub(crate) fn new(own: ShardId, shared: Arc<Switchboard>) -> Self {
        let shard_count = shared.shard_count;
        Self {
            own: usize::from(own.get()),
            overflow: (0..shard_count).map(|_| VecDeque::new()).collect(),
            unrung: vec![false; shard_count],
            shared,
        }
    }

    /// Makes this shard reachable: from now on others can wake it.
    pub(crate) fn attach(&self, bell: Doorbell) {
        assert!(self.shared.bells[self.own].set(bell).is_ok(), "a shard attaches once");
    }

    /// Queues a message for another shard. Its bell rings at the next [`Mailbox::flush`].
    pub(crate) fn send(&mut self, to: ShardId, message: Message) {
        let to = usize::from(to.get());
        debug_assert_ne!(to, self.own, "a shard does not write to itself");
        self.unrung[to] = true;
        if !self.overflow[to].is_empty() {
            self.overflow[to].push_back(message);
        } else if let Err(message) = self.shared.queue(self.own, to).push(message) {
            self.overflow[to].push_back(message);
        }
    }

    /// Moves overflow on and rings the bell of each shard that has new messages.
    pub(crate) fn flush(&mut self, mut ring: impl FnMut(&Doorbell)) {
        for to in 0..self.overflow.len() {
            while let Some(message) = self.overflow[to].pop_front() {
                if let Err(message) = self.shared.queue(self.own, to).push(message) {
                    self.overflow[to].push_front(message);
                    break;
                }
            }
            if std::mem::take(&mut self.unrung[to])
                && let Some(bell) = self.shared.bells[to].get()
            {
                ring(bell);
            }
        }
    }

    /// The next message. Shard 0's queue goes first: it carries the metadata image, which must be
    /// seen before a request that another shard sent because of it.
    pub(crate) fn receive(&mut self) -> Option<Message> {
        (0..self.shared.shard_count).find_map(|from| self.shared.queue(from, self.own).pop())
    }

    /// Is there a message to receive, or overflow that a receiver may have room for by now?
    pub(crate) fn has_work(&self) -> bool {
        let shard_count = self.shared.shard_count;
        (0..shard_count).any(|from| !self.shared.queue(from, self.own).is_empty())
            || (0..shard_count).any(|to| {
                !self.overflow[to].is_empty() && !self.shared.queue(self.own, to).is_full()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: u64) -> Message {
        Message::Cancel { call: super::super::call::CallId::new(ShardId::new(0), number) }
    }

    fn number(message: &Message) -> u64 {
        match message {
            Message::Cancel { call } => call.number(),
            _ => panic!("only cancels were sent"),
        }
    }

    #[test]
    fn overflow_keeps_the_senders_order() {
        let shared = Switchboard::new(2);
        let mut sender = Mailbox::new(ShardId::new(0), Arc::clone(&shared));
        let mut receiver = Mailbox::new(ShardId::new(1), shared);
        let count = 3 * QUEUE_LENGTH as u64;
        for n in 0..count {
            sender.send(ShardId::new(1), numbered(n));
        }
        let mut seen = Vec::new();
        while seen.len() < usize::try_from(count).unwrap() {
            sender.flush(|_| {});
            while let Some(message) = receiver.receive() {
                seen.push(number(&message));
            }
        }
        assert!(seen.iter().copied().eq(0..count));
        assert!(!receiver.has_work() && !sender.has_work());
    }
}
