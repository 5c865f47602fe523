//! What holds for the whole balancer.

/// The version of everything in [`layout`](super): names, records, meanings. Pinned maps of
/// another version are not taken over.
pub const LAYOUT: u32 = 1;

/// Bits of [`Config::flags`].
pub mod flag {
    /// The balancer works; without it every packet passes to the host's stack.
    pub const ENABLED: u32 = 1 << 0;
    /// [`BLOCKED`](crate::layout::maps::BLOCKED) is not empty: look there for each packet.
    pub const BLOCK_LIST: u32 = 1 << 1;
    /// [`NETS`](crate::layout::maps::NETS) is not empty: some service has a net as its address.
    pub const NETS: u32 = 1 << 2;
    /// Some service translates (NAT): packets to [`nat_base`](super::Config::nat_base) and the ports after it may
    /// be answers.
    pub const NAT: u32 = 1 << 3;
    /// Packets that are encapsulated to an address in
    /// [`DECAP`](crate::layout::maps::DECAP) are decapsulated by the balancer, too.
    pub const DECAP: u32 = 1 << 4;
    /// Only peers in [`PEERS`](crate::layout::maps::PEERS) may send encapsulated packets.
    pub const CHECK_PEERS: u32 = 1 << 5;
    /// Who began each flow is written to [`FLOW_KEYS`](crate::layout::maps::FLOW_KEYS): for dumps
    /// and for telling clients of a real that died.
    pub const FLOW_KEYS: u32 = 1 << 6;
}

/// Which idle time applies: an index into [`Config::idle`].
pub mod idle {
    /// TCP, nothing but SYNs seen (or one packet without any SYN).
    pub const TCP_NEW: usize = 0;
    /// TCP, established.
    pub const TCP_ESTABLISHED: usize = 1;
    /// TCP, a FIN or RST of the client seen.
    pub const TCP_CLOSING: usize = 2;
    /// UDP, one packet seen.
    pub const UDP_NEW: usize = 3;
    /// UDP, more than one packet seen.
    pub const UDP_ESTABLISHED: usize = 4;
    /// How many there are, and spare ones.
    pub const COUNT: usize = 8;
}

/// A duration or a moment in the clock of flows.
///
/// # Units
/// 2³⁰ ns (1.07 s) of `CLOCK_MONOTONIC`, modulo 2¹⁶ (19.5 h).
pub type Ticks = u16;

/// Nanoseconds of a tick, as a power of two.
pub const TICK_SHIFT: u32 = 30;

/// Returns the ticks of so many seconds, rounded up, at most half the clock's range.
pub const fn ticks(seconds: u32) -> Ticks {
    let ticks = ((seconds as u64 * 1_000_000_000) >> TICK_SHIFT) + 1;
    if ticks > 0x7fff { 0x7fff } else { ticks as u16 }
}

/// The single entry of [`CONFIG`](super::maps::CONFIG).
///
/// User space may change any field at any time through mmap; each is read once for a packet.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// [`LAYOUT`]; with another the programs let everything pass.
    pub layout: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Key of the hashes of flows: secret, random, and **the same on every balancer of a set**,
    /// else two of them would choose different reals.
    pub key: [u64; 2],
    /// Lines of the flow table − 1.
    pub flow_mask: u32,
    /// Entries of the table of translations − 1.
    pub nat_mask: u32,
    /// New flows of one source (an IPv4 address, an IPv6 /64) in a second; 0: no limit.
    pub source_limit: u32,
    /// An event is told of each flow whose hash has these bits clear; `u32::MAX` hardly ever, 0
    /// always.
    pub sample_mask: u32,
    /// First source port of translated flows; reserve them
    /// (`net.ipv4.ip_local_reserved_ports`) or give NAT an address of its own.
    pub nat_base: u16,
    /// How many follow it.
    pub nat_count: u16,
    /// UDP port of GUE, in host order; 6080 by IANA.
    pub gue_port: u16,
    /// Must be zero.
    pub spare: u16,
    /// Idle times, in ticks, by [`idle`].
    pub idle: [Ticks; idle::COUNT],
}

impl Config {
    /// Returns what a balancer has that nobody configured: disabled, maps of default size.
    pub const fn new(key: [u64; 2]) -> Self {
        let mut times = [0; idle::COUNT];
        // RFC 9293 gives no limit; a SYN is retried for 127 s by Linux, but the flood must age.
        times[idle::TCP_NEW] = ticks(30);
        // RFC 5382 REQ-5: not less than 2 h 4 min.
        times[idle::TCP_ESTABLISHED] = ticks(7_500);
        // RFC 5382 REQ-5: transitory connections 4 min; data may follow a FIN from the other side.
        times[idle::TCP_CLOSING] = ticks(240);
        // RFC 4787 REQ-5: 2 min at least for a flow that goes on.
        times[idle::UDP_NEW] = ticks(30);
        times[idle::UDP_ESTABLISHED] = ticks(300);
        Self {
            layout: LAYOUT,
            flags: 0,
            key,
            flow_mask: super::limits::FLOW_LINES - 1,
            nat_mask: super::limits::NAT_ENTRIES - 1,
            source_limit: 0,
            sample_mask: u32::MAX,
            nat_base: 10_000,
            nat_count: 50_000,
            gue_port: 6_080,
            spare: 0,
            idle: times,
        }
    }
}

const _: () = assert!(size_of::<Config>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_no_shorter_than_the_seconds() {
        for seconds in [0, 1, 30, 7_500] {
            assert!(u64::from(ticks(seconds)) << TICK_SHIFT >= u64::from(seconds) * 1_000_000_000);
        }
        assert_eq!(ticks(1_000_000), 0x7fff);
    }
}
