//! Reads of the WAL for followers that lag: raft asks for entries whose payloads are in memory no
//! more.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use model::{LogIndex, RaftGroupId, Term};
use replication::Driver;
use wal_uring::{Disk, Location, Lsn, ReadError, Wal};

/// Numbers of these reads have this bit; those of clients' reads never reach it.
const TOKEN_BIT: u64 = 1 << 63;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    waiting: VecDeque<Wanted>,
    reading: BTreeMap<u64, Wanted>,
    next: u64,
}

/// An entry, and where its data begins in the WAL.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    group: RaftGroupId,
    term: Term,
    index: LogIndex,
    location: u64,
}

impl CatchUp {
    pub(super) fn want(&mut self, group: RaftGroupId, term: Term, index: LogIndex, location: u64) {
        self.waiting.push_back(Wanted { group, term, index, location });
    }

    pub(super) const fn owns(&self, token: u64) -> bool {
        token & TOKEN_BIT != 0
    }

    /// Gives the WAL the reads that it takes.
    pub(super) fn start(&mut self, wal: &mut Wal, disk: &mut impl Disk, driver: &mut Driver) {
        while let Some(wanted) = self.waiting.pop_front() {
            let entry = driver.entry(wanted.group, wanted.index);
            let descriptor = entry.filter(|entry| entry.term == wanted.term);
            let size = descriptor
                .and_then(|entry| entry.descriptor)
                .and_then(|it| it.payload_len.checked_add(u32::try_from(it.encoded_size()).ok()?));
            let token = TOKEN_BIT | self.next;
            let started = size.map_or(Err(ReadError::Trimmed), |len| {
                wal.read(disk, Location { lsn: Lsn::new(wanted.location), len }, token)
            });
            match started {
                Ok(()) => {
                    self.next += 1;
                    self.reading.insert(token, wanted);
                }
                Err(ReadError::Busy) => return self.waiting.push_front(wanted),
                Err(_) => hand_over(driver, wanted, None),
            }
        }
    }

    /// A read that [`Self::owns`] is over.
    pub(super) fn done(&mut self, token: u64, data: Option<Bytes>, driver: &mut Driver) {
        if let Some(wanted) = self.reading.remove(&token) {
            hand_over(driver, wanted, data);
        }
    }
}

fn hand_over(driver: &mut Driver, wanted: Wanted, data: Option<Bytes>) {
    driver.handle_payload(wanted.group, wanted.term, wanted.index, data);
}
