//! SyncGroup, Heartbeat, and what happens when members stop sending them.

use bytes::Bytes;

use super::classic::{Context, Group};
use super::output::Effect;
use super::timers::Timer;
use super::{
    GroupError, GroupResponse, GroupState, HeartbeatRequest, Name, ReplyToken, SyncRequest,
    SyncedGroup, record,
};

impl Group {
    pub(super) fn sync(&mut self, cx: &mut Context<'_>, token: ReplyToken, request: SyncRequest) {
        match self.check_sync(&request) {
            Err(error) => cx.out.reply(token, GroupResponse::Sync(Err(error))),
            Ok(()) if self.state == GroupState::Stable => {
                self.answer_sync(cx, token, &request.member_id);
            }
            Ok(()) => self.await_assignment(cx, token, request),
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let type_differs = request.protocol_type.as_ref().is_some_and(|t| *t != self.protocol_type);
        let name_differs =
            request.protocol.is_some() && request.protocol.as_ref() != self.protocol.as_ref();
        if type_differs || name_differs {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.state {
            GroupState::Empty => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    fn await_assignment(&mut self, cx: &mut Context<'_>, token: ReplyToken, request: SyncRequest) {
        let is_leader = self.leader.as_ref() == Some(&request.member_id);
        let Some(member) = self.members.get_mut(&request.member_id) else { return };
        member.sync_due = false;
        // Every request is answered: a client that syncs twice waits for the later answer.
        if let Some(earlier) = member.sync.replace(token) {
            cx.out.reply(earlier, GroupResponse::Sync(Err(GroupError::RebalanceInProgress)));
        }
        self.touch(cx, &request.member_id);
        if is_leader && !self.assigning {
            self.assign(cx, &request.assignments);
        }
    }

    /// Records the leader's assignment; members get it once it is in the log.
    fn assign(&mut self, cx: &mut Context<'_>, assignments: &[(Name, Bytes)]) {
        for member in self.members.values_mut() {
            let own = assignments.iter().rfind(|(id, _)| *id == member.id);
            member.assignment = own.map_or_else(Bytes::new, |(_, a)| Bytes::copy_from_slice(a));
        }
        match record::group_metadata(self) {
            Ok(record) => {
                self.assigning = true;
                let effect = Effect::Assign { generation: self.generation };
                self.append_metadata(cx, record, effect);
            }
            Err(_) => self.refuse_assignment(cx, GroupError::RecordTooLarge),
        }
    }

    /// The assignment of that generation is recorded, or it is not and must be made again.
    pub(super) fn assigned(
        &mut self,
        cx: &mut Context<'_>,
        generation: i32,
        result: Result<(), GroupError>,
    ) {
        if self.state != GroupState::CompletingRebalance || self.generation != generation {
            return; // The next rebalance has begun.
        }
        match result {
            Ok(()) => {
                self.enter(cx, GroupState::Stable);
                let waiting = self.members.values_mut();
                let waiting = waiting.filter_map(|m| Some((m.id.clone(), m.sync.take()?)));
                for (id, token) in waiting.collect::<Vec<_>>() {
                    self.answer_sync(cx, token, &id);
                }
            }
            Err(error) => self.refuse_assignment(cx, error),
        }
    }

    fn refuse_assignment(&mut self, cx: &mut Context<'_>, error: GroupError) {
        self.assigning = false;
        self.reset_assignments(cx, error);
        self.rebalance(cx);
    }

    fn answer_sync(&mut self, cx: &mut Context<'_>, token: ReplyToken, id: &Name) {
        self.touch(cx, id);
        let Some(member) = self.members.get_mut(id) else { return };
        member.sync_due = false;
        let synced = SyncedGroup {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_else(|| Name::from("")),
            assignment: member.assignment.clone(),
        };
        cx.out.reply(token, GroupResponse::Sync(Ok(synced)));
    }

    pub(super) fn heartbeat(
        &mut self,
        cx: &mut Context<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.touch(cx, &request.member_id);
        match self.state {
            GroupState::Empty => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    /// Members that have joined and did not sync in time hold everybody up: they are out.
    pub(super) fn sync_time_over(&mut self, cx: &mut Context<'_>) {
        if self.sync_end.is_none_or(|end| end > cx.now.monotonic_ms) {
            return;
        }
        self.sync_end = None;
        let late = self.members.values().filter(|m| m.sync_due).map(|m| m.id.clone());
        let late: Vec<Name> = late.collect();
        for id in &late {
            self.remove(cx, id, GroupError::UnknownMember);
        }
        if !late.is_empty() {
            self.rebalance(cx);
        }
    }

    /// A session has ended, unless there was a sign of life or the member waits for an answer.
    pub(super) fn session_over(&mut self, cx: &mut Context<'_>, id: &Name) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.timer_at = None;
        if member.is_waiting() {
            self.touch(cx, id);
        } else if member.session_end > cx.now.monotonic_ms {
            member.timer_at = Some(member.session_end);
            cx.timers.set(member.session_end, Timer::Session(self.id.clone(), id.clone()));
        } else {
            self.remove(cx, id, GroupError::UnknownMember);
            self.rebalance(cx);
        }
    }

    /// A member id that was given out lapses; a rebalance no longer waits for it.
    pub(super) fn pending_over(&mut self, cx: &mut Context<'_>, id: &Name) {
        if self.pending.get(id).is_some_and(|lapse| *lapse <= cx.now.monotonic_ms) {
            self.pending.remove(id);
            self.go_on(cx);
        }
    }

    /// Completes a rebalance that no longer waits for anybody.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) {
        if self.state == GroupState::PreparingRebalance {
            self.rebalance(cx);
        }
    }
}
