//! What raft hears from the voters on other brokers and has for them.
//!
//! Whatever changes who leads comes after all that was proposed here is handed out: only so is it
//! known of an entry whether this broker proposed it.

use std::time::{Duration, Instant};

use model::{LogIndex, RaftGroupId};
use replication::{Heartbeats, MemberChange, Members, Message};
use wal_uring::Lsn;

use super::ticks::RAFT_TICK;
use super::{FRAMES_OF_EDIT, Refused, ReplicatedLog, is_vital};

/// A voter that has heard the leader elects no other one for four ticks, of which the first may be
/// short; less what a message is under way.
const LEASE: Duration = Duration::from_millis(100);
const _: () = assert!(LEASE.as_millis() < 3 * RAFT_TICK.as_millis());
/// What the WAL writes around an entry, and for its descriptor.
const ENTRY_OVERHEAD: usize = 256;

impl ReplicatedLog {
    /// Takes in a message of another broker. Entries that the WAL has no room for count as lost:
    /// what waited for room would hold up the snapshot that makes it. What is vital has room of its
    /// own. A leader that does not know where this log ends hears of that all the same, or it would
    /// never find that a snapshot is due.
    pub(crate) fn handle_message(&mut self, from: u64, mut message: Message, now: Instant) {
        self.act_all();
        self.heard.insert(from, now);
        if message.has_entries() {
            let count = self.fitting(&message);
            if count == 0 && self.driver.continues(&message) {
                return;
            }
            message.truncate(count);
        }
        self.driver.handle_message(from, message);
        self.act_all();
    }

    /// Takes in the heartbeats of another broker, and its answers to those of this one.
    pub(crate) fn handle_heartbeats(&mut self, from: u64, heartbeats: &Heartbeats, now: Instant) {
        self.act_all();
        self.heard.insert(from, now);
        self.driver.handle_heartbeats(from, heartbeats);
        self.act_all();
    }

    /// How many of a message's entries the WAL has room for.
    fn fitting(&self, message: &Message) -> usize {
        let is_metadata = message.group() == RaftGroupId::METADATA;
        let (room, vital_room) = (self.wal.room(), self.wal.vital_room());
        let kept = self.wal.segment_size() / 2;
        let mut size = self.queued_bytes as u64;
        let fits = |(descriptor, payload_size): &(&[u8], usize)| {
            size += (payload_size + ENTRY_OVERHEAD) as u64;
            // Where a segment ends something is left over.
            let needed = size + size / 2;
            // What is vital is looked for only where there is no room for all. The last records
            // that a leader took may be in front of it: they get half of its room.
            needed <= room
                || needed + kept <= vital_room
                || (needed <= vital_room && (is_metadata || is_vital(descriptor)))
        };
        message.entries().take_while(fits).count()
    }

    /// Has a majority been heard so recently that nobody else can lead? If it has not, this broker
    /// may have stood still while another one was elected, and not know it yet.
    pub(crate) fn has_quorum(&self, group: RaftGroupId, now: Instant) -> bool {
        self.hears_majority(group, LEASE, now)
    }

    /// Is a group within reach: its leader, or a majority where there is none or this broker leads?
    /// Followers do not hear each other.
    pub(crate) fn is_in_touch(&self, group: RaftGroupId, within: Duration, now: Instant) -> bool {
        match self.driver.leader(group).filter(|leader| *leader != self.driver.node()) {
            Some(leader) => self.has_heard(leader, within, now),
            None => self.hears_majority(group, within, now),
        }
    }

    /// Has a majority of a group, this broker included, been heard so short a time ago?
    fn hears_majority(&self, group: RaftGroupId, within: Duration, now: Instant) -> bool {
        let own = self.driver.node();
        let heard = |voter| voter == own || self.has_heard(voter, within, now);
        self.driver.members(group).is_some_and(|members| members.are_majority(heard))
    }

    /// Is an entry durable here, so that it can be read? Others may have it durably before.
    pub(crate) fn has_durably(&self, group: RaftGroupId, index: LogIndex) -> bool {
        let durable = self.wal.durable_lsn();
        self.driver.location(group, index).is_some_and(|(start, _)| Lsn::new(start) < durable)
    }

    /// Was a voter heard so short a time ago?
    pub(crate) fn has_heard(&self, voter: u64, within: Duration, now: Instant) -> bool {
        self.heard.get(&voter).is_some_and(|at| now.saturating_duration_since(*at) < within)
    }

    /// Who leads a group, as a number among its voters, for all that is known here.
    pub(crate) fn leader(&self, group: RaftGroupId) -> Option<u64> {
        self.driver.leader(group)
    }

    /// Bytes that the WAL takes before it is full.
    pub(crate) fn room(&self) -> u64 {
        self.wal.room()
    }

    /// What a follower's WAL has to have for a leader to count on it: what may be on the way to it
    /// since it told its room, what may follow, and as much again, since its frames and segments
    /// lie otherwise.
    pub(crate) fn room_of_follower_min(&self) -> u64 {
        2 * self.wal.segment_size()
    }

    /// Whether all other brokers that are there have room for what a leader may send.
    pub(crate) fn set_followers_have_room(&mut self, they_have: bool) {
        self.followers_have_room = they_have;
    }

    /// Bytes of the WAL that clients' entries leave free: a segment; with other brokers as much
    /// more as a follower's log may differ from its leader's.
    pub(super) fn kept_from_clients(&self) -> u64 {
        let segments = if self.ticks.has_peers() { 3 } else { 1 };
        segments * self.wal.segment_size()
    }

    /// May a client's entry be proposed, for all that is known of the other brokers?
    pub(super) fn check_followers(&self, group: RaftGroupId, size: usize) -> Result<(), Refused> {
        if !self.ticks.has_peers() {
            return Ok(());
        }
        if !self.followers_have_room {
            return Err(Refused::Full);
        }
        if self.is_too_far_ahead(group, size) { Err(Refused::Behind) } else { Ok(()) }
    }

    /// Would more of a group that this broker leads not be committed than a full log has room for?
    /// It is in front of the edit that makes room: a full log has half of a segment for it, and
    /// takes half as much again for where it lies.
    pub(crate) fn is_too_far_ahead(&self, group: RaftGroupId, size: usize) -> bool {
        let uncommitted = self.driver.unapplied_size(group);
        uncommitted > 0
            && self.ticks.has_peers()
            && self.leads(group).is_some()
            && (uncommitted + size) as u64 > self.wal.segment_size() / 3
    }

    /// Who takes part in a group, by all that is applied.
    pub(crate) fn members(&self, group: RaftGroupId) -> Option<&Members> {
        self.driver.members(group)
    }

    /// Since which entry it has been they.
    pub(crate) fn members_since(&self, group: RaftGroupId) -> LogIndex {
        self.driver.members_since(group)
    }

    /// Would a member take the snapshot under a group's log? It does if it was one by then.
    pub(crate) fn snapshot_names(&self, group: RaftGroupId, member: u64) -> bool {
        self.driver.snapshot_names(group, member)
    }

    pub(crate) fn committed(&self, group: RaftGroupId) -> LogIndex {
        self.driver.committed(group)
    }

    /// Proposes a change of members where this broker leads; false if it is not the time for it.
    pub(crate) fn propose_change(&mut self, group: RaftGroupId, change: MemberChange) -> bool {
        let leads = self.leads(group) == Some(self.driver.term(group));
        // It is small, and has the room that the WAL keeps for what is vital.
        leads
            && self.wal.vital_room() >= FRAMES_OF_EDIT
            && self.driver.propose_change(group, change).is_some()
    }

    /// The last entry that another voter is known to have durably, where this broker leads.
    pub(crate) fn matched(&self, group: RaftGroupId, voter: u64) -> Option<LogIndex> {
        self.driver.matched(group, voter)
    }

    /// Has another voter, of those that can be reached, lead what this broker leads.
    pub(crate) fn hand_over(&mut self, is_there: impl Fn(u64) -> bool) {
        self.act_all();
        for (group, _) in self.groups.iter().filter(|(_, state)| state.leads.is_some()) {
            if let Some(to) = self.driver.successor(group, &is_there) {
                self.driver.transfer_leader(group, to);
            }
        }
    }

    /// Does anybody lead a group, for all that is known here?
    pub(crate) fn knows_leader(&self, group: RaftGroupId) -> bool {
        self.driver.leader(group).is_some()
    }

    /// Entries of the groups led here that the voter furthest behind does not have durably.
    pub(crate) fn follower_lag(&self) -> u64 {
        let led = self.groups.iter().filter(|(_, state)| state.leads.is_some());
        let lags = led.flat_map(|(group, _)| {
            let last = self.driver.last_index(group).get();
            let voters = self.driver.members(group).map_or(&[][..], |members| &members.voters);
            let matched = voters.iter().filter_map(move |voter| self.driver.matched(group, *voter));
            matched.map(move |matched| last.saturating_sub(matched.get()))
        });
        lags.max().unwrap_or(0)
    }

    /// Has another voter lead a group, if that has all by then.
    pub(crate) fn hand_over_group(&mut self, group: RaftGroupId, to: u64) {
        self.act_all();
        self.driver.transfer_leader(group, to);
    }

    /// A write of a group's entries took so long here.
    pub(super) fn judge_disk(&mut self, group: RaftGroupId, took: Duration, now: Instant) {
        if self.ticks.has_peers() && self.leads(group).is_some() {
            let majority_has_it = self.driver.commits_without_own_disk(group);
            self.slow_disk.written(took, majority_has_it, now);
        }
    }

    /// Is this broker's disk so much slower than a majority of the others' that one of them should
    /// lead?
    pub(crate) fn disk_is_slow(&mut self, now: Instant) -> bool {
        let open = self.unpersisted.iter().find(|(_, ticket, _)| {
            let group = ticket.group();
            self.leads(group).is_some() && self.driver.commits_without_own_disk(group)
        });
        let open = open.map(|(.., since)| now.saturating_duration_since(*since));
        self.slow_disk.should_hand_over(open, now)
    }

    pub(crate) fn leads_any(&self) -> bool {
        self.groups.values().any(|state| state.leads.is_some())
    }

    /// A broker has stopped.
    pub(crate) fn handle_node_gone(&mut self, node: u64) {
        self.act_all();
        self.driver.handle_node_gone(node);
    }

    /// Messages to a broker were lost.
    pub(crate) fn report_unreachable(&mut self, to: u64) {
        self.act_all();
        self.driver.report_unreachable(to);
    }

    /// What is to be sent to other brokers, in order.
    pub(crate) fn take_outgoing(&mut self) -> Vec<(u64, Message)> {
        std::mem::take(&mut self.outgoing)
    }

    /// Heartbeats, and answers to those of others: they come after what is outgoing.
    pub(crate) fn take_heartbeats(&mut self) -> Vec<(u64, Heartbeats)> {
        std::mem::take(&mut self.heartbeats)
    }
}
