//! The flow table: which backend a flow has.
//!
//! [`FLOWS`](super::maps::FLOWS) is an array of [`Line`]s in shared memory. A flow's hash chooses a
//! line and, as line ^ 1, its neighbour: a set of eight ways of which the first four are read
//! first. An entry is a tag (the hash itself, never 0 or 1) and a [`Meta`] word.
//!
//! Written without locks: who takes a way swaps its tag for [`CLAIMED`] with a compare-and-swap,
//! stores the meta word, then the tag. Readers read tag, meta, tag. A meta word is refreshed with a
//! plain store: the last of two writers of one flow wins, and either is right.
//!
//! User space may read it at any time, and may clear a way by writing 0 to its tag.

use super::{Ticks, limits::WAYS};

/// No flow.
pub const EMPTY: u64 = 0;
/// A way that somebody is writing.
pub const CLAIMED: u64 = 1;

/// [`Meta::class`].
pub mod class {
    /// One direction has begun: SYNs only, a single datagram, or a packet of a flow not seen
    /// before. Never displaces what is established.
    pub const NEW: u8 = 0;
    /// Went on after that.
    pub const ESTABLISHED: u8 = 1;
    /// The client sent FIN or RST.
    pub const CLOSING: u8 = 2;
    /// Set beside a class: the flow is UDP's.
    pub const UDP: u8 = 4;
}

/// What is known of a flow, in one word.
///
/// # Shapes
/// From the lowest bit: backend 24, its generation 8, last packet 16 ([`Ticks`]), class 3, QUIC 1,
/// spare 12.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta(pub u64);

/// See [`Meta::is_quic`].
pub const QUIC: u64 = 1 << 51;

impl Meta {
    /// Returns the word of these parts.
    #[inline(always)]
    pub const fn new(backend: u32, generation: u8, seen: Ticks, class: u8) -> Self {
        Self(
            (backend & 0xff_ffff) as u64
                | (generation as u64) << 24
                | (seen as u64) << 32
                | ((class & 7) as u64) << 48,
        )
    }

    /// Returns the index of the flow's backend.
    #[inline(always)]
    pub const fn backend(self) -> u32 {
        self.0 as u32 & 0xff_ffff
    }

    /// Returns the generation that the backend had.
    #[inline(always)]
    pub const fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Returns when the flow was last seen (to the tick).
    #[inline(always)]
    pub const fn seen(self) -> Ticks {
        (self.0 >> 32) as u16
    }

    /// Returns its [`class`], with [`class::UDP`].
    #[inline(always)]
    pub const fn class(self) -> u8 {
        (self.0 >> 48) as u8 & 7
    }

    /// Returns whether its packets are looked at for a QUIC connection id first.
    #[inline(always)]
    pub const fn is_quic(self) -> bool {
        self.0 & QUIC != 0
    }

    /// Returns the same flow, seen at another time in another class.
    #[inline(always)]
    pub const fn with(self, seen: Ticks, class: u8) -> Self {
        Self(self.0 & !(0x7_ffff << 32) | (seen as u64) << 32 | ((class & 7) as u64) << 48)
    }

    /// Returns the index into [`Config::idle`](super::Config::idle) of its class.
    #[inline(always)]
    pub const fn idle_index(self) -> usize {
        idle_index(self.class())
    }
}

/// Returns the index into [`Config::idle`](super::Config::idle) of a class.
#[inline(always)]
pub const fn idle_index(class: u8) -> usize {
    // TCP 0, 1, 2; UDP 4, 5 become 3, 4: a UDP flow does not close. Without a branch.
    (class - (class >> 2 & 1)) as usize
}

/// One way of a line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The flow's hash, [`EMPTY`] or [`CLAIMED`].
    pub tag: u64,
    /// A [`Meta`].
    pub meta: u64,
}

/// Four ways: one line of the cache.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// In no order.
    pub ways: [Entry; WAYS],
}

/// Who began the flow in the way of the same place (`line * 4 + way`), in
/// [`FLOW_KEYS`](super::maps::FLOW_KEYS); written once when the flow begins, so it counts only
/// together with a flow whose tag is its hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// The client.
    pub client: super::Address,
    /// Where it connected to.
    pub service: super::Address,
    /// The client's port, as it stands on the wire.
    pub client_port: u16,
    /// The service's port, as it stands on the wire.
    pub service_port: u16,
    /// Low half of the flow's tag: a key that belongs to another is not used.
    pub tag: u32,
    /// The MAC address that the client's packets came from.
    pub client_mac: [u8; 6],
    /// Protocol.
    pub protocol: u8,
    /// Must be zero.
    pub spare: [u8; 17],
}

const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);
const _: () = assert!(size_of::<FlowKey>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_meta_word_do_not_touch() {
        let meta = Meta::new(0xab_cdef, 0x12, 0x3456, class::CLOSING | class::UDP);
        assert_eq!(meta.backend(), 0xab_cdef);
        assert_eq!(meta.generation(), 0x12);
        assert_eq!(meta.seen(), 0x3456);
        assert_eq!(meta.class(), class::CLOSING | class::UDP);
        assert!(!meta.is_quic() && Meta(meta.0 | QUIC).is_quic());
        assert_eq!(meta.with(1, class::NEW), Meta::new(0xab_cdef, 0x12, 1, 0));
        assert_eq!(Meta::new(u32::MAX, 0, 0, 0).0, 0xff_ffff);
    }

    #[test]
    fn each_class_has_its_idle_time() {
        use crate::layout::idle;
        assert_eq!(idle_index(class::NEW), idle::TCP_NEW);
        assert_eq!(idle_index(class::ESTABLISHED), idle::TCP_ESTABLISHED);
        assert_eq!(idle_index(class::CLOSING), idle::TCP_CLOSING);
        assert_eq!(idle_index(class::UDP), idle::UDP_NEW);
        assert_eq!(
            idle_index(class::UDP | class::ESTABLISHED),
            idle::UDP_ESTABLISHED
        );
    }
}
