//! The buffers into which the kernel receives.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// What the kernel wants the ring of entries to be aligned to.
const PAGE: usize = 4096;

/// Buffers, and the ring of entries by which they are handed to the kernel.
///
/// A buffer is in the kernel's hands from [`Arena::looked_at`] (at first all are) until a
/// completion names it, and in ours from then on until it is given back: when it was looked at, or,
/// if it is kept, when what is in it was sent. Nothing but [`Arena::lent`] and [`Arena::kept`]
/// looks into one.
#[derive(Debug)]
pub(crate) struct Arena {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// By which the kernel knows them.
    group: u16,
    count: u16,
    /// Bytes of each buffer.
    bytes: u32,
    tail: u16,
    /// How many the kernel has; the others are being looked at, or are kept.
    given: u16,
    /// How often each is in a queue, to be sent.
    kept: Vec<u32>,
    /// How many are kept.
    keeping: u16,
}

impl Arena {
    /// Returns `count` buffers, a power of two, of `bytes` each, all of which are the kernel's as
    /// soon as they are registered.
    pub fn new(group: u16, count: u16, bytes: u32) -> Arena {
        let mut arena = Arena {
            entries: allocate(entries_layout(count)).cast(),
            memory: allocate(memory_layout(count, bytes)),
            group,
            count,
            bytes,
            tail: 0,
            given: 0,
            kept: vec![0; usize::from(count)],
            keeping: 0,
        };
        for id in 0..count {
            arena.give_back(id);
        }
        arena
    }

    /// Makes the buffers the kernel's.
    ///
    /// # Safety
    /// The arena must live until it is unregistered, with nothing in flight that could use it, or
    /// for ever.
    pub unsafe fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.entries.as_ptr() as u64;
        // SAFETY: the entries are `count` long, aligned to a page, and live as the caller promises.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, self.group, 0) }
    }

    /// Returns the bytes of each buffer.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Returns the first `length` bytes of a buffer that a completion has just named.
    pub fn lent(&mut self, id: u16, length: usize) -> &mut [u8] {
        assert!(id < self.count, "a buffer of this ring");
        assert!(length <= self.bytes as usize, "within the buffer");
        let address = self.address(id);
        // SAFETY: the range is within the allocation by the assertions and was zeroed at first;
        // the kernel has done with it, since its completion named it, and gets it again only by
        // `give_back` or for a send, both of which need this borrow to have ended.
        unsafe { std::slice::from_raw_parts_mut(address, length) }
    }

    /// Returns a buffer that is being looked at, or is kept.
    pub fn kept(&self, id: u16) -> &[u8] {
        assert!(id < self.count, "a buffer of this ring");
        // SAFETY: all of the buffer is within the allocation and was zeroed at first; the kernel,
        // whose completion named it, at most reads it in order to send it, and gets it for writing
        // only by `give_back`, which needs this borrow to have ended.
        unsafe { std::slice::from_raw_parts(self.address(id), self.bytes as usize) }
    }

    /// Returns whether a buffer may be kept. Half of them are always left to receive into, lest
    /// peers that do not read what they are sent stop everything.
    pub fn may_keep(&self, id: u16) -> bool {
        self.kept[usize::from(id)] > 0 || self.keeping < self.count / 2
    }

    /// Keeps a buffer that is being looked at, until it is unkept so often.
    pub fn keep(&mut self, id: u16, times: u32) {
        let kept = &mut self.kept[usize::from(id)];
        self.keeping += u16::from(*kept == 0 && times > 0);
        *kept += times;
    }

    /// A queue has done with a buffer that is kept.
    pub fn unkeep(&mut self, id: u16) {
        let kept = &mut self.kept[usize::from(id)];
        *kept -= 1;
        if *kept == 0 {
            self.keeping -= 1;
            self.give_back(id);
        }
    }

    /// A buffer is looked at no more; unless it is kept it is the kernel's.
    pub fn looked_at(&mut self, id: u16) {
        if self.kept[usize::from(id)] == 0 {
            self.give_back(id);
        }
    }

    /// Hands a buffer to the kernel.
    fn give_back(&mut self, id: u16) {
        assert!(id < self.count, "a buffer of this ring");
        debug_assert!(self.given < self.count, "each buffer is given back once");
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, and the kernel reads entries only between its head and
        // the tail, where this one is not yet. The setters write single fields, so that the tail,
        // which lies in the first entry, stays as it is.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(slot);
            entry.set_addr(self.address(id) as u64);
            entry.set_len(self.bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.given += 1;
        // SAFETY: the first entry exists and is zeroed; the tail in it is two bytes, aligned, and
        // written by nobody else.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            // Release: the kernel reads the tail before the entry.
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// A completion named a buffer: it is ours.
    pub fn taken(&mut self) {
        self.given -= 1;
    }

    /// Returns whether every buffer that is not kept is the kernel's.
    pub fn is_whole(&self) -> bool {
        self.given + self.keeping == self.count
    }

    fn address(&self, id: u16) -> *mut u8 {
        let offset = usize::from(id) * self.bytes as usize;
        // SAFETY: `id` is below `count`, so that the offset is within the allocation.
        unsafe { self.memory.as_ptr().add(offset) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts; the kernel has given them up, as whoever
        // registered them promised.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.bytes));
        }
    }
}

fn entries_layout(count: u16) -> Layout {
    let bytes = usize::from(count) * size_of::<BufRingEntry>();
    Layout::from_size_align(bytes, PAGE).expect("half a MiB at most")
}

fn memory_layout(count: u16, bytes: u32) -> Layout {
    let bytes = usize::from(count) * bytes as usize;
    // Not aligned to pages: the allocator would have to touch them all in order to zero them.
    Layout::from_size_align(bytes, 1).expect("2^45 bytes at most")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout is empty, for there is at least one buffer of one byte.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
