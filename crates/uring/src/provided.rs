//! Receive buffers that the kernel picks from: a ring of entries in memory shared with it.
//!
//! Each buffer is at any time either the kernel's (from `recycle` until a completion names it) or
//! ours (from that completion, as a [`Filled`], until it is recycled). Makes no system call, so
//! its tests also run under Miri.

use std::cell::Cell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::buffer::Region;

/// The kernel wants the entries on a page of their own.
const PAGE_SIZE: usize = 4096;

pub(crate) struct ProvidedBuffers {
    entries: Region,
    memory: Region,
    count: u16,
    size: u32,
    /// Entries ever offered, modulo 2^16; the kernel reads a copy in the first entry.
    tail: Cell<u16>,
}

impl ProvidedBuffers {
    /// `count` must be a power of two of at most 32,768; all buffers start as the kernel's.
    pub(crate) fn new(count: u16, size: u32) -> Rc<Self> {
        assert!(count.is_power_of_two() && size > 0, "checked with the configuration");
        let entries = Region::zeroed(usize::from(count) * size_of::<BufRingEntry>(), PAGE_SIZE);
        let memory = Region::zeroed(usize::from(count) * size as usize, PAGE_SIZE);
        let pool = Rc::new(Self { entries, memory, count, size, tail: Cell::new(0) });
        for buffer in 0..count {
            pool.recycle(buffer);
        }
        pool
    }

    /// Where the entries are, for registration.
    pub(crate) fn entries_address(&self) -> u64 {
        self.entries.ptr().as_ptr().expose_provenance() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Takes a buffer from the kernel after a completion has named it; `None` for a number or a
    /// length that the kernel cannot have meant.
    ///
    /// # Safety
    ///
    /// A completion must have given buffer number `buffer` to us, and this must be the only call
    /// for that completion.
    pub(crate) unsafe fn take(self: &Rc<Self>, buffer: u16, len: u32) -> Option<Filled> {
        (buffer < self.count && len <= self.size).then(|| Filled {
            pool: Rc::clone(self),
            buffer,
            len,
        })
    }

    fn recycle(&self, buffer: u16) {
        let tail = self.tail.get();
        let entry = self.entry(tail & (self.count - 1));
        // SAFETY: the entry is inside `entries`, aligned, initialised, and behind the tail that
        // the kernel has seen, so it does not read it yet. In the first entry the kernel only
        // reads the tail, which this reference leaves alone. One thread holds the pool.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(self.buffer(buffer).as_ptr().expose_provenance() as u64);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        self.publish(tail);
    }

    fn publish(&self, tail: u16) {
        // SAFETY: the pointer is the first entry of the ring, valid and initialised.
        let shared = unsafe { BufRingEntry::tail(self.entry(0).as_ptr()) };
        // SAFETY: aligned for a u16 and alive as long as `entries`; apart from the kernel, which
        // only loads it, every access is by this atomic or before it on the same thread.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        // The entry must be visible before the tail that covers it.
        shared.store(tail, Ordering::Release);
    }

    fn entry(&self, index: u16) -> NonNull<BufRingEntry> {
        let first = self.entries.ptr().cast::<BufRingEntry>();
        // SAFETY: callers mask the index with `count - 1`, and `entries` holds `count` of them.
        unsafe { first.add(usize::from(index)) }
    }

    fn buffer(&self, buffer: u16) -> NonNull<u8> {
        // SAFETY: `buffer < count` (from `new` or checked in `take`), inside `memory`.
        unsafe { self.memory.ptr().add(usize::from(buffer) * self.size as usize) }
    }
}

/// Received bytes in a buffer that is ours until this is dropped.
pub(crate) struct Filled {
    pool: Rc<ProvidedBuffers>,
    buffer: u16,
    len: u32,
}

impl Deref for Filled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.pool.buffer(self.buffer).as_ptr();
        // SAFETY: `len <= size` initialised bytes (the memory was zeroed) of a buffer that the
        // kernel does not write before it is recycled, which only the drop of `self` does.
        unsafe { slice::from_raw_parts(start, self.len as usize) }
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.pool.recycle(self.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does: takes the next entry, writes into its buffer, names it.
    fn kernel_fills(pool: &Rc<ProvidedBuffers>, head: u16, byte: u8) -> u16 {
        let entry = pool.entry(head & (pool.count - 1));
        // SAFETY: inside `entries`; no reference to the entry is held.
        let entry = unsafe { entry.read() };
        assert_eq!(entry.len(), pool.size);
        let start = pool.buffer(entry.bid());
        assert_eq!(entry.addr(), start.as_ptr().expose_provenance() as u64);
        // SAFETY: the buffer is the kernel's, whose part this test plays.
        unsafe { start.write_bytes(byte, pool.size as usize) };
        entry.bid()
    }

    #[test]
    fn buffers_go_around_many_times() {
        let pool = ProvidedBuffers::new(4, 64);
        let mut head = 0_u16;
        for lap in 0..70_000 {
            let byte = u8::try_from(lap % 251).expect("small");
            let buffer = kernel_fills(&pool, head, byte);
            // SAFETY: the buffer was just filled and named, once.
            let filled = unsafe { pool.take(buffer, 40) }.expect("a buffer of ours");
            assert_eq!(*filled, [byte; 40]);
            head = head.wrapping_add(1);
            if cfg!(miri) && lap > 300 {
                break;
            }
        }
    }

    #[test]
    fn a_held_buffer_is_not_offered_again() {
        let pool = ProvidedBuffers::new(2, 16);
        let first = kernel_fills(&pool, 0, 1);
        // SAFETY: just filled and named, once.
        let held = unsafe { pool.take(first, 16) }.expect("a buffer of ours");
        let second = kernel_fills(&pool, 1, 2);
        assert_ne!(first, second);
        assert_eq!(pool.tail.get(), 2);
        assert_eq!(*held, [1; 16]);
        drop(held);
        assert_eq!(pool.tail.get(), 3);
    }

    #[test]
    fn numbers_outside_the_pool_are_refused() {
        let pool = ProvidedBuffers::new(2, 16);
        // SAFETY: refused before anything is touched.
        assert!(unsafe { pool.take(2, 1) }.is_none());
        // SAFETY: as above.
        assert!(unsafe { pool.take(0, 17) }.is_none());
    }
}
