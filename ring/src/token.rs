//! Names of sockets and timers.

/// Bits of a token's index: the most sockets that one ring can name is 2^24.
pub(crate) const INDEX_BITS: u32 = 24;

/// A socket of a ring: a slot and the generation of its use.
///
/// A token outlives its socket harmlessly: whatever is asked of it afterwards does nothing.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// Returns the slot: dense, below `Options::sockets`, and used again after the socket is gone.
    pub fn index(self) -> usize {
        self.index as usize
    }

    pub(crate) fn bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of a word are taken apart"
    )]
    pub(crate) fn from_bits(bits: u64) -> Token {
        Token {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// A timer that was armed.
///
/// It outlives its timer harmlessly: to disarm one that has fired does nothing.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Timer {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}
