//! Reads the ring in chunks, a few of them at a time; what lies over the end of one is joined.

use std::io;
use std::ops::{Range, RangeInclusive};

use uring::AlignedBuf;

use super::OpenError;
use crate::device::{BlockDevice, READS_AHEAD};
use crate::ring::RingLayout;
use crate::{BUFFER_ALIGN, Lsn, in_memory};

/// Bytes of a chunk, and of one read. All that are on their way fit the processor's cache together:
/// four times as large ones were read more slowly, and then looked at in memory.
const CHUNK_SIZE: u64 = 1 << 20;

/// Reads the ring by LSN. Each segment is cut into chunks from its start on; the last of them may
/// be shorter.
pub(super) struct LogReader<'a, D> {
    pub(super) device: &'a mut D,
    pub(super) layout: RingLayout,
    /// The chunk that was read last, and where it starts; empty before the first.
    chunk: AlignedBuf,
    chunk_start: Lsn,
    /// What was last asked for over the end of a chunk, and where it starts.
    joined: Vec<u8>,
    joined_start: Lsn,
    /// The number of the first chunk that was not asked for ahead.
    asked: u64,
}

impl<'a, D: BlockDevice> LogReader<'a, D> {
    pub(super) fn new(device: &'a mut D, layout: RingLayout) -> Self {
        Self {
            device,
            layout,
            chunk: AlignedBuf::zeroed(0, BUFFER_ALIGN),
            chunk_start: Lsn::ZERO,
            joined: Vec::new(),
            joined_start: Lsn::ZERO,
            asked: 0,
        }
    }

    /// `len` bytes of the ring at `lsn`, which must lie in one segment.
    pub(super) fn view(&mut self, lsn: Lsn, len: usize) -> Result<&[u8], OpenError> {
        assert!(len <= self.layout.room_in_segment(lsn), "a read over a segment's end");
        if range_in(self.joined_start, &self.joined, lsn, len).is_none() {
            let (first, last) = (self.number(lsn), self.number(lsn.advance(len as u64 - 1)));
            if first == last {
                self.load(first)?;
                let held = range_in(self.chunk_start, &self.chunk, lsn, len);
                return Ok(&self.chunk[held.expect("it is in this chunk")]);
            }
            self.join(lsn, len, first..=last)?;
        }
        let held = range_in(self.joined_start, &self.joined, lsn, len);
        Ok(&self.joined[held.expect("it was joined")])
    }

    fn join(&mut self, lsn: Lsn, len: usize, chunks: RangeInclusive<u64>) -> Result<(), OpenError> {
        // The header of a segment is looked at after its first frame.
        let segment = self.layout.segment_start_of(lsn);
        let start = if lsn == self.layout.header_lsn(segment) { segment } else { lsn };
        let end = lsn.advance(len as u64);
        self.joined.clear();
        self.joined_start = start;
        for number in chunks {
            self.load(number)?;
            let from = in_memory(start.max(self.chunk_start).since(self.chunk_start));
            let to = self.chunk.len().min(in_memory(end.since(self.chunk_start)));
            self.joined.extend_from_slice(&self.chunk[from..to]);
        }
        Ok(())
    }

    /// Makes it the chunk that is held, and has the device go on with those that follow.
    fn load(&mut self, number: u64) -> Result<(), OpenError> {
        let (start, len) = self.place(number);
        if self.chunk_start == start && !self.chunk.is_empty() {
            return Ok(());
        }
        let offset = self.layout.device_offset(start);
        let mut chunk = std::mem::replace(&mut self.chunk, AlignedBuf::zeroed(0, BUFFER_ALIGN));
        if chunk.len() != len {
            chunk = AlignedBuf::zeroed(len, BUFFER_ALIGN);
        }
        let read = self.device.read_at(offset, &mut chunk);
        read.map_err(|source| self.locate(offset, len, source))?;
        (self.chunk, self.chunk_start) = (chunk, start);
        let ahead = number + 1..number + 1 + u64::from(READS_AHEAD);
        let asked = if ahead.contains(&self.asked) { self.asked } else { ahead.start };
        for next in asked..ahead.end {
            let (start, len) = self.place(next);
            self.device.read_ahead(self.layout.device_offset(start), len);
        }
        self.asked = ahead.end;
        Ok(())
    }

    fn number(&self, lsn: Lsn) -> u64 {
        let in_segment = lsn.since(self.layout.segment_start_of(lsn));
        self.layout.segment_of(lsn) * self.chunks_per_segment() + in_segment / CHUNK_SIZE
    }

    /// Where a chunk starts, and how many bytes it has.
    fn place(&self, number: u64) -> (Lsn, usize) {
        let (segment, nth) =
            (number / self.chunks_per_segment(), number % self.chunks_per_segment());
        let start = self.layout.segment_start(segment).advance(nth * CHUNK_SIZE);
        (start, self.layout.room_in_segment(start).min(in_memory(CHUNK_SIZE)))
    }

    const fn chunks_per_segment(&self) -> u64 {
        self.layout.segment_size.div_ceil(CHUNK_SIZE)
    }

    /// A large read failed: names the first block in it that cannot be read by itself.
    fn locate(&mut self, offset: u64, len: usize, source: io::Error) -> OpenError {
        let mut block = AlignedBuf::zeroed(self.layout.block(), BUFFER_ALIGN);
        for at in (offset..offset + len as u64).step_by(self.layout.block()) {
            if let Err(source) = self.device.read_at(at, &mut block) {
                return OpenError::Read { offset: at, source };
            }
        }
        OpenError::Read { offset, source }
    }
}

/// Where `len` bytes at `lsn` are in `bytes`, which start at `start`; `None` if not all are there.
fn range_in(start: Lsn, bytes: &[u8], lsn: Lsn, len: usize) -> Option<Range<usize>> {
    let from = in_memory(lsn.get().checked_sub(start.get())?);
    let to = from.checked_add(len)?;
    (to <= bytes.len()).then_some(from..to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ImageDevice;
    use crate::ring::SUPERBLOCK_AREA_SIZE;

    /// Two segments of two whole chunks and a short one; each block is full of its own number.
    const LAYOUT: RingLayout = RingLayout {
        slice_offset: 0,
        segment_size: 5 << 19,
        segment_count: 2,
        block_size: 4096,
        window_size: 5 << 19,
    };

    fn image() -> Vec<u8> {
        let blocks = LAYOUT.capacity() / u64::from(LAYOUT.block_size);
        let mut image = vec![0; in_memory(SUPERBLOCK_AREA_SIZE)];
        image.extend((0..blocks).flat_map(|block| {
            let number = u16::try_from(block).expect("a few blocks").to_le_bytes();
            number.repeat(LAYOUT.block() / 2)
        }));
        image
    }

    #[test]
    fn every_view_has_the_bytes_of_its_place_wherever_it_begins_and_ends() {
        let image = image();
        let mut device = ImageDevice::new(&image, LAYOUT.block_size);
        let mut reader = LogReader::new(&mut device, LAYOUT);
        let blocks = in_memory(LAYOUT.segment_size) / LAYOUT.block();
        for lap in 0..2 {
            for first in (0..blocks).step_by(37).chain([1, 255, 256, 511, 512, 639]) {
                for count in [1, 2, 256, 257, 600].map(|count| count.min(blocks - first)) {
                    let in_segment = first * LAYOUT.block();
                    // Not all of its last block: a frame ends where it likes.
                    let len = count * LAYOUT.block() - 7;
                    let lsn = LAYOUT.segment_start(2 * lap + 1).advance(in_segment as u64);
                    let at = in_memory(SUPERBLOCK_AREA_SIZE + LAYOUT.segment_size) + in_segment;
                    let view = reader.view(lsn, len).expect("it is there");
                    assert!(view == &image[at..at + len], "{len} bytes at {lsn}");
                }
            }
        }
    }

    #[test]
    fn the_header_of_a_segment_is_held_with_its_first_frame() {
        let image = image();
        let mut device = Watched::new(&image);
        let mut reader = LogReader::new(&mut device, LAYOUT);
        let first = LAYOUT.header_lsn(Lsn::ZERO);
        reader.view(first, LAYOUT.block()).expect("it is there");
        reader.view(first, in_memory(CHUNK_SIZE)).expect("it is there");
        let header = reader.view(Lsn::ZERO, LAYOUT.block()).expect("it is there");
        assert!(header.iter().all(|&byte| byte == 0), "block 0");
        assert_eq!(device.reads, 2);
    }

    #[test]
    fn whoever_reads_on_finds_each_chunk_asked_for() {
        let image = image();
        let mut device = Watched::new(&image);
        let mut reader = LogReader::new(&mut device, LAYOUT);
        for lsn in (0..2 * LAYOUT.capacity()).step_by(LAYOUT.block()) {
            reader.view(Lsn::new(lsn), LAYOUT.block()).expect("it is there");
        }
        assert_eq!((device.reads, device.surprises), (12, 1), "two laps of six, and the first");
    }

    /// Counts what is read, and what of it was not asked for ahead.
    struct Watched<'a> {
        image: ImageDevice<'a>,
        asked: Vec<(u64, usize)>,
        reads: usize,
        surprises: usize,
    }

    impl<'a> Watched<'a> {
        fn new(image: &'a [u8]) -> Self {
            let image = ImageDevice::new(image, LAYOUT.block_size);
            Self { image, asked: Vec::new(), reads: 0, surprises: 0 }
        }
    }

    impl BlockDevice for Watched<'_> {
        fn geometry(&self) -> crate::device::Geometry {
            self.image.geometry()
        }

        fn read_at(&mut self, offset: u64, buf: &mut AlignedBuf) -> io::Result<()> {
            self.reads += 1;
            match self.asked.iter().position(|&read| read == (offset, buf.len())) {
                Some(at) => drop(self.asked.remove(at)),
                None => self.surprises += 1,
            }
            self.image.read_at(offset, buf)
        }

        fn read_ahead(&mut self, offset: u64, len: usize) {
            self.asked.push((offset, len));
            assert!(self.asked.len() <= READS_AHEAD as usize, "more than a device has begun");
        }

        fn write_at(&mut self, offset: u64, buf: &AlignedBuf) -> io::Result<()> {
            self.image.write_at(offset, buf)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.image.flush()
        }
    }
}
