//! Writes a file past the page cache, from one small buffer.
//!
//! An object is written once and seldom read soon. Through the page cache each MiB costs 256 pages
//! that the kernel has to find, and a copy, on a core that a shard may share: 12 to 119 ms for 32
//! MiB, where past it they take 9 to 13 (`perf/README.md`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Blocks of devices are not larger.
const ALIGN: usize = 4096;
/// One request to the device, some 0.2 ms of it: others wait behind that, the WAL above all.
pub(super) const REQUEST_SIZE: usize = 256 << 10;
/// Made durable so many bytes at a time: what is not durable yet stands in front of what others
/// make durable on the same device meanwhile.
const PACE: u64 = 1 << 20;

/// Takes a file's bytes until [`Writer::finish`].
pub(super) struct Writer<'a> {
    file: &'a File,
    memory: Vec<u8>,
    /// The buffer: what of `memory` is aligned.
    start: usize,
    room: usize,
    filled: usize,
    /// How much of the file is written, and how much of that is durable.
    written: u64,
    durable: u64,
}

impl<'a> Writer<'a> {
    /// Of an empty file that will have `size` bytes.
    pub(super) fn new(file: &'a File, size: usize) -> io::Result<Self> {
        past_page_cache(file)?;
        let room = size.next_multiple_of(ALIGN).clamp(ALIGN, REQUEST_SIZE);
        let memory = vec![0; room + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        Ok(Self { file, memory, start, room, filled: 0, written: 0, durable: 0 })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.room - self.filled));
            self.memory[self.start + self.filled..][..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == self.room {
                self.write_blocks()?;
            }
        }
        Ok(())
    }

    /// The file has all bytes, no more, and is durable.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let size = self.written + self.filled as u64;
        if self.filled > 0 {
            // The last block is filled up with what was there, and cut off again.
            self.filled = self.filled.next_multiple_of(ALIGN);
            self.write_blocks()?;
            self.file.set_len(size)?;
        }
        self.file.sync_all()
    }

    fn write_blocks(&mut self) -> io::Result<()> {
        let blocks = &self.memory[self.start..][..self.filled];
        self.file.write_all_at(blocks, self.written)?;
        self.written += blocks.len() as u64;
        self.filled = 0;
        if self.written - self.durable >= PACE {
            self.file.sync_data()?;
            self.durable = self.written;
        }
        Ok(())
    }
}

/// File systems that have no such way refuse, and are written as ever.
fn past_page_cache(file: &File) -> io::Result<()> {
    match fcntl_setfl(file, fcntl_getfl(file)? | OFlags::DIRECT) {
        Err(Errno::INVAL) => Ok(()),
        set => set.map_err(io::Error::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `write` makes of parts of these sizes.
    fn written(parts: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let path = std::env::temp_dir().join(format!("direct-{}", std::process::id()));
        let file = File::create_new(&path).expect("a new file");
        let bytes: Vec<u8> =
            (0..parts.iter().sum()).map(|at: usize| at.to_le_bytes()[at % 3]).collect();
        let mut writer = Writer::new(&file, bytes.len()).expect("an open file");
        let mut rest = &bytes[..];
        for size in parts {
            let (part, more) = rest.split_at(*size);
            writer.write(part).expect("room on the disk");
            rest = more;
        }
        writer.finish().expect("room on the disk");
        let found = std::fs::read(&path).expect("what was written");
        std::fs::remove_file(&path).expect("it goes again");
        (found, bytes)
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
    fn a_file_has_the_bytes_of_its_parts_and_no_more() {
        for size in [0, 1, ALIGN - 1, ALIGN, ALIGN + 1, REQUEST_SIZE, REQUEST_SIZE + 1] {
            let (found, bytes) = written(&[size]);
            assert!(found == bytes, "{size} bytes, {} found", found.len());
        }
        let (found, bytes) = written(&[5, REQUEST_SIZE, 0, (PACE as usize) * 2, 4091, 70_001]);
        assert!(found == bytes, "{} of {} bytes", found.len(), bytes.len());
    }
}
