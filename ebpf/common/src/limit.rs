//! New flows of one source.
//!
//! Two rows of counters, each source in one cell of each; the smaller of both counts (count-min
//! sketch), so a source is held to too little only if others fill both of its cells. A cell begins
//! anew with each tick. CPUs that count at the same moment may lose a count: the limit is a guard,
//! no account.

use crate::family::Family;
use crate::layout::{Config, Ticks, limits::SOURCE_CELLS};
use crate::machine::Machine;

/// Counts a new flow of `source`; returns whether it is within `limit` (0: none).
#[inline(always)]
pub fn admits<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    source: F::Addr,
    limit: u32,
    now: Ticks,
) -> bool {
    if limit == 0 {
        return true;
    }
    let hash = F::source_hash(config.key, source);
    let first = bump(machine, hash as u32 & (SOURCE_CELLS - 1), now);
    let other = (hash >> 32) as u32 & (SOURCE_CELLS - 1);
    let second = bump(machine, SOURCE_CELLS + other, now);
    first.min(second) <= limit
}

#[inline(always)]
fn bump<M: Machine>(machine: M, index: u32, now: Ticks) -> u32 {
    let Some(cell) = machine.cell(index) else {
        return 0;
    };
    // SAFETY: a cell of the map; it is one aligned word.
    let old = unsafe { cell.read_volatile() };
    let count = if (old >> 32) as u16 == now {
        (old as u32).saturating_add(1)
    } else {
        1
    };
    // SAFETY: as above.
    unsafe { cell.write_volatile(u64::from(now) << 32 | u64::from(count)) };
    count
}
