//! What a node's driver wants written, in order, until the WAL has taken it and says that it is
//! durable.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use model::RaftGroupId;
use replication::{Descriptor, Driver, PersistEntry, Ticket};
use wal_uring::{AppendError, Appended, Part};

use crate::Bug;
use crate::checker::{Applied, Write};
use crate::log::{Kind, NodeLog, SEGMENT_SIZE};
use crate::world::World;

/// What the WAL writes around an entry, and for its descriptor.
pub(crate) const ENTRY_OVERHEAD: u64 = 256;

pub(crate) struct Journal {
    pub(crate) log: NodeLog,
    /// What the WAL has not taken yet.
    unwritten: VecDeque<Step>,
    /// What it has taken: the LSN after it, and what is to be done then.
    under_way: VecDeque<(u64, Done)>,
    /// End of the last record taken.
    end: u64,
    /// Where the last durable state records lie: before these nothing is trimmed.
    states: BTreeMap<(RaftGroupId, Kind), u64>,
}

/// One step of a `Persist`.
enum Step {
    /// A planted bug writes entries without their payload.
    Entry {
        group: RaftGroupId,
        entry: PersistEntry,
        whole: bool,
    },
    State {
        group: RaftGroupId,
        kind: Kind,
        data: Bytes,
    },
    /// A planted bug lets the frame go between two records.
    Submit,
    Report {
        ticket: Ticket,
        early: bool,
    },
}

enum Done {
    Ticket(Ticket),
    State { group: RaftGroupId, kind: Kind, lsn: u64 },
}

impl Journal {
    pub(crate) fn new(log: NodeLog, states: BTreeMap<(RaftGroupId, Kind), u64>) -> Self {
        let end = log.durable();
        Self { log, unwritten: VecDeque::new(), under_way: VecDeque::new(), end, states }
    }

    /// Queues a `Persist` in the order that the driver asks for, or in the order of a bug.
    pub(crate) fn push(
        &mut self,
        group: RaftGroupId,
        ticket: Ticket,
        entries: Vec<PersistEntry>,
        snapshot: Option<Bytes>,
        state: Option<Bytes>,
        bug: Option<Bug>,
    ) {
        let snapshot = snapshot.map(|data| Step::State { group, kind: Kind::Snapshot, data });
        let state = state.map(|data| Step::State { group, kind: Kind::State, data });
        let states = [snapshot, state].into_iter().flatten();
        let report = Step::Report { ticket, early: bug == Some(Bug::EarlyAck) };
        let whole = |entry| Step::Entry { group, entry, whole: true };
        match bug {
            None | Some(Bug::EarlyAck) => {
                self.unwritten.extend(entries.into_iter().map(whole));
                self.unwritten.extend(states);
                self.unwritten.push_back(report);
            }
            Some(Bug::StateFirst) => {
                self.unwritten.extend(states);
                self.unwritten.push_back(Step::Submit);
                self.unwritten.extend(entries.into_iter().map(whole));
                self.unwritten.push_back(report);
            }
            Some(Bug::DescriptorAlone) => {
                let bare = |entry| Step::Entry { group, entry, whole: false };
                self.unwritten.extend(entries.iter().cloned().map(bare));
                self.unwritten.extend(states);
                self.unwritten.push_back(report);
                self.unwritten.push_back(Step::Submit);
                self.unwritten.extend(entries.into_iter().map(whole));
            }
        }
    }

    /// Gives the WAL what it has room for; tickets that a planted bug reports at once.
    pub(crate) fn write(&mut self, id: u64, driver: &mut Driver, world: &mut World) -> Vec<Ticket> {
        let mut early = Vec::new();
        while let Some(step) = self.unwritten.pop_front() {
            match &step {
                Step::Report { ticket, early: true } => early.push(*ticket),
                Step::Report { ticket, early: false } => {
                    self.under_way.push_back((self.end, Done::Ticket(*ticket)));
                }
                Step::Submit => self.log.submit(world.now),
                Step::Entry { .. } | Step::State { .. } => {
                    if self.append(id, &step, driver, world).is_err() {
                        // Full or busy: the next completion, or a trim, makes room.
                        self.unwritten.push_front(step);
                        break;
                    }
                }
            }
        }
        early
    }

    /// Whether the WAL is too busy or too full to take what it was given.
    pub(crate) fn is_backed_up(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Whether entries so large fit into the WAL behind what waits for it, with something left over
    /// where a segment ends, and so many segments free. What did not fit would hold up the states
    /// that make room.
    pub(crate) fn has_room(&self, size: u64, segments: u64) -> bool {
        let waiting = self.unwritten.iter().map(|step| match step {
            Step::Entry { entry, .. } => entry.payload.len() as u64 + ENTRY_OVERHEAD,
            Step::State { .. } | Step::Submit | Step::Report { .. } => 0,
        });
        let size = size + waiting.sum::<u64>();
        size + size / 2 + segments * SEGMENT_SIZE <= self.log.room()
    }

    /// How it stands, for a reader.
    pub(crate) fn describe(&self) -> String {
        let (room, waiting) = (self.log.room(), self.unwritten.len());
        let (end, durable) = (self.end, self.log.durable());
        format!("WAL: room {room}, {waiting} steps wait for it, end {end}, durable {durable}")
    }

    /// What became durable: the checkers hear of it, and the tickets come back.
    pub(crate) fn durable(&mut self, id: u64, world: &mut World) -> Vec<Ticket> {
        let durable = self.log.durable();
        world.durability.durable(id, durable);
        let mut tickets = Vec::new();
        while self.under_way.front().is_some_and(|(end, _)| *end <= durable) {
            let Some((_, done)) = self.under_way.pop_front() else { break };
            match done {
                Done::Ticket(ticket) => tickets.push(ticket),
                Done::State { group, kind, lsn } => {
                    self.states.insert((group, kind), lsn);
                }
            }
        }
        tickets
    }

    /// Where the first of the state records lies that are the last of their kind.
    pub(crate) fn first_state(&self) -> u64 {
        self.states.values().copied().min().unwrap_or(0)
    }

    /// Gives up what no group needs any more: every durable state record stays, and every log from
    /// its first entry. As long as a snapshot is not durable the log begins where it did before it,
    /// whatever raft says.
    pub(crate) fn trim(&mut self, driver: &Driver) {
        let waits = |step: &Step| matches!(step, Step::State { kind: Kind::Snapshot, .. });
        let writes =
            |(_, done): &(u64, Done)| matches!(done, Done::State { kind: Kind::Snapshot, .. });
        if self.unwritten.iter().any(waits) || self.under_way.iter().any(writes) {
            return;
        }
        let first_entry = |group| driver.entry(group, driver.first_index(group))?.location;
        let entries = driver.groups().filter_map(first_entry);
        if let Some(to) = self.states.values().copied().chain(entries).min() {
            self.log.trim(to);
        }
    }

    fn append(
        &mut self,
        id: u64,
        step: &Step,
        driver: &mut Driver,
        world: &mut World,
    ) -> Result<(), AppendError> {
        match step {
            Step::Entry { group, entry, whole } => {
                let payload: &[u8] = if *whole { &entry.payload } else { &[] };
                let parts = [&entry.descriptor[..], payload].map(Part::of);
                let (term, index) = (entry.term.get(), entry.index.get());
                let Appended { end, data } = self.log.append_entry(*group, term, index, &parts)?;
                driver.placed(*group, entry.index, entry.term, data.lsn.get());
                let descriptor = Descriptor::decode(&entry.descriptor).ok();
                let payload_crc = descriptor.map_or(0, |descriptor| descriptor.payload_crc);
                let (group, entry) = (group.get(), Applied { term, payload_crc });
                self.end = end.get();
                world.durability.written(id, self.end, Write::Entry { group, index, entry });
            }
            Step::State { group, kind, data: record } => {
                let Appended { end, data } = self.log.append_state(*group, *kind, record)?;
                self.end = end.get();
                let (group, kind, lsn) = (*group, *kind, data.lsn.get());
                self.under_way.push_back((self.end, Done::State { group, kind, lsn }));
                if kind == Kind::Snapshot {
                    let (group, mark) = (group.get(), driver.first_index(group).get() - 1);
                    let replaces = mark > world.agreement.position(id, group);
                    let write = Write::Snapshot { group, mark, replaces };
                    world.durability.written(id, self.end, write);
                }
            }
            Step::Submit | Step::Report { .. } => {}
        }
        Ok(())
    }
}
