//! Packets for the L4 balancer: made, run on the host and in the kernel, compared.
//!
//! - [`Kernel`]: the programs in this machine's kernel, run by `BPF_PROG_TEST_RUN`.
//!
//! - [`Course`]: programs over millions of packets, timed.
//! - [`describe`]: packets as text. [`Scene`]: a balancer with a service of every kind.
//!   [`fixtures`]: what goes in, what must come out.
//!
//! Nothing here is attached to an interface or pinned.

#![allow(
    clippy::cast_possible_truncation,
    reason = "lengths of packets and maps fit their fields"
)]

mod course;
pub mod describe;
mod fixture;
mod kernel;
mod memory;
mod scene;
pub mod sys;

pub use course::{Course, Floor, Packets};
pub use fixture::{Fixture, Step, fixtures};
pub use kernel::{Kernel, Program, Sizes, absent, load};
pub use memory::Memory;
pub use scene::{Scene, address};
