//! Some of a shard's nodes (all, or those of one class), in the orders that policies ask for.
//!
//! A view keeps, for each cell of quantised free capacity, which blocks of 64 nodes have a node in
//! it; which nodes those are the block itself tells. So a node that moves from cell to cell costs
//! a few bits, and the nodes of a cell come in the order of their ids without being sorted.

use super::block::{BitSet, Block, Loads};
use super::cell::{Cell, DIAGONALS, STEPS};
use super::words::Amounts;

/// One cell's nodes.
#[derive(Debug, Default)]
struct Nodes {
    blocks: BitSet,
    /// Nobody here has more of anything: what would not fit into this fits nobody.
    bound: Amounts,
}

/// Nodes by cell and, once somebody has asked for it, by their number of tasks.
#[derive(Debug)]
pub(crate) struct View {
    /// Who belongs here, 64 nodes a word.
    member: Vec<u64>,
    /// For each diagonal (cells of one sum of steps) the steps of CPU that have a node.
    diagonals: Box<[u128]>,
    /// For each step of CPU and of memory the number of its nodes in `cells`, and 1; 0: none yet.
    rows: Vec<Option<Box<[u32; STEPS]>>>,
    cells: Vec<Nodes>,
    loads: Option<ByLoad>,
}

/// Nodes by how many tasks they have.
#[derive(Debug, Default)]
struct ByLoad {
    present: BitSet,
    blocks: Vec<BitSet>,
}

/// What is looked for in a view.
pub(crate) struct Probe<'a> {
    /// Amounts that a node must have.
    pub amounts: Amounts,
    /// Nodes left out, by place in the order of ids.
    pub skip: Option<&'a BitSet>,
    /// Which shard of how many: a block's place among all is `block × shards + shard`.
    pub shard: usize,
    /// See `shard`.
    pub shards: usize,
}

impl Probe<'_> {
    fn skipped(&self, block: usize) -> u64 {
        let place = block * self.shards + self.shard;
        self.skip.map_or(0, |skip| skip.word(place))
    }
}

impl Default for View {
    fn default() -> Self {
        Self {
            member: Vec::new(),
            diagonals: vec![0; DIAGONALS].into(),
            rows: (0..STEPS).map(|_| None).collect(),
            cells: Vec::new(),
            loads: None,
        }
    }
}

impl View {
    /// Makes a node belong here or not; it is filed nowhere at that moment.
    pub(crate) fn set_member(&mut self, local: usize, belongs: bool) {
        let (block, bit) = (local / 64, local % 64);
        if block >= self.member.len() {
            self.member.resize(block + 1, 0);
        }
        let word = &mut self.member[block];
        *word = *word & !(1 << bit) | u64::from(belongs) << bit;
    }

    fn members(&self, block: usize) -> u64 {
        self.member.get(block).copied().unwrap_or(0)
    }

    /// Notes that a node of this block is in a cell now.
    pub(crate) fn enter(&mut self, block: usize, cell: Cell, free: Amounts) {
        let row = self.rows[usize::from(cell.cpu)].get_or_insert_with(|| Box::new([0; STEPS]));
        let number = &mut row[usize::from(cell.memory())];
        if *number == 0 {
            self.cells.push(Nodes::default());
            *number = u32::try_from(self.cells.len()).expect("128 × 128 cells");
        }
        let nodes = &mut self.cells[*number as usize - 1];
        if nodes.blocks.is_empty() {
            nodes.bound = free;
            self.diagonals[usize::from(cell.sum)] |= 1 << cell.cpu;
        } else {
            nodes.bound = nodes.bound.max(free);
        }
        nodes.blocks.insert(block);
    }

    /// Notes that a node left a cell; `here` are the nodes of its block that are still in it.
    pub(crate) fn leave(&mut self, block: usize, cell: Cell, here: u64) {
        if here & self.members(block) != 0 {
            return;
        }
        let number = self.number(cell).expect("a filed node's cell exists");
        let nodes = &mut self.cells[number];
        nodes.blocks.remove(block);
        if nodes.blocks.is_empty() {
            self.diagonals[usize::from(cell.sum)] &= !(1 << cell.cpu);
        }
    }

    /// Notes that a node of this block has so many tasks now.
    pub(crate) fn enter_load(&mut self, block: usize, load: u16) {
        let loads = self.loads.get_or_insert_default();
        let at = usize::from(load);
        if at >= loads.blocks.len() {
            loads.blocks.resize_with(at + 1, BitSet::default);
        }
        loads.blocks[at].insert(block);
        loads.present.insert(at);
    }

    /// Notes that a node has not so many tasks any more; `here` are those of its block that have.
    pub(crate) fn leave_load(&mut self, block: usize, load: u16, here: u64) {
        if here & self.members(block) != 0 {
            return;
        }
        let loads = self.loads.get_or_insert_default();
        let at = usize::from(load);
        loads.blocks[at].remove(block);
        if loads.blocks[at].is_empty() {
            loads.present.remove(at);
        }
    }

    fn number(&self, cell: Cell) -> Option<usize> {
        let row = self.rows[usize::from(cell.cpu)].as_ref()?;
        (row[usize::from(cell.memory())] as usize).checked_sub(1)
    }

    /// Returns the first cell from `from` on, in the order of cells, in which a node may have as
    /// much as `least`.
    fn next_cell(&self, least: Cell, from: Cell) -> Option<Cell> {
        let first = from.sum.max(least.sum);
        // From the least CPU on, and to where less than the least memory remains: one more with
        // each diagonal. Nodes that have much of one and little of the other fill diagonals far
        // above the first that fits, so they are passed by the dozen: this loop is the hot one.
        let low = u128::MAX << least.cpu;
        let mut high = ones(u32::from(first - least.memory()) + 1);
        let mut here = low
            & (u128::MAX
                << if first == from.sum {
                    from.cpu.min(127)
                } else {
                    0
                });
        if from.cpu > 127 && first == from.sum {
            here = 0;
        }
        for (sum, rows) in (first..=u8::MAX).zip(&self.diagonals[usize::from(first)..]) {
            let rows = rows & here & high;
            if rows != 0 {
                #[expect(clippy::cast_possible_truncation, reason = "below 128")]
                let cpu = rows.trailing_zeros() as u8;
                return Some(Cell { sum, cpu });
            }
            here = low;
            high = high << 1 | 1;
        }
        None
    }

    /// Returns the first node, in the order of cells and then of ids, that `test` accepts, if it
    /// comes before `bound`. `test` tells what a node has free, and what comes of it if it fits.
    pub(crate) fn fullest<T>(
        &mut self,
        blocks: &[Block],
        probe: &Probe<'_>,
        bound: Option<(Cell, usize)>,
        mut test: impl FnMut(usize) -> (Amounts, Option<T>),
    ) -> Option<(Cell, usize, T)> {
        let least = Cell::of(probe.amounts);
        let mut next = self.next_cell(least, Cell::default());
        while let Some(cell) = next {
            if bound.is_some_and(|(last, _)| cell > last) {
                return None;
            }
            let number = self.number(cell).expect("a cell with nodes has a number");
            if self.cells[number].bound.takes(probe.amounts) {
                let mut most = Some(Amounts::default());
                let mut from = 0;
                while let Some(block) = self.cells[number].blocks.next(from) {
                    from = block + 1;
                    let here = blocks[block].at(cell) & self.members(block);
                    let mut left = here & !probe.skipped(block);
                    if left != here {
                        most = None;
                    }
                    while left != 0 {
                        let local = block * 64 + left.trailing_zeros() as usize;
                        left &= left - 1;
                        if bound.is_some_and(|last| (cell, local) > last) {
                            return None;
                        }
                        let (free, found) = test(local);
                        if let Some(found) = found {
                            return Some((cell, local, found));
                        }
                        most = most.map(|most| most.max(free));
                    }
                }
                // Everybody was looked at, and this is the most that anybody has.
                if let Some(most) = most {
                    self.cells[number].bound = most;
                }
            }
            next = self.next_cell(
                least,
                Cell {
                    sum: cell.sum,
                    cpu: cell.cpu + 1,
                },
            );
        }
        None
    }

    /// Returns the first node, in the order of tasks and then of ids, that `test` accepts, if it
    /// comes before `bound`.
    pub(crate) fn emptiest<T>(
        &self,
        blocks: &[Block],
        loads: &[Loads],
        probe: &Probe<'_>,
        bound: Option<(u16, usize)>,
        mut test: impl FnMut(usize) -> (Amounts, Option<T>),
    ) -> Option<(u16, usize, T)> {
        let least = Cell::of(probe.amounts);
        let by_load = self.loads.as_ref()?;
        let mut next = by_load.present.next(0);
        while let Some(load) = next {
            next = by_load.present.next(load + 1);
            let load16 = u16::try_from(load).expect("15 bits");
            if bound.is_some_and(|(last, _)| load16 > last) {
                return None;
            }
            let mut from = 0;
            while let Some(block) = by_load.blocks[load].next(from) {
                from = block + 1;
                let mut left = blocks[block].at_least(least)
                    & loads[block].at(load16)
                    & self.members(block)
                    & !probe.skipped(block);
                while left != 0 {
                    let local = block * 64 + left.trailing_zeros() as usize;
                    left &= left - 1;
                    if bound.is_some_and(|last| (load16, local) > last) {
                        return None;
                    }
                    if let (_, Some(found)) = test(local) {
                        return Some((load16, local, found));
                    }
                }
            }
        }
        None
    }
}

/// Returns so many ones.
const fn ones(count: u32) -> u128 {
    if count >= 128 {
        u128::MAX
    } else {
        (1 << count) - 1
    }
}
