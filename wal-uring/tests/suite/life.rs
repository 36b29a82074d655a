//! One life of a WAL under the suite: random work, step by step.

use std::collections::BTreeMap;

use uring::{AlignedBuf, DiskDone};
use wal_uring::sim::Random;
use wal_uring::{AppendError, Disk, Lsn, Part, ReadError, Record, StreamId, Wal};

use super::Store;
use super::model::{Expected, Model, Witness};

/// The window of the largest ring in the suite: one segment.
const WINDOW_MAX: u64 = 64 << 10;

pub(crate) struct Life<'a, S> {
    pub(crate) store: &'a mut S,
    pub(crate) wal: Wal,
    pub(crate) model: &'a mut Model,
    pub(crate) random: &'a mut Random,
    reads: BTreeMap<u64, (Lsn, Vec<u8>)>,
    token_next: u64,
    /// Frame writes under way, by token.
    issued: BTreeMap<u64, Witness>,
}

impl<'a, S: Store> Life<'a, S> {
    pub(crate) fn new(
        store: &'a mut S,
        wal: Wal,
        model: &'a mut Model,
        random: &'a mut Random,
    ) -> Self {
        Self {
            store,
            wal,
            model,
            random,
            reads: BTreeMap::new(),
            token_next: 0,
            issued: BTreeMap::new(),
        }
    }

    pub(crate) fn step(&mut self) {
        match self.random.below(16) {
            0..=6 => {
                for _ in 0..=self.random.below(6) {
                    self.append();
                }
                if self.random.below(4) > 0 {
                    self.submit();
                }
            }
            7 => self.submit(),
            8..=11 => {
                for _ in 0..=self.random.below(4) {
                    self.wait();
                }
            }
            12 => self.trim(),
            13 | 14 => self.read(),
            _ => self.wal.tick(),
        }
    }

    fn append(&mut self) {
        let max = self.wal.entry_size_max();
        let size = match self.random.below(20) {
            0 => 0,
            1 => max,
            2 => self.random.below_usize(max + 1),
            3..=6 => self.random.below_usize(4000),
            _ => self.random.below_usize(300),
        };
        let mut data = vec![0; size];
        self.random.fill(&mut data);
        let stream = StreamId::new(self.random.below(5));
        let (head, tail) = data.split_at(self.random.below_usize(size + 1));
        let tail_crc = crc32c::crc32c(tail);
        let tail =
            if self.random.below(2) == 0 { Part::of(tail) } else { Part::checked(tail, tail_crc) };
        let parts = [Part::of(head), tail];
        let place = (self.random.below(9), self.random.next());
        let is_entry = self.random.below(5) > 0;
        let record = if is_entry {
            Record::Entry { stream, term: place.0, index: place.1, parts: &parts, vital: false }
        } else {
            Record::State { stream, parts: &parts }
        };
        match self.wal.append(record) {
            Ok(appended) => {
                assert_eq!(appended.data.len as usize, size);
                let record = (is_entry.then_some(place), stream, data, appended.data);
                self.model.records.push_back(Expected { record, end: appended.end });
            }
            Err(AppendError::Busy) => {
                self.submit();
                self.wait();
            }
            Err(AppendError::Full) => {
                self.submit();
                self.trim();
                self.submit();
                self.wait();
            }
            Err(AppendError::Failed) => assert!(self.wal.failed().is_some()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn submit(&mut self) {
        let durable_lsn = self.wal.durable_lsn();
        let Self { store, wal, issued, .. } = self;
        store.with_disk(&mut |disk| wal.submit(&mut Recorder { disk, durable_lsn, issued }));
        let ahead = self.wal.written_lsn().since(durable_lsn);
        assert!(ahead <= WINDOW_MAX, "the window rule");
    }

    /// Takes one completion; false if there is none to come.
    pub(crate) fn wait(&mut self) -> bool {
        let Some(done) = self.store.wait() else { return false };
        assert!(Wal::owns(done.token));
        self.complete(done);
        true
    }

    fn complete(&mut self, done: DiskDone) {
        if let (Some(witness), Ok(())) = (self.issued.remove(&done.token), &done.result) {
            self.model.witnesses.push(witness);
        }
        let (failed, durable_before) = (self.wal.failed().is_some(), self.wal.durable_lsn());
        let Self { store, wal, .. } = self;
        let (mut done, mut read) = (Some(done), None);
        store.with_disk(&mut |disk| {
            if let Some(done) = done.take() {
                read = wal.complete(disk, done);
            }
        });
        let durable_lsn = self.wal.durable_lsn();
        assert!(durable_lsn >= durable_before && durable_lsn <= self.wal.written_lsn());
        if failed {
            assert_eq!(durable_lsn, durable_before, "durable after a failure");
        }
        self.model.durable_lsn = durable_lsn;
        let Some(read) = read else { return };
        let (lsn, expected) = self.reads.remove(&read.token).expect("a read that was asked for");
        match read.result {
            Ok(data) => assert_eq!(data, expected, "read at {lsn}"),
            Err(ReadError::Trimmed) => assert!(lsn < self.wal.trimmed_lsn()),
            // The device lied about a write, and the read saw it.
            Err(ReadError::Corrupt { .. }) => {
                let injected = self.store.injected();
                assert!(injected.lost.len() + injected.misdirected.len() > 0, "read at {lsn}");
            }
            Err(error) => panic!("read at {lsn}: {error}"),
        }
    }

    fn trim(&mut self) {
        let durable = self.model.durable();
        if durable == 0 {
            return;
        }
        let at = self.model.records[self.random.below_usize(durable)].record.3;
        let to = if self.random.below(2) == 0 { at.lsn } else { self.wal.durable_lsn() };
        self.wal.trim(to);
        assert!(self.wal.trimmed_lsn() <= to.max(self.model.trim_requested));
        self.model.trim_requested = self.wal.trimmed_lsn();
    }

    fn read(&mut self) {
        let count = self.model.records.len();
        if count == 0 {
            return;
        }
        let record = &self.model.records[self.random.below_usize(count)];
        let (token, at) = (self.token_next, record.record.3);
        let (wal, mut asked) = (&mut self.wal, None);
        self.store.with_disk(&mut |disk| asked = Some(wal.read(disk, at, token)));
        match asked.expect("called") {
            Ok(()) => {
                self.reads.insert(token, (at.lsn, record.record.2.clone()));
                self.token_next += 1;
            }
            Err(ReadError::Busy) => {}
            Err(ReadError::Trimmed) => assert!(at.lsn < self.wal.trimmed_lsn()),
            Err(ReadError::NotDurable) => assert!(record.end > self.wal.durable_lsn()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn shut_down(&mut self) {
        self.wal.begin_shutdown();
        while !self.wal.shutdown_done() {
            self.submit();
            self.wait();
        }
        assert_eq!(self.wal.durable_lsn(), self.wal.written_lsn());
        assert!(self.model.records.back().is_none_or(|last| last.end <= self.wal.durable_lsn()));
    }
}

/// Keeps where each frame went and what its headers say.
struct Recorder<'a> {
    disk: &'a mut dyn Disk,
    durable_lsn: Lsn,
    issued: &'a mut BTreeMap<u64, Witness>,
}

impl Disk for Recorder<'_> {
    fn take_buffer(&mut self, len: usize) -> AlignedBuf {
        self.disk.take_buffer(len)
    }

    fn write(&mut self, token: u64, offset: u64, buf: AlignedBuf, len: usize) {
        // Of frames, not of superblock copies.
        if token & (0b111 << 60) == 0 {
            let witness = Witness { offset, len: len as u64, durable_lsn: self.durable_lsn };
            self.issued.insert(token, witness);
        }
        self.disk.write(token, offset, buf, len);
    }

    fn read(&mut self, token: u64, offset: u64, buf: AlignedBuf, len: usize) {
        self.disk.read(token, offset, buf, len);
    }
}
