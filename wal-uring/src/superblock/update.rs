//! Asynchronous update of all superblock copies: half of them, then the other half.

use std::io;

use uring::AlignedBuf;

use super::copies::HALF;
use super::{COPY_COUNT, COPY_SIZE, Superblock, copy_offset, encode_block};
use crate::device::Disk;

/// Replaces the superblock while the WAL runs. One update at a time.
pub(crate) struct SuperblockUpdate {
    /// What all copies say, durably.
    current: Superblock,
    /// What is being written.
    next: Option<Superblock>,
    /// Copies that are to be issued, then those in flight, of the present half.
    unissued: std::ops::Range<u32>,
    in_flight: u32,
}

impl SuperblockUpdate {
    pub(crate) const fn new(current: Superblock) -> Self {
        Self { current, next: None, unissued: 0..0, in_flight: 0 }
    }

    pub(crate) const fn current(&self) -> &Superblock {
        &self.current
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.next.is_none()
    }

    /// Starts an update; `change` edits the new state, whose sequence is already set.
    pub(crate) fn start(&mut self, change: impl FnOnce(&mut Superblock)) {
        assert!(self.is_idle(), "one update at a time");
        let mut next = Superblock { sequence: self.current.sequence + 1, ..self.current };
        change(&mut next);
        assert!(next.trimmed_lsn >= self.current.trimmed_lsn, "the trim point only grows");
        assert!(next.trimmed_lsn <= next.durable_lsn_hint, "trimmed before it was durable");
        self.next = Some(next);
        self.unissued = 0..HALF;
    }

    /// Writes what may be written now.
    pub(crate) fn submit(&mut self, disk: &mut (impl Disk + ?Sized)) {
        let Some(next) = &self.next else { return };
        for copy_index in self.unissued.by_ref() {
            let mut buf = disk.take_buffer(COPY_SIZE);
            encode_block(next, copy_index, &mut buf);
            let offset = copy_offset(next.layout.slice_offset, copy_index);
            self.in_flight += 1;
            disk.write(crate::token::superblock(copy_index), offset, buf, COPY_SIZE);
        }
    }

    /// Takes the completion of one copy; true when the whole update is durable.
    pub(crate) fn complete(
        &mut self,
        copy_index: u64,
        buf: AlignedBuf,
        result: io::Result<()>,
    ) -> Result<bool, (u64, io::Error)> {
        drop(buf);
        assert!(self.in_flight > 0, "a superblock copy completed that was not in flight");
        self.in_flight -= 1;
        if let Err(error) = result {
            let offset = self.current.layout.slice_offset + copy_index * COPY_SIZE as u64;
            return Err((offset, error));
        }
        if self.in_flight > 0 || !self.unissued.is_empty() {
            return Ok(false);
        }
        if copy_index < u64::from(HALF) {
            // Only now may the copies that still hold the old state be overwritten.
            self.unissued = HALF..COPY_COUNT;
            return Ok(false);
        }
        self.current = self.next.take().expect("an update is under way");
        Ok(true)
    }
}
