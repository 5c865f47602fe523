//! Bytes of a packet that are known to be there.

/// `N` bytes of a packet, checked once against its end.
///
/// Fields are read and written as they stand on the wire; what is read past `N` does not compile.
#[derive(Clone, Copy)]
pub struct Window<const N: usize>(*mut u8);

/// Reads a word of a packet, wherever it lies.
///
/// The kernel's virtual machine loads words from any address of a packet; its compiler takes a word
/// that may lie anywhere for single bytes, which costs the hot path a third. The switch that tells
/// it better (`allows-misaligned-mem-access`) holds for the stack, too, where the kernel does not
/// allow it. So there the word is said to be aligned, as programs in C do.
///
/// # Safety
/// The word is in a packet.
#[inline(always)]
unsafe fn read<T: Copy>(word: *const T) -> T {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's; the machine has no alignment for packets.
    unsafe {
        *word
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    unsafe {
        word.read_unaligned()
    }
}

/// Writes a word of a packet; see [`read`].
///
/// # Safety
/// The word is in a packet.
#[inline(always)]
unsafe fn write<T: Copy>(word: *mut T, value: T) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's; the machine has no alignment for packets.
    unsafe {
        *word = value;
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    unsafe {
        word.write_unaligned(value);
    }
}

macro_rules! field {
    ($get:ident, $set:ident, $word:ty) => {
        /// Returns the field at `AT`, its bytes in the order of the wire.
        #[inline(always)]
        pub fn $get<const AT: usize>(self) -> $word {
            const { assert!(AT + size_of::<$word>() <= N) };
            // SAFETY: the constructor's caller vouches for `N` bytes, and the field is within.
            unsafe { read(self.0.add(AT).cast::<$word>()) }
        }

        /// Writes the field at `AT`.
        #[inline(always)]
        pub fn $set<const AT: usize>(self, value: $word) {
            const { assert!(AT + size_of::<$word>() <= N) };
            // SAFETY: as for reading; nobody else holds the packet meanwhile.
            unsafe { write(self.0.add(AT).cast::<$word>(), value) }
        }
    };
}

impl<const N: usize> Window<N> {
    /// Returns the window that begins at `start`.
    ///
    /// # Safety
    /// `N` bytes from `start` on belong to the packet, and are read and written through nothing but
    /// windows until the packet is moved or resized; after that the window is not used any more.
    #[inline(always)]
    pub const unsafe fn new(start: *mut u8) -> Self {
        Self(start)
    }

    field!(u8, set_u8, u8);
    field!(u16, set_u16, u16);
    field!(u32, set_u32, u32);
    field!(u64, set_u64, u64);

    /// Returns the sum of its 32-bit words, to be folded by [`crate::checksum`].
    #[inline(always)]
    pub fn sum(self) -> u64 {
        const { assert!(N.is_multiple_of(4)) };
        let mut sum = 0;
        let mut at = 0;
        while at < N {
            // SAFETY: `at + 4 <= N`.
            sum += u64::from(unsafe { read(self.0.add(at).cast::<u32>()) });
            at += 4;
        }
        sum
    }
}
