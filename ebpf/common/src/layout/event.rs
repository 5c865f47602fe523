//! Events: flows, told by sample.

use super::Address;

/// [`Event::kind`].
pub mod kind {
    /// A flow began.
    pub const NEW: u8 = 1;
    /// A flow was reset, for its real is dead.
    pub const RESET: u8 = 2;
    /// A packet was dropped; `verdict` says why.
    pub const DROPPED: u8 = 3;
}

/// A record of the ring buffer [`EVENTS`](super::maps::EVENTS).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, coarse, in ns.
    pub time: u64,
    /// The client.
    pub client: Address,
    /// Where it connected to.
    pub service: Address,
    /// The backend; `u32::MAX`: none.
    pub backend: u32,
    /// The service: [`Vip::index`](super::Vip::index), 0 for none.
    pub vip: u32,
    /// As it stands on the wire.
    pub client_port: u16,
    /// As it stands on the wire.
    pub service_port: u16,
    /// Protocol.
    pub protocol: u8,
    /// One of [`kind`].
    pub kind: u8,
    /// A [`Verdict`](super::Verdict).
    pub verdict: u8,
    /// Must be zero.
    pub spare: u8,
}

const _: () = assert!(size_of::<Event>() == 56);
