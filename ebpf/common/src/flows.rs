//! The flow table: found, kept, evicted.
//!
//! See [`crate::layout::flow`] for its shape and the protocol between writers.

use crate::layout::flow::{CLAIMED, EMPTY, Entry, Line, Meta, idle_index};
use crate::layout::{Config, Ticks, limits::WAYS};
use crate::machine::Machine;
use crate::service::NOBODY;

/// A way of the table that has a flow.
#[derive(Clone, Copy)]
pub struct Way(*mut Entry);

impl Way {
    #[inline(always)]
    fn tag(self) -> u64 {
        // SAFETY: a way of a line that `Machine::line` returned.
        unsafe { (&raw const (*self.0).tag).read_volatile() }
    }

    /// Returns what is known of the flow.
    #[inline(always)]
    pub fn meta(self) -> Meta {
        // SAFETY: as above.
        Meta(unsafe { (&raw const (*self.0).meta).read_volatile() })
    }

    /// Replaces what is known of the flow.
    #[inline(always)]
    pub fn set(self, meta: Meta) {
        // SAFETY: as above; the store is one word.
        unsafe { (&raw mut (*self.0).meta).write_volatile(meta.0) }
    }

    /// Gives the way back.
    #[inline(always)]
    pub fn clear(self) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.0).tag).write_volatile(EMPTY) }
    }
}

#[inline(always)]
fn way(line: *mut Line, at: usize) -> Way {
    // SAFETY: callers pass 0 to 3, and lines live as long as the table.
    Way(unsafe { (&raw mut (*line).ways).cast::<Entry>().add(at) })
}

/// Returns 1 if `value` is 0, else 0, without a branch.
#[inline(always)]
pub fn is_zero<M: Machine>(machine: &M, value: u64) -> u64 {
    (machine.opaque(value | value.wrapping_neg()) >> 63) ^ 1
}

#[inline(always)]
fn in_line<M: Machine>(machine: &M, line: *mut Line, tag: u64) -> Option<(Way, Meta)> {
    // No early exit: a branch for each way is guessed wrong half the time, for a flow lies in any.
    let is = |at| is_zero(machine, way(line, at).tag() ^ tag);
    let (first, second, third, fourth) = (is(0), is(1), is(2), is(3));
    if first + second + third + fourth == 0 {
        return None;
    }
    let way = way(
        line,
        (second + 2 * third + 3 * fourth) as usize & (WAYS - 1),
    );
    let meta = way.meta();
    // Whoever takes a way changes its tag first: the same tag afterwards means that the word was
    // this flow's.
    (way.tag() == tag).then_some((way, meta))
}

/// Returns the flow's way and word, if it has one.
#[inline(always)]
pub fn find<M: Machine>(machine: &M, config: &Config, tag: u64) -> Option<(Way, Meta)> {
    let home = tag as u32 & config.flow_mask;
    if let Some(found) = in_line(machine, machine.line(home)?, tag) {
        return Some(found);
    }
    in_line(machine, machine.line(home ^ 1)?, tag)
}

/// What a way that nobody uses is worth at least.
pub const IDLE: u32 = 0x2_0000;

/// What is known of an entry that could be given up.
#[derive(Clone, Copy)]
pub struct Candidate {
    /// Its tag.
    pub tag: u64,
    /// When it was seen.
    pub seen: Ticks,
    /// Its class.
    pub class: u8,
}

/// Returns how willingly an entry is given up; 0: not at all.
///
/// Empty ones first (twice [`IDLE`]), then what is idle for too long ([`IDLE`] and more), then what
/// is not established, the longest unseen first. What is established stays.
#[inline(always)]
pub fn worth<M: Machine>(machine: &M, config: &Config, entry: Candidate, now: Ticks) -> u32 {
    let age = u64::from(now.wrapping_sub(entry.seen));
    let idle = u64::from(config.idle[idle_index(entry.class) & 7]);
    let expired = machine.opaque(idle.wrapping_sub(age)) >> 63;
    let established = is_zero(machine, u64::from(entry.class & 3) ^ 1);
    let kept = established & (expired ^ 1);
    // Every tag of a flow has the highest bit; of the two that have not, CLAIMED is odd.
    let flow = entry.tag >> 63;
    let empty = (flow | entry.tag & 1) ^ 1;
    let worth = (1 + age + expired * u64::from(IDLE)) * (kept ^ 1) * flow;
    (worth + empty * 2 * u64::from(IDLE)) as u32
}

/// Returns the larger one, without a branch; both are less than 2³¹.
#[inline(always)]
fn max<M: Machine>(machine: &M, one: u32, other: u32) -> u32 {
    let less = machine.opaque(u64::from(one).wrapping_sub(u64::from(other))) >> 63;
    one + (other.wrapping_sub(one) & (less as u32).wrapping_neg())
}

/// Takes a way for a flow that has none; returns its place (line × 4 + way), or [`NOBODY`].
#[inline(never)]
pub fn insert<M: Machine>(machine: M, config: &Config, flow: u64, meta: Meta, now: Ticks) -> u32 {
    let home = flow as u32 & config.flow_mask;
    // The best so far: worth, and in the lowest bits which of the eight.
    let mut best = 0;
    let mut half = 0;
    while half < 2 {
        let Some(line) = machine.line(home ^ half) else {
            return NOBODY;
        };
        let mut at = 0;
        while at < WAYS {
            let way = way(line, at);
            let meta = way.meta();
            let entry = Candidate {
                tag: way.tag(),
                seen: meta.seen(),
                class: meta.class(),
            };
            let worth = worth(&machine, config, entry, now);
            best = max(&machine, best, worth << 3 | half << 2 | at as u32);
            at += 1;
        }
        // The neighbour is another line of the cache: only if need be.
        if best >= IDLE << 3 {
            break;
        }
        half += 1;
    }
    if best < 8 {
        return NOBODY;
    }
    let index = home ^ (best >> 2 & 1);
    let Some(line) = machine.line(index) else {
        return NOBODY;
    };
    let at = best as usize & (WAYS - 1);
    let way = way(line, at);
    let tag = way.tag();
    // SAFETY: the pointer is of a way of a line. Another CPU may have taken it first: then the next
    // packet tries again.
    if tag == CLAIMED || !machine.claim(unsafe { &raw mut (*way.0).tag }, tag, CLAIMED) {
        return NOBODY;
    }
    way.set(meta);
    // SAFETY: ours since the claim. A volatile store is not moved before the ones above, and the
    // processors that this runs on do not reorder stores.
    unsafe { (&raw mut (*way.0).tag).write_volatile(flow) };
    index * WAYS as u32 + at as u32
}
