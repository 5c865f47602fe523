//! Translations: who is behind a port of ours.

use super::{Address, Ticks};

/// An entry of [`NAT`](super::maps::NAT): one line of the cache.
///
/// Found by the hash of (real, its port, our source, our port, protocol), the tuple that the real
/// answers to; entry `hash & nat_mask` or its neighbour (`^ 1`). Claimed as ways of the flow table
/// are. An entry is lost without harm: the next packet of the client makes the same one again, for
/// the port comes from the flow's hash.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// That hash, [`EMPTY`](super::flow::EMPTY) or [`CLAIMED`](super::flow::CLAIMED).
    pub tag: u64,
    /// The client.
    pub client: Address,
    /// The service's address that the client wrote to.
    pub service: Address,
    /// The client's port, as it stands on the wire.
    pub client_port: u16,
    /// The service's port, as it stands on the wire.
    pub service_port: u16,
    /// The backend.
    pub backend: u32,
    /// The interface that the client's packets come in by.
    pub ingress: u32,
    /// When a packet of either direction was last seen.
    pub seen: Ticks,
    /// Its [`class`](super::flow::class).
    pub class: u8,
    /// The backend's generation.
    pub generation: u8,
    /// The MAC address that the client's packets come from.
    pub client_mac: [u8; 6],
}

const _: () = assert!(size_of::<Translation>() == 64);
