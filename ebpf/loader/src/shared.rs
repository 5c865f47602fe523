//! Maps as memory: arrays that programs and user space read and write at the same time.
//!
//! The one place of this crate that is `unsafe`. What lies in such an array is plain data (every
//! pattern of bits is a value), and nobody holds a reference into it: values are copied in and out,
//! so that what the kernel writes meanwhile can at worst be an old part of a value beside a new one.

use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use ballast_ebpf_common::layout::flow::{FlowKey, Line};
use ballast_ebpf_common::layout::nat::Translation;
use ballast_ebpf_common::layout::quic::QuicKey;
use ballast_ebpf_common::layout::{
    Address, Backend, BackendCounters, Config, NetKey, Vip, VipKey, limits, state,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What the kernel rounds an element of an array up to.
const ELEMENT: usize = 8;

/// Plain data: any bits are a value, and it has no padding that would leak.
///
/// # Safety
/// Only for types of which that is true: `repr(C)` without padding, or integers.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` of integers; its size is asserted where it is declared, so that no
            // padding hides in it.
            unsafe impl Plain for $name {}
        )+
    };
}

plain!(
    u32,
    u64,
    [u64; limits::VERDICTS as usize],
    Address,
    Backend,
    BackendCounters,
    Config,
    FlowKey,
    Line,
    NetKey,
    QuicKey,
    Translation,
    Vip,
    VipKey,
);

/// The same for the library that speaks to the kernel: a wrapper, for neither it nor these types
/// are ours.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod<T>(pub T);

// SAFETY: the wrapper is transparent, and `Plain` promises what `aya::Pod` asks for.
unsafe impl<T: Plain> aya::Pod for Pod<T> {}

/// An array map, mapped into memory.
#[derive(Debug)]
pub struct Shared<T> {
    base: NonNull<u8>,
    /// Bytes that are mapped.
    bytes: usize,
    /// Bytes from one element to the next.
    stride: usize,
    length: usize,
    of: PhantomData<T>,
}

// SAFETY: it is memory that others write anyway; every access is a copy or an atomic.
unsafe impl<T: Plain> Send for Shared<T> {}
// SAFETY: see above.
unsafe impl<T: Plain> Sync for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: this very range was mapped by `Shared::of`, and nothing points into it.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "a range that was mapped can be unmapped");
    }
}

impl<T: Plain> Shared<T> {
    /// Maps `length` elements of the array map `map`. Elements that are arrays themselves may be
    /// seen as many small ones, if the map has one element.
    ///
    /// # Errors
    /// The kernel refuses: the map is not one for mapping, or smaller.
    pub(crate) fn of(map: impl AsFd, length: usize) -> std::io::Result<Self> {
        let stride = size_of::<T>().next_multiple_of(ELEMENT);
        let bytes = (stride * length).next_multiple_of(rustix::param::page_size());
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                map,
                0,
            )
        }?;
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(std::io::ErrorKind::OutOfMemory)?,
            bytes,
            stride,
            length,
            of: PhantomData,
        })
    }

    /// Returns how many elements there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn at(&self, index: usize) -> *mut u8 {
        assert!(index < self.length, "{index} of {} elements", self.length);
        // SAFETY: `length` elements of `stride` bytes were mapped.
        unsafe { self.base.as_ptr().add(index * self.stride) }
    }

    /// Returns a copy of an element; what is being written meanwhile may be old or new.
    ///
    /// # Panics
    /// There is no such element.
    pub fn load(&self, index: usize) -> T {
        // SAFETY: inside the mapping, aligned (the mapping begins at a page and the stride is a
        // multiple of the alignment), and any bits are a value.
        unsafe { self.at(index).cast::<T>().read_volatile() }
    }

    /// Writes an element.
    ///
    /// # Panics
    /// There is no such element.
    pub fn store(&self, index: usize, value: T) {
        // SAFETY: as in `load`.
        unsafe { self.at(index).cast::<T>().write_volatile(value) }
    }

    fn byte(&self, index: usize, offset: usize) -> &AtomicU8 {
        assert!(offset < size_of::<T>());
        // SAFETY: inside the element; a byte is always aligned, and lives as long as the mapping.
        unsafe { AtomicU8::from_ptr(self.at(index).add(offset)) }
    }
}

impl Shared<u32> {
    /// Writes a word that a program sees before or after, never half.
    ///
    /// # Panics
    /// There is no such element.
    pub fn set(&self, index: usize, value: u32) {
        // SAFETY: inside the mapping and aligned; lives as long as the mapping.
        let word = unsafe { AtomicU32::from_ptr(self.at(index).cast()) };
        // Release: what the word leads to (a member, a backend) was written before it. Programs
        // have no acquire, but an address that depends on the word orders their reads.
        word.store(value, Ordering::Release);
    }
}

impl Shared<u64> {
    /// Sets and clears bits of a word.
    ///
    /// # Panics
    /// There is no such element.
    pub fn change(&self, index: usize, set: u64, clear: u64) {
        // SAFETY: inside the mapping and aligned; lives as long as the mapping.
        let word = unsafe { AtomicU64::from_ptr(self.at(index).cast()) };
        word.fetch_or(set, Ordering::Release);
        word.fetch_and(!clear, Ordering::Release);
    }
}

impl Shared<Backend> {
    /// Fills a record, its state last: until then it is free.
    ///
    /// # Panics
    /// There is no such element.
    pub fn publish(&self, index: usize, backend: Backend) {
        self.set_state(index, state::FREE);
        self.store(
            index,
            Backend {
                state: state::FREE,
                ..backend
            },
        );
        self.set_state(index, backend.state);
    }

    /// Writes the state of a record alone.
    ///
    /// # Panics
    /// There is no such element.
    pub fn set_state(&self, index: usize, state: u8) {
        let byte = self.byte(index, std::mem::offset_of!(Backend, state));
        // Release: the rest of the record was written before.
        byte.store(state, Ordering::Release);
    }
}

impl Shared<Line> {
    /// Forgets a flow, if it is still the one that was looked at.
    ///
    /// # Panics
    /// There is no such line or way.
    pub fn clear(&self, line: usize, way: usize, tag: u64) {
        assert!(way < limits::WAYS);
        let entry = size_of::<Line>() / limits::WAYS;
        // SAFETY: inside the line, whose ways are aligned as their tags are.
        let word = unsafe { AtomicU64::from_ptr(self.at(line).add(way * entry).cast()) };
        // Whoever took the way meanwhile keeps it.
        let _ = word.compare_exchange(tag, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}
