//! IPv4 and IPv6, as far as they differ.

use crate::checksum::Difference;
use crate::hash;
use crate::layout::Address;
use crate::machine::Machine;
use crate::window::Window;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Ethertypes, as they stand on the wire.
pub const TYPE_V4: u16 = 0x0800_u16.to_be();
/// See [`TYPE_V4`].
pub const TYPE_V6: u16 = 0x86dd_u16.to_be();

/// Protocol numbers.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// What the code for both families is written over.
pub trait Family: Copy {
    /// An address as it stands in the header.
    type Addr: Copy + PartialEq;
    /// The fixed part of the header.
    type Header: Copy;
    /// Bytes of that.
    const HEADER: usize;
    /// Where the next header begins.
    const L4: usize = ETHERNET + Self::HEADER;
    /// Ethertype.
    const TYPE: u16;
    /// The protocol number of a packet of this family in another one.
    const INSIDE: u8;
    /// Its ICMP.
    const ICMP: u8;

    /// Returns the header behind `at`.
    fn header<M: Machine>(machine: &M, at: usize) -> Option<Self::Header>;
    /// Source address.
    fn source(header: Self::Header) -> Self::Addr;
    /// Destination address.
    fn destination(header: Self::Header) -> Self::Addr;
    /// What follows.
    fn protocol(header: Self::Header) -> u8;
    /// Time to live.
    fn ttl(header: Self::Header) -> u8;
    /// Traffic class with ECN.
    fn class(header: Self::Header) -> u8;
    /// Bytes of the packet from the header on, as it says itself.
    fn length(header: Self::Header) -> usize;
    /// Returns whether version and header length are those of this family without options.
    fn plain(header: Self::Header) -> bool;
    /// Returns whether the version is this family's and the header length possible.
    fn version(header: Self::Header) -> bool;
    /// Returns whether it has options or extension headers.
    fn options(header: Self::Header) -> bool;
    /// Returns whether a protocol number is of an extension header.
    fn extends(protocol: u8) -> bool;
    /// Marks that congestion was met (ECN CE); the packet was capable of it.
    fn congested(header: Self::Header);
    /// Returns whether it is a fragment.
    fn fragment(header: Self::Header) -> bool;
    /// The shape that maps have it in.
    fn address(addr: Self::Addr) -> Address;
    /// The shape that packets have it in.
    fn addr(address: &Address) -> Self::Addr;
    /// Whether an address is of this family.
    fn is(address: &Address) -> bool;
    /// Bit of the filter.
    fn filter_bit(addr: Self::Addr) -> u32;
    /// State of the hash of a tuple after its addresses.
    fn half(key: [u64; 2], source: Self::Addr, to: Self::Addr) -> u64;
    /// Tag of a tuple.
    #[inline(always)]
    fn hash(key: [u64; 2], source: Self::Addr, to: Self::Addr, ports: u32, protocol: u8) -> u64 {
        hash::whole(key, Self::half(key, source, to), ports, protocol)
    }
    /// Hash of a source as the limit of new flows counts it.
    fn source_hash(key: [u64; 2], source: Self::Addr) -> u64;
    /// Whether no packet from outside may have this source.
    fn martian(source: Self::Addr) -> bool;
    /// Sum of the words of an address.
    fn sum(addr: Self::Addr) -> u64;
    /// Writes source and destination.
    fn write(header: Self::Header, source: Self::Addr, destination: Self::Addr);
    /// Counts the time to live down; `difference` is what else changes in the header.
    fn hop(header: Self::Header, difference: Difference);
    /// Changes the header's own checksum; returns how that changes sums over the header.
    fn checksum(header: Self::Header, difference: Difference) -> Difference;
    /// Writes the time to live.
    fn refresh(header: Self::Header, ttl: u8);
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy)]
pub struct V4;
/// IPv6 (RFC 8200).
#[derive(Clone, Copy)]
pub struct V6;

impl Family for V4 {
    type Addr = u32;
    type Header = Window<20>;
    const HEADER: usize = 20;
    const TYPE: u16 = TYPE_V4;
    const INSIDE: u8 = protocol::IPIP;
    const ICMP: u8 = protocol::ICMP;

    #[inline(always)]
    fn header<M: Machine>(machine: &M, at: usize) -> Option<Window<20>> {
        machine.window::<20>(at)
    }
    #[inline(always)]
    fn source(header: Window<20>) -> u32 {
        header.u32::<12>()
    }
    #[inline(always)]
    fn destination(header: Window<20>) -> u32 {
        header.u32::<16>()
    }
    #[inline(always)]
    fn protocol(header: Window<20>) -> u8 {
        header.u8::<9>()
    }
    #[inline(always)]
    fn ttl(header: Window<20>) -> u8 {
        header.u8::<8>()
    }
    #[inline(always)]
    fn class(header: Window<20>) -> u8 {
        header.u8::<1>()
    }
    #[inline(always)]
    fn length(header: Window<20>) -> usize {
        u16::from_be(header.u16::<2>()) as usize
    }
    #[inline(always)]
    fn plain(header: Window<20>) -> bool {
        header.u8::<0>() == 0x45
    }
    #[inline(always)]
    fn version(header: Window<20>) -> bool {
        header.u8::<0>() >> 4 == 4 && header.u8::<0>() & 15 >= 5
    }
    #[inline(always)]
    fn options(header: Window<20>) -> bool {
        header.u8::<0>() >> 4 == 4 && header.u8::<0>() & 15 > 5
    }
    #[inline(always)]
    fn extends(_protocol: u8) -> bool {
        false
    }
    #[inline(always)]
    fn congested(header: Window<20>) {
        let old = header.u16::<0>();
        header.set_u8::<1>(header.u8::<1>() | 3);
        let mut difference = Difference::new();
        difference.half(old, header.u16::<0>());
        header.set_u16::<10>(difference.apply(header.u16::<10>()));
    }
    #[inline(always)]
    fn fragment(header: Window<20>) -> bool {
        header.u16::<6>() & 0x3fff_u16.to_be() != 0
    }
    #[inline(always)]
    fn address(addr: u32) -> Address {
        Address::from_v4_word(addr)
    }
    #[inline(always)]
    fn addr(address: &Address) -> u32 {
        address.0[3]
    }
    #[inline(always)]
    fn is(address: &Address) -> bool {
        address.is_v4()
    }
    #[inline(always)]
    fn filter_bit(addr: u32) -> u32 {
        Address::filter_bit_of_word(addr)
    }
    #[inline(always)]
    fn half(key: [u64; 2], source: u32, to: u32) -> u64 {
        hash::half_v4(key, source, to)
    }
    #[inline(always)]
    fn source_hash(key: [u64; 2], source: u32) -> u64 {
        hash::v4(key, source, 0, 0, 0)
    }
    #[inline(always)]
    fn martian(source: u32) -> bool {
        let first = u32::from_be(source) >> 24;
        first == 0 || first == 127 || first >= 224
    }
    #[inline(always)]
    fn sum(addr: u32) -> u64 {
        u64::from(addr)
    }
    #[inline(always)]
    fn write(header: Window<20>, source: u32, destination: u32) {
        header.set_u32::<12>(source);
        header.set_u32::<16>(destination);
    }
    #[inline(always)]
    fn hop(header: Window<20>, mut difference: Difference) {
        let old = header.u16::<8>();
        header.set_u8::<8>(header.u8::<8>().wrapping_sub(1));
        difference.half(old, header.u16::<8>());
        header.set_u16::<10>(difference.apply(header.u16::<10>()));
    }
    #[inline(always)]
    fn checksum(header: Window<20>, difference: Difference) -> Difference {
        let old = header.u16::<10>();
        header.set_u16::<10>(difference.apply(old));
        let mut changed = Difference::new();
        changed.half(old, header.u16::<10>());
        changed
    }
    #[inline(always)]
    fn refresh(header: Window<20>, ttl: u8) {
        let old = header.u16::<8>();
        header.set_u8::<8>(ttl);
        let mut difference = Difference::new();
        difference.half(old, header.u16::<8>());
        header.set_u16::<10>(difference.apply(header.u16::<10>()));
    }
}

impl Family for V6 {
    type Addr = [u32; 4];
    type Header = Window<40>;
    const HEADER: usize = 40;
    const TYPE: u16 = TYPE_V6;
    const INSIDE: u8 = protocol::IPV6;
    const ICMP: u8 = protocol::ICMPV6;

    #[inline(always)]
    fn header<M: Machine>(machine: &M, at: usize) -> Option<Window<40>> {
        machine.window::<40>(at)
    }
    #[inline(always)]
    fn source(header: Window<40>) -> [u32; 4] {
        [
            header.u32::<8>(),
            header.u32::<12>(),
            header.u32::<16>(),
            header.u32::<20>(),
        ]
    }
    #[inline(always)]
    fn destination(header: Window<40>) -> [u32; 4] {
        [
            header.u32::<24>(),
            header.u32::<28>(),
            header.u32::<32>(),
            header.u32::<36>(),
        ]
    }
    #[inline(always)]
    fn protocol(header: Window<40>) -> u8 {
        header.u8::<6>()
    }
    #[inline(always)]
    fn ttl(header: Window<40>) -> u8 {
        header.u8::<7>()
    }
    #[inline(always)]
    fn class(header: Window<40>) -> u8 {
        header.u8::<0>() << 4 | header.u8::<1>() >> 4
    }
    #[inline(always)]
    fn length(header: Window<40>) -> usize {
        40 + u16::from_be(header.u16::<4>()) as usize
    }
    #[inline(always)]
    fn plain(header: Window<40>) -> bool {
        header.u8::<0>() >> 4 == 6
    }
    #[inline(always)]
    fn version(header: Window<40>) -> bool {
        Self::plain(header)
    }
    #[inline(always)]
    fn options(header: Window<40>) -> bool {
        Self::plain(header) && Self::extends(header.u8::<6>())
    }
    #[inline(always)]
    fn extends(protocol: u8) -> bool {
        // Hop-by-hop, routing, fragment, authentication, destination, mobility, HIP, shim6.
        matches!(protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
    }
    #[inline(always)]
    fn congested(header: Window<40>) {
        header.set_u8::<1>(header.u8::<1>() | 0x30);
    }
    #[inline(always)]
    fn fragment(header: Window<40>) -> bool {
        header.u8::<6>() == 44
    }
    #[inline(always)]
    fn address(addr: [u32; 4]) -> Address {
        Address(addr)
    }
    #[inline(always)]
    fn addr(address: &Address) -> [u32; 4] {
        address.0
    }
    #[inline(always)]
    fn is(address: &Address) -> bool {
        !address.is_v4()
    }
    #[inline(always)]
    fn filter_bit(addr: [u32; 4]) -> u32 {
        Address(addr).filter_bit()
    }
    #[inline(always)]
    fn half(key: [u64; 2], source: [u32; 4], to: [u32; 4]) -> u64 {
        hash::half_v6(key, source, to)
    }
    #[inline(always)]
    fn source_hash(key: [u64; 2], source: [u32; 4]) -> u64 {
        hash::v4(key, source[0], source[1], 0, 0)
    }
    #[inline(always)]
    fn martian(source: [u32; 4]) -> bool {
        let multicast = source[0].to_ne_bytes()[0] == 0xff;
        let near = source[0] == 0 && source[1] == 0 && source[2] == 0;
        multicast || near && u32::from_be(source[3]) <= 1
    }
    #[inline(always)]
    fn sum(addr: [u32; 4]) -> u64 {
        u64::from(addr[0]) + u64::from(addr[1]) + u64::from(addr[2]) + u64::from(addr[3])
    }
    #[inline(always)]
    fn write(header: Window<40>, source: [u32; 4], destination: [u32; 4]) {
        header.set_u32::<8>(source[0]);
        header.set_u32::<12>(source[1]);
        header.set_u32::<16>(source[2]);
        header.set_u32::<20>(source[3]);
        header.set_u32::<24>(destination[0]);
        header.set_u32::<28>(destination[1]);
        header.set_u32::<32>(destination[2]);
        header.set_u32::<36>(destination[3]);
    }
    #[inline(always)]
    fn hop(header: Window<40>, _difference: Difference) {
        header.set_u8::<7>(header.u8::<7>().wrapping_sub(1));
    }
    #[inline(always)]
    fn checksum(_header: Window<40>, _difference: Difference) -> Difference {
        Difference::new()
    }
    #[inline(always)]
    fn refresh(header: Window<40>, ttl: u8) {
        header.set_u8::<7>(ttl);
    }
}
