//! The memory that programs and user space share.

mod address;
mod backend;
mod config;
mod counters;
mod decap;
pub mod event;
pub mod flow;
pub mod limits;
pub mod maps;
pub mod nat;
pub mod quic;
pub mod slot;
mod vip;

pub use address::Address;
pub use backend::{Backend, backend_flag, mode, state};
pub use config::{Config, LAYOUT, TICK_SHIFT, Ticks, flag, idle, ticks};
pub use counters::{BackendCounters, Verdict};
pub use decap::decap_flag;
pub use vip::{ADDRESS, NetKey, TCP, UDP, Vip, VipKey, vip_flag};
