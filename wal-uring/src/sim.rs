//! A simulated disk: everything a real one does to a WAL, decided by a seed.
//!
//! It is both sides of the device seam: [`BlockDevice`] for format, open and recovery, [`Disk`] for
//! the running WAL. Time is a number that `poll` moves; nothing here knows the wall clock.
//!
//! ```text
//!  write_at -> cache --flush--> medium          blocking: durable only after a flush
//!  write -> in flight --poll--> medium          asynchronous: durable when completed
//!                                crash()        what is cached or in flight: kept, lost or torn
//! ```

mod fault;
mod random;

use std::io;

use uring::{AlignedBuf, DiskDone, DiskOpKind};

pub use fault::{Faults, Injected};
pub use random::Random;

use crate::BUFFER_ALIGN;
use crate::device::{BlockDevice, Disk, Geometry};
use crate::in_memory;

/// Writes are torn at multiples of this, bytes: what a drive writes in one piece at least.
pub const SECTOR_SIZE: usize = 512;

/// How a simulated disk behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimDiskOptions {
    /// Bytes, a multiple of `block_size`.
    pub size: u64,
    pub block_size: u32,
    /// Asynchronous requests take this long, in the unit of `poll`.
    pub delay_min: u64,
    /// Inclusive. With `delay_min` less than it, completions are reordered.
    pub delay_max: u64,
    pub faults: Faults,
}

impl SimDiskOptions {
    /// A disk without faults that reorders completions.
    pub const fn new(size: u64, block_size: u32) -> Self {
        Self { size, block_size, delay_min: 10, delay_max: 200, faults: Faults::NONE }
    }
}

/// A disk in memory. Dropped, it is gone; `crash` keeps what survives a power cut.
pub struct SimDisk {
    options: SimDiskOptions,
    random: Random,
    /// What survives anything.
    medium: Vec<u8>,
    /// Blocking writes since the last flush, in order.
    cache: Vec<CachedWrite>,
    in_flight: Vec<Request>,
    now: u64,
    /// Numbers requests, so that equal due times have one order.
    request_next: u64,
    injected: Injected,
    /// Hash over everything that happened, in order.
    trace: u32,
}

struct CachedWrite {
    offset: u64,
    bytes: Vec<u8>,
}

struct Request {
    due: u64,
    number: u64,
    token: u64,
    kind: DiskOpKind,
    offset: u64,
    buf: AlignedBuf,
    len: usize,
}

impl SimDisk {
    /// An empty (zero) disk.
    pub fn new(seed: u64, options: SimDiskOptions) -> Self {
        Self::with_image(seed, options, vec![0; in_memory(options.size)])
    }

    /// A disk that holds `image`, for example what `crash` left.
    pub fn with_image(seed: u64, options: SimDiskOptions, image: Vec<u8>) -> Self {
        assert_eq!(image.len() as u64, options.size, "an image of the disk's size");
        assert!(options.size.is_multiple_of(options.block_size.into()), "whole blocks");
        Self {
            options,
            random: Random::new(seed),
            medium: image,
            cache: Vec::new(),
            in_flight: Vec::new(),
            now: 0,
            request_next: 0,
            injected: Injected::default(),
            trace: 0,
        }
    }

    /// Changes the faults from now on.
    pub const fn set_faults(&mut self, faults: Faults) {
        self.options.faults = faults;
    }

    /// What was injected so far.
    pub const fn injected(&self) -> &Injected {
        &self.injected
    }

    /// When the next request completes.
    pub fn next_due(&self) -> Option<u64> {
        self.in_flight.iter().map(|request| request.due).min()
    }

    /// The next completion that is due at `now`; call it until there is none.
    pub fn poll(&mut self, now: u64) -> Option<DiskDone> {
        self.now = self.now.max(now);
        let first = (0..self.in_flight.len())
            .filter(|&index| self.in_flight[index].due <= self.now)
            .min_by_key(|&index| (self.in_flight[index].due, self.in_flight[index].number))?;
        let request = self.in_flight.swap_remove(first);
        Some(self.finish(request))
    }

    /// Lets time pass to the next completion, and returns it.
    pub fn step(&mut self) -> Option<DiskDone> {
        let due = self.next_due()?;
        self.poll(due)
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A hash over all requests and their ends so far: equal seeds give equal traces.
    pub const fn trace(&self) -> u32 {
        self.trace
    }

    /// Power loss: cached and in-flight writes are each kept, lost or torn. Returns what is left.
    pub fn crash(mut self) -> Vec<u8> {
        let cache = std::mem::take(&mut self.cache);
        for write in cache {
            self.survive(write.offset, &write.bytes);
        }
        let mut in_flight = std::mem::take(&mut self.in_flight);
        in_flight.retain(|request| request.kind == DiskOpKind::Write);
        while !in_flight.is_empty() {
            // In any order: where two overlap, either may have come last.
            let request = in_flight.swap_remove(self.random.below_usize(in_flight.len()));
            self.survive(request.offset, &request.buf[..request.len]);
        }
        self.medium
    }

    /// What is on the medium now; a process that is killed finds the cache too, see `image`.
    pub fn medium(&self) -> &[u8] {
        &self.medium
    }

    /// A process crash without power loss: completed and cached writes are all there, those in
    /// flight are completed by the kernel.
    pub fn kill(mut self) -> Vec<u8> {
        self.settle_cache();
        for request in std::mem::take(&mut self.in_flight) {
            if request.kind == DiskOpKind::Write {
                self.put(request.offset, &request.buf[..request.len]);
            }
        }
        self.medium
    }

    /// Bit rot: flips one bit somewhere in the given bytes of the medium.
    pub fn rot(&mut self, offset: u64, len: u64) {
        let bit = self.random.below(len * 8);
        self.medium[in_memory(offset + bit / 8)] ^= 1 << (bit % 8);
        self.injected.rotten += 1;
        self.note(b'o', offset, bit);
    }

    fn finish(&mut self, mut request: Request) -> DiskDone {
        let Request { token, kind, offset, len, .. } = request;
        let result = match kind {
            DiskOpKind::Write => self.finish_write(offset, &request.buf[..len]),
            DiskOpKind::Read => self.finish_read(offset, &mut request.buf[..len]),
        };
        self.note(if result.is_ok() { b'+' } else { b'-' }, token, self.now);
        DiskDone { token, kind, buf: request.buf, result }
    }

    fn finish_write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let faults = self.options.faults;
        if self.random.chance(faults.write_error) {
            self.injected.write_errors += 1;
            self.survive(offset, bytes);
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if self.random.chance(faults.short_write) {
            self.injected.short_writes += 1;
            let cut = self.random.below_usize(bytes.len() / SECTOR_SIZE) * SECTOR_SIZE;
            self.put(offset, &bytes[..cut]);
            return Err(io::ErrorKind::WriteZero.into());
        }
        if self.random.chance(faults.lost_write) {
            self.injected.lost.push((offset, bytes.len() as u64));
            return Ok(());
        }
        if self.random.chance(faults.misdirected_write) {
            let blocks = (self.options.size - bytes.len() as u64) / self.block();
            let target = self.random.below(blocks + 1) * self.block();
            self.injected.misdirected.push((offset, target, bytes.len() as u64));
            self.put(target, bytes);
            return Ok(());
        }
        self.put(offset, bytes);
        Ok(())
    }

    fn finish_read(&mut self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        if self.random.chance(self.options.faults.read_error) {
            self.injected.read_errors += 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.look(offset, target);
        Ok(())
    }

    /// A write that a crash met on its way.
    fn survive(&mut self, offset: u64, bytes: &[u8]) {
        match self.random.below(4) {
            0 => {}
            1 => self.put(offset, bytes),
            2 => {
                // A prefix.
                let cut = self.random.below_usize(bytes.len() / SECTOR_SIZE + 1) * SECTOR_SIZE;
                self.put(offset, &bytes[..cut]);
            }
            _ => {
                // Any of its sectors.
                for (index, sector) in bytes.chunks(SECTOR_SIZE).enumerate() {
                    if self.random.below(2) == 0 {
                        self.put(offset + (index * SECTOR_SIZE) as u64, sector);
                    }
                }
            }
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let start = in_memory(offset);
        self.medium[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// What a read sees: the medium under the cache.
    fn look(&self, offset: u64, target: &mut [u8]) {
        let start = in_memory(offset);
        target.copy_from_slice(&self.medium[start..start + target.len()]);
        for write in &self.cache {
            let (write_end, end) =
                (write.offset + write.bytes.len() as u64, offset + target.len() as u64);
            let (from, to) = (write.offset.max(offset), write_end.min(end));
            if from < to {
                let source = in_memory(from - write.offset)..in_memory(to - write.offset);
                target[in_memory(from - offset)..in_memory(to - offset)]
                    .copy_from_slice(&write.bytes[source]);
            }
        }
    }

    fn settle_cache(&mut self) {
        for write in std::mem::take(&mut self.cache) {
            self.put(write.offset, &write.bytes);
        }
    }

    fn queue(&mut self, kind: DiskOpKind, token: u64, offset: u64, buf: AlignedBuf, len: usize) {
        self.check(offset, len);
        let spread = self.options.delay_max - self.options.delay_min + 1;
        let due = self.now + self.options.delay_min + self.random.below(spread);
        let number = self.request_next;
        self.request_next += 1;
        self.note(if kind == DiskOpKind::Write { b'w' } else { b'r' }, token, offset);
        self.trace = crc32c::crc32c_append(
            self.trace,
            if kind == DiskOpKind::Write { &buf[..len] } else { &[] },
        );
        self.in_flight.push(Request { due, number, token, kind, offset, buf, len });
    }

    /// What a real device refuses with EINVAL.
    fn check(&self, offset: u64, len: usize) {
        let block = self.block();
        let aligned = offset.is_multiple_of(block) && (len as u64).is_multiple_of(block);
        assert!(aligned && len > 0, "I/O of {len} bytes at {offset} is not in whole blocks");
        assert!(offset + len as u64 <= self.options.size, "I/O past the device's end");
    }

    fn block(&self) -> u64 {
        self.options.block_size.into()
    }

    fn note(&mut self, what: u8, a: u64, b: u64) {
        let mut line = [0; 17];
        line[0] = what;
        line[1..9].copy_from_slice(&a.to_le_bytes());
        line[9..].copy_from_slice(&b.to_le_bytes());
        self.trace = crc32c::crc32c_append(self.trace, &line);
    }
}

const EIO: i32 = 5;

impl BlockDevice for SimDisk {
    fn geometry(&self) -> Geometry {
        Geometry { size: self.options.size, block_size: self.options.block_size }
    }

    fn read_at(&mut self, offset: u64, buf: &mut AlignedBuf) -> io::Result<()> {
        self.check(offset, buf.len());
        self.finish_read(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &AlignedBuf) -> io::Result<()> {
        self.check(offset, buf.len());
        self.note(b'W', offset, buf.len() as u64);
        if self.random.chance(self.options.faults.write_error) {
            self.injected.write_errors += 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.cache.push(CachedWrite { offset, bytes: buf.to_vec() });
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.note(b'F', 0, 0);
        self.settle_cache();
        Ok(())
    }
}

impl Disk for SimDisk {
    fn take_buffer(&mut self, len: usize) -> AlignedBuf {
        AlignedBuf::zeroed(len, BUFFER_ALIGN)
    }

    fn write(&mut self, token: u64, offset: u64, buf: AlignedBuf, len: usize) {
        self.queue(DiskOpKind::Write, token, offset, buf, len);
    }

    fn read(&mut self, token: u64, offset: u64, buf: AlignedBuf, len: usize) {
        self.queue(DiskOpKind::Read, token, offset, buf, len);
    }
}
