//! Backends: a real as it serves one service.

use super::Address;

/// [`Backend::state`].
pub mod state {
    /// Nobody: flows that still name it are new flows.
    pub const FREE: u8 = 0;
    /// Takes new flows and keeps its own.
    pub const ACTIVE: u8 = 1;
    /// Keeps its flows, takes no new ones.
    pub const DRAINING: u8 = 2;
    /// Dead: takes nothing; TCP flows that name it are answered with RST, UDP flows move.
    pub const DEAD: u8 = 3;
}

/// [`Backend::mode`].
pub mod mode {
    /// Direct server return: encapsulated in IPv4 if `address` is one, else in IPv6 (IPIP, 4in6,
    /// 6in4, IP6IP6 by what is inside), by RFC 2003 and 2473.
    pub const IPIP: u8 = 1;
    /// The same in UDP, GUE variant 1: the packet follows the UDP header at once.
    pub const GUE: u8 = 2;
    /// Addresses and ports are translated both ways; the real sees `source`.
    pub const NAT: u8 = 3;
    /// Direct server return on one segment: only the MAC addresses change.
    pub const L2: u8 = 4;
    /// The real is this host itself: the packet passes to its stack as it came.
    pub const LOCAL: u8 = 5;
}

/// Bits of [`Backend::flags`].
pub mod backend_flag {
    /// The outer source address' last 16 bits are the flow's hash, so that the real's network card
    /// spreads encapsulated flows over its queues. Not with networks that check sources, nor with
    /// [`flag::CHECK_PEERS`](crate::layout::flag::CHECK_PEERS) at the real.
    pub const SPREAD: u8 = 1 << 0;
    /// The real's node runs our decapsulator, which may pass a packet of somebody else's
    /// connection on to the slot's previous real (see the crate's documentation, "Two balancers").
    pub const CHAINS: u8 = 1 << 1;
}

/// An entry of [`BACKENDS`](super::maps::BACKENDS): one line of the cache.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// One of [`state`]. A single byte: written last when a record is filled, alone when a real is
    /// drained or dies; a packet sees it at once.
    pub state: u8,
    /// Counts up whenever the record is used for another backend, so that flows of the former one
    /// do not follow it.
    pub generation: u8,
    /// One of [`mode`].
    pub mode: u8,
    /// Bits of [`backend_flag`].
    pub flags: u8,
    /// Its service: [`Vip::index`](super::Vip::index).
    pub vip: u32,
    /// NAT: the real's port as it stands on the wire; 0: as the client wrote it.
    pub port: u16,
    /// The largest IP packet, in bytes, that may leave towards the real (outer headers counted).
    pub mtu: u16,
    /// The interface it leaves by; 0: the one it came in by.
    pub egress: u32,
    /// The real (IPIP and GUE: its node).
    pub address: Address,
    /// Outer source (IPIP, GUE) or translated source (NAT), of the family of `address`.
    pub source: Address,
    /// MAC address of the next hop towards `address`.
    pub next_hop: [u8; 6],
    /// MAC address that it is sent from.
    pub own: [u8; 6],
    /// Must be zero.
    pub spare: [u8; 4],
}

const _: () = assert!(size_of::<Backend>() == 64 && align_of::<Backend>() == 64);
