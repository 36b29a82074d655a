//! Group commit without a timer: what arrives while writes are in flight goes into the next frame.
//!
//! ```text
//!  append -> open frame -> closed frames -> in flight (<= depth) -> durable, in order
//!            one buffer    <= CLOSED_MAX    window rule
//! ```
//!
//! Idle, a frame is written as soon as `submit` is called. Busy, frames fill up meanwhile. Writes
//! complete in any order, but the durable LSN moves only over a prefix without a gap.

use std::collections::VecDeque;
use std::io;

use uring::AlignedBuf;
use uuid::Uuid;

use crate::device::Disk;
use crate::frame::{ClosedFrame, FrameWriter, Part, RecordKey, Stamp};
use crate::ring::RingLayout;
use crate::stats::WalStats;
use crate::{AppendError, Appended, BUFFER_ALIGN, Location, Lsn, WriterEpoch};

/// Closed frames that may wait behind those in flight; beyond, `append` says busy.
const CLOSED_MAX: usize = 2;

/// What a pipeline is started with.
pub(crate) struct GroupCommitConfig {
    pub(crate) layout: RingLayout,
    pub(crate) ring_id: Uuid,
    pub(crate) writer_epoch: WriterEpoch,
    /// Writes in flight at most.
    pub(crate) depth: usize,
    /// See [`crate::WalOptions`].
    pub(crate) beside_min: usize,
    /// Bytes of one frame buffer.
    pub(crate) buffer_size: usize,
    /// End of the recovered log, all of it durable.
    pub(crate) end: Lsn,
}

pub(crate) struct GroupCommit {
    config: GroupCommitConfig,
    open: Option<FrameWriter>,
    closed: VecDeque<ClosedFrame>,
    in_flight: VecDeque<InFlight>,
    /// Number of the first write in `in_flight`; numbers are consecutive.
    first_write: u64,
    /// Where the frame after the last closed one goes.
    next_lsn: Lsn,
    written_lsn: Lsn,
    durable_lsn: Lsn,
    /// End of the last data frame written.
    data_end: Lsn,
    /// The highest durable LSN that any written frame states.
    recorded_lsn: Lsn,
    /// Frame buffers of `buffer_size` at rest; the one used last is used next, it is in the cache.
    spare: Vec<AlignedBuf>,
}

struct InFlight {
    offset: u64,
    end: Lsn,
    done: bool,
}

impl GroupCommit {
    pub(crate) fn new(config: GroupCommitConfig) -> Self {
        let (depth, end) = (config.depth, config.end);
        Self {
            config,
            open: None,
            closed: VecDeque::with_capacity(CLOSED_MAX + 2),
            in_flight: VecDeque::with_capacity(depth),
            first_write: 0,
            next_lsn: end,
            written_lsn: end,
            durable_lsn: end,
            data_end: end,
            recorded_lsn: end,
            spare: Vec::with_capacity(depth + CLOSED_MAX + 2),
        }
    }

    pub(crate) const fn durable_lsn(&self) -> Lsn {
        self.durable_lsn
    }

    pub(crate) const fn written_lsn(&self) -> Lsn {
        self.written_lsn
    }

    /// Where the log would go on: the end of everything appended, up to the frame's padding.
    pub(crate) fn end(&self) -> Lsn {
        self.open.as_ref().map_or(self.next_lsn, FrameWriter::records_end)
    }

    /// Nothing is pending and nothing in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_none() && self.closed.is_empty() && self.in_flight.is_empty()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Copies a record into the open frame. `segment_end`: number of the first segment that it must
    /// not lie in.
    pub(crate) fn append(
        &mut self,
        key: RecordKey,
        parts: &[Part<'_>],
        data_size: usize,
        segment_end: u64,
    ) -> Result<Appended, AppendError> {
        if let Some(open) = &self.open
            && !open.fits(data_size)
        {
            if self.closed.len() >= CLOSED_MAX {
                return Err(AppendError::Busy);
            }
            self.close();
        }
        let at = self.place(data_size, segment_end)?;
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let block = self.config.layout.block();
                let buf = self.buffer(FrameWriter::buffer_size_for(data_size, block));
                self.open.insert(start_frame(&self.config.layout, buf, at))
            }
        };
        let lsn = open.push(key, parts);
        let len = u32::try_from(data_size).expect("append caps the data");
        Ok(Appended { end: open.records_end(), data: Location { lsn, len } })
    }

    /// Where the frame for a record of `data_size` starts; seals the segment if it is too full.
    fn place(&mut self, data_size: usize, segment_end: u64) -> Result<Lsn, AppendError> {
        let layout = self.config.layout;
        let segment = layout.segment_of(self.next_lsn);
        let frame_size = FrameWriter::frame_size_for(data_size, layout.block());
        let fits = self.open.is_some()
            || layout.opens_segment(self.next_lsn)
            || frame_size <= layout.room_in_segment(self.next_lsn);
        let target = if fits { segment } else { segment + 1 };
        if target >= segment_end {
            return Err(AppendError::Full);
        }
        if !fits {
            self.seal(layout.segment_start(target));
        }
        Ok(self.next_lsn)
    }

    /// Ends the current segment: the log goes on at `next`.
    fn seal(&mut self, next: Lsn) {
        let at = self.next_lsn;
        match self.closed.back_mut() {
            Some(last) => last.seal(next),
            None => {
                let block = self.config.layout.block();
                let buf = self.buffer(block);
                self.closed.push_back(ClosedFrame::seal_only(buf, at, next, block));
            }
        }
        self.next_lsn = next;
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let frame = open.close();
            self.next_lsn = frame.end();
            self.closed.push_back(frame);
        }
    }

    /// Queues an empty frame, if a restart could not yet tell the last data from a torn tail.
    pub(crate) fn mark_if_unrecorded(&mut self, segment_end: u64) {
        let layout = self.config.layout;
        let unrecorded = self.data_end > self.recorded_lsn;
        if !self.is_idle() || !unrecorded || layout.segment_of(self.next_lsn) >= segment_end {
            return;
        }
        let buf = self.buffer(self.config.buffer_size);
        self.open = Some(start_frame(&layout, buf, self.next_lsn));
        self.close();
    }

    /// Writes what may be written now.
    pub(crate) fn submit(&mut self, disk: &mut (impl Disk + ?Sized), stats: &mut WalStats) {
        while self.in_flight.len() < self.config.depth {
            if self.closed.is_empty() {
                let has_company = !self.in_flight.is_empty();
                let size = self.open.as_ref().map_or(0, FrameWriter::size);
                if has_company && size < self.config.beside_min {
                    break;
                }
                self.close();
            }
            let Some(frame) = self.closed.front() else { break };
            // The window rule: it bounds how far recovery looks for evidence. Nothing in flight
            // means durable up to here, and one write is smaller than the window: no deadlock.
            if frame.end().since(self.durable_lsn) > self.config.layout.window_size {
                assert!(!self.in_flight.is_empty(), "a write larger than the window");
                break;
            }
            let frame = self.closed.pop_front().expect("looked at above");
            self.issue(frame, disk, stats);
        }
        self.restock(disk);
    }

    fn issue(&mut self, frame: ClosedFrame, disk: &mut (impl Disk + ?Sized), stats: &mut WalStats) {
        let (start, end, len) = (frame.start(), frame.end(), frame.len());
        assert_eq!(start, self.written_lsn, "frames are written without a gap");
        let offset = self.config.layout.device_offset(start);
        if frame.record_count() > 0 {
            self.data_end = end;
        }
        self.recorded_lsn = self.durable_lsn;
        stats.count_frame(frame.kind(), frame.record_count(), len);
        let number = self.first_write + self.in_flight.len() as u64;
        let buf = frame.stamp(&Stamp {
            ring_id: self.config.ring_id,
            writer_epoch: self.config.writer_epoch,
            durable_lsn: self.durable_lsn,
            segment_number: self.config.layout.segment_of(start),
        });
        self.written_lsn = end;
        self.in_flight.push_back(InFlight { offset, end, done: false });
        disk.write(crate::token::write(number), offset, buf, len);
    }

    /// Takes a write's completion; returns the device offset with the error if it failed.
    pub(crate) fn complete(
        &mut self,
        number: u64,
        buf: AlignedBuf,
        result: io::Result<()>,
    ) -> Result<(), (u64, io::Error)> {
        self.give_back(buf);
        let index = number.checked_sub(self.first_write).and_then(|index| index.try_into().ok());
        let index: usize = index.expect("a completion of a write that is in flight");
        let write = self.in_flight.get_mut(index).expect("a completion of a write in flight");
        assert!(!write.done, "a write completed twice");
        if let Err(error) = result {
            // It stays in flight for good: nothing from here on can become durable.
            return Err((write.offset, error));
        }
        write.done = true;
        while let Some(end) = self.in_flight.front().filter(|it| it.done).map(|it| it.end) {
            assert!(end > self.durable_lsn, "the durable LSN only grows");
            self.durable_lsn = end;
            self.in_flight.pop_front();
            self.first_write += 1;
        }
        Ok(())
    }

    /// Takes from the disk, ahead of need, the buffers that this pipeline will use.
    pub(crate) fn prepare(&mut self, disk: &mut (impl Disk + ?Sized)) {
        while self.spare.len() <= self.config.depth {
            self.spare.push(disk.take_buffer(self.config.buffer_size));
        }
    }

    /// Keeps one buffer at hand for the next open frame.
    fn restock(&mut self, disk: &mut (impl Disk + ?Sized)) {
        if self.spare.is_empty() {
            self.spare.push(disk.take_buffer(self.config.buffer_size));
        }
    }

    fn buffer(&mut self, size: usize) -> AlignedBuf {
        if size > self.config.buffer_size {
            // One large entry: rare, and its buffer is not kept.
            return AlignedBuf::zeroed(size, BUFFER_ALIGN);
        }
        let spare = self.spare.pop();
        spare.unwrap_or_else(|| AlignedBuf::zeroed(self.config.buffer_size, BUFFER_ALIGN))
    }

    fn give_back(&mut self, buf: AlignedBuf) {
        let room = self.spare.len() < self.spare.capacity();
        if room && buf.len() == self.config.buffer_size {
            self.spare.push(buf);
        }
    }
}

fn start_frame(layout: &RingLayout, buf: AlignedBuf, at: Lsn) -> FrameWriter {
    let opens_segment = layout.opens_segment(at);
    let header_size = if opens_segment { layout.block() } else { 0 };
    let room = layout.room_in_segment(at).min(header_size + layout.frame_size_max());
    FrameWriter::new(buf, at, opens_segment, room, layout.block())
}
