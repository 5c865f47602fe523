//! Packets for the L4 balancer: made, run on the host and in the kernel, compared.
//!
//! - [`Kernel`]: the programs in this machine's kernel, run by `BPF_PROG_TEST_RUN`.
//!
//! Nothing here is attached to an interface or pinned.

#![allow(
    clippy::cast_possible_truncation,
    reason = "lengths of packets and maps fit their fields"
)]

mod kernel;
mod memory;
pub mod sys;

pub use kernel::{Kernel, Program, Sizes, absent, load};
pub use memory::Memory;
