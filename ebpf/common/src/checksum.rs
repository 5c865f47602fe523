//! The Internet checksum (RFC 1071), by 32-bit words and by difference (RFC 1624).
//!
//! Words are added as they stand in memory: the sum of swapped words is the swapped sum.

/// Returns the checksum field for a sum of words.
#[inline(always)]
pub const fn field(sum: u64) -> u16 {
    !fold(sum)
}

/// Returns the ones' complement sum of the sixteen-bit halves.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// How words that are replaced change the checksums that cover them.
#[derive(Clone, Copy, Default)]
pub struct Difference(u64);

impl Difference {
    /// Returns no difference.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Notes that `old` becomes `new`.
    #[inline(always)]
    pub const fn word(&mut self, old: u32, new: u32) {
        self.0 += !old as u64 + new as u64;
    }

    /// Notes that the half word `old` becomes `new`.
    #[inline(always)]
    pub const fn half(&mut self, old: u16, new: u16) {
        self.0 += !old as u64 + new as u64;
    }

    /// Notes that words of the sum `old` become words of the sum `new`; both of at most four words.
    #[inline(always)]
    pub const fn sum(&mut self, old: u64, new: u64) {
        // The complement of a sum of n words is n times all ones, which is 0, less the sum.
        self.0 += (0xf_ffff_fff0 - old) + new;
    }

    /// Adds another difference.
    #[inline(always)]
    pub const fn add(&mut self, other: Self) {
        self.0 += other.0;
    }

    /// Returns what a checksum field becomes.
    #[inline(always)]
    pub const fn apply(self, old: u16) -> u16 {
        field(self.0 + !old as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn prop_checksums_are_those_of_the_definition(bytes: [u8; 40], new: [u8; 4], at in 0_usize..9) {
            let words = |bytes: &[u8]| bytes
                .chunks(4)
                .map(|word| u64::from(u32::from_ne_bytes(word.try_into().unwrap())))
                .sum::<u64>();
            let before = field(words(&bytes));
            prop_assert_eq!(u16::from_be(before), naive(&bytes));
            let mut after = bytes;
            after[at * 4..at * 4 + 4].copy_from_slice(&new);
            let mut difference = Difference::new();
            difference.word(
                u32::from_ne_bytes(bytes[at * 4..at * 4 + 4].try_into().unwrap()),
                u32::from_ne_bytes(new),
            );
            // 0 and 0xffff are one number in this arithmetic.
            let same = |checksum: u16| if checksum == 0xffff { 0 } else { checksum };
            prop_assert_eq!(same(difference.apply(before)), same(naive(&after).to_be()));
        }
    }
}
