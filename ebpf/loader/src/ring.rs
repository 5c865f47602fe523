//! Which member has which slot of a service's ring.
//!
//! A ring is changed, never made anew: a member that stays keeps every slot it may keep. Members
//! have slots in proportion to their weights, to one slot; who may have the odd one is whoever has
//! it already. So a member that leaves moves its own slots only, and one that comes takes exactly
//! its share. The result is a function of the former ring and the new weights: two balancers that
//! see the same changes have the same ring.

use std::collections::BTreeMap;

use ballast_ebpf_common::layout::limits::NO_MEMBER;
use ballast_ebpf_common::layout::slot;

/// The slots of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    words: Vec<u32>,
}

/// A member and how much it gets beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its place among the service's members.
    pub member: u16,
    /// Its weight.
    pub weight: u32,
}

/// A slot that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub slot: usize,
    /// What it holds now.
    pub word: u32,
}

impl Ring {
    /// Makes one of that many slots, nobody's.
    pub fn new(size: usize) -> Self {
        Self {
            words: vec![slot::VACANT; size],
        }
    }

    /// Makes one of slots that are there.
    pub fn of(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// Returns its slots.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Gives every slot to one of `shares`, and returns what changed. Members of whom `is_gone`
    /// says so are nobody's previous ones.
    ///
    /// # Complexity
    /// Linear in the slots, and in the members times their logarithm.
    pub fn update(&mut self, shares: &[Share], is_gone: impl Fn(u16) -> bool) -> Vec<Change> {
        let mut left = self.quotas(shares);
        let mut changes = Vec::new();
        let mut vacant = Vec::new();
        for (at, word) in self.words.iter().enumerate() {
            let member = slot::member(*word);
            match left.get_mut(&member) {
                Some(quota) if *quota > 0 => {
                    *quota -= 1;
                    let previous = slot::previous(*word);
                    if previous != NO_MEMBER && is_gone(previous) {
                        changes.push(Change {
                            slot: at,
                            word: slot::new(member, NO_MEMBER),
                        });
                    }
                }
                _ => vacant.push(at),
            }
        }
        // In turns, so that the slots of one that left do not all go to one other.
        let mut takers: Vec<(u16, usize)> =
            left.into_iter().filter(|(_, quota)| *quota > 0).collect();
        let mut turn = 0;
        for at in vacant {
            let before = slot::member(self.words[at]);
            let previous = if before == NO_MEMBER || is_gone(before) {
                NO_MEMBER
            } else {
                before
            };
            let taker = if takers.is_empty() {
                NO_MEMBER
            } else {
                turn %= takers.len();
                let (member, quota) = &mut takers[turn];
                let member = *member;
                *quota -= 1;
                if *quota == 0 {
                    takers.remove(turn);
                } else {
                    turn += 1;
                }
                member
            };
            let word = slot::new(taker, previous);
            if word != self.words[at] {
                changes.push(Change { slot: at, word });
            }
        }
        for change in &changes {
            self.words[change.slot] = change.word;
        }
        changes
    }

    /// Returns how many slots each is to have; together they are all.
    fn quotas(&self, shares: &[Share]) -> BTreeMap<u16, usize> {
        let size = self.words.len() as u128;
        let total: u128 = shares.iter().map(|share| u128::from(share.weight)).sum();
        if total == 0 {
            return BTreeMap::new();
        }
        let mut has: BTreeMap<u16, u128> = BTreeMap::new();
        for word in &self.words {
            *has.entry(slot::member(*word)).or_default() += 1;
        }
        let mut quotas: BTreeMap<u16, usize> = BTreeMap::new();
        let mut odd: Vec<(bool, u128, u16)> = Vec::new();
        let mut given = 0;
        for share in shares {
            let exact = size * u128::from(share.weight);
            let (whole, rest) = (exact / total, exact % total);
            given += whole;
            quotas.insert(share.member, usize::try_from(whole).unwrap_or(usize::MAX));
            if rest > 0 {
                let keeps = has.get(&share.member).is_some_and(|has| *has > whole);
                odd.push((keeps, rest, share.member));
            }
        }
        // Whoever has more already, then whoever is owed most.
        odd.sort_by_key(|(keeps, rest, member)| (!keeps, u128::MAX - rest, *member));
        let over = usize::try_from(size - given).unwrap_or(0);
        for (_, _, member) in odd.into_iter().take(over) {
            *quotas.entry(member).or_default() += 1;
        }
        quotas
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(ring: &Ring) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for word in ring.words() {
            *counts.entry(slot::member(*word)).or_default() += 1;
        }
        counts
    }

    fn shares(weights: &BTreeMap<u16, u32>) -> Vec<Share> {
        let shares = weights.iter();
        let shares = shares.map(|(&member, &weight)| Share { member, weight });
        shares.collect()
    }

    #[test]
    fn ring_without_members_is_vacant_and_says_who_was_there() {
        let mut ring = Ring::new(7);
        ring.update(
            &[Share {
                member: 3,
                weight: 1,
            }],
            |_| false,
        );
        assert!(
            ring.words()
                .iter()
                .all(|word| *word == slot::new(3, NO_MEMBER))
        );
        ring.update(&[], |_| false);
        assert!(
            ring.words()
                .iter()
                .all(|word| *word == slot::new(NO_MEMBER, 3))
        );
        let mut dead = Ring::of(vec![slot::new(3, 4); 7]);
        dead.update(
            &[Share {
                member: 5,
                weight: 1,
            }],
            |member| member == 3,
        );
        assert!(
            dead.words()
                .iter()
                .all(|word| *word == slot::new(5, NO_MEMBER))
        );
    }

    proptest! {
        #[test]
        fn prop_ring_is_even_and_moves_no_slot_of_who_stays(
            size in 1usize..700,
            rounds in prop::collection::vec(
                prop::collection::btree_map(0u16..24, 1u32..40, 0..12), 1..8),
        ) {
            let mut ring = Ring::new(size);
            let mut before: BTreeMap<u16, u32> = BTreeMap::new();
            for weights in rounds {
                let old = ring.clone();
                let gone = |member: u16| !weights.contains_key(&member);
                let changes = ring.update(&shares(&weights), gone);
                let total: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
                let has = counts(&ring);
                for (member, weight) in &weights {
                    let slots = has.get(member).copied().unwrap_or(0) as u64;
                    let floor = size as u64 * u64::from(*weight) / total;
                    prop_assert!(slots == floor || slots == floor + 1, "{member}: {slots}");
                }
                for word in ring.words() {
                    prop_assert_eq!(slot::member(*word) == NO_MEMBER, weights.is_empty());
                    let previous = slot::previous(*word);
                    prop_assert!(previous == NO_MEMBER || !gone(previous));
                }
                // Who stays with no smaller a share of the whole loses nothing but the odd slot.
                let was: u64 = before.values().map(|weight| u64::from(*weight)).sum();
                for (member, weight) in &weights {
                    let Some(former) = before.get(member) else { continue };
                    if u64::from(*weight) * was >= u64::from(*former) * total {
                        let lost = old.words().iter().zip(ring.words()).filter(|(old, new)| {
                            slot::member(**old) == *member && slot::member(**new) != *member
                        });
                        let kept = counts(&old).get(member).copied().unwrap_or(0);
                        let may = kept.saturating_sub(has.get(member).copied().unwrap_or(0));
                        prop_assert!(lost.count() <= may && may <= 1);
                    }
                }
                let mut again = old.clone();
                for change in &changes {
                    prop_assert_ne!(again.words[change.slot], change.word);
                    again.words[change.slot] = change.word;
                }
                prop_assert_eq!(&again, &ring);
                before = weights;
            }
        }

        #[test]
        fn prop_who_leaves_moves_only_its_own_slots(
            size in 100usize..3000,
            members in 2u16..40,
            leaver in 0u16..40,
        ) {
            let leaver = leaver % members;
            let all: BTreeMap<u16, u32> = (0..members).map(|member| (member, 100)).collect();
            let mut ring = Ring::new(size);
            ring.update(&shares(&all), |_| false);
            let old = ring.clone();
            let mut rest = all.clone();
            rest.remove(&leaver);
            ring.update(&shares(&rest), |_| false);
            for (old, new) in old.words().iter().zip(ring.words()) {
                if slot::member(*old) == leaver {
                    prop_assert_eq!(slot::previous(*new), leaver);
                } else {
                    prop_assert_eq!(slot::member(*old), slot::member(*new));
                }
            }
        }
    }
}
