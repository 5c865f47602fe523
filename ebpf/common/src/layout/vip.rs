//! Services: what is found under an address, port and protocol.

use super::Address;

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;
/// Not a protocol: the record of the address itself ([`VipKey::address`]).
pub const ADDRESS: u8 = 0;

/// The key of [`VIPS`](super::maps::VIPS).
///
/// For a packet these are looked up, the first that is there counts:
/// `(address, port, protocol)`, `(address, 0, protocol)` (any port), and, if
/// [`NETS`](super::maps::NETS) has a net `n` around the address, the same two with
/// [`Address::of_net`]`(n)` for the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VipKey {
    /// Where clients connect to.
    pub address: Address,
    /// The port as it stands on the wire (`u16::to_be`); 0: any.
    pub port: u16,
    /// [`TCP`], [`UDP`] or [`ADDRESS`].
    pub protocol: u8,
    /// Must be zero.
    pub spare: u8,
}

impl VipKey {
    /// Returns the key of a service; `port` in host order, 0 for any.
    pub const fn new(address: Address, port: u16, protocol: u8) -> Self {
        Self {
            address,
            port: port.to_be(),
            protocol,
            spare: 0,
        }
    }

    /// Returns the key of the record that each address of a service (or net) has beside its
    /// services: it says what becomes of pings, of fragments, of ports that nobody serves.
    pub const fn address(address: Address) -> Self {
        Self::new(address, 0, ADDRESS)
    }
}

/// Bits of [`Vip::flags`].
pub mod vip_flag {
    /// UDP only: packets are QUIC, route by connection id where one is ours
    /// ([`quic`](crate::layout::quic)).
    pub const QUIC: u32 = 1 << 0;
    /// The ring is asked with the source's address alone: all flows of a client go to one real.
    pub const SOURCE_AFFINITY: u32 = 1 << 1;
    /// No entry in the flow table: every packet asks the ring (DNS and the like).
    pub const NO_FLOWS: u32 = 1 << 2;
    /// On the record of an address: answer ICMP echo requests.
    pub const ECHO: u32 = 1 << 3;
    /// On the record of an address: drop what goes to a port that no service has, instead of
    /// passing it to the host.
    pub const CLOSED: u32 = 1 << 4;
}

/// The value of [`VIPS`](super::maps::VIPS). An update replaces it whole, so a packet sees one
/// ring from start to end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vip {
    /// Bits of [`vip_flag`].
    pub flags: u32,
    /// The service's row in [`VIP_VERDICTS`](super::maps::VIP_VERDICTS); not 0.
    pub index: u32,
    /// Where its ring begins in [`RING`](super::maps::RING).
    pub ring: u32,
    /// How many slots it has; 0: no reals.
    pub ring_size: u32,
    /// Where its members begin in [`MEMBERS`](super::maps::MEMBERS).
    pub members: u32,
    /// New flows of one source in a second, instead of
    /// [`Config::source_limit`](super::Config::source_limit); 0: that one counts.
    pub source_limit: u32,
}

/// The key of [`NETS`](super::maps::NETS) and [`BLOCKED`](super::maps::BLOCKED): prefix length in
/// bits of the mapped address (IPv4 `/24` is 120), then the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetKey {
    /// 0 to 128.
    pub prefix: u32,
    /// The net's address; bits past the prefix do not matter.
    pub address: Address,
}

impl NetKey {
    /// Returns the key of `address/prefix`, the prefix as the family counts it.
    pub const fn new(address: Address, prefix: u8) -> Self {
        let base = if address.is_v4() { 96 } else { 0 };
        Self {
            prefix: base + prefix as u32,
            address,
        }
    }
}

const _: () = assert!(size_of::<VipKey>() == 20);
const _: () = assert!(size_of::<Vip>() == 24);
const _: () = assert!(size_of::<NetKey>() == 20);
