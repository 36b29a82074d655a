//! Requests under way on the shard that owns the client's connection.
//!
//! A client's request may need several shards: it becomes one call with parts, each part is
//! answered once, and the reply goes to the client when the last part is in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use kafka_wire::RequestHeader;
use model::ShardId;
use uring::ConnId;

use crate::api::CallState;

/// Names a call across shards.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct CallId {
    shard: ShardId,
    number: u64,
}

impl CallId {
    pub(crate) const fn new(shard: ShardId, number: u64) -> Self {
        Self { shard, number }
    }

    /// The shard whose call it is: where its answers go.
    pub(crate) const fn shard(self) -> ShardId {
        self.shard
    }

    #[cfg(test)]
    pub(crate) const fn number(self) -> u64 {
        self.number
    }
}

/// A part of a call, and in which round it was asked: an answer of an earlier round is dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    pub(crate) call: CallId,
    pub(crate) part: u32,
}

/// Where the reply to a client's request goes: replies leave a connection in the order of requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ReplyTo {
    pub(crate) conn: ConnId,
    pub(crate) sequence: u64,
}

/// A client's request that waits for answers.
pub(crate) struct Call {
    pub(crate) reply_to: ReplyTo,
    pub(crate) header: RequestHeader,
    pub(crate) state: CallState,
    deadline: Option<Instant>,
}

/// The calls of one shard, with their deadlines.
pub(crate) struct Calls {
    shard: ShardId,
    next: u64,
    open: BTreeMap<u64, Call>,
    deadlines: BTreeSet<(Instant, u64)>,
}

impl Calls {
    pub(crate) fn new(shard: ShardId) -> Self {
        Self { shard, next: 0, open: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    /// The id that the next [`Calls::open`] gives: parts are sent before the call is stored.
    pub(crate) fn reserve(&mut self) -> CallId {
        self.next += 1;
        CallId::new(self.shard, self.next)
    }

    pub(crate) fn open(
        &mut self,
        id: CallId,
        reply_to: ReplyTo,
        header: RequestHeader,
        state: CallState,
        deadline: Option<Instant>,
    ) {
        if let Some(at) = deadline {
            self.deadlines.insert((at, id.number));
        }
        self.open.insert(id.number, Call { reply_to, header, state, deadline });
    }

    /// Takes a call out to work on it; then [`Calls::put_back`] or [`Calls::forget`] follows.
    pub(crate) fn take(&mut self, id: CallId) -> Option<Call> {
        self.open.remove(&id.number)
    }

    pub(crate) fn put_back(&mut self, id: CallId, call: Call) {
        self.open.insert(id.number, call);
    }

    /// The same with a call whose deadline has passed, to be looked at again at a time.
    pub(crate) fn put_back_until(&mut self, id: CallId, mut call: Call, at: Instant) {
        call.deadline = Some(at);
        self.deadlines.insert((at, id.number));
        self.open.insert(id.number, call);
    }

    /// Ends a call that was taken.
    pub(crate) fn forget(&mut self, id: CallId, call: &Call) {
        if let Some(at) = call.deadline {
            self.deadlines.remove(&(at, id.number));
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A call whose deadline has passed; its deadline is gone then.
    pub(crate) fn pop_overdue(&mut self, now: Instant) -> Option<CallId> {
        let (at, number) = *self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.deadlines.remove(&(at, number));
        if let Some(call) = self.open.get_mut(&number) {
            call.deadline = None;
        }
        Some(CallId::new(self.shard, number))
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
