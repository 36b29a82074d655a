//! One raft group on this node: the raft library's state machine and what it waits for.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use model::{LogIndex, RaftGroupId, Term};
use raft::eraftpb::{Entry, EntryType, Message as Body, MessageType, Snapshot};
use raft::{RawNode, Ready, SnapshotStatus, StateRole, Storage};

use crate::action::{Action, CommittedEntry, PersistEntry, Role, Ticket};
use crate::descriptor::Descriptor;
use crate::driver::DriverConfig;
use crate::heartbeats::{Heartbeats, is_heartbeat};
use crate::held::HeldMessages;
use crate::members::{MemberChange, Members};
use crate::state::{Mark, SnapshotRecord};
use crate::storage::{LogStorage, Slot};

/// What an entry counts for in the payload window beside its payload.
const ENTRY_WEIGHT: usize = 96;

/// What the groups of a driver share while one of them works.
pub(crate) struct Shared<'a> {
    pub(crate) config: &'a DriverConfig,
    pub(crate) actions: &'a mut VecDeque<Action>,
    pub(crate) arena: &'a mut BytesMut,
    pub(crate) next_ticket: &'a mut u64,
    /// By the node that they are for.
    pub(crate) heartbeats: &'a mut BTreeMap<u64, Heartbeats>,
}

pub(crate) struct Group {
    pub(crate) id: RaftGroupId,
    pub(crate) raw: RawNode<LogStorage>,
    /// Whether the driver's dirty list holds this group.
    pub(crate) dirty: bool,
    /// What becomes valid once a write is durable, in the order of the writes.
    pending: VecDeque<Pending>,
    /// A snapshot is on its way to the disk; raft takes no step and no tick until it is durable.
    pub(crate) barrier: bool,
    pub(crate) held: HeldMessages,
    /// The largest commit index that was announced.
    announced_commit: u64,
    announced_role: (Role, Term, Option<u64>),
    /// Term, vote and commit index of the last state record.
    written: (u64, u64, u64),
    /// Bytes proposed in this leadership that are not applied yet.
    unapplied_size: usize,
    /// Ticks so far; a part of what election timeouts are drawn from.
    pub(crate) ticks: u64,
}

/// The rest of a Ready (or of a compaction), to be done after its write.
#[derive(Default)]
struct Pending {
    /// `None`: nothing of its own is written, it only waits for those before it.
    ticket: Option<u64>,
    ready: Option<u64>,
    messages: Vec<Body>,
    installed: Option<SnapshotRecord>,
    compacted: Option<u64>,
}

impl Group {
    pub(crate) fn new(id: RaftGroupId, storage: LogStorage, config: &DriverConfig) -> Self {
        let mark = storage.mark().index;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config.raft(mark), storage, &logger)
            .expect("the configuration is checked and the storage never fails");
        let mut group = Self {
            id,
            announced_role: (Role::Follower, Term::new(raw.raft.term), None),
            written: hard_of(raw.store()),
            raw,
            dirty: false,
            pending: VecDeque::new(),
            barrier: false,
            held: HeldMessages::default(),
            announced_commit: mark,
            unapplied_size: 0,
            ticks: 0,
        };
        group.draw_election_timeout(config);
        group
    }

    pub(crate) fn storage(&self) -> &LogStorage {
        self.raw.store()
    }

    pub(crate) fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        (self.raw.raft.leader_id != raft::INVALID_ID).then_some(self.raw.raft.leader_id)
    }

    pub(crate) fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Bytes proposed in this leadership that are not applied yet, with something for each entry
    /// itself.
    pub(crate) fn unapplied_size(&self) -> usize {
        self.unapplied_size
    }

    /// Last index handed out with [`Action::Apply`].
    pub(crate) fn applied(&self) -> u64 {
        self.raw.raft.raft_log.applied()
    }

    /// Tells the application what it starts from: the snapshot under the log, if there is one.
    pub(crate) fn announce_start(&self, actions: &mut VecDeque<Action>) {
        let SnapshotRecord { mark, data, .. } = self.storage().snapshot_record();
        if mark != Mark::default() {
            actions.push_back(install(self.id, mark, data));
        }
    }

    /// Writes the first state of a new group, so that a restart finds it.
    pub(crate) fn persist_birth(&mut self, shared: &mut Shared<'_>) {
        let state = self.storage().hard_record().encode(shared.arena);
        let ticket = self.persist(Vec::new(), None, Some(state), shared);
        self.pending.push_back(Pending { ticket: Some(ticket), ..Pending::default() });
    }

    /// Whether raft has something to hand out now.
    pub(crate) fn has_work(&self) -> bool {
        !self.barrier && (self.raw.has_ready() || self.is_alone_and_idle())
    }

    /// Hands out one Ready. A snapshot is handed out at once, before anything else is stepped.
    pub(crate) fn turn(&mut self, shared: &mut Shared<'_>) {
        if self.barrier {
            return;
        }
        if self.raw.has_ready() {
            self.hand_out(shared);
        } else if self.is_alone_and_idle() {
            // A single voter has nobody to wait for. It campaigns once everything known to be
            // committed is applied, because raft looks through what is not.
            self.raw.campaign().expect("a local message is never refused");
        }
        self.after_step(shared);
        self.announce_commit(shared.actions);
    }

    /// Steps a message from another node; every payload has been verified.
    pub(crate) fn step(&mut self, body: Body, shared: &mut Shared<'_>) {
        if self.barrier || (self.members().is_empty() && !is_for_new(&body)) {
            return;
        }
        // What raft refuses (an unknown sender, for one) is as good as lost on the way.
        let _ = self.raw.step(body);
        if self.raw.snap().is_some() {
            self.hand_out(shared);
        }
        self.after_step(shared);
    }

    /// Is there anything of this group that the disk has not done yet?
    pub(crate) fn awaits_disk(&self) -> bool {
        self.barrier || !self.pending.is_empty()
    }

    /// Proposes an entry on the leader; its index, or `None` if raft has no room for it now.
    pub(crate) fn propose(&mut self, data: Bytes, payload: Bytes) -> Option<(Term, LogIndex)> {
        let weight = ENTRY_WEIGHT + payload.len();
        let place = self.step_proposal(data, payload)?;
        self.unapplied_size += weight;
        Some(place)
    }

    /// Proposes a change of members on the leader; `None` unless it makes sense, the one before it
    /// and all that earlier leaders committed are applied, and raft takes it.
    pub(crate) fn propose_change(
        &mut self,
        change: MemberChange,
        arena: &mut BytesMut,
    ) -> Option<(Term, LogIndex)> {
        let raft = &self.raw.raft;
        let applied_term = self.storage().term(self.applied()).ok()?;
        if raft.has_pending_conf() || applied_term != raft.term || !self.members().allow(change) {
            return None;
        }
        change.descriptor().encode(arena);
        let place = self.step_proposal(arena.split().freeze(), Bytes::new())?;
        // raft would read what it is told to be a change as protobuf: it is told afterwards.
        let raft = &mut self.raw.raft;
        let entry = raft.raft_log.unstable.entries.last_mut().expect("it was just appended");
        entry.entry_type = EntryType::EntryConfChangeV2;
        raft.pending_conf_index = place.1.get();
        Some(place)
    }

    fn step_proposal(&mut self, data: Bytes, payload: Bytes) -> Option<(Term, LogIndex)> {
        let entry = Entry { data, context: payload, ..Entry::default() };
        let body = Body {
            msg_type: MessageType::MsgPropose,
            from: self.raw.raft.id,
            entries: vec![entry].into(),
            ..Body::default()
        };
        self.raw.step(body).ok()?;
        let index = self.raw.raft.raft_log.last_index();
        Some((Term::new(self.raw.raft.term), LogIndex::new(index)))
    }

    /// The write behind `ticket` is durable, and so is every one before it.
    pub(crate) fn persisted(&mut self, ticket: Ticket, shared: &mut Shared<'_>) {
        let front = self.pending.front().and_then(|pending| pending.ticket);
        assert_eq!(front, Some(ticket.number), "writes of a group complete in order");
        // Those without a ticket waited only for this one.
        while let Some(pending) = self.pending.pop_front() {
            self.complete(pending, shared);
            if self.pending.front().is_none_or(|next| next.ticket.is_some()) {
                break;
            }
        }
        self.after_step(shared);
    }

    /// Messages to a voter were lost.
    pub(crate) fn unreachable(&mut self, to: u64, shared: &mut Shared<'_>) {
        if !self.barrier && self.role() == Role::Leader {
            self.raw.report_unreachable(to);
            self.after_step(shared);
        }
    }

    /// The last entry that a voter is known to have durably, if this node leads.
    pub(crate) fn matched(&self, voter: u64) -> Option<u64> {
        let progress = self.raw.raft.prs().get(voter).filter(|_| self.role() == Role::Leader)?;
        Some(progress.matched)
    }

    /// The voter to hand over to, if this node leads.
    pub(crate) fn successor(&self, may: impl Fn(u64) -> bool) -> Option<u64> {
        if self.role() != Role::Leader {
            return None;
        }
        let progress = self.raw.raft.prs().iter();
        let voters = &self.members().voters;
        let own = self.raw.raft.id;
        let others = progress.filter(|(id, _)| **id != own && voters.contains(id) && may(**id));
        // Of two that know as much, the lower number.
        let best = others.max_by_key(|(id, progress)| (progress.matched, std::cmp::Reverse(**id)));
        best.map(|(id, _)| *id)
    }

    /// Takes the leader no entries, since another voter is about to lead?
    pub(crate) fn hands_over(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// Hands leadership over, or lets a transfer that is under way go on.
    pub(crate) fn transfer_leader(&mut self, to: u64, shared: &mut Shared<'_>) {
        self.raw.transfer_leader(to);
        self.after_step(shared);
    }

    /// Drops the log up to `index`, which is applied, in favour of a snapshot.
    pub(crate) fn compact(&mut self, index: u64, snapshot: Bytes, shared: &mut Shared<'_>) {
        self.raw.mut_store().compact(index, snapshot);
        self.rewrite_state(shared);
    }

    /// Writes snapshot and state again, at the end of the WAL.
    pub(crate) fn rewrite_state(&mut self, shared: &mut Shared<'_>) {
        let index = self.storage().mark().index;
        let snapshot = self.storage().snapshot_record().encode(shared.arena);
        let state = self.storage().hard_record().encode(shared.arena);
        let ticket = self.persist(Vec::new(), Some(snapshot), Some(state), shared);
        let (ticket, compacted) = (Some(ticket), Some(index));
        self.pending.push_back(Pending { ticket, compacted, ..Pending::default() });
    }

    /// One entry of one follower was found, or not.
    pub(crate) fn payload_read(
        &mut self,
        term: u64,
        index: u64,
        payload: Option<Bytes>,
        shared: &mut Shared<'_>,
    ) {
        if payload.is_none() {
            for to in self.held.abandon(term, index) {
                self.raw.report_unreachable(to);
            }
        } else if let Some(payload) = payload {
            self.held.fill(term, index, &payload);
        }
        self.held.release(self.id, shared.actions);
        self.after_step(shared);
    }

    /// The Ready loop's body, in the order that raft-rs asks for.
    fn hand_out(&mut self, shared: &mut Shared<'_>) {
        let mut ready = self.raw.ready();
        let mut pending = Pending { ready: Some(ready.number()), ..Pending::default() };
        pending.installed = self.install_snapshot(&ready);
        let entries = self.append(&mut ready, shared);
        let worth_it = !entries.is_empty() || self.changes_members(ready.committed_entries());
        let state = self.next_state(&ready, worth_it);
        let state = state.then(|| self.storage().hard_record().encode(shared.arena));
        let record = pending.installed.as_ref().map(|snapshot| snapshot.encode(shared.arena));
        if !entries.is_empty() || state.is_some() || record.is_some() {
            pending.ticket = Some(self.persist(entries, record, state, shared));
        }
        let messages = ready.take_messages();
        let committed = ready.take_committed_entries();
        pending.messages = ready.take_persisted_messages();
        self.raw.advance_append_async(ready);
        self.apply(&committed, shared);
        self.send(messages, shared);
        self.barrier = pending.installed.is_some();
        if pending.ticket.is_none() && self.pending.is_empty() {
            self.complete(pending, shared);
        } else {
            self.pending.push_back(pending);
        }
    }

    /// A snapshot of the leader replaces the log before raft is told to go on.
    fn install_snapshot(&mut self, ready: &Ready) -> Option<SnapshotRecord> {
        if ready.snapshot().is_empty() {
            return None;
        }
        let snapshot = snapshot_record(ready.snapshot());
        self.raw.mut_store().install(&snapshot);
        self.held.clear();
        Some(snapshot)
    }

    /// Puts new entries where raft and the WAL find them.
    fn append(&mut self, ready: &mut Ready, shared: &mut Shared<'_>) -> Vec<PersistEntry> {
        let entries = ready.take_entries();
        let Some(first) = entries.first() else { return Vec::new() };
        let storage = self.raw.mut_store();
        if first.index <= storage.last() {
            storage.truncate(first.index);
            let from = LogIndex::new(first.index);
            shared.actions.push_back(Action::Truncated { group: self.id, from });
        }
        let mut persist = Vec::with_capacity(entries.len());
        for entry in entries {
            let descriptor = (!entry.data.is_empty())
                .then(|| Descriptor::decode(&entry.data).expect("checked before it was stepped"));
            storage.append(Slot::new(entry.term, descriptor), entry.context.clone());
            persist.push(PersistEntry {
                term: Term::new(entry.term),
                index: LogIndex::new(entry.index),
                descriptor: entry.data,
                payload: entry.context,
                payload_crc: descriptor.map_or(0, |it| it.payload_crc),
            });
        }
        persist
    }

    /// Notes the hard state, and says whether to write it. A new term or vote is written at once; a
    /// commit index alone is not worth a write, because raft finds it again, but goes along with
    /// entries: a log that ends below it is then known to have lost something. And with a change of
    /// members: raft would find it by the vote of those who have left, who may be gone for good.
    fn next_state(&mut self, ready: &Ready, worth_it: bool) -> bool {
        let storage = self.raw.mut_store();
        if let Some(hard) = ready.hs() {
            storage.hard.clone_from(hard);
        }
        let (written, hard) = (self.written, hard_of(storage));
        let voted = (written.0, written.1) != (hard.0, hard.1);
        let write = voted || !ready.snapshot().is_empty() || (worth_it && written != hard);
        if write {
            self.written = hard;
        }
        write
    }

    fn persist(
        &mut self,
        entries: Vec<PersistEntry>,
        snapshot: Option<Bytes>,
        state: Option<Bytes>,
        shared: &mut Shared<'_>,
    ) -> u64 {
        *shared.next_ticket += 1;
        let ticket = Ticket { group: self.id, number: *shared.next_ticket };
        let group = self.id;
        shared.actions.push_back(Action::Persist { group, ticket, entries, snapshot, state });
        ticket.number
    }

    fn complete(&mut self, pending: Pending, shared: &mut Shared<'_>) {
        if let Some(number) = pending.ready {
            self.raw.on_persist_ready(number);
        }
        if let Some(SnapshotRecord { mark, data, .. }) = pending.installed {
            self.raw.advance_apply_to(mark.index);
            self.barrier = false;
            shared.actions.push_back(install(self.id, mark, data));
        }
        if let Some(index) = pending.compacted {
            let index = LogIndex::new(index);
            shared.actions.push_back(Action::Compacted { group: self.id, index });
        }
        self.send(pending.messages, shared);
    }

    fn apply(&mut self, committed: &[Entry], shared: &mut Shared<'_>) {
        let Some(last) = committed.last() else { return };
        let storage = self.raw.store();
        let entries = committed.iter().map(|entry| CommittedEntry {
            term: Term::new(entry.term),
            index: LogIndex::new(entry.index),
            descriptor: storage.slot(entry.index).and_then(Slot::of_application),
            payload: storage.payloads.get(entry.index).cloned(),
        });
        let (group, entries): (_, Vec<CommittedEntry>) = (self.id, entries.collect());
        committed.iter().for_each(|entry| self.change_members(entry.index));
        self.unapplied_size -= applied_weight(&entries, self.announced_role);
        self.announce_commit(shared.actions);
        shared.actions.push_back(Action::Apply { group, entries });
        self.raw.advance_apply_to(last.index);
    }

    fn changes_members(&self, committed: &[Entry]) -> bool {
        let slots = committed.iter().filter_map(|entry| self.storage().slot(entry.index));
        slots.filter_map(|slot| slot.descriptor).any(|descriptor| descriptor.changes_members)
    }

    /// If the entry is a change of members, it takes effect. One that makes no sense any more
    /// changes nothing, on every node.
    fn change_members(&mut self, index: u64) {
        let descriptor = self.storage().slot(index).and_then(|slot| slot.descriptor);
        let change = descriptor.as_ref().and_then(MemberChange::of);
        let Some(change) = change.filter(|change| self.members().allow(*change)) else { return };
        let state = self.raw.raft.apply_conf_change(&change.to_raft());
        let state = state.expect("raft takes what makes sense");
        self.raw.mut_store().set_members(index, Members::from_raft(&state));
        let (own, term) = (self.raw.raft.id, self.raw.raft.term);
        if self.role() == Role::Leader && !self.members().is_voter(own) {
            // raft-rs would lead on, and panic where it looks for its own progress.
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    fn send(&mut self, messages: Vec<Body>, shared: &mut Shared<'_>) {
        for body in messages {
            if is_heartbeat(&body) {
                let all = shared.heartbeats.entry(body.to);
                all.or_insert_with(|| Heartbeats::new(body.from, body.to)).add(self.id, &body);
                continue;
            }
            let (to, is_snapshot) = (body.to, body.msg_type == MessageType::MsgSnapshot);
            let storage = self.raw.store();
            if !self.held.send(self.id, body, storage, shared.actions) {
                self.raw.report_unreachable(to);
            }
            // A snapshot is one small message. Whether it arrived shows in the follower's answer to
            // the next append; without a report raft would wait for ever.
            if is_snapshot {
                self.raw.report_snapshot(to, SnapshotStatus::Finish);
            }
        }
    }

    pub(crate) fn after_step(&mut self, shared: &mut Shared<'_>) {
        self.announce_role(shared.actions);
        self.release_payloads(shared.config);
        self.draw_election_timeout(shared.config);
    }

    /// Only after a Ready was handed out: entries that this commit index covers may have replaced
    /// others, and whoever waits for those must hear of [`Action::Truncated`] first.
    fn announce_commit(&mut self, actions: &mut VecDeque<Action>) {
        let committed = self.committed();
        if committed > self.announced_commit && !self.barrier {
            self.announced_commit = committed;
            let (group, index) = (self.id, LogIndex::new(committed));
            actions.push_back(Action::Committed { group, index });
        }
    }

    fn announce_role(&mut self, actions: &mut VecDeque<Action>) {
        let now = (self.role(), Term::new(self.raw.raft.term), self.leader());
        if now != self.announced_role {
            if (now.0, now.1) != (self.announced_role.0, self.announced_role.1) {
                self.unapplied_size = 0;
            }
            self.announced_role = now;
            let (role, term, leader) = now;
            actions.push_back(Action::RoleChanged { group: self.id, role, term, leader });
        }
    }

    /// A single voter keeps nothing that is applied and durable; others keep some for their
    /// followers.
    fn release_payloads(&mut self, config: &DriverConfig) {
        let log = &self.raw.raft.raft_log;
        let to = log.applied().min(log.persisted);
        let keep = if self.is_alone() { 0 } else { config.payload_cache_bytes };
        self.raw.mut_store().release_placed(to, keep);
    }

    pub(crate) fn members(&self) -> &Members {
        self.storage().members()
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.members().are_only(self.raw.raft.id)
    }

    fn is_alone_and_idle(&self) -> bool {
        self.is_alone() && self.raw.raft.state != StateRole::Leader
    }
}

/// May a node that is new to its group take a message? Who takes part stands in a snapshot, not in
/// the first entries: it begins with one, and refuses later entries, so that the leader sends one.
/// It may have been a member before, and have forgotten whom it voted for and what it had: it does
/// not vote, nor believe a leader that counts on what it had.
fn is_for_new(body: &Body) -> bool {
    match body.msg_type {
        MessageType::MsgSnapshot => true,
        MessageType::MsgAppend => body.index > 0,
        MessageType::MsgHeartbeat => body.commit == 0,
        _ => false,
    }
}

/// What applied entries weighed when they were proposed: those of this node's own leadership.
fn applied_weight(entries: &[CommittedEntry], now: (Role, Term, Option<u64>)) -> usize {
    let (role, term, _) = now;
    if role != Role::Leader {
        return 0;
    }
    let own = entries.iter().filter(|entry| entry.term == term);
    own.filter_map(|entry| entry.descriptor)
        .map(|descriptor| ENTRY_WEIGHT + descriptor.payload_len as usize)
        .sum()
}

fn install(group: RaftGroupId, mark: Mark, data: Bytes) -> Action {
    let (index, term) = (LogIndex::new(mark.index), Term::new(mark.term));
    Action::InstallSnapshot { group, index, term, data }
}

fn hard_of(storage: &LogStorage) -> (u64, u64, u64) {
    (storage.hard.term, storage.hard.vote, storage.hard.commit)
}

fn snapshot_record(snapshot: &Snapshot) -> SnapshotRecord {
    let metadata = snapshot.get_metadata();
    let mark = Mark { index: metadata.index, term: metadata.term };
    let members = Members::from_raft(metadata.get_conf_state());
    SnapshotRecord { mark, members, data: snapshot.data.clone() }
}
