//! One broker's shard in miniature: a driver, its WAL, and what they still owe each other.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use model::{LogIndex, RaftGroupId, Term};
use replication::{
    Action, AppBytes, CommittedEntry, Descriptor, Driver, DriverConfig, Heartbeats, Message, Role,
};
use wal_uring::ReadError;

use crate::Bug;
use crate::checker::{Applied, Violation};
use crate::journal::{ENTRY_OVERHEAD, Journal};
use crate::log::{Disk, Found, LogSettings, NodeLog};
use crate::random::Random;
use crate::world::World;

/// Bytes that a WAL grows by from one relief to the next at least, or so many microseconds pass if
/// there is anything to be won.
const RELIEF_SIZE: u64 = 64 << 10;
const RELIEF_PAUSE: u64 = 200_000;

/// A node, up or down.
pub(crate) struct Node {
    /// 1, 2 or 3.
    pub(crate) id: u64,
    bug: Option<Bug>,
    /// Counts restarts: events of an earlier life are ignored.
    pub(crate) life: u64,
    state: State,
}

enum State {
    Down(Disk),
    Up(Box<Running>),
    /// Between the two.
    Moving,
}

type EntryId = (RaftGroupId, Term, LogIndex);

struct Running {
    driver: Driver,
    journal: Journal,
    /// Proposals whose clients wait, by group and index.
    waiting: BTreeMap<(u64, u64), Applied>,
    /// Entries to be read, and where they begin; the WAL takes only so many reads at once.
    wanted: VecDeque<(EntryId, u64)>,
    /// Reads under way, by token.
    reads: BTreeMap<u64, EntryId>,
    next_read: u64,
    arena: BytesMut,
    /// Groups whose compaction has to be durable before the WAL is trimmed.
    compacting: usize,
    /// Durable LSN, and the time, when the WAL was last relieved.
    relieved_at: (u64, u64),
}

/// A frame on its way to another node.
pub(crate) struct Outgoing {
    pub(crate) to: u64,
    pub(crate) frame: Bytes,
}

impl Node {
    pub(crate) fn new(id: u64, bug: Option<Bug>) -> Self {
        Self { id, bug, life: 0, state: State::Down(Disk::default()) }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Recovers from the disk. On the very first start it makes its groups.
    pub(crate) fn start(
        &mut self,
        config: DriverConfig,
        settings: &LogSettings,
        groups: &[RaftGroupId],
        mut random: Random,
        world: &mut World,
    ) -> Result<(), Violation> {
        let State::Down(disk) = std::mem::replace(&mut self.state, State::Moving) else {
            return Ok(());
        };
        self.life += 1;
        let mut driver = Driver::new(config);
        let mut states = BTreeMap::new();
        let log =
            NodeLog::open(disk, settings, world.now, &mut random, &mut |group, found, data| {
                if let Found::State { kind, lsn } = found {
                    states.insert((group, kind), lsn);
                }
                recover(&mut driver, group, &found, data)
            });
        let log = log
            .and_then(|log| driver.start().map(|()| log).map_err(|error| error.to_string()))
            .map_err(|reason| Violation::Recovery { node: self.id, reason })?;
        world.restarted(self.id, &driver)?;
        for group in groups {
            if !driver.has_group(*group) {
                driver.create_group(*group, &crate::NODES);
            }
        }
        self.state = State::Up(Box::new(Running {
            driver,
            journal: Journal::new(log, states),
            waiting: BTreeMap::new(),
            wanted: VecDeque::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            arena: BytesMut::new(),
            compacting: 0,
            relieved_at: (0, 0),
        }));
        Ok(())
    }

    /// The node stops without a word. Without power, each write under way is kept, lost or torn.
    pub(crate) fn crash(&mut self, power_lost: bool) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Up(running) if power_lost => {
                self.state = State::Down(running.journal.log.lose_power());
            }
            State::Up(running) => self.state = State::Down(running.journal.log.kill()),
            other => self.state = other,
        }
        self.life += 1;
    }

    /// Whether its WAL failed: a node that cannot write has to stop.
    pub(crate) fn has_failed(&self) -> bool {
        self.running().is_some_and(|running| running.journal.log.has_failed())
    }

    /// When the disk has something to report next, in microseconds.
    pub(crate) fn next_disk_event(&self) -> Option<u64> {
        self.running().and_then(|running| running.journal.log.next_event())
    }

    /// A slow beat, for the WAL.
    pub(crate) fn tick_log(&mut self) {
        if let State::Up(running) = &mut self.state {
            if running.compacting == 0 {
                running.journal.trim(&running.driver);
            }
            running.journal.log.tick();
        }
    }

    pub(crate) fn heal_disk(&mut self) {
        if let State::Up(running) = &mut self.state {
            running.journal.log.heal();
        }
    }

    pub(crate) fn driver(&self) -> Option<&Driver> {
        self.running().map(|running| &running.driver)
    }

    /// Lets something happen to the driver, and does everything that follows from it.
    pub(crate) fn handle(
        &mut self,
        world: &mut World,
        outgoing: &mut Vec<Outgoing>,
        event: impl FnOnce(&mut Driver),
    ) -> Result<(), Violation> {
        let (id, bug) = (self.id, self.bug);
        let State::Up(running) = &mut self.state else { return Ok(()) };
        event(&mut running.driver);
        running.work(id, bug, world, outgoing)
    }

    pub(crate) fn receive(
        &mut self,
        from: u64,
        frame: Bytes,
        world: &mut World,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), Violation> {
        // Damaged bytes are as good as lost, and so are entries for which the WAL has no room now:
        // nothing but what is already accepted may stand between the WAL and the states that let it
        // be trimmed.
        if let Ok(heartbeats) = Heartbeats::decode(&frame) {
            return self.handle(world, outgoing, |it| it.handle_heartbeats(from, &heartbeats));
        }
        let Ok(mut message) = Message::decode(frame) else { return Ok(()) };
        if let Some(running) = self.running()
            && message.has_entries()
        {
            let count = running.fitting(&message);
            if count == 0 && running.driver.continues(&message) {
                return Ok(());
            }
            message.truncate(count);
        }
        self.handle(world, outgoing, |driver| driver.handle_message(from, message))
    }

    /// Completions of the disk up to now.
    pub(crate) fn poll_disk(
        &mut self,
        world: &mut World,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), Violation> {
        let (id, bug) = (self.id, self.bug);
        let State::Up(running) = &mut self.state else { return Ok(()) };
        for (token, data) in running.journal.log.poll(world.now) {
            if let Some((group, term, index)) = running.reads.remove(&token) {
                running.driver.handle_payload(group, term, index, data);
            }
        }
        for ticket in running.journal.durable(id, world) {
            running.driver.handle_persisted(ticket);
        }
        running.work(id, bug, world, outgoing)
    }

    /// A client's record, if this node leads the group and has room; its place in the log.
    pub(crate) fn propose(
        &mut self,
        group: RaftGroupId,
        resident: bool,
        payload: Bytes,
    ) -> Option<u64> {
        let State::Up(running) = &mut self.state else { return None };
        // A follower's WAL may be fuller than this one.
        let has_room = running.journal.has_room(payload.len() as u64 + ENTRY_OVERHEAD, 2);
        if running.is_short_of_room() || !has_room {
            return None;
        }
        let app = AppBytes::new(payload.get(..8).unwrap_or_default())?;
        let descriptor = Descriptor::of(&payload, resident, app)?;
        let (term, index) = running.driver.propose(group, descriptor, payload).ok()?;
        let entry = Applied { term: term.get(), payload_crc: descriptor.payload_crc };
        running.waiting.insert((group.get(), index.get()), entry);
        Some(index.get())
    }

    /// How it stands, for a reader: its WAL, then each group.
    pub(crate) fn describe(&self, groups: &[RaftGroupId]) -> Vec<String> {
        let Some(running) = self.running() else { return vec!["is down".to_owned()] };
        let (driver, journal) = (&running.driver, &running.journal);
        let describe = |group: &RaftGroupId| {
            let (role, term, leader) =
                (driver.role(*group), driver.term(*group), driver.leader(*group));
            let (first, last) = (driver.first_index(*group), driver.last_index(*group));
            let (committed, applied) = (driver.committed(*group), driver.applied(*group));
            format!(
                "group {group}: {role:?} in term {term}, leader {leader:?}, has {first}..={last}, \
                 committed {committed}, applied {applied}"
            )
        };
        let compacting = running.compacting;
        let wal = format!("{}, {compacting} compactions under way", journal.describe());
        std::iter::once(wal).chain(groups.iter().map(describe)).collect()
    }

    fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Up(running) => Some(running),
            State::Down(_) | State::Moving => None,
        }
    }
}

impl Running {
    /// Does what the driver asks until it asks for nothing, then hands the WAL's frame to the disk.
    fn work(
        &mut self,
        id: u64,
        bug: Option<Bug>,
        world: &mut World,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), Violation> {
        self.relieve(world);
        loop {
            while let Some(action) = self.driver.poll_action() {
                self.act(id, bug, action, world, outgoing)?;
            }
            let early = self.journal.write(id, &mut self.driver, world);
            if !self.start_reads(world) && early.is_empty() {
                break;
            }
            early.into_iter().for_each(|ticket| self.driver.handle_persisted(ticket));
        }
        self.journal.log.submit(world.now);
        Ok(())
    }

    /// A ring that fills up is trimmed once every group is compacted, or at least has its state at
    /// the end.
    fn relieve(&mut self, world: &World) {
        let durable = self.journal.log.durable();
        if self.compacting > 0 || !self.journal.log.is_under_pressure() {
            return;
        }
        let (before, at) = self.relieved_at;
        let groups: Vec<_> = self.driver.groups().collect();
        let is_won = |it: &RaftGroupId| self.driver.applied(*it) >= self.driver.first_index(*it);
        let wins = groups.iter().any(is_won) || self.journal.first_state() < before;
        let wins = wins && world.now >= at + RELIEF_PAUSE;
        if durable < before + RELIEF_SIZE && !wins {
            return;
        }
        self.relieved_at = (durable, world.now);
        for group in groups {
            let applied = self.driver.applied(group);
            let snapshot = world.snapshot(group.get(), applied.get()).into();
            if self.driver.compact(group, applied, snapshot).is_err() {
                self.driver.rewrite_state(group);
            }
            self.compacting += 1;
        }
    }

    /// How many of a message's entries there is room for.
    fn fitting(&self, message: &Message) -> usize {
        if self.is_short_of_room() && message.payload_size() > 0 {
            return 0;
        }
        let mut size = 0;
        let fits = |(_, payload_size): &(&[u8], usize)| {
            size += *payload_size as u64 + ENTRY_OVERHEAD;
            self.journal.has_room(size, 1)
        };
        message.entries().take_while(fits).count()
    }

    fn is_short_of_room(&self) -> bool {
        let relieving = self.compacting > 0 && self.journal.log.is_under_pressure();
        relieving || self.journal.is_backed_up()
    }

    fn compacted(&mut self) {
        let waits = self.compacting > 0;
        self.compacting = self.compacting.saturating_sub(1);
        if waits && self.compacting == 0 {
            self.journal.trim(&self.driver);
        }
    }

    fn act(
        &mut self,
        id: u64,
        bug: Option<Bug>,
        action: Action,
        world: &mut World,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), Violation> {
        match action {
            Action::Persist { group, ticket, entries, snapshot, state } => {
                self.journal.push(group, ticket, entries, snapshot, state, bug);
            }
            Action::Send { to, message } => {
                let frame = message.encode(&mut self.arena).concat().into();
                outgoing.push(Outgoing { to, frame });
            }
            Action::SendHeartbeats { to, heartbeats } => {
                outgoing.push(Outgoing { to, frame: heartbeats.encode(&mut self.arena) });
            }
            Action::Committed { group, index } => self.acknowledge(id, group, index, world)?,
            Action::Apply { group, entries } => {
                if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                    let (first, last, term) = (first.index, last.index, last.term);
                    world.note(id, &[5, group.get(), last.get(), term.get()], || {
                        format!("group {group}: applied {first}..={last}, term {term}")
                    });
                }
                for entry in entries {
                    apply(id, group.get(), &entry, world)?;
                }
            }
            Action::Truncated { group, from } => {
                self.forget(group.get(), from.get());
                world.note(id, &[1, group.get(), from.get()], || {
                    format!("group {group}: entries at {from} and above are replaced")
                });
            }
            Action::RoleChanged { group, role, term, leader } => {
                world.note(id, &[2, group.get(), term.get()], || {
                    format!("group {group}: {role:?} in term {term}, leader {leader:?}")
                });
                if role == Role::Leader {
                    world.leadership.elected(id, group.get(), term.get())?;
                }
            }
            Action::ReadPayload { group, term, index, location } => {
                self.wanted.push_back(((group, term, index), location));
            }
            Action::InstallSnapshot { group, index, data, .. } => {
                self.forget(group.get(), 0);
                world.installed(id, group.get(), index.get(), &data)?;
            }
            Action::Compacted { group, index } => {
                world.note(id, &[3, group.get(), index.get()], || {
                    format!("group {group}: compacted to {index}")
                });
                self.compacted();
            }
        }
        Ok(())
    }

    /// Tells the clients whose entries are committed.
    fn acknowledge(
        &mut self,
        id: u64,
        group: RaftGroupId,
        index: LogIndex,
        world: &mut World,
    ) -> Result<(), Violation> {
        world.note(id, &[4, group.get(), index.get()], || {
            format!("group {group}: committed to {index}")
        });
        let range = (group.get(), 0)..=(group.get(), index.get());
        let done: Vec<_> = self.waiting.range(range).map(|(key, entry)| (*key, *entry)).collect();
        for ((group, index), entry) in done {
            self.waiting.remove(&(group, index));
            world.durability.acknowledged(id, group, index, entry)?;
        }
        Ok(())
    }

    /// Clients whose entries at `from` and above are gone will never hear of them.
    fn forget(&mut self, group: u64, from: u64) {
        self.waiting.retain(|(of, index), _| *of != group || *index < from);
    }

    /// Gives the WAL the reads that it takes; whether the driver has heard of one that it will not
    /// get.
    fn start_reads(&mut self, world: &World) -> bool {
        let mut any_lost = false;
        while let Some((entry, location)) = self.wanted.pop_front() {
            let (group, term, index) = entry;
            let found = self.driver.entry(group, index).and_then(|entry| entry.descriptor);
            let size = found.map_or(0, |it| it.encoded_size() + it.payload_len as usize);
            let len = u32::try_from(size).unwrap_or(u32::MAX);
            self.next_read += 1;
            match self.journal.log.read(world.now, location, len, self.next_read) {
                Ok(()) => {
                    self.reads.insert(self.next_read, entry);
                }
                Err(ReadError::Busy) => {
                    self.wanted.push_front((entry, location));
                    break;
                }
                Err(_) => {
                    self.driver.handle_payload(group, term, index, None);
                    any_lost = true;
                }
            }
        }
        any_lost
    }
}

fn apply(id: u64, group: u64, entry: &CommittedEntry, world: &mut World) -> Result<(), Violation> {
    let index = entry.index.get();
    let payload_crc = entry.descriptor.map_or(0, |descriptor| descriptor.payload_crc);
    if let Some(descriptor) = entry.descriptor {
        let sound = match &entry.payload {
            Some(payload) => descriptor.verify(payload).is_ok(),
            None => !descriptor.resident,
        };
        if !sound {
            return Err(Violation::Payload { node: id, group, index });
        }
    }
    let term = entry.term.get();
    world.agreement.applied(id, group, index, Applied { term, payload_crc })
}

fn recover(
    driver: &mut Driver,
    group: RaftGroupId,
    found: &Found,
    data: &[u8],
) -> Result<(), String> {
    let recovered = match *found {
        Found::Entry { term, index, location } => {
            let (term, index) = (Term::new(term), LogIndex::new(index));
            driver.recover_entry(group, term, index, data, location)
        }
        Found::State { .. } => driver.recover_state(group, data),
    };
    recovered.map_err(|error| error.to_string())
}
