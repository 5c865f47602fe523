//! What a node has free, in one word that is changed by compare-and-swap.
//!
//! | bits | amount | unit | most |
//! | --- | --- | --- | --- |
//! | 0–31 | CPU | milli-cores | 2³¹ − 1: 2 million cores |
//! | 32–79 | memory | bytes | 2⁴⁷ − 1: 128 TiB |
//! | 80–111 | disk | MiB; claims are rounded up, capacity down | 2³¹ − 1: 2 PiB |
//! | 112–127 | task slots | tasks | 2¹⁵ − 1 |
//!
//! Each field is a signed number whose sign bit separates it from its neighbour, so that one
//! subtraction of the whole word compares and changes all four. A field below zero is a node whose
//! capacity shrank under running tasks: it takes nothing, not even of what it has left, until it
//! is back at zero (a lack of disk concerns only those who want disk), exactly as
//! [`ballast_model::fits`] says. Capacity beyond a field is cut to it.

use std::fmt;

/// The sign bit of each field.
const SIGNS: u128 = (1 << 31) | (1 << 79) | (1 << 111) | (1 << 127);
const DISK_SIGN: u128 = 1 << 111;
const DISK_FIELD: u128 = 0xffff_ffff << 80;
const MEMORY: u32 = 32;
const DISK: u32 = 80;
const SLOTS: u32 = 112;

const MIB: u64 = 1 << 20;

/// What a node has free, or what a task takes of it: CPU, memory, disk and slots.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amounts(pub(crate) u128);

/// The same, field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fields {
    /// In milli-cores.
    pub cpu: i64,
    /// In bytes.
    pub memory: i64,
    /// In MiB.
    pub disk: i64,
    /// Tasks.
    pub slots: i64,
}

impl Amounts {
    /// Returns these fields, each cut to what the word can hold.
    pub(crate) const fn of(fields: Fields) -> Self {
        Self(
            pack(fields.cpu, 32)
                | (pack(fields.memory, 48) << MEMORY)
                | (pack(fields.disk, 32) << DISK)
                | (pack(fields.slots, 16) << SLOTS),
        )
    }

    /// Returns what one task takes.
    pub(crate) fn claimed(cpu: u64, memory: u64, disk: u64) -> Self {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Self::of(Fields {
            cpu: signed(cpu),
            memory: signed(memory),
            disk: signed(disk.div_ceil(MIB)),
            slots: 1,
        })
    }

    pub(crate) const fn cpu(self) -> i64 {
        unpack(self.0, 32)
    }

    pub(crate) const fn memory(self) -> i64 {
        unpack(self.0 >> MEMORY, 48)
    }

    pub(crate) const fn disk(self) -> i64 {
        unpack(self.0 >> DISK, 32)
    }

    pub(crate) const fn slots(self) -> i64 {
        unpack(self.0 >> SLOTS, 16)
    }

    /// Returns whether no field is below zero but perhaps the disk, which matters only to those
    /// who want some.
    pub(crate) const fn is_settled(self) -> bool {
        self.0 & SIGNS & !DISK_SIGN == 0
    }

    /// Returns whether a claim fits into what is free: nothing is below zero, and every field has
    /// enough.
    pub(crate) const fn takes(self, claim: Self) -> bool {
        let wants_disk = claim.0 & DISK_FIELD != 0;
        let debts = self.0
            & if wants_disk {
                SIGNS
            } else {
                SIGNS & !DISK_SIGN
            };
        // With every sign bit set beforehand, a field that has too little loses its own.
        debts == 0 && (self.0 | SIGNS).wrapping_sub(claim.0) & SIGNS == SIGNS
    }

    /// Returns what is left after a claim that [`Self::takes`] allowed.
    pub(crate) const fn less(self, claim: Self) -> Self {
        Self(self.0.wrapping_sub(claim.0))
    }

    /// Returns what is free after a claim was given back.
    pub(crate) const fn more(self, claim: Self) -> Self {
        // The sign bits are added apart, so that a field that comes back above zero carries
        // nothing into its neighbour.
        Self((self.0 & !SIGNS).wrapping_add(claim.0) ^ (self.0 & SIGNS))
    }

    /// Returns the larger of each field; a field below zero counts as zero.
    pub(crate) fn max(self, other: Self) -> Self {
        Self::of(Fields {
            cpu: self.cpu().max(other.cpu()),
            memory: self.memory().max(other.memory()),
            disk: self.disk().max(other.disk()),
            slots: self.slots().max(other.slots()),
        })
    }
}

impl fmt::Debug for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = (self.cpu(), self.memory(), self.disk(), self.slots());
        write!(f, "{fields:?}")
    }
}

#[expect(clippy::cast_sign_loss, reason = "two's complement is meant")]
const fn pack(value: i64, bits: u32) -> u128 {
    let most = (1i64 << (bits - 1)) - 1;
    let value = if value > most {
        most
    } else if value < -most {
        -most
    } else {
        value
    };
    (value as u64 & ((1u64 << bits) - 1)) as u128
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the field is moved to the top, and its sign with it"
)]
const fn unpack(word: u128, bits: u32) -> i64 {
    ((word as u64) << (64 - bits)) as i64 >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields() -> impl Strategy<Value = Fields> {
        let free = |most: i64| prop_oneof![4 => 0..most, 1 => -most..most, 1 => 0..4i64];
        (free(1 << 30), free(1 << 46), free(1 << 30), free(1 << 14)).prop_map(
            |(cpu, memory, disk, slots)| Fields {
                cpu,
                memory,
                disk,
                slots,
            },
        )
    }

    fn each(word: Amounts) -> [i64; 4] {
        [word.cpu(), word.memory(), word.disk(), word.slots()]
    }

    proptest! {
        #[test]
        fn prop_one_subtraction_compares_and_changes_every_field(
            free in fields(), claim in fields()
        ) {
            let claim = Fields {
                cpu: claim.cpu.abs(),
                memory: claim.memory.abs(),
                disk: claim.disk.abs(),
                slots: claim.slots.abs(),
            };
            let (free, claim) = (Amounts::of(free), Amounts::of(claim));
            let pairs = each(free).into_iter().zip(each(claim));
            let expected = pairs.clone().enumerate().all(|(field, (free, claim))| {
                (free >= 0 && free >= claim) || (field == 2 && claim == 0)
            });
            prop_assert_eq!(free.takes(claim), expected);
            let left: Vec<i64> = pairs.map(|(free, claim)| free - claim).collect();
            let left = Amounts::of(Fields {
                cpu: left[0],
                memory: left[1],
                disk: left[2],
                slots: left[3],
            });
            if expected {
                prop_assert_eq!(free.less(claim), left);
            }
            prop_assert_eq!(left.more(claim), free);
        }
    }

    #[test]
    fn amounts_beyond_a_field_are_cut_to_it() {
        let word = Amounts::claimed(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(each(word), [(1 << 31) - 1, (1 << 47) - 1, (1 << 31) - 1, 1]);
        assert_eq!(Amounts::claimed(1, 2, 1).disk(), 1, "a claim is rounded up");
    }
}
