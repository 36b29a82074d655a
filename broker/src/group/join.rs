//! JoinGroup, and the rebalance from its start until every member has joined.

use uuid::Uuid;

use super::classic::{Context, Group, InitialJoin, refuse_waiting};
use super::coordinator::Coordinator;
use super::member::{Member, NEW_MEMBER_TIMEOUT_MS, millis};
use super::output::Effect;
use super::timers::Timer;
use super::{
    GroupError, GroupResponse, GroupState, JoinRefused, JoinRequest, Name, Now, ReplyToken, record,
};

/// A static member that took over the place of its former self in a stable group.
#[derive(Debug)]
pub(super) struct Replacement {
    generation: i32,
    member_id: Name,
    replaced_id: Name,
    replaced_leader: Option<Name>,
    skip_assignment_known: bool,
}

impl Coordinator {
    pub(super) fn join(
        &mut self,
        now: Now,
        token: ReplyToken,
        id: &Name,
        request: JoinRequest,
        ids: &mut dyn FnMut() -> Uuid,
    ) {
        let bounds = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        let known = request.member_id.is_empty() || self.groups.contains_key(id);
        let refused = if !bounds.contains(&millis(request.session_timeout_ms)) {
            Some(GroupError::InvalidSessionTimeout)
        } else if !known {
            Some(GroupError::UnknownMember)
        } else {
            None
        };
        if let Some(error) = refused {
            let refused = JoinRefused { error, member_id: request.member_id };
            self.out.reply(token, GroupResponse::Join(Err(refused)));
            return;
        }
        let (group, mut cx) = self.create(now, id);
        group.join(&mut cx, token, request, ids);
        if !group.recorded && group.is_forgettable() {
            self.groups.remove(id);
        }
    }
}

impl Group {
    fn join(
        &mut self,
        cx: &mut Context<'_>,
        token: ReplyToken,
        request: JoinRequest,
        ids: &mut dyn FnMut() -> Uuid,
    ) {
        let member_id = request.member_id.clone();
        let outcome = if !self.has_room_for(&member_id, cx.config.member_count_max) {
            self.pending.remove(&member_id);
            Err(JoinRefused { error: GroupError::GroupFull, member_id })
        } else if !self.agrees_with(&request.protocol_type, &request.protocols) {
            Err(JoinRefused { error: GroupError::InconsistentProtocol, member_id })
        } else if member_id.is_empty() {
            self.join_first(cx, token, request, ids)
        } else {
            let joined = self.join_again(cx, token, request);
            joined.map_err(|error| JoinRefused { error, member_id })
        };
        if let Err(refused) = outcome {
            cx.out.reply(token, GroupResponse::Join(Err(refused)));
        }
    }

    fn has_room_for(&self, member_id: &str, count_max: usize) -> bool {
        let member = self.members.get(member_id);
        match self.state {
            GroupState::Empty => true,
            GroupState::PreparingRebalance => {
                let waiting = self.members.values().filter(|m| m.join.is_some()).count();
                member.is_some_and(|m| m.join.is_some()) || waiting < count_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                member.is_some() || self.members.len() < count_max
            }
        }
    }

    /// A member without an id.
    fn join_first(
        &mut self,
        cx: &mut Context<'_>,
        token: ReplyToken,
        request: JoinRequest,
        ids: &mut dyn FnMut() -> Uuid,
    ) -> Result<(), JoinRefused> {
        let prefix = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let id = Name::from(format!("{prefix}-{}", ids()));
        let former = request.instance_id.as_ref().and_then(|i| self.instances.get(i)).cloned();
        if let Some(former) = former {
            self.replace_instance(cx, token, &former, id, request);
        } else if request.instance_id.is_none() && request.member_id_required {
            let lapse = cx.now.monotonic_ms.saturating_add(millis(request.session_timeout_ms));
            self.pending.insert(id.clone(), lapse);
            cx.timers.set(lapse, Timer::Pending(self.id.clone(), id.clone()));
            return Err(JoinRefused { error: GroupError::MemberIdRequired, member_id: id });
        } else {
            self.add_member(cx, token, id, request);
        }
        Ok(())
    }

    /// A member with an id: it is in the group, or was told to come back with this id.
    fn join_again(
        &mut self,
        cx: &mut Context<'_>,
        token: ReplyToken,
        request: JoinRequest,
    ) -> Result<(), GroupError> {
        let id = request.member_id.clone();
        if self.pending.contains_key(&id) {
            if request.instance_id.is_some() {
                return Err(GroupError::UnknownMember);
            }
            self.add_member(cx, token, id, request);
            return Ok(());
        }
        self.check_member(&id, request.instance_id.as_ref())?;
        let changed = self.members.get(&id).is_none_or(|m| m.protocols != request.protocols);
        let rebalance = match self.state {
            GroupState::Empty => return Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => true,
            // The answer was lost on its way, so it is given again.
            GroupState::CompletingRebalance => changed,
            // The leader joins again to have a new assignment made.
            GroupState::Stable => changed || self.leader.as_ref() == Some(&id),
        };
        if rebalance {
            self.update_member(cx, token, &id, request);
        } else {
            self.touch(cx, &id);
            cx.out.reply(token, GroupResponse::Join(Ok(self.joined(&id, false))));
        }
        Ok(())
    }

    fn add_member(
        &mut self,
        cx: &mut Context<'_>,
        token: ReplyToken,
        id: Name,
        request: JoinRequest,
    ) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = request.protocol_type.clone();
        }
        self.leader.get_or_insert_with(|| id.clone());
        if let Some(instance_id) = &request.instance_id {
            self.instances.insert(instance_id.clone(), id.clone());
        }
        let mut member = Member::new(id.clone(), request);
        member.join = Some(token);
        self.members.insert(id.clone(), member);
        self.keep_for(cx, &id, NEW_MEMBER_TIMEOUT_MS);
        if let Some(initial) = &mut self.join_initial {
            initial.member_added = true;
        }
        self.rebalance(cx);
    }

    fn update_member(
        &mut self,
        cx: &mut Context<'_>,
        token: ReplyToken,
        id: &Name,
        request: JoinRequest,
    ) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.update(request);
        // Every request is answered: a client that joins twice waits for the later answer.
        if let Some(earlier) = member.join.replace(token) {
            let error = GroupError::RebalanceInProgress;
            let refused = JoinRefused { error, member_id: id.clone() };
            cx.out.reply(earlier, GroupResponse::Join(Err(refused)));
        }
        self.touch(cx, id);
        self.rebalance(cx);
    }

    fn replace_instance(
        &mut self,
        cx: &mut Context<'_>,
        token: ReplyToken,
        former: &Name,
        id: Name,
        request: JoinRequest,
    ) {
        let replaced_leader = self.leader.clone();
        let skip_assignment_known = request.skip_assignment_known;
        self.rename(former, &id);
        if let Some(member) = self.members.get_mut(&id) {
            refuse_waiting(cx.out, member, GroupError::FencedInstance);
            member.sync = None;
            member.update(request);
            member.join = Some(token);
        }
        self.touch(cx, &id);
        if self.state != GroupState::Stable || self.elect_protocol() != self.protocol {
            self.rebalance(cx);
            return;
        }
        // Nothing changes for the others, so there is no rebalance; but the new id is to survive
        // a restart.
        let replacement = Replacement {
            generation: self.generation,
            member_id: id,
            replaced_id: former.clone(),
            replaced_leader,
            skip_assignment_known,
        };
        match record::group_metadata(self) {
            Ok(record) => self.append_metadata(cx, record, Effect::ReplaceInstance(replacement)),
            Err(_) => self.instance_replaced(cx, replacement, Err(GroupError::RecordTooLarge)),
        }
    }

    /// The new id of a static member is recorded, or it is not and the old one stays.
    pub(super) fn instance_replaced(
        &mut self,
        cx: &mut Context<'_>,
        replacement: Replacement,
        result: Result<(), GroupError>,
    ) {
        let Replacement { generation, member_id, replaced_id, .. } = replacement;
        if self.state != GroupState::Stable || self.generation != generation {
            return; // A rebalance has begun and answers the join.
        }
        let Some(member) = self.members.get_mut(&member_id) else { return };
        let Some(token) = member.join.take() else { return };
        if let Err(error) = result {
            self.rename(&member_id, &replaced_id);
            self.touch(cx, &replaced_id);
            let refused = JoinRefused { error, member_id: Name::from("") };
            cx.out.reply(token, GroupResponse::Join(Err(refused)));
            return;
        }
        self.touch(cx, &member_id);
        let is_leader = self.leader.as_ref() == Some(&member_id);
        let mut joined = self.joined(&member_id, is_leader && replacement.skip_assignment_known);
        if !replacement.skip_assignment_known {
            // The old leader id keeps the client from making an assignment nobody would get.
            joined.leader_id = replacement.replaced_leader.unwrap_or(joined.leader_id);
            joined.members.clear();
        }
        cx.out.reply(token, GroupResponse::Join(Ok(joined)));
    }

    fn rename(&mut self, from: &Name, to: &Name) {
        let Some(mut member) = self.members.remove(from) else { return };
        member.id = to.clone();
        member.timer_at = None;
        if let Some(instance_id) = &member.instance_id {
            self.instances.insert(instance_id.clone(), to.clone());
        }
        if self.leader.as_ref() == Some(from) {
            self.leader = Some(to.clone());
        }
        self.members.insert(to.clone(), member);
    }

    /// Starts a rebalance, or goes on with the one under way: after a change of the members.
    pub(super) fn rebalance(&mut self, cx: &mut Context<'_>) {
        let before = self.state;
        if before == GroupState::PreparingRebalance {
            self.complete_join_if_all(cx);
            return;
        }
        if before == GroupState::CompletingRebalance {
            self.reset_assignments(cx, GroupError::RebalanceInProgress);
        }
        self.enter(cx, GroupState::PreparingRebalance);
        if before != GroupState::Empty {
            self.wait_for_joins(cx, self.rebalance_timeout_ms());
            self.complete_join_if_all(cx);
            return;
        }
        let delay = cx.config.initial_rebalance_delay_ms;
        if delay == 0 {
            self.complete_join(cx);
            return;
        }
        let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay);
        self.join_initial = Some(InitialJoin { remaining_ms, member_added: false });
        self.wait_for_joins(cx, delay);
    }

    /// The wait for joins is over, unless the timer is an old one.
    pub(super) fn join_time_over(&mut self, cx: &mut Context<'_>) {
        if self.join_end.is_none_or(|end| end > cx.now.monotonic_ms) {
            return;
        }
        if let Some(initial) = &mut self.join_initial
            && initial.member_added
            && initial.remaining_ms > 0
        {
            let delay = cx.config.initial_rebalance_delay_ms.min(initial.remaining_ms);
            initial.remaining_ms -= delay;
            initial.member_added = false;
            self.wait_for_joins(cx, delay);
            return;
        }
        self.complete_join(cx);
    }

    fn wait_for_joins(&mut self, cx: &mut Context<'_>, timeout_ms: u64) {
        let end = cx.now.monotonic_ms.saturating_add(timeout_ms.max(1));
        self.join_end = Some(end);
        cx.timers.set(end, Timer::Join(self.id.clone()));
    }

    fn complete_join_if_all(&mut self, cx: &mut Context<'_>) {
        let all_joined = self.members.values().all(|member| member.join.is_some());
        if self.join_initial.is_none() && all_joined && self.pending.is_empty() {
            self.complete_join(cx);
        }
    }

    /// The next generation, of the members that have joined and of static ones that may be back.
    fn complete_join(&mut self, cx: &mut Context<'_>) {
        let absent = |m: &&Member| m.join.is_none() && m.instance_id.is_none();
        let absent: Vec<_> = self.members.values().filter(absent).map(|m| m.id.clone()).collect();
        for id in absent {
            self.remove(cx, &id, GroupError::UnknownMember);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            // Only static members, all of them away: their sessions decide.
            self.wait_for_joins(cx, self.rebalance_timeout_ms());
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.elect_protocol();
        if self.members.is_empty() {
            self.become_empty(cx);
            return;
        }
        self.enter(cx, GroupState::CompletingRebalance);
        let ids: Vec<Name> = self.members.keys().cloned().collect();
        for id in ids {
            self.answer_join(cx, &id);
        }
        let end = cx.now.monotonic_ms.saturating_add(self.rebalance_timeout_ms().max(1));
        self.sync_end = Some(end);
        cx.timers.set(end, Timer::Sync(self.id.clone()));
    }

    fn answer_join(&mut self, cx: &mut Context<'_>, id: &Name) {
        let joined = self.joined(id, false);
        let Some(member) = self.members.get_mut(id) else { return };
        member.new = false;
        member.sync_due = true;
        if let Some(token) = member.join.take() {
            cx.out.reply(token, GroupResponse::Join(Ok(joined)));
            self.touch(cx, id);
        }
    }

    /// Keeps a leader that has joined, or takes another member that has.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &Name| self.members.get(id).is_some_and(|m| m.join.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            let next = self.members.keys().find(|id| joined(id)).cloned();
            let Some(next) = next else { return false };
            self.leader = Some(next);
        }
        true
    }

    fn become_empty(&mut self, cx: &mut Context<'_>) {
        self.protocol = None;
        self.leader = None;
        self.enter(cx, GroupState::Empty);
        if let Ok(record) = record::group_metadata(self) {
            self.append_metadata(cx, record, Effect::Emptied);
        }
    }

    /// The longest any member asks for.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }
}
