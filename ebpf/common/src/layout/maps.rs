//! Names of maps and programs.
//!
//! | map | kind | key → value | user space |
//! | --- | --- | --- | --- |
//! | [`CONFIG`] | array of 1, mmap | [`Config`](super::Config) | writes |
//! | [`FILTER`] | array of 1, mmap | `[u64; FILTER_WORDS]` | writes |
//! | [`VIPS`] | hash | [`VipKey`](super::VipKey) → [`Vip`](super::Vip) | writes |
//! | [`NETS`] | LPM trie | [`NetKey`](super::NetKey) → `u32`, the net's number | writes |
//! | [`BLOCKED`] | LPM trie | [`NetKey`](super::NetKey) → `u32`, any | writes |
//! | [`RING`] | array, mmap | slot → `u32` ([`slot`](super::slot)) | writes |
//! | [`MEMBERS`] | array, mmap | `Vip::members` + member → `u32`, index of a backend | writes |
//! | [`BACKENDS`] | array, mmap | [`Backend`](super::Backend) | writes |
//! | [`QUIC_IDS`] | hash | [`QuicKey`](super::quic::QuicKey) → `u32`, index of a backend | writes |
//! | [`FLOWS`] | array, mmap | [`Line`](super::flow::Line) | reads |
//! | [`FLOW_KEYS`] | array, mmap | [`FlowKey`](super::flow::FlowKey), four for each line | reads |
//! | [`NAT`] | array, mmap | [`Translation`](super::nat::Translation) | reads |
//! | [`SOURCES`] | array, mmap | two rows of cells | – |
//! | [`DECAP`] | hash | [`Address`](super::Address) → `u32` ([`decap_flag`](super::decap_flag)) | writes |
//! | [`PEERS`] | hash | [`Address`](super::Address) → `u32`, any | writes |
//! | [`BACKEND_COUNTERS`] | array per CPU | [`BackendCounters`](super::BackendCounters) | reads |
//! | [`VIP_VERDICTS`] | array per CPU | [`Vip::index`](super::Vip::index) → `[u64; 32]` by [`Verdict`](super::Verdict) | reads |
//! | [`EVENTS`] | ring buffer | [`Event`](super::event::Event) | reads |
//!
//! All arrays of bytes on the wire are in network order, all else in the host's.

/// See the table above.
pub const CONFIG: &str = "CONFIG";
/// See the table above.
pub const FILTER: &str = "FILTER";
/// See the table above.
pub const VIPS: &str = "VIPS";
/// See the table above.
pub const NETS: &str = "NETS";
/// See the table above.
pub const BLOCKED: &str = "BLOCKED";
/// See the table above.
pub const RING: &str = "RING";
/// See the table above.
pub const MEMBERS: &str = "MEMBERS";
/// See the table above.
pub const BACKENDS: &str = "BACKENDS";
/// See the table above.
pub const QUIC_IDS: &str = "QUIC_IDS";
/// See the table above.
pub const FLOWS: &str = "FLOWS";
/// See the table above.
pub const FLOW_KEYS: &str = "FLOW_KEYS";
/// See the table above.
pub const NAT: &str = "NAT";
/// See the table above.
pub const SOURCES: &str = "SOURCES";
/// See the table above.
pub const DECAP: &str = "DECAP";
/// See the table above.
pub const PEERS: &str = "PEERS";
/// See the table above.
pub const BACKEND_COUNTERS: &str = "BACKEND_COUNT";
/// See the table above.
pub const VIP_VERDICTS: &str = "VIP_VERDICTS";
/// See the table above.
pub const EVENTS: &str = "EVENTS";

/// Maps that an upgrade of the programs and a restart of the loader keep (pinned by these names).
/// [`EVENTS`] and [`SOURCES`] hold nothing that is worth it, but replacing a program needs all.
pub const ALL: &[&str] = &[
    CONFIG,
    FILTER,
    VIPS,
    NETS,
    BLOCKED,
    RING,
    MEMBERS,
    BACKENDS,
    QUIC_IDS,
    FLOWS,
    FLOW_KEYS,
    NAT,
    SOURCES,
    DECAP,
    PEERS,
    BACKEND_COUNTERS,
    VIP_VERDICTS,
    EVENTS,
];

/// The balancer (and decapsulator, with [`flag::DECAP`](super::flag::DECAP)). XDP.
pub const PROGRAM_BALANCE: &str = "ballast_balance";
/// The decapsulator alone, for nodes of reals. XDP.
pub const PROGRAM_DECAP: &str = "ballast_decap";
/// Passes everything: for the other end of a veth whose packets are sent back by `XDP_TX`. XDP.
pub const PROGRAM_PASS: &str = "ballast_pass";
