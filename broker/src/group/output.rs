//! What the coordinator asks of the shard: replies to send, records to append.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::join::Replacement;
use super::offsets::CommitInFlight;
use super::{GroupError, GroupResponse, Name};

/// Names a request until its one reply; chosen by the caller.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ReplyToken(pub u64);

/// Names an append until [`super::Coordinator::appended`]; chosen by the coordinator, growing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct AppendToken(pub u64);

/// Why records of an [`Output::Append`] are not in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendFailed {
    #[error("this shard no longer leads the partition")]
    NotLeader,
    #[error("the log takes no records now")]
    Unavailable,
    #[error("the records are larger than a batch may be")]
    TooLarge,
}

/// One thing to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Reply {
        token: ReplyToken,
        response: GroupResponse,
    },
    /// Append these as one batch to this partition of `__consumer_offsets`, then report with
    /// `appended`. A record without a value is a tombstone.
    Append {
        partition: i32,
        records: Vec<(Bytes, Option<Bytes>)>,
        token: AppendToken,
    },
}

/// Outputs not yet polled, and appends not yet reported.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Output>,
    append_next: u64,
    in_flight: BTreeMap<AppendToken, InFlight>,
}

/// An append under way and what becomes of the group when it is done.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) partition: i32,
    pub(super) group: Name,
    /// The value of the group's metadata record, if one is in the append.
    pub(super) metadata: Option<Bytes>,
    pub(super) effect: Effect,
}

#[derive(Debug)]
pub(super) enum Effect {
    /// The offsets become visible and the commit is answered.
    Commit(CommitInFlight),
    /// The assignments of this generation go out.
    Assign { generation: i32 },
    /// A static member came back under a new id, and its join waits for this.
    ReplaceInstance(Replacement),
    /// The group without members is recorded; nothing waits for it.
    Emptied,
    /// These offsets are gone; and so is the group, if nobody came back to it.
    Expire { offsets: Vec<(Name, i32)>, group: bool },
}

impl Outbox {
    pub(super) fn reply(&mut self, token: ReplyToken, response: GroupResponse) {
        self.queue.push_back(Output::Reply { token, response });
    }

    pub(super) fn append(&mut self, records: Vec<(Bytes, Option<Bytes>)>, what: InFlight) {
        self.append_next += 1;
        let token = AppendToken(self.append_next);
        self.queue.push_back(Output::Append { partition: what.partition, records, token });
        self.in_flight.insert(token, what);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    pub(super) fn done(&mut self, token: AppendToken) -> Option<InFlight> {
        self.in_flight.remove(&token)
    }

    /// Whether records of this group are on their way.
    pub(super) fn has_in_flight(&self, group: &str) -> bool {
        self.in_flight.values().any(|in_flight| &*in_flight.group == group)
    }

    /// Forgets the appends of a partition that went elsewhere, and answers the commits.
    pub(super) fn abandon(&mut self, partition: i32) {
        let gone: Vec<_> = self.in_flight.extract_if(.., |_, f| f.partition == partition).collect();
        for (_, in_flight) in gone {
            if let Effect::Commit(commit) = in_flight.effect {
                commit.answer(self, Err(GroupError::NotCoordinator));
            }
        }
        self.queue.retain(|output| match output {
            Output::Append { partition: to, .. } => *to != partition,
            Output::Reply { .. } => true,
        });
    }
}
