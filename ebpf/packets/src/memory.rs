//! An array map as memory of this process.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What the kernel rounds an element up to.
const ELEMENT: usize = 8;

/// An array map of `T`.
pub struct Memory<T> {
    base: NonNull<u8>,
    bytes: usize,
    length: usize,
    of: PhantomData<T>,
}

impl<T> Memory<T> {
    /// Maps an array of that many elements.
    pub fn of(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let bytes = (Self::stride() * length).next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self {
            base,
            bytes,
            length,
            of: PhantomData,
        })
    }

    fn stride() -> usize {
        size_of::<T>().next_multiple_of(ELEMENT)
    }

    /// Returns how many elements it has.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Sets all bytes to 0.
    pub fn clear(&self) {
        // SAFETY: the whole mapping.
        unsafe { self.base.as_ptr().write_bytes(0, self.bytes) };
    }
}

impl<T: Copy> Memory<T> {
    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.length, "{index} of {}", self.length);
        // SAFETY: within the mapping.
        unsafe { self.base.as_ptr().add(index * Self::stride()).cast() }
    }

    /// Reads an element.
    pub fn read(&self, index: usize) -> T {
        // SAFETY: within the mapping and aligned; records of the layout are plain data.
        unsafe { self.at(index).read_volatile() }
    }

    /// Writes an element.
    pub fn write(&self, index: usize, value: T) {
        // SAFETY: as above.
        unsafe { self.at(index).write_volatile(value) }
    }

    /// Writes the first elements.
    pub fn write_all(&self, values: &[T]) {
        for (index, value) in values.iter().enumerate() {
            self.write(index, *value);
        }
    }

    /// Reads all.
    pub fn read_all(&self) -> Vec<T> {
        (0..self.length).map(|index| self.read(index)).collect()
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nothing points into it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
