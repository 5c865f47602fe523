//! Quantised free CPU and memory.

use super::words::Amounts;

/// Steps of each axis: one bit each in a `u128`.
pub(crate) const STEPS: usize = 128;
/// Bits of a step.
pub(crate) const STEP_BITS: usize = 7;
/// Diagonals of the grid: cells of one sum of steps.
pub(crate) const DIAGONALS: usize = 2 * STEPS - 1;
/// Bits of a value below its highest that tell steps apart: eight steps per doubling, so a step
/// is at most 1/8 of the value.
const FRACTION_BITS: u32 = 3;
/// Free CPU below 2⁵ milli-cores is one step; 128 steps reach 2,097 cores.
const CPU_FLOOR_BITS: u32 = 5;
/// Free memory below 16 MiB is one step; 128 steps reach 1 TiB.
const MEMORY_FLOOR_BITS: u32 = 24;

/// A cell of the grid. Cells are visited in their order: the least free capacity first, the
/// product of CPU and memory as steps are logarithmic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Cell {
    pub sum: u8,
    pub cpu: u8,
}

impl Cell {
    /// Returns the cell of this much free capacity. Monotone: more never has a lower step.
    pub(crate) fn of(free: Amounts) -> Self {
        let cpu = step(free.cpu(), CPU_FLOOR_BITS);
        let memory = step(free.memory(), MEMORY_FLOOR_BITS);
        Self {
            sum: cpu + memory,
            cpu,
        }
    }

    pub(crate) const fn memory(self) -> u8 {
        self.sum - self.cpu
    }
}

/// Returns the step of a value on a logarithmic axis, 0 to 127.
fn step(value: i64, floor_bits: u32) -> u8 {
    let value = u64::try_from(value).unwrap_or(0);
    let Some(octave) = value
        .checked_ilog2()
        .and_then(|b| b.checked_sub(floor_bits))
    else {
        return 0;
    };
    let fraction = (value >> (octave + floor_bits - FRACTION_BITS)) & ((1 << FRACTION_BITS) - 1);
    let step = (u64::from(octave) << FRACTION_BITS) + fraction + 1;
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    let step = step.min(STEPS as u64 - 1) as u8;
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_more_free_never_has_a_lower_step(a: i64, b: i64) {
            let (less, more) = (a.min(b), a.max(b));
            for floor in [CPU_FLOOR_BITS, MEMORY_FLOOR_BITS] {
                prop_assert!(step(less, floor) <= step(more, floor));
            }
        }
    }
}
