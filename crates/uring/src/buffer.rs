//! Memory for direct I/O: owned, aligned, initialised, and at one address for life.
//!
//! The kernel reads and writes this memory while a request is in flight. What makes that sound is
//! ownership: an [`AlignedBuf`] is moved into the request and comes back with its completion, so
//! no safe code can hold a reference in between. Nothing here makes a system call, so the tests of
//! this file also run under Miri.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

/// Alignment of registered slots and of buffers from `Io::take_buffer`, in bytes: enough for every
/// block device that Linux drives with 4 KiB pages.
pub const BUFFER_ALIGNMENT: usize = 4096;

/// Owned bytes at an aligned address that never moves.
///
/// It is either memory of its own or a registered slot of a reactor; dropping it frees the one and
/// gives back the other, from any thread.
pub struct AlignedBuf {
    ptr: NonNull<u8>,
    len: usize,
    home: Home,
}

enum Home {
    Heap(#[expect(dead_code, reason = "held for its drop")] Region),
    Slot { pool: Arc<FixedPool>, index: u16 },
}

// SAFETY: the bytes are owned by this value alone (a slot is handed out to one owner at a time),
// and both ways of giving them back, the allocator and the lock-free list, work from any thread.
unsafe impl Send for AlignedBuf {}

// SAFETY: a shared reference only gives out `&[u8]`.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `len` zero bytes at a multiple of `align`, which must be a power of two.
    pub fn zeroed(len: usize, align: usize) -> Self {
        let region = Region::zeroed(len, align);
        Self { ptr: region.ptr, len, home: Home::Heap(region) }
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes start; the same for the life of the buffer.
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    /// The address for a request that the kernel fills; the caller gives up every reference first.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// The registered slot, if it is one of `pool`: a slot of another reactor has no meaning there.
    pub(crate) fn slot_in(&self, pool: &Arc<FixedPool>) -> Option<u16> {
        match &self.home {
            Home::Slot { pool: own, index } if Arc::ptr_eq(own, pool) => Some(*index),
            Home::Slot { .. } | Home::Heap(_) => None,
        }
    }

    /// Whether the bytes are registered with a reactor, which makes its requests cheaper.
    pub fn is_registered(&self) -> bool {
        matches!(self.home, Home::Slot { .. })
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `ptr` is valid for `len` initialised bytes as long as `home` lives, and nobody
        // writes them while this borrow of the only owner lasts.
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is exclusive, so no other reference exists.
        unsafe { slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let Home::Slot { pool, index } = &self.home {
            pool.give_back(*index);
        }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = match &self.home {
            Home::Slot { index, .. } => Some(*index),
            Home::Heap(_) => None,
        };
        f.debug_struct("AlignedBuf").field("len", &self.len).field("slot", &slot).finish()
    }
}

/// Equal slots of one region, each registered with the ring under its index.
pub(crate) struct FixedPool {
    region: Region,
    slot_size: usize,
    count: u16,
    free: ArrayQueue<u16>,
}

impl FixedPool {
    /// `slot_size` is rounded up to a multiple of [`BUFFER_ALIGNMENT`].
    pub(crate) fn new(count: u16, slot_size: u32) -> Arc<Self> {
        let slot_size = usize::try_from(slot_size).expect("a usize has 32 bits or more");
        let slot_size = slot_size.next_multiple_of(BUFFER_ALIGNMENT);
        let count = if slot_size == 0 { 0 } else { count };
        let free = ArrayQueue::new(usize::from(count).max(1));
        for index in 0..count {
            free.push(index).expect("the list has room for every slot");
        }
        let region = Region::zeroed(slot_size * usize::from(count), BUFFER_ALIGNMENT);
        Arc::new(Self { region, slot_size, count, free })
    }

    /// A free slot cut to `len` bytes, or nothing if `len` is too large or all are taken. It
    /// holds what its last owner wrote.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Option<AlignedBuf> {
        if len > self.slot_size {
            return None;
        }
        let index = self.free.pop()?;
        let home = Home::Slot { pool: Arc::clone(self), index };
        Some(AlignedBuf { ptr: self.slot(index), len, home })
    }

    /// Address and length of every slot, by index.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (NonNull<u8>, usize)> + '_ {
        (0..self.count).map(|index| (self.slot(index), self.slot_size))
    }

    /// Bytes of all slots together.
    pub(crate) fn size(&self) -> usize {
        self.slot_size * usize::from(self.count)
    }

    fn slot(&self, index: u16) -> NonNull<u8> {
        assert!(index < self.count, "slot {index} of {}", self.count);
        // SAFETY: `index < count`, so the offset stays inside the region of `count * slot_size`.
        unsafe { self.region.ptr.add(usize::from(index) * self.slot_size) }
    }

    fn give_back(&self, index: u16) {
        self.free.push(index).expect("a slot comes back once, and the list has room for all");
    }
}

/// One zeroed allocation.
pub(crate) struct Region {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory without an owner thread; who may touch which byte is settled by its users.
unsafe impl Send for Region {}

// SAFETY: as above; `Region` itself never reads or writes the bytes.
unsafe impl Sync for Region {}

impl Region {
    pub(crate) fn zeroed(len: usize, align: usize) -> Self {
        // The allocator must not be asked for nothing.
        let layout = Layout::from_size_align(len.max(1), align)
            .expect("the alignment is a power of two and the length fits in memory");
        // SAFETY: the layout's size is at least 1.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        Self { ptr, layout }
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `ptr` came from `alloc_zeroed` with this layout and is freed only here.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_zeroed() {
        for (len, align) in [(0, 512), (1, 4096), (4096, 512), (100_000, 4096)] {
            let mut buf = AlignedBuf::zeroed(len, align);
            assert_eq!(buf.as_ptr().addr() % align, 0);
            assert_eq!(buf.len(), len);
            assert_eq!(buf.is_empty(), len == 0);
            assert!(buf.iter().all(|byte| *byte == 0));
            buf.fill(3);
            assert!(buf.iter().all(|byte| *byte == 3));
        }
    }

    #[test]
    fn slots_do_not_overlap_and_come_back() {
        let pool = FixedPool::new(3, 5000);
        assert_eq!(pool.size(), 3 * 8192);
        let mut taken: Vec<_> = (0..3).filter_map(|_| pool.take(8192)).collect();
        assert!(pool.take(1).is_none(), "all are taken");
        for (byte, buf) in taken.iter_mut().enumerate() {
            buf.fill(u8::try_from(byte).expect("small"));
        }
        for (byte, buf) in taken.iter().enumerate() {
            assert!(buf.iter().all(|found| usize::from(*found) == byte));
            assert_eq!(buf.slot_in(&pool), u16::try_from(byte).ok());
        }
        taken.pop();
        let again = pool.take(10).expect("one came back");
        assert_eq!((again.len(), again.is_registered()), (10, true));
        assert_eq!(again.slot_in(&FixedPool::new(3, 5000)), None, "of another pool");
        assert!(pool.take(8193).is_none());
    }

    #[test]
    fn a_slot_may_be_dropped_by_another_thread_after_its_pool() {
        let pool = FixedPool::new(1, 4096);
        let mut buf = pool.take(4096).expect("free");
        drop(pool);
        std::thread::scope(|scope| {
            scope.spawn(move || buf.fill(1));
        });
    }

    #[test]
    fn a_pool_may_be_empty() {
        assert!(FixedPool::new(0, 4096).take(1).is_none());
        assert!(FixedPool::new(4, 0).take(1).is_none());
    }
}
