//! The shard's WAL and its raft groups, tied together: what raft wants persisted goes into the WAL
//! in order, and raft hears of it when the WAL's durable LSN has passed it.
//!
//! **Invariant**: raft's `handle_persisted` follows the device's completion, never the submission.
//! With the commit rule of raft this is what makes an acknowledgement mean "durable on a majority".

mod comings_and_goings;
mod other_voters;
mod slow_disk;
mod steps;
mod streams;
mod ticks;
mod trim;
mod writes;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use model::{LogIndex, RaftGroupId, Term};
use replication::{
    Action, CommittedEntry, CompactError, Descriptor, Driver, GroupMap, Heartbeats, LogEntry,
    Message, PersistEntry, ProposeError, Role, Ticket,
};
use s3_uploader::{FailPoint, fail_point};
use uring::DiskDone;
use wal_uring::{AppendError, Disk, Location, Lsn, Part, ReadError, Record, StreamId, Wal};

use self::slow_disk::SlowDisk;
use self::steps::{Step, Steps};
pub(crate) use self::streams::{group_of, snapshot_stream, stream};
use self::ticks::{Tick, Ticks};
use self::writes::Writes;
use super::catch_up::CatchUp;
use super::log_event::LogEvent;
use super::wal_room::{WalRoom, WriteRate};
use crate::metrics::{Metric, ShardMetrics};
use crate::partition::{KIND_EDIT, entry_kind};

/// Bytes proposed and not yet taken by the WAL; past that proposals are refused.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// Bytes that raft writes around a snapshot, with room for its voters.
const SNAPSHOT_FRAME_SIZE: usize = 1024;

/// Why an entry was not proposed. Nothing was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    NotLeader,
    TooLarge,
    /// The WAL has no room until something is trimmed, or cannot keep up.
    Full,
    /// Too much waits for other brokers.
    Behind,
}

/// What the frames take that an edit and the state after it are written in, beside their bytes.
const FRAMES_OF_EDIT: u64 = 64 << 10;

/// How far an entry may fill the WAL. A full log must not keep topics from being deleted or groups
/// from committing offsets, and least of all the manifest from saying what may be trimmed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Claim {
    /// A client's batch: leaves a whole segment free to other entries.
    Client,
    /// An entry of the broker's own: may use that one.
    Broker,
    /// An edit of the manifest: may use one more, that the WAL keeps for what is vital.
    Edit,
}

/// Whether an entry of a data group must find room when no other does, as those of group 0 do: the
/// first one of a leader, without which the log would not even be read, edits, which say what may
/// be trimmed, and changes of members.
fn is_vital(descriptor: &[u8]) -> bool {
    let is_vital = |it: Descriptor| it.changes_members || entry_kind(&it.app) == Some(KIND_EDIT);
    Descriptor::decode(descriptor).map_or(true, is_vital)
}

/// See the module's text.
pub(crate) struct ReplicatedLog {
    wal: Wal,
    room: WalRoom,
    write_rate: WriteRate,
    driver: Driver,
    /// Groups of this shard and whether each has applied an entry of its current term.
    groups: GroupMap<GroupState>,
    steps: Steps,
    queued_bytes: usize,
    /// Proposed since raft was last asked what to write: on the way into `steps`.
    proposed_bytes: usize,
    /// Where the last record that the WAL took ends: beyond what is written, as long as its frame
    /// is open.
    appended_end: Lsn,
    /// Where the latest state record of each stream lies: recovery needs it, so it is not trimmed.
    states: BTreeMap<StreamId, Lsn>,
    /// Groups whose state records are being written again, so that the WAL can be trimmed; once for
    /// each time.
    rewriting: Vec<RaftGroupId>,
    /// Groups that were removed, and where the record that says so ends, once the WAL has it. Until
    /// it is durable nothing is trimmed: what would be left of such a group makes no sense.
    forgetting: BTreeMap<RaftGroupId, Option<Lsn>>,
    /// Writes with snapshots that are not durable: until then the log begins where it did before,
    /// whatever raft says.
    snapshots: Vec<Ticket>,
    /// Taken by the WAL and not yet durable there.
    unpersisted: VecDeque<(Lsn, Ticket, Instant)>,
    events: VecDeque<LogEvent>,
    /// For other brokers, by their number among the voters.
    outgoing: Vec<(u64, Message)>,
    heartbeats: Vec<(u64, Heartbeats)>,
    writes: Writes,
    catch_up: CatchUp,
    followers_have_room: bool,
    slow_disk: SlowDisk,
    /// By voter: when it was last heard.
    heard: BTreeMap<u64, Instant>,
    ticks: Ticks,
}

/// As the shard knows it: it moves on with the events that the shard took, so that a broker leads
/// only when its shard has heard of all that is in the log.
struct GroupState {
    /// This broker leads the group in this term.
    leads: Option<Term>,
    /// An entry of the term in which it leads is applied: so is everything before it.
    caught_up: bool,
    /// The log up to here was compacted when this broker started.
    compacted: LogIndex,
}

impl ReplicatedLog {
    /// `driver` has recovered all groups from `wal`, whose latest state records are at `states`.
    pub(crate) fn new(
        wal: Wal,
        driver: Driver,
        groups: impl IntoIterator<Item = RaftGroupId>,
        states: BTreeMap<StreamId, Lsn>,
        has_peers: bool,
        reserve_percent: u32,
        now: Instant,
    ) -> Self {
        let groups =
            groups.into_iter().map(|group| (group, GroupState::new(&driver, group))).collect();
        Self {
            appended_end: wal.durable_lsn(),
            room: WalRoom::new(wal.capacity(), wal.segment_size(), reserve_percent),
            write_rate: WriteRate::new(now),
            wal,
            driver,
            groups,
            steps: Steps::default(),
            queued_bytes: 0,
            proposed_bytes: 0,
            states,
            rewriting: Vec::new(),
            forgetting: BTreeMap::new(),
            snapshots: Vec::new(),
            unpersisted: VecDeque::new(),
            events: VecDeque::new(),
            outgoing: Vec::new(),
            heartbeats: Vec::new(),
            writes: Writes::default(),
            catch_up: CatchUp::default(),
            followers_have_room: true,
            slow_disk: SlowDisk::default(),
            heard: BTreeMap::new(),
            ticks: Ticks::new(has_peers, now),
        }
    }

    /// The term in which this broker leads a group.
    pub(crate) fn leads(&self, group: RaftGroupId) -> Option<Term> {
        self.groups.get(group)?.leads
    }

    /// The groups of this shard.
    pub(crate) fn groups(&self) -> Vec<RaftGroupId> {
        self.groups.keys().collect()
    }

    /// Is everything applied that was committed before the present leader's term?
    pub(crate) fn is_current(&self, group: RaftGroupId) -> bool {
        self.driver.leader(group).is_some()
            && self.driver.applied_term(group) == self.driver.term(group)
    }

    /// Does this broker lead a group, with all that earlier leaders committed applied?
    pub(crate) fn has_caught_up(&self, group: RaftGroupId) -> bool {
        self.groups.get(group).is_some_and(|state| state.caught_up)
    }

    /// Is every group led in which this broker takes part: by this one, with all that earlier
    /// leaders committed applied, or by another? Of a group that it has left, or is to join, it
    /// may hear nothing.
    pub(crate) fn all_led(&self) -> bool {
        self.groups.iter().all(|(group, state)| match state.leads {
            Some(_) => state.caught_up,
            None => !self.misses_leader(group),
        })
    }

    /// Groups in which this broker takes part, and that nobody leads for all it knows.
    pub(crate) fn leaderless_count(&self) -> usize {
        self.groups.keys().filter(|group| self.misses_leader(*group)).count()
    }

    fn misses_leader(&self, group: RaftGroupId) -> bool {
        let own = self.driver.node();
        self.driver.leader(group).is_none()
            && self.driver.members(group).is_some_and(|it| it.contains(own))
    }

    /// Proposes an entry; returns its place in the group's log. What raft has taken has to find its
    /// place in the WAL, so room is made sure of here.
    pub(crate) fn propose(
        &mut self,
        group: RaftGroupId,
        claim: Claim,
        descriptor: Descriptor,
        payload: Bytes,
    ) -> Result<(Term, LogIndex), Refused> {
        if self.leads(group) != Some(self.driver.term(group)) {
            return Err(Refused::NotLeader);
        }
        let size = payload.len() + descriptor.encoded_size();
        if size > self.wal.entry_size_max() {
            return Err(Refused::TooLarge);
        }
        let queued = self.queued_bytes + self.proposed_bytes + size;
        let (room, kept_free) = match claim {
            Claim::Client => (self.wal.room(), self.kept_from_clients()),
            Claim::Broker => (self.wal.room(), 0),
            Claim::Edit => (self.wal.vital_room(), FRAMES_OF_EDIT),
        };
        let has_room = queued <= QUEUED_BYTES_MAX && room >= kept_free + 2 * queued as u64;
        if !has_room {
            return Err(Refused::Full);
        }
        if claim == Claim::Client {
            self.check_followers(group, size)?;
        }
        let proposed = self.driver.propose(group, descriptor, payload);
        let place = proposed.map_err(|error| match error {
            ProposeError::NotLeader { .. } => Refused::NotLeader,
            // It leads, all but: clients are to look for the next one at once.
            ProposeError::HandingOver if claim == Claim::Client => Refused::NotLeader,
            ProposeError::HandingOver | ProposeError::Busy => Refused::Full,
        })?;
        self.proposed_bytes += size;
        Ok(place)
    }

    /// Milliseconds for which a producer should hold back, given how full the WAL is.
    pub(crate) fn throttle_ms(&self) -> i32 {
        self.room.throttle_ms(self.wal.used())
    }

    /// The WAL is so full that an object should be made of what there is, and a segment is full
    /// since the last object was begun, at `written`.
    pub(crate) fn wants_offload(&self, written: Lsn) -> bool {
        let (end, segment) = (self.appended_end, self.wal.segment_size());
        // What is written since decides too, or a log that cannot be trimmed would be offloaded
        // batch by batch.
        self.wants_room() && end.get() >= written.get() + segment
    }

    /// The WAL is so full that what can be trimmed should be.
    pub(crate) fn wants_room(&self) -> bool {
        self.room.wants_offload(self.wal.used())
    }

    /// Where the log ends.
    pub(crate) fn appended_end(&self) -> Lsn {
        self.appended_end
    }

    /// Bytes of an object at most, by the size of the WAL.
    pub(crate) fn object_size_max(&self) -> u64 {
        self.room.object_size_max()
    }

    /// Starts a read of an entry's payload; the answer is [`LogEvent::Read`] with `token`.
    pub(crate) fn read(
        &mut self,
        disk: &mut impl Disk,
        group: RaftGroupId,
        index: LogIndex,
        token: u64,
    ) -> Result<(), ReadError> {
        let Some((location, descriptor)) = self.driver.location(group, index) else {
            return Err(ReadError::Trimmed);
        };
        let at = Location {
            lsn: Lsn::new(location),
            len: u32::try_from(descriptor.encoded_size() + descriptor.payload_len as usize)
                .map_err(|_| ReadError::BadLocation)?,
        };
        self.wal.read(disk, at, token)
    }

    /// Moves everything on as far as it goes without an event from outside.
    pub(crate) fn pump(&mut self, disk: &mut impl Disk, now: Instant, metrics: &ShardMetrics) {
        self.report_durable(now, metrics);
        self.act_all();
        self.fill_wal(now);
        self.catch_up.start(&mut self.wal, disk, &mut self.driver);
        self.wal.submit(disk);
        self.writes.given(self.wal.written_lsn(), self.wal.durable_lsn(), now);
    }

    fn act_all(&mut self) {
        while let Some(action) = self.driver.poll_action() {
            self.act(action);
        }
        self.proposed_bytes = 0;
    }

    /// What happened, in order. To be asked until there is no more before anything is proposed.
    pub(crate) fn next_event(&mut self) -> Option<LogEvent> {
        let event = self.events.pop_front()?;
        match &event {
            LogEvent::RoleChanged { group, leads, .. } => {
                if let Some(state) = self.groups.get_mut(*group) {
                    (state.leads, state.caught_up) = (*leads, false);
                }
            }
            LogEvent::Apply { group, entries } => self.note_applied(*group, entries),
            _ => {}
        }
        Some(event)
    }

    /// A device read or write finished.
    pub(crate) fn disk_done(&mut self, disk: &mut impl Disk, done: DiskDone) {
        if let Some(read) = self.wal.complete(disk, done) {
            if self.catch_up.owns(read.token) {
                return self.catch_up.done(read.token, read.result.ok(), &mut self.driver);
            }
            let payload = read.result.ok().and_then(|data| {
                let start = Descriptor::decode(&data).ok()?.encoded_size();
                Some(data.slice(start..))
            });
            self.events.push_back(LogEvent::Read { token: read.token, payload });
        }
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        Some(self.ticks.next())
    }

    /// Lets raft's and the WAL's slow clocks tick; false if it is not time.
    pub(crate) fn tick_if_due(&mut self, now: Instant) -> bool {
        let Some(tick) = self.ticks.due(now) else { return false };
        self.act_all();
        self.driver.handle_tick();
        let due = tick == Tick::All;
        if due {
            self.wal.tick();
            // A snapshot of the leader makes room, too.
            self.trim();
        }
        due
    }

    /// One line on what failed, after which nothing more becomes durable here.
    pub(crate) fn failure(&self) -> Option<String> {
        self.wal.failed().map(ToString::to_string)
    }

    /// Writes what is pending, then the mark of a clean stop; true when that is durable.
    pub(crate) fn shut_down(&mut self, disk: &mut impl Disk) -> bool {
        if self.steps.is_empty() {
            self.wal.begin_shutdown();
        }
        self.wal.submit(disk);
        self.wal.shutdown_done()
    }

    /// What is known of an entry, committed or not.
    pub(crate) fn entry(&self, group: RaftGroupId, index: LogIndex) -> Option<LogEntry> {
        self.driver.entry(group, index)
    }

    /// The payloads of a group's entries after one, committed or not, as far as they are in memory.
    pub(crate) fn payloads_after(
        &self,
        group: RaftGroupId,
        index: LogIndex,
    ) -> impl Iterator<Item = &Bytes> {
        let first = index.next().max(self.first_index(group)).get();
        let indexes = (first..self.end_of(group).get()).map(LogIndex::new);
        indexes.filter_map(move |index| self.driver.payload(group, index))
    }

    /// First index that is still in a group's log.
    pub(crate) fn first_index(&self, group: RaftGroupId) -> LogIndex {
        self.driver.first_index(group)
    }

    /// The index that the next entry of a group's log will have.
    pub(crate) fn end_of(&self, group: RaftGroupId) -> LogIndex {
        self.driver.last_index(group).next()
    }

    /// Bytes of the WAL that would be free if nothing before an entry of a group were needed by
    /// that group: what its compaction can win, if the others do not hold it up.
    pub(crate) fn trimmable(&self, group: RaftGroupId, index: LogIndex) -> u64 {
        self.wal.trimmable(self.place_of(group, index))
    }

    /// Lets `snapshot` stand for a group's log up to `index`. What only that part of the log needed
    /// in the WAL is free once this is durable.
    pub(crate) fn compact(
        &mut self,
        group: RaftGroupId,
        index: LogIndex,
        snapshot: Bytes,
    ) -> Result<(), CompactError> {
        self.driver.compact(group, index, snapshot)?;
        fail_point(FailPoint::SnapshotBegun);
        self.rewriting.push(group);
        Ok(())
    }

    /// Has any of the groups ever heard of a term? What a disk promised it did in one.
    pub(crate) fn has_taken_part(&self) -> bool {
        self.driver.groups().any(|group| self.driver.term(group) > Term::default())
    }

    /// Largest entry that the WAL takes.
    pub(crate) fn entry_size_max(&self) -> usize {
        self.wal.entry_size_max()
    }

    /// Largest snapshot that the WAL takes as one record, less what raft writes around it.
    pub(crate) fn snapshot_size_max(&self) -> usize {
        self.wal.entry_size_max().saturating_sub(SNAPSHOT_FRAME_SIZE)
    }

    pub(crate) fn publish_gauges(&mut self, metrics: &ShardMetrics, now: Instant) {
        let stats = self.wal.stats();
        let (used, rate) = (stats.used_bytes, self.write_rate.look(stats.written_bytes, now));
        metrics.set(Metric::WalReserveBytes, self.room.reserve());
        metrics.set(Metric::WalReserveFree, self.room.reserve_free(used));
        metrics.set(Metric::WalReserveSeconds, self.room.seconds_left(used, rate));
        metrics.set(Metric::WalWriteRate, rate);
        metrics.set(Metric::WalSizeBytes, stats.capacity_bytes);
        metrics.set(Metric::WalUsedBytes, stats.used_bytes);
        metrics.set(Metric::WalDurableLsn, self.wal.durable_lsn().get());
        metrics.set(Metric::WalFrames, stats.data_frames);
        metrics.set(Metric::WalBytes, stats.written_bytes);
        metrics.set(Metric::WalRecords, stats.records);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Persist { group, ticket, entries, snapshot, state } => {
                for entry in entries {
                    self.note_appended(group, &entry);
                    self.queued_bytes += entry.payload.len();
                    self.steps.push(Step::Entry { group, entry });
                }
                if let Some(state) = snapshot {
                    self.snapshots.push(ticket);
                    self.steps.push(Step::State { stream: snapshot_stream(group), state });
                }
                if let Some(state) = state {
                    self.steps.push(Step::State { stream: stream(group), state });
                }
                self.steps.push(Step::Report(ticket));
            }
            Action::Committed { group, index } => {
                self.events.push_back(LogEvent::Committed { group, index });
            }
            Action::Apply { group, entries } => {
                self.events.push_back(LogEvent::Apply { group, entries });
            }
            Action::Truncated { group, from } => {
                self.events.push_back(LogEvent::Truncated { group, from });
            }
            Action::RoleChanged { group, role, term, leader } => {
                let leads = (role == Role::Leader).then_some(term);
                self.events.push_back(LogEvent::RoleChanged { group, term, leader, leads });
            }
            Action::Compacted { group, .. } => {
                fail_point(FailPoint::SnapshotDurable);
                let done = self.rewriting.iter().position(|it| *it == group);
                if let Some(at) = done {
                    self.rewriting.swap_remove(at);
                }
                self.trim();
            }
            Action::Send { to, message } => self.outgoing.push((to, message)),
            Action::SendHeartbeats { to, heartbeats } => self.heartbeats.push((to, heartbeats)),
            Action::ReadPayload { group, term, index, location } => {
                self.catch_up.want(group, term, index, location);
            }
            Action::InstallSnapshot { group, index, data: snapshot, .. } => {
                // The one that was under the log at start was installed when it was recovered.
                if self.groups.get(group).is_some_and(|it| it.compacted < index) {
                    self.events.push_back(LogEvent::Installed { group, index, snapshot });
                }
            }
        }
    }

    /// Lets the shard hear of an entry that it did not propose itself.
    fn note_appended(&mut self, group: RaftGroupId, entry: &PersistEntry) {
        if self.leads(group) == Some(entry.term) {
            return;
        }
        let (index, term) = (entry.index, entry.term);
        // The empty entry of a new leader has none, and is nothing to the shard.
        if let Some(descriptor) = self.driver.entry(group, index).and_then(|it| it.descriptor) {
            let payload = entry.payload.clone();
            self.events.push_back(LogEvent::Appended { group, index, term, descriptor, payload });
        }
    }

    fn note_applied(&mut self, group: RaftGroupId, entries: &[CommittedEntry]) {
        let Some(state) = self.groups.get_mut(group) else { return };
        let last = entries.last().map(|entry| entry.term);
        state.caught_up |= state.leads.is_some() && state.leads == last;
    }

    /// Gives the WAL what it takes; the rest stays in order.
    fn fill_wal(&mut self, now: Instant) {
        let mut steps = std::mem::take(&mut self.steps);
        steps.take_while(|step| match step {
            Step::Entry { group, entry } => self.append_entry(*group, entry).is_ok(),
            Step::State { stream, state } => self.append_state(*stream, state).is_ok(),
            Step::Gone { group, record } => self.append_gone(*group, record).is_ok(),
            Step::Report(ticket) => {
                self.unpersisted.push_back((self.appended_end, *ticket, now));
                true
            }
        });
        self.steps = steps;
    }

    fn append_state(&mut self, stream: StreamId, state: &Bytes) -> Result<(), AppendError> {
        let appended = self.wal.append(Record::State { stream, parts: &[Part::of(state)] })?;
        self.appended_end = appended.end;
        self.states.insert(stream, appended.data.lsn);
        Ok(())
    }

    fn append_entry(
        &mut self,
        group: RaftGroupId,
        entry: &PersistEntry,
    ) -> Result<(), AppendError> {
        let is_metadata = group == RaftGroupId::METADATA;
        // Room for it was made sure of when it came.
        let is_others = self.leads(group) != Some(entry.term);
        let payload = Part::checked(&entry.payload, entry.payload_crc);
        let appended = self.wal.append(Record::Entry {
            stream: stream(group),
            term: entry.term.get(),
            index: entry.index.get(),
            parts: &[Part::of(&entry.descriptor), payload],
            vital: is_metadata || is_others || is_vital(&entry.descriptor),
        })?;
        self.appended_end = appended.end;
        self.queued_bytes -= entry.payload.len();
        self.driver.placed(group, entry.index, entry.term, appended.data.lsn.get());
        Ok(())
    }

    fn report_durable(&mut self, now: Instant, metrics: &ShardMetrics) {
        let durable = self.wal.durable_lsn();
        self.writes.done(durable, |since| {
            metrics.wal_write.record(now.saturating_duration_since(since));
        });
        while let Some(&(lsn, ticket, since)) = self.unpersisted.front() {
            if lsn > durable {
                break;
            }
            let took = now.saturating_duration_since(since);
            metrics.wal_append.record(took);
            self.judge_disk(ticket.group(), took, now);
            self.snapshots.retain(|snapshot| *snapshot != ticket);
            self.driver.handle_persisted(ticket);
            self.unpersisted.pop_front();
        }
    }
}

impl GroupState {
    fn new(driver: &Driver, group: RaftGroupId) -> Self {
        let compacted = LogIndex::new(driver.first_index(group).get() - 1);
        Self { leads: None, caught_up: false, compacted }
    }
}

#[cfg(test)]
#[path = "replicated_log_tests.rs"]
mod tests;
