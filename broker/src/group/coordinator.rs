//! The coordinator of the groups whose partitions of `__consumer_offsets` this shard leads.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::classic::{Context, Group};
use super::output::{Effect, Outbox};
use super::timers::{Timer, Timers};
use super::{
    AppendFailed, AppendToken, GroupConfig, GroupError, GroupRequest, GroupResponse, GroupState,
    Name, Now, Operation, Output, RecordError, ReplyToken, partition_for,
};

/// Every request gets exactly one [`Output::Reply`], some of them much later.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) config: GroupConfig,
    pub(super) groups: BTreeMap<Name, Group>,
    /// The partitions of `__consumer_offsets` that are here.
    pub(super) partitions: BTreeMap<i32, Phase>,
    pub(super) out: Outbox,
    pub(super) timers: Timers,
    pub(super) load_fault: Option<(u64, RecordError)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    Loading,
    Serving,
}

impl Coordinator {
    pub fn new(config: GroupConfig) -> Self {
        let mut timers = Timers::default();
        timers.set(0, Timer::Expiry);
        Self {
            config,
            groups: BTreeMap::new(),
            partitions: BTreeMap::new(),
            out: Outbox::default(),
            timers,
            load_fault: None,
        }
    }

    /// `__consumer_offsets` has this many partitions: the topic's own number, whatever the setting
    /// for new ones says.
    pub fn set_partition_count(&mut self, partition_count: i32) {
        self.config.partition_count = partition_count;
    }

    /// Takes a request. `ids` makes the ids of new members.
    pub fn handle(
        &mut self,
        now: Now,
        token: ReplyToken,
        request: GroupRequest,
        ids: &mut dyn FnMut() -> Uuid,
    ) {
        if let Err(error) = self.check(&request) {
            self.out.reply(token, GroupResponse::refuse(&request.operation, error));
            return;
        }
        let GroupRequest { group, operation } = request;
        match operation {
            Operation::Join(join) => self.join(now, token, &group, join, ids),
            Operation::FetchOffsets(fetch) => {
                let fetched = self.groups.get(&group).map(|g| &g.offsets);
                let fetched = super::offsets::fetch(fetched, fetch);
                self.out.reply(token, GroupResponse::FetchOffsets(Ok(fetched)));
            }
            Operation::CommitOffsets(commit) => self.commit(now, token, &group, commit),
            other => match self.open(now, &group) {
                Some((group, mut cx)) => group.act(&mut cx, token, other),
                None => self.out.reply(token, absent(&other)),
            },
        }
    }

    /// The next thing to do, in order; `None` until something else happens.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.poll()
    }

    /// The records of this append are committed, or are not in the log and never will be.
    /// Appends of one partition are to be reported in their order.
    pub fn appended(&mut self, now: Now, token: AppendToken, result: Result<(), AppendFailed>) {
        let Some(in_flight) = self.out.done(token) else { return };
        let result = result.map_err(refusal);
        let expired = matches!(in_flight.effect, Effect::Expire { group: true, .. });
        let Some((group, mut cx)) = self.open(now, &in_flight.group) else {
            if let Effect::Commit(commit) = in_flight.effect {
                commit.answer(&mut self.out, result);
            }
            return;
        };
        if result.is_ok() && (expired || in_flight.metadata.is_some()) {
            group.in_log = in_flight.metadata;
        }
        match in_flight.effect {
            Effect::Commit(commit) => group.committed(&mut cx, token, commit, result),
            Effect::Assign { generation } => group.assigned(&mut cx, generation, result),
            Effect::ReplaceInstance(replacement) => {
                group.instance_replaced(&mut cx, replacement, result);
            }
            Effect::Emptied => {}
            Effect::Expire { offsets, .. } => group.expired(token, &offsets, result),
        }
        let forgotten = expired && result.is_ok() && group.is_forgettable();
        // Somebody may have been there and gone since: then the log is about to have it again.
        if forgotten && !self.out.has_in_flight(&in_flight.group) {
            self.groups.remove(&in_flight.group);
        }
    }

    /// When [`Self::handle_deadline`] is next due, in [`Now::monotonic_ms`].
    pub fn deadline(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Ends the sessions and waits that are over.
    pub fn handle_deadline(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.monotonic_ms) {
            let group = match &timer {
                Timer::Expiry => {
                    let next =
                        now.monotonic_ms.saturating_add(self.config.expiry_interval_ms.max(1));
                    self.timers.set(next, Timer::Expiry);
                    self.expire_offsets(now);
                    continue;
                }
                Timer::Join(id) | Timer::Sync(id) => id,
                Timer::Session(id, _) | Timer::Pending(id, _) => id,
            };
            let Some((group, mut cx)) = self.open(now, group) else { continue };
            match &timer {
                Timer::Join(_) => group.join_time_over(&mut cx),
                Timer::Sync(_) => group.sync_time_over(&mut cx),
                Timer::Session(_, member) => group.session_over(&mut cx, member),
                Timer::Pending(_, member) => group.pending_over(&mut cx, member),
                Timer::Expiry => {}
            }
        }
    }

    /// Where a group is; `None` if there is none.
    pub fn state(&self, group: &str) -> Option<GroupState> {
        self.groups.get(group).map(|group| group.state)
    }

    /// Groups held here.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    fn check(&self, request: &GroupRequest) -> Result<(), GroupError> {
        let offsets_only =
            matches!(request.operation, Operation::CommitOffsets(_) | Operation::FetchOffsets(_));
        if request.group.is_empty() && !offsets_only {
            return Err(GroupError::InvalidGroupId);
        }
        match self.partitions.get(&self.partition_of(&request.group)) {
            None => Err(GroupError::NotCoordinator),
            Some(Phase::Loading) => Err(GroupError::LoadInProgress),
            Some(Phase::Serving) => Ok(()),
        }
    }

    pub(crate) fn partition_of(&self, group: &str) -> i32 {
        partition_for(group, self.config.partition_count)
    }

    /// The group, and beside it what it may use.
    pub(super) fn open(&mut self, now: Now, group: &str) -> Option<(&mut Group, Context<'_>)> {
        let group = self.groups.get_mut(group)?;
        let (out, timers) = (&mut self.out, &mut self.timers);
        Some((group, Context { now, config: &self.config, out, timers }))
    }

    /// The same, with a new empty group if there is none.
    pub(super) fn create(&mut self, now: Now, id: &Name) -> (&mut Group, Context<'_>) {
        let partition = self.partition_of(id);
        let new = || Group::new(id.clone(), partition, now.unix_ms);
        let group = self.groups.entry(id.clone()).or_insert_with(new);
        let (out, timers) = (&mut self.out, &mut self.timers);
        (group, Context { now, config: &self.config, out, timers })
    }
}

impl Group {
    fn act(&mut self, cx: &mut Context<'_>, token: ReplyToken, operation: Operation) {
        match operation {
            Operation::Sync(sync) => self.sync(cx, token, sync),
            Operation::Heartbeat(heartbeat) => {
                let alive = self.heartbeat(cx, &heartbeat);
                cx.out.reply(token, GroupResponse::Heartbeat(alive));
            }
            Operation::Leave(leave) => {
                let left = self.leave(cx, leave);
                cx.out.reply(token, GroupResponse::Leave(Ok(left)));
            }
            other => cx.out.reply(token, absent(&other)),
        }
    }
}

/// The answer of a group that does not exist.
fn absent(operation: &Operation) -> GroupResponse {
    match operation {
        Operation::Leave(leave) => GroupResponse::Leave(Ok(leave.unknown())),
        other => GroupResponse::refuse(other, GroupError::UnknownMember),
    }
}

fn refusal(failed: AppendFailed) -> GroupError {
    match failed {
        AppendFailed::NotLeader => GroupError::NotCoordinator,
        AppendFailed::Unavailable => GroupError::CoordinatorNotAvailable,
        AppendFailed::TooLarge => GroupError::RecordTooLarge,
    }
}
