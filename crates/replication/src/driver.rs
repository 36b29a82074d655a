//! All raft groups of one shard.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use model::{LogIndex, RaftGroupId, Term};
use raft::Storage;
use raft::eraftpb::MessageType;

use crate::action::{Action, Role, Ticket};
use crate::descriptor::Descriptor;
use crate::group::{Group, Shared};
use crate::group_map::{GroupMap, NUMBERS};
use crate::heartbeats::Heartbeats;
use crate::members::{MemberChange, Members, entry_type};
use crate::message::Message;
use crate::recovery::{RecoverError, Recovery};
use crate::state::encode_gone;
use crate::storage::LogStorage;

/// Most bytes of a snapshot: it is one message, and one record of the WAL.
pub const SNAPSHOT_SIZE_MAX: usize = 16 << 20;

/// How a driver behaves; the same on every node but for `node`.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// This node's number in every group's voters; never 0.
    pub node: u64,
    /// Where randomised election timeouts come from.
    pub seed: u64,
    /// Ticks without a leader before an election; the draw is up to half as many more. At least
    /// two: a leader says in every tick that it is there.
    pub election_ticks: usize,
    /// Append messages under way to one follower.
    pub inflight_max: usize,
    /// Bytes of one append message, payloads included; an entry larger than this travels alone.
    pub message_bytes: u64,
    /// Bytes of payload of one group that are not yet applied; beyond, [`ProposeError::Busy`].
    pub payload_window_bytes: usize,
    /// Bytes of applied payload of one group kept in memory for followers that lag.
    pub payload_cache_bytes: usize,
}

impl DriverConfig {
    /// Limits that suit a tick of 50 ms and a network of 10 Gbit/s.
    pub fn new(node: u64, seed: u64) -> Self {
        Self {
            node,
            seed,
            election_ticks: 4,
            inflight_max: 64,
            message_bytes: 1 << 20,
            payload_window_bytes: 64 << 20,
            payload_cache_bytes: 8 << 20,
        }
    }

    /// Settings of the raft library. Applied is where the log begins: the application is rebuilt
    /// from there.
    pub(crate) fn raft(&self, applied: u64) -> raft::Config {
        raft::Config {
            id: self.node,
            election_tick: self.election_ticks,
            // Its own are few: see `idle.rs`.
            heartbeat_tick: self.election_ticks - 1,
            applied,
            max_size_per_msg: self.message_bytes,
            max_inflight_msgs: self.inflight_max,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            max_committed_size_per_ready: self.message_bytes,
            ..raft::Config::default()
        }
    }
}

/// Why an entry was not proposed; nothing has happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProposeError {
    #[error("not the leader of this group")]
    NotLeader { leader: Option<u64> },
    #[error("too many bytes are under way")]
    Busy,
    #[error("leadership of this group is being handed over")]
    HandingOver,
}

/// Why a log was not compacted; nothing has happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CompactError {
    #[error("unknown group")]
    UnknownGroup,
    #[error("the log begins at {first} and is applied up to {applied}")]
    Range { first: LogIndex, applied: LogIndex },
    #[error("a snapshot has at most {SNAPSHOT_SIZE_MAX} bytes")]
    TooLarge,
}

/// An entry of the log as it is kept in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogEntry {
    pub term: Term,
    /// Where the WAL put its data; `None` until [`Driver::placed`].
    pub location: Option<u64>,
    /// `None`: the empty entry of a new leader, or a change of members.
    pub descriptor: Option<Descriptor>,
}

/// Every raft group of a shard on this node. Call a `handle_*`, then do what [`Self::poll_action`]
/// says.
pub struct Driver {
    config: DriverConfig,
    recovering: BTreeMap<RaftGroupId, Recovery>,
    groups: GroupMap<Group>,
    /// Groups with something to hand out; an idle group is not looked at.
    dirty: VecDeque<RaftGroupId>,
    actions: VecDeque<Action>,
    /// Where descriptors and state records are encoded, many to an allocation.
    arena: BytesMut,
    next_ticket: u64,
    /// On their way out, by the node that they are for. Answers wait for the next tick, and go with
    /// what this node has to say then.
    heartbeats: BTreeMap<u64, Heartbeats>,
    ticked: bool,
}

impl Driver {
    /// # Panics
    /// If the settings contradict each other.
    pub fn new(config: DriverConfig) -> Self {
        config.raft(0).validate().expect("the settings fit together");
        Self {
            config,
            recovering: BTreeMap::new(),
            groups: GroupMap::default(),
            dirty: VecDeque::new(),
            actions: VecDeque::new(),
            arena: BytesMut::new(),
            next_ticket: 0,
            heartbeats: BTreeMap::new(),
            ticked: false,
        }
    }

    /// A record of the WAL, in the order of the WAL. `data` is descriptor and payload, `location`
    /// is where it lies.
    pub fn recover_entry(
        &mut self,
        group: RaftGroupId,
        term: Term,
        index: LogIndex,
        data: &[u8],
        location: u64,
    ) -> Result<(), RecoverError> {
        let recovery = self.recovering.entry(group).or_default();
        recovery
            .entry(term.get(), index.get(), data, location)
            .map_err(|source| RecoverError::Entry { group, index: index.get(), source })
    }

    /// A state or snapshot record of the WAL, in the order of the WAL: it acts on the entries
    /// before it.
    pub fn recover_state(&mut self, group: RaftGroupId, data: &[u8]) -> Result<(), RecoverError> {
        let recovery = self.recovering.entry(group).or_default();
        recovery.state(data).map_err(|source| RecoverError::State { group, source })
    }

    /// Ends recovery: the groups found begin to run.
    pub fn start(&mut self) -> Result<(), RecoverError> {
        for (id, recovery) in std::mem::take(&mut self.recovering) {
            if recovery.is_gone() {
                continue;
            }
            if id.get() >= NUMBERS {
                return Err(RecoverError::Number { group: id });
            }
            let storage = recovery.finish(id)?;
            let group = Group::new(id, storage, &self.config);
            group.announce_start(&mut self.actions);
            self.groups.insert(id, group);
            self.mark_dirty(id);
        }
        Ok(())
    }

    /// A group that never existed on this node. Without voters the node is new to it: it waits
    /// until a leader has made it a learner and has sent a snapshot.
    ///
    /// # Panics
    /// If it exists.
    pub fn create_group(&mut self, id: RaftGroupId, voters: &[u64]) {
        let group = Group::new(id, LogStorage::new(voters.to_vec()), &self.config);
        assert!(self.groups.insert(id, group).is_none(), "group {id} exists");
        self.with_group(id, Group::persist_birth);
    }

    /// Forgets a group that this node is not a member of any more; returns the record that says so
    /// to recovery, `None` if there is no such group. What was handed out of it and is not done yet
    /// is not to be reported any more.
    ///
    /// Only once the members of the group have agreed that this node is none of them: it forgets
    /// what it has promised. Made anew it promises nothing before a snapshot says that it is a
    /// member again, and that snapshot stands for all that it had.
    pub fn remove_group(&mut self, id: RaftGroupId) -> Option<Bytes> {
        self.groups.remove(id)?;
        self.dirty.retain(|dirty| *dirty != id);
        Some(encode_gone(&mut self.arena))
    }

    /// Proposes an entry; returns its place in the log, which it keeps unless [`Action::Truncated`]
    /// says otherwise.
    pub fn propose(
        &mut self,
        group: RaftGroupId,
        descriptor: Descriptor,
        payload: Bytes,
    ) -> Result<(Term, LogIndex), ProposeError> {
        debug_assert_eq!(descriptor.verify(&payload), Ok(()));
        let Some(found) = self.groups.get_mut(group) else {
            return Err(ProposeError::NotLeader { leader: None });
        };
        if found.role() != Role::Leader {
            return Err(ProposeError::NotLeader { leader: found.leader() });
        }
        if found.hands_over() {
            return Err(ProposeError::HandingOver);
        }
        if found.unapplied_size() + payload.len() > self.config.payload_window_bytes
            && found.unapplied_size() > 0
        {
            return Err(ProposeError::Busy);
        }
        descriptor.encode(&mut self.arena);
        let data = self.arena.split().freeze();
        let place = found.propose(data, payload).ok_or(ProposeError::Busy)?;
        self.mark_dirty(group);
        Ok(place)
    }

    /// A message from the node `from`. One that is not what it should be is dropped, which raft
    /// takes for a loss.
    pub fn handle_message(&mut self, from: u64, message: Message) {
        let id = message.group();
        let mut body = message.body;
        if body.from != from || body.to != self.config.node {
            return;
        }
        if body.msg_type == MessageType::MsgPropose || !prepare(&mut body.entries) {
            return;
        }
        self.with_group(id, |group, shared| group.step(body, shared));
    }

    /// Does the log hold what a message's entries follow? If not, the answer tells the leader where
    /// to go on from, whatever becomes of the entries.
    pub fn continues(&self, message: &Message) -> bool {
        let (index, term) = (message.body.index, message.body.log_term);
        let group = self.groups.get(message.group());
        group.is_some_and(|group| group.raw.raft.raft_log.match_term(index, term))
    }

    /// Heartbeats of the node `from`, and its answers to those of this one.
    pub fn handle_heartbeats(&mut self, from: u64, all: &Heartbeats) {
        if all.from != from || all.to != self.config.node {
            return;
        }
        for answer in &all.answers {
            let Some(group) = self.groups.get_mut(answer.group) else { continue };
            if !group.note_at_once(from, answer) {
                let body = all.body(MessageType::MsgHeartbeatResponse, answer);
                self.with_group(answer.group, |group, shared| group.step(body, shared));
            }
        }
        for beat in &all.beats {
            let Some(group) = self.groups.get_mut(beat.group) else { continue };
            if let Some(answer) = group.answer_at_once(from, beat) {
                let answers = self.heartbeats.entry(from);
                answers.or_insert_with(|| Heartbeats::new(all.to, from)).answers.push(answer);
            } else {
                let body = all.body(MessageType::MsgHeartbeat, beat);
                self.with_group(beat.group, |group, shared| group.step(body, shared));
            }
        }
    }

    /// One tick of every group's clock.
    pub fn handle_tick(&mut self) {
        self.ticked = true;
        let mut shared = Shared {
            config: &self.config,
            actions: &mut self.actions,
            arena: &mut self.arena,
            next_ticket: &mut self.next_ticket,
            heartbeats: &mut self.heartbeats,
        };
        for (id, group) in self.groups.iter_mut() {
            let stirred = group.tick(&mut shared);
            debug_assert!(stirred || group.dirty || !group.has_work(), "what is not idle is dirty");
            if stirred && group.has_work() && !group.dirty {
                group.dirty = true;
                self.dirty.push_back(id);
            }
        }
    }

    /// The write behind `ticket` is durable, and so is every one of its group before it.
    ///
    /// # Panics
    /// If it is not the group's oldest.
    pub fn handle_persisted(&mut self, ticket: Ticket) {
        self.with_group(ticket.group, |group, shared| group.persisted(ticket, shared));
    }

    /// The answer to [`Action::ReadPayload`]: an entry's data as it lies in the WAL, or `None` if
    /// it cannot be read.
    pub fn handle_payload(
        &mut self,
        group: RaftGroupId,
        term: Term,
        index: LogIndex,
        data: Option<Bytes>,
    ) {
        self.with_group(group, |group, shared| {
            let slot = group.storage().slot(index.get()).filter(|slot| slot.term == term.get());
            let descriptor = slot.and_then(|slot| slot.descriptor);
            let payload = descriptor.zip(data).and_then(|(d, data)| d.carve(&data).ok());
            group.payload_read(term.get(), index.get(), payload, shared);
        });
    }

    /// The WAL has put an entry's data at `location`.
    pub fn placed(&mut self, group: RaftGroupId, index: LogIndex, term: Term, location: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.raw.mut_store().place(index.get(), term.get(), location);
        }
    }

    /// Where an entry's data lies: its location, and the descriptor that stands before the payload.
    /// `None` if the log does not hold the entry, it is not placed yet, or it is a leader's empty
    /// one.
    pub fn location(&self, group: RaftGroupId, index: LogIndex) -> Option<(u64, Descriptor)> {
        let entry = self.entry(group, index)?;
        Some((entry.location?, entry.descriptor?))
    }

    /// What is known of an entry in the log, committed or not.
    pub fn entry(&self, group: RaftGroupId, index: LogIndex) -> Option<LogEntry> {
        let slot = self.groups.get(group)?.storage().slot(index.get())?;
        let (term, location) = (Term::new(slot.term), slot.location());
        Some(LogEntry { term, location, descriptor: slot.of_application() })
    }

    /// An entry's payload, committed or not, if it is in memory: one that is resident is, until it
    /// is applied.
    pub fn payload(&self, group: RaftGroupId, index: LogIndex) -> Option<&Bytes> {
        self.groups.get(group)?.storage().payloads.get(index.get())
    }

    /// The next thing to do. Groups are looked at only when nothing else is left, so that what came
    /// in together goes out together; after a tick the heartbeats of all of them come last.
    pub fn poll_action(&mut self) -> Option<Action> {
        while self.actions.is_empty() {
            let Some(id) = self.dirty.pop_front() else {
                let heartbeats = self.ticked.then(|| self.heartbeats.pop_first()).flatten();
                self.ticked = heartbeats.is_some();
                return heartbeats
                    .map(|(to, heartbeats)| Action::SendHeartbeats { to, heartbeats });
            };
            if let Some(group) = self.groups.get_mut(id) {
                group.dirty = false;
            }
            self.with_group(id, Group::turn);
        }
        self.actions.pop_front()
    }

    /// Messages to a node were lost: what was sent to it since its last answer is sent again.
    pub fn report_unreachable(&mut self, to: u64) {
        for id in self.groups.keys().collect::<Vec<_>>() {
            self.with_group(id, |group, shared| group.unreachable(to, shared));
        }
    }

    /// A node is known to be gone: groups that it leads do not wait as long as they would for one
    /// that is silent. Taking a node that is there for gone costs an election, never safety.
    pub fn handle_node_gone(&mut self, node: u64) {
        let election_ticks = self.config.election_ticks;
        for group in self.groups.values_mut() {
            group.leader_gone(node, election_ticks);
        }
    }

    /// The last entry that a voter is known to have durably; `None` where this node does not lead.
    pub fn matched(&self, group: RaftGroupId, voter: u64) -> Option<LogIndex> {
        self.groups.get(group)?.matched(voter).map(LogIndex::new)
    }

    /// Bytes proposed in this leadership and not applied yet, with something for each entry itself.
    pub fn unapplied_size(&self, group: RaftGroupId) -> usize {
        self.groups.get(group).map_or(0, Group::unapplied_size)
    }

    /// Of the other voters that `may` lead, the one whose log is known to reach furthest; `None` on
    /// a node that does not lead.
    pub fn successor(&self, group: RaftGroupId, may: impl Fn(u64) -> bool) -> Option<u64> {
        self.groups.get(group)?.successor(may)
    }

    /// Hands leadership of a group to another voter; nothing happens on a node that does not lead.
    pub fn transfer_leader(&mut self, group: RaftGroupId, to: u64) {
        self.with_group(group, |group, shared| {
            if group.role() == Role::Leader {
                group.transfer_leader(to, shared);
            }
        });
    }

    /// Has a majority, without this node, what is not durable here yet?
    pub fn commits_without_own_disk(&self, group: RaftGroupId) -> bool {
        let log = self.groups.get(group).map(|group| &group.raw.raft.raft_log);
        log.is_some_and(|log| log.committed > log.persisted)
    }

    /// Who takes part in a group, by all that is applied here.
    pub fn members(&self, group: RaftGroupId) -> Option<&Members> {
        self.groups.get(group).map(Group::members)
    }

    /// The entry since which it has been they; where the log begins, if none in it changed that.
    pub fn members_since(&self, group: RaftGroupId) -> LogIndex {
        let since = self.groups.get(group).map(|group| group.storage().members_since());
        LogIndex::new(since.unwrap_or(0))
    }

    /// This node's number among the members of its groups.
    pub fn node(&self) -> u64 {
        self.config.node
    }

    /// Does the snapshot under a group's log name that member? Only then does it take it.
    pub fn snapshot_names(&self, group: RaftGroupId, member: u64) -> bool {
        self.groups.get(group).is_some_and(|group| group.storage().snapshot_names(member))
    }

    /// Proposes a change of a group's members; `None` unless this node leads, has applied all that
    /// came before, and the change makes sense. It takes effect where it is applied.
    pub fn propose_change(
        &mut self,
        group: RaftGroupId,
        change: MemberChange,
    ) -> Option<(Term, LogIndex)> {
        let found = self.groups.get_mut(group).filter(|group| group.role() == Role::Leader)?;
        let place = found.propose_change(change, &mut self.arena)?;
        self.mark_dirty(group);
        Some(place)
    }

    /// Lets `snapshot` stand for the log up to `index`, which is applied. [`Action::Compacted`]
    /// follows once that is durable; only then may the WAL drop the entries.
    pub fn compact(
        &mut self,
        group: RaftGroupId,
        index: LogIndex,
        snapshot: Bytes,
    ) -> Result<(), CompactError> {
        let found = self.groups.get(group).ok_or(CompactError::UnknownGroup)?;
        let (first, applied) = (found.storage().first(), found.applied());
        if index.get() < first || index.get() > applied {
            let (first, applied) = (LogIndex::new(first), LogIndex::new(applied));
            return Err(CompactError::Range { first, applied });
        }
        if snapshot.len() > SNAPSHOT_SIZE_MAX {
            return Err(CompactError::TooLarge);
        }
        self.with_group(group, |group, shared| group.compact(index.get(), snapshot, shared));
        Ok(())
    }

    /// The snapshot that stands for the log up to an index, if the log was ever compacted.
    pub fn snapshot(&self, group: RaftGroupId) -> Option<(LogIndex, Bytes)> {
        let record = self.groups.get(group)?.storage().snapshot_record();
        (record.mark.index > 0).then(|| (LogIndex::new(record.mark.index), record.data))
    }

    /// Writes a group's snapshot and state records again. They are read back only from what the WAL
    /// still holds: before it drops a prefix, every group whose records lie in there is rewritten.
    /// [`Action::Compacted`] follows once that is durable.
    pub fn rewrite_state(&mut self, group: RaftGroupId) {
        self.with_group(group, Group::rewrite_state);
    }

    pub fn has_group(&self, group: RaftGroupId) -> bool {
        self.groups.contains(group)
    }

    /// The groups of this shard, in order.
    pub fn groups(&self) -> impl Iterator<Item = RaftGroupId> + '_ {
        self.groups.keys()
    }

    /// Index up to which a majority is known to be durable; 0 if the group is unknown.
    pub fn committed(&self, group: RaftGroupId) -> LogIndex {
        LogIndex::new(self.groups.get(group).map_or(0, Group::committed))
    }

    /// Last index handed out with [`Action::Apply`], or that the last installed snapshot stands
    /// for.
    pub fn applied(&self, group: RaftGroupId) -> LogIndex {
        LogIndex::new(self.groups.get(group).map_or(0, Group::applied))
    }

    /// Term of the entry at [`Self::applied`]. If it is the present one, everything is applied that
    /// was committed in earlier terms.
    pub fn applied_term(&self, group: RaftGroupId) -> Term {
        let group = self.groups.get(group);
        let term = group.and_then(|group| group.storage().term(group.applied()).ok());
        Term::new(term.unwrap_or(0))
    }

    /// First index still in the log; 1 for a log that was never compacted.
    pub fn first_index(&self, group: RaftGroupId) -> LogIndex {
        LogIndex::new(self.groups.get(group).map_or(1, |group| group.storage().first()))
    }

    /// Last index in the log, committed or not.
    pub fn last_index(&self, group: RaftGroupId) -> LogIndex {
        LogIndex::new(self.groups.get(group).map_or(0, |group| group.storage().last()))
    }

    pub fn term(&self, group: RaftGroupId) -> Term {
        Term::new(self.groups.get(group).map_or(0, |group| group.raw.raft.term))
    }

    pub fn role(&self, group: RaftGroupId) -> Role {
        self.groups.get(group).map_or(Role::Follower, Group::role)
    }

    /// The leader this node knows of.
    pub fn leader(&self, group: RaftGroupId) -> Option<u64> {
        self.groups.get(group).and_then(Group::leader)
    }

    /// Lets a group work, and notes it if it has something to hand out. Nothing happens if there is
    /// none.
    fn with_group(&mut self, id: RaftGroupId, work: impl FnOnce(&mut Group, &mut Shared<'_>)) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let mut shared = Shared {
            config: &self.config,
            actions: &mut self.actions,
            arena: &mut self.arena,
            next_ticket: &mut self.next_ticket,
            heartbeats: &mut self.heartbeats,
        };
        work(group, &mut shared);
        if group.has_work() {
            self.mark_dirty(id);
        }
    }

    fn mark_dirty(&mut self, id: RaftGroupId) {
        if let Some(group) = self.groups.get_mut(id).filter(|group| !group.dirty) {
            group.dirty = true;
            self.dirty.push_back(id);
        }
    }
}

/// Checks that every payload is the one its descriptor names, since raft must never hold an entry
/// without its bytes, and tells raft what each entry is.
fn prepare(entries: &mut [raft::eraftpb::Entry]) -> bool {
    entries.iter_mut().all(|entry| {
        if entry.data.is_empty() {
            return entry.context.is_empty();
        }
        Descriptor::decode(&entry.data).is_ok_and(|descriptor| {
            entry.entry_type = entry_type(&descriptor);
            descriptor.verify(&entry.context).is_ok()
        })
    })
}
