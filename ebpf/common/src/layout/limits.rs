//! How much each map holds, and why.
//!
//! What may be sized when the maps are created says so; the loader then tells the kernel another
//! `max_entries` under the same name and writes the figure into [`Config`](super::Config) where a
//! field for it exists. Everything else is compiled into the programs.

/// Slots of one ring at most: prime, as Katran's and Maglev's. 65,537 slots share a weight of one
/// part in 65,537 out; a ring may have fewer ([`Vip::ring_size`](super::Vip)), of any size.
pub const RING_SLOTS: u32 = 65_537;

/// Slots in the map of all rings, by default: 16 full rings, 4 MiB. May be sized.
pub const RING_TABLE: u32 = 16 * RING_SLOTS;

/// Members of one service at most: a slot names one in 16 bits, and [`NO_MEMBER`] names none.
pub const MEMBERS_PER_VIP: u32 = 65_535;

/// In a slot: nobody.
pub const NO_MEMBER: u16 = u16::MAX;

/// Entries of the map of members of all services, by default. May be sized.
pub const MEMBERS: u32 = 131_072;

/// Records of backends (a real that serves one service), by default: 8 MiB. May be sized up to
/// [`BACKENDS_MAX`].
pub const BACKENDS: u32 = 131_072;

/// A flow names its backend in 24 bits.
pub const BACKENDS_MAX: u32 = 1 << 24;

/// Services, by default. May be sized; index 0 is not a service: what belongs to none is counted
/// there.
pub const VIPS: u32 = 4_096;

/// Entries of a line of the flow table: four of 16 bytes are one line of the cache.
pub const WAYS: usize = 4;

/// Lines of the flow table, by default: 262,144 lines are 1,048,576 flows in 16 MiB. May be sized
/// to any power of two; [`Config::flow_mask`](super::Config) is lines − 1. Memory pages of it are
/// 4 KiB, so that a table that is far too large costs misses of the TLB.
pub const FLOW_LINES: u32 = 262_144;

/// Entries of the table of translations (NAT), by default: 131,072 in 8 MiB. May be sized to any
/// power of two; [`Config::nat_mask`](super::Config) is entries − 1.
pub const NAT_ENTRIES: u32 = 131_072;

/// Ports that are tried for a new translation before it is refused: each is a hash away from the
/// one before.
pub const NAT_TRIES: u32 = 4;

/// Cells of each of the two rows that count new flows by source: at 65,536 a flood of a million
/// different sources a second adds about 15 to each cell. 1 MiB for both.
pub const SOURCE_CELLS: u32 = 65_536;

/// log2 of the bits of the filter of addresses: 65,536 bits, 8 KiB, stay in the cache, and 1,000
/// addresses let 1.5 % of foreign packets through to the lookup proper.
pub const FILTER_BITS_LOG2: u32 = 16;

/// Words of 64 bits of that filter.
pub const FILTER_WORDS: usize = 1 << (FILTER_BITS_LOG2 - 6);

/// CIDR services and block list entries, by default. May be sized.
pub const NETS: u32 = 4_096;

/// Entries of the block list, by default. May be sized.
pub const BLOCKED: u32 = 65_536;

/// QUIC server ids, by default. May be sized.
pub const QUIC_IDS: u32 = 65_536;

/// Addresses at which a node decapsulates, and peers it takes encapsulated packets from.
pub const DECAP_ADDRESSES: u32 = 256;
/// See [`DECAP_ADDRESSES`].
pub const DECAP_PEERS: u32 = 4_096;

/// Bytes of the ring buffer of events: 4,096 events. A full one drops events, never packets.
pub const EVENT_BYTES: u32 = 262_144;

/// Verdicts that are counted for each service: a row of 32 counters, 256 bytes.
pub const VERDICTS: u32 = 32;
