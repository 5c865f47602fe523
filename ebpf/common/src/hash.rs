//! The keyed hash of flows.
//!
//! Two or five rounds of multiply, shift and exclusive or; the key goes in before the first
//! multiplication, so that who does not know it cannot choose flows that share a line of the table.

const C1: u64 = 0x9e37_79b9_7f4a_7c15;
const C2: u64 = 0xbf58_476d_1ce4_e5b9;
const C3: u64 = 0x94d0_49bb_1331_11eb;

#[inline(always)]
const fn round(state: u64, word: u64, by: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(by);
    product ^ (product >> 32)
}

/// The bit that every tag has, so that none is [`EMPTY`](crate::layout::flow::EMPTY) or
/// [`CLAIMED`](crate::layout::flow::CLAIMED).
const TAG: u64 = 1 << 63;

/// Returns the hash's state after the addresses of an IPv4 tuple, as on the wire.
#[inline(always)]
pub const fn half_v4(key: [u64; 2], source: u32, destination: u32) -> u64 {
    round(key[0], (source as u64) << 32 | destination as u64, C1)
}

/// Returns the hash's state after the addresses of an IPv6 tuple.
#[inline(always)]
pub const fn half_v6(key: [u64; 2], source: [u32; 4], destination: [u32; 4]) -> u64 {
    let state = round(key[0], (source[0] as u64) << 32 | source[1] as u64, C1);
    let state = round(state, (source[2] as u64) << 32 | source[3] as u64, C2);
    let state = round(
        state,
        (destination[0] as u64) << 32 | destination[1] as u64,
        C3,
    );
    round(
        state,
        (destination[2] as u64) << 32 | destination[3] as u64,
        C1,
    )
}

/// Returns the tag of a tuple from the state after its addresses; ports as on the wire.
#[inline(always)]
pub const fn whole(key: [u64; 2], half: u64, ports: u32, protocol: u8) -> u64 {
    let state = round(half ^ key[1], (ports as u64) << 8 | protocol as u64, C2);
    round(state, 0, C3) | TAG
}

/// Returns the tag of an IPv4 tuple; addresses and ports as on the wire.
#[inline(always)]
pub const fn v4(key: [u64; 2], source: u32, destination: u32, ports: u32, protocol: u8) -> u64 {
    whole(key, half_v4(key, source, destination), ports, protocol)
}

/// Returns the tag of an IPv6 tuple.
#[inline(always)]
pub const fn v6(
    key: [u64; 2],
    source: [u32; 4],
    destination: [u32; 4],
    ports: u32,
    protocol: u8,
) -> u64 {
    whole(key, half_v6(key, source, destination), ports, protocol)
}

/// Returns another 32-bit hash out of a tag, one for each `turn`.
#[inline(always)]
pub const fn again(tag: u64, turn: u32) -> u32 {
    (round(tag, (turn as u64 + 1).wrapping_mul(C3), C2) >> 16) as u32
}

/// Returns `hash` scaled to `0..size`.
#[inline(always)]
pub const fn scale(hash: u32, size: u32) -> u32 {
    ((hash as u64 * size as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

    #[test]
    fn neighbouring_flows_spread_evenly_over_lines_and_slots() {
        // 65,536 flows of 256 clients over 256 ports: 4,096 lines get 16 each.
        let mut lines = vec![0_u32; 4_096];
        let mut slots = vec![0_u32; 1_000];
        let mut tags = HashSet::new();
        for client in 0..256_u32 {
            for port in 0..256_u32 {
                let source = (0x0a00_0000 + client).to_be();
                let tag = v4(KEY, source, 0x6400_000a, (40_000 + port).to_be() | 0x50, 6);
                lines[tag as usize & 4_095] += 1;
                slots[scale((tag >> 20) as u32, 1_000) as usize] += 1;
                assert!(tags.insert(tag));
            }
        }
        // Chi-square of 4,095 and 999 degrees of freedom, five sigma.
        let chi = |cells: &[u32], expected: f64| -> f64 {
            let square = |cell: &u32| (f64::from(*cell) - expected).powi(2) / expected;
            cells.iter().map(square).sum()
        };
        assert!(chi(&lines, 16.0) < 4_095.0 + 5.0 * 90.5);
        assert!(chi(&slots, 65.536) < 999.0 + 5.0 * 44.7);
    }

    #[test]
    fn every_word_and_the_key_count() {
        let base = v6(KEY, [1, 2, 3, 4], [5, 6, 7, 8], 9, 6);
        for word in 0..4 {
            let mut source = [1, 2, 3, 4];
            source[word] ^= 1 << 31;
            assert_ne!(base, v6(KEY, source, [5, 6, 7, 8], 9, 6));
            let mut destination = [5, 6, 7, 8];
            destination[word] ^= 1 << 31;
            assert_ne!(base, v6(KEY, [1, 2, 3, 4], destination, 9, 6));
        }
        assert_ne!(base, v6(KEY, [1, 2, 3, 4], [5, 6, 7, 8], 9, 17));
        assert_ne!(base, v6([KEY[0], 0], [1, 2, 3, 4], [5, 6, 7, 8], 9, 6));
        assert_ne!(base, v6([0, KEY[1]], [1, 2, 3, 4], [5, 6, 7, 8], 9, 6));
    }
}
