//! A packet of TCP or UDP, as far as its headers tell.

use crate::family::{Family, protocol};
use crate::layout::Ticks;

/// Flags of TCP (RFC 9293 §3.1).
pub mod tcp {
    /// The sender is done.
    pub const FIN: u8 = 1;
    /// A connection begins.
    pub const SYN: u8 = 2;
    /// A connection ends at once.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

/// Addresses, ports and what else decides.
#[derive(Clone, Copy)]
pub struct Flow<F: Family> {
    /// The tuple's hash.
    pub tag: u64,
    /// Who sent it.
    pub source: F::Addr,
    /// Where to.
    pub destination: F::Addr,
    /// Both ports as they stand on the wire, the source's first.
    pub ports: u32,
    /// [`protocol::TCP`] or [`protocol::UDP`].
    pub protocol: u8,
    /// Flags, of TCP.
    pub flags: u8,
    /// Traffic class.
    pub class: u8,
    /// Time to live.
    pub ttl: u8,
    /// Now.
    pub now: Ticks,
    /// Bytes from the IP header on.
    pub length: u16,
}

impl<F: Family> Flow<F> {
    /// Returns source and destination port, as they stand on the wire.
    #[inline(always)]
    pub const fn split(&self) -> (u16, u16) {
        split(self.ports)
    }

    /// Returns whether it is TCP's.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.protocol == protocol::TCP
    }

    /// Returns whether it asks for a connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// Returns whether no honest sender sends this.
    #[inline(always)]
    pub fn is_malformed(&self) -> bool {
        let (from, to) = self.split();
        if from == 0 || to == 0 || self.ttl == 0 {
            return true;
        }
        if F::martian(self.source) || self.source == self.destination {
            return true;
        }
        if !self.is_tcp() {
            return false;
        }
        let flags = self.flags;
        if flags & tcp::SYN != 0 {
            return flags & (tcp::FIN | tcp::RST) != 0;
        }
        // All but the first segment carry ACK, a RST may do without.
        flags & (tcp::ACK | tcp::RST) == 0
    }
}

/// Returns the two ports of a word.
#[inline(always)]
pub const fn split(ports: u32) -> (u16, u16) {
    let bytes = ports.to_ne_bytes();
    (
        u16::from_ne_bytes([bytes[0], bytes[1]]),
        u16::from_ne_bytes([bytes[2], bytes[3]]),
    )
}

/// Returns the word of two ports.
#[inline(always)]
pub const fn join(source: u16, destination: u16) -> u32 {
    let (one, two) = (source.to_ne_bytes(), destination.to_ne_bytes());
    u32::from_ne_bytes([one[0], one[1], two[0], two[1]])
}
