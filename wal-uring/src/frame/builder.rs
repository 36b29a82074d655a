//! Builds one device write: [segment header] frame [seal], in a buffer that is written as it is.
//!
//! The headers are stamped last, when the write is issued: only then is the durable LSN known that
//! they carry, and the later it is the more it proves at recovery.

use uring::AlignedBuf;
use uuid::Uuid;

use crate::frame::record::{Part, RECORD_HEADER_SIZE, RecordKey, encode_record};
use crate::frame::{FRAME_HEADER_SIZE, FrameFields, FrameHeader, FrameKind};
use crate::segment::{SEGMENT_HEADER_SIZE, SegmentHeader};
use crate::{Lsn, WriterEpoch};

/// What headers say about the writer at the moment of writing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    pub ring_id: Uuid,
    pub writer_epoch: WriterEpoch,
    pub durable_lsn: Lsn,
    /// Number of the segment that the write lies in.
    pub segment_number: u64,
}

/// A frame that still takes records.
pub struct FrameWriter {
    buf: AlignedBuf,
    start: Lsn,
    block_size: usize,
    /// Where the frame header stands in the buffer: 0, or one block behind a segment header.
    header_at: usize,
    /// End of the records so far.
    fill: usize,
    /// `fill` must not pass this: the room left in buffer and segment.
    limit: usize,
    record_count: u32,
    /// Of the records so far.
    payload_crc: u32,
}

impl FrameWriter {
    /// Bytes of buffer that hold one record of `data_size` bytes wherever its frame falls: with a
    /// segment header before it and a seal behind it.
    pub const fn buffer_size_for(data_size: usize, block_size: usize) -> usize {
        Self::frame_size_for(data_size, block_size) + 2 * block_size
    }

    /// Bytes on the device of a frame with one record of `data_size` bytes.
    pub const fn frame_size_for(data_size: usize, block_size: usize) -> usize {
        (FRAME_HEADER_SIZE + RECORD_HEADER_SIZE + data_size).next_multiple_of(block_size)
    }

    /// Starts a frame in a write at `start`, which has `room` bytes to the end of its segment.
    pub fn new(
        buf: AlignedBuf,
        start: Lsn,
        opens_segment: bool,
        room: usize,
        block_size: usize,
    ) -> Self {
        let header_at = if opens_segment { block_size } else { 0 };
        let fill = header_at + FRAME_HEADER_SIZE;
        // One block is kept for a seal: it goes out in the same write as the last frame.
        let limit = room.min(buf.len() - block_size);
        assert!(fill <= limit, "frame at {start} has no room for its header");
        Self { buf, start, block_size, header_at, fill, limit, record_count: 0, payload_crc: 0 }
    }

    pub const fn fits(&self, data_size: usize) -> bool {
        // Sizes are far below usize::MAX: append has capped `data_size`.
        self.fill + RECORD_HEADER_SIZE + data_size <= self.limit && self.record_count < u32::MAX
    }

    /// Copies a record in; returns the position of its data. It must fit.
    pub fn push(&mut self, key: RecordKey, parts: &[Part<'_>]) -> Lsn {
        let lsn = self.start.advance(self.fill as u64);
        let target = &mut self.buf[self.fill..self.limit];
        let size = encode_record(target, lsn, key, parts, &mut self.payload_crc);
        let data_at = self.fill + RECORD_HEADER_SIZE;
        self.fill += size;
        self.record_count += 1;
        self.start.advance(data_at as u64)
    }

    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes so far, headers included.
    pub const fn size(&self) -> usize {
        self.fill
    }

    /// End of the records so far; the frame's own end is only known when it is closed.
    pub const fn records_end(&self) -> Lsn {
        self.start.advance(self.fill as u64)
    }

    /// Ends the frame: data if it has records, else a mark.
    pub fn close(mut self) -> ClosedFrame {
        let payload_end = self.fill;
        let frame_end = payload_end.next_multiple_of(self.block_size);
        // The buffer is used again and again; what it held must not reach the device.
        self.buf[payload_end..frame_end].fill(0);
        let kind = if self.is_empty() { FrameKind::Mark } else { FrameKind::Data };
        ClosedFrame {
            end: self.start.advance(frame_end as u64),
            buf: self.buf,
            start: self.start,
            block_size: self.block_size,
            header_at: self.header_at,
            payload_end,
            len: frame_end,
            kind,
            record_count: self.record_count,
            payload_crc: self.payload_crc,
            seal_at: None,
        }
    }
}

/// A frame that waits for its turn to be written.
pub struct ClosedFrame {
    buf: AlignedBuf,
    start: Lsn,
    end: Lsn,
    block_size: usize,
    header_at: usize,
    payload_end: usize,
    len: usize,
    kind: FrameKind,
    record_count: u32,
    payload_crc: u32,
    seal_at: Option<usize>,
}

impl ClosedFrame {
    /// A write that is only a seal: nothing was pending when the segment had to be closed.
    pub fn seal_only(mut buf: AlignedBuf, start: Lsn, next: Lsn, block_size: usize) -> Self {
        buf[..block_size].fill(0);
        Self {
            buf,
            start,
            end: next,
            block_size,
            header_at: 0,
            payload_end: FRAME_HEADER_SIZE,
            len: block_size,
            kind: FrameKind::Seal,
            record_count: 0,
            payload_crc: 0,
            seal_at: None,
        }
    }

    /// Adds a seal behind the frame, so that the log goes on at `next`, the next segment's start.
    pub fn seal(&mut self, next: Lsn) {
        assert!(self.seal_at.is_none() && self.kind != FrameKind::Seal, "sealed twice");
        assert!(next.since(self.end) >= self.block_size as u64, "no room for a seal");
        self.seal_at = Some(self.len);
        self.buf[self.len..self.len + self.block_size].fill(0);
        self.len += self.block_size;
        self.end = next;
    }

    pub const fn start(&self) -> Lsn {
        self.start
    }

    /// Where the log goes on after this write.
    pub const fn end(&self) -> Lsn {
        self.end
    }

    pub const fn kind(&self) -> FrameKind {
        self.kind
    }

    pub const fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Bytes to write.
    #[expect(clippy::len_without_is_empty, reason = "a write is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Writes the headers and hands out the buffer, of which `len` bytes go to the device.
    pub fn stamp(mut self, stamp: &Stamp) -> AlignedBuf {
        if self.header_at > 0 {
            self.buf[..self.block_size].fill(0);
            let header = SegmentHeader {
                segment_number: stamp.segment_number,
                ring_id: stamp.ring_id,
                writer_epoch: stamp.writer_epoch,
                durable_lsn: stamp.durable_lsn,
            };
            self.buf[..SEGMENT_HEADER_SIZE].copy_from_slice(&header.encode());
        }
        let payload = (self.payload_end - self.header_at - FRAME_HEADER_SIZE, self.payload_crc);
        self.stamp_frame(stamp, (self.header_at, self.kind), payload, self.record_count);
        if let Some(seal_at) = self.seal_at {
            self.stamp_frame(stamp, (seal_at, FrameKind::Seal), (0, 0), 0);
        }
        self.buf
    }

    fn stamp_frame(
        &mut self,
        stamp: &Stamp,
        (header_at, kind): (usize, FrameKind),
        (payload_size, payload_crc): (usize, u32),
        record_count: u32,
    ) {
        let fields = FrameFields {
            kind,
            lsn: self.start.advance(header_at as u64),
            writer_epoch: stamp.writer_epoch,
            durable_lsn: stamp.durable_lsn,
            ring_id: stamp.ring_id,
            record_count,
        };
        let header = FrameHeader::new(&fields, payload_size, payload_crc);
        self.buf[header_at..header_at + FRAME_HEADER_SIZE].copy_from_slice(&header.encode());
    }
}
