//! One group: who is in it, in which state, with which generation.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::member::Member;
use super::offsets::Offsets;
use super::output::{Effect, InFlight, Outbox};
use super::timers::{Timer, Timers};
use super::{
    GroupConfig, GroupError, GroupResponse, JoinRefused, JoinedGroup, JoinedMember, Name, Now,
    Protocol,
};

/// Where a group is in its rebalance. A group that is dead is not kept at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// The members are known, the leader's assignment is not.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Name,
    pub(super) partition: i32,
    pub(super) state: GroupState,
    pub(super) generation: i32,
    /// Empty for a group that only holds offsets.
    pub(super) protocol_type: Name,
    pub(super) protocol: Option<Name>,
    pub(super) leader: Option<Name>,
    pub(super) members: BTreeMap<Name, Member>,
    /// Instance id to member id.
    pub(super) instances: BTreeMap<Name, Name>,
    /// Member ids given out and not yet joined with, and when they lapse.
    pub(super) pending: BTreeMap<Name, u64>,
    pub(super) offsets: Offsets,
    /// When the wait for joins ends.
    pub(super) join_end: Option<u64>,
    /// The wait is the first one of an empty group: it runs until its end whoever has joined.
    pub(super) join_initial: Option<InitialJoin>,
    /// When the wait for syncs ends.
    pub(super) sync_end: Option<u64>,
    /// The leader's assignment is being recorded.
    pub(super) assigning: bool,
    /// When the state last changed, Unix milliseconds.
    pub(super) state_since_ms: i64,
    /// A metadata record of this group is in the log, or on its way there.
    pub(super) recorded: bool,
    /// The value of the last metadata record in the log; the fields above may be ahead of it.
    pub(super) in_log: Option<Bytes>,
}

/// How the wait of an empty group is prolonged as members keep coming.
#[derive(Clone, Copy, Debug)]
pub(super) struct InitialJoin {
    pub(super) remaining_ms: u64,
    pub(super) member_added: bool,
}

/// What a group may use of its coordinator while it acts.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) config: &'a GroupConfig,
    pub(super) out: &'a mut Outbox,
    pub(super) timers: &'a mut Timers,
}

impl Group {
    pub(super) fn new(id: Name, partition: i32, unix_ms: i64) -> Self {
        Self {
            id,
            partition,
            state: GroupState::Empty,
            generation: 0,
            protocol_type: Name::from(""),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            offsets: Offsets::default(),
            join_end: None,
            join_initial: None,
            sync_end: None,
            assigning: false,
            state_since_ms: unix_ms,
            recorded: false,
            in_log: None,
        }
    }

    pub(super) fn enter(&mut self, cx: &Context<'_>, state: GroupState) {
        self.state = state;
        self.state_since_ms = cx.now.unix_ms;
        if state != GroupState::PreparingRebalance {
            self.join_end = None;
            self.join_initial = None;
        }
        if state != GroupState::CompletingRebalance {
            self.assigning = false;
        }
        // A member may still owe its sync when the others are stable already.
        if matches!(state, GroupState::Empty | GroupState::PreparingRebalance) {
            self.sync_end = None;
        }
    }

    /// Whether this member is in the group, and under this instance id if one is given.
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&Name>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.instances.get(instance_id) {
                None => return Err(GroupError::UnknownMember),
                Some(current) if &**current != member_id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    /// Whether a member with these protocols could be in the group.
    pub(super) fn agrees_with(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let common = self.common_protocols();
        *self.protocol_type == *protocol_type && protocols.iter().any(|p| common.contains(&*p.name))
    }

    /// The protocol most members prefer among those that all know; in a tie, the earlier one in
    /// the leader's list.
    pub(super) fn elect_protocol(&self) -> Option<Name> {
        let common = self.common_protocols();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|p| common.contains(&*p.name));
            *votes.entry(&*vote?.name).or_default() += 1;
        }
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id))?;
        let candidates = leader.protocols.iter().rev();
        let votes_for = |p: &&Protocol| votes.get(&*p.name).copied().unwrap_or(0);
        let winner = candidates.filter(|p| common.contains(&*p.name)).max_by_key(votes_for)?;
        Some(winner.name.clone())
    }

    fn common_protocols(&self) -> BTreeSet<&str> {
        let known = |m: &'_ Member| m.protocols.iter().map(|p| p.name.clone()).collect();
        let all: Vec<BTreeSet<Name>> = self.members.values().map(known).collect();
        let first = self.members.values().next().map_or(&[][..], |m| &m.protocols);
        let names = first.iter().map(|p| &*p.name);
        names.filter(|name| all.iter().all(|known| known.contains(*name))).collect()
    }

    /// The answer to a member that is in the current generation.
    pub(super) fn joined(&self, member_id: &Name, skip_assignment: bool) -> JoinedGroup {
        let protocol = self.protocol.clone().unwrap_or_else(|| Name::from(""));
        let is_leader = self.leader.as_ref() == Some(member_id);
        let members = if is_leader { self.roster(&protocol) } else { Vec::new() };
        JoinedGroup {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader_id: self.leader.clone().unwrap_or_else(|| Name::from("")),
            member_id: member_id.clone(),
            skip_assignment,
            members,
        }
    }

    fn roster(&self, protocol: &str) -> Vec<JoinedMember> {
        let entry = |member: &Member| JoinedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.values().map(entry).collect()
    }

    /// A sign of life.
    pub(super) fn touch(&mut self, cx: &mut Context<'_>, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            self.keep_for(cx, member_id, member.session_timeout_ms);
        }
    }

    /// Keeps the member for `timeout_ms` from now.
    pub(super) fn keep_for(&mut self, cx: &mut Context<'_>, member_id: &str, timeout_ms: u64) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.session_end = cx.now.monotonic_ms.saturating_add(timeout_ms.max(1));
        if member.timer_at.is_none_or(|at| at > member.session_end) {
            member.timer_at = Some(member.session_end);
            let timer = Timer::Session(self.id.clone(), member.id.clone());
            cx.timers.set(member.session_end, timer);
        }
    }

    /// Takes a member out and answers what it waits for. The caller sees to the rebalance.
    pub(super) fn remove(&mut self, cx: &mut Context<'_>, member_id: &str, error: GroupError) {
        let Some(member) = self.members.remove(member_id) else { return };
        refuse_waiting(cx.out, &member, error);
        if let Some(instance_id) = &member.instance_id {
            self.instances.remove(instance_id);
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Drops the assignments and answers the members that wait for theirs.
    pub(super) fn reset_assignments(&mut self, cx: &mut Context<'_>, error: GroupError) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(token) = member.sync.take() {
                cx.out.reply(token, GroupResponse::Sync(Err(error)));
            }
        }
    }

    /// Sends the group's metadata record, as it is now, on its way into the log.
    pub(super) fn append_metadata(
        &mut self,
        cx: &mut Context<'_>,
        record: (Bytes, Option<Bytes>),
        effect: Effect,
    ) {
        self.recorded = true;
        let (partition, group) = (self.partition, self.id.clone());
        let metadata = record.1.clone();
        cx.out.append(vec![record], InFlight { partition, group, metadata, effect });
    }

    /// Nothing would be lost with this group.
    pub(super) fn is_forgettable(&self) -> bool {
        self.state == GroupState::Empty
            && self.members.is_empty()
            && self.pending.is_empty()
            && self.offsets.is_empty()
    }

    /// Answers everything that waits, when the group goes elsewhere.
    pub(super) fn abandon(&self, out: &mut Outbox, error: GroupError) {
        for member in self.members.values() {
            refuse_waiting(out, member, error);
        }
    }
}

/// Answers the join and the sync this member waits for.
pub(super) fn refuse_waiting(out: &mut Outbox, member: &Member, error: GroupError) {
    if let Some(token) = member.join {
        let refused = JoinRefused { error, member_id: member.id.clone() };
        out.reply(token, GroupResponse::Join(Err(refused)));
    }
    if let Some(token) = member.sync {
        out.reply(token, GroupResponse::Sync(Err(error)));
    }
}
