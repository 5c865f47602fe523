//! A slot of a ring.
//!
//! # Shapes
//! A `u32`: the slot's member in the low half, its previous member in the high half (the one that
//! had it before the last change; the same, or [`NO_MEMBER`], if there is none to ask). A member is
//! a place in the service's part of [`MEMBERS`](super::maps::MEMBERS). One aligned store changes
//! both.

use super::limits::NO_MEMBER;

/// Nobody, now or before.
pub const VACANT: u32 = new(NO_MEMBER, NO_MEMBER);

/// Returns the slot of these two.
#[inline(always)]
pub const fn new(member: u16, previous: u16) -> u32 {
    member as u32 | (previous as u32) << 16
}

/// Returns who has the slot.
#[inline(always)]
pub const fn member(slot: u32) -> u16 {
    slot as u16
}

/// Returns who had it before.
#[inline(always)]
pub const fn previous(slot: u32) -> u16 {
    (slot >> 16) as u16
}
