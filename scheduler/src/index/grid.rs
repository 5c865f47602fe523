//! Nodes of one class by quantised free CPU and memory.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{Bytes, MilliCpu, NodeId};

/// Steps of each axis: one bit each in a `u128`.
const STEPS: usize = 128;
/// Bits of a value below its highest that tell steps apart: eight steps per doubling, so a step
/// is at most 1/8 of the value.
const FRACTION_BITS: u32 = 3;
/// Free CPU below 2⁵ milli-cores is one step; 128 steps reach 2,097 cores.
const CPU_FLOOR_BITS: u32 = 5;
/// Free memory below 16 MiB is one step; 128 steps reach 1 TiB.
const MEMORY_FLOOR_BITS: u32 = 24;

/// Where a node's entry is in the index.
pub(crate) type At = u32;

/// A node within a cell: fewest tasks first, then by id, so that ties are always broken alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub tasks: u32,
    pub node: NodeId,
    pub at: At,
}

/// Quantised free CPU and memory. Cells are visited in their order: the least free capacity
/// first, the product of CPU and memory as steps are logarithmic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    sum: u8,
    cpu: u8,
}

impl Cell {
    /// Returns the cell of this much free capacity. Monotone: more never has a lower step.
    pub(crate) fn of(cpu: MilliCpu, memory: Bytes) -> Self {
        let cpu = step(u64::from(cpu.0), CPU_FLOOR_BITS);
        let memory = step(memory.0, MEMORY_FLOOR_BITS);
        Self {
            sum: cpu + memory,
            cpu,
        }
    }

    const fn memory(self) -> u8 {
        self.sum - self.cpu
    }
}

/// Returns the step of a value on a logarithmic axis, 0 to 127.
fn step(value: u64, floor_bits: u32) -> u8 {
    let Some(octave) = value
        .checked_ilog2()
        .and_then(|b| b.checked_sub(floor_bits))
    else {
        return 0;
    };
    let fraction = (value >> (octave + floor_bits - FRACTION_BITS)) & ((1 << FRACTION_BITS) - 1);
    let step = (u64::from(octave) << FRACTION_BITS) + fraction + 1;
    u8::try_from(step.min(STEPS as u64 - 1)).expect("below 128")
}

/// Nodes by cell, with bitmaps of the cells that are not empty.
#[derive(Debug)]
pub(crate) struct Grid {
    /// Steps of CPU that have a node.
    rows: u128,
    /// For each of them the steps of memory that have one.
    columns: Box<[u128; STEPS]>,
    cells: BTreeMap<Cell, BTreeSet<Rank>>,
}

impl Default for Grid {
    fn default() -> Self {
        Self {
            rows: 0,
            columns: Box::new([0; STEPS]),
            cells: BTreeMap::new(),
        }
    }
}

impl Grid {
    pub(crate) fn insert(&mut self, cell: Cell, rank: Rank) {
        self.rows |= 1 << cell.cpu;
        self.columns[usize::from(cell.cpu)] |= 1 << cell.memory();
        self.cells.entry(cell).or_default().insert(rank);
    }

    pub(crate) fn remove(&mut self, cell: Cell, rank: Rank) {
        let nodes = self.cells.get_mut(&cell);
        let nodes = nodes.expect("a filed node's cell exists");
        assert!(nodes.remove(&rank), "a filed node is in its cell");
        if nodes.is_empty() {
            self.cells.remove(&cell);
            let row = &mut self.columns[usize::from(cell.cpu)];
            *row &= !(1 << cell.memory());
            if *row == 0 {
                self.rows &= !(1 << cell.cpu);
            }
        }
    }

    /// Returns the first cell after `last` in which a node may have at least `least` free.
    ///
    /// # Complexity
    /// A few instructions for each step of CPU that has a node; the number of nodes does not matter.
    pub(crate) fn next(&self, least: Cell, last: Option<Cell>) -> Option<Cell> {
        let mut best: Option<Cell> = None;
        let mut rows = self.rows & (u128::MAX << least.cpu);
        while rows != 0 {
            let cpu = u8::try_from(rows.trailing_zeros()).expect("below 128");
            rows &= rows - 1;
            let lowest = match last {
                // The cells of this row that come after `last`.
                Some(last) => {
                    let after = u8::from(cpu <= last.cpu);
                    least.memory().max((last.sum + after).saturating_sub(cpu))
                }
                None => least.memory(),
            };
            if best.is_some_and(|best| cpu + lowest >= best.sum) {
                continue;
            }
            if usize::from(lowest) >= STEPS {
                continue;
            }
            let columns = self.columns[usize::from(cpu)] & (u128::MAX << lowest);
            if columns != 0 {
                let memory = u8::try_from(columns.trailing_zeros()).expect("below 128");
                let cell = Cell {
                    sum: cpu + memory,
                    cpu,
                };
                if best.is_none_or(|best| cell < best) {
                    best = Some(cell);
                }
            }
        }
        best
    }

    /// Returns the nodes of a cell in order.
    pub(crate) fn nodes(&self, cell: Cell) -> impl Iterator<Item = Rank> + '_ {
        self.cells.get(&cell).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_more_free_never_has_a_lower_step(a: u64, b: u64) {
            let (less, more) = (a.min(b), a.max(b));
            for floor in [CPU_FLOOR_BITS, MEMORY_FLOOR_BITS] {
                prop_assert!(step(less, floor) <= step(more, floor));
            }
        }

        #[test]
        fn prop_cells_are_visited_once_in_order_and_none_is_missed(
            nodes in prop::collection::vec((0u32..9000, 0u64..9000), 0..60),
            least in (0u32..9000, 0u64..9000),
        ) {
            let cell = |(cpu, mib): (u32, u64)| Cell::of(MilliCpu(cpu), Bytes::from_mib(mib));
            let mut grid = Grid::default();
            for (&node, at) in nodes.iter().zip(0..) {
                let rank = Rank { tasks: 0, node: NodeId::from_bits(u64::from(at)), at };
                grid.insert(cell(node), rank);
            }
            let least = cell(least);
            let mut expected: Vec<Cell> = nodes
                .iter()
                .map(|&node| cell(node))
                .filter(|cell| cell.cpu >= least.cpu && cell.memory() >= least.memory())
                .collect();
            expected.sort_unstable();
            expected.dedup();
            let mut visited = Vec::new();
            let mut last = None;
            while let Some(cell) = grid.next(least, last) {
                visited.push(cell);
                last = Some(cell);
            }
            prop_assert_eq!(visited, expected);
        }
    }
}
