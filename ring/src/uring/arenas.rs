//! The buffers of both sizes, under one numbering.

use std::io;
use std::mem::ManuallyDrop;

use io_uring::Submitter;

use super::arena::Arena;
use crate::options::Options;

/// The group of the buffers for everything.
pub(crate) const SMALL: u16 = 0;
/// The group of the buffers for streams that bring much.
pub(crate) const LARGE: u16 = 1;
/// Bytes of a large buffer: the longest piece of a stream that loopback hands over at a time.
const LARGE_BYTES: u32 = 64 << 10;
/// The number of the first large buffer: as many small ones as a kernel takes come before.
const FIRST_LARGE: u16 = 32_768;

/// Returns the number of a buffer that the kernel named.
pub(crate) fn number(group: u16, id: u16) -> u16 {
    if group == LARGE { id + FIRST_LARGE } else { id }
}

/// The buffers into which the kernel receives. It has them until the end: who drops this does so
/// after [`Arenas::release`], or leaks them.
pub(crate) struct Arenas {
    small: ManuallyDrop<Arena>,
    large: Option<ManuallyDrop<Arena>>,
    /// How many large ones there will be when they are needed. When they are used up, small ones
    /// stand in.
    large_count: u16,
}

impl Arenas {
    /// Returns small buffers that the kernel knows.
    pub fn new(submitter: &Submitter<'_>, options: &Options) -> io::Result<Arenas> {
        let (count, bytes) = (options.buffers, options.buffer_bytes);
        let small_are_large = bytes >= LARGE_BYTES;
        let arenas = Arenas {
            small: ManuallyDrop::new(Arena::new(SMALL, count, bytes)),
            large: None,
            large_count: if small_are_large {
                0
            } else {
                options.large_buffers
            },
        };
        // SAFETY: it is freed only by `release`, after it was unregistered with nothing in flight.
        unsafe { arenas.small.register(submitter) }?;
        Ok(arenas)
    }

    /// Returns whether there are large buffers, which are there from the first time on that this
    /// is asked.
    pub fn has_large(&mut self, submitter: &Submitter<'_>) -> bool {
        if self.large.is_none() && self.large_count > 0 {
            let count = std::mem::take(&mut self.large_count);
            let large = ManuallyDrop::new(Arena::new(LARGE, count, LARGE_BYTES));
            // SAFETY: as of the small ones. If it fails, they are lost, for once.
            let registered = unsafe { large.register(submitter) };
            self.large = registered.is_ok().then_some(large);
        }
        self.large.is_some()
    }

    /// Returns the arena that has a buffer, and its number there.
    pub fn of(&mut self, buffer: u16) -> (&mut Arena, u16) {
        match buffer.checked_sub(FIRST_LARGE) {
            None => (&mut self.small, buffer),
            Some(id) => (self.large.as_mut().expect("its buffer is there"), id),
        }
    }

    /// Returns a buffer that is being looked at, or is kept.
    pub fn kept(&self, buffer: u16) -> &[u8] {
        match buffer.checked_sub(FIRST_LARGE) {
            None => self.small.kept(buffer),
            Some(id) => self.large.as_ref().expect("its buffer is there").kept(id),
        }
    }

    /// Returns whether every buffer that is not kept is the kernel's.
    pub fn are_whole(&self) -> bool {
        let large = self.large.as_ref();
        self.small.is_whole() && large.is_none_or(|large| large.is_whole())
    }

    /// Returns whether a piece of so many bytes is more than a small buffer is meant for.
    pub fn is_much(&self, bytes: usize) -> bool {
        bytes >= self.small.bytes()
    }

    /// Frees the buffers, if the kernel gives them up. Otherwise they are better lost than written
    /// to by the kernel when they are something else.
    ///
    /// # Safety
    /// Nothing is in flight, and nothing but a drop follows.
    pub unsafe fn release(&mut self, submitter: &Submitter<'_>) {
        if submitter.unregister_buf_ring(SMALL).is_ok() {
            // SAFETY: it is not used after this, and the kernel has given it up.
            unsafe { ManuallyDrop::drop(&mut self.small) };
        }
        if let Some(large) = &mut self.large
            && submitter.unregister_buf_ring(LARGE).is_ok()
        {
            // SAFETY: as above.
            unsafe { ManuallyDrop::drop(large) };
        }
    }
}
