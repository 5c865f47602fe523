//! QUIC connection ids that name a real.
//!
//! A server that wants its connections to survive a client's change of address or port issues
//! connection ids of this layout (at least [`LENGTH`] bytes, RFC 9000 §5.1):
//!
//! | byte | holds |
//! | --- | --- |
//! | 0 | high three bits [`VERSION`] (`0b010`), low five bits anything |
//! | 1 to 3 | the server id, big endian, 1 to 2²⁴−1, as user space gave it to the real |
//! | 4 | [`check`] of the four bytes before, so that few ids of other makers are mistaken for ours |
//! | 5 and on | anything, unpredictable |
//!
//! Short headers, Handshake and Retry-less long headers carry the id that the server chose; Initial
//! and 0-RTT carry one that the client made up, and go by the flow table and the ring as all UDP
//! does. So does whatever has another layout, a wrong check byte or an unknown server id.

/// Bytes of an id that are looked at.
pub const LENGTH: usize = 5;

/// High three bits of the first byte.
pub const VERSION: u8 = 0b010;

/// Returns the check byte of the first four bytes.
#[inline(always)]
pub const fn check(id: [u8; 4]) -> u8 {
    let word = u32::from_be_bytes(id);
    // Any fixed mixture does; this is no protection against those who forge.
    (word.wrapping_mul(0x9e37_79b1) >> 24) as u8 ^ 0x5a
}

/// Returns the beginning of an id of the server `server`; `any` fills the five free bits.
pub const fn prefix(server: u32, any: u8) -> [u8; LENGTH] {
    let bytes = server.to_be_bytes();
    let id = [VERSION << 5 | (any & 0x1f), bytes[1], bytes[2], bytes[3]];
    [id[0], id[1], id[2], id[3], check(id)]
}

/// Returns the server that an id names, if it has this layout.
#[inline(always)]
pub const fn server(id: [u8; LENGTH]) -> Option<u32> {
    if id[0] >> 5 != VERSION || id[4] != check([id[0], id[1], id[2], id[3]]) {
        return None;
    }
    Some(u32::from_be_bytes([0, id[1], id[2], id[3]]))
}

/// The key of [`QUIC_IDS`](super::maps::QUIC_IDS); the value is the index of the backend (`u32`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuicKey {
    /// The service: [`Vip::index`](super::Vip::index).
    pub vip: u32,
    /// The server id.
    pub server: u32,
}

const _: () = assert!(size_of::<QuicKey>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_read_back_and_a_flipped_bit_is_noticed() {
        for number in [1, 0x1234, 0xff_ffff] {
            let id = prefix(number, 0xff);
            assert_eq!(server(id), Some(number));
            for byte in [0, 4] {
                let mut other = id;
                other[byte] ^= 0x80;
                assert_eq!(server(other), None);
            }
        }
    }
}
