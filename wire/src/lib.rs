//! The encodings: what travels on the links between roles, and what the Raft log holds.
//!
//! A message is one frame: a big-endian `u32` length, a version byte, and the message in the
//! postcard format (variable-length integers, fields in order, enums by index). So within one
//! version, fields and enum variants may only be appended to enums at their end and never to
//! structs; anything else is a new version. Golden bytes hold every message (`tests/golden.rs`).
//!
//! Garbage is an error, never a panic, and never an allocation that the received bytes do not pay
//! for. What the messages mean is for their receivers.
//!
//! * [`agent`]: agent ↔ manager
//! * [`ingress`]: ingress ↔ manager
//! * [`feed`]: agent ↔ ingress, health in one hop
//! * [`join`]: a new agent or ingress ↔ manager, before it has a certificate
//! * [`log`]: the commands in the Raft log
//! * [`frame`]: lengths, version byte, limits

pub mod agent;
pub mod feed;
pub mod frame;
pub mod ingress;
pub mod join;
pub mod log;

pub use frame::{DecodeError, EncodeError, VERSION, decode, encode, from_bytes, to_bytes};
