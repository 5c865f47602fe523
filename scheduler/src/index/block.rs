//! Sixty-four nodes and the cells they are filed in, bit by bit; and sets of such blocks.

use super::cell::{Cell, STEP_BITS};

/// Bits of a node's count of tasks in the order by tasks: as many as a node has slots.
const LOAD_BITS: usize = 15;
/// Bits by which nodes with few tasks are told apart.
const LOW_BITS: usize = 6;

/// The cells of 64 nodes, one word for each bit of a step, so that all of them are compared with a
/// cell by a few instructions on whole words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    cpu: [u64; STEP_BITS],
    memory: [u64; STEP_BITS],
    /// Nodes that are filed at all.
    filed: u64,
}

impl Block {
    /// Returns the nodes that are filed in this cell.
    pub(crate) fn at(&self, cell: Cell) -> u64 {
        self.filed & equal(&self.cpu, cell.cpu.into()) & equal(&self.memory, cell.memory().into())
    }

    /// Returns the nodes that are filed at all.
    pub(crate) const fn filed(&self) -> u64 {
        self.filed
    }

    /// Returns the nodes that have at least these steps of CPU and memory.
    pub(crate) fn at_least(&self, cell: Cell) -> u64 {
        self.filed
            & at_least(&self.cpu, cell.cpu.into())
            & at_least(&self.memory, cell.memory().into())
    }

    /// Files a node that was filed there before, or nowhere, or takes it out.
    pub(crate) fn set(&mut self, bit: u32, before: Option<Cell>, after: Option<Cell>) {
        self.filed = self.filed & !(1 << bit) | u64::from(after.is_some()) << bit;
        // Who is not filed stands in the first cell.
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        flip(&mut self.cpu, bit, before.cpu.into(), after.cpu.into());
        let memory = (before.memory().into(), after.memory().into());
        flip(&mut self.memory, bit, memory.0, memory.1);
    }
}

/// How many tasks each of 64 nodes has, bit by bit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loads {
    planes: [u64; LOAD_BITS],
    /// Nodes with more tasks than the low bits can tell: most have few, and are compared by less
    /// than half of the planes.
    many: u64,
}

impl Loads {
    pub(crate) fn at(&self, load: u16) -> u64 {
        if load >> LOW_BITS > 0 {
            return equal(&self.planes, load.into());
        }
        let low = self.planes.first_chunk::<LOW_BITS>();
        equal(low.expect("fewer than all"), load.into()) & !self.many
    }

    /// Sets how many tasks a node has that had so many before.
    pub(crate) fn set(&mut self, bit: u32, before: u16, after: u16) {
        flip(&mut self.planes, bit, before.into(), after.into());
        let many = u64::from(after >> LOW_BITS > 0);
        self.many = self.many & !(1 << bit) | many << bit;
    }
}

fn equal<const BITS: usize>(planes: &[u64; BITS], value: u64) -> u64 {
    let mut mask = u64::MAX;
    for (bit, plane) in planes.iter().enumerate() {
        // All ones where the value's bit is zero: what differs from the value is struck out.
        mask &= plane ^ (value >> bit & 1).wrapping_sub(1);
    }
    mask
}

fn at_least<const BITS: usize>(planes: &[u64; BITS], value: u64) -> u64 {
    let (mut greater, mut equal) = (0, u64::MAX);
    for (bit, plane) in planes.iter().enumerate().rev() {
        if value >> bit & 1 == 0 {
            greater |= equal & plane;
            equal &= !plane;
        } else {
            equal &= plane;
        }
    }
    greater | equal
}

/// Changes a node's value where it differs: mostly in a bit or two.
fn flip<const BITS: usize>(planes: &mut [u64; BITS], bit: u32, before: u64, after: u64) {
    let mut differ = before ^ after;
    while differ != 0 {
        planes[differ.trailing_zeros() as usize] ^= 1 << bit;
        differ &= differ - 1;
    }
}

/// Words that one word of the upper level stands for.
const FAN: usize = 64;

/// A set of small numbers: a bit each, and a bit for each word that has one, so that the first is
/// found in three steps among thousands. The upper bits of the first 4,096 numbers lie in the set
/// itself: a cache line less for the sets of blocks, which are most.
#[derive(Debug, Clone, Default)]
pub(crate) struct BitSet {
    words: Vec<u64>,
    /// A bit for each of the first words that is not zero.
    first: u64,
    /// The same for the words after those.
    upper: Vec<u64>,
    len: u32,
}

impl BitSet {
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a number; returns whether it was not there.
    pub(crate) fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if word >= self.words.len() {
            self.grow(word);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        *self.above(word) |= 1 << (word % FAN);
        self.len += u32::from(fresh);
        fresh
    }

    #[cold]
    fn grow(&mut self, word: usize) {
        self.words.resize(word + 1, 0);
        self.upper.resize(word / FAN, 0);
    }

    fn above(&mut self, word: usize) -> &mut u64 {
        if word < FAN {
            &mut self.first
        } else {
            &mut self.upper[word / FAN - 1]
        }
    }

    /// Takes a number out; returns whether it was there.
    pub(crate) fn remove(&mut self, number: usize) -> bool {
        let (word, bit) = (number / 64, 1 << (number % 64));
        let Some(found) = self.words.get_mut(word).filter(|word| **word & bit != 0) else {
            return false;
        };
        *found &= !bit;
        if *found == 0 {
            *self.above(word) &= !(1 << (word % FAN));
        }
        self.len -= 1;
        true
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.word(number / 64) >> (number % 64) & 1 == 1
    }

    /// Returns the bits of 64 numbers, beginning at `64 × place`.
    pub(crate) fn word(&self, place: usize) -> u64 {
        self.words.get(place).copied().unwrap_or(0)
    }

    /// Returns the least number that is not below `from`.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let word = from / 64;
        let here = self.word(word) & (u64::MAX << (from % 64));
        if here != 0 {
            return Some(word * 64 + here.trailing_zeros() as usize);
        }
        let above = word + 1;
        let mut place = above / FAN;
        let upper = |place: usize| match place {
            0 => Some(self.first),
            place => self.upper.get(place - 1).copied(),
        };
        let mut bits = upper(place)? & (u64::MAX << (above % FAN));
        while bits == 0 {
            place += 1;
            bits = upper(place)?;
        }
        let word = place * FAN + bits.trailing_zeros() as usize;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }

    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let found = self.next(from)?;
            from = found + 1;
            Some(found)
        })
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use proptest::prelude::*;

    fn cells() -> impl Strategy<Value = Cell> {
        (0u8..128, 0u8..128).prop_map(|(cpu, memory)| Cell {
            sum: cpu + memory,
            cpu,
        })
    }

    proptest! {
        #[test]
        fn prop_planes_compare_as_numbers_do(
            filed in prop::collection::vec((0u32..64, prop::option::of(cells())), 0..100),
            ask in cells(),
        ) {
            let mut block = Block::default();
            let mut naive: BTreeMap<u32, Cell> = BTreeMap::new();
            for (bit, cell) in filed {
                let before = naive.get(&bit).copied();
                block.set(bit, before, cell);
                match cell {
                    Some(cell) => naive.insert(bit, cell),
                    None => naive.remove(&bit),
                };
            }
            for bit in 0..64 {
                let known = naive.get(&bit);
                prop_assert_eq!(block.filed() >> bit & 1 == 1, known.is_some());
                prop_assert_eq!(block.at(ask) >> bit & 1 == 1, known == Some(&ask));
                let least = known.is_some_and(|cell| {
                    cell.cpu >= ask.cpu && cell.memory() >= ask.memory()
                });
                prop_assert_eq!(block.at_least(ask) >> bit & 1 == 1, least);
            }
        }

        #[test]
        fn prop_loads_compare_as_numbers_do(
            counted in prop::collection::vec((0u32..64, prop_oneof![0u16..70, 0u16..1 << 15]), 0..100),
            ask in prop_oneof![0u16..70, 0u16..1 << 15],
        ) {
            let mut loads = Loads::default();
            let mut naive = [0; 64];
            for (bit, load) in counted {
                let known = &mut naive[bit as usize];
                loads.set(bit, *known, load);
                *known = load;
            }
            for ask in naive.into_iter().chain([ask]) {
                for (bit, known) in naive.iter().enumerate() {
                    prop_assert_eq!(loads.at(ask) >> bit & 1 == 1, *known == ask);
                }
            }
        }

        #[test]
        fn prop_bit_set_is_a_set(
            changes in prop::collection::vec((0usize..40_000, any::<bool>()), 0..200),
            from in 0usize..40_000,
        ) {
            let mut set = BitSet::default();
            let mut naive = BTreeSet::new();
            for (number, insert) in changes {
                if insert {
                    prop_assert_eq!(set.insert(number), naive.insert(number));
                } else {
                    prop_assert_eq!(set.remove(number), naive.remove(&number));
                }
            }
            prop_assert_eq!(set.next(from), naive.range(from..).next().copied());
            prop_assert!(set.iter().eq(naive.iter().copied()));
            prop_assert_eq!(set.is_empty(), naive.is_empty());
        }
    }
}
