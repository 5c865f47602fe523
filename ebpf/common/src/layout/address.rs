//! Addresses of both families in one shape.

/// An IPv4 or IPv6 address as the maps hold it: 16 bytes as they stand on the wire, IPv4 mapped
/// into `::ffff:0:0/96`.
///
/// # Shapes
/// Four words, each with its bytes in network order: `words[3]` of a mapped IPv4 address is the
/// address as it stands in a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u32; 4]);

/// The third word of a mapped IPv4 address.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Address {
    /// No address: `::`.
    pub const NONE: Self = Self([0; 4]);

    /// Returns the IPv4 address whose four bytes stand in `word` as on the wire.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// Returns the IPv4 address of these four bytes.
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(bytes))
    }

    /// Returns the IPv6 address of these sixteen bytes.
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        let mut words = [0; 4];
        let mut at = 0;
        while at < 4 {
            words[at] = u32::from_ne_bytes([
                bytes[at * 4],
                bytes[at * 4 + 1],
                bytes[at * 4 + 2],
                bytes[at * 4 + 3],
            ]);
            at += 1;
        }
        Self(words)
    }

    /// Returns whether it is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Returns its sixteen bytes, an IPv4 address mapped.
    pub const fn octets(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let mut at = 0;
        while at < 4 {
            let word = self.0[at].to_ne_bytes();
            bytes[at * 4] = word[0];
            bytes[at * 4 + 1] = word[1];
            bytes[at * 4 + 2] = word[2];
            bytes[at * 4 + 3] = word[3];
            at += 1;
        }
        bytes
    }

    /// Returns the name under which the services of the CIDR net `net` stand in
    /// [`VIPS`](super::maps::VIPS): no address of a packet, for it begins with twelve bytes of
    /// `0xff`.
    #[inline(always)]
    pub const fn of_net(net: u32) -> Self {
        Self([u32::MAX, u32::MAX, u32::MAX, net])
    }

    /// Returns which bit of the map [`FILTER`](super::maps::FILTER) stands for it.
    #[inline(always)]
    pub const fn filter_bit(&self) -> u32 {
        // An odd constant with well-mixed high bits (the golden ratio); addresses that differ in
        // their low bits alone, as those of one net do, get different bits.
        let word = if self.is_v4() {
            self.0[3]
        } else {
            self.0[0] ^ self.0[1].rotate_left(7) ^ self.0[2].rotate_left(13) ^ self.0[3]
        };
        Self::filter_bit_of_word(word)
    }

    /// [`Self::filter_bit`] of an IPv4 address as it stands on the wire.
    #[inline(always)]
    pub const fn filter_bit_of_word(word: u32) -> u32 {
        word.wrapping_mul(0x9e37_79b1) >> (32 - super::limits::FILTER_BITS_LOG2)
    }
}

#[cfg(feature = "host")]
impl From<std::net::IpAddr> for Address {
    fn from(address: std::net::IpAddr) -> Self {
        match address {
            std::net::IpAddr::V4(address) => Self::from_v4(address.octets()),
            std::net::IpAddr::V6(address) => Self::from_v6(address.octets()),
        }
    }
}

#[cfg(feature = "host")]
impl From<Address> for std::net::IpAddr {
    fn from(address: Address) -> Self {
        let octets = address.octets();
        if address.is_v4() {
            Self::from([octets[12], octets[13], octets[14], octets[15]])
        } else {
            Self::from(octets)
        }
    }
}

const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 4);
