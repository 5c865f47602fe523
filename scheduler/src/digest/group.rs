//! Nodes of one kind, in blocks of such that have about the same free.

use std::ops::Range;

use ballast_model::NodeId;

use super::{Facts, Kind, Memory};
use crate::index::At;

/// Nodes of a block: two words of a mask, and few enough that looking through one is cheap.
const BLOCK: usize = 128;
/// Free ports from which on nodes are not told apart by them where they are sorted.
const PORTS: i32 = 16;

/// A set of the nodes of a group, by their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mask(Vec<u64>);

impl Mask {
    /// Adds a node or takes it out.
    pub(crate) fn put(&mut self, place: usize, there: bool) {
        let word = place / 64;
        if word >= self.0.len() {
            if !there {
                return;
            }
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (place % 64);
        self.0[word] = if there {
            self.0[word] | bit
        } else {
            self.0[word] & !bit
        };
    }

    /// Returns whether a node is in it.
    pub(crate) fn has(&self, place: usize) -> bool {
        let word = self.0.get(place / 64);
        word.is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Takes all out; there are so many nodes.
    pub(super) fn clear(&mut self, nodes: usize) {
        self.0.clear();
        self.0.resize(nodes.div_ceil(64), 0);
    }

    /// Returns how many nodes are in it.
    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Returns how many nodes of a block are in it.
    pub(crate) fn count_in(&self, block: &Block) -> usize {
        let words = block.places.start / 64..block.places.end.div_ceil(64);
        let words = self.0.get(words.start..words.end.min(self.0.len()));
        let ones = words.into_iter().flatten().map(|word| word.count_ones());
        ones.sum::<u32>() as usize
    }

    /// Adds the nodes of another set.
    pub(crate) fn join(&mut self, other: &Self) {
        if other.0.len() > self.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Takes the nodes of another set out.
    pub(crate) fn leave(&mut self, other: &Self) {
        for (word, less) in self.0.iter_mut().zip(&other.0) {
            *word &= !less;
        }
    }
}

/// What the nodes of a block have free: the least and the most of each amount.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    least: Facts,
    most: Facts,
    first: NodeId,
}

/// Nodes that lie together.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub places: Range<usize>,
    /// The least of each amount; not of one node.
    pub least: Facts,
    /// The most of each.
    pub most: Facts,
    /// The least id.
    pub first: NodeId,
}

/// Nodes of one kind.
#[derive(Debug)]
pub(crate) struct Group {
    pub kind: Kind,
    pub ats: Vec<At>,
    pub ids: Vec<NodeId>,
    pub cpu: Vec<i32>,
    pub pages: Vec<i32>,
    pub rest: Vec<i32>,
    pub slots: Vec<i32>,
    pub ports: Vec<i32>,
    /// Nodes that have as many tasks of a service as they may, for each that is watched.
    pub full: Vec<Mask>,
    bounds: Vec<Bounds>,
    /// Blocks whose bounds are to be found anew.
    stale: Mask,
    /// Changes since the nodes were sorted.
    changes: usize,
}

impl Group {
    pub(super) fn new(kind: Kind, watched: usize) -> Self {
        Self {
            kind,
            ats: Vec::new(),
            ids: Vec::new(),
            cpu: Vec::new(),
            pages: Vec::new(),
            rest: Vec::new(),
            slots: Vec::new(),
            ports: Vec::new(),
            full: vec![Mask::default(); watched],
            bounds: Vec::new(),
            stale: Mask::default(),
            changes: 0,
        }
    }

    /// Returns the blocks of nodes.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let starts = (0..self.ats.len()).step_by(BLOCK);
        starts.zip(&self.bounds).map(|(start, bounds)| Block {
            places: start..self.ats.len().min(start + BLOCK),
            least: bounds.least,
            most: bounds.most,
            first: bounds.first,
        })
    }

    /// Returns the node with the least id.
    pub(crate) fn first(&self) -> Option<At> {
        self.first_of(|_| true, |_| true)
    }

    /// Returns the node with the least id among those that pass, in blocks that may have one.
    pub(crate) fn first_of(
        &self,
        may: impl Fn(&Block) -> bool,
        passes: impl Fn(usize) -> bool,
    ) -> Option<At> {
        let mut best: Option<(NodeId, At)> = None;
        for block in self.blocks() {
            if best.is_some_and(|(id, _)| id < block.first) || !may(&block) {
                continue;
            }
            let places = block.places.filter(|place| passes(*place));
            let first = places.map(|place| (self.ids[place], self.ats[place])).min();
            best = best.into_iter().chain(first).min();
        }
        best.map(|(_, at)| at)
    }

    pub(crate) fn facts(&self, place: usize) -> Facts {
        Facts {
            cpu: self.cpu[place],
            memory: Memory {
                pages: self.pages[place],
                rest: self.rest[place],
            },
            slots: self.slots[place],
            ports: self.ports[place],
        }
    }

    pub(super) fn set(&mut self, place: usize, facts: Facts) {
        self.cpu[place] = facts.cpu;
        self.pages[place] = facts.memory.pages;
        self.rest[place] = facts.memory.rest;
        self.slots[place] = facts.slots;
        self.ports[place] = facts.ports;
        self.changed(place);
    }

    fn changed(&mut self, place: usize) {
        self.stale.put(place / BLOCK, true);
        self.changes += 1;
    }

    pub(super) fn push(&mut self, at: At, id: NodeId) -> usize {
        self.ats.push(at);
        self.ids.push(id);
        self.cpu.push(0);
        self.pages.push(0);
        self.rest.push(0);
        self.slots.push(0);
        self.ports.push(0);
        self.ats.len() - 1
    }

    /// Takes a node out; the last one takes its place.
    pub(super) fn swap_remove(&mut self, place: usize) -> Option<At> {
        let last = self.ats.len() - 1;
        self.ats.swap_remove(place);
        self.ids.swap_remove(place);
        let columns = [
            &mut self.cpu,
            &mut self.pages,
            &mut self.rest,
            &mut self.slots,
            &mut self.ports,
        ];
        for column in columns {
            column.swap_remove(place);
        }
        for mask in &mut self.full {
            mask.put(place, mask.has(last));
            mask.put(last, false);
        }
        self.changed(place);
        self.changed(last);
        self.ats.get(place).copied()
    }

    /// Finds the bounds of what changed; returns whether nodes have other places now.
    pub(super) fn settle(&mut self) -> bool {
        let blocks = self.ats.len().div_ceil(BLOCK);
        // A sort costs about as much as a few changes of each node.
        let sorts = blocks > 1 && self.changes >= self.ats.len();
        if sorts {
            self.sort();
            self.changes = 0;
            self.bounds.clear();
        }
        self.bounds.truncate(blocks);
        for block in 0..blocks {
            if block >= self.bounds.len() {
                self.bounds.push(self.bounds_of(block));
            } else if self.stale.has(block) {
                self.bounds[block] = self.bounds_of(block);
            }
        }
        self.stale.clear(0);
        sorts
    }

    fn bounds_of(&self, block: usize) -> Bounds {
        let end = self.ats.len().min((block + 1) * BLOCK);
        let first = self.facts(block * BLOCK);
        let mut bounds = Bounds {
            least: first,
            most: first,
            first: self.ids[block * BLOCK],
        };
        for place in block * BLOCK + 1..end {
            let facts = self.facts(place);
            bounds.least = bounds.least.each(&facts, Ord::min, Ord::min);
            bounds.most = bounds.most.each(&facts, Ord::max, Ord::max);
            bounds.first = bounds.first.min(self.ids[place]);
        }
        bounds
    }

    /// Sorts nodes that have about the same free next to each other.
    fn sort(&mut self) {
        let len = u32::try_from(self.ats.len()).expect("fewer nodes than 2^32");
        let mut order: Vec<u32> = (0..len).collect();
        self.halve(&mut order);
        let order: Vec<usize> = order.into_iter().map(|place| place as usize).collect();
        self.ats = order.iter().map(|&place| self.ats[place]).collect();
        self.ids = order.iter().map(|&place| self.ids[place]).collect();
        for column in [
            &mut self.cpu,
            &mut self.pages,
            &mut self.rest,
            &mut self.slots,
            &mut self.ports,
        ] {
            *column = order.iter().map(|&place| column[place]).collect();
        }
        for mask in &mut self.full {
            let before = std::mem::take(mask);
            for (now, &place) in order.iter().enumerate() {
                mask.put(now, before.has(place));
            }
        }
    }

    /// Sorts by halves, each by the amount in which its nodes differ most, down to blocks.
    fn halve(&self, order: &mut [u32]) {
        if order.len() <= BLOCK {
            return;
        }
        let columns: [&dyn Fn(usize) -> i32; 4] = [
            &|place| self.slots[place].min(1),
            &|place| self.cpu[place],
            &|place| self.pages[place],
            &|place| self.ports[place].min(PORTS),
        ];
        let spread = |column: &dyn Fn(usize) -> i32| {
            let (mut least, mut most) = (i32::MAX, i32::MIN);
            for &place in order.iter() {
                let value = column(place as usize);
                (least, most) = (least.min(value), most.max(value));
            }
            let most_at_all = i64::from(least).abs().max(i64::from(most).abs());
            (i64::from(most) - i64::from(least)) * 1000 / most_at_all.max(1)
        };
        let spreads = columns.map(spread);
        let widest = (0..columns.len()).max_by_key(|&column| (spreads[column], column == 0));
        let widest = widest.expect("there are columns");
        if spreads[widest] == 0 {
            return;
        }
        let half = (order.len() / 2).next_multiple_of(BLOCK);
        let column = columns[widest];
        order.select_nth_unstable_by_key(half, |&place| column(place as usize));
        let (left, right) = order.split_at_mut(half);
        self.halve(left);
        self.halve(right);
    }
}
