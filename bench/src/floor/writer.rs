//! (b): the least that makes blocks durable: `O_DIRECT` writes from a bare, spinning ring.

use std::io;
use std::path::Path;

use uring::bare::BlockWriter;
use uring::{AlignedBuf, DeviceFile, OpenMode};

use crate::BenchError;
use crate::clock::{Clock, Contention};
use crate::open_loop::{Next, OpenLoop, Schedule};

use super::{IN_FLIGHT_MAX, Measured};

/// The file is written anew from its start.
const FILE_SIZE: u64 = 64 << 20;

/// The file, written once with zeros, so that the measured writes change no metadata.
pub(super) fn create(path: &Path) -> Result<DeviceFile, BenchError> {
    let device = DeviceFile::open(path, OpenMode::Create)?;
    let zeros = AlignedBuf::zeroed(1 << 20, 4096);
    let filled = || {
        device.resize(FILE_SIZE)?;
        for offset in (0..FILE_SIZE).step_by(zeros.len()) {
            device.write_at(offset, &zeros)?;
        }
        device.sync()
    };
    filled().map_err(BenchError::io("fill the file for bare writes"))?;
    Ok(device)
}

/// Runs the load; call it on the server's core.
pub(super) fn run(
    device: &DeviceFile,
    block_size: u32,
    durable: bool,
    schedule: Schedule,
) -> Result<Measured, BenchError> {
    let mut writer = device
        .file()
        .and_then(|file| BlockWriter::new(file, block_size, durable))
        .map_err(BenchError::io("set up the ring for bare writes"))?;
    let mut load = OpenLoop::new(schedule, IN_FLIGHT_MAX)?;
    let (clock, contention) = (Clock::start(), Contention::start());
    let mut ended = Ended::default();
    loop {
        let now = clock.now();
        match load.next(now) {
            Next::Send => {
                let index = load.sent(now);
                let offset = index * u64::from(block_size) % FILE_SIZE;
                let started = writer.start(offset, index);
                started.map_err(BenchError::io("start a bare write"))?;
            }
            Next::Done => {
                return Ok(Measured::new(load.finish(clock.now()), contention));
            }
            Next::WaitUntil(_) | Next::AwaitReply | Next::Drain => {}
        }
        let token = writer.poll().map_err(BenchError::io("write to the file for bare writes"))?;
        if let Some(token) = token {
            let now = clock.now();
            for _ in 0..ended.add(token) {
                load.replied(now, true);
            }
        }
    }
}

/// Writes may end out of order; the load, like a log, knows of them in order only.
#[derive(Debug, Default)]
struct Ended {
    next: u64,
    early: Vec<u64>,
}

impl Ended {
    /// How many writes are now known to have ended.
    fn add(&mut self, token: u64) -> u64 {
        self.early.push(token);
        let before = self.next;
        while let Some(at) = self.early.iter().position(|early| *early == self.next) {
            self.early.swap_remove(at);
            self.next += 1;
        }
        self.next - before
    }
}

/// Bytes of the block-aligned frame that holds one record: the record, its batch, its entry and
/// the frame's header take less than 256 bytes beside the value.
pub(super) fn block_size(record_size: usize) -> io::Result<u32> {
    let size = (record_size + 256).next_multiple_of(4096);
    u32::try_from(size).map_err(|_| io::Error::other("--record-size is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_loop::Rate;

    #[test]
    fn a_write_counts_when_all_before_it_have_ended() {
        let mut ended = Ended::default();
        assert_eq!([ended.add(1), ended.add(2), ended.add(0), ended.add(3)], [0, 0, 3, 1]);
    }

    #[test]
    fn every_write_of_the_schedule_ends_and_is_counted() {
        let path = std::env::temp_dir().join(format!("bench-writer-{}", std::process::id()));
        let device = match create(&path) {
            Err(BenchError::Device(uring::DeviceError::NoDirectIo { .. })) => {
                // A tmpfs: elsewhere it runs.
                std::fs::remove_file(&path).unwrap();
                return;
            }
            created => created.unwrap(),
        };
        let rate = Rate::of_records(2000, 1);
        let schedule = Schedule::of_lane(rate, 0, 1, 10_000_000, 100_000_000);
        let measured = run(&device, 4096, device.write_cache().needs_sync(), schedule);
        std::fs::remove_file(&path).unwrap();
        let outcome = measured.unwrap().outcome;
        assert_eq!((outcome.answered, outcome.unanswered, outcome.errors), (200, 0, 0));
    }

    #[test]
    fn blocks_are_whole_pages() {
        assert_eq!(block_size(1024).unwrap(), 4096);
        assert_eq!(block_size(4000).unwrap(), 8192);
    }
}
