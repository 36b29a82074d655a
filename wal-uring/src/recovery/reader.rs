//! Reads the ring in large pieces; the next one is on its way while the one before is looked at.

use std::io;

use uring::AlignedBuf;

use super::OpenError;
use crate::device::BlockDevice;
use crate::frame::{FRAME_HEADER_SIZE, FrameHeader, FrameKind};
use crate::ring::RingLayout;
use crate::{BUFFER_ALIGN, Lsn, in_memory};

/// Bytes of one sequential read.
const READ_SIZE: usize = 4 << 20;

/// Reads the ring by LSN, in large pieces.
pub(super) struct LogReader<'a, D> {
    pub(super) device: &'a mut D,
    pub(super) layout: RingLayout,
    buf: AlignedBuf,
    /// What `buf` holds: `filled` bytes from `start`.
    start: Lsn,
    filled: usize,
}

impl<'a, D: BlockDevice> LogReader<'a, D> {
    pub(super) fn new(device: &'a mut D, layout: RingLayout) -> Self {
        let segment_size = in_memory(layout.segment_size);
        // No frame is larger than a quarter of its segment, so the buffer holds any one whole, and
        // a segment's header before it.
        let size = segment_size.min(READ_SIZE.max(layout.frame_size_max() + layout.block()));
        let buf = AlignedBuf::zeroed(size, BUFFER_ALIGN);
        Self { device, layout, buf, start: Lsn::ZERO, filled: 0 }
    }

    /// `len` bytes of the ring at `lsn`, which must lie in one segment.
    pub(super) fn view(&mut self, lsn: Lsn, len: usize) -> Result<&[u8], OpenError> {
        assert!(len <= self.layout.room_in_segment(lsn), "a read over a segment's end");
        let held =
            self.start <= lsn && lsn.advance(len as u64) <= self.start.advance(self.filled as u64);
        if !held {
            self.fill(lsn)?;
        }
        let skip = in_memory(lsn.since(self.start));
        Ok(&self.buf[skip..skip + len])
    }

    fn fill(&mut self, lsn: Lsn) -> Result<(), OpenError> {
        let block = u64::from(self.layout.block_size);
        let mut start = Lsn::new(lsn.get() / block * block);
        if start.get() % self.layout.segment_size == block {
            // The segment's header is looked at after its first frame.
            start = self.layout.segment_start_of(start);
        }
        let room = self.layout.room_in_segment(start);
        self.filled = 0;
        let offset = self.layout.device_offset(start);
        if room >= self.buf.len() {
            let read = self.device.read_at(offset, &mut self.buf);
            read.map_err(|source| self.locate(offset, source))?;
        } else {
            let mut rest = AlignedBuf::zeroed(room, BUFFER_ALIGN);
            let read = self.device.read_at(offset, &mut rest);
            read.map_err(|source| self.locate(offset, source))?;
            self.buf[..room].copy_from_slice(&rest);
        }
        (self.start, self.filled) = (start, room.min(self.buf.len()));
        if let Some(next) = self.next_fill() {
            let len = self.layout.room_in_segment(next).min(self.buf.len());
            self.device.read_ahead(self.layout.device_offset(next), len);
        }
        Ok(())
    }

    /// Where the frames that are held lead, if they are what they seem: the first one that is not
    /// held whole. A guess that is wrong costs a read.
    fn next_fill(&self) -> Option<Lsn> {
        let mut next = self.layout.header_lsn(self.start);
        loop {
            let at = in_memory(next.since(self.start));
            let Some(block) = self.buf[..self.filled].get(at..at + self.layout.block()) else {
                return Some(next);
            };
            let header = FrameHeader::decode_block(block).ok()?;
            if header.kind() == FrameKind::Seal {
                return Some(self.layout.segment_start(self.layout.segment_of(next) + 1));
            }
            let size = FRAME_HEADER_SIZE + header.payload_size() as usize;
            let end = next.advance(size.next_multiple_of(self.layout.block()) as u64);
            if in_memory(end.since(self.start)) > self.filled {
                return Some(next);
            }
            next = end;
        }
    }

    /// A large read failed: names the first block in it that cannot be read by itself.
    fn locate(&mut self, offset: u64, source: io::Error) -> OpenError {
        let mut block = AlignedBuf::zeroed(self.layout.block(), BUFFER_ALIGN);
        let blocks = (offset..offset + self.buf.len() as u64).step_by(self.layout.block());
        for at in blocks {
            if let Err(source) = self.device.read_at(at, &mut block) {
                return OpenError::Read { offset: at, source };
            }
        }
        OpenError::Read { offset, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ImageDevice;
    use crate::ring::SUPERBLOCK_AREA_SIZE;

    #[test]
    fn the_largest_frame_is_held_whole_wherever_it_begins() {
        let layout = RingLayout {
            slice_offset: 0,
            segment_size: 32 << 20,
            segment_count: 2,
            block_size: 4096,
            window_size: 8 << 20,
        };
        let image = vec![0; in_memory(SUPERBLOCK_AREA_SIZE + layout.capacity())];
        let mut device = ImageDevice::new(&image, layout.block_size);
        let mut reader = LogReader::new(&mut device, layout);
        let (first, size) = (layout.header_lsn(Lsn::ZERO), layout.frame_size_max());
        let last = Lsn::new(layout.segment_size - size as u64);
        for lsn in [first, first.advance(size as u64), last, layout.header_lsn(last)] {
            assert_eq!(reader.view(lsn, size).expect("it is there").len(), size, "{lsn}");
        }
        // The header of a segment is there when its first frame is.
        reader.view(first, size).expect("it is there");
        reader.view(Lsn::ZERO, layout.block()).expect("it is there");
        assert_eq!(reader.start, Lsn::ZERO);
    }
}
