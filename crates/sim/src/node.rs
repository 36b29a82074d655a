//! One broker's shard in miniature: a driver, its WAL, and what they still owe each other.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use model::{LogIndex, RaftGroupId, Term};
use replication::{
    Action, AppBytes, CommittedEntry, Descriptor, Driver, DriverConfig, Message, PersistEntry,
    Role, Ticket,
};

use crate::Bug;
use crate::checker::{Applied, Violation, Write};
use crate::log::{Disk, NodeLog, Record};
use crate::random::Random;
use crate::world::World;

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

struct Running {
    driver: Driver,
    log: NodeLog,
    /// What the WAL had no room for yet, in order.
    unwritten: VecDeque<Persist>,
    /// Writes under way: the LSN after each, and its ticket.
    tickets: VecDeque<(u64, Ticket)>,
    /// Proposals whose clients wait, by group and index.
    waiting: BTreeMap<(u64, u64), Applied>,
    /// Reads under way, by token.
    reads: BTreeMap<u64, (RaftGroupId, Term, LogIndex)>,
    next_read: u64,
    arena: BytesMut,
}

struct Persist {
    group: RaftGroupId,
    ticket: Ticket,
    entries: Vec<PersistEntry>,
    snapshot: Option<Bytes>,
    state: Option<Bytes>,
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
        groups: &[RaftGroupId],
        random: Random,
        world: &mut World,
    ) -> Result<(), Violation> {
        let State::Down(disk) = std::mem::replace(&mut self.state, State::Moving) else {
            return Ok(());
        };
        self.life += 1;
        let mut driver = Driver::new(config);
        let log = NodeLog::open(disk, random, &mut |record| recover(&mut driver, record))
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
            log,
            unwritten: VecDeque::new(),
            tickets: VecDeque::new(),
            waiting: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            arena: BytesMut::new(),
        }));
        Ok(())
    }

    /// The power goes: what was under way reaches the disk in part, or not.
    pub(crate) fn crash(&mut self) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Up(running) => self.state = State::Down(running.log.crash()),
            other => self.state = other,
        }
        self.life += 1;
    }

    /// When the disk has something to report next, in microseconds.
    pub(crate) fn next_disk_event(&self) -> Option<u64> {
        self.running().and_then(|running| running.log.next_event())
    }

    pub(crate) fn heal_disk(&mut self) {
        if let State::Up(running) = &mut self.state {
            running.log.heal();
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
        // Damaged bytes are as good as lost.
        let Ok(message) = Message::decode(frame) else { return Ok(()) };
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
        for (token, data) in running.log.poll(world.now) {
            if let Some((group, term, index)) = running.reads.remove(&token) {
                running.driver.handle_payload(group, term, index, data);
            }
        }
        let durable = running.log.durable();
        world.durability.durable(id, durable);
        while let Some((end, ticket)) = running.tickets.front().copied()
            && end <= durable
        {
            running.tickets.pop_front();
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
        let app = AppBytes::new(payload.get(..8).unwrap_or_default())?;
        let descriptor = Descriptor::of(&payload, resident, app)?;
        let (term, index) = running.driver.propose(group, descriptor, payload).ok()?;
        let entry = Applied { term: term.get(), payload_crc: descriptor.payload_crc };
        running.waiting.insert((group.get(), index.get()), entry);
        Some(index.get())
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
        loop {
            while let Some(action) = self.driver.poll_action() {
                self.act(id, action, world, outgoing)?;
            }
            if !self.write(id, bug, world) {
                break;
            }
        }
        self.log.submit(world.now);
        Ok(())
    }

    fn act(
        &mut self,
        id: u64,
        action: Action,
        world: &mut World,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), Violation> {
        match action {
            Action::Persist { group, ticket, entries, snapshot, state } => {
                self.unwritten.push_back(Persist { group, ticket, entries, snapshot, state });
            }
            Action::Send { to, message } => {
                let frame = message.encode(&mut self.arena).concat().into();
                outgoing.push(Outgoing { to, frame });
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
                self.read(group, term, index, location, world);
            }
            Action::InstallSnapshot { group, index, data, .. } => {
                self.forget(group.get(), 0);
                world.installed(id, group.get(), index.get(), &data)?;
            }
            Action::Compacted { group, index } => {
                world.note(id, &[3, group.get(), index.get()], || {
                    format!("group {group}: compacted to {index}")
                });
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

    fn read(
        &mut self,
        group: RaftGroupId,
        term: Term,
        index: LogIndex,
        location: u64,
        world: &World,
    ) {
        let entry = self.driver.entry(group, index).and_then(|entry| entry.descriptor);
        let size = entry.map_or(0, |d| d.encoded_size() + d.payload_len as usize);
        let len = u32::try_from(size).unwrap_or(u32::MAX);
        self.next_read += 1;
        if self.log.read(world.now, location, len, self.next_read) {
            self.reads.insert(self.next_read, (group, term, index));
        } else {
            self.driver.handle_payload(group, term, index, None);
        }
    }

    /// Gives the WAL what it has room for. Whether the driver has something to say about it.
    fn write(&mut self, id: u64, bug: Option<Bug>, world: &mut World) -> bool {
        let mut early = false;
        while let Some(persist) = self.unwritten.pop_front() {
            if bug == Some(Bug::StateFirst) {
                self.write_states(id, &persist, world);
                self.log.submit(world.now);
            }
            let mut end = self.write_entries(id, bug, &persist, world);
            if bug != Some(Bug::StateFirst) {
                end = self.write_states(id, &persist, world).or(end);
            }
            if bug == Some(Bug::DescriptorAlone) {
                self.log.submit(world.now);
                self.write_entries(id, None, &persist, world);
            }
            if bug == Some(Bug::EarlyAck) {
                self.driver.handle_persisted(persist.ticket);
                early = true;
            } else {
                let end = end.unwrap_or_else(|| self.log.durable());
                self.tickets.push_back((end, persist.ticket));
            }
        }
        early
    }

    fn write_entries(
        &mut self,
        id: u64,
        bug: Option<Bug>,
        persist: &Persist,
        world: &mut World,
    ) -> Option<u64> {
        let group = persist.group;
        let mut last = None;
        for entry in &persist.entries {
            let payload: &[u8] =
                if bug == Some(Bug::DescriptorAlone) { &[] } else { &entry.payload };
            let place = Some((entry.term.get(), entry.index.get()));
            let (location, end) =
                self.log.append(stream(group), place, &[&entry.descriptor, payload])?;
            self.driver.placed(group, entry.index, entry.term, location);
            let descriptor = Descriptor::decode(&entry.descriptor).ok();
            let payload_crc = descriptor.map_or(0, |descriptor| descriptor.payload_crc);
            let written = Applied { term: entry.term.get(), payload_crc };
            let (group, index) = (group.get(), entry.index.get());
            world.durability.written(id, end, Write::Entry { group, index, entry: written });
            last = Some(end);
        }
        last
    }

    fn write_states(&mut self, id: u64, persist: &Persist, world: &mut World) -> Option<u64> {
        let group = persist.group;
        let mut last = None;
        if let Some(snapshot) = &persist.snapshot {
            let (_, end) = self.log.append(snapshot_stream(group), None, &[snapshot])?;
            let (group, mark) = (group.get(), self.driver.first_index(group).get() - 1);
            let replaces = mark > world.agreement.position(id, group);
            world.durability.written(id, end, Write::Snapshot { group, mark, replaces });
            last = Some(end);
        }
        if let Some(state) = &persist.state {
            last = Some(self.log.append(stream(group), None, &[state])?.1);
        }
        last
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

/// Entries and hard state of a group share a stream, its snapshot has one of its own.
fn stream(group: RaftGroupId) -> u64 {
    group.get() * 2
}

fn snapshot_stream(group: RaftGroupId) -> u64 {
    group.get() * 2 + 1
}

fn recover(driver: &mut Driver, record: &Record) -> Result<(), String> {
    let group = RaftGroupId::new(record.stream / 2);
    let recovered = match record.place {
        Some((term, index)) => {
            let (term, index) = (Term::new(term), LogIndex::new(index));
            driver.recover_entry(group, term, index, &record.data, record.location)
        }
        None => driver.recover_state(group, &record.data),
    };
    recovered.map_err(|error| error.to_string())
}
