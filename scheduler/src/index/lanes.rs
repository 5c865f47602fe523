//! What is left of each device of a node: sixteen lanes in two words.
//!
//! A lane holds the thousandths of one device that are free, 0 to 1000, in 16 bits; eight lanes
//! are one word that is changed by compare-and-swap. A request for several devices may need both
//! words: the second refusing, the first is given back by the caller.

/// Devices that one word holds.
pub(crate) const PER_WORD: usize = 8;
/// Words of a node: 16 devices.
pub(crate) const WORDS: usize = 2;
/// Devices of a node.
pub(crate) const DEVICES: usize = PER_WORD * WORDS;
/// All of a device, in thousandths.
pub(crate) const WHOLE: u16 = 1000;

const LANE: u32 = 16;
/// The top bit of each lane, which no amount reaches.
const TOPS: u128 = 0x8000_8000_8000_8000_8000_8000_8000_8000;

/// Thousandths of each of eight devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lanes(pub(crate) u128);

impl Lanes {
    /// Returns lanes with these amounts; those past the eighth are left out.
    pub(crate) fn of(amounts: impl IntoIterator<Item = u16>) -> Self {
        let lanes = amounts.into_iter().take(PER_WORD).zip(0u32..);
        Self(lanes.fold(0, |word, (amount, lane)| {
            word | u128::from(amount.min(WHOLE)) << (lane * LANE)
        }))
    }

    /// Returns how much of a device is there.
    #[expect(clippy::cast_possible_truncation, reason = "a lane is cut out")]
    pub(crate) const fn get(self, lane: usize) -> u16 {
        (self.0 >> (lane as u32 * LANE)) as u16
    }

    /// Returns these lanes with more of one device.
    #[must_use]
    pub(crate) fn with(self, lane: usize, milli: u16) -> Self {
        Self(self.0 + (u128::from(milli) << (lane * LANE as usize)))
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether every device has as much as is claimed of it.
    pub(crate) const fn takes(self, claim: Self) -> bool {
        (self.0 | TOPS).wrapping_sub(claim.0) & TOPS == TOPS
    }

    /// Returns what is left after a claim that [`Self::takes`] allowed.
    pub(crate) const fn less(self, claim: Self) -> Self {
        Self(self.0 - claim.0)
    }

    /// Returns what is free after a claim was given back; a device is never more than whole, so
    /// that what was taken of a device which is gone comes to nothing.
    pub(crate) fn more(self, claim: Self, whole: Self) -> Self {
        let mut sum = 0;
        for lane in 0..PER_WORD {
            let amount = (self.get(lane) + claim.get(lane)).min(whole.get(lane));
            sum |= u128::from(amount) << (lane * LANE as usize);
        }
        Self(sum)
    }
}

/// All devices of a node, as they were at one moment each word.
pub(crate) type Remains = [Lanes; WORDS];

/// Returns what is free of a device.
pub(crate) const fn remaining(remains: &Remains, device: usize) -> u16 {
    remains[device / PER_WORD].get(device % PER_WORD)
}

/// Devices wanted of one kind, wherever they are on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wanted {
    /// How many; 0: none.
    pub count: u8,
    /// Thousandths of each.
    pub milli: u16,
}

impl Wanted {
    /// Returns what this request takes of a node: part of a device goes to the one that has the
    /// least left but enough, whole ones to the first that are untouched. `mask` has a bit for
    /// each device of the right kind.
    pub(crate) fn choose(self, remains: &Remains, mask: u16) -> Option<Remains> {
        let of_kind = (0..DEVICES).filter(|device| mask >> device & 1 == 1);
        let enough = of_kind.filter(|&device| remaining(remains, device) >= self.milli.max(1));
        let mut chosen = Remains::default();
        let mut take = |device: usize| {
            let word = &mut chosen[device / PER_WORD];
            *word = word.with(device % PER_WORD, self.milli);
        };
        if self.milli < WHOLE && self.count == 1 {
            take(enough.min_by_key(|&device| (remaining(remains, device), device))?);
        } else {
            let mut left = self.count;
            for device in enough.take(usize::from(self.count)) {
                take(device);
                left -= 1;
            }
            if left > 0 {
                return None;
            }
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_lanes_do_not_touch_each_other(
            free in prop::collection::vec(0u16..=1000, PER_WORD),
            claim in prop::collection::vec(0u16..=1000, PER_WORD),
        ) {
            let whole = Lanes::of([WHOLE; PER_WORD]);
            let lanes = (Lanes::of(free.iter().copied()), Lanes::of(claim.iter().copied()));
            let fits = free.iter().zip(&claim).all(|(free, claim)| free >= claim);
            prop_assert_eq!(lanes.0.takes(lanes.1), fits);
            if fits {
                let left = lanes.0.less(lanes.1);
                for lane in 0..PER_WORD {
                    prop_assert_eq!(left.get(lane), free[lane] - claim[lane]);
                }
                prop_assert_eq!(left.more(lanes.1, whole), lanes.0);
            }
        }
    }

    #[test]
    fn part_of_a_device_goes_where_the_least_is_left_and_whole_ones_are_untouched() {
        let remains = [Lanes::of([1000, 300, 250, 1000]), Lanes::of([1000])];
        let chosen = |count, milli, mask| Wanted { count, milli }.choose(&remains, mask);
        assert_eq!(
            chosen(1, 250, u16::MAX),
            Some([Lanes::of([0, 0, 250]), Lanes(0)])
        );
        assert_eq!(
            chosen(1, 260, u16::MAX),
            Some([Lanes::of([0, 260]), Lanes(0)])
        );
        assert_eq!(
            chosen(1, 260, 0b1000),
            Some([Lanes::of([0, 0, 0, 260]), Lanes(0)])
        );
        let both = [Lanes::of([1000, 0, 0, 1000]), Lanes::of([1000])];
        assert_eq!(chosen(3, 1000, u16::MAX), Some(both));
        assert_eq!(chosen(4, 1000, u16::MAX), None);
    }
}
