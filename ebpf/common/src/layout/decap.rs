//! The node of a real: what it decapsulates.

/// Bits of the value of [`DECAP`](super::maps::DECAP), keyed by the outer destination address.
pub mod decap_flag {
    /// Take IPIP, 4in6, 6in4, IP6IP6.
    pub const IPIP: u32 = 1 << 0;
    /// Take GUE at [`Config::gue_port`](super::super::Config::gue_port).
    pub const GUE: u32 = 1 << 1;
    /// The reals of this address have their sockets in the interface's network namespace, so the
    /// decapsulator can look for a connection and pass a packet of somebody else's on to the
    /// previous real. Without it the first choice keeps all.
    pub const CHAIN: u32 = 1 << 2;
}
