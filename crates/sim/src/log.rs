//! A node's WAL on its simulated disk. (Stands in for wal-uring until that is there.)

use std::collections::VecDeque;

use bytes::Bytes;

use crate::random::Random;

/// What survives a power loss.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    records: Vec<Record>,
    end: u64,
}

#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) stream: u64,
    /// Term and index of an entry; `None` for a state.
    pub(crate) place: Option<(u64, u64)>,
    pub(crate) location: u64,
    pub(crate) data: Bytes,
}

pub(crate) struct NodeLog {
    disk: Disk,
    open: Vec<Record>,
    flight: VecDeque<(u64, u64, Vec<Record>)>,
    reads: VecDeque<(u64, u64, u64)>,
    end: u64,
    random: Random,
    slow: bool,
    last: u64,
}

impl NodeLog {
    pub(crate) fn open(
        disk: Disk,
        random: Random,
        sink: &mut dyn FnMut(&Record) -> Result<(), String>,
    ) -> Result<Self, String> {
        for record in &disk.records {
            sink(record)?;
        }
        let end = disk.end;
        Ok(Self {
            disk,
            open: vec![],
            flight: VecDeque::new(),
            reads: VecDeque::new(),
            end,
            random,
            slow: true,
            last: 0,
        })
    }

    pub(crate) fn append(
        &mut self,
        stream: u64,
        place: Option<(u64, u64)>,
        parts: &[&[u8]],
    ) -> Option<(u64, u64)> {
        let data: Bytes = parts.concat().into();
        let location = self.end;
        self.end += data.len() as u64 + 40;
        self.open.push(Record { stream, place, location, data });
        Some((location, self.end))
    }

    pub(crate) fn submit(&mut self, now: u64) {
        if self.open.is_empty() {
            return;
        }
        let delay = if self.slow && self.random.chance(20) {
            self.random.between(5000, 80000)
        } else {
            self.random.between(60, 600)
        };
        let at = (now + delay).max(self.last);
        self.last = at;
        self.flight.push_back((at, self.end, std::mem::take(&mut self.open)));
    }

    pub(crate) fn durable(&self) -> u64 {
        self.disk.end
    }

    pub(crate) fn read(&mut self, now: u64, location: u64, _len: u32, token: u64) -> bool {
        let at = now + self.random.between(50, 500);
        self.reads.push_back((at, location, token));
        true
    }

    pub(crate) fn next_event(&self) -> Option<u64> {
        let write = self.flight.front().map(|f| f.0);
        let read = self.reads.iter().map(|r| r.0).min();
        write.into_iter().chain(read).min()
    }

    pub(crate) fn poll(&mut self, now: u64) -> Vec<(u64, Option<Bytes>)> {
        while self.flight.front().is_some_and(|f| f.0 <= now) {
            if let Some((_, end, records)) = self.flight.pop_front() {
                self.disk.records.extend(records);
                self.disk.end = end;
            }
        }
        let mut done = vec![];
        self.reads.retain(|(at, location, token)| {
            if *at > now {
                return true;
            }
            let i = self.disk.records.binary_search_by_key(location, |r| r.location).ok();
            done.push((*token, i.map(|i| self.disk.records[i].data.clone())));
            false
        });
        done
    }

    pub(crate) fn heal(&mut self) {
        self.slow = false;
    }

    pub(crate) fn crash(mut self) -> Disk {
        let kept = self.random.index(self.flight.len() + 1);
        for (_, end, records) in self.flight.drain(..kept) {
            self.disk.records.extend(records);
            self.disk.end = end;
        }
        self.disk
    }
}
